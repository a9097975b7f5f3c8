//! What becomes of attempts when agents are silent, come back, lie or hang.

use super::*;
use crate::scheduler::needs::Needs;

#[test]
fn a_silent_node_is_suspect_then_lost_and_its_job_runs_elsewhere_unpaid_for_the_first_try() {
    let mut world = World::new();
    let first = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, first);
    let second = world.connect(2, 72_000);
    world.changes.clear();
    world.wait_heard(Span::from_secs(59), node(2), second);
    assert_eq!(world.changes, [(node(1), NodeState::Suspect)]);
    assert_eq!(world.control.job(job).and_then(Job::placement).map(|p| p.node), Some(node(1)));
    world.sent();
    world.wait_heard(Span::from_secs(2), node(2), second);
    assert_eq!(assignments(&world.sent()), [(node(2), AttemptId { job, number: 2 })]);
    world.run(job, second);
    world.wait_heard(Span::from_secs(100), node(2), second);
    world.report(job, second, World::ended(Ending::Exited { code: 0 }, Span::from_secs(100)));
    assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 2_000), "only the second attempt is paid");
}

#[test]
fn a_node_that_is_heard_again_in_time_goes_on_as_if_nothing_had_happened() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    world.wait(Span::from_secs(50));
    let item = world.item(job, ItemState::Running);
    world.sent();
    let session = world.connect_holding(1, vec![item]);
    assert_eq!(world.sent(), [(node(1), NodeMessage::Reconcile(vec![(item.attempt, item.fence, Verdict::Keep)]))]);
    world.wait_heard(Span::from_secs(100), node(1), session);
    world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(150)));
    assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 1_500));
}

#[test]
fn reconciling_sends_again_what_never_arrived_and_retries_what_is_gone() {
    let mut world = World::new();
    world.connect(1, 36_000);
    let (assigned, running) = (world.submit("a", |_| {}), world.submit("b", |_| {}));
    let session = world.connect_holding(1, vec![]);
    world.run(running, session);
    let before = world.item(running, ItemState::Running);
    world.sent();
    world.connect_holding(1, vec![]);
    let sent = assignments(&world.sent());
    assert!(sent.contains(&(node(1), AttemptId { job: assigned, number: 1 })), "the same attempt again: {sent:?}");
    assert!(sent.contains(&(node(1), AttemptId { job: running, number: 2 })), "a new one: {sent:?}");
    // The old attempt turns up after all: it is void.
    let items = vec![before, InventoryItem { state: ItemState::Ended, ..before }];
    world.connect_holding(1, items);
    let verdicts = world.sent().into_iter().find_map(|(_, message)| match message {
        NodeMessage::Reconcile(verdicts) => Some(verdicts.into_iter().map(|(_, _, v)| v).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(verdicts, Some(vec![Verdict::Kill, Verdict::Forget]));
}

#[test]
fn a_late_result_of_a_replaced_attempt_is_acknowledged_and_changes_nothing() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    let old = world.item(job, ItemState::Running);
    let session = world.connect_holding(1, vec![]);
    let body = World::ended(Ending::Exited { code: 0 }, Span::from_secs(1));
    let (attempt, fence) = (old.attempt, old.fence);
    world.sent();
    let before = world.journal.len();
    world.done(Command::Report { node: node(1), session, report: Report { attempt, fence, body } });
    assert_eq!(world.sent(), [(node(1), NodeMessage::Ack { attempt, fence })]);
    assert_eq!(world.journal.len(), before);
    assert_eq!(world.control.job(job).map(|job| job.attempts_made), Some(2));
}

#[test]
fn attempts_are_bounded_and_only_those_that_were_starting_count() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |spec| spec.limits.attempts_max = 2);
    for _ in 0..5 {
        world.report(job, session, ReportBody::Refused { message: Text::cut("busy") });
        assert_eq!(world.state(job), JobState::Queued);
        world.wait(crate::node::COOL_DOWN);
        assert_eq!(world.state(job), JobState::Assigned);
        world.done(Command::AgentHeard { node: node(1), session });
    }
    for _ in 0..2 {
        world.run(job, session);
        let fault = Ending::NodeFault { message: Text::cut("engine died") };
        world.report(job, session, World::ended(fault, Span::from_secs(1)));
        world.wait(crate::node::COOL_DOWN);
    }
    assert_eq!(world.fate(job), (JobState::Failed, Reason::Attempts, 0));
    assert_eq!(world.finished(job).0.message.as_str(), "2 of 2 attempts failed; the last: engine died");
}

