//! Bulk output → LZ4 blocks where that pays, and back. Pure.
//!
//! ```text
//!   chunk of 64 KiB or more ─► tried ─► a third or less ─► the block
//!                                └────► more ────────────► the bytes as they are;
//!                                                          the next 1, 2, 4 … 64 are not tried
//! ```
//!
//! What is written slowly makes small chunks, and those stay as the program wrote them. So do bytes that
//! don't shrink much: the time of a try would be lost with each, and what is saved at the server would be
//! spent here.

use std::cell::RefCell;

use bytes::Bytes;
use lz4_flex::block;

use crate::wire::Compression;

/// Bytes of the smallest chunk that is tried.
pub const LEAST_BYTES: usize = 64 * 1024;
/// A block is used if it is smaller than its bytes by this factor, at least.
pub const LEAST_FACTOR: usize = 3;
/// The most chunks that are passed over after one that didn't shrink enough.
const LONGEST_PAUSE: u32 = 64;
/// The most bytes that a reader takes one block for, which may have been made by anybody. A worker's chunks have
/// 256 KiB.
pub const MOST_BYTES: usize = 1024 * 1024;

thread_local! {
    /// Where blocks are made: the room for the worst case, which is more than the chunk. Kept by each thread
    /// that has compressed, because the system takes longer to give so much than a block takes to be made.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Compresses one attempt's chunks, or doesn't.
#[derive(Debug)]
pub struct Compressor {
    compression: Compression,
    /// How many are passed over after the next one that doesn't shrink enough.
    pause: u32,
    /// How many are passed over now.
    passing: u32,
}

impl Compressor {
    /// Starts with the first chunk of an attempt.
    pub fn new(compression: Compression) -> Self {
        Self { compression, pause: 1, passing: 0 }
    }

    /// Returns what to store in place of a chunk's bytes; `None`: the bytes as they are.
    pub fn compress(&mut self, data: &[u8]) -> Option<Bytes> {
        match self.compression {
            Compression::None => return None,
            Compression::Lz4 => {}
        }
        if data.len() < LEAST_BYTES {
            return None;
        }
        if self.passing > 0 {
            self.passing -= 1;
            return None;
        }
        let block = smaller(data);
        self.pause = match block {
            Some(_) => 1,
            None => {
                self.passing = self.pause;
                (self.pause * 2).min(LONGEST_PAUSE)
            }
        };
        block
    }
}

/// Makes a block that is small enough to be used.
fn smaller(data: &[u8]) -> Option<Bytes> {
    SCRATCH.with_borrow_mut(|scratch| {
        let room = block::get_maximum_output_size(data.len());
        if scratch.len() < room {
            scratch.resize(room, 0);
        }
        let size = block::compress_into(data, scratch).expect("there is room for the worst case");
        (size <= data.len() / LEAST_FACTOR).then(|| Bytes::copy_from_slice(&scratch[..size]))
    })
}

/// Why a compressed chunk can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// It says that it holds more than [`MOST_BYTES`].
    #[error("it says that it holds {0} bytes; a reader takes up to {MOST_BYTES}")]
    TooLong(usize),
    /// It isn't what it says.
    #[error("it is not an LZ4 block")]
    NoBlock(#[from] block::DecompressError),
    /// It holds another number of bytes than it says.
    #[error("it holds {found} bytes, and not {told} as it says")]
    Length {
        /// What it says.
        told: usize,
        /// What was found.
        found: usize,
    },
}

/// Returns the `length` bytes that a block was made of.
///
/// # Errors
/// It is no block of so many bytes.
pub fn decompress(block: &[u8], length: usize) -> Result<Bytes, DecompressError> {
    if length > MOST_BYTES {
        return Err(DecompressError::TooLong(length));
    }
    let mut data = vec![0; length];
    let found = block::decompress_into(block, &mut data)?;
    if found != length {
        return Err(DecompressError::Length { told: length, found });
    }
    Ok(data.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..bytes).map(next).collect()
    }

    #[test]
    fn bulk_that_shrinks_is_stored_in_a_third_or_less_and_comes_back_whole() {
        let mut compressor = Compressor::new(Compression::Lz4);
        let log = b"2026-01-01T00:00:00Z INFO request served status=200 path=/index.html\n";
        for data in [vec![0; 256 * 1024], log.iter().copied().cycle().take(LEAST_BYTES).collect()] {
            let block = compressor.compress(&data).expect("it shrinks");
            assert!(block.len() * LEAST_FACTOR <= data.len());
            assert!(decompress(&block, data.len()).expect("a block") == data);
        }
    }

    #[test]
    fn what_shrinks_to_more_than_a_third_stays_as_it_is() {
        let lines = (1_000_000_000_u64..).flat_map(|n| format!("{n}\n").into_bytes());
        let data: Vec<u8> = lines.take(256 * 1024).collect();
        assert!(block::compress(&data).len() < data.len() / 2, "it would shrink");
        assert!(Compressor::new(Compression::Lz4).compress(&data).is_none());
    }

    #[test]
    fn small_chunks_and_those_of_tasks_that_did_not_ask_stay_as_they_are() {
        let zeros = vec![0; LEAST_BYTES];
        assert!(Compressor::new(Compression::None).compress(&zeros).is_none());
        assert!(Compressor::new(Compression::Lz4).compress(&zeros[1..]).is_none());
        assert!(Compressor::new(Compression::Lz4).compress(&zeros).is_some());
    }

    #[test]
    fn after_bytes_that_do_not_shrink_fewer_and_fewer_are_tried_until_one_does() {
        let (random, zeros) = (random(LEAST_BYTES), vec![0; LEAST_BYTES]);
        let mut compressor = Compressor::new(Compression::Lz4);
        // Passed over are those that would have shrunk.
        let passed_over = |compressor: &mut Compressor| {
            assert!(compressor.compress(&random).is_none());
            let tried = (0..=LONGEST_PAUSE).find(|_| {
                compressor.passing == 0 || {
                    assert!(compressor.compress(&zeros).is_none());
                    false
                }
            });
            tried.expect("some are tried")
        };
        let pauses: Vec<u32> = (0..8).map(|_| passed_over(&mut compressor)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64]);
        assert!(compressor.compress(&zeros).is_some() && compressor.compress(&zeros).is_some());
        assert_eq!(passed_over(&mut compressor), 1);
    }

    #[test]
    fn what_is_no_block_of_that_length_is_an_error() {
        let data = vec![7; LEAST_BYTES];
        let block = Compressor::new(Compression::Lz4).compress(&data).expect("it shrinks");
        let wrong = |block: &[u8], length| decompress(block, length).expect_err("wrong");
        assert!(matches!(wrong(&block, data.len() - 1), DecompressError::NoBlock(_)));
        let longer = wrong(&block, data.len() + 1).to_string();
        assert_eq!(longer, "it holds 65536 bytes, and not 65537 as it says");
        assert!(matches!(
            wrong(&block[..block.len() - 1], data.len()),
            DecompressError::NoBlock(_)
        ));
        assert!(matches!(wrong(&[], data.len()), DecompressError::NoBlock(_)));
        assert!(matches!(wrong(&block, MOST_BYTES + 1), DecompressError::TooLong(_)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(block in proptest::collection::vec(any::<u8>(), 0..2000), length in 0_usize..100_000) {
            drop(decompress(&block, length));
        }

        #[test]
        fn whatever_is_compressed_comes_back(
            part in proptest::collection::vec(any::<u8>(), 1..300), bytes in LEAST_BYTES..3 * LEAST_BYTES,
        ) {
            let data: Vec<u8> = part.iter().copied().cycle().take(bytes).collect();
            if let Some(block) = Compressor::new(Compression::Lz4).compress(&data) {
                prop_assert!(decompress(&block, bytes).expect("a block") == data);
            }
        }
    }
}
