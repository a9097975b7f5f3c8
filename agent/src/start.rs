//! `start`: puts the parts together, and takes them apart on a signal.
//!
//! To its service manager it is ready once the engine runs and the control socket listens. An orchestrator that is away makes
//! no failed service: the agent waits for it, and says so.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use modchain_agent::blobs::{BlobCache, BlobFetcher, CACHE_BYTES_MAX};
use modchain_agent::clock;
use modchain_agent::config::{Config, ConfigSource, GpuOffer};
use modchain_agent::containers;
use modchain_agent::control_socket::{Agent, ControlSocket};
use modchain_agent::describe::{self, Facts};
use modchain_agent::engine::{Engine, EngineInput, Survivors};
use modchain_agent::executor::Executors;
use modchain_agent::executor::docker::{DockerExecutor, DockerSettings};
use modchain_agent::executor::llm::{LlmExecutor, LlmSettings};
use modchain_agent::executor::wasm::WasmExecutor;
use modchain_agent::outbox::Outbox;
use modchain_agent::owner::{Owner, OwnerParts, Wish};
use modchain_agent::probe::{self, Findings, GpuTicks, SystemProbe};
use modchain_agent::session::{REFUSAL_FILE, Session, SessionConfig, load_credentials};
use modchain_certs::files::ensure_private_dir;
use modchain_service::notify::{self, Note};
use modchain_types::{Adapter, NodeId};
use modchain_wire::agent::HostLoad;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Between two looks at the machine's load: as often as heartbeats carry it away.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Exit code after a second signal: the caller did not want to wait.
const EXIT_IMPATIENT: i32 = 130;

/// Runs the agent until it is told to stop.
pub(crate) fn start(source: ConfigSource) -> anyhow::Result<()> {
    let config = source.load()?;
    let Some(orchestrator) = config.orchestrator.clone() else {
        bail!(
            "no orchestrator: join one with `modchain-agent join`, or say --orchestrator HOST:PORT, or orchestrator = \
             \"HOST:PORT\" in the file"
        );
    };
    let Some(identity) = config.identity.clone() else {
        bail!("no identity: join with `modchain-agent join`, or say --identity DIR, or identity = \"DIR\" in the file");
    };
    // Checked and not mended: a folder that is named by mistake, such as /tmp, must not be closed to its other users.
    ensure_private_dir(&config.data).context("failed to use the data folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("failed to start")?;
    let certificate = *runtime.block_on(load_credentials(identity.clone()))?.identity();
    let node = NodeId::from(certificate.id);
    tracing::info!(
        %node,
        identity = %identity.display(),
        serial = %certificate.serial,
        expires_at = clock::utc(certificate.not_after),
        renews_at = clock::utc(certificate.renews_at()),
        "this node's certificate"
    );
    let data = config.node_data(node);
    ensure_private_dir(&data).context("failed to use the data folder")?;
    let _lock = lock(&data)?;
    let facts = Facts {
        node,
        name: config.joined.as_ref().map(|joined| joined.name.clone()),
        orchestrator: orchestrator.clone(),
        data: data.clone(),
        started_at: clock::wall(),
    };
    let session = SessionConfig {
        orchestrator,
        identity,
        refusal: data.join(REFUSAL_FILE),
        instance: clock::instance_id()?,
        boot: clock::boot_id()?,
    };
    let result = runtime.block_on(run(source, config, facts, session));
    // A task that waits for a slow disk must not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn run(source: ConfigSource, config: Config, facts: Facts, session: SessionConfig) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let data = facts.data.clone();
    let open = || format!("failed to open {}", data.display());
    let outbox = Outbox::open(&data).with_context(open)?;
    let cache = BlobCache::open(&data, CACHE_BYTES_MAX).with_context(open)?;
    let mut probe = SystemProbe::new(&data);
    let (findings_in, findings) = watch::channel(Findings::default());
    let gpus = GpuTicks::default();
    let executors = executors(&config, &facts, findings_in, &gpus)?;
    let machine = probe.machine();
    let parts = OwnerParts {
        source,
        config,
        machine,
        findings,
        executors: executors.clone(),
        gpus: gpus.clone(),
        data: data.clone(),
    };
    let (owner, wishes) = Owner::new(parts)?;
    let (connection, live_connection) = watch::channel(None);
    let (blobs, _downloads) = BlobFetcher::start(cache, live_connection);
    let capabilities = &owner.offer().capabilities;
    tracing::info!(
        node = %facts.node,
        version = env!("CARGO_PKG_VERSION"),
        data = %data.display(),
        slots = capabilities.slots,
        cpu_milli = capabilities.cpu_milli,
        memory_bytes = capabilities.memory_bytes,
        "starting"
    );
    let control = ControlSocket::bind(&data).context("failed to listen for the owner's commands")?;
    let survivors = match &executors.docker {
        Some(docker) => containers::survivors(docker, &outbox, session.boot).await,
        None => Survivors::default(),
    };
    let sweeping = executors.docker.clone();
    let (engine, inputs) =
        Engine::new(owner.offer().clone(), outbox, executors, blobs, &survivors).with_context(open)?;
    let _sweeping =
        sweeping.map(|docker| AbortOnDropHandle::new(tokio::spawn(containers::sweep(docker, inputs.clone()))));
    // The engine waits for the disk, so it has a thread to itself.
    let runtime = Handle::current();
    let mut engine = tokio::task::spawn_blocking(move || runtime.block_on(engine.run()));
    let _owner = AbortOnDropHandle::new(tokio::spawn(owner.run(inputs.clone())));
    let agent = Agent { facts: Arc::new(facts), owner: wishes.clone(), engine: inputs.clone() };
    let _control = AbortOnDropHandle::new(tokio::spawn(control.serve(agent.clone())));
    let _managed = AbortOnDropHandle::new(tokio::spawn(report_to_manager(agent)));
    let (load_in, load) = watch::channel(HostLoad::default());
    let _looking = AbortOnDropHandle::new(tokio::spawn(look_at_load(probe, load_in)));
    let stop = CancellationToken::new();
    let session = Session::new(session, inputs.clone(), load, connection, stop.clone()).with_gpus(gpus);
    let session = tokio::spawn(session.run());
    let Signals { stop: stop_signals, hangup } = signals;
    let _stopping = AbortOnDropHandle::new(tokio::spawn(stop_signals.stop(inputs)));
    let _reloading = hangup.map(|hangup| AbortOnDropHandle::new(tokio::spawn(reload_on_hangup(hangup, wishes))));
    let ended = (&mut engine).await;
    stop.cancel();
    let session = session.await;
    ended.context("the engine failed")?;
    session.context("the session failed")?;
    tracing::info!("stopped");
    Ok(())
}

/// Who runs jobs here, and the probes that look whether they can: each keeps its part of the findings.
fn executors(
    config: &Config,
    facts: &Facts,
    findings: watch::Sender<Findings>,
    gpus: &GpuTicks,
) -> anyhow::Result<Executors> {
    let node = facts.node;
    let wasm = WasmExecutor::new(&facts.data).context("failed to prepare for WebAssembly")?;
    let docker = config.adapters.contains(&Adapter::Docker).then(|| {
        let host = config.docker.host.clone();
        let docker = DockerExecutor::new(DockerSettings { host, node, policy: config.docker.policy() });
        tokio::spawn(probe::docker::watch(docker.clone(), findings.clone()));
        docker
    });
    let llm = match config.adapters.contains(&Adapter::Llm) {
        true => {
            let settings = LlmSettings { url: config.llm.url.clone(), policy: config.llm.policy() };
            let llm = LlmExecutor::new(settings).context("failed to use the address of the model server")?;
            tokio::spawn(probe::ollama::watch(llm.clone(), findings.clone()));
            Some(llm)
        }
        false => None,
    };
    if config.gpus.offer != GpuOffer::Nothing {
        tokio::spawn(probe::nvml::watch(config.gpus.library.clone(), findings, gpus.clone()));
    }
    Ok(Executors::new(wasm, docker, llm))
}

/// Tells the service manager, if there is one, how the agent is; the engine's own loop has to answer for that.
async fn report_to_manager(agent: Agent) {
    if !notify::is_managed() {
        return;
    }
    let look = || async {
        let (engine, owner) = agent.look().await?;
        Some(describe::status_line(&agent.facts.orchestrator, &engine, owner.offer.paused))
    };
    notify::report(notify::round(), look, notify::tell).await;
}

/// Only one agent may use a folder. The lock goes with the process, however that ends.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("failed to open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is helps, but is not needed to refuse.
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another agent (process {}) uses {}; stop it, or give this one a folder of its own with --data DIR",
                holder.trim(),
                data.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock {}", path.display()));
        }
    }
    // Who it is helps, but is not needed either: a full disk keeps no agent from handing over what it holds.
    if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        tracing::warn!(path = %path.display(), %error, "who uses the folder cannot be written down");
    }
    Ok(file)
}

