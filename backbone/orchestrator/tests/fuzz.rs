//! What this program reads from its disk against mutants and bombs: records, segments, whole journals, the settings' file.
//! How to run it for longer: `README.md` of `modchain-fuzz`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use modchain_core::Event;
use modchain_fuzz::{Counting, Fuzz, read_bombs, read_folder, signature, spend};
use modchain_orchestrator::config::FileSettings;
use modchain_orchestrator::store::journal::segment::{self, HEADER_BYTES, Hash, Record, SegmentHeader};
use modchain_orchestrator::store::journal::{Journal, WalkError, walk};
use modchain_orchestrator::store::record::{self, RECORD_VERSION};
use modchain_types::Asset;
use support::{JOURNAL, TestDisk, journal_with};

#[global_allocator]
static MEMORY: Counting = Counting;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The kind of a complaint, without its numbers and without what stands between back quotes, which came from the input.
fn kind(complaint: &str) -> String {
    let said = complaint.split('`').step_by(2).flat_map(str::chars);
    said.filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(60).collect()
}

/// Numbers of the first event, how many events, payload.
fn record_input(first: u64, count: u32, payload: &[u8]) -> Vec<u8> {
    [&first.to_le_bytes()[..], &count.to_le_bytes(), payload].concat()
}

fn split_record_input(input: &[u8]) -> Option<(u64, u32, &[u8])> {
    let (first, rest) = input.split_first_chunk()?;
    let (count, payload) = rest.split_first_chunk()?;
    Some((u64::from_le_bytes(*first), u32::from_le_bytes(*count), payload))
}

/// The golden payloads, one of every kind of event, as inputs.
fn golden_records() -> Vec<Vec<u8>> {
    let golden = read_folder(&tests().join("golden")).into_iter().filter(|(name, _)| name != "segment.bin");
    golden.map(|(_, payload)| record_input(100, 1, &payload)).collect()
}

/// A directory in memory where there is one: the targets write thousands of small files, and none of them needs to last.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("directory")
}

/// Memory that the events of a payload may take: what a length may claim in a small record, the megabyte that serde takes at
/// most for a list that claims more, and the bytes that are there, many times over because events are far larger than their
/// encoding.
fn record_memory(input: &[u8]) -> usize {
    8 * (64 << 10) + (1 << 20) + 1024 * input.len()
}

#[test]
fn records() {
    let fuzz = Fuzz::target("record").corpus(tests().join("corpus/record"));
    fuzz.seed_inputs(golden_records()).memory(|input| 3 * record_memory(input)).run(|input| {
        let Some((first, count, payload)) = split_record_input(input) else { return 0 };
        let (decoded, spent) = spend(|| record::decode(RECORD_VERSION, first, count, payload));
        assert!(spent.peak_bytes <= record_memory(input), "{} bytes for {}", spent.peak_bytes, input.len());
        match decoded {
            Ok(events) => {
                assert_eq!(events.len(), count as usize);
                let again = record::encode(&events).expect("what was read can be written");
                assert!(again.len() <= payload.len());
                assert!(record::decode(RECORD_VERSION, first, count, &again) == Ok(events), "it reads back otherwise");
                signature(&(count, payload.len().checked_ilog2()))
            }
            Err(error) => signature(&(payload.first(), kind(&error.to_string()))),
        }
    });
}

#[test]
fn headers_and_records_of_segments() {
    let golden = fs::read(tests().join("golden/segment.bin")).expect("golden");
    let record = golden[HEADER_BYTES..].to_vec();
    let twice = [&record[1..], &record].concat();
    Fuzz::target("segment").seed_inputs([golden, record, twice]).run(|input| {
        let header = SegmentHeader::decode(input);
        if let Ok(header) = &header {
            assert_eq!(header.encode()[..], input[..HEADER_BYTES], "a header has one form");
        }
        let parsed = Record::parse(JOURNAL, input);
        if let Ok(record) = &parsed {
            assert!(record.bytes <= input.len() && record.payload.len() < record.bytes);
        }
        if let Some(at) = segment::find_record(JOURNAL, input) {
            assert!(at > 0 && Record::parse(JOURNAL, &input[at..]).is_ok());
        }
        let said = (header.err().map(|error| kind(&error)), parsed.err().map(|error| kind(&error)));
        signature(&(said, input.len().checked_ilog2()))
    });
}

