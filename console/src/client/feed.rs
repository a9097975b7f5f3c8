//! A job's standard input: sent in pieces, kept until the orchestrator has it on disk, so that a new connection
//! goes on where the old one broke.

use std::collections::VecDeque;

use bytes::Bytes;
use modchain_wire::console::{InputDone, InputOpen, InputPiece, JobRef, RefusalCode};
use modchain_wire::{CHUNK_BYTES_MAX, Data, FromConsole, ToConsole};
use tokio::sync::mpsc;

use super::{Client, link};
use crate::exit::Failure;

/// Bytes that may be on their way: sent, and not yet on the orchestrator's disk. Then reading waits.
const UNSTORED_BYTES_MAX: usize = 4 << 20;

/// What the input gave so far, as far as it may still be needed.
pub(crate) struct Feed {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    /// Not yet stored, in order.
    unstored: VecDeque<Bytes>,
    unstored_bytes: usize,
    /// Where `unstored` begins in the whole input.
    begin: u64,
    /// Whether the input is at its end.
    ended: bool,
    /// Whether it goes on behind whatever the orchestrator has already, and does not begin anew with it.
    goes_on: bool,
}

/// How the sending came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// All of it, so many bytes, is on the orchestrator's disk.
    Stored(u64),
    /// The job has ended, or its input has: nobody reads more of it.
    Unwanted(Failure),
}

impl Feed {
    /// What this channel gives, to its end.
    pub(crate) fn new(pieces: mpsc::Receiver<std::io::Result<Bytes>>) -> Self {
        Self { pieces, unstored: VecDeque::new(), unstored_bytes: 0, begin: 0, ended: false, goes_on: false }
    }

    /// The same for who has not the input from its beginning, as a person who types more of it.
    pub(crate) fn going_on(pieces: mpsc::Receiver<std::io::Result<Bytes>>) -> Self {
        Self { goes_on: true, ..Self::new(pieces) }
    }

    #[cfg(test)]
    fn of(pieces: &[&'static [u8]]) -> Self {
        let (sender, receiver) = mpsc::channel(pieces.len().max(1));
        for piece in pieces {
            sender.try_send(Ok(Bytes::from_static(piece))).expect("there is room");
        }
        Self::new(receiver)
    }

    /// Sends the input over this connection until all of it is stored, or the job wants no more. `stored_now` hears how many
    /// bytes are on the orchestrator's disk.
    pub(crate) async fn pump(
        &mut self,
        client: &Client,
        job: JobRef,
        stored_now: impl Fn(u64),
    ) -> Result<Pumped, Failure> {
        let mut replies = client.open(InputOpen { job }).await?;
        let (writer, reader) = replies.split();
        // What the orchestrator has: the bytes before it are not kept, whether this process has read them yet or not.
        let mut stored = match link::next(reader).await? {
            Some(ToConsole::InputReady(ready)) if ready.done => return Ok(Pumped::Stored(ready.offset)),
            Some(ToConsole::InputReady(ready)) => ready.offset,
            // The job has ended: nobody reads the input any more.
            Some(ToConsole::Refusal(refusal)) if refusal.code == RefusalCode::Conflict => {
                return Ok(Pumped::Unwanted(refusal.into()));
            }
            other => return Err(link::unexpected(other.as_ref())),
        };
        self.begin_at(stored);
        let mut sent = stored;
        let mut done_sent = false;
        loop {
            self.stored(stored)?;
            stored_now(stored);
            for (offset, data) in self.from(sent) {
                sent = offset + data.len() as u64;
                let data = Data::new(data).expect("a piece is no longer than a chunk");
                let piece = FromConsole::from(InputPiece { offset, data });
                writer.queue(&piece).map_err(|error| Failure::failed(error.to_string()))?;
            }
            if self.ended && !done_sent && sent >= self.end() {
                done_sent = true;
                writer.queue(&InputDone { offset: sent }.into()).map_err(|error| Failure::failed(error.to_string()))?;
            }
            let room = self.unstored_bytes < UNSTORED_BYTES_MAX && !self.ended;
            tokio::select! {
                reply = link::next(reader) => match reply? {
                    Some(ToConsole::InputStored(now)) if now.done => return Ok(Pumped::Stored(now.offset)),
                    Some(ToConsole::InputStored(now)) => stored = now.offset,
                    Some(ToConsole::Refusal(refusal)) if refusal.code == RefusalCode::Conflict => {
                        return Ok(Pumped::Unwanted(refusal.into()));
                    }
                    other => return Err(link::unexpected(other.as_ref())),
                },
                flushed = async {
                    writer.flush().await.map_err(|error| Failure::lost(error.to_string()))?;
                    // All is sent: wait for more to send.
                    let piece = if room { self.pieces.recv().await } else { std::future::pending().await };
                    Ok::<_, Failure>(piece)
                } => self.read(flushed?)?,
            }
        }
    }

    /// The orchestrator has so much: where this begins, if that is not known yet.
    fn begin_at(&mut self, stored: u64) {
        if std::mem::take(&mut self.goes_on) {
            self.begin = stored;
        }
    }

    fn read(&mut self, piece: Option<std::io::Result<Bytes>>) -> Result<(), Failure> {
        match piece {
            Some(Ok(mut bytes)) => {
                self.unstored_bytes += bytes.len();
                while !bytes.is_empty() {
                    self.unstored.push_back(bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX)));
                }
            }
            Some(Err(error)) => return Err(Failure::failed(format!("cannot read standard input: {error}"))),
            None => self.ended = true,
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.begin + self.unstored_bytes as u64
    }

