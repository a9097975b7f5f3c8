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
    /// Its moment by the calendar, about.
    pub last_wall: WallTime,
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
}

impl Replayed {
    fn new(data: &Path) -> anyhow::Result<Self> {
        let (_, asset) = identify(&journal_dir(data))?;
        Ok(Self { control: Control::new(ControlConfig::new(asset)), anchor: (Timestamp::ZERO, WallTime(0)) })
    }

    fn take(&mut self, events: &[Event]) {
        for event in events {
            if let EventBody::EngineStarted { wall, .. } = &event.body {
                self.anchor = (event.at, *wall);
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
            last_wall: self.anchor.1.plus(control.last_at().since(self.anchor.0)),
            open_jobs: control.jobs().count(),
            waiting: control.jobs().filter(|job| job.placement().is_none()).count(),
        }
    }
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
