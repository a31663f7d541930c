//! Reads a text as sentences: which words have which meaning, which of them are orders to the reader, and which signs stand
//! near each other. Guards that reading takes time in proportion to the text. Must not decide: it counts.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use super::fold::{Gap, Word, Words, fold_term, is_dense};
use super::foreign::FOREIGN_WORDS;
#[allow(clippy::wildcard_imports, reason = "the classes are the words of this table")]
use super::lexicon::*;
use super::phrases::PHRASES;
use super::signs::{SIGNS, Sign};

/// What a text is in its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The description: its first sentence says what the tool does.
    Description,
    /// The description of a part, such as a parameter: its first words say what it is.
    Part,
    /// A place where nobody writes prose to a reader: titles, values, comments.
    Aside,
}

/// One sign that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// Which sign: its place in the table, and behind those the marks and the rest.
    pub(super) sign: usize,
    pub(super) says: &'static str,
    pub(super) weight: u32,
    /// First and last word of it.
    pub(super) words: (usize, usize),
}

/// Reads texts.
pub(super) struct Reader {
    terms: AhoCorasick,
    /// What each term means, and whether it may go on.
    meanings: Vec<(Classes, bool)>,
}

/// A text with what its words mean.
#[derive(Debug)]
pub(super) struct Read<'w> {
    words: &'w [Word],
    /// By word: what begins there.
    begins: Vec<Classes>,
    /// By word: what ends there.
    ends: Vec<Classes>,
}

impl Reader {
    /// Builds it.
    ///
    /// # Errors
    /// When the lists do not compile: a defect of this build.
    pub(super) fn new() -> Result<Self, String> {
        let (mut terms, mut meanings) = (Vec::new(), Vec::new());
        for (classes, list) in ENGLISH.iter().chain(PHRASES).chain(FOREIGN_WORDS) {
            for term in list.split('|') {
                let folded = fold_term(term);
                let open = folded.ends_with('*');
                terms.push(folded.trim_end_matches('*').to_owned());
                meanings.push((*classes, open));
            }
        }
        let terms = AhoCorasickBuilder::new().match_kind(MatchKind::Standard).build(&terms).map_err(|e| e.to_string())?;
        Ok(Self { terms, meanings })
    }

    /// What the words of a text mean.
    pub(super) fn read<'w>(&self, words: &'w Words, role: Role) -> Read<'w> {
        let count = words.each.len();
        let mut read = Read { words: &words.each, begins: vec![0; count], ends: vec![0; count] };
        for hit in self.terms.find_overlapping_iter(&words.folded) {
            let Some((classes, open)) = self.meanings.get(hit.pattern().as_usize()) else { continue };
            if !stands(&words.folded, hit.start(), hit.end(), *open) {
                continue;
            }
            read.begins[words.index(hit.start())] |= classes;
            read.ends[words.index(hit.end() - 1)] |= classes;
        }
        read.name_tools();
        read.orders(&words.folded, role);
        read
    }
}

/// Whether a term stands as words of its own. Parts of words do in scripts without spaces.
fn stands(text: &str, start: usize, end: usize, open: bool) -> bool {
    let joins = |c: char| c.is_alphanumeric() && !is_dense(c) && !matches!(c, '\u{600}'..='\u{6ff}');
    let first = text[start..].chars().next().is_some_and(joins);
    let before = text[..start].chars().next_back().is_some_and(joins);
    let last = text[..end].chars().next_back().is_some_and(joins);
    let after = text[end..].chars().next().is_some_and(|c| joins(c) || is_mark(c));
    !(first && before) && (open || !(last && after))
}

/// Vowel signs of Indian scripts go on with a word.
fn is_mark(character: char) -> bool {
    matches!(character, '\u{900}'..='\u{903}' | '\u{93a}'..='\u{94f}')
}

