//! `--watch`: what changes, as it is pushed. On a terminal it is drawn anew in its place; anywhere else changed rows are
//! appended; for programs every change is one object.

mod account;
mod jobs;
mod nodes;
mod source;
mod status;

use std::collections::BTreeMap;

use modchain_wire::FromConsole;
use serde::Serialize;

use super::table::Table;
use crate::args::Format;
use crate::client::Client;
use crate::client::live::FromLive;
use crate::client::mirror::Mirror;
use crate::exit::{self, Failure, Outcome};
use crate::shell::Shell;

pub(super) use account::AccountWatch;
pub(super) use jobs::{JobWatch, JobsWatch};
pub(super) use nodes::NodesWatch;
pub(super) use source::Source;
pub(super) use status::StatusWatch;

/// What is watched: a list of things, each with a name that stays.
pub(super) trait Watched {
    /// One of them.
    type Item: Clone + PartialEq;

    /// Hears of a message before the mirror takes it in.
    fn hear(&mut self, _message: &FromLive) {}

    /// What is to be asked now that the mirror shows this.
    fn question(&mut self, _mirror: &Mirror) -> Option<FromConsole> {
        None
    }

    /// What there is, in order.
    fn items(&self, mirror: &Mirror) -> Vec<(String, Self::Item)>;

    /// One that is not among the items any more, as it is now; `None` if it is nowhere.
    fn newest(&self, _mirror: &Mirror, _name: &str) -> Option<Self::Item> {
        None
    }

    /// Whether nothing will change any more.
    fn is_over(&self, _items: &[Self::Item]) -> bool {
        false
    }

    /// For a person at a terminal.
    fn screen(&self, mirror: &Mirror, items: &[Self::Item]) -> String;

    /// A row for each, without what is another one every time.
    fn rows(&self, items: &[Self::Item]) -> Table;

    /// That one was added, changed or removed.
    fn document(&self, op: &'static str, item: &Self::Item) -> impl Serialize;
}

/// Watches until a signal ends the program, nothing will change any more, or the orchestrator refuses for good. `client` has found it; the link that stays
/// is another one.
pub(super) async fn watch<W: Watched>(shell: &Shell, client: Client, mut watched: W) -> Outcome {
    drop(client);
    let mut source = Source::start(shell)?;
    let mut output = Output::new(shell);
    loop {
        let was_lost = source.is_lost;
        source.next(|message| watched.hear(message)).await?;
        if source.is_lost && !was_lost {
            output.lost(shell);
        }
        if let Some(question) = watched.question(&source.mirror) {
            source.ask(question);
        }
        if output.show(shell, &watched, &source.mirror, source.is_lost)? {
            source.end().await;
            return Ok(exit::OK);
        }
    }
}

/// Where it is shown, and what is there.
enum Output<Item> {
    /// A terminal, what it shows and how many lines these are.
    Screen { text: String, lines: usize },
    /// A pipe, and the newest row of each.
    Rows { shown: BTreeMap<String, Vec<String>>, begun: bool },
    /// A program, and what it knows.
    Ops { shown: BTreeMap<String, Item> },
    /// The names that were told.
    Names { shown: BTreeMap<String, ()> },
}

impl<Item: Clone + PartialEq> Output<Item> {
    fn new(shell: &Shell) -> Self {
        match shell.format() {
            Format::Json | Format::Jsonl => Self::Ops { shown: BTreeMap::new() },
            Format::Name => Self::Names { shown: BTreeMap::new() },
            Format::Table if shell.stdout_tty() => Self::Screen { text: String::new(), lines: 0 },
            Format::Table => Self::Rows { shown: BTreeMap::new(), begun: false },
        }
    }

    /// Says that the connection is gone, where the picture does not.
    fn lost(&self, shell: &Shell) {
        match self {
            Self::Screen { .. } => {}
            Self::Rows { .. } | Self::Ops { .. } | Self::Names { .. } => {
                shell.say("the connection is gone, trying again");
            }
        }
    }

