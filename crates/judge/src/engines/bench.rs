//! How long engines take, measured so that they can be compared: on the same inputs, in turn, so that a machine that slows down
//! slows all of them.

use std::time::{Duration, Instant};

use engine::{Engine, EngineError, NamedValues};
pub use report::Timing;

/// The fewest timed runs of each engine that a bench reports.
pub const MIN_RUNS: usize = 30;

/// Runs of each engine before the first that counts: they fill caches and start threads.
pub const WARM_UP: usize = 3;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Runs of each engine before the first that counts.
    pub warm_up: usize,
    /// At least this many rounds.
    pub rounds: usize,
    /// More rounds as long as this is not used up.
    pub time: Duration,
}

/// Times engines in turn, a round of all of them at a time. Each takes its own inputs, since a graph may lack one.
///
/// `progress` is called after each round with the number of rounds done.
///
/// # Errors
/// If an engine fails.
pub fn interleave(
    engines: &[(&dyn Engine, &NamedValues)],
    limit: Limit,
    mut progress: impl FnMut(usize),
) -> Result<Vec<Timing>, EngineError> {
    for (engine, inputs) in engines {
        for _ in 0..limit.warm_up {
            engine.run(inputs)?;
        }
    }
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); engines.len()];
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < limit.rounds || start.elapsed() < limit.time {
        for ((engine, inputs), times) in engines.iter().zip(&mut times) {
            let start = Instant::now();
            engine.run(inputs)?;
            times.push(start.elapsed());
        }
        rounds += 1;
        progress(rounds);
    }
    let threads = threads();
    Ok(engines.iter().zip(times).map(|((engine, _), times)| summary(engine.name(), threads, times)).collect())
}

/// The threads that candle uses.
pub fn threads() -> usize {
    candle_core::utils::get_num_threads()
}

fn summary(engine: &str, threads: usize, mut times: Vec<Duration>) -> Timing {
    times.sort_unstable();
    let at = |share: f64| {
        let rank = (share * times.len() as f64).ceil() as usize;
        let time = times.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        time.as_secs_f64() * 1e3
    };
    Timing { engine: engine.into(), threads, median_ms: at(0.5), p90_ms: at(0.9), runs: times.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_p90_are_ranks() {
        let times = (1..=10).rev().map(Duration::from_millis).collect();
        let timing = summary("reference", 2, times);
        assert_eq!((timing.median_ms, timing.p90_ms, timing.runs), (5.0, 9.0, 10));
    }
}
