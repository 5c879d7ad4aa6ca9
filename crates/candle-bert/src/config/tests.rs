use architecture::{Activation, ProblemType};

use super::error::ON_GRAPHS;
use super::*;

fn read(json: &str) -> Result<BertConfig, ConfigError> {
    BertConfig::from_json(json.as_bytes())
}

fn message(json: &str) -> String {
    read(json).unwrap_err().to_string()
}

#[test]
fn absent_and_null_fields_are_those_of_bert_base() {
    // Printed by `BertConfig()` of transformers 4.57.6.
    let base = BertConfig {
        vocab_size: 30522,
        hidden_size: 768,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        intermediate_size: 3072,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 512,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        pad_token_id: 0,
        architectures: vec![],
        num_labels: 2,
        id2label: vec![],
        problem_type: None,
        tie_word_embeddings: true,
    };
    assert_eq!(read("{}").unwrap(), base);
    let nulls = r#"{
        "vocab_size": null, "hidden_size": null, "num_hidden_layers": null, "num_attention_heads": null,
        "intermediate_size": null, "hidden_act": null, "max_position_embeddings": null, "type_vocab_size": null,
        "layer_norm_eps": null, "pad_token_id": null, "architectures": null, "model_type": null,
        "position_embedding_type": null, "is_decoder": null, "add_cross_attention": null, "pruned_heads": null,
        "num_labels": null, "id2label": null, "label2id": null, "problem_type": null, "tie_word_embeddings": null
    }"#;
    assert_eq!(read(nulls).unwrap(), base);
}

#[test]
fn every_field_is_read_and_others_are_ignored() {
    let json = r#"{
        "architectures": ["BertForMaskedLM"], "model_type": "bert", "position_embedding_type": "absolute",
        "is_decoder": false, "pruned_heads": {}, "hidden_dropout_prob": 0.1, "surprise": [1, {"a": 2}],
        "vocab_size": 53, "hidden_size": 21, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 37,
        "hidden_act": "gelu_new", "max_position_embeddings": 38, "type_vocab_size": 5, "layer_norm_eps": 1e-05,
        "pad_token_id": 52, "id2label": {"10": "k", "2": "c", "0": "a", "1": "b", "3": "d", "4": "e", "5": "f", "6": "g", "7": "h",
        "8": 8, "9": true}, "problem_type": "multi_label_classification", "tie_word_embeddings": false, "num_labels": 3
    }"#;
    let expected = BertConfig {
        vocab_size: 53,
        hidden_size: 21,
        num_hidden_layers: 4,
        num_attention_heads: 3,
        intermediate_size: 37,
        hidden_act: Activation::GeluTanh,
        max_position_embeddings: 38,
        type_vocab_size: 5,
        layer_norm_eps: 1e-5,
        pad_token_id: 52,
        architectures: vec!["BertForMaskedLM".into()],
        // By number, not as text; transformers counts the names, whatever num_labels says.
        num_labels: 11,
        id2label: ["a", "b", "c", "d", "e", "f", "g", "h", "8", "true", "k"].map(String::from).into(),
        problem_type: Some(ProblemType::MultiLabel),
        tie_word_embeddings: false,
    };
    let config = read(json).unwrap();
    assert_eq!(config, expected);
    assert_eq!(config.head_size(), 7);
}

#[test]
fn what_is_not_a_config_is_refused() {
    assert!(message("{").starts_with("config.json is not JSON: "));
    assert!(message("\u{0}").starts_with("config.json is not JSON: "));
    assert_eq!(
        message("[768]"),
        "config.json must be a JSON object, got [768]; download it again, or save the model again"
    );
}

#[test]
fn numbers_that_only_python_knows_do_not_matter_where_nothing_reads_them() {
    let config = read("\u{feff}{\"hidden_dropout_prob\": NaN, \"limits\": [-Infinity, Infinity]}").unwrap();
    assert_eq!(config, read("{}").unwrap());
}

