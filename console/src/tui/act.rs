//! What can be done from the console. Each act knows the command line that would do the same, and shows it; what cannot be taken back
//! asks first. A question is about ids, never about rows: a table that moves underneath changes nothing.

use modchain_types::{JobId, Name, NodeState, Span, SubmitKey, Text};
use modchain_wire::console::{BlobFetch, QuoteRequest, SpecQuery, SpecView, TokenCreate};
use modchain_wire::{FromConsole, ToConsole};

use super::app::{App, Ask, Overlay, Place, Tone, View};
use super::command;
use super::msg::{Drawn, Effect, Secret};
use super::table::{RowId, TableId};
use super::view::form;
use super::view::reader::{Reader, wrapped};
use crate::args::{CertCommand, Command, JobArgs, JobCommand, NodeCommand, TokenCommand};
use crate::cli::spec::{Earlier, Left, Plan};
use crate::client::live::ToLive;
use crate::exit::Failure;
use crate::text;

/// Something that was begun and needs an answer before it goes on.
#[derive(Debug)]
pub(crate) enum Errand {
    /// What a job was submitted with.
    Spec(Use),
    /// What it asked of a language model: a blob of its own.
    Words(Use, Box<Earlier>),
    /// A job that is submitted when it is known what it is; then its output is opened, or it is selected.
    Run {
        /// Its command line.
        line: Vec<String>,
        /// Whether its output is opened.
        output: bool,
        /// What an earlier job left with the orchestrator and this one needs, once that is known.
        left: Option<Left>,
    },
    /// A job that is quoted when it is known what it is.
    Quote(Vec<String>),
    /// A quote, to be read below what was to be submitted.
    Quoted(Vec<String>, Box<Plan>),
    /// A token that is shown when the orchestrator knows it.
    Token {
        /// Its text.
        secret: Secret,
        /// What the orchestrator was told.
        request: Box<TokenCreate>,
        /// Where its user joins.
        join: String,
    },
}

/// What something that an earlier job was submitted with is for.
#[derive(Debug)]
pub(crate) enum Use {
    /// For the form of a job that is run again.
    Form,
    /// To be read.
    Read,
    /// For this command line, which runs it again.
    Line(Vec<String>),
}

/// Begins something, with a request if one is needed first.
pub(crate) fn errand(app: &mut App, errand: Errand, request: Option<FromConsole>) -> Vec<Effect> {
    let edit = app.next_edit();
    app.ui.errands.insert(edit, errand);
    request.map(|request| ask_for(app, edit, String::new(), request)).into_iter().collect()
}

fn ask_for(app: &mut App, edit: u64, what: String, request: FromConsole) -> Effect {
    let ask = app.ask(Ask { what, edit: Some(edit), about: None });
    Effect::Send(ToLive::Ask(ask, Box::new(request)))
}

/// Submits the job of a command line as soon as it is known what it is.
pub(crate) fn run_at_once(app: &mut App, line: Vec<String>, output: bool) -> Vec<Effect> {
    if refuses(app) {
        return Vec::new();
    }
    let edit = app.next_edit();
    app.ui.errands.insert(edit, Errand::Run { line: line.clone(), output, left: None });
    vec![Effect::Plan(edit, line, None)]
}

/// What an errand's command line makes is known, or what is wrong with it.
pub(crate) fn planned(app: &mut App, edit: u64, plan: Result<Plan, Failure>) -> Vec<Effect> {
    let Some(errand) = app.ui.errands.remove(&edit) else { return Vec::new() };
    let plan = match plan {
        Ok(plan) => plan,
        Err(failure) => {
            app.toast(Tone::Bad, failure.said());
            return Vec::new();
        }
    };
    match errand {
        Errand::Quote(line) => {
            let spec = plan.spec.clone();
            app.ui.errands.insert(edit, Errand::Quoted(line, Box::new(plan)));
            vec![ask_for(app, edit, String::new(), QuoteRequest { spec }.into())]
        }
        Errand::Run { line, output, .. } => {
            let what = command::shown(&line);
            app.ui.errands.insert(edit, Errand::Run { line, output, left: plan.left });
            let ask = app.ask(Ask { what, edit: Some(edit), about: None });
            vec![Effect::Submit(ask, Box::new(plan))]
        }
        Errand::Spec(_) | Errand::Words(..) | Errand::Quoted(..) | Errand::Token { .. } => Vec::new(),
    }
}

