//! What each task answers, and how it is shown.

use std::io::Write as _;

use anyhow::Context as _;
use bert_pipeline::Text;
use bert_pipeline::pipeline::{
    Choice, FeatureExtraction, FillMask, MultipleChoice, Output, Pipeline, QuestionAnswering, Ranked,
    TextClassification, TextRanking, TokenClassification,
};
use parity::Verdict;
use parity::report::terminal::table;
use serde::Serialize;

use super::super::embed::{tell, tell_truncation};
use super::super::{is_stdout, terminal, write_json};
use super::{Item, Source};

macro_rules! make {
    ($source:expr, $pipeline:ident) => {{
        let pipeline = $source.make($pipeline::from_files, $pipeline::with_engine)?;
        if let Some(reason) = pipeline.note() {
            tell(&format!("the checkpoint runs and not the graph: {reason}"));
        }
        pipeline
    }};
}

impl Source<'_> {
    /// The texts, each with the second one of its pair.
    fn texts(&self) -> Vec<Text<'_>> {
        self.items.iter().map(|item| Text { first: &item.text, second: item.pair.as_deref() }).collect()
    }

    /// What `answer` says to each item. Of several, an error names which.
    fn each<T>(&self, answer: impl Fn(&Item) -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
        let named = |(number, item)| match self.args.file {
            Some(_) => answer(item).with_context(|| format!("item {}", number + 1)),
            None => answer(item),
        };
        self.items.iter().enumerate().map(named).collect()
    }
}

pub fn classify(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let pipeline = make!(source, TextClassification).with_top_k(Some(top_k.unwrap_or(1)));
    let outputs = pipeline.run(&source.texts())?;
    let rows = outputs.iter().zip(&source.items).flat_map(|(output, item)| {
        output.iter().map(|label| vec![item.text.clone(), label.label.clone(), score(label.score.into())])
    });
    let rows: Vec<_> = rows.collect();
    each(source, outputs, &["text", "label", "score"], 2, rows)
}

pub fn label_tokens(source: &Source<'_>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let mut pipeline = make!(source, TokenClassification).with_aggregation(args.aggregation)?;
    if let Some(stride) = args.stride {
        pipeline = pipeline.with_stride(stride)?;
    }
    let outputs = pipeline.run(&source.texts())?;
    let rows = outputs.iter().flat_map(|output| output.iter()).map(|entity| {
        let label = entity.entity.as_ref().or(entity.entity_group.as_ref());
        vec![
            entity.word.clone(),
            label.cloned().unwrap_or_default(),
            score(entity.score.into()),
            format!("{}..{}", entity.start, entity.end),
        ]
    });
    let rows: Vec<_> = rows.collect();
    each(source, outputs, &["word", "entity", "score", "characters"], 2, rows)
}

pub fn answer(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let pipeline = make!(source, QuestionAnswering).with_top_k(top_k.unwrap_or(1))?;
    let answers =
        source.each(|item| Ok(pipeline.answer(&item.text, item.context.as_deref().unwrap_or_default())?))?;
    let rows = answers.iter().flat_map(|answers| &answers.0).map(|answer| {
        vec![answer.answer.clone(), score(answer.score), format!("{}..{}", answer.start, answer.end)]
    });
    let rows = rows.collect();
    write_all(source, answers, &["answer", "score", "characters"], 1, rows)
}

pub fn fill(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let mut pipeline = make!(source, FillMask);
    if let Some(top_k) = top_k {
        pipeline = pipeline.with_top_k(top_k)?;
    }
    if !args.target.is_empty() {
        pipeline = pipeline.with_targets(&args.target)?;
    }
    let outputs = pipeline.run(&source.texts())?;
    let rows = outputs
        .iter()
        .flat_map(|output| output.0.iter().flatten())
        .map(|filled| vec![filled.token_str.clone(), score(filled.score.into()), filled.sequence.clone()]);
    let rows: Vec<_> = rows.collect();
    each(source, outputs, &["token", "score", "sequence"], 1, rows)
}

