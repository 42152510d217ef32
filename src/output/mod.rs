//! A task's output on its way from the pipes to whoever stores or shows it.
//!
//! ```text
//! stdout ─┐                ┌─ lines (worker's log)
//!         ├─ pump ─ chunk ─┤
//! stderr ─┘                └─ bounded channel of chunks (NATS publisher ─ compress, terminal, test)
//! ```

pub mod chunk;
pub mod compress;
pub mod lines;
pub mod pipe;
pub mod pump;

pub use chunk::{Chunk, Chunker, ChunkerSettings, Omitted, StreamTally};
pub use compress::{Compressor, DecompressError, decompress};
pub use lines::LineLog;
pub use pipe::PipeEnd;
pub use pump::{PumpSettings, PumpTotals, PumpedStream, pump};
