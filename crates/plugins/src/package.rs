//! The package: one zstd frame around a tar of exactly four plain files in one order. Guards that there is one way to read
//! it, that unpacking is bounded before it happens, and that nothing of it ever becomes a path on disk.

use std::io::{Read, Write};

use crate::{Digest, Manifest, ManifestError};

/// Largest package.
pub const MOST_PACKED: u64 = 64 << 20;
/// Largest content.
const MOST_UNPACKED: u64 = 128 << 20;
/// Largest ratio of content to package, beyond what is small anyway.
const MOST_RATIO: u64 = 200;
const SMALL: u64 = 1 << 20;
/// Memory the decompressor may take for its window, as a power of two.
const WINDOW_LOG: u32 = 24;
const BLOCK: usize = 512;

/// The files, in their order, with the most bytes each may have.
const FILES: [(&str, u64); 4] =
    [("manifest.json", 64 << 10), ("component.wasm", 96 << 20), ("README.md", 256 << 10), ("sbom.json", 8 << 20)];

/// A package that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// Too large, before or while unpacking.
    #[error("the package is larger than a package may be: {0}")]
    TooLarge(String),
    /// Not in the one form packages have.
    #[error("this is no plugin package: {0}")]
    Form(String),
    /// Its manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// What a package holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// Digest of every byte of the file.
    pub digest: Digest,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The component.
    pub component: Vec<u8>,
    /// Its README: untrusted.
    pub readme: String,
    /// Its bill of materials, CycloneDX as JSON: untrusted.
    pub sbom: Vec<u8>,
}

impl Package {
    /// Reads a package from memory.
    ///
    /// # Errors
    /// See [`PackageError`].
    pub fn read(bytes: &[u8]) -> Result<Self, PackageError> {
        let content = unpack(bytes)?;
        let mut archive = Archive { rest: &content };
        let [manifest, component, readme, sbom] = FILES.map(|(name, most)| archive.next(name, most));
        let (manifest, component, readme, sbom) = (manifest?, component?, readme?, sbom?);
        archive.end()?;
        check_component(component)?;
        let readme = std::str::from_utf8(readme).map_err(|_| form("README.md is not UTF-8"))?;
        if !serde_json::from_slice::<serde_json::Value>(sbom).is_ok_and(|sbom| sbom.is_object()) {
            return Err(form("sbom.json is not a JSON object"));
        }
        Ok(Self {
            digest: Digest::of(bytes),
            manifest: Manifest::from_json(manifest)?,
            component: component.to_vec(),
            readme: readme.to_owned(),
            sbom: sbom.to_vec(),
        })
    }

    /// Makes the file of a package. The same content gives the same bytes.
    ///
    /// # Errors
    /// When something of it could not be read back.
    pub fn write(manifest: &Manifest, component: &[u8], readme: &str, sbom: &[u8]) -> Result<Vec<u8>, PackageError> {
        let manifest = manifest.to_json()?;
        let contents = [manifest.as_slice(), component, readme.as_bytes(), sbom];
        let mut archive = Vec::new();
        for ((name, _), content) in FILES.iter().zip(contents) {
            archive.extend_from_slice(&header(name, content.len() as u64));
            archive.extend_from_slice(content);
            archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        let packed = compress(&archive).map_err(|error| form(&format!("it cannot be compressed: {error}")))?;
        // Whatever is written here must be readable; the author learns it now and not whoever installs it.
        Self::read(&packed)?;
        Ok(packed)
    }
}

fn form(reason: &str) -> PackageError {
    PackageError::Form(reason.to_owned())
}

fn check_component(bytes: &[u8]) -> Result<(), PackageError> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', ..]) => {
            Err(form("component.wasm is a core module; make it a component (portcullis plugin build does)"))
        }
        _ => Err(form("component.wasm is not WebAssembly")),
    }
}

