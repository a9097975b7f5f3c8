//! The view of what has ended: against a list that is searched by hand, after crashes and damage, and with a million jobs.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use modchain_orchestrator::store::view::{EntriesWanted, EventRow, JobRow, Rows, View, Wanted};
use modchain_types::*;
use modchain_wire::Sentence;
use modchain_wire::view::{EventKind, EventView, JobView, LedgerEntryView, LedgerKind};
use support::{JOURNAL, text};

/// A small generator; the same seed makes the same rows.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

const STATES: [JobState; 5] =
    [JobState::Completed, JobState::Failed, JobState::TimedOut, JobState::Cancelled, JobState::Expired];

fn account(number: u64) -> AccountId {
    format!("account-{number}").parse().expect("an account")
}

/// A job made by the event `number` and ended by the one after it.
fn job(number: u64, dice: &mut Dice) -> JobRow {
    let labels: std::collections::BTreeMap<_, _> =
        (0..dice.roll(3)).map(|label| (text(&format!("label-{label}")), text(&dice.roll(3).to_string()))).collect();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let view = JobView {
        id: JobId(id),
        name: text(["eval", "train-1", "train-2", "x"][dice.roll(4) as usize]),
        account: account(dice.roll(3)),
        adapter: Adapter::Wasm,
        what: text("primes.wat 100"),
        state: STATES[if dice.roll(4) > 0 { 0 } else { dice.roll(5) as usize }],
        reason: Some(Reason::Exit),
        exit: Some(Exit::job(0)),
        message: Sentence::default(),
        node: Some("rig-1".parse().expect("a name")),
        attempts: List::default(),
        hold: Micro(100_000),
        cost: Micro(1_000),
        fee: Micro(50),
        refund: Micro(99_000),
        price_per_hour: Some(Micro(1)),
        labels: Map::new(labels).expect("it fits"),
        run_limit: Some(Span::from_secs(60)),
        time_limit: None,
        attempts_max: 3,
        usage: Usage::default(),
        output: OutputLengths::default(),
        preparing: Text::default(),
        image: None,
        model: None,
        gpus: List::default(),
        created_at: moment(number),
        started_at: None,
        ended_at: Some(moment(number + 1)),
    };
    JobRow { number, finished: number + 1, events: vec![number, number + 1], view }
}

/// The calendar was set back some times, by the time of thousands of events.
fn moment(number: u64) -> WallTime {
    let back = [(4_000, 1_500), (9_000, 3_000), (40_000, 12_000)]
        .iter()
        .filter(|(from, _)| number >= *from)
        .map(|(_, back)| back);
    WallTime((number as i64 - back.sum::<i64>()) * 10)
}

fn entry(number: u64, kind: LedgerKind, job: Option<JobId>) -> LedgerEntryView {
    let (at, balance) = (moment(number), Micro(number));
    LedgerEntryView { number, at, kind, amount: -7, balance, job, text: text("held") }
}

fn event(number: u64, job: Option<JobId>, audience: Option<&str>) -> EventRow {
    let view = EventView {
        number,
        at: moment(number),
        kind: EventKind::Job,
        job,
        attempt: None,
        node: None,
        account: None,
        from: None,
        to: None,
        reason: None,
        text: text("submitted"),
    };
    EventRow { audience: audience.map(text), view }
}

/// Rows of `count` jobs: three events each, the third a deposit.
fn rows(first: u64, count: u64, dice: &mut Dice) -> Rows {
    sparse_rows(first, count, 3, dice)
}

/// As [`rows`], each job so many events after the one before.
fn sparse_rows(first: u64, count: u64, apart: u64, dice: &mut Dice) -> Rows {
    let mut rows = Rows { upto: first - 1, ..Rows::default() };
    for number in (0..count).map(|job| first + apart * job) {
        let row = job(number, dice);
        let (id, of) = (row.view.id, row.view.account.clone());
        rows.entries.push((of.clone(), entry(number, LedgerKind::Hold, Some(id))));
        rows.entries.push((of.clone(), entry(number + 1, LedgerKind::Settle, Some(id))));
        rows.entries.push((of.clone(), entry(number + 1, LedgerKind::Release, Some(id))));
        rows.entries.push((account(9), entry(number + 1, LedgerKind::Fee, Some(id))));
        rows.entries.push((of.clone(), entry(number + 2, LedgerKind::Deposit, None)));
        rows.events.push(event(number, Some(id), Some(of.as_str())));
        rows.events.push(event(number + 1, Some(id), Some(of.as_str())));
        rows.events.push(event(number + 2, None, None));
        rows.jobs.push(row);
        rows.upto = number + 2;
    }
    rows
}

