//! The journal against crashes, damage and a failing disk.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use modchain_core::Event;
use modchain_orchestrator::store::journal::segment::HEADER_BYTES;
use modchain_orchestrator::store::journal::{
    AppendError, Disk, Journal, OpenError, RealDisk, SEGMENT_BYTES_MAX, WalkError, walk,
};
use modchain_types::Asset;
use support::{JOURNAL, TestDisk, bodies, journal_with, numbered};

/// Small segments: little is prepared for each of some thousand journals.
const SMALL: u64 = 64 << 10;

/// Opens the journal and tells what it replays.
fn reopen(dir: &Path) -> Result<(Journal, Vec<Event>), OpenError> {
    let mut events = Vec::new();
    let journal = Journal::open_with(dir, |batch| events.extend(batch), Box::new(TestDisk::default()), SMALL)?;
    Ok((journal, events))
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).expect("reads").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths
}

/// Where each batch of a segment ends, its header first, and the bytes of all of them: without the zeros behind.
fn batches(path: &Path) -> (Vec<usize>, Vec<u8>) {
    let mut bytes = fs::read(path).expect("reads");
    let mut ends = vec![HEADER_BYTES];
    while let Some(&at) = ends.last()
        && let Some(length) = bytes.get(at..at + 4)
        && length != [0; 4]
    {
        ends.push(at + 24 + u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize + 32);
    }
    let end = ends[ends.len() - 1];
    assert!(bytes[end..].iter().all(|byte| *byte == 0), "nothing but zeros follows");
    bytes.truncate(end);
    (ends, bytes)
}

fn next(journal: &Journal, count: usize) -> Vec<Event> {
    numbered(journal.last_number() + 1, bodies().into_iter().take(count))
}

#[test]
fn what_was_appended_replays_in_order_and_the_chain_goes_on_after_each_reopening() {
    let dir = tempfile::tempdir().expect("directory");
    let mut written: Vec<Event> = journal_with(dir.path(), &[1, 3, 2], SEGMENT_BYTES_MAX).concat();
    for count in [1, 5, 40] {
        let (mut journal, events) = reopen(dir.path()).expect("opens");
        assert_eq!(events, written);
        assert_eq!((journal.id(), journal.asset()), (JOURNAL, Asset::Test));
        let batch = next(&journal, count);
        journal.append(&batch).expect("appends");
        written.extend(batch);
    }
    let walked = walk(dir.path(), |_| {}).expect("whole");
    assert_eq!((walked.last_number, walked.batches, walked.torn), (52, 6, None));
}

#[test]
fn a_journal_of_many_segments_reads_as_one() {
    let dir = tempfile::tempdir().expect("directory");
    let written = journal_with(dir.path(), &[3; 40], 1000).concat();
    assert!(segments(dir.path()).len() > 5, "it was meant to rotate");
    let (journal, events) = reopen(dir.path()).expect("opens");
    assert_eq!(events, written);

    let reader = journal.reader();
    for (after, max) in [(0, 1000), (0, 1), (1, 7), (59, 13), (118, 10), (119, 5), (120, 5), (u64::MAX, 1)] {
        let page = reader.read_after(after, max).expect("reads");
        let expected: Vec<Event> = written.iter().filter(|event| event.number > after).take(max).cloned().collect();
        assert_eq!(page, expected, "after {after}, at most {max}");
    }
}

#[test]
fn a_reader_sees_each_batch_as_soon_as_it_is_committed() {
    let dir = tempfile::tempdir().expect("directory");
    journal_with(dir.path(), &[], SEGMENT_BYTES_MAX);
    let mut journal = Journal::open_with(dir.path(), |_| {}, Box::new(TestDisk::default()), 4000).expect("opens");
    let reader = journal.reader();
    assert_eq!(reader.read_after(0, 10).expect("reads"), []);
    for _ in 0..300 {
        let (last, batch) = (journal.last_number(), next(&journal, 2));
        journal.append(&batch).expect("appends");
        assert_eq!(reader.read_after(last, 10).expect("reads"), batch);
    }
}

