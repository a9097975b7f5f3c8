//! `status` and `nodes`: the pool.

use modchain_types::{Asset, Capabilities, NodeState, Span};
use modchain_wire::agent::GpuSample;
use modchain_wire::console::{NodesQuery, StatusQuery};
use modchain_wire::view::{NodeView, StatusView};

use super::docs::{self, ListDoc};
use super::table::{self, Column, Columns, Look, NONE, UNKNOWN, millis, or_none, or_unknown, pairs};
use super::watch::{self, NodesWatch, StatusWatch};
use crate::args::{Format, NodesArgs, StatusArgs};
use crate::client::Client;
use crate::exit::{self, Failure, Outcome};
use crate::filter::{Filter, Kind, Unit};
use crate::shell::Shell;
use crate::text;

/// Nodes asked for at once.
const PAGE: u32 = 500;

/// `modchain status`.
pub(crate) async fn status(shell: &Shell, args: &StatusArgs) -> Outcome {
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    if args.watch {
        let watched = StatusWatch::new(client.address().to_owned(), asset);
        return watch::watch(shell, client, watched).await;
    }
    let view = client.status(StatusQuery { detail: false }).await?;
    match shell.format() {
        Format::Json | Format::Jsonl => {
            shell.print_document(&docs::status(&view, client.address(), Some(client.rtt()), asset))?;
        }
        Format::Name => shell.print(&format!("{}\n", client.address()))?,
        Format::Table => shell.print(&status_text(&view, client.address(), client.rtt(), asset))?,
    }
    Ok(if args.check && !is_well(&view) { exit::FAILED } else { exit::OK })
}

/// Whether nothing is wrong and no node is lost.
fn is_well(view: &StatusView) -> bool {
    view.problems.is_empty() && view.nodes.iter().all(|(state, count)| *state != NodeState::Lost || *count == 0)
}

/// How things are, for a person.
pub(super) fn status_text(view: &StatusView, address: &str, rtt: Span, asset: Asset) -> String {
    let total: u64 = view.nodes.iter().map(|(_, count)| count).sum();
    let count =
        |wanted: NodeState| view.nodes.iter().find(|(state, _)| *state == wanted).map_or(0, |(_, count)| *count);
    let mut nodes = format!("{} of {total} ready", count(NodeState::Ready));
    for (state, count) in view.nodes.iter().filter(|(state, _)| *state != NodeState::Ready) {
        nodes.push_str(&format!(", {count} {state}"));
    }
    let mut jobs: Vec<String> = view.jobs.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if jobs.is_empty() {
        jobs.push("none".into());
    }
    let mut jobs = jobs.join(", ");
    if let Some(oldest) = view.oldest_queued {
        jobs.push_str(&format!(" (oldest waits {oldest})"));
    }
    let mut lines = vec![
        (address, format!("live, {rtt}, server {}, up {}", view.version, view.uptime)),
        ("nodes", nodes),
        ("jobs", jobs),
    ];
    if view.gpus > 0 {
        let free = view.gpus.saturating_sub(view.gpus_reserved);
        let busy = view.gpus_busy_pct.map(|percent| format!("{percent} % busy, ")).unwrap_or_default();
        lines.insert(2, ("gpus", format!("{}, {busy}{free} free", view.gpus)));
    }
    let account = view.account.as_ref().map(|account| {
        let (available, held) = (text::money(account.available, asset), account.held);
        (
            format!("account {}", account.id),
            format!("{available} free, {held} held, burning {}/h", account.burn_per_hour),
        )
    });
    if let Some((name, value)) = &account {
        lines.push((name, value.clone()));
    }
    let mut out = pairs(&lines);
    for problem in &view.problems {
        out.push_str(&format!("! {}\n", text::one_line(problem)));
    }
    out
}

