//! Authorities that lead elsewhere, answer nonsense, ask for patience, or issue something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_acme::{Answers, Happening, report};
use portcullis_model::{Clock as _, SystemClock};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, order, polite, proof, said};

#[tokio::test]
async fn an_authority_that_leads_elsewhere_or_answers_nonsense_gets_nothing() {
    type Say = fn(&str, &str) -> Option<crate::authority::Said>;
    let cases: [(&str, Say, &str); 12] = [
        (
            "a directory of another origin",
            |own, path| match path {
                "/dir" => said(
                    200,
                    &json!({"newNonce": "https://evil.example/nonce", "newAccount": format!("{own}/account"), "newOrder": format!("{own}/order")}),
                ),
                _ => polite(own, path),
            },
            "leads away from",
        ),
        (
            "another port of the same host",
            |own, path| match path {
                "/dir" => said(
                    200,
                    &json!({"newNonce": "https://127.0.0.1:1/nonce", "newAccount": format!("{own}/account"), "newOrder": format!("{own}/order")}),
                ),
                _ => polite(own, path),
            },
            "leads away from",
        ),
        (
            "a redirect away",
            |own, path| match path {
                "/dir" => Some((302, "Location: https://evil.example/dir\r\n".to_owned(), String::new())),
                _ => polite(own, path),
            },
            "redirect",
        ),
        ("no JSON", |_, _| Some((200, String::new(), "<html>".to_owned())), "cannot be used"),
        (
            "no nonce resource",
            |own, path| match path {
                "/dir" => said(200, &json!({"newOrder": format!("{own}/order")})),
                _ => polite(own, path),
            },
            "cannot be used",
        ),
        ("an error page", |_, _| Some((503, String::new(), "<html>".to_owned())), "status 503"),
        ("too much", |_, _| Some((200, String::new(), "x".repeat(300 << 10))), "cannot be reached"),
        (
            "a proof for another name",
            |own, path| match path {
                "/proof/1" => said(200, &proof(own, "pending", "bank.example", "token-1")),
                _ => polite(own, path),
            },
            "a name that was not ordered",
        ),
        (
            "a token that is a path",
            |own, path| match path {
                "/proof/1" => said(200, &proof(own, "pending", "mcp.example", "../../etc/passwd")),
                _ => polite(own, path),
            },
            "not base64url",
        ),
        (
            "a proof that is over",
            |own, path| match path {
                "/proof/1" => said(200, &proof(own, "expired", "mcp.example", "token-1")),
                _ => polite(own, path),
            },
            "cannot be proved",
        ),
        (
            "an order that came to nothing",
            |own, path| match path {
                "/order/1" => said(200, &order(own, "invalid")),
                _ => polite(own, path),
            },
            "came to nothing",
        ),
        (
            "words with control characters",
            |own, path| match path {
                "/account" => said(
                    403,
                    &json!({"type": "urn:ietf:params:acme:error:unauthorized", "detail": format!("no\n\u{1b}[31m{}", "x".repeat(5000))}),
                ),
                _ => polite(own, path),
            },
            "the authority refuses the account: API error: no  [31mxxx",
        ),
    ];
    for (what, script, words) in cases {
        let authority = Authority::start(move |own, path, _| script(own, path)).await;
        let (reason, _) = authority.failure().await;
        assert!(reason.contains(words), "{what}: {reason}");
        assert!(reason.len() < 1_000 && !reason.contains(char::is_control), "{what}: {reason}");
        let report = report(&authority.settings(), authority.data.path(), SystemClock.now());
        assert_eq!(report.failure.unwrap().reason, reason, "{what}");
        assert!(report.valid_until.is_none() && report.next > SystemClock.now(), "{what}");
    }
}

