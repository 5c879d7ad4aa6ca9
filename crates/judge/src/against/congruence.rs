//! Two graphs that compute the same by the same operators, whatever their values are called, and
//! whatever was folded, renamed, or written as another view.
//!
//! Both graphs are gone through without running them. Each value gets a number, and two values get
//! the same one only if they are the same for every input: the same input, the same constant, the
//! same product of the inputs' dimensions, or the same operator on values of the same numbers. What
//! an optimizer fuses into another operator gets a number of its own, and then nothing is said: the
//! runs decide.

use std::collections::{BTreeMap, HashMap};

use engine::{DType, Element, Value};
use onnx_eval::{Operation, OracleError, operations};
use onnx_graph::shape::Size as _;
use onnx_graph::{Attribute, Model, Node};
use onnx_session::compiled::{Dim, Known};
use report::Unexplained;

/// Attributes that mean the same where they are left out: of an operator, from this version on.
const DEFAULTS: [(&str, &str, i64, i64); 12] = [
    ("Gather", "axis", 1, 0),
    ("Split", "axis", 1, 0),
    ("Softmax", "axis", 13, -1),
    ("LogSoftmax", "axis", 13, -1),
    ("LayerNormalization", "axis", 17, -1),
    ("LayerNormalization", "stash_type", 17, 1),
    ("ReduceMean", "keepdims", 1, 1),
    ("ReduceSum", "keepdims", 1, 1),
    ("ReduceMax", "keepdims", 1, 1),
    ("ArgMax", "axis", 1, 0),
    ("ArgMax", "keepdims", 1, 1),
    ("Cast", "saturate", 19, 1),
];

/// How many of a table's rows are tried.
const ROWS: usize = 512;

/// What two graphs have in common.
#[derive(Debug, Default)]
pub(super) struct Congruence {
    /// The outputs that are the same for every input.
    pub outputs: Vec<String>,
    /// The first node of the second graph that takes what the first graph has, and makes something
    /// of it that the first does not.
    pub first: Option<Unexplained>,
    /// Rows that are looked up by an input of that name, and are not the same in both.
    pub rows: Vec<(String, Vec<i64>)>,
}

/// What a value is, by the numbers of what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Term {
    Input(String),
    Constant(usize),
    /// A list of products of dimensions, as they are written.
    Sizes(String),
    /// Elements in the same order under another shape, which is written.
    View(usize, String),
    Expanded(usize, String),
    Transposed(usize, Vec<usize>),
    /// An operator as it is written, with its attributes and version; and which of its outputs.
    Made(String, Vec<Option<usize>>, usize),
    /// Like nothing else.
    Own(usize),
}

/// Constants of one dtype and shape, with their numbers among constants.
type Alike = Vec<(usize, Value)>;

#[derive(Default)]
struct Numbers {
    terms: HashMap<Term, usize>,
    all: Vec<Term>,
    /// The shape of each, where it is known.
    shapes: Vec<Option<Vec<Dim>>>,
    constants: HashMap<(DType, Vec<usize>), Alike>,
    count: usize,
}

/// A graph on the way.
struct Side<'a> {
    known: &'a Known,
    numbers: HashMap<String, usize>,
}

