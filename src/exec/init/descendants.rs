//! Kills what is below a process that was killed, at once, without waiting until it is orphaned.
//!
//! Who was sent SIGKILL forks no more, so the list of its children is complete. But a child's id is not
//! ours to keep from being another's: it is held by a pidfd, and looked at again while its parent is
//! known to be there. Whom that misses is orphaned soon, and seen then.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::sweep::parent;

/// Levels that are walked down.
const DEPTH: u32 = 16;

/// Kills the descendants of a child of this process that was killed and isn't reaped yet.
pub(super) fn kill_below(child: i32) {
    // Its id stays its own until we reap it.
    below(child, DEPTH, &|| true);
}

/// `is_there` says whether the id is that of the same process still.
fn below(pid: i32, depth: u32, is_there: &dyn Fn() -> bool) {
    if depth == 0 {
        return;
    }
    // Of its first thread; without CONFIG_PROC_CHILDREN there is no such file.
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    for child in children.unwrap_or_default().split_ascii_whitespace() {
        let Some(number) = child.parse().ok().and_then(Pid::from_raw) else { continue };
        let Ok(held) = pidfd_open(number, PidfdFlags::empty()) else { continue };
        let raw = number.as_raw_nonzero().get();
        let is_its_child = parent(raw).is_some_and(|parent| parent == pid.to_string());
        // Succeeds until somebody has reaped it.
        let kill = || pidfd_send_signal(&held, Signal::KILL).is_ok();
        if is_its_child && is_there() && kill() {
            below(raw, depth - 1, &kill);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::super::sys;
    use super::*;

    #[test]
    fn a_child_is_killed_while_the_one_above_is_there() {
        // One level: who is below the first may be orphaned before it is seen, and is then our child.
        let script = "sleep 1000 & echo $!; wait";
        let mut top = Command::new("sh");
        let mut top = top.args(["-c", script]).stdout(Stdio::piped()).spawn().expect("sh is there");
        let mut said = String::new();
        let output = top.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut said).expect("it is text");
        let child: i32 = said.trim_end().parse().expect("a process id");
        let pid = top.id().cast_signed();
        // Not killed, or it would be gone too soon.
        sys::kill(pid, nix::libc::SIGSTOP);
        kill_below(pid);
        let start = Instant::now();
        while is_alive(child) {
            assert!(start.elapsed() < Duration::from_secs(10), "{child} is alive");
            std::thread::yield_now();
        }
        assert!(is_alive(pid), "the one above is not below");
        top.kill().expect("it is our child");
        top.wait().expect("it is our child");
    }

    fn is_alive(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }
}
