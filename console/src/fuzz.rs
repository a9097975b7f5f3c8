//! What the fuzz targets of this program share. A target stands in the tests of the module that has the reader; its corpus is
//! in `tests/corpus/<target>`. How to run them for longer: `README.md` of `modchain-fuzz`.

use std::path::Path;

use modchain_fuzz::{Bomb, Counting, Fuzz, read_bombs, signature};

#[global_allocator]
static MEMORY: Counting = Counting;

/// The target of this name with its corpus.
pub(crate) fn target(name: &str) -> Fuzz {
    Fuzz::target(name).corpus(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name))
}

/// The bombs for this reader.
pub(crate) fn bombs(reader: &str) -> Vec<Bomb> {
    let all = read_bombs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/bombs"));
    let bombs: Vec<Bomb> = all.into_iter().filter(|bomb| bomb.reader == reader).collect();
    assert!(!bombs.is_empty(), "there are no bombs for {reader}");
    bombs
}

/// A folder in memory where there is one: the targets write thousands of small files, and none of them needs to last.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("folder")
}

/// The signature of a complaint: its words, without what stands between back quotes, which came from the input.
pub(crate) fn complaint(text: &str) -> u64 {
    let said = text.split('`').step_by(2).flat_map(str::chars);
    signature(&said.filter(|c| c.is_ascii_alphabetic()).take(80).collect::<String>())
}

#[test]
fn every_bomb_has_a_reader() {
    let known = ["job_file", "clean", "line"];
    for bomb in read_bombs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/bombs")) {
        assert!(known.contains(&bomb.reader.as_str()), "{} is tried by nobody", bomb.name);
    }
}
