//! What an upstream was told by the house and by clients, so that it is looked for in what the upstream answers. Guards that no
//! client pushes out what others presented, nor makes it so much that looking for it takes long, and that it is made ready
//! while no lock is held. Must not hand a kept value to anybody.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis_egress::Echoes;
use portcullis_model::{Fault, FaultCode, PrincipalId, Secret};

/// Secrets the house presented that are looked for, whatever is configured now: rotated ones and exchanged ones.
const PRESENTED: usize = 64;
/// What clients presented that is looked for in answers to others, and its bytes.
const OF_CLIENTS: (usize, usize) = (64, 32 << 10);
/// The same of one principal, so that none pushes out what the others presented.
const OF_ONE_CLIENT: (usize, usize) = (8, LARGEST);
/// Headers of clients whose forms are known; making them takes longer than a call may.
const RECENT: usize = 8;
/// Bytes of secrets whose forms are made where they are needed; more of them are made where nobody else waits.
const QUICK: usize = 2 << 10;

/// Longest value of a header of a client that is handed on.
pub(crate) const LONGEST: usize = 8 << 10;
/// Bytes of all of them in one call.
pub(crate) const LARGEST: usize = 16 << 10;

/// What the upstream may know by now.
#[derive(Debug, Default)]
pub(crate) struct Told {
    state: Mutex<State>,
    /// What clients presented is made ready by one call, and the others wait for it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Presented by the house, the latest last.
    presented: VecDeque<Secret>,
    /// What is looked for of the house, and of which secrets it was made.
    of_house: (Vec<Secret>, Echoes),
    /// Presented by clients and not to be mistaken for a word, the latest last.
    clients: VecDeque<(PrincipalId, Secret)>,
    /// How often that became something else.
    changes: u64,
    /// What is looked for of clients, and after how many changes it was made.
    of_clients: (u64, Echoes),
    /// What is looked for in answers to whoever sent these headers, by what tells those apart, the latest last.
    recent: VecDeque<(String, Echoes)>,
}

/// What is looked for of secrets.
fn whatever_they_look_like(secrets: &[Secret]) -> Echoes {
    Echoes::of(secrets)
}

/// What is looked for of what others presented.
fn where_they_look_random(secrets: &[Secret]) -> Echoes {
    Echoes::of_others(secrets)
}

/// Makes ready what is looked for. What takes long keeps no thread that others need.
async fn made(secrets: Vec<Secret>, make: fn(&[Secret]) -> Echoes) -> Result<Echoes, Fault> {
    let bytes: usize = secrets.iter().map(|secret| secret.expose().len()).sum();
    if bytes <= QUICK {
        return Ok(make(&secrets));
    }
    tokio::task::spawn_blocking(move || make(&secrets)).await.map_err(|error| {
        Fault::new(FaultCode::Internal, "what must not come back cannot be made ready, so nothing was sent")
            .with_internal(error.to_string())
    })
}

/// What one client sent with one call, in every way it could come back: also without the word before a token.
fn ways_of(headers: &[(String, Secret)]) -> Vec<Secret> {
    let tokens = headers.iter().filter_map(|(_, value)| Some(Secret::new(value.expose().split_once(' ')?.1.trim())));
    headers.iter().map(|(_, value)| value.clone()).chain(tokens).collect()
}

impl State {
    /// Everything of the house that is looked for, once these are presented too.
    fn house(&mut self, configured: Vec<Secret>, presented: Vec<Secret>) -> Vec<Secret> {
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
        all
    }

    /// Whether a client presented this before; it is the latest then.
    fn knows(&mut self, principal: &PrincipalId, secret: &Secret) -> bool {
        let known = |(of, known): &(PrincipalId, Secret)| of == principal && known == secret;
        let Some(place) = self.clients.iter().position(known) else { return false };
        let known = self.clients.remove(place);
        self.clients.extend(known);
        true
    }

    /// Remembers what a client presented.
    fn remember(&mut self, principal: &PrincipalId, secret: Secret) {
        if self.knows(principal, &secret) {
            return;
        }
        self.clients.push_back((principal.clone(), secret));
        self.changes += 1;
        while self.is_over(OF_ONE_CLIENT, |of| of == principal) {
            let oldest = self.clients.iter().position(|(of, _)| of == principal).unwrap_or_default();
            self.clients.remove(oldest);
        }
        while self.is_over(OF_CLIENTS, |_| true) {
            self.clients.pop_front();
        }
    }

    /// Whether more than this is kept of some principals.
    fn is_over(&self, (most, bytes): (usize, usize), of_whom: impl Fn(&PrincipalId) -> bool) -> bool {
        let kept = self.clients.iter().filter(|(of, _)| of_whom(of)).map(|(_, secret)| secret.expose().len());
        let (count, length) = kept.fold((0, 0), |(count, length), one| (count + 1, length + one));
        count > most || length > bytes
    }

