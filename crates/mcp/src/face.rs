//! What all requests share: the gate, the cards of the tools, the sealed rounds, the budget of long streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_gateway::Gateway;
use portcullis_model::{Fault, FaultCode, PrincipalId};
use rmcp::model::{Implementation, MetaObject};
use tokio_util::sync::CancellationToken;

use crate::convert::ToolCards;
use crate::rounds::Rounds;

/// Key under which a result names its server (specification 2026-07-28, basic).
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// Shared by every request.
pub(crate) struct Face {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) rounds: Rounds,
    pub(crate) cards: ToolCards,
    pub(crate) streams: Arc<StreamBudget>,
    /// Cancelled when the server is about to stop: long streams end, calls in flight do not.
    pub(crate) closing: CancellationToken,
    pub(crate) implementation: Implementation,
    stamp: MetaObject,
}

impl Face {
    pub(crate) fn new(gateway: Arc<Gateway>, streams: StreamLimits, closing: CancellationToken) -> Self {
        let implementation = Implementation::new("portcullis", env!("CARGO_PKG_VERSION")).with_title("Portcullis");
        let mut stamp = MetaObject::new();
        if let Ok(info) = serde_json::to_value(&implementation) {
            stamp.insert(SERVER_INFO.into(), info);
        }
        Self {
            gateway,
            rounds: Rounds::new(),
            cards: ToolCards::default(),
            streams: Arc::new(StreamBudget { limits: streams, open: Mutex::default() }),
            closing,
            implementation,
            stamp,
        }
    }

    /// Names this server in a result of the stateless revision; older ones said it once, at the handshake.
    pub(crate) fn stamp(&self, modern: bool, meta: &mut Option<MetaObject>) {
        if modern {
            match meta {
                Some(meta) => meta.extend(self.stamp.clone()),
                none => *none = Some(self.stamp.clone()),
            }
        }
    }
}

/// How many streams may stay open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimits {
    pub(crate) per_principal: usize,
    pub(crate) in_all: usize,
}

/// Counts streams that stay open: subscriptions and the listening streams of sessions.
pub(crate) struct StreamBudget {
    limits: StreamLimits,
    open: Mutex<HashMap<PrincipalId, usize>>,
}

/// One open stream; given back when dropped.
pub(crate) struct OpenStream {
    budget: Arc<StreamBudget>,
    principal: PrincipalId,
}

impl StreamBudget {
    pub(crate) fn open(self: &Arc<Self>, principal: &PrincipalId) -> Result<OpenStream, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(principal).copied().unwrap_or(0);
        let all: usize = open.values().sum();
        if own >= self.limits.per_principal || all >= self.limits.in_all {
            return Err(Fault::new(FaultCode::RateLimited, "too many open streams; close one first").with_retry_after(5));
        }
        open.insert(principal.clone(), own + 1);
        Ok(OpenStream { budget: self.clone(), principal: principal.clone() })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.budget.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.principal) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                open.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_streams_are_bounded_and_given_back() {
        let limits = StreamLimits { per_principal: 2, in_all: 3 };
        let budget = Arc::new(StreamBudget { limits, open: Mutex::default() });
        let (a, b) = (PrincipalId::new("key:a").unwrap(), PrincipalId::new("key:b").unwrap());
        let first = budget.open(&a).unwrap();
        let _second = budget.open(&a).unwrap();
        assert!(budget.open(&a).is_err());
        let _third = budget.open(&b).unwrap();
        assert!(budget.open(&b).is_err());
        drop(first);
        assert!(budget.open(&a).is_ok());
    }
}
