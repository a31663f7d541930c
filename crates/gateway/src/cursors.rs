//! Cursors of the house: every page that is given out in parts says where the next one begins, and a client hands that back.
//!
//! Guards that what comes back is what was given: to this principal and tenant, through this product, for this tool or list
//! and this question. One that was made up, changed or given to somebody else is refused and recorded. Must not decide what a
//! cursor may read: the rules do, as if it was asked for without one.
//!
//! A mark is 128 bits of a keyed BLAKE3 hash. The key comes of a secret all replicas of a store have, so a cursor outlives a
//! restart and is good at each of them; it says nothing that its caller may not read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_guard::{ClientFault, Released};
use portcullis_model::Fault;
use portcullis_ports::{Arguments, Tool};
use serde_json::{Map, Value};

use crate::Caller;
use crate::approvals::canonical;
use crate::gate::{Gateway, Stop};

/// The rule name when a cursor is not one this caller was given for this question.
pub(crate) const CURSOR: &str = "cursor";
/// What the key is for.
const CONTEXT: &str = "portcullis 2026-11-30 cursors v1";
/// Bytes of a mark, and its characters.
const MARK_BYTES: usize = 16;
const MARK_CHARS: usize = 22;
/// Longest cursor that is looked at.
const MOST_CHARS: usize = 8_192;
/// The argument that may differ from page to page.
const LIMIT: &str = "limit";

/// Binds cursors to whom and what they are for.
pub(crate) struct Cursors([u8; 32]);

impl Cursors {
    /// With a key that lives as long as this process.
    pub(crate) fn of_this_process() -> Self {
        Self(rand::random())
    }

    /// With a key made of a secret of the installation.
    pub(crate) fn under(secret: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, secret))
    }

    /// The cursors of this caller, at this place and for this question. The order of members does not matter.
    fn bind(&self, caller: &Caller, method: &str, target: &str, question: Map<String, Value>) -> Bound {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        let product = caller.product().map(|product| format!("product {product}")).unwrap_or_default();
        let question = canonical(&Value::Object(question));
        let principal = &caller.principal;
        for part in [principal.id.as_str(), principal.tenant.as_str(), &product, method, target, &question] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Bound(*hasher.finalize().as_bytes())
    }
}

/// Seals and opens cursors of one caller for one question.
#[derive(Clone, Copy)]
pub(crate) struct Bound([u8; 32]);

impl Bound {
    fn mark(&self, position: &str) -> [u8; MARK_BYTES] {
        let whole = blake3::keyed_hash(&self.0, position.as_bytes());
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&whole.as_bytes()[..MARK_BYTES]);
        mark
    }

    /// The position, and what proves that it was given out.
    pub(crate) fn seal(&self, position: &str) -> String {
        format!("{position}{}", URL_SAFE_NO_PAD.encode(self.mark(position)))
    }

    /// The position of a cursor that was given out here; nothing of any other text.
    pub(crate) fn open<'c>(&self, cursor: &'c str) -> Option<&'c str> {
        let at = cursor.len().checked_sub(MARK_CHARS).filter(|_| cursor.len() <= MOST_CHARS)?;
        let (position, mark) = cursor.split_at_checked(at)?;
        let given = URL_SAFE_NO_PAD.decode(mark).ok()?;
        // Equality of hashes takes the same time wherever they differ.
        (blake3::hash(&given) == blake3::hash(&self.mark(position))).then_some(position)
    }
}

/// What whoever brings another cursor is told.
fn not_given() -> Fault {
    Fault::invalid("cursor: it was not given to you for this question, or it was changed on the way")
        .with_hint("pass 'next' back exactly as it was returned, with the same arguments, or leave the cursor out to start again")
}

impl Gateway {
    /// The same gate with cursors under a secret of the installation instead of one of this process: they are good at every
    /// replica that has the secret, and after a restart.
    #[must_use]
    pub fn with_cursors_under(mut self, secret: &[u8]) -> Self {
        self.cursors = Cursors::under(secret);
        self
    }

    /// What the cursors of a call are bound to; nothing where the tool gives none.
    pub(crate) fn cursors_of(&self, caller: &Caller, tool: &dyn Tool, arguments: &Arguments) -> Option<Bound> {
        let argument = tool.cursor_argument()?;
        let mut question = arguments.0.clone();
        question.shift_remove(argument);
        question.shift_remove(LIMIT);
        Some(self.cursors.bind(caller, "tools/call", tool.spec().name.as_str(), question))
    }

