//! Nodes that people close to new jobs: cordon, drain, and open again.

use super::*;

fn set(world: &mut World, by: Actor, number: u8, wish: NodeWish) -> Reply {
    world.tell(Command::NodeSet { by, node: node(number), wish, why: Text::cut("kernel update") })
}

fn done(world: &mut World, number: u8, wish: NodeWish) {
    assert_eq!(set(world, operator(), number, wish), Reply::Done);
}

fn drain(seconds: u64) -> NodeWish {
    NodeWish::Drain { within: Some(Span::from_secs(seconds)) }
}

fn on(world: &World, job: JobId) -> Option<NodeId> {
    world.control.job(job).and_then(Job::placement).map(|placement| placement.node)
}

fn node_state(world: &World, number: u8) -> NodeState {
    world.control.node(node(number)).expect("known").state(world.now)
}

/// Both nodes' heartbeats go on.
fn wait(world: &mut World, seconds: u64, sessions: [SessionId; 2]) {
    for _ in 0..seconds {
        world.wait(Span::from_secs(1));
        for (number, session) in [1, 2].into_iter().zip(sessions) {
            world.done(Command::AgentHeard { node: node(number), session });
        }
    }
}

#[test]
fn a_cordoned_node_keeps_what_runs_and_gets_nothing_new() {
    let mut world = World::new();
    let session = world.connect(1, 36_000);
    let running = world.submit("a", |_| {});
    world.run(running, session);
    world.changes.clear();
    done(&mut world, 1, NodeWish::Cordon);
    assert_eq!(world.changes, [(node(1), NodeState::Cordoned)]);
    let waiting = world.submit("b", |_| {});
    assert_eq!((world.state(running), world.state(waiting)), (JobState::Running, JobState::Queued));
    let fits = world.control.fitness(world.now, world.control.spec(waiting).expect("open"));
    let cordoned = fits.into_iter().find(|fit| fit.node == node(1)).expect("the node is judged");
    assert_eq!(cordoned.reasons, ["it is cordoned: it takes no new jobs"]);
    assert!(cordoned.may_pass);
    world.report(running, session, World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
    assert_eq!((world.state(running), world.state(waiting)), (JobState::Completed, JobState::Queued));
    done(&mut world, 1, NodeWish::Open);
    assert_eq!((node_state(&world, 1), on(&world, waiting)), (NodeState::Ready, Some(node(1))), "placed at once");
}

#[test]
fn a_drain_leaves_jobs_their_time_and_then_moves_them_unpaid() {
    let mut world = World::new();
    let sessions = [world.connect(1, 36_000), world.connect(2, 72_000)];
    let (long, short) = (world.submit("a", |_| {}), world.submit("b", |_| {}));
    for job in [long, short] {
        assert_eq!(on(&world, job), Some(node(1)), "the cheaper one");
        world.run(job, sessions[0]);
    }
    done(&mut world, 1, drain(60));
    assert_eq!(node_state(&world, 1), NodeState::Draining);
    let fits = world.control.fitness(world.now, world.control.spec(long).expect("open"));
    assert!(fits.iter().any(|fit| fit.reasons == ["it is draining: it takes no new jobs"]));
    wait(&mut world, 30, sessions);
    world.report(short, sessions[0], World::ended(Ending::Exited { code: 0 }, Span::from_secs(30)));
    assert_eq!(world.fate(short), (JobState::Completed, Reason::Exit, 1_000), "it ended in time");
    wait(&mut world, 29, sessions);
    assert_eq!(on(&world, long), Some(node(1)));
    world.sent();
    wait(&mut world, 1, sessions);
    let sent = world.sent();
    let stopped = sent.iter().any(|(to, message)| {
        matches!(message, NodeMessage::Stop { attempt, .. } if *to == node(1) && *attempt == AttemptId { job: long, number: 1 })
    });
    assert!(stopped, "{sent:?}");
    assert_eq!(assignments(&sent), [(node(2), AttemptId { job: long, number: 2 })]);
    let why = world.journal.iter().find_map(|event| match &event.body {
        EventBody::AttemptEnded { reason, message, .. } => Some((*reason, message.to_string())),
        _ => None,
    });
    assert_eq!(why, Some((Reason::NodeFault, "its node was drained".into())));
    world.run(long, sessions[1]);
    wait(&mut world, 100, sessions);
    world.report(long, sessions[1], World::ended(Ending::Exited { code: 0 }, Span::from_secs(100)));
    assert_eq!(world.fate(long), (JobState::Completed, Reason::Exit, 2_000), "only the second attempt is paid");
    let next = world.submit("c", |_| {});
    assert_eq!(on(&world, next), Some(node(2)), "a drained node stays closed");
}

#[test]
fn a_drain_may_be_given_more_time_or_taken_back() {
    let mut world = World::new();
    let sessions = [world.connect(1, 36_000), world.connect(2, 72_000)];
    let job = world.submit("a", |_| {});
    world.run(job, sessions[0]);
    done(&mut world, 1, drain(10));
    wait(&mut world, 9, sessions);
    done(&mut world, 1, drain(100));
    wait(&mut world, 99, sessions);
    assert_eq!(on(&world, job), Some(node(1)), "the new deadline counts from when it was said");
    done(&mut world, 1, NodeWish::Open);
    wait(&mut world, 30, sessions);
    assert_eq!(on(&world, job), Some(node(1)));
    done(&mut world, 1, NodeWish::Drain { within: None });
    wait(&mut world, 1_000, sessions);
    assert_eq!((on(&world, job), node_state(&world, 1)), (Some(node(1)), NodeState::Draining), "it waits for ever");
    done(&mut world, 1, drain(0));
    assert_eq!(on(&world, job), Some(node(2)), "at once");
}

#[test]
fn a_job_that_runs_in_one_place_only_moves_when_its_node_says_that_it_has_ended() {
    let mut world = World::new();
    let sessions = [world.connect(1, 36_000), world.connect(2, 72_000)];
    let job = world.submit("a", |spec| spec.limits.on_disconnect = OnDisconnect::Stop);
    world.run(job, sessions[0]);
    world.sent();
    done(&mut world, 1, drain(0));
    let stops = |world: &mut World| {
        let sent = world.sent().into_iter();
        sent.filter(|(_, message)| matches!(message, NodeMessage::Stop { cause: StopCause::Cancelled, .. })).count()
    };
    assert_eq!((stops(&mut world), on(&world, job)), (1, Some(node(1))));
    wait(&mut world, 60, sessions);
    assert!(stops(&mut world) >= 2, "it is told again, in case the word was lost");
    assert_eq!(on(&world, job), Some(node(1)), "as long as it may run there it runs nowhere else");
    world.report(job, sessions[0], World::ended(Ending::Stopped, Span::from_secs(60)));
    assert_eq!(on(&world, job), Some(node(2)));
    world.run(job, sessions[1]);
    world.report(job, sessions[1], World::ended(Ending::Exited { code: 0 }, Span::from_secs(1)));
    assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 1_000), "nothing for the first attempt");
}