#[test]
fn a_crash_at_every_byte_of_every_write_leaves_the_whole_batches_before_it() {
    let origin = tempfile::tempdir().expect("directory");
    let written = journal_with(origin.path(), &[1, 2, 1, 3], SEGMENT_BYTES_MAX);
    let (ends, whole) = batches(&segments(origin.path())[0]);
    let name = segments(origin.path())[0].file_name().expect("name").to_owned();
    assert_eq!(ends.len(), written.len() + 1);

    // What is written goes into space that was filled with zeros beforehand, or at the end of the file.
    for (cut, zeros) in (HEADER_BYTES..=whole.len()).flat_map(|cut| [(cut, 0), (cut, whole.len() - cut + 100)]) {
        let dir = tempfile::tempdir().expect("directory");
        let bytes = [&whole[..cut], &vec![0; zeros]].concat();
        fs::write(dir.path().join(&name), bytes).expect("writes");
        let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
        let walked = walk(dir.path(), |_| {}).expect("a torn end is not damage");
        // A record whose last bytes are zeros is whole before they are written.
        if !(zeros > 0 && walked.last_number > written[..kept].concat().len() as u64) {
            assert_eq!(walked.torn.is_some(), !ends.contains(&cut), "cut at {cut}, then {zeros} zeros");
        }

        let (mut journal, events) = reopen(dir.path()).expect("opens");
        let kept = kept + usize::from(events.len() > written[..kept].concat().len());
        assert_eq!(events, written[..kept].concat(), "cut at {cut}, then {zeros} zeros");
        let batch = next(&journal, 2);
        journal.append(&batch).expect("goes on");
        let (_, events) = reopen(dir.path()).expect("opens again");
        assert_eq!(events, [written[..kept].concat(), batch].concat(), "cut at {cut}, then {zeros} zeros");
    }
}

#[test]
fn any_sectors_of_the_last_write_may_be_missing() {
    const SECTOR: usize = 512;
    let origin = tempfile::tempdir().expect("directory");
    let written = journal_with(origin.path(), &[2, 70], SMALL);
    let path = segments(origin.path())[0].clone();
    let (ends, whole) = batches(&path);
    let last = ends[1];
    let sectors: Vec<usize> = (last / SECTOR..=(whole.len() - 1) / SECTOR).collect();
    assert!((4..12).contains(&sectors.len()), "{} sectors", sectors.len());
    for missing in 1..1u32 << sectors.len() {
        let mut bytes = whole.clone();
        for (_, sector) in sectors.iter().enumerate().filter(|(bit, _)| missing & (1 << bit) != 0) {
            let (from, to) = ((sector * SECTOR).max(last), ((sector + 1) * SECTOR).min(whole.len()));
            bytes[from..to].fill(0);
        }
        bytes.extend([0; 5000]);
        fs::write(&path, bytes).expect("writes");
        let (_, events) = reopen(origin.path()).unwrap_or_else(|error| panic!("without {missing:b}: {error}"));
        assert_eq!(events, written[0], "without {missing:b}");
    }
}

#[test]
fn the_last_segment_is_prepared_ahead_and_the_others_are_cut_to_their_records() {
    let dir = tempfile::tempdir().expect("directory");
    journal_with(dir.path(), &[1], SEGMENT_BYTES_MAX);
    let path = segments(dir.path())[0].clone();
    assert_eq!(fs::metadata(&path).expect("it is there").len(), 1 << 20);
    let (mut journal, _) = reopen(dir.path()).expect("opens");
    for _ in 0..3 {
        let batch = next(&journal, 1);
        journal.append(&batch).expect("appends");
        assert_eq!(fs::metadata(&path).expect("it is there").len(), SMALL, "a commit changes no length");
    }

    let dir = tempfile::tempdir().expect("directory");
    journal_with(dir.path(), &[3; 10], 1000);
    let (last, others) =
        segments(dir.path()).split_last().map(|(last, others)| (last.clone(), others.to_vec())).expect("some");
    for path in &others {
        let (ends, _) = batches(path);
        assert_eq!(fs::metadata(path).expect("it is there").len(), ends[ends.len() - 1] as u64);
    }
    assert!(batches(&last).0.len() > 1);
    // Zeros in the middle of the journal are bytes that are missing there.
    let file = fs::OpenOptions::new().append(true).open(&others[0]).expect("opens");
    file.set_len(fs::metadata(&others[0]).expect("it is there").len() + 64).expect("grows");
    assert!(matches!(reopen(dir.path()), Err(OpenError::Walk(WalkError::Damaged(_)))));
}

