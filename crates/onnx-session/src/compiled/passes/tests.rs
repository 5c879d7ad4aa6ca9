//! Each pass on small graphs: that it finds what exports have, that it leaves alone what only looks like it, and that what it makes computes the same.

use std::collections::BTreeMap;

use engine::{DType, Dim, Engine, NamedValues, Value, ValueSpec};
use onnx_eval::operations;
use onnx_graph::{Attribute, Model, Node, Tensor};

mod places;

use super::PASSES;
use crate::compiled::build::build;
use crate::compiled::{CompiledEngine, Options, Passes, Threads};

/// How far a fused kernel may be from the chain it replaces, as a share of the largest result, or of 1 if that is less. The chain is computed in f64 and
/// rounded once a node, the kernel rounds to f32 throughout: eight units in the last place.
const FUSION_REACH: f64 = 8.0 * f32::EPSILON as f64;

const HIDDEN: usize = 8;

/// A graph that is written node by node.
struct Sketch {
    model: Model,
    count: usize,
}

impl Sketch {
    fn new(opset: i64) -> Self {
        let opsets = [(String::new(), opset), ("com.microsoft".into(), 1)].into();
        Self { model: Model { ir_version: 8, opsets, ..Model::default() }, count: 0 }
    }

    fn input(&mut self, name: &str, dtype: DType, dims: &[Dim]) -> String {
        let shape = Some(dims.to_vec());
        self.model.graph.inputs.push(ValueSpec { name: name.into(), dtype, shape, optional: false });
        name.into()
    }

    /// `[batch, sequence, HIDDEN]`, or another width.
    fn rows(&mut self, name: &str, width: usize) -> String {
        self.input(name, DType::F32, &[symbol("batch"), symbol("sequence"), Dim::Fixed(width)])
    }

    fn constant(&mut self, value: Value) -> String {
        self.count += 1;
        let name = format!("c{}", self.count);
        self.model.graph.initializers.insert(name.clone(), Tensor::from_value(&value));
        name
    }

    fn number(&mut self, number: f32) -> String {
        self.constant(Value::scalar(number))
    }

    fn ints(&mut self, ints: &[i64]) -> String {
        self.constant(Value::new([ints.len()], ints.to_vec()).unwrap())
    }

