//! The owner's side of a running agent: one task that knows what the owner has said, and keeps the offer true to it.
//!
//! ```text
//!   file ────────┐
//!   machine ─────┼─▶ Owner ─▶ engine: the offer, whenever it changes
//!   findings ────┤        └─▶ executors: what the owner allows
//!   wishes ──────┘
//!   (control socket, SIGHUP)
//! ```
//!
//! A file that was written badly changes nothing: it is told with its line, and what held before holds on. A good one counts
//! for the assignments that come after it; what runs keeps the prices that it began with, because the orchestrator has frozen
//! them. A *pause* lasts until it is taken back, restarts included; a *drain* is the way to a stop, so it ends with the agent.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modchain_types::{Adapter, GpuInfo, Offer, Span, Timestamp, WallTime};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::config::{Config, ConfigSource};
use crate::engine::EngineInput;
use crate::executor::Executors;
use crate::files;
use crate::probe::{Findings, GpuTicks, Machine};

/// Wishes that may wait: people have few.
const WISHES_WAITING_MAX: usize = 16;

/// Longest sleep while a drain has a deadline. Timers stop while the machine sleeps and the clock does not.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The file that is there while the owner wants no new jobs.
const PAUSE_FILE: &str = "paused";

/// Something that the owner wants.
#[derive(Debug)]
pub enum Wish {
    /// To know how things are.
    Look(oneshot::Sender<OwnerSight>),
    /// No new jobs, until [`Wish::Resume`].
    Pause(oneshot::Sender<Result<(), String>>),
    /// New jobs again. Ends a pause and a drain.
    Resume(oneshot::Sender<Result<(), String>>),
    /// No new jobs, and nothing that runs after this time; without one what runs may go on to its end.
    Drain {
        /// How long what runs may go on.
        within: Option<Span>,
        /// Answered once no new jobs come.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// The file is to be read again.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
}

/// What became of a file that was read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Settings that have changed and that only a restart takes up.
    pub needs_restart: Vec<&'static str>,
    /// Whether the offer is another one now.
    pub offer_changed: bool,
}

/// How things are on the owner's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSight {
    /// What the node offers now.
    pub offer: Offer,
    /// Whether it takes new jobs.
    pub door: Door,
    /// The kinds of jobs that this agent knows, and how it stands with each.
    pub adapters: Vec<AdapterSight>,
    /// The file that holds, if there is one.
    pub file: Option<PathBuf>,
    /// Why the file as it is now does not hold.
    pub file_refused: Option<String>,
}

/// Whether new jobs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// They are.
    Open,
    /// They are not, until the owner says otherwise.
    Paused,
    /// They are not, and what runs is to end.
    Draining {
        /// By when; `None` gives it as long as it takes.
        until: Option<WallTime>,
    },
}

/// How it stands with one kind of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterSight {
    /// Which kind.
    pub adapter: Adapter,
    /// Why it is not offered; `None` if it is.
    pub missing: Option<String>,
}

/// What an [`Owner`] is made of.
#[derive(Debug)]
pub struct OwnerParts {
    /// Where the settings come from.
    pub source: ConfigSource,
    /// The settings that hold.
    pub config: Config,
    /// What the machine has.
    pub machine: Machine,
    /// What the probes find.
    pub findings: watch::Receiver<Findings>,
    /// Who runs jobs.
    pub executors: Executors,
    /// What is seen of GPUs: only what is offered is to be shown.
    pub gpus: GpuTicks,
    /// The node's folder.
    pub data: PathBuf,
}

/// A drain that has begun.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// When what still runs is ended, on this machine's clock and for people; `None` for never.
    until: Option<(Timestamp, WallTime)>,
    evicted: bool,
}

/// The task.
#[derive(Debug)]
pub struct Owner {
    parts: OwnerParts,
    offer: Offer,
    paused: bool,
    drain: Option<Drain>,
    file_refused: Option<String>,
    wishes: mpsc::Receiver<Wish>,
}

impl Owner {
    /// Looks whether an earlier run was paused, and makes the first offer. The sender is how wishes come.
    pub fn new(parts: OwnerParts) -> anyhow::Result<(Self, mpsc::Sender<Wish>)> {
        let paused = parts.data.join(PAUSE_FILE).exists();
        let offer = parts.config.offer(&parts.machine, &parts.findings.borrow(), paused)?;
        let (wishes_in, wishes) = mpsc::channel(WISHES_WAITING_MAX);
        let owner = Self { parts, offer, paused, drain: None, file_refused: None, wishes };
        owner.show_gpus(&owner.offer);
        Ok((owner, wishes_in))
    }

