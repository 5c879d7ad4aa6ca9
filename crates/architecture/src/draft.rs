use std::borrow::Cow;

use crate::program::{Copied, Input, Module, Output, Program, Step, Tensor, TensorId, Wire, run_of};
use crate::{Activation, Op, Rotation, Shape, Task};

/// A program in the making: a description writes it block by block, in the order of execution.
///
/// Widths are taken from what a block is fed, so a description says each size once.
pub struct Draft {
    program: Program,
    /// The path of the module that is being written.
    path: String,
    /// Which run of it that is, where it runs several times.
    run: Option<usize>,
    in_base: bool,
    /// Of each step so far.
    shapes: Vec<Shape>,
}

impl Draft {
    /// A model of that class, for a task. `base_class` is the class of the model in it that has no
    /// head; empty where it is the same.
    pub fn new(class: &str, base_class: &str, task: Task) -> Self {
        let base_class = if base_class.is_empty() { class } else { base_class };
        let program = Program {
            class: class.into(),
            base_class: base_class.into(),
            axes: task.input_axes(),
            ..Program::default()
        };
        Self { program, path: String::new(), run: None, in_base: false, shapes: Vec::new() }
    }

    /// An input.
    pub fn input(&mut self, name: &'static str) -> Wire {
        self.program.inputs.push(Input { name });
        Wire::Input(self.program.inputs.len() - 1)
    }

    /// The model without its head, whose tensors may have a prefix of their own.
    pub fn base<T>(&mut self, write: impl FnOnce(&mut Self) -> T) -> T {
        self.in_base = true;
        let written = write(self);
        self.in_base = false;
        written
    }

    /// A module of a class of transformers' own. What `write` gives is its output.
    pub fn module(
        &mut self,
        name: &str,
        class: impl Into<Cow<'static, str>>,
        write: impl FnOnce(&mut Self) -> Wire,
    ) -> Wire {
        self.nested(name, Some(class.into()), [None; 2], write)
    }

    /// A run of what has the same weights each time: the run of that number.
    pub fn run<T>(&mut self, run: usize, write: impl FnOnce(&mut Self) -> T) -> T {
        self.run = Some(run);
        let written = write(self);
        self.run = None;
        written
    }

    /// The item of that number in a list of modules.
    pub fn item(
        &mut self,
        list: &str,
        number: usize,
        class: impl Into<Cow<'static, str>>,
        write: impl FnOnce(&mut Self) -> Wire,
    ) -> Wire {
        self.nested(&format!("{list}.{number}"), Some(class.into()), [Some(number); 2], write)
    }

    /// The item of that number in a list of modules, which is another number of the repeated
    /// layers, or none of them.
    pub fn item_as(
        &mut self,
        list: &str,
        number: usize,
        layer: Option<usize>,
        class: impl Into<Cow<'static, str>>,
        write: impl FnOnce(&mut Self) -> Wire,
    ) -> Wire {
        self.nested(&format!("{list}.{number}"), Some(class.into()), [Some(number), layer], write)
    }

    /// A module of PyTorch's own.
    fn leaf(&mut self, name: &str, write: impl FnOnce(&mut Self) -> Wire) -> Wire {
        self.nested(name, None, [None; 2], write)
    }

    fn nested(
        &mut self,
        name: &str,
        class: Option<Cow<'static, str>>,
        [item, layer]: [Option<usize>; 2],
        write: impl FnOnce(&mut Self) -> Wire,
    ) -> Wire {
        let outside = self.path.clone();
        self.path = if outside.is_empty() { name.into() } else { format!("{outside}.{name}") };
        let output = write(self);
        let path = self.path_of_run();
        self.path = outside;
        if let Wire::Step(output) = output {
            self.program.modules.push(Module { path, class, item, layer, output });
        }
        output
    }

    /// The path of the module that is being written, with its run.
    fn path_of_run(&self) -> String {
        match self.run {
            Some(run) if !self.path.is_empty() => format!("{}#{run}", self.path),
            _ => self.path.clone(),
        }
    }

