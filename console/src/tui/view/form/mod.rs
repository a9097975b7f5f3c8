//! Forms: a new job, a token, a credit. A form makes a command line, shows it, and what that line means is what it does. Nothing that was
//! typed is lost by a bad answer or a lost link: the form stays until it was done, or was closed on purpose.

mod field;
mod job;
mod member;
mod paint;

use modchain_types::JobId;
use modchain_wire::ToConsole;
use modchain_wire::console::{QuoteRequest, SpecQuery};
use modchain_wire::view::QuoteView;

use super::super::act::{self, Errand, Use};
use super::super::app::{App, Ask, Overlay, Tone};
use super::super::command;
use super::super::msg::Effect;
use super::super::update::type_into;
use super::reader::Reader;
use crate::cli::job_file::JobFile;
use crate::cli::spec::{Earlier, Left, Plan};
use crate::client::live::ToLive;
use crate::exit::Failure;
use field::{Control, Field, Value};
use job::JobForm;

pub(crate) use field::{visible as shown_text, window as shown_window};
pub(crate) use paint::draw;

/// What is typed is looked at when nothing was typed for so long.
const QUIET_MS: u64 = 300;
/// The file that a job is kept in.
const JOB_FILE: &str = "job.toml";

/// A form while it is open.
#[derive(Debug)]
pub(crate) struct Form {
    purpose: Purpose,
    fields: Vec<Field>,
    focus: Stop,
    /// Fields that are rarely needed are shown too.
    all: bool,
    /// Something was typed that is nowhere else.
    edited: bool,
    /// It is asked whether that may be lost.
    leaving: bool,
    /// Which edit this is: answers to older ones are not looked at.
    edit: u64,
    /// When this edit is looked at.
    due_ms: Option<u64>,
    check: Check,
    /// It is submitted as soon as it is known what it is.
    submit: bool,
    /// It was submitted, and there is no answer yet.
    sent: bool,
    /// Why it could not be submitted.
    fault: Option<String>,
}

/// What a form is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A job.
    Job(JobForm),
    /// A token.
    Token,
    /// A credit.
    Credit,
}

/// What has the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// A field, by its place in the table.
    Field(usize),
    /// A button.
    Button(Button),
}

/// The buttons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Button {
    Submit,
    Save,
    Cancel,
}

/// What is known of what was typed.
#[derive(Debug)]
enum Check {
    /// Nothing yet.
    None,
    /// It makes no sense.
    Bad(Failure),
    /// It makes a job; and what the orchestrator says of it.
    Planned(Box<Plan>, Option<Result<Box<QuoteView>, Failure>>),
}

impl Form {
    fn new(app: &mut App, purpose: Purpose, fields: Vec<Field>) -> Self {
        let mut form = Self {
            purpose,
            fields,
            focus: Stop::Field(0),
            all: false,
            edited: false,
            leaving: false,
            edit: app.next_edit(),
            due_ms: None,
            check: Check::None,
            submit: false,
            sent: false,
            fault: None,
        };
        // What runs is typed first: its kind is mostly the one that is chosen.
        if form.fields.first().is_some_and(|field| field.spec.word == "type") {
            form.step(true);
        }
        form
    }

    /// The fields that the chosen kind has, shown or not: the command line is made of them.
    fn shown(&self) -> impl Iterator<Item = &Field> {
        self.places().into_iter().filter_map(|place| self.fields.get(place))
    }

    fn places(&self) -> Vec<usize> {
        let kind = job::kind(&self.fields);
        let is_job = matches!(self.purpose, Purpose::Job(_));
        let fits = |field: &Field| !is_job || field.spec.kinds.contains(kind);
        (0..self.fields.len()).filter(|place| fits(&self.fields[*place])).collect()
    }

    /// The places of the fields that are on the screen: what is rare only where it says something, or all are wanted.
    fn on_screen(&self) -> Vec<usize> {
        let wanted = |field: &Field| self.all || !field.spec.rare || field.says();
        self.places().into_iter().filter(|place| wanted(&self.fields[*place])).collect()
    }

    /// The field on the screen whose flag the failure names, in its hint or else in its message.
    fn meant_by(&self, failure: &Failure) -> Option<usize> {
        let texts = failure.hint.iter().chain([&failure.message]);
        let flags = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
        let mut words = flags.filter_map(|word| word.strip_prefix("--"));
        words.find_map(|word| self.on_screen().into_iter().find(|place| self.fields[*place].spec.word == word))
    }

