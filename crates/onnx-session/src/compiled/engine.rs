use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ::engine::{Engine, EngineError, NamedValues, Value, ValueSpec, check_inputs};
use kernels::{KernelError, Kernels, Pool};
use onnx_eval::{Limits, Oracle, OracleError, Precision, operations};
use onnx_graph::Model;

use super::attempt::{Given, State};
use super::build::build;
use super::options::{Options, Threads};
use super::passes;
use super::plan::{Plan, plan};
use super::step::StepKind;
use crate::SessionError;

const NAME: &str = "compiled";

/// A compiled graph. It is an [`Engine`] of the name `compiled`, and may be run by several threads at once.
pub struct CompiledEngine {
    model: Model,
    pub(super) inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    names: Vec<String>,
    pub(super) options: Options,
    pub(super) kernels: Kernels,
    pub(super) serial: Kernels,
    /// Or why only the general way is open.
    plan: Result<Plan, String>,
    /// The memory of runs that are over.
    pub(super) states: Mutex<Vec<State>>,
    /// For values that are no output: the last plan that was made for some.
    asked: Mutex<Option<(Vec<String>, Arc<Plan>)>>,
    general: OnceLock<Oracle>,
    /// How many runs went the general way.
    general_runs: AtomicUsize,
    pub(super) nothing: Value,
}

/// A step, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// The name of the graph's node, or of the last of those it was made of.
    pub node: String,
    /// The operator, or the kernel's name with a star.
    pub op: String,
}

impl CompiledEngine {
    /// Compiles a model.
    ///
    /// # Errors
    /// [`SessionError::Refused`] for the first node that no engine knows; or if the threads cannot be started.
    pub fn new(model: &Model, options: Options) -> Result<Self, SessionError> {
        let operations = operations(model).map_err(refused)?;
        let pool = match &options.threads {
            Threads::All => {
                Pool::new(std::thread::available_parallelism().map_or(1, usize::from)).map(Arc::new)
            }
            Threads::Count(count) => Pool::new(*count).map(Arc::new),
            Threads::Pool(pool) => Ok(Arc::clone(pool)),
        };
        let kernels =
            pool.and_then(|pool| Kernels::with(kernels::Isa::detect(), pool)).map_err(kernel_error)?;
        let mut names: Vec<String> =
            operations.iter().flat_map(|operation| operation.node().outputs.clone()).collect();
        names.extend(model.graph.inputs.iter().map(|spec| spec.name.clone()));
        names.extend(model.graph.initializers.keys().cloned());
        let mut engine = Self {
            model: model.clone(),
            inputs: model.graph.inputs.clone(),
            outputs: model.graph.outputs.clone(),
            names,
            options,
            serial: kernels.serial(),
            kernels,
            plan: Err(String::new()),
            states: Mutex::default(),
            asked: Mutex::default(),
            general: OnceLock::new(),
            general_runs: AtomicUsize::new(0),
            nothing: Value::scalar(0f32),
        };
        if let Some(operation) = operations.iter().find(|operation| operation.has_branches()) {
            let node = operation.node();
            engine.plan = Err(format!("node '{}' ({}) has a graph within", node.name, node.op));
            // What is in the branches has to be known, too.
            let oracle = Oracle::with(model, Precision::F32, Limits::default()).map_err(refused)?;
            engine.general.get_or_init(|| oracle);
            return Ok(engine);
        }
        let outputs: Vec<&str> = model.graph.outputs.iter().map(|spec| spec.name.as_str()).collect();
        engine.plan = engine.compile(&operations, &outputs)?;
        Ok(engine)
    }

    fn compile(
        &self,
        operations: &[onnx_eval::Operation],
        outputs: &[&str],
    ) -> Result<Result<Plan, String>, SessionError> {
        let mut ir = build(&self.model, operations, outputs).map_err(refused)?;
        if ir.outputs.len() != outputs.len() {
            return Ok(Err("an output is no value of the graph".into()));
        }
        passes::run(&mut ir, |name| self.options.passes.has(name));
        plan(&ir, &self.kernels).map_err(kernel_error)
    }

    /// Why the graph is always run in the general way, by the oracle, if it is.
    pub fn fallback(&self) -> Option<&str> {
        self.plan.as_ref().err().map(String::as_str)
    }

    /// The steps of a run, in order. None if the graph is always run in the general way.
    pub fn steps(&self) -> Vec<StepInfo> {
        let steps = self.plan.iter().flat_map(|plan| &plan.steps);
        steps.map(|step| StepInfo { node: step.label.clone(), op: step.op.clone() }).collect()
    }

    /// What is not done in every run, but once for each of the inputs' sizes: all that depends on
    /// them alone, in order.
    pub fn sized_steps(&self) -> Vec<StepInfo> {
        let steps = self.plan.iter().flat_map(|plan| &plan.sized.steps);
        steps.map(|step| StepInfo { node: step.label.clone(), op: step.op.clone() }).collect()
    }

    /// Whether it is proven of the graph that no real token's result depends on a padded one.
    pub fn can_skip_padding(&self) -> bool {
        self.plan.as_ref().is_ok_and(|plan| plan.packable)
    }

    /// How many runs so far were done by the oracle, as what the steps take to hold did not hold of their inputs.
    pub fn general_runs(&self) -> usize {
        self.general_runs.load(Ordering::Relaxed)
    }

