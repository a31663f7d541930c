//! A text as its words: hidden characters, look-alike letters, accents, case and widths do not matter any more; where words
//! came from and where sentences end is kept. Must take time in proportion to the text.

use portcullis_guard::is_hidden;
use unicode_normalization::UnicodeNormalization as _;

/// What stands between a word and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gap {
    /// A space or nothing.
    Space,
    /// A comma, a colon, a bracket.
    Clause,
    /// The end of a sentence.
    Sentence,
}

/// One word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// Where it begins in [`Words::folded`].
    pub(super) at: usize,
    /// Where it begins in the original.
    pub(super) from: usize,
    /// Where it ends in the original.
    pub(super) to: usize,
    /// What stands before it.
    pub(super) gap: Gap,
}

/// A text as its words.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The words, with one space before each; none between characters of scripts that write without spaces.
    pub(super) folded: String,
    pub(super) each: Vec<Word>,
    /// Words with letters of two alphabets, which look as if they had one.
    pub(super) mixed: usize,
}

impl Words {
    /// The word in which a byte of the folded text lies.
    pub(super) fn index(&self, at: usize) -> usize {
        self.each.partition_point(|word| word.at <= at).saturating_sub(1)
    }
}

/// Folds a text whose letters mean what they are.
pub(super) fn fold(text: &str) -> Words {
    let latin = mostly_latin(text);
    let mut reader = Reader { latin, ..Reader::default() };
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        reader.take(at, character, next, text);
    }
    reader.end();
    reader.words
}

/// A term of the word lists, as texts are folded. `*` at its end is kept.
pub(super) fn fold_term(term: &str) -> String {
    let folded = fold(term).folded.trim_start().to_owned();
    if term.ends_with('*') { folded + "*" } else { folded }
}

#[derive(Default)]
struct Reader {
    words: Words,
    latin: bool,
    in_word: bool,
    gap: Option<Gap>,
    /// Letters of this word that are Latin, and those that only look it.
    plain: usize,
    alike: usize,
    /// Characters of a script without spaces in this word.
    dense: usize,
}

impl Reader {
    fn take(&mut self, at: usize, character: char, next: Option<char>, text: &str) {
        if is_hidden(character) && !character.is_whitespace() {
            return;
        }
        // An apostrophe inside a word is none of its letters: "user's" is "user s".
        if is_dense(character) {
            // Two characters count as a word, so that distances mean the same.
            if !self.in_word || self.dense == 0 || self.dense >= 2 {
                let glued = self.in_word && self.dense > 0;
                self.begin(at, glued);
            }
            self.dense += 1;
            self.push(character, at);
            return;
        }
        if self.dense > 0 {
            self.end();
        }
        let mut any = false;
        for part in folded(character, self.latin) {
            if !part.is_alphanumeric() {
                continue;
            }
            any = true;
            if !self.in_word {
                self.begin(at, false);
            }
            self.push(part, at + character.len_utf8() - 1);
        }
        if any {
            if character.is_ascii_alphabetic() {
                self.plain += 1;
            } else if is_alike(character) {
                self.alike += 1;
            }
            return;
        }
        self.end();
        self.gap = Some(self.gap.unwrap_or(Gap::Space).max(gap_of(at, character, next, text)));
        // ".env" is a file, and "env" is not.
        if character == '.'
            && text.get(at + 1..at + 4).is_some_and(|name| name.eq_ignore_ascii_case("env"))
            && starts_word(text, at)
        {
            self.begin(at, false);
            for letter in "dot".chars() {
                self.push(letter, at);
            }
        }
    }

    fn begin(&mut self, at: usize, glued: bool) {
        if !glued {
            self.words.folded.push(' ');
        }
        let gap = if self.words.each.is_empty() { Gap::Sentence } else { self.gap.unwrap_or(Gap::Space) };
        self.words.each.push(Word { at: self.words.folded.len(), from: at, to: at, gap });
        (self.in_word, self.gap, self.plain, self.alike, self.dense) = (true, None, 0, 0, 0);
    }

    fn push(&mut self, character: char, last: usize) {
        self.words.folded.push(character);
        if let Some(word) = self.words.each.last_mut() {
            word.to = word.to.max(last + if is_dense(character) { character.len_utf8() } else { 1 });
        }
    }

    fn end(&mut self) {
        if self.in_word && self.plain > 0 && self.alike > 0 && self.plain + self.alike >= 4 {
            self.words.mixed += 1;
        }
        (self.in_word, self.dense, self.plain, self.alike) = (false, 0, 0, 0);
    }
}

fn starts_word(text: &str, at: usize) -> bool {
    !text[..at].chars().next_back().is_some_and(char::is_alphanumeric)
        && !text.get(at + 4..).and_then(|rest| rest.chars().next()).is_some_and(char::is_alphanumeric)
}

