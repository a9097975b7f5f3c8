//! The table of nodes, and below it the selected one's GPUs and facts.

use modchain_types::{Name, NodeState};
use modchain_wire::view::NodeView;
use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::super::app::{App, Ctx, Place};
use super::super::layout::Layout;
use super::super::table::{Column, RowId, Source, TableId, Width, moment, text};
use super::super::theme::Role;
use super::{Title, node as page};
use crate::cli::docs::node_price;
use crate::cli::pool::gpu_models;
use crate::client::mirror::{Mirror, pool};
use crate::client::series::{gpu_busy, vram};
use crate::filter::{Kind, Unit, Value};
use crate::text as words;

/// The table of nodes.
pub(crate) struct Nodes;

/// The words of every state, for filters.
const STATES: &[&str] = &["ready", "suspect", "lost", "cordoned", "draining", "paused"];

/// Bytes of a GiB.
const GIB: u64 = 1 << 30;

const NODES: &[Column<NodeView>] = &[
    Column {
        key: "node",
        title: "NODE",
        width: (9, 14),
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
        width: (10, 10),
        priority: 200,
        shown: Width::Default,
        align: Alignment::Left,
        cell: state,
        kind: Kind::Words(STATES),
        value: |_, node| Some(Value::from(node.state.word())),
    },
    Column {
        key: "pool",
        title: "POOL",
        width: (8, 12),
        priority: 60,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |_, node, _| text(pool(node).map_or_else(|| "-".into(), words::one_line)),
        kind: Kind::Text,
        value: |_, node| pool(node).map(|pool| Value::from(words::one_line(pool))),
    },
    Column {
        key: "gpus",
        title: "GPUS",
        width: (4, 4),
        priority: 55,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, node, _| {
            text(
                count(node)
                    .map_or_else(|| "?".into(), |count| if count == 0 { "-".into() } else { format!("{count}x") }),
            )
        },
        kind: Kind::Number(Unit::Plain),
        value: |_, node| count(node).map(|count| Value::Number(count as f64)),
    },
    Column {
        key: "gpu",
        title: "GPU%",
        width: (5, 5),
        priority: 150,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, node, _| match heard(node, gpu_busy(node)) {
            Some(percent) => Line::styled(percent.to_string(), ctx.theme.style(Role::Text)),
            None => unknown(node),
        },
        kind: Kind::Number(Unit::Percent),
        value: |_, node| heard(node, gpu_busy(node)).map(|percent| Value::Number(f64::from(percent))),
    },
    Column {
        key: "line",
        title: "5 MIN",
        width: (6, 12),
        priority: 90,
        shown: Width::Default,
        align: Alignment::Left,
        cell: |ctx, node, room| text(ctx.glyphs.spark(&page::line(ctx, node), usize::from(room.min(12)))),
        kind: Kind::Number(Unit::Percent),
        value: |ctx, node| {
            let known: Vec<u8> = page::line(ctx, node).into_iter().flatten().collect();
            let sum: f64 = known.iter().map(|percent| f64::from(*percent)).sum();
            (!known.is_empty()).then(|| Value::Number(sum / known.len() as f64))
        },
    },
    Column {
        key: "vram",
        title: "VRAM",
        width: (7, 11),
        priority: 85,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, node, room| match heard(node, vram(node)) {
            Some((used, total)) => {
                let unit = if room >= 11 { " GiB" } else { "" };
                text(format!("{}/{}{unit}", used / GIB, total / GIB))
            }
            None => unknown(node),
        },
        kind: Kind::Number(Unit::Bytes),
        value: |_, node| heard(node, vram(node)).map(|(used, _)| Value::Number(used as f64)),
    },
    Column {
        key: "temp",
        title: "TEMP",
        width: (4, 5),
        priority: 50,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, node, room| match heard(node, hottest(node)) {
            Some(degrees) => {
                let unit = if room >= 5 { " C" } else { "C" };
                Line::styled(format!("{degrees}{unit}"), page::heat(ctx, degrees))
            }
            None => unknown(node),
        },
        kind: Kind::Number(Unit::Plain),
        value: |_, node| heard(node, hottest(node)).map(|degrees| Value::Number(f64::from(degrees))),
    },
    Column {
        key: "power",
        title: "POWER",
        width: (6, 6),
        priority: 45,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, node, _| {
            heard(node, power(node)).map_or_else(|| unknown(node), |milliwatts| text(page::watts(milliwatts)))
        },
        kind: Kind::Number(Unit::Plain),
        value: |_, node| heard(node, power(node)).map(|milliwatts| Value::Number(milliwatts as f64 / 1_000.0)),
    },
    Column {
        key: "jobs",
        title: "JOBS",
        width: (4, 4),
        priority: 80,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, node, _| text(node.attempts.to_string()),
        kind: Kind::Number(Unit::Plain),
        value: |_, node| Some(Value::Number(f64::from(node.attempts))),
    },
    Column {
        key: "price",
        title: "PRICE/H",
        width: (7, 9),
        priority: 75,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, node, _| text(node.offer.as_ref().map_or_else(|| "?".into(), |offer| node_price(offer).to_string())),
        kind: Kind::Number(Unit::Micro),
        value: |_, node| node.offer.as_ref().map(|offer| Value::Number(node_price(offer).0 as f64)),
    },
    Column {
        key: "rtt",
        title: "RTT",
        width: (5, 6),
        priority: 40,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |_, node, _| text(heard(node, node.rtt).map_or_else(|| "?".into(), |rtt| rtt.to_string())),
        kind: Kind::Number(Unit::Millis),
        value: |_, node| heard(node, node.rtt).map(|rtt| Value::Number(rtt.0 as f64 / 1_000.0)),
    },
    Column {
        key: "seen",
        title: "SEEN",
        width: (4, 8),
        priority: 70,
        shown: Width::Default,
        align: Alignment::Right,
        cell: |ctx, node, room| {
            let show = |at| if room == u16::MAX { words::rfc3339(at) } else { moment(ctx, at) };
            text(node.seen_at.map_or_else(|| "never".into(), show))
        },
        kind: Kind::Number(Unit::Millis),
        // Below zero where the clocks are not quite the same: the order is right all the same.
        value: |ctx, node| node.seen_at.map(|at| Value::Number((ctx.now.0 - at.0) as f64)),
    },
    Column {
        key: "cpu",
        title: "CPU%",
        width: (5, 5),
        priority: 38,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, node, _| text(cpu(node).map_or_else(|| "?".into(), |percent| format!("{percent:.0}"))),
        kind: Kind::Number(Unit::Percent),
        value: |_, node| cpu(node).map(Value::Number),
    },
    Column {
        key: "memory",
        title: "MEMORY",
        width: (9, 14),
        priority: 36,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, node, _| {
            let load = heard(node, node.load);
            text(load.map_or_else(|| "?".into(), |load| page::gib(load.memory_used_bytes, load.memory_total_bytes)))
        },
        kind: Kind::Number(Unit::Bytes),
        // What it offers, whatever is used of it just now.
        value: |_, node| node.offer.as_ref().map(|offer| Value::Number(offer.capabilities.memory_bytes as f64)),
    },
    Column {
        key: "account",
        title: "OWNER",
        width: (6, 14),
        priority: 34,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, node, _| text(node.account.to_string()),
        kind: Kind::Whole,
        value: |_, node| Some(Value::from(node.account.to_string())),
    },
    Column {
        key: "region",
        title: "REGION",
        width: (6, 14),
        priority: 32,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, node, _| text(region(node).unwrap_or_else(|| "-".into())),
        kind: Kind::Text,
        value: |_, node| region(node).map(Value::from),
    },
    Column {
        key: "type",
        title: "TYPES",
        width: (11, 20),
        priority: 30,
        shown: Width::Wide,
        align: Alignment::Left,
        cell: |_, node, _| text(types(node).unwrap_or_else(|| "?".into())),
        kind: Kind::Text,
        value: |_, node| types(node).map(Value::from),
    },
    Column {
        key: "models",
        title: "MODELS",
        width: (6, 6),
        priority: 28,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, node, _| text(models(node).map_or_else(|| "?".into(), |count| count.to_string())),
        kind: Kind::Number(Unit::Plain),
        value: |_, node| models(node).map(|count| Value::Number(count as f64)),
    },
    Column {
        key: "cores",
        title: "CORES",
        width: (5, 7),
        priority: 26,
        shown: Width::Wide,
        align: Alignment::Right,
        cell: |_, node, _| text(cores(node).map_or_else(|| "?".into(), words::cpus)),
        kind: Kind::Number(Unit::Plain),
        value: |_, node| cores(node).map(|milli| Value::Number(f64::from(milli) / 1_000.0)),
    },
    Column {
        key: "model",
        title: "GPU MODELS",
        width: (10, 30),
        priority: 25,
        shown: Width::All,
        align: Alignment::Left,
        cell: |_, node, _| text(gpu_models(node)),
        kind: Kind::Text,
        value: |_, node| Some(gpu_models(node)).filter(|models| models.len() > 1).map(Value::from),
    },
    Column {
        key: "slots",
        title: "SLOTS",
        width: (5, 5),
        priority: 25,
        shown: Width::All,
        align: Alignment::Right,
        cell: |_, node, _| text(slots(node).map_or_else(|| "?".into(), |count| count.to_string())),
        kind: Kind::Number(Unit::Plain),
        value: |_, node| slots(node).map(|count| Value::Number(f64::from(count))),
    },
    Column {
        key: "agent",
        title: "AGENT",
        width: (6, 10),
        priority: 24,
        shown: Width::All,
        align: Alignment::Left,
        cell: |_, node, _| {
            text(node.offer.as_ref().map_or_else(|| "?".into(), |offer| words::one_line(&offer.agent_version)))
        },
        kind: Kind::Text,
        value: |_, node| node.offer.as_ref().map(|offer| Value::from(words::one_line(&offer.agent_version))),
    },
    Column {
        key: "label",
        title: "LABELS",
        width: (10, 60),
        priority: 20,
        shown: Width::All,
        align: Alignment::Left,
        cell: |_, node, _| text(labels(node).unwrap_or_else(|| "?".into())),
        kind: Kind::Pairs,
        value: |_, _| None,
    },
];

