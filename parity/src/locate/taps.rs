//! What the reference gives on the way: the modules' outputs, and two things between them that tell parts of a module apart.

use candle_bert::ReferenceEngine;
use engine::{Engine as _, NamedValues, Value};

use crate::ParityError;
use crate::check::fit_inputs;

/// A value of the reference that a graph should have, too.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    /// The module to blame if everything before is right and this is not.
    pub module: String,
    /// What of it this is.
    pub kind: Kind,
    /// Taps of one stage end in one value that everything later depends on.
    pub stage: usize,
    /// The place in the stage; taps of one place do not depend on each other.
    pub place: usize,
    /// `[batch, sequence, width]` or `[batch, width]`.
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
    /// For each position, whether it decides.
    pub decides: Vec<bool>,
    /// The largest |element| that decides, at least 1.
    pub scale: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What it gives.
    Output,
    /// The sum that its LayerNorm is given.
    Sum,
    /// The token that the pooler is given.
    FirstToken,
}

impl Tap {
    /// The largest and the mean square distance from other elements in the same order, where it decides; infinite if one is not finite.
    pub fn distance(&self, found: &[f64]) -> (f64, f64) {
        let width = self.data.len().checked_div(self.decides.len()).unwrap_or(1).max(1);
        let (mut largest, mut sum, mut count) = (0f64, 0f64, 0usize);
        for (flat, (a, b)) in self.data.iter().zip(found).enumerate() {
            if !self.decides.get(flat / width).copied().unwrap_or(true) {
                continue;
            }
            let difference = (a - b).abs();
            if !difference.is_finite() {
                return (f64::INFINITY, f64::INFINITY);
            }
            largest = largest.max(difference);
            sum += difference * difference;
            count += 1;
        }
        if count == 0 || found.len() != self.data.len() {
            return (f64::INFINITY, f64::INFINITY);
        }
        (largest, sum / count as f64)
    }

    /// Whether these are its elements in the same order, to within `tolerance` where it decides.
    pub fn is(&self, found: impl Iterator<Item = f64>, tolerance: f64) -> bool {
        let width = self.data.len().checked_div(self.decides.len()).unwrap_or(1).max(1);
        let mut decided = false;
        for (flat, (a, b)) in self.data.iter().zip(found).enumerate() {
            if self.decides.get(flat / width).copied().unwrap_or(true) {
                // Also what is not finite is different.
                if (a - b).abs().partial_cmp(&tolerance).is_none_or(std::cmp::Ordering::is_gt) {
                    return false;
                }
                decided = true;
            }
        }
        decided
    }

    /// The mean square of the elements that decide.
    pub fn mean_square(&self) -> f64 {
        self.distance(&vec![0.0; self.data.len()]).1
    }

    /// Whether the stage's later taps depend on it.
    pub fn is_before(&self, other: &Tap) -> bool {
        (self.stage, self.place) < (other.stage, other.place)
    }
}

/// Runs the reference, and gives all modules' outputs by path, and the taps in the order of execution. Without `pooler`, those of
/// the pooler are left out, unless a head is on it.
pub(crate) fn taps(
    reference: &ReferenceEngine,
    inputs: &NamedValues,
    pooler: bool,
) -> Result<(NamedValues, Vec<Tap>), ParityError> {
    let inputs = fit_inputs(inputs, reference.inputs())?;
    let names: Vec<&str> = reference.module_paths().iter().map(String::as_str).collect();
    let values = reference.run_for(&inputs, &names)?;
    let mut maker = Maker { values: &values, inputs: &inputs, taps: Vec::new(), stage: 0 };
    let encoder = reference.model();
    let head = &names[encoder.module_paths().len().min(names.len())..];
    let pooler = encoder.has_pooler() && (pooler || !head.is_empty());
    maker.all(encoder.config().num_hidden_layers, pooler);
    maker.head(head);
    let taps = maker.taps;
    Ok((values, taps))
}

struct Maker<'a> {
    values: &'a NamedValues,
    inputs: &'a NamedValues,
    taps: Vec<Tap>,
    stage: usize,
}

