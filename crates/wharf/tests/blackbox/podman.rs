//! Podman itself, from Debian, with wharf in Netavark's place: nothing but its configuration says so.
//!
//! The only image is made here, of a static busybox. Containers get no control groups: the machine's are not the
//! test's to change.

use crate::common::*;
use crate::netavark::helpers;
use serde_json::Value;
use wharf_testkit::skip::Need;
use wharf_testkit::{Answer, Echo, Host, Netns, Output, Snapshot, addr, eventually, require};

const BUSYBOX: &str = "/bin/busybox";

/// Podman on a host of its own.
struct Podman {
    host: Host,
    /// Its configuration, where that is not at its place in `/etc`.
    conf: Option<String>,
    storage: String,
}

impl Podman {
    #[track_caller]
    fn new() -> Self {
        let host = host();
        let finds = format!(
            "helper_binaries_dir = [\"{}\", \"/usr/lib/podman\"]",
            helpers(&host).display()
        );
        let text = configuration(&host, "network_backend = \"netavark\"", &finds);
        let conf = host.dir().write("containers.conf", &text);
        Self::of(host, Some(conf))
    }

    /// With `/etc/containers` of its own, in which `wharf install` has put what it puts.
    #[track_caller]
    fn installed() -> Self {
        let host = host();
        let dir = host.dir().path().display().to_string();
        host.dir()
            .write("containers.conf", &configuration(&host, "", ""));
        host.sh(&format!(
            "cp /etc/containers/policy.json {dir}
             mount -t tmpfs tmpfs /etc/containers
             mv {dir}/policy.json {dir}/containers.conf /etc/containers"
        ));
        host.wharf(&["install", "netavark", "--dir", &format!("{dir}/helpers")])
            .ok();
        Self::of(host, None)
    }

    #[track_caller]
    fn of(host: Host, conf: Option<String>) -> Self {
        let dir = host.dir().path().display().to_string();
        let storage = host.dir().write(
            "storage.conf",
            &format!(
                "[storage]
driver = \"vfs\"
graphroot = \"{dir}/storage\"
runroot = \"/run/podman-test\"
"
            ),
        );
        // crun wants to see which sort of control groups there are, even to use none.
        host.sh("mount -t cgroup2 cgroup2 /sys/fs/cgroup");
        host.sh(&format!(
            "mkdir -p {dir}/image/bin {dir}/image/etc {dir}/image/tmp
             cp {BUSYBOX} {dir}/image/bin/busybox
             for name in sh sleep ping cat nslookup; do ln -s busybox {dir}/image/bin/$name; done"
        ));
        let this = Self {
            host,
            conf,
            storage,
        };
        this.sh(&format!("tar -C {dir}/image -c . | podman import - tiny"));
        this
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        let command = self.host.command("sh").args(["-euc", script]);
        self.in_its_world(command).run().ok().stdout
    }

    fn in_its_world(&self, command: wharf_testkit::HostCommand) -> wharf_testkit::HostCommand {
        let command = command.env("CONTAINERS_STORAGE_CONF", &self.storage);
        match &self.conf {
            Some(conf) => command.env("CONTAINERS_CONF", conf),
            None => command,
        }
    }

    /// `podman LINE`, split at blanks.
    #[track_caller]
    fn try_run(&self, line: &str) -> Output {
        let command = self.host.command("podman").args(line.split_whitespace());
        self.in_its_world(command).run()
    }

    /// `podman LINE`, which must succeed and complain about nothing.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let out = self.try_run(line).ok();
        assert_eq!(out.stderr, "", "{}", out.transcript());
        out.stdout.trim().to_owned()
    }

    /// A container that sleeps; its network namespace.
    #[track_caller]
    fn start(&self, name: &str, options: &str) -> Netns {
        self.run(&format!("run -d --name {name} {options} tiny sleep 1000"));
        self.inside(name)
    }

    #[track_caller]
    fn inside(&self, name: &str) -> Netns {
        let pid = self.run(&format!("inspect --format {{{{.State.Pid}}}} {name}"));
        self.host.netns_of(pid.parse().unwrap())
    }

    #[track_caller]
    fn network(&self, name: &str) -> Value {
        let all: Value =
            serde_json::from_str(&self.run(&format!("network inspect {name}"))).unwrap();
        all[0].clone()
    }

    fn before(&self) -> Snapshot {
        Snapshot::of_netns(self.host.netns())
    }

    #[track_caller]
    fn assert_same(&self, before: &Snapshot, what: &str) {
        eventually("the kernel is done", || {
            before.difference(&self.before()).is_empty().then_some(())
        });
        let difference = before.difference(&self.before());
        assert!(difference.is_empty(), "{what}:\n{difference}");
    }
}

