//! What comes into the console, and what it wants done.

use std::path::PathBuf;

use modchain_types::{JobId, SubmitKey};
use modchain_wire::console::TokenCreate;
use zeroize::Zeroizing;

use crate::cli::spec::{Earlier, Plan};
use crate::client::live::{AskId, FromLive, ToLive};
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
    /// The key of a submit could not be written down, so nothing was sent.
    NotSubmitted(AskId, Failure),
    /// A token was drawn for this errand, or could not be.
    Drawn(u64, Result<Box<Drawn>, Failure>),
    /// A key was drawn for this errand and its command line, or could not be.
    Keyed(u64, Vec<String>, Result<SubmitKey, Failure>),
    /// What the program has to say that would go to standard error without a console.
    Said(String),
    /// The program was stopped and goes on: whatever was on the screen is gone.
    Resumed,
    /// The moment has come that [`super::update::deadline`] asked for.
    Deadline,
}

/// A token whose secret nobody has been told yet.
#[derive(Debug)]
pub(crate) struct Drawn {
    /// Its whole text.
    pub(crate) secret: Secret,
    /// What the orchestrator is told of it.
    pub(crate) request: TokenCreate,
    /// Where its user joins.
    pub(crate) join: String,
}

/// A text that is shown once and wiped after that.
pub(crate) struct Secret(pub(crate) Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
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
    /// Look at a command line (without the program's name) and say what it would submit: [`Msg::Planned`] with this number. A line
    /// that runs an earlier job again needs what that was submitted with.
    Plan(u64, Vec<String>, Option<Box<Earlier>>),
    /// Submit it under a new key, which is written down first. The answer comes under this name.
    Submit(AskId, Box<Plan>),
    /// Draw the token that this `token create` asks for: [`Msg::Drawn`] with this number.
    DrawToken(u64, Vec<String>),
    /// Draw a key for this command line: [`Msg::Keyed`] with this number.
    DrawKey(u64, Vec<String>),
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
