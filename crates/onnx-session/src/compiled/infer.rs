//! Dtypes and shapes, as far as operators, constants and the inputs' declarations fix them. What a file says about values in between is not read:
//! nobody has checked it.

use std::ops::Range;

use engine::DType;
use onnx_eval::Operation;
use onnx_graph::shape::{
    self, Cut, Padding, Size, Window, axes, axis, boundary, broadcast, reduced, reduced_axes, volume,
};

use super::dim::{Dim, Int};
use super::ir::{Constant, Fact, Ir, ValueId};

/// What is known of one output.
#[derive(Clone, Default)]
pub struct Known {
    pub dtype: Option<DType>,
    pub shape: Option<Vec<Dim>>,
}

/// The outputs of a node.
pub fn infer(ir: &Ir, operation: &Operation, inputs: &[Option<ValueId>]) -> Vec<Known> {
    let look = Look { ir, operation, inputs };
    let first = || vec![Known { dtype: look.dtype(), shape: look.shape() }];
    match (&*operation.node().domain, &*operation.node().op) {
        ("", "Split") => look.parts().unwrap_or_default(),
        // The further outputs of these are of other shapes.
        ("", _) | ("com.microsoft", "EmbedLayerNormalization" | "SkipLayerNormalization" | "Attention") => {
            first()
        }
        _ if operation.node().outputs.len() == 1 => first(),
        _ => Vec::new(),
    }
}

/// The integers that a value holds, if it is a list of them or one.
pub fn ints(ir: &Ir, value: ValueId) -> Option<Vec<Int>> {
    match &ir.values[value].fact {
        Fact::Const(constant) => Some(constant.ints()?.into_iter().map(Int::Known).collect()),
        Fact::Ints(ints) => Some(ints.clone()),
        _ => None,
    }
}

/// The integers that a value holds, if all are numbers.
pub fn known_ints(ir: &Ir, value: ValueId) -> Option<Vec<i64>> {
    ints(ir, value)?.iter().map(Int::known).collect()
}

pub struct Look<'a> {
    pub ir: &'a Ir,
    pub operation: &'a Operation,
    pub inputs: &'a [Option<ValueId>],
}

