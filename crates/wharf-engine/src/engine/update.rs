//! What of a container or network changes while it stays: the order of a container's networks, and labels.

use std::collections::BTreeMap;

use wharf_core::attach::{Container, Misplaced, Place, assign_default_routes};
use wharf_core::name::{ContainerName, NetworkName};
use wharf_core::network::OWNER;

use crate::api::{Mode, ObjectName, Outcome};
use crate::engine::flows::flush_udp;
use crate::engine::{Engine, Networks, applies, journal_key, owner_of};
use crate::error::EngineError;
use crate::store::{LiveNetwork, Work};

/// What a container is to have; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// Its networks in order, each with its priority and further names.
    pub places: Option<Vec<Place>>,
    /// Its labels.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Engine {
    /// Gives a container another order of its networks, or other labels. Default routes and published ports follow the
    /// order; cables and addresses stay.
    ///
    /// # Errors
    /// The order is not one of its networks; the kernel refused, and all is as before.
    pub fn update(
        &mut self,
        name: &ContainerName,
        update: &Update,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        self.in_turn(|engine| engine.try_update(name, update, mode))
    }

    fn try_update(
        &mut self,
        name: &ContainerName,
        update: &Update,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let before = self.container(name)?;
        let nets = self.networks_of(std::slice::from_ref(&before))?;
        let mut after = before.clone();
        if let Some(places) = &update.places {
            after.arrange(places).map_err(|why| misplaced(name, why))?;
            assign_default_routes(&mut after.attachments, |name| nets.get(name));
        }
        if let Some(labels) = &update.labels {
            after.labels.clone_from(labels);
        }
        let mut txn = self.run.begin()?;
        let because = format!("the networks of container `{name}` have another order");
        let mut plan = self.change_plan(&txn, &before, &after, &nets, &because)?;
        if !plan.is_empty() {
            plan.append(flush_udp(&before.ports));
        }
        if !applies(mode) || before == after {
            drop(txn);
        } else {
            self.check_turn(&txn, &before)?;
            let served = self.loopback_networks(&before, &nets);
            self.count_new_loopback(&mut txn, &served, &after, &nets)?;
            let key = journal_key(&ObjectName::Container(name.clone()));
            let work = Work::Update(Box::new(after.clone()));
            self.put(&mut txn, &before, (&key, work))?;
            self.run.commit(txn)?;
            let done = self.carry_out(&plan, || format!("update container `{name}`"));
            let (was, is) = match done {
                Ok(()) => (&before, &after),
                Err(_) => (&after, &before),
            };
            self.finish_update(was, is, &nets, &key)?;
            done?;
        }
        Ok(Outcome {
            value: (),
            plan,
            notes: self.take_notes(),
        })
    }

    /// The record, and who needs the host's loopback, once a container is `is` and no longer `was`.
    pub(super) fn finish_update(
        &mut self,
        was: &Container,
        is: &Container,
        nets: &Networks,
        key: &str,
    ) -> Result<(), EngineError> {
        self.finish_change((was, is), None, nets, key, |_, _| Ok(()))
    }

    /// Gives a network other labels.
    ///
    /// # Errors
    /// There is none of that name, or another front end defines it; the store's.
    pub fn network_update(
        &mut self,
        name: &NetworkName,
        labels: &BTreeMap<String, String>,
        mode: Mode,
    ) -> Result<Outcome<()>, EngineError> {
        let _lock = self.lock_host()?;
        let view = self.network(name)?;
        if owner_of(&view.spec) != OWNER {
            return Err(EngineError::Anothers {
                object: ObjectName::Network(name.clone()),
                owner: owner_of(&view.spec).to_owned(),
            });
        }
        if applies(mode) && view.spec.labels != *labels {
            let set = |engine: &Self, labels: &BTreeMap<String, String>| {
                engine.run.write(|txn| {
                    let Some(mut live) = engine.run.networks.get(txn, name.as_str())? else {
                        return Ok(());
                    };
                    live.spec.labels.clone_from(labels);
                    let live: LiveNetwork = live;
                    engine.run.networks.put(txn, name.as_str(), &live)
                })
            };
            set(self, labels)?;
            let mut spec = view.spec.clone();
            spec.labels.clone_from(labels);
            if let Err(error) = self.state()?.put(&spec) {
                set(self, &view.spec.labels)?;
                return Err(error);
            }
        }
        Ok(Outcome {
            value: (),
            plan: wharf_core::plan::Plan::default(),
            notes: self.take_notes(),
        })
    }
}

fn misplaced(container: &ContainerName, why: Misplaced) -> EngineError {
    match why {
        Misplaced::Twice(network) => EngineError::NetworkTwice(network),
        Misplaced::NotAttached(network) => EngineError::NotAttached {
            container: container.clone(),
            network,
        },
        Misplaced::Missing(network) => EngineError::NetworkUnnamed {
            container: container.clone(),
            network,
        },
    }
}
