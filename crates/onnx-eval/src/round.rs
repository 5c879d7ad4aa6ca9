//! The one place where numbers are rounded.
//!
//! A node's results are computed in f64 or i128 and then brought once to the grid of their dtype. A correctly rounded `+ − × ÷ √` of f32
//! numbers is the same whether computed in f32 or in f64 and rounded, as 53 ≥ 2·24 + 2 (Figueroa, "When is double rounding innocuous?", 1995).

use engine::DType;

/// What `f32` means in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As the graph says: the result of every node is rounded to its dtype.
    F32,
    /// f32 values are f64, never rounded: constants and inputs are widened exactly, a cast to float is a cast to f64. Half-precision
    /// values are still rounded, node by node, as the loss of precision is what such a graph is.
    F64,
    /// Every float is f64, half-precision ones, too, and nothing is rounded anywhere: what a graph of half precision would compute with the weights
    /// that it has, if it did not round between its nodes.
    Exact,
}

impl Precision {
    /// Whether floats of this dtype are left as f64.
    pub(crate) fn keeps(self, dtype: DType) -> bool {
        match self {
            Precision::F32 => dtype == DType::F64,
            Precision::F64 => matches!(dtype, DType::F32 | DType::F64),
            Precision::Exact => dtype.is_float(),
        }
    }

    /// Whether a constant of this dtype can be taken for the number that it is the rounding of: those that this run could not hold exactly, if it
    /// rounded them.
    pub(crate) fn promotes(self, dtype: DType) -> bool {
        dtype != DType::F64 && self.keeps(dtype)
    }

    /// The dtype in which values of a graph's dtype are handed out.
    pub(crate) fn output(self, dtype: DType) -> DType {
        if self != Precision::F32 && dtype.is_float() { DType::F64 } else { dtype }
    }
}

/// The nearest number that the dtype has, ties to even.
pub(crate) fn round(x: f64, dtype: DType, precision: Precision) -> f64 {
    match dtype {
        _ if precision.keeps(dtype) => x,
        DType::F16 => to_grid(x, 11, -14, 65504.0),
        // 2^128 − 2^120
        DType::BF16 => to_grid(x, 8, -126, f64::from_bits(0x47ef_e000_0000_0000)),
        DType::F32 => f64::from(x as f32),
        _ => x,
    }
}

/// Rounds to `digits` binary digits, fewer below 2^`smallest`. Done here, not by way of f32, which would round twice.
fn to_grid(x: f64, digits: i32, smallest: i32, largest: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let step = libm::ldexp(1.0, libm::ilogb(x).max(smallest) - (digits - 1));
    // Both are exact: the step is a power of two.
    let rounded = (x / step).round_ties_even() * step;
    if rounded.abs() > largest { f64::INFINITY.copysign(x) } else { rounded }
}

/// The number modulo 2^width, within the dtype's range.
pub(crate) fn wrap(x: i128, dtype: DType) -> i128 {
    match dtype {
        DType::I8 => i128::from(x as i8),
        DType::I16 => i128::from(x as i16),
        DType::I32 => i128::from(x as i32),
        DType::I64 => i128::from(x as i64),
        DType::U8 => i128::from(x as u8),
        DType::U16 => i128::from(x as u16),
        DType::U32 => i128::from(x as u32),
        DType::U64 => i128::from(x as u64),
        DType::Bool => i128::from(x != 0),
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => x,
    }
}

/// The smallest and largest number of an integer dtype.
pub(crate) fn int_range(dtype: DType) -> (i128, i128) {
    match dtype {
        DType::I8 => (i8::MIN.into(), i8::MAX.into()),
        DType::I16 => (i16::MIN.into(), i16::MAX.into()),
        DType::I32 => (i32::MIN.into(), i32::MAX.into()),
        DType::U8 => (0, u8::MAX.into()),
        DType::U16 => (0, u16::MAX.into()),
        DType::U32 => (0, u32::MAX.into()),
        DType::U64 => (0, u64::MAX.into()),
        DType::Bool => (0, 1),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    /// Every half-precision number, the points in the middle between neighbours, and what lies just beside those.
    #[test]
    fn halves_are_rounded_once_to_the_nearest_even() {
        let f16s: Vec<f64> = (0..0x7c00u16).map(|bits| f16::from_bits(bits).to_f64()).collect();
        let bf16s: Vec<f64> = (0..0x7f80u16).map(|bits| bf16::from_bits(bits).to_f64()).collect();
        for (dtype, numbers) in [(DType::F16, f16s), (DType::BF16, bf16s)] {
            let nearest = |x: f64| round(x, dtype, Precision::F64);
            for (index, pair) in numbers.windows(2).enumerate() {
                let (low, high) = (pair[0], pair[1]);
                let middle = f64::midpoint(low, high);
                assert_eq!(nearest(low), low);
                assert_eq!(nearest(middle), if index % 2 == 0 { low } else { high });
                assert_eq!(nearest(middle.next_down()), low);
                assert_eq!(nearest(-middle.next_up()), -high);
            }
            let largest = numbers[numbers.len() - 1];
            let beyond = largest + (largest - numbers[numbers.len() - 2]) / 2.0;
            assert_eq!(nearest(beyond.next_down()), largest);
            assert_eq!(nearest(beyond), f64::INFINITY);
        }
    }

    #[test]
    fn f64_keeps_what_f32_rounds() {
        assert_eq!(round(0.1, DType::F32, Precision::F64), 0.1);
        assert_eq!(round(0.1, DType::F32, Precision::F32), f64::from(0.1f32));
        assert_eq!(round(0.1, DType::F64, Precision::F32), 0.1);
    }

    #[test]
    fn exact_rounds_nothing_and_f64_still_rounds_halves() {
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            assert_eq!(round(1e9 + 0.1, dtype, Precision::Exact), 1e9 + 0.1);
            assert_eq!(Precision::Exact.output(dtype), DType::F64);
        }
        assert_eq!(round(1e9, DType::F16, Precision::F64), f64::INFINITY);
        assert_eq!(Precision::Exact.output(DType::I64), DType::I64);
        let promoted = |precision: Precision| {
            [DType::F16, DType::F32, DType::F64].map(|dtype| precision.promotes(dtype))
        };
        assert_eq!(promoted(Precision::F32), [false, false, false]);
        assert_eq!(promoted(Precision::F64), [false, true, false]);
        assert_eq!(promoted(Precision::Exact), [true, true, false]);
    }
}
