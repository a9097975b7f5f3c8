//! Job output on a terminal. The bytes come from strangers: only text, newlines, tabs and SGR colours pass; everything that
//! could move the cursor, write the clipboard, set titles or answer questions is dropped, and so are characters that hide or turn
//! the text around them. State is kept between pieces, so that an escape sequence cut in two is still recognised.

/// Longest SGR sequence that is let through; longer ones are nobody's colours.
const SGR_BYTES_MAX: usize = 64;

/// The filter of one stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cleaner {
    state: State,
    /// The sequence so far, while it may still become an SGR.
    pending: Vec<u8>,
    /// A UTF-8 character that began in an earlier piece.
    partial: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC [.
    Csi,
    /// In an OSC, DCS, PM, APC or SOS: ends with BEL or ST.
    Str,
    /// An ESC inside such a string: perhaps the beginning of ST.
    StrEscape,
}

/// Takes what the filter finds.
pub(crate) trait Sink {
    /// Characters that may be shown as they are.
    fn text(&mut self, text: &str);
    /// A control character, a hidden one, or U+FFFD for bytes that are no text.
    fn special(&mut self, c: char);
    /// The numbers of an SGR: digits, semicolons and colons.
    fn colour(&mut self, numbers: &str);
}

/// What passes on to a terminal.
struct Shown(Vec<u8>);

impl Sink for Shown {
    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn special(&mut self, c: char) {
        if matches!(c, '\n' | '\t' | char::REPLACEMENT_CHARACTER) {
            self.0.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn colour(&mut self, numbers: &str) {
        self.0.extend_from_slice(b"\x1b[");
        self.0.extend_from_slice(numbers.as_bytes());
        self.0.push(b'm');
    }
}

impl Cleaner {
    /// What may be shown of `bytes`.
    pub(crate) fn clean(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Shown(Vec::with_capacity(bytes.len()));
        self.feed(bytes, &mut shown);
        shown.0
    }

    /// Takes `bytes` apart.
    pub(crate) fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        let mut joined = std::mem::take(&mut self.partial);
        let mut rest = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => return self.take(text, sink),
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.take(std::str::from_utf8(valid).expect("was just found to be valid"), sink);
            match error.error_len() {
                Some(bad) => {
                    self.step(char::REPLACEMENT_CHARACTER, sink);
                    rest = &after[bad..];
                }
                None => {
                    self.partial = after.to_vec();
                    return;
                }
            }
        }
    }

    fn take(&mut self, mut text: &str, sink: &mut impl Sink) {
        loop {
            if self.state == State::Text {
                // Most of most outputs, all at once.
                let plain = text.bytes().position(|byte| !matches!(byte, b' '..=b'~')).unwrap_or(text.len());
                if plain > 0 {
                    sink.text(&text[..plain]);
                    text = &text[plain..];
                }
            }
            let mut characters = text.chars();
            let Some(c) = characters.next() else { return };
            self.step(c, sink);
            text = characters.as_str();
        }
    }

