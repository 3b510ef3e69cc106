//! What systemd-networkd would do to wharf's links and routing rules, for `doctor`.

use std::path::Path;

use wharf_core::model::Netns;

use crate::engine::Engine;
use crate::engine::host::failed;
use crate::error::EngineError;
use crate::observe::networkd;

impl Engine {
    /// Bridges and cables of wharf's that networkd takes for its own to set up.
    pub(super) fn managed(&mut self) -> Result<Vec<String>, EngineError> {
        let networks = self.networks()?.into_iter().map(|v| v.spec);
        let bridges = networks.filter(|net| net.has_own_bridge() && net.found.is_none());
        let bridges = bridges.map(|net| net.bridge.to_string());
        let containers = self.containers()?.into_iter();
        let cables = containers.flat_map(|c| c.attachments);
        let cables = cables.map(|a| a.host_interface.to_string());
        let own: Vec<String> = bridges.chain(cables).collect();
        let links = self.kernel.links(&Netns::Host);
        let links = links.map_err(|e| failed("list links", &e))?;
        let managed = links
            .into_iter()
            .filter(|l| own.contains(&l.name) && networkd::manages(Path::new("/"), l.index));
        Ok(managed.map(|l| l.name).collect())
    }

    /// Whether routing rules of wharf's are there that networkd removes.
    pub(super) fn rules_at_risk(&mut self) -> Result<bool, EngineError> {
        let any = self.networks()?.iter().any(|v| v.spec.is_managed());
        Ok(any && networkd::removes_rules(Path::new("/")))
    }
}
