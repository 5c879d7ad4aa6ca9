use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{VarBuilder, VarMap};

use crate::testing::{config, model};
use crate::{BertConfig, BertModel};

const DTYPES: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

fn ids() -> Tensor {
    Tensor::new(&[[1i64, 9, 3, 10, 2], [4, 0, 5, 7, 8]], &Device::Cpu).unwrap()
}

fn mask() -> Tensor {
    Tensor::new(&[[1i64, 1, 0, 1, 0], [0, 0, 1, 1, 1]], &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn hidden(model: &BertModel, ids: &Tensor, mask: Option<&Tensor>, types: Option<&Tensor>) -> Vec<f64> {
    flat(&model.forward(ids, mask, types).unwrap().last_hidden_state)
}

fn message(ids: &Tensor, mask: Option<&Tensor>, types: Option<&Tensor>) -> String {
    model(DType::F32).forward(ids, mask, types).unwrap_err().to_string()
}

#[test]
fn outputs_have_the_models_dtype_and_shape() {
    for dtype in DTYPES {
        let output = model(dtype).forward(&ids(), Some(&mask()), None).unwrap();
        let pooled = output.pooler_output.unwrap();
        assert_eq!((output.last_hidden_state.dtype(), pooled.dtype()), (dtype, dtype));
        assert_eq!((output.last_hidden_state.dims(), pooled.dims()), (&[2, 5, 6][..], &[2, 6][..]));
    }
}

#[test]
fn what_is_left_out_is_ones_and_zeros() {
    let model = model(DType::F64);
    let ones = Tensor::ones((2, 5), DType::I64, &Device::Cpu).unwrap();
    let zeros = ones.zeros_like().unwrap();
    assert_eq!(hidden(&model, &ids(), None, None), hidden(&model, &ids(), Some(&ones), Some(&zeros)));
    // Neither has no effect.
    assert_ne!(hidden(&model, &ids(), None, None), hidden(&model, &ids(), Some(&mask()), None));
    assert_ne!(hidden(&model, &ids(), None, None), hidden(&model, &ids(), None, Some(&ones)));
}

#[test]
fn integers_of_any_dtype_are_taken() {
    let model = model(DType::F64);
    let expected = hidden(&model, &ids(), Some(&mask()), Some(&mask()));
    for dtype in [DType::U8, DType::U32, DType::I16, DType::I32] {
        let (ids, mask) = (ids().to_dtype(dtype).unwrap(), mask().to_dtype(dtype).unwrap());
        assert_eq!(hidden(&model, &ids, Some(&mask), Some(&mask)), expected, "{dtype:?}");
    }
    // A view that is not contiguous is read in its own order.
    let turned = ids().t().unwrap().contiguous().unwrap().t().unwrap();
    assert_eq!(hidden(&model, &turned, Some(&mask()), Some(&mask())), expected);
}

#[test]
fn masked_tokens_do_not_reach_the_others() {
    for dtype in DTYPES {
        let model = model(dtype);
        let other = Tensor::new(&[[1i64, 9, 6, 10, 5], [1, 2, 5, 7, 8]], &Device::Cpu).unwrap();
        let [a, b] =
            [ids(), other].map(|ids| model.forward(&ids, Some(&mask()), None).unwrap().last_hidden_state);
        for (row, position) in [(0, 0), (0, 1), (0, 3), (1, 2), (1, 3), (1, 4)] {
            let at = |tensor: &Tensor| flat(&tensor.i((row, position)).unwrap());
            assert_eq!(at(&a), at(&b), "{dtype:?}, row {row}, position {position}");
        }
        // That they are masked is all that keeps them apart.
        assert_ne!(flat(&a), flat(&b));
    }
}

#[test]
fn a_row_is_computed_alone() {
    // Rows share no arithmetic, but a matrix product of more rows may sum in another order.
    const BOUND: f64 = 1e-13;
    let model = model(DType::F64);
    let both = hidden(&model, &ids(), Some(&mask()), None);
    let alone = hidden(&model, &ids().i(1..).unwrap(), Some(&mask().i(1..).unwrap()), None);
    assert!(both[30..].iter().zip(&alone).all(|(a, b)| (a - b).abs() <= BOUND));
}

#[test]
fn a_row_without_any_token_attends_to_all_equally() {
    for dtype in DTYPES {
        let model = model(dtype);
        let none = Tensor::new(&[[0i64; 5], [1; 5]], &Device::Cpu).unwrap();
        let mut attended = Vec::new();
        let mut value = Vec::new();
        model
            .forward_with_taps(&ids(), Some(&none), None, &mut |module, tensor| {
                match module {
                    "encoder.layer.0.attention.self" => attended = flat(&tensor.i(0)?),
                    "encoder.layer.0.attention.self.value" => value = flat(&tensor.i(0)?),
                    _ => {}
                }
                Ok(())
            })
            .unwrap();
        // Every token is given the mean of the values; half precision rounds it once, to 8 bits in bf16, below 4.
        let bound = match dtype {
            DType::F64 => 1e-14,
            DType::F32 => 1e-6,
            _ => 4. / 256.,
        };
        for (at, found) in attended.iter().enumerate() {
            let mean = (0..5).map(|token| value[token * 6 + at % 6]).sum::<f64>() / 5.;
            assert!((found - mean).abs() <= bound, "{dtype:?}: {found} is not {mean}");
        }
    }
}

#[test]
fn scores_beyond_the_range_of_f16_are_no_nan() {
    // The weights of query and key magnified a thousandfold: scores of some 10⁶.
    let config = config();
    let mut tensors = crate::testing::tensors(&config, true);
    for (name, _, _, bytes) in &mut tensors {
        if name.contains("query") || name.contains("key") {
            let magnify = |x: &[u8]| (f32::from_le_bytes(x.try_into().unwrap()) * 1000.).to_le_bytes();
            *bytes = bytes.chunks_exact(4).flat_map(magnify).collect();
        }
    }
    let checkpoint = crate::testing::checkpoint(&tensors);
    for dtype in [DType::F16, DType::BF16] {
        let model = BertModel::from_checkpoint(&checkpoint, &config, dtype, &Device::Cpu).unwrap().model;
        assert!(hidden(&model, &ids(), Some(&mask()), None).iter().all(|x| x.is_finite()), "{dtype:?}");
    }
}

#[test]
fn taps_change_no_bit_and_come_in_the_order_of_execution() {
    let model = model(DType::F32);
    let mut seen = Vec::new();
    let mut last = None;
    let tapped = model
        .forward_with_taps(&ids(), Some(&mask()), None, &mut |module, tensor| {
            seen.push(module.to_string());
            if module == "encoder" {
                last = Some(flat(tensor));
            }
            Ok(())
        })
        .unwrap();
    let plain = model.forward(&ids(), Some(&mask()), None).unwrap();
    assert_eq!(flat(&plain.last_hidden_state), flat(&tapped.last_hidden_state));
    assert_eq!(flat(&plain.pooler_output.unwrap()), flat(&tapped.pooler_output.unwrap()));
    assert_eq!(last, Some(flat(&plain.last_hidden_state)));
    assert_eq!(seen, model.module_paths());
    assert_eq!(seen.len(), 5 + 4 * 14 + 1 + 2);
}

#[test]
fn a_visitor_ends_the_pass() {
    let mut calls = 0;
    let result = model(DType::F32).forward_with_taps(&ids(), None, None, &mut |module, _| {
        calls += 1;
        if module == "embeddings" { Err(candle_core::Error::Msg("enough".into())) } else { Ok(()) }
    });
    assert_eq!(result.unwrap_err().to_string(), "enough");
    assert_eq!(calls, 5);
}

#[test]
fn inputs_of_the_wrong_form_are_named() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::I64, &Device::Cpu).unwrap();
    assert_eq!(message(&zeros(&[5]), None, None), "input_ids must be [batch, sequence], got shape [5]");
    assert_eq!(message(&zeros(&[]), None, None), "input_ids must be [batch, sequence], got shape []");
    assert_eq!(
        message(&zeros(&[2, 5]), Some(&zeros(&[2, 1, 5])), None),
        "attention_mask must be [batch, sequence], got shape [2, 1, 5]"
    );
    assert_eq!(
        message(&zeros(&[2, 5]), Some(&zeros(&[5, 2])), None),
        "attention_mask has shape [5, 2], but input_ids has [2, 5]; they must agree"
    );
    assert_eq!(
        message(&zeros(&[2, 5]), None, Some(&zeros(&[1, 5]))),
        "token_type_ids has shape [1, 5], but input_ids has [2, 5]; they must agree"
    );
    let floats = zeros(&[2, 5]).to_dtype(DType::F32).unwrap();
    assert_eq!(message(&floats, None, None), "input_ids must be integers, got f32");
    assert_eq!(message(&zeros(&[2, 5]), Some(&floats), None), "attention_mask must be integers, got f32");
    for shape in [[0, 5], [2, 0], [0, 0]] {
        assert_eq!(
            message(&zeros(&shape), None, None),
            format!("input_ids of shape {shape:?} hold no token; give at least one row of one token")
        );
    }
    assert_eq!(
        message(&zeros(&[1, 8]), None, None),
        "the sequence has 8 tokens, but this model has positions for 7; truncate the text"
    );
    assert!(model(DType::F32).forward(&zeros(&[1, 7]), None, None).is_ok());
}

