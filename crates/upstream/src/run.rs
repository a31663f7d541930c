//! A call under way: what the upstream says and asks until it answers. Guards that a question is one the operator allows, is
//! recorded before it is asked, and is asked of the caller of this very call; and that there is an end to words and questions.
//! Must not open a call.

use std::sync::Arc;

use portcullis_egress::CameBack;
use portcullis_model::{Fault, FaultCode};
use portcullis_policy::Permit;
use portcullis_ports::{Exchange, InputRequest, NoticeLevel};
use serde_json::{Map, Value, json};

use crate::content::{Ending, ending};
use crate::conversation::Conversation;
use crate::drive::Answered;
use crate::ear::ROOTS;
use crate::health::Fitness;
use crate::line::{Call, PAGE_DONE, Proof};
use crate::parking::{Parked, Question};
use crate::protocol::FIXED;
use crate::questions::{self, May, Refused};
use crate::server::Server;
use crate::tasks::Task;
use crate::wire::{self, Incoming, Refusal, Trouble};

/// Under which a question of a session goes to the caller.
pub(crate) const QUESTION: &str = "question";

/// JSON-RPC code of a call that needs pages opened first (2025-11-25).
const LINKS_WANTED: i64 = -32_042;

/// JSON-RPC code of a call that needs what its client did not say it can (2026-07-28).
const CLIENT_LACKS: i64 = -32_021;

/// A call under way with everything that belongs to it.
pub(crate) struct Run<'r> {
    pub server: &'r Server,
    pub permit: &'r Permit,
    pub exchange: &'r dyn Exchange,
    pub conversation: Arc<Conversation>,
    pub proof: Arc<Proof>,
    /// How whoever is asked is doing.
    pub fitness: Arc<Fitness>,
    /// Kind and name of what is called.
    pub target: String,
    /// Words said so far.
    pub notices: u32,
    /// Questions asked so far, those refused included.
    pub asked: u32,
    /// What may be asked.
    pub may: May,
    /// The task it runs as.
    pub task: Option<Task>,
    /// Pages it wanted opened, by the names of those questions.
    pub pages: Vec<String>,
    /// What is on record of credentials that came back.
    pub echoed: CameBack,
}

/// What came of a call.
pub(crate) enum Settled {
    /// For the caller.
    Answered(Answered),
    /// The upstream wants answers this house has itself.
    Again {
        /// What is wanted back with them.
        state: Value,
        /// Questions asked so far.
        asked: u32,
    },
}

