//! Finding a description by the words of a task: BM25 over weighted fields, with the inflections and the synonyms of the
//! field taken into account.
//!
//! Guards that a search is bounded, deterministic and sees only what its caller is shown. Pure. Must not know what is
//! described, and must not decide who may see it.

mod synonyms;
mod words;

use std::cmp::Ordering;
use std::collections::HashMap;

/// How fast further occurrences of a word count less (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25
/// and Beyond", 2009; the usual value).
const K1: f32 = 1.2;
/// How much longer descriptions count less per word (the same; descriptions here differ little in length).
const B: f32 = 0.4;
/// What a synonym counts beside the word itself.
const SYNONYM: f32 = 0.45;
/// Most different words of one question that are looked at.
const MOST_WORDS: usize = 48;

/// One field of a description.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// What its words count; 1 is the text of a description.
    pub weight: f32,
    /// The text.
    pub text: &'a str,
}

/// One description that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Its number, in the order they were given.
    pub document: usize,
    /// How well it fits; to be compared within one search only.
    pub score: f32,
}

/// Descriptions, ready to be searched.
#[derive(Debug, Clone, Default)]
pub struct Lexicon {
    /// Weighted occurrences of each word, by description.
    occurrences: HashMap<String, Vec<(u32, f32)>>,
    /// What to divide by for the length of each description.
    lengths: Vec<f32>,
}

impl Lexicon {
    /// Reads the descriptions: each is a list of fields.
    pub fn build<'a, F: IntoIterator<Item = Field<'a>>>(documents: impl IntoIterator<Item = F>) -> Self {
        let mut occurrences: HashMap<String, Vec<(u32, f32)>> = HashMap::new();
        let mut lengths = Vec::new();
        for fields in documents {
            let number = u32::try_from(lengths.len()).unwrap_or(u32::MAX);
            let mut counts: HashMap<String, f32> = HashMap::new();
            let mut length = 0.0;
            for field in fields {
                for word in words::of(field.text) {
                    length += field.weight;
                    *counts.entry(word).or_default() += field.weight;
                }
            }
            for (word, count) in counts {
                occurrences.entry(word).or_default().push((number, count));
            }
            lengths.push(length);
        }
        let average = lengths.iter().sum::<f32>() / (lengths.len().max(1) as f32);
        for length in &mut lengths {
            *length = 1.0 - B + B * *length / average.max(1.0);
        }
        Self { occurrences, lengths }
    }

    /// How many descriptions there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The descriptions that have words of `question` in common, best first, among those that are `eligible`. Equal scores
    /// keep the order the descriptions were given in.
    pub fn find(&self, question: &str, eligible: impl Fn(usize) -> bool) -> Vec<Found> {
        let mut scores: HashMap<u32, f32> = HashMap::new();
        for forms in Self::forms(question) {
            // A word and its synonyms are one wish: each description counts the best of them once.
            let mut best: HashMap<u32, f32> = HashMap::new();
            for (word, weight) in forms {
                let Some(list) = self.occurrences.get(&word) else { continue };
                let rarity = self.rarity(list.len());
                for (document, count) in list {
                    let length = self.lengths.get(*document as usize).copied().unwrap_or(1.0);
                    let score = weight * rarity * count * (K1 + 1.0) / (count + K1 * length);
                    let place = best.entry(*document).or_default();
                    *place = place.max(score);
                }
            }
            for (document, score) in best {
                *scores.entry(document).or_default() += score;
            }
        }
        let kept = scores.into_iter().map(|(document, score)| Found { document: document as usize, score });
        let mut found: Vec<Found> = kept.filter(|f| eligible(f.document)).collect();
        found.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal).then_with(|| a.document.cmp(&b.document)));
        found
    }

    /// The words of a question, each with what may stand for it.
    fn forms(question: &str) -> Vec<Vec<(String, f32)>> {
        let mut seen = Vec::new();
        for word in words::of(question) {
            if seen.len() < MOST_WORDS && !seen.contains(&word) {
                seen.push(word);
            }
        }
        let with_synonyms = |word: &String| {
            let others = synonyms::of(word).into_iter().map(|other| (other, SYNONYM));
            std::iter::once((word.clone(), 1.0)).chain(others).collect()
        };
        seen.iter().map(with_synonyms).collect()
    }

    /// Robertson's weight of a word, never negative.
    fn rarity(&self, documents: usize) -> f32 {
        let (all, with) = (self.lengths.len() as f32, documents as f32);
        ((all - with + 0.5) / (with + 0.5)).ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lexicon(texts: &[&str]) -> Lexicon {
        Lexicon::build(texts.iter().map(|text| [Field { weight: 1.0, text }]))
    }

    #[test]
    fn the_one_with_the_rare_word_comes_first() {
        let lexicon = lexicon(&["list pods of a cluster", "list nodes of a cluster", "list silences of a cluster"]);
        let found = lexicon.find("list the silences", |_| true);
        assert_eq!(found[0].document, 2);
        assert!(found[0].score > found[1].score);
        assert!(lexicon.find("list the silences", |document| document != 2).iter().all(|f| f.document != 2));
        assert!(lexicon.find("zebra", |_| true).is_empty());
        assert!(lexicon.find("", |_| true).is_empty());
        assert_eq!((lexicon.len(), lexicon.is_empty()), (3, false));
    }

    #[test]
    fn inflections_and_synonyms_are_found_and_the_word_itself_is_better() {
        let lexicon = lexicon(&["mute an alert", "restart a deployment", "silence an alert"]);
        assert_eq!(lexicon.find("restarted deployments", |_| true)[0].document, 1);
        let found = lexicon.find("silencing", |_| true);
        assert_eq!(found.iter().map(|f| f.document).collect::<Vec<_>>(), [2, 0]);
    }

    proptest! {
        #[test]
        fn a_search_ends_in_order_and_says_nothing_of_what_is_not_eligible(
            texts in proptest::collection::vec(".{0,60}", 0..12), question in ".{0,200}", hidden in 0_usize..12,
        ) {
            let lexicon = Lexicon::build(texts.iter().map(|text| [Field { weight: 2.0, text }]));
            let found = lexicon.find(&question, |document| document != hidden);
            prop_assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
            prop_assert!(found.iter().all(|f| f.document != hidden && f.document < texts.len() && f.score.is_finite()));
            prop_assert_eq!(found, lexicon.find(&question, |document| document != hidden));
        }
    }
}
