//! The command as its users meet it: run in private hosts, judged by traffic and by what the host looks like.
//!
//! Every test makes a host of its own. Needs root, or `unshare -Urnm`; `WHARF_BIN` names another binary to judge.

mod attacks;
mod attacks_flood;
mod attacks_host;
mod attacks_nd;
mod attacks_race;
mod cni;
mod cni_chain;
mod cni_crash;
mod cni_extras;
mod cni_runtime;
mod common;
mod dry_run;
mod errors;
mod errors_state;
mod guards;
mod guards_network;
mod install;
mod liar;
mod lifecycle;
mod neighbours;
mod networks;
mod options;
mod publish;
mod reachability;
mod run;
mod state;
mod story;
mod topology_file;
mod trace;
