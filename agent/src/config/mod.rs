//! What the agent is told: by flags, by `MODCHAIN_AGENT_*`, by a file, by what joining left, in this order; the rest are
//! defaults.
//!
//! [`mod@example`] writes the file with every setting, its default and its unit; [`mod@file`] reads one. Nothing here looks at the
//! machine: what is offered follows from a [`Config`], the machine and what the probes have found, see [`Config::offer`].

mod example;
mod file;

pub use example::example;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use modchain_types::{Adapter, Capabilities, Exceptions, GpuInfo, List, Map, Micro, NodeId, Offer, Span, Tariff, Text};

use crate::executor::docker::DockerPolicy;
use crate::executor::llm::{CONTEXT_TOKENS_DEFAULT, LlmPolicy};
use crate::joined::{Joined, identity_dir};
use crate::probe::{Findings, Machine};
use file::{Amount, File, check_slots, check_url, read_adapters, read_cores, read_label, read_size};

/// Most attempts at once, whatever the owner says: the orchestrator's receive window of a connection holds 60 streams, and
/// some are needed beside the attempts'.
pub const SLOTS_MAX: u32 = 48;

/// Where the data of root's agent and of the service is, unless somebody names another place.
pub const SERVICE_DATA: &str = "/var/lib/modchain/agent";

/// Most patterns of models that jobs may have pulled: what an offer holds.
pub const MODEL_PATTERNS_MAX: usize = 64;

/// Largest image that is pulled unless the owner says otherwise: what machine learning ships today.
const IMAGE_BYTES_MAX: u64 = 20 * GIB;

/// Where a model server listens unless it is told otherwise.
const OLLAMA_HOST: &str = "127.0.0.1";
const OLLAMA_PORT: u16 = 11434;

/// A GiB.
const GIB: u64 = 1 << 30;

/// Memory that is left to the machine at least, where it has twice as much.
const MEMORY_RESERVE_BYTES: u64 = GIB / 2;

/// What flags, environment variables and the file may say about the offer, and where the agent finds things.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Settings {
    /// Where to keep attempts, results and modules [default: a folder for each node below /var/lib/modchain/agent for
    /// root, else below $XDG_STATE_HOME/modchain/agent]
    #[arg(long, env = "MODCHAIN_AGENT_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where this node is, in your own words
    #[arg(long, env = "MODCHAIN_AGENT_REGION", value_name = "TEXT")]
    pub region: Option<String>,
    /// Jobs at once [default: twice the cores]
    #[arg(long, env = "MODCHAIN_AGENT_SLOTS", value_name = "N")]
    pub slots: Option<u32>,
    /// Cores for jobs, such as 4 or 1.5 [default: all]
    #[arg(long, env = "MODCHAIN_AGENT_CPUS", value_name = "CORES")]
    pub cpus: Option<String>,
    /// Memory for jobs, such as 12GiB [default: all but a reserve]
    #[arg(long, env = "MODCHAIN_AGENT_MEMORY", value_name = "SIZE")]
    pub memory: Option<String>,
    /// Disk for jobs, such as 50GiB [default: nine tenths of what is free]
    #[arg(long, env = "MODCHAIN_AGENT_DISK", value_name = "SIZE")]
    pub disk: Option<String>,
    /// A label, KEY=VALUE; may be repeated
    #[arg(long = "label", env = "MODCHAIN_AGENT_LABELS", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Kinds of jobs to take: wasm, docker, llm; commas between [default: all that can be run here]
    #[arg(long, env = "MODCHAIN_AGENT_ADAPTERS", value_name = "KINDS", value_delimiter = ',')]
    pub adapters: Vec<String>,
    /// Where the container engine listens, such as unix:///run/docker.sock [default: as $DOCKER_HOST says]
    #[arg(long, env = "MODCHAIN_AGENT_DOCKER_HOST", value_name = "ADDRESS")]
    pub docker_host: Option<String>,
    /// Where the model server listens [default: as $OLLAMA_HOST says, else http://127.0.0.1:11434]
    #[arg(long, env = "MODCHAIN_AGENT_LLM_URL", value_name = "URL")]
    pub llm_url: Option<String>,
    /// The NVIDIA management library [default: libnvidia-ml.so where the system keeps libraries]
    #[arg(long, env = "MODCHAIN_AGENT_NVML_LIBRARY", value_name = "FILE")]
    pub nvml_library: Option<PathBuf>,
    /// Price of a core for an hour [default: 0.03]
    #[arg(long, env = "MODCHAIN_AGENT_PRICE_CORE_HOUR", value_name = "AMOUNT")]
    pub price_core_hour: Option<String>,
    /// Price of a GiB of memory for an hour [default: 0.004]
    #[arg(long, env = "MODCHAIN_AGENT_PRICE_GIB_HOUR", value_name = "AMOUNT")]
    pub price_gib_hour: Option<String>,
    /// The least that a job that ran pays [default: 0.0010]
    #[arg(long, env = "MODCHAIN_AGENT_PRICE_MINIMUM", value_name = "AMOUNT")]
    pub price_minimum: Option<String>,
}