    /// What is there from `offset` on. An earlier process may have stored more than this one has read yet: those bytes are
    /// read and not sent.
    fn from(&self, offset: u64) -> Vec<(u64, Bytes)> {
        let mut position = self.begin;
        let mut pieces = Vec::new();
        for piece in &self.unstored {
            let end = position + piece.len() as u64;
            if end > offset {
                let skip = usize::try_from(offset.saturating_sub(position)).expect("less than a piece");
                pieces.push((position + skip as u64, piece.slice(skip..)));
            }
            position = end;
        }
        pieces
    }

    /// Forgets what is on the orchestrator's disk.
    fn stored(&mut self, offset: u64) -> Result<(), Failure> {
        if offset < self.begin {
            return Err(Failure::failed("the orchestrator lost a part of the input that it had stored"));
        }
        while let Some(first) = self.unstored.front_mut() {
            let end = self.begin + first.len() as u64;
            if end > offset {
                let count = usize::try_from(offset - self.begin).expect("less than a piece");
                drop(first.split_to(count));
                self.unstored_bytes -= count;
                self.begin = offset;
                break;
            }
            self.begin = end;
            self.unstored_bytes -= first.len();
            self.unstored.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(feed: &mut Feed) {
        while let Ok(piece) = feed.pieces.try_recv() {
            feed.read(Some(piece)).expect("reads");
        }
    }

    #[test]
    fn what_is_not_stored_is_kept_and_sent_again_from_any_offset() {
        let mut feed = Feed::of(&[b"abc", b"defg"]);
        read_all(&mut feed);
        assert_eq!(feed.from(0), [(0, Bytes::from("abc")), (3, Bytes::from("defg"))]);
        assert_eq!(feed.from(4), [(4, Bytes::from("efg"))]);
        feed.stored(4).expect("forgets");
        assert_eq!((feed.begin, feed.unstored_bytes, feed.end()), (4, 3, 7));
        assert_eq!(feed.from(4), [(4, Bytes::from("efg"))]);
        feed.stored(7).expect("forgets");
        assert!(feed.from(7).is_empty() && feed.unstored.is_empty());
        assert!(feed.stored(3).is_err(), "what was stored is not here any more");
    }

    #[test]
    fn what_is_typed_later_goes_on_behind_what_is_there() {
        let mut feed = Feed { goes_on: true, ..Feed::of(&[b"world"]) };
        feed.begin_at(6);
        read_all(&mut feed);
        assert_eq!(feed.from(6), [(6, Bytes::from("world"))]);
        // The next connection, before any of it was stored and after some was.
        feed.begin_at(6);
        assert_eq!((feed.begin, feed.end()), (6, 11));
        feed.begin_at(9);
        feed.stored(9).expect("forgets");
        assert_eq!(feed.from(9), [(9, Bytes::from("ld"))]);
    }

    #[test]
    fn a_piece_of_any_length_is_sent_in_chunks() {
        let mut feed = Feed::of(&[]);
        feed.read(Some(Ok(vec![b'x'; 2 * CHUNK_BYTES_MAX + 1].into()))).expect("reads");
        let lengths: Vec<usize> = feed.from(0).iter().map(|(_, piece)| piece.len()).collect();
        assert_eq!(lengths, [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 1]);
    }

    #[test]
    fn what_an_earlier_process_stored_is_skipped() {
        let mut feed = Feed::of(&[b"abc"]);
        feed.stored(5).expect("nothing to forget yet");
        assert_eq!(feed.begin, 0, "the input is counted from its beginning");
        read_all(&mut feed);
        assert!(feed.from(5).is_empty());
    }
}
