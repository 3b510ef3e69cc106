//! Reading the file: TOML or YAML, by its extension or by trying.

use std::io::Read;
use std::path::Path;

use wharf_core::ErrorKind;
use wharf_core::network::{HostFacts, NetworkRequest, resolve};
use wharf_core::topology::{ContainerSpec, Topology};

use crate::output::error::{CommandError, os_text};

/// What a file asks for.
#[derive(Debug)]
pub struct Wanted {
    /// Its networks, in order.
    pub networks: Vec<NetworkRequest>,
    /// Its containers, in order.
    pub containers: Vec<ContainerSpec>,
}

/// What the parser says of a name `null` or `~`, and what helps.
const NOTHING: (&str, &str) = (
    "cannot deserialize null into string; use Option<String>",
    "this is read as nothing, not as text: write it in quotes",
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Toml,
    Yaml,
}

/// Reads a file, or the standard input for `-`.
///
/// # Errors
/// It cannot be read, is neither TOML nor YAML, or asks for something that cannot be.
pub fn read(path: &Path) -> Result<Wanted, CommandError> {
    let stdin = path == Path::new("-");
    let shown = if stdin {
        "the standard input".to_owned()
    } else {
        format!("`{}`", path.display())
    };
    let text = if stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::Config,
        };
        CommandError::new(kind, format!("cannot read {shown}")).cause(os_text(&error.to_string()))
    })?;
    parse(&text, by_extension(path)).map_err(|cause| {
        CommandError::new(ErrorKind::Config, format!("cannot use {shown}")).cause(cause)
    })
}

fn by_extension(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "toml" => Some(Format::Toml),
        // JSON is YAML.
        "yaml" | "yml" | "json" => Some(Format::Yaml),
        _ => None,
    }
}

fn parse(text: &str, format: Option<Format>) -> Result<Wanted, String> {
    let topology = match format {
        Some(format) => parse_as(text, format)?,
        None => {
            let likely = guess(text);
            let other = match likely {
                Format::Toml => Format::Yaml,
                Format::Yaml => Format::Toml,
            };
            match parse_as(text, likely) {
                Ok(topology) => topology,
                Err(error) => parse_as(text, other).map_err(|_| error)?,
            }
        }
    };
    let (networks, containers) = topology.into_requests().map_err(|e| e.to_string())?;
    for request in &networks {
        // What cannot be on any host cannot be on this one; the host's own conflicts are found later.
        resolve(request, &[], &HostFacts::default())
            .map_err(|e| format!("networks.{}: {e}", request.name))?;
    }
    Ok(Wanted {
        networks,
        containers,
    })
}

fn parse_as(text: &str, format: Format) -> Result<Topology, String> {
    match format {
        Format::Toml => toml::from_str(text).map_err(|e| e.to_string()),
        // A file without anything in it asks for nothing, in YAML too.
        Format::Yaml if text.lines().all(is_blank) => Ok(Topology::default()),
        Format::Yaml => serde_saphyr::from_str(text).map_err(|e| {
            let text = e.to_string().replace(NOTHING.0, NOTHING.1);
            text.strip_prefix("error: ").unwrap_or(&text).to_owned()
        }),
    }
}

/// The format whose error is worth showing when neither fits.
fn guess(text: &str) -> Format {
    let first = text.lines().find(|line| !is_blank(line)).unwrap_or("");
    let toml = first.trim_start().starts_with('[')
        || first
            .find('=')
            .is_some_and(|at| !first[..at].contains(": "));
    if toml { Format::Toml } else { Format::Yaml }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "[networks.blue]\nsubnet = \"172.18.0.0/16\"\nicc = false\n\
                        [containers.web]\nnetworks = [\"blue:ip=172.18.0.10\"]\nports = [\"5005:5000\"]\n";
    const YAML: &str = "networks:\n  blue:\n    subnet: 172.18.0.0/16\n    icc: false\n\
                        containers:\n  web:\n    networks: [\"blue:ip=172.18.0.10\"]\n    ports: [\"5005:5000\"]\n";

    /// A file of any bytes is read or refused, in both formats and when the format is guessed.
    #[test]
    fn any_file_is_read_or_refused() {
        const PIECES: &[&str] = &[
            "networks",
            "containers",
            ":",
            "\n",
            "\n  ",
            "\n    ",
            "[",
            "]",
            "{",
            "}",
            "- ",
            "&a ",
            "*a",
            "|",
            ">",
            "!!int ",
            "blue",
            "web",
            "subnet",
            "10.1.0.0/24",
            "ports",
            "80:80",
            "'",
            "\"",
            "=",
            ".",
            "[networks.",
            "true",
            "~",
            "#",
            "\t",
            "ip",
            "---",
            "...",
            "<<",
        ];
        let text = |bytes: &[u8]| match bytes.split_first() {
            Some((first, rest)) if first % 4 != 0 => {
                let pieces = rest.iter().map(|b| PIECES[usize::from(*b) % PIECES.len()]);
                pieces.collect()
            }
            _ => String::from_utf8_lossy(bytes).into_owned(),
        };
        bolero::check!()
            .with_iterations(20_000)
            .with_test_time(std::time::Duration::from_secs(2))
            .with_max_len(64)
            .for_each(|bytes: &[u8]| {
                let text = text(bytes);
                for format in [None, Some(Format::Toml), Some(Format::Yaml)] {
                    let _ = parse(&text, format);
                }
            });
    }

    #[test]
    fn both_formats_say_the_same() {
        for (text, format) in [
            (TOML, Some(Format::Toml)),
            (TOML, None),
            (YAML, Some(Format::Yaml)),
            (YAML, None),
        ] {
            let wanted = parse(text, format).unwrap();
            assert_eq!(wanted.networks[0].subnets[0].to_string(), "172.18.0.0/16");
            assert_eq!(wanted.networks[0].icc, Some(false));
            assert_eq!(wanted.containers[0].ports[0].to_string(), "5005:5000/tcp");
        }
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        for format in [None, Some(Format::Toml), Some(Format::Yaml)] {
            let wanted = parse("# nothing\n", format).unwrap();
            assert!(wanted.networks.is_empty() && wanted.containers.is_empty());
        }
    }

    #[test]
    fn a_network_that_cannot_be_is_refused() {
        let error = parse("[networks.a]\nsubnet = \"10.88.9.5/24\"\n", None).unwrap_err();
        assert!(error.starts_with("networks.a: `10.88.9.5/24`"), "{error}");
    }

    #[test]
    fn the_likely_formats_error_is_shown() {
        let error = parse("[networks.blue]\nsubnot = 1\n", None).unwrap_err();
        assert!(error.contains("subnot"), "{error}");
        let error = parse("networks:\n  blue:\n    subnot: 1\n", None).unwrap_err();
        assert!(error.contains("subnot"), "{error}");
    }
}
