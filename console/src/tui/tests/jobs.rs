//! The page of a job, its columns, why it waits, the output that is followed, cancelling, and older jobs.

use modchain_types::*;
use modchain_wire::agent::GpuSample;
use modchain_wire::console::{JobsPage, JobsQuery, StateDelta};
use modchain_wire::view::{AttemptView, ExplanationView, JobView, NodeVerdictView, NodeView, QueueView};
use modchain_wire::{FromConsole, ToConsole};

use super::super::app::{App, Overlay, Place};
use super::super::msg::Effect;
use super::super::table::{RowId, TableId};
use super::super::update::{deadline, open};
use super::super::view::cells;
use super::world::*;
use crate::client::live::{AskId, FromLive, LinkState, LogItem, ToLive};
use crate::exit::Failure;

const LARGE: Size = (120, 36);

/// A live console that looks at the jobs.
fn at_jobs(size: Size) -> App {
    let mut app = seen(size, Link::Live);
    press(&mut app, &["3"]);
    app
}

/// Selects a job of the table.
fn select(app: &mut App, job: JobId) {
    assert!(app.ui.table_mut(TableId::Jobs).select_id(&RowId::Job(job)));
}

/// A job changes, or comes.
fn change(app: &mut App, job: JobView) -> Vec<Effect> {
    let prev = app.mirror.mark.expect("a snapshot").upto;
    give(
        app,
        FromLive::Delta(Box::new(StateDelta {
            prev,
            upto: prev + 1,
            jobs: list(vec![job]),
            nodes: List::default(),
            gone: List::default(),
            account: None,
            events: List::default(),
        })),
    )
}

/// The requests among effects, each with its name.
fn requests(effects: Vec<Effect>) -> Vec<(AskId, FromConsole)> {
    let request =
        |effect| if let Effect::Send(ToLive::Ask(id, request)) = effect { Some((id, *request)) } else { None };
    effects.into_iter().filter_map(request).collect()
}

/// What is followed and given up among effects.
fn followed(effects: &[Effect]) -> Vec<(&'static str, JobId)> {
    let follows = effects.iter().filter_map(|effect| match effect {
        Effect::Send(ToLive::Follow(job, _)) => Some(("follow", *job)),
        Effect::Send(ToLive::Unfollow(job)) => Some(("unfollow", *job)),
        _ => None,
    });
    follows.collect()
}

fn answer(app: &mut App, (id, request): (AskId, FromConsole), reply: Result<ToConsole, Failure>) -> Vec<Effect> {
    give(app, FromLive::Answer(id, Box::new(request), reply.map(Box::new)))
}

#[test]
fn the_page_of_a_running_job_says_what_it_is_what_it_costs_and_where_it_runs() {
    let mut app = at_jobs(LARGE);
    open(&mut app, Place::Job(job_id(1)));
    shows(
        &app,
        &[
            "● running on zurich-03 for 12m08s",
            "name       llama-eval",
            "runs       docker ghcr.io/acme/eval:4 python eval.py",
            "node       zurich-03",
            "gpus       1x A100",
            "output     93.7 KiB out, 120 B err",
            "labels     sweep=a",
            "cost       0.24 USDC so far",
            "held       2.00 USDC",
            "price      1.20 USDC/h",
            "started    2026-11-22 13:51:13, 12m ago",
            "1 of 3     running on zurich-03, assigned",
            "submitted, 2.00 USDC held",
        ],
    );
    // What a job says of itself is a stranger's text.
    let mut job = jobs()[0].clone();
    job.message = text("the node says \u{1b}[31mno\u{1b}[0m");
    change(&mut app, job);
    let lines = screen(&app);
    assert!(lines.iter().any(|line| line.contains("the node says")), "{}", lines.join("\n"));
    assert!(!lines.iter().any(|line| line.contains('\u{1b}')));
}

