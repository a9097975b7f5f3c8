//! The state of the console: what is known ([`Mirror`]), how it is looked at ([`Ui`]), what the time is and what the terminal can.

use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{Asset, JobId, Name, WallTime};

use super::act::{Confirm, Errand};
use super::glyphs::Glyphs;
use super::keys::{Keymap, Scope};
use super::layout::{Layout, Shape, Tier, plan};
use super::table::{RowId, TableId, TableUi};
use super::theme::{Theme, ThemeName};
use super::view;
use crate::client::live::{AskId, LinkState};
use crate::client::mirror::Mirror;
use crate::text;

/// Everything.
pub(crate) struct App {
    /// What is known.
    pub(crate) mirror: Mirror,
    /// How it is looked at.
    pub(crate) ui: Ui,
    /// What the time is; the runtime sets it before each message.
    pub(crate) now: Now,
    /// What the terminal can, and what was asked for at the start.
    pub(crate) caps: Caps,
}

/// What the time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Now {
    /// By the calendar of this machine.
    pub(crate) wall: WallTime,
    /// Milliseconds since the console was opened: never goes back.
    pub(crate) ms: u64,
}

/// What the terminal can, and what was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Caps {
    /// Columns of the screen.
    pub(crate) columns: u16,
    /// Rows of the screen.
    pub(crate) rows: u16,
    /// Only ASCII.
    pub(crate) ascii: bool,
    /// Whether only looking is allowed.
    pub(crate) read_only: bool,
    /// Whether a recording is shown.
    pub(crate) replay: bool,
    /// The name of the context.
    pub(crate) context: String,
    /// Colour of line 0 that the context asks for, by its name.
    pub(crate) accent: Option<ratatui::style::Color>,
    /// Every context that there is.
    pub(crate) contexts: Vec<String>,
    /// The keys.
    pub(crate) keymap: Keymap,
    /// The command line of the sample job, where there is one: under `up`.
    pub(crate) sample: Option<Vec<String>>,
    /// The folder that exports are written to.
    pub(crate) folder: std::path::PathBuf,
    /// The most that a job may cost, where the context says it.
    pub(crate) max_cost: Option<modchain_types::Micro>,
}

/// How things are looked at.
pub(crate) struct Ui {
    /// The view.
    pub(crate) view: View,
    /// The view before.
    pub(crate) last_view: View,
    /// What was opened in each view, the last on top.
    pub(crate) opened: BTreeMap<View, Vec<Place>>,
    /// The pane that has the keys, in each view.
    pub(crate) focus: BTreeMap<View, usize>,
    /// Whether that pane has the whole screen.
    pub(crate) zoomed: bool,
    /// The tables.
    pub(crate) tables: BTreeMap<TableId, TableUi>,
    /// What lies over the view.
    pub(crate) overlay: Option<Overlay>,
    /// What is being typed in the last line but one.
    pub(crate) prompt: Option<Prompt>,
    /// What has just happened.
    pub(crate) toasts: Vec<Toast>,
    /// All that the console has said, the newest last.
    pub(crate) log: Vec<(WallTime, Tone, String)>,
    /// What was known when the screen was paused, and how many changes came since.
    pub(crate) paused: Option<(Box<Mirror>, u64)>,
    /// Keys that may be the beginning of something.
    pub(crate) typed: Vec<String>,
    /// What was looked at when all was last brought up to date.
    pub(crate) settled: Option<Place>,
    /// When a table was arranged last.
    pub(crate) arranged_ms: u64,
    /// When the last key was pressed.
    pub(crate) key_ms: Option<u64>,
    /// Until when another Ctrl-C means to leave.
    pub(crate) quit_armed_ms: Option<u64>,
    /// How times are shown.
    pub(crate) times: Times,
    /// Whether times that are not relative are in UTC.
    pub(crate) utc: bool,
    /// The theme.
    pub(crate) theme: Theme,
    /// Requests without an answer, and what they are about.
    pub(crate) asks: BTreeMap<AskId, Ask>,
    /// The next request's name.
    pub(crate) next_ask: u64,
    /// The number of the last edit or errand.
    pub(crate) edits: u64,
    /// What was begun and is not done, by its number.
    pub(crate) errands: BTreeMap<u64, Errand>,
    /// A job that was submitted from here and is selected as soon as it is in the table.
    pub(crate) awaited: Option<JobId>,
    /// How each output is looked at.
    pub(crate) outputs: BTreeMap<JobId, view::output::OutputUi>,
    /// How outputs are looked at in general.
    pub(crate) habits: view::output::OutputUi,
    /// The job whose output is followed.
    pub(crate) followed: BTreeSet<JobId>,
    /// Jobs that were submitted from here, the newest last.
    pub(crate) submitted: Vec<JobId>,
    /// Whether only one's own jobs and events are shown.
    pub(crate) mine: bool,
    /// Whether ended jobs are shown.
    pub(crate) ended: bool,
    /// Problems that were hidden, by what they said.
    pub(crate) hidden: BTreeSet<String>,
    /// Position in the list of problems.
    pub(crate) problem: usize,
    /// What was worked out of all that is known.
    pub(crate) known: view::known::Known,
    /// Lines that are scrolled away on the page of a node.
    pub(crate) node_top: Option<(Name, usize)>,
    /// Lines that are scrolled away on the page of a job.
    pub(crate) job_top: Option<(JobId, usize)>,
    /// Revisions of what follow-up questions were asked for, so that none is asked twice.
    pub(crate) asked: view::follow::Asked,
    /// Filters and commands that were typed before, the newest last.
    pub(crate) history: BTreeMap<PromptKind, Vec<String>>,
    /// Whether the first steps are shown until a job was submitted.
    pub(crate) hint: bool,
    /// The mouse is on.
    pub(crate) mouse: bool,
}

