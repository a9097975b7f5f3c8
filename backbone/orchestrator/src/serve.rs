//! `serve`: opens the stores, starts the engine, the read model and the sessions, and stops them in order.
//!
//! Start: lock, view, snapshot, journal replay (what is not in the snapshot goes to the gate and the engine, what is not in the
//! view to the feed), audit, engine thread, feed, dispatch, sockets (only now, so that nobody comes in whom the journal has
//! revoked), sessions, ready line. Stop: sessions (agents and consoles are told to come back later), engine (everything accepted
//! is committed), view, exit.
//!
//! A service manager is told that it is ready only then, and after it that it is alive for as long as the engine's own thread
//! answers, or says that it waits for room on the disk.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use modchain_core::Control;
use modchain_link::{Endpoint, EndpointKeys, JoinEndpoint};
use modchain_service::notify::{self, Note};
use modchain_types::{Asset, JobId, JournalId, Name, Span, Text, Timestamp};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::backup::check_finished;
use crate::clock::SystemSource;
use crate::config::Settings;
use crate::engine::{Engine, EngineHandle, EngineOptions, EngineThread, Outlets, StartError};
use crate::feed::{Archivist, Feed, FeedHandle};
use crate::fence::FenceKey;
use crate::founders::{self, Founders};
use crate::gate::Gate;
use crate::issuer::Issuer;
use crate::retention::{Keep, Retention};
use crate::session::{Server, Shower, reference_blobs};
use crate::store::blobs::BlobStore;
use crate::store::input::InputStore;
use crate::store::journal::JournalReader;
use crate::store::lock::{DataLock, LockError};
use crate::store::output::OutputStore;
use crate::store::space::Space;
use crate::store::view::view_dir;
use crate::{dispatch, init};

/// Longest wait for the engine to hear that it is to stop, and to commit what it has accepted.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two looks at the dates of the orchestrator's own certificates.
const LOOK_AT_CERTIFICATES_EVERY: Duration = Duration::from_secs(3600);
/// Time between two sweeps over blobs that no job needs.
const COLLECT_EVERY: Duration = Duration::from_secs(600);

/// All that sessions and the relay are built on. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The one way to change or ask live state.
    pub engine: EngineHandle,
    /// Output of attempts.
    pub output: OutputStore,
    /// Standard input of jobs.
    pub input: InputStore,
    /// Modules and large tasks.
    pub blobs: BlobStore,
    /// What is removed of ended jobs, and who still reads it.
    pub retention: Retention,
    /// Reads committed events from disk.
    pub journal: JournalReader,
    /// The journal's id.
    pub journal_id: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// Marks fences.
    pub fence_key: FenceKey,
    /// Signs certificates.
    pub issuer: Arc<Issuer>,
    /// Life of the certificates of those who join.
    pub cert_life: Span,
    /// Who is let in.
    pub gate: Arc<Gate>,
    /// What the pool is called.
    pub pool: Name,
    /// Port of the main endpoint.
    pub main_port: u16,
    /// Host that joiners are told for it, if it is not the one they joined at.
    pub advertise: Option<Text<256>>,
    /// Where joiners are listened for.
    pub join_address: SocketAddr,
}

