//! Lowering: every node of a checked graph becomes a few candle-onnx nodes that compute the same, or is refused.
//!
//! One rule per operator, in [`super::ops`]. A rule reads what is known of its inputs ([`ValueType`], and the value itself where
//! it is constant), emits candle-onnx nodes, and says what is known of its outputs. What depends on constants alone is
//! computed on the spot.
//!
//! Two things hold for every value of a lowered graph, and rules may rely on them:
//! * it is contiguous (candle's `index_select`, last-dim softmax and batched matmul refuse or misread views);
//! * an ONNX bool is a `u8` of 0 or 1, and an ONNX int32 an `i64` within int32's range, because candle-onnx has neither.

use std::collections::{HashMap, HashSet};

use candle_core::{Device, Tensor};
use candle_onnx::onnx;
use candle_onnx::onnx::attribute_proto::AttributeType;
use engine::{DType, Value};
use onnx_graph::{Model, Node, shape};

use super::step::{Emitted, Step, evaluate, inputs};
use super::types::ValueType;
use super::{ops, size};
use crate::SessionError;

/// The largest value that is computed at load; more would cost memory that the run may never need.
const MAX_FOLDED: usize = 1 << 24;

/// The longest list that can be a shape. Files declare larger ranks only to do harm.
const MAX_RANK: usize = 64;

/// Why a rule does not apply: the reason, without the node, which the caller knows.
#[derive(Debug)]
pub(crate) struct Refusal(pub String);

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self(reason.into())
    }
}

/// An attribute that is there, but of the wrong type.
impl From<onnx_graph::GraphError> for Refusal {
    fn from(error: onnx_graph::GraphError) -> Self {
        Self(error.to_string())
    }
}

/// A constant that could not be computed.
impl From<candle_core::Error> for Refusal {
    fn from(error: candle_core::Error) -> Self {
        Self(error.to_string())
    }
}

pub(crate) type Rule = fn(&mut Lowering, &Node) -> Result<(), Refusal>;

/// A graph in the making.
pub(crate) struct Lowering {
    /// The version of ONNX's own operators.
    pub opset: i64,
    types: HashMap<String, ValueType>,
    constants: HashMap<String, Tensor>,
    /// The elements of integer lists that are known in part: a target shape put together from a runtime size and constants.
    partial: HashMap<String, Vec<Option<i64>>>,
    /// Values that are 0 or 1, since they were cast from bools.
    flags: HashSet<String>,
    /// What the node at hand has been lowered to so far.
    emitted: Vec<Emitted>,
    /// The name of the node at hand, from which new names are made.
    node: String,
    serial: usize,
    /// All names in use.
    taken: HashSet<String>,
}

/// A lowered graph.
pub(crate) struct Lowered {
    pub steps: Vec<Step>,
    pub constants: HashMap<String, Tensor>,
    /// Values of the inputs that may be left out.
    pub defaults: HashMap<String, Tensor>,
    pub types: HashMap<String, ValueType>,
}

/// Lowers a whole graph.
pub(crate) fn lower(model: &Model) -> Result<Lowered, SessionError> {
    let mut lowering = Lowering {
        opset: model.opset("").unwrap_or_default(),
        types: HashMap::new(),
        constants: HashMap::new(),
        partial: HashMap::new(),
        flags: HashSet::new(),
        emitted: Vec::new(),
        node: String::new(),
        serial: 0,
        taken: model.graph.nodes.iter().flat_map(|node| &node.outputs).cloned().collect(),
    };
    let mut defaults = HashMap::new();
    for spec in &model.graph.inputs {
        lowering.types.insert(spec.name.clone(), ValueType::of_spec(spec));
    }
    for (name, tensor) in &model.graph.initializers {
        let unsupported = |reason| super::unsupported("initializer", name, reason);
        let value = tensor.to_value().map_err(|error| unsupported(error.to_string()))?;
        let tensor = to_lowered(&value).map_err(|error| unsupported(error.to_string()))?;
        // An initializer that is also an input is a default, not a constant: the caller may give another.
        if lowering.types.contains_key(name) {
            defaults.extend(tensor.map(|tensor| (name.clone(), tensor)));
        } else {
            lowering.types.insert(name.clone(), ValueType::known(value.dtype(), value.shape()));
            // candle-onnx has no i8, u16 or u64. A rule that meets such a value refuses by its dtype.
            lowering.constants.extend(tensor.map(|tensor| (name.clone(), tensor)));
        }
    }
    lowering.taken.extend(lowering.types.keys().cloned());
    let mut steps = Vec::new();
    for node in &model.graph.nodes {
        let lowered = match model.function(node) {
            Some(_) => Err("it is a function that the model defines, and none of those is lowered".into()),
            None => lowering.lower_node(node),
        };
        let lowered = lowered.map_err(|Refusal(reason)| {
            let opset = model.opset(&node.domain).unwrap_or_default();
            SessionError::Refused {
                engine: super::NAME,
                node: node.name.clone(),
                op: if node.domain.is_empty() {
                    node.op.clone()
                } else {
                    format!("{}.{}", node.domain, node.op)
                },
                opset,
                reason,
                alternative: known_to_the_oracle(model, node, opset).then_some("oracle"),
            }
        })?;
        steps.extend(lowered);
    }
    Ok(Lowered { steps, constants: lowering.constants, defaults, types: lowering.types })
}

