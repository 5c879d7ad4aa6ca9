use candle_core::Tensor;
use checkpoint::ModelFiles;

use crate::settings::Settings;
use crate::{PipelineError, Pooling};

/// The poolings by the name that newer files have, and by the switch of older ones; the switches
/// have no order of their own, so this is the order in which the vectors of theirs are put side by
/// side.
const MODES: [(&str, &str, Pooling); 6] = [
    ("cls", "pooling_mode_cls_token", Pooling::Cls),
    ("max", "pooling_mode_max_tokens", Pooling::Max),
    ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLenTokens),
    ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ("lasttoken", "pooling_mode_lasttoken", Pooling::LastToken),
];

const MODE: &str = "pooling_mode";

/// sentence-transformers' `Pooling`: one vector of the tokens' states, or several side by side.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    /// In the order in which their vectors are put side by side.
    pub(crate) modes: Vec<Pooling>,
    /// Whether the prompt's tokens are pooled, too.
    pub(super) includes_prompt: bool,
    /// Whether the first token of a row is what stands at its start, real or not: so it was before
    /// sentence-transformers 5.3, and so it is in most exports.
    pub(super) first_is_at_start: bool,
}

impl Default for Pool {
    fn default() -> Self {
        Self { modes: vec![Pooling::Mean], includes_prompt: true, first_is_at_start: false }
    }
}

impl Pool {
    /// What a config.json asks for; the mean where there is none.
    pub(super) fn from_files(files: &ModelFiles, file: &str) -> Result<Self, PipelineError> {
        let config = Settings::read(files, file)?;
        let includes_prompt = config.bool("include_prompt")?.unwrap_or(true);
        for (setting, value) in config.iter() {
            let is_known = MODES.iter().any(|(_, switch, _)| setting == *switch);
            if let Some(name) = setting.strip_prefix("pooling_mode_").filter(|_| !is_known)
                && value.as_bool() != Some(false)
            {
                return Err(config.unsupported(format!("pooling by {name}")));
            }
        }
        let modes = match config.get(MODE) {
            Some(value) => {
                let wrong = || config.wrong(MODE, "a name, or a list of names", value);
                let names = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                let names: Vec<&str> =
                    names.iter().map(|name| name.as_str()).collect::<Option<_>>().ok_or_else(wrong)?;
                let mode = |name: &str| MODES.iter().find(|(known, _, _)| *known == name);
                names
                    .into_iter()
                    .map(|name| mode(name).map(|mode| mode.2).ok_or(format!("pooling by {name}")))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|what| config.unsupported(what))?
            }
            None => {
                let mut switched_on = Vec::new();
                for (_, switch, mode) in MODES {
                    if config.bool(switch)?.unwrap_or(false) {
                        switched_on.push(mode);
                    }
                }
                // sentence-transformers takes the mean where every switch is off.
                if switched_on.is_empty() { Self::default().modes } else { switched_on }
            }
        };
        if modes.is_empty() {
            return Err(config.unsupported("no pooling at all".to_owned()));
        }
        Ok(Self { modes, includes_prompt, first_is_at_start: false })
    }

    /// `[1, width · modes]` of token states `[1, sequence, width]`; `mask` `[1, sequence]` says
    /// which of them count.
    pub(super) fn forward(
        &self,
        states: &Tensor,
        mask: &Tensor,
        pooler_output: Option<&Tensor>,
    ) -> Result<Tensor, PipelineError> {
        let pooled = self.modes.iter().map(|mode| match mode {
            Pooling::Cls if self.first_is_at_start => Ok(states.narrow(1, 0, 1)?.squeeze(1)?),
            mode => mode.pool(states, mask, pooler_output),
        });
        Ok(Tensor::cat(&pooled.collect::<Result<Vec<_>, _>>()?, 1)?)
    }
}