#[test]
fn a_result_waits_for_its_output_but_not_for_ever() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let output = OutputLengths { stdout: 10, stderr: 5, dropped: 0 };
    let body = |ran| ReportBody::Ended {
        ending: Ending::Exited { code: 0 },
        usage: Usage { ran, ..Usage::default() },
        output,
    };
    let [early, late, never] = ["a", "b", "c"].map(|key| world.submit(key, |_| {}));
    for job in [early, late, never] {
        world.run(job, session);
    }
    let stored = |world: &mut World, job, stored| {
        let item = world.item(job, ItemState::Ended);
        world.done(Command::OutputStored { attempt: item.attempt, fence: item.fence, stored });
    };
    stored(&mut world, early, output);
    for job in [early, late, never] {
        world.report(job, session, body(Span::from_secs(1)));
    }
    assert_eq!(world.state(early), JobState::Completed);
    assert_eq!(world.state(late), JobState::Running);
    stored(&mut world, late, OutputLengths { stdout: 9, ..output });
    assert_eq!(world.state(late), JobState::Running, "one byte is missing");
    stored(&mut world, late, output);
    assert_eq!(world.state(late), JobState::Completed);
    world.wait_heard(Span::from_secs(60), node(1), session);
    assert_eq!(world.fate(never), (JobState::Completed, Reason::Exit, 1_000));
}

#[test]
fn an_agent_that_does_not_answer_stop_or_end_does_not_keep_the_money() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let silent = world.submit("silent", |spec| spec.limits.attempts_max = 1);
    world.wait_heard(Span::from_secs(40), node(1), session);
    assert_eq!(world.control.job(silent).map(|job| job.attempts_made >= 2), Some(true), "not accepted in 30 s");
    world.tell(Command::Cancel { by: client("alice"), job: silent, grace: Span::ZERO, why: Text::default() });
    let hostage = world.submit("hostage", |spec| {
        spec.limits.attempts_max = 1;
        spec.limits.time_limit = Some(Span::from_secs(20));
    });
    world.wait_heard(Span::from_secs(10), node(1), session);
    world.run(hostage, session);
    let deaf = world.submit("deaf", |_| {});
    world.run(deaf, session);
    let grace = Span::from_secs(10);
    world.tell(Command::Cancel { by: client("alice"), job: deaf, grace, why: Text::default() });
    world.wait_heard(Span::from_secs(90), node(1), session);
    assert_eq!(world.fate(hostage), (JobState::Failed, Reason::NodeFault, 0));
    assert_eq!(world.fate(deaf), (JobState::Cancelled, Reason::Cancelled, 0));
    assert_eq!(world.fate(silent), (JobState::Cancelled, Reason::Cancelled, 0));
}

#[test]
fn a_restart_forgets_nothing_and_declares_nobody_lost_for_a_minute() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let running = world.submit("a", |spec| spec.limits.lost_after = Span::from_secs(15));
    world.run(running, session);
    let queued = world.submit("b", |spec| spec.requirements.cpu_milli = 4_000);
    let item = world.item(running, ItemState::Running);
    let (before, balances) = (world.control.clone(), world.available("alice"));
    world.control = world.replayed();
    assert_eq!(world.control.jobs, before.jobs);
    assert_eq!((&world.control.ledger, world.control.queue.shares()), (&before.ledger, before.queue.shares()));
    assert_eq!(world.control.queue.turns(), before.queue.clone().turns());
    assert_eq!(world.available("alice"), balances);
    world.start();
    world.changes.clear();
    world.wait(Span::from_secs(59));
    assert_eq!(world.changes, [(node(1), NodeState::Suspect)], "silent, but not lost");
    assert_eq!(world.control.job(running).map(|job| job.attempts_made), Some(1));
    let session = world.connect_holding(1, vec![item]);
    world.report(running, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(60)));
    assert_eq!(world.fate(running).0, JobState::Completed);
    assert_eq!(world.state(queued), JobState::Assigned);
}

