//! What one identity may have and do, each limit reached over the wire, and nobody else held up by it.
//!
//! The others: requests at once in `session/strangers.rs`; connections of a node in `modchain-link`'s `tests/admission.rs`;
//! open jobs and waiting tokens in `modchain-core`; what an account may keep, to the byte, in `stores.rs`.

mod peers;
mod pool;
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use modchain_link::settings::CLIENT_CONNECTIONS_MAX;
use modchain_link::{CloseCode, ConnectError, Connection, FrameReader, FrameWriter};
use modchain_orchestrator::store::blobs::{ACCOUNT_BYTES_MAX, BLOB_BYTES_MAX};
use modchain_types::{Adapter, Chunk, Digest, List, Timestamp};
use modchain_wire::agent::{Heartbeat, HostLoad};
use modchain_wire::console::{BlobPut, EventsOpen, LogsOpen, RefusalCode, StateOpen, Submit};
use modchain_wire::join::RenewRequest;
use modchain_wire::{FromAgent, FromConsole, Message, ToAgent, ToConsole};
use peers::{CREDIT, Console, MODULE, soon, spec, text};
use pool::Pool;
use tokio::task::JoinSet;

/// How long something that is not to happen is waited for.
const IN_VAIN: Duration = Duration::from_millis(300);

/// Longest wait for what is to come.
const FILLED_MAX: Duration = Duration::from_secs(30);
/// Longest time that a burst of two thousand submits may take.
const BURST_MAX: Duration = Duration::from_secs(300);

/// Whether so many in this time fit a burst and a rate.
fn fits(found: usize, burst: usize, per_second: usize, time: Duration) -> bool {
    let gained = (time.as_secs_f64() * per_second as f64).ceil() as usize;
    (burst..=burst + gained).contains(&found)
}

/// Streams that have ended are given back an eighth of all at a time, to save packets; so some of those that were told may not
/// be there yet.
fn surely(told: u32) -> usize {
    (told - told / 8) as usize
}

