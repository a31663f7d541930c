//! Marks of personal data: the same value gives the same mark within a tenant, and nobody without the key can go back. Must not
//! outlive the answer whose values it remembers.

use super::personal::{self, Personal};
use super::{Redactor, encoded};

/// Longest value that is remembered: nearly every address, number and mail address.
const LONGEST: usize = 46;
/// Values remembered at a time, a power of two.
const REMEMBERED: usize = 256;
/// Values that cost less than making room to remember them.
const FEW: usize = 4;

/// The pseudonyms of one tenant in one answer. In an access log the same addresses come again and again: the last ones are
/// remembered, each in one place that its bytes tell.
#[derive(Debug)]
pub(super) struct Pseudonyms<'r> {
    tenant: &'r str,
    known: Vec<Known>,
    asked: usize,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    kind: Personal,
    /// None as long as nothing is remembered here.
    length: u8,
    value: [u8; LONGEST],
    number: u32,
}

impl Known {
    const NOTHING: Self = Self { kind: Personal::Ip, length: 0, value: [0; LONGEST], number: 0 };

    fn is(&self, kind: Personal, value: &[u8]) -> bool {
        usize::from(self.length) == value.len() && self.kind == kind && self.value[..value.len()] == *value
    }
}

impl<'r> Pseudonyms<'r> {
    pub(super) fn of(tenant: &'r str) -> Self {
        Self { tenant, known: Vec::new(), asked: 0 }
    }

    /// The number in the mark of a value as it was written.
    pub(super) fn number(&mut self, redactor: &Redactor, kind: Personal, original: &str) -> u32 {
        self.asked += 1;
        let value = original.as_bytes();
        if value.is_empty() || value.len() > LONGEST || self.asked <= FEW {
            return self.compute(redactor, kind, original);
        }
        if self.known.is_empty() {
            self.known = vec![Known::NOTHING; REMEMBERED];
        }
        let place = place(value);
        if self.known[place].is(kind, value) {
            return self.known[place].number;
        }
        let mut known = Known { kind, length: value.len() as u8, ..Known::NOTHING };
        known.value[..value.len()].copy_from_slice(value);
        known.number = self.compute(redactor, kind, original);
        self.known[place] = known;
        known.number
    }

    /// 32 bits, so that of ten thousand values in one answer about one pair in a hundred answers collides.
    fn compute(&self, redactor: &Redactor, kind: Personal, original: &str) -> u32 {
        let plain = if encoded::has_escapes(original.as_bytes()) { encoded::plain(original, false) } else { None };
        let value = personal::canonical(kind, plain.as_ref().map_or(original, |p| p.text.as_str()));
        let parts = [self.tenant, kind.name(), &value];
        let length = parts.iter().map(|part| 8 + part.len()).sum();
        // Nearly always short.
        let mut short = [0_u8; 128];
        let mut long = Vec::new();
        let named = if length <= short.len() {
            &mut short[..length]
        } else {
            long.resize(length, 0);
            &mut long[..]
        };
        let mut rest = &mut *named;
        for part in parts {
            for bytes in [&(part.len() as u64).to_le_bytes()[..], part.as_bytes()] {
                let (here, behind) = rest.split_at_mut(bytes.len());
                here.copy_from_slice(bytes);
                rest = behind;
            }
        }
        let hash = blake3::keyed_hash(&redactor.inner.key, named);
        let [a, b, c, d, ..] = hash.as_bytes();
        u32::from_le_bytes([*a, *b, *c, *d])
    }
}

/// Where a value is remembered. Whoever finds two values of one place makes them cost what they would without a memory.
fn place(value: &[u8]) -> usize {
    let mut mixed = value.len() as u64;
    for eight in value.chunks(8) {
        let mut word = [0; 8];
        word[..eight.len()].copy_from_slice(eight);
        mixed = (mixed.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (mixed >> 32) as usize % REMEMBERED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_is_computed() {
        let redactor = Redactor::new().unwrap();
        let (mut one, mut other) = (Pseudonyms::of("one"), Pseudonyms::of("other"));
        for n in 0..4_000_u32 {
            let value = format!("203.0.{}.{}", n / 7 % 256, n % 50);
            for kind in [Personal::Ip, Personal::Phone] {
                let fresh = Pseudonyms::of("one").number(&redactor, kind, &value);
                assert_eq!(one.number(&redactor, kind, &value), fresh, "{value}");
                assert_ne!(other.number(&redactor, kind, &value), fresh, "{value}");
            }
        }
        let long = "a".repeat(200) + "@example.com";
        assert_eq!(
            one.number(&redactor, Personal::Email, &long),
            Pseudonyms::of("one").number(&redactor, Personal::Email, &long)
        );
    }
}