impl Source for Nodes {
    type Row = NodeView;
    const TABLE: TableId = TableId::Nodes;
    const NOUNS: (&'static str, &'static str) = ("node", "nodes");

    fn columns() -> &'static [Column<NodeView>] {
        NODES
    }

    fn also() -> &'static [(&'static str, &'static str)] {
        &[("name", "node"), ("owner", "account")]
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
        mirror.node_changes.revision()
    }

    fn changes(ctx: &Ctx<'_>, since: u64) -> Option<Vec<RowId>> {
        Some(ctx.mirror.node_changes.since(since)?.map(|node| RowId::Node(node.clone())).collect())
    }

    /// The last five minutes are others every five seconds.
    fn drifts(key: &str) -> bool {
        key == "line"
    }

    fn value(ctx: &Ctx<'_>, node: &NodeView, name: &str) -> Option<Value<'static>> {
        match name.strip_prefix("label.") {
            Some(label) => {
                let labels = &node.offer.as_ref()?.capabilities.labels;
                let value = labels.iter().find(|(key, _)| key.as_str() == label).map(|(_, value)| value)?;
                Some(Value::from(value.as_str().to_owned()))
            }
            None => NODES.iter().find(|column| column.key == name).and_then(|column| (column.value)(ctx, node)),
        }
    }
}

