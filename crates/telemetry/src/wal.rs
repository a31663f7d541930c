//! The write-ahead log: requests as they arrived, one file per generation. What is acknowledged is on disk before the
//! acknowledgement. A torn tail is what a crash leaves; it is reported and dropped, for nothing behind it was acknowledged.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use portcullis_model::TenantId;

use crate::convert::OtlpSignal;
use crate::error::{Result, StoreError};
use crate::files;

const MAGIC: &[u8; 8] = b"PCWAL\x00\x00\x01";
/// A frame larger than this is never written, so a larger length is damage.
const MAX_FRAME_BYTES: usize = MAX_PAYLOAD_BYTES + 1024;
/// Bytes of one request at most.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 128 << 20;

/// One request in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Whose records.
    pub(crate) tenant: TenantId,
    /// Which signal.
    pub(crate) signal: OtlpSignal,
    /// When it was received, nanoseconds since the epoch.
    pub(crate) received: i64,
    /// The request in protobuf.
    pub(crate) payload: bytes::Bytes,
}

impl Frame {
    /// Appends the frame: length and checksum of the rest, signal, time, tenant, payload.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let tenant = self.tenant.as_str().as_bytes();
        let length = 1 + 8 + 1 + tenant.len() + self.payload.len();
        let mut head = Vec::with_capacity(10 + tenant.len());
        head.push(self.signal.code());
        head.extend_from_slice(&self.received.to_le_bytes());
        head.push(tenant.len() as u8);
        head.extend_from_slice(tenant);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head);
        checksum.update(&self.payload);
        out.extend_from_slice(&(length as u32).to_le_bytes());
        out.extend_from_slice(&checksum.finalize().to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.payload);
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let signal = OtlpSignal::from_code(*body.first()?)?;
        let received = i64::from_le_bytes(body.get(1..9)?.try_into().ok()?);
        let tenant_length = usize::from(*body.get(9)?);
        let tenant = std::str::from_utf8(body.get(10..10 + tenant_length)?).ok()?;
        let payload = body.get(10 + tenant_length..)?;
        Some(Self { tenant: TenantId::new(tenant).ok()?, signal, received, payload: bytes::Bytes::copy_from_slice(payload) })
    }
}

/// The file being written.
#[derive(Debug)]
pub(crate) struct WalWriter {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl WalWriter {
    /// Starts the file of a generation.
    pub(crate) fn create(directory: &Path, generation: u64) -> Result<Self> {
        let path = path_of(directory, generation);
        let mut file =
            files::writing().create_new(true).open(&path).map_err(|e| StoreError::io("create the write-ahead log", &path, e))?;
        file.write_all(MAGIC).map_err(|e| StoreError::io("write the write-ahead log", &path, e))?;
        file.sync_all().map_err(|e| StoreError::io("sync the write-ahead log", &path, e))?;
        sync_directory(directory)?;
        Ok(Self { file, path, bytes: MAGIC.len() as u64 })
    }

    /// Writes encoded frames and waits until they are on disk. After a failure nothing of them may be acknowledged and
    /// the file is cut back, so that later frames stay readable.
    pub(crate) fn append(&mut self, frames: &[u8]) -> Result<()> {
        let written = self.file.write_all(frames).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            let _ = self.file.set_len(self.bytes);
            let _ = std::io::Seek::seek(&mut self.file, std::io::SeekFrom::Start(self.bytes));
            return Err(StoreError::io("write the write-ahead log", &self.path, error));
        }
        self.bytes += frames.len() as u64;
        Ok(())
    }

    /// Bytes in the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Where the file of a generation is.
pub(crate) fn path_of(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation:016x}.wal"))
}

/// Generations with a file, oldest first.
pub(crate) fn generations(directory: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(directory).map_err(|e| StoreError::io("list", directory, e))?;
    let mut found: Vec<u64> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str().and_then(|name| name.strip_suffix(".wal")).map(str::to_owned))
        .filter_map(|name| u64::from_str_radix(&name, 16).ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// How reading a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replay {
    /// Whole frames.
    pub(crate) frames: u64,
    /// What was wrong behind the last whole frame, if anything.
    pub(crate) damage: Option<String>,
}

/// Hands every whole frame of a file to `visit`.
pub(crate) fn replay(path: &Path, mut visit: impl FnMut(Frame) -> Result<()>) -> Result<Replay> {
    let read = |e| StoreError::io("read the write-ahead log", path, e);
    let file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut magic = [0; 8];
    let mut done = Replay { frames: 0, damage: None };
    if reader.read_exact(&mut magic).is_err() || &magic != MAGIC {
        done.damage = (size > 0).then(|| "the file does not begin as a write-ahead log".to_owned());
        return Ok(done);
    }
    let mut at = MAGIC.len() as u64;
    let mut body = Vec::new();
    while at < size {
        let mut head = [0; 8];
        let left = size - at;
        if left < 8 || reader.read_exact(&mut head).is_err() {
            done.damage = Some(format!("{left} bytes at offset {at} are not a whole frame"));
            return Ok(done);
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let checksum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if length > MAX_FRAME_BYTES || length as u64 > left - 8 {
            done.damage = Some(format!("the frame at offset {at} says {length} bytes, {} are there", left - 8));
            return Ok(done);
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).map_err(read)?;
        let frame = (crc32fast::hash(&body) == checksum).then(|| Frame::decode(&body)).flatten();
        let Some(frame) = frame else {
            done.damage = Some(format!("the frame at offset {at} does not match its checksum; {left} bytes were dropped"));
            return Ok(done);
        };
        visit(frame)?;
        done.frames += 1;
        at += 8 + length as u64;
    }
    Ok(done)
}

/// Makes created, renamed and removed names of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| StoreError::io("sync the directory", directory, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &'static [u8]) -> Frame {
        Frame {
            tenant: TenantId::default_tenant(),
            signal: OtlpSignal::Logs,
            received: 42,
            payload: bytes::Bytes::from_static(payload),
        }
    }

    fn read(path: &Path) -> (Vec<Frame>, Replay) {
        let mut frames = Vec::new();
        let end = replay(path, |f| {
            frames.push(f);
            Ok(())
        })
        .unwrap();
        (frames, end)
    }

    #[test]
    fn every_cut_and_every_flipped_bit_keeps_the_frames_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = WalWriter::create(directory.path(), 1).unwrap();
        let frames = [frame(b"first"), frame(b""), frame(b"third")];
        let mut ends = vec![];
        for f in &frames {
            let mut bytes = Vec::new();
            f.encode(&mut bytes);
            writer.append(&bytes).unwrap();
            ends.push(writer.bytes() as usize);
        }
        let path = path_of(directory.path(), 1);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(read(&path), (frames.to_vec(), Replay { frames: 3, damage: None }));
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected = ends.iter().filter(|end| **end <= cut).count();
            let (found, end) = read(&path);
            assert_eq!(found, frames[..expected], "cut at {cut}");
            let clean = cut == 0 || cut == MAGIC.len() || ends.contains(&cut);
            assert_eq!(end.damage.is_none(), clean, "cut at {cut}: {end:?}");
        }
        for at in MAGIC.len()..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let expected = ends.iter().filter(|end| **end <= at).count();
            let (found, end) = read(&path);
            assert_eq!(found, frames[..expected], "flip at {at}");
            assert!(end.damage.is_some(), "flip at {at}");
        }
    }
}
