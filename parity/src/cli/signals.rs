//! Ctrl-C, and a plain kill: what is in the making is removed, and the process ends as it would
//! have without this.

/// Watches for signals from now on, in a thread of its own.
#[cfg(unix)]
pub fn watch() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;

    let ignored = ignored();
    // One that is ignored, as nohup has it, must stay so. Where nobody can tell, those that are
    // usually not are taken.
    let is_watched = |signal: i32| match ignored {
        Some(ignored) => ignored >> (signal - 1) & 1 == 0,
        None => signal != SIGHUP,
    };
    let watched: Vec<i32> =
        [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| is_watched(signal)).collect();
    // Without it the signals end the process all the same.
    let Ok(mut signals) = Signals::new(watched) else { return };
    let wait = move || {
        for signal in &mut signals {
            engine::remove_unfinished();
            // It does not come back: the shell is to see which signal it was.
            let _ = emulate_default_handler(signal);
        }
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}

/// Nothing to do: there are no such signals.
#[cfg(not(unix))]
pub fn watch() {}

/// The signals that this process was started to ignore, a bit for each from number 1 on.
#[cfg(unix)]
fn ignored() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}
