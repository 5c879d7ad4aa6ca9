use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

use super::Head;
use crate::linear::Linear;
use crate::taps::Taps;
use crate::{BertModel, BertOutput, Task};

/// The checkpoint's `qa_outputs` (Devlin et al. 2018, section 4.2, where the two rows of its weight are called *S* and *E*).
#[derive(Debug, Clone)]
pub struct QuestionAnswering(Linear);

/// How likely the answer begins, and ends, at each token, before any softmax; both `[batch, sequence]`. At padding they mean nothing.
#[derive(Debug, Clone)]
pub struct QuestionAnsweringOutput {
    /// Where it begins.
    pub start_logits: Tensor,
    /// Where it ends: its last token.
    pub end_logits: Tensor,
}

impl Head for QuestionAnswering {
    type Output = QuestionAnsweringOutput;

    const TASK: Task = Task::QuestionAnswering;
    const MODULES: &'static [&'static str] = &["qa_outputs"];

    fn load(vb: VarBuilder, bert: &BertModel) -> Result<Self> {
        Ok(Self(Linear::load(bert.config().hidden_size, 2, vb.pp("qa_outputs"))?))
    }

    fn forward(&self, bert: BertOutput, _: &[usize], taps: &mut Taps) -> Result<QuestionAnsweringOutput> {
        let both = taps.module("qa_outputs", |_| self.0.forward(&bert.last_hidden_state))?;
        let row = |index| both.narrow(D::Minus1, index, 1)?.squeeze(D::Minus1)?.contiguous();
        Ok(QuestionAnsweringOutput { start_logits: row(0)?, end_logits: row(1)? })
    }

    fn named(output: QuestionAnsweringOutput) -> Vec<(&'static str, Tensor)> {
        vec![("start_logits", output.start_logits), ("end_logits", output.end_logits)]
    }
}
