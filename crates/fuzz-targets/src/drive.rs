//! Drives a target on the stable toolchain: mutates seeds from a printed number, keeps what is answered in a new way, and
//! fails at the first panic, at an input that takes too long, or when memory grows without end. Same number, same run.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::Target;

/// How long, from where, and within which bounds.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long to go on.
    pub time: Duration,
    /// Where the numbers start.
    pub seed: u64,
    /// Longest input, in bytes.
    pub longest: usize,
    /// Most resident memory may grow between the first fifth of the run and its end, in bytes.
    pub growth: u64,
    /// Longest time one input may take, by the clock and of the processor.
    pub slowest: Duration,
    /// Where each input is written before it is read, so that even an abort leaves it behind.
    pub keep: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(8),
            seed: 1,
            longest: 4_096,
            growth: 256 << 20,
            slowest: Duration::from_secs(5),
            keep: None,
        }
    }
}

/// What a run saw.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Inputs read.
    pub inputs: u64,
    /// Of these, taken.
    pub accepted: u64,
    /// Different answers.
    pub answers: usize,
    /// The longest time an input took: by the clock, or of the processor where that is less.
    pub slowest: Duration,
    /// How much resident memory grew, in bytes; `None` where the system does not say.
    pub growth: Option<u64>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let growth =
            self.growth.map_or_else(|| "memory not measured here".to_owned(), |n| format!("{} KiB more memory", n >> 10));
        write!(
            f,
            "{} inputs, {} taken, {} different answers, slowest {} ms, {growth}",
            self.inputs,
            self.accepted,
            self.answers,
            self.slowest.as_millis()
        )
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A promise was broken, or a reader panicked.
    #[error("panic: {message}\n  input {number} of seed {seed}: {input}")]
    Panic {
        /// What the panic said.
        message: String,
        /// Which input it was.
        number: u64,
        /// Where the numbers started.
        seed: u64,
        /// The input, escaped as a Rust byte string.
        input: String,
    },
    /// One input took too long.
    #[error("took {took:?}, at most {most:?} are allowed\n  input {number} of seed {seed}: {input}")]
    Slow {
        /// How long it took.
        took: Duration,
        /// How long it may.
        most: Duration,
        /// Which input it was.
        number: u64,
        /// Where the numbers started.
        seed: u64,
        /// The input, escaped as a Rust byte string.
        input: String,
    },
    /// Memory grew and did not stop.
    #[error("resident memory grew by {grown} bytes, at most {most} are allowed")]
    Memory {
        /// By how much.
        grown: u64,
        /// By how much it may.
        most: u64,
    },
    /// The input could not be kept.
    #[error("the input cannot be written to {path}: {error}")]
    Keep {
        /// Where to.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// Most inputs kept to mutate.
const POOL: usize = 1_024;

/// Runs a target.
///
/// # Errors
/// At the first promise broken; the error holds the input.
pub fn drive(target: &Target, plan: &Plan) -> Result<Run, Broken> {
    let mut dice = Dice(
        plan.seed
            ^ target.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)),
    );
    let mut pool: Vec<Vec<u8>> = target.seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    // What was taken leads to more that is taken; among all answers it would be lost.
    let mut taken: Vec<Vec<u8>> = Vec::new();
    let mut answers = HashSet::new();
    let mut run = Run::default();
    let began = Instant::now();
    let mut settled = None;
    let watch = Watch::over(target.name, plan);
    while began.elapsed() < plan.time || run.inputs < target.seeds.len() as u64 {
        let input = match usize::try_from(run.inputs).ok().and_then(|n| target.seeds.get(n)) {
            Some(seed) => seed.as_bytes().to_vec(),
            None if !taken.is_empty() && dice.below(2) == 0 => mutate(&mut dice, &taken, target.words, plan.longest),
            None => mutate(&mut dice, &pool, target.words, plan.longest),
        };
        run.inputs += 1;
        if let Some(path) = &plan.keep {
            std::fs::write(path, &input).map_err(|error| Broken::Keep { path: path.clone(), error })?;
        }
        watch.number.store(run.inputs, Ordering::Relaxed);
        let from = Stopwatch::start();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let took = from.took();
        let shown = || input.escape_ascii().to_string();
        let verdict = outcome.map_err(|panic| Broken::Panic {
            message: said_by(panic.as_ref()),
            number: run.inputs,
            seed: plan.seed,
            input: shown(),
        })?;
        if took > plan.slowest {
            return Err(Broken::Slow { took, most: plan.slowest, number: run.inputs, seed: plan.seed, input: shown() });
        }
        run.slowest = run.slowest.max(took);
        run.accepted += u64::from(verdict.accepted);
        // Names and numbers inside a sentence do not make it another answer.
        let words: String = verdict.said.chars().filter(|c| !c.is_ascii_digit()).take(48).collect();
        if answers.len() < 4_096 && answers.insert((verdict.accepted, input.len() / 512, words)) {
            if verdict.accepted && taken.len() < POOL {
                taken.push(input.clone());
            }
            if pool.len() < POOL {
                pool.push(input);
            } else {
                let place = target.seeds.len() + dice.below(POOL - target.seeds.len());
                pool[place] = input;
            }
        }
        if settled.is_none() && began.elapsed() > plan.time / 5 {
            settled = Some(resident());
        }
    }
    run.answers = answers.len();
    run.growth = settled.flatten().zip(resident()).map(|(before, after)| after.saturating_sub(before));
    match run.growth {
        Some(grown) if grown > plan.growth => Err(Broken::Memory { grown, most: plan.growth }),
        _ => Ok(run),
    }
}

