//! RFC 4648 base 32 in lower case, without padding: for trust domains and join tokens, which people copy by hand.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The text of these bytes.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let mut bits = [0; 8];
        bits[3..3 + group.len()].copy_from_slice(group);
        let number = u64::from_be_bytes(bits);
        for position in 0..(group.len() * 8).div_ceil(5) {
            text.push(char::from(ALPHABET[(number >> (35 - 5 * position)) as usize & 31]));
        }
    }
    text
}

/// The five bits of a character, in either case.
pub fn value(character: u8) -> Option<u8> {
    let place = ALPHABET.iter().position(|&c| c == character.to_ascii_lowercase())?;
    u8::try_from(place).ok()
}

/// Exactly `N` bytes from their text; `None` for another length, another character, or bits after the last byte that are
/// not zero, so that no two texts mean the same bytes but for their case.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    decode_into(text.as_bytes(), &mut bytes).then_some(bytes)
}

/// As [`decode`], into bytes that the caller keeps and can wipe. Whether it went well; otherwise what is in `bytes`
/// means nothing.
pub fn decode_into(text: &[u8], bytes: &mut [u8]) -> bool {
    if text.len() != (bytes.len() * 8).div_ceil(5) {
        return false;
    }
    let (mut number, mut bits, mut filled) = (0u32, 0, 0);
    for &character in text {
        let Some(value) = value(character) else { return false };
        number = number << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes[filled] = (number >> bits) as u8;
            filled += 1;
            number &= (1 << bits) - 1;
        }
    }
    number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_rfc_4648_come_out() {
        for (bytes, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn bytes_read_back_and_no_other_text_means_them() {
        for byte in 0..=255u8 {
            let bytes = [byte, !byte, byte.wrapping_mul(7), 0x80, byte ^ 0x5a, 1];
            assert_eq!(decode::<6>(&encode(&bytes)), Some(bytes));
            assert_eq!(decode::<6>(&encode(&bytes).to_uppercase()), Some(bytes));
        }
        for text in ["my======", "mz", "m1", "m", "mya", "mÿ"] {
            assert_eq!(decode::<1>(text), None, "{text}");
        }
    }
}
