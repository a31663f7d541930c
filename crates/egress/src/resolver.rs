//! Names to addresses, checked. Guards against DNS rebinding: the connection goes to exactly the addresses that were
//! classified here, and one forbidden address refuses the whole name. Must not cache.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{AddressPolicy, EgressErrorKind};

/// Asks for the addresses of a name.
#[async_trait]
pub(crate) trait Lookup: Send + Sync + fmt::Debug {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's own resolver.
#[derive(Debug)]
pub(crate) struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    #[expect(clippy::disallowed_methods, reason = "this crate is the one that asks for addresses, and checks what it is told")]
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.collect())
    }
}

/// The resolver of one client.
#[derive(Debug, Clone)]
pub(crate) struct CheckedResolver {
    policy: Arc<AddressPolicy>,
    lookup: Arc<dyn Lookup>,
}

impl CheckedResolver {
    pub(crate) fn new(policy: AddressPolicy, lookup: Arc<dyn Lookup>) -> Self {
        Self { policy: Arc::new(policy), lookup }
    }
}

/// Lets a set of addresses pass only as a whole.
fn check_all(policy: &AddressPolicy, found: &[SocketAddr]) -> Result<(), EgressErrorKind> {
    for socket in found {
        let address = socket.ip();
        policy.check(address).map_err(|class| EgressErrorKind::AddressRefused { address, class })?;
    }
    Ok(())
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { policy, lookup } = self.clone();
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await;
            let found =
                found.map_err(|error| EgressErrorKind::Connect { cause: format!("no address: {error}"), reached: false })?;
            check_all(&policy, &found)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use portcullis_model::{Scope, TenantId};
    use portcullis_policy::{Budget, CharterGrant, Permit, Policies, Vocabulary};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{AddressClass, EgressClient, EgressConfig, EgressRequest};

    #[test]
    fn one_forbidden_address_refuses_the_name() {
        let policy = AddressPolicy::default();
        let public: SocketAddr = "93.184.216.34:0".parse().unwrap();
        let inside: SocketAddr = "[::ffff:10.0.0.5]:0".parse().unwrap();
        assert!(check_all(&policy, &[public]).is_ok());
        let refused = check_all(&policy, &[public, inside]).unwrap_err();
        assert!(matches!(refused, EgressErrorKind::AddressRefused { class: AddressClass::Private, .. }));
    }

    /// A name server of an attacker: another answer each time, the last one for ever.
    #[derive(Debug)]
    struct Rebinding {
        answers: Mutex<Vec<Vec<SocketAddr>>>,
        asked: AtomicUsize,
    }

    impl Rebinding {
        fn new(answers: &[&[&str]]) -> Arc<Self> {
            let sockets = |texts: &&[&str]| texts.iter().map(|t| SocketAddr::new(t.parse().unwrap(), 0)).collect();
            Arc::new(Self { answers: Mutex::new(answers.iter().map(sockets).collect()), asked: AtomicUsize::new(0) })
        }
    }

    #[async_trait]
    impl Lookup for Rebinding {
        async fn lookup(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut answers = self.answers.lock().unwrap();
            Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
        }
    }

    fn permit(client: &EgressClient) -> Permit {
        let grant = CharterGrant {
            name: Arc::from("rebinding-test"),
            destinations: BTreeSet::from([client.origin().to_owned()]),
            scope: Scope::tenant_wide(TenantId::default_tenant()),
            time_limit: Duration::from_secs(20),
            budget: Budget::default(),
        };
        Policies::load(&[], &Vocabulary::default(), 1).unwrap().charter(grant).unwrap().permit()
    }

    /// A server that answers one request per connection with `status` and `headers`; counts the connections.
    async fn server(head: &'static str) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(head.as_bytes()).await;
            }
        });
        (port, connections)
    }

    fn client(port: u16, lookup: Arc<dyn Lookup>) -> EgressClient {
        let mut config = EgressConfig::new("rebound", format!("http://rebind.example:{port}"));
        config.addresses = AddressPolicy::new([crate::AllowedRange::Loopback]);
        EgressClient::with_lookup(config, lookup).unwrap()
    }

    const CLOSING: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

    #[tokio::test]
    async fn a_name_that_changes_its_address_is_checked_at_each_connection() {
        let (port, connections) = server(CLOSING).await;
        for inside in ["169.254.169.254", "10.0.0.5", "fd00:ec2::254", "0.0.0.0"] {
            let before = connections.load(Ordering::SeqCst);
            let lookup = Rebinding::new(&[&["127.0.0.1"], &["127.0.0.1", inside], &[inside]]);
            let client = client(port, lookup.clone());
            assert_eq!(client.send(&permit(&client), EgressRequest::post(["x"])).await.unwrap().body.as_ref(), b"ok");
            for _ in 0..2 {
                let refused = client.send(&permit(&client), EgressRequest::post(["x"])).await.unwrap_err();
                assert!(matches!(refused.kind(), EgressErrorKind::AddressRefused { .. }), "{inside}: {refused}");
                assert!(!refused.contacted(), "{inside}: nothing was sent there");
            }
            // One question for each connection: what was checked is what was connected to, never a second answer.
            assert_eq!(lookup.asked.load(Ordering::SeqCst), 3, "{inside}");
            assert_eq!(connections.load(Ordering::SeqCst), before + 1, "{inside}");
        }
    }

    #[tokio::test]
    async fn a_redirect_back_to_the_same_name_is_checked_again() {
        let (port, connections) =
            server("HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
        let lookup = Rebinding::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
        let client = client(port, lookup.clone());
        let refused = client.send(&permit(&client), EgressRequest::get(["x"])).await.unwrap_err();
        assert!(matches!(refused.kind(), EgressErrorKind::AddressRefused { class: AddressClass::Metadata, .. }), "{refused}");
        assert_eq!((lookup.asked.load(Ordering::SeqCst), connections.load(Ordering::SeqCst)), (2, 1));
        assert!(refused.contacted(), "the first answer came from there");
    }
}
