//! How a passage of a text is worded: whether its words, what they mean and the signs in it are those of texts aimed at models,
//! or those of definitions of tools. Weights were learnt from the corpora the scanner was made with, by the test in here, and
//! stand in `words.txt`. Must not decide: it counts.

use std::collections::{BTreeMap, HashMap};

use super::fold::{Words, is_dense};
use super::lexicon::Classes;
use super::reader::{Hit, Read};
use super::signs::SIGNS;

/// Each feature with its weight in hundredths; the first line is the weight of a passage without any.
const TABLE: &str = include_str!("words.txt");

/// Sentences of a passage.
const PASSAGE: usize = 2;
/// How much a long passage is damped: its weight is divided by its number of features to this power.
const DAMPED: f64 = 0.4;
/// What signs and marks count by the weights that stand in their tables, besides those that were learnt, and how much of them.
const SIGNED: f64 = 0.1;
const MOST_SIGNED: u32 = 20;
const MARKED: f64 = 0.2;
const MOST_MARKED: u32 = 10;
/// Longer words count by their beginning too.
const BEGINNING: usize = 5;
/// Number of classes.
const CLASSES: usize = Classes::BITS as usize;

/// One thing a passage has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Feature<'t> {
    /// It opens a description.
    Opens,
    /// A word; two characters after each other in scripts without spaces.
    Word(&'t str),
    /// How a long word begins.
    Beginning(&'t str),
    /// Words of a class that is not the tool's business.
    Class(u32),
    /// Words of two such classes.
    Pair(u32, u32),
    /// Words of a class that are asked not to happen.
    Denied(u32),
    /// Words of a class that are ordered.
    Ordered(u32),
    /// A sign or a mark.
    Sign(usize),
}

/// Sentences that stand together, with what they have.
struct Passage<'t> {
    /// First word, and the word behind the last.
    words: (usize, usize),
    features: Vec<Feature<'t>>,
    signs: u32,
    marks: u32,
}

/// How suspicious a text is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    /// From about -8 to 8.
    pub(super) score: f64,
    /// First word of the most suspicious passage, and the word behind its last.
    pub(super) words: (usize, usize),
}

/// What features weigh.
pub(super) struct Wording {
    words: HashMap<&'static str, f64>,
    beginnings: HashMap<&'static str, f64>,
    signs: HashMap<usize, f64>,
    classes: Vec<f64>,
    pairs: Vec<f64>,
    denied: Vec<f64>,
    ordered: Vec<f64>,
    opens: f64,
    start: f64,
}

impl Wording {
    /// Builds it.
    ///
    /// # Errors
    /// When the table cannot be read: a defect of this build.
    pub(super) fn new() -> Result<Self, String> {
        Self::parse(TABLE)
    }

    /// Reads a table.
    fn parse(table: &'static str) -> Result<Self, String> {
        let mut lines = table.lines().filter(|line| !line.starts_with("# "));
        let number = |text: &str| text.parse::<i32>().map(|hundredths| f64::from(hundredths) / 100.0).map_err(|e| e.to_string());
        let mut read = Self {
            words: HashMap::new(),
            beginnings: HashMap::new(),
            signs: HashMap::new(),
            classes: vec![0.0; CLASSES],
            pairs: vec![0.0; CLASSES * CLASSES],
            denied: vec![0.0; CLASSES],
            ordered: vec![0.0; CLASSES],
            opens: 0.0,
            start: number(lines.next().unwrap_or_default())?,
        };
        for line in lines {
            let wrong = || format!("words.txt: '{line}'");
            let bit = |text: &str| text.parse::<usize>().ok().filter(|bit| *bit < CLASSES).ok_or_else(wrong);
            let (key, weight) = line.split_once(' ').ok_or_else(wrong)?;
            let weight = number(weight)?;
            if key == "^" {
                read.opens = weight;
            } else if let Some(sign) = key.strip_prefix('!') {
                read.signs.insert(sign.parse().map_err(|_| wrong())?, weight);
            } else if let Some(class) = key.strip_prefix('-') {
                read.denied[bit(class)?] = weight;
            } else if let Some(class) = key.strip_prefix('>') {
                read.ordered[bit(class)?] = weight;
            } else if let Some(classes) = key.strip_prefix('#') {
                let (one, other) = classes.split_once('+').map_or((classes, None), |(one, other)| (one, Some(other)));
                match other {
                    Some(other) => read.pairs[bit(one)? * CLASSES + bit(other)?] = weight,
                    None => read.classes[bit(one)?] = weight,
                }
            } else if let Some(beginning) = key.strip_suffix('*') {
                read.beginnings.insert(beginning, weight);
            } else {
                read.words.insert(key, weight);
            }
        }
        Ok(read)
    }

