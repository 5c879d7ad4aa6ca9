mod reports;
mod wellformed;

use serde_json::Value as Json;

use super::heat::{Grid, Heat};
use super::*;
use crate::*;
use reports::{error, everything, fail, named, pass, rounding, two_graphs};
use wellformed::{text, wellformed};

/// What a colleague's mail takes without a thought.
const LARGEST_PAGE: usize = 300_000;

/// GitHub's limit for a comment.
const LARGEST_MARKDOWN: usize = 65_536;

/// Names that would be more than names, if they were not escaped.
const HOSTILE: [&str; 9] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onload='x",
    "a|b `c` | d \\| e\\",
    "]]> --> <!-- &lt; &amp &#0;",
    "\0\u{1}\u{8}\u{b}\u{1b}[31m\u{7f}\u{85}\u{fffe}\u{ffff}",
    "a\nb\r\n\n# heading\n- item\n</details>\n```\n",
    "\u{202e}gpj.exe \u{feff}\u{200b}",
    "https://example.org @someone **bold** [x](y) $a$ ~~z~~",
];

fn documents(report: &Report) -> [String; 3] {
    [markdown(report), junit(report), html(report)]
}

/// What a terminal shows, where that form is built in.
fn on_terminal(report: &Report) -> String {
    #[cfg(feature = "terminal")]
    {
        let mut out = terminal::Lines(Vec::new());
        terminal::report(&mut out, report).unwrap();
        String::from_utf8(out.0).unwrap()
    }
    #[cfg(not(feature = "terminal"))]
    report.verdict.to_string()
}

fn read_back(report: &Report) -> Report {
    let json = serde_json::to_vec(report).unwrap();
    let Saved::Report(read) = read(&json).unwrap() else { panic!("it is a report") };
    assert_eq!(serde_json::to_vec(&read).unwrap(), json);
    *read
}

/// What is in a report is in its JSON: every form of one that was read back is the same, to the
/// byte.
#[test]
fn a_report_is_the_same_when_it_is_read_back() {
    let named = HOSTILE.iter().map(|name| named(name));
    for report in
        [pass(2), rounding(3), fail(2), error(), two_graphs(), everything()].into_iter().chain(named)
    {
        let read = read_back(&report);
        assert_eq!(documents(&read), documents(&report));
        assert_eq!(on_terminal(&read), on_terminal(&report));
    }
}

/// JSON holds no number that is not finite: such numbers come back as another, and are shown alike.
#[test]
fn what_is_not_finite_is_shown_as_before() {
    for x in [f64::NAN, f64::INFINITY] {
        let mut report = everything();
        report.stress[0].bound = x;
        report.located.as_mut().unwrap().modules[3].scale = x;
        let traced = &mut report.weights.as_mut().unwrap().traced;
        traced[0].step = Some(x as f32);
        traced[0].first_difference.as_mut().unwrap().graph = x as f32;
        let read = read_back(&report);
        assert_eq!(documents(&read), documents(&report));
        assert_eq!(on_terminal(&read), on_terminal(&report));
    }
}

/// Whatever numbers a file has, nothing is counted beyond what a number can be.
#[test]
fn numbers_of_strangers_are_only_shown() {
    let mut report = everything();
    report.inputs.iter_mut().for_each(|input| input.tokens = usize::MAX);
    let part = Layout::Part { part: usize::MAX, of: 0, transposed: true };
    report.weights.as_mut().unwrap().traced.iter_mut().for_each(|trace| trace.layout = part);
    report.proof.as_mut().unwrap().tol = -1e308;
    report.atol = f64::MAX;
    for (at, module) in report.located.as_mut().unwrap().modules.iter_mut().enumerate() {
        let x = [f64::MAX, -f64::MAX, 5e-324, -0.0][at % 4];
        (module.own, module.inherited, module.single, module.scale) = (Some(x), Some(x), Some(x), x);
        module.module = format!("encoder.layer.{}", usize::MAX - at);
    }
    for tokens in &mut report.tokens {
        tokens.errors.fill(Some(-f64::MAX));
        tokens.not_finite = vec![[usize::MAX; 2]];
    }
    documents(&report).iter().skip(1).for_each(|document| wellformed(document).unwrap());
    assert!(!on_terminal(&report).is_empty());
}

