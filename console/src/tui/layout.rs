//! Where everything is on a screen of a given size: one pure function. Nothing overlaps, nothing leaves the screen, and what has no
//! room is an empty rectangle.

use ratatui::layout::Rect;

/// Smallest screen that shows anything.
pub(crate) const COLUMNS_MIN: u16 = 60;
/// Smallest screen that shows anything.
pub(crate) const ROWS_MIN: u16 = 16;

/// How much a screen can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Less than 60×16: one line that says so.
    Tiny,
    /// Fewer columns, no frames, no line of tabs.
    Small,
    /// Tables only; details and output open on the whole screen.
    Medium,
    /// Tables with details beside them.
    Large,
}

impl Tier {
    /// The tier of a screen.
    pub(crate) fn of(columns: u16, rows: u16) -> Self {
        match (columns, rows) {
            (110.., 30..) => Self::Large,
            (80.., 24..) => Self::Medium,
            (COLUMNS_MIN.., ROWS_MIN..) => Self::Small,
            _ => Self::Tiny,
        }
    }

    /// Whether panes have frames.
    pub(crate) fn framed(self) -> bool {
        self >= Self::Medium
    }
}

/// How the middle of the screen is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One pane.
    Single,
    /// A table, and below it what belongs to the selected row: [table, below].
    Below,
    /// A table, and below it two panes side by side: [table, left, right].
    BelowTwo,
    /// Capacity and attention, running and account, events: five panes.
    Overview,
    /// Balance and spending, and the ledger below: three panes.
    Account,
    /// Two tables: [upper, lower].
    Halves,
}

impl Shape {
    /// Every shape.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 6] =
        [Self::Single, Self::Below, Self::BelowTwo, Self::Overview, Self::Account, Self::Halves];

    /// How many panes it has; some may be empty on a small screen.
    pub(crate) fn panes(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Below | Self::Halves => 2,
            Self::BelowTwo | Self::Account => 3,
            Self::Overview => 5,
        }
    }
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How much it can show.
    pub(crate) tier: Tier,
    /// Line 0: product, context, link, totals.
    pub(crate) header: Rect,
    /// The line of tabs; empty on small screens.
    pub(crate) tabs: Rect,
    /// The line that says that the link is gone; empty while it is not.
    pub(crate) banner: Rect,
    /// All between the lines at the top and those at the bottom.
    pub(crate) body: Rect,
    /// The panes, frames included, in the order of the shape.
    pub(crate) panes: Vec<Rect>,
    /// Last but one: what has just happened, a filter, a prompt.
    pub(crate) flash: Rect,
    /// Last: the keys.
    pub(crate) hints: Rect,
}

impl Layout {
    /// The inside of a pane.
    pub(crate) fn inner(&self, pane: usize) -> Rect {
        let area = self.panes.get(pane).copied().unwrap_or_default();
        if !self.tier.framed() || area.width < 2 || area.height < 2 {
            return area;
        }
        Rect { x: area.x + 1, y: area.y + 1, width: area.width - 2, height: area.height - 2 }
    }

    /// Whether a pane is shown.
    pub(crate) fn shows(&self, pane: usize) -> bool {
        self.panes.get(pane).is_some_and(|area| area.width > 0 && area.height > 0)
    }
}

/// Divides a screen. `zoomed` gives one pane all the room.
pub(crate) fn plan(columns: u16, rows: u16, shape: Shape, banner: bool, zoomed: Option<usize>) -> Layout {
    let tier = Tier::of(columns, rows);
    if tier == Tier::Tiny {
        let all = Rect::new(0, 0, columns, rows);
        let none = Rect::default();
        let panes = vec![none; shape.panes()];
        return Layout { tier, header: none, tabs: none, banner: none, body: all, panes, flash: none, hints: none };
    }
    let line = |row| Rect::new(0, row, columns, 1);
    let header = line(0);
    let mut top = 1;
    let mut take = |wanted: bool| {
        let area = if wanted { line(top) } else { Rect::default() };
        top += u16::from(wanted);
        area
    };
    let tabs = take(tier.framed());
    let banner = take(banner);
    let body = Rect::new(0, top, columns, rows - top - 2);
    let mut panes = match zoomed {
        Some(pane) => {
            let mut panes = vec![Rect::default(); shape.panes()];
            if let Some(area) = panes.get_mut(pane) {
                *area = body;
            }
            panes
        }
        None => divide(body, shape, tier),
    };
    panes.resize(shape.panes(), Rect::default());
    Layout { tier, header, tabs, banner, body, panes, flash: line(rows - 2), hints: line(rows - 1) }
}

