//! What is presented to an upstream for whom. Guards that a caller's own credential for this house never leaves it, that a
//! principal gets its own secret or the common one and never another's, and that no more of a client's headers is handed on
//! than can be looked for in answers. Must not hand a kept value to anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_egress::{Authentication, Credential, SecretFault, SecretResolver};
use portcullis_model::{Fault, FaultCode, PrincipalId, Secret, SecretReference};
use portcullis_policy::Permit;
use portcullis_ports::Exchange;
use sha2::{Digest, Sha256};

use crate::definition::hex;
use crate::line::Proof;
use crate::passwords::passwords_in;
use crate::settings::UpstreamSettings;
use crate::told::{Told, fits};

/// A variable of a program's environment.
#[derive(Debug, Clone)]
struct Variable {
    name: String,
    value: Credential,
    /// Whether all of it must not come back in answers, and not only a password in it.
    secret: bool,
    /// Whether there is anything in it that must not come back; what holds nothing is not read at every call.
    guarded: bool,
}

impl Variable {
    /// What of its value must not come back.
    fn secrets(&self, value: Secret) -> Vec<Secret> {
        let mut secrets = passwords_in(value.expose());
        if self.secret {
            secrets.push(value);
        }
        secrets
    }
}

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
    told: Told,
}

/// Parts of names of variables that hold secrets.
const SECRET_WORDS: [&str; 8] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "CREDENTIAL", "AUTH", "COOKIE"];

fn variables(given: &BTreeMap<String, SecretReference>, secrets: &dyn SecretResolver) -> Result<Vec<Variable>, SecretFault> {
    let variable = |(name, reference): (&String, &SecretReference)| {
        let named = SECRET_WORDS.iter().any(|word| name.to_ascii_uppercase().contains(word));
        let (secret, guarded) = match reference {
            SecretReference::Literal(text) => (named, named || !passwords_in(text.expose()).is_empty()),
            _ => (true, true),
        };
        Ok(Variable { name: name.clone(), value: secrets.credential(reference)?, secret, guarded })
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
            told: Told::default(),
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
        fits(upstream, &headers)?;
        let own = self.own.get(principal.as_str());
        if self.own_only && !standing && own.is_none() && headers.is_empty() {
            let fault = Fault::new(FaultCode::Forbidden, format!("upstream '{upstream}' wants a credential of your own"));
            return Err(fault.with_hint(match self.headers.first() {
                Some(name) => format!("send it in the header {name}, or ask the operator to configure one for you"),
                None => "ask the operator to configure one for you".to_owned(),
            }));
        }
        let mut authentication = own.or(self.common.as_ref()).cloned();
        let mut presented = Vec::new();
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
        for variable in self.environment.iter().chain(own_variables.into_iter().flatten()).filter(|one| one.guarded) {
            let value = variable.value.current().await.map_err(|fault| unusable(upstream, &fault))?;
            presented.extend(variable.secrets(value));
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
        let of_house = self.told.house(configured, presented).await?;
        let of_clients = self.told.clients(principal, &headers).await?;
        let of_client = self.told.client(&told_apart, &headers).await?;
        let echoes = of_client.clone().and(&of_house).and(&of_clients);
        Ok((Proof { authentication, headers, echoes, of_house, of_client }, told_apart))
    }

    /// Every secret that is configured for this upstream, whosever it is. One that cannot be read now is not presented now
    /// either; whether it was before is remembered.
    async fn configured(&self) -> Vec<Secret> {
        let variables = self.environment.iter().chain(self.own_environment.values().flatten());
        let variables: Vec<&Variable> = variables.filter(|variable| variable.guarded).collect();
        let authentications = self.common.iter().chain(self.own.values()).filter_map(Authentication::configured);
        let all = variables.iter().map(|variable| &variable.value).chain(authentications).cloned();
        // A store that does not answer keeps nobody waiting who does not need what is in it.
        let read = |credential: Credential| async move { tokio::time::timeout(PATIENCE, credential.current()).await.ok()?.ok() };
        let values = futures::future::join_all(all.map(read)).await.into_iter().enumerate();
        let secrets = |(place, value): (usize, Option<Secret>)| match (value, variables.get(place)) {
            (None, _) => Vec::new(),
            (Some(value), Some(variable)) => variable.secrets(value),
            (Some(value), None) => vec![value],
        };
        values.flat_map(secrets).collect()
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
    fn a_variable_is_looked_at_when_there_is_something_to_keep_in_it() {
        let given = [
            ("DATABASE_URL", "postgres://app:hunter22@db/shop"),
            ("GRAFANA_URL", "https://grafana.example"),
            ("API_TOKEN", "of-somebody"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), SecretReference::from(Secret::new(value))));
        let all = variables(&BTreeMap::from(given), &portcullis_egress::LiteralSecrets).unwrap();
        let guarded = |variable: &Variable| (variable.name.clone(), variable.secret, variable.guarded);
        let expected = [("API_TOKEN", true, true), ("DATABASE_URL", false, true), ("GRAFANA_URL", false, false)];
        let expected = expected.map(|(name, secret, guarded)| (name.to_owned(), secret, guarded));
        assert_eq!(all.iter().map(guarded).collect::<Vec<_>>(), expected);
    }
}
