//! What is asked, from the command line or a file.

use anyhow::{bail, ensure};
use architecture::Task;
use serde::Deserialize;

use super::super::lines;
use super::{Asked, PredictArgs};

/// What an object of a file must be.
const FORM: &str =
    "{\"text\": …}, with \"pair\", \"context\", \"choices\" or \"documents\" as the task needs them";

/// A text, and what belongs to it. The other names are those that transformers has.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Item {
    #[serde(alias = "question", alias = "query")]
    pub text: String,
    #[serde(alias = "text_pair")]
    pub pair: Option<String>,
    pub context: Option<String>,
    pub choices: Vec<String>,
    pub documents: Vec<String>,
}

impl Item {
    fn of(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    /// With what the command line says for all of them.
    fn or(mut self, args: &PredictArgs, asked: Asked) -> Self {
        self.context = self.context.or_else(|| args.context.clone());
        if self.choices.is_empty() {
            self.choices.clone_from(&args.choice);
        }
        match asked {
            Asked::Ranking if self.documents.is_empty() => self.documents.clone_from(&args.pair),
            Asked::Ranking => {}
            Asked::Task(_) => self.pair = self.pair.or_else(|| args.pair.first().cloned()),
        }
        self
    }

    /// An error, unless it has what the task needs, and nothing that it would not look at.
    fn check(&self, asked: Asked) -> anyhow::Result<()> {
        let is = |task| asked == Asked::Task(task);
        let (ranks, name) = (asked == Asked::Ranking, asked.name());
        let answers = is(Task::QuestionAnswering);
        ensure!(!answers || self.context.is_some(), "{name} needs a --context, or a \"context\" in the file");
        let chooses = is(Task::MultipleChoice);
        let has_choices = !self.choices.is_empty();
        ensure!(!chooses || has_choices, "{name} needs a --choice, and another, or \"choices\" in the file");
        let has_documents = !self.documents.is_empty();
        ensure!(
            !ranks || has_documents,
            "{name} needs the documents, each as a --pair, or as \"documents\" in the file"
        );
        for (field, is_given, is_taken) in [
            ("pair", self.pair.is_some(), is(Task::SequenceClassification)),
            ("context", self.context.is_some(), answers),
            ("choices", has_choices, chooses),
            ("documents", has_documents, ranks),
        ] {
            ensure!(!is_given || is_taken, "\"{field}\" means nothing to {name}: leave it out");
        }
        Ok(())
    }
}

/// All items, in their order.
pub fn items(args: &PredictArgs, asked: Asked) -> anyhow::Result<Vec<Item>> {
    let complete = |item: Item| {
        let item = item.or(args, asked);
        item.check(asked).map(|()| item)
    };
    let Some(path) = &args.file else {
        return args.text.iter().map(|text| complete(Item::of(text.clone()))).collect();
    };
    let mut items = Vec::new();
    for (number, item) in lines::read(path, Item::of, FORM)?.enumerate() {
        match complete(item?) {
            Ok(item) => items.push(item),
            Err(error) => bail!("item {} of {}: {error}", number + 1, engine::shown_path(path)),
        }
    }
    Ok(items)
}