    /// Opens the cursor among the arguments, where there is one. The tool and the rules see what was sealed.
    ///
    /// # Errors
    /// A cursor that was not given to this caller for this question.
    pub(crate) fn opened(&self, caller: &Caller, tool: &dyn Tool, arguments: &mut Arguments) -> Result<Option<Bound>, Stop> {
        let Some(bound) = self.cursors_of(caller, tool, arguments) else { return Ok(None) };
        let argument = tool.cursor_argument().unwrap_or_default();
        if let Some(given) = arguments.0.get_mut(argument).filter(|value| !value.is_null()) {
            let position = given.as_str().and_then(|cursor| bound.open(cursor)).map(str::to_owned);
            let position = position.ok_or_else(|| Stop::refused(CURSOR, not_given()))?;
            *given = Value::String(position);
        }
        Ok(Some(bound))
    }

    /// The cursor of the page of a list that begins after `last`. Good for this caller and this list alone.
    pub fn seal_page(&self, caller: &Caller, method: &'static str, last: &str) -> String {
        self.cursors.bind(caller, method, "", Map::new()).seal(&URL_SAFE_NO_PAD.encode(last))
    }

    /// After which entry the page begins that a cursor of a list stands for.
    ///
    /// # Errors
    /// A cursor that was not given to this caller for this list; that is recorded.
    pub fn open_page(&self, caller: &Caller, method: &'static str, cursor: &str) -> Result<String, Released<ClientFault>> {
        let bound = self.cursors.bind(caller, method, "", Map::new());
        let last = bound.open(cursor).and_then(|position| URL_SAFE_NO_PAD.decode(position).ok());
        let last = last.and_then(|last| String::from_utf8(last).ok());
        last.ok_or_else(|| self.refuse_request(caller, method, CURSOR, not_given()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use portcullis_identity::Transport;
    use portcullis_model::{CredentialKind, Principal, PrincipalId, Scope, TenantId};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn caller(id: &str, tenant: &str) -> Caller {
        let tenant = TenantId::new(tenant).unwrap();
        let principal = Principal {
            id: PrincipalId::new(id).unwrap(),
            credential: CredentialKind::Local,
            tenant: tenant.clone(),
            roles: BTreeSet::from([Arc::from("reader")]),
            doors: BTreeSet::new(),
            scope: Scope::tenant_wide(tenant),
        };
        Caller::new(Arc::new(principal), Transport::Http, None)
    }

    fn question(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_cursor_is_good_where_it_was_given_and_nowhere_else() {
        let cursors = Cursors::under(b"a secret of the installation");
        let (one, asked) = (caller("key:one", "acme"), json!({"window": "1h", "labels": {"a": "1", "b": "2"}}));
        let bound = |cursors: &Cursors, caller: &Caller, method: &str, target: &str, asked: &Value| {
            cursors.bind(caller, method, target, question(asked))
        };
        let sealed = bound(&cursors, &one, "tools/call", "query_logs", &asked).seal("AbC_-9");
        assert!(sealed.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{sealed}");
        let reordered = json!({"labels": {"b": "2", "a": "1"}, "window": "1h"});
        assert_eq!(bound(&cursors, &one, "tools/call", "query_logs", &reordered).open(&sealed), Some("AbC_-9"));
        let again = Cursors::under(b"a secret of the installation");
        assert_eq!(bound(&again, &one, "tools/call", "query_logs", &asked).open(&sealed), Some("AbC_-9"), "a restart");
        let longer = json!({"window": "2h", "labels": {"a": "1", "b": "2"}});
        for (why, other) in [
            ("a principal", bound(&cursors, &caller("key:two", "acme"), "tools/call", "query_logs", &asked)),
            ("a tenant", bound(&cursors, &caller("key:one", "globex"), "tools/call", "query_logs", &asked)),
            ("a tool", bound(&cursors, &one, "tools/call", "query_traces", &asked)),
            ("a method", bound(&cursors, &one, "tools/list", "query_logs", &asked)),
            ("a question", bound(&cursors, &one, "tools/call", "query_logs", &longer)),
            ("a key", bound(&Cursors::under(b"another"), &one, "tools/call", "query_logs", &asked)),
            ("a process", bound(&Cursors::of_this_process(), &one, "tools/call", "query_logs", &asked)),
        ] {
            assert_eq!(other.open(&sealed), None, "{why}");
        }
    }

    proptest! {
        #[test]
        fn what_was_changed_or_made_up_is_refused(
            position in "[A-Za-z0-9_-]{0,80}", at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_-]", made_up in "\\PC{0,120}",
        ) {
            let bound = Cursors::under(b"secret").bind(&caller("key:one", "acme"), "tools/call", "query_logs", Map::new());
            let sealed = bound.seal(&position);
            prop_assert_eq!(bound.open(&sealed), Some(position.as_str()));
            let at = at.index(sealed.len());
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, &with);
            prop_assert!(changed == sealed || bound.open(&changed).is_none());
            prop_assert!(bound.open(&sealed[..at]).is_none());
            let longer = sealed.clone() + "A";
            prop_assert!(bound.open(&longer).is_none());
            prop_assert!(bound.open(&made_up).is_none());
        }
    }
}
