//! Where something stands in a document: a JSON path that costs nothing until it is printed.

use std::fmt;

/// The longest field name that is printed in full, in characters.
const SHOWN: usize = 64;

/// A place in a document.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl<'a> Path<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Self {
        Path::Field(self, name)
    }

    pub(super) fn index(&'a self, index: usize) -> Self {
        Path::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("$"),
            Self::Field(parent, name) if is_plain(name) => write!(f, "{parent}.{name}"),
            Self::Field(parent, name) => write!(f, "{parent}[{}]", quoted(name)),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn is_plain(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.len() <= SHOWN && name.chars().all(word)
}

/// Quotes a text of a stranger for a message: escaped, and cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{:?}… ({} bytes)", &text[..at], text.len()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_json() {
        let root = Path::Root;
        let (env, label) = (root.field("env"), root.field("a b"));
        let second = env.index(2);
        assert_eq!(second.field("key").to_string(), "$.env[2].key");
        assert_eq!(label.to_string(), "$[\"a b\"]");
    }

    #[test]
    fn a_long_name_is_cut() {
        let name = "x".repeat(1_000_000);
        assert!(Path::Root.field(&name).to_string().len() < 120);
    }
}
