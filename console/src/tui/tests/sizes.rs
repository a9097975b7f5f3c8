//! Every size of a screen, in every view: nothing panics, the selected row is on the screen.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::app::{Place, View};
use super::super::layout::Tier;
use super::super::msg::Msg;
use super::super::table::{RowId, TableId};
use super::super::update::{open, update};
use super::super::view::{draw, table_of};
use super::world::{Link, job_id, name, press, seen};

/// What is looked at besides the views themselves.
fn opened() -> Vec<Option<Place>> {
    vec![None, Some(Place::Job(job_id(1))), Some(Place::Output(job_id(1))), Some(Place::Node(name("zurich-01")))]
}

#[test]
fn every_view_is_drawn_at_every_size_and_its_selected_row_is_shown() {
    let mut app = seen((120, 36), Link::Live);
    for view in View::ALL {
        for place in opened() {
            app.ui.opened.clear();
            app.ui.view = view;
            if let Some(place) = &place {
                open(&mut app, place.clone());
            }
            // The last row is the one that a short table has to scroll to.
            press(&mut app, &["G"]);
            for columns in sizes(250, 7) {
                for rows in sizes(80, 3) {
                    update(&mut app, Msg::Resize(columns, rows));
                    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a screen");
                    terminal.draw(|frame| draw(&app, frame)).expect("draws");
                    selected_is_shown(&app);
                }
            }
        }
    }
}

/// 1 to `most`: all small ones and those around the borders of the tiers, and every so manieth above them.
fn sizes(most: u16, step: usize) -> Vec<u16> {
    let near = [15, 16, 17, 23, 24, 25, 29, 30, 31, 59, 60, 61, 79, 80, 81, 109, 110, 111, 120];
    (1..=most)
        .filter(|size| *size < 4 || near.contains(size) || usize::from(*size).is_multiple_of(step) || *size == most)
        .collect()
}

fn selected_is_shown(app: &super::super::app::App) {
    let layout = app.layout();
    if layout.tier == Tier::Tiny {
        return;
    }
    for pane in 0..layout.panes.len() {
        let Some(id) = table_of(&app.place(), pane).filter(|_| layout.shows(pane)) else { continue };
        let table = app.ui.table(id);
        let rows = usize::from(layout.inner(pane).height).saturating_sub(1).max(1);
        if table.selected.is_some() {
            let index = table.index();
            assert!((table.top..table.top + rows).contains(&index), "{id:?} {}x{}", app.caps.columns, app.caps.rows);
        }
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
