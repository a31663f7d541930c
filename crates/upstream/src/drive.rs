//! One call of an upstream, from the permit to the answer: the definition must be the accepted one, the upstream must be
//! well, a question goes to the caller and its answer back. Guards the order of these checks. Must not convert results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_model::{Fault, FaultCode};
use portcullis_policy::Permit;
use portcullis_ports::{Exchange, InputRequest, NoticeLevel};
use serde_json::{Map, Value, json};

use crate::content::{ELICIT, Ending, ending};
use crate::conversation::{Conversation, NOT_PASSED_ON};
use crate::definition::{Definition, Kind};
use crate::line::{Call, Proof};
use crate::parking::Parked;
use crate::server::{Owner, Server, Slot};
use crate::wire::{self, Incoming, Trouble};

/// How long a call waits for its place.
const PATIENCE: Duration = Duration::from_secs(5);
/// Under which a question of a session goes to the caller.
const QUESTION: &str = "question";

/// What is asked of an upstream.
pub(crate) struct Work<'w> {
    /// What kind of thing is used.
    pub kind: Kind,
    /// Its name: of a resource of a family, the template.
    pub name: &'w str,
    /// Digest of the definition the caller was shown.
    pub digest: &'w str,
    /// Method.
    pub method: &'static str,
    /// Parameters.
    pub params: Value,
    /// Headers that mirror arguments.
    pub headers: Vec<(String, String)>,
}

/// What came of it.
pub(crate) enum Answered {
    /// The members of the result.
    Done(Map<String, Value>),
    /// Questions to the caller, and what is wanted back with the answers.
    Asks(Vec<(String, InputRequest)>, Value),
}

/// A call under way with everything that belongs to it.
struct Run<'r> {
    server: &'r Server,
    permit: &'r Permit,
    exchange: &'r dyn Exchange,
    conversation: Arc<Conversation>,
    proof: Arc<Proof>,
    target: String,
    notices: u32,
    can_ask: bool,
}

impl Server {
    /// Does a piece of work for a caller.
    pub(crate) async fn work(&self, permit: &Permit, mut work: Work<'_>, exchange: &dyn Exchange) -> Result<Answered, Fault> {
        self.admits(permit)?;
        let target = format!("{}/{}", work.kind, work.name);
        let mut answers = exchange.answers().cloned();
        let state = answers.as_mut().and_then(|answers| answers.state.take()).unwrap_or_default();
        if let Some(handle) = state.get("parked").and_then(Value::as_str) {
            let parked = self.parking.take(handle, permit.principal_id(), &target)?;
            let _place = self.health.place(&self.name, PATIENCE).await?;
            let answer = answers.and_then(|answers| answers.responses.get(QUESTION).cloned());
            return self.go_on(permit, parked, answer, exchange).await;
        }
        if let Some(answers) = answers.filter(|_| state.get("stateless").is_some())
            && let Some(params) = work.params.as_object_mut()
        {
            params.insert("inputResponses".into(), Value::Object(answers.responses.into_iter().collect()));
            if let Some(state) = state.get("state").filter(|state| !state.is_null()) {
                params.insert("requestState".into(), state.clone());
            }
        }
        let pins = self.pins.get().ok_or_else(|| self.unready())?;
        if pins.digest_in_use(work.kind, work.name).as_deref() != Some(work.digest) {
            return Err(self.held(work.kind, work.name));
        }
        self.health.may_ask(&self.name)?;
        let _place = self.health.place(&self.name, PATIENCE).await?;
        let arrived = Instant::now();
        let (proof, owner) = self.present(permit, Some(exchange)).await?;
        let slot = self.slot(&owner)?;
        let done = self.attempt(permit, &work, exchange, (&proof, &owner, &slot), arrived).await;
        match done {
            // A session that ended before the call was taken: once more in a new one.
            Err(Trouble::SessionOver) => {
                let again = self.attempt(permit, &work, exchange, (&proof, &owner, &slot), arrived).await;
                self.judged(again)
            }
            other => self.judged(other),
        }
    }

