//! What can be done from the console. Each act knows the command line that would do the same, and shows it; what cannot be taken back
//! asks first. A question is about ids, never about rows: a table that moves underneath changes nothing.

use modchain_types::{JobId, Name, NodeState};
use modchain_wire::FromConsole;

use super::app::{App, Ask, Overlay, Tone};
use super::command;
use super::msg::Effect;
use super::table::{RowId, TableId};
use crate::client::live::ToLive;
use crate::text;

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

/// Sends what a command line asks for, at once: for what can be taken back.
pub(crate) fn run(app: &mut App, line: &[String], about: Option<RowId>) -> Vec<Effect> {
    if refuses(app) {
        return Vec::new();
    }
    match command::requests(line) {
        Ok(requests) => {
            let what = command::shown(line);
            let asks = requests
                .into_iter()
                .map(|request| (Ask { what: what.clone(), edit: None, about: about.clone() }, request));
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
            let requests =
                requests.into_iter().map(|request| (Ask { what: what.clone(), edit: None, about: None }, request));
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
    use super::app::Place;
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
    let (live, ended): (Vec<JobId>, Vec<JobId>) =
        target_jobs(app).into_iter().partition(|id| app.mirror.jobs.get(id).is_some_and(|job| !job.state.is_ended()));
    let asset = app.ctx().asset();
    let mut line = vec!["cancel".to_owned(), "-y".to_owned()];
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
            let name = text::one_line(&job.name);
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
    if app.mirror.is_stale() {
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
    use super::app::Place;
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
    run(app, &line, Some(RowId::Node(first.clone())))
}

/// Gives drained or cordoned nodes new jobs again.
pub(crate) fn resume(app: &mut App) -> Vec<Effect> {
    let nodes = target_nodes(app);
    let Some(first) = nodes.first() else { return Vec::new() };
    run(app, &node_line("resume", &nodes), Some(RowId::Node(first.clone())))
}

/// Asks whether to drain.
pub(crate) fn drain(app: &mut App) -> Vec<Effect> {
    let nodes = target_nodes(app);
    let mut line = node_line("drain", &nodes);
    line.push("-y".to_owned());
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
        "No new jobs; what runs goes on to its end.".to_owned(),
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
