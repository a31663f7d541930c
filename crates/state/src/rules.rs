//! What keys, prefixes, values and limits may look like, the same for every kind of store.

use crate::StoreError;

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// Largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// Most entries one listing returns.
pub const MAX_LIST: usize = 1_000;

/// Smallest character that no key contains and that sorts after every character a key may contain.
const AFTER_EVERY_KEY: char = '\u{7f}';

fn shown(text: &str) -> String {
    text.chars().take(40).filter(|c| !c.is_control()).collect()
}

fn visible(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES || !visible(key) {
        return Err(StoreError::Invalid(format!(
            "key '{}' does not fit: use 1 to {MAX_KEY_BYTES} visible ASCII characters without spaces",
            shown(key)
        )));
    }
    Ok(())
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), StoreError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(StoreError::Invalid(format!(
            "a value of {} bytes does not fit: the largest is {MAX_VALUE_BYTES} bytes",
            value.len()
        )));
    }
    Ok(())
}

/// Checks a listing's arguments and returns the key that every match is below.
pub(crate) fn check_list(prefix: &str, after: Option<&str>, limit: usize) -> Result<String, StoreError> {
    if prefix.len() > MAX_KEY_BYTES || !visible(prefix) {
        return Err(StoreError::Invalid(format!("prefix '{}' does not fit: no key can start with it", shown(prefix))));
    }
    if let Some(after) = after {
        check_key(after)?;
    }
    if limit == 0 || limit > MAX_LIST {
        return Err(StoreError::Invalid(format!("limit {limit} does not fit: use 1 to {MAX_LIST}")));
    }
    Ok(format!("{prefix}{AFTER_EVERY_KEY}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_keys_and_limits_are_refused_with_what_would_fit() {
        for key in ["", "a b", "line\nbreak", "é", &"x".repeat(MAX_KEY_BYTES + 1)] {
            assert!(check_key(key).unwrap_err().to_string().contains("visible ASCII"), "{key}");
        }
        assert!(check_key(&"x".repeat(MAX_KEY_BYTES)).is_ok());
        assert!(check_value(&vec![0; MAX_VALUE_BYTES + 1]).is_err());
        assert!(check_list("", None, 0).is_err());
        assert!(check_list("", None, MAX_LIST + 1).is_err());
        assert!(check_list("a b", None, 1).is_err());
    }

    proptest! {
        #[test]
        fn the_range_holds_exactly_the_keys_with_the_prefix(prefix in "[!-~]{0,6}", key in "[!-~]{1,12}") {
            let below = check_list(&prefix, None, 1).unwrap();
            let inside = key.as_str() >= prefix.as_str() && key < below;
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }
    }
}
