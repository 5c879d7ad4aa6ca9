//! A random graph that is built as exporters and optimizers build a BERT, with what they do not do
//! in between: casts, powers, and numbers of any size.

use engine::{DType, Dim, NamedValues, Value};
use onnx_graph::{Attribute, Model};

use crate::sketch::{Random, Sketch};

/// More than a byte holds, so that a cast to one is seen.
const VOCABULARY: usize = 300;
const POSITIONS: usize = 12;

/// A graph and inputs for it.
pub struct Grown {
    pub model: Model,
    /// Whether there are numbers whose sums of squares may overflow, on the way or in the end: the
    /// engine `candle` adds as f32 does, and the oracle does not.
    pub huge: bool,
    pub inputs: Vec<NamedValues>,
}

pub struct Grower {
    pub sketch: Sketch,
    /// Only what the engine `candle` takes, too.
    pub plain: bool,
    huge: bool,
    pub hidden: usize,
    pub heads: usize,
    /// What queries and keys are enlarged by: scores grow by its square.
    pub large: f32,
    pub ids: String,
    pub mask: String,
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
    pub fn choose<T: Clone>(&mut self, choices: &[T]) -> T {
        self.sketch.random.of(choices)
    }

    pub fn once_in(&mut self, times: usize) -> bool {
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

    /// Values of all inputs. Rows of the mask are whole, padded behind or before, random, or empty;
    /// rarely of other numbers.
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
    pub fn length(&mut self) -> String {
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
            // Here, where numbers are those of the table: of one that was computed the last bit may
            // decide.
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

    pub fn layer_norm(&mut self, x: &str) -> String {
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

    pub fn linear(&mut self, x: &str, inputs: usize, outputs: usize, size: f32) -> String {
        let w = self.sketch.weights(&[inputs, outputs], size * (3.0 / inputs as f32).sqrt());
        let b = self.sketch.weights(&[outputs], 0.3 * size);
        let product = self.sketch.op("MatMul", &[x, &w]);
        if self.once_in(10) { product } else { self.sketch.pair("Add", &product, &b) }
    }

    pub fn residual(&mut self, x: &str, skip: &str) -> String {
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

    fn feed_forward(&mut self, x: &str) -> String {
        let (hidden, inner) = (self.hidden, self.choose(&[5, 16, 24]));
        let size = self.choose(&[1.0, 1.0, 1.0, 5.0, 100.0]);
        let up = self.linear(x, hidden, inner, size);
        let active = self.activation(&up, inner);
        let down = self.linear(&active, inner, hidden, 1.0);
        self.residual(&down, x)
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
