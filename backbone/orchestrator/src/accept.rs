//! `accept-restore`: the operator goes on with an old copy of the data though nodes have seen more than it knows.
//!
//! One event says it. From there on the journal is called otherwise, so that what agents and consoles remember of the lost past
//! proves nothing any more, and fences begin far above any that can have been handed out in it, so that old work is void wherever it
//! still runs. The files of the journal keep their id and their chain: what was known stays proved.

use std::path::Path;

use anyhow::{Context, bail};
use modchain_core::{Command, Control, ControlConfig, Event, EventBody};
use modchain_types::{JournalId, Timestamp, WallTime};

use crate::engine::journal_dir;
use crate::init::random;
use crate::session::wall_now;
use crate::store::journal::{Journal, identify, walk};
use crate::store::lock::DataLock;

/// What goes on and what is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// What the journal was called.
    pub was: JournalId,
    /// What it is called now; `None` if it was only looked at.
    pub now: Option<JournalId>,
    /// The last event of the copy.
    pub last_number: u64,
    /// When something happened last that it knows of, by the calendar and about. An old copy that is served before it is accepted
    /// notes its own starts and who comes, and that is nothing of what is lost.
    pub known_until: WallTime,
    /// Jobs that have not ended by it.
    pub open_jobs: usize,
    /// Those of them that wait for a node.
    pub waiting: usize,
}

/// A journal as it was replayed.
struct Replayed {
    control: Control,
    /// Where its timeline last met the calendar.
    anchor: (Timestamp, WallTime),
    /// When something happened last.
    known_until: WallTime,
}

impl Replayed {
    fn new(data: &Path) -> anyhow::Result<Self> {
        let (_, asset) = identify(&journal_dir(data))?;
        let (control, never) = (Control::new(ControlConfig::new(asset)), WallTime(0));
        Ok(Self { control, anchor: (Timestamp::ZERO, never), known_until: never })
    }

    fn take(&mut self, events: &[Event]) {
        for event in events {
            if let EventBody::EngineStarted { wall, .. } = &event.body {
                self.anchor = (event.at, *wall);
            }
            if !also_happens_to_an_old_copy(&event.body) || self.known_until == WallTime(0) {
                self.known_until = self.anchor.1.plus(event.at.since(self.anchor.0));
            }
            self.control.evolve(event);
        }
    }

    fn acceptance(&self, id: JournalId) -> Acceptance {
        let control = &self.control;
        Acceptance {
            was: control.accepted().map_or(id, |(journal, _)| journal),
            now: None,
            last_number: control.last_number(),
            known_until: self.known_until,
            open_jobs: control.jobs().count(),
            waiting: control.jobs().filter(|job| job.placement().is_none()).count(),
        }
    }
}

/// Whether an orchestrator that has been told of its data's age still writes such events.
fn also_happens_to_an_old_copy(body: &EventBody) -> bool {
    use EventBody::{CertificateRetired, CertificateUsed, EngineStarted, NodeConnected, NodeLost};
    matches!(
        body,
        EngineStarted { .. }
            | NodeConnected { .. }
            | NodeLost { .. }
            | CertificateUsed { .. }
            | CertificateRetired { .. }
    )
}

/// Tells what would go on and what would be lost. Changes nothing.
pub fn look_at_restore(data: &Path) -> anyhow::Result<Acceptance> {
    let mut replayed = Replayed::new(data)?;
    let walked = walk(&journal_dir(data), |events| replayed.take(&events))?;
    Ok(replayed.acceptance(walked.journal))
}

/// Goes on with the journal in `data` as it is. Nobody may serve it meanwhile. Blocks.
pub fn accept_restore(data: &Path) -> anyhow::Result<Acceptance> {
    let _lock = DataLock::take(data).context("a copy is accepted while nobody serves it")?;
    let mut replayed = Replayed::new(data)?;
    let mut journal = Journal::open(&journal_dir(data), |events| replayed.take(&events))?;
    if let Err(breach) = replayed.control.audit() {
        bail!("the journal is whole but what it says is not, and nothing goes on from that: {breach}");
    }
    let acceptance = replayed.acceptance(journal.id());
    let fresh = JournalId(random()?);
    let at = replayed.control.last_at();
    let decision = replayed.control.apply(at, Command::AcceptRestore { journal: fresh, wall: wall_now() });
    journal.append(&decision.events).context("it cannot be recorded")?;
    Ok(Acceptance { now: Some(fresh), ..acceptance })
}
