//! What a call would do, before it is made: the answer to a dry run, and what the person who is asked for a yes is shown.
//!
//! Guards that the present state is read only by callers whom the same rules let read it, by the tool that reads it. Must not
//! let the work itself run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_guard::is_hidden;
use portcullis_model::{Fault, FaultCode, Secret, cut};
use portcullis_policy::Permit;
use portcullis_ports::{
    Answers, Arguments, Change, ClientAbilities, Content, DRY_RUN, Exchange, NoticeLevel, Outcome, Output, Preview,
    PreviewedBody, PreviewedRequest, Sight, Tool,
};
use portcullis_shape::{Differences, differences};
use serde_json::{Map, Value, json};

use crate::Caller;
use crate::exchange::ClientHeaders;
use crate::gate::{Gateway, House};
use crate::profiles::Judgement;
use crate::reach::Stood;
use crate::record::Journey;
use crate::steps::Deed;

/// How much of a preview is shown.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Differences.
    differences: usize,
    /// Characters of a value.
    value: usize,
    /// Characters of a body.
    body: usize,
}

/// To who asked for a dry run, and may ask again.
const ANSWERED: Room = Room { differences: 60, value: 300, body: 8_000 };
/// To who decides: as much as can be kept.
const DECIDED: Room = Room { differences: 1_000, value: 8_000, body: 16_000 };
/// How long the person who is to be asked may wait for a preview.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a preview of a call needs besides its permit.
pub(crate) struct Foresight<'a> {
    pub(crate) house: &'a House,
    pub(crate) caller: &'a Caller,
    pub(crate) tool: &'a dyn Tool,
    /// Of the tool the call came through.
    pub(crate) outer: Option<&'a Permit>,
}

/// The client's headers and nothing else: a preview asks and says nothing.
struct Silent<'a>(&'a ClientHeaders);

impl Exchange for Silent<'_> {
    fn progress(&self, _done: f64, _total: Option<f64>, _message: &str) {}
    fn notice(&self, _level: NoticeLevel, _logger: &str, _data: Value) {}
    fn answers(&self) -> Option<&Answers> {
        None
    }
    fn abilities(&self) -> ClientAbilities {
        ClientAbilities::default()
    }
    /// Nobody said anything, so nothing goes on.
    fn outgoing(&self, _value: Value) -> Value {
        Value::Null
    }
    fn header(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }
}

/// The arguments without the wish for a dry run.
fn bare(arguments: &Arguments) -> Arguments {
    let mut arguments = arguments.clone();
    arguments.0.shift_remove(DRY_RUN);
    arguments
}

/// References and combinations of schemas that are followed at most.
const DEEP: usize = 16;

/// Whether a tool itself has an argument of this name: among the properties of its schema, wherever that puts them. What a
/// property of it has inside is no argument of the tool.
fn names(root: &Value, schema: &Value, argument: &str, deep: usize) -> bool {
    let Some(members) = schema.as_object().filter(|_| deep > 0) else { return false };
    let within = |one: &Value| names(root, one, argument, deep - 1);
    members.iter().any(|(keyword, value)| match keyword.as_str() {
        "properties" => value.get(argument).is_some(),
        "allOf" | "anyOf" | "oneOf" => value.as_array().is_some_and(|all| all.iter().any(within)),
        "if" | "then" | "else" => within(value),
        "dependentSchemas" => value.as_object().is_some_and(|all| all.values().any(within)),
        "$ref" => {
            let place = value.as_str().and_then(|place| place.strip_prefix('#'));
            place.and_then(|place| root.pointer(place)).is_some_and(within)
        }
        _ => false,
    })
}

/// A dry run of a tool that has none is refused in plain words, also where its schema lets any argument pass: it would be
/// the work itself.
pub(crate) fn can_be_dry(tool: &dyn Tool, arguments: &Arguments) -> Result<(), Fault> {
    let spec = tool.spec();
    // Whatever is said but `false` is meant as the wish for one.
    let wished = arguments.0.get(DRY_RUN).is_some_and(|said| *said != Value::Bool(false));
    if !wished || tool.previews() || names(&spec.input_schema, &spec.input_schema, DRY_RUN, DEEP) {
        return Ok(());
    }
    let message = format!("'{}' cannot show what a call would do, so there is no dry run of it; nothing was done", spec.name);
    let hint = format!("leave '{DRY_RUN}' out to make the call itself, where that is what you want");
    Err(Fault::new(FaultCode::InvalidArgument, message).with_hint(hint))
}