    fn buttons(&self) -> &'static [Button] {
        match self.purpose {
            Purpose::Job(_) => &[Button::Submit, Button::Save, Button::Cancel],
            Purpose::Token | Purpose::Credit => &[Button::Submit, Button::Cancel],
        }
    }

    fn stops(&self) -> Vec<Stop> {
        let fields = self.on_screen().into_iter().map(Stop::Field);
        fields.chain(self.buttons().iter().map(|button| Stop::Button(*button))).collect()
    }

    fn step(&mut self, forward: bool) {
        let stops = self.stops();
        let at = stops.iter().position(|stop| *stop == self.focus).unwrap_or(0);
        let next = if forward { at + 1 } else { at + stops.len() - 1 };
        self.focus = stops[next % stops.len()];
    }

    fn focused(&mut self) -> Option<&mut Field> {
        match self.focus {
            Stop::Field(place) => self.fields.get_mut(place),
            Stop::Button(_) => None,
        }
    }

    /// The command line that does the same, without the program's name.
    fn line(&self) -> Result<Vec<String>, String> {
        match &self.purpose {
            Purpose::Job(job) => job::line(self, job),
            Purpose::Token | Purpose::Credit => {
                let start: &[&str] = match self.purpose {
                    Purpose::Token => &["token", "create"],
                    Purpose::Credit | Purpose::Job(_) => &["credit"],
                };
                let mut line: Vec<String> = start.iter().map(|word| (*word).to_owned()).collect();
                for field in &self.fields {
                    line.extend(field.words().map_err(|why| format!("{}: {why}", field.spec.label))?);
                }
                Ok(line)
            }
        }
    }

    /// Looks at one field alone, with the parser of the command line.
    fn look_at(&mut self, place: usize) {
        let Some(field) = self.fields.get(place) else { return };
        let fault = match field.words() {
            Err(why) => Some(why),
            Ok(words) if words.is_empty() || field.spec.control == Control::Rest => None,
            Ok(words) => {
                let start: &[&str] = match (&self.purpose, field.spec.word) {
                    (Purpose::Job(_), _) => &["quote"],
                    (Purpose::Token, "role") => &["token", "create"],
                    (Purpose::Token, "rejoin") => &["token", "create", "--role", "node", "--name", "a"],
                    (Purpose::Token, _) => &["token", "create", "--role", "node"],
                    (Purpose::Credit, "account") => &["credit"],
                    (Purpose::Credit, "amount") => &["credit", "a"],
                    (Purpose::Credit, _) => &["credit", "a", "1"],
                };
                let mut line: Vec<String> = start.iter().map(|word| (*word).to_owned()).collect();
                line.extend(words);
                if matches!(self.purpose, Purpose::Credit) && field.spec.word == "account" {
                    line.push("1".to_owned());
                }
                // The value stands beside it already.
                let bare = |failure: Failure| match failure.message.split_once(">': ") {
                    Some((_, why)) => why.to_owned(),
                    None => failure.message,
                };
                command::parse(&line).err().map(bare)
            }
        };
        if let Some(field) = self.fields.get_mut(place) {
            field.fault = fault;
        }
    }
}

/// Opens the form of a new job.
pub(crate) fn new_job(app: &mut App) -> Vec<Effect> {
    if act::refuses(app) {
        return Vec::new();
    }
    let mut fields: Vec<Field> = job::FIELDS.iter().map(Field::new).collect();
    if let (Some(cap), Some(field)) = (app.caps.max_cost, fields.iter_mut().find(|field| field.spec.word == "max-cost"))
    {
        field.set(&cap.to_string());
    }
    let form = Form::new(app, Purpose::Job(JobForm::default()), fields);
    app.ui.overlay = Some(Overlay::Form(Box::new(form)));
    Vec::new()
}

/// Opens it filled in from the job that is selected.
pub(crate) fn run_again(app: &mut App) -> Vec<Effect> {
    match act::target_jobs(app).first() {
        Some(job) => again(app, *job),
        None => Vec::new(),
    }
}

