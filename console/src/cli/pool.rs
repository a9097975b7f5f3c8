//! `status` and `nodes`: the pool.

use modchain_types::{Asset, NodeState, Span};
use modchain_wire::agent::GpuSample;
use modchain_wire::console::{NodesQuery, StatusQuery};
use modchain_wire::view::{NodeView, StatusView};

use super::docs::{self, ListDoc};
use super::table::{Align, Table, pairs};
use super::watch::{self, NodesWatch, StatusWatch};
use crate::args::{Format, NodesArgs, StatusArgs};
use crate::client::Client;
use crate::client::config::nearest;
use crate::exit::{self, Failure, Outcome};
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
    let well = view.problems.is_empty();
    Ok(if args.check && !well { exit::FAILED } else { exit::OK })
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
        lines.insert(2, ("gpus", format!("{}, {free} free", view.gpus)));
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
    let filter = Filter::new(&args)?;
    let client = shell.connect().await?;
    if args.watch {
        let asset = client.welcome().asset;
        return watch::watch(shell, client, NodesWatch { filter, limit: args.limit as usize, asset }).await;
    }
    let asset = client.welcome().asset;
    let all = all(&client).await?;
    let count = all.len();
    let mut nodes: Vec<NodeView> = all.into_iter().filter(|node| filter.fits(node)).collect();
    nodes.truncate(args.limit as usize);
    match shell.format() {
        Format::Json => {
            let items = nodes.iter().map(|node| docs::node(node, asset)).collect();
            shell.print_document(&ListDoc { schema: "modchain.nodes/v1", items, total: Some(count as u64) })?;
        }
        Format::Jsonl => nodes.iter().try_for_each(|node| shell.print_document(&docs::node(node, asset)))?,
        Format::Name => shell.print(&nodes.iter().map(|node| format!("{}\n", node.name)).collect::<String>())?,
        Format::Table => {
            shell.print(&nodes_table(nodes.iter(), true).render())?;
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

/// Which nodes are meant.
pub(crate) struct Filter {
    states: Vec<NodeState>,
    pool: Option<String>,
    prefix: String,
}

impl Filter {
    fn new(args: &NodesArgs) -> Result<Self, Failure> {
        let mut filter = Self { states: Vec::new(), pool: args.pool.clone(), prefix: String::new() };
        if let Some(state) = &args.state {
            filter.states.push(node_state(state)?);
        }
        for word in args.filter.iter().flat_map(|word| word.split_whitespace()) {
            match word.split_once(':') {
                Some(("state", list)) => {
                    filter.states.extend(list.split(',').map(node_state).collect::<Result<Vec<_>, _>>()?);
                }
                Some(("pool", pool)) => filter.pool = Some(pool.into()),
                Some(("name", prefix)) => filter.prefix = prefix.into(),
                Some((key, _)) => {
                    let failure = Failure::usage(format!("unknown filter `{key}:`"));
                    return Err(match nearest(key, ["state", "pool", "name"].into_iter()) {
                        Some(near) => failure.hint(format!("did you mean `{near}:`?")),
                        None => failure.hint("write state:, pool: or name:"),
                    });
                }
                None => filter.prefix = word.into(),
            }
        }
        Ok(filter)
    }

    /// Whether this one is.
    pub(crate) fn fits(&self, node: &NodeView) -> bool {
        (self.states.is_empty() || self.states.contains(&node.state))
            && self.pool.as_ref().is_none_or(|pool| docs::pool(node).as_ref() == Some(pool))
            && node.name.as_str().starts_with(&self.prefix)
    }
}

fn node_state(word: &str) -> Result<NodeState, Failure> {
    docs::NODE_STATES.into_iter().find(|state| state.word() == word).ok_or_else(|| {
        let words = docs::NODE_STATES.map(NodeState::word);
        let failure = Failure::usage(format!("`{word}` is not a state of nodes"));
        match nearest(word, words.into_iter()) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint(format!("states: {}", words.join(", "))),
        }
    })
}

/// The columns of nodes. The price is that of everything that a node offers.
const COLUMNS: [(&str, Align); 12] = [
    ("NODE", Align::Left),
    ("STATE", Align::Left),
    ("POOL", Align::Left),
    ("CORES", Align::Right),
    ("CPU%", Align::Right),
    ("MEMORY", Align::Right),
    ("GPUS", Align::Right),
    ("GPU%", Align::Right),
    ("VRAM", Align::Right),
    ("JOBS", Align::Right),
    ("PRICE/H", Align::Right),
    ("SEEN", Align::Right),
];

/// A table of nodes. Without the time of the last word, which is another one with each of them, where rows are compared.
pub(crate) fn nodes_table<'a>(nodes: impl Iterator<Item = &'a NodeView>, seen: bool) -> Table {
    let columns = COLUMNS.len() - usize::from(!seen);
    let mut table = Table::new(&COLUMNS[..columns]);
    let now = text::wall_now();
    for node in nodes {
        let mut cells = cells(node);
        cells.push(node.seen_at.map_or_else(|| "never".into(), |at| now.since(at).to_string()));
        cells.truncate(columns);
        table.row(cells);
    }
    table
}