impl Gateway {
    /// The answer to a dry run, recorded as one.
    pub(crate) async fn dry_run(
        &self,
        foresight: &Foresight<'_>,
        permit: &Permit,
        arguments: &Arguments,
        journey: &mut Journey,
    ) -> Result<Outcome, Fault> {
        journey.note(|end| {
            let said = end.note.take().map_or_else(String::new, |note| format!("; {note}"));
            end.note = Some(format!("dry run{said}"));
        });
        let seen = self.within(permit, journey, self.foresee(foresight, permit, arguments)).await;
        cut::under(&self.releaser.cut_rule(permit, true), || seen.map(|preview| Outcome::Complete(answer(preview))))
    }

    /// What the call would do.
    pub(crate) async fn foresee(
        &self,
        foresight: &Foresight<'_>,
        permit: &Permit,
        arguments: &Arguments,
    ) -> Result<Preview, Fault> {
        let arguments = bare(arguments);
        let reading = self.may_look(foresight, permit, &arguments).await;
        let sight = match &reading {
            Ok(permit) => Sight::Allowed(permit),
            Err(why) => Sight::Closed(why),
        };
        let exchange = Silent(&foresight.caller.headers);
        let preview = foresight.tool.preview(permit, sight, arguments, &exchange).await?;
        preview.ok_or_else(|| Fault::new(FaultCode::Unavailable, "what this call would do cannot be told; nothing was sent"))
    }

    /// A permit to read the present state: of the tool that reads it, by every rule that holds for calling that.
    async fn may_look(&self, foresight: &Foresight<'_>, permit: &Permit, arguments: &Arguments) -> Result<Permit, String> {
        let Foresight { house, caller, tool, outer } = foresight;
        let reading = tool.present_state(arguments).ok_or("no tool reads it")?;
        let closed = || format!("you may not call '{}', which reads it", reading.tool);
        let Stood { entry, arguments } = house.stands_for(caller, &reading).map_err(|_| closed())?;
        let read = self.permit_behind(house, caller, &reading, permit).map_err(|_| closed())?;
        let read = outer.map_or_else(|| read.clone(), |outer| read.within(outer));
        if read.needs_approval() {
            return Err(format!("'{}', which reads it, needs an approval of its own", reading.tool));
        }
        let spec = entry.tool.spec();
        self.admission
            .admit_tool(&caller.principal.id, spec.name.as_str(), spec.risk)
            .await
            .map_err(|_| format!("'{}', which reads it, was called too often", reading.tool))?;
        let deed = Deed::call(&*entry.tool, &arguments);
        let read = read.carrying(caller.token.as_ref());
        let read = match self.profiles.judge(read.principal_id(), deed.habit, &arguments.0) {
            Judgement::Fits => self.profiles.confine(read, deed.habit),
            Judgement::Reported(_) => read,
            Judgement::Refused(_) => return Err(closed()),
        };
        self.ask_outside(&read, &deed).await.map_err(|_| closed())?;
        Ok(read)
    }

    /// What the person who decides is shown of the change: one of these, the first that fits into an answer, each with whether
    /// it is all there is to see. Why not, where it cannot be told: that is no reason not to ask.
    pub(crate) async fn shown(
        &self,
        foresight: &Foresight<'_>,
        permit: &Permit,
        arguments: &Arguments,
    ) -> (Vec<(String, bool)>, Vec<Arc<str>>) {
        let until = permit.deadline().min(Instant::now() + PATIENCE);
        let permit = permit.with_deadline_at_most(until);
        let rule = self.releaser.cut_rule(&permit, true);
        let work = cut::guarding(rule.clone(), self.foresee(foresight, &permit, arguments));
        let seen = tokio::time::timeout_at(until.into(), work).await;
        cut::under(&rule, || match seen {
            Ok(Ok(preview)) => {
                let told = |room: Room| {
                    let (text, whole) = described(&preview, &compared(&preview, room), room);
                    let (answered, all_of_it) = own_words(&preview, room);
                    (text + &answered, whole && all_of_it)
                };
                let (all, part) = (told(DECIDED), told(ANSWERED).0);
                let none = "what would change is too long to be shown".to_owned();
                (vec![all, (part, false), (none, false)], preview.sources)
            }
            Ok(Err(fault)) => (vec![(format!("what would change could not be told: {}", fault.message()), true)], Vec::new()),
            Err(_elapsed) => (vec![("what would change could not be told in time".to_owned(), true)], Vec::new()),
        })
    }
}

