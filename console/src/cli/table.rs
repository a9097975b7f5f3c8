//! Plain aligned text: the `table` and `wide` formats. No frames, two spaces between columns, nothing after the last one.
//!
//! A list says once what its columns are: a static table of [`Column`]s, each with its name, its cell, the value that it is
//! sorted and filtered by, and whether it is always there. [`Columns`] is what a call shows of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use modchain_types::{Span, WallTime};
use unicode_width::UnicodeWidthStr;

use crate::args::TableArgs;
use crate::client::config::nearest;
use crate::exit::Failure;
use crate::filter::{Field, Filter, FilterError, Kind, Unit, Value};

/// What cells depend on besides their row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// This machine's wall clock.
    pub(crate) now: WallTime,
    /// Whether times are shown in UTC.
    pub(crate) utc: bool,
    /// Whether every column is wanted.
    pub(crate) wide: bool,
    /// Whether ids and long texts are shortened: only where a person looks at a terminal.
    pub(crate) short: bool,
    /// Whether rows are compared with what they were: then they are without what is another one every time.
    pub(crate) still: bool,
    /// Whether lists are comma separated values.
    pub(crate) csv: bool,
}

impl Look {
    /// The same now.
    pub(crate) fn now(self) -> Self {
        Self { now: crate::text::wall_now(), ..self }
    }

    /// The same for rows that are compared with what they were.
    pub(crate) fn still(self) -> Self {
        Self { still: true, ..self }
    }
}

/// A column of a list.
pub(crate) struct Column<T: 'static> {
    /// What `--columns`, `--sort` and filters call it; lower case.
    key: &'static str,
    /// What stands above it.
    name: &'static str,
    align: Align,
    kind: Kind,
    /// Whether it is there only with `-o wide` or when it is asked for.
    extra: bool,
    /// Whether nobody sees it: something that rows are filtered by.
    hidden: bool,
    /// Whether it is another one every time that somebody looks.
    restless: bool,
    /// How wide it is at least, where lines are printed as they come.
    least: usize,
    cell: fn(&T, &Look) -> String,
    /// What it is sorted and filtered by, if that is not the cell's text. `None`: not known.
    value: Option<fn(&T, &Look) -> Option<f64>>,
    /// For [`Kind::Pairs`]: the value of one name.
    pair: Option<fn(&T, &str) -> Option<String>>,
}

impl<T> Column<T> {
    /// A column of text.
    pub(crate) const fn text(key: &'static str, name: &'static str, cell: fn(&T, &Look) -> String) -> Self {
        let (align, kind) = (Align::Left, Kind::Text);
        Self {
            key,
            name,
            align,
            kind,
            extra: false,
            hidden: false,
            restless: false,
            least: 0,
            cell,
            value: None,
            pair: None,
        }
    }

    /// A column of numbers, which are shown in some form.
    pub(crate) const fn number(
        key: &'static str,
        name: &'static str,
        unit: Unit,
        cell: fn(&T, &Look) -> String,
        value: fn(&T, &Look) -> Option<f64>,
    ) -> Self {
        let (align, kind) = (Align::Right, Kind::Number(unit));
        Self {
            key,
            name,
            align,
            kind,
            extra: false,
            hidden: false,
            restless: false,
            least: 0,
            cell,
            value: Some(value),
            pair: None,
        }
    }

    /// The same, of another kind.
    pub(crate) const fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same, of words with a value each.
    pub(crate) const fn pairs(self, pair: fn(&T, &str) -> Option<String>) -> Self {
        Self { kind: Kind::Pairs, pair: Some(pair), ..self }
    }

    /// The same, but only with `-o wide` or when it is asked for.
    pub(crate) const fn extra(self) -> Self {
        Self { extra: true, ..self }
    }

    /// The same, but for filters only.
    pub(crate) const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// The same, but another one every time that somebody looks.
    pub(crate) const fn restless(self) -> Self {
        Self { restless: true, ..self }
    }

    /// The same, at least so wide where lines are printed as they come.
    pub(crate) const fn least(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// Whether a word of the command line means it: its key, or what stands above it in lower case.
    fn is_called(&self, word: &str) -> bool {
        !self.hidden && (self.key == word || self.name.to_lowercase() == word)
    }

    /// What a row has in it; `None` for what is not known.
    fn value(&self, row: &T, look: &Look) -> Option<Value<'static>> {
        match self.value {
            Some(number) => number(row, look).map(Value::Number),
            None => {
                let text = (self.cell)(row, &Look { short: false, ..*look });
                (text != UNKNOWN && text != NONE).then_some(Value::Text(Cow::Owned(text)))
            }
        }
    }
}

