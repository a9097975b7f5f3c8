//! Submit, quote, explain: everything about a job's specification.

use std::time::Instant;

use bytes::Bytes;
use modchain_core::{Command, Control, EventBody, NodeFit, Outlook, Reply};
use modchain_types::{Digest, JobId, JobSpec, JobState, List, Micro, Span, Task, TaskBody};
use modchain_wire::Sentence;
use modchain_wire::console::{
    ExplainQuery, QuoteRequest, Refusal, RefusalCode, SpecQuery, SpecView, Submit, Submitted,
};
use modchain_wire::view::{ExplanationView, NodeVerdictView, OfferView, QueueView, QuoteView};
use modchain_wire::{encode_task, spec_digest};

use super::super::jobs_blobs::{named_by, reference_blobs, task_of};
use super::{ConsoleSession, Failure, Writer, refuse};
use crate::store::blobs::BlobError;

/// Tasks above this many bytes go to the blob store, so that the journal stays small and keeps no prompt for ever.
const INLINE_TASK_BYTES_MAX: usize = 4 * 1024;
/// Different reasons told in a summary.
const REASONS_SHOWN: usize = 3;

/// The task of a specification as clients send it.
fn inline_task(spec: &JobSpec) -> Result<&Task, Refusal> {
    match &spec.body {
        TaskBody::Inline(task) if task.adapter() == spec.requirements.adapter => Ok(task),
        TaskBody::Inline(task) => Err(refuse::invalid(
            format!("the task is for {} but the requirements are for {}", task.adapter(), spec.requirements.adapter),
            "",
        )),
        TaskBody::Blob { .. } => Err(refuse::invalid("the task must be sent with the job", "update this program")),
    }
}

/// Bounds of the task itself, before it may move into the blob store.
fn bounds(task: &Task, spec: &JobSpec) -> Result<(), String> {
    match task {
        Task::Wasm(_) => Ok(()),
        Task::Docker(task) => modchain_core::job::check_docker(task, spec.requirements.memory_bytes),
        Task::Llm(task) => modchain_core::job::check_llm(task, spec.requirements.model.as_deref()),
    }
}

impl ConsoleSession {
    pub(super) async fn submit(&self, writer: &mut Writer, submit: Submit) -> Result<(), Failure> {
        if let Err(wait) = self.context.submits.take(self.identity.id, Instant::now()) {
            let message = format!("too many submits at once; the next is taken in {} ms", wait.as_millis() + 1);
            return Err(
                refuse::refusal(RefusalCode::Busy, message, "wait a moment and repeat it with the same --id").into()
            );
        }
        let Submit { key, mut spec, no_queue } = submit;
        let services = &self.context.services;
        let job = JobId::derive(&self.actor.account, &key);
        let digest = spec_digest(&spec);
        let task = inline_task(&spec)?.clone();
        // What is known of this key stays so until the answer is there.
        let _held = services.retention.hold(job).ok_or_else(|| refuse::being_forgotten(job))?;
        let known = services.engine.query(move |control, _| control.job(job).is_some() || control.ended(job).is_some());
        // A job that was accepted before needs nothing any more: its answer is given again, whatever is left of its blobs.
        let fresh = !known.await?;
        if fresh {
            if services.engine.storage_low() {
                return Err(self.storage_full().into());
            }
            self.check_blobs(&task)?;
        }
        // What is moved out of the specification is not looked at again by the engine.
        bounds(&task, &spec).map_err(|what| refuse::invalid(what, ""))?;
        let mut needed = named_by(&task);
        let bytes = encode_task(&task);
        if bytes.len() > INLINE_TASK_BYTES_MAX {
            let adapter = task.adapter();
            let digest = match fresh {
                true => services.blobs.put(&self.actor.account, Bytes::from(bytes)).await.map_err(refuse::by_blobs)?,
                false => Digest::of(&bytes),
            };
            needed.push(digest);
            spec.body = TaskBody::Blob { digest, adapter };
        }
        if fresh {
            // Before the event, so that no sweep of the store comes in between.
            services.blobs.reference(job, &self.actor.account, &needed);
        }
        let command =
            Command::Submit { by: self.actor.clone(), key, spec: Box::new(spec), spec_digest: digest, no_queue };
        let answer = services.engine.command_numbered(command).await;
        let accepted = matches!(answer, Ok((Reply::Submitted { existing: false, .. }, _)));
        if fresh && !accepted {
            // What was noted above may now stand for a job that another submit with this key has made.
            reference_blobs(&services.engine, &services.blobs, job).await?;
        }
        let (reply, number) = answer?;
        let submitted = match reply {
            Reply::Submitted { job, state, held, existing } => Submitted { job, state, held, existing },
            Reply::Refused(refused) => return Err(refuse::by_engine(refused, None).into()),
            _ => {
                return Err(refuse::internal("the engine answered something else").into());
            }
        };
        self.context.feed.reached(number).await?;
        Ok(writer.write(&submitted.into()).await?)
    }

