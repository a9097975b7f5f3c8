//! Walks the type of every message, as its reader sees it, and looks for what no message may have: a list of items that take
//! no bytes, a type within itself, a text, list, map or run of bytes without a bound.
//!
//! The walk is a deserializer that invents its input. It goes through every variant of every enum at every place.

use std::collections::BTreeSet;
use std::fmt;

use modchain_types::*;
use modchain_wire::agent::*;
use modchain_wire::console::*;
use modchain_wire::join::*;
use modchain_wire::view::*;
use modchain_wire::{CHUNK_BYTES_MAX, FromAgent, FromConsole, FromJoiner, Message, ToAgent, ToConsole, ToJoiner};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

/// Longest text in any message.
const TEXT_BYTES_MAX: usize = 4096;
/// Longest list or map in any message.
const ITEMS_MAX: usize = 4096;

/// What one place of a type is probed with, while all others get the least they may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// A text that is longer than any may be.
    Text,
    /// A run of bytes that is longer than any may be.
    Bytes,
    /// A list or map that claims more items than any may have.
    List,
}

/// The way to a place: names of types, variants and positions.
type Place = Vec<String>;

#[derive(Debug)]
struct Walk {
    /// Which probe, and how many places that it fits come before the one that gets it; `None` for a walk without.
    probe: Option<(Probe, usize)>,
    place: Place,
    /// Types that have been entered and not left.
    within: Vec<&'static str>,
    /// Bytes that everything so far takes at the least.
    bytes: usize,
    /// Variants to take, for the enums on the way to one that is being explored; the first one everywhere else.
    chosen: Vec<(Place, u32)>,
    /// Variants that were not taken.
    found: Vec<(Place, u32)>,
    broken: Vec<String>,
    /// Whether there was a place for the probe.
    probed: bool,
}

#[derive(Debug)]
struct Halt(String);

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Halt {}

impl de::Error for Halt {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// What is wrong with the type.
fn faults<T: DeserializeOwned>() -> BTreeSet<String> {
    let mut faults = BTreeSet::new();
    let (mut waiting, mut met) = (vec![Vec::new()], BTreeSet::new());
    let mut walks = 0;
    while let Some(chosen) = waiting.pop() {
        walks += 1;
        assert!(walks < 10_000, "the type has no end");
        for (place, variant) in walk::<T>(None, &chosen, &mut faults).found {
            if met.insert((place.clone(), variant)) {
                waiting.push([&chosen[..], &[(place, variant)]].concat());
            }
        }
        for probe in [Probe::Text, Probe::Bytes, Probe::List] {
            (0..).take_while(|before| walk::<T>(Some((probe, *before)), &chosen, &mut faults).probed).for_each(drop);
        }
    }
    faults
}

fn walk<T: DeserializeOwned>(
    probe: Option<(Probe, usize)>,
    chosen: &[(Place, u32)],
    faults: &mut BTreeSet<String>,
) -> Walk {
    let mut walk = Walk {
        probe,
        place: Vec::new(),
        within: Vec::new(),
        bytes: 0,
        chosen: chosen.to_vec(),
        found: Vec::new(),
        broken: Vec::new(),
        probed: false,
    };
    let result = T::deserialize(&mut walk);
    match result {
        // Whoever asked for the bytes checks how many they are, so that a refusal shows only here.
        Ok(_) if walk.probed => walk.broken.push("anything without a bound".into()),
        Err(Halt(why)) if !walk.probed && walk.broken.is_empty() => walk.broken.push(format!("no way through: {why}")),
        Ok(_) | Err(_) => {}
    }
    let place = walk.place.join(".");
    faults.extend(walk.broken.iter().map(|what| format!("{place}: {what}")));
    walk
}

impl Walk {
    fn takes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn broken(&mut self, what: impl Into<String>) -> Halt {
        let what = what.into();
        self.broken.push(what.clone());
        Halt(what)
    }

