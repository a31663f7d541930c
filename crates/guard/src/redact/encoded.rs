//! Strings that are no words: base64 of text (looked into once, within bounds), compressed Helm releases, bare private keys,
//! and random strings. Guards against eating ids: trace and span ids, UUIDs, digests and commit hashes are hexadecimal and
//! never touched; what follows a name such as `digest=` or `request_id:` is not either.

use std::io::Read as _;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

/// Shortest and longest run the measure of randomness is applied to. Longer runs are files, not keys.
const SHORTEST_RANDOM: usize = 24;
const LONGEST_RANDOM: usize = 512;

/// Least share of neighbours that differ in class (small, capital, digit). Random base-62 text has 0.62 on average,
/// identifiers such as `AbstractBeanFactory2` 0.1 to 0.3; the test `the_threshold_is_measured` prints what each value would miss and take.
pub(super) const LEAST_CHANGES: f64 = 0.42;
/// Least Shannon entropy per byte, in bits.
pub(super) const LEAST_ENTROPY: f64 = 3.6;

/// Bytes a run of base64 of either alphabet is made of, without its padding.
pub(super) const IN_PART: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'_' | b'-');
        byte += 1;
    }
    table
};

/// Decodes base64 of either alphabet, with or without padding; at most `most` bytes of the text are looked at.
pub(super) fn decode(text: &[u8], most: usize) -> Option<Vec<u8>> {
    let unpadded = text.len() - text.iter().rev().take_while(|b| **b == b'=').count();
    let mut length = unpadded.min(most / 4 * 4);
    if length % 4 == 1 {
        length -= 1;
    }
    let standard: Vec<u8> = text[..length]
        .iter()
        .map(|b| match b {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

/// Decoded bytes as text, if that is what they are.
pub(super) fn readable(bytes: &[u8]) -> Option<&str> {
    // A bounded decode may end inside a character.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) if bytes.len() - e.valid_up_to() < 4 => std::str::from_utf8(&bytes[..e.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let odd = text.chars().filter(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')).count();
    (text.len() >= 4 && odd * 50 <= text.len()).then_some(text)
}

/// Whether a run is the start of a gzip stream in base64, once or twice encoded: how Helm keeps releases in Secrets.
pub(super) fn is_helm_release(run: &[u8]) -> bool {
    run.len() >= 40 && (run.starts_with(b"H4sI") || run.starts_with(b"SDRzSU"))
}

/// Whether a run is a private key in DER (PKCS #1, PKCS #8, SEC 1) without its PEM lines. A certificate is not:
/// its first element is a sequence, a key's is the version number.
pub(super) fn is_private_der(run: &[u8]) -> bool {
    if run.len() < 60 || run[0] != b'M' {
        return false;
    }
    let Some(der) = decode(&run[..24], 24) else { return false };
    let body = match der.as_slice() {
        [0x30, 0x82, _, _, rest @ ..] | [0x30, 0x81, _, rest @ ..] => rest,
        [0x30, length, rest @ ..] if *length < 0x80 => rest,
        _ => return false,
    };
    body.starts_with(&[2, 1, 0]) || body.starts_with(&[2, 1, 1, 4])
}

/// What a gzip stream holds, at most `most` bytes of it.
pub(crate) fn unzip(bytes: &[u8], most: u64) -> Option<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return None;
    }
    let mut plain = Vec::new();
    // What was read before the stream broke off is looked at all the same.
    let _ = flate2::read::MultiGzDecoder::new(bytes).take(most).read_to_end(&mut plain);
    Some(plain)
}

/// Share of changes of class and entropy of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) changes: f64,
    pub(super) entropy: f64,
}