    /// Constant numbers without a pattern.
    fn weights(&mut self, shape: &[usize]) -> String {
        self.count += 1;
        let count: usize = shape.iter().product();
        self.constant(Value::new(shape, numbers(count, self.count as u64)).unwrap())
    }

    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.nodes(op, inputs, attributes, 1).remove(0)
    }

    /// A node of several outputs.
    fn nodes(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
        count: usize,
    ) -> Vec<String> {
        self.count += 1;
        let outputs: Vec<String> = (0..count).map(|part| format!("v{}.{part}", self.count)).collect();
        let (domain, op) = op.split_once('.').map_or(("", op), |(_, op)| ("com.microsoft", op));
        self.model.graph.nodes.push(Node {
            name: format!("n{}", self.count),
            op: op.into(),
            domain: domain.into(),
            inputs: inputs.iter().map(|input| (*input).to_string()).collect(),
            outputs: outputs.clone(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect(),
            ..Node::default()
        });
        outputs
    }

    fn output(&mut self, name: &str) -> &mut Self {
        let spec = ValueSpec { name: name.into(), dtype: DType::F32, shape: None, optional: false };
        self.model.graph.outputs.push(spec);
        self
    }

    /// How often each pass finds something.
    fn found(&self) -> BTreeMap<&'static str, usize> {
        let outputs: Vec<&str> = self.model.graph.outputs.iter().map(|spec| spec.name.as_str()).collect();
        let mut ir = build(&self.model, &operations(&self.model).unwrap(), &outputs).unwrap();
        let mut found = BTreeMap::new();
        for pass in PASSES {
            found.insert(pass.name, (pass.run)(&mut ir));
            ir.settle();
        }
        found
    }

    /// That a pass finds so many, and that the result is what the nodes give one by one.
    fn check(&self, pass: &str, wanted: usize) {
        assert_eq!(self.found()[pass], wanted, "{pass}: {:?}", self.found());
        let engine = |passes| {
            let options = Options { threads: Threads::Count(2), passes, ..Options::default() };
            CompiledEngine::new(&self.model, options).unwrap()
        };
        let (fused, plain) = (engine(Passes::all()), engine(Passes::none()));
        for sequence in [1, 5] {
            let inputs = self.inputs(3, sequence);
            let (found, expected) = (fused.run(&inputs).unwrap(), plain.run(&inputs).unwrap());
            for (name, expected) in expected.iter() {
                let found = found.get(name).unwrap();
                assert_eq!(found.shape(), expected.shape(), "{name}");
                let expected = expected.to_f64();
                let largest = expected.iter().fold(1.0f64, |largest, x| largest.max(x.abs()));
                for (a, b) in found.to_f64().iter().zip(&expected) {
                    assert!((a - b).abs() <= FUSION_REACH * largest, "{name}: {a} instead of {b}");
                }
            }
        }
        assert_eq!((fused.general_runs(), plain.general_runs()), (0, 0));
    }

    fn inputs(&self, batch: usize, sequence: usize) -> NamedValues {
        let mut inputs = NamedValues::new();
        for (index, spec) in self.model.graph.inputs.iter().enumerate() {
            let size = |dim: &Dim| match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbol(name) if name == "batch" => batch,
                _ => sequence,
            };
            let shape: Vec<usize> = spec.shape.iter().flatten().map(size).collect();
            let count = shape.iter().product();
            let value = match spec.dtype {
                DType::I64 if spec.name == "mask" => {
                    let real = |at: usize| i64::from(at % sequence <= (at / sequence + 1) % sequence);
                    Value::new(shape, (0..count).map(real).collect::<Vec<_>>())
                }
                DType::I64 => Value::new(shape, (0..count).map(|at| (at * 7 % 5) as i64).collect::<Vec<_>>()),
                _ => Value::new(shape, numbers(count, 90 + index as u64)),
            };
            inputs.insert(spec.name.clone(), value.unwrap());
        }
        inputs
    }
}

fn symbol(name: &str) -> Dim {
    Dim::Symbol(name.into())
}

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn int(int: i64) -> Attribute {
    Attribute::Int(int)
}

/// How a LayerNorm is written.
#[derive(Clone)]
struct Norm {
    axis: i64,
    axes_as_input: bool,
    power: Option<f32>,
    flipped: bool,
    keepdims: i64,
}

const NORM: Norm = Norm { axis: -1, axes_as_input: false, power: Some(2.0), flipped: false, keepdims: 1 };

/// Its values: the centred ones and the result.
fn layer_norm(sketch: &mut Sketch, norm: &Norm) -> (String, String) {
    let x = sketch.rows("x", HIDDEN);
    let mean = |sketch: &mut Sketch, x: &str| {
        let keep = ("keepdims", int(norm.keepdims));
        if norm.axes_as_input {
            let axes = sketch.ints(&[norm.axis]);
            return sketch.node("ReduceMean", &[x, &axes], &[keep]);
        }
        sketch.node("ReduceMean", &[x], &[("axes", Attribute::Ints(vec![norm.axis])), keep])
    };
    let average = mean(sketch, &x);
    let difference = sketch.node("Sub", &[&x, &average], &[]);
    let square = match norm.power {
        Some(power) => {
            let power = sketch.number(power);
            sketch.node("Pow", &[&difference, &power], &[])
        }
        None => sketch.node("Mul", &[&difference, &difference], &[]),
    };
    let variance = mean(sketch, &square);
    let eps = sketch.number(1e-5);
    let moved = sketch.node("Add", &[&variance, &eps], &[]);
    let deviation = sketch.node("Sqrt", &[&moved], &[]);
    let quotient = sketch.node("Div", &[&difference, &deviation], &[]);
    let (gamma, beta) = (sketch.weights(&[HIDDEN]), sketch.weights(&[HIDDEN]));
    let pair = |a, b| if norm.flipped { [b, a] } else { [a, b] };
    let scaled = sketch.node("Mul", &pair(&quotient, &gamma).map(|s: &String| s.as_str()), &[]);
    let result = sketch.node("Add", &pair(&scaled, &beta).map(|s: &String| s.as_str()), &[]);
    (difference, result)
}

