//! Nodes, the overview, events, money, members and exports: what stands where, and what keys do there.

use modchain_types::{NodeState, NodeWish, Role};
use modchain_wire::FromConsole;

use super::super::app::{App, Overlay, Place, View};
use super::super::msg::Effect;
use super::super::table::{RowId, TableId};
use super::super::update::open;
use super::super::view::export;
use super::world::{self, Link, Size, asked, job_id, name, press, screen, seen, shows};
use crate::client::live::FromLive;

const LARGE: Size = (120, 36);
const MEDIUM: Size = (80, 24);
const SMALL: Size = (60, 16);

/// A live console of this size after these keys.
fn after(size: Size, keys: &[&str]) -> App {
    let mut app = seen(size, Link::Live);
    press(&mut app, keys);
    app
}

/// The file among effects: its name and its text.
#[track_caller]
fn written(effects: Vec<Effect>) -> (String, String) {
    let file = effects.into_iter().find_map(|effect| {
        if let Effect::Write(path, bytes) = effect { Some((path.display().to_string(), bytes)) } else { None }
    });
    let (path, bytes) = file.expect("a file");
    (path, String::from_utf8(bytes).expect("text"))
}

#[test]
fn nodes_show_what_they_measure_and_a_lost_one_shows_that_it_is_not_known() {
    let app = after(LARGE, &["2"]);
    shows(
        &app,
        &[
            "NODE▴           STATE       POOL          GPUS   GPU%  5 MIN          VRAM  TEMP   POWER  JOBS  PRICE/H    RTT  SEEN",
            "  oslo-02         ○ lost      a100-80g        2x      ?  ··········        ?     ?       ?     4    2.704      ?    4m",
            "  zurich-01       ● ready     a100-80g        4x     97  ·········▇  280/320   74C  1.5 kW     1    5.104    9ms    1s",
            "▸ lyon-11         ◑ draining  cpu              -      -  ·········▃        -     -       -     5    0.304    9ms    1s",
            "lyon-11 · CPU and memory",
            "CPU        34%",
            "drained   in 10m00s",
        ],
    );
    let app = after(MEDIUM, &["2"]);
    shows(
        &app,
        &["  zurich-01  ● ready     a100-80g     97  ·····▇  280/320     1    5.104    1s", "6 nodes · by NODE"],
    );
    let app = after(SMALL, &["2"]);
    shows(
        &app,
        &["  zurich-01       ● ready        97  ·······▇  280/320     1", "  oslo-02         ○ lost          ?"],
    );
}

#[test]
fn a_filter_of_nodes_knows_pools_shares_states_and_labels() {
    for (filter, fits) in [
        ("gpu>=92", 1),
        ("pool:a100", 4),
        ("state:lost,draining", 2),
        ("label:pool=cpu", 2),
        ("price<1", 2),
        ("gpus>1 !lost", 2),
    ] {
        let mut app = after(LARGE, &["2", "/"]);
        let keys: Vec<String> = filter.chars().map(|c| if c == ' ' { "Space".into() } else { c.to_string() }).collect();
        press(&mut app, &keys.iter().map(String::as_str).collect::<Vec<_>>());
        press(&mut app, &["Enter"]);
        let table = app.ui.table(TableId::Nodes);
        assert_eq!(table.filter.text, filter);
        assert_eq!(table.order.len(), fits, "{filter}");
    }
}

#[test]
fn the_gpus_of_the_selected_node_say_which_job_holds_them() {
    let mut app = seen(LARGE, Link::Live);
    app.ui.view = View::Nodes;
    app.ui.table_mut(TableId::Nodes).select_id(&RowId::Node(name("zurich-03")));
    press(&mut app, &["j", "k"]);
    let job = job_id(1).short();
    shows(
        &app,
        &["zurich-03 · GPUs", "2x A100-80GB", &format!("398 W  {job}"), "398 W  free", "100%", &format!("jobs  {job}")],
    );
    press(&mut app, &["Enter"]);
    assert_eq!(app.place(), Place::Node(name("zurich-03")));
    shows(
        &app,
        &["GPU   BUSY", "busy, all GPUs, last 5 min", "llama-eval", "running on zurich-03", "price     1.20/GPU h"],
    );
}

#[test]
fn the_page_of_a_node_scrolls_to_its_end_and_no_further() {
    let mut app = seen(SMALL, Link::Live);
    open(&mut app, Place::Node(name("zurich-03")));
    press(&mut app, &["j"]);
    assert_eq!(app.ui.node_top, Some((name("zurich-03"), 1)));
    press(&mut app, &["G", "j", "j"]);
    shows(&app, &["running on zurich-03"]);
    let end = app.ui.node_top.clone();
    press(&mut app, &["PgUp", "g", "g"]);
    assert_eq!(app.ui.node_top, Some((name("zurich-03"), 0)));
    assert!(end.is_some_and(|(_, top)| top > 5));
    open(&mut app, Place::Node(name("lyon-11")));
    shows(&app, &["CPU        34%"]);
}

