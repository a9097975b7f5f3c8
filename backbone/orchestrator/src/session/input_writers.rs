//! Which jobs have a client that is sending their standard input. A person may think for an hour before the next line, and
//! that is fine as long as his client is there; input that nobody is sending any more ends after a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use modchain_types::JobId;

/// Streams that send input, by job. Entered for as long as a guard lives; so there are never more than streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct InputWriters {
    counts: Arc<Mutex<HashMap<JobId, usize>>>,
}

impl InputWriters {
    /// Counts a stream until the guard is dropped.
    pub(crate) fn enter(&self, job: JobId) -> InputWriter {
        *self.lock().entry(job).or_default() += 1;
        InputWriter { writers: self.clone(), job }
    }

    /// Whether somebody is there to send more.
    pub(crate) fn any(&self, job: JobId) -> bool {
        self.lock().contains_key(&job)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, usize>> {
        // A count is changed in one step, so nothing can be half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream that sends input.
#[derive(Debug)]
pub(crate) struct InputWriter {
    writers: InputWriters,
    job: JobId,
}

impl Drop for InputWriter {
    fn drop(&mut self) {
        let mut counts = self.writers.lock();
        if let Some(count) = counts.get_mut(&self.job) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_a_writer_until_the_last_one_leaves() {
        let (writers, job) = (InputWriters::default(), JobId([1; 16]));
        let (first, second) = (writers.enter(job), writers.enter(job));
        drop(first);
        assert!(writers.any(job));
        drop(second);
        assert!(!writers.any(job) && writers.lock().is_empty());
    }
}