/// `modchain nodes`.
pub(crate) async fn nodes(shell: &Shell, args: NodesArgs) -> Outcome {
    let wanted = Wanted::new(&args, shell.look().wide)?;
    let client = shell.connect().await?;
    if args.watch {
        let (asset, look) = (client.welcome().asset, shell.look());
        return watch::watch(shell, client, NodesWatch { wanted, look, asset }).await;
    }
    let asset = client.welcome().asset;
    let all = all(&client).await?;
    let count = all.len();
    let look = shell.look();
    let nodes = wanted.pick(&all, &look);
    match shell.format() {
        Format::Json => {
            let items = nodes.iter().map(|node| docs::node(node, asset)).collect();
            shell.print_document(&ListDoc { schema: "modchain.nodes/v1", items, total: Some(count as u64) })?;
        }
        Format::Jsonl => nodes.iter().try_for_each(|node| shell.print_document(&docs::node(node, asset)))?,
        Format::Name => shell.print(&nodes.iter().map(|node| format!("{}\n", node.name)).collect::<String>())?,
        Format::Table => {
            shell.print(&wanted.columns.text(nodes.iter().copied(), &look))?;
            if shell.stderr_tty() {
                shell.say(&format!("{} of {count} nodes", nodes.len()));
            }
        }
    }
    Ok(exit::OK)
}

/// Every node that one may see, by name.
pub(crate) async fn all(client: &Client) -> Result<Vec<NodeView>, Failure> {
    let mut nodes: Vec<NodeView> = Vec::new();
    loop {
        let after = nodes.last().map(|node| node.name.clone());
        let page = client.nodes(NodesQuery { limit: PAGE, after }).await?;
        let (more, count) = (page.more, page.items.len());
        nodes.extend(page.items);
        if !more || count == 0 {
            return Ok(nodes);
        }
    }
}

/// Which nodes are meant, what is shown of them, and in which order.
pub(crate) struct Wanted {
    /// What is shown.
    pub(crate) columns: Columns<NodeView>,
    filter: Filter,
    limit: usize,
}

impl Wanted {
    fn new(args: &NodesArgs, wide: bool) -> Result<Self, Failure> {
        let columns = Columns::new(&COLUMNS, &args.table, wide)?;
        // Flags are the words that mean the same, quoted: they are no language.
        let quoted = |text: &String| format!("\"{}\"", text.replace('"', "\\\""));
        let state = args.state.iter().map(|state| format!("state={}", quoted(state)));
        let pool = args.pool.iter().map(|pool| format!("pool={}", quoted(pool)));
        // The words first, so that a complaint counts its columns from where they begin.
        let words: Vec<String> = args.filter.iter().cloned().chain(state).chain(pool).collect();
        Ok(Self { columns, filter: table::filter(&words, &COLUMNS)?, limit: args.limit as usize })
    }

    /// Those that fit, in their order.
    pub(crate) fn pick<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeView>, look: &Look) -> Vec<&'a NodeView> {
        let mut nodes: Vec<&NodeView> =
            nodes.into_iter().filter(|node| self.columns.fits(&self.filter, node, look)).collect();
        self.columns.sort(&mut nodes, look);
        nodes.truncate(self.limit);
        nodes
    }
}

/// The words of every state of nodes.
const STATES: &[&str] = &["ready", "suspect", "lost", "cordoned", "draining", "paused"];

/// One of them.
type NodeColumn = Column<NodeView>;

