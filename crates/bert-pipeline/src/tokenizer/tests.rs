use std::fs;

use candle_core::Tensor;
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// Small, but with something for each rule: accents, CJK, casing, continuations, special tokens as text.
const TOKENS: [&str; 49] = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "un",
    "##aff",
    "##able",
    "cafe",
    "café",
    "##s",
    "a",
    "b",
    "##b",
    "中",
    "文",
    "!",
    "?",
    ".",
    ",",
    "'",
    "-",
    "$",
    "1",
    "##2",
    "İ",
    "i",
    "##\u{307}",
    "ß",
    "ss",
    "e",
    "straße",
    "STRASSE",
    "Cafe",
    "x",
    "##x",
    "[",
    "mask",
    "]",
    "😀",
    "é",
    "resume",
    "ﬁ",
    "fi",
    "の",
    "ñ",
    "n",
    "½",
];

/// Texts and their ids, from BertTokenizerFast of transformers 4.57.6 on `TOKENS`; the slow BertTokenizer gives the same.
const EXPECTED: [(&str, &[i64]); 24] = [
    ("", &[2, 3]),
    ("   ", &[2, 3]),
    ("the unaffable cafes", &[2, 5, 6, 7, 8, 9, 11, 3]),
    ("Café CAFÉ Cafe\u{301}", &[2, 9, 9, 9, 3]),
    ("中文the文", &[2, 15, 16, 5, 16, 3]),
    ("a\0b\u{fffd}b\u{200b}b", &[2, 12, 14, 14, 14, 3]),
    ("a\tb\nb\r\nb\u{a0}b\u{3000}b\u{2028}b", &[2, 12, 13, 13, 13, 13, 13, 13, 3]),
    ("😀the😀 👍🏽", &[2, 1, 1, 3]),
    ("un!aff?$1.2-12,'", &[2, 6, 17, 1, 18, 23, 24, 19, 1, 22, 24, 25, 20, 21, 3]),
    ("İstanbul i\u{307}", &[2, 1, 27, 3]),
    ("straße STRASSE ß", &[2, 32, 1, 29, 3]),
    ("[MASK] the [mask] [SEP]a", &[2, 4, 5, 37, 38, 39, 3, 12, 3]),
    ("a[MASK]b", &[2, 12, 4, 13, 3]),
    ("résumé ﬁ ½ñ", &[2, 42, 43, 1, 3]),
    ("の中", &[2, 45, 15, 3]),
    ("\u{301}a", &[2, 12, 3]),
    ("\u{feff}the", &[2, 5, 3]),
    ("aff ##aff #", &[2, 1, 1, 1, 1, 1, 3]),
    ("the\u{ad}cafe the\u{2019}s «a»", &[2, 1, 5, 1, 1, 1, 12, 1, 3]),
    ("\u{20000}a\u{4dbf}", &[2, 1, 12, 1, 3]),
    ("\u{d7ff}a\u{1100}", &[2, 1, 3]),
    ("e\u{323}\u{301}", &[2, 31, 3]),
    ("\u{345}a", &[2, 12, 3]),
    ("a\u{85}b", &[2, 12, 14, 3]),
];

/// Those of them that differ with `do_lower_case` false, from the same source.
const EXPECTED_CASED: [(&str, &[i64]); 7] = [
    ("Café CAFÉ Cafe\u{301}", &[2, 1, 1, 1, 3]),
    ("İstanbul i\u{307}", &[2, 1, 27, 28, 3]),
    ("straße STRASSE ß", &[2, 32, 33, 29, 3]),
    ("résumé ﬁ ½ñ", &[2, 1, 43, 1, 3]),
    ("\u{301}a", &[2, 1, 3]),
    ("e\u{323}\u{301}", &[2, 1, 3]),
    ("\u{345}a", &[2, 1, 3]),
];

fn vocabulary() -> String {
    TOKENS.join("\n") + "\n"
}

