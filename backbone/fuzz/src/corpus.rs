//! Reads the inputs that are kept in the repository. A file that ends in `.hex` is written for people, any other file is the
//! input itself.
//!
//! In a `.hex` file stand pairs of hexadecimal digits and `"words"` of plain text, each perhaps with `*N` for N times it, and
//! comments from `#` to the end of the line: `01 "abc" 00*3` is `01 61 62 63 00 00 00`.

use std::path::Path;

/// A hand-made input with what its reader must say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bomb {
    /// Its file.
    pub name: String,
    /// Which reader it is for.
    pub reader: String,
    /// A part of the error that is the right answer; `fine` where there must be none.
    pub answer: String,
    /// The bytes.
    pub input: Vec<u8>,
}

/// Every file of a folder with its name, in the order of the names.
///
/// # Panics
/// When the folder cannot be read or is empty: a corpus that is not found would go unnoticed.
pub fn read_folder(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = files(folder).into_iter().map(|(name, bytes)| {
        let input = if name.ends_with(".hex") { read_hex(&String::from_utf8_lossy(&bytes)) } else { bytes };
        (name, input)
    });
    files.collect()
}

/// Every bomb of a folder. Their files are `.hex`, and the first line is `# READER: ANSWER`.
///
/// # Panics
/// When the folder cannot be read or is empty, or a file has no such line.
pub fn read_bombs(folder: &Path) -> Vec<Bomb> {
    let bombs = files(folder).into_iter().map(|(name, bytes)| {
        let text = String::from_utf8(bytes).unwrap_or_else(|_| panic!("{name} is not text"));
        let first = text.lines().next().and_then(|line| line.strip_prefix("# ")).and_then(|line| line.split_once(": "));
        let (reader, answer) = first.unwrap_or_else(|| panic!("{name} does not begin with `# READER: ANSWER`"));
        Bomb { reader: reader.into(), answer: answer.into(), input: read_hex(&text), name }
    });
    bombs.collect()
}

impl Bomb {
    /// Checks what the reader said.
    ///
    /// # Panics
    /// When it is not the answer.
    pub fn check(&self, said: Result<(), String>) {
        match said {
            Ok(()) => assert!(self.answer == "fine", "{} was taken, {:?} was expected", self.name, self.answer),
            Err(error) => {
                let fits = !self.answer.is_empty() && self.answer != "fine" && error.contains(&self.answer);
                assert!(fits, "{}: {error}, not {:?}", self.name, self.answer);
            }
        }
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("the folder can be listed").path();
            let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_name().expect("files have names").to_string_lossy().into_owned(), bytes)
        })
        .collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.sort();
    files
}

/// The bytes of a `.hex` file.
///
/// # Panics
/// At anything that does not belong there.
pub fn read_hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (piece, after) = read_piece(rest);
            let (times, after) = read_times(after);
            bytes.extend_from_slice(&piece.repeat(times));
            rest = after.trim_start();
        }
    }
    bytes
}

fn read_piece(text: &str) -> (Vec<u8>, &str) {
    if let Some(quoted) = text.strip_prefix('"') {
        let (word, after) = quoted.split_once('"').unwrap_or_else(|| panic!("a quote without an end: {text}"));
        return (word.into(), after);
    }
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    let (digits, after) = text.split_at(end);
    assert!(end > 0 && end.is_multiple_of(2), "not pairs of hexadecimal digits: {text}");
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    ((0..end).step_by(2).map(pair).collect(), after)
}

fn read_times(text: &str) -> (usize, &str) {
    let Some(rest) = text.strip_prefix('*') else { return (1, text) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    (digits.parse().unwrap_or_else(|_| panic!("not a number of times: {text}")), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_words_repetitions_and_comments_are_bytes() {
        assert_eq!(read_hex("# a bomb\n00 ffee # \"no\" words\n\n1a*3 \"a#b\"*2\n"), b"\0\xff\xee\x1a\x1a\x1aa#ba#b");
        assert!(read_hex("").is_empty());
        for wrong in ["0", "zz", "\"open", "00*x", "00 ,"] {
            assert!(std::panic::catch_unwind(|| read_hex(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_answer_to_a_bomb_is_told() {
        let bomb = |answer: &str| Bomb { name: "b".into(), reader: "r".into(), answer: answer.into(), input: vec![] };
        bomb("fine").check(Ok(()));
        bomb("too long").check(Err("it is too long by far".into()));
        for (answer, said) in [
            ("fine", Err("bad")),
            ("too long", Ok(())),
            ("too long", Err("bad")),
            ("fine", Err("undefined")),
            ("", Err("bad")),
        ] {
            let said = said.map_err(String::from);
            assert!(std::panic::catch_unwind(|| bomb(answer).check(said)).is_err());
        }
    }
}