fn divide(body: Rect, shape: Shape, tier: Tier) -> Vec<Rect> {
    let large = tier == Tier::Large;
    let none = Rect::default();
    match shape {
        Shape::Single => vec![body],
        Shape::Below if large => {
            let [above, below] = split_rows(body, (body.height * 2 / 5).max(8));
            vec![above, below]
        }
        Shape::BelowTwo if large => {
            let [above, below] = split_rows(body, (body.height / 2).max(8));
            let [left, right] = split_columns(below, below.width * 5 / 8);
            vec![above, left, right]
        }
        Shape::Below | Shape::BelowTwo => vec![body],
        Shape::Halves => {
            let [above, below] = split_rows(body, body.height.div_ceil(2));
            vec![above, below]
        }
        Shape::Overview if large => {
            let [first, rest] = split_rows(body, body.height * 3 / 8);
            let [second, third] = split_rows(rest, rest.height * 3 / 5);
            let [capacity, attention] = split_columns(first, first.width / 2);
            let [running, account] = split_columns(second, second.width * 5 / 8);
            vec![capacity, attention, running, account, third]
        }
        Shape::Overview => {
            let [capacity, rest] = split_rows(body, if tier.framed() { 6 } else { 4 });
            let [running, events] = split_rows(rest, rest.height.div_ceil(2));
            vec![capacity, none, running, none, events]
        }
        Shape::Account if large => {
            let [above, ledger] = split_rows(body, 10);
            let [balance, spend] = split_columns(above, above.width / 2);
            vec![balance, spend, ledger]
        }
        Shape::Account => {
            let [balance, ledger] = split_rows(body, if tier.framed() { 5 } else { 3 });
            vec![balance, none, ledger]
        }
    }
}

fn split_rows(area: Rect, first: u16) -> [Rect; 2] {
    let first = first.min(area.height);
    let upper = Rect { height: first, ..area };
    [upper, Rect { y: area.y + first, height: area.height - first, ..area }]
}

fn split_columns(area: Rect, first: u16) -> [Rect; 2] {
    let first = first.min(area.width);
    let left = Rect { width: first, ..area };
    [left, Rect { x: area.x + first, width: area.width - first, ..area }]
}

/// A rectangle of this size in the middle of another; smaller where that has no room.
pub(crate) fn centred(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_divided_without_overlap_and_within_the_screen() {
        for columns in 1..=250 {
            for rows in 1..=80 {
                for shape in Shape::ALL {
                    for banner in [false, true] {
                        let zooms = std::iter::once(None).chain((0..shape.panes()).map(Some));
                        for zoomed in zooms {
                            sound(&plan(columns, rows, shape, banner, zoomed), columns, rows, shape);
                        }
                    }
                }
            }
        }
    }

    fn sound(layout: &Layout, columns: u16, rows: u16, shape: Shape) {
        let screen = Rect::new(0, 0, columns, rows);
        assert_eq!(layout.panes.len(), shape.panes());
        let lines = [layout.header, layout.tabs, layout.banner, layout.flash, layout.hints];
        let areas: Vec<Rect> =
            lines.into_iter().chain(layout.panes.iter().copied()).filter(|a| !a.is_empty()).collect();
        for (position, area) in areas.iter().enumerate() {
            assert_eq!(area.intersection(screen), *area, "{columns}x{rows} {shape:?} {area:?} leaves the screen");
            for other in &areas[position + 1..] {
                assert!(!area.intersects(*other), "{columns}x{rows} {shape:?}: {area:?} overlaps {other:?}");
            }
        }
        if layout.tier > Tier::Tiny {
            let covered: u32 = areas.iter().map(|area| area.area()).sum();
            assert_eq!(covered, screen.area(), "{columns}x{rows} {shape:?}: some of the screen belongs to nobody");
            assert!(layout.shows(layout.panes.iter().position(|area| !area.is_empty()).expect("a pane")));
        }
    }

    #[test]
    fn tiers_begin_where_the_documentation_says() {
        for (columns, rows, tier) in [
            (110, 30, Tier::Large),
            (109, 30, Tier::Medium),
            (110, 29, Tier::Medium),
            (80, 24, Tier::Medium),
            (79, 24, Tier::Small),
            (80, 23, Tier::Small),
            (60, 16, Tier::Small),
            (59, 80, Tier::Tiny),
            (250, 15, Tier::Tiny),
        ] {
            assert_eq!(Tier::of(columns, rows), tier, "{columns}x{rows}");
        }
    }
}