    /// How suspicious the most suspicious passage of a text is.
    pub(super) fn verdict(&self, text: &Sentences<'_>) -> Verdict {
        let mut most = Verdict { score: f64::NEG_INFINITY, words: (0, 0) };
        for passage in text.passages() {
            let sum: f64 = passage.features.iter().map(|feature| self.weight(*feature)).sum();
            let marks = MARKED * f64::from(passage.marks.min(MOST_MARKED));
            let signs = SIGNED * f64::from(passage.signs.min(MOST_SIGNED));
            let score = self.start + sum / damping(passage.features.len()) + signs + marks;
            if score > most.score {
                most = Verdict { score, words: passage.words };
            }
        }
        most
    }

    fn weight(&self, feature: Feature<'_>) -> f64 {
        let of = |weights: &HashMap<&'static str, f64>, key| weights.get(key).copied().unwrap_or_default();
        match feature {
            Feature::Opens => self.opens,
            Feature::Word(word) => of(&self.words, word),
            Feature::Beginning(word) => of(&self.beginnings, word),
            Feature::Class(class) => self.classes.get(class as usize).copied().unwrap_or_default(),
            Feature::Pair(one, other) => self.pairs.get(one as usize * CLASSES + other as usize).copied().unwrap_or_default(),
            Feature::Denied(class) => self.denied.get(class as usize).copied().unwrap_or_default(),
            Feature::Ordered(class) => self.ordered.get(class as usize).copied().unwrap_or_default(),
            Feature::Sign(sign) => self.signs.get(&sign).copied().unwrap_or_default(),
        }
    }
}

fn bits_of(classes: Classes) -> impl Iterator<Item = u32> {
    (0..Classes::BITS).filter(move |bit| classes & (1 << bit) != 0)
}

fn damping(features: usize) -> f64 {
    ((features + 1) as f64).powf(DAMPED)
}

/// A text as it was read, by sentences.
pub(super) struct Sentences<'t> {
    read: &'t Read<'t>,
    /// First word of each, and the word behind its last.
    each: Vec<(usize, usize)>,
    features: Vec<Vec<Feature<'t>>>,
    /// Signs and marks of the whole text, and the others in the order of their places.
    everywhere: Vec<&'t Hit>,
    placed: Vec<&'t Hit>,
    business: Classes,
    /// Whether the text is a description.
    opens: bool,
}

impl<'t> Sentences<'t> {
    /// Takes a text apart.
    pub(super) fn new(words: &'t Words, read: &'t Read<'t>, hits: &'t [Hit], business: Classes, opens: bool) -> Self {
        let each: Vec<(usize, usize)> = read.sentences().collect();
        let features = each.iter().map(|range| tokens(words, *range)).collect();
        let (everywhere, mut placed): (Vec<&Hit>, Vec<&Hit>) = hits.iter().partition(|hit| hit.sign >= super::EVERYWHERE);
        placed.sort_by_key(|hit| hit.words.0);
        Self { read, each, features, everywhere, placed, business, opens }
    }

