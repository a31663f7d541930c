//! What can be seen in a text before it is read: marks that only texts for models have, comments nobody sees, blank space
//! that pushes something out of sight, addresses that carry something. Linear: expressions without look-around.

use regex::{Regex, RegexBuilder};

use super::reader::Hit;
use super::signs::SIGNS;

/// Marks: what they say, their weight, and how they are written.
const MARKS: &[(&str, u32, &str)] = &[
    (
        "is marked like a message to a model",
        5,
        r#"<\|[a-z_]{2,24}\|>|\[\s*/?\s*inst\s*\]|<<\s*/?\s*sys\s*>>|</?\s*(?:tool_call|function_call|tool_result|tool_response|im_start|im_end|function_results)\s*>|["']role["']\s*:\s*["'](?:system|assistant|developer)["']|<(?:start|end)_of_turn>"#,
    ),
    (
        "is marked like a message to a model",
        9,
        r"</?\s*(?:important|system|secret|hidden|instructions?|admin|critical|assistant|ai|thinking|internal|override|priority|confidential|directive|mandatory|security|model|agent|llm|prompt)(?:[_ -][a-z_ -]{0,30})?\s*/?>|\[\s*/?\s*(?:system|important|hidden|admin|secret|internal|assistant|ai|override|developer|security|model|llm)(?:[_ :-][a-z_ :-]{0,40})?\]|\{\{\s*#?\s*(?:system|assistant)|\{%\s*(?:system|if)",
    ),
    (
        "is marked like a message to a model",
        3,
        r"(?m)^\W{0,12}(?:system|assistant|developer|admin|operator|root|human|end of (?:tool )?(?:description|definition|docs|documentation|prompt|instructions)|begin (?:system|admin|instructions?|hidden|override))(?: (?:note|notice|message|prompt|instructions?|override|update|alert|directive|policy|command))?\s*[:>=\]-]",
    ),
    (
        "is marked like a message to a model",
        2,
        r"(?m)^\s*#{1,6}\s*(?:system|instructions?|rules?|important|hidden|admin|override|new task)\b",
    ),
    (
        "holds what is not shown",
        5,
        r"(?i)<!--|^\s*\[//\]\s*:|\[comment\]\s*:\s*[<#]|display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|color\s*:\s*(?:white|transparent|#fff)|opacity\s*:\s*0\b|<details>|aria-hidden|<template>|%%\[|\bhidden\s*=\s*[\x22']?(?:true|hidden)",
    ),
    (
        "has blank space that pushes something out of sight",
        2,
        r"[ \t\x{a0}\x{3000}\x{2800}]{60,}\S+[ \t]+\S+|(?:\r?\n[ \t]*){12,}\S+[ \t]+\S+|(?:\.\s*){30,}\w|(?:\\n){8,}",
    ),
    (
        "names an address that carries something",
        5,
        r"https?://[^\s\x22'<>)]{1,200}[?&/=](?:[a-z_]{0,20}=)?(?:\{[a-z_ ]{0,30}\}|<[a-z_ ]{1,30}>|\$\{?[a-z_]{1,30}|\[[a-z_ ]{1,30}\])",
    ),
    ("names an address that carries something", 5, r"!\[[^\]]{0,80}\]\(\s*https?://"),
    (
        "names an address that carries something",
        2,
        r"https?://[^\s\x22'<>)]{1,200}[?&](?:d|q|data|log|c|payload|token|key|exfil|leak|info|ctx|body|m|x)=(?:\s|$|[\x22'`])",
    ),
    (
        "hands a command to a shell",
        5,
        r"\bcurl\b[^|\n]{0,200}\|\s*(?:ba|z)?sh\b|\bwget\b[^|\n]{0,200}\|\s*(?:ba|z)?sh\b|\|\s*base64\b|\$\((?:cat|env|curl|whoami|printenv)|\bcurl\b[^\n]{0,120}\s(?:-d|--data|-F|-T|--upload-file|--data-binary)\b|`(?:cat|env|printenv|whoami)\b[^`]{0,80}`|>\s*/dev/tcp/|\bnc\s+-e\b|rm\s+-rf\s+[~/]",
    ),
    (
        "names files that hold secrets",
        7,
        r"(?:~|\$home|%userprofile%|/hom[e]/[a-z0-9_*<>{}-]{1,32}|/root|/users/[a-z0-9_*<>{}-]{1,32})[/\\]\.(?:ssh|aws|gnupg|netrc|npmrc|pypirc|git-credentials|bash_history|zsh_history|cursor|claude|config[/\\](?:gh|gcloud|claude)|docker[/\\]config|azure|env|pgpass|vault-token|password-store|mozilla|codex|gemini|local[/\\]share[/\\]keyrings)|/etc/(?:passwd|shadow|sudoers|kubernetes)|\bid_(?:rsa|ed25519|ecdsa|dsa)\b|(?:claude_desktop_config|mcp|mcp_config|mcp_settings)\.json|/proc/self/environ|169\.254\.169\.254|\.aws/credentials|wallet\.dat|login data|cookies\.sqlite|\bntds\.dit|\.tfstate",
    ),
    (
        "names files that hold secrets",
        0,
        r"(?:^|[\s`'\x22(/])\.env\b|~/\.kube|kubeconfig|\.pem\b|secrets\.ya?ml|credentials\.json",
    ),
    (
        "presses or threatens",
        0,
        r"(?-i:\b(?:IMPORTANT|CRITICAL|MANDATORY|WARNING|URGENT|ATTENTION|MUST|ALWAYS|NEVER|REQUIRED|FIRST|BEFORE|IMMEDIATELY|DO NOT)\b.{0,120}\b(?:IMPORTANT|CRITICAL|MANDATORY|MUST|ALWAYS|NEVER|REQUIRED|FIRST|BEFORE|ANY|EVERY|ONLY|ALL|DO NOT)\b)",
    ),
];

