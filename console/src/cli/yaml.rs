//! The same documents as `-o json`, as YAML: what a reader of YAML 1.1 or 1.2 makes of them is what a reader of JSON would.
//! Only the plainest words stand without quotes; everything else is a double-quoted string with escapes.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value whose fields keep their order.
#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A document, with the line that divides it from the one before it.
pub(crate) fn document(document: &impl Serialize) -> serde_json::Result<String> {
    let node: Node = serde_json::from_str(&serde_json::to_string(document)?)?;
    let mut text = "---".to_owned();
    match &node {
        Node::Map(fields) if !fields.is_empty() => {
            text.push('\n');
            map(&mut text, fields, 0);
        }
        Node::List(items) if !items.is_empty() => {
            text.push('\n');
            list(&mut text, items, 0);
        }
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => {
            text.push(' ');
            scalar(&mut text, &node);
            text.push('\n');
        }
    }
    Ok(text)
}

/// The beginning of a document that is written in pieces: these fields, and then a list whose [`item`]s follow.
pub(crate) fn begun(fields: &[(&str, &str)], list: &str) -> String {
    let mut text = "---\n".to_owned();
    for (name, value) in fields {
        field(&mut text, name, &Node::Text((*value).to_owned()), 0);
    }
    string(&mut text, list);
    text.push(':');
    text
}

/// One of the items.
pub(crate) fn item(document: &impl Serialize) -> serde_json::Result<String> {
    let node: Node = serde_json::from_str(&serde_json::to_string(document)?)?;
    let mut text = "\n".to_owned();
    list(&mut text, &[node], 1);
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

/// What stands there where there is none.
pub(crate) const NO_ITEM: &str = " []";

/// The last field, after the list.
pub(crate) fn last(name: &str, document: &impl Serialize) -> serde_json::Result<String> {
    let node: Node = serde_json::from_str(&serde_json::to_string(document)?)?;
    let mut text = "\n".to_owned();
    field(&mut text, name, &node, 0);
    Ok(text)
}

fn map(text: &mut String, fields: &[(String, Node)], depth: usize) {
    for (name, value) in fields {
        text.push_str(&"  ".repeat(depth));
        field(text, name, value, depth);
    }
}

fn field(text: &mut String, name: &str, value: &Node, depth: usize) {
    string(text, name);
    text.push(':');
    match value {
        Node::Map(fields) if !fields.is_empty() => {
            text.push('\n');
            map(text, fields, depth + 1);
        }
        Node::List(items) if !items.is_empty() => {
            text.push('\n');
            list(text, items, depth + 1);
        }
        Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => {
            text.push(' ');
            scalar(text, value);
            text.push('\n');
        }
    }
}

fn list(text: &mut String, items: &[Node], depth: usize) {
    for item in items {
        text.push_str(&"  ".repeat(depth));
        text.push_str("- ");
        match item {
            // The first field stands beside the dash, the others below it.
            Node::Map(fields) if !fields.is_empty() => {
                let (first, rest) = fields.split_first().expect("is not empty");
                field(text, &first.0, &first.1, depth + 1);
                map(text, rest, depth + 1);
            }
            Node::List(items) if !items.is_empty() => {
                text.truncate(text.len() - 1);
                text.push('\n');
                list(text, items, depth + 1);
            }
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) | Node::Map(_) => {
                scalar(text, item);
                text.push('\n');
            }
        }
    }
}

fn scalar(text: &mut String, node: &Node) {
    match node {
        Node::Null => text.push_str("null"),
        Node::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Node::Number(number) => text.push_str(&decimal(&number.to_string())),
        Node::Text(value) => string(text, value),
        Node::List(_) => text.push_str("[]"),
        Node::Map(_) => text.push_str("{}"),
    }
}

/// A number that old readers take for one too: they want a point before an exponent, and a sign in it.
fn decimal(number: &str) -> String {
    let Some((digits, exponent)) = number.split_once('e') else { return number.to_owned() };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

fn string(text: &mut String, value: &str) {
    if is_plain(value) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if is_printable(c) => text.push(c),
            c => escape(text, c),
        }
    }
    text.push('"');
}

fn escape(text: &mut String, c: char) {
    match u32::from(c) {
        code @ ..=0xff => text.push_str(&format!("\\x{code:02x}")),
        code @ ..=0xffff => text.push_str(&format!("\\u{code:04x}")),
        code => text.push_str(&format!("\\U{code:08x}")),
    }
}

/// Whether a reader sees a character as it is: neither a control character, nor one that breaks or turns a line.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !modchain_types::is_hidden(c)
        && !matches!(u32::from(c), 0x2028 | 0x2029 | 0xfeff | 0xfffe | 0xffff)
}

