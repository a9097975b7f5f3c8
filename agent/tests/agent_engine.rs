//! The engine by itself, spoken to as the session and the owner speak to it.
#![allow(missing_docs, reason = "a test is documented by its name")]

use std::time::Duration;

use modchain_agent::blobs::{BlobCache, BlobFetcher, CACHE_BYTES_MAX};
use modchain_agent::clock;
use modchain_agent::engine::{Engine, EngineInput, Survivors, ToSession};
use modchain_agent::executor::Executors;
use modchain_agent::executor::wasm::WasmExecutor;
use modchain_agent::outbox::Outbox;
use modchain_types::{Adapter, Capabilities, Exceptions, JournalId, List, Map, Offer, Span, Tariff, Text};
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
