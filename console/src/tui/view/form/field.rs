//! One field of a form: what it is called, what it takes, how it becomes words of a command line.

use std::collections::BTreeSet;

use tui_input::Input;
use unicode_width::UnicodeWidthChar;

use super::super::super::command;
use crate::cli::spec::LEFT_OUT;

/// How a field is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// One value.
    Text,
    /// Several values, as a shell splits them: each becomes a flag of its own.
    Words,
    /// What stands after `--`, as a shell splits it.
    Rest,
    /// A word of its own on the line, without a flag.
    Positional,
    /// One of these: the word of the flag, and what people call it. An empty word is what is meant where nothing is said.
    Choice(&'static [(&'static str, &'static str)]),
    /// Yes or no.
    Switch,
}

/// What a field is, in one of the tables of fields.
#[derive(Debug)]
pub(super) struct Spec {
    /// The flag without its dashes.
    pub(super) word: &'static str,
    /// What stands before it.
    pub(super) label: &'static str,
    /// One line about it.
    pub(super) help: &'static str,
    /// How it is filled in.
    pub(super) control: Control,
    /// Columns of its box; 0 is as many as there are.
    pub(super) width: u16,
    /// Kinds of jobs that have it; every form but that of a job has only one kind.
    pub(super) kinds: &'static str,
    /// Whether it is shown only when all are.
    pub(super) rare: bool,
    /// Whether it stands in the row of the field before it, where there is room.
    pub(super) joined: bool,
}

/// What is in a field.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A text.
    Text(Input),
    /// A place in the list of the choice.
    Choice(usize),
    /// Yes or no.
    Switch(bool),
}

/// A field of an open form.
#[derive(Debug)]
pub(super) struct Field {
    /// What it is.
    pub(super) spec: &'static Spec,
    /// What is in it.
    pub(super) value: Value,
    /// What was in it at first, where the command line says only what is changed.
    pub(super) before: Option<String>,
    /// What is wrong with it.
    pub(super) fault: Option<String>,
}

impl Field {
    /// An empty field.
    pub(super) fn new(spec: &'static Spec) -> Self {
        let value = match spec.control {
            Control::Text | Control::Words | Control::Rest | Control::Positional => Value::Text(Input::default()),
            Control::Choice(_) => Value::Choice(0),
            Control::Switch => Value::Switch(false),
        };
        Self { spec, value, before: None, fault: None }
    }

    /// What is in it, as one text.
    pub(super) fn text(&self) -> String {
        match (&self.value, self.spec.control) {
            (Value::Text(input), _) => input.value().to_owned(),
            (Value::Choice(place), Control::Choice(words)) => words.get(*place).map_or("", |(word, _)| word).to_owned(),
            (Value::Choice(_), _) => String::new(),
            (Value::Switch(on), _) => if *on { "yes" } else { "" }.to_owned(),
        }
    }

    /// Puts a text into it.
    pub(super) fn set(&mut self, text: &str) {
        self.value = match (&self.value, self.spec.control) {
            (Value::Choice(_), Control::Choice(words)) => {
                Value::Choice(words.iter().position(|(word, _)| *word == text).unwrap_or(0))
            }
            (Value::Switch(_), _) => Value::Switch(!text.is_empty()),
            (Value::Text(_) | Value::Choice(_), _) => Value::Text(Input::new(text.to_owned())),
        };
    }

    /// Whether it says something that is to stand on the line.
    pub(super) fn says(&self) -> bool {
        let text = self.text();
        match &self.before {
            Some(before) => *before != text,
            None => !text.trim().is_empty(),
        }
    }

