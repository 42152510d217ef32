//! Output chunks: the payload is the program's raw bytes, or a compressed form of them, and these headers
//! say what they are.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Header: the attempt that wrote the chunk.
pub const HEADER_ATTEMPT: &str = "Runlane-Attempt";
/// Header: the chunk's number in its attempt, over both streams, from 0 in the order read.
pub const HEADER_SEQ: &str = "Runlane-Seq";
/// Header: the place of the chunk's first byte in its stream and attempt, from 0.
pub const HEADER_OFFSET: &str = "Runlane-Offset";
/// Header: how the payload is compressed, see [`Compression`]. Absent: it is not.
pub const HEADER_COMPRESSION: &str = "Runlane-Compression";
/// Header of a compressed chunk: how many of the program's bytes it holds.
pub const HEADER_LENGTH: &str = "Runlane-Length";

/// Whether large chunks that shrink much are stored compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Compression {
    /// Every payload is the bytes as the program wrote them.
    #[default]
    None,
    /// Such a payload is an LZ4 block, without a frame around it.
    Lz4,
}

impl Compression {
    /// Each name on the wire, and what it stands for.
    pub const NAMES: &[(&str, Self)] = &[("none", Self::None), ("lz4", Self::Lz4)];

    /// Reads a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, compression)| *compression)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        })
    }
}

/// One of a task's two output streams.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The last token of the stream's subject.
    pub fn token(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Reads the last token of an output subject.
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.token() == token)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.token())
    }
}

/// What one stream of one attempt amounts to. A reader that has `stored_bytes` bytes of the attempt
/// has everything that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamTotals {
    /// Bytes that the program wrote (and that were read).
    pub bytes: u64,
    /// Bytes that are stored; less than `bytes` if `truncated`, or if not `complete`.
    pub stored_bytes: u64,
    /// Chunks that are stored.
    pub chunks: u64,
    /// The output passed the task's cap: a middle part is missing, the head and the tail are kept.
    #[serde(default)]
    pub truncated: bool,
    /// Offset of the first byte left out by the cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_offset: Option<u64>,
    /// Number of bytes left out by the cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_bytes: Option<u64>,
    /// Every byte that was to be kept is stored. `false` if a chunk could not be stored, or if
    /// something still held the pipe open after the task was ended.
    pub complete: bool,
}
