//! Sysctls of a container's namespace that a client asked for: a namespace that stays gets them back when a later step
//! fails.

use std::collections::BTreeMap;
use std::path::Path;

use wharf_core::attach::AttachRequest;
use wharf_core::model::Netns;
use wharf_core::op::Op;
use wharf_core::plan::{Plan, Undo};

use crate::engine::Engine;
use crate::engine::host::failed;
use crate::error::EngineError;

impl Engine {
    /// The values of the sysctls asked for, as they are; one of an interface that is not there yet has none.
    pub(super) fn sysctls_before(
        &mut self,
        netns: &Path,
        wanted: &[AttachRequest],
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let place = Netns::Path(netns.to_owned());
        let mut all = BTreeMap::new();
        for key in wanted.iter().flat_map(|a| a.extras.sysctls.keys()) {
            let value = self.kernel.sysctl(&place, key);
            let value = value.map_err(|e| failed(&format!("read sysctl {key}"), &e))?;
            all.extend(value.map(|v| (key.clone(), v)));
        }
        Ok(all)
    }
}

/// Makes the way back of steps that set sysctls.
pub(super) fn give_back(plan: &mut Plan, before: &BTreeMap<String, String>) {
    for step in &mut plan.steps {
        if let Op::SysctlSet { netns, key, .. } = &step.op
            && *netns != Netns::Host
            && let Some(value) = before.get(key)
        {
            step.undo = Undo::Ops(vec![Op::SysctlSet {
                netns: netns.clone(),
                key: key.clone(),
                value: value.clone(),
            }]);
        }
    }
}
