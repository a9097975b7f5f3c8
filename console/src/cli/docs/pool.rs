//! Documents of the pool: nodes and how things are.

use std::collections::BTreeMap;

use modchain_types::{Asset, JobState, Micro, NodeState, Offer, Span, Tariff};
use modchain_wire::agent::GpuSample;
use modchain_wire::view::{GpuTickView, NodeHistoryView, NodeView, StatusView};
use serde::Serialize;

use super::money::{AccountDoc, account};
use super::{Money, money, some, time, words};

/// `modchain.node/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct NodeDoc {
    schema: &'static str,
    id: String,
    name: String,
    account: String,
    state: &'static str,
    paused: Option<bool>,
    drains_at: Option<String>,
    pool: Option<String>,
    region: Option<String>,
    types: Option<Vec<&'static str>>,
    exceptions: Option<ExceptionsDoc>,
    models: Option<Vec<ModelDoc>>,
    pullable: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    cpu_milli: Option<u32>,
    cpu_milli_reserved: u32,
    memory_bytes: Option<u64>,
    memory_bytes_reserved: u64,
    slots: Option<u32>,
    jobs: u32,
    gpus: Option<Vec<GpuDoc>>,
    price_per_hour: Option<Money>,
    prices: Option<PricesDoc>,
    load: Option<LoadDoc>,
    agent_version: Option<String>,
    rtt_ms: Option<u64>,
    seen: Option<String>,
    connected_at: Option<String>,
    history: Option<Vec<TickDoc>>,
}

#[derive(Debug, Serialize)]
struct GpuDoc {
    i: usize,
    uuid: String,
    vendor: String,
    model: String,
    memory_bytes: u64,
    driver: Option<String>,
    compute: Option<String>,
    vram_total: u64,
    #[serde(flatten)]
    sample: SampleDoc,
    reserved: bool,
}

/// How a GPU is at one moment.
#[derive(Debug, Default, Serialize)]
struct SampleDoc {
    busy_pct: Option<u8>,
    vram_used: Option<u64>,
    temp_c: Option<u8>,
    power_w: Option<u32>,
}

/// One look at all GPUs of a node, in the order of its `gpus`.
#[derive(Debug, Serialize)]
struct TickDoc {
    at: String,
    gpus: Vec<SampleDoc>,
}

#[derive(Debug, Serialize)]
struct ExceptionsDoc {
    writable_root: bool,
    network: bool,
}

#[derive(Debug, Serialize)]
struct ModelDoc {
    name: String,
    digest: String,
    bytes: u64,
    warm: bool,
}

#[derive(Debug, Serialize)]
struct PricesDoc {
    core_hour: Money,
    gib_hour: Money,
    gpu_hour: BTreeMap<String, Money>,
    million_prompt_tokens: Money,
    million_output_tokens: Money,
    minimum: Money,
}

#[derive(Debug, Serialize)]
struct LoadDoc {
    cpu_busy_permille: Option<u16>,
    memory_used_bytes: u64,
    memory_total_bytes: u64,
    disk_free_bytes: u64,
}

