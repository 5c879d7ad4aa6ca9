//! Faults in the weights, and changes that are none.

use architecture::Op;
use onnx_graph::Attribute;

use super::{Plants, Side, Wanted};

impl Plants<'_> {
    pub(super) fn weights(&mut self) {
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
            let before = self.plants.len();
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
            if self.is_unseen(&tensor) {
                self.last_is(before, Wanted::Holds, Side::Graph);
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
        let name = self
            .projection()
            .and_then(|step| Some((step, self.sound.carrier(self.sound.named(step, "weight")?)?)));
        if let Some((step, (name, _))) = name {
            let module = Some(self.sound.path(step));
            self.add(30, "a weight that is NaN", module, None, |edit| {
                edit.change(&name, |elements| elements[0] = f32::NAN)
            });
        }
    }

    /// The linear layer that the first attention goes to.
    pub(super) fn projection(&self) -> Option<usize> {
        let (attention, _) = self.sound.steps(|op| matches!(op, Op::Attention { .. })).next()?;
        let mut users = self.sound.program().consumers(attention).map(|(user, _)| user);
        users.find(|&user| matches!(self.sound.program().steps[user].op, Op::Linear { .. }))
    }

    /// The first linear layer of a layer that makes the hidden states wider or narrower.
    pub(super) fn widening(&self, layer: usize) -> Option<usize> {
        let steps = self.sound.steps_in(layer, |op| matches!(op, Op::Linear { .. }));
        steps.into_iter().find(|&step| {
            self.sound.fed(step).is_some_and(|before| self.sound.width(before) != self.sound.width(step))
        })
    }

    fn swaps(&mut self) {
        let attention = self.sound.steps(|op| matches!(op, Op::Attention { .. })).next();
        let part = |input: usize| attention.and_then(|(_, of)| of.inputs.get(input)?.step());
        let mut swaps = vec![[part(0), part(1)]];
        if self.sound.program().layers() > 1 {
            swaps.push([self.widening(0), self.widening(1)]);
        }
        for swap in swaps {
            let [Some(a), Some(b)] = swap.map(|step| Some(self.sound.named(step?, "weight")?.to_string()))
            else {
                continue;
            };
            // Layers may share one.
            if a == b {
                continue;
            }
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
        let Some(step) = self.projection() else { return };
        let Some(square) = self.sound.named(step, "weight").map(String::from) else { return };
        let size = self.sound.width(step).unwrap_or_default();
        let given = self.sound.fed(step).and_then(|before| self.sound.width(before));
        let Some((name, _)) = self.sound.carrier(&square).filter(|_| given == Some(size)) else { return };
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
    pub(super) fn harmless(&mut self) {
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
        self.add(25, "all outputs renamed", None, None, |edit| {
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
        let dense = self.widening(0).and_then(|step| Some((self.sound.path(step), self.sound.output(step)?)));
        if let Some((dense, value)) = dense {
            self.add(25, format!("{dense} negated twice"), None, None, |edit| {
                edit.replace(&value, |nodes, sound| {
                    let negated = nodes.op("Neg", &[sound]);
                    nodes.op("Neg", &[&negated])
                })
            });
        }
        self.last_is(before, Wanted::Holds, Side::Graph);
    }
}

/// The module that a tensor belongs to.
fn module_of(tensor: &str) -> String {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module).into()
}

/// A name for a name: Fowler, Noll and Vo's hash.
fn fnv(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
