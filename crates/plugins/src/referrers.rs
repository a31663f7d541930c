//! Signatures beside a package in a registry: attached to its manifest by whoever vouches for it later (distribution
//! specification 1.1, referrers). Guards that what is attached belongs to the very manifest that was pulled, that what
//! others attached stays, and that a list in pages is followed within its own repository, for so many pages, and that it is
//! said when there were more. Whether a signature is worth anything is judged by whoever installs.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use portcullis_egress::EgressRequest;

use crate::fetch::refused;
use crate::oci::{
    AttachedSignature, Blob, EMPTY, INDEX_TYPE, MANIFEST_TYPE, MOST_MANIFEST, PluginManifest, Referrers, SIGNATURE_TYPE,
};
use crate::place::{OciReference, WebAddress};
use crate::registry::Visit;
use crate::{Digest, FetchError, Fetcher, OciError};

/// Signatures of one package that are looked at.
const MOST_ATTACHED: usize = 16;
/// Pages of a list of what is attached that are looked at.
const MOST_PAGES: usize = 8;
/// Bytes of such a list after which no other page is asked for.
const MOST_LISTED: usize = 1 << 20;
/// Longest `Link` header that is read.
const MOST_LINK: usize = 8 << 10;
/// How often a list is written again because somebody else wrote it meanwhile.
const TRIES: usize = 4;

/// Signatures that are attached to the manifest of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedSignatures {
    /// The signatures, none of them judged.
    pub signatures: Vec<Vec<u8>>,
    /// In words, what was not looked at because there was more than is looked at.
    pub left_out: Option<String>,
}

/// What is attached as far as it was listed.
struct Listed {
    referrers: Referrers,
    /// Whether the list goes on after the last page that was looked at.
    more: bool,
}

impl From<Referrers> for Listed {
    fn from(referrers: Referrers) -> Self {
        Self { referrers, more: false }
    }
}

impl Fetcher {
    /// Signatures that are attached to a manifest, which was pulled before; at most 16, of at most eight pages of a list.
    ///
    /// # Errors
    /// See [`FetchError`]. A registry where nothing can be attached is none.
    pub async fn attached(&self, reference: &OciReference, manifest: Digest) -> Result<AttachedSignatures, FetchError> {
        let mut visit = Visit::new(self, reference, "pull")?;
        let Listed { referrers, more } = visit.referrers(manifest).await?;
        let listed = referrers.signatures();
        let left_out = match (listed.len().saturating_sub(MOST_ATTACHED), more) {
            (0, false) => None,
            (0, true) => Some(format!("its list goes on after the {MOST_PAGES} pages or 1 MiB that are looked at")),
            (rest, _) => Some(format!("{rest} more are listed than the {MOST_ATTACHED} that are looked at")),
        };
        let mut signatures = Vec::new();
        for digest in listed.into_iter().take(MOST_ATTACHED) {
            let address = visit.address(&format!("manifests/{digest}"))?;
            let answer = visit.get(&address, &[("accept", MANIFEST_TYPE)], MOST_MANIFEST).await?;
            // What was taken away is still listed for a while, or for good.
            if answer.status == StatusCode::NOT_FOUND {
                continue;
            }
            let answer = answer.successful(&address)?;
            crate::fetch::is_named(&format!("a signature attached to {reference}"), &answer.body, digest)?;
            // What is attached by others, or to something else, is not ours to judge.
            let Ok(attached) = AttachedSignature::read(&answer.body) else { continue };
            if attached.subject.digest == manifest {
                signatures.push(visit.blob("an attached signature", attached.signature).await?);
            }
        }
        Ok(AttachedSignatures { signatures, left_out })
    }

