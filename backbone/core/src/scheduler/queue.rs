//! The waiting jobs, in classes of equal needs, and in which order they go.
//!
//! ```text
//! higher priority first, as far as the operator lets the account ([`Ceilings`])
//!   then the account that holds the smallest part of the pool, or was served longest ago ([`Shares`])
//!     then, within the account, higher priority, then the order of acceptance
//! ```
//!
//! The order follows from the jobs, the assignments and the offers, so after a replay it is what it was. An account with ten
//! thousand waiting jobs holds no more of the pool for that, and one that comes with a single job goes before it.
//!
//! Placing and ending a job change how its account stands, and with it the account's place in every class. What puts it
//! further back is noticed when its turn comes, which is then too early ([`Queue::head`]); what puts it further ahead, before
//! the next pass ([`Queue::turns`]). So neither placing a job nor ending one takes more steps because more jobs wait.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use modchain_types::{AccountId, JobId, Offer, Reservation};

use super::amounts::Amounts;
use super::needs::{Needs, SharedNeeds};
use super::numbers::Numbers;
use super::shares::{Served, Shares, Standing};
use crate::job::Job;

/// How far the priorities of an account count against other accounts. Within its own account a priority always counts.
///
/// Without this, whoever writes the highest number would go first for nothing. A configuration and not an event: what was
/// placed by it stands, and what waits is ordered anew at the next start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ceilings {
    /// For accounts that are not named: 0 lets them give way to others, and not push ahead.
    pub default: i8,
    /// For these.
    pub accounts: BTreeMap<AccountId, i8>,
}

impl Ceilings {
    /// What a priority of this account counts for against other accounts.
    pub fn counts_as(&self, account: &AccountId, priority: i8) -> i8 {
        priority.min(self.accounts.get(account).copied().unwrap_or(self.default))
    }
}

/// When a job is next; smaller goes first. The number in its place makes it unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// What the priority counts for against other accounts.
    counts_as: Reverse<i8>,
    /// How its account stands.
    standing: Standing,
    place: Place,
}

/// A job's place among those of its account: higher priority first, then the order of acceptance, which retries keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    priority: Reverse<i8>,
    number: u64,
}

/// The waiting jobs.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    ceilings: Ceilings,
    shares: Shares,
    classes: BTreeMap<SharedNeeds, Class>,
    accounts: BTreeMap<AccountId, Waiting>,
    /// Accounts whose share may have fallen since the last pass.
    fallen: Fallen,
    length: usize,
}

/// The waiting jobs of equal needs.
#[derive(Debug, Clone, Default)]
struct Class {
    lanes: BTreeMap<AccountId, Lane>,
    /// The first job of each lane by the lane's turn, which may be too early.
    order: Order,
}

type Order = BTreeMap<Turn, (AccountId, JobId)>;

/// The waiting jobs of one account in one class. Never empty.
#[derive(Debug, Clone)]
struct Lane {
    jobs: BTreeMap<Place, JobId>,
    /// Where it stands in its class's order.
    turn: Turn,
}

/// What waits of one account.
#[derive(Debug, Clone, Default)]
struct Waiting {
    /// Numbers of the jobs' acceptance, by priority. No entry is empty.
    numbers: BTreeMap<Reverse<i8>, Numbers>,
    /// The classes that it has a lane in.
    classes: BTreeSet<SharedNeeds>,
}

#[derive(Debug, Clone)]
enum Fallen {
    These(BTreeSet<AccountId>),
    Any,
}

impl Default for Fallen {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

fn place_of(job: &Job) -> Place {
    Place { priority: Reverse(job.spec.priority), number: job.queued_number }
}

impl Lane {
    /// The first job may be another one, or its account may stand otherwise.
    fn reorder(&mut self, order: &mut Order, counts_as: i8, standing: Standing) {
        let (place, job) = self.jobs.first_key_value().expect("a lane has a job");
        let turn = Turn { counts_as: Reverse(counts_as), standing, place: *place };
        if turn != self.turn {
            let (account, _) = order.remove(&self.turn).expect("every lane is in the order");
            order.insert(turn, (account, *job));
            self.turn = turn;
        }
    }

