//! The command as its users meet it: run in private hosts, judged by traffic and by what the host looks like.
//!
//! Every test makes a host of its own. Needs root, or `unshare -Urnm`; `WHARF_BIN` names another binary to judge.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod attacks_flood;
mod attacks_host;
mod attacks_nd;
mod attacks_ports;
mod attacks_race;
mod cni;
mod cni_addresses;
mod cni_bridge;
mod cni_chain;
mod cni_check;
mod cni_crash;
mod cni_extras;
mod cni_networks;
mod cni_nonsense;
mod cni_reference;
mod cni_runtime;
mod cni_storm;
mod common;
mod containerd;
mod crash;
mod doctor;
mod dry_run;
mod errors;
mod errors_state;
mod exposure;
mod fail_closed;
mod fail_closed_ports;
mod gc;
mod guards;
mod guards_network;
mod install;
mod liar;
mod lifecycle;
mod neighbours;
mod neighbours_docker;
mod neighbours_firewalld;
mod netavark;
mod netavark_dns;
mod netavark_found;
mod netavark_options;
mod netavark_refused;
mod networks;
mod options;
mod podman;
mod podman_rootless;
mod publish;
mod reachability;
mod repair;
mod run;
mod serve;
mod state;
mod storage;
mod story;
mod taken_back;
mod taken_back_liars;
mod topology_file;
mod trace;
mod trace_live;
