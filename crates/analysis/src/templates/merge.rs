//! From skeletons to templates: positions that hold parameters the mask could not see (user names, titles) are found by
//! comparing skeletons.
//!
//! Guards against merging different errors: words that name a kind of failure, severities and states are never taken
//! for parameters, and a position counts as a parameter only on evidence. Must be deterministic for the same skeletons.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::mask::VARIABLE;

/// Rounds of generalisation; each may expose further positions.
const MAX_ROUNDS: usize = 6;
/// Distinct words that make a position after a parameter word (`user`, `=`, a quote) a parameter.
const PARAMETER_VALUES: usize = 3;
/// Distinct words that make any position a parameter, when each is rare.
const RARE_VALUES: usize = 4;
/// Distinct words that make any position a parameter however frequent they are.
const MANY_VALUES: usize = 12;
/// Clusters compared with each skeleton in the search for sparse templates.
const MAX_LEADERS: usize = 128;

/// Splits a skeleton into tokens; a token carries the blank in front of it, a quoted text is one token.
pub(super) fn tokens(skeleton: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < skeleton.len() {
        let start = at;
        if skeleton[at] == b' ' {
            at += 1;
        }
        match skeleton.get(at).copied() {
            None => {}
            Some(quote @ (b'"' | b'\'')) => {
                let opens = at == 0 || !skeleton[at - 1].is_ascii_alphanumeric();
                let end = skeleton[at + 1..].iter().position(|b| *b == quote).filter(|length| opens && (1..=64).contains(length));
                at += end.map_or(1, |length| length + 2);
            }
            Some(byte) if is_border(byte) => at += 1,
            Some(_) => at += skeleton[at..].iter().take_while(|b| **b != b' ' && !is_border(**b)).count(),
        }
        out.push(&skeleton[start..at]);
    }
    out
}

fn is_border(byte: u8) -> bool {
    matches!(
        byte,
        VARIABLE
            | b'('
            | b')'
            | b'['
            | b']'
            | b'{'
            | b'}'
            | b','
            | b';'
            | b'='
            | b'<'
            | b'>'
            | b'|'
            | b'`'
            | b'^'
            | b':'
            | b'#'
            | b'"'
            | b'\''
    )
}

fn bare(token: &[u8]) -> &[u8] {
    token.strip_prefix(b" ").unwrap_or(token)
}

pub(super) fn is_variable(token: &[u8]) -> bool {
    bare(token) == [VARIABLE]
}

fn is_word(token: &[u8]) -> bool {
    bare(token).iter().any(|b| b.is_ascii_alphabetic() || *b >= 0x80)
}

/// A template in the making.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// Tokens; a variable stands for exactly one token of a member unless variables were joined.
    pub(super) tokens: Vec<Box<[u8]>>,
    /// A hash of each token at its position, so that the rest of a template is compared without one of them.
    hashes: Vec<u64>,
    /// Skeletons that belong to it.
    pub(super) members: Vec<usize>,
    /// Lines of all members.
    pub(super) lines: u64,
}

impl Group {
    fn new(tokens: Vec<Box<[u8]>>, members: Vec<usize>, lines: u64) -> Self {
        let hashes = tokens.iter().enumerate().map(|(position, token)| hash(position, token)).collect();
        Self { tokens, hashes, members, lines }
    }

    fn set_variable(&mut self, position: usize, blank: bool) {
        self.tokens[position] = if blank { Box::from([b' ', VARIABLE]) } else { Box::from([VARIABLE]) };
        self.hashes[position] = hash(position, &self.tokens[position]);
    }

    /// The skeleton text of the group.
    pub(super) fn skeleton(&self) -> Vec<u8> {
        self.tokens.concat()
    }
}

/// Groups skeletons `(text, lines)` into templates. Groups come in the order of their first member.
pub(super) fn merge<'s>(skeletons: impl IntoIterator<Item = (usize, &'s [u8], u64)>) -> Vec<Group> {
    let mut groups: Vec<Group> = skeletons
        .into_iter()
        .map(|(id, text, lines)| Group::new(tokens(text).into_iter().map(Box::from).collect(), vec![id], lines))
        .collect();
    let mut known = HashSet::new();
    for _ in 0..MAX_ROUNDS {
        let before = groups.len();
        groups = round(groups, &mut known);
        if groups.len() == before {
            break;
        }
    }
    groups.sort_by_key(|group| group.members.iter().min().copied());
    groups
}

/// Words seen as values of parameters.
type Known = HashSet<Box<[u8]>>;

