//! A private host: namespaces, uplink, state directories, and everything gone afterwards.
//!
//! Process 1 of the host is `cat`, which ends when its input does: when the [`Host`] is dropped, and also when the test
//! is killed. With process 1 the kernel ends all others of the host, and with the last one go its namespaces.

use crate::command::{HostCommand, Output, Running};
use crate::netns::Netns;
use crate::options::{ForwardPolicy, HostOptions};
use crate::sys::HostFds;
use crate::temp::TempDir;
use crate::wait::eventually;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::{fs, io};

/// The addresses of the world around a [`Host`].
pub mod addr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// The host on its uplink `up0`.
    pub const HOST4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
    /// The same in IPv6.
    pub const HOST6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2));
    /// A second address of the host on `up0`.
    pub const HOST4_B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));
    /// The router at the other end of the uplink.
    pub const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));
    /// The same in IPv6.
    pub const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1));
    /// A machine beyond the router.
    pub const OUTSIDE4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 50));
    /// The same in IPv6.
    pub const OUTSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50));
    /// The host on the link `up1` to its neighbour.
    pub const HOST4_UP1: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 3, 2));
    /// The neighbour.
    pub const NEIGHBOUR4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 3, 1));
    /// The same in IPv6.
    pub const NEIGHBOUR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1));

    /// The host on its uplink, by family.
    pub fn host(v6: bool) -> IpAddr {
        if v6 { HOST6 } else { HOST4 }
    }

    /// The machine beyond the router, by family.
    pub fn outside(v6: bool) -> IpAddr {
        if v6 { OUTSIDE6 } else { OUTSIDE4 }
    }
}

const PREPARE: &str = "
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/lock /run/wharf-test
    for file in resolv.conf hosts; do
        [ -e /etc/$file ] || continue
        cp \"$1/$file\" /run/wharf-test/$file
        mount --bind /run/wharf-test/$file \"$(readlink -f /etc/$file)\" 2>/dev/null || true
    done
    # What the machine's own files say of sysctls is not for this host.
    for dir in /etc/sysctl.d /usr/local/lib/sysctl.d /usr/lib/sysctl.d; do
        [ ! -d $dir ] || mount -t tmpfs tmpfs $dir
    done
    touch /run/wharf-test/sysctl.conf
    [ ! -e /etc/sysctl.conf ] || mount --bind /run/wharf-test/sysctl.conf \"$(readlink -f /etc/sysctl.conf)\"
    hostname private-host
    ip link set lo up
    trap '' CHLD
    echo ready
    exec cat
";

/// A private host.
pub struct Host {
    holder: Child,
    life: Option<ChildStdin>,
    fds: HostFds,
    netns: Netns,
    outside: Netns,
    neighbour: Option<Netns>,
    dir: Arc<TempDir>,
    options: HostOptions,
}

impl Host {
    /// A host with the usual choices, see [`HostOptions::new`].
    #[track_caller]
    pub fn new(wharf: &str) -> Self {
        HostOptions::new(wharf).start()
    }

    #[track_caller]
    pub(crate) fn start(options: HostOptions) -> Self {
        let dir = Arc::new(TempDir::new());
        dir.write(
            "resolv.conf",
            "# of the private host\nnameserver 192.0.2.50\nsearch example.test\n",
        );
        dir.write(
            "hosts",
            "127.0.0.1 localhost\n::1 localhost\n10.0.2.2 private-host\n",
        );
        Self::boot(options, dir)
    }

