//! Whether a container was refused more processes than it may have, or ran out of its memory.
//!
//! The engine does not say the first. The kernel counts it in the container's control group, as long as that exists, so the count is
//! looked at again and again while the container runs. A shell that cannot fork usually ends at once, and its group with it;
//! then the kernel's log, where this agent may read it, still has the line that it writes the first time a group is refused
//! one. Where neither can be seen nothing is known, and a failed job has simply exited.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

/// Time between two looks at the count: some microseconds each.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The kernel's log, record by record.
const KERNEL_LOG: &str = "/dev/kmsg";

/// What the kernel writes, followed by the group, once in a group's life.
const REFUSAL: &str = "fork rejected by pids controller in";

/// What it writes, with the group, when it has killed something because the group has no more memory.
const OUT_OF_MEMORY: &str = "oom-kill:constraint=CONSTRAINT_MEMCG";

/// Largest record of the kernel's log; a shorter buffer is an error to it.
const RECORD_BYTES_MAX: usize = 8192;

/// Records that are read of the kernel's log. Its usual size holds some thousands.
const RECORDS_MAX: usize = 200_000;

/// Watches one container until dropped.
#[derive(Debug)]
pub(super) struct PidsWatch {
    refused: Arc<AtomicBool>,
    _watching: Option<AbortOnDropHandle<()>>,
}

impl PidsWatch {
    /// For the container whose first process this is, on this machine.
    pub(super) fn new(pid: Option<i64>) -> Self {
        let refused = Arc::new(AtomicBool::new(false));
        let file = pid.and_then(|pid| events_file(pid).ok()).and_then(|path| File::open(path).ok());
        let watching = file.map(|file| AbortOnDropHandle::new(tokio::spawn(watch(file, refused.clone()))));
        Self { refused, _watching: watching }
    }

    /// Whether processes have been refused to the container of this id, which has ended.
    pub(super) async fn refused(&self, id: &str) -> bool {
        if self.refused.load(Ordering::Relaxed) {
            return true;
        }
        is_logged(id, REFUSAL).await
    }
}

/// Whether the kernel has killed something in the container of this id for want of memory. The engine says so as well, but not where
/// the container was gone before it looked.
pub(super) async fn ran_out_of_memory(id: &str) -> bool {
    is_logged(id, OUT_OF_MEMORY).await
}

async fn is_logged(id: &str, what: &'static str) -> bool {
    let id = id.to_owned();
    tokio::task::spawn_blocking(move || logged(&id, what)).await.unwrap_or(false)
}

async fn watch(mut file: File, refused: Arc<AtomicBool>) {
    loop {
        // A file of the kernel's own: reading it never waits for a disk.
        match refusals(&mut file) {
            Ok(0) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(_) => return refused.store(true, Ordering::Relaxed),
            // The group is gone, and the container with it.
            Err(_) => return,
        }
    }
}

/// Whether the kernel's log has this about the container's group.
fn logged(id: &str, what: &str) -> bool {
    let Ok(mut log) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(KERNEL_LOG) else {
        return false;
    };
    let mut record = [0; RECORD_BYTES_MAX];
    for _ in 0..RECORDS_MAX {
        match log.read(&mut record) {
            Ok(0) => return false,
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&record[..bytes]);
                if text.contains(what) && text.contains(id) {
                    return true;
                }
            }
            // Overwritten while it was read: the next one.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            // Its end, or a right that we do not have.
            Err(_) => return false,
        }
    }
    false
}

/// `max N` in the file: how often a limit was met.
fn refusals(file: &mut File) -> io::Result<u64> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok()).unwrap_or(0))
}

/// Where the kernel counts for the group of this process: in the tree of all controllers (version 2), or in that of the
/// processes' own (version 1).
fn events_file(pid: i64) -> io::Result<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    place(&groups).filter(|path| path.exists()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn place(groups: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        // A path that leads upwards is one of another view of the tree.
        let path = path.strip_prefix('/').filter(|path| !path.is_empty() && !path.split('/').any(|part| part == ".."));
        match (controllers, path) {
            (controllers, Some(path)) if controllers.split(',').any(|name| name == "pids") => {
                return Some(PathBuf::from("/sys/fs/cgroup/pids").join(path).join("pids.events"));
            }
            ("", Some(path)) => unified = Some(PathBuf::from("/sys/fs/cgroup").join(path).join("pids.events")),
            _ => {}
        }
    }
    unified
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_both_versions_of_control_groups_is_found_and_no_foreign_one() {
        let one = "9:name=systemd:/docker/ab\n8:pids:/docker/ab\n4:memory:/docker/ab\n0::/\n";
        assert_eq!(place(one), Some("/sys/fs/cgroup/pids/docker/ab/pids.events".into()));
        let two = "0::/system.slice/docker-ab.scope\n";
        assert_eq!(place(two), Some("/sys/fs/cgroup/system.slice/docker-ab.scope/pids.events".into()));
        assert_eq!(place("0::/../docker-ab.scope\n"), None);
        assert_eq!(place("0::/\n"), None);
        assert_eq!(place(""), None);
    }
}
