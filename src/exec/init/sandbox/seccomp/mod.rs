//! System call filters: a table of what is denied, and a compiler for it.
//!
//! The calling convention is checked first, so that 32-bit calls and x32 numbers are no way around: a
//! foreign architecture's call ends the process, as no answer would reach it right.
//!
//! The compiler is ours because of the launch's budget. At installation the kernel runs the program
//! once for each system call, to know which it needn't ask again: the linear programs of the crate
//! seccompiler took 360 µs for as many calls, a search tree takes 40. Tests compare the two, call by
//! call.

mod program;
mod table;

use std::io;
use std::sync::OnceLock;

use nix::libc::sock_filter;

use super::super::sys;
use crate::task::Seccomp;

pub use table::{Denied, denied};

static STANDARD: OnceLock<Vec<sock_filter>> = OnceLock::new();
static STRICT: OnceLock<Vec<sock_filter>> = OnceLock::new();

/// Builds the programs. For the spawner, before it forks: its children then have them in memory.
pub(in crate::exec::init) fn prepare() {
    program(Seccomp::Standard);
    program(Seccomp::Strict);
}

/// Installs a profile's filter. Needs no_new_privs, or CAP_SYS_ADMIN.
pub(in crate::exec::init) fn apply(profile: Seccomp) -> io::Result<()> {
    sys::install_filter(program(profile))
}

fn program(profile: Seccomp) -> &'static [sock_filter] {
    let built = match profile {
        Seccomp::Standard => &STANDARD,
        Seccomp::Strict => &STRICT,
    };
    built.get_or_init(|| program::compile(program::NATIVE, &table::actions(profile)))
}

#[cfg(test)]
mod tests;
