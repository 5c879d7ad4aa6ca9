//! Activations: operators, chains, and what looks like them.

use onnx_graph::Attribute;

use crate::grow::Grower;

impl Grower {
    pub fn activation(&mut self, x: &str, width: usize) -> String {
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

    /// x, ½ and a bracket multiplied in some order, and now and then with other factors whose
    /// product is ½.
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
}
