//! The output of one attempt, on disk from the moment it was read until the orchestrator has it.
//!
//! One file holds both streams in the order in which the agent saw them, as records:
//!
//! ```text
//! u32 crc32c of the rest | u32 bytes of data | u8 stream (1 out, 2 err) | i64 wall time, ms | data      (little endian)
//! ```
//!
//! There is one [`SpoolWriter`], and any number of [`SpoolReader`]s that each begin at the offsets that the orchestrator
//! names. Readers see whole records only, and are woken through a [`watch`] channel, so a slow reader holds nobody up.
//!
//! An append survives the death of the agent at once. A power loss it need not survive before the end, because an attempt that
//! lived through a power loss does not exist. At the end ([`SpoolWriter::finish`]) a long file is synced, and a short one is
//! handed to whoever makes the result durable, so that one sync is enough for both. Without output there is no file at all, and
//! its folder is made with it.
//! What a crash tore is cut off by [`Spool::recover`].

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use modchain_types::{OutputLengths, WallTime};
use modchain_wire::CHUNK_BYTES_MAX;
use modchain_wire::agent::OutputStream;
use tokio::sync::watch;

use crate::files;

/// Bytes of a file that is handed over at its end instead of being synced, at most.
pub const SHORT_BYTES_MAX: usize = 4096;

/// Bytes before the data of a record.
const HEADER_BYTES: usize = 4 + 4 + 1 + 8;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// `Out` or `Err`.
    pub stream: OutputStream,
    /// Bytes of this stream before it.
    pub offset: u64,
    /// When the agent read it.
    pub at: WallTime,
    /// 1 to [`CHUNK_BYTES_MAX`] bytes: a record fits one chunk on the wire.
    pub data: Bytes,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolState {
    /// Bytes of output.
    pub lengths: OutputLengths,
    /// Whether nothing more will come.
    pub ended: bool,
    /// Bytes of the file up to the end of its last whole record.
    file_bytes: u64,
}

/// Where an attempt's output can be read from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spool {
    path: Arc<Path>,
    state: watch::Receiver<SpoolState>,
}

