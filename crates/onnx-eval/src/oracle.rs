use std::collections::{HashMap, HashSet};

use engine::{DType, Engine, EngineError, NamedValues, ValueSpec, check_inputs};
use onnx_graph::{Model, Node};

use crate::context::Context;
use crate::inline::inline;
use crate::memory::{Constants, Memory};
use crate::program::{Kind, Plan, Program, Step, program};
use crate::substitute::{Constant, NodeId, Place, held, holds};
use crate::tensor::Tensor;
use crate::{Fault, OracleError, Precision, Promotions};

/// What a graph may take, so that a hostile one ends in an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes all values that are alive at once may take: constants, inputs, and results that are still to be read or handed out.
    /// A float takes 8, any other element 16; a value of two names is counted twice, though it may be shared.
    ///
    /// A shape that a graph gives as numbers is checked before anything of it is allocated, at 16 bytes an element whatever the dtype. What
    /// a node needs while it is computed, and the copies that are handed out, come on top: a few times its largest input or output.
    pub max_bytes: usize,
    /// How many nodes may be computed in one run.
    pub max_nodes: usize,
}

impl Default for Limits {
    /// 16 GiB: BERT-large with all that is alive for 64 texts of 512 tokens, whose attention scores are 2 GiB. One million nodes.
    fn default() -> Self {
        Self { max_bytes: 16 << 30, max_nodes: onnx_graph::MAX_NODES }
    }
}

/// A graph that is evaluated node by node. It is an [`Engine`] of the name `oracle`; the crate's documentation says what it promises.
pub struct Oracle {
    pub(crate) inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    pub(crate) program: Program,
    pub(crate) constants: Constants,
    precision: Precision,
    limits: Limits,
    promotions: Promotions,
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
    /// If the model does not pass [`Model::check`], or has an operator, attribute or number of inputs that is not known at its opset, or
    /// constants beyond the limit: the error names the first.
    pub fn with(model: &Model, precision: Precision, limits: Limits) -> Result<Self, OracleError> {
        model.check()?;
        let graph = &model.graph;
        let mut constants = Constants::new(limits.max_bytes);
        for (name, tensor) in &graph.initializers {
            constants.insert(name, tensor)?;
        }
        let outputs = graph.outputs.iter().map(|spec| spec.name.clone()).collect();
        let program = program(inline(model)?, outputs, &mut constants)?.numbered();
        let given_out = |spec: &ValueSpec| ValueSpec { dtype: precision.output(spec.dtype), ..spec.clone() };
        Ok(Self {
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.iter().map(given_out).collect(),
            program,
            constants,
            precision,
            limits,
            promotions: Promotions::default(),
        })
    }

    /// The same with constants as they were meant. It changes nothing in [`Precision::F32`], where they are what they can be.
    #[must_use]
    pub fn promoting(mut self, promotions: Promotions) -> Self {
        self.promotions = promotions;
        self
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

    /// Those of [`Oracle::values`] that an output depends on.
    pub fn needed_values(&self) -> impl Iterator<Item = &str> {
        let needed = self.program.plan.0.iter().map(|(index, _)| &self.program.steps[*index]);
        needed.flat_map(|step| &step.node.outputs).filter(|name| !name.is_empty()).map(String::as_str)
    }

    /// The nodes in the order they are computed in, functions written out, as the names of [`Oracle::values`] go.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.program.steps.iter().map(|step| &step.node)
    }