    /// Tells the health how a call ended.
    fn judged<T>(&self, done: Result<T, Trouble>) -> Result<T, Fault> {
        match &done {
            Ok(_) | Err(Trouble::Refused(_)) => self.health.well(),
            Err(trouble) if trouble.counts() => {
                self.health.failed(&trouble.to_string());
            }
            Err(_) => {}
        }
        done.map_err(|trouble| trouble.fault(&self.name))
    }

    async fn attempt(
        &self,
        permit: &Permit,
        work: &Work<'_>,
        exchange: &dyn Exchange,
        (proof, owner, slot): (&Arc<Proof>, &Owner, &Slot),
        arrived: Instant,
    ) -> Result<Answered, Trouble> {
        let conversation = self.conversation(permit, proof, owner, slot).await?;
        let done = async {
            self.check_revision(&conversation).await.map_err(Trouble::House)?;
            self.check_definition(permit, work, (&conversation, proof, slot), arrived).await?;
            let can_ask = exchange.abilities().elicitation && Self::can_ask(&conversation, owner);
            let params = work.params.clone();
            let call = conversation.call(permit, proof, work.method, params, can_ask, work.headers.clone()).await?;
            let run = Run {
                server: self,
                permit,
                exchange,
                conversation: conversation.clone(),
                proof: proof.clone(),
                target: format!("{}/{}", work.kind, work.name),
                notices: 0,
                can_ask,
            };
            run.drive(call).await
        };
        let done = done.await;
        if matches!(done, Err(Trouble::SessionOver)) || !conversation.line.is_alive() {
            slot.give_up(&conversation).await;
        }
        done
    }

    /// What is not in use, as the caller may know it.
    fn held(&self, kind: Kind, name: &str) -> Fault {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(120).collect();
        Fault::new(
            FaultCode::Forbidden,
            format!("{kind} '{shown}' of upstream '{}' is held until a person accepts it", self.name),
        )
        .with_hint(format!("the operator can look at it with: portcullis upstream review {}", self.name))
    }

    /// Looks whether the upstream still says what was accepted. Calls that come together share one look.
    async fn check_definition(
        &self,
        permit: &Permit,
        work: &Work<'_>,
        (conversation, proof, slot): (&Conversation, &Arc<Proof>, &Slot),
        arrived: Instant,
    ) -> Result<(), Trouble> {
        let oldest = arrived.checked_sub(self.settings.recheck.map_or(Duration::ZERO, |age| age.0)).unwrap_or(arrived);
        let listed = {
            let mut looks = slot.looks.lock().await;
            if let Some((_, listed)) = looks.get(&work.kind).filter(|(at, _)| *at >= oldest) {
                listed.clone()
            } else {
                let at = Instant::now();
                let most = self.settings.limits.definitions as usize;
                let found = conversation.list(permit, proof, work.kind.listed(), most).await?;
                let listed = Arc::new(found.entries);
                looks.insert(work.kind, (at, listed.clone()));
                listed
            }
        };
        let mut there = false;
        for body in listed.iter() {
            if work.kind.name_of(body) != Some(work.name) {
                continue;
            }
            let fits = match Definition::read(work.kind, body.clone()) {
                Ok(now) if now.digest == work.digest => true,
                Ok(now) => {
                    self.take_note(now).await;
                    false
                }
                Err(reason) => {
                    let subject = format!("{}/{}/{}", self.name, work.kind, work.name);
                    self.record("upstream.quarantined", subject, false, reason);
                    false
                }
            };
            if !fits {
                return Err(Trouble::House(self.held(work.kind, work.name)));
            }
            there = true;
        }
        if there {
            return Ok(());
        }
        self.changed.notify_one();
        let fault =
            Fault::new(FaultCode::NotFound, format!("upstream '{}' no longer has {} '{}'", self.name, work.kind, work.name));
        Err(Trouble::House(fault))
    }

