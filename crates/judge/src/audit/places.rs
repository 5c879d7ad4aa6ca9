//! Whether tensors stand where they belong: by their names, by how their users take them, by the order of execution, and by what a query,
//! key or value does in the attention. No element needs to differ for a graph to be wrong here.

use architecture::Role;

use super::carriers::Carrier;
use super::flow::{Flow, Step, Use, ValueId};
use super::search::Match;
use super::weights::{Block, Weight};
use super::{Finding, FindingKind, Layout};

/// As many nodes lie between a query's dense layer and its scores at most: bias, reshapes, casts, scale. A bound for bad input.
const FARTHEST: usize = 64;

/// What the places are judged by.
pub(super) struct Places<'a> {
    pub flow: &'a Flow<'a>,
    pub weights: &'a [Weight],
    pub carriers: &'a [Carrier],
    pub matches: &'a [Match],
}

/// The node that uses a carrier first.
pub(super) fn depth(flow: &Flow, carrier: &Carrier) -> Option<usize> {
    carrier.uses.iter().map(|at| flow.steps[at.step].depth).min()
}

/// The same, if a tensor may lie there by its shape and by what the node does with it; elements are not looked at.
pub(super) fn place(flow: &Flow, weight: &Weight, carrier: &Carrier, layout: Layout) -> Option<usize> {
    let vector = weight.rows == 1 || weight.columns == 1;
    let fits = match layout {
        Layout::Rows { .. } => false,
        // Rows are looked up.
        _ if weight.is_table() && layout.is_transposed() => false,
        _ if vector => carrier.dims().len() < 2,
        _ => carrier.uses.iter().all(|&at| {
            let step = &flow.steps[at.step];
            let table = step.node.op == "Gather" && at.index == 0;
            let needs = if table { Some(false) } else { needs_transposed(step, at) };
            needs.is_none_or(|needs| needs == layout.is_transposed())
        }),
    };
    depth(flow, carrier).filter(|_| fits)
}

