//! The text of an API key: `pcl_<id>_<secret>_<checksum>`, or `pcli_<id>_<secret>` with a secret a person chose. Made so
//! that scanners recognise a leaked key and a mistyped one is refused before any hashing. Must never print a key.

use portcullis_model::{KeyId, Secret};
use rand::TryRng;
use zeroize::Zeroizing;

use crate::strength::MAX_SECRET_BYTES;

/// What every key starts with.
pub const KEY_PREFIX: &str = "pcl_";
/// What every key with a chosen secret starts with.
pub const CHOSEN_KEY_PREFIX: &str = "pcli_";
/// Length of every generated key, in bytes.
pub const KEY_LENGTH: usize = KEY_PREFIX.len() + ID_LENGTH + 1 + SECRET_LENGTH + 1 + CHECKSUM_LENGTH;

/// Digits of the public part.
pub(crate) const ID_LENGTH: usize = 10;
/// Digits of the secret: 43 digits of base 62 are 256 bits.
const SECRET_LENGTH: usize = 43;
/// Digits of the checksum: 6 digits of base 62 hold a CRC-32.
const CHECKSUM_LENGTH: usize = 6;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public part, as the ring looks it up.
pub(crate) type IdBytes = [u8; ID_LENGTH];

/// A key in the right shape with a right checksum. Says nothing about whether it is valid.
pub(crate) struct KeyText<'a> {
    pub(crate) id: IdBytes,
    /// `<id>_<secret>`: what is hashed.
    pub(crate) hashed: &'a [u8],
}

fn is_digits(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_alphanumeric)
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

impl<'a> KeyText<'a> {
    /// Reads a presented key; `None` for anything that cannot be one.
    pub(crate) fn parse(presented: &'a str) -> Option<Self> {
        let bytes = presented.as_bytes();
        if bytes.len() != KEY_LENGTH || !bytes.starts_with(KEY_PREFIX.as_bytes()) {
            return None;
        }
        let (text, sum) = bytes.split_at(KEY_LENGTH - CHECKSUM_LENGTH - 1);
        let hashed = &text[KEY_PREFIX.len()..];
        let (id, secret) = hashed.split_at(ID_LENGTH);
        let shaped = is_digits(id) && secret[0] == b'_' && is_digits(&secret[1..]) && sum[0] == b'_';
        if !shaped || sum[1..] != checksum(text) {
            return None;
        }
        Some(Self { id: id.try_into().ok()?, hashed })
    }
}

/// A key with a chosen secret in the right shape.
pub(crate) struct ChosenText<'a> {
    pub(crate) id: IdBytes,
    pub(crate) secret: &'a str,
}

impl<'a> ChosenText<'a> {
    /// Reads a presented key; `None` for anything that cannot be one.
    pub(crate) fn parse(presented: &'a str) -> Option<Self> {
        let (id, secret) = presented.strip_prefix(CHOSEN_KEY_PREFIX)?.split_once('_')?;
        let fits = is_digits(id.as_bytes()) && (1..=MAX_SECRET_BYTES).contains(&secret.len());
        Some(Self { id: id.as_bytes().try_into().ok().filter(|_| fits)?, secret })
    }
}

/// Uniform digits from the operating system's random numbers.
fn random_digits<const N: usize>() -> Result<Zeroizing<[u8; N]>, rand::rngs::SysError> {
    let mut digits = Zeroizing::new([0; N]);
    let mut pool = Zeroizing::new([0_u8; 64]);
    let mut filled = 0;
    while filled < N {
        rand::rngs::SysRng.try_fill_bytes(pool.as_mut_slice())?;
        // 248 is the largest multiple of 62 in a byte; what is above would favour the first digits.
        for byte in pool.iter().filter(|b| **b < 248) {
            if filled < N {
                digits[filled] = DIGITS[usize::from(byte % 62)];
                filled += 1;
            }
        }
    }
    Ok(digits)
}

/// A new public part.
pub(crate) fn generate_id() -> Result<IdBytes, rand::rngs::SysError> {
    Ok(*random_digits::<ID_LENGTH>()?)
}

/// A new key for a public part: its text.
pub(crate) fn generate(id: &IdBytes) -> Result<Secret, rand::rngs::SysError> {
    let secret = random_digits::<SECRET_LENGTH>()?;
    let mut text = String::with_capacity(KEY_LENGTH);
    let push = |text: &mut String, bytes: &[u8]| text.extend(bytes.iter().map(|b| char::from(*b)));
    text.push_str(KEY_PREFIX);
    push(&mut text, id.as_slice());
    text.push('_');
    push(&mut text, secret.as_slice());
    let sum = checksum(text.as_bytes());
    text.push('_');
    push(&mut text, &sum);
    Ok(Secret::new(text))
}

/// The public part as the house writes it.
pub(crate) fn key_id(id: &IdBytes) -> Option<KeyId> {
    std::str::from_utf8(id).ok().and_then(|text| KeyId::new(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_key_has_the_documented_shape() {
        let id = generate_id().unwrap();
        let key = generate(&id).unwrap();
        let text = key.expose();
        let parts: Vec<_> = text.split('_').collect();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [3, 10, 43, 6]);
        assert_eq!(text.len(), KEY_LENGTH);
        assert_eq!(parts[1].as_bytes(), id);
        assert_ne!(text, generate(&id).unwrap().expose(), "the same key with another secret");
        let parsed = KeyText::parse(text).unwrap();
        assert_eq!(parsed.hashed, &text.as_bytes()[4..58]);
        assert_ne!(id, generate_id().unwrap());
    }

    #[test]
    fn every_single_changed_character_is_noticed() {
        let key = generate(b"abcdefghij").unwrap();
        for position in 0..KEY_LENGTH {
            let mut bytes = key.expose().as_bytes().to_vec();
            bytes[position] = if bytes[position] == b'a' { b'b' } else { b'a' };
            assert!(KeyText::parse(std::str::from_utf8(&bytes).unwrap()).is_none(), "position {position}");
        }
    }

    #[test]
    fn a_chosen_secret_may_have_any_shape_and_is_found_by_id() {
        let text = ChosenText::parse("pcli_abcdefghij_Kq7#_vLp2_xWm9zR").unwrap();
        assert_eq!((&text.id, text.secret), (b"abcdefghij", "Kq7#_vLp2_xWm9zR"));
        let long = format!("pcli_abcdefghij_{}", "a".repeat(MAX_SECRET_BYTES + 1));
        let wrong =
            ["", "pcli_", "pcli_abcdefghij", "pcli_abcdefghij_", "pcli_abcdefghi_x", "pcli_abcdefgh.j_x", "pcl_abcdefghij_x"];
        for wrong in wrong.into_iter().chain([long.as_str()]) {
            assert!(ChosenText::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_from_outside_breaks_the_parser(text in "\\PC{0,80}") {
            prop_assert!(KeyText::parse(&text).is_none());
            prop_assert!(ChosenText::parse(&text).is_none());
        }

        #[test]
        fn cut_and_extended_keys_are_refused(cut in 0..KEY_LENGTH) {
            let key = generate(b"abcdefghij").unwrap();
            prop_assert!(KeyText::parse(&key.expose()[..cut]).is_none());
            let longer = format!("{} ", key.expose());
            prop_assert!(KeyText::parse(&longer).is_none());
        }
    }
}