impl Spool {
    /// The spool that an earlier run of the agent left at `path`: cuts off a torn end, counts the rest, and makes it durable,
    /// because it is promised from now on. A file that is not there counts as empty. `dropped` comes from the attempt's
    /// result, where there is one.
    pub fn recover(path: &Path, dropped: u64) -> io::Result<Self> {
        let mut state = SpoolState { ended: true, ..SpoolState::default() };
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => {
                let mut scan = BufReader::new(file);
                while let Some(header) = Header::read_whole_record(&mut scan)? {
                    *header.length_mut(&mut state.lengths) += u64::from(header.data_bytes);
                    state.file_bytes += HEADER_BYTES as u64 + u64::from(header.data_bytes);
                }
                let file = scan.into_inner();
                if file.metadata()?.len() != state.file_bytes {
                    file.set_len(state.file_bytes)?;
                }
                sync(&file, path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        state.lengths.dropped = dropped;
        let (_, receiver) = watch::channel(state);
        Ok(Self { path: path.into(), state: receiver })
    }

    /// The same once its writer is gone without an end: ended, and durable. As [`Spool::recover`].
    pub fn without_writer(&self) -> io::Result<Self> {
        Self::recover(&self.path, self.state().lengths.dropped)
    }

    /// How much there is now.
    pub fn state(&self) -> SpoolState {
        *self.state.borrow()
    }

    /// Waits until there is more than `seen`, or returns at once if there is already; `false` when nothing will ever come,
    /// because the spool has ended or its writer is gone.
    pub async fn changed(&mut self, seen: SpoolState) -> bool {
        self.state.wait_for(|state| *state != seen).await.is_ok()
    }

    /// Reads from these offsets on.
    pub fn reader(&self, stdout: u64, stderr: u64) -> SpoolReader {
        SpoolReader {
            spool: self.clone(),
            file: None,
            position: 0,
            seen: OutputLengths::default(),
            from: (stdout, stderr),
        }
    }
}

/// Appends to a spool. Its methods wait for the disk: call them where that is allowed.
#[derive(Debug)]
pub struct SpoolWriter {
    path: Arc<Path>,
    /// From the first output on.
    file: Option<File>,
    /// All of the file, as long as it is short.
    short: Option<Vec<u8>>,
    bytes_max: u64,
    state: SpoolState,
    published: watch::Sender<SpoolState>,
}

/// How a spool ended.
#[derive(Debug)]
pub struct Finished {
    /// How much there is.
    pub lengths: OutputLengths,
    /// Its file, if that is short and in no way durable; empty when it survives a power loss already.
    pub short: io::Result<Vec<u8>>,
}

impl SpoolWriter {
    /// A new spool that keeps at most `bytes_max` bytes of both streams together. Nothing is on disk before the first output.
    pub fn create(path: &Path, bytes_max: u64) -> (Self, Spool) {
        let (published, receiver) = watch::channel(SpoolState::default());
        let path: Arc<Path> = path.into();
        let spool = Spool { path: path.clone(), state: receiver };
        let state = SpoolState::default();
        (Self { path, file: None, short: Some(Vec::new()), bytes_max, state, published }, spool)
    }

    /// Goes on with the spool that an earlier run of the agent left at `path`. What was dropped over the limit is not known any
    /// more: whoever wrote it has to give it again.
    pub fn reopen(path: &Path, bytes_max: u64) -> io::Result<(Self, Spool)> {
        let state = SpoolState { ended: false, ..Spool::recover(path, 0)?.state() };
        let file = match state.file_bytes {
            0 => None,
            bytes => {
                let mut file = OpenOptions::new().write(true).open(path)?;
                file.seek(SeekFrom::Start(bytes))?;
                Some(file)
            }
        };
        let (published, receiver) = watch::channel(state);
        let path: Arc<Path> = path.into();
        let spool = Spool { path: path.clone(), state: receiver };
        Ok((Self { path, file, short: None, bytes_max, state, published }, spool))
    }

    /// Whether all of it is short, so that [`SpoolWriter::finish`] does not wait for the disk.
    pub fn is_short(&self) -> bool {
        self.short.is_some()
    }

    /// Whether nothing more is kept.
    pub fn is_full(&self) -> bool {
        self.state.lengths.stdout + self.state.lengths.stderr >= self.bytes_max
    }

    /// Appends pieces in their order. Neighbours of one stream are joined, up to what one record may hold; what is over the
    /// limit is counted and dropped. When it fails nothing of this call is kept.
    pub fn append(&mut self, at: WallTime, pieces: &[(OutputStream, Bytes)]) -> io::Result<()> {
        let mut state = self.state;
        let mut buffer = Vec::new();
        let mut open: Option<(OutputStream, Vec<u8>)> = None;
        for (stream, bytes) in pieces {
            let room = self.bytes_max.saturating_sub(state.lengths.stdout + state.lengths.stderr);
            let kept = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            state.lengths.dropped += (bytes.len() - kept) as u64;
            *length_of(*stream, &mut state.lengths) += kept as u64;
            let mut rest = &bytes[..kept];
            while !rest.is_empty() {
                let joins = open.as_ref().is_some_and(|(s, data)| s == stream && data.len() < CHUNK_BYTES_MAX);
                if !joins {
                    if let Some((stream, data)) = open.take() {
                        write_record(&mut buffer, stream, at, &data);
                    }
                    open = Some((*stream, Vec::new()));
                }
                let data = &mut open.as_mut().expect("opened above").1;
                let (now, later) = rest.split_at(rest.len().min(CHUNK_BYTES_MAX - data.len()));
                data.extend_from_slice(now);
                rest = later;
            }
        }
        if let Some((stream, data)) = open {
            write_record(&mut buffer, stream, at, &data);
        }
        if !buffer.is_empty() {
            self.write(&buffer)?;
        }
        state.file_bytes += buffer.len() as u64;
        self.state = state;
        self.published.send_replace(state);
        Ok(())
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    files::make_private_dir(folder)?;
                }
                self.file.insert(files::create_private(&self.path)?)
            }
        };
        if let Err(error) = file.write_all(buffer) {
            // What was half written would be in the way of the next record.
            file.set_len(self.state.file_bytes)?;
            file.seek(SeekFrom::Start(self.state.file_bytes))?;
            return Err(error);
        }
        match &mut self.short {
            Some(short) if short.len() + buffer.len() <= SHORT_BYTES_MAX => short.extend_from_slice(buffer),
            short => *short = None,
        }
        Ok(())
    }

    /// Ends the spool. What was appended survives a power loss when this returns, unless it is short: then it does once
    /// [`Finished::short`] does. Readers learn of the end in any case.
    pub fn finish(mut self) -> Finished {
        let short = match (&self.file, self.short.take()) {
            (_, Some(short)) => Ok(short),
            (Some(file), None) => sync(file, &self.path).map(|()| Vec::new()),
            (None, None) => Ok(Vec::new()),
        };
        self.state.ended = true;
        self.published.send_replace(self.state);
        Finished { lengths: self.state.lengths, short }
    }
}

