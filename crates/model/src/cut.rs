//! Where a text may be cut. Half a secret looks like none, so a text is redacted as far as a secret could reach over the cut, and
//! cut then. What a secret is, the gate says for the work of one call ([`guarding`]); where nobody said it, a cut goes back to
//! the end of a word. Guards also values that are shown apart from the name that says what they are ([`field`]). Must not know
//! what a secret looks like.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Debug;
use std::future::poll_fn;
use std::sync::Arc;

use crate::unseen::is_unseen;

/// Takes out of a text what the caller of the present work must not see.
pub trait Secrecy: Send + Sync + Debug {
    /// The text without it, or `None` when there is nothing to take out.
    fn text(&self, text: &str) -> Option<String>;

    /// The value of a field without it, where the name can tell as well; `None` when there is nothing to take out.
    fn field(&self, name: &str, value: &str) -> Option<String>;
}

/// What holds for cuts.
#[derive(Debug, Clone, Default)]
pub enum CutRule {
    /// Nobody said what must not be seen: a cut goes back to the end of a word.
    #[default]
    Unknown,
    /// The whole text may be seen, so every part of it may.
    Open,
    /// Secrets go first.
    Closed(Arc<dyn Secrecy>),
}

thread_local! {
    static RULE: RefCell<CutRule> = const { RefCell::new(CutRule::Unknown) };
}

/// Puts the rule of before back, also when the work under another one panics.
struct Restore(CutRule);

impl Drop for Restore {
    fn drop(&mut self) {
        RULE.set(std::mem::take(&mut self.0));
    }
}

/// Does work under a rule, on this thread.
pub fn under<T>(rule: &CutRule, work: impl FnOnce() -> T) -> T {
    let _restore = Restore(RULE.replace(rule.clone()));
    work()
}

/// Does work under a rule, on whatever thread it is continued. What it spawns is not under it.
pub fn guarding<F: Future>(rule: CutRule, work: F) -> impl Future<Output = F::Output> {
    let mut work = Box::pin(work);
    poll_fn(move |context| under(&rule, || work.as_mut().poll(context)))
}

/// The beginning of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning<'t> {
    /// At most as many characters as were asked for.
    pub text: Cow<'t, str>,
    /// Characters that were left out.
    pub left: usize,
}

/// Characters behind a cut that are redacted with what stands in front of it: as far as anything behind a secret is asked what it
/// is, such as the `kind` behind the `data` of a manifest, or the last line of a key whose first is not there. More are looked at
/// where what goes makes the text so short that its end comes near, and where one unbroken run reaches over it.
const AHEAD: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];

/// Characters in front of the end of what was looked at that may belong to a secret which reaches over it.
const UNSURE: usize = 1 << 10;

/// The first `most` characters of a text, redacted before they are cut off. A text that is not cut comes back as it is: whole
/// it is redacted on its way out.
pub fn beginning(text: &str, most: usize) -> Beginning<'_> {
    let whole = Beginning { text: Cow::Borrowed(text), left: 0 };
    if text.len() <= most {
        return whole;
    }
    let Some((end, _)) = text.char_indices().nth(most) else { return whole };
    match RULE.with_borrow(Clone::clone) {
        CutRule::Open => cut_at(text, end),
        CutRule::Closed(secrecy) => redacted(text, most, end, &*secrecy),
        CutRule::Unknown => cut_at(text, end_of_a_word(&text[..end])),
    }
}

/// Words of a caller's as an error repeats them: in one line, without what nobody sees, and cut like every text.
pub fn quoted(text: &str, most: usize) -> String {
    let seen: String = text.chars().filter(|c| !c.is_control() && !is_unseen(*c)).collect();
    let Beginning { text, left } = beginning(&seen, most);
    if left == 0 { text.into_owned() } else { format!("{text}…") }
}

/// A whole text as it will be shown, for those who cut it by other measures than characters.
pub fn whole(text: &str) -> Cow<'_, str> {
    match RULE.with_borrow(Clone::clone) {
        CutRule::Closed(secrecy) => secrecy.text(text).map_or(Cow::Borrowed(text), Cow::Owned),
        CutRule::Open | CutRule::Unknown => Cow::Borrowed(text),
    }
}

