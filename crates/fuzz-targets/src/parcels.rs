//! Where plugins come from: what registries and hubs say, and the places operators and lists write.

use portcullis_plugins::{Challenge, Digest, HubIndex, HubLocation, OciReference, PackagePlace, PluginManifest, WebAddress};

use crate::{Target, Verdict};

/// The digest of nothing.
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(crate) const OCI_MANIFEST: Target = Target {
    name: "oci_manifest",
    promise: "what is read names one package and at most one signature, both within their bounds; challenges are read or left out",
    seeds: &[
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.portcullis.plugin.v1","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[{"mediaType":"application/vnd.portcullis.plugin.package.v1.tar+zstd","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7},{"mediaType":"application/vnd.portcullis.plugin.signature.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":300}]}"#,
        r#"{"schemaVersion":2,"manifests":[]}"#,
        r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#,
        r#"Basic realm="x", Bearer realm="https://a/\"b""#,
    ],
    words: &[
        "\"size\":",
        "67108865",
        "\"digest\":",
        "sha512:",
        "\"layers\":[",
        "\"urls\":[\"http://169.254.169.254/\"]",
        "\"data\":\"e30=\"",
        "\"artifactType\":",
        "Bearer ",
        "realm=\"",
        "\\\"",
        "Basic",
        ", ",
    ],
    run: oci_manifest,
};

fn oci_manifest(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let challenges = Challenge::read(&text);
    let lower = text.to_ascii_lowercase();
    let most = lower.matches("bearer").count() + lower.matches("basic").count();
    assert!(challenges.len() <= most, "{challenges:?} out of {text}");
    match PluginManifest::read(bytes) {
        Err(error) => {
            let said = error.to_string();
            assert!(!said.chars().any(char::is_control) && said.len() < 2_000, "{said:?}");
            Verdict::refused(said)
        }
        Ok(read) => {
            assert!((1..=64 << 20).contains(&read.package.size), "{read:?}");
            assert!(read.signature.is_none_or(|blob| (1..=8 << 10).contains(&blob.size)), "{read:?}");
            Verdict::accepted()
        }
    }
}

pub(crate) const HUB_INDEX: Target = Target {
    name: "hub_index",
    promise: "an index is read whole and back again, leads only below itself or to encrypted places, and chooses nothing withdrawn",
    seeds: &[
        r#"{"format":"portcullis-plugin-hub/1","hub":"acme","description":"Of Acme","serial":3,"created_at":"2026-06-01T00:00:00Z","expires_at":"2026-07-01T00:00:00Z","plugins":{"sample":{"versions":[{"version":"1.0.0","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":5,"location":"packages/sample-1.0.0.plugin","host":"^1.0","summary":"s","licence":"MIT","homepage":"https://e.org","permissions":{},"yanked":"leaks"},{"version":"1.1.0","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":5,"location":"https://host/x.plugin","host":"^1.0","summary":"s","licence":"MIT","homepage":"https://e.org"}]}}}"#,
        r#"{"format":"portcullis-plugin-hub/2","hub":"acme"}"#,
    ],
    words: &[
        "\"yanked\":\"x\"",
        "\"location\":\"",
        "../",
        "http://host/",
        "oci://host/a:1",
        "file:///etc/passwd",
        "%2e%2e/",
        "\"serial\":",
        "18446744073709551615",
        "\"version\":\"1.0.0-rc.1\"",
        "9999-12-31T23:59:59Z",
        "\"host\":\"*\"",
    ],
    run: hub_index,
};

fn hub_index(bytes: &[u8]) -> Verdict {
    let index = match HubIndex::read(bytes) {
        Ok(index) => index,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.chars().any(char::is_control) && said.len() < 2_000, "{said:?}");
            return Verdict::refused(said);
        }
    };
    let written = index.to_json().unwrap_or_else(|error| panic!("it was read and is not written: {error}"));
    let again = HubIndex::read(&written).unwrap_or_else(|error| panic!("it was written and is not read: {error}"));
    assert!(again == index, "it is another one when it is read again");
    for (name, plugin) in &index.plugins {
        for version in &plugin.versions {
            match version.place().unwrap_or_else(|error| panic!("{}: {error}", version.location)) {
                HubLocation::Below(path) => {
                    let climbs = path.starts_with('/') || path.split('/').any(|part| part.is_empty() || part.starts_with('.'));
                    assert!(!climbs && !path.contains(['\\', '%', '?', '#', ':']), "{path}");
                }
                HubLocation::Web(address) => assert!(address.is_encrypted(), "{address}"),
                HubLocation::Registry(reference) => assert!(reference.tag().is_some() || reference.digest().is_some()),
            }
        }
        if let Ok(chosen) = index.choose(name, None, false) {
            assert!(chosen.yanked.is_none() && chosen.fits_host() && chosen.version.pre.is_empty(), "{chosen:?}");
        }
    }
    Verdict::accepted()
}

pub(crate) const PACKAGE_PLACE: Target = Target {
    name: "package_place",
    promise: "what names a place means one origin, is written without its credentials, and reads the same again",
    seeds: &[
        "https://host.example/a/x-1.0.0.plugin?token=x",
        "oci://registry.example:5000/team/plugin:1.0.0@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "oci://[::1]:5000/a__b/c-d:latest",
        "acme/sample@1.2.3",
        "https://user:secret@host/x",
        "sample",
        "ftp://host/x",
    ],
    words: &[
        "oci://",
        "https://",
        "@",
        ":",
        "..",
        "%2f",
        "\\",
        "//",
        "user:secret@",
        "?",
        "#",
        "[::1]",
        "\u{ff0e}",
        ":443",
        "@sha256:",
    ],
    run: package_place,
};

fn package_place(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    let place = match PackagePlace::parse(&text) {
        Ok(place) => place,
        Err(error) => return Verdict::refused(error),
    };
    match &place {
        PackagePlace::Web(address) => {
            let shown = address.to_string();
            assert!(!shown.contains(['?', '#', '\\']) && !shown.chars().any(char::is_control), "{shown}");
            let again = WebAddress::parse(&shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(again.origin(), address.origin(), "{text}");
            let beside = address.beside(".sig");
            assert_eq!(beside.origin(), address.origin(), "{text}");
            if let Ok(below) = address.below("packages/a.plugin") {
                assert_eq!(below.origin(), address.origin(), "{text}");
            }
        }
        PackagePlace::Registry(reference) => {
            let shown = reference.to_string();
            let again = OciReference::parse(&shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!((again.authority(), again.repository()), (reference.authority(), reference.repository()), "{text}");
            assert!(!reference.repository().contains("..") && !reference.authority().contains('@'), "{text}");
            let pinned = Digest::parse(DIGEST).is_ok_and(|digest| reference.pinned(digest).digest() == Some(digest));
            assert!(pinned, "{text}");
        }
        PackagePlace::Hub(name) => assert!(!name.name.as_str().contains(['/', '.', '@']), "{text}"),
        PackagePlace::File(_) => return Verdict::refused("a file"),
    }
    Verdict::accepted()
}