    /// What is offered now.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Keeps the offer until nobody can wish any more, or the engine is gone.
    pub async fn run(mut self, engine: mpsc::Sender<EngineInput>) {
        if self.paused {
            tracing::info!("paused by its owner: no new jobs until `modchain-agent resume`");
        }
        let mut findings = self.parts.findings.clone();
        let mut finding = true;
        while !engine.is_closed() {
            let sleep = self.sleep();
            tokio::select! {
                wish = self.wishes.recv() => match wish {
                    Some(wish) => self.on_wish(wish, &engine).await,
                    None => return,
                },
                found = findings.changed(), if finding => match found {
                    Ok(()) => drop(self.refresh(&engine).await),
                    // No probe is left: what was found last is what there is.
                    Err(_) => finding = false,
                },
                () = tokio::time::sleep(sleep.unwrap_or(Duration::MAX)), if sleep.is_some() => {}
            }
            self.on_time(&engine).await;
        }
    }

    async fn on_wish(&mut self, wish: Wish, engine: &mpsc::Sender<EngineInput>) {
        // Whoever wished something may have gone without waiting for the answer.
        match wish {
            Wish::Look(reply) => drop(reply.send(self.sight())),
            Wish::Pause(reply) => {
                let noted = self.note_pause(true);
                self.refresh(engine).await;
                let _ = reply.send(noted);
            }
            Wish::Resume(reply) => {
                self.drain = None;
                let noted = self.note_pause(false);
                self.refresh(engine).await;
                let _ = reply.send(noted);
            }
            Wish::Drain { within, reply } => {
                tracing::info!(within = within.map(tracing::field::display), "draining, as the owner wishes");
                let until = within.map(|within| (clock::now() + within, clock::wall().plus(within)));
                self.drain = Some(Drain { until, evicted: false });
                self.refresh(engine).await;
                let _ = reply.send(Ok(()));
            }
            Wish::Reload(reply) => {
                let reloaded = self.reload(engine).await;
                let _ = reply.send(reloaded);
            }
        }
    }

    /// Reads the file again, on a thread that may wait for the disk.
    async fn reload(&mut self, engine: &mpsc::Sender<EngineInput>) -> Result<Reloaded, String> {
        let source = self.parts.source.clone();
        let read = tokio::task::spawn_blocking(move || source.load()).await;
        let taken = read.map_err(anyhow::Error::from).flatten().and_then(|new| {
            let needs_restart = self.parts.config.needs_restart(&new);
            let config = self.parts.config.taken_up(new);
            // What promises more than there is would fail at the next start.
            config.offer(&self.parts.machine, &self.parts.findings.borrow(), self.is_closed())?;
            Ok((config, needs_restart))
        });
        match taken {
            Ok((config, needs_restart)) => {
                self.file_refused = None;
                allow(&self.parts.executors, &config);
                self.parts.config = config;
                let offer_changed = self.refresh(engine).await;
                tracing::info!(offer_changed, "the settings were read again");
                if !needs_restart.is_empty() {
                    tracing::warn!(settings = needs_restart.join(", "), "these have changed and need a restart");
                }
                Ok(Reloaded { needs_restart, offer_changed })
            }
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(why, "the settings cannot be used; those from before hold on");
                self.file_refused = Some(why.clone());
                Err(why)
            }
        }
    }

    /// Makes the offer anew, and says it if it has changed; tells whether it has.
    async fn refresh(&mut self, engine: &mpsc::Sender<EngineInput>) -> bool {
        let OwnerParts { config, machine, findings, .. } = &self.parts;
        let made = config.offer(machine, &findings.borrow(), self.is_closed());
        let offer = match made {
            Ok(offer) => offer,
            Err(error) => {
                // Checked when the settings were read, and what is found adds to an offer only what was found.
                tracing::error!(error = format!("{error:#}"), "no offer can be made of this");
                return false;
            }
        };
        // Also where the offer is the same: which place each of them has may not be.
        self.show_gpus(&offer);
        if offer == self.offer {
            return false;
        }
        tracing::info!(
            adapters = offer.capabilities.adapters.iter().map(|adapter| adapter.word()).collect::<Vec<_>>().join(" "),
            models = offer.capabilities.models.len(),
            gpus = offer.capabilities.gpus.len(),
            paused = offer.paused,
            "the offer has changed"
        );
        self.offer = offer.clone();
        // A closed channel means that the engine is gone, and this task with it.
        let _ = engine.send(EngineInput::OfferChanged(Box::new(offer))).await;
        true
    }

    fn show_gpus(&self, offer: &Offer) {
        let found = &self.parts.findings.borrow().gpus;
        let place = |gpu: &GpuInfo| found.iter().position(|one| one.uuid == gpu.uuid);
        self.parts.gpus.offer(offer.capabilities.gpus.iter().filter_map(place).collect());
    }

    async fn on_time(&mut self, engine: &mpsc::Sender<EngineInput>) {
        if let Some(Drain { until: Some((until, _)), evicted }) = &mut self.drain
            && !*evicted
            && clock::now() >= *until
        {
            *evicted = true;
            let _ = engine.send(EngineInput::Evict).await;
        }
    }

    /// How long to sleep if nothing happens; `None` for ever.
    fn sleep(&self) -> Option<Duration> {
        let Drain { until, evicted } = self.drain?;
        let (until, _) = until.filter(|_| !evicted)?;
        Some(Duration::from(until.since(clock::now())).min(SLEEP_MAX))
    }

    fn is_closed(&self) -> bool {
        self.paused || self.drain.is_some()
    }

    /// A pause counts from now on even if it cannot be noted; then it is told that it will not survive a restart.
    fn note_pause(&mut self, paused: bool) -> Result<(), String> {
        self.paused = paused;
        let path = self.parts.data.join(PAUSE_FILE);
        let noted = if paused { files::write_durably(&path, b"") } else { remove_durably(&path) };
        noted.map_err(|error| format!("this cannot be noted for the next start: {}: {error}", path.display()))
    }

    fn sight(&self) -> OwnerSight {
        let door = match self.drain {
            Some(Drain { until, .. }) => Door::Draining { until: until.map(|(_, wall)| wall) },
            None if self.paused => Door::Paused,
            None => Door::Open,
        };
        OwnerSight {
            offer: self.offer.clone(),
            door,
            adapters: adapters(&self.parts.config, &self.offer),
            file: self.parts.config.file.clone(),
            file_refused: self.file_refused.clone(),
        }
    }
}

