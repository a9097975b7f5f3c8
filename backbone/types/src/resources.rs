//! What machines have and what jobs ask for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded::{List, Map, Text};
use crate::id::Name;
use crate::money::Micro;

/// The kind of executor that runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Adapter {
    /// A WebAssembly module.
    Wasm,
    /// A container.
    Docker,
    /// A language model.
    Llm,
    /// A tool server.
    Mcp,
}

impl Adapter {
    /// The word used in commands, job files and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Docker => "docker",
            Self::Llm => "llm",
            Self::Mcp => "mcp",
        }
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One GPU of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// The vendor's own unique id; what is allocated.
    pub uuid: Text<64>,
    /// `nvidia`.
    pub vendor: Text<32>,
    /// As the driver names it, such as `NVIDIA H100 80GB HBM3`.
    pub model: Text<64>,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Version of the driver.
    pub driver: Text<32>,
    /// Compute capability, such as `9.0`; empty where the driver does not tell.
    pub compute: Text<16>,
}

/// One language model that a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// `NAME:TAG`.
    pub name: Text<256>,
    /// SHA-256 of its manifest, in hexadecimal.
    pub digest: Text<64>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether it is in memory now.
    pub warm: bool,
}

/// How near a language model is to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ModelPlace {
    /// In memory: it answers at once.
    Warm,
    /// On disk: it is loaded first.
    Cold,
    /// Elsewhere: its owner lets it be pulled first.
    Pull,
}

impl ModelPlace {
    /// The word used on screens and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Pull => "pull",
        }
    }
}

/// What the sandbox of containers keeps from every job unless the node's owner allows it and the client asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Exceptions {
    /// Writing to the container's own root file system.
    pub writable_root: bool,
    /// A network.
    pub network: bool,
}

impl Exceptions {
    /// Whether everything asked for in `wanted` is allowed here.
    pub fn allow(self, wanted: Self) -> bool {
        (self.writable_root || !wanted.writable_root) && (self.network || !wanted.network)
    }
}

/// What a node can do, as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Executors that are ready.
    pub adapters: List<Adapter, 16>,
    /// Thousandths of a core that jobs may reserve.
    pub cpu_milli: u32,
    /// Bytes of memory that jobs may reserve.
    pub memory_bytes: u64,
    /// Bytes of scratch disk that jobs may reserve.
    pub disk_bytes: u64,
    /// Attempts that may be live at once.
    pub slots: u32,
    /// GPUs that jobs may reserve.
    pub gpus: List<GpuInfo, 64>,
    /// Language models that are there.
    pub models: List<ModelInfo, 256>,
    /// Language models that the owner lets jobs have pulled: names, or beginnings of names that end with `*`.
    pub pullable: List<Text<256>, 64>,
    /// What the owner allows containers.
    pub exceptions: Exceptions,
    /// Whether the container engine can give containers GPUs.
    pub container_gpus: bool,
    /// The owner's labels; `pool` is one of them.
    pub labels: Map<Text<64>, Text<256>, 64>,
    /// Where the node is, in the owner's words.
    pub region: Text<64>,
}

impl Capabilities {
    /// Attempts that may be live on one node at most, whatever it says: those that an inventory has room for.
    pub const ATTEMPTS_MAX: u32 = 4096;

    /// Attempts that may be live at once.
    pub fn attempts_max(&self) -> u32 {
        self.slots.min(Self::ATTEMPTS_MAX)
    }

    /// The model of this name, if it is there.
    pub fn model(&self, name: &str) -> Option<&ModelInfo> {
        self.models.iter().find(|model| *model.name == *name)
    }

    /// Whether the model of this name is there.
    pub fn holds(&self, name: &str) -> bool {
        self.model(name).is_some()
    }

    /// Whether the owner lets the model of this name be pulled, see [`may_pull`].
    pub fn may_pull(&self, name: &str) -> bool {
        may_pull(&self.pullable, name)
    }

    /// How near the model of this name is; `None` where no job can have it.
    pub fn place_of(&self, name: &str) -> Option<ModelPlace> {
        match self.model(name) {
            Some(model) if model.warm => Some(ModelPlace::Warm),
            Some(_) => Some(ModelPlace::Cold),
            None => self.may_pull(name).then_some(ModelPlace::Pull),
        }
    }
}

