//! Attention in the forms that exporters write, and in the operators that stand for it.

use engine::DType;
use onnx_graph::Attribute;

use crate::grow::Grower;

impl Grower {
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

    /// The mask as f32 or bool `[batch, 1, 1, sequence]`, true where a key is seen, by way of other
    /// dtypes.
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

    pub fn attention(&mut self, x: &str) -> String {
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
}
