//! Cores, memory, disk and load of the machine, through sysinfo, which is named here and nowhere else.
//!
//! One [`SystemProbe`] lives as long as the agent, because the load is measured between two looks. Looking takes a few system
//! calls: do it where waiting is allowed. Nothing is refreshed that is not asked for.

use std::path::{Path, PathBuf};

use modchain_wire::agent::HostLoad;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// What does not change while the machine runs, and the free disk at the time of the look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may use: fewer than the machine has where a control group or an affinity says so.
    pub cores: u32,
    /// Bytes of memory that this process may use, likewise.
    pub memory_bytes: u64,
    /// Bytes free where the agent keeps its data.
    pub disk_free_bytes: u64,
}

/// Looks at the machine.
#[derive(Debug)]
pub struct SystemProbe {
    /// `None` where sysinfo does not know the system.
    system: Option<System>,
    data: PathBuf,
    looked: bool,
}

impl SystemProbe {
    /// For a machine whose data lies below `data`.
    pub fn new(data: &Path) -> Self {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        Self { system: System::new_with_specifics(kinds).ok(), data: data.to_owned(), looked: false }
    }

    /// What there is to offer.
    pub fn machine(&mut self) -> Machine {
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        Machine { cores, memory_bytes: self.memory().1, disk_free_bytes: disk_free_bytes(&self.data) }
    }

    /// How busy the machine is now. The busy share of the cores is known from the second look on.
    pub fn load(&mut self) -> HostLoad {
        let (memory_used_bytes, memory_total_bytes) = self.memory();
        let cpu_permille = self.system.as_mut().and_then(|system| {
            system.refresh_cpu_usage();
            // A share, measured since the last look: whole thousandths are as exact as it gets.
            let permille = (system.global_cpu_usage() * 10.0).round().clamp(0.0, 1000.0) as u16;
            std::mem::replace(&mut self.looked, true).then_some(permille)
        });
        HostLoad { cpu_permille, memory_used_bytes, memory_total_bytes, disk_free_bytes: disk_free_bytes(&self.data) }
    }

    /// Bytes in use and in all; of the control group where it has a limit below the machine's.
    fn memory(&mut self) -> (u64, u64) {
        let Some(system) = &mut self.system else { return (0, 0) };
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let total = system.total_memory();
        match system.cgroup_limits() {
            Some(group) if group.total_memory > 0 && group.total_memory < total => {
                (group.total_memory.saturating_sub(group.free_memory), group.total_memory)
            }
            _ => (system.used_memory(), total),
        }
    }
}

/// Bytes that an ordinary user may still write; zero where the system does not tell. One system call on the folder itself,
/// because the list of disks says nothing about quotas and overlays.
fn disk_free_bytes(data: &Path) -> u64 {
    rustix::fs::statvfs(data).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_cores_memory_and_disk_and_its_load_is_known_from_the_second_look_on() {
        let dir = tempfile::tempdir().expect("dir");
        let mut probe = SystemProbe::new(dir.path());
        let machine = probe.machine();
        assert!(machine.cores >= 1 && machine.memory_bytes > 1 << 20 && machine.disk_free_bytes > 0, "{machine:?}");
        let first = probe.load();
        assert_eq!(first.cpu_permille, None);
        let second = probe.load();
        assert!(second.cpu_permille.is_some_and(|share| share <= 1000));
        assert!(second.memory_used_bytes > 0 && second.memory_used_bytes <= second.memory_total_bytes);
        assert_eq!(second.memory_total_bytes, machine.memory_bytes);
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_room() {
        assert_eq!(SystemProbe::new(Path::new("/nowhere/at/all")).machine().disk_free_bytes, 0);
    }
}
