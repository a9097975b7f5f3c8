//! Whether an assignment fits what the node offers and holds.
//!
//! The orchestrator reserves before it assigns, so a refusal is rare: the owner has just changed the offer, or something that
//! the orchestrator gave up still runs here. The agent has the last word, because it alone knows what really runs.

use std::collections::BTreeSet;

use modchain_types::{Assignment, Capabilities, Reservation, TaskBody, Text};

/// Why this node does not take an assignment, in a sentence for people.
pub(super) type Objection = Text<512>;

/// Judges `assignment` by what the node offers and by what its live attempts hold.
pub(super) fn admit<'a>(
    capabilities: &Capabilities,
    held: impl Iterator<Item = &'a Reservation>,
    assignment: &Assignment,
) -> Result<(), Objection> {
    let TaskBody::Inline(task) = &assignment.spec.body else {
        return Err(Text::cut("the assignment came without its task"));
    };
    let adapter = task.adapter();
    if !capabilities.adapters.contains(&adapter) {
        return Err(Text::cut(format!("this node has no {adapter} executor")));
    }

    let mut used = Used::default();
    held.for_each(|reservation| used.add(reservation));
    if used.slots >= u64::from(capabilities.slots) {
        return Err(Text::cut(format!("all {} slots are in use", capabilities.slots)));
    }
    let wanted = &assignment.reservation;
    for (what, wanted, used, offered) in [
        ("thousandths of a core", wanted.cpu_milli.into(), used.cpu_milli, capabilities.cpu_milli.into()),
        ("bytes of memory", wanted.memory_bytes, used.memory_bytes, capabilities.memory_bytes),
        ("bytes of disk", wanted.disk_bytes, used.disk_bytes, capabilities.disk_bytes),
    ] {
        let free = offered.saturating_sub(used);
        if wanted > free {
            return Err(Text::cut(format!("needs {wanted} {what}, {free} of {offered} are free")));
        }
    }
    // A GPU named twice in one reservation is refused by the same set.
    for (uuid, _) in &wanted.gpus {
        if !capabilities.gpus.iter().any(|gpu| gpu.uuid == *uuid) {
            return Err(Text::cut(format!("this node has no GPU {uuid}")));
        }
        if !used.gpus.insert(uuid.as_str()) {
            return Err(Text::cut(format!("GPU {uuid} is in use")));
        }
    }
    Ok(())
}

/// What live attempts hold together.
#[derive(Default)]
struct Used<'a> {
    slots: u64,
    cpu_milli: u64,
    memory_bytes: u64,
    disk_bytes: u64,
    gpus: BTreeSet<&'a str>,
}

impl<'a> Used<'a> {
    fn add(&mut self, reservation: &'a Reservation) {
        self.slots += 1;
        self.cpu_milli = self.cpu_milli.saturating_add(reservation.cpu_milli.into());
        self.memory_bytes = self.memory_bytes.saturating_add(reservation.memory_bytes);
        self.disk_bytes = self.disk_bytes.saturating_add(reservation.disk_bytes);
        self.gpus.extend(reservation.gpus.iter().map(|(uuid, _)| uuid.as_str()));
    }
}
