//! One token of each text, as a pooler takes it.

use architecture::Op;
use candle_core::{Device, Result, Tensor};

use super::Evidence;
use super::attempts::Emit;

/// Other ways to make one token of all.
pub(super) fn others(evidence: &Evidence<'_>, step: usize, emit: &mut Emit<'_>) -> Result<bool> {
    if evidence.program.steps[step].op != (Op::Token { at: 0 }) {
        return Ok(false);
    }
    let (batch, sequence) = evidence.dims()?;
    let hidden = evidence.given(step)?;
    let token = |position| hidden.narrow(1, position, 1)?.squeeze(1);
    let mut explained = emit("takes the last token, not the first", &token(sequence.saturating_sub(1))?)?;
    if sequence > 1 {
        explained |= emit("takes the second token, not the first", &token(1)?)?;
    }
    explained |= emit("takes the mean of all tokens, padding included", &hidden.mean(1)?)?;
    explained |= emit("takes the largest value of all tokens", &hidden.max(1)?)?;

    let mask = evidence.mask()?;
    let keep = Tensor::from_slice(&mask, (batch, sequence, 1), &Device::Cpu)?;
    let sum = hidden.broadcast_mul(&keep)?.sum(1)?;
    explained |= emit("takes the sum of all real tokens", &sum)?;
    explained |= emit("takes the mean of all real tokens", &sum.broadcast_div(&keep.sum(1)?)?)?;
    // 0 where a token is real, −∞ elsewhere.
    let hide: Vec<f64> = mask.iter().map(|&bit| if bit == 0. { f64::NEG_INFINITY } else { 0. }).collect();
    let hide = Tensor::from_vec(hide, (batch, sequence, 1), &Device::Cpu)?;
    explained |= emit("takes the largest value of all real tokens", &hidden.broadcast_add(&hide)?.max(1)?)?;
    let ends = |pick: &dyn Fn(&[f64]) -> Option<usize>| {
        let rows = mask.chunks(sequence.max(1)).enumerate();
        let tokens = rows.map(|(row, bits)| hidden.narrow(0, row, 1)?.narrow(1, pick(bits).unwrap_or(0), 1));
        Tensor::cat(&tokens.collect::<Result<Vec<_>>>()?, 0)?.squeeze(1)
    };
    let last = ends(&|bits| bits.iter().rposition(|&bit| bit != 0.))?;
    explained |= emit("takes the last real token, not the first", &last)?;
    let first = ends(&|bits| bits.iter().position(|&bit| bit != 0.))?;
    explained |= emit("takes the first real token, where the padding is on the left", &first)?;
    Ok(explained)
}
