//! The JSON documents: `modchain.X/v1`. They are an interface: fields are only ever added within a version, money is
//! `{micro, currency}`, times are RFC 3339 in UTC, durations are milliseconds with `_ms` in the name, ids are written in
//! full, and what is not known is `null`, never 0. The golden files beside the tests pin them; `console/schemas` lists them.

use std::collections::BTreeMap;

use modchain_types::{
    Adapter, Asset, Exit, Input, JobId, JobSpec, Micro, OnDisconnect, Span, Tariff, Task, TaskBody, Text, WallTime,
};
use modchain_wire::console::{ConsoleWelcome, Submitted};
use modchain_wire::view::{
    AccountView, AttemptView, EventView, ExplanationView, JobView, LedgerEntryView, NodeVerdictView, NodeView,
    OfferView, QuoteView, StatusView,
};
use serde::Serialize;

use crate::text::rfc3339;

/// An amount.
#[derive(Debug, Serialize)]
pub(crate) struct Money {
    micro: u64,
    currency: &'static str,
}

/// A change of a balance.
#[derive(Debug, Serialize)]
pub(crate) struct SignedMoney {
    micro: i64,
    currency: &'static str,
}

/// An amount of this asset.
pub(crate) fn money(amount: Micro, asset: Asset) -> Money {
    Money { micro: amount.0, currency: asset.code() }
}

fn time(at: WallTime) -> String {
    rfc3339(at)
}

fn some<const MAX: usize>(text: &Text<MAX>) -> Option<String> {
    (!text.is_empty()).then(|| text.as_str().to_owned())
}

fn words<const A: usize, const B: usize>(map: &BTreeMap<Text<A>, Text<B>>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.as_str().to_owned(), value.as_str().to_owned())).collect()
}

/// The code a job ended with, and whose it is.
#[derive(Debug, Serialize)]
pub(crate) struct ExitDoc {
    code: u8,
    from: &'static str,
}

fn exit(exit: Exit) -> ExitDoc {
    ExitDoc { code: exit.code, from: exit.from.word() }
}

/// `modchain.job/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct JobDoc {
    schema: &'static str,
    id: String,
    name: Option<String>,
    account: String,
    #[serde(rename = "type")]
    kind: &'static str,
    what: String,
    state: &'static str,
    reason: Option<&'static str>,
    exit: Option<ExitDoc>,
    message: Option<String>,
    node: Option<String>,
    attempts: Vec<AttemptDoc>,
    attempts_max: u32,
    hold: Money,
    cost: Money,
    fee: Money,
    refund: Money,
    price_per_hour: Option<Money>,
    labels: BTreeMap<String, String>,
    time_limit_ms: Option<u64>,
    run_limit_ms: Option<u64>,
    usage: UsageDoc,
    output: OutputDoc,
    created_at: String,
    started_at: Option<String>,
    ended_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct AttemptDoc {
    number: u32,
    node: String,
    state: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
    assigned_at: String,
    started_at: Option<String>,
    ended_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct UsageDoc {
    ran_ms: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    fuel: u64,
}

#[derive(Debug, Serialize)]
struct OutputDoc {
    stdout_bytes: u64,
    stderr_bytes: u64,
    dropped_bytes: u64,
}

/// The document of one job.
pub(crate) fn job(view: &JobView, asset: Asset) -> JobDoc {
    JobDoc {
        schema: "modchain.job/v1",
        id: view.id.to_string(),
        name: some(&view.name),
        account: view.account.to_string(),
        kind: view.adapter.word(),
        what: view.what.as_str().to_owned(),
        state: view.state.word(),
        reason: view.reason.map(|reason| reason.word()),
        exit: view.exit.map(exit),
        message: some(&view.message),
        node: view.node.as_ref().map(ToString::to_string),
        attempts: view.attempts.iter().map(attempt).collect(),
        attempts_max: view.attempts_max,
        hold: money(view.hold, asset),
        cost: money(view.cost, asset),
        fee: money(view.fee, asset),
        refund: money(view.refund, asset),
        price_per_hour: view.price_per_hour.map(|price| money(price, asset)),
        labels: words(&view.labels),
        time_limit_ms: view.time_limit.map(Span::as_millis),
        run_limit_ms: view.run_limit.map(Span::as_millis),
        usage: UsageDoc {
            ran_ms: view.usage.ran.as_millis(),
            prompt_tokens: view.usage.prompt_tokens,
            output_tokens: view.usage.output_tokens,
            fuel: view.usage.fuel,
        },
        output: OutputDoc {
            stdout_bytes: view.output.stdout,
            stderr_bytes: view.output.stderr,
            dropped_bytes: view.output.dropped,
        },
        created_at: time(view.created_at),
        started_at: view.started_at.map(time),
        ended_at: view.ended_at.map(time),
    }
}

fn attempt(view: &AttemptView) -> AttemptDoc {
    AttemptDoc {
        number: view.number,
        node: view.node.to_string(),
        state: view.state.word(),
        reason: view.reason.map(|reason| reason.word()),
        message: some(&view.message),
        assigned_at: time(view.assigned_at),
        started_at: view.started_at.map(time),
        ended_at: view.ended_at.map(time),
    }
}

/// A list: `modchain.jobs/v1`, `modchain.nodes/v1` and so on.
#[derive(Debug, Serialize)]
pub(crate) struct ListDoc<T> {
    /// Such as `modchain.jobs/v1`.
    pub(crate) schema: &'static str,
    /// The items, each a document of its own.
    pub(crate) items: Vec<T>,
    /// How many there are in all, where the orchestrator says so.
    pub(crate) total: Option<u64>,
}

/// `modchain.submitted/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct SubmittedDoc {
    schema: &'static str,
    job: String,
    state: &'static str,
    held: Money,
    existing: bool,
    request_id: String,
}

