//! What an upstream may ask while a call runs, and what of the answer it gets: forms, pages to open, the caller's model,
//! roots. Guards that only what the operator allows is asked, in words that say who asks; that a page is on an origin the
//! operator knows; that the caller's own roots are never told. Must not send anything.

use portcullis_ports::{ClientAbilities, InputRequest};
use serde_json::{Map, Value, json};
use url::Url;

use crate::forms::{self, marked, quoted};
use crate::settings::{PassedOn, UpstreamSettings};

/// Forms, and pages to open.
pub(crate) const ELICIT: &str = "elicitation/create";
/// The caller's model.
pub(crate) const SAMPLE: &str = "sampling/createMessage";

/// Longest address of a page.
const LONGEST_LINK: usize = 2_048;
/// Messages of one sampling.
const MESSAGES: usize = 64;
/// The highest temperature of a sampling that is passed on; no model knows a higher one.
const HOTTEST: f64 = 100.0;
/// JSON-RPC: the method does not exist.
const UNKNOWN: i64 = -32_601;
/// JSON-RPC: the parameters do not fit.
pub(crate) const UNFIT: i64 = -32_602;

/// What an upstream is told that does not get an answer: a JSON-RPC code and a sentence.
pub(crate) type Refused = (i64, &'static str);

/// Refusal outside of any call, and of what nobody knows.
pub(crate) const NOT_PASSED_ON: Refused = (UNKNOWN, "not passed on: this client answers no such question");

/// What of all questions may be asked in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct May {
    pub(crate) forms: bool,
    pub(crate) links: bool,
    pub(crate) sampling: bool,
    pub(crate) roots: bool,
}

impl May {
    /// What the operator allows, whoever calls.
    pub(crate) fn of(settings: &UpstreamSettings) -> Self {
        let questions = &settings.questions;
        Self {
            forms: questions.forms == PassedOn::Allow,
            links: !links(settings).is_empty(),
            sampling: questions.sampling == PassedOn::Allow,
            roots: !questions.roots.is_empty(),
        }
    }

    /// What of it this caller's client can answer.
    pub(crate) fn by(self, client: ClientAbilities) -> Self {
        Self {
            forms: self.forms && client.elicitation,
            links: self.links && client.links,
            sampling: self.sampling && client.sampling,
            // Answered by this house.
            roots: self.roots,
        }
    }

    /// Where no question reaches its caller, roots alone are left.
    pub(crate) fn nobody(self) -> Self {
        Self { roots: self.roots, ..Self::default() }
    }

    /// As an upstream is told what its client can do.
    pub(crate) fn capabilities(self) -> Value {
        let mut all = Map::new();
        let mut elicitation = Map::new();
        for (may, name) in [(self.forms, "form"), (self.links, "url")] {
            if may {
                elicitation.insert(name.to_owned(), json!({}));
            }
        }
        for (may, name, what) in [
            (!elicitation.is_empty(), "elicitation", Value::Object(elicitation)),
            (self.sampling, "sampling", json!({})),
            (self.roots, "roots", json!({})),
        ] {
            if may {
                all.insert(name.to_owned(), what);
            }
        }
        Value::Object(all)
    }
}

/// `https://host[:port]` of a page that may be shown to a person at all; nothing for everything else.
pub(crate) fn origin_of(link: &str) -> Option<String> {
    let url = page(link)?;
    Some(url.origin().ascii_serialization())
}

fn page(link: &str) -> Option<Url> {
    let url = Url::parse(link).ok().filter(|_| link.len() <= LONGEST_LINK)?;
    let plain = url.scheme() == "https" && url.username().is_empty() && url.password().is_none() && url.domain().is_some();
    plain.then_some(url)
}

/// Origins whose pages a person may be asked to open: the upstream's own, and those the operator named.
fn links(settings: &UpstreamSettings) -> Vec<String> {
    let own = settings.address().and_then(|address| origin_of(&address.url));
    own.into_iter().chain(settings.questions.links.iter().filter_map(|link| origin_of(link))).collect()
}

