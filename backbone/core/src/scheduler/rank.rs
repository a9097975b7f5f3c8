//! Which of several fitting nodes is best.

use std::collections::BTreeSet;

use modchain_types::{Micro, Name, NodeId};

use super::feasible::Fit;
use crate::node::Node;

/// Smaller is better. Policy `cheapest`: nodes that have not failed this job, then the price per hour, then the minimum, then
/// the name, so that ties end the same way every time.
pub fn key(node: &Node, fit: &Fit, avoided: &BTreeSet<NodeId>) -> (bool, Micro, Micro, Name) {
    (avoided.contains(&node.id), fit.price_per_hour, fit.minimum, node.name.clone())
}