    /// What the task names must be in the account's store, with the size that it says.
    fn check_blobs(&self, task: &Task) -> Result<(), Refusal> {
        let (what, digest, said) = match task {
            Task::Wasm(wasm) => (format!("the module {}", wasm.module_name), &wasm.module, wasm.module_bytes),
            Task::Llm(llm) => (format!("the request to {}", llm.model), &llm.request, llm.request_bytes),
            Task::Docker(_) => return Ok(()),
        };
        match self.context.services.blobs.size(&self.actor.account, digest) {
            Some(bytes) if bytes == said => Ok(()),
            Some(bytes) => Err(refuse::invalid(
                format!("{what} has {bytes} bytes, the job says {said}"),
                "did the file change meanwhile? submit it again",
            )),
            None => Err(refuse::refusal(
                RefusalCode::MissingBlob,
                format!("{what} was not uploaded"),
                "upload it first, then submit again with the same --id",
            )),
        }
    }

    pub(super) async fn quote(&self, writer: &mut Writer, quote: QuoteRequest) -> Result<(), Failure> {
        let spec = quote.spec;
        inline_task(&spec)?;
        let hold = spec.max_cost;
        let judged = move |control: &Control, now| (control.fitness(now, &spec), control.config().fee_basis_points);
        let (fits, fee_basis_points) = self.context.services.engine.query(judged).await?;
        let account = self.context.feed.account(self.actor.account.clone()).await?;
        let available = account.map_or(Micro::ZERO, |account| account.available);
        let offer = |fit: &NodeFit| {
            let (run_limit, budget_bound) = fit.run_limit?;
            let price_per_hour = fit.price_per_hour?;
            let minimum = fit.minimum.unwrap_or_default();
            Some(OfferView {
                node: fit.name.clone(),
                price_per_hour,
                minimum,
                run_limit,
                budget_bound,
                million_prompt_tokens: fit.million_tokens.map(|(prompt, _)| prompt),
                million_output_tokens: fit.million_tokens.map(|(_, output)| output),
                model: fit.model,
            })
        };
        let view = QuoteView {
            hold,
            available,
            affordable: available >= hold,
            offers: List::cut(fits.iter().filter(|fit| fit.reasons.is_empty()).filter_map(offer).collect()),
            refusals: List::cut(fits.iter().filter(|fit| !fit.reasons.is_empty()).map(verdict).collect()),
            fee_basis_points,
        };
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn explain(&self, writer: &mut Writer, query: ExplainQuery) -> Result<(), Failure> {
        let id = self.resolve(&query.job).await?;
        let judged = move |control: &Control, now| {
            let fits = control.fitness_of(now, id).unwrap_or_default();
            let priority = control.job(id).map_or(0, |job| job.spec.priority);
            let queue = control.outlook(now, id).map(|outlook| queue_view(&outlook, priority));
            (fits, queue, control.problems().into_iter().next(), control.last_number())
        };
        let (fits, mut queue, problem, number) = self.context.services.engine.query(judged).await?;
        let problem = self.context.services.engine.frozen().map(ToString::to_string).or(problem);
        // The job as the engine judged it, or as it was later: one that is queued no more must not be shown as waiting.
        self.context.feed.reached(number).await?;
        let job = self.context.feed.job(&self.actor, id).await?.ok_or_else(|| self.no_job(&query.job))?;
        let summary = match job.state {
            JobState::Queued => match problem {
                // Nobody knows when an operator puts it right.
                Some(problem) => {
                    queue = queue.map(|queue| QueueView { starts_within: None, ..queue });
                    format!("it waits: {problem}")
                }
                None => waits_for(&fits, queue.as_ref()),
            },
            JobState::Completed | JobState::Failed | JobState::TimedOut | JobState::Cancelled | JobState::Expired => {
                let reason = job.reason.map_or("", modchain_types::Reason::word);
                let why = if job.message.is_empty() { String::new() } else { format!(": {}", job.message.as_str()) };
                format!("{} has ended: {} ({reason}){why}", job.id.short(), job.state)
            }
            JobState::Unreachable => {
                format!(
                    "{}'s node is silent; the work may go on, and the job moves when the node is lost",
                    job.id.short()
                )
            }
            JobState::Assigned | JobState::Starting | JobState::Running | JobState::Cancelling => {
                let node = job.node.as_ref().map_or(String::new(), |node| format!(" on {node}"));
                format!("{} is {}{node}", job.id.short(), job.state)
            }
        };
        let nodes = List::cut(fits.iter().map(verdict).collect());
        let view = ExplanationView { job, summary: Sentence::cut(summary), queue, nodes };
        Ok(writer.write(&view.into()).await?)
    }
}

impl ConsoleSession {
    /// The specification as it was sent, which is in the journal alone once its job has ended.
    pub(super) async fn spec(&self, writer: &mut Writer, query: SpecQuery) -> Result<(), Failure> {
        let job = self.resolve(&query.job).await?;
        let origin = self.context.feed.origin(&self.actor, job).await?;
        let (account, number) = origin.ok_or_else(|| self.no_job(&query.job))?;
        let journal = self.context.services.journal.clone();
        let read = tokio::task::spawn_blocking(move || journal.read_after(number - 1, 1)).await;
        let made = read.map_err(refuse::internal)?.map_err(refuse::internal)?.pop();
        let Some(EventBody::JobQueued { mut spec, .. }) = made.map(|event| event.body) else {
            return Err(refuse::internal("the event that made a job is another one").into());
        };
        let task = task_of(&self.context.services.blobs, &account, &spec).await.map_err(|error| match error {
            BlobError::Missing => refuse::refusal(
                RefusalCode::MissingBlob,
                format!("what job {} runs is not kept any more", query.job.as_str()),
                "it was too long for the journal, and such things go an hour after their last job has ended",
            ),
            other => refuse::by_blobs(other),
        })?;
        spec.body = TaskBody::Inline(task);
        Ok(writer.write(&SpecView { job, spec: *spec }.into()).await?)
    }
}

fn verdict(fit: &NodeFit) -> NodeVerdictView {
    NodeVerdictView {
        node: fit.name.clone(),
        fits: fit.reasons.is_empty(),
        reasons: List::cut(fit.reasons.iter().map(|reason| Sentence::cut(reason.as_str())).collect()),
        price_per_hour: fit.price_per_hour,
    }
}

fn queue_view(outlook: &Outlook, priority: i8) -> QueueView {
    let Outlook { ahead, counts_as, starts_within } = *outlook;
    QueueView { ahead: ahead.all, ahead_own: ahead.own, priority, counts_as, starts_within }
}

/// Why a queued job waits, and what would help.
fn waits_for(fits: &[NodeFit], queue: Option<&QueueView>) -> String {
    let before = queue.map(place_in_the_queue).unwrap_or_default();
    if fits.is_empty() {
        return format!("it waits: there are no nodes{before}");
    }
    let fitting = fits.iter().filter(|fit| fit.reasons.is_empty()).count();
    if fitting > 0 {
        let nodes = match fits.len() {
            1 => "the only node fits".to_owned(),
            all => format!("{fitting} of {all} nodes fit"),
        };
        return format!("it starts as soon as its turn comes: {nodes}{before}");
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for reason in fits.iter().flat_map(|fit| &fit.reasons) {
        match counts.iter_mut().find(|(known, _)| known == reason) {
            Some((_, count)) => *count += 1,
            None => counts.push((reason, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let reasons: Vec<_> =
        counts.iter().take(REASONS_SHOWN).map(|(reason, count)| format!("{reason} ({count})")).collect();
    let hint = if fits.iter().any(|fit| fit.may_pass) {
        "waiting can help"
    } else {
        "waiting does not help: ask for less, raise the price cap, or wait for other nodes to join"
    };
    let nodes = match fits.len() {
        1 => "the only node does not fit".to_owned(),
        all => format!("none of {all} nodes fits"),
    };
    format!("it waits: {nodes}: {}; {hint}{before}", reasons.join(", "))
}

/// Its place, and when it may start.
fn place_in_the_queue(queue: &QueueView) -> String {
    let QueueView { ahead, ahead_own, priority, counts_as, starts_within } = *queue;
    let own = match ahead_own {
        0 => String::new(),
        own if own == ahead => ", all of its own account".to_owned(),
        own => format!(", {own} of its own account"),
    };
    let before = match ahead {
        0 => "; no job goes before it".to_owned(),
        1 => format!("; one job goes before it{own}"),
        jobs => format!("; {jobs} jobs go before it{own}"),
    };
    let within = match (starts_within, ahead) {
        (Some(Span::ZERO), 0) => String::new(),
        (Some(within), 0) => format!("; there is room for it within {within}, when what runs has reached its limits"),
        (Some(within), _) => {
            format!(
                "; it starts within {within} if they are like it and all of them, and what runs, reach their limits"
            )
        }
        (None, _) => "; when it starts is not known".to_owned(),
    };
    let counts = match counts_as == priority {
        true => String::new(),
        false => format!("; its priority of {priority} counts as {counts_as} against other accounts"),
    };
    format!("{before}{within}{counts}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_the_queue_is_told_in_words_that_are_true() {
        let minute = Some(Span::from_secs(60));
        for (ahead, ahead_own, priority, counts_as, starts_within, words) in [
            (0, 0, 0, 0, Some(Span::ZERO), "; no job goes before it"),
            (
                0,
                0,
                5,
                0,
                minute,
                "; no job goes before it; there is room for it within 1m00s, when what runs has reached its limits; its \
                 priority of 5 counts as 0 against other accounts",
            ),
            (1, 1, 0, 0, None, "; one job goes before it, all of its own account; when it starts is not known"),
            (
                12,
                3,
                -2,
                -2,
                minute,
                "; 12 jobs go before it, 3 of its own account; it starts within 1m00s if they are like it and all of them, \
                 and what runs, reach their limits",
            ),
        ] {
            let queue = QueueView { ahead, ahead_own, priority, counts_as, starts_within };
            assert_eq!(place_in_the_queue(&queue), words);
        }
    }
}
