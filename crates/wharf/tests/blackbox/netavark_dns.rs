//! The name server as Podman's Netavark feeds it: its files, its start, its signal, its end, and what it answers.

use std::fs;
use std::path::PathBuf;

use crate::common::*;
use crate::netavark::*;
use serde_json::{Value, json};
use wharf_testkit::skip::Need;
use wharf_testkit::{Host, Netns, Snapshot, eventually, require};

/// Where Debian has it.
pub const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";

/// Asks for a name's addresses of one family: the answer's code, then the addresses, sorted. While the server
/// starts or reads its files again questions get lost: as resolvers do, it asks again.
const ASK: &str = "
import socket,struct,sys,time
name,server,kind=sys.argv[1],sys.argv[2],{'A':1,'AAAA':28}[sys.argv[3]]
q=struct.pack('>HHHHHH',7,0x100,1,0,0,0)+b''.join(bytes([len(p)])+p.encode() for p in name.split('.'))+b'\\0'+struct.pack('>HH',kind,1)
s=socket.socket(socket.AF_INET6 if ':' in server else socket.AF_INET,socket.SOCK_DGRAM)
s.settimeout(1)
a=None; end=time.time()+5
s.connect((server,53))
while a is None and time.time()<end:
    try: s.send(q); a=s.recv(2000)
    except ConnectionRefusedError: time.sleep(0.1)
    except TimeoutError: pass
if a is None: print('no answer'); sys.exit()
n=struct.unpack('>H',a[6:8])[0]; at=len(q); got=[]
for _ in range(n):
    at+=2
    t,c,ttl,l=struct.unpack('>HHIH',a[at:at+10]); at+=10
    if t in (1,28): got.append(socket.inet_ntop(socket.AF_INET if t==1 else socket.AF_INET6,a[at:at+l]))
    at+=l
print(a[3]&15,*sorted(got))
";

fn ask(from: &Netns, name: &str, server: &str, kind: &str) -> String {
    let out = from
        .command("python3")
        .args(["-c", ASK, name, server, kind])
        .run();
    out.ok().stdout.trim().to_owned()
}

fn named(mut network: Value) -> Value {
    network["dns_enabled"] = json!(true);
    network
}

fn files(host: &Host) -> PathBuf {
    host.dir().path().join("networks/aardvark-dns")
}

fn file(host: &Host, name: &str) -> String {
    fs::read_to_string(files(host).join(name)).unwrap_or_default()
}

#[track_caller]
fn do_call(host: &Host, args: &[&str], input: &Value) -> Value {
    let out = call_with(host, AARDVARK, args, input).ok();
    assert_eq!(out.stderr, "");
    serde_json::from_str(&out.stdout).unwrap_or(Value::Null)
}

fn servers(host: &Host) -> Vec<i32> {
    let all = host.processes().into_iter();
    all.filter(|(_, line)| line.contains("aardvark-dns"))
        .map(|(pid, _)| pid)
        .collect()
}