/// The columns of nodes. The price is that of everything that a node offers. `?` stands for what is not known, and for what
/// was true only as long as the node was heard.
pub(crate) static COLUMNS: [NodeColumn; 22] = [
    NodeColumn::text("node", "NODE", |node, _| node.name.to_string()).of(Kind::Name),
    NodeColumn::text("name", "NAME", |node, _| node.name.to_string()).of(Kind::Name).hidden(),
    NodeColumn::text("state", "STATE", |node, _| node.state.word().into()).of(Kind::Words(STATES)),
    NodeColumn::text("pool", "POOL", |node, _| or_none(docs::pool(node))),
    NodeColumn::number(
        "cores",
        "CORES",
        Unit::Plain,
        |node, _| or_unknown(offered(node).map(|o| text::cpus(o.cpu_milli))),
        |node, _| offered(node).map(|offered| f64::from(offered.cpu_milli) / 1_000.0),
    ),
    NodeColumn::number(
        "cpu",
        "CPU%",
        Unit::Percent,
        |node, _| or_unknown(cpu_busy(node)),
        |node, _| cpu_busy(node).map(f64::from),
    ),
    NodeColumn::number(
        "memory",
        "MEMORY",
        Unit::Bytes,
        |node, _| or_unknown(offered(node).map(|offered| text::bytes(offered.memory_bytes))),
        |node, _| offered(node).map(|offered| offered.memory_bytes as f64),
    ),
    NodeColumn::number(
        "gpus",
        "GPUS",
        Unit::Plain,
        |node, _| or_unknown(offered(node).map(|o| o.gpus.len())),
        |node, _| offered(node).map(|offered| offered.gpus.len() as f64),
    ),
    NodeColumn::number(
        "gpu",
        "GPU%",
        Unit::Percent,
        |node, _| of_gpus(node, gpu_busy(node)),
        |node, _| gpu_busy(node).map(f64::from),
    ),
    NodeColumn::number(
        "vram",
        "VRAM",
        Unit::Bytes,
        |node, _| of_gpus(node, vram(node).map(|(used, total)| format!("{}/{} GiB", used >> 30, total >> 30))),
        |node, _| vram(node).map(|(used, _)| used as f64),
    ),
    NodeColumn::number(
        "jobs",
        "JOBS",
        Unit::Plain,
        |node, _| node.attempts.to_string(),
        |node, _| Some(f64::from(node.attempts)),
    ),
    NodeColumn::number(
        "price",
        "PRICE/H",
        Unit::Micro,
        |node, _| or_unknown(node.offer.as_ref().map(docs::node_price)),
        |node, _| node.offer.as_ref().map(|offer| docs::node_price(offer).0 as f64),
    ),
    NodeColumn::number(
        "seen",
        "SEEN",
        Unit::Millis,
        |node, look| node.seen_at.map_or_else(|| "never".into(), |at| look.now.since(at).to_string()),
        |node, look| node.seen_at.map(|at| millis(look.now.since(at))),
    )
    .restless(),
    NodeColumn::number(
        "slots",
        "SLOTS",
        Unit::Plain,
        |node, _| or_unknown(offered(node).map(|o| o.slots)),
        |node, _| offered(node).map(|offered| f64::from(offered.slots)),
    )
    .extra(),
    NodeColumn::number("rtt", "RTT", Unit::Millis, |node, _| or_unknown(node.rtt), |node, _| node.rtt.map(millis))
        .extra(),
    NodeColumn::text("account", "ACCOUNT", |node, _| node.account.to_string()).of(Kind::Whole).extra(),
    NodeColumn::text("owner", "OWNER", |node, _| node.account.to_string()).of(Kind::Whole).hidden(),
    NodeColumn::text("region", "REGION", |node, _| {
        or_none(offered(node).map(|offered| &offered.region).filter(|region| !region.is_empty()))
    })
    .extra(),
    NodeColumn::text("model", "GPU MODELS", |node, _| gpu_models(node)).extra(),
    NodeColumn::text("type", "TYPES", |node, _| {
        let adapters =
            offered(node).map(|offered| offered.adapters.iter().map(|adapter| adapter.word()).collect::<Vec<_>>());
        or_unknown(adapters.map(|words| words.join(",")))
    })
    .extra(),
    NodeColumn::text("agent", "AGENT", |node, _| or_unknown(node.offer.as_ref().map(|offer| &offer.agent_version)))
        .extra(),
    NodeColumn::text("label", "LABELS", |node, _| labels(node))
        .pairs(|node, name| {
            let labels = &offered(node)?.labels;
            labels.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value.to_string())
        })
        .extra(),
];