/// The views, on the keys 1 to 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum View {
    /// What there is and what is wrong.
    Overview,
    /// Nodes.
    Nodes,
    /// Jobs.
    Jobs,
    /// What happened.
    Events,
    /// Money.
    Account,
    /// Members and tokens.
    Access,
}

impl View {
    /// Every view, in the order of the keys.
    pub(crate) const ALL: [Self; 6] =
        [Self::Overview, Self::Nodes, Self::Jobs, Self::Events, Self::Account, Self::Access];

    /// Its name, and a short one.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Overview => ("Overview", "Over"),
            Self::Nodes => ("Nodes", "Nodes"),
            Self::Jobs => ("Jobs", "Jobs"),
            Self::Events => ("Events", "Events"),
            Self::Account => ("Account", "Acct"),
            Self::Access => ("Access", "Access"),
        }
    }

    /// What is shown before anything is opened.
    pub(crate) fn root(self) -> Place {
        match self {
            Self::Overview => Place::Overview,
            Self::Nodes => Place::Nodes,
            Self::Jobs => Place::Jobs,
            Self::Events => Place::Events,
            Self::Account => Place::Account,
            Self::Access => Place::Access,
        }
    }
}

/// What can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// What there is and what is wrong.
    Overview,
    /// All nodes.
    Nodes,
    /// One node.
    Node(Name),
    /// All jobs.
    Jobs,
    /// One job.
    Job(JobId),
    /// Its output.
    Output(JobId),
    /// What happened.
    Events,
    /// Money.
    Account,
    /// Members and tokens.
    Access,
}

impl Place {
    /// How it divides the screen.
    pub(crate) fn shape(&self) -> Shape {
        match self {
            Self::Overview => Shape::Overview,
            Self::Nodes => Shape::BelowTwo,
            Self::Jobs => Shape::Below,
            Self::Account => Shape::Account,
            Self::Access => Shape::Halves,
            Self::Node(_) | Self::Job(_) | Self::Output(_) | Self::Events => Shape::Single,
        }
    }
}

/// What lies over a view: at most one.
#[derive(Debug)]
pub(crate) enum Overlay {
    /// The keys.
    Help(view::help::Help),
    /// A question before something dangerous.
    Confirm(Box<Confirm>),
    /// A choice.
    Picker(view::picker::Picker),
    /// Everything, by a few letters of it.
    Palette(view::palette::Palette),
    /// A form.
    Form(Box<view::form::Form>),
    /// Text to read.
    Reader(view::reader::Reader),
}

/// What is being typed.
#[derive(Debug)]
pub(crate) struct Prompt {
    /// What for.
    pub(crate) kind: PromptKind,
    /// The text so far.
    pub(crate) input: tui_input::Input,
    /// What is wrong with it.
    pub(crate) fault: Option<String>,
    /// Position in the history, from the newest; `None` while something new is typed.
    pub(crate) recalled: Option<usize>,
}

