//! `status --watch`. What is wrong only the orchestrator knows: it is asked when something that counts has changed, and not
//! by the clock.

use std::collections::BTreeMap;

use modchain_types::{Asset, JobState, NodeState, Span, WallTime};
use modchain_wire::console::StatusQuery;
use modchain_wire::view::{AccountView, StatusView};
use modchain_wire::{FromConsole, ToConsole};
use serde::Serialize;

use super::super::docs;
use super::super::pool::status_text;
use super::super::table::{Align, Table};
use super::Watched;
use crate::client::live::FromLive;
use crate::client::mirror::Mirror;

/// How things are.
pub(crate) struct StatusWatch {
    asset: Asset,
    address: String,
    /// The newest answer.
    view: Option<StatusView>,
    /// What the mirror showed when the question was asked.
    asked_at: Option<Counted>,
    /// Whether the answer is still due.
    is_asked: bool,
}

/// What the orchestrator is asked again about when it changes.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    upto: u64,
    nodes: BTreeMap<NodeState, usize>,
    jobs: BTreeMap<JobState, usize>,
    account: Option<AccountView>,
}

impl StatusWatch {
    pub(crate) fn new(address: String, asset: Asset) -> Self {
        Self { asset, address, view: None, asked_at: None, is_asked: false }
    }
}

/// The same answer whenever it was asked for.
fn timeless(view: &StatusView) -> StatusView {
    StatusView { uptime: Span::ZERO, at: WallTime(0), oldest_queued: None, gpus_busy_pct: None, ..view.clone() }
}

impl Watched for StatusWatch {
    type Item = StatusView;

    fn hear(&mut self, message: &FromLive) {
        match message {
            FromLive::Answer(_, _, answer) => {
                self.is_asked = false;
                if let Ok(reply) = answer
                    && let ToConsole::Status(view) = &**reply
                {
                    self.view = Some(view.clone());
                }
            }
            FromLive::Link(_)
            | FromLive::Target(_)
            | FromLive::Welcome(_)
            | FromLive::Snapshot(_)
            | FromLive::Delta(_)
            | FromLive::Events(_)
            | FromLive::Log(..)
            | FromLive::Input(..)
            | FromLive::Rtt(_)
            | FromLive::Said(_) => {}
        }
    }

    fn question(&mut self, mirror: &Mirror) -> Option<FromConsole> {
        if self.is_asked {
            return None;
        }
        let mut counted = Counted {
            upto: mirror.mark?.upto,
            nodes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            account: mirror.account.clone(),
        };
        mirror.nodes.values().for_each(|node| *counted.nodes.entry(node.state).or_default() += 1);
        let live = mirror.jobs.values().filter(|job| !job.state.is_ended());
        live.for_each(|job| *counted.jobs.entry(job.state).or_default() += 1);
        if self.asked_at.as_ref() == Some(&counted) {
            return None;
        }
        (self.asked_at, self.is_asked) = (Some(counted), true);
        Some(StatusQuery { detail: false }.into())
    }

    fn items(&self, _mirror: &Mirror) -> Vec<(String, StatusView)> {
        self.view.iter().map(|view| (self.address.clone(), timeless(view))).collect()
    }

    fn newest(&self, _mirror: &Mirror, _name: &str) -> Option<StatusView> {
        self.view.clone()
    }

    fn screen(&self, mirror: &Mirror, _items: &[StatusView]) -> String {
        let rtt = mirror.rtt.map_or(Span::ZERO, Span::from);
        self.view.as_ref().map(|view| status_text(view, &self.address, rtt, self.asset)).unwrap_or_default()
    }

    fn rows(&self, items: &[StatusView]) -> Table {
        let mut table = Table::new(&[
            ("READY", Align::Right),
            ("NODES", Align::Right),
            ("GPUS", Align::Right),
            ("FREE", Align::Right),
            ("RUNNING", Align::Right),
            ("QUEUED", Align::Right),
            ("PROBLEMS", Align::Left),
        ]);
        for view in items {
            let nodes = |wanted: Option<NodeState>| -> u64 {
                let counted = view.nodes.iter().filter(|(state, _)| wanted.is_none_or(|wanted| *state == wanted));
                counted.map(|(_, count)| count).sum()
            };
            let jobs = |wanted: JobState| -> u64 {
                view.jobs.iter().filter(|(state, _)| *state == wanted).map(|(_, count)| count).sum()
            };
            let problems: Vec<&str> = view.problems.iter().map(|problem| problem.as_str()).collect();
            table.row(vec![
                nodes(Some(NodeState::Ready)).to_string(),
                nodes(None).to_string(),
                view.gpus.to_string(),
                view.gpus.saturating_sub(view.gpus_reserved).to_string(),
                jobs(JobState::Running).to_string(),
                jobs(JobState::Queued).to_string(),
                if problems.is_empty() { "-".into() } else { problems.join("; ") },
            ]);
        }
        table
    }

    fn document(&self, op: &'static str, item: &StatusView) -> impl Serialize {
        docs::status_change(op, self.view.as_ref().unwrap_or(item), &self.address, self.asset)
    }
}
