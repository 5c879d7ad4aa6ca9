//! The engine `candle`: candle-onnx over a lowered graph.

mod lower;
mod ops;
mod size;
mod step;
mod types;

use std::collections::{HashMap, HashSet};

use candle_core::{DType as CandleDType, Tensor};
use engine::{DType, Engine, EngineError, NamedValues, Value, ValueError, ValueSpec, check_inputs};
use onnx_graph::Model;

use crate::SessionError;
use lower::{Lowered, lower, to_lowered};
use step::{Step, model};
use types::ValueType;

pub use ops::OPSETS;
pub use step::catches_panics;

const NAME: &str = "candle";

/// A lowered graph and its constants, ready to run.
pub struct CandleEngine {
    inputs: Vec<ValueSpec>,
    outputs: Vec<ValueSpec>,
    steps: Vec<Step>,
    /// Everything that does not depend on the inputs, as tensors made once.
    constants: HashMap<String, Tensor>,
    /// What stands in for an optional input that is left out.
    defaults: HashMap<String, Tensor>,
    types: HashMap<String, ValueType>,
    /// The plan for the declared outputs.
    plan: Plan,
}

/// The operators of ONNX's own domain that can be lowered, in alphabetical order.
pub fn operators() -> impl Iterator<Item = &'static str> {
    ops::RULES.iter().map(|(name, ..)| *name)
}

/// Which steps to run for some values, and what each step is the last to read.
struct Plan {
    steps: Vec<(usize, Vec<String>)>,
}

impl CandleEngine {
    /// Lowers a graph.
    ///
    /// # Errors
    /// [`SessionError::Refused`] for the first node that candle-onnx cannot be brought to compute as ONNX defines it.
    pub fn new(model: &Model) -> Result<Self, SessionError> {
        let graph = &model.graph;
        let inputs = graph.inputs.iter().map(|spec| ("input", spec));
        for (what, spec) in inputs.chain(graph.outputs.iter().map(|spec| ("output", spec))) {
            if !carried(spec.dtype) {
                let reason = format!("candle-onnx does not compute with {}", spec.dtype);
                return Err(unsupported(what, &spec.name, reason));
            }
        }
        let Lowered { steps, mut constants, defaults, types } = lower(model)?;
        for spec in &graph.outputs {
            let computed = types.get(&spec.name).map(|ty| ty.dtype);
            if computed != Some(spec.dtype) {
                let computed = computed.map_or("nothing".into(), |dtype| dtype.to_string());
                let reason = format!("it is declared as {}, and the graph computes {computed}", spec.dtype);
                return Err(unsupported("output", &spec.name, reason));
            }
        }
        let names: Vec<&str> = graph.outputs.iter().map(|spec| spec.name.as_str()).collect();
        let plan = Plan::new(&steps, &names);
        // Lowering leaves originals behind, such as a weight that is only used transposed. What nodes make stays: it can be asked for.
        let mut used: HashSet<&str> =
            steps.iter().flat_map(|step| &step.inputs).map(String::as_str).collect();
        used.extend(&names);
        used.extend(graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str));
        constants.retain(|name, _| used.contains(name.as_str()));
        Ok(Self {
            inputs: graph.inputs.clone(),
            outputs: graph.outputs.clone(),
            steps,
            constants,
            defaults,
            types,
            plan,
        })
    }

    /// The lowered graph as one model for [`candle_onnx::simple_eval`], and the tensors it needs beside the inputs.
    ///
    /// This is what the engine runs, without its bookkeeping: a caller can see what became of each node, or run it with
    /// stock candle-onnx.
    pub fn lowered_model(&self) -> (candle_onnx::onnx::ModelProto, HashMap<String, Tensor>) {
        let nodes = self.steps.iter().flat_map(Step::nodes).cloned().collect();
        let outputs: Vec<String> = self.outputs.iter().map(|spec| spec.name.clone()).collect();
        (model(nodes, &outputs), self.constants.clone())
    }

    /// The inputs as tensors, as a lowered graph wants them.
    fn load_inputs(&self, inputs: &NamedValues) -> Result<HashMap<String, Tensor>, EngineError> {
        check_inputs(&self.inputs, inputs)?;
        let mut values = self.defaults.clone();
        for (name, value) in inputs.iter() {
            let tensor =
                to_lowered(value).map_err(|error| EngineError::Backend(Box::new(error)))?.ok_or_else(
                    || EngineError::BadInput(format!("candle-onnx has no {}", value.dtype()).into()),
                )?;
            values.insert(name.to_string(), tensor);
        }
        Ok(values)
    }

    fn execute(&self, plan: &Plan, values: &mut HashMap<String, Tensor>) -> Result<(), EngineError> {
        for (index, last_use) in &plan.steps {
            let step = &self.steps[*index];
            let fail = |source: candle_core::Error| EngineError::Node {
                node: step.node.clone(),
                op: step.op.clone(),
                source: Box::new(source),
            };
            let given = step
                .inputs
                .iter()
                .map(|name| {
                    let tensor = self.constants.get(name).or_else(|| values.get(name)).cloned();
                    let missing = || candle_core::Error::Msg(format!("value '{name}' is missing"));
                    Ok((name.clone(), tensor.ok_or_else(missing)?))
                })
                .collect::<Result<HashMap<_, _>, candle_core::Error>>()
                .map_err(fail)?;
            values.extend(step.run(given).map_err(fail)?);
            for name in last_use {
                values.remove(name);
            }
        }
        Ok(())
    }

    /// A tensor of the lowered graph as the value that the user's graph has there.
    fn read(&self, name: &str, tensor: &Tensor) -> Result<Value, EngineError> {
        let bad = |source: ValueError| EngineError::Output { name: name.into(), source };
        let value = Value::from_tensor(tensor).map_err(bad)?;
        let Some(ty) = self.types.get(name) else {
            return Err(EngineError::UnknownValue { name: name.into() });
        };
        match (ty.dtype, value.dtype()) {
            (wanted, found) if wanted == found => Ok(value),
            (DType::Bool, DType::U8) => {
                Value::from_le_bytes(DType::Bool, value.shape(), &value.to_le_bytes()).map_err(bad)
            }
            (DType::I32, DType::I64) => {
                let ints = tensor
                    .to_dtype(CandleDType::I32)
                    .map_err(|error| EngineError::Backend(Box::new(error)))?;
                Value::from_tensor(&ints).map_err(bad)
            }
            (expected, found) => Err(bad(ValueError::WrongDType { expected, found })),
        }
    }
}

