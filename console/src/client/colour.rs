//! Colours in output: what an SGR sequence means, one way to write it, and reading it back. Hiding text and blinking are not
//! among what passes: the first lies, and nobody wants the second.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Colour {
    /// What the terminal uses for text or ground.
    #[default]
    Default,
    /// One of the 256 of the terminal's palette.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// How text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Look {
    /// Of the characters.
    pub(crate) foreground: Colour,
    /// Behind them.
    pub(crate) background: Colour,
    pub(crate) bold: bool,
    pub(crate) dim: bool,
    pub(crate) italic: bool,
    pub(crate) underlined: bool,
    pub(crate) reversed: bool,
    pub(crate) crossed_out: bool,
}

impl Look {
    /// What an SGR of these numbers makes of it. Numbers that mean nothing here change nothing.
    pub(crate) fn apply(&mut self, numbers: &str) {
        let mut parts = numbers.split(';');
        while let Some(part) = parts.next() {
            // Colons keep the numbers of one attribute together: `38:2::R:G:B`, `4:3`.
            let mut inner = part.split(':');
            let Some(code) = number(inner.next()) else { continue };
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underlined = number(inner.next().or(Some("1"))) != Some(0),
                7 => self.reversed = true,
                9 => self.crossed_out = true,
                21 => self.underlined = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underlined = false,
                27 => self.reversed = false,
                29 => self.crossed_out = false,
                30..=37 => self.foreground = Colour::Indexed(code - 30),
                39 => self.foreground = Colour::Default,
                40..=47 => self.background = Colour::Indexed(code - 40),
                49 => self.background = Colour::Default,
                90..=97 => self.foreground = Colour::Indexed(code - 90 + 8),
                100..=107 => self.background = Colour::Indexed(code - 100 + 8),
                38 | 48 | 58 => {
                    let colour = if part.contains(':') { with_colons(inner) } else { with_semicolons(&mut parts) };
                    match (code, colour) {
                        (38, Some(colour)) => self.foreground = colour,
                        (48, Some(colour)) => self.background = colour,
                        // The colour of the line under the text, or nonsense.
                        (_, _) => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// Appends the sequence that shows text like this, whatever was before.
    fn write(&self, out: &mut String) {
        out.push_str("\x1b[0");
        let flags = [
            (self.bold, 1),
            (self.dim, 2),
            (self.italic, 3),
            (self.underlined, 4),
            (self.reversed, 7),
            (self.crossed_out, 9),
        ];
        for (_, code) in flags.into_iter().filter(|(set, _)| *set) {
            push(out, format_args!(";{code}"));
        }
        for (colour, base) in [(self.foreground, 30), (self.background, 40)] {
            match colour {
                Colour::Default => {}
                Colour::Indexed(index @ 0..=7) => push(out, format_args!(";{}", base + index)),
                Colour::Indexed(index @ 8..=15) => push(out, format_args!(";{}", base + 52 + index)),
                Colour::Indexed(index) => push(out, format_args!(";{};5;{index}", base + 8)),
                Colour::Rgb(red, green, blue) => push(out, format_args!(";{};2;{red};{green};{blue}", base + 8)),
            }
        }
        out.push('m');
    }
}

fn push(out: &mut String, words: std::fmt::Arguments<'_>) {
    out.write_fmt(words).expect("writing to memory does not fail");
}

/// An empty number is zero.
fn number(text: Option<&str>) -> Option<u8> {
    match text? {
        "" => Some(0),
        text => text.parse().ok(),
    }
}

fn with_semicolons<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Colour> {
    match number(parts.next())? {
        5 => Some(Colour::Indexed(number(parts.next())?)),
        2 => Some(Colour::Rgb(number(parts.next())?, number(parts.next())?, number(parts.next())?)),
        _ => None,
    }
}

fn with_colons<'a>(mut inner: impl Iterator<Item = &'a str>) -> Option<Colour> {
    let kind = number(inner.next())?;
    let rest: Vec<Option<u8>> = inner.map(|part| number(Some(part))).collect();
    match (kind, rest.as_slice()) {
        (5, [Some(index), ..]) => Some(Colour::Indexed(*index)),
        // With the number of a colour space, mostly empty, or without.
        (2, [_, Some(red), Some(green), Some(blue), ..] | [Some(red), Some(green), Some(blue)]) => {
            Some(Colour::Rgb(*red, *green, *blue))
        }
        _ => None,
    }
}

/// Text with colours under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Painted {
    text: String,
    /// Where the look changes, and to what; at the start it is the default.
    changes: Vec<(usize, Look)>,
}

impl Painted {
    /// Appends text of this look.
    pub(crate) fn push(&mut self, text: &str, look: Look) {
        if self.look() != look {
            self.changes.push((self.text.len(), look));
        }
        self.text.push_str(text);
    }

    /// The look of the last character.
    pub(crate) fn look(&self) -> Look {
        self.changes.last().map_or(Look::default(), |(_, look)| *look)
    }

    /// The text alone.
    pub(crate) fn plain(&self) -> &str {
        &self.text
    }

    /// How often the look changes.
    pub(crate) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Takes away the last character, and gives it.
    pub(crate) fn pop(&mut self) -> Option<char> {
        let gone = self.text.pop();
        while self.changes.last().is_some_and(|(place, _)| *place >= self.text.len()) {
            self.changes.pop();
        }
        gone
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.changes.clear();
    }

    /// The text with a sequence wherever the look changes.
    pub(crate) fn render(&self) -> Arc<str> {
        if self.changes.is_empty() {
            return self.text.as_str().into();
        }
        let mut out = String::with_capacity(self.text.len() + 16 * self.changes.len());
        let mut done = 0;
        for (place, look) in &self.changes {
            out.push_str(&self.text[done..*place]);
            look.write(&mut out);
            done = *place;
        }
        out.push_str(&self.text[done..]);
        out.into()
    }
}

/// The text that [`Painted`] made, piece by piece, each with its look.
pub(crate) fn runs(text: &str) -> impl Iterator<Item = (Look, &str)> {
    let mut look = Look::default();
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            match rest.strip_prefix("\x1b[").and_then(|sequence| sequence.split_once('m')) {
                Some((numbers, after)) => {
                    look.apply(numbers);
                    rest = after;
                }
                None => {
                    // The first byte may be an escape that nobody made: it is no reason to stand still.
                    let end = rest.bytes().skip(1).position(|byte| byte == 0x1b).map_or(rest.len(), |place| place + 1);
                    let (run, after) = rest.split_at(end);
                    rest = after;
                    return Some((look, run));
                }
            }
        }
    })
}