#[test]
fn the_page_of_an_ended_job_says_how_it_ended_and_what_came_back() {
    let mut app = at_jobs(LARGE);
    open(&mut app, Place::Job(job_id(3)));
    shows(
        &app,
        &["✓ completed 0 on oslo-07", "exit       0 from job, exit", "cost       1.37 USDC", "came back  0.63 USDC"],
    );
    assert!(!screen(&app).iter().any(|line| line.contains("so far")));
    // One that was moved shows both attempts, each with its own time.
    let mut job = jobs()[2].clone();
    let first = job.attempts[0].clone();
    let later = |secs| first.assigned_at.plus(Span::from_secs(secs));
    job.usage.ran = Span::from_secs(7);
    job.attempts = list(vec![
        AttemptView {
            state: JobState::Failed,
            reason: Some(Reason::NodeLost),
            message: text("it went away"),
            started_at: Some(later(2)),
            ended_at: Some(later(5)),
            ..first.clone()
        },
        AttemptView {
            number: 2,
            state: JobState::Completed,
            started_at: Some(later(9)),
            ended_at: Some(later(99)),
            ..first.clone()
        },
    ]);
    change(&mut app, job.clone());
    shows(&app, &["1 of 3     failed on oslo-07 (node_lost)", "took 3.0s: it went"]);
    // How long it took there is more than how long it ran, which is what its node measured.
    shows(&app, &["2 of 3     completed on oslo-07", "took 1m30s", "✓ completed 0 on oslo-07, ran 7.0s"]);
    // Two moments that are the same are no nothing.
    job.usage.ran = Span::ZERO;
    (job.started_at, job.ended_at) = (Some(later(9)), Some(later(9)));
    change(&mut app, job);
    let lines = screen(&app);
    assert!(!lines.iter().any(|line| line.contains("0.0ms")), "{}", lines.join("\n"));
}

#[test]
fn a_job_that_never_had_a_node_says_so_and_one_that_has_just_begun_has_run_for_no_time_yet() {
    let mut app = at_jobs(LARGE);
    let mut job = jobs()[1].clone();
    (job.state, job.reason) = (JobState::Expired, Some(Reason::Expired));
    job.ended_at = Some(NOW);
    change(&mut app, job);
    open(&mut app, Place::Job(job_id(2)));
    shows(&app, &["node       it never had one", "none yet, of at most 3", "reason     expired"]);
    let mut job = jobs()[0].clone();
    job.started_at = Some(NOW);
    change(&mut app, job);
    open(&mut app, Place::Job(job_id(1)));
    shows(&app, &["● running on zurich-03 for 0s", "ran        0s"]);
}

#[test]
fn the_page_scrolls_to_its_end_and_no_further_and_is_copied() {
    let mut app = at_jobs((60, 16));
    open(&mut app, Place::Job(job_id(1)));
    press(&mut app, &["j", "j"]);
    assert_eq!(app.ui.job_top, Some((job_id(1), 2)));
    press(&mut app, &["G", "j", "j", "PgDn"]);
    let end = app.ui.job_top;
    shows(&app, &["submitted, 2.00 USDC held"]);
    press(&mut app, &["k", "g", "g", "k"]);
    assert_eq!(app.ui.job_top, Some((job_id(1), 0)));
    assert!(end.is_some_and(|(_, top)| top > 10), "{end:?}");
    // The place in one page is none in another.
    press(&mut app, &["G"]);
    open(&mut app, Place::Job(job_id(3)));
    shows(&app, &["✓ completed"]);
    let copied = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| if let Effect::Copy(text) = effect { Some(text) } else { None })
    };
    assert_eq!(copied(press(&mut app, &["c"])), Some(job_id(3).to_string()));
    let json = copied(press(&mut app, &["y"])).expect("a document");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["id"], job_id(3).to_string());
    // There is nothing to look for here, so the key does nothing.
    press(&mut app, &["/"]);
    assert!(app.ui.prompt.is_none());
}