/// Whether one of these patterns, names or beginnings of names that end with `*`, allows the model of this name to be pulled.
///
/// `HOST/NAMESPACE/NAME` has a model server connect to that host, so a pattern must name it in full: `*` is every model of the
/// server's own registry and no other.
pub fn may_pull(patterns: &[Text<256>], model: &str) -> bool {
    let host = match model.splitn(3, '/').collect::<Vec<_>>()[..] {
        [host, _, _] => Some(host),
        _ => None,
    };
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => {
            let names_host = |host: &str| beginning.strip_prefix(host).is_some_and(|rest| rest.starts_with('/'));
            model.starts_with(beginning) && host.is_none_or(names_host)
        }
        None => **pattern == *model,
    })
}

/// GPUs that a job asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GpuRequest {
    /// How many; zero asks for none and makes the rest void.
    pub count: u32,
    /// Least memory of each, in bytes.
    pub memory_bytes_min: u64,
    /// A part of the model's name, any case.
    pub model: Option<Text<64>>,
}

/// What a job needs of a node. Jobs with equal requirements form one class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirements {
    /// Which executor.
    pub adapter: Adapter,
    /// Thousandths of a core, at least 1.
    pub cpu_milli: u32,
    /// Bytes of memory: reserved, and the job's limit.
    pub memory_bytes: u64,
    /// Bytes of scratch disk.
    pub disk_bytes: u64,
    /// GPUs.
    pub gpus: GpuRequest,
    /// Labels the node must carry with just these values.
    pub labels: LabelPairs,
    /// Region the node must be in.
    pub region: Option<Text<64>>,
    /// The one node to use.
    pub node: Option<Name>,
    /// The highest price per hour for the whole reservation.
    pub price_per_hour_max: Option<Micro>,
    /// The language model, `NAME:TAG`.
    pub model: Option<Text<256>>,
    /// What a container asks for beyond the sandbox.
    pub exceptions: Exceptions,
}

/// Required labels in order of their keys.
pub type LabelPairs = Vec32<(Text<64>, Text<256>)>;

/// A list of at most 32 items that can be ordered, for use in keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vec32<T>(Vec<T>);

impl<T: Ord> Vec32<T> {
    /// Takes the items, sorts them and drops repetitions.
    pub fn new(mut items: Vec<T>) -> Result<Self, crate::TooLong> {
        items.sort();
        items.dedup();
        List::<T, 32>::new(items).map(|list| Self(list.into_vec()))
    }
}

impl<T> std::ops::Deref for Vec32<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize> Serialize for Vec32<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de> + Ord> Deserialize<'de> for Vec32<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = List::<T, 32>::deserialize(deserializer)?.into_vec();
        if items.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(serde::de::Error::custom("items are not in order"));
        }
        Ok(Self(items))
    }
}

/// What an attempt holds on its node while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reservation {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// GPUs by uuid and model.
    pub gpus: List<(Text<64>, Text<64>), 64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(patterns: &[&str], model: &str) -> bool {
        may_pull(&patterns.iter().map(|pattern| Text::cut(*pattern)).collect::<Vec<_>>(), model)
    }

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        for (patterns, model, allowed) in [
            (&[][..], "smollm2:135m", false),
            (&["smollm2:135m"], "smollm2:135m", true),
            (&["smollm2:135m"], "smollm2:135m-fp16", false),
            (&["qwen3:*", "smollm2:*"], "smollm2:1.7b", true),
            (&["smollm2:*"], "smollm3:1.7b", false),
            (&["*"], "library/smollm2", true),
        ] {
            assert_eq!(allows(patterns, model), allowed, "{patterns:?} {model}");
        }
    }

    #[test]
    fn a_host_is_connected_to_only_if_the_owner_named_it() {
        for (patterns, model, allowed) in [
            (&["*"][..], "10.0.0.1:80/a/b:c", false),
            (&["hf*"], "hf.co.evil.example/a/b", false),
            (&["hf.co*"], "hf.co/a/b", false),
            (&["hf.co/*"], "hf.co/a/b:Q4_0", true),
            (&["hf.co/bartowski/*"], "hf.co/bartowski/b", true),
            (&["hf.co/bartowski/*"], "hf.co/else/b", false),
            (&["hf.co/a/b"], "hf.co/a/b", true),
        ] {
            assert_eq!(allows(patterns, model), allowed, "{patterns:?} {model}");
        }
    }
}
