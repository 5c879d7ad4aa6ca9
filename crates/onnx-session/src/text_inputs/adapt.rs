//! The nodes that make of the usual inputs what a graph wants.

use engine::{DType, Dim, Engine, NamedValues, Value, ValueSpec};
use onnx_eval::Oracle;
use onnx_graph::{Attribute, Graph, Model, Node, Tensor, data_type};

use super::meaning::Meaning;
use super::{InputError, Notes, is_usual};

/// A graph on the way to usual inputs.
pub(super) struct Adapted {
    model: Model,
    /// The shape of the tokens, as the graph declares it.
    tokens: Option<Vec<Dim>>,
    /// What goes before the graph's own nodes.
    nodes: Vec<Node>,
    notes: Notes,
    /// A mask of floats for each pair of tokens.
    by_pair: Option<ByPair>,
}

/// A mask of floats for each pair of tokens may be one that is multiplied or one that is added.
struct ByPair {
    /// The value of 1 and 0.
    factor: String,
    /// The value that the graph takes.
    taken: String,
    spec: ValueSpec,
}

/// What is between the graph and its usual inputs is called so.
fn inner(what: &str) -> String {
    format!("text_inputs/{what}")
}

impl Adapted {
    /// A graph whose inputs mean these, and which has a value of another meaning under no usual
    /// name.
    pub fn new(mut model: Model, meanings: &[Option<Meaning>]) -> Self {
        let ids = meanings.iter().position(|meaning| *meaning == Some(Meaning::Ids));
        let tokens = ids.and_then(|ids| model.graph.inputs[ids].shape.clone());
        let mut notes = Notes::new();
        let given: Vec<String> = model.graph.inputs.iter().map(|spec| spec.name.clone()).collect();
        let meant =
            || given.iter().zip(meanings).filter_map(|(name, meaning)| Some((name, (*meaning)?.name())));
        let others: Vec<(&String, &str)> = meant().filter(|(name, usual)| name != usual).collect();
        // By way of a third name, since two names may change places.
        others.iter().for_each(|(name, usual)| rename(&mut model.graph, name, &inner(usual)));
        for (name, usual) in others {
            rename(&mut model.graph, usual, &inner(&format!("own {usual}")));
            rename(&mut model.graph, &inner(usual), usual);
            notes.push(format!("input '{name}' is taken for {usual}"));
        }
        Self { model, tokens, nodes: Vec::new(), notes, by_pair: None }
    }

    /// Lets the graph take one of its inputs in the usual form.
    pub fn take(&mut self, meaning: Meaning) -> Result<(), InputError> {
        let usual = meaning.name();
        let Some(spec) = self.model.graph.inputs.iter().find(|spec| spec.name == usual).cloned() else {
            return Ok(());
        };
        let form = |spec: &ValueSpec| InputError::Form { wanted: spec.to_string() };
        match meaning {
            Meaning::Positions => {
                let value = self.positions(&spec).ok_or_else(|| form(&spec))?;
                self.model.graph.inputs.retain(|input| input.name != usual);
                self.nodes.push(node("Identity", &[&value], usual));
                self.notes.push(format!("input '{spec}' is 0, 1, 2, … in every row"));
            }
            _ if is_usual(&spec, self.tokens.as_deref()) => {}
            Meaning::Mask => {
                let wanted = inner("mask");
                rename(&mut self.model.graph, usual, &wanted);
                let value = self.mask(&spec).ok_or_else(|| form(&spec))?;
                self.nodes.push(node("Identity", &[&value], &wanted));
                for input in self.model.graph.inputs.iter_mut().filter(|input| input.name == wanted) {
                    let shape = self.tokens.clone();
                    *input = ValueSpec { name: usual.into(), dtype: DType::I64, shape, ..spec.clone() };
                }
                if self.by_pair(&spec) && spec.dtype.is_float() {
                    self.by_pair = Some(ByPair { factor: value, taken: wanted, spec });
                } else {
                    self.notes.push(format!("input '{spec}' is made of a mask of int64, 1 for a real token"));
                }
            }
            _ => return Err(form(&spec)),
        }
        Ok(())
    }

    /// The graph, and what was done for it.
    pub fn finish(mut self) -> (Model, Notes) {
        let Some(ByPair { factor, taken, spec }) = self.by_pair.take() else {
            return (with_nodes(&self.model, &self.nodes), self.notes);
        };
        let multiplied = with_nodes(&self.model, &self.nodes);
        self.add_instead(&factor, &taken, spec.dtype);
        let added = with_nodes(&self.model, &self.nodes);
        let is_added = !hides_what_is_masked(&multiplied) && hides_what_is_masked(&added);
        let (model, how) = match is_added {
            true => (added, "added: 0 for a real token, and the lowest number for another"),
            false => (multiplied, "multiplied: 1 for a real token, and 0 for another"),
        };
        self.notes.push(format!("input '{spec}' is taken for a mask that is {how}"));
        (model, self.notes)
    }