/// Makes a file durable together with its name and that of its folder.
fn sync(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    path.ancestors().skip(1).take(2).try_for_each(files::sync_dir)
}

/// Reads a spool while it grows. [`SpoolReader::read`] waits for the disk, never for output.
#[derive(Debug)]
pub struct SpoolReader {
    spool: Spool,
    file: Option<BufReader<File>>,
    /// Bytes of the file that were read or skipped.
    position: u64,
    /// Bytes of each stream before `position`.
    seen: OutputLengths,
    /// Where to begin: stdout, stderr.
    from: (u64, u64),
}

impl SpoolReader {
    /// The next records, at least `bytes` of data together if there is so much; empty when all there is was read. A record in
    /// which the offset asked for lies is given from there on.
    pub fn read(&mut self, bytes: usize) -> io::Result<Vec<OutputRecord>> {
        let end = self.spool.state().file_bytes;
        let mut records = Vec::new();
        let mut got = 0;
        while self.position < end && got < bytes {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(BufReader::with_capacity(CHUNK_BYTES_MAX, File::open(&self.spool.path)?)),
            };
            let Some(header) = Header::read(file)? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the spool is shorter than was written"));
            };
            let offset = *header.length_mut(&mut self.seen);
            let from = match header.stream {
                OutputStream::Out => self.from.0,
                OutputStream::Err | OutputStream::Note => self.from.1,
            };
            let length = u64::from(header.data_bytes);
            if offset + length <= from {
                file.seek_relative(i64::from(header.data_bytes))?;
            } else {
                let mut data = vec![0; header.data_bytes as usize];
                file.read_exact(&mut data)?;
                header.check(&data)?;
                let skip = from.saturating_sub(offset);
                let data = Bytes::from(data).slice(usize::try_from(skip).unwrap_or(usize::MAX)..);
                got += data.len();
                records.push(OutputRecord { stream: header.stream, offset: offset + skip, at: header.at, data });
            }
            *header.length_mut(&mut self.seen) += length;
            self.position += HEADER_BYTES as u64 + length;
        }
        Ok(records)
    }
}

/// What stands before the data.
#[derive(Debug)]
struct Header {
    crc: u32,
    checked: [u8; HEADER_BYTES - 4],
    data_bytes: u32,
    stream: OutputStream,
    at: WallTime,
}

