use modchain_types::{JournalId, List, Micro, Span};
use modchain_wire::Message;
use modchain_wire::console::{JobsPage, JobsQuery, LedgerPage, LedgerQuery};

use super::*;
use crate::client::live::recording::by_hand;
use crate::client::live::{AskId, Welcome};
use crate::client::samples;
use crate::exit::Failure;

const OURS: JournalId = JournalId([1; 16]);
const OTHER: JournalId = JournalId([2; 16]);
const NOW: WallTime = samples::AT;

fn later(seconds: u64) -> WallTime {
    NOW.plus(Span::from_secs(seconds))
}

fn page(journal: JournalId, upto: u64, jobs: Vec<JobView>, nodes: Vec<NodeView>, last: bool) -> FromLive {
    let account = last.then(|| samples::account_view(Micro(100_000_000)));
    let (jobs, nodes) = (List::cut(jobs), List::cut(nodes));
    FromLive::Snapshot(Box::new(StateSnapshot { journal, upto, jobs, nodes, account, last }))
}

fn delta(upto: u64, jobs: Vec<JobView>, nodes: Vec<NodeView>, gone: &[&str]) -> FromLive {
    FromLive::Delta(Box::new(StateDelta {
        prev: upto - 1,
        upto,
        jobs: List::cut(jobs),
        nodes: List::cut(nodes),
        gone: List::cut(gone.iter().map(|name| name.parse().expect("a name")).collect()),
        account: None,
        events: List::cut(vec![samples::event_view(upto)]),
    }))
}

fn welcome() -> FromLive {
    let welcome = by_hand::welcome(samples::identity(), Asset::Test);
    FromLive::Welcome(Box::new(Welcome { welcome, address: "127.0.0.1:7443".into(), clock_ahead_ms: 0 }))
}

fn mirror(messages: impl IntoIterator<Item = FromLive>) -> Mirror {
    let mut mirror = Mirror::default();
    for message in messages {
        mirror.apply(message, NOW);
    }
    mirror
}

fn jobs_page(jobs: Vec<JobView>) -> FromLive {
    let query = JobsQuery {
        states: List::default(),
        ended: true,
        account: None,
        labels: List::default(),
        prefix: modchain_types::Text::default(),
        since: None,
        limit: 500,
        after: None,
    };
    let page = JobsPage { total: jobs.len() as u64, items: List::cut(jobs), more: false };
    FromLive::Answer(AskId(1), Box::new(query.into()), Ok(Box::new(page.into())))
}

fn statement(entries: Vec<LedgerEntryView>) -> FromLive {
    let query = LedgerQuery { account: None, since: None, kind: None, job: None, limit: 1_000, before: None };
    let page = LedgerPage { account: samples::identity().account, items: List::cut(entries), more: false };
    FromLive::Answer(AskId(2), Box::new(query.into()), Ok(Box::new(page.into())))
}

/// The totals as they are counted one by one.
fn counted(mirror: &Mirror) -> (u64, u64, u64, u64, usize, usize) {
    let count = |fits: fn(&JobView) -> bool| mirror.jobs.values().filter(|job| fits(job)).count() as u64;
    (
        mirror.nodes.len() as u64,
        mirror.nodes.values().map(|node| node.gpus.len() as u64).sum(),
        count(|job| !job.state.is_ended() && job.state != JobState::Queued),
        count(|job| job.state == JobState::Queued),
        mirror.jobs.values().filter(|job| job.state.is_ended()).count(),
        mirror.nodes.values().filter(|node| matches!(node.state, NodeState::Suspect | NodeState::Lost)).count(),
    )
}

fn known(mirror: &Mirror) -> (u64, u64, u64, u64, usize, usize) {
    let Totals { nodes, gpus, jobs_running, jobs_waiting, .. } = mirror.totals();
    assert_eq!(mirror.index.waiting.len() as u64, jobs_waiting);
    for node in ["zurich-01", "oslo-02"].map(|name| name.parse().expect("a name")) {
        let there = |job: &&Arc<JobView>| !job.state.is_ended() && job.node.as_ref() == Some(&node);
        let there: Vec<_> = mirror.jobs.values().filter(there).map(|job| job.id).collect();
        assert_eq!(mirror.jobs_on(&node).collect::<Vec<_>>(), there, "{node}");
    }
    let mut pools = Pools::default();
    mirror.nodes.values().for_each(|node| pools.count(node, true));
    assert_eq!(mirror.pools(), &pools);
    (nodes, gpus, jobs_running, jobs_waiting, mirror.index.ended.len(), mirror.index.silent.len())
}

