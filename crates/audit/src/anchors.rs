//! What vouches for records from outside of their own hashes: signed checkpoints, the signed head, the signed beginning
//! after retention, and the recorded erasures. Reads only; every doubt is a finding.

use std::collections::BTreeMap;

use crate::event::{ChainMark, Erasure, EventKind};
use crate::files::{ChainPaths, Head, read_base, read_checkpoints};
use crate::line::{Hash, Links, hex, unhex};
use crate::sign::{PublicKey, Statement};
use crate::verify::{Finding, Problem, VerifyReport};

/// The signed statements about one chain.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    key: Option<PublicKey>,
    chain: String,
    /// Hash that was signed for a record.
    claims: BTreeMap<u64, String>,
    /// Number of the first record and hash of the one before it, after retention.
    pub(crate) begins_after: Option<(u64, Hash)>,
    /// Highest record a valid signature vouches for.
    pub(crate) signed_to: u64,
    /// There is a checkpoint among the records.
    in_chain: bool,
}

/// First and last record, and groups as bits.
type Spans = Vec<(u64, u64, u8)>;
type Problems = Vec<(String, Option<u64>, Problem, String)>;

impl Anchors {
    /// Reads what stands beside a chain.
    pub(crate) fn read(paths: &ChainPaths, key: Option<&PublicKey>) -> (Self, Problems) {
        let mut anchors = Self { key: key.cloned(), chain: paths.name.clone(), ..Self::default() };
        let mut problems = Vec::new();
        let file = format!("{}.base", paths.name);
        match read_base(paths) {
            Ok(None) => {}
            Err(problem) => problems.push((file, None, Problem::Unreadable, problem)),
            Ok(Some(base)) => match (unhex(&base.prev), key) {
                (Ok(prev), Some(key)) if key.signed(&base.statement(&paths.name), &base.signature) => {
                    anchors.begins_after = Some((base.sequence, prev));
                }
                (_, None) => {
                    let detail = "the beginning of the chain is signed, and there is no key to check that with".to_owned();
                    problems.push((file, None, Problem::Unsigned, detail));
                }
                _ => {
                    let detail = "the beginning of the chain is not signed by the key".to_owned();
                    problems.push((file, None, Problem::Forged, detail));
                }
            },
        }
        let file = format!("{}.checkpoints", paths.name);
        match (read_checkpoints(paths), key) {
            (Err(problem), _) => problems.push((file, None, Problem::Unreadable, problem)),
            (Ok(_), None) => {}
            (Ok(lines), Some(key)) => {
                for (line, checkpoint) in lines {
                    let problem = match checkpoint {
                        Err(problem) => Some((Problem::Unreadable, format!("the line is not a checkpoint: {problem}"))),
                        Ok(one) if anchors.is_signed(key, one.sequence, &one.hash, &one.time, &one.signature) => {
                            anchors.signed_to = anchors.signed_to.max(one.sequence);
                            anchors.claims.insert(one.sequence, one.hash);
                            None
                        }
                        Ok(one) => {
                            let detail = format!("the checkpoint of record {} is not signed by the key", one.sequence);
                            Some((Problem::Forged, detail))
                        }
                    };
                    problems.extend(problem.map(|(problem, detail)| (file.clone(), Some(line), problem, detail)));
                }
            }
        }
        (anchors, problems)
    }

    fn is_signed(&self, key: &PublicKey, sequence: u64, hash: &str, time: &str, signature: &str) -> bool {
        key.signed(&Statement::Checkpoint { chain: &self.chain, sequence, hash, time }, signature)
    }

    /// What is wrong with a record in the light of the signatures.
    pub(crate) fn judge(&mut self, links: &Links) -> Option<(Problem, String)> {
        let sequence = links.sequence;
        if self.claims.get(&sequence).is_some_and(|signed| *signed != hex(&links.stated)) {
            return Some((Problem::SignatureDiffers, format!("record {sequence} is not the one that was signed")));
        }
        if links.kind != EventKind::Checkpoint {
            return None;
        }
        self.in_chain = true;
        let key = self.key.clone()?;
        let checkpoint = links.mark.as_ref().and_then(|mark| mark.checkpoint.as_ref());
        let valid = checkpoint.is_some_and(|c| {
            c.sequence + 1 == sequence
                && c.hash == hex(&links.prev)
                && self.is_signed(&key, c.sequence, &c.hash, &c.time, &c.signature)
        });
        if !valid {
            return Some((Problem::Forged, format!("record {sequence} is a checkpoint that does not sign the record before it")));
        }
        self.signed_to = self.signed_to.max(sequence - 1);
        None
    }

