//! What is presented to an upstream for whom. Guards that a caller's own credential for this house never leaves it, that a
//! principal gets its own secret or the common one and never another's, that what the upstream was told by anybody is known, so
//! that it comes back to nobody, and that no client chooses what is taken out of answers to others. Must not hand a kept value
//! to anybody.

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
use crate::passwords::passwords_in;
use crate::settings::UpstreamSettings;

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

/// Secrets the house presented that are looked for, whatever is configured now: rotated ones and exchanged ones.
const PRESENTED: usize = 64;

/// What clients presented that is looked for in answers to others.
const OF_CLIENTS: usize = 64;

/// The same of one principal, so that none pushes out what the others presented.
const OF_ONE_CLIENT: usize = 8;

/// Headers of clients whose forms are known; making them takes longer than a call may.
const RECENT: usize = 8;

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
    /// Presented by the house, the latest last.
    presented: VecDeque<Secret>,
    /// What is looked for of the house, and of which secrets it was made.
    of_house: (Vec<Secret>, Echoes),
    /// Presented by clients and not to be mistaken for a word, the latest last.
    clients: VecDeque<(PrincipalId, Secret)>,
    /// What is looked for of clients.
    of_clients: Echoes,
    /// What is looked for in answers to whoever sent these headers, by what tells those apart, the latest last.
    recent: VecDeque<(String, Echoes)>,
}

impl Told {
    /// What is looked for of the house once these are presented too.
    fn house(&mut self, configured: Vec<Secret>, presented: Vec<Secret>) -> Echoes {
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
        if self.of_house.0 != all {
            let echoes = Echoes::of(&all);
            self.of_house = (all, echoes);
        }
        self.of_house.1.clone()
    }

    /// What is looked for of all clients once this one presented these.
    fn clients(&mut self, principal: &PrincipalId, presented: &[(String, Secret)]) -> Echoes {
        let mut news = false;
        for (_, secret) in presented {
            let known = |(of, known): &(PrincipalId, Secret)| of == principal && known == secret;
            if let Some(place) = self.clients.iter().position(known) {
                let known = self.clients.remove(place);
                self.clients.extend(known);
            } else if !Echoes::of_others([secret]).is_empty() {
                self.clients.push_back((principal.clone(), secret.clone()));
                news = true;
            }
        }
        let own = |(of, _): &(PrincipalId, Secret)| of == principal;
        while self.clients.iter().filter(|kept| own(kept)).count() > OF_ONE_CLIENT {
            let oldest = self.clients.iter().position(own).unwrap_or_default();
            self.clients.remove(oldest);
        }
        while self.clients.len() > OF_CLIENTS {
            self.clients.pop_front();
        }
        if news {
            self.of_clients = Echoes::of_others(self.clients.iter().map(|(_, secret)| secret));
        }
        self.of_clients.clone()
    }

    /// What is looked for in the answer to a call with these headers, which `told_apart` tells from others.
    fn client(&mut self, told_apart: &str, headers: &[(String, Secret)]) -> Echoes {
        if headers.is_empty() {
            return Echoes::default();
        }
        let known = self.recent.iter().position(|(known, _)| known == told_apart).and_then(|place| self.recent.remove(place));
        let (_, echoes) = known.unwrap_or_else(|| (String::new(), of_client(headers)));
        self.recent.push_back((told_apart.to_owned(), echoes.clone()));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        echoes
    }
}

/// What one client sent with one call, in every way it could come back: also without the word before a token.
fn of_client(headers: &[(String, Secret)]) -> Echoes {
    let tokens = headers.iter().filter_map(|(_, value)| Some(Secret::new(value.expose().split_once(' ')?.1.trim())));
    let all: Vec<Secret> = headers.iter().map(|(_, value)| value.clone()).chain(tokens).collect();
    Echoes::of(&all)
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
        let (of_house, of_clients, of_client) = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            (told.house(configured, presented), told.clients(principal, &headers), told.client(&told_apart, &headers))
        };
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
    fn what_the_house_presented_is_looked_for_and_the_list_is_bounded() {
        let mut told = Told::default();
        let secret = |n: usize| Secret::new(format!("secret-of-somebody-{n}."));
        let rotated = told.house(vec![secret(0)], vec![secret(1)]);
        assert_eq!(rotated.text("secret-of-somebody-1."), "[redacted:credential]");
        let now = told.house(vec![secret(2)], Vec::new());
        assert_eq!(now.text("secret-of-somebody-2."), "[redacted:credential]", "configured for another principal");
        assert_eq!(now.text("secret-of-somebody-1."), "[redacted:credential]", "presented before");
        for n in 10..200 {
            told.house(Vec::new(), vec![secret(n)]);
        }
        assert_eq!(told.presented.len(), PRESENTED);
    }

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

    #[test]
    fn what_a_client_sends_is_looked_for_in_answers_to_others_only_where_it_looks_random() {
        let mut told = Told::default();
        let principal = |n: usize| PrincipalId::new(format!("key:{n}")).unwrap();
        let sent = |text: &str| vec![("x-own".to_owned(), Secret::new(text))];
        let random = |n: usize| format!("Zq8Xk2Tn5Rw1Lb7Yd4Vc9Hm3-{n}.");
        for word in ["content", "isError", "UNHEALTHY", "Looks at what is there."] {
            assert!(told.clients(&principal(0), &sent(word)).is_empty(), "{word}");
            assert_eq!(of_client(&sent(word)).text(word), "[redacted:credential]", "in its own answers");
        }
        assert_eq!(of_client(&sent("Bearer of-one")).text("got of-one"), "got [redacted:credential]");
        for n in 0..2 * RECENT {
            let (sent, told_apart) = (sent(&random(n)), n.to_string());
            for _ in 0..2 {
                assert_eq!(told.client(&told_apart, &sent).text(&random(n)), "[redacted:credential]");
            }
        }
        assert_eq!(told.recent.len(), RECENT);
        assert!(told.client("", &[]).is_empty() && told.recent.len() == RECENT, "who sends nothing takes nobody's place");
        let first = told.clients(&principal(1), &sent(&random(0)));
        assert_eq!(first.text(&random(0)), "[redacted:credential]");
        // One who sends many pushes out only its own.
        for n in 1..100 {
            told.clients(&principal(2), &sent(&random(n)));
        }
        assert_eq!(told.clients.len(), 1 + OF_ONE_CLIENT);
        let now = told.clients(&principal(3), &[]);
        assert_eq!(now.text(&format!("{} {}", random(0), random(99))), "[redacted:credential] [redacted:credential]");
        for n in 100..300 {
            told.clients(&principal(n), &sent(&random(n)));
        }
        assert_eq!(told.clients.len(), OF_CLIENTS);
    }
}
