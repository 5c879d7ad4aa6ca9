//! One rule per operator. An operator that is not in the table is refused, also where candle-onnx has it: what is here has been
//! read in candle-onnx 0.11.1's source and is held by a test.

mod arithmetic;
mod attention;
mod cast;
mod gather;
mod linear;
mod normalize;
mod reduce;
mod shape;

use std::ops::RangeInclusive;

use super::lower::Rule;

/// The versions of ONNX's operators that the rules were written for: before 11 many operators took other inputs, and what comes after
/// is not known yet.
pub(crate) const OPSETS: RangeInclusive<i64> = 11..=28;

/// Every operator that can be lowered: its ONNX name, the attributes that its rule knows, and the rule.
#[rustfmt::skip]
pub(crate) const RULES: &[(&str, &[&str], Rule)] = &[
    ("Abs", &[], arithmetic::float_unary),
    ("Add", &[], arithmetic::add),
    ("And", &[], arithmetic::logic),
    ("Attention", &["is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision"], attention::attention),
    ("Cast", &["to", "saturate"], cast::cast),
    ("Ceil", &[], arithmetic::float_unary),
    ("Clip", &[], arithmetic::clip),
    ("Concat", &["axis"], shape::concat),
    ("Constant", &["value", "value_float", "value_floats", "value_int", "value_ints"], cast::constant),
    ("ConstantOfShape", &["value"], shape::constant_of_shape),
    ("Cos", &[], arithmetic::float_unary),
    ("Div", &[], arithmetic::div),
    ("Dropout", &["seed"], normalize::dropout),
    ("Equal", &[], arithmetic::compare),
    ("Erf", &[], arithmetic::float_unary),
    ("Exp", &[], arithmetic::float_unary),
    ("Expand", &[], shape::expand),
    ("Flatten", &["axis"], shape::flatten),
    ("Floor", &[], arithmetic::float_unary),
    ("Gather", &["axis"], gather::gather),
    ("Gelu", &["approximate"], normalize::gelu),
    ("Gemm", &["alpha", "beta", "transA", "transB"], linear::gemm),
    ("Greater", &[], arithmetic::compare),
    ("GreaterOrEqual", &[], arithmetic::compare),
    ("Identity", &[], cast::identity),
    ("IsNaN", &[], arithmetic::is_nan),
    ("LayerNormalization", &["axis", "epsilon", "stash_type"], normalize::layer_normalization),
    ("Less", &[], arithmetic::compare),
    ("LessOrEqual", &[], arithmetic::compare),
    ("Log", &[], arithmetic::float_unary),
    ("LogSoftmax", &["axis"], normalize::softmax),
    ("MatMul", &[], linear::mat_mul),
    ("Mul", &[], arithmetic::mul),
    ("Neg", &[], arithmetic::neg),
    ("Not", &[], arithmetic::not),
    ("Or", &[], arithmetic::logic),
    ("Pow", &[], arithmetic::pow),
    ("Range", &[], shape::range),
    ("Reciprocal", &[], arithmetic::reciprocal),
    ("ReduceL2", &["axes", "keepdims", "noop_with_empty_axes"], reduce::reduce_l2),
    ("ReduceMean", &["axes", "keepdims", "noop_with_empty_axes"], reduce::reduce_mean),
    ("ReduceSum", &["axes", "keepdims", "noop_with_empty_axes"], reduce::reduce_sum),
    ("Relu", &[], arithmetic::float_unary),
    ("Reshape", &["allowzero"], shape::reshape),
    ("Shape", &["start", "end"], shape::shape),
    ("Sigmoid", &[], arithmetic::float_unary),
    ("Sin", &[], arithmetic::float_unary),
    ("Slice", &[], gather::slice),
    ("Softmax", &["axis"], normalize::softmax),
    ("Split", &["axis", "num_outputs", "split"], gather::split),
    ("Sqrt", &[], arithmetic::float_unary),
    ("Squeeze", &["axes"], shape::squeeze),
    ("Sub", &[], arithmetic::sub),
    ("Tanh", &[], arithmetic::float_unary),
    ("Transpose", &["perm"], linear::transpose),
    ("Unsqueeze", &["axes"], shape::unsqueeze),
    ("Where", &[], arithmetic::select),
    ("Xor", &[], arithmetic::logic),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_operator_twice() {
        assert!(RULES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