fn gap_of(at: usize, character: char, next: Option<char>, text: &str) -> Gap {
    match character {
        '.' | '!' | '?' if next.is_none_or(|next| next.is_whitespace() || matches!(next, '"' | '\'' | ')' | '<' | '*' | '”')) =>
        {
            // "e.g." and "i.e." end nothing.
            let before = text[..at].trim_end_matches(char::is_alphanumeric);
            let short = text[before.len()..at].chars().count() == 1 && before.ends_with('.');
            if short { Gap::Clause } else { Gap::Sentence }
        }
        '。' | '！' | '？' | '।' | '؟' | ';' | '•' | '<' | '>' | '|' => Gap::Sentence,
        '\n' => match next {
            // Prose goes on in the next line when that starts small.
            Some(next) if next.is_lowercase() || matches!(next, ' ' | '\'' | '`' | '"') && continues(&text[at + 1..]) => {
                Gap::Space
            }
            _ => Gap::Sentence,
        },
        ',' | ':' | '=' | '(' | ')' | '[' | ']' | '{' | '}' | '—' | '–' | '，' | '：' | '、' | '；' | '→' => {
            Gap::Clause
        }
        '-' if next == Some(' ') => Gap::Clause,
        _ => Gap::Space,
    }
}

fn continues(line: &str) -> bool {
    let line = line.get(..line.len().min(200)).unwrap_or(line);
    line.trim_start_matches([' ', '\'', '`', '"']).chars().next().is_some_and(char::is_lowercase)
}

/// Scripts that write without spaces, and those whose words take on so many forms that their parts are looked for.
pub(super) fn is_dense(character: char) -> bool {
    matches!(character, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ac00}'..='\u{d7a3}' | '\u{e00}'..='\u{e7f}')
}

/// Letters of other alphabets that look like Latin ones.
fn is_alike(character: char) -> bool {
    matches!(character, '\u{370}'..='\u{52f}' | '\u{530}'..='\u{58f}' | '\u{13a0}'..='\u{13ff}')
        && !matches!(character, 'µ' | 'Ω' | 'μ' | 'π' | 'λ' | 'σ' | 'Δ' | 'α' | 'β' | 'θ' | 'ε')
        && prototype(character).is_some()
}

fn mostly_latin(text: &str) -> bool {
    if text.is_ascii() {
        return true;
    }
    let (mut latin, mut other) = (0_usize, 0_usize);
    for character in text.chars().filter(|c| c.is_alphabetic()) {
        let is_latin = matches!(character, '\0'..='\u{24f}' | '\u{1e00}'..='\u{1eff}');
        *(if is_latin { &mut latin } else { &mut other }) += 1;
    }
    latin > other
}

/// The one Latin letter that a character looks like (Unicode TS 39).
pub(super) fn prototype(character: char) -> Option<char> {
    let mut buffer = [0_u8; 4];
    let text: &str = character.encode_utf8(&mut buffer);
    let mut skeleton = unicode_security::confusable_detection::skeleton(text);
    match (skeleton.next(), skeleton.next()) {
        (Some(one), None) if one.is_ascii_alphabetic() => Some(one.to_ascii_lowercase()),
        _ => None,
    }
}

/// Small letters and digits without accents and widths.
fn folded(character: char, latin: bool) -> impl Iterator<Item = char> {
    let ascii = character.is_ascii().then(|| character.to_ascii_lowercase());
    let rest = (!character.is_ascii()).then(|| {
        std::iter::once(character)
            .nfkd()
            .filter(|c| !matches!(c, '\u{300}'..='\u{36f}' | '\u{64b}'..='\u{65f}' | '\u{670}'))
            .flat_map(char::to_lowercase)
            .map(move |c| match c {
                'ß' => 's',
                'ł' => 'l',
                'ı' => 'i',
                'ø' => 'o',
                'أ' | 'إ' | 'آ' => 'ا',
                other if other.is_ascii() => other,
                other if latin && other.is_alphabetic() && !is_dense(other) => prototype(other).unwrap_or(other),
                other => other,
            })
    });
    ascii.into_iter().chain(rest.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        fold(text).folded
    }

    #[test]
    fn what_looks_alike_reads_alike() {
        for text in [
            "Do not tell",
            "ＤＯ ＮＯＴ ＴＥＬＬ",
            "D\u{43e} n\u{43e}t t\u{435}ll",
            "d\u{200b}o n\u{ad}ot tell",
            "dó ñot téll",
            "𝐝𝐨 𝕟𝕠𝕥 𝓽𝓮𝓵𝓵",
        ] {
            assert_eq!(folded(text), " do not tell", "{text}");
        }
        assert_eq!(folded("Не говори"), " не говори", "a language keeps its letters");
        assert_eq!(folded("read .env and my.envelope"), " read dotenv and my envelope");
        assert_eq!(folded("不要告诉用户"), " 不要告诉用户");
    }

    #[test]
    fn sentences_end_where_they_do() {
        let gaps = |text: &str| fold(text).each.iter().filter(|word| word.gap == Gap::Sentence).count();
        assert_eq!(gaps("One. Two! Three? Four"), 4);
        assert_eq!(gaps("a name, e.g. this one, v1.2.3 of it"), 1);
        assert_eq!(gaps("prose that\ngoes on\nin lines"), 1);
        assert_eq!(gaps("Title\n\nText"), 2);
    }

    #[test]
    fn words_know_where_they_were() {
        let text = "Ünder “ｔｈｅ” ß-line 读取文件";
        for word in fold(text).each {
            assert!(!text[word.from..word.to].is_empty(), "{word:?}");
        }
    }
}
