//! Attention: softmax(Q Kᵀ / √d + mask) V for each head.

use architecture::Op;
use candle_core::{DType, Device, Result, Tensor};

use super::attempts::{Attempts, Emit};
use super::formulas::softmax;
use super::{Evidence, dense, rotary, shown};

const ROLES: [&str; 3] = ["query", "key", "value"];

/// Head counts beyond this are not tried.
const MOST_HEADS: usize = 64;

/// What attention is computed from.
#[derive(Clone)]
struct Attention {
    /// Query, key, value: `[batch, sequence, hidden]`.
    parts: [Tensor; 3],
    heads: usize,
    /// By what the scores are multiplied.
    scale: f64,
    /// 1 where a score stays, 0 where it is masked; broadcasts to `[batch, heads, sequence, sequence]`.
    keep: Tensor,
    hide: Hide,
    /// What is added to the scores, where something is: `[1, heads, sequence, sequence]`.
    bias: Option<Tensor>,
}

/// What happens to a masked score.
#[derive(Clone, Copy)]
enum Hide {
    /// The most negative number takes its place: what the reference does, and what adding f32's comes to.
    Replaced,
    /// A number is added to it.
    Lowered(f64),
}

impl Attention {
    fn of(evidence: &Evidence<'_>, step: usize) -> Result<Self> {
        let (batch, sequence) = evidence.dims()?;
        let part = |input| evidence.value(evidence.fed(step, input)?);
        let parts = [part(0)?, part(1)?, part(2)?];
        let Op::Attention { heads } = evidence.program.steps[step].op else {
            candle_core::bail!("{} is no attention", evidence.path(step))
        };
        let head_size = parts[0].dim(2)? / heads.max(1);
        Ok(Self {
            parts,
            heads,
            scale: 1. / (head_size as f64).sqrt(),
            keep: {
                let own = Tensor::from_vec(evidence.mask()?, (batch, 1, 1, sequence), &Device::Cpu)?;
                match window(evidence, step) {
                    Some(window) => own.broadcast_mul(&near(window, sequence)?)?,
                    None => own,
                }
            },
            hide: Hide::Replaced,
            bias: match evidence.program.steps[step].inputs.get(4) {
                Some(_) => {
                    let bias = evidence.value(evidence.fed(step, 4)?)?;
                    Some(bias.permute((2, 0, 1))?.unsqueeze(0)?)
                }
                None => None,
            },
        })
    }

    /// `[batch, sequence, hidden]` to `[batch, heads, sequence, head_size]`.
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, sequence, hidden) = x.dims3()?;
        x.reshape((batch, sequence, self.heads, hidden / self.heads))?.transpose(1, 2)?.contiguous()
    }

    /// Q Kᵀ, scaled, and what is added to it.
    fn scores(&self) -> Result<Tensor> {
        let [query, key, _] = &self.parts;
        let scores = (self.split(query)?.matmul(&self.split(key)?.t()?)? * self.scale)?;
        match &self.bias {
            // Another number of heads is a hypothesis of its own.
            Some(bias) if bias.dim(1)? == self.heads => scores.broadcast_add(bias),
            _ => Ok(scores),
        }
    }

    fn masked(&self, scores: &Tensor) -> Result<Tensor> {
        let keep = self.keep.broadcast_as(scores.shape())?;
        match self.hide {
            Hide::Replaced => keep.ne(0f64)?.where_cond(scores, &(scores.zeros_like()? + f64::MIN)?),
            Hide::Lowered(by) => scores + (keep.affine(-1., 1.)? * by)?,
        }
    }

    /// Probabilities times values, heads joined.
    fn join(&self, probabilities: &Tensor) -> Result<Tensor> {
        probabilities.matmul(&self.split(&self.parts[2])?)?.transpose(1, 2)?.flatten_from(2)
    }

    fn forward(&self) -> Result<Tensor> {
        self.join(&softmax(&self.masked(&self.scores()?)?, 3)?)
    }
}

pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let module = evidence.path(step);
    let attention = Attention::of(evidence, step)?;
    let offer = &mut |text: &str, value: &Tensor| attempts.offer(module, text, value);
    let explained = other_windows(evidence, step, &attention, offer)?
        | other_masks(evidence, (&attention, window(evidence, step)), offer)?
        | other_biases(&attention, offer)?
        | other_scales(&attention, offer)?
        | other_softmax(&attention, offer)?;
    if explained || other_roles(&attention, offer)? | other_heads(evidence, &attention, offer)? {
        return Ok(());
    }
    // Where queries and keys that were turned are not seen, their faults show here.
    for rotary::Other { text, blamed, query, key } in rotary::others(evidence, step)? {
        let [_, _, value] = attention.parts.clone();
        let changed = Attention { parts: [query, key, value], ..attention.clone() };
        if attempts.offer(evidence.path(blamed), &text, &changed.forward()?)? {
            return Ok(());
        }
    }
    if fitted(module, &attention, attempts)? {
        return Ok(());
    }
    // In a fused graph the three projections cannot be seen, so that their faults show here.
    for at in 0..ROLES.len() {
        let projection = evidence.fed(step, at)?;
        if !matches!(evidence.program.steps[projection].op, Op::Linear { .. }) {
            continue;
        }
        let blamed = evidence.path(projection);
        dense::variants(evidence, projection, &mut |text, value| {
            // A hypothesis about shapes that cannot be attended with.
            if value.dims() != attention.parts[at].dims() {
                return Ok(false);
            }
            let mut changed = attention.clone();
            changed.parts[at] = value.clone();
            attempts.offer(blamed, text, &changed.forward()?)
        })?;
    }
    Ok(())
}

/// The formula with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, step: usize) -> Result<Tensor> {
    Attention::of(evidence, step)?.forward()
}

/// What is added to the scores for how far tokens stand apart.
fn other_biases(attention: &Attention, emit: &mut Emit<'_>) -> Result<bool> {
    let Some(bias) = &attention.bias else { return Ok(false) };
    let with = |bias: Option<Tensor>| Attention { bias, ..attention.clone() }.forward();
    let mut explained = emit("nothing is added for how far tokens stand apart", &with(None)?)?;
    let turned = bias.transpose(2, 3)?.contiguous()?;
    explained |= emit("what is added for distances is exchanged, earlier for later", &with(Some(turned))?)?;
    let scaled = (bias * attention.scale)?;
    explained |= emit("what is added for distances is scaled as the scores are", &with(Some(scaled))?)?;
    Ok(explained)
}

/// How far a token sees.
fn window(evidence: &Evidence<'_>, step: usize) -> Option<usize> {
    let mask = evidence.program.steps[step].inputs.get(3)?.step()?;
    match evidence.program.steps[mask].op {
        Op::Mask { window } => window,
        _ => None,
    }
}

/// 1 where two tokens are no further apart: `[1, 1, sequence, sequence]`.
fn near(window: usize, sequence: usize) -> Result<Tensor> {
    let bit = |at: usize| f64::from(u8::from((at / sequence).abs_diff(at % sequence) <= window));
    let bits: Vec<f64> = (0..sequence * sequence).map(bit).collect();
    Tensor::from_vec(bits, (1, 1, sequence, sequence), &Device::Cpu)
}

