//! `node`: one node, and whether nodes take new jobs.

use std::collections::BTreeMap;

use modchain_types::{Asset, Name, NodeState, NodeWish, Text};
use modchain_wire::agent::GpuSample;
use modchain_wire::console::{NodeQuery, NodeSet};
use modchain_wire::view::{GpuTickView, NodeHistoryView, NodeView};

use super::docs::{self, ListDoc};
use super::jobs::ids;
use super::pool::busy;
use super::table::{Align, Table, pairs};
use super::watch::Source;
use crate::args::{DrainArgs, Format, NodeCommand, NodeNames};
use crate::client::Client;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;
use crate::text;

/// Characters of a line of history.
const SPARK_COLUMNS: usize = 30;
/// Seconds that such a line shows.
const SPARK_SECONDS: i64 = 300;

/// `modchain node ...`.
pub(crate) async fn node(shell: &Shell, command: NodeCommand) -> Outcome {
    match command {
        NodeCommand::Show { node } => show(shell, node).await,
        NodeCommand::Cordon(names) => set(shell, names, NodeWish::Cordon).await,
        NodeCommand::Uncordon(names) => uncordon(shell, names).await,
        NodeCommand::Resume(names) => set(shell, names, NodeWish::Open).await,
        NodeCommand::Drain(args) => drain(shell, args).await,
    }
}

async fn show(shell: &Shell, node: Name) -> Outcome {
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    let view = client.node(NodeQuery { node }).await?;
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::node_history(&view, asset))?,
        Format::Name => shell.print(&format!("{}\n", view.node.name))?,
        Format::Table => shell.print(&details(shell, &view, asset))?,
    }
    Ok(exit::OK)
}

fn details(shell: &Shell, view: &NodeHistoryView, asset: Asset) -> String {
    let node = &view.node;
    let now = text::wall_now();
    let seen = node.seen_at.map_or_else(|| "never seen".into(), |at| format!("seen {} ago", now.since(at)));
    let mut out = text::one_line(&format!("{}  {}, {seen}", node.name, node.state)) + "\n";
    let mut lines: Vec<(&str, String)> = vec![("account", node.account.to_string())];
    if let Some(at) = node.drains_at {
        lines.push(("jobs move", format!("at {}", text::time_of_day(at, shell.utc()))));
    }
    if let Some(offer) = &node.offer {
        let capabilities = &offer.capabilities;
        let labels: Vec<String> = capabilities.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let types: Vec<&str> = capabilities.adapters.iter().map(|adapter| adapter.word()).collect();
        let (cores, reserved) = (text::cpus(capabilities.cpu_milli), text::cpus(node.reserved.cpu_milli));
        let (memory, taken) = (text::bytes(capabilities.memory_bytes), text::bytes(node.reserved.memory_bytes));
        let models = capabilities.models.iter();
        let models = models.map(|model| format!("{} ({})", model.name, text::bytes(model.bytes)));
        lines.extend([
            ("region", capabilities.region.to_string()),
            ("labels", labels.join(" ")),
            ("runs", types.join(", ")),
            ("models", models.collect::<Vec<_>>().join(", ")),
            ("cores", format!("{cores}, {reserved} reserved")),
            ("memory", format!("{memory}, {taken} reserved")),
            ("jobs", format!("{} of {}", node.attempts, capabilities.slots)),
            ("price", format!("{}/h for all of it", text::money(docs::node_price(offer), asset))),
            ("agent", offer.agent_version.to_string()),
        ]);
    }
    if let Some(load) = node.load {
        let cores = load.cpu_permille.map_or_else(|| "?".into(), |busy| (busy / 10).to_string());
        let (used, total) = (text::bytes(load.memory_used_bytes), text::bytes(load.memory_total_bytes));
        lines.push((
            "load",
            format!("cores {cores} %, memory {used} of {total}, {} of disk free", text::bytes(load.disk_free_bytes)),
        ));
    }
    lines.retain(|(_, value)| !value.is_empty());
    out.push_str(&pairs(&lines));
    let gpus = gpus_table(node);
    if !gpus.is_empty() {
        out.push_str(&format!("\n{gpus}"));
        out.push_str(&format!("busy, all GPUs, last 5 min  {}\n", spark(&view.ticks)));
    }
    out
}