#[test]
fn a_snapshot_is_swapped_in_when_it_is_whole_and_a_part_of_one_is_dropped_with_its_connection() {
    let mut mirror = mirror([welcome(), page(OURS, 5, vec![samples::job_view(1)], vec![], false)]);
    assert!(mirror.jobs.is_empty() && mirror.mark.is_none());
    mirror.apply(delta(6, vec![samples::job_view(9)], vec![], &[]), NOW);
    assert!(mirror.jobs.is_empty(), "nothing changes before it is known");
    mirror.apply(welcome(), NOW);
    mirror.apply(page(OURS, 7, vec![samples::job_view(2)], vec![samples::node_view("oslo-02", 2)], true), NOW);
    assert_eq!(mirror.jobs.keys().copied().collect::<Vec<_>>(), [samples::job_id(2)]);
    assert_eq!(mirror.mark, Some(Mark { journal: OURS, upto: 7 }));
    assert_eq!((mirror.job_changes.revision(), mirror.node_changes.revision()), (1, 1));
}

#[test]
fn ended_jobs_outlive_a_snapshot_of_the_same_journal_and_nothing_outlives_another_one() {
    let chunk = LogItem::CaughtUp;
    let mut mirror = mirror([
        welcome(),
        page(OURS, 5, vec![samples::ended_job(1, 0), samples::job_view(2)], vec![samples::node_view("a", 1)], true),
        delta(6, vec![], vec![], &[]),
        FromLive::Log(samples::job_id(1), chunk),
    ]);
    let before = mirror.jobs[&samples::job_id(1)].clone();
    mirror.apply(page(OURS, 9, vec![samples::job_view(3)], vec![samples::node_view("b", 1)], true), NOW);
    assert_eq!(mirror.jobs.len(), 2, "the running one that is not in it is gone");
    assert!(Arc::ptr_eq(&before, &mirror.jobs[&samples::job_id(1)]));
    assert_eq!((mirror.events.len(), mirror.logs.len()), (1, 1));
    let has_line = |name: &str| mirror.series.of(&name.parse().expect("a name")).is_some();
    assert_eq!((has_line("a"), has_line("b")), (false, true));
    let revision = mirror.event_changes.revision();
    mirror.apply(page(OTHER, 2, vec![samples::job_view(4)], vec![], true), NOW);
    assert_eq!(mirror.jobs.len(), 1);
    assert_eq!((mirror.events.len(), mirror.logs.len(), mirror.ledger.len()), (0, 0, 0));
    assert!(mirror.event_changes.revision() > revision && mirror.me.is_some());
    assert_eq!(known(&mirror), counted(&mirror));
}

#[test]
fn another_target_leaves_nothing_but_the_counts() {
    let mut mirror = mirror([welcome(), page(OURS, 5, vec![samples::job_view(1)], vec![], true)]);
    mirror.utc = true;
    let revision = mirror.job_changes.revision();
    mirror.apply(FromLive::Target("other".into()), later(1));
    assert!(mirror.utc && mirror.jobs.is_empty() && mirror.me.is_none() && mirror.heard_at.is_none());
    assert!(mirror.job_changes.revision() > revision);
}

#[test]
fn what_is_counted_is_what_is_there_whatever_changes() {
    let mut mirror = mirror([welcome(), page(OURS, 1, vec![], vec![], true)]);
    let mut random = 7u64;
    let mut draw = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for upto in 2..600 {
        let number = draw(20);
        let job = match draw(4) {
            0 => samples::queued_job(number),
            1 => samples::ended_job(number, 1),
            2 => JobView { ended_at: Some(later(draw(50))), ..samples::ended_job(number, 0) },
            3 if draw(2) == 0 => {
                JobView { node: Some("oslo-02".parse().expect("a name")), ..samples::job_view(number) }
            }
            _ => samples::job_view(number),
        };
        let name = format!("node-{}", draw(6));
        let mut node = samples::node_view(&name, usize::try_from(draw(4)).expect("fits"));
        node.state = [NodeState::Ready, NodeState::Suspect, NodeState::Lost][usize::try_from(draw(3)).expect("fits")];
        if draw(3) == 0 {
            node.offer.iter_mut().for_each(|offer| offer.capabilities.labels = modchain_types::Map::default());
        }
        let gone = if draw(5) == 0 { vec![&*name] } else { vec![] };
        let nodes = if gone.is_empty() { vec![node] } else { vec![] };
        mirror.apply(delta(upto, vec![job], nodes, &gone), NOW);
        assert_eq!(known(&mirror), counted(&mirror), "after {upto}");
    }
}

