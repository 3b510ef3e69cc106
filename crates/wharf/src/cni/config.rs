//! The configuration on the standard input: what may stand in it, and what of it cannot be.
//!
//! One object carries the keys of the reference plugins bridge, portmap, firewall, bandwidth and tuning. Keys that are
//! nobody's are passed over, as those plugins do.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::call::is_identifier;
use super::error::{CniError, Done, code};
use super::keys;
use super::result::{Dns, VERSIONS, Version};

/// A plugin's configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    pub name: String,
    #[serde(rename = "type")]
    pub plugin: String,
    pub ipam: Map<String, Value>,
    pub dns: Dns,
    pub prev_result: Option<Value>,
    pub runtime_config: Runtime,
    pub args: Args,
    // bridge
    pub bridge: Option<String>,
    pub is_gateway: bool,
    pub is_default_gateway: bool,
    pub ip_masq: bool,
    pub force_address: bool,
    pub mtu: u32,
    pub hairpin_mode: bool,
    pub promisc_mode: bool,
    pub vlan: u32,
    pub vlan_trunk: Vec<Value>,
    pub disable_container_interface: bool,
    pub port_isolation: bool,
    pub mac: Option<String>,
    // portmap
    pub snat: Option<bool>,
    pub masq_all: bool,
    pub mark_masq_bit: Option<i64>,
    pub external_set_mark_chain: Option<String>,
    pub conditions_v4: Vec<String>,
    pub conditions_v6: Vec<String>,
    pub backend: Option<String>,
    // firewall
    pub ingress_policy: Option<String>,
    pub iptables_admin_chain_name: Option<String>,
    pub firewalld_zone: Option<String>,
    // bandwidth
    #[serde(flatten)]
    pub bandwidth: Bandwidth,
    // tuning
    pub sysctl: BTreeMap<String, String>,
    pub promisc: bool,
    pub allmulti: Option<bool>,
    #[serde(rename = "txQLen")]
    pub tx_queue: Option<u32>,
    // libcni's name for the list, and the one it had before
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid: Option<Vec<Valid>>,
    #[serde(rename = "cni.dev/attachments")]
    pub valid_before: Option<Vec<Valid>>,
}

/// What the runtime adds for capabilities.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Runtime {
    pub port_mappings: Vec<Port>,
    pub bandwidth: Option<Bandwidth>,
    pub ip_ranges: Vec<Vec<Value>>,
    pub ips: Vec<String>,
    pub mac: Option<String>,
    pub aliases: Value,
    pub dns: RuntimeDns,
}

/// A published port.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    pub host_port: i64,
    pub container_port: i64,
    pub protocol: String,
    #[serde(rename = "hostIP")]
    pub host_ip: String,
}

/// Limits in bits per second, and bursts in bits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Bandwidth {
    pub ingress_rate: Option<u64>,
    pub ingress_burst: Option<u64>,
    pub egress_rate: Option<u64>,
    pub egress_burst: Option<u64>,
    pub shaped_subnets: Vec<String>,
    pub unshaped_subnets: Vec<String>,
}

/// Name service, as the capability has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RuntimeDns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// `args`, of which `cni` is a convention.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Args {
    pub cni: ArgsCni,
}

/// `args.cni`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ArgsCni {
    pub ips: Vec<String>,
    pub mac: Option<String>,
    // tuning
    pub sysctl: BTreeMap<String, String>,
    pub promisc: Option<bool>,
    pub mtu: Option<u32>,
    pub allmulti: Option<bool>,
}

/// Sysctls of a configuration, each once: of two values a map would keep one without a word.
#[derive(Default, Deserialize)]
#[serde(default)]
struct EachOnce {
    #[serde(deserialize_with = "each_once")]
    sysctl: (),
}

fn each_once<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = ();

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("sysctls")
        }

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen = BTreeSet::new();
            while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                if !seen.insert(key.clone()) {
                    let twice = format!("sysctl {key} is given twice");
                    return Err(serde::de::Error::custom(twice));
                }
            }
            Ok(())
        }
    }
    from.deserialize_any(Keys)
}

/// An attachment that stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Valid {
    /// The container.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface.
    pub ifname: String,
}

/// What came in on the standard input.
#[derive(Debug, Clone)]
pub struct Input {
    /// As it came, for plugins that work is left to.
    pub text: Vec<u8>,
    /// The version of the protocol.
    pub version: Version,
    /// Read.
    pub config: Config,
}

/// The version an error is told in, as far as the input can be read.
pub fn version_of(text: &[u8]) -> &'static str {
    let value: Option<Value> = serde_json::from_slice(text).ok();
    let version = value.as_ref().and_then(|v| v["cniVersion"].as_str());
    version
        .and_then(Version::parse)
        .unwrap_or(Version::NEWEST)
        .as_str()
}

