//! The macro that lists a direction's messages: type number, struct, cap.

macro_rules! protocol {
    ($(#[$doc:meta])* $name:ident { $($kind:literal $variant:ident($body:ty) $cap:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is documented by its body")]
        #[allow(clippy::large_enum_variant, reason = "a message lives from one read to the next")]
        pub enum $name { $($variant($body),)+ }

        impl $crate::frame::Message for $name {
            const TYPES: &'static [(u8, &'static str, usize)] =
                &[$(($kind, stringify!($variant), $crate::frame::$cap),)+];

            fn kind(&self) -> u8 {
                match self { $(Self::$variant(_) => $kind,)+ }
            }

            fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), $crate::frame::WireError> {
                match self { $(Self::$variant(body) => $crate::frame::encode_value($kind, body, out),)+ }
            }

            fn decode_body(kind: u8, body: &[u8]) -> Result<Self, $crate::frame::WireError> {
                match kind {
                    $($kind => $crate::frame::decode_value($kind, $crate::frame::$cap, body).map(Self::$variant),)+
                    _ => Err($crate::frame::WireError::Unsupported { kind }),
                }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })+
    };
}

pub(crate) use protocol;
