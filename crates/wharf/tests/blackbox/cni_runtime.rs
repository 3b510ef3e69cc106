//! A container runtime as libcni is one: it runs the plugins of a list, hands results on and keeps the last one.

use crate::common::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::sync::Mutex;
use wharf_testkit::{Host, HostCommand, Output};

/// Where Debian keeps the reference plugins.
pub const REFERENCE: &str = "/usr/lib/cni";

/// A runtime on a host.
pub struct Runtime<'a> {
    /// The host.
    pub host: &'a Host,
    /// `CNI_PATH`.
    pub path: String,
    cache: Mutex<HashMap<(String, String, String), Value>>,
}

/// One call that failed: its error object.
pub type Outcome = Result<Value, Value>;

impl<'a> Runtime<'a> {
    /// A runtime whose plugins are `wharf`, what the test adds, and the reference plugins.
    pub fn new(host: &'a Host) -> Self {
        let bin = host.dir().path().join("bin");
        std::fs::create_dir_all(&bin).expect("plugin directory");
        let link = bin.join("wharf");
        if !link.exists() {
            let wharf = std::env::var("WHARF_BIN").unwrap_or_else(|_| WHARF.to_owned());
            symlink(wharf, link).expect("link to wharf");
        }
        Self {
            host,
            path: format!("{}:{REFERENCE}", bin.display()),
            cache: Mutex::new(HashMap::new()),
        }
    }

    /// Adds a plugin that is a shell script.
    pub fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.host.dir().path().join("bin").join(name);
        std::fs::write(&path, text).expect("plugin script");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("executable");
    }

    /// A namespace for a container.
    pub fn netns(&self, name: &str) {
        self.host.sh(&format!("ip netns add {name}"));
    }

    /// One call of one plugin, ready to run.
    pub fn command(
        &self,
        verb: &str,
        id: &str,
        netns: &str,
        ifname: &str,
        conf: &Value,
    ) -> HostCommand {
        let kind = conf["type"].as_str().unwrap_or("wharf");
        let mut dirs = self.path.split(':').map(|dir| format!("{dir}/{kind}"));
        let program = dirs
            .find(|path| std::path::Path::new(path).exists())
            .unwrap_or_else(|| panic!("no plugin {kind} in {}", self.path));
        let mut command = self
            .host
            .command(&program)
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", &self.path)
            .input(&conf.to_string());
        for (key, value) in [
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", ifname),
        ] {
            if !value.is_empty() {
                command = command.env(key, value);
            }
        }
        command
    }

    /// One call of one plugin.
    pub fn call(&self, verb: &str, id: &str, netns: &str, ifname: &str, conf: &Value) -> Outcome {
        answer(&self.command(verb, id, netns, ifname, conf).run())
    }

    fn plugins(list: &Value, capabilities: &Value) -> Vec<Value> {
        let plugins = list["plugins"]
            .as_array()
            .expect("a list of plugins")
            .clone();
        let with = |mut plugin: Value| {
            plugin["cniVersion"] = list["cniVersion"].clone();
            plugin["name"] = list["name"].clone();
            let wanted = plugin["capabilities"]
                .as_object()
                .cloned()
                .unwrap_or_default();
            for (key, on) in wanted {
                if on == true && !capabilities[&key].is_null() {
                    plugin["runtimeConfig"][&key] = capabilities[&key].clone();
                }
            }
            plugin
        };
        plugins.into_iter().map(with).collect()
    }

    fn key(list: &Value, id: &str, ifname: &str) -> (String, String, String) {
        (text(list, "name"), id.to_owned(), ifname.to_owned())
    }

    /// `ADD` along the list; the last result is kept.
    pub fn add(&self, list: &Value, id: &str, ifname: &str, capabilities: &Value) -> Outcome {
        let mut prev = Value::Null;
        for mut plugin in Self::plugins(list, capabilities) {
            if !prev.is_null() {
                plugin["prevResult"] = prev;
            }
            prev = self.call("ADD", id, &netns_of(id), ifname, &plugin)?;
        }
        let mut cache = self.cache.lock().expect("no panic");
        cache.insert(Self::key(list, id, ifname), prev.clone());
        Ok(prev)
    }

    /// `CHECK` along the list, with the kept result.
    pub fn check(&self, list: &Value, id: &str, ifname: &str, capabilities: &Value) -> Outcome {
        let prev = self.cached(list, id, ifname);
        for mut plugin in Self::plugins(list, capabilities) {
            plugin["prevResult"] = prev.clone();
            self.call("CHECK", id, &netns_of(id), ifname, &plugin)?;
        }
        Ok(Value::Null)
    }

    /// `DEL` backwards; stops at the first failure.
    pub fn del(&self, list: &Value, id: &str, ifname: &str, capabilities: &Value) -> Outcome {
        let prev = self.cached(list, id, ifname);
        for mut plugin in Self::plugins(list, capabilities).into_iter().rev() {
            if !prev.is_null() {
                plugin["prevResult"] = prev.clone();
            }
            self.call("DEL", id, &netns_of(id), ifname, &plugin)?;
        }
        let mut cache = self.cache.lock().expect("no panic");
        cache.remove(&Self::key(list, id, ifname));
        Ok(Value::Null)
    }

    /// `GC` with the attachments that stay; all plugins are asked.
    pub fn gc(&self, list: &Value, valid: &[(&str, &str)]) -> Outcome {
        let item = |(id, ifname): &(&str, &str)| json!({"containerID": id, "ifname": ifname});
        let valid: Vec<Value> = valid.iter().map(item).collect();
        for mut plugin in Self::plugins(list, &Value::Null) {
            plugin["cni.dev/valid-attachments"] = json!(valid);
            plugin["cni.dev/attachments"] = json!(valid);
            self.call("GC", "", "", "", &plugin)?;
        }
        Ok(Value::Null)
    }

    /// The result that is kept.
    pub fn cached(&self, list: &Value, id: &str, ifname: &str) -> Value {
        let cache = self.cache.lock().expect("no panic");
        let found = cache.get(&Self::key(list, id, ifname));
        found.cloned().unwrap_or_default()
    }
}

