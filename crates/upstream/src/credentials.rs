//! What is presented to an upstream for whom. Guards that a caller's own credential for this house never leaves it, that a
//! principal gets its own secret or the common one and never another's, and that what was presented is known, so that it can
//! be taken out of answers. Must not keep a value.

use std::collections::BTreeMap;

use portcullis_egress::{Authentication, Credential, SecretFault, SecretResolver};
use portcullis_model::{Fault, FaultCode, PrincipalId, Secret, SecretReference};
use portcullis_ports::Exchange;
use sha2::{Digest, Sha256};

use crate::definition::hex;
use crate::echo::Echoes;
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

/// The credentials of one upstream, looked up when they are needed.
#[derive(Debug)]
pub(crate) struct Credentials {
    common: Option<Authentication>,
    own: BTreeMap<String, Authentication>,
    own_only: bool,
    headers: Vec<String>,
    environment: Vec<Variable>,
    own_environment: BTreeMap<String, Vec<Variable>>,
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

/// The secret inside, where it is looked up by itself.
fn secret_of(authentication: &Authentication) -> Option<&Credential> {
    match authentication {
        Authentication::Bearer(secret)
        | Authentication::Basic { password: secret, .. }
        | Authentication::Header { value: secret, .. } => Some(secret),
        // A token in the caller's own name is made on the way, anew for each caller.
        Authentication::None | Authentication::Exchanged(_) => None,
    }
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
        principal: &PrincipalId,
        standing: bool,
        exchange: Option<&dyn Exchange>,
    ) -> Result<(Proof, String), Fault> {
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
        let authentication = own.or(self.common.as_ref()).cloned();
        let mut presented: Vec<Secret> = headers.iter().map(|(_, value)| value.clone()).collect();
        if let Some(secret) = authentication.as_ref().and_then(secret_of) {
            presented.push(secret.current().await.map_err(|fault| unusable(upstream, &fault))?);
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
        Ok((Proof { authentication, headers, echoes: Echoes::of(&presented) }, told_apart))
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