#[test]
fn a_job_that_runs_in_one_place_only_leaves_a_silent_node_once_its_lease_is_surely_over() {
    let mut world = World::new();
    world.wait(crate::deadline::RECOVERY_WINDOW);
    let first = world.connect(1, 36_000);
    let job = world.submit("a", |spec| {
        spec.limits.on_disconnect = OnDisconnect::Stop;
        spec.limits.lost_after = Span::from_secs(1_000);
    });
    world.run(job, first);
    let second = world.connect(2, 72_000);
    done(&mut world, 1, drain(0));
    world.wait_heard(Span::from_secs(34), node(2), second);
    assert_eq!(on(&world, job), Some(node(1)));
    world.wait_heard(Span::from_secs(7), node(2), second);
    assert_eq!(on(&world, job), Some(node(2)), "30 s of lease, 5 s of margin, and looked at every 5 s");
}

#[test]
fn a_job_that_is_cancelled_on_a_drained_node_pays_for_what_it_ran() {
    let mut world = World::new();
    let sessions = [world.connect(1, 36_000), world.connect(2, 72_000)];
    let job = world.submit("a", |_| {});
    world.run(job, sessions[0]);
    wait(&mut world, 200, sessions);
    let (by, grace) = (client("alice"), Span::from_secs(20));
    world.tell(Command::Cancel { by, job, grace, why: Text::default() });
    done(&mut world, 1, drain(5));
    wait(&mut world, 10, sessions);
    assert_eq!(world.state(job), JobState::Cancelling, "it has its grace time");
    world.report(job, sessions[0], World::ended(Ending::Stopped, Span::from_secs(200)));
    assert_eq!(world.fate(job), (JobState::Cancelled, Reason::Cancelled, 2_000));
}

