//! `nodes --watch`.

use modchain_types::Asset;
use modchain_wire::view::NodeView;
use serde::Serialize;

use super::super::docs;
use super::super::pool::{Filter, nodes_table};
use super::super::table::Table;
use super::Watched;
use crate::client::mirror::Mirror;

/// Nodes by name.
pub(crate) struct NodesWatch {
    pub(crate) filter: Filter,
    pub(crate) limit: usize,
    pub(crate) asset: Asset,
}

impl Watched for NodesWatch {
    type Item = NodeView;

    fn items(&self, mirror: &Mirror) -> Vec<(String, NodeView)> {
        let fitting = mirror.nodes.values().filter(|node| self.filter.fits(node)).take(self.limit);
        fitting.map(|node| (node.name.to_string(), NodeView::clone(node))).collect()
    }

    fn screen(&self, _mirror: &Mirror, items: &[NodeView]) -> String {
        nodes_table(items.iter(), true).render()
    }

    fn rows(&self, items: &[NodeView]) -> Table {
        nodes_table(items.iter(), false)
    }

    fn document(&self, op: &'static str, item: &NodeView) -> impl Serialize {
        docs::node_change(op, item, self.asset)
    }
}
