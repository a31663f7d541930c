//! Addresses inside of what an upstream answers. Guards that none of them says it is of this house or of another upstream, that
//! what was read is what was asked for, and that none is a script. Must not look into texts, which are framed as data.

use portcullis_model::Fault;
use portcullis_policy::Permit;
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization as _;

use crate::definition::Kind;
use crate::drive::Answered;
use crate::server::Server;
use crate::templates::pattern_of;
use crate::watch::shown;

/// What stands where an address of this house was.
const OF_THE_HOUSE: &str = "withheld:address-of-this-server";
/// What stands where an address of another upstream was.
const OF_ANOTHER: &str = "withheld:address-of-another-upstream";
/// What stands where a script was.
const SCRIPT: &str = "withheld:script";

/// Whose addresses may not stand in an answer.
struct Judge<'j> {
    is_anothers: &'j dyn Fn(&str) -> bool,
    /// Addresses that were taken out.
    withheld: usize,
    /// Icons that were left out.
    icons: usize,
}

/// What a client would read of an address.
fn read_of(address: &str) -> impl Iterator<Item = char> {
    address.chars().filter(|c| !portcullis_model::is_blank(*c) && !c.is_control() && !portcullis_guard::is_hidden(*c))
}

/// What ends the scheme of an address, as it is and as wide as an ideograph.
const COLONS: [char; 2] = [':', '\u{ff1a}'];
/// Most characters of an address in which its scheme is looked for.
const HEAD: usize = 64;
/// How deep `_meta` is looked into.
const DEEPEST: usize = 4;

/// Whether an address holds no blanks and nothing nobody sees.
pub(crate) fn is_plain(address: &str) -> bool {
    read_of(address).eq(address.chars())
}

/// A scheme in the letters it is usually written in.
fn usual_scheme(scheme: &str) -> String {
    scheme.nfkc().collect::<String>().to_lowercase()
}

/// The scheme of an address.
fn scheme(address: &str) -> String {
    let head: String = read_of(address).take(HEAD).collect();
    usual_scheme(head.split(COLONS).next().unwrap_or_default())
}

/// An address, or a template of some, with its scheme in the usual spelling and without blanks and what nobody sees.
pub(crate) fn with_usual_scheme(address: &str) -> String {
    let clean: String = read_of(address).collect();
    let (scheme, rest) = clean.split_once(COLONS).unwrap_or((clean.as_str(), ""));
    format!("{}:{rest}", usual_scheme(scheme))
}

/// One spelling of an address, for comparing: with the usual scheme, without a fragment and slashes at its end, and nothing
/// percent-encoded that need not be (RFC 3986, 6.2.2), letters and their accents as one character (RFC 3987, 5.3.2.2).
pub(crate) fn usual(address: &str) -> String {
    let address = with_usual_scheme(address);
    let whole = address.split('#').next().unwrap_or_default();
    without_needless_codes(whole).trim_end_matches('/').nfc().collect()
}

/// The spellings in which an address that is read may belong to a template of somebody else.
pub(crate) fn spellings(address: &str) -> [String; 3] {
    [address.to_owned(), with_usual_scheme(address), usual(address)]
}

/// A text in which only what has to be is percent-encoded.
fn without_needless_codes(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                plain.push(char::from(byte));
                rest = &after[2..];
            }
            Some(_) => {
                plain.push('%');
                plain.push_str(&after[..2].to_ascii_uppercase());
                rest = &after[2..];
            }
            None => {
                plain.push('%');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Whether what is inside of a `data:` address may be run.
fn is_script(address: &str) -> bool {
    let head: String = read_of(address).take_while(|c| *c != ',').take(HEAD * 4).collect();
    let head = head.to_ascii_lowercase();
    ["html", "xml", "svg", "script"].iter().any(|kind| head.contains(kind))
}

/// Whether something is run when a client follows an address, whatever is found there.
fn runs(address: &str) -> bool {
    match scheme(address).as_str() {
        "javascript" | "vbscript" | "view-source" => true,
        "data" => is_script(address),
        _ => false,
    }
}

/// Whether no resource can have this address, or addresses of this family, because it is a script or may become one.
pub(crate) fn is_no_resource(kind: Kind, address: &str) -> bool {
    match kind {
        Kind::Resource => runs(address),
        Kind::Template => runs(address) || scheme(address) == "data",
        Kind::Tool | Kind::Prompt | Kind::Protocol => false,
    }
}

/// Whether an address can stand for a picture.
fn is_picture(address: &str) -> bool {
    match scheme(address).as_str() {
        "https" => true,
        "data" => address.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("data:image/")),
        _ => false,
    }
}