#[test]
fn cordon_and_drain_are_the_commands_of_the_same_name() {
    let mut app = seen(LARGE, Link::Live);
    open(&mut app, Place::Node(name("zurich-01")));
    let sent = asked(press(&mut app, &["u"]));
    let cordon = |request: &FromConsole| matches!(request, FromConsole::NodeSet(set) if set.node == name("zurich-01") && set.wish == NodeWish::Cordon);
    assert_eq!(sent.iter().filter(|request| cordon(request)).count(), 1, "{sent:?}");
    shows(&app, &["sending"]);
    press(&mut app, &["D"]);
    shows(&app, &["modchain node drain zurich-01 -y", "type zurich-01 and Enter"]);
}

#[test]
fn the_overview_shows_capacity_problems_running_jobs_money_and_events() {
    let app = after(LARGE, &["1"]);
    shows(
        &app,
        &[
            "6 nodes · 9 GPUs · 2 jobs waiting",
            "GPU busy   94%",
            "VRAM used  87%",
            "CPU busy   34%",
            "a100-80g               2/4     9     6   94%    1.20 gpu",
            "cpu                    1/2     -     -     -   0.03 core",
            "! node oslo-02 is lost, 4 jobs on it                4m",
            "Nothing else is wrong.",
            "available          412.70 USDC",
            "at this rate         68 h left",
            "spent today          1.37 USDC",
            "llama-eval        zurich-03     92%",
            "6 events · by TIME · live",
        ],
    );
    let job = job_id(2).short();
    assert!(!screen(&app).iter().any(|line| line.contains(&job)), "what waits does not run");
    for size in [MEDIUM, SMALL] {
        let app = after(size, &["1"]);
        shows(
            &app,
            &[
                "GPU   94%",
                "2 run, 2 wait",
                "412.70 free  63.10 held",
                "3 need attention: node oslo-02 is lost",
                "llama-eval",
            ],
        );
    }
}

#[test]
fn a_problem_is_opened_by_enter_and_hidden_until_it_changes() {
    let mut app = after(LARGE, &["1"]);
    app.ui.focus.insert(View::Overview, 1);
    press(&mut app, &["x"]);
    assert_eq!(app.ui.hidden.len(), 1);
    shows(&app, &["Nothing else is wrong. 1 hidden.", "! pretrain-tiny waits"]);
    press(&mut app, &["Enter"]);
    assert_eq!(app.place(), Place::Job(job_id(2)));
    // The node comes back, and is lost again: that is another problem.
    let lost_at = |app: &mut App, state, seen_at| {
        let mut nodes = world::nodes();
        (nodes[3].state, nodes[3].seen_at) = (state, seen_at);
        world::give(app, FromLive::Snapshot(Box::new(world::snapshot(world::jobs(), nodes))));
    };
    press(&mut app, &["1"]);
    lost_at(&mut app, NodeState::Ready, Some(world::NOW));
    assert!(app.ui.hidden.is_empty());
    lost_at(&mut app, NodeState::Lost, Some(world::NOW));
    shows(&app, &["! node oslo-02 is lost"]);
}

#[test]
fn a_filter_of_the_running_jobs_is_not_one_of_all_jobs() {
    let mut app = after(LARGE, &["1", "/", "l", "l", "a", "m", "a", "Enter"]);
    assert_eq!(app.ui.table(TableId::Running).order, [RowId::Job(job_id(1))]);
    assert!(app.ui.table(TableId::Jobs).filter.is_empty());
    press(&mut app, &["x"]);
    assert!(matches!(&app.ui.overlay, Some(Overlay::Confirm(confirm)) if confirm.command[0] == "cancel"));
}

#[test]
fn events_stay_at_the_newest_until_somebody_goes_down() {
    let mut app = after(LARGE, &["4"]);
    let newest = |app: &App| app.ui.table(TableId::Events).selected.clone();
    let event = |number| {
        let mut event = world::events().pop().expect("has some");
        event.number = number;
        FromLive::Events(vec![event])
    };
    world::wait(&mut app, 2_000);
    world::give(&mut app, event(200));
    assert_eq!(newest(&app), Some(RowId::Event(200)));
    press(&mut app, &["j"]);
    let chosen = newest(&app);
    world::wait(&mut app, 2_000);
    world::give(&mut app, event(201));
    assert_eq!(newest(&app), chosen, "what somebody has gone to stays selected");
    press(&mut app, &["f"]);
    assert!(app.ui.table(TableId::Events).order.iter().all(|row| *row != RowId::Event(94)), "a lost node is not mine");
    shows(&app, &["by TIME · mine · live"]);
    press(&mut app, &["f", "/", "k", "i", "n", "d", ":", "n", "o", "d", "e", "Enter"]);
    assert_eq!(app.ui.table(TableId::Events).order, [RowId::Event(94), RowId::Event(90)]);
    press(&mut app, &["g", "g", "Enter"]);
    assert_eq!(app.place(), Place::Node(name("oslo-02")));
}

