//! Memory that begins on a line of the cache.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

/// One line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read by way of a pointer to f32")] [f32; LINE]);

/// Numbers in a line.
pub(crate) const LINE: usize = 16;

/// A slice of f32 that begins on a line of the cache, so that rows whose length is a multiple of 16 do, too: a vector that lies across two
/// lines takes twice as long to load and store.
///
/// ```
/// let mut buffer = kernels::Buffer::default();
/// buffer.resize(384);
/// assert_eq!(buffer.len(), 384);
/// assert_eq!(buffer.as_ptr() as usize % 64, 0);
/// ```
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)], len }
    }

    /// Makes it `len` numbers long. What was there stays, and zeros follow; memory is never given back.
    pub fn resize(&mut self, len: usize) {
        if let Some(added) = self.get_mut(len..) {
            added.fill(0.0);
        }
        self.lines.resize(len.div_ceil(LINE), Line([0.0; LINE]));
        self.len = len;
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is `LINE` f32 and nothing else, and `len` is at most what all lines have.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_stays_and_zeros_follow() {
        let mut buffer = Buffer::zeros(3);
        buffer.copy_from_slice(&[1.0, 2.0, 3.0]);
        buffer.resize(40);
        assert_eq!(buffer[..4], [1.0, 2.0, 3.0, 0.0]);
        assert!(buffer[4..].iter().all(|&x| x == 0.0));
        buffer.fill(7.0);
        buffer.resize(2);
        buffer.resize(20);
        assert_eq!(buffer[..3], [7.0, 7.0, 0.0]);
        assert!(buffer[3..].iter().all(|&x| x == 0.0));
        assert!(Buffer::default().is_empty());
    }
}