#[test]
fn markdown_of_a_pass() {
    insta::assert_snapshot!(markdown(&pass(2)));
}

#[test]
fn markdown_of_a_fail() {
    insta::assert_snapshot!(markdown(&fail(2)));
}

#[test]
fn markdown_of_an_error() {
    insta::assert_snapshot!(markdown(&error()));
}

#[test]
fn junit_of_a_pass() {
    insta::assert_snapshot!(junit(&pass(2)));
}

#[test]
fn junit_of_a_fail() {
    insta::assert_snapshot!(junit(&fail(2)));
}

#[test]
fn junit_of_an_error() {
    insta::assert_snapshot!(junit(&error()));
}

#[test]
fn what_is_inconclusive_is_not_green_in_junit() {
    let mut silent = pass(2);
    silent.verdict = Verdict::Inconclusive;
    assert!(junit(&silent).contains("<error type=\"inconclusive\""), "the report's own verdict");
    let mut output = pass(2);
    output.checks[0].outputs[0].verdict = Verdict::Inconclusive;
    assert!(junit(&output).contains("failures=\"0\" errors=\"1\""), "an output");
    let mut check = pass(2);
    check.checks[0].verdict = Verdict::Inconclusive;
    assert!(junit(&check).contains("message=\"the graph has no &#39;pooler_output&#39;\""), "an engine");
    let mut proof = pass(2);
    proof.proof = Some(Proof::impossible("no such operator".into(), 1e-10));
    assert!(junit(&proof).contains("message=\"no such operator\""), "the proof");
    for good in [pass(2), rounding(2)] {
        let junit = junit(&good);
        assert!(!junit.contains("<error") && !junit.contains("<failure"), "{junit}");
    }
}

#[test]
fn junit_counts_what_it_holds() {
    for report in [pass(2), rounding(2), fail(2), error(), two_graphs()] {
        let junit = junit(&report);
        let sum = |attribute: &str| -> usize {
            let suites = junit.lines().filter(|line| line.contains("<testsuite "));
            suites
                .map(|line| {
                    line.split(&format!(" {attribute}=\""))
                        .nth(1)
                        .unwrap()
                        .split('"')
                        .next()
                        .unwrap()
                        .parse::<usize>()
                        .unwrap()
                })
                .sum()
        };
        let held = |element: &str| junit.matches(element).count();
        assert_eq!(sum("tests"), held("<testcase "));
        assert_eq!(sum("failures"), held("<failure "));
        assert_eq!(sum("errors"), held("<error "));
        assert!(sum("tests") > 0);
        let good = report.verdict <= Verdict::Rounding;
        assert_eq!(sum("failures") + sum("errors") == 0, good, "{junit}");
    }
}

#[test]
fn documents_are_well_formed_whatever_the_names() {
    let hostile = HOSTILE.iter().map(|name| named(name));
    for report in [pass(2), rounding(2), fail(2), error(), two_graphs()].into_iter().chain(hostile) {
        for document in [junit(&report), html(&report)] {
            wellformed(&document).unwrap_or_else(|wrong| panic!("{wrong} of {}:\n{document}", report.model));
        }
    }
}

#[test]
fn names_are_shown_as_they_are() {
    let name = HOSTILE[0];
    let report = named(name);
    for document in [junit(&report), html(&report)] {
        assert!(text(&document).replace('\u{200b}', "").contains(name), "{document}");
    }
    assert!(markdown(&report).contains(&format!("`{name}`")));
    // A name that ends in a line break and one that reads backwards keep to their place.
    for document in HOSTILE.iter().flat_map(|name| documents(&named(name))) {
        let stray = |letter: char| {
            letter.is_control() && letter != '\n' || ('\u{202a}'..='\u{202e}').contains(&letter)
        };
        assert!(!document.contains(stray), "{document}");
    }
}