    /// Takes up a call that waited for an answer.
    async fn go_on(
        &self,
        permit: &Permit,
        parked: Parked,
        answer: Option<Value>,
        exchange: &dyn Exchange,
    ) -> Result<Answered, Fault> {
        let Parked { target, mut call, conversation, proof, question, notices, .. } = parked;
        let run = Run { server: self, permit, exchange, conversation, proof, target, notices, can_ask: true };
        let answer = answer.filter(Value::is_object).unwrap_or_else(|| json!({"action": "cancel"}));
        let gone_on = async {
            call.renew(permit)?;
            run.conversation.line.say(permit, &run.proof, wire::answer(&question, Ok(answer))).await?;
            run.drive(call).await
        };
        self.judged(gone_on.await)
    }
}

impl Run<'_> {
    /// Reads what belongs to the call until it ends, or asks something.
    async fn drive(mut self, mut call: Call) -> Result<Answered, Trouble> {
        let time = self.server.settings.limits.time.0;
        let until = tokio::time::Instant::from_std(self.permit.deadline()).min(tokio::time::Instant::now() + time);
        loop {
            let next = tokio::time::timeout_at(until, call.next()).await;
            let message = next.unwrap_or_else(|_| Err(Trouble::Slow(portcullis_model::format_duration(time))))?;
            match message {
                Incoming::Answer { result: Ok(mut result), .. } => {
                    self.proof.echoes.value(&mut result);
                    return match ending(result).map_err(Trouble::House)? {
                        Ending::Complete(members) => Ok(Answered::Done(members)),
                        Ending::Questions(questions, state) => {
                            Ok(Answered::Asks(questions, json!({"stateless": true, "state": state})))
                        }
                    };
                }
                Incoming::Answer { result: Err(mut refusal), .. } => {
                    refusal.message = self.proof.echoes.text(&refusal.message).into_owned();
                    return Err(Trouble::Refused(refusal));
                }
                Incoming::Notification { method, params } => self.hear(&method, params)?,
                Incoming::Request { id, method, params } if method == ELICIT && self.can_ask && is_form(&params) => {
                    return self.ask(call, id, params);
                }
                Incoming::Request { id, method, .. } => {
                    let refusal = match method.as_str() {
                        ELICIT => (-32_601, "the client of this call cannot show this to a person"),
                        _ => NOT_PASSED_ON,
                    };
                    self.count()?;
                    self.conversation.line.say(self.permit, &self.proof, wire::answer(&id, Err(refusal))).await?;
                }
            }
        }
    }

    /// Lets the call wait and hands its question to the caller.
    fn ask(self, call: Call, id: Value, mut params: Value) -> Result<Answered, Trouble> {
        self.proof.echoes.value(&mut params);
        if let Some(members) = params.as_object_mut() {
            members.remove("_meta");
        }
        let parked = Parked {
            principal: self.permit.principal_id().clone(),
            target: self.target,
            call,
            conversation: self.conversation,
            proof: self.proof,
            question: id,
            notices: self.notices,
        };
        let handle = self.server.parking.park(parked).map_err(Trouble::House)?;
        let question = InputRequest { method: ELICIT.to_owned(), params };
        Ok(Answered::Asks(vec![(QUESTION.to_owned(), question)], json!({ "parked": handle })))
    }

    fn count(&mut self) -> Result<(), Trouble> {
        self.notices += 1;
        let most = self.server.settings.limits.notices;
        if self.notices > most { Err(Trouble::TooLarge(format!("{most} notifications in one call"))) } else { Ok(()) }
    }

    fn hear(&mut self, method: &str, mut params: Value) -> Result<(), Trouble> {
        self.count()?;
        self.proof.echoes.value(&mut params);
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
            _ => {}
        }
        Ok(())
    }
}

/// Whether a question is a form; a link to somewhere is not passed on.
fn is_form(params: &Value) -> bool {
    params.get("mode").is_none_or(|mode| mode == "form") && params.get("url").is_none()
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
