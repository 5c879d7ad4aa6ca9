//! Peers in turn, in one process, on the same batch.

use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use crate::batch::Batch;
use crate::peer::{Entry, Peer};
use crate::rows::{Row, Writer};
use crate::truth::Truth;
use crate::workload::{Files, Workload};

/// Fewest rounds. Each peer has one turn a round, in an order drawn anew, so that what slows the machine down for a while slows all.
pub const MIN_ROUNDS: usize = 7;

/// More rounds than this add nothing.
pub const MAX_ROUNDS: usize = 30;

/// A turn's timed runs: at least one, at most so many, and no more once they took [`TURN_TIME`].
const TURN_RUNS: usize = 10;

/// See [`TURN_RUNS`].
const TURN_TIME: Duration = Duration::from_millis(20);

/// Before each turn the process is left alone until it used less than [`QUIET`] of CPU within this time: until the threads of the peer
/// before it have gone to sleep. ONNX Runtime's watch for work for tens of milliseconds after a run, on a core that the next peer needs.
const PAUSE: Duration = Duration::from_millis(10);

/// See [`PAUSE`].
const QUIET: Duration = Duration::from_micros(500);

/// No thread watches for work that long.
const MAX_PAUSES: usize = 200;

/// A run that is faster than this is preceded by one that is not timed: its weights have left the caches while others ran.
const SETTLE_BELOW: Duration = Duration::from_millis(50);

/// Where rows go, and how many.
pub struct Plan<'a> {
    /// Threads each peer may use.
    pub threads: usize,
    /// Of the order of turns.
    pub seed: u64,
    /// At least this many rounds.
    pub min_rounds: usize,
    /// More rounds as long as this is not used up.
    pub time: Duration,
    /// Takes the rows.
    pub writer: &'a mut Writer,
    /// Says what is being done.
    pub tell: &'a mut dyn FnMut(&str) -> anyhow::Result<()>,
}

struct Contestant {
    name: &'static str,
    peer: Box<dyn Peer>,
    last: Duration,
}

/// Loads, checks and times these peers on a workload. Gives how many were left out.
///
/// # Errors
/// If the workload itself cannot be made, or a peer that was right fails later.
pub fn run(workload: &Workload, files: &Files, entries: &[&Entry], plan: &mut Plan) -> anyhow::Result<usize> {
    let batch = workload.batch(files)?;
    plan.writer.write(&Row::Workload {
        workload: workload.name.into(),
        title: workload.title.into(),
        rows: batch.rows,
        width: batch.width,
        tokens: batch.real_tokens(),
    })?;
    let truth = Truth::compute(files, &batch)?;
    let (mut contestants, mut left_out) = (Vec::new(), 0);
    for entry in entries.iter().filter(|entry| batch.is_ragged() || !entry.ragged_only) {
        match admit(entry, workload, files, &batch, &truth, plan) {
            Ok(contestant) => contestants.push(contestant),
            Err(error) => {
                left_out += 1;
                let reason = format!("{error:#}");
                (plan.tell)(&format!("{} {}: left out: {reason}", workload.name, entry.name))?;
                plan.writer.write(&Row::LeftOut {
                    workload: workload.name.into(),
                    peer: entry.name.into(),
                    threads: plan.threads,
                    reason,
                })?;
            }
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
    let start = Instant::now();
    let mut round = 0;
    while round < plan.min_rounds || (round < MAX_ROUNDS && start.elapsed() < plan.time) {
        contestants.shuffle(&mut rng);
        for (turn, contestant) in contestants.iter_mut().enumerate() {
            let us = contestant.turn()?;
            plan.writer.write(&Row::Turn {
                workload: workload.name.into(),
                peer: contestant.name.into(),
                threads: plan.threads,
                round,
                turn,
                us,
            })?;
        }
        round += 1;
    }
    (plan.tell)(&format!(
        "{}, {} thread(s): {} peers, {round} rounds in {:.0} s",
        workload.name,
        plan.threads,
        contestants.len(),
        start.elapsed().as_secs_f64()
    ))?;
    Ok(left_out)
}

/// A peer that computes the right thing.
fn admit(
    entry: &Entry,
    workload: &Workload,
    files: &Files,
    batch: &Batch,
    truth: &Truth,
    plan: &mut Plan,
) -> anyhow::Result<Contestant> {
    let mut peer = (entry.load)(files, batch, plan.threads)?;
    peer.run()?;
    let distance = truth.check(batch, &peer.outputs()?)?;
    plan.writer.write(&Row::Check {
        workload: workload.name.into(),
        peer: entry.name.into(),
        threads: plan.threads,
        hidden: distance.hidden,
        hidden_rms: distance.hidden_rms,
        pooled: distance.pooled,
        compared: distance.compared,
    })?;
    // The first run allocated; from here on it is warm.
    let last = peer.run()?;
    Ok(Contestant { name: entry.name, peer, last })
}

impl Contestant {
    /// The times of a turn's runs, in microseconds.
    fn turn(&mut self) -> anyhow::Result<Vec<f64>> {
        settle()?;
        if self.last < SETTLE_BELOW {
            self.peer.run()?;
        }
        let mut us = Vec::new();
        let mut spent = Duration::ZERO;
        while us.is_empty() || (us.len() < TURN_RUNS && spent < TURN_TIME) {
            self.last = self.peer.run()?;
            spent += self.last;
            us.push((self.last.as_secs_f64() * 1e7).round() / 10.);
        }
        Ok(us)
    }
}

/// Waits until no thread of this process is running; see [`PAUSE`].
fn settle() -> anyhow::Result<()> {
    let cpu_time = || -> anyhow::Result<Duration> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Ok(Duration::try_from(time)?)
    };
    let mut before = cpu_time()?;
    for _ in 0..MAX_PAUSES {
        std::thread::sleep(PAUSE);
        let now = cpu_time()?;
        if now - before < QUIET {
            return Ok(());
        }
        before = now;
    }
    anyhow::bail!("the threads of a peer do not stop watching for work: no turn would be fair")
}
