//! One output, written by many tasks.

use std::marker::PhantomData;

use crate::{Pool, RowsMut};

/// A slice of which tasks write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    data: *mut f32,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a `&mut [f32]` whose parts are handed out by `unsafe` functions, whose callers vouch that no two parts overlap.
unsafe impl Sync for Shared<'_> {}
// SAFETY: as above.
unsafe impl Send for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { data: slice.as_mut_ptr(), slice: PhantomData }
    }

    pub(crate) fn of(rows: &'a mut RowsMut<'_>) -> Self {
        Self { data: rows.as_mut_ptr(), slice: PhantomData }
    }

    /// Where number `begin` is.
    ///
    /// # Safety
    /// `begin` is at most the length of the slice, and what is read and written through it is in no part that another task has.
    pub(crate) unsafe fn at(&self, begin: usize) -> *mut f32 {
        // SAFETY: within the slice, or just behind it.
        unsafe { self.data.add(begin) }
    }

    /// Numbers `begin..begin + len`.
    ///
    /// # Safety
    /// They are within the slice, and in no part that another task has.
    pub(crate) unsafe fn slice(&self, begin: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: within the slice that is borrowed for 'a, and nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(begin), len) }
    }
}

/// Calls `work(begin, end)` on blocks that make up `0..count`, of at least `least` each while there is so much.
pub(crate) fn blocks(pool: &Pool, count: usize, least: usize, work: &(dyn Fn(usize, usize) + Sync)) {
    // Two for each thread, so that one that is kept from working costs half a block and not a whole one.
    let tasks = (count / least.max(1)).clamp(1, 2 * pool.threads());
    pool.run(tasks, &|task| work(cut(count, task, tasks), cut(count, task + 1, tasks)));
}

/// `count · part / parts`: where the first `part` of so many parts end, for a count of any size.
pub(crate) fn cut(count: usize, part: usize, parts: usize) -> usize {
    match count.checked_mul(part) {
        Some(product) => product / parts,
        // At most `count`, as `part` is at most `parts`.
        None => (count as u128 * part as u128 / parts as u128) as usize,
    }
}
