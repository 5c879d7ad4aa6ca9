//! Rotary positions: the angles by which queries and keys are turned, and the turning.

use architecture::{Op, Rotation};
use candle_core::{D, Device, Result, Tensor};

use super::attempts::Attempts;
use super::{Evidence, shown};

/// The bases that models have.
const BASES: [f64; 8] = [100.0, 1_000.0, 10_000.0, 20_000.0, 80_000.0, 160_000.0, 500_000.0, 1_000_000.0];

/// `[1, sequence, size]`: cosines or sines of the angles at these places.
fn turned(rotation: &Rotation, sines: bool, at: &[f64]) -> Result<Tensor> {
    turned_by(rotation, sines, at, |place, frequency| place * frequency)
}

/// Of angles that are made otherwise.
fn turned_by(rotation: &Rotation, sines: bool, at: &[f64], angle: fn(f64, f64) -> f64) -> Result<Tensor> {
    let of = |place: f64, feature: usize| {
        let exponent = -2.0 * rotation.pair(feature) as f64 / rotation.size as f64;
        let angle = angle(place, rotation.base.powf(exponent) / rotation.slower);
        if sines { angle.sin() } else { angle.cos() }
    };
    let elements: Vec<f64> =
        at.iter().flat_map(|&place| (0..rotation.size).map(move |feature| of(place, feature))).collect();
    Tensor::from_vec(elements, (1, at.len(), rotation.size), &Device::Cpu)
}

/// A rotation by the bases that other layers have, and other models.
fn by_other_bases<'a>(
    evidence: &'a Evidence<'_>,
    rotation: &'a Rotation,
) -> impl Iterator<Item = (String, Rotation)> + 'a {
    let of_layers = evidence.program.steps.iter().filter_map(|step| match step.op {
        Op::Angles { rotation, .. } => Some(rotation.base),
        _ => None,
    });
    of_layers.chain(BASES).filter(|&base| base != rotation.base).map(|base| {
        let text = format!("angles of base {}, config.json says {}", shown(base), shown(rotation.base));
        (text, Rotation { base, ..*rotation })
    })
}

fn of(evidence: &Evidence<'_>, step: usize) -> Result<(Rotation, bool)> {
    match evidence.program.steps[step].op {
        Op::Angles { rotation, sines } => Ok((rotation, sines)),
        _ => candle_core::bail!("{} gives no angles", evidence.path(step)),
    }
}

/// Of what gives cosines and sines.
pub(super) fn angles(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let (rotation, sines) = of(evidence, step)?;
    let module = evidence.path(step);
    let (_, sequence) = evidence.dims()?;
    let places: Vec<f64> = (0..sequence).map(|place| place as f64).collect();
    let mut offer = |text: &str, rotation: Rotation, sines: bool, at: &[f64]| {
        attempts.offer(module, text, &turned(&rotation, sines, at)?)
    };
    for (text, other) in by_other_bases(evidence, &rotation) {
        offer(&text, other, sines, &places)?;
    }
    if rotation.slower != 1.0 {
        offer("angles are not made slower", Rotation { slower: 1.0, ..rotation }, sines, &places)?;
    }
    for by in [1.0, 2.0, -1.0] {
        let moved: Vec<f64> = places.iter().map(|place| place + by).collect();
        offer(&format!("places are shifted by {by}"), rotation, sines, &moved)?;
    }
    offer("places frozen at 0: nothing is turned", rotation, sines, &vec![0.0; sequence])?;
    offer("sines and cosines exchanged", rotation, !sines, &places)?;
    let back: Vec<f64> = places.iter().map(|place| -place).collect();
    offer("turned the other way", rotation, sines, &back)?;
    let single = |place: f64, frequency: f64| f64::from(place as f32 * frequency as f32);
    attempts.offer(module, "angles taken in f32", &turned_by(&rotation, sines, &places, single)?)?;
    Ok(())
}

