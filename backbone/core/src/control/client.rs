//! What clients and operators want.

use modchain_types::{
    AccountId, Asset, Digest, JobId, JobSpec, Micro, NodeId, Role, Span, StopCause, SubmitKey, Text, Timestamp,
};

use super::{Control, Draft};
use crate::command::{Actor, Refused, Reply};
use crate::effect::NodeMessage;
use crate::event::EventBody;
use crate::job::{self, Phase};
#[cfg(feature = "planted")]
use crate::planted::{self, Bug};
use crate::scheduler;
use crate::scheduler::needs::Needs;
use crate::scheduler::shortlist::Except;

/// Longest time between asking and killing.
const GRACE_MAX: Span = Span::from_secs(600);
/// The provider of test credits.
const CREDIT: &str = "credit";

impl Control {
    pub(super) fn credit(
        &self,
        by: Actor,
        account: AccountId,
        amount: Micro,
        key: SubmitKey,
        why: Text<256>,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        self.frozen()?;
        if by.role != Role::Operator {
            return Err(Refused::NotAllowed { what: "giving credit" });
        }
        if self.config.asset != Asset::Test {
            return Err(Refused::NotTestMoney);
        }
        if amount == Micro::ZERO || amount > Micro::INPUT_MAX {
            let what = format!("the amount must be more than zero and at most {}", Micro::INPUT_MAX);
            return Err(Refused::Invalid { what });
        }
        if !self.accounts.contains(&account) {
            return Err(Refused::UnknownAccount { account });
        }
        let provider = Text::cut(CREDIT);
        match self.ledger.deposit(&provider, &key) {
            Some(before) if *before == (account.clone(), amount) => Ok(Reply::Done),
            Some(_) => Err(Refused::Invalid { what: format!("the key {key} was used before for another credit") }),
            None => {
                let total = self.ledger.available(&account).0;
                if total.checked_add(amount.0).is_none_or(|sum| sum > i64::MAX as u64) {
                    return Err(Refused::Limit { what: "an account cannot hold more than 9,223,372,036,854".into() });
                }
                draft.emit(EventBody::Deposited { provider, key, account, amount, why });
                Ok(Reply::Done)
            }
        }
    }

    pub(super) fn submit(
        &self,
        by: Actor,
        key: SubmitKey,
        spec: Box<JobSpec>,
        spec_digest: Digest,
        no_queue: bool,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        if by.role != Role::Client {
            return Err(Refused::NotAllowed { what: "submitting jobs" });
        }
        let id = JobId::derive(&by.account, &key);
        #[cfg(feature = "planted")]
        let id = match "everybody".parse() {
            Ok(everybody) if planted::is(Bug::KeyWithoutAccount) => JobId::derive(&everybody, &key),
            Ok(_) | Err(_) => id,
        };
        // Before anything that could refuse: the answer to a repetition is the first answer.
        if let Some(answer) = self.submitted_before(id, spec_digest) {
            return answer;
        }
        self.frozen()?;
        job::check_spec(&spec).map_err(|what| Refused::Invalid { what })?;
        let open = self.open_jobs.get(&by.account).copied().unwrap_or(0);
        if open >= self.config.open_jobs_max {
            let what = format!("{open} jobs of this account are open, which is the most allowed at once");
            return Err(Refused::Limit { what });
        }
        let (need, have) = (spec.max_cost, self.ledger.available(&by.account));
        if need > have {
            return Err(Refused::InsufficientFunds { need, have });
        }
        if no_queue && self.fits_nowhere(draft.now, &spec) {
            return Err(Refused::NoFit { why: self.why_nowhere(draft.now, &spec) });
        }
        let account = by.account;
        let fee_basis_points = self.config.fee_basis_points;
        draft.emit(EventBody::JobQueued { job: id, account, key, spec, spec_digest, fee_basis_points });
        Ok(Reply::Submitted { job: id, state: modchain_types::JobState::Queued, held: need, existing: false })
    }

    fn fits_nowhere(&self, now: Timestamp, spec: &JobSpec) -> bool {
        let except = Except { avoided: &Default::default(), kept: self.kept.map(|kept| kept.node) };
        scheduler::plan(self.nodes.values(), now, &Needs::of(spec, None), except).is_none()
    }

    /// The answer if the job exists already.
    fn submitted_before(&self, id: JobId, spec_digest: Digest) -> Option<Result<Reply, Refused>> {
        let (digest, state, held) = match (self.jobs.get(&id), self.ended.get(&id)) {
            (Some(job), _) => (job.spec_digest, job.state(), job.hold()),
            (None, Some(ended)) => (ended.spec_digest, ended.state, ended.hold),
            (None, None) => return None,
        };
        #[cfg(feature = "planted")]
        let spec_digest = if planted::is(Bug::SpecificationIgnored) { digest } else { spec_digest };
        Some(if digest == spec_digest {
            Ok(Reply::Submitted { job: id, state, held, existing: true })
        } else {
            Err(Refused::IdempotencyConflict { job: id })
        })
    }

    /// Every node with the first thing that speaks against it, in one line.
    fn why_nowhere(&self, now: Timestamp, spec: &JobSpec) -> String {
        /// More than a screen of nodes explains nothing.
        const NODES_MAX: usize = 8;
        let fits = self.fitness(now, spec);
        if fits.is_empty() {
            return "there are no nodes".into();
        }
        let lines: Vec<String> =
            fits.iter().take(NODES_MAX).map(|fit| format!("{}: {}", fit.name, fit.reasons.join(", "))).collect();
        let rest = fits.len().saturating_sub(NODES_MAX);
        if rest > 0 { format!("{}; and {rest} more nodes", lines.join("; ")) } else { lines.join("; ") }
    }

    pub(super) fn cancel(
        &self,
        by: Actor,
        id: JobId,
        grace: Span,
        why: Text<256>,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        let Some(job) = self.jobs.get(&id) else {
            return match self.ended.get(&id).filter(|ended| by.may_touch(&ended.account)) {
                Some(ended) => Err(Refused::AlreadyEnded { state: ended.state }),
                None => Err(Refused::UnknownJob),
            };
        };
        if !by.may_touch(&job.account) {
            return Err(Refused::UnknownJob);
        }
        // In an old copy it may have ended and been paid long ago.
        if let Some(why) = self.rolled_back() {
            return Err(Refused::Frozen { why });
        }
        let grace = grace.min(GRACE_MAX);
        match &job.phase {
            Phase::Queued => {
                self.finish_cancelled(job, None, draft);
                Ok(Reply::Cancelling { job: id, state: modchain_types::JobState::Cancelled })
            }
            Phase::Placed(placement) => {
                // A repeated wish says something new only if it is more urgent.
                if job.stop.as_ref().is_none_or(|wish| grace < wish.grace) {
                    let (attempt, fence) = (placement.attempt, placement.fence);
                    let stop = NodeMessage::Stop { attempt, fence, grace, cause: StopCause::Cancelled };
                    self.tell(placement.node, stop, draft);
                    // The node may not be there to hear it: then it is told when it is.
                    draft.emit(EventBody::CancelRequested { job: id, grace, why });
                }
                Ok(Reply::Cancelling { job: id, state: modchain_types::JobState::Cancelling })
            }
        }
    }

    /// The account that a node earns for.
    pub(super) fn owner_of(&self, node: NodeId) -> Option<AccountId> {
        self.nodes.get(&node).map(|node| node.account.clone())
    }
}
