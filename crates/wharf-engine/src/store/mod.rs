//! What wharf knows, in two LMDB environments.
//!
//! * the state store (`/var/lib/wharf`): networks, synced to disk;
//! * the run store (`/run/wharf`): everything that ends with a boot: networks that are up, containers, leases,
//!   published ports, the journal. It records which boot and which network namespace it belongs to.
//!
//! A change is one write transaction before the kernel is touched, which also writes the journal, and one
//! after. LMDB lets one writer in at a time, across processes, and survives `kill -9` at any instant.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use heed::types::{Bytes, DecodeIgnore, SerdeJson, Str};
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithTls};
use serde::{Deserialize, Serialize};
use wharf_core::attach::{Container, ProcessRef};
use wharf_core::network::NetworkSpec;

use crate::error::EngineError;
use crate::failpoint;

mod containers;
mod damage;
mod leases;
mod ports;

pub(crate) use damage::can_be_read;
pub use leases::LeaseError;

/// The most a store may grow to, in bytes; the file is as large as what is in it.
const MAP_SIZE: usize = 1 << 30;

/// One LMDB environment in a directory of its own, and how to name it in errors.
pub struct Store {
    env: Env,
    path: PathBuf,
}

/// A network that is up, and what of the host it uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveNetwork {
    /// The network.
    pub spec: NetworkSpec,
    /// How many containers publish ports by it that answer on the host's loopback; while there are any,
    /// `route_localnet` is on.
    #[serde(default)]
    pub loopback_users: u32,
    /// Being made or removed, by the journal's entry of the same name.
    #[serde(default)]
    pub busy: bool,
}

/// What a process is about to change, written before it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Who.
    pub process: ProcessRef,
    /// What.
    pub work: Work,
}

/// A change that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// A network is being made.
    NetworkUp,
    /// A network is being removed.
    NetworkDown,
    /// A network gets further subnets: finished after a crash.
    NetworkGrow,
    /// A container is being made: undone after a crash.
    Create,
    /// A container is being removed: finished after a crash.
    Remove,
    /// Attachments in another phase than active are being made or removed.
    Attach,
    /// Ports are being added: undone after a crash.
    PortAdd(Vec<wharf_core::publish::PortMapping>),
    /// Ports are being removed: finished after a crash.
    PortRemove(Vec<wharf_core::publish::PortMapping>),
    /// A container is becoming this one: undone after a crash.
    Update(Box<wharf_core::attach::Container>),
}

type Json<T> = Database<Str, SerdeJson<T>>;

/// The run store's databases.
pub struct RunStore {
    store: Store,
    pub(crate) meta: Database<Str, Str>,
    pub(crate) networks: Json<LiveNetwork>,
    pub(crate) containers: Json<Container>,
    pub(crate) journal: Json<JournalEntry>,
    pub(crate) leases: Database<Bytes, Str>,
    pub(crate) cursors: Database<Bytes, Bytes>,
    pub(crate) ports: Database<Bytes, Str>,
    pub(crate) port_ranges: Database<Bytes, Str>,
}

/// The state store's databases.
pub struct StateStore {
    store: Store,
    networks: Json<NetworkSpec>,
}