/// Where settings come from: they can be read from there again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// The orchestrator, if a flag says so.
    pub orchestrator: Option<String>,
    /// The identity, likewise.
    pub identity: Option<PathBuf>,
    /// The other flags.
    pub settings: Settings,
    /// The file, if a flag says so.
    pub file: Option<PathBuf>,
}

impl ConfigSource {
    /// Reads everything, what joining left included.
    pub fn load(&self) -> anyhow::Result<Config> {
        let Self { orchestrator, identity, settings, file } = self;
        Config::load(orchestrator.clone(), identity.clone(), settings, file.as_deref())?.with_joined()
    }
}

/// What the owner says about containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerConfig {
    /// Where the engine listens; `None` for its usual place.
    pub host: Option<String>,
    /// Images that jobs may run: names, or beginnings of names that end with `*`.
    pub images: Vec<String>,
    /// Whether an image that is not here may be pulled.
    pub pull: bool,
    /// Largest image that is pulled.
    pub image_bytes_max: u64,
    /// What a job may have beyond the sandbox.
    pub exceptions: Exceptions,
}

impl DockerConfig {
    /// What the executor keeps to.
    pub fn policy(&self) -> DockerPolicy {
        let Self { host: _, images, pull, image_bytes_max, exceptions } = self.clone();
        DockerPolicy { images, pull, image_bytes_max, exceptions }
    }
}

/// What the owner says about language models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlmConfig {
    /// Where the model server listens.
    pub url: String,
    /// Models that jobs may have pulled: names, or beginnings of names that end with `*`.
    pub pullable: Vec<Text<256>>,
    /// How long a model stays in memory after a job; `None` leaves it to the server.
    pub keep_alive: Option<Span>,
    /// Tokens that prompt and answer may have together; `None` leaves it to the model and the server.
    pub context_tokens: Option<u32>,
}

impl LlmConfig {
    /// What the executor keeps to.
    pub fn policy(&self) -> LlmPolicy {
        let Self { url: _, pullable, keep_alive, context_tokens } = self.clone();
        LlmPolicy { pullable, keep_alive, context_tokens }
    }
}

/// What the owner says about GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuConfig {
    /// Which ones jobs may have.
    pub offer: GpuOffer,
    /// The management library; `None` for its usual place.
    pub library: Option<PathBuf>,
}

/// Which GPUs jobs may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuOffer {
    /// Every one.
    All,
    /// None.
    Nothing,
    /// These, as far as they are there.
    These(Vec<GpuName>),
}

/// How an owner names a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuName {
    /// By its place among those found, from 0 on.
    Index(usize),
    /// By its UUID.
    Uuid(Text<64>),
}

impl GpuOffer {
    /// Whether the GPU that was found at this place may be had.
    pub fn includes(&self, place: usize, uuid: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::These(names) => names.iter().any(|name| match name {
                GpuName::Index(index) => *index == place,
                GpuName::Uuid(named) => named.as_str() == uuid,
            }),
        }
    }
}

/// All settings, flags and file joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// Host and port of the orchestrator.
    pub orchestrator: Option<String>,
    /// The folder of the node's key and certificates.
    pub identity: Option<PathBuf>,
    /// Where everything is kept; if nobody said where, below which each node has a folder of its own.
    pub data: PathBuf,
    /// Whether somebody said where.
    pub data_given: bool,
    /// What joining left, see [`Config::with_joined`].
    pub joined: Option<Joined>,
    /// Kinds of jobs that the owner allows; offered are those of them that can be run here.
    pub adapters: BTreeSet<Adapter>,
    /// What was allowed when the agent started, and is looked for since.
    begun: Begun,
    /// About containers.
    pub docker: DockerConfig,
    /// About language models.
    pub llm: LlmConfig,
    /// About GPUs.
    pub gpus: GpuConfig,
    region: Text<64>,
    slots: Option<u32>,
    cpu_milli: Option<u32>,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    labels: Map<Text<64>, Text<256>, 64>,
    tariff: Tariff,
}

/// What the agent has an executor or a watch for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Begun {
    adapters: BTreeSet<Adapter>,
    gpus: bool,
}

impl Begun {
    fn has(&self, adapter: Adapter) -> bool {
        adapter == Adapter::Wasm || self.adapters.contains(&adapter)
    }
}