/// The document of an accepted job; `key` is what it was submitted under.
pub(crate) fn submitted(submitted: &Submitted, key: &str, asset: Asset) -> SubmittedDoc {
    SubmittedDoc {
        schema: "modchain.submitted/v1",
        job: submitted.job.to_string(),
        state: submitted.state.word(),
        held: money(submitted.held, asset),
        existing: submitted.existing,
        request_id: key.to_owned(),
    }
}

/// `modchain.cancelled/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct CancelledDoc {
    schema: &'static str,
    job: String,
    state: &'static str,
    cost: Money,
    refund: Money,
}

/// The document of a cancelled job, as it is now.
pub(crate) fn cancelled(view: &JobView, asset: Asset) -> CancelledDoc {
    CancelledDoc {
        schema: "modchain.cancelled/v1",
        job: view.id.to_string(),
        state: view.state.word(),
        cost: money(view.cost, asset),
        refund: money(view.refund, asset),
    }
}

/// `modchain.log/v1`: the text of the stream is the `text` (or decoded `bytes`) of its documents one after the other, line
/// ends included.
#[derive(Debug, Serialize)]
pub(crate) struct LogDoc {
    schema: &'static str,
    job: String,
    attempt: u32,
    offset: u64,
    at: String,
    stream: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

/// A piece of output that begins at `offset` of its stream.
pub(crate) fn log(job: &JobId, attempt: u32, offset: u64, at: WallTime, stream: &'static str, data: &[u8]) -> LogDoc {
    let text = std::str::from_utf8(data).ok().map(str::to_owned);
    LogDoc {
        schema: "modchain.log/v1",
        job: job.to_string(),
        attempt,
        offset,
        at: time(at),
        stream,
        bytes: text.is_none().then(|| crate::text::base64(data)),
        text,
    }
}

/// `modchain.log_end/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct LogEndDoc {
    schema: &'static str,
    job: String,
    state: &'static str,
    reason: Option<&'static str>,
    exit: Option<ExitDoc>,
    cost: Money,
}

/// The last document of a log.
pub(crate) fn log_end(view: &JobView, asset: Asset) -> LogEndDoc {
    LogEndDoc {
        schema: "modchain.log_end/v1",
        job: view.id.to_string(),
        state: view.state.word(),
        reason: view.reason.map(|reason| reason.word()),
        exit: view.exit.map(exit),
        cost: money(view.cost, asset),
    }
}