#[test]
fn a_batch_without_room_is_tried_again_and_is_there_once() {
    let dir = tempfile::tempdir().expect("directory");
    journal_with(dir.path(), &[], SEGMENT_BYTES_MAX);
    let disk = TestDisk::default();
    let mut journal = Journal::open_with(dir.path(), |_| {}, Box::new(disk.clone()), 1000).expect("opens");
    let mut written = Vec::new();
    for round in 0..60 {
        let batch = next(&journal, 2);
        disk.full.store(true, std::sync::atomic::Ordering::Relaxed);
        for _ in 0..round % 3 {
            assert!(matches!(journal.append(&batch), Err(AppendError::Full { .. })));
            assert_eq!(journal.last_number(), written.len() as u64);
        }
        disk.full.store(false, std::sync::atomic::Ordering::Relaxed);
        journal.append(&batch).expect("there is room again");
        written.extend(batch);
    }
    assert!(segments(dir.path()).len() > 3 && disk.count("refused") > 0);
    assert_eq!(journal.reader().read_after(0, 1000).expect("reads"), written);
    assert_eq!(reopen(dir.path()).expect("opens").1, written);
}

#[test]
fn every_flipped_byte_is_found_and_refused_unless_it_can_only_be_a_torn_end() {
    let origin = tempfile::tempdir().expect("directory");
    let written = journal_with(origin.path(), &[1, 2, 1, 2], 500);
    let files = segments(origin.path());
    assert!(files.len() > 1, "it was meant to rotate");
    let last = files.len() - 1;
    let contents: Vec<Vec<u8>> = files.iter().map(|path| batches(path).1).collect();
    let mut torn_ends = 0;
    for (file, content) in contents.iter().enumerate() {
        for at in 0..content.len() {
            let dir = tempfile::tempdir().expect("directory");
            for (index, path) in files.iter().enumerate() {
                let mut bytes = contents[index].clone();
                if index == file {
                    bytes[at] ^= 0x10;
                }
                fs::write(dir.path().join(path.file_name().expect("name")), bytes).expect("writes");
            }
            let damage = match walk(dir.path(), |_| {}) {
                Err(WalkError::Damaged(damage)) => damage,
                Ok(walked) => {
                    let torn = walked.torn.unwrap_or_else(|| panic!("byte {at} of segment {file} was not found"));
                    assert_eq!(file, last, "only the last record of the last segment can be torn");
                    let (_, events) = reopen(dir.path()).expect("a torn end is cut off");
                    assert_eq!(events, written[..written.len() - 1].concat());
                    torn_ends += 1;
                    torn
                }
                Err(error) => panic!("byte {at} of segment {file}: {error}"),
            };
            assert_eq!(Path::new(&damage.segment).file_name(), files[file].file_name());
            assert!(damage.offset as usize <= at, "{damage}");
            if file < last || at < HEADER_BYTES {
                let Err(error) = reopen(dir.path()) else { panic!("byte {at} of segment {file} was accepted") };
                let said = error.to_string();
                assert!(
                    said.contains(&damage.segment) && said.contains(&format!("offset {}", damage.offset)),
                    "{said}"
                );
            }
        }
    }
    assert!(torn_ends > 0);
}

#[test]
fn damage_before_a_whole_batch_of_the_same_segment_is_never_cut_off() {
    let origin = tempfile::tempdir().expect("directory");
    journal_with(origin.path(), &[1, 2, 1], SEGMENT_BYTES_MAX);
    let path = segments(origin.path())[0].clone();
    let (_, whole) = batches(&path);
    let length = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().expect("4 bytes")) as usize + 56;
    let second = HEADER_BYTES + length(HEADER_BYTES);
    let third = second + length(second);
    for at in second..third {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x80;
        fs::write(&path, &bytes).expect("writes");
        let Err(OpenError::Walk(WalkError::Damaged(damage))) = reopen(origin.path()) else {
            panic!("byte {at} was accepted")
        };
        assert_eq!((damage.offset, damage.number), (second as u64, 2), "byte {at}");
        assert_eq!(fs::read(&path).expect("reads"), bytes, "nothing may be changed");
    }
}

#[test]
fn missing_swapped_and_foreign_segments_are_refused() {
    let make = |seed: u8| {
        let dir = tempfile::tempdir().expect("directory");
        journal_with(dir.path(), &[usize::from(seed); 12], 600);
        dir
    };
    let dir = make(2);
    fs::remove_file(&segments(dir.path())[1]).expect("removes");
    assert!(matches!(reopen(dir.path()), Err(OpenError::Walk(WalkError::Damaged(_)))), "missing");

    let dir = make(2);
    fs::remove_file(&segments(dir.path())[0]).expect("removes");
    assert!(matches!(reopen(dir.path()), Err(OpenError::Walk(WalkError::Damaged(_)))), "missing first");

    let dir = make(2);
    let files = segments(dir.path());
    fs::copy(&files[1], &files[2]).expect("copies");
    assert!(matches!(reopen(dir.path()), Err(OpenError::Walk(WalkError::Damaged(_)))), "swapped");

    let (dir, other) = (make(2), tempfile::tempdir().expect("directory"));
    Journal::create(other.path(), modchain_types::JournalId([7; 16]), Asset::Test).expect("makes");
    let empty = fs::read(&segments(other.path())[0]).expect("reads");
    fs::write(&segments(dir.path())[0], empty).expect("writes");
    assert!(matches!(reopen(dir.path()), Err(OpenError::Walk(WalkError::Damaged(_)))), "foreign");

    let dir = tempfile::tempdir().expect("directory");
    assert!(matches!(reopen(dir.path()), Err(OpenError::Walk(WalkError::Missing { .. }))), "none");
}