#[test]
fn money_is_shown_with_what_was_spent_and_by_the_hour() {
    let app = after(LARGE, &["5"]);
    shows(
        &app,
        &[
            "in escrow           63.10 USDC   for 3 jobs",
            "total              475.80 USDC",
            "burn now             6.02 USDC/h   68 h left",
            "spent   today 1.37   7 days 1.37   30 days 1.37",
            "Spent per hour, USDC",
            "2.00 ┤",
            "└┬───────────┬───────────┬───────────┬",
            "▸ 8m        release   ",
            "+0.63",
        ],
    );
    shows(&after(MEDIUM, &["5"]), &["412.70 USDC free   63.10 held", "burn 6.02/h   68 h left", "TIME▾     TYPE"]);
    shows(&after(SMALL, &["5"]), &["spent today 1.37   7 d 1.37   30 d 1.37"]);
    let mut app = seen(LARGE, Link::Live);
    let mut snapshot = world::snapshot(Vec::new(), Vec::new());
    snapshot.account = None;
    world::give(&mut app, FromLive::Snapshot(Box::new(snapshot)));
    press(&mut app, &["5"]);
    shows(&app, &["this identity has no money of its own"]);
}

#[test]
fn a_member_is_shown_in_full_and_put_out_only_by_its_name() {
    let mut app = after(LARGE, &["6"]);
    shows(&app, &["alice                     client", "in 23h", "mzxw6ytb  node          rig-2"]);
    press(&mut app, &["G", "Enter"]);
    shows(&app, &["node/zurich-01", "renewed      3 times", "certificate  01010101"]);
    press(&mut app, &["Esc", "X"]);
    shows(&app, &["Revoke member?", "modchain cert revoke node/zurich-01 -y", "One connection is cut."]);
    app.drawn();
    press(&mut app, &["n", "o", "Enter"]);
    assert!(app.ui.overlay.is_none());
    press(&mut app, &["X"]);
    app.drawn();
    let typed = ["z", "u", "r", "i", "c", "h", "-", "0", "1"];
    press(&mut app, &typed);
    let sent = asked(press(&mut app, &["Enter"]));
    assert!(
        matches!(&sent[..], [FromConsole::Revoke(revoke)] if revoke.identity.as_str() == "node/zurich-01"),
        "{sent:?}"
    );
    press(&mut app, &["g", "g", "j", "X"]);
    assert!(app.ui.overlay.is_none(), "rig-1 is revoked already");
    press(&mut app, &["k", "X"]);
    shows(&app, &["That is you: this console is cut off, too."]);
}

#[test]
fn a_token_is_revoked_where_the_tokens_are() {
    let mut app = after(LARGE, &["6", "x"]);
    assert!(app.ui.overlay.is_none());
    press(&mut app, &["Tab", "x"]);
    shows(
        &app,
        &["Revoke token?", "modchain token revoke mzxw6ytb -y", "mzxw6ytb  a token of the role node for rig-2"],
    );
    app.drawn();
    press(&mut app, &["m", "z", "x", "w", "6", "y", "t", "b"]);
    let sent = asked(press(&mut app, &["Enter"]));
    assert!(matches!(&sent[..], [FromConsole::TokenRevoke(revoke)] if revoke.token.to_string() == "mzxw6ytb"));
    assert_eq!(app.mirror.tokens.as_ref().expect("known")[0].role, Role::Node);
}

