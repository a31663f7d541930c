//! `${VAR}` and `${VAR:-default}` in values, after the file was parsed: a value can never become structure.
//! `$${` writes a literal `${`.

use serde_json::Value;

/// A placeholder that cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubstituteError {
    #[error("the environment variable {0} is not set; set it, or give a default as ${{{0}:-value}}")]
    Unset(String),
    #[error("'{0}' is not a placeholder; write ${{NAME}} or ${{NAME:-default}}, and $${{ for a literal ${{")]
    Malformed(String),
}

/// Fills every string of `value`. Returns the paths (as JSON pointers) of strings that consisted of one placeholder.
pub(crate) fn substitute(
    value: &mut Value,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, (String, SubstituteError)> {
    let mut whole = Vec::new();
    walk(value, lookup, "", &mut whole)?;
    Ok(whole)
}

fn walk(
    value: &mut Value,
    lookup: &dyn Fn(&str) -> Option<String>,
    path: &str,
    whole: &mut Vec<String>,
) -> Result<(), (String, SubstituteError)> {
    match value {
        Value::String(text) if text.contains("${") => {
            let single = text.starts_with("${") && text.find('}') == Some(text.len() - 1);
            *text = fill(text, lookup).map_err(|e| (path.to_owned(), e))?;
            if single {
                whole.push(path.to_owned());
            }
            Ok(())
        }
        Value::Array(items) => {
            items.iter_mut().enumerate().try_for_each(|(i, item)| walk(item, lookup, &format!("{path}/{i}"), whole))
        }
        Value::Object(members) => {
            members.iter_mut().try_for_each(|(key, member)| walk(member, lookup, &format!("{path}/{key}"), whole))
        }
        _ => Ok(()),
    }
}

fn fill(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, SubstituteError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let body_on = &rest[at + 2..];
        let end = body_on.find('}').ok_or_else(|| SubstituteError::Malformed(rest[at..].chars().take(40).collect()))?;
        let body = &body_on[..end];
        let (name, default) = body.split_once(":-").map_or((body, None), |(n, d)| (n, Some(d)));
        let well_formed = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.as_bytes()[0].is_ascii_digit();
        if !well_formed {
            return Err(SubstituteError::Malformed(format!("${{{}}}", body.chars().take(40).collect::<String>())));
        }
        match (lookup(name).filter(|v| !v.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(SubstituteError::Unset(name.to_owned())),
        }
        rest = &body_on[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, SubstituteError> {
        fill(text, &|name| (name == "A").then(|| "x${B}: [1]".to_owned()))
    }

    #[test]
    fn placeholders() {
        assert_eq!(filled("${A}").unwrap(), "x${B}: [1]");
        assert_eq!(filled("a ${NO:-d} b ${NO:-}").unwrap(), "a d b ");
        assert_eq!(filled("$${A} $x").unwrap(), "${A} $x");
        assert_eq!(filled("${NO}"), Err(SubstituteError::Unset("NO".into())));
        for bad in ["${", "${}", "${A B}", "${1A}"] {
            assert!(matches!(filled(bad), Err(SubstituteError::Malformed(_))), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = filled(&text);
        }
    }
}