/// The store under a view that was closed, once it has let go of its files.
fn store_at(place: &std::path::Path) -> sled::Db {
    loop {
        match sled::open(place) {
            Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock") => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.expect("opens"),
        }
    }
}

/// A question about jobs that are so many events apart.
fn wanted(apart: u64, dice: &mut Dice) -> Wanted {
    Wanted {
        account: (dice.roll(2) == 0).then(|| account(dice.roll(4))),
        states: (0..dice.roll(3)).map(|_| STATES[dice.roll(5) as usize]).collect(),
        labels: (0..dice.roll(3))
            .map(|label| (text(&format!("label-{label}")), text(&dice.roll(3).to_string())))
            .collect(),
        prefix: match dice.roll(8) {
            0 => "train".to_owned(),
            1 => "x".to_owned(),
            2 => "nothing".to_owned(),
            chars @ (3 | 4) => {
                let id = job(1 + apart * dice.roll(320), &mut Dice(1)).view.id.to_string();
                let length = if chars == 3 { "j-".len() + 1 } else { 1 + dice.roll(id.len() as u64) as usize };
                id[..length].to_owned()
            }
            _ => String::new(),
        },
        since: (dice.roll(3) == 0).then(|| WallTime(dice.roll(apart * 2_400) as i64)),
        below: u64::MAX,
        limit: 1 + dice.roll(40) as usize,
    }
}

fn is_wanted(row: &JobRow, wanted: &Wanted) -> bool {
    wanted.account.as_ref().is_none_or(|account| row.view.account == *account)
        && (wanted.states.is_empty() || wanted.states.contains(&row.view.state))
        && wanted.labels.iter().all(|(label, value)| row.view.labels.get(label) == Some(value))
        && (row.view.name.starts_with(&wanted.prefix) || row.view.id.to_string().starts_with(&wanted.prefix))
        && wanted.since.is_none_or(|since| row.view.created_at >= since)
}

#[test]
fn pages_of_every_question_together_are_what_a_search_by_hand_finds() {
    // Some blocks with dozens of jobs in each and a handful in a column; one block with many in each column.
    check_pages(230, 250);
    check_pages(15, 150);
}

fn check_pages(apart: u64, rounds: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let view = View::open(dir.path(), JOURNAL).expect("opens");
    let mut dice = Dice(7);
    let mut rows = Rows::default();
    let mut gone = BTreeSet::new();
    for piece in 0..10 {
        let mut more = sparse_rows(1 + piece * 30 * apart, 30, apart, &mut dice);
        rows.jobs.extend(more.jobs.iter().cloned());
        // Some of any age are no longer kept, and some never were.
        more.forgotten = (0..6).map(|_| rows.jobs[dice.roll(rows.jobs.len() as u64) as usize].view.id).collect();
        gone.extend(more.forgotten.iter().copied());
        view.apply(&more).expect("applies");
    }
    let blocks = rows.jobs[299].number / 16_384 + 1;
    rows.jobs.retain(|row| !gone.contains(&row.view.id));
    for round in 0..rounds {
        let mut asked = wanted(apart, &mut dice);
        let expected: Vec<&JobRow> = rows.jobs.iter().rev().filter(|row| is_wanted(row, &asked)).collect();
        let mut found = Vec::new();
        loop {
            let page = view.jobs(&asked).expect("answers");
            assert_eq!(page.total, expected.len() as u64, "round {round}: {asked:?}");
            assert!(page.items.len() == asked.limit || !page.more, "a page is full if there are more");
            assert!(page.blocks <= blocks, "{} blocks for {asked:?}", page.blocks);
            let more = page.more;
            asked.below = page.items.last().map_or(0, |row| row.number);
            found.extend(page.items);
            if !more {
                break;
            }
        }
        assert!(found.iter().eq(expected.iter().copied()), "round {round}: {asked:?}");
    }
    for row in rows.jobs.iter().step_by(17) {
        assert_eq!(view.job(row.view.id).expect("answers").as_ref(), Some(row));
        let named = view.named(Some(&row.view.account), &row.view.name, 1_000).expect("answers");
        assert!(named.contains(&row.view.id));
        assert!(!view.named(Some(&account(8)), &row.view.name, 1_000).expect("answers").contains(&row.view.id));
        let range = (row.view.id, row.view.id);
        assert_eq!(view.between(None, range, 10).expect("answers"), [row.view.id]);
        assert!(view.between(Some(&account(8)), range, 10).expect("answers").is_empty());
    }
    assert_eq!(view.job(JobId([0xaa; 16])).expect("answers"), None);
    assert!(gone.len() > 30);
    for id in gone {
        assert_eq!(view.job(id).expect("answers"), None);
        assert!(view.between(None, (id, id), 10).expect("answers").is_empty());
    }
}