/// Keeps the load that heartbeats carry up to date.
async fn look_at_load(mut probe: SystemProbe, load: watch::Sender<HostLoad>) {
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            let load = probe.load();
            (probe, load)
        });
        let Ok((back, seen)) = looked.await else { return };
        probe = back;
        load.send_replace(seen);
        tokio::time::sleep(LOAD_INTERVAL).await;
    }
}

/// Reads the settings again on every hang-up.
async fn reload_on_hangup(mut hangup: Signal, owner: mpsc::Sender<Wish>) {
    while hangup.recv().await.is_some() {
        let (reply, answer) = oneshot::channel();
        if owner.send(Wish::Reload(reply)).await.is_err() {
            return;
        }
        // What became of it is in the log.
        let _ = answer.await;
    }
}

/// Caught from the start on, lest one that comes early is lost.
struct Signals {
    stop: StopSignals,
    /// `None` in a terminal: there a hang-up means that the terminal was closed, and stops the agent.
    hangup: Option<Signal>,
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Of the terminal that the agent was started in.
    closed: Option<Signal>,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("failed to listen for signals");
        let hangup = catch(SignalKind::hangup())?;
        let (closed, hangup) = match std::io::stdin().is_terminal() {
            true => (Some(hangup), None),
            false => (None, Some(hangup)),
        };
        let stop = StopSignals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            closed,
        };
        Ok(Self { stop, hangup })
    }
}

impl StopSignals {
    /// The first signal stops the agent in order, the second one at once.
    async fn stop(mut self, engine: mpsc::Sender<EngineInput>) {
        self.next().await;
        notify::tell(&Note::Stopping);
        // A closed channel means that the engine has stopped already.
        let _ = engine.send(EngineInput::ShutDown).await;
        self.next().await;
        tracing::warn!("stopping at once; attempts are killed");
        std::process::exit(EXIT_IMPATIENT);
    }

    async fn next(&mut self) {
        let Self { terminate, interrupt, closed } = self;
        let closed = async {
            match closed {
                Some(closed) => drop(closed.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = closed => {}
        }
    }
}
