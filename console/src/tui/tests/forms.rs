//! Forms, questions, the palette and the `:` prompt, through the one function that changes the console.

use std::collections::BTreeSet;

use clap::CommandFactory;
use modchain_types::{JobState, Micro};
use modchain_wire::console::{StateDelta, Submitted};
use modchain_wire::view::{OfferView, QuoteView};
use modchain_wire::{FromConsole, ToConsole};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::app::{App, Overlay, Place};
use super::super::command::{HERE, Here};
use super::super::keys::BINDINGS;
use super::super::msg::{Effect, Msg};
use super::super::table::{RowId, TableId};
use super::super::update::{deadline, update};
use super::super::view::draw;
use super::world::{Link, job_id, jobs, list, name, press, seen, wait};
use crate::args::Cli;
use crate::cli::spec::Plan;
use crate::client::live::{AskId, FromLive, LinkState, ToLive};
use crate::exit::Failure;

fn type_text(app: &mut App, text: &str) -> Vec<Effect> {
    text.chars()
        .flat_map(|c| press(app, &[if c == ' ' { "Space".to_owned() } else { c.to_string() }.as_str()]))
        .collect()
}

fn screen(app: &mut App) -> String {
    let mut terminal = Terminal::new(TestBackend::new(app.caps.columns, app.caps.rows)).expect("a screen");
    terminal.draw(|frame| draw(app, frame)).expect("draws");
    app.drawn();
    let buffer = terminal.backend().buffer().clone();
    let width = usize::from(buffer.area.width);
    let cells: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
    cells.chunks(width).map(|row| row.concat()).collect::<Vec<_>>().join("\n")
}

/// What the runtime would answer to a plan.
fn planned(line: &[String]) -> Result<Box<Plan>, Failure> {
    match super::super::command::parse(line)? {
        crate::args::Command::Run(args) => crate::cli::spec::plan_apart(args.job, None, None).map(Box::new),
        _ => Err(Failure::usage("no job")),
    }
}

/// Lets what was typed be looked at: the number of the edit, the command line, and the request for a quote, if there is one.
fn looked(app: &mut App) -> (u64, Vec<String>, Option<AskId>) {
    let effects = wait(app, 301);
    let Some(Effect::Plan(edit, line, _)) = effects.into_iter().find(|effect| matches!(effect, Effect::Plan(..)))
    else {
        panic!("nothing is looked at");
    };
    let asked = update(app, Msg::Planned(edit, planned(&line)));
    let ask = asked.into_iter().find_map(|effect| match effect {
        Effect::Send(ToLive::Ask(id, request)) if matches!(*request, FromConsole::Quote(_)) => Some(id),
        _ => None,
    });
    (edit, line, ask)
}

fn quote(price: u64, available: u64) -> ToConsole {
    let offer = OfferView {
        node: name("zurich-03"),
        price_per_hour: Micro(price),
        minimum: Micro(1),
        run_limit: modchain_types::Span::from_secs(6_000),
        budget_bound: true,
        million_prompt_tokens: None,
        million_output_tokens: None,
        model: None,
    };
    ToConsole::Quote(QuoteView {
        hold: Micro(2_000_000),
        available: Micro(available),
        affordable: available >= 2_000_000,
        offers: list(vec![offer]),
        refusals: list(Vec::new()),
        fee_basis_points: 500,
    })
}

fn answer(app: &mut App, ask: AskId, reply: Result<ToConsole, Failure>) -> Vec<Effect> {
    let asked = Box::new(FromConsole::Whoami(modchain_wire::console::WhoamiQuery { detail: false }));
    update(app, Msg::Live(Box::new(FromLive::Answer(ask, asked, reply.map(Box::new)))))
}

/// A form with a container in it.
fn filled(size: (u16, u16)) -> App {
    let mut app = seen(size, Link::Live);
    press(&mut app, &["3", "n", "Shift-Tab", "Right", "Tab"]);
    type_text(&mut app, "acme/eval:4");
    press(&mut app, &["Tab"]);
    type_text(&mut app, "python 'my eval.py'");
    while !screen(&mut app).contains("the most this job may cost") {
        press(&mut app, &["Tab"]);
    }
    type_text(&mut app, "2.00");
    app
}

