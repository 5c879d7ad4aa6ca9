use tempfile::TempDir;

use super::*;

const COMMIT: &str = "22b78143b3483ebdc945dc51b3715081fb0dd591";

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn safetensors() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &1f32.to_le_bytes()].concat()
}

/// A folder with these files, each with its own name as its content.
fn folder(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        write(&folder.path().join(file), file);
    }
    folder
}

/// A hub cache with `org/name` in plain files, at `main` (a ref with a line's end) and at a pull request.
fn cache() -> (TempDir, HubCache) {
    let folder = folder(&[]);
    let repository = folder.path().join("models--org--name");
    write(&repository.join("refs/main"), format!("{COMMIT}\n"));
    write(&repository.join("refs/refs/pr/1"), "0123abc");
    write(&repository.join(format!("snapshots/{COMMIT}/config.json")), "main");
    write(&repository.join("snapshots/0123abc/config.json"), "pr");
    let cache = HubCache::at(folder.path());
    (folder, cache)
}

fn error_of<T: fmt::Debug>(result: Result<T, CheckpointError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_folder_is_read_by_name() {
    let folder = folder(&["config.json", "1_Pooling/config.json"]);
    let model = ModelFiles::open(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(model.name(), folder.path().to_str().unwrap());
    assert_eq!(model.folder(), Some(folder.path()));
    assert_eq!(model.config().unwrap(), "config.json");
    assert_eq!(model.read("1_Pooling/config.json").unwrap().unwrap(), "1_Pooling/config.json");
    assert_eq!(model.read("vocab.txt").unwrap(), None);
    // A file where a folder would have to be is "not there" too.
    assert_eq!(model.read("config.json/x").unwrap(), None);
    assert!(matches!(model.read("1_Pooling"), Err(CheckpointError::Map(_))));
}

#[test]
fn a_missing_file_is_named_with_what_is_there() {
    let folder = folder(&["vocab.txt", "onnx/model.onnx"]);
    let model = ModelFiles::from_folder(folder.path()).unwrap();
    let error = error_of(model.config());
    assert!(error.starts_with(&format!("{} has no config.json; ", folder.path().display())), "{error}");
    assert!(error.contains("needs config.json, model.safetensors"), "{error}");
    assert!(error.ends_with("this one has onnx/, vocab.txt"), "{error}");
}

#[test]
fn a_huge_folder_is_not_listed_whole() {
    let files: Vec<String> = (0..3 * LISTED).map(|i| format!("file{i:03}")).collect();
    let folder = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let error = error_of(ModelFiles::from_folder(folder.path()).unwrap().config());
    assert_eq!(error.matches("file0").count(), LISTED);
    assert!(error.ends_with(", …"), "{error}");
    assert_eq!(listing(&folder.path().join("missing")), "nothing that can be listed");
}

#[test]
fn what_is_no_model_is_told_apart() {
    let (folder, cache) = cache();
    let file = folder.path().join("model.onnx");
    write(&file, "");
    let file = file.to_str().unwrap();
    assert!(matches!(ModelFiles::open_in(file, &cache), Err(CheckpointError::IsAFile { .. })));
    for path in ["./nowhere", "/no/where", "../x", "nowhere/", "model.onnx", "x\\y", "~/x", "a/b/c/d.json"] {
        let error = ModelFiles::open_in(path, &cache).unwrap_err();
        assert!(matches!(error, CheckpointError::NoSuchFolder { .. }), "{path}: {error}");
    }
    for name in ["", "two words", "org/name@", "a--b"] {
        let error = ModelFiles::open_in(name, &cache).unwrap_err();
        assert!(matches!(error, CheckpointError::NotAModel { .. }), "{name}: {error}");
    }
    assert!(matches!(ModelFiles::from_folder(file), Err(CheckpointError::NotAFolder(_))));
    assert!(matches!(ModelFiles::find("org/name", || None), Err(CheckpointError::NoCache { .. })));
}

#[test]
fn a_hub_id_is_found_in_the_cache() {
    let (_folder, cache) = cache();
    let commit = format!("org/name@{COMMIT}");
    for (id, content) in
        [("org/name", "main"), ("org/name@main", "main"), ("org/name@refs/pr/1", "pr"), (&commit, "main")]
    {
        let model = ModelFiles::open_in(id, &cache).unwrap();
        assert_eq!(model.name(), id);
        assert_eq!(model.config().unwrap(), content, "{id}");
    }
}

#[test]
fn what_the_cache_lacks_is_named_with_a_cure() {
    let (folder, cache) = cache();
    let error = error_of(ModelFiles::open_in("org/other", &cache));
    assert!(error.contains("'org/other'") && error.contains("models--org--other"), "{error}");
    assert!(error.contains(folder.path().to_str().unwrap()) && error.contains("HF_HOME"), "{error}");

    let error = error_of(ModelFiles::open_in("org/name@v2", &cache));
    assert!(error.contains("revision 'v2'") && error.contains(COMMIT), "{error}");
    // `refs/refs` is a folder in refs/, no revision.
    assert!(matches!(
        ModelFiles::open_in("org/name@refs", &cache),
        Err(CheckpointError::RevisionNotCached { .. })
    ));

    // A ref whose snapshot is gone, is empty, or would lead elsewhere.
    for commit in ["deadbeef", "", "../../../x", "/etc", "."] {
        write(&folder.path().join("models--org--name/refs/main"), commit);
        let error = ModelFiles::open_in("org/name", &cache).unwrap_err();
        assert!(matches!(error, CheckpointError::RevisionNotCached { .. }), "{commit}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn a_cache_of_links_is_read_and_a_broken_one_told() {
    let (folder, cache) = cache();
    let repository = folder.path().join("models--org--name");
    write(&repository.join("blobs/aaaa"), safetensors());
    let snapshot = repository.join("snapshots").join(COMMIT);
    let link = |blob: &str, file: &str| {
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(file)).unwrap();
    };
    link("aaaa", "model.safetensors");
    link("bbbb", "model.onnx");

    let model = ModelFiles::open_in("org/name", &cache).unwrap();
    assert_eq!(&*model.checkpoint().unwrap().get("w").unwrap().file, "model.safetensors");
    let error = error_of(model.onnx());
    assert!(error.contains("../../blobs/bbbb, which is not there"), "{error}");
}

#[test]
fn names_that_lead_out_are_refused() {
    let folder = folder(&["config.json"]);
    let memory = ModelFiles::from_memory("m", []);
    for model in [&ModelFiles::from_folder(folder.path()).unwrap(), &memory] {
        for file in ["", "../config.json", "/etc/passwd", "a/../../b", ".", "a\\..\\b"] {
            assert!(matches!(model.read(file), Err(CheckpointError::Outside { .. })), "{file}");
        }
    }
}

#[test]
fn a_git_lfs_pointer_is_told_with_its_cure() {
    let folder = folder(&[]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n";
    for file in ["model.safetensors", "onnx/model.onnx"] {
        write(&folder.path().join(file), pointer);
    }
    let model = ModelFiles::from_folder(folder.path()).unwrap();
    for error in [error_of(model.checkpoint()), error_of(model.onnx())] {
        assert!(error.contains("git-lfs pointer") && error.contains("`git lfs pull`"), "{error}");
    }
}

#[test]
fn a_checkpoint_is_found_or_its_other_form_named() {
    let here = folder(&["config.json"]);
    write(&here.path().join("model.safetensors"), safetensors());
    let model = ModelFiles::from_folder(here.path()).unwrap();
    assert_eq!(model.checkpoint().unwrap().names().collect::<Vec<_>>(), ["w"]);

    for found in ["tf_model.h5", "flax_model.msgpack"] {
        let here = folder(&["config.json", found]);
        let error = error_of(ModelFiles::from_folder(here.path()).unwrap().checkpoint());
        assert!(error.contains(&format!("only as {found}, which is not read: ")), "{error}");
    }
    let here = folder(&["config.json"]);
    let error = error_of(ModelFiles::from_folder(here.path()).unwrap().checkpoint());
    for file in shards::WEIGHTS.iter().flat_map(|(file, _)| [file.to_string(), shards::index_of(file)]) {
        assert!(error.contains(&file), "{error}");
    }
    assert!(error.ends_with("it has config.json"), "{error}");

    write(&here.path().join("model.safetensors"), &safetensors()[..40]);
    let error = error_of(ModelFiles::from_folder(here.path()).unwrap().checkpoint());
    let path = here.path().join("model.safetensors");
    assert!(error.starts_with(&format!("{} is truncated", path.display())), "{error}");
}

#[test]
fn the_graph_in_the_onnx_folder_comes_first() {
    let both = folder(&["model.onnx", "onnx/model.onnx"]);
    let graph = ModelFiles::from_folder(both.path()).unwrap().onnx().unwrap().unwrap();
    assert!(matches!(&graph, OnnxSource::File(path) if *path == both.path().join("onnx/model.onnx")));
    let one = folder(&["model.onnx"]);
    let graph = ModelFiles::from_folder(one.path()).unwrap().onnx().unwrap().unwrap();
    assert_eq!(graph.to_string(), one.path().join("model.onnx").display().to_string());
    assert!(ModelFiles::from_folder(folder(&[]).path()).unwrap().onnx().unwrap().is_none());
}

#[test]
fn a_graph_may_have_any_name_if_it_is_the_only_one() {
    let found = |files: &[&str]| {
        let folder = folder(files);
        let graph = ModelFiles::from_folder(folder.path()).unwrap().any_onnx().unwrap()?;
        let OnnxSource::File(path) = graph else { unreachable!() };
        Some(path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned())
    };
    assert_eq!(found(&["onnx/model_O4.onnx", "x.onnx_data"]).as_deref(), Some("onnx/model_O4.onnx"));
    assert_eq!(found(&["my.onnx", "other/model.onnx", ".my.onnx"]).as_deref(), Some("my.onnx"));
    assert_eq!(found(&["my.onnx", "onnx/model.onnx"]).as_deref(), Some("onnx/model.onnx"));
    assert_eq!(found(&["other/model.onnx", "onnx/my.onnx/file", ".my.onnx"]), None);
    let several = folder(&["b.onnx", "onnx/a.onnx"]);
    let model = ModelFiles::from_folder(several.path()).unwrap();
    let Err(CheckpointError::SeveralGraphs { graphs, .. }) = model.any_onnx() else { panic!() };
    let path = |file: &str| several.path().join(file).display().to_string();
    assert_eq!(graphs, [path("b.onnx"), path("onnx/a.onnx")]);

    let named = |name: &str| model.graph_named(Path::new(name)).unwrap().name().into_owned();
    assert_eq!(named("onnx/a.onnx"), path("onnx/a.onnx"));
    // Elsewhere on this machine, whether it is there or not.
    assert_eq!([named(&path("b.onnx")), named("../b.onnx")], [path("b.onnx"), "../b.onnx".into()]);
}

#[test]
fn files_in_memory_are_a_model_too() {
    let model = ModelFiles::from_memory(
        "bert-tiny",
        [("model.safetensors", safetensors().into()), ("onnx/model.onnx", Bytes::from_static(b"graph"))],
    );
    assert_eq!((model.name(), model.folder()), ("bert-tiny", None));
    assert_eq!(model.checkpoint().unwrap().len(), 1);
    let graph = model.onnx().unwrap().unwrap();
    assert_eq!(graph.name(), "bert-tiny/onnx/model.onnx");
    assert!(matches!(&graph, OnnxSource::Memory { bytes, .. } if bytes == "graph"));
    assert_eq!(format!("{graph:?}"), "Memory(\"bert-tiny/onnx/model.onnx\", 5 bytes)");
    let error = error_of(model.config());
    assert!(error.starts_with("bert-tiny has no config.json"), "{error}");
    assert!(error.ends_with("this one has model.safetensors, onnx/model.onnx"), "{error}");
    assert!(!format!("{model:?}").contains("graph"));
}

#[test]
fn the_transformer_may_lie_in_a_folder_of_its_own() {
    let modules = |path: &str, class: &str| {
        format!(
            r#"[{{"path": "{path}", "type": "sentence_transformers.models.{class}"}}, {{"path": "1_Pooling", "type": "Pooling"}}]"#
        )
    };
    for (path, class) in [("0_Transformer", "Transformer"), ("0_BERT", "BERT"), ("a/b", "Transformer")] {
        let own = |file: &str| format!("{path}/{file}");
        let folder =
            folder(&["config.json", &own("config.json"), &own("vocab.txt"), "1_Pooling/config.json"]);
        write(&folder.path().join("modules.json"), modules(path, class));
        write(&folder.path().join(own("model.safetensors")), safetensors());
        write(&folder.path().join(own("onnx/model.onnx")), "inner");
        let model = ModelFiles::from_folder(folder.path()).unwrap();
        assert_eq!(model.config().unwrap(), own("config.json"));
        assert_eq!(model.checkpoint().unwrap().names().collect::<Vec<_>>(), ["w"]);
        assert_eq!(
            model.onnx().unwrap().unwrap().name(),
            folder.path().join(own("onnx/model.onnx")).to_str().unwrap()
        );
        // A graph beside the list of modules is nearer.
        write(&folder.path().join("onnx/model.onnx"), "outer");
        assert_eq!(
            model.onnx().unwrap().unwrap().name(),
            folder.path().join("onnx/model.onnx").to_str().unwrap()
        );
        let transformer = model.transformer().unwrap();
        assert_eq!(transformer.read("vocab.txt").unwrap().unwrap(), own("vocab.txt"));
        // What a pooling does stands in the model, not in the transformer.
        assert_eq!(model.read("1_Pooling/config.json").unwrap().unwrap(), "1_Pooling/config.json");
        assert!(
            error_of(transformer.require("tokenizer.json"))
                .contains(&format!("{path} has no tokenizer.json"))
        );
    }
    let memory = |list: String| {
        let files =
            [("modules.json", Bytes::from(list)), ("0_Transformer/config.json", Bytes::from("inner"))];
        ModelFiles::from_memory("m", files)
    };
    assert_eq!(memory(modules("0_Transformer", "Transformer")).config().unwrap(), "inner");
    for outside in ["../x", "/x", "x/../../y", ".."] {
        let error = memory(modules(outside, "Transformer")).config().unwrap_err();
        assert!(matches!(error, CheckpointError::Outside { .. }), "{error}");
    }
    let error = error_of(memory("{".to_owned()).config());
    assert!(error.starts_with("m/modules.json is not a list of modules"), "{error}");
}
