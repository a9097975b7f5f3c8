//! Which job goes to which node. A plan is a value: whoever plans reads and decides, nothing changes until the assignment's
//! event.
//!
//! [`needs`] is all that placing looks at of a job; [`queue`] keeps the waiting jobs in classes of equal needs, and tells whose
//! turn it is by priority and by [`shares`] of the pool; [`feasible`] tells what speaks against a node, [`rank`] orders those
//! that nothing speaks against, and [`shortlist`] keeps the best of them for the next job of the class. [`explain`] judges as
//! placing does, for people, with every reason, and [`outlook`] tells when a waiting job may start.

pub mod amounts;
pub mod explain;
pub mod feasible;
pub mod needs;
pub mod numbers;
pub mod outlook;
pub mod queue;
pub mod rank;
pub mod shares;
pub mod shortlist;

use modchain_types::{NodeId, Timestamp};

use crate::node::Node;
use feasible::Fit;
use needs::Needs;
use shortlist::Except;

/// The best node for a job of these needs now, with what it would hold there; `None` if something speaks against every node.
pub fn plan<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    now: Timestamp,
    needs: &Needs,
    except: Except<'_>,
) -> Option<(NodeId, Fit)> {
    nodes
        .filter(|node| except.kept != Some(node.id))
        .filter_map(|node| feasible::fit(node, now, needs).ok().map(|fit| (node, fit)))
        .min_by_key(|(node, fit)| (except.avoided.contains(&node.id), rank::score(node, needs, fit), &node.name))
        .map(|(node, fit)| (node.id, fit))
}