impl Congruence {
    /// Compares two graphs.
    ///
    /// # Errors
    /// If one of them has an operator that is not known.
    pub fn of(raw: &Model, other: &Model) -> Result<Self, OracleError> {
        let [first, second] = [Known::of(raw)?, Known::of(other)?];
        let shapes = |known: &Known| -> BTreeMap<String, Option<Vec<Dim>>> {
            let inputs = raw.graph.inputs.iter().map(|spec| &spec.name);
            inputs.map(|name| (name.clone(), known.shape(name).map(<[Dim]>::to_vec))).collect()
        };
        // Dimensions are the same only where both graphs declare the same.
        let limits = |known: &Known| known.limits().to_vec();
        if shapes(&first) != shapes(&second) || limits(&first) != limits(&second) {
            return Ok(Self::default());
        }
        let mut numbers = Numbers::default();
        let (of_raw, _) = numbers.graph(raw, &first, &operations(raw)?);
        let common = numbers.all.len();
        let made = operations(other)?;
        let (of_other, taken) = numbers.graph(other, &second, &made);
        let same =
            |name: &String| of_raw.numbers.get(name).is_some_and(|of| of_other.numbers.get(name) == Some(of));
        let outputs = raw.graph.outputs.iter().map(|spec| spec.name.clone()).filter(|name| same(name));
        // Another view of what both have is not where they part.
        let is_new = |name: &&String| {
            let base = |number: &usize| match numbers.all[*number] {
                Term::View(base, _) | Term::Transposed(base, _) | Term::Expanded(base, _) => base,
                _ => *number,
            };
            of_other.numbers.get(*name).map(base).is_some_and(|number| number >= common)
        };
        // What only says how large something is is not where two graphs part.
        let tells = |name: &&String| !second.is_constant(name) && !second.is_sizes(name);
        let is_first = |node: &&Node| {
            let mut inputs = node.inputs.iter().filter(tells);
            node.outputs.iter().filter(tells).any(|name| is_new(&name)) && !inputs.any(|name| is_new(&name))
        };
        let first = made.iter().map(Operation::node).filter(|node| !node.outputs.is_empty()).find(is_first);
        Ok(Self {
            outputs: outputs.collect(),
            first: first.map(|node| Unexplained {
                node: node.name.clone(),
                why: format!("({}) the first graph has nothing that is the same by its operators", node.op),
            }),
            rows: numbers.rows(&taken, common),
        })
    }
}

/// A lookup: the number of the table, and that of the indices.
type Lookup = (usize, usize);

impl Numbers {
    fn number(&mut self, term: Term) -> usize {
        let next = self.all.len();
        let number = *self.terms.entry(term.clone()).or_insert(next);
        if number == next {
            self.all.push(term);
            self.shapes.push(None);
        }
        number
    }

    /// The number of what has this shape.
    fn shaped(&mut self, term: Term, shape: Option<Vec<Dim>>) -> usize {
        let number = self.number(term);
        self.shapes[number] = self.shapes[number].take().or(shape);
        number
    }