impl Input {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Not JSON, another version, a bad name or value.
    pub fn read(text: Vec<u8>) -> Done<Self> {
        let decode = |e: serde_json::Error| {
            CniError::new(code::DECODE, "the configuration is not a JSON object")
                .with(e.to_string())
        };
        let mut map: Map<String, Value> = serde_json::from_slice(&text).map_err(decode)?;
        keys::fold(&mut map);
        let version = match map.get("cniVersion") {
            None | Some(Value::Null) => "",
            Some(Value::String(text)) => text,
            Some(_) => return Err(CniError::new(code::DECODE, "`cniVersion` is not a string")),
        };
        let version = Version::parse(version).ok_or_else(|| {
            CniError::new(code::VERSION, "incompatible CNI versions").with(format!(
                "config is {version:?}, plugin supports {VERSIONS:?}"
            ))
        })?;
        let mut prev = map.remove("prevResult").filter(|v| !v.is_null());
        prev.iter_mut().for_each(without_nulls_within);
        without_nulls(&mut map);
        let bad = |e: serde_json::Error| {
            CniError::config("the configuration cannot be read").with(e.to_string())
        };
        if map.contains_key("sysctl") {
            serde_json::from_slice::<EachOnce>(&text).map_err(bad)?;
        }
        let mut config: Config = serde_json::from_value(Value::Object(map)).map_err(bad)?;
        config.prev_result = prev;
        if config.name.is_empty() {
            return Err(CniError::config("missing network name"));
        }
        if !is_identifier(&config.name) {
            let msg = "invalid characters found in network name";
            return Err(CniError::config(msg).with(config.name));
        }
        Ok(Self {
            text,
            version,
            config,
        })
    }
}

/// Go reads `null` as if the key were absent.
fn without_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    map.values_mut().for_each(without_nulls_within);
}

/// The same at any depth.
pub fn without_nulls_within(value: &mut Value) {
    match value {
        Value::Object(inner) => without_nulls(inner),
        Value::Array(all) => all.iter_mut().for_each(without_nulls_within),
        _ => {}
    }
}

impl Config {
    /// The bridge is the containers' router.
    pub fn routes(&self) -> bool {
        self.is_gateway || self.is_default_gateway
    }

    /// The limits: the configuration's before the runtime's, as in the reference plugin.
    pub fn limits(&self) -> Bandwidth {
        let runtime = self.runtime_config.bandwidth.as_ref();
        let fixed = Some(&self.bandwidth).filter(|b| **b != Bandwidth::default());
        fixed.or(runtime).cloned().unwrap_or_default()
    }

    /// The list of valid attachments; no list is not an empty list.
    pub fn valid_attachments(&self) -> Option<Vec<Valid>> {
        match (&self.valid, &self.valid_before) {
            (None, None) => None,
            (now, before) => {
                let lists = now.iter().chain(before);
                Some(lists.flatten().cloned().collect())
            }
        }
    }

