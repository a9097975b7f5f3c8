//! What clients see: acceptance, order, bills, endings.

use super::*;

#[test]
fn a_job_is_held_run_on_the_cheapest_node_metered_and_settled() {
    let mut world = World::new();
    world.connect(1, 72_000);
    let session = world.connect(2, 36_000);
    let job = world.submit("k", |_| {});
    assert_eq!(assignments(&world.sent()), [(node(2), AttemptId { job, number: 1 })]);
    assert_eq!((world.available("alice"), world.control.ledger().held(job).0), (900_000, HOLD));
    world.wait(Span::from_secs(3));
    world.run(job, session);
    world.wait_heard(Span::from_secs(600), node(2), session);
    world.report(job, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(600)));
    // 10 minutes of one core at 0.036 an hour
    assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 6_000));
    assert_eq!(world.available("alice"), 994_000);
    assert_eq!(world.control.ledger().balance(&Account::Earnings(account("owen"))), 5_700);
    assert_eq!(world.control.ledger().balance(&Account::Fees), 300);
    assert!(world.sent().iter().any(|(_, message)| matches!(message, NodeMessage::Ack { .. })));
}

#[test]
fn the_same_key_is_the_same_job_and_another_specification_under_it_is_refused() {
    let mut world = World::new();
    let job = world.submit("k", |_| {});
    for _ in 0..64 {
        let again = Reply::Submitted { job, state: JobState::Queued, held: Micro(HOLD), existing: true };
        assert_eq!(world.submit_as("alice", "k", spec()), again);
    }
    assert_eq!(world.available("alice"), 900_000);
    let other = JobSpec { max_cost: Micro(5), ..spec() };
    assert_eq!(world.submit_as("alice", "k", other), Reply::Refused(Refused::IdempotencyConflict { job }));
    match world.submit_as("bob", "k", spec()) {
        Reply::Submitted { job: bobs, existing: false, .. } => assert_ne!(bobs, job, "another account, another job"),
        reply => panic!("{reply:?}"),
    }
    // An ended job still answers for its key.
    world.tell(Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() });
    let ended = Reply::Submitted { job, state: JobState::Cancelled, held: Micro(HOLD), existing: true };
    assert_eq!(world.submit_as("alice", "k", spec()), ended);
}

#[test]
fn bad_submits_change_nothing_and_say_why() {
    type Change = fn(&mut JobSpec);
    let cases: [(Change, &str); 8] = [
        (|s| s.max_cost = Micro(1_000_001), "insufficient funds: need 1.000001, have 1.00"),
        (|s| s.max_cost = Micro(0), "the maximum cost must be more than zero"),
        (|s| s.requirements.cpu_milli = 0, "cpus must be between 0.001 and 1024"),
        (|s| s.requirements.memory_bytes = 5, "memory must be between 1 MiB and 16 TiB"),
        (|s| s.limits.lost_after = Span::from_secs(1), "lost-after must be between 15s and 24h"),
        (|s| s.limits.attempts_max = 0, "retries must be between 0 and 19"),
        (|s| s.limits.time_limit = Some(Span::ZERO), "the time limit must be more than zero"),
        (|s| s.name = Text::cut("a\u{1b}[31mb"), "the name must be printable ASCII without spaces"),
    ];
    let mut world = World::new();
    for (change, message) in cases {
        let mut bad = spec();
        change(&mut bad);
        let before = world.journal.len();
        match world.submit_as("alice", "k", bad) {
            Reply::Refused(refused) => assert_eq!(refused.to_string(), message),
            reply => panic!("{message}: {reply:?}"),
        }
        assert_eq!((world.journal.len(), world.available("alice")), (before, 1_000_000), "{message}");
    }
}

#[test]
fn another_client_s_job_looks_like_none_at_all() {
    let mut world = World::new();
    let job = world.submit("k", |_| {});
    let absent = JobId([9; 16]);
    for ended in [false, true] {
        for id in [job, absent] {
            let cancel = Command::Cancel { by: client("bob"), job: id, grace: Span::ZERO, why: Text::default() };
            assert_eq!(world.tell(cancel), Reply::Refused(Refused::UnknownJob), "{ended}");
        }
        let cancel = Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() };
        let answer = world.tell(cancel);
        assert_eq!(matches!(answer, Reply::Refused(Refused::AlreadyEnded { .. })), ended);
    }
}

