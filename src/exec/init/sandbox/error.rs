//! Why a step failed.

use std::error::Error;
use std::io;

use nix::errno::Errno;

/// Why a step failed; the caller adds the step's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::exec::init) struct StepError {
    /// The system's error number.
    pub(in crate::exec::init) errno: Errno,
    /// Which path or name it was about and why, for a person; empty where the number says it all.
    pub(in crate::exec::init) message: String,
}

impl StepError {
    pub(super) fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    /// Takes the number out of a library's error, from whichever of its sources is the system's.
    pub(super) fn of(error: &(dyn Error + 'static), otherwise: Errno) -> Self {
        let mut next = Some(error);
        while let Some(source) = next {
            if let Some(number) = source.downcast_ref().and_then(io::Error::raw_os_error) {
                return Self::new(Errno::from_raw(number), error.to_string());
            }
            next = source.source();
        }
        Self::new(otherwise, error.to_string())
    }

    /// Puts what it was about in front of the reason.
    pub(super) fn about(self, subject: impl std::fmt::Display) -> Self {
        let reason = match self.message.as_str() {
            "" => self.errno.desc().to_lowercase(),
            message => message.to_owned(),
        };
        Self { message: format!("{subject}: {reason}"), ..self }
    }
}

impl From<Errno> for StepError {
    fn from(errno: Errno) -> Self {
        Self::new(errno, "")
    }
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw(number).into(),
            None => Self::new(Errno::UnknownErrno, error.to_string()),
        }
    }
}