    /// The priority of its first job, which is its highest.
    fn priority(&self) -> i8 {
        self.jobs.first_key_value().expect("a lane has a job").0.priority.0
    }
}

impl Class {
    fn head(&mut self, shares: &Shares) -> Option<(Turn, JobId)> {
        loop {
            let (turn, (account, job)) = self.order.first_key_value()?;
            let standing = shares.of(account);
            if standing == turn.standing {
                return Some((*turn, *job));
            }
            // It has been given something since it was put here.
            let (_, first) = self.order.pop_first().expect("just looked");
            let lane = self.lanes.get_mut(&first.0).expect("it is in the order");
            lane.turn.standing = standing;
            self.order.insert(lane.turn, first);
        }
    }
}

impl Queue {
    /// An empty one.
    pub fn new(ceilings: Ceilings) -> Self {
        Self { ceilings, ..Self::default() }
    }

    /// These needs as the jobs of their class have them, so that a million equal jobs keep them once.
    pub fn shared(&self, needs: Needs) -> SharedNeeds {
        let needs = SharedNeeds::from(needs);
        match self.classes.get_key_value(&needs) {
            Some((known, _)) => known.clone(),
            None => needs,
        }
    }

    /// Adds a job.
    pub fn insert(&mut self, job: &Job) {
        let (account, place) = (&job.account, place_of(job));
        self.shares.came(account, place.number);
        let class = self.classes.entry(job.needs.clone()).or_default();
        if let Some(lane) = class.lanes.get_mut(account) {
            if lane.jobs.insert(place, job.id).is_some() {
                return; // it was in
            }
            let (counts_as, standing) = (self.ceilings.counts_as(account, lane.priority()), lane.turn.standing);
            lane.reorder(&mut class.order, counts_as, standing);
        } else {
            let counts_as = Reverse(self.ceilings.counts_as(account, place.priority.0));
            let turn = Turn { counts_as, standing: self.shares.of(account), place };
            class.lanes.insert(account.clone(), Lane { jobs: BTreeMap::from([(place, job.id)]), turn });
            class.order.insert(turn, (account.clone(), job.id));
        }
        self.length += 1;
        if !self.accounts.contains_key(account) {
            self.accounts.insert(account.clone(), Waiting::default());
        }
        let waiting = self.accounts.get_mut(account).expect("just looked");
        waiting.numbers.entry(place.priority).or_default().insert(place.number);
        if !waiting.classes.contains(&job.needs) {
            waiting.classes.insert(job.needs.clone());
        }
    }

    /// Takes a job out, if it is in; tells whether its class is gone with it.
    pub fn remove(&mut self, job: &Job) -> bool {
        let (account, place) = (&job.account, place_of(job));
        let Some(class) = self.classes.get_mut(&job.needs) else { return false };
        let Some(lane) = class.lanes.get_mut(account) else { return false };
        if lane.jobs.remove(&place).is_none() {
            return false;
        }
        self.length -= 1;
        let waiting = self.accounts.get_mut(account).expect("it has a job that waits");
        let numbers = waiting.numbers.get_mut(&place.priority).expect("it has a job of this priority");
        numbers.remove(place.number);
        if numbers.is_empty() {
            waiting.numbers.remove(&place.priority);
        }
        if !lane.jobs.is_empty() {
            let (counts_as, standing) = (self.ceilings.counts_as(account, lane.priority()), lane.turn.standing);
            lane.reorder(&mut class.order, counts_as, standing);
            return false;
        }
        class.order.remove(&lane.turn);
        class.lanes.remove(account);
        let gone = class.lanes.is_empty();
        if gone {
            self.classes.remove(&job.needs);
        }
        waiting.classes.remove(&job.needs);
        if waiting.classes.is_empty() {
            self.accounts.remove(account);
        }
        gone
    }

    /// An account holds this much more, by the event of this number.
    pub fn placed(&mut self, account: &AccountId, reservation: &Reservation, number: u64) {
        self.shares.take(account, reservation, number);
    }

    /// An account stands as a snapshot says.
    pub fn was_served(&mut self, account: AccountId, served: Served) {
        self.shares.was_served(account, served);
    }

    /// An account holds this much less.
    pub fn unplaced(&mut self, account: &AccountId, reservation: &Reservation) {
        self.shares.give_back(account, reservation);
        if let Fallen::These(accounts) = &mut self.fallen
            && self.accounts.contains_key(account)
        {
            accounts.insert(account.clone());
        }
    }