#[test]
fn a_second_live_agent_with_one_certificate_is_refused_and_a_dead_one_replaced() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let clone = || World::arrival(77, 36_000);
    assert_eq!(world.connect_with(node(1), clone()).1, Reply::Refused(Refused::Probing));
    assert!(matches!(world.sent()[..], [.., (_, NodeMessage::Probe)]));
    world.wait(Span::from_millis(100));
    world.done(Command::AgentHeard { node: node(1), session });
    world.wait(Span::from_secs(2));
    assert_eq!(world.connect_with(node(1), clone()).1, Reply::Refused(Refused::DuplicateInstance));
    assert_eq!(world.connect_with(node(1), clone()).1, Reply::Refused(Refused::Probing));
    world.wait(Span::from_secs(2));
    let (new, reply) = world.connect_with(node(1), clone());
    assert_eq!(reply, Reply::Welcome, "the first one did not answer the probe");
    assert_eq!(world.tell(Command::AgentHeard { node: node(1), session }), Reply::Refused(Refused::StaleSession));
    world.done(Command::AgentHeard { node: node(1), session: new });
}

#[test]
fn a_fence_from_the_future_means_a_roll_back_and_stops_scheduling_and_money() {
    let mut world = World::new();
    let mut arrival = World::arrival(1, 36_000);
    arrival.highest_fence = Some(Fence(10_000));
    let foreign = AttemptId { job: JobId([5; 16]), number: 1 };
    arrival.inventory = vec![InventoryItem { attempt: foreign, fence: Fence(10_000), state: ItemState::Running }];
    let session = SessionId(1);
    let connected = Command::AgentConnected { node: node(1), session, arrival };
    let decision = world.control.apply(world.now, connected);
    let kept = |effect: &Effect| {
        matches!(effect, Effect::ToNode { message: NodeMessage::Reconcile(verdicts), .. }
            if verdicts.iter().all(|(_, _, verdict)| *verdict == Verdict::Keep))
    };
    assert!(decision.effects.iter().any(kept), "nothing is killed: {:?}", decision.effects);
    assert!(world.control.problems()[0].contains("fence 10000"), "{:?}", world.control.problems());
    let by = client("alice");
    let key = "k".parse().expect("a key");
    let submit = Command::Submit { by, key, spec: Box::new(spec()), spec_digest: Digest([0; 32]), no_queue: false };
    let reply = world.control.apply(world.now, submit).reply;
    assert!(matches!(reply, Some(Reply::Refused(Refused::Frozen { .. }))), "{reply:?}");
}

#[test]
fn in_an_old_copy_no_result_is_settled_no_wait_ends_and_nobody_is_refunded() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let runs = world.submit("runs", |spec| spec.limits.time_limit = Some(Span::from_secs(10)));
    world.run(runs, session);
    let waits = world.submit("waits", |spec| {
        spec.requirements.node = Some("n2".parse().expect("a name"));
        spec.limits.start_by = Some(Span::from_secs(60));
    });
    let mut arrival = World::arrival(2, 36_000);
    arrival.highest_fence = Some(Fence(10_000));
    world.control.apply(world.now, Command::AgentConnected { node: node(2), session: SessionId(9), arrival });
    world.sent();
    let (events, available) = (world.control.last_number(), world.available("alice"));

    // The next moment of a journal that is not an old copy: its agent must keep the result for that one.
    let placement = world.control.job(runs).and_then(Job::placement).expect("placed").clone();
    let (attempt, fence) = (placement.attempt, placement.fence);
    let body = World::ended(Ending::Exited { code: 0 }, Span::from_secs(1));
    let report = Command::Report { node: node(1), session, report: Report { attempt, fence, body } };
    let decision = world.control.apply(world.now, report);
    assert_eq!((decision.events, decision.effects), (Vec::new(), Vec::new()));
    for job in [runs, waits] {
        let (grace, why) = (Span::ZERO, Text::default());
        let reply = world.control.apply(world.now, Command::Cancel { by: client("alice"), job, grace, why }).reply;
        assert!(matches!(reply, Some(Reply::Refused(Refused::Frozen { .. }))), "{reply:?}");
    }
    // Far beyond its time limit, the other one's time to start, and every patience with silent nodes.
    let end = world.now + Span::from_secs(24 * 3600);
    while let Some(at) = world.control.next_deadline().filter(|at| *at <= end) {
        world.now = world.now.max(at);
        world.control.advance(world.now);
    }
    assert_eq!((world.state(runs), world.state(waits)), (JobState::Running, JobState::Queued));
    assert_eq!(world.available("alice"), available);
    assert_eq!(world.control.job(runs).and_then(Job::placement).map(|placement| placement.fence), Some(fence));
    assert!(world.control.last_number() > events, "its node is known to be lost");
}

