//! The filter language of every list, in the console and on the command line. Pure: it knows nothing of jobs or nodes, asks
//! nobody and draws nothing.
//!
//! ```text
//! let filter = parse("gpu>=80 pool:a100 !lyon", &[Field::new("gpu", Kind::Number(Unit::Percent)), Field::new("pool", Kind::Text)])?;
//! filter.fits(&|name| ..the value of that field of this row.., &|| ..the row as it is shown..)
//! ```
//!
//! * [`parse`] takes the text and the [`Field`]s that rows have; it gives a [`Filter`], or a [`FilterError`] with a sentence,
//!   a hint and the column where it went wrong. An empty text fits everything.
//! * [`Filter::fits`] asks for a field's [`Value`] by its name (`None`: not known, and then no test of it holds), and for the
//!   row's text only if a word needs it. For a field of pairs it asks for `NAME.KEY`, such as `label.sweep`.
//! * [`Filter::marks`] tells which parts of a cell to highlight; [`Filter::hand_over`] leaves a part to a server.
//!
//! The language: words are ANDed. `word` and `"two words"` are looked for in the row's text, `~regex` too (up to the next
//! blank). `key:part`, `key=exact`, `key!=exact`, `key>num` (`>=`, `<`, `<=`), `key~regex` test one field. `a|b` is either,
//! and what follows a `|` without a key has the key before it. `!` before a word turns it round. In quotes only `\"` is
//! special. Case does not matter except in `=` and for names. What `:` means is the field's [`Kind`].

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::ops::Range;

use modchain_types::{Asset, Span};
use regex_lite::{Regex, RegexBuilder};

use crate::client::config::nearest;
use crate::text;

/// Longest filter, in bytes.
const TEXT_MAX: usize = 1_000;
/// Most words, alternatives counted one by one.
const TERMS_MAX: usize = 64;
/// Longest pattern of a `~`, in bytes.
const PATTERN_MAX: usize = 200;
/// Most memory that a compiled pattern takes, in bytes: what it costs to try it grows with that.
const PATTERN_SIZE_MAX: usize = 32 << 10;

/// What the numbers of a field count; [`Value::Number`] is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things: `3`.
    Plain,
    /// Bytes: `80GB`, `64MiB`.
    Bytes,
    /// Milliseconds: `2h`, `250ms`; a bare number is seconds.
    Millis,
    /// Millionths of money: `1.5`, `1.5usdc`, `-0.2`.
    Micro,
    /// Hundredths of a whole: `80`, `80%`.
    Percent,
}

/// What a field holds, and with that what `key:word` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text: `:` finds a part of it.
    Text,
    /// A name: `:` is how it begins.
    Name,
    /// A word in lower case that is meant as a whole, with `:` as with `=`.
    Whole,
    /// One of these words; several with commas, and any other word is a mistake.
    Words(&'static [&'static str]),
    /// Words with a value each, as labels are: `key:NAME=VALUE`. The value of `NAME` is asked for as `key.NAME`.
    Pairs,
    /// A number.
    Number(Unit),
}

/// A field of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// What stands before the operator; lower case.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) kind: Kind,
}

