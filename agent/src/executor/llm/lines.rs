//! Lines out of a response that comes in chunks, wherever the chunks are cut.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use reqwest::Response;

use super::server::ServerError;

/// Longest line: 4 MiB. A token takes some hundred bytes; the last line of an answer may list every token of the context, at
/// some seven bytes each. A longer line is nonsense.
pub(super) const LINE_BYTES_MAX: usize = 4 << 20;

/// The lines of one response.
#[derive(Debug)]
pub(super) struct Lines {
    response: Response,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no line end.
    searched: usize,
}

impl Lines {
    pub(super) fn of(response: Response) -> Self {
        Self { response, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line that is not empty, without its end; `None` after the last. Waits `patience` for each chunk. Safe to
    /// cancel: what has come so far stays in the buffer.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, ServerError> {
        loop {
            while let Some(line) = self.take() {
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(line));
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(ServerError::Nonsense(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            let chunk = match tokio::time::timeout(patience, self.response.chunk()).await {
                Ok(chunk) => chunk.map_err(ServerError::broken)?,
                Err(_) => return Err(ServerError::Silent(patience)),
            };
            match chunk {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                // The last line may lack its end. If it was cut off, it cannot be read.
                None => {
                    self.searched = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }
}
