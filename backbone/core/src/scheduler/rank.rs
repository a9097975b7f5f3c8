//! Which of several fitting nodes is best.

use std::collections::BTreeSet;

use modchain_types::{JobSpec, Micro, Name, NodeId};

use super::feasible::Fit;
use crate::node::Node;

/// Smaller is better. Policy `cheapest`: nodes that have not failed this job; those that hold its language model before those
/// that would have to pull it; then the price per hour, then the minimum; a model in memory before one on disk; then the
/// name, so that ties end the same way every time.
pub fn key(node: &Node, spec: &JobSpec, fit: &Fit, avoided: &BTreeSet<NodeId>) -> Key {
    let held = spec.requirements.model.as_ref().map(|model| {
        let offer = node.offer.as_ref();
        offer.and_then(|offer| offer.capabilities.model(model)).map(|model| model.warm)
    });
    Key {
        avoided: avoided.contains(&node.id),
        pulls: held == Some(None),
        price_per_hour: fit.price_per_hour,
        minimum: fit.minimum,
        cold: held == Some(Some(false)),
        name: node.name.clone(),
    }
}

/// What nodes are compared by, the weightiest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    avoided: bool,
    pulls: bool,
    price_per_hour: Micro,
    minimum: Micro,
    cold: bool,
    name: Name,
}
