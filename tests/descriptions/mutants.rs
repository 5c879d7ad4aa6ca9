//! Programs in which one thing was changed.

use architecture::{
    Activation, Copied, Input, Module, Op, Output, Program, Role, Rotation, Step, Tensor, Wire, run_of,
};

use super::Recorded;
use super::scopes::operator;

/// A change, and the program with it.
pub(super) type Mutant = (String, Program);

/// Every field and every edge, each changed by itself.
pub(super) fn mutants(model: &Recorded) -> Vec<Mutant> {
    let original = &model.program;
    // A field that is added must be changed here, too: nothing is left out by `..`.
    let Program { class: _, base_class, axes, inputs, tensors, modules, steps, outputs, copies, buffers } =
        original;
    let mut all: Vec<Mutant> = Vec::new();
    let mut push = |what: String, change: &dyn Fn(&mut Program)| {
        let mut program = original.clone();
        change(&mut program);
        assert_ne!(program, *original, "{what} changes nothing");
        all.push((what, program));
    };
    push("the class".into(), &|p| p.class.push('2'));
    if base_class != &original.class {
        push("the class of the encoder".into(), &|p| p.base_class.push('2'));
    }
    push("the axes".into(), &|p| p.axes = if axes.len() == 2 { &["a", "b", "c"] } else { &["a", "b"] });
    for (at, Input { name: _ }) in inputs.iter().enumerate() {
        push(format!("the name of input {at}"), &|p| p.inputs[at].name = "other");
        push(format!("no input {at}"), &|p| {
            p.inputs.remove(at);
        });
    }
    for (at, Tensor { name, shape: _, in_base: _, old_name: _ }) in tensors.iter().enumerate() {
        push(format!("the name of {name}"), &|p| p.tensors[at].name.push('2'));
        push(format!("the shape of {name}"), &|p| p.tensors[at].shape[0] += 1);
        // Where there is no head, no prefix tells the two apart.
        if base_class != &original.class {
            push(format!("the side of {name}"), &|p| p.tensors[at].in_base ^= true);
        }
    }
    // What stands between modules is named after the steps, and how often a module runs shows only
    // where its outputs were recorded.
    let is_recorded = |path: &str| model.values.keys().any(|key| key.ends_with(&format!("/taps/{path}")));
    let is_told = |module: &Module| run_of(&module.path).1.is_none() || is_recorded(&module.path);
    let own = modules.iter().enumerate().filter(|(_, module)| !module.is_between() && is_told(module));
    for (at, Module { path, class, item, layer: _, output }) in own {
        let (of, run) = run_of(path);
        let other = run.map_or(format!("{of}2"), |run| format!("{of}2#{run}"));
        push(format!("the path of {path}"), &|p| p.modules[at].path.clone_from(&other));
        push(format!("no module {path}"), &|p| drop(p.modules.remove(at)));
        if model.values.keys().any(|key| key.ends_with(&format!("/taps/{path}"))) {
            push(format!("the output of {path}"), &|p| {
                p.modules[at].output = output.wrapping_sub(1).min(steps.len() - 1)
            });
        }
        if class.is_some() {
            push(format!("the class of {path}"), &|p| p.modules[at].class = Some("Other".into()));
            push(format!("no class of {path}"), &|p| p.modules[at].class = None);
        } else {
            push(format!("a class of {path}"), &|p| p.modules[at].class = Some("Other".into()));
        }
        if item.is_some() {
            push(format!("the number of {path}"), &|p| p.modules[at].item = Some(77));
        }
    }
    let has_key = model.values.keys().any(|key| key.ends_with(".key"));
    for (at, Step { op, inputs, module }) in steps.iter().enumerate() {
        let what = |part: &str| format!("{part} of step {at} in '{module}'");
        // The module of a mask or a reshape only says where the exporter counts its nodes.
        let is_first = matches!(run_of(module), (_, None | Some("0")));
        // A function's place is not told either.
        let is_function = !model.scopes.functions && matches!(op, Op::Activation { configured: false, .. });
        if is_first
            && !is_function
            && operator(&steps[at]).is_some_and(|(name, _)| model.scopes.tell_of(name))
        {
            push(what("the module"), &|p| p.steps[at].module.push('2'));
        }
        // Where only the first token goes on, it alone asks in the last layer, and is turned by
        // nothing.
        let shapes = original.shapes();
        let is_first_alone = matches!(op, Op::Rotate { .. })
            && original.role(at) == Some(Role::Query)
            && original.layer_of(original.place(at)) == original.layers().checked_sub(1)
            && original.outputs.iter().all(|output| !shapes[output.step].per_token)
            && !steps.iter().any(|step| step.op == Op::Mean);
        for (edge, wire) in inputs.iter().enumerate().filter(|(edge, _)| *edge == 0 || !is_first_alone) {
            // Where no text has an id that pads, positions do not depend on what they are counted
            // by.
            let counts = matches!(op, Op::Positions { padding: Some(_), .. });
            let pads = model.values.contains_key("pads/input_ids");
            for other in others(original, at, *wire).into_iter().filter(|_| pads || !counts) {
                push(what(&format!("edge {edge} to {other:?}")), &|p| p.steps[at].inputs[edge] = other);
            }
            push(what(&format!("no edge {edge}")), &|p| {
                p.steps[at].inputs.remove(edge);
            });
        }
        for (change, other) in other_ops(original, op).into_iter().filter(|_| !is_first_alone) {
            // Short texts have no distance that another end of the buckets would move.
            if change == "the farthest" && !model.values.contains_key("long/input_ids") {
                continue;
            }
            // A key's bias adds the same to all scores of a query: only what the key itself gives
            // shows it, which was recorded of the baseline.
            if ["the bias", "no bias"].contains(&change.as_str())
                && original.role(at) == Some(Role::Key)
                && !has_key
            {
                continue;
            }
            push(what(&change), &|p| p.steps[at].op = other.clone());
        }
    }
    for (at, Output { name, step }) in outputs.iter().enumerate() {
        push(format!("the name of output {name}"), &|p| p.outputs[at].name = "other");
        push(format!("the step of output {name}"), &|p| p.outputs[at].step = step - 1);
        push(format!("no output {name}"), &|p| {
            p.outputs.remove(at);
        });
    }
    // What only some checkpoints have is changed in the tests below.
    for Copied { name: _, of: _, tied: _ } in copies {}
    for _ in buffers {}
    all
}

