//! The form of a new job, or of one that is run again: its fields are the flags of `modchain run`, and what the orchestrator quotes for
//! them is shown as it is typed.

use std::collections::BTreeMap;

use modchain_types::{Asset, JobId, LlmRequest, Micro, Policy, Span};
use modchain_wire::view::QuoteView;

use super::super::super::theme::Role;
use super::field::{Control, Field, Spec};
use super::{Check, Form, Purpose};
use crate::args::{JobType, OnDisconnectFlag};
use crate::cli::job_file::{JobFile, SCHEMA};
use crate::cli::spec::{Earlier, Plan, size, span};
use crate::client::live::LinkState;
use crate::text;

/// Every kind: a module, a container, a language model, a job file.
const ALL: &str = "wdlf";

const KINDS: &[(&str, &str)] = &[("wasm", "module"), ("docker", "container"), ("llm", "llm"), ("", "job file")];

/// The letter of each kind in the table, in the order of the choice.
const LETTERS: [char; 4] = ['w', 'd', 'l', 'f'];

macro_rules! fields {
    ($($word:literal $label:literal $control:expr, $width:literal, $kinds:expr, $shown:ident, $help:literal;)+) => {
        /// The fields, in the order of the form. Every flag of `run` that describes a job is here.
        pub(super) const FIELDS: &[Spec] = &[
            $(Spec {
                word: $word,
                label: $label,
                help: $help,
                control: $control,
                width: $width,
                kinds: $kinds,
                rare: fields!(@rare $shown),
                joined: fields!(@joined $shown),
            },)+
        ];
    };
    (@rare own) => { false };
    (@rare joined) => { false };
    (@rare rare) => { true };
    (@rare rarely_joined) => { true };
    (@joined own) => { false };
    (@joined joined) => { true };
    (@joined rare) => { false };
    (@joined rarely_joined) => { true };
}

fields! {
    "type" "Kind" Control::Choice(KINDS), 0, ALL, own, "what runs: Left and Right choose";
    "file" "Job file" Control::Text, 0, "f", own, "a TOML file on this machine; what is said below goes over it";
    "wasm" "Module" Control::Text, 0, "w", own, "a file on this machine, .wasm or .wat";
    "image" "Image" Control::Text, 0, "d", own, "NAME, NAME:TAG, NAME@sha256:..., or an id that the node has";
    "model" "Model" Control::Text, 0, "l", own, "NAME:TAG, such as smollm2:135m";
    "args" "Arguments" Control::Rest, 0, "wdf", own, "of the module, or the command of the container; quotes as in a shell";
    "entrypoint" "Entry point" Control::Words, 0, "df", rare, "instead of the image's; \"\" for none at all";
    "workdir" "Folder" Control::Text, 0, "df", rare, "where it starts, an absolute path in the container";
    "prompt" "Prompt" Control::Text, 0, "lf", own, "what to ask; it can be pasted with its lines";
    "system" "System" Control::Text, 0, "lf", own, "how the model is to behave";
    "max-tokens" "Tokens" Control::Text, 8, "lf", own, "most tokens to make";
    "temperature" "temperature" Control::Text, 6, "lf", rarely_joined, "how freely it chooses, 0 to 10";
    "seed" "seed" Control::Text, 10, "lf", rarely_joined, "makes the choice repeatable";
    "json" "answer in JSON" Control::Switch, 0, "lf", rare, "Space turns it on: the answer is one JSON document";
    "history" "History" Control::Text, 0, "lf", rare, "a conversation so far, a JSON file";
    "embed" "Embed" Control::Words, 0, "lf", rare, "texts that become vectors, instead of a prompt";
    "name" "Name" Control::Text, 24, ALL, own, "what to call the job";
    "env" "Env" Control::Words, 0, "wdf", own, "NAME=VALUE ...; a name alone takes the value from here";
    "env-file" "Env files" Control::Words, 0, "wdf", rare, "files with one NAME=VALUE a line";
    "allow-secrets-on-node" "send what looks like a secret" Control::Switch, 0, "wdf", rare, "the owner of the node can read it";
    "gpus" "GPUs" Control::Text, 3, "dlf", own, "how many, 0 to 64";
    "gpu-model" "x" Control::Text, 12, "dlf", joined, "a part of the GPU's name, such as H100";
    "gpu-memory" "at least" Control::Text, 8, "dlf", joined, "memory of each, such as 40GiB";
    "cpus" "CPU / RAM" Control::Text, 6, ALL, own, "cores, such as 2 or 0.5; 1 by default, 0.1 for language models";
    "memory" "cores," Control::Text, 8, ALL, joined, "reserved, and the job's limit; 256MiB by default, 64MiB for language models";
    "node" "Node" Control::Text, 18, ALL, own, "the one node to use; any by default";
    "require" "labels" Control::Words, 20, ALL, joined, "only nodes with these: pool=a100 ...";
    "region" "Region" Control::Text, 18, ALL, rare, "only nodes of this region";
    "price-per-hour" "at most" Control::Text, 8, ALL, rarely_joined, "only nodes where an hour costs no more than this";
    "time-limit" "Time limit" Control::Text, 8, ALL, own, "longest run, such as 10m or 2h";
    "retries" "retries" Control::Text, 3, ALL, joined, "attempts beyond the first, 0 to 19; 2 by default";
    "start-by" "Start within" Control::Text, 8, ALL, rare, "longest wait in the queue";
    "lost-after" "lost after" Control::Text, 8, ALL, rarely_joined, "silence of a node after which the job moves on, 60s by default";
    "priority" "priority" Control::Text, 4, ALL, rarely_joined, "higher goes first among your own jobs, -100 to 100";
    "policy" "Prefer" Control::Choice(&[("", "cheapest"), ("fastest", "fastest"), ("spread", "least reserved")]), 0, ALL, rare, "which of the nodes that fit";
    "on-disconnect" "Cut off" Control::Choice(&[("", "keep"), ("stop", "stop")]), 0, ALL, rare, "what it does while its node cannot reach the orchestrator";
    "pull-timeout" "Pull within" Control::Text, 8, "df", rare, "longest pull of the image, never billed; 10m by default";
    "pids" "processes" Control::Text, 6, "df", rarely_joined, "processes and threads at once, 512 by default";
    "tmp-size" "/tmp" Control::Text, 8, "df", rarely_joined, "its size: memory, and counted as such; 256MiB by default";
    "writable-root" "writable root" Control::Switch, 0, "df", rare, "on nodes whose owner allows it";
    "network" "network" Control::Switch, 0, "df", rarely_joined, "on nodes whose owner allows it";
    "max-cost" "Max cost" Control::Text, 10, ALL, own, "the most this job may cost; held in escrow at submit";
    "label" "Labels" Control::Words, 0, ALL, own, "KEY=VALUE ..., to find the job by";
    "stdin" "write to its input" Control::Switch, 0, "wdf", own, "Space turns it on; i in its output writes lines to it";
    "no-queue" "only if it starts now" Control::Switch, 0, ALL, joined, "refused instead of waiting for a node";
}

