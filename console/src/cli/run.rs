//! `run` and `quote`: send a job, follow it, end with its exit code.

use bytes::Bytes;
use modchain_types::{Adapter, Asset, Input, JobId, JobSpec, JobState, Micro, ModelPlace, SubmitKey, Text};
use modchain_wire::console::{JobRef, QuoteRequest, Submit, Submitted};
use modchain_wire::view::{JobView, QuoteView};

use super::follow::{self, End, Follow};
use super::history::{Answer, Conversation};
use super::input::{self, Feed};
use super::log_printer::{LogPrinter, Streams, Style};
use super::spec::{self, Left, Plan};
use super::table::{Align, Table, pairs};
use super::{docs, jobs};
use crate::args::{Format, QuoteArgs, RunArgs};
use crate::client::Client;
use crate::client::state::random_key;
use crate::exit::{self, Failure, Outcome};
use crate::shell::{OnInterrupt, Shell};
use crate::signal::Signals;
use crate::text;

/// How often a submit whose answer was lost is sent again over a new connection. The key makes that harmless.
const SUBMIT_TRIES_MAX: u32 = 6;

/// `modchain run`.
pub(crate) async fn run(shell: &Shell, mut args: RunArgs, signals: &mut Signals) -> Outcome {
    let (flags, max_cost) = (std::mem::take(&mut args.job), shell.target()?.max_cost);
    let plan = tokio::select! {
        plan = planned(move || spec::plan(flags, max_cost)) => plan?,
        wish = signals.next() => return Ok(wish.exit()),
    };
    submit_and_follow(shell, args, plan, None, signals).await
}

/// Does with a plan what the flags say; their job is in the plan. A client that is connected already is used first.
pub(super) async fn submit_and_follow(
    shell: &Shell,
    args: RunArgs,
    plan: Plan,
    client: Option<Client>,
    signals: &mut Signals,
) -> Outcome {
    let target = shell.target()?;
    if args.dry_run {
        let client = match client {
            Some(client) => client,
            None => shell.connect().await?,
        };
        return show_quote(shell, &client, plan.spec, Spec::Show).await;
    }
    if args.detach && plan.conversation.is_some() {
        return Err(Failure::usage("nobody is there to add the answer to the conversation with --detach")
            .hint("leave --detach out, or --history"));
    }
    if plan.spec.input == Input::Stream {
        input::check_size()?;
    }
    plan.warnings.iter().for_each(|warning| shell.say(warning));
    let attached = |failure: Failure| if args.detach { failure } else { failure.attached() };
    let key = match args.id {
        Some(key) => key,
        None => random_key()?,
    };
    // Remember before sending: whoever loses the answer can ask again with the same key.
    if let Err(error) = shell.submits().remember(&target.context, &key, None) {
        shell.say(&format!("warning: the key of this job is not kept ({error:#}); it is {key}"));
    }
    let reads_input = plan.spec.input == Input::Stream;
    let Plan { spec, no_queue, blob, conversation, warnings: _, left } = plan;
    let submitting = submit(shell, client, Submit { key: key.clone(), spec, no_queue }, blob);
    let (client, submitted) = tokio::select! {
        result = submitting => result.map_err(|failure| attached(Left::missed(left, failure)))?,
        wish = signals.next() => {
            shell.say(&format!("the job may have been accepted: `modchain run --id {key}` with the same job tells"));
            return Ok(wish.exit());
        }
    };
    if let Err(error) = shell.submits().remember(&target.context, &key, Some(&submitted.job.to_string())) {
        shell.say(&format!("warning: @last does not know this job: {error:#}"));
    }
    let asset = client.welcome().asset;
    let id = shell.id_said(&submitted.job);
    if args.detach {
        if reads_input {
            tokio::select! {
                sent = send_input(shell, &client, submitted.job) => sent.map_err(|failure| {
                    failure.hint(format!("{id} waits for its input: the same command with --id {key} sends the rest"))
                })?,
                wish = signals.next() => {
                    say_detached(shell, &id, None, submitted.held, asset);
                    return Ok(wish.exit());
                }
            }
        }
        return detached(shell, &submitted, &key, asset, &id);
    }
    shell.say(&accepted(&submitted, &id, asset));
    let style = match shell.format() {
        Format::Table => Style::Bytes,
        Format::Jsonl => Style::Documents,
        Format::Json | Format::Name => Style::Nothing,
    };
    let on_interrupt = match shell.on_interrupt {
        OnInterrupt::Detach if args.cancel_on_interrupt => OnInterrupt::Cancel,
        other => other,
    };
    let mut answer = Answer::default();
    let mut follow = Follow {
        shell,
        job: submitted.job,
        asset,
        since: None,
        printer: LogPrinter::start(shell, submitted.job, Streams::All, style, false, None),
        feed: reads_input.then(Feed::start),
        on_interrupt,
        narrate: true,
        answer: conversation.is_some().then_some(&mut answer),
    };
    match follow.run(client, signals).await.map_err(Failure::attached)? {
        End::Detached(wish, view) => {
            match view {
                // One document at the end, and this is the end.
                Some(job) if shell.format().is_json() => shell.print_document(&docs::job(&job, asset))?,
                view => say_detached(shell, &id, view.as_deref(), submitted.held, asset),
            }
            if let Some(conversation) = conversation {
                shell.say(&format!("  the answer is not added to {}", conversation.path().display()));
            }
            Ok(wish.exit())
        }
        End::Ended(job) => {
            let kept = conversation.map_or(Ok(()), |conversation| keep(shell, &conversation, answer, &job));
            finished(shell, &job, &id, asset)?;
            kept.map_err(|failure| failure.hint(format!("the answer is here: modchain logs {id}")))?;
            Ok(follow::exit_of(&job))
        }
    }
}

