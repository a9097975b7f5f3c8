//! The engine by itself, spoken to as the session and the owner speak to it.
#![allow(missing_docs, reason = "a test is documented by its name")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use modchain_agent::blobs::{BlobCache, BlobFetcher, CACHE_BYTES_MAX};
use modchain_agent::clock;
use modchain_agent::engine::{Engine, EngineInput, Survivors, ToSession};
use modchain_agent::executor::Executors;
use modchain_agent::executor::docker::{DockerExecutor, DockerPolicy, DockerSettings};
use modchain_agent::executor::wasm::WasmExecutor;
use modchain_agent::outbox::Outbox;
use modchain_types::{
    Adapter, Assignment, AttemptId, Capabilities, Digest, DockerTask, Exceptions, Fence, FenceClaim, GpuRequest, Input,
    JobId, JobSpec, JournalId, Limits, List, Map, Micro, NodeId, Offer, Policy, Reason, ReportBody, Requirements,
    Reservation, Span, Tariff, Task, TaskBody, Text, Verdict, WasmTask,
};
use tokio::sync::{mpsc, oneshot, watch};

fn offer(adapters: &[Adapter]) -> Offer {
    Offer {
        capabilities: Capabilities {
            adapters: List::new(adapters.to_vec()).expect("few"),
            cpu_milli: 1_000,
            memory_bytes: 1 << 30,
            disk_bytes: 0,
            slots: 1,
            gpus: List::default(),
            models: List::default(),
            pullable: List::default(),
            exceptions: Exceptions::default(),
            container_gpus: false,
            labels: Map::default(),
            region: Text::default(),
        },
        tariff: Tariff::default(),
        agent_version: Text::cut("test"),
        paused: false,
        images: List::default(),
    }
}

/// An attempt at something that this engine has no executor for: it is written down, refused, and that is written down.
fn assignment(number: u8) -> Assignment {
    let task = DockerTask {
        image: Text::cut("busybox"),
        command: List::default(),
        entrypoint: None,
        env: Map::default(),
        workdir: None,
        tmp_bytes: 0,
        pids_max: DockerTask::PIDS_DEFAULT,
        pull_timeout: Span::from_secs(60),
    };
    Assignment {
        attempt: AttemptId { job: JobId([number; 16]), number: 1 },
        claim: FenceClaim { fence: Fence(u64::from(number)), mac: [number; 16] },
        spec: JobSpec {
            name: Text::cut(format!("test-{number:03}")),
            body: TaskBody::Inline(Task::Docker(task)),
            requirements: Requirements {
                adapter: Adapter::Docker,
                cpu_milli: 1,
                memory_bytes: 1,
                disk_bytes: 0,
                gpus: GpuRequest { count: 0, memory_bytes_min: 0, model: None },
                labels: Default::default(),
                region: None,
                node: None,
                price_per_hour_max: None,
                model: None,
                exceptions: Exceptions::default(),
            },
            limits: Limits::default(),
            max_cost: Micro::UNIT,
            priority: 0,
            labels: Map::default(),
            input: Input::None,
            policy: Policy::default(),
        },
        reservation: Reservation { cpu_milli: 1, memory_bytes: 1, ..Reservation::default() },
        tariff: Tariff::default(),
        run_limit: Span::from_secs(60),
        run_limit_reason: Reason::Budget,
        image: None,
        output_tokens_max: None,
    }
}

