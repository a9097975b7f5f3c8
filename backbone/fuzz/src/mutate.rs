//! Makes one input out of another: damage as a stranger would do it.

use crate::Random;

/// Integers at the edges where readers go wrong.
const EDGES: &[u64] = &[
    0,
    1,
    7,
    16,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xfff,
    0x1000,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 48,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Most steps that one mutant is away from its parent.
const STEPS_MAX: usize = 6;
/// Longest run of bytes that one step inserts, takes or repeats.
const RUN_BYTES_MAX: usize = 64;
/// Most repetitions of a piece in one step: deep enough for what nests, once or twice in a row.
const REPEATS_MAX: usize = 512;

/// What mutants are made with.
#[derive(Debug)]
pub struct Mutator<'a> {
    /// Words of the format, put in as they are.
    pub words: &'a [Vec<u8>],
    /// Longest mutant, in bytes.
    pub longest: usize,
}

impl Mutator<'_> {
    /// Changes `input` in a few steps; `other` is another input, to mix with.
    pub fn mutate(&self, random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
        // Mostly few steps: a mutant that differs in everything is refused at the first byte.
        let steps = 1 + random.below(STEPS_MAX).min(random.below(STEPS_MAX));
        for _ in 0..steps {
            self.step(random, input, other);
            input.truncate(self.longest);
        }
    }

    fn step(&self, random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
        let at = random.below(input.len() + 1);
        match random.below(14) {
            0 => change(random, input, |random, byte| byte ^ 1 << random.below(8)),
            1 => change(random, input, |random, _| random.number() as u8),
            2 => change(random, input, |random, byte| byte.wrapping_add(random.below(9) as u8).wrapping_sub(4)),
            3 => {
                let number = edge(random);
                let width = *random.pick(&[1, 2, 4, 8]);
                let bytes = if random.below(2) == 0 { number.to_le_bytes() } else { number.swap_bytes().to_le_bytes() };
                let piece = if random.below(2) == 0 { &bytes[..width] } else { &bytes[8 - width..] };
                overwrite(input, at, piece);
            }
            4 => {
                // A length as the codec writes it, and as it must not: the shortest form is not always chosen.
                let (mark, width) = *random.pick(&[(251u8, 2), (252, 4), (253, 8), (254, 16), (255, 0)]);
                let mut piece = vec![mark];
                piece.extend_from_slice(&u128::from(edge(random)).to_le_bytes()[..width]);
                if random.below(2) == 0 { insert(input, at, &piece) } else { overwrite(input, at, &piece) }
            }
            5 => {
                let piece: Vec<u8> = (0..=random.below(16)).map(|_| random.number() as u8).collect();
                insert(input, at, &piece);
            }
            6 => {
                let end = (at + 1 + random.below(RUN_BYTES_MAX)).min(input.len());
                input.drain(at.min(end)..end);
            }
            7 => {
                let piece = run(random, input).to_vec();
                insert(input, at, &piece);
            }
            8 => {
                let piece = run(random, other);
                insert(input, at, piece);
            }
            9 => overwrite(input, at, run(random, other)),
            10 => {
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            11 => input.truncate(at),
            12 if !self.words.is_empty() => {
                let word = random.pick(self.words);
                if random.below(2) == 0 { insert(input, at, word) } else { overwrite(input, at, word) }
            }
            _ => {
                let piece = match (self.words, random.below(2)) {
                    ([_, ..], 0) => random.pick(self.words).clone(),
                    _ => run(random, input).to_vec(),
                };
                let times = 1 + random.below(REPEATS_MAX).min(self.longest / piece.len().max(1));
                insert(input, at, &piece.repeat(times));
            }
        }
    }
}

fn edge(random: &mut Random) -> u64 {
    let edge = *random.pick(EDGES);
    match random.below(4) {
        0 => edge.wrapping_add(1),
        1 => edge.wrapping_sub(1),
        _ => edge,
    }
}

fn change(random: &mut Random, input: &mut [u8], new: impl Fn(&mut Random, u8) -> u8) {
    let at = random.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte = new(random, *byte);
    }
}

fn run<'a>(random: &mut Random, bytes: &'a [u8]) -> &'a [u8] {
    let start = random.below(bytes.len());
    let end = (start + 1 + random.below(RUN_BYTES_MAX)).min(bytes.len());
    &bytes[start..end]
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

fn overwrite(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let end = (at + piece.len()).min(input.len());
    input.splice(at..end, piece.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_are_the_same_for_the_same_seed_differ_and_keep_to_their_length() {
        let words = [b"word".to_vec()];
        let mutator = Mutator { words: &words, longest: 300 };
        let mutants = |seed| -> Vec<Vec<u8>> {
            let mut random = Random::new(seed);
            (0..2_000)
                .map(|round| {
                    let mut input = b"an input of some length"[..round % 24].to_vec();
                    mutator.mutate(&mut random, &mut input, b"another input");
                    input
                })
                .collect()
        };
        let (one, again, other) = (mutants(1), mutants(1), mutants(2));
        assert!(one == again && one != other);
        assert!(one.iter().all(|mutant| mutant.len() <= 300) && one.iter().any(|mutant| mutant.len() == 300));
        let different: std::collections::HashSet<_> = one.iter().collect();
        assert!(different.len() > 1_500, "{} of 2000 differ", different.len());
        assert!(one.iter().any(|mutant| mutant.windows(4).any(|piece| piece == b"word")));
    }
}