    /// [`Oracle::nodes`], and after an `If` those of its branches: every node that may be computed.
    pub fn all_nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.program.all_steps().into_iter().map(|step| (step.id, &step.node))
    }

    /// The float constants, wherever they stand: initializers, then those that nodes hold.
    pub fn constants(&self) -> impl Iterator<Item = Constant<'_>> {
        let initializers = self.constants.held().filter(|(_, tensor)| tensor.dtype.is_float());
        let initializers = initializers.map(|(name, tensor)| Constant {
            place: Place::Initializer(name.into()),
            name,
            tensor: tensor.clone(),
        });
        let held = self.all_nodes().filter_map(|(id, node)| {
            let name = node.outputs.first()?;
            Some(Constant { place: Place::Node(id), name, tensor: held(node)? })
        });
        initializers.chain(held)
    }

    /// [`Engine::run_for`], with `substitutes` in the place of what nodes compute: everything that depends on them is computed from them.
    ///
    /// # Errors
    /// As `run_for`; and if a substitute is no float of the shape that the node gives.
    pub fn run_with(
        &self,
        inputs: &NamedValues,
        names: &[&str],
        substitutes: &NamedValues,
    ) -> Result<NamedValues, EngineError> {
        Ok(self.run_forced(inputs, names, substitutes)?.0)
    }

    /// [`Oracle::run_with`], and what the nodes compute where the substitutes stand: each from the
    /// substitutes before it.
    ///
    /// # Errors
    /// As `run_with`.
    pub fn run_forced(
        &self,
        inputs: &NamedValues,
        names: &[&str],
        substitutes: &NamedValues,
    ) -> Result<(NamedValues, NamedValues), EngineError> {
        let specs = self.inputs.iter().map(|spec| spec.name.as_str());
        let known: HashSet<&str> = self.values().chain(specs).collect();
        let is_known = |name: &str| known.contains(name) || self.constants.get(name).is_some();
        if let Some(name) = names.iter().copied().chain(substitutes.names()).find(|name| !is_known(name)) {
            return Err(EngineError::UnknownValue { name: name.into() });
        }
        let mut run = self.start(inputs)?;
        run.substitutes = Some(substitutes);
        if names.iter().eq(&self.program.outputs) {
            run.steps(&self.program, &self.program.plan)?;
        } else {
            run.steps(&self.program, &Plan::new(&self.program.steps, names.iter().copied()))?;
        }
        let handed_out = |name: &str, tensor: &Tensor| {
            let value = tensor.to_value(self.precision);
            value.map_err(|source| EngineError::Output { name: name.into(), source })
        };
        let values = names.iter().map(|&name| {
            // An input that was left out, and has no default.
            let tensor = run.value(name).ok_or(EngineError::UnknownValue { name: name.into() })?;
            Ok((name, handed_out(name, tensor)?))
        });
        let values = values.collect::<Result<_, EngineError>>()?;
        let computed = run.replaced.iter().map(|(name, tensor)| Ok((name, handed_out(name, tensor)?)));
        Ok((values, computed.collect::<Result<_, EngineError>>()?))
    }

    /// A run that has its inputs.
    fn start(&self, inputs: &NamedValues) -> Result<Run<'_>, EngineError> {
        let specs: Vec<ValueSpec> = self.inputs.iter().map(|spec| self.accepted(spec, inputs)).collect();
        check_inputs(&specs, inputs)?;
        let mut run = Run::new(self);
        for (name, value) in inputs.iter() {
            let fail = |fault| EngineError::BadInput(Box::new(fault));
            let declared = self.inputs.iter().find(|spec| spec.name == name).map(|spec| spec.dtype);
            run.memory.take(value.dtype(), value.shape()).map_err(fail)?;
            let mut tensor = Tensor::from_value(value).map_err(fail)?;
            tensor.dtype = declared.unwrap_or(tensor.dtype);
            run.values.insert(name.into(), tensor.settled(self.precision));
        }
        Ok(run)
    }

    /// An input of a dtype that this run does not round may be given as f64.
    fn accepted(&self, spec: &ValueSpec, inputs: &NamedValues) -> ValueSpec {
        let given = inputs.get(&spec.name).map(engine::Value::dtype);
        if self.precision.promotes(spec.dtype) && given == Some(DType::F64) {
            return ValueSpec { dtype: DType::F64, ..spec.clone() };
        }
        spec.clone()
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
        self.run_with(inputs, names, &NamedValues::new())
    }
}

/// One run: the values that are alive.
pub(crate) struct Run<'a> {
    oracle: &'a Oracle,
    values: HashMap<String, Tensor>,
    memory: Memory,
    /// How many nodes have been computed.
    nodes: usize,
    substitutes: Option<&'a NamedValues>,
    /// What nodes computed where substitutes stand.
    replaced: Vec<(String, Tensor)>,
}