/// Other wires that could feed a step: of the same shape, so that only the numbers tell.
fn others(program: &Program, step: usize, wire: Wire) -> Vec<Wire> {
    let shapes = program.shapes();
    let shape = |wire: Wire| match wire {
        Wire::Input(_) => None,
        Wire::Step(step) => Some(shapes[step]),
    };
    let inputs = (0..program.inputs.len()).map(Wire::Input);
    let earlier = (0..step).map(Wire::Step);
    let alike = inputs.chain(earlier).filter(|&other| other != wire && shape(other) == shape(wire));
    // The nearest ones; all of them would be thousands.
    let mut alike: Vec<Wire> = alike.collect();
    alike.reverse();
    alike.truncate(3);
    alike
}

/// An op with each of its fields changed, one at a time.
fn other_ops(program: &Program, op: &Op) -> Vec<(String, Op)> {
    let another = |tensor: usize| {
        let shape = &program.tensors[tensor].shape;
        (0..program.tensors.len()).find(|&other| other != tensor && program.tensors[other].shape == *shape)
    };
    let mut all = Vec::new();
    let mut push = |what: &str, op: Option<Op>| all.extend(op.map(|op| (what.to_string(), op)));
    match *op {
        Op::Rows | Op::Unrows | Op::Sum | Op::Product | Op::Mean | Op::FirstShown => {}
        Op::Mask { window } => {
            push("the window", window.map(|window| Op::Mask { window: Some(window + 1) }));
            push("no window", window.map(|_| Op::Mask { window: None }));
            push("a window", (window.is_none()).then_some(Op::Mask { window: Some(1) }));
        }
        Op::Angles { rotation, sines } => {
            let other = |rotation: Rotation| Some(Op::Angles { rotation, sines });
            push("the base", other(Rotation { base: rotation.base * 1.5, ..rotation }));
            push("how much slower", other(Rotation { slower: 1.5, ..rotation }));
            push("the size", other(Rotation { size: rotation.size + 2, ..rotation }));
            push("the positions", other(Rotation { positions: rotation.positions / 4, ..rotation }));
            let neighbours = !rotation.neighbours;
            push("the pairs", other(Rotation { neighbours, ..rotation }));
            push("sines", Some(Op::Angles { rotation, sines: !sines }));
        }
        Op::Rotate { heads, neighbours } => {
            let other = if heads == 1 { 2 } else { 1 };
            push("the heads", Some(Op::Rotate { heads: other, neighbours }));
            push("the pairs", Some(Op::Rotate { heads, neighbours: !neighbours }));
        }
        Op::Part { at, of } => {
            push("the part", Some(Op::Part { at: (at + 1) % of, of }));
            push("the number of parts", Some(Op::Part { at, of: of + 1 }));
        }
        Op::Embedding { table } => {
            push("the table", another(table).map(|table| Op::Embedding { table }));
            push("the kind", Some(Op::Positions { table, padding: None }));
        }
        Op::Positions { table, padding } => {
            push("the table", another(table).map(|table| Op::Positions { table, padding }));
            push("the padding", padding.map(|padding| Op::Positions { table, padding: Some(padding + 1) }));
            push("no padding", padding.map(|_| Op::Positions { table, padding: None }));
        }
        Op::RelativeBias { table, buckets, farthest } => {
            push("the table", another(table).map(|table| Op::RelativeBias { table, buckets, farthest }));
            push("the buckets", Some(Op::RelativeBias { table, buckets: buckets - 2, farthest }));
            push("the farthest", Some(Op::RelativeBias { table, buckets, farthest: farthest / 2 }));
        }
        Op::Linear { weight, bias } => {
            push("the weight", another(weight).map(|weight| Op::Linear { weight, bias }));
            let other = bias.and_then(another);
            push("the bias", other.map(|bias| Op::Linear { weight, bias: Some(bias) }));
            push("no bias", bias.map(|_| Op::Linear { weight, bias: None }));
        }
        Op::LayerNorm { weight, bias, eps } => {
            push("the weight", another(weight).map(|weight| Op::LayerNorm { weight, bias, eps }));
            let other = bias.and_then(another);
            push("the bias", other.map(|bias| Op::LayerNorm { weight, bias: Some(bias), eps }));
            push("no bias", bias.map(|_| Op::LayerNorm { weight, bias: None, eps }));
            push("the eps", Some(Op::LayerNorm { weight, bias, eps: if eps < 1e-8 { 1e-5 } else { 1e-12 } }));
        }
        Op::Attention { heads } => {
            push("the heads", Some(Op::Attention { heads: if heads == 1 { 2 } else { 1 } }))
        }
        Op::Activation { function, configured } => {
            // Both write the tanh form, one with √(2/π) cut to ten digits: at most 4e-12 apart,
            // which only large arguments show.
            let tanh_forms = [Activation::GeluTanh, Activation::GeluFast];
            let alike = |other: &Activation| tanh_forms.contains(other) && tanh_forms.contains(&function);
            for other in Activation::ALL.into_iter().filter(|other| *other != function && !alike(other)) {
                push(
                    &format!("{other} for {function}"),
                    Some(Op::Activation { function: other, configured }),
                );
            }
        }
        Op::Token { at } => push("the token", Some(Op::Token { at: at + 1 })),
        Op::Feature { at } => push("the feature", Some(Op::Feature { at: 1 - at })),
    }
    all
}
