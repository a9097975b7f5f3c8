//! Strings, lists and byte chunks with a largest size in their type, so that nothing that a peer sends can grow without
//! bound. The bound is checked while decoding, before a longer value exists.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value was longer than its type allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{got} {unit} is more than the limit of {limit}")]
pub struct TooLong {
    /// The length that was offered.
    pub got: usize,
    /// The largest length allowed.
    pub limit: usize,
    /// What is counted: `bytes` or `items`.
    pub unit: &'static str,
}

/// UTF-8 text of at most `MAX` bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Takes the text, or tells that it is too long.
    pub fn new(text: impl Into<String>) -> Result<Self, TooLong> {
        let text = text.into();
        if text.len() > MAX {
            return Err(TooLong { got: text.len(), limit: MAX, unit: "bytes" });
        }
        Ok(Self(text))
    }

    /// Takes as much of the text as fits, cut at a character boundary and marked with `…`. For messages to people.
    pub fn cut(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX {
            let mut end = MAX.saturating_sub('…'.len_utf8());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            if text.len() + '…'.len_utf8() <= MAX {
                text.push('…');
            }
        }
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as an owned string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for TextVisitor<MAX> {
            type Value = Text<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "text of at most {MAX} bytes")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Text::new(text).map_err(E::custom)
            }
            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Self::Value, E> {
                Text::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(TextVisitor::<MAX>)
    }
}

/// A list of at most `MAX` items. Never use it with an item type that takes no bytes: such a list costs its sender
/// nothing, whatever its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// Takes the items, or tells that there are too many.
    pub fn new(items: Vec<T>) -> Result<Self, TooLong> {
        if items.len() > MAX {
            return Err(TooLong { got: items.len(), limit: MAX, unit: "items" });
        }
        Ok(Self(items))
    }

    /// Takes the first `MAX` items. For lists of which a part is as good an answer as the whole.
    pub fn cut(mut items: Vec<T>) -> Self {
        items.truncate(MAX);
        Self(items)
    }

    /// The items as an owned vector.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> IntoIterator for List<T, MAX> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = List<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} items")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let claimed = seq.size_hint().unwrap_or(0);
                if claimed > MAX {
                    return Err(A::Error::custom(TooLong { got: claimed, limit: MAX, unit: "items" }));
                }
                // The claim is not proof: memory grows with what really arrives.
                let mut items = Vec::with_capacity(claimed.min(64));
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(A::Error::custom(TooLong { got: MAX + 1, limit: MAX, unit: "items" }));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_seq(ListVisitor::<T, MAX>(std::marker::PhantomData))
    }
}

/// An ordered map of at most `MAX` entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<K, V, const MAX: usize>(BTreeMap<K, V>);

impl<K: Ord, V, const MAX: usize> Map<K, V, MAX> {
    /// Takes the entries, or tells that there are too many.
    pub fn new(entries: BTreeMap<K, V>) -> Result<Self, TooLong> {
        if entries.len() > MAX {
            return Err(TooLong { got: entries.len(), limit: MAX, unit: "items" });
        }
        Ok(Self(entries))
    }

    /// The entries as an owned map.
    pub fn into_map(self) -> BTreeMap<K, V> {
        self.0
    }
}

impl<K, V, const MAX: usize> Default for Map<K, V, MAX> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K, V, const MAX: usize> Deref for Map<K, V, MAX> {
    type Target = BTreeMap<K, V>;
    fn deref(&self) -> &BTreeMap<K, V> {
        &self.0
    }
}

impl<K: Serialize, V: Serialize, const MAX: usize> Serialize for Map<K, V, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Map<K, V, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<K, V, const MAX: usize>(std::marker::PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, const MAX: usize> Visitor<'de> for MapVisitor<K, V, MAX> {
            type Value = Map<K, V, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a map of at most {MAX} entries")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let claimed = map.size_hint().unwrap_or(0);
                if claimed > MAX {
                    return Err(A::Error::custom(TooLong { got: claimed, limit: MAX, unit: "items" }));
                }
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if entries.len() == MAX {
                        return Err(A::Error::custom(TooLong { got: MAX + 1, limit: MAX, unit: "items" }));
                    }
                    // Two spellings of one map would be two digests of one job.
                    if entries.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key appears twice"));
                    }
                }
                Ok(Map(entries))
            }
        }
        deserializer.deserialize_map(MapVisitor::<K, V, MAX>(std::marker::PhantomData))
    }
}

/// Raw bytes of at most `MAX`, cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk<const MAX: usize>(Bytes);

impl<const MAX: usize> Chunk<MAX> {
    /// Takes the bytes, or tells that there are too many.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, TooLong> {
        let bytes = bytes.into();
        if bytes.len() > MAX {
            return Err(TooLong { got: bytes.len(), limit: MAX, unit: "bytes" });
        }
        Ok(Self(bytes))
    }

    /// The bytes as an owned, cheaply cloned buffer.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl<const MAX: usize> Deref for Chunk<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> Serialize for Chunk<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Chunk<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Chunk::new(bytes.into_vec()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_over_its_bound_is_refused_and_cut_keeps_whole_characters() {
        assert_eq!(Text::<3>::new("abcd"), Err(TooLong { got: 4, limit: 3, unit: "bytes" }));
        assert_eq!(Text::<5>::cut("abcdef").as_str(), "ab…");
        assert_eq!(Text::<6>::cut("äöü").as_str(), "äöü");
        assert_eq!(Text::<5>::cut("äöü").as_str(), "ä…");
        assert_eq!(Text::<2>::cut("äöü").as_str(), "");
    }

    #[test]
    fn lists_maps_and_chunks_refuse_what_is_too_long() {
        assert!(List::<u8, 2>::new(vec![1, 2, 3]).is_err());
        assert!(Map::<u8, u8, 1>::new(BTreeMap::from([(1, 1), (2, 2)])).is_err());
        assert!(Chunk::<2>::new(vec![1, 2, 3]).is_err());
    }
}