    /// Gives the graph (1 − factor) · lowest, in place of the factor.
    fn add_instead(&mut self, factor: &str, taken: &str, dtype: DType) {
        self.nodes.retain(|node| node.outputs.iter().all(|output| output != taken));
        /// The lowest number of half precision.
        const F16_MIN: f32 = -65504.0;
        let lowest = if dtype == DType::F16 { F16_MIN } else { f32::MIN };
        let [one, lowest] = [1.0, lowest].map(|number| self.initializer(&Value::scalar(number)));
        let factor = self.cast(factor.into(), DType::F32);
        let masked = self.node("Sub", &[&one, &factor], None);
        let masked = self.node("Mul", &[&masked, &lowest], None);
        let masked = self.cast(masked, dtype);
        self.nodes.push(node("Identity", &[&masked], taken));
    }

    /// Whether a mask says for each pair of tokens who sees whom.
    fn by_pair(&self, spec: &ValueSpec) -> bool {
        let rank = |dims: Option<&Vec<Dim>>| dims.map(Vec::len);
        matches!((rank(spec.shape.as_ref()), rank(self.tokens.as_ref())), (Some(3 | 4), Some(2)))
    }

    /// The mask of 1 and 0 that the graph wants; nothing where it has a form that nobody knows.
    fn mask(&mut self, spec: &ValueSpec) -> Option<String> {
        let mut value = Meaning::Mask.name().to_string();
        if self.by_pair(spec) {
            // [batch, sequence] to [batch, 1, sequence] or [batch, 1, 1, sequence].
            let inner = spec.shape.as_deref()?.get(1..)?.split_last()?.1;
            let ones = inner.iter().map(|_| 1);
            let shape = self.constant([0].into_iter().chain(ones).chain([-1]).collect());
            value = self.node("Reshape", &[&value, &shape], None);
            if inner.iter().any(|dim| *dim != Dim::Fixed(1)) {
                value = self.expanded(&value, inner);
            }
        } else if !is_usual(&ValueSpec { dtype: DType::I64, ..spec.clone() }, self.tokens.as_deref()) {
            return None;
        }
        Some(self.cast(value, spec.dtype))
    }

    /// A value `[batch, 1, …, sequence]` with its inner axes as the graph declares them; the last
    /// of those that it leaves open is as long as the tokens.
    fn expanded(&mut self, value: &str, inner: &[Dim]) -> String {
        let sequence = self.sequence(vec![1]);
        let size = |dim: &Dim, at: usize| match dim {
            Dim::Fixed(size) => i64::try_from(*size).ok(),
            _ if at + 1 == inner.len() => None,
            _ => Some(1),
        };
        let mut all = vec![self.constant(vec![1])];
        for (at, dim) in inner.iter().enumerate() {
            all.push(size(dim, at).map_or_else(|| sequence.clone(), |size| self.constant(vec![size])));
        }
        // An axis of 1 stays as it is.
        all.push(self.constant(vec![1]));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let shape = self.node("Concat", &all, Some(("axis", 0)));
        self.node("Expand", &[value, &shape], None)
    }

    /// The numbers of the tokens, in the form that the graph wants them; nothing where nobody knows
    /// it.
    fn positions(&mut self, spec: &ValueSpec) -> Option<String> {
        if self.tokens.as_ref().is_some_and(|dims| dims.len() != 2)
            || !matches!(spec.dtype, DType::I64 | DType::I32)
        {
            return None;
        }
        let length = self.sequence(Vec::new());
        let [zero, one] = [0, 1].map(|number| self.list(Vec::new(), vec![number]));
        let value = self.node("Range", &[&zero, &length, &one], None);
        let value = match spec.shape.as_deref() {
            Some([_]) => value,
            Some([Dim::Fixed(1), _]) => {
                let shape = self.constant(vec![1, -1]);
                self.node("Reshape", &[&value, &shape], None)
            }
            None | Some([_, _]) => {
                let shape = self.node("Shape", &[Meaning::Ids.name()], None);
                self.node("Expand", &[&value, &shape], None)
            }
            _ => return None,
        };
        Some(self.cast(value, spec.dtype))
    }

    /// How many tokens a row has, in that shape of one element.
    fn sequence(&mut self, shape: Vec<usize>) -> String {
        let sizes = self.node("Shape", &[Meaning::Ids.name()], None);
        let at = self.list(shape, vec![1]);
        self.node("Gather", &[&sizes, &at], Some(("axis", 0)))
    }

    fn cast(&mut self, value: String, dtype: DType) -> String {
        self.node("Cast", &[&value], Some(("to", data_type(dtype) as i64)))
    }