    /// Attaches a signature to the package that is there under `reference`; gives the digest of its manifest.
    ///
    /// # Errors
    /// See [`FetchError`]; among them another package than `package`.
    pub async fn attach(&self, reference: &OciReference, package: Digest, signature: &[u8]) -> Result<Digest, FetchError> {
        let protocol = |reason: String| FetchError::Protocol { address: reference.to_string(), reason };
        let mut visit = Visit::new(self, reference, "pull,push")?;
        let (bytes, subject) = visit.manifest().await?;
        let there = PluginManifest::read(&bytes).map_err(|error| protocol(error.to_string()))?.package.digest;
        if there != package {
            return Err(FetchError::Digest { what: format!("the package of {reference}"), wanted: package, found: there });
        }
        for blob in [EMPTY, signature] {
            visit.upload(blob).await?;
        }
        let attached = AttachedSignature { subject: Blob::of(&bytes), signature: Blob::of(signature) };
        let manifest = attached.write().map_err(|error| protocol(error.to_string()))?;
        let digest = Digest::of(&manifest);
        // A registry that knows what a subject is says so, and lists it by itself.
        if !visit.put(&digest.to_string(), MANIFEST_TYPE, &manifest).await? {
            visit.list_by_tag(subject, &manifest).await?;
        }
        Ok(digest)
    }
}

/// The tag by which what is attached is found where the registry does not list it.
fn tag_of(subject: Digest) -> String {
    subject.to_string().replace(':', "-")
}

/// The target of the first link of relation `next` in a `Link` header (RFC 8288, section 3).
fn next_in(header: &str) -> Option<&str> {
    let mut rest = header.get(..MOST_LINK.min(header.len()))?;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let (parameters, others) = parted(after, ',');
        if is_next(parameters) {
            return Some(target);
        }
        rest = others;
    }
}

/// What stands before the next `separator`, and what stands after it; within quotes it parts nothing.
fn parted(text: &str, separator: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => return (&text[..at], &text[at + c.len_utf8()..]),
            _ => {}
        }
    }
    (text, "")
}

/// Whether the first `rel` among the parameters of a link holds `next`.
fn is_next(parameters: &str) -> bool {
    let mut rest = parameters;
    while !rest.is_empty() {
        let (parameter, others) = parted(rest, ';');
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            return relations.any(|one| one.eq_ignore_ascii_case("next"));
        }
        rest = others;
    }
    false
}

/// Where a list that began at `list` goes on after the page at `page`: another page of the very same list.
fn next_page(list: &WebAddress, page: &WebAddress, headers: &HeaderMap) -> Result<Option<WebAddress>, FetchError> {
    let refuse = |reason: String| FetchError::Listing { address: list.to_string(), reason };
    for link in headers.get_all(header::LINK) {
        let link = link.to_str().map_err(|_| refuse("it has a link that is not readable".to_owned()))?;
        let Some(target) = next_in(link) else { continue };
        let next = page.join(target).map_err(|error| refuse(format!("its next page: {error}")))?;
        if next.origin() != list.origin() || next.path() != list.path() {
            let reason =
                format!("only pages of the same list in the same registry are read, and it says that it goes on at {next}");
            return Err(refuse(reason));
        }
        if next == *page {
            return Err(refuse("it says that a page goes on at that page".to_owned()));
        }
        return Ok(Some(next));
    }
    Ok(None)
}