#[test]
fn the_files_are_as_the_server_reads_them() {
    require!(Need::Program(AARDVARK));
    let host = host();
    namespaces(&host, &["p2", "p3"]);
    let before = Snapshot::of(&host);
    let (two, expected) = message("run-ports");
    let (three, _) = message("run-two-networks-list");
    let answer = do_call(&host, &["setup", "/run/netns/p2"], &two);
    assert_eq!(
        answer["pn1"]["dns_server_ips"],
        expected["pn1"]["dns_server_ips"]
    );
    assert_eq!(answer["pn1"]["dns_search_domains"], json!(["dns.podman"]));
    let pid = servers(&host);
    assert_eq!(pid.len(), 1, "it runs");
    do_call(&host, &["setup", "/run/netns/p3"], &three);
    assert_eq!(servers(&host), pid, "the same one reads the new files");
    let p2 = "071e263ad16b715686b2597cd21aae33e01f2606c2f0228c556eb7a129182b41 10.89.0.2  p2,al1,071e263ad16b";
    let p3 = "50238ea1398e5bf67832742459e44f8821a16dbef45f17d9abab4db7c7e30475";
    let one = format!("{p2}\n{p3} 10.89.0.77  p3,x1,x2,50238ea1398e 9.9.9.9\n");
    assert_eq!(file(&host, "pn1"), format!("10.89.0.1\n{one}"));
    assert_eq!(
        file(&host, "pn2"),
        format!("10.90.0.254,fd90::1\n{p3} 10.90.7.7 fd90::77 p3,50238ea1398e 9.9.9.9\n")
    );
    do_call(
        &host,
        &["update", "pn1", "--network-dns-servers", "8.8.8.8,1.1.1.1"],
        &Value::Null,
    );
    assert_eq!(
        file(&host, "pn1"),
        format!("10.89.0.1 8.8.8.8,1.1.1.1\n{one}")
    );
    do_call(
        &host,
        &["update", "pn1", "--network-dns-servers", ""],
        &Value::Null,
    );
    assert_eq!(file(&host, "pn1"), format!("10.89.0.1\n{one}"));

    do_call(&host, &["teardown", "/run/netns/p3"], &three);
    assert_eq!(file(&host, "pn1"), format!("10.89.0.1\n{p2}\n"));
    assert!(!files(&host).join("pn2").exists());
    do_call(&host, &["teardown", "/run/netns/p2"], &two);
    assert!(!files(&host).join("pn1").exists());
    eventually("the server ends with the last file", || {
        (servers(&host).is_empty() && !files(&host).join("aardvark.pid").exists()).then_some(())
    });
    before.assert_same(&host, "two containers with names");
}

#[test]
fn containers_find_each_other_by_name() {
    require!(Need::Program(AARDVARK));
    let host = host();
    namespaces(&host, &["a", "b", "c", "i"]);
    let (one, two) = (named(bridge("one", 1)), named(bridge("two", 2)));
    let mut inner = named(bridge("inner", 3));
    inner["internal"] = json!(true);
    let mut a = input("a", 10, std::slice::from_ref(&one));
    a["networks"]["one"]["aliases"] = json!(["Web", "bad name"]);
    let b = input("b", 11, &[one.clone(), two.clone()]);
    let c = input("c", 12, std::slice::from_ref(&two));
    let i = input("i", 13, std::slice::from_ref(&inner));
    // What is no name is not served, and said.
    let said = call_with(&host, AARDVARK, &["setup", "/run/netns/a"], &a).ok();
    assert!(
        said.stderr.contains("\"bad name\""),
        "{}",
        said.transcript()
    );
    for (name, input) in [("b", &b), ("c", &c), ("i", &i)] {
        do_call(&host, &["setup", &format!("/run/netns/{name}")], input);
    }
    let (in_a, in_b, in_c) = (
        host.container("a"),
        host.container("b"),
        host.container("c"),
    );
    for server in ["10.88.1.1", "fd00:88:1::1"] {
        assert_eq!(ask(&in_a, "b", server, "A"), "0 10.88.1.11");
        assert_eq!(ask(&in_a, "b", server, "AAAA"), "0 fd00:88:1::11");
        assert_eq!(ask(&in_a, "b.dns.podman", server, "A"), "0 10.88.1.11");
        assert_eq!(ask(&in_b, "web", server, "A"), "0 10.88.1.10", "an alias");
    }
    assert_eq!(ask(&in_b, "c", "10.88.2.1", "A"), "0 10.88.2.12");
    assert!(
        !ask(&in_c, "a", "10.88.2.1", "A").contains("10.88"),
        "another network's"
    );
    assert_eq!(
        ask(&host.container("i"), "i", "10.88.3.1", "A"),
        "0 10.88.3.13"
    );

    let loops = {
        let mut input = input("d", 14, std::slice::from_ref(&one));
        input["dns_servers"] = json!(["10.88.1.1"]);
        input
    };
    let said = refused(call_with(
        &host,
        AARDVARK,
        &["setup", "/run/netns/c"],
        &loops,
    ));
    assert!(said.contains("10.88.1.1"), "{said}");

    // The server is gone: the next call starts it again.
    for pid in servers(&host) {
        host.sh(&format!("kill -9 {pid}"));
    }
    eventually("the server is gone", || {
        servers(&host).is_empty().then_some(())
    });
    do_call(&host, &["teardown", "/run/netns/c"], &c);
    assert_eq!(ask(&in_a, "b", "10.88.1.1", "A"), "0 10.88.1.11");
    do_call(&host, &["teardown", "/run/netns/b"], &b);
    eventually("a name goes with its container", || {
        (!ask(&in_a, "b", "10.88.1.1", "A").contains("10.88")).then_some(())
    });
}

