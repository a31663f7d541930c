//! Tools that only run as a task (2025-11-25): this house follows the task and hands on what comes of it, so a caller sees a
//! call like every other. Guards that a task nobody waits for any more is cancelled. Must not offer tasks to callers.

use std::sync::Arc;

use portcullis_policy::Charter;
use serde_json::{Value, json};

use crate::conversation::Conversation;
use crate::line::Proof;
use crate::wire::{self, Trouble};

/// Longest id of a task.
const LONGEST_ID: usize = 512;

/// A task under way. Dropped before it is over, it is cancelled.
pub(crate) struct Task {
    conversation: Arc<Conversation>,
    proof: Arc<Proof>,
    charter: Charter,
    id: String,
    over: bool,
}

/// What a call to be run as a task brought.
pub(crate) enum Created {
    /// A task of this id.
    Task(String),
    /// Its result, at once.
    Result(Value),
}

/// Whether a definition says that its tool only runs as a task.
pub(crate) fn required(definition: &Value) -> bool {
    definition.pointer("/execution/taskSupport").is_some_and(|support| support == "required")
}

/// Reads what a call to be run as a task brought.
pub(crate) fn created(result: Value) -> Result<Created, Trouble> {
    let Some(task) = result.get("task") else { return Ok(Created::Result(result)) };
    match task.get("taskId").and_then(Value::as_str).filter(|id| !id.is_empty() && id.len() <= LONGEST_ID) {
        Some(id) => Ok(Created::Task(id.to_owned())),
        None => Err(Trouble::Garbage("a task without an id".into())),
    }
}

impl Task {
    pub(crate) fn new(conversation: &Arc<Conversation>, proof: &Arc<Proof>, charter: &Charter, id: String) -> Self {
        Self { conversation: conversation.clone(), proof: proof.clone(), charter: charter.clone(), id, over: false }
    }

    /// It ended by itself.
    pub(crate) fn is_over(&mut self) {
        self.over = true;
    }

    /// What says that an answer belongs to it.
    pub(crate) fn meta(&self) -> Value {
        json!({"io.modelcontextprotocol/related-task": {"taskId": self.id}})
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.over {
            return;
        }
        let (conversation, proof, charter) = (self.conversation.clone(), self.proof.clone(), self.charter.clone());
        let cancel = wire::request(conversation.number(), "tasks/cancel", &json!({"taskId": self.id}));
        runtime.spawn(async move {
            // It ends by itself when its time is over, should this not arrive.
            let _ = conversation.line.say(&charter.permit(), &proof, cancel).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_an_id_and_a_result_is_a_result() {
        let task = json!({"task": {"taskId": "t", "status": "working"}});
        assert!(matches!(created(task), Ok(Created::Task(id)) if id == "t"));
        assert!(matches!(created(json!({"content": []})), Ok(Created::Result(_))));
        for bad in [json!({"task": {}}), json!({"task": {"taskId": ""}}), json!({"task": {"taskId": "x".repeat(600)}})] {
            assert!(created(bad).is_err());
        }
        assert!(required(&json!({"execution": {"taskSupport": "required"}})));
        assert!(!required(&json!({"execution": {"taskSupport": "optional"}})) && !required(&json!({})));
    }
}