    /// Its word for `--without`, where what was in it at first is not to be said any more: all of it, or names of pairs that would
    /// come back otherwise.
    pub(super) fn left_out(&self) -> Option<&'static str> {
        let before = self.before.as_deref().filter(|before| !before.trim().is_empty())?;
        let text = self.text();
        let names = |text: &str| -> Option<BTreeSet<String>> {
            let words = command::split(text).ok()?;
            Some(words.iter().map(|word| word.split('=').next().unwrap_or_default().to_owned()).collect())
        };
        let gone = match self.spec.word {
            "env" | "label" | "require" => !names(before)?.is_subset(&names(&text)?),
            _ => text.trim().is_empty(),
        };
        (gone && LEFT_OUT.contains(&self.spec.word)).then_some(self.spec.word)
    }

    /// Its words on a command line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn words(&self) -> Result<Vec<String>, String> {
        if !self.says() {
            return Ok(Vec::new());
        }
        let text = self.text();
        if text.trim().is_empty() {
            if self.left_out().is_some() {
                return Ok(Vec::new());
            }
            let before = self.before.as_deref().unwrap_or_default();
            return Err(format!("was {before}: only another value can take its place (Ctrl-u, Ctrl-z brings it back)"));
        }
        let flag = format!("--{}", self.spec.word);
        // A value that looks like a flag must not be taken for one.
        let said = |value: &str| match value.starts_with('-') {
            true => vec![format!("{flag}={value}")],
            false => vec![flag.clone(), value.to_owned()],
        };
        Ok(match self.spec.control {
            Control::Text | Control::Choice(_) => said(&text),
            Control::Words => command::split(&text)?.iter().flat_map(|word| said(word)).collect(),
            Control::Rest => command::split(&text)?,
            Control::Positional => vec![text],
            Control::Switch => vec![flag],
        })
    }
}

/// A text on one line of the screen: line ends and other controls are one column wide.
pub(crate) fn visible(text: &str, ascii: bool) -> String {
    text.chars()
        .map(|c| match c {
            '\n' if !ascii => '↵',
            c if c.width().is_none() => '.',
            c if ascii && !c.is_ascii() => '?',
            c => c,
        })
        .collect()
}

/// The part of a text that a box of so many columns shows, and the column of the cursor in it.
pub(crate) fn window(text: &str, cursor: usize, columns: usize) -> (String, usize) {
    let widths: Vec<usize> = text.chars().map(|c| c.width().unwrap_or(1)).collect();
    let before: usize = widths.iter().take(cursor).sum();
    let mut from = 0;
    let mut hidden = 0;
    // The cursor itself needs a column.
    while before - hidden + 1 > columns && from < cursor {
        hidden += widths[from];
        from += 1;
    }
    let mut shown = String::new();
    let mut used = 0;
    for (c, width) in text.chars().zip(&widths).skip(from) {
        if used + width > columns {
            break;
        }
        used += width;
        shown.push(c);
    }
    (shown, before - hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_COST: Spec = Spec { word: "max-cost", control: Control::Text, ..WORD };

    const WORD: Spec = Spec {
        word: "label",
        label: "Labels",
        help: "",
        control: Control::Words,
        width: 0,
        kinds: "",
        rare: false,
        joined: false,
    };

    #[test]
    fn a_field_becomes_the_words_of_its_flag() {
        let mut field = Field::new(&WORD);
        assert_eq!(field.words(), Ok(Vec::new()));
        field.set("a=1 'b=two words' -c=3");
        assert_eq!(
            field.words(),
            Ok(["--label", "a=1", "--label", "b=two words", "--label=-c=3"].map(str::to_owned).to_vec())
        );
        field.set("'open");
        assert!(field.words().is_err());
        field.before = Some("a=1".into());
        field.set("a=1");
        assert_eq!(field.words(), Ok(Vec::new()), "what is as it was is not said");
        field.set(" ");
        assert_eq!((field.words(), field.left_out()), (Ok(Vec::new()), Some("label")));
        // What is added or changed goes over what was; what is gone would come back.
        field.set("a=2 b=1");
        assert_eq!(field.left_out(), None);
        field.set("b=1");
        assert_eq!((field.words().expect("a label").len(), field.left_out()), (2, Some("label")));
        // What a job cannot do without can only be replaced.
        let mut field = Field::new(&MAX_COST);
        field.before = Some("1".into());
        assert!(field.words().expect_err("gone").contains("was 1"));
    }

    #[test]
    fn the_cursor_is_always_in_the_window() {
        for text in ["", "short", "a long text that goes on", "漢字漢字漢字 mixed"] {
            for columns in 1..20 {
                for cursor in 0..=text.chars().count() {
                    let (shown, column) = window(text, cursor, columns);
                    assert!(unicode_width::UnicodeWidthStr::width(shown.as_str()) <= columns);
                    assert!(column < columns.max(2), "{text} {columns} {cursor}: {column}");
                }
            }
        }
    }
}