/// Measures a run.
pub(super) fn measure(run: &[u8]) -> Measure {
    let class = |b: u8| -> u8 {
        match b {
            b'a'..=b'z' => 0,
            b'A'..=b'Z' => 1,
            b'0'..=b'9' => 2,
            _ => 3,
        }
    };
    let mut counts = [0_u16; 128];
    for byte in run {
        counts[usize::from(byte & 0x7f)] += 1;
    }
    let total = run.len() as f64;
    let entropy = counts
        .iter()
        .filter(|n| **n > 0)
        .map(|n| {
            let share = f64::from(*n) / total;
            -share * share.log2()
        })
        .sum();
    let changes = run.windows(2).filter(|w| class(w[0]) != class(w[1])).count() as f64 / (total - 1.0);
    Measure { changes, entropy }
}

/// Whether a run looks like drawn by chance from capitals, small letters and digits.
pub(super) fn is_random(run: &[u8]) -> bool {
    let run = &run[..run.len() - run.iter().rev().take_while(|b| **b == b'=').count()];
    if !(SHORTEST_RANDOM..=LONGEST_RANDOM).contains(&run.len()) || is_known_id(run) {
        return false;
    }
    let kinds: [fn(&u8) -> bool; 3] = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    if !kinds.iter().all(|kind| run.iter().any(kind)) {
        return false;
    }
    let signs = run.iter().filter(|b| !b.is_ascii_alphanumeric()).count();
    let longest = run.split(|b| !b.is_ascii_alphanumeric()).map(<[u8]>::len).max().unwrap_or(0);
    // Paths, names with hyphens and identifiers with underscores have a sign every few letters.
    if signs * 8 > run.len() || longest < 10 {
        return false;
    }
    let measured = measure(run);
    measured.changes >= LEAST_CHANGES && measured.entropy >= LEAST_ENTROPY
}

/// Ids that are random by design and open to everybody: integrity hashes and the object ids of well-known APIs.
fn is_known_id(run: &[u8]) -> bool {
    const STARTS: &[&[u8]] = &[
        b"sha1-",
        b"sha256-",
        b"sha384-",
        b"sha512-",
        b"req_",
        b"evt_",
        b"cus_",
        b"msg_",
        b"txn_",
        b"run_",
        b"job_",
        b"pi_",
        b"ch_",
        b"sub_",
        b"in_",
        b"file-",
        b"chatcmpl-",
        b"thread_",
        b"asst_",
        b"AAAAB3NzaC1",
        b"AAAAC3NzaC1",
        b"AAAAE2VjZHNh",
        b"Root=",
    ];
    STARTS.iter().any(|start| run.starts_with(start)) || run.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
}

/// Whether a name says that its value is an id or a digest and no secret.
pub(super) fn names_an_id(name: &[u8]) -> bool {
    const ENDINGS: [&str; 29] = [
        "id",
        "digest",
        "hash",
        "sum",
        "fingerprint",
        "thumbprint",
        "etag",
        "integrity",
        "cursor",
        "next",
        "sha1",
        "sha256",
        "sha384",
        "sha512",
        "md5",
        "revision",
        "commit",
        "certificate",
        "cert",
        "crt",
        "cadata",
        "cabundle",
        "authoritydata",
        "certificatedata",
        "publickey",
        "pubkey",
        "traceparent",
        "tracestate",
        "id2",
    ];
    /// Their last two bytes, by the very last.
    const PAIRS: [u64; 64] = {
        let mut pairs = [0_u64; 64];
        let mut at = 0;
        while at < ENDINGS.len() {
            let word = ENDINGS[at].as_bytes();
            pairs[(word[word.len() - 1] & 63) as usize] |= 1 << (word[word.len() - 2] & 63);
            at += 1;
        }
        pairs
    };
    if let [.., first, last] = name
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
    {
        let (first, last) = (first.to_ascii_lowercase() & 63, last.to_ascii_lowercase() & 63);
        if PAIRS[usize::from(last)] & (1 << first) == 0 {
            return false;
        }
    }
    // The last letters and digits, lower case, in place.
    let mut letters = [0_u8; 24];
    let mut start = letters.len();
    for byte in name.iter().rev().filter(|b| b.is_ascii_alphanumeric()).take(24) {
        start -= 1;
        letters[start] = byte.to_ascii_lowercase();
    }
    let letters = &letters[start..];
    let last = letters.last();
    ENDINGS.iter().any(|ending| ending.as_bytes().last() == last && letters.ends_with(ending.as_bytes()))
}

