use super::*;

/// The embedded model's tokenizers, changed.
fn changed(tokenizer: impl FnOnce(&mut Json), config: impl FnOnce(&mut Json)) -> TokenizerReport {
    let json = |name: &str| serde_json::from_slice::<Json>(&file(name)).unwrap();
    let (mut a, mut b) = (json(TOKENIZER), json(CONFIG));
    tokenizer(&mut a);
    config(&mut b);
    check(a.to_string().into(), file(VOCABULARY), b.to_string().into())
}

fn file(name: &str) -> Bytes {
    let (_, bytes) = bert_tiny::FILES.iter().find(|(file, _)| *file == name).unwrap();
    Bytes::from_static(bytes)
}

fn check(tokenizer: Bytes, vocabulary: Bytes, config: Bytes) -> TokenizerReport {
    let files = [(TOKENIZER, tokenizer), (VOCABULARY, vocabulary), (CONFIG, config)];
    check_tokenizers(&ModelFiles::from_memory("model", files)).unwrap().unwrap()
}

fn setting(name: &str, value: impl Into<Json>) -> TokenizerReport {
    let report = changed(|_| (), |config| config[name] = value.into());
    let is_named = report.setting.as_ref().is_some_and(|words| words.starts_with(name));
    assert!(report.verdict == Verdict::Fail && is_named, "{name}: {report:?}");
    report
}

#[test]
fn the_embedded_model_has_two_that_agree() {
    let report = changed(|_| (), |_| ());
    assert_eq!((report.verdict, report.differing, report.difference.as_ref()), (Verdict::Pass, 0, None));
    assert!(report.texts > 15 && report.setting.is_none() && report.sentence().is_none(), "{report:?}");
}

#[test]
fn the_setting_that_differs_is_named() {
    let report = setting("do_lower_case", false);
    let difference = report.difference.as_ref().unwrap();
    // The first of the sentences begins with a capital.
    assert_eq!((difference.text.as_str(), difference.position), (SENTENCES[0], 1));
    assert_ne!(difference.tokenizer_json.as_ref().unwrap().id, difference.vocab_txt.as_ref().unwrap().id);
    let sentence = report.sentence().unwrap();
    assert!(
        sentence.contains(
            "do_lower_case is false in tokenizer_config.json, and lowercase true in tokenizer.json"
        ),
        "{sentence}"
    );
    setting("strip_accents", false);
    setting("sep_token", "[CLS]");
    setting("unk_token", "[PAD]");
}

#[test]
fn a_setting_of_the_other_file_is_named_too() {
    let report = changed(
        |tokenizer| tokenizer["normalizer"]["lowercase"] = false.into(),
        |config| {
            config.as_object_mut().unwrap().remove("do_lower_case");
        },
    );
    let words = report.setting.unwrap();
    assert!(words.starts_with("do_lower_case is true where tokenizer_config.json does not say"), "{words}");
}

#[test]
fn special_tokens_that_only_one_knows_are_named() {
    let report = changed(
        |tokenizer| {
            let tokens = tokenizer["added_tokens"].as_array_mut().unwrap();
            tokens.retain(|token| token["content"] != "[MASK]");
        },
        |_| (),
    );
    assert_eq!(report.verdict, Verdict::Fail);
    let text = &report.difference.as_ref().unwrap().text;
    assert!(text.contains("[MASK]"), "{text}");
}

#[test]
fn a_vocabulary_of_another_order_is_told() {
    let text = String::from_utf8(file(VOCABULARY).to_vec()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let [a, b] = ["the", "a"].map(|word| lines.iter().position(|line| *line == word).unwrap());
    lines.swap(a, b);
    let report = check(file(TOKENIZER), lines.join("\n").into(), file(CONFIG));
    let words = report.setting.unwrap();
    assert!(words.contains("in vocab.txt") && words.contains(&a.min(b).to_string()), "{words}");
}

#[test]
fn where_texts_are_cut_is_a_note() {
    let report = changed(
        |tokenizer| {
            tokenizer["truncation"] = serde_json::json!({
                "direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0,
            })
        },
        |_| (),
    );
    assert_eq!(report.verdict, Verdict::Pass);
    assert_eq!(
        report.notes,
        ["tokenizer.json cuts texts to 128 tokens, and model_max_length in tokenizer_config.json is 512"]
    );
}

#[test]
fn only_a_model_with_both_is_checked() {
    let files = ModelFiles::from_memory("model", [(VOCABULARY, file(VOCABULARY))]);
    assert_eq!(check_tokenizers(&files).unwrap(), None);
    let files = [(TOKENIZER, file(TOKENIZER)), (VOCABULARY, "".into())];
    check_tokenizers(&ModelFiles::from_memory("model", files)).unwrap_err();
}
