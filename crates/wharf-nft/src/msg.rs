//! Message numbers (`enum nf_tables_msg_types`; the last six are newer than some headers).

/// `NFNL_SUBSYS_NFTABLES << 8`.
pub(crate) const NFTABLES: u16 = 10 << 8;

pub(crate) const NEWTABLE: u16 = 0;
pub(crate) const GETTABLE: u16 = 1;
pub(crate) const DELTABLE: u16 = 2;
pub(crate) const NEWCHAIN: u16 = 3;
pub(crate) const GETCHAIN: u16 = 4;
pub(crate) const DELCHAIN: u16 = 5;
pub(crate) const NEWRULE: u16 = 6;
pub(crate) const GETRULE: u16 = 7;
pub(crate) const DELRULE: u16 = 8;
pub(crate) const NEWSET: u16 = 9;
pub(crate) const GETSET: u16 = 10;
pub(crate) const DELSET: u16 = 11;
pub(crate) const NEWSETELEM: u16 = 12;
pub(crate) const GETSETELEM: u16 = 13;
pub(crate) const DELSETELEM: u16 = 14;
pub(crate) const GETGEN: u16 = 16;
pub(crate) const TRACE: u16 = 17;
pub(crate) const NEWOBJ: u16 = 18;
pub(crate) const GETOBJ: u16 = 19;
pub(crate) const DELOBJ: u16 = 20;
pub(crate) const DESTROYTABLE: u16 = 26;
pub(crate) const DESTROYCHAIN: u16 = 27;
pub(crate) const DESTROYRULE: u16 = 28;
pub(crate) const DESTROYSET: u16 = 29;
pub(crate) const DESTROYSETELEM: u16 = 30;
pub(crate) const DESTROYOBJ: u16 = 31;
