//! Blocks: what the jobs of one stretch of the journal have in common, small enough that a question looks at all of them.
//!
//! A block is about what [`SPAN`] events in a row have made. For each account, state and label there is the set of the places in
//! it where such a job was made. A question goes through the blocks from the newest on, meets the sets, and reads only the rows
//! of jobs that belong on its page. So a page costs as many rows as it has jobs, whatever is asked for, and some microseconds for
//! each block.
//!
//! What sets cannot say is in columns: moments and beginnings of ids in one, names in another. A column is longer than a set, so
//! it is about [`COLUMN_SPAN`] events: each batch writes those anew that it adds to. Questions look into them as seldom as they can.

use std::collections::BTreeMap;

use modchain_types::JobId;

use super::{ViewError, garbled};

const SPAN_BITS: u32 = 14;
/// Events that one block is about.
pub(super) const SPAN: u64 = 1 << SPAN_BITS;
const WORDS: usize = (SPAN / 64) as usize;
/// Bytes of a set with a bit for each place. One of few places is a list of them, which is shorter.
const SET_BYTES: usize = WORDS * 8;
/// Events that one column is about. The store has sixteen values to a page and takes pages of more than 128 KiB out of its file.
pub(super) const COLUMN_SPAN: u64 = 1 << 10;
/// Bytes of a job in the column of moments: place, moment, beginning of the id.
const MOMENT_BYTES: usize = 2 + 8 + 4;
/// Characters of an id whose meaning is in the column of moments.
pub(super) const ID_CHARS_KNOWN: usize = 6;

/// The block of what this event has made.
pub(super) fn block_of(number: u64) -> u64 {
    number >> SPAN_BITS
}

/// The column of what this event has made.
pub(super) fn column_of(number: u64) -> u64 {
    number / COLUMN_SPAN
}

/// The columns of a block, the first and the last.
pub(super) fn columns_of(block: u64) -> (u64, u64) {
    const COLUMNS: u64 = SPAN / COLUMN_SPAN;
    (block * COLUMNS, block * COLUMNS + COLUMNS - 1)
}

fn place_of(number: u64) -> u16 {
    (number % SPAN) as u16
}

/// A set of places in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places([u64; WORDS]);

impl Places {
    pub(super) const NONE: Self = Self([0; WORDS]);

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(super) fn add(&mut self, number: u64) {
        self.insert(place_of(number));
    }

    pub(super) fn remove(&mut self, number: u64) {
        let place = place_of(number);
        self.0[usize::from(place / 64)] &= !(1 << (place % 64));
    }

    pub(super) fn has(&self, number: u64) -> bool {
        let place = place_of(number);
        self.0[usize::from(place / 64)] >> (place % 64) & 1 == 1
    }

    fn insert(&mut self, place: u16) {
        self.0[usize::from(place / 64)] |= 1 << (place % 64);
    }

    /// Puts a place in that was read; an error if no block has it.
    fn insert_read(&mut self, place: [u8; 2]) -> Result<(), ViewError> {
        match u16::from_be_bytes(place) {
            place if u64::from(place) < SPAN => {
                self.insert(place);
                Ok(())
            }
            _ => Err(garbled("a place is in no block".into())),
        }
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn meet(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    /// The places, the last first.
    fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().enumerate().rev().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.checked_ilog2()?;
                rest &= !(1 << bit);
                Some((at as u32 * 64 + bit) as u16)
            })
        })
    }

    /// The numbers of the events, those of this block, newest first.
    pub(super) fn numbers(&self, block: u64) -> impl Iterator<Item = u64> {
        self.iter().map(move |place| (block << SPAN_BITS) + u64::from(place))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        if self.len() as usize * 2 < SET_BYTES {
            self.iter().flat_map(u16::to_be_bytes).collect()
        } else {
            self.0.iter().flat_map(|word| word.to_be_bytes()).collect()
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ViewError> {
        let mut places = Self::NONE;
        if bytes.len() == SET_BYTES {
            for (word, bytes) in places.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_be_bytes(*bytes);
            }
            return Ok(places);
        }
        let (some, rest) = bytes.as_chunks::<2>();
        if !rest.is_empty() || bytes.len() > SET_BYTES {
            return Err(garbled("a set is garbled".into()));
        }
        some.iter().try_for_each(|place| places.insert_read(*place))?;
        Ok(places)
    }
}

/// Adds a job to a column of moments.
pub(super) fn add_moment(column: &mut Vec<u8>, number: u64, created_ms: i64, id: JobId) {
    column.extend_from_slice(&place_of(number).to_be_bytes());
    column.extend_from_slice(&created_ms.to_be_bytes());
    column.extend_from_slice(&id.0[..4]);
}