/// The segments of a journal as one input: each with its length before it.
fn journal_input(segments: &[Vec<u8>]) -> Vec<u8> {
    segments.iter().flat_map(|bytes| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()).collect()
}

fn split_journal_input(mut input: &[u8]) -> Vec<&[u8]> {
    let mut segments = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk() {
        let length = (u32::from_le_bytes(*length) as usize).min(rest.len());
        segments.push(&rest[..length]);
        input = &rest[length..];
        if segments.len() == 4 {
            break;
        }
    }
    segments
}

struct Original {
    events: Vec<Event>,
    /// Number of the first event and bytes of each segment.
    segments: Vec<(u64, Vec<u8>)>,
}

impl Original {
    fn new(batches: &[usize], segment_bytes_max: u64) -> Self {
        let dir = scratch();
        let events = journal_with(dir.path(), batches, segment_bytes_max).concat();
        let segments = read_folder(dir.path()).into_iter().map(|(name, bytes)| {
            (name.strip_suffix(".seg").and_then(|digits| digits.parse().ok()).expect("a segment"), bytes)
        });
        Self { events, segments: segments.collect() }
    }

    fn input(&self) -> Vec<u8> {
        journal_input(&self.segments.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>())
    }
}

/// Whatever is done to a journal's bytes: an error, or the beginning of what was written, and all of it unless the end is
/// said to be torn.
#[test]
fn journals() {
    let originals = [Original::new(&[1, 2, 1, 3], 1 << 20), Original::new(&[2, 1, 2], 400)];
    assert!(originals[1].segments.len() > 1, "it was meant to rotate");
    let dir = scratch();
    let fuzz = Fuzz::target("journal").seed_inputs(originals.iter().map(Original::input)).executions(3_000);
    fuzz.memory(|_| 4 << 20).run(|input| {
        let names: Vec<u64> = originals
            .iter()
            .max_by_key(|one| one.segments.len())
            .expect("two")
            .segments
            .iter()
            .map(|(n, _)| *n)
            .collect();
        fs::remove_dir_all(dir.path()).expect("empties");
        fs::create_dir(dir.path()).expect("makes");
        let segments = split_journal_input(input);
        for (segment, name) in segments.iter().zip(&names) {
            fs::write(dir.path().join(format!("{name:020}.seg")), segment).expect("writes");
        }
        let mut seen = Vec::new();
        let walked = walk(dir.path(), |batch| seen.extend(batch));
        let original = originals.iter().find(|original| original.events.starts_with(&seen));
        let original = original.expect("every event that is read was written");
        match walked {
            Ok(walked) => {
                assert_eq!(walked.last_number, seen.len() as u64);
                if walked.torn.is_none() {
                    let whole = originals.iter().any(|original| {
                        segments
                            .iter()
                            .zip(&names)
                            .zip(&original.segments)
                            .all(|((bytes, _), (_, written))| written.starts_with(bytes))
                    });
                    assert!(whole, "bytes that nobody wrote went unnoticed");
                }
                let mut replayed = Vec::new();
                let journal = Journal::open_with(
                    dir.path(),
                    |batch| replayed.extend(batch),
                    Box::new(TestDisk::default()),
                    1 << 20,
                );
                let journal = journal.expect("what can be walked can be opened");
                assert!(replayed == seen && journal.reader().read_after(0, 1000).expect("reads") == seen);
                signature(&(walked.batches, walked.torn.map(|torn| kind(&torn.what)), segments.len()))
            }
            Err(WalkError::Damaged(damage)) => {
                signature(&(kind(&damage.what), damage.number, original.events.len(), segments.len()))
            }
            Err(WalkError::Missing { .. }) => 1,
            Err(error) => panic!("{error}"),
        }
    });
}

