//! Markdown made of rows, and of nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::peer::ENTRIES;
use crate::rows::{Process, Row};

/// Half of the values are no larger; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    rank(values, 0.5)
}

/// That share of the values is no larger.
fn rank(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// A workload as one process timed it.
#[derive(Debug, Default)]
struct Timed {
    title: String,
    shape: String,
    peers: BTreeMap<String, Timings>,
    left_out: Vec<(String, String)>,
}

/// Each round's runs in microseconds, and the distance to f64, largest and mean.
#[derive(Debug, Default)]
struct Timings {
    rounds: BTreeMap<usize, Vec<f64>>,
    distance: Option<(f64, f64)>,
}

impl Timings {
    fn runs(&self) -> Vec<f64> {
        self.rounds.values().flatten().copied().collect()
    }

    fn median(&self) -> Option<f64> {
        median(&self.runs())
    }

    /// How many times as fast as `other`: the median over the rounds of the ratio within a round.
    fn times_as_fast_as(&self, other: &Self) -> Option<f64> {
        let ratios: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|(round, ours)| Some(median(other.rounds.get(round)?)? / median(ours)?))
            .collect();
        median(&ratios)
    }
}

/// Workloads by threads and name. A workload that was run again replaces the one before.
type Results = BTreeMap<usize, BTreeMap<String, Timed>>;

/// The report on these rows.
pub fn markdown(rows: &[Row]) -> String {
    let (mut results, mut processes, mut loads) = (Results::new(), Vec::<&Process>::new(), Vec::new());
    for row in rows {
        let threads_now = processes.last().map_or(0, |process| process.threads);
        match row {
            Row::Process(process) => processes.push(process),
            Row::Workload { workload, title, rows, width, tokens } => {
                let shape = if *tokens == rows * width {
                    String::new()
                } else {
                    format!("{rows}×{width}, {tokens} of {} real", rows * width)
                };
                let timed = Timed { title: title.clone(), shape, ..Timed::default() };
                results.entry(threads_now).or_default().insert(workload.clone(), timed);
            }
            Row::Check { workload, peer, threads, hidden, hidden_rms, .. } => {
                entry(&mut results, *threads, workload, peer).distance = Some((*hidden, *hidden_rms));
            }
            Row::Turn { workload, peer, threads, round, us, .. } => {
                entry(&mut results, *threads, workload, peer).rounds.insert(*round, us.clone());
            }
            Row::LeftOut { workload, peer, threads, reason } => {
                let timed = results.entry(*threads).or_default().entry(workload.clone()).or_default();
                timed.left_out.push((peer.clone(), reason.clone()));
            }
            Row::Load { .. } => loads.push(row),
        }
    }
    let mut text = String::new();
    header(&mut text, &processes);
    for (threads, workloads) in results.iter().rev() {
        timings(&mut text, *threads, workloads);
    }
    load_table(&mut text, &loads);
    text
}

fn entry<'a>(results: &'a mut Results, threads: usize, workload: &str, peer: &str) -> &'a mut Timings {
    let timed = results.entry(threads).or_default().entry(workload.into()).or_default();
    timed.peers.entry(peer.into()).or_default()
}

// Writing to a String cannot fail: the results of `writeln!` say nothing.

fn header(text: &mut String, processes: &[&Process]) {
    let mut said = Vec::new();
    for process in processes {
        let versions: Vec<String> =
            process.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let line = format!(
            "{}, {} core(s), {}. {}.",
            process.cpu,
            process.cores,
            process.features.join(" "),
            versions.join(", ")
        );
        if !said.contains(&line) {
            let _ = writeln!(text, "{line}\n");
            said.push(line);
        }
    }
    let busiest = processes.iter().map(|process| process.load_average).fold(0., f64::max);
    let _ = writeln!(text, "Load average when a process started: up to {busiest:.2}.\n");
}

