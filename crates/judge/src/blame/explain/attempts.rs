//! What the graph gave, and the best hypothesis so far.

use architecture::Op;
use candle_core::{Device, Result, Tensor};
use engine::Value;

use super::{Evidence, Explanation, NOISE, bound};

/// A hypothesis takes the place of one that explains, too, only if it leaves less than this part of what that one leaves: between two that
/// both leave rounding, the simpler one, which comes first, stands.
const MUCH_BETTER: f64 = 0.1;

/// Steps of a fit. Those that converge take about ten.
const FIT_STEPS: usize = 60;

/// The step of the derivative in a fit, relative to the parameter.
const FIT_DERIVATIVE: f64 = 1e-5;

/// Is handed the result of one hypothesis, with its words; says whether it explains what the graph gave.
pub(super) type Emit<'a> = dyn FnMut(&str, &Tensor) -> Result<bool> + 'a;

/// One module's attempts.
pub(super) struct Attempts {
    module: String,
    /// What the graph gave, and what the reference gives.
    pub(super) found: Tensor,
    pub(super) expected: Tensor,
    elements: Vec<f64>,
    width: usize,
    /// Which rows of `width` elements decide.
    deciding: Vec<bool>,
    before: f64,
    scale: f64,
    best: Option<Best>,
}

struct Best {
    explanation: Explanation,
    /// Whether it holds at padding, too.
    everywhere: bool,
}

impl Attempts {
    /// Nothing if there is nothing to explain.
    pub(super) fn new(evidence: &Evidence<'_>, module: &str, found: &Value) -> Result<Option<Self>> {
        let deciding = deciding_rows(evidence, module, found.shape())?;
        let (Some(deciding), Some(&width)) = (deciding, found.shape().last()) else { return Ok(None) };
        let elements = found.to_f64();
        let tensor = Tensor::from_slice(&elements, found.shape(), &Device::Cpu)?;
        let Some(expected) = fit_shape(&evidence.tap(module)?, found.shape()) else { return Ok(None) };
        let mut attempts = Self {
            module: module.into(),
            found: tensor,
            elements,
            width,
            deciding,
            before: 0.,
            scale: 1.,
            best: None,
            expected: expected.clone(),
        };
        let reference = flat(&expected)?;
        attempts.before = attempts.worst(&reference, true);
        attempts.scale = attempts.largest(&reference).max(1.);
        // A graph that gives what is not finite gives it at no hypothesis's distance.
        let differs = attempts.before.is_finite() && attempts.before > NOISE * attempts.scale;
        Ok(differs.then_some(attempts))
    }

    /// The largest distance from the graph at the rows that decide, or at the others; infinite where it is not a number.
    fn worst(&self, elements: &[f64], deciding: bool) -> f64 {
        let mut worst = 0f64;
        let rows = elements.chunks(self.width).zip(self.elements.chunks(self.width));
        for ((row, found), _) in rows.zip(&self.deciding).filter(|(_, decides)| **decides == deciding) {
            for (x, y) in row.iter().zip(found) {
                let distance = (x - y).abs();
                if !distance.is_finite() {
                    return f64::INFINITY;
                }
                worst = worst.max(distance);
            }
        }
        worst
    }

    fn largest(&self, elements: &[f64]) -> f64 {
        let rows = elements.chunks(self.width).zip(&self.deciding).filter(|(_, decides)| **decides);
        rows.flat_map(|(row, _)| row).fold(0., |largest, x| x.abs().max(largest))
    }

    /// How much a hypothesis may leave; what counts as equal when a difference is described.
    pub(super) fn bound(&self) -> f64 {
        bound(self.before, self.scale)
    }

    /// Tries one hypothesis, which blames `module`. A result that cannot have the graph's shape is not it.
    pub(super) fn offer(&mut self, module: &str, text: &str, value: &Tensor) -> Result<bool> {
        let Some(value) = fit_shape(value, self.found.dims()) else { return Ok(false) };
        let value = flat(&value)?;
        let after = self.worst(&value, true);
        // Not finite is never within a bound.
        if !after.is_finite() || after > self.bound() {
            return Ok(false);
        }
        let everywhere = self.worst(&value, false) <= self.bound();
        let better = self.best.as_ref().is_none_or(|best| match (everywhere, best.everywhere) {
            (true, false) => true,
            (false, true) => false,
            _ => best.explanation.after > NOISE * self.scale && after < MUCH_BETTER * best.explanation.after,
        });
        if better {
            self.best = Some(Best { explanation: self.explanation(module, text, after), everywhere });
        }
        Ok(true)
    }

    /// Says what differs, without a formula for it: only where nothing explains.
    pub(super) fn describe(&mut self, text: &str, after: f64) {
        if self.best.is_none() {
            let module = self.module.clone();
            let explanation = self.explanation(&module, text, after);
            self.best = Some(Best { explanation, everywhere: false });
        }
    }

    fn explanation(&self, module: &str, text: &str, after: f64) -> Explanation {
        Explanation {
            text: text.into(),
            before: self.before,
            after,
            module: (module != self.module).then(|| module.into()),
        }
    }

    pub(super) fn is_explained(&self) -> bool {
        self.best.is_some()
    }