#[test]
fn the_oldest_ended_jobs_are_forgotten_except_for_those_that_were_asked_for() {
    let ended = |number: u64| JobView { ended_at: Some(later(number)), ..samples::ended_job(number, 0) };
    let mut mirror = mirror([welcome(), page(OURS, 1, vec![samples::queued_job(0)], vec![], true)]);
    for number in 1..=ENDED_MAX as u64 + 50 {
        mirror.apply(delta(number + 1, vec![ended(number)], vec![], &[]), NOW);
    }
    assert_eq!(mirror.jobs.len(), ENDED_MAX + 1);
    assert!(!mirror.jobs.contains_key(&samples::job_id(50)) && mirror.jobs.contains_key(&samples::job_id(51)));
    mirror.apply(jobs_page((1..=50).map(ended).collect()), NOW);
    assert_eq!(mirror.jobs.len(), ENDED_MAX + 51);
    assert!(mirror.jobs.contains_key(&samples::job_id(1)));
    assert_eq!(known(&mirror), counted(&mirror));
}

#[test]
fn a_silent_link_lives_with_whatever_comes_over_it_and_with_nothing_else() {
    let silent = || FromLive::Link(LinkState::Silent { since: NOW });
    let mut mirror = mirror([welcome(), page(OURS, 6, vec![], vec![], true), silent()]);
    assert!(mirror.is_stale());
    mirror.apply(FromLive::Said("the certificate ends".into()), NOW);
    assert!(mirror.is_stale(), "that is our own remark");
    mirror.apply(delta(7, vec![], vec![], &[]), NOW);
    assert!(!mirror.is_stale());
    mirror.apply(silent(), NOW);
    mirror.apply(FromLive::Log(samples::job_id(1), LogItem::CaughtUp), NOW);
    assert_eq!(mirror.link, LinkState::Live);
}

