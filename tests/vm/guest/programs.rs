//! Busybox scripts that try a limit, or to escape. Some must not run outside of the machine.

/// Touches 96 MiB in a child, and says the child's exit code.
pub(crate) const EATER: &str = "dd if=/dev/zero of=/dev/null bs=96M count=1; echo $?";

/// Starts forty children that don't hold its output, and says so.
pub(crate) const CHILDREN: &str =
    "i=0; while [ $i -lt 40 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done; echo all";

/// Uses a whole CPU for two seconds.
pub(crate) const BUSY: &str = "timeout 2 sh -c 'while :; do :; done'";

/// A daemon as in the books: its own session, its parent is gone, its output is the task's.
pub(crate) const DAEMON: &str = "setsid sh -c 'sleep 1000 & exec sleep 1000' & \
     until [ $(pidof sleep | wc -w) -ge 2 ]; do sleep 0.1; done; echo ready; sleep 1000; :";

/// Four hundred children in sessions of their own.
pub(crate) const SESSIONS: &str = "i=0; while [ $i -lt 400 ]; do setsid sleep 1000 & i=$((i+1)); done; \
     until [ $(pidof sleep | wc -w) -ge 400 ]; do sleep 0.3; done";

/// Twenty processes that fork and exit for ever, each in a session of its own: whoever lists them and
/// then kills what was listed is late.
pub(crate) const HOPPERS: &str = "i=0; \
     while [ $i -lt 20 ]; do setsid sh -c 'hop() { hop & exit; }; hop' & i=$((i+1)); done; \
     wait; echo ready; sleep 1000; :";

/// Doubles itself for ever. Refused forks don't end it: who can't fork tries again.
pub(crate) const BOMB: &str = "exec 2>/dev/null; echo ready; \
     bomb() { while :; do (bomb) & done; }; while :; do (bomb); done";
