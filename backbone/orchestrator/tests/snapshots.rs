//! Snapshots: their bytes, and starts from good, broken, foreign and missing ones.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modchain_core::control::{Durable, DurableNode, EndedJob};
use modchain_core::deadline::Deadline;
use modchain_core::job::{Done, Job, Phase, Placement, Progress, StopWish, WishCause};
use modchain_core::ledger::Account;
use modchain_core::membership::{
    Accepted, Alarm, Binding, Certificate, Member, Revocation, Token, TokenEnd, TokenGrant, TokenState,
};
use modchain_core::node::Standing;
use modchain_core::scheduler::needs::Needs;
use modchain_core::scheduler::shares::Served;
use modchain_core::{Actor, Command, Control, Event, EventBody, Reply};
use modchain_orchestrator::clock::{Started, SystemSource};
use modchain_orchestrator::engine::{Engine, EngineOptions, SnapshotEvery, StartError, journal_dir, snapshots_dir};
use modchain_orchestrator::export::{ExportFormat, export};
use modchain_orchestrator::feed::Feed;
use modchain_orchestrator::founders::{Founder, Founders};
use modchain_orchestrator::store::journal::{Journal, OpenError, Place};
use modchain_orchestrator::store::snapshot::{SNAPSHOT_VERSION, Snapshot, Snapshots};
use modchain_orchestrator::store::space::Space;
use modchain_orchestrator::store::view::view_dir;
use modchain_orchestrator::verify::verify;
use modchain_types::*;
use support::{JOURNAL, TestDisk, endings, offer, other_tasks, spec, tariff, text, wasm_task};

fn account(name: &str) -> AccountId {
    name.parse().expect("an account")
}

