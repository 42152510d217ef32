//! What the kernel prefers: OOM score, scheduling priority; and the umask, another inherited value.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};

use nix::libc::mode_t;
use nix::sys::stat::{Mode, umask};

use super::super::sys;
use super::StepError;

/// Sets how soon the kernel takes the task when memory runs out.
///
/// Lowering takes CAP_SYS_RESOURCE. Without it a worker's own higher value stays for a value that
/// isn't negative: the task is then taken sooner than asked, never later, which is the side that the
/// host is safe on (the pods of Kubernetes' best-effort class have 1000).
///
/// # Errors
/// A negative value, a wish to be spared, that can't be set.
pub(in crate::exec::init) fn oom_score_adj(value: i32) -> Result<(), StepError> {
    // Opened as what it is: `fs::write` would create and truncate.
    let file = OpenOptions::new().write(true).open("/proc/self/oom_score_adj");
    match file.and_then(|mut file| file.write_all(value.to_string().as_bytes())) {
        Err(error) if value >= 0 && error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => other.map_err(|error| StepError::from(error).about(value)),
    }
}

/// Sets the scheduling priority. Below the inherited one it takes CAP_SYS_NICE or RLIMIT_NICE.
///
/// With the kernel's autogroups it counts within the task's own session only; among tasks a cgroup's
/// weight decides.
pub(in crate::exec::init) fn nice(value: i32) -> Result<(), StepError> {
    sys::scheduling::set_nice(value).map_err(|error| StepError::from(error).about(value))
}

/// Sets the permissions that new files don't get.
pub(in crate::exec::init) fn set_umask(mask: u32) -> io::Result<()> {
    umask(Mode::from_bits_truncate(mode_t::from(mask)));
    Ok(())
}
