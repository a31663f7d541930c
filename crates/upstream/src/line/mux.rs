//! Many requests over one stream of messages. Guards that a message reaches the call it belongs to and no other: where that
//! cannot be told, it reaches nobody; and that what waits for one call is bounded, in number and in bytes. Must not block on
//! a call that does not listen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_model::PrincipalId;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Ask;

use crate::ear::Ear;
use crate::wire::{self, Incoming, Trouble};

/// Messages of one call that wait to be read. Beyond it, reports of progress and log messages are dropped.
const QUEUE: usize = 256;
/// Places kept for answers and questions.
const KEPT: usize = 16;

/// How long after a call of somebody what is said to everybody could still be about it.
const ECHO: Duration = Duration::from_secs(2);

struct Waiting {
    sender: mpsc::Sender<(Incoming, usize)>,
    principal: PrincipalId,
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
    /// Numbers of requests whose progress is that of another one.
    follows: HashMap<u64, u64>,
    /// Who called lately, and when that ended.
    lately: HashMap<PrincipalId, Instant>,
    end: Option<Trouble>,
}

impl State {
    /// Takes a call out.
    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.follows.retain(|_, of| *of != id);
        if waiting.asks_people {
            let now = Instant::now();
            self.lately.retain(|_, at| now.duration_since(*at) < ECHO);
            self.lately.insert(waiting.principal.clone(), now);
        }
        Some(waiting)
    }

    /// Whose progress is told with this token.
    fn of_token(&self, params: &Value) -> Option<&Waiting> {
        let token = params.get("progressToken").and_then(Value::as_u64)?;
        self.waiting.get(self.follows.get(&token).unwrap_or(&token))
    }

    /// The calls somebody listens to.
    fn listening(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values().filter(|waiting| waiting.asks_people)
    }

    /// Whether all that is under way, and was a moment ago, is of one principal.
    fn is_of_one(&self) -> bool {
        let Some(one) = self.listening().next().map(|waiting| &waiting.principal) else { return false };
        let lately = self.lately.iter().filter(|(_, at)| at.elapsed() < ECHO).map(|(principal, _)| principal);
        self.listening().map(|waiting| &waiting.principal).chain(lately).all(|principal| principal == one)
    }
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