#[test]
fn a_job_that_is_not_known_is_asked_for_once_and_the_reason_why_it_is_not_there_is_shown() {
    let mut app = at_jobs(LARGE);
    open(&mut app, Place::Job(job_id(200)));
    shows(&app, &["asking for the job"]);
    let sent = requests(wait(&mut app, 1));
    let [one] = &sent[..] else { panic!("{sent:?}") };
    assert!(matches!(&one.1, FromConsole::Job(query) if *query.job == *job_id(200).to_string()), "{one:?}");
    assert!(requests(wait(&mut app, 1_000)).is_empty(), "it was asked already");
    answer(&mut app, one.clone(), Err(Failure::not_found("there is no such job")));
    shows(&app, &["there is no such job", "Esc goes back"]);
    assert!(requests(wait(&mut app, 1_000)).is_empty(), "the answer is one");
    press(&mut app, &["Esc"]);
    assert_eq!(app.place(), Place::Jobs);
    // One that is there is shown, and stays.
    open(&mut app, Place::Job(job_id(201)));
    let sent = requests(wait(&mut app, 1));
    let found = JobView { id: job_id(201), name: text("found"), ..jobs()[2].clone() };
    answer(&mut app, sent[0].clone(), Ok(found.into()));
    shows(&app, &["name       found"]);
}

#[test]
fn the_load_of_a_job_is_that_of_its_own_gpus() {
    let mut app = at_jobs(LARGE);
    let column = |app: &App, job: JobId, name: &str| {
        let cells = cells(app, TableId::Jobs);
        let place = cells[0].iter().position(|title| title == name).expect("a column");
        let row = cells.iter().find(|row| row[0] == job.to_string()).expect("a row");
        row[place].clone()
    };
    // It holds the first of two, which are 92 and 91 % busy.
    assert_eq!(column(&app, job_id(1), "gpu"), "92");
    assert_eq!(column(&app, job_id(2), "gpu"), "-", "it waits");
    assert_eq!(column(&app, job_id(3), "gpu"), "-", "it has ended and holds none any more");
    let change_node = |app: &mut App, change: &dyn Fn(&mut NodeView)| {
        let mut node = nodes()[1].clone();
        change(&mut node);
        let prev = app.mirror.mark.expect("a snapshot").upto;
        let delta = StateDelta {
            prev,
            upto: prev + 1,
            jobs: List::default(),
            nodes: list(vec![node]),
            gone: List::default(),
            account: None,
            events: List::default(),
        };
        give(app, FromLive::Delta(Box::new(delta)));
    };
    let busy = |share| GpuSample { busy_pct: share, ..nodes()[1].gpus[0] };
    // Both of them: the mean.
    let mut job = jobs()[0].clone();
    job.gpus = list(vec![(text("GPU-zurich-03-0"), text("A100")), (text("GPU-zurich-03-1"), text("A100"))]);
    change(&mut app, job);
    change_node(&mut app, &|node| node.gpus = list(vec![busy(Some(80)), busy(Some(20))]));
    assert_eq!(column(&app, job_id(1), "gpu"), "50");
    // What a GPU does not tell is left out, and what nobody tells is not known.
    change_node(&mut app, &|node| node.gpus = list(vec![busy(Some(80)), busy(None)]));
    assert_eq!(column(&app, job_id(1), "gpu"), "80");
    change_node(&mut app, &|node| node.gpus = list(vec![busy(None), busy(None)]));
    assert_eq!(column(&app, job_id(1), "gpu"), "?");
    change_node(&mut app, &|node| node.state = NodeState::Lost);
    assert_eq!(column(&app, job_id(1), "gpu"), "?", "a node that is lost says nothing");
}

#[test]
fn output_is_asked_for_when_the_selection_rests_and_given_up_when_it_goes_on() {
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(2));
    wait(&mut app, 10);
    let mut sent = Vec::new();
    // A selection that runs over the rows asks for nothing.
    for key in ["j", "k", "j", "j", "k", "k"] {
        sent.extend(followed(&press(&mut app, &[key])));
        app.now.ms += 20;
    }
    assert_eq!(sent, []);
    let Some(RowId::Job(rests)) = app.ui.table(TableId::Jobs).selected.clone() else { panic!("a job") };
    let due = deadline(&app).expect("it is waited for");
    assert!(due <= app.now.ms + 150, "{due}");
    assert_eq!(followed(&wait(&mut app, 150)), [("follow", rests)]);
    assert_eq!(followed(&wait(&mut app, 1_000)), [], "once is enough");
    // Elsewhere, it is given up at once and the other one is asked for after a rest.
    let effects = press(&mut app, &["j"]);
    assert_eq!(followed(&effects), [("unfollow", rests)]);
    let Some(RowId::Job(next)) = app.ui.table(TableId::Jobs).selected.clone() else { panic!("a job") };
    assert_eq!(followed(&wait(&mut app, 200)), [("follow", next)]);
    // Another view has no output.
    assert_eq!(followed(&press(&mut app, &["2"])), [("unfollow", next)]);
    // What is opened was meant.
    let effects = press(&mut app, &["3", "l"]);
    assert_eq!(followed(&effects), [("follow", next)]);
}