    fn node(&mut self, op: &str, inputs: &[&str], attribute: Option<(&str, i64)>) -> String {
        let output = inner(&format!("{op}_{}", self.nodes.len()));
        let mut made = node(op, inputs, &output);
        made.attributes.extend(attribute.map(|(name, number)| (name.to_string(), Attribute::Int(number))));
        self.nodes.push(made);
        output
    }

    fn constant(&mut self, list: Vec<i64>) -> String {
        self.list(vec![list.len()], list)
    }

    fn list(&mut self, shape: Vec<usize>, list: Vec<i64>) -> String {
        // One element for a shape of one.
        Value::new(shape, list).map_or_else(|_| String::new(), |value| self.initializer(&value))
    }

    fn initializer(&mut self, value: &Value) -> String {
        let name = inner(&format!("constant_{}", self.model.graph.initializers.len()));
        self.model.graph.initializers.insert(name.clone(), Tensor::from_value(value));
        name
    }
}

fn with_nodes(model: &Model, nodes: &[Node]) -> Model {
    let mut model = model.clone();
    model.graph.nodes.splice(0..0, nodes.iter().cloned());
    model
}

/// Whether the last token of each row, which is masked, is not seen by the others: two ids there
/// give the same in all their outputs.
fn hides_what_is_masked(model: &Model) -> bool {
    /// The size where the graph leaves one open: rows, and tokens.
    const SMALL: [usize; 2] = [1, 3];
    let ids = model.graph.inputs.iter().find(|spec| spec.name == Meaning::Ids.name());
    let dims = ids.and_then(|spec| spec.shape.as_deref()).unwrap_or_default();
    let size = |axis: usize| match dims.get(axis) {
        Some(Dim::Fixed(size)) => *size,
        _ => SMALL[axis],
    };
    let [rows, tokens] = [size(0), size(1)];
    let Ok(oracle) = Oracle::new(model) else { return false };
    let run = |last: i64| -> Option<NamedValues> {
        let of = |element: &dyn Fn(bool) -> i64| -> Option<Value> {
            let elements = (0..rows * tokens).map(|at| element(at % tokens + 1 == tokens));
            Value::new([rows, tokens], elements.collect::<Vec<i64>>()).ok()
        };
        let mut inputs = NamedValues::new();
        for spec in &model.graph.inputs {
            let value = match spec.name.as_str() {
                "input_ids" => of(&|is_last| if is_last { last } else { 0 })?,
                "attention_mask" => of(&|is_last| i64::from(!is_last))?,
                _ => of(&|_| 0)?,
            };
            let value = match spec.dtype {
                DType::I32 => {
                    Value::new([rows, tokens], value.to_f64().iter().map(|&x| x as i32).collect::<Vec<_>>())
                        .ok()?
                }
                _ => value,
            };
            inputs.insert(&spec.name, value);
        }
        oracle.run(&inputs).ok()
    };
    let (Some(one), Some(other)) = (run(0), run(1)) else { return false };
    let mut values = one.iter().zip(other.iter());
    values.all(|((_, one), (_, other))| {
        let per_token = one.shape().get(1) == Some(&tokens);
        let width = one.len() / (rows * if per_token { tokens } else { 1 }).max(1);
        let is_seen = |at: usize| !per_token || (at / width.max(1)) % tokens + 1 < tokens;
        let pairs = one.to_f64().into_iter().zip(other.to_f64()).enumerate();
        pairs.filter(|(at, _)| is_seen(*at)).all(|(_, (a, b))| a.is_finite() && a == b)
    })
}

/// A node that is called as its only output.
pub(super) fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: output.into(),
        op: op.into(),
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec![output.into()],
        ..Node::default()
    }
}

/// Gives a value another name, in branches, too: no other value of a checked graph has its name.
fn rename(graph: &mut Graph, from: &str, to: &str) {
    let change = |name: &mut String| {
        if name == from {
            *name = to.into();
        }
    };
    graph.inputs.iter_mut().chain(&mut graph.outputs).for_each(|spec| change(&mut spec.name));
    if let Some((at, _, tensor)) = graph.initializers.shift_remove_full(from) {
        graph.initializers.shift_insert(at, to.into(), tensor);
    }
    if let Some(spec) = graph.value_info.shift_remove(from) {
        graph.value_info.insert(to.into(), ValueSpec { name: to.into(), ..spec });
    }
    for node in &mut graph.nodes {
        node.inputs.iter_mut().chain(&mut node.outputs).for_each(change);
        for attribute in node.attributes.values_mut() {
            match attribute {
                Attribute::Graph(inner) => rename(inner, from, to),
                Attribute::Graphs(all) => all.iter_mut().for_each(|inner| rename(inner, from, to)),
                _ => {}
            }
        }
    }
}
