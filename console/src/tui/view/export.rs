//! What is on the screen as a file or as documents. A file has a name that says what it holds and when it was so, and is never
//! written over another one.

use std::path::{Path, PathBuf};

use modchain_types::JobId;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::super::app::{App, Place, Tone};
use super::super::msg::Effect;
use super::super::table::{RowId, Source, TableId};
use super::{access, account, events, node, overview};
use crate::cli::docs;
use crate::cli::table::csv;
use crate::client::colour;
use crate::client::log_buffer::LineKind;
use crate::text;

/// Columns of a page that is written into a file.
const PAGE_WIDTH: u16 = 100;

/// What is exported.
enum Content {
    /// The rows of a table that fit its filter.
    Table(TableId),
    /// All that is known of one thing.
    Row(RowId),
    /// Text as it is on the screen.
    Page(Vec<String>),
    /// The output of a job.
    Output(JobId),
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Comma separated values.
    Csv,
    /// The documents of the command line.
    Json,
    /// Text.
    Txt,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Txt => "txt",
        }
    }

    /// The format that the name of a file asks for.
    fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        [Self::Csv, Self::Json, Self::Txt].into_iter().find(|format| format.ending() == ending)
    }
}

/// Writes the view into a file.
pub(crate) fn export(app: &mut App) -> Vec<Effect> {
    export_to(app, None)
}

/// Writes the view into this file, in the format that its name asks for; without a name, into one that says what it is and when.
pub(crate) fn export_to(app: &mut App, path: Option<PathBuf>) -> Vec<Effect> {
    let (name, content) = content(app);
    let usual = match &content {
        Content::Table(_) => Format::Csv,
        Content::Page(_) | Content::Output(_) | Content::Row(RowId::Node(_)) => Format::Txt,
        Content::Row(_) => Format::Json,
    };
    let format = path.as_deref().and_then(Format::of).unwrap_or(usual);
    let text = match (content, format) {
        (Content::Table(id), _) if app.ui.table(id).order.is_empty() => String::new(),
        (Content::Table(id), Format::Csv) => csv(&super::cells(app, id)),
        (Content::Table(id), Format::Txt) => aligned(&super::cells(app, id)),
        (Content::Table(id), Format::Json) => {
            let rows = app.ui.table(id).order.clone();
            rows.iter().filter_map(|row| document(app, row)).map(|line| line + "\n").collect()
        }
        (Content::Row(row), Format::Json) => document(app, &row).map(|line| line + "\n").unwrap_or_default(),
        (Content::Output(job), Format::Txt) => output(app, job),
        (Content::Page(lines), Format::Txt) => {
            lines.into_iter().map(|line| line.trim_end().to_owned() + "\n").collect()
        }
        (Content::Row(RowId::Node(name)), Format::Txt) => {
            let lines = node::page(&app.ctx(), &name, PAGE_WIDTH);
            lines.into_iter().map(|line| line.to_string().trim_end().to_owned() + "\n").collect()
        }
        (Content::Row(_) | Content::Page(_) | Content::Output(_), format) => {
            let usual = usual.ending();
            app.toast(
                Tone::Bad,
                format!("this view has no form as {}: name a file that ends with .{usual}", format.ending()),
            );
            return Vec::new();
        }
    };
    if text.is_empty() {
        app.toast(Tone::Bad, "there is nothing to export here yet");
        return Vec::new();
    }
    let path = path.unwrap_or_else(|| {
        let at = text::date_time(app.now.wall, app.ui.utc).replace(['-', ':'], "").replace(' ', "-");
        PathBuf::from(format!("modchain-{name}-{at}.{}", format.ending()))
    });
    vec![Effect::Write(app.caps.folder.join(path), text.into_bytes())]
}