/// A state with every variant of everything that one can hold.
fn sample() -> Durable {
    let (node, token, serial) = (NodeId([2; 16]), TokenId([5; 5]), CertificateSerial([0x7f; 16]));
    let certificate = Certificate {
        serial,
        key: KeyDigest([0xee; 32]),
        not_before: WallTime(1_790_000_000_000),
        not_after: WallTime(1_790_086_400_000),
    };
    let roles = [Role::Operator, Role::Client, Role::Node, Role::Orchestrator];
    let member = |(number, role): (u8, Role)| Member {
        identity: Identity {
            id: IdentityId([number; 16]),
            role,
            name: format!("m{number}").parse().expect("a name"),
            account: account("alice"),
        },
        joined_at: Timestamp(1),
        certificates: (0..number)
            .map(|at| Accepted { certificate, issued_at: Timestamp(2), used_at: (at > 0).then_some(Timestamp(3)) })
            .collect(),
        renewals: 4,
        revoked: (number == 0).then(|| Revocation {
            at: Timestamp(9),
            by: Some(IdentityId([1; 16])),
            why: text("sold"),
        }),
    };
    let states = [
        TokenState::Issued,
        TokenState::Bound,
        TokenState::Ended(TokenEnd::Spent),
        TokenState::Ended(TokenEnd::Expired),
        TokenState::Ended(TokenEnd::Revoked),
        TokenState::Ended(TokenEnd::Misused),
    ];
    let made = |(number, state): (u8, TokenState)| Token {
        id: TokenId([number; 5]),
        verifier: [6; 32],
        grant: TokenGrant { role: Role::Node, name: None, account: Some(account("bob")), rejoins: None },
        by: (number > 2).then_some(IdentityId([number; 16])),
        issued_at: Timestamp(10),
        expires_at: Timestamp(20),
        state,
        ended_at: (number > 1).then_some(Timestamp(15)),
        binding: (number == 1).then(|| Binding {
            identity: IdentityId([3; 16]),
            certificate,
            at: Timestamp(12),
            from: text("192.0.2.1"),
        }),
        alarms: (0..number % 2).map(|_| Alarm { at: Timestamp(13), from: text("192.0.2.9") }).collect(),
        wrong_proofs: 0,
    };
    let progress = [Progress::Assigned, Progress::Starting, Progress::Running { started_at: Timestamp(44) }];
    let done = endings().into_iter().map(|ending| {
        Progress::Done(Box::new(Done {
            ending,
            usage: Usage { ran: Span(1_234_567), prompt_tokens: 5, ..Usage::default() },
            output: OutputLengths { stdout: 300, stderr: 70_000, dropped: 9 },
            at: Timestamp(45),
        }))
    });
    let phases = progress.into_iter().chain(done).map(Some).chain([None]).enumerate();
    let jobs = phases.map(|(number, progress)| {
        let id = JobId([number as u8; 16]);
        let placement = progress.map(|progress| Placement {
            attempt: AttemptId { job: id, number: 7 },
            fence: Fence(99),
            node,
            tariff: Box::new(tariff()),
            reservation: Reservation { cpu_milli: 1000, memory_bytes: 1 << 30, ..Reservation::default() },
            run_limit: Span::from_secs(60),
            run_limit_reason: Reason::Budget,
            assigned_at: Timestamp(43),
            progress,
        });
        let spec = spec(TaskBody::Inline(other_tasks().pop().unwrap_or_else(wasm_task)));
        let image = (number % 2 == 0).then(|| text("alpine@sha256:00"));
        let causes = [None, Some(WishCause::Client), Some(WishCause::InputFailed(text("over its cap")))];
        Job {
            id,
            account: account("alice"),
            key: "key/1".parse().expect("a key"),
            needs: Needs::of(&spec, image.as_ref()).into(),
            spec: Box::new(spec),
            spec_digest: Digest([8; 32]),
            fee_basis_points: 500,
            queued_at: Timestamp(40),
            queued_number: 41,
            attempts_made: 7,
            attempts_counted: 6,
            avoided: [node].into(),
            image,
            stop: causes[number % 3].clone().map(|cause| StopWish { grace: Span::from_secs(10), cause }),
            phase: placement.map_or(Phase::Queued, |placement| Phase::Placed(Box::new(placement))),
        }
    });
    let (job, fence) = (JobId([1; 16]), Fence(99));
    let attempt = AttemptId { job, number: 7 };
    let identity = IdentityId([4; 16]);
    let deadlines = [
        Deadline::StartBy(job),
        Deadline::Accept(attempt, fence),
        Deadline::Prepare(attempt, fence),
        Deadline::Overdue(attempt, fence),
        Deadline::StopConfirm(attempt, fence),
        Deadline::Output(attempt, fence),
        Deadline::AttemptLost(attempt, fence),
        Deadline::NodeSuspect(node),
        Deadline::NodeLost(node),
        Deadline::CoolDown(node),
        Deadline::TokenExpires(token),
        Deadline::TokenBound(token),
        Deadline::CertificateRetires(identity, serial),
        Deadline::Drained(node),
        Deadline::RevokedWork(identity),
    ];
    let standings =
        [Standing::Open, Standing::Cordoned, Standing::Draining(None), Standing::Draining(Some(Timestamp(8)))];
    Durable {
        asset: Asset::Usdc,
        number: 1_000,
        at: Timestamp(2_000),
        started_at: Timestamp(5),
        last_fence: fence,
        accepted: Some(JournalId([0x77; 16])),
        fence_base: 1 << 40,
        balances: vec![
            (Account::Available(account("alice")), 70),
            (Account::Held(job), 20),
            (Account::Earnings(account("bob")), 9),
            (Account::Fees, 1),
            (Account::Custody, -100),
        ],
        deposits: vec![(text("credit"), "key/1".parse().expect("a key"), account("alice"), Micro(100))],
        accounts: vec![account("alice"), account("bob")],
        members: (0..).zip(roles).map(member).collect(),
        tokens: (0..).zip(states).map(made).collect(),
        ended_tokens: vec![(None, vec![TokenId([2; 5])]), (Some(identity), vec![TokenId([3; 5]), TokenId([4; 5])])],
        jobs: jobs.collect(),
        ended: (100..)
            .zip(JobState::ALL)
            .map(|(number, state)| {
                let (account, spec_digest) = (account("alice"), Digest([number; 32]));
                let (hold, finished, at) = (Micro(100_000), u64::from(number), Timestamp(1_000));
                (JobId([number; 16]), EndedJob { account, spec_digest, state, hold, finished, at })
            })
            .collect(),
        nodes: (0..)
            .zip(standings)
            .map(|(number, standing)| DurableNode {
                id: NodeId([number; 16]),
                name: format!("rig-{number}").parse().expect("a name"),
                account: account("bob"),
                offer: (number > 0).then(|| Box::new(offer())),
                standing,
                lost: number % 2 == 0,
                revoked: number == 3,
            })
            .collect(),
        deadlines: (50..).map(Timestamp).zip(deadlines).collect(),
        served: Vec::new(),
    }
}

