//! How pieces of output are shown: as the exact bytes, as lines with times and streams before them, or as documents.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use modchain_types::{JobId, WallTime};
use modchain_wire::agent::OutputStream;
use modchain_wire::console::LogChunk;

use super::docs;
use super::output::{Output, To};
use super::yaml;
use crate::exit::Failure;
use crate::shell::Shell;

/// A line is shown in parts when it is longer: a program that never ends its line must not fill this one's memory.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// What is shown of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Everything.
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// The bytes as they are, to the same streams.
    Bytes,
    /// Lines with something before them.
    Lines {
        /// The time.
        timestamps: bool,
        /// The stream; all goes to standard output then.
        prefix: bool,
    },
    /// One `modchain.log/v1` a line.
    Documents,
    /// The same as the items of one document, from its beginning on: commas between them. Whoever has no item has no beginning
    /// either, see [`LogPrinter::has_begun`].
    Items,
    /// Not at all.
    Nothing,
}

/// Shows output.
pub(crate) struct LogPrinter {
    job: JobId,
    output: Option<Output>,
    streams: Streams,
    style: Style,
    /// Documents shown so far.
    documents: u64,
    /// Whether readers of YAML read them.
    yaml: bool,
    /// Only this many lines at first, until [`LogPrinter::release`]; the newest are kept.
    tail: Option<(usize, VecDeque<Line>)>,
    /// Whether a person sees both streams on one screen, where a line without an end would run into the next one.
    one_screen: bool,
    /// Whether the last byte that was shown ended its line.
    at_line_start: bool,
    /// Lines that have begun, per attempt and stream.
    begun: BTreeMap<(u32, OutputStream), Line>,
}

/// A line, or a part of one.
#[derive(Debug, Clone)]
struct Line {
    attempt: u32,
    stream: OutputStream,
    offset: u64,
    at: WallTime,
    data: BytesMut,
}

impl LogPrinter {
    /// Starts to show output in this style.
    pub(crate) fn start(
        shell: &Shell,
        job: JobId,
        streams: Streams,
        style: Style,
        raw: bool,
        tail: Option<usize>,
    ) -> Self {
        let output = match style {
            Style::Nothing => None,
            Style::Documents | Style::Items => Some(Output::start(shell, true)),
            Style::Bytes | Style::Lines { .. } => Some(Output::start(shell, raw)),
        };
        Self {
            job,
            output,
            streams,
            style,
            documents: 0,
            yaml: shell.is_yaml(),
            one_screen: style == Style::Bytes && shell.stdout_tty() && shell.stderr_tty(),
            at_line_start: true,
            tail: tail.map(|lines| (lines, VecDeque::new())),
            begun: BTreeMap::new(),
        }
    }

    /// Shows a piece, or keeps it until its line is whole.
    pub(crate) async fn chunk(&mut self, chunk: LogChunk) -> Result<(), Failure> {
        let wanted = match self.streams {
            Streams::All => true,
            Streams::Stdout => chunk.stream == OutputStream::Out,
            Streams::Stderr => chunk.stream != OutputStream::Out,
        };
        if !wanted || self.style == Style::Nothing {
            return Ok(());
        }
        self.give_up_older(chunk.cursor.attempt).await?;
        if self.style == Style::Bytes && self.tail.is_none() {
            return self.bytes(chunk.stream, chunk.data.into_bytes()).await;
        }
        for line in self.lines(chunk) {
            self.line(line).await?;
        }
        Ok(())
    }

    /// Shows the lines that older attempts have begun: nobody ends them any more.
    async fn give_up_older(&mut self, attempt: u32) -> Result<(), Failure> {
        let newer = self.begun.split_off(&(attempt, OutputStream::Out));
        for line in std::mem::replace(&mut self.begun, newer).into_values() {
            self.line(line).await?;
        }
        Ok(())
    }