impl Store {
    /// Opens, and makes if it is not there: directory mode 0700, files 0600 (which `heed` asks for).
    fn open(path: &Path, databases: u32, flags: EnvFlags) -> Result<Self, EngineError> {
        let failed = |detail: String| EngineError::Store {
            path: path.to_owned(),
            detail,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| failed(e.to_string()))?;
        let why = damage::seen_from_outside(path).map_err(|e| failed(e.to_string()))?;
        let harmless = |why: &str| why == damage::CUT_SHORT && pages_can_be_read(path, flags);
        if let Some(why) = why.filter(|why| !harmless(why)) {
            return Err(EngineError::StoreDamaged {
                path: path.to_owned(),
                why,
            });
        }
        damage::end_with_words(path);
        let env = open_env(path, databases, flags).map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            env,
            path: path.to_owned(),
        })
    }

    fn fail(&self, error: heed::Error) -> EngineError {
        use heed::MdbError::{Corrupted, Invalid, PageNotFound, Panic};
        let why = match &error {
            heed::Error::Mdb(Corrupted | Invalid | PageNotFound | Panic) => {
                "its pages do not belong together"
            }
            heed::Error::Decoding(_) => "it holds what wharf did not write",
            _ => {
                return EngineError::Store {
                    path: self.path.clone(),
                    detail: error.to_string(),
                };
            }
        };
        EngineError::StoreDamaged {
            path: self.path.clone(),
            why,
        }
    }

    fn without_tables(&self) -> EngineError {
        EngineError::StoreDamaged {
            path: self.path.clone(),
            why: "data.mdb has no tables",
        }
    }
}

fn open_env(path: &Path, databases: u32, flags: EnvFlags) -> heed::Result<Env> {
    let mut options = EnvOpenOptions::new();
    options
        .map_size(MAP_SIZE)
        .max_dbs(databases)
        .max_readers(4096);
    // SAFETY: the files are only ever changed through LMDB, and no environment is opened twice in one
    // process: an `Engine` owns its stores, and the binary has one engine at a time. Without sync a crash
    // of the machine may lose the last changes, which is why only the run store goes without: it does
    // not outlive the machine's boot.
    unsafe { options.flags(flags).open(path) }
}

/// Reads every entry of every database, in a child.
fn pages_can_be_read(path: &Path, flags: EnvFlags) -> bool {
    let read = || -> heed::Result<()> {
        let env = open_env(path, 8, flags)?;
        let txn = env.read_txn()?;
        let Some(main) = env.open_database::<Bytes, DecodeIgnore>(&txn, None)? else {
            return Ok(());
        };
        for item in main.iter(&txn)? {
            let name = String::from_utf8_lossy(item?.0).into_owned();
            let Some(database) = env.open_database::<Bytes, Bytes>(&txn, Some(&name))? else {
                continue;
            };
            for item in database.iter(&txn)? {
                let (key, value) = item?;
                std::hint::black_box(key.iter().chain(value).fold(0u8, |sum, b| sum ^ b));
            }
        }
        Ok(())
    };
    can_be_read(|| read().is_ok()).unwrap_or(false)
}

/// The tables of [`RunStore`], in its order.
type Tables = (
    Database<Str, Str>,
    Json<LiveNetwork>,
    Json<Container>,
    Json<JournalEntry>,
    Database<Bytes, Str>,
    Database<Bytes, Bytes>,
    Database<Bytes, Str>,
    Database<Bytes, Str>,
);

/// The tables, without waiting for a writer; `None` if one is missing.
fn open_tables(env: &Env) -> heed::Result<Option<Tables>> {
    let txn = env.read_txn()?;
    let tables = (|| -> heed::Result<Option<Tables>> {
        macro_rules! table {
            ($name:literal) => {
                match env.open_database(&txn, Some($name))? {
                    Some(table) => table,
                    None => return Ok(None),
                }
            };
        }
        Ok(Some((
            table!("meta"),
            table!("networks"),
            table!("containers"),
            table!("journal"),
            table!("leases"),
            table!("cursors"),
            table!("ports"),
            table!("port_ranges"),
        )))
    })()?;
    // Only a reader that ends so leaves the tables open.
    txn.commit()?;
    Ok(tables)
}

fn make_tables(env: &Env) -> heed::Result<Tables> {
    let mut txn = env.write_txn()?;
    let tables = (
        env.create_database(&mut txn, Some("meta"))?,
        env.create_database(&mut txn, Some("networks"))?,
        env.create_database(&mut txn, Some("containers"))?,
        env.create_database(&mut txn, Some("journal"))?,
        env.create_database(&mut txn, Some("leases"))?,
        env.create_database(&mut txn, Some("cursors"))?,
        env.create_database(&mut txn, Some("ports"))?,
        env.create_database(&mut txn, Some("port_ranges"))?,
    );
    txn.commit()?;
    Ok(tables)
}

