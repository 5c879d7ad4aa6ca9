//! Two threads on one CPU while another sleeps.
//!
//! A thread that is woken belongs on a CPU with nothing to do. Linux in a virtual machine may not see any: to it, a CPU that the host has put
//! to sleep looks taken. The thread then lands beside the one that woke it, where it takes turns with it until the load is balanced, some
//! milliseconds later: longer than a whole run of a small model. So a woken thread looks where it is, and leaves.

#[cfg(target_os = "linux")]
use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The CPU that this thread is on; `None` where the system does not tell.
pub fn cpu() -> Option<usize> {
    #[cfg(target_os = "linux")]
    return Some(sched_getcpu());
    #[cfg(not(target_os = "linux"))]
    None
}

/// Moves this thread to another CPU if it is on this one and may use others. Where it may run stays as it was.
pub fn leave(taken: usize) {
    if cpu() != Some(taken) {
        return;
    }
    #[cfg(target_os = "linux")]
    if let Ok(allowed) = sched_getaffinity(None) {
        let mut others = allowed;
        others.unset(taken);
        // It moves before the call returns. If it may not, or there is no other CPU, it stays.
        if others.count() > 0 && sched_setaffinity(None, &others).is_ok() {
            let _ = sched_setaffinity(None, &allowed);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn where_a_thread_may_run_stays_as_it_was() {
        let cpus = || {
            let allowed = sched_getaffinity(None).unwrap();
            (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect::<Vec<_>>()
        };
        let before = cpus();
        for &cpu in &before {
            leave(cpu);
            assert_eq!(cpus(), before);
        }
    }
}
