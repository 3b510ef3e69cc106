//! nftables objects as `nft list ruleset` shows them, for reading and for `nft -f`.

use std::fmt::Write;

use super::nft::{ND, base, element, has_nd, nd_body, nd_element, rule, set_body, sort};
use crate::model::Resource;
use crate::nft::{Chain, Element, Object, Set, Table};

/// The nftables objects among `resources` as nft lists them, loadable by `nft -f`.
pub fn ruleset(resources: &[Resource]) -> String {
    let objects: Vec<&Object> = resources
        .iter()
        .filter_map(|r| match r {
            Resource::Nft(object) => Some(object),
            _ => None,
        })
        .collect();
    let mut text = String::new();
    for table in Table::ALL {
        let blocks: Vec<String> = objects
            .iter()
            .filter_map(|o| match o {
                Object::Set(set) if set.table == table => Some(set_block(set, &objects)),
                _ => None,
            })
            .chain(objects.iter().filter_map(|o| match o {
                Object::Chain(chain) if chain.table == table => Some(chain_block(chain)),
                _ => None,
            }))
            .collect();
        if !blocks.is_empty() {
            let family = table.family();
            let body = blocks.join("\n");
            let _ = writeln!(text, "table {family} {} {{\n{body}}}\n", Table::NAME);
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn set_block(set: &Set, objects: &[&Object]) -> String {
    let of_set: Vec<&Element> = objects
        .iter()
        .filter_map(|o| match o {
            Object::Element(e) if e.table == set.table && e.set == set.name => Some(e),
            _ => None,
        })
        .collect();
    let block = |name: &str, body: Vec<String>, elements: Vec<String>| {
        let mut text = format!("\t{} {name} {{\n", sort(set));
        for line in body {
            let _ = writeln!(text, "\t\t{}", line.trim_end_matches(';'));
        }
        if !elements.is_empty() {
            let lines = elements.join(",\n\t\t\t     ");
            let _ = writeln!(text, "\t\telements = {{ {lines} }}");
        }
        text + "\t}\n"
    };
    let shown = of_set.iter().map(|e| element(e, true)).collect();
    let mut text = block(&set.name, set_body(set), shown);
    if has_nd(set.table, &set.name) {
        let shown = of_set.iter().map(|e| nd_element(e)).collect();
        text += &format!("\n{}", block(ND, nd_body(set.size), shown));
    }
    text
}

fn chain_block(chain: &Chain) -> String {
    let mut text = format!("\tchain {} {{\n", chain.name);
    if let Some(base) = base(chain) {
        let _ = writeln!(text, "\t\t{base}");
    }
    for r in &chain.rules {
        let _ = writeln!(text, "\t\t{}", rule(r));
    }
    text.push_str("\t}\n");
    text
}