    /// What is looked for of clients, where that is ready.
    fn ready(&self) -> Option<Echoes> {
        (self.of_clients.0 == self.changes).then(|| self.of_clients.1.clone())
    }

    /// What is looked for of whoever sent these headers, where that is ready.
    fn recent(&mut self, told_apart: &str) -> Option<Echoes> {
        let place = self.recent.iter().position(|(known, _)| known == told_apart)?;
        let known = self.recent.remove(place)?;
        let echoes = known.1.clone();
        self.recent.push_back(known);
        Some(echoes)
    }
}

impl Told {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is looked for of the house once these are presented too.
    pub(crate) async fn house(&self, configured: Vec<Secret>, presented: Vec<Secret>) -> Result<Echoes, Fault> {
        let all = {
            let mut state = self.state();
            let all = state.house(configured, presented);
            if state.of_house.0 == all {
                return Ok(state.of_house.1.clone());
            }
            all
        };
        let echoes = made(all.clone(), whatever_they_look_like).await?;
        self.state().of_house = (all, echoes.clone());
        Ok(echoes)
    }

    /// What is looked for of all clients once this one presented these.
    pub(crate) async fn clients(&self, principal: &PrincipalId, presented: &[(String, Secret)]) -> Result<Echoes, Fault> {
        let fresh: Vec<Secret> = {
            let mut state = self.state();
            let fresh = presented.iter().map(|(_, secret)| secret).filter(|secret| !state.knows(principal, secret));
            fresh.cloned().collect()
        };
        let told: Vec<Secret> = fresh.into_iter().filter(Echoes::is_told_from_words).collect();
        {
            let mut state = self.state();
            for secret in told {
                state.remember(principal, secret);
            }
            if let Some(ready) = state.ready() {
                return Ok(ready);
            }
        }
        let _turn = self.turn.lock().await;
        let (changes, secrets) = {
            let state = self.state();
            if let Some(ready) = state.ready() {
                return Ok(ready);
            }
            (state.changes, state.clients.iter().map(|(_, secret)| secret.clone()).collect())
        };
        let echoes = made(secrets, where_they_look_random).await?;
        self.state().of_clients = (changes, echoes.clone());
        Ok(echoes)
    }

    /// What is looked for in the answer to a call with these headers, which `told_apart` tells from others.
    pub(crate) async fn client(&self, told_apart: &str, headers: &[(String, Secret)]) -> Result<Echoes, Fault> {
        if headers.is_empty() {
            return Ok(Echoes::default());
        }
        if let Some(known) = self.state().recent(told_apart) {
            return Ok(known);
        }
        let echoes = made(ways_of(headers), whatever_they_look_like).await?;
        let mut state = self.state();
        state.recent.push_back((told_apart.to_owned(), echoes.clone()));
        if state.recent.len() > RECENT {
            state.recent.pop_front();
        }
        Ok(echoes)
    }
}

