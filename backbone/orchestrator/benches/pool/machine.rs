//! What the machine can do: the limits that everything else stands beside.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::report;

/// How often each is tried.
const TIMES: usize = 300;
/// Bytes of one write before a sync: what a job's event has in the journal.
const WRITE_BYTES: usize = 512;

pub(crate) async fn measure() {
    report::spread("fdatasync after 512 bytes at the end of a file", &syncs(0));
    report::spread("fdatasync after 512 bytes of space that was there", &syncs(1 << 20));
    report::spread("spawn and wait for /bin/true", &spawns());
    let bulk = crate::output::bare_stream().await;
    report::line("one QUIC stream, mutual TLS, nothing else", &format!("{bulk:.0} MB/s"));
}

/// Times of a write and its sync, in a file that already has so many bytes.
fn syncs(there: usize) -> Vec<Duration> {
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(&vec![1; there], 0).and_then(|()| file.sync_all()).expect("it is written");
    let bytes = [2; WRITE_BYTES];
    let sync = |file: &File, number: usize| {
        let begun = Instant::now();
        file.write_all_at(&bytes, (number * WRITE_BYTES) as u64).and_then(|()| file.sync_data()).expect("synced");
        begun.elapsed()
    };
    (0..TIMES).map(|number| sync(&file, number)).collect()
}

fn spawns() -> Vec<Duration> {
    let spawn = |_| {
        let begun = Instant::now();
        let status = Command::new("/bin/true").stdin(Stdio::null()).status().expect("it is there");
        assert!(status.success());
        begun.elapsed()
    };
    (0..TIMES).map(spawn).collect()
}
