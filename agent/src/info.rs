//! `info`: what this machine would offer, with one quick look at what runs beside the agent.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;
use modchain_agent::config::{Config, GpuOffer};
use modchain_agent::describe;
use modchain_agent::executor::docker::{DockerExecutor, DockerSettings};
use modchain_agent::executor::llm::{LlmExecutor, LlmSettings};
use modchain_agent::owner::{AdapterSight, adapters};
use modchain_agent::probe::{self, DockerFound, Findings, SystemProbe};
use modchain_types::{Adapter, GpuInfo, ModelInfo, NodeId, Offer};
use serde_json::json;

use crate::failure::clean;
use crate::{Common, Output};

/// Longest look at one neighbour.
const LOOK_MAX: Duration = Duration::from_secs(5);

pub(crate) fn info(output: Output, common: &Common) -> anyhow::Result<()> {
    let config = Config::load(None, None, &common.settings, common.config.as_deref())?;
    // The data folder may not be there yet: its nearest parent tells how much room it will have.
    let place = config.data.ancestors().find(|folder| folder.exists()).unwrap_or(&config.data);
    let machine = SystemProbe::new(place).machine();
    let (findings, why_missing) = quick_look(&config)?;
    let offer = config.offer(&machine, &findings, false)?;
    let mut adapters = adapters(&config, &offer);
    for AdapterSight { adapter, missing } in &mut adapters {
        if let (Some(missing), Some(why)) = (missing, why_missing.get(adapter).filter(|why| !why.is_empty())) {
            missing.push_str(": ");
            missing.push_str(why);
        }
    }
    match output {
        Output::Json => {
            let mut document = describe::info(&offer, &adapters, &config.data);
            let machine = json!({
                "cores": machine.cores,
                "memory_bytes": machine.memory_bytes,
                "disk_free_bytes": machine.disk_free_bytes,
            });
            document.insert("machine".into(), machine);
            println!("{}", serde_json::Value::Object(document));
        }
        Output::Text => print!("{}", text(&config, &offer, &adapters)),
    }
    Ok(())
}

/// What one look at the neighbours finds, and why those of them that are wanted are not there.
fn quick_look(config: &Config) -> anyhow::Result<(Findings, BTreeMap<Adapter, String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")?;
    let looked = runtime.block_on(async { tokio::join!(docker(config), models(config), gpus(config)) });
    // A driver that hangs is left to itself.
    runtime.shutdown_background();
    let (docker, models, gpus) = looked;
    let mut missing = BTreeMap::new();
    let docker = docker.map_err(|why| missing.insert(Adapter::Docker, why)).ok();
    let models = models.map_err(|why| missing.insert(Adapter::Llm, why)).ok();
    Ok((Findings { docker, models, gpus }, missing))
}

async fn docker(config: &Config) -> Result<DockerFound, String> {
    if !config.adapters.contains(&Adapter::Docker) {
        return Err(String::new());
    }
    // Looking needs no name, and nothing is started.
    let settings =
        DockerSettings { host: config.docker.host.clone(), node: NodeId([0; 16]), policy: config.docker.policy() };
    let executor = DockerExecutor::new(settings);
    within(probe::docker::look_once(&executor)).await
}

async fn models(config: &Config) -> Result<Vec<ModelInfo>, String> {
    if !config.adapters.contains(&Adapter::Llm) {
        return Err(String::new());
    }
    let settings = LlmSettings { url: config.llm.url.clone(), policy: config.llm.policy() };
    let executor = LlmExecutor::new(settings).map_err(|error| error.to_string())?;
    within(probe::ollama::look_once(&executor)).await
}

/// That there are none is no news on most machines.
async fn gpus(config: &Config) -> Vec<GpuInfo> {
    if config.gpus.offer == GpuOffer::Nothing {
        return Vec::new();
    }
    let library = config.gpus.library.clone();
    let looking = tokio::task::spawn_blocking(move || probe::nvml::look_once(library));
    within(async { looking.await.map_err(|error| error.to_string()).flatten() }).await.unwrap_or_default()
}

async fn within<T>(look: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(LOOK_MAX, look)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", LOOK_MAX.as_secs())))
}

/// Bytes as people read them.
pub(crate) fn gib(bytes: u64) -> String {
    let (shift, unit) = if bytes < 1 << 30 { (20, "MiB") } else { (30, "GiB") };
    format!("{}.{} {unit}", bytes >> shift, ((bytes % (1 << shift)) * 10) >> shift)
}

fn text(config: &Config, offer: &Offer, adapters: &[AdapterSight]) -> String {
    let (capabilities, tariff) = (&offer.capabilities, &offer.tariff);
    let offered: Vec<&str> = capabilities.adapters.iter().map(|adapter| adapter.word()).collect();
    let labels: Vec<String> = capabilities.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let mut rows = vec![
        ("version", offer.agent_version.to_string()),
        ("adapters", or_none(offered.join(", "))),
        ("slots", capabilities.slots.to_string()),
        ("cores", format!("{}.{:03}", capabilities.cpu_milli / 1000, capabilities.cpu_milli % 1000)),
        ("memory", gib(capabilities.memory_bytes)),
        ("disk", gib(capabilities.disk_bytes)),
    ];
    for gpu in capabilities.gpus.iter() {
        rows.push(("gpu", format!("{}, {}, {}", gpu.model, gib(gpu.memory_bytes), gpu.uuid)));
    }
    for model in capabilities.models.iter() {
        rows.push(("model", format!("{}, {}", model.name, gib(model.bytes))));
    }
    for AdapterSight { adapter, missing } in adapters {
        if let Some(why) = missing {
            rows.push(("not offered", format!("{adapter}: {why}")));
        }
    }
    rows.extend([
        ("labels", or_none(labels.join(", "))),
        ("region", or_none(capabilities.region.to_string())),
        ("core price", format!("{} an hour", tariff.core_hour)),
        ("memory price", format!("{} a GiB and hour", tariff.gib_hour)),
    ]);
    for (model, price) in tariff.gpu_hour.iter() {
        rows.push((
            "gpu price",
            format!("{price} an hour of {}", if model.as_str() == "*" { "any other" } else { model }),
        ));
    }
    rows.extend([
        ("token price", format!("{} a million read", tariff.million_prompt_tokens)),
        ("token price", format!("{} a million written", tariff.million_output_tokens)),
        ("minimum", format!("{} a job", tariff.minimum)),
        ("data", config.data.display().to_string()),
        ("settings", config.file.as_ref().map_or_else(|| "-".into(), |file| file.display().to_string())),
    ]);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        // A `String` takes everything.
        let _ = writeln!(text, "{name:<13} {}", clean(value));
        text
    })
}