/// A journal of one record whose checksums are right, as one who can write to the disk would make it.
fn forged(first: u64, count: u32, version: u16, payload: &[u8]) -> Vec<u8> {
    let header = SegmentHeader { journal: JOURNAL, asset: Asset::Test, first: 1, previous: [0; 32] };
    let previous: Hash = header.hash();
    let (frame, _) = segment::frame(JOURNAL, first, count, version, payload, &previous);
    [&header.encode()[..], &frame].concat()
}

fn walk_segment(dir: &Path, bytes: &[u8]) -> Result<u64, String> {
    fs::write(dir.join("00000000000000000001.seg"), bytes).expect("writes");
    walk(dir, drop).map(|walked| walked.last_number).map_err(|error| error.to_string())
}

#[test]
fn journals_with_forged_checksums() {
    let dir = scratch();
    let seeds = golden_records().into_iter().map(|mut input| {
        input[..8].copy_from_slice(&1u64.to_le_bytes());
        input
    });
    let fuzz = Fuzz::target("forged").seed_inputs(seeds).executions(10_000);
    fuzz.memory(|input| 1024 * 1024 + 3 * record_memory(input)).run(|input| {
        let Some((first, count, payload)) = split_record_input(input) else { return 0 };
        let version = if payload.len() % 16 == 15 { payload[0].into() } else { RECORD_VERSION };
        match walk_segment(dir.path(), &forged(first, count, version, payload)) {
            Ok(last) => {
                assert_eq!((first, last), (1, u64::from(count)));
                signature(&(count, payload.len().checked_ilog2()))
            }
            Err(why) => signature(&(payload.first(), kind(&why))),
        }
    });
}

#[test]
fn settings() {
    Fuzz::target("settings")
        .corpus(tests().join("corpus/settings"))
        .words(&["listen", "data", "log", "=", "'", "\""])
        // The parser keeps a token for every character in the worst case.
        .memory(|input| (256 << 10) + 256 * input.len())
        .run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return 0 };
            match toml::from_str::<FileSettings>(text) {
                Ok(settings) => {
                    signature(&(settings.data.is_some(), settings.listen.is_some(), settings.log.is_some()))
                }
                Err(error) => signature(&kind(error.message())),
            }
        });
}

#[test]
fn bombs_are_refused_for_the_right_reason_within_their_memory() {
    for bomb in read_bombs(&tests().join("corpus/bombs")) {
        let input = bomb.input.as_slice();
        let dir = scratch();
        let (said, spent) = spend(|| match bomb.reader.as_str() {
            "segment" => walk_segment(dir.path(), input).map(drop),
            "forged" => {
                let (first, count, payload) = split_record_input(input).expect("a number, a count, a payload");
                walk_segment(dir.path(), &forged(first, count, RECORD_VERSION, payload)).map(drop)
            }
            "record" => {
                let (first, count, payload) = split_record_input(input).expect("a number, a count, a payload");
                record::decode(RECORD_VERSION, first, count, payload).map(drop).map_err(|error| error.to_string())
            }
            "settings" => {
                let text = std::str::from_utf8(input).expect("text");
                toml::from_str::<FileSettings>(text).map(drop).map_err(|error| error.message().to_owned())
            }
            other => panic!("{}: there is no reader {other}", bomb.name),
        });
        // Whole segments are read into memory; nothing else may depend on what a count claims.
        let bound = (1 << 20) + 256 * input.len() + record_memory(&[]);
        assert!(spent.peak_bytes <= bound, "{} takes {} bytes", bomb.name, spent.peak_bytes);
        bomb.check(said);
    }
}