/// What a line is typed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PromptKind {
    /// The filter of the table that has the keys.
    Filter,
    /// A search in text.
    Search,
    /// A command.
    Command,
    /// A line for a job's standard input.
    Input,
}

/// How serious something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Good to know.
    Info,
    /// It did not work.
    Bad,
}

/// Something that has just happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toast {
    /// What.
    pub(crate) text: String,
    /// How serious.
    pub(crate) tone: Tone,
    /// Until when it is shown.
    pub(crate) until_ms: u64,
}

/// A request that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// What it does, for people: `cancel j-7f3a2b1c`. Empty where nobody needs to hear of it.
    pub(crate) what: String,
    /// Which edit of the form it answers.
    pub(crate) edit: Option<u64>,
    /// What row it is about: shown as on its way.
    pub(crate) about: Option<RowId>,
}

/// How times are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// How long ago.
    Ago,
    /// By the clock.
    Clock,
}

impl Times {
    /// A moment, seen from `now`.
    pub(crate) fn show(self, at: WallTime, now: WallTime, utc: bool) -> String {
        match self {
            Self::Ago => text::ago(now.since(at)),
            Self::Clock => text::time_of_day(at, utc),
        }
    }
}

/// What cells, columns and lines need to know.
#[derive(Clone, Copy)]
pub(crate) struct Ctx<'a> {
    /// What is known.
    pub(crate) mirror: &'a Mirror,
    /// How it is looked at.
    pub(crate) ui: &'a Ui,
    /// By the orchestrator's clock.
    pub(crate) now: WallTime,
    /// By this machine's clock.
    pub(crate) local_now: WallTime,
    /// How things look.
    pub(crate) theme: Theme,
    /// What pictures are made of.
    pub(crate) glyphs: Glyphs,
    /// How times are shown.
    pub(crate) times: Times,
    /// Whether they are in UTC.
    pub(crate) utc: bool,
}

impl Ctx<'_> {
    /// What money is.
    pub(crate) fn asset(&self) -> Asset {
        self.mirror.me.as_ref().map_or(Asset::Test, |me| me.asset)
    }
}

/// How long a toast is shown.
const TOAST_MS: u64 = 6_000;
/// Lines of the console's own log.
const LOG_MAX: usize = 500;

impl Ui {
    /// As it is at the start.
    pub(crate) fn new(theme: ThemeName, utc: bool) -> Self {
        Self {
            view: View::Overview,
            last_view: View::Jobs,
            opened: BTreeMap::new(),
            focus: BTreeMap::new(),
            zoomed: false,
            tables: view::tables(),
            overlay: None,
            prompt: None,
            toasts: Vec::new(),
            log: Vec::new(),
            paused: None,
            typed: Vec::new(),
            settled: None,
            arranged_ms: 0,
            key_ms: None,
            quit_armed_ms: None,
            times: Times::Ago,
            utc,
            theme: Theme { name: theme },
            asks: BTreeMap::new(),
            next_ask: 0,
            edits: 0,
            errands: BTreeMap::new(),
            awaited: None,
            outputs: BTreeMap::new(),
            habits: view::output::OutputUi::default(),
            followed: BTreeSet::new(),
            submitted: Vec::new(),
            mine: false,
            ended: true,
            hidden: BTreeSet::new(),
            problem: 0,
            known: view::known::Known::default(),
            node_top: None,
            job_top: None,
            asked: view::follow::Asked::default(),
            history: BTreeMap::new(),
            hint: false,
            mouse: false,
        }
    }

    /// A table.
    pub(crate) fn table(&self, id: TableId) -> &TableUi {
        self.tables.get(&id).expect("every table is made at the start")
    }

    /// A table, to change it.
    pub(crate) fn table_mut(&mut self, id: TableId) -> &mut TableUi {
        self.tables.get_mut(&id).expect("every table is made at the start")
    }
}

impl App {
    /// A console that knows nothing yet.
    pub(crate) fn new(caps: Caps, theme: ThemeName, utc: bool, now: Now) -> Self {
        Self { mirror: Mirror::default(), ui: Ui::new(theme, utc), now, caps }
    }