/// The answer that an errand waits for.
pub(crate) fn answered(app: &mut App, ask: &Ask, edit: u64, reply: &Result<Box<ToConsole>, Failure>) -> Vec<Effect> {
    let Some(errand) = app.ui.errands.remove(&edit) else {
        // Of a form that was closed meanwhile: what it did is told all the same.
        if let (Err(failure), false) = (reply, ask.what.is_empty()) {
            app.toast(Tone::Bad, format!("{}: {}", ask.what, failure.said()));
        }
        return Vec::new();
    };
    let reply = match (reply, errand) {
        (Ok(reply), errand) => (errand, &**reply),
        // Without the words that are not kept any more, what is left is as it was.
        (Err(_), Errand::Words(wanted, earlier)) => return use_of(app, edit, wanted, earlier),
        (Err(failure), errand) => {
            let left = if let Errand::Run { left, .. } = errand { left } else { None };
            app.toast(Tone::Bad, Left::missed(left, failure.clone()).said());
            return Vec::new();
        }
    };
    match reply {
        (Errand::Spec(wanted), ToConsole::Spec(spec)) => return known(app, edit, wanted, spec),
        (Errand::Words(wanted, mut earlier), ToConsole::BlobChunk(chunk)) => {
            if let Ok(words) = serde_json::from_slice(&chunk.data) {
                earlier.said(words);
            }
            return use_of(app, edit, wanted, earlier);
        }
        (Errand::Run { output, .. }, ToConsole::Submitted(submitted)) => {
            show_submitted(app, submitted.job);
            if output {
                super::update::open(app, Place::Output(submitted.job));
            }
        }
        (Errand::Quoted(line, plan), ToConsole::Quote(view)) => {
            let asset = app.ctx().asset();
            let mut lines = vec![command::shown(&line), String::new()];
            lines.extend(crate::cli::run::spec_table(&plan.spec, asset).lines().map(text::one_line));
            lines.push(String::new());
            let table = crate::cli::run::quote_table(view, plan.spec.requirements.adapter, asset);
            lines.extend(table.lines().map(text::one_line));
            read(app, Reader::new("Quote", lines));
        }
        (Errand::Token { secret, request, join }, ToConsole::Token(view)) => {
            let [what, there] = crate::cli::token::explained(view, &join, &request);
            let lines = [
                String::new(),
                what,
                there,
                String::new(),
                "This is the only time that it is shown. y copies it, Esc closes and forgets it.".to_owned(),
            ];
            // As wide as the window that it is read in.
            let columns = usize::from(app.caps.columns.saturating_sub(14)).max(20);
            let lines = lines.iter().flat_map(|line| wrapped(&text::one_line(line), columns)).collect();
            let mut reader = Reader::new("Token", lines);
            reader.secret = Some(secret);
            read(app, reader);
        }
        _ => {}
    }
    Vec::new()
}

/// Opens a window to read in; a form that is open lies below it meanwhile.
fn read(app: &mut App, mut reader: Reader) {
    reader.below = match app.ui.overlay.take() {
        Some(Overlay::Form(form)) => Some(form),
        Some(Overlay::Reader(reader)) => reader.below,
        _ => None,
    };
    app.ui.overlay = Some(Overlay::Reader(reader));
}

/// What a job was submitted with is known, except for what it asked of a language model: that is asked for, if it did.
fn known(app: &mut App, edit: u64, wanted: Use, view: &SpecView) -> Vec<Effect> {
    let earlier = match Earlier::of(view.job, &view.spec) {
        Ok(earlier) => Box::new(earlier),
        Err(failure) => {
            app.toast(Tone::Bad, failure.said());
            return Vec::new();
        }
    };
    let Some(digest) = earlier.request() else { return use_of(app, edit, wanted, earlier) };
    app.ui.errands.insert(edit, Errand::Words(wanted, earlier));
    vec![ask_for(app, edit, String::new(), BlobFetch { digest }.into())]
}

