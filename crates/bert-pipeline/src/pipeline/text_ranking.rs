use candle_bert::Task;
use checkpoint::ModelFiles;
use serde::Serialize;

use super::constructors;
use super::core::{Core, Need};
use super::runner::Wanted;
use crate::scores::{descending, sigmoid};
use crate::settings::Settings;
use crate::{PipelineError, Text};

const NEED: Need =
    Need { task: Task::SequenceClassification, name: "text-ranking", wanted: &[Wanted::LABELS] };

const CONFIG: &str = "config.json";

/// A document's place in a ranking: documents come in it with the best first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranked {
    /// Which document, counted from 0.
    pub corpus_id: usize,
    /// How well it fits the query.
    pub score: f32,
    /// Whether query and document together were longer than the model takes, so that an end was not read.
    #[serde(skip)]
    pub truncated: bool,
}

/// Documents by how well they fit a query, each read together with it: a cross-encoder, as sentence-transformers' `CrossEncoder.rank`.
///
/// Pairs that are too long are cut, as they are there.
pub struct TextRanking {
    core: Core,
    is_sigmoid: bool,
}

constructors!(TextRanking, TextRanking::from_core);

impl TextRanking {
    fn from_core(files: &ModelFiles, mut core: Core) -> Result<Self, PipelineError> {
        let labels = core.config.num_labels;
        if labels != 1 {
            return Err(PipelineError::NotARanking { labels });
        }
        core.cut_if(core.tokenizer.longest_row())?;
        Ok(Self { is_sigmoid: is_sigmoid(files)?, core })
    }

    /// The documents, the best first; of equally good ones, the one that comes first.
    ///
    /// # Errors
    /// If there are no documents, or the model fails.
    pub fn rank(&self, query: &str, documents: &[impl AsRef<str>]) -> Result<Vec<Ranked>, PipelineError> {
        if documents.is_empty() {
            return Err(PipelineError::NoCandidates { what: "documents" });
        }
        let mut ranking: Vec<Ranked> = Vec::with_capacity(documents.len());
        // Documents may be many and long: their tokens are made as they are run.
        for (number, part) in documents.chunks(self.core.window()).enumerate() {
            let first = number * self.core.window();
            let pairs: Vec<Text<'_>> =
                part.iter().map(|document| Text::from((query, document.as_ref()))).collect();
            let (rows, is_cut) = self.core.encode(&pairs).map_err(|error| error.counted_from(first))?;
            let text = |row: usize| first + row;
            self.core.runner.run(&rows, self.core.options.batch_size, &text, &mut |row, outputs| {
                if let [logits] = outputs {
                    let &[logit] = logits.numbers else {
                        return Err(PipelineError::NotARanking { labels: logits.numbers.len() });
                    };
                    let score = if self.is_sigmoid { sigmoid(logit) } else { logit };
                    let truncated = is_cut.get(row).is_some_and(|&is_cut| is_cut);
                    ranking.push(Ranked { corpus_id: first + row, score, truncated });
                }
                Ok(())
            })?;
        }
        ranking.sort_by(|a, b| descending(a.score, b.score).then(a.corpus_id.cmp(&b.corpus_id)));
        Ok(ranking)
    }
}

/// Whether the score is the logit's sigmoid, as it is unless config.json says otherwise: in `sentence_transformers`, or where versions
/// before 4 wrote it.
fn is_sigmoid(files: &ModelFiles) -> Result<bool, PipelineError> {
    let config = Settings::read(files, CONFIG)?;
    let of_section = config.get("sentence_transformers").and_then(|section| section.get("activation_fn"));
    let name = match of_section.and_then(|name| name.as_str()) {
        Some(name) => Some(name),
        None => config.string("sbert_ce_default_activation_function")?,
    };
    match name.map(|name| name.rsplit('.').next().unwrap_or(name)) {
        None | Some("Sigmoid") => Ok(true),
        Some("Identity") => Ok(false),
        Some(other) => Err(PipelineError::UnsupportedPooling {
            file: CONFIG.to_owned(),
            what: format!("the activation '{other}' of a cross-encoder's score"),
        }),
    }
}
