//! `install` and `uninstall`: wharf put where container engines look for it, and taken away again.
//!
//! An engine finds wharf by a link in the directory of its helpers and a configuration that names it. What is there
//! already and is not wharf's stays as it is.

mod files;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::args::ChangeArgs;
use super::{Context, Done};
use crate::output::error::CommandError;
use files::{Change, Changes};

/// Who is to find wharf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Client {
    /// Runtimes that call CNI plugins: containerd, CRI-O, nerdctl, Podman's old backend
    Cni,
    /// Podman, which calls Netavark
    Netavark,
}

#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Who is to find wharf
    client: Client,

    /// Where its helpers are [default: /opt/cni/bin for cni, /usr/libexec/wharf-podman for netavark]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Where its configuration is [default: /etc/cni/net.d for cni, /etc/containers/containers.conf.d for netavark]
    #[arg(long, value_name = "DIR")]
    conf_dir: Option<PathBuf>,

    #[command(flatten)]
    change: ChangeArgs,
}

/// A network as most people want it, for runtimes of every age.
const CNI_SAMPLE: &str = r#"{
  "cniVersion": "1.0.0",
  "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
  "name": "wharf",
  "plugins": [
    {
      "type": "wharf",
      "bridge": "wharf-cni0",
      "isDefaultGateway": true,
      "ipMasq": true,
      "ipam": { "type": "wharf" },
      "capabilities": {
        "portMappings": true,
        "bandwidth": true,
        "ips": true,
        "ipRanges": true,
        "mac": true,
        "aliases": true,
        "dns": true
      }
    }
  ]
}
"#;

/// Where Podman's helpers are by default, in its own order (`containers.conf(5)`).
const HELPERS: [&str; 4] = [
    "/usr/local/libexec/podman",
    "/usr/local/lib/podman",
    "/usr/libexec/podman",
    "/usr/lib/podman",
];

/// Podman looks in wharf's directory first, and then where it always does.
fn podman_sample(dir: &Path) -> String {
    let all = std::iter::once(dir.display().to_string()).chain(HELPERS.map(str::to_owned));
    let all: Vec<String> = all.map(|d| format!("{d:?}")).collect();
    format!(
        "# Podman finds wharf under the name of netavark.\n[network]\nnetwork_backend = \"netavark\"\n\n[engine]\nhelper_binaries_dir = [{}]\n",
        all.join(", ")
    )
}

/// What is put in place for a client.
struct Parts {
    dir: PathBuf,
    /// The link to wharf.
    link: PathBuf,
    /// Other programs that must be in the same directory, where they are found.
    beside: Vec<(PathBuf, PathBuf)>,
    conf_dir: PathBuf,
    conf: PathBuf,
    text: String,
}

impl InstallArgs {
    fn parts(&self) -> Result<Parts, CommandError> {
        let (dir, conf_dir, link, conf) = match self.client {
            Client::Cni => (
                "/opt/cni/bin",
                "/etc/cni/net.d",
                "wharf",
                "10-wharf.conflist",
            ),
            Client::Netavark => (
                "/usr/libexec/wharf-podman",
                "/etc/containers/containers.conf.d",
                "netavark",
                "50-wharf.conf",
            ),
        };
        let dir = absolute(self.dir.clone().unwrap_or_else(|| dir.into()))?;
        let conf_dir = absolute(self.conf_dir.clone().unwrap_or_else(|| conf_dir.into()))?;
        let helper = |name: &str| {
            let mut all = HELPERS.iter().map(|d| Path::new(d).join(name));
            all.find(|p| p.is_file() && !p.starts_with(&dir))
        };
        let beside = match self.client {
            Client::Cni => Vec::new(),
            Client::Netavark => helper("aardvark-dns")
                .map(|found| (dir.join("aardvark-dns"), found))
                .into_iter()
                .collect(),
        };
        let text = match self.client {
            Client::Cni => CNI_SAMPLE.to_owned(),
            Client::Netavark => podman_sample(&dir),
        };
        Ok(Parts {
            link: dir.join(link),
            conf: conf_dir.join(conf),
            dir,
            beside,
            conf_dir,
            text,
        })
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, CommandError> {
    std::path::absolute(&path).map_err(|e| {
        CommandError::usage(format!("`{}` is no directory", path.display())).cause(e.to_string())
    })
}

/// The program itself, wherever it was called by.
fn own_path() -> Result<PathBuf, CommandError> {
    std::env::current_exe().map_err(|e| {
        CommandError::internal("cannot find the program's own file").cause(e.to_string())
    })
}

pub fn install(args: &InstallArgs, ctx: &Context) -> Done {
    let parts = args.parts()?;
    let own = own_path()?;
    let mut changes = Changes::default();
    changes.directory(&parts.dir);
    let engine = match args.client {
        Client::Cni => "runtimes look for plugins here",
        Client::Netavark => "Podman looks for netavark here",
    };
    changes.link(&parts.link, &own, engine)?;
    for (link, target) in &parts.beside {
        changes.link(
            link,
            target,
            "Podman's name server is found beside netavark",
        )?;
    }
    if parts.conf.exists() {
        changes.keep(&parts.conf, "it is there already");
    } else {
        changes.directory(&parts.conf_dir);
        changes.push(
            Change::Write(parts.conf.clone(), parts.text.clone()),
            "the configuration names wharf",
        );
    }
    changes.finish(ctx, args.change.mode())
}

pub fn uninstall(args: &InstallArgs, ctx: &Context) -> Done {
    let parts = args.parts()?;
    let mut changes = Changes::default();
    match std::fs::read_to_string(&parts.conf) {
        Ok(text) if text == parts.text => {
            changes.push(
                Change::Remove(parts.conf.clone(), Some(text)),
                "it names wharf",
            );
        }
        Ok(_) => changes.keep(&parts.conf, "it was changed, or is not wharf's"),
        Err(_) => {}
    }
    for link in std::iter::once(&parts.link).chain(parts.beside.iter().map(|(link, _)| link)) {
        match files::wharfs_link(link, &parts.beside) {
            files::Found::Nothing => {}
            files::Found::Ours => {
                changes.push(Change::Remove(link.clone(), None), "it is wharf's link")
            }
            files::Found::Other => changes.keep(link, "it is not wharf's"),
        }
    }
    // The directory for Podman is wharf's own; that of plugins is everybody's.
    if args.client == Client::Netavark && changes.empties(&parts.dir) {
        changes.push(
            Change::RemoveDir(parts.dir.clone()),
            "nothing else is in it",
        );
    }
    changes.finish(ctx, args.change.mode())
}
