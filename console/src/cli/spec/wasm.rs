//! The module of a WebAssembly job, looked at before anything leaves this machine.

use std::path::Path;

use bytes::Bytes;
use modchain_types::Text;

use super::read_bounded;
use crate::exit::Failure;

/// Largest module that is sent.
const MODULE_BYTES_MAX: u64 = 32 << 20;

/// The module and its file name. Whether it compiles only a node can tell; that it is no module at all is seen here.
pub(super) fn read_module(path: &Path) -> Result<(Bytes, Text<256>), Failure> {
    let bytes = read_bounded(path, MODULE_BYTES_MAX, "module")?;
    if !looks_like_module(&bytes) {
        return Err(Failure::usage(format!("{} is not a WebAssembly module", path.display()))
            .hint("a .wasm file begins with \\0asm, a .wat file with (module"));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((Bytes::from(bytes), Text::cut(name)))
}

/// Binary modules begin with a magic number (components have another version after it, which no node runs); text modules
/// with `(module` after spaces and comments.
pub(super) fn looks_like_module(bytes: &[u8]) -> bool {
    if let Some(after) = bytes.strip_prefix(b"\0asm") {
        return after.starts_with(&[1, 0, 0, 0]);
    }
    let Ok(mut text) = std::str::from_utf8(bytes) else { return false };
    loop {
        text = text.trim_start();
        if let Some(comment) = text.strip_prefix(";;") {
            text = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if text.starts_with("(;") {
            let Some(after) = skip_block_comment(text) else { return false };
            text = after;
        } else {
            break;
        }
    }
    // The text format lets a module leave its own parentheses out; nobody writes it, but it may.
    text.strip_prefix('(').map(str::trim_start).is_some_and(|text| {
        ["module", "func", "import", "memory", "export", "type", "table", "global", "data", "start"]
            .iter()
            .any(|word| text.strip_prefix(word).is_some_and(|rest| rest.starts_with(|c: char| !c.is_alphanumeric())))
    })
}

/// The text after a `(; ... ;)`, which may be nested; `None` if it does not end.
fn skip_block_comment(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    let mut position = 0;
    while position < text.len() {
        let rest = &text.as_bytes()[position..];
        if rest.starts_with(b"(;") {
            depth += 1;
            position += 2;
        } else if rest.starts_with(b";)") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return text.get(position..);
            }
        } else {
            position += 1;
        }
    }
    None
}
