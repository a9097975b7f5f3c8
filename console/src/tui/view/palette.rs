//! The palette, which finds every action and every object by a few of its letters, and the commands of the `:` prompt.

use clap::CommandFactory;
use modchain_types::{JobId, Name};
use ratatui::Frame;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use unicode_width::UnicodeWidthStr;

use super::super::act;
use super::super::app::{App, Ctx, Overlay, Place, Tone, View};
use super::super::command::{self, HERE};
use super::super::keys::{Action, BINDINGS};
use super::super::layout::Layout;
use super::super::msg::Effect;
use super::super::table::{TableId, cut};
use super::super::theme::{Role, Theme, ThemeName};
use super::super::update::{go, open, perform, set_filter, type_into};
use crate::args::Cli;
use crate::client::config::nearest;
use crate::text;

/// Most finds that are kept.
const FOUND_MAX: usize = 200;
/// Offers that are shown beside what is typed.
const OFFERS_MAX: usize = 6;

/// The palette while it is open.
#[derive(Debug, Default)]
pub(crate) struct Palette {
    input: tui_input::Input,
    found: Vec<Find>,
    selected: usize,
    looked: bool,
}

/// Something that was found.
#[derive(Debug, Clone)]
struct Find {
    score: i32,
    /// What it is called.
    text: String,
    /// What kind of thing it is, or its key.
    detail: String,
    does: Does,
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Does {
    Action(Action),
    Job(JobId),
    Node(Name),
    Context(String),
}

/// How well letters fit into a text, in their order: more for the beginnings of words and for letters side by side. `None` if they do not.
pub(crate) fn score(letters: &str, text: &str) -> Option<i32> {
    let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    let mut total = 0;
    let mut at = 0;
    let mut last: Option<usize> = None;
    for letter in letters.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase) {
        let begins = |place: usize| place == 0 || !text[place - 1].is_alphanumeric();
        let next = (at..text.len()).find(|place| text[*place] == letter)?;
        // The beginning of a later word is meant rather than a letter in the middle of this one, unless they go on side by side.
        let side_by_side = last.is_some_and(|last| next == last + 1);
        let word = (next..text.len()).find(|place| text[*place] == letter && begins(*place));
        let place = if side_by_side { next } else { word.unwrap_or(next) };
        total += match (begins(place), last.is_some_and(|last| place == last + 1)) {
            (_, true) => 8,
            (true, false) => 6,
            (false, false) => 1,
        };
        (at, last) = (place + 1, Some(place));
    }
    // Of two that fit alike, the shorter is meant.
    Some(total * 16 - i32::try_from(text.len()).unwrap_or(i32::MAX / 2).min(400))
}

/// Finds everything that fits.
fn find(app: &App, letters: &str) -> Vec<Find> {
    let mut found = Vec::new();
    let mut take = |text: String, more: &str, detail: String, does: Does, bonus: i32| {
        let whole = if more.is_empty() { text.clone() } else { format!("{text} {more}") };
        if let Some(score) = score(letters, &whole) {
            found.push(Find { score: score + bonus, text, detail, does });
        }
    };
    let mut seen = Vec::new();
    for scope in app.scopes() {
        for binding in BINDINGS.iter().filter(|binding| binding.scope == scope) {
            let hidden = matches!(binding.action, Action::Palette | Action::Interrupt);
            if hidden || seen.contains(&binding.action) {
                continue;
            }
            seen.push(binding.action);
            let key = app.caps.keymap.keys(scope, binding.action).first().copied().unwrap_or_default().to_owned();
            take(binding.help.to_owned(), "", key, Does::Action(binding.action), 40);
        }
    }
    for context in &app.caps.contexts {
        take(text::one_line(context), "", "context".into(), Does::Context(context.clone()), 0);
    }
    // With nothing typed, thousands of objects are no help.
    if !letters.trim().is_empty() {
        for (name, node) in &app.mirror.nodes {
            take(name.to_string(), "", format!("node, {}", node.state), Does::Node(name.clone()), 10);
        }
        for job in app.mirror.jobs.values() {
            let called = super::jobs::called(job);
            take(job.id.short(), &called, format!("job, {}", job.state.word()), Does::Job(job.id), 0);
        }
    }
    found.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| a.text.cmp(&b.text)));
    found.truncate(FOUND_MAX);
    for find in &mut found {
        if let Does::Job(id) = find.does
            && let Some(job) = app.mirror.jobs.get(&id)
        {
            find.text = format!("{}  {}", find.text, super::jobs::called(job));
        }
    }
    found
}