#[test]
fn what_was_wished_survives_a_restart_and_a_drain_that_came_due_meanwhile_is_carried_out() {
    let mut world = World::new();
    let sessions = [world.connect(1, 36_000), world.connect(2, 72_000)];
    let job = world.submit("a", |_| {});
    world.run(job, sessions[0]);
    done(&mut world, 1, drain(30));
    done(&mut world, 2, NodeWish::Cordon);
    let item = world.item(job, ItemState::Running);
    world.control = world.replayed();
    world.now = world.now + Span::from_secs(40);
    world.start();
    for (number, standing) in [(1, NodeState::Draining), (2, NodeState::Cordoned)] {
        let known = world.control.node(node(number)).expect("known");
        assert_eq!(known.standing.state(None), standing);
    }
    world.sent();
    world.connect_holding(1, vec![item]);
    assert_eq!(world.state(job), JobState::Queued, "nobody else takes it yet");
    world.connect(2, 72_000);
    assert_eq!((world.state(job), node_state(&world, 2)), (JobState::Queued, NodeState::Cordoned));
    done(&mut world, 2, NodeWish::Open);
    assert_eq!(on(&world, job), Some(node(2)));
    let replayed = world.replayed();
    assert!(replayed.nodes().map(|node| node.standing).eq(world.control.nodes().map(|node| node.standing)));
}

#[test]
fn owners_and_operators_may_and_nobody_else_learns_more_than_that_there_is_no_such_node() {
    let mut world = World::new();
    world.connect(1, 36_000);
    let before = world.journal.len();
    let wishes = [NodeWish::Open, NodeWish::Cordon, NodeWish::Drain { within: None }, drain(1)];
    for wish in wishes {
        assert_eq!(set(&mut world, client("alice"), 1, wish), Reply::Refused(Refused::UnknownNode));
        assert_eq!(set(&mut world, operator(), 9, wish), Reply::Refused(Refused::UnknownNode));
        let itself = Actor { id: node(1).into(), role: Role::Node, account: account("owen") };
        let reply = set(&mut world, itself, 1, wish);
        assert!(matches!(reply, Reply::Refused(Refused::NotAllowed { .. })), "{reply:?}");
    }
    let reply = set(&mut world, operator(), 1, drain(30 * 24 * 3600 + 1));
    assert!(matches!(reply, Reply::Refused(Refused::Invalid { .. })), "{reply:?}");
    assert_eq!(world.journal.len(), before, "nothing came of it");
    for wish in [NodeWish::Cordon, drain(60), NodeWish::Open] {
        assert_eq!(set(&mut world, client("owen"), 1, wish), Reply::Done, "it is his");
    }
}

#[test]
fn saying_the_same_again_changes_nothing() {
    let mut world = World::new();
    world.connect(1, 36_000);
    for wish in [NodeWish::Open, NodeWish::Cordon, NodeWish::Drain { within: None }] {
        done(&mut world, 1, wish);
        let before = world.journal.len();
        done(&mut world, 1, wish);
        assert_eq!(world.journal.len(), before, "{wish:?}");
    }
}