/// Asks what a job was submitted with; the form opens when that is known.
pub(crate) fn again(app: &mut App, job: JobId) -> Vec<Effect> {
    if act::refuses(app) {
        return Vec::new();
    }
    app.toast(Tone::Info, format!("asking what {} was submitted with", job.short()));
    let query = SpecQuery { job: modchain_types::Text::cut(job.to_string()) };
    act::errand(app, Errand::Spec(Use::Form), Some(query.into()))
}

/// Opens the form on what a job was submitted with.
pub(crate) fn open_again(app: &mut App, earlier: Box<Earlier>) -> Vec<Effect> {
    if app.ui.overlay.is_some() {
        app.toast(Tone::Info, format!("{} can be run again: close this first, then r", earlier.job().short()));
        return Vec::new();
    }
    let fields = job::again(&earlier);
    let mut form = Form::new(app, Purpose::Job(JobForm { earlier: Some(earlier), draft: None }), fields);
    form.due_ms = Some(app.now.ms);
    app.ui.overlay = Some(Overlay::Form(Box::new(form)));
    due(app)
}

/// Runs the sample job at once.
pub(crate) fn sample(app: &mut App) -> Vec<Effect> {
    match app.caps.sample.clone() {
        Some(line) => act::run_at_once(app, line, true),
        None => {
            app.toast(Tone::Info, "there is a sample job under `modchain up`; n describes one of your own");
            Vec::new()
        }
    }
}

/// Opens the form of a credit.
pub(crate) fn credit(app: &mut App) -> Vec<Effect> {
    open(app, Purpose::Credit, member::CREDIT)
}

/// Opens the form of a token.
pub(crate) fn token(app: &mut App) -> Vec<Effect> {
    open(app, Purpose::Token, member::TOKEN)
}

fn open(app: &mut App, purpose: Purpose, specs: &'static [field::Spec]) -> Vec<Effect> {
    if act::refuses(app) {
        return Vec::new();
    }
    let form = Form::new(app, purpose, specs.iter().map(Field::new).collect());
    app.ui.overlay = Some(Overlay::Form(Box::new(form)));
    Vec::new()
}

fn form_of(app: &mut App) -> Option<&mut Form> {
    match &mut app.ui.overlay {
        Some(Overlay::Form(form)) => Some(form),
        // It lies below what is read, and goes on when that is closed.
        Some(Overlay::Reader(reader)) => reader.below.as_deref_mut(),
        Some(Overlay::Help(_) | Overlay::Confirm(_) | Overlay::Picker(_) | Overlay::Palette(_)) | None => None,
    }
}

/// A command line was looked at.
pub(crate) fn planned(app: &mut App, edit: u64, plan: Result<Plan, Failure>) -> Vec<Effect> {
    match form_of(app) {
        Some(form) if form.edit == edit => match plan {
            Ok(plan) => {
                let spec = plan.spec.clone();
                form.check = Check::Planned(Box::new(plan), None);
                if std::mem::take(&mut form.submit) {
                    return submit(app);
                }
                let ask = app.ask(Ask { what: String::new(), edit: Some(edit), about: None });
                vec![Effect::Send(ToLive::Ask(ask, Box::new(QuoteRequest { spec }.into())))]
            }
            Err(failure) => {
                if std::mem::take(&mut form.submit)
                    && let Some(place) = form.meant_by(&failure)
                {
                    form.focus = Stop::Field(place);
                }
                form.check = Check::Bad(failure);
                Vec::new()
            }
        },
        // An answer to something older, or to no form.
        _ => act::planned(app, edit, plan),
    }
}

/// An answer came that may be the form's.
pub(crate) fn answered(app: &mut App, ask: &Ask, reply: &Result<Box<ToConsole>, Failure>) -> Vec<Effect> {
    let Some(edit) = ask.edit else { return Vec::new() };
    let Some(form) = form_of(app).filter(|form| form.edit == edit) else {
        return act::answered(app, ask, edit, reply);
    };
    let quotes = ask.what.is_empty();
    match (reply, &mut form.check) {
        (Ok(reply), Check::Planned(_, quote)) if quotes => {
            if let ToConsole::Quote(view) = &**reply {
                *quote = Some(Ok(Box::new(view.clone())));
            }
        }
        (Err(failure), Check::Planned(_, quote)) if quotes => *quote = Some(Err(failure.clone())),
        (_, Check::None | Check::Bad(_)) if quotes => {}
        (Err(failure), check) => {
            let left = if let Check::Planned(plan, _) = check { plan.left } else { None };
            form.sent = false;
            form.fault = Some(Left::missed(left, failure.clone()).said());
            // A token that was not taken is nobody's: the next try draws another.
            app.ui.errands.remove(&edit);
        }
        (Ok(answer), _) => {
            app.ui.overlay = None;
            if let ToConsole::Submitted(submitted) = &**answer {
                act::show_submitted(app, submitted.job);
            }
            if app.ui.errands.contains_key(&edit) {
                // What was drawn for it is shown now, and never again.
                return act::answered(app, ask, edit, reply);
            }
        }
    }
    Vec::new()
}

