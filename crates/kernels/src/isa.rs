use crate::KernelError;

/// A set of vector instructions that the kernels are compiled for.
///
/// Results differ between sets by rounding alone: each fused multiply-add rounds once, and `Portable` has none on x86.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// What the compiler makes of plain Rust; runs everywhere.
    Portable,
    /// AVX2 and FMA: x86 since 2013 (Haswell, Zen).
    Avx2,
    /// AVX-512 F, VL and DQ: Skylake-X, Zen 4.
    Avx512,
}

impl Isa {
    /// The widest set that this CPU offers.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// Every set that this CPU offers, the widest last.
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
            {
                return &[Self::Portable, Self::Avx2, Self::Avx512];
            }
            return &[Self::Portable, Self::Avx2];
        }
        &[Self::Portable]
    }

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    pub(crate) fn check(self) -> Result<(), KernelError> {
        if Self::available().contains(&self) {
            Ok(())
        } else {
            Err(KernelError::IsaUnavailable { isa: self.name() })
        }
    }
}