/// All that is in the store under a view that was closed.
fn everything_at(place: &std::path::Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let tree = store_at(place).open_tree("view").expect("it has rows");
    let pairs = tree.iter().map(|pair| pair.expect("reads"));
    pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

#[test]
fn a_job_that_is_forgotten_leaves_what_a_job_leaves_that_never_was_but_for_entries_and_events() {
    let dir = tempfile::tempdir().expect("a directory");
    let make = |first| sparse_rows(first, 40, 60, &mut Dice(first));
    let applied = |name: &str, batches: &[&Rows]| {
        let view = View::open(&dir.path().join(name), JOURNAL).expect("opens");
        batches.iter().for_each(|rows| view.apply(rows).expect("applies"));
        view.flush().expect("flushes");
        drop(view);
        everything_at(&dir.path().join(name))
    };
    for every in [1, 2, 7] {
        let is_kept = |at: usize| !at.is_multiple_of(every);
        let ids = |rows: &Rows| -> Vec<JobId> {
            rows.jobs.iter().enumerate().filter(|(at, _)| !is_kept(*at)).map(|(_, row)| row.view.id).collect()
        };
        let few = |mut rows: Rows| {
            let mut at = 0..;
            rows.jobs.retain(|_| is_kept(at.next().expect("no end")));
            rows
        };
        let (one, mut two) = (make(1), make(2_401));
        // Jobs of before and of this very batch, one twice, and one that nobody knows.
        two.forgotten = [ids(&one), ids(&two), ids(&one)[..1].to_vec(), vec![JobId([0xaa; 16])]].concat();
        let forgotten = applied(&format!("forgotten-{every}"), &[&one, &two]);
        let never = applied(&format!("never-{every}"), &[&few(make(1)), &few(make(2_401))]);
        assert!(forgotten == never, "every {every}");
        if every == 1 {
            let kinds: BTreeSet<u8> = forgotten.keys().map(|key| key[0]).collect();
            assert_eq!(kinds, BTreeSet::from(*b"EDVM"));
        }
        // A replay from the beginning, as after a crash, and the same once more: nothing comes back, nothing else goes.
        let mut all = make(1);
        all.jobs.extend(two.jobs.iter().cloned());
        all.entries.extend(two.entries.iter().cloned());
        all.events.extend(two.events.iter().cloned());
        (all.upto, all.forgotten) = (two.upto, two.forgotten.clone());
        let again = Rows { upto: two.upto + 1, forgotten: two.forgotten.clone(), ..Rows::default() };
        let view = View::open(&dir.path().join(format!("forgotten-{every}")), JOURNAL).expect("opens");
        let total = |view: &View| {
            let newest = Wanted { below: u64::MAX, limit: 100, ..Wanted::default() };
            view.jobs(&newest).expect("answers").total
        };
        let before = total(&view);
        for rows in [&all, &again] {
            view.apply(rows).expect("passes over");
            assert_eq!((total(&view), view.failure()), (before, None));
        }
    }
}

/// As a walk meets it that has read the sets of a block just before the job was forgotten; and as it is where a row is lost.
#[test]
fn a_job_that_goes_while_a_page_is_made_is_not_on_it_and_one_that_has_lost_its_row_is_damage() {
    let lonely = 1;
    let newest = Wanted { below: u64::MAX, limit: 100, ..Wanted::default() };
    let of = Wanted { account: Some(account(1)), ..newest.clone() };
    for (removed, asked) in [("JB", &newest), ("JB", &of), ("J", &newest), ("J", &of)] {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("view");
        let view = View::open(&place, JOURNAL).expect("opens");
        let mut rows = rows(lonely, 1, &mut Dice(3));
        rows.jobs[0].view.account = account(1);
        view.apply(&rows).expect("applies");
        view.apply(&sparse_rows(100_000, 9, 30, &mut Dice(4))).expect("applies");
        view.flush().expect("flushes");
        drop(view);
        let database = store_at(&place);
        let tree = database.open_tree("view").expect("it has rows");
        for kind in removed.bytes() {
            let number: u64 = if kind == b'J' { lonely } else { 0 };
            assert!(tree.remove([&[kind][..], &number.to_be_bytes()].concat()).expect("removes").is_some());
        }
        drop((tree, database));
        let view = View::open(&place, JOURNAL).expect("opens");
        let found = view.jobs(asked);
        drop(view);
        let anew = View::open(&place, JOURNAL).expect("opens").applied() == 0;
        match removed {
            "JB" => {
                let found = found.expect("it was forgotten meanwhile");
                assert!(!found.items.is_empty() && found.items.iter().all(|row| row.number != lonely) && !anew);
            }
            _ => assert!(found.is_err() && anew, "{found:?}"),
        }
    }
}

#[test]
fn who_asks_while_jobs_come_and_go_gets_an_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let view = View::open(dir.path(), JOURNAL).expect("opens");
    let of_one = Wanted { below: u64::MAX, limit: 20, account: Some(account(1)), ..Wanted::default() };
    let everything = Wanted { account: None, ..of_one.clone() };
    let named = Wanted { prefix: "train".into(), ..everything.clone() };
    let all_ids = (JobId([0; 16]), JobId([0xff; 16]));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut older = Vec::new();
            for round in 0..20 {
                let mut more = rows(1 + 150 * round, 50, &mut Dice(1 + round));
                more.forgotten = std::mem::replace(&mut older, more.jobs.iter().map(|row| row.view.id).collect());
                view.apply(&more).expect("applies");
            }
        });
        loop {
            let ended = writer.is_finished();
            for asked in [&of_one, &everything, &named] {
                let found = view.jobs(asked).expect("answers");
                assert!(found.items.is_sorted_by(|newer, older| newer.number > older.number));
                assert!(found.items.iter().all(|row| is_wanted(row, asked)));
            }
            view.named(None, "eval", 100).expect("answers");
            view.last_ended(&account(1), 100).expect("answers");
            for id in view.between(None, all_ids, 100).expect("answers") {
                view.job(id).expect("answers");
            }
            if ended {
                break;
            }
        }
    });
    assert_eq!((view.failure(), view.jobs(&everything).expect("answers").total), (None, 50));
}

