//! The faults of a graph, each planted in a copy of it.

use candle_bert::{Activation, BertConfig};
use checkpoint::Checkpoint;
use engine::{DType, Value};
use onnx_graph::{Attribute, Model};

use super::edit::{Edit, Nodes};
use crate::audit::{Audit, Layout, Origin};
use crate::locate::{Held, Kind};
use crate::proof::Promoted;

/// A graph with a fault.
pub struct Plant {
    /// The row of the fault in the list of faults, by which reports and papers may refer to it.
    pub row: u8,
    /// What was done.
    pub fault: String,
    /// The graph.
    pub model: Model,
    /// Where it was done.
    pub side: Side,
    /// The first module that is wrong; nothing where none is to be named.
    pub module: Option<String>,
    /// What the explanation should speak of, where there is one.
    pub explained: Option<&'static str>,
    /// What it should come to.
    pub wanted: Wanted,
}

/// What has the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The graph, and so every engine that runs it.
    Graph,
    /// The engine: it runs this graph where the user's graph is sound.
    Engine,
}

/// What a check should come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It fails.
    Fail,
    /// Nothing can be compared.
    Inconclusive,
    /// It does not fail: the change makes no other function.
    Holds,
}

/// What is known about a sound graph.
pub(super) struct Sound<'a> {
    pub edit: Edit,
    pub config: &'a BertConfig,
    pub checkpoint: &'a Checkpoint,
    pub held: &'a [Held],
    pub audit: &'a Audit,
    pub promoted: &'a [Promoted],
}

impl Sound<'_> {
    /// The value that holds what a module gives, in its own order.
    fn plain(&self, module: &str, kind: Kind) -> Option<&str> {
        let is_it = |held: &&Held| held.module == module && held.kind == kind && held.plain;
        self.held.iter().find(is_it).map(|held| held.value.as_str())
    }

    fn output(&self, module: &str) -> Option<String> {
        self.plain(module, Kind::Output).map(String::from)
    }

    /// The one initializer that carries a tensor, and whether it is transposed; nothing if there are several, or it carries more.
    fn carrier(&self, tensor: &str) -> Option<(String, bool)> {
        let mut carriers = self.audit.traced.iter().filter(|trace| trace.tensor == tensor);
        let trace = carriers.next().filter(|trace| trace.exact && trace.factor.is_none() && !trace.shared)?;
        let transposed = match trace.layout {
            Layout::Same => false,
            Layout::Transposed => true,
            _ => return None,
        };
        let alone =
            self.audit.traced.iter().filter(|other| other.initializer == trace.initializer).count() == 1;
        (alone && carriers.next().is_none()).then(|| (trace.initializer.clone(), transposed))
    }

    /// A tensor of the checkpoint, as f32.
    fn tensor(&self, name: &str) -> Option<Value> {
        let used = candle_bert::used_tensors(self.checkpoint, self.config).ok()?;
        let (_, entry) = used.into_iter().find(|(found, _)| found == name)?;
        let value = entry.to_value().ok()?;
        let elements: Vec<f32> = value.to_f64().into_iter().map(|x| x as f32).collect();
        Value::new(value.shape(), elements).ok()
    }

    fn layers(&self) -> Vec<usize> {
        // The first, the last and one between: what a fault does is the same in all.
        let last = self.config.num_hidden_layers.saturating_sub(1);
        let mut layers = vec![0, last / 2, last];
        layers.dedup();
        layers
    }

    fn planted(&self, plant: impl FnOnce(&mut Edit) -> Option<()>) -> Option<Model> {
        let mut edit = self.edit.clone();
        plant(&mut edit)?;
        edit.model.check().ok()?;
        Some(edit.model)
    }
}

/// All faults that can be planted in the graph; what it does not show, as the inside of a fused operator, is left out.
pub(super) fn plants(sound: &Sound) -> Vec<Plant> {
    let mut plants = Plants { sound, plants: Vec::new() };
    for layer in sound.layers() {
        plants.activation(layer);
        plants.residuals(layer);
        plants.values(layer);
    }
    plants.layer_norms();
    plants.scale();
    plants.mask();
    plants.embeddings();
    plants.pooler();
    plants.outputs();
    plants.sizes();
    plants.softmax();
    plants.dropout();
    plants.weights();
    plants.harmless();
    plants.engine();
    plants.plants
}