impl Read<'_> {
    /// All classes of a text.
    pub(super) fn business(&self, words: usize) -> Classes {
        self.begins.iter().take(words).fold(0, |all, classes| all | classes)
    }

    /// Words of the first sentence.
    pub(super) fn first_sentence(&self) -> usize {
        self.words.iter().skip(1).position(|word| word.gap == Gap::Sentence).map_or(self.words.len(), |at| at + 1)
    }

    /// The classes of a passage: of all its words, of those that are asked not to happen, and of those that are ordered.
    pub(super) fn classes(&self, (start, end): (usize, usize)) -> [Classes; 3] {
        let [mut all, mut not, mut ordered] = [0; 3];
        let mut denied = 0;
        for at in start..end {
            let classes = self.begins[at];
            denied = if self.words[at].gap == Gap::Sentence { 0 } else { denied };
            if denied > 0 {
                not |= classes;
                all |= classes & NOTDO;
            } else {
                all |= classes;
                ordered |= if classes & ORDER != 0 { classes } else { 0 };
            }
            denied = if self.ends[at] & NOTDO != 0 { DENIES } else { denied.saturating_sub(1) };
        }
        [all, not & !NOTDO, ordered & !ORDER]
    }

    /// How many of the words are orders.
    pub(super) fn orders_given(&self) -> usize {
        self.begins.iter().filter(|classes| **classes & ORDER != 0).count()
    }

    /// First word of each sentence, and the word behind its last.
    pub(super) fn sentences(&self) -> impl Iterator<Item = (usize, usize)> + use<'_> {
        let mut starts = (0..self.words.len()).filter(|at| *at == 0 || self.words[*at].gap == Gap::Sentence).peekable();
        std::iter::from_fn(move || {
            let start = starts.next()?;
            Some((start, starts.peek().copied().unwrap_or(self.words.len())))
        })
    }

    fn word<'t>(&self, folded: &'t str, at: usize) -> &'t str {
        let rest = &folded[self.words[at].at..];
        rest.split(' ').next().unwrap_or(rest)
    }

    /// "Any payment function", "the mail tool of another server": some word of difference, and a tool soon after.
    fn name_tools(&mut self) {
        for at in 0..self.words.len() {
            if self.begins[at] & DIFFERENT == 0 {
                continue;
            }
            let end = (at + 1..self.words.len().min(at + 4))
                .find(|next| self.words[*next].gap != Gap::Space)
                .unwrap_or(self.words.len().min(at + 4));
            if (at + 1..end).any(|next| self.begins[next] & TOOL != 0)
                && (at == 0 || self.begins[at - 1] & DIFFERENT == 0 || self.begins[at] & (TOOL | OTHER_TOOL) != 0)
            {
                self.begins[at] |= OTHER_TOOL;
            }
        }
    }

    /// Marks words as names that are not the tool's own.
    pub(super) fn name(&mut self, words: impl Iterator<Item = usize>) {
        for at in words {
            if let Some(classes) = self.begins.get_mut(at) {
                *classes |= NAME;
            }
        }
    }

    /// Marks the words that tell the reader to do something.
    fn orders(&mut self, folded: &str, role: Role) {
        let sentences: Vec<(usize, usize)> = self.sentences().collect();
        for (index, (start, end)) in sentences.into_iter().enumerate() {
            let foreign = (start..end).any(|at| {
                self.begins[at] & FOREIGN != 0 && self.begins[at] & (MUST | PLEASE | ALWAYS | BEFORE | MODEL | NOTDO) != 0
            });
            let mut given = false;
            for at in start..end {
                let classes = self.begins[at];
                if classes & VERBS == 0 {
                    continue;
                }
                let told = if classes & FOREIGN != 0 && classes & FOREIGN_VERBS != 0 {
                    foreign || at == start && (index > 0 || role == Role::Aside) || given
                } else {
                    self.is_told(folded, (start, at), index, role, given)
                };
                if told || classes & ORDER != 0 {
                    self.begins[at] |= ORDER;
                    given = true;
                }
            }
        }
    }

    /// Whether the verb at `at` is an order, from what stands before it in its sentence.
    fn is_told(&self, folded: &str, (start, at): (usize, usize), sentence: usize, role: Role, given: bool) -> bool {
        // Over the words that may stand between an order and what makes it one.
        let mut from = at;
        let mut pressed = false;
        while from > start && self.words[from].gap == Gap::Space || from > start && self.is_filler(folded, from - 1) && pressed {
            if !self.is_filler(folded, from - 1) {
                break;
            }
            pressed |= self.begins[from - 1] & (ALWAYS | PLEASE | SECRETLY | BESIDES | BEFORE | URGENT) != 0;
            from -= 1;
        }
        if from > start && self.ends[from - 1] & NOTDO != 0 && self.word(folded, from - 1) != "and" {
            return false;
        }
        if from == start {
            return pressed
                || match role {
                    Role::Description => sentence > 0,
                    Role::Part | Role::Aside => sentence > 0 || INSTRUCTIVE.contains(&self.word(folded, at)),
                };
        }
        let before = from - 1;
        if self.ends[before] & (MUST | SHOULD | PLEASE | ALWAYS) != 0 {
            return true;
        }
        let conditional = self.begins[start] & (WHEN | BEFORE | EVERY_TURN | LASTING | URGENT | CALLED) != 0
            || self
                .begins
                .get(start + 1)
                .is_some_and(|classes| start + 1 < at && classes & (BEFORE | WHEN) != 0 && self.begins[start] & ALWAYS != 0);
        if self.words[from].gap == Gap::Clause {
            return conditional
                || given
                || pressed
                || from - start <= 4 && (sentence > 0 || self.begins[start] & (MODEL | URGENT | CALLED) != 0);
        }
        match self.word(folded, before) {
            "and" | "or" | "then" | "but" => given || pressed || conditional && sentence > 0,
            "to" => (before.saturating_sub(6).max(start)..before).any(|back| {
                self.begins[back] & (MUST | MODEL | YOU | ASK | DEMANDS) != 0
                    && (sentence > 0 || self.begins[back] & (MODEL | YOU) != 0)
            }),
            "will" | "can" | "may" | "ll" | "could" | "would" => {
                (before.saturating_sub(3).max(start)..before).any(|back| self.begins[back] & (MODEL | YOU) != 0)
            }
            "you" => conditional || sentence > 0 && from - start <= 2,
            "they" | "it" | "and then" => given,
            _ => {
                self.begins[before] & MODEL != 0
                    && self.ends[before] & MODEL != 0
                    && conditional
                    && self.words[before].gap == Gap::Clause
            }
        }
    }

    /// Words that press, number or join, and neither act nor are acted on.
    fn is_filler(&self, folded: &str, at: usize) -> bool {
        const FILL: Classes = ALWAYS | PLEASE | SECRETLY | BESIDES | URGENT | UNASKED;
        let classes = self.begins[at];
        let word = self.word(folded, at);
        classes & FILL != 0 && classes & (VERBS | USER | NOTDO) == 0
            || FILLERS.contains(&word)
            || word.bytes().all(|b| b.is_ascii_digit())
    }

    /// Every sign in the text, in a tool with this business.
    pub(super) fn hits(&self, business: Classes) -> Vec<Hit> {
        let mut hits = Vec::new();
        for (start, end) in self.sentences() {
            let present = (start..end).fold(0, |all, at| all | self.begins[at]);
            for (number, sign) in SIGNS.iter().enumerate() {
                let possible = sign.parts.iter().all(|part| {
                    if part.all {
                        present & part.classes == part.classes || part.classes.count_ones() > 2
                    } else {
                        present & part.classes != 0
                    }
                });
                if possible {
                    self.find((number, sign), (start, end), business, &mut hits);
                }
            }
        }
        hits
    }

    /// Finds one sign in one sentence: each part at the latest place that the one before allows.
    fn find(&self, (number, sign): (usize, &Sign), (start, end): (usize, usize), business: Classes, hits: &mut Vec<Hit>) {
        // By number of parts that were found: where the first and the last of them are.
        let mut reached = [None::<(usize, usize)>; 5];
        for at in start..end {
            for (index, part) in sign.parts.iter().enumerate().rev() {
                let here = self.begins[at];
                let fits = if part.all {
                    here & ORDER != 0 && (part.classes == ORDER || here & part.classes & !ORDER != 0)
                } else {
                    here & part.classes != 0
                };
                if !fits {
                    continue;
                }
                let from = match index.checked_sub(1).map(|before| reached[before]) {
                    None => Some(at),
                    Some(Some((first, last))) if last < at && at - last <= part.within => Some(first),
                    Some(_) => None,
                };
                let Some(from) = from else { continue };
                if index + 1 < sign.parts.len() {
                    reached[index] = Some((from, at));
                } else if (from + 1..at).all(|between| self.begins[between] & sign.unless == 0) {
                    let weight = if business & sign.business != 0 { sign.weight / 2 } else { sign.weight };
                    hits.push(Hit { sign: number, says: sign.says, weight, words: (from, at) });
                    return;
                }
            }
        }
    }
}

/// How many words behind it a "do not" counts for.
const DENIES: usize = 4;

/// Verbs of languages whose orders look like any other form of them.
const FOREIGN_VERBS: Classes = READ | TRANSFER | IGNORE;

/// Words between an order and what makes it one.
const FILLERS: &[&str] = &[
    "then",
    "also",
    "first",
    "next",
    "finally",
    "now",
    "step",
    "immediately",
    "instead",
    "therefore",
    "hence",
    "and",
    "either",
    "only",
    "even",
    "ever",
    "still",
    "quickly",
    "thereafter",
    "afterwards",
    "later",
    "explicitly",
    "carefully",
    "fully",
    "directly",
    "internally",
    "again",
    "strictly",
    "a",
    "b",
    "c",
];

/// Verbs that, first in the description of a part, tell what to put there and not what the part does.
const INSTRUCTIVE: &[&str] = &[
    "put",
    "insert",
    "paste",
    "place",
    "fill",
    "provide",
    "supply",
    "write",
    "copy",
    "pass",
    "append",
    "attach",
    "embed",
    "read",
    "collect",
    "gather",
    "give",
    "submit",
    "concatenate",
    "ignore",
    "disregard",
    "repeat",
    "populate",
];