fn offered(node: &NodeView) -> Option<&Capabilities> {
    node.offer.as_ref().map(|offer| &offer.capabilities)
}

/// Whether what its last heartbeat said is still worth something.
fn is_heard(node: &NodeView) -> bool {
    !matches!(node.state, NodeState::Suspect | NodeState::Lost)
}

fn cpu_busy(node: &NodeView) -> Option<u16> {
    let permille = node.load.and_then(|load| load.cpu_permille);
    permille.filter(|_| is_heard(node)).map(|busy| busy / 10)
}

fn gpu_busy(node: &NodeView) -> Option<u32> {
    busy(&node.gpus).filter(|_| is_heard(node))
}

/// What is known of a node's GPUs, if it has any.
fn of_gpus(node: &NodeView, value: Option<impl ToString>) -> String {
    match offered(node).map(|offered| &*offered.gpus) {
        Some([]) => NONE.into(),
        Some([_, ..]) | None => or_unknown(value),
    }
}

/// `2x A100 80GB`, each model once.
pub(crate) fn gpu_models(node: &NodeView) -> String {
    let mut models: Vec<(&str, usize)> = Vec::new();
    for gpu in offered(node).map(|offered| &*offered.gpus).unwrap_or_default() {
        match models.iter_mut().find(|(model, _)| *model == gpu.model.as_str()) {
            Some((_, count)) => *count += 1,
            None => models.push((gpu.model.as_str(), 1)),
        }
    }
    let models: Vec<String> = models.into_iter().map(|(model, count)| format!("{count}x {model}")).collect();
    of_gpus(node, Some(models.join(", ")).filter(|models| !models.is_empty()))
}

fn labels(node: &NodeView) -> String {
    let Some(offered) = offered(node) else { return UNKNOWN.into() };
    let labels: Vec<String> = offered.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() { NONE.into() } else { labels.join(" ") }
}

/// How busy these GPUs are on average, in percent; `None` if none of them tells.
pub(crate) fn busy(gpus: &[GpuSample]) -> Option<u32> {
    let told: Vec<u32> = gpus.iter().filter_map(|gpu| gpu.busy_pct).map(u32::from).collect();
    (!told.is_empty()).then(|| told.iter().sum::<u32>() / told.len() as u32)
}

/// Memory in use and memory of all GPUs together; `None` unless every one of them tells.
fn vram(node: &NodeView) -> Option<(u64, u64)> {
    let used = node.gpus.iter().map(|gpu| gpu.memory_used_bytes).sum::<Option<u64>>()?;
    let gpus = &offered(node)?.gpus;
    let total = gpus.iter().map(|gpu| gpu.memory_bytes).sum();
    (node.gpus.len() == gpus.len() && is_heard(node)).then_some((used, total))
}

#[cfg(test)]
mod tests {
    use modchain_types::WallTime;

    use super::*;
    use crate::args::TableArgs;
    use crate::cli::docs::tests::node_view;

    fn wanted(words: &[&str], flags: impl FnOnce(&mut NodesArgs)) -> Result<Wanted, Failure> {
        let filter = words.iter().map(|word| (*word).to_owned()).collect();
        let mut args =
            NodesArgs { filter, pool: None, state: None, table: TableArgs::default(), watch: false, limit: 9 };
        flags(&mut args);
        Wanted::new(&args, false)
    }

    fn named(name: &str, attempts: u32) -> NodeView {
        NodeView { name: name.parse().expect("a name"), attempts, ..node_view() }
    }

    const LOOK: Look = Look { now: WallTime(0), utc: true, wide: false, short: false, still: false, csv: false };

    fn picked(wanted: &Wanted, nodes: &[NodeView]) -> Vec<String> {
        wanted.pick(nodes, &LOOK).into_iter().map(|node| node.name.to_string()).collect()
    }

