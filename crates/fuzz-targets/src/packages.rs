//! Plugins of others before they are loaded: packages, manifests, signatures with the trust root, and the format of another
//! system. What is taken is what was signed and what can be written down again.

use std::io::Write as _;
use std::sync::LazyLock;

use portcullis_model::{Timestamp, parse_instant};
use portcullis_plugins::{
    Digest, Manifest, Occasion, OriginPattern, Package, PackageSignature, SecretPlace, TrustRoot, verify_omcp_archive,
};
use serde_json::Value;

use crate::{Target, Verdict};

const BLOCK: usize = 512;
/// Begins a file of an archive in an input: its name, perhaps `|` and its kind, a line end, its content.
const MEMBER: &[u8] = b"@@";

pub(crate) const PACKAGE: Target = Target {
    name: "plugin_package",
    promise: "a package is four plain files in one order, and what was read of it is what is written again",
    seeds: &[
        "@@manifest.json\n{\"schema\":1,\"name\":\"sample\",\"version\":\"1.0.0\",\"host\":\"^1.0\",\"summary\":\"s\",\"licence\":\"MIT\",\"homepage\":\"https://e.org\",\"tools\":[{\"name\":\"t\",\"risk\":\"read\"}]}@@component.wasm\n\0asm\r\0\x01\0@@README.md\n# s\n@@sbom.json\n{}",
        "@@manifest.json\n{}@@component.wasm\n\0asm\x01\0\0\0@@README.md\n@@sbom.json\n[]",
        "@@../manifest.json\n{}@@component.wasm|2\n@@README.md|L\n",
        "@@sbom.json\n{}@@manifest.json\n{}@@manifest.json\n{}@@post-install.sh\n#!/bin/sh\n",
        "!(\u{b5}/\u{fd}",
    ],
    words: &[
        "@@",
        "|2",
        "|5",
        "|x",
        "|\0",
        "../",
        "/",
        "manifest.json",
        "component.wasm",
        "README.md",
        "sbom.json",
        "\0asm",
        "\r\0\x01\0",
        "{}",
        "\n",
    ],
    run: package,
};

/// An archive of the files an input names. Nothing of it is checked here: what is wrong must be noticed by the reader.
fn archive(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in split(text, MEMBER).skip(1) {
        let (head, content) = once(member, b'\n');
        let (name, kind) = once(head, b'|');
        let mut block = [0_u8; BLOCK];
        let name = &name[..name.len().min(100)];
        block[..name.len()].copy_from_slice(name);
        for (at, field) in [(100, "0000644\0"), (108, "0000000\0"), (116, "0000000\0"), (136, "00000000000\0"), (148, "        ")]
        {
            block[at..at + field.len()].copy_from_slice(field.as_bytes());
        }
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[156] = kind.first().copied().unwrap_or(b'0');
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[329..337].copy_from_slice(b"0000000\0");
        block[337..345].copy_from_slice(b"0000000\0");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// The parts between every `mark`.
fn split<'a>(text: &'a [u8], mark: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let now = rest?;
        let at = now.windows(mark.len()).position(|window| window == mark);
        rest = at.map(|at| &now[at + mark.len()..]);
        Some(&now[..at.unwrap_or(now.len())])
    })
}

/// What stands before and after the first `mark`.
fn once(text: &[u8], mark: u8) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == mark) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

fn package(bytes: &[u8]) -> Verdict {
    let packed = match bytes.strip_prefix(b"!") {
        Some(raw) => raw.to_vec(),
        None => zstd::bulk::compress(&archive(bytes), 1).unwrap_or_else(|e| panic!("the archive of the target: {e}")),
    };
    let read = match Package::read(&packed) {
        Ok(read) => read,
        Err(error) => return Verdict::refused(error),
    };
    assert_eq!(read.digest, Digest::of(&packed), "the digest is not that of the file");
    let again = Package::write(&read.manifest, &read.component, &read.readme, &read.sbom)
        .and_then(|again| Package::read(&again))
        .unwrap_or_else(|e| panic!("what was taken cannot be packed: {e}"));
    let content = |package: Package| (package.manifest, package.component, package.readme, package.sbom);
    assert_eq!(content(read), content(again), "packed anew it is another one");
    Verdict::accepted()
}

