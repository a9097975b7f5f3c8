//! The real program on a pseudo-terminal, seen through a terminal emulator. Everything waits for what is to be seen, never for a time.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};

use super::{Home, program};

/// Longest wait for anything on a screen: machines that build at the same time are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at the screen, at most.
const LOOK: Duration = Duration::from_millis(5);

/// Around what the console draws in one go, for terminals that show all of it or nothing.
const FRAME_BEGINS: &[u8] = b"\x1b[?2026h";
const FRAME_ENDS: &[u8] = b"\x1b[?2026l";

/// Escape alone. Nothing may follow before its effect is seen: together they would be another key.
pub(crate) const ESC: &str = "\x1b";
/// Enter.
pub(crate) const ENTER: &str = "\r";
/// Ctrl-C, which is a key as long as the terminal is raw.
pub(crate) const CTRL_C: &str = "\x03";

/// How a program begins.
pub(crate) struct Start<'a> {
    /// Columns and rows.
    pub(crate) size: (u16, u16),
    /// What the program is started by, with its arguments: `["env", "NAME=VALUE"]`.
    pub(crate) by: &'a [&'a str],
    /// Variables besides the few that every program gets; an empty value takes one away.
    pub(crate) env: &'a [(&'a str, &'a str)],
}

impl Default for Start<'_> {
    fn default() -> Self {
        Self { size: (120, 36), by: &[], env: &[] }
    }
}

/// A program and the terminal on which it runs.
pub(crate) struct Term {
    parser: vt100::Parser,
    master: Option<Box<dyn MasterPty + Send>>,
    /// Kept open so that the modes of the terminal can be read after the program has ended.
    slave: Option<Box<dyn SlavePty + Send>>,
    reader: Option<Box<dyn Read + Send>>,
    writer: Option<Box<dyn Write + Send>>,
    child: Box<dyn Child + Send + Sync>,
    /// Every byte that the program wrote.
    pub(crate) raw: Vec<u8>,
    /// How many of them the screen has: all but a frame whose end is still to come.
    shown: usize,
    /// How the terminal was before the program began.
    modes: String,
    begun: Instant,
}

impl Term {
    /// Starts `modchain` with these arguments on a terminal of 120 columns and 36 rows.
    pub(crate) fn open(home: &Home, args: &[&str]) -> Self {
        Self::open_with(home, args, Start::default())
    }

    /// The same, begun otherwise.
    pub(crate) fn open_with(home: &Home, args: &[&str], start: Start<'_>) -> Self {
        let (columns, rows) = start.size;
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pseudo-terminal");
        // Numbers are measured with the program as it is shipped.
        let program = std::env::var_os("MODCHAIN_TEST_PROGRAM").map_or_else(program, PathBuf::from);
        let program = program.canonicalize().expect("the program is there");
        let mut words = start.by.iter().map(OsString::from).chain([program.into()]);
        let mut command = CommandBuilder::new(words.next().expect("the program at least"));
        command.args(words);
        command.args(args);
        command.cwd(home.path());
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", home.path());
        command.env("XDG_RUNTIME_DIR", home.path());
        command.env("TERM", "xterm-256color");
        command.env("LC_ALL", "C.UTF-8");
        command.env("TZ", "UTC");
        for (name, value) in start.env {
            if value.is_empty() {
                command.env_remove(name);
            } else {
                command.env(name, value);
            }
        }
        let modes = format!("{:?}", pair.master.get_termios().expect("modes"));
        let reader = pair.master.try_clone_reader().expect("a reader");
        let writer = pair.master.take_writer().expect("a writer");
        let begun = Instant::now();
        let child = pair.slave.spawn_command(command).expect("starts");
        Self {
            parser: vt100::Parser::new(cells(rows), cells(columns), 0),
            master: Some(pair.master),
            slave: Some(pair.slave),
            reader: Some(reader),
            writer: Some(writer),
            child,
            raw: Vec::new(),
            shown: 0,
            modes,
            begun,
        }
    }

