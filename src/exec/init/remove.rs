//! The removal of a directory that somebody else has filled.
//!
//! How deep it is, what the names are and which permissions it has was a task's choice. So neither the
//! stack nor the descriptors that it takes grow with the depth: what is too deep is moved up first. Links
//! are removed, never followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Levels that are walked down before the rest is moved up.
const DEPTH: usize = 32;

/// Removes a directory with everything in it, whatever its permissions are. One that isn't there is
/// removed already.
pub(in crate::exec) fn remove_tree(path: &Path) -> io::Result<()> {
    let root = match open_directory(AT_FDCWD, path) {
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened?,
    };
    let mut moved = 0_u64;
    while !clear(&root, &root, DEPTH, &mut moved)? {}
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Removes what is in a directory. False: something of it was moved up to the root.
fn clear(
    directory: &OwnedFd,
    root: &OwnedFd,
    depth: usize,
    moved: &mut u64,
) -> Result<bool, Errno> {
    let mut done = true;
    for name in names(directory)? {
        match unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            // A directory; EPERM is POSIX's word for that.
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
        if depth == 0 {
            up(directory, &name, root, moved)?;
            done = false;
            continue;
        }
        let below = open_directory(directory, name.as_c_str())?;
        done &= clear(&below, root, depth - 1, moved)?;
        unlinkat(directory, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
    }
    Ok(done)
}

/// Moves a directory up to the root, by a name that nobody has chosen before.
fn up(directory: &OwnedFd, name: &CStr, root: &OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    *moved += 1;
    let place = format!("{}-{moved}", uuid::Uuid::new_v4().simple());
    // A directory that moves gets another parent, which takes the right to write to it.
    drop(open_directory(directory, name)?);
    renameat(directory, name, root, place.as_str())
}

/// Opens a directory and lets its owner do everything in it.
fn open_directory<P: NixPath + ?Sized>(
    parent: impl AsFd + Copy,
    name: &P,
) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = match openat(parent, name, flags | OFlag::O_RDONLY, Mode::empty()) {
        Err(Errno::EACCES) => {
            let shut = openat(parent, name, flags | OFlag::O_PATH, Mode::empty())?;
            let link = format!("/proc/self/fd/{}", shut.as_raw_fd());
            fchmodat(AT_FDCWD, link.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            open(link.as_str(), OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?
        }
        opened => opened?,
    };
    fchmod(&opened, Mode::S_IRWXU)?;
    Ok(opened)
}

fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::openat(directory, ".", flags, Mode::empty())?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::mkdirat;

    use super::*;

    #[test]
    fn neither_depth_nor_permissions_nor_links_keep_a_tree() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let outside = place.path().join("outside");
        std::fs::write(&outside, "x").expect("there is room");
        let tree = place.path().join("tree");
        std::fs::create_dir(&tree).expect("there is room");
        std::os::unix::fs::symlink(place.path(), tree.join("link")).expect("there is room");
        // Deeper than any path can say, and than a thread's stack has frames for.
        let mut deepest = open_directory(AT_FDCWD, tree.as_path()).expect("it is there");
        for level in 0..30_000 {
            mkdirat(&deepest, "d", Mode::S_IRWXU).expect("there is room");
            let below = open_directory(&deepest, c"d").expect("it is there");
            if level % 1000 == 7 {
                fchmod(&deepest, Mode::empty()).expect("it is ours");
            }
            deepest = below;
        }
        drop(deepest);
        std::fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o0)).expect("it is ours");
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                remove_tree(&tree).expect("it can be removed");
                assert!(!tree.exists());
                remove_tree(&tree).expect("nothing is left to remove");
            })
            .expect("a thread can be started")
            .join()
            .expect("it is removed on a small stack");
        assert!(outside.exists(), "a link was followed");
    }
}
