use candle_core::Device;

use super::*;

/// last_hidden_state [2, 3, 2] in f64.
fn states() -> Tensor {
    let data = [[[1., 2.], [3., 5.], [f64::NAN, 1e300]], [[-1., 0.], [4., 8.], [6., 1.]]];
    Tensor::new(&data, &Device::Cpu).unwrap()
}

fn mask<const N: usize>(rows: [[i64; 3]; N]) -> Tensor {
    Tensor::new(&rows, &Device::Cpu).unwrap()
}

fn pooled(pooling: Pooling, states: &Tensor) -> Result<Vec<Vec<f64>>, PipelineError> {
    let pooled = pooling.pool(states, &mask([[1, 1, 0], [1, 1, 1]]), None)?;
    assert_eq!(pooled.dtype(), states.dtype());
    Ok(pooled.to_dtype(DType::F64)?.to_vec2()?)
}

#[test]
fn the_mean_is_that_of_the_real_tokens() {
    // (1+3)/2, (2+5)/2; (-1+4+6)/3, (0+8+1)/3. The NaN at the padded position is not looked at.
    let expected = [[2., 3.5], [3., 3.]];
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        assert_eq!(pooled(Pooling::Mean, &states().to_dtype(dtype).unwrap()).unwrap(), expected);
    }
}

#[test]
fn any_mask_will_do() {
    // Padded on the left, with a hole, as u8.
    let states = states().narrow(0, 1, 1).unwrap();
    for (row, expected) in [([0u8, 1, 1], [5., 4.5]), ([1, 0, 1], [2.5, 0.5]), ([0, 0, 1], [6., 1.])] {
        let mask = Tensor::new(&[row], &Device::Cpu).unwrap();
        for dtype in [DType::U8, DType::I64, DType::F32] {
            let mask = mask.to_dtype(dtype).unwrap();
            let mean = Pooling::Mean.pool(&states, &mask, None).unwrap();
            assert_eq!(mean.to_vec2::<f64>().unwrap(), [expected]);
        }
    }
}

#[test]
fn a_row_without_real_tokens_has_no_mean() {
    let error = Pooling::Mean.pool(&states(), &mask([[1, 0, 0], [0, 0, 0]]), None).unwrap_err();
    assert!(matches!(error, PipelineError::NoRealToken { row: 1 }));
}