fn timings(text: &mut String, threads: usize, workloads: &BTreeMap<String, Timed>) {
    let _ = writeln!(text, "## {threads} thread(s)\n");
    for (name, timed) in workloads {
        let shape = if timed.shape.is_empty() { String::new() } else { format!(" ({})", timed.shape) };
        let rounds = timed.peers.values().map(|peer| peer.rounds.len()).max().unwrap_or(0);
        let _ = writeln!(text, "- **{name}** {}{shape}: {rounds} rounds", timed.title);
    }
    table(text, "Median, ms (p90)", workloads, |_, timings| {
        let (median, p90) = (timings.median()?, rank(&timings.runs(), 0.9)?);
        Some(format!("{} ({})", ms(median), ms(p90)))
    });
    table(
        text,
        "Times as fast as ONNX Runtime: its faster file, paired by round",
        workloads,
        |timed, timings| {
            let fastest = fastest(timed, ["onnxruntime", "onnxruntime-optimized"])?;
            Some(format!("{:.2}", timings.times_as_fast_as(fastest)?))
        },
    );
    table(
        text,
        "Times as fast as ONNX Runtime on batches of 8 sorted by length",
        workloads,
        |timed, timings| {
            let fastest = fastest(timed, ["onnxruntime-sorted", "onnxruntime-optimized-sorted"])?;
            Some(format!("{:.2}", timings.times_as_fast_as(fastest)?))
        },
    );
    table(text, "Largest distance of `last_hidden_state` to f64, real tokens", workloads, |_, timings| {
        timings.distance.map(|(largest, _)| format!("{largest:.2e}"))
    });
    table(text, "The same, root of the mean square", workloads, |_, timings| {
        timings.distance.map(|(_, rms)| format!("{rms:.2e}"))
    });
    for (name, timed) in workloads {
        for (peer, reason) in &timed.left_out {
            let _ = writeln!(text, "Left out of {name}: {peer}: {reason}\n");
        }
    }
}

fn fastest<'a>(timed: &'a Timed, names: [&str; 2]) -> Option<&'a Timings> {
    let median = |timings: &&Timings| timings.median().unwrap_or(f64::INFINITY);
    names.iter().filter_map(|name| timed.peers.get(*name)).min_by(|a, b| median(a).total_cmp(&median(b)))
}

/// Peers down, workloads across. Rows and columns without a cell are left out.
fn table(
    text: &mut String,
    title: &str,
    workloads: &BTreeMap<String, Timed>,
    cell: impl Fn(&Timed, &Timings) -> Option<String>,
) {
    let cells = |peer: &str| -> Vec<Option<String>> {
        workloads.values().map(|timed| cell(timed, timed.peers.get(peer)?)).collect()
    };
    let lines: Vec<(&str, Vec<Option<String>>)> =
        peers(workloads).into_iter().map(|peer| (peer, cells(peer))).collect();
    let shown: Vec<bool> =
        (0..workloads.len()).map(|column| lines.iter().any(|(_, cells)| cells[column].is_some())).collect();
    if !shown.contains(&true) {
        return;
    }
    let row = |cells: Vec<&str>| {
        let kept = cells.into_iter().zip(&shown).filter(|(_, shown)| **shown).map(|(cell, _)| cell);
        kept.collect::<Vec<_>>().join(" | ")
    };
    let _ = writeln!(text, "\n{title}:\n");
    let _ = writeln!(text, "| | {} |", row(workloads.keys().map(String::as_str).collect()));
    let _ = writeln!(text, "| --- | {} |", row(vec!["---:"; workloads.len()]));
    for (peer, cells) in &lines {
        if cells.iter().any(Option::is_some) {
            let cells = cells.iter().map(|cell| cell.as_deref().unwrap_or("–")).collect();
            let _ = writeln!(text, "| {peer} | {} |", row(cells));
        }
    }
    let _ = writeln!(text);
}

/// The peers there are, in the order of [`ENTRIES`]; others after them.
fn peers(workloads: &BTreeMap<String, Timed>) -> Vec<&str> {
    let place = |name: &str| ENTRIES.iter().position(|entry| entry.name == name).unwrap_or(usize::MAX);
    let mut names: Vec<&str> =
        workloads.values().flat_map(|timed| timed.peers.keys().map(String::as_str)).collect();
    names.sort_by_key(|name| (place(name), *name));
    names.dedup();
    names
}

