use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Pool, SPIN};

fn pools() -> Vec<Pool> {
    let rayon = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap());
    let mut pools: Vec<Pool> = [1, 2, 3, 8].into_iter().map(|threads| Pool::new(threads).unwrap()).collect();
    pools.push(Pool::on_rayon(rayon));
    pools.push(Pool::serial());
    pools
}

#[test]
fn every_task_runs_once() {
    for pool in pools() {
        for tasks in (0..40).chain([1000]).chain(std::iter::repeat_n(7, 2000)) {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(tasks, &|task| {
                counts[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{tasks} on {pool:?}");
        }
    }
}

#[test]
fn no_two_tasks_share_a_lane_at_once() {
    for pool in pools() {
        let busy: Vec<AtomicUsize> = (0..pool.threads()).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..50 {
            pool.run_on_lanes(50, &|lane, _| {
                assert_eq!(busy[lane].fetch_add(1, Ordering::SeqCst), 0);
                thread::yield_now();
                busy[lane].fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

#[test]
fn threads_wake_after_sleep() {
    let pool = Pool::new(2).unwrap();
    for _ in 0..5 {
        thread::sleep(SPIN * 5);
        // Each of the two tasks waits for the other: it ends only if the sleeper wakes.
        let met = AtomicUsize::new(0);
        pool.run(2, &|_| {
            met.fetch_add(1, Ordering::SeqCst);
            while met.load(Ordering::SeqCst) < 2 {
                thread::sleep(Duration::from_micros(50));
            }
        });
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
    for pool in pools() {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(20, &|task| assert_ne!(task, 11, "eleven"));
        }));
        let payload = result.unwrap_err();
        assert!(payload.downcast_ref::<String>().is_some_and(|message| message.contains("eleven")));
        let count = AtomicUsize::new(0);
        pool.run(20, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 20);
    }
}

#[test]
fn calls_within_calls_and_beside_calls_end() {
    for pool in pools() {
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        pool.run(5, &|_| {
                            pool.run(3, &|_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 4 * 20 * 5 * 3);
    }
}