/// What is not about who finds the network backend: that is in the two parts.
fn configuration(host: &Host, network: &str, engine: &str) -> String {
    let dir = host.dir().path().display();
    format!(
        "[network]
{network}
network_config_dir = \"{dir}/podman-networks\"
[engine]
{engine}
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
runtime = \"crun\"
[containers]
cgroups = \"disabled\"
log_driver = \"k8s-file\"
"
    )
}

macro_rules! podman {
    () => {
        require!(
            Need::Program("podman"),
            Need::Program("crun"),
            Need::Program("conmon"),
            Need::Program("/usr/lib/podman/aardvark-dns"),
            Need::Program(BUSYBOX),
        );
    };
}

#[test]
fn run_publish_stop_start_and_remove() {
    podman!();
    let podman = Podman::new();
    let host = &podman.host;
    let before = podman.before();
    let inside = podman.start("web", "-p 8080:80 -p 127.0.0.1:9090:90/udp");
    assert_eq!(inside.addresses("eth0").len(), 1);
    let web = Echo::tcp(&inside, "web", 80);
    let _udp = Echo::udp(&inside, "web", 90);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
    assert_eq!(host.netns().tcp(ip("127.0.0.1"), 8080).by(), Some("web"));
    assert_eq!(host.netns().udp(ip("127.0.0.1"), 9090).by(), Some("web"));
    assert!(!host.outside().udp_brief(addr::HOST4, 9090).reached());
    assert_eq!(inside.ping(addr::OUTSIDE4), Answer::Replied);
    let shown = host.inspect("web");
    assert_eq!(text(&shown, "owner"), "netavark");
    assert_eq!(
        text(&shown, "id"),
        podman.run("inspect --format {{.Id}} web")
    );
    assert_eq!(text(&shown, "networks/0/network"), "podman");
    let ip_of = podman.run("inspect --format {{.NetworkSettings.IPAddress}} web");
    assert_eq!(address_of(host, "web", false).to_string(), ip_of);

    podman.run("stop -t 0 web");
    drop(web);
    assert!(!host.outside().tcp_brief(addr::HOST4, 8080).reached());
    podman.assert_same(&before, "a stopped container");
    podman.run("start web");
    let _web = Echo::tcp(&podman.inside("web"), "again", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("again"));

    let busy = podman.try_run("run -d --name other -p 8080:80 tiny sleep 1000");
    assert!(busy.code != Some(0), "{}", busy.transcript());
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("again"));
    podman.run("run --rm --network none tiny cat /proc/net/dev");
    podman.run("rm -f -t 0 web other");
    podman.assert_same(&before, "podman run, stop, start, rm");
    assert_eq!(names(&host.w("ps --json").json()), Vec::<String>::new());
}

#[test]
fn networks_names_connect_and_disconnect() {
    podman!();
    let podman = Podman::new();
    let host = &podman.host;
    let before = podman.before();
    podman.run("network create --subnet 10.89.0.0/24 one");
    podman.run("network create --subnet 10.90.0.0/24 --subnet fd90::/64 --ipv6 -o mtu=1400 two");
    assert_eq!(text(&podman.network("one"), "driver"), "bridge");
    podman.assert_same(&before, "networks without containers");
    let web = podman.start(
        "web",
        "--network one:ip=10.89.0.50,mac=02:00:00:00:00:50,alias=www -p 8080:80",
    );
    let db = podman.start("db", "--network two");
    assert_eq!(web.addresses("eth0"), [ip("10.89.0.50")]);
    assert_eq!(web.mac("eth0"), [2, 0, 0, 0, 0, 0x50]);
    assert!(!web.ping_brief(ip("10.90.0.2")).reached(), "apart");

    podman.run("network connect --alias base two web");
    assert_eq!(web.addresses("eth1").len(), 2);
    assert!(web.ip("link show dev eth1").contains("mtu 1400"));
    podman.run("exec web ping -c 1 -W 2 db");
    podman.run("exec db ping -c 1 -W 2 web");
    podman.run("exec db ping -c 1 -W 2 base");
    assert_eq!(web.ping(ip("fd90::2")), Answer::Replied);
    assert_eq!(
        texts(&host.inspect_network("two"), "containers"),
        ["db", "web"]
    );
    let _web = Echo::tcp(&web, "web", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
    podman.run("network disconnect two web");
    assert_eq!(web.interfaces(), ["lo", "eth0"]);
    assert!(!web.ping_brief(ip("10.90.0.2")).reached());
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));

    podman.run("network disconnect one web");
    assert_eq!(web.interfaces(), ["lo"]);
    podman.run("network connect one web");
    assert_eq!(
        host.outside().tcp(addr::HOST4, 8080).by(),
        Some("web"),
        "its ports come back"
    );
    assert_eq!(db.ping(addr::OUTSIDE4), Answer::Replied);

    // Podman 4.3 numbers the interfaces as it likes; the first of them leads out.
    let order = podman.start("order", "--network two --network one");
    let route = order.ip("-4 route show default");
    assert!(route.contains("dev eth0"), "{route}");
    podman.run("rm -f -t 0 order");

    let in_use = podman.try_run("network rm one");
    assert!(in_use.code != Some(0), "{}", in_use.transcript());
    podman.run("rm -f -t 0 web db");
    podman.run("network rm one two");
    eventually("the name server ends", || {
        host.processes()
            .iter()
            .all(|(_, line)| !line.contains("aardvark"))
            .then_some(())
    });
    podman.assert_same(&before, "two networks");
}