    #[track_caller]
    fn boot(options: HostOptions, dir: Arc<TempDir>) -> Self {
        let outside = Netns::new("outside");
        let neighbour = options.neighbour.then(|| Netns::new("neighbour"));
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
            ])
            .args(["--propagation", "private", "sh", "-euc", PREPARE, "sh"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start `unshare` (util-linux)");
        let life = holder.stdin.take();
        let mut ready = String::new();
        let said = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut ready);
        assert!(
            said.is_ok() && ready == "ready\n",
            "the private host did not start"
        );

        let of_holder = |kind: &str| -> io::Result<File> {
            File::open(format!("/proc/{}/ns/{kind}", holder.id()))
        };
        let open = |kind: &str| {
            Arc::new(
                of_holder(kind)
                    .expect("namespace of the private host")
                    .into(),
            )
        };
        let fds = HostFds {
            net: open("net"),
            mnt: open("mnt"),
            pid: open("pid_for_children"),
        };
        let path = format!("/proc/{}/ns/net", holder.id());
        let netns =
            Netns::open(Path::new(&path), "host").expect("network namespace of the private host");
        let host = Self {
            holder,
            life,
            fds,
            netns,
            outside,
            neighbour,
            dir,
            options,
        };
        fs::create_dir_all(host.state_dir()).expect("state directory");
        host.set_sysctls();
        host.connect_uplinks();
        host.set_forward_policy();
        host.wait_for_uplinks();
        host
    }

    /// The carrier, and with it the link-local address, comes a moment after the other end is up.
    #[track_caller]
    fn wait_for_uplinks(&self) {
        for uplink in self
            .netns
            .interfaces()
            .iter()
            .filter(|name| name.starts_with("up"))
        {
            eventually("the uplinks are up", || {
                let settled = self
                    .netns
                    .ip(&format!("-6 addr show dev {uplink} scope link -tentative"));
                (!settled.trim().is_empty()).then_some(())
            });
        }
    }

    fn set_sysctls(&self) {
        let net = &self.netns;
        for name in ["iptables", "ip6tables", "arptables"] {
            let key = format!("net.bridge.bridge-nf-call-{name}");
            if net.sysctl(&key).is_some() {
                net.set_sysctl(
                    &key,
                    if self.options.bridge_nf_call {
                        "1"
                    } else {
                        "0"
                    },
                );
            }
        }
        net.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        net.set_sysctl(
            "net.ipv4.ip_forward",
            if self.options.ip_forward { "1" } else { "0" },
        );
        net.set_sysctl(
            "net.ipv6.conf.all.forwarding",
            if self.options.ip_forward { "1" } else { "0" },
        );
    }

    fn connect_uplinks(&self) {
        let mtu = self.options.uplink_mtu;
        let (out, host) = (&self.outside, &self.netns);
        out.sh(&format!(
            "ip link add up0 netns {} mtu {mtu} type veth peer name down0 mtu {mtu}
             ip link set down0 up
             ip addr add 10.0.2.1/24 dev down0
             ip -6 addr add 2001:db8:2::1/64 dev down0 nodad
             ip addr add 192.0.2.50/32 dev lo
             ip -6 addr add 2001:db8::50/128 dev lo nodad",
            host.path()
        ));
        host.sh("ip addr add 10.0.2.2/24 dev up0
             ip addr add 10.0.2.3/24 dev up0
             ip -6 addr add 2001:db8:2::2/64 dev up0 nodad
             ip link set up0 up
             ip route add default via 10.0.2.1
             ip -6 route add default via 2001:db8:2::1");
        // The outside sends everything else back to the host: it stands for a hostile router as well.
        out.sh("ip route add default via 10.0.2.2
             ip -6 route add default via 2001:db8:2::2");
        if let Some(neighbour) = &self.neighbour {
            neighbour.sh(&format!(
                "ip link add up1 netns {} type veth peer name down1
                 ip link set down1 up
                 ip addr add 10.0.3.1/24 dev down1
                 ip -6 addr add 2001:db8:3::1/64 dev down1 nodad",
                host.path()
            ));
            host.sh("ip addr add 10.0.3.2/24 dev up1
                 ip -6 addr add 2001:db8:3::2/64 dev up1 nodad
                 ip link set up1 up");
            neighbour.sh("ip route add default via 10.0.3.2
                 ip -6 route add default via 2001:db8:3::2");
        }
    }

    fn set_forward_policy(&self) {
        let commands = match self.options.forward {
            ForwardPolicy::Untouched => return,
            ForwardPolicy::Accept => "-P FORWARD ACCEPT",
            ForwardPolicy::Drop => "-P FORWARD DROP",
            ForwardPolicy::DropWithDockerUser => {
                "-P FORWARD DROP;-N DOCKER-USER;-A DOCKER-USER -j RETURN;-A FORWARD -j DOCKER-USER"
            }
        };
        for program in ["iptables-nft", "ip6tables-nft"] {
            for command in commands.split(';') {
                self.command(program).args(command.split(' ')).run().ok();
            }
        }
    }

    /// A program inside the host.
    pub fn command(&self, program: &str) -> HostCommand {
        HostCommand::in_host(program, self.fds.clone(), "host")
            .env("WHARF_STATE_DIR", self.state_dir())
            .env("WHARF_RUN_DIR", "/run/wharf")
            .env("NO_COLOR", "1")
            .env("HOME", self.dir.path())
    }

    /// `wharf ARGS`, to be run or spawned.
    pub fn wharf_command<S: AsRef<str>>(&self, args: &[S]) -> HostCommand {
        self.command(&self.options.wharf)
            .args(args.iter().map(AsRef::as_ref))
    }

    /// Runs `wharf ARGS`.
    #[track_caller]
    pub fn wharf<S: AsRef<str>>(&self, args: &[S]) -> Output {
        self.wharf_command(args).run()
    }

    /// Runs `wharf LINE`, split at blanks.
    #[track_caller]
    pub fn w(&self, line: &str) -> Output {
        self.wharf(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Starts `wharf LINE`, split at blanks.
    #[track_caller]
    pub fn w_spawn(&self, line: &str) -> Running {
        self.wharf_command(&line.split_whitespace().collect::<Vec<_>>())
            .spawn()
    }

    /// A shell script inside the host, which must succeed; its output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.command("sh").args(["-euc", script]).run().ok().stdout
    }

    /// The first (only) object that `wharf inspect NAME --json` prints.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        self.wharf(&["inspect", name, "--json"]).json()[0].clone()
    }

    /// The first (only) object that `wharf network inspect NAME --json` prints.
    #[track_caller]
    pub fn inspect_network(&self, name: &str) -> Value {
        self.wharf(&["network", "inspect", name, "--json"]).json()[0].clone()
    }

    /// The host's network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The network namespace named `name` under the host's `/run/netns`.
    #[track_caller]
    pub fn container(&self, name: &str) -> Netns {
        let path = self.path(&format!("/run/netns/{name}"));
        Netns::open(&path, name)
            .unwrap_or_else(|error| panic!("/run/netns/{name} of the host: {error}"))
    }

    /// The network namespace of a process of the host.
    #[track_caller]
    pub fn netns_of(&self, pid: i32) -> Netns {
        let path = self.path(&format!("/proc/{pid}/ns/net"));
        Netns::open(&path, &format!("pid {pid}"))
            .unwrap_or_else(|error| panic!("namespace of {pid}: {error}"))
    }

    /// The world beyond the uplink.
    pub fn outside(&self) -> &Netns {
        &self.outside
    }

    /// The machine on the second link.
    #[track_caller]
    pub fn neighbour(&self) -> &Netns {
        self.neighbour
            .as_ref()
            .expect("the host was started with `neighbour`")
    }

    /// Where a path of the host is for the test.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder.id()))
    }

    /// Where networks are kept.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A directory that host and test see under the same path; it survives a reboot.
    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// The mounts of the host.
    pub fn mounts(&self) -> String {
        fs::read_to_string(format!("/proc/{}/mountinfo", self.holder.id()))
            .expect("mounts of the private host")
    }

    /// The running processes of the host except its first: pid and command line.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let entries = fs::read_dir(self.path("/proc")).expect("/proc of the private host");
        let mut found: Vec<(i32, String)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line)
                    .replace('\0', " ")
                    .trim_end()
                    .to_owned();
                (pid != 1 && !line.is_empty()).then_some((pid, line))
            })
            .collect();
        found.sort();
        found
    }

    /// Ends everything and starts again with the same durable state: new namespaces, empty `/run`.
    #[track_caller]
    pub fn reboot(self) -> Self {
        let (options, dir) = (self.options.clone(), self.dir.clone());
        drop(self);
        Self::boot(options, dir)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.life.take());
        // Returns once every process of the host is gone: the kernel has process 1 wait for them.
        let _ = self.holder.wait();
    }
}
