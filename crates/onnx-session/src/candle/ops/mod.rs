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
pub const OPSETS: RangeInclusive<i64> = 11..=28;

/// Every operator that can be lowered: its ONNX name, how many inputs its rule knows at most, the attributes it knows, and the rule.
#[rustfmt::skip]
pub(crate) const RULES: &[(&str, usize, &[&str], Rule)] = &[
    ("Abs", 1, &[], arithmetic::sign),
    ("Add", 2, &[], arithmetic::arithmetic),
    ("And", 2, &[], arithmetic::logic),
    ("Attention", 7, &["is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision"], attention::attention),
    ("Cast", 1, &["to", "saturate"], cast::cast),
    ("Ceil", 1, &[], arithmetic::float_unary),
    ("Clip", 3, &[], arithmetic::clip),
    ("Concat", usize::MAX, &["axis"], shape::concat),
    ("Constant", 0, &["value", "value_float", "value_floats", "value_int", "value_ints"], cast::constant),
    ("ConstantOfShape", 1, &["value"], shape::constant_of_shape),
    ("Cos", 1, &[], arithmetic::float_unary),
    ("CumSum", 2, &["exclusive", "reverse"], reduce::cum_sum),
    ("Div", 2, &[], arithmetic::div),
    ("Dropout", 3, &["seed"], normalize::dropout),
    ("Equal", 2, &[], arithmetic::compare),
    ("Erf", 1, &[], arithmetic::float_unary),
    ("Exp", 1, &[], arithmetic::float_unary),
    ("Expand", 2, &[], shape::expand),
    ("Flatten", 1, &["axis"], shape::flatten),
    ("Floor", 1, &[], arithmetic::float_unary),
    ("Gather", 2, &["axis"], gather::gather),
    ("Gelu", 1, &["approximate"], normalize::gelu),
    ("Gemm", 3, &["alpha", "beta", "transA", "transB"], linear::gemm),
    ("Greater", 2, &[], arithmetic::compare),
    ("GreaterOrEqual", 2, &[], arithmetic::compare),
    ("Identity", 1, &[], cast::identity),
    ("IsNaN", 1, &[], arithmetic::is_nan),
    ("LayerNormalization", 3, &["axis", "epsilon", "stash_type"], normalize::layer_normalization),
    ("Less", 2, &[], arithmetic::compare),
    ("LessOrEqual", 2, &[], arithmetic::compare),
    ("Log", 1, &[], arithmetic::float_unary),
    ("LogSoftmax", 1, &["axis"], normalize::softmax),
    ("MatMul", 2, &[], linear::mat_mul),
    ("Min", usize::MAX, &[], arithmetic::min),
    ("Mul", 2, &[], arithmetic::arithmetic),
    ("Neg", 1, &[], arithmetic::sign),
    ("Not", 1, &[], arithmetic::not),
    ("Or", 2, &[], arithmetic::logic),
    ("Pow", 2, &[], arithmetic::pow),
    ("Range", 3, &[], shape::range),
    ("Reciprocal", 1, &[], arithmetic::reciprocal),
    ("ReduceL2", 2, &["axes", "keepdims", "noop_with_empty_axes"], reduce::reduce_l2),
    ("ReduceMean", 2, &["axes", "keepdims", "noop_with_empty_axes"], reduce::reduce_mean),
    ("ReduceSum", 2, &["axes", "keepdims", "noop_with_empty_axes"], reduce::reduce_sum),
    ("Relu", 1, &[], arithmetic::relu),
    ("Reshape", 2, &["allowzero"], shape::reshape),
    ("Shape", 1, &["start", "end"], shape::shape),
    ("Sigmoid", 1, &[], arithmetic::float_unary),
    ("Sin", 1, &[], arithmetic::float_unary),
    ("Slice", 5, &[], gather::slice),
    ("Softmax", 1, &["axis"], normalize::softmax),
    ("Split", 2, &["axis", "num_outputs", "split"], gather::split),
    ("Sqrt", 1, &[], arithmetic::float_unary),
    ("Squeeze", 2, &["axes"], shape::squeeze),
    ("Sub", 2, &[], arithmetic::arithmetic),
    ("Tanh", 1, &[], arithmetic::float_unary),
    ("Transpose", 1, &["perm"], linear::transpose),
    ("Unsqueeze", 2, &["axes"], shape::unsqueeze),
    ("Where", 3, &[], arithmetic::select),
    ("Xor", 2, &[], arithmetic::logic),
];

/// How many outputs the rule of an operator knows at most.
pub(crate) fn most_outputs(op: &str) -> usize {
    match op {
        "Split" => usize::MAX,
        "Attention" => 4,
        "LayerNormalization" => 3,
        "Dropout" => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_operator_twice() {
        assert!(RULES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