/// Windows of other sizes, or a window where there is none.
fn other_windows(
    evidence: &Evidence<'_>,
    step: usize,
    attention: &Attention,
    emit: &mut Emit<'_>,
) -> Result<bool> {
    let (batch, sequence) = evidence.dims()?;
    let real = Tensor::from_vec(evidence.mask()?, (batch, 1, 1, sequence), &Device::Cpu)?;
    let keep = |keep: &Tensor| {
        let keep = real.broadcast_mul(keep)?;
        Attention { keep, ..attention.clone() }.forward()
    };
    let Some(own) = window(evidence, step) else {
        let mut explained = false;
        let others = evidence.program.steps.iter().filter_map(|step| match step.op {
            Op::Mask { window } => window,
            _ => None,
        });
        for other in others {
            let text = format!("a window: tokens see {other} in either direction, and not the whole text");
            explained |= emit(&text, &keep(&near(other, sequence)?)?)?;
        }
        return Ok(explained);
    };
    let everywhere = real.ones_like()?;
    let mut explained = emit("no window: tokens see the whole text", &keep(&everywhere)?)?;
    for other in (own.saturating_sub(2)..=own + 2).chain([2 * own, 2 * own + 1]).filter(|&other| other != own)
    {
        let text = format!("a window of {other} in either direction, config.json says {own}");
        explained |= emit(&text, &keep(&near(other, sequence)?)?)?;
    }
    let earlier = |at: usize| f64::from(u8::from(at % sequence <= at / sequence));
    let earlier: Vec<f64> = (0..sequence * sequence).map(earlier).collect();
    let earlier = Tensor::from_vec(earlier, (1, 1, sequence, sequence), &Device::Cpu)?;
    let half = near(own, sequence)?.broadcast_mul(&earlier)?;
    explained |= emit("a window of earlier tokens alone", &keep(&half)?)?;
    Ok(explained)
}

fn other_masks(
    evidence: &Evidence<'_>,
    (attention, window): (&Attention, Option<usize>),
    emit: &mut Emit<'_>,
) -> Result<bool> {
    let (_, sequence) = evidence.dims()?;
    let mut explained = false;
    for (text, pattern) in patterns(evidence)? {
        let keep = match window {
            Some(window) => pattern.broadcast_mul(&near(window, sequence)?)?,
            None => pattern,
        };
        for hide in [Hide::Replaced, Hide::Lowered(-1e4), Hide::Lowered(-1e9)] {
            explained |= emit(text, &Attention { keep: keep.clone(), hide, ..attention.clone() }.forward()?)?;
        }
    }
    for by in [-1., -10., -50., -100., -1000., -1e4, -1e5, -1e9] {
        let value = Attention { hide: Hide::Lowered(by), ..attention.clone() }.forward()?;
        let raw = if by == -1. { ", as if the mask's 0 and 1 were added as they are" } else { "" };
        explained |= emit(&format!("masked scores are lowered by {} only{raw}", shown(-by)), &value)?;
    }
    let scores = attention.scores()?;
    let finish = |scores: &Tensor| attention.join(&softmax(scores, 3)?);
    let times = finish(&scores.broadcast_mul(&attention.keep)?)?;
    explained |= emit("scores are multiplied by the mask: padding has the score 0", &times)?;
    let probabilities = softmax(&scores, 3)?.broadcast_mul(&attention.keep)?;
    explained |= emit("mask applied after the softmax", &attention.join(&probabilities)?)?;
    Ok(explained)
}