/// A tokenizer.json as transformers writes it for `TOKENS`, with a padding and truncation of its own.
fn fast() -> Value {
    let special = |id: usize| {
        json!({
            "id": id, "content": TOKENS[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let vocabulary: serde_json::Map<String, Value> =
        TOKENS.iter().enumerate().map(|(id, token)| (token.to_string(), id.into())).collect();
    let mut json: Value = serde_json::from_str(
        r###"{
          "version": "1.0",
          "truncation": {"max_length": 6, "strategy": "LongestFirst", "stride": 0},
          "padding": {"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": null,
                      "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]"},
          "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                         "strip_accents": null, "lowercase": true},
          "pre_tokenizer": {"type": "BertPreTokenizer"},
          "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}
          },
          "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
          "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100}
        }"###,
    )
    .unwrap();
    json["added_tokens"] = Value::from_iter((0..5).map(special));
    json["model"]["vocab"] = vocabulary.into();
    json
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn tokenizer_limited(files: &[(&str, &str)], limit: Option<usize>) -> Result<Tokenizer, PipelineError> {
    let folder = folder(files);
    Tokenizer::from_files(&ModelFiles::from_folder(folder.path()).unwrap(), limit)
}

fn tokenizer(files: &[(&str, &str)]) -> Result<Tokenizer, PipelineError> {
    tokenizer_limited(files, None)
}

fn error(files: &[(&str, &str)]) -> String {
    tokenizer(files).unwrap_err().to_string()
}

fn from_json(json: Value) -> Result<Tokenizer, PipelineError> {
    tokenizer(&[("tokenizer.json", &json.to_string())])
}

fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
    tensor.to_vec2().unwrap()
}

fn ids<'a>(tokenizer: &Tokenizer, text: impl Into<Text<'a>>) -> Vec<i64> {
    rows(&tokenizer.encode(&[text.into()]).unwrap().input_ids).remove(0)
}

#[test]
fn both_files_give_the_ids_of_transformers() {
    let long = "x".repeat(100);
    let longer = "x".repeat(101);
    let slow = tokenizer(&[("vocab.txt", &vocabulary())]).unwrap();
    let fast = from_json(fast()).unwrap();
    for tokenizer in [&slow, &fast] {
        for (text, expected) in EXPECTED {
            assert_eq!(ids(tokenizer, text), expected, "{text:?}");
        }
        // 100 characters are a word, 101 are unknown as a whole.
        assert_eq!(ids(tokenizer, &long), [vec![2, 35], vec![36; 99], vec![3]].concat());
        assert_eq!(ids(tokenizer, &longer), [2, 1, 3]);
    }
}

#[test]
fn of_files_that_contradict_each_other_transformers_choice_is_taken() {
    // What transformers 4.57 makes of these files: which normaliser AutoTokenizer's result has.
    let of = |json: &Value, config: &str, model: &str| {
        let files = [
            ("vocab.txt", &*vocabulary()),
            ("tokenizer.json", &json.to_string()),
            ("tokenizer_config.json", config),
            ("config.json", model),
        ];
        ids(&tokenizer(&files).unwrap(), "straße STRASSE ß")
    };
    let (lowered, cased) = ([2, 32, 1, 29, 3], [2, 32, 33, 29, 3]);
    let mut json = fast();
    // tokenizer.json lowers, and the config says otherwise.
    for class in ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "MPNetTokenizerFast"] {
        let config = json!({"tokenizer_class": class, "do_lower_case": false}).to_string();
        assert_eq!(of(&json, &config, "{}"), cased, "{class}");
    }
    assert_eq!(of(&json, r#"{"do_lower_case": false}"#, "{}"), cased);
    let other = r#"{"tokenizer_class": "XLMRobertaTokenizer", "do_lower_case": false}"#;
    assert_eq!(of(&json, other, "{}"), lowered);
    let config = r#"{"do_lower_case": false}"#;
    assert_eq!(of(&json, config, r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#), lowered);
    // Where the config says nothing, BERT's default wins.
    json["normalizer"]["lowercase"] = false.into();
    assert_eq!(of(&json, "{}", "{}"), lowered);
    assert_eq!(of(&json, r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#, "{}"), cased);
    // A sequence of normalisers is left as it is.
    json["normalizer"] = json!({"type": "Sequence", "normalizers": [json["normalizer"]]});
    assert_eq!(of(&json, r#"{"do_lower_case": true}"#, "{}"), cased);
}

#[test]
fn tokens_of_the_config_are_added_to_tokenizer_json() {
    let token = json!({"content": "<new>", "special": true, "lstrip": false, "rstrip": false,
        "normalized": false, "single_word": false});
    let of = |id: usize| {
        let config =
            json!({"added_tokens_decoder": {id.to_string(): token}, "sep_token": "river"}).to_string();
        tokenizer(&[("tokenizer.json", &fast().to_string()), ("tokenizer_config.json", &config)])
    };
    let new = fast()["model"]["vocab"].as_object().unwrap().len();
    let tokenizer = of(new).unwrap();
    assert_eq!(tokenizer.token_to_id("<new>"), Some(new as u32));
    assert_eq!(ids(&tokenizer, "a<new>a"), [2, 12, new as i64, 12, 3]);
    let error = of(new + 5).unwrap_err().to_string();
    assert!(
        error.contains(&format!("it gives '<new>' the id {}, but the vocabulary makes that {new}", new + 5))
    );
}

#[test]
fn texts_are_cut_on_the_side_that_the_config_says() {
    let of = |config: &str| {
        let files = [("tokenizer.json", &*fast().to_string()), ("tokenizer_config.json", config)];
        ids(&tokenizer(&files).unwrap().with_truncation(Some(3)).unwrap(), "a straße")
    };
    assert_eq!(of("{}"), [2, 12, 3]);
    assert_eq!(of(r#"{"truncation_side": "left"}"#), [2, 32, 3]);
}

#[test]
fn the_config_sets_case_accents_and_chinese() {
    let with =
        |config: &str| tokenizer(&[("vocab.txt", &vocabulary()), ("tokenizer_config.json", config)]).unwrap();
    let cased = with(r#"{"do_lower_case": false}"#);
    for (text, lower) in EXPECTED {
        let expected = EXPECTED_CASED.iter().find(|(other, _)| *other == text).map_or(lower, |(_, ids)| ids);
        assert_eq!(ids(&cased, text), expected, "{text:?}");
    }
    // Accents stay if they are told to, and go if they are told to; `null` follows the case.
    assert_eq!(ids(&with(r#"{"strip_accents": false}"#), "Café"), [2, 10, 3]);
    assert_eq!(ids(&with(r#"{"do_lower_case": false, "strip_accents": true}"#), "Café"), [2, 34, 3]);
    assert_eq!(ids(&with(r#"{"strip_accents": null, "do_lower_case": null}"#), "Café"), [2, 9, 3]);
    // Unsplit, the word is not in the vocabulary.
    assert_eq!(ids(&with(r#"{"tokenize_chinese_chars": false}"#), "中文"), [2, 1, 3]);
}

#[test]
fn special_tokens_may_have_other_names() {
    let vocabulary = "<s>\n</s>\n<pad>\n<unk>\na\n";
    let config = r#"{"cls_token": {"content": "<s>", "lstrip": false}, "sep_token": "</s>", "pad_token": "<pad>",
        "unk_token": "<unk>", "tokenizer_class": "BertTokenizerFast"}"#;
    let tokenizer = tokenizer(&[("vocab.txt", vocabulary), ("tokenizer_config.json", config)]).unwrap();
    let encoded = tokenizer.encode(&["a b".into(), "a".into()]).unwrap();
    assert_eq!(rows(&encoded.input_ids), [[0, 4, 3, 1], [0, 4, 1, 2]]);
}

#[test]
fn configured_tokens_are_added_under_their_ids() {
    let config = |id: u32| {
        format!(
            r#"{{"added_tokens_decoder": {{
                "{id}": {{"content": "<new>", "special": false}},
                "4": {{"content": "[MASK]", "lstrip": true, "special": true}}
            }}}}"#
        )
    };
    let vocabulary = vocabulary();
    let next = TOKENS.len() as u32;
    let with = |config: &str| tokenizer(&[("vocab.txt", &vocabulary), ("tokenizer_config.json", config)]);
    let tokenizer = with(&config(next)).unwrap();
    assert_eq!(ids(&tokenizer, "a<new>b [MASK]"), [2, 12, i64::from(next), 13, 4, 3]);
    assert_eq!(tokenizer.token_to_id("<new>"), Some(next));
    assert_eq!(tokenizer.id_to_token(next).as_deref(), Some("<new>"));

    let error = with(&config(next + 1)).unwrap_err().to_string();
    assert!(
        error.contains(&format!("'<new>' the id {}, but the vocabulary makes that {next}", next + 1)),
        "{error}"
    );
    for wrong in ["[]", r#"{"x": {"content": "a"}}"#, r#"{"5": "a"}"#, r#"{"5": {}}"#] {
        let error = with(&format!(r#"{{"added_tokens_decoder": {wrong}}}"#)).unwrap_err().to_string();
        assert!(error.starts_with("'added_tokens_decoder' in tokenizer_config.json must be"), "{error}");
    }
}

#[test]
fn a_batch_is_padded_to_its_longest_text() {
    // Not to the 20 of tokenizer.json, not on the left, and not with its pad_id.
    let tokenizer = from_json(fast()).unwrap();
    let encoded = tokenizer.encode(&["the".into(), ("a b", "cafe").into(), "".into()]).unwrap();
    assert_eq!(rows(&encoded.input_ids), [[2, 5, 3, 0, 0, 0], [2, 12, 13, 3, 9, 3], [2, 3, 0, 0, 0, 0]]);
    assert_eq!(rows(&encoded.attention_mask), [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]);
    assert_eq!(rows(&encoded.token_type_ids), [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]);

    let values = encoded.to_named_values();
    assert_eq!(values.names().collect::<Vec<_>>(), ["input_ids", "attention_mask", "token_type_ids"]);
    let tensors = [&encoded.input_ids, &encoded.attention_mask, &encoded.token_type_ids];
    for ((_, value), tensor) in values.iter().zip(tensors) {
        assert_eq!(*value, engine::Value::from_tensor(tensor).unwrap());
    }

    assert_eq!(encoded.tokens(1).unwrap(), ["[CLS]", "a", "b", "[SEP]", "cafe", "[SEP]"]);
    assert_eq!(encoded.tokens(2).unwrap(), ["[CLS]", "[SEP]"]);
    assert!(encoded.tokens(3).is_none() && encoded.offsets(3).is_none());
    // Offsets are bytes, each in its own text.
    let encoded = tokenizer.encode(&[("é b", "cafes").into()]).unwrap();
    assert_eq!(encoded.offsets(0).unwrap(), [(0, 0), (0, 2), (3, 4), (0, 0), (0, 4), (4, 5), (0, 0)]);
}

#[test]
fn no_texts_are_an_error() {
    let tokenizer = from_json(fast()).unwrap();
    assert!(matches!(tokenizer.encode(&[]), Err(PipelineError::NoTexts)));
}

#[test]
fn a_text_beyond_the_model_is_an_error_and_not_cut() {
    let tokenizer = tokenizer_limited(&[("tokenizer.json", &fast().to_string())], Some(8)).unwrap();
    assert_eq!((tokenizer.max_positions(), tokenizer.recommended_max_length()), (Some(8), Some(6)));
    // Beyond the 6 to which the file would cut, within the 8 of the model.
    assert_eq!(ids(&tokenizer, "a b a b a b").len(), 8);
    let error = tokenizer.encode(&["a".into(), "a b a b a b a".into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "text number 2 has 9 tokens, and the model takes at most 8: shorten it, or have the tokenizer truncate"
    );
}

#[test]
fn truncation_cuts_when_it_is_asked_for() {
    let limited = tokenizer_limited(&[("vocab.txt", &vocabulary())], Some(8)).unwrap();
    assert_eq!(limited.recommended_max_length(), None);
    let cut = limited.clone().with_truncation(Some(4)).unwrap();
    assert_eq!(ids(&cut, "the a b cafe"), [2, 5, 12, 3]);
    assert_eq!(ids(&cut, "the"), [2, 5, 3]);
    // Of a pair the longer loses first; as BertTokenizerFast does, see EXPECTED.
    let cut = limited.clone().with_truncation(Some(8)).unwrap();
    let encoded = cut.encode(&[("the cafe", "unaffable a b b b").into()]).unwrap();
    assert_eq!(rows(&encoded.input_ids), [[2, 5, 9, 3, 6, 7, 8, 3]]);
    assert_eq!(rows(&encoded.token_type_ids), [[0, 0, 0, 0, 1, 1, 1, 1]]);
    // Off again.
    let whole = cut.with_truncation(None).unwrap();
    assert!(matches!(whole.encode(&["a ".repeat(9).as_str().into()]), Err(PipelineError::TooLong { .. })));
}

#[test]
fn truncation_that_cannot_be_is_refused() {
    let limited = tokenizer_limited(&[("vocab.txt", &vocabulary())], Some(8)).unwrap();
    let message = |length| limited.clone().with_truncation(Some(length)).unwrap_err().to_string();
    assert_eq!(message(9), "cannot truncate to 9 tokens: the model takes at most 8");
    assert_eq!(message(1), "cannot truncate to 1 tokens: 2 of them are the special tokens of a text");
    assert!(message(0).contains("special tokens"));
    // Room for a text's special tokens, but not for a pair's.
    let two = limited.clone().with_truncation(Some(2)).unwrap();
    assert_eq!(ids(&two, "the a"), [2, 3]);
    let error = two.encode(&[("the", "a").into()]).unwrap_err().to_string();
    assert_eq!(error, "cannot truncate to 2 tokens: 3 of them are the special tokens of a pair");
    assert_eq!(ids(&two.with_truncation(Some(3)).unwrap(), ("the", "a")), [2, 3, 3]);
}

#[test]
fn a_vocabulary_is_one_token_a_line() {
    let windows = vocabulary().replace('\n', "\r\n") + "\r\n\r\n";
    assert_eq!(ids(&tokenizer(&[("vocab.txt", &windows)]).unwrap(), "cafe ½"), [2, 9, 48, 3]);

    let head = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n";
    assert_eq!(
        error(&[("vocab.txt", &format!("{head}\na\n"))]),
        "vocab.txt, line 5: it is empty; take the file that the model was trained with"
    );
    assert_eq!(
        error(&[("vocab.txt", &format!("{head}a\nb\na\n"))]),
        "vocab.txt, line 7: 'a' stands on line 5 already; take the file that the model was trained with"
    );
    assert_eq!(
        error(&[("vocab.txt", "\n\n")]),
        "vocab.txt, line 1: the file is empty; take the file that the model was trained with"
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.txt"), b"[PAD]\n\xff\n").unwrap();
    let files = ModelFiles::from_folder(folder.path()).unwrap();
    let error = Tokenizer::from_files(&files, None).unwrap_err().to_string();
    assert_eq!(error, "vocab.txt, line 2: it is not UTF-8; take the file that the model was trained with");
}

#[test]
fn a_missing_special_token_is_named() {
    for (missing, role) in
        [("[PAD]", "padding"), ("[UNK]", "unknown"), ("[CLS]", "classification"), ("[SEP]", "separator")]
    {
        let vocabulary = vocabulary().replace(missing, "something else");
        assert_eq!(
            error(&[("vocab.txt", &vocabulary)]),
            format!(
                "the vocabulary of vocab.txt has no '{missing}', the {role} token: name one that it has in tokenizer_config.json"
            )
        );
    }
    // A mask token is for filling masks only.
    let vocabulary = vocabulary().replace("[MASK]", "something else");
    assert_eq!(ids(&tokenizer(&[("vocab.txt", &vocabulary)]).unwrap(), "a"), [2, 12, 3]);

    let config = r#"{"pad_token": "<pad>"}"#;
    let error = error(&[("tokenizer.json", &fast().to_string()), ("tokenizer_config.json", config)]);
    assert_eq!(
        error,
        "the vocabulary of tokenizer.json has no '<pad>', the padding token: name one that it has in tokenizer_config.json"
    );
    let mut json = fast();
    json["model"]["unk_token"] = "<unk>".into();
    assert!(matches!(from_json(json), Err(PipelineError::MissingToken { role: "unknown", .. })));
}

#[test]
fn other_tokenizers_are_refused() {
    let vocabulary = vocabulary();
    let with = |file, content| error(&[("vocab.txt", &vocabulary), (file, content)]);
    let message = with("tokenizer_config.json", r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#);
    assert!(
        message.starts_with("tokenizer_config.json asks for the tokenizer 'BertJapaneseTokenizer'"),
        "{message}"
    );
    let message = with("config.json", r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#);
    assert!(message.starts_with("config.json asks for the tokenizer 'BertJapaneseTokenizer'"), "{message}");
    // With a tokenizer.json, too: the class does not read it.
    let json = fast().to_string();
    let class = r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#;
    let message = error(&[("tokenizer.json", &json), ("tokenizer_config.json", class)]);
    assert!(message.starts_with("tokenizer_config.json asks for the tokenizer"), "{message}");
    let message = with("tokenizer_config.json", r#"{"do_basic_tokenize": false}"#);
    assert!(message.contains("'do_basic_tokenize': false, which is not done here"), "{message}");
    let message = with("added_tokens.json", r#"{"<new>": 49}"#);
    assert!(message.starts_with("added_tokens.json asks for tokens beyond vocab.txt"), "{message}");
    let message = with("tokenizer_config.json", r#"{"do_lower_case": "yes"}"#);
    assert_eq!(message, r#"'do_lower_case' in tokenizer_config.json must be true or false, found "yes""#);
    let message = with("tokenizer_config.json", "[]");
    assert!(message.starts_with("tokenizer_config.json is not valid JSON"), "{message}");
}

#[test]
fn a_tokenizer_json_that_cannot_work_is_refused() {
    let message = |edit: fn(&mut Value)| {
        let mut json = fast();
        edit(&mut json);
        from_json(json).unwrap_err().to_string()
    };
    let undefined = message(|json| json["post_processor"]["special_tokens"]["[SEP]"] = Value::Null);
    assert!(
        undefined.contains("the template for a single uses '[SEP]', which it does not define"),
        "{undefined}"
    );
    let uneven = message(|json| json["post_processor"]["special_tokens"]["[SEP]"]["ids"] = json!([3, 3]));
    assert!(uneven.contains("uses '[SEP]'"), "{uneven}");
    let nested = message(|json| {
        json["post_processor"]["single"][1]["Sequence"]["id"] = "B".into();
        json["post_processor"] = json!({ "type": "Sequence", "processors": [json["post_processor"].take()] });
    });
    assert!(nested.contains("the template for a single uses text B"), "{nested}");
    let renumbered = message(|json| json["added_tokens"][4]["id"] = 7.into());
    assert!(
        renumbered.contains("it gives '[MASK]' the id 7, but the vocabulary makes that 4"),
        "{renumbered}"
    );
    let unknown = message(|json| json["model"] = json!({ "type": "Unheard" }));
    assert!(unknown.starts_with("tokenizer.json cannot be used as a tokenizer: "), "{unknown}");
    for text in ["", "null", "[]", "{}", "3"] {
        assert!(tokenizer(&[("tokenizer.json", text)]).is_err(), "{text}");
    }
    let none = error(&[("config.json", "{}")]);
    assert!(none.contains("has none of tokenizer.json, vocab.txt"), "{none}");
}

#[test]
fn both_files_of_bert_tiny_agree() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bert-tiny");
    let files = ModelFiles::from_folder(folder).unwrap();
    let fast = Tokenizer::from_files(&files, None).unwrap();
    let only = |name| (name, files.require(name).unwrap());
    let slow = ModelFiles::from_memory("bert-tiny", [only("vocab.txt"), only("tokenizer_config.json")]);
    let slow = Tokenizer::from_files(&slow, None).unwrap();
    let long = "x".repeat(101);
    let texts: Vec<Text> =
        EXPECTED.iter().map(|(text, _)| Text::from(*text)).chain([long.as_str().into()]).collect();
    let (fast, slow) = (fast.encode(&texts).unwrap(), slow.encode(&texts).unwrap());
    assert_eq!(fast.to_named_values(), slow.to_named_values());
    // The texts are not all unknown to it, or the rule for words could differ unseen.
    assert!(
        (0..texts.len()).any(|row| fast.tokens(row).unwrap().iter().any(|token| token.starts_with("##")))
    );
}
