//! The ids of requests under way in one conversation. A client that uses one again could not tell the two answers apart,
//! and the answer of the second would never leave: it is refused at once, and the first is not touched (JSON-RPC 2.0,
//! section 4; MCP, basic: "The request ID MUST NOT have been previously used by the requestor within the same session").
//!
//! Must not grow with the length of a conversation: answered ids may be used again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_model::cut;
use rmcp::RoleServer;
use rmcp::model::{ClientJsonRpcMessage, ClientNotification, RequestId, ServerJsonRpcMessage};
use rmcp::transport::Transport;

/// Cancelled requests that are remembered: their work may still be ending, and what it leaves must not pass for the answer
/// of another request.
const CANCELLED: usize = 256;

/// The rule in the record of such a refusal.
pub(crate) const RULE: &str = "request-id-in-use";

/// Ids in use. Cheap to clone; clones are the same book.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    open: HashSet<RequestId>,
    cancelled: VecDeque<RequestId>,
}

impl InFlight {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request of this id may begin; then the id is in use.
    pub(crate) fn begin(&self, id: &RequestId) -> bool {
        let mut book = self.book();
        !book.cancelled.contains(id) && book.open.insert(id.clone())
    }

    /// The request is answered, or never began.
    pub(crate) fn end(&self, id: &RequestId) {
        self.book().open.remove(id);
    }

    /// Notes what the server says: an answer ends its request.
    pub(crate) fn said(&self, message: &ServerJsonRpcMessage) {
        match message {
            ServerJsonRpcMessage::Response(response) => self.end(&response.id),
            ServerJsonRpcMessage::Error(error) => {
                if let Some(id) = &error.id {
                    self.end(id);
                }
            }
            _ => {}
        }
    }

    /// Notes what the client says: a cancelled request gets no answer, and its id is not used again for a while.
    pub(crate) fn heard(&self, message: &ClientJsonRpcMessage) {
        let ClientJsonRpcMessage::Notification(notification) = message else { return };
        let ClientNotification::CancelledNotification(cancelled) = &notification.notification else { return };
        let Some(id) = &cancelled.params.request_id else { return };
        let mut book = self.book();
        if book.open.remove(id) {
            if book.cancelled.len() >= CANCELLED {
                book.cancelled.pop_front();
            }
            book.cancelled.push_back(id.clone());
        }
    }
}

/// What a client is told that uses an id again. The error itself carries no id: it would be taken for the answer to the
/// request that is under way.
pub(crate) fn sentence(id: &RequestId) -> String {
    let shown = cut::quoted(&id.to_string(), 64);
    format!("the request id {shown} is already in use in this session: give every request an id of its own")
}

/// A transport that tells the book what is answered.
pub(crate) struct Noted<T> {
    inner: T,
    ids: InFlight,
}

impl<T> Noted<T> {
    pub(crate) fn new(inner: T, ids: InFlight) -> Self {
        Self { inner, ids }
    }
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for Noted<T> {
    type Error = T::Error;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        // Before it leaves, so that whoever has the answer may use the id again.
        self.ids.said(&message);
        self.inner.send(message)
    }

    fn receive(&mut self) -> impl Future<Output = Option<ClientJsonRpcMessage>> + Send {
        self.inner.receive()
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(number: i64) -> RequestId {
        RequestId::Number(number)
    }

    #[test]
    fn an_id_is_free_again_when_its_request_is_answered() {
        let ids = InFlight::default();
        assert!(ids.begin(&id(1)) && ids.begin(&RequestId::String("1".into())), "a number and a text are two ids");
        assert!(!ids.begin(&id(1)));
        let answer = serde_json::from_value(json!({"jsonrpc": "2.0", "id": 1, "result": {}})).unwrap();
        ids.said(&answer);
        assert!(ids.begin(&id(1)));
        let error = serde_json::from_value(json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "x"}})).unwrap();
        ids.said(&error);
        assert!(ids.begin(&id(1)));
    }

    #[test]
    fn a_cancelled_id_is_not_used_again_and_the_memory_of_them_is_bounded() {
        let ids = InFlight::default();
        let cancel = |number: i64| {
            let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}});
            ids.heard(&serde_json::from_value(message).unwrap());
        };
        assert!(ids.begin(&id(0)));
        cancel(0);
        assert!(!ids.begin(&id(0)));
        for number in 1..=i64::try_from(CANCELLED).unwrap() {
            assert!(ids.begin(&id(number)));
            cancel(number);
        }
        assert_eq!(ids.book().cancelled.len(), CANCELLED);
        assert!(ids.begin(&id(0)), "forgotten after {CANCELLED} others");
        cancel(9_999);
        assert!(ids.begin(&id(9_999)), "cancelling what is not under way takes nothing away");
    }
}
