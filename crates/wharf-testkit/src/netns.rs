//! A network namespace held by a file descriptor.

use crate::command::HostCommand;
use crate::sys;
use serde_json::Value;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::{io, process, thread};

/// A network namespace. It lives as long as a clone of this handle does.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    name: String,
}

impl Netns {
    /// A new, empty one; `name` only appears in messages.
    pub fn new(name: &str) -> Self {
        let open = || {
            sys::unshare_net()?;
            File::open("/proc/thread-self/ns/net")
        };
        let file =
            thread::scope(|scope| scope.spawn(open).join().expect("the thread does not panic"));
        let fd = Arc::new(OwnedFd::from(
            file.expect("new network namespace: are we root?"),
        ));
        let netns = Self {
            fd,
            name: name.into(),
        };
        netns.ip("link set lo up");
        netns
    }

    /// The one behind a path such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path, name: &str) -> io::Result<Self> {
        Ok(Self {
            fd: Arc::new(File::open(path)?.into()),
            name: name.into(),
        })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path to it that works for programs which are not in a host of their own.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.fd.as_raw_fd())
    }

    /// Runs `action` in it, in a thread of its own.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let inside = || {
                sys::enter_net(self.fd.as_raw_fd()).expect("enter network namespace");
                action()
            };
            scope.spawn(inside).join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A program in it, seeing the files and processes of the test.
    pub fn command(&self, program: &str) -> HostCommand {
        HostCommand::in_net(program, self.fd.clone(), &self.name)
    }

    /// `ip ARGS`, which must succeed; the arguments are split at blanks.
    #[track_caller]
    pub fn ip(&self, args: &str) -> String {
        self.command("ip")
            .args(args.split_whitespace())
            .run()
            .ok()
            .stdout
    }

    /// `ip -j ARGS`, parsed.
    #[track_caller]
    pub fn ip_json(&self, args: &str) -> Value {
        let text = self.ip(&format!("-j {args}"));
        let text = if text.trim().is_empty() { "[]" } else { &text };
        serde_json::from_str(text).expect("ip prints JSON")
    }

    /// A shell script in it, which must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.command("sh").args(["-euc", script]).run().ok().stdout
    }

    /// Has 127.0.0.1 routed to another machine instead of here, as an attacker would; `via` and `source` are IPv4.
    #[track_caller]
    pub fn give_loopback_away(&self, via: &str, source: &str) {
        self.sh(&format!(
            "sysctl -qw net.ipv4.conf.all.route_localnet=1
             ip addr del 127.0.0.1/8 dev lo
             ip route add 127.0.0.1 via {via} src {source}"
        ));
    }

    /// The MAC address of one of its interfaces.
    #[track_caller]
    pub fn mac(&self, interface: &str) -> [u8; 6] {
        let links = self.ip_json(&format!("link show dev {interface}"));
        let text = links[0]["address"].as_str().expect("an address").to_owned();
        let mut mac = [0; 6];
        for (byte, hex) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(hex, 16).expect("hexadecimal");
        }
        mac
    }

    /// The names of its interfaces, in order of their index.
    pub fn interfaces(&self) -> Vec<String> {
        let links = self.ip_json("link show");
        let links = links.as_array().cloned().unwrap_or_default();
        links
            .iter()
            .filter_map(|link| link["ifname"].as_str().map(String::from))
            .collect()
    }

    /// The global addresses of one of its interfaces.
    pub fn addresses(&self, interface: &str) -> Vec<IpAddr> {
        let links = self.ip_json(&format!("addr show dev {interface} scope global"));
        let infos = links[0]["addr_info"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        infos
            .iter()
            .filter_map(|info| info["local"].as_str()?.parse().ok())
            .collect()
    }

    /// The value of a sysctl such as `net.ipv4.ip_forward`, with `/` for dots inside interface names; `None` if absent.
    pub fn sysctl(&self, key: &str) -> Option<String> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| std::fs::read_to_string(path))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// Sets a sysctl.
    #[track_caller]
    pub fn set_sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
    }
}
