//! The archive that the kernel unpacks as its first file system: the `newc` format of the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

/// Bits of a mode that say what the entry is.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const LINK: u32 = 0o120_000;

/// Writes an archive. Parent directories come by themselves.
pub(crate) struct Archive<W> {
    to: W,
    inode: u32,
    directories: BTreeSet<String>,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    content: &'a [u8],
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, inode: 0, directories: BTreeSet::new() }
    }

    /// Adds a directory and those above it; nothing if it is there.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        let name = path.trim_matches('/');
        if name.is_empty() || !self.directories.insert(name.to_owned()) {
            return Ok(());
        }
        self.parent(name)?;
        self.entry(&Entry { name, mode: DIRECTORY | 0o755, device: (0, 0), content: &[] })
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.trim_matches('/');
        self.parent(name)?;
        self.entry(&Entry { name, mode: FILE | mode, device: (0, 0), content })
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        let name = path.trim_matches('/');
        self.parent(name)?;
        let content = target.as_bytes();
        self.entry(&Entry { name, mode: LINK | 0o777, device: (0, 0), content })
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        let name = path.trim_matches('/');
        self.parent(name)?;
        let mode = CHARACTER_DEVICE | 0o600;
        self.entry(&Entry { name, mode, device: (major, minor), content: &[] })
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.entry(&Entry { name: "TRAILER!!!", mode: 0, device: (0, 0), content: &[] })?;
        self.to.flush()
    }

    fn parent(&mut self, name: &str) -> io::Result<()> {
        let parent = Path::new(name).parent().and_then(Path::to_str).unwrap_or_default();
        self.directory(parent)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(entry.content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(entry.name.len() + 1).map_err(io::Error::other)?;
        let (major, minor) = entry.device;
        // inode, mode, uid, gid, links, time, size, device, device of a device, name's size, checksum
        let fields = [self.inode, entry.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        write!(self.to, "070701")?;
        for field in fields {
            write!(self.to, "{field:08x}")?;
        }
        write!(self.to, "{}\0", entry.name)?;
        self.pad(110 + entry.name.len() + 1)?;
        self.to.write_all(entry.content)?;
        self.pad(entry.content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}
