//! What nodes offer and what jobs hold of it.

use modchain_types as t;
use serde::{Deserialize, Serialize};

use super::Result;
use super::job::mirror;

mirror!(Adapter { Wasm, Docker, Llm, Mcp });

#[derive(Serialize, Deserialize)]
pub(super) struct Tariff {
    core_hour: u64,
    gib_hour: u64,
    gpu_hour: Vec<(String, u64)>,
    million_prompt_tokens: u64,
    million_output_tokens: u64,
    minimum: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Reservation {
    cpu_milli: u32,
    memory_bytes: u64,
    disk_bytes: u64,
    gpus: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Gpu {
    uuid: String,
    vendor: String,
    model: String,
    memory_bytes: u64,
    driver: String,
    compute: String,
}

#[derive(Serialize, Deserialize)]
struct Model {
    name: String,
    digest: String,
    bytes: u64,
    warm: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) enum NodeWish {
    Open,
    Cordon,
    Drain { within: Option<u64> },
}

impl From<t::NodeWish> for NodeWish {
    fn from(wish: t::NodeWish) -> Self {
        match wish {
            t::NodeWish::Open => Self::Open,
            t::NodeWish::Cordon => Self::Cordon,
            t::NodeWish::Drain { within } => Self::Drain { within: within.map(|within| within.0) },
        }
    }
}

impl From<NodeWish> for t::NodeWish {
    fn from(wish: NodeWish) -> Self {
        match wish {
            NodeWish::Open => Self::Open,
            NodeWish::Cordon => Self::Cordon,
            NodeWish::Drain { within } => Self::Drain { within: within.map(t::Span) },
        }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Exceptions {
    writable_root: bool,
    network: bool,
}

impl From<t::Exceptions> for Exceptions {
    fn from(exceptions: t::Exceptions) -> Self {
        let t::Exceptions { writable_root, network } = exceptions;
        Self { writable_root, network }
    }
}

impl From<Exceptions> for t::Exceptions {
    fn from(exceptions: Exceptions) -> Self {
        let Exceptions { writable_root, network } = exceptions;
        Self { writable_root, network }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Offer {
    adapters: Vec<Adapter>,
    cpu_milli: u32,
    memory_bytes: u64,
    disk_bytes: u64,
    slots: u32,
    gpus: Vec<Gpu>,
    models: Vec<Model>,
    pullable: Vec<String>,
    exceptions: Exceptions,
    container_gpus: bool,
    labels: Vec<(String, String)>,
    region: String,
    tariff: Tariff,
    agent_version: String,
    end: End,
}

/// Whether it is paused, and what joined the offer later: the first two are the bytes of the flag that they once were, and
/// variants may be appended.
#[derive(Serialize, Deserialize)]
enum End {
    Open,
    Paused,
    OpenWith { images: Vec<[u8; 8]> },
    PausedWith { images: Vec<[u8; 8]> },
}

impl From<&t::Tariff> for Tariff {
    fn from(tariff: &t::Tariff) -> Self {
        let t::Tariff { core_hour, gib_hour, gpu_hour, million_prompt_tokens, million_output_tokens, minimum } = tariff;
        Self {
            core_hour: core_hour.0,
            gib_hour: gib_hour.0,
            gpu_hour: gpu_hour.iter().map(|(model, price)| (model.to_string(), price.0)).collect(),
            million_prompt_tokens: million_prompt_tokens.0,
            million_output_tokens: million_output_tokens.0,
            minimum: minimum.0,
        }
    }
}

impl Tariff {
    pub(super) fn into_core(self) -> Result<t::Tariff> {
        let gpu_hour = self
            .gpu_hour
            .into_iter()
            .map(|(model, price)| Ok((t::Text::new(model)?, t::Micro(price))))
            .collect::<Result<_>>()?;
        Ok(t::Tariff {
            core_hour: t::Micro(self.core_hour),
            gib_hour: t::Micro(self.gib_hour),
            gpu_hour: t::Map::new(gpu_hour)?,
            million_prompt_tokens: t::Micro(self.million_prompt_tokens),
            million_output_tokens: t::Micro(self.million_output_tokens),
            minimum: t::Micro(self.minimum),
        })
    }
}

impl From<&t::Reservation> for Reservation {
    fn from(reservation: &t::Reservation) -> Self {
        let t::Reservation { cpu_milli, memory_bytes, disk_bytes, gpus } = reservation;
        Self {
            cpu_milli: *cpu_milli,
            memory_bytes: *memory_bytes,
            disk_bytes: *disk_bytes,
            gpus: gpus.iter().map(|(uuid, model)| (uuid.to_string(), model.to_string())).collect(),
        }
    }
}

impl Reservation {
    pub(super) fn into_core(self) -> Result<t::Reservation> {
        let gpus = self
            .gpus
            .into_iter()
            .map(|(uuid, model)| Ok((t::Text::new(uuid)?, t::Text::new(model)?)))
            .collect::<Result<_>>()?;
        Ok(t::Reservation {
            cpu_milli: self.cpu_milli,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
            gpus: t::List::new(gpus)?,
        })
    }
}

impl From<&t::Offer> for Offer {
    fn from(offer: &t::Offer) -> Self {
        let t::Offer {
            capabilities:
                t::Capabilities {
                    adapters,
                    cpu_milli,
                    memory_bytes,
                    disk_bytes,
                    slots,
                    gpus,
                    models,
                    pullable,
                    exceptions,
                    container_gpus,
                    labels,
                    region,
                },
            tariff,
            agent_version,
            paused,
            images,
        } = offer;
        let images: Vec<[u8; 8]> = images.iter().map(|image| image.to_bytes()).collect();
        let gpu = |gpu: &t::GpuInfo| {
            let t::GpuInfo { uuid, vendor, model, memory_bytes, driver, compute } = gpu;
            Gpu {
                uuid: uuid.to_string(),
                vendor: vendor.to_string(),
                model: model.to_string(),
                memory_bytes: *memory_bytes,
                driver: driver.to_string(),
                compute: compute.to_string(),
            }
        };
        let model = |model: &t::ModelInfo| {
            let t::ModelInfo { name, digest, bytes, warm } = model;
            Model { name: name.to_string(), digest: digest.to_string(), bytes: *bytes, warm: *warm }
        };
        Self {
            adapters: adapters.iter().map(|adapter| (*adapter).into()).collect(),
            cpu_milli: *cpu_milli,
            memory_bytes: *memory_bytes,
            disk_bytes: *disk_bytes,
            slots: *slots,
            gpus: gpus.iter().map(gpu).collect(),
            models: models.iter().map(model).collect(),
            pullable: pullable.iter().map(ToString::to_string).collect(),
            exceptions: (*exceptions).into(),
            container_gpus: *container_gpus,
            labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            region: region.to_string(),
            tariff: tariff.into(),
            agent_version: agent_version.to_string(),
            end: match (paused, images.is_empty()) {
                (false, true) => End::Open,
                (true, true) => End::Paused,
                (false, false) => End::OpenWith { images },
                (true, false) => End::PausedWith { images },
            },
        }
    }
}

impl Offer {
    pub(super) fn into_core(self) -> Result<t::Offer> {
        let gpu = |gpu: Gpu| {
            Ok(t::GpuInfo {
                uuid: t::Text::new(gpu.uuid)?,
                vendor: t::Text::new(gpu.vendor)?,
                model: t::Text::new(gpu.model)?,
                memory_bytes: gpu.memory_bytes,
                driver: t::Text::new(gpu.driver)?,
                compute: t::Text::new(gpu.compute)?,
            })
        };
        let model = |model: Model| {
            Ok(t::ModelInfo {
                name: t::Text::new(model.name)?,
                digest: t::Text::new(model.digest)?,
                bytes: model.bytes,
                warm: model.warm,
            })
        };
        let (paused, images) = match self.end {
            End::Open => (false, Vec::new()),
            End::Paused => (true, Vec::new()),
            End::OpenWith { images } => (false, images),
            End::PausedWith { images } => (true, images),
        };
        let pullable = self.pullable.into_iter().map(t::Text::new).collect::<std::result::Result<_, _>>()?;
        let labels = self
            .labels
            .into_iter()
            .map(|(key, value)| Ok((t::Text::new(key)?, t::Text::new(value)?)))
            .collect::<Result<_>>()?;
        Ok(t::Offer {
            capabilities: t::Capabilities {
                adapters: t::List::new(self.adapters.into_iter().map(Into::into).collect())?,
                cpu_milli: self.cpu_milli,
                memory_bytes: self.memory_bytes,
                disk_bytes: self.disk_bytes,
                slots: self.slots,
                gpus: t::List::new(self.gpus.into_iter().map(gpu).collect::<Result<_>>()?)?,
                models: t::List::new(self.models.into_iter().map(model).collect::<Result<_>>()?)?,
                pullable: t::List::new(pullable)?,
                exceptions: self.exceptions.into(),
                container_gpus: self.container_gpus,
                labels: t::Map::new(labels)?,
                region: t::Text::new(self.region)?,
            },
            tariff: self.tariff.into_core()?,
            agent_version: t::Text::new(self.agent_version)?,
            paused,
            images: t::List::new(images.into_iter().map(t::ImageMark::from_bytes).collect())?,
        })
    }
}
