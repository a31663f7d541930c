//! From a file to checked settings, with errors that name the place, the mistake and the mend.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::substitute::substitute;

/// A configuration that cannot be used; the operator mends it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// Not YAML.
    #[error("{origin}: not valid YAML: {reason}")]
    Yaml {
        /// The file.
        origin: String,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A value does not fit.
    #[error("{origin}: {place}: {reason}")]
    Value {
        /// The file.
        origin: String,
        /// Dotted path of the setting.
        place: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// Settings and where they came from. What the whole file holds is the binary's to say: `T`.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The settings.
    pub settings: T,
    /// The file, or none when the defaults are in use.
    pub path: Option<PathBuf>,
    /// The file's stamp from before it was read: a different one later means that it changed.
    pub stamp: Option<FileStamp>,
    /// Environment variables the file was filled from (`${NAME}`): some of them carry secrets.
    pub variables: BTreeSet<String>,
}

/// What changes when a file is written: its time and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    modified: Option<std::time::SystemTime>,
    bytes: u64,
}

impl FileStamp {
    /// The stamp of the file at `path` now; `None` when it cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|m| Self { modified: m.modified().ok(), bytes: m.len() })
    }
}

/// Largest configuration file.
const MOST_BYTES: u64 = 4 << 20;

/// Reads the file at `path`; with none, the defaults.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<Loaded<T>, ConfigError> {
    let Some(path) = path else {
        return Ok(Loaded { settings: T::default(), path: None, stamp: None, variables: BTreeSet::new() });
    };
    let stamp = FileStamp::of(path);
    let text = text_of(path)?;
    let variables = RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        variables.borrow_mut().insert(name.to_owned());
        std::env::var(name).ok()
    };
    let settings = parse(&text, &path.display().to_string(), &lookup)?;
    Ok(Loaded { settings, path: Some(path.to_owned()), stamp, variables: variables.into_inner() })
}

/// Reads only the settings at these dotted places, none of which is within another, and looks at nothing else the file holds:
/// for what has to be known of a file that cannot be used.
///
/// # Errors
/// See [`ConfigError`].
pub fn load_places<T: DeserializeOwned + Default>(path: &Path, places: &[&str]) -> Result<T, ConfigError> {
    parse_places(&text_of(path)?, &path.display().to_string(), places, &|name| std::env::var(name).ok())
}

fn parse_places<T: DeserializeOwned + Default>(
    text: &str,
    origin: &str,
    places: &[&str],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    if is_blank(text) {
        return Ok(T::default());
    }
    let whole = yaml(text, origin)?;
    let mut part = Value::Object(Map::new());
    for place in places {
        let Some(found) = whole.pointer(&format!("/{}", place.replace('.', "/"))) else { continue };
        let mut slot = &mut part;
        for key in place.split('.') {
            slot = &mut slot[key];
        }
        *slot = found.clone();
    }
    fill(part, origin, lookup)
}

/// Whether there is nothing in it but comments.
fn is_blank(text: &str) -> bool {
    text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    let read = |reason| ConfigError::Read { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(read)?.len();
    if size > MOST_BYTES {
        return Err(ConfigError::Yaml {
            origin: path.display().to_string(),
            reason: format!("{size} bytes is too large for a configuration"),
        });
    }
    std::fs::read_to_string(path).map_err(read)
}

fn yaml(text: &str, origin: &str) -> Result<Value, ConfigError> {
    serde_saphyr::from_str(text).map_err(|e| ConfigError::Yaml { origin: origin.to_owned(), reason: e.to_string() })
}

/// Reads settings from text, filling placeholders by `lookup`.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse<T: DeserializeOwned + Default>(
    text: &str,
    origin: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    if is_blank(text) {
        return Ok(T::default());
    }
    fill(yaml(text, origin)?, origin, lookup)
}

/// Fills the placeholders of `value`, and makes settings of it.
fn fill<T: DeserializeOwned>(mut value: Value, origin: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<T, ConfigError> {
    let fault = |place: &str, reason: String| ConfigError::Value {
        origin: origin.to_owned(),
        place: if place.is_empty() || place == "." { "the file".into() } else { place.to_owned() },
        reason,
    };
    let placeholders = substitute(&mut value, lookup)
        .map_err(|(pointer, e)| fault(&pointer.trim_start_matches('/').replace('/', "."), e.to_string()))?;
    let mut tried = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(settings) => return Ok(settings),
            Err(error) => error,
        };
        // `port: ${PORT}` is text after substitution; where the setting wants a number or a truth value, read it as one.
        let pointer = pointer_of(error.path());
        let retry = placeholders.contains(&pointer) && !tried.contains(&pointer);
        if retry && let Some(slot) = value.pointer_mut(&pointer) {
            let typed =
                slot.as_str().and_then(|t| serde_json::from_str::<Value>(t).ok()).filter(|v| v.is_number() || v.is_boolean());
            if let Some(typed) = typed {
                *slot = typed;
                tried.push(pointer);
                continue;
            }
        }
        // YAML 1.1 reads a bare `on` or `off` as a truth value; where the setting wants the word, it is the word.
        if let Some(spelled) = as_word(&value, &pointer)
            && serde_path_to_error::deserialize::<_, T>(&spelled).err().is_none_or(|e| pointer_of(e.path()) != pointer)
        {
            value = spelled;
            continue;
        }
        let place = error.path().to_string();
        return Err(fault(&place, explain(&error.into_inner().to_string())));
    }
}

