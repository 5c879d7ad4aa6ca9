//! A random graph that is built as exporters and optimizers build a BERT, with what they do not do in between: casts, powers, and numbers of any size.

use engine::{DType, Dim, NamedValues, Value};
use onnx_graph::{Attribute, Model};

use crate::sketch::{Random, Sketch};

/// More than a byte holds, so that a cast to one is seen.
const VOCABULARY: usize = 300;
const POSITIONS: usize = 12;

/// A graph and inputs for it.
pub struct Grown {
    pub model: Model,
    /// Whether there are numbers whose sums of squares may overflow, on the way or in the end: the engine `candle` adds as f32 does, and the oracle does
    /// not.
    pub huge: bool,
    pub inputs: Vec<NamedValues>,
}

struct Grower {
    sketch: Sketch,
    /// Only what the engine `candle` takes, too.
    plain: bool,
    huge: bool,
    hidden: usize,
    heads: usize,
    /// What queries and keys are enlarged by: scores grow by its square.
    large: f32,
    ids: String,
    mask: String,
    types: Option<String>,
}

pub fn grow(seed: u64) -> Grown {
    let mut random = Random::new(seed);
    let opset = random.of(&[11, 13, 14, 17, 18, 20, 23, 23]);
    let heads = random.of(&[1, 2, 3]);
    let hidden = heads * random.of(&[2, 4, 8]);
    let large = random.of(&[1.0, 1.0, 1.0, 1.0, 30.0, 1e3, 1e6]);
    let plain = random.once_in(2);
    let mut grower = Grower {
        sketch: Sketch::new(opset, random),
        plain,
        huge: false,
        hidden,
        heads,
        large,
        ids: String::new(),
        mask: String::new(),
        types: None,
    };
    grower.inputs();
    let mut x = grower.embeddings();
    for _ in 0..grower.sketch.random.below(3) {
        x = grower.attention(&x);
        x = grower.feed_forward(&x);
    }
    x = grower.noise(&x);
    grower.sketch.output(&x);
    if grower.sketch.random.once_in(2) {
        let pooled = grower.pooler(&x);
        grower.sketch.output(&pooled);
    }
    let inputs = (0..2).map(|_| grower.values()).collect();
    Grown { model: grower.sketch.model, huge: grower.huge, inputs }
}

impl Grower {
    fn choose<T: Clone>(&mut self, choices: &[T]) -> T {
        self.sketch.random.of(choices)
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.sketch.random.once_in(times)
    }

    /// True once in so many times, and never in a plain graph.
    fn odd_once_in(&mut self, times: usize) -> bool {
        !self.plain && self.once_in(times)
    }

    fn inputs(&mut self) {
        let dims = match self.sketch.random.below(6) {
            0 => [Dim::Any, Dim::Any],
            1 => [Dim::Symbol("batch".into()), Dim::Fixed(5)],
            2 => [Dim::Fixed(3), Dim::Fixed(5)],
            _ => [Dim::Symbol("batch".into()), Dim::Symbol("sequence".into())],
        };
        let dtype = self.choose(&[DType::I64, DType::I64, DType::I32]);
        self.ids = self.sketch.input("input_ids", dtype, &dims);
        let dtype = self.choose(&[DType::I64, DType::I64, DType::I64, DType::I32, DType::Bool]);
        self.mask = self.sketch.input("attention_mask", dtype, &dims);
        if self.once_in(2) {
            let dtype = self.choose(&[DType::I64, DType::I32]);
            self.types = Some(self.sketch.input("token_type_ids", dtype, &dims));
        }
    }

