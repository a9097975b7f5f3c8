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
}

#[derive(Serialize, Deserialize)]
pub(super) struct Offer {
    adapters: Vec<Adapter>,
    cpu_milli: u32,
    memory_bytes: u64,
    disk_bytes: u64,
    slots: u32,
    gpus: Vec<Gpu>,
    labels: Vec<(String, String)>,
    region: String,
    tariff: Tariff,
    agent_version: String,
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
            capabilities: t::Capabilities { adapters, cpu_milli, memory_bytes, disk_bytes, slots, gpus, labels, region },
            tariff,
            agent_version,
        } = offer;
        let gpu = |gpu: &t::GpuInfo| {
            let t::GpuInfo { uuid, vendor, model, memory_bytes } = gpu;
            Gpu {
                uuid: uuid.to_string(),
                vendor: vendor.to_string(),
                model: model.to_string(),
                memory_bytes: *memory_bytes,
            }
        };
        Self {
            adapters: adapters.iter().map(|adapter| (*adapter).into()).collect(),
            cpu_milli: *cpu_milli,
            memory_bytes: *memory_bytes,
            disk_bytes: *disk_bytes,
            slots: *slots,
            gpus: gpus.iter().map(gpu).collect(),
            labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            region: region.to_string(),
            tariff: tariff.into(),
            agent_version: agent_version.to_string(),
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
            })
        };
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
                labels: t::Map::new(labels)?,
                region: t::Text::new(self.region)?,
            },
            tariff: self.tariff.into_core()?,
            agent_version: t::Text::new(self.agent_version)?,
        })
    }
}