fn unsupported(what: &'static str, name: &str, reason: String) -> SessionError {
    SessionError::Unsupported { engine: NAME, what, name: name.into(), reason }
}

/// Whether a lowered graph can hold values of this dtype at its border.
fn carried(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::I32 | DType::I64 | DType::U8 | DType::Bool)
}

impl Plan {
    /// The steps that `names` need, found from the back, and after which step each value is dead.
    fn new(steps: &[Step], names: &[&str]) -> Self {
        let mut wanted: HashSet<&str> = names.iter().copied().collect();
        let mut read_later = wanted.clone();
        let mut plan = Vec::new();
        for (index, step) in steps.iter().enumerate().rev() {
            if !step.outputs.iter().any(|name| wanted.contains(name.as_str())) {
                continue;
            }
            wanted.extend(step.inputs.iter().map(String::as_str));
            // Unread outputs of this step are dead at once.
            let last_use = step
                .inputs
                .iter()
                .chain(&step.outputs)
                .filter(|name| read_later.insert(name))
                .cloned()
                .collect();
            plan.push((index, last_use));
        }
        plan.reverse();
        Self { steps: plan }
    }
}

impl Engine for CandleEngine {
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
        let declared = names.iter().copied().eq(self.outputs.iter().map(|spec| spec.name.as_str()));
        let mut values = self.load_inputs(inputs)?;
        let unknown = |name: &&&str| {
            !values.contains_key(**name)
                && !self.constants.contains_key(**name)
                && !self.steps.iter().any(|step| step.outputs.iter().any(|output| output == **name))
        };
        if let Some(name) = names.iter().find(unknown) {
            return Err(EngineError::UnknownValue { name: (*name).into() });
        }
        if declared {
            self.execute(&self.plan, &mut values)?;
        } else {
            self.execute(&Plan::new(&self.steps, names), &mut values)?;
        }
        names
            .iter()
            .map(|name| {
                let tensor = self.constants.get(*name).or_else(|| values.get(*name));
                let tensor = tensor.ok_or_else(|| EngineError::UnknownValue { name: (*name).into() })?;
                Ok((name.to_string(), self.read(name, tensor)?))
            })
            .collect()
    }
}
