//! The standard input of this program as the input of a job.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use bytes::Bytes;
use modchain_types::Limits;
use modchain_wire::CHUNK_BYTES_MAX;
use tokio::sync::mpsc;

pub(crate) use crate::client::feed::Feed;
use crate::exit::Failure;
use crate::text;

/// Pieces read ahead of the sending.
const PIECES_AHEAD: usize = 2;

/// Refuses a file on standard input that no job may be given whole, before anything is submitted. How much comes through a
/// pipe nobody knows.
pub(crate) fn check_size() -> Result<(), Failure> {
    // What cannot be looked at may still be read.
    let Ok(owned) = std::io::stdin().as_fd().try_clone_to_owned() else { return Ok(()) };
    fits(&File::from(owned))
}

fn fits(file: &File) -> Result<(), Failure> {
    let Some(bytes) = file.metadata().ok().filter(|data| data.is_file()).map(|data| data.len()) else { return Ok(()) };
    let mut file = file;
    let left = bytes.saturating_sub(file.stream_position().unwrap_or(0));
    if left <= Limits::INPUT_BYTES_MAX {
        return Ok(());
    }
    let (has, most) = (text::bytes(left), text::bytes(Limits::INPUT_BYTES_MAX));
    Err(Failure::usage(format!("standard input has {has}, and a job may be given {most}"))
        .hint("send less of it, or put it into the image or the module"))
}

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

#[cfg(test)]
mod tests {
    use std::io::SeekFrom;

    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_refused_by_what_is_left_of_it_and_a_pipe_is_not_judged() {
        let mut file = tempfile::tempfile().expect("a file");
        file.set_len(Limits::INPUT_BYTES_MAX + 1).expect("it is sparse");
        let refused = fits(&file).expect_err("one byte too many");
        assert!(refused.message.contains("64 MiB") && refused.exit == 2, "{refused}");
        file.seek(SeekFrom::Start(1)).expect("seeks");
        fits(&file).expect("the first byte was read by somebody else");
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        fits(&File::from(std::os::fd::OwnedFd::from(reader))).expect("nobody knows");
    }
}