fn gpus_table(node: &NodeView) -> String {
    let gpus = node.offer.as_ref().map(|offer| &*offer.capabilities.gpus).unwrap_or_default();
    if gpus.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("GPU", Align::Right),
        ("MODEL", Align::Left),
        ("BUSY", Align::Right),
        ("VRAM", Align::Right),
        ("TEMP", Align::Right),
        ("POWER", Align::Right),
        ("JOB", Align::Left),
        ("UUID", Align::Left),
    ]);
    for (index, gpu) in gpus.iter().enumerate() {
        let sample = node.gpus.get(index).copied().unwrap_or_default();
        let GpuSample { busy_pct, memory_used_bytes, temperature_c, power_mw } = sample;
        let told = |value: Option<String>| value.unwrap_or_else(|| "?".into());
        let taken = node.reserved.gpus.iter().any(|(uuid, _)| *uuid == gpu.uuid);
        table.row(vec![
            index.to_string(),
            gpu.model.to_string(),
            told(busy_pct.map(|busy| format!("{busy} %"))),
            told(memory_used_bytes.map(|used| format!("{}/{} GiB", used >> 30, gpu.memory_bytes >> 30))),
            told(temperature_c.map(|celsius| format!("{celsius} C"))),
            told(power_mw.map(|milliwatts| format!("{} W", milliwatts.saturating_add(500) / 1_000))),
            if taken { "yes".into() } else { "-".into() },
            gpu.uuid.to_string(),
        ]);
    }
    table.render()
}

/// One character for ten seconds, the newest last: how busy the GPUs were; a dot where nobody looked.
fn spark(ticks: &[GpuTickView]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let Some(newest) = ticks.last() else { return "·".repeat(SPARK_COLUMNS) };
    let mut columns: Vec<(u32, u32)> = vec![(0, 0); SPARK_COLUMNS];
    for tick in ticks {
        let age = newest.at.0.saturating_sub(tick.at.0) / (SPARK_SECONDS * 1_000 / SPARK_COLUMNS as i64);
        let column = usize::try_from(age).ok().filter(|age| *age < SPARK_COLUMNS);
        if let (Some(age), Some(busy)) = (column, busy(&tick.gpus)) {
            let (sum, count) = &mut columns[SPARK_COLUMNS - 1 - age];
            (*sum, *count) = (*sum + busy, *count + 1);
        }
    }
    let level = |(sum, count): (u32, u32)| match sum.checked_div(count) {
        Some(mean) => LEVELS[(mean.min(99) * 8 / 100) as usize],
        None => '·',
    };
    columns.into_iter().map(level).collect()
}

/// The names of a line, checked before anything is asked.
async fn named(names: NodeNames) -> Result<(Vec<Name>, Text<256>), Failure> {
    let why = Text::new(names.reason).map_err(|error| Failure::usage(format!("reason: {error}")))?;
    let parse = |word: &String| {
        word.parse::<Name>()
            .map_err(|error| Failure::usage(error.to_string()).hint("modchain nodes -o name lists names"))
    };
    let nodes = ids(names.nodes).await?.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    if nodes.is_empty() {
        return Err(Failure::usage("no node was named").hint("modchain nodes -o name lists names"));
    }
    Ok((nodes, why))
}

async fn set(shell: &Shell, names: NodeNames, wish: NodeWish) -> Outcome {
    let (nodes, why) = named(names).await?;
    let client = shell.connect().await?;
    let views = set_all(&client, &nodes, wish, &why).await?;
    tell(shell, &views, client.welcome().asset)?;
    Ok(exit::OK)
}

async fn uncordon(shell: &Shell, names: NodeNames) -> Outcome {
    let (nodes, why) = named(names).await?;
    let client = shell.connect().await?;
    for node in &nodes {
        let view = client.node(NodeQuery { node: node.clone() }).await?.node;
        if view.state == NodeState::Draining {
            return Err(Failure::conflict(format!("{node} is being drained"))
                .hint(format!("modchain node resume {node} takes the drain back")));
        }
    }
    let views = set_all(&client, &nodes, NodeWish::Open, &why).await?;
    tell(shell, &views, client.welcome().asset)?;
    Ok(exit::OK)
}

async fn set_all(client: &Client, nodes: &[Name], wish: NodeWish, why: &Text<256>) -> Result<Vec<NodeView>, Failure> {
    let mut views: Vec<NodeView> = Vec::new();
    for node in nodes {
        let request = NodeSet { node: node.clone(), wish, why: Text::clone(why) };
        let view = client.node_set(request).await.map_err(|failure| {
            // A failure in the middle of several must not hide what was done before it.
            if views.is_empty() {
                return failure;
            }
            let done: Vec<String> = views.iter().map(|view| format!("{} is {}", view.name, view.state)).collect();
            let hint = failure.hint.clone().into_iter().chain([format!("done before that: {}", done.join(", "))]);
            failure.hint(hint.collect::<Vec<_>>().join("; "))
        })?;
        views.push(view);
    }
    Ok(views)
}