#[test]
fn statements_and_events_page_without_gap_or_repeat() {
    let dir = tempfile::tempdir().expect("a directory");
    let view = View::open(dir.path(), JOURNAL).expect("opens");
    let mut dice = Dice(11);
    let rows = rows(1, 200, &mut dice);
    view.apply(&rows).expect("applies");
    let job = rows.jobs[50].view.id;
    let of = rows.jobs[50].view.account.clone();
    for (kind, about, since) in [
        (None, None, None),
        (Some(LedgerKind::Deposit), None, None),
        (Some(LedgerKind::Settle), None, Some(WallTime(2_000))),
        (Some(LedgerKind::Earning), None, None),
        (None, None, Some(WallTime(3_333))),
        (None, Some(job), None),
    ] {
        let expected: Vec<&LedgerEntryView> = rows
            .entries
            .iter()
            .rev()
            .filter(|(account, entry)| {
                *account == of
                    && kind.is_none_or(|kind| entry.kind == kind)
                    && about.is_none_or(|job| entry.job == Some(job))
                    && since.is_none_or(|since| entry.at >= since)
            })
            .map(|(_, entry)| entry)
            .collect();
        let (mut found, mut below) = (Vec::new(), None);
        loop {
            let asked = EntriesWanted { since, kind, job: about, made: None, below, limit: 7 };
            let (page, more) = view.entries(&of, &asked).expect("answers");
            below = page.last().map(|entry| entry.number);
            found.extend(page);
            if !more {
                break;
            }
        }
        assert!(found.iter().eq(expected.iter().copied()), "{kind:?} {about:?}: {} of {}", found.len(), expected.len());
    }
    for (after, upto, max) in [(0, 600, 50), (63, 64, 9), (64, 600, 1), (599, 600, 5), (600, 600, 5), (10, 200, 500)] {
        let takes = |row: &EventRow| row.audience.is_some();
        let (mut found, mut seen) = (Vec::new(), after);
        loop {
            let (page, reached) = view.events(seen, upto, None, max, takes).expect("answers");
            assert!(page.len() <= max);
            let ended = page.is_empty();
            found.extend(page);
            seen = reached;
            if ended {
                break;
            }
        }
        let between = |row: &&EventRow| row.view.number > after && row.view.number <= upto && takes(row);
        let expected: Vec<&EventView> = rows.events.iter().filter(between).map(|row| &row.view).collect();
        assert!(found.iter().eq(expected.iter().copied()), "after {after} up to {upto}");
    }
}