/// All that there is to know of an earlier job is known.
fn use_of(app: &mut App, edit: u64, wanted: Use, earlier: Box<Earlier>) -> Vec<Effect> {
    match wanted {
        Use::Form => form::open_again(app, earlier),
        Use::Read => {
            let file = earlier.job_file(None, None);
            let lines = file.lines().map(text::one_line).collect();
            read(app, Reader::new(format!("What {} was submitted with", earlier.job().short()), lines));
            Vec::new()
        }
        Use::Line(line) => {
            app.ui.errands.insert(edit, Errand::Run { line: line.clone(), output: false, left: None });
            vec![Effect::Plan(edit, line, Some(earlier))]
        }
    }
}

/// Goes to the jobs, with this one selected as soon as it is there.
pub(crate) fn show_submitted(app: &mut App, job: JobId) {
    super::update::open(app, Place::Jobs);
    app.ui.focus.insert(View::Jobs, 0);
    app.ui.awaited = Some(job);
}

/// A token was drawn: now the orchestrator may hear of it.
pub(crate) fn drawn(app: &mut App, edit: u64, drawn: Result<Box<Drawn>, Failure>) -> Vec<Effect> {
    match drawn {
        Ok(drawn) => {
            let Drawn { secret, request, join } = *drawn;
            let what = format!("token create for a {}", request.role);
            let asked = request.clone().into();
            app.ui.errands.insert(edit, Errand::Token { secret, request: Box::new(request), join });
            vec![ask_for(app, edit, what, asked)]
        }
        Err(failure) => {
            refused(app, edit, &failure);
            Vec::new()
        }
    }
}

/// A key was drawn for a command line.
pub(crate) fn keyed(app: &mut App, edit: u64, line: Vec<String>, key: Result<SubmitKey, Failure>) -> Vec<Effect> {
    let requests = key.and_then(|key| {
        let mut with_key = line.clone();
        with_key.extend(["--id".to_owned(), key.to_string()]);
        command::requests(&with_key)
    });
    match requests {
        Ok(requests) => {
            let what = command::shown(&line);
            requests.into_iter().map(|request| ask_for(app, edit, what.clone(), request)).collect()
        }
        Err(failure) => {
            refused(app, edit, &failure);
            Vec::new()
        }
    }
}

fn refused(app: &mut App, edit: u64, failure: &Failure) {
    if !form::refuse(app, edit, failure) {
        app.toast(Tone::Bad, failure.said());
    }
}