#[test]
fn wrong_types_are_named() {
    for (json, expected) in [
        (r#"{"hidden_size": "768"}"#, r#"hidden_size must be a whole number, not negative, got "768""#),
        (r#"{"vocab_size": -1}"#, "vocab_size must be a whole number, not negative, got -1"),
        (r#"{"vocab_size": 1e99}"#, "vocab_size must be a whole number, not negative, got 1e+99"),
        (r#"{"num_hidden_layers": 2.5}"#, "num_hidden_layers must be a whole number, not negative, got 2.5"),
        (r#"{"layer_norm_eps": "1e-12"}"#, r#"layer_norm_eps must be a number, got "1e-12""#),
        (r#"{"layer_norm_eps": NaN}"#, r#"layer_norm_eps must be a number, got "NaN""#),
        (r#"{"layer_norm_eps": Infinity}"#, r#"layer_norm_eps must be a number, got "Infinity""#),
        (r#"{"hidden_act": {"a": 1}}"#, r#"hidden_act must be a string, got {"a":1}"#),
        (r#"{"architectures": "BertModel"}"#, r#"architectures must be a list of names, got "BertModel""#),
        (r#"{"architectures": [1]}"#, "architectures must be a list of names, got [1]"),
        (r#"{"is_decoder": 1}"#, "is_decoder must be true or false, got 1"),
        (r#"{"model_type": 7}"#, "model_type must be a string, got 7"),
        (r#"{"pruned_heads": 7}"#, "pruned_heads must be an object, got 7"),
    ] {
        assert_eq!(message(json), format!("config.json: {expected}"));
    }
    let long = format!(r#"{{"hidden_act": [{}]}}"#, "\"é\",".repeat(500) + "1");
    assert!(message(&long).chars().count() < 120, "{}", message(&long));
}

#[test]
fn sizes_of_zero_are_refused() {
    for field in [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    ] {
        assert_eq!(
            message(&format!(r#"{{"{field}": 0}}"#)),
            format!("config.json: {field} is 0, but must be 1 or more")
        );
    }
}

#[test]
fn contradictions_are_refused_with_their_values() {
    for (json, expected) in [
        (
            r#"{"hidden_size": 100, "num_attention_heads": 12}"#,
            "hidden_size 100 is not divisible by num_attention_heads 12; each head takes an equal part, so one of the two is wrong",
        ),
        (r#"{"vocab_size": 5, "pad_token_id": 5}"#, "pad_token_id 5 is outside the vocabulary of 5 tokens"),
        (
            r#"{"num_hidden_layers": 18446744073709551615}"#,
            "num_hidden_layers is 18446744073709551615, more than the 1000 that an encoder may have here",
        ),
        (
            r#"{"layer_norm_eps": -1e-12}"#,
            "layer_norm_eps is -0.000000000001, but must be finite and not negative (such as 1e-12)",
        ),
    ] {
        assert_eq!(message(json), format!("config.json: {expected}"));
    }
    for eps in [f64::NAN, f64::INFINITY] {
        let config = BertConfig { layer_norm_eps: eps, ..BertConfig::default() };
        assert!(matches!(config.validate(), Err(ConfigError::LayerNormEps { .. })));
    }
    assert!(read(r#"{"layer_norm_eps": 0}"#).is_ok());
}

#[test]
fn models_that_compute_something_else_are_refused() {
    for (json, expected) in [
        (
            r#"{"position_embedding_type": "relative_key"}"#,
            "position_embedding_type is 'relative_key'; only 'absolute' is run here",
        ),
        (
            r#"{"is_decoder": true}"#,
            "is_decoder is true; only encoders are run here, a decoder attends to earlier tokens alone",
        ),
        (
            r#"{"add_cross_attention": true}"#,
            "add_cross_attention is true; only encoders are run here, a decoder attends to earlier tokens alone",
        ),
        (
            r#"{"pruned_heads": {"1": [0, 2]}}"#,
            "pruned_heads names heads that were removed; only models with all their heads are run here",
        ),
    ] {
        assert_eq!(message(json), format!("config.json: {expected}; {ON_GRAPHS}"));
    }
    assert_eq!(
        message(r#"{"model_type": "roberta"}"#),
        "config.json: model_type is 'roberta', and that of BERT is 'bert': read it as what it is"
    );
    assert_eq!(
        message(r#"{"hidden_act": "gleu"}"#),
        "config.json: hidden_act 'gleu' is not known; known are gelu, gelu_python, gelu_new, \
         gelu_pytorch_tanh, gelu_python_tanh, gelu_accurate, gelu_fast, quick_gelu, relu, silu, swish, tanh, sigmoid"
    );
}

#[test]
fn labels_have_names() {
    let named = read(r#"{"id2label": {"1": "yes", "0": "no"}}"#).unwrap();
    assert_eq!(
        (named.label(0), named.label(1), named.label(2)),
        ("no".into(), "yes".into(), "LABEL_2".into())
    );
    assert_eq!((named.label_id("yes"), named.label_id("LABEL_1")), (Some(1), None));
    let counted = read(r#"{"num_labels": 5, "id2label": {}}"#).unwrap();
    assert_eq!((counted.num_labels, counted.label(4)), (5, "LABEL_4".into()));
    assert_eq!((counted.label_id("LABEL_4"), counted.label_id("LABEL_5")), (Some(4), None));
}

#[test]
fn labels_that_make_no_sense_are_named() {
    assert_eq!(
        message(r#"{"id2label": {"0": "a", "2": "b"}}"#),
        "config.json: id2label must name the labels 0 to 1, but has none for 1"
    );
    for wrong in [r#"["a", "b"]"#, r#"{"a": "b"}"#, r#"{"-1": "a"}"#, r#"{"0": ["a"]}"#] {
        let message = message(&format!(r#"{{"id2label": {wrong}}}"#));
        assert!(message.starts_with("config.json: id2label must be an object of names by id"), "{message}");
    }
    assert_eq!(
        message(r#"{"problem_type": "ranking"}"#),
        "config.json: problem_type 'ranking' is not known; known are regression, single_label_classification, multi_label_classification"
    );
    let config = BertConfig { num_labels: 3, id2label: vec!["a".into()], ..BertConfig::default() };
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "config.json: id2label names 1 labels, but num_labels is 3; they must agree"
    );
}

#[test]
fn the_model_type_tells_the_family() {
    for (model_type, name, positions) in [
        ("bert", "BERT", 512),
        ("electra", "ELECTRA", 512),
        ("distilbert", "DistilBERT", 512),
        // The first two rows are never a token's.
        ("roberta", "RoBERTa", 510),
        ("xlm-roberta", "RoBERTa", 510),
        ("camembert", "RoBERTa", 510),
    ] {
        let family = family(format!(r#"{{"model_type": "{model_type}"}}"#).as_bytes()).unwrap();
        assert_eq!((family.name(), family.limits().positions), (name, positions), "{model_type}");
    }
    assert_eq!(family(b"{}").unwrap().name(), "BERT");
    let other =
        family(br#"{"model_type": "t5", "architectures": ["T5ForTokenClassification"], "num_labels": 3}"#);
    let other = other.unwrap();
    assert_eq!((other.task(), other.num_labels()), (Ok(Task::TokenClassification), 3));
    let error = other.program(Task::FeatureExtraction, &|_| true).unwrap_err().to_string();
    for expected in ["'t5'", "bert, electra, roberta", "distilbert", "parity run GRAPH --expected FILE"] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_family_lacks_is_named() {
    let config = DistilBertConfig::default();
    let error = config.program(Task::NextSentencePrediction, &|_| true).unwrap_err().to_string();
    assert!(error.starts_with("DistilBERT has no head for next-sentence-prediction"), "{error}");
    let json = br#"{"model_type": "electra", "summary_type": "cls_index"}"#;
    let error = family(json).unwrap_err().to_string();
    assert!(error.contains("summary_type is 'cls_index'; only 'first' is run here"), "{error}");
    let json = br#"{"model_type": "roberta", "max_position_embeddings": 2}"#;
    let error = family(json).unwrap_err().to_string();
    assert!(error.contains("max_position_embeddings is 2, and positions begin behind"), "{error}");
}

/// The config of a family by its `model_type`, with these fields beside it.
fn family_of(model_type: &str, fields: &str) -> Result<Arc<dyn Family>, ConfigError> {
    family(format!(r#"{{"model_type": "{model_type}"{fields}}}"#).as_bytes())
}

#[test]
fn turned_models_are_checked_by_what_turns_them() {
    for (model_type, fields, expected) in [
        ("modernbert", r#", "num_attention_heads": 256"#, "3 features of each head would be turned"),
        ("modernbert", r#", "global_rope_theta": 0"#, "global_rope_theta is 0, but must be a finite"),
        ("modernbert", r#", "local_rope_theta": -1"#, "local_rope_theta is -1, but must be a finite"),
        ("modernbert", r#", "classifier_pooling": "max""#, "'max'; only 'cls' or 'mean' is run here"),
        ("modernbert", r#", "global_attn_every_n_layers": 0"#, "global_attn_every_n_layers is 0"),
        (
            "nomic_bert",
            r#", "rotary_emb_fraction": 1.5"#,
            "rotary_emb_fraction is 1.5, but must be from 0 to 1",
        ),
        ("nomic_bert", r#", "rotary_emb_fraction": 0.3"#, "19.2 features of each head would be turned"),
        ("nomic_bert", r#", "n_inner": 0"#, "n_inner is 0"),
        ("nomic_bert", r#", "prenorm": true"#, "prenorm is 'true'; only 'false' is run here"),
        ("nomic_bert", r#", "moe_every_n_layers": 2"#, "moe_every_n_layers is '2'"),
        ("nomic_bert", r#", "rotary_emb_scale_base": 512"#, "rotary_emb_scale_base is '512'; only 'null'"),
        ("nomic_bert", r#", "activation_function": "mish""#, "activation_function is 'mish'"),
        (
            "nomic_bert",
            r#", "n_positions": 8192, "rotary_scaling_factor": 2"#,
            "rotary_scaling_factor is '2'; only 'null'",
        ),
        ("new", r#", "unpad_inputs": true"#, "unpad_inputs is 'true'"),
        ("new", r#", "layer_norm_type": "rms_norm""#, "layer_norm_type is 'rms_norm'"),
        ("new", r#", "position_embedding_type": "relative_key""#, "only 'rope' or 'absolute' is run here"),
        ("new", r#", "rope_scaling": {"type": "yarn", "factor": 2}"#, "type is 'yarn'; only 'ntk'"),
        ("new", r#", "rope_scaling": {"type": "ntk"}"#, "rope_scaling must be an object such as"),
        (
            "new",
            r#", "rope_scaling": {"type": "ntk", "factor": 0}"#,
            "rope_scaling is 0, but must be a finite",
        ),
    ] {
        let error = family_of(model_type, fields).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{model_type}{fields}: {error}");
    }
}

/// The base of ModernBERT's windows is another where nothing is said, and that of the others where
/// it is `null`.
#[test]
fn a_base_of_null_is_none_of_its_own() {
    let base = |fields: &str| {
        ModernBertConfig::from_json(format!(r#"{{"vocab_size": 50368{fields}}}"#).as_bytes()).unwrap()
    };
    assert_eq!(base("").local_rope_theta, Some(10_000.0));
    assert_eq!(base(r#", "local_rope_theta": null"#).local_rope_theta, None);
    assert_eq!(base(r#", "local_rope_theta": 500"#).local_rope_theta, Some(500.0));
    // Texts that are no longer than those it was trained on need no other angles.
    let short = r#", "n_positions": 2048, "rotary_scaling_factor": 2"#;
    assert!(family_of("nomic_bert", short).is_ok());
    assert_eq!(family_of("new", "").unwrap().limits().positions, 2048);
}
