//! Pages of a list. A cursor names the last entry shown, so a page stays right when the list changes between two
//! requests. The gate seals it for the caller and the list, and every page is filtered for the caller anew.

/// Entries of one page.
pub(crate) const PAGE: usize = 100;

/// The page of `entries`, sorted by `key`, that begins after `last`, and the entry after which the next one begins when there
/// is more.
pub(crate) fn page<T>(mut entries: Vec<T>, key: impl Fn(&T) -> &str, last: Option<&str>) -> (Vec<T>, Option<String>) {
    if let Some(last) = last {
        let from = entries.partition_point(|entry| key(entry) <= last);
        entries.drain(..from);
    }
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let next = entries.last().filter(|_| more).map(|last| key(last).to_owned());
    (entries, next)
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
            let (mut seen, mut last) = (Vec::new(), None);
            loop {
                let (entries, next) = page(names(n), String::as_str, last.as_deref());
                assert!(entries.len() <= PAGE);
                seen.extend(entries);
                last = next;
                if last.is_none() {
                    break;
                }
            }
            assert_eq!(seen, names(n));
        }
    }

    #[test]
    fn a_page_survives_changes_between_requests() {
        let (first, next) = page(names(150), String::as_str, None);
        let mut changed = names(150);
        changed.retain(|name| name != first.last().unwrap());
        changed.insert(0, "another".into());
        let (second, _) = page(changed, String::as_str, next.as_deref());
        assert_eq!(second.first().unwrap(), "tool-00100");
    }
}