#[test]
fn a_layer_norm_is_found_in_its_forms() {
    for norm in [NORM, Norm { axis: 2, ..NORM }, Norm { power: None, ..NORM }, Norm { flipped: true, ..NORM }]
    {
        let mut sketch = Sketch::new(17);
        let (_, result) = layer_norm(&mut sketch, &norm);
        sketch.output(&result).check("LayerNormFusion", 1);
    }
    // Without a β.
    let mut sketch = Sketch::new(17);
    layer_norm(&mut sketch, &NORM);
    let scaled = sketch.model.graph.nodes.pop().unwrap().inputs.remove(0);
    sketch.output(&scaled).check("LayerNormFusion", 1);
    let mut sketch = Sketch::new(18);
    let (_, result) = layer_norm(&mut sketch, &Norm { axes_as_input: true, ..NORM });
    sketch.output(&result).check("LayerNormFusion", 1);
    let mut sketch = Sketch::new(17);
    let (x, gamma) = (sketch.rows("x", HIDDEN), sketch.weights(&[HIDDEN]));
    let result = sketch.node("LayerNormalization", &[&x, &gamma], &[("axis", int(-1))]);
    sketch.output(&result).check("LayerNormFusion", 1);
}

#[test]
fn what_is_no_layer_norm_is_left() {
    for norm in [Norm { axis: 1, ..NORM }, Norm { power: Some(4.0), ..NORM }] {
        let mut sketch = Sketch::new(17);
        let (_, result) = layer_norm(&mut sketch, &norm);
        sketch.output(&result).check("LayerNormFusion", 0);
    }
    // An intermediate that somebody else sees.
    let mut sketch = Sketch::new(17);
    let (difference, result) = layer_norm(&mut sketch, &NORM);
    sketch.output(&result).output(&difference).check("LayerNormFusion", 0);
    // Over two axes.
    let mut sketch = Sketch::new(17);
    let x = sketch.input("x", DType::F32, &[symbol("batch"), Dim::Fixed(5), Dim::Fixed(HIDDEN)]);
    let gamma = sketch.weights(&[5, HIDDEN]);
    let wide = sketch.node("LayerNormalization", &[&x, &gamma], &[("axis", int(1))]);
    sketch.output(&wide).check("LayerNormFusion", 0);
}

const ROOT: f32 = std::f32::consts::SQRT_2;

/// ½x(1 + erf(x/√2)) with these constants; `inverse` multiplies by the root's inverse.
fn gelu(
    sketch: &mut Sketch,
    half: f32,
    one: f32,
    root: f32,
    inverse: bool,
    order: usize,
) -> (String, String) {
    let x = sketch.rows("x", HIDDEN);
    let root = sketch.number(root);
    let inner = sketch.node(if inverse { "Mul" } else { "Div" }, &[&x, &root], &[]);
    let erf = sketch.node("Erf", &[&inner], &[]);
    let (half, one) = (sketch.number(half), sketch.number(one));
    let gate = sketch.node("Add", &[&erf, &one], &[]);
    let result = match order {
        0 => {
            let product = sketch.node("Mul", &[&x, &gate], &[]);
            sketch.node("Mul", &[&product, &half], &[])
        }
        1 => {
            let product = sketch.node("Mul", &[&half, &gate], &[]);
            sketch.node("Mul", &[&x, &product], &[])
        }
        _ => {
            let product = sketch.node("Mul", &[&half, &x], &[]);
            sketch.node("Mul", &[&gate, &product], &[])
        }
    };
    (gate, result)
}

#[test]
fn gelu_is_found_in_its_forms() {
    let inverse = std::f32::consts::FRAC_1_SQRT_2;
    for (root, by_inverse) in
        [(ROOT, false), (ROOT.next_up(), false), (inverse, true), (inverse.next_down(), true)]
    {
        for order in 0..3 {
            let mut sketch = Sketch::new(17);
            let (_, result) = gelu(&mut sketch, 0.5, 1.0, root, by_inverse, order);
            sketch.output(&result);
            assert_eq!(steps_left(&sketch), 1, "{root} {order}");
            sketch.check("GeluFusion", 2);
        }
    }
    for approximate in ["none", "tanh"] {
        let mut sketch = Sketch::new(20);
        let x = sketch.rows("x", HIDDEN);
        let result = sketch.node("Gelu", &[&x], &[("approximate", Attribute::String(approximate.into()))]);
        sketch.output(&result).check("GeluFusion", 1);
    }
}

