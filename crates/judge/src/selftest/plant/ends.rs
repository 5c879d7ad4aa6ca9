//! Faults at the ends: mask, embeddings, pooler, outputs, and the sizes that a trace bakes in.

use architecture::{Op, Step};
use engine::{DType, Value, ValueSpec};
use onnx_graph::{Attribute, Node};

use super::{Plants, Side, Wanted};
use crate::selftest::edit::Edit;

impl Plants<'_> {
    pub(super) fn mask(&mut self) {
        let first = self.sound.first_attention();
        let module = || first.clone();
        let flag = |value: i64| Value::new([1usize], vec![value]).ok();
        let (Some(zero), Some(one)) = (flag(0), flag(1)) else { return };
        let dtype = self.sound.edit.model.graph.inputs.iter().find(|spec| spec.name == "attention_mask");
        if dtype.is_none_or(|spec| spec.dtype != DType::I64) {
            return;
        }
        self.add(5, "the attention mask ignored", module(), Some("mask"), |edit| {
            edit.replace_input("attention_mask", |nodes, mask| {
                let (zero, one) = (nodes.constant(&zero), nodes.constant(&one));
                let nothing = nodes.op("Mul", &[mask, &zero]);
                nodes.op("Add", &[&nothing, &one])
            })
        });
        self.add(5, "the attention mask inverted", module(), Some("mask"), |edit| {
            edit.replace_input("attention_mask", |nodes, mask| {
                let one = nodes.constant(&one);
                nodes.op("Sub", &[&one, mask])
            })
        });
        self.add(6, "the attention mask taken for a length", module(), Some("length"), |edit| {
            edit.replace_input("attention_mask", |nodes, mask| {
                let (zero, one) = (nodes.constant(&zero), nodes.constant(&one));
                let length = nodes.reduce_last("ReduceSum", mask);
                let nothing = nodes.op("Mul", &[mask, &zero]);
                let ones = nodes.op("Add", &[&nothing, &one]);
                let axis = Value::scalar(1i64);
                let axis = nodes.constant(&axis);
                let position = nodes.op("CumSum", &[&ones, &axis]);
                let beyond = nodes.op("Greater", &[&position, &length]);
                let beyond = nodes.op_with("Cast", &[&beyond], [("to", Attribute::Int(INT64))]);
                nodes.op("Sub", &[&one, &beyond])
            })
        });
        let both = |edit: &Edit| {
            ["attention_mask", "token_type_ids"]
                .iter()
                .all(|name| edit.model.graph.inputs.iter().any(|spec| spec.name == *name))
        };
        self.add(7, "attention_mask and token_type_ids exchanged", None, Some("exchanged"), |edit| {
            if !both(edit) {
                return None;
            }
            for node in &mut edit.model.graph.nodes {
                for name in &mut node.inputs {
                    match name.as_str() {
                        "attention_mask" => *name = "token_type_ids".into(),
                        "token_type_ids" => *name = "attention_mask".into(),
                        _ => {}
                    }
                }
            }
            Some(())
        });
    }

    pub(super) fn embeddings(&mut self) {
        self.token_types();
        let positions = self.sound.steps(|op| matches!(op, Op::Positions { .. })).next();
        let Some((step, Step { op: Op::Positions { padding, .. }, .. })) = positions else { return };
        let module = self.sound.path(step);
        // All rows may share one.
        let carried = self.sound.carried.iter().find(|carried| carried.step == step);
        let Some(value) = carried.map(|carried| carried.value.clone()) else { return };
        let Some(table) = self.sound.parameter(step, "weight") else { return };
        let (Ok(elements), &[rows, width]) = (table.as_slice::<f32>(), table.shape()) else { return };
        // The row that each place takes.
        type Wrong = (&'static str, &'static str, Box<dyn Fn(usize) -> usize>);
        let mut wrong: Vec<Wrong> = vec![("positions frozen at 0", "0", Box::new(|_| 0))];
        match *padding {
            None => {
                wrong.push(("positions shifted by 2", "shifted", Box::new(move |place| (place + 2) % rows)));
            }
            Some(padding) => {
                wrong.push(("positions as BERT has them", "as bert has them", Box::new(|place| place)));
                let first = padding + 1;
                let over = Box::new(move |place: usize| (place + first).min(rows - 1));
                wrong.push(("positions counted over padding", "over padding", over));
            }
        }
        for (fault, explained, at) in wrong {
            let moved: Vec<f32> = (0..rows)
                .flat_map(|place| elements.iter().skip(at(place) * width).take(width).copied())
                .collect();
            let Ok(moved) = Value::new([rows, width], moved) else { continue };
            let value = value.clone();
            self.add(9, fault, Some(module.clone()), Some(explained), |edit| {
                edit.replace_rows(&value, &moved)
            });
        }
    }

    /// What is added to the scores for how far tokens stand apart.
    pub(super) fn distances(&mut self) {
        let tables = self.sound.steps(|op| matches!(op, Op::RelativeBias { .. }));
        let Some(step) = tables.map(|(step, _)| step).next() else { return };
        // The sound value is still there, so that the first attention is the first that is wrong.
        let (module, Some(value)) = (self.sound.first_attention(), self.sound.output(step)) else { return };
        self.add(36, "nothing added for distances", module.clone(), Some("nothing is added"), |edit| {
            edit.replace(&value, |nodes, sound| {
                let nothing = nodes.number(0.0);
                nodes.op("Mul", &[sound, &nothing])
            })
        });
        self.add(36, "earlier taken for later tokens", module, Some("exchanged"), |edit| {
            edit.replace(&value, |nodes, sound| {
                nodes.op_with("Transpose", &[sound], [("perm", Attribute::Ints(vec![1, 0, 2]))])
            })
        });
    }

    fn token_types(&mut self) {
        let program = self.sound.program();
        let tables = self.sound.steps(|op| matches!(op, Op::Embedding { .. })).map(|(step, _)| step);
        let of_types = |&step: &usize| !program.is_of_first_input(step);
        let Some(step) = tables.into_iter().find(of_types) else { return };
        if program.limits().token_types < 2 {
            return;
        }
        let module = Some(self.sound.path(step));
        self.add(8, "token types ignored", module, Some("token types"), |edit| {
            let zero = Value::new([1usize], vec![0i64]).ok()?;
            let integers = |spec: &ValueSpec| spec.name == "token_type_ids" && spec.dtype == DType::I64;
            edit.model.graph.inputs.iter().find(|spec| integers(spec))?;
            edit.replace_input("token_type_ids", |nodes, types| {
                let zero = nodes.constant(&zero);
                nodes.op("Mul", &[types, &zero])
            })
        });
    }

    /// An activation of a linear layer of one token.
    pub(super) fn pooler(&mut self) {
        let bends = self.sound.steps(|op| matches!(op, Op::Activation { configured: false, .. }));
        let pooler = bends.filter_map(|(bend, of)| {
            let dense = self.sound.fed(bend)?;
            let token = self.sound.fed(dense)?;
            let is_token = matches!(self.sound.program().steps[token].op, Op::Token { .. });
            let Op::Activation { function, .. } = of.op else { return None };
            is_token.then_some((bend, dense, token, function))
        });
        let Some((bend, dense, token, function)) = pooler.into_iter().next() else { return };
        let module = self.sound.path(bend);
        let (Some(value), Some(projected)) = (self.sound.output(bend), self.sound.output(dense)) else {
            return;
        };
        self.add(16, format!("the pooler without {function}"), Some(module.clone()), Some("tanh"), |edit| {
            edit.replace(&value, |_, _| projected.clone())
        });
        let hidden = self.sound.fed(token).and_then(|before| self.sound.output(before));
        let weights = ["weight", "bias"].map(|name| self.sound.parameter(dense, name));
        let (Some(hidden), [Some(weight), Some(bias)]) = (hidden, weights) else { return };
        self.add(16, "the pooler on the last token", Some(module), Some("token"), |edit| {
            edit.replace(&projected, |nodes, _| {
                let at = nodes.constant(&Value::scalar(-1i64));
                let token = nodes.op_with("Gather", &[&hidden, &at], [("axis", Attribute::Int(1))]);
                let (weight, bias) = (nodes.constant(&weight), nodes.constant(&bias));
                nodes.op_with("Gemm", &[&token, &weight, &bias], [("transB", Attribute::Int(1))])
            })
        });
    }

    pub(super) fn outputs(&mut self) {
        self.add(18, "the outputs exchanged", None, Some("output"), |edit| {
            let names: Vec<String> = edit.model.graph.outputs.iter().map(|spec| spec.name.clone()).collect();
            let [first, second] = names.as_slice() else { return None };
            let exchange = |name: &mut String| {
                if name == first {
                    name.clone_from(second);
                } else if name == second {
                    name.clone_from(first);
                }
            };
            for node in &mut edit.model.graph.nodes {
                node.inputs.iter_mut().chain(&mut node.outputs).for_each(exchange);
            }
            // What is declared of each goes with it.
            edit.model.graph.outputs.iter_mut().for_each(|spec| spec.shape = None);
            Some(())
        });
        let before = self.plants.len();
        self.add(31, "no output but a number", None, None, |edit| {
            let graph = &mut edit.model.graph;
            let spec = graph.outputs.first()?.clone();
            graph.nodes.push(Node {
                name: NUMBER.into(),
                op: "ReduceMax".into(),
                inputs: vec![spec.name.clone()],
                outputs: vec![NUMBER.into()],
                attributes: [("keepdims".to_string(), Attribute::Int(0))].into(),
                ..Node::default()
            });
            graph.outputs = vec![ValueSpec { name: NUMBER.into(), shape: Some(Vec::new()), ..spec }];
            Some(())
        });
        self.last_is(before, Wanted::Inconclusive, Side::Graph);
    }

    pub(super) fn sizes(&mut self) {
        let dynamic = self.sound.edit.model.graph.inputs.iter().any(|spec| {
            spec.shape
                .as_ref()
                .is_none_or(|dims| dims.iter().any(|dim| !matches!(dim, engine::Dim::Fixed(_))))
        });
        let Some((value, width)) = self.sound.first_norm().filter(|_| dynamic) else { return };
        self.add(10, "batch and length frozen at 2×7", None, None, |edit| {
            edit.replace(&value, |nodes, sound| {
                let shape = nodes.list(&[2, 7, width as i64]);
                nodes.op("Reshape", &[sound, &shape])
            })
        });
    }
}

/// TensorProto's number of the type that nodes are cast to.
const INT64: i64 = 7;

/// What a graph gives that no model does.
const NUMBER: &str = "planted/number";
