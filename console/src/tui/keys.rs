//! The one table of keys. The keymap, the line of hints, the help, the palette and `modchain help keys` are all made from it.

use std::collections::BTreeMap;

/// Where a binding holds. A place has a chain of scopes, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// Everywhere.
    Global,
    /// In tables.
    List,
    /// In output and other text.
    Text,
    /// In the overview.
    Overview,
    /// In the table of nodes, and at one node.
    Nodes,
    /// In the table of jobs, and at one job.
    Jobs,
    /// In a job's output.
    Output,
    /// In the feed of events.
    Events,
    /// In the account.
    Account,
    /// Among members and tokens.
    Access,
}

impl Scope {
    /// Every scope, in the order of the help.
    pub(crate) const ALL: [Self; 10] = [
        Self::Overview,
        Self::Nodes,
        Self::Jobs,
        Self::Output,
        Self::Events,
        Self::Account,
        Self::Access,
        Self::List,
        Self::Text,
        Self::Global,
    ];

    /// What the help calls it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Global => "Everywhere",
            Self::List => "Tables",
            Self::Text => "Text",
            Self::Overview => "Overview",
            Self::Nodes => "Nodes",
            Self::Jobs => "Jobs",
            Self::Output => "Output",
            Self::Events => "Events",
            Self::Account => "Account",
            Self::Access => "Access",
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// What a key does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Action {
            $($(#[$doc])* $name,)+
        }

        impl Action {
            /// Every action.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in `keys.toml`.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

actions! {
    /// To the overview.
    ViewOverview = "view-overview",
    /// To the nodes.
    ViewNodes = "view-nodes",
    /// To the jobs.
    ViewJobs = "view-jobs",
    /// To the events.
    ViewEvents = "view-events",
    /// To the account.
    ViewAccount = "view-account",
    /// To members and tokens.
    ViewAccess = "view-access",
    /// To the next pane.
    NextPane = "next-pane",
    /// To the pane before.
    PreviousPane = "previous-pane",
    /// One step back.
    Back = "back",
    /// To the view before.
    LastView = "last-view",
    /// Ask for a command.
    Command = "command",
    /// Look for anything.
    Palette = "palette",
    /// Show the keys.
    Help = "help",
    /// Let the screen stand still.
    Pause = "pause",
    /// Show times otherwise.
    Times = "times",
    /// Write this view into a file.
    Export = "export",
    /// Give this pane the whole screen.
    Zoom = "zoom",
    /// Connect now.
    Reconnect = "reconnect",
    /// Choose a theme.
    Theme = "theme",
    /// Show what the console itself has said.
    Log = "log",
    /// Paint everything anew.
    Repaint = "repaint",
    /// Stop as the shell's job control does.
    Suspend = "suspend",
    /// Leave.
    Quit = "quit",
    /// Close what is open; twice: leave.
    Interrupt = "interrupt",
    /// One down.
    Down = "down",
    /// One up.
    Up = "up",
    /// To the first.
    First = "first",
    /// To the last.
    Last = "last",
    /// Half a page down.
    HalfPageDown = "half-page-down",
    /// Half a page up.
    HalfPageUp = "half-page-up",
    /// A page down.
    PageDown = "page-down",
    /// A page up.
    PageUp = "page-up",
    /// Sideways.
    Left = "left",
    /// Sideways.
    Right = "right",
    /// Open what is selected.
    Open = "open",
    /// Show only what fits.
    Filter = "filter",
    /// Choose the column to sort by.
    Sort = "sort",
    /// Turn the order around.
    Reverse = "reverse",
    /// Sort by the column before.
    SortLeft = "sort-left",
    /// Sort by the next column.
    SortRight = "sort-right",
    /// Show fewer or more columns.
    Columns = "columns",
    /// Mark one.
    Mark = "mark",
    /// Mark all or none.
    MarkAll = "mark-all",
    /// Copy the id.
    CopyId = "copy-id",
    /// Copy as JSON.
    CopyJson = "copy-json",
    /// Look for text.
    Search = "search",
    /// To the next find.
    SearchNext = "search-next",
    /// To the find before.
    SearchPrevious = "search-previous",
    /// Describe a new job.
    NewJob = "new-job",
    /// Describe the same job again.
    RunAgain = "run-again",
    /// Run the sample job at once.
    SampleJob = "sample-job",
    /// Show a job's output.
    Output = "output",
    /// Why is it where it is?
    Explain = "explain",
    /// Cancel a job.
    Cancel = "cancel",
    /// Only one's own, or all.
    Mine = "mine",
    /// Ended jobs too, or not.
    Ended = "ended",
    /// Hide a problem until it changes.
    Hide = "hide",
    /// Follow the end of the output.
    Follow = "follow",
    /// Break long lines.
    Wrap = "wrap",
    /// Show when lines came.
    Timestamps = "timestamps",
    /// Standard output, standard error, both.
    Streams = "streams",
    /// Put a line there that marks this moment.
    MarkLine = "mark-line",
    /// Write to the job's standard input.
    Input = "input",
    /// Give a node no new jobs, or again.
    Cordon = "cordon",
    /// Empty a node.
    Drain = "drain",
    /// Give a drained node jobs again.
    Resume = "resume",
    /// Give test credits.
    Credit = "credit",
    /// Make a token.
    TokenCreate = "token-create",
    /// Let nobody use a token any more.
    TokenRevoke = "token-revoke",
    /// Put somebody out for good.
    Revoke = "revoke",
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    /// Where it holds.
    pub(crate) scope: Scope,
    /// The keys, each alone enough. Two keys after each other stand with a space between them.
    pub(crate) chords: &'static [&'static str],
    /// What they do.
    pub(crate) action: Action,
    /// In a few words.
    pub(crate) help: &'static str,
    /// Its place in the line of hints, the smallest first; `0` is not shown there.
    pub(crate) hint: u8,
    /// Whether it asks first, because what it does cannot be taken back.
    pub(crate) dangerous: bool,
}

const fn bind(scope: Scope, chords: &'static [&'static str], action: Action, help: &'static str, hint: u8) -> Binding {
    Binding { scope, chords, action, help, hint, dangerous: false }
}

const fn danger(
    scope: Scope,
    chords: &'static [&'static str],
    action: Action,
    help: &'static str,
    hint: u8,
) -> Binding {
    Binding { scope, chords, action, help, hint, dangerous: true }
}