/// How many steps are left.
fn steps_left(sketch: &Sketch) -> usize {
    CompiledEngine::new(&sketch.model, Options::default()).unwrap().steps().len()
}

#[test]
fn gelu_by_tanh_is_found_in_its_forms() {
    for drawn_out in [false, true] {
        let mut sketch = Sketch::new(17);
        let x = sketch.rows("x", HIDDEN);
        let [half, one, cubic, root, three] =
            [0.5, 1.0, 0.044715, (2.0f32 / std::f32::consts::PI).sqrt(), 3.0].map(|n| sketch.number(n));
        let inner = if drawn_out {
            let square = sketch.node("Mul", &[&x, &x], &[]);
            let square = sketch.node("Mul", &[&square, &cubic], &[]);
            let sum = sketch.node("Add", &[&square, &one], &[]);
            let scaled = sketch.node("Mul", &[&x, &root], &[]);
            sketch.node("Mul", &[&scaled, &sum], &[])
        } else {
            let cube = sketch.node("Pow", &[&x, &three], &[]);
            let cube = sketch.node("Mul", &[&cubic, &cube], &[]);
            let sum = sketch.node("Add", &[&x, &cube], &[]);
            sketch.node("Mul", &[&root, &sum], &[])
        };
        let tanh = sketch.node("Tanh", &[&inner], &[]);
        let gate = sketch.node("Add", &[&one, &tanh], &[]);
        let product = sketch.node("Mul", &[&x, &half], &[]);
        let result = sketch.node("Mul", &[&product, &gate], &[]);
        sketch.output(&result);
        assert_eq!(steps_left(&sketch), 1, "drawn out: {drawn_out}");
        sketch.check("GeluFusion", 2);
    }
}

#[test]
fn silu_and_quick_gelu_are_found() {
    for factor in [None, Some(1.702)] {
        let mut sketch = Sketch::new(17);
        let x = sketch.rows("x", HIDDEN);
        let inner = match factor {
            Some(factor) => {
                let factor = sketch.number(factor);
                sketch.node("Mul", &[&factor, &x], &[])
            }
            None => x.clone(),
        };
        let gate = sketch.node("Sigmoid", &[&inner], &[]);
        let result = sketch.node("Mul", &[&x, &gate], &[]);
        sketch.output(&result);
        assert_eq!(steps_left(&sketch), 1);
        sketch.check("GeluFusion", 2);
    }
}

#[test]
fn what_is_no_gelu_is_left() {
    let off = ROOT.next_up().next_up();
    for (half, one, root) in [(0.5, 1.0, off), (0.5f32.next_up(), 1.0, ROOT), (0.5, 1.0f32.next_down(), ROOT)]
    {
        let mut sketch = Sketch::new(17);
        let (_, result) = gelu(&mut sketch, half, one, root, false, 0);
        // The Erf is a kernel by itself.
        sketch.output(&result).check("GeluFusion", 1);
    }
    let mut sketch = Sketch::new(17);
    let (gate, result) = gelu(&mut sketch, 0.5, 1.0, ROOT, false, 0);
    sketch.output(&result).output(&gate).check("GeluFusion", 1);
}

