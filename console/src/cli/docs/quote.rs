//! Documents of what would be: quotes, specifications, and why a job is where it is.

use std::collections::BTreeMap;

use modchain_types::{Adapter, Asset, Input, JobSpec, OnDisconnect, Span, Task, TaskBody};
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
        TaskBody::Inline(Task::Docker(_) | Task::Llm(_)) | TaskBody::Blob { .. } => None,
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