#[test]
fn half_precision_is_summed_in_f32() {
    // In f16, 2048 + 1 is 2048: adding the ones one by one would lose them all.
    let mut column = vec![1f32; 1025];
    column[0] = 2048.;
    let states = Tensor::from_vec(column, (1, 1025, 1), &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
    let mask = Tensor::ones((1, 1025), DType::I64, &Device::Cpu).unwrap();
    let mean = Pooling::Mean.pool(&states, &mask, None).unwrap().to_dtype(DType::F32).unwrap();
    // 3072 / 1025 = 2.99707…, whose nearest f16 is 2.998046875 (its neighbour below is 2.99609375).
    assert_eq!(mean.to_vec2::<f32>().unwrap(), [[2.998_046_9]]);
}

#[test]
fn cls_is_the_first_real_token() {
    assert_eq!(pooled(Pooling::Cls, &states()).unwrap(), [[1., 2.], [-1., 0.]]);
    let padded_left = Pooling::Cls.pool(&states(), &mask([[0, 1, 0], [0, 0, 1]]), None).unwrap();
    assert_eq!(padded_left.to_vec2::<f64>().unwrap(), [[3., 5.], [6., 1.]]);
    let empty = Tensor::zeros((2, 0, 2), DType::F32, &Device::Cpu).unwrap();
    let mask = Tensor::zeros((2, 0), DType::I64, &Device::Cpu).unwrap();
    assert!(matches!(Pooling::Cls.pool(&empty, &mask, None), Err(PipelineError::Shape { .. })));
}

#[test]
fn the_other_poolings_by_hand() {
    let states = Tensor::new(&[[[1f64, -2.], [5., -6.], [99., f64::NAN]]], &Device::Cpu).unwrap();
    let mask = mask([[1, 1, 0]]);
    let pooled = |pooling: Pooling| pooling.pool(&states, &mask, None).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(pooled(Pooling::Max), [[5., -2.]]);
    assert_eq!(pooled(Pooling::LastToken), [[5., -6.]]);
    assert_eq!(pooled(Pooling::MeanSqrtLenTokens), [[6. / 2f64.sqrt(), -8. / 2f64.sqrt()]]);
    assert_eq!(pooled(Pooling::WeightedMean), [[(1. + 2. * 5.) / 3., (-2. - 2. * 6.) / 3.]]);
    let none = Tensor::zeros((1, 3), DType::I64, &Device::Cpu).unwrap();
    for pooling in [Pooling::Max, Pooling::LastToken, Pooling::MeanSqrtLenTokens, Pooling::WeightedMean] {
        assert!(matches!(pooling.pool(&states, &none, None), Err(PipelineError::NoRealToken { row: 0 })));
    }
}

#[test]
fn the_pooler_must_be_there() {
    let all = mask([[1; 3]; 2]);
    let output = Tensor::new(&[[0.5f64, 1.], [0., -1.]], &Device::Cpu).unwrap();
    let pooled = Pooling::Pooler.pool(&states(), &all, Some(&output)).unwrap();
    assert_eq!(pooled.to_vec2::<f64>().unwrap(), [[0.5, 1.], [0., -1.]]);
    assert!(matches!(Pooling::Pooler.pool(&states(), &all, None), Err(PipelineError::NoPoolerOutput)));
    let error = Pooling::Pooler.pool(&states(), &all, Some(&output.t().unwrap().narrow(0, 0, 1).unwrap()));
    assert_eq!(error.unwrap_err().to_string(), "pooler_output must be [2, 2], found [1, 2]");
}

#[test]
fn shapes_and_dtypes_must_fit() {
    let message =
        |states: &Tensor, mask: &Tensor| Pooling::Mean.pool(states, mask, None).unwrap_err().to_string();
    let (states, all) = (states(), mask([[1; 3]; 2]));
    assert_eq!(message(&states, &all.t().unwrap()), "attention_mask must be [2, 3], found [3, 2]");
    assert_eq!(
        message(&states.flatten(0, 1).unwrap(), &all),
        "last_hidden_state must be [batch, sequence, hidden], found [6, 2]"
    );
    assert_eq!(
        message(&states.to_dtype(DType::I64).unwrap(), &all),
        "last_hidden_state must be of floats, found I64"
    );
}

#[test]
fn normalised_vectors_have_length_one() {
    let vectors = [[3f64, 4.], [0., 0.], [-5., 12.], [3e-13, 4e-13]];
    let vectors = Tensor::new(&vectors, &Device::Cpu).unwrap();
    // The last is shorter than 1e-12, by which it is divided instead: PyTorch gives 0.3, 0.4 too.
    let expected = [[3. / 5., 4. / 5.], [0., 0.], [-5. / 13., 12. / 13.], [3e-13 / 1e-12, 4e-13 / 1e-12]];
    assert_eq!(normalize(&vectors).unwrap().to_vec2::<f64>().unwrap(), expected);

    let single = vectors.narrow(0, 0, 2).unwrap().to_dtype(DType::F32).unwrap();
    assert_eq!(normalize(&single).unwrap().to_vec2::<f32>().unwrap(), [[0.6, 0.8], [0., 0.]]);
    let half = normalize(&single.to_dtype(DType::F16).unwrap()).unwrap();
    assert_eq!(half.dtype(), DType::F16);
    let half = half.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(half, [[0.600_097_66, 0.799_804_7], [0., 0.]]);
    let nan = Tensor::new(&[f32::NAN, 1.], &Device::Cpu).unwrap();
    assert!(normalize(&nan).unwrap().to_vec1::<f32>().unwrap().iter().all(|x| x.is_nan()));
    assert!(normalize(&mask([[1; 3]; 2])).is_err());
}
