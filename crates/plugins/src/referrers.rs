//! Signatures beside a package in a registry: attached to its manifest by whoever vouches for it later (distribution
//! specification 1.1, referrers). Guards that what is attached belongs to the very manifest that was pulled, and that what
//! others attached stays. Whether a signature is worth anything is judged by whoever installs.

use bytes::Bytes;
use http::{Method, StatusCode};
use portcullis_egress::EgressRequest;

use crate::fetch::refused;
use crate::oci::{
    AttachedSignature, Blob, EMPTY, INDEX_TYPE, MANIFEST_TYPE, MOST_MANIFEST, PluginManifest, Referrers, SIGNATURE_TYPE,
};
use crate::place::OciReference;
use crate::registry::Visit;
use crate::{Digest, FetchError, Fetcher};

/// Signatures of one package that are looked at.
const MOST_ATTACHED: usize = 16;
/// How often a list is written again because somebody else wrote it meanwhile.
const TRIES: usize = 4;

impl Fetcher {
    /// Signatures that are attached to a manifest, which was pulled before; at most 16.
    ///
    /// # Errors
    /// See [`FetchError`]. A registry where nothing can be attached is none.
    pub async fn attached(&self, reference: &OciReference, manifest: Digest) -> Result<Vec<Vec<u8>>, FetchError> {
        let mut visit = Visit::new(self, reference, "pull")?;
        let mut found = Vec::new();
        for digest in visit.referrers(manifest).await?.signatures().into_iter().take(MOST_ATTACHED) {
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
                found.push(visit.blob("an attached signature", attached.signature).await?);
            }
        }
        Ok(found)
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

impl Visit<'_> {
    /// What is attached to a manifest.
    async fn referrers(&mut self, subject: Digest) -> Result<Referrers, FetchError> {
        let address = self.address(&format!("referrers/{subject}"))?.with_query(&[("artifactType", SIGNATURE_TYPE)]);
        let answer = self.get(&address, &[("accept", INDEX_TYPE)], MOST_MANIFEST).await?;
        if answer.status == StatusCode::OK
            && let Ok(listed) = Referrers::read(&answer.body)
        {
            return Ok(listed);
        }
        self.listed_by_tag(subject).await
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
