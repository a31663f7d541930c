//! New secrets from the operating system's random numbers. Guards that every character is equally likely and that nothing
//! short is made.

use portcullis_model::Secret;
use rand::TryRng;
use zeroize::Zeroizing;

use crate::SecretType;

/// Shortest and longest secret, characters.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=1024;

/// A secret that is not made. For the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// Too short to be safe, or too long to be of use.
    #[error("a length of {0} is not possible; 16 to 1024 characters are")]
    Length(usize),
    /// An authority makes certificates.
    #[error("certificates are made by a certificate authority, not here")]
    Certificate,
    /// The operating system has none.
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
}

const LETTERS_AND_DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// No quotes, backslash, dollar, space: what shells and configuration files read in their own way.
const PASSWORD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#%*+,-./:=?@^_~";
const HEX: &[u8] = b"0123456789abcdef";

/// Makes a secret of `length` characters: letters and digits for a token, some signs too for a password (with each class
/// present), hexadecimal digits for a key.
///
/// # Errors
/// See [`GenerateError`].
pub fn generate(kind: SecretType, length: usize) -> Result<Secret, GenerateError> {
    if !LENGTHS.contains(&length) {
        return Err(GenerateError::Length(length));
    }
    match kind {
        SecretType::Token => drawn(LETTERS_AND_DIGITS, length),
        SecretType::Key => drawn(HEX, length),
        SecretType::Certificate => Err(GenerateError::Certificate),
        SecretType::Password => loop {
            // Drawn again until each class is there: this takes away less than a bit, and keeps the rest uniform.
            let secret = drawn(PASSWORD, length)?;
            let has = |class: fn(&u8) -> bool| secret.expose().as_bytes().iter().any(class);
            if has(u8::is_ascii_uppercase)
                && has(u8::is_ascii_lowercase)
                && has(u8::is_ascii_digit)
                && has(u8::is_ascii_punctuation)
            {
                return Ok(secret);
            }
        },
    }
}

/// Uniform characters of `alphabet`.
fn drawn(alphabet: &[u8], length: usize) -> Result<Secret, GenerateError> {
    // What is above the largest multiple would favour the first characters.
    let fair = 256 / alphabet.len() * alphabet.len();
    let mut text = String::with_capacity(length);
    let mut pool = Zeroizing::new([0_u8; 64]);
    while text.len() < length {
        rand::rngs::SysRng.try_fill_bytes(pool.as_mut_slice()).map_err(|e| GenerateError::Random(e.to_string()))?;
        for byte in pool.iter().map(|b| usize::from(*b)).filter(|b| *b < fair) {
            if text.len() < length {
                text.push(char::from(alphabet[byte % alphabet.len()]));
            }
        }
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_alphabet_and_length() {
        for (kind, alphabet) in
            [(SecretType::Token, LETTERS_AND_DIGITS), (SecretType::Password, PASSWORD), (SecretType::Key, HEX)]
        {
            for length in [16, 33, 1024] {
                let secret = generate(kind, length).unwrap();
                assert_eq!(secret.expose().len(), length);
                assert!(secret.expose().bytes().all(|b| alphabet.contains(&b)));
            }
            assert_ne!(generate(kind, 32).unwrap().expose(), generate(kind, 32).unwrap().expose());
            assert_eq!(generate(kind, 15).unwrap_err(), GenerateError::Length(15));
        }
        assert_eq!(generate(SecretType::Certificate, 32).unwrap_err(), GenerateError::Certificate);
    }

    #[test]
    fn no_character_is_favoured() {
        let mut counts = [0_u32; 256];
        for _ in 0..60 {
            generate(SecretType::Token, 1024).unwrap().expose().bytes().for_each(|b| counts[usize::from(b)] += 1);
        }
        // 991 expected each; six standard deviations are 189.
        assert!(LETTERS_AND_DIGITS.iter().all(|b| (802..=1180).contains(&counts[usize::from(*b)])), "{counts:?}");
    }
}
