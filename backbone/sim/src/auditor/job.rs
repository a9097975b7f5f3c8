//! Jobs: which moves there are, and what each may cost.

use modchain_core::{Event, EventBody, Outcome, Settlement};
use modchain_types::{
    AccountId, AttemptId, JobId, JobState, Micro, NodeId, Reason, Reservation, Span, Tariff, Timestamp,
};

use super::{Auditor, Breach, Edge, Rule, rule};

/// A job as the events tell.
#[derive(Debug, Clone)]
pub(super) struct JobRecord {
    account: AccountId,
    hold: Micro,
    fee_basis_points: u16,
    attempts_max: u32,
    /// Attempts that were assigned.
    attempts_made: u32,
    /// Attempts that reached `starting`.
    attempts_counted: u32,
    /// How the job has to end, once it was told to stop.
    stopping: Option<JobState>,
    /// The shortest time that it was given for it.
    stop_grace: Span,
    stop_wished_at: Option<Timestamp>,
    pub(super) unreachable: bool,
    stage: Stage,
}

#[derive(Debug, Clone)]
enum Stage {
    Queued,
    Placed(Placed),
    Ended(JobState),
}

#[derive(Debug, Clone)]
struct Placed {
    number: u32,
    node: NodeId,
    tariff: Tariff,
    reservation: Reservation,
    assigned_at: Timestamp,
    /// `Assigned`, `Starting` or `Running`.
    progress: JobState,
    /// When the result came, if its output is waited for.
    result_at: Option<Timestamp>,
}

/// An attempt that is its job's live one.
#[derive(Debug, Clone, Copy)]
pub struct LiveAttempt {
    /// Where it is.
    pub node: NodeId,
    /// Whether its result is remembered, and its output waited for.
    pub has_result: bool,
    /// When its job was told to stop.
    pub stop_wished_at: Option<Timestamp>,
}

impl JobRecord {
    pub(super) fn live(&self, number: u32) -> Option<LiveAttempt> {
        match &self.stage {
            Stage::Placed(placed) if placed.number == number => Some(LiveAttempt {
                node: placed.node,
                has_result: placed.result_at.is_some(),
                stop_wished_at: self.stop_wished_at,
            }),
            Stage::Queued | Stage::Placed(_) | Stage::Ended(_) => None,
        }
    }

    pub(super) fn ended(&self) -> Option<JobState> {
        match self.stage {
            Stage::Ended(state) => Some(state),
            Stage::Queued | Stage::Placed(_) => None,
        }
    }

    /// As people see it.
    pub(super) fn state(&self) -> JobState {
        match &self.stage {
            Stage::Ended(state) => *state,
            Stage::Queued => JobState::Queued,
            Stage::Placed(_) if self.stopping.is_some() => JobState::Cancelling,
            Stage::Placed(_) if self.unreachable => JobState::Unreachable,
            Stage::Placed(placed) => placed.progress,
        }
    }
}

