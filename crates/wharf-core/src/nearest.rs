//! The name that was likely meant.

/// The one of `names` that a slip of the finger or two makes of `given`; none if that is all of a short name.
pub fn nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    const MOST: usize = 2;
    let given: Vec<char> = given.chars().collect();
    let far = |name: &str| distance(&given, &name.chars().collect::<Vec<_>>());
    let best = names.iter().min_by_key(|name| far(name))?;
    let slips = far(best);
    (slips <= MOST && slips * 2 < given.len()).then_some(best)
}

/// How many characters must be changed, put in or taken out (Levenshtein's distance).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_seen_and_another_word_is_not() {
        let names = ["isolate", "mtu", "masquerade"];
        for (given, meant) in [
            ("isolat", Some("isolate")),
            ("masqerade", Some("masquerade")),
            ("mtv", Some("mtu")),
            ("foo", None),
            ("m", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, &names), meant, "{given}");
        }
    }
}
