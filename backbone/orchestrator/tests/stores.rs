//! Output, input and blobs: what they keep, what they refuse, and what a crash leaves.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use modchain_orchestrator::store::blobs::{BLOB_BYTES_MAX, BlobError, BlobStore, GRACE, Put};
use modchain_orchestrator::store::input::{INPUT_BYTES_MAX, InputError, InputProgress, InputStore};
use modchain_orchestrator::store::output::{OutputError, OutputLog, OutputRecord, OutputStore};
use modchain_types::{AccountId, AttemptId, Digest, JobId, OutputLengths, WallTime};
use modchain_wire::CHUNK_BYTES_MAX;
use modchain_wire::agent::OutputStream::{Err as Stderr, Note, Out};

const JOB: JobId = JobId([6; 16]);
const ATTEMPT: AttemptId = AttemptId { job: JOB, number: 2 };
const CAP: u64 = 1 << 20;
/// Longest wait for anything that is about to happen.
const SOON: Duration = Duration::from_secs(60);

fn at(millis: i64) -> WallTime {
    WallTime(millis)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn lengths(stdout: u64, stderr: u64) -> OutputLengths {
    OutputLengths { stdout, stderr, dropped: 0 }
}

fn summary(records: &[OutputRecord]) -> Vec<(u64, &'static str, u64, String)> {
    records
        .iter()
        .map(|r| (r.index, r.stream.word(), r.offset, String::from_utf8_lossy(&r.data).into_owned()))
        .collect()
}

#[tokio::test]
async fn output_keeps_its_order_skips_repetitions_and_refuses_gaps() {
    let dir = tempfile::tempdir().expect("directory");
    let store = OutputStore::at(&dir.path().join("output")).expect("opens");
    let log = store.open(ATTEMPT).await.expect("opens");
    log.note(at(0), "attempt 2").expect("notes");
    log.append(Out, 0, at(0), bytes("one\n"), CAP).expect("appends");
    log.append(Stderr, 0, at(0), bytes("oops\n"), CAP).expect("appends");
    log.append(Out, 0, at(1), bytes("one\n"), CAP).expect("a repetition is nothing");
    log.append(Out, 2, at(1000), bytes("e\ntwo\n"), CAP).expect("an overlap gives its end");
    assert!(matches!(log.append(Out, 9, at(0), bytes("x"), CAP), Err(OutputError::Gap { offset: 9, have: 8 })));
    assert_eq!(log.read(0, 1000).await.expect("reads"), [], "what is not synced is not shown");
    let stored = log.sync().await.expect("syncs");
    assert_eq!((stored.records, stored.lengths), (4, lengths(8, 5)));
    let expected = vec![
        (0, "note", 0, "attempt 2".to_owned()),
        (1, "out", 0, "one\n".to_owned()),
        (2, "err", 0, "oops\n".to_owned()),
        (3, "out", 4, "two\n".to_owned()),
    ];
    assert_eq!(summary(&log.read(0, 1000).await.expect("reads")), expected);
    assert_eq!(summary(&log.read(3, 1000).await.expect("reads")), expected[3..]);
    assert_eq!(summary(&log.read(1, 1).await.expect("reads")), expected[1..2], "at least one");
    assert_eq!(log.read(4, 1000).await.expect("reads"), []);

    drop(log);
    let again = store.open(ATTEMPT).await.expect("reopens");
    assert_eq!(again.stored(), stored);
    assert_eq!(summary(&again.read(0, 1000).await.expect("reads")), expected);
    assert_eq!(store.attempts(JOB).await.expect("lists"), [2]);
    store.remove(JOB).await.expect("removes");
    assert_eq!(store.attempts(JOB).await.expect("lists"), [0u32; 0]);
}

#[tokio::test]
async fn output_is_capped_by_bytes_and_what_fits_stays() {
    let dir = tempfile::tempdir().expect("directory");
    let log = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    log.append(Out, 0, at(0), bytes("12345"), 8).expect("fits");
    assert!(matches!(log.append(Stderr, 0, at(0), bytes("6789"), 8), Err(OutputError::OverCap { cap: 8 })));
    log.append(Stderr, 0, at(0), bytes("678"), 8).expect("fits");
    assert_eq!(log.sync().await.expect("syncs").lengths, lengths(5, 3));
}

#[tokio::test]
async fn many_small_pieces_become_few_records_and_large_ones_fit_a_frame() {
    let dir = tempfile::tempdir().expect("directory");
    let log = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    for offset in 0..1000 {
        log.append(Out, offset, at(5), bytes("x"), CAP).expect("appends");
    }
    assert_eq!(log.sync().await.expect("syncs").records, 1);
    let large = Bytes::from(vec![b'y'; 200_000]);
    log.append(Out, 1000, at(6), large, CAP).expect("appends");
    let stored = log.sync().await.expect("syncs");
    let records = log.read(0, usize::MAX).await.expect("reads");
    assert_eq!(records.len() as u64, stored.records);
    assert!(records.iter().all(|record| record.data.len() <= CHUNK_BYTES_MAX));
    assert_eq!(records.iter().map(|record| record.data.len()).sum::<usize>(), 201_000);
}

#[tokio::test]
async fn a_writer_that_goes_away_in_the_middle_of_a_sync_does_no_harm_to_the_next() {
    let dir = tempfile::tempdir().expect("directory");
    let log = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    let mut expected = Vec::new();
    for turn in 0..100u8 {
        let piece = vec![turn; 1000 + usize::from(turn)];
        log.append(Out, expected.len() as u64, at(i64::from(turn) * 1000), Bytes::from(piece.clone()), CAP)
            .expect("appends");
        expected.extend(piece);
        // Begun, and given up at once: as when the agent's connection ends.
        drop(log.sync().now_or_never());
    }
    assert_eq!(log.sync().await.expect("syncs").lengths.stdout, expected.len() as u64);
    let again = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    let records = again.read(0, usize::MAX).await.expect("reads");
    assert!(records.iter().flat_map(|record| record.data.to_vec()).eq(expected));
}

#[tokio::test]
async fn absurd_wall_times_of_a_node_are_kept_as_they_are() {
    let dir = tempfile::tempdir().expect("directory");
    let log = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    for (offset, millis) in [(0, i64::MAX), (1, i64::MIN), (2, 1), (3, i64::MIN)] {
        log.append(Out, offset, at(millis), bytes("x"), CAP).expect("appends");
    }
    assert_eq!(log.sync().await.expect("syncs").records, 4);
}

#[tokio::test]
async fn a_reader_pages_through_everything_while_a_writer_goes_on() {
    let dir = tempfile::tempdir().expect("directory");
    let store = OutputStore::at(dir.path()).expect("opens");
    let log = store.open(ATTEMPT).await.expect("opens");
    let reader = store.open(ATTEMPT).await.expect("the same log");
    const LINES: u64 = 500;
    let writer = tokio::spawn(async move {
        let mut offset = 0;
        for line in 0..LINES {
            let text = format!("line {line}\n");
            let length = text.len() as u64;
            log.append(Out, offset, at(line as i64 * 100), Bytes::from(text), CAP).expect("appends");
            offset += length;
            log.sync().await.expect("syncs");
        }
    });
    let (mut next, mut seen) = (0, String::new());
    while seen.lines().count() < LINES as usize {
        tokio::time::timeout(SOON, reader.wait_beyond(next)).await.expect("more comes");
        for record in reader.read(next, 64).await.expect("reads") {
            assert_eq!((record.index, record.offset), (next, seen.len() as u64));
            seen.push_str(std::str::from_utf8(&record.data).expect("text"));
            next += 1;
        }
    }
    writer.await.expect("ends");
    assert_eq!(seen, (0..LINES).map(|line| format!("line {line}\n")).collect::<String>());
}

/// Pages of one record each over what is stored, from the first one on.
async fn pages(log: &OutputLog, from: u64, upto: u64) -> Result<Vec<u8>, OutputError> {
    let mut found = Vec::new();
    for index in from..upto {
        let page = log.read(index, 1).await?;
        assert_eq!(page.iter().map(|record| record.index).collect::<Vec<_>>(), [index]);
        found.extend_from_slice(&page[0].data);
    }
    Ok(found)
}

#[tokio::test]
async fn what_was_just_written_is_read_from_memory_and_a_reader_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().expect("dir");
    let store = OutputStore::at(&dir.path().join("output")).expect("opens");
    let log = store.open(ATTEMPT).await.expect("opens");
    let path = dir.path().join("output").join(JOB.to_string()).join("2.log");
    let mut printed = Vec::new();
    let print = async |printed: &mut Vec<u8>| {
        for number in 0..30u8 {
            let piece = Bytes::from(vec![number; 1000]);
            // So far apart that each is a record of its own.
            let when = at(printed.len() as i64);
            log.append(Out, printed.len() as u64, when, piece.clone(), u64::MAX).expect("is taken");
            printed.extend_from_slice(&piece);
        }
        log.sync().await.expect("syncs");
    };
    print(&mut printed).await;
    let on_disk = fs::read(&path).expect("reads");
    // The disk has nothing any more, and nobody asks it.
    fs::write(&path, b"").expect("writes");
    assert_eq!(pages(&log, 0, 30).await.expect("reads"), printed);
    fs::write(&path, &on_disk).expect("writes");
    print(&mut printed).await;

    // Of two writes the first one is on disk alone. What a reader has behind it is not read again: it may be damaged.
    assert_eq!(pages(&log, 0, 20).await.expect("reads"), printed[..20_000]);
    let mut damaged = fs::read(&path).expect("reads");
    damaged[500] ^= 1;
    fs::write(&path, damaged).expect("writes");
    assert_eq!(pages(&log, 20, 60).await.expect("reads"), printed[20_000..]);
    assert!(matches!(pages(&log, 0, 1).await, Err(OutputError::Disk(_))), "who begins anew reads it");
}

