//! The owner's file as it is written, and how its values are spelt. What is wrong is told with the line that it stands in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use modchain_types::{Adapter, Map, Micro, Span, Text, time::parse_span};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{GIB, GpuName, GpuOffer, MODEL_PATTERNS_MAX, SLOTS_MAX};

/// Most patterns of images: a list that a person can still read.
const IMAGE_PATTERNS_MAX: usize = 256;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub orchestrator: Option<String>,
    pub identity: Option<PathBuf>,
    pub data: Option<PathBuf>,
    pub region: Option<Text<64>>,
    pub adapters: Option<Adapters>,
    #[serde(default)]
    pub prices: Prices,
    #[serde(default)]
    pub limits: FileLimits,
    #[serde(default)]
    pub docker: Docker,
    #[serde(default)]
    pub llm: Llm,
    #[serde(default)]
    pub gpus: Gpus,
    #[serde(default)]
    pub labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prices {
    pub core_hour: Option<Amount>,
    pub gib_hour: Option<Amount>,
    pub gpu_hour: Option<GpuPrices>,
    pub million_prompt_tokens: Option<Amount>,
    pub million_output_tokens: Option<Amount>,
    pub minimum: Option<Amount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLimits {
    pub slots: Option<Slots>,
    pub cpus: Option<Cores>,
    pub memory: Option<Size>,
    pub disk: Option<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Docker {
    pub host: Option<String>,
    pub images: Option<ImagePatterns>,
    pub pull: Option<bool>,
    pub image_size_max: Option<Size>,
    pub writable_root: Option<bool>,
    pub network: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Llm {
    pub url: Option<Url>,
    pub pull: Option<ModelPatterns>,
    pub keep_alive: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gpus {
    pub offer: Option<GpuOffer>,
    pub library: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) struct Adapters(pub BTreeSet<Adapter>);

#[derive(Debug)]
pub(super) struct ImagePatterns(pub Vec<String>);

#[derive(Debug)]
pub(super) struct ModelPatterns(pub Vec<Text<256>>);

#[derive(Debug)]
pub(super) struct Url(pub String);

#[derive(Debug, Clone, Copy)]
pub(super) struct Duration(pub Span);

#[derive(Debug, Default)]
pub(super) struct Labels(pub BTreeMap<Text<64>, Text<256>>);

#[derive(Debug)]
pub(super) struct GpuPrices(pub Map<Text<64>, Micro, 64>);

#[derive(Debug, Clone, Copy)]
pub(super) struct Amount(pub Micro);

#[derive(Debug, Clone, Copy)]
pub(super) struct Slots(pub u32);

#[derive(Debug, Clone, Copy)]
pub(super) struct Cores(pub u32);

#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub u64);

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
read_with!(Adapters, Vec<String>, |words| read_adapters(words.iter().map(String::as_str)));
read_with!(ImagePatterns, Vec<String>, |patterns| {
    if patterns.len() > IMAGE_PATTERNS_MAX {
        return Err(format!("{} patterns: write at most {IMAGE_PATTERNS_MAX}", patterns.len()));
    }
    patterns.into_iter().map(|pattern| check_pattern(&pattern).map(|()| pattern)).collect()
});
read_with!(ModelPatterns, Vec<String>, |patterns| {
    if patterns.len() > MODEL_PATTERNS_MAX {
        return Err(format!("{} patterns: write at most {MODEL_PATTERNS_MAX}", patterns.len()));
    }
    let read = |pattern: String| {
        check_pattern(&pattern)?;
        Text::new(pattern).map_err(|error| error.to_string())
    };
    patterns.into_iter().map(read).collect()
});
read_with!(Url, String, |url| check_url(&url).map(|()| url));
read_with!(Duration, String, |text| parse_span(&text).map_err(|error| error.to_string()));
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
                f.write_str("a number such as 4, or a text")
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

impl<'de> Deserialize<'de> for GpuOffer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfferVisitor;
        impl<'de> serde::de::Visitor<'de> for OfferVisitor {
            type Value = GpuOffer;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false, or a list of numbers and UUIDs of GPUs")
            }
            fn visit_bool<E>(self, all: bool) -> Result<GpuOffer, E> {
                Ok(if all { GpuOffer::All } else { GpuOffer::Nothing })
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut names: A) -> Result<GpuOffer, A::Error> {
                let mut these = Vec::new();
                while let Some(name) = names.next_element::<GpuName>()? {
                    these.push(name);
                }
                Ok(GpuOffer::These(these))
            }
        }
        deserializer.deserialize_any(OfferVisitor)
    }
}

impl<'de> Deserialize<'de> for GpuName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Number(text) = Number::deserialize(deserializer)?;
        read_gpu(&text).map_err(serde::de::Error::custom)
    }
}