/// An orchestrator that serves.
pub struct Orchestrator {
    server: Server,
    engine: EngineHandle,
    thread: EngineThread,
    feed: FeedHandle,
    /// Writes what has ended to the view, after the engine's end too.
    archivist: Archivist,
    sweepers: [JoinHandle<()>; 2],
    renewer: JoinHandle<()>,
    /// Ends, with its name, when a part ends that the others cannot do without.
    watch: JoinHandle<&'static str>,
    /// Let go of last.
    _lock: DataLock,
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    Asked,
    /// This part of it died.
    Died(&'static str),
}

impl Orchestrator {
    /// Starts everything. When it returns, connections are taken.
    pub async fn start(settings: &Settings) -> anyhow::Result<Self> {
        modchain_certs::install_crypto_provider();
        let data = settings.data.clone();
        check_finished(&data)?;
        let lock = DataLock::take(&data).map_err(|error| match &error {
            LockError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => anyhow::Error::new(error)
                .context(format!("there is no pool in {}: run `modchain-orchestrator init` first", data.display())),
            _ => error.into(),
        })?;
        let now = SystemTime::now();
        let issuer = Arc::new(Issuer::open(&data, now)?);
        let credentials = issuer.own();
        let keys = EndpointKeys::load_or_create(&init::own_identity_dir(&data))?;

        let gate = Arc::new(Gate::default());
        let (engine, feed, output, input, blobs, retention) = {
            let (settings, gate) = (settings.clone(), gate.clone());
            tokio::task::spawn_blocking(move || open_stores(&settings, gate)).await??
        };
        let pool = founders::pool_name(&data)?;
        let open: Vec<JobId> = engine.control().jobs().map(|job| job.id).collect();
        let (journal, journal_id, asset) = (engine.reader(), engine.goes_by(), engine.control().config().asset);
        let fence_key = FenceKey::load(&data, journal_id)?;

        let (engine, Outlets { effects, events }, thread) = engine.spawn()?;
        let (feed, feed_task, archivist) = feed.start(events)?; // ends with the engine
        let (dispatch, dispatch_task) =
            dispatch::start(effects, feed.clone(), input.clone(), blobs.clone(), retention.clone()); // likewise
        let watched = engine.clone();
        let watch = tokio::spawn(async move {
            tokio::select! {
                biased; // the others end after the engine
                () = watched.ended() => "the engine",
                _ = feed_task => "the read model",
                _ = dispatch_task => "the dispatch of instructions",
            }
        });
        input.keep_only(&open).await.context("inputs of ended jobs cannot be removed")?;
        for job in open {
            reference_blobs(&engine, &blobs, job).await?;
        }
        let advertise = settings.advertise.clone().map(Text::new).transpose().context("the host to advertise")?;
        let endpoint = Endpoint::bind(settings.listen, &credentials, &keys, Some(gate.clone()))
            .context("the main port cannot be opened: end whatever has it, or choose another with --listen")?;
        let join_endpoint = JoinEndpoint::bind(settings.join_listen, &credentials)
            .context("the join port cannot be opened: end whatever has it, or choose another with --join-listen")?;
        let removing = retention.clone().run(engine.clone(), feed.clone());
        let sweepers = [tokio::spawn(sweep(blobs.clone())), tokio::spawn(removing)];
        let join_address = join_endpoint.local_address()?;
        let services = Services {
            engine: engine.clone(),
            output,
            input,
            blobs,
            retention,
            journal,
            journal_id,
            asset,
            fence_key,
            issuer: issuer.clone(),
            cert_life: settings.cert_life,
            gate,
            pool,
            main_port: endpoint.local_address()?.port(),
            advertise,
            join_address,
        };
        let server = Server::start(endpoint, join_endpoint, services, feed.clone(), dispatch);
        let renewer = tokio::spawn(keep_certificates(issuer, server.shower()));
        Ok(Self { server, engine, thread, feed, archivist, sweepers, renewer, watch, _lock: lock })
    }

    /// Where it listens.
    pub fn local_address(&self) -> anyhow::Result<std::net::SocketAddr> {
        Ok(self.server.local_address()?)
    }

    /// Where it listens for joiners.
    pub fn join_address(&self) -> anyhow::Result<std::net::SocketAddr> {
        Ok(self.server.join_address()?)
    }

