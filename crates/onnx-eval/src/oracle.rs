use std::collections::HashMap;

use engine::{DType, Engine, EngineError, NamedValues, ValueSpec, check_inputs};
use onnx_graph::Model;

use crate::context::Context;
use crate::inline::inline;
use crate::program::{Kind, Plan, Program, Step, constant, program};
use crate::tensor::Tensor;
use crate::{Fault, OracleError, Precision};

/// What a graph may take, so that a hostile one ends in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes one value may take in memory, at 16 to an element (8 for floats): checked before it is allocated.
    pub max_bytes: usize,
    /// How many nodes may be computed in one run.
    pub max_nodes: usize,
}

impl Default for Limits {
    /// 16 GiB, one thousand million elements: the attention scores of BERT-large at a batch of 250 texts of 512 tokens. One million nodes.
    fn default() -> Self {
        Self { max_bytes: 16 << 30, max_nodes: onnx_graph::MAX_NODES }
    }
}

/// A graph that is evaluated node by node. It is an [`Engine`] of the name `oracle`; the crate's documentation says what it promises.
pub struct Oracle {
    inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    program: Program,
    /// Initializers, those of branches included.
    constants: HashMap<String, Tensor>,
    precision: Precision,
    limits: Limits,
}

impl Oracle {
    /// Makes a model ready in [`Precision::F64`].
    ///
    /// # Errors
    /// See [`Oracle::with`].
    pub fn new(model: &Model) -> Result<Self, OracleError> {
        Self::with(model, Precision::F64, Limits::default())
    }

    /// Makes a model ready. Its constants are copied, eight bytes for a float and sixteen for an integer.
    ///
    /// # Errors
    /// If the model does not pass [`Model::check`], or has an operator, attribute or number of inputs that is not known at its opset:
    /// the error names the first.
    pub fn with(model: &Model, precision: Precision, limits: Limits) -> Result<Self, OracleError> {
        model.check()?;
        let graph = &model.graph;
        let mut constants = HashMap::new();
        for (name, tensor) in &graph.initializers {
            constants.insert(name.clone(), constant(name, tensor)?);
        }
        let outputs = graph.outputs.iter().map(|spec| spec.name.clone()).collect();
        let program = program(inline(model)?, outputs, &mut constants)?;
        let given_out = |spec: &ValueSpec| ValueSpec { dtype: precision.output(spec.dtype), ..spec.clone() };
        Ok(Self {
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.iter().map(given_out).collect(),
            program,
            constants,
            precision,
            limits,
        })
    }

    /// How floats are rounded.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The names of all values that [`Engine::run_for`] can be asked for, in the order they are computed in; inputs and initializers can be, too.
    /// A value `v` of a function that node `call` calls is `call/v`. Values within a branch of an `If` are not among them.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let outputs = self.program.steps.iter().flat_map(|step| &step.node.outputs);
        outputs.filter(|name| !name.is_empty()).map(String::as_str)
    }

    fn load(&self, inputs: &NamedValues) -> Result<HashMap<String, Tensor>, EngineError> {
        let specs: Vec<ValueSpec> = self.inputs.iter().map(|spec| self.accepted(spec, inputs)).collect();
        check_inputs(&specs, inputs)?;
        let mut values = HashMap::new();
        for (name, value) in inputs.iter() {
            let declared = self.inputs.iter().find(|spec| spec.name == name).map(|spec| spec.dtype);
            let mut tensor =
                Tensor::from_value(value).map_err(|fault| EngineError::BadInput(Box::new(fault)))?;
            tensor.dtype = declared.unwrap_or(tensor.dtype);
            values.insert(name.into(), tensor.settled(self.precision));
        }
        Ok(values)
    }

    /// In f64, an input that is declared as f32 may be given as f64.
    fn accepted(&self, spec: &ValueSpec, inputs: &NamedValues) -> ValueSpec {
        let given = inputs.get(&spec.name).map(engine::Value::dtype);
        if spec.dtype == DType::F32 && given == Some(DType::F64) && self.precision == Precision::F64 {
            return ValueSpec { dtype: DType::F64, ..spec.clone() };
        }
        spec.clone()
    }

    fn knows(&self, name: &str) -> bool {
        self.inputs.iter().any(|spec| spec.name == name)
            || self.constants.contains_key(name)
            || self.values().any(|value| value == name)
    }
}

impl Engine for Oracle {
    fn name(&self) -> &str {
        "oracle"
    }

    fn inputs(&self) -> &[ValueSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        if let Some(name) = names.iter().find(|name| !self.knows(name)) {
            return Err(EngineError::UnknownValue { name: (*name).into() });
        }
        let values = self.load(inputs)?;
        let mut run = Run { oracle: self, values, nodes: 0 };
        if names.iter().eq(&self.program.outputs) {
            run.steps(&self.program, &self.program.plan)?;
        } else {
            run.steps(&self.program, &Plan::new(&self.program.steps, names.iter().copied()))?;
        }
        names
            .iter()
            .map(|&name| {
                // An input that was left out, and has no default.
                let tensor = run.value(name).ok_or(EngineError::UnknownValue { name: name.into() })?;
                let value = tensor.to_value(self.precision);
                Ok((name, value.map_err(|source| EngineError::Output { name: name.into(), source })?))
            })
            .collect()
    }
}

/// One run: the values that are alive.
struct Run<'a> {
    oracle: &'a Oracle,
    values: HashMap<String, Tensor>,
    /// How many nodes have been computed.
    nodes: usize,
}

impl Run<'_> {
    fn value(&self, name: &str) -> Option<&Tensor> {
        // An input that has an initializer goes before it.
        self.values.get(name).or_else(|| self.oracle.constants.get(name))
    }

    fn steps(&mut self, program: &Program, plan: &Plan) -> Result<(), OracleError> {
        for (index, dead) in &plan.0 {
            self.nodes += 1;
            if self.nodes > self.oracle.limits.max_nodes {
                return Err(OracleError::TooManyNodes(self.oracle.limits.max_nodes));
            }
            self.step(&program.steps[*index])?;
            for name in dead {
                self.values.remove(name);
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), OracleError> {
        let Step { node, opset, kind, .. } = step;
        let context = Context {
            node,
            opset: *opset,
            precision: self.oracle.precision,
            limits: self.oracle.limits,
            inputs: node.inputs.iter().map(|name| self.value(name).cloned()).collect(),
        };
        let fail = |fault| OracleError::Node {
            node: node.name.clone(),
            op: node.op.clone(),
            opset: *opset,
            fault: Box::new(fault),
        };
        let results = match kind {
            Kind::Op(op) => (op.run)(&context).map_err(fail)?,
            Kind::If { then_branch, else_branch } => {
                let condition =
                    context.bools(0).and_then(|c| context.scalar("the condition", c)).map_err(fail)?;
                let branch = if *condition != 0 { then_branch } else { else_branch };
                self.steps(branch, &branch.plan)?;
                let result =
                    |name: &String| self.value(name).cloned().ok_or(Fault::Unsupported("an absent output"));
                branch.outputs.iter().map(result).collect::<Result<Vec<_>, _>>().map_err(fail)?
            }
        };
        for (index, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let Some(tensor) = results.get(index).cloned() else {
                return Err(fail(Fault::MissingOutput(index)));
            };
            context.room(tensor.shape()).map_err(fail)?;
            self.values.insert(name.clone(), tensor.settled(self.oracle.precision));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
