//! Many requests over one stream of messages. Guards that a message reaches the call it belongs to and no other: where that
//! cannot be told, it reaches nobody. Must not block on a call that does not listen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::wire::{self, Incoming, Trouble};

/// Messages of one call that wait to be read. Beyond it, reports of progress and log messages are dropped.
const QUEUE: usize = 256;
/// Places kept for answers and questions.
const KEPT: usize = 16;

struct Waiting {
    sender: mpsc::Sender<Incoming>,
    asks_people: bool,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, Waiting>,
    end: Option<Trouble>,
}

/// The calls of one line.
pub(crate) struct Mux {
    state: Mutex<State>,
    /// Told when the upstream says that its definitions changed.
    changed: Arc<Notify>,
    /// Whether every call belongs to one principal.
    private: bool,
}

/// What the line should send back at once.
pub(crate) type Reply = Option<Vec<u8>>;

impl Mux {
    pub(crate) fn new(private: bool, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed, private })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the line ended; `None` while it has not.
    pub(crate) fn end(&self) -> Option<Trouble> {
        self.state().end.clone()
    }

    /// Whether a call is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.state().waiting.values().any(|waiting| waiting.asks_people)
    }

    /// Ends every call.
    pub(crate) fn close(&self, trouble: Trouble) {
        let mut state = self.state();
        state.end.get_or_insert(trouble);
        state.waiting.clear();
    }

    /// Expects messages for `id`. `cancel` is called with a message for the upstream when the call is dropped early.
    pub(crate) fn expect(
        self: &Arc<Self>,
        id: u64,
        method: &str,
        idle: Duration,
        cancel: Box<dyn Fn(Vec<u8>) + Send + Sync>,
    ) -> Result<MuxCall, Trouble> {
        let (sender, receiver) = mpsc::channel(QUEUE + KEPT);
        let asks_people = matches!(method, "tools/call" | "prompts/get" | "resources/read");
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        state.waiting.insert(id, Waiting { sender, asks_people });
        drop(state);
        Ok(MuxCall { mux: self.clone(), id, receiver, idle, answered: false, cancel })
    }

    /// Gives a message to whom it belongs.
    pub(crate) fn deliver(&self, message: Incoming) -> Reply {
        let mut state = self.state();
        match message {
            Incoming::Answer { ref id, .. } => {
                if let Some(waiting) = id.as_u64().and_then(|id| state.waiting.remove(&id)) {
                    let _ = waiting.sender.try_send(message);
                }
                None
            }
            Incoming::Notification { ref method, ref params } => {
                match method.as_str() {
                    "notifications/progress" => {
                        let token = params.get("progressToken").and_then(Value::as_u64);
                        if let Some(waiting) = token.and_then(|token| state.waiting.get(&token)) {
                            waiting.hear(message);
                        }
                    }
                    "notifications/message" if self.private => {
                        state.waiting.values().filter(|w| w.asks_people).for_each(|w| w.hear(message.clone()));
                    }
                    changed if is_change(changed) => self.changed.notify_one(),
                    _ => {}
                }
                None
            }
            Incoming::Request { ref id, ref method, .. } => {
                if method == "ping" {
                    return Some(wire::answer(id, Ok(json!({}))));
                }
                let mut calls = state.waiting.values().filter(|w| w.asks_people);
                match (calls.next(), calls.next(), self.private) {
                    (Some(only), None, true) if only.sender.try_send(message.clone()).is_ok() => None,
                    _ => Some(wire::answer(id, Err((-32_600, "it cannot be told which call this question belongs to")))),
                }
            }
        }
    }

    fn forget(&self, id: u64) -> bool {
        self.state().waiting.remove(&id).is_some()
    }
}

/// Whether a notification says that definitions changed.
pub(crate) fn is_change(method: &str) -> bool {
    matches!(
        method,
        "notifications/tools/list_changed" | "notifications/prompts/list_changed" | "notifications/resources/list_changed"
    )
}