/// The key of a submit could not be written down: nothing was sent.
pub(crate) fn not_submitted(app: &mut App, ask: crate::client::live::AskId, failure: &Failure) -> Vec<Effect> {
    let Some(ask) = app.ui.asks.remove(&ask) else { return Vec::new() };
    let edit = ask.edit.unwrap_or_default();
    match form_of(app).filter(|form| form.edit == edit) {
        Some(form) => {
            form.sent = false;
            form.fault = Some(failure.said());
        }
        None => {
            app.ui.errands.remove(&edit);
            app.toast(Tone::Bad, failure.said());
        }
    }
    Vec::new()
}

/// An editor was closed.
pub(crate) fn edited(app: &mut App, text: Result<String, Failure>) -> Vec<Effect> {
    let now = app.now.ms;
    let Some(form) = form_of(app) else { return Vec::new() };
    let Purpose::Job(job) = &mut form.purpose else { return Vec::new() };
    let parsed = text.and_then(|text| {
        let parsed = JobFile::parse(&text, JOB_FILE, std::path::Path::new(""));
        // It is there again when the editor is opened again.
        job.draft = parsed.is_err().then_some(text);
        parsed
    });
    match parsed {
        Ok(file) => {
            job::fill(&mut form.fields, &file, &std::collections::BTreeMap::new(), None);
            form.fault = None;
            changed(app, None, now);
        }
        Err(failure) => form.fault = Some(format!("{}; ^E opens it again", failure.said())),
    }
    Vec::new()
}

/// Something was typed.
fn changed(app: &mut App, place: Option<usize>, now: u64) {
    let edit = app.next_edit();
    let Some(form) = form_of(app) else { return };
    (form.edit, form.edited, form.fault, form.submit) = (edit, true, None, false);
    match place {
        Some(place) => form.look_at(place),
        None => (0..form.fields.len()).for_each(|place| form.look_at(place)),
    }
    if matches!(form.purpose, Purpose::Job(_)) {
        form.due_ms = Some(now + QUIET_MS);
    }
}

/// Its time has come: what was typed is looked at.
pub(crate) fn due(app: &mut App) -> Vec<Effect> {
    let now = app.now.ms;
    match form_of(app) {
        Some(form) if form.due_ms.is_some_and(|due| due <= now) => look(app),
        _ => Vec::new(),
    }
}

/// Looks at what was typed, as a whole.
fn look(app: &mut App) -> Vec<Effect> {
    let Some(form) = form_of(app) else { return Vec::new() };
    form.due_ms = None;
    match form.line() {
        Ok(line) => {
            let earlier = match &form.purpose {
                Purpose::Job(job) => job.earlier.clone(),
                Purpose::Token | Purpose::Credit => None,
            };
            // Nothing is there to be wrong yet.
            if earlier.is_none()
                && !form.shown().any(|field| field.spec.word != "max-cost" && field.spec.word != "type" && field.says())
            {
                form.check = Check::None;
                return Vec::new();
            }
            vec![Effect::Plan(form.edit, line, earlier)]
        }
        Err(why) => {
            form.submit = false;
            form.check = Check::Bad(Failure::usage(why));
            Vec::new()
        }
    }
}

/// When that is.
pub(crate) fn deadline(app: &App) -> Option<u64> {
    match &app.ui.overlay {
        Some(Overlay::Form(form)) => form.due_ms,
        Some(Overlay::Reader(reader)) => reader.below.as_ref().and_then(|form| form.due_ms),
        _ => None,
    }
}

