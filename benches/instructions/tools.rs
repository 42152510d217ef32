//! What besides our code decides the counts: the compiler, the C library, and valgrind.

use std::process::Command;

/// Names the versions of the tools on this machine.
pub(crate) fn versions() -> Result<String, String> {
    let rustc = said_by("rustc", &["--version"])?;
    let libc = said_by("getconf", &["GNU_LIBC_VERSION"])?;
    let valgrind = said_by("valgrind", &["--version"])?;
    Ok(format!("{rustc}, {libc}, {valgrind}, {}", processor()))
}

// The C library copies by what the processor has, and valgrind shows it AVX2, but nothing newer.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let avx2 = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = false;
    let more = if avx2 { " with AVX2" } else { "" };
    format!("{}{more}", std::env::consts::ARCH)
}

fn said_by(program: &str, args: &[&str]) -> Result<String, String> {
    let ran = Command::new(program).args(args).output();
    let ran = ran.map_err(|error| format!("cannot run {program}: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    if said.is_empty() { Err(format!("{program} says nothing of its version")) } else { Ok(said) }
}
