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

/// How many characters must be changed, put in, taken out, or swapped with the next (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let one = rows[i - 1][j].min(rows[i][j - 1]) + 1;
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let swap = if swapped { rows[i - 2][j - 2] + 1 } else { one };
                one.min(rows[i - 1][j - 1] + same).min(swap)
            };
        }
    }
    rows[a.len()][b.len()]
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
            ("mut", Some("mtu")),
            ("foo", None),
            ("m", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, &names), meant, "{given}");
        }
    }
}
