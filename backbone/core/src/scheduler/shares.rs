//! Which part of the pool each account holds, and when it was last given some: who holds least goes first, and among those
//! who hold the same who has waited longest.
//!
//! An account's share is dominant: of cores, memory, disk, places for attempts and GPUs it is the one of which the account
//! holds the largest part that counts. Who holds one of eight GPUs and who holds an eighth of the cores are equals. The whole
//! is what all nodes offer that were not revoked, silent ones too, so that it changes seldom and never with time.
//!
//! Holding least is not enough where a pool has room for few: whoever has just ended its only job holds nothing, as does
//! somebody who has waited all day. So the last start is remembered too, for good, lest somebody be new again with each job.

use std::collections::BTreeMap;

use modchain_types::{AccountId, Offer, Reservation};

use super::amounts::Amounts;

/// How an account stands to others; smaller goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Standing {
    /// The part of the pool that it holds, in parts of [`super::amounts::WHOLE`].
    pub share: u64,
    /// When it was last given some.
    pub served: Served,
}

/// When an account was last given something, in numbers of the journal. Newcomers go first, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Served {
    /// Never; its first job was accepted then.
    Never(u64),
    /// Its last assignment.
    At(u64),
}

impl Default for Served {
    fn default() -> Self {
        Self::Never(u64::MAX)
    }
}

/// How every account stands. Follows from the nodes' offers and the assignments alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares {
    whole: Amounts,
    accounts: BTreeMap<AccountId, (Amounts, Standing)>,
}

impl Shares {
    /// How this account stands.
    pub fn of(&self, account: &AccountId) -> Standing {
        self.accounts.get(account).map_or(Standing::default(), |(_, standing)| *standing)
    }

    /// What all nodes offer.
    pub fn whole(&self) -> &Amounts {
        &self.whole
    }

    /// Every account that ever had a job, with what it holds.
    pub fn held(&self) -> impl Iterator<Item = (&AccountId, &Amounts)> {
        self.accounts.iter().map(|(account, (held, _))| (account, held))
    }

    /// A job of this account is accepted, by the event of this number, which counts if it is the first.
    pub(super) fn came(&mut self, account: &AccountId, number: u64) {
        if !self.accounts.contains_key(account) {
            let standing = Standing { share: 0, served: Served::Never(number) };
            self.accounts.insert(account.clone(), (Amounts::default(), standing));
        }
    }

    /// When each account was last given something.
    pub fn served(&self) -> impl Iterator<Item = (&AccountId, Served)> {
        self.accounts.iter().map(|(account, (_, standing))| (account, standing.served))
    }

    pub(super) fn was_served(&mut self, account: AccountId, served: Served) {
        self.accounts.entry(account).or_default().1.served = served;
    }

    /// An attempt of this account is placed, by the event of this number.
    pub(super) fn take(&mut self, account: &AccountId, reservation: &Reservation, number: u64) {
        let (held, standing) = match self.accounts.get_mut(account) {
            Some(known) => known,
            // From a snapshot that does not tell who was served.
            None => self.accounts.entry(account.clone()).or_default(),
        };
        *held = held.plus(reservation.into());
        standing.share = held.part_of(&self.whole);
        standing.served = standing.served.max(Served::At(number));
    }

    pub(super) fn give_back(&mut self, account: &AccountId, reservation: &Reservation) {
        let Some((held, standing)) = self.accounts.get_mut(account) else { return };
        *held = held.minus(reservation.into());
        standing.share = held.part_of(&self.whole);
    }

    /// A node offers this now in place of that; tells whether the whole is another one.
    pub(super) fn offered(&mut self, before: Option<&Offer>, after: Option<&Offer>) -> bool {
        let amounts = |offer: Option<&Offer>| offer.map(|offer| Amounts::from(&offer.capabilities)).unwrap_or_default();
        let (before, after) = (amounts(before), amounts(after));
        if before == after {
            return false;
        }
        self.whole = self.whole.minus(before).plus(after);
        for (held, standing) in self.accounts.values_mut() {
            standing.share = held.part_of(&self.whole);
        }
        true
    }
}
