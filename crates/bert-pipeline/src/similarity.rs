use crate::PipelineError;

/// The cosine of the angle between two vectors: a·b / (‖a‖₂‖b‖₂), from −1 to 1; 0 if either is all zeros. Added up in f64.
///
/// # Errors
/// If they are not equally long.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> Result<f32, PipelineError> {
    if a.len() != b.len() {
        return Err(PipelineError::Lengths { left: a.len(), right: b.len() });
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    // f32 squares fit f64 far from its ends: nothing overflows or vanishes here.
    let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
    if lengths == 0. {
        return Ok(0.);
    }
    Ok((dot(a, b) / lengths) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(cosine_similarity(&[3., 4.], &[4., 3.]).unwrap(), 24. / 25.);
        assert_eq!(cosine_similarity(&[1., 0.], &[0., 5.]).unwrap(), 0.);
        assert_eq!(cosine_similarity(&[1., 2.], &[-2., -4.]).unwrap(), -1.);
        assert_eq!(cosine_similarity(&[0., 0.], &[1., 2.]).unwrap(), 0.);
    }

    #[test]
    fn neither_length_nor_smallness_is_lost_to_f32() {
        assert_eq!(cosine_similarity(&[3e38, 0.], &[3e38, 0.]).unwrap(), 1.);
        assert_eq!(cosine_similarity(&[1e-40, 0.], &[1e-40, 0.]).unwrap(), 1.);
        assert!(cosine_similarity(&[f32::NAN], &[1.]).unwrap().is_nan());
    }

    #[test]
    fn lengths_must_agree() {
        let error = cosine_similarity(&[1.], &[1., 2.]).unwrap_err();
        assert_eq!(error.to_string(), "vectors of 1 and 2 elements cannot be compared");
    }
}
