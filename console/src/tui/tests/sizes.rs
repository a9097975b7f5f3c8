//! Sizes of a screen, in every view and with everything that may lie over it: nothing panics, every frame is whole, and what is selected
//! is on the screen. Where things are is tried for every size from 1×1 to 250×80 in [`layout`](super::super::layout); here each width
//! and each height is drawn at the sizes where the other one matters. `MODCHAIN_TEST_SIZES=all` draws all 20,000, which takes minutes.

use modchain_types::{NodeId, Span};
use modchain_wire::view::{EventView, JobView, NodeView};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::super::app::{App, Overlay, Place, View};
use super::super::layout::Tier;
use super::super::msg::Msg;
use super::super::table::{RowId, TableId};
use super::super::update::{open, update};
use super::super::view::{draw, table_of};
use super::world::{self, Link, job_id, name, press, seen};
use crate::client::live::{FromLive, LinkState};

/// The largest screen.
const COLUMNS: u16 = 250;
const ROWS: u16 = 80;
/// Heights at which every width is drawn: the first of each tier, and the last.
const HEIGHTS: [u16; 4] = [16, 24, 30, ROWS];
/// Widths at which every height is drawn.
const WIDTHS: [u16; 4] = [60, 80, 110, COLUMNS];

/// A console with more jobs, nodes and events than any screen has rows.
fn crowded() -> App {
    let mut app = seen((120, 36), Link::Live);
    let jobs: Vec<JobView> = (0..120)
        .map(|number| {
            let job = world::jobs()[usize::from(number) % 6].clone();
            JobView { id: job_id(number), created_at: job.created_at.plus(Span::from_secs(number.into())), ..job }
        })
        .collect();
    let nodes = (0..100u8).map(|number| NodeView {
        id: NodeId([number; 16]),
        name: name(&format!("zurich-{number:02}")),
        ..world::nodes()[usize::from(number) % 6].clone()
    });
    world::give(&mut app, FromLive::Snapshot(Box::new(world::snapshot(jobs, nodes.collect()))));
    let events = (0..150).map(|number| EventView { number, ..world::events()[(number % 6) as usize].clone() });
    world::give(&mut app, FromLive::Events(events.collect()));
    for view in View::ALL {
        app.ui.view = view;
        // The last row is the one that a table has to scroll to.
        press(&mut app, &["G"]);
    }
    app.ui.toasts.clear();
    app
}

/// The sizes that are drawn.
fn sizes() -> Vec<(u16, u16)> {
    let all = std::env::var("MODCHAIN_TEST_SIZES").is_ok_and(|sizes| sizes == "all");
    let every = (1..=ROWS).flat_map(|rows| (1..=COLUMNS).map(move |columns| (columns, rows)));
    every.filter(|(columns, rows)| all || WIDTHS.contains(columns) || HEIGHTS.contains(rows)).collect()
}

/// Draws what this opens at every size.
fn check(what: &str, open_it: impl Fn(&mut App)) {
    let mut app = crowded();
    open_it(&mut app);
    let mut terminal = Terminal::new(TestBackend::new(1, 1)).expect("a screen");
    for (columns, rows) in sizes() {
        update(&mut app, Msg::Resize(columns, rows));
        terminal.backend_mut().resize(columns, rows);
        terminal.resize(Rect::new(0, 0, columns, rows)).expect("a screen");
        terminal.draw(|frame| draw(&app, frame)).expect("draws");
        let whole = whole(&app, terminal.backend().buffer());
        if let Err(why) = whole {
            let lines: Vec<String> = (0..rows).map(|row| line(terminal.backend().buffer(), row, 0, columns)).collect();
            panic!("{what} at {columns}x{rows}: {why}\n{}", lines.join("\n"));
        }
    }
}

fn line(buffer: &Buffer, row: u16, from: u16, to: u16) -> String {
    (from..to).map(|column| buffer[(column, row)].symbol()).collect()
}

/// What is wrong with what was drawn.
fn whole(app: &App, buffer: &Buffer) -> Result<(), String> {
    let layout = app.layout();
    if layout.tier == Tier::Tiny {
        let words = line(buffer, 0, 0, app.caps.columns);
        return if words.starts_with('n') { Ok(()) } else { Err("it does not say what it needs".into()) };
    }
    if !line(buffer, 0, 0, app.caps.columns).starts_with(" MODCHAIN") {
        return Err("the first line is another one".into());
    }
    if line(buffer, layout.hints.y, 0, app.caps.columns).trim().is_empty() {
        return Err("there are no keys".into());
    }
    if !layout.banner.is_empty() && !line(buffer, layout.banner.y, 0, app.caps.columns).contains("LINK LOST") {
        return Err("the banner is another line".into());
    }
    match &app.ui.overlay {
        Some(Overlay::Form(_)) => return dialog_is_whole(buffer, "┌┐└┘│", " New job "),
        Some(_) => return dialog_is_whole(buffer, "╔╗╚╝║", " "),
        None => {}
    }
    for (pane, area) in layout.panes.iter().enumerate().filter(|(pane, _)| layout.shows(*pane)) {
        if layout.tier.framed() {
            // The line about the job stands above the frame of its output.
            let above = u16::from(matches!(app.place(), Place::Output(_)));
            frame_is_whole(buffer, Rect { y: area.y + above, height: area.height - above, ..*area }, "┌┐└┘│")
                .map_err(|why| format!("pane {pane}: {why}"))?;
        }
        let Some(id) = table_of(&app.place(), pane) else { continue };
        selected_is_shown(app, buffer, id, layout.inner(pane)).map_err(|why| format!("{id:?}: {why}"))?;
    }
    Ok(())
}