/// What only the form of a job has.
#[derive(Debug, Default)]
pub(crate) struct JobForm {
    /// The job that is run again, with what it was submitted with.
    pub(super) earlier: Option<Box<Earlier>>,
    /// A job file that was edited and makes no sense yet: the editor opens on it again.
    pub(super) draft: Option<String>,
}

/// The kind of job that is chosen, as a letter of the table.
pub(super) fn kind(fields: &[Field]) -> char {
    let chosen = fields.first().and_then(|field| KINDS.iter().position(|(word, _)| *word == field.text()));
    LETTERS[chosen.unwrap_or(0)]
}

/// The command line of the form, without the program's name.
///
/// # Errors
/// What is wrong with a field.
pub(super) fn line(form: &Form, job: &JobForm) -> Result<Vec<String>, String> {
    let mut line = match &job.earlier {
        Some(earlier) => vec!["job".to_owned(), "rerun".to_owned(), earlier.job().to_string()],
        None => vec!["run".to_owned()],
    };
    let decided = form.shown().any(|field| ["wasm", "image", "model"].contains(&field.spec.word) && field.says());
    let left_out: Vec<&str> = form.shown().filter_map(Field::left_out).collect();
    if !left_out.is_empty() {
        line.extend(["--without".to_owned(), left_out.join(",")]);
    }
    let mut rest = Vec::new();
    for field in form.shown() {
        match (field.spec.word, field.spec.control) {
            // Another flag says it, or nothing would be gained.
            ("type", _) if decided || job.earlier.is_some() => {}
            (_, Control::Rest) => rest = field.words().map_err(|why| format!("{}: {why}", field.spec.label))?,
            _ => line.extend(field.words().map_err(|why| format!("{}: {why}", field.spec.label))?),
        }
    }
    if !rest.is_empty() {
        line.push("--".to_owned());
        line.extend(rest);
    }
    Ok(line)
}