#[test]
fn values_out_of_range_are_named_with_their_place() {
    let matrix = |element: i64| Tensor::new(&[[0i64, 0, 0], [0, 0, element]], &Device::Cpu).unwrap();
    let ids = matrix(0);
    for id in [11, -1, i64::MIN, i64::MAX, 1 << 32] {
        assert_eq!(
            message(&matrix(id), None, None),
            format!(
                "input_ids[1, 2] is {id}, outside the vocabulary of 11 tokens; the tokenizer may belong to another model"
            )
        );
    }
    for found in [3, -1] {
        assert_eq!(
            message(&ids, None, Some(&matrix(found))),
            format!("token_type_ids[1, 2] is {found}, but this model has 3 token type(s), counted from 0")
        );
    }
    for found in [2, -1, -10000] {
        assert_eq!(
            message(&ids, Some(&matrix(found)), None),
            format!("attention_mask[1, 2] is {found}; it must be 1 for a token and 0 for padding")
        );
    }
    assert!(model(DType::F32).forward(&matrix(10), Some(&matrix(1)), Some(&matrix(2))).is_ok());
}

#[test]
fn a_model_of_integers_is_refused() {
    let error = BertModel::load(VarBuilder::zeros(DType::U32, &Device::Cpu), &config()).unwrap_err();
    assert_eq!(error.to_string(), "a model cannot be of dtype u32; take f16, bf16, f32 or f64");
}

#[test]
fn a_contradictory_config_is_refused() {
    let config = BertConfig { num_attention_heads: 4, ..config() };
    let error = BertModel::load(VarBuilder::zeros(DType::F32, &Device::Cpu), &config).unwrap_err();
    assert!(error.to_string().contains("is not divisible by num_attention_heads"), "{error}");
}

#[test]
fn a_fresh_model_can_be_made_from_a_var_map() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
    let model = BertModel::load(vb, &config()).unwrap();
    assert!(!model.has_pooler());
    let norm: Vec<f64> = variables.data().lock().unwrap()["embeddings.LayerNorm.weight"].to_vec1().unwrap();
    assert_eq!(norm, [1.; 6]);
    assert!(hidden(&model, &ids(), None, None).iter().all(|x| x.is_finite()));
}