impl RunStore {
    /// Opens the run store below `run`.
    ///
    /// # Errors
    /// The directory or the files cannot be made or read.
    pub fn open(run: &Path) -> Result<Self, EngineError> {
        let store = Store::open(
            &run.join("db"),
            8,
            EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC,
        )?;
        // Asked first: another process may be making it.
        let made = damage::was_made(&store.path);
        let opened = match open_tables(&store.env) {
            // To write to a store in such a state would be to write anywhere.
            Ok(None) if made => return Err(store.without_tables()),
            Ok(None) => make_tables(&store.env),
            Ok(Some(tables)) => Ok(tables),
            Err(error) => Err(error),
        };
        let opened = opened.and_then(|tables| {
            damage::made(&store.path)?;
            Ok(tables)
        });
        match opened {
            Ok((meta, networks, containers, journal, leases, cursors, ports, port_ranges)) => {
                Ok(Self {
                    store,
                    meta,
                    networks,
                    containers,
                    journal,
                    leases,
                    cursors,
                    ports,
                    port_ranges,
                })
            }
            Err(error) => Err(store.fail(error)),
        }
    }

    /// A view of the store as it is now.
    ///
    /// # Errors
    /// LMDB's.
    pub fn read<T>(&self, f: impl FnOnce(&RoTxn) -> heed::Result<T>) -> Result<T, EngineError> {
        let result = self.store.env.read_txn().and_then(|txn| f(&txn));
        result.map_err(|e| self.store.fail(e))
    }

    /// A view for as long as it is kept.
    ///
    /// # Errors
    /// LMDB's.
    pub fn view(&self) -> Result<RoTxn<'_, WithTls>, EngineError> {
        self.store.env.read_txn().map_err(|e| self.store.fail(e))
    }

    /// Begins a change; other writers wait. Dropped without [`RunStore::commit`], nothing has happened.
    ///
    /// # Errors
    /// LMDB's.
    pub fn begin(&self) -> Result<RwTxn<'_>, EngineError> {
        self.store.env.write_txn().map_err(|e| self.store.fail(e))
    }

    /// Ends a change.
    ///
    /// # Errors
    /// LMDB's: a full disk, above all.
    pub fn commit(&self, txn: RwTxn<'_>) -> Result<(), EngineError> {
        failpoint::step();
        txn.commit().map_err(|e| self.store.fail(e))?;
        failpoint::step();
        Ok(())
    }

    /// Reads everything once, and writes.
    ///
    /// # Errors
    /// Something in it cannot be read.
    pub fn check(&self) -> Result<(), EngineError> {
        self.read(|txn| {
            self.meta.iter(txn)?.try_for_each(|item| item.map(|_| ()))?;
            self.networks
                .iter(txn)?
                .try_for_each(|item| item.map(|_| ()))?;
            self.containers
                .iter(txn)?
                .try_for_each(|item| item.map(|_| ()))?;
            self.journal
                .iter(txn)?
                .try_for_each(|item| item.map(|_| ()))?;
            self.all_leases(txn)?;
            self.all_ports(txn)?;
            Ok(())
        })?;
        // What is free is looked at by writers only.
        self.write(|txn| self.meta.put(txn, "checked", "1"))
    }

    /// A change in one piece.
    ///
    /// # Errors
    /// LMDB's.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut RwTxn) -> heed::Result<T>,
    ) -> Result<T, EngineError> {
        let mut txn = self.begin()?;
        let value = f(&mut txn).map_err(|e| self.store.fail(e))?;
        self.commit(txn)?;
        Ok(value)
    }

    /// Forgets everything: after a reboot, or when the namespace it belonged to is gone.
    ///
    /// # Errors
    /// LMDB's.
    pub fn clear(&self) -> Result<(), EngineError> {
        self.write(|txn| {
            self.meta.clear(txn)?;
            self.networks.clear(txn)?;
            self.containers.clear(txn)?;
            self.journal.clear(txn)?;
            self.leases.clear(txn)?;
            self.cursors.clear(txn)?;
            self.ports.clear(txn)?;
            self.port_ranges.clear(txn)
        })
    }

    /// Wraps LMDB's error in one that names the store.
    pub fn fail(&self, error: heed::Error) -> EngineError {
        self.store.fail(error)
    }
}