impl Auditor {
    pub(super) fn job_event(&mut self, event: &Event) -> Result<(), Breach> {
        match &event.body {
            EventBody::JobQueued { job, account, spec, fee_basis_points, key, .. } => {
                rule(Rule::Once, !self.jobs.contains_key(job), || format!("{job} queued again"))?;
                rule(Rule::Known, *job == JobId::derive(account, key), || format!("{job} is not of {account} {key}"))?;
                let left = self.left_at(account).is_some();
                rule(Rule::RevokedStaysOut, !left, || format!("{job} of {account}, whose clients are revoked"))?;
                self.books.hold(account, *job, spec.max_cost);
                let record = JobRecord {
                    account: account.clone(),
                    hold: spec.max_cost,
                    fee_basis_points: *fee_basis_points,
                    attempts_max: spec.limits.attempts_max,
                    attempts_made: 0,
                    attempts_counted: 0,
                    stopping: None,
                    stop_grace: Span::ZERO,
                    stop_wished_at: None,
                    unreachable: false,
                    stage: Stage::Queued,
                };
                self.jobs.insert(*job, record);
                if let Some(again) = self.forgotten.get_mut(job) {
                    *again += 1;
                }
                self.count(None, JobState::Queued, None);
            }
            EventBody::AttemptAssigned { attempt, node, tariff, reservation, .. } => {
                self.assigned(event, *attempt, *node, tariff, reservation)?;
            }
            EventBody::AttemptStarting { attempt } => {
                self.on_trusted_node(*attempt)?;
                self.progress(*attempt, JobState::Assigned, JobState::Starting)?;
                self.open(attempt.job)?.attempts_counted += 1;
                let job = self.open(attempt.job)?;
                let (counted, allowed) = (job.attempts_counted, job.attempts_max);
                rule(Rule::AttemptNumbersRise, counted <= allowed, || {
                    format!("{attempt}: {counted} attempts reached starting, {allowed} were allowed")
                })?;
            }
            EventBody::AttemptStarted { attempt } => {
                self.on_trusted_node(*attempt)?;
                self.progress(*attempt, JobState::Starting, JobState::Running)?;
            }
            EventBody::ImagePinned { attempt, .. } => self.on_trusted_node(*attempt)?,
            EventBody::CancelRequested { job, grace, .. } => {
                self.stop_wished(event, *job, *grace, JobState::Cancelled)?;
            }
            EventBody::InputFailed { job, .. } => self.stop_wished(event, *job, Span::ZERO, JobState::Failed)?,
            EventBody::ResultRecorded { attempt, .. } => {
                self.on_trusted_node(*attempt)?;
                let placed = self.placed(*attempt)?;
                rule(Rule::Once, placed.result_at.is_none(), || format!("{attempt} has a second result"))?;
                placed.result_at = Some(event.at);
            }
            EventBody::AttemptEnded { attempt, reason, .. } => {
                let node = self.placed(*attempt)?.node;
                let record = self.open(attempt.job)?;
                let from = record.state();
                let stopping = record.stopping;
                rule(Rule::CancelIsFinal, stopping.is_none(), || {
                    format!("{attempt} is tried again after a wish to stop")
                })?;
                record.stage = Stage::Queued;
                record.unreachable = false;
                self.over.insert(*attempt, event.at);
                self.node(node)?.placed.remove(&attempt.job);
                self.count(Some(from), JobState::Queued, Some(*reason));
            }
            EventBody::JobFinished { job, attempt, outcome, settlement } => {
                self.finished(event, *job, *attempt, outcome, settlement)?;
            }
            EventBody::JobsForgotten { jobs } => self.are_forgotten(jobs)?,
            EventBody::EngineStarted { .. }
            | EventBody::RestoreAccepted { .. }
            | EventBody::IdentityAdded { .. }
            | EventBody::Deposited { .. }
            | EventBody::NodeConnected { .. }
            | EventBody::NodeLost { .. }
            | EventBody::NodeSet { .. }
            | EventBody::TokenCreated { .. }
            | EventBody::MemberJoined { .. }
            | EventBody::TokenEnded { .. }
            | EventBody::TokenAlarm { .. }
            | EventBody::CertificateIssued { .. }
            | EventBody::CertificateUsed { .. }
            | EventBody::CertificateRetired { .. }
            | EventBody::IdentityRevoked { .. } => {}
        }
        Ok(())
    }

    /// Only what has ended is forgotten. From here on the books have never heard of it.
    fn are_forgotten(&mut self, jobs: &[JobId]) -> Result<(), Breach> {
        rule(Rule::Known, !jobs.is_empty(), || "no job is forgotten".into())?;
        for job in jobs {
            let ended = self.jobs.remove(job).is_some_and(|record| record.ended().is_some());
            rule(Rule::OnlyEndedForgotten, ended, || format!("{job} is forgotten and has not ended"))?;
            let held = self.books.held.contains_key(job);
            self.forgotten.entry(*job).or_default();
            rule(Rule::OnlyEndedForgotten, !held, || format!("{job} is forgotten and something is held for it"))?;
        }
        Ok(())
    }

    /// What a node that was revoked says of its attempts counts no more.
    fn on_trusted_node(&mut self, attempt: AttemptId) -> Result<(), Breach> {
        let node = self.placed(attempt)?.node;
        let revoked = self.is_revoked(node.into());
        rule(Rule::RevokedStaysOut, !revoked, || format!("{attempt} goes on by the word of {node}, which was revoked"))
    }