#[test]
fn a_statement_of_a_job_that_has_not_ended_and_one_since_a_calendar_was_set_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let view = View::open(dir.path(), JOURNAL).expect("opens");
    let live = JobId([0xbb; 16]);
    let hold = (account(1), entry(1, LedgerKind::Hold, Some(live)));
    view.apply(&Rows { upto: 1, entries: vec![hold.clone()], ..Rows::default() }).expect("applies");
    let asked = EntriesWanted { job: Some(live), limit: 9, ..EntriesWanted::default() };
    assert!(view.entries(&account(1), &asked).expect("answers").0.is_empty(), "it is in no row of a job");
    let asked = EntriesWanted { made: Some(1), ..asked };
    assert_eq!(view.entries(&account(1), &asked).expect("answers"), (vec![hold.1], false));
    let rows = rows(3_100, 2_500, &mut Dice(2));
    view.apply(&rows).expect("applies");
    for since in [26_000, 38_000, 60_000, 64_000, 80_000].map(WallTime) {
        for kind in [None, Some(LedgerKind::Deposit)] {
            let asked = EntriesWanted { since: Some(since), kind, limit: 10_000, ..EntriesWanted::default() };
            let (found, more) = view.entries(&account(1), &asked).expect("answers");
            let expected = rows.entries.iter().rev().filter(|(of, entry)| {
                *of == account(1) && entry.at >= since && kind.is_none_or(|kind| entry.kind == kind)
            });
            assert!(found.iter().eq(expected.map(|(_, entry)| entry)) && !more, "{since:?} {kind:?}");
        }
        let (mut found, mut seen) = (Vec::new(), 3_100);
        while seen < rows.upto {
            let (page, reached) =
                view.events(seen, rows.upto, Some(since), 500, |row| row.view.at >= since).expect("answers");
            found.extend(page);
            seen = reached;
        }
        let expected =
            rows.events.iter().map(|row| &row.view).filter(|event| event.number > 3_100 && event.at >= since);
        assert!(found.iter().eq(expected), "events since {since:?}");
    }
}

