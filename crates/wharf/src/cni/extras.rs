//! Limits of speed and settings of the interface: the keys of the reference plugins bandwidth and tuning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wharf_core::extras::{Extras, Limit, Shaping, Traits};

use super::call::Call;
use super::config::Config;
use super::error::{CniError, Done, code};
use super::pattern::Pattern;
use super::{names, network};

/// Where an administrator says which sysctls may be set.
const ALLOWED: &str = "/etc/cni/tuning/allowlist.conf";

/// Reads limits and settings. An interface of wharf's own has its hardware address and MTU otherwise; one that another
/// plugin made gets them here.
///
/// # Errors
/// A value that cannot be, a sysctl that may not be set.
pub fn read(call: &Call, config: &Config, own: bool) -> Done<Extras> {
    let args = &config.args.cni;
    let given = |mtu: &u32| *mtu != 0;
    let mut traits = Traits {
        promisc: args.promisc.unwrap_or(config.promisc).then_some(true),
        allmulti: args.allmulti.or(config.allmulti),
        tx_queue: config.tx_queue,
        mtu: args.mtu.filter(given),
        ..Traits::default()
    };
    if !own {
        traits.mac = network::mac(call, config)?;
        traits.mtu = traits.mtu.or(Some(config.mtu).filter(given));
    }
    Ok(Extras {
        shaping: shaping(call, config)?,
        traits,
        before: Traits::default(),
        sysctls: sysctls(call, config, Path::new(ALLOWED))?,
    })
}

fn shaping(call: &Call, config: &Config) -> Done<Option<Shaping>> {
    let limits = config.limits();
    let inward = limit("ingress", limits.ingress_rate, limits.ingress_burst)?;
    let outward = limit("egress", limits.egress_rate, limits.egress_burst)?;
    if inward.is_none() && outward.is_none() {
        return Ok(None);
    }
    let detour = names::detour(&call.key(&config.name));
    Ok(Some(Shaping {
        inward,
        outward,
        detour: detour.ok_or_else(|| CniError::new(code::FAILED, "no name for an interface"))?,
    }))
}

/// Bits become bytes.
fn limit(which: &str, rate: Option<u64>, burst: Option<u64>) -> Done<Option<Limit>> {
    match (rate.unwrap_or(0), burst.unwrap_or(0)) {
        (0, 0) => Ok(None),
        (0, _) | (_, 0) => Err(CniError::config(format!(
            "`{which}Rate` and `{which}Burst` are both given, or none"
        ))),
        (..8, _) | (_, ..8) => Err(CniError::config(format!(
            "`{which}Rate` and `{which}Burst` are in bits: at least 8"
        ))),
        (rate, burst) => {
            let burst = u32::try_from(burst / 8)
                .map_err(|_| CniError::config(format!("`{which}Burst` is more than 4 GiB")))?;
            Ok(Some(Limit {
                rate: rate / 8,
                burst,
            }))
        }
    }
}

fn sysctls(call: &Call, config: &Config, allowed: &Path) -> Done<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let args = &config.args.cni.sysctl;
    if config.sysctl.is_empty() && args.is_empty() {
        return Ok(all);
    }
    let patterns = patterns(allowed)?;
    // What is said of the container replaces what is said of all.
    for map in [&config.sysctl, args] {
        let mut seen = BTreeSet::new();
        for (key, value) in map {
            let path = sysctl_path(call, key, (patterns.as_deref(), allowed))?;
            if !seen.insert(path.clone()) {
                let msg = format!("`sysctl`: {key} is given twice, by two ways of writing it");
                return Err(CniError::config(msg));
            }
            all.insert(path, value.clone());
        }
    }
    Ok(all)
}

/// The file of a sysctl that may be set.
fn sysctl_path(
    call: &Call,
    key: &str,
    (patterns, allowed): (Option<&[Pattern]>, &Path),
) -> Done<String> {
    let refused = |why: &str| CniError::config(format!("`sysctl`: {key} may not be set: {why}"));
    if let Some(patterns) = patterns
        && !patterns.iter().any(|p| p.is_in(key))
    {
        return Err(refused(&format!("{} does not list it", allowed.display())));
    }
    // The interface's name may have dots in it.
    let path = key.replace('.', "/").replacen("IFNAME", &call.ifname, 1);
    let mut parts = path.split('/');
    if parts.next() != Some("net") {
        return Err(refused("it is not below `net`"));
    }
    if parts.any(|p| matches!(p, "" | "." | "..")) || path.contains('\0') {
        return Err(refused("it is no name of a sysctl"));
    }
    Ok(path)
}