#[test]
fn a_form_makes_a_command_line_and_quotes_it_when_nothing_was_typed_for_a_while() {
    for size in [(120, 36), (80, 24), (60, 16)] {
        let mut app = filled(size);
        let plans = |effect: &Effect| matches!(effect, Effect::Plan(..));
        assert!(!wait(&mut app, 299).iter().any(plans), "not while it is typed");
        assert!(deadline(&app).is_some());
        let (_, line, ask) = looked(&mut app);
        assert_eq!(line, ["run", "--image", "acme/eval:4", "--max-cost", "2.00", "--", "python", "my eval.py"]);
        answer(&mut app, ask.expect("asks for a quote"), Ok(quote(1_200_000, 412_700_000)));
        let shown = screen(&mut app);
        for words in ["zurich-03", "412.70 -> 410.70 USDC", "1h40m", "$ modchain run"] {
            assert!(shown.contains(words), "{size:?}: {words}\n{shown}");
        }
    }
}

#[test]
fn an_answer_to_something_older_changes_nothing() {
    let mut app = filled((120, 36));
    let (edit, line, ask) = looked(&mut app);
    type_text(&mut app, "0");
    answer(&mut app, ask.expect("asks"), Ok(quote(9_990_000, 412_700_000)));
    assert!(!screen(&mut app).contains("9.99"), "the price of what is not there any more");
    assert!(update(&mut app, Msg::Planned(edit, planned(&line))).is_empty());
    let (next, _, ask) = looked(&mut app);
    assert_ne!(edit, next);
    answer(&mut app, ask.expect("asks"), Ok(quote(1_200_000, 1_000_000)));
    let shown = screen(&mut app);
    assert!(shown.contains("not enough: 1.00 available, 1.00 USDC missing"), "{shown}");
}

#[test]
fn a_lost_link_and_a_refusal_leave_what_was_typed() {
    let mut app = filled((120, 36));
    looked(&mut app);
    let lost = LinkState::Lost { since: app.now.wall, why: "gone".into(), retry_at: None, tries: 1 };
    update(&mut app, Msg::Live(Box::new(FromLive::Link(lost))));
    assert!(screen(&mut app).contains("The link is down: the price is asked for when it is back."));
    let effects = press(&mut app, &["F5"]);
    let Some(Effect::Submit(ask, _)) = effects.first() else { panic!("submits: {effects:?}") };
    assert!(press(&mut app, &["F5"]).is_empty(), "once");
    answer(&mut app, *ask, Err(Failure::failed("no funds")));
    let shown = screen(&mut app);
    assert!(shown.contains("not submitted: no funds") && shown.contains("acme/eval:4"), "{shown}");
    let effects = press(&mut app, &["F5"]);
    let Some(Effect::Submit(ask, _)) = effects.first() else { panic!("again: {effects:?}") };
    let submitted = Submitted { job: job_id(5), state: JobState::Queued, held: Micro(2_000_000), existing: false };
    answer(&mut app, *ask, Ok(ToConsole::Submitted(submitted)));
    assert!(app.ui.overlay.is_none());
    assert_eq!(app.place(), Place::Jobs);
    assert_eq!(app.ui.table(TableId::Jobs).selected, Some(RowId::Job(job_id(5))));
}