#[test]
fn changed_labels_stand_in_every_form() {
    let mut report = everything();
    let decisions = report.checks[0].outputs[0].decisions.as_mut().unwrap();
    decisions.flipped = 1;
    for form in documents(&report).into_iter().chain([on_terminal(&report)]) {
        assert!(form.is_empty() || form.contains("chooses otherwise 1 of 3 times"), "{form}");
    }
}

#[test]
fn what_nothing_is_held_against_stands_in_the_headline() {
    let mut report = pass(2);
    report.unheld = vec!["spread".into()];
    // JUnit has no headline; there it is among what was not compared.
    for form in [markdown(&report), html(&report), on_terminal(&report)] {
        let form = form.replace("&#39;", "'");
        assert!(form.is_empty() || form.contains("nothing was held against output 'spread'"), "{form}");
    }
}

#[test]
fn a_table_of_markdown_keeps_its_columns() {
    for name in HOSTILE {
        let markdown = markdown(&named(name));
        let mut columns = None;
        let mut tables = 0;
        for line in markdown.lines() {
            if !line.starts_with('|') {
                columns = None;
                continue;
            }
            // As GitHub splits a row: a backslash takes what follows with it.
            let mut bars = 0;
            let mut letters = line.chars();
            while let Some(letter) = letters.next() {
                match letter {
                    '\\' => _ = letters.next(),
                    '|' => bars += 1,
                    _ => {}
                }
            }
            tables += usize::from(columns.is_none());
            assert_eq!(*columns.get_or_insert(bars), bars, "{line}\nof\n{markdown}");
        }
        assert!(tables >= 5, "{tables}");
    }
}

#[test]
fn long_names_are_cut_and_many_rows_are_counted() {
    let long = named(&"<|&".repeat(100_000));
    let mut many = fail(2);
    let output: OutputReport = many.checks[0].outputs[0].clone();
    many.checks[0].outputs = vec![output; 5000];
    many.culprits = vec![many.culprits[0].clone(); 5000];
    many.inputs = vec![many.inputs[0].clone(); 5000];
    for report in [long, many] {
        let [markdown, junit, html] = documents(&report);
        assert!(markdown.len() < LARGEST_MARKDOWN, "{}", markdown.len());
        assert!(markdown.starts_with("## parity: FAIL\n"), "{markdown}");
        wellformed(&junit).unwrap();
        wellformed(&html).unwrap();
    }
    let middle = words::shown(&"ab".repeat(1000), 9);
    assert_eq!(middle, "ababa…bab");
    assert_eq!(words::shown("123456789", 9), "123456789");
}

#[test]
fn a_page_needs_nothing_else() {
    for report in [pass(12), fail(12), named("x"), two_graphs()] {
        let html = html(&report);
        for other in ["://", " src=", " href=", "url(", "@import", "<script", "<link", "<iframe"] {
            assert!(!html.contains(other), "{other}");
        }
        assert!(html.len() < LARGEST_PAGE, "{}", html.len());
    }
}

#[test]
fn a_page_says_in_words_what_it_says_in_colours() {
    let page = text(&html(&fail(2)));
    for words in [
        "The ONNX graph is another function, 1.3e-3 off in f64, than the checkpoint of org/model over 2 inputs; it starts at encoder.layer.1.intermediate.",
        "gelu = tanh: 3.1e-4 → 2e-13",
        "/encoder/layer.1/intermediate/Erf",
        "encoder.layer.1.intermediate, a culprit",
        "encoder.layer.1.intermediate: own error 3.10e-4, inherited 4.65e-4, a culprit",
        "It is largest at row 1, position 5: 1.25e-3.",
        "config.json says 1e-12",
        "parity org/model --html report.html",
    ] {
        assert!(page.contains(words), "'{words}' is not in\n{page}");
    }
}