fn round(groups: Vec<Group>, known: &mut Known) -> Vec<Group> {
    let mut by_shape: HashMap<(usize, Box<[u8]>), usize> = HashMap::new();
    let mut shapes: Vec<Vec<Group>> = Vec::new();
    for group in groups {
        let key = (group.tokens.len(), group.tokens.first().cloned().unwrap_or_default());
        let at = *by_shape.entry(key).or_insert_with(|| {
            shapes.push(Vec::new());
            shapes.len() - 1
        });
        shapes[at].push(group);
    }
    let mut out: Vec<Group> = Vec::new();
    for mut shape in shapes {
        if shape.len() > 1 {
            let width = shape[0].tokens.len();
            for position in 1..width {
                shape = generalise(shape, position, known);
            }
            shape = join_sparse(shape);
        }
        out.extend(shape);
    }
    join_equal(out)
}

fn hash(position: usize, token: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (position, token).hash(&mut hasher);
    hasher.finish()
}

fn differs_only_at(a: &[Box<[u8]>], b: &[Box<[u8]>], position: usize) -> bool {
    a.len() == b.len() && a.iter().zip(b).enumerate().all(|(at, (mine, theirs))| at == position || mine == theirs)
}

/// Joins groups that are alike but for one position, when that position holds a parameter.
fn generalise(groups: Vec<Group>, position: usize, known: &mut Known) -> Vec<Group> {
    let mut rest: HashMap<u64, usize> = HashMap::new();
    let mut buckets: Vec<Vec<usize>> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let sum: u64 = group.hashes.iter().fold(0, |sum, hash| sum.wrapping_add(*hash));
        let others = sum.wrapping_sub(group.hashes[position]);
        let at = *rest.entry(others).or_insert_with(|| {
            buckets.push(Vec::new());
            buckets.len() - 1
        });
        // Equal sums of different tokens are as good as impossible, and would join what does not belong together.
        let alike = |first: &usize| differs_only_at(&groups[*first].tokens, &group.tokens, position);
        if buckets[at].first().is_none_or(alike) {
            buckets[at].push(index);
        }
    }
    if buckets.len() == groups.len() {
        return groups;
    }
    let mut joined_into: Vec<Option<usize>> = vec![None; groups.len()];
    for bucket in buckets.iter().filter(|bucket| bucket.len() > 1) {
        let members: Vec<&Group> = bucket.iter().map(|index| &groups[*index]).collect();
        let chosen = parameter_values(&members, position, known);
        if let Some(first) = chosen.first() {
            for index in &chosen {
                joined_into[bucket[*index]] = Some(bucket[*first]);
            }
        }
    }
    let mut place: HashMap<usize, usize> = HashMap::new();
    let mut out: Vec<Group> = Vec::with_capacity(groups.len());
    for (index, mut group) in groups.into_iter().enumerate() {
        let Some(target) = joined_into[index] else {
            out.push(group);
            continue;
        };
        if let Some(held) = place.get(&target).and_then(|at| out.get_mut(*at)) {
            held.members.append(&mut group.members);
            held.lines += group.lines;
        } else {
            let blank = group.tokens[position].first() == Some(&b' ');
            group.set_variable(position, blank);
            place.insert(target, out.len());
            out.push(group);
        }
    }
    out
}

/// Which members have a parameter at `position`; empty when there is not enough evidence.
fn parameter_values(members: &[&Group], position: usize, known: &mut Known) -> Vec<usize> {
    let token = |index: usize| &*members[index].tokens[position];
    let all = || 0..members.len();
    let variable = all().any(|index| is_variable(token(index)));
    let candidates: Vec<usize> =
        all().filter(|i| !is_variable(token(*i)) && is_word(token(*i)) && !names_a_kind(bare(token(*i)))).collect();
    let words_around = members[0].tokens.iter().enumerate().filter(|(at, other)| *at != position && is_word(other)).count();
    if candidates.is_empty() || words_around == 0 {
        return Vec::new();
    }
    let parametric = position.checked_sub(1).is_some_and(|before| announces_parameter(&members[0].tokens[before]))
        || candidates.iter().all(|i| matches!(bare(token(*i)).first(), Some(b'"' | b'\'')));
    if variable {
        let absorbed: Vec<usize> = candidates
            .into_iter()
            .filter(|i| parametric || looks_like_identifier(bare(token(*i))) || known.contains(bare(token(*i))))
            .collect();
        if absorbed.is_empty() {
            return absorbed;
        }
        let mut chosen: Vec<usize> = all().filter(|i| is_variable(token(*i)) || absorbed.contains(i)).collect();
        chosen.sort_unstable();
        return chosen;
    }
    let distinct = candidates.len();
    let lines: u64 = candidates.iter().map(|i| members[*i].lines).sum();
    let rare = lines <= 3 * distinct as u64;
    let all_known = distinct >= 2 && candidates.iter().all(|i| known.contains(bare(token(*i))));
    let one_stem = distinct >= 2 && {
        let stem = |i: &usize| bare(token(*i)).iter().copied().filter(|b| !b.is_ascii_digit()).collect::<Vec<u8>>();
        let first = stem(&candidates[0]);
        first.len() < bare(token(candidates[0])).len() && candidates.iter().all(|i| stem(i) == first)
    };
    let capitals = candidates.iter().all(|i| all_capitals(bare(token(*i))));
    let enough = match (parametric, capitals) {
        (true, false) => distinct >= PARAMETER_VALUES,
        (false, false) => distinct >= MANY_VALUES || distinct >= RARE_VALUES && rare && words_around >= 2,
        (_, true) => distinct >= MANY_VALUES,
    };
    if !(enough || all_known || one_stem) {
        return Vec::new();
    }
    if parametric {
        known.extend(candidates.iter().map(|i| Box::from(bare(token(*i)))));
    }
    candidates
}