/// Exponents that add up to 3, of which the product is x³ for some x only: NaN below 0, or at 0.
#[test]
fn broken_powers_are_no_cube() {
    for (powers, found) in [
        ([1.0, 2.0], 2),
        ([2.0, 1.0], 2),
        ([1.5, 1.5], 1),
        ([0.5, 2.5], 1),
        ([-1.0, 4.0], 1),
        ([3.0, 0.0], 1),
    ] {
        let mut sketch = Sketch::new(17);
        let x = sketch.rows("x", HIDDEN);
        let [half, one, cubic, root] =
            [0.5, 1.0, 0.044715, (2.0f32 / std::f32::consts::PI).sqrt()].map(|n| sketch.number(n));
        let factors = powers.map(|power| {
            let power = sketch.number(power);
            sketch.node("Pow", &[&x, &power], &[])
        });
        let cube = sketch.node("Mul", &[&factors[0], &factors[1]], &[]);
        let cube = sketch.node("Mul", &[&cubic, &cube], &[]);
        let sum = sketch.node("Add", &[&x, &cube], &[]);
        let inner = sketch.node("Mul", &[&root, &sum], &[]);
        let tanh = sketch.node("Tanh", &[&inner], &[]);
        let gate = sketch.node("Add", &[&one, &tanh], &[]);
        let product = sketch.node("Mul", &[&x, &half], &[]);
        let result = sketch.node("Mul", &[&product, &gate], &[]);
        sketch.output(&result);
        assert_eq!(sketch.found()["GeluFusion"], found, "{powers:?}");
        if found == 2 {
            sketch.check("GeluFusion", 2);
        }
    }
}

/// Two factors of which the product is ½ overflow on the way where ½ does not.
#[test]
fn a_half_that_is_a_product_is_left() {
    let mut sketch = Sketch::new(17);
    let (gate, _) = gelu(&mut sketch, 0.5, 1.0, ROOT, false, 0);
    let [large, small] = [1e30, 0.5e-30].map(|number| sketch.number(number));
    let x = sketch.node("Mul", &["x", &large], &[]);
    let product = sketch.node("Mul", &[&x, &gate], &[]);
    let result = sketch.node("Mul", &[&product, &small], &[]);
    sketch.output(&result);
    assert_eq!(sketch.found()["GeluFusion"], 1);
}

#[test]
fn products_take_bias_activation_and_residual() {
    for (transposed, bias_first) in [(0, false), (1, false), (0, true)] {
        let mut sketch = Sketch::new(20);
        let (x, skip) = (sketch.rows("x", HIDDEN), sketch.rows("skip", 5));
        let bias = sketch.weights(&[5]);
        let product = if transposed == 1 {
            let flat = sketch.ints(&[-1, HIDDEN as i64]);
            let weight = sketch.weights(&[5, HIDDEN]);
            let shape = sketch.node("Shape", &[&skip], &[]);
            let x = sketch.node("Reshape", &[&x, &flat], &[]);
            let product = sketch.node("Gemm", &[&x, &weight], &[("transB", int(1))]);
            sketch.node("Reshape", &[&product, &shape], &[])
        } else {
            let weight = sketch.weights(&[HIDDEN, 5]);
            sketch.node("MatMul", &[&x, &weight], &[])
        };
        let pair = if bias_first { [&bias, &product] } else { [&product, &bias] };
        let sum = sketch.node("Add", &pair.map(String::as_str), &[]);
        let active = sketch.node("Gelu", &[&sum], &[]);
        let result = sketch.node("Add", &[&skip, &active], &[]);
        sketch.output(&result);
        for pass in ["LinearFusion", "BiasFusion", "ActivationFusion", "ResidualFusion"] {
            assert_eq!(sketch.found()[pass], 1, "{pass}");
        }
        assert_eq!(steps_left(&sketch), 1);
        sketch.check("ResidualFusion", 1);
        // What is an output is not swallowed.
        sketch.output(&product).check("BiasFusion", 0);
        sketch.output(&active).check("ActivationFusion", 0);
    }
}

#[test]
fn other_products_are_left() {
    let alpha = |alpha: f32| ("alpha", Attribute::Float(alpha));
    let cases = [
        ([3, HIDDEN], [HIDDEN, 5], alpha(2.0)),
        ([3, HIDDEN], [HIDDEN, 5], alpha(1.0f32.next_up())),
        ([HIDDEN, 3], [HIDDEN, 5], ("transA", int(1))),
    ];
    for (x, weight, attribute) in cases {
        let mut sketch = Sketch::new(17);
        let dims: Vec<Dim> = x.iter().map(|&size| Dim::Fixed(size)).collect();
        let (x, weight) = (sketch.input("x", DType::F32, &dims), sketch.weights(&weight));
        let result = sketch.node("Gemm", &[&x, &weight], &[attribute]);
        sketch.output(&result).check("LinearFusion", 0);
    }
    let mut sketch = Sketch::new(17);
    let (x, weight) = (sketch.rows("x", HIDDEN), sketch.weights(&[3, HIDDEN, 5]));
    let result = sketch.node("MatMul", &[&x, &weight], &[]);
    sketch.output(&result).check("LinearFusion", 0);
}