    /// An embedding table: a row for each id.
    pub fn embedding(&mut self, name: &str, ids: Wire, rows: usize, width: usize) -> Wire {
        self.leaf(name, |m| {
            let table = m.parameter("weight", vec![rows, width]);
            m.step(Op::Embedding { table }, [ids])
        })
    }

    /// An embedding table: a row for each position of the first input, counted from 0.
    pub fn positions(&mut self, name: &str, rows: usize, width: usize) -> Wire {
        self.leaf(name, |m| {
            let table = m.parameter("weight", vec![rows, width]);
            m.step(Op::Positions { table, padding: None }, [])
        })
    }

    /// An embedding table: a row for each position of `ids`. Tokens whose id is `padding` take the
    /// row of that number; the others are counted from the next one on.
    pub fn positions_by_padding(
        &mut self,
        name: &str,
        ids: Wire,
        padding: usize,
        [rows, width]: [usize; 2],
    ) -> Wire {
        self.leaf(name, |m| {
            let table = m.parameter("weight", vec![rows, width]);
            m.step(Op::Positions { table, padding: Some(padding) }, [ids])
        })
    }

    /// A table of numbers for each head, a row for each bucket of distances; see
    /// [`Op::RelativeBias`].
    pub fn relative_bias(
        &mut self,
        name: &str,
        [rows, heads]: [usize; 2],
        buckets: usize,
        farthest: usize,
    ) -> Wire {
        self.leaf(name, |m| {
            let table = m.parameter("weight", vec![rows, heads]);
            m.step(Op::RelativeBias { table, buckets, farthest }, [])
        })
    }

    /// A linear layer with a bias.
    pub fn linear(&mut self, name: &str, x: Wire, outputs: usize) -> Wire {
        self.linear_with(name, x, outputs, true)
    }

    /// A linear layer, with a bias or without.
    pub fn linear_with(&mut self, name: &str, x: Wire, outputs: usize, has_bias: bool) -> Wire {
        let inputs = self.width(x);
        self.leaf(name, |m| {
            let weight = m.parameter("weight", vec![outputs, inputs]);
            let bias = has_bias.then(|| m.parameter("bias", vec![outputs]));
            m.step(Op::Linear { weight, bias }, [x])
        })
    }

    /// A linear layer whose weight, or whose bias, is not its own parameter.
    pub fn linear_of(&mut self, name: &str, x: Wire, weight: TensorId, bias: Option<TensorId>) -> Wire {
        self.leaf(name, |m| m.step(Op::Linear { weight, bias }, [x]))
    }

    /// A layer norm with a bias.
    pub fn layer_norm(&mut self, name: &str, x: Wire, eps: f64) -> Wire {
        self.layer_norm_with(name, x, eps, true)
    }

    /// A layer norm, with a bias or without.
    pub fn layer_norm_with(&mut self, name: &str, x: Wire, eps: f64, has_bias: bool) -> Wire {
        let width = self.width(x);
        self.leaf(name, |m| {
            let weight = m.parameter("weight", vec![width]);
            let bias = has_bias.then(|| m.parameter("bias", vec![width]));
            for (tensor, old) in [(Some(weight), "gamma"), (bias, "beta")] {
                if let Some(tensor) = tensor {
                    m.program.tensors[tensor].old_name = Some(m.named(old));
                }
            }
            m.step(Op::LayerNorm { weight, bias, eps }, [x])
        })
    }

    /// What attention makes of a mask `[rows, sequence]`.
    pub fn mask(&mut self, mask: Wire) -> Wire {
        self.step(Op::Mask { window: None }, [mask])
    }

    /// What attention makes of a mask `[rows, sequence]` where tokens see no further than `window`
    /// in either direction.
    pub fn window(&mut self, mask: Wire, window: usize) -> Wire {
        self.step(Op::Mask { window: Some(window) }, [mask])
    }

