//! Pages of a list. A cursor names the last entry shown, so a page stays right when the list changes between two
//! requests; it opens nothing, for every page is filtered for the caller anew.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Entries of one page.
pub(crate) const PAGE: usize = 100;
/// Longest cursor that is looked at.
const CURSOR_BYTES: usize = 4_096;

/// Which list a cursor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

impl List {
    fn mark(self) -> char {
        match self {
            Self::Tools => 't',
            Self::Prompts => 'p',
            Self::Resources => 'r',
            Self::Templates => 'u',
        }
    }
}

/// A cursor that is not one of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadCursor;

/// The page after `cursor` of entries sorted by `key`, and the cursor of the next one when there is more.
pub(crate) fn page<T>(
    list: List,
    mut entries: Vec<T>,
    key: impl Fn(&T) -> &str,
    cursor: Option<&str>,
) -> Result<(Vec<T>, Option<String>), BadCursor> {
    if let Some(cursor) = cursor {
        let last = open(list, cursor)?;
        let from = entries.partition_point(|entry| key(entry) <= last.as_str());
        entries.drain(..from);
    }
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let next = entries.last().filter(|_| more).map(|last| seal(list, key(last)));
    Ok((entries, next))
}

fn seal(list: List, last: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}{last}", list.mark()))
}

fn open(list: List, cursor: &str) -> Result<String, BadCursor> {
    if cursor.len() > CURSOR_BYTES {
        return Err(BadCursor);
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BadCursor)?;
    let text = String::from_utf8(bytes).map_err(|_| BadCursor)?;
    text.strip_prefix(list.mark()).map(str::to_owned).ok_or(BadCursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("tool-{i:05}")).collect()
    }

    #[test]
    fn pages_cover_everything_once() {
        for n in [0, 1, PAGE, PAGE + 1, 3 * PAGE + 7] {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let (entries, next) = page(List::Tools, names(n), String::as_str, cursor.as_deref()).unwrap();
                assert!(entries.len() <= PAGE);
                seen.extend(entries);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, names(n));
        }
    }

    #[test]
    fn a_page_survives_changes_between_requests() {
        let (first, next) = page(List::Tools, names(150), String::as_str, None).unwrap();
        let mut changed = names(150);
        changed.retain(|name| name != first.last().unwrap());
        changed.insert(0, "another".into());
        let (second, _) = page(List::Tools, changed, String::as_str, next.as_deref()).unwrap();
        assert_eq!(second.first().unwrap(), "tool-00100");
    }

    proptest::proptest! {
        #[test]
        fn foreign_cursors_are_refused_or_harmless(cursor in "\\PC{0,60}") {
            if let Ok((entries, _)) = page(List::Tools, names(3), String::as_str, Some(&cursor)) {
                assert!(entries.len() <= 3);
            }
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_list() {
        let (_, next) = page(List::Tools, names(150), String::as_str, None).unwrap();
        assert_eq!(page(List::Prompts, names(150), String::as_str, next.as_deref()).unwrap_err(), BadCursor);
        assert_eq!(page(List::Tools, names(1), String::as_str, Some("!!")).unwrap_err(), BadCursor);
        assert_eq!(page(List::Tools, names(1), String::as_str, Some(&"A".repeat(5_000))).unwrap_err(), BadCursor);
    }
}
