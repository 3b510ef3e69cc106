//! A ruleset whose rules are still as the kernel gave them: who reads it need not be who makes sense of it.

use crate::chain::Chain;
use crate::dump::Ruleset;
use crate::element::Element;
use crate::object::Object;
use crate::rule::Rule;
use crate::set::Set;
use crate::table::Table;
use crate::types::Family;
use crate::wire::{Attrs, Malformed, Message};

/// Bytes of a length before each message.
const LENGTH: usize = 4;

/// Everything of one namespace at one generation; [`Undecoded::decode`] gives it a meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Undecoded {
    pub(crate) generation: u32,
    pub(crate) tables: Vec<Table>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) rules: RawRules,
    pub(crate) sets: Vec<(Set, Vec<Element>)>,
    pub(crate) objects: Vec<Object>,
}

impl Undecoded {
    /// The ruleset.
    ///
    /// # Errors
    /// If a rule cannot be read.
    pub fn decode(self) -> Result<Ruleset, Malformed> {
        Ok(Ruleset {
            generation: self.generation,
            tables: self.tables,
            chains: self.chains,
            rules: self.rules.decode()?,
            sets: self.sets,
            objects: self.objects,
        })
    }
}

/// The messages of a dump, one after the other, each after its length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RawRules(Vec<u8>);

impl RawRules {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn push(&mut self, message: &Message<'_>) -> Result<(), Malformed> {
        let length = u32::try_from(message.body.len()).map_err(|_| Malformed("message length"))?;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(message.body);
        Ok(())
    }

    fn decode(&self) -> Result<Vec<Rule>, Malformed> {
        let (mut rules, mut left) = (Vec::new(), self.0.as_slice());
        while let Some((length, rest)) = left.split_first_chunk::<LENGTH>() {
            let length = u32::from_ne_bytes(*length) as usize;
            let body = rest.get(..length).ok_or(Malformed("message length"))?;
            left = &rest[length..];
            let (&[family, ..], attrs) = body
                .split_first_chunk::<4>()
                .ok_or(Malformed("nfgenmsg is missing"))?;
            rules.push(Rule::decode(
                Family::from_number(family),
                &Attrs::parse(attrs)?,
            )?);
        }
        Ok(rules)
    }
}