    /// What is on the screen.
    pub(crate) fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    /// Since the program began.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.process_id().expect("it runs")
    }

    /// The screen as text, one line a row.
    pub(crate) fn text(&self) -> String {
        self.screen().contents()
    }

    /// The first row with this text.
    pub(crate) fn row_with(&self, text: &str) -> Option<u16> {
        rows(self.screen()).position(|row| row.contains(text)).map(|row| u16::try_from(row).expect("few rows"))
    }

    /// The rows that are drawn in reverse or on a ground of their own where their text begins: what is selected.
    pub(crate) fn selected(&self) -> Vec<String> {
        selected(self.screen())
    }

    /// Takes in what the program has written, for as long as `time` if there is nothing yet. Whether there was something.
    pub(crate) fn pump(&mut self, time: Duration) -> bool {
        let Some(reader) = &mut self.reader else { return false };
        let Some(fd) = self.master.as_ref().and_then(|master| master.as_raw_fd()) else { return false };
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let time = i32::try_from(time.as_millis()).expect("a short time");
        // SAFETY: one entry, which lives as long as the call; the descriptor is open as long as `master` is there.
        let ready = unsafe { libc::poll(&raw mut poll, 1, time) };
        if ready <= 0 || poll.revents & libc::POLLIN == 0 {
            return false;
        }
        let mut bytes = [0; 16 << 10];
        // Nobody writes any more: that is an error on Linux, and an end elsewhere.
        let Ok(read @ 1..) = reader.read(&mut bytes) else { return false };
        self.raw.extend_from_slice(&bytes[..read]);
        self.show();
        true
    }

    /// Brings what the program has written to the screen, but never a part of a frame: between two looks at it there may be any number
    /// of frames, and each look sees a whole one.
    fn show(&mut self) {
        // A mark may have come in two parts.
        let from = self.shown.saturating_sub(FRAME_BEGINS.len() - 1);
        let new = &self.raw[from..];
        let last = |mark: &[u8]| new.windows(mark.len()).rposition(|bytes| bytes == mark);
        let upto = match last(FRAME_BEGINS) {
            Some(begins) if last(FRAME_ENDS) < Some(begins) => (from + begins).max(self.shown),
            _ => self.raw.len(),
        };
        self.parser.process(&self.raw[self.shown..upto]);
        self.shown = upto;
    }

    /// Waits until the screen is so.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, is_so: impl Fn(&vt100::Screen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self.screen()) {
            if !self.pump(LOOK) {
                let ended = self.child.try_wait().expect("can be asked");
                let late = Instant::now() >= deadline;
                // What an ended program wrote last may still be on its way.
                if late || (ended.is_some() && !self.pump(Duration::from_millis(500)) && !is_so(self.screen())) {
                    panic!("never: {what}; ended: {ended:?}; the screen:\n{}", self.picture());
                }
            }
        }
    }

    /// Waits until this text is on the screen.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.wait(text, |screen| screen.contents().contains(text));
    }

    /// Waits until this text is not on the screen any more.
    #[track_caller]
    pub(crate) fn wait_gone(&mut self, text: &str) {
        self.wait(&format!("no {text}"), |screen| !screen.contents().contains(text));
    }

    /// Waits until the row that is selected has this text.
    #[track_caller]
    pub(crate) fn wait_selected(&mut self, text: &str) {
        self.wait(&format!("{text} is selected"), |screen| selected(screen).iter().any(|row| row.contains(text)));
    }

    /// Types, in one go.
    pub(crate) fn keys(&mut self, keys: &str) {
        let writer = self.writer.as_mut().expect("the terminal is there");
        writer.write_all(keys.as_bytes()).and_then(|()| writer.flush()).expect("types");
    }

    /// Types, and waits until this text is on the screen.
    #[track_caller]
    pub(crate) fn press(&mut self, keys: &str, text: &str) {
        self.keys(keys);
        self.wait_for(text);
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        self.parser.set_size(cells(rows), cells(columns));
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        self.master.as_ref().expect("the terminal is there").resize(size).expect("resizes");
    }

    /// Sends the program a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(sent.expect("kill is there").success(), "the program is there");
    }

    /// Takes the terminal away, as a window that is closed does.
    pub(crate) fn hang_up(&mut self) {
        (self.reader, self.writer, self.slave, self.master) = (None, None, None, None);
    }

    /// Waits for the end of the program and gives back its exit code.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.pump(LOOK);
            if let Some(status) = self.child.try_wait().expect("can be asked") {
                assert!(status.signal().is_none(), "{status:?}: nobody gave the terminal back");
                return status.exit_code();
            }
            assert!(Instant::now() < deadline, "it does not end; the screen:\n{}", self.picture());
            if self.master.is_none() {
                std::thread::sleep(LOOK);
            }
        }
    }

    /// Waits for the end with this code, and asserts that the terminal is as it was.
    #[track_caller]
    pub(crate) fn ends_clean(&mut self, code: u32) {
        let ended = self.ended();
        let modes = format!("{:?}", self.master.as_ref().expect("a terminal").get_termios().expect("modes"));
        assert_eq!(modes, self.modes, "the modes of the line are not what they were");
        // Without this end there is nobody left who writes: what can be read is all.
        self.slave = None;
        while self.pump(Duration::from_millis(1_000)) {}
        assert_eq!(self.shown, self.raw.len(), "the terminal waits for the end of a frame");
        let screen = self.screen();
        assert!(!screen.alternate_screen(), "the second screen is still on");
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        assert!(!screen.bracketed_paste(), "pasting is still bracketed");
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None, "the mouse is still on");
        assert_eq!(ended, code, "the screen:\n{}", self.picture());
    }

    /// The screen with a number before each row.
    pub(crate) fn picture(&self) -> String {
        rows(self.screen()).enumerate().map(|(number, row)| format!("{number:3} |{row}|\n")).collect()
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        // One that has ended already is not ended again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rows of a screen as text.
pub(crate) fn rows(screen: &vt100::Screen) -> impl Iterator<Item = String> {
    let (_, columns) = screen.size();
    screen.rows(0, columns.get()).map(|row| row.to_string())
}

/// The rows with a run of cells, from the second column on or so, that is reverse or has a ground of its own. The titles of a table and
/// the lines around a view may have one too, so look for the text that is meant.
pub(crate) fn selected(screen: &vt100::Screen) -> Vec<String> {
    let (height, width) = (screen.size().0.get(), screen.size().1.get());
    let marked = |row: u16| {
        let cells = (1..width.min(12)).filter_map(|column| screen.cell(row, column));
        cells.filter(|cell| cell.inverse() || cell.bgcolor() != vt100::Color::Default).count() > 5
    };
    (0..height).zip(rows(screen)).filter(|(row, _)| marked(*row)).map(|(_, text)| text).collect()
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has at least one cell")
}
