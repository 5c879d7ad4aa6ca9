use candle_core::{DType, Device};

use super::*;

const X: [f64; 14] = [-12., -6., -3., -1., -0.5, -0.001, 1e-8, 0.1, 0.75, 1., 2.5, 5., 12., 100.];

/// What each function is at [`X`], computed by mpmath 1.3 with 60 digits and rounded to f64, from
/// other forms of the formulas, which do not cancel: x/2 · erfc(−x/√2), and x · σ(2y) in place of
/// x/2 · (1 + tanh y).
#[rustfmt::skip]
const TABLE: [(Activation, [f64; 14]); 7] = [
    (Activation::Gelu, [
        -2.1317785344932147e-32, -5.9195258702261885e-9, -0.0040496940948902835, -0.15865525393145705, -0.15426876936299344,
        -0.000499601057786089, 5.000000039894228e-9, 0.053982783727702904, 0.5800294857173488, 0.8413447460685429,
        2.4844758366855597, 4.999998566742141, 12., 100.,
    ]),
    (Activation::GeluTanh, [
        -1.635985449353481e-61, -8.439646700762297e-11, -0.003637392081773019, -0.1588080093917233, -0.15428599017485609,
        -0.000499601057786418, 5.000000039894228e-9, 0.053982751045435165, 0.5799605551656203, 0.8411919906082767,
        2.484915733910001, 4.999999770820381, 12., 100.,
    ]),
    (Activation::GeluFast, [
        -1.6359854501903963e-61, -8.439646701519621e-11, -0.003637392081860613, -0.15880800939252307, -0.15428599017516517,
        -0.0004996010577864194, 5.000000039894228e-9, 0.053982751045420926, 0.579960555165041, 0.841191990607477,
        2.4849157339097268, 4.999999770820381, 12., 100.,
    ]),
    (Activation::QuickGelu, [
        -1.6186417835847617e-8, -0.0002203535497873924, -0.018071309707785966, -0.1542042340671787, -0.1496115633936199,
        -0.0004995745001027158, 5.0000000425500004e-9, 0.05424475808361819, 0.5863900575346378, 0.8457957659328212,
        2.46501383495143, 4.998992983732648, 11.999999983813582, 100.,
    ]),
    (Activation::Relu, [0., 0., 0., 0., 0., 0., 1e-8, 0.1, 0.75, 1., 2.5, 5., 12., 100.]),
    (Activation::Silu, [
        -7.373009522657661e-5, -0.014835738939808645, -0.14227761953270035, -0.2689414213699951, -0.18877033439907273,
        -0.0004997500000208334, 5.000000025e-9, 0.052497918747894, 0.5093840243815447, 0.7310585786300049,
        2.310354549946891, 4.966535745378576, 11.999926269904773, 100.,
    ]),
    (Activation::Tanh, [
        -0.9999999999244973, -0.9999877116507956, -0.9950547536867305, -0.7615941559557649, -0.46211715726000974,
        -0.0009999996666668, 1e-8, 0.09966799462495582, 0.6351489523872873, 0.7615941559557649, 0.9866142981514303,
        0.9999092042625951, 0.9999999999244973, 1.,
    ]),
];

/// The distance from the table in units of the last place of x. Not of the result: all but tanh are
/// x times something between 0 and 1, and where that is 1 + tanh or 1 + erf it is right to one unit
/// of the 1 only, in PyTorch as here.
fn worst_ulps(activation: Activation, expected: &[f64], dtype: DType, epsilon: f64) -> f64 {
    let x = Tensor::new(&X, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let found = activation.forward(&x).unwrap();
    assert_eq!(found.dtype(), dtype);
    let found: Vec<f64> = found.to_dtype(DType::F64).unwrap().to_vec1().unwrap();
    let ulps = |((found, expected), x): ((&f64, &f64), &f64)| ((found - expected) / (x * epsilon)).abs();
    found.iter().zip(expected).zip(&X).map(ulps).fold(0., |worst, ulps| {
        assert!(ulps.is_finite());
        f64::max(worst, ulps)
    })
}

#[test]
fn f64_agrees_with_the_table() {
    // A formula of five roundings, each of half a unit; erf, exp and tanh bring up to one of their
    // own.
    const BOUND: f64 = 4.;
    for (activation, expected) in TABLE {
        let worst = worst_ulps(activation, &expected, DType::F64, f64::EPSILON);
        assert!(worst <= BOUND, "{activation:?}: {worst} ULP");
    }
}

#[test]
fn f32_agrees_with_the_table() {
    // As above, and x itself is rounded.
    const BOUND: f64 = 6.;
    for (activation, expected) in TABLE {
        let worst = worst_ulps(activation, &expected, DType::F32, f64::from(f32::EPSILON));
        assert!(worst <= BOUND, "{activation:?}: {worst} ULP");
    }
}

#[test]
fn half_precision_is_computed_in_f32() {
    for (activation, _) in TABLE {
        for dtype in [DType::F16, DType::BF16] {
            let x = Tensor::new(&X, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let wide = activation.forward(&x.to_dtype(DType::F32).unwrap()).unwrap().to_dtype(dtype).unwrap();
            let floats = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(floats(&activation.forward(&x).unwrap()), floats(&wide), "{activation:?} {dtype:?}");
        }
    }
}

#[test]
fn a_nan_stays_a_nan_and_large_numbers_stay_finite() {
    for (activation, _) in TABLE {
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let x = Tensor::new(&[f64::NAN, 30000., -30000.], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let found: Vec<f64> =
                activation.forward(&x).unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
            assert!(found[0].is_nan(), "{activation:?} {dtype:?}");
            assert!(found[1].is_finite() && found[2].is_finite(), "{activation:?} {dtype:?}: {found:?}");
        }
    }
}

#[test]
fn every_name_is_known_and_no_other() {
    let named: Vec<Activation> = Activation::NAMES.iter().map(|name| name.parse().unwrap()).collect();
    let expected = [
        Activation::Gelu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::GeluTanh,
        Activation::GeluTanh,
        Activation::GeluTanh,
        Activation::GeluFast,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Silu,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
    ];
    assert_eq!(named, expected);
    assert!("GELU".parse::<Activation>().is_err());
}
