//! Who gets the CPU: a process's priority, and precedence for a moment.

use std::io;

use nix::errno::Errno;
use nix::libc;

/// Sets the scheduling priority of this process. Not nice(3), which is relative.
pub(in super::super) fn set_nice(value: i32) -> io::Result<()> {
    // SAFETY: the numbers aren't pointers; 0 is this process.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) })?;
    Ok(())
}

/// While it lives, this process runs before every ordinary one, and none of them in its place. What it
/// forks meanwhile is ordinary.
#[derive(Debug)]
pub(in super::super) struct Precedence {
    before: libc::c_long,
}

impl Precedence {
    /// Takes precedence.
    ///
    /// # Errors
    /// EPERM: it takes CAP_SYS_NICE or RLIMIT_RTPRIO, and in some cgroups time for it.
    pub(in super::super) fn take() -> io::Result<Self> {
        let before = policy()?;
        let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        set_policy(libc::c_long::from(policy), 1)?;
        Ok(Self { before })
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        // Giving up precedence is always allowed, but that children are ordinary stays a plain user's.
        let resetting = self.before | libc::c_long::from(libc::SCHED_RESET_ON_FORK);
        set_policy(self.before, 0).or_else(|_| set_policy(resetting, 0)).ok();
    }
}

// Not libc's functions: musl's refuse always.
fn policy() -> io::Result<libc::c_long> {
    // SAFETY: the number isn't a pointer; 0 is this process.
    Ok(Errno::result(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) })?)
}

fn set_policy(policy: libc::c_long, priority: i32) -> io::Result<()> {
    // SAFETY: all zero is a valid sched_param, which has more fields in some C libraries.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = priority;
    // SAFETY: the kernel reads the param, which lives through the call; 0 is this process.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const param)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_ends_with_its_guard() {
        // In a thread of its own: the policy is a thread's.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let before = policy().expect("anybody may ask");
                match Precedence::take() {
                    Ok(_precedence) => {
                        let taken = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
                        assert_eq!(policy().expect("as before"), libc::c_long::from(taken));
                    }
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
                }
                assert_eq!(policy().expect("as before"), before);
            });
        });
    }
}