fn snapshot(state: Durable) -> Snapshot {
    Snapshot {
        journal: JOURNAL,
        place: Place { number: state.number, hash: [0xcc; 32] },
        started: Started { at: Timestamp(5), boot: BootId([9; 16]), boot_clock: Span(77), wall: WallTime(-1) },
        state,
    }
}

/// Who was served when came later: it stands behind all that was there before.
#[test]
fn who_was_served_is_kept_behind_what_was_there_before() {
    const HASH_BYTES: usize = 32;
    let before = snapshot(sample()).encode().expect("encodes");
    let served = vec![(account("alice"), Served::At(300)), (account("bob"), Served::Never(9))];
    let with = snapshot(Durable { served, ..sample() });
    let bytes = with.encode().expect("encodes");
    assert!(bytes.starts_with(&before[..before.len() - HASH_BYTES]));
    let added = &bytes[before.len() - HASH_BYTES..bytes.len() - HASH_BYTES];
    assert_eq!(added, b"\x0c\x05alice\xfb\x2c\x01\x0b\x03bob\x09");
    assert_eq!(Snapshot::decode(&bytes).expect("decodes"), with);
}

#[test]
fn the_bytes_of_a_snapshot_are_those_of_the_golden_file() {
    let sample = snapshot(sample());
    let bytes = sample.encode().expect("encodes");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot.bin");
    if std::env::var("MODCHAIN_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, &bytes).expect("writes");
    }
    let golden = fs::read(&path).expect("a golden file");
    assert!(golden == bytes, "the bytes of snapshots have changed: raise SNAPSHOT_VERSION");
    assert_eq!(Snapshot::decode(&golden).expect("decodes"), sample);
}