#[test]
fn a_stop_job_is_not_placed_again_before_its_lease_is_surely_over() {
    let mut world = World::new();
    world.wait(crate::deadline::RECOVERY_WINDOW);
    let first = world.connect(1, 36_000);
    let job = world.submit("k", |spec| {
        spec.limits.lost_after = Span::from_secs(15);
        spec.limits.on_disconnect = OnDisconnect::Stop;
    });
    world.run(job, first);
    let second = world.connect(2, 72_000);
    world.wait_heard(Span::from_secs(34), node(2), second);
    assert_eq!(world.control.job(job).map(|job| job.attempts_made), Some(1));
    world.wait_heard(Span::from_secs(5), node(2), second);
    assert_eq!(world.control.job(job).map(|job| job.attempts_made), Some(2), "30 s of lease and 5 s of margin");
}

#[test]
fn an_old_copy_stays_found_out_however_often_it_is_started_again() {
    let mut world = World::new();
    let mut arrival = World::arrival(1, 36_000);
    // Starts and connections have raised the number past the fence; no job was ever assigned under it.
    let seen = Fence(world.control.last_number());
    assert!(seen > Fence(0));
    arrival.highest_fence = Some(seen);
    world.control.apply(world.now, Command::AgentConnected { node: node(1), session: SessionId(1), arrival });
    assert!(world.control.problems()[0].contains("rolled back"), "{:?}", world.control.problems());
}

#[test]
fn a_node_that_has_taken_an_attempt_cannot_refuse_it_for_ever() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |spec| spec.limits.attempts_max = 2);
    for _ in 0..2 {
        world.report(job, session, ReportBody::Starting);
        world.report(job, session, ReportBody::Refused { message: Text::cut("after all") });
        world.wait_heard(Span::from_secs(10), node(1), session);
    }
    assert_eq!(world.fate(job), (JobState::Failed, Reason::Attempts, 0));
}

#[test]
fn what_is_lost_over_a_connection_that_still_lives_is_told_to_end() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    let item = world.item(job, ItemState::Running);
    world.sent();
    world.wait(Span::from_secs(61));
    let (attempt, fence, grace, cause) = (item.attempt, item.fence, Span::ZERO, StopCause::Superseded);
    assert_eq!(world.sent(), [(node(1), NodeMessage::Stop { attempt, fence, grace, cause })]);
}

#[test]
fn after_a_standstill_nobody_is_taken_for_silent_before_there_was_time_to_be_heard() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let away = world.connect(2, 72_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    world.done(Command::AgentDisconnected { node: node(2), session: away });
    world.now = world.now + Span::from_secs(3_600);
    world.control.stood_still(world.now);
    world.changes.clear();
    world.settle_down();
    assert_eq!(world.changes, [(node(2), NodeState::Suspect)], "it is away, and has a minute to come back");
    world.done(Command::AgentHeard { node: node(1), session });
    world.wait_heard(Span::from_secs(59), node(1), session);
    assert_eq!(world.state(job), JobState::Running);
    world.wait(Span::from_secs(2));
    assert!(world.changes.contains(&(node(2), NodeState::Lost)));
    world.wait(Span::from_secs(60));
    assert_eq!(world.state(job), JobState::Queued, "from then on silence counts as ever");
}