/// The cell of what is not known.
pub(crate) const UNKNOWN: &str = "?";
/// The cell of what there is none of.
pub(crate) const NONE: &str = "-";

/// A cell that may have nothing in it.
pub(crate) fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NONE.into(), |value| value.to_string())
}

/// A cell whose value may not be known.
pub(crate) fn or_unknown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.into(), |value| value.to_string())
}

/// A duration as columns of [`Unit::Millis`] count it.
pub(crate) fn millis(span: Span) -> f64 {
    span.0 as f64 / 1_000.0
}

/// The fields that filters of a list know, hidden ones too.
pub(crate) fn fields<T>(all: &[Column<T>]) -> Vec<Field> {
    all.iter().map(|column| Field::new(column.key, column.kind)).collect()
}

/// The words of a command line as a filter of a list.
pub(crate) fn filter<T>(words: &[String], all: &[Column<T>]) -> Result<Filter, Failure> {
    crate::filter::parse_words(words, &fields(all)).map_err(|FilterError { column, message, hint }| {
        let failure = Failure { code: "bad_filter", ..Failure::usage(format!("filter, column {column}: {message}")) };
        failure.hint(hint.unwrap_or_else(|| "modchain help filters".into()))
    })
}

/// The columns that a call shows, and in which order their rows are.
pub(crate) struct Columns<T: 'static> {
    all: &'static [Column<T>],
    shown: Vec<&'static Column<T>>,
    /// Whether these were asked for by their names.
    chosen: bool,
    /// And whether the largest is first.
    sort: Option<(&'static Column<T>, bool)>,
    header: bool,
}

impl<T> Columns<T> {
    /// What the flags ask for; `wide` as `-o wide` does.
    pub(crate) fn new(all: &'static [Column<T>], args: &TableArgs, wide: bool) -> Result<Self, Failure> {
        let shown = if args.columns.is_empty() {
            all.iter().filter(|column| !column.hidden && (wide || !column.extra)).collect()
        } else {
            args.columns.iter().map(|word| find(all, word)).collect::<Result<_, _>>()?
        };
        let sort = match args.sort.as_deref() {
            Some(word) => {
                let (word, down) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
                Some((find(all, word)?, down))
            }
            None => None,
        };
        Ok(Self { all, shown, chosen: !args.columns.is_empty(), sort, header: !args.no_header })
    }

    /// Whether rows have another order than they come in.
    pub(crate) fn sorts(&self) -> bool {
        self.sort.is_some()
    }

    /// Puts rows in their order. Equal ones stay as they are, and what is not known comes last.
    pub(crate) fn sort(&self, rows: &mut [impl std::borrow::Borrow<T>], look: &Look) {
        let Some((column, down)) = self.sort else { return };
        rows.sort_by_cached_key(|row| Key { value: column.value(row.borrow(), look), down });
    }

    /// Whether a row fits a filter, whose words are looked for in what is shown of it.
    pub(crate) fn fits(&self, filter: &Filter, row: &T, look: &Look) -> bool {
        let value = |name: &str| {
            let (key, pair) = name.split_once('.').map_or((name, None), |(key, pair)| (key, Some(pair)));
            let column = self.all.iter().find(|column| column.key == key)?;
            match (pair, column.pair) {
                (Some(name), Some(pair)) => pair(row, name).map(Value::from),
                (Some(_), None) | (None, _) => column.value(row, look),
            }
        };
        filter.fits(&value, &|| {
            let cells: Vec<String> =
                self.shown.iter().map(|column| (column.cell)(row, &Look { short: false, ..*look })).collect();
            cells.join("  ")
        })
    }

