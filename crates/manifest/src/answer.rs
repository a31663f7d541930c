//! Answers of an API, small enough for a model: lists of objects as tables, everything else as compact JSON or text, as much
//! as fits, and a cursor for the rest.
//!
//! Guards that nothing is left out unsaid: how many of how many, how many characters of a text, what a body that is no text
//! was. What a secret is it does not know: the text of every answer is redacted on its way out, and before it is cut.

use std::collections::HashSet;
use std::fmt::Write as _;

use portcullis_model::cut;
use portcullis_ports::Output;
use portcullis_shape::{Cell, Column, Table, TableOptions, one_line, tokens};
use serde_json::{Map, Value, json};

/// Most items of one answer.
const MOST_ITEMS: usize = 500;
/// Most columns of a table; objects with more members are shown as JSON.
const MOST_COLUMNS: usize = 40;
/// Deepest nesting that becomes columns.
const COLUMN_DEPTH: usize = 3;

/// What an answer may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Estimated tokens of the text.
    pub(crate) tokens: usize,
    /// Bytes of text and structured result together.
    pub(crate) bytes: usize,
}

/// What came back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came<'a> {
    pub(crate) status: u16,
    /// `200 OK`.
    pub(crate) status_line: &'a str,
    pub(crate) media_type: &'a str,
    pub(crate) body: &'a [u8],
}

/// An answer being put together.
struct Shaped {
    text: String,
    body: Value,
    shown: usize,
    total: usize,
    /// What was made shorter inside of what is shown.
    cut: Option<String>,
}

/// Where the list of an answer is.
struct List<'a> {
    items: &'a [Value],
    /// The member of the whole that holds it; `None` when the whole is the list.
    member: Option<&'a str>,
}

/// Shapes an answer. `offset` skips what earlier pages showed; `cursor` makes the one for the next page, where there can be
/// one.
pub(crate) fn shape(came: Came<'_>, limits: Limits, offset: usize, cursor: impl Fn(usize) -> Option<String>) -> Output {
    let failed = came.status >= 300;
    let essence = came.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let shaped = if came.body.is_empty() {
        Shaped { text: "(no content)".into(), body: Value::Null, shown: 0, total: 0, cut: None }
    } else if let Some(value) = json_of(&essence, came.body) {
        structured(&value, limits, offset)
    } else if is_text(&essence, came.body) {
        plain(&String::from_utf8_lossy(came.body), limits, offset)
    } else {
        let what = if essence.is_empty() { "no media type" } else { &essence };
        let said = format!("({what}, {} bytes: no text, left out)", came.body.len());
        Shaped { text: said, body: Value::Null, shown: 0, total: 1, cut: None }
    };
    let mut text = String::new();
    if came.status != 200 {
        let _ = writeln!(text, "{}", came.status_line);
    }
    text.push_str(&shaped.text);
    let end = offset + shaped.shown;
    let truncated = end < shaped.total || shaped.cut.is_some();
    let next = (shaped.shown > 0 && end < shaped.total).then(|| cursor(end)).flatten();
    if let Some(cut) = &shaped.cut {
        let _ = write!(text, "\n{cut}");
    }
    match &next {
        Some(next) => {
            let _ = write!(text, "\nmore: answer_cursor={next}, or narrow the question with the tool's own arguments");
        }
        None if end < shaped.total && !essence.is_empty() && shaped.shown > 0 => {
            text.push_str("\nnarrow the question with the tool's own arguments to see the rest");
        }
        None => {}
    }
    let mut result = Map::new();
    result.insert("status".into(), json!(came.status));
    if !shaped.body.is_null() {
        result.insert("body".into(), shaped.body);
    } else if !came.body.is_empty() {
        result.insert("media_type".into(), json!(essence));
        result.insert("bytes".into(), json!(came.body.len()));
    }
    if shaped.total > 0 {
        result.insert("shown".into(), json!(shaped.shown));
        result.insert("total".into(), json!(shaped.total));
    }
    result.insert("truncated".into(), json!(truncated));
    if let Some(next) = next {
        result.insert("next".into(), json!(next));
    }
    Output { failed, ..Output::structured(Value::Object(result), text) }
}