    fn at<T>(&mut self, step: impl Into<String>, go: impl FnOnce(&mut Self) -> Result<T, Halt>) -> Result<T, Halt> {
        self.place.push(step.into());
        let value = go(self)?;
        // Left only on success: after a failure the place is told.
        self.place.pop();
        Ok(value)
    }

    fn entering<T>(&mut self, name: &'static str, go: impl FnOnce(&mut Self) -> Result<T, Halt>) -> Result<T, Halt> {
        if self.within.contains(&name) {
            return Err(self.broken(format!("{name} within itself")));
        }
        self.within.push(name);
        let value = self.at(name, go)?;
        self.within.pop();
        Ok(value)
    }

    /// Whether this place gets the probe.
    fn probes(&mut self, kind: Probe) -> bool {
        let Some((probe, before)) = &mut self.probe else { return false };
        if *probe != kind {
            return false;
        }
        let here = *before == 0 && !self.probed;
        *before = before.saturating_sub(1);
        self.probed |= here;
        here
    }

    /// Whoever got the probe must have refused it.
    fn refused<T>(&mut self, what: &str, given: Result<T, Halt>) -> Halt {
        match given {
            Ok(_) => self.broken(format!("{what} without a bound")),
            Err(halt) => halt,
        }
    }

    /// An item of a list: it must take bytes, or a list of any length would cost its sender nothing.
    fn item<T>(&mut self, go: impl FnOnce(&mut Self) -> Result<T, Halt>) -> Result<T, Halt> {
        let before = self.bytes;
        let value = self.at("[]", go)?;
        if self.bytes == before {
            return Err(self.broken("a list of items that take no bytes"));
        }
        Ok(value)
    }
}

/// Texts that some text or other type takes: names, keys, amounts are read from text.
const HONEST_TEXT: &str = "a";

macro_rules! numbers {
    ($($method:ident $visit:ident $number:expr,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
            self.takes(1);
            visitor.$visit($number)
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Walk {
    type Error = Halt;

    numbers! {
        deserialize_bool visit_bool true,
        deserialize_i8 visit_i8 1,
        deserialize_i16 visit_i16 1,
        deserialize_i32 visit_i32 1,
        deserialize_i64 visit_i64 1,
        deserialize_u8 visit_u8 1,
        deserialize_u16 visit_u16 1,
        deserialize_u32 visit_u32 1,
        deserialize_u64 visit_u64 1,
        deserialize_char visit_char 'a',
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Halt> {
        Err(self.broken("a type that asks the bytes what it is"))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_any(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Halt> {
        Err(self.broken("a float: not all of them equal themselves"))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_f32(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.takes(1);
        if self.probes(Probe::Text) {
            let given = visitor.visit_string::<Halt>("a".repeat(TEXT_BYTES_MAX + 1));
            return Err(self.refused("a text", given));
        }
        visitor.visit_string(HONEST_TEXT.into())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.takes(1);
        if self.probes(Probe::Bytes) {
            return visitor.visit_byte_buf(vec![0; CHUNK_BYTES_MAX + 1]);
        }
        visitor.visit_byte_buf(vec![0])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.takes(1);
        self.at("?", |walk| visitor.visit_some(walk))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Halt> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Halt> {
        self.entering(name, |walk| visitor.visit_newtype_struct(walk))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.takes(1);
        if self.probes(Probe::List) {
            let given = visitor.visit_seq(Claim);
            return Err(self.refused("a list", given));
        }
        visitor.visit_seq(Items { walk: self, left: 1 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Halt> {
        self.takes(1);
        if self.probes(Probe::List) {
            let given = visitor.visit_map(Claim);
            return Err(self.refused("a map", given));
        }
        visitor.visit_map(Items { walk: self, left: 1 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Halt> {
        visitor.visit_seq(Fields { walk: self, next: 0, count })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Halt> {
        self.entering(name, |walk| walk.deserialize_tuple(count, visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Halt> {
        self.entering(name, |walk| walk.deserialize_tuple(fields.len(), visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Halt> {
        self.takes(1);
        self.entering(name, |walk| {
            let chosen = walk.chosen.iter().find(|(place, _)| *place == walk.place).map(|(_, variant)| *variant);
            let variant = chosen.unwrap_or_else(|| {
                let others = (1..variants.len() as u32).map(|other| (walk.place.clone(), other));
                walk.found.extend(others);
                0
            });
            walk.at(variants[variant as usize], |walk| visitor.visit_enum(Variant { walk, variant }))
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Halt> {
        Err(self.broken("a name of a field among the bytes"))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A list or map with one item.
struct Items<'a> {
    walk: &'a mut Walk,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Halt;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Halt> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.walk.item(|walk| seed.deserialize(walk)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Items<'_> {
    type Error = Halt;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Halt> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Halt> {
        self.walk.at("=", |walk| seed.deserialize(walk))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// A list or map that claims more items than any may have, and has none.
struct Claim;

impl<'de> de::SeqAccess<'de> for Claim {
    type Error = Halt;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<Option<T::Value>, Halt> {
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(ITEMS_MAX + 1)
    }
}

impl<'de> de::MapAccess<'de> for Claim {
    type Error = Halt;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, _: K) -> Result<Option<K::Value>, Halt> {
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<T::Value, Halt> {
        Err(Halt("there is none".into()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(ITEMS_MAX + 1)
    }
}

/// The parts of a struct or tuple.
struct Fields<'a> {
    walk: &'a mut Walk,
    next: usize,
    count: usize,
}

impl<'de> de::SeqAccess<'de> for Fields<'_> {
    type Error = Halt;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Halt> {
        if self.next == self.count {
            return Ok(None);
        }
        self.next += 1;
        self.walk.at(self.next.to_string(), |walk| seed.deserialize(walk)).map(Some)
    }
}

struct Variant<'a> {
    walk: &'a mut Walk,
    variant: u32,
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = Halt;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Halt> {
        let variant = seed.deserialize(IntoDeserializer::<Halt>::into_deserializer(self.variant))?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Halt;

    fn unit_variant(self) -> Result<(), Halt> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Halt> {
        seed.deserialize(self.walk)
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Halt> {
        de::Deserializer::deserialize_tuple(self.walk, count, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Halt> {
        de::Deserializer::deserialize_tuple(self.walk, fields.len(), visitor)
    }
}

macro_rules! bodies {
    ($message:ident: $($kind:literal $body:ty,)*) => {{
        let listed: BTreeSet<u8> = [$($kind),*].into();
        let all: BTreeSet<u8> = $message::TYPES.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(listed, all, "every message of {} is walked", stringify!($message));
        $(
            // Names the body by the conversion that the protocol gives it, so that a wrong pair does not compile.
            let _: fn($body) -> $message = $message::from;
            assert_eq!(faults::<$body>(), BTreeSet::new(), "{}", stringify!($body));
        )*
    }};
}

#[test]
fn no_message_has_a_list_of_nothing_a_type_within_itself_or_anything_without_a_bound() {
    bodies!(FromAgent:
        0x01 AgentHello, 0x07 Report, 0x08 OfferChanged, 0x0b ProbeAnswer, 0x10 Heartbeat, 0x20 AttemptOpen,
        0x22 OutputChunk, 0x24 OutputEnd, 0x30 BlobGet, 0x38 RenewRequest,
    );
    bodies!(ToAgent:
        0x02 AgentWelcome, 0x03 Reconcile, 0x04 Assignment, 0x05 Stop, 0x06 ReportAck, 0x09 GoAway, 0x0a modchain_wire::agent::Probe,
        0x11 HeartbeatEcho, 0x21 AttemptResume, 0x23 OutputAck, 0x25 InputChunk, 0x26 InputEnd, 0x31 BlobHead,
        0x32 BlobChunk, 0x39 Renewed, 0x3f StreamRefused,
    );
    bodies!(FromConsole:
        0x41 ConsoleHello, 0x50 Submit, 0x52 QuoteRequest, 0x54 Cancel, 0x56 JobsQuery, 0x58 JobQuery,
        0x5a ExplainQuery, 0x5c NodesQuery, 0x5e AccountQuery, 0x60 LedgerQuery, 0x62 EventsOpen, 0x65 StatusQuery,
        0x67 Credit, 0x6a LogsOpen, 0x6d StateOpen, 0x70 BlobPut, 0x71 BlobPiece, 0x73 InputOpen, 0x75 InputPiece,
        0x76 InputDone, 0x43 RenewRequest, 0x45 WhoamiQuery, 0x47 IdentitiesQuery, 0x49 Revoke, 0x4b TokenCreate,
        0x4d TokensQuery, 0x4f TokenRevoke, 0x78 LinkQuery, 0x7a NodeSet, 0x7c NodeQuery,
        0x90 SpecQuery, 0x92 BlobFetch,
    );
    bodies!(ToConsole:
        0x42 ConsoleWelcome, 0x51 Submitted, 0x53 QuoteView, 0x57 JobsPage, 0x59 JobView, 0x5b ExplanationView,
        0x5d NodesPage, 0x5f AccountView, 0x61 LedgerPage, 0x63 EventsPage, 0x64 CaughtUp, 0x66 StatusView,
        0x6b LogChunk, 0x6c LogEnd, 0x6e StateSnapshot, 0x6f StateDelta, 0x72 BlobStored, 0x74 InputReady,
        0x77 InputStored, 0x7e GoingAway, 0x7f Refusal, 0x44 Renewed, 0x46 IdentityView, 0x48 IdentitiesPage,
        0x4a RevokedView, 0x4c TokenView, 0x4e TokensPage, 0x79 LinkView, 0x7b NodeView, 0x7d NodeHistoryView,
        0x91 SpecView, 0x93 BlobHead, 0x94 BlobChunk,
    );
    bodies!(FromJoiner: 0x81 JoinHello, 0x83 JoinRequest,);
    bodies!(ToJoiner: 0x82 JoinChallenge, 0x84 JoinAccept, 0x8f JoinRefused,);
    assert_eq!(faults::<Task>(), BTreeSet::new(), "a task is kept by itself");
}

#[test]
fn the_walk_finds_what_it_looks_for() {
    #[derive(Deserialize)]
    struct Empty {}
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its type is walked")]
    enum Tree {
        Leaf(u8),
        Node(Box<Tree>),
    }
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its type is walked")]
    enum Deep {
        Fine,
        Also { text: Text<9> },
        Bad(Option<Vec<u8>>),
    }
    struct Loose;
    impl<'de> Deserialize<'de> for Loose {
        fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Any;
            impl Visitor<'_> for Any {
                type Value = Loose;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_byte_buf<E>(self, _: Vec<u8>) -> Result<Loose, E> {
                    Ok(Loose)
                }
            }
            deserializer.deserialize_byte_buf(Any)
        }
    }
    let one = |faults: BTreeSet<String>, what: &str| {
        assert!(faults.len() == 1 && faults.iter().all(|fault| fault.contains(what)), "{what}: {faults:?}");
    };
    one(faults::<List<(), 5>>(), "take no bytes");
    one(faults::<List<Empty, 5>>(), "take no bytes");
    one(faults::<Map<Text<1>, List<(), 5>, 5>>(), "take no bytes");
    one(faults::<Tree>(), "Tree within itself");
    one(faults::<Deep>(), "a list without a bound");
    one(faults::<String>(), "a text without a bound");
    one(faults::<List<Text<5000>, 5>>(), "a text without a bound");
    one(faults::<(Chunk<5>, Loose)>(), "anything without a bound");
    one(faults::<std::collections::BTreeMap<u8, u8>>(), "a map without a bound");
    one(faults::<List<u8, 5000>>(), "a list without a bound");
    one(faults::<f64>(), "a float");
    one(faults::<(Text<4096>, Text<4097>)>(), "a text without a bound");
    assert_eq!(faults::<List<(u8, Option<Chunk<5>>), 5>>(), BTreeSet::new());
}