    /// A frame was drawn: keys that come from now on are meant for what is on it.
    pub(crate) fn drawn(&mut self) {
        if let Some(Overlay::Confirm(confirm)) = &mut self.ui.overlay {
            confirm.seen = true;
        }
    }

    /// What was asked for by a person and has no answer yet: it may have been done, or not even sent.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        self.ui.asks.values().map(|ask| ask.what.clone()).filter(|what| !what.is_empty()).collect()
    }

    /// Goes on with another orchestrator, of which nothing is known yet. How things are looked at stays.
    pub(crate) fn begin_anew(&mut self) {
        self.mirror = Mirror::default();
        self.ui.paused = None;
        self.ui.opened.clear();
        for what in self.unanswered() {
            self.toast(Tone::Bad, format!("{what}: another context was chosen before its answer came"));
        }
        self.ui.asks.clear();
        self.ui.errands.clear();
        self.ui.awaited = None;
        self.ui.outputs.clear();
        self.ui.followed.clear();
        self.ui.hidden.clear();
        self.ui.asked = view::follow::Asked::default();
        // Their rows are those of the other one, and its revisions say nothing about the new ones.
        self.ui.tables.values_mut().for_each(TableUi::touch);
    }

    /// What is shown: what is known, or what was known when the screen was paused.
    pub(crate) fn shown(&self) -> &Mirror {
        self.ui.paused.as_ref().map_or(&self.mirror, |(mirror, _)| mirror)
    }

    /// What cells and lines need to know.
    pub(crate) fn ctx(&self) -> Ctx<'_> {
        let mirror = self.shown();
        Ctx {
            mirror,
            ui: &self.ui,
            now: mirror.server_time(self.now.wall),
            local_now: self.now.wall,
            theme: self.ui.theme,
            glyphs: Glyphs { ascii: self.caps.ascii },
            times: self.ui.times,
            utc: self.ui.utc,
        }
    }

    /// What is looked at.
    pub(crate) fn place(&self) -> Place {
        let opened = self.ui.opened.get(&self.ui.view).and_then(|opened| opened.last());
        opened.cloned().unwrap_or_else(|| self.ui.view.root())
    }

    /// Where everything is on the screen.
    pub(crate) fn layout(&self) -> Layout {
        let zoomed = self.ui.zoomed.then(|| self.focus());
        plan(self.caps.columns, self.caps.rows, self.place().shape(), self.has_banner(), zoomed)
    }

    /// Whether the link is gone and a line says so.
    pub(crate) fn has_banner(&self) -> bool {
        matches!(self.mirror.link, LinkState::Lost { .. } | LinkState::Refused(_))
    }

    /// The pane that has the keys.
    pub(crate) fn focus(&self) -> usize {
        let place = self.place();
        let wanted = if place == self.ui.view.root() {
            self.ui.focus.get(&self.ui.view).copied().unwrap_or_else(|| view::first_focus(&place))
        } else {
            0
        };
        wanted.min(place.shape().panes() - 1)
    }

    /// What keys may mean here, the nearest first.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        view::scopes(&self.place(), self.focus())
    }

    /// The table that has the keys.
    pub(crate) fn focused_table(&self) -> Option<TableId> {
        view::table_of(&self.place(), self.focus())
    }

    /// Whether the screen shows anything.
    pub(crate) fn is_tiny(&self) -> bool {
        Tier::of(self.caps.columns, self.caps.rows) == Tier::Tiny
    }

    /// Says something for a while, and keeps it in the log.
    pub(crate) fn toast(&mut self, tone: Tone, text: impl Into<String>) {
        let text = text::one_line(&text.into());
        self.ui.log.push((self.now.wall, tone, text.clone()));
        let surplus = self.ui.log.len().saturating_sub(LOG_MAX);
        self.ui.log.drain(..surplus);
        self.ui.toasts = vec![Toast { text, tone, until_ms: self.now.ms + TOAST_MS }];
    }

    /// A number that no edit and no errand has had before.
    pub(crate) fn next_edit(&mut self) -> u64 {
        self.ui.edits += 1;
        self.ui.edits
    }

    /// A name for a new request, and what it is about.
    pub(crate) fn ask(&mut self, ask: Ask) -> AskId {
        self.ui.next_ask += 1;
        let id = AskId(self.ui.next_ask);
        self.ui.asks.insert(id, ask);
        id
    }
}
