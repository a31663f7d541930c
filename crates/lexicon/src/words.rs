//! From text to words that can be compared: split at everything that is no letter or digit and at the humps of camelCase,
//! lower case, without words that say nothing, without inflections. The stem need not be a word; it need only be the same
//! for what belongs together.

/// Longest word that is kept, in characters: longer ones are identifiers, and nobody asks for them.
const LONGEST: usize = 40;

/// Words that stand in every question and every description.
const SILENT: &[&str] = &[
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "been", "by", "can", "could", "did", "do", "does", "each",
    "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "just", "many", "me", "much", "my",
    "need", "not", "of", "on", "one", "or", "our", "please", "so", "some", "such", "than", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "to", "us", "use", "used", "using", "want", "was", "we", "were", "what", "when",
    "where", "which", "will", "with", "would", "you", "your",
];

/// The words of `text`, in order.
pub(crate) fn of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in text.split(|c: char| !c.is_alphanumeric()) {
        let mut word = String::new();
        let mut before: Option<char> = None;
        let mut characters = part.chars().peekable();
        while let Some(c) = characters.next() {
            // `podLogs` and `HTTPServer` are two words each; `k8s` is one.
            let hump = c.is_uppercase()
                && before.is_some_and(|b| {
                    b.is_lowercase() || b.is_uppercase() && characters.peek().is_some_and(|next| next.is_lowercase())
                });
            if hump {
                keep(&mut words, &word);
                word.clear();
            }
            word.extend(c.to_lowercase());
            before = Some(c);
        }
        keep(&mut words, &word);
    }
    words
}

fn keep(words: &mut Vec<String>, word: &str) {
    if word.is_empty() || SILENT.contains(&word) || word.chars().count() > LONGEST {
        return;
    }
    words.push(stem(word));
}

/// The word without its inflection.
pub(crate) fn stem(word: &str) -> String {
    if !word.is_ascii() || word.len() <= 3 || word.bytes().any(|b| b.is_ascii_digit()) {
        return word.to_owned();
    }
    let mut stem = singular(word);
    for suffix in ["ing", "ed"] {
        if let Some(short) = stem.strip_suffix(suffix).filter(|short| short.len() >= 3 && has_vowel(short)) {
            // `validated` comes of `validate`.
            stem = if short.ends_with("at") { format!("{short}e") } else { single_end(short).to_owned() };
            break;
        }
    }
    for (suffix, least) in [("ation", 4), ("ment", 4), ("ness", 4), ("ly", 4), ("ate", 4), ("ity", 4)] {
        if let Some(short) = stem.strip_suffix(suffix).filter(|short| short.len() >= least) {
            stem.truncate(short.len());
            break;
        }
    }
    if let Some(short) = stem.strip_suffix("ion").filter(|short| short.len() >= 4 && short.ends_with(['s', 't'])) {
        stem.truncate(short.len());
    }
    match stem.strip_suffix('e') {
        Some(short) if short.len() >= 3 => short.to_owned(),
        _ => stem,
    }
}

fn singular(word: &str) -> String {
    if let Some(short) = word.strip_suffix("ies").filter(|short| short.len() >= 2) {
        return format!("{short}y");
    }
    for end in ["sses", "xes", "ches", "shes", "zes"] {
        if word.ends_with(end) {
            return word[..word.len() - 2].to_owned();
        }
    }
    match word.strip_suffix('s') {
        Some(short) if !short.ends_with(['s', 'u', 'i']) => short.to_owned(),
        _ => word.to_owned(),
    }
}

fn has_vowel(text: &str) -> bool {
    text.contains(['a', 'e', 'i', 'o', 'u', 'y'])
}

/// `stopp` is `stop`; `roll`, `process` and `buzz` stay.
fn single_end(text: &str) -> &str {
    let bytes = text.as_bytes();
    match bytes {
        [.., a, b] if a == b && !matches!(b, b'l' | b's' | b'z') => &text[..text.len() - 1],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_words() {
        assert_eq!(of("kubernetes_get_podLogs"), ["kubernet", "get", "pod", "log"]);
        assert_eq!(of("HTTPServer v2, k8s"), ["http", "server", "v2", "k8s"]);
        assert_eq!(of("What is the p99 latency?"), ["p99", "latency"]);
        assert_eq!(of("Größe — 日本"), ["größe", "日本"]);
        assert!(of(&"x".repeat(100)).is_empty());
    }

    #[test]
    fn what_belongs_together_has_one_stem() {
        for family in [
            &["restart", "restarts", "restarted", "restarting"][..],
            &["deploy", "deploys", "deployed", "deployment", "deployments"],
            &["scale", "scaled", "scaling", "scales"],
            &["configure", "configured", "configuration", "configurations"],
            &["query", "queries"],
            &["stop", "stopped", "stopping"],
            &["validate", "validation", "validated"],
            &["connect", "connection", "connections", "connected"],
            &["create", "creates", "created", "creation"],
            &["silence", "silences", "silenced", "silencing"],
            &["recent", "recently"],
            &["batch", "batches"],
        ] {
            let stems: Vec<String> = family.iter().map(|word| stem(word)).collect();
            assert!(stems.iter().all(|s| *s == stems[0]), "{family:?}: {stems:?}");
        }
        for (one, other) in [("status", "state"), ("pod", "port"), ("node", "not"), ("issue", "use")] {
            assert_ne!(stem(one), stem(other));
        }
    }
}
