//! The command as its users meet it: run in private hosts, judged by traffic and by what the host looks like.
//!
//! Every test makes a host of its own. Needs root, or `unshare -Urnm`; `WHARF_BIN` names another binary to judge.

mod common;
mod crash;
mod doctor;
mod dry_run;
mod errors;
mod errors_state;
mod exposure;
mod fail_closed;
mod gc;
mod guards;
mod guards_network;
mod lifecycle;
mod networks;
mod options;
mod publish;
mod reachability;
mod repair;
mod run;
mod serve;
mod state;
mod storage;
mod story;
mod topology_file;
mod trace;
