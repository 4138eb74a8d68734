//! Chunks that come from the store, handed to a thread that reads them by blocking calls.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Chunks on their way to the thread: it never falls further behind, and memory stays bounded.
const AHEAD: usize = 4;

/// Both ends. The reader is at its end once the sender is dropped.
pub(super) fn channel() -> (mpsc::Sender<Bytes>, Chunks) {
    let (feed, chunks) = mpsc::channel(AHEAD);
    (feed, Chunks { chunks, at: Bytes::new() })
}

/// What the channel brings.
pub(super) struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    at: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.at = chunk,
                None => return Ok(0),
            }
        }
        let n = self.at.len().min(buffer.len());
        self.at.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