    /// Every passage: each sentence with the next. The first of a description says what the tool does, and stands alone.
    fn passages(&self) -> impl Iterator<Item = Passage<'t>> + use<'_, 't> {
        let count = self.each.len();
        let alone = usize::from(self.opens && count > 1);
        let rest = if count == 0 { 0 } else { (count - alone + 1).saturating_sub(PASSAGE).max(1) };
        (0..alone)
            .map(move |first| self.passage(first, 1))
            .chain((alone..alone + rest).map(move |first| self.passage(first, (first + PASSAGE).min(count))))
    }

    /// These sentences as a passage; there is at least one.
    fn passage(&self, first: usize, behind: usize) -> Passage<'t> {
        let (start, end) = (self.each[first].0, self.each[behind - 1].1);
        let mut features: Vec<Feature<'t>> = self.features[first..behind].iter().flatten().copied().collect();
        let before = |word: usize| self.placed.partition_point(|hit| hit.words.0 < word);
        let own = || self.everywhere.iter().chain(&self.placed[before(start)..before(end)]);
        features.extend(own().map(|hit| Feature::Sign(hit.sign)));
        features.sort_unstable();
        features.dedup();
        let [all, denied, ordered] = self.read.classes((start, end));
        let bits: Vec<u32> = bits_of(all & !self.business).collect();
        features.extend(bits_of(denied).map(Feature::Denied));
        features.extend(bits_of(ordered & !self.business).map(Feature::Ordered));
        for (at, bit) in bits.iter().enumerate() {
            features.push(Feature::Class(*bit));
            features.extend(bits[at + 1..].iter().map(|other| Feature::Pair(*bit, *other)));
        }
        if self.opens && first == 0 {
            features.push(Feature::Opens);
        }
        let mut weights: BTreeMap<usize, u32> = BTreeMap::new();
        for hit in own() {
            let weight = weights.entry(hit.sign).or_default();
            *weight = (*weight).max(hit.weight);
        }
        let marks = weights.split_off(&SIGNS.len());
        Passage { words: (start, end), features, signs: weights.values().sum(), marks: marks.values().sum() }
    }
}

