//! What the agent is told: by flags, by `MODCHAIN_AGENT_*`, by a file, by what joining left, in this order; the rest are
//! defaults.
//!
//! ```toml
//! orchestrator = "pool.example:7443"
//! identity = "/var/lib/modchain/agent/identity"
//! region = "eu-west"
//!
//! [prices]                  # in the orchestrator's money, per hour unless it says otherwise
//! core_hour = "0.03"        # a core
//! gib_hour = "0.004"        # a GiB of memory
//! minimum = "0.0010"        # the least that a job that ran pays
//! million_prompt_tokens = "0.10"
//! million_output_tokens = "0.40"
//! [prices.gpu_hour]         # a GPU, by model; "*" is every other
//! "*" = "1.00"
//!
//! [limits]                  # what jobs may use together; less than the machine has
//! slots = 8                 # attempts at once; twice the cores
//! cpus = "4"                # cores; all of them
//! memory = "12GiB"          # all but a tenth, 512 MiB at least (half of a small machine)
//! disk = "50GiB"            # all that is free but a tenth
//!
//! [labels]
//! pool = "default"
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use modchain_types::{Adapter, Capabilities, List, Map, Micro, Offer, Tariff, Text};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::joined::{Joined, identity_dir};
use crate::probe::{Findings, Machine};

/// Most attempts at once, whatever the owner says: the orchestrator's receive window of a connection holds 60 streams, and
/// some are needed beside the attempts'.
pub const SLOTS_MAX: u32 = 48;

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

/// All settings, flags and file joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
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
    region: Text<64>,
    slots: Option<u32>,
    cpu_milli: Option<u32>,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    labels: Map<Text<64>, Text<256>, 64>,
    tariff: Tariff,
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
        let file = match path.map(Path::to_owned).or_else(|| default_file().filter(|path| path.exists())) {
            Some(path) => {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
                File::read(&text).map_err(|error| anyhow!("{}:{error}", path.display()))?
            }
            None => File::default(),
        };
        Self::join(orchestrator, identity, settings, file)
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
        let region = settings.region.clone().map(Text::new).transpose().context("--region")?;
        Ok(Self {
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
        let docker = findings.docker.as_ref();
        let adapters =
            [Some(Adapter::Wasm), docker.map(|_| Adapter::Docker), findings.models.as_ref().map(|_| Adapter::Llm)];
        let capabilities = Capabilities {
            adapters: List::cut(adapters.into_iter().flatten().collect()),
            cpu_milli,
            memory_bytes,
            disk_bytes: self.disk_bytes.unwrap_or(machine.disk_free_bytes / 10 * 9),
            slots: self.slots.unwrap_or(machine.cores.saturating_mul(2).clamp(1, SLOTS_MAX)),
            gpus: List::cut(findings.gpus.clone()),
            models: List::cut(findings.models.clone().unwrap_or_default()),
            pullable: List::default(),
            exceptions: docker.map(|docker| docker.exceptions).unwrap_or_default(),
            labels: self.labels.clone(),
            region: self.region.clone(),
        };
        let agent_version = Text::cut(env!("CARGO_PKG_VERSION"));
        Ok(Offer { capabilities, tariff: self.tariff.clone(), agent_version, paused })
    }
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    orchestrator: Option<String>,
    identity: Option<PathBuf>,
    data: Option<PathBuf>,
    region: Option<Text<64>>,
    #[serde(default)]
    prices: Prices,
    #[serde(default)]
    limits: FileLimits,
    #[serde(default)]
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    core_hour: Option<Amount>,
    gib_hour: Option<Amount>,
    gpu_hour: Option<GpuPrices>,
    million_prompt_tokens: Option<Amount>,
    million_output_tokens: Option<Amount>,
    minimum: Option<Amount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    slots: Option<Slots>,
    cpus: Option<Cores>,
    memory: Option<Size>,
    disk: Option<Size>,
}

#[derive(Debug, Default)]
struct Labels(BTreeMap<Text<64>, Text<256>>);

#[derive(Debug)]
struct GpuPrices(Map<Text<64>, Micro, 64>);

#[derive(Debug, Clone, Copy)]
struct Amount(Micro);

#[derive(Debug, Clone, Copy)]
struct Slots(u32);

#[derive(Debug, Clone, Copy)]
struct Cores(u32);

#[derive(Debug, Clone, Copy)]
struct Size(u64);

