use checkpoint::ModelFiles;
use serde_json::Value;

use super::{SCORES, SENTENCE, TOKENS, in_folder};
use crate::PipelineError;
use crate::settings::Settings;

/// The names that the transformer's own settings have had.
pub(super) const CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Settings that are arguments of transformers' functions, by today's name and the older one; with
/// each, the arguments that are followed or change nothing. Those of the model are not among them:
/// they say how it is loaded (`torch_dtype`), not what it computes.
const ARGUMENTS: [(&str, &[&str]); 4] = [
    ("processor_kwargs", &["model_max_length", "trust_remote_code"]),
    ("tokenizer_args", &["model_max_length", "trust_remote_code"]),
    ("config_kwargs", &["trust_remote_code"]),
    ("config_args", &["trust_remote_code"]),
];

/// What the transformer gives to the first of the modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// `last_hidden_state`, `[batch, sequence, hidden]`.
    Hidden,
    /// `pooler_output`, `[batch, hidden]`.
    Pooled,
    /// A classifier's `logits`, `[batch, labels]`.
    Logits,
    /// A graph's own `sentence_embedding`, `[batch, width]`.
    Vector,
}

/// sentence-transformers' `Transformer`: which output becomes which feature, and how texts are
/// read.
#[derive(Debug, Clone)]
pub(crate) struct Transformer {
    pub(crate) output: Output,
    pub(super) feature: String,
    /// Whether there is a file with its settings.
    pub(super) is_declared: bool,
    /// That file, or where it would be.
    pub(crate) file: String,
    /// The most tokens of a row.
    pub(crate) max_length: Option<usize>,
    pub(crate) lowers_case: bool,
}

impl Transformer {
    /// One that gives this output, where no file says more.
    pub(super) fn giving(output: Output) -> Self {
        let feature = match output {
            Output::Logits => SCORES,
            Output::Vector => SENTENCE,
            Output::Hidden | Output::Pooled => TOKENS,
        };
        Self {
            output,
            feature: feature.to_owned(),
            is_declared: false,
            file: CONFIGS[0].to_owned(),
            max_length: None,
            lowers_case: false,
        }
    }

    /// This one, whatever its settings say that it gives.
    pub(crate) fn giving_instead(self, output: Output) -> Self {
        let Self { feature, .. } = Self::giving(output);
        Self { output, feature, ..self }
    }

    /// The one in that folder of the model.
    pub(super) fn from_files(files: &ModelFiles, folder: &str) -> Result<Self, PipelineError> {
        for name in CONFIGS {
            let file = in_folder(folder, name);
            if let Some(config) = Settings::read_if_there(files, &file)? {
                return Ok(Self { file, ..Self::from_config(&config)? });
            }
        }
        Ok(Self::giving(Output::Hidden))
    }

    fn from_config(config: &Settings) -> Result<Self, PipelineError> {
        let mut this = match config.string("transformer_task")? {
            None | Some("feature-extraction") => Self::giving(Output::Hidden),
            Some("sequence-classification") => Self::giving(Output::Logits),
            Some(task) => return Err(config.unsupported(format!("the task '{task}'"))),
        };
        if let Some(modalities) = config.get("modality_config") {
            let wrong = || config.wrong("modality_config", "an object that has 'text'", modalities);
            if modalities.get("message").is_some() {
                return Err(config.unsupported("texts as messages of a chat".to_owned()));
            }
            let text = modalities.get("text").ok_or_else(wrong)?;
            this.output = match (text["method"].as_str(), &text["method_output_name"]) {
                (Some("forward"), Value::String(name)) => match name.as_str() {
                    "last_hidden_state" => Output::Hidden,
                    "pooler_output" => Output::Pooled,
                    "logits" => Output::Logits,
                    _ => return Err(config.unsupported(format!("the output '{name}' of the transformer"))),
                },
                _ => return Err(config.unsupported(format!("{text} of the transformer"))),
            };
            let name = config.string("module_output_name")?;
            this.feature = name.ok_or_else(wrong)?.to_owned();
        }
        this.is_declared = true;
        this.lowers_case = config.bool("do_lower_case")?.unwrap_or(false);
        this.max_length = max_length(config)?;
        Ok(this)
    }
}

/// Where texts are cut. An argument that would change how they are read, and is not followed, is
/// refused.
fn max_length(config: &Settings) -> Result<Option<usize>, PipelineError> {
    let mut length = config.size("max_seq_length")?;
    let mut follow = |arguments: Option<Settings>, setting: &str, name: &str, known: &[&str]| {
        let Some(arguments) = arguments else { return Ok(()) };
        if let Some(other) = arguments.names().find(|name| !known.contains(name)) {
            return Err(config.unsupported(format!("'{other}' in '{setting}'")));
        }
        length = arguments.size(name)?.or(length);
        Ok(())
    };
    for (setting, known) in ARGUMENTS {
        follow(config.object(setting)?, setting, "model_max_length", known)?;
    }
    const PROCESSING: &str = "processing_kwargs";
    if let Some(processing) = config.object(PROCESSING)? {
        for part in ["common", "text"] {
            follow(processing.object(part)?, PROCESSING, "max_length", &["max_length"])?;
        }
    }
    Ok(length)
}