/// Every other row is made unreadable, so that one look at it is an error.
#[test]
fn a_page_reads_the_rows_of_its_own_jobs_and_of_no_others_whatever_is_asked() {
    let newest = Wanted { below: u64::MAX, limit: 5, ..Wanted::default() };
    let labelled = |label: &str, value: &str| (text(label), text(value));
    let questions = [
        newest.clone(),
        Wanted { account: Some(account(1)), ..newest.clone() },
        Wanted { states: vec![JobState::Expired], ..newest.clone() },
        Wanted { states: vec![JobState::Expired, JobState::Failed], account: Some(account(2)), ..newest.clone() },
        Wanted { labels: vec![labelled("label-1", "2")], account: Some(account(0)), ..newest.clone() },
        Wanted { labels: vec![labelled("label-0", "1"), labelled("label-1", "2")], ..newest.clone() },
        Wanted { labels: vec![labelled("label-0", "1"), labelled("label-0", "2")], ..newest.clone() },
        Wanted { labels: vec![labelled("none", "such")], ..newest.clone() },
        Wanted { prefix: "train-1".into(), since: Some(WallTime(150_000)), ..newest.clone() },
        Wanted { prefix: "j-".into(), states: vec![JobState::TimedOut], ..newest.clone() },
        Wanted { prefix: "j-4".into(), ..newest.clone() },
        Wanted { prefix: "nothing".into(), ..newest.clone() },
        Wanted { since: Some(WallTime(360_000)), account: Some(account(1)), ..newest.clone() },
        Wanted { below: 40_700, ..newest.clone() },
    ];
    for asked in questions {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("view");
        let view = View::open(&place, JOURNAL).expect("opens");
        let rows = sparse_rows(1, 400, 150, &mut Dice(3));
        view.apply(&rows).expect("applies");
        view.flush().expect("flushes");
        drop(view);
        let all: Vec<&JobRow> = rows.jobs.iter().rev().filter(|row| is_wanted(row, &asked)).collect();
        let expected: Vec<&JobRow> = all.iter().filter(|row| row.number < asked.below).take(5).copied().collect();
        let database = store_at(&place);
        let tree = database.open_tree("view").expect("it has rows");
        let others = rows.jobs.iter().filter(|row| expected.iter().all(|expected| expected.number != row.number));
        for row in others {
            let at = [b"J", &row.number.to_be_bytes()[..]].concat();
            assert!(tree.insert(at, &[0xff; 3]).expect("writes").is_some());
        }
        drop((tree, database));
        let view = View::open(&place, JOURNAL).expect("opens");
        let found = view.jobs(&asked).unwrap_or_else(|error| panic!("{asked:?}: {error}"));
        assert!(found.items.iter().eq(expected), "{asked:?}");
        assert_eq!(found.total, all.len() as u64, "{asked:?}");
        assert!(found.blocks <= 400 * 150 / 16_384 + 1, "{asked:?}");
    }
}

#[test]
fn what_is_applied_twice_or_after_a_reopening_is_there_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let make = |first, count| rows(first, count, &mut Dice(first));
    let (one, two) = (make(1, 20), make(61, 20));
    let all = |view: &View| view.jobs(&Wanted { below: u64::MAX, limit: 100, ..Wanted::default() }).expect("answers");
    {
        let view = View::open(dir.path(), JOURNAL).expect("opens");
        view.apply(&one).expect("applies");
        view.apply(&make(1, 20)).expect("passes over");
        assert_eq!((view.applied(), all(&view).total), (60, 20));
        view.flush().expect("flushes");
    }
    let view = View::open(dir.path(), JOURNAL).expect("opens");
    assert_eq!((view.applied(), all(&view).total), (60, 20));
    // A replay gives what it has and what it lacks in one.
    let mut both = make(1, 20);
    both.jobs.extend(two.jobs);
    both.entries.extend(two.entries);
    both.events.extend(two.events);
    both.upto = two.upto;
    view.apply(&both).expect("applies");
    let found = all(&view);
    assert_eq!((view.applied(), found.total, found.items.len()), (120, 40, 40));
}