/// The path of a container's namespace.
pub fn netns_of(id: &str) -> String {
    format!("/run/netns/{id}")
}

/// What a plugin answered: on the standard output, and nothing beside.
#[track_caller]
pub fn answer(output: &Output) -> Outcome {
    let text = output.stdout.trim();
    let value = || {
        serde_json::from_str::<Value>(text)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", output.transcript()))
    };
    match output.code {
        Some(0) if text.is_empty() => Ok(Value::Null),
        Some(0) => Ok(value()),
        _ => Err(value()),
    }
}

/// A list of one object `"type": "wharf"` with everything in it.
pub fn list(version: &str, more: &Value) -> Value {
    let mut plugin = json!({
        "type": "wharf",
        "bridge": "cni7",
        "isGateway": true,
        "ipMasq": true,
        "hairpinMode": true,
        "ingressPolicy": "same-bridge",
        "backend": "iptables",
        "capabilities": {"portMappings": true, "bandwidth": true, "ips": true, "mac": true, "ipRanges": true, "aliases": true, "dns": true, "deviceID": true},
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd44::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        }
    });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        plugin[key] = value;
    }
    json!({"cniVersion": version, "name": "mynet", "plugins": [plugin]})
}

/// The number of an error.
#[track_caller]
pub fn code(outcome: Outcome) -> u64 {
    let error = outcome.expect_err("should have failed");
    assert!(!text(&error, "msg").is_empty(), "{error}");
    assert!(error["cniVersion"].is_string(), "{error}");
    error["code"]
        .as_u64()
        .unwrap_or_else(|| panic!("no code in {error}"))
}
