//! What is let in, what is kept out, and what is put out again, with its record.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portcullis_model::FaultCode;
use portcullis_plugins::{InstallOptions, Revocation, StoreError};
use portcullis_ports::{Extension, Standing, Taken};
use serde_json::json;

use crate::shop::{MANIFEST, Shop};

#[tokio::test]
async fn a_signed_plugin_is_loaded_and_that_is_recorded() {
    let Some(shop) = Shop::open("") else { return };
    let loaded = shop.happened("plugin.loaded");
    assert_eq!(loaded.len(), 1);
    assert!(loaded[0].admitted && loaded[0].subject == "probe" && loaded[0].note.contains("of Tests"), "{loaded:?}");
    let line = shop.line();
    assert!(line.standing == Standing::Attention && line.detail.contains("not granted: http://127.0.0.1:18080"), "{line:?}");
}

#[tokio::test]
async fn names_that_are_taken_stay_taken() {
    let Some(shop) = Shop::open("") else { return };
    let taken = Taken { tools: BTreeSet::from(["probe_do".to_owned()]), ..Taken::default() };
    let offer = shop.plugins().offer(&taken);
    let names: Vec<String> = offer.tools.iter().map(|tool| tool.spec().name.to_string()).collect();
    assert_eq!(names, ["probe_probe_do", "probe_change"]);
    let change = offer.tools.iter().find(|tool| tool.spec().name.as_str() == "probe_change").unwrap();
    assert_eq!(&*change.spec().category.as_ref().unwrap().0, "plugin-probe");
}

#[tokio::test]
async fn a_component_that_is_not_what_its_manifest_says_is_not_loaded() {
    for (from, to, says) in [
        ("{name: probe_change, risk: write}", "{name: probe_change, risk: read}", "another risk class"),
        ("  - {name: probe_change, risk: write}\n", "", "which the manifest does not name"),
        (
            "{name: probe_change, risk: write}",
            "{name: probe_change, risk: write}\n  - {name: more, risk: read}",
            "does not describe the tool 'more'",
        ),
        ("signals: [metrics, logs, traces, alerts]", "signals: [logs]", "other signals"),
    ] {
        assert!(MANIFEST.contains(from), "{from}");
        let Some(shop) = Shop::open_with(&MANIFEST.replace(from, to), "") else { return };
        assert!(shop.plugins().offer(&Taken::default()).tools.is_empty());
        let line = shop.line();
        assert!(line.standing == Standing::Broken && line.detail.contains(says), "{says}: {line:?}");
        assert!(!shop.happened("plugin.refused")[0].admitted);
    }
}

#[tokio::test]
async fn an_altered_an_unsigned_and_an_untrusted_package_do_not_start() {
    let Some(mut shop) = Shop::closed() else { return };
    let installed = shop.install(MANIFEST, "1.0.0");
    let stored = shop.directory.path().join(format!("plugins/packages/{}.plugin", installed.digest.hex()));
    let signature = stored.with_extension("sig");
    let (good, signed) = (std::fs::read(&stored).unwrap(), std::fs::read(&signature).unwrap());
    // Swapped after it was verified and installed: another package, and its own signature too.
    let (other, other_signature) = shop.package(MANIFEST, "1.0.1");
    std::fs::write(&stored, &other).unwrap();
    std::fs::write(&signature, other_signature.to_json()).unwrap();
    shop.start("");
    assert!(shop.line().detail.contains("somebody changed it"), "{:?}", shop.line());
    // The right package with a signature over another digest, and with none.
    std::fs::write(&stored, &good).unwrap();
    shop.start("");
    assert!(shop.line().detail.contains("signature is over probe 1.0.1"), "{:?}", shop.line());
    std::fs::remove_file(&signature).unwrap();
    shop.start("");
    assert!(shop.line().detail.contains("not signed"), "{:?}", shop.line());
    std::fs::write(&signature, &signed).unwrap();
    std::fs::rename(shop.store.default_trust_root(), shop.directory.path().join("away")).unwrap();
    shop.start("");
    assert!(shop.line().detail.contains("no trust root"), "{:?}", shop.line());
    assert!(shop.report().iter().any(|line| line.name == "plugin signatures" && line.standing == Standing::Broken));
    std::fs::rename(shop.directory.path().join("away"), shop.store.default_trust_root()).unwrap();
    shop.start("");
    assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
    assert_eq!(shop.happened("plugin.refused").len(), 4);
}

