//! What a start finds after whatever happened before it.

use super::*;
use bytes::Bytes;
use modchain_types::{
    Adapter, Digest, Ending, Exceptions, Fence, GpuRequest, Input, JobSpec, List, Map, Micro, OutputLengths, Policy,
    Reason, Requirements, Reservation, Span, Tariff, Task, TaskBody, Text, Usage, WallTime, WasmTask,
};
use modchain_wire::agent::OutputStream;

fn assignment(number: u32, fence: u64) -> Assignment {
    let task = WasmTask {
        module: Digest::of(b"module"),
        module_bytes: 6,
        module_name: Text::cut("m.wat"),
        args: List::default(),
        env: Map::default(),
    };
    Assignment {
        attempt: AttemptId { job: JobId([3; 16]), number },
        claim: FenceClaim { fence: Fence(fence), mac: [9; 16] },
        spec: JobSpec {
            name: Text::cut("job"),
            body: TaskBody::Inline(Task::Wasm(task)),
            requirements: Requirements {
                adapter: Adapter::Wasm,
                cpu_milli: 1000,
                memory_bytes: 1 << 26,
                disk_bytes: 0,
                gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
                labels: Default::default(),
                region: None,
                node: None,
                price_per_hour_max: None,
                model: None,
                exceptions: Exceptions::default(),
            },
            limits: Limits::default(),
            max_cost: Micro(1),
            priority: 0,
            labels: Map::default(),
            input: Input::None,
            policy: Policy::Cheapest,
        },
        reservation: Reservation::default(),
        tariff: Tariff::default(),
        run_limit: Span::from_secs(60),
        run_limit_reason: Reason::Budget,
        image: None,
        output_tokens_max: None,
    }
}

fn result(assignment: &Assignment, output: OutputLengths) -> Report {
    let body = ReportBody::Ended { ending: Ending::Exited { code: 3 }, usage: Usage::default(), output };
    Report { attempt: assignment.attempt, fence: assignment.claim.fence, body }
}

/// Remembers a beginning and makes the attempt's folder, as the engine does.
fn begin(outbox: &mut Outbox, assignment: &Assignment) -> (AttemptFolder, SpoolWriter, Spool) {
    outbox.begin(assignment);
    outbox.commit().expect("commits");
    outbox.folder(assignment).expect("makes a folder")
}

fn open(dir: &Path) -> Outbox {
    Outbox::open(dir).expect("opens")
}

fn left(dir: &Path) -> Vec<Left> {
    open(dir).recover().expect("recovers")
}

const HELLO: [(OutputStream, Bytes); 1] = [(OutputStream::Out, Bytes::from_static(b"hello"))];

#[test]
fn what_began_is_recovered_with_its_output_and_its_result() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let (first, second) = (assignment(1, 10), assignment(2, 11));
    let (folder, mut writer, _) = begin(&mut outbox, &first);
    fs::write(folder.module(), "m").expect("writes");
    writer.append(WallTime(0), &HELLO).expect("appends");
    begin(&mut outbox, &second);
    let ended = result(&second, OutputLengths { stdout: 0, stderr: 0, dropped: 7 });
    outbox.record(None, &ended, b"");
    outbox.commit().expect("commits");

    let stdout = OutputLengths { stdout: 5, stderr: 0, dropped: 0 };
    let dropped = OutputLengths { stdout: 0, stderr: 0, dropped: 7 };
    assert_eq!(
        left(dir.path())
            .iter()
            .map(|one| (one.attempt, one.assignment.claim.fence, one.result.clone(), one.spool.state().lengths))
            .collect::<Vec<_>>(),
        [(first.attempt, Fence(10), None, stdout), (second.attempt, Fence(11), Some(ended), dropped)]
    );
    assert!(!folder.module().exists(), "scratch is cleared");

    let mut outbox = open(dir.path());
    for attempt in [first.attempt, second.attempt, second.attempt] {
        outbox.discard(attempt);
        outbox.commit().expect("commits");
        outbox.remove(attempt).expect("removes; twice is fine");
    }
    assert!(outbox.is_empty() && left(dir.path()).is_empty());
    assert_eq!(fs::read_dir(dir.path().join("attempts")).expect("reads").count(), 0);
}

