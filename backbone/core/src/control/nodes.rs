//! Whether a node takes new jobs, by the wish of people.

use modchain_types::{NodeId, NodeWish, OnDisconnect, Reason, Role, Span, StopCause, Text};

use super::{Control, Draft};
use crate::command::{Actor, Refused, Reply};
use crate::deadline::{Deadline, LEASE_MARGIN};
use crate::effect::NodeMessage;
use crate::event::EventBody;
use crate::job::{Placement, Progress};
use crate::node::{Node, Standing};

/// Longest time that a drain leaves to what runs.
const DRAIN_MAX: Span = Span::from_secs(30 * 24 * 3600);
/// Jobs that are moved in one go, so that no decision takes long.
const JOBS_PER_GO_MAX: usize = 256;
/// Until a node is told again to end what must end there before it may begin elsewhere.
const TOLD_AGAIN: Span = Span::from_secs(5);
/// What people read about an attempt that was moved.
pub(super) const DRAINED: &str = "its node was drained";
/// When the next go would break an invariant again, nothing is gained by hurrying.
const NEXT_GO_IF_BROKEN: Span = Span::from_secs(1);

impl Control {
    pub(super) fn node_set(
        &mut self,
        by: &Actor,
        id: NodeId,
        wish: NodeWish,
        why: Text<256>,
        draft: &mut Draft,
    ) -> Result<Reply, Refused> {
        if by.role == Role::Node {
            return Err(Refused::NotAllowed { what: "cordoning nodes" });
        }
        let known = |node: &&Node| !node.revoked && by.may_touch(&node.account);
        let node = self.nodes.get(&id).filter(known).ok_or(Refused::UnknownNode)?;
        if let NodeWish::Drain { within: Some(within) } = wish
            && within > DRAIN_MAX
        {
            return Err(Refused::Invalid { what: format!("a drain may take {DRAIN_MAX} at most") });
        }
        let same = match (node.standing, wish) {
            (Standing::Open, NodeWish::Open) | (Standing::Cordoned, NodeWish::Cordon) => true,
            (Standing::Draining(None), NodeWish::Drain { within: None }) => true,
            // Its time begins anew.
            (_, NodeWish::Drain { .. }) | (_, NodeWish::Open) | (_, NodeWish::Cordon) => false,
        };
        if !same {
            let heard = Node { standing: Standing::of(wish, draft.now), ..node.clone() }.state(draft.now);
            draft.emit(EventBody::NodeSet { node: id, by: by.id, wish, why });
            self.announce(id, heard, draft);
        }
        Ok(Reply::Done)
    }

    /// The time of a drain is over: what still runs moves, at its node's cost.
    ///
    /// A job that was promised to run in one place only is told to end there first. It moves once its node says that it has
    /// ended, or has been silent for so long that its lease is surely over.
    pub(super) fn drained(&mut self, id: NodeId, draft: &mut Draft) {
        let Some(node) = self.nodes.get(&id) else { return };
        let due = matches!(node.standing, Standing::Draining(Some(until)) if until <= draft.now);
        if !due {
            return; // opened again, or given more time
        }
        let lease_over = node.presence.heard + self.config.lease.saturating_add(LEASE_MARGIN) <= draft.now;
        let (mut move_now, mut wait_for) = (Vec::new(), Vec::new());
        for job in node.placed.iter().map(|id| &self.jobs[id]) {
            let Some(placement) = job.placement() else { continue };
            // What has its result here only waits for its output, and what is told to stop ends soon: both have deadlines of
            // their own.
            if matches!(placement.progress, Progress::Done(_)) || job.stop.is_some() {
                continue;
            }
            let once = job.spec.limits.on_disconnect == OnDisconnect::Stop;
            if once && !lease_over && job.attempts_counted < job.spec.limits.attempts_max {
                wait_for.push(job.id);
            } else if move_now.len() < JOBS_PER_GO_MAX {
                move_now.push(job.id);
            }
        }
        // Those that wait are told again and again, because a connection may have been cut over the word; but once in a while
        // only, and after the others.
        let pause = match (move_now.is_empty(), wait_for.is_empty()) {
            (true, true) => return,
            (true, false) => TOLD_AGAIN,
            (false, _) if self.breach.is_some() => NEXT_GO_IF_BROKEN,
            (false, _) => Span::ZERO,
        };
        if move_now.is_empty() {
            for job in wait_for {
                let placement = self.jobs[&job].placement().expect("just looked at");
                let Placement { attempt, fence, .. } = *placement;
                let (grace, cause) = (Span::ZERO, StopCause::Cancelled);
                self.tell(id, NodeMessage::Stop { attempt, fence, grace, cause }, draft);
            }
        }
        for job in move_now {
            let job = self.jobs[&job].clone();
            let placement = job.placement().expect("just looked at").clone();
            self.give_up(&job, &placement, Reason::NodeFault, DRAINED, draft);
        }
        self.deadlines.arm(draft.now + pause, Deadline::Drained(id));
    }
}
