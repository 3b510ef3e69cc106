//! Reading the ruleset back (`NFT_MSG_GET*` dumps).

use std::time::Duration;

use crate::batch::SetRef;
use crate::chain::Chain;
use crate::element::{Element, list};
use crate::error::NftError;
use crate::msg::{self, NFTABLES};
use crate::object::Object;
use crate::rule::Rule;
use crate::set::Set;
use crate::socket::NfSocket;
use crate::table::Table;
use crate::transport::{DUMP, Request};
use crate::types::Family;
use crate::undecoded::{RawRules, Undecoded};
use crate::wire::{Attrs, Malformed, Writer};

/// `NFPROTO_UNSPEC`: every family.
const ALL: u8 = 0;
/// How often to start again when others change the ruleset meanwhile.
const ATTEMPTS: u32 = 10;
/// Before the second attempt, for the change to finish; longer before each further one.
const PAUSE: Duration = Duration::from_millis(4);

/// Everything of one namespace at one generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// The ruleset's generation number, for [`crate::Batch::expect_generation`].
    pub generation: u32,
    /// Tables.
    pub tables: Vec<Table>,
    /// Chains of all tables.
    pub chains: Vec<Chain>,
    /// Rules of all chains, in order within each chain.
    pub rules: Vec<Rule>,
    /// Sets and maps, anonymous ones too, with their elements.
    pub sets: Vec<(Set, Vec<Element>)>,
    /// Stateful objects.
    pub objects: Vec<Object>,
}

impl Ruleset {
    /// The rules of one chain, in order.
    pub fn rules_of(
        &self,
        family: Family,
        table: &str,
        chain: &str,
    ) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(move |r| r.family == family && r.table == table && r.chain == chain)
    }

    /// A set or map and its elements.
    #[must_use]
    pub fn set(&self, family: Family, table: &str, name: &str) -> Option<&(Set, Vec<Element>)> {
        self.sets
            .iter()
            .find(|(s, _)| s.family == family && s.table == table && s.name == name)
    }

    /// A chain.
    #[must_use]
    pub fn chain(&self, family: Family, table: &str, name: &str) -> Option<&Chain> {
        self.chains
            .iter()
            .find(|c| c.family == family && c.table == table && c.name == name)
    }
}

/// A dump together with the kernel's word on whether it is of one piece.
struct Dumped<T> {
    items: Vec<T>,
    torn: bool,
}

impl NfSocket {
    fn dump<T>(
        &mut self,
        kind: u16,
        family: u8,
        label: &str,
        attrs: Writer,
        mut decode: impl FnMut(Family, &Attrs<'_>) -> Result<T, Malformed>,
    ) -> Result<Dumped<T>, NftError> {
        let request = Request {
            kind: NFTABLES | kind,
            flags: DUMP,
            family,
            attrs,
            label,
        };
        let mut items = Vec::new();
        let torn = self.transport.request(&request, |message| {
            let (family, _, attrs) = message.netfilter()?;
            items.push(decode(Family::from_number(family), &attrs)?);
            Ok(())
        })?;
        Ok(Dumped { items, torn })
    }

    /// All tables.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_tables(&mut self) -> Result<Vec<Table>, NftError> {
        settle(|| {
            self.dump(
                msg::GETTABLE,
                ALL,
                "list tables",
                Writer::default(),
                Table::decode,
            )
        })
    }