#[test]
fn what_is_not_whole_or_of_another_version_is_no_snapshot() {
    let bytes = snapshot(sample()).encode().expect("encodes");
    for cut in (0..bytes.len()).step_by(97) {
        assert!(Snapshot::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in (0..bytes.len()).step_by(31) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x40;
        assert!(Snapshot::decode(&bytes).is_err(), "byte {at}");
    }
    let why = Snapshot::decode(&newer(&bytes)).expect_err("of a newer program");
    assert!(why.contains(&format!("format version is {}", SNAPSHOT_VERSION + 1)), "{why}");
}

/// As a newer program would write it.
fn newer(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len() - 32].to_vec();
    bytes[8..12].copy_from_slice(&(SNAPSHOT_VERSION + 1).to_le_bytes());
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

fn options(data: &Path, every: u64) -> EngineOptions {
    let time = SystemSource::new().expect("a clock");
    let founder = |role, name: &str| {
        let name: Name = name.parse().expect("a name");
        let mut id = [0; 16];
        id[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
        let identity = Identity { id: IdentityId(id), role, account: name.clone().into(), name };
        Founder { identity, certificate: None }
    };
    let members = vec![founder(Role::Operator, "root"), founder(Role::Client, "alice")];
    let space = Space::open(data, Some(0), Some(0)).expect("a disk");
    let founders = Founders { members, token: None };
    let mut options = EngineOptions::new(data, text("0.1.0"), Box::new(time), founders, Arc::new(space));
    options.disk = Box::new(TestDisk::default());
    options.snapshot_every = SnapshotEvery { events: every, bytes: u64::MAX };
    options
}

/// Works for a while: money and jobs come in and are cancelled again.
fn run(data: &Path, round: u64, every: u64) -> Durable {
    let by = |role, name: &str| Actor { id: IdentityId([0; 16]), role, account: account(name) };
    let engine = Engine::open(options(data, every), None, |_| {}).expect("opens");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (engine, _outlets, thread) = engine.spawn().expect("spawns");
        for number in 0..10u64 {
            let key = format!("{round}-{number}");
            let key: SubmitKey = key.parse().expect("a key");
            let credit = Command::Credit {
                by: by(Role::Operator, "root"),
                account: account("alice"),
                amount: Micro(10_000),
                key: key.clone(),
                why: text("test"),
            };
            assert_eq!(engine.command(credit).await, Ok(Reply::Done));
            let mut spec = support::bare_spec();
            spec.max_cost = Micro(1_000 + number);
            let submit = Command::Submit {
                by: by(Role::Client, "alice"),
                key,
                spec: Box::new(spec),
                spec_digest: Digest([1; 32]),
                no_queue: false,
            };
            let Ok(Reply::Submitted { job, .. }) = engine.command(submit).await else { panic!("refused") };
            if number % 2 == 0 {
                let cancel =
                    Command::Cancel { by: by(Role::Client, "alice"), job, grace: Span::ZERO, why: Text::default() };
                assert!(matches!(engine.command(cancel).await, Ok(Reply::Cancelling { .. })));
            }
        }
        let state = engine.query(|control, _| control.durable()).await.expect("answers");
        engine.stop().await.expect("stops");
        assert!(tokio::task::spawn_blocking(|| thread.join()).await.expect("joins"));
        state
    })
}

