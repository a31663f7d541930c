//! What a value must look like to be what its entry says. Guards that a file with something else in it, or with more than the
//! secret, is not sent as a credential; must not repeat a part of the value.

use portcullis_model::Secret;

use crate::SecretType;

/// Fewest characters of a key that is not written as PEM: 128 bits in base64.
const SHORTEST_KEY: usize = 22;

impl SecretType {
    /// Whether `secret` can be one.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(crate) fn check(self, secret: &Secret) -> Result<(), String> {
        let text = secret.expose();
        let wrong = |why: &str| Err(format!("it is no {}: {why}", self.as_str()));
        match self {
            Self::Token if !text.bytes().all(|b| b.is_ascii_graphic()) => wrong(
                "a token is one line of visible ASCII without spaces; what is something else says so with type: password, key or certificate",
            ),
            Self::Password if text.chars().any(char::is_control) => {
                wrong("a password is one line without control characters; a PEM file is of type: key or certificate")
            }
            Self::Key if !is_key(text) => wrong(&format!(
                "a key is a PEM block with a private key, or one line of at least {SHORTEST_KEY} characters of hexadecimal or base64"
            )),
            Self::Certificate if !(has_block(text, "CERTIFICATE") && has_private_key(text)) => {
                wrong("a certificate is a PEM file with a CERTIFICATE block and the block of its private key")
            }
            _ => Ok(()),
        }
    }
}

fn is_key(text: &str) -> bool {
    let in_one_line = text.len() >= SHORTEST_KEY && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/-_=".contains(&b));
    in_one_line || has_private_key(text)
}

fn has_private_key(text: &str) -> bool {
    ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]
        .iter()
        .any(|label| has_block(text, label))
}

/// Whether a PEM block (RFC 7468) of that label begins and ends in `text`.
fn has_block(text: &str, label: &str) -> bool {
    let line = |word: &str| text.lines().position(|line| line.trim_end() == format!("-----{word} {label}-----"));
    matches!((line("BEGIN"), line("END")), (Some(begin), Some(end)) if begin < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_takes_its_own_and_says_what_would_be_right() {
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let key = block("EC PRIVATE KEY");
        let certificate = format!("{}{key}", block("CERTIFICATE"));
        let half = "-----BEGIN PRIVATE KEY-----\nAAAA".to_owned();
        let (hex, words, swapped) = (
            "0123456789abcdef0123456789abcdef".to_owned(),
            "two words".to_owned(),
            "-----END PRIVATE KEY-----\n-----BEGIN PRIVATE KEY-----".to_owned(),
        );
        let all = [SecretType::Token, SecretType::Password, SecretType::Key, SecretType::Certificate];
        for (value, fits) in [
            (&hex, [true, true, true, false]),
            (&"s3cr3t!".to_owned(), [true, true, false, false]),
            (&words, [false, true, false, false]),
            (&"pässwört".to_owned(), [false, true, false, false]),
            (&key, [false, false, true, false]),
            (&certificate, [false, false, true, true]),
            (&block("CERTIFICATE"), [false, false, false, false]),
            (&half, [false, false, false, false]),
            (&swapped, [false, false, false, false]),
            (&"a\0b".to_owned(), [false, false, false, false]),
        ] {
            for (kind, expected) in all.into_iter().zip(fits) {
                let checked = kind.check(&Secret::new(value.clone()));
                assert_eq!(checked.is_ok(), expected, "{value:?} as {}: {checked:?}", kind.as_str());
                if let Err(why) = checked {
                    assert!(why.contains(&format!("no {}", kind.as_str())) && !why.contains(value.as_str()), "{why}");
                }
            }
        }
    }

    #[test]
    fn what_is_generated_is_of_its_type() {
        for kind in [SecretType::Token, SecretType::Password, SecretType::Key] {
            assert_eq!(kind.check(&crate::generate(kind, 32).unwrap()), Ok(()));
        }
    }
}