#[test]
fn output_that_is_all_here_or_was_refused_is_not_asked_for_again() {
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(3));
    assert_eq!(followed(&wait(&mut app, 200)), []);
    assert_eq!(followed(&wait(&mut app, 200)), [("follow", job_id(3))]);
    let ended = jobs()[2].clone();
    give(&mut app, FromLive::Log(job_id(3), LogItem::End(Box::new(ended))));
    select(&mut app, job_id(4));
    wait(&mut app, 200);
    wait(&mut app, 200);
    give(&mut app, FromLive::Log(job_id(4), LogItem::Refused(Failure::not_found("its output is not kept any more"))));
    shows(&app, &["its output is not kept any more"]);
    for job in [3, 4, 3, 4] {
        select(&mut app, job_id(job));
        let mut effects = wait(&mut app, 200);
        effects.extend(wait(&mut app, 200));
        let asked: Vec<_> = followed(&effects).into_iter().filter(|(what, _)| *what == "follow").collect();
        assert_eq!(asked, [], "{job}");
    }
    // Who opens it means to see it, and hears the same once.
    let effects = press(&mut app, &["l"]);
    assert_eq!(followed(&effects), [("follow", job_id(4))]);
    give(&mut app, FromLive::Log(job_id(4), LogItem::Refused(Failure::not_found("its output is not kept any more"))));
    let lines = screen(&app);
    assert_eq!(lines.iter().filter(|line| line.contains("not kept any more")).count(), 1, "{}", lines.join("\n"));
}

#[test]
fn a_lost_link_keeps_what_is_followed_and_a_page_says_that_it_is_old() {
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(1));
    wait(&mut app, 200);
    wait(&mut app, 200);
    assert!(app.ui.followed.contains(&job_id(1)));
    let lost = LinkState::Lost { since: NOW, why: "gone".into(), retry_at: None, tries: 0 };
    assert_eq!(followed(&give(&mut app, FromLive::Link(lost))), [], "the link goes on with it by itself");
    press(&mut app, &["Enter"]);
    shows(&app, &["STALE", "LINK LOST"]);
}

fn explanation(job: JobView) -> ExplanationView {
    ExplanationView {
        job,
        summary: text("it waits: none of 2 nodes fits; 2 jobs go before it; it starts within 1h"),
        queue: Some(QueueView { ahead: 2, ahead_own: 0, priority: 0, counts_as: 0, starts_within: None }),
        nodes: list(vec![NodeVerdictView {
            node: name("zurich-01"),
            fits: false,
            reasons: list(vec![text("gpus: 2 asked, it has 1 free")]),
            price_per_hour: None,
        }]),
    }
}

