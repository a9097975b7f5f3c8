//! `ledger verify`: reads a whole journal, checks every byte of it, replays it and audits the result. Changes nothing, and
//! works beside a running orchestrator.

use std::path::Path;
use std::thread;
use std::time::Duration;

use modchain_core::{Control, ControlConfig};
use modchain_types::{Asset, JournalId};

use crate::engine::journal_dir;
use crate::store::journal::{Damage, WalkError, Walked, identify, walk};
use crate::store::lock::DataLock;

/// How often a torn end is looked at again while somebody writes: it may just be half written.
const LOOKS: u32 = 40;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A journal that is whole, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its id.
    pub journal: JournalId,
    /// What its money is.
    pub asset: Asset,
    /// Segments.
    pub segments: usize,
    /// Batches.
    pub batches: u64,
    /// Number of the last event.
    pub last_number: u64,
    /// The chain at its end: what stands for all of it.
    pub head: [u8; 32],
    /// Accounts with a balance.
    pub accounts: usize,
    /// Money in all of them that clients, owners and the platform have, in micro-units. What came from outside is the same
    /// amount.
    pub money: i128,
    /// Jobs that have not ended.
    pub open_jobs: usize,
    /// Jobs that have, and are remembered.
    pub ended_jobs: usize,
}

/// Why a journal does not pass.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Missing, unreadable or damaged.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Its last record is torn. The orchestrator would cut it off at its next start, because nobody was told of it.
    #[error("the journal ends with a torn record: {0}")]
    Torn(Damage),
    /// It is whole, and what it says breaks an invariant.
    #[error("the journal is whole but its state is not: {0}")]
    Audit(modchain_core::audit::Breach),
}

/// Verifies the journal of a data directory.
pub fn verify(data: &Path) -> Result<Verified, VerifyError> {
    let dir = journal_dir(data);
    let mut looks = 0;
    loop {
        let (control, walked) = replay(&dir)?;
        match walked.torn.clone() {
            None => {
                control.audit().map_err(VerifyError::Audit)?;
                return Ok(summary(&control, &walked));
            }
            Some(torn) => {
                looks += 1;
                if looks >= LOOKS || !DataLock::is_held(data) {
                    return Err(VerifyError::Torn(torn));
                }
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// The state that a journal stands for.
pub(crate) fn replay(dir: &Path) -> Result<(Control, Walked), WalkError> {
    let (_, asset) = identify(dir)?;
    let mut control = Control::new(ControlConfig::new(asset));
    let walked = walk(dir, |events| events.iter().for_each(|event| control.evolve(event)))?;
    Ok((control, walked))
}

fn summary(control: &Control, walked: &Walked) -> Verified {
    let money = |(account, balance): (&modchain_core::ledger::Account, i128)| {
        if account.may_be_negative() { 0 } else { balance }
    };
    Verified {
        journal: walked.journal,
        asset: walked.asset,
        segments: walked.segment_count(),
        batches: walked.batches,
        last_number: walked.last_number,
        head: walked.hash,
        accounts: control.ledger().balances().count(),
        money: control.ledger().balances().map(money).sum(),
        open_jobs: control.jobs().count(),
        ended_jobs: control.ended_count(),
    }
}
