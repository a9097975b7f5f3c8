//! The same judgement as placing, for people: every node with every reason.

use std::collections::BTreeSet;

use modchain_types::{JobId, Micro, ModelPlace, Name, NodeId, Reason, Span, Timestamp};

use super::needs::Needs;
use super::{feasible, rank};
use crate::node::Node;

/// Why a node can or cannot take a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFit {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// What speaks against it now; empty if it fits.
    pub reasons: Vec<String>,
    /// Whether waiting can help: every reason may pass.
    pub may_pass: bool,
    /// What the job's reservation costs there per hour.
    pub price_per_hour: Option<Micro>,
    /// The least that a job that ran pays there.
    pub minimum: Option<Micro>,
    /// How long the job may run there, and whether the hold rather than its time limit says so.
    pub run_limit: Option<(Span, bool)>,
    /// What a million tokens cost there: of the prompt, and made. `None` for what is no job for a language model.
    pub million_tokens: Option<(Micro, Micro)>,
    /// How near its language model is; `None` where it asks for none or cannot have it there.
    pub model: Option<ModelPlace>,
}

/// A node that is kept for a job that has waited for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The job.
    pub job: JobId,
    /// The node that nobody after it in the order gets.
    pub node: NodeId,
}

/// Every node: those that fit first, best first, then the others by name. `kept` is a node that is kept for another job.
pub fn fitness<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    now: Timestamp,
    needs: &Needs,
    avoided: &BTreeSet<NodeId>,
    kept: Option<Kept>,
) -> Vec<NodeFit> {
    let mut judged: Vec<_> = nodes
        .map(|node| {
            let (mut reasons, mut may_pass) = (Vec::new(), true);
            let fit = feasible::examine(node, now, needs, &mut |unfit| {
                may_pass &= unfit.may_pass();
                reasons.push(unfit.to_string());
            });
            if let Some(kept) = kept.filter(|kept| kept.node == node.id) {
                reasons.push(format!("it is kept for {}, which has waited for long", kept.job.short()));
            }
            let fits = fit.as_ref().filter(|_| reasons.is_empty());
            let key = fits.map(|fit| (avoided.contains(&node.id), rank::score(node, needs, fit)));
            let model = needs.requirements.model.as_ref().zip(node.offer.as_ref());
            let fit = NodeFit {
                node: node.id,
                name: node.name.clone(),
                reasons,
                may_pass,
                price_per_hour: fit.as_ref().map(|fit| fit.price_per_hour),
                minimum: fit.as_ref().map(|fit| fit.minimum),
                run_limit: fit.as_ref().map(|fit| (fit.run_limit, fit.run_limit_reason == Reason::Budget)),
                million_tokens: model
                    .map(|(_, offer)| (offer.tariff.million_prompt_tokens, offer.tariff.million_output_tokens)),
                model: model.and_then(|(name, offer)| offer.capabilities.place_of(name)),
            };
            (key.is_none(), key, node.name.clone(), fit)
        })
        .collect();
    judged.sort_by(|a, b| (&a.0, &a.1, &a.2).cmp(&(&b.0, &b.1, &b.2)));
    judged.into_iter().map(|(_, _, _, fit)| fit).collect()
}