#[test]
fn why_a_job_waits_is_asked_for_and_shown_with_the_command_that_says_the_same() {
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(2));
    let sent = requests(press(&mut app, &["e"]));
    let [one] = &sent[..] else { panic!("{sent:?}") };
    assert!(matches!(&one.1, FromConsole::Explain(query) if *query.job == *job_id(2).to_string()), "{one:?}");
    assert!(app.ui.overlay.is_none(), "nothing opens before the answer");
    answer(&mut app, one.clone(), Ok(explanation(jobs()[1].clone()).into()));
    shows(
        &app,
        &[
            &format!("Why {} is where it is", job_id(2).short()),
            "queued: it waits: none of 2 nodes fits",
            "2 jobs go before it; it starts within 1h",
            "zurich-01  gpus: 2 asked, it has 1 free",
            &format!("modchain job explain {}", job_id(2)),
        ],
    );
    press(&mut app, &["Esc"]);
    assert!(app.ui.overlay.is_none());
    // An explanation that nobody asked for here, such as that of another window, opens nothing.
    answer(&mut app, one.clone(), Ok(explanation(jobs()[1].clone()).into()));
    assert!(app.ui.overlay.is_none());
    // One that does not come is said, and the next one opens again.
    let sent = requests(press(&mut app, &["e"]));
    answer(&mut app, sent[0].clone(), Err(Failure::not_found("there is no such job")));
    shows(&app, &["there is no such job"]);
    let sent = requests(press(&mut app, &["e"]));
    answer(&mut app, sent[0].clone(), Ok(explanation(jobs()[1].clone()).into()));
    assert!(matches!(app.ui.overlay, Some(Overlay::Reader(_))));
}

#[test]
fn an_explanation_does_not_cover_what_is_being_written_and_a_recording_shows_what_it_has() {
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(2));
    let sent = requests(press(&mut app, &["e"]));
    press(&mut app, &["n"]);
    assert!(matches!(app.ui.overlay, Some(Overlay::Form(_))));
    answer(&mut app, sent[0].clone(), Ok(explanation(jobs()[1].clone()).into()));
    assert!(matches!(app.ui.overlay, Some(Overlay::Form(_))), "what is written stays");
    shows(&app, &["it waits: none of 2 nodes fits"]);
    app.ui.overlay = None;
    app.caps.replay = true;
    assert!(requests(press(&mut app, &["e"])).is_empty());
    assert!(matches!(app.ui.overlay, Some(Overlay::Reader(_))), "it came before");
    press(&mut app, &["Esc"]);
    select(&mut app, job_id(1));
    press(&mut app, &["e"]);
    shows(&app, &["nobody asked that while it was made"]);
}

#[test]
fn a_job_that_is_being_cancelled_shows_that_this_is_on_its_way_until_the_answer() {
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(1));
    press(&mut app, &["x"]);
    shows(&app, &["Cancel job?", "llama-eval on zurich-03", &format!("modchain cancel -y {}", job_id(1))]);
    app.drawn();
    let sent = requests(press(&mut app, &["y"]));
    let [one] = &sent[..] else { panic!("{sent:?}") };
    assert!(matches!(&one.1, FromConsole::Cancel(cancel) if *cancel.job == *job_id(1).to_string()), "{one:?}");
    let row = |app: &App| {
        let lines = screen(app);
        lines.iter().find(|line| line.contains("llama-eval")).cloned().unwrap_or_else(|| lines.join("\n"))
    };
    assert!(row(&app).contains("… sending"), "{}", row(&app));
    assert_eq!(screen(&app).iter().filter(|line| line.contains("… sending")).count(), 1, "of this job alone");
    let stopping = JobView { state: JobState::Cancelling, ..jobs()[0].clone() };
    answer(&mut app, one.clone(), Ok(stopping.into()));
    assert!(!row(&app).contains("sending") && row(&app).contains("cancelling"), "{}", row(&app));
}

#[test]
fn several_jobs_are_cancelled_by_their_number_and_one_that_has_ended_meanwhile_by_nothing() {
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(1));
    press(&mut app, &["Space"]);
    select(&mut app, job_id(6));
    press(&mut app, &["Space", "x"]);
    app.drawn();
    assert!(requests(press(&mut app, &["y", "Enter"])).is_empty(), "a word is wanted, not a key");
    press(&mut app, &["x"]);
    app.drawn();
    let sent = requests(press(&mut app, &["2", "Enter"]));
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(screen(&app).iter().filter(|line| line.contains("… sending")).count(), 2);
    // What is asked about ends while it is asked.
    let mut app = at_jobs(LARGE);
    select(&mut app, job_id(1));
    press(&mut app, &["x"]);
    app.drawn();
    change(&mut app, JobView { state: JobState::Completed, ended_at: Some(NOW), ..jobs()[0].clone() });
    shows(&app, &["has ended meanwhile: completed"]);
    assert!(requests(press(&mut app, &["y"])).is_empty());
}