/// Opens it.
pub(crate) fn open_palette(app: &mut App) {
    let found = find(app, "");
    app.ui.overlay = Some(Overlay::Palette(Palette { found, looked: true, ..Palette::default() }));
}

/// Takes a key.
pub(crate) fn key(app: &mut App, key: &str) -> Vec<Effect> {
    let Some(Overlay::Palette(palette)) = &mut app.ui.overlay else { return Vec::new() };
    match key {
        "Esc" => app.ui.overlay = None,
        "Down" | "Ctrl-n" | "Tab" => {
            palette.selected = (palette.selected + 1).min(palette.found.len().saturating_sub(1))
        }
        "Up" | "Ctrl-p" | "Shift-Tab" => palette.selected = palette.selected.saturating_sub(1),
        "Enter" => {
            let does = palette.found.get(palette.selected).map(|find| find.does.clone());
            app.ui.overlay = None;
            return match does {
                Some(Does::Action(action)) => perform(app, action),
                Some(Does::Job(job)) => {
                    open(app, Place::Job(job));
                    Vec::new()
                }
                Some(Does::Node(node)) => {
                    open(app, Place::Node(node));
                    Vec::new()
                }
                Some(Does::Context(name)) => vec![Effect::UseContext(name)],
                None => Vec::new(),
            };
        }
        key => {
            if type_into(&mut palette.input, key) {
                let letters = palette.input.value().to_owned();
                let found = find(app, &letters);
                if let Some(Overlay::Palette(palette)) = &mut app.ui.overlay {
                    (palette.found, palette.selected, palette.looked) = (found, 0, true);
                }
            }
        }
    }
    Vec::new()
}