impl Header {
    /// `None` at the end of the file and where no header can be.
    fn read(file: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEADER_BYTES];
        match file.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (crc, checked) = bytes.split_first_chunk::<4>().expect("a header has more than 4 bytes");
        let (length, rest) = checked.split_first_chunk::<4>().expect("a header has 17 bytes");
        let (tag, at) = rest.split_first_chunk::<1>().expect("a header has 17 bytes");
        let data_bytes = u32::from_le_bytes(*length);
        let stream = match tag {
            [1] => OutputStream::Out,
            [2] => OutputStream::Err,
            _ => return Ok(None),
        };
        if data_bytes == 0 || data_bytes as usize > CHUNK_BYTES_MAX {
            return Ok(None);
        }
        Ok(Some(Self {
            crc: u32::from_le_bytes(*crc),
            checked: checked.try_into().expect("the rest of a header"),
            data_bytes,
            stream,
            at: WallTime(i64::from_le_bytes(at.try_into().expect("8 bytes are left"))),
        }))
    }

    /// `None` as well when the record is not whole: the end of the file was torn.
    fn read_whole_record(file: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(header) = Self::read(file)? else { return Ok(None) };
        let mut data = vec![0; header.data_bytes as usize];
        match file.read_exact(&mut data) {
            Ok(()) => Ok(header.check(&data).is_ok().then_some(header)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check(&self, data: &[u8]) -> io::Result<()> {
        if crc32c::crc32c_append(crc32c::crc32c(&self.checked), data) == self.crc {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a record of the spool is damaged"))
        }
    }

    fn length_mut<'a>(&self, lengths: &'a mut OutputLengths) -> &'a mut u64 {
        length_of(self.stream, lengths)
    }
}

fn length_of(stream: OutputStream, lengths: &mut OutputLengths) -> &mut u64 {
    match stream {
        OutputStream::Out => &mut lengths.stdout,
        // A job has no notes of its own; remarks are shown on standard error.
        OutputStream::Err | OutputStream::Note => &mut lengths.stderr,
    }
}

fn write_record(buffer: &mut Vec<u8>, stream: OutputStream, at: WallTime, data: &[u8]) {
    let mut checked = [0; HEADER_BYTES - 4];
    checked[..4].copy_from_slice(&u32::try_from(data.len()).expect("a record is below 64 KiB").to_le_bytes());
    checked[4] = match stream {
        OutputStream::Out => 1,
        OutputStream::Err | OutputStream::Note => 2,
    };
    checked[5..].copy_from_slice(&at.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&checked), data);
    buffer.extend_from_slice(&crc.to_le_bytes());
    buffer.extend_from_slice(&checked);
    buffer.extend_from_slice(data);
}

