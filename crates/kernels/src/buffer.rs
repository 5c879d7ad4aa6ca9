//! Memory that begins on a line of the cache, and lies in large pages where there is much of it.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use memmap2::MmapMut;

use crate::KernelError;

/// One line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read by way of a pointer to f32")] [f32; LINE]);

/// Numbers in a line.
pub(crate) const LINE: usize = 16;

/// From so many bytes on the system is asked for large pages, of which the least is as large on x86-64 and on most others.
///
/// A short text's run reads every weight once, and looks up a page for every few lines of it: on a Zen 3 that is 7 % of the time of a matrix
/// product of 16 rows on one thread, and 2 % on two.
const LARGE: usize = 2 << 20;

/// A slice of f32 that begins on a line of the cache, so that rows whose length is a multiple of 16 do, too: a vector that lies across two
/// lines takes twice as long to load and store.
///
/// ```
/// let mut buffer = kernels::Buffer::default();
/// buffer.grow(384)?;
/// assert_eq!(buffer.len(), 384);
/// assert_eq!(buffer.as_ptr() as usize % 64, 0);
/// # Ok::<(), kernels::KernelError>(())
/// ```
#[derive(Default)]
pub struct Buffer {
    memory: Memory,
    len: usize,
}

enum Memory {
    Lines(Vec<Line>),
    /// Zeros, until they are written to.
    Pages(MmapMut),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

impl Memory {
    /// Memory for at least `len` zeros.
    fn zeros(len: usize) -> Result<Self, KernelError> {
        let error = KernelError::TooLarge { what: "a buffer" };
        let Some(bytes) = len.checked_mul(size_of::<f32>()).filter(|&bytes| bytes <= isize::MAX as usize)
        else {
            return Err(error);
        };
        if bytes >= LARGE
            && let Ok(pages) = MmapMut::map_anon(bytes)
        {
            // Where the system has no large pages to give, small ones do.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Ok(Self::Pages(pages));
        }
        let (mut lines, count) = (Vec::new(), len.div_ceil(LINE));
        if lines.try_reserve_exact(count).is_err() {
            return Err(error);
        }
        lines.resize(count, Line([0.0; LINE]));
        Ok(Self::Lines(lines))
    }

    fn as_ptr(&self) -> *const f32 {
        match self {
            Self::Lines(lines) => lines.as_ptr().cast(),
            Self::Pages(pages) => pages.as_ptr().cast(),
        }
    }

    fn as_mut_ptr(&mut self) -> *mut f32 {
        match self {
            Self::Lines(lines) => lines.as_mut_ptr().cast(),
            Self::Pages(pages) => pages.as_mut_ptr().cast(),
        }
    }
}

impl Buffer {
    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn zeros(len: usize) -> Result<Self, KernelError> {
        Ok(Self { memory: Memory::zeros(len)?, len })
    }

    /// Makes it at least `len` numbers long; what was there stays, and zeros follow.
    ///
    /// # Errors
    /// If there is no memory for it. The buffer is then as it was.
    pub fn grow(&mut self, len: usize) -> Result<(), KernelError> {
        if len > self.len {
            let before = std::mem::replace(self, Self::zeros(len)?);
            self[..before.len].copy_from_slice(&before);
        }
        Ok(())
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the memory was made for at least `len` f32, and is theirs as long as it is borrowed; both kinds are aligned for them, and of
        // both every bit has a value.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr(), self.len) }
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
        for (less, more) in [(3, 40), (3, LARGE), (LARGE, 2 * LARGE)] {
            let mut buffer = Buffer::zeros(less).unwrap();
            buffer.fill(1.0);
            buffer.grow(more).unwrap();
            assert_eq!(buffer.as_ptr() as usize % 64, 0);
            assert_eq!(buffer.len(), more);
            assert!(buffer[..less].iter().all(|&x| x == 1.0));
            assert!(buffer[less..].iter().all(|&x| x == 0.0));
            buffer.grow(1).unwrap();
            assert_eq!(buffer.len(), more);
        }
        assert!(Buffer::default().is_empty());
    }
}
