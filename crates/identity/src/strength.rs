//! Whether a secret a person chose can be guessed. Asked once, when it is chosen; never when it is presented, so that a
//! stricter rule does not lock anybody out. Must never repeat the secret in an error.

use std::collections::BTreeSet;

/// Fewest characters.
pub const MIN_SECRET_CHARACTERS: usize = 16;
/// Most bytes: what is longer only costs time.
pub const MAX_SECRET_BYTES: usize = 256;
/// Fewest of the four classes: lower case, upper case, digits, others.
const MIN_CLASSES: usize = 3;
/// Fewest different characters.
const MIN_DIFFERENT: usize = 8;
/// Fewest characters left once known words, runs and repetitions count as one each.
const MIN_UNGUESSABLE: usize = 10;
/// Shortest run of neighbours (`abc`, `321`, `aaa`) that counts as one character.
const RUN: usize = 3;

/// Parts of passwords that every guessing list starts with, in lower case and with letters for look-alikes.
const WELL_KNOWN: [&str; 40] = [
    "qwertyuiop",
    "portcullis",
    "superuser",
    "password",
    "passwort",
    "changeme",
    "trustnoi",
    "iloveyou",
    "sunshine",
    "princess",
    "football",
    "baseball",
    "whatever",
    "computer",
    "internet",
    "asdfghjkl",
    "correcthorsebatterystaple",
    "zxcvbnm",
    "welcome",
    "letmein",
    "default",
    "monitor",
    "grafana",
    "example",
    "monkey",
    "dragon",
    "shadow",
    "master",
    "secret",
    "qwertz",
    "azerty",
    "qwerty",
    "asdfgh",
    "admin",
    "login",
    "hello",
    "token",
    "guest",
    "root",
    "test",
];

/// Why a secret is not accepted. The person's who chose it to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakSecret {
    /// Too short.
    #[error("the secret is too short: use at least {MIN_SECRET_CHARACTERS} characters")]
    Short,
    /// Too long.
    #[error("the secret is too long: use at most {MAX_SECRET_BYTES} bytes")]
    Long,
    /// Characters that do not survive a header or a terminal.
    #[error("the secret has characters that cannot be sent: {0}")]
    Characters(&'static str),
    /// Too few classes.
    #[error("the secret is too uniform: use at least three of lower case, upper case, digits and other characters")]
    Classes,
    /// Repetition.
    #[error("the secret repeats itself: use at least {MIN_DIFFERENT} different characters and no repeated part")]
    Repeated,
    /// Well-known words and sequences.
    #[error("the secret is made of well-known words or sequences such as 'password' or '12345': let a generator choose it")]
    WellKnown,
}

/// Where a secret will be used, which decides its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretUse {
    /// Behind `Bearer`: visible ASCII.
    Key,
    /// In HTTP Basic: anything but control characters.
    Password,
}

/// Checks a secret a person chose.
///
/// # Errors
/// The first rule it breaks.
pub fn check_strength(secret: &str, used_as: SecretUse) -> Result<(), WeakSecret> {
    if secret.len() > MAX_SECRET_BYTES {
        return Err(WeakSecret::Long);
    }
    match used_as {
        SecretUse::Key if !secret.bytes().all(|b| b.is_ascii_graphic()) => {
            return Err(WeakSecret::Characters("use visible ASCII characters without spaces"));
        }
        SecretUse::Password if secret.chars().any(char::is_control) => {
            return Err(WeakSecret::Characters("leave out control characters"));
        }
        _ => {}
    }
    let characters: Vec<char> = secret.chars().collect();
    if characters.len() < MIN_SECRET_CHARACTERS {
        return Err(WeakSecret::Short);
    }
    let classes: [fn(char) -> bool; 4] = [
        char::is_lowercase,
        char::is_uppercase,
        |c| c.is_ascii_digit(),
        |c| !c.is_lowercase() && !c.is_uppercase() && !c.is_ascii_digit(),
    ];
    if classes.iter().filter(|class| characters.iter().any(|c| class(*c))).count() < MIN_CLASSES {
        return Err(WeakSecret::Classes);
    }
    let different: BTreeSet<char> = characters.iter().copied().collect();
    if different.len() < MIN_DIFFERENT || has_period(&characters) {
        return Err(WeakSecret::Repeated);
    }
    if unguessable(&characters) < MIN_UNGUESSABLE {
        return Err(WeakSecret::WellKnown);
    }
    Ok(())
}