    /// The engine, for asking from the same process.
    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    /// Says goodbye to everybody, commits what was accepted, ends the engine. Takes some seconds at most.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        let Self { server, engine, thread, feed, archivist, sweepers, renewer, watch, _lock } = self;
        drop(feed);
        sweepers.iter().for_each(JoinHandle::abort);
        renewer.abort();
        watch.abort();
        server.shutdown().await;
        let stopped = async {
            let _ = engine.stop().await; // an engine that is gone already has stopped
            tokio::task::spawn_blocking(move || thread.join()).await
        };
        let clean = tokio::time::timeout(DRAIN_TIMEOUT, stopped)
            .await
            .context("the engine did not stop in time; what it acknowledged is on disk")??;
        anyhow::ensure!(clean, "the engine's thread panicked");
        // Nothing is lost without it; with it the next start has nothing to write again.
        let written = tokio::task::spawn_blocking(move || archivist.join());
        if tokio::time::timeout(DRAIN_TIMEOUT, written).await.is_err() {
            tracing::warn!("the view of ended jobs is not written to the end; the next start does it");
        }
        Ok(())
    }
}

fn open_stores(
    settings: &Settings,
    gate: Arc<Gate>,
) -> anyhow::Result<(Engine, Feed, OutputStore, InputStore, BlobStore, Retention)> {
    let data = &*settings.data;
    let place = |what: &str| data.join(what);
    let space = Space::open(data, settings.storage_low, settings.ballast).context("the room on the disk")?;
    let space = Arc::new(space);
    let output = OutputStore::at(&place("output")).with_context(|| no_store("output", data))?.within(space.clone());
    let input = InputStore::at(&place("input")).with_context(|| no_store("input", data))?.within(space.clone());
    let blobs = BlobStore::at(&place("blobs")).with_context(|| no_store("blobs", data))?;
    let (id, asset) = crate::store::journal::identify(&crate::engine::journal_dir(data))?;
    let feed = Feed::open(id, asset, &view_dir(data))
        .with_context(|| format!("the view of ended jobs cannot be made in {}", view_dir(data).display()))?;
    let mut feed = feed.within(space.clone());
    let time = SystemSource::new().context("the boot id cannot be read")?;
    let version = Text::cut(env!("CARGO_PKG_VERSION"));
    let founders = Founders::read(data)?;
    let token = founders.token.clone();
    let ceilings = settings.ceilings.clone();
    let make_room = Box::new(room_maker(place("output"), output.clone(), settings.keep, space.clone()));
    let options = EngineOptions {
        gate,
        ceilings,
        make_room,
        ..EngineOptions::new(data, version, Box::new(time), founders, space)
    };
    let mut written = Ok(());
    let engine = Engine::open(options, Some(feed.upto()), |event| {
        let now = feed.replay(event);
        if written.is_ok() {
            written = now;
        }
    });
    let engine = engine.map_err(|error| match error {
        StartError::Gone { .. } => anyhow::Error::new(error).context(format!(
            "bring the whole data directory back; if you know better, remove the view of ended jobs, the folder {}",
            view_dir(data).display()
        )),
        error => error.into(),
    })?;
    if let Err(error) = written.and_then(|()| feed.write_replayed()) {
        // As when it fails later: there are jobs that run and are to be paid, and `status` tells.
        tracing::error!(%error, "what has ended is kept in memory from here on; restart the orchestrator");
    }
    if let Some(token) = token {
        Founders::forget_token(data, &token)?;
    }
    let retention = Retention::open(&place("output"), output.clone(), settings.keep, engine.control())
        .context("the output of ended jobs cannot be looked through")?;
    Ok((engine, feed, output, input, blobs, retention))
}

fn no_store(what: &str, data: &Path) -> String {
    format!("the folder {} cannot be used", data.join(what).display())
}

/// Removes what may be removed of the output of ended jobs while the start waits for room. For a thread that may block.
fn room_maker(
    dir: PathBuf,
    store: OutputStore,
    keep: Keep,
    space: Arc<Space>,
) -> impl FnMut(&Control, Timestamp) + Send {
    let runtime = tokio::runtime::Handle::current();
    move |control, now| {
        let swept = Retention::open(&dir, store.clone(), keep, control)
            .map_err(anyhow::Error::from)
            .and_then(|retention| Ok(runtime.block_on(retention.sweep(now, space.short(), &space))?));
        match swept {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "removed the output of ended jobs, because the start needs room"),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the output of ended jobs cannot be removed");
            }
        }
    }
}

