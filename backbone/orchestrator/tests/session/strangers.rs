//! Who may not.

use modchain_link::{CloseCode, CloseReason, Protocol, StreamCode, connect};
use modchain_types::{Chunk, Digest, Fence, InstanceId, List, Micro, NodeWish, Role, Span, TokenId};
use modchain_wire::agent::{AttemptOpen, BlobGet};
use modchain_wire::console::{
    AccountQuery, BlobFetch, BlobPut, Cancel, ConsoleHello, Credit, EventsOpen, ExplainQuery, IdentitiesQuery,
    InputOpen, JobQuery, JobsQuery, LedgerQuery, LinkQuery, LogsOpen, NodeQuery, NodeSet, NodesQuery, QuoteRequest,
    Refusal, RefusalCode, Revoke, SpecQuery, StateOpen, StatusQuery, Submit, TokenCreate, TokenRevoke, TokensQuery,
    WhoamiQuery,
};
use modchain_wire::join::RenewRequest;
use modchain_wire::{FromAgent, FromConsole, Message, ToAgent, ToConsole};

use super::world::{HOLD, MODULE, World, soon, spec, text};

/// Every question about one job.
fn questions(job: &str) -> Vec<FromConsole> {
    vec![
        JobQuery { job: text(job) }.into(),
        SpecQuery { job: text(job) }.into(),
        ExplainQuery { job: text(job) }.into(),
        Cancel { job: text(job), grace: Span::from_secs(1), why: text("") }.into(),
        LogsOpen { job: text(job), follow: true, from: None, since: None }.into(),
        InputOpen { job: text(job) }.into(),
        StateOpen { job: Some(text(job)), resume: None }.into(),
        LedgerQuery { account: None, since: None, kind: None, job: Some(text(job)), limit: 1, before: None }.into(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_job_is_answered_just_as_one_that_does_not_exist() {
    let world = World::start().await;
    let (alice, bob) = (world.console("alice").await, world.console("bob").await);
    let theirs = alice.submit("one").await.job.to_string();
    let absent = modchain_types::JobId([0x5a; 16]).to_string();
    for (foreign, absent_one) in questions(&theirs).into_iter().zip(questions(&absent)) {
        let what = format!("{foreign:?}");
        let answers = [(foreign, &theirs), (absent_one, &absent)];
        let mut refusals = Vec::new();
        for (question, id) in answers {
            let ToConsole::Refusal(Refusal { code, message, hint }) = bob.ask(question).await else {
                panic!("{what} was answered");
            };
            refusals.push((code, message.replace(id.as_str(), "ID"), hint));
        }
        assert_eq!(refusals[0], refusals[1], "{what}");
        assert_eq!(refusals[0].0, RefusalCode::NotFound, "{what}");
    }
    assert_eq!(alice.account().await.held, HOLD, "nobody cancelled it");
    assert!(matches!(bob.account_named("alice").await, ToConsole::Refusal(no) if no.code == RefusalCode::NotAllowed));
    assert!(matches!(bob.account_named("nobody").await, ToConsole::Refusal(no) if no.code == RefusalCode::NotAllowed));
    // The operator sees it.
    world.console("boss").await.job(&theirs).await.expect("operators see all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_alone_opens_nothing() {
    let world = World::start().await;
    let (alice, bob) = (world.console("alice").await, world.console("bob").await);
    alice.put(MODULE, Digest::of(MODULE)).await.expect("it is stored");
    let refusal = bob.submit_spec("one", spec("one")).await.expect_err("it is alice's blob");
    assert_eq!(refusal.code, RefusalCode::MissingBlob);
    alice.submit("one").await;
    for stranger in [bob, world.console("boss").await] {
        let answer = stranger.ask(BlobFetch { digest: Digest::of(MODULE) }).await;
        assert!(matches!(&answer, ToConsole::Refusal(no) if no.code == RefusalCode::MissingBlob), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_do_what_the_table_grants_and_nothing_else() {
    let world = World::start().await;
    let (alice, boss) = (world.console("alice").await, world.console("boss").await);
    let no = alice.credit("alice", Micro(1), "k").await.expect_err("a client gives no credit");
    assert_eq!(no.code, RefusalCode::NotAllowed);
    let submit = Submit { key: "k".parse().expect("a key"), spec: spec("k"), no_queue: false };
    assert!(matches!(boss.ask(submit).await, ToConsole::Refusal(no) if no.code == RefusalCode::NotAllowed));
    let no = boss.credit("nobody", Micro(1), "k").await.expect_err("no such account");
    assert_eq!(no.code, RefusalCode::NotFound);
    for (name, protocol) in [("rig-1", Protocol::Console), ("alice", Protocol::Agent), ("boss", Protocol::Agent)] {
        let connection = connect(&world.credentials(name), &world.address, protocol).await.expect("a handshake");
        let reason = soon("a close", connection.closed()).await;
        assert!(format!("{reason:?}").contains("WrongRole"), "{name}: {reason:?}");
    }
}

/// Every request there is, and who may ask it at all. What is not listed here is no request.
fn nobody() -> modchain_types::Name {
    "nothing".parse().expect("a name")
}

fn role_table() -> Vec<(FromConsole, bool, bool)> {
    let job = || text("j-nothing");
    let submit = Submit { key: "k".parse().expect("a key"), spec: spec("k"), no_queue: false };
    let credit = Credit {
        account: "alice".parse().expect("an account"),
        amount: Micro(1),
        key: submit.key.clone(),
        why: text(""),
    };
    let jobs = JobsQuery {
        states: List::default(),
        ended: true,
        account: None,
        labels: List::default(),
        prefix: text(""),
        since: None,
        limit: 1,
        after: None,
    };
    let events = EventsOpen { after: None, since: None, kind: None, job: None, node: None, follow: false };
    let ledger = LedgerQuery { account: None, since: None, kind: None, job: None, limit: 1, before: None };
    let token = TokenCreate {
        token: TokenId([1; 5]),
        verifier: [0; 32],
        role: Role::Node,
        name: None,
        account: None,
        rejoin: false,
        ttl: Span::from_secs(60),
    };
    // The request; whether clients may; whether operators may.
    vec![
        (submit.into(), true, false),
        (QuoteRequest { spec: spec("k") }.into(), true, true),
        (Cancel { job: job(), grace: Span::from_secs(1), why: text("") }.into(), true, true),
        (jobs.into(), true, true),
        (JobQuery { job: job() }.into(), true, true),
        (ExplainQuery { job: job() }.into(), true, true),
        (NodesQuery { limit: 1, after: None }.into(), true, true),
        (AccountQuery { account: None }.into(), true, true),
        (ledger.into(), true, true),
        (events.into(), true, true),
        (StatusQuery { detail: false }.into(), true, true),
        (credit.into(), false, true),
        (LogsOpen { job: job(), follow: false, from: None, since: None }.into(), true, true),
        (StateOpen { job: Some(job()), resume: None }.into(), true, true),
        (BlobPut { digest: Digest::of(b""), bytes: 1 << 40 }.into(), true, false),
        (InputOpen { job: job() }.into(), true, false),
        (WhoamiQuery { detail: false }.into(), true, true),
        (RenewRequest { request: Chunk::default(), proof: Chunk::default() }.into(), true, true),
        (IdentitiesQuery { role: None, revoked: true, limit: 1, after: None }.into(), true, true),
        (Revoke { identity: text("node/nothing"), why: text("") }.into(), false, true),
        (token.into(), true, true),
        (TokensQuery { ended: true }.into(), true, true),
        (TokenRevoke { token: TokenId([9; 5]) }.into(), true, true),
        (LinkQuery { detail: false }.into(), false, true),
        (NodeQuery { node: nobody() }.into(), true, true),
        (NodeSet { node: nobody(), wish: NodeWish::Cordon, why: text("") }.into(), true, true),
        (SpecQuery { job: job() }.into(), true, true),
        (BlobFetch { digest: Digest::of(b"") }.into(), true, true),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_for_the_roles_that_may_and_for_no_other() {
    let world = World::start().await;
    let (alice, boss) = (world.console("alice").await, world.console("boss").await);
    let table = role_table();
    let mut kinds: Vec<u8> = table.iter().map(|(request, ..)| request.kind()).collect();
    kinds.extend([0x41, 0x71, 0x75, 0x76]); // hello, and what belongs into the middle of a request
    kinds.sort_unstable();
    let all: Vec<u8> = FromConsole::TYPES.iter().map(|(kind, _, _)| *kind).collect();
    assert_eq!(kinds, all, "every message is in the table");
    for (request, client, operator) in table {
        for (who, console, may) in [("a client", &alice, client), ("an operator", &boss, operator)] {
            let answer = console.ask(request.clone()).await;
            let denied = matches!(&answer, ToConsole::Refusal(no) if no.code == RefusalCode::NotAllowed);
            assert_eq!(denied, !may, "{who}, {request:?}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_has_a_bounded_number_of_requests_and_others_go_on() {
    let world = World::start().await;
    let (alice, bob) = (world.console("alice").await, world.console("bob").await);
    let watch = || StateOpen { job: None, resume: None };
    let mut held = Vec::new();
    let refusal = 'full: loop {
        let console = world.console("bob").await;
        for _stream in 0..30 {
            let (out, mut input) = console.open(watch()).await;
            match soon("an answer", input.read()).await {
                Ok(Some(ToConsole::StateSnapshot(_))) => held.push((out, input)),
                Ok(Some(ToConsole::Refusal(refusal))) => break 'full refusal,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!((refusal.code, held.len()), (RefusalCode::Busy, 512));
    alice.account().await;
    drop(held);
    soon("room again", async {
        while matches!(bob.ask(StatusQuery { detail: false }).await, ToConsole::Refusal(_)) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_gets_streams_and_blobs_only_for_what_runs_on_it_under_its_fence() {
    let world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    alice.submit("one").await;
    let assignment = agent.run().await;
    let (attempt, fence) = (assignment.attempt, assignment.claim.fence);
    let (stale, other) = (Fence(fence.0 - 1), Digest::of(b"other"));
    let digest = Digest::of(MODULE);
    let asks: [FromAgent; 3] = [
        AttemptOpen { attempt, fence: stale, input_from: None }.into(),
        BlobGet { attempt, fence: stale, digest }.into(),
        BlobGet { attempt, fence, digest: other }.into(),
    ];
    for ask in asks {
        let (mut out, mut input) = agent.connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
        out.write(&ask).await.expect("it is taken");
        let answer = soon("an answer", input.read()).await;
        assert!(matches!(&answer, Ok(Some(ToAgent::Refused(no))) if !no.retryable), "{ask:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_agent_is_not_replaced_by_another_with_its_certificate() {
    let (world, codes, answering) = soon("a verdict", async {
        loop {
            let world = World::start().await;
            let mut first = world.agent().await;
            let answering = tokio::spawn(async move {
                while let Ok(Some(message)) = first.control.read().await {
                    if let ToAgent::Probe(probe) = message {
                        let answer = modchain_wire::agent::ProbeAnswer { number: probe.number };
                        first.out.write(&answer.into()).await.expect("it is taken");
                    }
                }
            });
            if let Some(codes) = second_agent(&world).await {
                return (world, codes, answering);
            }
            answering.abort();
        }
    })
    .await;
    assert!(codes.contains("DuplicateInstance"), "{codes}");
    let problems = world.console("boss").await.problems().await;
    assert!(problems.iter().any(|problem| problem.starts_with("node rig-1: a second agent")), "{problems:?}");
    answering.abort();
}

/// How an agent is refused that has the certificate of a live one; `None` where the live one was so slow to answer the probe
/// that it counted as dead.
async fn second_agent(world: &World) -> Option<String> {
    loop {
        let connection =
            connect(&world.credentials("rig-1"), &world.address, Protocol::Agent).await.expect("a handshake");
        let (mut out, mut input) = connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
        let hello = modchain_wire::agent::AgentHello {
            types: ToAgent::known_types(),
            instance: InstanceId([2; 16]),
            boot: modchain_types::BootId([2; 16]),
            highest_fence: None,
            journal: None,
            inventory: modchain_types::List::default(),
            offer: super::world::offer(),
            wall: modchain_types::WallTime(0),
        };
        out.write(&hello.into()).await.expect("it is taken");
        if matches!(input.read().await, Ok(Some(ToAgent::Welcome(_)))) {
            return None;
        }
        let reason = format!("{:?}", connection.closed().await);
        if !reason.contains("TooManyConnections") {
            return Some(reason);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_frame_ends_its_stream_and_a_second_one_the_connection() {
    let world = World::start().await;
    let (alice, bob) = (world.console("alice").await, world.console("bob").await);
    let bad = || async {
        // An agent's message on a console's stream is of an unknown type; one of a known type with a broken body is worse.
        let (mut out, mut input) = bob.connection.open_bi::<Broken, ToConsole>().await.expect("a stream");
        out.write(&Broken).await.expect("it is taken");
        soon("a reset", input.read()).await
    };
    let first = bad().await;
    assert!(
        matches!(&first, Err(modchain_link::ReadError::Reset(Some(StreamCode::BadFrame)))),
        "one bad frame costs its stream: {first:?}"
    );
    assert!(bob.connection.close_reason().is_none());
    let _ = bad().await;
    let reason: CloseReason = soon("a close", bob.connection.closed()).await;
    assert!(format!("{reason:?}").contains("BadFrame"), "{reason:?}");
    alice.account().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_sending_bad_frames_is_kept_out_for_a_while_and_others_are_not() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    for _frame in 0..5 {
        let bob = world.console("bob").await;
        let (mut out, mut input) = bob.connection.open_bi::<Broken, ToConsole>().await.expect("a stream");
        out.write(&Broken).await.expect("it is taken");
        let _ = soon("a reset", input.read()).await;
    }
    let again = connect(&world.credentials("bob"), &world.address, Protocol::Console).await.expect("a handshake");
    let reason = soon("a close", again.closed()).await;
    assert!(format!("{reason:?}").contains("BadFrame"), "{reason:?}");
    alice.account().await;
    world.console("alice").await.account().await;
}

/// A frame of a type that consoles send, with a body that does not decode.
struct Broken;

impl Message for Broken {
    const TYPES: &'static [(u8, &'static str, usize)] = &[(0x58, "Broken", 1024)];

    fn kind(&self) -> u8 {
        0x58
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), modchain_wire::WireError> {
        out.extend_from_slice(&[0xff; 40]);
        Ok(())
    }

    fn decode_body(kind: u8, _: &[u8]) -> Result<Self, modchain_wire::WireError> {
        Err(modchain_wire::WireError::Unsupported { kind })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_begins_with_something_else_than_a_request_is_refused() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let hello = ConsoleHello { types: ToConsole::known_types(), version: text("0"), wall: modchain_types::WallTime(0) };
    assert!(matches!(alice.ask(hello).await, ToConsole::Refusal(no) if no.code == RefusalCode::Invalid));
    // And a connection that does not begin with a hello is closed.
    let connection = connect(&world.credentials("bob"), &world.address, Protocol::Console).await.expect("a handshake");
    let (mut out, _input) = connection.open_bi::<FromConsole, ToConsole>().await.expect("a stream");
    out.write(&JobQuery { job: text("x") }.into()).await.expect("it is taken");
    let reason = soon("a close", connection.closed()).await;
    assert!(format!("{reason:?}").contains(&format!("{:?}", CloseCode::HelloExpected)), "{reason:?}");
}
