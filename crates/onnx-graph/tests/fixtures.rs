//! Every exported graph among the fixtures can be read, and written again without loss.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use onnx_graph::Model;

fn graphs_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the fixtures can be listed") {
        let path = entry.expect("the fixtures can be listed").path();
        if path.is_dir() {
            graphs_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
}

#[test]
fn fixtures_are_read_and_written_without_loss() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut graphs = Vec::new();
    graphs_below(&folder, &mut graphs);
    assert!(!graphs.is_empty(), "no .onnx file below {}", folder.display());
    let mut with_metadata = 0;
    for path in graphs {
        let model = Model::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let names: HashSet<_> = model.graph.nodes.iter().map(|node| &node.name).collect();
        assert_eq!(names.len(), model.graph.nodes.len(), "{}", path.display());
        assert!(!model.graph.initializers.is_empty(), "{}", path.display());
        let again = Model::from_bytes(model.to_bytes().into()).unwrap();
        assert!(again == model, "{} changes when it is written", path.display());
        with_metadata += usize::from(model.graph.nodes.iter().any(|node| !node.metadata.is_empty()));
    }
    // PyTorch's dynamo exporter says for every node which module it came from; that must not be lost.
    assert!(with_metadata > 0, "no graph has metadata on its nodes");
}