    fn stop_wished(&mut self, event: &Event, job: JobId, grace: Span, end: JobState) -> Result<(), Breach> {
        let record = self.open(job)?;
        if let Some(before) = record.stopping {
            let is_urgent = end == before && grace < record.stop_grace;
            rule(Rule::Once, is_urgent, || format!("{job} told to stop again within {grace}, and no sooner"))?;
            record.stop_grace = grace;
            return Ok(());
        }
        let from = record.state();
        let placed = matches!(record.stage, Stage::Placed(_));
        rule(Rule::StateTable, placed, || format!("{job} is queued and told to stop instead of ended"))?;
        (record.stopping, record.stop_grace) = (Some(end), grace);
        record.stop_wished_at = Some(event.at);
        self.count(Some(from), JobState::Cancelling, None);
        Ok(())
    }

    fn assigned(
        &mut self,
        event: &Event,
        attempt: AttemptId,
        node: NodeId,
        tariff: &Tariff,
        reservation: &Reservation,
    ) -> Result<(), Breach> {
        let record = self.open(attempt.job)?;
        let queued = matches!(record.stage, Stage::Queued);
        rule(Rule::StateTable, queued, || format!("{attempt} is assigned while the job is {}", record.state()))?;
        record.attempts_made += 1;
        let expected = record.attempts_made;
        rule(Rule::AttemptNumbersRise, attempt.number == expected, || {
            format!("{attempt} is assigned where {expected} comes next")
        })?;
        // Once its job was forgotten an attempt can be over and another one of its name be live.
        self.over.remove(&attempt);
        let record = self.open(attempt.job)?;
        record.stage = Stage::Placed(Placed {
            number: attempt.number,
            node,
            tariff: tariff.clone(),
            reservation: reservation.clone(),
            assigned_at: event.at,
            progress: JobState::Assigned,
            result_at: None,
        });
        self.count(Some(JobState::Queued), JobState::Assigned, None);
        let account = self.open(attempt.job)?.account.clone();
        let left = self.left_at(&account).is_some();
        rule(Rule::RevokedStaysOut, !left, || format!("{attempt} is assigned for {account}, which nobody holds"))?;
        let revoked = self.is_revoked(node.into());
        rule(Rule::RevokedStaysOut, !revoked, || format!("{attempt} is assigned to {node}, which was revoked"))?;
        let on_node = self.node(node)?;
        rule(Rule::ClosedGetsNothing, !on_node.closed, || format!("{attempt} is assigned to {node}, which is closed"))?;
        on_node.placed.insert(attempt.job, reservation.clone());
        let Some(capabilities) = &on_node.capabilities else {
            return Err(Breach { rule: Rule::Known, what: format!("{node} has no offer") });
        };
        let all = || on_node.placed.values();
        let part = |of: fn(&Reservation) -> u64| (of(reservation), all().map(of).sum::<u64>());
        for (what, (asked, taken), offered) in [
            ("slots", part(|_| 1), capabilities.slots.into()),
            ("cpu", part(|r| r.cpu_milli.into()), capabilities.cpu_milli.into()),
            ("memory", part(|r| r.memory_bytes), capabilities.memory_bytes),
            ("disk", part(|r| r.disk_bytes), capabilities.disk_bytes),
        ] {
            // An offer may shrink under what is placed already; then nothing more of that may be added.
            rule(Rule::NodeNotOverbooked, asked == 0 || taken <= offered, || {
                format!("{attempt} on {node}: {taken} of {offered} {what}")
            })?;
        }
        for (uuid, _) in reservation.gpus.iter() {
            let users = all().flat_map(|r| r.gpus.iter()).filter(|(other, _)| other == uuid).count();
            let exists = capabilities.gpus.iter().any(|gpu| gpu.uuid == *uuid);
            rule(Rule::GpuOnce, users == 1 && exists, || format!("{attempt}: {uuid} has {users} users"))?;
        }
        Ok(())
    }