impl<'a> Run<'a> {
    /// One without inputs.
    pub fn new(oracle: &'a Oracle) -> Self {
        let memory = oracle.constants.memory;
        Self { oracle, values: HashMap::new(), memory, nodes: 0, substitutes: None, replaced: Vec::new() }
    }

    pub fn value(&self, name: &str) -> Option<&Tensor> {
        // An input that has an initializer goes before it.
        self.values.get(name).or_else(|| self.oracle.constants.get(name))
    }

    /// A value as a node reads it: an initializer may be the rounding of a number that is known.
    fn operand(&self, name: &str) -> Option<Tensor> {
        if self.values.contains_key(name) {
            return self.values.get(name).cloned();
        }
        let tensor = self.oracle.constants.get(name)?.clone();
        Some(self.meant(&Place::Initializer(name.into()), tensor))
    }

    fn meant(&self, place: &Place, tensor: Tensor) -> Tensor {
        self.oracle.promotions.meant(place, tensor, self.oracle.precision)
    }

    /// What stands for a value that a node has computed.
    fn instead(&mut self, step: &Step, name: &str, computed: Tensor) -> Result<Tensor, Fault> {
        let Some(substitute) = self.substitutes.and_then(|substitutes| substitutes.get(name)) else {
            let meant = |computed| self.meant(&Place::Node(step.id), computed);
            return Ok(if holds(&step.node) { meant(computed) } else { computed });
        };
        let wanted = || format!("{:?}, as what it stands for", computed.shape());
        if substitute.shape() != computed.shape() {
            return Err(Fault::shape("the substitute", substitute.shape(), wanted()));
        }
        let mut tensor = Tensor::from_value(substitute)?;
        if tensor.dtype.is_float() != computed.dtype.is_float() {
            let (first, second) = (computed.dtype, tensor.dtype);
            return Err(Fault::Mixed { first, second });
        }
        tensor.dtype = computed.dtype;
        self.replaced.push((name.into(), computed));
        Ok(tensor)
    }

    fn steps(&mut self, program: &Program, plan: &Plan) -> Result<(), OracleError> {
        for (index, dead) in &plan.0 {
            self.nodes += 1;
            if self.nodes > self.oracle.limits.max_nodes {
                return Err(OracleError::TooManyNodes(self.oracle.limits.max_nodes));
            }
            self.step(&program.steps[*index])?;
            dead.iter().for_each(|name| self.drop(name));
        }
        Ok(())
    }

    pub fn drop(&mut self, name: &str) {
        if let Some(tensor) = self.values.remove(name) {
            self.memory.give_back(&tensor);
        }
    }

    pub fn step(&mut self, step: &Step) -> Result<(), OracleError> {
        let Step { id, node, opset, kind, .. } = step;
        let context = Context {
            id: *id,
            node,
            opset: *opset,
            precision: self.oracle.precision,
            memory: self.memory,
            inputs: node.inputs.iter().map(|name| self.operand(name)).collect(),
            promotions: &self.oracle.promotions,
        };
        let fail = |fault| OracleError::node(node, *opset, fault);
        let results = match kind {
            Kind::Op(op) => (op.run)(&context).map_err(fail)?,
            Kind::If { then_branch, else_branch } => {
                let condition =
                    context.bools(0).and_then(|c| context.scalar("the condition", c)).map_err(fail)?;
                let branch = if *condition != 0 { then_branch } else { else_branch };
                self.steps(branch, &branch.plan)?;
                let result =
                    |name: &String| self.value(name).cloned().ok_or(Fault::Unsupported("an absent output"));
                let results = branch.outputs.iter().map(result).collect::<Result<_, _>>().map_err(fail)?;
                // The rest of what the branch has computed is dead already.
                let own: HashSet<&String> = branch.steps.iter().flat_map(|step| &step.node.outputs).collect();
                branch.outputs.iter().filter(|name| own.contains(name)).for_each(|name| self.drop(name));
                results
            }
        };
        for (index, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let Some(tensor) = results.get(index).cloned() else {
                return Err(fail(Fault::MissingOutput(index)));
            };
            let tensor = self.instead(step, name, tensor).map_err(fail)?;
            self.memory.take(tensor.dtype, tensor.shape()).map_err(fail)?;
            self.values.insert(name.clone(), tensor.settled(self.oracle.precision));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