impl Judge<'_> {
    /// What has to stand in the place of an address.
    fn instead(&self, address: &str) -> Option<&'static str> {
        match scheme(address).as_str() {
            "portcullis" => Some(OF_THE_HOUSE),
            _ if runs(address) => Some(SCRIPT),
            "data" => None,
            _ => (self.is_anothers)(address).then_some(OF_ANOTHER),
        }
    }

    /// Looks at one address.
    fn address(&mut self, address: &mut String) {
        if let Some(instead) = self.instead(address) {
            instead.clone_into(address);
            self.withheld += 1;
        }
    }

    /// Looks at what tells a client which resource to show beside a result.
    fn meta(&mut self, members: &mut Map<String, Value>) {
        if let Some(Value::Object(meta)) = members.get_mut("_meta") {
            self.views(meta, 0);
        }
    }

    fn views(&mut self, members: &mut Map<String, Value>, depth: usize) {
        for (name, value) in members {
            match value {
                Value::String(address) if name.ends_with("resourceUri") || name.ends_with("outputTemplate") => {
                    self.address(address);
                }
                Value::Object(inside) if depth < DEEPEST => self.views(inside, depth + 1),
                _ => {}
            }
        }
    }

    /// Looks at a resource, or a link to one.
    fn resource(&mut self, members: &mut Map<String, Value>) {
        self.icons(members);
        self.meta(members);
        if let Some(Value::String(address)) = members.get_mut("uri") {
            self.address(address);
        }
    }

    /// Looks at the icons of a resource.
    fn icons(&mut self, members: &mut Map<String, Value>) {
        if let Some(Value::Array(icons)) = members.get_mut("icons") {
            let before = icons.len();
            icons.retain(|icon| icon.get("src").and_then(Value::as_str).is_some_and(is_picture));
            self.icons += before - icons.len();
        }
    }

    /// Looks at a block of content, or several.
    fn content(&mut self, content: &mut Value) {
        match content {
            Value::Array(blocks) => blocks.iter_mut().for_each(|block| self.content(block)),
            Value::Object(block) => {
                self.resource(block);
                if let Some(Value::Object(resource)) = block.get_mut("resource") {
                    self.resource(resource);
                }
                // The result of a tool, inside of a message.
                if let Some(inside) = block.get_mut("content") {
                    self.content(inside);
                }
            }
            _ => {}
        }
    }
}