/// What is turned.
struct Turning {
    /// `[batch, sequence, heads, head size]`.
    x: Tensor,
    /// `[batch or 1, sequence, 1, size]`.
    cosines: Tensor,
    sines: Tensor,
    /// Which features are pairs.
    neighbours: bool,
}

impl Turning {
    fn of(evidence: &Evidence<'_>, step: usize) -> Result<Self> {
        let Op::Rotate { heads, neighbours } = evidence.program.steps[step].op else {
            candle_core::bail!("{} turns nothing", evidence.path(step))
        };
        let (batch, sequence) = evidence.dims()?;
        let x = evidence.given(step)?;
        let size = x.dim(2)? / heads.max(1);
        let angles = |input| evidence.value(evidence.fed(step, input)?)?.unsqueeze(2);
        let x = x.reshape((batch, sequence, heads, size))?;
        Ok(Self { x, cosines: angles(1)?, sines: angles(2)?, neighbours })
    }

    /// x · cos + r · sin, of the features that are turned, and the others as they are.
    fn with(
        &self,
        rotated: impl Fn(&Tensor) -> Result<Tensor>,
        cosines: &Tensor,
        sines: &Tensor,
    ) -> Result<Tensor> {
        let (size, all) = (cosines.dim(D::Minus1)?, self.x.dim(D::Minus1)?);
        let x = self.x.narrow(D::Minus1, 0, size)?.contiguous()?;
        let turned = (x.broadcast_mul(cosines)? + rotated(&x)?.broadcast_mul(sines)?)?;
        let kept = self.x.narrow(D::Minus1, size, all - size)?;
        let turned = if all > size { Tensor::cat(&[&turned, &kept], D::Minus1)? } else { turned };
        turned.flatten_from(2)
    }

    /// (x₁, x₂) to (−x₂, x₁), in the pairs of the model.
    fn rotated(&self, x: &Tensor) -> Result<Tensor> {
        if self.neighbours { Self::by_neighbours(x) } else { Self::by_halves(x) }
    }

    /// In the other pairs.
    fn otherwise(&self, x: &Tensor) -> Result<Tensor> {
        if self.neighbours { Self::by_halves(x) } else { Self::by_neighbours(x) }
    }

    /// Of halves of the features.
    fn by_halves(x: &Tensor) -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let (first, second) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        Tensor::cat(&[&second.neg()?, &first], D::Minus1)
    }

    /// Of each two features that stand side by side.
    fn by_neighbours(x: &Tensor) -> Result<Tensor> {
        let (batch, sequence, heads, size) = x.dims4()?;
        let pairs = x.reshape((batch, sequence, heads, size / 2, 2))?;
        let (first, second) = (pairs.narrow(4, 0, 1)?, pairs.narrow(4, 1, 1)?);
        Tensor::cat(&[&second.neg()?, &first], 4)?.reshape((batch, sequence, heads, size))
    }

    /// Angles as they are for the other pairs.
    fn regrouped(&self, angles: &Tensor) -> Result<Tensor> {
        let (batch, sequence, one, size) = angles.dims4()?;
        let half = size / 2;
        if self.neighbours {
            let pairs = angles.reshape((batch, sequence, one, half, 2))?.narrow(4, 0, 1)?.squeeze(4)?;
            return Tensor::cat(&[&pairs, &pairs], D::Minus1);
        }
        let pairs = angles.narrow(D::Minus1, 0, half)?.unsqueeze(D::Minus1)?;
        Tensor::cat(&[&pairs, &pairs], D::Minus1)?.flatten_from(3)
    }
}

/// Queries and keys that were turned otherwise.
pub(super) struct Other {
    pub(super) text: String,
    /// The step that would be to blame.
    pub(super) blamed: usize,
    pub(super) query: Tensor,
    pub(super) key: Tensor,
}