#[test]
fn a_cancel_stops_the_attempt_and_pays_to_the_confirmed_stop() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    world.wait_heard(Span::from_secs(300), node(1), session);
    world.sent();
    let grace = Span::from_secs(10);
    let cancel = Command::Cancel { by: client("alice"), job, grace, why: Text::default() };
    assert_eq!(world.tell(cancel), Reply::Cancelling { job, state: JobState::Cancelling });
    assert!(matches!(world.sent()[..], [(_, NodeMessage::Stop { cause: StopCause::Cancelled, .. })]));
    world.report(job, session, World::ended(Ending::Stopped, Span::from_secs(300)));
    assert_eq!(world.fate(job), (JobState::Cancelled, Reason::Cancelled, 3_000));
}

#[test]
fn a_cancel_with_a_long_grace_near_the_run_limit_is_paid() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |spec| spec.limits.time_limit = Some(Span::from_secs(3_600)));
    world.run(job, session);
    world.wait_heard(Span::from_secs(3_595), node(1), session);
    let (by, grace) = (client("alice"), Span::from_secs(600));
    world.tell(Command::Cancel { by, job, grace, why: Text::default() });
    // Past the time in which a node has to tell of the end of what nobody stops.
    world.wait_heard(Span::from_secs(500), node(1), session);
    assert_eq!(world.state(job), JobState::Cancelling);
    world.report(job, session, World::ended(Ending::Stopped, Span::from_secs(3_600)));
    assert_eq!(world.fate(job), (JobState::Cancelled, Reason::Cancelled, 36_000));
}

#[test]
fn a_more_urgent_cancel_is_kept_for_a_node_that_is_away() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    let cancel = |world: &mut World, grace| {
        let (by, grace) = (client("alice"), Span::from_secs(grace));
        assert!(matches!(
            world.tell(Command::Cancel { by, job, grace, why: Text::default() }),
            Reply::Cancelling { state: JobState::Cancelling, .. }
        ));
    };
    cancel(&mut world, 600);
    world.done(Command::AgentDisconnected { node: node(1), session });
    cancel(&mut world, 5);
    cancel(&mut world, 60);
    world.sent();
    let placement = world.control.job(job).and_then(|job| job.placement()).expect("it runs");
    let item = InventoryItem { attempt: placement.attempt, fence: placement.fence, state: ItemState::Running };
    world.connect_holding(1, vec![item]);
    let told = world.sent().into_iter().find_map(|(_, message)| match message {
        NodeMessage::Stop { grace, .. } => Some(grace),
        _ => None,
    });
    assert_eq!(told, Some(Span::from_secs(5)));
}

#[test]
fn a_cancel_before_the_start_gives_everything_back() {
    let mut world = World::new();
    let queued = world.submit("a", |_| {});
    world.tell(Command::Cancel { by: client("alice"), job: queued, grace: Span::ZERO, why: Text::default() });
    assert_eq!(world.fate(queued), (JobState::Cancelled, Reason::Cancelled, 0));
    let session = world.connect(1, 36_000);
    let starting = world.submit("b", |_| {});
    world.report(starting, session, ReportBody::Starting);
    world.tell(Command::Cancel { by: client("alice"), job: starting, grace: Span::ZERO, why: Text::default() });
    world.report(starting, session, World::ended(Ending::Stopped, Span::ZERO));
    assert_eq!(world.fate(starting), (JobState::Cancelled, Reason::Cancelled, 0));
    assert_eq!(world.available("alice"), 1_000_000);
}

#[test]
fn a_job_whose_input_failed_is_stopped_paid_for_what_ran_and_fails() {
    let mut world = World::new();
    let message = || Text::cut("input over its cap");
    let queued = world.submit("queued", |_| {});
    world.done(Command::InputFailed { job: queued, message: message() });
    assert_eq!(world.fate(queued), (JobState::Failed, Reason::Refused, 0));
    let session = world.connect(1, 36_000);
    let job = world.submit("k", |_| {});
    world.run(job, session);
    world.wait_heard(Span::from_secs(300), node(1), session);
    world.sent();
    world.done(Command::InputFailed { job, message: message() });
    assert!(matches!(world.sent()[..], [(_, NodeMessage::Stop { cause: StopCause::Cancelled, .. })]));
    let cancel = Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() };
    assert_eq!(world.tell(cancel), Reply::Cancelling { job, state: JobState::Cancelling }, "the first reason stands");
    world.report(job, session, World::ended(Ending::Stopped, Span::from_secs(300)));
    assert_eq!(world.fate(job), (JobState::Failed, Reason::Refused, 3_000));
    assert_eq!(world.finished(job).0.message, message());
}