/// The form on an earlier job that a line of `run` describes; what it asked of a language model may not be kept any more.
fn run_again(app: &mut App, line: &[&str], is_kept: bool) {
    let words: Vec<String> = ["run"].iter().chain(line).map(|word| (*word).to_owned()).collect();
    let Plan { spec, blob, .. } = *planned(&words).expect("a job");
    press(app, &["3"]);
    app.ui.table_mut(TableId::Jobs).select_id(&RowId::Job(job_id(1)));
    let effects = press(app, &["r"]);
    let ask = effects.iter().find_map(|effect| match effect {
        Effect::Send(ToLive::Ask(id, request)) if matches!(**request, FromConsole::Spec(_)) => Some(*id),
        _ => None,
    });
    let is_asked = spec.requirements.adapter == modchain_types::Adapter::Llm;
    let view = modchain_wire::console::SpecView { job: job_id(1), spec };
    let effects = answer(app, ask.expect("asks what it was"), Ok(ToConsole::Spec(view)));
    if is_asked {
        let [Effect::Send(ToLive::Ask(ask, request))] = &effects[..] else { panic!("asks for the words: {effects:?}") };
        let blob = blob.expect("what is asked");
        let digest = modchain_types::Digest::of(&blob);
        assert!(matches!(&**request, FromConsole::BlobFetch(fetch) if fetch.digest == digest), "{request:?}");
        let chunk = modchain_wire::agent::BlobChunk { data: modchain_wire::Data::new(blob).expect("is short") };
        let reply = if is_kept { Ok(chunk.into()) } else { Err(Failure::not_found("it is gone")) };
        answer(app, *ask, reply);
        assert!(app.ui.toasts.iter().all(|toast| !toast.text.contains("gone")), "that is no failure");
    }
    assert!(matches!(app.ui.overlay, Some(Overlay::Form(_))));
}

/// Goes to the field with this line of help, and puts a text into it.
fn put(app: &mut App, help: &str, text: &str) {
    while !screen(app).contains(help) {
        press(app, &["Tab"]);
    }
    press(app, &["Ctrl-u"]);
    type_text(app, text);
}

#[test]
fn what_is_cleared_in_a_job_that_is_run_again_is_left_out_and_the_rest_is_not_said() {
    let mut app = seen((120, 36), Link::Live);
    let line = ["-i", "acme/eval:4", "--max-cost", "2", "--node", "zurich-03", "--label", "a=1", "--label", "b=2"];
    run_again(&mut app, &line, true);
    let made = |app: &mut App| -> Vec<String> {
        let effects = wait(app, 301);
        let line = effects.into_iter().find_map(|effect| match effect {
            Effect::Plan(_, line, Some(_)) => Some(line),
            _ => None,
        });
        line.expect("it is looked at")
    };
    put(&mut app, "the one node to use", "");
    let again = || vec!["job".to_owned(), "rerun".to_owned(), job_id(1).to_string()];
    let with = |more: &[&str]| [again(), more.iter().map(|word| (*word).to_owned()).collect()].concat();
    assert_eq!(made(&mut app), with(&["--without", "node"]));
    // A label that is there no more would come back if the others alone were said.
    put(&mut app, "to find the job by", "b=3");
    assert_eq!(made(&mut app), with(&["--without", "node,label", "--label", "b=3"]));
    put(&mut app, "to find the job by", "a=1 b=3");
    assert_eq!(made(&mut app), with(&["--without", "node", "--label", "a=1", "--label", "b=3"]));
    // What it cannot do without says so beside its field.
    put(&mut app, "the most this job may cost", "");
    assert!(screen(&mut app).contains("only another value can take its place"), "{}", screen(&mut app));
}