/// The state in a character and a word; in a file in the word alone.
pub(crate) fn state(ctx: &Ctx<'_>, node: &NodeView, room: u16) -> Line<'static> {
    if room == u16::MAX {
        return text(node.state.word());
    }
    let about = RowId::Node(node.name.clone());
    if ctx.ui.asks.values().any(|ask| ask.about.as_ref() == Some(&about)) {
        return Line::styled(format!("{} sending", ctx.glyphs.pick("…", ".")), ctx.theme.style(Role::Info));
    }
    Line::styled(format!("{} {}", ctx.glyphs.node(node.state), node.state.word()), ctx.theme.node(node.state))
}

/// What a node has measured, unless it is lost: then it was true once.
pub(crate) fn heard<T>(node: &NodeView, measured: Option<T>) -> Option<T> {
    measured.filter(|_| node.state != NodeState::Lost)
}

/// What stands where a GPU's measurement is missing: a node without GPUs has none to tell.
fn unknown(node: &NodeView) -> Line<'static> {
    text(if count(node) == Some(0) { "-" } else { "?" })
}

/// How many GPUs it has, once it has said so.
fn count(node: &NodeView) -> Option<usize> {
    node.offer.as_ref().map(|offer| offer.capabilities.gpus.len())
}

/// The temperature of its hottest GPU.
fn hottest(node: &NodeView) -> Option<u8> {
    node.gpus.iter().filter_map(|gpu| gpu.temperature_c).max()
}

