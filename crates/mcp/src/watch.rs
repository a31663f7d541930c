//! Telling clients that lists changed: on the subscription streams of the stateless revision, and within the
//! sessions of the older ones. A hint only: what changed is read through the gate like everything else.
#![expect(deprecated, reason = "MCP logging is deprecated by SEP-2577 and still part of the session revisions")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use portcullis_gateway::Caller;
use portcullis_model::{Fault, FaultCode};
use rmcp::RoleServer;
use rmcp::model::{
    ErrorData, LoggingLevel, PromptListChangedNotification, ResourceListChangedNotification, ResourceUpdatedNotification,
    ResourceUpdatedNotificationParam, ServerNotification, SubscriptionFilter, ToolListChangedNotification,
};
use rmcp::service::{Peer, ServiceError, SubscriptionContext, SubscriptionSendError, SubscriptionSink};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::face::Face;
use crate::faults::{Asked, rpc_error};
use crate::turn;

/// Resources one client may watch.
const WATCHED: usize = 256;
/// A stream is ended after this time, so that its holder shows its credential again.
pub(crate) const STREAM_LIFETIME: Duration = Duration::from_hours(1);

/// What a session of the older revisions remembers: its log level and the resources it watches.
pub(crate) struct Session {
    level: Mutex<Option<LoggingLevel>>,
    watched: Mutex<BTreeSet<String>>,
    followed: AtomicBool,
    ended: CancellationToken,
    _end: DropGuard,
}

impl Session {
    pub(crate) fn new() -> Self {
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        Self { level: Mutex::default(), watched: Mutex::default(), followed: AtomicBool::new(false), ended, _end: end }
    }

    /// The level asked for; `info` until one was.
    pub(crate) fn level(&self) -> LoggingLevel {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(LoggingLevel::Info)
    }

    pub(crate) fn set_level(&self, level: LoggingLevel) {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }

    pub(crate) fn watch(&self, uri: String) -> Result<(), Fault> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.len() >= WATCHED && !watched.contains(&uri) {
            return Err(Fault::new(FaultCode::RateLimited, format!("a session can watch {WATCHED} resources; unsubscribe one")));
        }
        watched.insert(uri);
        Ok(())
    }

    pub(crate) fn unwatch(&self, uri: &str) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(uri);
    }

    fn watched(&self) -> Vec<String> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Follows the catalogue for a session until it ends. Done once per session, however often it says it is ready.
pub(crate) fn follow(face: &Arc<Face>, caller: Arc<Caller>, peer: Peer<RoleServer>, session: &Arc<Session>) {
    if session.followed.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut changes = face.gateway.changes();
    let (face, ended, session) = (face.clone(), session.ended.clone(), Arc::downgrade(session));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = face.closing.cancelled() => return,
                changed = changes.changed() => {
                    if changed.is_err() || tell(&face, &caller, &peer, &session).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
}

async fn tell(face: &Face, caller: &Caller, peer: &Peer<RoleServer>, session: &Weak<Session>) -> Result<(), ServiceError> {
    let (_, resources, prompts, _) = face.gateway.offers();
    peer.send_notification(ServerNotification::ToolListChangedNotification(ToolListChangedNotification::default())).await?;
    if prompts {
        peer.send_notification(ServerNotification::PromptListChangedNotification(PromptListChangedNotification::default()))
            .await?;
    }
    if resources {
        peer.send_notification(ServerNotification::ResourceListChangedNotification(ResourceListChangedNotification::default()))
            .await?;
        let watched = session.upgrade().map(|s| s.watched()).unwrap_or_default();
        for uri in watched.into_iter().filter(|uri| face.gateway.may_watch(caller, uri)) {
            let update = ResourceUpdatedNotification::new(ResourceUpdatedNotificationParam::new(uri));
            peer.send_notification(ServerNotification::ResourceUpdatedNotification(update)).await?;
        }
    }
    Ok(())
}

/// What of a requested subscription is granted: every list, and those resources the caller may read whose changes are
/// announced. What is not granted is missing in the acknowledgement.
pub(crate) fn granted(face: &Face, caller: Option<&Caller>, requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut granted = requested.clone();
    if let Some(uris) = &mut granted.resource_subscriptions {
        uris.retain(|uri| caller.is_some_and(|caller| face.gateway.may_watch(caller, uri)));
        uris.truncate(WATCHED);
    }
    granted
}

/// Serves one subscription of the stateless revision until either side ends it.
pub(crate) async fn listen(
    face: &Face,
    mut changes: watch::Receiver<u64>,
    subscription: SubscriptionContext,
) -> Result<(), ErrorData> {
    let caller = turn::caller(&face.gateway, &subscription.request_context().extensions).await?;
    let refused = |fault| {
        let released = face.gateway.refuse_request(&caller, "subscriptions/listen", "stream-budget", fault);
        rpc_error(released, Asked::Other)
    };
    let _stream = face.streams.open(&caller.principal().id).map_err(refused)?;
    let end = tokio::time::sleep(STREAM_LIFETIME);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = subscription.cancelled() => return Ok(()),
            () = face.closing.cancelled() => return Ok(()),
            () = &mut end => return Ok(()),
            changed = changes.changed() => {
                if changed.is_err() || notify(face, &caller, subscription.sink()).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

async fn notify(face: &Face, caller: &Caller, sink: &SubscriptionSink) -> Result<(), SubscriptionSendError> {
    let accepted = sink.accepted();
    if accepted.tools_list_changed == Some(true) {
        sink.notify_tool_list_changed().await?;
    }
    if accepted.prompts_list_changed == Some(true) {
        sink.notify_prompt_list_changed().await?;
    }
    if accepted.resources_list_changed == Some(true) {
        sink.notify_resource_list_changed().await?;
    }
    for uri in accepted.resource_subscriptions.iter().flatten() {
        if face.gateway.may_watch(caller, uri) {
            sink.notify_resource_updated(uri.clone()).await?;
        }
    }
    Ok(())
}