/// The value of a field, for those who show it apart from its name, or with a name that is cut.
pub fn field<'v>(name: &str, value: &'v str) -> Cow<'v, str> {
    match RULE.with_borrow(Clone::clone) {
        CutRule::Closed(secrecy) => secrecy.field(name, value).map_or(Cow::Borrowed(value), Cow::Owned),
        CutRule::Open | CutRule::Unknown => Cow::Borrowed(value),
    }
}

/// Where the character of this number begins, or the end.
fn place(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
}

fn cut_at(text: &str, end: usize) -> Beginning<'_> {
    let (front, behind) = text.split_at(end);
    Beginning { text: Cow::Borrowed(front), left: behind.chars().count() }
}

/// The end of the last word that is surely whole. Groups of digits go as well: together they may be one number.
fn end_of_a_word(front: &str) -> usize {
    let words = front.rfind(char::is_whitespace).map_or("", |at| &front[..at]);
    words.trim_end_matches(|c: char| c.is_whitespace() || c.is_ascii_digit() || c == '-').len()
}

/// What tokens, keys and encoded texts are made of.
fn in_run(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '+' | '/' | '=' | '~' | '%')
}

/// Where the run begins that a text ends with: what it is, only its other end may tell.
fn last_run(text: &str) -> usize {
    text.trim_end_matches(in_run).len()
}

