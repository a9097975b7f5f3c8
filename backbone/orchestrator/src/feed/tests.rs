//! The read model from hand-made events.

mod let_go;
mod restart;

use modchain_core::{Actor, Event, EventBody, Outcome, Settlement};
use modchain_types::{
    AccountId, Adapter, Asset, AttemptId, BootId, Digest, Exceptions, Exit, GpuRequest, Identity, IdentityId, Input,
    JobId, JobSpec, JobState, JournalId, Limits, List, Map, Micro, NodeId, NodeState, NodeWish, OutputLengths, Policy,
    Reason, Requirements, Reservation, Role, Span, SubmitKey, Tariff, Task, TaskBody, Text, Timestamp, Usage, WallTime,
    WasmTask,
};
use modchain_wire::Message;
use modchain_wire::ToConsole;
use modchain_wire::agent::HostLoad;
use modchain_wire::console::{JobsPage, JobsQuery, NodesQuery, StateDelta};
use modchain_wire::view::LedgerKind;

use super::changes::{Change, Cursor};
use super::history::Pulse;
use super::known::Known;
use super::model::{EVENTS_KEPT, Model};
use super::query::{EventFilter, JobsPart, LedgerFilter, Unresolved, one_of, page_limit};

const HOLD: Micro = Micro(100_000);
const NODE: IdentityId = IdentityId([9; 16]);

/// Makes events with the right numbers and feeds them to a model.
struct World {
    model: Model,
    at: Timestamp,
}

fn account(name: &str) -> AccountId {
    name.parse().expect("an account")
}

fn client(name: &str) -> Actor {
    Actor { id: IdentityId([0; 16]), role: Role::Client, account: account(name) }
}

fn operator() -> Actor {
    Actor { id: IdentityId([0; 16]), role: Role::Operator, account: account("boss") }
}