    /// Refuses what wharf cannot do, before anything is done.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Done<()> {
        if self.hairpin_mode && self.promisc_mode {
            let msg = "`hairpinMode` and `promiscMode` exclude each other";
            return Err(CniError::config(msg));
        }
        let own = "wharf makes one bridge per network and manages it itself";
        if self.vlan > 4094 {
            let msg = format!("invalid VLAN ID {} (must be between 0 and 4094)", self.vlan);
            return Err(CniError::config(msg));
        }
        if self.vlan != 0 {
            return Err(CniError::unsupported("vlan", self.vlan, own));
        }
        if !self.vlan_trunk.is_empty() {
            return Err(CniError::unsupported("vlanTrunk", "a list", own));
        }
        if self.disable_container_interface && !self.ipam.is_empty() {
            let msg = "`disableContainerInterface` leaves the interface down: `ipam` has to be absent or empty";
            return Err(CniError::config(msg));
        }
        let limits = self.limits();
        for (key, list) in [
            ("shapedSubnets", &limits.shaped_subnets),
            ("unshapedSubnets", &limits.unshaped_subnets),
        ] {
            if let Some(first) = list.first() {
                let why = "wharf limits all that a container sends or gets";
                return Err(CniError::unsupported(key, format!("`{first}`"), why));
            }
        }
        for (key, list) in [
            ("conditionsV4", &self.conditions_v4),
            ("conditionsV6", &self.conditions_v6),
        ] {
            if let Some(first) = list.first() {
                let why = "it is an argument of iptables, and wharf makes no rules of iptables";
                return Err(CniError::unsupported(key, format!("`{first}`"), why));
            }
        }
        if self.mark_masq_bit.is_some() && self.external_set_mark_chain.is_some() {
            let msg = "`markMasqBit` and `externalSetMarkChain` exclude each other";
            return Err(CniError::config(msg));
        }
        if self
            .mark_masq_bit
            .is_some_and(|bit| !(0..32).contains(&bit))
        {
            return Err(CniError::config("`markMasqBit` is a number from 0 to 31"));
        }
        let known = ["iptables", "nftables", "firewalld"];
        if let Some(other) = self.backend.as_deref().filter(|b| !known.contains(b)) {
            let msg = format!("`backend`: `{other}` is none of iptables, nftables, firewalld");
            return Err(CniError::config(msg));
        }
        let known = ["", "open", "same-bridge", "isolated"];
        if let Some(other) = self
            .ingress_policy
            .as_deref()
            .filter(|p| !known.contains(p))
        {
            let msg = format!("`ingressPolicy`: `{other}` is none of open, same-bridge, isolated");
            return Err(CniError::config(msg));
        }
        Ok(())
    }

    /// What is accepted without being needed, in words for whoever reads the log.
    pub fn remarks(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(chain) = &self.iptables_admin_chain_name {
            all.push(format!(
                "iptablesAdminChainName: wharf makes no rules of iptables; those of `{chain}` hold where a hook of iptables calls it"
            ));
        }
        if self.snat == Some(false) {
            all.push(
                "snat: who would not be answered by a published port appears as the gateway all the same"
                    .to_owned(),
            );
        }
        if let Some(zone) = self.firewalld_zone.as_deref().filter(|z| *z != "trusted") {
            all.push(format!(
                "firewalldZone: wharf puts nothing into zone `{zone}`; where firewalld refuses, it says what helps"
            ));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Done<Input> {
        Input::read(text.as_bytes().to_vec())
    }

    #[test]
    fn bad_input_has_its_number() {
        for (text, number) in [
            ("", 6),
            ("{", 6),
            ("[]", 6),
            ("null", 6),
            (r#"{"cniVersion":5}"#, 6),
            (r#"{"cniVersion":"9.9.9","name":"n"}"#, 1),
            (r#"{"cniVersion":"1.0.0"}"#, 7),
            (r#"{"cniVersion":"1.0.0","name":"-x/"}"#, 7),
            (r#"{"cniVersion":"1.0.0","name":"n","mtu":"many"}"#, 7),
            (r#"{"cniVersion":"1.0.0","name":"n","mtu":-1}"#, 7),
            (r#"{"cniVersion":"1.0.0","name":"n","ipam":[]}"#, 7),
        ] {
            assert_eq!(read(text).unwrap_err().code, number, "{text}");
        }
    }

    #[test]
    fn null_is_absent_and_unknown_keys_are_passed_over() {
        let text = r#"{"name":"n","bridge":null,"ipam":{"type":null},"runtimeConfig":{"portMappings":null},"x":{"y":1},"prevResult":null}"#;
        let input = read(text).unwrap();
        assert_eq!(input.version.as_str(), "0.1.0");
        assert!(input.config.prev_result.is_none());
        assert!(input.config.ipam.is_empty());
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, number, word) in [
            (r#""vlan":5"#, 2, "vlan"),
            (r#""conditionsV4":["-s","1.2.3.4"]"#, 2, "conditionsV4"),
            (r#""hairpinMode":true,"promiscMode":true"#, 7, "promiscMode"),
            (
                r#""disableContainerInterface":true,"ipam":{"type":"host-local"}"#,
                7,
                "disableContainerInterface",
            ),
            (r#""ingressPolicy":"closed""#, 7, "ingressPolicy"),
            (r#""markMasqBit":32"#, 7, "markMasqBit"),
        ] {
            let input = read(&format!(r#"{{"name":"n",{text}}}"#)).unwrap();
            let error = input.config.check().unwrap_err();
            assert_eq!(error.code, number, "{text}");
            assert!(error.msg.contains(word), "{}", error.msg);
        }
    }

    #[test]
    fn no_list_is_not_an_empty_list() {
        let list = |text: &str| {
            let input = read(&format!(r#"{{"name":"n"{text}}}"#)).unwrap();
            input.config.valid_attachments().map(|l| l.len())
        };
        assert_eq!(list(""), None);
        assert_eq!(list(r#","cni.dev/valid-attachments":null"#), None);
        assert_eq!(list(r#","cni.dev/valid-attachments":[]"#), Some(0));
        let one = r#"[{"containerID":"a","ifname":"eth0"}]"#;
        assert_eq!(list(&format!(r#","cni.dev/attachments":{one}"#)), Some(1));
    }
}