/// Whether the oracle has this operator at this opset. It writes the model's functions out.
fn known_to_the_oracle(model: &Model, node: &Node, opset: i64) -> bool {
    model.function(node).is_some()
        || onnx_eval::operators().iter().any(|operator| {
            operator.name == node.op
                && operator.domain == node.domain
                && (operator.first..=operator.last).contains(&opset)
        })
}

/// A value in the form it takes in a lowered graph, or nothing if candle-onnx has no such dtype.
pub(crate) fn to_lowered(value: &Value) -> candle_core::Result<Option<Tensor>> {
    match value.dtype() {
        DType::I32 => Ok(Some(value.to_tensor(&Device::Cpu)?.to_dtype(candle_core::DType::I64)?)),
        DType::F16 | DType::F32 | DType::F64 | DType::I64 | DType::U8 | DType::U32 | DType::Bool => {
            Ok(Some(value.to_tensor(&Device::Cpu)?))
        }
        _ => Ok(None),
    }
}

impl Lowering {
    fn lower_node(&mut self, node: &Node) -> Result<Option<Step>, Refusal> {
        if !node.domain.is_empty() {
            return Err("candle-onnx knows only ONNX's own operators".into());
        }
        if !ops::OPSETS.contains(&self.opset) {
            return Err(
                format!("the rules are for opsets {} to {}", ops::OPSETS.start(), ops::OPSETS.end()).into()
            );
        }
        let Some((_, most_inputs, attributes, rule)) = ops::RULES.iter().find(|(op, ..)| *op == node.op)
        else {
            return Err("it has no operator of that name that is known to be right".into());
        };
        // An attribute that a rule does not look at could change what the operator means.
        if let Some(name) = node.attributes.keys().find(|name| !attributes.contains(&name.as_str())) {
            return Err(format!("attribute '{name}' is not known").into());
        }
        if node.inputs.len() > *most_inputs {
            return Err(format!("it has {} inputs, and {most_inputs} are known", node.inputs.len()).into());
        }
        let most_outputs = ops::most_outputs(&node.op);
        if node.outputs.len() > most_outputs {
            return Err(format!("it has {} outputs, and {most_outputs} are known", node.outputs.len()).into());
        }
        self.node.clone_from(&node.name);
        self.emitted.clear();
        rule(self, node)?;
        let emitted = std::mem::take(&mut self.emitted);
        if emitted.is_empty() {
            return Ok(None);
        }
        let made: HashSet<&str> =
            emitted.iter().flat_map(|emitted| &emitted.node.output).map(String::as_str).collect();
        let outputs = node.outputs.iter().filter(|name| made.contains(name.as_str())).cloned().collect();
        let inputs = inputs(emitted.iter().map(|emitted| &emitted.node));
        Ok(Some(Step::new(node, emitted, inputs, outputs)))
    }