#[test]
fn what_outlives_its_agent_is_known_by_its_start_and_its_input_and_its_output_goes_on() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let mut reads = assignment(1, 10);
    reads.spec.input = Input::Stream;
    let (folder, mut writer, _) = begin(&mut outbox, &reads);
    writer.append(WallTime(0), &HELLO).expect("appends");
    let one = || left(dir.path()).pop().expect("one is left");
    assert_eq!((one().started, one().input_done), (None, false));

    let mut outbox = open(dir.path());
    let started = Started { since: Timestamp(77), boot: BootId([5; 16]) };
    outbox.started(reads.attempt, started);
    outbox.commit().expect("commits");
    folder.input_is_done().expect("notes");
    assert_eq!((one().started, one().input_done), (Some(started), true));

    let (_, mut writer, spool) = outbox.resume(&reads).expect("goes on");
    writer.append(WallTime(0), &[(OutputStream::Out, Bytes::from_static(b", world"))]).expect("appends");
    let read: Vec<u8> = spool.reader(0, 0).read(100).expect("reads").iter().flat_map(|r| r.data.to_vec()).collect();
    assert_eq!(read, b"hello, world");
    assert_eq!(writer.finish().lengths.stdout, 12);
}

#[test]
fn a_short_output_comes_back_with_its_result_when_a_power_loss_took_its_file() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let assignment = assignment(1, 10);
    let (folder, mut writer, _) = begin(&mut outbox, &assignment);
    writer.append(WallTime(3), &HELLO).expect("appends");
    let finished = writer.finish();
    outbox.record(None, &result(&assignment, finished.lengths), &finished.short.expect("ends"));
    outbox.commit().expect("commits");
    for lost in [true, false] {
        if lost {
            fs::remove_dir_all(&folder.path).expect("loses");
        }
        let spool = left(dir.path()).pop().expect("one is left").spool;
        let read = spool.reader(0, 0).read(100).expect("reads");
        assert_eq!(
            read.iter().map(|record| (record.at, &record.data[..])).collect::<Vec<_>>(),
            [(WallTime(3), &b"hello"[..])]
        );
    }
}

#[test]
fn a_folder_of_what_never_began_is_removed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let (never, began) = (assignment(1, 1), assignment(2, 2));
    let (folder, ..) = outbox.folder(&never).expect("makes a folder");
    fs::write(folder.module(), "m").expect("writes");
    outbox.begin(&never);
    outbox.discard(never.attempt);
    begin(&mut outbox, &began);
    assert_eq!(left(dir.path()).iter().map(|one| one.attempt).collect::<Vec<_>>(), [began.attempt]);
    assert!(!folder.path.exists());
    // And one that is in the way of a new attempt is emptied.
    fs::create_dir(&folder.path).and_then(|()| fs::write(folder.module(), "m")).expect("writes");
    open(dir.path()).folder(&never).expect("makes a folder");
    assert!(!folder.module().exists());
}

/// What a start finds: which attempts, which of them with a result, and the fence.
type Sight = (Vec<(u32, bool)>, Option<u64>);

/// What is said before a commit, and all that a start may find while it goes on.
type Step<'a> = (Box<dyn Fn(&mut Outbox) + 'a>, Vec<Sight>);

fn sight(dir: &Path) -> Sight {
    let mut outbox = open(dir);
    let left = outbox.recover().expect("recovers");
    let attempts = left.iter().map(|one| (one.attempt.number, one.result.is_some())).collect();
    (attempts, outbox.fence().map(|seen| seen.claim.fence.0))
}

