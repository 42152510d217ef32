//! Identifiers. Each is exactly one NATS subject token by construction, so no id can add a level to
//! a subject, hold a wildcard, or be empty.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest identifier, in bytes.
pub const MAX_ID_LEN: usize = 128;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text has no characters.
    #[error("is empty; use 1 to {MAX_ID_LEN} of the characters A-Z a-z 0-9 _ -")]
    Empty,
    /// The text is longer than [`MAX_ID_LEN`].
    #[error("has {len} bytes; the limit is {MAX_ID_LEN}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The text has a character that may not stand in a subject token.
    #[error("has the character {found:?} at byte {at}{}; use only A-Z a-z 0-9 _ -", dot_reason(*.found))]
    Character {
        /// The first such character.
        found: char,
        /// Its byte offset.
        at: usize,
    },
    /// A namespace has a letter that its streams' names would not tell from another's.
    #[error(
        "has the upper-case letter {found:?} at byte {at}; use lower case, because the names of its streams are its upper case"
    )]
    UpperCase {
        /// The first such letter.
        found: char,
        /// Its byte offset.
        at: usize,
    },
}

fn dot_reason(found: char) -> &'static str {
    if found == '.' { ", which would split the NATS subject" } else { "" }
}

fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > MAX_ID_LEN {
        return Err(InvalidId::TooLong { len: text.len() });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match text.bytes().position(|byte| !allowed(byte)) {
        // The bytes before it are ASCII, so a character begins here.
        Some(at) => {
            let found = text[at..].chars().next().expect("the text goes on here");
            Err(InvalidId::Character { found, at })
        }
        None => Ok(()),
    }
}

fn check_namespace(text: &str) -> Result<(), InvalidId> {
    check(text)?;
    match text.char_indices().find(|(_, letter)| letter.is_ascii_uppercase()) {
        Some((at, found)) => Err(InvalidId::UpperCase { found, at }),
        None => Ok(()),
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        token! { $(#[$doc])* $name, check, "^[A-Za-z0-9_-]{1,128}$" }
    };
    ($(#[$doc:meta])* $name:ident, $check:ident, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(extend("pattern" = $pattern))]
        pub struct $name(String);

        impl $name {
            /// Returns the identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                $check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    };
}

token! {
    /// Names a task for its whole life. The submitter chooses it; 1 to 128 of `A-Z a-z 0-9 _ -`.
    TaskId
}
token! {
    /// Names a worker; unique among the workers of a namespace.
    WorkerId
}
token! {
    /// Names a lane: the queue of all tasks with the same kind and selector.
    LaneId
}
token! {
    /// The first token of every subject, in lower case; stream and bucket names are its upper case.
    Namespace, check_namespace, "^[a-z0-9_-]{1,128}$"
}

impl TaskId {
    /// Makes a new id, a UUID version 7: ids made later sort later.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }
}

impl LaneId {
    /// The lane of subprocess tasks that ask for no label.
    pub fn default_lane() -> Self {
        Self("default".to_owned())
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("runlane".to_owned())
    }
}

/// Counts the starts of a task; the first attempt is 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Attempt(#[schemars(range(min = 1))] pub u32);

impl Attempt {
    /// The first attempt.
    pub const FIRST: Self = Self(1);

    /// Returns the attempt after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_subject_token() {
        for good in ["a", "build-42", "A_b-9", &"x".repeat(128)] {
            assert!(good.parse::<TaskId>().is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a b", "*", ">", "é", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_dot_is_refused_with_the_reason() {
        let error = "a.b".parse::<TaskId>().expect_err("a dot is not allowed");
        assert!(error.to_string().contains("split the NATS subject"), "{error}");
    }

    #[test]
    fn generated_ids_are_valid_and_differ() {
        let (a, b) = (TaskId::generate(), TaskId::generate());
        assert_ne!(a, b);
        assert!(a.as_str().parse::<TaskId>().is_ok());
    }
}
