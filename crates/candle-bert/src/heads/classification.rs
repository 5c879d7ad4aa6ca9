//! One dense layer over the pooled first token, or over every token.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::{Head, pooled};
use crate::linear::Linear;
use crate::taps::Taps;
use crate::{BertModel, BertOutput, Task};

/// The checkpoint's `classifier` over a text.
#[derive(Debug, Clone)]
pub struct SequenceClassification(Linear);

impl Head for SequenceClassification {
    type Output = Tensor;

    const TASK: Task = Task::SequenceClassification;
    const MODULES: &'static [&'static str] = &["classifier"];

    fn load(vb: VarBuilder, bert: &BertModel) -> Result<Self> {
        Ok(Self(dense(vb.pp("classifier"), bert, bert.config().num_labels)?))
    }

    fn forward(&self, bert: BertOutput, _: &[usize], taps: &mut Taps) -> Result<Tensor> {
        let pooled = pooled(bert)?;
        taps.module("classifier", |_| self.0.forward(&pooled))
    }

    fn named(logits: Tensor) -> Vec<(&'static str, Tensor)> {
        vec![("logits", logits)]
    }
}

/// The checkpoint's `classifier` over tokens.
#[derive(Debug, Clone)]
pub struct TokenClassification(Linear);

impl Head for TokenClassification {
    type Output = Tensor;

    const TASK: Task = Task::TokenClassification;
    const MODULES: &'static [&'static str] = &["classifier"];

    fn load(vb: VarBuilder, bert: &BertModel) -> Result<Self> {
        Ok(Self(dense(vb.pp("classifier"), bert, bert.config().num_labels)?))
    }

    fn forward(&self, bert: BertOutput, _: &[usize], taps: &mut Taps) -> Result<Tensor> {
        taps.module("classifier", |_| self.0.forward(&bert.last_hidden_state))
    }

    fn named(logits: Tensor) -> Vec<(&'static str, Tensor)> {
        vec![("logits", logits)]
    }
}

/// The checkpoint's `classifier` over choices: one number for each.
#[derive(Debug, Clone)]
pub struct MultipleChoice(Linear);

impl Head for MultipleChoice {
    type Output = Tensor;

    const TASK: Task = Task::MultipleChoice;
    const MODULES: &'static [&'static str] = &["classifier"];

    fn load(vb: VarBuilder, bert: &BertModel) -> Result<Self> {
        Ok(Self(dense(vb.pp("classifier"), bert, 1)?))
    }

    fn forward(&self, bert: BertOutput, leading: &[usize], taps: &mut Taps) -> Result<Tensor> {
        let pooled = pooled(bert)?;
        taps.module("classifier", |_| self.0.forward(&pooled))?.reshape(leading)
    }

    fn named(logits: Tensor) -> Vec<(&'static str, Tensor)> {
        vec![("logits", logits)]
    }
}

/// The checkpoint's `cls.seq_relationship`.
#[derive(Debug, Clone)]
pub struct NextSentencePrediction(Linear);

impl Head for NextSentencePrediction {
    type Output = Tensor;

    const TASK: Task = Task::NextSentencePrediction;
    const MODULES: &'static [&'static str] = &["cls.seq_relationship"];

    fn load(vb: VarBuilder, bert: &BertModel) -> Result<Self> {
        Ok(Self(dense(vb.pp("cls.seq_relationship"), bert, 2)?))
    }

    fn forward(&self, bert: BertOutput, _: &[usize], taps: &mut Taps) -> Result<Tensor> {
        let pooled = pooled(bert)?;
        taps.module("cls.seq_relationship", |_| self.0.forward(&pooled))
    }

    fn named(logits: Tensor) -> Vec<(&'static str, Tensor)> {
        vec![("logits", logits)]
    }
}

fn dense(vb: VarBuilder, bert: &BertModel, outputs: usize) -> Result<Linear> {
    Linear::load(bert.config().hidden_size, outputs, vb)
}
