//! softmax(q · kᵀ · scale + bias + mask) · v, per sequence and head.

mod places;

pub use places::{Bias, Meets, Rotary};

use crate::{
    KernelError, Kernels, Rows, RowsMut,
    buffer::LINE,
    elementwise::Scores,
    error::same,
    share::{Shared, cut},
    simd::{Kernel, Simd, dispatch, vector_width},
    tile::{self, MR, NEAR, Operands},
};

/// Which keys a query may see.
#[derive(Clone, Copy, Debug)]
pub enum KeyMask<'a> {
    /// All of its sequence.
    None,
    /// One number per row of `k`, added to that key's scaled scores. It may be any, and a row may
    /// be without a key that is seen: what comes out is what the formula gives in f32, each
    /// operation rounded. (A row of −∞ alone gives NaN.)
    Additive(&'a [f32]),
    /// The first n keys of each sequence: one n per sequence. The rest is skipped, which gives the bits that an additive mask gives whose
    /// exponentials are 0. A sequence of length 0 gives zeros.
    Lengths(&'a [usize]),
}

/// An attention over T rows that belong to several sequences.
///
/// The rows of sequence s are `offsets[s]..offsets[s + 1]`: a padded batch has equal steps, a packed one the real lengths.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Queries, T × (heads · head size).
    pub q: Rows<'a>,
    /// Keys, as `q`.
    pub k: Rows<'a>,
    /// Values, as `q`.
    pub v: Rows<'a>,
    /// Number of heads; head h has the h-th block of columns.
    pub heads: usize,
    /// What q · kᵀ is multiplied by.
    pub scale: f32,
    /// Where the sequences begin, and where the last one ends.
    pub offsets: &'a [usize],
    /// Which keys a query may see.
    pub mask: KeyMask<'a>,
    /// What is added to scaled scores by places.
    pub bias: Option<Bias<'a>>,
    /// How queries and keys are turned first.
    pub rotary: Option<Rotary<'a>>,
}

impl Attention<'_> {
    pub(crate) fn head_size(&self) -> usize {
        self.q.columns() / self.heads.max(1)
    }

    fn check(&self, out: &RowsMut<'_>) -> Result<(), KernelError> {
        let (rows, columns) = (self.q.rows(), self.q.columns());
        if self.heads == 0 || !columns.is_multiple_of(self.heads) {
            return Err(KernelError::Heads { heads: self.heads, columns });
        }
        same("the number of rows of k", self.k.rows(), rows)?;
        same("the number of rows of v", self.v.rows(), rows)?;
        same("the number of rows of out", out.rows(), rows)?;
        same("the number of columns of k", self.k.columns(), columns)?;
        same("the number of columns of v", self.v.columns(), columns)?;
        same("the number of columns of out", out.columns(), columns)?;
        let mut before = 0;
        for (index, &offset) in self.offsets.iter().enumerate() {
            let last = index + 1 == self.offsets.len();
            if offset < before || (index == 0 && offset != 0) || (last && offset != rows) {
                return Err(KernelError::Offsets { index, offset, rows });
            }
            before = offset;
        }
        if self.offsets.is_empty() && rows != 0 {
            return Err(KernelError::Offsets { index: 0, offset: 0, rows });
        }
        match self.mask {
            KeyMask::None => Ok(()),
            KeyMask::Additive(mask) => same("the length of the mask", mask.len(), rows),
            KeyMask::Lengths(lengths) => {
                same("the number of key lengths", lengths.len(), self.sequences())?;
                for (sequence, (&length, ends)) in lengths.iter().zip(self.offsets.windows(2)).enumerate() {
                    let rows = ends[1] - ends[0];
                    if length > rows {
                        return Err(KernelError::KeyLength { sequence, length, rows });
                    }
                }
                Ok(())
            }
        }
    }

    pub(crate) fn sequences(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }
}

/// Vectors across a panel of keys or values.
const PANEL: usize = 2;

/// Queries whose scores are made, normalised and used together, so that they stay in the first-level cache.
const QUERIES: usize = 4 * MR;

/// Queries of a task, where one sequence's heads are too few for all threads.
const TASK_QUERIES: usize = 64;

/// Products below which it is not worth sharing them: some 5 µs.
const ALONE: usize = 1 << 17;