/// Takes a job out of a column of moments.
pub(super) fn remove_moment(column: &mut Vec<u8>, number: u64) {
    let place = place_of(number).to_be_bytes();
    *column = column.chunks(MOMENT_BYTES).filter(|job| !job.starts_with(&place)).flatten().copied().collect();
}

/// Calls `each` with place, moment and beginning of the id of every job in a column of moments.
pub(super) fn moments(
    column: &[u8],
    mut each: impl FnMut([u8; 2], i64, u32) -> Result<(), ViewError>,
) -> Result<(), ViewError> {
    let (jobs, rest) = column.as_chunks::<MOMENT_BYTES>();
    if !rest.is_empty() {
        return Err(garbled("a column of moments is garbled".into()));
    }
    for [p0, p1, m0, m1, m2, m3, m4, m5, m6, m7, i0, i1, i2, i3] in jobs {
        let moment = i64::from_be_bytes([*m0, *m1, *m2, *m3, *m4, *m5, *m6, *m7]);
        each([*p0, *p1], moment, u32::from_be_bytes([*i0, *i1, *i2, *i3]))?;
    }
    Ok(())
}

/// The places in a column of moments that `takes` takes, and the earliest moment of all.
pub(super) fn places_of_moments(
    column: &[u8],
    takes: impl Fn(i64, u32) -> bool,
) -> Result<(Places, Option<i64>), ViewError> {
    let (mut places, mut earliest) = (Places::NONE, None);
    moments(column, |place, moment, id| {
        earliest = Some(earliest.map_or(moment, |earliest: i64| earliest.min(moment)));
        if takes(moment, id) { places.insert_read(place) } else { Ok(()) }
    })?;
    Ok((places, earliest))
}

/// Adds a job to those that some events ended.
pub(super) fn add_ended(column: &mut Vec<u8>, finished: u64, number: u64) {
    column.extend_from_slice(&finished.to_be_bytes());
    column.extend_from_slice(&number.to_be_bytes());
}

/// Takes a job out of those that some events ended.
pub(super) fn remove_ended(column: &mut Vec<u8>, number: u64) {
    let number = number.to_be_bytes();
    *column = column.chunks(16).filter(|job| !job.ends_with(&number)).flatten().copied().collect();
}

/// The jobs that some events ended: numbers of the events that ended and made them.
pub(super) fn ended(column: &[u8]) -> Result<Vec<(u64, u64)>, ViewError> {
    let (numbers, rest) = column.as_chunks::<8>();
    let (jobs, none) = numbers.as_chunks::<2>();
    if !rest.is_empty() || !none.is_empty() {
        return Err(garbled("a list of ended jobs is garbled".into()));
    }
    Ok(jobs.iter().map(|[finished, number]| (u64::from_be_bytes(*finished), u64::from_be_bytes(*number))).collect())
}

/// A name in a column of names, which has each once, in order: its length in a byte, the name, how many jobs have it, and their places.
struct NameAt<'a> {
    name: &'a [u8],
    places: &'a [[u8; 2]],
    /// Where in the column it begins.
    begin: usize,
    /// Where it ends.
    end: usize,
}

/// Calls `each` with every name in a column of names until it says that it has seen enough.
fn names<'a>(column: &'a [u8], mut each: impl FnMut(NameAt<'a>) -> Result<bool, ViewError>) -> Result<(), ViewError> {
    let mut begin = 0;
    while begin < column.len() {
        let read = || {
            let (length, rest) = column[begin..].split_first()?;
            let (name, rest) = rest.split_at_checked(usize::from(*length))?;
            let (count, rest) = rest.split_first_chunk::<2>()?;
            let places = rest.get(..2 * usize::from(u16::from_be_bytes(*count)))?;
            let end = column.len() - rest.len() + places.len();
            Some(NameAt { name, places: places.as_chunks().0, begin, end })
        };
        let name = read().ok_or_else(|| garbled("a column of names is garbled".into()))?;
        begin = name.end;
        if each(name)? {
            break;
        }
    }
    Ok(())
}

fn name_bytes<'a>(name: &[u8], places: impl ExactSizeIterator<Item = &'a [u8; 2]>) -> Vec<u8> {
    let mut bytes = vec![name.len() as u8];
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&(places.len() as u16).to_be_bytes());
    bytes.extend(places.flatten());
    bytes
}

/// Adds a job to a column of names. A name has at most 64 bytes.
pub(super) fn add_name(column: &mut Vec<u8>, number: u64, name: &str) -> Result<(), ViewError> {
    let place = [place_of(number).to_be_bytes()];
    let (mut range, mut bytes) = (column.len()..column.len(), name_bytes(name.as_bytes(), place.iter()));
    names(column, |at| {
        if at.name == name.as_bytes() {
            let places: Vec<[u8; 2]> = at.places.iter().chain(&place).copied().collect();
            (range, bytes) = (at.begin..at.end, name_bytes(at.name, places.iter()));
        } else if at.name > name.as_bytes() {
            range = at.begin..at.begin;
        }
        Ok(at.name >= name.as_bytes())
    })?;
    column.splice(range, bytes);
    Ok(())
}

