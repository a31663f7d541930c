//! The end of the road: one record for every way a call can end, dropped futures included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_identity::Transport;
use portcullis_model::{Fault, FaultCode, Principal, RiskClass, Whence};
use portcullis_policy::Trail;
use serde_json::Value;

use crate::Caller;
use crate::admission::Reserved;

/// How one journey along the road ended.
#[derive(Debug, Clone)]
pub struct RoadEnd {
    /// Who; absent when identification failed.
    pub principal: Option<Arc<Principal>>,
    /// By which face.
    pub transport: Transport,
    /// From where.
    pub whence: Option<Whence>,
    /// Session of the older eras.
    pub session: Option<Arc<str>>,
    /// MCP method.
    pub method: &'static str,
    /// Tool, prompt or resource asked for; cut to a bounded length.
    pub target: String,
    /// Whether the target is a tool of the catalogue, so that its name is one of a bounded number.
    pub known: bool,
    /// The tool the caller called to have this one called, where it was not called itself.
    pub via: Option<&'static str>,
    /// Where the record stands that was written before this call was made, as the recorder names it.
    pub intent: Option<Arc<str>>,
    /// Arguments, to be fingerprinted by the recorder, never stored.
    pub arguments: Option<Value>,
    /// What the tool can do at worst; absent for what is no tool call.
    pub risk: Option<RiskClass>,
    /// Whether it was let through.
    pub allowed: bool,
    /// The rule that decided.
    pub rule: Arc<str>,
    /// `None` when it went well.
    pub code: Option<FaultCode>,
    /// For the operator only.
    pub note: Option<String>,
    /// Microseconds from arrival to end.
    pub latency_micros: u64,
    /// Bytes released.
    pub bytes_out: u64,
    /// Sources touched.
    pub sources: Vec<Arc<str>>,
    /// Redactions by kind.
    pub redactions: Vec<(&'static str, u64)>,
    /// What was seen in untrusted text: hidden characters that are gone, and texts like instructions that are not.
    pub signs: Vec<(&'static str, u64)>,
    /// Trace id of the request.
    pub trace_id: Option<String>,
    /// The record is of this alone: whoever failed to prove who it is has to wait this long from now on.
    pub lockout: Option<Duration>,
}

impl RoadEnd {
    /// Adds a few words for the operator to those that are there already: nothing noted on the way is lost.
    pub(crate) fn add_note(&mut self, words: impl Into<String>) {
        let words = words.into();
        self.note = Some(match self.note.take() {
            Some(before) => format!("{before}; {words}"),
            None => words,
        });
    }

    /// The end of somebody who never became a caller.
    pub(crate) fn of_stranger(transport: Transport, whence: Option<&Whence>, rule: &str, fault: &Fault) -> Self {
        Self {
            code: Some(fault.code()),
            note: fault.internal().map(str::to_owned),
            rule: Arc::from(rule),
            ..Self::new(transport, whence, "authenticate")
        }
    }

    fn new(transport: Transport, whence: Option<&Whence>, method: &'static str) -> Self {
        Self {
            principal: None,
            transport,
            whence: whence.cloned(),
            session: None,
            method,
            target: String::new(),
            known: false,
            via: None,
            intent: None,
            arguments: None,
            risk: None,
            allowed: false,
            rule: Arc::from("none"),
            code: None,
            note: None,
            latency_micros: 0,
            bytes_out: 0,
            sources: Vec::new(),
            redactions: Vec::new(),
            signs: Vec::new(),
            trace_id: None,
            lockout: None,
        }
    }

    /// A stranger has to wait from now on.
    pub(crate) fn of_lockout(transport: Transport, whence: Option<&Whence>, wait: Duration) -> Self {
        Self { lockout: Some(wait), rule: Arc::from("lockout"), ..Self::new(transport, whence, "lockout") }
    }
}

/// Where the records go. A failure to record refuses the call.
pub trait Recorder: Send + Sync {
    /// Writes one record; returns only when it is in the kernel's hands.
    ///
    /// # Errors
    /// Says, for the operator, why it could not be written.
    fn record(&self, end: &RoadEnd) -> Result<(), String>;

    /// Writes the record of a call that is about to be made, and gives where it stands, for the record of its end; returns only
    /// when it is in the kernel's hands.
    ///
    /// # Errors
    /// Says, for the operator, why it could not be written. Then the call is not made.
    fn intend(&self, call: &RoadEnd) -> Result<Option<Arc<str>>, String> {
        self.record(call).map(|()| None)
    }

    /// Whether a call of this risk class may begin. Asked before the work, so that nothing is done that cannot be
    /// recorded.
    ///
    /// # Errors
    /// Says, for the operator, why not.
    fn may_begin(&self, _risk: RiskClass) -> Result<(), String> {
        Ok(())
    }
}

/// A journey under way. When it is dropped without having ended (the caller went away), that is recorded too.
pub(crate) struct Journey {
    recorder: Arc<dyn Recorder>,
    started: Instant,
    end: Option<RoadEnd>,
    trail: Trail,
    /// What is set aside for it of the day; given back with it.
    reserved: Option<Reserved>,
}

/// Method in the record of a call that is about to be made.
pub const INTENT: &str = "call.intent";

/// Longest target handed to the recorder, which takes secrets out and keeps less: half of one could not be told.
const TARGET_CHARS: usize = 4_096;

fn bounded(target: &str) -> String {
    target.chars().filter(|c| !c.is_control()).take(TARGET_CHARS).collect()
}

impl Journey {
    pub(crate) fn begin(recorder: &Arc<dyn Recorder>, caller: &Caller, method: &'static str, target: &str) -> Self {
        let end = RoadEnd {
            principal: Some(caller.principal.clone()),
            session: caller.session.clone(),
            target: bounded(target),
            ..RoadEnd::new(caller.transport, caller.whence.as_ref(), method)
        };
        Self { recorder: recorder.clone(), started: Instant::now(), end: Some(end), trail: Trail::default(), reserved: None }
    }

    /// The journey is another tool's from here on.
    pub(crate) fn turn_to(&mut self, tool: &str, arguments: Value, via: &'static str) {
        self.note(|end| {
            end.target = bounded(tool);
            end.arguments = Some(arguments);
            end.risk = None;
            end.via = Some(via);
        });
    }

    /// Notes something about the journey.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut RoadEnd)) {
        if let Some(end) = &mut self.end {
            change(end);
        }
    }

    /// Keeps what is set aside for it.
    pub(crate) fn hold(&mut self, reserved: Option<Reserved>) {
        self.reserved = reserved;
    }

    /// What is set aside for it is given back when the caller of this says so.
    pub(crate) fn let_go(&mut self) -> Option<Reserved> {
        self.reserved.take()
    }

    /// From now on whatever this trail says belongs into the record, however the journey ends.
    pub(crate) fn follow(&mut self, trail: &Trail) {
        self.trail = trail.clone();
    }

    /// Writes a record of something beside the road's end, with what is known of the journey so far.
    pub(crate) fn beside(&self, method: &'static str, change: impl FnOnce(&mut RoadEnd)) -> Result<(), String> {
        let Some(end) = &self.end else { return Ok(()) };
        let mut record = RoadEnd { method, ..end.clone() };
        change(&mut record);
        self.recorder.record(&record)
    }

    /// Writes down that the call is about to be made, allowed by `rule`; the record of the end says where that stands.
    pub(crate) fn intend(&mut self, rule: &Arc<str>) -> Result<(), String> {
        let Some(end) = &self.end else { return Err("the call has ended already".to_owned()) };
        let call = RoadEnd { method: INTENT, allowed: true, rule: rule.clone(), ..end.clone() };
        let place = self.recorder.intend(&call)?;
        self.note(|end| end.intent = place);
        Ok(())
    }

    /// Ends it and writes the record.
    pub(crate) fn finish(mut self, change: impl FnOnce(&mut RoadEnd)) -> Result<(), String> {
        self.note(change);
        self.write()
    }

    fn write(&mut self) -> Result<(), String> {
        let Some(mut end) = self.end.take() else { return Ok(()) };
        end.latency_micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        for reached in self.trail.all_reached() {
            if !end.sources.contains(&reached) {
                end.sources.push(reached);
            }
        }
        // What the house saw first: the rest may be words of others, and a note is cut at its end.
        end.note = match (end.note.take(), self.trail.words()) {
            (Some(note), Some(words)) => Some(format!("{words}; {note}")),
            (note, words) => note.or(words),
        };
        self.recorder.record(&end)
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        if self.end.is_some() {
            self.note(|end| {
                end.code = Some(FaultCode::Cancelled);
                end.add_note("the caller went away before the answer");
            });
            if let Err(reason) = self.write() {
                tracing::error!(%reason, "the audit record of a cancelled call could not be written");
            }
        }
    }
}
