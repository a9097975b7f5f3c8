//! What is done when the supervisor has decided: attempts begin, go on, stop, and are told and forgotten.

use std::io;
use std::time::Duration;

use modchain_core::supervisor::{Action, Input};
use modchain_types::{
    Adapter, Assignment, AttemptId, Ending, Fault, Input as JobInput, OutputLengths, Report, ReportBody, Span, Text,
    Timestamp, Usage,
};
use tokio::sync::{mpsc, watch};

use super::messages::{EngineInput, Serving, ToSession};
use super::stdin::{self, StdinPiece};
use super::{Engine, Held, run};
use crate::clock;
use crate::executor::Resumed;
use crate::outbox::{AttemptFolder, Started};
use crate::spool::SpoolWriter;

/// Longest time that a result waits for its container to be removed. An engine that takes longer is busy or gone, and the
/// result is told all the same.
const CLEAR_BEFORE_REPORT_MAX: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn carry_out(&mut self, action: Action, written: &io::Result<()>) {
        match action {
            Action::Begin(assignment) => {
                // What follows from a failure comes after what was decided before it.
                if let Err(input) = self.begin(assignment, written) {
                    self.handle(*input);
                }
            }
            Action::Resume { assignment, since } => {
                if let Err(input) = self.resume(assignment, since) {
                    self.handle(*input);
                }
            }
            Action::Stop { attempt, grace } => self.stop(attempt, grace),
            Action::Record(report) if written.is_ok() => self.recorded(report),
            Action::Record(report) => self.unrecorded.push(report),
            // It is sent once it is on disk.
            Action::Send(report) if self.is_unrecorded(&report) => {}
            Action::Send(report) => self.send(report),
            Action::Discard { attempt } => self.discard(attempt),
            Action::RememberFence(_) => {}
        }
    }

    /// Fails with what the supervisor is to be told.
    fn begin(&mut self, assignment: Box<Assignment>, written: &io::Result<()>) -> Result<(), Box<Input>> {
        let attempt = assignment.attempt;
        let fence = assignment.claim.fence;
        tracing::info!(%attempt, fence = fence.0, job = %assignment.spec.name, "beginning");
        let begun = match written {
            Ok(()) => self.outbox.folder(&assignment),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let mut held = Held {
            fence,
            assignment: Some(assignment.clone()),
            spool: None,
            stdin: None,
            stop: None,
            short_output: Vec::new(),
        };
        let (folder, writer, spool) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(%attempt, %error, "the attempt cannot be written down");
                self.attempts.insert(attempt, held);
                let message = Text::cut(format!("the node cannot write the attempt down: {error}"));
                let ending = Ending::CannotStart { fault: Fault::Node, message };
                let (usage, output) = (Usage::default(), OutputLengths::default());
                return Err(Box::new(Input::Ended { attempt, ending, usage, output }));
            }
        };
        let stdin = match assignment.spec.input {
            JobInput::None => None,
            JobInput::Stream => Some(stdin::channel()),
        };
        let (feed, pieces) = stdin.unzip();
        held.spool = Some(spool.clone());
        held.stdin = feed.clone();
        self.attempts.insert(attempt, held);
        self.run_attempt(assignment, folder, writer, pieces, None);
        if self.connection.as_ref().is_some_and(|line| line.reconciled) {
            self.tell(ToSession::Serve(vec![Serving { attempt, fence, spool, stdin: feed }]));
        }
        Ok(())
    }

    /// Takes up what outlived an earlier run of the agent. Fails with what the supervisor is to be told.
    fn resume(&mut self, assignment: Box<Assignment>, started: Timestamp) -> Result<(), Box<Input>> {
        let attempt = assignment.attempt;
        tracing::info!(%attempt, fence = assignment.claim.fence.0, job = %assignment.spec.name, "taking up again");
        let held = self.attempts.get_mut(&attempt).expect("what is resumed was recovered");
        held.assignment = Some(assignment.clone());
        match self.outbox.resume(&assignment) {
            Ok((folder, writer, spool)) => {
                let (output, full) = (spool.state().lengths, writer.is_full());
                held.spool = Some(spool);
                self.run_attempt(assignment, folder, writer, None, Some(Resumed { started, output, full }));
                Ok(())
            }
            Err(error) => {
                tracing::error!(%attempt, %error, "the output of an attempt cannot be continued");
                let output = held.spool.as_ref().map(|spool| spool.state().lengths).unwrap_or_default();
                let message = Text::cut(format!("the node cannot go on with the output: {error}"));
                let (ending, usage) = (Ending::NodeFault { message }, Usage::default());
                Err(Box::new(Input::Ended { attempt, ending, usage, output }))
            }
        }
    }

    /// Begins to run an attempt that is written down; `resumes` is how far one was that is taken up again.
    fn run_attempt(
        &mut self,
        assignment: Box<Assignment>,
        folder: AttemptFolder,
        writer: SpoolWriter,
        stdin: Option<mpsc::Receiver<StdinPiece>>,
        resumes: Option<Resumed>,
    ) {
        let attempt = assignment.attempt;
        let (stop, stop_wish) = watch::channel(None);
        if let Some(held) = self.attempts.get_mut(&attempt) {
            held.stop = Some(stop);
        }
        let runner = run::Runner {
            assignment,
            folder,
            writer,
            stop: stop_wish,
            stdin,
            resumes,
            executors: self.executors.clone(),
            blobs: self.blobs.clone(),
            engine: self.inputs_in.clone(),
        };
        let handle = self.runners.spawn(runner.run());
        self.runner_of.insert(handle.id(), attempt);
    }

    /// Without the note the attempt goes on all the same; only a restart of the agent could not take it up again. Nothing but
    /// a container ever is.
    pub(super) fn note_start(&mut self, attempt: AttemptId) {
        let Some(boot) = self.boot.filter(|_| self.is_container(attempt)) else { return };
        self.outbox.started(attempt, Started { since: clock::now(), boot });
    }

    fn stop(&mut self, attempt: AttemptId, grace: Span) {
        match self.attempts.get(&attempt).and_then(|held| held.stop.as_ref()) {
            Some(stop) => {
                stop.send_replace(Some(grace));
            }
            None => tracing::warn!(%attempt, "there is nothing to stop"),
        }
    }

    /// A result is durable: it may be told.
    pub(super) fn recorded(&mut self, report: Report) {
        let attempt = report.attempt;
        if let Err(error) = self.outbox.clear_scratch(attempt) {
            tracing::warn!(%attempt, %error, "what an attempt needed to run cannot be removed yet");
        }
        let may_be_there = self.attempts.get(&attempt).is_none_or(Held::may_have_container);
        match may_be_there.then(|| self.executors.clear_away(attempt, report.fence)).flatten() {
            // Not before its result is on disk: until then a restarted agent learns from the container how the attempt ended.
            // And not after it is told: who hears of the end finds nothing left.
            Some(cleared) if self.is_container(attempt) => {
                let engine = self.inputs_in.clone();
                self.runners.spawn(async move {
                    let _ = tokio::time::timeout(CLEAR_BEFORE_REPORT_MAX, cleared).await;
                    let _ = engine.send(EngineInput::Cleared { attempt }).await;
                });
            }
            Some(_) | None => self.send(report),
        }
    }

    /// Whether it tells a result that is not on disk yet.
    pub(super) fn is_unrecorded(&self, report: &Report) -> bool {
        let is_result = matches!(report.body, ReportBody::Ended { .. });
        is_result && self.unrecorded.iter().any(|waiting| waiting.attempt == report.attempt)
    }

    /// Whether the attempt is one of those that leave something on the machine.
    fn is_container(&self, attempt: AttemptId) -> bool {
        let assignment = self.attempts.get(&attempt).and_then(|held| held.assignment.as_deref());
        assignment.is_some_and(|assignment| assignment.spec.requirements.adapter == Adapter::Docker)
    }

    /// Nothing of an ended attempt is left on the machine: its result may be told, unless a new connection has done so.
    pub(super) fn on_cleared(&mut self, attempt: AttemptId) {
        let told = self.connection.as_ref().is_some_and(|line| line.results_sent.contains(&attempt));
        let report = self.supervisor.unacknowledged().into_iter().find(|report| report.attempt == attempt);
        if let Some(report) = report.filter(|_| !told) {
            self.send(report);
        }
    }

    fn discard(&mut self, attempt: AttemptId) {
        // Nothing of it runs any more; its runner may be about to return.
        self.runner_of.retain(|_, of| *of != attempt);
        if let Some(held) = self.attempts.remove(&attempt).filter(Held::may_have_container) {
            self.executors.clear_away(attempt, held.fence);
        }
        self.unrecorded.retain(|report| report.attempt != attempt);
        if let Some(line) = &mut self.connection {
            // A key that is used again once its job is forgotten makes an attempt of the same id.
            line.results_sent.remove(&attempt);
        }
        self.tell(ToSession::Forget(attempt));
        if let Err(error) = self.outbox.remove(attempt) {
            // The next start removes what the log knows nothing of.
            tracing::warn!(%attempt, %error, "what was kept about an attempt cannot be removed");
        }
    }

    /// Ends the output of an attempt whose runner is gone, before its result promises it.
    pub(super) fn keep_what_was_printed(&mut self, attempt: AttemptId) -> OutputLengths {
        let Some(held) = self.attempts.get_mut(&attempt) else { return OutputLengths::default() };
        let Some(spool) = &mut held.spool else { return OutputLengths::default() };
        match spool.without_writer() {
            Ok(ended) => *spool = ended,
            Err(error) => {
                tracing::error!(%attempt, %error, "output cannot be made durable");
                return spool.state().lengths;
            }
        }
        let serving = Serving { attempt, fence: held.fence, spool: spool.clone(), stdin: None };
        let output = spool.state().lengths;
        if self.connection.as_ref().is_some_and(|line| line.reconciled) {
            // Who serves what had no end would wait for it.
            self.tell(ToSession::Forget(attempt));
            self.tell(ToSession::Serve(vec![serving]));
        }
        output
    }
}