/// What is known of a node; `?` stands for what is not, and for what was true only as long as it was heard.
fn cells(node: &NodeView) -> Vec<String> {
    let unknown = || "?".to_owned();
    let heard = !matches!(node.state, NodeState::Suspect | NodeState::Lost);
    let offer = node.offer.as_ref();
    let gpus = offer.map(|offer| &*offer.capabilities.gpus);
    let of_gpus = |value: Option<String>| match gpus {
        Some([]) => "-".into(),
        _ => value.filter(|_| heard).unwrap_or_else(unknown),
    };
    vec![
        node.name.to_string(),
        node.state.word().into(),
        docs::pool(node).unwrap_or_else(|| "-".into()),
        offer.map_or_else(unknown, |offer| text::cpus(offer.capabilities.cpu_milli)),
        node.load
            .and_then(|load| load.cpu_permille)
            .filter(|_| heard)
            .map_or_else(unknown, |busy| (busy / 10).to_string()),
        offer.map_or_else(unknown, |offer| text::bytes(offer.capabilities.memory_bytes)),
        gpus.map_or_else(unknown, |gpus| gpus.len().to_string()),
        of_gpus(busy(&node.gpus).map(|busy| busy.to_string())),
        of_gpus(vram(node)),
        node.attempts.to_string(),
        offer.map_or_else(unknown, |offer| docs::node_price(offer).to_string()),
    ]
}

/// How busy these GPUs are on average, in percent; `None` if none of them tells.
pub(crate) fn busy(gpus: &[GpuSample]) -> Option<u32> {
    let told: Vec<u32> = gpus.iter().filter_map(|gpu| gpu.busy_pct).map(u32::from).collect();
    (!told.is_empty()).then(|| told.iter().sum::<u32>() / told.len() as u32)
}

/// `12/80 GiB`, of all GPUs together; `None` unless every one of them tells.
fn vram(node: &NodeView) -> Option<String> {
    let used = node.gpus.iter().map(|gpu| gpu.memory_used_bytes).sum::<Option<u64>>()?;
    let gpus = &node.offer.as_ref()?.capabilities.gpus;
    let total: u64 = gpus.iter().map(|gpu| gpu.memory_bytes).sum();
    (node.gpus.len() == gpus.len()).then(|| format!("{}/{} GiB", used >> 30, total >> 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_filters_are_checked_before_anything_is_asked() {
        let args = |words: &[&str]| NodesArgs {
            filter: words.iter().map(|word| (*word).to_owned()).collect(),
            pool: None,
            state: None,
            watch: false,
            limit: 1,
        };
        let filter = Filter::new(&args(&["state:ready,lost pool:cpu", "loc"])).expect("parses");
        assert_eq!(filter.states, [NodeState::Ready, NodeState::Lost]);
        assert_eq!((filter.pool.as_deref(), filter.prefix.as_str()), (Some("cpu"), "loc"));
        assert_eq!(
            Filter::new(&args(&["state:redy"])).err().and_then(|f| f.hint),
            Some("did you mean `ready`?".into())
        );
        assert!(Filter::new(&args(&["gpu:1"])).is_err());
    }
}