#[test]
fn a_leap_of_the_clock_over_a_reboot_gives_nothing_up_before_its_node_could_come_back() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (prepared, done) = (world.submit("a", |_| {}), world.submit("b", |_| {}));
    let runs = world.submit("c", |spec| spec.limits.time_limit = Some(Span::from_secs(3_600)));
    world.report(prepared, session, ReportBody::Starting);
    world.run(runs, session);
    let still = world.item(runs, ItemState::Running);
    world.run(done, session);
    let item = world.item(prepared, ItemState::Running);
    let output = OutputLengths { stdout: 5, ..OutputLengths::default() };
    let ending = Ending::Exited { code: 0 };
    world.report(done, session, ReportBody::Ended { ending, usage: Usage::default(), output });
    let waits = world.item(done, ItemState::Ended);

    world.now = world.now + Span::from_secs(24 * 3600);
    world.control = world.replayed();
    world.start();
    world.wait(Span::from_secs(50));
    let session = world.connect_holding(1, vec![item, waits, still]);
    assert_eq!(world.state(prepared), JobState::Running, "it had started unheard");
    let (attempt, fence) = (waits.attempt, waits.fence);
    world.done(Command::OutputStored { attempt, fence, stored: output });
    assert_eq!(world.finished(done).0.output, output);
    world.wait_heard(Span::from_secs(600), node(1), session);
    assert_eq!((world.state(prepared), world.state(runs)), (JobState::Running, JobState::Running));
    world.wait_heard(Span::from_secs(3_100), node(1), session);
    let attempts = world.control.job(runs).map(|job| job.attempts_made);
    assert!(attempts > Some(1), "a node that keeps no limit keeps no job for ever");
}

#[test]
fn behind_an_accepted_copy_fences_are_above_all_that_were_handed_out_and_unknown_work_is_ended() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let known = world.submit("known", |_| {});
    world.run(known, session);
    let old = world.item(known, ItemState::Running);
    for accepted in 1..=2u64 {
        let journal = JournalId([accepted as u8; 16]);
        world.done(Command::AcceptRestore { journal, wall: WallTime(0) });
        assert_eq!(world.control.accepted(), Some((journal, accepted << 40)));
        world.start();
        // It has seen the future that is lost, under a name of the journal that proves nothing any more.
        let lost = AttemptId { job: JobId([5; 16]), number: 1 };
        let void = InventoryItem { attempt: lost, fence: Fence(10_000), state: ItemState::Running };
        world.sent();
        let session = world.connect_holding(1, vec![old, void]);
        let verdicts: Vec<Verdict> = world
            .sent()
            .into_iter()
            .find_map(|(_, message)| match message {
                NodeMessage::Reconcile(verdicts) => Some(verdicts.into_iter().map(|(_, _, verdict)| verdict).collect()),
                _ => None,
            })
            .expect("it is told");
        assert_eq!(verdicts, [Verdict::Keep, Verdict::Kill]);
        let fresh = world.submit(&format!("fresh{accepted}"), |_| {});
        let fence = world.item(fresh, ItemState::Starting).fence;
        assert_eq!(fence, Fence((accepted << 40) + world.journal.last().map_or(0, |event| event.number)));
        world.run(fresh, session);
        world.report(fresh, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
        assert_eq!(world.state(fresh), JobState::Completed);
    }
    assert_eq!(world.replayed().durable(), world.control.durable());
    let restored = Control::restore(world.control.config().clone(), world.control.durable());
    assert_eq!((restored.accepted(), restored.last_fence()), (world.control.accepted(), world.control.last_fence()));
}

#[test]
fn a_copy_that_is_accepted_a_second_time_hands_out_other_fences_than_the_first_time() {
    let world = World::new();
    let base_at = |seconds: i64| {
        let mut copy = world.replayed();
        let (journal, wall) = (JournalId([1; 16]), WallTime(seconds * 1_000));
        copy.apply(world.now, Command::AcceptRestore { journal, wall });
        copy.accepted().expect("accepted").1
    };
    let now = 1_800_000_000;
    assert!(base_at(now + 60) - base_at(now) >= 60 << 20, "a million fences a second lie between");
    assert!(base_at(now) < 1 << 53, "readers of JSON keep it whole");
    assert_eq!(base_at(-5), 1 << 40, "a clock that was never set does no harm");
}

