//! Limits of each process.

use std::collections::BTreeMap;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::StepError;
use crate::task::Rlimit;

/// Sets soft and hard limits, so that the task can't raise them back. A limit above the inherited hard
/// one becomes that: raising takes CAP_SYS_RESOURCE, and a worker's own limits are its tasks' too.
/// `u64::MAX` is the kernel's RLIM_INFINITY, unlimited.
pub(in crate::exec::init) fn apply(limits: &BTreeMap<Rlimit, u64>) -> Result<(), StepError> {
    for (limit, wanted) in limits {
        let resource = resource(*limit);
        let set = || {
            let (_, hard) = getrlimit(resource)?;
            let limit = hard.min(*wanted);
            setrlimit(resource, limit, limit)
        };
        set().map_err(|errno| StepError::from(errno).about(limit.as_str()))?;
    }
    Ok(())
}

fn resource(limit: Rlimit) -> Resource {
    match limit {
        Rlimit::As => Resource::RLIMIT_AS,
        Rlimit::Core => Resource::RLIMIT_CORE,
        Rlimit::Cpu => Resource::RLIMIT_CPU,
        Rlimit::Fsize => Resource::RLIMIT_FSIZE,
        Rlimit::Memlock => Resource::RLIMIT_MEMLOCK,
        Rlimit::Nofile => Resource::RLIMIT_NOFILE,
        Rlimit::Nproc => Resource::RLIMIT_NPROC,
        Rlimit::Stack => Resource::RLIMIT_STACK,
    }
}