#[test]
fn a_strip_has_a_line_for_each_layer_and_marks_culprits() {
    let report = fail(3);
    let grid = Grid::new(report.located.as_ref().unwrap(), 1e-10);
    let lines = grid.lines(|_, glyph| glyph.into());
    insta::assert_snapshot!(lines.join("\n"));
    let culprits = grid.cells().filter(|cell| cell.module.culprit).map(|cell| cell.module.module.as_str());
    let expected: Vec<&str> = report.culprits.iter().map(|culprit| culprit.module.as_str()).collect();
    assert_eq!(culprits.collect::<Vec<_>>(), expected);
}

#[test]
fn what_explains_the_whole_is_said_in_every_form() {
    let mut report = fail(2);
    report.explanation = Some("attention_mask and token_type_ids exchanged".into());
    for document in documents(&report) {
        assert!(
            document.replace('\\', "").contains("xplained by attention_mask and token_type_ids exchanged"),
            "{document}"
        );
    }
    assert!(headline(&report).ends_with("; explained by attention_mask and token_type_ids exchanged"));
}

#[test]
fn heat_follows_the_bound() {
    let of = |error| Heat::of(Some(error), 1e-10);
    assert_eq!(
        [0.0, 9e-13, 1e-10, 2e-10, 2e-7, 1.0].map(of),
        [Heat::Cold, Heat::Cold, Heat::Within, Heat::Beyond, Heat::Far, Heat::Off]
    );
    assert_eq!(of(f64::NAN), Heat::Unknown);
    assert_eq!(Heat::of(None, 1e-10), Heat::Unknown);
    assert_eq!(Heat::of(Some(1e-300), 0.0), Heat::Off);
}

/// `REPORT.md` has a line for each field.
#[test]
fn the_schema_is_documented() {
    fn keys(json: &Json, found: &mut Vec<String>) {
        match json {
            Json::Object(fields) => fields.iter().for_each(|(key, value)| {
                found.push(key.clone());
                keys(value, found);
            }),
            Json::Array(items) => items.iter().for_each(|item| keys(item, found)),
            _ => {}
        }
    }
    let documentation = include_str!("../../REPORT.md");
    let mut found = Vec::new();
    for report in [named("x"), two_graphs(), error(), everything()] {
        keys(&serde_json::to_value(&report).unwrap(), &mut found);
    }
    found.sort();
    found.dedup();
    let missing: Vec<_> = found.iter().filter(|key| !documentation.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty() && found.len() > 60, "{missing:?} of {}", found.len());
    assert!(documentation.contains(SCHEMA));
}

/// Writes pages to look at, to the folder that `PAGES` names.
#[test]
#[ignore = "for a person to look at"]
fn pages_to_look_at() {
    let folder = std::path::PathBuf::from(std::env::var_os("PAGES").expect("PAGES names a folder"));
    let reports = [
        ("pass", pass(12)),
        ("rounding", rounding(4)),
        ("fail", fail(12)),
        ("small", fail(2)),
        ("error", error()),
        ("two", two_graphs()),
    ];
    for (name, report) in reports {
        std::fs::write(folder.join(format!("{name}.html")), html(&report)).unwrap();
        std::fs::write(folder.join(format!("{name}.md")), markdown(&report)).unwrap();
        std::fs::write(folder.join(format!("{name}.xml")), junit(&report)).unwrap();
    }
    for (number, name) in HOSTILE.iter().enumerate() {
        std::fs::write(folder.join(format!("hostile{number}.xml")), junit(&named(name))).unwrap();
        std::fs::write(folder.join(format!("hostile{number}.html")), html(&named(name))).unwrap();
    }
}
