//! The table of nodes, and below it the selected one's GPUs and facts.

use modchain_wire::view::NodeView;
use ratatui::Frame;
use ratatui::layout::Alignment;
use ratatui::text::Line;

use super::super::app::{App, Ctx};
use super::super::layout::Layout;
use super::super::table::{Column, RowId, Source, TableId, Width, moment, text};
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Unit, Value};

/// The table of nodes.
pub(crate) struct Nodes;

const NODES: &[Column<NodeView>] = &[
    Column {
        key: "node",
        title: "NODE",
        width: (10, 24),
        priority: 255,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, node, _| text(node.name.to_string()),
        kind: Kind::Name,
        value: |_, node| Some(Value::from(node.name.to_string())),
    },
    Column {
        key: "state",
        title: "STATE",
        width: (10, 12),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, node, _| {
            Line::styled(format!("{} {}", ctx.glyphs.node(node.state), node.state.word()), ctx.theme.node(node.state))
        },
        kind: Kind::Whole,
        value: |_, node| Some(Value::from(node.state.word())),
    },
    Column {
        key: "jobs",
        title: "JOBS",
        width: (4, 5),
        priority: 80,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, node, _| text(node.attempts.to_string()),
        kind: Kind::Number(Unit::Plain),
        value: |_, node| Some(Value::Number(f64::from(node.attempts))),
    },
    Column {
        key: "seen",
        title: "SEEN",
        width: (5, 8),
        priority: 70,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, node, _| text(node.seen_at.map_or_else(|| "-".into(), |at| moment(ctx, at))),
        kind: Kind::Number(Unit::Millis),
        value: |ctx, node| node.seen_at.map(|at| Value::Number(ctx.now.since(at).as_millis() as f64)),
    },
];

impl Source for Nodes {
    type Row = NodeView;
    const TABLE: TableId = TableId::Nodes;
    const NOUNS: (&'static str, &'static str) = ("node", "nodes");

    fn columns() -> &'static [Column<NodeView>] {
        NODES
    }

    fn order() -> (&'static str, bool) {
        ("node", false)
    }

    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a NodeView> + 'a> {
        Box::new(ctx.mirror.nodes.values().map(|node| &**node))
    }

    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a NodeView> {
        if let RowId::Node(name) = id { mirror.nodes.get(name).map(|node| &**node) } else { None }
    }

    fn id(row: &NodeView) -> RowId {
        RowId::Node(row.name.clone())
    }

    fn revision(mirror: &Mirror) -> u64 {
        mirror.nodes_revision
    }
}

/// Draws the table and what belongs to the selected node.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Nodes>(app, ctx, layout, 0, frame);
}