/// Whether a value is to be expected after this token.
fn announces_parameter(token: &[u8]) -> bool {
    const WORDS: [&[u8]; 22] = [
        b"user", b"users", b"for", b"from", b"host", b"node", b"name", b"named", b"by", b"to", b"id", b"file", b"account",
        b"client", b"server", b"service", b"job", b"pod", b"topic", b"queue", b"key", b"device",
    ];
    let word = bare(token);
    word == b"=" || WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Digits, dots, dashes, slashes or inner capitals: hardly a word of a sentence.
fn looks_like_identifier(word: &[u8]) -> bool {
    let inner_capital = word.windows(2).any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    inner_capital || word.iter().any(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_' | b'/' | b'@' | b'\\' | b'$'))
}

/// States and methods are often written so: `LEADING`, `POST`.
fn all_capitals(word: &[u8]) -> bool {
    word.len() >= 3 && word.iter().all(|b| b.is_ascii_uppercase() || *b == b'_')
}

/// Words that say what kind of thing happened: failures, severities, outcomes, states.
fn names_a_kind(word: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 6] = [b"Exception", b"Error", b"Failure", b"Fault", b"Timeout", b"Denied"];
    const KINDS: [&str; 84] = [
        "abort",
        "aborted",
        "accepted",
        "added",
        "bad",
        "broken",
        "busy",
        "cancelled",
        "canceled",
        "changed",
        "closed",
        "committed",
        "completed",
        "conflict",
        "connected",
        "corrupt",
        "corrupted",
        "created",
        "critical",
        "dead",
        "deadlock",
        "declined",
        "deleted",
        "denied",
        "disabled",
        "disconnected",
        "down",
        "dropped",
        "empty",
        "enabled",
        "error",
        "evicted",
        "exceeded",
        "exhausted",
        "expired",
        "fail",
        "failed",
        "failing",
        "failure",
        "false",
        "fatal",
        "finished",
        "forbidden",
        "full",
        "get",
        "healthy",
        "info",
        "invalid",
        "killed",
        "lost",
        "malformed",
        "mismatch",
        "missing",
        "none",
        "null",
        "oom",
        "opened",
        "overflow",
        "overloaded",
        "paused",
        "post",
        "ready",
        "refused",
        "rejected",
        "removed",
        "reset",
        "restarted",
        "retry",
        "running",
        "started",
        "starting",
        "stopped",
        "stopping",
        "success",
        "succeeded",
        "throttled",
        "timeout",
        "true",
        "unauthorized",
        "unavailable",
        "unhealthy",
        "unknown",
        "unreachable",
        "warn",
    ];
    let word = word.strip_suffix(b".").unwrap_or(word);
    ENDINGS.iter().any(|ending| word.ends_with(ending) && word.len() > 4)
        || KINDS.iter().any(|kind| word.eq_ignore_ascii_case(kind.as_bytes()))
}

/// Joins skeletons of one shape that agree in most words and are rare each: several parameters vary at once.
fn join_sparse(groups: Vec<Group>) -> Vec<Group> {
    let mut leaders: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        if group.lines > 3 * group.members.len() as u64 {
            continue;
        }
        match leaders.iter().position(|(leader, _)| similar(&groups[*leader], group)) {
            Some(at) => leaders[at].1.push(index),
            None if leaders.len() < MAX_LEADERS => leaders.push((index, vec![index])),
            None => {}
        }
    }
    let mut target: Vec<Option<usize>> = vec![None; groups.len()];
    for (leader, members) in leaders.iter().filter(|(_, members)| members.len() >= RARE_VALUES) {
        for member in members {
            target[*member] = Some(*leader);
        }
    }
    if target.iter().all(Option::is_none) {
        return groups;
    }
    let mut out: Vec<Group> = Vec::new();
    let mut place: HashMap<usize, usize> = HashMap::new();
    for (index, mut group) in groups.into_iter().enumerate() {
        let Some(leader) = target[index] else {
            out.push(group);
            continue;
        };
        if let Some(held) = place.get(&leader).and_then(|at| out.get_mut(*at)) {
            for position in 0..held.tokens.len() {
                if held.tokens[position] != group.tokens[position] {
                    let blank = held.tokens[position].first() == Some(&b' ');
                    held.set_variable(position, blank);
                }
            }
            held.members.append(&mut group.members);
            held.lines += group.lines;
        } else {
            place.insert(leader, out.len());
            out.push(group);
        }
    }
    out
}

