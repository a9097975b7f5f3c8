//! Colours by what they mean. `dark` and `light` use the terminal's own sixteen colours and never set the default foreground or
//! background; `mono` uses none at all; `contrast` and `colorblind` say theirs exactly.

use clap::ValueEnum;
use modchain_types::{JobState, NodeState};
use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

/// The themes by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThemeName {
    /// For dark terminals
    Dark,
    /// For light terminals
    Light,
    /// Without colours
    Mono,
    /// As strong as it gets
    Contrast,
    /// Colours that most people can tell apart
    Colorblind,
}

impl ThemeName {
    /// Every theme, in the order of the picker.
    pub(crate) const ALL: [Self; 5] = [Self::Dark, Self::Light, Self::Mono, Self::Contrast, Self::Colorblind];

    /// Its name.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Light => "light",
            Self::Mono => "mono",
            Self::Contrast => "contrast",
            Self::Colorblind => "colorblind",
        }
    }
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ordinary text.
    Text,
    /// What matters less.
    Dim,
    /// Titles of panes and columns.
    Title,
    /// Going well.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// On its way.
    Info,
    /// Names of keys.
    Key,
    /// Frames.
    Border,
    /// The frame of the pane that has the keys.
    Focus,
    /// The row that is selected.
    Selected,
    /// What a filter or a search has found.
    Match,
    /// The line that says that the link is gone.
    Banner,
}

/// A theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Which.
    pub(crate) name: ThemeName,
}

impl Theme {
    /// How text of this meaning looks.
    pub(crate) fn style(self, role: Role) -> Style {
        match self.name {
            ThemeName::Mono => mono(role),
            ThemeName::Dark => colours(role, &DARK),
            ThemeName::Light => colours(role, &LIGHT),
            ThemeName::Contrast => colours(role, &CONTRAST),
            ThemeName::Colorblind => colours(role, &COLORBLIND),
        }
    }

    /// How a job's state looks.
    pub(crate) fn job(self, state: JobState) -> Style {
        self.style(match state {
            JobState::Queued | JobState::Assigned | JobState::Starting => Role::Info,
            JobState::Running | JobState::Completed => Role::Good,
            JobState::Unreachable | JobState::Cancelling | JobState::TimedOut | JobState::Expired => Role::Warn,
            JobState::Failed => Role::Bad,
            JobState::Cancelled => Role::Dim,
        })
    }

    /// How a node's state looks.
    pub(crate) fn node(self, state: NodeState) -> Style {
        self.style(match state {
            NodeState::Ready => Role::Good,
            NodeState::Suspect | NodeState::Cordoned | NodeState::Draining | NodeState::Paused => Role::Warn,
            NodeState::Lost => Role::Bad,
        })
    }

    /// How a share of something looks that is bad when it is full, in percent.
    pub(crate) fn load(self, percent: u32) -> Style {
        self.style(match percent {
            0..80 => Role::Good,
            80..95 => Role::Warn,
            _ => Role::Bad,
        })
    }

    /// Whether it has colours.
    pub(crate) fn has_colours(self) -> bool {
        self.name != ThemeName::Mono
    }
}

struct Palette {
    dim: Color,
    title: Color,
    good: Color,
    warn: Color,
    bad: Color,
    info: Color,
    border: Color,
    focus: Color,
    /// Foreground and background of what was found, and of the banner.
    on: [(Color, Color); 2],
}

const DARK: Palette = Palette {
    dim: Color::DarkGray,
    title: Color::Cyan,
    good: Color::Green,
    warn: Color::Yellow,
    bad: Color::Red,
    info: Color::Blue,
    border: Color::DarkGray,
    focus: Color::Cyan,
    on: [(Color::Black, Color::Yellow), (Color::White, Color::Red)],
};

const LIGHT: Palette = Palette {
    dim: Color::DarkGray,
    title: Color::Blue,
    good: Color::Green,
    warn: Color::Magenta,
    bad: Color::Red,
    info: Color::Blue,
    border: Color::Gray,
    focus: Color::Blue,
    on: [(Color::Black, Color::Yellow), (Color::White, Color::Red)],
};

const CONTRAST: Palette = Palette {
    dim: Color::White,
    title: Color::LightYellow,
    good: Color::LightGreen,
    warn: Color::LightYellow,
    bad: Color::LightRed,
    info: Color::LightCyan,
    border: Color::White,
    focus: Color::LightYellow,
    on: [(Color::Black, Color::LightGreen), (Color::Black, Color::LightRed)],
};

/// The colours of Okabe and Ito (2008), "Color Universal Design".
const COLORBLIND: Palette = Palette {
    dim: Color::DarkGray,
    title: Color::Rgb(86, 180, 233),
    good: Color::Rgb(0, 158, 115),
    warn: Color::Rgb(230, 159, 0),
    bad: Color::Rgb(213, 94, 0),
    info: Color::Rgb(86, 180, 233),
    border: Color::DarkGray,
    focus: Color::Rgb(240, 228, 66),
    on: [(Color::Black, Color::Rgb(240, 228, 66)), (Color::Black, Color::Rgb(213, 94, 0))],
};

fn colours(role: Role, palette: &Palette) -> Style {
    let fore = |colour| Style::new().fg(colour);
    let on = |(fore, back): (Color, Color)| Style::new().fg(fore).bg(back);
    match role {
        Role::Text => Style::new(),
        Role::Dim => fore(palette.dim),
        Role::Title => fore(palette.title).add_modifier(Modifier::BOLD),
        Role::Good => fore(palette.good),
        Role::Warn => fore(palette.warn),
        Role::Bad => fore(palette.bad).add_modifier(Modifier::BOLD),
        Role::Info => fore(palette.info),
        Role::Key => fore(palette.focus).add_modifier(Modifier::BOLD),
        Role::Border => fore(palette.border),
        Role::Focus => fore(palette.focus),
        // The row's own colours would be unreadable on another background.
        Role::Selected => Style::new().add_modifier(Modifier::REVERSED),
        Role::Match => on(palette.on[0]),
        Role::Banner => on(palette.on[1]).add_modifier(Modifier::BOLD),
    }
}

fn mono(role: Role) -> Style {
    let with = |modifier| Style::new().add_modifier(modifier);
    match role {
        Role::Text | Role::Good | Role::Info | Role::Border => Style::new(),
        Role::Dim => with(Modifier::DIM),
        Role::Title | Role::Warn | Role::Key | Role::Focus => with(Modifier::BOLD),
        Role::Bad => with(Modifier::BOLD | Modifier::UNDERLINED),
        Role::Selected | Role::Banner => with(Modifier::REVERSED),
        Role::Match => with(Modifier::REVERSED | Modifier::BOLD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 13] = [
        Role::Text,
        Role::Dim,
        Role::Title,
        Role::Good,
        Role::Warn,
        Role::Bad,
        Role::Info,
        Role::Key,
        Role::Border,
        Role::Focus,
        Role::Selected,
        Role::Match,
        Role::Banner,
    ];

    #[test]
    fn mono_has_no_colour_at_all_and_still_marks_the_selection() {
        let theme = Theme { name: ThemeName::Mono };
        for role in ROLES {
            let style = theme.style(role);
            assert_eq!((style.fg, style.bg), (None, None), "{role:?}");
        }
        assert!(theme.style(Role::Selected).add_modifier.contains(Modifier::REVERSED));
    }

    #[test]
    fn ordinary_text_never_sets_a_colour() {
        for name in ThemeName::ALL {
            assert_eq!(Theme { name }.style(Role::Text), Style::new(), "{name:?}");
        }
    }
}