pub fn choose(source: &Source<'_>) -> anyhow::Result<Verdict> {
    let pipeline = make!(source, MultipleChoice);
    let chosen = source.each(|item| Ok(pipeline.choose(&item.text, &item.choices)?))?;
    let is_cut = |choices: &Vec<Choice>| choices.iter().any(|choice| choice.truncated);
    tell_truncation(&(0..chosen.len()).filter(|&item| is_cut(&chosen[item])).collect::<Vec<_>>());
    let rows = chosen.iter().flatten().map(|choice| vec![choice.choice.clone(), score(choice.score.into())]);
    let rows = rows.collect();
    write_all(source, chosen, &["choice", "score"], 1, rows)
}

pub fn rank(source: &Source<'_>, top_k: Option<usize>) -> anyhow::Result<Verdict> {
    let args = source.args;
    let mut pipeline = make!(source, TextRanking);
    if let Some(name) = &args.prompt_name {
        pipeline = pipeline.with_prompt_name(name)?;
    }
    let mut rankings = source.each(|item| Ok(pipeline.rank(&item.text, &item.documents)?))?;
    for ranking in &mut rankings {
        let cut = ranking.iter().filter(|ranked| ranked.truncated);
        tell_truncation(&cut.map(|ranked| ranked.corpus_id).collect::<Vec<_>>());
        ranking.truncate(top_k.unwrap_or(usize::MAX));
    }
    let row = |(item, ranked): (&Item, &Ranked)| {
        let document = item.documents.get(ranked.corpus_id).cloned().unwrap_or_default();
        vec![document, ranked.corpus_id.to_string(), score(ranked.score.into())]
    };
    let each = source.items.iter().zip(&rankings);
    let rows =
        each.flat_map(|(item, ranking)| ranking.iter().map(move |ranked| row((item, ranked)))).collect();
    write_all(source, rankings, &["document", "corpus_id", "score"], 2, rows)
}

pub fn extract(source: &Source<'_>) -> anyhow::Result<Verdict> {
    const SHOWN: usize = 4;
    let outputs = make!(source, FeatureExtraction).run(&source.texts())?;
    let rows = outputs.iter().zip(&source.items).map(|(states, item)| {
        let first: Vec<String> =
            states.iter().flatten().take(SHOWN).map(|state| format!("{state:.4}")).collect();
        vec![item.text.clone(), states.len().to_string(), format!("{} …", first.join(" "))]
    });
    let rows: Vec<_> = rows.collect();
    // transformers has the batch around each text's features, of size 1.
    let outputs = outputs
        .into_iter()
        .map(|output| Output { truncated: output.truncated, prediction: [output.prediction] });
    each(source, outputs.collect(), &["text", "tokens", "features"], 1, rows)
}

fn score(score: f64) -> String {
    format!("{score:.4}")
}

/// Writes the prediction for each text, and tells which were cut.
fn each<T: Serialize>(
    source: &Source<'_>,
    outputs: Vec<Output<T>>,
    header: &[&str],
    number: usize,
    rows: Vec<Vec<String>>,
) -> anyhow::Result<Verdict> {
    let truncated = outputs.iter().enumerate().filter(|(_, output)| output.truncated);
    tell_truncation(&truncated.map(|(text, _)| text).collect::<Vec<_>>());
    write_all(source, outputs, header, number, rows)
}

/// Writes all predictions: that of the only text as it is, those of several texts, or of a file's,
/// as a list, as transformers returns them.
fn write_all<T: Serialize>(
    source: &Source<'_>,
    mut predictions: Vec<T>,
    header: &[&str],
    number: usize,
    rows: Vec<Vec<String>>,
) -> anyhow::Result<Verdict> {
    if predictions.len() == 1
        && source.args.file.is_none()
        && let Some(only) = predictions.pop()
    {
        return write(source, &only, header, number, rows);
    }
    write(source, &predictions, header, number, rows)
}

fn write(
    source: &Source<'_>,
    prediction: &impl Serialize,
    header: &[&str],
    number: usize,
    rows: Vec<Vec<String>>,
) -> anyhow::Result<Verdict> {
    if let Some(path) = &source.args.json {
        write_json(path, prediction)?;
    }
    if !source.args.json.as_deref().is_some_and(is_stdout) {
        let mut out = terminal::stdout();
        if rows.is_empty() {
            writeln!(out, "nothing found")?;
        } else {
            table(&mut out, header, number..number + 1, rows.into_iter())?;
        }
        out.flush()?;
    }
    Ok(Verdict::Pass)
}