/// What is looked at, and what it is called in the name of a file.
fn content(app: &App) -> (String, Content) {
    let place = app.place();
    if let Some(id) = app.focused_table() {
        return (super::nouns(id).1.replace(' ', "-"), Content::Table(id));
    }
    match place {
        Place::Overview => {
            let problems = overview::problems(app).into_iter().map(|problem| problem.text).collect();
            ("problems".to_owned(), Content::Page(problems))
        }
        Place::Nodes => ("nodes".to_owned(), Content::Table(TableId::Nodes)),
        Place::Node(name) => (format!("node-{name}"), Content::Row(RowId::Node(name))),
        Place::Jobs => match super::jobs::output_shown(app) {
            Some(job) => (format!("output-{}", job.short()), Content::Output(job)),
            None => ("jobs".to_owned(), Content::Table(TableId::Jobs)),
        },
        Place::Job(job) => (job.short(), Content::Row(RowId::Job(job))),
        Place::Output(job) => (format!("output-{}", job.short()), Content::Output(job)),
        Place::Events => ("events".to_owned(), Content::Table(TableId::Events)),
        Place::Account => ("ledger".to_owned(), Content::Table(TableId::Ledger)),
        Place::Access => ("members".to_owned(), Content::Table(TableId::Identities)),
    }
}

/// What a job has written, as far as it is kept: its own lines, without colours.
fn output(app: &App, job: JobId) -> String {
    let Some(log) = app.shown().logs.get(&job) else { return String::new() };
    let lines = (log.first()..log.end_number()).filter_map(|number| log.line(number));
    let own = lines.filter(|line| match line.kind {
        LineKind::Out | LineKind::Err => true,
        LineKind::Note => false,
    });
    own.map(|line| colour::plain(&line.text).into_owned() + "\n").collect()
}

/// Titles and rows below each other.
fn aligned(cells: &[Vec<String>]) -> String {
    let columns = cells.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.width())));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    cells.iter().map(line).collect()
}

/// A row as the JSON document of the command line.
pub(crate) fn document(app: &App, row: &RowId) -> Option<String> {
    let (mirror, asset) = (app.shown(), app.ctx().asset());
    match row {
        RowId::Job(id) => json(&docs::job(mirror.jobs.get(id)?, asset)),
        RowId::Node(name) => match mirror.histories.get(name) {
            // The history is older than what is known of the node now.
            Some(history) => {
                let mut history = history.clone();
                if let Some(node) = mirror.nodes.get(name) {
                    history.node = (**node).clone();
                }
                json(&docs::node_history(&history, asset))
            }
            None => json(&docs::node(mirror.nodes.get(name)?, asset)),
        },
        RowId::Event(_) => json(&docs::event(events::Events::find(mirror, row)?)),
        RowId::Entry(..) => json(&docs::ledger_entry(account::Ledger::find(mirror, row)?, asset)),
        RowId::Identity(_) => json(&docs::cert(access::Identities::find(mirror, row)?)),
        RowId::Token(_) => json(&docs::token(access::Tokens::find(mirror, row)?, None)),
    }
}

fn json(document: &impl Serialize) -> Option<String> {
    serde_json::to_string(document).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_stranger_writes_a_formula() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let table = [
            row(&["job", "name"]),
            row(&["j-1", "a,b \"c\""]),
            row(&["-1.37", "=HYPERLINK(\"http://x\")"]),
            row(&["-", "@SUM(A1)"]),
            row(&["+0.50", "-1+cmd|' /C calc'!A0"]),
        ];
        assert_eq!(
            csv(&table),
            "job,name\r\nj-1,\"a,b \"\"c\"\"\"\r\n-1.37,\"'=HYPERLINK(\"\"http://x\"\")\"\r\n-,'@SUM(A1)\r\n+0.50,'-1+cmd|' /C calc'!A0\r\n"
        );
        assert_eq!(aligned(&[row(&["a", "b"]), row(&["漢字", "c"])]), "a     b\n漢字  c\n");
    }

    #[test]
    fn the_name_of_a_file_says_its_format() {
        assert_eq!(Format::of(Path::new("x/jobs.JSON")), Some(Format::Json));
        assert_eq!(Format::of(Path::new("jobs")), None);
        assert_eq!(Format::of(Path::new("a.csv")), Some(Format::Csv));
    }
}
