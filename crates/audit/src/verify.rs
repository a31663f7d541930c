//! Reads everything and says what is not as it was written, and where. Changes nothing, trusts no file name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::AuditError;
use crate::anchors::{Anchors, Erasures};
use crate::event::{EventKind, Witness};
use crate::files::{ChainFiles, ChainPaths, Head, chains, is_live, read_head};
use crate::line::{GENESIS, Hash, Links, hex, read_links};
use crate::scan::{Forward, Line};
use crate::sign::{PublicKey, public_key};

/// Most findings listed; the others are counted.
const LISTED: usize = 1_000;
/// Attempts at a chain that is being written while it is read.
const ATTEMPTS: usize = 3;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// A line is not an audit record.
    Unreadable,
    /// A record's bytes are not what its hash was made over.
    Edited,
    /// A record does not follow the one before it: that one was edited and given a new hash.
    BrokenLink,
    /// Records are missing in the middle.
    Missing,
    /// A record stands after one with a higher number.
    Reordered,
    /// A number occurs twice.
    Duplicated,
    /// The last line is not complete and no process is writing it.
    Torn,
    /// Records are missing at the end: the head file knows of them.
    Truncated,
    /// Records follow although the chain was closed.
    AfterClose,
    /// The record the head file names is another one now.
    HeadDiffers,
    /// There is no usable head file, so a cut-off end would not be noticed.
    HeadMissing,
    /// A file of the chain is not there.
    FileMissing,
    /// A file says it belongs elsewhere.
    WrongFile,
    /// A chain that another one bears witness to is gone, shorter, or another one now.
    WitnessDiffers,
    /// A signature that should be there is not.
    Unsigned,
    /// A signature is not one of the key.
    Forged,
    /// A record is not the one that was signed: somebody replaced it and made the hashes fit.
    SignatureDiffers,
    /// Personal text is gone, and no recorded erasure took it.
    NotErased,
    /// An erasure was recorded and has not taken everything it names.
    EraseUnfinished,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// File inside the audit directory.
    pub file: String,
    /// Line in that file, from 1.
    pub line: Option<u64>,
    /// Number of the record concerned.
    pub sequence: Option<u64>,
    /// What is wrong.
    pub problem: Problem,
    /// In words.
    pub detail: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What was read of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Its name.
    pub chain: String,
    /// Files with records.
    pub files: usize,
    /// Lines that are records.
    pub records: u64,
    /// Highest number seen; 0 when there is no record.
    pub last_sequence: u64,
    /// Hash of that record, hexadecimal.
    pub last_hash: String,
    /// Whether a process is writing it.
    pub live: bool,
    /// Whether its last session ended in good order.
    pub closed: bool,
    /// How often what a crash left was moved aside.
    pub recovered: u64,
    /// First record that is there; above 1 after retention.
    pub begins_at: u64,
    /// Record up to which a signature vouches; records after it could be cut off unnoticed. 0 without signatures.
    pub signed_to: u64,
    /// Records from which an erasure took personal text.
    pub erased: u64,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Every chain, by name.
    pub chains: Vec<ChainReport>,
    /// What is wrong, at most 1,000.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed.
    pub more_findings: u64,
    /// The key that signatures were checked with, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// How to check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// The key that must have signed. Keep a copy away from the machine: then nobody on it can sign anew. When absent,
    /// the key of the directory.
    pub public_key: Option<PublicKey>,
    /// Where the directory's key file is; `audit.key` in it when absent.
    pub key_file: Option<PathBuf>,
    /// Accept a directory that was never signed, as written before signatures existed.
    pub accept_unsigned: bool,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty() && self.more_findings == 0
    }

    /// Records read in all chains.
    pub fn records(&self) -> u64 {
        self.chains.iter().map(|c| c.records).sum()
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if self.findings.len() < LISTED {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}

/// Verifies every chain in the audit directory with the directory's own key.
pub fn verify(directory: &Path) -> Result<VerifyReport, AuditError> {
    verify_with(directory, &VerifyOptions::default())
}

/// Verifies every chain in the audit directory.
pub fn verify_with(directory: &Path, options: &VerifyOptions) -> Result<VerifyReport, AuditError> {
    let key = match &options.public_key {
        Some(key) => Some(key.clone()),
        None => public_key(directory, options.key_file.as_deref())?,
    };
    let mut report = VerifyReport { public_key: key.as_ref().map(PublicKey::to_hex), ..VerifyReport::default() };
    let mut witnesses: BTreeMap<String, Vec<(String, Witness)>> = BTreeMap::new();
    let mut erasures = Erasures::default();
    for name in chains(directory)?.into_keys() {
        let paths = ChainPaths::new(directory, &name);
        let mut scan = Scan::default();
        for attempt in 1..=ATTEMPTS {
            // Listed anew: a rotation between listing and reading looks like a missing file.
            let files = chains(directory)?.remove(&name).unwrap_or_default();
            scan = Scan::run(&paths, &files, key.as_ref());
            if scan.findings.is_empty() || !scan.live || attempt == ATTEMPTS {
                break;
            }
        }
        for witness in std::mem::take(&mut scan.witnesses) {
            witnesses.entry(witness.chain.clone()).or_default().push((name.clone(), witness));
        }
        report.more_findings += scan.findings_dropped;
        for finding in std::mem::take(&mut scan.findings) {
            report.add(finding);
        }
        erasures.absorb(&name, std::mem::take(&mut scan.erasures));
        report.chains.push(scan.report(&name));
    }
    if key.is_none() && !options.accept_unsigned && !report.chains.is_empty() {
        let detail = "there is no public key: either this directory was written before signatures existed (start \
            Portcullis once to sign it) or the key was removed; nothing but hashes was checked";
        report.add(Finding {
            file: crate::sign::PUBLIC_FILE.to_owned(),
            line: None,
            sequence: None,
            problem: Problem::Unsigned,
            detail: detail.to_owned(),
        });
    }
    for (chain, mut seen) in witnesses {
        let begins_at = report.chains.iter().find(|c| c.chain == chain).map_or(1, |c| c.begins_at);
        // What retention removed can no longer be shown.
        seen.retain(|(_, witness)| witness.sequence >= begins_at);
        compare_witnesses(&ChainPaths::new(directory, &chain), &seen, &mut report)?;
    }
    erasures.check(key.as_ref(), &mut report);
    Ok(report)
}

#[derive(Default)]
struct Scan {
    live: bool,
    closed: bool,
    files: usize,
    records: u64,
    recovered: u64,
    expected: u64,
    /// Hashes the next record may name: what the last one states, and what its bytes have.
    last: Option<(Hash, Hash)>,
    last_hash: Hash,
    /// Numbers passed over, as inclusive ranges with where that was noticed.
    gaps: Vec<(u64, u64, String, u64)>,
    unreadable_run: u64,
    witnesses: Vec<Witness>,
    anchors: Anchors,
    begins_at: u64,
    erased: u64,
    erasures: Erasures,
    findings: Vec<Finding>,
    findings_dropped: u64,
}

impl Scan {
    fn run(paths: &ChainPaths, files: &ChainFiles, key: Option<&PublicKey>) -> Self {
        let mut scan =
            Self { live: is_live(paths), expected: 1, begins_at: 1, last: Some((GENESIS, GENESIS)), ..Self::default() };
        // Read before the records: a chain being written may only be ahead of them.
        let head = read_head(paths);
        let (anchors, problems) = Anchors::read(paths, key);
        for (file, line, problem, detail) in problems {
            scan.find(&file, line, None, problem, detail);
        }
        if let Some((sequence, prev)) = anchors.begins_after {
            (scan.expected, scan.begins_at, scan.last) = (sequence, sequence, Some((prev, prev)));
        }
        scan.anchors = anchors;
        let order = paths.in_order(files);
        scan.files = order.len();
        for part in files.missing().take(LISTED) {
            scan.find(&paths.part_name(part), None, None, Problem::FileMissing, "the file is missing".to_owned());
        }
        if files.is_bare() {
            let detail = "only the lock or the checkpoints of this chain are left: its records were removed".to_owned();
            scan.find(&format!("{}.lock", paths.name), None, None, Problem::FileMissing, detail);
            return scan;
        }
        let last_part = order.last().map(|(part, _)| *part);
        for (part, path) in &order {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Err(error) = scan.file(paths, (*part, path, &name), head.as_ref().ok(), last_part == Some(*part)) {
                scan.find(&name, None, None, Problem::FileMissing, format!("the file cannot be read: {error}"));
            }
        }
        scan.end(paths, head, key);
        scan
    }

    fn find(&mut self, file: &str, line: Option<u64>, sequence: Option<u64>, problem: Problem, detail: String) {
        if self.findings.len() < LISTED {
            self.findings.push(Finding { file: file.to_owned(), line, sequence, problem, detail });
        } else {
            self.findings_dropped += 1;
        }
    }

    fn file(
        &mut self,
        paths: &ChainPaths,
        (part, path, name): (u64, &Path, &str),
        head: Option<&Head>,
        last_file: bool,
    ) -> std::io::Result<()> {
        let mut lines = Forward::open(path, 0)?;
        let mut number = 0;
        while let Some(line) = lines.next()? {
            number += 1;
            let read = match line {
                Line::Whole(bytes) => read_links(&bytes),
                Line::TooLong => Err("it is longer than any record".to_owned()),
                // Its writer is in the middle of it.
                Line::Incomplete(_) if last_file && self.live => break,
                Line::Incomplete(bytes) => {
                    let detail = format!("the last line is not complete: {} bytes without an end", bytes.len());
                    self.find(name, Some(number), None, Problem::Torn, detail);
                    break;
                }
            };
            match read {
                Ok(links) => self.record(paths, part, (name, number), &links, head),
                Err(problem) => {
                    self.unreadable_run += 1;
                    self.find(name, Some(number), None, Problem::Unreadable, format!("the line cannot be read: {problem}"));
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, paths: &ChainPaths, part: u64, (file, line): (&str, u64), links: &Links, head: Option<&Head>) {
        let sequence = links.sequence;
        let say = |scan: &mut Self, problem, detail| scan.find(file, Some(line), Some(sequence), problem, detail);
        self.records += 1;
        if let Some(problem) = &links.unsealed {
            say(self, Problem::Edited, format!("record {sequence} was changed: {problem}"));
        } else if !links.is_whole() {
            say(self, Problem::Edited, format!("record {sequence} was changed: its hash does not fit its bytes"));
        }
        if let Some((problem, detail)) = self.anchors.judge(links) {
            say(self, problem, detail);
        }
        self.erased += u64::from(!links.erased.is_empty());
        self.erasures.line(links, (file, line));
        let run = std::mem::take(&mut self.unreadable_run);
        if sequence < self.expected {
            self.out_of_order(sequence, (file, line));
            return;
        }
        // Lines that cannot be read took the place of as many records.
        let continues = sequence == self.expected;
        if sequence > self.expected + run {
            self.gaps.push((self.expected + run, sequence - 1, file.to_owned(), line));
        }
        let linked = self.last.is_none_or(|(stated, computed)| links.prev == stated || links.prev == computed);
        if continues && !linked {
            let detail = format!("record {sequence} does not follow the record before it, which must have been replaced");
            say(self, Problem::BrokenLink, detail);
        }
        if let Some(head) = head {
            if sequence == head.sequence && links.stated != head.hash {
                say(self, Problem::HeadDiffers, format!("record {sequence} is not the one the head file knows"));
            }
            if head.closed && sequence > head.sequence {
                let detail = format!("record {sequence} stands after the chain was closed at record {}", head.sequence);
                say(self, Problem::AfterClose, detail);
            }
        }
        if let Some(mark) = &links.mark {
            if mark.chain != paths.name || mark.part != part {
                let detail = format!("the file says it is part {} of {}", mark.part, mark.chain);
                say(self, Problem::WrongFile, detail);
            }
            self.witnesses.extend(mark.witnesses.iter().cloned());
            self.erasures.recorded(mark);
        }
        self.recovered += u64::from(links.kind == EventKind::Recovered);
        self.expected = sequence + 1;
        self.last = Some((links.stated, links.computed));
        self.last_hash = links.stated;
    }

    /// A number that should have come before: either it fills a gap, or it was there already.
    fn out_of_order(&mut self, sequence: u64, (file, line): (&str, u64)) {
        let gap = self.gaps.iter().position(|(from, to, ..)| (*from..=*to).contains(&sequence));
        let Some(gap) = gap else {
            let detail = format!("record {sequence} was there before");
            self.find(file, Some(line), Some(sequence), Problem::Duplicated, detail);
            return;
        };
        let (from, to, at_file, at_line) = self.gaps.remove(gap);
        if from < sequence {
            self.gaps.push((from, sequence - 1, at_file.clone(), at_line));
        }
        if sequence < to {
            self.gaps.push((sequence + 1, to, at_file, at_line));
        }
        let detail = format!("record {sequence} stands after record {}", self.expected - 1);
        self.find(file, Some(line), Some(sequence), Problem::Reordered, detail);
    }

    fn end(&mut self, paths: &ChainPaths, head: Result<Head, String>, key: Option<&PublicKey>) {
        for (from, to, file, line) in std::mem::take(&mut self.gaps) {
            let what = if from == to { format!("record {from} is") } else { format!("records {from} to {to} are") };
            self.find(&file, Some(line), Some(from), Problem::Missing, format!("{what} missing before this line"));
        }
        let file = format!("{}.head", paths.name);
        let last = self.expected - 1;
        if let (Ok(head), Some(key)) = (&head, key)
            && let Some((problem, detail)) = self.anchors.judge_head(&paths.name, head, key)
        {
            self.find(&file, None, None, problem, detail);
        }
        let known = head.as_ref().map_or(0, |head| head.sequence);
        if let Some(signed) = self.anchors.last_checkpoint().filter(|signed| *signed > last.max(known)) {
            let name = format!("{}.checkpoints", paths.name);
            let detail = format!("records {} to {signed} are missing at the end: a signed checkpoint knows of them", last + 1);
            self.find(&name, None, Some(last + 1), Problem::Truncated, detail);
        }
        if let Some(detail) = self.anchors.missing(head.as_ref().is_ok_and(|h| h.closed)) {
            self.find(&format!("{}.checkpoints", paths.name), None, None, Problem::Unsigned, detail);
        }
        match head {
            Err(problem) => {
                let detail = format!("a cut-off end would not be noticed: {problem}");
                self.find(&file, None, None, Problem::HeadMissing, detail);
            }
            Ok(head) if head.sequence > last => {
                let detail = format!("records {} to {} are missing at the end", last + 1, head.sequence);
                self.find(&file, None, Some(last + 1), Problem::Truncated, detail);
            }
            Ok(head) => self.closed = head.closed,
        }
    }

    fn report(self, chain: &str) -> ChainReport {
        ChainReport {
            chain: chain.to_owned(),
            files: self.files,
            records: self.records,
            last_sequence: self.expected.saturating_sub(1),
            last_hash: hex(&self.last_hash),
            live: self.live,
            closed: self.closed,
            recovered: self.recovered,
            begins_at: self.begins_at,
            signed_to: self.anchors.signed_to.min(self.expected.saturating_sub(1)),
            erased: self.erased,
        }
    }
}

/// Whether a chain still has the records others saw in it.
fn compare_witnesses(paths: &ChainPaths, seen: &[(String, Witness)], report: &mut VerifyReport) -> Result<(), AuditError> {
    let mut wanted: BTreeMap<u64, Vec<&(String, Witness)>> = BTreeMap::new();
    for entry in seen {
        wanted.entry(entry.1.sequence).or_default().push(entry);
    }
    let files = chains(&paths.directory)?.remove(&paths.name).unwrap_or_default();
    for (_, path) in paths.in_order(&files) {
        let mut lines = Forward::open(&path, 0).map_err(AuditError::file(&path, "read"))?;
        while let Some(line) = lines.next().map_err(AuditError::file(&path, "read"))? {
            let Line::Whole(bytes) = line else { continue };
            let Ok(links) = read_links(&bytes) else { continue };
            if let Some(entries) = wanted.get_mut(&links.sequence) {
                entries.retain(|(_, witness)| witness.hash != hex(&links.stated));
            }
        }
    }
    for (by, witness) in wanted.into_values().flatten() {
        let what = if files == ChainFiles::default() { "the chain is gone" } else { "the chain does not have it" };
        report.add(Finding {
            file: format!("{}.jsonl", paths.name),
            line: None,
            sequence: Some(witness.sequence),
            problem: Problem::WitnessDiffers,
            detail: format!("{by} saw record {} of this chain: {what}", witness.sequence),
        });
    }
    Ok(())
}