impl Look<'_> {
    fn id(&self, index: usize) -> Option<ValueId> {
        self.inputs.get(index).copied().flatten()
    }

    fn of(&self, index: usize) -> Option<&[Dim]> {
        self.ir.shape(self.id(index)?)
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.operation.node().int(name).ok().flatten()
    }

    /// A list that is an attribute in older opsets and an input in later ones. `Some(None)` if it is left out.
    pub fn list(&self, name: &str, index: usize) -> Option<Option<Vec<i64>>> {
        if let Ok(Some(list)) = self.operation.node().ints(name) {
            return Some(Some(list.to_vec()));
        }
        match self.id(index) {
            Some(id) => Some(Some(known_ints(self.ir, id)?)),
            None if self.operation.node().inputs.get(index).is_none_or(String::is_empty) => Some(None),
            None => None,
        }
    }

    fn dtype(&self) -> Option<DType> {
        let node = self.operation.node();
        let first = || self.ir.values[self.id(0)?].dtype;
        match &*node.op {
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(DType::I64),
            "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Not" | "And" | "Or"
            | "Xor" | "IsNaN" | "IsInf" => Some(DType::Bool),
            "Where" => self.ir.values[self.id(1)?].dtype,
            "Cast" => onnx_graph::dtype_of(self.int("to")?),
            "CastLike" => self.ir.values[self.id(1)?].dtype,
            "ConstantOfShape" => match node.tensor("value") {
                Ok(Some(tensor)) => Some(tensor.dtype),
                _ => Some(DType::F32),
            },
            "EmbedLayerNormalization" => self.ir.values[self.id(2)?].dtype,
            "Abs" | "Add" | "Attention" | "Ceil" | "Clip" | "Concat" | "Cos" | "CumSum" | "Div"
            | "Dropout" | "Erf" | "Exp" | "Expand" | "Flatten" | "Gather" | "Gelu" | "Gemm" | "Identity"
            | "LayerNormalization" | "Log" | "MatMul" | "Max" | "Min" | "Mul" | "Neg" | "Pow" | "Range"
            | "ReduceL2" | "ReduceMax" | "ReduceMean" | "ReduceSum" | "Relu" | "Reshape" | "Sigmoid"
            | "Sign" | "Sin" | "Slice" | "Softmax" | "Sqrt" | "Squeeze" | "Sub" | "Tanh" | "Transpose"
            | "Unsqueeze" => first(),
            // Of images.
            "Conv" | "DepthToSpace" | "InstanceNormalization" | "Resize" => first(),
            // Of places.
            "Einsum" | "Floor" | "GatherElements" | "GatherND" | "Reciprocal" | "Tile" => first(),
            // ONNX Runtime's own.
            "BiasGelu"
            | "FastGelu"
            | "FusedGemm"
            | "FusedMatMul"
            | "MultiHeadAttention"
            | "QuickGelu"
            | "SkipLayerNormalization" => first(),
            _ => None,
        }
    }

    /// What a `Split` gives.
    fn parts(&self) -> Option<Vec<Known>> {
        let (source, count) = (self.id(0)?, self.operation.node().outputs.len());
        let dims = self.ir.shape(source)?;
        let along = axis(self.int("axis").unwrap_or(0), dims.len())?;
        let whole = dims[along].known()?;
        let sizes: Vec<usize> = match self.list("split", 1)? {
            Some(given) => given.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?,
            None => shape::split(whole, count),
        };
        if sizes.len() != count || sizes.iter().sum::<usize>() != whole {
            return None;
        }
        let part = |size: usize| {
            let mut shape = dims.to_vec();
            shape[along] = Dim::fixed(size);
            Known { dtype: self.ir.values[source].dtype, shape: Some(shape) }
        };
        Some(sizes.into_iter().map(part).collect())
    }

    /// The shape of a `Conv` whose spatial axes are numbers.
    fn convolved(&self) -> Option<Vec<Dim>> {
        let [images, _, sizes @ ..] = self.of(0)? else { return None };
        let [filters, _, kernel @ ..] = self.of(1)? else { return None };
        let (node, axes) = (self.operation.node(), sizes.len());
        let list = |name: &str, length: usize, default: usize| {
            let Some(given) = node.ints(name).ok()? else { return Some(vec![default; length]) };
            let list: Option<Vec<usize>> = given.iter().map(|&size| usize::try_from(size).ok()).collect();
            list.filter(|list| list.len() == length)
        };
        let (strides, dilations) = (list("strides", axes, 1)?, list("dilations", axes, 1)?);
        let pads = list("pads", 2 * axes, 0)?;
        let auto_pad = node.string("auto_pad").ok()?.unwrap_or("NOTSET");
        let mut shape = vec![images.clone(), filters.clone()];
        for (at, size) in sizes.iter().enumerate() {
            let padding = match auto_pad {
                "NOTSET" => Padding::Given { before: pads[at], after: pads[axes + at] },
                "VALID" => Padding::Given { before: 0, after: 0 },
                "SAME_UPPER" => Padding::SameUpper,
                "SAME_LOWER" => Padding::SameLower,
                _ => return None,
            };
            let kernel = kernel.get(at)?.known()?;
            let window = Window { kernel, dilation: dilations[at], stride: strides[at], padding };
            shape.push(Dim::fixed(window.places(size.known()?)?.count));
        }
        Some(shape)
    }

    fn shape(&self) -> Option<Vec<Dim>> {
        let node = self.operation.node();
        match &*node.op {
            "Range" => {
                let is = |index: usize, number: i64| {
                    let id = self.id(index)?;
                    match self.ir.constant(id)?.float() {
                        Some(float) => Some(float == number as f32),
                        None => Some(known_ints(self.ir, id)? == [number]),
                    }
                };
                let counts = is(0, 0)? && is(2, 1)?;
                let [limit] = &ints(self.ir, self.id(1)?)?[..] else { return None };
                limit.to_size().filter(|_| counts).map(|limit| vec![limit])
            }
            "Abs" | "Cast" | "CastLike" | "Ceil" | "Clip" | "Cos" | "CumSum" | "Dropout" | "Erf" | "Exp"
            | "Floor" | "Gelu" | "Identity" | "LayerNormalization" | "Log" | "Neg" | "Not" | "Reciprocal"
            | "Relu" | "Sigmoid" | "Sign" | "Sin" | "Softmax" | "Sqrt" | "Tanh" | "IsNaN" => {
                Some(self.of(0)?.to_vec())
            }
            "GatherElements" => Some(self.of(1)?.to_vec()),
            // An outer product, and nothing else.
            "Einsum" => match node.string("equation").ok()?? {
                "i,j->ij" => Some(self.of(0)?.iter().chain(self.of(1)?).cloned().collect()),
                _ => None,
            },
            "GatherND" => {
                let (data, indices) = (self.of(0)?, self.of(1)?);
                let (depth, before) = indices.split_last()?;
                let inner = data.get(depth.known()?..)?;
                let is_plain = self.int("batch_dims").unwrap_or(0) == 0;
                is_plain.then(|| before.iter().chain(inner).cloned().collect())
            }
            // ONNX Runtime's own.
            "BiasGelu" | "FastGelu" | "QuickGelu" | "SkipLayerNormalization" => Some(self.of(0)?.to_vec()),
            "Add" | "And" | "Div" | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual"
            | "Max" | "Min" | "Mul" | "Or" | "Pow" | "Sub" | "Where" | "Xor" => {
                let mut shape = self.of(0)?.to_vec();
                for index in 1..self.inputs.len() {
                    shape = broadcast(&shape, self.of(index)?)?;
                }
                Some(shape)
            }
            "Size" => Some(Vec::new()),
            "Shape" => Some(vec![Dim::fixed(shape_part(self.operation, self.of(0)?.len()).len())]),
            "MatMul" | "FusedMatMul" => {
                let flags = ["transA", "transB", "transBatchA", "transBatchB"];
                let is_plain = flags.iter().all(|name| self.int(name).unwrap_or(0) == 0);
                is_plain.then(|| shape::matmul(self.of(0)?, self.of(1)?)).flatten()
            }
            "Gemm" | "FusedGemm" => {
                let (a, b) = (self.of(0)?, self.of(1)?);
                let [rows, columns] = [(a, "transA", 0), (b, "transB", 1)].map(|(dims, name, axis)| {
                    let axis = if self.int(name).unwrap_or(0) != 0 { 1 - axis } else { axis };
                    (dims.len() == 2).then(|| dims[axis].clone())
                });
                Some(vec![rows?, columns?])
            }
            "Transpose" => {
                let dims = self.of(0)?;
                let perm = permutation(self.operation, dims.len())?;
                Some(perm.iter().map(|&axis| dims[axis].clone()).collect())
            }
            // What does not fit is left to fail in a run.
            "Reshape" => {
                let allow_zero = self.int("allowzero").unwrap_or(0) != 0;
                shape::reshape(self.of(0)?, &ints(self.ir, self.id(1)?)?, allow_zero)
            }
            "Unsqueeze" => shape::unsqueeze(self.of(0)?, &self.list("axes", 1)??).ok(),
            "Squeeze" => {
                let dims = self.of(0)?;
                let axes = match self.list("axes", 1)? {
                    Some(given) => axes(&given, dims.len()).ok()?,
                    // Which dimensions are 1 may depend on the run.
                    None if dims.iter().all(|dim| dim.known().is_some()) => {
                        (0..dims.len()).filter(|&a| dims[a].is_one()).collect()
                    }
                    None => return None,
                };
                // An axis of another size is left to fail in a run.
                axes.iter().all(|&a| dims[a].is_one()).then(|| reduced(dims, &axes, false))
            }
            "Flatten" => {
                let dims = self.of(0)?;
                let at = boundary(self.int("axis").unwrap_or(1), dims.len())?;
                Some(vec![volume(&dims[..at])?, volume(&dims[at..])?])
            }
            "Concat" => {
                let parts: Vec<&[Dim]> =
                    (0..self.inputs.len()).map(|index| self.of(index)).collect::<Option<_>>()?;
                shape::concat(&parts, axis(self.int("axis")?, parts.first()?.len())?)
            }
            "Gather" => {
                let (dims, indices) = (self.of(0)?, self.of(1)?);
                Some(shape::gather(dims, axis(self.int("axis").unwrap_or(0), dims.len())?, indices))
            }
            "Expand" => {
                let sizes = ints(self.ir, self.id(1)?)?;
                let sizes: Vec<Dim> = sizes.iter().map(Int::to_size).collect::<Option<_>>()?;
                broadcast(self.of(0)?, &sizes)
            }
            "ConstantOfShape" => ints(self.ir, self.id(0)?)?.iter().map(Int::to_size).collect(),
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceL2" => {
                let (dims, given) = (self.of(0)?, self.list("axes", 1)?.unwrap_or_default());
                let noop = self.int("noop_with_empty_axes").unwrap_or(0) != 0;
                let axes = reduced_axes(&given, noop, dims.len()).ok()?;
                Some(reduced(dims, &axes, self.int("keepdims").unwrap_or(1) != 0))
            }
            "InstanceNormalization" => Some(self.of(0)?.to_vec()),
            "Conv" => self.convolved(),
            "DepthToSpace" => {
                shape::depth_to_space(self.of(0)?, usize::try_from(self.int("blocksize")?).ok()?)
            }
            "Slice" => match slice(self.ir, self.operation, self.inputs) {
                Some(cuts) => Some(cuts.into_iter().map(|cut| cut.count).collect()),
                None => self.strided(),
            },
            "EmbedLayerNormalization" => Some([self.of(0)?, &[self.of(2)?.get(1)?.clone()]].concat()),
            "Attention" if node.domain == "com.microsoft" => {
                let x = self.of(0)?;
                let width = self.of(1)?.get(1)?.known()?;
                let plain = node.ints("qkv_hidden_sizes").ok()?.is_none() && x.len() == 3;
                plain.then(|| vec![x[0].clone(), x[1].clone(), Dim::fixed(width / 3)])
            }
            "Attention" => {
                let (q, v) = (self.of(0)?, self.of(2)?);
                (q.len() == 4 && v.len() == 4)
                    .then(|| vec![q[0].clone(), q[1].clone(), q[2].clone(), v[3].clone()])
            }
            "MultiHeadAttention" => {
                let (q, v) = (self.of(0)?, self.of(2)?);
                (q.len() == 3 && v.len() == 3).then(|| vec![q[0].clone(), q[1].clone(), v[2].clone()])
            }
            _ => None,
        }
    }
}