fn compress(archive: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 9)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.include_checksum(true)?;
    encoder.write_all(archive)?;
    encoder.finish()
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, PackageError> {
    let packed = bytes.len() as u64;
    if packed > MOST_PACKED {
        return Err(PackageError::TooLarge(format!("it has {packed} bytes, {MOST_PACKED} are the most")));
    }
    let by_ratio = packed.saturating_mul(MOST_RATIO).max(SMALL);
    let most = by_ratio.min(MOST_UNPACKED);
    let broken = |error: std::io::Error| form(&format!("it cannot be decompressed: {error}"));
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(broken)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    let mut content = Vec::new();
    Read::by_ref(&mut decoder).take(most + 1).read_to_end(&mut content).map_err(broken)?;
    if content.len() as u64 > most {
        let why = if most == by_ratio { format!("more than {MOST_RATIO} times its size") } else { format!("{most} bytes") };
        return Err(PackageError::TooLarge(format!("it unpacks to more than {why}")));
    }
    if !decoder.finish().is_empty() {
        return Err(form("something follows the compressed archive"));
    }
    Ok(content)
}

struct Archive<'a> {
    rest: &'a [u8],
}

impl<'a> Archive<'a> {
    /// The next file, which must be the one expected, in the one form its header has.
    fn next(&mut self, name: &str, most: u64) -> Result<&'a [u8], PackageError> {
        let (head, rest) = self.rest.split_at_checked(BLOCK).ok_or_else(|| form(&format!("it ends before {name}")))?;
        let size = octal(&head[124..136]).ok_or_else(|| form(&format!("the header where {name} should be is not readable")))?;
        if head != header(name, size) {
            let found: String = head[..100].iter().take_while(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
            return Err(form(&format!(
                "where {name} should be there is '{found}', or its header has another form than a plain file's"
            )));
        }
        if size > most {
            return Err(PackageError::TooLarge(format!("{name} has {size} bytes, {most} are the most")));
        }
        // Below `most`, which fits.
        let size = size as usize;
        let (padded, rest) =
            rest.split_at_checked(size.next_multiple_of(BLOCK)).ok_or_else(|| form(&format!("it ends within {name}")))?;
        let (content, padding) = padded.split_at(size);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(form(&format!("something is hidden behind {name}")));
        }
        self.rest = rest;
        Ok(content)
    }

    fn end(&self) -> Result<(), PackageError> {
        if self.rest.len() == 2 * BLOCK && self.rest.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let found: String = self.rest.iter().take(100).take_while(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
        Err(form(&format!("it holds more than the files of a package: '{found}'")))
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.strip_suffix(b"\0")?;
    digits.iter().try_fold(0_u64, |sum, digit| {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        sum.checked_mul(8)?.checked_add(u64::from(digit - b'0'))
    })
}

/// The header of a plain file (POSIX.1-1988 ustar), in the one form it has here.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", size & 0o77_777_777_777).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = "{schema: 1, name: sample, version: 1.0.0, host: ^1.0, summary: s, licence: MIT, homepage: 'https://e.org', tools: [{name: t, risk: read}]}";
        Manifest::from_yaml(text).unwrap()
    }

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0and so on";

    fn package() -> Vec<u8> {
        Package::write(&manifest(), COMPONENT, "# Sample\n", b"{}").unwrap()
    }

    fn tar() -> Vec<u8> {
        unpack(&package()).unwrap()
    }

    fn refused(tar: &[u8]) -> String {
        Package::read(&compress(tar).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_packed_is_read_back_and_packing_is_repeatable() {
        let bytes = package();
        assert_eq!(bytes, package());
        let read = Package::read(&bytes).unwrap();
        assert_eq!((read.manifest, read.component.as_slice(), read.readme.as_str()), (manifest(), COMPONENT, "# Sample\n"));
        assert_eq!(read.digest, Digest::of(&bytes));
    }

    #[test]
    fn other_tools_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sample.tar");
        std::fs::write(&path, tar()).unwrap();
        let listed = std::process::Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success() && text.contains("manifest.json") && text.contains("sbom.json"), "{text}");
    }

    #[test]
    fn every_flipped_bit_of_the_archive_headers_is_noticed() {
        let good = tar();
        for at in 0..BLOCK {
            for bit in [0, 5] {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(Package::read(&compress(&bad).unwrap()).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn links_climbing_names_duplicates_and_hidden_members_are_refused() {
        let good = tar();
        let size = octal(&good[124..136]).unwrap() as usize;
        let first = good[..BLOCK + size.next_multiple_of(BLOCK)].to_vec();
        let with_head = |change: &dyn Fn(&mut [u8; BLOCK])| {
            let mut head: [u8; BLOCK] = good[..BLOCK].try_into().unwrap();
            change(&mut head);
            head[148..156].copy_from_slice(b"        ");
            let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
            head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            [head.as_slice(), &good[BLOCK..]].concat()
        };
        for kind in *b"1234567xgLKS\0" {
            assert!(refused(&with_head(&|head| head[156] = kind)).contains("another form"), "{kind}");
        }
        for name in ["../manifest.json", "/manifest.json", "./manifest.json", "manifest.json/", "MANIFEST.json"] {
            let renamed = with_head(&|head| {
                head[..100].fill(0);
                head[..name.len()].copy_from_slice(name.as_bytes());
            });
            assert!(refused(&renamed).contains("should be"), "{name}");
        }
        assert!(refused(&with_head(&|head| head[345..348].copy_from_slice(b"../"))).contains("another form"));
        assert!(refused(&[first, good.clone()].concat()).contains("should be"));
        let mut extra = good[..good.len() - 2 * BLOCK].to_vec();
        extra.extend_from_slice(&header("post-install.sh", 0));
        extra.resize(extra.len() + 2 * BLOCK, 0);
        assert!(refused(&extra).contains("post-install.sh"));
        assert!(refused(&[good.as_slice(), b"tail"].concat()).contains("more than the files"));
        for cut in [0, 100, BLOCK, good.len() - 1, good.len() - BLOCK] {
            assert!(!refused(&good[..cut]).is_empty());
        }
    }

    #[test]
    fn bytes_around_the_frame_and_second_frames_are_refused() {
        let good = package();
        for bad in [[good.as_slice(), b"x"].concat(), [good.as_slice(), &good].concat(), [b"x".as_slice(), &good].concat()] {
            assert!(Package::read(&bad).is_err());
        }
        assert!(Package::read(&[]).is_err());
        for cut in [1, 10, good.len() / 2, good.len() - 1] {
            assert!(Package::read(&good[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_bomb_is_noticed_before_it_is_unpacked() {
        // Half a gigabyte of zeros in some kilobytes.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        let zeros = vec![0_u8; 1 << 20];
        for _ in 0..512 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 100_000);
        let began = std::time::Instant::now();
        assert!(matches!(Package::read(&bomb), Err(PackageError::TooLarge(_))));
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
        // A frame that asks for a window of gigabytes.
        let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(30).unwrap();
        wide.include_contentsize(false).unwrap();
        wide.write_all(&tar()).unwrap();
        assert!(Package::read(&wide.finish().unwrap()).unwrap_err().to_string().contains("decompressed"));
        // A file that claims to be larger than any may be.
        let mut huge = header("manifest.json", 0o77_777_777_777).to_vec();
        huge.resize(BLOCK * 4, 0);
        assert!(refused(&huge).contains("bytes"));
    }

    #[test]
    fn modules_and_other_files_are_no_components() {
        for (bytes, says) in [(b"\0asm\x01\0\0\0".as_slice(), "core module"), (b"ELF".as_slice(), "not WebAssembly")] {
            let error = Package::write(&manifest(), bytes, "", b"{}").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Package::write(&manifest(), COMPONENT, "", b"[]").unwrap_err().to_string().contains("sbom.json"));
    }
}
