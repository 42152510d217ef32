//! (kind, selector) → lane: tasks that ask for the same wait in the same queue.

use sha2::{Digest, Sha256};

use crate::wire::{Kind, LaneId, LaneRecord, Selector};

/// Length of a lane id that is not `default`, in characters.
const LEN: usize = 10;

impl LaneRecord {
    /// The record of the tasks that ask for `selector`, in canonical form.
    pub fn new(kind: Kind, selector: &Selector) -> Self {
        Self { kind, selector: selector.canonical() }
    }

    /// Returns the lane's id.
    ///
    /// `default` for subprocess tasks without a condition. Else the first 10 characters of the lower
    /// case base32 (RFC 4648, alphabet `a-z2-7`, no padding) of the SHA-256 of this JSON in UTF-8:
    ///
    /// ```json
    /// {"kind":"subprocess","selector":{"matchLabels":{"os":"linux"},"matchExpressions":[{"key":"gpu","operator":"In","values":["a","b"]}]}}
    /// ```
    ///
    /// 1. No white space; members in exactly this order. Strings escape only `"` and `\`, each with
    ///    a `\` (labels have no control characters), and are otherwise as they are.
    /// 2. Each `values` is sorted and without repetition; `Exists` and `DoesNotExist` have no
    ///    `values` member.
    /// 3. All conditions are put in one list, `matchLabels` entries as `In` with one value, without
    ///    repetition, sorted by key, then by operator in the order In, NotIn, Exists, DoesNotExist,
    ///    then by values (the first that differs decides). Sorting is by UTF-8 bytes.
    /// 4. From it each `In` with one value goes to `matchLabels`, if its key isn't there yet; the
    ///    rest is `matchExpressions`. Both keep the order of the list.
    /// 5. An empty `matchLabels` or `matchExpressions` is left out: `"selector":{}` has neither.
    pub fn id(&self) -> LaneId {
        if self.kind == Kind::Subprocess && self.selector.is_empty() {
            return LaneId::default_lane();
        }
        let record = Self::new(self.kind, &self.selector);
        let json = serde_json::to_vec(&record).expect("a record has only string keys");
        let hash = Sha256::digest(json);
        // A character has five bits.
        let id = base32(&hash[..(LEN * 5).div_ceil(8)]);
        id[..LEN].parse().expect("base32 has only letters and digits")
    }
}

fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let quintet = |at: usize| {
        let bit = |n: usize| bytes.get(n / 8).is_some_and(|byte| byte >> (7 - n % 8) & 1 == 1);
        (at..at + 5).fold(0, |value, n| value << 1 | usize::from(bit(n)))
    };
    let starts = (0..bytes.len() * 8).step_by(5);
    starts.map(|at| char::from(ALPHABET[quintet(at)])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(kind: Kind, selector: &str) -> String {
        let selector = selector.parse().expect("a selector");
        LaneRecord::new(kind, &selector).id().to_string()
    }

    #[test]
    fn base32_is_that_of_the_rfc() {
        for (text, code) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(text.as_bytes()), code);
        }
    }

    // Other clients compute these; a change here is a change of the protocol.
    #[test]
    fn lane_ids_never_change() {
        for (kind, selector, lane) in [
            (Kind::Subprocess, "", "default"),
            (Kind::Container, "", "iusecsys2l"),
            (Kind::Wasm, "", "bagdacxkos"),
            (Kind::Subprocess, "os=linux", "aue77d67pi"),
            (Kind::Subprocess, "os=linux,gpu in (a,b)", "4s3yjlhuq4"),
            (Kind::Subprocess, "!spot,gpu,tier notin (dev,test),zone!=eu", "ddk3vu3h5w"),
            (Kind::Subprocess, r#"team="a \"b\" \\ é""#, "l3ytjze4w4"),
            (Kind::Subprocess, "a=1,a=2", "la7wd3xwm6"),
        ] {
            assert_eq!(id(kind, selector), lane, "{kind} {selector}");
        }
    }

    #[test]
    fn the_same_wish_is_the_same_lane() {
        for (a, b) in [
            ("os=linux,gpu in (a,b)", "gpu in (b,a,b),os in (linux),os=linux"),
            ("a,!b", "!b,a,a"),
            ("a=2,a=1", "a=1,a in (2)"),
        ] {
            assert_eq!(id(Kind::Subprocess, a), id(Kind::Subprocess, b), "{a} | {b}");
        }
        assert_ne!(id(Kind::Subprocess, "a=1"), id(Kind::Container, "a=1"));
    }

    proptest! {
        #[test]
        fn any_selector_has_a_lane(key in "\\PC{1,8}", values in prop::collection::vec("\\PC{0,8}", 1..4)) {
            let operator = crate::wire::Operator::In;
            let condition = crate::wire::Requirement { key, operator, values };
            let selector = Selector { match_expressions: vec![condition], ..Selector::default() };
            prop_assert_eq!(LaneRecord::new(Kind::Subprocess, &selector).id().as_str().len(), LEN);
        }
    }
}