impl Field {
    /// A field of this name and kind.
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

/// What a row has in a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    /// Of every kind but numbers.
    Text(Cow<'a, str>),
    /// In the unit of the field.
    Number(f64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterError {
    /// Where, in characters; the first is 1.
    pub(crate) column: usize,
    /// What is wrong, in lower case without a final dot; one line.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) hint: Option<String>,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// How two numbers lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

/// What stands between key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// `:`
    Has,
    /// `=`
    Is,
    /// `!=`
    IsNot,
    /// `<`, `<=`, `>`, `>=`
    Compare(Order),
    /// `~`
    Matches,
}

impl Operator {
    /// Longest first, so that none hides another.
    const ALL: [(&'static str, Self); 8] = [
        ("!=", Self::IsNot),
        ("<=", Self::Compare(Order::LessOrEqual)),
        (">=", Self::Compare(Order::GreaterOrEqual)),
        ("<", Self::Compare(Order::Less)),
        (">", Self::Compare(Order::Greater)),
        (":", Self::Has),
        ("=", Self::Is),
        ("~", Self::Matches),
    ];
}

/// What is asked of a field.
#[derive(Debug, Clone)]
enum Test {
    /// This text is in it.
    Has(String),
    /// It begins with this.
    Begins(String),
    /// It is one of these.
    OneOf(Vec<String>),
    /// It lies like this to a number.
    Compare(Order, f64),
    /// It matches.
    Matches(Regex),
}

impl Test {
    fn holds(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Has(part), Value::Text(text)) => find(text, part).is_some(),
            (Self::Begins(start), Value::Text(text)) => text.starts_with(start.as_str()),
            (Self::OneOf(words), Value::Text(text)) => words.iter().any(|word| word == text),
            (Self::Matches(pattern), Value::Text(text)) => pattern.is_match(text),
            (Self::Compare(order, number), Value::Number(value)) => order.holds(*value, *number),
            (Self::Has(_) | Self::Begins(_) | Self::OneOf(_) | Self::Matches(_), Value::Number(_))
            | (Self::Compare(..), Value::Text(_)) => false,
        }
    }
}

/// One alternative of a word.
#[derive(Debug, Clone)]
enum Term {
    /// In the row's text.
    Text(String),
    /// In the row's text.
    Pattern(Regex),
    /// Of one field; `not` is that of `!=`.
    Field { name: String, not: bool, test: Test },
}

/// A word: one of its terms must hold, or with `!` none.
#[derive(Debug, Clone)]
struct Clause {
    not: bool,
    any: Vec<Term>,
}

/// What a row must be like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    clauses: Vec<Clause>,
}

/// How a field must be for a row to fit: something that a server may know how to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Demand<'a> {
    /// The field is one of these.
    OneOf(&'a str, &'a [String]),
    /// The field begins with this.
    Begins(&'a str, &'a str),
}

impl Filter {
    /// Whether everything fits.
    pub(crate) fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// Whether a row fits: `value` gives what it has in a field, `all_text` what is shown of it. Either is asked only if it
    /// matters.
    pub(crate) fn fits<'v>(&self, value: &dyn Fn(&str) -> Option<Value<'v>>, all_text: &dyn Fn() -> String) -> bool {
        let shown = OnceCell::new();
        let holds = |term: &Term| match term {
            Term::Text(word) => find(shown.get_or_init(all_text), word).is_some(),
            Term::Pattern(pattern) => pattern.is_match(shown.get_or_init(all_text)),
            Term::Field { name, not, test } => value(name).is_some_and(|value| test.holds(&value)) != *not,
        };
        self.clauses.iter().all(|clause| clause.any.iter().any(holds) != clause.not)
    }

    /// Which parts of a cell made its row fit, in bytes, in their order and without overlap.
    pub(crate) fn marks(&self, cell: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for term in self.clauses.iter().filter(|clause| !clause.not).flat_map(|clause| &clause.any) {
            match term {
                Term::Text(word) => {
                    let mut from = 0;
                    while let Some(at) = find(&cell[from..], word) {
                        found.push(from + at..from + at + word.len());
                        from += at + word.len();
                    }
                }
                Term::Pattern(pattern) => found.extend(pattern.find_iter(cell).map(|part| part.range())),
                Term::Field { .. } => {}
            }
        }
        found.retain(|part| !part.is_empty());
        found.sort_by_key(|part| part.start);
        let mut marks: Vec<Range<usize>> = Vec::new();
        for part in found {
            match marks.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => marks.push(part),
            }
        }
        marks
    }

    /// Offers what must hold of every row to a server; what it takes is not tested here any more.
    pub(crate) fn hand_over(&mut self, mut takes: impl FnMut(Demand<'_>) -> bool) {
        self.clauses.retain(|clause| match clause.any.as_slice() {
            [Term::Field { name, not: false, test }] if !clause.not => match test {
                Test::OneOf(words) => !takes(Demand::OneOf(name, words)),
                Test::Begins(start) => !takes(Demand::Begins(name, start)),
                Test::Has(_) | Test::Compare(..) | Test::Matches(_) => true,
            },
            _ => true,
        });
    }

    /// Adds a word. Two words about the same field of a closed set mean either of them, because nothing can be both.
    fn push(&mut self, mut clause: Clause, closed: impl Fn(&str) -> bool) {
        let one_of = |term: &Term| match term {
            Term::Field { name, not: false, test: Test::OneOf(words) } => Some((name.clone(), words.clone())),
            _ => None,
        };
        let sets: Option<Vec<_>> = clause.any.iter().map(one_of).collect();
        let Some(((name, mut words), more)) =
            sets.and_then(|sets| sets.split_first().map(|(a, b)| (a.clone(), b.to_vec())))
        else {
            return self.clauses.push(clause);
        };
        if more.iter().any(|(other, _)| *other != name) {
            return self.clauses.push(clause);
        }
        words.extend(more.into_iter().flat_map(|(_, words)| words));
        let earlier = self.clauses.iter_mut().filter(|other| !other.not && !clause.not && closed(&name));
        for other in earlier {
            if let [Term::Field { name: known, not: false, test: Test::OneOf(known_words) }] = other.any.as_mut_slice()
                && *known == name
            {
                return known_words.extend(words);
            }
        }
        clause.any = vec![Term::Field { name, not: false, test: Test::OneOf(words) }];
        self.clauses.push(clause);
    }
}

