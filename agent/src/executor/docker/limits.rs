//! Whether a container was refused more processes than it may have.
//!
//! The engine does not say so; the kernel counts it in the container's control group, as long as that exists. The kernel wakes
//! whoever watches the count, which matters: a shell that cannot fork usually ends at once, and its group soon after it. Where
//! the group cannot be seen, such as from inside another container, nothing is known and a failed job has simply exited.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::task::AbortOnDropHandle;

/// Time between two looks when the kernel does not wake anybody.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
        let watching = pid.and_then(|pid| events_file(pid).ok()).and_then(|path| {
            let file = File::open(path).ok()?;
            // SAFETY: an open file gives the same descriptor as long as it lives, and `AsyncFd` owns it until both are dropped.
            let events = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.ok()?;
            Some(AbortOnDropHandle::new(tokio::spawn(watch(events, refused.clone()))))
        });
        Self { refused, _watching: watching }
    }

    /// Whether processes have been refused so far.
    pub(super) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

async fn watch(mut events: AsyncFd<File>, refused: Arc<AtomicBool>) {
    loop {
        // A file of the kernel's own: reading it never waits for a disk.
        match refusals(events.get_mut()) {
            Ok(0) => {}
            Ok(_) => return refused.store(true, Ordering::Relaxed),
            // The group is gone, and the container with it.
            Err(_) => return,
        }
        tokio::select! {
            ready = events.ready(Interest::PRIORITY) => match ready {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return,
            },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
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
