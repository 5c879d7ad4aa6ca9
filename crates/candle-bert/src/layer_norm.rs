//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>, equations 3 and 4), over the last dimension:
//!
//! ```text
//! μ = mean(x)    σ² = mean((x − μ)²)    y = (x − μ) / √(σ² + ε) · weight + bias
//! ```

use candle_core::{D, Result, Tensor};
use candle_nn::{Init, VarBuilder};

use crate::compute_dtype;

/// Layer normalisation in two passes: the mean first, then the mean of the squared deviations from it.
///
/// The one-pass form, mean(x²) − μ², subtracts two nearly equal numbers where the mean is large, and loses the
/// variance. Half-precision tensors are normalised in `f32` and rounded once.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// A layer norm with the given scale and shift, both `[size]`.
    ///
    /// # Errors
    /// If a half-precision tensor cannot be widened.
    pub fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        let dtype = compute_dtype(weight.dtype());
        Ok(Self { weight: weight.to_dtype(dtype)?, bias: bias.to_dtype(dtype)?, eps })
    }

    /// Reads `weight` and `bias`, or `gamma` and `beta`, as they are called in checkpoints that were converted from TensorFlow.
    ///
    /// # Errors
    /// If they are missing, or not of shape `[size]`.
    pub fn load(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let read = |name, legacy, init| {
            let name = if !vb.contains_tensor(name) && vb.contains_tensor(legacy) { legacy } else { name };
            vb.get_with_hints(size, name, init)
        };
        let weight = read("weight", "gamma", Init::Const(1.))?;
        let bias = read("bias", "beta", Init::Const(0.))?;
        Self::new(&weight, &bias, eps)
    }

    /// Normalises the last dimension of `x`, of any rank and float dtype.
    ///
    /// # Errors
    /// If that dimension has another size, or the dtype is not that of the weights.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.dtype();
        let x = x.to_dtype(compute_dtype(dtype))?;
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let normalized = centered.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normalized.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?.to_dtype(dtype)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// Rows with mean `offset` and deviations of ±1 and ±3 around it, so that μ = offset and σ² = 5 exactly.
    fn rows(offset: f64, dtype: DType) -> Tensor {
        let row: Vec<f64> = [-1., 1., -3., 3.].iter().cycle().take(64).map(|x| x + offset).collect();
        Tensor::from_vec([row.clone(), row].concat(), (2, 64), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn identity(dtype: DType) -> LayerNorm {
        let weight = Tensor::ones(64, dtype, &Device::Cpu).unwrap();
        let bias = Tensor::zeros(64, dtype, &Device::Cpu).unwrap();
        LayerNorm::new(&weight, &bias, 0.).unwrap()
    }

    fn worst(found: &Tensor) -> f64 {
        let found = found.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let expected = [-1., 1., -3., 3.].into_iter().cycle().map(|x| x / 5f64.sqrt());
        let distances: Vec<f64> = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).collect();
        assert!(distances.iter().all(|distance| distance.is_finite()));
        distances.into_iter().fold(0., f64::max)
    }

    #[test]
    fn a_large_mean_does_not_swallow_the_variance() {
        // Where the mean is 2¹² in f32 or 2²⁷ in f64, one unit in the last place of x² is 1 and more: mean(x²) − μ² has
        // no correct digit left. The rows themselves are exact, and so are the deviations, so that only the last steps
        // round.
        for (dtype, offset, bound) in
            [(DType::F32, 4096., 4. * f64::from(f32::EPSILON)), (DType::F64, 134217728., 4. * f64::EPSILON)]
        {
            let found = identity(dtype).forward(&rows(offset, dtype)).unwrap();
            assert!(worst(&found) <= bound, "{dtype:?}: {:e}", worst(&found));
        }
    }

    #[test]
    fn half_precision_is_normalised_in_f32() {
        // A sum of 64 squares near 256² overflows f16, and loses all in bf16.
        for (dtype, ulp) in [(DType::F16, 1. / 1024.), (DType::BF16, 1. / 128.)] {
            let offset = if dtype == DType::F16 { 256. } else { 16. };
            let found = identity(dtype).forward(&rows(offset, dtype)).unwrap();
            assert_eq!(found.dtype(), dtype);
            // The results lie below 2, where one unit in the last place is `ulp`; they are rounded once, by half of it.
            assert!(worst(&found) <= ulp / 2. + 1e-6, "{dtype:?}: {:e}", worst(&found));
        }
    }

    #[test]
    fn weight_bias_and_eps_have_their_place() {
        let tensor = |data: &[f64]| Tensor::new(data, &Device::Cpu).unwrap();
        let norm = LayerNorm::new(&tensor(&[2., 3.]), &tensor(&[10., 20.]), 3.).unwrap();
        // Mean 5, deviations ±1, variance 1, and √(1 + 3) = 2.
        let found = norm.forward(&tensor(&[4., 6.]).unsqueeze(0).unwrap()).unwrap();
        assert_eq!(found.to_vec2::<f64>().unwrap(), [[10. - 2. / 2., 20. + 3. / 2.]]);
    }

    #[test]
    fn a_row_without_variance_is_not_a_nan_where_eps_is_not_zero() {
        let one = Tensor::ones(3, DType::F64, &Device::Cpu).unwrap();
        let norm = LayerNorm::new(&one, &one, 1e-12).unwrap();
        let found = norm.forward(&one.unsqueeze(0).unwrap()).unwrap();
        assert_eq!(found.to_vec2::<f64>().unwrap(), [[1., 1., 1.]]);
    }
}