    /// Values of all inputs. Rows of the mask are whole, padded behind or before, random, or empty; rarely of other numbers.
    fn values(&mut self) -> NamedValues {
        let specs = self.sketch.model.graph.inputs.clone();
        let random = &mut self.sketch.random;
        let (batch, sequence) = (1 + random.below(4), random.of(&[1, 2, 3, 5, 5, 7, 16, 17, POSITIONS + 8]));
        let sizes: Vec<usize> = specs[0]
            .shape
            .iter()
            .flatten()
            .zip([batch, sequence])
            .map(|(dim, size)| match dim {
                Dim::Fixed(size) => *size,
                _ => size,
            })
            .collect();
        let odd = random.once_in(12);
        let all_alike = random.once_in(3);
        let mut inputs = NamedValues::new();
        for spec in specs {
            let mut numbers: Vec<i64> = Vec::new();
            let first = random.below(5);
            for row in 0..sizes[0] {
                let kind = if all_alike || row == 0 { first } else { random.below(5) };
                let real = 1 + random.below(sizes[1]);
                for place in 0..sizes[1] {
                    let bit = match kind {
                        0 => true,
                        1 => place < real,
                        2 => place >= sizes[1] - real,
                        3 => random.once_in(2),
                        _ => false,
                    };
                    numbers.push(match &*spec.name {
                        "attention_mask" if odd => random.of(&[0, 1, 2, -1, 256]),
                        "attention_mask" => i64::from(bit),
                        "token_type_ids" => i64::from(random.once_in(2)),
                        // Rarely one from the end, or outside the table.
                        _ if random.once_in(400) => random.of(&[-1, -(VOCABULARY as i64), VOCABULARY as i64]),
                        _ => random.below(VOCABULARY) as i64,
                    });
                }
            }
            let value = match spec.dtype {
                DType::I32 => Value::new(&sizes[..], numbers.iter().map(|&x| x as i32).collect::<Vec<_>>()),
                DType::Bool => Value::new(&sizes[..], numbers.iter().map(|&x| x != 0).collect::<Vec<_>>()),
                _ => Value::new(&sizes[..], numbers),
            };
            inputs.insert(spec.name, value.unwrap());
        }
        inputs
    }

    /// Integers through other dtypes, back to one that indexes.
    fn casts(&mut self, ids: &str, most: usize) -> String {
        let mut at = ids.to_string();
        let count = if self.once_in(2) { 0 } else { self.sketch.random.below(most + 1) };
        for _ in 0..count {
            let usual = [DType::I32, DType::I64, DType::I32, DType::I64, DType::Bool, DType::F32];
            let all = [
                DType::I32,
                DType::I64,
                DType::I32,
                DType::I64,
                DType::U8,
                DType::I8,
                DType::U16,
                DType::I16,
                DType::U32,
                DType::U64,
                DType::Bool,
                DType::F32,
                DType::F16,
            ];
            let to = if self.plain { self.choose(&usual) } else { self.choose(&all) };
            at = self.sketch.cast(&at, to);
            if self.once_in(8) {
                at = self.sketch.op("Identity", &[&at]);
            }
        }
        if count > 0 {
            let to = self.choose(&[DType::I64, DType::I32]);
            at = self.sketch.cast(&at, to);
        }
        at
    }

    /// The length of the sequence, as a list of one.
    fn length(&mut self) -> String {
        let ids = self.ids.clone();
        let shape = self.sketch.op("Shape", &[&ids]);
        let one = self.sketch.ints(&[1]);
        self.sketch.gather(&shape, &one, 0)
    }

    fn positions(&mut self) -> Option<String> {
        let hidden = self.hidden;
        // A table that a cast to a byte would read elsewhere.
        let table = self.sketch.weights(&[VOCABULARY, hidden], 0.5);
        match self.sketch.random.below(if self.plain { 3 } else { 4 }) {
            0 => None,
            1 | 2 => {
                let start = self.choose(&[0, 0, 250]);
                let count = self.choose(&[POSITIONS, 40]);
                let list: Vec<i64> = (start..start + count as i64).collect();
                let buffer = self.sketch.constant(Value::new([1, count], list).unwrap());
                let (zero, length, axis) = (self.sketch.ints(&[0]), self.length(), self.sketch.ints(&[1]));
                let slice = self.sketch.op("Slice", &[&buffer, &zero, &length, &axis]);
                let slice = self.casts(&slice, 2);
                Some(self.sketch.gather(&table, &slice, 0))
            }
            _ => {
                // As RoBERTa counts them.
                let mask = self.mask.clone();
                let bits = self.sketch.cast(&mask, DType::I64);
                let axis = self.sketch.constant(Value::scalar(1i64));
                let counted = self.sketch.op("CumSum", &[&bits, &axis]);
                let places = self.sketch.op("Mul", &[&counted, &bits]);
                Some(self.sketch.gather(&table, &places, 0))
            }
        }
    }

