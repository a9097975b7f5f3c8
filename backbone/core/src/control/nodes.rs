//! Whether a node takes new jobs, by the wish of people.

use modchain_types::{JobId, NodeId, NodeWish, Reason, Role, Span, Text};

use super::{Control, Draft};
use crate::command::{Actor, Refused, Reply};
use crate::deadline::Deadline;
use crate::event::EventBody;
use crate::job::Progress;
use crate::node::{Node, Standing};

/// Longest time that a drain leaves to what runs.
const DRAIN_MAX: Span = Span::from_secs(30 * 24 * 3600);
/// Jobs that are moved in one go, so that no decision takes long.
const JOBS_PER_GO_MAX: usize = 256;
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
        let known = |node: &&Node| !node.revoked && by.may_touch(&node.account);
        let node = self.nodes.get(&id).filter(known).ok_or(Refused::UnknownNode)?;
        if by.role == Role::Node {
            return Err(Refused::NotAllowed { what: "cordoning nodes" });
        }
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
    pub(super) fn drained(&mut self, id: NodeId, draft: &mut Draft) {
        let Some(node) = self.nodes.get(&id) else { return };
        let due = matches!(node.standing, Standing::Draining(Some(until)) if until <= draft.now);
        if !due {
            return; // opened again, or given more time
        }
        let placed: Vec<JobId> = node.placed.iter().copied().collect();
        // What has its result here only waits for its output, and that has its own deadline.
        let left = placed.into_iter().filter(|id| {
            let progress = self.jobs[id].placement().map(|placement| &placement.progress);
            !matches!(progress, Some(Progress::Done(_)) | None)
        });
        let left: Vec<JobId> = left.take(JOBS_PER_GO_MAX).collect();
        if left.is_empty() {
            return;
        }
        for id in left {
            let job = self.jobs[&id].clone();
            let placement = job.placement().expect("just looked at").clone();
            self.give_up(&job, &placement, Reason::NodeFault, "its node was drained", draft);
        }
        let pause = if self.breach.is_none() { Span::ZERO } else { NEXT_GO_IF_BROKEN };
        self.deadlines.arm(draft.now + pause, Deadline::Drained(id));
    }
}