    /// How many bytes the packed matrices take.
    pub fn packed_bytes(&self) -> usize {
        let steps = self.plan.iter().flat_map(|plan| &plan.steps);
        steps
            .map(|step| match &step.kind {
                StepKind::Linear(linear) => linear.packed.bytes(),
                _ => 0,
            })
            .sum()
    }

    /// Runs the graph for its outputs, all of f32, and shows each to `visit` with its name and shape. At a shape that was seen before it allocates nothing,
    /// if every step is a kernel.
    ///
    /// # Errors
    /// If the inputs do not fit, a node fails, or an output is not of f32.
    pub fn run_with(
        &self,
        inputs: &NamedValues,
        mut visit: impl FnMut(&str, &[usize], &[f32]),
    ) -> Result<(), EngineError> {
        let mut shown = |name: &str, given: Given<'_>| {
            match given {
                Given::Floats(shape, data) => visit(name, shape, data),
                Given::Value(value) => {
                    let data = value.as_slice::<f32>();
                    let data = data.map_err(|source| EngineError::Output { name: name.into(), source })?;
                    visit(name, value.shape(), data);
                }
            }
            Ok(())
        };
        if let Ok(plan) = &self.plan
            && self.attempt(plan, inputs, &mut shown)?
        {
            return Ok(());
        }
        for (name, value) in self.generally(inputs, None)?.iter() {
            shown(name, Given::Value(value))?;
        }
        Ok(())
    }

    /// What a plan gives; `None` if there is none, or what it takes to hold does not hold.
    fn collected(
        &self,
        plan: Option<&Plan>,
        inputs: &NamedValues,
    ) -> Result<Option<NamedValues>, EngineError> {
        let Some(plan) = plan else { return Ok(None) };
        let mut outputs = NamedValues::new();
        let done = self.attempt(plan, inputs, &mut |name, given| {
            let value = match given {
                Given::Floats(shape, data) => Value::new(shape, data)
                    .map_err(|source| EngineError::Output { name: name.into(), source })?,
                Given::Value(value) => value.clone(),
            };
            outputs.insert(name, value);
            Ok(())
        })?;
        Ok(done.then_some(outputs))
    }

    /// As the oracle does it, in f32.
    fn generally(&self, inputs: &NamedValues, names: Option<&[&str]>) -> Result<NamedValues, EngineError> {
        check_inputs(&self.inputs, inputs)?;
        self.general_runs.fetch_add(1, Ordering::Relaxed);
        let oracle = match self.general.get() {
            Some(oracle) => oracle,
            None => {
                let oracle = Oracle::with(&self.model, Precision::F32, Limits::default())?;
                self.general.get_or_init(|| oracle)
            }
        };
        match names {
            Some(names) => oracle.run_for(inputs, names),
            None => oracle.run(inputs),
        }
    }
}

fn kernel_error(error: KernelError) -> SessionError {
    SessionError::Kernels(error)
}

fn refused(error: OracleError) -> SessionError {
    let reason = error.to_string();
    let (node, op, opset) = match error {
        OracleError::Graph(error) => return SessionError::Graph(error),
        OracleError::UnknownOp { node, op, opset, .. }
        | OracleError::Arity { node, op, opset, .. }
        | OracleError::UnknownAttribute { node, op, opset, .. }
        | OracleError::Node { node, op, opset, .. } => (node, op, opset),
        _ => {
            return SessionError::Unsupported { engine: NAME, what: "graph", name: String::new(), reason };
        }
    };
    SessionError::Refused { engine: NAME, node, op, opset, reason, alternative: None }
}

impl Engine for CompiledEngine {
    fn name(&self) -> &str {
        NAME
    }

    fn inputs(&self) -> &[ValueSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueSpec] {
        &self.outputs
    }

    fn run_for(&self, inputs: &NamedValues, names: &[&str]) -> Result<NamedValues, EngineError> {
        if let Some(name) = names.iter().find(|name| !self.names.iter().any(|known| known == *name)) {
            return Err(EngineError::UnknownValue { name: (*name).into() });
        }
        if names.iter().copied().eq(self.outputs.iter().map(|spec| spec.name.as_str())) {
            let done = self.collected(self.plan.as_ref().ok(), inputs)?;
            return done.map_or_else(|| self.generally(inputs, None), Ok);
        }
        check_inputs(&self.inputs, inputs)?;
        let done = self.collected(self.plan_for(names)?.as_deref(), inputs)?;
        let Some(found) = done else { return self.generally(inputs, Some(names)) };
        Ok(names.iter().filter_map(|name| Some((*name, found.get(name)?.clone()))).collect())
    }
}

impl CompiledEngine {
    /// A plan in which these values are outputs, so that no pass makes them disappear.
    fn plan_for(&self, names: &[&str]) -> Result<Option<Arc<Plan>>, EngineError> {
        if self.plan.is_err() {
            return Ok(None);
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, plan)) = &*asked
            && known.iter().eq(names)
        {
            return Ok(Some(Arc::clone(plan)));
        }
        let operations = operations(&self.model)?;
        let made = self.compile(&operations, names).map_err(|error| EngineError::Backend(Box::new(error)))?;
        Ok(made.ok().map(|plan| {
            let plan = Arc::new(plan);
            *asked = Some((names.iter().map(|name| (*name).to_string()).collect(), Arc::clone(&plan)));
            plan
        }))
    }
}
