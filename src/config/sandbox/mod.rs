//! `[runner.sandbox]`: single settings over a preset → the runner's isolation policy.

mod files;
mod identity;
mod limits;
mod raw;
mod resolve;

pub use raw::{RawCgroup, RawId, RawLimit, RawRlimits, RawSandbox};
pub use resolve::DEFAULT_PRESET;
pub(super) use resolve::{Surroundings, resolve};