impl Maker<'_> {
    fn all(&mut self, layers: usize, pooler: bool) {
        let lookups =
            ["word", "token_type", "position"].map(|table| format!("embeddings.{table}_embeddings"));
        for lookup in &lookups {
            self.output(lookup, 0);
        }
        self.sum("embeddings", &[&lookups[0], &lookups[1], &lookups[2]], 1);
        self.output("embeddings.LayerNorm", 2);
        let mut hidden = String::from("embeddings");
        for n in 0..layers {
            self.stage += 1;
            let layer = format!("encoder.layer.{n}");
            let of = |part: &str| format!("{layer}.{part}");
            for part in ["query", "key", "value"] {
                self.output(&of(&format!("attention.self.{part}")), 0);
            }
            self.output(&of("attention.self"), 1);
            self.end(&of("attention.output"), &hidden, 2);
            self.stage += 1;
            self.output(&of("intermediate.dense"), 0);
            self.output(&of("intermediate"), 1);
            self.end(&of("output"), &of("attention"), 2);
            hidden = layer;
        }
        if pooler {
            self.stage += 1;
            self.first_token(&hidden);
            self.output("pooler.dense", 1);
            self.output("pooler", 2);
        }
    }

    /// What comes after the encoder: each dense layer ends a stage, and so does a normalisation.
    fn head(&mut self, modules: &[&str]) {
        let mut place = 0;
        for module in modules {
            // A container gives what the last of its modules does.
            if modules
                .iter()
                .any(|other| other.strip_prefix(module).is_some_and(|rest| rest.starts_with('.')))
            {
                continue;
            }
            if place == 0 {
                self.stage += 1;
            }
            self.output(module, place);
            place = if module.ends_with(".dense") { 1 } else { 0 };
        }
    }

    /// A projection, the sum with what goes around, and the normalisation.
    fn end(&mut self, module: &str, residual: &str, place: usize) {
        let dense = format!("{module}.dense");
        self.output(&dense, place);
        self.sum(module, &[&dense, residual], place + 1);
        self.output(&format!("{module}.LayerNorm"), place + 2);
    }

    fn output(&mut self, module: &str, place: usize) {
        if let Some(value) = self.values.get(module) {
            let (shape, data) = self.per_row(value);
            self.push(module, Kind::Output, place, shape, data);
        }
    }

    fn sum(&mut self, module: &str, parts: &[&str], place: usize) {
        let parts: Option<Vec<_>> =
            parts.iter().map(|part| Some(self.per_row(self.values.get(part)?))).collect();
        let Some((shape, mut total)) = parts.as_ref().and_then(|parts| parts.first().cloned()) else {
            return;
        };
        for (_, part) in parts.iter().flatten().skip(1) {
            total.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        self.push(module, Kind::Sum, place, shape, total);
    }

    fn first_token(&mut self, hidden: &str) {
        let Some(value) = self.values.get(hidden) else { return };
        let &[batch, sequence, width] = value.shape() else { return };
        let data = value.to_f64();
        let rows = data.chunks(sequence * width).flat_map(|row| row[..width].to_vec()).collect();
        self.push("pooler", Kind::FirstToken, 0, vec![batch, width], rows);
    }

    /// The positions' embeddings are the same for all rows, and given once.
    fn per_row(&self, value: &Value) -> (Vec<usize>, Vec<f64>) {
        let rows = self.inputs.get("input_ids").and_then(|ids| Some(ids.shape().split_last()?.1));
        let batch = rows.map_or(1, |rows| rows.iter().product());
        match value.shape() {
            &[1, sequence, width] if batch > 1 => {
                (vec![batch, sequence, width], value.to_f64().repeat(batch))
            }
            shape => (shape.to_vec(), value.to_f64()),
        }
    }

    fn push(&mut self, module: &str, kind: Kind, place: usize, shape: Vec<usize>, data: Vec<f64>) {
        let mask = self.inputs.get("attention_mask").and_then(|mask| mask.as_slice::<i64>().ok());
        let positions: usize = shape.iter().take(shape.len().saturating_sub(1)).product();
        let decides: Vec<bool> = match mask {
            Some(mask) if shape.len() == 3 => mask.iter().map(|&bit| bit != 0).collect(),
            Some(mask) => {
                let sequence = mask.len().checked_div(positions).unwrap_or(0).max(1);
                mask.chunks(sequence).map(|row| row.contains(&1)).collect()
            }
            None => vec![true; positions],
        };
        let mut tap =
            Tap { module: module.into(), kind, stage: self.stage, place, shape, data, decides, scale: 1.0 };
        let (largest, _) = tap.distance(&vec![0.0; tap.data.len()]);
        tap.scale = if largest.is_finite() { largest.max(1.0) } else { 1.0 };
        self.taps.push(tap);
    }
}
