use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// What a check comes to, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// The proof in f64 holds, every weight is traced, and every output that decides is within the
    /// tolerance.
    Pass,
    /// The same, but some output is beyond the tolerance, and within what f32 has a right to.
    Rounding,
    /// Nothing, or not everything that was asked for, was compared.
    Inconclusive,
    /// The proof or the audit does not hold, an output is beyond what f32 has a right to, differs
    /// in shape or dtype, or is not finite.
    Fail,
    /// The check could not be run: a missing or malformed file, an engine asked for by name that
    /// refuses the graph.
    Error,
}

impl Verdict {
    /// The exit code of the command line: 0 pass or rounding, 1 fail, 2 error, 3 inconclusive.
    /// Scripts rely on these.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Pass | Verdict::Rounding => 0,
            Verdict::Fail => 1,
            Verdict::Error => 2,
            Verdict::Inconclusive => 3,
        }
    }

    /// The worst of several; nothing at all is inconclusive.
    pub fn worst(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        verdicts.into_iter().max().unwrap_or(Verdict::Inconclusive)
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        ExitCode::from(verdict.code())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Pass => "pass",
            Verdict::Rounding => "rounding",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Fail => "fail",
            Verdict::Error => "error",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_compared_is_never_a_pass() {
        assert_eq!(Verdict::worst([]), Verdict::Inconclusive);
        assert_eq!(Verdict::worst([Verdict::Pass, Verdict::Inconclusive]), Verdict::Inconclusive);
        assert_eq!(Verdict::worst([Verdict::Fail, Verdict::Inconclusive]), Verdict::Fail);
    }

    #[test]
    fn exit_codes_are_a_contract() {
        let codes = [Verdict::Pass, Verdict::Fail, Verdict::Error, Verdict::Inconclusive].map(Verdict::code);
        assert_eq!(codes, [0, 1, 2, 3]);
        assert_eq!(Verdict::Rounding.code(), 0);
    }
}