    pub(crate) fn judge_head(&mut self, chain: &str, head: &Head, key: &PublicKey) -> Option<(Problem, String)> {
        let Some(signature) = &head.signature else {
            return Some((Problem::Unsigned, "the head is not signed".to_owned()));
        };
        if !key.signed(&head.statement(chain, &hex(&head.hash)), signature) {
            return Some((Problem::Forged, "the head is not signed by the key".to_owned()));
        }
        self.signed_to = self.signed_to.max(head.sequence);
        None
    }

    pub(crate) fn last_checkpoint(&self) -> Option<u64> {
        self.claims.last_key_value().map(|(sequence, _)| *sequence)
    }

    /// Why there should be checkpoints beside the chain, when there are none.
    pub(crate) fn missing(&self, closed: bool) -> Option<String> {
        let expected = self.key.is_some() && (closed || self.in_chain);
        (expected && self.claims.is_empty())
            .then(|| "the checkpoints of this chain are missing: a replaced record would not be noticed".to_owned())
    }
}

/// One record from which personal text was taken.
#[derive(Debug)]
struct Taken {
    sequence: u64,
    bits: u8,
    file: String,
    line: u64,
}

/// What was erased, and what the log says was.
#[derive(Debug, Default)]
pub(crate) struct Erasures {
    recorded: Vec<Erasure>,
    /// By name of the erasure and chain; while one chain is read its name is not known here and empty.
    taken: BTreeMap<(String, String), Vec<Taken>>,
}

impl Erasures {
    pub(crate) fn recorded(&mut self, mark: &ChainMark) {
        self.recorded.extend(mark.erasures.iter().cloned());
    }

    pub(crate) fn line(&mut self, links: &Links, (file, line): (&str, u64)) {
        for (bits, id) in &links.erased {
            let taken = Taken { sequence: links.sequence, bits: *bits, file: file.to_owned(), line };
            self.taken.entry((id.clone(), String::new())).or_default().push(taken);
        }
    }

    /// Adds what was seen in one chain.
    pub(crate) fn absorb(&mut self, chain: &str, seen: Self) {
        self.recorded.extend(seen.recorded);
        for ((id, _), lines) in seen.taken {
            self.taken.entry((id, chain.to_owned())).or_default().extend(lines);
        }
    }

    /// Compares the two. Records of an erasure may be in any chain.
    pub(crate) fn check(self, key: Option<&PublicKey>, report: &mut VerifyReport) {
        let mut spans: BTreeMap<(String, String), Spans> = BTreeMap::new();
        for erasure in self.recorded {
            // Anybody can append a line; only the key can permit to take personal text away.
            if key.is_some_and(|key| !erasure.is_signed(key)) {
                report.add(Finding {
                    file: format!("{}.jsonl", erasure.chain),
                    line: None,
                    sequence: None,
                    problem: Problem::Forged,
                    detail: format!("the record of erasure {} is not signed by the key", erasure.id),
                });
                continue;
            }
            spans.entry((erasure.id, erasure.chain)).or_default().extend(erasure.spans);
        }
        for spans in spans.values_mut() {
            // Retention writes some of them again.
            spans.sort_unstable();
            spans.dedup();
        }
        for (name, lines) in &self.taken {
            let allowed = spans.get(name).map(Vec::as_slice).unwrap_or_default();
            for taken in lines {
                let at = allowed.partition_point(|(first, ..)| *first <= taken.sequence);
                // Spans of one erasure in one chain do not overlap.
                let span = at.checked_sub(1).and_then(|at| allowed.get(at));
                if span.is_some_and(|(_, last, bits)| taken.sequence <= *last && bits & taken.bits != 0) {
                    continue;
                }
                report.add(Finding {
                    file: taken.file.clone(),
                    line: Some(taken.line),
                    sequence: Some(taken.sequence),
                    problem: Problem::NotErased,
                    detail: format!("record {} lost personal text, and no recorded erasure took it", taken.sequence),
                });
            }
        }
        for ((id, chain), spans) in spans {
            let Some(chain_report) = report.chains.iter().find(|c| c.chain == chain) else { continue };
            let (begin, end) = (chain_report.begins_at, chain_report.last_sequence);
            let due: u64 = spans
                .iter()
                .map(|(first, last, bits)| {
                    let records = (last.min(&end) + 1).saturating_sub(*first.max(&begin));
                    records * u64::from(bits.count_ones())
                })
                .sum();
            let taken = self.taken.get(&(id.clone(), chain.clone())).map_or(0, |lines| lines.len() as u64);
            if taken < due {
                report.add(Finding {
                    file: format!("{chain}.jsonl"),
                    line: None,
                    sequence: None,
                    problem: Problem::EraseUnfinished,
                    detail: format!(
                        "erasure {id} took personal text {taken} times of {due}: run 'portcullis audit erase' again to finish it"
                    ),
                });
            }
        }
    }
}
