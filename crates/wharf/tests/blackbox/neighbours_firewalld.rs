//! Beside firewalld itself, with a message bus of its own: started, reloaded, completely reloaded, started again, stopped.

use crate::common::*;
use crate::neighbours::{all_work, follow};
use wharf_testkit::skip::Need;
use wharf_testkit::{Echo, Flood, Host, Running, Snapshot, Sniffer, addr, eventually, require};

/// The bus lets root do everything, and asks no other program.
const BUS: &str = r#"<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_type="method_return"/><allow send_type="error"/><allow receive_type="method_call"/>
    <allow receive_type="signal"/><allow receive_type="method_return"/><allow receive_type="error"/></policy>
</busconfig>"#;

/// firewalld's own files in the private host, and the bus.
fn bus(host: &Host) -> Running {
    host.sh(&format!(
        "mkdir /run/dbus /run/firewalld-files /run/firewalld-log
         cp -a /etc/firewalld/. /run/firewalld-files
         mount --bind /run/firewalld-files /etc/firewalld
         mount --bind /run/firewalld-log /var/log
         cat > /run/firewalld-bus.conf <<'END'\n{BUS}\nEND"
    ));
    let bus = host
        .command("dbus-daemon")
        .args([
            "--nofork",
            "--nopidfile",
            "--config-file=/run/firewalld-bus.conf",
        ])
        .spawn();
    eventually("the bus is there", || {
        host.path("/run/dbus/system_bus_socket")
            .exists()
            .then_some(())
    });
    bus
}

fn firewalld(host: &Host) -> Running {
    let daemon = host
        .command("firewalld")
        .args(["--nofork", "--nopid"])
        .spawn();
    eventually("firewalld runs", || {
        let said = host.command("firewall-cmd").arg("--state").run();
        (said.stdout.trim() == "running").then_some(())
    });
    daemon
}

fn end(mut daemon: Running) {
    daemon.signal(15);
    daemon.wait_within(std::time::Duration::from_secs(10));
}

#[test]
fn firewalld_starts_reloads_and_stops_beside_wharf() {
    require!(Need::Program("firewalld"), Need::Program("dbus-daemon"));
    let host = host();
    let _servers = [
        Echo::tcp(host.outside(), "outside", 80),
        Echo::tcp(host.netns(), "host", 7000),
    ];
    let _bus = bus(&host);
    let before = Snapshot::of(&host);
    let daemon = firewalld(&host);
    let made = host
        .w(&format!("network create A {} --bridge wharf-a", subnets(1)))
        .ok();
    made.clone().says("filter_FORWARD");
    container(&host, "a1", "A", 1, 11, "-p 8080:80");
    container(&host, "a2", "A", 1, 12, "");
    let a1 = host.container("a1");
    let _web = Echo::tcp(&a1, "a1", 80);
    for v6 in [false, true] {
        let within = host.outside().tcp(addr::host(v6), 8080);
        assert_eq!(within.by(), Some("a1"), "published ports it lets pass");
    }
    let told = host.w("doctor").stdout;
    let zone = "fix: firewall-cmd --permanent --zone=trusted --add-interface=wharf-a";
    assert!(told.contains(zone), "{told}");
    assert_eq!(follow(&host, &made.stderr), 2, "{}", made.transcript());
    all_work(&host, "with the zone");
    let heard = Sniffer::start(&a1, "eth0");
    let floods =
        [false, true].map(|v6| Flood::start(host.outside(), (at(v6, 1, 11), 90).into(), b"flood"));
    for line in ["--reload", "--complete-reload", "--reload"] {
        host.sh(&format!("firewall-cmd {line}"));
        all_work(&host, line);
        let left = host.w("repair --dry-run --json").json();
        assert_eq!(
            left["mended"],
            serde_json::json!([]),
            "{line} touches nothing of wharf"
        );
        assert!(
            !host.outside().tcp_brief(addr::HOST4, 7000).reached(),
            "what firewalld refuses stays refused"
        );
    }
    end(daemon);
    all_work(&host, "without firewalld");
    let daemon = firewalld(&host);
    all_work(&host, "with firewalld again");
    assert!(floods.iter().all(|flood| flood.sent() > 100));
    assert_eq!(heard.count(b"flood"), 0, "a packet of the flood got in");
    drop((floods, heard));
    remove(&host, &["a1", "a2"], &["A"]);
    host.sh(
        "firewall-cmd --permanent --zone=trusted --remove-interface=wharf-a; firewall-cmd --reload",
    );
    end(daemon);
    host.sh("rm -rf /run/firewalld");
    before.assert_same(&host, "a network beside firewalld");
}