pub(crate) const MANIFEST: Target = Target {
    name: "plugin_manifest",
    promise: "a manifest is read or refused; what it may reach is an origin or one label below a name, and no secret goes elsewhere",
    seeds: &[
        "schema: 1\nname: datadog\nversion: 1.2.0\nhost: ^1.0\nsummary: Metrics.\nlicence: Apache-2.0\nhomepage: https://example.org\nsignals: [metrics, logs]\ntools:\n  - {name: monitors, risk: read}\npermissions:\n  http: ['https://*.datadoghq.eu', 'http://127.0.0.1:8080']\n  secrets:\n    - {name: api_key, place: {header: DD-API-KEY}, origins: ['https://api.datadoghq.eu']}\n    - {name: token, place: bearer, origins: ['https://api.datadoghq.eu']}\n    - {name: sign, read: true}\nlimits: {memory: 32MiB, http_calls: 3}\n",
        r#"{"schema":1,"name":"sample","version":"1.0.0","host":"^1.0","summary":"s","licence":"MIT","homepage":"https://e.org","tools":[{"name":"t","risk":"destructive"}],"permissions":{"http":["https://e.org"],"secrets":[{"name":"k","place":{"basic":"me"},"origins":["https://e.org:443"]}]}}"#,
        "schema: 1\nname: &a sample\nversion: *a\nhost: '>=1, <99'\n",
        "permissions: {http: ['https://*.com', 'https://*.1.2.3.4', 'https://e.org@evil.org', 'https://%2a.e.org']}\n",
    ],
    words: &[
        "https://",
        "http://",
        "*.",
        "*",
        ":443",
        "@",
        "/",
        "%2e",
        "\\",
        "[::1]",
        "localhost",
        "e.org",
        "origins: ",
        "place: bearer",
        "read: true",
        "{header: Host}",
        "{basic: 'a:b'}",
        "- ",
        ": ",
        "\n",
        "\u{200b}",
        "\"",
    ],
    run: manifest,
};

fn manifest(bytes: &[u8]) -> Verdict {
    let outcome = if bytes.starts_with(b"{") {
        Manifest::from_json(bytes)
    } else {
        std::str::from_utf8(bytes).map_or_else(|_| Manifest::from_yaml(&String::from_utf8_lossy(bytes)), Manifest::from_yaml)
    };
    let manifest = match outcome {
        Ok(manifest) => manifest,
        Err(error) => return Verdict::refused(error),
    };
    let written = manifest.to_json().unwrap_or_else(|e| panic!("it cannot be written: {e}"));
    let again = Manifest::from_json(&written).unwrap_or_else(|e| panic!("its own text is refused: {e}"));
    assert_eq!(manifest, again, "its own text is another manifest");
    let name = manifest.name.as_str();
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "the name {name:?}");
    let reached = &manifest.permissions.http;
    reached.iter().for_each(check_origin);
    for secret in &manifest.permissions.secrets {
        assert!(secret.place.is_none() || !secret.origins.is_empty(), "a secret without a place to go");
        for origin in &secret.origins {
            assert!(reached.iter().any(|declared| declared.covers(origin)), "a secret goes to {origin}, which is not declared");
        }
        if let Some(SecretPlace::Header(header)) = &secret.place {
            let plain = header.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            assert!(plain && !header.eq_ignore_ascii_case("host"), "the header {header:?}");
        }
    }
    Verdict::accepted()
}

fn check_origin(origin: &OriginPattern) {
    let text = origin.to_string();
    assert_eq!(OriginPattern::parse(&text).as_ref(), Ok(origin), "its own text is another origin");
    match (origin.literal(), text.split_once("://*.")) {
        (Some(literal), None) => assert!(origin.matches(literal), "{text} is not itself"),
        (None, Some((scheme, suffix))) => {
            assert!(origin.matches(&format!("{scheme}://a.{suffix}")), "{text} has no label");
            for other in [format!("{scheme}://{suffix}"), format!("{scheme}://a.b.{suffix}"), format!("{scheme}://a{suffix}")] {
                assert!(!origin.matches(&other), "{text} reaches {other}");
            }
            assert!(suffix.split(':').next().is_some_and(|name| name.contains('.')), "{text} is all of a domain");
        }
        other => panic!("{text} is neither one nor the other: {other:?}"),
    }
}

/// What the seeds of signatures were made with: the digest of the text `package`, and a key that was thrown away.
const SIGNED: &str = "iUBhwz72fhO0U12jgnajHCxHyZNnxBlsXVlwTjwLSLkBwFmoSGesBsxR1+kjNv8mRqorYycjAHEVCcxvgb/gCA==";
const PUBLIC: &str = "E6crOJazzJBvbirmWxP5P0X59qZqX/w/nqB582NrSYY=";
const SIGNED_AT: &str = "2026-06-01T00:00:00Z";
const NOW: Timestamp = Timestamp::from_nanos(1_780_358_400_000_000_000);