impl Config {
    /// Joins the flags (and environment variables) with the file at `path`, or with the default file if there is one.
    ///
    /// Errors name the file and the line, or the flag, and what would be right.
    pub fn load(
        orchestrator: Option<String>,
        identity: Option<PathBuf>,
        settings: &Settings,
        path: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let path = path.map(Path::to_owned).or_else(|| default_file().filter(|path| path.exists()));
        let file = match &path {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
                File::read(&text).map_err(|error| anyhow!("{}:{error}", path.display()))?
            }
            None => File::default(),
        };
        Ok(Self { file: path, ..Self::join(orchestrator, identity, settings, file)? })
    }

    fn join(
        orchestrator: Option<String>,
        identity: Option<PathBuf>,
        settings: &Settings,
        file: File,
    ) -> anyhow::Result<Self> {
        let mut labels = file.labels.0;
        for label in settings.labels.iter().filter(|label| !label.is_empty()) {
            let (key, value) = read_label(label).map_err(|why| anyhow!("--label {label}: {why}"))?;
            labels.insert(key, value);
        }
        let flag = |name: &str, text: &Option<String>, file: Option<Micro>, default: u64| match text {
            Some(text) => text.parse().map_err(|error| anyhow!("{name}: {error}")),
            None => Ok(file.unwrap_or(Micro(default))),
        };
        let amount = |amount: Option<Amount>| amount.map(|amount| amount.0);
        let tariff = Tariff {
            core_hour: flag("--price-core-hour", &settings.price_core_hour, amount(file.prices.core_hour), 30_000)?,
            gib_hour: flag("--price-gib-hour", &settings.price_gib_hour, amount(file.prices.gib_hour), 4_000)?,
            gpu_hour: match file.prices.gpu_hour {
                Some(prices) => prices.0,
                None => Map::new(BTreeMap::from([(Text::cut("*"), Micro::UNIT)])).expect("one entry fits"),
            },
            million_prompt_tokens: amount(file.prices.million_prompt_tokens).unwrap_or(Micro(100_000)),
            million_output_tokens: amount(file.prices.million_output_tokens).unwrap_or(Micro(400_000)),
            minimum: flag("--price-minimum", &settings.price_minimum, amount(file.prices.minimum), 1_000)?,
        };
        let cpu_milli = settings.cpus.as_deref().map(read_cores).transpose().map_err(|why| anyhow!("--cpus: {why}"))?;
        let memory = settings.memory.as_deref().map(read_size).transpose().map_err(|why| anyhow!("--memory: {why}"))?;
        let disk = settings.disk.as_deref().map(read_size).transpose().map_err(|why| anyhow!("--disk: {why}"))?;
        let slots = settings.slots.map(check_slots).transpose().map_err(|why| anyhow!("--slots: {why}"))?;
        let adapters = match settings.adapters.as_slice() {
            [] => file.adapters.map(|adapters| adapters.0),
            words => Some(read_adapters(words.iter().map(String::as_str)).map_err(|why| anyhow!("--adapters: {why}"))?),
        };
        let docker_host = settings.docker_host.clone().or(file.docker.host);
        let docker = DockerConfig {
            host: docker_host.or_else(|| std::env::var("DOCKER_HOST").ok()).filter(|host| !host.is_empty()),
            images: file.docker.images.map_or_else(|| vec!["*".to_owned()], |images| images.0),
            pull: file.docker.pull.unwrap_or(true),
            image_bytes_max: file.docker.image_size_max.map_or(IMAGE_BYTES_MAX, |size| size.0),
            exceptions: Exceptions {
                writable_root: file.docker.writable_root.unwrap_or(false),
                network: file.docker.network.unwrap_or(false),
            },
        };
        if let Some(url) = &settings.llm_url {
            check_url(url).map_err(|why| anyhow!("--llm-url: {why}"))?;
        }
        let llm = LlmConfig {
            url: settings.llm_url.clone().or(file.llm.url.map(|url| url.0)).unwrap_or_else(usual_llm_url),
            pullable: file.llm.pull.map(|models| models.0).unwrap_or_default(),
            keep_alive: file.llm.keep_alive.map(|span| span.0),
            context_tokens: match file.llm.context_tokens {
                None => Some(CONTEXT_TOKENS_DEFAULT),
                Some(tokens) => (tokens > 0).then_some(tokens),
            },
        };
        let gpus = GpuConfig {
            offer: file.gpus.offer.unwrap_or(GpuOffer::All),
            library: settings.nvml_library.clone().or(file.gpus.library),
        };
        let region = settings.region.clone().map(Text::new).transpose().context("--region")?;
        let adapters = adapters.unwrap_or_else(every_adapter);
        Ok(Self {
            file: None,
            begun: Begun { adapters: adapters.clone(), gpus: gpus.offer != GpuOffer::Nothing },
            adapters,
            docker,
            llm,
            gpus,
            orchestrator: orchestrator.or(file.orchestrator),
            identity: identity.or(file.identity),
            data_given: settings.data.is_some() || file.data.is_some(),
            data: settings.data.clone().or(file.data).map_or_else(default_data, Ok)?,
            joined: None,
            region: region.or(file.region).unwrap_or_default(),
            slots: slots.or(file.limits.slots.map(|slots| slots.0)),
            cpu_milli: cpu_milli.or(file.limits.cpus.map(|cores| cores.0)),
            memory_bytes: memory.or(file.limits.memory.map(|size| size.0)),
            disk_bytes: disk.or(file.limits.disk.map(|size| size.0)),
            labels: Map::new(labels).context("labels")?,
            tariff,
        })
    }

    /// Where the data of a running agent is, by the same rules. A file that is not in order does not matter here: whoever
    /// mends it must be able to ask the agent that runs, and to stop it.
    pub fn running_data(settings: &Settings, path: Option<&Path>) -> anyhow::Result<PathBuf> {
        if let Some(data) = &settings.data {
            return Ok(data.clone());
        }
        let text = path.map(Path::to_owned).or_else(default_file).and_then(|path| std::fs::read_to_string(path).ok());
        text.and_then(|text| file::data_alone(&text)).map_or_else(default_data, Ok)
    }

    /// With what joining left below the data folder, for where nobody says otherwise.
    pub fn with_joined(mut self) -> anyhow::Result<Self> {
        self.joined = Joined::read(&self.data).context("failed to read what joining left")?;
        if let Some(joined) = &self.joined {
            self.orchestrator.get_or_insert_with(|| joined.orchestrator.clone());
            self.identity.get_or_insert_with(|| identity_dir(&self.data));
        }
        Ok(self)
    }

    /// What this machine offers under these settings.
    ///
    /// Fails when the owner promises more than the machine has.
    pub fn offer(&self, machine: &Machine, findings: &Findings, paused: bool) -> anyhow::Result<Offer> {
        let cores_milli = machine.cores.saturating_mul(1000);
        let reserve = (machine.memory_bytes / 10).max(MEMORY_RESERVE_BYTES).min(machine.memory_bytes / 2);
        let cpu_milli = self.cpu_milli.unwrap_or(cores_milli);
        let memory_bytes = self.memory_bytes.unwrap_or(machine.memory_bytes - reserve);
        if cpu_milli > cores_milli {
            bail!("{} cores are offered, and this machine has {}", f64::from(cpu_milli) / 1000.0, machine.cores);
        }
        if memory_bytes > machine.memory_bytes {
            bail!("{memory_bytes} bytes of memory are offered, and this machine has {}", machine.memory_bytes);
        }
        let docker = findings.docker.as_ref().filter(|_| self.adapters.contains(&Adapter::Docker));
        let models = findings.models.as_ref().filter(|_| self.adapters.contains(&Adapter::Llm));
        let wasm = self.adapters.contains(&Adapter::Wasm).then_some(Adapter::Wasm);
        let adapters = [wasm, docker.map(|_| Adapter::Docker), models.map(|_| Adapter::Llm)];
        // An owner's wish that the engine cannot fulfil is no offer, and neither is what the engine can and the owner forbids.
        let exceptions = docker.map(|docker| Exceptions {
            writable_root: docker.exceptions.writable_root && self.docker.exceptions.writable_root,
            network: docker.exceptions.network && self.docker.exceptions.network,
        });
        let capabilities = Capabilities {
            adapters: List::cut(adapters.into_iter().flatten().collect()),
            cpu_milli,
            memory_bytes,
            disk_bytes: self.disk_bytes.unwrap_or(machine.disk_free_bytes / 10 * 9),
            slots: self.slots.unwrap_or(machine.cores.saturating_mul(2).clamp(1, SLOTS_MAX)),
            gpus: List::cut(self.gpus_offered(findings)),
            models: List::cut(models.cloned().unwrap_or_default()),
            pullable: List::cut(models.map(|_| self.llm.pullable.clone()).unwrap_or_default()),
            exceptions: exceptions.unwrap_or_default(),
            container_gpus: docker.is_some_and(|docker| docker.gpus),
            labels: self.labels.clone(),
            region: self.region.clone(),
        };
        let agent_version = Text::cut(env!("CARGO_PKG_VERSION"));
        let images = List::cut(docker.map(|docker| docker.images.clone()).unwrap_or_default());
        Ok(Offer { capabilities, tariff: self.tariff.clone(), agent_version, paused, images })
    }

    /// The GPUs that jobs may have: those that the owner gives.
    pub fn gpus_offered(&self, findings: &Findings) -> Vec<GpuInfo> {
        let places = findings.gpus.iter().enumerate();
        places.filter(|(place, gpu)| self.gpus.offer.includes(*place, &gpu.uuid)).map(|(_, gpu)| gpu.clone()).collect()
    }

    /// Where this node's own data is: in the folder that somebody named, or in one of its own below the usual one.
    pub fn node_data(&self, node: NodeId) -> PathBuf {
        if self.data_given { self.data.clone() } else { self.data.join(node.to_string()) }
    }

    /// What of a new configuration cannot be taken up while the agent runs, by the names of its settings.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let added = |adapter| new.adapters.contains(&adapter) && !self.begun.has(adapter);
        [
            ("orchestrator", self.orchestrator != new.orchestrator),
            ("identity", self.identity != new.identity),
            ("data", self.data != new.data),
            ("adapters", added(Adapter::Docker) || added(Adapter::Llm)),
            ("docker.host", self.docker.host != new.docker.host),
            ("llm.url", self.llm.url != new.llm.url),
            ("gpus.library", self.gpus.library != new.gpus.library),
            ("gpus.offer", new.gpus.offer != GpuOffer::Nothing && !self.begun.gpus),
        ]
        .into_iter()
        .filter_map(|(name, changed)| changed.then_some(name))
        .collect()
    }

    /// The new configuration as far as it can be taken up while the agent runs.
    pub fn taken_up(&self, new: Self) -> Self {
        let own = self.clone();
        Self {
            orchestrator: own.orchestrator,
            identity: own.identity,
            data: own.data,
            data_given: own.data_given,
            joined: own.joined,
            // What was not allowed at the start has no executor.
            adapters: new.adapters.iter().copied().filter(|one| own.begun.has(*one)).collect(),
            docker: DockerConfig { host: own.docker.host, ..new.docker },
            llm: LlmConfig { url: own.llm.url, ..new.llm },
            // Nobody looks for them.
            gpus: GpuConfig {
                offer: if own.begun.gpus { new.gpus.offer } else { GpuOffer::Nothing },
                library: own.gpus.library,
            },
            begun: own.begun,
            ..new
        }
    }
}

