//! The guards that the fault harness can switch off, to prove that it sees what they prevent.
//!
//! Without the feature `chaos-unguarded` each of them is a constant. With it, `RUNLANE_UNGUARDED`
//! names those that are off, separated by commas: `fence`, `start-check`, `lease`.

#[cfg(all(feature = "chaos-unguarded", not(debug_assertions)))]
compile_error!(
    "chaos-unguarded is for test builds only: it lets an environment variable break every promise"
);

/// Whether a record is appended only after the one that its writer knows.
pub(crate) fn fence() -> bool {
    is_on("fence")
}

/// Whether a stored cancel is looked for after the start was recorded, and before the process starts.
pub(crate) fn start_check() -> bool {
    is_on("start-check")
}

/// Whether a lease that could not be renewed is lost.
pub(crate) fn lease() -> bool {
    is_on("lease")
}

#[cfg(not(feature = "chaos-unguarded"))]
const fn is_on(_guard: &str) -> bool {
    true
}

#[cfg(feature = "chaos-unguarded")]
fn is_on(guard: &str) -> bool {
    static OFF: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let off = OFF.get_or_init(|| {
        let names = std::env::var("RUNLANE_UNGUARDED").unwrap_or_default();
        names.split(',').map(str::to_owned).collect()
    });
    !off.iter().any(|name| name == guard)
}