impl StateStore {
    /// Opens the state store below `state`.
    ///
    /// # Errors
    /// The directory or the files cannot be made or read.
    pub fn open(state: &Path) -> Result<Self, EngineError> {
        let store = Store::open(&state.join("db"), 2, EnvFlags::empty())?;
        let made = damage::was_made(&store.path);
        let opened = (|| -> heed::Result<_> {
            let txn = store.env.read_txn()?;
            if let Some(networks) = store.env.open_database(&txn, Some("networks"))? {
                // Only a reader that ends so leaves the table open.
                txn.commit()?;
                return Ok(Some(networks));
            }
            drop(txn);
            if made {
                return Ok(None);
            }
            let mut txn = store.env.write_txn()?;
            let networks = store.env.create_database(&mut txn, Some("networks"))?;
            txn.commit()?;
            Ok(Some(networks))
        })();
        let opened = opened.and_then(|networks| {
            damage::made(&store.path)?;
            Ok(networks)
        });
        match opened {
            Ok(Some(networks)) => Ok(Self { store, networks }),
            Ok(None) => Err(store.without_tables()),
            Err(error) => Err(store.fail(error)),
        }
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// LMDB's.
    pub fn networks(&self) -> Result<Vec<NetworkSpec>, EngineError> {
        let all = (|| -> heed::Result<Vec<_>> {
            let txn = self.store.env.read_txn()?;
            self.networks
                .iter(&txn)?
                .map(|item| item.map(|(_, spec)| spec))
                .collect()
        })();
        all.map_err(|e| self.store.fail(e))
    }

    /// Reads everything once, and writes.
    ///
    /// # Errors
    /// Something in it cannot be read.
    pub fn check(&self) -> Result<(), EngineError> {
        self.networks()?.iter().try_for_each(|spec| self.put(spec))
    }

    /// One network.
    ///
    /// # Errors
    /// LMDB's.
    pub fn network(&self, name: &str) -> Result<Option<NetworkSpec>, EngineError> {
        let got = (|| -> heed::Result<_> {
            let txn = self.store.env.read_txn()?;
            self.networks.get(&txn, name)
        })();
        got.map_err(|e| self.store.fail(e))
    }

    /// Keeps a network, on disk when this returns.
    ///
    /// # Errors
    /// LMDB's.
    pub fn put(&self, spec: &NetworkSpec) -> Result<(), EngineError> {
        let put = (|| -> heed::Result<()> {
            let mut txn = self.store.env.write_txn()?;
            self.networks.put(&mut txn, spec.name.as_str(), spec)?;
            failpoint::step();
            txn.commit()?;
            failpoint::step();
            Ok(())
        })();
        put.map_err(|e| self.store.fail(e))
    }

    /// Forgets a network, on disk when this returns.
    ///
    /// # Errors
    /// LMDB's.
    pub fn delete(&self, name: &str) -> Result<(), EngineError> {
        let delete = (|| -> heed::Result<()> {
            let mut txn = self.store.env.write_txn()?;
            self.networks.delete(&mut txn, name)?;
            failpoint::step();
            txn.commit()?;
            failpoint::step();
            Ok(())
        })();
        delete.map_err(|e| self.store.fail(e))
    }
}
