//! What is presented to an upstream for whom. Guards that a caller's own credential for this house never leaves it, that a
//! principal gets its own secret or the common one and never another's, and that what the upstream was told by anybody is
//! known, so that it comes back to nobody. Must not hand a kept value to anybody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_egress::{Authentication, Credential, Echoes, SecretFault, SecretResolver};
use portcullis_model::{Fault, FaultCode, PrincipalId, Secret, SecretReference};
use portcullis_policy::Permit;
use portcullis_ports::Exchange;
use sha2::{Digest, Sha256};

use crate::definition::hex;
use crate::line::Proof;
use crate::settings::UpstreamSettings;

/// A variable of a program's environment.
#[derive(Debug, Clone)]
struct Variable {
    name: String,
    value: Credential,
    /// Whether it must not come back in answers.
    secret: bool,
}

/// Secrets that were presented and are looked for, whatever is configured now: of rotated ones, of clients, exchanged ones.
const PRESENTED: usize = 64;

/// How long the secrets of others are waited for, which are only looked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The credentials of one upstream, looked up when they are needed.
#[derive(Debug)]
pub(crate) struct Credentials {
    common: Option<Authentication>,
    own: BTreeMap<String, Authentication>,
    own_only: bool,
    headers: Vec<String>,
    environment: Vec<Variable>,
    own_environment: BTreeMap<String, Vec<Variable>>,
    told: Mutex<Told>,
}

/// What the upstream may know by now.
#[derive(Debug, Default)]
struct Told {
    /// Presented, the latest last.
    presented: VecDeque<Secret>,
    /// What is looked for, and of which secrets it was made.
    echoes: (Vec<Secret>, Echoes),
}

impl Told {
    /// What is looked for once these are presented too.
    fn echoes(&mut self, configured: Vec<Secret>, presented: Vec<Secret>) -> Echoes {
        for secret in presented {
            self.presented.retain(|known| *known != secret);
            self.presented.push_back(secret);
        }
        while self.presented.len() > PRESENTED {
            self.presented.pop_front();
        }
        let mut all = configured;
        all.extend(self.presented.iter().cloned());
        all.sort_by(|a, b| a.expose().cmp(b.expose()));
        all.dedup();
        if self.echoes.0 != all {
            let echoes = Echoes::of(&all);
            self.echoes = (all, echoes);
        }
        self.echoes.1.clone()
    }
}

/// Parts of names of variables that hold secrets.
const SECRET_WORDS: [&str; 8] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "CREDENTIAL", "AUTH", "COOKIE"];

fn variables(given: &BTreeMap<String, SecretReference>, secrets: &dyn SecretResolver) -> Result<Vec<Variable>, SecretFault> {
    let variable = |(name, reference): (&String, &SecretReference)| {
        let named = SECRET_WORDS.iter().any(|word| name.to_ascii_uppercase().contains(word));
        let secret = named || !matches!(reference, SecretReference::Literal(_));
        Ok(Variable { name: name.clone(), value: secrets.credential(reference)?, secret })
    };
    given.iter().map(variable).collect()
}

fn unusable(upstream: &str, fault: &SecretFault) -> Fault {
    let sentence = format!("upstream '{upstream}' was not asked: a credential {}; the operator has to mend that", fault.state());
    Fault::backend(sentence, fault.to_string())
}

impl Credentials {
    /// Those of `settings`. Reads none.
    pub(crate) fn new(settings: &UpstreamSettings, secrets: &dyn SecretResolver) -> Result<Self, SecretFault> {
        let mut this = Self {
            common: None,
            own: BTreeMap::new(),
            own_only: false,
            headers: Vec::new(),
            environment: Vec::new(),
            own_environment: BTreeMap::new(),
            told: Mutex::default(),
        };
        if let Some(address) = settings.address() {
            this.common = address.auth.as_ref().map(|auth| auth.authentication(secrets)).transpose()?;
            for (principal, auth) in &address.auth_of {
                this.own.insert(principal.clone(), auth.authentication(secrets)?);
            }
            this.own_only = address.own_credential_only;
            this.headers = address.client_headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        }
        if let Some(program) = &settings.stdio {
            this.environment = variables(&program.env, secrets)?;
            for (principal, given) in &program.env_of {
                this.own_environment.insert(principal.clone(), variables(given, secrets)?);
            }
        }
        Ok(this)
    }

    /// Headers clients may send for this upstream.
    pub(crate) fn client_headers(&self) -> &[String] {
        &self.headers
    }

    /// Whether there is any credential, for the warning about clear text.
    pub(crate) fn any(&self) -> bool {
        self.common.is_some() || !self.own.is_empty() || !self.headers.is_empty()
    }

