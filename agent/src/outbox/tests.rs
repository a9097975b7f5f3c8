//! What a start finds after whatever happened before it.

use std::os::unix::fs::PermissionsExt;

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
    folder.make().and_then(|()| fs::write(folder.module(), "m")).expect("writes");
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
fn an_attempt_has_a_folder_once_there_is_something_in_it() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let (silent, prints) = (assignment(1, 1), assignment(2, 2));
    let (folder, writer, _) = begin(&mut outbox, &silent);
    assert!(writer.finish().short.expect("ends").is_empty());
    outbox.clear_scratch(silent.attempt).expect("nothing is there");
    assert!(!folder.path.exists());
    outbox.remove(silent.attempt).expect("nothing is there");
    let (folder, mut writer, _) = begin(&mut outbox, &prints);
    writer.append(WallTime(0), &HELLO).expect("appends");
    assert_eq!(fs::metadata(&folder.path).expect("there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_folder_of_what_never_began_is_removed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut outbox = open(dir.path());
    let (never, began) = (assignment(1, 1), assignment(2, 2));
    let (folder, ..) = outbox.folder(&never).expect("makes a folder");
    folder.make().and_then(|()| fs::write(folder.module(), "m")).expect("writes");
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
    fs::write(&path, bytes).expect("writes");
    let error = Outbox::open(dir.path()).expect_err("refuses");
    assert!(error.to_string().contains("has format 2, this agent reads 1"), "{error}");
    fs::write(&path, "what?").expect("writes");
    let error = Outbox::open(dir.path()).expect_err("refuses");
    assert!(error.to_string().contains("move it away"), "{error}");
}

/// Writes down what another build might have.
fn write_foreign(outbox: &mut Outbox, entry: &serde_json::Value) {
    log::encode(&mut outbox.staged, entry.to_string().as_bytes(), b"");
    outbox.commit().expect("commits");
}

#[test]
fn what_another_build_wrote_keeps_no_agent_from_starting() {
    let dir = tempfile::tempdir().expect("dir");
    let copy = dir.path().join("attempts.damaged");
    let mut outbox = open(dir.path());
    let known = assignment(1, 1);
    begin(&mut outbox, &known);
    let foreign =
        |number| serde_json::json!({ "attempt": assignment(number, 1).attempt, "needs": "what is not known" });
    // Of what is forgotten nothing has to be read.
    write_foreign(&mut outbox, &serde_json::json!({ "Began": foreign(2) }));
    write_foreign(&mut outbox, &serde_json::json!({ "Ended": foreign(2) }));
    write_foreign(&mut outbox, &serde_json::json!({ "Forgot": assignment(2, 1).attempt }));
    assert_eq!(sight(dir.path()).0, [(1, false)]);
    assert!(!copy.exists());
    // What began anew after that is not forgotten, and that it cannot be read costs no other attempt.
    let mut outbox = open(dir.path());
    begin(&mut outbox, &assignment(2, 2));
    let (third, _, _) = begin(&mut outbox, &assignment(3, 3));
    third.make().expect("makes a folder");
    write_foreign(&mut outbox, &serde_json::json!({ "Began": foreign(3) }));
    write_foreign(&mut outbox, &serde_json::json!({ "Ended": foreign(4) }));
    write_foreign(&mut outbox, &serde_json::json!({ "Paused": 5 }));
    let before = fs::read(dir.path().join("attempts.log")).expect("reads");
    assert_eq!(sight(dir.path()).0, [(1, false), (2, false), (3, false)]);
    assert_eq!(fs::read(&copy).expect("is there"), before);
    assert!(third.path.exists());
    // From then on it is not met again.
    fs::remove_file(&copy).expect("removes");
    assert_eq!(sight(dir.path()).0.len(), 3);
    assert!(!copy.exists());
}

#[test]
fn a_start_finds_what_was_written_though_the_disk_is_full() {
    let dir = tempfile::tempdir().expect("dir");
    let path = |name: &str| dir.path().join(name);
    let mut outbox = open(dir.path());
    let (first, second) = (assignment(1, 1), assignment(2, 2));
    let (folder, mut writer, _) = begin(&mut outbox, &first);
    writer.append(WallTime(0), &HELLO).expect("appends");
    let finished = writer.finish();
    outbox.record(None, &result(&first, finished.lengths), &finished.short.expect("ends"));
    outbox.commit().expect("commits");
    // No file can be made anew.
    for in_the_way in [path("attempts.new"), folder.path.join("output.new"), path("attempts.damaged")] {
        fs::create_dir(in_the_way).expect("makes a folder");
    }
    assert_eq!(sight(dir.path()).0, [(1, true)]);
    let mut outbox = open(dir.path());
    outbox.begin(&second);
    outbox.commit().expect("there is room in the file");
    // Nor a folder, of which this one has none yet: what stands in its place leads nowhere.
    std::os::unix::fs::symlink("/nowhere", outbox.folder_of(second.attempt).path).expect("makes a link");
    assert_eq!(sight(dir.path()).0, [(1, true), (2, false)]);
    // Not even a damaged file keeps it from starting.
    let mut bytes = fs::read(path("attempts.log")).expect("reads");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("there are records");
    bytes[last] ^= 1;
    fs::write(path("attempts.log"), bytes).expect("writes");
    let mut outbox = open(dir.path());
    assert_eq!(outbox.recover().expect("recovers").len(), 1);
    assert!(!outbox.is_committed());
    fs::remove_dir(path("attempts.new")).expect("removes");
    outbox.begin(&second);
    outbox.commit().expect("commits");
    assert_eq!(sight(dir.path()).0, [(1, true), (2, false)]);
}

#[test]
fn what_is_forgotten_is_gone_from_the_disk_once_the_log_is_tidied() {
    let dir = tempfile::tempdir().expect("dir");
    let holds = |what: &str| {
        let bytes = fs::read(dir.path().join("attempts.log")).expect("reads");
        bytes.windows(what.len()).any(|window| window == what.as_bytes())
    };
    let named = |number, name: &str| {
        let mut one = assignment(number, u64::from(number));
        one.spec.name = Text::cut(name);
        one
    };
    let (first, second) = (named(1, "first secret"), named(2, "second secret"));
    let mut outbox = open(dir.path());
    begin(&mut outbox, &first);
    outbox.record(None, &result(&first, OutputLengths::default()), b"what it printed");
    begin(&mut outbox, &second);
    assert!(!outbox.is_untidy());
    outbox.discard(first.attempt);
    outbox.commit().expect("commits");
    assert!(outbox.is_untidy() && holds("first secret"));
    // A start finds it as well.
    let mut outbox = open(dir.path());
    assert!(outbox.is_untidy());
    // Where there is no room for a new file the old one is gone on with.
    let in_the_way = dir.path().join("attempts.new");
    fs::create_dir(&in_the_way).expect("makes a folder");
    outbox.tidy().expect_err("cannot");
    begin(&mut outbox, &named(3, "third"));
    assert_eq!(sight(dir.path()).0, [(2, false), (3, false)]);
    fs::remove_dir(&in_the_way).expect("removes");
    outbox.tidy().expect("tidies");
    assert!(!outbox.is_untidy() && !holds("first secret") && !holds("what it printed") && holds("second secret"));
    assert_eq!(sight(dir.path()).0, [(2, false), (3, false)]);
    assert!(!open(dir.path()).is_untidy());
}

#[test]
fn a_damaged_log_is_kept_for_a_while() {
    let dir = tempfile::tempdir().expect("dir");
    let (log, copy) = (dir.path().join("attempts.log"), dir.path().join("attempts.damaged"));
    let mut outbox = open(dir.path());
    begin(&mut outbox, &assignment(1, 1));
    begin(&mut outbox, &assignment(2, 2));
    let mut bytes = fs::read(&log).expect("reads");
    bytes[log::HEADER_BYTES] ^= 1;
    fs::write(&log, &bytes).expect("writes");
    let age = |days: u64| {
        let at = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        File::options().write(true).open(&copy).and_then(|copy| copy.set_modified(at)).expect("sets the time");
    };
    let mut outbox = open(dir.path());
    assert_eq!(fs::read(&copy).expect("is there"), bytes);
    age(6);
    outbox.tidy().expect("tidies");
    drop(open(dir.path()));
    assert!(copy.exists());
    age(8);
    outbox.tidy().expect("tidies");
    assert!(!copy.exists());
    fs::write(&copy, "").expect("writes");
    age(8);
    drop(open(dir.path()));
    assert!(!copy.exists());
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
