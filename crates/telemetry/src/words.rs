//! Numbers for repeating text, so that rows in memory carry four bytes instead of a copy.

use std::hash::BuildHasher;

use arrow::array::{StringArray, StringViewArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::Result;

/// A growing list of distinct texts. Number 0 is always the empty text.
pub(crate) struct Words {
    text: String,
    offsets: Vec<i32>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").field("count", &self.len()).field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

impl Default for Words {
    fn default() -> Self {
        let mut words =
            Self { text: String::new(), offsets: vec![0], table: HashTable::new(), hasher: DefaultHashBuilder::default() };
        words.number("");
        words
    }
}

impl Words {
    /// The number of `word`, added when new.
    pub(crate) fn number(&mut self, word: &str) -> u32 {
        let hash = self.hasher.hash_one(word);
        if let Some(found) = self.table.find(hash, |n| self.get(*n) == word) {
            return *found;
        }
        let number = self.len() as u32;
        self.text.push_str(word);
        self.offsets.push(self.text.len() as i32);
        let (text, offsets, hasher) = (&self.text, &self.offsets, &self.hasher);
        self.table.insert_unique(hash, number, |n| hasher.hash_one(slice(text, offsets, *n)));
        number
    }

    /// The text of a number.
    pub(crate) fn get(&self, number: u32) -> &str {
        slice(&self.text, &self.offsets, number)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.offsets.len() * 12
    }

    /// Adds every text of `other`; the result maps its numbers to ours.
    pub(crate) fn absorb(&mut self, other: &Self) -> Vec<u32> {
        (0..other.len() as u32).map(|n| self.number(other.get(n))).collect()
    }

    /// All texts by number.
    pub(crate) fn view(&self) -> Result<StringViewArray> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets.clone()));
        let strings = StringArray::try_new(offsets, Buffer::from(self.text.as_bytes()), None)?;
        Ok(StringViewArray::from(&strings))
    }
}

fn slice<'a>(text: &'a str, offsets: &[i32], number: u32) -> &'a str {
    let at = number as usize;
    match (offsets.get(at), offsets.get(at + 1)) {
        (Some(start), Some(end)) => text.get(*start as usize..*end as usize).unwrap_or(""),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_the_empty_text_is_zero() {
        let mut words = Words::default();
        let cart = words.number("cart");
        assert_eq!(words.number("checkout"), cart + 1);
        assert_eq!(words.number("cart"), cart);
        assert_eq!(words.number(""), 0);
        let mut other = Words::default();
        other.number("checkout");
        let map = other.absorb(&words);
        assert_eq!(map.iter().map(|n| other.get(*n)).collect::<Vec<_>>(), ["", "cart", "checkout"]);
        assert_eq!(words.view().unwrap().value(1), "cart");
    }
}
