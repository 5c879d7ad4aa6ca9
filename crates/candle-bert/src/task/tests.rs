use super::*;

fn of(architectures: &[&str]) -> Result<Task, TaskError> {
    let architectures = architectures.iter().map(ToString::to_string).collect();
    Task::of(&BertConfig { architectures, ..BertConfig::default() })
}

#[test]
fn the_class_that_a_checkpoint_was_saved_from_tells_the_task() {
    for (classes, task) in [
        (&[][..], Task::FeatureExtraction),
        (&["BertModel"], Task::FeatureExtraction),
        (&["BertForPreTraining"], Task::FeatureExtraction),
        (&["BertForMaskedLM", "BertForTokenClassification"], Task::MaskedLm),
    ] {
        assert_eq!(of(classes), Ok(task), "{classes:?}");
    }
    for task in Task::ALL {
        assert_eq!(of(&[task.architecture()]), Ok(task));
    }
    let error = of(&["RobertaForMaskedLM"]).unwrap_err().to_string();
    assert!(
        error.starts_with("config.json: architecture 'RobertaForMaskedLM' is not one of a BERT"),
        "{error}"
    );
    assert!(error.contains("BertModel, BertForPreTraining, BertForSequenceClassification"), "{error}");
    assert!(of(&["BertLMHeadModel", "BertModel"]).is_err());
}

#[test]
fn tasks_are_known_by_their_names() {
    for task in Task::ALL {
        assert_eq!(task.to_string().parse(), Ok(task));
    }
    assert_eq!("ner".parse(), Ok(Task::TokenClassification));
    assert_eq!("sequence-classification".parse(), Ok(Task::SequenceClassification));
    let error = "translation".parse::<Task>().unwrap_err().to_string();
    assert_eq!(
        error,
        "task 'translation' is not known; known are feature-extraction, text-classification, token-classification, \
         question-answering, fill-mask, multiple-choice, next-sentence-prediction"
    );
}