impl Kernels {
    /// `out = softmax(q · kᵀ · scale + bias + mask) · v` for every sequence and head,
    /// T × (heads · head size).
    ///
    /// `scratch` holds at least [`Kernels::attention_scratch`] numbers; what it contains does not matter.
    ///
    /// # Errors
    /// If sizes differ, heads do not divide the columns, offsets do not rise from 0 to T, a bias or
    /// angles do not cover the longest sequence, or the scratch is too short.
    /// Sizes that overflow are among them.
    pub fn attention(
        &self,
        attention: &Attention<'_>,
        scratch: &mut [f32],
        out: &mut RowsMut<'_>,
    ) -> Result<(), KernelError> {
        attention.check(out)?;
        // Either could be of any size, where the other is 0. From here on both are at most the
        // length of a slice.
        if out.rows() == 0 || out.columns() == 0 {
            return Ok(());
        }
        let (sequences, heads, head_size) = (attention.sequences(), attention.heads, attention.head_size());
        let lengths = || attention.offsets.windows(2).map(|ends| ends[1] - ends[0]);
        let longest = lengths().max().unwrap_or(0);
        attention.check_places(longest)?;
        let needed = self.attention_scratch(head_size, longest);
        if scratch.len() < needed {
            let found = scratch.len();
            return Err(KernelError::Size { what: "the length of the scratch", found, expected: needed });
        }
        let threads = self.pool().threads();
        let products = |length: usize| length.saturating_mul(2 * length).saturating_mul(out.columns());
        let products = lengths().map(products).fold(0, usize::saturating_add);
        let alone = threads == 1 || products < ALONE;
        const WHAT: &str = "the tasks of so many sequences and heads";
        let pairs = sequences.checked_mul(heads).ok_or(KernelError::TooLarge { what: WHAT })?;
        let chunks = if alone || pairs >= 2 * threads { 1 } else { longest.div_ceil(TASK_QUERIES).max(1) };
        let tasks = pairs.checked_mul(chunks).ok_or(KernelError::TooLarge { what: WHAT })?;
        let lane_len = lane_scratch(self, head_size, longest).unwrap_or(0);
        let begin = scratch.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let scratch = Shared::new(scratch);
        let out_stride = out.stride();
        let out = Shared::of(out);
        let task = |lane: usize, task: usize| {
            let (sequence, head, chunk) = (task / heads / chunks, task / chunks % heads, task % chunks);
            let (first, end) = (attention.offsets[sequence], attention.offsets[sequence + 1]);
            let queries = |chunk: usize| first + cut(end - first, chunk, chunks);
            let keys = match attention.mask {
                KeyMask::Lengths(lengths) => lengths[sequence],
                _ => end - first,
            };
            // SAFETY: rows and columns are as checked above, no two tasks have the same head and query, nor at once the same lane, whose
            // scratch is long enough for the longest sequence; and the CPU offers `isa`.
            unsafe {
                let head = Head {
                    attention,
                    head,
                    queries: (queries(chunk), queries(chunk + 1)),
                    first,
                    keys,
                    scratch: scratch.at(begin + lane * lane_len),
                    out,
                    out_stride,
                };
                dispatch(self.isa(), head);
            }
        };
        if alone {
            (0..tasks).for_each(|index| task(0, index))
        } else {
            self.pool().run_on_lanes(tasks, &task)
        }
        Ok(())
    }

    /// How many numbers of scratch [`Kernels::attention`] needs for heads of this size and
    /// sequences of up to `longest` rows; `usize::MAX`, which no slice has, where that is beyond
    /// `usize`.
    pub fn attention_scratch(&self, head_size: usize, longest: usize) -> usize {
        lane_scratch(self, head_size, longest)
            .and_then(|lane| lane.checked_mul(self.pool().threads())?.checked_add(LINE))
            .unwrap_or(usize::MAX)
    }
}

/// Keys and values in panels, the scores of some queries, and queries and keys as they are turned,
/// in whole lines; `None` if that is beyond `usize`.
fn lane_scratch(kernels: &Kernels, head_size: usize, longest: usize) -> Option<usize> {
    let width = PANEL * vector_width(kernels.isa());
    let keys = longest.checked_next_multiple_of(width)?;
    let values = head_size.checked_next_multiple_of(width)?;
    let turned = longest.checked_add(QUERIES)?;
    let parts = [(keys, head_size), (values, longest), (QUERIES, keys), (turned, head_size)];
    parts
        .into_iter()
        .try_fold(0usize, |sum, (a, b)| sum.checked_add(a.checked_mul(b)?.checked_next_multiple_of(LINE)?))
}

/// Some queries of one head of one sequence.
struct Head<'a> {
    attention: &'a Attention<'a>,
    head: usize,
    /// First and last row.
    queries: (usize, usize),
    /// First row of the keys, and how many there are.
    first: usize,
    keys: usize,
    scratch: *mut f32,
    out: Shared<'a>,
    out_stride: usize,
}

