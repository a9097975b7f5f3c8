//! Tables of anything: columns that know how to show, sort and be filtered, and the state of one table. What is selected is an id and
//! never a position, so that a table that sorts itself anew never moves the selection to something else.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use modchain_types::{IdentityId, JobId, Name, TokenId, WallTime};
use modchain_wire::view::LedgerKind;
use ratatui::layout::{Alignment, Rect};
use ratatui::text::{Line, Span};

use super::app::Ctx;
use super::theme::Role;
use crate::client::mirror::Mirror;
use crate::filter::{Kind, Value};

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowId {
    /// A job.
    Job(JobId),
    /// A node.
    Node(Name),
    /// An event of the journal.
    Event(u64),
    /// A ledger entry.
    Entry(u64, LedgerKind),
    /// A member.
    Identity(IdentityId),
    /// A token.
    Token(TokenId),
}

/// The tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableId {
    /// Jobs.
    Jobs,
    /// Those of them that have a node.
    Running,
    /// Nodes.
    Nodes,
    /// Events.
    Events,
    /// The ledger.
    Ledger,
    /// Members.
    Identities,
    /// Tokens.
    Tokens,
}

impl TableId {
    /// Every table.
    pub(crate) const ALL: [Self; 7] =
        [Self::Jobs, Self::Running, Self::Nodes, Self::Events, Self::Ledger, Self::Identities, Self::Tokens];
}

/// What a table shows, and where its rows come from.
pub(crate) trait Source {
    /// One row.
    type Row: 'static;
    /// Which table it is.
    const TABLE: TableId;
    /// What one row is called, and several: `job`, `jobs`.
    const NOUNS: (&'static str, &'static str);
    /// Its columns, the first the one that says which row it is.
    fn columns() -> &'static [Column<Self::Row>];
    /// Other names of columns in filters, each with the key that it means: what stands above a column, and what the command line calls it.
    fn also() -> &'static [(&'static str, &'static str)] {
        &[]
    }
    /// The column to sort by at first, by its key, and whether the largest comes first.
    fn order() -> (&'static str, bool);
    /// The rows that the table may show, before any filter of the user.
    fn rows<'a>(ctx: &Ctx<'a>) -> Box<dyn Iterator<Item = &'a Self::Row> + 'a>;
    /// Whether a row is one of those.
    fn shows(_: &Ctx<'_>, _: &Self::Row) -> bool {
        true
    }
    /// One row, if it is still there.
    fn find<'a>(mirror: &'a Mirror, id: &RowId) -> Option<&'a Self::Row>;
    /// What a row is about.
    fn id(row: &Self::Row) -> RowId;
    /// Changes whenever a row may have.
    fn revision(mirror: &Mirror) -> u64;
    /// What each row is about that came, went or became another after a revision; `None` where nobody knows.
    fn changes(_: &Ctx<'_>, _: u64) -> Option<Vec<RowId>> {
        None
    }
    /// Whether what a column holds changes against that of another row although neither row does.
    fn drifts(_: &str) -> bool {
        false
    }
    /// What a row has in a field of a filter.
    fn value(ctx: &Ctx<'_>, row: &Self::Row, name: &str) -> Option<Value<'static>> {
        Self::columns().iter().find(|column| column.key == name).and_then(|column| (column.value)(ctx, row))
    }
}

/// How much of a table is shown; `w` steps through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Width {
    /// What one mostly needs.
    #[default]
    Default,
    /// More.
    Wide,
    /// All of it, however wide.
    All,
}

impl Width {
    /// The next step.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Default => Self::Wide,
            Self::Wide => Self::All,
            Self::All => Self::Default,
        }
    }

    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Wide => "wide",
            Self::All => "all",
        }
    }
}

/// Rows that are put into their places one by one; where more have changed, all are sorted.
const MENDED_MAX: usize = 32;