/// The words of a sentence as features. Numbers and single letters are none.
fn tokens(words: &Words, (start, end): (usize, usize)) -> Vec<Feature<'_>> {
    let from = words.each.get(start).map_or(0, |word| word.at);
    let to = words.each.get(end).map_or(words.folded.len(), |word| word.at);
    let mut tokens = Vec::new();
    for word in words.folded.get(from..to).unwrap_or_default().split(' ') {
        if word.len() < 2 || word.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        if word.is_ascii() {
            tokens.push(Feature::Word(word));
            tokens.extend(word.get(..BEGINNING).filter(|beginning| beginning.len() < word.len()).map(Feature::Beginning));
            continue;
        }
        let dense = word.chars().any(is_dense);
        let mut places = word.char_indices().map(|(at, _)| at).chain([word.len()]);
        if dense {
            let places: Vec<usize> = places.collect();
            tokens.extend(places.windows(3).map(|three| Feature::Word(&word[three[0]..three[2]])));
        } else {
            tokens.push(Feature::Word(word));
            let beginning = places.nth(BEGINNING).filter(|end| *end < word.len());
            tokens.extend(beginning.map(|end| Feature::Beginning(&word[..end])));
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::super::Scanner;
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    /// Harmful and harmless, of those the scanner was made with. What is held out is not among them.
    const CORPORA: [(bool, &str); 4] = [
        (true, include_str!("../../tests/corpus/malicious.json")),
        (true, include_str!("../../tests/corpus/malicious-development.json")),
        (false, include_str!("../../tests/corpus/benign.json")),
        (false, include_str!("../../tests/corpus/benign-development.json")),
    ];

    /// One definition: whether it means harm, and the features of its passages by number.
    struct Example {
        harmful: bool,
        passages: Vec<Vec<usize>>,
    }

    fn key(feature: Feature<'_>) -> String {
        match feature {
            Feature::Opens => "^".to_owned(),
            Feature::Word(word) => word.to_owned(),
            Feature::Beginning(word) => format!("{word}*"),
            Feature::Class(class) => format!("#{class}"),
            Feature::Pair(one, other) => format!("#{one}+{other}"),
            Feature::Denied(class) => format!("-{class}"),
            Feature::Ordered(class) => format!(">{class}"),
            Feature::Sign(sign) => format!("!{sign}"),
        }
    }

    type Passages = Vec<Vec<String>>;

    /// The features by name of every passage of a definition, and of the first sentence of its description when that has
    /// more of them and no sign in the first.
    fn passages_of(scanner: &Scanner, tool: &Value) -> (Passages, Option<Passages>) {
        let (mut all, mut cover) = (Vec::new(), None);
        let named = |passage: &Passage<'_>| passage.features.iter().map(|feature| key(*feature)).collect::<Vec<_>>();
        scanner.each_text(tool, &mut |text| {
            all.extend(text.passages().map(|passage| named(&passage)));
            if text.opens && text.each.len() > 1 {
                let first = text.passage(0, 1);
                let innocent = !first.features.iter().any(|feature| matches!(feature, Feature::Sign(_) | Feature::Ordered(_)));
                cover = innocent.then(|| vec![named(&first)]);
            }
        });
        all.sort();
        all.dedup();
        (all, cover)
    }

    /// A definition of the corpora, and what it teaches.
    struct Labelled {
        harmful: bool,
        /// The package it is of, where it is of one.
        package: Option<String>,
        tool: Value,
        passages: Passages,
        /// What one that means harm says it does, which is harmless.
        cover: Option<Passages>,
    }

    impl Labelled {
        fn teaches(&self) -> impl Iterator<Item = (bool, &Passages)> {
            std::iter::once((self.harmful, &self.passages)).chain(self.cover.as_ref().map(|cover| (false, cover)))
        }
    }

    fn labelled() -> Vec<Labelled> {
        let scanner = Scanner::new().unwrap();
        let mut all = Vec::new();
        for (harmful, corpus) in CORPORA {
            let corpus: Value = serde_json::from_str(corpus).unwrap();
            for entry in corpus.as_array().or_else(|| corpus["entries"].as_array()).unwrap() {
                let (passages, cover) = passages_of(&scanner, &entry["tool"]);
                let package = entry["from"].as_str().filter(|from| !from.starts_with("written for")).map(str::to_owned);
                let tool = entry["tool"].clone();
                all.push(Labelled { harmful, package, tool, passages, cover: cover.filter(|_| harmful) });
            }
        }
        all
    }

    /// Learns the weights: logistic regression over what a passage has, where a harmful definition has to have one
    /// suspicious passage and a harmless one must have none (multiple-instance learning), by Adam over all of them at once.
    /// What only one definition has is not learnt.
    fn learn(labelled: &[(bool, &Passages)]) -> (f64, BTreeMap<String, f64>) {
        let mut uses: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (at, (_, passages)) in labelled.iter().enumerate() {
            for feature in passages.iter().flatten() {
                let seen = uses.entry(feature).or_insert((0, usize::MAX));
                if seen.1 != at {
                    *seen = (seen.0 + 1, at);
                }
            }
        }
        let names: Vec<&str> = uses.iter().filter(|(_, (count, _))| *count >= 2).map(|(name, _)| *name).collect();
        let number: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        let mut dampings = Vec::new();
        let examples: Vec<Example> = labelled
            .iter()
            .map(|(harmful, passages)| {
                dampings.push(passages.iter().map(|passage| damping(passage.len())).collect::<Vec<_>>());
                let known =
                    |passage: &Vec<String>| passage.iter().filter_map(|name| number.get(name.as_str()).copied()).collect();
                Example { harmful: *harmful, passages: passages.iter().map(known).collect() }
            })
            .collect();
        let (start, weights) = descend(&examples, &dampings, names.len());
        (start, names.iter().map(|name| (*name).to_owned()).zip(weights).collect())
    }

    fn descend(examples: &[Example], dampings: &[Vec<f64>], features: usize) -> (f64, Vec<f64>) {
        const ROUNDS: i32 = 100;
        // The last weight is that of the start.
        let mut weights = vec![0.0_f64; features + 1];
        let (mut means, mut squares) = (weights.clone(), weights.clone());
        weights[features] = -1.0;
        for round in 1..=ROUNDS {
            let sharpness = if round > 15 { 1.0 } else { 0.3 };
            let mut slopes: Vec<f64> = weights.iter().map(|weight| 3e-5 * weight).collect();
            slopes[features] = 0.0;
            for (example, dampings) in examples.iter().zip(dampings) {
                let sum = |passage: &Vec<usize>| passage.iter().map(|feature| weights[*feature]).sum::<f64>();
                let scores: Vec<f64> = example
                    .passages
                    .iter()
                    .zip(dampings)
                    .map(|(passage, damping)| weights[features] + sum(passage) / damping)
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let shares: Vec<f64> = scores.iter().map(|score| (sharpness * (score - most)).exp()).collect();
                let all: f64 = shares.iter().sum();
                let score: f64 = scores.iter().zip(&shares).map(|(score, share)| score * share / all).sum();
                let wrong = (1.0 / (1.0 + (-score).exp()) - f64::from(u8::from(example.harmful))) / examples.len() as f64;
                for ((passage, share), damping) in example.passages.iter().zip(&shares).zip(dampings) {
                    let slope = wrong * share / all;
                    slopes[features] += slope;
                    for feature in passage {
                        slopes[*feature] += slope / damping;
                    }
                }
            }
            for at in 0..=features {
                means[at] = 0.9 * means[at] + 0.1 * slopes[at];
                squares[at] = 0.999 * squares[at] + 0.001 * slopes[at] * slopes[at];
                let (mean, square) = (means[at] / (1.0 - 0.9_f64.powi(round)), squares[at] / (1.0 - 0.999_f64.powi(round)));
                weights[at] -= 0.1 * mean / (square.sqrt() + 1e-8);
            }
        }
        let start = weights.pop().unwrap();
        (start, weights)
    }

    /// The table of what these teach.
    fn table_of(labelled: &[(bool, &Passages)]) -> String {
        let (start, weights) = learn(labelled);
        let hundredths = |weight: f64| (weight * 100.0).round() as i32;
        let mut table = String::from(
            "# Weights of features in hundredths, learnt from the corpora; see words.rs. The first is that of a passage without any.\n",
        );
        let _ = writeln!(table, "{}", hundredths(start));
        for (name, weight) in weights.iter().filter(|(_, weight)| hundredths(**weight).abs() >= 10) {
            let _ = writeln!(table, "{name} {}", hundredths(*weight));
        }
        table
    }

    #[test]
    fn each_fifth_is_judged_by_what_the_others_teach() {
        let (mut scanner, all) = (Scanner::new().unwrap(), labelled());
        let packages: BTreeSet<&str> = all.iter().filter_map(|one| one.package.as_deref()).collect();
        // Tools of one package are like each other.
        let package = |one: &Labelled| one.package.as_deref().and_then(|package| packages.iter().position(|p| *p == package));
        let fifth = |(at, one): (usize, &Labelled)| package(one).unwrap_or(at) % 5;
        let (mut found, mut missed, mut wrong) = (0_u32, 0_u32, 0_u32);
        for now in 0..5 {
            let others = all.iter().enumerate().filter(|one| fifth(*one) != now);
            let taught: Vec<(bool, &Passages)> = others.flat_map(|(_, one)| one.teaches()).collect();
            scanner.wording = Wording::parse(Box::leak(table_of(&taught).into_boxed_str())).unwrap();
            for (_, one) in all.iter().enumerate().filter(|one| fifth(*one) == now) {
                let pointed_at = !scanner.look_at(one.tool.clone(), &[]).unwrap().is_empty();
                match (one.harmful, pointed_at) {
                    (true, true) => found += 1,
                    (true, false) => missed += 1,
                    (false, true) => wrong += 1,
                    (false, false) => {}
                }
            }
        }
        let (precision, recall) = (f64::from(found) / f64::from(found + wrong), f64::from(found) / f64::from(found + missed));
        println!("scanner of definitions, each fifth by what the others teach: precision {precision:.3}, recall {recall:.3}");
        assert!(precision >= 0.93 && recall >= 0.77, "precision {precision:.3}, recall {recall:.3}");
    }

    #[test]
    fn the_table_is_what_the_corpora_teach() {
        let all = labelled();
        let table = table_of(&all.iter().flat_map(Labelled::teaches).collect::<Vec<_>>());
        if std::env::var_os("LEARN_WORDS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/scanner/words.txt"), &table).unwrap();
        }
        let learnt: Vec<(&str, i32)> = read(&table);
        let kept: HashMap<&str, i32> = read(TABLE).into_iter().collect();
        // Rounding differs among machines by a little.
        let off = learnt.iter().filter(|(name, weight)| kept.get(name).is_none_or(|kept| (kept - weight).abs() > 5)).count();
        assert!(off * 50 < learnt.len(), "{off} of {} weights differ: LEARN_WORDS=1 writes the table anew", learnt.len());
    }

    fn read(table: &str) -> Vec<(&str, i32)> {
        table
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, weight)| Some((name, weight.parse().ok()?)))
            .collect()
    }
}