    /// Shows what has changed; tells whether that was the last time.
    fn show<W: Watched<Item = Item>>(
        &mut self,
        shell: &Shell,
        watched: &W,
        mirror: &Mirror,
        is_lost: bool,
    ) -> Result<bool, Failure> {
        let (names, items): (Vec<String>, Vec<Item>) = watched.items(mirror).into_iter().unzip();
        let is_over = watched.is_over(&items);
        self.show_items(shell, watched, mirror, is_lost, names, items)?;
        Ok(is_over)
    }

    fn show_items<W: Watched<Item = Item>>(
        &mut self,
        shell: &Shell,
        watched: &W,
        mirror: &Mirror,
        is_lost: bool,
        names: Vec<String>,
        items: Vec<Item>,
    ) -> Result<(), Failure> {
        match self {
            Self::Screen { text, lines } => {
                let mut now = watched.screen(mirror, &items);
                if is_lost {
                    now.push_str("the connection is gone, trying again\n");
                }
                if now == *text {
                    return Ok(());
                }
                let (picture, height) = picture(&now, *lines, size());
                (*text, *lines) = (now, height);
                shell.print(&picture)
            }
            Self::Rows { shown, begun } => {
                let table = watched.rows(&items);
                let (head, lines) = table.lines();
                let mut out = head.filter(|_| !*begun).map(|head| head + "\n").unwrap_or_default();
                *begun = true;
                let before = std::mem::take(shown);
                for ((name, row), line) in names.iter().zip(table.rows()).zip(lines) {
                    if before.get(name) != Some(row) {
                        out.push_str(&line);
                        out.push('\n');
                    }
                    shown.insert(name.clone(), row.clone());
                }
                for name in before.keys().filter(|name| !shown.contains_key(*name)) {
                    match watched.newest(mirror, name) {
                        Some(item) => out.extend(watched.rows(&[item]).lines().1.into_iter().map(|line| line + "\n")),
                        None => out.push_str(&format!("{name}  gone\n")),
                    }
                }
                shell.print(&out)
            }
            Self::Ops { shown } => {
                for (op, name, item) in changes(shown, names, items) {
                    let item = if op == REMOVE { watched.newest(mirror, &name).unwrap_or(item) } else { item };
                    shell.print_document(&watched.document(op, &item))?;
                }
                Ok(())
            }
            Self::Names { shown } => {
                let new = names.iter().filter(|name| !shown.contains_key(*name));
                let out: String = new.map(|name| format!("{name}\n")).collect();
                *shown = names.into_iter().map(|name| (name, ())).collect();
                shell.print(&out)
            }
        }
    }
}

const REMOVE: &str = "remove";

/// What has changed since `shown`, which is brought up to date.
fn changes<Item: Clone + PartialEq>(
    shown: &mut BTreeMap<String, Item>,
    names: Vec<String>,
    items: Vec<Item>,
) -> Vec<(&'static str, String, Item)> {
    let mut before = std::mem::take(shown);
    let mut changes = Vec::new();
    for (name, item) in names.into_iter().zip(items) {
        match before.remove(&name) {
            None => changes.push(("add", name.clone(), item.clone())),
            Some(known) if known != item => changes.push(("change", name.clone(), item.clone())),
            Some(_) => {}
        }
        shown.insert(name, item);
    }
    changes.extend(before.into_iter().map(|(name, gone)| (REMOVE, name, gone)));
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

    #[test]
    fn changes_are_told_once_each() {
        let mut shown = BTreeMap::new();
        let mut ops = |items: &[(&str, u8)]| -> Vec<String> {
            let (names, items) = items.iter().map(|(name, item)| ((*name).to_owned(), *item)).unzip();
            changes(&mut shown, names, items)
                .into_iter()
                .map(|(op, name, item)| format!("{op} {name} {item}"))
                .collect()
        };
        assert_eq!(ops(&[("a", 0), ("b", 0)]), ["add a 0", "add b 0"]);
        assert_eq!(ops(&[("a", 0), ("b", 0)]), [""; 0]);
        assert_eq!(ops(&[("b", 1)]), ["change b 1", "remove a 0"]);
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