/// Looks for marks.
pub(super) struct Marks(Vec<(&'static str, u32, Regex)>);

impl Marks {
    /// Builds it.
    ///
    /// # Errors
    /// When a built-in expression does not compile: a defect of this build.
    pub(super) fn new() -> Result<Self, String> {
        let compile = |pattern: &str| {
            RegexBuilder::new(pattern).case_insensitive(true).size_limit(8 << 20).build().map_err(|e| e.to_string())
        };
        let marks = MARKS.iter().map(|(says, weight, pattern)| Ok((*says, *weight, compile(pattern)?)));
        marks.collect::<Result<_, String>>().map(Self)
    }

    /// The marks of a text, at the words where they begin. `index` tells the word at a place in the text.
    pub(super) fn hits(&self, text: &str, index: &dyn Fn(usize) -> usize, hits: &mut Vec<Hit>) {
        for (number, (says, weight, pattern)) in self.0.iter().enumerate() {
            for found in pattern.find_iter(text).take(MOST) {
                let word = index(found.start());
                hits.push(Hit {
                    sign: SIGNS.len() + number,
                    says,
                    weight: *weight,
                    words: (word, index(found.end().saturating_sub(1)).max(word)),
                });
            }
        }
    }
}

/// Places of one mark that are looked at in one text.
const MOST: usize = 16;

/// Addresses of pages and mail boxes become words the lists know.
pub(super) fn name_addresses(text: &str, addresses: &Regex) -> String {
    addresses
        .replace_all(text, |found: &regex::Captures<'_>| {
            // As long as before, so that places stay where they are.
            let word = if found[0].contains('@') && !found[0].contains("://") { "zzbox" } else { "zzurlz" };
            format!("{word}{}", " ".repeat(found[0].len().saturating_sub(word.len())))
        })
        .into_owned()
}

/// Addresses, for [`name_addresses`]: none is shorter than its word.
pub(super) const ADDRESSES: &str = r"(?i)\b(?:https?|ftp|wss?)://[^\s\x22'<>)\]]{3,400}|\b[a-z0-9._+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,4}\b|\b(?:\d{1,3}\.){3}\d{1,3}:\d{2,5}\b";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_word_and_every_place_stays() {
        let addresses = Regex::new(ADDRESSES).unwrap();
        for (text, named) in [
            ("to a@b.c now", "to zzbox now"),
            ("to me@example.com now", "to zzbox          now"),
            ("at ws://abc now", "at zzurlz   now"),
            ("at 1.1.1.1:22 now", "at zzurlz     now"),
        ] {
            assert_eq!(name_addresses(text, &addresses), named, "{text}");
            assert_eq!(text.len(), named.len(), "{text}");
        }
    }
}
