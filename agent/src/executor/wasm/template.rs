//! The agent's side of a template: a process that has done what is the same for every job, and that children are forked from.
//!
//! A child then starts with one system call: no program is loaded, linked and relocated for it, and no engine made. What it
//! costs is that children of one template share the layout of their address space, by which a guest that has broken out of the
//! engine could have learnt where things are for the next one, or try again where a guess has missed. So a template has
//! [`FORKS_MAX`] children at most, and none any more once one of them has not ended as it should.
//!
//! The template's own program is [`super::forker`].

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot};

use super::child::CHILD_COMMAND;
use super::handing;
use super::protocol::{Request, TOLD_BYTES, Told};
use super::supervise::printable;

/// Most children of one template. Its start is then a small part of what each of them costs.
const FORKS_MAX: u64 = 64;

/// Most of a dead template's last words that are put into a message, in bytes.
const LAST_WORDS_BYTES_MAX: u64 = 256;

/// A running template. When nobody holds it any more it ends.
#[derive(Debug)]
pub(super) struct Template {
    socket: OwnedWriteHalf,
    children: Arc<Children>,
}

/// What is known about a template's children.
#[derive(Debug, Default)]
struct Children {
    state: Mutex<State>,
    /// The template is to be killed, and they with it.
    given_up: Notify,
}

#[derive(Debug, Default)]
struct State {
    forked: u64,
    /// Who waits for which child.
    ends: HashMap<u64, oneshot::Sender<io::Result<ExitStatus>>>,
    /// One of them has not ended as it should.
    spoiled: bool,
    /// Why there will be no more.
    gone: Option<String>,
}

impl Children {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_in(&self, told: Told) {
        let (child, end) = match told {
            Told::Ended { child, status } => (child, Ok(ExitStatus::from_raw(status))),
            Told::NotForked { child, error } => (child, Err(io::Error::from_raw_os_error(error))),
        };
        let mut state = self.state();
        state.spoiled |= end.as_ref().is_ok_and(|status| !status.success());
        if let Some(waiting) = state.ends.remove(&child) {
            // Nobody waits for one that was given up.
            let _ = waiting.send(end);
        }
    }

    fn end_all(&self, why: String) {
        let mut state = self.state();
        for (_, waiting) in state.ends.drain() {
            let _ = waiting.send(Err(io::Error::other(why.clone())));
        }
        state.gone = Some(why);
    }
}

impl Template {
    /// Starts one that works in `dir`. To be called within a tokio runtime.
    pub(super) fn start(program: &Path, dir: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let process = Command::new(program)
            .arg(CHILD_COMMAND)
            .env_clear()
            .current_dir(dir)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Its own group: a Ctrl-C meant for the agent must not reach the jobs, whose end the agent decides.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (tells, socket) = ours.into_split();
        let children = Arc::new(Children::default());
        tokio::spawn(listen(tells, process, Arc::clone(&children)));
        Ok(Self { socket, children })
    }

    /// Whether it may have another child.
    pub(super) fn is_usable(&self) -> bool {
        let state = self.children.state();
        state.forked < FORKS_MAX && !state.spoiled && state.gone.is_none()
    }

    /// Has it fork a child.
    pub(super) fn fork(self: &Arc<Self>) -> io::Result<Waiting> {
        let (socket, theirs) = std::os::unix::net::UnixStream::pair()?;
        let (guests_stdin, stdin) = io::pipe()?;
        let (stdout, guests_stdout) = io::pipe()?;
        let (stderr, guests_stderr) = io::pipe()?;
        let (told, end) = oneshot::channel();
        let number = {
            let mut state = self.children.state();
            if let Some(why) = &state.gone {
                return Err(io::Error::other(why.clone()));
            }
            state.forked += 1;
            let number = state.forked;
            state.ends.insert(number, told);
            number
        };
        let child = Forked { template: Arc::clone(self), number, end, ended: false };
        let handed = [theirs.as_fd(), guests_stdin.as_fd(), guests_stdout.as_fd(), guests_stderr.as_fd()];
        handing::hand_over(self.socket.as_ref(), &Request::Fork { child: number }.to_bytes(), &handed)?;
        Ok(Waiting { child, socket, stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() })
    }
}