/// How an attention is written.
#[derive(Clone)]
struct Written {
    /// Before, after, or split in two.
    scale: &'static str,
    /// By Where, by a product, or not at all.
    mask: &'static str,
    /// Whether the keys are transposed twice.
    twice: bool,
    softmax_axis: i64,
    heads: usize,
}

const WRITTEN: Written =
    Written { scale: "after", mask: "product", twice: false, softmax_axis: -1, heads: 2 };

/// Its scores and its result.
fn attention(sketch: &mut Sketch, written: &Written) -> (String, String) {
    let x = sketch.rows("x", HIDDEN);
    let mask = (written.mask != "none")
        .then(|| sketch.input("mask", DType::I64, &[symbol("batch"), symbol("sequence")]));
    let size = HIDDEN / written.heads;
    let root = (size as f32).sqrt();
    let shape = sketch.ints(&[0, -1, written.heads as i64, size as i64]);
    let perm = |perm: [i64; 4]| [("perm", Attribute::Ints(perm.to_vec()))];
    let part = |sketch: &mut Sketch, order: [i64; 4]| {
        let (weight, bias) = (sketch.weights(&[HIDDEN, HIDDEN]), sketch.weights(&[HIDDEN]));
        let product = sketch.node("MatMul", &[&x, &weight], &[]);
        let sum = sketch.node("Add", &[&product, &bias], &[]);
        let split = sketch.node("Reshape", &[&sum, &shape], &[]);
        sketch.node("Transpose", &[&split], &perm(order))
    };
    let mut q = part(sketch, [0, 2, 1, 3]);
    let mut k = if written.twice {
        let k = part(sketch, [0, 2, 1, 3]);
        sketch.node("Transpose", &[&k], &perm([0, 1, 3, 2]))
    } else {
        part(sketch, [0, 2, 3, 1])
    };
    let v = part(sketch, [0, 2, 1, 3]);
    match written.scale {
        "before" => {
            let root = sketch.number(root);
            q = sketch.node("Div", &[&q, &root], &[]);
        }
        "both" => {
            let factor = sketch.number(1.0 / root.sqrt());
            q = sketch.node("Mul", &[&q, &factor], &[]);
            k = sketch.node("Mul", &[&factor, &k], &[]);
        }
        _ => {}
    }
    let mut scores = sketch.node("MatMul", &[&q, &k], &[]);
    let raw = scores.clone();
    if written.scale == "after" {
        let root = sketch.number(root);
        scores = sketch.node("Div", &[&scores, &root], &[]);
    }
    if let Some(mask) = mask {
        let axes = sketch.ints(&[1, 2]);
        let wide = sketch.node("Unsqueeze", &[&mask, &axes], &[]);
        let (one, least) = (sketch.number(1.0), sketch.number(f32::MIN));
        let float = sketch.node("Cast", &[&wide], &[("to", int(1))]);
        let inverted = sketch.node("Sub", &[&one, &float], &[]);
        let added = if written.mask == "where" {
            let hidden = sketch.node("Cast", &[&inverted], &[("to", int(9))]);
            sketch.node("Where", &[&hidden, &least, &inverted], &[])
        } else {
            sketch.node("Mul", &[&inverted, &least], &[])
        };
        scores = sketch.node("Add", &[&scores, &added], &[]);
    }
    let weights = sketch.node("Softmax", &[&scores], &[("axis", int(written.softmax_axis))]);
    let context = sketch.node("MatMul", &[&weights, &v], &[]);
    let back = sketch.node("Transpose", &[&context], &perm([0, 2, 1, 3]));
    let flat = sketch.ints(&[0, 0, HIDDEN as i64]);
    (raw, sketch.node("Reshape", &[&back, &flat], &[]))
}

