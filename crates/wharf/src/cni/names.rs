//! wharf's names for what a runtime calls otherwise.
//!
//! A runtime's names have no limit in length, and one container may have several interfaces, each attached by
//! calls of its own. The names here follow from the runtime's alone, so that they are found again without a record.

use wharf_core::attach::ClientKey;
use wharf_core::name::{ContainerName, IfName, NetworkName};
use wharf_core::network::DEFAULT_NETWORK;

/// The name of the interface that most runtimes give to the first attachment, and only to it.
const FIRST: &str = "eth0";

/// The names that an attachment's record may have: the container's own where it is free, else one that only this
/// attachment has.
pub fn container_names(key: &ClientKey) -> Vec<ContainerName> {
    let plain = match key.interface.as_str() {
        FIRST => key.container.clone(),
        other => format!("{}-{other}", key.container),
    };
    let start: String = key.container.chars().take(24).collect();
    let parts = [&key.network, &key.container, &key.interface];
    let sure = format!("{start}-{}", digest(&parts.map(String::as_str)));
    [plain, sure]
        .into_iter()
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// The names that a network may have: the runtime's own where it can be, and one for where that is another front end's.
/// The network that the command line uses when none is named stays that.
pub fn network_names(name: &str) -> Vec<NetworkName> {
    let plain = match name {
        DEFAULT_NETWORK => "cni-default",
        name => name,
    };
    let start: String = name.chars().take(24).collect();
    let sure = format!("{start}-{}", digest(&[name]));
    [plain, &sure]
        .into_iter()
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// The name of the interface by which what a container sends is held back.
pub fn detour(key: &ClientKey) -> Option<IfName> {
    let parts = [&key.network, &key.container, &key.interface];
    let digits = digest(&parts.map(String::as_str));
    format!("bwp{}", &digits[..12]).parse().ok()
}

/// 32 hexadecimal digits: FNV-1a twice, over the texts with zero bytes between.
fn digest(texts: &[&str]) -> String {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hashes = [0xcbf2_9ce4_8422_2325_u64, 0x6c62_272e_07bb_0142];
    for text in texts {
        for byte in text.bytes().chain([0]) {
            for (at, hash) in hashes.iter_mut().enumerate() {
                *hash = (*hash ^ u64::from(byte))
                    .wrapping_mul(PRIME)
                    .rotate_left(at as u32);
            }
        }
    }
    format!("{:016x}{:016x}", hashes[0], hashes[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(network: &str, container: &str, interface: &str) -> Vec<String> {
        let key = ClientKey {
            network: network.to_owned(),
            container: container.to_owned(),
            interface: interface.to_owned(),
        };
        container_names(&key)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_container_keeps_its_name() {
        let id = "f".repeat(64);
        assert_eq!(names("n", &id, "eth0")[0], id);
        assert_eq!(names("n", "pod", "net1")[0], "pod-net1");
        assert_ne!(names("n", "pod", "eth0")[1], names("m", "pod", "eth0")[1]);
        assert_ne!(names("n", "a-b", "eth0")[1], names("n", "a", "b")[1]);
        // Too long, or with characters that an interface may have and a container may not.
        assert_eq!(names("n", &"x".repeat(500), "eth0").len(), 1);
        assert_eq!(names("n", "pod", "n@1").len(), 1);
    }

    #[test]
    fn networks_too() {
        assert_eq!(network_names("podman")[0].as_str(), "podman");
        assert_eq!(network_names("default")[0].as_str(), "cni-default");
        assert_ne!(network_names("podman")[1], network_names("docker")[1]);
        let long = network_names(&"n".repeat(100));
        assert!(long.len() == 1 && long[0].as_str().len() <= 63);
        assert_ne!(long, network_names(&"n".repeat(101)));
    }
}