#[test]
fn the_bill_is_never_above_what_was_seen_from_here_nor_above_the_hold() {
    let mut world = World::new();
    let session = world.connect(1, 3_600_000);
    let liar = world.submit("liar", |_| {});
    world.run(liar, session);
    world.wait(Span::from_secs(10));
    world.report(liar, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(99_999)));
    assert_eq!(world.fate(liar).2, 10_000, "ten seconds at one unit per thousand seconds");
    let long = world.submit("long", |_| {});
    world.run(long, session);
    world.wait_heard(Span::from_secs(150), node(1), session);
    world.report(long, session, World::ended(Ending::RunLimit, Span::from_secs(150)));
    assert_eq!(world.fate(long), (JobState::TimedOut, Reason::Budget, HOLD));
}

#[test]
fn jobs_wait_in_order_of_priority_and_acceptance_and_expire_at_their_start_by() {
    let mut world = World::new();
    let whole_node = |spec: &mut JobSpec| spec.requirements.cpu_milli = 4_000;
    let first = world.submit("first", whole_node);
    let second = world.submit("second", whole_node);
    let urgent = world.submit("urgent", |spec| {
        whole_node(spec);
        spec.priority = 5;
    });
    let hasty = world.submit("hasty", |spec| {
        whole_node(spec);
        spec.limits.start_by = Some(Span::from_secs(30));
    });
    assert_eq!([urgent, first, second, hasty].map(|job| world.control.jobs_ahead(job)), [0, 1, 2, 3].map(Some));
    let session = world.connect(1, 36_000);
    assert_eq!(world.state(urgent), JobState::Assigned);
    world.run(urgent, session);
    world.wait_heard(Span::from_secs(31), node(1), session);
    assert_eq!(world.fate(hasty), (JobState::Expired, Reason::Expired, 0));
    world.report(urgent, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
    assert_eq!((world.state(first), world.state(second)), (JobState::Assigned, JobState::Queued));
}

#[test]
fn a_job_that_fits_nowhere_is_told_every_reason_and_does_not_block_others() {
    let mut world = World::new();
    world.connect(1, 36_000);
    let huge = world.submit("huge", |spec| {
        spec.requirements.cpu_milli = 8_500;
        spec.requirements.region = Some(Text::cut("eu"));
    });
    let small = world.submit("small", |_| {});
    assert_eq!((world.state(huge), world.state(small)), (JobState::Queued, JobState::Assigned));
    let fits = world.control.fitness(world.now, world.control.spec(huge).expect("open"));
    let reasons: BTreeMap<_, _> = fits.iter().map(|fit| (fit.name.as_str(), fit.reasons.clone())).collect();
    assert_eq!(reasons["n1"], ["it is not in region eu", "cpus: 8.5 asked, it offers 4"]);
    assert_eq!(reasons["n2"], ["it has never connected"]);
    let no_queue = Command::Submit {
        by: client("alice"),
        key: "now".parse().expect("a key"),
        spec: Box::new(JobSpec { max_cost: Micro(999), ..spec() }),
        spec_digest: Digest([1; 32]),
        no_queue: true,
    };
    match world.tell(no_queue) {
        Reply::Refused(Refused::NoFit { why }) => {
            assert_eq!(
                why,
                "n1: price: its minimum of 0.001 is over the maximum cost of 0.000999; n2: it has never connected"
            );
        }
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn credits_are_for_operators_and_happen_once() {
    let mut world = World::new();
    let credit = |by, amount| Command::Credit {
        by,
        account: account("alice"),
        amount: Micro(amount),
        key: "gift".parse().expect("a key"),
        why: Text::default(),
    };
    assert!(matches!(world.tell(credit(client("alice"), 5)), Reply::Refused(Refused::NotAllowed { .. })));
    world.done(credit(operator(), 5));
    world.done(credit(operator(), 5));
    assert!(matches!(world.tell(credit(operator(), 6)), Reply::Refused(Refused::Invalid { .. })));
    assert_eq!(world.available("alice"), 1_000_005);
}

#[test]
fn an_event_that_breaks_an_invariant_is_dropped_and_freezes_money() {
    let mut world = World::new();
    let job = world.submit("k", |_| {});
    let mut draft = Draft::new(&world.control, world.now);
    let open = world.control.job(job).expect("open").clone();
    world.control.finish_cancelled(&open, None, &mut draft);
    let EventBody::JobFinished { settlement, .. } = &mut draft.decision.events[0].body else { panic!("finished") };
    settlement.refund = Micro(HOLD + 1);
    let before = world.control.ledger.clone();
    let decision = world.control.take(draft.decision);
    assert_eq!((decision.events.len(), &world.control.ledger), (0, &before));
    assert!(world.control.problems()[0].contains("is not the hold"), "{:?}", world.control.problems());
}

#[test]
fn an_account_has_a_bounded_number_of_open_jobs_and_one_that_ends_makes_room() {
    let mut world = World::new();
    world.control.config.open_jobs_max = 2;
    let job = world.submit("one", |_| {});
    world.submit("two", |_| {});
    let what = "2 jobs of this account are open, which is the most allowed at once".to_owned();
    assert_eq!(world.submit_as("alice", "three", spec()), Reply::Refused(Refused::Limit { what }));
    assert!(matches!(world.submit_as("alice", "one", spec()), Reply::Submitted { existing: true, .. }));
    assert!(matches!(world.submit_as("bob", "three", spec()), Reply::Submitted { .. }), "bob has his own");
    world.tell(Command::Cancel { by: client("alice"), job, grace: Span::ZERO, why: Text::default() });
    world.submit("three", |_| {});
}

#[test]
fn a_result_waits_for_its_output_as_long_as_there_is_no_room_to_store_it() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let job = world.submit("a", |_| {});
    world.run(job, session);
    let mut body = World::ended(Ending::Exited { code: 0 }, Span::from_secs(1));
    if let ReportBody::Ended { output, .. } = &mut body {
        output.stdout = 7;
    }
    world.report(job, session, body);
    world.control.set_output_waits(true);
    world.wait_heard(Span::from_secs(600), node(1), session);
    assert_eq!(world.state(job), JobState::Running, "the agent is not late: it is told to come again");
    world.control.set_output_waits(false);
    world.wait_heard(Span::from_secs(60), node(1), session);
    assert_eq!(world.fate(job).0, JobState::Completed, "from then on it has its time");
}

/// A job with a result that waits for seven bytes of output.
fn waiting_for_output(world: &mut World, session: SessionId, key: &str) -> (JobId, Command, Command) {
    let job = world.submit(key, |_| {});
    world.run(job, session);
    let mut body = World::ended(Ending::Exited { code: 0 }, Span::from_secs(1));
    if let ReportBody::Ended { output, .. } = &mut body {
        output.stdout = 7;
    }
    world.report(job, session, body);
    let placement = world.control.job(job).and_then(|job| job.placement()).expect("it waits");
    let (attempt, fence) = (placement.attempt, placement.fence);
    let stored = OutputLengths { stdout: 7, ..OutputLengths::default() };
    (job, Command::OutputComes { attempt, fence }, Command::OutputStored { attempt, fence, stored })
}

#[test]
fn a_result_waits_for_its_output_as_long_as_more_of_it_comes() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (job, comes, stored) = waiting_for_output(&mut world, session, "slow");
    for _ in 0..30 {
        world.wait_heard(Span::from_secs(50), node(1), session);
        assert_eq!(world.state(job), JobState::Running, "a slow line is no missing output");
        world.done(comes.clone());
    }
    world.done(stored);
    assert_eq!(world.fate(job).0, JobState::Completed);

    let (job, comes, _) = waiting_for_output(&mut world, session, "ends");
    world.wait_heard(Span::from_secs(50), node(1), session);
    world.done(comes);
    world.wait_heard(Span::from_secs(59), node(1), session);
    assert_eq!(world.state(job), JobState::Running);
    world.wait_heard(Span::from_secs(1), node(1), session);
    assert_eq!(world.fate(job).0, JobState::Completed, "nothing more came");
}

#[test]
fn a_trickle_of_output_does_not_hold_money_for_ever() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let (job, comes, _) = waiting_for_output(&mut world, session, "a");
    for _ in 0..71 {
        world.wait_heard(Span::from_secs(50), node(1), session);
        world.done(comes.clone());
    }
    assert_eq!(world.state(job), JobState::Running);
    world.wait_heard(Span::from_secs(50), node(1), session);
    assert_eq!(world.fate(job).0, JobState::Completed);
}
