//! Which job goes to which node. A plan is a value: [`plan`] reads and decides, nothing changes until the assignment's event.
//!
//! [`queue`] keeps the waiting jobs in classes of equal needs, so that a class which fits nowhere costs one look however many
//! jobs are in it; [`feasible`] tells what speaks against a node; [`rank`] orders those that nothing speaks against;
//! [`explain`] does the same for people, with every reason. Fair share between accounts and policies other than `cheapest`
//! belong in [`queue::Queue::heads`] and [`rank`].

pub mod explain;
pub mod feasible;
pub mod queue;
pub mod rank;

use modchain_types::{JobSpec, NodeId, Timestamp};

use crate::node::Node;
use feasible::Fit;

/// The best node for a job now, with what it would hold there; `None` if something speaks against every node.
pub fn plan<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    now: Timestamp,
    spec: &JobSpec,
    avoided: &std::collections::BTreeSet<NodeId>,
) -> Option<(NodeId, Fit)> {
    nodes
        .filter_map(|node| feasible::fit(node, now, spec).ok().map(|fit| (node, fit)))
        .min_by_key(|(node, fit)| rank::key(node, spec, fit, avoided))
        .map(|(node, fit)| (node.id, fit))
}
