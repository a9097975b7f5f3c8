//! Reads the inputs that are kept in the repository. A file that ends in `.hex` holds hexadecimal digits in lines, with
//! comments from `#` to the end of the line; any other file is the input itself.

use std::path::Path;

/// Every file of a folder with its name, in the order of the names.
///
/// # Panics
/// When the folder cannot be read or is empty: a corpus that is not found would go unnoticed.
pub fn read_folder(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("the folder can be listed").path();
            let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.file_name().expect("files have names").to_string_lossy().into_owned();
            let input = if name.ends_with(".hex") { read_hex(&String::from_utf8_lossy(&bytes)) } else { bytes };
            (name, input)
        })
        .collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.sort();
    files
}

/// The bytes that hexadecimal digits stand for.
///
/// # Panics
/// At anything else than pairs of digits, white space and comments.
pub fn read_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().chars())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("{c:?} is not a hexadecimal digit")))
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte is missing");
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_lines_with_comments_are_bytes() {
        assert_eq!(read_hex("# a bomb\n00 ff # two bytes\n\n1a\n"), [0, 255, 26]);
        assert!(read_hex("").is_empty());
    }
}