/// Whether a string cannot be taken for anything else without quotes.
fn is_plain(value: &str) -> bool {
    /// What one or the other reader takes for a truth, for nothing, or for a number.
    const TAKEN: [&str; 11] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    let lower = value.to_ascii_lowercase();
    value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'))
        && !TAKEN.contains(&lower.as_str())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        serde_json::Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = access.next_entry()? {
            fields.push(field);
        }
        Ok(Node::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a reader of YAML makes of it.
    fn read(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn a_document_is_laid_out_for_people_and_keeps_the_order_of_its_fields() {
        #[derive(Serialize)]
        struct Document {
            schema: &'static str,
            items: Vec<Value>,
            empty: Vec<Value>,
            none: Option<u8>,
        }
        let items = vec![json!({"a": ["x", ["y"], {}], "b": 1}), json!("no"), json!([[1]])];
        let document = Document { schema: "modchain.jobs/v1", items, empty: vec![], none: None };
        let text = "---\nschema: modchain.jobs/v1\nitems:\n  - a:\n      - x\n      -\n        - \"y\"\n      - {}\n    b: 1\n  \
                    - \"no\"\n  -\n    -\n      - 1\nempty: []\nnone: null\n";
        assert_eq!(super::document(&document).expect("made"), text);
        assert_eq!(read(text), serde_json::to_value(&document).expect("json"));
    }

    #[test]
    fn a_job_keeps_its_form() {
        use crate::cli::docs;
        let job = docs::job(&docs::tests::ended_job(), modchain_types::Asset::Test);
        docs::tests::golden_text("job.yaml", &super::document(&job).expect("made"));
    }

    #[test]
    fn whatever_a_string_holds_it_is_read_back_as_that_string() {
        let hostile = [
            "",
            " ",
            "no",
            "No",
            "yes",
            "on",
            "y",
            "N",
            "true",
            "null",
            "Null",
            "~",
            "1",
            "1e3",
            "1_000",
            "0x1f",
            "0o7",
            ".5",
            "+1",
            "-",
            "- a",
            "? a",
            "a: b",
            "a:",
            ": ",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "!!int 1",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "'a",
            "\"a\"",
            "\\",
            "[a",
            "{a",
            "]",
            ",",
            "=",
            "<<",
            "---",
            "...",
            "--- a",
            " lead",
            "trail ",
            "two\nlines",
            "two\n\n",
            "\r\n",
            "\t",
            "\0",
            "\x1b[2J",
            "\x7f",
            "\u{85}",
            "\u{a0}",
            "\u{2028}",
            "\u{feff}",
            "\u{fffe}",
            "\u{202e}x",
            "漢字",
            "🙂",
            "2026-11-28",
            "12:30:45",
            "1.5.0",
            "nan",
            ".inf",
            "inf",
            "e3",
            "0b1",
            "a/b.c-d_e",
            "key",
        ];
        for text in hostile {
            for document in [json!(text), json!({ text: text }), json!([text]), json!({"a": [{ text: text }]})] {
                let yaml = super::document(&document).expect("made");
                assert_eq!(read(&yaml), document, "{yaml}");
                assert!(yaml.chars().all(|c| c == '\n' || is_printable(c)), "{yaml:?}");
                for count in 0..3 {
                    let items = vec![&document; count];
                    let mut pieces = begun(&[("schema", "x/v1"), ("job", text)], "items");
                    items.iter().for_each(|item| pieces.push_str(&super::item(item).expect("made")));
                    if items.is_empty() {
                        pieces.push_str(NO_ITEM);
                    }
                    pieces.push_str(&last("end", &document).expect("made"));
                    let whole = json!({"schema": "x/v1", "job": text, "items": items, "end": document});
                    assert_eq!(read(&pieces), whole, "{pieces}");
                }
            }
        }
    }

    #[test]
    fn numbers_keep_their_value() {
        for number in [json!(0), json!(-5), json!(u64::MAX), json!(i64::MIN), json!(12.5), json!(1e300), json!(-2.5e-9)]
        {
            let yaml = super::document(&json!({ "n": number })).expect("made");
            assert_eq!(read(&yaml)["n"], number, "{yaml}");
        }
        assert_eq!((decimal("1e300"), decimal("2.5e-9")), ("1.0e+300".into(), "2.5e-9".into()));
    }

    #[test]
    fn any_json_is_read_back_from_its_yaml() {
        crate::fuzz::target("yaml")
            .words(&["\"", "\\u00", "{\"", "\":", "[", "]", "}", ",", "1e", "no", "~"])
            .longest(256)
            .run(|input| {
                let Ok(value) = serde_json::from_slice::<Value>(input) else { return 0 };
                let yaml = super::document(&value).expect("JSON becomes YAML");
                assert_eq!(read(&yaml), value, "{yaml}");
                modchain_fuzz::signature(&(value.is_object(), value.is_array(), yaml.lines().count().min(4)))
            });
    }
}