#[test]
fn attention_is_found_in_its_forms() {
    for scale in ["before", "after", "both", "none"] {
        for mask in ["product", "where", "none"] {
            for (twice, heads) in [(false, 2), (true, 4), (false, 1)] {
                let mut sketch = Sketch::new(17);
                let (_, result) = attention(&mut sketch, &Written { scale, mask, twice, heads, ..WRITTEN });
                sketch.output(&result);
                assert_eq!(steps_left(&sketch), 2, "{scale} {mask} {twice} {heads}");
                assert_eq!(sketch.found()["QkvFusion"], 1);
                let once = usize::from(heads > 1);
                // With one head, the transposed rows are the joined rows, too.
                sketch.check("AttentionFusion", 2 - once);
            }
        }
    }
}

#[test]
fn what_is_no_attention_is_left() {
    let mut sketch = Sketch::new(17);
    let (_, result) = attention(&mut sketch, &Written { softmax_axis: 2, ..WRITTEN });
    sketch.output(&result).check("AttentionFusion", 0);
    let mut sketch = Sketch::new(17);
    let (scores, result) = attention(&mut sketch, &WRITTEN);
    sketch.output(&result).output(&scores).check("AttentionFusion", 0);
}

#[test]
fn embeddings_and_the_first_token_are_found() {
    for (axis, found) in [(0, 1), (1, 0)] {
        let mut sketch = Sketch::new(17);
        let ids = sketch.input("ids", DType::I64, &[symbol("batch"), symbol("sequence")]);
        let (words, places) = (sketch.weights(&[9, HIDDEN]), sketch.weights(&[7, HIDDEN]));
        let list = sketch.constant(Value::new([1, 7], (0..7i64).collect::<Vec<_>>()).unwrap());
        let shape = sketch.node("Shape", &[&ids], &[]);
        let (zero, one) = (sketch.ints(&[0]), sketch.ints(&[1]));
        let length = sketch.node("Gather", &[&shape, &one], &[]);
        let positions = sketch.node("Slice", &[&list, &zero, &length, &one], &[]);
        let by_word = sketch.node("Gather", &[&words, &ids], &[]);
        let by_place = if axis == 0 {
            sketch.node("Gather", &[&places, &positions], &[])
        } else {
            let other = sketch.rows("other", HIDDEN);
            sketch.node("Abs", &[&other], &[])
        };
        let sum = sketch.node("Add", &[&by_word, &by_place], &[]);
        let (gamma, beta) = (sketch.weights(&[HIDDEN]), sketch.weights(&[HIDDEN]));
        let normal = sketch.node("LayerNormalization", &[&sum, &gamma, &beta], &[("axis", int(-1))]);
        let place = sketch.constant(Value::scalar(0i64));
        let first = sketch.node("Gather", &[&normal, &place], &[("axis", int(1))]);
        sketch.output(&first).output(&normal).check("EmbeddingsFusion", found);
        sketch.check("TokenFusion", 1);
    }
}

#[test]
fn more_positions_than_there_are_is_an_error_and_no_other_text() {
    let mut sketch = Sketch::new(17);
    let ids = sketch.input("ids", DType::I64, &[symbol("batch"), symbol("sequence")]);
    let (words, places) = (sketch.weights(&[9, HIDDEN]), sketch.weights(&[3, HIDDEN]));
    let list = sketch.constant(Value::new([1, 3], (0..3i64).collect::<Vec<_>>()).unwrap());
    let shape = sketch.node("Shape", &[&ids], &[]);
    let (zero, one) = (sketch.ints(&[0]), sketch.ints(&[1]));
    let length = sketch.node("Gather", &[&shape, &one], &[]);
    let positions = sketch.node("Slice", &[&list, &zero, &length, &one], &[]);
    let (a, b) =
        (sketch.node("Gather", &[&words, &ids], &[]), sketch.node("Gather", &[&places, &positions], &[]));
    let sum = sketch.node("Add", &[&a, &b], &[]);
    let gamma = sketch.weights(&[HIDDEN]);
    let normal = sketch.node("LayerNormalization", &[&sum, &gamma], &[]);
    sketch.output(&normal);
    let engine = CompiledEngine::new(&sketch.model, Options::default()).unwrap();
    assert!(engine.run(&sketch.inputs(2, 3)).is_ok());
    let error = engine.run(&sketch.inputs(2, 4)).unwrap_err().to_string();
    assert!(error.contains("cannot be broadcast"), "{error}");
    let mut inputs = sketch.inputs(1, 2);
    inputs.insert("ids", Value::new([1, 2], vec![0i64, 9]).unwrap());
    let error = engine.run(&inputs).unwrap_err().to_string();
    assert!(error.contains("index 9 is outside an axis of size 9"), "{error}");
}