/// Which scores stay, by other rules than the reference's.
fn patterns(evidence: &Evidence<'_>) -> Result<Vec<(&'static str, Tensor)>> {
    let (batch, sequence) = evidence.dims()?;
    let mask = evidence.mask()?;
    let bit = |yes: bool| f64::from(u8::from(yes));
    // One bit for each text and key, from the text's own bits.
    let by_key = |pick: &dyn Fn(&[f64], usize) -> f64| {
        let rows = mask.chunks(sequence.max(1));
        let bits = rows.flat_map(|row| (0..sequence).map(|at| pick(row, at)).collect::<Vec<_>>()).collect();
        Tensor::from_vec(bits, (batch, 1, 1, sequence), &Device::Cpu)
    };
    let by_pair = |pick: &dyn Fn(usize, usize) -> f64| {
        let bits = (0..sequence * sequence).map(|at| pick(at / sequence, at % sequence)).collect();
        Tensor::from_vec(bits, (1, 1, sequence, sequence), &Device::Cpu)
    };
    let real = |row: &[f64]| row.iter().filter(|&&bit| bit != 0.).count();
    let own = by_key(&|row, at| row[at])?;
    let causal = by_pair(&|query, key| bit(key <= query))?;
    let types =
        Tensor::from_vec(evidence.input("token_type_ids", 0.)?, (batch, 1, 1, sequence), &Device::Cpu)?;
    let types = types.ne(0f64)?.to_dtype(DType::F64)?;
    Ok(vec![
        ("mask ignored: padding is attended to", own.ones_like()?),
        ("mask inverted: only padding is attended to", own.affine(-1., 1.)?),
        (
            "mask taken for a length: the first tokens are attended to (right padding assumed)",
            by_key(&|row, at| bit(at < real(row)))?,
        ),
        (
            "mask taken for a length: the last tokens are attended to (left padding assumed)",
            by_key(&|row, at| bit(at + real(row) >= sequence))?,
        ),
        (
            "mask taken for a length: all up to the last real token are attended to",
            by_key(&|row, at| bit(row.iter().rposition(|&bit| bit != 0.).is_some_and(|last| at <= last)))?,
        ),
        ("mask on the wrong axis: it masks the queries, not the keys", own.transpose(2, 3)?),
        ("causal: only earlier tokens are attended to, and the mask is ignored", causal.clone()),
        ("causal: only earlier tokens are attended to", causal.broadcast_mul(&own)?),
        ("the first text's mask is taken for every text", own.narrow(0, 0, 1)?.broadcast_as(own.dims())?),
        ("token_type_ids taken for the mask", types.clone()),
        ("token_type_ids taken for the mask, inverted", types.affine(-1., 1.)?),
    ])
}

fn other_scales(attention: &Attention, emit: &mut Emit<'_>) -> Result<bool> {
    let hidden = attention.parts[0].dim(2)? as f64;
    let d = hidden / attention.heads as f64;
    let mut explained = false;
    for (text, scale) in [
        ("scores not scaled by 1/√d", 1.),
        ("scores scaled by 1/√d twice", 1. / d),
        ("scores scaled by 1/√d on one side only: d^-¼", d.powf(-0.25)),
        ("scores scaled by √d, not by 1/√d", d.sqrt()),
        ("scores scaled by 1/√hidden_size, not by 1/√d", 1. / hidden.sqrt()),
        ("scores scaled by 1/hidden_size, not by 1/√d", 1. / hidden),
        ("scores negated", -attention.scale),
    ] {
        if scale != attention.scale {
            let text = match text {
                "scores negated" => text.into(),
                _ => format!("{text}: {} instead of {}", shown(scale), shown(attention.scale)),
            };
            // Of the ones that are not promoted, a graph has the f32.
            for scale in [scale, f64::from(scale as f32), 1. / f64::from((1. / scale) as f32)] {
                explained |= emit(&text, &Attention { scale, ..attention.clone() }.forward()?)?;
            }
        }
    }
    Ok(explained)
}

/// Another scale, or another number for masked scores, that must be read off the output.
fn fitted(module: &str, attention: &Attention, attempts: &mut Attempts) -> Result<bool> {
    let mut explained = false;
    let scaled = |scale| Attention { scale, ..attention.clone() }.forward();
    for factor in [1., 0.2, 5.] {
        if let Some(scale) = attempts.fit(attention.scale * factor, &scaled)? {
            let text = format!("scores scaled by {} instead of {}", shown(scale), shown(attention.scale));
            explained |= attempts.offer(module, &text, &scaled(scale)?)?;
        }
    }
    let lowered = |by| Attention { hide: Hide::Lowered(by), ..attention.clone() }.forward();
    for start in [-2., -15.] {
        if let Some(by) = attempts.fit(start, &lowered)? {
            let text = format!("masked scores are lowered by {} only", shown(-by));
            explained |= attempts.offer(module, &text, &lowered(by)?)?;
        }
    }
    Ok(explained)
}

