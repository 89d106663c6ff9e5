//! What a member asks for: topics by name, or those whose names match a pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::log::catalog::is_internal;

/// A pattern for names of topics: what [`Consumer::subscribe_pattern`](crate::Consumer::subscribe_pattern) takes.
///
/// It stands for the whole of a name, not for a part of it. Names that begin with `__` are the library's own, and never
/// match.
///
/// ```
/// use tapelog::consumer::Pattern;
///
/// let orders = Pattern::glob("orders.*")?;
/// assert!(orders.matches("orders.eu") && !orders.matches("old.orders.eu"));
/// assert!(!Pattern::glob("*")?.matches("__consumer_offsets"));
/// # Ok::<(), tapelog::Error>(())
/// ```
#[derive(Clone)]
pub struct Pattern(Kind);

#[derive(Clone)]
enum Kind {
    Glob(Arc<str>),
    #[cfg(feature = "regex")]
    Regex(Arc<str>, regex::bytes::Regex),
}

impl Pattern {
    /// Names of which `*` stands for any characters, or none, `?` for any one, and all else for itself.
    ///
    /// # Errors
    /// `InvalidArgument` where it is empty, or has a character that no name of a topic has: it could never match.
    pub fn glob(pattern: impl Into<String>) -> Result<Self> {
        let pattern = pattern.into();
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-*?".contains(c);
        let message = if pattern.is_empty() {
            "the pattern of a subscription cannot be empty".to_owned()
        } else if let Some(c) = pattern.chars().find(|c| !fits(*c)) {
            format!("no name of a topic has {c:?}, as the pattern {pattern:?} does")
        } else {
            return Ok(Pattern(Kind::Glob(pattern.into())));
        };
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// Names that a regular expression of the crate [`regex`](https://docs.rs/regex) matches from their beginning to their
    /// end, as Kafka has it. With the feature `regex`.
    ///
    /// ```
    /// use tapelog::consumer::Pattern;
    ///
    /// let orders = Pattern::regex(r"orders\.(eu|us)")?;
    /// assert!(orders.matches("orders.eu") && !orders.matches("orders.eu.old"));
    /// # Ok::<(), tapelog::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidRegularExpression` where it is none, or empty.
    #[cfg(feature = "regex")]
    pub fn regex(pattern: &str) -> Result<Self> {
        let refused = |message: String| Error::new(ErrorKind::InvalidRegularExpression, message);
        if pattern.is_empty() {
            return Err(refused("the pattern of a subscription cannot be empty".to_owned()));
        }
        // By itself first, so that no parenthesis of the user's closes ours.
        let build = |pattern: &str| regex::bytes::RegexBuilder::new(pattern).unicode(false).build();
        build(pattern)
            .and_then(|_| build(&format!("\\A(?:{pattern})\\z")))
            .map(|regex| Pattern(Kind::Regex(pattern.into(), regex)))
            .map_err(|e| refused(format!("{pattern:?} is no regular expression")).caused_by(e))
    }

    /// Whether a topic of this name is meant.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        !is_internal(topic)
            && match &self.0 {
                Kind::Glob(pattern) => glob(pattern.as_bytes(), topic.as_bytes()),
                #[cfg(feature = "regex")]
                Kind::Regex(_, regex) => regex.is_match(topic.as_bytes()),
            }
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kind::Glob(pattern) => pattern,
            #[cfg(feature = "regex")]
            Kind::Regex(pattern, _) => pattern,
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.0) == std::mem::discriminant(&other.0) && self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.as_str())
    }
}

/// Whether `name` is what `pattern` stands for. Where a guess at the length of the last `*` fails it is made longer by
/// one: guesses at earlier ones need not be changed, so that no name takes longer than both lengths multiplied.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// What a member asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// These topics, existing or not.
    Topics(BTreeSet<String>),
    /// Whatever topics match.
    Pattern(Pattern),
}

impl Subscription {
    pub(crate) fn pattern(&self) -> Option<&Pattern> {
        match self {
            Subscription::Topics(_) => None,
            Subscription::Pattern(pattern) => Some(pattern),
        }
    }

    /// The names that are asked for, where there are these `topics`.
    pub(crate) fn names<T>(&self, topics: &BTreeMap<String, T>) -> Vec<String> {
        match self {
            Subscription::Topics(names) => names.iter().cloned().collect(),
            Subscription::Pattern(pattern) => {
                topics.keys().filter(|name| pattern.matches(name)).cloned().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("orders.*", &["orders.", "orders.eu", "orders.eu.x"], &["orders", "xorders.eu", "Orders.eu"]),
            ("*", &["a", "a.b"], &["__topics"]),
            ("a?c", &["abc", "a.c"], &["ac", "abbc"]),
            ("*-*-x", &["a-b-x", "--x", "a-x-b-x"], &["a-x", "a-b-x-"]),
            ("a*b*c", &["abc", "aXbYc", "abbcbc"], &["ab", "acb", "abcd"]),
            ("a.b", &["a.b"], &["axb"]),
            ("**a", &["a", "ba"], &["ab"]),
            ("??", &["ab"], &["a", "abc"]),
        ];
        for (pattern, yes, no) in cases {
            let glob = Pattern::glob(*pattern).unwrap();
            yes.iter().for_each(|name| assert!(glob.matches(name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!glob.matches(name), "{pattern} {name}"));
        }
        for bad in ["", "a/b", "a b", "[ab]", "ö*"] {
            assert_eq!(Pattern::glob(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }

    /// Every glob over three characters against every name, by what a star means.
    #[test]
    fn globs_mean_what_they_say() {
        fn means(pattern: &[u8], name: &[u8]) -> bool {
            match pattern.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|n| means(rest, &name[n..])),
                Some((c, rest)) => {
                    name.split_first().is_some_and(|(n, name)| (*c == b'?' || c == n) && means(rest, name))
                }
            }
        }
        let words = |letters: &[u8], len: usize| {
            let mut all = vec![Vec::new()];
            for _ in 0..len {
                let longer: Vec<Vec<u8>> = all
                    .iter()
                    .flat_map(|word: &Vec<u8>| letters.iter().map(|l| [&word[..], &[*l]].concat()))
                    .collect();
                all.extend(longer);
                all.sort();
                all.dedup();
            }
            all
        };
        for pattern in words(b"a*?b", 5) {
            for name in words(b"ab", 5) {
                assert_eq!(glob(&pattern, &name), means(&pattern, &name), "{pattern:?} {name:?}");
            }
        }
    }

    #[cfg(feature = "regex")]
    #[test]
    fn regular_expressions_match_whole_names() {
        let matches = |pattern: &str, name: &str| Pattern::regex(pattern).unwrap().matches(name);
        assert!(matches("a|bc", "a") && matches("a|bc", "bc") && !matches("a|bc", "abc"));
        assert!(matches(r"t\d+", "t12") && !matches(r"t\d+", "t12x") && !matches(r"t\d+", "xt12"));
        assert!(matches(".*", "a") && !matches(".*", "__topics"));
        assert!(matches("(?i)ORDERS", "orders"));
        for bad in ["", "(", "a)(b", "[a", "*"] {
            let error = Pattern::regex(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRegularExpression, "{bad}");
        }
        assert_ne!(Pattern::regex("a.*").unwrap(), Pattern::glob("a.*").unwrap());
        assert_eq!(Pattern::regex("a.*").unwrap(), Pattern::regex("a.*").unwrap());
    }
}
