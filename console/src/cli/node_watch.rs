//! `nodes --watch`: what changes, as it is pushed. On a terminal the table is drawn anew in its place; anywhere else changed
//! rows are appended; for programs every change is one object.

use std::collections::BTreeMap;
use std::time::Duration;

use modchain_types::{Asset, Name};
use modchain_wire::view::NodeView;
use tokio::time::{Instant, timeout_at};

use super::docs;
use super::node_mirror::{Mirror, Seen};
use super::pool::Wanted;
use crate::args::Format;
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use crate::shell::Shell;

/// Changes that come within this time of the first are shown together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Watches until a signal ends the program, or the connection is gone for good.
pub(crate) async fn watch(shell: &Shell, client: Client, wanted: &Wanted) -> Outcome {
    let mut output = match shell.format() {
        Format::Json | Format::Jsonl => Output::Ops { asset: client.welcome().asset, shown: BTreeMap::new() },
        Format::Name => Output::Names { shown: BTreeMap::new() },
        Format::Table if shell.stdout_tty() => Output::Screen { lines: 0 },
        Format::Table => Output::Rows { shown: BTreeMap::new() },
    };
    let mut mirror = Mirror::new(shell, client);
    loop {
        let mut seen = mirror.next().await?;
        let until = Instant::now() + TOGETHER;
        while seen == Seen::Change {
            match timeout_at(until, mirror.next()).await {
                Ok(next) => seen = next?,
                Err(_) => break,
            }
        }
        let nodes = wanted.pick(mirror.nodes.values(), &shell.look());
        output.show(shell, wanted, &nodes, seen)?;
    }
}

/// Where it is shown, and what is there.
enum Output {
    /// A terminal, and the lines that are drawn on it.
    Screen { lines: usize },
    /// A pipe, and the newest row of each node.
    Rows { shown: BTreeMap<Name, Vec<String>> },
    /// A program, and the nodes that it knows.
    Ops { asset: Asset, shown: BTreeMap<Name, NodeView> },
    /// The names that were told.
    Names { shown: BTreeMap<Name, ()> },
}

impl Output {
    fn show(&mut self, shell: &Shell, wanted: &Wanted, nodes: &[&NodeView], seen: Seen) -> Result<(), Failure> {
        match self {
            Self::Screen { lines } => {
                let mut text = wanted.columns.table(nodes.iter().copied(), &shell.look()).render();
                if seen == Seen::Lost {
                    text.push_str("the connection is gone, trying again\n");
                }
                let (picture, height) = picture(&text, *lines, size());
                *lines = height;
                shell.print(&picture)
            }
            // They are told again when they come back; nobody is told twice of the same.
            _ if seen == Seen::Lost => {
                shell.say("the connection is gone, trying again");
                Ok(())
            }
            Self::Rows { shown } => {
                // The time of the last word is another one with each of them: rows that are compared do without.
                let table = wanted.columns.table(nodes.iter().copied(), &shell.look()).without("SEEN");
                let (head, lines) = table.lines();
                let mut out = head.filter(|_| shown.is_empty()).map(|head| format!("{head}\n")).unwrap_or_default();
                let before = std::mem::take(shown);
                for ((node, row), line) in nodes.iter().zip(table.rows()).zip(lines) {
                    if before.get(&node.name) != Some(row) {
                        out.push_str(&line);
                        out.push('\n');
                    }
                    shown.insert(node.name.clone(), row.clone());
                }
                for name in before.keys().filter(|name| !shown.contains_key(name)) {
                    out.push_str(&format!("{name}  gone\n"));
                }
                shell.print(&out)
            }
            Self::Ops { asset, shown } => {
                for (op, view) in changes(shown, nodes) {
                    shell.print_document(&docs::node_change(op, &view, *asset))?;
                }
                Ok(())
            }
            Self::Names { shown } => {
                let new = nodes.iter().filter(|node| !shown.contains_key(&node.name));
                let out: String = new.map(|node| format!("{}\n", node.name)).collect();
                *shown = nodes.iter().map(|node| (node.name.clone(), ())).collect();
                shell.print(&out)
            }
        }
    }
}

/// What has changed since `shown`, which is brought up to date.
fn changes(shown: &mut BTreeMap<Name, NodeView>, nodes: &[&NodeView]) -> Vec<(&'static str, NodeView)> {
    let mut before = std::mem::take(shown);
    let mut changes = Vec::new();
    for node in nodes {
        match before.remove(&node.name) {
            None => changes.push(("add", (*node).clone())),
            Some(known) if known != **node => changes.push(("change", (*node).clone())),
            Some(_) => {}
        }
        shown.insert(node.name.clone(), (*node).clone());
    }
    changes.extend(before.into_values().map(|gone| ("remove", gone)));
    changes
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// The text in the place of the one before it, which had so many lines; and how many it has. What does not fit is left out:
/// a line that wraps, or scrolls the first one away, could not be drawn over.
fn picture(text: &str, before: usize, (columns, rows): (usize, usize)) -> (String, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let room = rows.saturating_sub(1).max(1);
    let (shown, left) = if lines.len() > room { (room - 1, lines.len() - (room - 1)) } else { (lines.len(), 0) };
    // Up to where the last picture began, and everything below is taken away.
    let mut out = if before > 0 { format!("\x1b[{before}A\r\x1b[J") } else { String::new() };
    for line in &lines[..shown] {
        out.extend(line.chars().take(columns.saturating_sub(1)));
        out.push('\n');
    }
    if left > 0 {
        out.push_str(&format!("{left} more\n"));
    }
    (out, shown + usize::from(left > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::docs::tests::node_view;

    #[test]
    fn changes_are_told_once_each() {
        let named = |name: &str, attempts| NodeView { name: name.parse().expect("a name"), attempts, ..node_view() };
        let (a, b, busy) = (named("a", 0), named("b", 0), named("b", 1));
        let mut shown = BTreeMap::new();
        let mut ops = |nodes: &[&NodeView]| -> Vec<String> {
            changes(&mut shown, nodes).into_iter().map(|(op, view)| format!("{op} {}", view.name)).collect()
        };
        assert_eq!(ops(&[&a, &b]), ["add a", "add b"]);
        assert_eq!(ops(&[&a, &b]), [""; 0]);
        assert_eq!(ops(&[&busy]), ["change b", "remove a"]);
    }

    #[test]
    fn a_picture_is_drawn_over_the_one_before_and_never_wraps_or_scrolls() {
        let (first, lines) = picture("NODE\nabcdefghij\nx\n", 0, (9, 24));
        assert_eq!((first.as_str(), lines), ("NODE\nabcdefgh\nx\n", 3));
        let (next, lines) = picture("NODE\na\nb\nc\nd\n", lines, (80, 4));
        assert_eq!((next.as_str(), lines), ("\x1b[3A\r\x1b[JNODE\na\n3 more\n", 3));
        assert_eq!(picture("NODE\n", 3, (0, 0)), ("\x1b[3A\r\x1b[J\n".into(), 1), "no terminal is too small");
    }
}
