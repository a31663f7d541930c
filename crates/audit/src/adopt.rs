//! Signing chains that were written before there were signatures. Guards that it happens only when a person names the chain,
//! and that a record says so first: what is not signed may have been written by anybody.

use std::path::Path;

use portcullis_model::{Clock, Principal, format_timestamp};

use crate::AuditError;
use crate::event::{AuditEvent, Checkpoint, EventKind};
use crate::files::{ChainPaths, append_checkpoint, chains, read_head, try_lock, write_head};
use crate::line::hex;
use crate::log::AuditLog;
use crate::recover::end_of_chain;
use crate::sign::Statement;

/// A chain that is signed from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Its name.
    pub chain: String,
    /// Its last record, up to which the signature vouches.
    pub sequence: u64,
    /// Hash of that record, hexadecimal.
    pub hash: String,
}

/// Chains of `directory` whose head carries no signature at all, by name.
///
/// # Errors
/// When the directory cannot be read.
pub fn unsigned_chains(directory: &Path) -> Result<Vec<String>, AuditError> {
    let unsigned = |name: &String| read_head(&ChainPaths::new(directory, name)).is_ok_and(|head| head.signature.is_none());
    Ok(chains(directory)?.into_keys().filter(unsigned).collect())
}

/// Signs the chain `name` as it is, in the name of `by`, and writes a record of that into `log` before.
///
/// # Errors
/// When there is no such chain, a process writes it, its hashes do not fit, or it has a signature; nothing is signed then.
pub fn adopt(log: &AuditLog, name: &str, by: &Principal, clock: &dyn Clock) -> Result<Adopted, AuditError> {
    let refused = |reason: &str| AuditError::Adopt { chain: name.to_owned(), reason: reason.to_owned() };
    let directory = log.directory();
    let files = chains(directory)?.remove(name).ok_or_else(|| refused("there is no such chain"))?;
    let paths = ChainPaths::new(directory, name);
    if !files.lock {
        return Err(refused("its lock file is missing"));
    }
    let lock = try_lock(&paths.lock(), false)?;
    if lock.is_none() {
        return Err(refused("a process is writing it"));
    }
    let head = read_head(&paths).map_err(|problem| refused(&problem))?;
    if head.signature.is_some() {
        return Err(refused("it has a signature; one that does not fit is not replaced"));
    }
    let end = end_of_chain(&paths, &files, None).map_err(|problem| refused(&problem))?;
    let (hash, signer) = (hex(&end.hash), log.signer());
    let note = format!("signed as it is, up to record {} with the hash {hash}; until now nothing vouched for it", end.sequence);
    log.append(AuditEvent::operation(EventKind::Admin, "audit.adopt", name.to_owned()).principal(by).note(note))?;
    let time = format_timestamp(clock.now());
    let statement = Statement::Checkpoint { chain: name, sequence: end.sequence, hash: &hash, time: &time };
    let signature = signer.sign(&statement);
    let checkpoint = Checkpoint { sequence: end.sequence, hash: hash.clone(), time, key: signer.name.clone(), signature };
    write_head(&paths, &head, signer)?;
    append_checkpoint(&paths, &checkpoint)?;
    Ok(Adopted { chain: name.to_owned(), sequence: end.sequence, hash })
}