/// Takes a job out of a column of names.
pub(super) fn remove_name(column: &mut Vec<u8>, number: u64, name: &str) -> Result<(), ViewError> {
    let place = place_of(number).to_be_bytes();
    let (mut range, mut bytes) = (0..0, Vec::new());
    names(column, |at| {
        if at.name == name.as_bytes() {
            let places: Vec<[u8; 2]> = at.places.iter().filter(|other| **other != place).copied().collect();
            range = at.begin..at.end;
            bytes = if places.is_empty() { Vec::new() } else { name_bytes(at.name, places.iter()) };
        }
        Ok(at.name >= name.as_bytes())
    })?;
    column.splice(range, bytes);
    Ok(())
}

/// Puts the places in a column of names where the name begins so into `places`.
pub(super) fn add_places_of_names(places: &mut Places, column: &[u8], prefix: &str) -> Result<(), ViewError> {
    names(column, |at| {
        let begins_so = at.name.starts_with(prefix.as_bytes());
        if begins_so {
            at.places.iter().try_for_each(|place| places.insert_read(*place))?;
        }
        Ok(!begins_so && at.name > prefix.as_bytes())
    })
}

/// Ids that begin so, as far as the column of moments has them: the first and the last beginning. `None` if no id does.
pub(super) fn ids_that_begin(prefix: &str) -> Option<(u128, u128)> {
    const DASHED: &str = "j-";
    const CHARS: usize = 26;
    if DASHED.starts_with(prefix) {
        return Some((0, u128::MAX));
    }
    let chars = prefix.strip_prefix(DASHED)?;
    if chars.len() > CHARS || !chars.is_ascii() {
        return None;
    }
    let filled: JobId = format!("{prefix}{}", "0".repeat(CHARS - chars.len())).parse().ok()?;
    // What is typed in capitals is an id too, but no id is shown so.
    filled.to_string().starts_with(prefix).then(|| {
        let first = u128::from_be_bytes(filled.0);
        let open = 5 * (CHARS - chars.len());
        (first, first | 1u128.checked_shl(open as u32).map_or(u128::MAX, |end| end - 1))
    })
}

/// Sets and columns that a batch changes, each read once.
pub(super) struct Edits<'a> {
    tree: &'a sled::Tree,
    sets: BTreeMap<Vec<u8>, Places>,
    columns: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Edits<'a> {
    pub(super) fn of(tree: &'a sled::Tree) -> Self {
        Self { tree, sets: BTreeMap::new(), columns: BTreeMap::new() }
    }

    /// The set under this key, for changing it.
    pub(super) fn set(&mut self, key: Vec<u8>) -> Result<&mut Places, ViewError> {
        Ok(match self.sets.entry(key) {
            std::collections::btree_map::Entry::Occupied(set) => set.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let known = self.tree.get(place.key())?;
                place.insert(known.map_or(Ok(Places::NONE), |bytes| Places::decode(&bytes))?)
            }
        })
    }

    /// The column under this key, for changing it.
    pub(super) fn column(&mut self, key: Vec<u8>) -> Result<&mut Vec<u8>, ViewError> {
        Ok(match self.columns.entry(key) {
            std::collections::btree_map::Entry::Occupied(column) => column.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let known = self.tree.get(place.key())?;
                place.insert(known.map(|bytes| bytes.to_vec()).unwrap_or_default())
            }
        })
    }

    /// Writes them all; those that are empty are no more.
    pub(super) fn write(self, batch: &mut sled::Batch) {
        let sets = self.sets.into_iter().map(|(key, set)| (key, set.encode()));
        for (key, bytes) in sets.chain(self.columns) {
            if bytes.is_empty() { batch.remove(key) } else { batch.insert(key, bytes) }
        }
    }
}

/// Keys and values, newest first.
type Pairs<'a> = Box<dyn Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>> + 'a>;

/// The blocks that have a job of any of some kinds, newest first, with the places of these jobs.
pub(super) struct Walk<'a> {
    lists: Vec<Pairs<'a>>,
    /// The next of each.
    heads: Vec<Option<(u64, sled::IVec)>>,
}

impl<'a> Walk<'a> {
    /// Over the sets or columns under these prefixes, from the block `newest` on.
    pub(super) fn new(tree: &'a sled::Tree, prefixes: &[Vec<u8>], newest: u64) -> Result<Self, ViewError> {
        let mut walk = Self { lists: Vec::new(), heads: Vec::new() };
        for prefix in prefixes {
            let from = prefix.clone();
            let to = [&prefix[..], &newest.to_be_bytes()].concat();
            walk.lists.push(Box::new(tree.range(from..=to).rev()));
            walk.heads.push(None);
        }
        for at in 0..walk.heads.len() {
            walk.advance(at)?;
        }
        Ok(walk)
    }

