use std::fmt;
use std::str::FromStr;

use crate::PipelineError;

/// How near two vectors are to each other, by the names that sentence-transformers has for it
/// (`similarity_fn_name`). The larger the number, the nearer they are: distances are negative.
///
/// ```
/// use bert_pipeline::Similarity;
///
/// assert_eq!(Similarity::Dot.between(&[1., 2.], &[3., 4.])?, 11.);
/// assert_eq!(Similarity::Euclidean.between(&[0., 0.], &[3., 4.])?, -5.);
/// # Ok::<(), bert_pipeline::PipelineError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Similarity {
    /// a·b / (‖a‖₂‖b‖₂), from −1 to 1; 0 if either is all zeros.
    #[default]
    Cosine,
    /// a·b.
    Dot,
    /// −‖a − b‖₂.
    Euclidean,
    /// −‖a − b‖₁.
    Manhattan,
}

impl FromStr for Similarity {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let all = [Self::Cosine, Self::Dot, Self::Euclidean, Self::Manhattan];
        all.into_iter().find(|similarity| similarity.to_string() == name).ok_or(())
    }
}

impl fmt::Display for Similarity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
        })
    }
}

impl Similarity {
    /// How near these two vectors are. Added up in f64.
    ///
    /// # Errors
    /// If they are not equally long.
    pub fn between(self, a: &[f32], b: &[f32]) -> Result<f32, PipelineError> {
        if a.len() != b.len() {
            return Err(PipelineError::Lengths { left: a.len(), right: b.len() });
        }
        let sum = |of: fn(f64, f64) -> f64, a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| of(f64::from(a), f64::from(b))).sum()
        };
        let dot = |a: &[f32], b: &[f32]| sum(|a, b| a * b, a, b);
        Ok(match self {
            Self::Cosine => {
                // f32 squares fit f64 far from its ends: nothing overflows or vanishes here.
                let lengths = dot(a, a).sqrt() * dot(b, b).sqrt();
                if lengths == 0. { 0. } else { dot(a, b) / lengths }
            }
            Self::Dot => dot(a, b),
            Self::Euclidean => -sum(|a, b| (a - b) * (a - b), a, b).sqrt(),
            Self::Manhattan => -sum(|a, b| (a - b).abs(), a, b),
        } as f32)
    }
}

/// [`Similarity::Cosine`] of two vectors.
///
/// # Errors
/// If they are not equally long.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> Result<f32, PipelineError> {
    Similarity::Cosine.between(a, b)
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

    #[test]
    fn other_functions_by_hand() {
        let (a, b) = ([1., -2.], [4., 2.]);
        for (similarity, expected) in
            [(Similarity::Dot, 0.), (Similarity::Euclidean, -5.), (Similarity::Manhattan, -7.)]
        {
            assert_eq!(similarity.between(&a, &b).unwrap(), expected);
            assert_eq!(similarity.to_string().parse(), Ok(similarity));
        }
        assert_eq!("hamming".parse::<Similarity>(), Err(()));
    }
}
