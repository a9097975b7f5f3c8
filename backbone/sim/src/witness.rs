//! Sees what executors really do, in virtual time, and compares it with what the journal says.

use std::collections::BTreeMap;

use modchain_core::{Event, EventBody, Outcome, Settlement};
use modchain_types::{AttemptId, Ending, JobId, Micro, OnDisconnect, Reason, Span, Timestamp};

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
        if on_disconnect == OnDisconnect::Keep {
            return Ok(());
        }
        let others: Vec<AttemptId> = self.running(attempt.job).filter(|other| *other != attempt).collect();
        rule(Rule::AtMostOneRuns, others.is_empty(), || format!("{attempt} runs beside {others:?}"))
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
    pub fn take(&self, event: &Event) -> Result<(), Breach> {
        let EventBody::JobFinished { job, attempt, outcome, settlement } = &event.body else { return Ok(()) };
        let run = attempt.and_then(|number| self.runs.get(&AttemptId { job: *job, number }));
        let true_outcome = match run {
            Some(run) => is_true(run, event.at, outcome, settlement),
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
    matches!(reason, Reason::Exit | Reason::Signal | Reason::Trap | Reason::Memory | Reason::TimeLimit | Reason::Budget)
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
        // Executors know only that they were stopped; why is the supervisor's to tell.
        | (Reason::TimeLimit | Reason::Budget, Some(Ending::Stopped)) => true,
        (reason, _) => !claims_work(reason),
    };
    let paid_for_work = settlement.gross == Micro::ZERO || ran.is_some();
    // An agent's clock may run 1 % fast.
    let longest = ran.map_or(0, |ran| ran.0 + ran.0 / 50 + 1_000);
    same_ending && paid_for_work && (settlement.gross == Micro::ZERO || outcome.usage.ran.0 <= longest)
}
