//! A graph that is written node by node, and where its numbers come from.

use engine::{DType, Dim, Value, ValueSpec};
use onnx_graph::{Attribute, Model, Node, Tensor};

/// Random numbers: Steele, Lea and Flood's SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// Between −1 and 1.
    pub fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

pub struct Sketch {
    pub model: Model,
    pub random: Random,
    count: usize,
}

impl Sketch {
    pub fn new(opset: i64, random: Random) -> Self {
        let opsets = [(String::new(), opset), ("com.microsoft".into(), 1)].into();
        Self { model: Model { ir_version: 10, opsets, ..Model::default() }, random, count: 0 }
    }

    pub fn opset(&self) -> i64 {
        self.model.opsets[""]
    }

    pub fn input(&mut self, name: &str, dtype: DType, dims: &[Dim]) -> String {
        let shape = Some(dims.to_vec());
        self.model.graph.inputs.push(ValueSpec { name: name.into(), dtype, shape, optional: false });
        name.into()
    }

    pub fn output(&mut self, name: &str) {
        if self.model.graph.outputs.iter().all(|spec| spec.name != name) {
            let spec = ValueSpec { name: name.into(), dtype: DType::F32, shape: None, optional: false };
            self.model.graph.outputs.push(spec);
        }
    }

    pub fn constant(&mut self, value: Value) -> String {
        self.count += 1;
        let name = format!("c{}", self.count);
        self.model.graph.initializers.insert(name.clone(), Tensor::from_value(&value));
        name
    }

    /// A scalar; now and then of rank 1.
    pub fn number(&mut self, number: f32) -> String {
        let shape: &[usize] = if self.random.once_in(6) { &[1] } else { &[] };
        self.constant(Value::new(shape, vec![number]).unwrap())
    }

    pub fn ints(&mut self, ints: &[i64]) -> String {
        self.constant(Value::new([ints.len()], ints.to_vec()).unwrap())
    }

    /// Numbers without a pattern, up to a size.
    pub fn weights(&mut self, shape: &[usize], size: f32) -> String {
        let count = shape.iter().product();
        let numbers: Vec<f32> = (0..count).map(|_| size * self.random.number()).collect();
        self.constant(Value::new(shape, numbers).unwrap())
    }

    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.count += 1;
        let output = format!("v{}", self.count);
        let (domain, op) = op.split_once('.').map_or(("", op), |(_, op)| ("com.microsoft", op));
        self.model.graph.nodes.push(Node {
            name: format!("n{}", self.count),
            op: op.into(),
            domain: domain.into(),
            inputs: inputs.iter().map(|input| (*input).to_string()).collect(),
            outputs: vec![output.clone()],
            attributes: attributes.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect(),
            ..Node::default()
        });
        output
    }

    pub fn op(&mut self, op: &str, inputs: &[&str]) -> String {
        self.node(op, inputs, &[])
    }

    /// Either order of what commutes.
    pub fn pair(&mut self, op: &str, a: &str, b: &str) -> String {
        if self.random.once_in(2) { self.op(op, &[a, b]) } else { self.op(op, &[b, a]) }
    }

    pub fn with_number(&mut self, op: &str, x: &str, number: f32) -> String {
        let number = self.number(number);
        if matches!(op, "Mul" | "Add") { self.pair(op, x, &number) } else { self.op(op, &[x, &number]) }
    }

    pub fn cast(&mut self, x: &str, to: DType) -> String {
        self.node("Cast", &[x], &[("to", Attribute::Int(code(to)))])
    }

    /// With axes as an attribute or, where the opset has it so, as an input.
    pub fn with_axes(&mut self, op: &str, x: &str, axes: &[i64], since: i64) -> String {
        if self.opset() < since {
            return self.node(op, &[x], &[("axes", Attribute::Ints(axes.to_vec()))]);
        }
        let axes = self.ints(axes);
        self.op(op, &[x, &axes])
    }

    pub fn unsqueeze(&mut self, x: &str, axes: &[i64]) -> String {
        self.with_axes("Unsqueeze", x, axes, 13)
    }

    pub fn mean(&mut self, x: &str) -> String {
        self.with_axes("ReduceMean", x, &[-1], 18)
    }

    pub fn transpose(&mut self, x: &str, perm: &[i64]) -> String {
        self.node("Transpose", &[x], &[("perm", Attribute::Ints(perm.to_vec()))])
    }

    pub fn gather(&mut self, table: &str, indices: &str, axis: i64) -> String {
        self.node("Gather", &[table, indices], &[("axis", Attribute::Int(axis))])
    }
}

/// ONNX's number of a dtype (TensorProto.DataType).
fn code(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::BF16 => 16,
    }
}
