//! The steps between the permit and the run: what the principal usually does, what another policy says, whether the answer
//! may go out bare, and a person's yes. Each can only refuse; none makes a permit.

use std::sync::Arc;

use portcullis_model::{Clock, Fault, FaultCode, RiskClass, SystemClock, ToolSpec};
use portcullis_policy::{EXTERNAL_RULE, ExternalDecision, ExternalInput, Permit};
use portcullis_ports::{Answers, Arguments, Outcome};
use serde_json::Value;

use crate::CallRequest;
use crate::approvals::{self, Standing, Subject, Yes};
use crate::catalogue::ToolEntry;
use crate::gate::{Gateway, Stop};
use crate::profiles::{self, Judgement};
use crate::record::Journey;

impl Gateway {
    /// Asks the external policy, where there is one: it can only refuse, and so does everything but a clear answer of it.
    pub(crate) async fn ask_outside(&self, permit: &Permit, spec: &ToolSpec, arguments: &Arguments) -> Result<(), Stop> {
        let Some(external) = &self.external else { return Ok(()) };
        let input = ExternalInput::of_call(permit, spec, &arguments.0, SystemClock.now());
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
    /// release again with the call; without the grant it is refused.
    pub(crate) fn wants_unredacted(permit: &Permit, request: &CallRequest, journey: &mut Journey) -> Result<bool, Stop> {
        if !request.unredacted {
            return Ok(false);
        }
        if !permit.may_see_unredacted() {
            let fault = Fault::new(FaultCode::Forbidden, "you may not see unredacted answers")
                .with_hint("leave the wish for an unredacted answer out; values show as [redacted:kind]");
            return Err(Stop::refused("unredacted", fault));
        }
        let wish = journey.beside("bypass", |end| {
            end.allowed = true;
            end.rule = permit.rule().clone();
            end.note = Some("an unredacted answer was asked for".into());
        });
        if let Err(reason) = wish {
            let fault = Fault::new(FaultCode::Unavailable, "the audit log cannot be written, so nothing is shown unredacted");
            return Err(Stop::refused("unredacted", fault.with_internal(reason).with_retry_after(5)));
        }
        journey.note(|end| end.note = Some("released without redaction".into()));
        Ok(true)
    }

    /// Whether the call is like what its principal usually does; the permit is confined to what that is.
    pub(crate) fn fits_profile(
        &self,
        permit: Permit,
        tool: &str,
        arguments: &Arguments,
        journey: &mut Journey,
    ) -> Result<Permit, Stop> {
        match self.profiles.judge(permit.principal_id(), tool, &arguments.0) {
            Judgement::Fits => Ok(self.profiles.confine(permit, tool)),
            Judgement::Reported(deviations) => {
                let described = profiles::described(&deviations);
                tracing::warn!(target: "portcullis::gate", principal = %permit.principal_id(), tool, "{described}");
                journey.note(|end| end.note = Some(described));
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

    /// A person's yes, where the call needs one. Everything but a yes ends the call or asks for one.
    pub(crate) async fn approve(
        &self,
        permit: &Permit,
        entry: &ToolEntry,
        request: &CallRequest,
        journey: &mut Journey,
    ) -> Result<Approval, Stop> {
        let spec = entry.tool.spec();
        if spec.risk != RiskClass::Destructive && !permit.needs_approval() {
            return Ok(Approval::Go(request.answers.clone()));
        }
        let rendered = Value::Object(request.arguments.0.clone()).to_string();
        let summary = self.releaser.values(permit, vec![rendered]).map_err(Stop::Failed)?.into_inner().pop().unwrap_or_default();
        let subject = Subject {
            principal: permit.principal_id(),
            tool: spec.name.as_str(),
            risk: spec.risk,
            arguments: &request.arguments.0,
            summary: &summary,
        };
        let standing = self.approvals.stand(subject, request.answers.as_ref(), request.abilities.elicitation).await;
        let note = |journey: &mut Journey, text: String| journey.note(|end| end.note = Some(text));
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
                Ok(Approval::Approved(approvals::unwrap_state(request.answers.clone())))
            }
            Ok(Standing::Ask { requests, state }) => {
                Self::about_approval(journey, "approval.request", false)?;
                journey.note(|end| {
                    end.rule = Arc::from("approval");
                    end.note = Some("the user of the client is asked for approval".into());
                });
                Ok(Approval::Ask(Outcome::NeedsInput { requests, state: Some(state) }))
            }
            Ok(Standing::Pending { id }) => {
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

/// Where a call stands with the approval it may need.
pub(crate) enum Approval {
    /// It needs none.
    Go(Option<Answers>),
    /// A person said yes; the answers left are the tool's.
    Approved(Option<Answers>),
    /// A person is to be asked first.
    Ask(Outcome),
}
