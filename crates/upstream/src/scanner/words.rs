//! How a sentence is worded: whether its words are those of texts aimed at models, or those of definitions of tools. Weights
//! were learnt from the corpora the scanner was made with, by the test in here, and stand in `words.txt`. Words alone
//! never make a finding: they add to signs, or take from them.

use std::collections::{BTreeSet, HashMap};

use super::fold::Words;
use super::reader::Read;

/// Each word with its weight in hundredths; the first line is the weight of a sentence without words.
const TABLE: &str = include_str!("words.txt");

/// How much wording counts against signs.
const FACTOR: f64 = 3.0;
/// What the wording of a text can add at most, and take away at most.
const MOST: f64 = 7.0;
const LEAST: f64 = -6.0;

/// What words weigh.
pub(super) struct Wording {
    weights: HashMap<&'static str, f64>,
    start: f64,
}

impl Wording {
    /// Builds it.
    ///
    /// # Errors
    /// When the table cannot be read: a defect of this build.
    pub(super) fn new() -> Result<Self, String> {
        let mut lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        let number = |text: &str| text.parse::<i32>().map(|hundredths| f64::from(hundredths) / 100.0).map_err(|e| e.to_string());
        let start = number(lines.next().unwrap_or_default())?;
        let mut weights = HashMap::new();
        for line in lines {
            let (word, weight) = line.split_once(' ').ok_or_else(|| format!("words.txt: '{line}'"))?;
            weights.insert(word, number(weight)?);
        }
        Ok(Self { weights, start })
    }

    /// What the wording of a text adds to its signs: that of its most suspicious sentence.
    pub(super) fn points(&self, words: &Words, read: &Read<'_>) -> i32 {
        let sentence = |range: (usize, usize)| {
            let all = distinct(words, range);
            let known: Vec<f64> = all.iter().filter_map(|word| self.weights.get(word).copied()).collect();
            let value = known.iter().sum::<f64>() / ((known.len() + 1) as f64).sqrt() + self.start;
            // Words nobody learnt speak for nothing.
            if value < 0.0 { value * known.len() as f64 / all.len().max(1) as f64 } else { value }
        };
        let most = read.sentences().map(sentence).fold(f64::NEG_INFINITY, f64::max);
        (FACTOR * most).clamp(LEAST, MOST).round() as i32
    }
}

