//! What comes into the console, and what it wants done.

use std::path::PathBuf;

use modchain_types::JobId;

use crate::cli::spec::Plan;
use crate::client::live::{FromLive, ToLive};
use crate::exit::Failure;

/// What happens to the console.
#[derive(Debug)]
pub(crate) enum Msg {
    /// A key was pressed, in the words of the key table: `j`, `Ctrl-d`, `Enter`.
    Key(String),
    /// Text was pasted.
    Paste(String),
    /// The mouse did something; only while it is on.
    Mouse(Mouse),
    /// The terminal has another size now: columns, rows.
    Resize(u16, u16),
    /// Something came over the link.
    Live(Box<FromLive>),
    /// A command line was looked at: what it would submit, or what is wrong with it. The number is that of the form's edit.
    Planned(u64, Result<Box<Plan>, Failure>),
    /// An editor was closed: the text as it is now, or why there is none.
    Edited(Result<String, Failure>),
    /// A file was written, or could not be.
    Written(PathBuf, Result<(), Failure>),
    /// A job was submitted from here: what `@last` means from now on.
    Sent(JobId),
    /// What the program has to say that would go to standard error without a console.
    Said(String),
    /// The program was stopped and goes on: whatever was on the screen is gone.
    Resumed,
    /// The moment has come that [`super::App::deadline`] asked for.
    Deadline,
}

/// What the mouse did, at a column and a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mouse {
    /// The left button went down.
    Click(u16, u16),
    /// The wheel turned up there.
    WheelUp(u16, u16),
    /// The wheel turned down there.
    WheelDown(u16, u16),
}

/// What is to be done outside.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Over the link.
    Send(ToLive),
    /// Look at a command line (without the program's name) and say what it would submit: [`Msg::Planned`] with this number.
    Plan(u64, Vec<String>),
    /// Submit it under a new key, which is written down first. The answer comes under this name.
    Submit(crate::client::live::AskId, Box<Plan>),
    /// Into the clipboard of the terminal.
    Copy(String),
    /// Into a new file; never over one that is there.
    Write(PathBuf, Vec<u8>),
    /// Open an editor on this text.
    Edit(String),
    /// Go to another context.
    UseContext(String),
    /// Turn the mouse on or off.
    Mouse(bool),
    /// Stop as Ctrl-Z does.
    Suspend,
    /// Paint everything anew.
    Repaint,
    /// Leave with this exit code.
    Quit(u8),
}
