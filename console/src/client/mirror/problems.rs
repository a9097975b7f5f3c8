//! What is wrong and wants somebody's attention, worst first.

use modchain_types::{JobId, Name, NodeState, Span, WallTime};

use super::Mirror;
use crate::client::live::LinkState;
use crate::text;

/// Jobs that wait longer than this are worth a word.
const WAIT_MAX: Span = Span::from_secs(60);
/// An account that lasts no longer than this is worth one, too.
const FUNDS_MIN: Span = Span::from_secs(3_600);
/// Problems of one kind that are listed one by one.
const LISTED_MAX: usize = 20;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What it is about.
    pub(crate) about: About,
    /// In one line, cleaned.
    pub(crate) text: String,
    /// Since when, by the orchestrator's clock, where that is known.
    pub(crate) since: Option<WallTime>,
}

/// How bad a problem is; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Something does not work.
    Error,
    /// Something soon will not.
    Warning,
}

/// What a problem is about: where Enter leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    /// Our own way to the orchestrator.
    Link,
    /// A node.
    Node(Name),
    /// All nodes.
    Nodes,
    /// Our account.
    Account,
    /// A job.
    Job(JobId),
    /// All jobs.
    Jobs,
}

impl Mirror {
    /// What is wrong at `now` by this machine's clock. Takes time by the number of problems, not of jobs or nodes.
    pub(crate) fn problems(&self, now: WallTime) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.link_problem(&mut problems);
        self.silent_nodes(&mut problems);
        self.funds(&mut problems);
        self.waiting_jobs(self.server_time(now), &mut problems);
        problems.sort_by_key(|problem| problem.severity);
        problems
    }

    fn link_problem(&self, problems: &mut Vec<Problem>) {
        let (text, since) = match &self.link {
            LinkState::Connecting | LinkState::Live => return,
            LinkState::Silent { since } => (
                "nothing comes over the link any more: what is shown may be old".to_owned(),
                Some(self.server_time(*since)),
            ),
            LinkState::Lost { since, why, .. } => (format!("the link is lost: {why}"), Some(self.server_time(*since))),
            LinkState::Refused(failure) => (failure.message.clone(), None),
        };
        let text = text::one_line(&text);
        problems.push(Problem { severity: Severity::Error, about: About::Link, text, since });
    }

    fn silent_nodes(&self, problems: &mut Vec<Problem>) {
        let nodes = self.index.silent.iter().filter_map(|name| self.nodes.get(name));
        for node in nodes.take(LISTED_MAX) {
            let (severity, word) = match node.state {
                NodeState::Lost => (Severity::Error, "is lost"),
                NodeState::Suspect
                | NodeState::Ready
                | NodeState::Cordoned
                | NodeState::Draining
                | NodeState::Paused => (Severity::Warning, "is silent"),
            };
            let jobs = match node.attempts {
                0 => String::new(),
                1 => ", 1 job on it".into(),
                several => format!(", {several} jobs on it"),
            };
            let text = text::one_line(&format!("node {} {word}{jobs}", node.name));
            problems.push(Problem { severity, about: About::Node(node.name.clone()), text, since: node.seen_at });
        }
        let more = self.index.silent.len().saturating_sub(LISTED_MAX);
        if more > 0 {
            let text = format!("{more} more nodes are lost or silent");
            problems.push(Problem { severity: Severity::Error, about: About::Nodes, text, since: None });
        }
    }

    fn funds(&self, problems: &mut Vec<Problem>) {
        let Some(account) = self.account.as_ref().filter(|account| account.burn_per_hour.0 > 0) else { return };
        let lasts_ms = u128::from(account.available.0) * 3_600_000 / u128::from(account.burn_per_hour.0);
        let lasts = Span::from_millis(u64::try_from(lasts_ms).unwrap_or(u64::MAX / 1_000).min(u64::MAX / 1_000));
        if lasts >= FUNDS_MIN {
            return;
        }
        let asset = self.me.as_ref().map_or(modchain_types::Asset::Test, |me| me.asset);
        let (left, burn) = (text::money(account.available, asset), text::money(account.burn_per_hour, asset));
        let text = format!("{left} is left for new jobs while {burn} an hour is being spent");
        problems.push(Problem { severity: Severity::Warning, about: About::Account, text, since: None });
    }

    fn waiting_jobs(&self, now: WallTime, problems: &mut Vec<Problem>) {
        let late = WallTime(now.0.saturating_sub(i64::try_from(WAIT_MAX.as_millis()).unwrap_or(i64::MAX)));
        let waiting = &self.index.waiting;
        for (since, id) in waiting.iter().take_while(|(since, _)| *since <= late).take(LISTED_MAX) {
            let Some(job) = self.jobs.get(id) else { continue };
            let name = if job.name.is_empty() { id.short() } else { job.name.to_string() };
            let why = if job.message.is_empty() { String::new() } else { format!(": {}", job.message) };
            let text = text::one_line(&format!("{name} waits for a node{why}"));
            problems.push(Problem { severity: Severity::Warning, about: About::Job(*id), text, since: Some(*since) });
        }
        // Those that wait for a short time are fewer, where many wait.
        let short = waiting.range((WallTime(late.0.saturating_add(1)), JobId([0; 16]))..).count();
        let more = (waiting.len() - short).saturating_sub(LISTED_MAX);
        if more > 0 {
            let text = format!("{more} more jobs wait for a node");
            problems.push(Problem { severity: Severity::Warning, about: About::Jobs, text, since: None });
        }
    }
}
