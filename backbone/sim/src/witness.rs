//! Sees what executors really do, in virtual time, and compares it with what the journal says.

use std::collections::{BTreeMap, BTreeSet};

use modchain_core::{Event, EventBody, Outcome, Settlement};
use modchain_types::{AttemptId, Ending, Fence, JobId, Micro, NodeId, OnDisconnect, Reason, Span, Timestamp};

use crate::auditor::{Breach, Rule, rule};

/// What really happened to one attempt.
#[derive(Debug, Clone)]
enum Run {
    Preparing,
    Running { since: Timestamp },
    Over { ran: Option<Span>, ending: Ending },
}

/// An attempt and its fence: once a job is forgotten its key may make another one, whose attempts are numbered from 1 again.
pub type Fenced = (AttemptId, Fence);

/// What really happened to every attempt that an executor ever had.
#[derive(Debug, Default)]
pub struct Witness {
    runs: BTreeMap<Fenced, Run>,
    /// What each attempt was assigned under last.
    fences: BTreeMap<AttemptId, Fence>,
    /// Jobs that were forgotten: what has a lower fence was theirs, and what has a higher one is another job's.
    forgotten: BTreeMap<JobId, Fence>,
    /// Attempts whose result is on their agent's disk.
    results: BTreeSet<Fenced>,
    /// Nodes that lie: of their attempts nobody knows what is true.
    doubted_nodes: BTreeSet<NodeId>,
    doubted: BTreeSet<Fenced>,
    /// Attempts that may run beside another one: nothing can end them in time.
    excused: BTreeSet<Fenced>,
}

impl Witness {
    /// An executor was told to begin.
    pub fn begins(&mut self, run: Fenced) -> Result<(), Breach> {
        let before = self.runs.insert(run, Run::Preparing);
        rule(Rule::BegunOnce, before.is_none(), || format!("{} begins again after {before:?}", run.0))
    }

    /// Its code runs.
    pub fn starts(&mut self, at: Timestamp, run: Fenced, on_disconnect: OnDisconnect) -> Result<(), Breach> {
        self.runs.insert(run, Run::Running { since: at });
        if on_disconnect == OnDisconnect::Keep || self.may_overlap(run) {
            return Ok(());
        }
        let beside = |other: &Fenced| *other != run && !self.may_overlap(*other);
        let others: Vec<Fenced> = self.running(run.0.job).filter(beside).collect();
        rule(Rule::AtMostOneRuns, others.is_empty(), || format!("{} runs beside {others:?}", run.0))
    }

    /// Nothing that this node says of its attempts need be true.
    pub fn doubt_node(&mut self, node: NodeId) {
        self.doubted_nodes.insert(node);
    }

    /// Nothing can end this attempt in time, if it has to.
    pub fn excuse(&mut self, run: Fenced) {
        self.excused.insert(run);
    }

    fn may_overlap(&self, run: Fenced) -> bool {
        let of_a_forgotten_job = self.forgotten.get(&run.0.job).is_some_and(|fence| run.1 < *fence);
        of_a_forgotten_job || self.excused.contains(&run) || self.doubted.contains(&run)
    }

    /// Its agent has written its result down.
    pub fn has_result(&mut self, run: Fenced) {
        self.results.insert(run);
    }

    /// The attempt that the journal means by this name now.
    fn newest(&self, attempt: AttemptId) -> Option<Fenced> {
        self.fences.get(&attempt).map(|fence| (attempt, *fence))
    }

    /// What an agent has written down, it has when it comes back.
    pub fn result_is_not_missed(&self, event: &Event) -> Result<(), Breach> {
        let EventBody::AttemptEnded { attempt, reason: Reason::NodeFault, .. } = event.body else { return Ok(()) };
        let run = self.newest(attempt);
        let missed = run.is_some_and(|run| self.results.contains(&run) && !self.doubted.contains(&run));
        rule(Rule::ResultsKept, !missed, || format!("the result of {attempt} was written down and is not there"))
    }

    /// Nothing of it runs any more.
    pub fn ends(&mut self, at: Timestamp, run: Fenced, ending: Ending) {
        if let Some(run) = self.runs.get_mut(&run) {
            let ran = match run {
                Run::Running { since } => Some(at.since(*since)),
                Run::Preparing | Run::Over { .. } => None,
            };
            *run = Run::Over { ran, ending };
        }
    }

    /// Compares the closing of a job with what its attempt really did.
    pub fn take(&mut self, now: Timestamp, event: &Event) -> Result<(), Breach> {
        match &event.body {
            EventBody::AttemptAssigned { attempt, node, .. } => {
                // No journal of this world has a base of fences.
                let fence = Fence(event.number);
                self.fences.insert(*attempt, fence);
                if self.doubted_nodes.contains(node) {
                    self.doubted.insert((*attempt, fence));
                }
                Ok(())
            }
            EventBody::JobsForgotten { jobs } => {
                self.forgotten.extend(jobs.iter().map(|job| (*job, Fence(event.number))));
                Ok(())
            }
            EventBody::JobFinished { job, attempt, outcome, settlement } => {
                let attempt = attempt.map(|number| AttemptId { job: *job, number });
                self.finished(now, *job, attempt, outcome, settlement)
            }
            _ => Ok(()),
        }
    }

    fn finished(
        &self,
        now: Timestamp,
        job: JobId,
        attempt: Option<AttemptId>,
        outcome: &Outcome,
        settlement: &Settlement,
    ) -> Result<(), Breach> {
        let attempt = attempt.and_then(|attempt| self.newest(attempt));
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

    fn running(&self, job: JobId) -> impl Iterator<Item = Fenced> {
        let (first, last) = (AttemptId { job, number: 0 }, AttemptId { job, number: u32::MAX });
        let whole = (first, Fence(0))..=(last, Fence(u64::MAX));
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