/// Where a part is in a text, whatever the case of its ASCII letters.
fn find(text: &str, part: &str) -> Option<usize> {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let Some(first) = part.first() else { return Some(0) };
    let last = text.len().checked_sub(part.len())?;
    (0..=last)
        .find(|at| text[*at].eq_ignore_ascii_case(first) && text[*at..*at + part.len()].eq_ignore_ascii_case(part))
}

/// Reads a filter.
pub(crate) fn parse(text: &str, fields: &[Field]) -> Result<Filter, FilterError> {
    let mut reader = Reader { text, at: 0, fields, terms: 0 };
    if text.len() > TEXT_MAX {
        return Err(reader.error(0, format!("the filter has more than {TEXT_MAX} bytes")));
    }
    let mut filter = Filter::default();
    while reader.skip_blanks() {
        let clause = reader.clause()?;
        filter
            .push(clause, |name| fields.iter().any(|field| field.name == name && matches!(field.kind, Kind::Words(_))));
    }
    Ok(filter)
}

/// The words of a command line as one filter: what the shell took apart at blanks comes together again.
pub(crate) fn parse_words(words: &[String], fields: &[Field]) -> Result<Filter, FilterError> {
    parse(&words.join(" "), fields)
}

/// A text on its way to being a filter.
struct Reader<'a> {
    text: &'a str,
    /// The byte that comes next.
    at: usize,
    fields: &'a [Field],
    /// Terms so far.
    terms: usize,
}

