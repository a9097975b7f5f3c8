//! How much of everything that can be reserved, and which part of a whole that is.

use modchain_types::{Capabilities, Requirements, Reservation};

use crate::node::Taken;

/// The whole, in [`Amounts::part_of`].
pub const WHOLE: u64 = 1_000_000_000_000;

/// Thousandths of a core, bytes of memory, bytes of disk, attempts, GPUs. Sums over a pool need more than 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts([u128; 5]);

impl From<&Reservation> for Amounts {
    fn from(reservation: &Reservation) -> Self {
        Self([
            reservation.cpu_milli.into(),
            reservation.memory_bytes.into(),
            reservation.disk_bytes.into(),
            1,
            reservation.gpus.len() as u128,
        ])
    }
}

impl From<&Requirements> for Amounts {
    fn from(requirements: &Requirements) -> Self {
        Self([
            requirements.cpu_milli.into(),
            requirements.memory_bytes.into(),
            requirements.disk_bytes.into(),
            1,
            requirements.gpus.count.into(),
        ])
    }
}

impl From<&Capabilities> for Amounts {
    fn from(capabilities: &Capabilities) -> Self {
        Self([
            capabilities.cpu_milli.into(),
            capabilities.memory_bytes.into(),
            capabilities.disk_bytes.into(),
            capabilities.attempts_max().into(),
            capabilities.gpus.len() as u128,
        ])
    }
}

impl From<&Taken> for Amounts {
    fn from(taken: &Taken) -> Self {
        Self([
            taken.cpu_milli.into(),
            taken.memory_bytes.into(),
            taken.disk_bytes.into(),
            taken.slots.into(),
            taken.gpus.len() as u128,
        ])
    }
}

impl Amounts {
    /// Both together.
    pub fn plus(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(amount, more)| *amount += more);
        self
    }

    /// What is left without the other, which is a part of it.
    pub fn minus(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(amount, less)| *amount = amount.saturating_sub(less));
        self
    }

    /// The largest of the parts that these amounts are of `whole`, in parts of [`WHOLE`], rounded down. What there is none of
    /// counts as taken whole by who has some.
    pub fn part_of(&self, whole: &Self) -> u64 {
        let part = |(amount, whole): (&u128, &u128)| {
            if *amount == 0 {
                return 0;
            }
            let parts = amount.saturating_mul(WHOLE.into()).checked_div(*whole).unwrap_or(WHOLE.into());
            u64::try_from(parts).unwrap_or(u64::MAX)
        };
        self.0.iter().zip(&whole.0).map(part).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_is_that_of_the_scarcest() {
        let whole = Amounts([64_000, 256 << 30, 0, 128, 8]);
        let part = |amounts: [u128; 5]| Amounts(amounts).part_of(&whole);
        assert_eq!(part([1_000, 1 << 30, 0, 1, 0]), WHOLE / 64);
        assert_eq!(part([1_000, 1 << 30, 0, 1, 1]), WHOLE / 8, "one GPU of eight");
        assert_eq!(part([0, 0, 0, 0, 0]), 0);
        assert_eq!(part([0, 0, 1, 0, 0]), WHOLE, "of what nobody has");
        assert_eq!(Amounts([u128::MAX; 5]).part_of(&whole), u64::MAX, "absurd amounts have an order too");
    }
}
