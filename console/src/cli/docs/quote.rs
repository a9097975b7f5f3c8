//! Documents of what would be: quotes, specifications, and why a job is where it is.

use std::collections::BTreeMap;

use modchain_types::{
    Asset, DockerTask, Exceptions, GpuRequest, Input, JobId, JobSpec, LlmKind, LlmRequest, LlmTask, OnDisconnect, Span,
    Task, TaskBody, Text, WasmTask,
};
use modchain_wire::view::{ExplanationView, NodeVerdictView, OfferView, QuoteView};
use serde::Serialize;

use super::{Money, money, some, words};

/// `modchain.explanation/v1`.
#[derive(Debug, Serialize)]
pub(crate) struct ExplanationDoc {
    schema: &'static str,
    job: String,
    state: &'static str,
    summary: String,
    ahead: Option<u64>,
    ahead_own: Option<u64>,
    priority: Option<i8>,
    priority_counts_as: Option<i8>,
    starts_within_ms: Option<u64>,
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
        ahead: view.queue.map(|queue| queue.ahead),
        ahead_own: view.queue.map(|queue| queue.ahead_own),
        priority: view.queue.map(|queue| queue.priority),
        priority_counts_as: view.queue.map(|queue| queue.counts_as),
        starts_within_ms: view.queue.and_then(|queue| queue.starts_within).map(Span::as_millis),
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
    million_prompt_tokens: Option<Money>,
    million_output_tokens: Option<Money>,
    model: Option<&'static str>,
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
        million_prompt_tokens: view.million_prompt_tokens.map(|price| money(price, asset)),
        million_output_tokens: view.million_output_tokens.map(|price| money(price, asset)),
        model: view.model.map(|place| place.word()),
    }
}

/// `5` or `2.5` from hundredths of a percent.
pub(crate) fn percent(basis_points: u16) -> String {
    let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `modchain.spec/v1`: what a job was submitted with.
#[derive(Debug, Serialize)]
pub(crate) struct JobSpecDoc {
    schema: &'static str,
    job: String,
    #[serde(flatten)]
    spec: SpecDoc,
    request: Option<LlmRequest>,
}

/// The document of a job's specification; `request` is what it asked of a language model, where that is known.
pub(crate) fn job_spec(job: JobId, spec: &JobSpec, request: Option<LlmRequest>, asset: Asset) -> JobSpecDoc {
    JobSpecDoc { schema: "modchain.spec/v1", job: job.to_string(), spec: self::spec(spec, asset), request }
}

/// A specification, with the words of the flags.
#[derive(Debug, Serialize)]
pub(crate) struct SpecDoc {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    module: Option<ModuleDoc>,
    container: Option<ContainerDoc>,
    llm: Option<LlmDoc>,
    cpu_milli: u32,
    memory_bytes: u64,
    gpus: GpusDoc,
    node: Option<String>,
    region: Option<String>,
    require: BTreeMap<String, String>,
    price_per_hour_max: Option<Money>,
    max_cost: Money,
    time_limit_ms: Option<u64>,
    start_by_ms: Option<u64>,
    lost_after_ms: u64,
    on_disconnect: &'static str,
    attempts_max: u32,
    output_bytes_max: u64,
    policy: &'static str,
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

#[derive(Debug, Serialize)]
struct ContainerDoc {
    image: String,
    entrypoint: Option<Vec<String>>,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    workdir: Option<String>,
    tmp_bytes: u64,
    pids_max: u32,
    pull_timeout_ms: u64,
    writable_root: bool,
    network: bool,
}

/// What is asked is in a file that the digest names.
#[derive(Debug, Serialize)]
struct LlmDoc {
    model: String,
    kind: &'static str,
    request_digest: String,
    request_bytes: u64,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
    seed: Option<u32>,
    json: bool,
}

#[derive(Debug, Serialize)]
struct GpusDoc {
    count: u32,
    memory_bytes_min: u64,
    model: Option<String>,
}

fn strings<const MAX: usize>(texts: &[Text<MAX>]) -> Vec<String> {
    texts.iter().map(|text| text.as_str().to_owned()).collect()
}

fn module(task: &WasmTask) -> ModuleDoc {
    ModuleDoc {
        file: task.module_name.as_str().to_owned(),
        digest: task.module.to_string(),
        bytes: task.module_bytes,
        args: strings(&task.args),
        env: words(&task.env),
    }
}

fn container(task: &DockerTask, exceptions: Exceptions) -> ContainerDoc {
    ContainerDoc {
        image: task.image.as_str().to_owned(),
        entrypoint: task.entrypoint.as_ref().map(|words| strings(words)),
        command: strings(&task.command),
        env: words(&task.env),
        workdir: task.workdir.as_ref().and_then(some),
        tmp_bytes: task.tmp_bytes,
        pids_max: task.pids_max,
        pull_timeout_ms: task.pull_timeout.as_millis(),
        writable_root: exceptions.writable_root,
        network: exceptions.network,
    }
}

fn llm(task: &LlmTask) -> LlmDoc {
    LlmDoc {
        model: task.model.as_str().to_owned(),
        kind: match task.kind {
            LlmKind::Generate => "generate",
            LlmKind::Chat => "chat",
            LlmKind::Embed => "embed",
        },
        request_digest: task.request.to_string(),
        request_bytes: task.request_bytes,
        temperature: task.temperature_milli.map(|milli| f64::from(milli) / 1_000.0),
        max_tokens: task.max_tokens,
        seed: task.seed,
        json: task.json,
    }
}

fn gpus(request: &GpuRequest) -> GpusDoc {
    GpusDoc {
        count: request.count,
        memory_bytes_min: request.memory_bytes_min,
        model: request.model.as_ref().and_then(some),
    }
}

/// The document of a specification.
pub(crate) fn spec(spec: &JobSpec, asset: Asset) -> SpecDoc {
    let (mut module, mut container, mut llm) = (None, None, None);
    match &spec.body {
        TaskBody::Inline(Task::Wasm(task)) => module = Some(self::module(task)),
        TaskBody::Inline(Task::Docker(task)) => container = Some(self::container(task, spec.requirements.exceptions)),
        TaskBody::Inline(Task::Llm(task)) => llm = Some(self::llm(task)),
        TaskBody::Blob { .. } => {}
    }
    SpecDoc {
        name: some(&spec.name),
        kind: spec.requirements.adapter.word(),
        module,
        container,
        llm,
        cpu_milli: spec.requirements.cpu_milli,
        memory_bytes: spec.requirements.memory_bytes,
        gpus: gpus(&spec.requirements.gpus),
        node: spec.requirements.node.as_ref().map(ToString::to_string),
        region: spec.requirements.region.as_ref().and_then(some),
        price_per_hour_max: spec.requirements.price_per_hour_max.map(|price| money(price, asset)),
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
        policy: spec.policy.word(),
        priority: spec.priority,
        labels: words(&spec.labels),
        stdin: spec.input == Input::Stream,
    }
}
