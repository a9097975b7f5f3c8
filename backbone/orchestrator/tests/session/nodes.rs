//! Nodes through their sessions: who may close them, what becomes of their jobs, and what their GPUs say.

use std::time::Duration;

use modchain_types::{
    BootId, GpuInfo, InstanceId, JobState, List, Micro, Name, NodeState, NodeWish, Reason, Span, Timestamp, WallTime,
};
use modchain_wire::agent::{AgentHello, GpuSample, GpuTick, Heartbeat, HostLoad};
use modchain_wire::console::{NodeQuery, NodeSet, Refusal, RefusalCode};
use modchain_wire::view::{NodeHistoryView, NodeView};
use modchain_wire::{FromAgent, Message, ToAgent, ToConsole};

use super::world::{Agent, CREDIT, Console, World, offer, soon, text};

fn node(name: &str) -> Name {
    name.parse().expect("a name")
}

async fn set(console: &Console, name: &str, wish: NodeWish) -> Result<NodeView, Refusal> {
    match console.ask(NodeSet { node: node(name), wish, why: text("kernel update") }).await {
        ToConsole::NodeIs(view) => Ok(view),
        ToConsole::Refusal(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

async fn history(console: &Console) -> NodeHistoryView {
    match console.ask(NodeQuery { node: node("rig-1") }).await {
        ToConsole::NodeHistory(view) => view,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_close_any_node_owners_their_own_and_others_are_told_why_they_may_not() {
    let world = World::start().await;
    let _agent = world.agent().await;
    let (alice, owner, boss) =
        (world.console("alice").await, world.console("owner").await, world.console("boss").await);
    let drain = NodeWish::Drain { within: Some(Span::from_secs(60)) };
    for (console, wish, state) in [
        (&boss, NodeWish::Cordon, NodeState::Cordoned),
        (&boss, NodeWish::Cordon, NodeState::Cordoned),
        (&owner, drain, NodeState::Draining),
        (&owner, NodeWish::Open, NodeState::Ready),
        (&boss, drain, NodeState::Draining),
        (&owner, NodeWish::Cordon, NodeState::Cordoned),
    ] {
        let view = set(console, "rig-1", wish).await.expect("it may");
        assert_eq!((view.state, view.drains_at.is_some()), (state, state == NodeState::Draining), "{wish:?}");
    }
    for wish in [NodeWish::Open, NodeWish::Cordon, drain] {
        let refused = set(&alice, "rig-1", wish).await.expect_err("it is not hers");
        assert_eq!(refused.code, RefusalCode::NotAllowed);
        assert!(refused.message.contains("belongs to another account"), "{refused:?}");
        let unknown = set(&alice, "rig-2", wish).await.expect_err("there is none");
        assert_eq!(unknown.code, RefusalCode::NotFound);
    }
    assert_eq!(history(&alice).await.node.state, NodeState::Cordoned, "she sees it all the same");
    let forever = NodeWish::Drain { within: Some(Span::from_secs(31 * 24 * 3600)) };
    assert_eq!(set(&boss, "rig-1", forever).await.expect_err("too long").code, RefusalCode::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_gives_up_its_jobs_unpaid_and_gets_them_back_once_it_is_open() {
    let mut world = World::start().await;
    let (mut agent, alice, boss) = (world.agent().await, world.console("alice").await, world.console("boss").await);
    let id = alice.submit("one").await.job.to_string();
    let assignment = agent.run().await;
    alice.job_until(&id, |job| job.state == JobState::Running).await;
    set(&boss, "rig-1", NodeWish::Drain { within: Some(Span::from_millis(200)) }).await.expect("it may");
    let stopped = |message| match message {
        ToAgent::Stop(stop) => Some(stop.attempt),
        _ => None,
    };
    assert_eq!(agent.next("a stop", stopped).await, assignment.attempt);
    let moved = alice.job_until(&id, |job| job.state == JobState::Queued).await;
    assert_eq!(
        (moved.attempts[0].reason, moved.attempts[0].message.as_str()),
        (Some(Reason::NodeFault), "its node was drained")
    );
    assert_eq!(moved.cost, Micro(0));
    // Nobody forgets it over a restart.
    drop(agent);
    world.stop().await;
    world.serve().await;
    let (mut agent, alice, boss) = (world.agent().await, world.console("alice").await, world.console("boss").await);
    assert_eq!(history(&boss).await.node.state, NodeState::Draining);
    assert_eq!(alice.job(&id).await.expect("hers").state, JobState::Queued);
    set(&boss, "rig-1", NodeWish::Open).await.expect("it may");
    let again = agent.run().await;
    assert_eq!((again.attempt.job, again.attempt.number), (assignment.attempt.job, 2));
    agent.finish(&again, b"", 0).await;
    let done = alice.job_until(&id, |job| job.state.is_ended()).await;
    assert_eq!(done.state, JobState::Completed);
    assert_eq!(alice.account().await.available, Micro(CREDIT.0 - done.cost.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_at_gpus_are_kept_once_whatever_an_agent_repeats_after_a_cut() {
    let world = World::start().await;
    let alice = world.console("alice").await;
    let gpu = |uuid: &str| GpuInfo {
        uuid: text(uuid),
        vendor: text("nvidia"),
        model: text("H100"),
        memory_bytes: 80 << 30,
        driver: text("570.1"),
        compute: text("9.0"),
    };
    let mut with_gpus = offer();
    with_gpus.capabilities.gpus = List::new(vec![gpu("GPU-a"), gpu("GPU-b")]).expect("fits");
    // The agent's clock says 100 s when its first heartbeat leaves.
    let beat = |number: u64, sent_s: u64, looks: &[u64]| {
        let look = |second: &u64| {
            let busy = GpuSample { busy_pct: Some(*second as u8), ..GpuSample::default() };
            let gpus = List::new(vec![busy, GpuSample::default()]).expect("fits");
            GpuTick { ago: Span::from_secs(sent_s - second), gpus }
        };
        let gpus = List::new(looks.iter().map(look).collect()).expect("fits");
        let sent = Timestamp(sent_s * 1_000_000);
        FromAgent::from(Heartbeat { number, sent, rtt: None, load: HostLoad::default(), gpus })
    };
    let shown = || async {
        let view = history(&alice).await;
        let ticks: Vec<u8> = view.ticks.iter().map(|tick| tick.gpus[0].busy_pct.expect("it was told")).collect();
        (view, ticks)
    };
    let hello = AgentHello {
        types: ToAgent::known_types(),
        instance: InstanceId([1; 16]),
        boot: BootId([1; 16]),
        highest_fence: None,
        journal: None,
        inventory: List::default(),
        offer: with_gpus,
        wall: WallTime(0),
    };
    for (sent, looks) in [(100, &[98, 99][..]), (101, &[98, 99, 100, 101])] {
        let agent = Agent::greet(&world.credentials("rig-1"), &world.address, hello.clone()).await.expect("a welcome");
        let (mut out, mut input) = agent.connection.open_bi::<FromAgent, ToAgent>().await.expect("a stream");
        out.write(&beat(1, sent, looks)).await.expect("it is taken");
        assert!(matches!(soon("an echo", input.read()).await, Ok(Some(ToAgent::HeartbeatEcho(_)))));
        soon("the looks", async {
            let mut number = 1;
            while shown().await.1.last() != looks.last().map(|last| *last as u8).as_ref() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                // Looks that came while the read model was busy are taken with the next heartbeat.
                number += 1;
                out.write(&beat(number, sent, &[])).await.expect("it is taken");
                assert!(matches!(input.read().await, Ok(Some(ToAgent::HeartbeatEcho(_)))));
            }
        })
        .await;
        agent.connection.close(modchain_link::CloseCode::Internal, "cut");
    }
    let (view, ticks) = shown().await;
    assert_eq!(ticks, [98, 99, 100, 101]);
    assert_eq!(view.node.gpus[0].busy_pct, Some(101), "the newest look is the node's");
    assert_eq!(view.node.gpus[1], GpuSample::default(), "one that does not answer keeps its place");
    let apart: Vec<i64> = view.ticks.windows(2).map(|pair| pair[1].at.0 - pair[0].at.0).collect();
    assert_eq!((apart[0], apart[2]), (1_000, 1_000), "as far apart as they were made");
}
