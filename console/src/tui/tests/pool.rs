//! Nodes, the overview, events, money, members and exports: what stands where, and what keys do there.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::app::{App, View};
use super::super::view::draw;
use super::world::{Link, press, seen};

fn screen(app: &App) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(app.caps.columns, app.caps.rows)).expect("a screen");
    terminal.draw(|frame| draw(app, frame)).expect("draws");
    let buffer = terminal.backend().buffer().clone();
    let line = |row| (0..buffer.area.width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..buffer.area.height).map(line).collect()
}

#[test]
fn dump() {
    for size in [(120, 36), (80, 24), (60, 16)] {
        for key in ["1", "2", "4", "5", "6"] {
            let mut app = seen(size, Link::Live);
            press(&mut app, &[key]);
            println!("{}", screen(&app).join("\n"));
        }
        let mut app = seen(size, Link::Live);
        press(&mut app, &["2", "G", "Enter"]);
        println!("{}", screen(&app).join("\n"));
        press(&mut app, &["Esc", "g", "g", "G", "k", "Enter"]);
        println!("{}", screen(&app).join("\n"));
    }
    let _ = View::ALL;
}
