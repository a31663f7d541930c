//! The steps between the permit and the run: what the principal usually does, what another policy says, whether the answer
//! may go out bare, whether it can be recorded, and a person's yes. Each can only refuse; none makes a permit. Calls of tools
//! and lookups take the same ones.

use std::sync::Arc;

use portcullis_model::{Clock, Fault, FaultCode, RiskClass, SystemClock};
use portcullis_policy::{Action, EXTERNAL_RULE, ExternalDecision, ExternalInput, ExternalTool, Permit};
use portcullis_ports::{Answers, Arguments, ClientAbilities, InputRequest, Outcome, PromptOutput, ResourceOutput, Tool};
use serde_json::Value;

use crate::approvals::{self, ApprovalError, Shown, Standing, Subject, Yes};
use crate::definition::Definition;
use crate::foresight::Foresight;
use crate::gate::{Gateway, Stop};
use crate::profiles::{self, Judgement};
use crate::record::Journey;

/// What a caller is about to do, as the steps need to know it.
pub(crate) struct Deed<'a> {
    pub action: Action,
    /// The tool, the URI, the prompt, or what is completed.
    pub name: &'a str,
    /// What it counts as in a behaviour profile: the tool, or the kind of lookup with the family it belongs to.
    pub habit: &'a str,
    pub risk: RiskClass,
    /// Category of a writing tool.
    pub category: Option<&'a str>,
    pub arguments: &'a Arguments,
    /// Answers of an earlier round.
    pub answers: Option<&'a Answers>,
    pub abilities: ClientAbilities,
    /// Whether the answer is wanted without redaction.
    pub unredacted: bool,
    /// How to see what a call would do, where its tool can tell.
    pub foresight: Option<&'a Foresight<'a>>,
    /// Whether that is all that is wanted: then nothing is done, and nobody has to say yes.
    pub dry: bool,
    /// What it is that is called, read or rendered: an approval is bound to it.
    pub definition: Definition<'a>,
}

impl<'a> Deed<'a> {
    /// A call of a tool; answers and abilities are added by who has them.
    pub(crate) fn call(tool: &'a dyn Tool, arguments: &'a Arguments) -> Self {
        let spec = tool.spec();
        let name = spec.name.as_str();
        Self {
            risk: spec.risk,
            category: spec.category.as_ref().map(|category| &*category.0),
            ..Self::lookup(Action::Call, name, name, arguments, Definition::Tool(tool))
        }
    }

    /// A lookup, which reads.
    pub(crate) fn lookup(
        action: Action,
        name: &'a str,
        habit: &'a str,
        arguments: &'a Arguments,
        definition: Definition<'a>,
    ) -> Self {
        Self {
            action,
            name,
            habit,
            risk: RiskClass::Read,
            category: None,
            arguments,
            answers: None,
            abilities: ClientAbilities::default(),
            unredacted: false,
            foresight: None,
            dry: false,
            definition,
        }
    }

    /// Whether it may change something, so that it has to be on record before it is done.
    fn changes(&self) -> bool {
        self.risk > RiskClass::Read && !self.dry
    }

    /// The name an approval is bound to: what is no call carries its action, so that no tool has it.
    fn bound_name(&self) -> String {
        match self.action {
            Action::Call => self.name.to_owned(),
            other => format!("{}:{}", other.as_str(), self.name),
        }
    }
}

/// What every step let through.
pub(crate) struct Cleared {
    pub permit: Permit,
    pub approval: Approval,
    /// Whether the answer goes out without redaction.
    pub bare: bool,
}

/// An answer that may ask the user of the client first.
pub(crate) trait MayAsk: Sized {
    /// A question in place of the answer.
    fn asking(requests: Vec<(String, InputRequest)>, state: Option<Value>) -> Self;
    /// The state of a question, where it asks one.
    fn waits_with(&self) -> Option<&Value>;
    /// The same with another state, where it asks.
    fn with_state(self, change: impl FnOnce(Option<Value>) -> Value) -> Self;
}

