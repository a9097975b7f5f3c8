//! Revoking, against the program itself: who is revoked is cut off within a second and stays out, what it left behind is
//! moved or cancelled, and nobody else notices.

mod peers;
mod pool;
mod process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use modchain_certs::{JoinToken, KeyRequest, RootPin};
use modchain_link::{Alert, CertificateRefusal, CloseCode, CloseReason, ConnectError, Connection, Side};
use modchain_types::{Chunk, InstanceId, JobState, Micro, Role, StopCause};
use modchain_wire::console::{IdentitiesQuery, Refusal, RefusalCode, Submit, TokenCreate};
use modchain_wire::join::{JoinRefusal, RenewRequest};
use modchain_wire::{ToAgent, ToConsole};
use peers::joiner::{Joiner, now, wish};
use peers::{Agent, CREDIT, Console, HOLD, MINIMUM, MODULE, acked, send, soon, spec};
use pool::heart::Heart;
use pool::raw::Raw;
use pool::{Pool, Spread, count, names};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// Identities that are revoked, as the issue wants them: `MODCHAIN_TEST_IDENTITIES`.
const IDENTITIES: usize = 1_000;
/// How soon who is revoked must be cut off.
const CUT_WITHIN: Duration = Duration::from_secs(1);
/// Members that connect at once; all at once is another test's subject.
const CONNECTING: usize = 16;
/// One in so many of those who were revoked tries to come back.
const COMES_BACK: usize = 20;
/// How often those beat that nobody revokes.
const NEIGHBOUR_BEATS: Duration = Duration::from_millis(50);

/// A member that is there until it is cut off.
struct Holder {
    name: String,
    cut: JoinHandle<(Instant, CloseReason)>,
}

fn is_client(name: &str) -> bool {
    name.starts_with("client")
}

/// Connects everybody, and gives them in the same order.
async fn connect_all(pool: &Arc<Pool>, names: &[String]) -> Vec<Holder> {
    let places = Arc::new(Semaphore::new(CONNECTING));
    let connecting: Vec<_> = names
        .iter()
        .map(|name| {
            let (pool, places, name) = (pool.clone(), places.clone(), name.clone());
            tokio::spawn(async move {
                let _place = places.acquire().await.expect("it is open");
                if is_client(&name) {
                    let console = pool.console(&name).await;
                    let cut = tokio::spawn(closed(console.connection.clone(), console));
                    return Holder { name, cut };
                }
                let agent = pool.agent(&name).await;
                let cut = tokio::spawn(closed(agent.connection.clone(), agent));
                Holder { name, cut }
            })
        })
        .collect();
    let mut holders = Vec::new();
    for one in connecting {
        holders.push(one.await.expect("it is in"));
    }
    holders
}

/// When and how the connection ended; what is held of it is held until then.
async fn closed(connection: Connection, held: impl Send) -> (Instant, CloseReason) {
    let reason = connection.closed().await;
    let at = Instant::now();
    drop(held);
    (at, reason)
}

fn is_revoked(error: &ConnectError) -> bool {
    matches!(error, ConnectError::CertificateRefused { why: CertificateRefusal::Revoked, .. })
}

async fn must_stay_out(pool: &Pool, name: &str) {
    let tried = if is_client(name) { pool.try_console(name).await.err() } else { pool.try_agent(name).await.err() };
    let error = tried.unwrap_or_else(|| panic!("{name} got in"));
    assert!(is_revoked(&error) && !error.retryable(), "{name}: {error:?}");
    assert!(error.to_string().contains("revoked; ask the operator for a new token"), "{error}");
}

