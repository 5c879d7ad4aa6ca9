//! What the machine says of itself.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::rows::Process;
use crate::runtimes::onnxruntime;

const FEATURES: [&str; 6] = ["avx2", "fma", "avx512f", "avx512vl", "avx512_vnni", "amx_tile"];

/// Packages whose versions, as locked, stand in the results.
const PACKAGES: [&str; 7] =
    ["candle-core", "candle-onnx", "candle-transformers", "gemm", "ort", "rten", "tract-onnx"];

const LOCK: &str = include_str!("../Cargo.lock");

/// This process.
pub fn process(threads: usize, seed: u64) -> anyhow::Result<Process> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map_or("unknown", |(_, value)| value.trim())
    };
    let flags: Vec<&str> = field("flags").split(' ').collect();
    let average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut versions = locked_versions();
    versions.insert(
        "onnxruntime".into(),
        onnxruntime::version().unwrap_or_else(|error| format!("not there: {error}")),
    );
    Ok(Process {
        cpu: format!("{}, family {} model {}", field("model name"), field("cpu family"), field("model")),
        cores: std::thread::available_parallelism()?.get(),
        features: FEATURES.into_iter().filter(|name| flags.contains(name)).map(str::to_owned).collect(),
        threads,
        time: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        load_average: average.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(f64::NAN),
        seed,
        versions,
    })
}

fn locked_versions() -> BTreeMap<String, String> {
    let quoted = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let lines: Vec<&str> = LOCK.lines().collect();
    lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("name = ") && pair[1].starts_with("version = "))
        .map(|pair| (quoted(pair[0]), quoted(pair[1])))
        .filter(|(name, _)| PACKAGES.contains(&name.as_str()))
        .collect()
}

/// Memory of this process, in 10⁶ bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub resident_mb: f64,
    /// The most that was resident.
    pub peak_mb: f64,
}

impl Memory {
    /// From /proc/self/status.
    pub fn now() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| {
                    line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
                })
                .map(|kibibytes| kibibytes * 1024. / 1e6)
                .with_context(|| format!("/proc/self/status has no {name}"))
        };
        Ok(Self { resident_mb: field("VmRSS:")?, peak_mb: field("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let versions = locked_versions();
        assert_eq!(versions.keys().map(String::as_str).collect::<Vec<_>>(), PACKAGES);
        assert!(versions["candle-onnx"].starts_with("0.11"));
    }
}