    /// A module that gives the cosines and the sines of the angles by which tokens are turned, in
    /// that order. Modules that give the same ones share them.
    pub fn rotary(
        &mut self,
        name: &str,
        class: impl Into<Cow<'static, str>>,
        rotation: Rotation,
    ) -> [Wire; 2] {
        let angles = |m: &mut Self, sines: bool| {
            let op = Op::Angles { rotation, sines };
            match m.program.steps.iter().position(|step| step.op == op) {
                Some(known) => Wire::Step(known),
                None => m.step(op, []),
            }
        };
        let mut both = [Wire::Input(0); 2];
        self.module(name, class, |m| {
            both = [false, true].map(|sines| angles(m, sines));
            both[0]
        });
        both
    }

    /// Turns the features of each head.
    pub fn rotate(&mut self, x: Wire, [cosines, sines]: [Wire; 2], heads: usize) -> Wire {
        let neighbours = cosines.step().is_some_and(|step| match self.program.steps[step].op {
            Op::Angles { rotation, .. } => rotation.neighbours,
            _ => false,
        });
        self.step(Op::Rotate { heads, neighbours }, [x, cosines, sines])
    }

    /// Multi-head attention; query, key and value have the same width.
    pub fn attention(&mut self, [query, key, value]: [Wire; 3], mask: Wire, heads: usize) -> Wire {
        self.step(Op::Attention { heads }, [query, key, value, mask])
    }

    /// Multi-head attention with a number added to each score.
    pub fn biased_attention(
        &mut self,
        [query, key, value]: [Wire; 3],
        [mask, bias]: [Wire; 2],
        heads: usize,
    ) -> Wire {
        self.step(Op::Attention { heads }, [query, key, value, mask, bias])
    }

    /// The activation that the architecture has here.
    pub fn activation(&mut self, x: Wire, function: Activation) -> Wire {
        self.step(Op::Activation { function, configured: false }, [x])
    }

    /// The activation that config.json chooses.
    pub fn configured_activation(&mut self, x: Wire, function: Activation) -> Wire {
        self.step(Op::Activation { function, configured: true }, [x])
    }

    /// A sum, such as that of a residual connection.
    pub fn sum<const N: usize>(&mut self, parts: [Wire; N]) -> Wire {
        self.step(Op::Sum, parts)
    }

    /// A product, element by element.
    pub fn product(&mut self, factors: [Wire; 2]) -> Wire {
        self.step(Op::Product, factors)
    }

    /// The features in so many parts of the same width.
    pub fn parts<const N: usize>(&mut self, x: Wire) -> [Wire; N] {
        std::array::from_fn(|at| self.step(Op::Part { at, of: N }, [x]))
    }

    /// The mean over the tokens that a mask `[rows, sequence]` shows.
    pub fn mean(&mut self, x: Wire, mask: Wire) -> Wire {
        self.step(Op::Mean, [x, mask])
    }

    /// The first token that a mask `[rows, sequence]` shows.
    pub fn first_shown(&mut self, x: Wire, mask: Wire) -> Wire {
        self.step(Op::FirstShown, [x, mask])
    }

    /// One token of each text.
    pub fn token(&mut self, x: Wire, at: usize) -> Wire {
        self.step(Op::Token { at }, [x])
    }

    /// One feature of each token or text.
    pub fn feature(&mut self, x: Wire, at: usize) -> Wire {
        self.step(Op::Feature { at }, [x])
    }

    /// An input's leading axes as one, where it has several.
    pub fn rows(&mut self, input: Wire) -> Wire {
        if self.program.axes.len() < 3 {
            return input;
        }
        self.step(Op::Rows, [input])
    }

    /// One number for each row, under the leading axes of the first input.
    pub fn unrows(&mut self, x: Wire) -> Wire {
        self.step(Op::Unrows, [x])
    }

    /// A tensor of the module that is being written; the same one in each of its runs.
    pub fn parameter(&mut self, name: &str, shape: Vec<usize>) -> TensorId {
        let name = self.named(name);
        if let Some(known) = self.tensor(&name) {
            return known;
        }
        let tensor = Tensor { name, shape, in_base: self.in_base, old_name: None };
        self.program.tensors.push(tensor);
        self.program.tensors.len() - 1
    }

