//! Packages in OCI registries (distribution specification 1.1): pull and push. Guards that a tag is resolved to a digest
//! once and everything follows from that digest; that credentials go to the registry or to the token realm it names over an
//! encrypted line, and tokens back to the registry only. The signature of the package is judged by whoever installs it.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use portcullis_egress::{Authentication, EgressRequest, EgressResponse};
use portcullis_model::Secret;
use serde::Deserialize;

use crate::fetch::{Answer, MOST_WORDS, is_named, may_carry_credentials, refused};
use crate::oci::{ARTIFACT_TYPE, Blob, Challenge, EMPTY, MANIFEST_TYPE, MOST_MANIFEST, PluginManifest};
use crate::place::{OciReference, WebAddress};
use crate::{Digest, FetchError, Fetcher, Package};

/// Bytes that are sent in one piece; more are sent in several, for whatever stands before a registry may take no more.
const PIECE: usize = 8 << 20;

/// An upload that began.
struct Begun {
    location: String,
    /// Bytes of a piece.
    piece: usize,
}

/// What a registry gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The bytes of the package.
    pub package: Vec<u8>,
    /// The bytes of its signature.
    pub signature: Option<Vec<u8>>,
    /// Digest of the manifest the reference was resolved to.
    pub manifest: Digest,
}

/// What a push is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publication<'a> {
    /// The bytes of the package.
    pub package: &'a [u8],
    /// The bytes of its signature.
    pub signature: &'a [u8],
    /// Whether a tag that is there already may come to mean this package.
    pub replace: bool,
}

impl Fetcher {
    /// Pulls a package and its signature. Every byte is compared with the digest and the size the manifest names.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn pull(&self, reference: &OciReference) -> Result<Pulled, FetchError> {
        let mut visit = Visit::new(self, reference, "pull")?;
        let (bytes, resolved) = visit.manifest().await?;
        let protocol = |reason: String| FetchError::Protocol { address: reference.to_string(), reason };
        let manifest = PluginManifest::read(&bytes).map_err(|error| protocol(error.to_string()))?;
        let package = visit.blob("the package", manifest.package).await?;
        let signature = match manifest.signature {
            Some(blob) => Some(visit.blob("the signature", blob).await?),
            None => None,
        };
        Ok(Pulled { package, signature, manifest: resolved })
    }

    /// Publishes a package with its signature under the tag of `reference`; gives the digest of the manifest.
    ///
    /// # Errors
    /// See [`FetchError`]. What was uploaded before a failure is named by nothing.
    pub async fn push(&self, reference: &OciReference, publication: Publication<'_>) -> Result<Digest, FetchError> {
        let protocol = |reason: String| FetchError::Protocol { address: reference.to_string(), reason };
        let package = Package::read(publication.package).map_err(|error| protocol(error.to_string()))?;
        let plugin = PluginManifest { package: Blob::of(publication.package), signature: Some(Blob::of(publication.signature)) };
        let manifest = plugin.write(&package.manifest).map_err(|error| protocol(error.to_string()))?;
        let digest = Digest::of(&manifest);
        if reference.digest().is_some_and(|named| named != digest) {
            return Err(protocol(format!("the manifest of this package is {digest}, which is not what stands behind '@'")));
        }
        let mut visit = Visit::new(self, reference, "pull,push")?;
        if let Some(found) = visit.tag_stands_for().await?.filter(|found| *found != digest.to_string())
            && !publication.replace
        {
            return Err(FetchError::Taken { reference: reference.to_string(), found });
        }
        for bytes in [EMPTY, publication.signature, publication.package] {
            visit.upload(bytes).await?;
        }
        visit.publish(&manifest, digest).await?;
        Ok(digest)
    }
}

/// One conversation with a registry about one repository.
pub(crate) struct Visit<'a> {
    fetcher: &'a Fetcher,
    reference: &'a OciReference,
    origin: String,
    actions: &'static str,
    /// What is presented to the registry: nothing until it asks.
    shown: Authentication,
    asked: bool,
}

impl<'a> Visit<'a> {
    pub(crate) fn new(fetcher: &'a Fetcher, reference: &'a OciReference, actions: &'static str) -> Result<Self, FetchError> {
        let origin = fetcher.registry_origin(reference.authority());
        // A header of the registry's own is presented from the beginning: no challenge speaks of it.
        let shown = match fetcher.authentication(&origin)? {
            own @ Authentication::Header { .. } => own,
            _ => Authentication::None,
        };
        Ok(Self { fetcher, reference, origin, actions, shown, asked: false })
    }

    pub(crate) fn address(&self, rest: &str) -> Result<WebAddress, FetchError> {
        Ok(WebAddress::parse(&format!("{}/v2/{}/{rest}", self.origin, self.reference.repository()))?)
    }