#[test]
fn what_an_earlier_job_asked_is_in_the_form_and_a_part_of_it_can_change() {
    let mut app = seen((120, 36), Link::Live);
    let line = ["-m", "smollm2:135m", "-p", "why?", "--system", "be short", "--max-cost", "0.05"];
    run_again(&mut app, &line, true);
    let shown = screen(&mut app);
    assert!(shown.contains("[why?") && shown.contains("[be short"), "{shown}");
    put(&mut app, "what to ask", "how?");
    put(&mut app, "how the model is to behave", "");
    let effects = press(&mut app, &["F5"]);
    let Some(Effect::Plan(edit, line, Some(earlier))) = effects.into_iter().next() else { panic!("looks first") };
    assert_eq!(line[3..], ["--without", "system", "--prompt", "how?"].map(str::to_owned));
    let plan = super::super::runtime::planned(&line, Some(earlier), None).expect("a job");
    assert_eq!(&plan.blob.clone().expect("it is sent")[..], br#"{"generate":{"prompt":"how?","system":null}}"#);
    assert!(matches!(update(&mut app, Msg::Planned(edit, Ok(Box::new(plan))))[..], [Effect::Submit(..)]));
}

#[test]
fn settings_of_a_job_for_a_language_model_change_alone_and_what_is_not_kept_any_more_is_named() {
    let mut app = seen((120, 36), Link::Live);
    run_again(&mut app, &["-m", "smollm2:135m", "-p", "hi", "--max-cost", "0.05", "--seed", "7"], false);
    press(&mut app, &["Ctrl-o"]);
    put(&mut app, "how freely it chooses", "0.2");
    put(&mut app, "makes the choice repeatable", "");
    let effects = press(&mut app, &["F5"]);
    let Some(Effect::Plan(edit, line, Some(earlier))) = effects.into_iter().next() else { panic!("looks first") };
    assert_eq!(line[3..], ["--without", "seed", "--temperature", "0.2"].map(str::to_owned));
    let plan = super::super::runtime::planned(&line, Some(earlier), None).expect("a job");
    let effects = update(&mut app, Msg::Planned(edit, Ok(Box::new(plan))));
    let Some(Effect::Submit(ask, plan)) = effects.into_iter().next() else { panic!("submits") };
    assert!(plan.blob.is_none(), "the orchestrator should have what was asked");
    let missing =
        Failure { code: modchain_wire::console::RefusalCode::MissingBlob.word(), ..Failure::failed("no blob") };
    answer(&mut app, ask, Err(missing));
    let shown = screen(&mut app);
    assert!(shown.contains("what was asked of the earlier job is not kept any more"), "{shown}");
}

#[test]
fn submitting_at_once_waits_for_what_was_typed_last() {
    let mut app = filled((80, 24));
    let effects = press(&mut app, &["F5"]);
    let Some(Effect::Plan(edit, line, _)) = effects.into_iter().next() else { panic!("looks first") };
    let effects = update(&mut app, Msg::Planned(edit, planned(&line)));
    assert!(matches!(effects.as_slice(), [Effect::Submit(_, plan)] if plan.spec.max_cost == Micro(2_000_000)));
}

#[test]
fn an_edited_form_is_not_closed_by_one_key() {
    for key in ["Esc", "Ctrl-c"] {
        let mut app = filled((80, 24));
        press(&mut app, &[key]);
        assert!(screen(&mut app).contains("[y/N]"));
        press(&mut app, &["Enter"]);
        assert!(matches!(app.ui.overlay, Some(Overlay::Form(_))), "{key}: Enter stays");
        press(&mut app, &[key, "y"]);
        assert!(app.ui.overlay.is_none());
        press(&mut app, &["n", key]);
        assert!(app.ui.overlay.is_none(), "nothing was typed");
    }
}

#[test]
fn what_is_wrong_with_a_field_stands_beside_it_and_keeps_it_from_being_sent() {
    let mut app = filled((120, 36));
    press(&mut app, &["Ctrl-u"]);
    type_text(&mut app, "-1");
    let shown = screen(&mut app);
    assert!(shown.contains("[-1        ]  `-1` is negative"), "{shown}");
    assert!(press(&mut app, &["F5"]).is_empty());
    update(&mut app, Msg::Paste("1.50\n".into()));
    press(&mut app, &["Home", "Delete", "Delete"]);
    assert!(screen(&mut app).contains("[1.50      ] "));
}

#[test]
fn submitting_without_what_must_be_said_leads_to_its_field() {
    let mut app = seen((120, 36), Link::Live);
    press(&mut app, &["n"]);
    type_text(&mut app, "examples/primes.wat");
    let effects = press(&mut app, &["F5"]);
    let Some(Effect::Plan(edit, line, _)) = effects.into_iter().find(|effect| matches!(effect, Effect::Plan(..)))
    else {
        panic!("it is not looked at");
    };
    update(&mut app, Msg::Planned(edit, planned(&line)));
    assert!(screen(&mut app).contains("see the field Max cost"), "{}", screen(&mut app));
    type_text(&mut app, "0.10");
    let (_, line, _) = looked(&mut app);
    assert_eq!(line, ["run", "--wasm", "examples/primes.wat", "--max-cost", "0.10"]);
}

#[test]
fn a_job_is_described_from_every_view() {
    for view in ["1", "2", "3", "4", "5"] {
        let mut app = seen((120, 36), Link::Live);
        press(&mut app, &[view, "n"]);
        assert!(matches!(app.ui.overlay, Some(Overlay::Form(_))), "view {view}");
    }
}

#[test]
fn a_form_is_edited_as_a_job_file_and_a_mistake_there_loses_nothing() {
    let mut app = filled((120, 36));
    let edited = |app: &mut App| match press(app, &["Ctrl-e"]).pop() {
        Some(Effect::Edit(text)) => text,
        other => panic!("no editor: {other:?}"),
    };
    let text = edited(&mut app);
    assert!(text.contains("image = \"acme/eval:4\"") && text.contains("args = [\"python\", \"my eval.py\"]"), "{text}");
    update(&mut app, Msg::Edited(Ok(text.replace("image", "imgae"))));
    assert!(screen(&mut app).contains("did you mean `image`?"));
    assert!(edited(&mut app).contains("imgae"), "the mistake is there to be mended");
    update(&mut app, Msg::Edited(Ok(format!("{text}\n[env]\nA = \"1 2\"\n"))));
    let (_, line, _) = looked(&mut app);
    assert_eq!(line[1..5], ["--image", "acme/eval:4", "--env", "A=1 2"]);
    let effects = press(&mut app, &["Ctrl-s"]);
    assert!(matches!(effects.as_slice(), [Effect::Write(path, _)] if path.ends_with("job.toml")));
    press(&mut app, &["Ctrl-p"]);
    assert!(screen(&mut app).contains("container.image"));
    press(&mut app, &["Esc"]);
    assert!(matches!(app.ui.overlay, Some(Overlay::Form(_))));
}

#[test]
fn every_flag_that_describes_a_job_has_a_field_and_a_kind_shows_its_own() {
    let command = Cli::command();
    let quote = command.find_subcommand("quote").expect("is there").clone();
    let flags: BTreeSet<String> = quote
        .get_arguments()
        .filter(|flag| !flag.is_global_set() && flag.get_id() != "help")
        .map(|flag| flag.get_long().map_or_else(|| flag.get_id().to_string(), str::to_owned))
        .collect();
    assert_eq!(flags, super::super::view::form::words());
}

#[test]
fn enter_means_no_and_keys_before_the_first_frame_mean_nothing() {
    let mut app = seen((120, 36), Link::Live);
    app.ui.ended = false;
    press(&mut app, &["3", "E", "E"]);
    app.ui.table_mut(TableId::Jobs).select_id(&RowId::Job(job_id(1)));
    press(&mut app, &["x"]);
    assert!(press(&mut app, &["y"]).is_empty(), "it was not on the screen");
    assert!(matches!(app.ui.overlay, Some(Overlay::Confirm(_))));
    screen(&mut app);
    assert!(press(&mut app, &["Enter"]).is_empty());
    assert!(app.ui.overlay.is_none());
    press(&mut app, &["x"]);
    screen(&mut app);
    let effects = press(&mut app, &["y"]);
    assert!(
        matches!(&effects[..], [Effect::Send(ToLive::Ask(_, request))] if matches!(&**request, FromConsole::Cancel(cancel) if cancel.job.as_str() == job_id(1).to_string()))
    );
}

#[test]
fn a_question_about_a_job_that_has_ended_only_closes() {
    let mut app = seen((120, 36), Link::Live);
    press(&mut app, &["3"]);
    app.ui.table_mut(TableId::Jobs).select_id(&RowId::Job(job_id(1)));
    press(&mut app, &["x"]);
    screen(&mut app);
    let mut ended = jobs();
    ended.truncate(1);
    ended[0].state = JobState::Completed;
    update(
        &mut app,
        Msg::Live(Box::new(FromLive::Delta(Box::new(StateDelta {
            prev: 100,
            upto: 101,
            jobs: list(ended),
            nodes: list(Vec::new()),
            account: None,
            events: list(Vec::new()),
            gone: list(Vec::new()),
        })))),
    );
    assert!(screen(&mut app).contains("has ended meanwhile"));
    assert!(press(&mut app, &["y"]).is_empty());
    press(&mut app, &["Esc"]);
    assert!(app.ui.overlay.is_none());
}

#[test]
fn several_jobs_are_cancelled_by_typing_their_count() {
    let mut app = seen((120, 36), Link::Live);
    press(&mut app, &["3", "E", "*", "x"]);
    let shown = screen(&mut app);
    assert!(shown.contains("Cancel 4 jobs?"), "{shown}");
    assert!(press(&mut app, &["y", "Enter"]).is_empty());
    press(&mut app, &["x"]);
    screen(&mut app);
    assert_eq!(press(&mut app, &["4", "Enter"]).len(), 4);
}

fn commanded(app: &mut App, line: &str) -> Vec<Effect> {
    press(app, &[":"]);
    type_text(app, line);
    press(app, &["Enter"])
}

fn said(app: &App) -> String {
    app.ui.toasts.last().map(|toast| toast.text.clone()).unwrap_or_default()
}

#[test]
fn commands_go_where_they_say() {
    let mut app = seen((120, 36), Link::Live);
    commanded(&mut app, "jobs state:running");
    assert_eq!((app.place(), app.ui.table(TableId::Jobs).order.len()), (Place::Jobs, 1));
    commanded(&mut app, "node zurich-01");
    assert_eq!(app.place(), Place::Node(name("zurich-01")));
    commanded(&mut app, "logs llama-eval");
    assert_eq!(app.place(), Place::Output(job_id(1)));
    commanded(&mut app, &format!("job {}", job_id(2).short()));
    assert_eq!(app.place(), Place::Job(job_id(2)));
    assert!(matches!(&commanded(&mut app, "ctx staging")[..], [Effect::UseContext(name)] if name == "staging"));
    assert!(matches!(commanded(&mut app, "mouse on")[..], [Effect::Mouse(true)]));
    assert!(matches!(commanded(&mut app, "q")[..], [Effect::Quit(0)]));
    for (line, complaint) in [
        ("jbos", "did you mean `jobs`?"),
        ("node zurch-01", "did you mean `zurich-01`?"),
        ("theme drak", "did you mean `dark`?"),
        ("doctor", "`doctor` is for a shell"),
        ("cancel nothing", "no job `nothing` is known here"),
        ("run --max-cots 1", "--max-cots"),
        ("jobs 'open", "is not closed"),
    ] {
        assert!(commanded(&mut app, line).is_empty());
        assert!(said(&app).contains(complaint), "{line}: {}", said(&app));
    }
}

#[test]
fn dangerous_commands_ask_whatever_flags_they_have() {
    for (line, title) in [
        ("cancel -y llama-eval", "Cancel job?"),
        ("modchain node drain zurich-01 --deadline 10m -y", "after 10m00s moves"),
        ("token revoke mzxw6ytb", "Revoke token?"),
        ("cert revoke node/rig-1", "Put out for good?"),
    ] {
        let mut app = seen((120, 36), Link::Live);
        assert!(commanded(&mut app, line).is_empty(), "{line}");
        let shown = screen(&mut app);
        assert!(shown.contains(title), "{line}\n{shown}");
        assert!(press(&mut app, &["Enter"]).is_empty());
        assert!(app.ui.overlay.is_none());
    }
}

#[test]
fn tab_completes_words_ids_and_names() {
    let mut app = seen((120, 36), Link::Live);
    for (typed, completed) in [
        ("canc", "cancel "),
        ("node dr", "node drain "),
        ("node drain zurich-01", "node drain zurich-01 "),
        ("ctx st", "ctx staging "),
        ("logs llama", "logs llama-eval "),
        ("run --max-c", "run --max-cost "),
        ("job rer", "job rerun "),
    ] {
        press(&mut app, &[":"]);
        type_text(&mut app, typed);
        press(&mut app, &["Tab"]);
        assert_eq!(app.ui.prompt.as_ref().expect("open").input.value(), completed);
        press(&mut app, &["Esc"]);
    }
}

#[test]
fn the_palette_finds_actions_jobs_and_nodes() {
    let mut app = seen((80, 24), Link::Live);
    press(&mut app, &["Ctrl-p"]);
    type_text(&mut app, "zur01");
    press(&mut app, &["Enter"]);
    assert_eq!(app.place(), Place::Node(name("zurich-01")));
    press(&mut app, &["Ctrl-p"]);
    type_text(&mut app, "llama");
    assert!(screen(&mut app).contains("llama-eval"));
    press(&mut app, &["Enter"]);
    assert_eq!(app.place(), Place::Job(job_id(1)));
    press(&mut app, &["Ctrl-p"]);
    type_text(&mut app, "new job");
    press(&mut app, &["Enter"]);
    assert!(matches!(app.ui.overlay, Some(Overlay::Form(_))));
}

#[test]
fn a_recording_and_a_read_only_console_change_nothing() {
    for (replay, read_only) in [(true, false), (false, true)] {
        let mut app = seen((120, 36), Link::Live);
        (app.caps.replay, app.caps.read_only) = (replay, read_only);
        press(&mut app, &["3"]);
        for line in [
            "run --wasm x --max-cost 1",
            "cancel llama-eval",
            "credit alice 1",
            "token create --role node",
            "node cordon zurich-01",
        ] {
            assert!(commanded(&mut app, line).is_empty(), "{line}");
            assert!(app.ui.overlay.is_none(), "{line}");
        }
        assert!(press(&mut app, &["n", "r", "x"]).is_empty());
        assert!(app.ui.overlay.is_none());
    }
}

#[test]
fn a_token_is_shown_once_and_copied_alone() {
    use super::super::msg::{Drawn, Secret};
    let mut app = seen((80, 24), Link::Live);
    let effects = commanded(&mut app, "token create --role node --name rig-1");
    let [Effect::DrawToken(edit, line)] = &effects[..] else { panic!("draws: {effects:?}") };
    assert_eq!(line[..2], ["token", "create"]);
    let token = app.mirror.tokens.as_ref().expect("some")[0].clone();
    let request = modchain_wire::console::TokenCreate {
        token: token.id,
        verifier: [0; 32],
        role: modchain_types::Role::Node,
        name: None,
        account: None,
        rejoin: false,
        ttl: modchain_types::Span::from_secs(900),
    };
    let secret = Secret(zeroize::Zeroizing::new("MCJ1-secret".repeat(10)));
    assert!(!format!("{secret:?}").contains("MCJ1"));
    let drawn = Drawn { secret, request, join: "orch:7444".into() };
    let effects = update(&mut app, Msg::Drawn(*edit, Ok(Box::new(drawn))));
    assert!(!screen(&mut app).contains("MCJ1"), "not before the orchestrator knows it");
    let [Effect::Send(ToLive::Ask(ask, _))] = &effects[..] else { panic!("asks: {effects:?}") };
    answer(&mut app, *ask, Ok(ToConsole::Token(token)));
    let shown = screen(&mut app);
    assert!(shown.contains("MCJ1-secret") && shown.contains("modchain-agent join --orchestrator orch:7444"), "{shown}");
    assert!(matches!(&press(&mut app, &["y"])[..], [Effect::Copy(text)] if text.starts_with("MCJ1-secretMCJ1")));
    press(&mut app, &["Enter"]);
    assert!(app.ui.overlay.is_some(), "not closed by accident");
    press(&mut app, &["Esc"]);
    assert!(!screen(&mut app).contains("MCJ1"));
    assert!(!app.ui.log.iter().any(|(_, _, said)| said.contains("MCJ1-secret")));
}

#[test]
fn a_token_that_a_form_asks_for_is_shown_as_well_and_nothing_is_typed_meanwhile() {
    use super::super::msg::{Drawn, Secret};
    let mut app = seen((100, 40), Link::Live);
    press(&mut app, &["6", "n"]);
    let effects = press(&mut app, &["F5"]);
    let [Effect::DrawToken(edit, _)] = &effects[..] else { panic!("draws: {effects:?}") };
    let token = app.mirror.tokens.as_ref().expect("some")[0].clone();
    let request = modchain_wire::console::TokenCreate {
        token: token.id,
        verifier: [0; 32],
        role: modchain_types::Role::Node,
        name: None,
        account: None,
        rejoin: false,
        ttl: modchain_types::Span::from_secs(900),
    };
    let drawn = || {
        let secret = Secret(zeroize::Zeroizing::new("MCJ1-secret".repeat(10)));
        Drawn { secret, request: request.clone(), join: "orch:7444".into() }
    };
    let effects = update(&mut app, Msg::Drawn(*edit, Ok(Box::new(drawn()))));
    let [Effect::Send(ToLive::Ask(ask, _))] = &effects[..] else { panic!("asks: {effects:?}") };
    // Whatever is typed while it is on its way would make another form of it, whose answer nobody waits for.
    assert!(press(&mut app, &["Tab", "x", "F5"]).is_empty());
    let refusal = Failure::conflict("no such account");
    answer(&mut app, *ask, Err(refusal));
    assert!(screen(&mut app).contains("no such account"), "the form is there still");
    let effects = press(&mut app, &["F5"]);
    let [Effect::DrawToken(edit, _)] = &effects[..] else { panic!("draws: {effects:?}") };
    let effects = update(&mut app, Msg::Drawn(*edit, Ok(Box::new(drawn()))));
    let [Effect::Send(ToLive::Ask(ask, _))] = &effects[..] else { panic!("asks: {effects:?}") };
    answer(&mut app, *ask, Ok(ToConsole::Token(token)));
    let shown = screen(&mut app);
    assert!(shown.contains("MCJ1-secret") && shown.contains("modchain-agent join --orchestrator orch:7444"), "{shown}");
}

#[test]
fn every_command_has_a_place_here_and_every_place_a_command() {
    let mut commands = BTreeSet::new();
    for command in Cli::command().get_subcommands() {
        let beneath: Vec<_> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
        // `job` alone is `job show`.
        if beneath.is_empty() || command.get_name() == "job" {
            commands.insert(command.get_name().to_owned());
        }
        commands.extend(beneath.iter().map(|below| format!("{} {}", command.get_name(), below.get_name())));
    }
    let placed: BTreeSet<String> = HERE.iter().map(|(command, _)| (*command).to_owned()).collect();
    assert_eq!(placed.len(), HERE.len(), "one place each");
    let homeless: Vec<_> = commands.difference(&placed).collect();
    assert!(homeless.is_empty(), "no place for {homeless:?}");
    let gone: Vec<_> = placed.difference(&commands).collect();
    assert!(gone.is_empty(), "places for commands that there are not: {gone:?}");
    for (command, here) in HERE {
        match here {
            Here::Key(action) => assert!(BINDINGS.iter().any(|binding| binding.action == *action), "{command}"),
            Here::Not(why) => assert!(why.len() > 10, "{command}"),
            Here::Prompt => {}
        }
        if matches!(here, Here::Not(_)) {
            continue;
        }
        // It is known after a colon too: it may lack something, but it is there.
        let mut app = seen((120, 36), Link::Live);
        commanded(&mut app, command);
        assert!(!said(&app).contains("there is no command"), "{command}: {}", said(&app));
    }
}

#[test]
fn every_key_that_changes_something_has_a_command() {
    use super::super::command::changes;
    for binding in BINDINGS {
        if let Some(command) = changes(binding.action) {
            assert!(HERE.iter().any(|(known, _)| *known == command), "{:?}: {command}", binding.action);
        }
        assert!(!binding.dangerous || changes(binding.action).is_some(), "{:?} is dangerous", binding.action);
    }
}