/// A second reading of text with its escapes undone, and where it came from.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) text: String,
    /// Behind every escape: the place in this text, and in the original. Up to the next both go on alike.
    joints: Vec<(usize, usize)>,
}

impl Plain {
    /// The stretch of the original that `from..to` of the plain text came from.
    pub(super) fn origin(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let origin = |at: usize| {
            let joint = self.joints.partition_point(|(plain, _)| *plain <= at).checked_sub(1)?;
            let (plain, original) = self.joints[joint];
            (at <= self.text.len()).then_some(original + at - plain)
        };
        Some((origin(from)?, origin(to)?))
    }
}

/// Whether a text has backslashes that hide the structure of what is inside: line breaks, quotes, cell borders.
pub(super) fn has_lines(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\\', bytes).any(|at| matches!(bytes.get(at + 1), Some(b'n' | b't' | b'"' | b'|' | b'\\')))
}

/// Whether a text has percent signs, `\u` or HTML escapes that could hide something.
pub(super) fn has_escapes(bytes: &[u8]) -> bool {
    memchr::memchr3_iter(b'%', b'\\', b'&', bytes).any(|at| escape_at(bytes, at, false).is_some())
}

/// Undoes JSON, percent and HTML escapes of printable ASCII. With `lines`, also those of line breaks, tabs,
/// quotes, backslashes and the borders of table cells.
pub(super) fn plain(text: &str, lines: bool) -> Option<Plain> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut joints = vec![(0, 0)];
    let mut from = 0;
    for at in memchr::memchr3_iter(b'%', b'\\', b'&', bytes) {
        // The second of two backslashes begins nothing.
        if at >= from
            && let Some((byte, length)) = escape_at(bytes, at, lines)
        {
            decoded.extend_from_slice(&bytes[from..at]);
            decoded.push(byte);
            from = at + length;
            joints.push((decoded.len(), from));
        }
    }
    decoded.extend_from_slice(&bytes[from..]);
    // Only ASCII was put in and only ASCII taken out, so it stays UTF-8.
    String::from_utf8(decoded).ok().map(|text| Plain { text, joints })
}