pub(crate) const SIGNATURE: Target = Target {
    name: "plugin_signature",
    promise: "nothing is trusted but the one signature over the one package, by a key that is in its time and not revoked",
    seeds: &[
        "{\"format\":\"portcullis-plugin-signature/1\",\"plugin\":\"sample\",\"version\":\"1.0.0\",\"digest\":\"sha256:bc4a71180870f7945155fbb02f4b0a2e3faa2a62d6d31b7039013055ed19869a\",\"signed_at\":\"2026-06-01T00:00:00Z\",\"key\":\"50000acf3a90b5aa\",\"signature\":\"iUBhwz72fhO0U12jgnajHCxHyZNnxBlsXVlwTjwLSLkBwFmoSGesBsxR1+kjNv8mRqorYycjAHEVCcxvgb/gCA==\"}---{\"format\":\"portcullis-plugin-trust/1\",\"keys\":[{\"id\":\"50000acf3a90b5aa\",\"public\":\"E6crOJazzJBvbirmWxP5P0X59qZqX/w/nqB582NrSYY=\",\"owner\":\"Acme\",\"plugins\":[\"sam*\"],\"not_before\":\"2026-01-01T00:00:00Z\",\"not_after\":\"2027-01-01T00:00:00Z\"}]}",
        "{\"format\":\"portcullis-plugin-signature/1\",\"plugin\":\"sample\",\"version\":\"1.0.0\",\"digest\":\"sha256:bc4a71180870f7945155fbb02f4b0a2e3faa2a62d6d31b7039013055ed19869a\",\"signed_at\":\"2026-06-01T00:00:00Z\",\"key\":\"50000acf3a90b5aa\",\"signature\":\"AAAA\"}---{\"format\":\"portcullis-plugin-trust/1\",\"keys\":[{\"id\":\"50000acf3a90b5aa\",\"public\":\"E6crOJazzJBvbirmWxP5P0X59qZqX/w/nqB582NrSYY=\",\"owner\":\"Acme\",\"not_before\":\"2026-01-01T00:00:00Z\",\"not_after\":\"2026-06-01T12:00:00Z\",\"revoked\":{\"at\":\"x\",\"reason\":\"stolen\"}}],\"revoked_packages\":[{\"digest\":\"sha256:bc4a71180870f7945155fbb02f4b0a2e3faa2a62d6d31b7039013055ed19869a\",\"at\":\"x\",\"reason\":\"r\"}]}",
        "{}---{\"format\":\"portcullis-plugin-trust/1\",\"keys\":[]}",
    ],
    words: &[
        "\"revoked\":null",
        "\"revoked\":{\"at\":\"x\",\"reason\":\"r\"},",
        "\"plugins\":[],",
        "\"plugins\":[\"*\"],",
        "sample",
        "1.0.0",
        "+",
        "2026-06-01T00:00:00Z",
        "2025-01-01T00:00:00Z",
        "now",
        "-1h",
        "\"revoked_packages\":[],",
        "---",
        "=",
        "AA",
        "\\u0073",
        "50000acf3a90b5aa",
    ],
    run: signature,
};

static SAMPLE: LazyLock<Manifest> = LazyLock::new(|| {
    let text = "{schema: 1, name: sample, version: 1.0.0, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{name: t, risk: read}]}";
    Manifest::from_yaml(text).unwrap_or_else(|e| panic!("the manifest of the target: {e}"))
});