/// JSON, where the media type says so or says nothing.
fn json_of(essence: &str, body: &[u8]) -> Option<Value> {
    let says = essence == "application/json" || essence == "text/json" || essence.ends_with("+json");
    let silent = essence.is_empty() || essence == "text/plain";
    let looks = || matches!(body.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['));
    (says || (silent && looks())).then(|| serde_json::from_slice(body).ok()).flatten()
}

fn is_text(essence: &str, body: &[u8]) -> bool {
    let named = essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence.ends_with("+json")
        || [
            "json",
            "xml",
            "yaml",
            "x-yaml",
            "javascript",
            "x-ndjson",
            "x-www-form-urlencoded",
            "graphql",
            "toml",
            "openmetrics-text",
        ]
        .iter()
        .any(|kind| essence.strip_prefix("application/") == Some(kind));
    (named || essence.is_empty()) && std::str::from_utf8(body).is_ok_and(|text| !text.contains('\0'))
}

/// A text, by characters. It is redacted whole: a page may end and begin anywhere, and half a secret looks like none.
fn plain(text: &str, limits: Limits, offset: usize) -> Shaped {
    let seen = cut::whole(text);
    let text = &*seen;
    let total = text.chars().count();
    let rest: String = text.chars().skip(offset).collect();
    // Text and structured result both hold it.
    let mut most = rest.len().min(limits.bytes / 3);
    let mut shown;
    loop {
        let end = (0..=most).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
        shown = rest[..end].to_owned();
        if most < 200 || tokens::estimate(&shown) <= limits.tokens {
            break;
        }
        most = most * 3 / 4;
    }
    let characters = shown.chars().count();
    let said = if characters < total {
        format!("{shown}\n(characters {offset} to {} of {total})", offset + characters)
    } else {
        shown.clone()
    };
    Shaped { text: said, body: Value::String(shown), shown: characters, total, cut: None }
}

fn structured(value: &Value, limits: Limits, offset: usize) -> Shaped {
    if let Some(list) = list_of(value) {
        return listed(value, &list, limits, offset);
    }
    let (body, cut) = reduced(value, limits);
    Shaped { text: body.to_string(), body, shown: 1, total: 1 + offset, cut }
}

/// The list an answer is about: the whole, or its largest member that is a list of objects.
fn list_of(value: &Value) -> Option<List<'_>> {
    match value {
        Value::Array(items) => Some(List { items, member: None }),
        Value::Object(members) => members
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_array()?)))
            .filter(|(_, items)| items.len() > 1 && items.iter().all(Value::is_object))
            .max_by_key(|(_, items)| items.len())
            .map(|(name, items)| List { items, member: Some(name) }),
        _ => None,
    }
}

/// As many items as fit, beginning at `offset`.
fn listed(whole: &Value, list: &List<'_>, limits: Limits, offset: usize) -> Shaped {
    let total = list.items.len();
    let rest = &list.items[offset.min(total)..];
    let (beside, mut cut) = match list.member {
        None => (None, None),
        Some(name) => {
            let mut others = whole.as_object().cloned().unwrap_or_default();
            others.shift_remove(name);
            let half = Limits { tokens: limits.tokens / 2, bytes: limits.bytes / 2 };
            let (others, cut) = reduced(&Value::Object(others), half);
            (Some(others), cut)
        }
    };
    let head = match (&beside, list.member) {
        (Some(Value::Object(others)), Some(name)) if others.is_empty() => format!("{name}:\n"),
        (Some(others), Some(name)) => format!("{others}\n{name}:\n"),
        _ => String::new(),
    };
    let render = |count: usize| {
        let shown = &rest[..count];
        let counted = if count < total { format!("\n({offset} to {} of {total})", offset + count) } else { String::new() };
        format!("{head}{}{counted}", rows(shown))
    };
    let fits = |count: usize| {
        let text = render(count);
        let own: usize = rest[..count].iter().map(|item| item.to_string().len() + 1).sum();
        tokens::estimate(&text) <= limits.tokens && text.len() + own + head.len() <= limits.bytes
    };
    let (mut low, mut high) = (0, rest.len().min(MOST_ITEMS));
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    let place = |items: Vec<Value>| match (&beside, list.member) {
        (Some(Value::Object(others)), Some(name)) => {
            let mut others = others.clone();
            others.insert(name.to_owned(), Value::Array(items));
            Value::Object(others)
        }
        _ => Value::Array(items),
    };
    if low == 0 && !rest.is_empty() {
        // Not even one fits: it is shown with what is long in it made shorter.
        let (one, shorter) = reduced(&rest[0], limits);
        cut = shorter.or(cut);
        let counted = if total > 1 { format!("\n({offset} to {} of {total})", offset + 1) } else { String::new() };
        return Shaped { text: format!("{head}{one}{counted}"), body: place(vec![one]), shown: 1, total, cut };
    }
    let text = if rest.is_empty() { format!("{head}(no items)") } else { render(low) };
    Shaped { text, body: place(rest[..low].to_vec()), shown: low, total, cut }
}

/// On one line and whole.
fn line(text: &str) -> String {
    one_line(text, text.len())
}

