//! One call of an upstream, from the permit to the answer: the definition must be the accepted one, the upstream must be
//! well. Guards the order of these checks. Must not convert results, nor judge questions; see `run` and `questions`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_egress::CameBack;
use portcullis_model::{Fault, FaultCode, PrincipalId};
use portcullis_policy::Permit;
use portcullis_ports::{Exchange, InputRequest};
use serde_json::{Map, Value, json};

use crate::conversation::{Conversation, Era, Manner};
use crate::definition::{Entry, Kind};
use crate::health::Fitness;
use crate::line::Proof;
use crate::parking::Parked;
use crate::protocol::FIXED;
use crate::questions;
use crate::run::{QUESTION, Run, Settled};
use crate::server::{Owner, Server, Slot};
use crate::tasks::{self, Task};
use crate::wire::{self, Trouble};

/// How long a call waits for its place.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// Whether it only runs as a task.
    pub task: bool,
}

/// What came of it.
pub(crate) enum Answered {
    /// The members of the result.
    Done(Map<String, Value>),
    /// Questions to the caller, and what is wanted back with the answers.
    Asks(Vec<(String, InputRequest)>, Value),
}

/// What an earlier round of a call of the stateless revision left behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Before {
    /// Questions asked.
    asked: u32,
    /// Pages that were to be opened, by the names of those questions.
    pages: Vec<String>,
}

/// Whether a person agreed to open every page an upstream wants opened before the call.
fn opened(links: &[Value], answers: &BTreeMap<String, Value>) -> Result<(), Fault> {
    let agreed = |link: &Value| {
        answers.get(link.as_str().unwrap_or_default()).and_then(|a| a.get("action")).is_some_and(|a| a == "accept")
    };
    if links.iter().all(agreed) {
        return Ok(());
    }
    Err(Fault::new(FaultCode::Forbidden, "the upstream wants a page opened first, and its user did not agree"))
}

impl Server {
    /// Does a piece of work for a caller.
    pub(crate) async fn work(&self, permit: &Permit, work: Work<'_>, exchange: &dyn Exchange) -> Result<Answered, Fault> {
        let (method, asked) = (work.method, work.params.get("uri").and_then(Value::as_str).map(str::to_owned));
        let answered = self.worked(permit, work, exchange).await?;
        self.bind(permit, method, asked.as_deref(), answered)
    }

    async fn worked(&self, permit: &Permit, mut work: Work<'_>, exchange: &dyn Exchange) -> Result<Answered, Fault> {
        self.admits(permit)?;
        let target = format!("{}/{}", work.kind, work.name);
        let mut answers = exchange.answers().cloned();
        let state = answers.as_mut().and_then(|answers| answers.state.take()).unwrap_or_default();
        if let Some(handle) = state.get("parked").and_then(Value::as_str) {
            let parked = self.parking.take(handle, permit.principal_id(), &target)?;
            let _place = match self.health.place(&self.name, PATIENCE).await {
                Ok(place) => place,
                Err(fault) => {
                    self.let_go(parked, "it could not be gone on with");
                    return Err(fault);
                }
            };
            let answer = answers.and_then(|answers| answers.responses.get(QUESTION).cloned());
            return self.go_on(permit, parked, answer, exchange).await;
        }
        let mut before = Before::default();
        if let Some(answers) = answers.filter(|_| state.get("asked").is_some()) {
            let pages = state.get("pages").and_then(Value::as_array).into_iter().flatten();
            before.pages = pages.filter_map(|page| page.as_str().map(str::to_owned)).collect();
            before.asked =
                state.get("asked").and_then(Value::as_u64).and_then(|asked| u32::try_from(asked).ok()).unwrap_or(u32::MAX);
            if let Some(links) = state.get("links").and_then(Value::as_array) {
                opened(links, &answers.responses)?;
            } else {
                self.answer(&mut work, &answers.responses, &state, exchange);
            }
        }
        let pins = self.pins.get().ok_or_else(|| self.unready())?;
        if pins.digest_in_use(work.kind, work.name).as_deref() != Some(work.digest) {
            return Err(self.held(work.kind, work.name));
        }
        let private = self.settings.is_private();
        if !private {
            self.health.fitness.may_ask(&self.name)?;
        }
        let _place = self.health.place(&self.name, PATIENCE).await?;
        let arrived = Instant::now();
        let (proof, owner) = self.present(permit, Some(exchange)).await?;
        let slot = self.slot(&owner)?;
        if private {
            slot.fitness.may_ask(&self.name)?;
        }
        let done = self.attempt(permit, &mut work, exchange, (&proof, &owner, &slot), arrived, before.clone()).await;
        match done {
            // A session that ended before the call was taken: once more in a new one.
            Err(Trouble::SessionOver) => {
                let again = self.attempt(permit, &mut work, exchange, (&proof, &owner, &slot), arrived, before).await;
                self.judged(&slot.fitness, again)
            }
            other => self.judged(&slot.fitness, other),
        }
    }