/// `modchain.node/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct NodeDoc {
    schema: &'static str,
    id: String,
    name: String,
    account: String,
    state: &'static str,
    pool: Option<String>,
    region: Option<String>,
    types: Option<Vec<&'static str>>,
    labels: Option<BTreeMap<String, String>>,
    cpu_milli: Option<u32>,
    cpu_milli_reserved: u32,
    memory_bytes: Option<u64>,
    memory_bytes_reserved: u64,
    slots: Option<u32>,
    jobs: u32,
    gpus: Option<Vec<GpuDoc>>,
    prices: Option<PricesDoc>,
    load: Option<LoadDoc>,
    agent_version: Option<String>,
    rtt_ms: Option<u64>,
    seen: Option<String>,
    connected_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct GpuDoc {
    i: usize,
    uuid: String,
    vendor: String,
    model: String,
    vram_total: u64,
    reserved: bool,
}

#[derive(Debug, Serialize)]
struct PricesDoc {
    core_hour: Money,
    gib_hour: Money,
    gpu_hour: BTreeMap<String, Money>,
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
        pool: pool(view),
        region: capabilities.and_then(|capabilities| some(&capabilities.region)),
        types: capabilities.map(|capabilities| capabilities.adapters.iter().map(|adapter| adapter.word()).collect()),
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
                vram_total: gpu.memory_bytes,
                reserved: reserved(&gpu.uuid),
            })
            .collect()
        }),
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
    }
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
        minimum: money(tariff.minimum, asset),
    }
}

/// `modchain.account/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct AccountDoc {
    schema: &'static str,
    id: String,
    available: Money,
    held: Money,
    earned: Money,
    open_jobs: u64,
    burn_per_hour: Money,
}

/// The document of one account.
pub(crate) fn account(view: &AccountView, asset: Asset) -> AccountDoc {
    AccountDoc {
        schema: "modchain.account/v1",
        id: view.id.to_string(),
        available: money(view.available, asset),
        held: money(view.held, asset),
        earned: money(view.earned, asset),
        open_jobs: view.open_jobs,
        burn_per_hour: money(view.burn_per_hour, asset),
    }
}

/// `modchain.ledger/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct LedgerDoc {
    /// `modchain.ledger/v1`.
    pub(crate) schema: &'static str,
    /// Whose.
    pub(crate) account: String,
    /// Newest first.
    pub(crate) items: Vec<LedgerEntryDoc>,
}

/// `modchain.ledger_entry/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct LedgerEntryDoc {
    schema: &'static str,
    number: u64,
    at: String,
    #[serde(rename = "type")]
    kind: &'static str,
    amount: SignedMoney,
    balance: Money,
    job: Option<String>,
    text: Option<String>,
}

/// The document of one line of a statement.
pub(crate) fn ledger_entry(view: &LedgerEntryView, asset: Asset) -> LedgerEntryDoc {
    LedgerEntryDoc {
        schema: "modchain.ledger_entry/v1",
        number: view.number,
        at: time(view.at),
        kind: view.kind.word(),
        amount: SignedMoney { micro: view.amount, currency: asset.code() },
        balance: money(view.balance, asset),
        job: view.job.map(|job| job.to_string()),
        text: some(&view.text),
    }
}

/// `modchain.event/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct EventDoc {
    schema: &'static str,
    seq: u64,
    at: String,
    kind: &'static str,
    job: Option<String>,
    attempt: Option<u32>,
    node: Option<String>,
    account: Option<String>,
    from: Option<&'static str>,
    to: Option<&'static str>,
    reason: Option<&'static str>,
    text: String,
}

/// The document of one event.
pub(crate) fn event(view: &EventView) -> EventDoc {
    EventDoc {
        schema: "modchain.event/v1",
        seq: view.number,
        at: time(view.at),
        kind: view.kind.word(),
        job: view.job.map(|job| job.to_string()),
        attempt: view.attempt.map(|attempt| attempt.number),
        node: view.node.as_ref().map(ToString::to_string),
        account: view.account.as_ref().map(ToString::to_string),
        from: view.from.map(|state| state.word()),
        to: view.to.map(|state| state.word()),
        reason: view.reason.map(|reason| reason.word()),
        text: view.text.as_str().to_owned(),
    }
}

/// `modchain.explanation/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct ExplanationDoc {
    schema: &'static str,
    job: String,
    state: &'static str,
    summary: String,
    ahead: Option<u64>,
    nodes: Vec<VerdictDoc>,
}

