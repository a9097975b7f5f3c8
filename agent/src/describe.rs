//! The agent's documents for programs: what is offered, and how a running agent is.

use std::path::Path;

use modchain_types::{ItemState, Micro, NodeId, Offer, WallTime};
use modchain_wire::WIRE_VERSION;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::engine::{AttemptSight, Sight};
use crate::owner::{AdapterSight, Door, OwnerSight};

/// What a running agent knows of itself from its start on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Which node it is.
    pub node: NodeId,
    /// What the pool calls it, where joining has told.
    pub name: Option<String>,
    /// Where the orchestrator is.
    pub orchestrator: String,
    /// The node's folder.
    pub data: std::path::PathBuf,
    /// When it was started.
    pub started_at: WallTime,
}

/// What currency an amount is in is the orchestrator's to say.
fn amount(amount: Micro) -> Value {
    json!({ "micro": amount.0, "currency": null })
}

/// What a node offers, as one object.
pub fn offer(offer: &Offer) -> Map<String, Value> {
    let (capabilities, tariff) = (&offer.capabilities, &offer.tariff);
    let gpu_hour: Map<String, Value> =
        tariff.gpu_hour.iter().map(|(model, price)| (model.to_string(), amount(*price))).collect();
    let labels: Map<String, Value> =
        capabilities.labels.iter().map(|(key, value)| (key.to_string(), json!(value.as_str()))).collect();
    let document = json!({
        "adapters": capabilities.adapters.iter().map(|adapter| adapter.word()).collect::<Vec<_>>(),
        "slots": capabilities.slots,
        "cpu_milli": capabilities.cpu_milli,
        "memory_bytes": capabilities.memory_bytes,
        "disk_bytes": capabilities.disk_bytes,
        "gpus": capabilities.gpus.iter().map(|gpu| json!({
            "uuid": gpu.uuid.as_str(),
            "vendor": gpu.vendor.as_str(),
            "model": gpu.model.as_str(),
            "memory_bytes": gpu.memory_bytes,
            "driver": gpu.driver.as_str(),
            "compute": gpu.compute.as_str(),
        })).collect::<Vec<_>>(),
        "models": capabilities.models.iter().map(|model| json!({
            "name": model.name.as_str(),
            "digest": model.digest.as_str(),
            "bytes": model.bytes,
            "warm": model.warm,
        })).collect::<Vec<_>>(),
        "pullable": capabilities.pullable.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>(),
        "exceptions": {
            "writable_root": capabilities.exceptions.writable_root,
            "network": capabilities.exceptions.network,
        },
        "labels": labels,
        "region": capabilities.region.as_str(),
        "paused": offer.paused,
        "prices": {
            "core_hour": amount(tariff.core_hour),
            "gib_hour": amount(tariff.gib_hour),
            "gpu_hour": gpu_hour,
            "million_prompt_tokens": amount(tariff.million_prompt_tokens),
            "million_output_tokens": amount(tariff.million_output_tokens),
            "minimum": amount(tariff.minimum),
        },
    });
    match document {
        Value::Object(fields) => fields,
        _ => unreachable!("it was written as an object"),
    }
}

/// `modchain.agent_info/v1`: what this machine would offer.
pub fn info(offered: &Offer, adapters: &[AdapterSight], data: &Path) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("schema".into(), json!("modchain.agent_info/v1"));
    document.insert("program".into(), json!("modchain-agent"));
    document.insert("version".into(), json!(offered.agent_version.as_str()));
    document.insert("wire".into(), json!(WIRE_VERSION));
    document.extend(offer(offered));
    document.insert("missing".into(), missing(adapters));
    document.insert("data".into(), json!(data));
    document
}

/// `modchain.agent_status/v1`: how a running agent is. `refused` is why the orchestrator does not take it.
pub fn status(facts: &Facts, engine: &Sight, owner: &OwnerSight, refused: Option<&str>) -> Value {
    let connection = match (engine.connected_at, refused) {
        (Some(since), _) => json!({ "state": "connected", "since": clock::utc(since), "why": null }),
        (None, Some(why)) => json!({ "state": "refused", "since": null, "why": why }),
        (None, None) => json!({ "state": "connecting", "since": null, "why": null }),
    };
    let (door, drains_at) = match owner.door {
        Door::Open => ("open", None),
        Door::Paused => ("paused", None),
        Door::Draining { until } => ("draining", until.map(clock::utc)),
    };
    json!({
        "schema": "modchain.agent_status/v1",
        "running": true,
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": clock::utc(facts.started_at),
        "node": facts.node.to_string(),
        "name": facts.name,
        "orchestrator": facts.orchestrator,
        "data": facts.data,
        "connection": connection,
        "door": door,
        "paused": owner.offer.paused,
        "drains_at": drains_at,
        "stopping": engine.stopping,
        "live_attempts": engine.live(),
        "attempts": engine.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "spool_bytes": engine.spool_bytes(),
        "missing": missing(&owner.adapters),
        "offer": offer(&owner.offer),
        "config": owner.file,
        "config_refused": owner.file_refused,
    })
}

/// How it is, in a line for `systemctl status`.
pub fn status_line(orchestrator: &str, engine: &Sight, paused: bool) -> String {
    let connected = if engine.connected_at.is_some() { "connected to" } else { "not connected to" };
    let attempts = match engine.live() {
        1 => "1 attempt".to_owned(),
        live => format!("{live} attempts"),
    };
    let door = if paused { ", no new jobs" } else { "" };
    format!("{connected} {orchestrator}, {attempts}{door}")
}

/// Why each kind of jobs that is not offered is not.
fn missing(adapters: &[AdapterSight]) -> Value {
    let missing =
        adapters.iter().filter_map(|sight| Some((sight.adapter.word().to_owned(), json!(sight.missing.as_ref()?))));
    Value::Object(missing.collect())
}

fn attempt(sight: &AttemptSight) -> Value {
    let state = match sight.state {
        ItemState::Starting => "starting",
        ItemState::Running => "running",
        ItemState::Ended => "ended",
    };
    json!({
        "attempt": sight.attempt.to_string(),
        "name": sight.job.as_ref().map(|(name, _)| name.as_str()),
        "adapter": sight.job.as_ref().map(|(_, adapter)| adapter.word()),
        "state": state,
        "spool_bytes": sight.spool_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use modchain_types::{Adapter, AttemptId, JobId, Text};

    #[test]
    fn the_line_for_the_manager_says_where_to_how_much_and_whether_more_comes() {
        let attempt = |state| AttemptSight {
            attempt: AttemptId { job: JobId([1; 16]), number: 1 },
            job: Some((Text::cut("job"), Adapter::Wasm)),
            state,
            spool_bytes: 5,
        };
        let mut sight = Sight { connected_at: None, attempts: vec![], stopping: false };
        assert_eq!(status_line("pool:7443", &sight, false), "not connected to pool:7443, 0 attempts");
        sight.connected_at = Some(WallTime(0));
        sight.attempts = vec![attempt(ItemState::Running), attempt(ItemState::Ended)];
        assert_eq!(status_line("pool:7443", &sight, true), "connected to pool:7443, 1 attempt, no new jobs");
        assert_eq!(sight.spool_bytes(), 10);
    }
}