/// Builds the job. What it is made of may come from standard input, and waiting for that holds nothing up.
pub(super) async fn planned(plan: impl FnOnce() -> Result<Plan, Failure> + Send + 'static) -> Result<Plan, Failure> {
    let planning = tokio::task::spawn_blocking(plan);
    planning.await.map_err(|error| Failure::failed(format!("the job could not be put together: {error}")))?
}

/// Adds question and answer to the conversation, if there is a whole answer.
fn keep(shell: &Shell, conversation: &Conversation, answer: Answer, job: &JobView) -> Result<(), Failure> {
    if job.state == JobState::Completed && job.output.dropped == 0 {
        return conversation.keep(answer.text());
    }
    shell.say(&format!("the conversation in {} is as it was", conversation.path().display()));
    Ok(())
}

/// What became of a submit.
fn accepted(submitted: &Submitted, id: &str, asset: Asset) -> String {
    if submitted.existing {
        format!("{id}  submitted before with this key, {}", submitted.state.word())
    } else {
        format!("{id}  submitted, {} held", text::money(submitted.held, asset))
    }
}

/// Sends standard input to its end; again over a new connection if one breaks. Nobody else has it: who leaves before it is
/// sent leaves the job waiting.
async fn send_input(shell: &Shell, client: &Client, job: JobId) -> Result<(), Failure> {
    let job: JobRef = Text::cut(job.to_string());
    let mut feed = Feed::start();
    let mut backoff = modchain_link::Backoff::new();
    let mut sent = feed.pump(client, job.clone(), |_| {}).await;
    for _ in 0..SUBMIT_TRIES_MAX {
        match sent {
            Err(failure) if failure.lost => tokio::time::sleep(backoff.next_delay()).await,
            done => return done.map(drop),
        }
        sent = match shell.connect().await {
            Ok(client) => feed.pump(&client, job.clone(), |_| {}).await,
            Err(failure) => Err(failure),
        };
    }
    sent.map(drop)
}

/// What a detached run prints.
fn detached(shell: &Shell, submitted: &Submitted, key: &SubmitKey, asset: Asset, id: &str) -> Outcome {
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::submitted(submitted, key.as_str(), asset))?,
        Format::Name | Format::Table => {
            // The id is for scripts: always whole.
            shell.print(&format!("{}\n", submitted.job))?;
            shell.say(&accepted(submitted, id, asset));
            shell.say(&format!("  follow it   modchain logs -f {id}"));
        }
    }
    Ok(exit::OK)
}

/// The lines at the end of an attached run, or its last document.
fn finished(shell: &Shell, job: &JobView, id: &str, asset: Asset) -> Result<(), Failure> {
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::job(job, asset)),
        Format::Name => shell.print(&format!("{}\n", job.id)),
        Format::Table => {
            follow::summary(job, id, asset).iter().for_each(|line| shell.say(line));
            Ok(())
        }
    }
}

/// What somebody who leaves should know.
pub(crate) fn say_detached(shell: &Shell, id: &str, view: Option<&JobView>, held: Micro, asset: Asset) {
    if view.is_some_and(|job| job.state.is_ended()) {
        return shell.say(&format!("Left before all output of {id} was shown: modchain logs {id}"));
    }
    if view.is_some_and(|job| job.state == JobState::Cancelling) {
        return shell.say(&format!("Left. {id} is being cancelled."));
    }
    let spent = view.map_or(Micro::ZERO, |job| job.cost);
    let more = held.checked_sub(spent).unwrap_or(Micro::ZERO);
    let goes_on = if view.is_some_and(|job| job.state == JobState::Queued) { "still waits" } else { "runs on" };
    shell.say(&format!("Detached. {id} {goes_on}, up to {} more.", text::money(more, asset)));
    shell.say(&format!("  come back   modchain logs -f {id}"));
    shell.say(&format!("  stop it     modchain cancel {id}"));
}