/// A frame whose edges nothing has been drawn over; `signs` are its corners and its sides.
fn frame_is_whole(buffer: &Buffer, area: Rect, signs: &str) -> Result<(), String> {
    let signs: Vec<String> = signs.chars().map(String::from).collect();
    let (left, right, top, bottom) = (area.left(), area.right() - 1, area.top(), area.bottom() - 1);
    let corners = [(left, top), (right, top), (left, bottom), (right, bottom)];
    let sides = (top + 1..bottom).flat_map(|row| [(left, row), (right, row)]);
    let wanted = corners.into_iter().zip(&signs[..4]).chain(sides.map(|at| (at, &signs[4])));
    for (at, sign) in wanted {
        if buffer[at].symbol() != sign {
            return Err(format!("`{}` and not `{sign}` stands at {at:?}", buffer[at].symbol()));
        }
    }
    Ok(())
}

/// The same of what lies over a view, wherever it is: after its first corner comes this title, and all of its edges are on the screen.
fn dialog_is_whole(buffer: &Buffer, signs: &str, title: &str) -> Result<(), String> {
    let corner = |place| signs.chars().nth(place).map(String::from).unwrap_or_default();
    let find = |sign: &str, from: Rect| from.positions().find(|at| buffer[*at].symbol() == sign);
    let mut all = buffer.area.positions().filter(|at| buffer[*at].symbol() == corner(0));
    let titled = |row, from| line(buffer, row, from, buffer.area.width).starts_with(title);
    let begin = all.find(|at| titled(at.y, at.x + 1)).ok_or("nothing lies over the view")?;
    let rest = |width, height| Rect { x: begin.x, y: begin.y, width, height };
    let right = find(&corner(1), rest(buffer.area.width - begin.x, 1)).ok_or("its right edge is not there")?;
    let bottom = find(&corner(2), rest(1, buffer.area.height - begin.y)).ok_or("its lower edge is not there")?;
    frame_is_whole(buffer, rest(right.x - begin.x + 1, bottom.y - begin.y + 1), signs)
}

/// The selected row of a table is among its rows on the screen, and marked as such.
fn selected_is_shown(app: &App, buffer: &Buffer, id: TableId, inner: Rect) -> Result<(), String> {
    let table = app.ui.table(id);
    if table.selected.is_none() || inner.height < 2 {
        return Ok(());
    }
    let marked = |row: &u16| buffer[(inner.x, *row)].symbol() == "▸";
    let rows: Vec<u16> = (inner.y + 1..inner.bottom()).filter(marked).collect();
    let wanted = u16::try_from(table.index().saturating_sub(table.top)).unwrap_or(u16::MAX);
    match rows.as_slice() {
        [row] if row - inner.y - 1 == wanted => Ok(()),
        rows => Err(format!("row {} of {} is selected, marked are {rows:?}", table.index(), table.order.len())),
    }
}

#[test]
fn every_view_is_drawn_at_every_size() {
    for view in View::ALL {
        check(&format!("{view:?}"), |app| app.ui.view = view);
    }
}

#[test]
fn what_is_opened_is_drawn_at_every_size() {
    for place in [Place::Job(job_id(1)), Place::Output(job_id(1)), Place::Node(name("zurich-01"))] {
        check(&format!("{place:?}"), |app| open(app, place.clone()));
    }
    check("zoomed", |app| drop(press(app, &["1", "z"])));
}

#[test]
fn a_lost_link_and_a_filter_are_drawn_at_every_size() {
    check("lost", |app| {
        let since = world::NOW;
        let lost = LinkState::Lost { since, why: "no answer from orch.prod:7443".into(), retry_at: None, tries: 3 };
        world::give(app, FromLive::Link(lost));
        press(app, &["3"]);
    });
    check("filter", |app| drop(press(app, &["3", "/", "z", "u", "r"])));
}

#[test]
fn what_lies_over_a_view_is_drawn_at_every_size() {
    for (what, keys) in [
        ("help", &["3", "?"][..]),
        ("question", &["3", "g", "g", "x"]),
        ("new job", &["3", "n"]),
        ("palette", &["3", "Ctrl-p", "n", "o"]),
        ("columns", &["3", "s"]),
        ("log", &["3", "~"]),
    ] {
        check(what, |app| {
            press(app, keys);
            assert!(app.ui.overlay.is_some(), "{what}");
        });
    }
}

#[test]
fn a_question_shows_its_answers_at_every_size() {
    let mut app = crowded();
    press(&mut app, &["3", "Space", "Space", "x"]);
    assert!(matches!(app.ui.overlay, Some(Overlay::Confirm(_))));
    for (columns, rows) in sizes() {
        update(&mut app, Msg::Resize(columns, rows));
        if app.is_tiny() {
            continue;
        }
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a screen");
        terminal.draw(|frame| draw(&app, frame)).expect("draws");
        let lines: Vec<String> = (0..rows).map(|row| line(terminal.backend().buffer(), row, 0, columns)).collect();
        assert!(lines.iter().any(|line| line.contains("and Enter to")), "{columns}x{rows}\n{}", lines.join("\n"));
    }
}

#[test]
fn a_table_that_sorts_itself_anew_keeps_the_selected_row() {
    let mut app = seen((120, 36), Link::Live);
    press(&mut app, &["3", "j", "j"]);
    let before = app.ui.table(TableId::Jobs).selected.clone();
    assert!(matches!(before, Some(RowId::Job(_))));
    for key in ["S", ">", ">", "S", "<", "w"] {
        press(&mut app, &[key]);
        assert_eq!(app.ui.table(TableId::Jobs).selected, before, "after {key}");
    }
}