    pub(super) fn module(&self) -> &str {
        &self.module
    }

    /// How many rows there are, those that do not decide included.
    pub(super) fn rows(&self) -> usize {
        self.deciding.len()
    }

    pub(super) fn before(&self) -> f64 {
        self.before
    }

    /// What was found.
    pub(super) fn close(&mut self) -> Option<Explanation> {
        self.best.take().map(|best| best.explanation)
    }

    /// Which rows decide, as numbers.
    pub(super) fn deciding(&self) -> Vec<usize> {
        self.deciding.iter().enumerate().filter(|(_, decides)| **decides).map(|(row, _)| row).collect()
    }

    /// A tensor at the rows that decide: `[rows, width]`. It has as many rows as what the graph gave.
    pub(super) fn at_deciding(&self, tensor: &Tensor) -> Result<Tensor> {
        let rows: Vec<u32> = self.deciding().into_iter().map(|row| row as u32).collect();
        let width = tensor.dim(candle_core::D::Minus1)?;
        let count = rows.len();
        tensor.reshape(((), width))?.index_select(&Tensor::from_vec(rows, count, &Device::Cpu)?, 0)
    }

    /// `found − expected` at the rows that decide, row by row.
    pub(super) fn difference(&self) -> Result<Vec<Vec<f64>>> {
        self.at_deciding(&(&self.found - &self.expected)?)?.to_vec2()
    }

    /// The factor that brings `value` nearest to `target` at the rows that decide, in the sense of least squares.
    pub(super) fn ratio(&self, target: &Tensor, value: &Tensor) -> Result<f64> {
        let (x, y) = (flat(&self.at_deciding(value)?)?, flat(&self.at_deciding(target)?)?);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        Ok(dot(&x, &y) / dot(&x, &x))
    }

    /// The parameter with which `formula` comes nearest to what the graph gave, from `start` by the Gauss–Newton method; its sign is that of
    /// `start`. Nothing if the formula does not depend on it.
    pub(super) fn fit(&self, start: f64, formula: &dyn Fn(f64) -> Result<Tensor>) -> Result<Option<f64>> {
        let found = flat(&self.at_deciding(&self.found)?)?;
        let value = |parameter: f64| flat(&self.at_deciding(&formula(parameter)?)?);
        let mut parameter = start;
        for _ in 0..FIT_STEPS {
            let h = parameter * FIT_DERIVATIVE;
            let (at, above, below) = (value(parameter)?, value(parameter + h)?, value(parameter - h)?);
            let (mut along, mut square) = (0., 0.);
            for (((at, above), below), found) in at.iter().zip(above).zip(below).zip(&found) {
                let slope = (above - below) / (2. * h);
                along += slope * (found - at);
                square += slope * slope;
            }
            let step = along / square;
            if !step.is_finite() {
                return Ok(None);
            }
            // At most half of the way to 0, and to twice the size: far from the answer, the slope says little.
            let limit = parameter.abs() / 2.;
            parameter += step.clamp(-limit, 2. * limit);
            if step.abs() <= 4. * f64::EPSILON * parameter.abs() {
                break;
            }
        }
        // Rounding can keep the last steps from vanishing; whether the answer is one is for `offer` to say.
        Ok(Some(parameter))
    }
}

/// A tensor in another shape, by broadcasting or by leaving out leading dimensions of 1.
fn fit_shape(tensor: &Tensor, shape: &[usize]) -> Option<Tensor> {
    let mut tensor = tensor.clone();
    while tensor.rank() > shape.len() && tensor.dims().first() == Some(&1) {
        tensor = tensor.squeeze(0).ok()?;
    }
    tensor.broadcast_as(shape).and_then(|tensor| tensor.contiguous()).ok()
}

fn flat(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.flatten_all()?.to_vec1()
}

/// Which rows of a module's output decide: those of real tokens. The pooler's and those of a head over it are texts, of which one real token makes one; a
/// position counts where any text has a real token. Nothing if the shape is none that the module can have.
fn deciding_rows(evidence: &Evidence<'_>, module: &str, shape: &[usize]) -> Result<Option<Vec<bool>>> {
    let (batch, sequence) = evidence.dims()?;
    let real: Vec<bool> = evidence.mask()?.iter().map(|&bit| bit != 0.).collect();
    let output = evidence.program.module(module).map(|module| &evidence.program.steps[module.output].op);
    let is_position = matches!(output, Some(Op::Positions { .. } | Op::Angles { .. }));
    if matches!(output, Some(Op::RelativeBias { .. })) {
        return Ok((shape.len() == 3).then(|| vec![true; shape[0] * shape[1]]));
    }
    let any_row = |position| real.iter().skip(position).step_by(sequence).any(|&bit| bit);
    Ok(match *shape {
        [rows, _] if !is_position && rows == batch => {
            Some(real.chunks(sequence.max(1)).map(|row| row.contains(&true)).collect())
        }
        [rows, positions, _] if rows == batch && positions == sequence => Some(real),
        [1, positions, _] | [positions, _] if is_position && positions == sequence => {
            Some((0..sequence).map(any_row).collect())
        }
        _ => None,
    })
}