#[test]
fn reload_after_a_flush_and_internal_networks() {
    podman!();
    let podman = Podman::new();
    let host = &podman.host;
    let before = podman.before();
    podman.run("network create --internal --subnet 10.89.0.0/24 inner");
    let web = podman.start("web", "-p 8080:80");
    let inner = podman.start("inner1", "--network inner -p 8081:80");
    let _servers = (Echo::tcp(&web, "web", 80), Echo::tcp(&inner, "inner", 80));
    assert!(!inner.ping_brief(addr::OUTSIDE4).reached());
    assert_eq!(inner.ip("route show default").trim(), "");
    assert!(!host.outside().tcp_brief(addr::HOST4, 8081).reached());
    podman.run("exec inner1 nslookup inner1");

    host.sh("nft flush ruleset");
    assert!(!web.tcp_brief(addr::OUTSIDE4, 80).reached());
    podman.run("network reload --all");
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
    assert_eq!(web.ping(addr::OUTSIDE4), Answer::Replied);
    assert!(!inner.ping_brief(addr::OUTSIDE4).reached());
    assert!(
        !web.ping_brief(ip("10.89.0.2")).reached(),
        "apart as before"
    );
    podman.run("rm -f -t 0 -a");
    podman.run("network rm inner");
    podman.assert_same(&before, "reload");
}

#[test]
fn beside_containers_of_the_command() {
    podman!();
    let podman = Podman::new();
    let host = &podman.host;
    host.w("network create podman --subnet 10.77.7.0/24").ok();
    host.w("create web --network podman --ip 10.77.7.11 -p 9090:80")
        .ok();
    let before = podman.before();
    let inside = podman.start("web", "-p 8080:80");
    let _servers = (
        Echo::tcp(&inside, "podman", 80),
        Echo::tcp(&host.container("web"), "cli", 80),
    );
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("podman"));
    assert_eq!(host.outside().tcp(addr::HOST4, 9090).by(), Some("cli"));
    assert!(!inside.tcp_brief(ip("10.77.7.11"), 80).reached());
    let all = host.w("ps --json").json();
    let owners: Vec<String> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|c| text(c, "owner"))
        .collect();
    assert_eq!(owners, ["cli", "netavark"]);
    podman.run("rm -f -t 0 web");
    podman.assert_same(&before, "beside the command");
    assert_eq!(host.outside().tcp(addr::HOST4, 9090).by(), Some("cli"));
}

#[test]
fn what_wharf_installs_is_found() {
    podman!();
    let podman = Podman::installed();
    let host = &podman.host;
    let helper = format!("{}/helpers/netavark", host.dir().path().display());
    let shown = podman.run("info --format {{.Host.NetworkBackend}}");
    assert_eq!(shown, "netavark", "{helper}");
    let before = podman.before();
    podman.run("network create named");
    let inside = podman.start("web", "--network named -p 8080:80");
    let _web = Echo::tcp(&inside, "web", 80);
    assert_eq!(host.outside().tcp(addr::HOST4, 8080).by(), Some("web"));
    assert_eq!(text(&host.inspect("web"), "owner"), "netavark");
    // The name server is found beside it.
    podman.run("run --rm --network named tiny nslookup web");
    podman.run("rm -f -t 0 web");
    podman.assert_same(&before, "podman as installed");
}