fn spec(name: &str) -> JobSpec {
    let task = WasmTask {
        module: Digest::of(b"m"),
        module_bytes: 1,
        module_name: Text::cut("primes.wat"),
        args: List::cut(vec![Text::cut("100")]),
        env: Map::default(),
    };
    JobSpec {
        name: Text::cut(name),
        body: TaskBody::Inline(Task::Wasm(task)),
        requirements: Requirements {
            adapter: Adapter::Wasm,
            cpu_milli: 1_000,
            memory_bytes: 1 << 30,
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
        max_cost: HOLD,
        priority: 0,
        labels: Map::default(),
        input: Input::None,
        policy: Policy::Cheapest,
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self { model: Model::new(JournalId([7; 16]), Asset::Test), at: Timestamp::ZERO };
        world.event(EventBody::EngineStarted {
            boot: BootId([1; 16]),
            boot_clock: Span::ZERO,
            wall: WallTime(1_000_000),
            version: Text::cut("0"),
        });
        for (id, role, name, owner) in [
            (1, Role::Operator, "boss", "boss"),
            (2, Role::Client, "alice", "alice"),
            (3, Role::Client, "bob", "bob"),
            (9, Role::Node, "rig-1", "owner"),
        ] {
            let identity = Identity {
                id: IdentityId([id; 16]),
                role,
                name: name.parse().expect("a name"),
                account: account(owner),
            };
            world.event(EventBody::IdentityAdded { identity });
        }
        for name in ["alice", "bob"] {
            world.event(EventBody::Deposited {
                provider: Text::cut("credit"),
                key: "k".parse().expect("a key"),
                account: account(name),
                amount: Micro(1_000_000),
                why: Text::default(),
            });
        }
        world.event(EventBody::NodeConnected { node: NODE.into(), offer: None });
        world
    }

    fn event(&mut self, body: EventBody) {
        self.at = self.at + Span::from_secs(1);
        let event = Event { number: self.model.upto() + 1, at: self.at, body };
        self.model.apply(&event);
    }

    fn submit(&mut self, owner: &str, key: &str) -> JobId {
        self.submit_named(owner, key, "")
    }

    fn submit_named(&mut self, owner: &str, key: &str, name: &str) -> JobId {
        let key: SubmitKey = key.parse().expect("a key");
        let job = JobId::derive(&account(owner), &key);
        self.event(EventBody::JobQueued {
            job,
            account: account(owner),
            key,
            spec: Box::new(spec(name)),
            spec_digest: Digest::of(b"s"),
            fee_basis_points: 500,
        });
        job
    }

    fn assign(&mut self, job: JobId, number: u32) -> AttemptId {
        let attempt = AttemptId { job, number };
        self.event(EventBody::AttemptAssigned {
            attempt,
            node: NODE.into(),
            tariff: Box::new(Tariff { core_hour: Micro(3_600_000), minimum: Micro(10), ..Tariff::default() }),
            reservation: Reservation { cpu_milli: 1_000, ..Reservation::default() },
            run_limit: Span::from_secs(60),
            run_limit_reason: Reason::Budget,
        });
        attempt
    }

    fn start(&mut self, job: JobId) {
        let attempt = self.assign(job, 1);
        self.event(EventBody::AttemptStarting { attempt });
        self.event(EventBody::AttemptStarted { attempt });
    }

    fn finish(&mut self, job: JobId, gross: u64, fee: u64) {
        self.event(EventBody::JobFinished {
            job,
            attempt: Some(1),
            outcome: Outcome {
                state: JobState::Completed,
                reason: Reason::Exit,
                exit: Exit::job(0),
                message: Text::default(),
                usage: Usage::default(),
                output: OutputLengths { stdout: 5, stderr: 0, dropped: 0 },
            },
            settlement: Settlement {
                gross: Micro(gross),
                fee: Micro(fee),
                net: Micro(gross - fee),
                refund: Micro(HOLD.0 - gross),
                owner: Some(account("owner")),
            },
        });
    }

    fn state(&self, job: JobId) -> JobState {
        self.model.visible_job(&operator(), job).expect("the job").state(&self.model)
    }

    fn delta(&self, actor: &Actor, only: Option<JobId>, cursor: Cursor) -> (StateDelta, Cursor) {
        match self.model.changed_since(actor, only, cursor, self.at, true) {
            Some(Change::Delta(delta, cursor)) => (*delta, cursor),
            other => panic!("no delta but {other:?}"),
        }
    }
}

#[test]
fn a_job_goes_through_its_states_and_its_money_adds_up() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    let balances = |world: &World, name: &str| {
        let view = world.model.account_view(&account(name)).expect("an account");
        (view.available.0, view.held.0, view.earned.0)
    };
    assert_eq!((world.state(job), balances(&world, "alice")), (JobState::Queued, (900_000, 100_000, 0)));
    world.start(job);
    assert_eq!(world.state(job), JobState::Running);
    world.finish(job, 1_000, 50);
    assert_eq!(world.state(job), JobState::Completed);
    assert_eq!(balances(&world, "alice"), (999_000, 0, 0));
    assert_eq!((balances(&world, "owner").2, balances(&world, "boss").2), (950, 50));
    let total: u64 = ["alice", "bob", "owner", "boss"]
        .iter()
        .map(|name| balances(&world, name))
        .map(|(available, held, earned)| available + held + earned)
        .sum();
    assert_eq!(total, 2_000_000, "what came in is what there is");
    let view = world.model.visible_job(&client("alice"), job).expect("its own").view(&world.model, world.at);
    assert_eq!((view.cost.0, view.fee.0, view.refund.0), (1_000, 50, 99_000));
    assert_eq!(view.what.as_str(), "primes.wat 100");
}

#[test]
fn a_running_job_costs_what_it_would_if_it_ended_now_and_never_more_than_its_hold() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    world.start(job);
    let cost = |secs| {
        let now = world.at + Span::from_secs(secs);
        world.model.visible_job(&operator(), job).expect("the job").view(&world.model, now).cost.0
    };
    // 3.6 an hour are 1,000 micro-units a second.
    assert_eq!((cost(0), cost(7), cost(86_400)), (10, 7_000, 60_000), "minimum, time, run limit");
}

#[test]
fn a_silent_node_makes_its_jobs_unreachable_until_it_is_heard_again() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    world.start(job);
    let (_, cursor) = world.delta(&client("alice"), None, world.model.resume(0).expect("from the start"));
    world.model.node_changed(NODE.into(), NodeState::Suspect);
    assert_eq!(world.state(job), JobState::Unreachable);
    let (delta, cursor) = world.delta(&client("alice"), None, cursor);
    assert_eq!((delta.prev, delta.upto), (world.model.upto(), world.model.upto()), "no event, no number");
    assert_eq!((delta.jobs[0].state, delta.nodes[0].state), (JobState::Unreachable, NodeState::Suspect));
    world.model.node_changed(NODE.into(), NodeState::Ready);
    assert_eq!(world.delta(&client("alice"), None, cursor).0.jobs[0].state, JobState::Running);
    world.event(EventBody::CancelRequested { job, grace: Span::from_secs(1), why: Text::default() });
    world.model.node_changed(NODE.into(), NodeState::Suspect);
    assert_eq!(world.state(job), JobState::Cancelling);
}