impl Waiting {
    fn hear(&self, message: Incoming) {
        if self.sender.capacity() > KEPT {
            let _ = self.sender.try_send(message);
        }
    }
}

/// One request over a shared line.
pub(crate) struct MuxCall {
    mux: Arc<Mux>,
    id: u64,
    receiver: mpsc::Receiver<Incoming>,
    idle: Duration,
    answered: bool,
    cancel: Box<dyn Fn(Vec<u8>) + Send + Sync>,
}

impl MuxCall {
    pub(crate) async fn next(&mut self) -> Result<Incoming, Trouble> {
        match tokio::time::timeout(self.idle, self.receiver.recv()).await {
            Ok(Some(message)) => {
                self.answered |= matches!(message, Incoming::Answer { .. });
                Ok(message)
            }
            Ok(None) => {
                self.answered = true;
                Err(self.mux.end().unwrap_or_else(|| Trouble::Gone("the line ended".into())))
            }
            Err(_elapsed) => Err(Trouble::Slow(portcullis_model::format_duration(self.idle))),
        }
    }
}

impl Drop for MuxCall {
    fn drop(&mut self) {
        if !self.answered && self.mux.forget(self.id) {
            let params = json!({"requestId": self.id, "reason": "the caller went away"});
            (self.cancel)(wire::notification("notifications/cancelled", &params));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(mux: &Arc<Mux>, id: u64) -> MuxCall {
        mux.expect(id, "tools/call", Duration::from_secs(5), Box::new(|_| {})).unwrap()
    }

    fn message(text: &str) -> Incoming {
        Incoming::Notification { method: "notifications/message".into(), params: json!({"data": text}) }
    }

    fn question() -> Incoming {
        Incoming::Request { id: json!(1), method: "elicitation/create".into(), params: json!({}) }
    }

    #[tokio::test]
    async fn what_belongs_to_nobody_for_certain_reaches_nobody() {
        let shared = Mux::new(false, Arc::default());
        let mut call = expect(&shared, 1);
        shared.deliver(message("of somebody"));
        assert!(shared.deliver(question()).is_some(), "refused");
        shared.deliver(Incoming::Answer { id: json!(1), result: Ok(json!({})) });
        assert!(matches!(call.next().await, Ok(Incoming::Answer { .. })));
        let private = Mux::new(true, Arc::default());
        let mut one = expect(&private, 1);
        assert!(private.deliver(question()).is_none());
        let _two = expect(&private, 2);
        assert!(private.deliver(question()).is_some(), "two calls are under way");
        assert!(matches!(one.next().await, Ok(Incoming::Request { .. })));
    }

    #[tokio::test]
    async fn an_answer_gets_through_however_much_was_said_before() {
        let mux = Mux::new(true, Arc::default());
        let mut call = expect(&mux, 7);
        for _ in 0..10_000 {
            mux.deliver(message("x"));
        }
        mux.deliver(Incoming::Answer { id: json!(7), result: Ok(json!({})) });
        let mut heard = 0;
        while let Incoming::Notification { .. } = call.next().await.unwrap() {
            heard += 1;
        }
        assert_eq!(heard, QUEUE);
    }

    #[tokio::test]
    async fn a_dropped_call_is_cancelled_and_an_ended_line_says_why() {
        let mux = Mux::new(false, Arc::default());
        let sent = Arc::new(Mutex::new(Vec::new()));
        let kept = sent.clone();
        let keep = move |message: Vec<u8>| kept.lock().unwrap().push(String::from_utf8(message).unwrap());
        drop(mux.expect(3, "tools/call", Duration::from_secs(1), Box::new(keep)).unwrap());
        assert!(sent.lock().unwrap()[0].contains(r#""requestId":3"#));
        let mut call = expect(&mux, 4);
        mux.close(Trouble::TooLarge("4 bytes".into()));
        assert_eq!(call.next().await, Err(Trouble::TooLarge("4 bytes".into())));
        assert!(mux.expect(5, "x", Duration::from_secs(1), Box::new(|_| {})).is_err());
    }
}