/// The id of the so manieth of many jobs.
fn many_id(number: u16) -> JobId {
    let mut bytes = [0x77; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    JobId(bytes)
}

/// An ended job; the higher its number, the older it is.
fn many(number: u16) -> JobView {
    let created_at = WallTime(NOW.0 - 3_600_000 - i64::from(number) * 1_000);
    JobView { id: many_id(number), created_at, ended_at: Some(created_at), ..jobs()[2].clone() }
}

/// A console whose snapshot had so many ended jobs.
fn with_ended(count: u16) -> App {
    let mut app = console((110, 24));
    give(&mut app, FromLive::Link(LinkState::Live));
    give(&mut app, FromLive::Welcome(Box::new(welcome())));
    give(&mut app, FromLive::Snapshot(Box::new(snapshot((0..count).map(many).collect(), nodes()))));
    press(&mut app, &["3"]);
    app
}

/// The question for older jobs among requests.
fn older(sent: Vec<(AskId, FromConsole)>) -> Option<(AskId, FromConsole, JobsQuery)> {
    let mut found = sent.into_iter().filter_map(|(id, request)| match &request {
        FromConsole::Jobs(query) => {
            let query = query.clone();
            Some((id, request, query))
        }
        _ => None,
    });
    let first = found.next();
    assert!(found.next().is_none(), "one page at a time");
    first
}

#[test]
fn older_jobs_come_page_by_page_at_the_end_of_the_list() {
    let mut app = with_ended(200);
    shows(&app, &["200+ jobs"]);
    assert!(older(requests(press(&mut app, &["j"]))).is_none(), "the end is far");
    let (id, request, query) = older(requests(press(&mut app, &["G"]))).expect("a page is asked for");
    assert_eq!((query.after, query.ended), (Some(many_id(199)), true));
    assert!(older(requests(press(&mut app, &["G"]))).is_none(), "it is on its way");
    let page = |from: u16, to: u16, more| JobsPage { items: list((from..to).map(many).collect()), total: 310, more };
    answer(&mut app, (id, request), Ok(page(200, 300, true).into()));
    wait(&mut app, 2_000);
    assert_eq!(app.ui.table(TableId::Jobs).order.len(), 300);
    assert_eq!(app.ui.table(TableId::Jobs).selected, Some(RowId::Job(many_id(199))), "the selection stays");
    shows(&app, &["300+ jobs"]);
    let (id, request, query) = older(requests(press(&mut app, &["G"]))).expect("the next page");
    assert_eq!(query.after, Some(many_id(299)));
    // A page that does not come is asked for again by the next key.
    answer(&mut app, (id, request), Err(Failure::lost("gone")));
    assert!(older(requests(wait(&mut app, 10))).is_none(), "not by itself");
    let (id, request, query) = older(requests(press(&mut app, &["G"]))).expect("the same page");
    assert_eq!(query.after, Some(many_id(299)));
    answer(&mut app, (id, request), Ok(page(300, 310, false).into()));
    wait(&mut app, 2_000);
    shows(&app, &["310 jobs"]);
    assert!(older(requests(press(&mut app, &["G"]))).is_none(), "that are all");
}

#[test]
fn nobody_asks_for_older_jobs_where_there_are_none_or_they_are_not_wanted() {
    // A snapshot that had fewer than it may have had all.
    let mut app = with_ended(199);
    shows(&app, &["199 jobs"]);
    assert!(older(requests(press(&mut app, &["G"]))).is_none());
    // Ended ones are hidden, the screen stands still, or another pane has the keys.
    let mut app = with_ended(200);
    press(&mut app, &["E"]);
    assert!(older(requests(press(&mut app, &["G"]))).is_none());
    let mut app = with_ended(200);
    press(&mut app, &["p"]);
    assert!(older(requests(press(&mut app, &["G"]))).is_none());
    let mut app = with_ended(200);
    app.caps.replay = true;
    shows(&app, &["200 jobs"]);
    assert!(older(requests(press(&mut app, &["G"]))).is_none());
}