fn other_softmax(attention: &Attention, emit: &mut Emit<'_>) -> Result<bool> {
    let masked = attention.masked(&attention.scores()?)?;
    let mut explained = false;
    for (text, axis) in [("over the queries", 2), ("over the heads", 1)] {
        let value = attention.join(&softmax(&masked, axis)?)?;
        explained |= emit(&format!("softmax {text}, not over the keys"), &value)?;
    }
    Ok(explained)
}

/// Query, key and value in each other's place.
fn other_roles(attention: &Attention, emit: &mut Emit<'_>) -> Result<bool> {
    let mut explained = false;
    for code in 0..27usize {
        let takes = [code / 9, code / 3 % 3, code % 3];
        if takes == [0, 1, 2] {
            continue;
        }
        let parts = takes.map(|part| attention.parts[part].clone());
        explained |= emit(&wording(takes), &Attention { parts, ..attention.clone() }.forward()?)?;
    }
    Ok(explained)
}

fn wording(takes: [usize; 3]) -> String {
    let moved: Vec<usize> = (0..3).filter(|&role| takes[role] != role).collect();
    match moved.as_slice() {
        &[a, b] if takes[a] == b && takes[b] == a => format!("{} and {} exchanged", ROLES[a], ROLES[b]),
        moved => {
            let words =
                moved.iter().map(|&role| format!("{} taken as the {}", ROLES[takes[role]], ROLES[role]));
            words.collect::<Vec<_>>().join(", ")
        }
    }
}

fn other_heads(evidence: &Evidence<'_>, attention: &Attention, emit: &mut Emit<'_>) -> Result<bool> {
    let (batch, sequence) = evidence.dims()?;
    let hidden = attention.parts[0].dim(2)?;
    let (heads, size) = (attention.heads, hidden / attention.heads);
    let mut explained = false;
    for other in (1..=hidden.min(MOST_HEADS)).filter(|other| hidden.is_multiple_of(*other) && *other != heads)
    {
        let text = format!("{other} heads, config.json says {heads}");
        let split = Attention { heads: other, ..attention.clone() };
        explained |= emit(&format!("{text}; scaled as if for {heads}"), &split.forward()?)?;
        let scale = 1. / ((hidden / other) as f64).sqrt();
        explained |= emit(&text, &Attention { scale, ..split }.forward()?)?;
    }
    // The hidden size split as [head size, heads]: feature i is of head i mod heads.
    let interleaved = |x: &Tensor| {
        x.reshape((batch, sequence, size, heads))?.transpose(2, 3)?.contiguous()?.flatten_from(2)
    };
    let [query, key, value] = &attention.parts;
    let parts = [interleaved(query)?, interleaved(key)?, interleaved(value)?];
    let mixed = Attention { parts, ..attention.clone() }.forward()?;
    explained |= emit("hidden size split as [head size, heads], not as [heads, head size]", &mixed)?;
    let back =
        mixed.reshape((batch, sequence, heads, size))?.transpose(2, 3)?.contiguous()?.flatten_from(2)?;
    explained |=
        emit("hidden size split and joined as [head size, heads], not as [heads, head size]", &back)?;

    let context = attention.forward()?.reshape((batch, sequence, heads, size))?;
    let reversed: Vec<Tensor> =
        (0..heads).rev().map(|head| context.narrow(2, head, 1)).collect::<Result<_>>()?;
    explained |= emit("heads joined in reverse order", &Tensor::cat(&reversed, 2)?.flatten_from(2)?)?;
    let unmoved = context.transpose(1, 2)?.contiguous()?.reshape((batch, sequence, hidden))?;
    explained |= emit("heads not transposed back before they are joined", &unmoved)?;
    Ok(explained)
}