    /// The manifest of the reference, and the digest it has. Nothing is asked by tag after this.
    pub(crate) async fn manifest(&mut self) -> Result<(Vec<u8>, Digest), FetchError> {
        let named = self.reference.digest().map(|digest| digest.to_string());
        let name = named.as_deref().or(self.reference.tag()).unwrap_or_default();
        let address = self.address(&format!("manifests/{name}"))?;
        let answer = self.get(&address, &[("accept", MANIFEST_TYPE)], MOST_MANIFEST).await?.successful(&address)?;
        let found = Digest::of(&answer.body);
        if let Some(wanted) = self.reference.digest() {
            is_named(&format!("the manifest of {}", self.reference), &answer.body, wanted)?;
        }
        // What the registry says of its own answer must at least be true.
        if let Some(said) = content_digest(&answer.headers).filter(|said| *said != found) {
            return Err(FetchError::Digest { what: format!("the manifest of {}", self.reference), wanted: said, found });
        }
        Ok((answer.body, found))
    }

    pub(crate) async fn blob(&mut self, what: &str, blob: Blob) -> Result<Vec<u8>, FetchError> {
        let address = self.address(&format!("blobs/{}", blob.digest))?;
        let bytes = self.get(&address, &[], blob.size).await?.successful(&address)?.body;
        let what = format!("{what} of {}", self.reference);
        if bytes.len() as u64 != blob.size {
            return Err(FetchError::Size { what, wanted: blob.size, found: bytes.len() as u64 });
        }
        is_named(&what, &bytes, blob.digest)?;
        Ok(bytes)
    }

    /// Asks; answers the registry's challenge once.
    pub(crate) async fn get(&mut self, address: &WebAddress, headers: &[(&str, &str)], most: u64) -> Result<Answer, FetchError> {
        let answer = self.fetcher.get(address, &self.shown, headers, most).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !self.answer_challenge(&answer.headers).await? {
            return Ok(answer);
        }
        self.fetcher.get(address, &self.shown, headers, most).await
    }

    /// Sends; answers the registry's challenge once.
    pub(crate) async fn send(&mut self, request: EgressRequest) -> Result<EgressResponse, FetchError> {
        let with = |shown: &Authentication| request.clone().authenticated(shown.clone()).max_response_bytes(MOST_WORDS);
        let answer = self.fetcher.send(&self.origin, with(&self.shown)).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !self.answer_challenge(&answer.headers).await? {
            return Ok(answer);
        }
        self.fetcher.send(&self.origin, with(&self.shown)).await
    }