/// Submits it: at once if it is known what it is, else as soon as it is.
fn submit(app: &mut App) -> Vec<Effect> {
    let Some(form) = form_of(app) else { return Vec::new() };
    if form.sent {
        return Vec::new();
    }
    if let Some(place) = form.on_screen().into_iter().find(|place| form.fields[*place].fault.is_some()) {
        form.focus = Stop::Field(place);
        return Vec::new();
    }
    form.fault = None;
    let line = match form.line() {
        Ok(line) => line,
        Err(why) => {
            form.fault = Some(why);
            return Vec::new();
        }
    };
    let edit = form.edit;
    match &form.purpose {
        Purpose::Job(_) => {
            let known = form.due_ms.is_none() && matches!(form.check, Check::Planned(..));
            if !known {
                form.submit = true;
                return look(app);
            }
            let Check::Planned(plan, _) = &form.check else { return Vec::new() };
            // What is shown stays; what is sent is this.
            let sent = plan.clone();
            form.sent = true;
            let ask = app.ask(Ask { what: command::shown(&line), edit: Some(edit), about: None });
            vec![Effect::Submit(ask, sent)]
        }
        Purpose::Token | Purpose::Credit => match command::parse(&line) {
            Ok(_) => {
                form.sent = true;
                act::perform_line(app, line, Some(edit))
            }
            Err(failure) => {
                form.fault = Some(failure.said());
                Vec::new()
            }
        },
    }
}

/// What was asked for outside could not be done: the form says so.
pub(crate) fn refuse(app: &mut App, edit: u64, failure: &Failure) -> bool {
    match form_of(app).filter(|form| form.edit == edit) {
        Some(form) => {
            form.sent = false;
            form.fault = Some(failure.said());
            true
        }
        None => false,
    }
}

/// Text was pasted.
pub(crate) fn paste(app: &mut App, text: &str) -> Vec<Effect> {
    let now = app.now.ms;
    let Some(form) = form_of(app).filter(|form| !form.sent) else { return Vec::new() };
    let Stop::Field(place) = form.focus else { return Vec::new() };
    let Some(field) = form.focused() else { return Vec::new() };
    let lines = matches!(field.spec.word, "prompt" | "system");
    if let Value::Text(input) = &mut field.value {
        let text = text.trim_end_matches(['\r', '\n']).replace("\r\n", "\n").replace('\r', "\n");
        for c in text.chars() {
            let c = if c == '\n' && !lines { ' ' } else { c };
            if c == '\n' || !c.is_control() {
                input.handle(tui_input::InputRequest::InsertChar(c));
            }
        }
        changed(app, Some(place), now);
    }
    Vec::new()
}

/// Takes a key.
pub(crate) fn key(app: &mut App, key: &str) -> Vec<Effect> {
    let now = app.now.ms;
    let Some(form) = form_of(app) else { return Vec::new() };
    if form.leaving {
        match key {
            "y" | "Y" | "Ctrl-c" => app.ui.overlay = None,
            _ => form.leaving = false,
        }
        return Vec::new();
    }
    match (key, form.focus) {
        ("Esc" | "Ctrl-c", _) => {
            leave(app);
            Vec::new()
        }
        // What is on its way stays what it is until the answer comes: that is about this and nothing else.
        (_, _) if form.sent => Vec::new(),
        ("F5" | "Ctrl-Enter", _) => submit(app),
        ("Ctrl-p", _) => {
            preview(app);
            Vec::new()
        }
        ("Ctrl-e", _) => editor(app),
        ("Ctrl-s", _) => save(app),
        ("Ctrl-o", _) => {
            form.all = !form.all;
            if !form.stops().contains(&form.focus) {
                form.step(true);
            }
            Vec::new()
        }
        ("Ctrl-z", Stop::Field(place)) => {
            if let Some(before) = form.fields.get(place).and_then(|field| field.before.clone()) {
                form.fields[place].set(&before);
                changed(app, Some(place), now);
            }
            Vec::new()
        }
        ("Tab" | "Down", _) => {
            form.step(true);
            Vec::new()
        }
        ("Shift-Tab" | "Up", _) => {
            form.step(false);
            Vec::new()
        }
        ("Enter", Stop::Field(_)) => {
            form.step(true);
            Vec::new()
        }
        ("Enter" | "Space", Stop::Button(button)) => match button {
            Button::Submit => submit(app),
            Button::Save => save(app),
            Button::Cancel => {
                leave(app);
                Vec::new()
            }
        },
        ("Right" | "Left", Stop::Button(_)) => {
            form.step(key == "Right");
            Vec::new()
        }
        (_, Stop::Button(_)) => Vec::new(),
        (key, Stop::Field(place)) => {
            if fill_in(form, place, key) {
                changed(app, Some(place), now);
            }
            Vec::new()
        }
    }
}