impl MayAsk for Outcome {
    fn asking(requests: Vec<(String, InputRequest)>, state: Option<Value>) -> Self {
        Self::NeedsInput { requests, state }
    }

    fn waits_with(&self) -> Option<&Value> {
        match self {
            Self::NeedsInput { state, .. } => state.as_ref(),
            Self::Complete(_) => None,
        }
    }

    fn with_state(self, change: impl FnOnce(Option<Value>) -> Value) -> Self {
        match self {
            Self::NeedsInput { requests, state } => Self::NeedsInput { requests, state: Some(change(state)) },
            complete @ Self::Complete(_) => complete,
        }
    }
}

impl MayAsk for ResourceOutput {
    fn asking(requests: Vec<(String, InputRequest)>, state: Option<Value>) -> Self {
        Self::NeedsInput { requests, state }
    }

    fn waits_with(&self) -> Option<&Value> {
        match self {
            Self::NeedsInput { state, .. } => state.as_ref(),
            Self::Contents(_) => None,
        }
    }

    fn with_state(self, change: impl FnOnce(Option<Value>) -> Value) -> Self {
        match self {
            Self::NeedsInput { requests, state } => Self::NeedsInput { requests, state: Some(change(state)) },
            complete @ Self::Contents(_) => complete,
        }
    }
}

impl MayAsk for PromptOutput {
    fn asking(requests: Vec<(String, InputRequest)>, state: Option<Value>) -> Self {
        Self::NeedsInput { requests, state }
    }

    fn waits_with(&self) -> Option<&Value> {
        match self {
            Self::NeedsInput { state, .. } => state.as_ref(),
            Self::Messages { .. } => None,
        }
    }

    fn with_state(self, change: impl FnOnce(Option<Value>) -> Value) -> Self {
        match self {
            Self::NeedsInput { requests, state } => Self::NeedsInput { requests, state: Some(change(state)) },
            complete @ Self::Messages { .. } => complete,
        }
    }
}

impl Gateway {
    /// Every step between the permit and the run, in order.
    pub(crate) async fn clear(&self, permit: Permit, deed: &Deed<'_>, journey: &mut Journey) -> Result<Cleared, Stop> {
        let permit = self.fits_profile(permit, deed, journey)?;
        self.ask_outside(&permit, deed).await?;
        let bare = Self::wants_unredacted(&permit, deed, journey)?;
        self.recorder.may_begin(deed.risk).map_err(unrecorded)?;
        let approval = self.approve(&permit, deed, journey).await?;
        if deed.changes() && matches!(approval, Approval::Go { .. }) {
            // Last of all: from here on the call may have happened, whatever becomes of this process.
            journey.intend(permit.rule()).map_err(unrecorded)?;
        }
        Ok(Cleared { permit, approval, bare })
    }

    /// Asks the external policy, where there is one: it can only refuse, and so does everything but a clear answer of it.
    pub(crate) async fn ask_outside(&self, permit: &Permit, deed: &Deed<'_>) -> Result<(), Stop> {
        let Some(external) = &self.external else { return Ok(()) };
        let what =
            ExternalTool { name: deed.name.to_owned(), risk: deed.risk.as_str(), category: deed.category.map(str::to_owned) };
        let input = ExternalInput::new(permit, deed.action, what, &deed.arguments.0, SystemClock.now());
        let decision = tokio::time::timeout_at(permit.deadline().into(), external.decide(permit, &input)).await;
        let refused = |code, message: &str, internal: String| {
            Err(Stop::refused(EXTERNAL_RULE, Fault::new(code, message).with_internal(format!("{}: {internal}", external.name()))))
        };
        match decision {
            Ok(ExternalDecision::Allow) => Ok(()),
            Ok(ExternalDecision::Deny { reason }) => refused(FaultCode::Forbidden, "a policy forbids this call", reason),
            Ok(ExternalDecision::Unavailable { reason }) => {
                refused(FaultCode::Unavailable, "the policy service gave no answer, so this call is refused", reason)
            }
            Err(_elapsed) => refused(
                FaultCode::Unavailable,
                "the policy service gave no answer in time, so this call is refused",
                "deadline".into(),
            ),
        }
    }

