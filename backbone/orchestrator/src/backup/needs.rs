//! What the open jobs of a journal need besides it.

use std::fs;
use std::path::PathBuf;

use modchain_core::Control;
use modchain_types::{AccountId, Digest, Input, JobId, TaskBody};
use modchain_wire::decode_task;

use crate::session::named_by;

/// Gives each blob that an open job needs, with the job and its account, to `each`, which tells where the blob can be read if it is
/// there: what a job needs may stand in a task that was moved into the blob store.
pub(super) fn blobs(
    control: &Control,
    mut each: impl FnMut(JobId, &AccountId, &Digest) -> anyhow::Result<Option<PathBuf>>,
) -> anyhow::Result<()> {
    for job in control.jobs() {
        let task = match &job.spec.body {
            TaskBody::Inline(task) => Some(task.clone()),
            // One that cannot be read is named itself; its node will be told as well.
            TaskBody::Blob { digest, .. } => each(job.id, &job.account, digest)?
                .and_then(|path| fs::read(path).ok())
                .and_then(|bytes| decode_task(&bytes).ok()),
        };
        for digest in task.as_ref().map(named_by).unwrap_or_default() {
            each(job.id, &job.account, &digest)?;
        }
    }
    Ok(())
}

/// Open jobs that read standard input. Nothing of it may have come yet.
pub(super) fn inputs(control: &Control) -> impl Iterator<Item = JobId> + '_ {
    control.jobs().filter(|job| job.spec.input == Input::Stream).map(|job| job.id)
}