/// A field and what is asked of it, which the alternatives after it share.
type Key = Option<(Field, Operator)>;

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes this text if it comes next.
    fn take(&mut self, what: &str) -> bool {
        let is_next = self.rest().starts_with(what);
        self.at += if is_next { what.len() } else { 0 };
        is_next
    }

    /// Whether anything comes after the blanks.
    fn skip_blanks(&mut self) -> bool {
        self.at += self.rest().len() - self.rest().trim_start().len();
        !self.rest().is_empty()
    }

    fn error(&self, at: usize, message: String) -> FilterError {
        let column = self.text[..at].chars().count() + 1;
        FilterError { column, message: text::one_line(&message), hint: None }
    }

    fn hinted(&self, at: usize, message: String, hint: String) -> FilterError {
        FilterError { hint: Some(text::one_line(&hint)), ..self.error(at, message) }
    }

    fn clause(&mut self) -> Result<Clause, FilterError> {
        let mut not = false;
        while self.take("!") {
            not = !not;
        }
        let (mut any, mut key) = (Vec::new(), None);
        loop {
            any.push(self.term(&mut key)?);
            self.terms += 1;
            if self.terms > TERMS_MAX {
                return Err(self.error(self.at, format!("the filter has more than {TERMS_MAX} words")));
            }
            if !self.take("|") {
                return Ok(Clause { not, any });
            }
        }
    }

    fn term(&mut self, key: &mut Key) -> Result<Term, FilterError> {
        if self.peek() == Some('~') {
            return self.pattern().map(Term::Pattern);
        }
        if let Some(found) = self.key()? {
            *key = Some(found);
        }
        let begin = self.at;
        let Some((field, operator)) = *key else {
            return match self.word()? {
                (word, _) if word.is_empty() => Err(self.missing(begin)),
                (word, _) => Ok(Term::Text(word)),
            };
        };
        self.test(field, operator)
    }

    /// What is missing where a word should be.
    fn missing(&self, at: usize) -> FilterError {
        match self.text[..at].chars().next_back() {
            Some(before) if !before.is_whitespace() && before != '"' => self.hinted(
                at,
                format!("a word is missing after `{before}`"),
                r#"quote what is meant as it is: "|""#.into(),
            ),
            _ => self.hinted(at, "a word is missing".into(), r#"quote what is meant as it is: "|""#.into()),
        }
    }

    /// A known key and its operator, if that is what comes next.
    fn key(&mut self) -> Result<Key, FilterError> {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let operator = Operator::ALL.into_iter().find(|(sign, _)| after.starts_with(sign));
        let Some((sign, operator)) = operator.filter(|_| word.starts_with(|c: char| c.is_ascii_alphabetic())) else {
            return Ok(None);
        };
        let name = word.to_ascii_lowercase();
        let Some(field) = self.fields.iter().find(|field| field.name == name) else {
            let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
            let hint = match nearest(&name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}{sign}`?"),
                None => format!("there are: {}; in quotes it is text", names.join(", ")),
            };
            return Err(self.hinted(self.at, format!("unknown filter `{word}{sign}`"), hint));
        };
        self.at += length + sign.len();
        Ok(Some((*field, operator)))
    }

    /// Text up to a blank or a `|`, and whether any of it was in quotes.
    fn word(&mut self) -> Result<(String, bool), FilterError> {
        self.text_until(|c| c.is_whitespace() || c == '|')
    }

    fn text_until(&mut self, ends: impl Fn(char) -> bool) -> Result<(String, bool), FilterError> {
        let (mut word, mut quoted) = (String::new(), false);
        while let Some(c) = self.peek().filter(|c| !ends(*c)) {
            let begin = self.at;
            self.at += c.len_utf8();
            if c != '"' {
                word.push(c);
                continue;
            }
            quoted = true;
            loop {
                if self.take("\\\"") {
                    word.push('"');
                } else if self.take("\"") {
                    break;
                } else if let Some(c) = self.peek() {
                    word.push(c);
                    self.at += c.len_utf8();
                } else {
                    return Err(self.error(begin, "the quote is not closed".into()));
                }
            }
        }
        Ok((word, quoted))
    }

    /// A `~` and its pattern, which goes on to the next blank.
    fn pattern(&mut self) -> Result<Regex, FilterError> {
        self.take("~");
        let begin = self.at;
        let (pattern, _) = self.text_until(char::is_whitespace)?;
        self.compile(begin, &pattern)
    }

    fn compile(&self, begin: usize, pattern: &str) -> Result<Regex, FilterError> {
        if pattern.is_empty() {
            return Err(self.hinted(begin, "the pattern is missing".into(), "such as ~^rig-[0-9]+".into()));
        }
        if pattern.len() > PATTERN_MAX {
            return Err(self.error(begin, format!("the pattern has more than {PATTERN_MAX} bytes")));
        }
        RegexBuilder::new(pattern)
            .case_insensitive(true)
            .size_limit(PATTERN_SIZE_MAX)
            .build()
            .map_err(|error| self.error(begin, format!("`{pattern}` is not a pattern: {error}")))
    }

    /// What comes after a key and its operator.
    fn test(&mut self, field: Field, operator: Operator) -> Result<Term, FilterError> {
        let begin = self.at;
        let Field { name, kind } = field;
        let term = |test| Ok(Term::Field { name: name.to_owned(), not: operator == Operator::IsNot, test });
        if operator == Operator::Matches {
            let (pattern, _) = self.text_until(char::is_whitespace)?;
            return match kind {
                Kind::Number(unit) => Err(self.hinted(begin, format!("`{name}` is a number"), example(name, unit))),
                Kind::Pairs => Err(self.hinted(begin, format!("`{name}` has values by name"), pair_hint(name))),
                Kind::Text | Kind::Name | Kind::Whole | Kind::Words(_) => {
                    term(Test::Matches(self.compile(begin, &pattern)?))
                }
            };
        }
        let (word, quoted) = self.word()?;
        if word.is_empty() && !quoted && (kind, operator) != (Kind::Name, Operator::Has) {
            return Err(self.missing(begin));
        }
        match (kind, operator) {
            (Kind::Number(unit), _) => {
                let order = match operator {
                    Operator::Compare(order) => order,
                    Operator::Has | Operator::Is | Operator::IsNot | Operator::Matches => Order::Equal,
                };
                let number = number(&word, unit).map_err(|why| self.hinted(begin, why, example(name, unit)))?;
                term(Test::Compare(order, number))
            }
            (_, Operator::Compare(_)) => {
                let signs = [":", "="].map(|sign| format!("{name}{sign}{word}"));
                Err(self.hinted(begin, format!("`{name}` is not a number"), format!("write {}", signs.join(" or "))))
            }
            (Kind::Pairs, _) => {
                let Some((key, value)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                    return Err(self.hinted(begin, format!("`{name}:{word}` names no value"), pair_hint(name)));
                };
                let not = operator == Operator::IsNot;
                Ok(Term::Field { name: format!("{name}.{key}"), not, test: Test::OneOf(vec![value.to_owned()]) })
            }
            (Kind::Words(words), _) => {
                let mut wanted = Vec::new();
                // Those of the list are all lower case.
                let word = if operator == Operator::Has { word.to_ascii_lowercase() } else { word };
                for part in word.split(',') {
                    if !words.contains(&part) {
                        let hint = match nearest(part, words.iter().copied()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => format!("there are: {}", words.join(", ")),
                        };
                        return Err(self.hinted(begin, format!("`{part}` is not a {name}"), hint));
                    }
                    wanted.push(part.to_owned());
                }
                term(Test::OneOf(wanted))
            }
            (Kind::Text, Operator::Has) => term(Test::Has(word)),
            (Kind::Name, Operator::Has) => term(Test::Begins(word)),
            (Kind::Whole, Operator::Has) => term(Test::OneOf(vec![word.to_ascii_lowercase()])),
            (Kind::Text | Kind::Name | Kind::Whole, Operator::Is | Operator::IsNot | Operator::Matches) => {
                term(Test::OneOf(vec![word]))
            }
        }
    }
}

fn pair_hint(name: &str) -> String {
    format!("write {name}:KEY=VALUE")
}

/// How a number of this unit is asked for.
fn example(name: &str, unit: Unit) -> String {
    let number = match unit {
        Unit::Plain => "3",
        Unit::Bytes => "80GB",
        Unit::Millis => "2h",
        Unit::Micro => "1.50",
        Unit::Percent => "80%",
    };
    format!("write {name}>{number}")
}

/// A number as a person writes it, in its unit.
fn number(word: &str, unit: Unit) -> Result<f64, String> {
    let (sign, size) = word.strip_prefix('-').map_or((1.0, word), |size| (-1.0, size));
    let plain = |size: &str| {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = size.split_once('.').unwrap_or((size, "0"));
        (digits(whole) && digits(fraction)).then(|| size.parse::<f64>().ok()).flatten()
    };
    let number = match unit {
        Unit::Plain => plain(size).ok_or_else(|| format!("`{word}` is not a number")),
        Unit::Percent => {
            plain(size.strip_suffix('%').unwrap_or(size)).ok_or_else(|| format!("`{word}` is not a percentage"))
        }
        Unit::Micro => {
            let letters = size.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(size.len());
            let (amount, code) = size.split_at(letters);
            let known = code.is_empty()
                || [Asset::Test, Asset::Usdc].iter().any(|asset| asset.code().eq_ignore_ascii_case(code));
            plain(amount)
                .filter(|_| known)
                .map(|units| (units * 1e6).round())
                .ok_or_else(|| format!("`{word}` is not an amount"))
        }
        Unit::Bytes if size != "0" && size.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            Err(format!("`{word}` has no unit"))
        }
        Unit::Bytes => bytes(size).ok_or_else(|| format!("`{word}` is not a size")),
        Unit::Millis => modchain_types::time::parse_span(size)
            .map(|span: Span| span.0 as f64 / 1_000.0)
            .map_err(|_| format!("`{word}` is not a duration")),
    };
    number.map(|number| sign * number)
}

/// Bytes, whatever the case of their unit.
fn bytes(size: &str) -> Option<f64> {
    let unit = size.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(size.len());
    let (number, unit) = size.split_at(unit);
    let unit = unit.to_ascii_uppercase().replace("IB", "iB");
    text::parse_bytes(&format!("{number}{unit}")).ok().map(|count| count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: &[&str] = &["ready", "lost", "draining"];

    const FIELDS: &[Field] = &[
        Field::new("name", Kind::Name),
        Field::new("state", Kind::Words(STATES)),
        Field::new("pool", Kind::Text),
        Field::new("account", Kind::Whole),
        Field::new("label", Kind::Pairs),
        Field::new("gpu", Kind::Number(Unit::Percent)),
        Field::new("gpus", Kind::Number(Unit::Plain)),
        Field::new("vram", Kind::Number(Unit::Bytes)),
        Field::new("age", Kind::Number(Unit::Millis)),
        Field::new("price", Kind::Number(Unit::Micro)),
    ];

    /// A row to try filters on: busy GPUs of the pool `A100-80g`.
    fn value(name: &str) -> Option<Value<'static>> {
        Some(match name {
            "name" => "rig-1".into(),
            "state" => "ready".into(),
            "pool" => "A100-80g".into(),
            "account" => "alice".into(),
            "label.zone" => "eu=1".into(),
            "gpu" => Value::Number(83.0),
            "gpus" => Value::Number(4.0),
            "vram" => Value::Number(80e9),
            "age" => Value::Number(7_200_000.0),
            _ => return None,
        })
    }

    fn fits(text: &str) -> bool {
        let filter = parse(text, FIELDS).unwrap_or_else(|error| panic!("{text}: {error}"));
        filter.fits(&value, &|| "rig-1  ready  A100-80g  Two Words  a|b".into())
    }

    #[test]
    fn every_form_of_the_language_fits_what_it_says() {
        for text in [
            "",
            "  ",
            "rig",
            "RIG ready",
            "a100",
            "!lyon",
            "lyon|rig",
            "\"two words\"",
            "!\"two  words\"",
            "\"a|b\"",
            "~^rig-[0-9]+",
            "~lyon|rig",
            "~\"two words\"",
            "!~^lyon",
            "!!rig",
            "state:ready",
            "state:Ready",
            "state:lost,ready",
            "state:lost state:ready",
            "state:lost|ready",
            "state=ready",
            "state!=lost",
            "!state:lost",
            "state~^re",
            "name:rig",
            "name:",
            "name=rig-1",
            "name!=rig",
            "!name:ig",
            "pool:a100",
            "pool:\"80G\"",
            "pool=A100-80g",
            "!pool=a100-80g",
            "pool:lyon|80g",
            "pool:lyon|name:rig",
            "account:alice",
            "account:Alice",
            "!account:ali",
            "label:zone=eu=1",
            "!label:zone=eu",
            "!label:other=1",
            "label!=zone=eu",
            "gpu>=80",
            "gpu>=80%",
            "gpu>82.5",
            "gpu<84",
            "gpu<=83",
            "gpu=83",
            "gpu:83",
            "gpu!=84",
            "gpu>90|80",
            "GPU>80",
            "gpus=4",
            "gpus>-1",
            "vram>=80GB",
            "vram>=80gb",
            "vram<75GiB",
            "vram>0",
            "age>=2h",
            "age<2h30m",
            "age>250ms",
            "!price>1",
            "price!=1",
        ] {
            assert!(fits(text), "{text}");
        }
        for text in [
            "lyon",
            "!rig",
            "rig lyon",
            "\"two  words\"",
            "~^ready",
            "state:lost",
            "!state:ready",
            "name:ig",
            "name:RIG",
            "pool=a100-80g",
            "pool:lyon|kyiv",
            "account:ali",
            "label:zone=eu",
            "label:other=1",
            "gpu<80",
            "gpu!=83",
            "gpus>4",
            "vram>80GB",
            "age<2h",
            "price>1",
            "price<=1usdc",
            "!price!=1",
        ] {
            assert!(!fits(text), "{text}");
        }
        assert!(parse("", FIELDS).expect("parses").is_empty());
    }

    #[test]
    fn amounts_are_read_to_the_millionth() {
        for (word, micro) in [("1.5usdc", 1_500_000.0), ("2", 2e6), ("-1.37TEST", -1_370_000.0), ("0.000001", 1.0)] {
            assert_eq!(number(word, Unit::Micro), Ok(micro), "{word}");
        }
        for word in ["", "-", "1.5eur", "1e9", "inf", "nan", "1.", ".5", "--1", "1,5"] {
            assert!(number(word, Unit::Micro).is_err(), "{word}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_column_and_what_would() {
        for (text, column, message, hint) in [
            ("rig stat:x", 5, "unknown filter `stat:`", "did you mean `state:`?"),
            ("xyz=1", 1, "unknown filter `xyz=`", "there are: name, state"),
            ("state:redy", 7, "`redy` is not a state", "did you mean `ready`?"),
            ("state:", 7, "a word is missing after `:`", ""),
            ("é gpu>fast", 7, "`fast` is not a percentage", "write gpu>80%"),
            ("gpu>", 5, "a word is missing", ""),
            ("gpu~8", 5, "`gpu` is a number", "write gpu>80%"),
            ("pool>3", 6, "`pool` is not a number", "write pool:3 or pool=3"),
            ("vram>40", 6, "`40` has no unit", "write vram>80GB"),
            ("vram>40parsecs", 6, "`40parsecs` is not a size", "write vram>80GB"),
            ("age>soon", 5, "`soon` is not a duration", "write age>2h"),
            ("gpus>80%", 6, "`80%` is not a number", "write gpus>3"),
            ("label:zone", 7, "`label:zone` names no value", "write label:KEY=VALUE"),
            ("a \"b", 3, "the quote is not closed", ""),
            ("!", 2, "a word is missing after `!`", "quote"),
            ("a||b", 3, "a word is missing after `|`", "quote"),
            ("a|", 3, "a word is missing after `|`", "quote"),
            ("~(", 2, "`(` is not a pattern", ""),
            ("~", 2, "the pattern is missing", "such as"),
            ("\"\"", 1, "a word is missing", ""),
            ("x:\u{202e}", 1, "unknown filter `x:`", ""),
        ] {
            let error = parse(text, FIELDS).map(|_| ()).expect_err(text);
            assert_eq!(error.column, column, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
            assert!(error.hint.clone().unwrap_or_default().contains(hint), "{text}: {error}");
        }
        assert!(parse("~[a-z]{9999}", FIELDS).expect_err("too large").message.contains("not a pattern"));
        assert!(parse(&"x".repeat(1_001), FIELDS).is_err() && parse(&"x ".repeat(65), FIELDS).is_err());
        assert!(parse(&format!("~{}", "x".repeat(201)), FIELDS).is_err());
    }

    #[test]
    fn a_server_can_be_asked_for_what_every_row_must_have() {
        let mut offered = Vec::new();
        let text = "state:lost|ready state:draining name:rig label:a=b account:al !account:bob gpu>1 x pool:y";
        let mut filter = parse(text, FIELDS).expect("parses");
        filter.hand_over(|demand| {
            offered.push(match demand {
                Demand::OneOf(name, words) => format!("{name} {}", words.join(",")),
                Demand::Begins(name, start) => format!("{name} {start}..."),
            });
            !matches!(demand, Demand::OneOf("account", _))
        });
        assert_eq!(offered, ["state lost,ready,draining", "name rig...", "label.a b", "account al"]);
        assert_eq!(filter.clauses.len(), 5, "what nobody took is still tested");
        let mut mixed = parse("state:lost|name:rig !state:ready", FIELDS).expect("parses");
        mixed.hand_over(|demand| panic!("{demand:?} does not hold of every row"));
    }

    #[test]
    fn what_fits_is_marked_where_it_stands() {
        let marks = |text: &str, cell: &str| -> Vec<(usize, usize)> {
            let marks = parse(text, FIELDS).expect("parses").marks(cell);
            marks.into_iter().map(|mark| (mark.start, mark.end)).collect()
        };
        assert_eq!(marks("rig", "RIG-1 rig-2"), [(0, 3), (6, 9)]);
        assert_eq!(marks("ri ig|x !g pool:r", "rig"), [(0, 3)]);
        assert_eq!(marks("~[0-9]*", "a12é3"), [(1, 3), (5, 6)]);
        assert_eq!(marks("é", "aéé"), [(1, 5)]);
        assert!(marks("", "rig").is_empty());
    }

    #[test]
    fn any_text_is_a_filter_that_holds_of_a_row_or_not_or_a_complaint_that_points_into_it() {
        let words =
            ["state:", "label:", "gpu>", "gpu<=", "80%", "name:", "~", "\"", "|", "!", "ready,", "=", " ", "{9}"];
        crate::fuzz::target("filter").words(&words).longest(512).memory(|input| (512 << 10) + 512 * input.len()).run(
            |input| {
                let Ok(text) = std::str::from_utf8(input) else { return 0 };
                match parse(text, FIELDS) {
                    Ok(filter) => {
                        let fits = filter.fits(&value, &|| "rig-1 ready".into());
                        for mark in filter.marks("rig-1 ready é") {
                            assert!("rig-1 ready é".get(mark).is_some_and(|part| !part.is_empty()));
                        }
                        let mut offers = 0;
                        filter.clone().hand_over(|_| {
                            offers += 1;
                            true
                        });
                        modchain_fuzz::signature(&(fits, filter.clauses.len().min(3), offers.min(3)))
                    }
                    Err(error) => {
                        assert!((1..=text.chars().count() + 1).contains(&error.column), "{text}: {error}");
                        assert!(!error.message.is_empty() && !error.message.contains(char::is_control));
                        crate::fuzz::complaint(&error.message)
                    }
                }
            },
        );
    }

    #[test]
    fn any_quoted_text_is_looked_for_as_it_is() {
        crate::fuzz::target("filter_quote").words(&["\"", "|", "!", "~", "state:", "\\"]).longest(64).run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return 0 };
            if text.is_empty() || text.ends_with('\\') || text.contains("\\\"") {
                return 1;
            }
            let filter =
                parse(&format!("\"{}\"", text.replace('"', "\\\"")), FIELDS).expect("a quoted text is one word");
            assert!(filter.fits(&|_| None, &|| format!("before {text} after")));
            assert!(!filter.fits(&|_| None, &String::new));
            2
        });
    }
}