#[tokio::test]
async fn many_waiting_for_a_sync_all_find_their_piece_stored() {
    let dir = tempfile::tempdir().expect("directory");
    let log = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    let mut tasks = tokio::task::JoinSet::new();
    for piece in 0..50u64 {
        log.append(Out, piece * 2, at(0), bytes("ab"), CAP).expect("appends");
        let log = log.clone();
        tasks.spawn(async move {
            let stored = log.sync().await.expect("syncs");
            assert!(stored.lengths.stdout >= (piece + 1) * 2);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("stored");
    }
}

#[tokio::test]
async fn output_cut_off_at_any_byte_recovers_to_its_last_whole_record() {
    let origin = tempfile::tempdir().expect("directory");
    let store = OutputStore::at(origin.path()).expect("opens");
    let log = store.open(ATTEMPT).await.expect("opens");
    for (offset, text) in [(0, "first"), (5, "second"), (11, "third")] {
        log.append(Out, offset, at(offset as i64 * 1000), bytes(text), CAP).expect("appends");
    }
    log.sync().await.expect("syncs");
    let file = |dir: &Path| dir.join(JOB.to_string()).join("2.log");
    let whole = fs::read(file(origin.path())).expect("reads");
    let ends = [(8 + 25 + 5, 5), (8 + 50 + 11, 11), (8 + 75 + 16, 16)];
    assert_eq!(whole.len(), ends[2].0);
    for cut in 0..=whole.len() {
        for flipped in [false, true] {
            let dir = tempfile::tempdir().expect("directory");
            fs::create_dir(dir.path().join(JOB.to_string())).expect("makes");
            let mut content = whole[..cut].to_vec();
            let kept = ends.iter().rev().find(|(end, _)| *end <= cut).map_or(0, |(_, length)| *length);
            if flipped {
                // What was not whole may be anything.
                content.extend([0u8; 40]);
            }
            fs::write(file(dir.path()), content).expect("writes");
            let store = OutputStore::at(dir.path()).expect("opens");
            let log = store.open(ATTEMPT).await.expect("opens");
            assert_eq!(log.stored().lengths.stdout, kept, "cut at {cut}");
            log.append(Out, kept, at(9), bytes("!"), CAP).expect("goes on");
            assert_eq!(log.sync().await.expect("syncs").lengths.stdout, kept + 1);
            drop(log);
            let log = store.open(ATTEMPT).await.expect("reopens");
            let records = log.read(0, usize::MAX).await.expect("reads");
            let text: Vec<u8> = records.iter().flat_map(|record| record.data.to_vec()).collect();
            assert_eq!(text, [&b"firstsecondthird"[..kept as usize], b"!"].concat(), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_damaged_record_costs_nothing_behind_it_until_more_is_written() {
    let dir = tempfile::tempdir().expect("directory");
    let log = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    for offset in [0, 5, 10] {
        log.append(Out, offset, at(offset as i64 * 1000), bytes("piece"), CAP).expect("appends");
    }
    log.sync().await.expect("syncs");
    drop(log);
    let path = dir.path().join(JOB.to_string()).join("2.log");
    let whole = fs::read(&path).expect("reads");
    let mut damaged = whole.clone();
    damaged[8 + 30 + 27] ^= 1;
    fs::write(&path, &damaged).expect("writes");
    let open = async || OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    let log = open().await;
    assert_eq!(log.stored().lengths, lengths(5, 0));
    assert_eq!(log.read(0, 100).await.expect("reads").len(), 1);
    drop(log);
    assert_eq!(fs::read(&path).expect("reads"), damaged, "a reader destroys nothing");
    // Who mends the file has all of it back.
    fs::write(&path, &whole).expect("writes");
    assert_eq!(open().await.stored().lengths, lengths(15, 0));

    fs::write(&path, &damaged).expect("writes");
    let log = open().await;
    // As long as the damaged record: without the cut the third would follow it as if it were new.
    log.append(Out, 5, at(0), bytes("again"), CAP).expect("goes on");
    assert_eq!(log.sync().await.expect("syncs").lengths, lengths(10, 0));
    drop(log);
    assert_eq!(open().await.stored().lengths, lengths(10, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_takes_long_to_open_holds_up_no_other() {
    let dir = tempfile::tempdir().expect("directory");
    let store = OutputStore::at(dir.path()).expect("opens");
    // A pipe: who reads it through waits for us.
    let slow = dir.path().join(JOB.to_string()).join("2.log");
    fs::create_dir(slow.parent().expect("a folder")).expect("makes");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &slow, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.open(ATTEMPT).await.map(drop) }
    });
    // It can be opened for writing alone once somebody has it open.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let pipe = async {
        loop {
            match rustix::fs::open(&slow, flags, rustix::fs::Mode::empty()) {
                Ok(pipe) => return fs::File::from(pipe),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut pipe = tokio::time::timeout(SOON, pipe).await.expect("it is being opened");
    let other = AttemptId { job: JobId([7; 16]), number: 1 };
    let opened = tokio::time::timeout(SOON, store.open(other)).await;
    // Whatever came of it, so that nothing waits for ever.
    std::io::Write::write_all(&mut pipe, b"no such magic").expect("somebody reads");
    assert_eq!(opened.expect("at once").expect("opens").stored().records, 0);
    let _ = reading.await.expect("ends");
}

#[tokio::test]
async fn many_who_open_a_log_at_once_share_it_and_one_that_is_removed_is_another_afterwards() {
    let dir = tempfile::tempdir().expect("directory");
    let store = OutputStore::at(dir.path()).expect("opens");
    let logs = futures::future::join_all((0..20).map(|_| store.open(ATTEMPT))).await;
    let logs: Vec<OutputLog> = logs.into_iter().map(|log| log.expect("opens")).collect();
    logs[0].append(Out, 0, at(0), bytes("one"), CAP).expect("appends");
    logs[1].sync().await.expect("syncs");
    assert!(logs.iter().all(|log| log.stored().lengths == lengths(3, 0)));
    store.remove(JOB).await.expect("removes");
    let anew = store.open(ATTEMPT).await.expect("opens");
    assert_eq!(anew.stored().records, 0);
    assert_eq!(logs[0].read(0, 100).await.expect("who has it open keeps it").len(), 1);
}

#[tokio::test]
async fn what_the_disk_refused_is_forgotten_and_can_be_sent_again() {
    let dir = tempfile::tempdir().expect("directory");
    let store = OutputStore::at(&dir.path().join("output")).expect("opens");
    let log = store.open(ATTEMPT).await.expect("opens");
    log.append(Out, 0, at(0), bytes("lost"), CAP).expect("appends");
    // A file where the job's directory should be.
    fs::write(dir.path().join("output").join(JOB.to_string()), b"").expect("writes");
    assert!(matches!(log.sync().await, Err(OutputError::Disk(_))));
    assert!(matches!(log.append(Out, 4, at(0), bytes("x"), CAP), Err(OutputError::Gap { have: 0, .. })));
    fs::remove_file(dir.path().join("output").join(JOB.to_string())).expect("removes");
    log.append(Out, 0, at(0), bytes("found"), CAP).expect("appends");
    assert_eq!(log.sync().await.expect("syncs").lengths, lengths(5, 0));
    assert_eq!(log.read(0, 100).await.expect("reads")[0].data, "found");
}

#[tokio::test]
async fn notes_are_kept_apart_from_what_the_job_printed() {
    let dir = tempfile::tempdir().expect("directory");
    let log = OutputStore::at(dir.path()).expect("opens").open(ATTEMPT).await.expect("opens");
    log.note(at(0), "one").expect("notes");
    log.note(at(0), "two").expect("notes");
    let stored = log.sync().await.expect("syncs");
    assert_eq!((stored.records, stored.lengths), (2, lengths(0, 0)));
    assert!(log.read(0, 100).await.expect("reads").iter().all(|record| record.stream == Note));
    let mut taken = 0;
    while log.note(at(0), &"n".repeat(1000)).is_ok() {
        taken += 1;
        assert!(taken < 1000, "remarks have no end");
    }
}

#[tokio::test]
async fn input_is_read_again_from_the_start_and_its_end_is_remembered() {
    let dir = tempfile::tempdir().expect("directory");
    let store = InputStore::at(&dir.path().join("input")).expect("opens");
    let spool = store.open(JOB).await.expect("opens");
    spool.append(0, bytes("hello ")).expect("appends");
    spool.append(3, bytes("lo world")).expect("an overlap gives its end");
    assert!(matches!(spool.append(99, bytes("x")), Err(InputError::Gap { offset: 99, have: 11 })));
    assert!(matches!(spool.finish(10), Err(InputError::Gap { .. })));
    assert_eq!(spool.sync().await.expect("syncs"), InputProgress { length: 11, done: false });
    let waiting = spool.clone();
    let waiter = tokio::spawn(async move { waiting.wait_beyond(11).await });
    spool.finish(11).expect("ends");
    spool.finish(11).expect("again");
    assert_eq!(spool.sync().await.expect("syncs"), InputProgress { length: 11, done: true });
    let woken = tokio::time::timeout(SOON, waiter).await.expect("wakes up").expect("ends");
    assert!(woken.done);
    assert!(matches!(spool.append(11, bytes("x")), Err(InputError::Ended { length: 11 })));
    assert!(matches!(spool.finish(12), Err(InputError::Ended { length: 11 })));

    drop(spool);
    let spool = store.open(JOB).await.expect("reopens");
    assert_eq!(spool.stored(), InputProgress { length: 11, done: true });
    for (offset, max, expected) in [(0, 100, "hello world"), (0, 3, "hel"), (4, 4, "o wo"), (11, 9, ""), (50, 9, "")] {
        assert_eq!(spool.read(offset, max).await.expect("reads"), expected, "{offset} {max}");
    }
    drop(spool);
    store.keep_only(&[JOB]).await.expect("keeps");
    assert_eq!(store.open(JOB).await.expect("opens").stored().length, 11);
    store.keep_only(&[]).await.expect("removes");
    assert_eq!(store.open(JOB).await.expect("opens").stored(), InputProgress::default());
}

#[tokio::test]
async fn input_over_its_cap_is_refused_and_long_input_reads_back_from_any_offset() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = InputStore::at(dir.path()).expect("opens").open(JOB).await.expect("opens");
    let piece: Bytes = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    for offset in (0..INPUT_BYTES_MAX).step_by(piece.len()) {
        spool.append(offset, piece.clone()).expect("fits");
        spool.sync().await.expect("syncs");
    }
    assert!(matches!(spool.append(INPUT_BYTES_MAX, bytes("x")), Err(InputError::OverCap)));
    for offset in [0, 1, 65_408, 1_000_001, INPUT_BYTES_MAX - 3] {
        let read = spool.read(offset, 100_000).await.expect("reads");
        let expected: Vec<u8> =
            (offset..INPUT_BYTES_MAX.min(offset + 100_000)).map(|at| piece[at as usize % piece.len()]).collect();
        assert!(read == expected, "at {offset}");
    }
}

fn alice() -> AccountId {
    "alice".parse().expect("account")
}

#[tokio::test]
async fn a_blob_is_there_for_its_account_alone_and_survives_reopening() {
    let dir = tempfile::tempdir().expect("directory");
    let store = BlobStore::at(dir.path()).expect("opens");
    let content = bytes("(module)");
    let digest = store.put(&alice(), content.clone()).await.expect("puts");
    assert_eq!(digest, Digest::of(&content));
    assert!(matches!(store.begin(&alice(), digest, 8).await, Ok(Put::Existing)));
    let bob: AccountId = "bob".parse().expect("account");
    assert_eq!(store.size(&bob, &digest), None);
    assert!(matches!(store.get(&bob, &digest, 100).await, Err(BlobError::Missing)));
    assert!(matches!(store.get(&alice(), &digest, 7).await, Err(BlobError::TooLarge { .. })));

    let store = BlobStore::at(dir.path()).expect("reopens");
    assert_eq!(store.size(&alice(), &digest), Some(8));
    assert_eq!(store.get(&alice(), &digest, 100).await.expect("reads"), content);
    let mut reader = store.open_blob(&alice(), &digest).await.expect("opens");
    let mut read = Vec::new();
    while let Some(piece) = reader.next(3).await.expect("reads") {
        assert!(piece.len() <= 3);
        read.extend(piece);
    }
    assert_eq!((read, reader.bytes()), (content.to_vec(), 8));

    fs::write(dir.path().join("alice").join(digest.to_string()), b"(modulf)").expect("damages");
    assert!(matches!(store.get(&alice(), &digest, 100).await, Err(BlobError::Damaged)));
}

#[tokio::test]
async fn a_blob_whose_file_was_taken_away_is_asked_for_again_and_kept_for_the_job_that_waits() {
    let dir = tempfile::tempdir().expect("directory");
    let store = BlobStore::with_limits(dir.path(), 8, Duration::ZERO).expect("opens");
    let content = bytes("(module)");
    let digest = store.put(&alice(), content.clone()).await.expect("puts");
    store.reference(JobId([1; 16]), &alice(), &[digest]);
    let file = dir.path().join("alice").join(digest.to_string());
    fs::remove_file(&file).expect("removes");
    store.put(&alice(), content.clone()).await.expect("puts again, within the quota");
    assert_eq!(store.get(&alice(), &digest, 100).await.expect("reads"), content);
    fs::remove_file(&file).expect("removes");
    assert!(matches!(store.open_blob(&alice(), &digest).await, Err(BlobError::Missing)));
    assert_eq!(store.size(&alice(), &digest), None, "and whoever looks sees that it is gone");
    store.put(&alice(), content).await.expect("puts again");
    assert_eq!(store.collect().await.expect("collects"), 0, "the job still needs it");
    store.release(JobId([1; 16]));
    assert_eq!(store.collect().await.expect("collects"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blob_that_was_just_put_is_there_however_often_old_ones_are_collected() {
    let dir = tempfile::tempdir().expect("directory");
    let store = BlobStore::with_limits(dir.path(), 1000, Duration::from_millis(1)).expect("opens");
    let digest = Digest::of(b"again");
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let collecting = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                store.collect().await.expect("collects");
            }
        }
    });
    let putting = |job: u8| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                store.reference(JobId([job; 16]), &alice(), &[digest]);
                store.put(&alice(), bytes("again")).await.expect("puts");
                assert_eq!(store.get(&alice(), &digest, 5).await.expect("it is there"), "again");
                store.release(JobId([job; 16]));
            }
        })
    };
    for ended in futures::future::join_all((0..3).map(putting)).await {
        ended.expect("always there");
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    collecting.await.expect("ends");
}

#[tokio::test]
async fn a_put_that_is_not_what_it_said_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("directory");
    let store = BlobStore::at(dir.path()).expect("opens");
    let digest = Digest::of(b"right");
    let files = || fs::read_dir(dir.path().join("alice")).expect("reads").count();
    let begin = || async {
        match store.begin(&alice(), digest, 5).await {
            Ok(Put::Write(writer)) => writer,
            other => panic!("{other:?}"),
        }
    };
    let mut wrong = begin().await;
    wrong.write(bytes("wrong")).await.expect("writes");
    assert!(matches!(wrong.finish().await, Err(BlobError::Mismatch { what: "digest" })));
    let mut long = begin().await;
    assert!(matches!(long.write(bytes("rightx")).await, Err(BlobError::Mismatch { what: "size" })));
    drop(long);
    let mut short = begin().await;
    short.write(bytes("righ")).await.expect("writes");
    assert!(matches!(short.finish().await, Err(BlobError::Mismatch { what: "size" })));
    drop(begin().await);
    assert_eq!((files(), store.size(&alice(), &digest)), (0, None));

    fs::write(dir.path().join("alice").join("half.7.tmp"), b"ri").expect("writes");
    BlobStore::at(dir.path()).expect("reopens");
    assert_eq!(files(), 0, "what a crash left half written is gone");
}

#[tokio::test]
async fn two_who_put_the_same_blob_at_once_both_succeed() {
    let dir = tempfile::tempdir().expect("directory");
    let store = BlobStore::with_limits(dir.path(), 12, GRACE).expect("opens");
    let digest = Digest::of(b"twins");
    let (Ok(Put::Write(mut one)), Ok(Put::Write(mut two))) =
        (store.begin(&alice(), digest, 5).await, store.begin(&alice(), digest, 5).await)
    else {
        panic!("both begin")
    };
    for writer in [&mut one, &mut two] {
        writer.write(bytes("twins")).await.expect("writes");
    }
    one.finish().await.expect("ends");
    two.finish().await.expect("ends");
    assert_eq!(store.get(&alice(), &digest, 5).await.expect("reads"), "twins");
    store.put(&alice(), bytes("seven..")).await.expect("counted once: five and seven are twelve");
}

#[tokio::test]
async fn quota_and_size_are_limits_and_an_abandoned_put_gives_its_room_back() {
    let dir = tempfile::tempdir().expect("directory");
    let store = BlobStore::with_limits(dir.path(), 10, GRACE).expect("opens");
    store.put(&alice(), bytes("123456")).await.expect("fits");
    assert!(matches!(store.put(&alice(), bytes("abcde")).await, Err(BlobError::Quota { limit: 10 })));
    store.put(&"bob".parse().expect("account"), bytes("abcde")).await.expect("another account has its own");
    let begun = store.begin(&alice(), Digest::of(b"abcd"), 4).await.expect("fits");
    assert!(matches!(store.put(&alice(), bytes("x")).await, Err(BlobError::Quota { .. })));
    drop(begun);
    store.put(&alice(), bytes("abcd")).await.expect("fits again");
    let store = BlobStore::with_limits(dir.path(), 10, GRACE).expect("reopens");
    assert!(
        matches!(store.put(&alice(), bytes("x")).await, Err(BlobError::Quota { .. })),
        "counted again at the start"
    );

    let large =
        BlobStore::at(dir.path()).expect("opens").begin(&alice(), digest_of_nothing(), BLOB_BYTES_MAX + 1).await;
    assert!(matches!(large, Err(BlobError::TooLarge { .. })));
}

fn digest_of_nothing() -> Digest {
    Digest::of(b"")
}

#[tokio::test]
async fn blobs_go_when_no_open_job_names_them_and_not_before_their_grace() {
    let dir = tempfile::tempdir().expect("directory");
    let store = BlobStore::with_limits(dir.path(), 1000, Duration::ZERO).expect("opens");
    let (one, two) = (JobId([1; 16]), JobId([2; 16]));
    let shared = store.put(&alice(), bytes("shared")).await.expect("puts");
    let own = store.put(&alice(), bytes("own")).await.expect("puts");
    store.reference(one, &alice(), &[shared, own]);
    store.reference(one, &alice(), &[shared, own]);
    store.reference(two, &alice(), &[shared]);
    assert_eq!(store.collect().await.expect("collects"), 0);
    store.release(one);
    store.release(one);
    assert_eq!(store.collect().await.expect("collects"), 1);
    assert_eq!((store.size(&alice(), &own), store.size(&alice(), &shared)), (None, Some(6)));
    store.release(two);
    assert_eq!(store.collect().await.expect("collects"), 1);
    assert_eq!(fs::read_dir(dir.path().join("alice")).expect("reads").count(), 0);

    let patient = BlobStore::at(dir.path()).expect("opens");
    let fresh = patient.put(&alice(), bytes("fresh")).await.expect("puts");
    assert_eq!(patient.collect().await.expect("collects"), 0, "put just before its submit");
    assert_eq!(patient.size(&alice(), &fresh), Some(5));
}