/// The text without its colours.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\x1b') { runs(text).map(|(_, run)| run).collect() } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(numbers: &str) -> Look {
        let mut look = Look::default();
        look.apply(numbers);
        look
    }

    #[test]
    fn every_way_to_write_a_colour_is_read() {
        let coloured = |foreground| Look { foreground, ..Look::default() };
        for (numbers, expected) in [
            ("31", coloured(Colour::Indexed(1))),
            ("97", coloured(Colour::Indexed(15))),
            ("38;5;208", coloured(Colour::Indexed(208))),
            ("38:5:208", coloured(Colour::Indexed(208))),
            ("38;2;1;2;3", coloured(Colour::Rgb(1, 2, 3))),
            ("38:2:1:2:3", coloured(Colour::Rgb(1, 2, 3))),
            ("38:2::1:2:3", coloured(Colour::Rgb(1, 2, 3))),
            ("31;39", Look::default()),
            ("1;31;", Look::default()),
            ("", Look::default()),
            ("4:3", Look { underlined: true, ..Look::default() }),
            ("4;4:0", Look::default()),
            ("1;2;22;3;9", Look { italic: true, crossed_out: true, ..Look::default() }),
            ("5;8;300;38;7", Look::default()),
            ("48;5;9;7", Look { background: Colour::Indexed(9), reversed: true, ..Look::default() }),
        ] {
            assert_eq!(look(numbers), expected, "{numbers}");
        }
    }

    #[test]
    fn what_is_painted_reads_back_and_says_nothing_twice() {
        let red = look("1;31");
        let other = look("4;38;2;1;2;3;48;5;250");
        let mut painted = Painted::default();
        for (text, look) in [("a", Look::default()), ("b", red), ("c", red), ("d", other), ("e", Look::default())] {
            painted.push(text, look);
        }
        let text = painted.render();
        assert_eq!(&*text, "a\x1b[0;1;31mbc\x1b[0;4;38;2;1;2;3;48;5;250md\x1b[0me");
        let read: Vec<_> = runs(&text).collect();
        assert_eq!(read, [(Look::default(), "a"), (red, "bc"), (other, "d"), (Look::default(), "e")]);
        assert_eq!((&*plain(&text), painted.plain(), painted.changes()), ("abcde", "abcde", 3));
        assert_eq!((painted.pop(), painted.pop()), (Some('e'), Some('d')));
        assert_eq!(&*painted.render(), "a\x1b[0;1;31mbc");
        painted.push("!", look("92"));
        assert_eq!(&*painted.render(), "a\x1b[0;1;31mbc\x1b[0;92m!");
    }

    #[test]
    fn any_text_is_read_without_standing_still() {
        for text in ["\x1b", "\x1b\x1b[", "a\x1b[31", "\x1b[mx\x1b"] {
            assert!(runs(text).count() <= text.len(), "{text:?}");
        }
    }
}
