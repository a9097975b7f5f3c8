//! Which blobs a job needs, and telling the blob store.

use modchain_core::Control;
use modchain_types::{AccountId, Digest, JobId, JobSpec, Task, TaskBody};
use modchain_wire::decode_task;
use modchain_wire::frame::SPEC_BYTES_MAX;

use crate::engine::{EngineGone, EngineHandle};
use crate::store::blobs::{BlobError, BlobStore};

/// A job's task, read from the blob store if it was moved there.
pub(crate) async fn task_of(blobs: &BlobStore, account: &AccountId, spec: &JobSpec) -> Result<Task, BlobError> {
    match &spec.body {
        TaskBody::Inline(task) => Ok(task.clone()),
        TaskBody::Blob { digest, .. } => {
            let bytes = blobs.get(account, digest, SPEC_BYTES_MAX as u64).await?;
            decode_task(&bytes).map_err(|_| BlobError::Damaged)
        }
    }
}

/// The blobs that a task names.
pub(crate) fn named_by(task: &Task) -> Vec<Digest> {
    match task {
        Task::Wasm(task) => vec![task.module],
        Task::Docker(_) => Vec::new(),
        Task::Llm(task) => vec![task.request],
    }
}

/// Tells the blob store which blobs a job needs that has not ended; one that is unknown or has ended needs none.
///
/// Called for every open job at the start, and after a submit that may have spoken for a job that is somebody else's.
pub async fn reference_blobs(engine: &EngineHandle, blobs: &BlobStore, job: JobId) -> Result<(), EngineGone> {
    let known = move |control: &Control, _| control.job(job).map(|job| (job.account.clone(), job.spec.clone()));
    let Some((account, spec)) = engine.query(known).await? else {
        blobs.release(job);
        return Ok(());
    };
    let mut digests = Vec::new();
    if let TaskBody::Blob { digest, .. } = &spec.body {
        digests.push(*digest);
    }
    match task_of(blobs, &account, &spec).await {
        Ok(task) => digests.extend(named_by(&task)),
        // Its node will be told, when it is assigned, that it cannot be read.
        Err(error) => tracing::warn!(%job, %error, "the task of an open job cannot be read"),
    }
    blobs.reference(job, &account, &digests);
    // It may have ended meanwhile, and whoever lets go of what ended jobs need has been here before.
    if !engine.query(move |control: &Control, _| control.job(job).is_some()).await? {
        blobs.release(job);
    }
    Ok(())
}