    fn step(&mut self, c: char, sink: &mut impl Sink) {
        self.state = match (self.state, c) {
            (State::Str, '\x07') => State::Text,
            (State::Str, '\x1b') => State::StrEscape,
            (State::Str, _) => State::Str,
            (State::StrEscape, '\\') => State::Text,
            (State::StrEscape, '\x1b') => State::StrEscape,
            (State::StrEscape, _) => State::Str,
            (_, '\x1b') => State::Escape,
            (State::Text, _) => {
                if c.is_control() || c == char::REPLACEMENT_CHARACTER || modchain_types::is_hidden(c) {
                    sink.special(c);
                } else {
                    sink.text(c.encode_utf8(&mut [0; 4]));
                }
                State::Text
            }
            (State::Escape, '[') => {
                self.pending.clear();
                State::Csi
            }
            (State::Escape, ']' | 'P' | '^' | '_' | 'X') => State::Str,
            // Intermediate bytes: the sequence goes on.
            (State::Escape, '\x20'..='\x2f') => State::Escape,
            (State::Escape, _) => State::Text,
            (State::Csi, 'm') => {
                let numbers = std::str::from_utf8(&self.pending).unwrap_or("?");
                if numbers.len() <= SGR_BYTES_MAX && numbers.bytes().all(|b| b.is_ascii_digit() || b";:".contains(&b)) {
                    sink.colour(numbers);
                }
                State::Text
            }
            (State::Csi, '\x20'..='\x3f') => {
                if self.pending.len() <= SGR_BYTES_MAX {
                    self.pending.extend(u8::try_from(c));
                }
                State::Csi
            }
            (State::Csi, _) => State::Text,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole_and_bytewise(input: &[u8]) -> String {
        let whole = Cleaner::default().clean(input);
        let mut cleaner = Cleaner::default();
        let bytewise: Vec<u8> = input.iter().flat_map(|byte| cleaner.clean(&[*byte])).collect();
        assert_eq!(whole, bytewise, "the pieces must not matter");
        String::from_utf8(whole).expect("clean text is UTF-8")
    }

    #[test]
    fn text_newlines_tabs_and_colours_pass() {
        for text in ["plain\n\ttab\n", "\x1b[31mred\x1b[0m", "\x1b[38;2;1;2;3mtrue\x1b[m", "äöü 漢字 🦀"] {
            assert_eq!(whole_and_bytewise(text.as_bytes()), text);
        }
    }

    #[test]
    fn everything_that_commands_the_terminal_is_dropped() {
        for (input, shown) in [
            ("a\x1b[2Jb", "ab"),
            ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
            ("a\x1b]0;title\x1b\\b", "ab"),
            ("a\x1bP1$tq\x1b\\b", "ab"),
            ("a\x1b[6nb\x1b[>c", "ab"),
            ("a\r\x08\x07b\x7f", "ab"),
            ("a\u{9b}2Jb", "a2Jb"),
            ("a\x1bcb", "ab"),
            ("a\x1b(0b", "ab"),
            ("a\x1b[?1049mb", "ab"),
        ] {
            assert_eq!(whole_and_bytewise(input.as_bytes()), shown, "{input:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_marked() {
        let cleaned = Cleaner::default().clean(b"a\xffb");
        assert_eq!(String::from_utf8(cleaned).expect("text"), "a\u{fffd}b");
    }

    /// What must hold for anything that comes out.
    fn check_shown(input: &[u8], shown: &[u8]) {
        let shown = std::str::from_utf8(shown).expect("clean text is UTF-8");
        // Only colours begin with an escape: a few digits, then an m.
        let mut pieces = shown.split('\x1b');
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (colour, after) = piece.strip_prefix('[').and_then(|rest| rest.split_once('m')).expect("a colour");
            assert!(colour.len() <= SGR_BYTES_MAX && colour.bytes().all(|b| b.is_ascii_digit() || b";:".contains(&b)));
            text.push_str(after);
        }
        for c in text.chars() {
            assert!(matches!(c, '\n' | '\t') || !c.is_control(), "{c:?}");
            assert!(!modchain_types::is_hidden(c), "{c:?}");
        }
        // Nothing is made up and nothing changes its place.
        let mut given = String::from_utf8_lossy(input).into_owned();
        given.push(char::REPLACEMENT_CHARACTER);
        let mut given = given.chars();
        for c in shown.chars().filter(|c| *c != char::REPLACEMENT_CHARACTER) {
            assert!(given.any(|one| one == c), "{c:?} was not there");
        }
    }

    fn cleaned(input: &[u8], pieces: &[usize]) -> Vec<u8> {
        let (mut cleaner, mut shown, mut rest) = (Cleaner::default(), Vec::new(), input);
        for length in pieces {
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            shown.extend(cleaner.clean(piece));
            rest = after;
        }
        shown.extend(cleaner.clean(rest));
        shown
    }

    #[test]
    fn any_bytes_come_out_without_commands_to_the_terminal() {
        let words: [&[u8]; 14] = [
            b"\x1b[",
            b"\x1b]52;c;",
            b"\x07",
            b"\x1b\\",
            b"\x1bP",
            b"\x1b[31m",
            b"\xc2\x9b",
            b"\xe2\x80\xae",
            b"\xe2\x80\x8b",
            b"\xf0\x9f",
            b"\xff",
            b"\x1b",
            b"m",
            b"1;",
        ];
        crate::fuzz::target("clean").words(&words).longest(512).executions(10_000).run(|input| {
            let whole = cleaned(input, &[]);
            check_shown(input, &whole);
            assert_eq!(cleaned(input, &[1, 2, 3, input.len() / 2]), whole, "the pieces must not matter");
            assert_eq!(cleaned(input, &vec![1; input.len()]), whole, "the pieces must not matter");
            let kinds = ["\x1b[", "\n", "\u{fffd}"].map(|kind| String::from_utf8_lossy(&whole).contains(kind));
            modchain_fuzz::signature(&(kinds, whole.len().checked_ilog2(), input.len().checked_ilog2()))
        });
    }

    #[test]
    fn hand_made_attacks_on_the_terminal_show_nothing_but_their_text() {
        for bomb in crate::fuzz::bombs("clean") {
            let (shown, spent) = modchain_fuzz::spend(|| cleaned(&bomb.input, &[]));
            check_shown(&bomb.input, &shown);
            assert!(spent.peak_bytes <= 4096 + 8 * bomb.input.len(), "{} takes {}", bomb.name, spent.peak_bytes);
            assert_eq!(String::from_utf8_lossy(&shown).trim_end(), bomb.answer, "{}", bomb.name);
        }
    }
}
