//! A thread's capabilities, where the caps crate has no call or one for each set.

use nix::errno::Errno;
use nix::libc;

/// Whether a capability is in the bounding set. None: the kernel has no such capability.
pub(in crate::exec::init) fn in_bounding_set(number: u32) -> Option<bool> {
    // SAFETY: the numbers aren't pointers.
    match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) } {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Takes a capability out of the bounding set.
pub(in crate::exec::init) fn drop_from_bounding_set(number: u32) -> Result<(), Errno> {
    // SAFETY: the numbers aren't pointers.
    let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
    Errno::result(done).map(drop)
}

/// Makes these, a bit for each number, the effective, permitted and inheritable capabilities of this thread.
pub(in crate::exec::init) fn set(all: u64) -> Result<(), Errno> {
    // As capset(2) has it, in the version for 64 bits: two times 32 of each set, the lower ones first.
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let (low, high) = (all as u32, (all >> 32) as u32);
    let sets = [low, low, low, high, high, high];
    // SAFETY: the header is a version and the number of a thread, 0 for this one, and the sets have the
    // length of that version. Both are only read.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    Errno::result(done).map(drop)
}
