//! The server versions that runlane works with.

use std::fmt;
use std::str::FromStr;

/// The oldest server that runlane works with: older ones ignore features that the protocol relies on,
/// without an error.
pub const OLDEST: ServerVersion = ServerVersion { major: 2, minor: 14, patch: 0 };

/// A nats-server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

/// A text that is not a server version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a version such as 2.14.0")]
pub struct InvalidVersion;

impl FromStr for ServerVersion {
    type Err = InvalidVersion;

    /// Reads `2.14.5`, `v2.15.0-RC.1` and the like; what follows the patch number is ignored.
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let core = text.trim().trim_start_matches('v');
        let core = core.split(['-', '+']).next().unwrap_or_default();
        let numbers: Vec<u32> = core
            .split('.')
            .map(|number| number.parse().map_err(|_| InvalidVersion))
            .collect::<Result<_, _>>()?;
        match numbers[..] {
            [major, minor, patch] => Ok(Self { major, minor, patch }),
            _ => Err(InvalidVersion),
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let version = |text: &str| text.parse::<ServerVersion>();
        assert_eq!(version("v2.15.1").map(|v| v.to_string()), Ok("2.15.1".to_owned()));
        assert_eq!(version("2.14.0-RC.3"), Ok(OLDEST));
        assert!(version("2.9.25").expect("valid") < OLDEST);
        assert!(version("2.100.0").expect("valid") > OLDEST);
        assert!(version("2.14").is_err() && version("").is_err() && version("dev").is_err());
    }
}
