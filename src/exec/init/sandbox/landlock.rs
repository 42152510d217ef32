//! The Landlock domain.
//!
//! Any domain keeps a task from tracing, and from reading memory, environment and descriptors of,
//! processes outside of it, whoever they belong to. (From Linux 6.15 on a task that keeps CAP_PERFMON or
//! CAP_SYS_ADMIN may read environments all the same.) One without file rules handles a single access,
//! *refer*, and allows it everywhere: a domain that doesn't handle it denies every rename to another
//! directory. Linux 5.13 to 5.18 know no such access, so there a domain would break `mv`, and is refused.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;

use super::super::sys;
use super::StepError;
use crate::task::{FileRules, Landlock};

/// The first ABI with *refer*: Linux 5.19.
pub(in crate::exec) const WITH_REFER: i32 = 2;

/// The first ABI with scopes: Linux 6.12.
pub(in crate::exec) const WITH_SCOPES: i32 = 6;

/// The newest ABI that file rules were tested with. Accesses of later ones stay allowed, so that a new
/// kernel alone doesn't change what tasks can do.
const TESTED: i32 = 7;

/// Whether a domain is the same whenever it is made: it names no path but the root.
pub(in crate::exec::init) fn is_lasting(wanted: &Landlock) -> bool {
    wanted.files.is_none() && !wanted.sys_read_only
}

/// A domain that can be entered.
pub(in crate::exec::init) struct Domain(RulesetCreated);

impl Domain {
    /// Makes a domain; the paths are those that this process sees.
    ///
    /// # Errors
    /// The kernel lacks something of it, or a path of `read_only` or `read_write` can't be opened.
    pub(in crate::exec::init) fn make(
        wanted: &Landlock,
        work_dir: Option<&Path>,
    ) -> Result<Self, StepError> {
        let abi = sys::landlock_abi()?;
        if abi < WITH_REFER {
            let why = format!(
                "this kernel's Landlock, ABI {abi}, would forbid every rename across directories"
            );
            return Err(StepError::new(Errno::EOPNOTSUPP, why));
        }
        let all = AccessFs::from_all(ABI::from(abi.min(TESTED)));
        let handled = match wanted {
            Landlock { files: Some(_), .. } => all,
            Landlock { sys_read_only: true, .. } => AccessFs::Refer | AccessFs::WriteFile,
            Landlock { .. } => AccessFs::Refer.into(),
        };
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(handled)
            .map_err(failed)?;
        let scopes = [
            (Scope::Signal, wanted.signal_scope),
            (Scope::AbstractUnixSocket, wanted.abstract_unix_scope),
        ];
        for (scope, _) in scopes.into_iter().filter(|(_, wanted)| *wanted) {
            ruleset = ruleset.scope(scope).map_err(failed)?;
        }
        // Setting no_new_privs is a step of its own, and the policy's decision.
        let ruleset = ruleset.create().map_err(failed)?.no_new_privs(false);
        let ruleset = match &wanted.files {
            None => allow_all_but_sys(ruleset, handled)?,
            Some(files) => allow_files(ruleset, files, work_dir, all)?,
        };
        Ok(Self(ruleset))
    }

    /// Another of the same, for a process that shares this one's memory.
    pub(in crate::exec::init) fn again(&self) -> Result<Self, StepError> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Enters the domain for good. Needs no_new_privs, or CAP_SYS_ADMIN.
    pub(in crate::exec::init) fn enter(self) -> Result<(), StepError> {
        match self.0.restrict_self().map_err(failed)?.ruleset {
            RulesetStatus::FullyEnforced => Ok(()),
            RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => Err(StepError::new(
                Errno::EOPNOTSUPP,
                "the kernel doesn't enforce all of the domain",
            )),
        }
    }
}

/// A domain lists what is allowed, so to shut one directory is to open all those beside it.
fn allow_all_but_sys(
    mut ruleset: RulesetCreated,
    handled: BitFlags<AccessFs>,
) -> Result<RulesetCreated, StepError> {
    let root = Path::new("/");
    ruleset = allow(ruleset, root, open(root)?, AccessFs::Refer.into())?;
    if !handled.contains(AccessFs::WriteFile) {
        return Ok(ruleset);
    }
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        // A link leads below another entry, if it leads anywhere.
        let sys_or_link = entry.file_name() == "sys" || entry.file_type()?.is_symlink();
        if !sys_or_link && let Ok(file) = open(&entry.path()) {
            ruleset = allow(ruleset, &entry.path(), file, AccessFs::WriteFile.into())?;
        }
    }
    Ok(ruleset)
}

fn allow_files(
    mut ruleset: RulesetCreated,
    files: &FileRules,
    work_dir: Option<&Path>,
    all: BitFlags<AccessFs>,
) -> Result<RulesetCreated, StepError> {
    for path in &files.read_only {
        ruleset = allow(ruleset, path, open(path)?, AccessFs::from_read(ABI::V1))?;
    }
    let named = files.read_write.iter().map(AsRef::as_ref);
    for path in named.chain(work_dir) {
        ruleset = allow(ruleset, path, open(path)?, all)?;
    }
    for path in &files.optional {
        match open(path) {
            // What isn't there, or can't be reached, can't be used either.
            Err(StepError { errno: Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES, .. }) => {}
            file => ruleset = allow(ruleset, path, file?, all)?,
        }
    }
    Ok(ruleset)
}

fn open(path: &Path) -> Result<PathFd, StepError> {
    // Its message has the path.
    PathFd::new(path).map_err(|error| StepError::of(&error, Errno::UnknownErrno))
}

fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    file: PathFd,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, StepError> {
    // The kernel refuses accesses of directories for a file.
    let access =
        if path.is_dir() { access } else { access & AccessFs::from_file(ABI::from(TESTED)) };
    let rule = PathBeneath::new(file, access);
    ruleset.add_rule(rule).map_err(|error| failed(error).about(path.display()))
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn failed(error: RulesetError) -> StepError {
    StepError::of(&error, Errno::EOPNOTSUPP)
}