#[test]
fn what_is_wished_of_a_node_is_not_taken_back_by_older_news_of_it() {
    let mut world = World::new();
    let set = |wish| EventBody::NodeSet { node: NODE.into(), by: operator().id, wish, why: Text::default() };
    world.event(set(NodeWish::Cordon));
    world.model.node_changed(NODE.into(), NodeState::Ready);
    assert_eq!(world.model.nodes[&NodeId::from(NODE)].state, NodeState::Cordoned);
    world.model.node_changed(NODE.into(), NodeState::Suspect);
    world.event(set(NodeWish::Open));
    assert_eq!(world.model.nodes[&NodeId::from(NODE)].state, NodeState::Suspect, "it is not heard");
    world.model.node_changed(NODE.into(), NodeState::Cordoned);
    assert_eq!(world.model.nodes[&NodeId::from(NODE)].state, NodeState::Ready);
}

#[test]
fn an_attempt_that_ended_unpaid_queues_its_job_again_and_stays_in_its_history() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    let attempt = world.assign(job, 1);
    world.event(EventBody::AttemptEnded { attempt, reason: Reason::NodeLost, message: Text::default() });
    assert_eq!(world.state(job), JobState::Queued);
    assert_eq!(world.model.nodes[&NodeId::from(NODE)].view(&world.model).attempts, 0);
    world.assign(job, 2);
    let view = world.model.visible_job(&operator(), job).expect("the job").view(&world.model, world.at);
    let states: Vec<_> = view.attempts.iter().map(|attempt| (attempt.number, attempt.state)).collect();
    assert_eq!(states, [(1, JobState::Failed), (2, JobState::Assigned)]);
    assert_eq!(view.attempts[0].reason, Some(Reason::NodeLost));
}

#[test]
fn foreign_and_absent_jobs_resolve_alike_and_names_lead_only_to_ones_own() {
    let mut world = World::new();
    let mine = world.submit_named("alice", "one", "eval");
    let theirs = world.submit_named("bob", "two", "eval");
    let (alice, model) = (client("alice"), &world.model);
    assert_eq!(one_of(model.candidates(&alice, &mine.to_string())), Ok(mine));
    assert_eq!(one_of(model.candidates(&alice, &mine.short())), Ok(mine));
    assert_eq!(one_of(model.candidates(&alice, &mine.to_string()[2..8])), Ok(mine));
    assert_eq!(one_of(model.candidates(&alice, "eval")), Ok(mine));
    for absent in [theirs.to_string(), theirs.short(), "j-zz".into(), "j-".into(), String::new(), "nothing".into()] {
        assert_eq!(one_of(model.candidates(&alice, &absent)), Err(Unresolved::NotFound), "{absent}");
    }
    assert_eq!(one_of(model.candidates(&operator(), &theirs.short())), Ok(theirs));
    assert!(matches!(one_of(model.candidates(&operator(), "eval")), Err(Unresolved::Ambiguous(_, 2))));
}

#[test]
fn prefixes_of_fewer_than_three_characters_resolve_to_nothing() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    let id = job.to_string();
    assert_eq!(one_of(world.model.candidates(&client("alice"), &id[..4])), Err(Unresolved::NotFound));
    assert_eq!(one_of(world.model.candidates(&client("alice"), &id[..5])), Ok(job));
}

/// A page of the jobs that are here, as if there were no view.
fn jobs_page(world: &World, actor: &Actor, query: &JobsQuery) -> JobsPage {
    let after = query.after.and_then(|id| world.model.visible_job(actor, id));
    let below = after.map_or(u64::MAX, Known::number);
    world.model.jobs_part(actor, query, below, 0, world.at).merge(JobsPart::default(), page_limit(query))
}