#[tokio::test]
async fn the_pause_an_authority_asks_for_is_kept_and_bounded() {
    for (asked, at_least, at_most) in [("86400", 86_000, 86_400), ("5", 110, 180), ("18446744073709551615", 604_000, 604_800)] {
        let authority = Authority::start(move |own, path, _| match path {
            "/order" => Some((
                429,
                format!("Retry-After: {asked}\r\n"),
                json!({"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many"}).to_string(),
            )),
            _ => polite(own, path),
        })
        .await;
        let (reason, seconds) = authority.failure().await;
        assert!(reason.contains("the authority refuses the order") && reason.contains("rateLimited"), "{reason}");
        assert!((at_least..=at_most).contains(&seconds), "{asked}: {seconds}");
        // Another start, and another: nobody is asked.
        let before = authority.asked().len();
        for _ in 0..3 {
            let (keeper, answers, stop) = (authority.keeper(), Answers::new(&authority.settings()), CancellationToken::new());
            let running = keeper.run(&answers, |happening| panic!("{happening:?}"), &stop);
            assert!(tokio::time::timeout(Duration::from_millis(200), running).await.is_err());
        }
        assert_eq!(authority.asked().len(), before);
    }
}

#[tokio::test]
async fn a_pause_beyond_all_clocks_while_it_looks_does_no_harm() {
    let authority = Authority::start(|own, path, _| match path {
        "/order/1" => Some((200, "Retry-After: 18446744073709551615\r\n".to_owned(), order(own, "pending").to_string())),
        _ => polite(own, path),
    })
    .await;
    let (reason, _) = authority.failure().await;
    assert!(reason.contains("not done in time"), "{reason}");
}

#[tokio::test]
async fn an_order_that_is_cut_off_half_way_is_not_begun_again_at_once() {
    let authority = Authority::start(|own, path, _| if path == "/order" { None } else { polite(own, path) }).await;
    let (keeper, answers, stop) = (authority.keeper(), Answers::new(&authority.settings()), CancellationToken::new());
    let running = keeper.run(&answers, |happening| panic!("{happening:?}"), &stop);
    let ordered = async {
        while !authority.asked().contains(&"/order".to_owned()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = running => panic!("it ended"),
        () = ordered => {}
    }
    drop(keeper);
    let report = report(&authority.settings(), authority.data.path(), SystemClock.now());
    assert!(report.next.since(SystemClock.now()) > Duration::from_secs(100), "{report:?}");
}

#[tokio::test]
async fn a_certificate_of_another_key_or_name_is_not_kept() {
    for (name, words) in [("mcp.example", "another key"), ("other.example", "not for mcp.example")] {
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let finalized = Arc::new(AtomicUsize::new(0));
        let authority = Authority::start(move |own, path, _| match path {
            "/finalize" => {
                finalized.fetch_add(1, Ordering::SeqCst);
                said(200, &order(own, "processing"))
            }
            "/order/1" if finalized.load(Ordering::SeqCst) > 0 => said(200, &order(own, "valid")),
            "/certificate" => Some((200, String::new(), pem.clone())),
            _ => polite(own, path),
        })
        .await;
        // What is in force stays.
        let kept = portcullis_acme::certificate_file(authority.data.path());
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::write(&kept, "what was there before").unwrap();
        let (reason, _) = authority.failure().await;
        assert!(reason.contains("not put into force") && reason.contains(words), "{reason}");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "what was there before");
    }
}

#[tokio::test]
async fn one_process_orders_for_a_data_directory() {
    let authority = Authority::start(|own, path, _| if path == "/order" { None } else { polite(own, path) }).await;
    let (keeper, answers, stop) = (authority.keeper(), Answers::new(&authority.settings()), CancellationToken::new());
    let running = keeper.run(&answers, |happening| panic!("{happening:?}"), &stop);
    let second = async {
        while authority.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        authority.once().await
    };
    tokio::select! {
        () = running => panic!("it ended"),
        happened = second => assert!(matches!(happened, Happening::Elsewhere), "{happened:?}"),
    }
}