    fn finished(
        &mut self,
        event: &Event,
        job: JobId,
        attempt: Option<u32>,
        outcome: &Outcome,
        settlement: &Settlement,
    ) -> Result<(), Breach> {
        let record = self.open(job)?;
        let from = record.state();
        let to = outcome.state;
        let (account, hold, stopping) = (record.account.clone(), record.hold, record.stopping);
        let fee_basis_points = record.fee_basis_points;
        let placed = match &record.stage {
            Stage::Placed(placed) => Some(placed.clone()),
            Stage::Queued | Stage::Ended(_) => None,
        };

        rule(Rule::NewestAttemptOnly, attempt == placed.as_ref().map(|placed| placed.number), || {
            format!("{job} ends with attempt {attempt:?}, it is on {:?}", placed.as_ref().map(|placed| placed.number))
        })?;
        rule(Rule::CancelIsFinal, stopping.is_none_or(|wished| to == wished), || {
            format!("{job} ends as {to} after a wish for {stopping:?}")
        })?;
        let in_table = match to {
            JobState::Completed | JobState::TimedOut => placed.is_some(),
            JobState::Failed => true,
            JobState::Cancelled => stopping == Some(JobState::Cancelled) || placed.is_none(),
            JobState::Expired => placed.is_none(),
            JobState::Queued
            | JobState::Assigned
            | JobState::Starting
            | JobState::Running
            | JobState::Unreachable
            | JobState::Cancelling => false,
        };
        rule(Rule::StateTable, in_table, || format!("{job} goes from {from} to {to}"))?;

        // What was due at that very moment may still have come first.
        let left = self.left_at(&account).is_some_and(|at| at < event.at);
        rule(Rule::RevokedStaysOut, !left || to == JobState::Cancelled || stopping == Some(to), || {
            format!("{job} is {to} after its client was revoked")
        })?;

        self.split(job, hold, fee_basis_points, settlement)?;
        match &placed {
            Some(placed) => self.bill(event, job, hold, placed, outcome, settlement)?,
            None => rule(Rule::PaidOnlyForWork, settlement.gross == Micro::ZERO, || {
                format!("{job} costs {} without an attempt", settlement.gross)
            })?,
        }

        self.books.close(&account, job, settlement);
        if let Some(placed) = placed {
            self.over.insert(AttemptId { job, number: placed.number }, event.at);
            self.node(placed.node)?.placed.remove(&job);
        }
        self.open(job)?.stage = Stage::Ended(to);
        self.count(Some(from), to, Some(outcome.reason));
        let held: i128 = self.books.held.values().sum();
        let holds: i128 =
            self.jobs.values().filter(|job| job.ended().is_none()).map(|job| i128::from(job.hold.0)).sum();
        rule(Rule::HeldIsOpenHolds, held == holds, || format!("{held} are held for open jobs with holds of {holds}"))
    }

    fn split(&self, job: JobId, hold: Micro, fee_basis_points: u16, paid: &Settlement) -> Result<(), Breach> {
        let [gross, fee, net, refund] = [paid.gross, paid.fee, paid.net, paid.refund].map(|part| i128::from(part.0));
        let adds_up = net + fee == gross && gross + refund == i128::from(hold.0);
        rule(Rule::SplitAddsUp, adds_up, || {
            format!("{job}: hold {hold}, gross {gross}, fee {fee}, net {net}, refund {refund}")
        })?;
        // fee ≤ gross × points / 10,000 < fee + 1, without dividing.
        let share = gross * i128::from(fee_basis_points);
        rule(Rule::FeeIsFloored, fee * 10_000 <= share && share < (fee + 1) * 10_000, || {
            format!("{job}: fee {fee} of {gross} at {fee_basis_points} points")
        })
    }

