//! Children that were started before there was a job for them: a job then waits for no process to start.
//!
//! There are none before the first job, as many as jobs have found missing after it, never more than the node has slots, and
//! none again once no job has come for a while. Each of them is like one that is started for its job: locked in before it
//! reads anything of it, for one job alone, gone with the agent.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::template::{Template, Waiting};

/// Most children that wait, whatever the number of slots: they are started faster than most jobs run.
const SPARES_MAX: usize = 8;

/// So long after the last job they wait for another.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Where children come from.
#[derive(Debug)]
pub(super) struct Spares {
    program: PathBuf,
    dir: PathBuf,
    slots: AtomicU32,
    idle_max: Duration,
    state: Mutex<State>,
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What they are forked from.
    template: Option<Arc<Template>>,
    waiting: VecDeque<Waiting>,
    /// How many there should be.
    wanted: usize,
    /// Jobs so far.
    jobs: u64,
    /// Whether somebody keeps them.
    kept: bool,
}

impl Spares {
    /// Children of `program`, which work in `dir`. None wait before [`Spares::set_slots`].
    pub(super) fn new(program: PathBuf, dir: PathBuf) -> Self {
        let (slots, state, taken) = (AtomicU32::new(0), Mutex::default(), Notify::new());
        Self { program, dir, slots, idle_max: IDLE_MAX, state, taken }
    }

    /// The same in another folder.
    pub(super) fn in_dir(self, dir: PathBuf) -> Self {
        Self { dir, ..self }
    }

    /// The same that wait so long after the last job.
    pub(super) fn waiting_for(self, idle_max: Duration) -> Self {
        Self { idle_max, ..self }
    }

    /// How many jobs the node runs at once.
    pub(super) fn set_slots(&self, slots: u32) {
        self.slots.store(slots, Ordering::Relaxed);
    }

    /// A child for a job, one that waits or a new one. To be called within a tokio runtime.
    pub(super) fn take(self: &Arc<Self>) -> io::Result<Waiting> {
        let most = SPARES_MAX.min(self.slots.load(Ordering::Relaxed) as usize);
        let (found, keep) = {
            let mut state = self.state();
            state.jobs += 1;
            let found = loop {
                let Some(waiting) = state.waiting.pop_front() else { break None };
                // One that somebody has ended is of no use.
                if waiting.is_fit() {
                    break Some(waiting);
                }
            };
            if found.is_none() {
                state.wanted += 1;
            }
            state.wanted = state.wanted.min(most);
            let keep = !state.kept && state.wanted > 0;
            state.kept |= keep;
            (found, keep)
        };
        // The job's own goes first.
        let taken = found.map_or_else(|| self.fork(), Ok);
        match keep {
            true => drop(tokio::spawn(Arc::clone(self).keep())),
            false => self.taken.notify_one(),
        }
        taken
    }

    /// A new child, of a new template where there is none that may have another.
    fn fork(&self) -> io::Result<Waiting> {
        let template = self.template(None)?;
        // One that somebody has ended may not be known to be gone yet.
        template.fork().or_else(|_| self.template(Some(&template))?.fork())
    }

    /// What a child can be forked from, but not `failed`.
    fn template(&self, failed: Option<&Arc<Template>>) -> io::Result<Arc<Template>> {
        let usable = |state: &State| {
            let is_other = |template: &&Arc<Template>| failed.is_none_or(|failed| !Arc::ptr_eq(failed, template));
            state.template.as_ref().filter(is_other).filter(|template| template.is_usable()).cloned()
        };
        if let Some(template) = usable(&self.state()) {
            return Ok(template);
        }
        // Without the lock: starting a program takes as long as the machine is slow, and who wants a child that waits need not
        // wait for that.
        let template = Arc::new(Template::start(&self.program, &self.dir)?);
        let mut state = self.state();
        // Somebody else may have been quicker. One that nobody holds ends.
        if let Some(template) = usable(&state) {
            return Ok(template);
        }
        state.template = Some(Arc::clone(&template));
        Ok(template)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is missing, until no job has come for a while.
    async fn keep(self: Arc<Self>) {
        loop {
            let jobs = self.state().jobs;
            while self.is_one_missing() {
                match self.fork() {
                    Ok(waiting) => self.state().waiting.push_back(waiting),
                    Err(error) => {
                        tracing::warn!(%error, "no process can be started to wait for a module");
                        break;
                    }
                }
                // Between two of them those run who have a job.
                tokio::task::yield_now().await;
            }
            if tokio::time::timeout(self.idle_max, self.taken.notified()).await.is_err() {
                let mut state = self.state();
                if state.jobs == jobs {
                    // Dropping them ends them.
                    *state = State { jobs, ..State::default() };
                    return;
                }
            }
        }
    }

    fn is_one_missing(&self) -> bool {
        let state = self.state();
        state.waiting.len() < state.wanted
    }
}