/// At least 60 % of the words agree, three or more of them, and what differs names no kind and is no sign.
fn similar(a: &Group, b: &Group) -> bool {
    let (mut words, mut equal) = (0usize, 0usize);
    for (mine, theirs) in a.tokens.iter().zip(&b.tokens) {
        if mine == theirs {
            let counts = usize::from(is_word(mine));
            words += counts;
            equal += counts;
            continue;
        }
        let fits =
            |token: &[u8]| is_variable(token) || is_word(token) && !names_a_kind(bare(token)) && !all_capitals(bare(token));
        if !fits(mine) || !fits(theirs) {
            return false;
        }
        words += 1;
    }
    equal >= 3 && equal * 10 >= words * 6
}

/// Joins neighbouring variables, then groups whose tokens became equal.
fn join_equal(groups: Vec<Group>) -> Vec<Group> {
    let mut place: HashMap<Vec<Box<[u8]>>, usize> = HashMap::with_capacity(groups.len());
    let mut out: Vec<Group> = Vec::with_capacity(groups.len());
    for mut group in groups {
        let mut joined: Vec<Box<[u8]>> = Vec::with_capacity(group.tokens.len());
        for token in group.tokens.drain(..) {
            if !(is_variable(&token) && joined.last().is_some_and(|last| is_variable(last))) {
                joined.push(token);
            }
        }
        if joined.len() != group.hashes.len() {
            group.hashes = joined.iter().enumerate().map(|(position, token)| hash(position, token)).collect();
        }
        group.tokens = joined;
        if let Some(held) = place.get(&group.tokens).and_then(|at| out.get_mut(*at)) {
            held.members.append(&mut group.members);
            held.lines += group.lines;
        } else {
            place.insert(group.tokens.clone(), out.len());
            out.push(group);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::mask::{mask, readable};
    use super::*;

    fn templates(lines: &[&str]) -> Vec<String> {
        let mut skeletons: Vec<(Vec<u8>, u64)> = Vec::new();
        for line in lines {
            let mut out = Vec::new();
            mask(line, &mut out);
            match skeletons.iter_mut().find(|(held, _)| *held == out) {
                Some((_, count)) => *count += 1,
                None => skeletons.push((out, 1)),
            }
        }
        let merged = merge(skeletons.iter().enumerate().map(|(id, (text, lines))| (id, &text[..], *lines)));
        merged.iter().map(|group| readable(&group.skeleton())).collect()
    }

    #[test]
    fn tokens_put_together_are_the_skeleton() {
        for text in ["a b=\"c d\" (e) 'x'", "it's \"open", " \"", "", "x  y\u{1}:z"] {
            assert_eq!(tokens(text.as_bytes()).concat(), text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn names_become_parameters() {
        assert_eq!(
            templates(&[
                "session opened for user ann by cron",
                "session opened for user bob by cron",
                "session opened for user eve by cron"
            ]),
            ["session opened for user <*> by cron"]
        );
        assert_eq!(templates(&["user \"Ann Lee\" left", "user \"Bob\" left", "user \"Carol M Poe\" left"]), ["user <*> left"]);
        assert_eq!(templates(&["worker shard12 is slow today", "worker shard7 is slow today"]), ["worker <*> is slow today"]);
    }

    #[test]
    fn kinds_of_failure_stay_apart() {
        let lines = [
            "Login failed: timeout",
            "Login failed: denied",
            "Login failed: expired",
            "Login failed: rejected",
            "Login failed: DatabaseError",
            "state changed to LOOKING",
            "state changed to FOLLOWING",
            "state changed to LEADING",
            "state changed to OBSERVING",
        ];
        assert_eq!(templates(&lines).len(), lines.len(), "{:?}", templates(&lines));
    }

    #[test]
    fn several_rare_parameters_at_once() {
        let lines = [
            "item apple moved by ann into basket red now",
            "item pear moved by bob into basket blue now",
            "item plum moved by eve into basket green now",
            "item fig moved by joe into basket white now",
        ];
        assert_eq!(templates(&lines), ["item <*> moved by <*> into basket <*> now"]);
    }
}