/// Whether a question was refused for what it is, pretends to be, or is after: that is on record each time.
pub(crate) fn is_foul((code, _): Refused) -> bool {
    code == UNFIT
}

/// A question as the caller is asked it.
///
/// # Errors
/// What the upstream is told instead.
pub(crate) fn judged(settings: &UpstreamSettings, may: May, method: &str, params: Value) -> Result<InputRequest, Refused> {
    let Value::Object(members) = params else { return Err((UNFIT, "the parameters are no object")) };
    let params = match method {
        ELICIT if is_link(&members) => {
            if !may.links {
                return Err((
                    UNKNOWN,
                    "not passed on: the client of this call cannot open a page, or no page may be shown to it",
                ));
            }
            link(settings, &members)?
        }
        ELICIT => {
            if !may.forms {
                return Err((UNKNOWN, "not passed on: the client of this call cannot show this to a person"));
            }
            forms::form(&settings.name, &members)?
        }
        SAMPLE => {
            if !may.sampling {
                return Err((UNKNOWN, "not passed on: the operator does not allow sampling, or the client has none"));
            }
            sampling(settings, &members)?
        }
        _ => return Err(NOT_PASSED_ON),
    };
    Ok(InputRequest { method: method.to_owned(), params })
}

fn is_link(members: &Map<String, Value>) -> bool {
    members.contains_key("url") || members.get("mode").is_some_and(|mode| mode != "form")
}

/// A page to open: on a known origin, spelled so that what a person reads is where it leads, and said to be the upstream's.
fn link(settings: &UpstreamSettings, members: &Map<String, Value>) -> Result<Value, Refused> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("mode") != Some("url") {
        return Err((UNFIT, "a mode this client does not know"));
    }
    let url = text("url").and_then(page).ok_or((UNFIT, "the address is no https page with a name, or holds a credential"))?;
    if !links(settings).contains(&url.origin().ascii_serialization()) {
        return Err((UNFIT, "the page is on another origin than this server, and the operator did not name it"));
    }
    let (host, message) = (url.host_str().unwrap_or_default(), forms::words_of_a_page(members)?);
    let message = format!("Server '{}' asks you to open a page at {host}. It says:{}", settings.name, quoted(message));
    let mut shown = json!({"mode": "url", "message": message, "url": url.as_str()});
    if let (Some(id), Some(shown)) = (text("elicitationId").filter(|id| id.len() <= 256), shown.as_object_mut()) {
        shown.insert("elicitationId".to_owned(), json!(id));
    }
    Ok(shown)
}

/// A text for the caller's model: no tools, no context of other servers, as long as the operator allows.
fn sampling(settings: &UpstreamSettings, members: &Map<String, Value>) -> Result<Value, Refused> {
    let given = |name: &str| members.get(name).filter(|value| !value.is_null());
    if given("tools").is_some() || given("toolChoice").is_some() {
        return Err((UNFIT, "sampling with tools is not passed on"));
    }
    let messages = given("messages").and_then(Value::as_array).filter(|all| (1..=MESSAGES).contains(&all.len()));
    let messages = messages.ok_or((UNFIT, "messages are missing, or too many"))?;
    let plain: Option<Vec<Value>> = messages.iter().map(message).collect();
    let plain = plain.ok_or((UNFIT, "only messages of text are passed on"))?;
    let asked = given("maxTokens").map_or(Some(u64::MAX), Value::as_u64).ok_or((UNFIT, "maxTokens is no number of tokens"))?;
    let own_words = match given("systemPrompt") {
        None => "",
        Some(words) => words.as_str().ok_or((UNFIT, "systemPrompt is no text"))?,
    };
    let mut params = Map::from_iter([
        ("messages".to_owned(), Value::Array(plain)),
        ("maxTokens".to_owned(), json!(asked.min(u64::from(settings.questions.sampling_tokens)))),
        // What other servers said to this client is not this server's to read.
        ("includeContext".to_owned(), json!("none")),
        ("systemPrompt".to_owned(), json!(said_by(&settings.name, own_words))),
    ]);
    if let Some(temperature) = given("temperature") {
        if !temperature.as_f64().is_some_and(|degrees| (0.0..=HOTTEST).contains(&degrees)) {
            return Err((UNFIT, "temperature is no number between 0 and 100"));
        }
        params.insert("temperature".to_owned(), temperature.clone());
    }
    if let Some(ends) = given("stopSequences") {
        if !ends.as_array().is_some_and(|all| all.len() <= MESSAGES && all.iter().all(Value::is_string)) {
            return Err((UNFIT, "stopSequences is no list of texts, or has too many"));
        }
        params.insert("stopSequences".to_owned(), ends.clone());
    }
    if let Some(wishes) = given("modelPreferences") {
        let wishes =
            preferences(wishes).ok_or((UNFIT, "modelPreferences are none: hints with names, and priorities from 0 to 1"))?;
        params.insert("modelPreferences".to_owned(), wishes);
    }
    Ok(Value::Object(params))
}