    fn advance(&mut self, at: usize) -> Result<(), ViewError> {
        self.heads[at] = match self.lists[at].next().transpose()? {
            None => None,
            Some((key, value)) => Some((super::number_at_end(&key)?, value)),
        };
        Ok(())
    }

    /// The next block and what is under its keys.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Vec<sled::IVec>)>, ViewError> {
        let Some(block) = self.heads.iter().flatten().map(|(block, _)| *block).max() else { return Ok(None) };
        let mut values = Vec::new();
        for at in 0..self.heads.len() {
            if let Some((_, value)) = self.heads[at].take_if(|(head, _)| *head == block) {
                values.push(value);
                self.advance(at)?;
            }
        }
        Ok(Some((block, values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_what_was_put_in_whether_it_is_a_list_or_bits() {
        for step in [1, 2, 7, 15, 16, 17, 100, 2_047, 50_000] {
            let numbers: Vec<u64> = (5 * SPAN..6 * SPAN).step_by(step).collect();
            let mut set = Places::NONE;
            numbers.iter().for_each(|number| set.add(*number));
            let bytes = set.encode();
            assert!(bytes.len() <= SET_BYTES && set.len() == numbers.len() as u64);
            let mut again = Places::decode(&bytes).expect("decodes");
            assert_eq!(again, set);
            assert!(again.numbers(5).eq(numbers.iter().rev().copied()), "{step}");
            numbers.iter().for_each(|number| again.remove(*number));
            assert_eq!(again, Places::NONE);
        }
        assert!(Places::NONE.is_empty() && Places::decode(&[]).expect("decodes").is_empty());
    }

    #[test]
    fn a_column_of_names_is_what_was_put_in_and_not_taken_out_again() {
        let names = ["train-2", "", "train-1", "ä", "train", "x", "train-1", "train-12", "a\0b", "train-1"];
        let mut column = Vec::new();
        let found = |column: &[u8], prefix: &str| {
            let mut places = Places::NONE;
            add_places_of_names(&mut places, column, prefix).expect("reads");
            places.numbers(3).collect::<Vec<u64>>()
        };
        let mut there: Vec<(u64, &str)> = Vec::new();
        let check = |column: &[u8], there: &[(u64, &str)]| {
            for prefix in ["", "t", "train", "train-1", "train-12", "x", "y", "a", "\u{e4}"] {
                let expected: Vec<u64> = there
                    .iter()
                    .rev()
                    .filter(|(_, name)| name.starts_with(prefix))
                    .map(|(number, _)| *number)
                    .collect();
                assert_eq!(found(column, prefix), expected, "{prefix}");
            }
        };
        for (number, name) in (3 * SPAN..).zip(names) {
            add_name(&mut column, number, name).expect("adds");
            there.push((number, name));
            check(&column, &there);
        }
        while !there.is_empty() {
            let (number, name) = there.remove(there.len() / 2);
            remove_name(&mut column, number, name).expect("removes");
            check(&column, &there);
        }
        assert!(column.is_empty());
    }

    #[test]
    fn garbled_sets_and_columns_are_errors() {
        for bytes in [&[0][..], &[0xff, 0xff], &[0; SET_BYTES + 2]] {
            assert!(Places::decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(places_of_moments(&[0; MOMENT_BYTES + 1], |_, _| true).is_err());
        assert!(places_of_moments(&[0xff; MOMENT_BYTES], |_, _| true).is_err());
        for bytes in [&[0][..], &[0, 0], &[0, 0, 1, 0], &[5, b'a', 0, 0], &[0, 0, 1, 0xff, 0xff]] {
            assert!(add_places_of_names(&mut Places::NONE.clone(), bytes, "").is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_id_begins_as_its_text_does() {
        let ids = [[0; 16], [0xff; 16], [0x12; 16], *b"0123456789abcdef"].map(JobId);
        for id in ids {
            let (text, number) = (id.to_string(), u128::from_be_bytes(id.0));
            for other in ids {
                let other = other.to_string();
                for length in 0..=other.len() {
                    let prefix = &other[..length];
                    let within = ids_that_begin(prefix).is_some_and(|(first, last)| first <= number && number <= last);
                    assert_eq!(within, text.starts_with(prefix), "{text} {prefix}");
                }
            }
        }
        for none in ["x", "j-u", "j-z", "j-A", "j-0123456789abcdefghjkmnpqrst", "J-"] {
            assert_eq!(ids_that_begin(none), None, "{none}");
        }
    }
}
