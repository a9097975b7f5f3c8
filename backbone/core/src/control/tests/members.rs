//! Who gets in, who stays, who is out: tokens, certificates, revocation.

use super::*;
use crate::membership::Certificate;

const MINUTE: Span = Span::from_secs(60);
const QUARTER: Span = Span::from_secs(900);

fn token(number: u8) -> TokenId {
    TokenId([number; 5])
}

/// Of the key `key`, with this serial number; newer ones have higher numbers.
fn certificate(key: u8, serial: u8) -> Certificate {
    Certificate {
        serial: CertificateSerial([serial; 16]),
        key: KeyDigest([key; 32]),
        not_before: WallTime(i64::from(serial)),
        not_after: WallTime(i64::from(serial) + 1_000),
    }
}

fn member(number: u8) -> IdentityId {
    IdentityId([number; 16])
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// The root operator's wish for a token, with everything left open.
fn wish(number: u8, role: Role) -> Command {
    Command::CreateToken {
        by: operator(),
        token: token(number),
        verifier: [number; 32],
        role,
        name: None,
        account: None,
        rejoin: false,
        ttl: QUARTER,
    }
}

fn revoke(number: u8) -> Command {
    Command::RevokeIdentity { by: operator(), identity: member(number), why: Text::cut("sold") }
}

#[test]
fn jobs_of_a_revoked_node_move_unpaid_and_nothing_that_comes_later_changes_that() {
    let mut world = World::new();
    let first = world.connect(1, 36_000);
    let output = OutputLengths { stdout: 10, ..OutputLengths::default() };
    let [running, done, last, stopping] = ["running", "done", "last", "stopping"]
        .map(|key| world.submit(key, |spec| spec.limits.attempts_max = if key == "last" { 1 } else { 3 }));
    for job in [running, done, last, stopping] {
        world.run(job, first);
    }
    world.wait_heard(Span::from_secs(100), node(1), first);
    let ended = Ending::Exited { code: 0 };
    let usage = Usage { ran: Span::from_secs(100), ..Usage::default() };
    world.report(done, first, ReportBody::Ended { ending: ended, usage, output });
    world.tell(Command::Cancel { by: client("alice"), job: stopping, grace: MINUTE, why: Text::default() });
    let item = world.item(done, ItemState::Ended);
    world.sent();

    // In one batch with the revocation, before any deadline fires: the output, a report, a hello.
    let late = [
        Command::OutputStored { attempt: item.attempt, fence: item.fence, stored: output },
        Command::AgentHeard { node: node(1), session: first },
        Command::AgentConnected { node: node(1), session: SessionId(99), arrival: World::arrival(1, 36_000) },
    ];
    let decision = world.control.apply(world.now, revoke(1));
    assert_eq!(world.absorb(decision), Some(Reply::Revoked { jobs: 4, tokens: 0 }));
    let replies = late.map(|command| {
        let decision = world.control.apply(world.now, command);
        world.absorb(decision).expect("commands are answered")
    });
    let refused = [Refused::StaleSession, Refused::Revoked].map(Reply::Refused);
    assert_eq!(replies.as_slice(), [&[Reply::Done], refused.as_slice()].concat());
    world.settle_down();
    assert_eq!(world.fate(last), (JobState::Failed, Reason::Revoked, 0));
    assert_eq!(world.fate(stopping), (JobState::Cancelled, Reason::Cancelled, 0));
    assert_eq!([running, done].map(|job| world.state(job)), [JobState::Queued; 2]);
    assert_eq!(world.sent(), [], "nothing is said to who is out");
    let second = world.connect(2, 72_000);
    for job in [running, done] {
        world.run(job, second);
        world.report(job, second, World::ended(Ending::Exited { code: 0 }, Span::ZERO));
        assert_eq!(world.fate(job), (JobState::Completed, Reason::Exit, 1_000), "its new node's minimum, and no more");
    }
    assert_eq!(world.connect_with(node(1), World::arrival(1, 36_000)).1, Reply::Refused(Refused::Revoked));
}

#[test]
fn a_stop_job_leaves_a_revoked_node_only_when_its_lease_is_surely_over_also_after_a_restart() {
    let mut world = World::new();
    let first = world.connect(1, 36_000);
    let stop = |spec: &mut JobSpec| spec.limits.on_disconnect = OnDisconnect::Stop;
    let (strict, loose) = (world.submit("strict", stop), world.submit("loose", |_| {}));
    for job in [strict, loose] {
        world.run(job, first);
    }
    let second = world.connect(2, 72_000);
    world.wait_heard(Span::from_secs(10), node(2), second);
    world.done(Command::AgentHeard { node: node(1), session: first });
    world.tell(revoke(1));
    world.run(loose, second);
    let attempts = |world: &World| [strict, loose].map(|job| world.control.job(job).map(|job| job.attempts_made));
    assert_eq!(attempts(&world), [Some(1), Some(2)]);
    world.wait_heard(Span::from_secs(34), node(2), second);
    assert_eq!(attempts(&world), [Some(1), Some(2)], "it may still run there");
    // The engine stops a moment too early, and the wait begins anew.
    world.control = world.replayed();
    world.start();
    let second = world.connect_holding(2, vec![world.item(loose, ItemState::Running)]);
    world.wait_heard(Span::from_secs(34), node(2), second);
    assert_eq!(attempts(&world), [Some(1), Some(2)]);
    world.wait_heard(Span::from_secs(1), node(2), second);
    assert_eq!(attempts(&world), [Some(2), Some(2)]);
}

#[test]
fn all_jobs_of_a_revoked_client_end_whatever_their_number_in_bounded_records_and_none_is_placed_before() {
    const QUEUED: usize = 10_000;
    let mut world = World::new();
    let by = operator();
    let (account, amount) = (account("alice"), Micro(2 * QUEUED as u64 * HOLD));
    let key = "much".parse().expect("a key");
    world.done(Command::Credit { by, account, amount, key, why: Text::default() });
    let session = world.connect(1, 36_000);
    let [running, done] = ["running", "done"].map(|key| world.submit(key, |_| {}));
    for job in [running, done] {
        world.run(job, session);
    }
    let ended = Ending::Exited { code: 0 };
    let output = OutputLengths { stdout: 10, ..OutputLengths::default() };
    world.report(done, session, ReportBody::Ended { ending: ended, usage: Usage::default(), output });
    let bobs = world.submit_as("bob", "bobs", spec());
    assert!(matches!(bobs, Reply::Submitted { .. }), "{bobs:?}");
    for number in 0..QUEUED {
        let key = format!("q{number}").parse().expect("a key");
        let mut whole_node = spec();
        whole_node.requirements.cpu_milli = 4_000;
        let (by, spec, spec_digest) = (client("alice"), Box::new(whole_node), Digest([0; 32]));
        let decision = world.control.apply(world.now, Command::Submit { by, key, spec, spec_digest, no_queue: false });
        world.journal.extend(decision.events);
    }
    let count = QUEUED as u64 + 2;
    assert_eq!(world.control.jobs().count() as u64, count + 1);
    world.sent();
    let decision = world.control.apply(world.now, revoke(101));
    assert_eq!(world.absorb(decision), Some(Reply::Revoked { jobs: count, tokens: 0 }));
    let mut passes = 0;
    while world.control.next_deadline().is_some_and(|at| at <= world.now) {
        let decision = world.control.advance(world.now);
        assert!(decision.events.len() < 5_000, "one record of {} events", decision.events.len());
        world.absorb(decision);
        passes += 1;
    }
    assert_eq!(passes, 3);
    assert_eq!(assignments(&world.sent()), [], "a job that is to end is not placed");
    assert_eq!([running, done].map(|job| world.state(job)), [JobState::Cancelling; 2]);
    world.report(running, session, World::ended(Ending::Stopped, Span::ZERO));
    world.wait_heard(Span::from_secs(120), node(1), session);
    assert_eq!([running, done].map(|job| world.state(job)), [JobState::Cancelled; 2]);
    assert_eq!(world.control.jobs().count(), 1, "bob's goes on");
    assert_eq!(world.submit_as("alice", "again", spec()), Reply::Refused(Refused::Revoked));
}