/// The document of one node.
pub(crate) fn node(view: &NodeView, asset: Asset) -> NodeDoc {
    let capabilities = view.offer.as_ref().map(|offer| &offer.capabilities);
    NodeDoc {
        schema: "modchain.node/v1",
        id: view.id.to_string(),
        name: view.name.to_string(),
        account: view.account.to_string(),
        state: view.state.word(),
        paused: view.offer.as_ref().map(|offer| offer.paused),
        drains_at: view.drains_at.map(time),
        pool: pool(view),
        region: capabilities.and_then(|capabilities| some(&capabilities.region)),
        types: capabilities.map(|capabilities| capabilities.adapters.iter().map(|adapter| adapter.word()).collect()),
        exceptions: capabilities.map(|capabilities| ExceptionsDoc {
            writable_root: capabilities.exceptions.writable_root,
            network: capabilities.exceptions.network,
        }),
        models: capabilities.map(|capabilities| {
            let models = capabilities.models.iter();
            models
                .map(|model| ModelDoc {
                    name: model.name.as_str().to_owned(),
                    digest: model.digest.as_str().to_owned(),
                    bytes: model.bytes,
                    warm: model.warm,
                })
                .collect()
        }),
        pullable: capabilities
            .map(|capabilities| capabilities.pullable.iter().map(|name| name.as_str().to_owned()).collect()),
        labels: capabilities.map(|capabilities| words(&capabilities.labels)),
        cpu_milli: capabilities.map(|capabilities| capabilities.cpu_milli),
        cpu_milli_reserved: view.reserved.cpu_milli,
        memory_bytes: capabilities.map(|capabilities| capabilities.memory_bytes),
        memory_bytes_reserved: view.reserved.memory_bytes,
        slots: capabilities.map(|capabilities| capabilities.slots),
        jobs: view.attempts,
        gpus: capabilities.map(|capabilities| {
            let reserved = |uuid: &str| view.reserved.gpus.iter().any(|(other, _)| other.as_str() == uuid);
            let gpus = capabilities.gpus.iter().enumerate();
            gpus.map(|(i, gpu)| GpuDoc {
                i,
                uuid: gpu.uuid.as_str().to_owned(),
                vendor: gpu.vendor.as_str().to_owned(),
                model: gpu.model.as_str().to_owned(),
                memory_bytes: gpu.memory_bytes,
                driver: some(&gpu.driver),
                compute: some(&gpu.compute),
                vram_total: gpu.memory_bytes,
                sample: view.gpus.get(i).map(sample).unwrap_or_default(),
                reserved: reserved(&gpu.uuid),
            })
            .collect()
        }),
        price_per_hour: view.offer.as_ref().map(|offer| money(node_price(offer), asset)),
        prices: view.offer.as_ref().map(|offer| prices(&offer.tariff, asset)),
        load: view.load.map(|load| LoadDoc {
            cpu_busy_permille: load.cpu_permille,
            memory_used_bytes: load.memory_used_bytes,
            memory_total_bytes: load.memory_total_bytes,
            disk_free_bytes: load.disk_free_bytes,
        }),
        agent_version: view.offer.as_ref().and_then(|offer| some(&offer.agent_version)),
        rtt_ms: view.rtt.map(Span::as_millis),
        seen: view.seen_at.map(time),
        connected_at: view.connected_at.map(time),
        history: None,
    }
}

/// The document of one node, with the last five minutes of its GPUs.
pub(crate) fn node_history(view: &NodeHistoryView, asset: Asset) -> NodeDoc {
    let tick = |tick: &GpuTickView| TickDoc { at: time(tick.at), gpus: tick.gpus.iter().map(sample).collect() };
    NodeDoc { history: Some(view.ticks.iter().map(tick).collect()), ..node(&view.node, asset) }
}

fn sample(sample: &GpuSample) -> SampleDoc {
    SampleDoc {
        busy_pct: sample.busy_pct,
        vram_used: sample.memory_used_bytes,
        temp_c: sample.temperature_c,
        // The nearest watt.
        power_w: sample.power_mw.map(|milliwatts| milliwatts.saturating_add(500) / 1_000),
    }
}

/// What everything that a node offers costs for an hour: its cores, its memory and its GPUs.
pub(crate) fn node_price(offer: &Offer) -> Micro {
    let (tariff, capabilities) = (&offer.tariff, &offer.capabilities);
    let price_of = |model: &str| {
        let named = |wanted: &str| tariff.gpu_hour.iter().find(|(name, _)| name.as_str() == wanted);
        named(model).or_else(|| named("*")).map_or(0, |(_, price)| u128::from(price.0))
    };
    let gpus: u128 = capabilities.gpus.iter().map(|gpu| price_of(&gpu.model)).sum();
    let cores = u128::from(capabilities.cpu_milli) * u128::from(tariff.core_hour.0) / 1_000;
    let memory = (u128::from(capabilities.memory_bytes) * u128::from(tariff.gib_hour.0)) >> 30;
    Micro(u64::try_from(gpus + cores + memory).unwrap_or(u64::MAX))
}

/// `modchain.node_change/v1`: what became of a node while somebody watched.
#[derive(Debug, Serialize)]
pub(crate) struct NodeChangeDoc {
    schema: &'static str,
    op: &'static str,
    node: NodeDoc,
}

/// A node was added, changed or removed; a removed one is shown as it was last.
pub(crate) fn node_change(op: &'static str, view: &NodeView, asset: Asset) -> NodeChangeDoc {
    NodeChangeDoc { schema: "modchain.node_change/v1", op, node: node(view, asset) }
}