    #[test]
    fn filters_know_every_state() {
        assert_eq!(STATES, docs::NODE_STATES.map(NodeState::word));
    }

    #[test]
    fn a_pool_is_not_well_with_a_lost_node_or_with_a_problem() {
        let view = |nodes: &[(NodeState, u64)], problems: &[&str]| StatusView {
            version: modchain_types::Text::default(),
            uptime: Span::ZERO,
            at: WallTime(0),
            nodes: modchain_types::List::cut(nodes.to_vec()),
            jobs: modchain_types::List::default(),
            oldest_queued: None,
            gpus: 0,
            gpus_reserved: 0,
            gpus_busy_pct: None,
            account: None,
            problems: modchain_types::List::cut(problems.iter().map(|what| modchain_types::Text::cut(*what)).collect()),
        };
        assert!(is_well(&view(&[(NodeState::Ready, 2), (NodeState::Cordoned, 1), (NodeState::Suspect, 1)], &[])));
        assert!(is_well(&view(&[], &[])), "nobody was lost");
        assert!(!is_well(&view(&[(NodeState::Ready, 2), (NodeState::Lost, 1)], &[])));
        assert!(!is_well(&view(&[(NodeState::Ready, 2)], &["money is frozen"])));
    }

    #[test]
    fn node_filters_are_checked_before_anything_is_asked() {
        for (word, hint) in [
            ("state:redy", "did you mean `ready`?"),
            ("gpus:many", "write gpus>3"),
            ("poool:x", "did you mean `pool:`?"),
        ] {
            let failure = wanted(&[word], |_| {}).map(|_| ()).expect_err(word);
            assert_eq!((failure.exit, failure.hint.as_deref()), (2, Some(hint)), "{word}");
        }
        let bad = wanted(&["rig"], |args| args.state = Some("redy".into())).map(|_| ()).expect_err("no state");
        assert!(bad.message.contains("`redy` is not a state"), "{bad}");
    }

    #[test]
    fn nodes_are_picked_by_words_and_flags_and_come_in_the_order_that_is_asked_for() {
        let mut lost = named("rig-2", 10);
        lost.state = NodeState::Lost;
        let nodes = [named("rig-1", 9), lost, named("lyon-1", 2)];
        let pick = |words: &[&str], flags: fn(&mut NodesArgs)| picked(&wanted(words, flags).expect("fits"), &nodes);
        assert_eq!(pick(&[], |_| {}), ["rig-1", "rig-2", "lyon-1"]);
        assert_eq!(pick(&["rig jobs>=9"], |_| {}), ["rig-1", "rig-2"]);
        assert_eq!(pick(&["state:ready,lost", "name:rig"], |_| {}), ["rig-1", "rig-2"]);
        assert_eq!(pick(&["!rig"], |args| args.state = Some("ready".into())), ["lyon-1"]);
        assert_eq!(pick(&[], |args| args.pool = Some("no such \"pool".into())), [""; 0]);
        assert_eq!(pick(&[], |args| args.table.sort = Some("-jobs".into())), ["rig-2", "rig-1", "lyon-1"]);
        assert_eq!(pick(&[], |args| args.table.sort = Some("node".into())), ["lyon-1", "rig-1", "rig-2"]);
        let first = |args: &mut NodesArgs| (args.table.sort, args.limit) = (Some("jobs".into()), 1);
        assert_eq!(pick(&[], first), ["lyon-1"]);
        // Nobody knows how busy a lost node is: it is last, up or down, and no number fits it.
        for sort in ["cpu", "-cpu"] {
            let wanted = wanted(&[], |args| args.table.sort = Some(sort.into())).expect("sorts");
            assert_eq!(picked(&wanted, &nodes).last().map(String::as_str), Some("rig-2"), "{sort}");
        }
        assert!(!pick(&["cpu>=0"], |_| {}).contains(&"rig-2".to_owned()));
    }
}
