use std::fs;

use super::*;
use crate::testing::{message, model};

#[test]
fn what_is_written_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let model = model();
    model.save(&path).unwrap();
    assert_eq!(Model::open(&path).unwrap(), model);
    assert_eq!(Model::from_bytes(model.to_bytes().into()).unwrap(), model);
}

#[test]
fn a_model_may_be_saved_over_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    model().save(&path).unwrap();
    let mut mapped = Model::open(&path).unwrap();
    mapped.graph.name = "renamed".into();
    mapped.save(&path).unwrap();
    assert_eq!(Model::open(&path).unwrap(), mapped);
    // The old tensors are still there, and nothing else is left in the folder.
    assert_eq!(mapped.graph.initializers, model().graph.initializers);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn errors_name_the_file_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/m.onnx");
    let error = message(model().save(&missing));
    assert!(error.starts_with(&format!("cannot write {}:", missing.display())), "{error}");
    // A folder cannot be replaced by a file.
    let occupied = folder.path().join("m.onnx");
    fs::create_dir(&occupied).unwrap();
    message(model().save(&occupied));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(message(model().save("..")).contains("it is not the name of a file"));
}

#[test]
fn every_dtype_reads_back_the_same() {
    for dtype in DType::ALL {
        let mut model = model();
        let tensor = Tensor::new(dtype, [3], vec![1; 3 * dtype.size()]).unwrap();
        model.graph.initializers.insert("t".into(), tensor);
        model.graph.inputs[0].dtype = dtype;
        assert_eq!(Model::from_bytes(model.to_bytes().into()).unwrap(), model);
    }
}