/// Every follower of output and every upload holds a file: asks for as many as the system allows.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// A program that runs for months outlives its certificates.
async fn keep_certificates(issuer: Arc<Issuer>, shower: Shower) {
    loop {
        tokio::time::sleep(LOOK_AT_CERTIFICATES_EVERY).await;
        let looking = issuer.clone();
        let looked = tokio::task::spawn_blocking(move || looking.look(SystemTime::now())).await;
        let shown = looked.map_err(anyhow::Error::from).flatten().and_then(|fresh| match fresh {
            Some(fresh) => Ok(shower.show(&fresh)?),
            None => Ok(()),
        });
        if let Err(error) = shown {
            tracing::error!(error = format!("{error:#}"), "the orchestrator's own certificate cannot be renewed");
        }
    }
}

async fn sweep(blobs: BlobStore) {
    loop {
        tokio::time::sleep(COLLECT_EVERY).await;
        match blobs.collect().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed blobs that no job needs"),
            Err(error) => tracing::warn!(%error, "blobs cannot be removed"),
        }
    }
}

/// Tells the service manager, if there is one, how the orchestrator is, by what the engine's thread answers.
async fn report_to_manager(engine: EngineHandle, feed: FeedHandle, listen: SocketAddr) {
    if !notify::is_managed() {
        return;
    }
    notify::report(notify::round(), || how_it_is(&engine, &feed, listen), notify::tell).await;
}

/// One line; nothing once the engine is gone. An engine that waits for room is alive, and no restart would help it.
async fn how_it_is(engine: &EngineHandle, feed: &FeedHandle, listen: SocketAddr) -> Option<String> {
    let count = |control: &Control, _| (connected(control), control.jobs().count());
    let (nodes, jobs) = tokio::select! {
        biased;
        _ = engine.no_room() => return Some(format!("waiting for room: {}", engine.space().alarm())),
        counted = engine.query(count) => counted.ok()?,
    };
    let wrong = feed.complaint().map_or(String::new(), |wrong| format!("; {wrong}"));
    Some(format!("serving on {listen}, {nodes} nodes connected, {jobs} open jobs{wrong}"))
}

fn connected(control: &Control) -> usize {
    control.nodes().filter(|node| node.presence.session.is_some()).count()
}

/// Serves until a signal says otherwise. Prints one line of JSON on standard output when it is ready. A second signal ends
/// the program at once.
pub async fn serve(settings: &Settings) -> anyhow::Result<Ended> {
    // Before anything else: a signal that comes while the journal replays must not be lost.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    allow_many_files();
    let mut orchestrator = tokio::select! {
        started = Orchestrator::start(settings) => started?,
        _ = interrupt.recv() => return Ok(Ended::Asked),
        _ = terminate.recv() => return Ok(Ended::Asked),
    };
    let (listen, join) = (orchestrator.local_address()?, orchestrator.join_address()?);
    let pid = std::process::id();
    let ready = serde_json::json!({ "schema": "modchain.serving/v1", "listen": listen, "join": join, "pid": pid });
    // Whoever started it may have closed the pipe; that is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{ready}");
    tracing::info!(%listen, %join, data = %settings.data.display(), "serving");

    let managed = tokio::spawn(report_to_manager(orchestrator.engine.clone(), orchestrator.feed.clone(), listen));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        died = &mut orchestrator.watch => return Ok(Ended::Died(died?)),
    }
    managed.abort();
    notify::tell(&Note::Stopping);
    tracing::info!("stopping; a second signal ends at once");
    tokio::select! {
        stopped = orchestrator.shutdown() => stopped.map(|()| Ended::Asked),
        _ = interrupt.recv() => anyhow::bail!("ended at once, as asked; what was acknowledged is on disk"),
        _ = terminate.recv() => anyhow::bail!("ended at once, as asked; what was acknowledged is on disk"),
    }
}