#[test]
fn a_crash_while_a_segment_is_made_leaves_nothing_that_disturbs() {
    let dir = tempfile::tempdir().expect("directory");
    let written = journal_with(dir.path(), &[2, 2], SEGMENT_BYTES_MAX).concat();
    fs::write(dir.path().join("00000000000000000005.tmp"), b"MODCH").expect("writes");
    let (_, events) = reopen(dir.path()).expect("opens");
    assert_eq!(events, written);
    assert_eq!(segments(dir.path()).len(), 1, "the leftover is gone");
}

#[test]
fn after_a_failed_sync_or_write_nothing_more_is_taken() {
    for disk in [
        TestDisk { fail_sync: Some(1), ..TestDisk::default() },
        // The first one repeats the end of what is there.
        TestDisk { fail_write: Some(2), ..TestDisk::default() },
    ] {
        let dir = tempfile::tempdir().expect("directory");
        journal_with(dir.path(), &[], SEGMENT_BYTES_MAX);
        let mut journal =
            Journal::open_with(dir.path(), |_| {}, Box::new(disk.clone()), SEGMENT_BYTES_MAX).expect("opens");
        let first = next(&journal, 2);
        journal.append(&first).expect("appends");
        let second = next(&journal, 2);
        assert!(matches!(journal.append(&second), Err(AppendError::Disk { .. })));
        assert!(matches!(journal.append(&second), Err(AppendError::Failed)), "a retry may lie");
        assert_eq!(journal.reader().read_after(0, 10).expect("reads"), first, "readers see what is committed alone");

        let (_, events) = reopen(dir.path()).expect("opens");
        assert!(events == first || events == [first, second].concat(), "all of the batch or nothing");
    }
}

#[test]
fn batches_that_do_not_continue_the_numbers_are_refused() {
    let dir = tempfile::tempdir().expect("directory");
    journal_with(dir.path(), &[2], SEGMENT_BYTES_MAX);
    let (mut journal, _) = reopen(dir.path()).expect("opens");
    let mut gap = next(&journal, 3);
    gap.remove(1);
    for wrong in [numbered(2, bodies()), numbered(4, bodies()), gap] {
        assert!(matches!(journal.append(&wrong), Err(AppendError::Number { .. })));
    }
    let batch = next(&journal, 1);
    journal.append(&batch).expect("a refusal changes nothing");
}

/// A disk that prepares nothing: each commit makes its file longer.
struct GrowingDisk;

impl Disk for GrowingDisk {
    fn write(&mut self, file: &fs::File, bytes: &[u8], at: u64) -> std::io::Result<()> {
        RealDisk.write(file, bytes, at)
    }

    fn sync(&mut self, file: &fs::File) -> std::io::Result<()> {
        RealDisk.sync(file)
    }

    fn prepare(&mut self, _file: &fs::File, _from: u64, _to: u64) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
#[ignore = "measures: run it alone, in a release build, on the disk that is meant (TMPDIR)"]
fn commits_per_second_with_and_without_prepared_space() {
    const COMMITS: u32 = 5000;
    let measure = |disk: Box<dyn Disk>| {
        let dir = tempfile::tempdir().expect("directory");
        Journal::create(dir.path(), JOURNAL, Asset::Test).expect("makes");
        let mut journal = Journal::open_with(dir.path(), |_| {}, disk, SEGMENT_BYTES_MAX).expect("opens");
        let began = std::time::Instant::now();
        for _ in 0..COMMITS {
            let batch = next(&journal, 1);
            journal.append(&batch).expect("appends");
        }
        f64::from(COMMITS) / began.elapsed().as_secs_f64()
    };
    for _ in 0..3 {
        let (growing, prepared) = (measure(Box::new(GrowingDisk)), measure(Box::new(RealDisk)));
        println!("{growing:.0} commits/s into a growing file, {prepared:.0} into prepared space");
    }
}