/// Does what was typed after `:`.
pub(crate) fn command(app: &mut App, text: &str) -> Vec<Effect> {
    let words = match command::split(text) {
        Ok(words) => words,
        Err(why) => {
            app.toast(Tone::Bad, why);
            return Vec::new();
        }
    };
    // A line may be pasted as it stands in a shell.
    let words = if words.first().is_some_and(|word| word == "modchain") { words[1..].to_vec() } else { words };
    let Some(first) = words.first().cloned() else { return Vec::new() };
    let rest: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let outcome = match (first.as_str(), rest.as_slice()) {
        ("q" | "quit", []) => Ok(vec![Effect::Quit(crate::exit::OK)]),
        ("overview" | "status", []) => Ok(go(app, View::Overview)),
        ("account" | "ledger", filter) => Ok(filtered(app, View::Account, filter)),
        ("jobs", filter) => Ok(filtered(app, View::Jobs, filter)),
        ("nodes", filter) => Ok(filtered(app, View::Nodes, filter)),
        ("events", filter) => Ok(filtered(app, View::Events, filter)),
        ("access", []) | ("token" | "cert", ["list", ..]) => Ok(go(app, View::Access)),
        ("view", [name]) => view(app, name),
        ("job" | "wait", [job]) | ("job", ["show", job]) => opened(app, job, Place::Job),
        ("job", ["explain", job]) => match opened(app, job, Place::Job) {
            Ok(_) => Ok(super::job::explain(app)),
            Err(why) => Err(why),
        },
        ("job", ["events", job]) => match act::job_named(app, job) {
            Ok(id) => Ok(filtered(app, View::Events, &[&format!("job:{id}")])),
            Err(why) => Err(why),
        },
        ("logs", [job]) => opened(app, job, Place::Output),
        ("node", [node]) | ("node", ["show", node]) => act::node_named(app, node).map(|node| {
            open(app, Place::Node(node));
            Vec::new()
        }),
        ("ctx" | "context", []) | ("context", ["list"]) => {
            super::picker::open_contexts(app);
            Ok(Vec::new())
        }
        ("ctx", [name]) | ("context", ["use", name]) => match app.caps.contexts.iter().any(|known| known == name) {
            true => Ok(vec![Effect::UseContext((*name).to_owned())]),
            false => Err(unknown("context", name, app.caps.contexts.iter().map(String::as_str))),
        },
        ("theme", []) => Ok(perform(app, Action::Theme)),
        ("theme", [name]) => theme(app, name),
        ("mouse", ["on"]) => Ok(mouse(app, true)),
        ("mouse", ["off"]) => Ok(mouse(app, false)),
        ("export", []) => Ok(super::export::export(app)),
        ("export", [path]) => Ok(super::export::export_to(app, Some(path.into()))),
        ("help", _) => Ok(perform(app, Action::Help)),
        ("log", []) => Ok(perform(app, Action::Log)),
        ("whoami", []) => {
            let said = match &app.mirror.me {
                Some(me) => format!(
                    "{} {}, account {}, at {}",
                    me.identity.role, me.identity.name, me.identity.account, me.address
                ),
                None => "not connected yet".to_owned(),
            };
            app.toast(Tone::Info, said);
            Ok(Vec::new())
        }
        ("version", _) => {
            let there = app.mirror.me.as_ref().map(|me| format!(", orchestrator {}", me.version)).unwrap_or_default();
            app.toast(Tone::Info, format!("modchain {}{there}", env!("CARGO_PKG_VERSION")));
            Ok(Vec::new())
        }
        ("run", []) => Ok(super::form::new_job(app)),
        ("run" | "quote" | "cancel" | "credit", _)
        | ("node", ["cordon" | "uncordon" | "drain" | "resume", ..])
        | ("token", ["create" | "revoke", ..])
        | ("cert", ["revoke", ..])
        | ("job", ["rerun" | "spec", ..]) => Ok(act::perform_line(app, words.clone(), None)),
        (word, _) => Err(not_here(word, &words)),
    };
    outcome.unwrap_or_else(|why| {
        app.toast(Tone::Bad, why);
        Vec::new()
    })
}

/// Why a command is none here.
fn not_here(word: &str, words: &[String]) -> String {
    let line = words.join(" ");
    let known = HERE.iter().find(|(command, _)| line == *command || line.starts_with(&format!("{command} ")));
    match known {
        Some((command, command::Here::Not(why))) => format!("`{command}` is for a shell: {why}"),
        Some(_) => format!("`{line}` lacks something or has too much: Tab completes"),
        None => unknown("command", word, first_words().into_iter()),
    }
}

fn unknown<'a>(what: &str, word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = nearest(word, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!("there is no {what} `{word}`{near}")
}

fn filtered(app: &mut App, view: View, filter: &[&str]) -> Vec<Effect> {
    go(app, view);
    app.ui.opened.entry(view).or_default().clear();
    app.ui.focus.insert(view, super::first_focus(&view.root()));
    if !filter.is_empty() {
        let words: Vec<String> = filter
            .iter()
            .map(|word| if word.contains(' ') { format!("\"{word}\"") } else { (*word).to_owned() })
            .collect();
        if let Some(fault) = set_filter(app, &words.join(" ")) {
            app.toast(Tone::Bad, fault);
        }
    }
    Vec::new()
}

fn view(app: &mut App, name: &str) -> Result<Vec<Effect>, String> {
    let wanted = View::ALL.into_iter().find(|view| view.names().0.eq_ignore_ascii_case(name));
    match wanted {
        Some(view) => Ok(go(app, view)),
        None => Err(unknown("view", name, View::ALL.iter().map(|view| view.names().0))),
    }
}

