//! Where something is worth a look, found for many bytes at once from the bits of their kinds. A pattern is told where it ends,
//! by shifting the bits of what has to stand in front of it. Must never leave out a place where something can be found:
//! `thorough` compares it with a walk that asks every byte.

#![expect(
    clippy::inline_always,
    reason = "what compares many bytes is compiled anew for each kind of machine, with all that it calls"
)]

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, u64x4};

use super::kinds::{AHEAD, Kinds, Row, STEP};

/// Length of the shortest run that is decoded or measured.
pub(super) const RUN: usize = 24;

/// Places of a few steps, as bits: bit n is byte n of its step.
pub(super) type Places = [u64; AHEAD];

/// What is worth a look: at the byte that a pattern ends with. It may have begun in the step before.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// First letters of words, and the second letters behind backslashes.
    pub(super) words: Places,
    /// `=` and `:` that may stand behind a name.
    pub(super) separators: Places,
    /// The second slash of `://`, and signs of many kinds: looked at in the order of the text.
    pub(super) signs: Places,
    /// Signs that begin escapes.
    pub(super) escapes: Places,
    /// Whether there is any of those below, which few steps have.
    pub(super) seldom: Places,
    /// The second space behind a word.
    pub(super) gaps: Places,
    /// The first letter behind two hyphens and no third, or behind one with a space or a quote in front of it.
    pub(super) flags: Places,
    /// The letter behind five hyphens.
    pub(super) armour: Places,
    /// The second slash of `1//`.
    pub(super) slashes: Places,
    /// The second colon of `:5432:`, and the star of `:*`.
    pub(super) files: Places,
    /// The second of two colons, and the fourth of those that can be one address'.
    pub(super) colons: Places,
    /// The digit behind the third dot of an IPv4 address.
    pub(super) dots: Places,
    /// The digit or hyphen that ends what only cards and telephones have.
    pub(super) numbers: Places,
    /// Those of them that are the thirteenth digit of one number, and may be nothing else.
    pub(super) thirteenth: Places,
    /// The twenty-fourth byte of what may be base64.
    pub(super) runs: Places,
}

/// Where the last of `many` in a row is.
#[inline(always)]
fn row<S: Simd>(bits: u64x4<S>, many: u32) -> u64x4<S> {
    let (mut all, mut have) = (bits, 1);
    while have < many {
        let step = have.min(many - have);
        all = all & all << step;
        have += step;
    }
    all
}

impl Events {
    /// Finds those of so many steps.
    #[inline(always)]
    fn find<S: Simd>(&mut self, simd: S, kinds: &Kinds, steps: usize) {
        for first in (0..steps.min(AHEAD)).step_by(4) {
            self.find_four(simd, kinds, first);
        }
    }

    /// Finds those of four steps. In every number the higher half is the step, and the lower the one in front of it.
    #[inline(always)]
    fn find_four<S: Simd>(&mut self, simd: S, kinds: &Kinds, first: usize) {
        let window = |row: &Row| {
            let before = u64x4::from_slice(simd, &row[first..first + 4]);
            u64x4::from_slice(simd, &row[first + 1..first + 5]) << STEP as u32 | before
        };
        let keep = |places: &mut Places, bits: u64x4<S>| (bits >> STEP as u32).store_slice(&mut places[first..first + 4]);

        let (letters, digits, spaces) = (window(&kinds.letters), window(&kinds.digits), window(&kinds.spaces));
        let (hyphens, joints, quotes) = (window(&kinds.hyphens), window(&kinds.joints), window(&kinds.quotes));
        let (colons, dots, backslashes) = (window(&kinds.colons), window(&kinds.dots), window(&kinds.backslashes));
        let (rare, words) = (window(&kinds.rare), letters | digits);

        keep(&mut self.words, letters & (!(words << 1) | backslashes << 2));
        keep(&mut self.escapes, window(&kinds.escapes) | backslashes);
        let two_joints = row(joints, 2);
        keep(&mut self.signs, rare | two_joints & colons << 2);

        // A name ends in a letter, in one beyond ASCII, in a quote, in a space behind it, or in up to four digits behind a letter or a sign.
        let in_name = letters | joints | hyphens | dots | rare;
        let one = digits & in_name << 1;
        let two = digits & one << 1;
        let three = digits & two << 1;
        let counts = one | two | three | digits & three << 1;
        keep(&mut self.separators, (window(&kinds.equals) | colons) & (letters | quotes | spaces | counts) << 1);

        let gaps = row(spaces, 2) & words << 2;
        keep(&mut self.gaps, gaps);

        let two_hyphens = row(hyphens, 2);
        let long_flags = letters & (two_hyphens & !(hyphens << 2)) << 1;
        let short_flags = letters & (hyphens & (spaces | quotes) << 1) << 1;
        let armour = letters & (two_hyphens & row(hyphens, 3) << 2) << 1;
        keep(&mut self.flags, long_flags | short_flags);
        keep(&mut self.armour, armour);

        let four_digits = row(digits, 4);
        let port = four_digits << 1 & (colons << 5 | digits << 5 & colons << 6);
        let files = colons & port | window(&kinds.stars) & colons << 1;
        let slashes = two_joints & digits << 2 & (!(words << 3) | backslashes << 4);
        keep(&mut self.files, files);
        keep(&mut self.slashes, slashes);

        // Groups of an IPv6 address have up to four digits, and no other text has four colons so close.
        let near = |bits: u64x4<S>| bits << 2 | bits << 3 | bits << 4 | bits << 5;
        let four_colons = colons & near(colons & near(colons & near(colons)));
        let some_colons = colons & colons << 1 | four_colons;
        keep(&mut self.colons, some_colons);

        let octets = digits & dots << 1 & digits << 2;
        let next = |bits: u64x4<S>| bits << 2 | bits << 3 | bits << 4;
        let third_dots = octets & next(octets & next(octets));
        keep(&mut self.dots, third_dots);

        let group = four_digits & !(digits << 4);
        let card = four_digits & ((spaces | hyphens) & group << 1) << 4;
        let three_digits = row(digits, 3) << 1;
        let telephone = hyphens & three_digits & (hyphens & three_digits) << 4 | digits & window(&kinds.openings) << 1;
        let many_digits = row(four_digits, 10);
        let thirteenth = many_digits & !(many_digits << 1);
        let numbers = card | telephone | thirteenth;
        keep(&mut self.numbers, numbers);
        keep(&mut self.thirteenth, thirteenth & !(card | telephone));

        let long = row(words | joints | hyphens, RUN as u32);
        let runs = long & !(long << 1);
        keep(&mut self.runs, runs);

        let flags = long_flags | short_flags | armour;
        keep(&mut self.seldom, gaps | flags | files | slashes | some_colons | third_dots | numbers | runs);
    }
}