impl Kernel for Head<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { attention, head, queries, first, keys, scratch, out, out_stride } = self;
        let size = attention.head_size();
        // The head's first column.
        let column = head * size;
        let width = PANEL * S::LANES;
        let wide = keys.next_multiple_of(width);
        // SAFETY: the caller vouches for the instruction set, the rows and columns, and for scratch of `lane_scratch` numbers.
        unsafe {
            let key_panels = scratch;
            let value_panels = key_panels.add((wide * size).next_multiple_of(LINE));
            let scores = value_panels.add((size.next_multiple_of(width) * keys).next_multiple_of(LINE));
            let turned_keys = scores.add((QUERIES * wide).next_multiple_of(LINE));
            let turned_queries = turned_keys.add(keys * size);
            let k = attention.k.as_ptr().wrapping_add(first * attention.k.stride() + column);
            if let Some(rotary) = attention.rotary {
                rotary.turn(k, attention.k.stride(), (0, keys), size, turned_keys);
                pack_keys::<S>(turned_keys, size, keys, size, key_panels);
            } else {
                pack_keys::<S>(k, attention.k.stride(), keys, size, key_panels);
            }
            pack_values::<S>(attention.v, first, keys, column, size, value_panels);
            let mut begin = queries.0;
            while begin < queries.1 {
                let count = QUERIES.min(queries.1 - begin);
                let mut q = attention.q.as_ptr().add(begin * attention.q.stride() + column);
                let mut q_stride = attention.q.stride();
                if let Some(rotary) = attention.rotary {
                    rotary.turn(q, q_stride, (begin - first, count), size, turned_queries);
                    (q, q_stride) = (turned_queries.cast_const(), size);
                }
                for panel in 0..wide / width {
                    let operands = Operands {
                        a: q,
                        a_stride: q_stride,
                        b: key_panels.add(panel * width * size),
                        k: size,
                        c: scores.add(panel * width),
                        c_stride: wide,
                        columns: width,
                        add: false,
                        next: NEAR,
                    };
                    tile::product::<S, PANEL>(count, operands);
                }
                let mut mask = match attention.mask {
                    KeyMask::Additive(mask) => Some(mask.as_ptr().add(first)),
                    _ => None,
                };
                let mut scale = attention.scale;
                if let Some(bias) = attention.bias {
                    let with = if bias.meets == Meets::Least { mask.take() } else { None };
                    for row in 0..count {
                        let at = (head, begin - first + row);
                        bias.apply::<S>(at, scores.add(row * wide), keys, scale, with);
                    }
                    scale = 1.0;
                }
                let mut sums = [0.0; QUERIES];
                for (row, sum) in sums.iter_mut().enumerate().take(count) {
                    let x = scores.add(row * wide);
                    let scores = Scores { x, len: keys, scale, mask };
                    *sum = scores.exponentials::<S>(scores.largest::<S>());
                }
                let c = out.at(begin * out_stride + column);
                for panel in 0..size.div_ceil(width) {
                    let operands = Operands {
                        a: scores,
                        a_stride: wide,
                        b: value_panels.add(panel * width * keys),
                        k: keys,
                        c: c.add(panel * width),
                        c_stride: out_stride,
                        columns: width.min(size - panel * width),
                        add: false,
                        next: NEAR,
                    };
                    tile::product::<S, PANEL>(count, operands);
                }
                // No key at all leaves the sum of nothing, 0.
                for (row, &sum) in sums.iter().enumerate().take(if keys > 0 { count } else { 0 }) {
                    divide::<S>(c.add(row * out_stride), size, sum);
                }
                begin += count;
            }
        }
    }
}

/// Keys as the right-hand side of q · kᵀ: panels of `width` keys, each with a line for every column of the head.
#[inline(always)]
unsafe fn pack_keys<S: Simd>(k: *const f32, stride: usize, keys: usize, size: usize, to: *mut f32) {
    let width = PANEL * S::LANES;
    let mut key = 0;
    while key < keys.next_multiple_of(width) {
        // SAFETY: the caller vouches for the rows, the columns, and room for whole panels.
        unsafe {
            let to = to.add(key / width * width * size + key % width);
            // Behind the last key it is no place at all, and is not followed.
            let from = k.wrapping_add(key.wrapping_mul(stride));
            let mut i = 0;
            if key + S::LANES <= keys {
                while i + S::LANES <= size {
                    S::transpose(from.add(i), stride, to.add(i * width), width);
                    i += S::LANES;
                }
            }
            for lane in 0..S::LANES {
                for i in i..size {
                    *to.add(i * width + lane) =
                        if key + lane < keys { *from.add(lane * stride + i) } else { 0.0 };
                }
            }
        }
        key += S::LANES;
    }
}

/// Values as the right-hand side of weights · v: panels of `width` columns, each with a line for every key.
#[inline(always)]
unsafe fn pack_values<S: Simd>(
    v: Rows<'_>,
    first: usize,
    keys: usize,
    column: usize,
    size: usize,
    to: *mut f32,
) {
    let width = PANEL * S::LANES;
    for panel in 0..size.div_ceil(width) {
        let left = size - panel * width;
        for key in 0..keys {
            // SAFETY: the caller vouches for the rows, the columns, and room for whole panels.
            unsafe {
                let from = v.as_ptr().add((first + key) * v.stride() + column + panel * width);
                let to = to.add((panel * keys + key) * width);
                for j in 0..PANEL {
                    let at = j * S::LANES;
                    let part = if left >= width {
                        S::load(from.add(at))
                    } else {
                        S::load_first(from.add(at), left.saturating_sub(at))
                    };
                    S::store(to.add(at), part);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn divide<S: Simd>(x: *mut f32, len: usize, by: f32) {
    let mut at = 0;
    while at < len {
        // SAFETY: the caller vouches for the instruction set and `len` numbers.
        unsafe {
            let part = S::load_first(x.add(at), len - at);
            S::store_first(x.add(at), S::div(part, S::splat(by)), len - at);
        }
        at += S::LANES;
    }
}

#[cfg(test)]
mod tests;