/// Items as a table where they are objects of few members, else one line of JSON each.
fn rows(items: &[Value]) -> String {
    let lines = || items.iter().map(|item| line(&item.to_string())).collect::<Vec<_>>().join("\n");
    if items.len() < 2 || !items.iter().all(Value::is_object) {
        return lines();
    }
    let (mut columns, mut known) = (Vec::<String>::new(), HashSet::<String>::new());
    let mut flat: Vec<Vec<(String, String)>> = Vec::with_capacity(items.len());
    for item in items {
        let mut cells = Vec::new();
        flatten("", item, 0, &mut cells);
        for (name, _) in &cells {
            if known.contains(name) {
                continue;
            }
            // What has too many is no table, however many more there are.
            if columns.len() == MOST_COLUMNS {
                return lines();
            }
            known.insert(name.clone());
            columns.push(name.clone());
        }
        flat.push(cells);
    }
    if columns.is_empty() {
        return lines();
    }
    let mut table = Table::new(columns.iter().map(Column::new).collect());
    for cells in &flat {
        let cell = |column: &String| cells.iter().find(|(name, _)| name == column).map(|(_, text)| Cell::Text(text.clone()));
        if table.push(columns.iter().map(|column| cell(column).unwrap_or(Cell::Absent)).collect()).is_err() {
            return lines();
        }
    }
    table.render(&TableOptions { max_rows: items.len(), ..TableOptions::default() }).text
}

fn flatten(name: &str, value: &Value, depth: usize, cells: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) if depth < COLUMN_DEPTH && !members.is_empty() => {
            for (key, value) in members {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, depth + 1, cells);
            }
        }
        Value::String(text) => cells.push((name.to_owned(), text.clone())),
        other => cells.push((name.to_owned(), other.to_string())),
    }
}

/// A value in which long texts, lists and objects are shortened, step by step, until it fits; what was done is said in it
/// and beside it.
fn reduced(value: &Value, limits: Limits) -> (Value, Option<String>) {
    let fits = |value: &Value| {
        let text = value.to_string();
        text.len() * 2 <= limits.bytes && tokens::estimate(&text) <= limits.tokens
    };
    if fits(value) {
        return (value.clone(), None);
    }
    for (characters, items, members) in
        [(2_000, 100, 200), (600, 30, 100), (200, 10, 60), (100, 5, 40), (60, 3, 20), (30, 1, 8), (10, 0, 3)]
    {
        let mut cuts = 0;
        let shorter = shortened(value, characters, items, members, &mut cuts);
        if fits(&shorter) {
            return (shorter, Some(format!("({cuts} long texts, lists and objects are shortened: …(+N) says by how much)")));
        }
    }
    let size = value.to_string().len();
    (Value::String(format!("…(+{size} bytes)")), Some(format!("({size} bytes of JSON do not fit: narrow the question)")))
}