/// The answer to a dry run.
fn answer(preview: Preview) -> Output {
    let differences = compared(&preview, ANSWERED);
    let mut text = String::from(match preview.answer {
        None => "dry run: nothing was sent\n",
        Some(_) => "dry run: nothing was done here; this is what the other server answered to a dry run of its own\n",
    });
    text.push_str(&described(&preview, &differences, ANSWERED).0);
    let structured = structured(&preview, &differences);
    let sources = preview.sources;
    match preview.answer {
        None => Output { sources, ..Output::structured(structured, text) },
        Some((_, mut output)) => {
            output.content.insert(0, Content::Text(text));
            Output { sources, ..output }
        }
    }
}

fn compared(preview: &Preview, room: Room) -> Differences {
    match &preview.change {
        Change::Unknown(_) => Differences::default(),
        Change::Known { before, after, .. } => differences(before.as_ref(), after.as_ref(), room.differences),
    }
}

/// Request and change in words, and whether nothing of them is left out. A name stands in front of each value, so that secrets
/// are known by it.
fn described(preview: &Preview, differences: &Differences, room: Room) -> (String, bool) {
    let (mut lines, mut whole) = (Vec::new(), true);
    let mut within = |text: &str| {
        let (shown, is_all) = cut(text, room.body);
        whole &= is_all;
        shown
    };
    for request in &preview.requests {
        lines.push(format!("{} {}", request.method, request.url));
        if let Some(kind) = &request.content_type {
            lines.push(format!("content-type: {kind}"));
        }
        match &request.body {
            PreviewedBody::Empty => {}
            PreviewedBody::Json(value) => lines.push(within(&value.to_string())),
            PreviewedBody::Text(text) => lines.push(within(text)),
            PreviewedBody::Bytes(count) => lines.push(format!("({count} bytes that are no text)")),
        }
    }
    if let Some((by, output)) = &preview.answer {
        lines.push(format!("asked with {by}"));
        if output.failed {
            lines.push("the other server says that it would fail".into());
        }
    }
    match &preview.change {
        Change::Unknown(why) => lines.push(format!("change: not known: {why}")),
        Change::Known { how, .. } if differences.total == 0 => lines.push(format!("change: none ({how})")),
        Change::Known { how, .. } => {
            lines.push(format!("change ({how}):"));
            let (changes, all_shown) = differences.lines_within(room.value);
            whole &= all_shown;
            lines.extend(changes);
        }
    }
    (lines.join("\n"), whole)
}

/// What the other server answered to a dry run of its own, for who decides: each line is marked, so that none looks like a
/// word of the house. And whether it is all there is.
fn own_words(preview: &Preview, room: Room) -> (String, bool) {
    let Some((_, output)) = &preview.answer else { return (String::new(), true) };
    let (mut texts, mut whole) = (Vec::new(), true);
    for content in &output.content {
        match text_of(content) {
            Some(text) => texts.push(text.to_owned()),
            None => whole = false,
        }
    }
    // Content is the same thing for a reader; without any, the structure is all there is.
    if let (true, Some(structured)) = (texts.is_empty(), &output.structured) {
        texts.push(structured.to_string());
    }
    let words = cut::whole(&texts.join("\n")).into_owned();
    let (shown, is_all) = cut(&without_gaps(&words), room.body);
    let mut told = String::from("\nthe other server answers, in its own words:");
    for line in shown.split('\n') {
        told.push_str("\n> ");
        told.push_str(line);
    }
    if !whole {
        told.push_str("\n(and what is no text, which cannot be shown)");
    }
    (told, whole && is_all)
}

/// The lines of a text, with one left of several blank ones, so that what stands behind them is not pushed out of sight.
fn without_gaps(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut was_blank = false;
    for line in text.split(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']) {
        let blank = line.chars().all(|character| character.is_whitespace() || is_hidden(character));
        if !(blank && was_blank) {
            lines.push(line);
        }
        was_blank = blank;
    }
    lines.join("\n")
}

fn text_of(content: &Content) -> Option<&str> {
    match content {
        Content::Text(text) => Some(text),
        Content::Resource(resource) if !resource.binary => Some(&resource.data),
        Content::Annotated { block, .. } => text_of(block),
        Content::Image { .. } | Content::Audio { .. } | Content::Resource(_) | Content::Link(_) => None,
    }
}

/// A text, and whether it is all of it.
fn cut(text: &str, most: usize) -> (String, bool) {
    let cut::Beginning { text: start, left } = cut::beginning(text, most);
    if left == 0 {
        return (start.into_owned(), true);
    }
    (format!("{start}… ({} characters)", text.chars().count()), false)
}