impl File {
    pub(super) fn read(text: &str) -> Result<Self, FileError> {
        parse_toml(text)
    }
}

/// The data folder that a file names, whatever else is wrong with it.
pub(super) fn data_alone(text: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct DataAlone {
        data: Option<PathBuf>,
    }
    parse_toml::<DataAlone>(text).ok()?.data
}

/// What is wrong with a file, and in which line.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {message}")]
pub(super) struct FileError {
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

pub(super) fn read_label(label: &str) -> Result<(Text<64>, Text<256>), String> {
    let (key, value) = label.split_once('=').ok_or("write KEY=VALUE")?;
    check_label(key, value)
}

pub(super) fn check_label(key: &str, value: &str) -> Result<(Text<64>, Text<256>), String> {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && c != '=' && c != ',');
    if key.is_empty() || !plain(key) || !plain(value) {
        return Err(format!("label `{key}` may hold printable ASCII but no space, comma or ="));
    }
    let bad = |error: modchain_types::TooLong| format!("label `{key}`: {error}");
    Ok((Text::new(key).map_err(bad)?, Text::new(value).map_err(bad)?))
}

pub(super) fn check_slots(slots: u32) -> Result<u32, String> {
    match slots {
        1..=SLOTS_MAX => Ok(slots),
        _ => Err(format!("{slots} slots: write 1 to {SLOTS_MAX}")),
    }
}

/// Thousandths of a core.
pub(super) fn read_cores(text: &str) -> Result<u32, String> {
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
pub(super) fn read_size(text: &str) -> Result<u64, String> {
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

/// The kinds of jobs that an owner allows.
pub(super) fn read_adapters<'a>(words: impl Iterator<Item = &'a str>) -> Result<BTreeSet<Adapter>, String> {
    let read = |word: &str| {
        let known = [Adapter::Wasm, Adapter::Docker, Adapter::Llm].into_iter().find(|adapter| adapter.word() == word);
        known.ok_or_else(|| format!("`{word}` is not a kind of job: write wasm, docker or llm"))
    };
    let adapters = words.map(read).collect::<Result<BTreeSet<_>, _>>()?;
    if adapters.is_empty() {
        return Err("no kind of job: write at least one of wasm, docker and llm, or use `modchain-agent pause`".into());
    }
    Ok(adapters)
}

/// A name, or the beginning of a name with `*` at its end.
fn check_pattern(pattern: &str) -> Result<(), String> {
    let beginning = pattern.strip_suffix('*').unwrap_or(pattern);
    if pattern.is_empty() || beginning.contains('*') || !beginning.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("`{pattern}` is not a name, nor the beginning of one with `*` at its end"));
    }
    Ok(())
}

/// The model server speaks plain HTTP, and is this machine's or a neighbour's.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    match url.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic()) => Ok(()),
        _ => Err(format!("`{url}` is not the address of a model server: write http://HOST:PORT")),
    }
}

/// By its place among the GPUs, from 0 on, or by its UUID.
fn read_gpu(text: &str) -> Result<GpuName, String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("`{text}` is neither the number nor the UUID of a GPU"));
    }
    match text.parse() {
        Ok(index) => Ok(GpuName::Index(index)),
        Err(_) => Text::new(text).map(GpuName::Uuid).map_err(|error| error.to_string()),
    }
}
