//! The reference's formulas, taken apart so that one thing can be changed. They are written here
//! once more: an explanation shares no formula with the reference.

use architecture::Activation;
use candle_core::{D, Result, Tensor};
use half::{bf16, f16};

/// x Wᵀ + b, over the last dimension.
pub(super) fn dense(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    let product = x.reshape(((), inputs))?.matmul(&weight.t()?)?;
    let sum = match bias {
        Some(bias) => product.broadcast_add(bias)?,
        None => product,
    };
    sum.reshape(shape)
}

/// x less its mean over the last dimension, and its variance there.
pub(super) fn centred(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    Ok((centred, variance))
}

/// What a LayerNorm is made of.
#[derive(Clone)]
pub(super) struct Norm {
    pub(super) gain: Tensor,
    pub(super) bias: Tensor,
    pub(super) eps: f64,
}

impl Norm {
    /// (x − μ) / √(σ² + ε) · gain + bias.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (centred, variance) = centred(x)?;
        self.finish(&centred, &(variance + self.eps)?.sqrt()?)
    }

    /// x / deviation · gain + bias.
    pub(super) fn finish(&self, x: &Tensor, deviation: &Tensor) -> Result<Tensor> {
        x.broadcast_div(deviation)?.broadcast_mul(&self.gain)?.broadcast_add(&self.bias)
    }
}

/// eˣ / Σ eˣ over one dimension.
pub(super) fn softmax(x: &Tensor, dim: usize) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(dim)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(dim)?)
}

/// An activation, spelled out.
pub(super) fn activated(function: Activation, x: &Tensor) -> Result<Tensor> {
    let sigmoid = |x: &Tensor| (x.neg()?.exp()? + 1.)?.recip();
    let bent = |inner: Tensor| (x * 0.5)? * (inner + 1.)?;
    let cubic = |factor: f64| (x * factor)? * (x.sqr()? * 0.044715)?.affine(1., 1.)?;
    match function {
        Activation::Gelu => bent((x / std::f64::consts::SQRT_2)?.erf()?),
        Activation::GeluTanh => bent(cubic(std::f64::consts::FRAC_2_PI.sqrt())?.tanh()?),
        Activation::GeluFast => bent(cubic(0.7978845608)?.tanh()?),
        Activation::QuickGelu => x * sigmoid(&(x * 1.702)?)?,
        Activation::Relu => x.maximum(&x.zeros_like()?),
        Activation::Silu => x * sigmoid(x)?,
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
    }
}

/// A grid that a weight may have been brought to.
#[derive(Clone, Copy)]
pub(super) enum Grid {
    F32,
    F16,
    BF16,
    /// Symmetric around 0, 127 steps to the largest |weight| of the tensor.
    Int8,
    /// The same with a scale for each row, which is one output of a dense module.
    Int8Rows,
}

impl Grid {
    pub(super) const HALVES: [(Grid, &'static str); 2] = [(Grid::F16, "f16"), (Grid::BF16, "bf16")];
    pub(super) const ALL: [(Grid, &'static str); 4] = [
        (Grid::F16, "f16"),
        (Grid::BF16, "bf16"),
        (Grid::Int8, "int8"),
        (Grid::Int8Rows, "int8 with a scale for each output"),
    ];

    /// Every element brought to the grid.
    pub(super) fn round(self, x: &Tensor) -> Result<Tensor> {
        let map = |f: &dyn Fn(f64) -> f64| {
            let elements: Vec<f64> = x.flatten_all()?.to_vec1::<f64>()?.into_iter().map(f).collect();
            Tensor::from_vec(elements, x.dims(), x.device())
        };
        let steps = |scale: &Tensor| x.broadcast_div(scale)?.round()?.broadcast_mul(scale);
        match self {
            Grid::F32 => map(&|x| f64::from(x as f32)),
            Grid::F16 => map(&|x| f16::from_f64(x).to_f64()),
            Grid::BF16 => map(&|x| bf16::from_f64(x).to_f64()),
            Grid::Int8 => steps(&(x.abs()?.flatten_all()?.max(0)? / 127.)?),
            Grid::Int8Rows => steps(&(x.abs()?.max_keepdim(D::Minus1)? / 127.)?),
        }
    }
}
