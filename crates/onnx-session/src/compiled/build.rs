//! From a checked model to the graph that passes work on: constants folded, shapes and facts found.

use std::collections::HashMap;

use engine::{DType, Dim as SpecDim, ValueSpec};
use onnx_eval::{Limits, Operation, OracleError};
use onnx_graph::Model;
use onnx_graph::shape::Size;

use super::dim::{Dim, Symbol};
use super::facts::fact;
use super::infer::{Known, infer};
use super::ir::{Constant, Fact, Info, Ir, Node, ValueId};
use super::ops::Op;

/// What folding may take, for one node and for all that comes of it: more than the weights of a BERT-large, and little enough for a hostile graph to
/// end in an error. What is not folded is computed in each run.
const FOLD: usize = 4 << 30;

/// Makes the graph of a model's operations, for the values of these names. Inputs that have a default are taken for the constants that they are
/// by default.
pub fn build(model: &Model, operations: &[Operation], outputs: &[&str]) -> Result<Ir, OracleError> {
    let mut builder =
        Builder { ir: Ir::default(), names: HashMap::new(), symbols: HashMap::new(), folded: 0 };
    for spec in model.graph.inputs.iter().filter(|spec| !model.graph.initializers.contains_key(&spec.name)) {
        builder.input(spec);
    }
    for (name, tensor) in &model.graph.initializers {
        let id = builder.ir.add_constant(name.clone(), Constant::Stored(tensor.clone()));
        builder.names.insert(name.clone(), id);
    }
    for operation in operations {
        builder.operation(operation);
    }
    let Builder { mut ir, names, symbols, .. } = builder;
    ir.symbols = symbols.len();
    ir.outputs = outputs.iter().filter_map(|name| names.get(*name).copied()).collect();
    ir.settle();
    Ok(ir)
}

struct Builder {
    ir: Ir,
    names: HashMap<String, ValueId>,
    symbols: HashMap<String, Symbol>,
    /// The bytes of all constants that were computed.
    folded: usize,
}

impl Builder {
    fn input(&mut self, spec: &ValueSpec) {
        let shape = spec.shape.as_ref().map(|dims| {
            let dim = |(axis, dim): (usize, &SpecDim)| match dim {
                SpecDim::Fixed(size) => Dim::fixed(*size),
                SpecDim::Symbol(name) => Dim::symbol(self.symbol(name.clone())),
                // Inputs that name no dimensions are taken to agree. A run looks, and goes the general way where they do not.
                SpecDim::Any => Dim::symbol(self.symbol(format!("?{axis} of {}", dims.len()))),
            };
            dims.iter().enumerate().map(dim).collect()
        });
        let (dtype, fact) = (Some(spec.dtype), Fact::Unknown);
        let info = Info { name: spec.name.clone(), dtype, shape, fact, is_sized: false };
        let id = self.ir.add_value(info);
        self.ir.values[id].fact = super::facts::input(&self.ir, id);
        self.ir.inputs.push(id);
        self.names.insert(spec.name.clone(), id);
    }

    /// Whether a node depends on the inputs' sizes alone.
    fn is_sized(&self, operation: &Operation, inputs: &[Option<ValueId>]) -> bool {
        let of_sizes = |(input, name): (&Option<ValueId>, &String)| match input {
            Some(id) => self.ir.is_sized(*id),
            None => name.is_empty(),
        };
        !operation.has_branches() && inputs.iter().zip(&operation.node().inputs).all(of_sizes)
    }

    fn symbol(&mut self, name: String) -> Symbol {
        let next = self.symbols.len();
        *self.symbols.entry(name).or_insert(next)
    }

    fn operation(&mut self, operation: &Operation) {
        let node = operation.node();
        let inputs: Vec<Option<ValueId>> =
            node.inputs.iter().map(|name| self.names.get(name).copied()).collect();
        if let Some(results) = self.folded(operation, &inputs) {
            for (name, constant) in node.outputs.iter().zip(results) {
                if let Some(constant) = constant {
                    let id = self.ir.add_constant(name.clone(), constant);
                    self.names.insert(name.clone(), id);
                }
            }
            return;
        }
        let known = infer(&self.ir, operation, &inputs);
        let is_sized = self.is_sized(operation, &inputs);
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for (index, name) in node.outputs.iter().enumerate() {
            if name.is_empty() {
                outputs.push(None);
                continue;
            }
            let Known { dtype, shape } = known.get(index).cloned().unwrap_or_default();
            let (name, fact) = (name.clone(), Fact::Unknown);
            let id = self.ir.add_value(Info { name: name.clone(), dtype, shape, fact, is_sized });
            self.names.insert(name, id);
            outputs.push(Some(id));
        }
        if let [Some(output)] = outputs[..] {
            let fact = fact(&mut self.ir, operation, &inputs, output);
            if let Fact::Const(constant) = &fact {
                let shape = constant.shape().iter().map(|&dim| Dim::fixed(dim)).collect();
                self.ir.values[output].shape = Some(shape);
                self.ir.values[output].dtype = Some(constant.dtype());
                self.ir.values[output].fact = fact;
                return;
            }
            // Sizes are known of the inputs alone, whatever has the shape that they are read off.
            let is_list = self.ir.values[output].dtype == Some(DType::I64);
            if let (Fact::Ints(sizes), true) = (&fact, is_list) {
                let (op, label) = (Op::Sizes(sizes.clone()), node.name.clone());
                self.ir.values[output].is_sized = true;
                self.ir.values[output].fact = fact;
                self.ir.add_node(Node { op, label, inputs: Vec::new(), outputs });
                return;
            }
            self.ir.values[output].fact = fact;
        }
        let (op, label) = (Op::Onnx(operation.clone()), node.name.clone());
        self.ir.add_node(Node { op, label, inputs, outputs });
    }

    /// What a node gives that depends on constants alone. One that fails is left to fail in a run, where its error belongs.
    fn folded(&mut self, operation: &Operation, inputs: &[Option<ValueId>]) -> Option<Vec<Option<Constant>>> {
        if operation.has_branches() {
            return None;
        }
        let node = operation.node();
        if node.op == "Constant"
            && node.domain.is_empty()
            && node.outputs.len() == 1
            && let Ok(Some(tensor)) = node.tensor("value")
        {
            return Some(vec![Some(Constant::Stored(tensor.clone()))]);
        }
        // An input that is given, but is nothing that is known here, is no constant.
        let constant = |(input, name): (&Option<ValueId>, &String)| match input {
            Some(id) => Some(Some(self.ir.constant(*id)?)),
            None => name.is_empty().then_some(None),
        };
        let constants: Vec<Option<&Constant>> =
            inputs.iter().zip(&node.inputs).map(constant).collect::<Option<_>>()?;
        // Only now is anything copied: most nodes have a weight and an input that is no constant.
        let copied = |constant: Option<&Constant>| match constant {
            Some(constant) => constant.value().map(Some),
            None => Some(None),
        };
        let values: Vec<Option<engine::Value>> = constants.into_iter().map(copied).collect::<Option<_>>()?;
        let given: Vec<Option<&engine::Value>> = values.iter().map(Option::as_ref).collect();
        let limits = Limits { max_bytes: FOLD - self.folded, max_nodes: 1 };
        let results = operation.run(&given, limits).ok()?;
        let bytes = |value: &engine::Value| value.len().saturating_mul(value.dtype().size());
        let total = results.iter().flatten().fold(self.folded, |sum, value| sum.saturating_add(bytes(value)));
        if total > FOLD {
            return None;
        }
        self.folded = total;
        Some(results.into_iter().map(|value| value.map(Constant::Computed)).collect())
    }
}