    /// Whether this call asks for its answer without redaction. The wish is recorded on its own before anything runs, the
    /// release again with the call, both with the rule that grants it; without the grant it is refused.
    fn wants_unredacted(permit: &Permit, deed: &Deed<'_>, journey: &mut Journey) -> Result<bool, Stop> {
        if !deed.unredacted {
            return Ok(false);
        }
        let Some(granting) = permit.unredacted_rule() else {
            let fault = Fault::new(FaultCode::Forbidden, "you may not see unredacted answers")
                .with_hint("leave the wish for an unredacted answer out; values show as [redacted:kind]");
            return Err(Stop::refused("unredacted", fault));
        };
        let wish = journey.beside("bypass", |end| {
            end.allowed = true;
            end.rule = granting.clone();
            end.add_note("an unredacted answer was asked for");
        });
        if let Err(reason) = wish {
            let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so nothing is shown unredacted");
            return Err(Stop::refused("unredacted", fault.with_internal(reason).with_retry_after(5)));
        }
        journey.note(|end| end.add_note(format!("released without redaction, by rule {granting}")));
        Ok(true)
    }

    /// Whether the call is like what its principal usually does; the permit is confined to what that is.
    fn fits_profile(&self, permit: Permit, deed: &Deed<'_>, journey: &mut Journey) -> Result<Permit, Stop> {
        match self.profiles.judge(permit.principal_id(), deed.habit, &deed.arguments.0) {
            Judgement::Fits => Ok(self.profiles.confine(permit, deed.habit)),
            Judgement::Reported(deviations) => {
                let described = profiles::described(&deviations);
                tracing::warn!(target: "portcullis::gate", principal = %permit.principal_id(), habit = deed.habit, "{described}");
                journey.note(|end| end.add_note(described));
                Ok(permit)
            }
            Judgement::Refused(deviations) => Err(Stop::refused("behaviour-profile", profiles::refused(&deviations))),
        }
    }

    /// A record of its own for what happens to an approval; without it the call does not go on.
    fn about_approval(journey: &Journey, step: &'static str, allowed: bool) -> Result<(), Stop> {
        let recorded = journey.beside(step, |end| {
            end.allowed = allowed;
            end.rule = Arc::from("approval");
        });
        recorded.map_err(|reason| {
            let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so nothing is approved");
            Stop::refused("approval", fault.with_internal(reason).with_retry_after(5))
        })
    }

    /// Where a call that needs a yes stands. Whoever is to be asked is shown what would change.
    async fn standing(
        &self,
        permit: &Permit,
        deed: &Deed<'_>,
        subject: Subject<'_>,
        journey: &mut Journey,
    ) -> Result<Result<Standing, ApprovalError>, Stop> {
        let can_ask = deed.abilities.elicitation;
        match self.approvals.settled(&subject, deed.answers, can_ask).await {
            Ok(None) => {}
            Ok(Some(standing)) => return Ok(Ok(standing)),
            Err(error) => return Ok(Err(error)),
        }
        let mut shown = None;
        if let Some(foresight) = deed.foresight {
            journey.follow(permit.trail());
            let (tellings, sources) = self.shown(foresight, permit, deed.arguments).await;
            journey.note(|end| end.sources.extend(sources));
            let mut fault = None;
            for (text, whole) in tellings {
                match self.releaser.values(permit, vec![text]) {
                    Ok(released) => {
                        shown = released.into_inner().pop().map(|text| (text, whole));
                        break;
                    }
                    Err(why) => fault = Some(why),
                }
            }
            if let Some(fault) = fault.filter(|_| shown.is_none()) {
                return Err(Stop::Failed(fault));
            }
        }
        let preview = shown.as_ref().map(|(text, whole)| Shown { text, whole: *whole });
        Ok(self.approvals.ask(Subject { preview, ..subject }, can_ask).await)
    }

