//! GPUs, as a library without a driver tells of them: what is offered, what is seen every second, and what heartbeats carry.

mod fake_nvml;
mod scripted;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fake_nvml::UUIDS;
use modchain_agent::blobs::{BlobCache, BlobFetcher, CACHE_BYTES_MAX};
use modchain_agent::clock;
use modchain_agent::config::{Config, Settings};
use modchain_agent::engine::{Engine, EngineInput, HelloFacts, Survivors, ToSession};
use modchain_agent::executor::Executors;
use modchain_agent::executor::wasm::WasmExecutor;
use modchain_agent::outbox::Outbox;
use modchain_agent::probe::nvml::{GpuTicks, Look, watch};
use modchain_agent::probe::{Findings, Machine};
use modchain_agent::session::{Session, SessionConfig};
use modchain_types::{BootId, InstanceId, JournalId, List, Span, Timestamp, Verdict};
use modchain_wire::agent::{GpuSample, HostLoad};
use scripted::{PATIENCE, World, soon};
use tokio_util::sync::CancellationToken;

/// Looks again until there is what is wanted.
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_are_described_once_and_seen_every_second_and_one_that_is_lost_keeps_its_place() {
    let dir = tempfile::tempdir().expect("directory");
    let library = fake_nvml::build(dir.path());
    // The third one is cut into instances, and that is no offer.
    std::fs::write(dir.path().join("third"), "").expect("writes");
    let (findings_in, mut findings) = tokio::sync::watch::channel(Findings::default());
    let ticks = GpuTicks::default();
    let watching = tokio::spawn(watch(Some(library), findings_in, ticks.clone()));
    soon("the GPUs", findings.wait_for(|found| !found.gpus.is_empty())).await.expect("it goes on");
    let gpus = findings.borrow_and_update().gpus.clone();
    let known: Vec<_> = gpus
        .iter()
        .map(|gpu| {
            let texts = [gpu.uuid.as_str(), &gpu.vendor, &gpu.model, &gpu.driver, &gpu.compute].map(str::to_owned);
            (texts, gpu.memory_bytes >> 30)
        })
        .collect();
    let expected = [(UUIDS[0], "NVIDIA H100 80GB HBM3", "9.0", 80), (UUIDS[1], "NVIDIA L4", "8.9", 24)];
    let expected = expected
        .map(|(uuid, model, compute, gib)| ([uuid, "nvidia", model, "570.86.10", compute].map(str::to_owned), gib));
    assert_eq!(known, expected);

    let looks = until("four looks", || Some(ticks.after(None)).filter(|looks| looks.len() >= 4)).await;
    let mut apart: Vec<u64> = looks.windows(2).map(|pair| pair[1].at.since(pair[0].at).as_millis()).collect();
    apart.sort_unstable();
    assert!(apart[0] > 0, "in order, and none twice: {apart:?}");
    // On a busy machine looks come late, and the next one after a late one comes early.
    assert!((200..=5_000).contains(&apart[apart.len() / 2]), "one a second: {apart:?}");
    for Look { gpus, .. } in &looks {
        let [first, second] = &gpus[..] else { panic!("two GPUs: {gpus:?}") };
        for sample in [first, second] {
            assert!(sample.busy_pct.is_some_and(|busy| busy < 100), "{sample:?}");
            assert!(sample.memory_used_bytes.is_some_and(|used| (1..=16).contains(&(used >> 30))), "{sample:?}");
            assert!(sample.temperature_c.is_some_and(|celsius| (40..60).contains(&celsius)), "{sample:?}");
        }
        assert!(first.power_mw.is_some_and(|milliwatts| milliwatts >= 100_000), "{first:?}");
        assert_eq!(second.power_mw, None, "it has no such sensor");
    }
    let busy: std::collections::BTreeSet<_> = looks.iter().map(|look| look.gpus[0].busy_pct).collect();
    assert!(busy.len() >= 2, "what is seen is seen anew: {busy:?}");

    std::fs::write(dir.path().join("lost"), "").expect("writes");
    let newest = || ticks.after(None).pop();
    let gone = |look: &Look| look.gpus[1] == GpuSample::default() && look.gpus[0] != GpuSample::default();
    until("a look without the second", || newest().filter(gone)).await;
    assert!(!findings.has_changed().expect("it goes on"), "it is offered all the same");
    std::fs::remove_file(dir.path().join("lost")).expect("removes");
    until("a look with both", || newest().filter(|look| look.gpus[1] != GpuSample::default())).await;
    assert!(!watching.is_finished());
    watching.abort();
}