struct Plants<'a> {
    sound: &'a Sound<'a>,
    plants: Vec<Plant>,
}

impl Plants<'_> {
    fn add(
        &mut self,
        row: u8,
        fault: impl Into<String>,
        module: Option<String>,
        explained: Option<&'static str>,
        plant: impl FnOnce(&mut Edit) -> Option<()>,
    ) {
        if let Some(model) = self.sound.planted(plant) {
            self.plants.push(Plant {
                row,
                fault: fault.into(),
                model,
                side: Side::Graph,
                module,
                explained,
                wanted: Wanted::Fail,
            });
        }
    }

    fn last_is(&mut self, before: usize, wanted: Wanted, side: Side) {
        for plant in &mut self.plants[before..] {
            plant.wanted = wanted;
            plant.side = side;
        }
    }

    fn activation(&mut self, layer: usize) {
        let module = format!("encoder.layer.{layer}.intermediate");
        let (Some(value), Some(input)) =
            (self.sound.output(&module), self.sound.output(&format!("{module}.dense")))
        else {
            return;
        };
        let own = self.sound.config.hidden_act;
        type Make = fn(&mut Nodes, &str) -> String;
        let others: [(Activation, &str, &'static str, Make); 4] = [
            (Activation::Gelu, "gelu", "gelu", gelu),
            (Activation::GeluTanh, "the tanh form of gelu", "tanh", gelu_tanh),
            (Activation::QuickGelu, "quick gelu", "quick", quick_gelu),
            (Activation::Relu, "relu", "relu", |nodes, x| nodes.op("Relu", &[x])),
        ];
        for (other, name, explained, make) in others {
            // gelu_fast is gelu's tanh form to ten digits.
            let same = own == other || (own == Activation::GeluFast && other == Activation::GeluTanh);
            if !same {
                let fault = format!("{name} for {own} in layer {layer}");
                let (value, input) = (value.clone(), input.clone());
                self.add(1, fault, Some(module.clone()), Some(explained), |edit| {
                    edit.replace(&value, |nodes, _| make(nodes, &input))
                });
            }
        }
    }

    fn residuals(&mut self, layer: usize) {
        for part in ["attention.output", "output"] {
            let module = format!("encoder.layer.{layer}.{part}");
            let sum = self.sound.plain(&module, Kind::Sum).map(String::from);
            let (Some(sum), Some(dense)) = (sum, self.sound.output(&format!("{module}.dense"))) else {
                continue;
            };
            let fault = format!("no residual connection in {module}");
            self.add(29, fault, Some(module), Some("residual"), |edit| edit.replace(&sum, |_, _| dense));
        }
    }

    fn values(&mut self, layer: usize) {
        let dense = [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ];
        for part in dense {
            let module = format!("encoder.layer.{layer}.{part}");
            let (Some(value), Some(bias)) =
                (self.sound.output(&module), self.sound.tensor(&format!("{module}.bias")))
            else {
                continue;
            };
            // A key's bias adds the same to all scores of a query, which softmax does not see: leaving it out is no other function.
            let unseen = part.ends_with("key");
            if !unseen {
                for (op, what, explained) in [("Sub", "left out", "bias"), ("Add", "added twice", "bias")] {
                    let fault = format!("the bias of {module} {what}");
                    let (value, bias) = (value.clone(), bias.clone());
                    self.add(14, fault, Some(module.clone()), Some(explained), |edit| {
                        edit.replace(&value, |nodes, sound| {
                            let bias = nodes.constant(&bias);
                            nodes.op(op, &[sound, &bias])
                        })
                    });
                }
            }
        }
        let query = format!("encoder.layer.{layer}.attention.self.query");
        if let Some(value) = self.sound.output(&query) {
            let fault = format!("the scale applied twice in layer {layer}, on the query");
            let size = self.sound.config.hidden_size as f64 / self.sound.config.num_attention_heads as f64;
            let module = Some(format!("encoder.layer.{layer}.attention.self"));
            self.add(15, fault, module, Some("scale"), |edit| {
                edit.replace(&value, |nodes, sound| {
                    let scale = nodes.number(1.0 / size.sqrt());
                    nodes.op("Mul", &[sound, &scale])
                })
            });
        }
    }

    fn layer_norms(&mut self) {
        let mut modules = vec!["embeddings".to_string()];
        for layer in self.sound.layers() {
            modules
                .extend(["attention.output", "output"].map(|part| format!("encoder.layer.{layer}.{part}")));
        }
        let own = self.sound.config.layer_norm_eps;
        let other = if own > 1e-8 { 1e-12 } else { 1e-5 };
        for parent in modules {
            let module = format!("{parent}.LayerNorm");
            let sum = self.sound.plain(&parent, Kind::Sum).map(String::from);
            let (Some(value), Some(sum)) = (self.sound.output(&module), sum) else { continue };
            let gain = self.sound.tensor(&format!("{module}.weight"));
            let (Some(gain), Some(bias)) = (gain, self.sound.tensor(&format!("{module}.bias"))) else {
                continue;
            };
            let fault = format!("eps {other:e} for {own:e} in {module}");
            self.add(2, fault, Some(module.clone()), Some("eps"), |edit| {
                edit.replace(&value, |nodes, _| layer_norm(nodes, &sum, &gain, &bias, other, false))
            });
            let fault = format!("the mean not taken off in {module}");
            self.add(24, fault, Some(module.clone()), Some("mean"), |edit| {
                edit.replace(&value, |nodes, _| layer_norm(nodes, &sum, &gain, &bias, own, true))
            });
        }
    }

    fn scale(&mut self) {
        let is_scale = |promoted: &&Promoted| ["√d", "1/√d", "d^¼", "d^-¼"].contains(&promoted.meaning);
        let names: Vec<String> =
            self.sound.promoted.iter().filter(is_scale).map(|p| p.name.clone()).collect();
        // Exact powers of two need no promotion, and are among the constants of the audit.
        let exact =
            self.sound.audit.constants.iter().filter(|constant| constant.origin == Origin::AttentionScale);
        let mut names: Vec<String> =
            names.into_iter().chain(exact.map(|constant| constant.name.clone())).collect();
        names.dedup();
        if let Some(name) = names.into_iter().next() {
            // One constant may serve all layers.
            let module = Some("encoder.layer.0.attention.self".to_string());
            self.add(15, "twice the attention scale", module, Some("scale"), |edit| {
                edit.change(&name, |elements| elements.iter_mut().for_each(|x| *x *= 2.0))
            });
        }
    }

    fn mask(&mut self) {
        let module = || Some("encoder.layer.0.attention.self".to_string());
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

    fn embeddings(&mut self) {
        if self.sound.config.type_vocab_size > 1 {
            let module = Some("embeddings.token_type_embeddings".to_string());
            self.add(8, "token types ignored", module, Some("token types"), |edit| {
                let zero = Value::new([1usize], vec![0i64]).ok()?;
                let integers =
                    |spec: &engine::ValueSpec| spec.name == "token_type_ids" && spec.dtype == DType::I64;
                edit.model.graph.inputs.iter().find(|spec| integers(spec))?;
                edit.replace_input("token_type_ids", |nodes, types| {
                    let zero = nodes.constant(&zero);
                    nodes.op("Mul", &[types, &zero])
                })
            });
        }
        let module = "embeddings.position_embeddings";
        // All rows may share one.
        let held = self.sound.held.iter().find(|held| held.module == module);
        let Some(value) = held.map(|held| held.value.clone()) else { return };
        let Some(table) = self.sound.tensor(&format!("{module}.weight")) else { return };
        let (Ok(elements), &[rows, width]) = (table.as_slice::<f32>(), table.shape()) else { return };
        type Row = fn(usize, usize) -> usize;
        let wrong: [(&str, &'static str, Row); 2] = [
            ("positions shifted by 2", "shifted", |row, rows| (row + 2) % rows),
            ("positions frozen at 0", "0", |_, _| 0),
        ];
        for (fault, explained, at) in wrong {
            let moved: Vec<f32> = (0..rows)
                .flat_map(|row| elements.iter().skip(at(row, rows) * width).take(width).copied())
                .collect();
            let Ok(moved) = Value::new([rows, width], moved) else { continue };
            let value = value.clone();
            self.add(9, fault, Some(module.into()), Some(explained), |edit| {
                edit.replace(&value, |nodes, sound| {
                    // As many rows as there are positions, under the shape it had.
                    let shape = nodes.op("Shape", &[sound]);
                    let (minus_two, minus_one, zero) =
                        (nodes.list(&[-2]), nodes.list(&[-1]), nodes.list(&[0]));
                    let sequence = nodes.op("Slice", &[&shape, &minus_two, &minus_one]);
                    let table = nodes.constant(&moved);
                    let rows = nodes.op("Slice", &[&table, &zero, &sequence, &zero]);
                    let nothing = nodes.number(0.0);
                    let blank = nodes.op("Mul", &[sound, &nothing]);
                    nodes.op("Add", &[&blank, &rows])
                })
            });
        }
    }

    fn pooler(&mut self) {
        let (Some(value), Some(dense)) = (self.sound.output("pooler"), self.sound.output("pooler.dense"))
        else {
            return;
        };
        self.add(16, "the pooler without tanh", Some("pooler".into()), Some("tanh"), |edit| {
            edit.replace(&value, |_, _| dense.clone())
        });
        let last = self.sound.config.num_hidden_layers.saturating_sub(1);
        let hidden = self.sound.output(&format!("encoder.layer.{last}.output.LayerNorm"));
        let weights = ["weight", "bias"].map(|part| self.sound.tensor(&format!("pooler.dense.{part}")));
        let (Some(hidden), [Some(weight), Some(bias)]) = (hidden, weights) else { return };
        self.add(16, "the pooler on the last token", Some("pooler".into()), Some("token"), |edit| {
            edit.replace(&dense, |nodes, _| {
                let at = nodes.constant(&Value::scalar(-1i64));
                let token = nodes.op_with("Gather", &[&hidden, &at], [("axis", Attribute::Int(1))]);
                let (weight, bias) = (nodes.constant(&weight), nodes.constant(&bias));
                nodes.op_with("Gemm", &[&token, &weight, &bias], [("transB", Attribute::Int(1))])
            })
        });
    }

    fn outputs(&mut self) {
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
        self.add(31, "all outputs renamed", None, None, |edit| {
            for index in 0..edit.model.graph.outputs.len() {
                let old = edit.model.graph.outputs[index].name.clone();
                let new = format!("renamed_{index}");
                for node in &mut edit.model.graph.nodes {
                    let names = node.inputs.iter_mut().chain(&mut node.outputs);
                    names.filter(|name| **name == old).for_each(|name| name.clone_from(&new));
                }
                edit.model.graph.outputs[index].name = new;
            }
            Some(())
        });
        self.last_is(before, Wanted::Inconclusive, Side::Graph);
    }

    fn sizes(&mut self) {
        let dynamic = self.sound.edit.model.graph.inputs.iter().any(|spec| {
            spec.shape
                .as_ref()
                .is_none_or(|dims| dims.iter().any(|dim| !matches!(dim, engine::Dim::Fixed(_))))
        });
        let Some(value) = self.sound.output("embeddings.LayerNorm").filter(|_| dynamic) else { return };
        let width = self.sound.config.hidden_size as i64;
        self.add(10, "batch and length frozen at 2×7", None, None, |edit| {
            edit.replace(&value, |nodes, sound| {
                let shape = nodes.list(&[2, 7, width]);
                nodes.op("Reshape", &[sound, &shape])
            })
        });
    }

    fn softmax(&mut self) {
        // Before opset 13 another axis than the last one means several.
        if self.sound.edit.opset() < 13 {
            return;
        }
        let module = Some("encoder.layer.0.attention.self".to_string());
        self.add(28, "softmax over the queries", module, Some("softmax"), |edit| {
            let mut nodes = edit.model.graph.nodes.iter_mut().filter(|node| node.op == "Softmax").peekable();
            nodes.peek()?;
            nodes.for_each(|node| {
                node.attributes.insert("axis".into(), Attribute::Int(-2));
            });
            Some(())
        });
    }

    fn dropout(&mut self) {
        let Some(value) = self.sound.output("embeddings.LayerNorm").filter(|_| self.sound.edit.opset() >= 12)
        else {
            return;
        };
        self.add(11, "dropout left in", None, Some("deterministic"), |edit| {
            edit.replace(&value, |nodes, sound| {
                let ratio = nodes.number(0.1);
                let training = nodes.constant(&Value::scalar(true));
                nodes.op("Dropout", &[sound, &ratio, &training])
            })
        });
    }

    fn weights(&mut self) {
        let names: Vec<String> = self.sound.audit.traced.iter().map(|trace| trace.tensor.clone()).collect();
        let mut seen: Vec<String> = Vec::new();
        for tensor in names {
            // One layer's tensors are enough, and the tables.
            let kind = tensor.replacen(|c: char| c.is_ascii_digit(), "", 3);
            if seen.contains(&kind) {
                continue;
            }
            let Some((name, _)) = self.sound.carrier(&tensor) else { continue };
            seen.push(kind);
            let module = module_of(&tensor);
            // The middle of the middle row, which for a table no input need touch.
            let middle = |elements: &[f32]| elements.len() / 2 + 3.min(elements.len() / 4);
            type Change = fn(f32) -> f32;
            let changes: [(&str, Change); 4] = [
                ("1 ULP", |x| f32::from_bits(x.to_bits() ^ 1)),
                ("1e-5 of it", |x| x * (1.0 + 1e-5) + 1e-7),
                ("1 % of it", |x| x * 1.01 + 1e-5),
                ("a flipped sign", |x| if x == 0.0 { 1e-3 } else { -x }),
            ];
            for (how, change) in changes {
                self.add(
                    12,
                    format!("one element of {tensor} off by {how}"),
                    Some(module.clone()),
                    None,
                    |edit| {
                        edit.change(&name, |elements| {
                            let at = middle(elements);
                            if let Some(element) = elements.get_mut(at) {
                                *element = change(*element);
                            }
                        })
                    },
                );
            }
            if tensor.ends_with("bias") {
                self.add(14, format!("{tensor} all zero"), Some(module.clone()), None, |edit| {
                    let zero = edit.elements(&name)?.iter().all(|&x| x == 0.0);
                    (!zero).then(|| edit.change(&name, |elements| elements.fill(0.0)))?
                });
            }
        }
        self.swaps();
        self.add(12, "every weight off by 1e-3 of it, as in a stale file", None, None, |edit| {
            let names: Vec<String> = self.sound.audit.traced.iter().map(|t| t.initializer.clone()).collect();
            for (number, name) in names.iter().enumerate() {
                let sign = if number % 2 == 0 { 1e-3 } else { -1e-3 };
                edit.change(name, |elements| elements.iter_mut().for_each(|x| *x += *x * sign));
            }
            Some(())
        });
        let first = self.sound.carrier("encoder.layer.0.attention.output.dense.weight");
        if let Some((name, _)) = first {
            let module = Some("encoder.layer.0.attention.output.dense".to_string());
            self.add(30, "a weight that is NaN", module, None, |edit| {
                edit.change(&name, |elements| elements[0] = f32::NAN)
            });
        }
    }

    fn swaps(&mut self) {
        let tensor = |layer: usize, part: &str| format!("encoder.layer.{layer}.{part}.weight");
        let mut swaps = vec![(tensor(0, "attention.self.query"), tensor(0, "attention.self.key"))];
        if self.sound.config.num_hidden_layers > 1 {
            swaps.push((tensor(0, "intermediate.dense"), tensor(1, "intermediate.dense")));
        }
        for (a, b) in swaps {
            let (Some((first, _)), Some((second, _))) = (self.sound.carrier(&a), self.sound.carrier(&b))
            else {
                continue;
            };
            self.add(12, format!("{a} and {b} exchanged"), Some(module_of(&a)), None, |edit| {
                let (x, y) = (edit.elements(&first)?, edit.elements(&second)?);
                edit.change(&first, |elements| *elements = y)?;
                edit.change(&second, |elements| *elements = x)
            });
        }
        let square = tensor(0, "attention.output.dense");
        let Some((name, _)) = self.sound.carrier(&square) else { return };
        let size = self.sound.config.hidden_size;
        self.add(
            12,
            format!("{square} the wrong way round"),
            Some(module_of(&square)),
            Some("transposed"),
            |edit| {
                edit.change(&name, |elements| {
                    let old = elements.clone();
                    for row in 0..size {
                        for column in 0..size {
                            elements[row * size + column] = old[column * size + row];
                        }
                    }
                })
            },
        );
    }

    /// Changes that make no other function: none may fail.
    fn harmless(&mut self) {
        let before = self.plants.len();
        self.add(25, "all values and nodes renamed", None, None, |edit| {
            let graph = &mut edit.model.graph;
            let kept: Vec<String> =
                graph.inputs.iter().chain(&graph.outputs).map(|spec| spec.name.clone()).collect();
            let renamed = |name: &str| {
                let keep = name.is_empty() || kept.iter().any(|other| other == name);
                if keep { name.to_string() } else { format!("v{:x}", fnv(name)) }
            };
            // What a branch reads from outside would have to be renamed there, too.
            let branches = |node: &onnx_graph::Node| {
                node.attributes
                    .values()
                    .any(|attribute| matches!(attribute, Attribute::Graph(_) | Attribute::Graphs(_)))
            };
            if graph.nodes.iter().any(branches) {
                return None;
            }
            for (index, node) in graph.nodes.iter_mut().enumerate() {
                node.name = format!("n{index}");
                node.metadata.clear();
                node.inputs.iter_mut().chain(&mut node.outputs).for_each(|name| *name = renamed(name));
            }
            let initializers = std::mem::take(&mut graph.initializers);
            graph.initializers =
                initializers.into_iter().map(|(name, tensor)| (renamed(&name), tensor)).collect();
            Some(())
        });
        let dense = "encoder.layer.0.intermediate.dense";
        if let Some(value) = self.sound.output(dense) {
            self.add(25, format!("{dense} negated twice"), None, None, |edit| {
                edit.replace(&value, |nodes, sound| {
                    let negated = nodes.op("Neg", &[sound]);
                    nodes.op("Neg", &[&negated])
                })
            });
        }
        self.last_is(before, Wanted::Holds, Side::Graph);
    }

    /// Faults of an engine: the graph is sound, what runs it is not.
    fn engine(&mut self) {
        let before = self.plants.len();
        self.add(22, "an engine whose MatMul rounds to bf16", None, None, |edit| {
            let values: Vec<String> = edit
                .model
                .graph
                .nodes
                .iter()
                .filter(|node| ["MatMul", "Gemm", "FusedMatMul"].contains(&node.op.as_str()))
                .filter_map(|node| node.inputs.first().cloned())
                .filter(|name| !edit.model.graph.initializers.contains_key(name))
                .collect();
            let mut done: Vec<&String> = Vec::new();
            for value in &values {
                if done.contains(&value) {
                    continue;
                }
                done.push(value);
                edit.replace(value, |nodes, sound| {
                    let half = nodes.op_with("Cast", &[sound], [("to", Attribute::Int(BFLOAT16))]);
                    nodes.op_with("Cast", &[&half], [("to", Attribute::Int(FLOAT))])
                })?;
            }
            (!done.is_empty()).then_some(())
        });
        if self.sound.config.hidden_act == Activation::Gelu {
            self.add(22, "an engine whose gelu is the tanh form", None, None, |edit| {
                for layer in 0..self.sound.config.num_hidden_layers {
                    let module = format!("encoder.layer.{layer}.intermediate");
                    let (value, input) =
                        (self.sound.output(&module)?, self.sound.output(&format!("{module}.dense"))?);
                    edit.replace(&value, |nodes, _| gelu_tanh(nodes, &input))?;
                }
                Some(())
            });
        }
        self.add(22, "an engine whose LayerNorm is one-pass", None, None, |edit| {
            let norms = self.sound.held.iter().filter(|held| held.kind == Kind::Output && held.plain);
            let eps = self.sound.config.layer_norm_eps;
            let mut planted = None;
            for norm in norms {
                let Some(parent) = norm.module.strip_suffix(".LayerNorm") else { continue };
                let tensors =
                    ["weight", "bias"].map(|part| self.sound.tensor(&format!("{}.{part}", norm.module)));
                let (Some(sum), [Some(gain), Some(bias)]) = (self.sound.plain(parent, Kind::Sum), tensors)
                else {
                    continue;
                };
                edit.replace(&norm.value, |nodes, _| one_pass(nodes, sum, &gain, &bias, eps))?;
                planted = Some(());
            }
            planted
        });
        self.last_is(before, Wanted::Fail, Side::Engine);
    }
}

/// TensorProto's numbers of the types that nodes are cast to.
const FLOAT: i64 = 1;
const INT64: i64 = 7;
const BFLOAT16: i64 = 16;

/// The module that a tensor belongs to.
fn module_of(tensor: &str) -> String {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module).into()
}

/// A name for a name: Fowler, Noll and Vo's hash.
fn fnv(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// x/2 · (1 + erf(x/√2))
fn gelu(nodes: &mut Nodes, x: &str) -> String {
    let root = nodes.number(std::f64::consts::FRAC_1_SQRT_2);
    let scaled = nodes.op("Mul", &[x, &root]);
    let erf = nodes.op("Erf", &[&scaled]);
    halved(nodes, x, &erf)
}

/// x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))
fn gelu_tanh(nodes: &mut Nodes, x: &str) -> String {
    let (factor, cubic) = (nodes.number((2.0 / std::f64::consts::PI).sqrt()), nodes.number(0.044715));
    let square = nodes.op("Mul", &[x, x]);
    let cube = nodes.op("Mul", &[&square, x]);
    let third = nodes.op("Mul", &[&cube, &cubic]);
    let sum = nodes.op("Add", &[x, &third]);
    let inner = nodes.op("Mul", &[&sum, &factor]);
    let tanh = nodes.op("Tanh", &[&inner]);
    halved(nodes, x, &tanh)
}

/// x · sigmoid(1.702 x)
fn quick_gelu(nodes: &mut Nodes, x: &str) -> String {
    let factor = nodes.number(1.702);
    let scaled = nodes.op("Mul", &[x, &factor]);
    let gate = nodes.op("Sigmoid", &[&scaled]);
    nodes.op("Mul", &[x, &gate])
}

/// x/2 · (1 + y)
fn halved(nodes: &mut Nodes, x: &str, y: &str) -> String {
    let (one, half) = (nodes.number(1.0), nodes.number(0.5));
    let sum = nodes.op("Add", &[y, &one]);
    let product = nodes.op("Mul", &[x, &sum]);
    nodes.op("Mul", &[&product, &half])
}

/// The normalisation with the variance as mean(x²) − mean(x)².
fn one_pass(nodes: &mut Nodes, x: &str, gain: &Value, bias: &Value, eps: f64) -> String {
    let mean = nodes.reduce_last("ReduceMean", x);
    let squares = nodes.op("Mul", &[x, x]);
    let mean_of_squares = nodes.reduce_last("ReduceMean", &squares);
    let square_of_mean = nodes.op("Mul", &[&mean, &mean]);
    let variance = nodes.op("Sub", &[&mean_of_squares, &square_of_mean]);
    let eps = nodes.number(eps);
    let sum = nodes.op("Add", &[&variance, &eps]);
    let deviation = nodes.op("Sqrt", &[&sum]);
    let centered = nodes.op("Sub", &[x, &mean]);
    let normalized = nodes.op("Div", &[&centered, &deviation]);
    let (gain, bias) = (nodes.constant(gain), nodes.constant(bias));
    let scaled = nodes.op("Mul", &[&normalized, &gain]);
    nodes.op("Add", &[&scaled, &bias])
}

/// The normalisation, node by node; `raw` without taking off the mean.
fn layer_norm(nodes: &mut Nodes, x: &str, gain: &Value, bias: &Value, eps: f64, raw: bool) -> String {
    let mean = nodes.reduce_last("ReduceMean", x);
    let centered = if raw { x.to_string() } else { nodes.op("Sub", &[x, &mean]) };
    let square = nodes.op("Mul", &[&centered, &centered]);
    let variance = nodes.reduce_last("ReduceMean", &square);
    let eps = nodes.number(eps);
    let sum = nodes.op("Add", &[&variance, &eps]);
    let deviation = nodes.op("Sqrt", &[&sum]);
    let normalized = nodes.op("Div", &[&centered, &deviation]);
    let (gain, bias) = (nodes.constant(gain), nodes.constant(bias));
    let scaled = nodes.op("Mul", &[&normalized, &gain]);
    nodes.op("Add", &[&scaled, &bias])
}