/// What a walk writes down: kept from one text to the next, so that a short one need not make room for it.
#[derive(Debug, Default)]
pub(super) struct Steps {
    kinds: Kinds,
    events: Events,
}

/// Reads some steps, and the one behind them that has fewer bytes.
#[inline(always)]
fn read<S: Simd>(simd: S, blocks: &[[u8; STEP]], last: &[[u8; STEP]], steps: &mut Steps) {
    steps.kinds.read(simd, 0, blocks);
    steps.kinds.read(simd, blocks.len(), last);
    let many = blocks.len() + last.len();
    steps.events.find(simd, &steps.kinds, many);
    steps.kinds.go_on(many);
}

/// Calls `look` for every step of a text, in order: with the place of its first byte, what was found, and where in it.
#[inline]
pub(super) fn walk(level: Level, bytes: &[u8], steps: &mut Steps, mut look: impl FnMut(usize, &Events, usize)) {
    let (blocks, rest) = bytes.as_chunks::<STEP>();
    // The last bytes get a step of their own, filled up with what means nothing.
    let mut last = [[0; STEP]];
    last[0][..rest.len()].copy_from_slice(rest);
    let many = blocks.len() + usize::from(!rest.is_empty());
    steps.kinds.begin();
    let mut first = 0;
    while first < many {
        let end = many.min(first + AHEAD);
        let here = &blocks[first..end.min(blocks.len())];
        let last = if end > blocks.len() { &last[..] } else { &[] };
        dispatch!(level, simd => read(simd, here, last, steps));
        for step in 0..end - first {
            look((first + step) * STEP, &steps.events, step);
        }
        first = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every place of a text by its pattern, as the machine of this level finds them.
    fn places(level: Level, text: &[u8]) -> Vec<[u64; 15]> {
        let mut found = Vec::new();
        walk(level, text, &mut Steps::default(), |base, events, step| {
            assert_eq!(base, found.len() * STEP);
            let Events { words, separators, signs, escapes, seldom, gaps, flags, armour, .. } = events;
            let Events { slashes, files, colons, dots, numbers, thirteenth, runs, .. } = events;
            let all = [
                words, separators, signs, escapes, seldom, gaps, flags, armour, slashes, files, colons, dots, numbers,
                thirteenth, runs,
            ];
            found.push(all.map(|places| places[step]));
        });
        found
    }

    #[test]
    fn every_machine_finds_the_same() {
        let line = b"2026-11-20T10:11:12Z a=b x: u@h http://a 203.0.113.9  -p --q -----B 1//0 :5432: ::1 4111-1111 415-555- 1700000000123 \\n/0af7651916cd43dd8448eb211c80319c ";
        // At every distance from where steps meet.
        for front in 0..70 {
            let text = [&vec![b'.'; front][..], &line.repeat(9)].concat();
            let best = places(Level::new(), &text);
            assert_eq!(best, places(Level::baseline(), &text));
            assert_eq!(best.len(), text.len().div_ceil(STEP));
            for pattern in 0..15 {
                assert!(best.iter().any(|step| step[pattern] != 0), "{pattern} is nowhere in the line");
            }
            // Room from an earlier text leaves no trace.
            let mut steps = Steps::default();
            walk(Level::new(), &line.repeat(20), &mut steps, |_, _, _| {});
            let mut words = Vec::new();
            walk(Level::new(), &text, &mut steps, |_, events, step| words.push(events.words[step]));
            assert_eq!(words, best.iter().map(|step| step[0]).collect::<Vec<_>>());
        }
    }
}