/// The table.
pub(crate) const BINDINGS: &[Binding] = &[
    bind(Scope::Global, &["1"], Action::ViewOverview, "overview", 0),
    bind(Scope::Global, &["2"], Action::ViewNodes, "nodes", 0),
    bind(Scope::Global, &["3"], Action::ViewJobs, "jobs", 0),
    bind(Scope::Global, &["4"], Action::ViewEvents, "events", 0),
    bind(Scope::Global, &["5"], Action::ViewAccount, "account", 0),
    bind(Scope::Global, &["6"], Action::ViewAccess, "members and tokens", 0),
    bind(Scope::Global, &["Tab"], Action::NextPane, "next pane", 0),
    bind(Scope::Global, &["Shift-Tab"], Action::PreviousPane, "pane before", 0),
    bind(Scope::Global, &["Esc"], Action::Back, "back", 0),
    bind(Scope::Global, &["-"], Action::LastView, "last view", 0),
    bind(Scope::Global, &["n"], Action::NewJob, "new job", 2),
    bind(Scope::Global, &[":"], Action::Command, "command", 61),
    bind(Scope::Global, &["Ctrl-p"], Action::Palette, "find anything", 0),
    bind(Scope::Global, &["?"], Action::Help, "help", 62),
    bind(Scope::Global, &["p"], Action::Pause, "pause the screen", 0),
    bind(Scope::Global, &["t"], Action::Times, "ago, local, UTC", 0),
    bind(Scope::Global, &["Ctrl-s"], Action::Export, "export this view", 0),
    bind(Scope::Global, &["z"], Action::Zoom, "zoom this pane", 0),
    bind(Scope::Global, &["R"], Action::Reconnect, "reconnect now", 0),
    bind(Scope::Global, &["T"], Action::Theme, "theme", 0),
    bind(Scope::Global, &["~"], Action::Log, "the console's own log", 0),
    bind(Scope::Global, &["Ctrl-l"], Action::Repaint, "repaint", 0),
    bind(Scope::Global, &["Ctrl-z"], Action::Suspend, "suspend", 0),
    bind(Scope::Global, &["q"], Action::Quit, "quit", 63),
    bind(Scope::Global, &["Ctrl-c"], Action::Interrupt, "close; twice: quit", 0),
    bind(Scope::List, &["j", "Down"], Action::Down, "down", 0),
    bind(Scope::List, &["k", "Up"], Action::Up, "up", 0),
    bind(Scope::List, &["g g", "Home"], Action::First, "first", 0),
    bind(Scope::List, &["G", "End"], Action::Last, "last", 0),
    bind(Scope::List, &["Ctrl-d"], Action::HalfPageDown, "half a page down", 0),
    bind(Scope::List, &["Ctrl-u"], Action::HalfPageUp, "half a page up", 0),
    bind(Scope::List, &["PgDn", "Ctrl-f"], Action::PageDown, "page down", 0),
    bind(Scope::List, &["PgUp", "Ctrl-b"], Action::PageUp, "page up", 0),
    bind(Scope::List, &["Left"], Action::Left, "columns to the left", 0),
    bind(Scope::List, &["Right"], Action::Right, "columns to the right", 0),
    bind(Scope::List, &["Enter"], Action::Open, "open", 1),
    bind(Scope::List, &["/"], Action::Filter, "filter", 40),
    bind(Scope::List, &["s"], Action::Sort, "sort", 45),
    bind(Scope::List, &["S"], Action::Reverse, "reverse", 0),
    bind(Scope::List, &["<"], Action::SortLeft, "sort by the column before", 0),
    bind(Scope::List, &[">"], Action::SortRight, "sort by the next column", 0),
    bind(Scope::List, &["w"], Action::Columns, "columns", 46),
    bind(Scope::List, &["Space"], Action::Mark, "mark", 47),
    bind(Scope::List, &["*"], Action::MarkAll, "mark all or none", 0),
    bind(Scope::List, &["c"], Action::CopyId, "copy id", 48),
    bind(Scope::List, &["y"], Action::CopyJson, "copy as JSON", 0),
    bind(Scope::Text, &["j", "Down"], Action::Down, "down", 0),
    bind(Scope::Text, &["k", "Up"], Action::Up, "up", 0),
    bind(Scope::Text, &["g g", "Home"], Action::First, "first", 0),
    bind(Scope::Text, &["G", "End"], Action::Last, "last", 0),
    bind(Scope::Text, &["Ctrl-d"], Action::HalfPageDown, "half a page down", 0),
    bind(Scope::Text, &["Ctrl-u"], Action::HalfPageUp, "half a page up", 0),
    bind(Scope::Text, &["PgDn", "Ctrl-f"], Action::PageDown, "page down", 0),
    bind(Scope::Text, &["PgUp", "Ctrl-b"], Action::PageUp, "page up", 0),
    bind(Scope::Text, &["h", "Left"], Action::Left, "to the left", 0),
    bind(Scope::Text, &["l", "Right"], Action::Right, "to the right", 0),
    bind(Scope::Text, &["c"], Action::CopyId, "copy the id", 0),
    bind(Scope::Text, &["y"], Action::CopyJson, "copy what is shown", 0),
    bind(Scope::Overview, &["a"], Action::SampleJob, "run the sample job", 3),
    bind(Scope::Overview, &["x"], Action::Hide, "hide a problem", 4),
    bind(Scope::Nodes, &["n"], Action::NewJob, "new job", 9),
    bind(Scope::Nodes, &["u"], Action::Cordon, "cordon, uncordon", 10),
    danger(Scope::Nodes, &["D"], Action::Drain, "drain", 11),
    bind(Scope::Nodes, &["r"], Action::Resume, "resume", 12),
    bind(Scope::Jobs, &["l"], Action::Output, "output", 2),
    bind(Scope::Jobs, &["n"], Action::NewJob, "new job", 3),
    bind(Scope::Jobs, &["r"], Action::RunAgain, "run again", 5),
    bind(Scope::Jobs, &["e"], Action::Explain, "why", 6),
    danger(Scope::Jobs, &["x"], Action::Cancel, "cancel", 4),
    bind(Scope::Jobs, &["f"], Action::Mine, "mine, all", 0),
    bind(Scope::Jobs, &["E"], Action::Ended, "with and without ended", 0),
    bind(Scope::Output, &["f"], Action::Follow, "follow", 1),
    bind(Scope::Output, &["/"], Action::Search, "search", 20),
    bind(Scope::Output, &["n"], Action::SearchNext, "next find", 21),
    bind(Scope::Output, &["N"], Action::SearchPrevious, "find before", 0),
    bind(Scope::Output, &["w"], Action::Wrap, "wrap", 22),
    bind(Scope::Output, &["t"], Action::Timestamps, "times", 23),
    bind(Scope::Output, &["o"], Action::Streams, "out, err, both", 24),
    bind(Scope::Output, &["m"], Action::MarkLine, "mark", 0),
    bind(Scope::Output, &["i"], Action::Input, "write to the job", 26),
    bind(Scope::Output, &["e"], Action::Explain, "why", 0),
    bind(Scope::Output, &["r"], Action::RunAgain, "run again", 0),
    danger(Scope::Output, &["x"], Action::Cancel, "cancel", 27),
    bind(Scope::Events, &["f"], Action::Mine, "mine, all", 2),
    bind(Scope::Account, &["C"], Action::Credit, "give credits", 2),
    bind(Scope::Access, &["n"], Action::TokenCreate, "new token", 2),
    danger(Scope::Access, &["x"], Action::TokenRevoke, "revoke token", 3),
    danger(Scope::Access, &["X"], Action::Revoke, "revoke member", 4),
];