/// How it stands with every kind of jobs under this offer.
pub fn adapters(config: &Config, offer: &Offer) -> Vec<AdapterSight> {
    let sight = |adapter| {
        let missing = if offer.capabilities.adapters.contains(&adapter) {
            None
        } else if !config.adapters.contains(&adapter) {
            Some("the owner does not take such jobs".to_owned())
        } else {
            Some(match adapter {
                Adapter::Docker => {
                    let host = config.docker.host.as_deref().unwrap_or("the usual place");
                    format!("no container engine that may be used answers at {host}")
                }
                Adapter::Llm => format!("no model server answers at {}", config.llm.url),
                Adapter::Wasm | Adapter::Mcp => "this agent cannot run them".to_owned(),
            })
        };
        AdapterSight { adapter, missing }
    };
    [Adapter::Wasm, Adapter::Docker, Adapter::Llm].map(sight).into()
}

/// Tells the executors what the owner allows from now on. WebAssembly is shut in the same way whoever the owner is.
fn allow(executors: &Executors, config: &Config) {
    if let Some(docker) = &executors.docker {
        docker.set_policy(config.docker.policy());
    }
    if let Some(llm) = &executors.llm {
        llm.set_policy(config.llm.policy());
    }
}

fn remove_durably(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => files::sync_dir(path.parent().unwrap_or(Path::new("/"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::executor::wasm::WasmExecutor;
    use modchain_types::{Micro, ModelInfo, Text};

    const MACHINE: Machine = Machine { cores: 4, memory_bytes: 16 << 30, disk_free_bytes: 100 << 30 };

    struct World {
        dir: tempfile::TempDir,
        findings: watch::Sender<Findings>,
        wishes: mpsc::Sender<Wish>,
        engine: mpsc::Receiver<EngineInput>,
        first: Offer,
    }

    impl World {
        fn file(&self) -> PathBuf {
            self.dir.path().join("agent.toml")
        }

        fn write(&self, text: &str) {
            std::fs::write(self.file(), text).expect("writes");
        }

        fn start(dir: tempfile::TempDir, text: &str) -> Self {
            let file = dir.path().join("agent.toml");
            std::fs::write(&file, text).expect("writes");
            let settings = Settings { data: Some(dir.path().into()), ..Settings::default() };
            let source = ConfigSource { settings, file: Some(file), ..ConfigSource::default() };
            let (findings, found) = watch::channel(Findings::default());
            let parts = OwnerParts {
                config: source.load().expect("loads"),
                source,
                machine: MACHINE,
                findings: found,
                gpus: GpuTicks::default(),
                executors: Executors::wasm_alone(WasmExecutor::with_program("/nowhere")),
                data: dir.path().into(),
            };
            let (owner, wishes) = Owner::new(parts).expect("offers");
            let first = owner.offer().clone();
            let (engine_in, engine) = mpsc::channel(16);
            tokio::spawn(owner.run(engine_in));
            Self { dir, findings, wishes, engine, first }
        }

        async fn wish<T>(&self, wish: impl FnOnce(oneshot::Sender<T>) -> Wish) -> T {
            let (reply, answer) = oneshot::channel();
            self.wishes.send(wish(reply)).await.expect("runs");
            answer.await.expect("answers")
        }

        async fn offer(&mut self) -> Offer {
            match self.engine.recv().await {
                Some(EngineInput::OfferChanged(offer)) => *offer,
                other => panic!("no offer: {other:?}"),
            }
        }

        fn hears_nothing(&mut self) -> bool {
            self.engine.try_recv().is_err()
        }
    }

    #[tokio::test]
    async fn what_is_found_and_lost_again_is_offered_and_not_offered_again() {
        let mut world = World::start(tempfile::tempdir().expect("dir"), "");
        assert_eq!(&*world.first.capabilities.adapters, [Adapter::Wasm]);
        let missing = |sight: &OwnerSight| sight.adapters.iter().filter(|one| one.missing.is_some()).count();
        assert_eq!(missing(&world.wish(Wish::Look).await), 2);
        let model = ModelInfo { name: Text::cut("m:1"), digest: Text::default(), bytes: 1, warm: true };
        world.findings.send_modify(|findings| findings.models = Some(vec![model]));
        let offer = world.offer().await;
        assert_eq!(&*offer.capabilities.adapters, [Adapter::Wasm, Adapter::Llm]);
        assert!(offer.capabilities.holds("m:1"));
        assert_eq!(missing(&world.wish(Wish::Look).await), 1);
        world.findings.send_modify(|findings| findings.models = None);
        assert_eq!(world.offer().await, world.first);
        // The same again is no news.
        world.findings.send_modify(|_| ());
        world.wish(Wish::Look).await;
        assert!(world.hears_nothing());
    }

    #[tokio::test]
    async fn a_good_file_is_taken_up_and_a_bad_one_changes_nothing_and_is_told_with_its_line() {
        let mut world = World::start(tempfile::tempdir().expect("dir"), "");
        world.write("[prices]\nminimum = \"0.5\"\n");
        let reloaded = world.wish(Wish::Reload).await.expect("good");
        assert_eq!(reloaded, Reloaded { needs_restart: vec![], offer_changed: true });
        let offer = world.offer().await;
        assert_eq!(offer.tariff.minimum, Micro(500_000));

        for (text, why) in [
            ("[prices]\nminimum = \"0.1\"\ncore_hour = 1\n", "agent.toml:3: invalid type"),
            ("[limits]\ncpus = 99\n", "99 cores are offered, and this machine has 4"),
        ] {
            world.write(text);
            let error = world.wish(Wish::Reload).await.expect_err(text);
            assert!(error.contains(why), "{error}");
            let sight = world.wish(Wish::Look).await;
            assert_eq!((sight.offer, sight.file_refused), (offer.clone(), Some(error)));
            assert!(world.hears_nothing());
        }

        world.write("orchestrator = \"elsewhere:1\"\n[prices]\nminimum = \"0.5\"\n");
        let reloaded = world.wish(Wish::Reload).await.expect("good");
        assert_eq!(reloaded, Reloaded { needs_restart: vec!["orchestrator"], offer_changed: false });
        assert_eq!(world.wish(Wish::Look).await.file_refused, None);
    }

    #[tokio::test]
    async fn a_pause_outlives_the_agent_and_a_drain_does_not() {
        let mut world = World::start(tempfile::tempdir().expect("dir"), "");
        assert!(!world.first.paused);
        world.wish(Wish::Pause).await.expect("noted");
        assert!(world.offer().await.paused);
        assert_eq!(world.wish(Wish::Look).await.door, Door::Paused);

        let mut world = World::start(world.dir, "");
        assert!(world.first.paused, "as before the restart");
        world.wish(Wish::Resume).await.expect("noted");
        assert!(!world.offer().await.paused);
        world.wish(|reply| Wish::Drain { within: None, reply }).await.expect("drains");
        assert!(world.offer().await.paused);
        assert_eq!(world.wish(Wish::Look).await.door, Door::Draining { until: None });

        let world = World::start(world.dir, "");
        assert!(!world.first.paused, "a restart ends a drain");
        assert_eq!(world.wish(Wish::Look).await.door, Door::Open);
    }

    #[tokio::test]
    async fn at_its_deadline_a_drain_ends_what_runs_once() {
        let mut world = World::start(tempfile::tempdir().expect("dir"), "");
        world.wish(|reply| Wish::Drain { within: Some(Span::ZERO), reply }).await.expect("drains");
        assert!(world.offer().await.paused);
        assert!(matches!(world.engine.recv().await, Some(EngineInput::Evict)));
        world.wish(Wish::Look).await;
        assert!(world.hears_nothing(), "once is enough");
        world.wish(Wish::Resume).await.expect("noted");
        assert!(!world.offer().await.paused);
    }
}