/// One that does what our programs never do: keeps TLS sessions, offers them again, and would send early data.
fn keeper(pool: &Pool, name: &str) -> Raw {
    Raw::new(&pool.credentials(name), &pool.main, |tls| {
        tls.resumption = quinn::rustls::client::Resumption::in_memory_sessions(64);
        tls.enable_early_data = true;
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_a_thousand_is_cut_within_a_second_and_stays_out_and_nobody_else_notices() {
    let identities = count("MODCHAIN_TEST_IDENTITIES", IDENTITIES);
    let (clients, nodes) = (names("client", identities / 2), names("node", identities - identities / 2));
    let extra =
        |all: &[String], more: &[&str]| [all, &more.iter().map(|one| one.to_string()).collect::<Vec<_>>()].concat();
    let began = Instant::now();
    let pool =
        Pool::start(&extra(&clients, &["client-kept", "client-keeps-on", "bystander"]), &extra(&nodes, &["neighbour"]));
    let made = began.elapsed();
    let mut pool = Arc::new(pool);
    let all: Vec<String> = clients.into_iter().zip(nodes).flat_map(|(client, node)| [client, node]).collect();

    let began = Instant::now();
    let holders = connect_all(&pool, &all).await;
    println!("revocation: {} identities made in {made:.1?}, connected in {:.1?}", all.len(), began.elapsed());
    let boss = pool.console("boss").await;
    let (neighbour, bystander) = (pool.agent("neighbour").await, pool.console("bystander").await);
    let heart = Heart::start(&neighbour.connection, NEIGHBOUR_BEATS);
    let (kept, keeps_on) = (keeper(&pool, "client-kept"), keeper(&pool, "client-keeps-on"));
    for keeper in [&kept, &keeps_on] {
        for _visit in 0..3 {
            keeper.enter().await.expect("a member gets in").close(0u32.into(), b"");
        }
    }

    let began = Instant::now();
    let (mut seen, mut took) = (Vec::new(), Vec::new());
    for Holder { name, cut } in holders {
        let asked = Instant::now();
        let view = boss.revoke(&name).await.expect("it is revoked");
        assert_eq!((view.identity.identity.name.as_str(), view.connections_closed), (name.as_str(), 1));
        let (at, reason) = soon("the cut", cut).await.expect("it ends");
        assert_eq!(reason.code(), Some(CloseCode::Revoked), "{name}: {reason:?}");
        assert!(reason.sentence().contains("revoked; ask the operator for a new token"), "{}", reason.sentence());
        assert!(!reason.retryable());
        seen.push(at.saturating_duration_since(asked));
        took.push(Duration::from(view.took));
    }
    let all_took = began.elapsed();
    let (seen, took) = (Spread::of(seen), Spread::of(took));
    println!(
        "revocation: {} identities, {seen} from asking to the holder's seeing it, {all_took:.1?} in all",
        all.len()
    );
    println!("revocation: the orchestrator's own time, sync and close: {took}");
    // Of the slowest, which are printed above, a disk that is busy with something else decides.
    assert!(took.percent(50) <= CUT_WITHIN, "{took}");
    assert!(seen.percent(50) <= CUT_WITHIN, "as their holders saw it: {seen}");

    let client_refusal = boss.revoke("client/client-kept").await.expect("it is revoked");
    assert_eq!(client_refusal.connections_closed, 0, "it had left");
    for name in all.iter().step_by(COMES_BACK) {
        must_stay_out(&pool, name).await;
    }
    stays_out_with_what_it_kept(&kept).await;
    keeps_on.enter().await.expect("who is not revoked gets in as before").close(0u32.into(), b"");
    let beats = heart.stop().await;
    println!(
        "revocation: a neighbour meanwhile: {} heartbeats, {}",
        beats.len(),
        Spread::of(beats.iter().map(|beat| beat.took))
    );
    assert!(neighbour.connection.close_reason().is_none() && bystander.connection.close_reason().is_none());
    bystander.account().await;

    drop((boss, neighbour, bystander));
    let own = Arc::get_mut(&mut pool).expect("everybody else has let go of it");
    own.kill();
    let began = Instant::now();
    own.serve();
    println!("revocation: serving again {:.1?} after a kill", began.elapsed());
    for name in all.iter().skip(1).step_by(COMES_BACK) {
        must_stay_out(&pool, name).await;
    }
    stays_out_with_what_it_kept(&kept).await;
    keeps_on.enter().await.expect("who is not revoked gets in as before").close(0u32.into(), b"");
    pool.agent("neighbour").await;
    let query = IdentitiesQuery { role: None, revoked: false, limit: 500, after: None };
    match pool.console("boss").await.ask(query).await {
        ToConsole::Identities(page) => assert_eq!(page.total, 5, "the operators, the neighbour, and two clients"),
        other => panic!("{other:?}"),
    }
}

async fn stays_out_with_what_it_kept(kept: &Raw) {
    let reason = kept.enter().await.expect_err("it is revoked");
    let refused = CloseReason::Handshake { alert: Alert::CERTIFICATE_REVOKED, by: Side::There };
    assert_eq!(reason, refused, "in the handshake: a session that was taken up again would be found out only after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jobs_of_a_revoked_node_move_to_another_and_only_that_one_is_paid() {
    let pool = Pool::start(&["alice", "seller", "other"], &["rig-1=seller", "rig-2=other"]);
    let (boss, alice) = (pool.console("boss").await, pool.console("alice").await);
    boss.credit("alice", CREDIT, "k").await.expect("credit");
    let mut first = pool.agent("rig-1").await;
    let job = alice.submit("one").await.job.to_string();
    let lost = first.run().await;
    let (mut out, mut input, have) = first.attempt(&lost, None).await;
    send(&mut out, have, b"half of").await;
    acked(&mut input, 7).await;

    let mut second = pool.agent("rig-2").await;
    let view = boss.revoke("node/rig-1").await.expect("it is revoked");
    assert_eq!((view.connections_closed, view.jobs), (1, 1));
    assert_eq!(soon("the cut", first.connection.closed()).await.code(), Some(CloseCode::Revoked));
    let moved = second.run().await;
    assert_eq!((moved.attempt.job, moved.attempt.number), (lost.attempt.job, lost.attempt.number + 1));
    assert!(moved.claim.fence > lost.claim.fence);
    second.finish(&moved, b"all of it", 0).await;
    let done = alice.job_until(&job, |job| job.state.is_ended()).await;
    assert_eq!((done.state, done.cost), (JobState::Completed, MINIMUM), "one attempt is paid for");
    assert_eq!(done.node.as_ref().map(|node| node.as_str()), Some("rig-2"));
    let account = alice.account().await;
    assert_eq!((account.available, account.held), (Micro(CREDIT.0 - MINIMUM.0), Micro(0)));
    assert_eq!(boss.account_of("seller").await.earned, Micro(0));
    assert!(boss.account_of("other").await.earned > Micro(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_jobs_of_a_revoked_client_end_and_its_money_comes_back() {
    let pool = Pool::start(&["alice", "bob"], &["rig-1"]);
    let (boss, alice, bob) = (pool.console("boss").await, pool.console("alice").await, pool.console("bob").await);
    for account in ["alice", "bob"] {
        boss.credit(account, CREDIT, account).await.expect("credit");
    }
    let mut agent = pool.agent("rig-1").await;
    let running = alice.submit("running").await.job;
    let assignment = agent.run().await;
    alice.job_until(&running.to_string(), |job| job.state == JobState::Running).await;
    let mut waits = spec("waits");
    waits.requirements.node = Some("absent".parse().expect("a name"));
    let queued = alice.submit_spec("waits", waits).await.expect("it is accepted").job;
    let others = bob.submit("others").await.job;
    let others_runs = agent.run().await;
    assert_eq!(alice.account().await.held, Micro(2 * HOLD.0));

    let view = boss.revoke("alice").await.expect("it is revoked");
    assert_eq!((view.connections_closed, view.jobs), (1, 2));
    let stop = agent
        .next("a stop", |message| match message {
            ToAgent::Stop(stop) => Some(stop),
            _ => None,
        })
        .await;
    assert_eq!((stop.attempt, stop.cause), (assignment.attempt, StopCause::Cancelled));
    let account = boss.account_of("alice").await;
    assert_eq!((account.available, account.held), (Micro(CREDIT.0 - HOLD.0), HOLD), "what did not run is free again");
    agent.stopped(&assignment).await;
    let ended = boss.job_until(&running.to_string(), |job| job.state.is_ended()).await;
    assert_eq!((ended.state, ended.cost), (JobState::Cancelled, MINIMUM), "it ran for a while");
    assert_eq!(boss.job(&queued.to_string()).await.expect("operators see all").state, JobState::Cancelled);
    let account = boss.account_of("alice").await;
    assert_eq!((account.available, account.held), (Micro(CREDIT.0 - MINIMUM.0), Micro(0)));
    // And nobody else's.
    agent.finish(&others_runs, b"hello", 0).await;
    let done = bob.job_until(&others.to_string(), |job| job.state.is_ended()).await;
    assert_eq!(done.state, JobState::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_revoked_is_refused_and_changes_nothing() {
    let pool = Pool::start(&["alice"], &["rig-1"]);
    let (boss, deputy) = (pool.console("boss").await, pool.console("deputy").await);
    deputy.revoke("alice").await.expect("operators revoke");
    let again = boss.revoke("client/alice").await.expect_err("it is revoked already");
    assert_eq!(again.code, RefusalCode::Conflict);
    assert!(again.message.contains("alice") && again.message.contains("revoked"), "{}", again.message.as_str());
    for unknown in ["nobody", "node/alice", "rig-2", ""] {
        assert_eq!(
            boss.revoke(unknown).await.expect_err("nobody is called so").code,
            RefusalCode::NotFound,
            "{unknown}"
        );
    }
    boss.revoke("operator/deputy").await.expect("one operator is left");
    assert_eq!(soon("the cut", deputy.connection.closed()).await.code(), Some(CloseCode::Revoked));
    let last = boss.revoke("boss").await.expect_err("somebody must be left");
    assert_eq!(last.code, RefusalCode::Conflict);
    assert!(last.hint.contains("token create"), "{}", last.hint.as_str());
    boss.account().await;
}

/// Rounds of a race, each with the revocation a little later.
const ROUNDS: usize = 24;
/// How much later.
const LATER: Duration = Duration::from_micros(100);

/// More exact than timers are.
async fn wait_exactly(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_that_races_a_revocation_leaves_no_job_and_no_hold() {
    let clients = names("client", ROUNDS);
    let pool = Pool::start(&clients, &[]);
    let boss = Arc::new(pool.console("boss").await);
    let (mut accepted, mut refused, mut cut) = (0, 0, 0);
    for (round, name) in clients.iter().enumerate() {
        boss.credit(name, CREDIT, name).await.expect("credit");
        let client = Arc::new(pool.console(name).await);
        client.put(MODULE, modchain_types::Digest::of(MODULE)).await.expect("it is stored");
        let mut submits = JoinSet::new();
        for number in 0..16 {
            let client = client.clone();
            submits.spawn(async move {
                let key = format!("job-{number}");
                let submit = Submit { key: key.parse().expect("a key"), spec: spec(&key), no_queue: false };
                client.try_ask(submit).await
            });
        }
        wait_exactly(LATER * round as u32).await;
        let view = boss.revoke(name).await.expect("it is revoked");
        for answer in submits.join_all().await {
            match answer {
                Some(ToConsole::Submitted(_)) => accepted += 1,
                Some(ToConsole::Refusal(Refusal { code: RefusalCode::NotAllowed, .. })) => refused += 1,
                None => cut += 1,
                Some(other) => panic!("{other:?}"),
            }
        }
        let account = soon("the end of its jobs", async {
            loop {
                let account = boss.account_of(name).await;
                if account.open_jobs == 0 {
                    return account;
                }
            }
        })
        .await;
        assert_eq!((account.held, account.available), (Micro(0), CREDIT), "{name}, {} jobs", view.jobs);
    }
    println!("revocation: submits in flight: {accepted} accepted, {refused} refused, {cut} cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_in_while_it_is_revoked_is_put_out() {
    let (clients, nodes) = (names("client", ROUNDS), names("node", ROUNDS));
    let pool = Arc::new(Pool::start(&clients, &nodes));
    let boss = pool.console("boss").await;
    let mut admitted = 0;
    for round in 0..ROUNDS {
        for name in [&clients[round], &nodes[round]] {
            let coming = tokio::spawn(come_until_revoked(pool.clone(), name.clone()));
            wait_exactly(LATER * round as u32).await;
            boss.revoke(name).await.expect("it is revoked");
            admitted += soon("it stays out", coming).await.expect("and says so");
        }
    }
    println!("revocation: hellos in flight: {admitted} were welcomed and then cut, of {}", 2 * ROUNDS);
}

/// Comes in again and again until it is not let in any more; tells how often it was. Whoever is let in is cut.
async fn come_until_revoked(pool: Arc<Pool>, name: String) -> usize {
    let credentials = pool.credentials(&name);
    let mut welcomed = 0;
    loop {
        let cut = if is_client(&name) {
            let joined = Console::join(&credentials, &pool.main).await;
            joined.map(|console| tokio::spawn(closed(console.connection.clone(), console)))
        } else {
            let joined = Agent::join(&credentials, &pool.main, InstanceId([1; 16]), Vec::new(), None).await;
            joined.map(|agent| tokio::spawn(closed(agent.connection.clone(), agent)))
        };
        match cut {
            Ok(cut) => {
                welcomed += 1;
                let (_, reason) = soon("the cut", cut).await.expect("it ends");
                assert_eq!(reason.code(), Some(CloseCode::Revoked), "{name}: {reason:?}");
            }
            Err(error) => {
                assert!(is_revoked(&error), "{name}: {error:?}");
                return welcomed;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_was_renewed_while_its_holder_was_revoked_lets_nobody_in() {
    let clients = names("client", ROUNDS);
    let pool = Pool::start(&clients, &[]);
    let boss = pool.console("boss").await;
    let (mut renewed, mut refused, mut cut) = (0, 0, 0);
    for (round, name) in clients.iter().enumerate() {
        let client = pool.console(name).await;
        let key = KeyRequest::generate();
        let proof = key.prove_renewal(&client.connection.exporter());
        let request = RenewRequest {
            request: Chunk::new(key.der().to_vec()).expect("it fits"),
            proof: Chunk::new(proof).expect("it fits"),
        };
        let renewing = client.try_ask(request);
        let revoking = async {
            wait_exactly(LATER * round as u32).await;
            boss.revoke(name).await.expect("it is revoked");
        };
        let (answer, ()) = tokio::join!(renewing, revoking);
        match answer {
            Some(ToConsole::Renewed(fresh)) => {
                renewed += 1;
                let chain = fresh.chain.iter().map(|der| der.to_vec().into()).collect();
                let old = pool.credentials(name);
                let (root, id) = (old.root().clone(), client.identity().id);
                let credentials = key.accept(chain, root, Role::Client, id, now()).expect("it is for this key");
                let error = Console::join(&credentials, &pool.main).await.err().expect("it is revoked");
                assert!(is_revoked(&error), "{error:?}");
            }
            Some(ToConsole::Refusal(Refusal { code: RefusalCode::NotAllowed, .. })) => refused += 1,
            None => cut += 1,
            Some(other) => panic!("{other:?}"),
        }
        must_stay_out(&pool, name).await;
    }
    println!("revocation: renewals in flight: {renewed} renewed, {refused} refused, {cut} cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_revoked_maker_lets_nobody_join() {
    let pool = Pool::start(&["alice"], &["rig-1=alice"]);
    let (boss, alice) = (pool.console("boss").await, pool.console("alice").await);
    let root = RootPin::of_root(pool.credentials("alice").root()).expect("a root");
    let tokens = [false, true].map(|_| JoinToken::generate(Role::Node, root).expect("nodes join"));
    let rejoin = TokenCreate { name: Some("rig-1".parse().expect("a name")), rejoin: true, ..wish(&tokens[1]) };
    for wish in [wish(&tokens[0]), rejoin] {
        alice.make(wish).await.expect("a token");
    }
    // One has shown its token already and is in the middle of its conversation.
    let key = KeyRequest::generate();
    let midway = Joiner::new(&tokens[0], &key);
    let challenged = midway.greet(&pool.join).await.expect("a challenge");
    let view = boss.revoke("alice").await.expect("it is revoked");
    assert_eq!(view.tokens, 2);
    assert_eq!(midway.go_on(challenged).await.answer().await.refused().code, JoinRefusal::TokenRevoked);
    for token in &tokens {
        let refused = Joiner::new(token, &key).join(&pool.join).await.refused();
        assert_eq!(refused.code, JoinRefusal::TokenRevoked);
    }
}