/// What a start would find if the agent died now: attempts, those of them with a result, and the highest fence.
fn on_disk(data: &std::path::Path) -> (Vec<u8>, Vec<u8>, Option<u64>) {
    let copy = tempfile::tempdir().expect("folder");
    std::fs::copy(data.join("attempts.log"), copy.path().join("attempts.log")).expect("copies");
    let mut outbox = Outbox::open(copy.path()).expect("an outbox");
    let left = outbox.recover().expect("recovers");
    let ended = left.iter().filter(|one| one.result.is_some()).map(|one| one.attempt.job.0[0]).collect();
    let fence = outbox.fence().map(|seen| seen.claim.fence.0);
    (left.iter().map(|one| one.attempt.job.0[0]).collect(), ended, fence)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_said_of_many_attempts_at_once_was_on_disk_before() {
    const COUNT: u8 = 50;
    let folder = tempfile::tempdir().expect("folder");
    let outbox = Outbox::open(folder.path()).expect("an outbox");
    let cache = BlobCache::open(folder.path(), CACHE_BYTES_MAX).expect("a cache");
    let (_connection, live) = watch::channel(None);
    let (blobs, _downloads) = BlobFetcher::start(cache, live);
    let executors = Executors::wasm_alone(WasmExecutor::with_program("/nowhere"));
    let mut offer = offer(&[Adapter::Docker]);
    offer.capabilities.slots = u32::from(COUNT);
    let (engine, inputs) = Engine::new(offer, outbox, executors, blobs, &Survivors::default()).expect("an engine");
    // All of them wait before the engine looks.
    let (line, mut messages) = mpsc::channel(1024);
    let (journal, lease, sent) = (JournalId([1; 16]), Span::from_secs(30), clock::now());
    inputs.send(EngineInput::Connected { journal, lease, sent, line }).await.expect("there is room");
    inputs.send(EngineInput::Reconcile(Vec::new())).await.expect("there is room");
    for number in 1..=COUNT {
        inputs.send(EngineInput::Assign(Box::new(assignment(number)))).await.expect("there is room");
    }
    let running = tokio::task::spawn_blocking({
        let runtime = tokio::runtime::Handle::current();
        move || runtime.block_on(engine.run())
    });
    let mut results = Vec::new();
    while results.len() < usize::from(COUNT) {
        let told = tokio::time::timeout(Duration::from_secs(60), messages.recv()).await.expect("in time");
        let Some(ToSession::Report(report)) = told else { continue };
        let (began, ended, fence) = on_disk(folder.path());
        let number = report.attempt.job.0[0];
        assert!(began.contains(&number) && fence >= Some(u64::from(number)), "{number} is not in {began:?}");
        if let ReportBody::Ended { .. } = report.body {
            assert!(ended.contains(&number), "{number} is not in {ended:?}");
            results.push(report);
        }
    }
    let log_holds = |what: &str| {
        let log = std::fs::read(folder.path().join("attempts.log")).expect("reads");
        log.split(|byte| *byte == 0).any(|text| String::from_utf8_lossy(text).contains(what))
    };
    for (count, report) in results.into_iter().enumerate() {
        let (attempt, fence) = (report.attempt, report.fence);
        inputs.send(EngineInput::Ack { attempt, fence }).await.expect("the engine runs");
        if count == 0 {
            // The first that is forgotten is at once gone from the disk. The second look is answered after that.
            for _ in 0..2 {
                let (ask, sight) = oneshot::channel();
                inputs.send(EngineInput::Look(ask)).await.expect("the engine runs");
                sight.await.expect("it answers");
            }
            assert!(!log_holds(&format!("test-{:03}", attempt.job.0[0])) && log_holds("test-"));
        }
    }
    let (ask, sight) = oneshot::channel();
    inputs.send(EngineInput::Look(ask)).await.expect("the engine runs");
    assert!(sight.await.expect("it answers").attempts.is_empty());
    assert_eq!(on_disk(folder.path()), (vec![], vec![], Some(u64::from(COUNT))));
    assert_eq!(std::fs::read_dir(folder.path().join("attempts")).expect("reads").count(), 0);
    inputs.send(EngineInput::ShutDown).await.expect("the engine runs");
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("in time").expect("it ends");
    assert!(!log_holds("test-"), "an agent that stops in order leaves nothing of what is forgotten");
}

/// Waits until the engine has done all that it was told before; whether it has told a result since.
async fn has_told_a_result(inputs: &mpsc::Sender<EngineInput>, messages: &mut mpsc::Receiver<ToSession>) -> bool {
    let (ask, sight) = oneshot::channel();
    inputs.send(EngineInput::Look(ask)).await.expect("the engine runs");
    sight.await.expect("it answers");
    let told: Vec<_> = std::iter::from_fn(|| messages.try_recv().ok()).collect();
    told.iter().any(is_result)
}

fn is_result(message: &ToSession) -> bool {
    matches!(message, ToSession::Report(report) if matches!(report.body, ReportBody::Ended { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_written_down_is_told_to_nobody_before_it_is() {
    let folder = tempfile::tempdir().expect("folder");
    // The log has no room for more, and none can take its place.
    drop(Outbox::open(folder.path()).expect("an outbox"));
    let log = folder.path().join("attempts.log");
    let header = &std::fs::read(&log).expect("reads")[..24];
    std::fs::write(&log, header).expect("writes");
    let outbox = Outbox::open(folder.path()).expect("an outbox");
    let in_the_way = folder.path().join("attempts.new");
    std::fs::create_dir(&in_the_way).expect("makes a folder");

    let cache = BlobCache::open(folder.path(), CACHE_BYTES_MAX).expect("a cache");
    let (_connection, live) = watch::channel(None);
    let (blobs, _downloads) = BlobFetcher::start(cache, live);
    let executors = Executors::wasm_alone(WasmExecutor::with_program("/nowhere"));
    let (engine, inputs) =
        Engine::new(offer(&[Adapter::Docker]), outbox, executors, blobs, &Survivors::default()).expect("an engine");
    let running = tokio::task::spawn_blocking({
        let runtime = tokio::runtime::Handle::current();
        move || runtime.block_on(engine.run())
    });
    let one = assignment(1);
    let (attempt, fence) = (one.attempt, one.claim.fence);
    for verdict in [Verdict::Keep, Verdict::SendResult] {
        let (line, mut messages) = mpsc::channel(64);
        let (journal, lease, sent) = (JournalId([1; 16]), Span::from_secs(30), clock::now());
        inputs.send(EngineInput::Connected { journal, lease, sent, line }).await.expect("the engine runs");
        inputs.send(EngineInput::Reconcile(vec![(attempt, fence, verdict)])).await.expect("the engine runs");
        inputs.send(EngineInput::Assign(Box::new(one.clone()))).await.expect("the engine runs");
        inputs.send(EngineInput::Assign(Box::new(one.clone()))).await.expect("the engine runs");
        assert!(!has_told_a_result(&inputs, &mut messages).await, "{verdict:?}");
        if verdict == Verdict::SendResult {
            std::fs::remove_dir(&in_the_way).expect("removes");
            let told = tokio::time::timeout(Duration::from_secs(60), messages.recv()).await.expect("in time");
            assert!(told.as_ref().is_some_and(is_result), "{told:?}");
            assert_eq!(on_disk(folder.path()).1, [1]);
        }
    }
    inputs.send(EngineInput::Ack { attempt, fence }).await.expect("the engine runs");
    inputs.send(EngineInput::ShutDown).await.expect("the engine runs");
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("in time").expect("it ends");
}

#[tokio::test]
async fn what_changes_between_hello_and_welcome_is_told_after_the_welcome() {
    let folder = tempfile::tempdir().expect("folder");
    let outbox = Outbox::open(folder.path()).expect("an outbox");
    let cache = BlobCache::open(folder.path(), CACHE_BYTES_MAX).expect("a cache");
    let (_connection, live) = watch::channel(None);
    let (blobs, _downloads) = BlobFetcher::start(cache, live);
    let executors = Executors::wasm_alone(WasmExecutor::with_program("/nowhere"));
    let (engine, inputs) =
        Engine::new(offer(&[Adapter::Wasm]), outbox, executors, blobs, &Survivors::default()).expect("an engine");
    let running = tokio::spawn(engine.run());
    let hello = || async {
        let (ask, facts) = oneshot::channel();
        inputs.send(EngineInput::Hello(ask)).await.expect("the engine runs");
        facts.await.expect("it answers").offer
    };
    let welcome = || async {
        let (line, messages) = mpsc::channel(8);
        let (journal, lease, sent) = (JournalId([1; 16]), Span::from_secs(30), clock::now());
        inputs.send(EngineInput::Connected { journal, lease, sent, line }).await.expect("the engine runs");
        messages
    };
    let (first, second) = (offer(&[Adapter::Wasm]), offer(&[Adapter::Wasm, Adapter::Docker]));

    assert_eq!(hello().await, first);
    inputs.send(EngineInput::OfferChanged(Box::new(second.clone()))).await.expect("the engine runs");
    let mut messages = welcome().await;
    let told = tokio::time::timeout(Duration::from_secs(60), messages.recv()).await.expect("in time");
    let Some(ToSession::Offer(told)) = told else { panic!("{told:?}") };
    assert_eq!(*told, second);

    // What the hello said already is not said again.
    assert_eq!(hello().await, second);
    let mut messages = welcome().await;
    let (ask, sight) = oneshot::channel();
    inputs.send(EngineInput::Look(ask)).await.expect("the engine runs");
    sight.await.expect("the engine is past the welcome");
    assert!(messages.try_recv().is_err(), "there is nothing to tell");

    inputs.send(EngineInput::ShutDown).await.expect("the engine runs");
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("in time").expect("it ends");
}

/// An attempt at a module that is nowhere.
fn module(number: u8) -> Assignment {
    let task = WasmTask {
        module: Digest::of(b"module"),
        module_bytes: u64::MAX,
        module_name: Text::cut("m.wasm"),
        args: List::default(),
        env: Map::default(),
    };
    let mut one = assignment(number);
    one.spec.body = TaskBody::Inline(Task::Wasm(task));
    one.spec.requirements.adapter = Adapter::Wasm;
    one
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_engine_is_asked_for_nothing_of_a_module() {
    let folder = tempfile::tempdir().expect("folder");
    let outbox = Outbox::open(folder.path()).expect("an outbox");
    let cache = BlobCache::open(folder.path(), CACHE_BYTES_MAX).expect("a cache");
    let (_connection, live) = watch::channel(None);
    let (blobs, _downloads) = BlobFetcher::start(cache, live);
    // A container engine that hangs up.
    let socket = folder.path().join("engine.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("listens");
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counting.fetch_add(1, Ordering::Relaxed);
        }
    });
    let host = Some(format!("unix://{}", socket.display()));
    let settings = DockerSettings { host, node: NodeId([1; 16]), policy: DockerPolicy::default() };
    let executors = Executors::new(WasmExecutor::with_program("/nowhere"), Some(DockerExecutor::new(settings)), None);
    let adapters = [Adapter::Wasm, Adapter::Docker];
    let (engine, inputs) =
        Engine::new(offer(&adapters), outbox, executors, blobs, &Survivors::default()).expect("an engine");
    let running = tokio::task::spawn_blocking({
        let runtime = tokio::runtime::Handle::current();
        move || runtime.block_on(engine.run())
    });
    let (line, mut messages) = mpsc::channel(64);
    let (journal, lease, sent) = (JournalId([1; 16]), Span::from_secs(30), clock::now());
    inputs.send(EngineInput::Connected { journal, lease, sent, line }).await.expect("the engine runs");
    inputs.send(EngineInput::Reconcile(Vec::new())).await.expect("the engine runs");
    let one = module(1);
    let (attempt, fence) = (one.attempt, one.claim.fence);
    inputs.send(EngineInput::Assign(Box::new(one))).await.expect("the engine runs");
    loop {
        let told = tokio::time::timeout(Duration::from_secs(60), messages.recv()).await.expect("in time");
        if is_result(&told.expect("the engine goes on")) {
            break;
        }
    }
    inputs.send(EngineInput::Ack { attempt, fence }).await.expect("the engine runs");
    inputs.send(EngineInput::ShutDown).await.expect("the engine runs");
    // An engine that ends waits for every removal.
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("in time").expect("it ends");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_the_same_id_after_its_job_was_forgotten_tells_its_result_too() {
    let folder = tempfile::tempdir().expect("folder");
    let outbox = Outbox::open(folder.path()).expect("an outbox");
    let cache = BlobCache::open(folder.path(), CACHE_BYTES_MAX).expect("a cache");
    let (_connection, live) = watch::channel(None);
    let (blobs, _downloads) = BlobFetcher::start(cache, live);
    // A container engine that hangs up: each attempt ends at once.
    let socket = folder.path().join("engine.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("listens");
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let host = Some(format!("unix://{}", socket.display()));
    let settings = DockerSettings { host, node: NodeId([1; 16]), policy: DockerPolicy::default() };
    let executors = Executors::new(WasmExecutor::with_program("/nowhere"), Some(DockerExecutor::new(settings)), None);
    let (engine, inputs) =
        Engine::new(offer(&[Adapter::Docker]), outbox, executors, blobs, &Survivors::default()).expect("an engine");
    let running = tokio::task::spawn_blocking({
        let runtime = tokio::runtime::Handle::current();
        move || runtime.block_on(engine.run())
    });
    let (line, mut messages) = mpsc::channel(64);
    let (journal, lease, sent) = (JournalId([1; 16]), Span::from_secs(30), clock::now());
    inputs.send(EngineInput::Connected { journal, lease, sent, line }).await.expect("the engine runs");
    inputs.send(EngineInput::Reconcile(Vec::new())).await.expect("the engine runs");
    for fence in [Fence(1), Fence(2)] {
        let mut one = assignment(1);
        one.claim.fence = fence;
        let attempt = one.attempt;
        inputs.send(EngineInput::Assign(Box::new(one))).await.expect("the engine runs");
        loop {
            let told = tokio::time::timeout(Duration::from_secs(120), messages.recv()).await.expect("in time");
            if let Some(ToSession::Report(report)) = told.as_ref().filter(|told| is_result(told)) {
                assert_eq!((report.attempt, report.fence), (attempt, fence));
                break;
            }
        }
        inputs.send(EngineInput::Ack { attempt, fence }).await.expect("the engine runs");
    }
    inputs.send(EngineInput::ShutDown).await.expect("the engine runs");
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("in time").expect("it ends");
}
