//! Results, in every version of the protocol.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wharf_core::addr::Family;

use super::error::{CniError, Done, code};

/// The versions wharf speaks.
pub const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// A version as something to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(usize);

impl Version {
    /// The oldest with a list of interfaces.
    pub const INTERFACES: Self = Self(2);
    /// The oldest with `CHECK`.
    pub const CHECK: Self = Self(4);
    /// The oldest whose addresses do not say their family.
    pub const PLAIN: Self = Self(5);
    /// The oldest with `GC` and `STATUS`.
    pub const GC: Self = Self(6);
    /// The newest.
    pub const NEWEST: Self = Self(6);

    /// Reads a version; none at all means the first.
    pub fn parse(text: &str) -> Option<Self> {
        let text = if text.is_empty() { VERSIONS[0] } else { text };
        VERSIONS.iter().position(|v| *v == text).map(Self)
    }

    /// Its text.
    pub fn as_str(self) -> &'static str {
        VERSIONS[self.0]
    }
}

/// An interface of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// The MTU; from 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The container's namespace, as the runtime named it; empty on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// What else another plugin says.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// An address of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// Whose it is: a place in the list of interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
    /// The address with its prefix length.
    pub address: IpNet,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route of a result, and of an address plugin's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The MTU along the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The segment size told to peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

impl Route {
    /// A route to everywhere.
    pub fn to_all(gw: IpAddr) -> Self {
        let family = Family::of(gw);
        Self {
            dst: IpNet::new(family.any(), 0).expect("0 is a prefix length"),
            gw: Some(gw),
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }

    fn plain(&self) -> Self {
        Self {
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
            ..self.clone()
        }
    }
}

/// Name service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The domain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains to search in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A result, in the form of the newest version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Interfaces, the host's first.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
}

/// One family in the form of 0.2.0.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct OldIp {
    ip: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl Outcome {
    /// Reads a result of any version; which form it has shows by its keys.
    ///
    /// # Errors
    /// It has none of the forms.
    pub fn parse(value: &Value) -> Done<Self> {
        let bad = |e: serde_json::Error| {
            CniError::new(code::DECODE, "cannot read the result").with(e.to_string())
        };
        // serde would take a list for an object's values.
        if !value.is_object() {
            let msg = "the result is not a JSON object";
            return Err(CniError::new(code::DECODE, msg));
        }
        let mut result: Self = serde_json::from_value(value.clone()).map_err(bad)?;
        for key in ["ip4", "ip6"] {
            let Some(old) = value.get(key) else { continue };
            let old: OldIp = serde_json::from_value(old.clone()).map_err(bad)?;
            result.ips.push(Ip {
                interface: None,
                address: old.ip,
                gateway: old.gateway,
            });
            result.routes.extend(old.routes);
        }
        let count = result.interfaces.len() as i64;
        for ip in &result.ips {
            if ip.interface.is_some_and(|i| !(0..count).contains(&i)) {
                let msg = "an address of the result belongs to an interface that is not listed";
                return Err(CniError::new(code::DECODE, msg));
            }
        }
        Ok(result)
    }

    /// Writes the result in the form of a version.
    ///
    /// # Errors
    /// The old forms cannot say that there is no address.
    pub fn json(&self, version: Version) -> Done<Value> {
        if version < Version::INTERFACES {
            return self.old(version);
        }
        let newest = version == Version::NEWEST;
        let interface = |i: &Interface| {
            let mut i = i.clone();
            if !newest {
                i.mtu = None;
                i.more.clear();
            }
            i
        };
        let ip = |ip: &Ip| {
            let mut value = Map::new();
            if version < Version::PLAIN {
                value.insert("version".to_owned(), family_text(ip.address).into());
            }
            if let Some(at) = ip.interface {
                value.insert("interface".to_owned(), at.into());
            }
            value.insert("address".to_owned(), ip.address.to_string().into());
            if let Some(gateway) = ip.gateway {
                value.insert("gateway".to_owned(), gateway.to_string().into());
            }
            Value::Object(value)
        };
        let mut value = json!({"cniVersion": version.as_str()});
        if !self.interfaces.is_empty() {
            let all: Vec<Interface> = self.interfaces.iter().map(interface).collect();
            value["interfaces"] = json!(all);
        }
        if !self.ips.is_empty() {
            value["ips"] = self.ips.iter().map(ip).collect();
        }
        if !self.routes.is_empty() {
            let route = |r: &Route| if newest { r.clone() } else { r.plain() };
            value["routes"] = json!(self.routes.iter().map(route).collect::<Vec<_>>());
        }
        value["dns"] = json!(self.dns);
        Ok(value)
    }

    fn old(&self, version: Version) -> Done<Value> {
        let mut value = json!({"cniVersion": version.as_str()});
        for (key, family) in [("ip4", Family::V4), ("ip6", Family::V6)] {
            let of_family = |net: &IpNet| Family::of_net(*net) == family;
            let Some(first) = self.ips.iter().find(|ip| of_family(&ip.address)) else {
                continue;
            };
            let routes = self.routes.iter().filter(|r| of_family(&r.dst));
            value[key] = json!(OldIp {
                ip: first.address,
                gateway: first.gateway,
                routes: routes.map(Route::plain).collect(),
            });
        }
        if self.ips.is_empty() {
            let msg = format!(
                "version {} has no form for a result without address",
                version.as_str()
            );
            return Err(CniError::new(code::VERSION, msg));
        }
        value["dns"] = json!(self.dns);
        Ok(value)
    }

    /// The place of the container's interface of this name.
    pub fn inside(&self, name: &str) -> Option<usize> {
        let found = |i: &Interface| i.name == name && !i.sandbox.is_empty();
        self.interfaces.iter().position(found)
    }
}