#[test]
fn what_the_view_has_leaves_the_memory_but_for_the_newest() {
    let mut world = World::new();
    let many = super::model::ENDED_KEPT + 50;
    let jobs: Vec<JobId> = (0..many)
        .map(|index| {
            let job = world.submit("alice", &format!("k{index}"));
            world.finish(job, 0, 0);
            job
        })
        .collect();
    let live = world.submit("alice", "live");
    let rows = world.model.take_rows().expect("encodes").expect("some");
    assert_eq!((rows.upto, rows.events.len() as u64), (world.model.upto(), world.model.upto()));
    let ended: Vec<JobId> = rows.jobs.iter().map(|row| row.view.id).collect();
    assert_eq!(ended, jobs);
    assert!(rows.jobs.iter().all(|row| row.view.state.is_ended() && row.events.len() >= 2));
    assert!(world.model.take_rows().expect("encodes").is_none(), "once");
    world.model.forget(0);
    assert_eq!(world.model.jobs.len(), many + 1, "nothing that the view lacks");
    let half = rows.jobs[20].finished;
    world.model.forget(half);
    assert_eq!(world.model.jobs.len(), many + 1 - 21);
    world.model.forget(rows.upto);
    assert_eq!(world.model.jobs.len(), super::model::ENDED_KEPT + 1);
    assert!(world.model.jobs.contains_key(&live) && !world.model.jobs.contains_key(&jobs[0]));
    assert_eq!(world.model.by_age.len(), world.model.jobs.len());
    let filter = LedgerFilter { limit: 10, ..LedgerFilter::default() };
    let page = world.model.ledger_part(&account("alice"), &filter, rows.upto).expect("an account");
    assert!(page.items.is_empty(), "the view has them all");
    let balance = world.model.account_view(&account("alice")).expect("an account");
    assert_eq!((balance.held, balance.open_jobs), (HOLD, 1));
}

#[test]
fn pages_of_jobs_go_on_after_the_last_one_without_gap_or_repeat() {
    let mut world = World::new();
    let mut made: Vec<_> = (0..7).map(|index| world.submit("alice", &format!("k{index}"))).collect();
    world.submit("bob", "other");
    world.finish(made[0], 0, 0);
    made.remove(0);
    made.reverse();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let query = JobsQuery {
            states: List::default(),
            ended: false,
            account: Some(account("bob")), // a client sees his own whatever he asks
            labels: List::default(),
            prefix: Text::default(),
            since: None,
            limit: 2,
            after,
        };
        let page = jobs_page(&world, &client("alice"), &query);
        assert_eq!(page.total, 6);
        seen.extend(page.items.iter().map(|job| job.id));
        after = page.items.last().map(|job| job.id);
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, made);
}

#[test]
fn a_statement_tells_every_movement_and_pages_never_tear_an_event() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    world.start(job);
    world.finish(job, 1_000, 50);
    let filter = |before| LedgerFilter { before, limit: 1, ..LedgerFilter::default() };
    let page = world.model.ledger_part(&account("alice"), &filter(None), 0).expect("a statement");
    let kinds: Vec<_> = page.items.iter().map(|entry| (entry.kind, entry.amount, entry.balance.0)).collect();
    assert_eq!(kinds, [(LedgerKind::Release, 99_000, 999_000), (LedgerKind::Settle, 0, 900_000)]);
    assert!(page.more);
    let page = world.model.ledger_part(&account("alice"), &filter(Some(page.items[1].number)), 0).expect("a statement");
    assert_eq!(page.items.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [LedgerKind::Hold]);
    let earned = world.model.ledger_part(&account("owner"), &filter(None), 0).expect("a statement");
    assert_eq!((earned.items[0].kind, earned.items[0].amount, earned.items[0].job), (LedgerKind::Earning, 950, None));
}

#[test]
fn events_of_others_are_invisible_and_still_move_the_watermark() {
    let mut world = World::new();
    let alice = client("alice");
    let start = world.model.snapshot_start().cursor;
    world.submit("bob", "one");
    assert!(world.model.changed_since(&alice, None, start, world.at, false).is_none(), "a bare watermark can wait");
    let (delta, cursor) = world.delta(&alice, None, start);
    assert_eq!((delta.prev, delta.upto), (start.number, world.model.upto()));
    assert!(delta.events.is_empty() && delta.jobs.is_empty() && delta.account.is_none());
    let mine = world.submit("alice", "two");
    let (delta, _) = world.delta(&alice, None, cursor);
    assert_eq!(delta.prev, cursor.number);
    assert_eq!((delta.events.len(), delta.jobs[0].id), (1, mine));
    assert_eq!(delta.account.expect("it changed").held, HOLD);
    let (events, upto) = world.model.events_after(&alice, &EventFilter::default(), 0, 1_000);
    assert!(events.iter().all(|event| event.account.as_ref().is_none_or(|of| *of == account("alice"))));
    assert_eq!(upto, world.model.upto());
}