/// Does what a command line that changes something says; what cannot be taken back asks first. `edit` is the form that it comes from.
pub(crate) fn perform_line(app: &mut App, line: Vec<String>, edit: Option<u64>) -> Vec<Effect> {
    if refuses(app) {
        return Vec::new();
    }
    let parsed = match command::parse(&line) {
        Ok(parsed) => parsed,
        Err(failure) => {
            app.toast(Tone::Bad, failure.said());
            return Vec::new();
        }
    };
    let outcome = match parsed {
        Command::Run(args) if args.dry_run => Ok(quote(app, line)),
        Command::Run(_) => Ok(run_at_once(app, line, false)),
        Command::Quote(_) => Ok(quote(app, line)),
        Command::Job(JobArgs { command: Some(JobCommand::Rerun(args)), .. }) => job_named(app, &args.job).map(|job| {
            // Nothing is said otherwise: there may be something to say.
            if line.len() <= 3 {
                return form::again(app, job);
            }
            let query = SpecQuery { job: Text::cut(job.to_string()) };
            errand(app, Errand::Spec(Use::Line(line)), Some(query.into()))
        }),
        Command::Job(JobArgs { command: Some(JobCommand::Spec(args)), .. }) => job_named(app, &args.job).map(|job| {
            let query = SpecQuery { job: Text::cut(job.to_string()) };
            errand(app, Errand::Spec(Use::Read), Some(query.into()))
        }),
        Command::Credit(_) => {
            let edit = edit.unwrap_or_else(|| app.next_edit());
            Ok(vec![Effect::DrawKey(edit, line)])
        }
        Command::Token(TokenCommand::Create(_)) => {
            let edit = edit.unwrap_or_else(|| app.next_edit());
            Ok(vec![Effect::DrawToken(edit, line)])
        }
        Command::Token(TokenCommand::Revoke { tokens }) => {
            let lines = vec![tokens.join(" "), String::new(), "Nobody can join with them any more.".to_owned()];
            let question = Question {
                title: if tokens.len() == 1 {
                    "Revoke token?".into()
                } else {
                    format!("Revoke {} tokens?", tokens.len())
                },
                lines,
                demand: Demand::Yes,
                yes: "revoke".into(),
                subjects: Vec::new(),
            };
            Ok(confirm(app, line, question))
        }
        Command::Cert(CertCommand::Revoke { identities, .. }) => {
            let demand = match identities.as_slice() {
                [one] => Demand::Type(one.clone()),
                several => Demand::Type(several.len().to_string()),
            };
            let lines = vec![
                text::one_line(&identities.join(" ")),
                String::new(),
                "Their connections are cut at once. Their names are not given again without --rejoin.".to_owned(),
            ];
            let title = "Put out for good?".into();
            Ok(confirm(app, line, Question { title, lines, demand, yes: "revoke".into(), subjects: Vec::new() }))
        }
        Command::Cancel(args) => {
            let jobs = if args.all {
                Ok(live_jobs(app, args.mine))
            } else {
                args.jobs.iter().map(|job| job_named(app, job)).collect()
            };
            let mut flags = vec!["--grace".to_owned(), format!("{}ms", args.grace.as_millis())];
            if !args.reason.is_empty() {
                flags.extend(["--reason".to_owned(), args.reason]);
            }
            let usual = args.grace == Span::from_secs(10);
            if usual {
                flags.drain(..2);
            }
            jobs.map(|jobs: Vec<JobId>| cancel_jobs(app, jobs, flags))
        }
        Command::Node(NodeCommand::Cordon(_) | NodeCommand::Uncordon(_) | NodeCommand::Resume(_)) => {
            Ok(run(app, &line))
        }
        Command::Node(NodeCommand::Drain(args)) => {
            let nodes = args.names.nodes.iter().map(|node| node_named(app, node)).collect::<Result<Vec<_>, _>>();
            nodes.map(|nodes| drain_nodes(app, nodes, line))
        }
        _ => Err(format!("`{}` changes nothing", line.join(" "))),
    };
    outcome.unwrap_or_else(|why| {
        app.toast(Tone::Bad, why);
        Vec::new()
    })
}

fn quote(app: &mut App, line: Vec<String>) -> Vec<Effect> {
    let edit = app.next_edit();
    app.ui.errands.insert(edit, Errand::Quote(line.clone()));
    vec![Effect::Plan(edit, line, None)]
}

fn live_jobs(app: &App, mine: bool) -> Vec<JobId> {
    let account = app.mirror.my_account();
    let jobs = app.mirror.jobs.values().filter(|job| !job.state.is_ended());
    jobs.filter(|job| !mine || Some(&job.account) == account).map(|job| job.id).collect()
}

/// The job that a word names: a whole id, a prefix of three or more characters, a name, `@last`.
///
/// # Errors
/// There is none, or several.
pub(crate) fn job_named(app: &App, word: &str) -> Result<JobId, String> {
    if word == "@last" {
        return app.ui.submitted.last().copied().ok_or_else(|| "nothing was submitted from here yet".to_owned());
    }
    if let Ok(id) = word.parse::<JobId>() {
        return Ok(id);
    }
    let bare = word.strip_prefix("j-").unwrap_or(word);
    let begins = |id: &JobId| {
        let whole = id.to_string();
        bare.len() >= 3 && whole.strip_prefix("j-").unwrap_or(&whole).starts_with(bare)
    };
    let by_id: Vec<JobId> = app.mirror.jobs.keys().filter(|id| begins(id)).copied().collect();
    let by_name =
        || app.mirror.jobs.values().filter(|job| job.name.as_str() == word).map(|job| job.id).collect::<Vec<_>>();
    let found = if by_id.is_empty() { by_name() } else { by_id };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!("no job `{word}` is known here")),
        several => Err(format!("`{word}` could be {} jobs: {}", several.len(), list(several))),
    }
}

