//! Against f64, over every exponent and densely where it matters.

use crate::{Isa, Kernels, Unary, naive};

const ALL: [Unary; 9] = [
    Unary::Exp,
    Unary::Erf,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Relu,
    Unary::Silu,
    Unary::GeluErf,
    Unary::GeluTanh,
    Unary::GeluQuick,
];

/// eˣ: the promise.
const EXP_ULP: f64 = 1.0;
/// erf, tanh and the sigmoid stay in [−1, 1]: the promise of the issue, which is 1.7 ULP at 1.
const BOUNDED: f64 = 1e-7;
/// The GELUs and SiLU, relative to max(|x|, 1): they are x / (1 + e⁻ʸ), and each of the three steps rounds by half an ULP, 2⁻²⁴.
const GATED: f64 = 3.0 / 16_777_216.0;

/// Distance of neighbouring f32 at x.
fn ulp(x: f64) -> f64 {
    let x = (x.abs() as f32).min(f32::MAX);
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

fn kernels() -> impl Iterator<Item = Kernels> {
    Isa::available().iter().map(|&isa| Kernels::with(isa, crate::Pool::serial().into()).unwrap())
}

/// How far `y` is from f(x), as a share of what is allowed; ∞ if one of them alone is finite.
fn share(function: Unary, x: f32, y: f32) -> f64 {
    let truth = naive::value(function, f64::from(x));
    let rounded = truth as f32;
    if rounded.is_nan() || y.is_nan() {
        return if rounded.is_nan() && y.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if y == rounded {
        return 0.0;
    }
    if y.is_infinite() || rounded.is_infinite() {
        // The largest finite number and ∞ are neighbours.
        let neighbours = y.abs().min(rounded.abs()) == f32::MAX && function == Unary::Exp;
        return if neighbours { 1.0 } else { f64::INFINITY };
    }
    let allowed = match function {
        Unary::Exp => EXP_ULP * ulp(truth),
        Unary::Relu => 0.0,
        Unary::Erf | Unary::Tanh | Unary::Sigmoid => BOUNDED,
        _ => GATED * f64::from(x).abs().max(1.0),
    };
    (f64::from(y) - truth).abs() / allowed
}

fn sweep(inputs: &[f32]) {
    for kernels in kernels() {
        for function in ALL {
            let mut y = inputs.to_vec();
            kernels.unary(function, &mut y);
            let shares = inputs.iter().zip(&y).map(|(&x, &y)| (share(function, x, y), x, y));
            let worst = shares.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            println!("{:>8} {function:?}: {worst:?}", kernels.isa().name());
            assert!(worst.0 <= 1.0, "{function:?} on {:?}: {worst:?}", kernels.isa());
        }
    }
}

#[test]
fn every_exponent() {
    // A prime step over the bit patterns: both signs, every exponent, about 8000 mantissas each, denormals, ∞ and NaN.
    let inputs: Vec<f32> = (0..=u32::MAX).step_by(1021).map(f32::from_bits).collect();
    sweep(&inputs);
}

#[test]
fn densely_where_it_matters() {
    let inputs: Vec<f32> = (-4_000_000..4_000_000).map(|i| i as f32 * (20.0 / 4_000_000.0)).collect();
    sweep(&inputs);
    let inputs: Vec<f32> = (-1_000_000..1_000_000).map(|i| i as f32 * (110.0 / 1_000_000.0)).collect();
    sweep(&inputs);
}

/// All 2³² of them: `cargo test -p kernels --release -- --ignored every_f32`.
#[test]
#[ignore = "minutes"]
fn every_f32() {
    for high in 0..=0xff_u32 {
        let inputs: Vec<f32> = (0..1 << 24).map(|low| f32::from_bits(high << 24 | low)).collect();
        sweep(&inputs);
    }
}

#[test]
fn special_numbers() {
    let x =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45];
    for kernels in kernels() {
        for function in ALL {
            let mut y = x;
            kernels.unary(function, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                assert!(share(function, x, y) <= 1.0, "{function:?}({x}) = {y} on {:?}", kernels.isa());
            }
        }
    }
}

#[test]
fn a_tail_gives_what_a_whole_vector_gives() {
    let inputs: Vec<f32> = (0..100).map(|i| (i as f32 - 50.0) * 0.13).collect();
    for kernels in kernels() {
        for function in ALL {
            let mut whole = inputs.clone();
            kernels.unary(function, &mut whole);
            for len in 0..inputs.len() {
                let mut part = inputs[..len].to_vec();
                kernels.unary(function, &mut part);
                assert_eq!(part, whole[..len]);
            }
        }
    }
}