fn signature(bytes: &[u8]) -> Verdict {
    let mut parts = split(bytes, b"---");
    let (signature, trust) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let root = match TrustRoot::from_json(trust) {
        Ok(root) => root,
        Err(error) => return Verdict::refused(error),
    };
    let read = match PackageSignature::read(signature) {
        Ok(read) => read,
        Err(error) => return Verdict::refused(error),
    };
    if let Err(error) = root.verify(&SAMPLE, Digest::of(b"package"), Some(&read), Occasion::Install, NOW) {
        return Verdict::refused(error);
    }
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_else(|e| panic!("trusted, and no JSON: {e}"));
    let (said, trusted) = (json(signature), json(trust));
    for (field, wanted) in [("plugin", "sample"), ("version", "1.0.0"), ("signature", SIGNED), ("signed_at", SIGNED_AT)] {
        assert_eq!(said[field], wanted, "another signature is trusted");
    }
    let revoked = trusted["revoked_packages"].as_array().into_iter().flatten();
    assert!(revoked.map(|package| &package["digest"]).all(|digest| *digest != said["digest"]), "a revoked package is trusted");
    let keys = trusted["keys"].as_array().unwrap_or_else(|| panic!("trusted by no key"));
    let key = keys.iter().find(|key| key["public"].as_str().is_some_and(|public| public.trim() == PUBLIC));
    let key = key.unwrap_or_else(|| panic!("trusted by a key nobody trusts"));
    assert!(key["revoked"].is_null(), "a revoked key is trusted");
    let time = |field: &str| {
        let text = key[field].as_str().unwrap_or_default();
        parse_instant(text, Timestamp::default()).unwrap_or_else(|e| panic!("a key without a time is trusted: {e}"))
    };
    assert!(time("not_before") <= NOW && NOW <= time("not_after"), "a key is trusted beyond its time");
    let may = key["plugins"].as_array().filter(|names| !names.is_empty());
    let fits = |pattern: &str| pattern == "sample" || pattern.strip_suffix('*').is_some_and(|start| "sample".starts_with(start));
    assert!(
        may.is_none_or(|names| names.iter().filter_map(Value::as_str).any(fits)),
        "a key is trusted for what it may not sign"
    );
    Verdict::accepted()
}

/// The trust root of the other system, with the key that was thrown away.
const OTHER_ROOT: &str =
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAE6crOJazzJBvbirmWxP5P0X59qZqX/w/nqB582NrSYY=\n-----END PUBLIC KEY-----\n";

pub(crate) const OMCP: Target = Target {
    name: "plugin_omcp",
    promise: "of a plugin of the other system nothing is called verified but the bytes that were signed",
    seeds: &[
        "@@manifest.json\n{\"name\":\"s\",\"version\":\"1.0.0\",\"integrity\":\"sha256-lpCeHc6FylNP2IgfbINpqKh+Bt9aS/ge9Epy2xlbBwQ=\"}@@manifest.json.sig\nssdrsa8MRghrIjao1i85KlXhheHoIGR/4E16xxBfrUvtWpH2VMbG7hK5XC8EbR4BpTkOgvX1vKK5+xyzP/VRDQ==@@package.json\n{\"main\":\"./index.mjs\"}@@index.mjs\nexport default 1;\n",
        "@@package/manifest.json\n{}@@package/manifest.json.sig\nAA==@@package/package.json\n{\"main\":\"../x\"}@@package/../x\n",
        "@@a|2\n@@a|5\n@@a\n@@a\n@@/etc/passwd\n",
    ],
    words: &[
        "@@",
        "|2",
        "|5",
        "|\0",
        "../",
        "./",
        "package/",
        "manifest.json",
        "manifest.json.sig",
        "package.json",
        "index.mjs",
        "\n",
        "\"main\":",
        "sha256-",
    ],
    run: omcp,
};

/// The entry file of the seed and the signature over its manifest.
const ENTRY: &[u8] = b"export default 1;\n";
const OTHER_INTEGRITY: &str = "lpCeHc6FylNP2IgfbINpqKh+Bt9aS/ge9Epy2xlbBwQ=";
const OTHER_SIGNATURE: &str = "ssdrsa8MRghrIjao1i85KlXhheHoIGR/4E16xxBfrUvtWpH2VMbG7hK5XC8EbR4BpTkOgvX1vKK5+xyzP/VRDQ==";

fn omcp(bytes: &[u8]) -> Verdict {
    let packed = match bytes.strip_prefix(b"!") {
        Some(raw) => raw.to_vec(),
        None => gzip(&archive(bytes)).unwrap_or_else(|e| panic!("the archive of the target: {e}")),
    };
    let verified = match verify_omcp_archive(&packed, OTHER_ROOT) {
        Ok(verified) => verified,
        Err(error) => return Verdict::refused(error),
    };
    assert_eq!((verified.name.as_str(), verified.version.as_str()), ("s", "1.0.0"), "another manifest is verified");
    let within = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(within(bytes, ENTRY) && within(bytes, OTHER_INTEGRITY.as_bytes()), "verified is what was not signed");
    // Its base64 may be broken into lines.
    let solid: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert!(within(&solid, OTHER_SIGNATURE.as_bytes()), "verified is a signature nobody made");
    assert!(!verified.unsigned_files.contains(&verified.entry), "the entry file is called unsigned");
    Verdict::accepted()
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