/// Which of two cells comes first; what is not known comes after everything else.
fn order(one: &Option<Value<'static>>, two: &Option<Value<'static>>) -> Ordering {
    match (one, two) {
        (Some(Value::Number(one)), Some(Value::Number(two))) => one.total_cmp(two),
        (Some(Value::Text(one)), Some(Value::Text(two))) => one.cmp(two),
        (Some(Value::Number(_)), Some(Value::Text(_))) | (Some(_), None) => Ordering::Less,
        (Some(Value::Text(_)), Some(Value::Number(_))) | (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// One column.
pub(crate) struct Column<R: 'static> {
    /// In filters and `--sort`.
    pub(crate) key: &'static str,
    /// Above it.
    pub(crate) title: &'static str,
    /// Narrowest and widest.
    pub(crate) width: (u16, u16),
    /// The lowest goes first where there is no room.
    pub(crate) priority: u8,
    /// From which step on it is shown.
    pub(crate) shown: Width,
    /// On which side its cells lie.
    pub(crate) align: Alignment,
    /// What to show in so many columns of the screen.
    pub(crate) cell: fn(&Ctx<'_>, &R, u16) -> Line<'static>,
    /// What it holds, for filters.
    pub(crate) kind: Kind,
    /// What to sort and filter by; `None` where it is not known.
    pub(crate) value: fn(&Ctx<'_>, &R) -> Option<Value<'static>>,
}

/// The state of one table.
#[derive(Debug, Clone)]
pub(crate) struct TableUi {
    /// The selected row.
    pub(crate) selected: Option<RowId>,
    /// Where it was when the order was last made: who goes leaves his place to his neighbour.
    index: usize,
    /// Position of the first row on the screen.
    pub(crate) top: usize,
    /// Position of the column to sort by.
    pub(crate) sort: usize,
    /// Whether the largest comes first.
    pub(crate) descending: bool,
    /// What the rows must fit, and the text it was made from.
    pub(crate) filter: super::filter::TableFilter,
    /// The marked rows.
    pub(crate) marks: BTreeSet<RowId>,
    /// The rows that fit, in their order.
    pub(crate) order: Vec<RowId>,
    /// How many rows there are before the filter.
    pub(crate) total: usize,
    /// How much is shown.
    pub(crate) width: Width,
    /// Columns that are scrolled away to the left.
    pub(crate) scrolled: usize,
    /// Revision of the rows, and of the filter and sorting, that the order was made of.
    made_of: Option<(u64, u64)>,
    /// Counts changes of filter and sorting.
    wish: u64,
}

impl TableUi {
    /// A table that has shown nothing yet.
    pub(crate) fn new<S: Source>() -> Self {
        let (key, descending) = S::order();
        let sort = S::columns().iter().position(|column| column.key == key).unwrap_or(0);
        Self {
            selected: None,
            index: 0,
            top: 0,
            sort,
            descending,
            filter: super::filter::TableFilter::default(),
            marks: BTreeSet::new(),
            order: Vec::new(),
            total: 0,
            width: Width::Default,
            scrolled: 0,
            made_of: None,
            wish: 0,
        }
    }

    /// The order is to be made anew whatever has changed.
    pub(crate) fn touch(&mut self) {
        self.wish += 1;
    }

    /// Whether the order is older than the rows.
    pub(crate) fn is_behind(&self, revision: u64) -> bool {
        self.made_of.is_none_or(|(made_of, _)| made_of != revision)
    }

    /// Whether filter or sorting have changed since the order was made.
    pub(crate) fn is_touched(&self) -> bool {
        self.made_of.is_none_or(|(_, wish)| wish != self.wish)
    }

    /// Brings the order up to date.
    pub(crate) fn arrange<S: Source>(&mut self, ctx: &Ctx<'_>) {
        if !self.mend::<S>(ctx) {
            self.order_anew::<S>(ctx);
        }
        if !self.marks.is_empty() {
            self.marks.retain(|id| S::find(ctx.mirror, id).is_some());
        }
        self.made_of = Some((S::revision(ctx.mirror), self.wish));
        self.keep_selection();
    }

    /// Puts the few rows that have changed where they belong among the others; whether that was all there was to do.
    fn mend<S: Source>(&mut self, ctx: &Ctx<'_>) -> bool {
        let column = &S::columns()[self.sort];
        // A filter may look at what drifts, and counts what it leaves out.
        let Some((revision, _)) = self.made_of.filter(|_| !self.is_touched() && self.filter.is_empty()) else {
            return false;
        };
        let changed = if S::drifts(column.key) { None } else { S::changes(ctx, revision) };
        let Some(changed) = changed.filter(|changed| changed.len() <= MENDED_MAX) else { return false };
        let changed: BTreeSet<RowId> = changed.into_iter().collect();
        for id in &changed {
            if let Some(place) = self.order.iter().position(|known| known == id) {
                self.order.remove(place);
            }
        }
        for id in changed {
            let Some(row) = S::find(ctx.mirror, &id).filter(|row| S::shows(ctx, row)) else { continue };
            let value = (column.value)(ctx, row);
            let place = self.order.partition_point(|known| {
                let other = S::find(ctx.mirror, known).and_then(|row| (column.value)(ctx, row));
                self.comes((&other, known), (&value, &id)).is_lt()
            });
            self.order.insert(place, id);
        }
        self.total = self.order.len();
        true
    }

    /// Which of two rows comes first, by what they hold in the column to sort by.
    fn comes(&self, one: (&Option<Value<'static>>, &RowId), two: (&Option<Value<'static>>, &RowId)) -> Ordering {
        // What is not known is last either way, and equals keep the order of their ids.
        let order = match (one.0, two.0) {
            (None, _) | (_, None) => order(one.0, two.0),
            _ if self.descending => order(two.0, one.0),
            _ => order(one.0, two.0),
        };
        order.then_with(|| one.1.cmp(two.1))
    }

    /// Makes the order anew.
    fn order_anew<S: Source>(&mut self, ctx: &Ctx<'_>) {
        let column = &S::columns()[self.sort];
        self.total = 0;
        let mut rows: Vec<(Option<Value<'static>>, RowId)> = Vec::new();
        for row in S::rows(ctx) {
            self.total += 1;
            if self.filter.fits::<S>(ctx, row, self.width) {
                rows.push(((column.value)(ctx, row), S::id(row)));
            }
        }
        rows.sort_by(|(one, one_id), (two, two_id)| self.comes((one, one_id), (two, two_id)));
        self.order = rows.into_iter().map(|(_, id)| id).collect();
    }

    /// The selection stays with its row; where that is gone, its neighbour is selected.
    fn keep_selection(&mut self) {
        if self.selected.is_some() && self.order.get(self.index) == self.selected.as_ref() {
            return;
        }
        let found = self.selected.as_ref().and_then(|id| self.order.iter().position(|known| known == id));
        match found {
            Some(index) => self.index = index,
            None => {
                self.index = self.index.min(self.order.len().saturating_sub(1));
                self.selected = self.order.get(self.index).cloned();
            }
        }
    }

    /// Selects the row at a position, or the nearest there is.
    pub(crate) fn select(&mut self, index: usize) {
        self.index = index.min(self.order.len().saturating_sub(1));
        self.selected = self.order.get(self.index).cloned();
    }

    /// Selects a row by what it is about; tells whether it is there.
    pub(crate) fn select_id(&mut self, id: &RowId) -> bool {
        let place = self.order.iter().position(|known| known == id);
        if let Some(place) = place {
            self.select(place);
        }
        place.is_some()
    }

    /// Moves the selection.
    pub(crate) fn step(&mut self, by: isize) {
        self.select(self.index.saturating_add_signed(by));
    }

    /// Position of the selected row.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Scrolls so that the selected row is among so many on the screen.
    pub(crate) fn scroll_into(&mut self, rows: usize) {
        let rows = rows.max(1);
        if self.index < self.top {
            self.top = self.index;
        } else if self.index >= self.top + rows {
            self.top = self.index + 1 - rows;
        }
        self.top = self.top.min(self.order.len().saturating_sub(rows));
    }

    /// The rows that an act is about: the marked ones, or the selected one.
    pub(crate) fn targets(&self) -> Vec<RowId> {
        if self.marks.is_empty() {
            self.selected.iter().cloned().collect()
        } else {
            self.marks.iter().cloned().collect()
        }
    }
}

/// Between two columns.
const GAP: u16 = 2;
/// Before the first: whether a row is selected or marked.
const GUTTER: u16 = 2;

/// Which columns are shown in a given width, with their own.
pub(crate) fn fit<R>(columns: &[Column<R>], width: Width, scrolled: usize, room: u16) -> Vec<(usize, u16)> {
    let room = room.saturating_sub(GUTTER);
    let mut shown: Vec<usize> = (0..columns.len()).filter(|place| columns[*place].shown <= width).collect();
    // The first column says which row it is: it never scrolls away.
    let away = scrolled.min(shown.len().saturating_sub(1));
    shown.drain(1.min(shown.len())..(1 + away).min(shown.len()));
    let needed = |shown: &[usize]| -> u16 {
        shown.iter().map(|place| columns[*place].width.0 + GAP).sum::<u16>().saturating_sub(GAP)
    };
    while shown.len() > 1 && needed(&shown) > room {
        if width == Width::All {
            shown.pop();
            continue;
        }
        let Some(place) = (1..shown.len()).min_by_key(|place| (columns[shown[*place]].priority, usize::MAX - place))
        else {
            break;
        };
        shown.remove(place);
    }
    let mut left = room.saturating_sub(needed(&shown));
    shown
        .iter()
        .map(|place| {
            let (min, max) = columns[*place].width;
            let more = (max - min).min(left);
            left -= more;
            (*place, (min + more).min(room))
        })
        .collect()
}

/// The column, by its place in the table, under a column of the screen that is counted from the table's left edge.
pub(crate) fn column_under(shown: &[(usize, u16)], at: u16) -> Option<usize> {
    let mut from = GUTTER;
    for (place, width) in shown {
        if (from..from + width + GAP).contains(&at) {
            return Some(*place);
        }
        from += width + GAP;
    }
    None
}

/// The lines of a table: titles, then rows. `rows` is how many rows there is room for.
pub(crate) fn lines<S: Source>(ctx: &Ctx<'_>, table: &TableUi, area: Rect, focused: bool) -> Vec<Line<'static>> {
    let columns = S::columns();
    let shown = fit(columns, table.width, table.scrolled, area.width);
    let mut out = Vec::with_capacity(usize::from(area.height));
    let mut titles = vec![Span::raw(" ".repeat(usize::from(GUTTER)))];
    for (position, (place, width)) in shown.iter().enumerate() {
        let column = &columns[*place];
        let arrow = match (*place == table.sort, table.descending) {
            (true, true) => ctx.glyphs.pick("▾", "v"),
            (true, false) => ctx.glyphs.pick("▴", "^"),
            (false, _) => "",
        };
        let title = Line::from(Span::styled(format!("{}{arrow}", column.title), ctx.theme.style(Role::Title)));
        titles.extend(padded(title, *width, column.align, position + 1 == shown.len()));
    }
    out.push(Line::from(titles));
    let rows = usize::from(area.height).saturating_sub(1);
    for id in table.order.iter().skip(table.top).take(rows) {
        let selected = table.selected.as_ref() == Some(id);
        let marked = table.marks.contains(id);
        let gutter = match (selected, marked) {
            (true, true) => ctx.glyphs.pick("▸*", ">*"),
            (true, false) => ctx.glyphs.pick("▸ ", "> "),
            (false, true) => "* ",
            (false, false) => "  ",
        };
        let mut spans = vec![Span::styled(gutter, ctx.theme.style(Role::Key))];
        let Some(row) = S::find(ctx.mirror, id) else {
            out.push(Line::from(spans));
            continue;
        };
        for (position, (place, width)) in shown.iter().enumerate() {
            let column = &columns[*place];
            let cell = table.filter.highlight(ctx, (column.cell)(ctx, row, *width));
            spans.extend(padded(cell, *width, column.align, position + 1 == shown.len()));
        }
        let mut line = Line::from(spans);
        if selected {
            let role = if focused { Role::Selected } else { Role::Title };
            line = line.style(ctx.theme.style(role));
        }
        out.push(line);
    }
    out
}

/// A cell in its column: cut or filled up, with the gap to the next one.
fn padded(cell: Line<'static>, width: u16, align: Alignment, last: bool) -> Vec<Span<'static>> {
    let mut cell = cut(cell, usize::from(width));
    let free = usize::from(width).saturating_sub(cell.width());
    let (before, after) = match align {
        Alignment::Left => (0, free),
        Alignment::Right => (free, 0),
        Alignment::Center => (free / 2, free - free / 2),
    };
    let after = after + if last { 0 } else { usize::from(GAP) };
    let mut spans = Vec::with_capacity(cell.spans.len() + 2);
    if before > 0 {
        spans.push(Span::raw(" ".repeat(before)));
    }
    spans.append(&mut cell.spans);
    if after > 0 {
        spans.push(Span::raw(" ".repeat(after)));
    }
    spans
}

/// A line that takes no more than so many columns; `..` ends one that was cut.
pub(crate) fn cut(line: Line<'static>, width: usize) -> Line<'static> {
    if line.width() <= width {
        return line;
    }
    let mark = if width >= 4 { ".." } else { "" };
    let mut left = width - mark.len();
    let mut spans = Vec::new();
    let mut style = ratatui::style::Style::new();
    for span in line.spans {
        style = span.style;
        let text = prefix(&span.content, left);
        let whole = text.len() == span.content.len();
        left -= unicode_width::UnicodeWidthStr::width(text);
        spans.push(Span::styled(text.to_owned(), span.style));
        if !whole {
            break;
        }
    }
    spans.push(Span::styled(mark, style));
    Line { spans, ..Line::default() }
}

/// The longest beginning of a text that takes no more than so many columns.
pub(crate) fn prefix(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (position, c) in text.char_indices() {
        used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if used > width {
            return &text[..position];
        }
    }
    text
}

/// Plain text as a cell.
pub(crate) fn text(text: impl Into<String>) -> Line<'static> {
    Line::from(text.into())
}

/// A moment as the user wants to see times.
pub(crate) fn moment(ctx: &Ctx<'_>, at: WallTime) -> String {
    ctx.times.show(at, ctx.now, ctx.utc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(key: &'static str, width: (u16, u16), priority: u8, shown: Width) -> Column<u32> {
        Column {
            key,
            title: key,
            width,
            priority,
            shown,
            align: Alignment::Left,
            cell: |_, row, _| text(row.to_string()),
            kind: Kind::Number(crate::filter::Unit::Plain),
            value: |_, row| Some(Value::Number(f64::from(*row))),
        }
    }

    #[test]
    fn columns_fit_the_room_and_the_lowest_priority_goes_first() {
        let columns = [
            column("a", (4, 10), 9, Width::Default),
            column("b", (4, 4), 1, Width::Default),
            column("c", (4, 4), 5, Width::Default),
            column("d", (4, 4), 5, Width::Wide),
        ];
        let keys = |room, width| {
            fit(&columns, width, 0, room).iter().map(|(place, _)| columns[*place].key).collect::<String>()
        };
        assert_eq!(keys(40, Width::Default), "abc");
        assert_eq!(keys(40, Width::Wide), "abcd");
        assert_eq!(keys(17, Width::Default), "ac", "b has the lowest priority");
        assert_eq!(keys(8, Width::Default), "a");
        assert_eq!(keys(0, Width::Default), "a", "the first one always stays");
        assert_eq!(fit(&columns, Width::Default, 0, 40)[0].1, 10, "the room that is left widens");
        for room in 0..80 {
            for scrolled in 0..6 {
                for width in [Width::Default, Width::Wide, Width::All] {
                    let shown = fit(&columns, width, scrolled, room);
                    let sum: u16 = shown.iter().map(|(_, width)| width + GAP).sum();
                    assert!(sum <= room.max(GUTTER) || shown.len() == 1, "{room} {shown:?}");
                }
            }
        }
        let scrolled: String = fit(&columns, Width::All, 1, 40).iter().map(|(place, _)| columns[*place].key).collect();
        assert_eq!(scrolled, "acd");
    }

    #[test]
    fn a_cell_is_cut_by_columns_of_the_screen_not_by_characters() {
        let cut = |text: &str, width| cut(Line::from(text.to_owned()), width).to_string();
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abc..");
        assert_eq!(cut("漢字漢字", 6), "漢字..");
        assert_eq!(cut("漢字漢字", 5), "漢..");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn what_is_not_known_is_last_whatever_the_direction() {
        let (one, two, none) = (Some(Value::Number(1.0)), Some(Value::Number(2.0)), None);
        assert_eq!(order(&one, &two), Ordering::Less);
        assert_eq!(order(&two, &none), Ordering::Less);
        assert_eq!(order(&none, &Some(Value::from("x"))), Ordering::Greater);
    }
}
