//! What a process has done so far, as the system counts it. Times of processors are the same whatever else the machine does;
//! times by the clock are not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// What a process has done.
pub(crate) struct Effort {
    /// Processor ticks, its own and the kernel's for it.
    ticks: u64,
    threads: BTreeMap<OsString, Thread>,
}

/// What one of its threads has done.
#[derive(Debug, Clone, Copy, Default)]
struct Thread {
    /// On a processor.
    nanos: u64,
    /// How often it gave the processor away because it had nothing to do.
    switches: u64,
}

/// What a process did between two looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// Processor ticks: hundredths of a second on Linux, rounded down.
    pub(crate) ticks: u64,
    /// Time on a processor, exactly; without that of threads that have ended meanwhile.
    pub(crate) time: Duration,
    /// How often a thread had nothing to do any more; without those that have ended meanwhile.
    pub(crate) switches: u64,
}

impl Effort {
    /// Of a process that runs.
    pub(crate) fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("a number");
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
        let threads = threads.filter_map(|thread| Some((thread.file_name(), Thread::of(&thread.path())?)));
        // The first field here is the third of the manual: 14 and 15 are user and system time.
        Self { ticks: ticks(11) + ticks(12), threads: threads.collect() }
    }

    /// What it did since then. A thread may have the number of one that has ended, and has done less than that one.
    pub(crate) fn since(&self, before: &Self) -> Spent {
        let mut spent = Spent { ticks: self.ticks - before.ticks, time: Duration::ZERO, switches: 0 };
        for (thread, now) in &self.threads {
            let then = before.threads.get(thread).copied().unwrap_or_default();
            spent.time += Duration::from_nanos(now.nanos.saturating_sub(then.nanos));
            spent.switches += now.switches.saturating_sub(then.switches);
        }
        spent
    }
}

impl Thread {
    /// `None` if it has ended.
    fn of(folder: &Path) -> Option<Self> {
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        // Some kernels do not count it.
        let nanos = std::fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
        let nanos = nanos.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default();
        Some(Self { nanos, switches: switches.trim().parse().ok()? })
    }
}

impl Spent {
    /// Part of one core, in percent, that it had in such a time.
    pub(crate) fn percent_of(&self, time: Duration) -> f64 {
        self.time.as_secs_f64() * 100.0 / time.as_secs_f64()
    }
}

/// Kilobytes of a process, by the name of the line in its status: `VmHWM` is the most that it ever had in memory.
pub(crate) fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
}

/// How much else this machine does: the load averages of 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// The middle one, the one below which 99 of 100 lie, and the longest.
pub(crate) fn spread(times: &mut [Duration]) -> (Duration, Duration, Duration) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    (at(50), at(99), at(100))
}
