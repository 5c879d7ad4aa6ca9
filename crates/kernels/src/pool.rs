//! Threads that share the tasks of one kernel after another.
//!
//! A forward pass is a few dozen kernels of some hundred microseconds, so handing out work must cost about one. The threads of a pool
//! therefore live as long as it does and watch one word of memory for a while before they go to sleep. Who takes which task is left to
//! chance; no kernel's bits depend on it.

mod spread;

use std::{
    any::Any,
    cell::UnsafeCell,
    fmt, hint,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::KernelError;

/// How long an idle thread watches for work before it sleeps: longer than the serial stretches within a forward pass.
const SPIN: Duration = Duration::from_micros(200);

/// Looks at the word between two looks at the clock, and before the CPU is offered to another thread: some microseconds. Where nobody else
/// wants it, that takes a fraction of one. But a thread that was woken may have been put on the very CPU of its caller — a virtual machine
/// does so, whose other CPUs look taken to its kernel while they sleep — and would watch for work that it keeps from being handed out.
const LOOKS: usize = 64;

/// Threads of a pool at most: more than any machine has cores.
const MOST_THREADS: usize = 4096;

/// Work of one call: `(lane, task)`.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Threads to run kernels on: its own, a rayon pool's, or none but the caller's.
///
/// One call has the threads at a time. A call that comes while another runs — from another thread, or from within a task — runs its tasks
/// on its own thread instead of waiting.
pub struct Pool {
    threads: Threads,
}

enum Threads {
    Serial,
    Own(Own),
    Rayon(Arc<rayon::ThreadPool>),
}

impl Pool {
    /// A pool of `threads` threads, the caller of [`Pool::run`] among them: it starts one fewer. 0 counts as 1.
    ///
    /// # Errors
    /// If the system gives no thread, or more than 4096 are asked for.
    pub fn new(threads: usize) -> Result<Self, KernelError> {
        if threads > MOST_THREADS {
            return Err(KernelError::TooManyThreads { asked: threads, most: MOST_THREADS });
        }
        let threads = if threads <= 1 { Threads::Serial } else { Threads::Own(Own::new(threads)?) };
        Ok(Self { threads })
    }

    /// No threads but the caller's.
    pub fn serial() -> Self {
        Self { threads: Threads::Serial }
    }

    /// The threads of a rayon pool, which may do other work meanwhile. Rayon allocates now and then when it is called from outside.
    pub fn on_rayon(pool: Arc<rayon::ThreadPool>) -> Self {
        Self { threads: Threads::Rayon(pool) }
    }

    /// How many tasks run at once at most: the number of lanes of [`Pool::run_on_lanes`].
    pub fn threads(&self) -> usize {
        match &self.threads {
            Threads::Serial => 1,
            Threads::Own(own) => own.handles.len() + 1,
            Threads::Rayon(pool) => pool.current_num_threads().max(1),
        }
    }

    /// Calls `task(0)` … `task(tasks − 1)`, each once, in any order, on any of the threads, and returns when all have ended.
    ///
    /// # Panics
    /// If a task panics, with its payload, after the others that had begun have ended; and if there
    /// are more than `usize::MAX / 2` tasks, of which none is then begun.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.run_on_lanes(tasks, &|_, index| task(index));
    }

    /// As [`Pool::run`], with `task(lane, index)`: no two tasks that run at once have the same lane, and lanes are below
    /// [`Pool::threads`]. So a lane can own a piece of scratch.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn run_on_lanes(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        // The counter of tasks goes beyond their number, by the threads that find none left. It
        // must not begin anew.
        assert!(tasks <= usize::MAX / 2, "{tasks} tasks are more than a pool can count");
        match &self.threads {
            Threads::Own(own) if tasks > 1 => match own.turn.try_lock() {
                Ok(turn) => own.run(tasks, task, turn),
                Err(TryLockError::Poisoned(turn)) => own.run(tasks, task, turn.into_inner()),
                Err(TryLockError::WouldBlock) => (0..tasks).for_each(|index| task(0, index)),
            },
            Threads::Rayon(pool) if tasks > 1 => {
                let next = AtomicUsize::new(0);
                let lane = |lane| {
                    while let Some(index) = take(&next, tasks) {
                        task(lane, index);
                    }
                };
                pool.install(|| fork(0, self.threads().min(tasks), &lane));
            }
            _ => (0..tasks).for_each(|index| task(0, index)),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

fn take(next: &AtomicUsize, tasks: usize) -> Option<usize> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    (index < tasks).then_some(index)
}

/// Runs lanes `first..end` beside each other. `rayon::join` keeps its jobs on the stack, where a scope would box them.
fn fork(first: usize, end: usize, lane: &(dyn Fn(usize) + Sync)) {
    if first + 1 >= end {
        lane(first);
    } else {
        rayon::join(|| lane(first), || fork(first + 1, end, lane));
    }
}

struct Own {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// Held by the call that has the threads.
    turn: Mutex<()>,
}

/// What the threads watch.
///
/// `state` counts calls in its upper half; the lower half holds `CLOSED` and the number of threads that have joined the call. A thread
/// joins by adding one while the call is open, and reads `job` only between that and taking the one away. A call is closed by its caller
/// when no task is left, and ends when none is joined: a thread that wakes late finds it closed and is not waited for.
struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    /// How many threads have begun to serve.
    begun: AtomicUsize,
    sleeping: AtomicUsize,
    /// The CPU of the caller that woke the sleeping ones; [`NOWHERE`] where the system does not tell.
    caller: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    tasks: usize,
}

