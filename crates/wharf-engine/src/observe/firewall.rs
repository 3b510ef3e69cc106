//! What other tools have in nftables that concerns wharf.

use std::io;

use wharf_core::nft::Table;
use wharf_nft::{Chain, Hook, Policy};

use crate::kernel::netlink::{NetlinkKernel, nft_apply::to_io};

/// A chain of somebody else that drops what nobody accepts, where packets are forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardDrop {
    /// nft's word for the family.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The priority.
    pub priority: i32,
}

impl NetlinkKernel {
    /// The socket to nftables, for reading other tools' rules and entering those they invite.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn nftables(&mut self) -> Result<&mut wharf_nft::NfSocket, wharf_nft::NftError> {
        self.nf().map_err(|source| wharf_nft::NftError::Socket {
            action: "open",
            source,
        })
    }

    fn chains(&mut self) -> io::Result<Vec<Chain>> {
        self.nf()?.dump_chains().map_err(to_io)
    }

    /// Base chains of other tables at the forward hook whose policy is to drop.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forward_policy_drops(&mut self) -> io::Result<Vec<ForwardDrop>> {
        let found = |chain: Chain| {
            let base = chain.base?;
            let drops = base.hook == Hook::Forward
                && base.policy == Policy::Drop
                && chain.table != Table::NAME;
            drops.then(|| ForwardDrop {
                family: chain.family.to_string(),
                table: chain.table,
                chain: chain.name,
                priority: base.priority,
            })
        };
        Ok(self.chains()?.into_iter().filter_map(found).collect())
    }

    /// Whether Docker's chain for the administrator's rules is there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn has_docker_user(&mut self) -> io::Result<bool> {
        Ok(self.chains()?.iter().any(|c| c.name == "DOCKER-USER"))
    }
}