    /// A node offers this now in place of that.
    pub fn offered(&mut self, before: Option<&Offer>, after: Option<&Offer>) {
        if self.shares.offered(before, after) {
            self.fallen = Fallen::Any;
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How accounts stand.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// How far priorities count between accounts.
    pub fn ceilings(&self) -> &Ceilings {
        &self.ceilings
    }

    /// Every class by its turn. Where the first of a class fits nowhere, no other of it does; so a pass looks at these
    /// alone, and a class costs it one look however many wait in it.
    pub fn turns(&mut self) -> BTreeMap<Turn, SharedNeeds> {
        match std::mem::take(&mut self.fallen) {
            Fallen::These(accounts) => accounts.iter().for_each(|account| self.notice(account)),
            Fallen::Any => {
                let accounts: Vec<AccountId> = self.accounts.keys().cloned().collect();
                accounts.iter().for_each(|account| self.notice(account));
            }
        }
        let Self { classes, shares, .. } = self;
        classes.iter_mut().filter_map(|(needs, class)| Some((class.head(shares)?.0, needs.clone()))).collect()
    }

    /// Puts an account where it belongs, in every class that it waits in.
    fn notice(&mut self, account: &AccountId) {
        let Some(waiting) = self.accounts.get(account) else { return };
        let standing = self.shares.of(account);
        for needs in &waiting.classes {
            let class = self.classes.get_mut(needs).expect("it waits in this class");
            let lane = class.lanes.get_mut(account).expect("it waits in this class");
            let counts_as = lane.turn.counts_as.0;
            lane.reorder(&mut class.order, counts_as, standing);
        }
    }

    /// The job of this class whose turn it is. Right as long as no share has fallen since [`Queue::turns`].
    pub fn head(&mut self, needs: &SharedNeeds) -> Option<(Turn, JobId)> {
        self.classes.get_mut(needs)?.head(&self.shares)
    }

    /// How many go before this job, if each takes as much of the pool as it does, and each that ends makes room for one: all
    /// of a higher priority, its account's own before it, and of every other account as many as it is let start until both
    /// stand level and from then on by turns. Takes steps by the number of accounts that wait, not by the number of jobs.
    pub fn ahead(&self, job: &Job) -> Ahead {
        let Some(waiting) = self.accounts.get(&job.account) else { return Ahead::default() };
        let counts_as = self.ceilings.counts_as(&job.account, job.spec.priority);
        let standing = self.shares.of(&job.account);
        let own = waiting.before(place_of(job));
        let (higher, _) = waiting.rivals(&job.account, counts_as, &self.ceilings);
        // Whoever has jobs of a higher priority is served late in any case.
        let served = (higher, standing.served);
        let step = u128::from(Amounts::from(&job.spec.requirements).part_of(self.shares.whole()).max(1));
        let share_then = u128::from(standing.share) + u128::from(own - higher) * step;
        let mut all = own;
        for (account, waiting) in self.accounts.iter().filter(|(account, _)| **account != job.account) {
            let (higher, equal) = waiting.rivals(account, counts_as, &self.ceilings);
            let standing = self.shares.of(account);
            let starts = match share_then.checked_sub(standing.share.into()) {
                None => 0,
                Some(gap) if gap % step > 0 => gap / step + 1,
                // Where both stand level, who was served longest ago is first, and stays first.
                Some(gap) => gap / step + u128::from((higher, standing.served) < served),
            };
            all += higher + u64::try_from(starts).unwrap_or(u64::MAX).min(equal);
        }
        Ahead { all, own }
    }
}

/// How many jobs go before one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// Of all accounts.
    pub all: u64,
    /// Of its own account.
    pub own: u64,
}

impl Waiting {
    /// How many of the account's jobs go before this place.
    fn before(&self, place: Place) -> u64 {
        let higher: u64 = self.numbers.range(..place.priority).map(|(_, numbers)| numbers.len()).sum();
        higher + self.numbers.get(&place.priority).map_or(0, |numbers| numbers.below(place.number))
    }

    /// How many jobs of the account count for more than `counts_as`, and how many for just that.
    fn rivals(&self, account: &AccountId, counts_as: i8, ceilings: &Ceilings) -> (u64, u64) {
        let (mut higher, mut equal) = (0, 0);
        for (Reverse(priority), numbers) in &self.numbers {
            match ceilings.counts_as(account, *priority).cmp(&counts_as) {
                Ordering::Greater => higher += numbers.len(),
                Ordering::Equal => equal += numbers.len(),
                Ordering::Less => break,
            }
        }
        (higher, equal)
    }
}
