//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>, equations 3 and 4),
//! over the last dimension:
//!
//! ```text
//! μ = mean(x)    σ² = mean((x − μ)²)    y = (x − μ) / √(σ² + ε) · weight + bias
//! ```

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::compute_dtype;

/// Layer normalisation in two passes: the mean first, then the mean of the squared deviations from
/// it.
///
/// The one-pass form, mean(x²) − μ², subtracts two nearly equal numbers where the mean is large,
/// and loses the variance. Half-precision tensors are normalised in `f32` and rounded once.
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
        let own = |tensor: &Tensor| tensor.to_dtype(dtype)?.contiguous();
        Ok(Self { weight: own(weight)?, bias: own(bias)?, eps })
    }

    /// The scale, `[size]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The shift, `[size]`.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// Normalises the last dimension of `x`, of any rank and float dtype.
    ///
    /// # Errors
    /// If that dimension has another size, or the dtype is not that of the weights.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.dtype();
        let x = x.to_dtype(compute_dtype(dtype))?;
        // It has no gradient, so a model in training keeps to the formula.
        let tracked = [&x, &self.weight, &self.bias].iter().any(|tensor| tensor.track_op());
        let y = if x.dtype() == DType::F32 && x.device().is_cpu() && !tracked {
            x.contiguous()?.apply_op3_no_bwd(&self.weight, &self.bias, &RowByRow { eps: self.eps })?
        } else {
            self.formula(&x)?
        };
        y.to_dtype(dtype)
    }

    fn formula(&self, x: &Tensor) -> Result<Tensor> {
        let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
        let normalized = centered.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normalized.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// The formula row by row, for `f32` on the CPU: one pass over memory instead of nine. candle-nn
/// has an operator for it, which takes the variance from mean(x²) − μ²; the crate `kernels` has
/// another, but the reference shares no kernel with what it judges.
struct RowByRow {
    eps: f64,
}

impl CustomOp3 for RowByRow {
    fn name(&self) -> &'static str {
        "layer-norm-row-by-row"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let size = x_layout.dims().last().copied().unwrap_or(0);
        for layout in [weight_layout, bias_layout] {
            if layout.dims() != [size] {
                bail!("a layer norm of {:?} has an input of {:?}", layout.dims(), x_layout.dims());
            }
        }
        let (weight, bias) = (values(weight, weight_layout)?, values(bias, bias_layout)?);
        let mut y = values(x, x_layout)?.to_vec();
        y.par_chunks_mut(size.max(1))
            .with_min_len(TASK.div_ceil(size.max(1)))
            .for_each(|row| normalize(row, weight, bias, self.eps));
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }
}

/// Numbers that are worth a task of their own.
const TASK: usize = 16_384;

/// What a contiguous tensor has of its storage.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((begin, end))) => Ok(&data[begin..end]),
        _ => bail!("a layer norm row by row takes contiguous f32"),
    }
}

/// One row. Its mean and its deviation are rounded once: their errors would be in all of it.
fn normalize(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f64) {
    let count = row.len() as f64;
    let mean = (sum(row, |x| x) / count) as f32;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / count;
    let factor = (1. / (variance + eps).sqrt()) as f32;
    for ((x, &weight), &bias) in row.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * factor * weight + bias;
    }
}

/// Σ f(x), by sixteen sums that the CPU adds to side by side.
fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut sums = [0f32; 16];
    let chunks = row.chunks_exact(sums.len());
    let rest = chunks.remainder();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &x)| *sum += f(x));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, &x)| *sum += f(x));
    sums.into_iter().map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// Rows with mean `offset` and deviations of ±1 and ±3 around it, so that μ = offset and σ² = 5
    /// exactly.
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
        // Where the mean is 2¹² in f32 or 2²⁷ in f64, one unit in the last place of x² is 1 and
        // more: mean(x²) − μ² has no correct digit left. The rows themselves are exact, and so are
        // the deviations, so that only the last steps round.
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
            // The results lie below 2, where one unit in the last place is `ulp`; they are rounded
            // once, by half of it.
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
    fn row_by_row_is_the_formula_and_training_keeps_to_that() {
        let tensor = |shape: &[usize], factor: f64| {
            let values = (0..shape.iter().product()).map(|i| ((i as f64 * factor).sin() + 0.3) as f32);
            Tensor::from_vec(values.collect(), shape, &Device::Cpu).unwrap()
        };
        let norm = LayerNorm::new(&tensor(&[37], 0.7), &tensor(&[37], 1.3), 1e-12).unwrap();
        let x = tensor(&[5, 37], 0.37);
        let distance = |a: &Tensor, b: &Tensor| {
            (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        let formula = norm.formula(&x).unwrap();
        // Half a unit in the last place of some steps, on values below 4.
        const ROUNDING: f32 = 4. * f32::EPSILON;
        assert!(distance(&norm.forward(&x).unwrap(), &formula) <= ROUNDING);
        let strided = x.t().unwrap().contiguous().unwrap().t().unwrap();
        assert!(distance(&norm.forward(&strided).unwrap(), &formula) <= ROUNDING);

        let x = candle_core::Var::from_tensor(&x).unwrap();
        let gradients = norm.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().dims(), [5, 37]);
        let error = norm.forward(&tensor(&[5, 36], 1.)).unwrap_err().to_string();
        assert!(error.contains("[37]") && error.contains("[5, 36]"), "{error}");
    }

    #[test]
    fn a_row_without_variance_is_not_a_nan_where_eps_is_not_zero() {
        let one = Tensor::ones(3, DType::F64, &Device::Cpu).unwrap();
        let norm = LayerNorm::new(&one, &one, 1e-12).unwrap();
        let found = norm.forward(&one.unsqueeze(0).unwrap()).unwrap();
        assert_eq!(found.to_vec2::<f64>().unwrap(), [[1., 1., 1.]]);
    }
}
