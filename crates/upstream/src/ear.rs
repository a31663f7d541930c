//! What an upstream says and asks outside of any call: that something changed, whether anybody is there, what the roots are.
//! Guards that it learns nothing of callers this way, and that a flood of announcements stays one announcement. Must not
//! reach a call.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_ports::Watch;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::settings::QuestionSettings;
use crate::wire;

/// Hears one upstream, over whatever line it speaks.
pub(crate) struct Ear {
    /// Told when it says that its definitions changed.
    changed: Notify,
    /// What it is told are the roots.
    roots: Value,
    news: Mutex<News>,
    /// Told when a resource somebody watches is another one, or when others are watched.
    updated: Notify,
    watching: Notify,
    /// What the upstream was asked to announce.
    subscribed: watch::Sender<BTreeSet<String>>,
    missed: Mutex<Missed>,
}

/// Log messages that could be about several callers, or about none, and so reached nobody.
#[derive(Default)]
struct Missed {
    count: u64,
    told: u64,
    at: Option<Instant>,
}

/// How often it is recorded that messages reached nobody.
const BETWEEN_RECORDS: Duration = Duration::from_hours(1);

#[derive(Default)]
struct News {
    /// Resources somebody watches, and how many do.
    watched: std::collections::BTreeMap<String, usize>,
    /// Those that changed and nobody was told yet.
    updated: BTreeSet<String>,
}

impl Ear {
    pub(crate) fn new(questions: &QuestionSettings) -> Arc<Self> {
        Arc::new(Self {
            changed: Notify::new(),
            roots: roots(questions),
            news: Mutex::default(),
            updated: Notify::new(),
            watching: Notify::new(),
            subscribed: watch::Sender::default(),
            missed: Mutex::default(),
        })
    }

