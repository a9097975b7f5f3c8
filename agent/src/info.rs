//! `info`: what this machine would offer, with one quick look at what runs beside the agent.

use std::fmt::Write;

use modchain_agent::config::Config;
use modchain_agent::describe;
use modchain_agent::owner::{AdapterSight, adapters};
use modchain_agent::probe::{Findings, SystemProbe};
use modchain_types::Offer;
use serde_json::json;

use crate::failure::clean;
use crate::{Common, Output};

pub(crate) fn info(output: Output, common: &Common) -> anyhow::Result<()> {
    let config = Config::load(None, None, &common.settings, common.config.as_deref())?;
    // The data folder may not be there yet: its nearest parent tells how much room it will have.
    let place = config.data.ancestors().find(|folder| folder.exists()).unwrap_or(&config.data);
    let machine = SystemProbe::new(place).machine();
    let offer = config.offer(&machine, &quick_look(&config), false)?;
    let adapters = adapters(&config, &offer);
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

/// What the probes would find.
fn quick_look(_config: &Config) -> Findings {
    Findings::default()
}

/// Bytes as people read them.
pub(crate) fn gib(bytes: u64) -> String {
    format!("{}.{} GiB", bytes >> 30, ((bytes % (1 << 30)) * 10) >> 30)
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
