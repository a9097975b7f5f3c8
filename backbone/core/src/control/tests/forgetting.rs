//! Ended jobs that are forgotten: which, and what comes of their keys and their late agents.

use super::*;
use crate::audit;
use crate::event::JOBS_FORGOTTEN_MAX;

/// A job that has run for a second and was paid, and the attempt that it ended with.
fn ran(world: &mut World, key: &str, session: SessionId) -> (JobId, AttemptId, Fence) {
    let job = world.submit(key, |_| {});
    world.run(job, session);
    let placement = world.control.job(job).and_then(Job::placement).expect("placed");
    let (attempt, fence) = (placement.attempt, placement.fence);
    world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
    (job, attempt, fence)
}

fn forget(world: &mut World, jobs: &[JobId]) -> usize {
    match world.tell(Command::ForgetJobs { jobs: jobs.to_vec() }) {
        Reply::Forgotten { jobs } => jobs,
        reply => panic!("nobody expects {reply:?}"),
    }
}

fn remembered(world: &World) -> Vec<JobId> {
    world.control.ended_oldest().map(|(id, _)| id).collect()
}

#[test]
fn the_oldest_are_found_in_the_order_in_which_they_ended_and_no_money_moves() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let open = world.submit("open", |_| {});
    let jobs: Vec<JobId> = ["c", "a", "b"].into_iter().map(|key| ran(&mut world, key, session).0).collect();
    world.wait(Span(1));
    assert_eq!(remembered(&world), jobs);
    let before: Vec<(Account, i128)> =
        world.control.ledger().balances().map(|(account, balance)| (account.clone(), balance)).collect();
    assert_eq!(forget(&mut world, &[jobs[2], open, jobs[0], jobs[2], JobId([9; 16])]), 2, "each once, if it has ended");
    assert_eq!(remembered(&world), [jobs[1]]);
    assert_eq!((world.control.ended(jobs[0]), world.control.ended_count()), (None, 1));
    assert_eq!(world.state(open), JobState::Assigned, "what has not ended is not touched");
    assert!(world.control.ledger().balances().map(|(account, balance)| (account.clone(), balance)).eq(before));
    assert_eq!(forget(&mut world, &jobs[..1]), 0, "a second time does nothing");
    world.check_replay();
}

#[test]
fn what_ended_in_this_very_moment_stays() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (job, ..) = ran(&mut world, "k", session);
    assert_eq!(forget(&mut world, &[job]), 0);
    world.wait(Span(1));
    assert_eq!(forget(&mut world, &[job]), 1);
    assert_eq!(world.control.ended(job), None);
}

#[test]
fn the_key_of_a_forgotten_job_makes_another_one_and_its_late_agent_is_not_paid() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (job, attempt, fence) = ran(&mut world, "k", session);
    world.wait(Span(1));
    let specification = |world: &mut World| world.submit_as("alice", "k", JobSpec { priority: 1, ..spec() });
    assert!(matches!(specification(&mut world), Reply::Submitted { existing: true, .. }), "it is remembered");
    assert_eq!(forget(&mut world, &[job]), 1);
    let cancel = Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() };
    assert_eq!(world.tell(cancel), Reply::Refused(Refused::UnknownJob));
    assert!(matches!(specification(&mut world), Reply::Submitted { existing: false, .. }), "another job");

    let placement = world.control.job(job).and_then(Job::placement).expect("placed").clone();
    assert_eq!(placement.attempt, attempt, "its attempts are counted from 1");
    assert!(placement.fence > fence, "and their fences tell them apart");
    let free = world.available("alice");
    world.sent();
    let late = Report { attempt, fence, body: World::ended(Ending::Exited { code: 0 }, Span::from_secs(100)) };
    world.done(Command::Report { node: node(1), session, report: late });
    assert_eq!(world.sent(), [(node(1), NodeMessage::Ack { attempt, fence })], "it is to forget it");
    let stored = OutputLengths { stdout: 9, ..OutputLengths::default() };
    world.done(Command::OutputStored { attempt, fence, stored });
    assert_eq!((world.available("alice"), world.state(job)), (free, JobState::Assigned));

    world.run(job, session);
    world.report(job, session, World::ended(Ending::Exited { code: 3 }, Span::from_secs(1)));
    assert_eq!(world.state(job), JobState::Failed);
    let bills = world.journal.iter().filter(|event| matches!(event.body, EventBody::JobFinished { .. }));
    assert_eq!(bills.count(), 2, "each of the two once");
}

#[test]
fn what_a_node_still_has_of_a_forgotten_job_is_of_an_unknown_one() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (job, attempt, fence) = ran(&mut world, "k", session);
    world.wait(Span(1));
    forget(&mut world, &[job]);
    for (state, verdict) in
        [(ItemState::Ended, Verdict::Forget), (ItemState::Running, Verdict::Kill), (ItemState::Starting, Verdict::Kill)]
    {
        world.sent();
        world.connect_holding(1, vec![InventoryItem { attempt, fence, state }]);
        assert_eq!(world.sent(), [(node(1), NodeMessage::Reconcile(vec![(attempt, fence, verdict)]))]);
    }
}