    fn news(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what is said to nobody in particular. Whether it was that.
    pub(crate) fn hear(&self, method: &str, params: &Value) -> bool {
        match method {
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => self.changed.notify_one(),
            "notifications/resources/updated" => {
                if let Some(uri) = params.get("uri").and_then(Value::as_str) {
                    let mut news = self.news();
                    // What nobody watches is no news, so that what is kept stays as small as what is watched.
                    if news.watched.contains_key(uri) && news.updated.insert(uri.to_owned()) {
                        drop(news);
                        self.updated.notify_one();
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// The answer to what is asked of nobody in particular; nothing when it is asked of a caller.
    pub(crate) fn answer(&self, id: &Value, method: &str) -> Option<Vec<u8>> {
        match method {
            "ping" => Some(wire::answer(id, Ok(json!({})))),
            ROOTS => Some(wire::answer(id, Ok(self.roots.clone()))),
            _ => None,
        }
    }

    /// What it is told are the roots.
    pub(crate) fn roots(&self) -> &Value {
        &self.roots
    }

    /// Counts a log message that reaches nobody.
    pub(crate) fn misses_one(&self) {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).count += 1;
    }

    /// How many there were.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// How many there are that should be recorded now: the first ones, and once in a while.
    pub(crate) fn missed_and_not_told(&self, now: Instant) -> Option<u64> {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = missed.count - missed.told;
        if fresh == 0 || missed.at.is_some_and(|at| now.duration_since(at) < BETWEEN_RECORDS) {
            return None;
        }
        (missed.told, missed.at) = (missed.count, Some(now));
        Some(fresh)
    }

    /// Says that its definitions should be looked at.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Waits for that.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Somebody watches a resource from now on, for as long as what is returned is held.
    pub(crate) fn watch(self: &Arc<Self>, uri: &str) -> Watch {
        self.one_more(uri);
        let (ear, uri) = (self.clone(), uri.to_owned());
        Watch::ending_with(move || ear.one_less(&uri))
    }

    fn one_more(&self, uri: &str) {
        let mut news = self.news();
        let watchers = news.watched.entry(uri.to_owned()).or_default();
        *watchers += 1;
        let first = *watchers == 1;
        drop(news);
        if first {
            self.watching.notify_one();
        }
    }

    fn one_less(&self, uri: &str) {
        let mut news = self.news();
        let Some(watchers) = news.watched.get_mut(uri) else { return };
        *watchers -= 1;
        if *watchers == 0 {
            news.watched.remove(uri);
            news.updated.remove(uri);
            drop(news);
            self.watching.notify_one();
        }
    }

    /// What is watched now.
    pub(crate) fn watched(&self) -> BTreeSet<String> {
        self.news().watched.keys().cloned().collect()
    }

    /// Waits until something else is watched.
    pub(crate) async fn watching(&self) {
        self.watching.notified().await;
    }

    /// Says what the upstream announces from now on.
    pub(crate) fn subscribed_to(&self, uris: BTreeSet<String>) {
        self.subscribed.send_replace(uris);
    }

    /// Waits until the upstream announces changes of this.
    pub(crate) async fn is_subscribed(&self, uri: &str) {
        let mut subscribed = self.subscribed.subscribe();
        // The sender lives as long as this.
        let _ = subscribed.wait_for(|uris| uris.contains(uri)).await;
    }

    /// Waits for resources that changed, and takes them.
    pub(crate) async fn updated(&self) -> BTreeSet<String> {
        loop {
            let updated = std::mem::take(&mut self.news().updated);
            if !updated.is_empty() {
                return updated;
            }
            self.updated.notified().await;
        }
    }
}

/// The question after roots.
pub(crate) const ROOTS: &str = "roots/list";

fn roots(questions: &QuestionSettings) -> Value {
    let root = |root: &crate::settings::Root| match &root.name {
        Some(name) => json!({"uri": root.uri, "name": name}),
        None => json!({"uri": root.uri}),
    };
    json!({"roots": questions.roots.iter().map(root).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Root;

    fn updated(ear: &Ear, uri: &str) {
        assert!(ear.hear("notifications/resources/updated", &json!({ "uri": uri })));
    }

    #[tokio::test]
    async fn only_what_is_watched_is_news_and_a_flood_is_one_announcement() {
        let ear = Ear::new(&QuestionSettings::default());
        let (one, two) = (ear.watch("x://a"), ear.watch("x://a"));
        for number in 0..10_000 {
            updated(&ear, "x://a");
            updated(&ear, &format!("x://{number}"));
        }
        assert_eq!(ear.updated().await.into_iter().collect::<Vec<_>>(), ["x://a"]);
        drop(one);
        updated(&ear, "x://a");
        assert_eq!(ear.updated().await.len(), 1, "the other one still watches");
        drop(two);
        updated(&ear, "x://a");
        assert!(ear.news().updated.is_empty() && ear.watched().is_empty());
    }

    #[test]
    fn messages_that_reach_nobody_are_a_record_now_and_then() {
        let (ear, begun) = (Ear::new(&QuestionSettings::default()), Instant::now());
        assert_eq!(ear.missed_and_not_told(begun), None);
        (0..3).for_each(|_| ear.misses_one());
        assert_eq!((ear.missed_and_not_told(begun), ear.missed_and_not_told(begun)), (Some(3), None));
        ear.misses_one();
        assert_eq!(ear.missed_and_not_told(begun + Duration::from_mins(59)), None, "not each of a flood");
        assert_eq!((ear.missed_and_not_told(begun + BETWEEN_RECORDS), ear.missed()), (Some(1), 4));
    }

    #[test]
    fn roots_are_the_operators_and_never_a_callers() {
        let none = Ear::new(&QuestionSettings::default());
        let told = none.answer(&json!(7), ROOTS).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&told).unwrap()["result"], json!({"roots": []}));
        let questions = QuestionSettings {
            roots: vec![Root { uri: "file:///srv/a".into(), name: Some("a".into()) }],
            ..QuestionSettings::default()
        };
        assert_eq!(Ear::new(&questions).roots(), &json!({"roots": [{"uri": "file:///srv/a", "name": "a"}]}));
        assert!(none.answer(&json!(8), "sampling/createMessage").is_none());
        assert!(!none.hear("notifications/message", &json!({})));
    }
}