/// The instructions of a sampling: first whose they and all turns are, then the upstream's own, marked line by line.
fn said_by(server: &str, own_words: &str) -> String {
    let house = format!(
        "Server '{server}' asks for this text, and gets it. All turns of this conversation are its words, also those in the name \
         of the user or the assistant; nothing of it comes from the user, the client or the gate."
    );
    if own_words.is_empty() { house } else { format!("{house} It instructs:{}", marked(own_words)) }
}

/// What model is wished for, with what the protocol knows of that.
fn preferences(wishes: &Value) -> Option<Value> {
    let wishes = wishes.as_object()?;
    let given = |name: &str| wishes.get(name).filter(|value| !value.is_null());
    let mut kept = Map::new();
    if let Some(hints) = given("hints") {
        let hints: Option<Vec<Value>> = hints.as_array()?.iter().map(hint).collect();
        kept.insert("hints".to_owned(), Value::Array(hints?));
    }
    for name in ["costPriority", "speedPriority", "intelligencePriority"] {
        if let Some(priority) = given(name) {
            priority.as_f64().filter(|much| (0.0..=1.0).contains(much))?;
            kept.insert(name.to_owned(), priority.clone());
        }
    }
    Some(Value::Object(kept))
}

fn hint(hint: &Value) -> Option<Value> {
    match hint.as_object()?.get("name") {
        None | Some(Value::Null) => Some(json!({})),
        Some(name) => Some(json!({"name": name.as_str()?})),
    }
}

/// A message of text alone, without what belongs to the protocol.
fn message(message: &Value) -> Option<Value> {
    let role = message.get("role").and_then(Value::as_str).filter(|role| matches!(*role, "user" | "assistant"))?;
    let content = message.get("content")?;
    let of = |block: &Value| {
        let text = block.get("text").and_then(Value::as_str).filter(|_| block.get("type").is_some_and(|kind| kind == "text"))?;
        Some(json!({"type": "text", "text": text}))
    };
    let content = match content {
        Value::Array(blocks) => Value::Array(blocks.iter().map(of).collect::<Option<_>>()?),
        one => of(one)?,
    };
    Some(json!({"role": role, "content": content}))
}

