//! One boot of one machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

use super::needs::Needs;

/// A running machine; killed on drop.
pub(crate) struct Machine {
    child: Child,
    console: Lines<BufReader<ChildStdout>>,
    deadline: Instant,
}

/// What the console has next.
pub(crate) enum Said {
    Line(String),
    /// The machine is off.
    Off,
    /// It was not off in time.
    Hung,
}

impl Machine {
    /// Boots an image. `variables` reach the first process's environment.
    pub(crate) fn boot(
        needs: &Needs,
        image: &Path,
        variables: &str,
        limit: Duration,
    ) -> std::io::Result<Self> {
        let mut command = qemu(needs, image, variables);
        command.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let deadline = Instant::now() + limit;
        Ok(Self { child, console: BufReader::new(stdout).lines(), deadline })
    }

    /// Waits for the console's next line.
    pub(crate) async fn next(&mut self) -> Said {
        match timeout_at(self.deadline, self.console.next_line()).await {
            Err(_) => Said::Hung,
            Ok(Ok(Some(line))) => Said::Line(line.trim_end().to_owned()),
            // Not UTF-8: something else than ours wrote it.
            Ok(Err(_)) => Said::Line(String::new()),
            Ok(Ok(None)) => Said::Off,
        }
    }

    /// Ends it, however far it is.
    pub(crate) async fn end(mut self) {
        // Fails only if it has ended.
        self.child.kill().await.ok();
    }
}

/// Boots an image with this terminal as its console.
pub(crate) async fn shell(needs: &Needs, image: &Path) -> std::io::Result<()> {
    let mut command = qemu(needs, image, "VM_SHELL=1 VM_SECONDS=86400");
    // The terminal's Ctrl-C goes to the machine; its monitor, with Ctrl-A x, ends it.
    command.args(["-serial", "mon:stdio"]).kill_on_drop(true).status().await?;
    Ok(())
}

/// `setpriv` lets the machine end with this program, whatever ends that.
///
/// The processor lacks what QEMU 7.2 emulates wrongly: these kernels hang with five-level page tables,
/// and panic after a CMPXCHG16B that leaves garbage in the flags (in `kmem_cache_alloc`, under forks).
fn qemu(needs: &Needs, image: &Path, variables: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(&needs.qemu);
    command.args([
        "-M",
        "pc",
        "-accel",
        "tcg",
        "-cpu",
        "max,la57=off,cx16=off",
        "-smp",
        "1",
        "-m",
        "1024",
    ]);
    command.args(["-display", "none", "-nodefaults", "-no-reboot"]);
    command.arg("-kernel").arg(&needs.kernel).arg("-initrd").arg(image);
    let quiet = "console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/init";
    let systemd = if needs.system.is_some() { "VM_SYSTEMD=1" } else { "" };
    command.arg("-append").arg(format!("{quiet} {systemd} {variables}"));
    command
}