    fn bill(
        &mut self,
        event: &Event,
        job: JobId,
        hold: Micro,
        placed: &Placed,
        outcome: &Outcome,
        paid: &Settlement,
    ) -> Result<(), Breach> {
        let (gross, stopping) = (paid.gross, self.open(job)?.stopping);
        if gross == Micro::ZERO {
            return rule(Rule::OwnerIsPaid, paid.owner.is_none(), || format!("{job}: an owner is paid nothing"));
        }
        let revoked = self.is_revoked(placed.node.into());
        rule(Rule::RevokedStaysOut, !revoked, || {
            format!("{job} costs {gross} for {}, which was revoked", placed.node)
        })?;
        let owner = self.node(placed.node)?.owner.clone();
        rule(Rule::OwnerIsPaid, paid.owner.as_ref() == Some(&owner), || {
            format!("{job}: {:?} is paid, the work was done for {owner}", paid.owner)
        })?;
        let client_answers = match outcome.reason {
            Reason::Exit
            | Reason::Signal
            | Reason::Trap
            | Reason::Memory
            | Reason::Pids
            | Reason::TimeLimit
            | Reason::Budget
            | Reason::Cancelled => true,
            // The job's input could never be completed: it ran for that.
            Reason::Refused => stopping == Some(JobState::Failed),
            Reason::Expired
            | Reason::NotFound
            | Reason::CommandNotFound
            | Reason::NodeLost
            | Reason::NodeFault
            | Reason::Revoked
            | Reason::Attempts => false,
        };
        rule(Rule::PaidOnlyForWork, client_answers, || format!("{job} costs {gross} for {}", outcome.reason))?;
        let interval = placed.result_at.unwrap_or(event.at).since(placed.assigned_at);
        let most = worth(&placed.tariff, &placed.reservation, interval).max(u128::from(placed.tariff.minimum.0));
        rule(Rule::BillWithinInterval, u128::from(gross.0) <= most && outcome.usage.ran <= interval, || {
            format!("{job} costs {gross} for {} within {interval}, which is worth {most}", outcome.usage.ran)
        })?;
        // Core floors each of three components.
        let least = worth(&placed.tariff, &placed.reservation, outcome.usage.ran)
            .saturating_sub(3)
            .max(u128::from(placed.tariff.minimum.0))
            .min(u128::from(hold.0));
        rule(Rule::BillCoversUsage, u128::from(gross.0) >= least, || {
            format!("{job} costs {gross} for {}, which is worth {least}", outcome.usage.ran)
        })
    }

    fn progress(&mut self, attempt: AttemptId, from: JobState, to: JobState) -> Result<(), Breach> {
        let placed = self.placed(attempt)?;
        let in_order = placed.progress == from && placed.result_at.is_none();
        let was = placed.progress;
        rule(Rule::StateTable, in_order, || format!("{attempt} goes from {was} to {to}"))?;
        placed.progress = to;
        self.count(Some(from), to, None);
        Ok(())
    }

    /// The job, which must not have ended.
    fn open(&mut self, job: JobId) -> Result<&mut JobRecord, Breach> {
        let Some(record) = self.jobs.get_mut(&job) else {
            return Err(Breach { rule: Rule::Known, what: format!("job {job}") });
        };
        rule(Rule::EndedIsEnded, record.ended().is_none(), || format!("{job} is {}", record.state()))?;
        Ok(record)
    }

    /// The attempt, which must be its job's newest and live.
    fn placed(&mut self, attempt: AttemptId) -> Result<&mut Placed, Breach> {
        match &mut self.open(attempt.job)?.stage {
            Stage::Placed(placed) if placed.number == attempt.number => Ok(placed),
            Stage::Placed(_) | Stage::Queued | Stage::Ended(_) => {
                Err(Breach { rule: Rule::NewestAttemptOnly, what: format!("{attempt} is not the job's live attempt") })
            }
        }
    }

    fn count(&mut self, from: Option<JobState>, to: JobState, cause: Option<Reason>) {
        *self.edges.entry(Edge { from, to, cause }).or_default() += 1;
    }
}

/// What this time on this reservation is worth, over one common divisor and rounded up.
fn worth(tariff: &Tariff, reservation: &Reservation, ran: Span) -> u128 {
    const GIB: u128 = 1 << 30;
    const HOUR_MICROS: u128 = 3_600_000_000;
    let gpus: u128 = reservation
        .gpus
        .iter()
        .map(|(_, model)| {
            let named = tariff.gpu_hour.iter().find(|(name, _)| *name == model);
            let any = tariff.gpu_hour.iter().find(|(name, _)| name.as_str() == "*");
            named.or(any).map_or(0, |(_, price)| u128::from(price.0))
        })
        .sum();
    let per_hour = u128::from(reservation.cpu_milli) * u128::from(tariff.core_hour.0) * GIB
        + u128::from(reservation.memory_bytes) * u128::from(tariff.gib_hour.0) * 1_000
        + gpus * 1_000 * GIB;
    (per_hour * u128::from(ran.0)).div_ceil(HOUR_MICROS * 1_000 * GIB)
}
