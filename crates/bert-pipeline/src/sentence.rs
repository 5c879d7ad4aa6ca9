//! The files that sentence-transformers keeps beside a model: what is done to a text before the model, and to its states after it.

use std::collections::BTreeMap;

use checkpoint::ModelFiles;
use serde_json::Value;

use crate::dense::Dense;
use crate::settings::Settings;
use crate::{PipelineError, Pooling};

pub(crate) const MODULES: &str = "modules.json";
pub(crate) const POOLING_CONFIG: &str = "1_Pooling/config.json";
const PROMPTS: &str = "config_sentence_transformers.json";

/// The names that the transformer's own settings have had.
const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// The poolings in the order in which their vectors are put side by side: switch, name, pooling.
const MODES: [(&str, &str, Pooling); 6] = [
    ("cls_token", "cls", Pooling::Cls),
    ("max_tokens", "max", Pooling::Max),
    ("mean_tokens", "mean", Pooling::Mean),
    ("mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrtLenTokens),
    ("weightedmean_tokens", "weightedmean", Pooling::WeightedMean),
    ("lasttoken", "lasttoken", Pooling::LastToken),
];

/// How a model's embeddings are made.
#[derive(Debug, Clone)]
pub(crate) struct Sentence {
    /// Whether there is a modules.json, so that this is what sentence-transformers does with the model, and no guess.
    pub(crate) is_declared: bool,
    has_transformer_config: bool,
    pub(crate) max_seq_length: Option<usize>,
    pub(crate) lowers_case: bool,
    pub(crate) prompts: BTreeMap<String, String>,
    pub(crate) default_prompt: Option<String>,
    pub(crate) poolings: Vec<Pooling>,
    pub(crate) pooling_file: String,
    /// Whether the prompt's tokens are pooled, too.
    pub(crate) includes_prompt: bool,
    pub(crate) layers: Vec<Layer>,
}

/// What comes after the pooling.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    Dense(Dense),
    Normalize,
}

impl Sentence {
    /// What the files say. Without them: the mean over all tokens.
    pub(crate) fn from_files(files: &ModelFiles) -> Result<Self, PipelineError> {
        let mut sentence = Self {
            is_declared: false,
            has_transformer_config: false,
            max_seq_length: None,
            lowers_case: false,
            prompts: BTreeMap::new(),
            default_prompt: None,
            poolings: vec![Pooling::Mean],
            pooling_file: POOLING_CONFIG.to_owned(),
            includes_prompt: true,
            layers: Vec::new(),
        };
        sentence.read_transformer(files)?;
        sentence.read_prompts(files)?;
        let Some(bytes) = files.read(MODULES)? else {
            sentence.read_pooling(files, POOLING_CONFIG)?;
            sentence.tell_unknown(files, POOLING_CONFIG);
            return Ok(sentence);
        };
        sentence.is_declared = true;
        let mut pooling_file = POOLING_CONFIG.to_owned();
        let modules: Vec<Value> = serde_json::from_slice(&bytes)
            .map_err(|source| PipelineError::Json { file: MODULES.to_owned(), source })?;
        for module in &modules {
            let class = module["type"].as_str().unwrap_or_default();
            let folder = module["path"].as_str().unwrap_or_default();
            let unsupported =
                |what: String| Err(PipelineError::UnsupportedPooling { file: MODULES.to_owned(), what });
            match class.rsplit('.').next().unwrap_or_default() {
                "Transformer" if folder.is_empty() => {}
                "Transformer" => return unsupported(format!("a transformer in the folder '{folder}'")),
                "Pooling" => {
                    pooling_file = in_folder(folder, "config.json");
                    sentence.read_pooling(files, &pooling_file)?;
                }
                "Normalize" => sentence.layers.push(Layer::Normalize),
                // It does something only while a model learns.
                "Dropout" => {}
                "Dense" => sentence.layers.push(Layer::Dense(Dense::from_files(files, folder)?)),
                _ => return unsupported(format!("a module of type '{class}'")),
            }
        }
        sentence.tell_unknown(files, &pooling_file);
        Ok(sentence)
    }