/// Changes a field by a key; tells whether it did.
fn fill_in(form: &mut Form, place: usize, key: &str) -> bool {
    // Another kind is another job: what is run again stays what it was.
    if form.fields[place].spec.word == "type" && form.fields[place].before.is_some() {
        return false;
    }
    let field = &mut form.fields[place];
    let before = field.text();
    match (&mut field.value, field.spec.control, key) {
        (Value::Text(input), _, key) => {
            type_into(input, key);
        }
        (Value::Choice(chosen), Control::Choice(words), "Right" | "Space") => *chosen = (*chosen + 1) % words.len(),
        (Value::Choice(chosen), Control::Choice(words), "Left") => *chosen = (*chosen + words.len() - 1) % words.len(),
        (Value::Switch(on), _, "Space" | "Left" | "Right") => *on = !*on,
        (Value::Choice(_) | Value::Switch(_), _, _) => {}
    }
    field.text() != before
}

/// Closes it; asks first if something was typed.
fn leave(app: &mut App) {
    match form_of(app) {
        Some(form) if form.edited && !form.sent => form.leaving = true,
        _ => app.ui.overlay = None,
    }
}

/// Shows the whole of it.
fn preview(app: &mut App) {
    let asset = app.ctx().asset();
    let Some(Overlay::Form(form)) = app.ui.overlay.take() else { return };
    let lines = match (&form.purpose, form.line()) {
        (Purpose::Job(_), Ok(line)) => job::preview(&form, &line, asset),
        (Purpose::Token | Purpose::Credit, Ok(line)) => vec![command::shown(&line)],
        (_, Err(why)) => vec![why],
    };
    let mut reader = Reader::new("What would be submitted", lines);
    reader.below = Some(form);
    app.ui.overlay = Some(Overlay::Reader(reader));
}

/// Opens an editor on it, as a job file.
fn editor(app: &mut App) -> Vec<Effect> {
    let Some(form) = form_of(app) else { return Vec::new() };
    let Purpose::Job(job) = &form.purpose else { return Vec::new() };
    let text = match &job.draft {
        Some(draft) => Ok(draft.clone()),
        None => job::job_file(form),
    };
    match text {
        Ok(text) => vec![Effect::Edit(text)],
        Err(why) => {
            form.fault = Some(why);
            Vec::new()
        }
    }
}

/// Writes it into a job file.
fn save(app: &mut App) -> Vec<Effect> {
    let path = app.caps.folder.join(JOB_FILE);
    let Some(form) = form_of(app) else { return Vec::new() };
    if !matches!(form.purpose, Purpose::Job(_)) {
        return Vec::new();
    }
    match job::job_file(form) {
        Ok(text) => vec![Effect::Write(path, text.into_bytes())],
        Err(why) => {
            form.fault = Some(why);
            Vec::new()
        }
    }
}

/// The flags that the form of a job has fields for.
#[cfg(test)]
pub(crate) fn words() -> std::collections::BTreeSet<String> {
    job::FIELDS.iter().map(|field| field.word.to_owned()).collect()
}

/// Its keys.
pub(crate) fn hints(form: &Form) -> Vec<(&'static str, &'static str)> {
    if form.leaving {
        return vec![("y", "close, what was typed is lost"), ("n", "go on")];
    }
    match form.purpose {
        Purpose::Job(_) => vec![
            ("Tab", "next field"),
            ("F5", "submit"),
            ("^P", "preview"),
            ("^O", if form.all { "fewer fields" } else { "all fields" }),
            ("^E", "edit in $EDITOR"),
            ("^S", "save as job.toml"),
            ("Esc", "cancel (asks if edited)"),
        ],
        Purpose::Token | Purpose::Credit => {
            vec![("Tab", "next field"), ("F5", "do it"), ("Esc", "cancel (asks if edited)")]
        }
    }
}