fn opened(app: &mut App, job: &str, place: impl Fn(JobId) -> Place) -> Result<Vec<Effect>, String> {
    let id = act::job_named(app, job)?;
    open(app, place(id));
    Ok(Vec::new())
}

fn theme(app: &mut App, name: &str) -> Result<Vec<Effect>, String> {
    match ThemeName::ALL.into_iter().find(|theme| theme.word() == name) {
        Some(name) => {
            app.ui.theme = Theme { name };
            Ok(Vec::new())
        }
        None => Err(unknown("theme", name, ThemeName::ALL.iter().map(|theme| theme.word()))),
    }
}

fn mouse(app: &mut App, on: bool) -> Vec<Effect> {
    app.ui.mouse = on;
    vec![Effect::Mouse(on)]
}

/// The first words of all commands that work here.
fn first_words() -> Vec<&'static str> {
    let own = ["q", "overview", "access", "view", "ctx", "theme", "mouse", "export", "log"];
    let commands = HERE.iter().filter(|(_, here)| !matches!(here, command::Here::Not(_)));
    let mut words: Vec<&'static str> =
        own.into_iter().chain(commands.filter_map(|(command, _)| command.split(' ').next())).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// What could stand in the place of the last word.
pub(crate) fn offers(app: &App, typed: &str) -> Vec<String> {
    let (before, last) = match typed.rfind(' ') {
        Some(space) => (&typed[..space], &typed[space + 1..]),
        None => ("", typed),
    };
    let words: Vec<&str> = before.split_whitespace().collect();
    let jobs = || {
        let jobs = app.mirror.jobs.values();
        let names = app
            .mirror
            .jobs
            .values()
            .filter(|job| !job.name.is_empty() && !job.name.as_str().contains(char::is_whitespace));
        let ids = jobs.map(|job| job.id.short()).chain(["@last".to_owned()]);
        ids.chain(names.map(|job| text::one_line(&job.name))).collect::<Vec<_>>()
    };
    let nodes = || app.mirror.nodes.keys().map(ToString::to_string).collect::<Vec<_>>();
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let candidates: Vec<String> = match words.as_slice() {
        [] => list(&first_words()),
        _ if last.starts_with('-') => flags(&words),
        ["ctx"] | ["context", "use"] => app.caps.contexts.clone(),
        ["theme"] => ThemeName::ALL.iter().map(|theme| theme.word().to_owned()).collect(),
        ["mouse"] => list(&["on", "off"]),
        ["view"] => View::ALL.iter().map(|view| view.names().0.to_lowercase()).collect(),
        ["logs" | "wait"] | ["cancel", ..] | ["job", "show" | "explain" | "events" | "rerun" | "spec"] => jobs(),
        ["node", "show" | "cordon" | "uncordon" | "drain" | "resume", ..] => nodes(),
        ["token", "revoke", ..] => app.mirror.tokens.iter().flatten().map(|token| token.id.to_string()).collect(),
        ["cert", "revoke", ..] => {
            let members = app.mirror.identities.iter().flatten();
            members.map(|member| format!("{}/{}", member.identity.role, member.identity.name)).collect()
        }
        [first] => {
            let beneath = HERE.iter().filter_map(|(command, _)| command.strip_prefix(&format!("{first} ")));
            let mut words: Vec<String> = beneath.map(str::to_owned).collect();
            match *first {
                "job" => words.extend(jobs()),
                "node" => words.extend(nodes()),
                "jobs" => words.extend(column_words(TableId::Jobs)),
                "nodes" => words.extend(column_words(TableId::Nodes)),
                "events" => words.extend(column_words(TableId::Events)),
                _ => {}
            }
            words
        }
        _ => Vec::new(),
    };
    let mut offers: Vec<String> = candidates.into_iter().filter(|word| word.starts_with(last)).collect();
    offers.dedup();
    offers.truncate(OFFERS_MAX);
    offers
}