    fn embeddings(&mut self) -> String {
        let hidden = self.hidden;
        let table = self.sketch.weights(&[VOCABULARY, hidden], 1.0);
        let ids = self.ids.clone();
        if self.odd_once_in(4) && self.sketch.opset() < 23 {
            return self.fused_embeddings(&table);
        }
        let ids = self.casts(&ids, 3);
        let mut x = self.sketch.gather(&table, &ids, 0);
        if self.once_in(20) {
            // Here, where numbers are those of the table: of one that was computed the last bit may decide.
            let narrow =
                if self.plain { DType::I32 } else { self.choose(&[DType::F16, DType::I32, DType::I8]) };
            let narrow = self.sketch.cast(&x, narrow);
            x = self.sketch.cast(&narrow, DType::F32);
        }
        if let Some(types) = self.types.clone() {
            let types = self.casts(&types, 1);
            let table = self.sketch.weights(&[VOCABULARY, hidden], 0.5);
            let looked_up = self.sketch.gather(&table, &types, 0);
            x = self.sketch.pair("Add", &x, &looked_up);
        }
        if let Some(positions) = self.positions() {
            x = self.sketch.pair("Add", &x, &positions);
        }
        x = self.noise(&x);
        self.layer_norm(&x)
    }

    fn fused_embeddings(&mut self, words: &str) -> String {
        let hidden = self.hidden;
        let as_i32 = |grower: &mut Self, of: &str| {
            let of = grower.casts(of, 1);
            grower.sketch.cast(&of, DType::I32)
        };
        let ids = self.ids.clone();
        let ids = as_i32(self, &ids);
        let positions = self.sketch.weights(&[POSITIONS * 2, hidden], 0.5);
        let (gamma, beta) = (self.sketch.weights(&[hidden], 1.0), self.sketch.weights(&[hidden], 0.3));
        let (types, table) = match self.types.clone() {
            Some(types) => (as_i32(self, &types), self.sketch.weights(&[VOCABULARY, hidden], 0.5)),
            None => Default::default(),
        };
        let inputs = [&*ids, &*types, words, &*positions, &*table, &*gamma, &*beta];
        self.sketch.op(".EmbedLayerNormalization", &inputs)
    }

