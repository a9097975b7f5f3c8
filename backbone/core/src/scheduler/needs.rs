//! What a job asks of a node. Everything that placing looks at is in here, so that jobs of equal needs are one class.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use modchain_types::{ImageMark, ImagePin, JobSpec, Micro, Policy, Requirements, Span, Task, TaskBody};

/// Jobs of equal needs fit the same nodes, and the same of them is best.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// Needs that the jobs of a class share, and that classes are found by. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedNeeds {
    /// A hash of them, by which they are ordered first: who looks for a class does not go to the needs of every other one on the
    /// way. It never leaves the process.
    mark: u64,
    needs: Arc<Needs>,
}

impl From<Needs> for SharedNeeds {
    fn from(needs: Needs) -> Self {
        let mut hasher = DefaultHasher::new();
        needs.hash(&mut hasher);
        Self { mark: hasher.finish(), needs: Arc::new(needs) }
    }
}

impl Deref for SharedNeeds {
    type Target = Needs;

    fn deref(&self) -> &Needs {
        &self.needs
    }
}

impl Ord for SharedNeeds {
    fn cmp(&self, other: &Self) -> Ordering {
        self.mark.cmp(&other.mark).then_with(|| match Arc::ptr_eq(&self.needs, &other.needs) {
            true => Ordering::Equal, // waiting jobs of a class share them
            false => self.needs.cmp(&other.needs),
        })
    }
}

impl PartialOrd for SharedNeeds {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SharedNeeds {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SharedNeeds {}
