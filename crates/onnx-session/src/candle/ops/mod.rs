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

use super::lower::Rule;

/// Every operator that can be lowered, by its ONNX name.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("Abs", arithmetic::float_unary),
    ("Add", arithmetic::add),
    ("And", arithmetic::logic),
    ("Attention", attention::attention),
    ("Cast", cast::cast),
    ("Ceil", arithmetic::float_unary),
    ("Clip", arithmetic::clip),
    ("Concat", shape::concat),
    ("Constant", cast::constant),
    ("ConstantOfShape", shape::constant_of_shape),
    ("Cos", arithmetic::float_unary),
    ("Div", arithmetic::div),
    ("Dropout", normalize::dropout),
    ("Equal", arithmetic::compare),
    ("Erf", arithmetic::float_unary),
    ("Exp", arithmetic::float_unary),
    ("Expand", shape::expand),
    ("Flatten", shape::flatten),
    ("Floor", arithmetic::float_unary),
    ("Gather", gather::gather),
    ("Gelu", normalize::gelu),
    ("Gemm", linear::gemm),
    ("Greater", arithmetic::compare),
    ("GreaterOrEqual", arithmetic::compare),
    ("Identity", cast::identity),
    ("IsNaN", arithmetic::is_nan),
    ("LayerNormalization", normalize::layer_normalization),
    ("Less", arithmetic::compare),
    ("LessOrEqual", arithmetic::compare),
    ("Log", arithmetic::float_unary),
    ("LogSoftmax", normalize::softmax),
    ("MatMul", linear::mat_mul),
    ("Mul", arithmetic::mul),
    ("Neg", arithmetic::neg),
    ("Not", arithmetic::not),
    ("Or", arithmetic::logic),
    ("Pow", arithmetic::pow),
    ("Range", shape::range),
    ("Reciprocal", arithmetic::reciprocal),
    ("ReduceL2", reduce::reduce_l2),
    ("ReduceMean", reduce::reduce_mean),
    ("ReduceSum", reduce::reduce_sum),
    ("Relu", arithmetic::float_unary),
    ("Reshape", shape::reshape),
    ("Shape", shape::shape),
    ("Sigmoid", arithmetic::float_unary),
    ("Sin", arithmetic::float_unary),
    ("Slice", gather::slice),
    ("Softmax", normalize::softmax),
    ("Split", gather::split),
    ("Sqrt", arithmetic::float_unary),
    ("Squeeze", shape::squeeze),
    ("Sub", arithmetic::sub),
    ("Tanh", arithmetic::float_unary),
    ("Transpose", linear::transpose),
    ("Unsqueeze", shape::unsqueeze),
    ("Where", arithmetic::select),
    ("Xor", arithmetic::logic),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_operator_twice() {
        assert!(RULES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
