//! The rules as netlink messages, witnessed by `nft`.

use std::process::Command;

use wharf_core::compile;
use wharf_core::model::Resource;
use wharf_core::network::{HostFacts, NetworkRequest, NetworkSpec, resolve};
use wharf_core::nft::Change;
use wharf_core::op::Op;
use wharf_engine::kernel::Kernel;
use wharf_engine::kernel::netlink::NetlinkKernel;

fn network(nets: &mut Vec<NetworkSpec>, name: &str, edit: impl FnOnce(&mut NetworkRequest)) {
    let id = nets.len() as u8 + 1;
    let mut request = NetworkRequest::new(name.parse().unwrap());
    edit(&mut request);
    nets.push(
        resolve(
            &request,
            nets,
            &HostFacts {
                id: [id; 32],
                ..HostFacts::default()
            },
        )
        .unwrap(),
    );
}

/// This test's process gets a network namespace of its own; nextest runs each test in a process.
fn private_host() {
    // SAFETY: no other thread of this process uses the network.
    let made = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(
        made,
        0,
        "SKIPPED is no option: cannot unshare: {}",
        std::io::Error::last_os_error()
    );
}

fn changes(resources: Vec<Resource>) -> Vec<Change> {
    let add = |r| match r {
        Resource::Nft(object) => Some(Change::Add(object)),
        _ => None,
    };
    resources.into_iter().filter_map(add).collect()
}

#[test]
fn everything_loads_and_goes() {
    std::thread::spawn(|| {
        private_host();
        let mut nets = Vec::new();
        network(&mut nets, "plain", |r| r.ipv6 = true);
        network(&mut nets, "six", |r| {
            r.subnets = vec!["fd00:6::/64".parse().unwrap()]
        });
        network(&mut nets, "inside", |r| r.internal = true);
        network(&mut nets, "apart", |r| r.icc = Some(false));
        network(&mut nets, "options", |r| {
            for (k, v) in [
                ("host-access", "dns"),
                ("isolate", "false"),
                ("host_ipv4", "10.0.0.9"),
            ] {
                r.options.insert(k.to_owned(), v.to_owned());
            }
            r.options.insert(
                "com.docker.network.bridge.trusted_host_interfaces".to_owned(),
                "eth1:eth2".to_owned(),
            );
        });
        network(&mut nets, "routed", |r| {
            r.options.insert(
                "com.docker.network.bridge.gateway_mode_ipv4".to_owned(),
                "routed".to_owned(),
            );
        });
        let mut all = compile::base();
        all.extend(
            compile::transit(Some(&["eth0".parse().unwrap()]))
                .into_iter()
                .skip(1),
        );
        all.extend(nets.iter().flat_map(compile::network));
        for (port, addr) in [
            ("80:8080", "10.201.0.2"),
            ("1000-1010:1000-1010/udp", "10.201.0.2"),
            ("127.0.0.1:81:81/sctp", "10.201.0.2"),
            ("2000-2001:3000-3001", "fd00::2"),
            ("10.0.0.1:90-99:90-99", "10.201.0.2"),
        ] {
            all.extend(compile::ports(
                &nets[0],
                &port.parse().unwrap(),
                addr.parse().unwrap(),
            ));
            all.extend(compile::ports(
                &nets[5],
                &port.parse().unwrap(),
                "10.201.0.3".parse().unwrap(),
            ));
        }
        let mut kernel = NetlinkKernel::new();
        kernel
            .apply(&[&Op::Nft(changes(all.clone()))])
            .map_err(|e| e.error)
            .unwrap();
        let listed = Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        println!("{text}");
        let dels: Vec<Change> = changes(all)
            .into_iter()
            .skip(2)
            .rev()
            .filter_map(|c| c.inverse())
            .collect();
        kernel
            .apply(&[&Op::Nft(dels)])
            .map_err(|e| e.error)
            .unwrap();
        let listed = Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(listed.stdout).unwrap(),
            "table inet wharf {\n}\ntable bridge wharf {\n}\n"
        );
    })
    .join()
    .unwrap();
}
