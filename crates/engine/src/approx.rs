//! `approx`'s traits: two values are close if their dtypes and shapes are the same and all elements are close, as `f64`.
//!
//! A NaN is close to nothing, itself included.

use approx::{AbsDiffEq, RelativeEq, UlpsEq};

use crate::Value;

impl Value {
    fn all_close(&self, other: &Self, close: impl Fn(&f64, &f64) -> bool) -> bool {
        self.dtype() == other.dtype()
            && self.shape() == other.shape()
            && self.to_f64().iter().zip(&other.to_f64()).all(|(a, b)| close(a, b))
    }
}

impl AbsDiffEq for Value {
    type Epsilon = f64;

    fn default_epsilon() -> f64 {
        f64::default_epsilon()
    }

    fn abs_diff_eq(&self, other: &Self, epsilon: f64) -> bool {
        self.all_close(other, |a, b| a.abs_diff_eq(b, epsilon))
    }
}

impl RelativeEq for Value {
    fn default_max_relative() -> f64 {
        f64::default_max_relative()
    }

    fn relative_eq(&self, other: &Self, epsilon: f64, max_relative: f64) -> bool {
        self.all_close(other, |a, b| a.relative_eq(b, epsilon, max_relative))
    }
}

impl UlpsEq for Value {
    fn default_max_ulps() -> u32 {
        f64::default_max_ulps()
    }

    /// The units in the last place are those of `f64`.
    fn ulps_eq(&self, other: &Self, epsilon: f64, max_ulps: u32) -> bool {
        self.all_close(other, |a, b| a.ulps_eq(b, epsilon, max_ulps))
    }
}

#[cfg(test)]
mod tests {
    use approx::{assert_abs_diff_eq, assert_abs_diff_ne, assert_relative_eq};

    use super::*;

    #[test]
    fn close_values_are_close() {
        let a = Value::new([2], vec![1f32, 1000.0]).unwrap();
        let b = Value::new([2], vec![1f32 + 5e-7, 1000.0]).unwrap();
        assert_abs_diff_eq!(a, b, epsilon = 1e-6);
        assert_abs_diff_ne!(a, b, epsilon = 1e-7);
        assert_relative_eq!(a, b, max_relative = 1e-6);
    }

    #[test]
    fn shape_dtype_and_nan_are_never_close() {
        let a = Value::new([2], vec![1f32, 1.0]).unwrap();
        assert_abs_diff_ne!(a, Value::new([1, 2], vec![1f32, 1.0]).unwrap(), epsilon = f64::MAX);
        assert_abs_diff_ne!(a, Value::new([2], vec![1f64, 1.0]).unwrap(), epsilon = f64::MAX);
        let nan = Value::scalar(f32::NAN);
        assert_abs_diff_ne!(nan, nan.clone(), epsilon = f64::INFINITY);
    }
}