    /// Finds what to present. Says whether there is something new.
    async fn answer_challenge(&mut self, headers: &HeaderMap) -> Result<bool, FetchError> {
        if std::mem::replace(&mut self.asked, true) {
            return Ok(false);
        }
        let own = self.fetcher.authentication(&self.origin)?;
        let texts = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = texts.flat_map(Challenge::read).collect();
        let token = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service } => Some((realm, service.as_deref())),
            Challenge::Basic => None,
        });
        self.shown = match (token, own) {
            // Made elsewhere and given as it is.
            (_, own @ Authentication::Bearer(_)) => own,
            (Some((realm, service)), own) => self.token(realm, service, own).await?,
            (None, own @ Authentication::Basic { .. }) if challenges.contains(&Challenge::Basic) => own,
            _ => return Ok(false),
        };
        Ok(true)
    }

    /// Asks the realm for a token for this repository and these actions, and no more than these.
    async fn token(&self, realm: &str, service: Option<&str>, own: Authentication) -> Result<Authentication, FetchError> {
        let protocol = |reason: String| FetchError::Protocol { address: self.reference.to_string(), reason };
        let realm = WebAddress::parse(realm).map_err(|error| protocol(format!("its token realm: {error}")))?;
        if !may_carry_credentials(&realm.origin()) {
            let reason = format!("the registry names {} to ask for a token, where it would travel in clear text", realm.origin());
            return Err(FetchError::Credential { origin: realm.origin(), reason });
        }
        // Whoever changes what an unencrypted registry says could name any realm.
        let own = match own {
            own @ Authentication::Basic { .. } if may_carry_credentials(&self.origin) => own,
            _ => Authentication::None,
        };
        let scope = format!("repository:{}:{}", self.reference.repository(), self.actions);
        let mut pairs = vec![("scope", scope.as_str())];
        pairs.extend(service.map(|service| ("service", service)));
        let asked = realm.with_query(&pairs);
        let answer = self.fetcher.get(&asked, &own, &[], MOST_WORDS).await?.successful(&realm)?;
        let given: Given =
            serde_json::from_slice(&answer.body).map_err(|_| protocol(format!("what {} gives is no token", realm.origin())))?;
        let token = given.token.or(given.access_token).filter(|token| !token.expose().is_empty());
        let token = token.ok_or_else(|| protocol(format!("{} gives no token", realm.origin())))?;
        Ok(Authentication::Bearer(token.into()))
    }

    /// What the tag stands for already, as the registry says.
    async fn tag_stands_for(&mut self) -> Result<Option<String>, FetchError> {
        let Some(tag) = self.reference.tag().map(str::to_owned) else { return Ok(None) };
        let address = self.address(&format!("manifests/{tag}"))?;
        let answer = self.get(&address, &[("accept", MANIFEST_TYPE)], MOST_MANIFEST).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => answer.successful(&address).map(|answer| Some(Digest::of(&answer.body).to_string())),
        }
    }

    pub(crate) fn reference(&self) -> &OciReference {
        self.reference
    }

    /// Segments of a path in the repository.
    pub(crate) fn path(&self, rest: &[&str]) -> Vec<String> {
        let repository = self.reference.repository().split('/');
        std::iter::once("v2").chain(repository).chain(rest.iter().copied()).map(str::to_owned).collect()
    }

    /// Uploads a blob that is not there yet: a large one in pieces, where the registry takes them.
    pub(crate) async fn upload(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let digest = Digest::of(bytes).to_string();
        let head = self.send(EgressRequest::new(Method::HEAD, self.path(&["blobs", &digest]))).await?;
        if head.status == StatusCode::OK {
            return Ok(());
        }
        let begun = self.begin_upload().await?;
        let Begun { mut location, piece } = begun;
        let mut rest = bytes;
        if bytes.len() > piece {
            match self.send_pieces(&location, bytes, piece).await? {
                Some(last) => (location, rest) = (last, &[]),
                // It takes no pieces: everything at once, from the beginning.
                None => location = self.begin_upload().await?.location,
            }
        }
        let glue = if location.contains('?') { '&' } else { '?' };
        let encoded = digest.replace(':', "%3A");
        // Egress refuses a location in another origin: the bytes and the token go to this registry.
        let request = EgressRequest::new(Method::PUT, Vec::<String>::new())
            .at_reference(format!("{location}{glue}digest={encoded}"))
            .bytes("application/octet-stream", Bytes::copy_from_slice(rest));
        let put = self.send(request).await?;
        if put.status != StatusCode::CREATED {
            return Err(refused(self.reference.to_string(), put.status, &put.body));
        }
        Ok(())
    }

    async fn begin_upload(&mut self) -> Result<Begun, FetchError> {
        let begun = self.send(EgressRequest::post(self.path(&["blobs", "uploads"])).trailing_slash()).await?;
        if begun.status != StatusCode::ACCEPTED {
            return Err(refused(self.reference.to_string(), begun.status, &begun.body));
        }
        let least = begun.headers.get("oci-chunk-min-length").and_then(|least| least.to_str().ok()?.parse().ok());
        Ok(Begun { location: self.location(&begun)?, piece: PIECE.max(least.unwrap_or(0)) })
    }

    /// Where the registry wants the next bytes.
    fn location(&self, answer: &EgressResponse) -> Result<String, FetchError> {
        let location = answer.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        location.map(str::to_owned).ok_or_else(|| FetchError::Protocol {
            address: self.reference.to_string(),
            reason: "it does not say where to upload to".to_owned(),
        })
    }

    /// Sends everything in pieces (specification, "Pushing a blob in chunks"). Gives where to end the upload; nothing where
    /// the registry takes none.
    async fn send_pieces(&mut self, location: &str, bytes: &[u8], piece: usize) -> Result<Option<String>, FetchError> {
        let (mut location, mut at) = (location.to_owned(), 0);
        for part in bytes.chunks(piece) {
            let request = EgressRequest::new(Method::PATCH, Vec::<String>::new())
                .at_reference(location)
                .header(header::CONTENT_RANGE.as_str(), format!("{at}-{}", at + part.len() - 1))
                .bytes("application/octet-stream", Bytes::copy_from_slice(part));
            let taken = self.send(request).await?;
            match taken.status {
                StatusCode::ACCEPTED => location = self.location(&taken)?,
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED if at == 0 => {
                    return Ok(None);
                }
                status => return Err(refused(self.reference.to_string(), status, &taken.body)),
            }
            at += part.len();
        }
        Ok(Some(location))
    }

    async fn publish(&mut self, manifest: &[u8], digest: Digest) -> Result<(), FetchError> {
        let name = self.reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let path = self.path(&["manifests", &name]);
        let request = EgressRequest::new(Method::PUT, path).bytes(MANIFEST_TYPE, Bytes::copy_from_slice(manifest));
        let put = self.send(request).await?;
        if put.status != StatusCode::CREATED {
            return Err(refused(self.reference.to_string(), put.status, &put.body));
        }
        match content_digest(&put.headers).filter(|said| *said != digest) {
            None => Ok(()),
            Some(found) => {
                let what = format!("the {ARTIFACT_TYPE} the registry keeps");
                Err(FetchError::Digest { what, wanted: digest, found })
            }
        }
    }
}

/// What a token realm gives: one of these, and what does not matter here.
#[derive(Deserialize)]
struct Given {
    token: Option<Secret>,
    access_token: Option<Secret>,
}

/// `Docker-Content-Digest`, where it is one of ours.
fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest").and_then(|value| Digest::parse(value.to_str().ok()?).ok())
}