    fn layer_norm(&mut self, x: &str) -> String {
        let hidden = self.hidden;
        let size = self.choose(&[1.0, 1.0, 1.0, 0.01, 20.0]);
        let (gamma, beta) = (self.sketch.weights(&[hidden], size), self.sketch.weights(&[hidden], 0.3));
        let eps = self.choose(&[1e-12, 1e-5, 1e-7]);
        if self.sketch.opset() >= 17 && self.once_in(2) {
            let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(eps))];
            return self.sketch.node("LayerNormalization", &[x, &gamma, &beta], &attributes);
        }
        let mean = self.sketch.mean(x);
        let difference = self.sketch.op("Sub", &[x, &mean]);
        let squares = match self.sketch.random.below(3) {
            0 => self.sketch.op("Mul", &[&difference, &difference]),
            1 => self.sketch.with_number("Pow", &difference, 2.0),
            // Of numbers below 0 this is NaN, though the exponents add up.
            _ if self.once_in(4) => {
                let root = self.sketch.with_number("Pow", &difference, 0.5);
                let rest = self.sketch.with_number("Pow", &difference, 1.5);
                self.sketch.op("Mul", &[&root, &rest])
            }
            _ => self.sketch.with_number("Pow", &difference, 2.0),
        };
        let variance = self.sketch.mean(&squares);
        let moved = self.sketch.with_number("Add", &variance, eps);
        let deviation = self.sketch.op("Sqrt", &[&moved]);
        let quotient = self.sketch.op("Div", &[&difference, &deviation]);
        let scaled = self.sketch.pair("Mul", &quotient, &gamma);
        self.sketch.pair("Add", &scaled, &beta)
    }

    fn linear(&mut self, x: &str, inputs: usize, outputs: usize, size: f32) -> String {
        let w = self.sketch.weights(&[inputs, outputs], size * (3.0 / inputs as f32).sqrt());
        let b = self.sketch.weights(&[outputs], 0.3 * size);
        let product = self.sketch.op("MatMul", &[x, &w]);
        if self.once_in(10) { product } else { self.sketch.pair("Add", &product, &b) }
    }

    /// `[batch, heads, sequence, size]`, or with the last two axes exchanged.
    fn split(&mut self, x: &str, exchanged: bool) -> String {
        let (heads, size) = (self.heads as i64, (self.hidden / self.heads) as i64);
        let shape = if self.once_in(2) {
            self.sketch.ints(&[0, 0, heads, size])
        } else {
            let rest = self.sketch.ints(&[-1, heads, size]);
            let shape = self.sketch.op("Shape", &[x]);
            let zero = self.sketch.ints(&[0]);
            let batch = self.sketch.gather(&shape, &zero, 0);
            self.sketch.node("Concat", &[&batch, &rest], &[("axis", Attribute::Int(0))])
        };
        let split = self.sketch.op("Reshape", &[x, &shape]);
        if !exchanged {
            return self.sketch.transpose(&split, &[0, 2, 1, 3]);
        }
        if self.once_in(2) {
            return self.sketch.transpose(&split, &[0, 2, 3, 1]);
        }
        let split = self.sketch.transpose(&split, &[0, 2, 1, 3]);
        self.sketch.transpose(&split, &[0, 1, 3, 2])
    }

    /// The mask as f32 or bool `[batch, 1, 1, sequence]`, true where a key is seen, by way of other dtypes.
    fn bits(&mut self) -> String {
        let mask = self.mask.clone();
        let mut mask = match self.sketch.random.below(4) {
            0 => {
                let usual = [DType::I32, DType::F32, DType::Bool];
                let all = [DType::U8, DType::I8, DType::I32, DType::F32, DType::F16, DType::Bool];
                let to = if self.plain { self.choose(&usual) } else { self.choose(&all) };
                self.sketch.cast(&mask, to)
            }
            _ => mask,
        };
        mask = self.sketch.unsqueeze(&mask, &[1, 2]);
        if self.once_in(3) {
            let (ids, zero) = (self.ids.clone(), self.sketch.ints(&[0]));
            let shape = self.sketch.op("Shape", &[&ids]);
            let (batch, length) = (self.sketch.gather(&shape, &zero, 0), self.length());
            let one = self.sketch.ints(&[1]);
            let axis = [("axis", Attribute::Int(0))];
            let shape = self.sketch.node("Concat", &[&batch, &one, &length, &length], &axis);
            if self.sketch.opset() >= 13 || self.once_in(2) {
                mask = self.sketch.cast(&mask, DType::F32);
                mask = self.sketch.op("Expand", &[&mask, &shape]);
            }
        }
        mask
    }

    /// What is added to the scores.
    fn added(&mut self, least: f32) -> String {
        let bits = self.bits();
        match self.sketch.random.below(4) {
            0 | 1 => {
                let numbers = self.sketch.cast(&bits, DType::F32);
                let one = self.sketch.number(1.0);
                let rest = self.sketch.op("Sub", &[&one, &numbers]);
                // 0 · −∞ is NaN, at every token that is seen.
                let least = if least.is_finite() { least } else { f32::MIN };
                self.sketch.with_number("Mul", &rest, least)
            }
            2 => {
                let seen = self.sketch.cast(&bits, DType::Bool);
                let (zero, least) = (self.sketch.number(0.0), self.sketch.number(least));
                self.sketch.op("Where", &[&seen, &zero, &least])
            }
            _ => {
                let seen = self.sketch.cast(&bits, DType::Bool);
                let hidden = self.sketch.op("Not", &[&seen]);
                let (zero, least) = (self.sketch.number(0.0), self.sketch.number(least));
                self.sketch.op("Where", &[&hidden, &least, &zero])
            }
        }
    }

    fn attention(&mut self, x: &str) -> String {
        let (hidden, large) = (self.hidden, self.large);
        let context = match self.sketch.random.below(5) {
            0 if self.sketch.opset() >= 23 => self.attention_operator(x),
            1 if self.sketch.opset() >= 23 => self.attention_operator(x),
            0 if !self.plain => self.fused_attention(x),
            1 if !self.plain => self.multi_head_attention(x),
            _ => {
                let q = self.linear(x, hidden, hidden, large);
                let k = self.linear(x, hidden, hidden, large);
                let v = self.linear(x, hidden, hidden, 1.0);
                self.attention_chain(&q, &k, &v)
            }
        };
        let output = self.linear(&context, hidden, hidden, 1.0);
        self.residual(&output, x)
    }

    fn residual(&mut self, x: &str, skip: &str) -> String {
        if self.odd_once_in(3) {
            let hidden = self.hidden;
            let (gamma, beta) = (self.sketch.weights(&[hidden], 1.0), self.sketch.weights(&[hidden], 0.3));
            let bias = if self.once_in(2) { self.sketch.weights(&[hidden], 0.3) } else { String::new() };
            return self.sketch.op(".SkipLayerNormalization", &[x, skip, &gamma, &beta, &bias]);
        }
        let sum = self.sketch.pair("Add", x, skip);
        let sum = self.noise(&sum);
        self.layer_norm(&sum)
    }

    fn attention_chain(&mut self, q: &str, k: &str, v: &str) -> String {
        let size = (self.hidden / self.heads) as f32;
        let odd = self.choose(&[0.0, -0.4, 1.0, 3.0, 1e-9]);
        let scale = if self.once_in(12) { odd } else { 1.0 / size.sqrt() };
        let (mut q, mut k, v) = (self.split(q, false), self.split(k, true), self.split(v, false));
        let way = self.sketch.random.below(4);
        if way == 0 {
            q = self.sketch.with_number("Mul", &q, scale);
        }
        if way == 1 {
            let root = scale.abs().sqrt();
            q = self.sketch.with_number("Mul", &q, root);
            k = self.sketch.with_number("Mul", &k, root);
        }
        let mut scores = self.sketch.op("MatMul", &[&q, &k]);
        if way == 2 {
            scores = self.sketch.with_number("Mul", &scores, scale);
        }
        if way == 3 {
            scores = self.sketch.with_number("Div", &scores, size.sqrt());
        }
        let least = self.choose(&[f32::MIN, f32::MIN, -10_000.0, f32::NEG_INFINITY, -100.0, -3.0, -1e9]);
        match self.sketch.random.below(8) {
            0 => {}
            1 | 2 => {
                let bits = self.bits();
                let seen = self.sketch.cast(&bits, DType::Bool);
                let hidden = self.sketch.op("Not", &[&seen]);
                let least = self.sketch.number(least);
                scores = match self.once_in(2) {
                    true => self.sketch.op("Where", &[&hidden, &least, &scores]),
                    false => self.sketch.op("Where", &[&seen, &scores, &least]),
                };
            }
            _ => {
                let added = self.added(least);
                scores = self.sketch.pair("Add", &scores, &added);
            }
        }
        let mut weights = self.sketch.node("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
        if self.once_in(6) {
            // What torch writes for a row that is masked throughout.
            let nan = self.sketch.op("IsNaN", &[&weights]);
            let zero = self.sketch.number(0.0);
            weights = self.sketch.op("Where", &[&nan, &zero, &weights]);
        }
        let context = self.sketch.op("MatMul", &[&weights, &v]);
        self.join(&context)
    }

    fn join(&mut self, context: &str) -> String {
        let context = self.sketch.transpose(context, &[0, 2, 1, 3]);
        let shape = self.sketch.ints(&[0, 0, self.hidden as i64]);
        self.sketch.op("Reshape", &[&context, &shape])
    }

    fn attention_operator(&mut self, x: &str) -> String {
        let (hidden, large) = (self.hidden, self.large);
        let q = self.linear(x, hidden, hidden, large);
        let k = self.linear(x, hidden, hidden, large);
        let v = self.linear(x, hidden, hidden, 1.0);
        let parts = [q, k, v].map(|part| self.split(&part, false));
        let mask = match self.sketch.random.below(4) {
            0 => String::new(),
            1 => {
                let bits = self.bits();
                self.sketch.cast(&bits, DType::Bool)
            }
            _ => {
                let least = self.choose(&[f32::MIN, f32::NEG_INFINITY, -10_000.0]);
                self.added(least)
            }
        };
        let mut attributes = Vec::new();
        if self.once_in(3) {
            attributes.push(("scale", Attribute::Float(0.3)));
        }
        let inputs = [&*parts[0], &*parts[1], &*parts[2], &*mask];
        let context = self.sketch.node("Attention", &inputs, &attributes);
        self.join(&context)
    }

    fn fused_attention(&mut self, x: &str) -> String {
        let hidden = self.hidden;
        let size = self.large * (3.0 / hidden as f32).sqrt();
        let w = self.sketch.weights(&[hidden, 3 * hidden], size);
        let b = self.sketch.weights(&[3 * hidden], 0.3);
        let mask = self.key_mask();
        let attributes = self.fused_attributes();
        self.sketch.node(".Attention", &[x, &w, &b, &mask], &attributes)
    }

    fn multi_head_attention(&mut self, x: &str) -> String {
        let (hidden, large) = (self.hidden, self.large);
        let parts = [large, large, 1.0].map(|size| self.linear(x, hidden, hidden, size));
        let bias = if self.once_in(2) { self.sketch.weights(&[3 * hidden], 0.3) } else { String::new() };
        let mask = self.key_mask();
        let attributes = self.fused_attributes();
        let inputs = [&*parts[0], &*parts[1], &*parts[2], &*bias, &*mask];
        self.sketch.node(".MultiHeadAttention", &inputs, &attributes)
    }

    fn key_mask(&mut self) -> String {
        let mask = self.mask.clone();
        let mask = if self.once_in(4) { self.sketch.cast(&mask, DType::U8) } else { mask };
        if self.once_in(6) { String::new() } else { self.sketch.cast(&mask, DType::I32) }
    }

    fn fused_attributes(&mut self) -> Vec<(&'static str, Attribute)> {
        let mut attributes = vec![("num_heads", Attribute::Int(self.heads as i64))];
        if self.once_in(3) {
            let filter = self.choose(&[f32::MIN, -1e9, -100.0]);
            attributes.push(("mask_filter_value", Attribute::Float(filter)));
        }
        if self.once_in(4) {
            attributes.push(("scale", Attribute::Float(0.3)));
        }
        attributes
    }

    fn feed_forward(&mut self, x: &str) -> String {
        let (hidden, inner) = (self.hidden, self.choose(&[5, 16, 24]));
        let size = self.choose(&[1.0, 1.0, 1.0, 5.0, 100.0]);
        let up = self.linear(x, hidden, inner, size);
        let active = self.activation(&up, inner);
        let down = self.linear(&active, inner, hidden, 1.0);
        self.residual(&down, x)
    }

    fn activation(&mut self, x: &str, width: usize) -> String {
        match self.sketch.random.below(10) {
            0 | 1 => self.erf_chain(x),
            2..=4 => self.tanh_chain(x),
            5 => {
                let op = self.choose(&["Relu", "Tanh", "Sigmoid", "Erf"]);
                self.sketch.op(op, &[x])
            }
            6 if self.sketch.opset() >= 20 => {
                let way = self.choose(&["none", "tanh"]);
                self.sketch.node("Gelu", &[x], &[("approximate", Attribute::String(way.into()))])
            }
            7 if !self.plain => {
                let bias = self.sketch.weights(&[width], 0.3);
                let op = self.choose(&[".BiasGelu", ".FastGelu"]);
                self.sketch.op(op, &[x, &bias])
            }
            8 if !self.plain => {
                let alpha = self.choose(&[1.0, 1.702, 2.0]);
                self.sketch.node(".QuickGelu", &[x], &[("alpha", Attribute::Float(alpha))])
            }
            _ => {
                let factor = self.choose(&[1.702, 1.0, 1.5]);
                let inner = self.sketch.with_number("Mul", x, factor);
                let gate = self.sketch.op("Sigmoid", &[&inner]);
                self.sketch.pair("Mul", x, &gate)
            }
        }
    }

    /// x, ½ and a bracket multiplied in some order, and now and then with other factors whose product is ½.
    fn halved(&mut self, x: &str, bracket: &str) -> String {
        if self.once_in(6) {
            let x = self.sketch.with_number("Mul", x, 4.0);
            let product = self.sketch.pair("Mul", &x, bracket);
            return self.sketch.with_number("Mul", &product, 0.125);
        }
        match self.sketch.random.below(3) {
            0 => {
                let product = self.sketch.pair("Mul", x, bracket);
                self.sketch.with_number("Mul", &product, 0.5)
            }
            1 => {
                let half = self.sketch.with_number("Mul", x, 0.5);
                self.sketch.pair("Mul", &half, bracket)
            }
            _ => {
                let half = self.sketch.with_number("Mul", bracket, 0.5);
                self.sketch.pair("Mul", x, &half)
            }
        }
    }

    fn erf_chain(&mut self, x: &str) -> String {
        let root = self.choose(&[std::f32::consts::SQRT_2, std::f32::consts::SQRT_2, 1.5]);
        let inner = match self.once_in(2) {
            true => self.sketch.with_number("Div", x, root),
            false => self.sketch.with_number("Mul", x, 1.0 / root),
        };
        let erf = self.sketch.op("Erf", &[&inner]);
        let bracket = self.sketch.with_number("Add", &erf, 1.0);
        self.halved(x, &bracket)
    }

    fn tanh_chain(&mut self, x: &str) -> String {
        let powers: &[f32] = match self.sketch.random.below(8) {
            0 => &[3.0],
            1 => &[1.0, 2.0],
            2 => &[1.0, 1.0, 1.0],
            3 => &[1.5, 1.5],
            4 => &[-1.0, 4.0],
            5 => &[0.5, 2.5],
            6 => &[2.0, 1.0],
            _ => &[3.0, 0.0],
        };
        let mut cube: Option<String> = None;
        for &power in powers {
            let factor = if power == 1.0 { x.to_string() } else { self.sketch.with_number("Pow", x, power) };
            cube = Some(match cube {
                Some(product) => self.sketch.op("Mul", &[&product, &factor]),
                None => factor,
            });
        }
        let cubic = self.sketch.with_number("Mul", &cube.unwrap(), 0.044715);
        let sum = self.sketch.pair("Add", x, &cubic);
        let inner = self.sketch.with_number("Mul", &sum, (2.0 / std::f32::consts::PI).sqrt());
        let tanh = self.sketch.op("Tanh", &[&inner]);
        let bracket = self.sketch.with_number("Add", &tanh, 1.0);
        self.halved(x, &bracket)
    }

    /// Mostly nothing; else nodes that change nothing, or look as if they did not.
    fn noise(&mut self, x: &str) -> String {
        match self.sketch.random.below(40) {
            0 => self.sketch.op("Identity", &[x]),
            1 => {
                let wide = self.sketch.cast(x, DType::F64);
                self.sketch.cast(&wide, DType::F32)
            }
            3 => self.sketch.cast(x, DType::F32),
            4 => self.sketch.with_number("Mul", x, 1.0),
            5 => self.sketch.with_number("Add", x, 0.0),
            6 => {
                let power = self.choose(&[1.0, 2.0, 3.0, 0.5]);
                self.sketch.with_number("Pow", x, power)
            }
            7 => {
                let by = self.choose(&[1.0, 3.0, -2.0, 0.0]);
                self.sketch.with_number("Div", x, by)
            }
            8 => self.sketch.op("Abs", &[x]),
            9 => {
                let twice = self.sketch.op("Neg", &[x]);
                self.sketch.op("Neg", &[&twice])
            }
            10 => {
                // Rows without a token are 0.
                let mask = self.mask.clone();
                let rows = self.sketch.cast(&mask, DType::F32);
                let rows = self.sketch.unsqueeze(&rows, &[2]);
                self.sketch.pair("Mul", x, &rows)
            }
            11 => {
                let by = self.choose(&[1e3, 1e9, 1e18, 1e30]);
                self.huge |= by > 1e15;
                self.sketch.with_number("Mul", x, by)
            }
            12 => {
                // Another output in between, which no pass may make disappear.
                self.sketch.output(x);
                x.to_string()
            }
            _ => x.to_string(),
        }
    }

    fn pooler(&mut self, x: &str) -> String {
        let (hidden, place) = (self.hidden, self.choose(&[0, 0, 0, -1, 1]));
        let rank_1 = self.once_in(4);
        let place = match rank_1 {
            true => self.sketch.ints(&[place]),
            false => self.sketch.constant(Value::scalar(place)),
        };
        let mut token = self.sketch.gather(x, &place, 1);
        if rank_1 {
            token = self.sketch.with_axes("Squeeze", &token, &[1], 13);
        }
        let w = self.sketch.weights(&[hidden, hidden], (3.0 / hidden as f32).sqrt());
        let b = self.sketch.weights(&[hidden], 0.3);
        let transposed = Attribute::Int(i64::from(self.once_in(2)));
        let dense = self.sketch.node("Gemm", &[&token, &w, &b], &[("transB", transposed)]);
        self.sketch.op("Tanh", &[&dense])
    }
}