impl Look<'_> {
    /// What a `Slice` with steps leaves of axes of fixed sizes.
    fn strided(&self) -> Option<Vec<Dim>> {
        let given = |index: usize| known_ints(self.ir, self.id(index)?);
        let mut dims = self.of(0)?.to_vec();
        let (starts, ends, steps) = (given(1)?, given(2)?, given(4)?);
        let axes = axes(&given(3)?, dims.len()).ok()?;
        for (at, axis) in axes.into_iter().enumerate() {
            let size = dims.get(axis)?.known()?;
            let cut = shape::slice(*starts.get(at)?, *ends.get(at)?, *steps.get(at)?, size)?;
            dims[axis] = Dim::fixed(cut.count);
        }
        Some(dims)
    }
}

/// The axes of a `Transpose`.
pub fn permutation(operation: &Operation, rank: usize) -> Option<Vec<usize>> {
    shape::permutation(operation.node().ints("perm").ok()?, rank)
}

/// The part of the shape that a `Shape` gives.
pub fn shape_part(operation: &Operation, rank: usize) -> Range<usize> {
    let int = |name| operation.node().int(name).ok().flatten();
    shape::part(int("start"), int("end"), rank)
}

/// For each axis, where a `Slice` of step 1 starts, and how many it takes.
pub fn slice(ir: &Ir, operation: &Operation, inputs: &[Option<ValueId>]) -> Option<Vec<Cut<Dim>>> {
    let id = |index: usize| inputs.get(index).copied().flatten();
    let dims = ir.shape(id(0)?)?;
    let (starts, ends) = (known_ints(ir, id(1)?)?, ints(ir, id(2)?)?);
    let axes = match id(3) {
        Some(given) => axes(&known_ints(ir, given)?, dims.len()).ok()?,
        None => (0..starts.len()).collect(),
    };
    // Steps other than 1 do not occur; `onnxsim` writes an input 3 only.
    if id(4)
        .is_some_and(|steps| known_ints(ir, steps).is_none_or(|steps| steps.iter().any(|&step| step != 1)))
    {
        return None;
    }
    if operation.node().inputs.len() < 3 || starts.len() != ends.len() || starts.len() != axes.len() {
        return None;
    }
    let mut result: Vec<Cut<Dim>> = dims.iter().map(|dim| Cut { first: 0, count: dim.clone() }).collect();
    for ((&start, end), &axis) in starts.iter().zip(&ends).zip(&axes) {
        result[axis] = cut(dims.get(axis)?, start, end)?;
    }
    Some(result)
}