#[test]
fn a_job_that_waits_longer_than_its_node_takes_to_be_lost_waits_no_longer_over_a_restart() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |spec| {
        spec.limits.lost_after = Span::from_secs(3_600);
        spec.limits.attempts_max = 1;
    });
    world.run(job, session);
    world.wait(Span::from_secs(120));
    assert!(world.changes.contains(&(node(1), NodeState::Lost)));
    world.control = world.replayed();
    world.start();
    world.wait(Span::from_secs(3_590));
    assert_eq!(world.state(job), JobState::Running, "its time begins anew");
    world.wait(Span::from_secs(60));
    assert_eq!(world.fate(job), (JobState::Failed, Reason::NodeLost, 0));
}

#[test]
fn a_node_that_dies_just_before_a_standstill_is_lost_all_the_same() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |spec| spec.limits.attempts_max = 1);
    world.run(job, session);
    world.wait(Span::from_secs(20));
    assert_eq!(world.changes.last(), Some(&(node(1), NodeState::Suspect)));
    // Its connection is still thought to live.
    world.now = world.now + Span::from_secs(30);
    world.control.stood_still(world.now);
    world.settle_down();
    world.done(Command::AgentDisconnected { node: node(1), session });
    world.wait(Span::from_secs(59));
    assert_eq!(world.state(job), JobState::Running);
    world.wait(Span::from_secs(60));
    assert!(world.changes.contains(&(node(1), NodeState::Lost)));
    assert_eq!(world.fate(job), (JobState::Failed, Reason::NodeLost, 0));
}

#[test]
fn what_ended_during_a_standstill_is_heard_before_its_limit_is_held_against_it() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |spec| {
        spec.limits.time_limit = Some(Span::from_secs(60));
        spec.limits.attempts_max = 1;
    });
    world.run(job, session);
    world.now = world.now + Span::from_secs(600);
    world.control.stood_still(world.now);
    world.settle_down();
    assert_eq!(world.state(job), JobState::Running, "its result may wait to be read");
    world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(5)));
    assert_eq!(world.state(job), JobState::Completed);
}

#[test]
fn a_job_for_one_place_only_moves_from_a_node_that_does_not_answer_once_that_can_run_nothing_any_more() {
    let assigned = |stop: bool| {
        let mut world = World::new();
        let silent = world.connect(1, 36_000);
        let on_disconnect = if stop { OnDisconnect::Stop } else { OnDisconnect::Keep };
        world.submit("k", |spec| {
            spec.limits.on_disconnect = on_disconnect;
            spec.limits.lost_after = Span::from_secs(3_600);
        });
        (world, silent)
    };
    let moves = |world: &World| world.journal.iter().any(|event| matches!(event.body, EventBody::AttemptEnded { .. }));
    // It is heard all the time, and has never told of the attempt.
    for (stop, moves_after) in [(false, 30), (true, 65)] {
        let (mut world, session) = assigned(stop);
        world.wait_heard(Span::from_secs(moves_after - 1), node(1), session);
        assert!(!moves(&world), "{stop}");
        world.wait_heard(Span::from_secs(2), node(1), session);
        assert!(moves(&world), "{stop}");
    }
    // It may have begun the attempt just before the connection went, of which nobody knows yet.
    let (mut world, session) = assigned(true);
    world.wait_heard(Span::from_secs(45), node(1), session);
    world.wait(Span::from_secs(34));
    assert!(!moves(&world));
    world.wait(Span::from_secs(2));
    assert!(moves(&world), "its lease is over");
}

