//! Values as people write them: numbers and booleans where text is meant, one item where a list is meant,
//! nothing where a table is meant.
//!
//! Text is asked for as text, so that a YAML file's `n`, `010` and `1.0` stay what they are. Where a list may stand the
//! format must say what it found, and what it takes for a number or a boolean is refused: its text is lost.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::AttachEntry;

/// A scalar, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Text(pub String);

/// A scalar or a list of scalars.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Texts(pub Vec<Text>);

/// A table, in the order of the file; a name with nothing behind it has the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named<T>(pub Vec<(String, T)>);

/// A container's networks: a list in the command line's short form, or a table in the long form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attachments {
    List(Texts),
    Map(Named<AttachEntry>),
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Default for Attachments {
    fn default() -> Self {
        Self::List(Texts::default())
    }
}

/// The visitor methods of scalars where a list may stand.
macro_rules! quoted {
    ($make:expr) => {
        fn visit_str<E: Error>(self, v: &str) -> Result<Self::Value, E> {
            Ok($make(Text(v.to_owned())))
        }
        fn visit_bool<E: Error>(self, v: bool) -> Result<Self::Value, E> {
            Err(unquoted(v))
        }
        fn visit_i64<E: Error>(self, v: i64) -> Result<Self::Value, E> {
            Err(unquoted(v))
        }
        fn visit_u64<E: Error>(self, v: u64) -> Result<Self::Value, E> {
            Err(unquoted(v))
        }
        fn visit_f64<E: Error>(self, v: f64) -> Result<Self::Value, E> {
            Err(unquoted(format!("{v:?}")))
        }
    };
}

fn unquoted<E: Error>(read: impl fmt::Display) -> E {
    E::custom(format!(
        "this is read as `{read}`, not as text: write it in quotes"
    ))
}

/// Nothing at all is the default.
macro_rules! nothing {
    () => {
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false")
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Text, E> {
        Ok(Text(v.to_owned()))
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Text, E> {
        Ok(Text(v.to_string()))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Text, E> {
        Ok(Text(v.to_string()))
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<Text, E> {
        Ok(Text(v.to_string()))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Text, E> {
        Err(unquoted(format!("{v:?}")))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TextVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }
    quoted!(|text| Texts(vec![text]));
    nothing!();
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Texts, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Texts)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextsVisitor)
    }
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for NamedVisitor<T> {
    type Value = Named<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of names")
    }
    nothing!();
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
        let mut all: Vec<(String, T)> = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if all.iter().any(|(other, _)| *other == name) {
                return Err(A::Error::custom(format!("`{name}` is there twice")));
            }
            let value: Option<T> = map.next_value()?;
            all.push((name, value.unwrap_or_default()));
        }
        Ok(Named(all))
    }
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NamedVisitor(PhantomData))
    }
}

struct AttachmentsVisitor;

impl<'de> Visitor<'de> for AttachmentsVisitor {
    type Value = Attachments;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of networks, or a table of networks")
    }
    quoted!(|text| Attachments::List(Texts(vec![text])));
    nothing!();
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Attachments, A::Error> {
        TextsVisitor.visit_seq(seq).map(Attachments::List)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Attachments, A::Error> {
        Named::deserialize(MapAccessDeserializer::new(map)).map(Attachments::Map)
    }
}

impl<'de> Deserialize<'de> for Attachments {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AttachmentsVisitor)
    }
}