/// The label `pool` of a node.
pub(crate) fn pool(view: &NodeView) -> Option<String> {
    let labels = &view.offer.as_ref()?.capabilities.labels;
    labels.iter().find(|(key, _)| key.as_str() == "pool").map(|(_, value)| value.as_str().to_owned())
}

fn prices(tariff: &Tariff, asset: Asset) -> PricesDoc {
    PricesDoc {
        core_hour: money(tariff.core_hour, asset),
        gib_hour: money(tariff.gib_hour, asset),
        gpu_hour: tariff.gpu_hour.iter().map(|(model, price)| (model.to_string(), money(*price, asset))).collect(),
        million_prompt_tokens: money(tariff.million_prompt_tokens, asset),
        million_output_tokens: money(tariff.million_output_tokens, asset),
        minimum: money(tariff.minimum, asset),
    }
}

/// Every state a node can be in.
pub(crate) const NODE_STATES: [NodeState; 6] = [
    NodeState::Ready,
    NodeState::Suspect,
    NodeState::Lost,
    NodeState::Cordoned,
    NodeState::Draining,
    NodeState::Paused,
];

/// `modchain.status/v1`: every state of nodes, and every state that a live job can be in, with its count.
#[derive(Debug, Serialize)]
pub(crate) struct StatusDoc {
    schema: &'static str,
    at: String,
    orchestrator: OrchestratorDoc,
    nodes: BTreeMap<&'static str, u64>,
    gpus: GpusDoc,
    jobs: JobCountsDoc,
    account: Option<AccountDoc>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OrchestratorDoc {
    addr: String,
    rtt_ms: Option<u64>,
    version: String,
    uptime_ms: u64,
}

#[derive(Debug, Serialize)]
struct GpusDoc {
    total: u64,
    reserved: u64,
    free: u64,
    busy_pct: Option<u8>,
}

#[derive(Debug, Serialize)]
struct JobCountsDoc {
    #[serde(flatten)]
    states: BTreeMap<&'static str, u64>,
    oldest_queued_ms: Option<u64>,
}

/// The document of how things are, as seen at `addr`.
pub(crate) fn status(view: &StatusView, addr: &str, rtt: Option<Span>, asset: Asset) -> StatusDoc {
    let mut nodes: BTreeMap<_, _> = view.nodes.iter().map(|(state, count)| (state.word(), *count)).collect();
    nodes.insert("total", nodes.values().sum());
    for state in NODE_STATES {
        nodes.entry(state.word()).or_insert(0);
    }
    let mut states: BTreeMap<_, _> = view.jobs.iter().map(|(state, count)| (state.word(), *count)).collect();
    for state in JobState::ALL.into_iter().filter(|state| !state.is_ended()) {
        states.entry(state.word()).or_insert(0);
    }
    StatusDoc {
        schema: "modchain.status/v1",
        at: time(view.at),
        orchestrator: OrchestratorDoc {
            addr: addr.to_owned(),
            rtt_ms: rtt.map(Span::as_millis),
            version: view.version.as_str().to_owned(),
            uptime_ms: view.uptime.as_millis(),
        },
        nodes,
        gpus: GpusDoc {
            total: view.gpus,
            reserved: view.gpus_reserved,
            free: view.gpus.saturating_sub(view.gpus_reserved),
            busy_pct: view.gpus_busy_pct,
        },
        jobs: JobCountsDoc { states, oldest_queued_ms: view.oldest_queued.map(Span::as_millis) },
        account: view.account.as_ref().map(|view| account(view, asset)),
        problems: view.problems.iter().map(|problem| problem.as_str().to_owned()).collect(),
    }
}

/// `modchain.status_change/v1`: how things have become while somebody watched.
#[derive(Debug, Serialize)]
pub(crate) struct StatusChangeDoc {
    schema: &'static str,
    op: &'static str,
    status: StatusDoc,
}

/// How things are was seen for the first time, or changed.
pub(crate) fn status_change(op: &'static str, view: &StatusView, addr: &str, asset: Asset) -> StatusChangeDoc {
    StatusChangeDoc { schema: "modchain.status_change/v1", op, status: status(view, addr, None, asset) }
}