#[test]
fn a_view_that_is_damaged_or_of_another_journal_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("view");
    let fill = || {
        let view = View::open(&place, JOURNAL).expect("opens");
        view.apply(&rows(view.applied() + 1, 50, &mut Dice(3))).expect("applies");
        view.flush().expect("flushes");
        assert!(view.applied() > 0);
    };
    fill();
    let view = View::open(&place, JournalId([1; 16])).expect("opens");
    assert_eq!(view.applied(), 0, "of another journal");
    drop(view);
    fs::remove_dir_all(&place).expect("removes");
    for damage in 0..3 {
        fill();
        let database = place.join("db");
        let bytes = fs::read(&database).expect("reads");
        match damage {
            0 => fs::write(&database, &bytes[..bytes.len() / 2]).expect("writes"),
            1 => fs::write(&database, vec![0x55; bytes.len()]).expect("writes"),
            _ => {
                for entry in fs::read_dir(&place).expect("reads") {
                    let path = entry.expect("an entry").path();
                    if path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap"))
                    {
                        fs::write(path, b"").expect("writes");
                    }
                }
            }
        }
        let view = View::open(&place, JOURNAL).expect("opens, anew if need be");
        let begins = view.applied();
        assert!(begins == 0 || damage == 2, "damage {damage} went unnoticed");
        view.apply(&rows(begins + 1, 5, &mut Dice(5))).expect("goes on");
        drop(view);
        fs::remove_dir_all(&place).expect("removes");
    }
}

/// As by a program that wrote its rows otherwise and forgot to say so.
#[test]
fn a_view_with_a_row_that_cannot_be_read_says_so_and_is_begun_anew_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("view");
    let view = View::open(&place, JOURNAL).expect("opens");
    view.apply(&rows(1, 50, &mut Dice(3))).expect("applies");
    view.flush().expect("flushes");
    drop(view);
    let database = store_at(&place);
    let tree = database.open_tree("view").expect("it has rows");
    for row in tree.scan_prefix(b"J") {
        tree.insert(row.expect("reads").0, &[0xff; 3]).expect("writes");
    }
    drop((tree, database));
    let view = View::open(&place, JOURNAL).expect("nothing is seen of it yet");
    let everything = Wanted { below: u64::MAX, limit: 10, ..Wanted::default() };
    let refused = view.jobs(&everything).expect_err("not one of them can be read");
    assert!(refused.to_string().contains("made anew at the next start"), "{refused}");
    drop(view);
    let view = View::open(&place, JOURNAL).expect("opens");
    assert_eq!(view.applied(), 0);
    assert!(view.jobs(&everything).expect("it is empty").items.is_empty());
}

#[test]
fn a_view_that_cannot_be_written_says_so_and_is_never_written_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("view");
    let view = View::open(&place, JOURNAL).expect("opens");
    view.apply(&rows(1, 50, &mut Dice(3))).expect("applies");
    view.flush().expect("flushes");
    drop(view);
    let database = store_at(&place);
    let tree = database.open_tree("view").expect("it has rows");
    for row in tree.scan_prefix(b"A") {
        tree.insert(row.expect("reads").0, &[0xff; 3]).expect("writes");
    }
    drop((tree, database));
    let view = View::open(&place, JOURNAL).expect("nothing is seen of it yet");
    assert_eq!(view.failure(), None);
    view.apply(&rows(151, 5, &mut Dice(4))).expect_err("its sets cannot be read");
    let why = view.failure().expect("it says so").to_owned();
    assert_eq!(view.applied(), 150, "nothing of it is there");
    let nothing_wrong = Rows { upto: 200, ..Rows::default() };
    view.apply(&nothing_wrong).expect_err("what it lacks would be in the midst of what it has");
    assert_eq!((view.applied(), view.failure()), (150, Some(&*why)));
    let newest = Wanted { below: u64::MAX, limit: 5, ..Wanted::default() };
    assert_eq!(view.jobs(&newest).expect("what it has it tells").items.len(), 5);
    drop(view);
    assert_eq!(View::open(&place, JOURNAL).expect("opens").applied(), 0, "begun anew");
}