#[test]
fn events_come_once_and_in_order_whatever_order_they_come_in() {
    let events = |numbers: &[u64]| FromLive::Events(numbers.iter().copied().map(samples::event_view).collect());
    let mirror = mirror([
        welcome(),
        page(OURS, 6, vec![], vec![], true),
        delta(7, vec![], vec![], &[]),
        events(&[2, 3, 4]),
        delta(8, vec![], vec![], &[]),
        events(&[4, 5, 6, 7]),
    ]);
    assert_eq!(mirror.events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(mirror.event_changes.revision(), 7);
}

#[test]
fn outputs_explanations_and_histories_are_bounded() {
    let mut mirror = mirror([welcome()]);
    for number in 0..LOGS_MAX as u64 + 3 {
        mirror.apply(FromLive::Log(samples::job_id(number), LogItem::CaughtUp), NOW);
    }
    mirror.apply(FromLive::Log(samples::job_id(3), LogItem::CaughtUp), NOW);
    mirror.apply(FromLive::Log(samples::job_id(99), LogItem::CaughtUp), NOW);
    assert_eq!(mirror.logs.len(), LOGS_MAX);
    assert!(mirror.logs.contains_key(&samples::job_id(3)) && !mirror.logs.contains_key(&samples::job_id(4)));
    for number in 0..HISTORIES_MAX + 2 {
        let node = samples::node_view(&format!("node-{number}"), 1);
        let history = NodeHistoryView { node, ticks: List::default() };
        let query = modchain_wire::console::StatusQuery { detail: false };
        mirror.apply(FromLive::Answer(AskId(1), Box::new(query.into()), Ok(Box::new(history.into()))), NOW);
    }
    assert_eq!((mirror.histories.len(), mirror.nodes.len()), (HISTORIES_MAX, HISTORIES_MAX + 2));
}

#[test]
fn problems_come_worst_first_and_say_what_they_are_about() {
    let lost = NodeView { state: NodeState::Lost, ..samples::node_view("oslo-02", 1) };
    let suspect = NodeView { state: NodeState::Suspect, attempts: 1, ..samples::node_view("bern-01", 1) };
    let young = JobView { created_at: later(70), ..samples::queued_job(2) };
    let mut mirror = mirror([
        welcome(),
        page(OURS, 5, vec![samples::queued_job(1), young, samples::job_view(3)], vec![lost, suspect], true),
    ]);
    let shown = |mirror: &Mirror| -> Vec<(About, String)> {
        mirror.problems(later(120)).into_iter().map(|problem| (problem.about, problem.text)).collect()
    };
    let node = |name: &str| About::Node(name.parse().expect("a name"));
    assert_eq!(
        shown(&mirror),
        [
            (node("oslo-02"), "node oslo-02 is lost, 2 jobs on it".to_owned()),
            (node("bern-01"), "node bern-01 is silent, 1 job on it".to_owned()),
            (About::Job(samples::job_id(1)), "sweep-1 waits for a node: no node has 2 free GPUs".to_owned()),
        ]
    );
    mirror.account = Some(samples::account_view(Micro(3_000_000)));
    mirror.apply(FromLive::Link(LinkState::Refused(Failure::untrusted("not who it\u{1b} should be"))), NOW);
    let problems = mirror.problems(later(120));
    assert_eq!((&problems[0].about, &*problems[0].text), (&About::Link, "not who it· should be"));
    let poor = problems.iter().find(|problem| problem.about == About::Account).expect("the account");
    assert_eq!(poor.text, "3.00 TEST is left for new jobs while 6.02 TEST an hour is being spent");
    assert!(problems.is_sorted_by_key(|problem| problem.severity));
    mirror.account = Some(samples::account_view(Micro(7_000_000)));
    assert!(mirror.problems(later(120)).iter().all(|problem| problem.about != About::Account));
}

#[test]
fn many_problems_of_a_kind_are_counted() {
    let jobs: Vec<JobView> = (0..100).map(samples::queued_job).collect();
    let mirror = mirror([welcome(), page(OURS, 5, jobs, vec![], true)]);
    let problems = mirror.problems(later(120));
    assert_eq!(problems.len(), 21);
    assert_eq!(problems[20].text, "80 more jobs wait for a node");
}

#[test]
fn spending_is_what_was_held_and_did_not_come_back() {
    let hour = |ago: i64| WallTime(NOW.0 - ago * 3_600_000);
    let entry = |number, at, kind, amount, job| LedgerEntryView {
        job: Some(samples::job_id(job)),
        ..samples::ledger_entry(number, at, kind, amount)
    };
    let mut entries = vec![
        entry(1, hour(900), LedgerKind::Deposit, 1_000, 0),
        // Older than the statement.
        entry(3, hour(800), LedgerKind::Settle, 0, 77),
        entry(4, hour(60), LedgerKind::Hold, -1_000, 1),
        entry(5, hour(50), LedgerKind::Settle, 0, 1),
        entry(5, hour(50), LedgerKind::Release, 600, 1),
        entry(6, hour(3), LedgerKind::Hold, -500, 2),
        entry(7, hour(2), LedgerKind::Settle, 0, 2),
        entry(8, hour(2), LedgerKind::Hold, -300, 3),
        entry(9, hour(1), LedgerKind::Release, 300, 3),
        entry(10, hour(1), LedgerKind::Settle, 0, 4),
    ];
    entries.reverse();
    let ended = JobView { cost: Micro(11), ..samples::ended_job(4, 0) };
    let mirror = mirror([welcome(), page(OURS, 5, vec![ended], vec![], true), statement(entries)]);
    let spending = mirror.spending(NOW, hour(10));
    let mut hours = [Micro(0); 24];
    (hours[21], hours[22]) = (Micro(500), Micro(11));
    assert_eq!(spending, Spending { hours, today: Micro(511), week: Micro(911), month: Micro(911) });
    assert_eq!(midnight(NOW, true), WallTime(NOW.0 - NOW.0.rem_euclid(86_400_000)));
}

#[test]
fn fifty_thousand_jobs_and_ten_thousand_nodes_fit() {
    // As they come over the wire: no text has room to spare.
    let over_the_wire = |message: FromLive| -> FromLive {
        let FromLive::Snapshot(page) = message else { panic!("a page") };
        let frame = ToConsole::from(*page).to_frame().expect("fits");
        let Ok(ToConsole::StateSnapshot(page)) = ToConsole::from_frame(&frame) else { panic!("a page") };
        FromLive::Snapshot(Box::new(page))
    };
    for (labels, gpus) in [(true, 8), (false, 1)] {
        let job = |number: u64| {
            let mut job =
                if number.is_multiple_of(2) { samples::queued_job(number) } else { samples::job_view(number) };
            if !labels {
                job.labels = Default::default();
            }
            job
        };
        let mut mirror = mirror([welcome()]);
        let ((), spent) = modchain_fuzz::spend(|| {
            for begin in (0..50_000).step_by(200) {
                let jobs = (begin..begin + 200).map(job).collect();
                mirror.apply(over_the_wire(page(OURS, 1, jobs, vec![], false)), NOW);
            }
            for begin in (0..10_000).step_by(200) {
                let nodes =
                    (begin..begin + 200).map(|node| samples::node_view(&format!("node-{node:05}"), gpus)).collect();
                mirror.apply(over_the_wire(page(OURS, 1, vec![], nodes, false)), NOW);
            }
            mirror.apply(over_the_wire(page(OURS, 1, vec![], vec![], true)), NOW);
        });
        println!("labels {labels}, {gpus} GPUs a node: {} MB at most", spent.peak_bytes / 1_000_000);
        assert_eq!((mirror.jobs.len(), mirror.nodes.len()), (50_000, 10_000));
        assert!(spent.peak_bytes < 130_000_000, "{spent:?}");
    }
}
