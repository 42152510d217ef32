//! The machine's root file system: the programs under test as they were built for this host, and the
//! libraries that they need.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;

/// A program, and its path in the machine.
pub(crate) struct Program {
    pub(crate) file: PathBuf,
    pub(crate) path: &'static str,
}

/// Writes an image below a directory and returns its path. `system` is a tree of unpacked packages that
/// is put in, too.
pub(crate) fn build(
    directory: &Path,
    busybox: &Path,
    programs: &[Program],
    system: Option<&Path>,
) -> io::Result<PathBuf> {
    let image = directory.join("image.cpio");
    let mut archive = Archive::new(BufWriter::new(File::create(&image)?));
    // The kernel gives it to the first process.
    archive.device("dev/console", 5, 1)?;
    for empty in ["proc", "sys", "tmp", "root", "run", "var/lib", "var/tmp"] {
        archive.directory(empty)?;
    }
    for merged in MERGED {
        archive.directory(&format!("usr/{merged}"))?;
        archive.link(merged, &format!("usr/{merged}"))?;
    }
    if let Some(system) = system {
        add_tree(&mut archive, system, "")?;
    }
    archive.file("init", 0o755, include_bytes!("init.sh"))?;
    archive.file("etc/passwd", 0o644, include_bytes!("passwd"))?;
    archive.file("etc/group", 0o644, b"root:x:0:\nrunlane:x:1000:\n")?;
    archive.file("usr/bin/busybox", 0o755, &fs::read(busybox)?)?;
    let mut libraries = BTreeSet::new();
    for program in programs {
        archive.file(&merged(program.path), 0o755, &stripped(&program.file, directory)?)?;
        libraries.extend(libraries_of(&program.file)?);
    }
    for library in libraries {
        archive.file(&merged(&library), 0o755, &fs::read(&library)?)?;
    }
    archive.finish()?;
    Ok(image)
}

/// Directories that are links into /usr, as on every current distribution.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Where a path is without these links.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) { format!("usr/{path}") } else { path.to_owned() }
}

/// Adds the files and links of a tree, without what would start units by itself.
fn add_tree<W: Write>(archive: &mut Archive<W>, root: &Path, below: &str) -> io::Result<()> {
    let mut entries = fs::read_dir(root.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = Path::new(below).join(entry.file_name());
        let path = path.to_str().ok_or(io::ErrorKind::InvalidData)?;
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            if !MERGED.contains(&path) {
                archive.link(&merged(path), &target.to_string_lossy())?;
            }
        } else if kind.is_dir() {
            if !path.ends_with(".wants") && !path.ends_with("-generators") {
                add_tree(archive, root, path)?;
            }
        } else {
            let mode = entry.metadata()?.permissions().mode();
            archive.file(&merged(path), mode & 0o777, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
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