#[test]
fn the_start_by_time_of_a_forgotten_job_is_not_that_of_the_next_one_with_its_key() {
    let mut world = World::new();
    let submit = |world: &mut World, start_by| {
        world.submit("k", |spec| spec.limits.start_by = Some(Span::from_secs(start_by)));
    };
    submit(&mut world, 100);
    let job = JobId::derive(&account("alice"), &"k".parse().expect("a key"));
    world.tell(Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() });
    world.wait(Span::from_secs(50));
    assert_eq!(forget(&mut world, &[job]), 1);
    submit(&mut world, 100);
    let kept = world.control.durable();
    assert_eq!(kept, Control::restore(world.control.config.clone(), kept.clone()).durable());
    world.wait(Span::from_secs(99));
    assert_eq!(world.state(job), JobState::Queued);
    world.wait(Span::from_secs(1));
    assert_eq!(world.state(job), JobState::Expired);
}

#[test]
fn one_event_forgets_no_more_than_it_may_and_the_next_one_goes_on() {
    let mut world = World::new();
    let mut jobs = Vec::new();
    for number in 0..=JOBS_FORGOTTEN_MAX {
        let job = JobId::derive(&account("alice"), &format!("k{number}").parse().expect("a key"));
        world.control.apply(world.now, submit_small(number));
        let by = client("alice");
        world.control.apply(world.now, Command::Cancel { by, job, grace: Span::ZERO, why: Text::default() });
        jobs.push(job);
    }
    assert_eq!(world.control.ended_count(), jobs.len());
    let mut later = |control: &mut Control| {
        world.now = world.now + Span(1);
        control.apply(world.now, Command::ForgetJobs { jobs: jobs.clone() }).reply
    };
    let control = &mut world.control;
    assert_eq!(later(control), Some(Reply::Forgotten { jobs: JOBS_FORGOTTEN_MAX }));
    assert_eq!(later(control), Some(Reply::Forgotten { jobs: 1 }));
    assert_eq!((control.ended_count(), control.audit()), (0, Ok(())));
}

fn submit_small(number: usize) -> Command {
    let spec = Box::new(JobSpec { max_cost: Micro(100), ..spec() });
    let (by, key) = (client("alice"), format!("k{number}").parse().expect("a key"));
    Command::Submit { by, key, spec, spec_digest: Digest([0; 32]), no_queue: false }
}

#[test]
fn a_journal_that_was_rolled_back_forgets_nothing() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (job, ..) = ran(&mut world, "k", session);
    world.wait(Span(1));
    let mut arrival = World::arrival(1, 36_000);
    arrival.highest_fence = Some(Fence(1 << 30));
    world.control.apply(world.now, Command::AgentConnected { node: node(1), session: SessionId(9), arrival });
    let decision = world.control.apply(world.now, Command::ForgetJobs { jobs: vec![job] });
    assert!(matches!(decision.reply, Some(Reply::Refused(Refused::Frozen { .. }))), "{decision:?}");
    assert_eq!((decision.events.len(), world.control.ended_count()), (0, 1));
}

#[test]
fn an_event_that_forgets_anything_else_is_a_breach() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let open = world.submit("open", |_| {});
    let (first, ..) = ran(&mut world, "a", session);
    let (second, ..) = ran(&mut world, "b", session);
    let (number, now) = (world.control.last_number() + 1, world.now);
    let breach = |jobs: &[JobId], at: Timestamp| {
        audit::event(&world.control, &Event { number, at, body: EventBody::JobsForgotten { jobs: jobs.to_vec() } })
    };
    let later = now + Span(1);
    assert_eq!(breach(&[second, first], later), Ok(()));
    for jobs in [&[][..], &[open], &[first, first], &[first, second, open], &[JobId([9; 16])]] {
        assert!(breach(jobs, later).is_err(), "{jobs:?}");
    }
    assert!(breach(&[first], now).is_err(), "in the moment in which it ended");
    assert!(breach(&vec![first; JOBS_FORGOTTEN_MAX + 1], later).is_err());
}

#[test]
fn a_state_whose_order_of_ended_jobs_or_closed_holds_is_wrong_is_not_sound() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (job, ..) = ran(&mut world, "a", session);
    world.control.audit().expect("sound");
    let mut control = world.control.clone();
    control.ledger.forget(&[job]);
    assert!(control.audit().is_err(), "its hold counts as never closed");
    let mut control = world.control.clone();
    let ended = control.ended.get(&job).expect("it has ended").clone();
    control.ended.insert(job, EndedJob { finished: ended.finished + 1, ..ended });
    assert!(control.audit().is_err(), "it stands in the order twice");
}