    /// The lines that this piece ends.
    fn lines(&mut self, chunk: LogChunk) -> Vec<Line> {
        let (attempt, stream, at) = (chunk.cursor.attempt, chunk.stream, chunk.at);
        let mut offset = chunk.offset;
        let data = chunk.data.into_bytes();
        let mut lines = Vec::new();
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let empty = || Line { attempt, stream, offset, at, data: BytesMut::new() };
            let line = self.begun.entry((attempt, stream)).or_insert_with(empty);
            line.data.extend_from_slice(part);
            offset += part.len() as u64;
            if part.ends_with(b"\n") || line.data.len() >= LINE_BYTES_MAX {
                lines.extend(self.begun.remove(&(attempt, stream)));
            }
        }
        lines
    }

    async fn line(&mut self, line: Line) -> Result<(), Failure> {
        if let Some((most, kept)) = &mut self.tail {
            kept.push_back(line);
            if kept.len() > *most {
                kept.pop_front();
            }
            return Ok(());
        }
        self.show(line).await
    }

    /// Shows the lines that were kept for `--tail`, and from now on everything.
    pub(crate) async fn release(&mut self) -> Result<(), Failure> {
        let Some((most, mut kept)) = self.tail.take() else { return Ok(()) };
        // A line without an end is a line too.
        kept.extend(std::mem::take(&mut self.begun).into_values());
        for line in kept.split_off(kept.len().saturating_sub(most)) {
            self.show(line).await?;
        }
        Ok(())
    }

    async fn show(&mut self, line: Line) -> Result<(), Failure> {
        match self.style {
            Style::Bytes => self.bytes(line.stream, line.data.freeze()).await,
            Style::Nothing => Ok(()),
            Style::Documents | Style::Items => {
                let Line { attempt, stream, offset, at, data } = line;
                let document = docs::log(&self.job, attempt, offset, at, stream.word(), &data);
                self.document(&document).await
            }
            Style::Lines { timestamps, prefix } => {
                let mut text = BytesMut::new();
                if timestamps {
                    text.extend_from_slice(crate::text::rfc3339(line.at).as_bytes());
                    text.extend_from_slice(b" ");
                }
                if prefix {
                    text.extend_from_slice(line.stream.word().as_bytes());
                    text.extend_from_slice(b" | ");
                }
                text.extend_from_slice(&line.data);
                if !text.ends_with(b"\n") {
                    text.extend_from_slice(b"\n");
                }
                let to = if prefix { To::Stdout } else { to(line.stream) };
                self.write(to, text.freeze()).await
            }
        }
    }

    async fn bytes(&mut self, stream: OutputStream, mut data: Bytes) -> Result<(), Failure> {
        if stream == OutputStream::Note {
            // A line of its own, also where it follows half a line of the job.
            let before: &[u8] = if self.one_screen && !self.at_line_start { b"\n" } else { b"" };
            let after: &[u8] = if data.ends_with(b"\n") { b"" } else { b"\n" };
            data = [before, &data, after].concat().into();
        }
        self.at_line_start = data.last().map_or(self.at_line_start, |last| *last == b'\n');
        self.write(to(stream), data).await
    }

    async fn write(&mut self, to: To, bytes: Bytes) -> Result<(), Failure> {
        match &mut self.output {
            Some(output) => output.write(to, bytes).await,
            None => Ok(()),
        }
    }

    async fn document(&mut self, document: &impl serde::Serialize) -> Result<(), Failure> {
        let items = self.style == Style::Items;
        let text = if items && self.yaml { yaml::item(document) } else { serde_json::to_string(document) };
        let mut text = text.map_err(|error| Failure::failed(format!("cannot make a document: {error}")))?;
        if !items {
            text.push('\n');
        } else if self.documents == 0 {
            text.insert_str(0, &docs::logs_begin(&self.job, self.yaml));
        } else if !self.yaml {
            text.insert(0, ',');
        }
        self.documents += 1;
        self.write(To::Stdout, text.into()).await
    }

    /// Whether an item was shown.
    pub(crate) fn has_begun(&self) -> bool {
        self.documents > 0
    }

    /// Shows what was kept back and waits until everything is written.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        self.release().await?;
        for line in std::mem::take(&mut self.begun).into_values() {
            self.show(line).await?;
        }
        if self.one_screen && !self.at_line_start {
            // Not on standard output: its bytes are the job's.
            self.write(To::Stderr, Bytes::from_static(b"\n")).await?;
        }
        match self.output.take() {
            Some(output) => output.finish().await,
            None => Ok(()),
        }
    }
}

fn to(stream: OutputStream) -> To {
    match stream {
        OutputStream::Out => To::Stdout,
        OutputStream::Err | OutputStream::Note => To::Stderr,
    }
}
