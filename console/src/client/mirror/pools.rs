//! Nodes by the label `pool`, summed up as they come, change and go: who shows the sums looks at no node.

use std::collections::BTreeMap;

use modchain_types::{Micro, NodeState, Offer};
use modchain_wire::view::NodeView;

use crate::client::series::vram;

/// Sums over all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pools {
    /// By the label; those without one under `None`.
    pub(crate) by_name: BTreeMap<Option<String>, Pool>,
    /// Bytes of GPU memory that are in use, and all, of those that tell it and are not lost.
    pub(crate) memory: (u128, u128),
    /// Thousandths of processors that are busy, and all, of those that tell it and are not lost.
    pub(crate) cpu: (u64, u64),
}

/// Sums over the nodes that have the same label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    /// How many there are.
    pub(crate) nodes: u64,
    /// Those that take jobs.
    pub(crate) ready: u64,
    /// Their GPUs.
    pub(crate) gpus: u64,
    /// Those of nodes that take jobs that no job holds.
    pub(crate) free: u64,
    /// Busy percent of the GPUs that tell it and whose node is not lost, and how many those are.
    pub(crate) busy: (u64, u64),
    /// How many nodes have each price.
    pub(crate) prices: BTreeMap<Micro, u64>,
}

impl Pools {
    /// Takes a node in, or out as it was taken in.
    pub(super) fn count(&mut self, node: &NodeView, here: bool) {
        let name = pool(node).map(str::to_owned);
        let pool = self.by_name.entry(name.clone()).or_default();
        let add = |sum: &mut u64, count: u64| *sum = if here { *sum + count } else { *sum - count };
        let add_wide = |sum: &mut u128, count: u64| {
            *sum = if here { *sum + u128::from(count) } else { *sum - u128::from(count) };
        };
        let ready = node.state == NodeState::Ready;
        let gpus = node.offer.as_ref().map_or(0, |offer| offer.capabilities.gpus.len() as u64);
        add(&mut pool.nodes, 1);
        add(&mut pool.ready, u64::from(ready));
        add(&mut pool.gpus, gpus);
        if ready {
            add(&mut pool.free, gpus.saturating_sub(node.reserved.gpus.len() as u64));
        }
        if let Some(price) = node.offer.as_ref().map(price) {
            let count = pool.prices.entry(price).or_default();
            add(count, 1);
            if *count == 0 {
                pool.prices.remove(&price);
            }
        }
        if node.state != NodeState::Lost {
            for percent in node.gpus.iter().filter_map(|gpu| gpu.busy_pct) {
                add(&mut pool.busy.0, u64::from(percent));
                add(&mut pool.busy.1, 1);
            }
            if let Some((used, total)) = vram(node) {
                add_wide(&mut self.memory.0, used);
                add_wide(&mut self.memory.1, total);
            }
            if let Some(permille) = node.load.and_then(|load| load.cpu_permille) {
                add(&mut self.cpu.0, u64::from(permille));
                add(&mut self.cpu.1, 1_000);
            }
        }
        if pool.nodes == 0 {
            self.by_name.remove(&name);
        }
    }
}

/// The label `pool`.
pub(crate) fn pool(node: &NodeView) -> Option<&str> {
    let labels = &node.offer.as_ref()?.capabilities.labels;
    labels.iter().find(|(key, _)| key.as_str() == "pool").map(|(_, value)| value.as_str())
}

/// What an hour of its cheapest GPU costs, or of a core where it has no GPU.
pub(crate) fn price(offer: &Offer) -> Micro {
    let tariff = &offer.tariff;
    let named =
        |wanted: &str| tariff.gpu_hour.iter().find(|(name, _)| name.as_str() == wanted).map(|(_, price)| *price);
    let of = |model: &str| named(model).or_else(|| named("*")).unwrap_or(Micro::ZERO);
    offer.capabilities.gpus.iter().map(|gpu| of(&gpu.model)).min().unwrap_or(tariff.core_hour)
}
