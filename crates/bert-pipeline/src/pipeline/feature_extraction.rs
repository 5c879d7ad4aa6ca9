use candle_bert::Task;

use super::core::{Core, Need, refuse_pairs};
use super::runner::{RowOutput, Wanted};
use super::text_classification::outputs;
use super::{Output, Pipeline, constructors};
use crate::{PipelineError, Text};

const NEED: Need = Need::new(Task::FeatureExtraction, "feature-extraction", &[Wanted::HIDDEN]);

/// The hidden state of each token after the last layer, `[tokens][hidden]`, special tokens included: transformers'
/// `feature-extraction`, which has one more dimension, of size 1, around that.
pub struct FeatureExtraction {
    core: Core,
}

constructors!(FeatureExtraction);

impl FeatureExtraction {
    fn of(mut core: Core) -> Result<Self, PipelineError> {
        core.cut_if(None)?;
        Ok(Self { core })
    }
}

impl Pipeline for FeatureExtraction {
    type Prediction = Vec<Vec<f32>>;

    fn run_texts(&self, texts: &[Text<'_>]) -> Result<Vec<Output<Self::Prediction>>, PipelineError> {
        refuse_pairs(texts, NEED.name)?;
        let (rows, is_cut) = self.core.encode(texts)?;
        let features = self.core.runner.run(
            &rows,
            |row| row,
            |_, _, outputs| Ok(outputs.iter().flat_map(RowOutput::tokens).map(<[f32]>::to_vec).collect()),
        )?;
        Ok(outputs(features, is_cut))
    }

    /// One batch: features are large.
    fn window(&self) -> usize {
        self.core.options.batch_size
    }
}
