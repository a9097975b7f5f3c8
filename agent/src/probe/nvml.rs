//! GPUs, through NVIDIA's management library, which is named here and nowhere else.
//!
//! The library is loaded while the agent runs: a machine without it is an answer, and one that gets a driver later needs no
//! restart. It is asked on threads that may wait, because one call can take a tenth of a second. Nothing that it may tell is
//! taken for granted: what a driver does not know is `None`. A GPU is known by its UUID, which survives what its index does
//! not; one that falls off the bus keeps its place in the offer and in every look, so that the samples of the others stay
//! where they are.
//!
//! A GPU that is cut into instances (MIG) is not offered: jobs would be given the whole of what others hold parts of.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use modchain_types::{GpuInfo, List, Text, Timestamp};
use modchain_wire::agent::GpuSample;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;

use super::Findings;
use crate::clock;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two tries to load the library, and between two looks for GPUs that were not there before.
const SEARCH_EVERY: Duration = Duration::from_secs(60);

/// Looks in a row at which no GPU told anything, after which the library is loaded anew: its driver may have been replaced.
const SILENT_LOOKS_MAX: u32 = 60;

/// Looks that are kept for heartbeats: as many as one of them can carry, and a little more than the silence after which the
/// orchestrator takes a node for unreachable.
pub const TICKS_MAX: usize = 16;

/// GPUs that are offered, at most: as many as an offer can hold.
const GPUS_MAX: usize = 64;

/// One look at all GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When it began.
    pub at: Timestamp,
    /// In the order in which they were found, or, in what heartbeats get, of the offer.
    pub gpus: List<GpuSample, 64>,
}

/// The newest looks, until the orchestrator has them. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct GpuTicks(Arc<Mutex<Looks>>);

#[derive(Debug, Default)]
struct Looks {
    newest: VecDeque<Look>,
    /// Places, among those found, of the GPUs that are offered; `None` where all are.
    offered: Option<Vec<usize>>,
}

impl GpuTicks {
    /// Adds a look; the oldest one makes room for it. One that is not newer than all others is not taken.
    pub fn add(&self, look: Look) {
        let looks = &mut self.looks().newest;
        if looks.back().is_some_and(|newest| newest.at >= look.at) {
            return;
        }
        if looks.len() == TICKS_MAX {
            looks.pop_front();
        }
        looks.push_back(look);
    }

    /// What was seen of the GPUs that are offered after this moment, oldest first.
    pub fn after(&self, moment: Option<Timestamp>) -> Vec<Look> {
        let looks = self.looks();
        let wanted = looks.newest.iter().filter(|look| moment.is_none_or(|moment| look.at > moment));
        let shown = |look: &Look| match &looks.offered {
            None => look.clone(),
            Some(places) => {
                let samples = places.iter().map(|place| look.gpus.get(*place).copied().unwrap_or_default());
                Look { at: look.at, gpus: List::cut(samples.collect()) }
            }
        };
        wanted.map(shown).filter(|look| !look.gpus.is_empty()).collect()
    }

    /// Only the GPUs at these places among those found are offered: looks show them alone, in this order.
    pub fn offer(&self, places: Vec<usize>) {
        self.looks().offered = Some(places);
    }

    /// The orchestrator has everything up to this moment.
    pub fn forget(&self, upto: Timestamp) {
        self.looks().newest.retain(|look| look.at > upto);
    }

    /// Other GPUs have other samples.
    fn clear(&self) {
        self.looks().newest.clear();
    }

