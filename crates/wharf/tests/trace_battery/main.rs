//! `wharf trace` on broken and on sound networks, made by wharf, by hand and by other tools.
//!
//! Every case is data: a host, what is broken on it, the question, the right answer. Real traffic proves that it is
//! broken, the advice is followed, and real traffic proves that it is mended. Not here: how a trace looks on a terminal.

mod answers;
mod bases;
mod case;
mod remains;

mod astray;
mod by_hand;
mod by_iptables;
mod by_wharf;
mod damages;
mod examples;
mod firewalls;
mod hard;
mod healthy;
mod ipsec;
mod layer_two;
mod neighbours;
mod odd;
mod odd_rules;
mod other_tools;
mod routes;
mod rules_changed;
mod shaped;
mod sockets;
mod sound;
mod ways;
mod zones;
