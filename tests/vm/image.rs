//! The machine's root file system: the programs under test as they were built for this host, and the
//! libraries that they need.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;

/// A program, and its path in the machine.
pub(crate) struct Program {
    pub(crate) file: PathBuf,
    pub(crate) path: &'static str,
}

/// Writes the image below a directory and returns its path.
pub(crate) fn build(directory: &Path, busybox: &Path, programs: &[Program]) -> io::Result<PathBuf> {
    let image = directory.join("image.cpio");
    let mut archive = Archive::new(BufWriter::new(File::create(&image)?));
    // The kernel gives it to the first process.
    archive.device("dev/console", 5, 1)?;
    for empty in ["proc", "sys", "tmp", "root", "var/lib"] {
        archive.directory(empty)?;
    }
    archive.file("init", 0o755, include_bytes!("init.sh"))?;
    archive.file("etc/passwd", 0o644, include_bytes!("passwd"))?;
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    let mut libraries = BTreeSet::new();
    for program in programs {
        archive.file(program.path, 0o755, &stripped(&program.file, directory)?)?;
        libraries.extend(libraries_of(&program.file)?);
    }
    for library in libraries {
        archive.file(&library, 0o755, &fs::read(&library)?)?;
    }
    archive.finish()?;
    Ok(image)
}

/// A program without what only debuggers and stack traces need, which is most of it. Without `strip` all of it.
fn stripped(program: &Path, directory: &Path) -> io::Result<Vec<u8>> {
    let to = directory.join("stripped");
    let done = Command::new("strip").arg("--strip-all").arg("-o").arg(&to).arg(program).output();
    fs::read(if done.is_ok_and(|output| output.status.success()) { &to } else { program })
}

/// The files that the dynamic loader would map, itself included. None for a static program.
fn libraries_of(program: &Path) -> io::Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_path = |word: &&str| word.starts_with('/');
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().find(is_path))
        .map(str::to_owned)
        .collect())
}