    /// Puts answers into a retried call of the stateless revision: those of the caller, and roots.
    fn answer(&self, work: &mut Work<'_>, given: &BTreeMap<String, Value>, state: &Value, exchange: &dyn Exchange) {
        let mut responses = Map::new();
        for (key, asked) in state.get("questions").and_then(Value::as_object).into_iter().flatten() {
            let (method, link) = (asked[0].as_str().unwrap_or_default(), asked[1] == true);
            // What the caller's client refused to answer is left out: the upstream asks again, or does without.
            if let Ok(answer) = questions::answered(method, link, given.get(key)) {
                let answer = if method == questions::SAMPLE { exchange.outgoing(answer) } else { answer };
                responses.insert(key.clone(), answer);
            }
        }
        for key in state.get("roots").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            responses.insert(key.to_owned(), self.ear.roots().clone());
        }
        if let Some(params) = work.params.as_object_mut() {
            params.insert("inputResponses".into(), Value::Object(responses));
            if let Some(state) = state.get("state").filter(|state| !state.is_null()) {
                params.insert("requestState".into(), state.clone());
            }
        }
    }

    /// Remembers how a call ended.
    fn judged<T>(&self, fitness: &Fitness, done: Result<T, Trouble>) -> Result<T, Fault> {
        match &done {
            Ok(_) | Err(Trouble::Refused(_)) => fitness.well(),
            Err(trouble) if trouble.counts() => {
                fitness.failed(&trouble.to_string());
                self.record_failure(fitness, trouble);
            }
            Err(_) => {}
        }
        done.map_err(|trouble| trouble.fault(&self.name))
    }

    async fn attempt(
        &self,
        permit: &Permit,
        work: &mut Work<'_>,
        exchange: &dyn Exchange,
        (proof, owner, slot): (&Arc<Proof>, &Owner, &Slot),
        arrived: Instant,
        before: Before,
    ) -> Result<Answered, Trouble> {
        let conversation = self.conversation(permit, proof, owner, slot).await?;
        let done = async {
            self.check_revision(&conversation).await.map_err(Trouble::House)?;
            self.check_definition(permit, work, (&conversation, proof, slot), arrived).await?;
            let all = self.may.by(exchange.abilities());
            let may = if Self::can_ask(&conversation, owner) { all } else { all.nobody() };
            let (Before { mut asked, pages }, mut taken) = (before, false);
            loop {
                let run = Run {
                    fitness: slot.fitness.clone(),
                    server: self,
                    permit,
                    exchange,
                    conversation: conversation.clone(),
                    proof: proof.clone(),
                    target: format!("{}/{}", work.kind, work.name),
                    notices: 0,
                    asked,
                    may,
                    task: None,
                    pages: pages.clone(),
                    echoed: CameBack::default(),
                };
                let settled = self.begin_call(permit, work, run).await;
                match settled.map_err(|trouble| if taken { trouble.after_taken() } else { trouble })? {
                    Settled::Answered(answered) => return Ok(answered),
                    // Only this house was asked: the upstream gets its answer at once.
                    Settled::Again { state, asked: now } => {
                        (asked, taken) = (now, true);
                        self.answer(work, &BTreeMap::new(), &state, exchange);
                    }
                }
            }
        };
        let done = done.await;
        if matches!(done, Err(Trouble::SessionOver)) || !conversation.line.is_alive() {
            slot.give_up(&conversation).await;
        }
        done
    }

    /// Begins a call and follows it, as a task where it only runs as one.
    async fn begin_call(&self, permit: &Permit, work: &Work<'_>, mut run: Run<'_>) -> Result<Settled, Trouble> {
        let (conversation, proof) = (run.conversation.clone(), run.proof.clone());
        let (mut params, may) = (work.params.clone(), run.may);
        if !work.task {
            let manner = Manner { headers: work.headers.clone(), ..Manner::of(may) };
            return match conversation.call(permit, &proof, work.method, params, manner).await {
                Ok(call) => run.drive(call).await,
                // Over HTTP a refusal may come with its status, before there is anything to follow.
                Err(Trouble::Refused(refusal)) => run.refused(refusal),
                Err(trouble) => Err(trouble),
            };
        }
        if conversation.era != Era::Session || !conversation.runs_tasks() {
            let message = format!("'{}' only runs as a task, and upstream '{}' runs none", work.name, self.name);
            return Err(Trouble::House(Fault::new(FaultCode::BackendFailed, message)));
        }
        let (charter, _) = self.standing.get().ok_or_else(|| Trouble::House(self.unready()))?;
        if let Some(members) = params.as_object_mut() {
            members.insert("task".into(), json!({"ttl": self.settings.limits.time.0.as_millis() as u64}));
        }
        let begun = match conversation.call(permit, &proof, work.method, params, Manner::of(may)).await {
            Ok(call) => call,
            Err(Trouble::Refused(refusal)) => return run.refused(refusal),
            Err(trouble) => return Err(trouble),
        };
        let follows = Some(begun.id());
        let created = match run.begun(begun).await? {
            Ok(created) => created,
            Err(refusal) => return run.refused(refusal),
        };
        let id = match tasks::created(created)? {
            tasks::Created::Task(id) => id,
            tasks::Created::Result(result) => return run.finished(result),
        };
        run.task = Some(Task::new(&conversation, &proof, charter, id.clone()));
        let manner = Manner { follows, ..Manner::of(may) };
        let call = conversation.call(permit, &proof, "tasks/result", json!({ "taskId": id }), manner).await;
        run.drive(call.map_err(Trouble::after_taken)?).await
    }

    /// What is not in use, as the caller may know it.
    fn held(&self, kind: Kind, name: &str) -> Fault {
        let shown: String = name.chars().filter(|c| portcullis_guard::is_seen(*c)).take(120).collect();
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
        let (asked, listed) = {
            let mut looks = slot.looks.lock().await;
            if let Some((at, listed)) = looks.get(&work.kind).filter(|(at, _)| *at >= oldest) {
                (*at, listed.clone())
            } else {
                let at = Instant::now();
                let most = self.settings.limits.definitions as usize;
                let found = conversation.list(permit, proof, work.kind.listed(), most).await?;
                let listed: Arc<Vec<Entry>> = Arc::new(found.entries.into_iter().map(Entry::new).collect());
                looks.insert(work.kind, (at, listed.clone()));
                (at, listed)
            }
        };
        let mut there = false;
        for entry in listed.iter() {
            if work.kind.name_of(&entry.body) != Some(work.name) {
                continue;
            }
            let fits = match entry.read(work.kind) {
                Ok(now) if now.digest == work.digest => true,
                // What only this caller's credential is in is nobody else's: the next look without it sees what there is to see.
                Ok(now) if proof.of_client.value(&mut now.body.clone(), &FIXED).any() => {
                    let subject = format!("{}/{}/{}", self.name, work.kind, work.name);
                    let note = "changed, with a credential of the caller in it, so it is not written down".to_owned();
                    self.record("upstream.quarantined", subject, false, note);
                    false
                }
                Ok(now) => {
                    self.take_note(now.clone(), asked).await;
                    false
                }
                Err(reason) => {
                    let subject = format!("{}/{}/{}", self.name, work.kind, work.name);
                    self.record("upstream.quarantined", subject, false, reason.clone());
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
        self.ear.look_again();
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
        let Parked { target, mut call, conversation, proof, fitness, question, notices, asked, may, task, pages, .. } = parked;
        let doing = fitness.clone();
        let mut answer = questions::answered(question.method, question.link, answer.as_ref());
        if let (Ok(given), true) = (&mut answer, question.method == questions::SAMPLE) {
            *given = exchange.outgoing(given.take());
        }
        if let (Ok(Value::Object(members)), Some(task)) = (&mut answer, &task) {
            members.insert("_meta".into(), task.meta());
        }
        let run = Run {
            server: self,
            permit,
            exchange,
            conversation,
            proof,
            fitness,
            target,
            notices,
            asked,
            may,
            task,
            pages,
            echoed: CameBack::default(),
        };
        let gone_on = async {
            call.renew(permit)?;
            run.conversation.line.say(permit, &run.proof, wire::answer(&question.id, answer)).await?;
            match run.drive(call).await? {
                Settled::Answered(answered) => Ok(answered),
                Settled::Again { .. } => Err(Trouble::Garbage("an answer of another revision".into())),
            }
        };
        self.judged(&doing, gone_on.await)
    }

    /// A call with a question nobody will answer: the upstream is told so, and the call ends.
    pub(crate) fn let_go(&self, parked: Parked, why: &str) {
        let (Some((charter, _)), Ok(runtime)) = (self.standing.get(), tokio::runtime::Handle::try_current()) else { return };
        let Parked { principal, target, call, conversation, proof, question, task, .. } = parked;
        let note = format!("{} in a call of {principal} gets no answer: {why}", question.method);
        self.record("upstream.question", format!("{}/{target}", self.name), false, note);
        let mut answer = questions::answered(question.method, question.link, None);
        if let (Ok(Value::Object(members)), Some(task)) = (&mut answer, &task) {
            members.insert("_meta".into(), task.meta());
        }
        let (said, charter) = (wire::answer(&question.id, answer), charter.clone());
        runtime.spawn(async move {
            // Whether it listens or not: the call is cancelled behind it.
            let _ = conversation.line.say(&charter.permit(), &proof, said).await;
            drop((call, task));
        });
    }

    /// What a caller was asked with this state gets no answer.
    pub(crate) fn given_up(&self, principal: &PrincipalId, state: &Value) {
        let handle = state.get("parked").and_then(Value::as_str);
        if let Some(parked) = handle.and_then(|handle| self.parking.give_up(handle, principal)) {
            self.let_go(parked, "it was refused, or its caller went away");
        }
    }
}