fn tell(shell: &Shell, views: &[NodeView], asset: Asset) -> Result<(), Failure> {
    match (shell.format(), views) {
        (Format::Json, [view]) => shell.print_document(&docs::node(view, asset)),
        (Format::Json, views) => {
            let items: Vec<_> = views.iter().map(|view| docs::node(view, asset)).collect();
            let total = Some(items.len() as u64);
            shell.print_document(&ListDoc { schema: "modchain.nodes/v1", items, total })
        }
        (Format::Jsonl, views) => views.iter().try_for_each(|view| shell.print_document(&docs::node(view, asset))),
        (Format::Name, views) => shell.print(&views.iter().map(|view| format!("{}\n", view.name)).collect::<String>()),
        (Format::Table, _) if shell.quiet() => Ok(()),
        (Format::Table, views) => {
            let line = |view: &NodeView| match (view.state, view.attempts) {
                (NodeState::Ready | NodeState::Paused, _) | (_, 0) => format!("{}  {}\n", view.name, view.state),
                (state, jobs) => format!("{}  {state}, {} on it\n", view.name, counted(jobs)),
            };
            shell.print(&views.iter().map(line).collect::<String>())
        }
    }
}

fn counted(jobs: u32) -> String {
    if jobs == 1 { "1 job".into() } else { format!("{jobs} jobs") }
}

async fn drain(shell: &Shell, args: DrainArgs) -> Outcome {
    let (nodes, why) = named(args.names).await?;
    let client = shell.connect().await?;
    let asset = client.welcome().asset;
    if let Some(deadline) = args.deadline {
        let mut jobs = 0;
        for node in &nodes {
            jobs += client.node(NodeQuery { node: node.clone() }).await?.node.attempts;
        }
        let who = if let [node] = &nodes[..] { node.to_string() } else { format!("{} nodes", nodes.len()) };
        let question = format!(
            "Drain {who}? {} on it may go on for {deadline}; what still runs then begins again elsewhere, unbilled.",
            counted(jobs)
        );
        if jobs > 0 && !shell.confirm(&question).await? {
            return Err(Failure::failed("nothing was drained"));
        }
    }
    let mut views = set_all(&client, &nodes, NodeWish::Drain { within: args.deadline }, &why).await?;
    if args.wait {
        let waiting = emptied(shell, &nodes);
        views = match args.timeout {
            Some(timeout) => tokio::time::timeout(timeout.into(), waiting).await.unwrap_or_else(|_| {
                Err(Failure::timeout(format!("{timeout} passed; the drain goes on"))
                    .hint("modchain node show NAME; modchain node resume NAME takes it back"))
            })?,
            None => waiting.await?,
        };
    }
    tell(shell, &views, asset)?;
    Ok(exit::OK)
}

/// Waits until nothing runs on these nodes any more; gives them in their order.
async fn emptied(shell: &Shell, nodes: &[Name]) -> Result<Vec<NodeView>, Failure> {
    let mut source = Source::start(shell)?;
    let mut said: BTreeMap<Name, u32> = BTreeMap::new();
    loop {
        let mirror = source.next(|_| {}).await?;
        if mirror.is_stale() {
            continue;
        }
        let mut views = Vec::new();
        for name in nodes {
            let Some(view) = mirror.nodes.get(name) else {
                return Err(Failure::not_found(format!("there is no node `{name}` any more")));
            };
            if matches!(view.state, NodeState::Ready | NodeState::Cordoned | NodeState::Paused) {
                return Err(Failure::conflict(format!("{name} is not being drained any more: it is {}", view.state)));
            }
            if view.attempts > 0 && said.insert(name.clone(), view.attempts) != Some(view.attempts) {
                shell.say(&format!("{name}  {} left", counted(view.attempts)));
            }
            views.push(NodeView::clone(view));
        }
        if views.iter().all(|view| view.attempts == 0) {
            return Ok(views);
        }
    }
}

#[cfg(test)]
mod tests {
    use modchain_types::{List, WallTime};

    use super::*;

    fn tick(second: i64, busy: Option<u8>) -> GpuTickView {
        let sample = GpuSample { busy_pct: busy, ..GpuSample::default() };
        GpuTickView { at: WallTime(second * 1_000), gpus: List::new(vec![sample]).expect("fits") }
    }

    #[test]
    fn a_line_of_history_shows_what_was_and_where_nobody_looked() {
        assert_eq!(spark(&[]), "·".repeat(30));
        let mut ticks: Vec<GpuTickView> = (0..10).map(|second| tick(second, Some(0))).collect();
        ticks.extend((10..20).map(|second| tick(second, None)));
        ticks.extend((20..30).map(|second| tick(second, Some(50))));
        ticks.extend((30..40).map(|second| tick(second, Some(100))));
        assert_eq!(spark(&ticks), "·".repeat(26) + "▁·▅█");
        let long: Vec<GpuTickView> = (0..1_000).map(|second| tick(second, Some(100))).collect();
        assert_eq!(spark(&long), "█".repeat(30), "what is older than the line is left out");
    }
}