    /// Without a network a file that is not here may still be one of the model's, and its embeddings others than these.
    fn tell_unknown(&self, files: &ModelFiles, pooling_file: &str) {
        let is_pooled = |pooling: &Pooling| MODES.iter().find(|(_, _, mode)| mode == pooling);
        let poolings: Vec<&str> =
            self.poolings.iter().filter_map(is_pooled).map(|&(_, name, _)| name).collect();
        let consequence =
            format!("embeddings are pooled by {} and may be others than the model's", poolings.join(" and "));
        let mut wanted = vec![MODULES, pooling_file, PROMPTS];
        // These are names of one file.
        if !self.has_transformer_config {
            wanted.push(TRANSFORMER_CONFIGS[0]);
        }
        files.tell_unknown(&wanted, &consequence);
    }

    fn read_transformer(&mut self, files: &ModelFiles) -> Result<(), PipelineError> {
        for file in TRANSFORMER_CONFIGS {
            if let Some(settings) = Settings::read_if_there(files, file)? {
                self.has_transformer_config = true;
                self.max_seq_length = settings.size("max_seq_length")?;
                self.lowers_case = settings.bool("do_lower_case")?.unwrap_or(false);
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_prompts(&mut self, files: &ModelFiles) -> Result<(), PipelineError> {
        let settings = Settings::read(files, PROMPTS)?;
        if let Some(value) = settings.get("prompts") {
            let wrong = || settings.wrong("prompts", "an object of texts under their names", value);
            let prompts = value.as_object().ok_or_else(wrong)?.iter();
            let prompt = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.to_owned()));
            self.prompts = prompts.map(prompt).collect::<Option<_>>().ok_or_else(wrong)?;
        }
        self.default_prompt = settings.string("default_prompt_name")?.map(str::to_owned);
        Ok(())
    }

    fn read_pooling(&mut self, files: &ModelFiles, file: &str) -> Result<(), PipelineError> {
        let Some(config) = Settings::read_if_there(files, file)? else { return Ok(()) };
        self.pooling_file = file.to_owned();
        self.includes_prompt = config.bool("include_prompt")?.unwrap_or(true);
        let mut modes: Vec<String> = Vec::new();
        for (setting, value) in config.iter() {
            // Older files have a switch for each mode, newer ones may name the modes.
            if setting == "pooling_mode" {
                let wrong = || config.wrong(setting, "a name, or a list of names", value);
                let names = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                let names = names.iter().map(|name| name.as_str().map(str::to_lowercase));
                modes.extend(names.collect::<Option<Vec<_>>>().ok_or_else(wrong)?);
            } else if let Some(mode) = setting.strip_prefix("pooling_mode_")
                && value.as_bool().ok_or_else(|| config.wrong(setting, "true or false", value))?
            {
                modes.push(mode.to_owned());
            }
        }
        let unsupported = |what: String| PipelineError::UnsupportedPooling { file: file.to_owned(), what };
        // The mean is switched on unless it is switched off.
        if modes.is_empty() && config.get("pooling_mode_mean_tokens").is_none() {
            self.poolings = vec![Pooling::Mean];
            return Ok(());
        }
        let is_known = |mode: &String| MODES.iter().any(|(switch, name, _)| mode == switch || mode == name);
        if let Some(mode) = modes.iter().find(|mode| !is_known(mode)) {
            return Err(unsupported(format!("pooling by {mode}")));
        }
        let chosen =
            MODES.iter().filter(|(switch, name, _)| modes.iter().any(|mode| mode == switch || mode == name));
        self.poolings = chosen.map(|&(_, _, pooling)| pooling).collect();
        if self.poolings.is_empty() {
            return Err(unsupported("no pooling at all".to_owned()));
        }
        Ok(())
    }
}

/// The path of a file in a folder of the model.
pub(crate) fn in_folder(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}