/// The process dies between any two writes, the machine within any of them: what was committed is there, and of what was
/// not, each record or nothing of it.
#[test]
fn a_crash_at_any_byte_costs_nothing_that_was_committed() {
    let (real, torn) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
    let log_of = |dir: &Path| dir.join("attempts.log");
    let mut outbox = open(real.path());
    let (first, second) = (assignment(1, 1), assignment(2, 2));
    let seen =
        |fence| FenceSeen { journal: JournalId([1; 16]), claim: FenceClaim { fence: Fence(fence), mac: [1; 16] } };
    let ended = |one| result(one, OutputLengths::default());
    let steps: [Step<'_>; 4] = [
        (
            Box::new(|outbox| {
                outbox.remember_fence(seen(1));
                outbox.begin(&first);
            }),
            vec![(vec![], Some(1)), (vec![(1, false)], Some(1))],
        ),
        (
            Box::new(|outbox| {
                outbox.record(None, &ended(&first), b"output");
                outbox.remember_fence(seen(2));
                outbox.begin(&second);
            }),
            vec![(vec![(1, true)], Some(1)), (vec![(1, true)], Some(2)), (vec![(1, true), (2, false)], Some(2))],
        ),
        (Box::new(|outbox| outbox.discard(first.attempt)), vec![(vec![(2, false)], Some(2))]),
        (Box::new(|outbox| outbox.record(None, &ended(&second), b"")), vec![(vec![(2, true)], Some(2))]),
    ];
    let mut before = fs::read(log_of(real.path())).expect("reads");
    let mut committed: Sight = (vec![], None);
    for (step, then) in steps {
        step(&mut outbox);
        outbox.commit().expect("commits");
        let after = fs::read(log_of(real.path())).expect("reads");
        let changed: Vec<usize> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
        let mut seen = vec![committed];
        // Some bytes of each record, and the end.
        for cut in changed.iter().step_by(61).chain([&after.len()]) {
            let mut bytes = after.clone();
            bytes[*cut..].copy_from_slice(&before[*cut..]);
            fs::write(log_of(torn.path()), bytes).expect("writes");
            let now = sight(torn.path());
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        assert_eq!(seen[1..], then, "after {:?}", seen[0]);
        committed = seen.pop().expect("it has been looked");
        before = after;
    }
}

#[test]
fn a_commit_that_failed_is_made_up_for_by_writing_everything_anew() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let (first, second) = (assignment(1, 1), assignment(2, 2));
    begin(&mut outbox, &first);
    // The disk takes nothing more: neither this file nor a new one.
    let in_the_way = dir.path().join("attempts.new");
    outbox.log.as_mut().expect("open").fill_disk();
    fs::create_dir(&in_the_way).expect("makes a folder");
    outbox.record(None, &result(&first, OutputLengths::default()), b"");
    for _ in 0..2 {
        outbox.commit().expect_err("cannot");
        assert!(!outbox.is_committed());
    }
    outbox.begin(&second);
    let copy = tempfile::tempdir().expect("dir");
    fs::copy(dir.path().join("attempts.log"), copy.path().join("attempts.log")).expect("copies");
    assert_eq!(sight(copy.path()).0, [(1, false)], "nothing of it is there");
    fs::remove_dir(in_the_way).expect("removes");
    outbox.commit().expect("commits");
    assert!(outbox.is_committed());
    assert_eq!(sight(dir.path()).0, [(1, true), (2, false)]);
}

#[test]
fn the_log_is_written_anew_when_it_is_full_and_holds_what_counts() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let kept = assignment(1, 1);
    begin(&mut outbox, &kept);
    let bytes = || fs::metadata(dir.path().join("attempts.log")).expect("there").len();
    let size = bytes();
    for number in 2..3_000 {
        let one = assignment(number, u64::from(number));
        outbox.begin(&one);
        outbox.record(None, &result(&one, OutputLengths::default()), b"");
        outbox.discard(one.attempt);
        outbox.commit().expect("commits");
    }
    assert_eq!(bytes(), size, "a file that is full is not made longer");
    assert_eq!(sight(dir.path()).0, [(1, false)]);
}

#[test]
fn a_file_of_a_later_format_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    drop(open(dir.path()));
    let path = dir.path().join("attempts.log");
    let mut bytes = fs::read(&path).expect("reads");
    bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    fs::write(&path, bytes).expect("writes");
    let error = Outbox::open(dir.path()).expect_err("refuses");
    assert!(error.to_string().contains("has format 2, this agent reads 1"), "{error}");
    fs::write(&path, "what?").expect("writes");
    let error = Outbox::open(dir.path()).expect_err("refuses");
    assert!(error.to_string().contains("move it away"), "{error}");
}

#[test]
fn the_highest_fence_is_kept_per_journal() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let seen = |journal: u8, fence: u64| FenceSeen {
        journal: JournalId([journal; 16]),
        claim: FenceClaim { fence: Fence(fence), mac: [1; 16] },
    };
    assert_eq!(outbox.fence(), None);
    for (journal, fence) in [(1, 5), (1, 4), (1, 6)] {
        outbox.remember_fence(seen(journal, fence));
    }
    outbox.commit().expect("commits");
    let mut outbox = open(dir.path());
    assert_eq!(outbox.fence(), Some(seen(1, 6)));
    outbox.remember_fence(seen(2, 1));
    outbox.commit().expect("commits");
    assert_eq!(open(dir.path()).fence(), Some(seen(2, 1)));
}