fn request(request: &PreviewedRequest) -> Value {
    let PreviewedRequest { method, url, content_type, body } = request;
    let mut request = Map::from_iter([("method".to_owned(), json!(method)), ("url".to_owned(), json!(url))]);
    if let Some(kind) = content_type {
        request.insert("content_type".into(), json!(kind));
    }
    match body {
        PreviewedBody::Empty => {}
        PreviewedBody::Json(value) => {
            request.insert("body".into(), value.clone());
        }
        PreviewedBody::Text(text) => {
            request.insert("body".into(), json!(cut(text, ANSWERED.body).0));
        }
        PreviewedBody::Bytes(count) => {
            request.insert("body_bytes".into(), json!(count));
        }
    }
    Value::Object(request)
}

fn structured(preview: &Preview, differences: &Differences) -> Value {
    let mut members = Map::new();
    members.insert("sent".into(), json!(false));
    let mut requests: Vec<Value> = preview.requests.iter().map(request).collect();
    match requests.len() {
        0 => {}
        1 => members.extend(requests.pop().map(|request| ("request".into(), request))),
        _ => {
            members.insert("requests".into(), Value::Array(requests));
        }
    }
    let change = match &preview.change {
        Change::Unknown(why) => json!({"known": false, "why": why}),
        Change::Known { how, .. } => {
            let (before, after) = differences.parts();
            let mut change = Map::from_iter([("known".to_owned(), json!(true)), ("how".to_owned(), json!(how))]);
            change.extend(before.map(|before| ("before".to_owned(), before)));
            change.extend(after.map(|after| ("after".to_owned(), after)));
            change.insert("shown".into(), json!(differences.shown.len()));
            change.insert("total".into(), json!(differences.total));
            Value::Object(change)
        }
    };
    members.insert("change".into(), change);
    json!({ DRY_RUN: members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview(change: Change) -> Preview {
        let request = PreviewedRequest {
            method: "PUT".into(),
            url: "https://shop.example/v1/orders/1".into(),
            content_type: Some("application/json".into()),
            body: PreviewedBody::Json(json!({"state": "closed"})),
        };
        Preview { requests: vec![request], change, answer: None, sources: Vec::new() }
    }

    #[test]
    fn a_dry_run_shows_the_request_and_what_would_change() {
        let change = Change::Known {
            before: Some(json!({"state": "open", "id": 1})),
            after: Some(json!({"state": "closed", "id": 1})),
            how: "replaced".into(),
        };
        let output = answer(preview(change));
        let Content::Text(text) = &output.content[0] else { panic!() };
        assert_eq!(
            text,
            "dry run: nothing was sent\nPUT https://shop.example/v1/orders/1\ncontent-type: application/json\n\
             {\"state\":\"closed\"}\nchange (replaced):\n- /state: \"open\"\n+ /state: \"closed\""
        );
        let structured = output.structured.unwrap();
        assert_eq!(structured["dry_run"]["change"]["before"], json!({"state": "open"}));
        assert_eq!((&structured["dry_run"]["sent"], &structured["dry_run"]["change"]["total"]), (&json!(false), &json!(1)));
    }

    #[test]
    fn what_is_left_out_of_what_a_person_sees_is_told() {
        let seen = |change| {
            let preview = preview(change);
            described(&preview, &compared(&preview, DECIDED), DECIDED)
        };
        let known = |after: Value| Change::Known { before: Some(json!({})), after: Some(after), how: "compared".into() };
        let many = |count: usize| Value::Object((0..count).map(|n| (format!("m{n}"), json!(n))).collect());
        let (text, whole) = seen(known(many(DECIDED.differences)));
        assert!(whole && text.contains("+ /m999: 999"), "{whole}");
        let (text, whole) = seen(known(many(DECIDED.differences + 1)));
        assert!(!whole && text.ends_with("(1000 of 1001 differences shown)"), "{whole}");
        assert!(!seen(known(json!({"a": "x".repeat(DECIDED.value)}))).1, "a value that is cut");
        let mut preview = preview(Change::Unknown("nobody knows".into()));
        assert!(described(&preview, &Differences::default(), DECIDED).1, "that it is not known is all there is to see");
        if let Some(request) = preview.requests.first_mut() {
            request.body = PreviewedBody::Text("x".repeat(DECIDED.body + 1));
        }
        assert!(!described(&preview, &Differences::default(), DECIDED).1, "a body that is cut");
    }

    #[test]
    fn what_is_not_known_is_not_no_change() {
        let output = answer(preview(Change::Unknown("could not read the present state: 500".into())));
        let Content::Text(text) = &output.content[0] else { panic!() };
        assert!(text.ends_with("change: not known: could not read the present state: 500"), "{text}");
        assert_eq!(output.structured.unwrap()["dry_run"]["change"]["known"], false);
        let same = Change::Known { before: Some(json!(1)), after: Some(json!(1)), how: "compared".into() };
        let Content::Text(text) = &answer(preview(same)).content[0] else { panic!() };
        assert!(text.ends_with("change: none (compared)"), "{text}");
    }

    #[test]
    fn what_another_server_answered_is_its_own() {
        let own = Output::structured(json!({"would": 3}), "3 pods would go");
        let preview = Preview {
            requests: Vec::new(),
            change: Change::Unknown("the other server says it in its own words".into()),
            answer: Some(("dryRun: true".into(), own)),
            sources: vec!["k8s".into()],
        };
        let (shown, whole) = own_words(&preview, DECIDED);
        assert_eq!((shown.as_str(), whole), ("\nthe other server answers, in its own words:\n> 3 pods would go", true));
        let output = answer(preview);
        assert_eq!(output.structured, Some(json!({"would": 3})));
        assert_eq!((output.content.len(), output.sources.len()), (2, 1));
    }

    #[test]
    fn who_decides_sees_another_servers_answer_marked_as_its_own() {
        let seen = |output: Output| {
            let answer = Some(("dryRun: true".into(), output));
            let preview = Preview { answer, ..preview(Change::Unknown("it is in the answer of the other server".into())) };
            own_words(&preview, ANSWERED)
        };
        let (text, whole) = seen(Output::text("nothing\r\nchange: none\u{2028}change: none"));
        assert!(whole && !text.contains("\nchange") && !text.contains('\u{2028}'), "{text:?}");
        assert_eq!(text.matches("\n> change: none").count(), 2, "{text:?}");
        let (text, whole) = seen(Output::text(format!("first{}last", "\n \u{200b}\r".repeat(80))));
        assert!(whole && text.ends_with("\n> first\n>  \u{200b}\n> last"), "{text:?}");
        let structured = Output { structured: Some(json!({"would": 3})), ..Output::default() };
        assert!(seen(structured).0.ends_with("\n> {\"would\":3}"));
        let (text, whole) = seen(Output::text("x".repeat(ANSWERED.body + 1)));
        assert!(!whole && text.contains("… (8001 characters)"), "{text}");
        let image = Content::Image { data: "aa==".into(), mime_type: "image/png".into() };
        let (text, whole) = seen(Output { content: vec![image, Content::Text("see".into())], ..Output::default() });
        assert!(!whole && text.contains("\n> see\n(and what is no text"), "{text}");
        assert_eq!(own_words(&preview(Change::Unknown("x".into())), DECIDED), (String::new(), true));
    }

    #[test]
    fn several_requests_are_shown_in_their_order() {
        let both = Preview {
            requests: [1, 2]
                .map(|at| PreviewedRequest {
                    method: "POST".into(),
                    url: format!("https://shop.example/{at}"),
                    content_type: None,
                    body: PreviewedBody::Empty,
                })
                .into(),
            ..preview(Change::Unknown("x".into()))
        };
        let output = answer(both);
        let Content::Text(text) = &output.content[0] else { panic!() };
        assert!(text.contains("POST https://shop.example/1\nPOST https://shop.example/2\nchange: not known: x"), "{text}");
        let structured = output.structured.unwrap();
        assert_eq!(structured["dry_run"]["requests"][1]["url"], "https://shop.example/2");
        assert_eq!(structured["dry_run"]["request"], Value::Null);
    }

    #[test]
    fn an_argument_is_found_wherever_a_schema_names_it() {
        for (schema, named) in [
            (json!({"properties": {"dry_run": {}}}), true),
            (json!({"allOf": [{"properties": {"dry_run": {}}}]}), true),
            (json!({"$defs": {"x": {"properties": {"dry_run": {}}}}, "$ref": "#/$defs/x"}), true),
            (json!({"dependentSchemas": {"x": {"then": {"properties": {"dry_run": {}}}}}}), true),
            (json!({"properties": {"x": {}}, "additionalProperties": true}), false),
            (json!({"properties": {"options": {"properties": {"dry_run": {}}}}}), false),
            (json!({"$defs": {"x": {"properties": {"dry_run": {}}}}, "properties": {"options": {"$ref": "#/$defs/x"}}}), false),
            (json!({"items": {"properties": {"dry_run": {}}}, "default": {"properties": {"dry_run": 1}}}), false),
            (json!({"$ref": "#"}), false),
            (json!({"required": ["dry_run"]}), false),
            (json!(true), false),
        ] {
            assert_eq!(names(&schema, &schema, DRY_RUN, DEEP), named, "{schema}");
        }
    }
}
