//! The terminal: taken over, given back whatever happens, and its keys as words. Nothing else of the console knows escape sequences.

use std::cell::Cell;
use std::io::{BufWriter, Stdout, Write};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossterm::cursor::{Hide, Show};
use crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture, KeyCode, KeyEvent,
    KeyEventKind, KeyModifiers,
};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use tokio::sync::oneshot;

use super::app::App;
use super::view;
use crate::exit;

/// A frame of a large screen fits into it.
const BUFFER_BYTES: usize = 64 << 10;

/// Longest time for a clean end once the terminal is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Whether the terminal is ours: whoever leaves for good asks here first.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Held while something is written that is to be there after the end.
static WRITING: Mutex<()> = Mutex::new(());

/// Held while a frame is drawn.
static DRAWING: Mutex<()> = Mutex::new(());
thread_local! {
    /// Whether it is this thread that draws one.
    static DRAWS: Cell<bool> = const { Cell::new(false) };
}
/// How often, and after how long each time, another thread looks whether the frame that is being drawn has come to its end.
const DRAWING_LOOKS: (u32, Duration) = (200, Duration::from_millis(10));

/// The screen.
pub(super) struct Screen {
    /// Never dropped: it would show the cursor once more, and panic where the terminal is gone and cannot even be told that.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<BufWriter<Stdout>>>>,
    /// Whether the mouse is on.
    mouse: bool,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn enter() -> std::io::Result<Self> {
        let backend = CrosstermBackend::new(BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout()));
        let screen = Self { terminal: ManuallyDrop::new(Terminal::new(backend)?), mouse: false };
        // From here on it is given back whatever happens, half taken too.
        take()?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> std::io::Result<(u16, u16)> {
        let size = self.terminal.size()?;
        Ok((size.width, size.height))
    }

    /// Draws what has changed, in one go.
    pub(super) fn draw(&mut self, app: &App) -> std::io::Result<()> {
        let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread has failed, and the program is about to end.
        if !TAKEN.load(Ordering::SeqCst) {
            return Ok(());
        }
        DRAWS.set(true);
        let drawn = self.draw_whole(app);
        DRAWS.set(false);
        drawn
    }