    /// Nobody who holds the lock can leave it half done.
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look, for whoever does not stay: the GPUs, or why there are none. Waits for the driver.
pub fn look_once(library: Option<PathBuf>) -> Result<Vec<GpuInfo>, String> {
    let mut library = Library::load(library)?;
    library.search();
    Ok(library.gpus)
}

/// Keeps the GPUs in `findings` and the looks in `ticks` up to date, for ever. `library` is the file to load instead of the
/// system's own.
pub async fn watch(library: Option<PathBuf>, findings: watch::Sender<Findings>, ticks: GpuTicks) {
    let mut told = None;
    loop {
        let path = library.clone();
        let why = match tokio::task::spawn_blocking(move || Library::load(path)).await {
            Ok(Ok(library)) => {
                if look_on(library, &findings, &ticks).await.is_err() {
                    return;
                }
                "no GPU answers any more; the library is loaded anew".to_owned()
            }
            Ok(Err(why)) => {
                offer(&[], &findings, &ticks);
                why
            }
            // The agent is going down.
            Err(_) => return,
        };
        if told.as_ref() != Some(&why) {
            tracing::info!(why, "GPUs are looked for again every minute");
            told = Some(why);
        }
        tokio::time::sleep(SEARCH_EVERY).await;
    }
}

/// Looks on until no GPU has answered for a while. Fails when there are no threads to wait on any more.
async fn look_on(mut library: Library, findings: &watch::Sender<Findings>, ticks: &GpuTicks) -> Result<(), JoinError> {
    let mut search_at = tokio::time::Instant::now();
    let mut every = tokio::time::interval(LOOK_EVERY);
    // A look that is late does not shift those after it.
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut silent = 0;
    while silent < SILENT_LOOKS_MAX {
        let search = every.tick().await >= search_at;
        if search {
            search_at += SEARCH_EVERY;
        }
        let at = clock::now();
        let (back, look) = tokio::task::spawn_blocking(move || {
            if search {
                library.search();
            }
            let look = library.look(at);
            (library, look)
        })
        .await?;
        library = back;
        if search {
            offer(&library.gpus, findings, ticks);
        }
        if look.gpus.is_empty() {
            continue;
        }
        let answered = look.gpus.iter().any(|sample| *sample != GpuSample::default());
        silent = if answered { 0 } else { silent + 1 };
        ticks.add(look);
    }
    Ok(())
}

fn offer(gpus: &[GpuInfo], findings: &watch::Sender<Findings>, ticks: &GpuTicks) {
    findings.send_if_modified(|findings| {
        let changed = findings.gpus != gpus;
        if changed {
            findings.gpus = gpus.to_vec();
            ticks.clear();
        }
        changed
    });
}

/// The loaded library, and what it has told.
struct Library {
    nvml: Nvml,
    /// Those that are offered; none ever loses its place.
    gpus: Vec<GpuInfo>,
    /// Those that are not offered, so that this is said once of each.
    cut: Vec<String>,
}

impl Library {
    fn load(path: Option<PathBuf>) -> Result<Self, String> {
        let nvml = match &path {
            Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
            None => Nvml::init(),
        };
        nvml.map(|nvml| Self { nvml, gpus: Vec::new(), cut: Vec::new() }).map_err(|error| error.to_string())
    }

    /// Looks for GPUs that were not there before.
    fn search(&mut self) {
        let count = match self.nvml.device_count() {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%error, "the GPUs cannot be counted");
                return;
            }
        };
        let driver = Text::cut(self.nvml.sys_driver_version().unwrap_or_default());
        for index in 0..count {
            let found = self.nvml.device_by_index(index).and_then(|device| Ok((device.uuid()?, device)));
            let (uuid, device) = match found {
                Ok((uuid, device)) => (uuid, device),
                Err(error) => {
                    tracing::warn!(index, %error, "a GPU does not tell who it is and is not offered");
                    continue;
                }
            };
            if self.gpus.iter().any(|gpu| *gpu.uuid == *uuid) || self.cut.contains(&uuid) {
                continue;
            }
            if in_instances(&device) {
                tracing::warn!(uuid, "a GPU is cut into instances (MIG) and is not offered");
                self.cut.push(uuid);
                continue;
            }
            match describe(&uuid, &device, &driver) {
                Ok(gpu) if self.gpus.len() < GPUS_MAX => {
                    tracing::info!(uuid, model = %gpu.model, memory_bytes = gpu.memory_bytes, "a GPU");
                    self.gpus.push(gpu);
                }
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(uuid, %error, "a GPU does not tell what it is and is not offered yet");
                }
            }
        }
    }

    /// Asks every GPU how it is.
    fn look(&self, at: Timestamp) -> Look {
        let samples = self.gpus.iter().map(|gpu| match self.nvml.device_by_uuid(gpu.uuid.as_str()) {
            Ok(device) => sample(&device),
            Err(_) => GpuSample::default(),
        });
        Look { at, gpus: List::cut(samples.collect()) }
    }
}