/// The different words of a sentence, in order. Numbers are none.
fn distinct(words: &Words, (start, end): (usize, usize)) -> BTreeSet<&str> {
    let from = words.each.get(start).map_or(0, |word| word.at);
    let to = words.each.get(end).map_or(words.folded.len(), |word| word.at);
    let text = words.folded.get(from..to).unwrap_or_default();
    text.split(' ').filter(|word| !word.is_empty() && !word.bytes().all(|b| b.is_ascii_digit())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::reader::{Reader, Role};
    use super::super::structure::{ADDRESSES, name_addresses};
    use super::super::{fold, role};
    use super::*;
    use serde_json::Value;
    use std::fmt::Write as _;

    /// Harmful and harmless, of those the scanner was made with. What is held out is not among them.
    const CORPORA: [(bool, &str); 4] = [
        (true, include_str!("../../tests/corpus/malicious.json")),
        (true, include_str!("../../tests/corpus/malicious-development.json")),
        (false, include_str!("../../tests/corpus/benign.json")),
        (false, include_str!("../../tests/corpus/benign-development.json")),
    ];

    /// The words of sentences, with whether each opens a description.
    type Sentences = Vec<(Vec<String>, bool)>;

    /// One definition: whether it means harm, and the words of its sentences by number, with whether each opens a description.
    struct Example {
        harmful: bool,
        sentences: Vec<(Vec<usize>, bool)>,
    }

    /// Every text of a definition, with its place.
    fn texts(value: &Value, place: &str, take: &mut dyn FnMut(&str, &str)) {
        let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
        match value {
            Value::String(text) => take(place, text),
            Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| texts(item, &below(&at.to_string()), take)),
            Value::Object(members) => members.iter().for_each(|(name, member)| texts(member, &below(name), take)),
            _ => {}
        }
    }

    /// Learns the weights: logistic regression over the words of a sentence, where a harmful definition has to have one
    /// suspicious sentence and a harmless one must have none (multiple-instance learning), by `AdaGrad`, in a fixed order.
    fn learn() -> (f64, Vec<(String, f64)>) {
        let reader = Reader::new().unwrap();
        let addresses = regex::Regex::new(ADDRESSES).unwrap();
        let mut raw: Vec<(bool, Sentences)> = Vec::new();
        let mut uses: HashMap<String, usize> = HashMap::new();
        for (harmful, corpus) in CORPORA {
            let corpus: Value = serde_json::from_str(corpus).unwrap();
            let entries = corpus.as_array().or_else(|| corpus["entries"].as_array()).unwrap().clone();
            for entry in entries {
                let mut sentences = Vec::new();
                texts(&entry["tool"], "", &mut |place, text| {
                    let words = fold::fold(&name_addresses(text, &addresses));
                    let read = reader.read(&words, role(place));
                    for (number, range) in read.sentences().enumerate() {
                        let opens = role(place) == Role::Description && number == 0;
                        sentences.push((distinct(&words, range).into_iter().map(str::to_owned).collect::<Vec<_>>(), opens));
                    }
                });
                let all: BTreeSet<&String> = sentences.iter().flat_map(|(words, _)| words).collect();
                for word in all {
                    *uses.entry(word.clone()).or_default() += 1;
                }
                raw.push((harmful, sentences));
            }
        }
        let mut vocabulary: Vec<String> = uses.into_iter().filter(|(_, uses)| *uses >= 2).map(|(word, _)| word).collect();
        vocabulary.sort();
        let number: HashMap<&str, usize> = vocabulary.iter().enumerate().map(|(at, word)| (word.as_str(), at)).collect();
        let known = |words: Vec<String>| words.iter().filter_map(|word| number.get(word.as_str()).copied()).collect();
        let examples: Vec<Example> = raw
            .into_iter()
            .map(|(harmful, sentences)| Example {
                harmful,
                sentences: sentences.into_iter().map(|(words, opens)| (known(words), opens)).collect(),
            })
            .collect();
        let (start, weights) = descend(&examples, vocabulary.len());
        (start, vocabulary.into_iter().zip(weights).collect())
    }

    fn descend(examples: &[Example], words: usize) -> (f64, Vec<f64>) {
        let (mut weights, mut squares, mut start) = (vec![0.0_f64; words], vec![1e-6_f64; words], -3.0_f64);
        let mut order: Vec<usize> = (0..examples.len()).collect();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..8 {
            for at in (1..order.len()).rev() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                order.swap(at, (random >> 33) as usize % (at + 1));
            }
            for example in order.iter().map(|at| &examples[*at]) {
                let scale = |words: &[usize]| ((words.len() + 1) as f64).sqrt();
                let mut scores: Vec<(f64, usize)> = example
                    .sentences
                    .iter()
                    .enumerate()
                    .map(|(at, (words, _))| (start + words.iter().map(|word| weights[*word]).sum::<f64>() / scale(words), at))
                    .collect();
                scores.sort_by(|a, b| b.0.total_cmp(&a.0));
                let taken: Vec<(f64, usize)> = if !example.harmful {
                    scores.into_iter().take(6).collect()
                } else if round == 0 {
                    scores.into_iter().filter(|(_, at)| !example.sentences[*at].1).collect()
                } else {
                    scores.into_iter().take(1).collect()
                };
                let share = if example.harmful { 1.0 / taken.len().max(1) as f64 } else { 1.5 };
                for (score, at) in taken {
                    let words = &example.sentences[at].0;
                    let wrong = (1.0 / (1.0 + (-score).exp()) - f64::from(u8::from(example.harmful))) * share;
                    if wrong.abs() < 1e-3 {
                        continue;
                    }
                    for word in words {
                        let slope = wrong / scale(words) + 1e-3 * weights[*word];
                        squares[*word] += slope * slope;
                        weights[*word] -= 0.3 * slope / squares[*word].sqrt();
                    }
                    start -= 0.02 * wrong;
                }
            }
        }
        (start, weights)
    }

    #[test]
    fn the_table_is_what_the_corpora_teach() {
        let (start, weights) = learn();
        let hundredths = |weight: f64| (weight * 100.0).round() as i32;
        let mut table = String::from(
            "# Weights of words in hundredths, learnt from the corpora; see words.rs. The first is that of a sentence without words.\n",
        );
        let _ = writeln!(table, "{}", hundredths(start));
        for (word, weight) in weights.iter().filter(|(_, weight)| hundredths(*weight).abs() >= 10) {
            let _ = writeln!(table, "{word} {}", hundredths(*weight));
        }
        if std::env::var_os("LEARN_WORDS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/scanner/words.txt"), &table).unwrap();
        }
        let learnt: Vec<(&str, i32)> = read(&table);
        let kept: HashMap<&str, i32> = read(TABLE).into_iter().collect();
        // Rounding differs among machines by a little.
        let off = learnt.iter().filter(|(word, weight)| kept.get(word).is_none_or(|kept| (kept - weight).abs() > 5)).count();
        assert!(off * 50 < learnt.len(), "{off} of {} words differ: LEARN_WORDS=1 writes the table anew", learnt.len());
    }

    fn read(table: &str) -> Vec<(&str, i32)> {
        table
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(word, weight)| Some((word, weight.parse().ok()?)))
            .collect()
    }

    #[test]
    fn words_alone_are_never_enough() {
        let wording = Wording::new().unwrap();
        let reader = Reader::new().unwrap();
        let words = fold::fold(
            &read(TABLE).iter().filter(|(_, weight)| *weight > 100).map(|(word, _)| *word).collect::<Vec<_>>().join(" "),
        );
        let points = wording.points(&words, &reader.read(&words, Role::Part));
        assert_eq!(points, MOST as i32);
        assert!((points as u32) < super::super::ENOUGH);
    }
}