#[test]
fn an_export_says_what_and_when_and_holds_what_fits() {
    let mut app = after(LARGE, &["2", "/", "p", "o", "o", "l", ":", "c", "p", "u", "Enter"]);
    let (path, text) = written(press(&mut app, &["Ctrl-s"]));
    assert_eq!(path, "/nowhere/modchain-nodes-20261122-140321.csv");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(
        lines[0].starts_with("node,state,pool,gpus,gpu,line,vram,temp,power,jobs,price,rtt,seen,cpu,memory,account")
    );
    assert_eq!(lines.len(), 4, "titles, two nodes, and the end: {text}");
    assert!(lines[1].starts_with("lyon-11,draining,cpu,-,-,"), "{text}");

    let (path, text) = written(export::export_to(&mut app, Some("x.json".into())));
    assert_eq!(path, "/nowhere/x.json");
    assert_eq!(text.lines().count(), 2);
    for line in text.lines() {
        let document: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(document["schema"], "modchain.node/v1");
    }

    let mut app = seen(LARGE, Link::Live);
    open(&mut app, Place::Output(job_id(1)));
    let (path, text) = written(press(&mut app, &["Ctrl-s"]));
    assert_eq!(path, format!("/nowhere/modchain-output-{}-20261122-140321.txt", job_id(1).short()));
    assert!(text.starts_with("loading checkpoint shards: 100%\nmodel ready, 8.03 B parameters, bf16\n"), "{text}");
    assert!(!text.contains('\x1b'));

    open(&mut app, Place::Node(name("zurich-01")));
    let (path, text) = written(press(&mut app, &["Ctrl-s"]));
    assert_eq!(path, "/nowhere/modchain-node-zurich-01-20261122-140321.txt");
    assert!(text.contains("price     1.20/GPU h"));
    assert!(export::export_to(&mut app, Some("x.csv".into())).is_empty(), "one node is no table");
    let mut empty = seen(LARGE, Link::Empty);
    assert!(press(&mut empty, &["2", "Ctrl-s"]).iter().all(|effect| !matches!(effect, Effect::Write(..))));
    shows(&empty, &["there is nothing to export here yet"]);
}

#[test]
fn every_row_is_copied_as_the_document_of_the_command_line() {
    let app = seen(LARGE, Link::Live);
    for (id, schema) in [
        (TableId::Jobs, "modchain.job/v1"),
        (TableId::Running, "modchain.job/v1"),
        (TableId::Nodes, "modchain.node/v1"),
        (TableId::Events, "modchain.event/v1"),
        (TableId::Ledger, "modchain.ledger_entry/v1"),
        (TableId::Identities, "modchain.cert/v1"),
        (TableId::Tokens, "modchain.token/v1"),
    ] {
        let rows = &app.ui.table(id).order;
        assert!(!rows.is_empty(), "{id:?}");
        for row in rows {
            let text = export::document(&app, row).expect("a document");
            let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(document["schema"], schema, "{row:?}");
        }
    }
}

#[test]
fn what_is_not_there_yet_says_so() {
    for (key, said) in [("1", "waiting for the orchestrator"), ("2", "waiting for the orchestrator"), ("5", "waiting")]
    {
        let mut app = seen(LARGE, Link::Loading);
        press(&mut app, &[key]);
        shows(&app, &[said]);
    }
    let mut app = seen(LARGE, Link::Empty);
    shows(&app, &["nothing runs now", "no nodes yet", "Nothing is wrong."]);
    press(&mut app, &["6"]);
    shows(&app, &["asking the orchestrator"]);
    let mut app = seen(LARGE, Link::Lost);
    press(&mut app, &["2"]);
    shows(&app, &["6 nodes · by NODE · STALE"]);
}

#[test]
fn ascii_screens_are_ascii() {
    for key in ["1", "2", "4", "5", "6"] {
        let mut app = seen(LARGE, Link::Live);
        app.caps.ascii = true;
        press(&mut app, &[key]);
        if key == "1" {
            // The wide name of a job is not ours to spell: its own view shows what becomes of it.
            press(&mut app, &["/", "l", "l", "a", "m", "a", "Enter"]);
        }
        for line in screen(&app) {
            assert!(line.is_ascii(), "{line}");
        }
    }
}

#[test]
fn a_strangers_words_cannot_leave_their_cell() {
    let mut nodes = world::nodes();
    let offer = nodes[0].offer.as_mut().expect("has one");
    let bad = "a\x1b[2J\nb\u{202e}漢字".to_owned();
    offer.capabilities.region = modchain_types::Text::cut(bad.clone());
    offer.capabilities.gpus = modchain_types::List::cut(
        offer
            .capabilities
            .gpus
            .iter()
            .map(|gpu| modchain_types::GpuInfo { model: modchain_types::Text::cut(bad.clone()), ..gpu.clone() })
            .collect(),
    );
    let mut events = world::events();
    events[0].text = modchain_types::Text::cut(bad);
    events[0].number = 300;
    let mut app = seen(LARGE, Link::Live);
    world::give(&mut app, FromLive::Snapshot(Box::new(world::snapshot(world::jobs(), nodes))));
    world::give(&mut app, FromLive::Events(events));
    open(&mut app, Place::Node(name("zurich-01")));
    shows(&app, &["region    a·[2J·b·"]);
    for keys in [&["1"][..], &["2", "G"], &["4"]] {
        press(&mut app, keys);
        assert!(screen(&app).iter().all(|line| !line.chars().any(|c| c.is_control() || c == '\u{202e}')));
    }
}
