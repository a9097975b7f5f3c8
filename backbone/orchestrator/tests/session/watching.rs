//! Snapshots, deltas, events, and a stop in between.

use std::collections::BTreeMap;

use modchain_types::{JobState, Micro};
use modchain_wire::ToConsole;
use modchain_wire::console::{EventsOpen, NodesQuery, StateOpen};

use super::world::{World, soon, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_sees_every_event_in_an_unbroken_chain() {
    let world = World::start().await;
    let alice = std::sync::Arc::new(world.console("alice").await);
    alice.submit("first").await;
    let (_open, mut state) = alice.open(StateOpen { job: None, resume: None }).await;
    let mut jobs: BTreeMap<_, JobState> = BTreeMap::new();
    let mut upto = loop {
        match soon("a snapshot", state.read()).await {
            Ok(Some(ToConsole::StateSnapshot(page))) => {
                jobs.extend(page.jobs.iter().map(|job| (job.id, job.state)));
                if page.last {
                    assert!(page.account.is_some());
                    break page.upto;
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(jobs.len(), 1);
    // Nothing is read while all this happens.
    for number in 0..200 {
        let key = format!("k{number}");
        let mut cheap = spec(&key);
        cheap.max_cost = Micro(10_000);
        alice.submit_spec(&key, cheap).await.expect("it is accepted");
    }
    let (mut numbers, mut last_account) = (Vec::new(), None);
    while jobs.len() < 201 {
        match soon("a delta", state.read()).await {
            Ok(Some(ToConsole::StateDelta(delta))) => {
                assert_eq!(delta.prev, upto, "the chain is unbroken");
                upto = delta.upto;
                numbers.extend(delta.events.iter().map(|event| event.number));
                jobs.extend(delta.jobs.iter().map(|job| (job.id, job.state)));
                last_account = delta.account.or(last_account);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "no event twice");
    assert_eq!(numbers.len(), 200, "no event skipped");
    assert_eq!(last_account.expect("it changed").open_jobs, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_paged_then_followed() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let id = alice.submit("one").await.job;
    let open = |follow| EventsOpen { after: None, since: None, kind: None, job: None, node: None, follow };
    let (_open, mut events) = alice.open(open(true)).await;
    let (mut seen, mut caught_up) = (Vec::new(), false);
    let second = loop {
        match soon("events", events.read()).await {
            Ok(Some(ToConsole::Events(page))) => {
                assert!(page.items.iter().all(|event| event.account.as_ref().is_none_or(|of| of.as_str() == "alice")));
                seen.extend(page.items.into_iter().map(|event| (event.number, event.job)));
                if caught_up {
                    break seen.last().expect("a page is never empty").1;
                }
            }
            Ok(Some(ToConsole::CaughtUp(_))) => {
                caught_up = true;
                assert!(seen.iter().any(|(_, job)| *job == Some(id)));
                alice.submit("two").await;
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(second.is_some_and(|job| job != id));
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_is_echoed_and_shown() {
    let world = World::start().await;
    let (agent, alice) = (world.agent().await, world.console("alice").await);
    soon("the load", async {
        loop {
            // One that comes while the read model is busy is passed over.
            let _beating = agent.heartbeat(42).await;
            let ToConsole::Nodes(page) = alice.ask(NodesQuery { limit: 10, after: None }).await else {
                panic!("no nodes")
            };
            if page.items[0].load.is_some_and(|load| load.memory_used_bytes == 42) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_says_goodbye_and_a_restart_remembers_everything() {
    let mut world = World::start().await;
    let (mut agent, alice) = (world.agent().await, world.console("alice").await);
    let (running, queued) = (alice.submit("one").await.job.to_string(), alice.submit("two").await.job.to_string());
    let assignment = agent.run().await;
    alice.job_until(&running, |job| job.state == JobState::Running).await;
    let before = alice.account().await;
    let (_open, mut state) = alice.open(StateOpen { job: None, resume: None }).await;
    assert!(matches!(soon("a snapshot", state.read()).await, Ok(Some(ToConsole::StateSnapshot(_)))));
    let goodbye = tokio::spawn(async move {
        loop {
            match state.read().await {
                Ok(Some(ToConsole::GoingAway(_))) => return true,
                Ok(Some(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    let go_away = tokio::spawn(async move {
        let away = |message| match message {
            modchain_wire::ToAgent::GoAway(away) => Some(away.after),
            _ => None,
        };
        agent.next("go away", away).await
    });
    world.stop().await;
    assert!(soon("a goodbye", goodbye).await.expect("it reads"));
    assert!(soon("go away", go_away).await.expect("it reads") <= modchain_types::Span::from_secs(5));
    world.serve().await;
    let alice = world.console("alice").await;
    let after = alice.account().await;
    assert_eq!((before.available, before.held, before.open_jobs), (after.available, after.held, after.open_jobs));
    assert_eq!(alice.job(&running).await.expect("it is known").attempts[0].fence, assignment.claim.fence);
    assert!(!alice.job(&queued).await.expect("it is known").state.is_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_came_back_before_its_old_connection_ended_is_shown_as_connected() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let connected = || async {
        match alice.ask(NodesQuery { limit: 10, after: None }).await {
            ToConsole::Nodes(page) => page.items[0].connected_at.is_some(),
            other => panic!("{other:?}"),
        }
    };
    let old = world.agent().await;
    let new = world.agent().await;
    soon("the old connection's end", old.connection.closed()).await;
    // The end of the old session reaches the read model a little later, so look for a while.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(500);
    while std::time::Instant::now() < until {
        assert!(connected().await);
    }
    new.connection.close(modchain_link::CloseCode::Done, "");
    soon("the node's leaving", async { while connected().await {} }).await;
}