fn every_adapter() -> BTreeSet<Adapter> {
    BTreeSet::from([Adapter::Wasm, Adapter::Docker, Adapter::Llm])
}

/// As Ollama reads its variable: the scheme, the host or the port may be missing, and the address for everybody is asked on
/// this machine's own.
pub fn llm_url(ollama_host: &str) -> String {
    let host = ollama_host.trim().trim_start_matches("http://").trim_end_matches('/');
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().unwrap_or(OLLAMA_PORT)),
        _ => (host, OLLAMA_PORT),
    };
    let name = if name.is_empty() || name == "0.0.0.0" { OLLAMA_HOST } else { name };
    format!("http://{name}:{port}")
}

fn usual_llm_url() -> String {
    llm_url(&std::env::var("OLLAMA_HOST").unwrap_or_default())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the file is looked for when none is named.
pub fn default_file() -> Option<PathBuf> {
    if let Some(folder) = folder_of_service("CONFIGURATION_DIRECTORY") {
        return Some(folder.join("agent.toml"));
    }
    if is_root() {
        return Some("/etc/modchain/agent.toml".into());
    }
    folder_of_person("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("modchain/agent.toml"))
}

fn default_data() -> anyhow::Result<PathBuf> {
    if let Some(folder) = folder_of_service("STATE_DIRECTORY") {
        return Ok(folder);
    }
    if is_root() {
        return Ok(SERVICE_DATA.into());
    }
    folder_of_person("XDG_STATE_HOME", ".local/state")
        .map(|folder| folder.join("modchain/agent"))
        .ok_or_else(|| anyhow!("HOME is not set: say where to keep data with --data DIR"))
}

/// The folder that systemd has made for its service.
fn folder_of_service(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// By the XDG rules: the variable if it is an absolute path, else below the home folder.
fn folder_of_person(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::DockerFound;
    use modchain_types::ImageMark;

    const MACHINE: Machine = Machine { cores: 4, memory_bytes: 16 * GIB, disk_free_bytes: 100 * GIB };

    fn load(settings: &Settings, text: &str) -> anyhow::Result<Config> {
        let settings = Settings { data: Some("/data".into()), ..settings.clone() };
        let file = File::read(text).map_err(|error| anyhow!("agent.toml:{error}"))?;
        Config::join(None, None, &settings, file)
    }

    #[test]
    fn the_defaults_offer_the_machine_less_a_reserve() {
        let offer = load(&Settings::default(), "")
            .expect("loads")
            .offer(&MACHINE, &Findings::default(), false)
            .expect("offers");
        let capabilities = &offer.capabilities;
        assert_eq!((capabilities.cpu_milli, capabilities.slots), (4000, 8));
        assert_eq!(capabilities.memory_bytes, 16 * GIB - 16 * GIB / 10);
        assert_eq!(capabilities.disk_bytes, 100 * GIB / 10 * 9);
        assert_eq!(&*capabilities.adapters, [Adapter::Wasm]);
        assert_eq!((offer.tariff.core_hour, offer.tariff.minimum), (Micro(30_000), Micro(1_000)));
        let small = Machine { cores: 100, memory_bytes: GIB / 2, disk_free_bytes: 0 };
        let small =
            load(&Settings::default(), "").expect("loads").offer(&small, &Findings::default(), false).expect("offers");
        assert_eq!((small.capabilities.memory_bytes, small.capabilities.slots), (GIB / 4, SLOTS_MAX));
    }

    #[test]
    fn the_file_is_read_and_flags_go_before_it() {
        let text = r#"
            orchestrator = "pool:7443"
            region = "eu"
            [prices]
            core_hour = "0.05"
            minimum = "0"
            [prices.gpu_hour]
            "H100" = "2.50"
            [limits]
            slots = 3
            cpus = 2
            memory = "1GiB"
            [labels]
            pool = "a"
            tier = "gold"
        "#;
        let plain = load(&Settings::default(), text).expect("loads");
        assert_eq!(plain.orchestrator.as_deref(), Some("pool:7443"));
        let offer = plain.offer(&MACHINE, &Findings::default(), false).expect("offers");
        assert_eq!((offer.tariff.core_hour, offer.tariff.minimum), (Micro(50_000), Micro::ZERO));
        assert_eq!(offer.tariff.gpu_hour.get(&Text::cut("H100")), Some(&Micro(2_500_000)));
        assert_eq!((offer.capabilities.slots, offer.capabilities.cpu_milli), (3, 2000));
        let flags = Settings {
            region: Some("us".into()),
            slots: Some(5),
            cpus: Some("1.5".into()),
            labels: vec!["pool=b".into()],
            price_core_hour: Some("0.07".into()),
            ..Settings::default()
        };
        let offer = load(&flags, text).expect("loads").offer(&MACHINE, &Findings::default(), false).expect("offers");
        assert_eq!((offer.capabilities.slots, offer.capabilities.cpu_milli), (5, 1500));
        assert_eq!((offer.capabilities.region.as_str(), offer.tariff.core_hour), ("us", Micro(70_000)));
        assert_eq!(offer.capabilities.labels.get(&Text::cut("pool")), Some(&Text::cut("b")));
        assert_eq!(offer.capabilities.labels.get(&Text::cut("tier")), Some(&Text::cut("gold")));
    }

    #[test]
    fn what_joining_left_is_used_where_nobody_says_otherwise() {
        let dir = tempfile::tempdir().expect("directory");
        let data = dir.path();
        std::fs::write(
            data.join("joined.json"),
            r#"{"format":1,"orchestrator":"joined:7443","join":"joined:7444","name":"n","pool":"p","account":"a",
                "trust_domain":"d","token":"aaaaaaaa"}"#,
        )
        .expect("writes");
        let load = |orchestrator: Option<&str>, text: &str| {
            let settings = Settings { data: Some(data.into()), ..Settings::default() };
            let file = File::read(text).expect("reads");
            let config = Config::join(orchestrator.map(str::to_owned), None, &settings, file).expect("loads");
            let config = config.with_joined().expect("reads");
            (config.orchestrator.expect("is known"), config.identity.expect("is known"))
        };
        assert_eq!(load(None, ""), ("joined:7443".into(), data.join("identity")));
        let file = "orchestrator = \"file:1\"\nidentity = \"/file\"";
        assert_eq!(load(None, file), ("file:1".into(), "/file".into()));
        assert_eq!(load(Some("flag:1"), file), ("flag:1".into(), "/file".into()));
        std::fs::remove_file(data.join("joined.json")).expect("removes");
        let settings = Settings { data: Some(data.into()), ..Settings::default() };
        let config = Config::join(None, None, &settings, File::default()).expect("loads").with_joined().expect("loads");
        assert_eq!((config.orchestrator, config.identity), (None, None));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("region = \"eu\"\nreigon = \"x\"", "agent.toml:2: unknown field `reigon`"),
            ("[prices]\ncore_hour = \"-1\"", "agent.toml:2: `-1` is negative"),
            ("[prices]\n\ncore_hour = 0.03", "agent.toml:3: invalid type: floating point `0.03`, expected a string"),
            ("[limits]\nslots = 0", "agent.toml:2: 0 slots: write 1 to 48"),
            ("[limits]\nmemory = \"12 parsecs\"", "agent.toml:2: `12 parsecs` is not a size"),
            ("[limits]\ncpus = \"x\"", "agent.toml:2: `x` is not a number of cores"),
            ("[labels]\npool = \"a b\"", "label `pool` may hold"),
            ("adapters = [\"wasm\", \"java\"]", "agent.toml:1: `java` is not a kind of job"),
            ("adapters = []", "agent.toml:1: no kind of job"),
            ("[docker]\nimages = [\"a*b\"]", "agent.toml:2: `a*b` is not a name, nor the beginning of one"),
            ("[docker]\nimage_size_max = \"1 parsec\"", "agent.toml:2: `1 parsec` is not a size"),
            ("[llm]\nurl = \"https://models\"", "agent.toml:2: `https://models` is not the address of a model server"),
            ("[llm]\npull = [\"\"]", "agent.toml:2: `` is not a name"),
            ("[llm]\n\nkeep_alive = \"soon\"", "agent.toml:3: `soon` is not a duration"),
            (
                "[gpus]\noffer = \"some\"",
                "agent.toml:2: invalid type: string \"some\", expected true, false, or a list",
            ),
            ("[gpus]\noffer = [0, \"\"]", "agent.toml:2: `` is neither the number nor the UUID"),
            ("region = ", "agent.toml:1: "),
        ] {
            let error = load(&Settings::default(), text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let flags = Settings { price_minimum: Some("1e3".into()), ..Settings::default() };
        let error = load(&flags, "").expect_err("not an amount").to_string();
        assert!(error.starts_with("--price-minimum: `1e3` is not an amount"), "{error}");
    }

    fn gpu(uuid: &str) -> GpuInfo {
        GpuInfo {
            uuid: Text::cut(uuid),
            vendor: Text::cut("nvidia"),
            model: Text::cut("H100"),
            memory_bytes: 80 * GIB,
            driver: Text::default(),
            compute: Text::default(),
        }
    }

    fn everything_found() -> Findings {
        let model = modchain_types::ModelInfo {
            name: Text::cut("smollm2:135m"),
            digest: Text::default(),
            bytes: 1,
            warm: false,
        };
        let exceptions = Exceptions { writable_root: true, network: true };
        Findings {
            docker: Some(DockerFound {
                version: "20.10".into(),
                exceptions,
                gpus: true,
                images: vec![ImageMark::of("alpine:3")],
            }),
            models: Some(vec![model]),
            gpus: vec![gpu("GPU-a"), gpu("GPU-b"), gpu("GPU-c")],
        }
    }

    #[test]
    fn offered_is_what_is_found_and_allowed() {
        let offer = |text: &str, findings: &Findings| {
            let config = load(&Settings::default(), text).expect("loads");
            config.offer(&MACHINE, findings, false).expect("offers").capabilities
        };
        let found = everything_found();
        let images = |text: &str| {
            let config = load(&Settings::default(), text).expect("loads");
            config.offer(&MACHINE, &found, false).expect("offers").images.len()
        };
        assert_eq!((images(""), images("adapters = [\"wasm\"]")), (1, 0));
        let all = offer("", &found);
        assert_eq!(&*all.adapters, [Adapter::Wasm, Adapter::Docker, Adapter::Llm]);
        assert_eq!((all.gpus.len(), all.models.len(), all.pullable.len()), (3, 1, 0));
        assert_eq!(all.exceptions, Exceptions::default(), "nothing beyond the sandbox unless the owner says so");
        assert_eq!(&*offer("", &Findings::default()).adapters, [Adapter::Wasm]);

        let text = "[docker]\nnetwork = true\n[llm]\npull = [\"smollm2:*\"]";
        let some = offer(text, &found);
        assert_eq!(some.exceptions, Exceptions { network: true, writable_root: false });
        assert!(some.may_pull("smollm2:360m") && !some.may_pull("llama3"));
        let away = offer(text, &Findings::default());
        assert!(away.pullable.is_empty() && away.exceptions == Exceptions::default(), "nobody is here to do it");

        let wasm = offer("adapters = [\"wasm\"]", &found);
        assert_eq!(&*wasm.adapters, [Adapter::Wasm]);
        assert!(wasm.models.is_empty() && wasm.exceptions == Exceptions::default());
        let flag = Settings { adapters: vec!["llm".into()], ..Settings::default() };
        let llm = load(&flag, "adapters = [\"wasm\"]").expect("loads").offer(&MACHINE, &found, true).expect("offers");
        assert_eq!(&*llm.capabilities.adapters, [Adapter::Llm], "the flag goes before the file");
        assert!(llm.paused);
    }

    #[test]
    fn gpus_are_chosen_by_number_and_by_uuid() {
        let offered = |text: &str, findings: &Findings| -> Vec<String> {
            let config = load(&Settings::default(), text).expect("loads");
            config.gpus_offered(findings).iter().map(|gpu| gpu.uuid.to_string()).collect()
        };
        let mut found = everything_found();
        for (text, expected) in [
            ("", &["GPU-a", "GPU-b", "GPU-c"][..]),
            ("[gpus]\noffer = true", &["GPU-a", "GPU-b", "GPU-c"]),
            ("[gpus]\noffer = false", &[]),
            ("[gpus]\noffer = []", &[]),
            ("[gpus]\noffer = [2, \"GPU-a\", 7]", &["GPU-a", "GPU-c"]),
        ] {
            assert_eq!(offered(text, &found), expected, "{text}");
        }
        // Whether a container can be given one is said apart.
        let said = |found: &Findings| {
            let config = load(&Settings::default(), "").expect("loads");
            config.offer(&MACHINE, found, false).expect("offers").capabilities.container_gpus
        };
        assert!(said(&found));
        found.docker = found.docker.map(|docker| DockerFound { gpus: false, ..docker });
        assert!(!said(&found));
        found.docker = None;
        assert!(!said(&found));
        assert_eq!(offered("", &found).len(), 3);
    }

    #[test]
    fn a_new_file_changes_what_can_be_changed_and_names_what_cannot() {
        let old = load(&Settings::default(), "adapters = [\"wasm\", \"llm\"]\norchestrator = \"a:1\"").expect("loads");
        let text = "adapters = [\"docker\", \"wasm\"]\norchestrator = \"b:2\"\n[docker]\nhost = \"unix:///x\"\n\
                    [prices]\nminimum = \"1\"\n[llm]\nurl = \"http://x:1\"\npull = [\"*\"]\n[gpus]\nlibrary = \"/x\"";
        let new = load(&Settings::default(), text).expect("loads");
        assert_eq!(old.needs_restart(&new), ["orchestrator", "adapters", "docker.host", "llm.url", "gpus.library"]);
        let taken_up = old.taken_up(new.clone());
        assert_eq!(taken_up.orchestrator.as_deref(), Some("a:1"));
        assert_eq!(taken_up.adapters, BTreeSet::from([Adapter::Wasm]), "docker has no executor, llm is forbidden now");
        assert_eq!((taken_up.tariff.minimum, taken_up.llm.pullable.len()), (Micro::UNIT, 1));
        assert_eq!((&taken_up.llm.url, &taken_up.gpus.library), (&old.llm.url, &None));
        assert!(taken_up.needs_restart(&taken_up).is_empty());
    }

    #[test]
    fn what_was_taken_away_can_be_given_back_and_what_was_never_looked_for_cannot() {
        let load = |text: &str| load(&Settings::default(), text).expect("loads");
        let all = load("adapters = [\"wasm\", \"docker\"]");
        let less = all.taken_up(load("adapters = [\"wasm\"]\n[gpus]\noffer = false"));
        assert_eq!((less.adapters.len(), &less.gpus.offer), (1, &GpuOffer::Nothing));
        assert!(less.needs_restart(&all).is_empty(), "executors and watches are there still");
        let again = less.taken_up(all.clone());
        assert_eq!((&again.adapters, &again.gpus.offer), (&all.adapters, &GpuOffer::All));

        let without = load("[gpus]\noffer = false");
        assert_eq!(without.needs_restart(&all), ["gpus.offer"]);
        let still = without.taken_up(all.clone());
        assert_eq!(still.gpus.offer, GpuOffer::Nothing);
        assert_eq!(still.needs_restart(&all), ["gpus.offer"], "said again the next time");
    }

    #[test]
    fn ollamas_variable_is_read_as_ollama_reads_it() {
        for (host, expected) in [
            ("", "http://127.0.0.1:11434"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            (":8080", "http://127.0.0.1:8080"),
            ("http://10.0.0.7:11434/", "http://10.0.0.7:11434"),
            ("box", "http://box:11434"),
            ("[::1]", "http://[::1]:11434"),
            ("[::1]:99", "http://[::1]:99"),
        ] {
            assert_eq!(llm_url(host), expected, "{host}");
        }
    }

    #[test]
    fn a_running_agent_is_found_though_its_file_is_not_in_order() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("agent.toml");
        let found = |settings: &Settings, text: &str| {
            std::fs::write(&file, text).expect("writes");
            Config::running_data(settings, Some(&file)).expect("finds")
        };
        let none = Settings::default();
        assert_eq!(found(&none, "mistake = 1\ndata = \"/srv/a\"\n[limits]\nslots = 0\n"), Path::new("/srv/a"));
        let named = Settings { data: Some("/named".into()), ..Settings::default() };
        assert_eq!(found(&named, "data = \"/srv/a\""), Path::new("/named"));
        assert_eq!(found(&none, "data = "), default_data().expect("is known"));
    }

    #[test]
    fn nobody_can_offer_more_than_there_is() {
        let greedy = |flags: Settings| {
            load(&flags, "")
                .expect("loads")
                .offer(&MACHINE, &Findings::default(), false)
                .expect_err("refuses")
                .to_string()
        };
        let cores = greedy(Settings { cpus: Some("4.5".into()), ..Settings::default() });
        assert_eq!(cores, "4.5 cores are offered, and this machine has 4");
        let memory = greedy(Settings { memory: Some("17GiB".into()), ..Settings::default() });
        assert!(memory.ends_with("and this machine has 17179869184"), "{memory}");
    }

    #[test]
    fn sizes_and_cores_are_read_exactly() {
        for (text, bytes) in [("1", 1), ("512MiB", 512 << 20), ("12 GiB", 12 * GIB), ("2TB", 2_000_000_000_000)] {
            assert_eq!(read_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "0", "99999999999TiB", "1XB"] {
            assert!(read_size(text).is_err(), "{text}");
        }
        for (text, milli) in [("4", 4000), ("0.5", 500), ("1.125", 1125)] {
            assert_eq!(read_cores(text), Ok(milli), "{text}");
        }
        for text in ["", "0", ".5", "1.0005", "-1", "1e3", "9999999999"] {
            assert!(read_cores(text).is_err(), "{text}");
        }
    }
}
