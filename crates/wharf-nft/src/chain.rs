//! Chains (`enum nft_chain_attributes`, `enum nft_hook_attributes`).

use std::fmt;

use crate::types::{Family, Hook, flags};
use crate::userdata::Userdata;
use crate::wire::{Attrs, Malformed, Writer, text};

pub(crate) const TABLE: u16 = 1;
pub(crate) const HANDLE: u16 = 2;
pub(crate) const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const USE: u16 = 6;
const TYPE: u16 = 7;
const FLAGS: u16 = 10;
const USERDATA: u16 = 12;
const HOOK_NUM: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEV: u16 = 3;
const HOOK_DEVS: u16 = 4;
const DEVICE_NAME: u16 = 1;

flags! {
    /// `enum nft_chain_flags`.
    ChainFlags { BASE = 1 "NFT_CHAIN_BASE", HW_OFFLOAD = 2 "NFT_CHAIN_HW_OFFLOAD", BINDING = 4 "NFT_CHAIN_BINDING" }
}

/// Type of a base chain (`NFTA_CHAIN_TYPE`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChainType {
    /// `filter`.
    Filter,
    /// `nat`: sees only the first packet of a connection.
    Nat,
    /// `route`: a changed packet is routed again.
    Route,
    /// A name this crate does not know.
    Other(String),
}

impl fmt::Display for ChainType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
            Self::Other(name) => name,
        })
    }
}

impl From<String> for ChainType {
    fn from(name: String) -> Self {
        match name.as_str() {
            "filter" => Self::Filter,
            "nat" => Self::Nat,
            "route" => Self::Route,
            _ => Self::Other(name),
        }
    }
}

/// What happens at the end of a base chain (`NFTA_CHAIN_POLICY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// `NF_ACCEPT`.
    #[default]
    Accept,
    /// `NF_DROP`.
    Drop,
}

/// Where and when a base chain runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// `NFTA_CHAIN_TYPE`.
    pub kind: ChainType,
    /// `NFTA_HOOK_HOOKNUM`.
    pub hook: Hook,
    /// `NFTA_HOOK_PRIORITY`: lower runs earlier.
    pub priority: i32,
    /// `NFTA_CHAIN_POLICY`.
    pub policy: Policy,
    /// `NFTA_HOOK_DEVS`: devices of `netdev` and ingress chains.
    pub devices: Vec<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Address family.
    pub family: Family,
    /// `NFTA_CHAIN_TABLE`.
    pub table: String,
    /// `NFTA_CHAIN_NAME`.
    pub name: String,
    /// Present if the chain is attached to a hook.
    pub base: Option<BaseChain>,
    /// `NFTA_CHAIN_FLAGS`.
    pub flags: ChainFlags,
    /// `NFTA_CHAIN_HANDLE`; only from the kernel.
    pub handle: Option<u64>,
    /// `NFTA_CHAIN_USE`, rules in it and jumps to it; only from the kernel.
    pub uses: Option<u32>,
    /// `NFTA_CHAIN_USERDATA`.
    pub userdata: Userdata,
}

impl Chain {
    /// A regular chain, reached by jump or goto.
    #[must_use]
    pub fn new(family: Family, table: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            family,
            table: table.into(),
            name: name.into(),
            base: None,
            flags: ChainFlags::default(),
            handle: None,
            uses: None,
            userdata: Userdata::default(),
        }
    }

    /// Attaches the chain to a hook.
    #[must_use]
    pub fn with_base(mut self, kind: ChainType, hook: Hook, priority: i32, policy: Policy) -> Self {
        self.base = Some(BaseChain {
            kind,
            hook,
            priority,
            policy,
            devices: Vec::new(),
        });
        self
    }

    /// With a comment that `nft list` shows.
    #[must_use]
    pub fn with_comment(mut self, text: &str) -> Self {
        self.userdata = Userdata::comment(text);
        self
    }

    /// The comment.
    #[must_use]
    pub fn comment(&self) -> Option<String> {
        self.userdata.read_comment()
    }

    pub(crate) fn encode(&self, w: &mut Writer) -> Result<(), &'static str> {
        w.str(TABLE, &self.table);
        w.str(NAME, &self.name);
        if let Some(base) = &self.base {
            let number = base
                .hook
                .number(self.family)
                .ok_or("this family has no such hook")?;
            w.nest(HOOK, |w| base.encode_hook(number, w));
            w.u32(POLICY, u32::from(base.policy == Policy::Accept));
            w.str(TYPE, &base.kind.to_string());
        }
        let flags = self.flags.0 & !ChainFlags::BASE.0;
        if flags != 0 {
            w.u32(FLAGS, flags);
        }
        self.userdata.put(USERDATA, w);
        Ok(())
    }

    pub(crate) fn decode(family: Family, attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            family,
            table: attrs.need_str(TABLE)?,
            name: attrs.need_str(NAME)?,
            base: attrs
                .nested(HOOK)?
                .map(|hook| BaseChain::decode(family, attrs, &hook))
                .transpose()?,
            flags: ChainFlags(attrs.u32(FLAGS)?.unwrap_or_default()),
            handle: attrs.u64(HANDLE)?,
            uses: attrs.u32(USE)?,
            userdata: Userdata(attrs.get(USERDATA).unwrap_or_default().to_vec()),
        })
    }
}

impl BaseChain {
    fn encode_hook(&self, number: u32, w: &mut Writer) {
        w.u32(HOOK_NUM, number);
        w.u32(HOOK_PRIORITY, self.priority.cast_unsigned());
        match self.devices.as_slice() {
            [] => {}
            [one] => w.str(HOOK_DEV, one),
            many => w.nest(HOOK_DEVS, |w| {
                many.iter().for_each(|name| w.str(DEVICE_NAME, name))
            }),
        }
    }

    fn decode(family: Family, attrs: &Attrs<'_>, hook: &Attrs<'_>) -> Result<Self, Malformed> {
        let mut devices: Vec<String> = match hook.nested(HOOK_DEVS)? {
            Some(list) => list
                .iter()
                .map(|(_, name)| text(name))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        if devices.is_empty() {
            devices.extend(hook.str(HOOK_DEV)?);
        }
        let number = hook
            .u32(HOOK_NUM)?
            .ok_or(Malformed("hook without number"))?;
        Ok(Self {
            kind: attrs.need_str(TYPE)?.into(),
            hook: Hook::from_number(family, number),
            priority: hook.u32(HOOK_PRIORITY)?.unwrap_or_default().cast_signed(),
            policy: if attrs.u32(POLICY)? == Some(0) {
                Policy::Drop
            } else {
                Policy::Accept
            },
            devices,
        })
    }
}
