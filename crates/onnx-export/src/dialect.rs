//! What an opset has, and what a target can do with it: the differences between the graphs, as
//! data.

use std::ops::RangeInclusive;

use crate::{ExportError, Target};

/// The opsets that graphs can be made for.
pub const OPSETS: RangeInclusive<i64> = 13..=21;

/// Opsets that brought or changed what a BERT is made of: <https://onnx.ai/onnx/operators>.
const LAYER_NORMALIZATION: i64 = 17;
const REDUCE_AXES_AS_INPUT: i64 = 18;
const GELU: i64 = 20;

/// The version of the file format that came with each opset:
/// <https://github.com/onnx/onnx/blob/main/docs/Versioning.md>.
const IR_VERSIONS: [(i64, i64); 4] = [(13, 7), (15, 8), (19, 9), (21, 10)];

/// The version of the file format from which nodes have `metadata_props`.
const NODE_METADATA: i64 = 10;

/// How a graph is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// The version of the file format.
    pub ir_version: i64,
    /// Whether there is an operator for layer normalisation.
    pub layer_normalization: bool,
    /// How a mean over the last axis is written.
    pub mean: Mean,
    /// Whether there is a `Gelu`.
    pub gelu: bool,
    /// Whether `Gelu` takes `approximate`.
    pub gelu_tanh: bool,
    /// Whether nodes carry their tags in `doc_string`, too.
    pub tags_in_doc: bool,
}

/// A mean over the last axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mean {
    /// ReduceMean with its axes as an attribute.
    AxesAttribute,
    /// ReduceMean with its axes as an input.
    AxesInput,
    /// ReduceSum, which has its axes as an input from opset 13 on, and a division.
    Sum,
}

impl Dialect {
    pub fn of(opset: i64, target: Target) -> Result<Self, ExportError> {
        if !OPSETS.contains(&opset) {
            return Err(ExportError::Opset { opset });
        }
        let ir_version = IR_VERSIONS.iter().rev().find(|(first, _)| *first <= opset).map(|&(_, ir)| ir);
        let ir_version = ir_version.ok_or(ExportError::Opset { opset })?;
        let candle = target == Target::CandleOnnx;
        Ok(Self {
            ir_version,
            // candle-onnx has no LayerNormalization.
            layer_normalization: opset >= LAYER_NORMALIZATION && !candle,
            mean: match opset < REDUCE_AXES_AS_INPUT {
                true => Mean::AxesAttribute,
                // candle-onnx does not look at that input, and takes the mean over all axes.
                false if candle => Mean::Sum,
                false => Mean::AxesInput,
            },
            gelu: opset >= GELU,
            // candle-onnx ignores it.
            gelu_tanh: opset >= GELU && !candle,
            tags_in_doc: ir_version < NODE_METADATA || candle,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opset_has_its_file_format() {
        let versions: Vec<i64> =
            OPSETS.map(|opset| Dialect::of(opset, Target::Onnx).unwrap().ir_version).collect();
        assert_eq!(versions, [7, 7, 8, 8, 8, 8, 9, 9, 10]);
    }

    #[test]
    fn an_opset_that_is_not_known_is_named() {
        for opset in [-1, 0, 12, 22, i64::MAX] {
            let error = Dialect::of(opset, Target::Onnx).unwrap_err().to_string();
            assert_eq!(error, format!("a graph cannot be made for opset {opset}; opsets 13 to 21 are known"));
        }
    }

    #[test]
    fn operators_come_with_their_opset_and_not_to_candle() {
        let of = |opset, target| {
            let dialect = Dialect::of(opset, target).unwrap();
            (dialect.layer_normalization, dialect.mean, dialect.gelu, dialect.gelu_tanh)
        };
        assert_eq!(of(16, Target::Onnx), (false, Mean::AxesAttribute, false, false));
        assert_eq!(of(18, Target::Onnx), (true, Mean::AxesInput, false, false));
        assert_eq!(of(20, Target::Onnx), (true, Mean::AxesInput, true, true));
        assert_eq!(of(17, Target::CandleOnnx), (false, Mean::AxesAttribute, false, false));
        assert_eq!(of(20, Target::CandleOnnx), (false, Mean::Sum, true, false));
    }
}
