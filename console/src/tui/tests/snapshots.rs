//! A picture of every view at three sizes in every state of the link, with its styles: rows of letters, one for each distinct style,
//! and what the letters mean. `INSTA_UPDATE=always cargo test -p modchain snapshots` makes them anew.

use std::fmt::Write;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::super::app::{App, Place};
use super::super::msg::Msg;
use super::super::theme::{Theme, ThemeName};
use super::super::update::{open, update};
use super::super::view::draw;
use super::world::{Link, Size, job_id, name, press, seen};

const SIZES: [Size; 3] = [(120, 36), (80, 24), (60, 16)];

/// A screen as text, and how each of its places looks.
pub(super) fn picture(app: &App) -> String {
    let mut terminal = Terminal::new(TestBackend::new(app.caps.columns, app.caps.rows)).expect("a screen");
    terminal.draw(|frame| draw(app, frame)).expect("draws");
    styled(terminal.backend().buffer())
}

fn styled(buffer: &Buffer) -> String {
    let mut legend: Vec<(Color, Color, Modifier)> = vec![(Color::Reset, Color::Reset, Modifier::empty())];
    let (mut text, mut styles) = (String::new(), String::new());
    for row in 0..buffer.area.height {
        let (mut line, mut letters) = (String::new(), String::new());
        let mut skip = 0;
        for column in 0..buffer.area.width {
            let cell = &buffer[(column, row)];
            let style = (cell.fg, cell.bg, cell.modifier);
            let place = legend.iter().position(|known| *known == style).unwrap_or_else(|| {
                legend.push(style);
                legend.len() - 1
            });
            letters.push(if place == 0 {
                '.'
            } else {
                char::from(b'a' + u8::try_from(place - 1).expect("few styles"))
            });
            // A wide character covers the next place too.
            if skip == 0 {
                line.push_str(cell.symbol());
                skip = unicode_width::UnicodeWidthStr::width(cell.symbol()).saturating_sub(1);
            } else {
                skip -= 1;
            }
        }
        writeln!(text, "{}", line.trim_end()).expect("a string");
        writeln!(styles, "{}", letters.trim_end_matches('.')).expect("a string");
    }
    let mut out = format!("{text}--- styles\n{styles}--- legend\n");
    for (place, (fore, back, modifier)) in legend.iter().enumerate().skip(1) {
        let letter = char::from(b'a' + u8::try_from(place - 1).expect("few styles"));
        writeln!(out, "{letter} {fore} on {back} {modifier:?}").expect("a string");
    }
    out
}

fn check(called: &str, open_it: impl Fn(&mut App)) {
    for size in SIZES {
        for link in Link::ALL {
            let mut app = seen(size, link);
            open_it(&mut app);
            update(&mut app, Msg::Deadline);
            app.ui.toasts.clear();
            let file = format!("{called}-{}x{}-{link:?}", size.0, size.1).to_lowercase();
            insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(file, picture(&app));
            });
        }
    }
}

#[test]
fn overview() {
    check("overview", |app| drop(press(app, &["1"])));
}

#[test]
fn nodes() {
    check("nodes", |app| drop(press(app, &["2"])));
}

#[test]
fn one_node() {
    check("node", |app| open(app, Place::Node(name("zurich-01"))));
}

#[test]
fn jobs() {
    check("jobs", |app| drop(press(app, &["3"])));
}

#[test]
fn one_job() {
    check("job", |app| open(app, Place::Job(job_id(1))));
}

#[test]
fn output() {
    check("output", |app| open(app, Place::Output(job_id(1))));
}

#[test]
fn events() {
    check("events", |app| drop(press(app, &["4"])));
}

#[test]
fn filtered() {
    check("filtered", |app| drop(press(app, &["2", "/", "g", "p", "u", ">", "9", "0"])));
}

#[test]
fn account() {
    check("account", |app| drop(press(app, &["5"])));
}

#[test]
fn access() {
    check("access", |app| drop(press(app, &["6"])));
}

#[test]
fn help() {
    check("help", |app| drop(press(app, &["3", "?"])));
}

#[test]
fn question() {
    check("question", |app| {
        press(app, &["3", "/", "l", "l", "a", "m", "a", "Enter", "x"]);
    });
}

#[test]
fn new_job() {
    check("new-job", |app| drop(press(app, &["3", "n"])));
}

#[test]
fn palette() {
    check("palette", |app| drop(press(app, &["3", "Ctrl-p", "n", "o", "d"])));
}

#[test]
fn without_colours_and_without_unicode() {
    let mut app = seen((120, 36), Link::Live);
    press(&mut app, &["3"]);
    app.ui.theme = Theme { name: ThemeName::Mono };
    app.caps.ascii = true;
    let shown = picture(&app);
    let (text, rest) = shown.split_once("--- styles").expect("both");
    // The names of jobs are the client's own and may be anything; all else is ours.
    for line in text.lines().filter(|line| !line.contains('漢')) {
        assert!(line.is_ascii(), "{line}");
    }
    for line in rest.split_once("--- legend").expect("both").1.lines().filter(|line| !line.is_empty()) {
        assert!(line[2..].starts_with("Reset on Reset"), "{line}");
    }
}