fn redacted<'t>(text: &'t str, most: usize, end: usize, secrecy: &dyn Secrecy) -> Beginning<'t> {
    let mut last = cut_at(text, 0);
    for ahead in AHEAD {
        let (looked, behind) = text.split_at(end + place(&text[end..], ahead));
        let is_all = behind.is_empty();
        let Some(mut clean) = secrecy.text(looked) else {
            let run = if is_all { end } else { last_run(looked) };
            if run >= end {
                return cut_at(text, end);
            }
            last = cut_at(text, run);
            continue;
        };
        let characters = clean.chars().count();
        let sure =
            if is_all { characters } else { characters.saturating_sub(UNSURE).min(clean[..last_run(&clean)].chars().count()) };
        let kept = sure.min(most);
        clean.truncate(place(&clean, kept));
        let is_enough = kept == most || is_all;
        last = Beginning { text: Cow::Owned(clean), left: characters - kept + behind.chars().count() };
        if is_enough {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    /// A secret is `<` and what follows it up to `>`; both are needed to know it. Under the name `animal` everything is one.
    #[derive(Debug)]
    struct Brackets;

    impl Secrecy for Brackets {
        fn text(&self, text: &str) -> Option<String> {
            let (mut clean, mut rest) = (String::new(), text);
            while let Some(open) = rest.find('<') {
                let Some(close) = rest[open..].find('>') else { break };
                clean.push_str(&rest[..open]);
                clean.push('#');
                rest = &rest[open + close + 1..];
            }
            clean.push_str(rest);
            (clean != text).then_some(clean)
        }

        fn field(&self, name: &str, value: &str) -> Option<String> {
            if name == "animal" { Some("#".to_owned()) } else { self.text(value) }
        }
    }

    fn closed() -> CutRule {
        CutRule::Closed(Arc::new(Brackets))
    }

    fn cut(rule: &CutRule, text: &str, most: usize) -> (String, usize) {
        under(rule, || {
            let Beginning { text, left } = beginning(text, most);
            (text.into_owned(), left)
        })
    }

    #[test]
    fn what_reaches_over_a_cut_goes_whole() {
        let text = "before <tiger lily> behind";
        assert_eq!(cut(&closed(), text, 12), ("before # beh".to_owned(), 3));
        assert_eq!(cut(&closed(), text, 26), (text.to_owned(), 0), "what is not cut is redacted where it goes out");
        assert_eq!(cut(&CutRule::Open, text, 12), ("before <tige".to_owned(), 14));
        assert_eq!(cut(&closed(), "äöü <x> ß", 4), ("äöü ".to_owned(), 3));
    }

    #[test]
    fn without_a_rule_a_cut_leaves_no_part_of_a_word_and_no_part_of_a_number() {
        assert_eq!(cut(&CutRule::Unknown, "one two three", 9), ("one two".to_owned(), 6));
        assert_eq!(cut(&CutRule::Unknown, "AKIAIOSFODNN7EXAMPLE", 15), (String::new(), 20));
        assert_eq!(cut(&CutRule::Unknown, "paid by 4111 1111 1111 1111 today", 24), ("paid by".to_owned(), 26));
    }

    #[test]
    fn what_was_redacted_in_front_does_not_bring_the_end_of_what_was_looked_at_into_view() {
        let long = format!("<{}>", "a".repeat(AHEAD[0] - 20));
        let text = format!("{long} then <{}> end", "tiger".repeat(100));
        let (shown, left) = cut(&closed(), &text, 60);
        assert_eq!((shown.as_str(), left), ("# then # end", 0));
        // Longer than anything that is looked at: less is shown, and no part of a secret.
        let short = format!("<{}> ", "a".repeat(50));
        let endless = format!("{} <{}> end", short.repeat(2_000), "tiger".repeat(AHEAD[2]));
        let (shown, left) = cut(&closed(), &endless, 5_000);
        assert!(!shown.contains("tig") && !shown.contains('a') && left > 0, "{shown}");
    }

    #[test]
    fn words_are_repeated_in_one_line_and_no_secret_in_part() {
        assert_eq!(quoted("a\u{1b}[31m\u{202e}b\n\u{2800}c", 20), "a[31mbc");
        assert_eq!(quoted("AKIAIOSFODNN7EXAMPLE", 15), "…", "half of a word is none");
        assert_eq!(quoted("one two three", 9), "one two…");
        assert_eq!(under(&closed(), || quoted("before <tig\u{200b}er lily> behind", 12)), "before # beh…");
    }

    #[test]
    fn a_run_longer_than_what_is_looked_at_is_not_shown_in_part() {
        // Nothing is found in it before its end is seen.
        let seen = format!("before {}> <x", "tiger".repeat(AHEAD[1] / 5));
        assert_eq!(cut(&closed(), &seen, 12).0, "before tiger", "what was looked at to its end is no secret");
        let endless = format!("before {}> behind", "tiger".repeat(AHEAD[2]));
        let (shown, left) = cut(&closed(), &endless, 1_000);
        assert_eq!((shown.as_str(), left), ("before ", endless.len() - 7));
        let words = format!("before {}", "tiger lily ".repeat(AHEAD[2]));
        assert_eq!(cut(&closed(), &words, 12).0, "before tiger", "words are cut where they were");
    }

    #[test]
    fn a_rule_holds_for_its_work_alone_and_on_every_step_of_it() {
        assert_eq!(under(&closed(), || field("animal", "tiger").into_owned()), "#");
        assert_eq!(under(&closed(), || whole("a <b> c").into_owned()), "a # c");
        assert_eq!(field("animal", "tiger"), "tiger", "the rule is over");
        let mut context = Context::from_waker(Waker::noop());
        let mut steps = 0;
        let work = poll_fn(|_| {
            steps += 1;
            let seen = field("animal", "tiger").into_owned();
            if steps < 3 { Poll::Pending } else { Poll::Ready(seen) }
        });
        let mut guarded = pin!(guarding(closed(), work));
        for _ in 0..2 {
            assert!(guarded.as_mut().poll(&mut context).is_pending());
            assert_eq!(field("animal", "tiger"), "tiger");
        }
        assert_eq!(guarded.as_mut().poll(&mut context), Poll::Ready("#".to_owned()));
        let mut nested = pin!(guarding(closed(), guarding(CutRule::Open, ready(()))));
        assert!(nested.as_mut().poll(&mut context).is_ready());
        assert!(pin!(guarding(closed(), pending::<()>())).as_mut().poll(&mut context).is_pending());
        let broken = std::panic::catch_unwind(|| under::<()>(&closed(), || panic!("in the work")));
        assert!(broken.is_err() && field("animal", "tiger") == "tiger");
    }

    proptest! {
        #[test]
        fn no_cut_shows_a_part_of_a_secret(front in "[a-z ]{0,60}", secret in "[A-Z]{1,80}", behind in "[a-z ]{0,60}", most in 0_usize..200) {
            let text = format!("{front}<{secret}>{behind}");
            let (shown, left) = cut(&closed(), &text, most);
            prop_assert!(shown.chars().count() <= most || left == 0);
            prop_assert!(left == 0 && shown == text || !shown.contains(|c: char| c.is_ascii_uppercase()), "{shown}");
            if left > 0 {
                let clean = format!("{front}#{behind}");
                prop_assert_eq!(shown.chars().count() + left, clean.chars().count());
                prop_assert!(clean.starts_with(&shown));
            }
        }
    }
}
