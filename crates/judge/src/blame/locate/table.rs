//! Where each module stands in a table of all: a row for each layer, a column for each of its
//! parts.

use std::collections::HashMap;

use architecture::{Op, Program, Role};
use report::ModulePlace;

use super::taps::{Kind, Tap};

/// The places of the steps that end a module.
pub(super) struct Table<'a> {
    program: &'a Program,
    places: HashMap<usize, ModulePlace>,
}

impl<'a> Table<'a> {
    /// Of all taps, in the order of execution.
    pub fn new(program: &'a Program, taps: &[Tap]) -> Self {
        let mut table = Self { program, places: HashMap::new() };
        let (mut columns, mut layers_began) = (HashMap::new(), false);
        for tap in taps.iter().filter(|tap| tap.kind == Kind::Output) {
            let layer = program.layer_of(&tap.module);
            layers_began |= layer.is_some();
            let row = table.row(&tap.module, layer, layers_began);
            let column: &mut usize = columns.entry(row.clone()).or_default();
            let label = table.label(tap.step);
            // A head's parts have nothing in common.
            let label = if row == HEAD { tap.module.clone() } else { label };
            let group = layer.map_or(String::new(), |_| table.group(tap.step));
            table.places.insert(tap.step, ModulePlace { row, layer, column: *column, group, label });
            *column += 1;
        }
        table
    }

    /// The place of a tap: that of its step, or of the end of the module that it is in.
    pub fn place(&self, step: usize) -> ModulePlace {
        let end = || self.program.module(self.program.place(step)).map(|module| module.output);
        let found = self.places.get(&step).or_else(|| self.places.get(&end()?));
        found.cloned().unwrap_or_default()
    }

    fn row(&self, module: &str, layer: Option<usize>, layers_began: bool) -> String {
        let part = module.split('.').next().unwrap_or(module);
        match layer {
            Some(layer) => format!("layer {layer}"),
            None if layers_began && !self.program.is_in_base(part) => HEAD.into(),
            None => part.into(),
        }
    }

    fn label(&self, step: usize) -> String {
        let of = &self.program.steps[step].op;
        let label = match (of, self.program.role(step)) {
            (_, Some(Role::Query)) => "q",
            (_, Some(Role::Key)) => "k",
            (_, Some(Role::Value)) => "v",
            (Op::Embedding { .. }, _) if self.program.is_of_first_input(step) => "word",
            (Op::Embedding { .. }, _) => "type",
            (Op::Positions { .. }, _) => "position",
            (Op::RelativeBias { .. }, _) => "distance",
            (Op::Linear { .. }, _) => "dense",
            (Op::LayerNorm { .. }, _) => "LN",
            (Op::Attention { .. }, _) => "self",
            (Op::Activation { configured: true, .. }, _) => "act",
            (Op::Activation { function, .. }, _) => return function.to_string(),
            (Op::Sum, _) => "sum",
            (Op::Product, _) => "gate",
            (Op::Angles { .. }, _) => "angles",
            (Op::Mean, _) => "mean",
            _ => "token",
        };
        label.into()
    }

    /// What an attention and all that it is fed are, or else the module that holds a part.
    fn group(&self, step: usize) -> String {
        if self.program.role(step).is_some() || matches!(self.program.steps[step].op, Op::Attention { .. }) {
            return "attention".into();
        }
        let module = self.program.place(step);
        let of_its_own = !self.program.steps[step].op.tensors().is_empty();
        let holder =
            if of_its_own { module.rsplit_once('.').map_or("", |(holder, _)| holder) } else { module };
        holder.rsplit('.').next().unwrap_or(holder).into()
    }
}

/// The row of what stands on the model for a task.
const HEAD: &str = "head";
