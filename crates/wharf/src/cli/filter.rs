//! `--filter` of `ps` and `network ls`: Docker's words. Filters of one kind widen each other, those of different kinds
//! narrow, and labels always narrow.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::str::FromStr;

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// A label, with any value or with one.
    Label(Label),
    /// A part of the name.
    Name(String),
    /// On this network.
    Network(String),
    /// `running`, `exited` or `created`.
    Status(String),
    /// The front end it is of.
    Owner(String),
}

/// `KEY` or `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: Option<String>,
}

impl Label {
    /// Whether it is one of these.
    pub fn is_among(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        found.is_some_and(|v| self.value.as_ref().is_none_or(|asked| asked == v))
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let value = value.to_owned();
        Ok(match key {
            _ if value.is_empty() => return Err("KEY=VALUE is expected".to_owned()),
            "label" => Self::Label(match value.split_once('=') {
                Some((key, value)) => Label {
                    key: key.to_owned(),
                    value: Some(value.to_owned()),
                },
                None => Label {
                    key: value,
                    value: None,
                },
            }),
            "name" => Self::Name(value),
            "network" => Self::Network(value),
            "status" if ["running", "exited", "created"].contains(&value.as_str()) => {
                Self::Status(value)
            }
            "status" => return Err("a status is running, exited or created".to_owned()),
            "owner" => Self::Owner(value),
            _ => return Err(format!("`{key}` is no filter here")),
        })
    }
}

impl Filter {
    /// One that networks have.
    ///
    /// # Errors
    /// It is none, or one of containers.
    pub fn of_networks(text: &str) -> Result<Self, String> {
        match text.parse()? {
            Self::Network(_) | Self::Status(_) => {
                Err("networks are filtered by label, name or owner".to_owned())
            }
            filter => Ok(filter),
        }
    }
}

/// Whether something is as all filters together ask.
pub fn fits(filters: &[Filter], is: impl Fn(&Filter) -> bool) -> bool {
    filters.iter().all(|one| match one {
        Filter::Label(_) => is(one),
        _ => {
            let mut alike = filters.iter();
            alike.any(|other| discriminant(other) == discriminant(one) && is(other))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_put_together() {
        let labels: BTreeMap<_, _> = [("a".to_owned(), "b=c".to_owned())].into();
        for (text, holds) in [
            ("label=a", true),
            ("label=a=b=c", true),
            ("label=a=b", false),
        ] {
            let Ok(Filter::Label(label)) = text.parse() else {
                panic!("{text}");
            };
            assert_eq!(label.is_among(&labels), holds, "{text}");
        }
        for bad in ["", "name", "name=", "colour=red", "status=up"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
        assert!(Filter::of_networks("status=running").is_err());
        let read =
            |texts: &[&str]| -> Vec<Filter> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        let named = |name: &str, filters: &[Filter]| {
            fits(
                filters,
                |f| matches!(f, Filter::Name(part) if name.contains(part)),
            )
        };
        let either = read(&["name=web", "name=db"]);
        assert!(named("web1", &either) && named("db", &either) && !named("cache", &either));
        assert!(!named("web1", &read(&["name=web", "owner=cli"])));
        assert!(named("any", &[]));
    }
}