#[derive(Debug, Serialize)]
struct VerdictDoc {
    node: String,
    fits: bool,
    reasons: Vec<String>,
    price_per_hour: Option<Money>,
}

/// The document of an explanation.
pub(crate) fn explanation(view: &ExplanationView, asset: Asset) -> ExplanationDoc {
    ExplanationDoc {
        schema: "modchain.explanation/v1",
        job: view.job.id.to_string(),
        state: view.job.state.word(),
        summary: view.summary.as_str().to_owned(),
        ahead: view.ahead,
        nodes: view.nodes.iter().map(|node| verdict(node, asset)).collect(),
    }
}

fn verdict(view: &NodeVerdictView, asset: Asset) -> VerdictDoc {
    VerdictDoc {
        node: view.node.to_string(),
        fits: view.fits,
        reasons: view.reasons.iter().map(|reason| reason.as_str().to_owned()).collect(),
        price_per_hour: view.price_per_hour.map(|price| money(price, asset)),
    }
}

/// `modchain.quote/v1`; for `run --dry-run` with the specification in it.
#[derive(Debug, Serialize)]
pub(crate) struct QuoteDoc {
    schema: &'static str,
    hold: Money,
    available: Money,
    affordable: bool,
    fee_percent: String,
    offers: Vec<OfferDoc>,
    refusals: Vec<VerdictDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<SpecDoc>,
}

#[derive(Debug, Serialize)]
struct OfferDoc {
    node: String,
    price_per_hour: Money,
    minimum: Money,
    run_limit_ms: u64,
    limited_by: &'static str,
}

/// The document of a quote.
pub(crate) fn quote(view: &QuoteView, spec: Option<&JobSpec>, asset: Asset) -> QuoteDoc {
    QuoteDoc {
        schema: "modchain.quote/v1",
        hold: money(view.hold, asset),
        available: money(view.available, asset),
        affordable: view.affordable,
        fee_percent: percent(view.fee_basis_points),
        offers: view.offers.iter().map(|offer| offer_doc(offer, asset)).collect(),
        refusals: view.refusals.iter().map(|refusal| verdict(refusal, asset)).collect(),
        spec: spec.map(|of| self::spec(of, asset)),
    }
}

fn offer_doc(view: &OfferView, asset: Asset) -> OfferDoc {
    OfferDoc {
        node: view.node.to_string(),
        price_per_hour: money(view.price_per_hour, asset),
        minimum: money(view.minimum, asset),
        run_limit_ms: view.run_limit.as_millis(),
        limited_by: if view.budget_bound { "budget" } else { "time_limit" },
    }
}