#[test]
#[ignore = "measures: run it alone, in a release build"]
fn a_page_of_a_million_ended_jobs() {
    let dir = tempfile::tempdir().expect("a directory");
    let view = View::open(dir.path(), JOURNAL).expect("opens");
    let (mut dice, began) = (Dice(9), Instant::now());
    let (mut middle, mut writing) = (None, Duration::ZERO);
    // A million, unless it is told otherwise.
    let thousands = std::env::var("MODCHAIN_MEASURE_THOUSANDS").map_or(1_000, |text| text.parse().expect("a number"));
    for batch in 0..thousands {
        let mut rows = rows(1 + batch * 3_000, 1_000, &mut dice);
        // Every other job has a name of its own.
        rows.jobs.iter_mut().step_by(2).for_each(|row| row.view.name = text(&format!("sweep-{}", row.number)));
        middle.get_or_insert(rows.jobs[500].view.id);
        let began = Instant::now();
        view.apply(&rows).expect("applies");
        writing += began.elapsed();
    }
    view.flush().expect("flushes");
    let bytes = fs::metadata(dir.path().join("db")).expect("it is there").len();
    let (took, mb) = (began.elapsed(), bytes >> 20);
    println!("{thousands} thousand jobs, three events each, in {took:?}, {writing:?} of them written, {mb} MB");
    let newest = Wanted { below: u64::MAX, limit: 100, ..Wanted::default() };
    let of = |wanted: Wanted| Wanted { account: Some(account(1)), ..wanted };
    let rare = Wanted { states: vec![JobState::Expired], ..newest.clone() };
    let labelled = Wanted { labels: vec![(text("label-1"), text("2"))], ..newest.clone() };
    let named = |prefix: &str| Wanted { prefix: prefix.into(), ..newest.clone() };
    let since = |part: u64| Wanted { since: Some(moment(thousands * part)), ..newest.clone() };
    let disjoint =
        Wanted { labels: vec![(text("label-0"), text("1")), (text("label-0"), text("2"))], ..newest.clone() };
    let deep = Wanted { below: 10_000, ..newest.clone() };
    let questions = [
        ("the newest", newest.clone()),
        ("of an account", of(newest.clone())),
        ("a rare state", rare.clone()),
        ("a rare state of an account", of(rare.clone())),
        ("a label", labelled.clone()),
        ("a label of an account", of(labelled.clone())),
        ("two labels that no job has both", disjoint),
        ("a name that an eighth has", named("train-1")),
        ("the same of an account, in a rare state", Wanted { prefix: "train-1".into(), ..of(rare) }),
        ("the beginning of half a million names", named("sweep-")),
        ("the beginning of few of them", named("sweep-19")),
        ("no such name", named("nothing")),
        ("one character of an id", named("j-4")),
        ("two characters of an id", named("j-4z")),
        ("since the last thirtieth", since(2_900)),
        ("since the first third", since(1_000)),
        ("the same with a label", Wanted { labels: labelled.labels, ..since(1_000) }),
        ("the last page", deep),
    ];
    for (what, asked) in questions {
        let mut times = Vec::new();
        let mut found = None;
        for _ in 0..5 {
            let began = Instant::now();
            found = Some(view.jobs(&asked).expect("answers"));
            times.push(began.elapsed());
        }
        let (first, found) = (times[0], found.expect("asked"));
        times.sort_unstable();
        let (items, blocks) = (found.items.len(), found.blocks);
        let (best, slowest) = (times[0], times[4]);
        println!(
            "{what}: {best:.1?} to {slowest:.1?}, at first {first:.1?}; {items} of {}, {blocks} blocks",
            found.total
        );
    }
    let began = Instant::now();
    assert!(view.job(middle.expect("there is one")).expect("answers").is_some());
    println!("one job: {:.1?}", began.elapsed());
    for (what, kind) in [("a statement", None), ("its deposits", Some(LedgerKind::Deposit))] {
        let began = Instant::now();
        let asked = EntriesWanted { kind, limit: 100, ..EntriesWanted::default() };
        let (items, _) = view.entries(&account(1), &asked).expect("answers");
        println!("{what}: {:.1?} for {} entries", began.elapsed(), items.len());
    }
    let began = Instant::now();
    let named = view.named(None, "eval", 1_000).expect("answers");
    println!("the jobs of a name: {:.1?} for {}", began.elapsed(), named.len());
}