    fn draw_whole(&mut self, app: &App) -> std::io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|frame| view::draw(app, frame))?;
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
    }

    /// Forgets what is on the terminal: the next frame is drawn whole.
    pub(super) fn repaint(&mut self) -> std::io::Result<()> {
        let size = self.terminal.size()?;
        // Not `clear`: it asks the terminal where its cursor is, and the answer would be read by whoever reads the keys.
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Turns the mouse on or off.
    pub(super) fn set_mouse(&mut self, on: bool) -> std::io::Result<()> {
        self.mouse = on;
        if on {
            execute!(self.terminal.backend_mut(), EnableMouseCapture)
        } else {
            execute!(self.terminal.backend_mut(), DisableMouseCapture)
        }
    }

    /// Puts a text into the terminal's clipboard (OSC 52).
    pub(super) fn copy(&mut self, text: &str) -> std::io::Result<()> {
        let backend = self.terminal.backend_mut();
        write!(backend, "\x1b]52;c;{}\x07", crate::text::base64(text.as_bytes()))?;
        Write::flush(backend)
    }

    /// Gives the terminal away for a while.
    pub(super) fn pause(&mut self) {
        give_back();
    }

    /// Takes it back: what is on it is unknown.
    pub(super) fn resume(&mut self) -> std::io::Result<()> {
        take()?;
        if self.mouse {
            self.set_mouse(true)?;
        }
        self.repaint()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Notices that the terminal has gone away, with a signal or without one. Whoever reads the keys cannot: the reader of events takes
/// the end of a terminal for a key that is not whole yet, and asks for the rest of it for ever. So if the receiver has not ended the
/// program two seconds after it was told, this ends it, with [`exit::HUNG_UP`], unless [`to_the_end`] is at work.
pub(super) fn watch() -> std::io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("terminal".into()).spawn(move || {
        while !is_gone(None) {}
        // One that does not listen any more is ending already, and may yet be held up by a reader that never comes back.
        let _ = sender.send(());
        std::thread::sleep(LAST_WORDS);
        // A busy disk takes its time, and that one is listened to.
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        give_back();
        std::process::exit(i32::from(exit::HUNG_UP));
    })?;
    Ok(receiver)
}

/// Writes something without being ended on the way because the terminal is gone.
pub(super) fn to_the_end(write: impl FnOnce()) {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    write();
}

/// Whether the terminal goes away within this time, without a limit if there is none. May give up earlier.
pub(super) fn is_gone(time: Option<Duration>) -> bool {
    // Nothing is asked for: an end is told in any case.
    let mut poll = libc::pollfd { fd: libc::STDIN_FILENO, events: 0, revents: 0 };
    let time = time.map_or(-1, |time| i32::try_from(time.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: one entry, which lives as long as the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, time) };
    ready > 0 && poll.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

fn take() -> std::io::Result<()> {
    // Colours are the theme's business: without this, NO_COLOR would take bold and reverse away too.
    crossterm::style::force_color_output(true);
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(std::io::stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide)
}

/// Gives the terminal back as it was, if it is ours. May be called from anywhere, more than once.
pub(super) fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // The terminal may be gone, and then nothing is left to give back.
    let _ = execute!(
        std::io::stdout(),
        EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        Show
    );
    let _ = disable_raw_mode();
}

/// Gives the terminal back after a failure, in whatever thread it is. A frame that another one is drawing meanwhile would hide the cursor
/// again, so its end is waited for, and none begins after that. On a terminal that takes nothing it has none: the wait is a short one.
pub(super) fn give_back_after_failure() {
    if DRAWS.get() {
        return give_back();
    }
    let (looks, pause) = DRAWING_LOOKS;
    let drawing = (0..looks).find_map(|_| {
        let drawing = DRAWING.try_lock().ok();
        if drawing.is_none() {
            std::thread::sleep(pause);
        }
        drawing
    });
    give_back();
    drop(drawing);
}

/// A key in the words of the key table; `None` for what is no press of a key.
pub(super) fn word(key: KeyEvent) -> Option<String> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    let name = match key.code {
        KeyCode::Char(' ') => "Space".to_owned(),
        KeyCode::Char(c) if control => c.to_lowercase().to_string(),
        KeyCode::Char(c) => c.to_string(),
        KeyCode::Enter => "Enter".into(),
        KeyCode::Esc => "Esc".into(),
        KeyCode::Backspace => "Backspace".into(),
        KeyCode::Delete => "Delete".into(),
        KeyCode::Left => "Left".into(),
        KeyCode::Right => "Right".into(),
        KeyCode::Up => "Up".into(),
        KeyCode::Down => "Down".into(),
        KeyCode::Home => "Home".into(),
        KeyCode::End => "End".into(),
        KeyCode::PageUp => "PgUp".into(),
        KeyCode::PageDown => "PgDn".into(),
        KeyCode::Tab => "Tab".into(),
        KeyCode::BackTab => return Some("Shift-Tab".into()),
        KeyCode::F(number) => format!("F{number}"),
        KeyCode::Insert
        | KeyCode::Null
        | KeyCode::CapsLock
        | KeyCode::ScrollLock
        | KeyCode::NumLock
        | KeyCode::PrintScreen
        | KeyCode::Pause
        | KeyCode::Menu
        | KeyCode::KeypadBegin
        | KeyCode::Media(_)
        | KeyCode::Modifier(_) => return None,
    };
    Some(match (control, alt) {
        (true, _) => format!("Ctrl-{name}"),
        (false, true) => format!("Alt-{name}"),
        (false, false) => name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_the_words_of_the_table() {
        let key = |code, modifiers| word(KeyEvent::new(code, modifiers));
        for (code, modifiers, expected) in [
            (KeyCode::Char('j'), KeyModifiers::NONE, "j"),
            (KeyCode::Char('G'), KeyModifiers::SHIFT, "G"),
            (KeyCode::Char('d'), KeyModifiers::CONTROL, "Ctrl-d"),
            (KeyCode::Char('C'), KeyModifiers::CONTROL, "Ctrl-c"),
            (KeyCode::Char(' '), KeyModifiers::NONE, "Space"),
            (KeyCode::BackTab, KeyModifiers::SHIFT, "Shift-Tab"),
            (KeyCode::PageDown, KeyModifiers::NONE, "PgDn"),
            (KeyCode::Backspace, KeyModifiers::ALT, "Alt-Backspace"),
            (KeyCode::F(5), KeyModifiers::NONE, "F5"),
        ] {
            assert_eq!(key(code, modifiers).as_deref(), Some(expected));
        }
        let release = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE) };
        assert_eq!(word(release), None);
    }
}