/// Fills a form in from what a job file says.
pub(super) fn fill(fields: &mut [Field], file: &JobFile, env: &BTreeMap<String, String>, module: Option<&str>) {
    for field in fields {
        let text = value(file, env, field.spec.word);
        match (field.spec.word, module) {
            ("wasm", Some(module)) => field.set(module),
            _ => field.set(&text),
        }
    }
}

/// What a job file says for a flag, as it is typed into its field.
fn value(file: &JobFile, env: &BTreeMap<String, String>, word: &str) -> String {
    let list =
        |words: &[String]| words.iter().map(|word| super::super::super::command::quoted(word)).collect::<Vec<_>>();
    let joined = |words: &[String]| list(words).join(" ");
    let pairs = |pairs: &BTreeMap<String, String>| {
        joined(&pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
    };
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let yes = |on: bool| on.then(|| "yes".to_owned());
    let money = |amount: Option<Micro>| amount.map(|amount| amount.to_string());
    let span = |length: Option<Span>| length.map(span);
    let size = |bytes: Option<u64>| bytes.map(size);
    let (container, llm, machine) = (&file.container, &file.llm, &file.machine);
    let said = match word {
        "type" => file.kind.or_else(|| decided(file)).map(|kind| kind.word().to_owned()),
        "wasm" => path(&file.wasm),
        "image" => container.image.clone(),
        "model" => llm.model.clone(),
        "args" => file.args.as_deref().map(joined),
        "entrypoint" => container.entrypoint.as_deref().map(|words| match words {
            [] => "''".to_owned(),
            words => joined(words),
        }),
        "workdir" => container.workdir.clone(),
        "prompt" => llm.prompt.clone(),
        "system" => llm.system.clone(),
        "max-tokens" => llm.max_tokens.map(|count| count.to_string()),
        "temperature" => llm.temperature.map(thousandths),
        "seed" => llm.seed.map(|seed| seed.to_string()),
        "json" => yes(llm.json),
        "history" => path(&llm.history),
        "embed" => Some(joined(&llm.embed)),
        "name" => file.name.clone(),
        "env" => Some(pairs(if env.is_empty() { &file.env } else { env })),
        "env-file" => Some(joined(&file.env_file.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())),
        "gpus" => machine.gpus.map(|count| count.to_string()),
        "gpu-model" => machine.gpu_model.clone(),
        "gpu-memory" => size(machine.gpu_memory),
        "cpus" => file.cpus.map(text::cpus),
        "memory" => size(file.memory),
        "node" => file.node.as_ref().map(ToString::to_string),
        "require" => Some(pairs(&file.require)),
        "region" => machine.region.clone(),
        "price-per-hour" => money(machine.price_per_hour),
        "time-limit" => span(file.time_limit),
        "retries" => file.retries.map(|count| count.to_string()),
        "start-by" => span(file.start_by),
        "lost-after" => span(file.lost_after),
        "priority" => file.priority.map(|priority| priority.to_string()),
        "policy" => {
            let policy = file.policy.map(Policy::from).filter(|policy| *policy != Policy::default());
            policy.map(|policy| policy.word().to_owned())
        }
        "on-disconnect" => (file.on_disconnect == Some(OnDisconnectFlag::Stop)).then(|| "stop".to_owned()),
        "pull-timeout" => span(container.pull_timeout),
        "pids" => container.pids.map(|count| count.to_string()),
        "tmp-size" => size(container.tmp_size),
        "writable-root" => yes(container.writable_root),
        "network" => yes(container.network),
        "max-cost" => money(file.max_cost),
        "label" => Some(pairs(&file.labels)),
        "stdin" => yes(file.stdin == Some(true)),
        "no-queue" => yes(file.no_queue == Some(true)),
        // A job file cannot name another, and says nothing of secrets.
        _ => None,
    };
    said.unwrap_or_default()
}

/// The kind of job whose words a file has.
fn decided(file: &JobFile) -> Option<JobType> {
    let words = [("image", JobType::Docker), ("model", JobType::Llm), ("wasm", JobType::Wasm)];
    words.into_iter().find(|(word, _)| file.places.contains_key(word)).map(|(_, kind)| kind)
}

fn thousandths(milli: u32) -> String {
    let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The fields of a job that is run again, and what they were.
pub(super) fn again(earlier: &Earlier) -> Vec<Field> {
    let module = earlier.module().map(|(_, _, name)| name.to_owned());
    let (file, env) = earlier.described();
    let mut fields: Vec<Field> = FIELDS.iter().map(Field::new).collect();
    fill(&mut fields, file, env, module.as_deref());
    for field in &mut fields {
        match (field.spec.word, earlier.words()) {
            ("prompt", Some(LlmRequest::Generate { prompt, .. })) => field.set(prompt),
            ("prompt", Some(LlmRequest::Chat { .. })) => field.set(earlier.question().unwrap_or_default()),
            ("system", Some(LlmRequest::Generate { system, .. })) => field.set(system.as_deref().unwrap_or_default()),
            ("embed", Some(LlmRequest::Embed { inputs })) => {
                let inputs: Vec<String> =
                    inputs.iter().map(|text| super::super::super::command::quoted(text)).collect();
                field.set(&inputs.join(" "));
            }
            _ => {}
        }
        field.before = Some(field.text());
    }
    fields
}

/// The form as a job file: for an editor, and to keep.
///
/// # Errors
/// What is wrong with a field.
pub(super) fn job_file(form: &Form) -> Result<String, String> {
    let mut top = format!("schema = \"{SCHEMA}\"\n");
    let mut tables = String::new();
    for field in form.shown() {
        let text = field.text();
        if text.trim().is_empty() {
            continue;
        }
        let word = field.spec.word;
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let plain = |text: &str| match text.parse::<f64>() {
            Ok(_) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-') => text.to_owned(),
            _ => quoted(text),
        };
        let split = |text: &str| {
            super::super::super::command::split(text).map_err(|why| format!("{}: {why}", field.spec.label))
        };
        match (word, field.spec.control) {
            ("file" | "allow-secrets-on-node", _) => {}
            ("env" | "label" | "require", _) => {
                let name = if word == "label" { "labels" } else { word };
                tables.push_str(&format!("\n[{name}]\n"));
                for pair in split(&text)? {
                    let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
                    tables.push_str(&format!("{} = {}\n", quoted(name), quoted(value)));
                }
            }
            (_, Control::Words | Control::Rest) => {
                let words: Vec<String> = split(&text)?.iter().map(|word| quoted(word)).collect();
                top.push_str(&format!("{word} = [{}]\n", words.join(", ")));
            }
            (_, Control::Switch) => top.push_str(&format!("{word} = true\n")),
            (
                "gpus" | "pids" | "max-tokens" | "seed" | "priority" | "retries" | "max-cost" | "cpus" | "temperature",
                _,
            ) => {
                top.push_str(&format!("{word} = {}\n", plain(&text)));
            }
            (_, Control::Text | Control::Choice(_) | Control::Positional) => {
                top.push_str(&format!("{word} = {}\n", quoted(&text)));
            }
        }
    }
    Ok(top + &tables)
}

/// What the box of the quote says.
pub(super) struct Quoted {
    /// Pairs of a word and what it says; two of them stand side by side where there is room.
    pub(super) rows: Vec<[(&'static str, String); 2]>,
    /// What to look out for.
    pub(super) notes: Vec<(Role, String)>,
}

/// What the orchestrator would do with the job.
pub(super) fn quoted(form: &Form, link: &LinkState, asset: Asset) -> Quoted {
    let mut quoted = Quoted { rows: Vec::new(), notes: Vec::new() };
    let stale = !link.is_connected();
    match &form.check {
        Check::None => quoted.notes.push((Role::Dim, "Say what to run: the price is shown as you type.".into())),
        Check::Bad(failure) => {
            quoted.notes.push((Role::Bad, text::one_line(&failure.message)));
            // What is for a shell helps nobody here.
            let hints = failure.hint.iter().filter(|hint| !hint.starts_with("--help"));
            match form.meant_by(failure) {
                Some(place) => {
                    let label = form.fields[place].spec.label;
                    quoted.notes.push((Role::Dim, format!("see the field {label}; F5 goes there")));
                }
                None => quoted.notes.extend(hints.map(|hint| (Role::Dim, text::one_line(hint)))),
            }
        }
        Check::Planned(plan, None) => {
            let line = if stale {
                "The link is down: the price is asked for when it is back."
            } else {
                "Asking for the price."
            };
            quoted.notes.push((Role::Dim, line.into()));
            warnings(&mut quoted, plan);
        }
        Check::Planned(_, Some(Err(failure))) => {
            quoted.notes.push((Role::Bad, format!("no quote: {}", text::one_line(&failure.said()))));
        }
        Check::Planned(plan, Some(Ok(view))) => offers(&mut quoted, plan, view, asset),
    }
    if stale && matches!(form.check, Check::Planned(_, Some(_))) {
        quoted.notes.push((Role::Warn, "! the link is down: this is what it was".into()));
    }
    if let Some(fault) = &form.fault {
        quoted.notes.insert(0, (Role::Bad, format!("not submitted: {}", text::one_line(fault))));
    }
    quoted
}

fn warnings(quoted: &mut Quoted, plan: &Plan) {
    quoted.notes.extend(plan.warnings.iter().map(|warning| {
        let warning = warning.strip_prefix("warning: ").unwrap_or(warning);
        (Role::Warn, format!("! {}", text::one_line(warning)))
    }));
}

fn offers(quoted: &mut Quoted, plan: &Plan, view: &QuoteView, asset: Asset) {
    let names: Vec<String> = view.offers.iter().map(|offer| offer.node.to_string()).collect();
    let would = match names.as_slice() {
        [] => "no node as things are".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one} or {two}"),
        [one, two, more @ ..] => {
            format!("{one}, {two} or {} other{}", more.len(), if more.len() == 1 { "" } else { "s" })
        }
    };
    let starts = match (names.is_empty(), plan.no_queue) {
        (false, _) => "now",
        (true, true) => "not at all: it may not wait",
        (true, false) => "when a node can run it",
    };
    quoted.rows.push([("would run on", would), ("starts", starts.to_owned())]);
    if let Some(best) = view.offers.first() {
        let mut price = format!("{} per hour", text::money(best.price_per_hour, asset));
        if let (Some(read), Some(made)) = (best.million_prompt_tokens, best.million_output_tokens) {
            price = format!("{price}, {read} read, {made} made per million tokens");
        }
        let buys = if best.budget_bound {
            ("cap buys", format!("{} at this price", best.run_limit))
        } else {
            ("may run", format!("{}, its time limit", best.run_limit))
        };
        quoted.rows.push([("price", price), buys]);
    }
    let fee = crate::cli::docs::percent(view.fee_basis_points);
    let held = format!("{} held", text::money(view.hold, asset));
    quoted
        .rows
        .push([("escrow", format!("{held}, the rest comes back")), ("fee", format!("{fee} % of the cost, in it"))]);
    match view.available.checked_sub(view.hold) {
        Some(after) if view.affordable => {
            let balance = format!("{} -> {}", view.available, text::money(after, asset));
            quoted.rows.push([("balance", balance), ("", String::new())]);
        }
        _ => {
            let missing = view.hold.checked_sub(view.available).unwrap_or(Micro::ZERO);
            let line = format!("! not enough: {} available, {} missing", view.available, text::money(missing, asset));
            quoted.notes.push((Role::Bad, line));
        }
    }
    if let (Some(best), Some(limit)) = (view.offers.first(), plan.spec.limits.time_limit)
        && best.budget_bound
        && limit > best.run_limit
    {
        let (limit, stop) = (span(limit), best.run_limit);
        let line = format!("! time limit {limit} is longer than the cap buys: the job would stop at {stop}");
        quoted.notes.push((Role::Warn, line));
    }
    if view.offers.is_empty() {
        for refusal in view.refusals.iter().take(3) {
            let why: Vec<String> = refusal.reasons.iter().map(|reason| text::one_line(reason.as_str())).collect();
            quoted.notes.push((Role::Warn, format!("! {}: {}", refusal.node, why.join("; "))));
        }
        let more = view.refusals.len().saturating_sub(3);
        if more > 0 {
            quoted.notes.push((Role::Dim, format!("and {more} more nodes that cannot: ^P shows all")));
        }
    }
    warnings(quoted, plan);
}

/// The whole specification and the quote, as `run --dry-run` prints them.
pub(super) fn preview(form: &Form, line: &[String], asset: Asset) -> Vec<String> {
    let mut lines = vec![super::super::super::command::shown(line), String::new()];
    let Check::Planned(plan, quote) = &form.check else { return lines };
    lines.extend(crate::cli::run::spec_table(&plan.spec, asset).lines().map(text::one_line));
    if let Some(Ok(quote)) = quote {
        lines.push(String::new());
        let table = crate::cli::run::quote_table(quote, plan.spec.requirements.adapter, asset);
        lines.extend(table.lines().map(text::one_line));
    }
    lines
}

/// What the form is called.
pub(super) fn title(form: &Form) -> (String, String) {
    match &form.purpose {
        Purpose::Job(JobForm { earlier: Some(earlier), .. }) => {
            ("New job".to_owned(), format!("from {} (rerun)", short(&earlier.job())))
        }
        Purpose::Job(JobForm { earlier: None, .. }) => ("New job".to_owned(), String::new()),
        Purpose::Token => ("New token".to_owned(), "lets one machine or person join, once".to_owned()),
        Purpose::Credit => ("Give credits".to_owned(), "test credits, for operators".to_owned()),
    }
}

fn short(job: &JobId) -> String {
    job.short()
}