/// Puts what is sent beside the job and submits it; again over a new connection if one breaks.
async fn submit(
    shell: &Shell,
    client: Option<Client>,
    request: Submit,
    blob: Option<Bytes>,
) -> Result<(Client, Submitted), Failure> {
    // Whoever is not there at the start is not waited for: that is the caller's to decide.
    let mut client = match client {
        Some(client) => Some(client),
        None => Some(shell.connect().await?),
    };
    let mut backoff = modchain_link::Backoff::new();
    let mut tries = 0;
    loop {
        let attempt = async {
            let client = match client.take() {
                Some(client) => client,
                None => shell.connect().await?,
            };
            if let Some(blob) = &blob {
                client.put_blob(blob).await?;
            }
            let submitted = client.submit(request.clone()).await?;
            Ok::<_, Failure>((client, submitted))
        };
        match attempt.await {
            Err(failure) if failure.lost && tries < SUBMIT_TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(failure) if failure.lost => {
                let key = &request.key;
                let hint =
                    format!("it may have been accepted: run it again with --id {key}, which makes no second job");
                return Err(failure.hint(hint));
            }
            other => return other,
        }
    }
}

/// `modchain quote`.
pub(crate) async fn quote(shell: &Shell, args: QuoteArgs) -> Outcome {
    let (flags, max_cost) = (args.job, shell.target()?.max_cost);
    let plan = planned(move || spec::plan(flags, max_cost)).await?;
    let client = shell.connect().await?;
    show_quote(shell, &client, plan.spec, Spec::Hide).await
}

/// Whether a quote shows the specification too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    Show,
    Hide,
}

async fn show_quote(shell: &Shell, client: &Client, spec: JobSpec, show: Spec) -> Outcome {
    let asset = client.welcome().asset;
    let view = client.quote(QuoteRequest { spec: spec.clone() }).await?;
    match shell.format() {
        Format::Json | Format::Jsonl => {
            shell.print_document(&docs::quote(&view, (show == Spec::Show).then_some(&spec), asset))?;
        }
        Format::Name => {
            let names: String = view.offers.iter().map(|offer| format!("{}\n", offer.node)).collect();
            shell.print(&names)?;
        }
        Format::Table => {
            if show == Spec::Show {
                shell.print(&spec_table(&spec, asset))?;
            }
            shell.print(&quote_table(&view, spec.requirements.adapter, asset))?;
        }
    }
    // A dry run answers a question; a quote that cannot be taken is a refusal.
    let possible = view.affordable && !view.offers.is_empty();
    Ok(if possible || show == Spec::Show { exit::OK } else { exit::REFUSED })
}

/// Every field of the specification, one a line, by its name in the JSON document.
pub(crate) fn spec_table(spec: &JobSpec, asset: Asset) -> String {
    let document = serde_json::to_value(docs::spec(spec, asset)).unwrap_or_default();
    let mut lines = Vec::new();
    flatten("", &document, &mut lines);
    let lines: Vec<(&str, String)> = lines.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    format!("{}\n", pairs(&lines))
}

fn flatten(name: &str, value: &serde_json::Value, lines: &mut Vec<(String, String)>) {
    use serde_json::Value;
    match value {
        Value::Null => {}
        Value::Object(fields) => match (fields.get("micro").and_then(Value::as_u64), fields.get("currency")) {
            (Some(micro), Some(Value::String(currency))) => {
                lines.push((name.to_owned(), format!("{} {currency}", Micro(micro))));
            }
            _ => fields.iter().for_each(|(field, value)| {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                flatten(&name, value, lines);
            }),
        },
        Value::String(text) => lines.push((name.to_owned(), text.clone())),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => lines.push((name.to_owned(), value.to_string())),
    }
}

/// Prices of tokens are for a million of them, read and made.
pub(crate) fn quote_table(view: &QuoteView, adapter: Adapter, asset: Asset) -> String {
    let mut text = pairs(&[
        ("held", text::money(view.hold, asset)),
        ("available", text::money(view.available, asset) + if view.affordable { "" } else { " (not enough)" }),
        ("fee", format!("{} % of the cost, in it", docs::percent(view.fee_basis_points))),
    ]);
    text.push('\n');
    let tokens = adapter == Adapter::Llm;
    let mut columns = vec![("NODE", Align::Left), ("PRICE/H", Align::Right), ("LEAST", Align::Right)];
    if tokens {
        columns.extend([("READ/M", Align::Right), ("MADE/M", Align::Right), ("MODEL", Align::Left)]);
    }
    columns.extend([("RUNS UP TO", Align::Right), ("LIMITED BY", Align::Left)]);
    let mut offers = Table::new(&columns);
    for offer in &view.offers {
        let mut row = vec![offer.node.to_string(), offer.price_per_hour.to_string(), offer.minimum.to_string()];
        if tokens {
            let price = |price: Option<Micro>| price.map_or_else(|| "-".into(), |price| price.to_string());
            row.extend([price(offer.million_prompt_tokens), price(offer.million_output_tokens)]);
            row.push(offer.model.map_or("-", ModelPlace::word).into());
        }
        let limited_by = if offer.budget_bound { "max cost" } else { "time limit" };
        row.extend([offer.run_limit.to_string(), limited_by.into()]);
        offers.row(row);
    }
    if view.offers.is_empty() {
        text.push_str("no node can run it now\n");
    } else {
        text.push_str(&offers.render());
    }
    text.push_str(&jobs::verdicts(&view.refusals));
    text
}