/// Whether an address is below another one.
fn is_below(address: &str, asked: &str) -> bool {
    let below = address.strip_prefix(asked.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
    below && !decoded(address).split(['/', '\\']).any(|part| part == "..")
}

/// A text without percent-encoding. What is none stays as it is.
pub(crate) fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether two addresses are the same but for percent-encoding and a slash at the end.
fn is_same(one: &str, other: &str) -> bool {
    decoded(one).trim_end_matches('/') == decoded(other).trim_end_matches('/')
}

impl Server {
    /// Binds the addresses in an answer, of which `asked` was read. What was replaced or left out is on the record of the call.
    pub(crate) fn bind(
        &self,
        permit: &Permit,
        method: &str,
        asked: Option<&str>,
        mut answered: Answered,
    ) -> Result<Answered, Fault> {
        let Answered::Done(members) = &mut answered else { return Ok(answered) };
        let whose = self.neighbourhood.whose(&self.name);
        let is_anothers = |address: &str| whose.withholds(address);
        let mut judge = Judge { is_anothers: &is_anothers, withheld: 0, icons: 0 };
        judge.meta(members);
        match method {
            "tools/call" | "prompts/get" => {
                if let Some(content) = members.get_mut("content") {
                    judge.content(content);
                }
                for message in members.get_mut("messages").and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Some(content) = message.get_mut("content") {
                        judge.content(content);
                    }
                }
            }
            "resources/read" => {
                for read in members.get_mut("contents").and_then(Value::as_array_mut).into_iter().flatten() {
                    let Value::Object(read) = read else { continue };
                    // With that its address is its own, also one that an operator took from somebody else.
                    self.bind_contents(asked.unwrap_or_default(), read, &judge)?;
                    judge.icons(read);
                    judge.meta(read);
                }
            }
            _ => {}
        }
        let Judge { withheld, icons, .. } = judge;
        if withheld > 0 {
            permit.trail().note(format!("{withheld} addresses that are not the upstream's to give were taken out of its answer"));
        }
        if icons > 0 {
            permit.trail().note(format!("{icons} icons that are no pictures were left out of the answer"));
        }
        Ok(answered)
    }

    /// What was read has the address that was asked for, or one below it, or another one of this upstream.
    fn bind_contents(&self, asked: &str, read: &mut Map<String, Value>, judge: &Judge<'_>) -> Result<(), Fault> {
        let Some(Value::String(address)) = read.get_mut("uri") else { return Ok(()) };
        if address == asked {
            return Ok(());
        }
        if is_same(address, asked) {
            asked.clone_into(address);
            return Ok(());
        }
        if judge.instead(address).is_none() && (is_below(address, asked) || self.offers_address(address)) {
            return Ok(());
        }
        Err(Fault::backend(
            format!("upstream '{}' answered with a resource that it was not asked for", self.name),
            format!("asked for '{}', and it answered with '{}'", shown(asked), shown(address)),
        ))
    }

    /// Whether an address is one that is in use of this upstream.
    fn offers_address(&self, address: &str) -> bool {
        let Some(pins) = self.pins.get() else { return false };
        let fits = |template: &str| pattern_of(template).is_some_and(|pattern| pattern.is_match(address));
        pins.digest_in_use(Kind::Resource, address).is_some()
            || pins.in_use(Kind::Template).iter().any(|(template, _)| fits(template))
    }

    /// Takes out of a definition which resource a client shows beside its results, where that is none of this upstream, and
    /// icons that are no pictures.
    pub(crate) fn bind_definition(&self, definition: &mut Value) {
        let whose = self.neighbourhood.whose(&self.name);
        let is_anothers = |address: &str| whose.withholds(address);
        let mut judge = Judge { is_anothers: &is_anothers, withheld: 0, icons: 0 };
        if let Value::Object(members) = definition {
            judge.meta(members);
            judge.icons(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_of_the_house_of_others_and_scripts_are_taken_out_of_every_place() {
        let is_anothers = |address: &str| usual(address) == "note://of-another";
        let mut judge = Judge { is_anothers: &is_anothers, withheld: 0, icons: 0 };
        let icons = json!([{"src": "javascript:alert(1)"}, {"src": "http://a/b.png"}, {"src": "data:text/html,x"}, {"no": 1},
            {"src": "https://a/b.png"}, {"src": "data:image/png;base64,aa=="}]);
        let mut content = json!([
            {"type": "text", "text": "portcullis://guide"},
            {"type": "resource", "resource": {"uri": "PortCullis://guide", "text": "x"}},
            {"type": "resource_link", "uri": " port\tcullis://guide", "name": "x", "icons": icons},
            {"type": "resource_link", "uri": "note://of-\u{200b}another", "name": "x"},
            {"type": "resource_link", "uri": "JavaScript:alert(1)", "name": "x"},
            {"type": "tool_result", "content": [{"type": "resource_link", "uri": "portcullis:x"}]},
            {"type": "resource_link", "uri": "note://own", "name": "x"},
        ]);
        judge.content(&mut content);
        assert_eq!((judge.withheld, judge.icons), (5, 4));
        assert_eq!(content[0]["text"], "portcullis://guide", "texts are framed");
        assert_eq!(content[1]["resource"]["uri"], OF_THE_HOUSE);
        assert_eq!(content[2]["uri"], OF_THE_HOUSE);
        assert_eq!(content[2]["icons"].as_array().unwrap().len(), 2);
        assert_eq!((&content[3]["uri"], &content[4]["uri"]), (&json!(OF_ANOTHER), &json!(SCRIPT)));
        assert_eq!(content[5]["content"][0]["uri"], OF_THE_HOUSE);
        assert_eq!(content[6]["uri"], "note://own");
    }

    #[test]
    fn scripts_and_addresses_of_the_house_are_known_in_every_spelling_and_place() {
        let is_anothers = |_: &str| false;
        let mut judge = Judge { is_anothers: &is_anothers, withheld: 0, icons: 0 };
        for (address, instead) in [
            ("view-source:javascript:x", Some(SCRIPT)),
            ("data:text/html,<script>", Some(SCRIPT)),
            ("DATA:image/svg+xml;base64,aa", Some(SCRIPT)),
            ("data:text/plain,html", None),
            ("\u{ff50}ortcullis://x", Some(OF_THE_HOUSE)),
            ("portcullis\u{ff1a}//x", Some(OF_THE_HOUSE)),
            ("note://x", None),
        ] {
            assert_eq!(judge.instead(address), instead, "{address}");
        }
        let mut block = json!({"_meta": {"ui/resourceUri": "portcullis://a", "openai/outputTemplate": "Portcullis://b",
            "ui": {"resourceUri": "portcullis://c"}, "else": "portcullis://d", "own/resourceUri": "ui://e"}});
        judge.resource(block.as_object_mut().unwrap());
        let meta = &block["_meta"];
        assert_eq!((&meta["ui/resourceUri"], &meta["ui"]["resourceUri"]), (&json!(OF_THE_HOUSE), &json!(OF_THE_HOUSE)));
        assert_eq!((&meta["openai/outputTemplate"], judge.withheld), (&json!(OF_THE_HOUSE), 3));
        assert_eq!((&meta["own/resourceUri"], &meta["else"]), (&json!("ui://e"), &json!("portcullis://d")));
    }

    #[test]
    fn no_resource_has_a_script_for_its_address() {
        for script in ["javascript:alert(1)", " JavaScript:x", "\u{ff4a}avascript:x", "vbscript:x", "data:text/html,x"] {
            assert!(is_no_resource(Kind::Resource, script) && is_no_resource(Kind::Template, script), "{script}");
        }
        assert!(is_no_resource(Kind::Template, "data:{+anything}") && is_no_resource(Kind::Template, "javascript:{x}"));
        for own in ["data:text/plain,x", "note://javascript:x", "file:///a.js"] {
            assert!(!is_no_resource(Kind::Resource, own), "{own}");
        }
    }

    #[test]
    fn one_address_has_one_usual_spelling() {
        for other in ["NOTE://x", " note://x", "note://%78/", "note://x#a", "no\u{200b}te://x", "\u{ff4e}ote://x"] {
            assert_eq!(usual(other), "note://x", "{other:?}");
        }
        assert_eq!(usual("note://a%2fb%"), "note://a%2Fb%", "what separates stays encoded");
        assert_eq!(usual("note://cafe\u{301}"), usual("note://caf\u{e9}"), "an accent is no other letter");
        assert!(is_plain("note://x?q=1"));
        for unseen in [" note://x", "note://x\u{200b}", "note://x\u{2800}"] {
            assert!(!is_plain(unseen), "{unseen:?}");
        }
    }

    #[test]
    fn what_is_below_an_address_is_below_it_to_the_end() {
        assert!(is_below("file:///a/b", "file:///a") && is_below("file:///a/b/c", "file:///a/"));
        for other in ["file:///ab", "file:///a", "file:///a/../b", "file:///a/%2e%2E/b", "note://a/b"] {
            assert!(!is_below(other, "file:///a"), "{other}");
        }
    }

    #[test]
    fn the_same_address_may_be_written_in_two_ways() {
        assert!(is_same("file:///a b/", "file:///a%20b") && !is_same("note://a", "note://b"));
    }
}
