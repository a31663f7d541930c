//! One API and the tools of its operations. Guards that a caller uses it only within its own tenant and sources, and that one
//! who is confined to a part of the data does not get what cannot be confined.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use portcullis_egress::{EgressClient, EgressRequest};
use portcullis_model::{Fault, FaultCode, RiskClass, Scope, TenantId, ToolSpec};
use portcullis_policy::Permit;
use portcullis_ports::{Arguments, Exchange, Outcome, Preview, Reading, Sight, Tool, wants_dry_run};
use portcullis_shape::{Position, decode_cursor, encode_cursor};
use serde_json::{Map, Value};

use crate::answer::{Came, Limits, shape};
use crate::plan::{CURSOR, Plan};
use crate::preview::Reader;

/// What the tools of one API share.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) name: Arc<str>,
    pub(crate) client: EgressClient,
    pub(crate) tenant: TenantId,
    pub(crate) open_to_confined: bool,
    pub(crate) answer_tokens: usize,
    /// Whether it is recorded that its description was let in. Until then nothing of it is called.
    pub(crate) admitted: AtomicBool,
}

impl Api {
    /// Whether the caller of this permit may use it at all.
    pub(crate) fn may_use(&self, permit: &Permit) -> Result<(), Fault> {
        if !self.admitted.load(Ordering::SeqCst) {
            let said = format!("'{}' is not in use: that it was let in is not recorded", self.name);
            return Err(Fault::new(FaultCode::Unavailable, said).with_retry_after(5));
        }
        self.serves(permit.scope())?;
        permit.trail().reached(&self.name);
        Ok(())
    }

    /// Whether anybody within this scope may use it.
    pub(crate) fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        if scope.tenant != self.tenant || !scope.sources.contains(&self.name) {
            return Err(Fault::new(FaultCode::Forbidden, format!("'{}' is not available to this credential", self.name)));
        }
        let confined = !scope.services.is_all() || !scope.namespaces.is_all() || scope.look_back.is_some();
        if confined && !self.open_to_confined {
            let said =
                format!("this credential is confined to a part of the data, and answers of '{}' cannot be confined", self.name);
            return Err(Fault::new(FaultCode::Forbidden, said)
                .with_hint("use a credential without that limit, or ask the operator about open_to_confined"));
        }
        Ok(())
    }
}

/// One operation.
pub(crate) struct ApiTool {
    pub(crate) api: Arc<Api>,
    pub(crate) spec: Arc<ToolSpec>,
    pub(crate) plan: Plan,
    /// What reads what this one changes, where it is offered.
    pub(crate) reader: Option<Reader>,
}

impl ApiTool {
    /// The request for these arguments: the only way one is made.
    pub(crate) fn request(&self, arguments: &Map<String, Value>) -> Result<EgressRequest, Fault> {
        Ok(self.plan.request(arguments)?.header("accept", "application/json, */*;q=0.5"))
    }

    /// What a cursor belongs to: the tool and its arguments.
    fn question(&self, arguments: &Map<String, Value>) -> String {
        format!("{} {}", self.spec.name, Value::Object(arguments.clone()))
    }
}

#[async_trait]
impl Tool for ApiTool {
    fn origin(&self) -> String {
        format!("api:{}", self.api.name)
    }

    fn spec(&self) -> &Arc<ToolSpec> {
        &self.spec
    }

    fn serves(&self, scope: &Scope) -> Result<(), Fault> {
        self.api.serves(scope)
    }

    fn cursor_argument(&self) -> Option<&'static str> {
        (self.spec.risk == RiskClass::Read).then_some(CURSOR)
    }

    async fn run(&self, permit: &Permit, arguments: Arguments, exchange: &dyn Exchange) -> Result<Outcome, Fault> {
        self.api.may_use(permit)?;
        if wants_dry_run(&arguments) {
            // The gate shows what would be; nothing that asks for that may be sent.
            return Err(Fault::new(FaultCode::Internal, "a dry run reached the work itself, so nothing was sent"));
        }
        let mut arguments = arguments.0;
        let cursor = arguments.shift_remove(CURSOR);
        let question = self.question(&arguments);
        let offset = match cursor.as_ref().and_then(Value::as_str) {
            None => 0,
            Some(cursor) => match decode_cursor(&question, cursor).map_err(|e| Fault::invalid(e.to_string()))? {
                Position::Offset(offset) => usize::try_from(offset).unwrap_or(usize::MAX),
                _ => return Err(Fault::invalid("the cursor belongs to another tool; leave it out to start again")),
            },
        };
        let response = self.api.client.send(permit, self.request(&arguments)?).await.map_err(Fault::from)?;
        let media_type = response.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let status = response.status;
        let status_line = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("")).trim_end().to_owned();
        let came = Came { status: status.as_u16(), status_line: &status_line, media_type, body: &response.body };
        // The budget of the permit holds the whole answer: text, structured result and what is put around them.
        let bytes = usize::try_from(permit.budget().answer_bytes).unwrap_or(usize::MAX) / 4 * 3;
        let limits = Limits { tokens: self.api.answer_tokens, bytes };
        // Only what reads may be asked again.
        let reads = self.spec.risk == RiskClass::Read;
        let next = |offset: usize| {
            let written = reads.then(|| encode_cursor(&question, &Position::Offset(offset as u64)).ok()).flatten();
            written.map(|position| exchange.seal_cursor(position))
        };
        let mut output = shape(came, limits, offset, next);
        output.sources = vec![self.api.name.clone()];
        Ok(Outcome::Complete(output))
    }

    fn previews(&self) -> bool {
        self.spec.risk != RiskClass::Read
    }

    fn present_state(&self, arguments: &Arguments) -> Option<Reading> {
        let reader = self.reader.as_ref().filter(|_| self.plan.changes_a_place())?;
        Some(Reading { tool: reader.tool.clone(), arguments: Arguments(reader.arguments(self, arguments)?) })
    }

    async fn preview(
        &self,
        permit: &Permit,
        sight: Sight<'_>,
        arguments: Arguments,
        _exchange: &dyn Exchange,
    ) -> Result<Option<Preview>, Fault> {
        self.api.may_use(permit)?;
        self.foreseen(permit, sight, &arguments).await.map(Some)
    }
}