/// Whether a GPU is cut into instances now. One that cannot be, or a driver that does not know of such, says so by an error.
fn in_instances(device: &Device<'_>) -> bool {
    device.mig_mode().is_ok_and(|mode| mode.current != 0)
}

/// What is asked of a GPU before it is offered: without its model and its memory no job could choose it.
fn describe(uuid: &str, device: &Device<'_>, driver: &Text<32>) -> Result<GpuInfo, NvmlError> {
    let compute = device.cuda_compute_capability();
    Ok(GpuInfo {
        uuid: Text::cut(uuid),
        vendor: Text::cut("nvidia"),
        model: Text::cut(device.name()?),
        memory_bytes: device.memory_info()?.total,
        driver: Text::clone(driver),
        compute: compute.map(|version| Text::cut(format!("{}.{}", version.major, version.minor))).unwrap_or_default(),
    })
}

fn sample(device: &Device<'_>) -> GpuSample {
    let small = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    GpuSample {
        busy_pct: device.utilization_rates().ok().map(|rates| small(rates.gpu.min(100))),
        memory_used_bytes: device.memory_info().ok().map(|memory| memory.used),
        temperature_c: device.temperature(TemperatureSensor::Gpu).ok().map(small),
        power_mw: device.power_usage().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(second: u64) -> Look {
        Look { at: Timestamp(second * 1_000_000), gpus: List::cut(vec![GpuSample::default()]) }
    }

    #[test]
    fn looks_are_kept_until_they_have_arrived_and_never_more_than_sixteen() {
        let ticks = GpuTicks::default();
        (1..=20).for_each(|second| ticks.add(look(second)));
        assert_eq!(ticks.after(None), (5..=20).map(look).collect::<Vec<_>>());
        ticks.add(look(20));
        ticks.add(look(3));
        assert_eq!(ticks.after(Some(look(18).at)), [look(19), look(20)], "nothing twice, and nothing out of order");
        ticks.clone().forget(look(19).at);
        assert_eq!(ticks.after(None), [look(20)]);
        ticks.clear();
        assert!(ticks.after(None).is_empty());
    }

    #[test]
    fn of_gpus_that_are_not_offered_nothing_is_told() {
        let ticks = GpuTicks::default();
        let sample = |busy| GpuSample { busy_pct: Some(busy), ..GpuSample::default() };
        ticks.add(Look { at: Timestamp(1), gpus: List::cut((0..3).map(sample).collect()) });
        ticks.offer(vec![2, 0]);
        assert_eq!(*ticks.after(None)[0].gpus, [sample(2), sample(0)], "in the order of the offer");
        ticks.offer(Vec::new());
        assert!(ticks.after(None).is_empty());
    }

    #[tokio::test]
    async fn a_machine_without_the_library_has_no_gpus_and_no_looks() {
        let before = Findings { gpus: Vec::new(), models: Some(Vec::new()), ..Findings::default() };
        let (findings, seen) = watch::channel(before.clone());
        let ticks = GpuTicks::default();
        let watching = tokio::spawn(watch(Some("/nowhere/libnvidia-ml.so".into()), findings, ticks.clone()));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!watching.is_finished() && !seen.has_changed().expect("it is still there"));
        assert_eq!(*seen.borrow(), before);
        assert!(ticks.after(None).is_empty());
        watching.abort();
    }
}
