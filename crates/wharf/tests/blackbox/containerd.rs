//! containerd itself, from Debian, with what `wharf install cni` installs.
//!
//! The only image is made here, of a static busybox. Containers get no control groups: the machine's are not the
//! test's to change. So `crun`, which can do without, is in `runc`'s place.

use crate::common::*;
use serde_json::json;
use wharf_testkit::skip::Need;
use wharf_testkit::{
    Answer, Echo, Host, HostCommand, Netns, Running, Snapshot, addr, eventually, require,
};

const BUSYBOX: &str = "/bin/busybox";

/// containerd on a host of its own.
struct Containerd {
    host: Host,
    dir: String,
    daemon: Running,
}

impl Containerd {
    #[track_caller]
    fn new() -> Self {
        let host = host();
        let dir = host.dir().path().display().to_string();
        // Its places are fixed: here they are over the machine's.
        host.sh(&format!(
            "mount -t tmpfs tmpfs /opt
             mkdir -p {dir}/over && mount -t tmpfs tmpfs {dir}/over && mkdir {dir}/over/etc {dir}/over/work
             mount -t overlay overlay -o lowerdir=/etc,upperdir={dir}/over/etc,workdir={dir}/over/work /etc
             rm -rf /etc/cni
             mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        ));
        host.w("install cni").ok();
        // Without plugins that look at the machine.
        host.dir().write(
            "containerd.toml",
            r#"version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
"#,
        );
        let daemon = host
            .command("containerd")
            .args(["--config", &format!("{dir}/containerd.toml")])
            .args(["--root", &format!("{dir}/containerd")])
            .args(["--state", "/run/containerd-test"])
            .args(["--address", "/run/containerd-test.sock"])
            .spawn();
        let this = Self { host, dir, daemon };
        eventually("containerd answers", || {
            (this.ctr("version").run().code == Some(0)).then_some(())
        });
        this.image();
        this
    }

    /// An image as `docker save` writes it.
    #[track_caller]
    fn image(&self) {
        let dir = &self.dir;
        let digest = self.host.sh(&format!(
            "mkdir -p {dir}/root/bin {dir}/root/etc {dir}/root/proc {dir}/root/sys {dir}/root/dev {dir}/image
             cp {BUSYBOX} {dir}/root/bin/busybox
             for name in sh sleep; do ln -s busybox {dir}/root/bin/$name; done
             tar -C {dir}/root -cf {dir}/image/layer.tar .
             sha256sum <{dir}/image/layer.tar"
        ));
        let layer = digest.split_whitespace().next().expect("a digest");
        let config = json!({
            "architecture": match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        });
        let manifest = json!([
            {"Config": "config.json", "RepoTags": ["tiny.test/tiny:1"], "Layers": ["layer.tar"]},
        ]);
        self.host
            .dir()
            .write("image/config.json", &config.to_string());
        self.host
            .dir()
            .write("image/manifest.json", &manifest.to_string());
        self.host.dir().write(
            "runc",
            "#!/bin/sh\nexec crun --cgroup-manager=disabled \"$@\"\n",
        );
        self.host.sh(&format!(
            "chmod 755 {dir}/runc
             tar -C {dir}/image -cf {dir}/image.tar manifest.json config.json layer.tar"
        ));
        let import = format!("image import --snapshotter native {dir}/image.tar");
        self.ctr(&import).run().ok();
    }

    /// `ctr LINE`, split at blanks.
    fn ctr(&self, line: &str) -> HostCommand {
        self.host
            .command("ctr")
            .args(["--address", "/run/containerd-test.sock"])
            .args(line.split_whitespace())
    }

    /// A container that sleeps, in its runtime's foreground: only so does `ctr` call DEL. Its network namespace.
    #[track_caller]
    fn start(&self, name: &str) -> (Running, Netns) {
        let run = format!(
            "run --rm --cni --snapshotter native --runc-binary {}/runc tiny.test/tiny:1 {name} sleep 1000",
            self.dir
        );
        let running = self.ctr(&run).spawn();
        let pid = eventually("the container runs", || {
            let tasks = self.ctr("task ls").run().ok().stdout;
            let mut lines = tasks.lines().map(|l| l.split_whitespace());
            lines.find_map(|mut words| {
                let is_it = words.next() == Some(name);
                let pid = words.next().filter(|_| is_it)?;
                (words.next() == Some("RUNNING")).then(|| pid.parse().expect("a number"))
            })
        });
        (running, self.host.netns_of(pid))
    }

    #[track_caller]
    fn end(&self, name: &str, running: Running) {
        self.ctr(&format!("task kill -s 9 {name}")).run().ok();
        let out = running.wait();
        // `ctr` hands on how the program ended.
        assert_eq!(out.code, Some(137), "{}", out.transcript());
    }
}

#[test]
fn ctr_run_with_cni() {
    require!(
        Need::Program("containerd"),
        Need::Program("ctr"),
        Need::Program("crun"),
        Need::Program(BUSYBOX)
    );
    let mut containerd = Containerd::new();
    let before = Snapshot::of_netns(containerd.host.netns());
    let (c1, one) = containerd.start("c1");
    let (c2, two) = containerd.start("c2");
    let host = &containerd.host;
    let known = host.inspect("default-c1");
    let address = text(&known, "networks/0/addresses/0");
    let gateway = text(&known, "networks/0/gateways/0");
    let address = ip(address.split('/').next().expect("an address"));
    assert_eq!(text(&known, "networks/0/network"), "wharf");
    assert_eq!(one.ping(ip(&gateway)), Answer::Replied);
    let web = Echo::tcp(&one, "one", 80);
    assert_eq!(two.tcp(address, 80).by(), Some("one"));
    let out = Echo::tcp(host.outside(), "out", 90);
    assert_eq!(one.tcp(addr::OUTSIDE4, 90).source(), Some(addr::HOST4));
    drop((web, out));
    containerd.end("c1", c1);
    assert_eq!(names(&host.w("ps --json").json()), ["default-c2"]);
    containerd.end("c2", c2);
    assert_eq!(host.w("ps --json").json(), json!([]));
    assert_eq!(containerd.ctr("container ls -q").run().ok().stdout, "");
    host.w("network rm wharf").ok();
    let difference = || before.difference(&Snapshot::of_netns(host.netns()));
    eventually("the kernel is done", || {
        difference().is_empty().then_some(())
    });
    assert!(difference().is_empty(), "left:\n{}", difference());
    containerd.daemon.signal(libc::SIGTERM);
    eventually("containerd ends", || {
        (!containerd.daemon.is_running()).then_some(())
    });
}
