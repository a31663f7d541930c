//! Many requests over one stream of messages. Guards that a message reaches the call it belongs to and no other: where that
//! cannot be told, it reaches nobody; and that what waits for one call is bounded, in number and in bytes. Must not block on
//! a call that does not listen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::ear::Ear;
use crate::wire::{self, Incoming, Trouble};

/// Messages of one call that wait to be read. Beyond it, reports of progress and log messages are dropped.
const QUEUE: usize = 256;
/// Places kept for answers and questions.
const KEPT: usize = 16;

struct Waiting {
    sender: mpsc::Sender<(Incoming, usize)>,
    asks_people: bool,
    held: Arc<Held>,
}

/// What one call has not read yet.
#[derive(Default)]
struct Held {
    /// Bytes of the messages in memory, about.
    bytes: AtomicUsize,
    /// Whether a person is asked meanwhile, so that nobody reads.
    rests: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u64, Waiting>,
    end: Option<Trouble>,
}

/// The calls of one line.
pub(crate) struct Mux {
    state: Mutex<State>,
    /// Hears what belongs to no call.
    ear: Arc<Ear>,
    /// Whether every call belongs to one principal.
    private: bool,
    /// Bytes of messages that may wait for one call, beside its answer.
    most: usize,
}

/// What the line should send back at once.
pub(crate) type Reply = Option<Vec<u8>>;

impl Mux {
    /// `most`: bytes of messages that may wait for one call, beside its answer.
    pub(crate) fn new(private: bool, ear: Arc<Ear>, most: u64) -> Arc<Self> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Arc::new(Self { state: Mutex::default(), ear, private, most })
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
        let asks_people = matches!(method, "tools/call" | "prompts/get" | "resources/read" | "tasks/result");
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        let held = Arc::new(Held::default());
        state.waiting.insert(id, Waiting { sender, asks_people, held: held.clone() });
        drop(state);
        Ok(MuxCall { mux: self.clone(), id, receiver, held, idle, answered: false, cancel })
    }

    /// Gives a message to whom it belongs.
    pub(crate) fn deliver(&self, message: Incoming) -> Reply {
        let bytes = match &message {
            Incoming::Answer { .. } => 0,
            Incoming::Notification { params, .. } | Incoming::Request { params, .. } => wire::weight(params),
        };
        let mut state = self.state();
        match message {
            Incoming::Answer { ref id, .. } => {
                if let Some(waiting) = id.as_u64().and_then(|id| state.waiting.remove(&id)) {
                    let _ = waiting.sender.try_send((message, bytes));
                }
                None
            }
            Incoming::Notification { ref method, ref params } => {
                match method.as_str() {
                    "notifications/progress" => {
                        let token = params.get("progressToken").and_then(Value::as_u64);
                        if let Some(waiting) = token.and_then(|token| state.waiting.get(&token)) {
                            waiting.hear(message, bytes, self.most);
                        }
                    }
                    "notifications/message" if self.private => {
                        state.waiting.values().filter(|w| w.asks_people).for_each(|w| w.hear(message.clone(), bytes, self.most));
                    }
                    other => {
                        self.ear.hear(other, params);
                    }
                }
                None
            }
            Incoming::Request { ref id, ref method, .. } => {
                if let Some(answer) = self.ear.answer(id, method) {
                    return Some(answer);
                }
                let mut calls = state.waiting.values().filter(|w| w.asks_people);
                match (calls.next(), calls.next(), self.private) {
                    (Some(only), None, true) if only.take(message.clone(), bytes, self.most) => None,
                    _ => Some(wire::answer(id, Err((-32_600, "it cannot be told which call this question belongs to")))),
                }
            }
        }
    }

    fn forget(&self, id: u64) -> bool {
        self.state().waiting.remove(&id).is_some()
    }
}

impl Waiting {
    /// What need not be heard: dropped while nobody reads, or when too much waits already.
    fn hear(&self, message: Incoming, bytes: usize, most: usize) {
        if self.sender.capacity() > KEPT && !self.held.rests.load(Ordering::SeqCst) {
            self.take(message, bytes, most);
        }
    }

    /// Lets a message wait. Whether there was room for it.
    fn take(&self, message: Incoming, bytes: usize, most: usize) -> bool {
        // Only this side adds, one message after the other.
        let room = most.saturating_sub(self.held.bytes.load(Ordering::SeqCst));
        if bytes > room {
            return false;
        }
        self.held.bytes.fetch_add(bytes, Ordering::SeqCst);
        let taken = self.sender.try_send((message, bytes)).is_ok();
        if !taken {
            self.held.bytes.fetch_sub(bytes, Ordering::SeqCst);
        }
        taken
    }
}

