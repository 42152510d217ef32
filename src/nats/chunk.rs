//! An output chunk as a message: what the publisher makes of it, and how a follower reads it.

use bytes::Bytes;

use super::message::Headers;
use crate::output::{Chunk, Compressor, DecompressError, decompress};
use crate::wire::output::{
    HEADER_ATTEMPT, HEADER_COMPRESSION, HEADER_LENGTH, HEADER_OFFSET, HEADER_SEQ,
};
use crate::wire::{Attempt, Compression, Stream, Subjects};

/// A chunk as it is published.
pub(super) struct ChunkMessage {
    pub(super) stream: Stream,
    /// The program's bytes in it.
    pub(super) len: usize,
    pub(super) headers: Headers,
    pub(super) payload: Bytes,
}

impl ChunkMessage {
    pub(super) fn new(attempt: Attempt, chunk: Chunk, compressor: &mut Compressor) -> Self {
        let Chunk { stream, seq, offset, data } = chunk;
        let headers = Headers::default()
            .with(HEADER_ATTEMPT, attempt)
            .with(HEADER_SEQ, seq)
            .with(HEADER_OFFSET, offset);
        let len = data.len();
        match compressor.compress(&data) {
            Some(payload) => {
                let headers =
                    headers.with(HEADER_COMPRESSION, Compression::Lz4).with(HEADER_LENGTH, len);
                Self { stream, len, headers, payload }
            }
            None => Self { stream, len, headers, payload: data },
        }
    }
}

/// Reads a chunk and what its headers say. `None`: it has none of them, and so is no worker's; or the bytes
/// can't be had, which the log is told.
pub fn read_chunk(
    subjects: &Subjects,
    subject: &str,
    headers: &Headers,
    payload: Bytes,
) -> Option<(Attempt, Chunk)> {
    let (_, stream) = subjects.parse_output(subject)?;
    let attempt = Attempt(u32::try_from(headers.number(HEADER_ATTEMPT)?).ok()?);
    let seq = headers.number(HEADER_SEQ)?;
    let offset = headers.number(HEADER_OFFSET)?;
    let data = plain(headers, payload)
        .inspect_err(|error| tracing::warn!(subject, seq, %error, "cannot read a chunk of output"))
        .ok()?;
    Some((attempt, Chunk { stream, seq, offset, data }))
}

/// Why the bytes of a chunk can't be had.
#[derive(Debug, thiserror::Error)]
enum ChunkError {
    #[error("its compression {0:?} is not known to this version")]
    Compression(String),
    #[error("it has no valid header {HEADER_LENGTH}")]
    NoLength,
    #[error(transparent)]
    Block(#[from] DecompressError),
}

/// The bytes as the program wrote them.
fn plain(headers: &Headers, payload: Bytes) -> Result<Bytes, ChunkError> {
    let Some(name) = headers.get(HEADER_COMPRESSION) else { return Ok(payload) };
    match Compression::from_name(name) {
        None => Err(ChunkError::Compression(name.to_owned())),
        Some(Compression::None) => Ok(payload),
        Some(Compression::Lz4) => {
            let length = headers.number(HEADER_LENGTH).and_then(|length| length.try_into().ok());
            Ok(decompress(&payload, length.ok_or(ChunkError::NoLength)?)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::compress::LEAST_BYTES;

    const SUBJECT: &str = "runlane.output.t.stderr";

    fn message(data: Vec<u8>) -> ChunkMessage {
        let chunk = Chunk { stream: Stream::Stderr, seq: 7, offset: 70, data: data.into() };
        ChunkMessage::new(Attempt(2), chunk, &mut Compressor::new(Compression::Lz4))
    }

    fn read(headers: &Headers, payload: Bytes) -> Option<(Attempt, Chunk)> {
        read_chunk(&Subjects::default(), SUBJECT, headers, payload)
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written_compressed_or_not() {
        for (data, compressed) in [(vec![1, 2, 3], false), (vec![9; LEAST_BYTES], true)] {
            let message = message(data.clone());
            assert_eq!(message.headers.get(HEADER_COMPRESSION).is_some(), compressed);
            assert_eq!(message.payload.len() < data.len(), compressed);
            assert_eq!((message.stream, message.len), (Stream::Stderr, data.len()));
            let (attempt, chunk) = read(&message.headers, message.payload).expect("a chunk");
            assert_eq!((attempt, chunk.seq, chunk.offset), (Attempt(2), 7, 70));
            assert!(chunk.stream == Stream::Stderr && chunk.data == data);
        }
    }

    #[test]
    fn what_can_not_be_read_is_no_chunk() {
        let plain = message(vec![1, 2, 3]);
        assert!(read(&Headers::default(), plain.payload.clone()).is_none(), "no headers");
        for (compression, length) in [("zstd", "3"), ("lz4", "three"), ("lz4", "3")] {
            let headers = plain.headers.clone();
            let headers = headers.with(HEADER_COMPRESSION, compression).with(HEADER_LENGTH, length);
            assert!(read(&headers, plain.payload.clone()).is_none(), "{compression} {length}");
        }
        // A writer that says what goes without saying.
        let headers = plain.headers.clone().with(HEADER_COMPRESSION, "none");
        assert_eq!(read(&headers, plain.payload).expect("a chunk").1.data, vec![1, 2, 3]);
    }
}