#[test]
fn onnx_runtimes_operators_are_taken_apart() {
    let mut sketch = Sketch::new(17);
    let (x, skip) = (sketch.rows("x", HIDDEN), sketch.rows("skip", HIDDEN));
    let [gamma, beta, bias] = [(); 3].map(|()| sketch.weights(&[HIDDEN]));
    let active = sketch.node("microsoft.BiasGelu", &[&x, &bias], &[]);
    let result =
        sketch.node("microsoft.SkipLayerNormalization", &[&active, &skip, &gamma, &beta, &bias], &[]);
    sketch.output(&result).check("MicrosoftFusion", 2);
    // The mean, which no kernel gives, is read.
    let node = sketch.model.graph.nodes.last_mut().unwrap();
    node.outputs.push("mean".into());
    sketch.output("mean").check("MicrosoftFusion", 1);
}

#[test]
fn a_mask_that_is_none_of_zeros_and_ones_goes_the_general_way() {
    let mut sketch = Sketch::new(17);
    let (_, result) = attention(&mut sketch, &WRITTEN);
    sketch.output(&result);
    let engine = CompiledEngine::new(&sketch.model, Options::default()).unwrap();
    let plain =
        CompiledEngine::new(&sketch.model, Options { passes: Passes::none(), ..Options::default() }).unwrap();
    let mut inputs = sketch.inputs(1, 3);
    inputs.insert("mask", Value::new([1, 3], vec![1i64, 2, 0]).unwrap());
    assert_eq!(engine.run(&inputs).unwrap(), plain.run(&inputs).unwrap());
    assert_eq!(engine.general_runs(), 1);
}

#[test]
fn a_hostile_shape_ends_in_an_error() {
    // Folded at load, or not: more than any machine has.
    for sizes in [vec![1 << 40], vec![i64::MAX, i64::MAX], vec![1 << 20, 1 << 20, 1 << 20]] {
        let mut sketch = Sketch::new(17);
        let x = sketch.rows("x", HIDDEN);
        let sizes = sketch.ints(&sizes);
        let huge = sketch.node("ConstantOfShape", &[&sizes], &[]);
        let active = sketch.node("Tanh", &[&huge], &[]);
        let least = sketch.node("ReduceMax", &[&active], &[("keepdims", int(0))]);
        let sum = sketch.node("Add", &[&x, &least], &[]);
        sketch.output(&sum);
        let engine = CompiledEngine::new(&sketch.model, Options::default()).unwrap();
        assert!(engine.run(&sketch.inputs(1, 2)).is_err());
    }
    // A shape that comes of the inputs' sizes, and a row that no text is long enough for.
    let mut sketch = Sketch::new(17);
    let x = sketch.rows("x", HIDDEN);
    let shape = sketch.node("Shape", &[&x], &[]);
    let times = sketch.ints(&[1 << 30]);
    let large = sketch.node("Mul", &[&shape, &times], &[]);
    let scalar = sketch.node("ReduceMax", &[&x], &[("keepdims", int(0))]);
    let wide = sketch.node("Expand", &[&scalar, &large], &[]);
    let active = sketch.node("Tanh", &[&wide], &[]);
    let least = sketch.node("ReduceMax", &[&active], &[("keepdims", int(0))]);
    sketch.output(&least);
    let engine = CompiledEngine::new(&sketch.model, Options::default()).unwrap();
    let error = engine.run(&sketch.inputs(2, 2)).unwrap_err().to_string();
    assert!(error.contains("too large") || error.contains("more than"), "{error}");
}