#[tokio::test]
async fn an_older_version_is_refused() {
    let Some(shop) = Shop::closed() else { return };
    shop.install(MANIFEST, "2.0.0");
    let (bytes, signature) = shop.package(MANIFEST, "1.0.0");
    let now = portcullis_model::Clock::now(&portcullis_model::SystemClock);
    let refused =
        shop.store.install(&bytes, Some(signature.to_json().as_bytes()), Ok(shop.root()), InstallOptions::default(), now);
    assert!(matches!(refused, Err(StoreError::Downgrade { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_or_disabled_while_running_is_put_out() {
    let Some(shop) = Shop::open("") else { return };
    let tool = shop.tool("probe_do");
    let seen = shop.plugins().revision();
    let mut root = shop.root();
    root.keys[0].revoked = Some(Revocation { at: "2026-01-01T00:00:00Z".into(), reason: "the key was stolen".into() });
    root.save(&shop.store.default_trust_root()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), shop.plugins().changed(seen)).await.unwrap();
    assert!(shop.plugins().offer(&Taken::default()).tools.is_empty());
    let line = shop.line();
    assert!(line.detail.contains("revoked, not loaded") && line.detail.contains("the key was stolen"), "{line:?}");
    assert_eq!((shop.happened("plugin.revoked").len(), shop.happened("plugin.unloaded").len()), (1, 1));
    // Who still holds the tool from before cannot use it either.
    let late = tool.run(&shop.permit(), portcullis_ports::Arguments::default(), &portcullis_ports::NoExchange).await;
    assert!(late.is_err(), "{late:?}");
    let seen = shop.plugins().revision();
    root.keys[0].revoked = None;
    root.save(&shop.store.default_trust_root()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), shop.plugins().changed(seen)).await.unwrap();
    assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
    let seen = shop.plugins().revision();
    shop.store.enable("probe", false).unwrap();
    tokio::time::timeout(Duration::from_secs(30), shop.plugins().changed(seen)).await.unwrap();
    assert_eq!(shop.line().standing, Standing::Off);
    shop.plugins().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_list_keeps_nobody_in_whom_nobody_trusts_any_more() {
    let Some(shop) = Shop::open("") else { return };
    let list = shop.store.list_path();
    let good = std::fs::read(&list).unwrap();
    let changed = async |since| tokio::time::timeout(Duration::from_secs(30), shop.plugins().changed(since)).await.unwrap();
    let seen = shop.plugins().revision();
    std::fs::write(&list, "{").unwrap();
    changed(seen).await;
    // What was installed goes on, and the trouble is said once.
    assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
    assert_eq!(shop.happened("plugin.unreadable").len(), 1);
    assert!(shop.report().iter().any(|line| line.standing == Standing::Broken && line.detail.contains("cannot be followed")));
    let seen = shop.plugins().revision();
    let mut root = shop.root();
    root.keys[0].revoked = Some(Revocation { at: "2026-01-01T00:00:00Z".into(), reason: "the key was stolen".into() });
    root.save(&shop.store.default_trust_root()).unwrap();
    changed(seen).await;
    assert!(shop.plugins().offer(&Taken::default()).tools.is_empty());
    assert_eq!((shop.happened("plugin.revoked").len(), shop.happened("plugin.unreadable").len()), (1, 1));
    root.keys[0].revoked = None;
    let seen = shop.plugins().revision();
    root.save(&shop.store.default_trust_root()).unwrap();
    changed(seen).await;
    assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
    let seen = shop.plugins().revision();
    std::fs::write(&list, good).unwrap();
    changed(seen).await;
    assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
    assert!(shop.report().iter().all(|line| !line.detail.contains("cannot be followed")));
    shop.plugins().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_keeps_crashing_is_kept_out_until_an_operator_enables_it() {
    let Some(mut shop) = Shop::open("") else { return };
    let tool = shop.tool("probe_do");
    // Good calls between bad ones begin the row anew.
    for _ in 0..4 {
        shop.probed("panic").await.unwrap_err();
    }
    shop.probe(json!({"what": "echo"})).await.unwrap();
    for _ in 0..5 {
        shop.probed("panic").await.unwrap_err();
    }
    assert!(shop.plugins().offer(&Taken::default()).tools.is_empty());
    let arguments = portcullis_ports::Arguments(json!({"what": "echo"}).as_object().unwrap().clone());
    let fault = tool.run(&shop.permit(), arguments, &portcullis_ports::NoExchange).await.unwrap_err();
    assert!(fault.code() == FaultCode::Unavailable && fault.message().contains("quarantine"), "{fault:?}");
    assert!(shop.line().standing == Standing::Attention && shop.line().detail.contains("portcullis plugin enable probe"));
    assert_eq!(shop.happened("plugin.quarantined").len(), 1);
    // A restart does not let it in again; the operator does.
    shop.start("");
    assert!(shop.plugins().offer(&Taken::default()).tools.is_empty());
    let seen = shop.plugins().revision();
    shop.store.enable("probe", true).unwrap();
    tokio::time::timeout(Duration::from_secs(30), shop.plugins().changed(seen)).await.unwrap();
    assert!(shop.probe(json!({"what": "echo"})).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_let_in() {
    let Some(mut shop) = Shop::closed() else { return };
    shop.install(MANIFEST, "1.0.0");
    shop.book.closed.store(true, Ordering::SeqCst);
    shop.start("");
    assert!(shop.plugins().offer(&Taken::default()).tools.is_empty());
    assert!(shop.line().detail.contains("could not be recorded"), "{:?}", shop.line());
}