/// What the queries and keys of an attention would be by other angles; nothing where they are not
/// turned.
pub(super) fn others(evidence: &Evidence<'_>, attention: usize) -> Result<Vec<Other>> {
    let [query, key] = [evidence.fed(attention, 0)?, evidence.fed(attention, 1)?];
    if !matches!(evidence.program.steps[query].op, Op::Rotate { .. }) {
        return Ok(Vec::new());
    }
    let [cosines, sines] = [evidence.fed(query, 1)?, evidence.fed(query, 2)?];
    let sides = [Turning::of(evidence, query)?, Turning::of(evidence, key)?];
    let (rotation, _) = of(evidence, cosines)?;
    let (_, sequence) = evidence.dims()?;
    let places: Vec<f64> = (0..sequence).map(|place| place as f64).collect();
    let mut all = Vec::new();
    let mut push = |text: String, blamed: usize, [cos, sin]: [Tensor; 2]| -> Result<()> {
        let [query, key] = sides.each_ref().map(|side| side.with(|x| side.rotated(x), &cos, &sin));
        all.push(Other { text, blamed, query: query?, key: key? });
        Ok(())
    };
    let own = [sides[0].cosines.clone(), sides[0].sines.clone()];
    push("turned the other way".into(), sines, [own[0].clone(), own[1].neg()?])?;
    push("not turned".into(), cosines, [own[0].ones_like()?, own[1].zeros_like()?])?;
    for (text, other) in by_other_bases(evidence, &rotation) {
        let angles = |sines| turned(&other, sines, &places)?.unsqueeze(2);
        push(text, cosines, [angles(false)?, angles(true)?])?;
    }
    Ok(all)
}

/// The formula with nothing changed.
#[cfg(test)]
pub(super) fn unchanged(evidence: &Evidence<'_>, step: usize) -> Result<Tensor> {
    match evidence.program.steps[step].op {
        Op::Angles { .. } => {
            let (rotation, sines) = of(evidence, step)?;
            let (_, sequence) = evidence.dims()?;
            turned(&rotation, sines, &(0..sequence).map(|place| place as f64).collect::<Vec<_>>())
        }
        _ => {
            let all = Turning::of(evidence, step)?;
            all.with(|x| all.rotated(x), &all.cosines, &all.sines)
        }
    }
}

/// Of what is turned.
pub(super) fn explain(evidence: &Evidence<'_>, step: usize, attempts: &mut Attempts) -> Result<()> {
    let module = evidence.path(step);
    let all = Turning::of(evidence, step)?;
    let Turning { cosines, sines, .. } = &all;
    let own = |x: &Tensor| all.rotated(x);
    let mut offer = |text: &str, value: &Tensor| attempts.offer(module, text, value);
    offer("not turned", &all.x.flatten_from(2)?)?;
    offer("turned the other way", &all.with(own, cosines, &sines.neg()?)?)?;
    offer("sines and cosines exchanged", &all.with(own, sines, cosines)?)?;
    let other = match all.neighbours {
        true => "features are turned half with half, not with their neighbours",
        false => "features are turned with their neighbours, not half with half",
    };
    let pairs = all.with(|x| all.otherwise(x), &all.regrouped(cosines)?, &all.regrouped(sines)?)?;
    offer(other, &pairs)?;
    offer(&format!("{other}; their angles are not"), &all.with(|x| all.otherwise(x), cosines, sines)?)?;
    offer("the second part of the turn is missing", &all.with(|x| x.zeros_like(), cosines, sines)?)?;
    let others = evidence.program.steps.iter().enumerate().filter_map(|(at, step)| match step.op {
        Op::Angles { rotation, sines: false } => Some((at, rotation.base)),
        _ => None,
    });
    for (at, base) in others.filter(|(at, _)| Some(*at) != evidence.fed(step, 1).ok()) {
        let value = |step: usize| evidence.value(step)?.unsqueeze(2);
        let other = all.with(own, &value(at)?, &value(at + 1)?)?;
        offer(&format!("turned by the angles of base {}, which other layers have", shown(base)), &other)?;
    }
    Ok(())
}