impl Run<'_> {
    /// Reads what belongs to the call until it ends, or asks something.
    pub(crate) async fn drive(mut self, mut call: Call) -> Result<Settled, Trouble> {
        let time = self.server.settings.limits.time.0;
        let until = tokio::time::Instant::from_std(self.permit.deadline()).min(tokio::time::Instant::now() + time);
        loop {
            let next = tokio::time::timeout_at(until, call.next()).await;
            let message = next.unwrap_or_else(|_| Err(Trouble::Slow(portcullis_model::format_duration(time))))?;
            match message {
                Incoming::Answer { result: Ok(result), .. } => return self.finished(result),
                Incoming::Answer { result: Err(refusal), .. } => return self.refused(refusal),
                Incoming::Notification { method, params } => self.hear(&method, params)?,
                Incoming::Request { id, method, params } => match self.question(&method, params)? {
                    Ok(question) => return self.ask(call, id, question).map(Settled::Answered),
                    Err(refused) => {
                        let refusal = wire::answer(&id, Err(refused));
                        self.conversation.line.say(self.permit, &self.proof, refusal).await?;
                    }
                },
            }
        }
    }

    /// Reads what belongs to the beginning of a task until there is one, or something else came of it. Nothing is asked yet.
    pub(crate) async fn begun(&mut self, mut call: Call) -> Result<Result<Value, Refusal>, Trouble> {
        loop {
            match call.next().await? {
                Incoming::Answer { mut result, .. } => {
                    if let Ok(result) = &mut result {
                        self.clean(result);
                    }
                    return Ok(result);
                }
                Incoming::Notification { method, params } => self.hear(&method, params)?,
                Incoming::Request { id, method, .. } => {
                    let refused = questions::NOT_PASSED_ON;
                    if self.count_question()? {
                        self.record_refused(&method, refused.1);
                    }
                    let refusal = wire::answer(&id, Err(refused));
                    self.conversation.line.say(self.permit, &self.proof, refusal).await?;
                }
            }
        }
    }

    fn done(&mut self) {
        if let Some(task) = &mut self.task {
            task.is_over();
        }
    }

    /// Reads an error. Some of them only want something of the caller first.
    pub(crate) fn refused(mut self, refusal: Refusal) -> Result<Settled, Trouble> {
        self.done();
        if refusal.code == LINKS_WANTED
            && let Some(asks) = self.links(&refusal.data)?
        {
            let mut pages = std::mem::take(&mut self.pages);
            pages.extend(asks.iter().filter_map(|(_, question)| page_of(question)));
            let links: Vec<&String> = asks.iter().map(|(key, _)| key).collect();
            let state = json!({"links": links, "asked": self.asked, "pages": pages});
            return Ok(Settled::Answered(Answered::Asks(asks, state)));
        }
        if refusal.code == CLIENT_LACKS
            && let Some(lacks) = self.lacks(&refusal.data)
        {
            return Ok(Settled::Answered(Answered::Asks(vec![(QUESTION.to_owned(), lacks)], Value::Null)));
        }
        let said = Trouble::Refused(refusal);
        let kept = said.clone().without(&self.proof.echoes);
        self.note_echo(CameBack { own: kept != said, others: false });
        Err(kept)
    }

    /// Takes out of what the upstream says what was presented to it.
    fn clean(&mut self, said: &mut Value) {
        let came_back = self.proof.echoes.value(said, &FIXED);
        self.note_echo(came_back);
    }

    /// Puts on record, once, that what was presented came back, and was taken out.
    fn note_echo(&mut self, came_back: CameBack) {
        if came_back.own && !std::mem::replace(&mut self.echoed.own, true) {
            self.permit.trail().note("a credential that was presented came back and was taken out");
        }
        if came_back.others && !std::mem::replace(&mut self.echoed.others, true) {
            self.permit.trail().note("what a client presented in another call came back and was taken out");
        }
    }

    /// Reads a result.
    pub(crate) fn finished(mut self, mut result: Value) -> Result<Settled, Trouble> {
        self.done();
        self.clean(&mut result);
        let (questions, state) = match ending(result).map_err(Trouble::House)? {
            Ending::Complete(members) => return Ok(Settled::Answered(Answered::Done(members))),
            Ending::Questions(questions, state) => (questions, state),
        };
        let (mut asks, mut roots, mut remembered) = (Vec::new(), Vec::new(), Map::new());
        for (key, InputRequest { method, params }) in questions {
            if method == ROOTS {
                self.count_question()?;
                roots.push(key);
                continue;
            }
            let question = self.question(&method, params)?.map_err(|(_, why)| {
                // A method nobody knows is any text, and not one of the house's words.
                let shown =
                    if matches!(method.as_str(), questions::ELICIT | questions::SAMPLE) { &method } else { "something unknown" };
                let fault = Fault::new(FaultCode::BackendFailed, format!("the upstream asks for '{shown}': {why}"));
                Trouble::House(
                    fault.with_hint("a client that can answer it, or the operator (upstreams: questions), can change that"),
                )
            })?;
            remembered.insert(key.clone(), json!([question.method, is_link(&question)]));
            asks.push((key, question));
        }
        let again = asks.is_empty() && !roots.is_empty();
        let mut pages = std::mem::take(&mut self.pages);
        pages.extend(asks.iter().filter_map(|(_, question)| page_of(question)));
        let state = json!({"stateless": true, "state": state, "questions": remembered, "roots": roots, "asked": self.asked,
            "pages": pages});
        if again {
            return Ok(Settled::Again { state, asked: self.asked });
        }
        Ok(Settled::Answered(Answered::Asks(asks, state)))
    }

    /// Judges a question and records it. What is to be asked and cannot be recorded is not asked.
    fn question(&mut self, method: &str, mut params: Value) -> Result<Result<InputRequest, Refused>, Trouble> {
        let first_refusal = self.count_question()?;
        let before = params.get("url").cloned();
        self.clean(&mut params);
        let judged = if params.get("url") == before.as_ref() {
            questions::judged(&self.server.settings, self.may, method, params)
        } else {
            Err((-32_602, "the address holds a credential"))
        };
        match judged {
            Ok(question) => {
                let note = format!("{} is put to the client of {}", shown(method), self.permit.principal_id());
                let recorded = self.server.record("upstream.question", self.subject(), true, note);
                Ok(if recorded { Ok(question) } else { Err((-32_603, "the question could not be recorded, so it is not asked")) })
            }
            Err((code, why)) => {
                // A flood of questions is one record: the call it belongs to has its own.
                if first_refusal || questions::is_foul((code, why)) {
                    self.record_refused(method, why);
                }
                Ok(Err((code, why)))
            }
        }
    }

    /// What its records are about.
    fn subject(&self) -> String {
        format!("{}/{}", self.server.name, self.target)
    }

    /// Puts on record that a question is not asked.
    fn record_refused(&self, method: &str, why: &str) {
        let note = format!("{} in a call of {}: {why}", shown(method), self.permit.principal_id());
        self.server.record("upstream.question", self.subject(), false, note);
    }

    /// The pages a person has to open before the call can be made (2025-11-25). Nothing where one of them is not passed on:
    /// then the refusal stands.
    fn links(&mut self, wanted: &Value) -> Result<Option<Vec<(String, InputRequest)>>, Trouble> {
        let mut asks = Vec::new();
        for (number, link) in wanted.get("elicitations").and_then(Value::as_array).into_iter().flatten().enumerate() {
            match self.question(questions::ELICIT, link.clone())? {
                Ok(question) if is_link(&question) => asks.push((format!("{QUESTION}-{number}"), question)),
                _ => return Ok(None),
            }
        }
        Ok((!asks.is_empty()).then_some(asks))
    }

    /// What the caller's client would have to be able to, and said it cannot, for a call the operator lets ask: a question it
    /// cannot be asked, so that it is told what it lacks in its own revision's words. Nothing where that is not the reason.
    fn lacks(&self, required: &Value) -> Option<InputRequest> {
        let (all, client) = (self.server.may, self.exchange.abilities());
        let required = required.get("requiredCapabilities")?;
        let wants = |pointer: &str| required.pointer(pointer).is_some();
        let method = if wants("/sampling") && all.sampling && !client.sampling {
            questions::SAMPLE
        } else if wants("/elicitation") && !wants("/elicitation/url") && all.forms && !client.elicitation {
            questions::ELICIT
        } else {
            return None;
        };
        Some(InputRequest { method: method.to_owned(), params: json!({}) })
    }

    /// Counts a question. Whether it is the first of this call.
    fn count_question(&mut self) -> Result<bool, Trouble> {
        self.asked = self.asked.saturating_add(1);
        let most = self.server.settings.questions.most;
        if self.asked > most { Err(Trouble::TooLarge(format!("{most} questions in one call"))) } else { Ok(self.asked == 1) }
    }

    /// Lets the call wait and hands its question to the caller.
    fn ask(self, mut call: Call, id: Value, question: InputRequest) -> Result<Answered, Trouble> {
        let method = if question.method == questions::SAMPLE { questions::SAMPLE } else { questions::ELICIT };
        call.rest();
        let pages = self.pages.into_iter().chain(page_of(&question)).collect();
        let parked = Parked {
            pages,
            fitness: self.fitness,
            principal: self.permit.principal_id().clone(),
            admitted: self.exchange.still_admitted(),
            target: self.target,
            call,
            conversation: self.conversation,
            proof: self.proof,
            question: Question { id, method, link: is_link(&question) },
            notices: self.notices,
            asked: self.asked,
            may: self.may,
            task: self.task,
        };
        // What nobody answers any more takes no place from it.
        self.server.end_unanswered();
        let handle = self.server.parking.park(parked).map_err(|(fault, parked)| {
            self.server.let_go(*parked, "there is no room for another call that waits");
            Trouble::House(fault)
        })?;
        Ok(Answered::Asks(vec![(QUESTION.to_owned(), question)], json!({ "parked": handle })))
    }

    fn count(&mut self) -> Result<(), Trouble> {
        self.notices += 1;
        let most = self.server.settings.limits.notices;
        if self.notices > most { Err(Trouble::TooLarge(format!("{most} notifications in one call"))) } else { Ok(()) }
    }

    fn hear(&mut self, method: &str, mut params: Value) -> Result<(), Trouble> {
        self.count()?;
        self.clean(&mut params);
        match method {
            "notifications/progress" => {
                let number = |name: &str| params.get(name).and_then(Value::as_f64);
                if let Some(done) = number("progress") {
                    let message = params.get("message").and_then(Value::as_str).unwrap_or_default();
                    self.exchange.progress(done, number("total"), message);
                }
            }
            "notifications/message" => {
                let level = level(params.get("level").and_then(Value::as_str).unwrap_or_default());
                let logger = params.get("logger").and_then(Value::as_str).unwrap_or(&self.server.name).to_owned();
                let data = params.get_mut("data").map(Value::take).unwrap_or_default();
                self.exchange.notice(level, &logger, data);
            }
            PAGE_DONE => {
                let page =
                    params.get("elicitationId").and_then(Value::as_str).filter(|id| self.pages.iter().any(|page| page == id));
                if let Some(page) = page {
                    self.exchange.page_done(page);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A method nobody may know, for records.
fn shown(method: &str) -> String {
    method.chars().filter(|c| portcullis_guard::is_seen(*c)).take(60).collect()
}

/// The name of a question that wants a page opened.
fn page_of(question: &InputRequest) -> Option<String> {
    let name = question.params.get("elicitationId").filter(|_| is_link(question));
    name.and_then(Value::as_str).map(str::to_owned)
}

/// Whether a question wants a page opened.
fn is_link(question: &InputRequest) -> bool {
    question.params.get("mode").is_some_and(|mode| mode == "url")
}

fn level(name: &str) -> NoticeLevel {
    match name {
        "debug" => NoticeLevel::Debug,
        "info" => NoticeLevel::Info,
        "notice" => NoticeLevel::Notice,
        "warning" => NoticeLevel::Warning,
        _ => NoticeLevel::Error,
    }
}