/// The file of a spool, in its attempt's folder.
pub fn spool_file(folder: &Path) -> PathBuf {
    folder.join("output")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn out(text: &str) -> (OutputStream, Bytes) {
        (OutputStream::Out, Bytes::copy_from_slice(text.as_bytes()))
    }

    fn err(text: &str) -> (OutputStream, Bytes) {
        (OutputStream::Err, Bytes::copy_from_slice(text.as_bytes()))
    }

    fn all(spool: &Spool, stdout: u64, stderr: u64) -> Vec<(OutputStream, u64, String)> {
        let mut reader = spool.reader(stdout, stderr);
        let mut got = Vec::new();
        loop {
            let records = reader.read(1).expect("reads");
            if records.is_empty() {
                return got;
            }
            let text = |data: &Bytes| String::from_utf8(data.to_vec()).expect("text");
            got.extend(records.iter().map(|record| (record.stream, record.offset, text(&record.data))));
        }
    }

    #[test]
    fn streams_keep_their_common_order_and_neighbours_are_joined() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut writer, spool) = SpoolWriter::create(&spool_file(dir.path()), 1000);
        writer.append(WallTime(5), &[out("a"), out("b"), err("E"), out("c")]).expect("appends");
        writer.append(WallTime(6), &[out("d")]).expect("appends");
        let expected = [
            (OutputStream::Out, 0, "ab".to_owned()),
            (OutputStream::Err, 0, "E".to_owned()),
            (OutputStream::Out, 2, "c".to_owned()),
            (OutputStream::Out, 3, "d".to_owned()),
        ];
        assert_eq!(all(&spool, 0, 0), expected);
        assert_eq!(spool.reader(0, 0).read(1000).expect("reads").last().map(|record| record.at), Some(WallTime(6)));
        // From the middle of a record, and with one stream fully there.
        assert_eq!(
            all(&spool, 1, 1),
            [
                (OutputStream::Out, 1, "b".to_owned()),
                (OutputStream::Out, 2, "c".to_owned()),
                (OutputStream::Out, 3, "d".to_owned()),
            ]
        );
        assert_eq!(all(&spool, 4, 1), []);
    }

    #[test]
    fn output_over_the_limit_is_counted_and_dropped() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut writer, spool) = SpoolWriter::create(&spool_file(dir.path()), 5);
        writer.append(WallTime(0), &[out("abc"), err("def"), out("g")]).expect("appends");
        writer.append(WallTime(0), &[out("h")]).expect("appends");
        assert_eq!(
            all(&spool, 0, 0),
            [(OutputStream::Out, 0, "abc".to_owned()), (OutputStream::Err, 0, "de".to_owned())]
        );
        let Finished { lengths, short } = writer.finish();
        short.expect("ends");
        assert_eq!(lengths, OutputLengths { stdout: 3, stderr: 2, dropped: 3 });
        assert!(spool.state().ended);
    }

    #[test]
    fn a_piece_larger_than_a_chunk_becomes_several_records() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut writer, spool) = SpoolWriter::create(&spool_file(dir.path()), u64::MAX);
        let big = Bytes::from(vec![7; 3 * CHUNK_BYTES_MAX + 1]);
        writer.append(WallTime(0), &[(OutputStream::Out, big.clone())]).expect("appends");
        let records = spool.reader(0, 0).read(usize::MAX).expect("reads");
        assert_eq!(
            records.iter().map(|record| record.data.len()).collect::<Vec<_>>(),
            [CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 1]
        );
        assert_eq!(records.iter().flat_map(|record| record.data.to_vec()).collect::<Vec<_>>(), big.to_vec());
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_was_torn() {
        let dir = tempfile::tempdir().expect("dir");
        let path = spool_file(dir.path());
        let (mut writer, _spool) = SpoolWriter::create(&path, 1000);
        writer.append(WallTime(1), &[out("first"), err("second")]).expect("appends");
        let whole = fs::metadata(&path).expect("there").len();
        writer.append(WallTime(2), &[out("third")]).expect("appends");
        let bytes = fs::read(&path).expect("reads");
        for length in whole..bytes.len() as u64 {
            fs::write(&path, &bytes[..length as usize]).expect("writes");
            let spool = Spool::recover(&path, 4).expect("recovers");
            assert_eq!(spool.state().lengths, OutputLengths { stdout: 5, stderr: 6, dropped: 4 }, "torn at {length}");
            assert_eq!(fs::metadata(&path).expect("there").len(), whole);
            assert_eq!(all(&spool, 0, 0).len(), 2);
        }
        // Damage instead of a missing end: zeros where data should be.
        let mut zeroed = bytes.clone();
        zeroed[whole as usize + HEADER_BYTES..].fill(0);
        fs::write(&path, &zeroed).expect("writes");
        assert_eq!(Spool::recover(&path, 0).expect("recovers").state().lengths.stdout, 5);
        // And nothing is lost where nothing was torn.
        fs::write(&path, &bytes).expect("writes");
        assert_eq!(Spool::recover(&path, 0).expect("recovers").state().lengths.stdout, 10);
    }

    #[test]
    fn a_spool_that_is_reopened_goes_on_behind_its_last_whole_record_and_keeps_its_limit() {
        let dir = tempfile::tempdir().expect("dir");
        let path = spool_file(dir.path());
        let (mut writer, _) = SpoolWriter::create(&path, 8);
        writer.append(WallTime(1), &[out("abc"), err("E")]).expect("appends");
        drop(writer);
        fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"torn")).expect("writes");
        let (mut writer, spool) = SpoolWriter::reopen(&path, 8).expect("reopens");
        assert!(!spool.state().ended);
        writer.append(WallTime(2), &[out("defghi")]).expect("appends");
        let expected = [
            (OutputStream::Out, 0, "abc".to_owned()),
            (OutputStream::Err, 0, "E".to_owned()),
            (OutputStream::Out, 3, "defg".to_owned()),
        ];
        assert_eq!(all(&spool, 0, 0), expected);
        let Finished { lengths, short } = writer.finish();
        short.expect("ends");
        assert_eq!(lengths, OutputLengths { stdout: 7, stderr: 1, dropped: 2 });
    }

    #[test]
    fn a_short_file_is_handed_over_at_its_end_and_without_output_there_is_none() {
        let dir = tempfile::tempdir().expect("dir");
        let path = spool_file(dir.path());
        let (mut writer, _) = SpoolWriter::create(&path, 0);
        writer.append(WallTime(1), &[out("over the limit")]).expect("appends");
        assert_eq!(writer.finish().short.expect("ends"), b"");
        assert!(!path.exists());
        let most = SHORT_BYTES_MAX - HEADER_BYTES;
        for (bytes, is_short) in [(1, true), (most, true), (most + 1, false)] {
            let (mut writer, _) = SpoolWriter::create(&path, 1 << 20);
            writer.append(WallTime(1), &[out(&"x".repeat(bytes))]).expect("appends");
            let expected = if is_short { fs::read(&path).expect("reads") } else { Vec::new() };
            assert_eq!(writer.finish().short.expect("ends"), expected, "{bytes}");
        }
    }

    #[test]
    fn what_a_writer_left_that_is_gone_is_cut_and_ended() {
        let dir = tempfile::tempdir().expect("dir");
        let path = spool_file(dir.path());
        let (mut writer, spool) = SpoolWriter::create(&path, 8);
        writer.append(WallTime(1), &[out("abc"), err("Error and more")]).expect("appends");
        drop(writer);
        fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"torn")).expect("writes");
        assert!(!spool.state().ended);
        let left = spool.without_writer().expect("recovers");
        assert!(left.state().ended);
        assert_eq!(left.state().lengths, OutputLengths { stdout: 3, stderr: 5, dropped: 9 });
        assert_eq!(all(&left, 0, 0).len(), 2);
        assert_eq!(fs::metadata(&path).expect("there").len(), left.state().file_bytes);
    }

    #[test]
    fn a_missing_file_recovers_as_empty() {
        let dir = tempfile::tempdir().expect("dir");
        let spool = Spool::recover(&spool_file(dir.path()), 0).expect("recovers");
        assert_eq!(spool.state().lengths, OutputLengths::default());
        assert_eq!(all(&spool, 0, 0), []);
    }

    #[tokio::test]
    async fn readers_are_woken_by_output_and_by_the_end() {
        let dir = tempfile::tempdir().expect("dir");
        let (mut writer, spool) = SpoolWriter::create(&spool_file(dir.path()), 1000);
        let mut waiting = spool.clone();
        let start = spool.state();
        let woken = tokio::spawn(async move { (waiting.changed(start).await, waiting) });
        writer.append(WallTime(0), &[out("x")]).expect("appends");
        let (more, mut waiting) = woken.await.expect("joins");
        assert!(more);
        let seen = waiting.state();
        writer.finish().short.expect("ends");
        assert!(waiting.changed(seen).await);
        let seen = waiting.state();
        assert!(seen.ended);
        assert!(!waiting.changed(seen).await);
    }
}
