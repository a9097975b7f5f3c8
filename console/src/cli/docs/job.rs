//! Documents of jobs: one job, what became of a submit, what became of a cancel.

use std::collections::BTreeMap;

use modchain_types::{Adapter, Asset, Exit, Span, Usage};
use modchain_wire::console::Submitted;
use modchain_wire::view::{AttemptView, JobView};
use serde::Serialize;

use super::{Money, money, some, time, words};

/// The code a job ended with, and whose it is.
#[derive(Debug, Serialize)]
pub(crate) struct ExitDoc {
    code: u8,
    from: &'static str,
}

pub(super) fn exit(exit: Exit) -> ExitDoc {
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
    model: Option<String>,
    image: Option<String>,
    gpus: Vec<GpuDoc>,
    state: &'static str,
    reason: Option<&'static str>,
    exit: Option<ExitDoc>,
    message: Option<String>,
    preparing: Option<String>,
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

/// A GPU that the job's attempt holds.
#[derive(Debug, Serialize)]
struct GpuDoc {
    uuid: String,
    model: String,
}

#[derive(Debug, Serialize)]
struct UsageDoc {
    ran_ms: u64,
    prompt_tokens: u64,
    output_tokens: u64,
    fuel: u64,
    load_ms: Option<u64>,
    first_token_ms: Option<u64>,
    generating_ms: Option<u64>,
    tokens_per_s: Option<f64>,
}

/// What a language model took is known once it has answered; other jobs never know.
fn usage(usage: &Usage, adapter: Adapter) -> UsageDoc {
    let answered = adapter == Adapter::Llm && usage.ran > Span::ZERO;
    let made = answered && usage.output_tokens > 0;
    let millis = |span: Span, known: bool| known.then(|| span.as_millis());
    UsageDoc {
        ran_ms: usage.ran.as_millis(),
        prompt_tokens: usage.prompt_tokens,
        output_tokens: usage.output_tokens,
        fuel: usage.fuel,
        load_ms: millis(usage.load, answered),
        first_token_ms: millis(usage.first_token, made),
        generating_ms: millis(usage.generating, made),
        tokens_per_s: tokens_per_second(usage),
    }
}

/// How fast a model made its tokens, to a tenth; `None` where it made none, or its server does not say in which time.
pub(crate) fn tokens_per_second(usage: &Usage) -> Option<f64> {
    let tenths = usage.output_tokens.saturating_mul(10_000_000).checked_div(usage.generating.0)?;
    // Far below where a float of 64 bits loses whole numbers.
    (usage.output_tokens > 0).then(|| tenths.min(1 << 50) as f64 / 10.0)
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
        model: view.model.as_ref().and_then(some),
        image: view.image.as_ref().and_then(some),
        gpus: view
            .gpus
            .iter()
            .map(|(uuid, model)| GpuDoc { uuid: uuid.to_string(), model: model.to_string() })
            .collect(),
        state: view.state.word(),
        reason: view.reason.map(|reason| reason.word()),
        exit: view.exit.map(exit),
        message: some(&view.message),
        preparing: some(&view.preparing),
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
        usage: usage(&view.usage, view.adapter),
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

/// `modchain.job_change/v1`: what became of a job while somebody watched.
#[derive(Debug, Serialize)]
pub(crate) struct JobChangeDoc {
    schema: &'static str,
    op: &'static str,
    job: JobDoc,
}

/// A job was added, changed or removed; a removed one is shown as it is now.
pub(crate) fn job_change(op: &'static str, view: &JobView, asset: Asset) -> JobChangeDoc {
    JobChangeDoc { schema: "modchain.job_change/v1", op, job: job(view, asset) }
}