/// Microseconds as milliseconds, to three digits.
fn ms(us: f64) -> String {
    let ms = us / 1e3;
    let decimals = if ms < 1. {
        3
    } else if ms < 10. {
        2
    } else if ms < 100. {
        1
    } else {
        0
    };
    format!("{ms:.decimals$}")
}

fn load_table(text: &mut String, loads: &[&Row]) {
    if loads.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "## Load and memory\n\nEach in a fresh process, its files in the page cache; 10⁶ bytes. RSS before is the program itself, and part of the others.\n\n\
         | workload | peer | threads | weights, MB | RSS before, MB | RSS loaded, MB | RSS peak, MB | load, ms | first run, ms | warm run, ms |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for row in loads {
        if let Row::Load { workload, peer, threads, load_ms, first_ms, warm_ms, weights_mb, .. } = row
            && let Row::Load { rss_before_mb, rss_loaded_mb, rss_peak_mb, .. } = row
        {
            let _ = writeln!(
                text,
                "| {workload} | {peer} | {threads} | {weights_mb:.0} | {rss_before_mb:.0} | {rss_loaded_mb:.0} | {rss_peak_mb:.0} | {load_ms:.0} | {} | {} |",
                ms(first_ms * 1e3),
                ms(warm_ms * 1e3)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(peer: &str, round: usize, us: &[f64]) -> Row {
        let (workload, peer) = ("W4".into(), peer.into());
        Row::Turn { workload, peer, threads: 2, round, turn: 0, us: us.to_vec() }
    }

    fn workload() -> Row {
        Row::Workload { workload: "W4".into(), title: "MiniLM".into(), rows: 2, width: 8, tokens: 9 }
    }

    fn process() -> Row {
        Row::Process(Process {
            cpu: "some CPU".into(),
            cores: 2,
            features: vec!["avx2".into()],
            threads: 2,
            time: 0,
            load_average: 0.1,
            seed: 1,
            versions: BTreeMap::new(),
        })
    }

    #[test]
    fn ranks() {
        let values: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!((median(&values), rank(&values, 0.9)), (Some(5.), Some(9.)));
        assert_eq!(median(&[3.]), Some(3.));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_are_paired_by_round_with_the_faster_file() {
        // The machine is twice as slow in the second round, for all; the third has one stray run.
        let rows = [
            process(),
            workload(),
            turn("candle", 0, &[4000.]),
            turn("candle", 1, &[8000.]),
            turn("candle", 2, &[4000.]),
            turn("onnxruntime", 0, &[3000.]),
            turn("onnxruntime", 1, &[6000.]),
            turn("onnxruntime", 2, &[3000.]),
            turn("onnxruntime-optimized", 0, &[2000.]),
            turn("onnxruntime-optimized", 1, &[4000.]),
            turn("onnxruntime-optimized", 2, &[2000., 2000., 9000.]),
        ];
        let text = markdown(&rows);
        assert!(text.contains("| candle | 4.00 (8.00) |"), "{text}");
        assert!(text.contains("| candle | 0.50 |"), "{text}");
        assert!(text.contains("| onnxruntime | 0.67 |"), "{text}");
        assert!(text.contains("2×8, 9 of 16 real"), "{text}");
        assert!(!text.contains("sorted"), "{text}");
    }

    #[test]
    fn a_workload_that_was_run_again_replaces_the_one_before() {
        let rows = [
            process(),
            workload(),
            turn("candle", 0, &[1000.]),
            turn("candle", 1, &[1000.]),
            process(),
            workload(),
            turn("candle", 0, &[5000.]),
        ];
        let text = markdown(&rows);
        assert!(text.contains("| candle | 5.00 (5.00) |") && text.contains(": 1 rounds"), "{text}");
    }
}