/// The administrator's list; `None` if there is none.
fn patterns(path: &Path) -> Done<Option<Vec<Pattern>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            let msg = format!("cannot read {}", path.display());
            return Err(CniError::new(code::IO, msg).with(e.to_string()));
        }
    };
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let pattern = |line: &str| {
        Pattern::parse(line).ok_or_else(|| {
            let msg = format!("{}: wharf cannot read `{line}`", path.display());
            CniError::config(msg).with("it reads letters, ., [], \\, *, +, ?, ^ and $")
        })
    };
    lines.map(pattern).collect::<Done<Vec<_>>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::call::Verb;
    use crate::cni::config::Input;

    fn call() -> Call {
        Call {
            verb: Verb::Add,
            container: "c".to_owned(),
            netns: "/n".to_owned(),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            path: Vec::new(),
        }
    }

    fn extras(text: &str) -> Done<Extras> {
        let text = format!(r#"{{"name":"n",{text}}}"#);
        read(
            &call(),
            &Input::read(text.into_bytes()).unwrap().config,
            true,
        )
    }

    #[test]
    fn a_sysctl_is_given_once_however_it_is_written() {
        let error = extras(
            r#""sysctl":{"net/ipv4/conf/eth0/arp_filter":"1","net.ipv4.conf.IFNAME.arp_filter":"0"}"#,
        );
        assert!(error.unwrap_err().msg.contains("twice"));
        let own = extras(
            r#""sysctl":{"net/ipv4/conf/eth0/arp_filter":"1"},"args":{"cni":{"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"0"}}}"#,
        );
        let all = own.unwrap().sysctls;
        assert_eq!(all["net/ipv4/conf/eth0/arp_filter"], "0");
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn limits_are_in_bits() {
        let e = extras(r#""ingressRate":1000000,"ingressBurst":2000000"#).unwrap();
        let shaping = e.shaping.unwrap();
        let limit = Limit {
            rate: 125_000,
            burst: 250_000,
        };
        assert_eq!((shaping.inward, shaping.outward), (Some(limit), None));
        assert_eq!(shaping.detour.as_str().len(), 15);
        let runtime = r#""runtimeConfig":{"bandwidth":{"egressRate":80,"egressBurst":80}}"#;
        let shaping = extras(runtime).unwrap().shaping.unwrap();
        assert!(shaping.inward.is_none() && shaping.outward.is_some());
        let both = format!(r#""ingressRate":8,"ingressBurst":8,{runtime}"#);
        let shaping = extras(&both).unwrap().shaping.unwrap();
        assert!(shaping.inward.is_some() && shaping.outward.is_none());
        let off = format!(r#""egressRate":0,"egressBurst":0,{runtime}"#);
        assert_eq!(extras(&off).unwrap().shaping, None);
        for bad in [
            r#""ingressRate":1000"#,
            r#""egressBurst":1000"#,
            r#""egressRate":4,"egressBurst":1000"#,
            r#""egressRate":1000,"egressBurst":99999999999999"#,
        ] {
            assert_eq!(extras(bad).unwrap_err().code, 7, "{bad}");
        }
    }

    #[test]
    fn sysctls_of_the_network_only() {
        let e = extras(
            r#""sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1","net/core/somaxconn":"500"}"#,
        )
        .unwrap();
        let keys: Vec<&str> = e.sysctls.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["net/core/somaxconn", "net/ipv4/conf/eth0/arp_filter"]
        );
        for bad in [
            "kernel.panic",
            "net.../kernel/panic",
            "net//x",
            "net/../kernel/panic",
            "/proc/sys/net/x",
            "net",
        ] {
            let error = extras(&format!(r#""sysctl":{{"{bad}":"1"}}"#));
            assert!(bad == "net" || error.unwrap_err().code == 7, "{bad}");
        }
    }

    #[test]
    fn what_the_administrator_allows() {
        let dir = std::env::temp_dir().join(format!("wharf-allow-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let list = dir.join("allowlist.conf");
        let config = Input::read(br#"{"name":"n","sysctl":{"net.core.somaxconn":"1"}}"#.to_vec())
            .unwrap()
            .config;
        let allowed = |text: &str| {
            std::fs::write(&list, text).unwrap();
            sysctls(&call(), &config, &list).is_ok()
        };
        assert!(allowed("^net.ipv4.*\n^net\\.core\\.somaxconn$\n"));
        assert!(!allowed("^net.ipv4.*\n"));
        assert!(
            !allowed("(net|core)\n"),
            "what cannot be read allows nothing"
        );
        assert!(sysctls(&call(), &config, &dir.join("none")).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