    /// The input at `index`, or nothing if it was left out.
    pub fn optional<'n>(&self, node: &'n Node, index: usize) -> Option<&'n str> {
        node.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The input at `index`, which the operator cannot do without.
    pub fn input<'n>(&self, node: &'n Node, index: usize) -> Result<&'n str, Refusal> {
        self.optional(node, index).ok_or_else(|| format!("input {index} is missing").into())
    }

    /// The output at `index`, which the operator always has.
    pub fn output<'n>(&self, node: &'n Node, index: usize) -> Result<&'n str, Refusal> {
        match node.outputs.get(index) {
            Some(name) if !name.is_empty() => Ok(name),
            _ => Err(format!("output {index} is missing").into()),
        }
    }

    /// What is known of a value.
    pub fn ty(&self, name: &str) -> Result<&ValueType, Refusal> {
        self.types.get(name).ok_or_else(|| format!("nothing is known of value '{name}'").into())
    }

    pub fn dtype(&self, name: &str) -> Result<DType, Refusal> {
        Ok(self.ty(name)?.dtype)
    }

    pub fn rank(&self, name: &str) -> Result<usize, Refusal> {
        self.ty(name)?
            .rank()
            .ok_or_else(|| format!("the rank of '{name}' is not known before it runs").into())
    }

    /// The value's dtype, if it is a float that candle computes with in full.
    pub fn float(&self, name: &str) -> Result<DType, Refusal> {
        match self.dtype(name)? {
            dtype @ (DType::F32 | DType::F64) => Ok(dtype),
            dtype => Err(format!("'{name}' is {dtype}; it computes in f32 and f64 only").into()),
        }
    }

    /// The tensor of a value that is the same in every run.
    pub fn constant(&self, name: &str) -> Option<&Tensor> {
        self.constants.get(name)
    }

    /// The elements of an integer value that must be the same in every run.
    pub fn constant_ints(&self, name: &str) -> Result<Vec<i64>, Refusal> {
        let tensor = self.constant(name).ok_or_else(|| {
            Refusal(format!("'{name}' is computed when the graph runs; it must be constant"))
        })?;
        Ok(tensor.flatten_all()?.to_vec1::<i64>()?)
    }

    /// A list that is an attribute before opset `since` and the second input from then on; the form of the other opset is refused, since
    /// dropping it would change what the node means.
    pub fn ints_by_opset(&self, node: &Node, name: &str, since: i64) -> Result<Option<Vec<i64>>, Refusal> {
        let (input, attribute) = (self.optional(node, 1), node.ints(name)?);
        if self.opset >= since {
            if attribute.is_some() {
                return Err(format!("'{name}' is an input since opset {since}, and an attribute here").into());
            }
            return input.map(|input| self.constant_ints(input)).transpose();
        }
        if input.is_some() {
            return Err(format!("'{name}' is an attribute before opset {since}, and an input here").into());
        }
        Ok(attribute.map(<[i64]>::to_vec))
    }

    /// The elements of an integer list as far as they are known; nothing if even its length is not.
    pub fn partial_ints(&self, name: &str) -> Option<Vec<Option<i64>>> {
        if let Ok(ints) = self.constant_ints(name) {
            return Some(ints.into_iter().map(Some).collect());
        }
        let length = || self.types.get(name)?.length().filter(|&length| length <= MAX_RANK);
        let unknown = || Some(vec![None; length()?]);
        self.partial.get(name).cloned().or_else(unknown)
    }

    /// Says what is known of an integer list that the graph computes.
    pub fn set_partial_ints(&mut self, name: &str, ints: Vec<Option<i64>>) {
        self.partial.insert(name.into(), ints);
    }

    /// A possibly negative axis of a value as an index.
    pub fn axis(&self, axis: i64, name: &str) -> Result<usize, Refusal> {
        let rank = self.rank(name)?;
        shape::axis(axis, rank)
            .ok_or_else(|| format!("axis {axis} is outside '{name}', which has rank {rank}").into())
    }

    /// Possibly negative axes of a value as indices, in the order given; none may be there twice.
    pub fn axes(&self, given: &[i64], name: &str) -> Result<Vec<usize>, Refusal> {
        let rank = self.rank(name)?;
        shape::axes(given, rank).map_err(|axis| {
            Refusal(format!("axis {axis} is outside '{name}', which has rank {rank}, or given twice"))
        })
    }

    /// Whether a value is 0 or 1, whatever the inputs are.
    pub fn is_flag(&self, name: &str) -> bool {
        self.flags.contains(name)
    }

    /// Says that a value is 0 or 1.
    pub fn mark_flag(&mut self, name: &str) {
        self.flags.insert(name.into());
    }

    /// A name no other value has.
    pub fn fresh(&mut self) -> String {
        loop {
            self.serial += 1;
            let name = format!("{}/{}", self.node, self.serial);
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// A new constant.
    pub fn new_constant(&mut self, value: &Value) -> Result<String, Refusal> {
        let name = self.fresh();
        self.define_constant(&name, value)?;
        Ok(name)
    }

    /// A new constant list of integers.
    pub fn new_ints(&mut self, ints: &[i64]) -> Result<String, Refusal> {
        let value = Value::new([ints.len()], ints).map_err(|error| Refusal(error.to_string()))?;
        self.new_constant(&value)
    }

    /// A new constant scalar of the given float dtype.
    pub fn new_float(&mut self, dtype: DType, x: f64) -> Result<String, Refusal> {
        let value = if dtype == DType::F64 { Value::scalar(x) } else { Value::scalar(x as f32) };
        self.new_constant(&value)
    }

    /// Says that a value of the graph is this constant.
    pub fn define_constant(&mut self, name: &str, value: &Value) -> Result<(), Refusal> {
        let tensor =
            to_lowered(value)?.ok_or_else(|| Refusal(format!("candle-onnx has no {}", value.dtype())))?;
        self.types.insert(name.into(), ValueType::known(value.dtype(), value.shape()));
        self.constants.insert(name.into(), tensor);
        Ok(())
    }

    /// Emits a candle-onnx node, or computes its result at once if it depends on constants alone and is not huge.
    ///
    /// `ty` is what is known of the result; it is named `output`. An input that is left out is "".
    pub fn emit_as(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<onnx::AttributeProto>,
        ty: ValueType,
        output: &str,
    ) -> Result<(), Refusal> {
        let node = onnx::NodeProto {
            name: format!("{}{op}", self.node),
            op_type: op.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            attribute: attributes,
            ..Default::default()
        };
        let sizes = ty.elements().filter(|&elements| elements > size::MAX_ELEMENTS).and(ty.shape.as_ref());
        if let Some(sizes) = sizes {
            return Err(size::too_large(&sizes.iter().flatten().copied().collect::<Vec<_>>()).into());
        }
        let can_outgrow = self.can_outgrow(op, inputs);
        let constants: Option<HashMap<String, Tensor>> = inputs
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| self.constants.get(*name).map(|tensor| (name.to_string(), tensor.clone())))
            .collect();
        if let Some(constants) = constants {
            let counted = if can_outgrow { size::check(&node, &constants)? } else { None };
            if counted.or(ty.elements()).is_none_or(|elements| elements <= MAX_FOLDED) {
                let result = evaluate(vec![node], constants, output)?;
                self.types.insert(output.into(), ValueType::known(ty.dtype, result.dims()));
                self.constants.insert(output.into(), result);
                return Ok(());
            }
        }
        self.types.insert(output.into(), ty);
        self.emitted.push(Emitted { node, can_outgrow });
        Ok(())
    }

    /// Whether a candle-onnx node on these inputs must be looked at before it runs. Broadcasting with scalars, or of a value with itself,
    /// keeps its shape.
    fn can_outgrow(&self, op: &str, inputs: &[&str]) -> bool {
        if !size::broadcasts(op) {
            return size::can_outgrow(op);
        }
        let rank = |name: &str| self.types.get(name).and_then(ValueType::rank);
        let mut shaped = inputs.iter().filter(|name| rank(name) != Some(0));
        let first = shaped.next();
        shaped.any(|name| Some(name) != first)
    }

    /// [`Lowering::emit_as`] under a new name, which is returned.
    pub fn emit(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<onnx::AttributeProto>,
        ty: ValueType,
    ) -> Result<String, Refusal> {
        let output = self.fresh();
        self.emit_as(op, inputs, attributes, ty, &output)?;
        Ok(output)
    }
}

/// An integer attribute of a candle-onnx node.
pub(crate) fn int(name: &str, i: i64) -> onnx::AttributeProto {
    onnx::AttributeProto { name: name.into(), r#type: AttributeType::Int.into(), i, ..Default::default() }
}

/// An integer list attribute of a candle-onnx node.
pub(crate) fn ints(name: &str, ints: impl IntoIterator<Item = i64>) -> onnx::AttributeProto {
    onnx::AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints.into(),
        ints: ints.into_iter().collect(),
        ..Default::default()
    }
}
