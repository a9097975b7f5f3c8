//! What a job asks of a node. Everything that placing looks at is in here, so that jobs of equal needs are one class.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use modchain_types::{ImageMark, ImagePin, JobSpec, Micro, Policy, Requirements, Span, Task, TaskBody};

/// Jobs of equal needs fit the same nodes, and the same of them is best. Made once and not changed: classes are found by them.
#[derive(Debug, Clone)]
pub struct Needs {
    /// A hash of all that follows. Classes are ordered by it first, so that one is found without comparing everything with
    /// every class on the way. It never leaves the process.
    mark: u64,
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
        let mut needs = Self {
            mark: 0,
            requirements: spec.requirements.clone(),
            max_cost: spec.max_cost,
            time_limit: spec.limits.time_limit,
            policy: spec.policy,
            image: image.map(ImageMark::of),
        };
        let mut hasher = DefaultHasher::new();
        needs.all().hash(&mut hasher);
        needs.mark = hasher.finish();
        needs
    }

    fn all(&self) -> (&Requirements, Micro, Option<Span>, Policy, Option<ImageMark>) {
        (&self.requirements, self.max_cost, self.time_limit, self.policy, self.image)
    }
}

impl Ord for Needs {
    fn cmp(&self, other: &Self) -> Ordering {
        if std::ptr::eq(self, other) {
            return Ordering::Equal; // waiting jobs of a class share them
        }
        self.mark.cmp(&other.mark).then_with(|| self.all().cmp(&other.all()))
    }
}

impl PartialOrd for Needs {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Needs {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Needs {}