    fn constant(&mut self, value: Value) -> usize {
        let alike = self.constants.entry((value.dtype(), value.shape().to_vec())).or_default();
        let shape = value.shape().iter().map(|&size| Dim::fixed(size)).collect();
        let known = alike.iter().find(|(_, other)| *other == value).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            self.count += 1;
            alike.push((self.count, value));
            self.count
        });
        self.shaped(Term::Constant(number), Some(shape))
    }

    /// Something that is like nothing else.
    fn own(&mut self) -> usize {
        self.number(Term::Own(self.all.len()))
    }

    fn held(&self, number: usize) -> Option<&Value> {
        let Some(Term::Constant(constant)) = self.all.get(number) else { return None };
        self.constants.values().flatten().find(|(other, _)| other == constant).map(|(_, value)| value)
    }

    /// The numbers of a graph's values, and its lookups in constant tables.
    fn graph<'a>(
        &mut self,
        model: &Model,
        known: &'a Known,
        operations: &[Operation],
    ) -> (Side<'a>, Vec<Lookup>) {
        let mut side = Side { known, numbers: HashMap::new() };
        for spec in &model.graph.inputs {
            // One that has a default is taken for that.
            let number = match known.constant(&spec.name) {
                Some(value) => self.constant(value),
                None => {
                    let shape = known.shape(&spec.name).map(<[Dim]>::to_vec);
                    self.shaped(Term::Input(spec.name.clone()), shape)
                }
            };
            side.numbers.insert(spec.name.clone(), number);
        }
        let mut lookups = Vec::new();
        for operation in operations {
            let node = operation.node();
            let inputs: Vec<Option<usize>> =
                node.inputs.iter().map(|name| (!name.is_empty()).then(|| self.value(&side, name))).collect();
            for (at, output) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let number = self.output(&side, operation, &inputs, at, output);
                let shape = || known.shape(output).map(<[Dim]>::to_vec);
                self.shapes[number] = self.shapes[number].take().or_else(shape);
                side.numbers.insert(output.clone(), number);
            }
            if let ("Gather", [Some(table), Some(indices), ..]) = (node.op.as_str(), &inputs[..])
                && node.domain.is_empty()
                && self.held(*table).is_some_and(|table| table.shape().len() == 2)
            {
                lookups.push((*table, *indices));
            }
        }
        (side, lookups)
    }

    /// The number of a value that is there before any node, or has been made.
    fn value(&mut self, side: &Side, name: &str) -> usize {
        if let Some(&number) = side.numbers.get(name) {
            return number;
        }
        match side.known.constant(name) {
            Some(value) => self.constant(value),
            None => self.own(),
        }
    }

    fn output(
        &mut self,
        side: &Side,
        operation: &Operation,
        inputs: &[Option<usize>],
        at: usize,
        output: &str,
    ) -> usize {
        let (node, known) = (operation.node(), side.known);
        if let Some(value) = known.constant(output) {
            return self.constant(value);
        }
        if let Some(sizes) = known.sizes(output) {
            return self.number(Term::Sizes(format!("{:?} {sizes:?}", known.shape(output))));
        }
        let first = inputs.first().copied().flatten();
        let own_shape = node.inputs.first().and_then(|name| known.shape(name));
        let shape = known.shape(output);
        let is_same_shape = own_shape.is_some() && own_shape == shape;
        let is_plain = node.domain.is_empty() && at == 0;
        match (node.op.as_str(), first, shape) {
            ("Identity" | "Dropout", Some(input), _) if is_plain && !is_training(node, known) => input,
            ("Cast", Some(input), _) if is_plain && same_dtype(node, output, known) => input,
            ("Expand" | "Slice", Some(input), _)
                if is_plain && is_same_shape && steps_forward(node, known) =>
            {
                input
            }
            ("Expand", Some(input), Some(shape)) if is_plain => {
                self.number(Term::Expanded(input, format!("{shape:?}")))
            }
            ("Reshape" | "Unsqueeze" | "Squeeze" | "Flatten", Some(input), Some(shape)) if is_plain => {
                self.view(input, shape)
            }
            ("Transpose", Some(input), _) if is_plain && own_shape.is_some() => {
                self.transposed(input, axes(node, own_shape.map_or(0, <[Dim]>::len)))
            }
            ("MatMul", _, _) if is_plain => match *inputs {
                [Some(left), Some(right)] => self.product(operation, left, right),
                _ => self.own(),
            },
            ("Add", _, _) if is_plain => match *inputs {
                [Some(left), Some(right)] => self.sum(operation, left, right),
                _ => self.own(),
            },
            ("Gemm", _, _) if is_plain => match self.gemm(operation, inputs) {
                Some(number) => number,
                None => self.made(operation, inputs.to_vec(), at),
            },
            _ => self.made(operation, inputs.to_vec(), at),
        }
    }

    /// Whatever a value is a view of is what counts.
    fn view(&mut self, input: usize, shape: &[Dim]) -> usize {
        let base = match self.all[input] {
            Term::View(base, _) => base,
            _ => input,
        };
        if self.shapes[base].as_deref() == Some(shape) {
            return base;
        }
        self.shaped(Term::View(base, format!("{shape:?}")), Some(shape.to_vec()))
    }

    /// A value with its rows, whatever they count, on one axis; and the shape that it has.
    fn by_rows(&mut self, number: usize) -> Option<(usize, Vec<Dim>)> {
        let own = self.shapes[number].clone()?;
        let (last, rows) = own.split_last()?;
        let all = rows.iter().try_fold(Dim::fixed(1), |all, dim| all.times(dim))?;
        Some((self.view(number, &[all, last.clone()]), own))
    }

    /// The last axis of a constant of so many axes.
    fn width(&self, number: usize, rank: usize) -> Option<Dim> {
        let shape = self.held(number)?.shape();
        shape.last().filter(|_| shape.len() == rank).map(|&size| Dim::fixed(size))
    }

    /// A product with a matrix goes row by row, however the rows are arranged.
    fn product(&mut self, operation: &Operation, left: usize, right: usize) -> usize {
        let made = |left, right| {
            Term::Made(format!("MatMul {}", operation.opset()), vec![Some(left), Some(right)], 0)
        };
        let Some(width) = self.width(right, 2) else { return self.number(made(left, right)) };
        let Some((rows, mut shape)) = self.by_rows(left) else { return self.number(made(left, right)) };
        shape.pop();
        shape.push(width.clone());
        let count = self.shapes[rows].as_ref().and_then(|dims| dims.first().cloned());
        let product = self.shaped(made(rows, right), count.map(|count| vec![count, width]));
        self.view(product, &shape)
    }

    /// So does a sum with a vector.
    fn sum(&mut self, operation: &Operation, left: usize, right: usize) -> usize {
        let made = |this: &mut Self, left, right, shape| {
            let mut sides = [Some(left), Some(right)];
            sides.sort_unstable();
            this.shaped(Term::Made(format!("Add {}", operation.opset()), sides.to_vec(), 0), shape)
        };
        let [value, vector] = if self.held(left).is_some() { [right, left] } else { [left, right] };
        let last = self.shapes[value].as_ref().and_then(|dims| dims.last().cloned());
        if last.is_none() || last != self.width(vector, 1) {
            return made(self, left, right, None);
        }
        let Some((rows, shape)) = self.by_rows(value) else { return made(self, left, right, None) };
        let of_rows = self.shapes[rows].clone();
        let sum = made(self, rows, vector, of_rows);
        self.view(sum, &shape)
    }

    fn transposed(&mut self, input: usize, axes: Vec<usize>) -> usize {
        let (base, axes) = match &self.all[input] {
            Term::Transposed(base, before) if before.len() == axes.len() => {
                (*base, axes.iter().map(|&axis| before[axis]).collect())
            }
            _ => (input, axes),
        };
        if axes.iter().copied().eq(0..axes.len()) {
            return base;
        }
        if let Some(turned) = self.held(base).filter(|_| axes == [1, 0]).and_then(turned) {
            return self.constant(turned);
        }
        self.number(Term::Transposed(base, axes))
    }

    /// A product and a sum, as which exporters write it, too.
    fn gemm(&mut self, operation: &Operation, inputs: &[Option<usize>]) -> Option<usize> {
        let node = operation.node();
        let one = |name: &str| node.float(name).ok().flatten().unwrap_or(1.0) == 1.0;
        let [Some(left), Some(right), ..] = *inputs else { return None };
        if !one("alpha") || !one("beta") {
            return None;
        }
        let mut side = |number: usize, name: &str| match node.int(name).ok().flatten().unwrap_or(0) {
            0 => number,
            _ => self.transposed(number, vec![1, 0]),
        };
        let (left, right) = (side(left, "transA"), side(right, "transB"));
        let product = self.product(operation, left, right);
        match inputs.get(2).copied().flatten() {
            Some(bias) => Some(self.sum(operation, product, bias)),
            None => Some(product),
        }
    }

    fn made(&mut self, operation: &Operation, mut inputs: Vec<Option<usize>>, at: usize) -> usize {
        let node = operation.node();
        if operation.has_branches() || node.op.starts_with("Random") {
            return self.own();
        }
        let commutes = matches!(node.op.as_str(), "Mul" | "Max" | "Min" | "And" | "Or" | "Equal");
        if commutes && node.domain.is_empty() && inputs.len() == 2 {
            inputs.sort_unstable();
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let mut written = format!("{} {}", node.op, operation.opset());
        if !node.domain.is_empty() {
            written += &format!(" of {}", node.domain);
        }
        let attributes: BTreeMap<&String, &Attribute> = node.attributes.iter().collect();
        for (name, attribute) in attributes {
            let is_default = |&(op, own, since, default): &(&str, &str, i64, i64)| {
                op == node.op
                    && own == name
                    && operation.opset() >= since
                    && *attribute == Attribute::Int(default)
            };
            if node.domain.is_empty() && DEFAULTS.iter().any(is_default) {
                continue;
            }
            match attribute {
                Attribute::Tensor(tensor) => match tensor.to_value() {
                    Ok(value) => written += &format!(" {name} constant {}", self.constant(value)),
                    Err(_) => return self.own(),
                },
                Attribute::Int(_) | Attribute::Float(_) | Attribute::String(_) => {
                    written += &format!(" {name} {attribute:?}");
                }
                Attribute::Ints(_) | Attribute::Floats(_) | Attribute::Strings(_) => {
                    written += &format!(" {name} {attribute:?}");
                }
                _ => return self.own(),
            }
        }
        self.number(Term::Made(written, inputs, at))
    }

    /// The rows that differ between lookups in the second graph and those of the first by the same
    /// indices, where these are an input.
    fn rows(&self, lookups: &[Lookup], common: usize) -> Vec<(String, Vec<i64>)> {
        let mut all = Vec::new();
        for &(table, indices) in lookups.iter().filter(|(table, _)| *table >= common) {
            let Some(Term::Input(input)) = self.all.get(indices) else { continue };
            let Some(found) = self.held(table) else { continue };
            // What the first graph looks up by this input, of as many columns.
            let is_lookup = |term: &&Term| match term {
                Term::Made(op, inputs, 0) => {
                    op.starts_with("Gather ") && inputs.get(1) == Some(&Some(indices))
                }
                _ => false,
            };
            for term in self.all[..common].iter().filter(is_lookup) {
                let Term::Made(_, inputs, _) = term else { continue };
                let Some(meant) = inputs[0].and_then(|number| self.held(number)) else { continue };
                let rows = differing(meant, found);
                if !rows.is_empty() {
                    all.push((input.clone(), rows));
                }
            }
        }
        all
    }
}

