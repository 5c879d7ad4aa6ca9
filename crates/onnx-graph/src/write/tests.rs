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
    // The stream is what protobuf makes of the whole.
    assert_eq!(fs::read(&path).unwrap(), model.to_bytes());
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
fn a_tensor_in_a_file_of_its_own_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input_0.pb");
    for (shape, name) in [(vec![2, 3], "ids"), (vec![], ""), (vec![0, 3], "none")] {
        let bytes = vec![7; 4 * shape.iter().product::<usize>()];
        let tensor = Tensor::new(DType::F32, shape, bytes).unwrap();
        tensor.save(&path, name).unwrap();
        assert_eq!(Tensor::open(&path).unwrap(), (name.to_string(), tensor));
    }
    let missing = folder.path().join("no/such/input_0.pb");
    let error = Tensor::new(DType::F32, [], vec![0; 4]).unwrap().save(&missing, "").unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}:", missing.display())), "{error}");
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

#[test]
fn large_initializers_go_to_a_file_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let (path, data) = (folder.path().join("m.onnx"), folder.path().join("m.onnx.data"));
    let mut model = model();
    for (name, byte) in [("one page and a bit", 1), ("the next", 2)] {
        model
            .graph
            .initializers
            .insert(name.into(), Tensor::new(DType::U8, [5000], vec![byte; 5000]).unwrap());
    }
    model.save_with(&path, &External::default()).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 4096);
    // The second begins with the third page.
    assert_eq!(fs::metadata(&data).unwrap().len(), 8192 + 5000);
    let read = Model::open(&path).unwrap();
    assert_eq!(read, model);
    // The mapped tensors outlive the file they are from.
    read.save_with(&path, &External { threshold: 0 }).unwrap();
    assert_eq!(Model::open(&path).unwrap(), model);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn without_a_large_initializer_there_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    model().save_with(&path, &External { threshold: usize::MAX }).unwrap();
    assert_eq!(fs::read(&path).unwrap(), model().to_bytes());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn data_that_cannot_be_written_leaves_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    fs::create_dir(folder.path().join("m.onnx.data")).unwrap();
    let error = message(model().save_with(&path, &External { threshold: 1 }));
    assert!(error.starts_with("cannot write") && error.contains("m.onnx.data:"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_model_may_point_into_a_file_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    fs::write(folder.path().join("weights"), [[9; 3], [7; 3]].concat()).unwrap();
    let mut model = model();
    model.graph.initializers.insert("far".into(), Tensor::new(DType::U8, [3], vec![7; 3]).unwrap());
    let place = Place { location: "weights".into(), offset: 3 };
    model.save_pointing(&path, |name| (name == "far").then(|| place.clone())).unwrap();
    assert_eq!(Model::open(&path).unwrap(), model);
}
