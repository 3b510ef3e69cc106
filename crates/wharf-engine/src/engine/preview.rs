//! Plans of several changes in a row, for dry runs: each follows from what the ones before would have left.

use wharf_core::attach::assign_default_routes;
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::plan::Plan;

use crate::api::NetworkView;
use crate::engine::flows::flush_udp;
use crate::engine::{Engine, Networks};
use crate::error::EngineError;

impl Engine {
    /// What taking all containers off these networks would do. It is written to the store on the way, and then forgotten.
    pub(super) fn preview_disconnects(
        &mut self,
        views: &[NetworkView],
    ) -> Result<Plan, EngineError> {
        let mut containers = Vec::new();
        for name in views.iter().flat_map(|v| &v.containers) {
            containers.push(self.container(name)?);
        }
        let nets = self.networks_of(&containers)?;
        let mut txn = self.run.begin()?;
        let mut plan = Plan::default();
        for view in views {
            let network = &view.spec.name;
            for name in &view.containers {
                let read = self.run.containers.get(&txn, name.as_str());
                let Some(before) = read.map_err(|e| self.run.fail(e))? else {
                    continue;
                };
                let mut after = before.clone();
                after.attachments.retain(|a| a.network != *network);
                assign_default_routes(&mut after.attachments, |name| nets.get(name));
                let because = format!("container `{name}` leaves network `{network}`");
                plan.append(self.change_plan(&txn, &before, &after, &nets, &because)?);
                plan.append(flush_udp(&before.ports));
                let (was, is) = (
                    self.loopback_networks(&before, &nets),
                    self.loopback_networks(&after, &nets),
                );
                self.count_new_loopback(&mut txn, &was, &after, &nets)?;
                let written = (|| {
                    for gone in was.iter().filter(|n| !is.contains(n)) {
                        self.count_loopback(&mut txn, gone, -1)?;
                    }
                    self.run.put_container(&mut txn, &after)
                })();
                written.map_err(|e| self.run.fail(e))?;
            }
        }
        Ok(plan)
    }

    /// What becomes of networks that go with their last container, when these leave one of them.
    pub(super) fn preview_release(
        &mut self,
        nets: &Networks,
        leaving: &[&ContainerName],
    ) -> Result<Plan, EngineError> {
        let mut plan = Plan::default();
        let mut gone: Vec<NetworkName> = Vec::new();
        for spec in nets.values().filter(|n| n.is_transient()) {
            let users = self.run.read(|txn| self.users(txn, &spec.name))?;
            if users.iter().all(|name| leaving.contains(&name)) {
                plan.append(self.take_down_plan(spec, &gone)?);
                gone.push(spec.name.clone());
            }
        }
        Ok(plan)
    }
}
