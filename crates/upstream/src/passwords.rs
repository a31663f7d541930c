//! Passwords inside of settings that are not secret as a whole, such as `DATABASE_URL`. Guards that the password alone is known
//! as a secret too. Must not decide what is done with it.

use portcullis_model::Secret;

use crate::addresses::decoded;

/// Names before a password in connection strings.
const NAMES: [&str; 3] = ["password=", "passwd=", "pwd="];

/// Passwords in the addresses and connection strings of a text, as they are written and as they are meant.
pub(crate) fn passwords_in(text: &str) -> Vec<Secret> {
    let mut found = Vec::new();
    let mut take = |password: &str| {
        let meant = decoded(password);
        if meant != password {
            found.push(Secret::new(meant));
        }
        found.push(Secret::new(password));
    };
    for (at, _) in text.match_indices("://") {
        let rest = text[at + 3..].split(|c: char| c.is_whitespace() || c == '"').next().unwrap_or_default();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // Some write passwords with characters that would end it.
        let user = authority.rsplit_once('@').or_else(|| rest.split('?').next().and_then(|path| path.rsplit_once('@')));
        if let Some((user, password)) = user.and_then(|(user, _)| user.split_once(':'))
            // One that is its user's name is no secret, but a word.
            && password != user
        {
            take(password);
        }
    }
    let lower = text.to_ascii_lowercase();
    for name in NAMES {
        for (at, _) in lower.match_indices(name) {
            let rest = &text[at + name.len()..];
            let quote = rest.chars().next().filter(|c| "'\"".contains(*c));
            let password = match quote {
                Some(quote) => rest[1..].split(quote).next(),
                None => rest.split(|c: char| c.is_whitespace() || ";&,".contains(c)).next(),
            };
            take(password.unwrap_or_default());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_wherever_settings_hide_one() {
        let found = |text: &str| -> Vec<String> { passwords_in(text).iter().map(|s| s.expose().to_owned()).collect() };
        assert_eq!(found("postgres://u:s3cr%40t1@host/db?sslmode=off"), ["s3cr@t1", "s3cr%40t1"]);
        assert_eq!(found("amqp://u:with/slash#@host:1/v"), ["with/slash#"]);
        assert_eq!(found("host=x Password=hunter22 user=y"), ["hunter22"]);
        assert_eq!(found("Server=x;Pwd='a b c d e';"), ["a b c d e"]);
        assert_eq!(found("redis://:only-one@host"), ["only-one"]);
        for none in ["postgres://host/db", "https://x.example/a?mail=a:b@c", "postgres://postgres:postgres@host", "plain"] {
            assert!(found(none).is_empty(), "{none}");
        }
    }
}