fn files(data: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(snapshots_dir(data)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// What a replay of the whole journal makes of it, as it is when the engine opens next: every start is an event.
fn replayed(data: &Path) -> (Durable, Vec<Event>) {
    let mut control = Control::new(modchain_core::ControlConfig::new(Asset::Test));
    let mut events = Vec::new();
    modchain_orchestrator::store::journal::walk(&journal_dir(data), |batch| {
        batch.iter().for_each(|event| control.evolve(event));
        events.extend(batch);
    })
    .expect("whole");
    (control.durable(), events)
}

fn pool() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(journal_dir(dir.path())).expect("makes");
    Journal::create(&journal_dir(dir.path()), JOURNAL, Asset::Test).expect("makes");
    dir
}

#[test]
fn a_start_from_a_snapshot_comes_to_the_state_of_the_whole_journal_and_reads_only_what_follows() {
    let dir = pool();
    for round in 0..4 {
        let left = run(dir.path(), round, 17);
        let (whole, events) = replayed(dir.path());
        assert_eq!(left, whole, "round {round}");
        let kept = files(dir.path());
        assert_eq!(kept.len(), if round == 0 { 1 } else { 2 }, "the two newest stay: {kept:?}");
        let newest = Snapshot::decode(&fs::read(&kept[kept.len() - 1]).expect("reads")).expect("good");
        let mut seen = Vec::new();
        let engine =
            Engine::open(options(dir.path(), 1000), Some(newest.place.number), |event| seen.push(event.clone()));
        let state = engine.expect("opens").control().durable();
        assert_eq!(seen[..seen.len() - 1], events[newest.place.number as usize..], "and the start itself");
        assert!(matches!(seen[seen.len() - 1].body, EventBody::EngineStarted { .. }));
        assert_eq!(state, replayed(dir.path()).0);
        // Who wants to see everything sees everything.
        let mut all = 0;
        Engine::open(options(dir.path(), 1000), Some(0), |_| all += 1).expect("opens");
        assert_eq!(all, replayed(dir.path()).1.len());
    }
    verify(dir.path()).expect("whole");
}

/// Opens the engine and what consoles are shown, as `serve` does. Tells the numbers of the events that the feed was given.
fn open_with_feed(data: &Path) -> Result<(Feed, Vec<u64>), StartError> {
    let mut feed = Feed::open(JOURNAL, Asset::Test, &view_dir(data)).expect("opens");
    let mut given = Vec::new();
    Engine::open(options(data, 1000), Some(feed.upto()), |event| {
        given.push(event.number);
        feed.replay(event).expect("the view is written");
    })?;
    feed.write_replayed().expect("the view is written");
    feed.view().flush().expect("flushes");
    Ok((feed, given))
}

#[test]
fn a_start_gives_the_feed_what_the_view_lacks_and_nothing_else() {
    let dir = pool();
    let last = || replayed(dir.path()).0.number;
    let mut known = 0;
    for round in 0..4 {
        // Meanwhile nobody writes the view: it falls behind the newest snapshot.
        run(dir.path(), round, 17);
        let (feed, given) = open_with_feed(dir.path()).expect("opens");
        assert!(given.iter().copied().eq(known + 1..=last()), "round {round}: {given:?} after {known}");
        known = last();
        assert_eq!((feed.upto(), feed.view().applied()), (known, known));
    }
    // It is up to date, and of the whole journal the start alone is left.
    assert_eq!(open_with_feed(dir.path()).expect("opens").1, [known + 1]);
    fs::remove_dir_all(snapshots_dir(dir.path())).expect("removes");
    assert_eq!(open_with_feed(dir.path()).expect("opens").1, [known + 2], "whatever became of the snapshots");
    fs::remove_dir_all(view_dir(dir.path())).expect("removes");
    assert!(open_with_feed(dir.path()).expect("opens").1.into_iter().eq(1..=known + 3), "everything");
}

#[test]
fn a_journal_that_lost_what_the_view_knows_is_not_gone_on_with_however_often_it_is_tried() {
    let dir = pool();
    run(dir.path(), 0, 1000);
    let older: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(journal_dir(dir.path()))
        .expect("reads")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("reads")))
        .collect();
    let lost = replayed(dir.path()).0.number;
    run(dir.path(), 1, 1000);
    let (feed, _) = open_with_feed(dir.path()).expect("opens");
    let known = feed.upto();
    drop(feed);
    fs::remove_dir_all(journal_dir(dir.path())).expect("removes");
    fs::create_dir(journal_dir(dir.path())).expect("makes");
    older.iter().for_each(|(path, bytes)| fs::write(path, bytes).expect("writes"));
    for _ in 0..3 {
        match open_with_feed(dir.path()) {
            Err(StartError::Gone { observed, last }) => assert_eq!((observed, last), (known, lost)),
            other => panic!("{:?}", other.map(|(_, given)| given)),
        }
        assert_eq!(replayed(dir.path()).0.number, lost, "a start that is refused leaves no event");
    }
    fs::remove_dir_all(view_dir(dir.path())).expect("removes");
    assert!(open_with_feed(dir.path()).is_ok(), "whoever knows better can go on");
}