#[test]
fn a_name_server_at_another_port_is_asked_at_53() {
    require!(Need::Program(AARDVARK));
    let host = host();
    namespaces(&host, &["a"]);
    let before = Snapshot::of(&host);
    let input = input("a", 10, &[named(bridge("one", 1))]);
    let path = helpers(&host).join("netavark");
    let config = host.dir().path().join("networks");
    fs::create_dir_all(&config).unwrap();
    let run = |verb: &str| {
        host.command(path.to_str().unwrap())
            .arg("--config")
            .arg(&config)
            .arg(format!("--aardvark-binary={AARDVARK}"))
            .args([verb, "/run/netns/a"])
            .env("NETAVARK_DNS_PORT", "5353")
            .input(&input.to_string())
            .run()
            .ok()
    };
    run("setup");
    let listening = host.sh("ss -lun");
    assert!(listening.contains("10.88.1.1:5353"), "{listening}");
    for server in ["10.88.1.1", "fd00:88:1::1"] {
        assert_eq!(ask(&host.container("a"), "a", server, "A"), "0 10.88.1.10");
    }
    run("teardown");
    eventually("the server ends", || {
        servers(&host).is_empty().then_some(())
    });
    before.assert_same(&host, "a name server at another port");
}

#[test]
fn on_somebody_elses_bridge_the_server_listens_at_its_addresses() {
    require!(Need::Program(AARDVARK));
    let host = host();
    namespaces(&host, &["a"]);
    host.sh("ip link add lan0 type bridge; ip link set lan0 up");
    let mut network = named(bridge("lan", 1));
    network["options"] = json!({"mode": "unmanaged"});
    network["network_interface"] = json!("lan0");
    network["subnets"] = json!([{"subnet": "10.88.1.0/24", "gateway": "10.88.1.254"}]);
    let input = input("a", 10, &[network]);
    let setup = ["setup", "/run/netns/a"];
    let said = refused(call_with(&host, AARDVARK, &setup, &input));
    assert!(said.contains("lan0"), "{said}");
    host.sh("ip addr add 10.88.1.1/24 dev lan0");
    let answer = do_call(&host, &setup, &input);
    assert_eq!(answer["lan"]["dns_server_ips"], json!(["10.88.1.1"]));
    assert_eq!(
        text(&answer, "lan/interfaces/eth0/subnets/0/gateway"),
        "10.88.1.254"
    );
    assert_eq!(
        ask(&host.container("a"), "a", "10.88.1.1", "A"),
        "0 10.88.1.10"
    );
    do_call(&host, &["teardown", "/run/netns/a"], &input);
}

#[test]
fn without_a_server_there_are_no_names_and_no_error() {
    require!();
    let host = host();
    namespaces(&host, &["a"]);
    let input = input("a", 10, &[named(bridge("one", 1))]);
    for program in ["", "/nowhere/aardvark-dns"] {
        let answer = call_with(&host, program, &["setup", "/run/netns/a"], &input).json();
        assert_eq!(answer["one"]["dns_server_ips"], json!([]));
        assert_eq!(answer["one"]["dns_search_domains"], json!([]));
        assert!(!files(&host).exists());
        call_with(&host, program, &["teardown", "/run/netns/a"], &input).ok();
    }
    let host_file = host.dir().write("not-a-server", "#!/bin/sh\nexit 3\n");
    host.sh(&format!("chmod +x {host_file}"));
    let before = Snapshot::of(&host);
    let said = refused(call_with(
        &host,
        &host_file,
        &["setup", "/run/netns/a"],
        &input,
    ));
    assert!(said.contains("aardvark-dns"), "{said}");
    before.assert_same(&host, "a name server that does not start");
    assert!(!files(&host).join("one").exists());
}