/// Opens streams with this first message until there are no more; gives them, each once it was answered. So many come for
/// sure, though those that have ended may be given back only after a while.
async fn all_streams<Out: Message, In: Message>(
    connection: &Connection,
    sure: usize,
    mut first: impl FnMut() -> Out,
) -> Vec<(FrameWriter<Out>, FrameReader<In>)> {
    let mut held = Vec::new();
    let mut opening = soon("the first", connection.open_bi::<Out, In>()).await;
    loop {
        let (mut out, mut input) = opening.expect("a stream");
        out.write(&first()).await.expect("it is taken");
        assert!(matches!(soon("an answer", input.read()).await, Ok(Some(_))));
        held.push((out, input));
        let limit = if held.len() < sure { FILLED_MAX } else { IN_VAIN };
        match tokio::time::timeout(limit, connection.open_bi()).await {
            Ok(opened) => opening = opened,
            Err(_) => return held,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_has_no_more_streams_than_it_was_told_and_those_that_end_make_room() {
    let pool = Pool::start(&["alice"], &[]);
    pool.console("boss").await.credit("alice", CREDIT, "k").await.expect("credit");
    let alice = pool.console("alice").await;
    let told = alice.welcome.streams_max;
    assert_eq!(told, 32);
    let job = alice.submit("waits").await.job.to_string();
    let mut number = 0;
    let mut follow = || {
        number += 1;
        match number % 3 {
            0 => StateOpen { job: None, resume: None }.into(),
            1 => LogsOpen { job: text(&*job), follow: true, from: None, since: None }.into(),
            _ => EventsOpen { after: None, since: None, kind: None, job: None, node: None, follow: true }.into(),
        }
    };
    // The second time around they get in though nothing happens that those before would have been told.
    for _ in 0..2 {
        let held = all_streams::<FromConsole, ToConsole>(&alice.connection, surely(told), &mut follow).await;
        assert!((surely(told)..=told as usize).contains(&held.len()), "{} of {told}", held.len());
        // Another connection has its own.
        pool.console("alice").await.account().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_has_a_stream_for_each_slot_that_it_may_ever_have_and_those_that_end_make_room() {
    let pool = Pool::start(&[], &["rig-1"]);
    let agent = pool.agent("rig-1").await;
    let told = agent.welcome.streams_max;
    // 48 slots at most, and what is not an attempt's: control, heartbeats, blobs. Whoever reloads its settings has no new welcome.
    assert!(told >= 48 + 6 && peers::offer().capabilities.slots < 48, "{told}");
    let beat = || {
        Heartbeat { number: 1, sent: Timestamp(1), rtt: None, load: HostLoad::default(), gpus: List::default() }.into()
    };
    let mut held = all_streams::<FromAgent, ToAgent>(&agent.connection, surely(told) - 1, beat).await;
    // And the control stream.
    assert!((surely(told)..=told as usize).contains(&(held.len() + 1)), "{} of {told}", held.len());
    held.truncate(surely(told) / 2);
    agent.heartbeat(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_account_stores_and_announces_is_bounded_and_what_it_gives_up_makes_room() {
    let pool = Pool::start(&["alice", "bob"], &[]);
    let (one, other) = (Arc::new(pool.console("alice").await), Arc::new(pool.console("alice").await));
    let fit = (ACCOUNT_BYTES_MAX / BLOB_BYTES_MAX) as usize;
    let too_many = 5;
    let mut puts = JoinSet::new();
    for number in 0..fit + too_many {
        let console = if number % 2 == 0 { one.clone() } else { other.clone() };
        puts.spawn(async move {
            let digest = Digest::of(&number.to_le_bytes());
            let (_out, mut input) = console.open(BlobPut { digest, bytes: BLOB_BYTES_MAX }).await;
            // One that is accepted waits for its bytes.
            input.read().await
        });
    }
    for _ in 0..too_many {
        match soon("a refusal", puts.join_next()).await.expect("they wait").expect("it goes on") {
            Ok(Some(ToConsole::Refusal(refusal))) => {
                assert_eq!(refusal.code, RefusalCode::Limit);
                assert!(refusal.message.contains("full"), "{}", refusal.message.as_str());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(puts.len(), fit);
    assert!(tokio::time::timeout(IN_VAIN, puts.join_next()).await.is_err(), "as many as fit are accepted");
    let refusal = one.put(MODULE, Digest::of(MODULE)).await.expect_err("it is full");
    assert_eq!(refusal.code, RefusalCode::Limit);
    pool.console("bob").await.put(MODULE, Digest::of(MODULE)).await.expect("bob's own store is empty");
    puts.shutdown().await;
    soon("room", async { while one.put(MODULE, Digest::of(MODULE)).await.is_err() {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submits_come_in_a_burst_of_two_thousand_and_then_two_hundred_a_second() {
    let pool = Pool::start(&["alice", "bob"], &[]);
    let alice = Arc::new(pool.console("alice").await);
    let taken = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut submits = JoinSet::new();
    for _ in 0..alice.welcome.streams_max {
        let (alice, taken) = (alice.clone(), taken.clone());
        submits.spawn(async move {
            loop {
                let refusal = submit_nonsense(&alice).await;
                if refusal != RefusalCode::Invalid {
                    return refusal;
                }
                taken.fetch_add(1, Relaxed);
            }
        });
    }
    let burst = tokio::time::timeout(BURST_MAX, submits.join_all()).await;
    let refusals = burst.expect("the burst ends");
    let (taken, time) = (taken.load(Relaxed), began.elapsed());
    println!("limits: {taken} submits in {time:.1?}");
    assert!(refusals.iter().all(|code| *code == RefusalCode::Busy), "{refusals:?}");
    assert!(fits(taken, 2_000, 200, time), "{taken} in {time:?}");
    assert_eq!(submit_nonsense(&pool.console("bob").await).await, RefusalCode::Invalid, "bob has his own");
}

/// A submit that is refused for what it says, if not for what came before it.
async fn submit_nonsense(console: &Console) -> RefusalCode {
    let mut nonsense = spec("nonsense");
    nonsense.requirements.adapter = Adapter::Docker;
    let submit = Submit { key: "nonsense".parse().expect("a key"), spec: nonsense, no_queue: false };
    match console.ask(submit).await {
        ToConsole::Refusal(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_come_thirty_at_once_and_then_one_a_second() {
    let pool = Pool::start(&["alice"], &["rig-1"]);
    let (alice, agent) = (pool.console("alice").await, pool.agent("rig-1").await);
    let nonsense = || RenewRequest { request: Chunk::default(), proof: Chunk::default() };
    let (mut taken, began) = (0, Instant::now());
    loop {
        match alice.ask(nonsense()).await {
            ToConsole::Refusal(refusal) if refusal.code == RefusalCode::Invalid => taken += 1,
            ToConsole::Refusal(refusal) if refusal.code == RefusalCode::Busy => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(fits(taken, 30, 1, began.elapsed()), "{taken}");
    let (mut taken, began) = (0, Instant::now());
    loop {
        let (mut out, mut input) = agent.connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
        out.write(&nonsense().into()).await.expect("it is taken");
        match soon("an answer", input.read()).await {
            Ok(Some(ToAgent::Refused(refused))) if refused.retryable => break,
            Ok(Some(ToAgent::Refused(_))) => taken += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(fits(taken, 30, 1, began.elapsed()), "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_says_hello_sixty_times_and_then_once_a_second() {
    let pool = Pool::start(&[], &["rig-1", "rig-2"]);
    let (mut taken, began) = (0, Instant::now());
    let error = loop {
        match pool.try_agent("rig-1").await {
            Ok(agent) => agent.connection.close_and_wait(CloseCode::Done, "").await,
            Err(error) => break error,
        }
        taken += 1;
    };
    assert!(matches!(error, ConnectError::TooManyConnections) && error.retryable(), "{error:?}");
    assert!(fits(taken, 60, 1, began.elapsed()), "{taken}");
    pool.agent("rig-2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_a_hundred_and_twenty_eight_connections_and_one_that_ends_makes_room() {
    let pool = Pool::start(&["alice", "bob"], &[]);
    let mut held = Vec::new();
    for _ in 0..CLIENT_CONNECTIONS_MAX {
        held.push(pool.console("alice").await);
    }
    let error = pool.try_console("alice").await.err().expect("one connection too many");
    assert!(matches!(error, ConnectError::TooManyConnections) && error.retryable(), "{error:?}");
    pool.console("bob").await;
    let one = held.pop().expect("some");
    one.connection.close_and_wait(CloseCode::Done, "").await;
    held.push(
        soon("room", async {
            loop {
                match pool.try_console("alice").await {
                    Ok(console) => return console,
                    Err(error) => assert!(matches!(error, ConnectError::TooManyConnections), "{error:?}"),
                }
            }
        })
        .await,
    );
    for console in &held {
        assert!(console.connection.close_reason().is_none(), "who is there stays");
    }
}