#[test]
fn snapshots_that_cannot_be_used_are_passed_over() {
    let dir = pool();
    run(dir.path(), 0, 15);
    run(dir.path(), 1, 15);
    let good = files(dir.path());
    let (older, newest) = (fs::read(&good[0]).expect("reads"), fs::read(&good[1]).expect("reads"));
    let mut broken = newest.clone();
    broken[200] ^= 1;
    let foreign = Snapshot { journal: JournalId([1; 16]), ..Snapshot::decode(&newest).expect("good") };
    let mut elsewhere = Snapshot::decode(&newest).expect("good");
    elsewhere.place.hash[0] ^= 1;
    let (foreign, elsewhere) = (foreign.encode().expect("encodes"), elsewhere.encode().expect("encodes"));
    let half = newest[..newest.len() / 2].to_vec();
    for (what, bytes) in
        [("broken", broken), ("foreign", foreign), ("elsewhere", elsewhere), ("half", half), ("newer", newer(&newest))]
    {
        fs::write(&good[0], &older).expect("writes");
        fs::write(&good[1], &bytes).expect("writes");
        let left = fs::write(good[1].with_extension("tmp"), &bytes);
        left.expect("writes");
        let opened =
            Engine::open(options(dir.path(), 1000), None, |_| {}).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(opened.control().durable(), replayed(dir.path()).0, "{what}, the one before");
        assert!(!good[1].with_extension("tmp").exists(), "what a crash left is removed");
        fs::write(&good[0], &bytes).expect("writes");
        let opened =
            Engine::open(options(dir.path(), 1000), None, |_| {}).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(opened.control().durable(), replayed(dir.path()).0, "{what}, no other");
    }
    fs::remove_dir_all(snapshots_dir(dir.path())).expect("removes");
    let opened = Engine::open(options(dir.path(), 1000), None, |_| {}).expect("opens");
    assert_eq!(opened.control().durable(), replayed(dir.path()).0, "none");
}

#[test]
fn a_journal_that_lost_what_a_snapshot_knows_is_not_served() {
    let dir = pool();
    run(dir.path(), 0, 15);
    let early = fs::read(journal_dir(dir.path()).join("00000000000000000001.seg")).expect("reads");
    run(dir.path(), 1, 15);
    fs::write(journal_dir(dir.path()).join("00000000000000000001.seg"), early).expect("writes");
    let Err(StartError::Journal(OpenError::Lost { last, known, .. })) =
        Engine::open(options(dir.path(), 1000), None, |_| {})
    else {
        panic!("acknowledged events are missing")
    };
    assert!(last < known, "{last}, {known}");
    fs::remove_dir_all(snapshots_dir(dir.path())).expect("removes");
    Engine::open(options(dir.path(), 1000), None, |_| {}).expect("whoever knows better can go on");
}

#[test]
fn no_more_than_two_are_kept_and_one_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let snapshots = Snapshots::at(&dir.path().join("snapshots"));
    for number in [10, 20, 30] {
        let path = snapshots.write(&snapshot(Durable { number, ..sample() })).expect("writes");
        let read = Snapshot::decode(&fs::read(path).expect("reads")).expect("good");
        assert_eq!(read.state.number, number);
    }
    let names: Vec<_> =
        fs::read_dir(snapshots.dir()).expect("reads").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn exported_postings_balance_and_are_the_balances() {
    let dir = pool();
    run(dir.path(), 0, 1_000);
    let state = run(dir.path(), 1, 1_000);
    let mut csv = Vec::new();
    let lines = export(dir.path(), ExportFormat::Csv, &mut csv).expect("exports");
    let csv = String::from_utf8(csv).expect("text");
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some("number,at,transfer,subject,account,amount_micro,currency"));
    let (mut sums, mut balances) = (BTreeMap::new(), BTreeMap::new());
    let mut count = 0;
    for row in rows {
        let fields: Vec<&str> = row.split(',').collect();
        let [number, _, _, _, account, amount, "TEST"] = fields[..] else { panic!("{row}") };
        let amount: i128 = amount.parse().expect("a number");
        *sums.entry(number.to_owned()).or_insert(0) += amount;
        *balances.entry(account.to_owned()).or_insert(0) += amount;
        count += 1;
    }
    assert_eq!((count, lines), (20 * 2 + 20 * 2 + 10 * 3, count));
    assert!(sums.values().all(|sum| *sum == 0), "{sums:?}");
    balances.retain(|_, balance| *balance != 0);
    let named = |account: &Account| match account {
        Account::Available(account) => format!("available:{account}"),
        Account::Held(job) => format!("held:{job}"),
        Account::Earnings(account) => format!("earnings:{account}"),
        Account::Fees => "fees".to_owned(),
        Account::Custody => "custody".to_owned(),
    };
    let expected: BTreeMap<String, i128> =
        state.balances.iter().map(|(account, balance)| (named(account), *balance)).collect();
    assert_eq!(balances, expected);

    let mut json = Vec::new();
    assert_eq!(export(dir.path(), ExportFormat::JsonLines, &mut json).expect("exports"), lines);
    let parsed = String::from_utf8(json).expect("text");
    let parsed: Vec<serde_json::Value> = parsed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(parsed.len() as u64, lines);
    assert!(parsed.iter().all(|line| line["schema"] == "modchain.posting/v1" && line["amount"]["micro"].is_i64()));
}

