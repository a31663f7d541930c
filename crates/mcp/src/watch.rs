//! Telling clients that lists changed: on the subscription streams of the stateless revision, and within the
//! sessions of the older ones. A hint only: what changed is read through the gate like everything else.
#![expect(deprecated, reason = "MCP logging is deprecated by SEP-2577 and still part of the session revisions")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use portcullis_gateway::Caller;
use portcullis_model::{Fault, FaultCode};
use portcullis_ports::Watch;
use rmcp::RoleServer;
use rmcp::model::{
    ErrorData, LoggingLevel, PromptListChangedNotification, ResourceListChangedNotification, ResourceUpdatedNotification,
    ResourceUpdatedNotificationParam, ServerNotification, SubscriptionFilter, ToolListChangedNotification,
};
use rmcp::service::{Peer, ServiceError, SubscriptionContext, SubscriptionSendError, SubscriptionSink};
use tokio::sync::{broadcast, watch};
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
    watched: Mutex<BTreeMap<String, Watch>>,
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

    /// Whether it may watch one more. What it watches already it may watch again.
    pub(crate) fn has_room(&self, uri: &str) -> Result<(), Fault> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.len() >= WATCHED && !watched.contains_key(uri) {
            return Err(Fault::new(FaultCode::RateLimited, format!("a session can watch {WATCHED} resources; unsubscribe one")));
        }
        Ok(())
    }

    pub(crate) fn watch(&self, uri: String, watch: Watch) -> Result<(), Fault> {
        self.has_room(&uri)?;
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(uri, watch);
        Ok(())
    }

    fn watches(&self, uri: &str) -> bool {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).contains_key(uri)
    }

    pub(crate) fn unwatch(&self, uri: &str) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(uri);
    }

    fn watched(&self) -> Vec<String> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

/// Follows the catalogue for a session until it ends. Done once per session, however often it says it is ready.
pub(crate) fn follow(face: &Arc<Face>, caller: Arc<Caller>, peer: Peer<RoleServer>, session: &Arc<Session>) {
    if session.followed.swap(true, Ordering::Relaxed) {
        return;
    }
    let (mut changes, mut updates) = (face.gateway.changes(), face.gateway.updates());
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
                updated = updates.recv() => {
                    let Some(of_these) = news(updated, || session.upgrade().map(|s| s.watched()).unwrap_or_default()) else { return };
                    let watches = |uri: &String| session.upgrade().is_some_and(|session| session.watches(uri));
                    if tell_updated(&face, &caller, &peer, of_these.into_iter().filter(watches)).await.is_err() {
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
        tell_updated(face, caller, peer, watched.into_iter()).await?;
    }
    Ok(())
}

async fn tell_updated(
    face: &Face,
    caller: &Caller,
    peer: &Peer<RoleServer>,
    uris: impl Iterator<Item = String> + Send,
) -> Result<(), ServiceError> {
    for uri in uris {
        if face.gateway.may_watch(caller, &uri) {
            let update = ResourceUpdatedNotification::new(ResourceUpdatedNotificationParam::new(uri));
            peer.send_notification(ServerNotification::ResourceUpdatedNotification(update)).await?;
        }
    }
    Ok(())
}

/// Which resources are another one: the one that was named, or all that are watched where some announcements were missed.
/// Nothing when there will be no more.
fn news(updated: Result<Arc<str>, broadcast::error::RecvError>, watched: impl FnOnce() -> Vec<String>) -> Option<Vec<String>> {
    match updated {
        Ok(uri) => Some(vec![uri.to_string()]),
        Err(broadcast::error::RecvError::Lagged(_)) => Some(watched()),
        Err(broadcast::error::RecvError::Closed) => None,
    }
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
    let mut updates = face.gateway.updates();
    let watched = subscription.sink().accepted().resource_subscriptions.clone().unwrap_or_default();
    let mut watches = Vec::new();
    for uri in &watched {
        watches.push(face.gateway.watch(&caller, uri).await.map_err(|fault| rpc_error(fault, Asked::Resource))?);
    }
    let end = tokio::time::sleep(STREAM_LIFETIME);
    let refused = face.gateway.until_refused(&caller);
    tokio::pin!(end, refused);
    loop {
        tokio::select! {
            () = subscription.cancelled() => return Ok(()),
            () = face.closing.cancelled() => return Ok(()),
            () = &mut end => return Ok(()),
            () = &mut refused => {
                ended(face, &caller);
                return Ok(());
            }
            changed = changes.changed() => {
                if changed.is_err() || notify(face, &caller, subscription.sink()).await.is_err() {
                    return Ok(());
                }
            }
            updated = updates.recv() => {
                let Some(of_these) = news(updated, || watched.clone()) else { return Ok(()) };
                for uri in of_these.into_iter().filter(|uri| watched.contains(uri) && face.gateway.may_watch(&caller, uri)) {
                    if subscription.sink().notify_resource_updated(uri).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Records that a stream was ended because who held it would not be let in any more.
pub(crate) fn ended(face: &Face, caller: &Caller) {
    let fault = Fault::new(FaultCode::Unauthenticated, "the credential this stream was opened with has ended");
    face.gateway.refuse_request(caller, "session", "credential-ended", fault);
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
