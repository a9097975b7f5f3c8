//! The order of tables while rows come, go and change: it is always the one that would be made of all rows anew.

use modchain_types::{List, Micro, NodeState, WallTime};
use modchain_wire::console::StateDelta;
use modchain_wire::view::{JobView, NodeView};

use super::super::app::{App, View};
use super::super::msg::Msg;
use super::super::table::TableId;
use super::super::update::update;
use super::world::{console, give, list, snapshot, welcome};
use crate::client::live::{FromLive, LinkState};
use crate::client::samples;
use crate::tui::view::column_count;

/// Numbers that look like chance and are the same every time.
struct Chance(u64);

impl Chance {
    /// Below this bound.
    fn draw(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn job(chance: &mut Chance) -> JobView {
    let number = chance.draw(60);
    let job = match chance.draw(3) {
        0 => samples::ended_job(number, u8::try_from(chance.draw(3)).expect("small")),
        1 => samples::queued_job(number),
        _ => samples::job_view(number),
    };
    // Some are of the same moment, or cost the same.
    let moved = |at: WallTime| WallTime(at.0 - i64::try_from(number % 40 * 700).expect("fits"));
    JobView {
        created_at: moved(job.created_at),
        started_at: job.started_at.map(moved),
        cost: Micro(chance.draw(9) * 10_000),
        ..job
    }
}

fn node(chance: &mut Chance) -> NodeView {
    let name = format!("node-{}", chance.draw(30));
    let mut node = samples::node_view(&name, usize::try_from(chance.draw(3)).expect("small"));
    node.state =
        [NodeState::Ready, NodeState::Suspect, NodeState::Lost][usize::try_from(chance.draw(3)).expect("small")];
    node.seen_at = Some(WallTime(samples::AT.0 - i64::try_from(chance.draw(9_000)).expect("fits")));
    node.attempts = u32::try_from(chance.draw(4)).expect("small");
    node
}

/// Some rows change, come or go.
fn change(app: &mut App, chance: &mut Chance) {
    app.now.ms += 1_300;
    app.now.wall = app.now.wall.plus(modchain_types::Span::from_millis(1_300));
    let upto = app.mirror.mark.expect("a snapshot came").upto;
    let jobs = (0..chance.draw(4)).map(|_| job(chance)).collect();
    let nodes: Vec<NodeView> = (0..chance.draw(2)).map(|_| node(chance)).collect();
    let gone = if nodes.is_empty() && chance.draw(3) == 0 { vec![node(chance).name] } else { Vec::new() };
    let event = samples::event_view(upto + 1);
    let delta = StateDelta {
        prev: upto,
        upto: upto + 1,
        jobs: list(jobs),
        nodes: list(nodes),
        gone: list(gone),
        account: None,
        events: if chance.draw(2) == 0 { list(vec![event]) } else { List::default() },
    };
    give(app, FromLive::Delta(Box::new(delta)));
}

#[test]
fn a_table_that_is_kept_up_with_changes_is_ordered_as_one_that_is_made_anew() {
    let mut chance = Chance(11);
    for (view, id) in [
        (View::Jobs, TableId::Jobs),
        (View::Overview, TableId::Running),
        (View::Nodes, TableId::Nodes),
        (View::Events, TableId::Events),
    ] {
        for column in 0..column_count(id) {
            let mut app = console((200, 60));
            app.now.wall = samples::AT.plus(modchain_types::Span::from_secs(2_000));
            give(&mut app, FromLive::Link(LinkState::Live));
            give(&mut app, FromLive::Welcome(Box::new(welcome())));
            let jobs = (0..20).map(|_| job(&mut chance)).collect();
            give(&mut app, FromLive::Snapshot(Box::new(snapshot(jobs, vec![node(&mut chance)]))));
            app.ui.view = view;
            app.ui.ended = chance.draw(2) == 0;
            let table = app.ui.table_mut(id);
            (table.sort, table.descending) = (column, chance.draw(2) == 0);
            table.touch();
            update(&mut app, Msg::Deadline);
            for round in 0..40 {
                change(&mut app, &mut chance);
                let kept = (app.ui.table(id).order.clone(), app.ui.table(id).total);
                app.ui.table_mut(id).touch();
                update(&mut app, Msg::Deadline);
                let anew = (app.ui.table(id).order.clone(), app.ui.table(id).total);
                assert_eq!(kept, anew, "{id:?} by column {column}, change {round}");
            }
        }
    }
}
