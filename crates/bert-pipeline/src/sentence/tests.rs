use bytes::Bytes;

use super::*;

fn files(files: &[(&'static str, &'static str)]) -> Result<(Pooling, bool), PipelineError> {
    let files = files.iter().map(|&(name, content)| (name, Bytes::from_static(content.as_bytes())));
    Pooling::from_files(&ModelFiles::from_memory("m", files))
}

const TRANSFORMER: &str =
    r#"{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"}"#;

/// modules.json with a Transformer and these.
fn modules(others: &[&str]) -> &'static str {
    let modules: Vec<String> = others
        .iter()
        .map(|class| format!(r#",{{"path":"1_{class}","type":"sentence_transformers.models.{class}"}}"#))
        .collect();
    format!("[{TRANSFORMER}{}]", modules.concat()).leak()
}

#[test]
fn sentence_transformers_files_tell_the_pooling() {
    const CLS: &str =
        r#"{"word_embedding_dimension":8,"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#;
    assert_eq!(files(&[]).unwrap(), (Pooling::Mean, false));
    assert_eq!(files(&[(POOLING_CONFIG, CLS)]).unwrap(), (Pooling::Cls, false));
    assert_eq!(
        files(&[(MODULES, modules(&["Pooling"])), (POOLING_CONFIG, CLS)]).unwrap(),
        (Pooling::Cls, false)
    );
    let normalised = modules(&["Pooling", "Normalize"]);
    assert_eq!(files(&[(MODULES, normalised), (POOLING_CONFIG, CLS)]).unwrap(), (Pooling::Cls, true));
    assert_eq!(files(&[(MODULES, normalised)]).unwrap(), (Pooling::Mean, true));
    for (config, pooling) in [
        ("{}", Pooling::Mean),
        (r#"{"pooling_mode":"mean"}"#, Pooling::Mean),
        (r#"{"pooling_mode":"cls"}"#, Pooling::Cls),
        (r#"{"pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":false}"#, Pooling::Mean),
        (r#"{"pooling_mode_max_tokens":true}"#, Pooling::Max),
        (r#"{"pooling_mode":["lasttoken"]}"#, Pooling::LastToken),
        (r#"{"pooling_mode_weightedmean_tokens":true}"#, Pooling::WeightedMean),
        (r#"{"pooling_mode_mean_tokens":false}"#, Pooling::Mean),
        (r#"{"pooling_mode":"cls","pooling_mode_mean_tokens":true}"#, Pooling::Cls),
    ] {
        assert_eq!(files(&[(POOLING_CONFIG, config)]).unwrap(), (pooling, false), "{config}");
    }
}

#[test]
fn other_poolings_are_refused_by_name() {
    for (config, name) in [
        (r#"{"pooling_mode_mean_tokens":false,"pooling_mode_median":true}"#, "pooling by median"),
        (r#"{"pooling_mode":"median"}"#, "pooling by median"),
        (r#"{"pooling_mode":[]}"#, "no pooling at all"),
    ] {
        let error = files(&[(POOLING_CONFIG, config)]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("1_Pooling/config.json asks for {name}")), "{error}");
    }
    let error = files(&[(MODULES, modules(&["Pooling", "WordWeights"]))]).unwrap_err().to_string();
    assert!(error.contains("a module of type 'sentence_transformers.models.WordWeights'"), "{error}");
    let error = files(&[(MODULES, modules(&["Pooling", "Dense"]))]).unwrap_err().to_string();
    assert!(error.contains("1_Dense/config.json"), "{error}");
    for malformed in ["{}", "[1]", "[{}]", r#"[{"type":"Transformer","path":0}]"#] {
        let error = files(&[(MODULES, malformed)]).unwrap_err().to_string();
        assert!(error.starts_with("m/modules.json is not a list of modules: "), "{error}");
    }
    assert!(matches!(
        files(&[(POOLING_CONFIG, r#"{"pooling_mode_cls_token":1}"#)]),
        Err(PipelineError::Setting { .. })
    ));
    // A path that leads out of the model's folder is not followed.
    for path in ["../x", "/x", "a/../../x"] {
        let outside =
            format!(r#"[{TRANSFORMER},{{"path":"{path}","type":"sentence_transformers.models.Pooling"}}]"#);
        assert!(matches!(files(&[(MODULES, outside.leak())]), Err(PipelineError::Checkpoint(_))), "{path}");
    }
}
