//! What a host may lack for isolation, by the names that configurations and outcomes have.

use std::fmt;

/// Something that a host may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// A cgroup of its own, for the kill, usage and the cause of an OOM kill.
    Cgroup,
    /// The cgroup's cpu controller.
    CgroupCpu,
    /// The cgroup's io controller.
    CgroupIo,
    /// The cgroup's memory controller.
    CgroupMemory,
    /// The cgroup's pids controller.
    CgroupPids,
    /// Switching the user.
    Identity,
    /// A Landlock domain (Linux 5.19).
    Landlock,
    /// Landlock's scopes of signals and abstract unix sockets (Linux 6.12).
    LandlockScope,
    /// New namespaces other than those below.
    Namespaces,
    /// A network namespace.
    NetworkNamespace,
    /// A process id namespace.
    PidNamespace,
    /// A mount namespace.
    MountNamespace,
    /// System call filters.
    Seccomp,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 13] = [
        Self::Cgroup,
        Self::CgroupCpu,
        Self::CgroupIo,
        Self::CgroupMemory,
        Self::CgroupPids,
        Self::Identity,
        Self::Landlock,
        Self::LandlockScope,
        Self::Namespaces,
        Self::NetworkNamespace,
        Self::PidNamespace,
        Self::MountNamespace,
        Self::Seccomp,
    ];

    /// Those of a cgroup.
    pub const CGROUP: [Self; 5] =
        [Self::Cgroup, Self::CgroupCpu, Self::CgroupIo, Self::CgroupMemory, Self::CgroupPids];

    /// The name as in the configuration, in outcomes and in the presence record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::CgroupCpu => "cgroup.cpu",
            Self::CgroupIo => "cgroup.io",
            Self::CgroupMemory => "cgroup.memory",
            Self::CgroupPids => "cgroup.pids",
            Self::Identity => "identity",
            Self::Landlock => "landlock",
            Self::LandlockScope => "landlock.scope",
            Self::Namespaces => "namespaces",
            Self::NetworkNamespace => "namespaces.network",
            Self::PidNamespace => "namespaces.pid",
            Self::MountNamespace => "namespaces.mount",
            Self::Seccomp => "seccomp",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