#[test]
fn nor_from_one_that_was_connected_long_before_it_was_told() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    world.wait_heard(Span::from_secs(3_600), node(1), session);
    world.submit("k", |spec| {
        spec.limits.on_disconnect = OnDisconnect::Stop;
        spec.limits.lost_after = Span::from_secs(3_600);
    });
    let moves = |world: &World| world.journal.iter().any(|event| matches!(event.body, EventBody::AttemptEnded { .. }));
    // It begins the attempt, and its connection goes before it can say so.
    world.wait_heard(Span::from_secs(20), node(1), session);
    world.wait(Span::from_secs(44));
    assert!(!moves(&world), "its lease lasts until 50 s after it was told, by its own clock");
    world.wait(Span::from_secs(2));
    assert!(moves(&world));
}

#[test]
fn a_node_that_comes_and_goes_for_ever_holds_no_job_and_no_money() {
    for (takes, cancels) in [(false, false), (true, true)] {
        let mut world = World::new();
        let mut session = world.connect(1, 36_000);
        let job = world.submit("k", |spec| spec.limits.attempts_max = 1);
        let mut held = Vec::new();
        if takes {
            world.run(job, session);
            held.push(world.item(job, ItemState::Running));
        }
        if cancels {
            let (by, grace, why) = (client("alice"), Span::ZERO, Text::default());
            world.tell(Command::Cancel { by, job, grace, why });
        }
        let first = world.control.job(job).and_then(Job::placement).map(|placement| placement.fence);
        let mut comes = 0;
        while world.control.job(job).and_then(Job::placement).map(|placement| placement.fence) == first {
            world.wait_heard(Span::from_secs(25), node(1), session);
            session = world.connect_holding(1, held.clone());
            comes += 1;
            assert!(comes < 100, "{takes}");
        }
        assert!(comes >= 16, "each time it has its time again");
        assert_eq!(world.control.late.len(), 0, "nothing of it is remembered");
    }
}

#[test]
fn an_attempt_that_ends_before_anybody_heard_of_it_is_one_of_those_the_job_has() {
    for ending in [
        Ending::LeaseEnded,
        Ending::CannotStart { fault: Fault::Node, message: Text::cut("no room") },
        Ending::NodeFault { message: Text::cut("engine died") },
    ] {
        let mut world = World::new();
        let session = world.connect(1, 36_000);
        let job = world.submit("k", |spec| spec.limits.attempts_max = 2);
        world.report(job, session, World::ended(ending.clone(), Span::ZERO));
        assert_eq!(world.state(job), JobState::Queued, "the node rests after {ending:?}");
        world.wait(crate::node::COOL_DOWN);
        world.done(Command::AgentHeard { node: node(1), session });
        assert_eq!(world.state(job), JobState::Assigned);
        world.report(job, session, World::ended(ending.clone(), Span::ZERO));
        assert_eq!(world.fate(job), (JobState::Failed, Reason::Attempts, 0), "{ending:?}");
    }
}

#[test]
fn deadlines_of_what_is_over_do_not_wait_for_their_time() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let before = world.control.deadlines.iter().count();
    for key in 0..50 {
        let job = world.submit(&format!("k{key}"), |spec| {
            spec.limits.start_by = Some(Span::from_secs(1_000_000));
            spec.limits.time_limit = Some(Span::from_secs(1_000_000));
        });
        world.run(job, session);
        world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
    }
    let all_that_is_near = crate::deadline::PREPARE_WITHIN.saturating_add(Span::from_secs(10));
    world.wait_heard(all_that_is_near, node(1), session);
    assert!(world.control.deadlines.iter().count() <= before + 1, "{:?}", world.control.deadlines);
}

#[test]
fn a_node_takes_no_more_attempts_than_its_inventory_has_room_for() {
    let mut world = World::new();
    world.connect(1, 36_000);
    let takes_another = |slots, taken| {
        let mut one = world.control.nodes[&node(1)].clone();
        one.offer.as_mut().expect("it has one").capabilities.slots = slots;
        one.taken.slots = taken;
        crate::scheduler::feasible::fit(&one, world.now, &Needs::of(&spec(), None)).is_ok()
    };
    assert!(takes_another(3, 2) && !takes_another(3, 3));
    assert!(takes_another(u32::MAX, 4_095) && !takes_another(u32::MAX, 4_096));
}
