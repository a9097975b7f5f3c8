//! What the console remembers from one time to the next: how things were looked at, and what was typed. Nothing secret: lines for a job's
//! input and lines that carry an environment or a token are not among it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::app::{App, PromptKind, Times};
use super::command;
use super::table::{TableId, Width};
use super::theme::ThemeName;
use super::view;

/// Schema of `ui.json`.
const SCHEMA: &str = "modchain.ui/v1";
/// Lines of each kind that are kept.
const LINES_MAX: usize = 100;
/// A longer line is not typed again.
const LINE_BYTES_MAX: usize = 1_000;

/// `ui.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    schema: String,
    /// The theme that was chosen in the console.
    #[serde(default)]
    pub(super) theme: Option<String>,
    #[serde(default)]
    times: Option<String>,
    #[serde(default)]
    tables: BTreeMap<String, Table>,
}

/// How one table was looked at.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Table {
    columns: String,
    sort: String,
    descending: bool,
}

fn called(id: TableId) -> String {
    format!("{id:?}").to_lowercase()
}

impl Remembered {
    /// What is to be remembered of this console.
    pub(super) fn of(app: &App, theme: Option<ThemeName>) -> Self {
        let tables = TableId::ALL.iter().filter_map(|id| {
            let table = app.ui.table(*id);
            let (key, _) = *view::column_names(*id).get(table.sort)?;
            let columns = table.width.word().to_owned();
            Some((called(*id), Table { columns, sort: key.to_owned(), descending: table.descending }))
        });
        let times = match (app.ui.times, app.ui.utc) {
            (Times::Ago, _) => "ago",
            (Times::Clock, false) => "local",
            (Times::Clock, true) => "utc",
        };
        Self {
            schema: SCHEMA.to_owned(),
            theme: theme.map(|theme| theme.word().to_owned()),
            times: Some(times.to_owned()),
            tables: tables.collect(),
        }
    }

    /// From the text of the file. What makes no sense is as if it were not there: a console opens all the same.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok().filter(|remembered| remembered.schema == SCHEMA)
    }

    /// As the text of the file.
    pub(super) fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The theme that was chosen.
    pub(super) fn theme(&self) -> Option<ThemeName> {
        ThemeName::ALL.into_iter().find(|theme| Some(theme.word()) == self.theme.as_deref())
    }

    /// Lets a console look as it did.
    pub(super) fn apply(&self, app: &mut App) {
        match self.times.as_deref() {
            Some("local") => app.ui.times = Times::Clock,
            Some("utc") => (app.ui.times, app.ui.utc) = (Times::Clock, true),
            _ => {}
        }
        for id in TableId::ALL {
            let Some(remembered) = self.tables.get(&called(id)) else { continue };
            let sort = view::column_names(id).iter().position(|(key, _)| *key == remembered.sort);
            let widths = [Width::Default, Width::Wide, Width::All];
            let width = widths.into_iter().find(|width| width.word() == remembered.columns);
            let table = app.ui.table_mut(id);
            if let Some(sort) = sort {
                (table.sort, table.descending) = (sort, remembered.descending);
            }
            table.width = width.unwrap_or(table.width);
            table.touch();
        }
    }
}

const KINDS: [(PromptKind, &str); 3] =
    [(PromptKind::Filter, "filter"), (PromptKind::Search, "search"), (PromptKind::Command, "command")];

/// What was typed, as the text of `history`: a word for the kind and the line, the newest last.
pub(super) fn history(app: &App) -> String {
    let mut text = String::new();
    for (kind, word) in KINDS {
        let lines = app.ui.history.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let kept: Vec<&String> = lines.iter().filter(|line| is_kept(kind, line)).collect();
        for line in kept.iter().skip(kept.len().saturating_sub(LINES_MAX)) {
            text.push_str(&format!("{word} {line}\n"));
        }
    }
    text
}

fn is_kept(kind: PromptKind, line: &str) -> bool {
    let short = line.len() <= LINE_BYTES_MAX && !line.contains(['\n', '\r']);
    short && (kind != PromptKind::Command || !may_be_secret(line))
}

/// Whether a command line may carry something that is nobody's to read later.
fn may_be_secret(line: &str) -> bool {
    // What cannot be taken apart may be anything.
    let Ok(words) = command::split(line) else { return true };
    let is_secret = |word: &String| {
        word == "token" || ["--token", "--env", "-e", "MCJ1-"].iter().any(|start| word.starts_with(start))
    };
    words.iter().any(is_secret)
}

/// Takes in the text of `history`.
pub(super) fn recall(app: &mut App, text: &str) {
    for line in text.lines() {
        let Some((word, line)) = line.split_once(' ') else { continue };
        if let Some((kind, _)) = KINDS.iter().find(|(_, known)| *known == word).filter(|(kind, _)| is_kept(*kind, line))
        {
            app.ui.history.entry(*kind).or_default().push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::world::{Link, press, seen};
    use super::*;

    #[test]
    fn a_console_looks_as_it_did() {
        let mut app = seen((120, 36), Link::Live);
        press(&mut app, &["3", "w", ">", "S", "t", "t", "2", "w", "w"]);
        let remembered = Remembered::of(&app, Some(ThemeName::Light));
        let again = Remembered::read(&remembered.text()).expect("reads");
        assert_eq!(again, remembered);
        assert_eq!(again.theme(), Some(ThemeName::Light));
        let mut other = seen((120, 36), Link::Live);
        assert_ne!(Remembered::of(&other, None).text(), Remembered::of(&app, None).text());
        again.apply(&mut other);
        assert_eq!(Remembered::of(&other, None), Remembered::of(&app, None));
        for text in ["", "{}", "{\"schema\":\"modchain.ui/v2\"}", "\u{0}", "[1]"] {
            assert!(Remembered::read(text).is_none(), "{text}");
        }
        let strange = "{\"schema\":\"modchain.ui/v1\",\"theme\":\"x\",\"tables\":{\"jobs\":{\"columns\":\"x\",\"sort\":\"x\",\"descending\":true}}}";
        Remembered::read(strange).expect("reads").apply(&mut other);
    }

    #[test]
    fn what_was_typed_comes_back_but_nothing_secret() {
        let mut app = seen((80, 24), Link::Live);
        for line in ["jobs state:running", "run --env KEY=1 --wasm x", "token revoke MCJ1-x", "node zurich-01"] {
            press(&mut app, &[":"]);
            for c in line.chars() {
                press(&mut app, &[if c == ' ' { "Space".to_owned() } else { c.to_string() }.as_str()]);
            }
            press(&mut app, &["Enter", "Esc", "Esc"]);
        }
        app.ui.history.insert(PromptKind::Input, vec!["password".into()]);
        let text = history(&app);
        assert_eq!(text, "command jobs state:running\ncommand node zurich-01\n");
        let mut other = seen((80, 24), Link::Live);
        recall(&mut other, &format!("{text}input password\nnonsense\n"));
        press(&mut other, &[":", "Up", "Up"]);
        assert_eq!(other.ui.prompt.as_ref().expect("open").input.value(), "jobs state:running");
        assert!(!other.ui.history.contains_key(&PromptKind::Input));
    }
}
