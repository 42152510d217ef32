//! Tests that need a kernel of their own: limits that hold, and processes that must not run on a
//! developer's machine, such as fork bombs. How to run them by hand: docs/testing.md.
//!
//! ```text
//!  host (cargo test --test vm)                       guest (qemu, Debian's kernel)
//!  ───────────────────────────                       ─────────────────────────────
//!  needs ─► image: this program, runlane,   ──boot─► init.sh: mounts, cgroup v2
//!           nats-server, busybox, their libraries      └─► vm guest: the suite, case by case
//!  judge ◄─────────── serial console: lines with the run's nonce ◄──┘
//! ```
//!
//! A case that says nothing has failed, and so has a machine that hangs, panics or says no verdict.

// A program of its own: what it says goes to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod cpio;
mod guest;
mod host;
mod image;
mod judge;
mod needs;
#[allow(dead_code)] // It is shared with the integration tests, which use more of it.
#[path = "../it/support/proc.rs"]
mod proc;
mod qemu;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((role, rest)) if role == "__guest" => guest::run(rest),
        Some((role, rest)) if role == "__helper" => guest::helper::run(rest),
        _ => host::run(&args),
    }
}
