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

/// A chunk as it was published: its bytes may be compressed still.
#[derive(Debug, Clone)]
pub struct PublishedChunk {
    /// The attempt that wrote it.
    pub attempt: Attempt,
    /// The stream it belongs to.
    pub stream: Stream,
    /// Its number in the attempt, over both streams.
    pub seq: u64,
    /// The place of its first byte in its stream.
    pub offset: u64,
    /// How many of the program's bytes it holds, as it says.
    pub len: u64,
    form: Form,
    payload: Bytes,
}

/// What a payload is.
#[derive(Debug, Clone)]
enum Form {
    Plain,
    Lz4,
    /// A newer version's.
    Unknown(String),
}

/// Why the bytes of a chunk can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// It was compressed by a newer version.
    #[error("its compression {0:?} is not known to this version")]
    Compression(String),
    /// It isn't what it says.
    #[error(transparent)]
    Block(#[from] DecompressError),
}

impl PublishedChunk {
    /// Reads what the headers say. `None`: they aren't those of a chunk, so no worker wrote it.
    pub fn read(
        subjects: &Subjects,
        subject: &str,
        headers: &Headers,
        payload: Bytes,
    ) -> Option<Self> {
        let (_, stream) = subjects.parse_output(subject)?;
        let attempt = Attempt(u32::try_from(headers.number(HEADER_ATTEMPT)?).ok()?);
        let (seq, offset) = (headers.number(HEADER_SEQ)?, headers.number(HEADER_OFFSET)?);
        let form = match headers.get(HEADER_COMPRESSION) {
            None => Form::Plain,
            Some(name) => match Compression::from_name(name) {
                Some(Compression::None) => Form::Plain,
                Some(Compression::Lz4) => Form::Lz4,
                None => Form::Unknown(name.to_owned()),
            },
        };
        let len = match form {
            Form::Plain => payload.len() as u64,
            Form::Lz4 | Form::Unknown(_) => headers.number(HEADER_LENGTH)?,
        };
        Some(Self { attempt, stream, seq, offset, len, form, payload })
    }

    /// Returns the bytes as the program wrote them.
    ///
    /// # Errors
    /// This version can't read them.
    pub fn data(&self) -> Result<Bytes, ChunkError> {
        match &self.form {
            Form::Plain => Ok(self.payload.clone()),
            Form::Lz4 => {
                let length = usize::try_from(self.len).unwrap_or(usize::MAX);
                Ok(decompress(&self.payload, length)?)
            }
            Form::Unknown(name) => Err(ChunkError::Compression(name.clone())),
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

    fn read(headers: &Headers, payload: Bytes) -> Option<PublishedChunk> {
        PublishedChunk::read(&Subjects::default(), SUBJECT, headers, payload)
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written_compressed_or_not() {
        for (data, compressed) in [(vec![1, 2, 3], false), (vec![9; LEAST_BYTES], true)] {
            let message = message(data.clone());
            assert_eq!(message.headers.get(HEADER_COMPRESSION).is_some(), compressed);
            assert_eq!(message.payload.len() < data.len(), compressed);
            assert_eq!((message.stream, message.len), (Stream::Stderr, data.len()));
            let chunk = read(&message.headers, message.payload).expect("a chunk");
            assert_eq!((chunk.attempt, chunk.seq, chunk.offset), (Attempt(2), 7, 70));
            assert_eq!((chunk.stream, chunk.len), (Stream::Stderr, data.len() as u64));
            assert!(chunk.data().expect("readable") == data);
        }
    }

    #[test]
    fn what_can_not_be_read_has_its_place_all_the_same() {
        let plain = message(vec![1, 2, 3]);
        assert!(read(&Headers::default(), plain.payload.clone()).is_none(), "no headers");
        let with = |compression: &str, length: &str| {
            let headers = plain.headers.clone();
            let headers = headers.with(HEADER_COMPRESSION, compression).with(HEADER_LENGTH, length);
            read(&headers, plain.payload.clone())
        };
        assert!(with("lz4", "three").is_none(), "no place");
        for compression in ["zstd", "lz4"] {
            let chunk = with(compression, "3").expect("a chunk");
            assert_eq!((chunk.offset, chunk.len), (70, 3));
            chunk.data().expect_err("not readable");
        }
        // A writer that says what goes without saying.
        let chunk = with("none", "8").expect("a chunk");
        assert_eq!((chunk.len, chunk.data().expect("readable")), (3, vec![1, 2, 3].into()));
    }
}
