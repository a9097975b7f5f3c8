//! The standard input of this program as the input of a job.

use std::io::Read;

use bytes::Bytes;
use modchain_wire::CHUNK_BYTES_MAX;
use tokio::sync::mpsc;

pub(crate) use crate::client::feed::Feed;

/// Pieces read ahead of the sending.
const PIECES_AHEAD: usize = 2;

impl Feed {
    /// Starts to read standard input, on a thread of its own: a read cannot be given up, and ends with the process.
    pub(crate) fn start() -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut buffer = vec![0; CHUNK_BYTES_MAX];
            loop {
                let piece = match stdin.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        });
        Self::new(pieces)
    }
}
