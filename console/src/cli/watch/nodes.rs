//! `nodes --watch`.

use modchain_types::Asset;
use modchain_wire::view::NodeView;
use serde::Serialize;

use super::super::docs;
use super::super::pool::Wanted;
use super::super::table::{Look, Table};
use super::Watched;
use crate::client::mirror::Mirror;

/// Nodes by name, or in the order that is asked for.
pub(crate) struct NodesWatch {
    pub(crate) wanted: Wanted,
    pub(crate) look: Look,
    pub(crate) asset: Asset,
}

impl Watched for NodesWatch {
    type Item = NodeView;

    fn items(&self, mirror: &Mirror) -> Vec<(String, NodeView)> {
        let nodes = self.wanted.pick(mirror.nodes.values().map(|node| &**node), &self.look.now());
        nodes.into_iter().map(|node| (node.name.to_string(), node.clone())).collect()
    }

    fn screen(&self, _mirror: &Mirror, items: &[NodeView]) -> String {
        self.wanted.columns.table(items, &self.look.now()).render()
    }

    fn rows(&self, items: &[NodeView]) -> Table {
        self.wanted.columns.table(items, &self.look.still())
    }

    fn document(&self, op: &'static str, item: &NodeView) -> impl Serialize {
        docs::node_change(op, item, self.asset)
    }
}
