//! One case → its counts, by `valgrind --tool=callgrind`.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Functions of the C library that allocate, as Rust's allocator calls them.
const ALLOCATE: &[&str] = &["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// What a case takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    /// Instructions in our program, Rust's libraries included.
    pub(crate) ours: u64,
    /// Instructions in the C library: copying, comparing, allocating.
    pub(crate) libc: u64,
    /// Allocations and reallocations.
    pub(crate) allocations: u64,
}

/// The first times are left out: they load what is loaded once, and shape the heap.
const WARM: u64 = 5;
/// So many times are counted.
const TIMES: u64 = 10;

/// Counts what a case takes, rounded up.
pub(crate) fn count(case: &str) -> Result<Counts, String> {
    let (warm, all) = (total(case, WARM)?, total(case, WARM + TIMES)?);
    let each = |all: u64, warm: u64| {
        let counted = all.checked_sub(warm).map(|counted| counted.div_ceil(TIMES));
        counted.ok_or_else(|| format!("{case}: more times take less"))
    };
    let counts = Counts {
        ours: each(all.ours, warm.ours)?,
        libc: each(all.libc, warm.libc)?,
        allocations: each(all.allocations, warm.allocations)?,
    };
    if counts.ours == 0 { Err(format!("{case}: nothing was counted")) } else { Ok(counts) }
}

/// Counts what a process takes that does a case so many times.
fn total(case: &str, times: u64) -> Result<Counts, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = program.with_file_name("instructions.callgrind");
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--command-line-only=yes"])
        .args(["--compress-strings=no", "--compress-pos=no", "--dump-line=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(&program)
        .args(["--case", case, "--times", &times.to_string()])
        // The environment is on the stack, and has switches of the C library.
        .env_clear()
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("{case}: valgrind ended with {}\n{said}", ran.status));
    }
    let text = std::fs::read_to_string(&profile);
    let text = text.map_err(|error| format!("cannot read {}: {error}", profile.display()))?;
    read(&text, &program).ok_or_else(|| format!("{case}: the profile's lines don't make its total"))
}

/// Reads a profile (<https://valgrind.org/docs/manual/cl-format.html>); `None` if its lines don't
/// amount to the total that it states.
fn read(profile: &str, program: &Path) -> Option<Counts> {
    let (mut counts, mut ours, mut callee, mut total) = (Counts::default(), false, "", None);
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(object) = line.strip_prefix("ob=") {
            ours = Path::new(object) == program;
        } else if let Some(function) = line.strip_prefix("cfn=") {
            callee = function;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            if ALLOCATE.contains(&callee) {
                counts.allocations += number(calls.split(' ').next())?;
            }
            // What the callee took stands at the callee, too.
            lines.next();
        } else if let Some(stated) = line.strip_prefix("totals: ") {
            total = Some(number(Some(stated))?);
        } else if line.starts_with(|c: char| c.is_ascii_digit()) {
            let here = if ours { &mut counts.ours } else { &mut counts.libc };
            *here += number(line.split(' ').nth(1))?;
        }
    }
    (total == Some(counts.ours + counts.libc)).then_some(counts)
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}