/// Whether it is one part written at least twice, the last time perhaps cut.
fn has_period(text: &[char]) -> bool {
    (1..=text.len() / 2).any(|period| text.iter().zip(&text[period..]).all(|(a, b)| a == b))
}

/// Characters left when each well-known word and each run of neighbours counts as one.
fn unguessable(characters: &[char]) -> usize {
    let folded: Vec<char> = characters.iter().map(|c| fold(*c)).collect();
    let words: Vec<Vec<char>> = WELL_KNOWN.iter().map(|word| word.chars().map(fold).collect()).collect();
    let (mut at, mut left) = (0, 0);
    while at < characters.len() {
        let word = words.iter().filter(|word| folded[at..].starts_with(word)).map(Vec::len).max().unwrap_or(0);
        let run = run_length(&characters[at..]);
        at += word.max(if run >= RUN { run } else { 1 });
        left += 1;
    }
    left
}

/// Lower case, and the letter a look-alike stands for.
fn fold(c: char) -> char {
    match c.to_ascii_lowercase() {
        '0' => 'o',
        '1' | '!' | '|' | 'l' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' | '+' => 't',
        other => other,
    }
}

/// How many characters from the start are equal, or go up or down by one.
fn run_length(text: &[char]) -> usize {
    let steps = |pair: &[char]| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0]));
    let Some(first) = text.windows(2).next().map(steps).filter(|step| (-1..=1).contains(step)) else { return 1 };
    1 + text.windows(2).take_while(|pair| steps(pair) == first).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_everybody_tries_first_is_refused_and_a_generated_secret_is_not() {
        for (secret, verdict) in [
            ("Ab1!Ab1!", Err(WeakSecret::Short)),
            ("Kq7#vLp2xWm9zR", Err(WeakSecret::Short)),
            ("kqvlpxwmzrtgnbdf", Err(WeakSecret::Classes)),
            ("KQVLPXWMzrtgnbdf", Err(WeakSecret::Classes)),
            ("Kq7#vLp2xWm9zR!\n", Err(WeakSecret::Characters("use visible ASCII characters without spaces"))),
            ("Kq7# vLp2xWm9zR!", Err(WeakSecret::Characters("use visible ASCII characters without spaces"))),
            ("Kq7#Kq7#Kq7#Kq7#Kq7#", Err(WeakSecret::Repeated)),
            ("Kq7#vLp2xKq7#vLp2xKq7#", Err(WeakSecret::Repeated)),
            ("Aa1!Aa1!aaaaaaaaaaaaa", Err(WeakSecret::Repeated)),
            ("Password12345678!", Err(WeakSecret::WellKnown)),
            ("P@ssw0rdP4$$w0rd123!", Err(WeakSecret::WellKnown)),
            ("Welcome2Portcullis!", Err(WeakSecret::WellKnown)),
            ("Qwertyuiop123456789!", Err(WeakSecret::WellKnown)),
            ("abcdefghijklmnopQ1!", Err(WeakSecret::WellKnown)),
            ("Admin-Admin-Root-987654321", Err(WeakSecret::WellKnown)),
            ("CorrectHorseBatteryStaple1!", Err(WeakSecret::WellKnown)),
            ("Kq7#vLp2xWm9zR!d", Ok(())),
            ("the Kettle is 4 tall Giraffe", Err(WeakSecret::Characters("use visible ASCII characters without spaces"))),
            ("0f3B9c1e-77Ad-4c02-9b1E-62f0", Ok(())),
        ] {
            assert_eq!(check_strength(secret, SecretUse::Key), verdict, "{secret}");
        }
        assert_eq!(check_strength("the Kettle is 4 tall Giraffe", SecretUse::Password), Ok(()));
        assert_eq!(check_strength("ünder Bäumen 7 Füchse", SecretUse::Password), Ok(()));
        assert!(check_strength("the Kettle is\u{7} 4 tall", SecretUse::Password).is_err());
        assert_eq!(check_strength(&"aB3$kQ9!".repeat(40), SecretUse::Key), Err(WeakSecret::Long));
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_check_and_no_error_repeats_the_secret(secret in "\\PC{0,60}") {
            if let Err(weak) = check_strength(&secret, SecretUse::Password) {
                prop_assert!(secret.chars().count() < 6 || !weak.to_string().contains(&secret));
            }
        }

        #[test]
        fn a_part_written_twice_is_always_refused(part in "[A-Za-z0-9!#%]{8,20}") {
            let twice = format!("{part}{part}");
            prop_assert!(check_strength(&twice, SecretUse::Key).is_err());
        }
    }
}
