//! How a worker ends, and what it says of it.

/// How urgently the worker is to end. Each request is at least as urgent as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Drain {
    /// Not at all.
    #[default]
    No,
    /// Take no new tasks; wait for those that run, up to the drain timeout.
    Wait,
    /// Stop what runs and hand it back.
    Stop,
    /// Kill what runs and hand it back.
    Kill,
}

/// What a worker did until it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Tasks that were handed back because the worker ended.
    pub requeued: usize,
}