/// The node of this name.
///
/// # Errors
/// There is none; with the name that was probably meant.
pub(crate) fn node_named(app: &App, word: &str) -> Result<Name, String> {
    let name = word.parse::<Name>().ok().filter(|name| app.mirror.nodes.contains_key(name));
    name.ok_or_else(|| {
        let near = crate::client::config::nearest(word, app.mirror.nodes.keys().map(|name| name.as_str()));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("no node `{word}` is known here{near}")
    })
}

/// A question before something that cannot be taken back.
#[derive(Debug)]
pub(crate) struct Confirm {
    /// What is asked: `Cancel job?`.
    pub(crate) title: String,
    /// What it is about, what it costs so far, what follows.
    pub(crate) lines: Vec<String>,
    /// The command that would do the same, without the program's name.
    pub(crate) command: Vec<String>,
    /// What is sent after a yes.
    pub(crate) requests: Vec<(Ask, FromConsole)>,
    /// What a yes is.
    pub(crate) demand: Demand,
    /// What the button of the yes says.
    pub(crate) yes: String,
    /// What was typed so far.
    pub(crate) typed: tui_input::Input,
    /// What it is about.
    pub(crate) subjects: Vec<RowId>,
    /// Whether it has been on the screen: keys that were typed before are not meant for it.
    pub(crate) seen: bool,
}

/// What a yes is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Demand {
    /// The key `y`.
    Yes,
    /// This text, and Enter.
    Type(String),
}