/// Whether headers of a client are few and short enough to be handed on.
///
/// # Errors
/// For the caller: which is too long, or that all of them are.
pub(crate) fn fits(upstream: &str, headers: &[(String, Secret)]) -> Result<(), Fault> {
    let too_large = |message: String, hint: String| Err(Fault::new(FaultCode::TooLarge, message).with_hint(hint));
    if let Some((name, value)) = headers.iter().find(|(_, value)| value.expose().len() > LONGEST) {
        let length = value.expose().len();
        let message = format!("the header {name} has {length} bytes, which is too long to be handed on to upstream '{upstream}'");
        return too_large(message, format!("at most {LONGEST} bytes of one header are handed on"));
    }
    let all: usize = headers.iter().map(|(_, value)| value.expose().len()).sum();
    if all > LARGEST {
        let message = format!("the headers for upstream '{upstream}' have {all} bytes, which is too much to be handed on");
        return too_large(message, format!("at most {LARGEST} bytes of all headers are handed on"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: usize) -> Secret {
        Secret::new(format!("secret-of-somebody-{n}."))
    }

    fn principal(n: usize) -> PrincipalId {
        PrincipalId::new(format!("key:{n}")).unwrap()
    }

    fn sent(text: &str) -> Vec<(String, Secret)> {
        vec![("x-own".to_owned(), Secret::new(text))]
    }

    fn random(n: usize) -> String {
        format!("Zq8Xk2Tn5Rw1Lb7Yd4Vc9Hm3-{n}.")
    }

    fn of_client(text: &str) -> Echoes {
        whatever_they_look_like(&ways_of(&sent(text)))
    }

    #[tokio::test]
    async fn what_the_house_presented_is_looked_for_and_the_list_is_bounded() {
        let told = Told::default();
        let rotated = told.house(vec![secret(0)], vec![secret(1)]).await.unwrap();
        assert_eq!(rotated.text("secret-of-somebody-1."), "[redacted:credential]");
        let now = told.house(vec![secret(2)], Vec::new()).await.unwrap();
        assert_eq!(now.text("secret-of-somebody-2."), "[redacted:credential]", "configured for another principal");
        assert_eq!(now.text("secret-of-somebody-1."), "[redacted:credential]", "presented before");
        for n in 10..200 {
            told.house(Vec::new(), vec![secret(n)]).await.unwrap();
        }
        assert_eq!(told.state().presented.len(), PRESENTED);
    }

    #[tokio::test]
    async fn what_a_client_sends_is_looked_for_in_answers_to_others_only_where_it_looks_random() {
        let told = Told::default();
        for word in ["content", "isError", "UNHEALTHY", "Looks at what is there."] {
            assert!(told.clients(&principal(0), &sent(word)).await.unwrap().is_empty(), "{word}");
            assert_eq!(of_client(word).text(word), "[redacted:credential]", "in its own answers");
        }
        assert_eq!(of_client("Bearer of-one").text("got of-one"), "got [redacted:credential]");
        for n in 0..2 * RECENT {
            let (sent, told_apart) = (sent(&random(n)), n.to_string());
            for _ in 0..2 {
                assert_eq!(told.client(&told_apart, &sent).await.unwrap().text(&random(n)), "[redacted:credential]");
            }
        }
        assert_eq!(told.state().recent.len(), RECENT);
        assert!(told.client("", &[]).await.unwrap().is_empty(), "nothing was sent");
        assert_eq!(told.state().recent.len(), RECENT, "who sends nothing takes nobody's place");
        let first = told.clients(&principal(1), &sent(&random(0))).await.unwrap();
        assert_eq!(first.text(&random(0)), "[redacted:credential]");
        // One who sends many pushes out only its own.
        for n in 1..100 {
            told.clients(&principal(2), &sent(&random(n))).await.unwrap();
        }
        assert_eq!(told.state().clients.len(), 1 + OF_ONE_CLIENT.0);
        let now = told.clients(&principal(3), &[]).await.unwrap();
        assert_eq!(now.text(&format!("{} {}", random(0), random(99))), "[redacted:credential] [redacted:credential]");
        for n in 100..300 {
            told.clients(&principal(n), &sent(&random(n))).await.unwrap();
        }
        assert_eq!(told.state().clients.len(), OF_CLIENTS.0);
    }

    #[tokio::test]
    async fn what_clients_send_is_bounded_in_bytes_and_what_is_too_long_is_refused() {
        let told = Told::default();
        let long = |n: usize| Secret::new(format!("{}{}", random(n), "x".repeat(LONGEST - 100)));
        let presents = |who: usize, n: usize| told.state().remember(&principal(who), long(n));
        let bytes = || told.state().clients.iter().map(|(_, secret)| secret.expose().len()).sum::<usize>();
        (0..4).for_each(|n| presents(1, n));
        assert!((LONGEST..=OF_ONE_CLIENT.1).contains(&bytes()), "{}", bytes());
        (0..20).for_each(|n| presents(10 + n, n));
        assert!((OF_ONE_CLIENT.1..=OF_CLIENTS.1).contains(&bytes()), "{}", bytes());
        let now = told.clients(&principal(0), &[]).await.unwrap();
        assert_eq!(now.text(long(19).expose()), "[redacted:credential]", "also one that is made beside the runtime");
        let refused = fits("up", &sent(&"x".repeat(LONGEST + 1))).unwrap_err();
        assert!(refused.code() == FaultCode::TooLarge && refused.message().contains("x-own has 8193 bytes"), "{refused}");
        let three: Vec<_> = (0..3).flat_map(|_| sent(&"x".repeat(LONGEST - 1))).collect();
        assert!(fits("up", &three).unwrap_err().hint().is_some_and(|hint| hint.contains("16384 bytes of all headers")));
        assert!(fits("up", &three[..2]).is_ok());
    }

    #[tokio::test]
    async fn what_was_presented_while_it_was_made_ready_is_not_missed() {
        let told = std::sync::Arc::new(Told::default());
        // More than is made at once, so that they come in between.
        let long = |n: usize| format!("{}{}", random(n), "x".repeat(QUICK / 8));
        let presents = |n: usize| {
            let (told, long) = (told.clone(), long(n));
            async move { told.clients(&principal(n), &sent(&long)).await.unwrap().text(&long).into_owned() }
        };
        let all = futures::future::join_all((0..12).map(presents)).await;
        assert!(all.iter().all(|text| text == "[redacted:credential]"), "{all:?}");
        let now = told.clients(&principal(0), &[]).await.unwrap();
        assert!((0..12).all(|n| now.text(&long(n)) == "[redacted:credential]"));
    }
}