#[test]
#[ignore = "measures: run it alone, in a release build"]
fn the_time_of_a_start_with_a_million_events() {
    let dir = pool();
    let mut journal =
        Journal::open_with(&journal_dir(dir.path()), |_| {}, Box::new(TestDisk::default()), 64 << 20).expect("opens");
    let mut control = Control::new(modchain_core::ControlConfig::new(Asset::Test));
    let mut batch = Vec::new();
    let by = |role, name: &str| Actor { id: IdentityId([0; 16]), role, account: account(name) };
    let started =
        Command::EngineStarted { boot: BootId([1; 16]), boot_clock: Span::ZERO, wall: WallTime(0), version: text("0") };
    batch.extend(control.apply(Timestamp(1), started).events);
    for founder in options(dir.path(), 1).founders.members {
        let Founder { identity, certificate } = founder;
        batch.extend(control.apply(Timestamp(1), Command::AddIdentity { identity, certificate }).events);
    }
    for number in 0u64.. {
        if control.last_number() >= 1_000_000 {
            break;
        }
        let at = Timestamp(2 + number);
        let key: SubmitKey = number.to_string().parse().expect("a key");
        if number % 1000 == 0 {
            let (by, account) = (by(Role::Operator, "root"), account("alice"));
            let credit = Command::Credit { by, account, amount: Micro(1_000_000), key: key.clone(), why: text("") };
            batch.extend(control.apply(at, credit).events);
        }
        let mut spec = support::bare_spec();
        spec.max_cost = Micro(1_000);
        let alice = by(Role::Client, "alice");
        let submit = Command::Submit {
            by: alice.clone(),
            key,
            spec: Box::new(spec),
            spec_digest: Digest([1; 32]),
            no_queue: false,
        };
        let decision = control.apply(at, submit);
        let Some(Reply::Submitted { job, .. }) = decision.reply else { panic!("{:?}", decision.reply) };
        batch.extend(decision.events);
        let cancel = Command::Cancel { by: alice, job, grace: Span::ZERO, why: Text::default() };
        batch.extend(control.apply(at, cancel).events);
        if batch.len() > 500 {
            journal.append(&batch).expect("appends");
            batch.clear();
        }
    }
    journal.append(&batch).expect("appends");
    let place = journal.place();
    drop(journal);
    let time = |what: &str| {
        let began = std::time::Instant::now();
        let engine = Engine::open(options(dir.path(), u64::MAX), None, |_| {}).expect("opens");
        println!("{what}: {:?} for {} events", began.elapsed(), engine.control().last_number());
    };
    time("the whole journal");
    let began = std::time::Instant::now();
    let state = control.durable();
    println!("copying the state: {:?}", began.elapsed());
    let started = Started { at: Timestamp(1), boot: BootId([1; 16]), boot_clock: Span::ZERO, wall: WallTime(0) };
    let kept = Snapshot { journal: JOURNAL, place, started, state };
    let path = Snapshots::at(&snapshots_dir(dir.path())).write(&kept).expect("writes");
    println!("writing it: {:?}, {} bytes", began.elapsed(), fs::metadata(path).expect("it is there").len());
    time("from the snapshot");
    for what in ["with what consoles are shown, which is made anew", "the same from the snapshot and the view"] {
        let began = std::time::Instant::now();
        let (_, given) = open_with_feed(dir.path()).expect("opens");
        println!("{what}: {:?}, {} events for the feed", began.elapsed(), given.len());
    }
}
