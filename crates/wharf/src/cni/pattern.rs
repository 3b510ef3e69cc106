//! The regular expressions that stand in lists of sysctls: characters, classes, repetitions and ends. What is more than
//! that is not read, so that nothing is allowed by mistake.

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    from_start: bool,
    to_end: bool,
    parts: Vec<(Atom, Times)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Atom {
    Any,
    One(char),
    Class(Vec<(char, char)>, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Maybe,
    Many,
    Some,
}

impl Pattern {
    /// Reads an expression; `None` for one that has more in it.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('^');
        let mut chars = rest.unwrap_or(text).chars().peekable();
        let mut parts = Vec::new();
        let mut to_end = false;
        while let Some(c) = chars.next() {
            if to_end {
                return None;
            }
            let atom = match c {
                '.' => Atom::Any,
                '$' => {
                    to_end = true;
                    continue;
                }
                '[' => class(&mut chars)?,
                // A letter behind a backslash has a meaning of its own.
                '\\' => Atom::One(chars.next().filter(|c| !c.is_ascii_alphanumeric())?),
                '(' | ')' | '{' | '}' | '|' | ']' | '*' | '+' | '?' | '^' => return None,
                other => Atom::One(other),
            };
            let times = match chars.peek() {
                Some('*') => Times::Many,
                Some('+') => Times::Some,
                Some('?') => Times::Maybe,
                _ => Times::Once,
            };
            if times != Times::Once {
                chars.next();
            }
            parts.push((atom, times));
        }
        Some(Self {
            from_start: rest.is_some(),
            to_end,
            parts,
        })
    }

    /// Whether it is found in a text.
    pub fn is_in(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let starts = if self.from_start { 0 } else { text.len() };
        (0..=starts).any(|at| self.ends(&text, at))
    }

    /// Follows all ways at once: the places in the text that the parts so far may end at.
    fn ends(&self, text: &[char], start: usize) -> bool {
        let mut places = vec![start];
        for (atom, times) in &self.parts {
            let mut next = Vec::new();
            for at in places {
                let fits = |n: usize| text.get(n).is_some_and(|c| atom.fits(*c));
                let most = (at..text.len()).take_while(|n| fits(*n)).count();
                let (low, high) = match times {
                    Times::Once => (1, most.min(1)),
                    Times::Maybe => (0, most.min(1)),
                    Times::Many => (0, most),
                    Times::Some => (1, most),
                };
                next.extend((low..=high).map(|n| at + n));
            }
            next.sort_unstable();
            next.dedup();
            places = next;
        }
        places.iter().any(|at| !self.to_end || *at == text.len())
    }
}

impl Atom {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => *one == c,
            Self::Class(ranges, not) => ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *not,
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars>) -> Option<Atom> {
    let not = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Atom::Class(ranges, not)),
            ']' | '[' | '\\' => return None,
            first => {
                let mut last = first;
                if chars.next_if_eq(&'-').is_some() {
                    match chars.next()? {
                        ']' => {
                            ranges.extend([(first, first), ('-', '-')]);
                            return Some(Atom::Class(ranges, not));
                        }
                        other => last = other,
                    }
                }
                ranges.push((first, last));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_it_says() {
        for (pattern, text, found) in [
            ("^net.core.somaxconn$", "net.core.somaxconn", true),
            ("^net.core.somaxconn$", "net.core.somaxconn2", false),
            ("somaxconn", "net.core.somaxconn", true),
            ("^somaxconn", "net.core.somaxconn", false),
            (
                r"^net\.ipv4\.conf\.[a-z]+[0-9]*\.arp_filter$",
                "net.ipv4.conf.eth10.arp_filter",
                true,
            ),
            (
                r"^net\.ipv4\.conf\.[a-z]+[0-9]*\.arp_filter$",
                "net/ipv4/conf/eth0/arp_filter",
                false,
            ),
            ("^net.ipv[46].*$", "net.ipv6.conf.all.forwarding", true),
            ("^net.ipv[^46]", "net.ipv4", false),
            ("a?b", "b", true),
            ("^.*x.*x$", "axbx", true),
            ("", "anything", true),
        ] {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.is_in(text), found, "{pattern} in {text}");
        }
    }

    #[test]
    fn more_is_not_read() {
        for more in [
            "(a)", "a|b", "a{2}", r"\d", "*", "a**", "[", "[]", "a^", "$a", r"a\",
        ] {
            assert_eq!(Pattern::parse(more), None, "{more}");
        }
    }
}