    fn shown(&self, look: &Look) -> Vec<&'static Column<T>> {
        let keeps = |column: &&Column<T>| self.chosen || !(look.still && column.restless);
        self.shown.iter().copied().filter(keeps).collect()
    }

    /// The table of these rows.
    pub(crate) fn table<'a>(&self, rows: impl IntoIterator<Item = &'a T>, look: &Look) -> Table {
        let shown = self.shown(look);
        let names: Vec<(&'static str, Align)> = shown.iter().map(|column| (column.name, column.align)).collect();
        let mut table = Table::new(&names);
        table.header = self.header;
        for row in rows {
            table.row(shown.iter().map(|column| (column.cell)(row, look)).collect());
        }
        table
    }

    /// These rows as they are printed.
    pub(crate) fn text<'a>(&self, rows: impl IntoIterator<Item = &'a T>, look: &Look) -> String {
        if look.csv { self.values(rows, true, look) } else { self.table(rows, look).render() }
    }

    /// These rows as they are printed where the next one is not known yet.
    pub(crate) fn text_growing<'a>(&self, rows: impl IntoIterator<Item = &'a T>, first: bool, look: &Look) -> String {
        if look.csv { self.values(rows, first, look) } else { self.growing(rows, first, look).render() }
    }

    /// Comma separated values; the line of names is there only if `first`.
    fn values<'a>(&self, rows: impl IntoIterator<Item = &'a T>, first: bool, look: &Look) -> String {
        let shown = self.shown(look);
        let names = shown.iter().map(|column| column.key.to_owned()).collect();
        let cell = |column: &&Column<T>, row| crate::text::one_line(&(column.cell)(row, look));
        let rows = rows.into_iter().map(|row| shown.iter().map(|column| cell(column, row)).collect());
        let head = (first && self.header).then_some(names);
        csv(&head.into_iter().chain(rows).collect::<Vec<_>>())
    }

    /// The table where the next line is not known yet: columns are as wide as what they mostly hold. The line of names is
    /// there only if `first`.
    fn growing<'a>(&self, rows: impl IntoIterator<Item = &'a T>, first: bool, look: &Look) -> Table {
        let mut table = self.table(rows, look);
        table.header &= first;
        let name = |column: &Column<T>| if self.header { width(column.name) } else { 0 };
        table.least = self.shown.iter().map(|column| column.least.max(name(column))).collect();
        table
    }
}

/// What the columns of a list are called.
pub(crate) fn keys<T>(all: &[Column<T>]) -> Vec<&'static str> {
    all.iter().filter(|column| !column.hidden).map(|column| column.key).collect()
}

/// The column that a word means.
fn find<T>(all: &'static [Column<T>], word: &str) -> Result<&'static Column<T>, Failure> {
    let word = word.trim().to_lowercase();
    all.iter().find(|column| column.is_called(&word)).ok_or_else(|| {
        let keys = keys(all);
        let failure = Failure::usage(format!("there is no column `{word}`"));
        match nearest(&word, keys.iter().copied()) {
            Some(near) => failure.hint(format!("did you mean `{near}`? there are: {}", keys.join(", "))),
            None => failure.hint(format!("there are: {}", keys.join(", "))),
        }
    })
}

/// What a row is sorted by.
#[derive(PartialEq)]
struct Key {
    value: Option<Value<'static>>,
    down: bool,
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = match (&self.value, &other.value) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Greater,
            (Some(_), None) => return Ordering::Less,
            (Some(Value::Number(left)), Some(Value::Number(right))) => left.total_cmp(right),
            (Some(Value::Text(left)), Some(Value::Text(right))) => left.cmp(right),
            (Some(Value::Number(_)), Some(Value::Text(_))) => Ordering::Less,
            (Some(Value::Text(_)), Some(Value::Number(_))) => Ordering::Greater,
        };
        if self.down { order.reverse() } else { order }
    }
}

/// Columns that a text takes on a terminal.
fn width(text: &str) -> usize {
    text.width()
}

/// On which side a column's cells lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// Whether the line of names is there.
    header: bool,
    /// How wide each column is at least; may be empty.
    least: Vec<usize>,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), header: true, least: Vec::new() }
    }

    /// Adds a row: one cell per column. Cells may hold a stranger's text; it is made one line.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell per column");
        self.rows.push(cells.iter().map(|cell| crate::text::one_line(cell)).collect());
    }

    /// The cells of every row.
    pub(crate) fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// The line of names, if there is one, and a line for each row.
    pub(crate) fn lines(&self) -> (Option<String>, Vec<String>) {
        let name_width = |name: &str| if self.header { width(name) } else { 0 };
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| name_width(name)).collect();
        for (width, least) in widths.iter_mut().zip(&self.least) {
            *width = (*width).max(*least);
        }
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(width(cell));
            }
        }
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - width(cell));
                match self.columns[column].1 {
                    Align::Left => line.extend([cell.as_str(), &padding]),
                    Align::Right => line.extend([padding.as_str(), cell]),
                }
                line.push_str("  ");
            }
            line.trim_end().to_owned()
        };
        let names: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        (self.header.then(|| line(&names)), self.rows.iter().map(line).collect())
    }

    /// The text, with a line of names first if there is one.
    pub(crate) fn render(&self) -> String {
        let (head, lines) = self.lines();
        head.iter().chain(&lines).fold(String::new(), |text, line| text + line + "\n")
    }
}