/// Hears what becomes of the children until the template has ended, and they with it.
async fn listen(mut tells: OwnedReadHalf, mut process: Child, children: Arc<Children>) {
    let mut bytes = [0; TOLD_BYTES];
    loop {
        let told = tokio::select! {
            told = tells.read_exact(&mut bytes) => told,
            () = children.given_up.notified() => break,
        };
        if told.is_err() {
            break;
        }
        match Told::from_bytes(&bytes) {
            Some(told) => children.take_in(told),
            None => {
                tracing::warn!("the process that children are forked from does not make sense");
                break;
            }
        }
    }
    // It has closed its end, so it exits; or it is of no use.
    let _ = process.start_kill();
    let mut words = Vec::new();
    if let Some(stderr) = process.stderr.take() {
        // None are an answer, too.
        let _ = stderr.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words).await;
    }
    let status = process.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
    let words = printable(&String::from_utf8_lossy(&words));
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let colon = if words.is_empty() { "" } else { ": " };
    children.end_all(format!("the process that it is forked from is gone ({status}){colon}{words}"));
}

/// A child that waits for its one job. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) child: Forked,
    /// The agent's end.
    pub(super) socket: std::os::unix::net::UnixStream,
    /// Of the guest, as are the others: the ends that the agent has.
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Waiting {
    /// Whether it still waits, and no other child of its template has learnt anything that it should not.
    pub(super) fn is_fit(&self) -> bool {
        let mut polled = libc::pollfd { fd: self.socket.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: `polled` is one entry and lives through the call.
        let asked = unsafe { libc::poll(&raw mut polled, 1, 0) };
        asked == 0 && !self.child.template.children.state().spoiled
    }
}

/// A child. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Forked {
    template: Arc<Template>,
    number: u64,
    end: oneshot::Receiver<io::Result<ExitStatus>>,
    ended: bool,
}

impl Forked {
    /// Waits until it has ended and has been waited for, or could not be started, or has lost its template, which it does not
    /// outlive. Safe to cancel; not to be called again once it has returned.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let end = (&mut self.end).await;
        self.ended = true;
        end.unwrap_or_else(|_| Err(io::Error::other("nobody waits for it")))
    }

    /// Kills it, if it has not ended.
    pub(super) fn kill(&self) {
        // The template is its parent: it knows whether the number is still this child's. Without a template it is dead.
        let request = Request::Kill { child: self.number };
        let _ = handing::hand_over(self.template.socket.as_ref(), &request.to_bytes(), &[]);
    }

    /// Ends the sharing of its template's layout: it does not behave as it should.
    pub(super) fn spoil_template(&self) {
        self.template.children.state().spoiled = true;
    }

    /// Kills its template, which does not do what it was asked to, and with it every child that it has.
    pub(super) fn give_template_up(&self) {
        self.template.children.given_up.notify_one();
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_template_of_a_child_that_makes_no_sense_has_no_more() {
        let template = Arc::new(Template::start(Path::new("/usr/bin/yes"), Path::new("/")).unwrap());
        let (first, second) = (template.fork().unwrap(), template.fork().unwrap());
        assert!(template.is_usable() && second.is_fit());
        first.child.spoil_template();
        assert!(!template.is_usable() && !second.is_fit());
        first.child.give_template_up();
    }

    #[tokio::test]
    async fn a_template_that_does_not_answer_can_be_given_up() {
        // It says something for ever, to nobody, and hears nothing.
        let template = Arc::new(Template::start(Path::new("/usr/bin/yes"), Path::new("/")).unwrap());
        let mut waiting = template.fork().unwrap();
        assert!(template.is_usable() && waiting.is_fit());
        waiting.child.kill();
        waiting.child.give_template_up();
        let error = waiting.child.wait().await.unwrap_err();
        assert!(error.to_string().contains("is gone (signal: 9"), "{error}");
        assert!(!template.is_usable());
        assert!(template.fork().is_err());
    }
}