/// Reads a value from one of its spellings, so that an error points at the value's own place.
macro_rules! read_with {
    ($name:ident, $spelling:ty, $read:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read: fn($spelling) -> Result<_, String> = $read;
                read(<$spelling>::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
            }
        }
    };
}

read_with!(Amount, String, |text| text.parse::<Micro>().map_err(|error| error.to_string()));
read_with!(Slots, u32, check_slots);
read_with!(Cores, Number, |number| read_cores(&number.0));
read_with!(Size, String, |text| read_size(&text));
read_with!(GpuPrices, BTreeMap<String, Amount>, |prices| {
    let prices: Result<BTreeMap<_, _>, _> =
        prices.into_iter().map(|(model, price)| Text::new(model).map(|model| (model, price.0))).collect();
    prices.and_then(Map::new).map_err(|error| error.to_string())
});
read_with!(Labels, BTreeMap<String, String>, |labels| {
    labels.into_iter().map(|(key, value)| check_label(&key, &value)).collect::<Result<_, _>>()
});

/// A number, with or without quotes.
#[derive(Debug)]
struct Number(String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl serde::de::Visitor<'_> for NumberVisitor {
            type Value = Number;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number such as 4 or \"1.5\"")
            }
            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                Ok(Number(text.to_owned()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number.to_string()))
            }
        }
        deserializer.deserialize_any(NumberVisitor)
    }
}

impl File {
    fn read(text: &str) -> Result<Self, FileError> {
        parse_toml(text)
    }
}

/// What is wrong with a file, and in which line.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {message}")]
struct FileError {
    line: usize,
    message: String,
}

fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, FileError> {
    toml::from_str(text)
        .map_err(|error| FileError { line: line_of(text, error.span()), message: error.message().replace('\n', " ") })
}

/// Lines count from 1.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start.min(text.len()));
    text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn read_label(label: &str) -> Result<(Text<64>, Text<256>), String> {
    let (key, value) = label.split_once('=').ok_or("write KEY=VALUE")?;
    check_label(key, value)
}

fn check_label(key: &str, value: &str) -> Result<(Text<64>, Text<256>), String> {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && c != '=' && c != ',');
    if key.is_empty() || !plain(key) || !plain(value) {
        return Err(format!("label `{key}` may hold printable ASCII but no space, comma or ="));
    }
    let bad = |error: modchain_types::TooLong| format!("label `{key}`: {error}");
    Ok((Text::new(key).map_err(bad)?, Text::new(value).map_err(bad)?))
}

fn check_slots(slots: u32) -> Result<u32, String> {
    match slots {
        1..=SLOTS_MAX => Ok(slots),
        _ => Err(format!("{slots} slots: write 1 to {SLOTS_MAX}")),
    }
}

/// Thousandths of a core.
fn read_cores(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is not a number of cores: write 4 or 1.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    let milli: u32 = format!("{whole}{fraction:0<3}").parse().map_err(|_| bad())?;
    if milli == 0 { Err(bad()) } else { Ok(milli) }
}

/// Bytes, from `512MiB`, `12GiB`, `2TB` or a bare number of bytes.
fn read_size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a size: write 512MiB, 12GiB or 2TB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| bad())?;
    let unit = match text[digits..].trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => GIB,
        "TB" => 1_000_000_000_000,
        "TiB" => GIB << 10,
        _ => return Err(bad()),
    };
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(bad)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn default_file() -> Option<PathBuf> {
    if is_root() {
        return Some("/etc/modchain/agent.toml".into());
    }
    folder_of_person("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("modchain/agent.toml"))
}

fn default_data() -> anyhow::Result<PathBuf> {
    if is_root() {
        return Ok("/var/lib/modchain/agent".into());
    }
    folder_of_person("XDG_STATE_HOME", ".local/state")
        .map(|folder| folder.join("modchain/agent"))
        .ok_or_else(|| anyhow!("HOME is not set: say where to keep data with --data DIR"))
}

/// By the XDG rules: the variable if it is an absolute path, else below the home folder.
fn folder_of_person(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("region = ", "agent.toml:1: "),
        ] {
            let error = load(&Settings::default(), text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let flags = Settings { price_minimum: Some("1e3".into()), ..Settings::default() };
        let error = load(&flags, "").expect_err("not an amount").to_string();
        assert!(error.starts_with("--price-minimum: `1e3` is not an amount"), "{error}");
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