impl Visit<'_> {
    /// What is attached to a manifest.
    async fn referrers(&mut self, subject: Digest) -> Result<Listed, FetchError> {
        let list = self.address(&format!("referrers/{subject}"))?.with_query(&[("artifactType", SIGNATURE_TYPE)]);
        let answer = self.get(&list, &[("accept", INDEX_TYPE)], MOST_MANIFEST).await?;
        let first = if answer.status == StatusCode::OK { Referrers::read(&answer.body).ok() } else { None };
        let Some(mut referrers) = first else { return self.listed_by_tag(subject).await.map(Listed::from) };
        let (mut pages, mut bytes) = (1, answer.body.len());
        let mut next = next_page(&list, &list, &answer.headers)?;
        while let Some(page) = next {
            if pages >= MOST_PAGES || bytes >= MOST_LISTED {
                return Ok(Listed { referrers, more: true });
            }
            // What does not come is not taken for the end of the list.
            let answer = self.get(&page, &[("accept", INDEX_TYPE)], MOST_MANIFEST).await?.successful(&page)?;
            let unread = |error: OciError| FetchError::Listing { address: page.to_string(), reason: error.to_string() };
            referrers.extend(Referrers::read(&answer.body).map_err(unread)?);
            pages += 1;
            bytes += answer.body.len();
            next = next_page(&list, &page, &answer.headers)?;
        }
        Ok(Listed { referrers, more: false })
    }

    async fn listed_by_tag(&mut self, subject: Digest) -> Result<Referrers, FetchError> {
        let address = self.address(&format!("manifests/{}", tag_of(subject)))?;
        let answer = self.get(&address, &[("accept", INDEX_TYPE)], MOST_MANIFEST).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Referrers::default());
        }
        let answer = answer.successful(&address)?;
        Referrers::read(&answer.body)
            .map_err(|error| FetchError::Protocol { address: address.to_string(), reason: error.to_string() })
    }

    /// Adds a manifest to the list under the tag of its subject, also when others write at the same time.
    async fn list_by_tag(&mut self, subject: Digest, manifest: &[u8]) -> Result<(), FetchError> {
        let protocol = |address: String, reason: String| FetchError::Protocol { address, reason };
        let name = self.reference().to_string();
        for _ in 0..TRIES {
            let mut list = self.listed_by_tag(subject).await?;
            if !list.add(manifest) {
                return Ok(());
            }
            let bytes = list.write().map_err(|error| protocol(name.clone(), error.to_string()))?;
            if bytes.len() as u64 > MOST_MANIFEST {
                return Err(protocol(name, "more is attached to this package than a list may hold".to_owned()));
            }
            self.put(&tag_of(subject), INDEX_TYPE, &bytes).await?;
        }
        Err(protocol(name, "others attach something all the time; try again".to_owned()))
    }

    /// Writes a manifest. Whether the registry understood what it is attached to.
    async fn put(&mut self, name: &str, media_type: &str, bytes: &[u8]) -> Result<bool, FetchError> {
        let request = EgressRequest::new(Method::PUT, self.path(&["manifests", name]));
        let put = self.send(request.bytes(media_type, Bytes::copy_from_slice(bytes))).await?;
        if put.status != StatusCode::CREATED {
            return Err(refused(self.reference().to_string(), put.status, &put.body));
        }
        Ok(put.headers.contains_key("oci-subject"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_as_registries_write_it() {
        for (header, target) in [
            (r#"</v2/a/referrers/x?n=1&last=2>; rel="next""#, Some("/v2/a/referrers/x?n=1&last=2")),
            ("<?last=2>;rel=next", Some("?last=2")),
            (r#"<a>; rel="prev first", <b>; title="x, <c>; rel=next"; REL="last NEXT""#, Some("b")),
            (r#"<a>; title="\", <b>; rel=next"; rel=prev"#, None),
            (r#"<a>; rel="prev""#, None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_in(header), target, "{header}");
        }
    }

    fn next(link: &str) -> Result<Option<String>, String> {
        let list = WebAddress::parse("https://registry.example/v2/a/b/referrers/sha256:00?artifactType=x").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::LINK, format!("<{link}>; rel=\"next\"").parse().unwrap());
        let found = next_page(&list, &list, &headers).map_err(|error| error.to_string())?;
        Ok(found.map(|page| format!("{}{}", page.origin(), page.reference())))
    }

    #[test]
    fn a_list_goes_on_in_the_same_registry_and_as_the_same_list() {
        let more = "https://registry.example:443/v2/a/b/referrers/sha256:00?last=1";
        for link in
            ["?last=1", "/v2/a/b/referrers/sha256:00?last=1", "https://Registry.example/v2/a/b/referrers/sha256:00?last=1"]
        {
            assert_eq!(next(link).unwrap().as_deref(), Some(more), "{link}");
        }
        for link in [
            "https://evil.example/v2/a/b/referrers/sha256:00?last=1",
            "http://registry.example/v2/a/b/referrers/sha256:00?last=1",
            "https://registry.example:444/v2/a/b/referrers/sha256:00?last=1",
            "//evil.example/v2/a/b/referrers/sha256:00",
            "/v2/a/other/referrers/sha256:00",
            "/v2/a/b/referrers/sha256:01",
            "/v2/a/b/referrers/%2e%2e/manifests/1",
            "/v2/a/b/referrers/sha256:00/../../manifests/1",
        ] {
            let error = next(link).unwrap_err();
            assert!(error.contains("only pages of the same list"), "{link}: {error}");
        }
        let credentials = next("https://u:hunter2@registry.example/v2/a/b/referrers/sha256:00").unwrap_err();
        assert!(!credentials.contains("hunter2"), "{credentials}");
        assert!(next("?artifactType=x").unwrap_err().contains("goes on at that page"));
    }
}
