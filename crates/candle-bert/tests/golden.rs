//! The reference against PyTorch: every fixture, every case, every recorded module (tests/fixtures/make.py makes them).

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use candle_bert::{BertConfig, BertModel, Loaded};
use candle_core::{DType, Device, Tensor};
use checkpoint::ModelFiles;

/// How far f64 may be from PyTorch's f64, as a part of the largest absolute value of the tensor. The two add in
/// different orders: 3e-15 was measured, 5e-15 in the stiffest fixture. A constant that was rounded to f32 costs 1e-8.
const F64_BOUND: f64 = 1e-12;

/// How far the narrower dtypes may be, in units in the last place of the largest absolute value of the tensor: their
/// roundings add up. Measured: 7 in f32, 4 in f16 and bf16.
const ULPS: f64 = 32.;

/// The same for the fixture `stiff`, which is made to magnify roundings. Measured: 55 in f32, 17 in bf16.
const STIFF_ULPS: f64 = 256.;

/// There are ten; a search that finds too few must not pass.
const FEWEST_FIXTURES: usize = 6;

struct Fixture {
    name: String,
    files: ModelFiles,
    golden: BTreeMap<String, Tensor>,
}

impl Fixture {
    fn load(&self, dtype: DType) -> Loaded<BertModel> {
        let config = BertConfig::from_json(&self.files.config().unwrap()).unwrap();
        let checkpoint = self.files.checkpoint().unwrap();
        BertModel::from_checkpoint(&checkpoint, &config, dtype, &Device::Cpu).unwrap()
    }

    fn cases(&self) -> BTreeSet<&str> {
        self.golden.keys().filter_map(|key| key.strip_suffix("/input_ids")).collect()
    }

    fn tensor(&self, case: &str, name: &str) -> Option<&Tensor> {
        self.golden.get(&format!("{case}/{name}"))
    }
}

fn fixtures() -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut folders: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("golden.safetensors").is_file())
        .collect();
    folders.sort();
    assert!(folders.len() >= FEWEST_FIXTURES, "found only {folders:?}");
    folders
        .into_iter()
        .map(|path| Fixture {
            name: path.file_name().unwrap().to_str().unwrap().into(),
            golden: candle_core::safetensors::load(path.join("golden.safetensors"), &Device::Cpu)
                .unwrap()
                .into_iter()
                .collect(),
            files: ModelFiles::from_folder(path).unwrap(),
        })
        .collect()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest distance, and the largest absolute value that was expected. Neither may be a NaN.
fn distance(found: &Tensor, expected: &Tensor, what: &str) -> (f64, f64) {
    assert_eq!(expected.dtype(), DType::F64, "{what}");
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (flat(found), flat(expected));
    assert!(!found.is_empty() && found.iter().chain(&expected).all(|x| x.is_finite()), "{what}");
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0., f64::max);
    (
        largest(&mut found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs())),
        largest(&mut expected.iter().map(|x| x.abs())),
    )
}

/// Runs every case in the given dtype, and hands `(fixture, what, distance, largest)` of every output and recorded
/// module to `judge`.
fn compare(dtype: DType, mut judge: impl FnMut(&str, &str, f64, f64)) {
    for fixture in fixtures() {
        let model = fixture.load(dtype).model;
        let cases = fixture.cases();
        assert!(cases.len() >= 4, "{}: {cases:?}", fixture.name);
        for case in cases {
            let input = |name| fixture.tensor(case, name).unwrap();
            let mut compared = BTreeSet::new();
            let mut check = |name: &str, found: &Tensor| {
                if let Some(expected) = fixture.tensor(case, name) {
                    let what = format!("{}/{case}/{name} in {dtype:?}", fixture.name);
                    let (distance, largest) = distance(found, expected, &what);
                    judge(&fixture.name, &what, distance, largest);
                    compared.insert(format!("{case}/{name}"));
                }
            };
            let output = model
                .forward_with_taps(
                    input("input_ids"),
                    Some(input("attention_mask")),
                    Some(input("token_type_ids")),
                    &mut |module, tensor| {
                        check(&format!("taps/{module}"), tensor);
                        Ok(())
                    },
                )
                .unwrap();
            check("last_hidden_state", &output.last_hidden_state);
            if let Some(pooled) = &output.pooler_output {
                check("pooler_output", pooled);
            }
            // All that PyTorch recorded was compared, and no module is named otherwise.
            let inputs = ["input_ids", "attention_mask", "token_type_ids"];
            let recorded = fixture.golden.keys().filter(|key| {
                key.strip_prefix(&format!("{case}/")).is_some_and(|name| !inputs.contains(&name))
            });
            assert_eq!(compared, recorded.cloned().collect(), "{}", fixture.name);
        }
    }
}

#[test]
fn f64_is_pytorchs_f64() {
    let mut taps = 0;
    compare(DType::F64, |_, what, distance, largest| {
        assert!(distance <= F64_BOUND * largest, "{what}: {distance:e} off, of {largest:e}");
        taps += usize::from(what.contains("/taps/"));
    });
    assert!(taps >= 100, "only {taps} recorded modules were compared");
}

#[test]
fn narrower_dtypes_are_off_by_their_rounding_alone() {
    for (dtype, epsilon) in
        [(DType::F32, 2f64.powi(-23)), (DType::F16, 2f64.powi(-10)), (DType::BF16, 2f64.powi(-7))]
    {
        compare(dtype, |fixture, what, distance, largest| {
            let ulps = distance / (largest * epsilon);
            assert!(ulps <= if fixture == "stiff" { STIFF_ULPS } else { ULPS }, "{what}: {ulps} ULP off");
        });
    }
}

#[test]
fn checkpoints_are_what_they_were_made_to_be() {
    let mut seen = BTreeSet::new();
    for fixture in fixtures() {
        let loaded = fixture.load(DType::F32);
        seen.insert((loaded.prefix.clone(), loaded.model.has_pooler(), !loaded.unused.is_empty()));
        let heads = loaded.unused.iter().all(|name| name.starts_with("cls."));
        assert!(heads, "{}: unused {:?}", fixture.name, loaded.unused);
    }
    // The plain ones, the one without a pooler, and the one with a head. The old buffer of `position_ids` is never reported.
    assert_eq!(
        seen,
        BTreeSet::from([("".into(), true, false), ("".into(), false, false), ("bert.".into(), true, true)])
    );
}
