//! What a job asks of a node. Everything that placing looks at is in here, so that jobs of equal needs are one class.

use modchain_types::{ImageMark, ImagePin, JobSpec, Micro, Policy, Requirements, Span, Task, TaskBody};

/// Jobs of equal needs fit the same nodes, and the same of them is best.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needs {
    /// What the node must have.
    pub requirements: Requirements,
    /// What is held for the job: it must pay for a run that is worth beginning.
    pub max_cost: Micro,
    /// The longest run.
    pub time_limit: Option<Span>,
    /// Which node is best.
    pub policy: Policy,
    /// The container image that it runs, as far as that is known here: a task that is kept in the blob store does not tell.
    pub image: Option<ImageMark>,
}

impl Needs {
    /// The needs of this specification; `image` is what its attempts run, once one has found that.
    pub fn of(spec: &JobSpec, image: Option<&ImagePin>) -> Self {
        let image = match &spec.body {
            TaskBody::Inline(Task::Docker(task)) => Some(image.map_or(&*task.image, |pin| &**pin)),
            TaskBody::Inline(Task::Wasm(_) | Task::Llm(_)) | TaskBody::Blob { .. } => image.map(|pin| &**pin),
        };
        Self {
            requirements: spec.requirements.clone(),
            max_cost: spec.max_cost,
            time_limit: spec.limits.time_limit,
            policy: spec.policy,
            image: image.map(ImageMark::of),
        }
    }
}