/// What a heartbeat carried, by the agent's own clock.
fn carried(beats: &[modchain_wire::agent::Heartbeat]) -> Vec<Timestamp> {
    beats.iter().flat_map(|beat| beat.gpus.iter().map(|tick| Timestamp(beat.sent.0 - tick.ago.0))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_arrives_once_whatever_connections_do_and_only_unanswered_ones_are_repeated() {
    let mut world = World::new();
    world.heartbeat = Span::from_secs(1);
    let (engine, mut inputs) = tokio::sync::mpsc::channel(16);
    let settings = Settings { data: Some(world.data()), ..Settings::default() };
    let file = world.dir.path().join("agent.toml");
    std::fs::write(&file, "").expect("writes");
    let config = Config::load(None, None, &settings, Some(&file)).expect("loads");
    let machine = Machine { cores: 1, memory_bytes: 1 << 30, disk_free_bytes: 1 << 30 };
    let offer = config.offer(&machine, &Findings::default(), false).expect("offers");
    // An engine that holds nothing.
    let answering = tokio::spawn(async move {
        let mut lines = Vec::new();
        while let Some(input) = inputs.recv().await {
            match input {
                EngineInput::Hello(ask) => {
                    let facts = HelloFacts { inventory: Vec::new(), fence: None, offer: offer.clone() };
                    let _ = ask.send(facts);
                }
                EngineInput::Connected { line, .. } => lines.push(line),
                _ => {}
            }
        }
    });
    let stop = CancellationToken::new();
    let session_config = SessionConfig {
        orchestrator: world.address(),
        identity: world.dir.path().join("node"),
        refusal: world.dir.path().join("refused"),
        instance: InstanceId([1; 16]),
        boot: BootId([1; 16]),
    };
    let (_load, load) = tokio::sync::watch::channel(HostLoad::default());
    let (connection, _connection) = tokio::sync::watch::channel(None);
    let ticks = GpuTicks::default();
    let session = Session::new(session_config, engine, load, connection, stop.clone()).with_gpus(ticks.clone());
    let session = tokio::spawn(session.run());
    let begin = clock::now();
    let look = |number: u64| {
        let gpus = List::new(vec![GpuSample { busy_pct: Some(number as u8), ..GpuSample::default() }]);
        Look { at: Timestamp(begin.0 - 1_000_000 + number), gpus: gpus.expect("fits") }
    };
    let at = |numbers: std::ops::RangeInclusive<u64>| numbers.map(|number| look(number).at).collect::<Vec<_>>();
    let seen = |beats: &scripted::Beats| beats.lock().expect("nobody panics here").clone();

    (1..=3).for_each(|number| ticks.add(look(number)));
    let first = world.welcome(Verdict::Forget).await;
    until("the first looks", || (carried(&seen(&first.beats)) == at(1..=3)).then_some(())).await;
    until("their answer", || ticks.after(None).is_empty().then_some(())).await;
    // From here on nothing is answered: what is carried may be lost.
    world.answers.store(false, Ordering::Relaxed);
    (4..=5).for_each(|number| ticks.add(look(number)));
    until("looks without an answer", || (carried(&seen(&first.beats)) == at(1..=5)).then_some(())).await;
    first.cut();
    world.answers.store(true, Ordering::Relaxed);
    (6..=7).for_each(|number| ticks.add(look(number)));
    let second = world.welcome(Verdict::Forget).await;
    until("what may be lost, and the new", || (carried(&seen(&second.beats)) == at(4..=7)).then_some(())).await;
    until("their answer", || ticks.after(None).is_empty().then_some(())).await;
    // Fewer than can be kept: nothing was lost, and nothing that was answered came again.
    let numbers = seen(&second.beats).len();
    until("more heartbeats", || (seen(&second.beats).len() >= numbers + 2).then_some(())).await;
    assert_eq!(carried(&seen(&second.beats)), at(4..=7));
    assert!(seen(&second.beats).iter().flat_map(|beat| beat.gpus.iter()).all(|tick| tick.ago >= Span::ZERO));
    stop.cancel();
    soon("the session's end", session).await.expect("ends");
    answering.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_changes_between_the_hello_and_the_welcome_is_said_after_it() {
    let dir = tempfile::tempdir().expect("directory");
    let settings = Settings { data: Some(dir.path().into()), ..Settings::default() };
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "").expect("writes");
    let config = Config::load(None, None, &settings, Some(&file)).expect("loads");
    let machine = Machine { cores: 1, memory_bytes: 1 << 30, disk_free_bytes: 1 << 30 };
    let offer = |paused| config.offer(&machine, &Findings::default(), paused).expect("offers");
    let (_connection, live) = tokio::sync::watch::channel(None);
    let cache = BlobCache::open(dir.path(), CACHE_BYTES_MAX).expect("opens");
    let (blobs, _downloads) = BlobFetcher::start(cache, live);
    let executors = Executors::wasm_alone(WasmExecutor::new(dir.path()).expect("finds this program"));
    let outbox = Outbox::open(dir.path()).expect("opens");
    let (engine, inputs) = Engine::new(offer(false), outbox, executors, blobs, &Survivors::default()).expect("opens");
    let running = tokio::spawn(engine.run());
    let connect = async |changes: &[bool]| {
        let (ask, facts) = tokio::sync::oneshot::channel();
        inputs.send(EngineInput::Hello(ask)).await.expect("it runs");
        let said = facts.await.expect("answers").offer;
        for paused in changes {
            inputs.send(EngineInput::OfferChanged(Box::new(offer(*paused)))).await.expect("it runs");
        }
        let (line, messages) = tokio::sync::mpsc::channel(8);
        let (journal, lease, sent) = (JournalId([1; 16]), Span::from_secs(30), clock::now());
        inputs.send(EngineInput::Connected { journal, lease, sent, line }).await.expect("it runs");
        (said, messages)
    };
    let (said, mut messages) = connect(&[true]).await;
    assert!(!said.paused);
    match soon("the offer", messages.recv()).await {
        Some(ToSession::Offer(offer)) => assert!(offer.paused),
        other => panic!("{other:?}"),
    }
    // The next hello says it, and then there is nothing to add.
    let (said, mut messages) = connect(&[]).await;
    assert!(said.paused);
    inputs.send(EngineInput::ShutDown).await.expect("it runs");
    soon("the engine's end", running).await.expect("ends");
    assert!(!matches!(messages.recv().await, Some(ToSession::Offer(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_offers_what_the_library_has_and_sends_what_it_sees() {
    let mut world = World::new();
    world.heartbeat = Span::from_secs(1);
    let library = fake_nvml::build(world.dir.path());
    let mut command = world.command();
    let child = command.env("MODCHAIN_AGENT_NVML_LIBRARY", &library).spawn().expect("starts");
    let _agent = scripted::Agent(child);
    let mut peer = world.welcome(Verdict::Forget).await;
    // They are found while it connects: in the hello, or right after it.
    let mut offer = peer.hello.offer.clone();
    while offer.capabilities.gpus.is_empty() {
        if let modchain_wire::FromAgent::OfferChanged(changed) = peer.hear().await {
            offer = changed.offer;
        }
    }
    let uuids: Vec<&str> = offer.capabilities.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    assert_eq!(uuids, UUIDS);
    let beats = peer.beats.clone();
    let taken = until("looks", || {
        let taken = carried(&beats.lock().expect("nobody panics here"));
        (taken.len() >= 4).then_some(taken)
    })
    .await;
    assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "in order, and none twice: {taken:?}");
}