/// What all its GPUs draw, in thousandths of a watt.
fn power(node: &NodeView) -> Option<u64> {
    node.gpus.iter().filter_map(|gpu| gpu.power_mw.map(u64::from)).reduce(|sum, one| sum + one)
}

fn cpu(node: &NodeView) -> Option<f64> {
    heard(node, node.load)?.cpu_permille.map(|permille| f64::from(permille) / 10.0)
}

fn cores(node: &NodeView) -> Option<u32> {
    node.offer.as_ref().map(|offer| offer.capabilities.cpu_milli)
}

/// How many jobs it takes at once.
fn slots(node: &NodeView) -> Option<u32> {
    node.offer.as_ref().map(|offer| offer.capabilities.slots)
}

fn models(node: &NodeView) -> Option<usize> {
    node.offer.as_ref().map(|offer| offer.capabilities.models.len())
}

fn region(node: &NodeView) -> Option<String> {
    let region = &node.offer.as_ref()?.capabilities.region;
    (!region.is_empty()).then(|| words::one_line(region))
}

/// The kinds of jobs that it takes.
pub(crate) fn types(node: &NodeView) -> Option<String> {
    let adapters = &node.offer.as_ref()?.capabilities.adapters;
    Some(adapters.iter().map(|adapter| adapter.word()).collect::<Vec<_>>().join(" "))
}

/// Its labels, except its pool, which stands elsewhere.
pub(crate) fn labels(node: &NodeView) -> Option<String> {
    let labels = node.offer.as_ref()?.capabilities.labels.iter().filter(|(key, _)| key.as_str() != "pool");
    let labels = labels.map(|(key, value)| words::one_line(&format!("{}={}", key.as_str(), value.as_str())));
    Some(labels.collect::<Vec<_>>().join(" "))
}

/// The node that is looked at: the one that is open, or the selected one.
pub(crate) fn shown(app: &App) -> Option<Name> {
    match app.place() {
        Place::Node(node) => Some(node),
        Place::Nodes => match &app.ui.table(TableId::Nodes).selected {
            Some(RowId::Node(node)) => Some(node.clone()),
            _ => None,
        },
        Place::Overview
        | Place::Jobs
        | Place::Job(_)
        | Place::Output(_)
        | Place::Events
        | Place::Account
        | Place::Access => None,
    }
}

/// Draws the table and what belongs to the selected node.
pub(crate) fn draw(app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>) {
    super::draw_table::<Nodes>(app, ctx, layout, 0, frame);
    let node = shown(app).and_then(|name| ctx.mirror.nodes.get(&name));
    for (pane, name) in [(1, "GPUs"), (2, "facts")] {
        if !layout.shows(pane) {
            continue;
        }
        let Some(node) = node else {
            super::pane(ctx, layout, pane, frame, Title { left: name, right: "", focused: false });
            continue;
        };
        let has_gpus = count(node) != Some(0);
        let name = if pane == 1 && !has_gpus { "CPU and memory" } else { name };
        let left = ctx.glyphs.plain(&format!("{} · {name}", node.name));
        let right = if pane == 1 { page::hardware(node) } else { String::new() };
        let inner = super::pane(ctx, layout, pane, frame, Title { left: &left, right: &right, focused: false });
        let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
        let lines = if pane == 1 {
            page::measured(ctx, node, inner.width, Some(inner.height))
        } else {
            let mut lines = page::facts(ctx, node, inner.width);
            lines.push(Line::default());
            lines.extend(page::jobs(ctx));
            lines
        };
        frame.render_widget(Paragraph::new(lines), inner);
    }
}