fn family_text(net: IpNet) -> &'static str {
    match Family::of_net(net) {
        Family::V4 => "4",
        Family::V6 => "6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Value {
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni7", "mac": "ba:35:16:a7:ec:49"},
                {"name": "veth8a832b62", "mac": "52:78:3e:03:d7:a4"},
                {"name": "eth0", "mac": "12:9d:ff:76:fa:f0", "sandbox": "/run/netns/wcc1"}
            ],
            "ips": [
                {"interface": 2, "address": "10.44.0.10/24", "gateway": "10.44.0.1"},
                {"interface": 2, "address": "fd44::2/64", "gateway": "fd44::1"}
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            "dns": {"nameservers": ["10.44.0.1"]}
        })
    }

    fn to(version: &str) -> Value {
        let version = Version::parse(version).unwrap();
        Outcome::parse(&full()).unwrap().json(version).unwrap()
    }

    #[test]
    fn the_same_comes_back() {
        assert_eq!(to("1.0.0").to_string(), full().to_string());
        for version in VERSIONS {
            let there = to(version);
            let back = Outcome::parse(&there).unwrap();
            let again = back.json(Version::parse(version).unwrap()).unwrap();
            assert_eq!(there, again, "{version}");
        }
    }

    #[test]
    fn older_forms() {
        assert_eq!(to("0.4.0")["ips"][0]["version"], "4");
        assert_eq!(to("0.3.0")["ips"][1]["version"], "6");
        assert!(to("1.1.0")["ips"][0].get("version").is_none());
        assert_eq!(
            to("0.2.0").to_string(),
            concat!(
                r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.44.0.10/24","gateway":"10.44.0.1","routes":[{"dst":"0.0.0.0/0"}]},"#,
                r#""ip6":{"ip":"fd44::2/64","gateway":"fd44::1","routes":[{"dst":"::/0"}]},"dns":{"nameservers":["10.44.0.1"]}}"#
            )
        );
        assert_eq!(Version::parse("").unwrap().as_str(), "0.1.0");
        assert_eq!(Version::parse("9.9.9"), None);
        let error = Outcome::default().json(Version::parse("0.2.0").unwrap());
        assert_eq!(error.unwrap_err().code, 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            json!([]),
            json!({"ips": [{"address": "10.0.0.300/8"}]}),
            json!({"ips": [{"address": "10.0.0.3/8", "interface": 0}]}),
            json!({"interfaces": 5}),
        ] {
            assert_eq!(Outcome::parse(&bad).unwrap_err().code, 6, "{bad}");
        }
    }
}