/// What the keys typed so far mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// This.
    Action(Action),
    /// The beginning of something.
    Prefix,
    /// Nothing.
    Nothing,
}

/// The table as one user has it.
#[derive(Debug, Clone)]
pub(crate) struct Keymap {
    chords: BTreeMap<(Scope, String), Action>,
}

impl Default for Keymap {
    fn default() -> Self {
        let chords = BINDINGS.iter().flat_map(|binding| {
            binding.chords.iter().map(|chord| ((binding.scope, (*chord).to_owned()), binding.action))
        });
        Self { chords: chords.collect() }
    }
}

impl Keymap {
    /// With a user's own keys: the text of `keys.toml`, one `ACTION = ["KEY", …]` a line. They take the place of the action's keys
    /// in every scope that has it.
    ///
    /// # Errors
    /// A sentence with the line of what is wrong.
    pub(crate) fn with(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| crate::client::config::line_of(text, span.start));
            format!("line {line}: {}", error.message())
        })?;
        let line_of = |word: &str| {
            text.lines().position(|line| line.trim_start().starts_with(word)).map_or(1, |position| position + 1)
        };
        let mut keymap = Self::default();
        for (word, value) in &table {
            let line = line_of(word);
            let Some(action) = Action::ALL.iter().copied().find(|action| action.word() == word) else {
                let near = crate::client::config::nearest(word, Action::ALL.iter().map(|action| action.word()));
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return Err(format!("line {line}: there is no action `{word}`{near}"));
            };
            let keys: Option<Vec<String>> = match value {
                toml::Value::String(key) => Some(vec![key.clone()]),
                toml::Value::Array(keys) => keys.iter().map(|key| key.as_str().map(str::to_owned)).collect(),
                _ => None,
            };
            let Some(keys) = keys.filter(|keys| keys.iter().all(|key| !key.trim().is_empty())) else {
                return Err(format!("line {line}: write {word} = [\"KEY\", …]"));
            };
            keymap.chords.retain(|_, known| *known != action);
            let scopes = BINDINGS.iter().filter(|binding| binding.action == action).map(|binding| binding.scope);
            for scope in scopes {
                for key in &keys {
                    if let Some(other) = keymap.chords.insert((scope, key.clone()), action) {
                        return Err(format!("line {line}: `{key}` is the key of `{}` already", other.word()));
                    }
                }
            }
        }
        Ok(keymap)
    }

    /// What the keys typed so far mean in a chain of scopes, the nearest first.
    pub(crate) fn find(&self, scopes: &[Scope], typed: &[String]) -> Found {
        let chord = typed.join(" ");
        let beginning = format!("{chord} ");
        for scope in scopes {
            if let Some(action) = self.chords.get(&(*scope, chord.clone())) {
                return Found::Action(*action);
            }
            if self.chords.keys().any(|(known, keys)| known == scope && keys.starts_with(&beginning)) {
                return Found::Prefix;
            }
        }
        Found::Nothing
    }

    /// The keys of an action in a scope, in the order of the table.
    pub(crate) fn keys(&self, scope: Scope, action: Action) -> Vec<&str> {
        let order = |chord: &str| {
            let own = BINDINGS.iter().filter(|binding| binding.scope == scope && binding.action == action);
            own.flat_map(|binding| binding.chords).position(|known| *known == chord).unwrap_or(usize::MAX)
        };
        let keys = self.chords.iter().filter(|((known, _), is)| *known == scope && **is == action);
        let mut keys: Vec<&str> = keys.map(|((_, chord), _)| chord.as_str()).collect();
        keys.sort_by_key(|chord| order(chord));
        keys
    }
}