/// `5` or `2.5` from hundredths of a percent.
pub(crate) fn percent(basis_points: u16) -> String {
    let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A specification, with the words of the flags.
#[derive(Debug, Serialize)]
pub(crate) struct SpecDoc {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    module: Option<ModuleDoc>,
    cpu_milli: u32,
    memory_bytes: u64,
    node: Option<String>,
    require: BTreeMap<String, String>,
    max_cost: Money,
    time_limit_ms: Option<u64>,
    start_by_ms: Option<u64>,
    lost_after_ms: u64,
    on_disconnect: &'static str,
    attempts_max: u32,
    output_bytes_max: u64,
    priority: i8,
    labels: BTreeMap<String, String>,
    stdin: bool,
}

#[derive(Debug, Serialize)]
struct ModuleDoc {
    file: String,
    digest: String,
    bytes: u64,
    args: Vec<String>,
    env: BTreeMap<String, String>,
}

/// The document of a specification.
pub(crate) fn spec(spec: &JobSpec, asset: Asset) -> SpecDoc {
    let module = match &spec.body {
        TaskBody::Inline(Task::Wasm(task)) => Some(ModuleDoc {
            file: task.module_name.as_str().to_owned(),
            digest: task.module.to_string(),
            bytes: task.module_bytes,
            args: task.args.iter().map(|arg| arg.as_str().to_owned()).collect(),
            env: words(&task.env),
        }),
        TaskBody::Blob { .. } => None,
    };
    SpecDoc {
        name: some(&spec.name),
        kind: match spec.requirements.adapter {
            adapter @ (Adapter::Wasm | Adapter::Docker | Adapter::Llm | Adapter::Mcp) => adapter.word(),
        },
        module,
        cpu_milli: spec.requirements.cpu_milli,
        memory_bytes: spec.requirements.memory_bytes,
        node: spec.requirements.node.as_ref().map(ToString::to_string),
        require: spec.requirements.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        max_cost: money(spec.max_cost, asset),
        time_limit_ms: spec.limits.time_limit.map(Span::as_millis),
        start_by_ms: spec.limits.start_by.map(Span::as_millis),
        lost_after_ms: spec.limits.lost_after.as_millis(),
        on_disconnect: match spec.limits.on_disconnect {
            OnDisconnect::Keep => "keep",
            OnDisconnect::Stop => "stop",
        },
        attempts_max: spec.limits.attempts_max,
        output_bytes_max: spec.limits.output_bytes_max,
        priority: spec.priority,
        labels: words(&spec.labels),
        stdin: spec.input == Input::Stream,
    }
}

/// `modchain.status/v1`.
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
    nodes.entry("ready").or_insert(0);
    let mut states: BTreeMap<_, _> = view.jobs.iter().map(|(state, count)| (state.word(), *count)).collect();
    for word in ["running", "queued"] {
        states.entry(word).or_insert(0);
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
        },
        jobs: JobCountsDoc { states, oldest_queued_ms: view.oldest_queued.map(Span::as_millis) },
        account: view.account.as_ref().map(|view| account(view, asset)),
        problems: view.problems.iter().map(|problem| problem.as_str().to_owned()).collect(),
    }
}

/// `modchain.whoami/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct WhoamiDoc {
    schema: &'static str,
    name: String,
    role: &'static str,
    account: String,
    id: String,
    context: String,
    orchestrator: String,
    journal: String,
    currency: &'static str,
}

/// The document of who the orchestrator takes this program for.
pub(crate) fn whoami(welcome: &ConsoleWelcome, context: &str, addr: &str) -> WhoamiDoc {
    WhoamiDoc {
        schema: "modchain.whoami/v1",
        name: welcome.identity.name.to_string(),
        role: welcome.identity.role.word(),
        account: welcome.identity.account.to_string(),
        id: welcome.identity.id.to_string(),
        context: context.to_owned(),
        orchestrator: addr.to_owned(),
        journal: welcome.journal.to_string(),
        currency: welcome.asset.code(),
    }
}

/// `modchain.version/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct VersionDoc {
    schema: &'static str,
    program: &'static str,
    version: &'static str,
    wire: u8,
    server: Option<ServerVersionDoc>,
}

/// The orchestrator's part of a version document.
#[derive(Debug, Serialize)]
pub(crate) struct ServerVersionDoc {
    /// Where it was asked.
    pub(crate) addr: String,
    /// What it says.
    pub(crate) version: String,
}

/// The document of this program's version.
pub(crate) fn version(server: Option<ServerVersionDoc>) -> VersionDoc {
    VersionDoc {
        schema: "modchain.version/v1",
        program: "modchain",
        version: env!("CARGO_PKG_VERSION"),
        wire: modchain_wire::WIRE_VERSION,
        server,
    }
}

/// `modchain.context/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct ContextDoc {
    /// `modchain.context/v1`.
    pub(crate) schema: &'static str,
    /// What it is called.
    pub(crate) name: String,
    /// `HOST:PORT`.
    pub(crate) orchestrator: String,
    /// The folder of its identity.
    pub(crate) identity: String,
    /// Whether it is used where none is named.
    pub(crate) current: bool,
}

/// `modchain.up/v1`: what `up --headless -o json` prints when the stack is ready.
#[derive(Debug, Serialize)]
pub(crate) struct UpDoc {
    /// `modchain.up/v1`.
    pub(crate) schema: &'static str,
    /// Where the orchestrator listens.
    pub(crate) orchestrator: String,
    /// Where everything is kept.
    pub(crate) data: String,
    /// Names of the contexts.
    pub(crate) contexts: Vec<String>,
    /// Names of the nodes.
    pub(crate) nodes: Vec<String>,
    /// This process.
    pub(crate) pid: u32,
}

#[cfg(test)]
mod tests;