/// That what a person was to do on a page is done (2025-11-25).
pub(crate) const PAGE_DONE: &str = "notifications/elicitation/complete";

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

    /// Expects messages for a request. `cancel` is called with a message for the upstream when the call is dropped early.
    pub(crate) fn expect(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        idle: Duration,
        cancel: Box<dyn Fn(Vec<u8>) + Send + Sync>,
    ) -> Result<MuxCall, Trouble> {
        let (sender, receiver) = mpsc::channel(QUEUE + KEPT);
        let (id, asks_people, principal) = (ask.id, ask.listens(), ask.principal.clone());
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        let held = Arc::new(Held::default());
        state.waiting.insert(id, Waiting { sender, principal, asks_people, held: held.clone() });
        state.follows.extend(ask.follows.map(|earlier| (earlier, id)));
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
                if let Some(waiting) = id.as_u64().and_then(|id| state.remove(id)) {
                    let _ = waiting.sender.try_send((message, bytes));
                }
                None
            }
            Incoming::Notification { ref method, ref params } => {
                match method.as_str() {
                    "notifications/progress" => {
                        if let Some(waiting) = state.of_token(params) {
                            waiting.hear(message, bytes, self.most);
                        }
                    }
                    // Of a page only the call that asked for it takes notice.
                    "notifications/message" | PAGE_DONE if self.private => {
                        state.listening().for_each(|w| w.hear(message.clone(), bytes, self.most));
                    }
                    "notifications/message" => self.ear.misses_one(),
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

    /// Hands on what a server says beside the answers, on the stream everybody shares: progress by its token, that a page is
    /// done to the call that asked for it, and log messages where all calls are of one principal. Everything else is about
    /// nobody in particular, or it cannot be told about whom.
    pub(crate) fn overhear(&self, method: String, params: Value) {
        let (bytes, most) = (wire::weight(&params), self.most);
        let state = self.state();
        match method.as_str() {
            "notifications/progress" => {
                if let Some(waiting) = state.of_token(&params) {
                    waiting.hear(Incoming::Notification { method, params }, bytes, most);
                }
            }
            "notifications/message" if !state.is_of_one() => self.ear.misses_one(),
            "notifications/message" | PAGE_DONE => {
                let message = Incoming::Notification { method, params };
                state.listening().for_each(|waiting| waiting.hear(message.clone(), bytes, most));
            }
            _ => {
                self.ear.hear(&method, &params);
            }
        }
    }

    fn forget(&self, id: u64) -> bool {
        self.state().remove(id).is_some()
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

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What was said beside the call's own stream; waits for it.
    pub(crate) async fn overheard(&mut self) -> Incoming {
        match self.receiver.recv().await {
            Some((message, bytes)) => {
                self.held.bytes.fetch_sub(bytes, Ordering::SeqCst);
                message
            }
            None => std::future::pending().await,
        }
    }

    /// The same, of what was said already.
    pub(crate) fn overheard_so_far(&mut self) -> Option<Incoming> {
        let (message, bytes) = self.receiver.try_recv().ok()?;
        self.held.bytes.fetch_sub(bytes, Ordering::SeqCst);
        Some(message)
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
        expect_of(mux, id, "key:a", None).unwrap()
    }

    fn expect_of(mux: &Arc<Mux>, id: u64, who: &str, follows: Option<u64>) -> Result<MuxCall, Trouble> {
        let (principal, params) = (PrincipalId::new(who).unwrap(), json!({}));
        let ask = Ask { id, method: "tools/call", params: &params, headers: Vec::new(), principal: &principal, follows };
        mux.expect(&ask, Duration::from_secs(5), Box::new(|_| {}))
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
        let (principal, params) = (PrincipalId::new("key:a").unwrap(), json!({}));
        let ask = Ask { id: 3, method: "tools/call", params: &params, headers: Vec::new(), principal: &principal, follows: None };
        drop(mux.expect(&ask, Duration::from_secs(1), Box::new(keep)).unwrap());
        assert!(sent.lock().unwrap()[0].contains(r#""requestId":3"#));
        let mut call = expect(&mux, 4);
        mux.close(Trouble::TooLarge("4 bytes".into()));
        assert_eq!(call.next().await, Err(Trouble::TooLarge("4 bytes".into())));
        assert!(expect_of(&mux, 5, "key:a", None).is_err());
    }

    fn overhears(mux: &Mux, text: &str) {
        mux.overhear("notifications/message".into(), json!({ "data": text }));
    }

    fn heard(call: &mut MuxCall) -> Vec<Value> {
        let said = std::iter::from_fn(|| call.overheard_so_far());
        said.map(|message| if let Incoming::Notification { params, .. } = message { params } else { panic!("{message:?}") })
            .collect()
    }

    #[tokio::test]
    async fn what_is_said_beside_the_answers_reaches_the_one_principal_it_can_be_about_or_nobody() {
        let (ear, who) = (ear(), ["key:a", "key:b"]);
        let mux = Mux::new(false, ear.clone(), MOST);
        overhears(&mux, "nobody calls");
        assert_eq!(ear.missed(), 1);
        let (mut one, mut two) = (expect_of(&mux, 1, who[0], None).unwrap(), expect_of(&mux, 2, who[0], None).unwrap());
        overhears(&mux, "of a");
        assert_eq!((heard(&mut one), heard(&mut two)), (vec![json!({"data": "of a"})], vec![json!({"data": "of a"})]));
        let mut other = expect_of(&mux, 3, who[1], None).unwrap();
        overhears(&mux, "of a or b");
        assert_eq!((heard(&mut one), heard(&mut other), ear.missed()), (vec![], vec![], 2));
        // What a call of another one just ended could still be about it.
        drop(other);
        overhears(&mux, "of a or b still");
        assert_eq!((heard(&mut one), ear.missed()), (vec![], 3));
        mux.state().lately.clear();
        overhears(&mux, "of a again");
        assert_eq!(heard(&mut one).len(), 1);
        drop((one, two));
        overhears(&mux, "late");
        assert_eq!(ear.missed(), 4, "nobody calls any more");
    }

    #[tokio::test]
    async fn progress_goes_by_its_token_also_that_of_the_request_a_task_began_with() {
        let mux = Mux::new(false, ear(), MOST);
        let (mut task, mut other) = (expect_of(&mux, 8, "key:a", Some(3)).unwrap(), expect_of(&mux, 9, "key:b", None).unwrap());
        let progress = |token: u64| json!({"progressToken": token, "progress": 1});
        for token in [3, 8, 9, 4] {
            mux.overhear("notifications/progress".into(), progress(token));
        }
        assert_eq!((heard(&mut task), heard(&mut other)), (vec![progress(3), progress(8)], vec![progress(9)]));
        mux.deliver(Incoming::Notification { method: "notifications/progress".into(), params: progress(3) });
        assert_eq!(heard(&mut task), [progress(3)]);
        drop(task);
        assert!(mux.state().follows.is_empty());
    }
}