#[test]
fn very_many_events_of_others_are_a_watermark_and_no_reason_to_start_over() {
    let mut world = World::new();
    let alice = client("alice");
    let start = world.model.snapshot_start().cursor;
    for index in 0..600 {
        world.submit("bob", &format!("k{index}"));
    }
    let mine = world.submit("alice", "mine");
    let (delta, cursor) = world.delta(&alice, None, start);
    assert_eq!((delta.prev, delta.upto, delta.events.len()), (start.number, world.model.upto(), 1));
    assert_eq!(delta.jobs[0].id, mine);
    let told = |world: &World, cursor| world.model.changed_since(&alice, None, cursor, world.at, false);
    for index in 600..850 {
        world.submit("bob", &format!("k{index}"));
    }
    assert!(told(&world, cursor).is_none(), "a bare watermark can wait");
    world.submit("bob", "one-more");
    match told(&world, cursor) {
        Some(Change::Delta(delta, after)) => {
            assert!(delta.events.is_empty() && delta.jobs.is_empty());
            assert_eq!((delta.prev, after.number), (cursor.number, world.model.upto()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reader_behind_what_is_in_memory_starts_over() {
    let mut world = World::new();
    let start = world.model.snapshot_start().cursor;
    for index in 0..EVENTS_KEPT + 1 {
        world.submit("bob", &format!("k{index}"));
    }
    world.model.forget(world.model.upto());
    assert!(world.model.forgotten > start.number);
    let change = world.model.changed_since(&client("alice"), None, start, world.at, false);
    assert!(matches!(change, Some(Change::Reset)), "{change:?}");
}

#[test]
fn a_reader_that_fell_far_behind_starts_over_and_misses_nothing() {
    let mut world = World::new();
    let alice = client("alice");
    let start = world.model.snapshot_start().cursor;
    let jobs: Vec<_> = (0..600).map(|index| world.submit("alice", &format!("k{index}"))).collect();
    assert!(matches!(world.model.changed_since(&alice, None, start, world.at, true), Some(Change::Reset)));
    let mut place = world.model.snapshot_start();
    let (mut seen, mut lasts) = (Vec::new(), 0);
    loop {
        let (page, next) = world.model.snapshot_page(&alice, None, place, world.at);
        assert_eq!(page.upto, world.model.upto());
        seen.extend(page.jobs.iter().map(|job| job.id));
        lasts += usize::from(page.last);
        assert!(ToConsole::from(page).to_frame().is_ok());
        match next {
            Some(next) => place = next,
            None => break,
        }
    }
    let mut expected = jobs;
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!((seen, lasts), (expected, 1));
}

#[test]
fn a_reader_resumes_after_the_last_event_that_it_saw() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    let seen = world.model.upto();
    world.start(job);
    let cursor = world.model.resume(seen).expect("it is not long ago");
    let (delta, _) = world.delta(&client("alice"), None, cursor);
    assert_eq!((delta.prev, delta.upto, delta.events.len()), (seen, world.model.upto(), 3));
    assert!(world.model.resume(world.model.upto() + 1).is_none(), "that is no event of ours");
}

#[test]
fn a_node_that_was_revoked_is_gone_for_those_who_watch_and_for_those_who_come_back() {
    let mut world = World::new();
    let (alice, seen) = (client("alice"), world.model.upto());
    let start = world.model.snapshot_start().cursor;
    let beat =
        || Pulse { load: HostLoad::default(), rtt: None, seen: WallTime(5), boot: BootId([1; 16]), ticks: Vec::new() };
    world.model.heartbeat(NODE.into(), beat());
    world.event(EventBody::IdentityRevoked { identity: NODE, by: Some(IdentityId([1; 16])), why: Text::default() });
    let told = |delta: &StateDelta| -> (Vec<String>, Vec<String>) {
        let nodes = delta.nodes.iter().map(|node| node.name.to_string()).collect();
        (nodes, delta.gone.iter().map(|name| name.to_string()).collect())
    };
    let rig: Vec<String> = vec!["rig-1".into()];
    let resumed = world.model.resume(seen).expect("it is not long ago");
    let (delta, after) = world.delta(&alice, None, start);
    assert_eq!(told(&delta), (vec![], rig.clone()));
    assert_eq!(told(&world.delta(&alice, None, resumed).0), (vec![], rig.clone()), "and its measurements with it");
    // Its connection ends, and what it measured last comes after all.
    world.model.heartbeat(NODE.into(), beat());
    assert!(world.model.changed_since(&alice, None, after, world.at, true).is_none());
    let again = Identity {
        id: IdentityId([10; 16]),
        role: Role::Node,
        name: "rig-1".parse().expect("a name"),
        account: account("owner"),
    };
    world.event(EventBody::IdentityAdded { identity: again });
    assert_eq!(told(&world.delta(&alice, None, start).0), (rig, vec![]), "the name belongs to another one");
}

#[test]
fn watching_one_job_shows_that_job_alone() {
    let mut world = World::new();
    let (mine, other) = (world.submit("alice", "one"), world.submit("alice", "two"));
    let start = world.model.snapshot_start().cursor;
    world.start(other);
    assert!(world.model.changed_since(&client("alice"), Some(mine), start, world.at, false).is_none());
    world.start(mine);
    let (delta, _) = world.delta(&client("alice"), Some(mine), start);
    assert!(delta.jobs.iter().all(|job| job.id == mine) && delta.events.iter().all(|event| event.job == Some(mine)));
    assert_eq!((delta.jobs.len(), delta.events.len(), delta.nodes.len()), (1, 3, 0));
}

#[test]
fn heartbeats_are_unnumbered_and_the_latest_wins() {
    let mut world = World::new();
    let start = world.model.snapshot_start().cursor;
    for used in [1, 2, 3] {
        let load = HostLoad { memory_used_bytes: used, ..HostLoad::default() };
        let pulse = Pulse { load, rtt: None, seen: WallTime(5), boot: BootId([1; 16]), ticks: Vec::new() };
        world.model.heartbeat(NODE.into(), pulse);
    }
    let (delta, cursor) = world.delta(&client("alice"), None, start);
    assert_eq!((delta.prev, delta.upto, delta.nodes.len()), (start.number, start.number, 1));
    assert_eq!(delta.nodes[0].load.expect("a load").memory_used_bytes, 3);
    assert!(world.model.changed_since(&client("alice"), None, cursor, world.at, true).is_none());
}

#[test]
fn times_follow_the_anchor_of_their_start() {
    let mut world = World::new();
    let job = world.submit("alice", "one");
    let before = world.model.visible_job(&operator(), job).expect("the job").view(&world.model, world.at).created_at;
    world.event(EventBody::EngineStarted {
        boot: BootId([2; 16]),
        boot_clock: Span::ZERO,
        wall: WallTime(9_000_000),
        version: Text::cut("0"),
    });
    let later = world.submit("alice", "two");
    let created =
        |job| world.model.visible_job(&operator(), job).expect("the job").view(&world.model, world.at).created_at;
    assert_eq!((created(job), created(later)), (before, WallTime(9_001_000)));
}

#[test]
fn the_largest_views_fit_into_their_frames() {
    let mut world = World::new();
    let mut big = spec(&"n".repeat(64));
    let labels = (0..32).map(|index| (Text::cut(format!("{index:064}")), Text::cut("v".repeat(256)))).collect();
    big.labels = Map::new(labels).expect("32 labels");
    let key: SubmitKey = "big".parse().expect("a key");
    let job = JobId::derive(&account("alice"), &key);
    world.event(EventBody::JobQueued {
        job,
        account: account("alice"),
        key,
        spec: Box::new(big),
        spec_digest: Digest::of(b"s"),
        fee_basis_points: 500,
    });
    for number in 1..=100 {
        let attempt = world.assign(job, number);
        let message = Text::cut("m".repeat(512));
        world.event(EventBody::AttemptEnded { attempt, reason: Reason::NodeFault, message });
    }
    let known = world.model.visible_job(&operator(), job).expect("the job");
    let view = known.view(&world.model, world.at);
    assert_eq!(view.attempts.len(), 64);
    let frame = ToConsole::from(view).to_frame().expect("it fits");
    assert!(frame.len() <= known.weight(), "{} bytes are more than the weight {}", frame.len(), known.weight());
}

#[test]
fn nodes_are_public_and_paged_by_name() {
    let world = World::new();
    let page = world.model.nodes_page(&NodesQuery { limit: 10, after: None });
    assert_eq!((page.total, page.items[0].name.as_str(), page.items[0].state), (1, "rig-1", NodeState::Ready));
    let after = Some("rig-1".parse().expect("a name"));
    assert!(world.model.nodes_page(&NodesQuery { limit: 10, after }).items.is_empty());
}

/// The jobs of Alice that a list shows, ended ones too.
fn listed(world: &World) -> Vec<JobId> {
    let query = JobsQuery {
        states: List::default(),
        ended: true,
        account: None,
        labels: List::default(),
        prefix: Text::default(),
        since: None,
        limit: 100,
        after: None,
    };
    jobs_page(world, &client("alice"), &query).items.iter().map(|job| job.id).collect()
}

#[test]
fn forgotten_jobs_are_in_no_list_and_under_no_name_and_the_view_is_told() {
    let mut world = World::new();
    let jobs: Vec<JobId> = ["a", "b", "c"]
        .into_iter()
        .map(|key| {
            let job = world.submit_named("alice", key, key);
            world.finish(job, 0, 0);
            job
        })
        .collect();
    let live = world.submit("alice", "live");
    let cursor = world.model.snapshot_start().cursor;
    world.event(EventBody::JobsForgotten { jobs: vec![jobs[0], jobs[2]] });
    let forgotten_by = world.model.upto();

    assert_eq!(listed(&world), [live, jobs[1]]);
    assert!(world.model.visible_job(&client("alice"), jobs[0]).is_none());
    assert_eq!(world.model.candidates(&client("alice"), "a"), []);
    assert_eq!(world.model.candidates(&client("alice"), &jobs[2].to_string()), []);
    assert_eq!(world.model.candidates(&client("alice"), "b"), [jobs[1]]);
    let filter = LedgerFilter { limit: 100, ..LedgerFilter::default() };
    let entries = world.model.ledger_part(&account("alice"), &filter, 0).expect("an account").items;
    assert!(entries.iter().any(|entry| entry.job == Some(jobs[0])), "money stays in the statement");
    let told = world.model.events_after(&operator(), &EventFilter::default(), forgotten_by - 1, 10).0;
    assert_eq!(told[0].text.as_str(), "the records of 2 ended jobs are no longer kept");
    let change = world.model.changed_since(&client("alice"), None, cursor, Timestamp(0), true).expect("it moved on");
    let Change::Delta(delta, _) = change else { panic!("a reader need not begin anew") };
    assert!(delta.events.is_empty() && delta.jobs.is_empty(), "clients hear nothing of it: {delta:?}");

    // As long as the view has not passed the event, what it has of these jobs does not count.
    assert_eq!(world.model.forgotten_by(jobs[2]), Some(forgotten_by));
    world.model.forget(forgotten_by - 1);
    assert_eq!(world.model.being_forgotten().len(), 2);
    world.model.forget(forgotten_by);
    assert!(world.model.being_forgotten().is_empty());
}

#[test]
fn what_forgets_a_job_ends_what_is_written_at_once_because_its_key_may_make_another_one() {
    let mut world = World::new();
    let job = world.submit("alice", "k");
    world.finish(job, 0, 0);
    world.event(EventBody::JobsForgotten { jobs: vec![job] });
    let forgotten_by = world.model.upto();
    assert_eq!(world.submit("alice", "k"), job, "the same id");
    assert_eq!(world.model.candidates(&client("alice"), "k"), [], "and another job, without a name");
    world.finish(job, 0, 0);
    let mut batches = Vec::new();
    while let Some(rows) = world.model.take_rows().expect("encodes") {
        batches.push((rows.upto, rows.jobs.len(), rows.forgotten));
    }
    assert_eq!(batches, [(forgotten_by, 1, vec![job]), (world.model.upto(), 1, vec![])]);
    assert_eq!(world.model.rows_waiting(), 0);
    assert_eq!(listed(&world), [job], "the newer one");
}