impl Places<'_> {
    /// All contradictions.
    pub fn findings(&self) -> Vec<Finding> {
        [self.names(), self.orientations(), self.order(), self.roles()].concat()
    }

    fn weight(&self, found: &Match) -> &Weight {
        &self.weights[found.weight]
    }

    /// Matches that are sure: one tensor, all of its elements.
    fn sure(&self) -> impl Iterator<Item = &Match> {
        self.matches
            .iter()
            .filter(|found| !found.shared && found.distance.differing == 0 && self.weight(found).is_used())
    }

    /// A name that says one tensor, while the elements are those of another.
    fn names(&self) -> Vec<Finding> {
        self.sure()
            .filter_map(|found| {
                let carrier = &self.carriers[found.carrier];
                let named = &self.weights[carrier.named?];
                let whole = found.placement.len() == carrier.elements.len();
                // A tied decoder is the table of words, whichever of the two names it has.
                let is_tied = named.tied && named.elements == self.weight(found).elements;
                if carrier.named == Some(found.weight) || !whole || is_tied || !named.is_used() {
                    return None;
                }
                let tensor = &self.weight(found).name;
                let message = format!(
                    "'{}' is named as {} and holds the elements of {tensor}",
                    carrier.name, named.name
                );
                Some(Finding::fails(FindingKind::Name, [tensor.clone(), named.name.clone()], message))
            })
            .collect()
    }

    /// A matrix that its user needs the other way round.
    fn orientations(&self) -> Vec<Finding> {
        self.sure()
            .filter(|found| !found.symmetric && self.weight(found).rows > 1 && self.weight(found).columns > 1)
            .filter(|found| !self.weight(found).is_table())
            .filter_map(|found| {
                let carrier = &self.carriers[found.carrier];
                let wrong = carrier.uses.iter().find(|&&at| {
                    let step = &self.flow.steps[at.step];
                    needs_transposed(step, at).is_some_and(|needs| needs != found.layout.is_transposed())
                })?;
                let (tensor, node) = (&self.weight(found).name, &self.flow.steps[wrong.step].node);
                let (has, needs) = if found.layout.is_transposed() {
                    ("transposed", "as it is")
                } else {
                    ("as it is", "transposed")
                };
                let message = format!(
                    "'{}' holds {tensor} {has}, and node '{}' ({}) needs it {needs}",
                    carrier.name, node.name, node.op
                );
                Some(Finding::fails(FindingKind::Orientation, [tensor.clone()], message))
            })
            .collect()
    }

    /// Tensors of modules that come one after another in the model, and not in the graph.
    fn order(&self) -> Vec<Finding> {
        let mut placed: Vec<(&Match, usize, usize)> = self
            .sure()
            .filter_map(|found| {
                let stage = self.weight(found).stage?;
                Some((found, stage, depth(self.flow, &self.carriers[found.carrier])?))
            })
            .collect();
        // Those that contradict most others go first, until no contradiction is left.
        let mut wrong: Vec<&Match> = Vec::new();
        loop {
            let contradictions = |&(_, stage, depth): &(&Match, usize, usize)| {
                let others = placed.iter();
                others
                    .filter(|other| {
                        (other.1 < stage && other.2 > depth) || (other.1 > stage && other.2 < depth)
                    })
                    .count()
            };
            let worst = (0..placed.len())
                .map(|at| (contradictions(&placed[at]), at))
                .max_by_key(|&(count, at)| (count, usize::MAX - at));
            match worst {
                Some((1.., at)) => wrong.push(placed.remove(at).0),
                _ => break,
            }
        }
        // What they were exchanged with may stand where it contradicts nothing else; then its bias tells.
        let alike = |found: &&Match| {
            let shape = &self.weight(found).shape;
            shape.len() > 1
                && wrong.iter().any(|wrong| &self.weight(wrong).shape == shape)
                && !wrong.iter().any(|wrong| std::ptr::eq(*wrong, *found))
        };
        let strangers: Vec<&Match> =
            self.sure().filter(alike).filter(|found| self.has_strange_bias(found)).collect();
        wrong
            .into_iter()
            .chain(strangers)
            .map(|found| {
                let tensor = &self.weight(found).name;
                let carrier = &self.carriers[found.carrier];
                let scope = carrier.scoped.filter(|&scoped| scoped != found.weight);
                let instead = scope
                    .map_or(String::new(), |scoped| format!(", in place of {}", self.weights[scoped].name));
                let message = format!(
                    "'{}' holds {tensor}, but the graph uses it at another place of the model{instead}",
                    carrier.name
                );
                let tensors = [Some(tensor.clone()), scope.map(|scoped| self.weights[scoped].name.clone())];
                Finding::fails(FindingKind::Order, tensors.into_iter().flatten(), message)
            })
            .collect()
    }

    /// Whether what is added to a matrix' product is the bias of another module.
    fn has_strange_bias(&self, found: &Match) -> bool {
        /// As many nodes lie between a product and its bias: casts, the scales of quantized weights.
        const FARTHEST: usize = 4;
        let own = |found: &Match| self.weight(found).part.map(|part| part.step);
        let uses = &self.carriers[found.carrier].uses;
        uses.iter().any(|at| {
            let mut step = &self.flow.steps[at.step];
            for _ in 0..FARTHEST {
                let biases = self.sure().filter(|other| {
                    let of = &self.carriers[other.carrier];
                    let part = self.weight(other).part;
                    part.is_some_and(|part| part.is_bias && part.block == Block::Linear)
                        && step.inputs.contains(&Some(of.value))
                });
                let mut biases = biases.peekable();
                if biases.peek().is_some() {
                    return biases.all(|bias| own(bias) != own(found));
                }
                let Some(&output) = step.outputs.iter().flatten().next() else { return false };
                let Some(&(next, _)) = self.flow.consumers[output].first() else { return false };
                step = &self.flow.steps[next];
            }
            false
        })
    }

    /// A query where a key belongs, and the like.
    fn roles(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for found in self.sure() {
            let tensor = &self.weight(found).name;
            let Some(own) = self.weight(found).part.and_then(|part| part.role) else { continue };
            let carrier = &self.carriers[found.carrier];
            for at in &carrier.uses {
                let Some(role) = self.role(found, *at).filter(|&role| role != own) else { continue };
                let message = format!(
                    "'{}' holds {tensor}, and the graph uses it as the {}",
                    carrier.name,
                    role.name()
                );
                findings.push(Finding::fails(FindingKind::Role, [tensor.clone()], message));
                break;
            }
        }
        findings
    }

    /// What becomes of a tensor's product in the attention.
    fn role(&self, found: &Match, at: Use) -> Option<Role> {
        let step = &self.flow.steps[at.step];
        let part = match found.layout {
            Layout::Part { part, of: 3, .. } => Role::ALL.get(part).copied(),
            _ => None,
        };
        match (step.node.op.as_str(), at.index) {
            // The specification of these operators has query, key and value in this order.
            ("Attention" | "QAttention" | "MultiHeadAttention", 1..=3)
                if step.node.domain == "com.microsoft" =>
            {
                part
            }
            // Joined some other way: what splits the product is not followed.
            _ if found.placement.len() != self.carriers[found.carrier].elements.len() => None,
            _ => self.follow(step),
        }
    }

    /// Follows a value to the product of two values in the attention.
    fn follow(&self, start: &Step) -> Option<Role> {
        let mut step = start;
        for _ in 0..FARTHEST {
            let value = (*step.outputs.first()?)?;
            let mut next = None;
            for &(consumer, index) in &self.flow.consumers[value] {
                let consumer = &self.flow.steps[consumer];
                let op = consumer.node.op.as_str();
                match op {
                    "Shape" | "Size" => {}
                    "MatMul" | "FusedMatMul" if self.both_variable(consumer) => {
                        return self.side(consumer, index);
                    }
                    "Attention" | "MultiHeadAttention" => return Role::ALL.get(index).copied(),
                    "Add" | "Mul" | "Div" | "Reshape" | "Transpose" | "Cast" | "Identity" | "Unsqueeze"
                    | "Squeeze" => {
                        next = Some(consumer);
                    }
                    _ => return None,
                }
            }
            step = next?;
        }
        None
    }

    fn both_variable(&self, step: &Step) -> bool {
        step.inputs.iter().take(2).all(|input| input.is_some_and(|value| self.flow.is_variable(value)))
    }

    /// Which side of a product of the attention an input is: scores are `query · keyᵀ`, and what a softmax multiplies are values.
    fn side(&self, product: &Step, index: usize) -> Option<Role> {
        let left = product.inputs.first().copied().flatten()?;
        if index == 1 && self.after_softmax(left) {
            return Some(Role::Value);
        }
        // Only if the scores go to the softmax as they are: `key · queryᵀ` would be transposed first.
        let mut value = (*product.outputs.first()?)?;
        for _ in 0..FARTHEST {
            let users = self.flow.consumers[value].iter().map(|&(step, _)| &self.flow.steps[step]);
            let step = users.into_iter().find(|step| !matches!(step.node.op.as_str(), "Shape" | "Size"))?;
            match step.node.op.as_str() {
                "Softmax" => return if index == 0 { Some(Role::Query) } else { Some(Role::Key) },
                "Add" | "Mul" | "Div" | "Where" | "Cast" | "Identity" | "Max" | "Clip" => {}
                _ => return None,
            }
            value = (*step.outputs.first()?)?;
        }
        None
    }

    /// Whether a value comes out of a softmax, through what dropout, casts and shapes leave behind.
    fn after_softmax(&self, mut value: ValueId) -> bool {
        for _ in 0..FARTHEST {
            let Some(step) = self.flow.made_by(value) else { return false };
            match (step.node.op.as_str(), step.inputs.first().copied().flatten()) {
                ("Softmax", _) => return true,
                ("Cast" | "Identity" | "Dropout" | "Reshape", Some(input)) => value = input,
                // NaN rows are replaced: Where(IsNaN(p), 0, p).
                ("Where", _) => match step.inputs.get(2).copied().flatten() {
                    Some(input) => value = input,
                    None => return false,
                },
                _ => return false,
            }
        }
        false
    }
}

/// Whether a node needs a dense layer's `[out, in]` matrix transposed; `None` where that cannot be told.
pub(super) fn needs_transposed(step: &Step, at: Use) -> Option<bool> {
    let node = &step.node;
    let flag = |name: &str| node.int(name).ok().flatten().unwrap_or_default() != 0;
    let needs = match (node.op.as_str(), at.index) {
        ("MatMul" | "MatMulInteger" | "DynamicQuantizeMatMul" | "MatMulIntegerToFloat", 1) => true,
        ("MatMulNBits" | "MatMulBnb4", 1) | ("QLinearMatMul", 3) => true,
        // x on the right: W xᵀ.
        ("MatMul", 0) => false,
        ("Gemm" | "FusedGemm" | "FusedMatMul" | "GemmFloat8", 1) | ("QGemm", 3) => !flag("transB"),
        ("Gemm" | "FusedGemm" | "FusedMatMul", 0) => flag("transA"),
        ("Attention" | "QAttention", 1) => true,
        _ => return None,
    };
    Some(needs ^ at.flipped)
}