    /// A person's yes, where the call needs one. Everything but a yes ends the call or asks for one.
    async fn approve(&self, permit: &Permit, deed: &Deed<'_>, journey: &mut Journey) -> Result<Approval, Stop> {
        if !needs_yes(deed.risk, permit.needs_approval(), deed.dry) {
            return Ok(Approval::Go { answers: deed.answers.cloned(), binding: None });
        }
        let rendered = Value::Object(deed.arguments.0.clone()).to_string();
        let summary = self.releaser.values(permit, vec![rendered]).map_err(Stop::Failed)?.into_inner().pop().unwrap_or_default();
        let name = deed.bound_name();
        let definition = deed.definition.digest();
        let origin = deed.definition.origin();
        let subject = Subject {
            principal: permit.principal_id(),
            tenant: &permit.principal().tenant,
            product: permit.product().map(|product| &**product),
            tool: &name,
            risk: deed.risk,
            origin: &origin,
            definition: &definition,
            unredacted: deed.unredacted,
            arguments: &deed.arguments.0,
            summary: &summary,
            preview: None,
        };
        let binding = approvals::binding(&subject);
        let standing = self.standing(permit, deed, subject, journey).await?;
        let note = |journey: &mut Journey, text: String| journey.note(|end| end.add_note(text));
        match standing {
            Ok(Standing::Approved(yes)) => {
                Self::about_approval(journey, "approval.use", true)?;
                note(
                    journey,
                    match yes {
                        Yes::Client => "approved by the user of the client".to_owned(),
                        Yes::Operator { id, by } => format!("approved by {by} in request {id}"),
                    },
                );
                Ok(Approval::Go { answers: approvals::unwrap_state(deed.answers.cloned()), binding: Some(binding) })
            }
            Ok(Standing::Ask { requests, state }) => {
                Self::about_approval(journey, "approval.request", false)?;
                journey.note(|end| {
                    end.rule = Arc::from("approval");
                    end.add_note("the user of the client is asked for approval");
                });
                Ok(Approval::Ask { requests, state })
            }
            Ok(Standing::Pending { id }) => {
                if deed.abilities.elicitation && self.approvals.settings().elicitation {
                    note(journey, "the arguments or the change do not fit a form: an operator decides".to_owned());
                }
                Self::about_approval(journey, "approval.request", false)?;
                Err(Stop::refused("approval", approvals::pending(&id, self.approvals.settings().lifetime)))
            }
            Ok(Standing::Refused { by }) => Err(Stop::refused("approval", approvals::refused(&by))),
            Err(error) => {
                let fault = Fault::new(FaultCode::Unavailable, "approvals cannot be looked up, so this call is refused");
                Err(Stop::refused("approval", fault.with_internal(error.to_string()).with_retry_after(5)))
            }
        }
    }
}

/// What cannot be recorded is not done.
fn unrecorded(reason: String) -> Stop {
    let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so no call is made");
    Stop::refused("audit", fault.with_internal(reason).with_retry_after(5))
}

/// Whether a call needs a person's yes: `wanted` says whether a rule wants one.
pub(crate) fn needs_yes(risk: RiskClass, wanted: bool, dry: bool) -> bool {
    !dry && (risk == RiskClass::Destructive || wanted)
}

/// Where a call stands with the approval it may need.
pub(crate) enum Approval {
    /// It may run. The answers are the tool's own; with a binding a person said yes to exactly this.
    Go { answers: Option<Answers>, binding: Option<String> },
    /// A person is to be asked first.
    Ask { requests: Vec<(String, InputRequest)>, state: Value },
}