/// How long something takes. Beside other work that is more by the clock than it is to blame for, and in a process that does
/// more than one thing more of the processor: the less counts.
#[derive(Clone, Copy)]
struct Stopwatch {
    clock: Instant,
    processor: Option<Duration>,
}

impl Stopwatch {
    fn start() -> Self {
        Self { clock: Instant::now(), processor: processor_time() }
    }

    fn took(self) -> Duration {
        let clock = self.clock.elapsed();
        self.processor.zip(processor_time()).map_or(clock, |(before, now)| clock.min(now.saturating_sub(before)))
    }
}

/// Processor time of this process, where the system says it.
fn processor_time() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(Duration::from)
}

/// Ends the process when one input never ends: no thread can be stopped from outside.
struct Watch {
    number: Arc<AtomicU64>,
}

impl Watch {
    fn over(name: &'static str, plan: &Plan) -> Self {
        let number = Arc::new(AtomicU64::new(0));
        let (watched, most, seed) = (Arc::downgrade(&number), plan.slowest * 4, plan.seed);
        std::thread::spawn(move || {
            let (mut last, mut since) = (0, Stopwatch::start());
            // The run is over when nobody counts any more.
            while let Some(now) = watched.upgrade().map(|number| number.load(Ordering::Relaxed)) {
                if now != last {
                    (last, since) = (now, Stopwatch::start());
                // What waits and does nothing spends no processor time.
                } else if since.took() > most || since.clock.elapsed() > most * 15 {
                    let _ =
                        writeln!(io::stderr(), "BROKEN  {name}: input {now} of seed {seed} does not end; --keep FILE shows it");
                    std::process::exit(1);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { number }
    }
}

fn said_by(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without words").to_owned()
}

/// Resident memory of this process, where `/proc` says so (pages of 4 KiB, `proc_pid_statm(5)`).
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4_096)
}

/// Numbers that look drawn by chance and are the same every time (SplitMix64, Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `most`; 0 when that is 0.
    fn below(&mut self, most: usize) -> usize {
        (self.roll() % most.max(1) as u64) as usize
    }
}

/// A stretch of `bytes`, at most 64 long.
fn stretch(dice: &mut Dice, bytes: &[u8]) -> std::ops::Range<usize> {
    let from = dice.below(bytes.len());
    from..(from + dice.below(64) + 1).min(bytes.len())
}

/// One to eight changes to a known input.
fn mutate(dice: &mut Dice, pool: &[Vec<u8>], words: &[&str], longest: usize) -> Vec<u8> {
    let mut input = pool[dice.below(pool.len())].clone();
    for _ in 0..=dice.below(8) {
        let at = dice.below(input.len() + 1);
        match dice.below(10) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = dice.below(256) as u8,
            2 | 3 if !words.is_empty() => {
                let word = words[dice.below(words.len())];
                input.splice(at..at, word.bytes());
            }
            4 if !input.is_empty() => {
                let gone = stretch(dice, &input);
                input.drain(gone);
            }
            5 if !input.is_empty() => {
                let part = input[stretch(dice, &input)].to_vec();
                input.splice(at..at, part);
            }
            6 => {
                let other = &pool[dice.below(pool.len())];
                if !other.is_empty() {
                    let part = other[stretch(dice, other)].to_vec();
                    input.splice(at..at, part);
                }
            }
            // Many of the same: nesting, long runs, quadratic loops.
            7 if !words.is_empty() && dice.below(4) == 0 => {
                let part = words[dice.below(words.len())].repeat(1 << dice.below(10));
                input.splice(at..at, part.into_bytes());
            }
            8 => {
                let odd = ['\u{0}', '\u{202e}', '\u{feff}', 'é', '\u{1f600}', '\u{2028}', '\u{10ffff}', 'ſ'];
                input.splice(at..at, odd[dice.below(odd.len())].to_string().into_bytes());
            }
            _ => {
                let other = &pool[dice.below(pool.len())];
                let cut = dice.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[cut..]);
            }
        }
    }
    input.truncate(longest);
    input
}