impl Confirm {
    /// What has become impossible meanwhile, if anything has: then only closing is left.
    pub(crate) fn moot(&self, app: &App) -> Option<String> {
        match self.subjects.as_slice() {
            [RowId::Job(id)] => match app.mirror.jobs.get(id) {
                Some(job) if job.state.is_ended() && self.title.starts_with("Cancel") => {
                    Some(format!("{} has ended meanwhile: {}", id.short(), job.state.word()))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// The row that a request is about, which shows that it is on its way.
fn about(request: &FromConsole) -> Option<RowId> {
    match request {
        FromConsole::Cancel(cancel) => cancel.job.parse().ok().map(RowId::Job),
        FromConsole::NodeSet(set) => Some(RowId::Node(set.node.clone())),
        FromConsole::TokenRevoke(revoke) => Some(RowId::Token(revoke.token)),
        _ => None,
    }
}

/// Sends what a command line asks for, at once: for what can be taken back.
pub(crate) fn run(app: &mut App, line: &[String]) -> Vec<Effect> {
    if refuses(app) {
        return Vec::new();
    }
    match command::requests(line) {
        Ok(requests) => {
            let what = command::shown(line);
            let asks = requests
                .into_iter()
                .map(|request| (Ask { what: what.clone(), edit: None, about: about(&request) }, request));
            send(app, asks.collect())
        }
        Err(failure) => {
            app.toast(Tone::Bad, failure.said());
            Vec::new()
        }
    }
}

/// Asks before it sends what a command line asks for.
pub(crate) fn confirm(app: &mut App, line: Vec<String>, question: Question) -> Vec<Effect> {
    if refuses(app) {
        return Vec::new();
    }
    match command::requests(&line) {
        Ok(requests) => {
            let what = command::shown(&line);
            let requests = requests
                .into_iter()
                .map(|request| (Ask { what: what.clone(), edit: None, about: about(&request) }, request));
            app.ui.overlay = Some(Overlay::Confirm(Box::new(Confirm {
                title: question.title,
                lines: question.lines,
                command: line,
                requests: requests.collect(),
                demand: question.demand,
                yes: question.yes,
                typed: tui_input::Input::default(),
                subjects: question.subjects,
                seen: false,
            })));
        }
        Err(failure) => app.toast(Tone::Bad, failure.said()),
    }
    Vec::new()
}

/// What a [`Confirm`] says.
pub(crate) struct Question {
    /// What is asked.
    pub(crate) title: String,
    /// What it is about and what follows.
    pub(crate) lines: Vec<String>,
    /// What a yes is.
    pub(crate) demand: Demand,
    /// What the button of the yes says.
    pub(crate) yes: String,
    /// What it is about.
    pub(crate) subjects: Vec<RowId>,
}

/// Sends requests, each with a name of its own.
pub(crate) fn send(app: &mut App, requests: Vec<(Ask, FromConsole)>) -> Vec<Effect> {
    requests.into_iter().map(|(ask, request)| Effect::Send(ToLive::Ask(app.ask(ask), Box::new(request)))).collect()
}

/// Whether nothing may be done here; says so.
pub(crate) fn refuses(app: &mut App) -> bool {
    let why = match (app.caps.replay, app.caps.read_only) {
        (true, _) => "this is a recording: nothing can be done in it",
        (false, true) => "the console is read-only (--read-only)",
        (false, false) => return false,
    };
    app.toast(Tone::Bad, why);
    true
}

/// Jobs that an act is about: the marked ones, or the selected one, or the one that is looked at.
pub(crate) fn target_jobs(app: &App) -> Vec<JobId> {
    match app.place() {
        Place::Job(job) | Place::Output(job) => vec![job],
        Place::Overview => super::view::overview::selected_job(app).into_iter().collect(),
        _ => {
            let jobs = app.ui.table(TableId::Jobs).targets().into_iter();
            jobs.filter_map(|id| if let RowId::Job(job) = id { Some(job) } else { None }).collect()
        }
    }
}

/// Asks whether to cancel.
pub(crate) fn cancel(app: &mut App) -> Vec<Effect> {
    let jobs = target_jobs(app);
    cancel_jobs(app, jobs, Vec::new())
}

/// Asks whether to cancel these, with flags of `cancel`.
fn cancel_jobs(app: &mut App, jobs: Vec<JobId>, flags: Vec<String>) -> Vec<Effect> {
    let (live, ended): (Vec<JobId>, Vec<JobId>) =
        jobs.into_iter().partition(|id| app.mirror.jobs.get(id).is_some_and(|job| !job.state.is_ended()));
    let asset = app.ctx().asset();
    let mut line = vec!["cancel".to_owned(), "-y".to_owned()];
    line.extend(flags);
    line.extend(live.iter().map(ToString::to_string));
    let follows = [
        String::new(),
        "A job gets SIGTERM, and SIGKILL after 10 s.".to_owned(),
        "You pay for the time used, the rest is returned.".to_owned(),
    ];
    let (title, mut lines, demand) = match (live.as_slice(), ended.as_slice()) {
        ([], []) => return Vec::new(),
        ([], [job, ..]) => {
            app.toast(Tone::Bad, format!("{} has ended already", job.short()));
            return Vec::new();
        }
        ([id], _) => {
            let Some(job) = app.mirror.jobs.get(id) else { return Vec::new() };
            let place = job.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
            let name = super::view::jobs::called(job);
            let first = format!("{}  {name}{place}", id.short());
            let second = format!("{}, {} so far of {}", job.state, text::money(job.cost, asset), job.hold);
            ("Cancel job?".to_owned(), vec![first, second], Demand::Yes)
        }
        (several, _) => {
            let count = several.len();
            let first = format!("{count} jobs: {}", list(several));
            (format!("Cancel {count} jobs?"), vec![first], Demand::Type(count.to_string()))
        }
    };
    lines.extend(follows);
    if !app.mirror.link.is_connected() {
        lines.push("The link is down: it is sent when the link is back.".into());
    }
    let subjects = live.into_iter().map(RowId::Job).collect();
    confirm(app, line, Question { title, lines, demand, yes: "cancel".into(), subjects })
}

fn list(jobs: &[JobId]) -> String {
    let shown: Vec<String> = jobs.iter().take(4).map(JobId::short).collect();
    let more = jobs.len().saturating_sub(shown.len());
    if more == 0 { shown.join(" ") } else { format!("{} and {more} more", shown.join(" ")) }
}

/// Nodes that an act is about.
pub(crate) fn target_nodes(app: &App) -> Vec<Name> {
    match app.place() {
        Place::Node(node) => vec![node],
        _ => {
            let nodes = app.ui.table(TableId::Nodes).targets().into_iter();
            nodes.filter_map(|id| if let RowId::Node(node) = id { Some(node) } else { None }).collect()
        }
    }
}

fn node_line(verb: &str, nodes: &[Name]) -> Vec<String> {
    ["node", verb].into_iter().map(str::to_owned).chain(nodes.iter().map(ToString::to_string)).collect()
}

/// Gives nodes no new jobs, or new ones again: whichever the first of them needs.
pub(crate) fn cordon(app: &mut App) -> Vec<Effect> {
    let nodes = target_nodes(app);
    let Some(first) = nodes.first() else { return Vec::new() };
    let closed = app.mirror.nodes.get(first).is_some_and(|node| node.state == NodeState::Cordoned);
    let line = node_line(if closed { "uncordon" } else { "cordon" }, &nodes);
    run(app, &line)
}

/// Gives drained or cordoned nodes new jobs again.
pub(crate) fn resume(app: &mut App) -> Vec<Effect> {
    let nodes = target_nodes(app);
    if nodes.is_empty() {
        return Vec::new();
    }
    run(app, &node_line("resume", &nodes))
}

/// Asks whether to drain.
pub(crate) fn drain(app: &mut App) -> Vec<Effect> {
    let nodes = target_nodes(app);
    let mut line = node_line("drain", &nodes);
    line.push("-y".to_owned());
    drain_nodes(app, nodes, line)
}

/// Asks whether to drain these by this command line.
fn drain_nodes(app: &mut App, nodes: Vec<Name>, line: Vec<String>) -> Vec<Effect> {
    let deadline = match command::parse(&line) {
        Ok(Command::Node(NodeCommand::Drain(args))) => args.deadline,
        _ => None,
    };
    let (title, demand, running) = match nodes.as_slice() {
        [] => return Vec::new(),
        [node] => {
            let running = app.mirror.nodes.get(node).map_or(0, |view| view.attempts);
            ("Drain node?".to_owned(), Demand::Type(node.to_string()), running)
        }
        several => {
            let running = several.iter().filter_map(|node| app.mirror.nodes.get(node)).map(|node| node.attempts).sum();
            (format!("Drain {} nodes?", several.len()), Demand::Type(several.len().to_string()), running)
        }
    };
    let names: Vec<String> = nodes.iter().take(4).map(ToString::to_string).collect();
    let lines = vec![
        format!(
            "{}{}",
            names.join(" "),
            if nodes.len() > 4 { format!(" and {} more", nodes.len() - 4) } else { String::new() }
        ),
        match running {
            0 => "Nothing runs there now.".to_owned(),
            1 => "One job runs there now.".to_owned(),
            count => format!("{count} jobs run there now."),
        },
        String::new(),
        match deadline {
            None => "No new jobs; what runs goes on to its end.".to_owned(),
            Some(span) => format!("No new jobs; what still runs after {span} moves to other nodes."),
        },
        "`r` opens the node again.".to_owned(),
    ];
    let subjects = nodes.into_iter().map(RowId::Node).collect();
    confirm(app, line, Question { title, lines, demand, yes: "drain".into(), subjects })
}

#[cfg(test)]
mod tests {
    use super::super::keys::{Action, BINDINGS};

    #[test]
    fn everything_dangerous_is_known() {
        let dangerous: Vec<Action> =
            BINDINGS.iter().filter(|binding| binding.dangerous).map(|binding| binding.action).collect();
        for action in [Action::Cancel, Action::Drain, Action::TokenRevoke, Action::Revoke] {
            assert!(dangerous.contains(&action), "{action:?}");
        }
    }
}
