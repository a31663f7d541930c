//! How a client proves itself to its backend. Guards that what is presented fits into one header, is marked sensitive, and
//! is looked up for each request. Must not keep the value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, header};
use portcullis_model::{Fault, Secret};
use portcullis_policy::Permit;

use crate::caller::{Exchanged, Got};
use crate::request::checked_header;
use crate::{Credential, EgressErrorKind, SecretFault};

/// How a client authenticates itself. Bound to the origin of its client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authentication {
    /// Not at all.
    #[default]
    None,
    /// `Authorization: Bearer …`
    Bearer(Credential),
    /// `Authorization: Basic …`
    Basic {
        /// The user; no colon.
        user: String,
        /// The password.
        password: Credential,
    },
    /// A header of the backend's own, such as `X-Vault-Token`.
    Header {
        /// Its name.
        name: String,
        /// The whole value.
        value: Credential,
    },
    /// `Authorization: Bearer …`, with a token in the caller's own name.
    Exchanged(Exchanged),
}

impl Authentication {
    /// What can be checked without looking anything up.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Basic { user, .. } if user.contains(':') => return Err("the user must not contain ':'".to_owned()),
            Self::Header { name, .. } => {
                checked_header(name, "")?;
            }
            _ => {}
        }
        match self.credential() {
            Some(Credential::Fixed(secret)) => self.header_with(secret).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// The header that proves it, with the secret as it is now.
    pub(crate) async fn header(&self, permit: &Permit) -> Result<Option<(HeaderName, HeaderValue)>, EgressErrorKind> {
        let credential = match self {
            Self::Exchanged(exchanged) => match exchanged.for_permit(permit).await.map_err(EgressErrorKind::Caller)? {
                Got::Secret(secret) => Credential::Fixed(secret),
                Got::Standing(own) => own,
            },
            _ => match self.credential() {
                Some(credential) => credential.clone(),
                None => return Ok(None),
            },
        };
        let secret = credential.current().await.map_err(EgressErrorKind::Credential)?;
        let refused = |reason| {
            let reference = "of this source".to_owned();
            EgressErrorKind::Credential(SecretFault::Refused { reference, reason })
        };
        self.header_with(&secret).map_err(refused)
    }

    /// The secret that is presented for this permit now, for whoever must keep it from coming back; `None` where nothing
    /// secret is. A token in the caller's own name is exchanged for it, or remembered from before.
    ///
    /// # Errors
    /// When there is none to be had, as the caller may know it. `source` is whom it is for.
    pub async fn presented(&self, permit: &Permit, source: &str) -> Result<Option<Secret>, Fault> {
        let credential = match self {
            Self::Exchanged(exchanged) => match exchanged.for_permit(permit).await.map_err(|fault| fault.fault(source))? {
                Got::Secret(secret) => return Ok(Some(secret)),
                Got::Standing(own) => own,
            },
            _ => match self.credential() {
                Some(credential) => credential.clone(),
                None => return Ok(None),
            },
        };
        credential.current().await.map(Some).map_err(|fault| {
            let sentence =
                format!("source '{source}' was not asked: a credential {}; the operator has to mend that", fault.state());
            Fault::backend(sentence, fault.to_string())
        })
    }

    /// The credential the operator configured, whoever asks; of one that is exchanged, the one for standing work.
    pub fn configured(&self) -> Option<&Credential> {
        match self {
            Self::Exchanged(exchanged) => exchanged.standing.as_ref(),
            _ => self.credential(),
        }
    }

    fn credential(&self) -> Option<&Credential> {
        match self {
            Self::None | Self::Exchanged(_) => None,
            Self::Bearer(credential) | Self::Basic { password: credential, .. } | Self::Header { value: credential, .. } => {
                Some(credential)
            }
        }
    }

    fn header_with(&self, secret: &Secret) -> Result<Option<(HeaderName, HeaderValue)>, String> {
        let (name, text) = match self {
            Self::None => return Ok(None),
            Self::Bearer(_) | Self::Exchanged(_) => (header::AUTHORIZATION, Secret::new(format!("Bearer {}", trimmed(secret)))),
            Self::Basic { user, .. } => {
                let pair = Secret::new(format!("{user}:{}", secret.expose()));
                (header::AUTHORIZATION, Secret::new(format!("Basic {}", STANDARD.encode(pair.expose()))))
            }
            Self::Header { name, .. } => {
                let (name, _) = checked_header(name, "")?;
                (name, Secret::new(trimmed(secret)))
            }
        };
        let mut value = HeaderValue::from_str(text.expose())
            .map_err(|_| "the credential holds characters that a header cannot".to_owned())?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }
}

/// Without the line end that editors leave at the end of a file.
fn trimmed(secret: &Secret) -> &str {
    secret.expose().trim_end_matches(['\n', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit() -> Permit {
        let policies = portcullis_policy::Policies::load(&[], &portcullis_policy::Vocabulary::default(), 1).unwrap();
        let grant = portcullis_policy::CharterGrant {
            name: "test".into(),
            destinations: std::collections::BTreeSet::new(),
            scope: portcullis_model::Scope::tenant_wide(portcullis_model::TenantId::default_tenant()),
            time_limit: std::time::Duration::from_secs(5),
            budget: portcullis_policy::Budget::default(),
        };
        policies.charter(grant).unwrap().permit()
    }

    fn fixed(text: &str) -> Credential {
        Credential::Fixed(Secret::new(text))
    }

    #[tokio::test]
    async fn each_way_makes_its_header_and_marks_it() {
        for (authentication, name, value) in [
            (Authentication::Bearer(fixed("t\n")), "authorization", "Bearer t"),
            (Authentication::Basic { user: "u".into(), password: fixed("p") }, "authorization", "Basic dTpw"),
            (Authentication::Header { name: "X-Vault-Token".into(), value: fixed("t") }, "x-vault-token", "t"),
        ] {
            authentication.check().unwrap();
            let (made, header) = authentication.header(&permit()).await.unwrap().unwrap();
            assert_eq!((made.as_str(), header.to_str().unwrap()), (name, value));
            assert!(header.is_sensitive());
        }
        assert_eq!(Authentication::None.header(&permit()).await.unwrap(), None);
    }

    #[test]
    fn what_cannot_be_a_header_is_refused_without_being_shown() {
        for authentication in [
            Authentication::Bearer(fixed("hunter2\nx")),
            Authentication::Basic { user: "a:b".into(), password: fixed("hunter2") },
            Authentication::Header { name: "Cookie".into(), value: fixed("hunter2") },
            Authentication::Header { name: "x y".into(), value: fixed("hunter2") },
            Authentication::Header { name: "x".into(), value: fixed("hunter2\r\nHost: y") },
        ] {
            let error = authentication.check().unwrap_err();
            assert!(!error.contains("hunter2") && !format!("{authentication:?}").contains("hunter2"), "{error}");
        }
    }
}