/// One request over a shared line.
pub(crate) struct MuxCall {
    mux: Arc<Mux>,
    id: u64,
    receiver: mpsc::Receiver<(Incoming, usize)>,
    held: Arc<Held>,
    idle: Duration,
    answered: bool,
    cancel: Box<dyn Fn(Vec<u8>) + Send + Sync>,
}

impl MuxCall {
    pub(crate) async fn next(&mut self) -> Result<Incoming, Trouble> {
        match tokio::time::timeout(self.idle, self.receiver.recv()).await {
            Ok(Some((message, bytes))) => {
                self.held.bytes.fetch_sub(bytes, Ordering::SeqCst);
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

    /// Says whether nobody reads for now.
    pub(crate) fn rest(&self, rests: bool) {
        self.held.rests.store(rests, Ordering::SeqCst);
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

    const MOST: u64 = 10_000;

    fn expect(mux: &Arc<Mux>, id: u64) -> MuxCall {
        mux.expect(id, "tools/call", Duration::from_secs(5), Box::new(|_| {})).unwrap()
    }

    fn ear() -> Arc<Ear> {
        Ear::new(&crate::settings::QuestionSettings::default())
    }

    fn message(text: &str) -> Incoming {
        Incoming::Notification { method: "notifications/message".into(), params: json!({"data": text}) }
    }

    fn question() -> Incoming {
        Incoming::Request { id: json!(1), method: "elicitation/create".into(), params: json!({}) }
    }

    #[tokio::test]
    async fn what_belongs_to_nobody_for_certain_reaches_nobody() {
        let shared = Mux::new(false, ear(), MOST);
        let mut call = expect(&shared, 1);
        shared.deliver(message("of somebody"));
        assert!(shared.deliver(question()).is_some(), "refused");
        shared.deliver(Incoming::Answer { id: json!(1), result: Ok(json!({})) });
        assert!(matches!(call.next().await, Ok(Incoming::Answer { .. })));
        let roots = Incoming::Request { id: json!(2), method: "roots/list".into(), params: json!({}) };
        let told = String::from_utf8(shared.deliver(roots).unwrap()).unwrap();
        assert!(told.contains(r#""roots":[]"#), "of the house, whoever calls: {told}");
        let private = Mux::new(true, ear(), MOST);
        let mut one = expect(&private, 1);
        assert!(private.deliver(question()).is_none());
        let _two = expect(&private, 2);
        assert!(private.deliver(question()).is_some(), "two calls are under way");
        assert!(matches!(one.next().await, Ok(Incoming::Request { .. })));
    }

    #[tokio::test]
    async fn an_answer_gets_through_however_much_was_said_before() {
        let mux = Mux::new(true, ear(), 1 << 20);
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
    async fn what_waits_for_a_call_is_bounded_in_bytes_and_nothing_waits_while_nobody_reads() {
        let mux = Mux::new(true, ear(), MOST);
        let mut call = expect(&mux, 1);
        for _ in 0..5 {
            mux.deliver(message(&"x".repeat(4_000)));
        }
        let long =
            |length| Incoming::Request { id: json!(1), method: "elicitation/create".into(), params: json!("x".repeat(length)) };
        assert!(mux.deliver(long(4_000)).is_some(), "no room: refused at once");
        assert!(mux.deliver(long(1_000)).is_none());
        for _ in 0..2 {
            assert!(matches!(call.next().await, Ok(Incoming::Notification { .. })), "two of them fit");
        }
        assert!(matches!(call.next().await, Ok(Incoming::Request { .. })));
        call.rest(true);
        mux.deliver(message("nobody reads"));
        call.rest(false);
        mux.deliver(message("heard"));
        let Ok(Incoming::Notification { params, .. }) = call.next().await else { panic!("nothing was heard") };
        assert_eq!(params["data"], "heard");
        assert_eq!(mux.state().waiting[&1].held.bytes.load(Ordering::SeqCst), 0);
        // The answer comes, however large.
        mux.deliver(Incoming::Answer { id: json!(1), result: Ok(json!("x".repeat(100_000))) });
        assert!(matches!(call.next().await, Ok(Incoming::Answer { .. })));
    }

    #[tokio::test]
    async fn a_dropped_call_is_cancelled_and_an_ended_line_says_why() {
        let mux = Mux::new(false, ear(), MOST);
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
