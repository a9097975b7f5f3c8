//! Whatever comes, in any order: keys, sizes, snapshots, deltas, a link that comes and goes. Nothing panics, the selection is a row that
//! is there, and at most one thing lies over the view.

use modchain_types::List;
use modchain_wire::console::StateDelta;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::app::App;
use super::super::keys::BINDINGS;
use super::super::msg::{Effect, Mouse, Msg};
use super::super::table::TableId;
use super::super::update::update;
use super::super::view::draw;
use super::world::{Link, NOW, jobs, nodes, seen, snapshot};
use crate::client::live::{FromLive, LinkState};

/// What the fuzzer's bytes mean: two bytes a step.
fn message(app: &App, kind: u8, value: u8) -> Msg {
    let live = |message| Msg::Live(Box::new(message));
    match kind % 16 {
        0..10 => {
            let chords: Vec<&str> = BINDINGS.iter().flat_map(|binding| binding.chords.iter().copied()).collect();
            let more = ["a", "Enter", "y", "n", "Backspace", "Esc", "1", "0", "F5", "漢"];
            let keys: Vec<&str> = chords.into_iter().flat_map(|chord| chord.split(' ')).chain(more).collect();
            Msg::Key(keys[(usize::from(kind) * 256 + usize::from(value)) % keys.len()].to_owned())
        }
        10 => Msg::Resize(u16::from(value), u16::from(kind)),
        11 => Msg::Resize(120, 36),
        12 => {
            let mut some = jobs();
            some.truncate(usize::from(value) % 7);
            for job in &mut some {
                job.cost.0 = u64::from(value);
            }
            let upto = app.mirror.mark.map_or(0, |mark| mark.upto);
            live(FromLive::Delta(Box::new(StateDelta {
                prev: upto,
                upto: upto + 1,
                jobs: List::new(some).expect("fits"),
                nodes: List::default(),
                account: None,
                events: List::default(),
                gone: List::default(),
            })))
        }
        13 => {
            let (mut some, mut all) = (jobs(), nodes());
            some.truncate(usize::from(value) % 7);
            all.truncate(usize::from(value) % 5);
            live(FromLive::Snapshot(Box::new(snapshot(some, all))))
        }
        14 => live(FromLive::Link(match value % 4 {
            0 => LinkState::Live,
            1 => LinkState::Connecting,
            2 => LinkState::Silent { since: NOW },
            _ => LinkState::Lost { since: NOW, why: "gone\x1b[2J".into(), retry_at: None, tries: 1 },
        })),
        _ => match value % 4 {
            0 => Msg::Paste("one\ntwo \u{202e}three".into()),
            1 => Msg::Mouse(Mouse::Click(u16::from(value), u16::from(kind))),
            2 => Msg::Mouse(Mouse::WheelDown(3, 3)),
            _ => Msg::Deadline,
        },
    }
}

fn sound(app: &App) {
    for id in TableId::ALL {
        let table = app.ui.table(id);
        match &table.selected {
            Some(selected) => assert!(table.order.contains(selected), "{id:?}: the selected row is not there"),
            None => assert!(table.order.is_empty(), "{id:?}: rows and none is selected"),
        }
    }
    assert!(app.ui.toasts.len() <= 1);
}

#[test]
fn nothing_that_comes_breaks_the_console() {
    crate::fuzz::target("console")
        .words(&["\u{0}x", "\u{c}\u{1}", "\u{d}\u{2}", "\u{e}\u{2}"])
        .longest(64)
        .executions(600)
        .memory(|_| 64 << 20)
        .run(|input| {
            let mut app = seen((100, 30), Link::Live);
            let mut left = 0;
            for step in input.chunks_exact(2) {
                app.now.ms += u64::from(step[1]) * 20;
                let message = message(&app, step[0], step[1]);
                let effects = update(&mut app, message);
                left += effects.iter().filter(|effect| matches!(effect, Effect::Quit(_))).count();
                sound(&app);
                let (columns, rows) = (app.caps.columns.max(1), app.caps.rows.max(1));
                let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a screen");
                terminal.draw(|frame| draw(&app, frame)).expect("draws");
                app.drawn();
            }
            let overlay = app.ui.overlay.as_ref().map(std::mem::discriminant);
            modchain_fuzz::signature(&(app.ui.view, app.focus(), overlay, app.ui.prompt.is_some(), left.min(2)))
        });
}