fn cut(dim: &Dim, start: i64, end: &Int) -> Option<Cut<Dim>> {
    if let (Some(size), Some(end)) = (dim.known(), end.known()) {
        let Cut { first, count } = shape::slice(start, end, 1, size)?;
        return Some(Cut { first, count: Dim::fixed(count) });
    }
    /// An end beyond this means "to the last".
    const TO_THE_LAST: i64 = i32::MAX as i64;
    let count = match end {
        _ if start != 0 => None,
        Int::Known(end) if *end >= TO_THE_LAST => Some(dim),
        Int::Known(_) => None,
        Int::Size(end) if end == dim => Some(dim),
        // As many as an input is long: a guard sees to it that there are so many.
        Int::Size(end) => Some(end).filter(|end| dim.known().is_some() && end.as_symbol().is_some()),
    };
    count.map(|count| Cut { first: 0, count: count.clone() })
}

/// The scalar that a constant is, if all its elements are the same bits.
pub fn splat(constant: &Constant) -> Option<engine::Value> {
    let value = constant.value()?;
    let bytes = value.to_le_bytes();
    let size = value.dtype().size();
    let (first, rest) = bytes.split_at_checked(size)?;
    rest.chunks_exact(size).all(|element| element == first).then_some(())?;
    engine::Value::from_le_bytes(value.dtype(), [], first).ok()
}