    /// The tensor of that name, if it was written before.
    pub fn tensor(&self, name: &str) -> Option<TensorId> {
        self.program.tensors.iter().position(|tensor| tensor.name == name)
    }

    /// A name of the module that is being written, under which checkpoints may hold a tensor a
    /// second time. One that differs contradicts the config if the two are `tied`, and is left over
    /// if not.
    pub fn copied(&mut self, name: &str, of: TensorId, tied: bool) {
        let name = self.named(name);
        self.program.copies.push(Copied { name, of, tied });
    }

    /// A name of the module that is being written, under which checkpoints may hold what is no
    /// weight.
    pub fn buffer(&mut self, name: &str) {
        let name = self.named(name);
        self.program.buffers.push(name);
    }

    /// Gives a value a name among the outputs.
    pub fn output(&mut self, name: &'static str, value: Wire) {
        if let Wire::Step(step) = value {
            self.program.outputs.push(Output { name, step });
        }
    }

    /// The program.
    pub fn finish(mut self) -> Program {
        // What modules share is computed where the first of them stands.
        self.program.modules.sort_by_key(|module| module.output);
        self.name_what_is_between();
        self.program
    }

    /// Names what stands between modules, so that it can be seen and blamed by itself: attention,
    /// rotations, activations, products, sums, and vectors of a text that no module ends with. The
    /// name is in brackets, within the module that it is in. A sum that is only normalised before
    /// its module ends goes without.
    fn name_what_is_between(&mut self) {
        let program = &self.program;
        let mut places: Vec<Module> = Vec::new();
        for (at, step) in program.steps.iter().enumerate() {
            let kind = match step.op {
                Op::Attention { .. } => "attention",
                Op::Angles { sines: true, .. } => "sines",
                Op::Rotate { .. } => "rotation",
                Op::Product => "product",
                Op::Mean => "mean",
                Op::FirstShown => "token",
                // What the architecture bends within a module is told with the rest of it, as of a
                // pooler.
                Op::Activation { configured: false, .. } if !step.module.is_empty() => continue,
                Op::Activation { .. } => "activation",
                Op::Sum => "sum",
                _ => continue,
            };
            let end = program.module(&step.module).map(|module| module.output);
            let goes_to_end = |(user, _): (usize, usize)| Some(user) == end;
            let is_there = program.ending_at(at).next().is_some();
            if is_there || step.op == Op::Sum && program.consumers(at).all(goes_to_end) {
                continue;
            }
            let (own, run) = run_of(&step.module);
            let dot = if own.is_empty() { "" } else { "." };
            let run = run.map_or(String::new(), |run| format!("#{run}"));
            let first = format!("{own}{dot}({kind}){run}");
            let others = (2..).map(|number| format!("{own}{dot}({kind} {number}){run}"));
            let mut names = std::iter::once(first).chain(others);
            let path = names.find(|name| places.iter().all(|place| place.path != *name));
            places.extend(path.map(|path| Module { path, class: None, item: None, layer: None, output: at }));
        }
        for place in places {
            let modules = &mut self.program.modules;
            let after = modules.iter().position(|module| module.output > place.output);
            modules.insert(after.unwrap_or(modules.len()), place);
        }
    }

    fn named(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }

    fn step<const N: usize>(&mut self, op: Op, inputs: [Wire; N]) -> Wire {
        let fed = inputs.first().map_or(Shape::IDS, |&wire| self.shape(wire));
        self.shapes.push(op.shape(fed, &self.program.tensors));
        let module = self.path_of_run();
        self.program.steps.push(Step { op, inputs: inputs.into(), module });
        Wire::Step(self.program.steps.len() - 1)
    }

    fn shape(&self, wire: Wire) -> Shape {
        wire.step().map_or(Shape::IDS, |step| self.shapes[step])
    }

    /// How many features a value has.
    pub fn width(&self, wire: Wire) -> usize {
        self.shape(wire).width.unwrap_or(1)
    }
}