    /// All chains.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_chains(&mut self) -> Result<Vec<Chain>, NftError> {
        settle(|| {
            self.dump(
                msg::GETCHAIN,
                ALL,
                "list chains",
                Writer::default(),
                Chain::decode,
            )
        })
    }

    /// All rules.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_rules(&mut self) -> Result<Vec<Rule>, NftError> {
        settle(|| {
            self.dump(
                msg::GETRULE,
                ALL,
                "list rules",
                Writer::default(),
                Rule::decode,
            )
        })
    }

    /// The rules of one chain.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_chain_rules(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
    ) -> Result<Vec<Rule>, NftError> {
        settle(|| {
            let mut attrs = Writer::default();
            attrs.str(crate::rule::TABLE, table);
            attrs.str(crate::rule::CHAIN, chain);
            self.dump(
                msg::GETRULE,
                family.number(),
                "list rules",
                attrs,
                Rule::decode,
            )
        })
    }

    /// The rules of all chains of one table.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_table_rules(&mut self, family: Family, table: &str) -> Result<Vec<Rule>, NftError> {
        settle(|| {
            let mut attrs = Writer::default();
            attrs.str(crate::rule::TABLE, table);
            self.dump(
                msg::GETRULE,
                family.number(),
                "list rules",
                attrs,
                Rule::decode,
            )
        })
    }

    /// All sets and maps, without their elements.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_sets(&mut self) -> Result<Vec<Set>, NftError> {
        settle(|| {
            self.dump(
                msg::GETSET,
                ALL,
                "list sets",
                Writer::default(),
                Set::decode,
            )
        })
    }

    /// All objects.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_objects(&mut self) -> Result<Vec<Object>, NftError> {
        settle(|| {
            self.dump(
                msg::GETOBJ,
                ALL,
                "list objects",
                Writer::default(),
                Object::decode,
            )
        })
    }

    /// The elements of one set or map.
    ///
    /// # Errors
    /// If the kernel refuses or its answer cannot be read.
    pub fn dump_elements(&mut self, set: &SetRef) -> Result<Vec<Element>, NftError> {
        settle(|| self.dump_elements_once(set))
    }

    fn dump_elements_once(&mut self, set: &SetRef) -> Result<Dumped<Element>, NftError> {
        let mut attrs = Writer::default();
        attrs.str(list::TABLE, &set.table);
        attrs.str(list::SET, &set.name);
        let label = format!("list set {} {} {}", set.family, set.table, set.name);
        let decode = |_, attrs: &Attrs<'_>| -> Result<Vec<Element>, Malformed> {
            attrs
                .list(list::ELEMENTS)?
                .map(|one| Element::decode(&one?))
                .collect()
        };
        let Dumped { items, torn } =
            self.dump(msg::GETSETELEM, set.family.number(), &label, attrs, decode)?;
        let several = items.len() > 1;
        let items: Vec<Element> = items.into_iter().flatten().collect();
        let torn = torn || (several && has_duplicates(&items));
        Ok(Dumped { items, torn })
    }

    /// Everything, at one generation: begins again if the ruleset changed while it was read.
    ///
    /// # Errors
    /// [`NftError::Unsettled`] if it kept changing, or if the kernel refuses or its answer cannot be read.
    pub fn ruleset(&mut self) -> Result<Ruleset, NftError> {
        Ok(self.undecoded()?.decode()?)
    }

    /// Like [`Self::ruleset`], but rules are left as the kernel gives them.
    ///
    /// # Errors
    /// As there.
    pub fn undecoded(&mut self) -> Result<Undecoded, NftError> {
        for _ in 0..ATTEMPTS {
            let generation = self.generation()?;
            match self.read_all(generation) {
                Ok(ruleset) if self.generation()? == generation => return Ok(ruleset),
                // A set found a moment ago may be gone, which is a change like any other.
                Err(NftError::Refused {
                    errno: libc::ENOENT,
                    ..
                }) if self.generation()? == generation => {
                    return Err(NftError::Unsettled);
                }
                Ok(_)
                | Err(
                    NftError::Unsettled
                    | NftError::Refused {
                        errno: libc::ENOENT,
                        ..
                    },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NftError::Unsettled)
    }

    fn read_all(&mut self, generation: u32) -> Result<Undecoded, NftError> {
        let tables = self.dump_tables()?;
        if tables.is_empty() {
            return Ok(Undecoded {
                generation,
                ..Undecoded::default()
            });
        }
        let (chains, rules, objects) =
            (self.dump_chains()?, self.raw_rules()?, self.dump_objects()?);
        let mut sets = Vec::new();
        for set in self.dump_sets()? {
            let elements = self.dump_elements(&SetRef::from(&set))?;
            sets.push((set, elements));
        }
        Ok(Undecoded {
            generation,
            tables,
            chains,
            rules,
            sets,
            objects,
        })
    }

    fn raw_rules(&mut self) -> Result<RawRules, NftError> {
        let mut rules = RawRules::default();
        settle(|| {
            rules.clear();
            let request = Request {
                kind: NFTABLES | msg::GETRULE,
                flags: DUMP,
                family: ALL,
                attrs: Writer::default(),
                label: "list rules",
            };
            let torn = self
                .transport
                .request(&request, |message| Ok(rules.push(message)?))?;
            Ok(Dumped::<()> {
                items: Vec::new(),
                torn,
            })
        })?;
        Ok(rules)
    }
}

/// A hash set which the kernel enlarges while it is dumped, as it does for a while after many insertions, comes with
/// some elements twice and as many others missing, and nothing says so.
fn has_duplicates(elements: &[Element]) -> bool {
    let mut keys: Vec<_> = elements.iter().map(|e| (&e.key, e.flags.0)).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
}

/// Repeats a dump until it is of one piece.
fn settle<T>(mut dump: impl FnMut() -> Result<Dumped<T>, NftError>) -> Result<Vec<T>, NftError> {
    for attempt in 0..ATTEMPTS {
        std::thread::sleep(PAUSE.saturating_mul(attempt));
        match dump() {
            Ok(Dumped { items, torn: false }) => return Ok(items),
            Ok(Dumped { torn: true, .. })
            | Err(NftError::Refused {
                errno: libc::EINTR, ..
            }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(NftError::Unsettled)
}