fn shortened(value: &Value, characters: usize, items: usize, members: usize, cuts: &mut usize) -> Value {
    match value {
        Value::String(text) => {
            let cut::Beginning { text: start, left } = cut::beginning(text, characters);
            if left == 0 {
                return start.into_owned().into();
            }
            *cuts += 1;
            format!("{start}…(+{left} chars)").into()
        }
        Value::Array(list) => {
            let mut kept: Vec<Value> =
                list.iter().take(items).map(|item| shortened(item, characters, items, members, cuts)).collect();
            if list.len() > items {
                *cuts += 1;
                kept.push(format!("…(+{} items)", list.len() - items).into());
            }
            Value::Array(kept)
        }
        Value::Object(all) => {
            let mut kept: Map<String, Value> = all
                .iter()
                .take(members)
                .map(|(name, value)| (name.clone(), shortened(value, characters, items, members, cuts)))
                .collect();
            if all.len() > members {
                *cuts += 1;
                kept.insert("…".into(), format!("(+{} members)", all.len() - members).into());
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_ports::Content;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { tokens: 300, bytes: 8_000 };

    fn shaped(status: u16, media_type: &str, body: &[u8], offset: usize) -> (String, Value, bool) {
        let came = Came { status, status_line: &format!("{status} X"), media_type, body };
        let output = shape(came, LIMITS, offset, |next| Some(format!("@{next}")));
        let Content::Text(text) = &output.content[0] else { panic!("no text") };
        (text.clone(), output.structured.unwrap(), output.failed)
    }

    #[test]
    fn a_list_with_a_hundred_thousand_names_of_members_is_no_table_and_takes_no_time() {
        let object = |n: usize| Value::Object((0..1_600).map(|m| (format!("k{n}x{m}"), Value::Null)).collect());
        let items: Vec<Value> = (0..500).map(object).collect();
        let began = std::time::Instant::now();
        let text = rows(&items);
        // Comparing each name with all the others took minutes.
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(text.lines().count(), 500);
        let narrow: Vec<Value> =
            (0..2).map(|n| Value::Object((0..MOST_COLUMNS).map(|m| (format!("k{m}"), json!(n))).collect())).collect();
        assert!(!rows(&narrow).contains('{'), "as many as there may be are a table");
    }

    #[test]
    fn a_list_of_objects_is_a_table_with_its_constants_said_once() {
        let body = json!([{"id": 12_345_678_901_u64, "kind": "pod", "meta": {"name": "a"}}, {"id": 2, "kind": "pod", "meta": {"name": "b|c"}, "x": null}]);
        let (text, structured, failed) = shaped(200, "application/json; charset=utf-8", body.to_string().as_bytes(), 0);
        assert!(text.starts_with("all: kind=pod\nid|meta.name|x\n12345678901|a|-\n"), "{text}");
        assert_eq!(structured, json!({"status": 200, "body": body, "shown": 2, "total": 2, "truncated": false}));
        assert!(!failed);
    }

    #[test]
    fn a_long_list_is_paged_and_every_item_is_on_one_page() {
        let items: Vec<Value> = (0..400).map(|i| json!({"id": i, "name": format!("service number {i}")})).collect();
        let body = json!({"total": 400, "items": items, "tags": ["x"]}).to_string();
        let (mut offset, mut seen, mut pages) = (0, 0, 0);
        loop {
            let (text, structured, _) = shaped(200, "application/json", body.as_bytes(), offset);
            assert!(tokens::estimate(&text) <= LIMITS.tokens + 60, "{}", tokens::estimate(&text));
            let shown = structured["body"]["items"].as_array().unwrap();
            assert_eq!(shown[0]["id"], seen);
            assert_eq!((structured["body"]["total"].clone(), structured["total"].clone()), (json!(400), json!(400)));
            seen += shown.len();
            pages += 1;
            match structured["next"].as_str() {
                Some(next) => {
                    assert!(structured["truncated"] == true && text.contains(&format!("answer_cursor={next}")), "{text}");
                    offset = next[1..].parse().unwrap();
                }
                None => break,
            }
        }
        assert!(seen == 400 && pages > 2, "{seen} on {pages} pages");
    }

    #[test]
    fn failures_texts_bytes_and_nothing() {
        let (text, structured, failed) = shaped(404, "application/json", br#"{"detail":"no such pet"}"#, 0);
        assert!(failed && text == "404 X\n{\"detail\":\"no such pet\"}", "{text}");
        assert_eq!(structured["status"], 404);
        let (text, structured, failed) = shaped(200, "application/octet-stream", &[0, 159, 146, 150], 0);
        assert!(!failed && text == "(application/octet-stream, 4 bytes: no text, left out)", "{text}");
        assert_eq!(
            structured,
            json!({"status": 200, "media_type": "application/octet-stream", "bytes": 4, "shown": 0, "total": 1, "truncated": true})
        );
        assert!(shaped(200, "text/plain", &[b'a', 0, b'b'], 0).0.contains("no text"));
        assert_eq!(shaped(204, "", b"", 0).0, "204 X\n(no content)");
        assert!(shaped(200, "application/json", b"{broken", 0).0.starts_with("{broken"));
        assert_eq!(shaped(200, "", b"{\"a\":1}", 0).1["body"]["a"], 1);
        assert!(shaped(302, "text/html", b"moved", 0).2);
        assert_eq!(shaped(200, "application/json", b"[]", 0).0, "(no items)");
        let long = "line of text\n".repeat(2_000);
        let (text, structured, _) = shaped(200, "text/plain", long.as_bytes(), 0);
        assert!(text.contains(" of 26000)") && structured["truncated"] == true && structured["next"].is_string(), "{text}");
    }

    #[test]
    fn what_is_too_large_says_how_much_is_missing() {
        let big = json!({"name": "x", "text": "y".repeat(50_000), "list": (0..1_000).collect::<Vec<_>>()});
        let (text, structured, _) = shaped(200, "application/json", big.to_string().as_bytes(), 0);
        assert!(text.contains("…(+") && text.contains("shortened") && structured["truncated"] == true, "{text}");
        let one = json!([{"text": "z".repeat(90_000)}]);
        assert!(shaped(200, "application/json", one.to_string().as_bytes(), 0).0.contains("…(+"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::vec((".{0,8}", inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_fits_and_says_what_is_missing(value in any_json(), offset in 0_usize..4) {
            let (text, structured, _) = shaped(200, "application/json", value.to_string().as_bytes(), offset);
            prop_assert!(text.len() + structured.to_string().len() <= LIMITS.bytes * 2);
            if structured["truncated"] == false && offset == 0 {
                prop_assert_eq!(&structured["body"], &value);
            }
        }
    }
}