/// The file with the truth value at `pointer` as the word it may have been; nothing when there is no truth value.
fn as_word(value: &Value, pointer: &str) -> Option<Value> {
    let word = if value.pointer(pointer)?.as_bool()? { "on" } else { "off" };
    let mut spelled = value.clone();
    *spelled.pointer_mut(pointer)? = word.into();
    Some(spelled)
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{key}"),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// Adds the nearest right name to serde's "unknown field" and "unknown variant".
pub fn explain(text: &str) -> String {
    let Some(rest) = text.strip_prefix("unknown field ").or_else(|| text.strip_prefix("unknown variant ")) else {
        return text.to_owned();
    };
    let mut names = rest.split('`').skip(1).step_by(2);
    let Some(wrong) = names.next() else { return text.to_owned() };
    let known: Vec<&str> = names.collect();
    let distance = |name: &&&str| strsim::damerau_levenshtein(name, wrong);
    match known.iter().min_by_key(distance) {
        Some(near) if distance(&near) <= (wrong.len() / 3).max(2) => {
            format!("'{wrong}' is not known here; did you mean '{near}'?")
        }
        _ => format!("'{wrong}' is not known here; known are {}", known.join(", ")),
    }
}

/// The JSON Schema (draft 2020-12) of the file.
pub fn schema<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), "Portcullis configuration".into());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LimitSettings, ListenSettings, StoreSettings};
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Switch {
        #[default]
        On,
        Off,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct File {
        frame: Switch,
        mode: crate::ProfileSettings,
        listen: ListenSettings,
        limits: LimitSettings,
        store: StoreSettings,
        sources: Vec<Source>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Source {
        name: String,
        #[serde(default)]
        port: u16,
    }

    fn read(text: &str) -> Result<File, ConfigError> {
        parse(text, "portcullis.yaml", &|name| match name {
            "PORT" => Some("8080".into()),
            "NAME" => Some("[evil]".into()),
            _ => None,
        })
    }

    #[test]
    fn empty_files_are_the_defaults() {
        assert_eq!(read("").unwrap().listen.mcp.port(), 7468);
        assert_eq!(read("# only a comment\n").unwrap().limits.burst, 200);
    }

    #[test]
    fn values_units_and_placeholders() {
        let settings = read(
            "listen: {mcp: '127.0.0.1:9000'}\nstore: {retention: {age: 2d, size: 5GiB}}\nsources:\n- {name: '${NAME}', port: '${PORT}'}\n- name: ${MISSING:-prom}\n",
        )
        .unwrap();
        assert_eq!(settings.store.retention.size, crate::ByteSize(5 << 30));
        assert_eq!((settings.sources[0].name.as_str(), settings.sources[0].port), ("[evil]", 8080));
        assert_eq!(settings.sources[1].name, "prom");
    }

    #[test]
    fn a_bare_off_is_the_word_where_a_word_is_wanted() {
        let file = read("frame: off\nmode: {mode: off}\nstore: {enabled: off}").unwrap();
        assert_eq!((file.frame, file.mode.mode, file.store.enabled), (Switch::Off, crate::ProfileMode::Off, false));
        assert!(read("limits: {deadline: off}").unwrap_err().to_string().contains("limits.deadline"));
    }

    #[test]
    fn mistakes_name_the_place_and_the_mend() {
        for (text, words) in [
            ("lisen: {}", vec!["lisen", "did you mean 'listen'"]),
            ("listen: {mpc: x}", vec!["listen", "did you mean 'mcp'"]),
            ("limits: {deadline: 30}", vec!["limits.deadline"]),
            ("limits: {deadline: 5 minutes}", vec!["limits.deadline", "15m"]),
            ("store: {retention: {size: 10GB}}", vec!["retention.size", "GiB"]),
            ("sources: [{name: '${NOPE}'}]", vec!["sources.0.name", "NOPE", "not set"]),
            ("sources: [{nam: x}]", vec!["did you mean 'name'"]),
            ("listen: [", vec!["not valid YAML"]),
            ("listen: {mcp: nowhere}", vec!["listen.mcp"]),
        ] {
            let error = read(text).expect_err(text).to_string();
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }

    #[test]
    fn some_places_can_be_read_of_a_file_that_cannot_be_used() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        struct Part {
            data: Option<String>,
            audit: BTreeMap<String, String>,
        }
        let places = ["data", "audit.directory", "audit.key_file"];
        let read = |text: &str| parse_places::<Part>(text, "portcullis.yaml", &places, &|_| None);
        let text = "data: ${NOT_SET:-/d}\nlisen: {}\naudit: {directory: /a, rotate: soon, sinks: ['${NOT_SET}']}\n";
        let part = read(text).unwrap();
        assert_eq!(part.data.as_deref(), Some("/d"));
        assert_eq!(part.audit, BTreeMap::from([("directory".to_owned(), "/a".to_owned())]));
        for empty in ["lisen: {}", "", "# nothing\n"] {
            assert_eq!(read(empty).unwrap(), Part::default());
        }
        assert!(read("data: ${NOT_SET}").is_err(), "what is not known is not guessed");
        assert!(matches!(read("listen: ["), Err(ConfigError::Yaml { .. })));
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (from, to) in ('a'..='h').zip('b'..='i') {
            let nine = vec![format!("*{from}"); 9].join(",");
            bomb = format!("{bomb}{to}: &{to} [{nine}]\n");
        }
        assert!(read(&bomb).is_err());
    }
}