/// The byte an escape at `at` stands for, and how long the escape is.
fn escape_at(bytes: &[u8], at: usize, lines: bool) -> Option<(u8, usize)> {
    let printable = |b: u8| (b' '..0x7f).contains(&b).then_some(b);
    match bytes[at] {
        b'%' => printable(hex(bytes.get(at + 1..at + 3)?)?).map(|b| (b, 3)),
        b'\\' => match bytes.get(at + 1)? {
            b'u' if bytes.get(at + 2..at + 4)? == b"00" => printable(hex(bytes.get(at + 4..at + 6)?)?).map(|b| (b, 6)),
            b'x' => printable(hex(bytes.get(at + 2..at + 4)?)?).map(|b| (b, 4)),
            b'/' => Some((b'/', 2)),
            b'n' if lines => Some((b'\n', 2)),
            b't' if lines => Some((b'\t', 2)),
            b'"' if lines => Some((b'"', 2)),
            b'|' if lines => Some((b'|', 2)),
            b'\\' if lines => Some((b'\\', 2)),
            _ => None,
        },
        b'&' => {
            const NAMED: &[(&[u8], u8)] = &[
                (b"&quot;", b'"'),
                (b"&#34;", b'"'),
                (b"&#39;", b'\''),
                (b"&apos;", b'\''),
                (b"&amp;", b'&'),
                (b"&#x2F;", b'/'),
            ];
            NAMED.iter().find(|(name, _)| bytes[at..].starts_with(name)).map(|(name, byte)| (*byte, name.len()))
        }
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok()?;
    digits.iter().all(u8::is_ascii_hexdigit).then(|| u8::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_is_told_from_named() {
        for run in
            ["aB3xK9mQ2pL7vR4nT8wZ1cY6", "Zx9Qw3Er7Ty1Ui5Op2As4Df6Gh8Jk0Lz3Xc5Vb7", "wJ4lrXUtnFEMIaK7MDENGabPxRfiCYq9TzKEYd2h"]
        {
            assert!(is_random(run.as_bytes()), "{run}: {:?}", measure(run.as_bytes()));
        }
        for run in [
            "AbstractAutowireCapableBeanFactory2",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824",
            "123e4567-e89b-12d3-a456-426614174000",
            "/usr/lib/Python3/site-packages/Foo",
            "sha512-Zx9Qw3Er7Ty1Ui5Op2As4Df6Gh8Jk0Lz3Xc5Vb7",
            "checkout-7d9f8b6c5d-x2x9z-long-name",
            "Microsoft-Windows-Security-Auditing-4625",
        ] {
            assert!(!is_random(run.as_bytes()), "{run}: {:?}", measure(run.as_bytes()));
        }
    }

    /// Runs of base 62 drawn by a fixed generator.
    fn drawn(length: usize, count: usize) -> Vec<String> {
        const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut digit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(DIGITS[((state >> 33) % 62) as usize])
        };
        (0..count).map(|_| (0..length).map(|_| digit()).collect()).collect()
    }

    #[test]
    fn the_threshold_is_measured() {
        let words: Vec<&[u8]> = [
            "AbstractAutowireCapableBeanFactory2",
            "OrderServiceV2GrpcClientInterceptor",
            "KafkaConsumerGroupRebalanceListener1",
            "Base64UrlEncodedSha256DigestCodec",
            "TLSECDHERSAWITHAES128GCMSHA256ok",
            "Http2ServerUpgradeHandlerCodec11",
            "Log4j2AsyncLoggerContextSelector",
            "EC2AutoScalingGroupLaunchTemplateV3",
            "S3MultipartUploadCompletionHandler",
            "X509CertificateChainValidatorImpl",
            "checkoutServiceReplicaSet7Controller",
            "UserProfileDTOToEntityMapperImpl2",
        ]
        .iter()
        .map(|word| word.as_bytes())
        .collect();
        println!("changes  missed of 1000 at 24, 32, 40, 64 characters  identifiers taken of {}", words.len());
        for step in [0.30, 0.34, 0.38, 0.42, 0.46, 0.50] {
            let missed = |length| drawn(length, 1_000).iter().filter(|w| measure(w.as_bytes()).changes < step).count();
            let taken = words.iter().filter(|w| measure(w).changes >= step).count();
            println!("{step:.2}     {:>4} {:>4} {:>4} {:>4}    {taken}", missed(24), missed(32), missed(40), missed(64));
        }
        for length in [24, 32, 40, 64] {
            // A run without one of the three classes counts as an id; that is part of the miss.
            let caught = drawn(length, 1_000).iter().filter(|w| is_random(w.as_bytes())).count();
            println!("caught {caught} of 1000 at {length} characters");
            assert!(caught >= 960, "{caught} of 1000 at {length} characters");
        }
        assert_eq!(words.iter().filter(|w| is_random(w)).count(), 0);
    }

    #[test]
    fn keys_in_der_and_certificates_are_told_apart() {
        let key = LENIENT.encode([&[0x30, 0x82, 4, 0xbd, 2, 1, 0, 0x30, 0x0d][..], &[7; 60]].concat());
        let certificate = LENIENT.encode([&[0x30, 0x82, 4, 0xbd, 0x30, 0x82, 3, 0xa5][..], &[7; 60]].concat());
        assert!(is_private_der(key.as_bytes()));
        assert!(!is_private_der(certificate.as_bytes()));
    }

    #[test]
    fn escapes_are_undone_and_mapped_back() {
        let text = r"a\u0070b%70c&quot;d";
        let plain = plain(text, false).unwrap();
        assert_eq!(plain.text, "apbpc\"d");
        assert_eq!(plain.origin(1, 2), Some((1, 7)));
        assert_eq!(plain.origin(3, 4), Some((8, 11)));
        assert!(has_escapes(text.as_bytes()) && !has_escapes(b"100% of a\\b & c"));
    }
}