/// No CPU.
const NOWHERE: usize = usize::MAX;

const CLOSED: u64 = 1 << 31;
const JOINED: u64 = CLOSED - 1;
const CALL: u64 = 1 << 32;

// SAFETY: `job` alone is not Sync. It is written by the holder of `turn` while the call before is closed and nobody is joined, and read by
// threads that have joined an open call; joining acquires what opening released. The pointee is Sync, and outlives the call, since the
// caller returns only when nobody is joined.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is followed only while the caller that borrowed it waits.
unsafe impl Send for Shared {}

impl Own {
    fn new(threads: usize) -> Result<Self, KernelError> {
        let idle: &'static Work<'static> = &|_, _| {};
        let mut own = Self {
            shared: Arc::new(Shared {
                state: AtomicU64::new(CLOSED),
                job: UnsafeCell::new(Job { work: idle, tasks: 0 }),
                next: AtomicUsize::new(0),
                begun: AtomicUsize::new(0),
                sleeping: AtomicUsize::new(0),
                caller: AtomicUsize::new(NOWHERE),
                stop: AtomicBool::new(false),
                panic: Mutex::new(None),
            }),
            handles: Vec::with_capacity(threads - 1),
            turn: Mutex::new(()),
        };
        for lane in 1..threads {
            let shared = Arc::clone(&own.shared);
            let builder = thread::Builder::new().name(format!("kernels-{lane}"));
            // On an error `own` is dropped, which ends the threads that were started.
            own.handles.push(builder.spawn(move || shared.serve(lane))?);
        }
        // The standard library allocates as a thread begins. On a busy machine that may be many calls later, and calls do not allocate.
        while own.shared.begun.load(Ordering::Acquire) < own.handles.len() {
            thread::yield_now();
        }
        Ok(own)
    }

    fn run(&self, tasks: usize, task: &Work<'_>, turn: MutexGuard<'_, ()>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. No thread follows the pointer after this function has seen that none is joined.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(task) };
        // SAFETY: `turn` is held, the call before is closed and nobody is joined, so nobody else reads or writes `job`.
        unsafe { *shared.job.get() = Job { work, tasks } };
        shared.next.store(0, Ordering::Relaxed);
        let call = (shared.state.load(Ordering::Relaxed) & !(CALL - 1)).wrapping_add(CALL);
        // SeqCst here and where a thread goes to sleep: either it sees this call, or we see that it sleeps.
        shared.state.store(call, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            shared.caller.store(spread::cpu().unwrap_or(NOWHERE), Ordering::Relaxed);
            self.wake();
            // One that has landed on this CPU leaves it, but has to be on it for that.
            thread::yield_now();
        }
        shared.work_off(0, Job { work, tasks });
        let mut state = shared.state.fetch_or(CLOSED, Ordering::AcqRel);
        let mut looks = 0;
        while state & JOINED != 0 {
            looks += 1;
            // The thread that is waited for may want this CPU.
            if looks % LOOKS == 0 {
                thread::yield_now()
            } else {
                hint::spin_loop()
            }
            state = shared.state.load(Ordering::Acquire);
        }
        let panicked = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(turn);
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
    }

    fn wake(&self) {
        self.handles.iter().for_each(|handle| handle.thread().unpark());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        for handle in self.handles.drain(..) {
            // A thread catches its tasks' panics, so there is nothing to learn from how it ended.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// Takes tasks until none is left.
    fn work_off(&self, lane: usize, job: Job) {
        // SAFETY: the caller of `run` is still there: it is this thread, or it waits for this thread, which has joined.
        let work = unsafe { &*job.work };
        while let Some(index) = take(&self.next, job.tasks) {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(lane, index))) {
                self.next.store(job.tasks, Ordering::Relaxed);
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
            }
        }
    }

    /// A thread's life.
    fn serve(&self, lane: usize) {
        self.begun.fetch_add(1, Ordering::Release);
        let mut seen = 0;
        while let Some(state) = self.wait(seen) {
            seen = state / CALL;
            if state & CLOSED == 0 && self.join(state) {
                // SAFETY: this thread has joined an open call; see `Shared`.
                let job = unsafe { *self.job.get() };
                self.work_off(lane, job);
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Joins the call unless it has been closed or replaced since.
    fn join(&self, mut state: u64) -> bool {
        let call = state / CALL;
        while state & CLOSED == 0 && state / CALL == call {
            match self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Waits for a call after `seen`: awake for [`SPIN`], then asleep. None when the pool is dropped.
    fn wait(&self, seen: u64) -> Option<u64> {
        let fresh = || {
            let state = self.state.load(Ordering::SeqCst);
            (state / CALL != seen).then_some(state)
        };
        let stopped = || self.stop.load(Ordering::SeqCst);
        let begin = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if let Some(state) = fresh() {
                    return Some(state);
                }
                hint::spin_loop();
            }
            if stopped() {
                return None;
            }
            if begin.elapsed() >= SPIN {
                break;
            }
            thread::yield_now();
        }
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let state = loop {
            if stopped() {
                break None;
            }
            if let Some(state) = fresh() {
                break Some(state);
            }
            thread::park();
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        spread::leave(self.caller.load(Ordering::Relaxed));
        state
    }
}

#[cfg(test)]
mod tests;