/// Titles and rows, separated by commas as RFC 4180 has it. A cell that a spreadsheet would take for a formula is not one.
pub(crate) fn csv(cells: &[Vec<String>]) -> String {
    let cell = |cell: &String| {
        let harmless = if is_formula(cell) { format!("'{cell}") } else { cell.clone() };
        if harmless.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", harmless.replace('"', "\"\""))
        } else {
            harmless
        }
    };
    cells.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",") + "\r\n").collect()
}

/// Whether a spreadsheet would compute it: it begins like a formula and is no number.
fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@']) && cell != "-" && cell.parse::<f64>().is_err()
}

/// Lines of a name and a value, the values in one column.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        let line = format!("{name}{}  {}", " ".repeat(widest - width(name)), crate::text::one_line(value));
        text.push_str(line.trim_end());
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(&[("NAME", Align::Left), ("COST", Align::Right), ("NOTE", Align::Left)]);
        table.row(vec!["a".into(), "0.0021".into(), String::new()]);
        table.row(vec!["漢字e\u{301}".into(), "2.00".into(), "x\x1b[2J\ny".into()]);
        assert_eq!(table.render(), "NAME     COST  NOTE\na      0.0021\n漢字e\u{301}    2.00  x·[2J·y\n");
    }

    /// A row: a name and, if it is known, a number.
    type Pair = (&'static str, Option<f64>);
    /// One of its columns.
    type PairColumn = Column<Pair>;

    static PAIRS: [PairColumn; 4] = [
        PairColumn::text("name", "NAME", |row, look| row.0.chars().take(if look.short { 2 } else { 9 }).collect()),
        PairColumn::number("load", "LOAD%", Unit::Percent, |row, _| or_unknown(row.1), |row, _| row.1),
        PairColumn::text("more", "MORE OF IT", |_, _| "x".into()).extra().least(4),
        PairColumn::text("secret", "SECRET", |row, _| row.0.to_uppercase()).hidden(),
    ];
    const ROWS: [Pair; 4] = [("nine", Some(9.0)), ("ten", Some(10.0)), ("none", None), ("two", Some(2.0))];

    fn columns(flags: &[&str], sort: Option<&str>, wide: bool) -> Result<Columns<Pair>, Failure> {
        let columns = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Columns::new(&PAIRS, &TableArgs { columns, sort: sort.map(str::to_owned), no_header: false }, wide)
    }

    fn look(short: bool) -> Look {
        Look { now: WallTime(0), utc: true, wide: false, short, still: false, csv: false }
    }

    #[test]
    fn what_is_shown_is_chosen_and_numbers_are_sorted_as_numbers() {
        let shown = |flags: &[&str], sort: Option<&str>, wide: bool| {
            let columns = columns(flags, sort, wide).expect("columns");
            let mut rows = ROWS.to_vec();
            columns.sort(&mut rows, &look(false));
            columns.table(&rows, &look(false)).render()
        };
        assert_eq!(
            shown(&[], Some("load"), false),
            "NAME  LOAD%\ntwo       2\nnine      9\nten      10\nnone      ?\n"
        );
        assert_eq!(shown(&["name"], Some("-load"), false), "NAME\nten\nnine\ntwo\nnone\n");
        assert_eq!(shown(&["LOAD%", "name"], Some("-name"), false).lines().nth(1), Some("    2  two"));
        assert_eq!(shown(&[], None, true).lines().next(), Some("NAME  LOAD%  MORE OF IT"));
        assert_eq!(shown(&["more of it"], None, false).lines().next(), Some("MORE OF IT"));
        let short = columns(&[], None, false).expect("columns").table(&ROWS[..1], &look(true)).render();
        assert_eq!(short, "NAME  LOAD%\nni        9\n");
    }

    #[test]
    fn a_filter_sees_whole_texts_and_hidden_columns_and_words_see_what_is_shown() {
        let fits = |word: &str| {
            let columns = columns(&["name"], None, false).expect("columns");
            let filter = filter(&[word.to_owned()], &PAIRS).expect(word);
            ROWS.iter().filter(|row| columns.fits(&filter, row, &look(true))).map(|row| row.0).collect::<Vec<_>>()
        };
        assert_eq!(fits("nine"), ["nine"]);
        assert_eq!(fits("load>=9"), ["nine", "ten"]);
        assert_eq!(fits("secret=TEN"), ["ten"]);
        assert!(fits("10").is_empty(), "that column is not shown");
    }

    #[test]
    fn an_unknown_column_is_refused_with_those_there_are() {
        for (flags, sort, hint) in [
            (&["nmae"][..], None, "did you mean `name`? there are: name, load, more"),
            (&["name", "secret"], None, "there are: name, load, more"),
            (&[], Some("-laod"), "did you mean `load`?"),
            (&[""], None, "there are:"),
        ] {
            let failure = columns(flags, sort, false).map(|_| ()).expect_err("unknown");
            assert!(failure.exit == 2 && failure.hint.clone().unwrap_or_default().starts_with(hint), "{failure}");
        }
    }

    #[test]
    fn lines_that_come_one_by_one_stand_below_each_other() {
        let columns = columns(&["more", "name"], None, false).expect("columns");
        let lines = [true, false].map(|first| columns.growing(&ROWS[..1], first, &look(false)).render());
        assert_eq!(lines, ["MORE OF IT  NAME\nx           nine\n", "x           nine\n"]);
    }

    #[test]
    fn values_are_separated_by_commas_and_whole_under_the_words_that_filters_use() {
        let columns = columns(&["more", "load", "name"], Some("name"), false).expect("columns");
        let look = Look { csv: true, ..look(false) };
        let rows: [Pair; 3] = [("a, \"b\"", Some(0.5)), ("=1+1", None), ("-", Some(-3.0))];
        assert_eq!(columns.text(&rows, &look), "more,load,name\r\nx,0.5,\"a, \"\"b\"\"\"\r\nx,?,'=1+1\r\nx,-3,-\r\n");
        assert_eq!(columns.text_growing(&rows[..1], false, &look), "x,0.5,\"a, \"\"b\"\"\"\r\n");
    }

    #[test]
    fn every_list_names_each_of_its_columns_once_and_in_lower_case() {
        fn check<T>(all: &[Column<T>]) {
            let mut keys: Vec<&str> = all.iter().map(|column| column.key).collect();
            assert!(keys.iter().all(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')), "{keys:?}");
            keys.sort_unstable();
            assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
        }
        check(&crate::cli::jobs::COLUMNS);
        check(&crate::cli::pool::COLUMNS);
        check(&crate::cli::money::COLUMNS);
        check(&crate::cli::events::COLUMNS);
        check(&crate::cli::cert::COLUMNS);
        check(&crate::cli::token::COLUMNS);
        check(&crate::cli::context::COLUMNS);
    }

    #[test]
    fn the_help_names_what_jobs_and_nodes_are_filtered_by() {
        let help = include_str!("help/filters.txt");
        let words = |heading: &str| {
            let (_, rest) = help.split_once(heading).expect("a heading");
            let end = rest.find("\n  n").or_else(|| rest.find("\n\n")).expect("an end");
            rest[..end].split([' ', '\n', ';']).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        for field in fields(&crate::cli::jobs::COLUMNS) {
            assert!(words("\n  jobs    ").contains(&field.name.to_owned()), "{} of jobs", field.name);
        }
        for field in fields(&crate::cli::pool::COLUMNS) {
            assert!(words("\n  nodes   ").contains(&field.name.to_owned()), "{} of nodes", field.name);
        }
        for field in fields(&crate::cli::money::COLUMNS) {
            assert!(words("\n  ledger  ").contains(&field.name.to_owned()), "{} of the ledger", field.name);
        }
    }

    #[test]
    fn lists_keep_their_form_in_a_pipe() {
        use crate::cli::docs::tests as views;
        fn both<T>(all: &'static [Column<T>], row: &T) -> String {
            let tables = [false, true].map(|wide| {
                let now = WallTime(1_795_356_201_114 + 90_000);
                let look = Look { now, utc: true, wide, short: false, still: false, csv: false };
                Columns::new(all, &TableArgs::default(), wide).expect("columns").table([row], &look).render()
            });
            tables.concat()
        }
        let text = [
            both(&crate::cli::jobs::COLUMNS, &views::ended_job()),
            both(&crate::cli::pool::COLUMNS, &views::node_view()),
            both(&crate::cli::money::COLUMNS, &views::ledger_entry_view()),
            both(&crate::cli::events::COLUMNS, &views::event_view()),
            both(&crate::cli::cert::COLUMNS, &views::identity_view()),
            both(&crate::cli::token::COLUMNS, &views::token_view()),
        ]
        .join("\n");
        views::golden_text("lists.txt", &text);
    }

    #[test]
    fn an_empty_table_is_its_line_of_names() {
        assert_eq!(Table::new(&[("A", Align::Left), ("B", Align::Right)]).render(), "A  B\n");
    }

    #[test]
    fn pairs_have_their_values_in_one_column() {
        assert_eq!(pairs(&[("a", "1".into()), ("long", String::new())]), "a     1\nlong\n");
    }
}