    /// What is presented for a principal, and a key by which two proofs that differ are told apart.
    pub(crate) async fn proof(
        &self,
        upstream: &str,
        permit: &Permit,
        exchange: Option<&dyn Exchange>,
    ) -> Result<(Proof, String), Fault> {
        let (principal, standing) = (permit.principal_id(), exchange.is_none());
        let given = |name: &String| Some((name.clone(), exchange?.header(name)?.clone()));
        let headers: Vec<(String, Secret)> = self.headers.iter().filter_map(given).collect();
        let own = self.own.get(principal.as_str());
        if self.own_only && !standing && own.is_none() && headers.is_empty() {
            let fault = Fault::new(FaultCode::Forbidden, format!("upstream '{upstream}' wants a credential of your own"));
            return Err(fault.with_hint(match self.headers.first() {
                Some(name) => format!("send it in the header {name}, or ask the operator to configure one for you"),
                None => "ask the operator to configure one for you".to_owned(),
            }));
        }
        let mut authentication = own.or(self.common.as_ref()).cloned();
        let mut presented: Vec<Secret> = headers.iter().map(|(_, value)| value.clone()).collect();
        if let Some(given) = &mut authentication
            && let Some(secret) = given.presented(permit, upstream).await?
        {
            // The very token that is looked for in the answer is the one that is sent, also when the call is cancelled or
            // its session ended later on.
            if matches!(given, Authentication::Exchanged(_)) {
                *given = Authentication::Bearer(Credential::Fixed(secret.clone()));
            }
            presented.push(secret);
        }
        let own_variables = self.own_environment.get(principal.as_str());
        for variable in self.environment.iter().chain(own_variables.into_iter().flatten()).filter(|v| v.secret) {
            presented.push(variable.value.current().await.map_err(|fault| unusable(upstream, &fault))?);
        }
        let mut hasher = Sha256::new();
        for (name, value) in &headers {
            hasher.update(name.as_bytes());
            hasher.update([0]);
            hasher.update(value.expose().as_bytes());
            hasher.update([0]);
        }
        let told_apart = if headers.is_empty() { String::new() } else { hex(&hasher.finalize()) };
        let configured = self.configured().await;
        let echoes = self.told.lock().unwrap_or_else(PoisonError::into_inner).echoes(configured, presented);
        Ok((Proof { authentication, headers, echoes }, told_apart))
    }

    /// Every secret that is configured for this upstream, whosever it is. One that cannot be read now is not presented now
    /// either; whether it was before is remembered.
    async fn configured(&self) -> Vec<Secret> {
        let own_variables = self.own_environment.values().flatten();
        let variables = self.environment.iter().chain(own_variables).filter(|variable| variable.secret);
        let authentications = self.common.iter().chain(self.own.values()).filter_map(Authentication::configured);
        // A store that does not answer keeps nobody waiting who does not need what is in it.
        let read = |credential: Credential| async move { tokio::time::timeout(PATIENCE, credential.current()).await };
        let all = variables.map(|variable| &variable.value).chain(authentications).cloned().map(read);
        futures::future::join_all(all).await.into_iter().filter_map(|read| read.ok()?.ok()).collect()
    }

    /// The environment of a program for a principal.
    pub(crate) async fn environment(&self, upstream: &str, principal: &PrincipalId) -> Result<Vec<(String, Secret)>, Fault> {
        let mut all = BTreeMap::new();
        let own = self.own_environment.get(principal.as_str());
        for variable in self.environment.iter().chain(own.into_iter().flatten()) {
            let value = variable.value.current().await.map_err(|fault| unusable(upstream, &fault))?;
            // Editors leave a line end in files.
            let value = Secret::new(value.expose().trim_end_matches(['\r', '\n']));
            if value.expose().contains('\0') {
                return Err(Fault::backend(
                    format!("upstream '{upstream}' was not started: its environment cannot be written"),
                    format!("the value of {} holds a NUL", variable.name),
                ));
            }
            all.insert(variable.name.clone(), value);
        }
        Ok(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anybody_presented_is_looked_for_and_the_list_is_bounded() {
        let mut told = Told::default();
        let secret = |n: usize| Secret::new(format!("secret-of-somebody-{n}."));
        let rotated = told.echoes(vec![secret(0)], vec![secret(1)]);
        assert_eq!(rotated.text("secret-of-somebody-1."), "[redacted:credential]");
        let now = told.echoes(vec![secret(2)], Vec::new());
        assert_eq!(now.text("secret-of-somebody-2."), "[redacted:credential]", "configured for another principal");
        assert_eq!(now.text("secret-of-somebody-1."), "[redacted:credential]", "presented before");
        for n in 10..200 {
            told.echoes(Vec::new(), vec![secret(n)]);
        }
        assert_eq!(told.presented.len(), PRESENTED);
    }
}