/// The table as text, for `modchain help keys`.
pub(crate) fn reference() -> String {
    let mut text = String::new();
    for scope in Scope::ALL {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(scope.title());
        text.push('\n');
        for binding in BINDINGS.iter().filter(|binding| binding.scope == scope) {
            let asks = if binding.dangerous { "  (asks first)" } else { "" };
            let keys = binding.chords.join(", ");
            text.push_str(&format!("  {keys:<14}{:<28}{}{asks}\n", binding.help, binding.action.word()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_means_two_things_in_one_scope() {
        let mut seen = BTreeSet::new();
        for binding in BINDINGS {
            for chord in binding.chords {
                assert!(seen.insert((binding.scope, *chord)), "{chord} twice in {:?}", binding.scope);
                assert!(
                    !BINDINGS.iter().any(|other| other.scope == binding.scope
                        && other.chords.iter().any(|longer| longer.starts_with(&format!("{chord} ")))),
                    "{chord} hides a longer one"
                );
            }
        }
    }

    #[test]
    fn every_action_has_a_key_and_a_help() {
        for action in Action::ALL {
            let bound: Vec<_> = BINDINGS.iter().filter(|binding| binding.action == *action).collect();
            assert!(!bound.is_empty(), "{action:?} has no key");
            assert!(bound.iter().all(|binding| !binding.help.is_empty()), "{action:?} has no help");
        }
    }

    #[test]
    fn nothing_dangerous_is_on_a_control_key() {
        for binding in BINDINGS.iter().filter(|binding| binding.dangerous) {
            assert!(binding.chords.iter().all(|chord| !chord.starts_with("Ctrl-")), "{binding:?}");
        }
    }

    #[test]
    fn keys_are_found_in_the_nearest_scope_and_after_each_other() {
        let keymap = Keymap::default();
        let typed = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let chain = [Scope::Output, Scope::Text, Scope::Global];
        assert_eq!(keymap.find(&chain, &typed(&["t"])), Found::Action(Action::Timestamps));
        assert_eq!(keymap.find(&[Scope::Jobs, Scope::Global], &typed(&["t"])), Found::Action(Action::Times));
        assert_eq!(keymap.find(&chain, &typed(&["g"])), Found::Prefix);
        assert_eq!(keymap.find(&chain, &typed(&["g", "g"])), Found::Action(Action::First));
        assert_eq!(keymap.find(&chain, &typed(&["F12"])), Found::Nothing);
    }

    #[test]
    fn a_users_keys_take_the_place_of_ours_and_mistakes_name_their_line() {
        let own = Keymap::with("# mine\nquit = [\"Q\"]\ncancel = \"K\"\n").expect("good");
        let typed = ["q".to_owned()];
        assert_eq!(own.find(&[Scope::Global], &typed), Found::Nothing);
        assert_eq!(own.keys(Scope::Global, Action::Quit), ["Q"]);
        assert_eq!(own.keys(Scope::Output, Action::Cancel), ["K"]);
        for (text, word) in [
            ("\nqiut = \"Q\"", "line 2: there is no action `qiut`; did you mean `quit`?"),
            ("quit = 3", "line 1: write quit"),
            ("quit = \"p\"", "`p` is the key of `pause` already"),
            ("x", "line 1"),
        ] {
            let error = Keymap::with(text).expect_err(text);
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_reference_has_every_binding() {
        let text = reference();
        for binding in BINDINGS {
            assert!(text.contains(binding.action.word()), "{binding:?}");
        }
    }
}
