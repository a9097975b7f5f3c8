//! Sees what executors really do, in virtual time, and compares it with what the journal says.

use std::collections::{BTreeMap, BTreeSet};

use modchain_core::{Event, EventBody, Outcome, Settlement};
use modchain_types::{AttemptId, Ending, JobId, Micro, NodeId, OnDisconnect, Reason, Span, Timestamp};

use crate::auditor::{Breach, Rule, rule};

/// What really happened to one attempt.
#[derive(Debug, Clone)]
enum Run {
    Preparing,
    Running { since: Timestamp },
    Over { ran: Option<Span>, ending: Ending },
}

/// What really happened to every attempt that an executor ever had.
#[derive(Debug, Default)]
pub struct Witness {
    runs: BTreeMap<AttemptId, Run>,
    /// Attempts whose result is on their agent's disk.
    results: BTreeSet<AttemptId>,
    /// Nodes that lie: of their attempts nobody knows what is true.
    doubted_nodes: BTreeSet<NodeId>,
    doubted: BTreeSet<AttemptId>,
    /// Attempts that may run beside another one: nothing can end them in time.
    excused: BTreeSet<AttemptId>,
}

impl Witness {
    /// An executor was told to begin.
    pub fn begins(&mut self, attempt: AttemptId) -> Result<(), Breach> {
        let before = self.runs.insert(attempt, Run::Preparing);
        rule(Rule::BegunOnce, before.is_none(), || format!("{attempt} begins again after {before:?}"))
    }

    /// Its code runs.
    pub fn starts(&mut self, at: Timestamp, attempt: AttemptId, on_disconnect: OnDisconnect) -> Result<(), Breach> {
        self.runs.insert(attempt, Run::Running { since: at });
        if on_disconnect == OnDisconnect::Keep || self.may_overlap(attempt) {
            return Ok(());
        }
        let beside = |other: &AttemptId| *other != attempt && !self.may_overlap(*other);
        let others: Vec<AttemptId> = self.running(attempt.job).filter(beside).collect();
        rule(Rule::AtMostOneRuns, others.is_empty(), || format!("{attempt} runs beside {others:?}"))
    }

    /// Nothing that this node says of its attempts need be true.
    pub fn doubt_node(&mut self, node: NodeId) {
        self.doubted_nodes.insert(node);
    }

    /// Nothing can end this attempt in time, if it has to.
    pub fn excuse(&mut self, attempt: AttemptId) {
        self.excused.insert(attempt);
    }

    fn may_overlap(&self, attempt: AttemptId) -> bool {
        self.excused.contains(&attempt) || self.doubted.contains(&attempt)
    }

    /// Its agent has written its result down.
    pub fn has_result(&mut self, attempt: AttemptId) {
        self.results.insert(attempt);
    }

    /// What an agent has written down, it has when it comes back.
    pub fn result_is_not_missed(&self, event: &Event) -> Result<(), Breach> {
        let EventBody::AttemptEnded { attempt, reason: Reason::NodeFault, .. } = event.body else { return Ok(()) };
        let missed = self.results.contains(&attempt) && !self.doubted.contains(&attempt);
        rule(Rule::ResultsKept, !missed, || format!("the result of {attempt} was written down and is not there"))
    }

    /// Nothing of it runs any more.
    pub fn ends(&mut self, at: Timestamp, attempt: AttemptId, ending: Ending) {
        if let Some(run) = self.runs.get_mut(&attempt) {
            let ran = match run {
                Run::Running { since } => Some(at.since(*since)),
                Run::Preparing | Run::Over { .. } => None,
            };
            *run = Run::Over { ran, ending };
        }
    }

    /// Compares the closing of a job with what its attempt really did.
    pub fn take(&mut self, now: Timestamp, event: &Event) -> Result<(), Breach> {
        if let EventBody::AttemptAssigned { attempt, node, .. } = &event.body
            && self.doubted_nodes.contains(node)
        {
            self.doubted.insert(*attempt);
        }
        let EventBody::JobFinished { job, attempt, outcome, settlement } = &event.body else { return Ok(()) };
        let attempt = attempt.map(|number| AttemptId { job: *job, number });
        if attempt.is_some_and(|attempt| self.doubted.contains(&attempt)) {
            return Ok(());
        }
        let run = attempt.and_then(|attempt| self.runs.get(&attempt));
        let true_outcome = match run {
            Some(run) => is_true(run, now, outcome, settlement),
            None => settlement.gross == Micro::ZERO && !claims_work(outcome.reason),
        };
        rule(Rule::TrueOutcome, true_outcome, || {
            format!("{job} is {} ({}) for {}, but really: {run:?}", outcome.state, outcome.reason, settlement.gross)
        })
    }

    fn running(&self, job: JobId) -> impl Iterator<Item = AttemptId> {
        let whole = AttemptId { job, number: 0 }..=AttemptId { job, number: u32::MAX };
        self.runs.range(whole).filter(|(_, run)| matches!(run, Run::Running { .. })).map(|(attempt, _)| *attempt)
    }
}

/// Whether this reason says that the job's own code did something.
fn claims_work(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Exit
            | Reason::Signal
            | Reason::Trap
            | Reason::Memory
            | Reason::Pids
            | Reason::TimeLimit
            | Reason::Budget
    )
}

fn is_true(run: &Run, at: Timestamp, outcome: &Outcome, settlement: &Settlement) -> bool {
    let (ran, ending) = match run {
        Run::Over { ran, ending } => (*ran, Some(ending)),
        Run::Running { since } => (Some(at.since(*since)), None),
        Run::Preparing => (None, None),
    };
    let same_ending = match (outcome.reason, ending) {
        (Reason::Exit, Some(Ending::Exited { code })) => outcome.exit.code == *code,
        (Reason::Signal, Some(Ending::Signalled { .. }))
        | (Reason::Trap, Some(Ending::Trapped { .. }))
        | (Reason::Memory, Some(Ending::MemoryLimit))
        | (Reason::Pids, Some(Ending::PidsLimit { .. }))
        // Executors know only that they were stopped; why is the supervisor's to tell.
        | (Reason::TimeLimit | Reason::Budget, Some(Ending::Stopped)) => true,
        (reason, _) => !claims_work(reason),
    };
    let paid_for_work = settlement.gross == Micro::ZERO || ran.is_some();
    // An agent's clock may run 1 % fast.
    let longest = ran.map_or(0, |ran| ran.0 + ran.0 / 50 + 1_000);
    same_ending && paid_for_work && (settlement.gross == Micro::ZERO || outcome.usage.ran.0 <= longest)
}
