//! `start`: puts the parts together, and takes them apart on a signal.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use modchain_agent::blobs::{BlobCache, BlobFetcher, CACHE_BYTES_MAX};
use modchain_agent::clock;
use modchain_agent::config::Config;
use modchain_agent::engine::{Engine, EngineInput};
use modchain_agent::executor::Executors;
use modchain_agent::executor::wasm::WasmExecutor;
use modchain_agent::outbox::Outbox;
use modchain_agent::probe::{Findings, GpuTicks, Machine, SystemProbe, nvml};
use modchain_agent::session::{REFUSAL_FILE, Session, SessionConfig, load_credentials};
use modchain_certs::files::ensure_private_dir;
use modchain_types::NodeId;
use modchain_wire::agent::HostLoad;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Between two looks at the machine's load: as often as heartbeats carry it away.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Names the file of NVIDIA's management library, instead of the system's own.
const NVML_LIBRARY: &str = "MODCHAIN_AGENT_NVML_LIBRARY";

/// Exit code after a second signal: the caller did not want to wait.
const EXIT_IMPATIENT: i32 = 130;

/// Runs the agent until it is told to stop.
pub(crate) fn start(mut config: Config) -> anyhow::Result<()> {
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
    if !config.data_given {
        config.data.push(node.to_string());
        ensure_private_dir(&config.data).context("failed to use the data folder")?;
    }
    let _lock = lock(&config.data)?;
    let result = runtime.block_on(run(&config, orchestrator, identity, node));
    // A task that waits for a slow disk must not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn run(config: &Config, orchestrator: String, identity: PathBuf, node: NodeId) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let mut probe = SystemProbe::new(&config.data);
    let machine = probe.machine();
    let offer = config.offer(&machine, &Findings::default(), false)?;
    let open = || format!("failed to open {}", config.data.display());
    let outbox = Outbox::open(&config.data).with_context(open)?;
    let cache = BlobCache::open(&config.data, CACHE_BYTES_MAX).with_context(open)?;
    let wasm = WasmExecutor::new().context("failed to find this program's own file")?;
    let executors = Executors::wasm_alone(wasm);
    let (connection, live_connection) = watch::channel(None);
    let (blobs, _downloads) = BlobFetcher::start(cache, live_connection);
    let capabilities = &offer.capabilities;
    tracing::info!(
        %node,
        version = env!("CARGO_PKG_VERSION"),
        data = %config.data.display(),
        slots = capabilities.slots,
        cpu_milli = capabilities.cpu_milli,
        memory_bytes = capabilities.memory_bytes,
        "starting"
    );
    let (engine, inputs) = Engine::new(offer, outbox, executors, blobs).with_context(open)?;
    // The engine waits for the disk, so it has a thread to itself.
    let runtime = Handle::current();
    let mut engine = tokio::task::spawn_blocking(move || runtime.block_on(engine.run()));
    let (load_in, load) = watch::channel(HostLoad::default());
    let _looking = AbortOnDropHandle::new(tokio::spawn(look_at_load(probe, load_in)));
    let (findings_in, findings) = watch::channel(Findings::default());
    let gpus = GpuTicks::default();
    let library = std::env::var_os(NVML_LIBRARY).map(PathBuf::from);
    let _watching = AbortOnDropHandle::new(tokio::spawn(nvml::watch(library, findings_in, gpus.clone())));
    let _offering =
        AbortOnDropHandle::new(tokio::spawn(offer_findings(config.clone(), machine, findings, inputs.clone())));
    let stop = CancellationToken::new();
    let session_config = SessionConfig {
        orchestrator,
        identity,
        refusal: config.data.join(REFUSAL_FILE),
        instance: clock::instance_id()?,
        boot: clock::boot_id()?,
    };
    let session = Session::new(session_config, inputs.clone(), load, connection, stop.clone()).with_gpus(gpus);
    let session = tokio::spawn(session.run());
    let _stopping = AbortOnDropHandle::new(tokio::spawn(signals.stop(inputs)));
    let ended = (&mut engine).await;
    stop.cancel();
    let session = session.await;
    ended.context("the engine failed")?;
    session.context("the session failed")?;
    tracing::info!("stopped");
    Ok(())
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
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| path.display().to_string())?;
    Ok(file)
}

/// Offers what the probes find.
async fn offer_findings(
    config: Config,
    machine: Machine,
    mut findings: watch::Receiver<Findings>,
    engine: mpsc::Sender<EngineInput>,
) {
    while findings.changed().await.is_ok() {
        let found = findings.borrow_and_update().clone();
        match config.offer(&machine, &found, false) {
            Ok(offer) => {
                if engine.send(EngineInput::OfferChanged(Box::new(offer))).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "what was found cannot be offered"),
        }
    }
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

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    /// The first signal stops the agent in order, the second one at once.
    async fn stop(mut self, engine: mpsc::Sender<EngineInput>) {
        self.next().await;
        // A closed channel means that the engine has stopped already.
        let _ = engine.send(EngineInput::ShutDown).await;
        self.next().await;
        tracing::warn!("stopping at once; attempts are killed");
        std::process::exit(EXIT_IMPATIENT);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