fn column_words(id: TableId) -> Vec<String> {
    super::column_names(id).into_iter().map(|(key, _)| format!("{key}:")).collect()
}

/// The flags of a command.
fn flags(words: &[&str]) -> Vec<String> {
    let mut command = Cli::command();
    for word in words {
        let Some(next) = command.find_subcommand(word).cloned() else { break };
        command = next;
    }
    let flags = command.get_arguments().filter(|flag| !flag.is_hide_set());
    flags.filter_map(|flag| flag.get_long().map(|long| format!("--{long}"))).collect()
}

/// Completes what was typed after `:`: as far as all that could be meant agree.
pub(crate) fn complete(app: &mut App) {
    let Some(prompt) = &app.ui.prompt else { return };
    let typed = prompt.input.value().to_owned();
    let offers = offers(app, &typed);
    let Some(first) = offers.first() else { return };
    let common = offers.iter().skip(1).fold(first.clone(), |common, offer| {
        common.chars().zip(offer.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    let start = typed.rfind(' ').map_or(0, |space| space + 1);
    let end = if offers.len() == 1 && !common.ends_with(':') { " " } else { "" };
    let text = format!("{}{common}{end}", &typed[..start]);
    if let Some(prompt) = &mut app.ui.prompt
        && text.len() > typed.len()
    {
        prompt.input = text.into();
    }
}

/// Draws it.
pub(crate) fn draw(_app: &App, ctx: &Ctx<'_>, layout: &Layout, frame: &mut Frame<'_>, palette: &Palette) {
    let width = layout.body.width.saturating_sub(8).min(72);
    let height = layout.body.height.saturating_sub(4).clamp(3, 22);
    let inner = super::dialog(ctx, layout, frame, (width, height), "Find anything");
    let columns = usize::from(inner.width);
    let value = super::form::shown_text(palette.input.value(), ctx.glyphs.ascii);
    let (shown, column) = super::form::shown_window(&value, palette.input.cursor(), columns.saturating_sub(3));
    let mut lines = vec![Line::from(vec![Span::styled("> ", ctx.theme.style(Role::Key)), Span::raw(shown)])];
    let rows = usize::from(inner.height).saturating_sub(1);
    let top = (palette.selected + 1).saturating_sub(rows);
    if palette.found.is_empty() && palette.looked {
        lines.push(Line::styled("  nothing fits", ctx.theme.style(Role::Dim)));
    }
    for (place, find) in palette.found.iter().enumerate().skip(top).take(rows) {
        let sign = if place == palette.selected { "> " } else { "  " };
        let text = ctx.glyphs.plain(&find.text);
        let role = if place == palette.selected { Role::Selected } else { Role::Text };
        let fill = columns.saturating_sub(text.width() + find.detail.width() + 3);
        let left = cut(
            Line::styled(format!("{sign}{text}"), ctx.theme.style(role)),
            columns.saturating_sub(find.detail.width() + 1),
        );
        let mut spans = left.spans;
        spans.push(Span::raw(" ".repeat(fill)));
        spans.push(Span::styled(format!(" {}", find.detail), ctx.theme.style(Role::Dim)));
        lines.push(cut(Line::from(spans), columns));
    }
    frame.render_widget(Paragraph::new(lines), inner);
    let at = inner.x + u16::try_from(column + 2).unwrap_or(0);
    if at < inner.right() {
        frame.set_cursor_position((at, inner.y));
    }
}

#[cfg(test)]
mod tests {
    use super::score;

    #[test]
    fn letters_find_beginnings_of_words_first() {
        assert_eq!(score("xyz", "new job"), None);
        assert!(score("nj", "new job") > score("nj", "an injection"));
        assert!(score("job", "job j-7f") > score("job", "j o b"));
        assert!(score("z3", "zurich-03").is_some());
        assert!(score("NEW", "new job") == score("new", "new job"));
        assert!(score("", "anything").is_some());
        assert!(score("lo", "local") > score("lo", "local-second"), "the shorter of two that fit alike");
    }
}