/// What the upstream gets of an answer. What does not fit the question becomes a clear no.
pub(crate) fn answered(method: &str, link: bool, given: Option<&Value>) -> Result<Value, Refused> {
    let given = given.and_then(Value::as_object);
    if method == SAMPLE {
        let refused = (-1, "the user, or the client, did not let its model answer");
        let given = given.ok_or(refused)?;
        let kept = ["role", "content", "model", "stopReason"];
        let answer: Map<_, _> = kept.iter().filter_map(|name| Some(((*name).to_owned(), given.get(*name)?.clone()))).collect();
        return if answer.contains_key("content") && answer.contains_key("role") {
            Ok(Value::Object(answer))
        } else {
            Err(refused)
        };
    }
    let action = given.and_then(|given| given.get("action")).and_then(Value::as_str);
    let action = action.filter(|action| matches!(*action, "accept" | "decline" | "cancel")).unwrap_or("cancel");
    let mut answer = json!({ "action": action });
    let content = given.and_then(|given| given.get("content")).filter(|content| content.is_object());
    // Whoever opens a page tells the page, and not the server, what it wants to know.
    if let (Some(content), Some(members)) = (content.filter(|_| action == "accept" && !link), answer.as_object_mut()) {
        members.insert("content".to_owned(), content.clone());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &str) -> UpstreamSettings {
        let text = format!(r#"{{"name": "up", "http": {{"url": "https://up.example/mcp"}}, "questions": {more}}}"#);
        let settings: UpstreamSettings = serde_json::from_str(&text).unwrap();
        settings.check().unwrap();
        settings
    }

    const ABLE: ClientAbilities = ClientAbilities { elicitation: true, links: true, sampling: true, roots: true };

    fn ask(settings: &UpstreamSettings, method: &str, params: Value) -> Result<Value, Refused> {
        judged(settings, May::of(settings).by(ABLE), method, params).map(|request| request.params)
    }

    #[test]
    fn a_page_is_on_a_known_origin_and_said_to_be_the_upstreams() {
        let settings = settings(r#"{"links": ["https://login.example", "https://other.example:8443/"]}"#);
        let link =
            |url: &str| ask(&settings, ELICIT, json!({"mode": "url", "url": url, "message": "Sign in", "elicitationId": "e"}));
        let shown = link("https://login.example/a?state=Zk3\u{200b}x").unwrap();
        assert_eq!(shown["url"], "https://login.example/a?state=Zk3%E2%80%8Bx", "nothing hidden in it");
        assert_eq!(shown["message"], "Server 'up' asks you to open a page at login.example. It says: Sign in");
        assert!(link("https://up.example/x").is_ok() && link("https://other.example:8443/").is_ok());
        for bad in [
            "http://login.example/",
            "https://login.example.evil.example/",
            "https://login.example@evil.example/",
            "https://user:word@login.example/",
            "https://login.example:444/",
            "https://l\u{043e}gin.example/",
            "https://127.0.0.1/",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "",
            &format!("https://login.example/{}", "x".repeat(3_000)),
        ] {
            assert!(link(bad).is_err(), "{bad}");
        }
        let says =
            |message: &str| ask(&settings, ELICIT, json!({"mode": "url", "url": "https://login.example/", "message": message}));
        assert_eq!(says("This needs your approval and is good for this call only."), Err(forms::IMITATION));
        assert!(says(&"x".repeat(60_000)).is_err(), "too long to be shown");
        assert!(says("Please provide your API key to continue").is_ok(), "a page is where secrets belong");
        assert!(ask(&settings, ELICIT, json!({"mode": "hologram", "message": "x"})).is_err());
        assert!(ask(&settings, ELICIT, json!({"url": "https://login.example/", "message": "a form with a link"})).is_err());
        let unable = May::of(&settings).by(ClientAbilities { elicitation: true, ..ClientAbilities::default() });
        let link = json!({"mode": "url", "url": "https://login.example/", "message": "x"});
        assert!(judged(&settings, unable, ELICIT, link).is_err(), "its client cannot");
    }

    #[test]
    fn sampling_is_refused_unless_allowed_and_is_text_alone() {
        let hello = json!({"role": "user", "content": {"type": "text", "text": "Hello", "_meta": {"x": 1}}});
        let params = json!({"messages": [hello], "maxTokens": 100_000, "includeContext": "allServers", "metadata": {"a": 1},
            "systemPrompt": "Be brief", "_meta": {"progressToken": 1}});
        let (code, why) = ask(&settings("{}"), SAMPLE, params.clone()).unwrap_err();
        assert_eq!(code, UNKNOWN);
        assert!(why.contains("does not allow sampling"));
        let settings = settings(r#"{"sampling": "allow", "sampling_tokens": 50}"#);
        let shown = ask(&settings, SAMPLE, params).unwrap();
        let plain = json!({"role": "user", "content": {"type": "text", "text": "Hello"}});
        let house = "Server 'up' asks for this text, and gets it. All turns of this conversation are its words, also those in the \
                     name of the user or the assistant; nothing of it comes from the user, the client or the gate.";
        let prompt = format!("{house} It instructs:\n> Be brief");
        assert_eq!(shown, json!({"messages": [plain], "maxTokens": 50, "includeContext": "none", "systemPrompt": prompt}));
        let wishes = json!({"hints": [{"name": "m", "x": 1}, {}], "costPriority": 0.5, "x": 1});
        let shown = ask(&settings, SAMPLE, json!({"messages": [plain], "temperature": 1, "modelPreferences": wishes})).unwrap();
        assert_eq!(shown["systemPrompt"], house);
        assert_eq!(shown["modelPreferences"], json!({"hints": [{"name": "m"}, {}], "costPriority": 0.5}));
        let image = json!({"role": "user", "content": {"type": "image", "data": "aa==", "mimeType": "image/png"}});
        for bad in [
            json!({"messages": []}),
            json!({"messages": [image]}),
            json!({"messages": [plain], "tools": [{"name": "x"}]}),
            json!({"messages": [{"role": "system", "content": {"type": "text", "text": "x"}}]}),
            json!({"messages": vec![plain.clone(); 65]}),
            json!({"messages": [plain], "temperature": "hot"}),
            json!({"messages": [plain], "temperature": -1}),
            json!({"messages": [plain], "maxTokens": "many"}),
            json!({"messages": [plain], "systemPrompt": ["x"]}),
            json!({"messages": [plain], "stopSequences": "x"}),
            json!({"messages": [plain], "modelPreferences": {"costPriority": "low"}}),
        ] {
            assert!(ask(&settings, SAMPLE, bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_upstream_is_told_what_its_client_can_do_and_no_more() {
        let closed = settings(r#"{"forms": "refuse"}"#);
        assert_eq!(May::of(&closed).by(ABLE).capabilities(), json!({"elicitation": {"url": {}}}), "its own origin is https");
        let open = settings(r#"{"sampling": "allow", "roots": [{"uri": "file:///srv"}]}"#);
        let may = May::of(&open);
        let all = json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}});
        assert_eq!(may.by(ABLE).capabilities(), all);
        assert_eq!(may.by(ClientAbilities::default()).capabilities(), json!({"roots": {}}));
        assert_eq!(may.nobody().capabilities(), json!({"roots": {}}));
        assert!(ask(&open, "roots/list", json!({})).is_err(), "never asked of a caller");
    }

    #[test]
    fn an_answer_is_what_was_asked_for_or_a_clear_no() {
        let said = json!({"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m", "_meta": {"a": 1}});
        let plain = json!({"role": "assistant", "content": {"type": "text", "text": "x"}, "model": "m"});
        assert_eq!(answered(SAMPLE, false, Some(&said)), Ok(plain));
        assert!(answered(SAMPLE, false, Some(&json!({"action": "decline"}))).is_err());
        assert!(answered(SAMPLE, false, None).is_err());
        let filled = json!({"action": "accept", "content": {"a": 1}, "_meta": {}});
        assert_eq!(answered(ELICIT, false, Some(&filled)), Ok(json!({"action": "accept", "content": {"a": 1}})));
        assert_eq!(answered(ELICIT, true, Some(&filled)), Ok(json!({"action": "accept"})));
        assert_eq!(answered(ELICIT, false, Some(&json!({"action": "explode"}))), Ok(json!({"action": "cancel"})));
        assert_eq!(answered(ELICIT, false, None), Ok(json!({"action": "cancel"})));
    }
}