/// The rows of two tables that differ, of those that both have.
fn differing(meant: &Value, found: &Value) -> Vec<i64> {
    let ([_, width], [_, other]) = (meant.shape(), found.shape()) else { return Vec::new() };
    if width != other {
        return Vec::new();
    }
    let (meant, found) = (meant.to_f64(), found.to_f64());
    let rows = meant.chunks((*width).max(1)).zip(found.chunks((*width).max(1)));
    let rows = rows.enumerate().filter(|(_, (meant, found))| meant != found);
    rows.map(|(row, _)| row as i64).take(ROWS).collect()
}

/// A matrix the other way round.
fn turned(matrix: &Value) -> Option<Value> {
    fn turn<T: Element + Copy>(matrix: &Value) -> Option<Value> {
        let &[rows, columns] = matrix.shape() else { return None };
        let elements = matrix.as_slice::<T>().ok()?;
        let turned =
            (0..columns).flat_map(|column| (0..rows).map(move |row| elements[row * columns + column]));
        Value::new([columns, rows], turned.collect::<Vec<T>>()).ok()
    }
    match matrix.dtype() {
        DType::F32 => turn::<f32>(matrix),
        DType::F64 => turn::<f64>(matrix),
        _ => None,
    }
}

fn axes(node: &Node, rank: usize) -> Vec<usize> {
    let given = node.ints("perm").ok().flatten();
    let given = given.map(|axes| axes.iter().filter_map(|&axis| usize::try_from(axis).ok()).collect());
    given.filter(|axes: &Vec<usize>| axes.len() == rank).unwrap_or_else(|| (0..rank).rev().collect())
}

fn same_dtype(node: &Node, output: &str, known: &Known) -> bool {
    let own = node.inputs.first().and_then(|name| known.dtype(name));
    own.is_some() && own == known.dtype(output)
}

/// Whether a dropout drops anything.
fn is_training(node: &Node, known: &Known) -> bool {
    let given = node.inputs.get(2).filter(|name| !name.is_empty());
    given.is_some_and(|name| known.constant(name).is_none_or(|value| value.to_f64() != [0.0]))
}

/// Whether a slice that keeps the shape keeps the order, too. What is no slice does.
fn steps_forward(node: &Node, known: &Known) -> bool {
    let steps = node.inputs.get(4).filter(|name| !name.is_empty());
    steps.is_none_or(|name| known.ints(name).is_some_and(|steps| steps.iter().all(|&step| step == 1)))
}
