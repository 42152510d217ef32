//! Whatever the bytes: decoding a spec doesn't panic, says why when it refuses, and what it accepts
//! survives a round trip through the canonical form.
//!
//! Run it with `cargo +nightly fuzz run spec` in the project's directory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use runlane::task::{canonical, decode, parse, parse_submission};

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(spec) => assert_eq!(decode(&canonical(&spec)).as_ref(), Ok(&spec)),
        Err(problems) => assert!(!problems.is_empty()),
    }
    if let Err(problems) = parse(bytes, None) {
        assert!(problems.iter().all(|problem| problem.path.starts_with('$')));
    }
    if let Ok(spec) = parse_submission(bytes) {
        let id = "fuzzed".parse().expect("letters make an id");
        let queued = parse(&canonical(&spec), spec.id.as_ref().or(Some(&id)));
        assert!(queued.is_ok(), "{queued:?}");
    }
});
