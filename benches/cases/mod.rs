//! What both micro benchmarks measure: the work per message, without the network and without processes.
//!
//! Inputs are fixed: no random ids, no clock, nothing read from files. So the same code takes the same
//! instructions each time. A case that is added here is measured by `micro` and guarded by `instructions`.

mod output;
mod records;
mod routing;
mod specs;

/// One measured operation.
pub(crate) struct Case {
    /// Its name, `area/what`.
    pub(crate) name: &'static str,
    /// Makes the inputs, and returns what is measured.
    pub(crate) prepare: fn() -> Run,
}

/// Does the operation once, and lets go of its result.
pub(crate) type Run = Box<dyn FnMut()>;

/// Returns all cases, in the order of a message's way.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [specs::CASES, routing::CASES, records::CASES, output::CASES].into_iter().flatten()
}
