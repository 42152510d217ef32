//! What the tests need from the host, and whether a lack of it is a failure.

use std::path::{Path, PathBuf};

use super::guest::Tier;

/// What a machine is made of.
#[derive(Debug)]
pub(crate) struct Needs {
    pub(crate) qemu: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) kernel: PathBuf,
    /// The packages of systemd, unpacked. None: the machine has none.
    pub(crate) system: Option<PathBuf>,
}

impl Needs {
    /// Finds what a tier needs, or says what is missing and what gives it.
    pub(crate) fn find(tier: Tier) -> Result<Self, String> {
        let cache = cache();
        let kernel = std::env::var_os("RUNLANE_VM_KERNEL").filter(|value| !value.is_empty());
        let qemu = on_path("qemu-system-x86_64");
        let busybox = Some(cache.join("busybox"));
        let kernel = Some(kernel.map_or_else(|| cache.join("vmlinuz"), PathBuf::from));
        let system = cache.join("systemd");
        let mut missing = Vec::new();
        let mut take = |what: &str, package: &str, path: Option<PathBuf>| {
            let path = path.filter(|path| path.is_file());
            if path.is_none() {
                missing.push(format!("{what} ({package})"));
            }
            path.unwrap_or_default()
        };
        let needs = Self {
            qemu: take("qemu-system-x86_64", "package qemu-system-x86", qemu),
            busybox: take("busybox", "package busybox-static", busybox),
            kernel: take("a kernel", "package linux-image-cloud-amd64", kernel),
            system: (tier == Tier::Systemd).then_some(system),
        };
        if needs.system.as_ref().is_some_and(|system| !system.is_dir()) {
            missing.push("systemd (package systemd and what it depends on)".to_owned());
        }
        if cfg!(not(target_arch = "x86_64")) {
            missing.push("an x86-64 machine, as the guest's programs are this one's".to_owned());
        }
        if missing.is_empty() {
            return Ok(needs);
        }
        let missing = missing.join(", ");
        Err(format!("{missing}; `tests/vm/fetch.sh --systemd`, run as root, gets all of it"))
    }
}

/// Where `fetch.sh` puts things.
pub(crate) fn cache() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).join("vm")
}

/// Whether a tier has to run.
pub(crate) fn demanded(tier: Tier) -> bool {
    let tiers = std::env::var("RUNLANE_TIERS").unwrap_or_default();
    tiers.split(',').any(|demanded| demanded.trim() == tier.number())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
