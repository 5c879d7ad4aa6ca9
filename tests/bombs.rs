//! Files that ask for far more memory than they have bytes: each is refused by one line that names
//! it and the cure, before it is built. All are made here.

use std::io::Write as _;
use std::process::Command;

use crate::common::{Folder, Run};
use onnx_graph::{Model, memory_of};

/// What one refusal may take of memory, in bytes. The operating system holds the whole address
/// space of the process to it: its code, its stacks, the file itself.
const MOST_MEMORY: u64 = 300_000_000;

/// What one refusal may take of a processor, in seconds. The operating system counts the process's
/// own time, so that other work on the machine does not matter.
const MOST_SECONDS: u64 = 1;

/// The size of most files here.
const SIZE: usize = 20_000_000;

/// `parity` with both limits, where the system has them.
fn limited(folder: &Folder, args: &[&str]) -> Run {
    #[cfg(target_os = "linux")]
    let mut command = {
        let kilobytes = MOST_MEMORY / 1024;
        let script = format!("ulimit -v {kilobytes}; ulimit -t {MOST_SECONDS}; exec \"$0\" \"$@\"");
        let mut command = folder.command("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_parity")]).args(args);
        command
    };
    #[cfg(not(target_os = "linux"))]
    let mut command = folder.parity(args);
    Run::of(few_threads(&mut command))
}

/// As many threads on every machine: each reserves address space, for its stack and for what it
/// allocates.
fn few_threads(command: &mut Command) -> &mut Command {
    command.env("RAYON_NUM_THREADS", "1").env("MALLOC_ARENA_MAX", "1")
}

/// The error names the file and the cure.
#[track_caller]
fn is_refused(folder: &Folder, file: &str, args: &[&str]) {
    limited(folder, args).is_mistake(&[file, "of memory", "--max-memory"]);
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field of protobuf that has a length.
fn field(number: usize, bytes: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(bytes.len()), bytes.to_vec()].concat()
}

/// A model with as many of these fields as [`SIZE`] holds, in the message that the path leads to.
fn model_of_many(path: &[usize], unit: &[u8]) -> Vec<u8> {
    let many = unit.repeat(SIZE / unit.len());
    let graph = path.iter().rev().fold(many, |inner, &number| field(number, &inner));
    // IR version 8, operators of version 17.
    [b"\x08\x08".to_vec(), field(8, b"\x10\x11"), graph].concat()
}

/// The numbers are those of onnx-ml.proto.
#[test]
fn graphs() {
    let node = [field(1, b"a"), field(2, b"b"), field(4, b"Abs")].concat();
    let cases: [(&str, &[usize], Vec<u8>); 19] = [
        ("nodes", &[7], field(1, b"")),
        ("nodes that are sound", &[7], field(1, &node)),
        ("initializers", &[7], field(5, b"")),
        ("sparse initializers", &[7], field(15, b"")),
        ("inputs", &[7], field(11, b"")),
        ("value infos", &[7], field(13, b"")),
        ("dimensions of an input", &[7, 11, 2, 1, 2], field(1, b"")),
        ("elements of an initializer", &[7, 5], field(7, &[0; 1000])),
        ("inputs of a node", &[7, 1], field(1, b"")),
        ("attributes", &[7, 1], field(5, b"")),
        ("strings of an attribute", &[7, 1, 5], field(9, b"")),
        ("numbers of an attribute", &[7, 1, 5], field(8, &[0; 1000])),
        ("tensors of an attribute", &[7, 1, 5], field(10, b"")),
        ("graphs of an attribute", &[7, 1, 5], field(11, b"")),
        ("types of an attribute", &[7, 1, 5], field(15, b"")),
        ("nodes of a graph of an attribute", &[7, 1, 5, 6], field(1, b"")),
        ("functions", &[], field(25, b"")),
        ("metadata", &[], field(14, b"")),
        ("operator sets", &[], field(8, b"")),
    ];
    let folder = Folder::new();
    for (what, path, unit) in cases {
        let bytes = model_of_many(path, &unit);
        assert!(memory_of(&bytes) > MOST_MEMORY, "{what} make no bomb: {}", memory_of(&bytes));
        folder.write("bomb.onnx", bytes);
        is_refused(&folder, "bomb.onnx", &["inspect", "bomb.onnx"]);
    }
    // All other ways to a graph.
    let run = ["--inputs", "in.npz", "--outputs", "out.safetensors"];
    is_refused(&folder, "bomb.onnx", &[&["run", "bomb.onnx"], &run[..]].concat());
    for command in ["check", "selftest", "bench"] {
        is_refused(&folder, "bomb.onnx", &[command, "--onnx", "bomb.onnx"]);
    }
}

/// A million tensors that share one piece of a file.
#[test]
fn external_data() {
    let entry =
        |key: &str, value: &str| field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat());
    let tensor = |name: usize| {
        let dims = [b"\x08".to_vec(), varint(1 << 20)].concat();
        let float_and_external = b"\x10\x01\x70\x01".to_vec();
        let place = [field(8, name.to_string().as_bytes()), entry("location", "shared.bin")].concat();
        field(5, &[dims, float_and_external, place].concat())
    };
    let folder = Folder::new();
    folder.write("shared.bin", vec![0; 4 << 20]);
    let tensors: Vec<u8> = (0..1000).flat_map(tensor).collect();
    folder.write("bomb.onnx", [b"\x08\x08".to_vec(), field(8, b"\x10\x11"), field(7, &tensors)].concat());
    is_refused(&folder, "bomb.onnx", &["inspect", "bomb.onnx"]);
    // A few that share it, as tied weights do, are taken.
    let tensors: Vec<u8> = (0..4).flat_map(tensor).collect();
    folder.write("tied.onnx", [b"\x08\x08".to_vec(), field(8, b"\x10\x11"), field(7, &tensors)].concat());
    assert_eq!(limited(&folder, &["inspect", "tied.onnx"]).code, 0);
}

/// A zip archive with one entry of so many megabytes of one byte, compressed, behind these first
/// bytes.
fn archive(name: &str, start: &[u8], byte: u8, megabytes: usize) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .large_file(true);
    zip.start_file(name, options).unwrap();
    zip.write_all(start).unwrap();
    for _ in 0..megabytes {
        zip.write_all(&vec![byte; 1_000_000]).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The beginning of numpy's format, with a header of this length.
fn npy(header: &str) -> Vec<u8> {
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".to_vec(), length.to_vec(), header.as_bytes().to_vec()].concat()
}

#[test]
fn archives_of_arrays() {
    let folder = Folder::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000,), }";
    let bytes = archive("input_ids.npy", &npy(header), 0, 400);
    assert!(bytes.len() < 1_000_000);
    folder.write("bomb.npz", bytes);
    let longest = [b"\x93NUMPY\x02\x00".to_vec(), 400_000_000u32.to_le_bytes().to_vec()].concat();
    folder.write("header.npz", archive("input_ids.npy", &longest, b' ', 400));
    for bomb in ["bomb.npz", "header.npz"] {
        is_refused(&folder, bomb, &["check", "--inputs", bomb]);
        is_refused(&folder, bomb, &["bench", "--inputs", bomb]);
    }
    // A header that is read by following its brackets.
    folder.write("nested.npz", archive("input_ids.npy", &npy(&"(".repeat(9000)), 0, 0));
    limited(&folder, &["check", "--inputs", "nested.npz"]).is_mistake(&["nested.npz", "nested too deeply"]);
    folder.write("long.npz", archive("input_ids.npy", &npy(&"(".repeat(60_000)), 0, 0));
    limited(&folder, &["check", "--inputs", "long.npz"]).is_mistake(&["long.npz", "60000 bytes"]);
}

#[test]
fn test_folders() {
    let folder = Folder::new();
    // int64, and numbers of one byte each.
    folder.write("data/input_0.pb", [b"\x10\x07".to_vec(), field(7, &vec![0; SIZE])].concat());
    let graph = crate::common::in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    let args = ["run", &graph, "--inputs", "data", "--outputs", "out.safetensors"];
    is_refused(&folder, "data/input_0.pb", &args);
}

/// A safetensors file of a header alone.
fn safetensors(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

#[test]
fn headers_of_safetensors() {
    let folder = Folder::new();
    let tensor = |name: usize| format!(r#""{name:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
    let tensors: Vec<String> = (0..350_000).map(tensor).collect();
    folder.write("tensors.safetensors", safetensors(&format!("{{{}}}", tensors.join(","))));
    let shape = "0,".repeat(SIZE / 2);
    let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}0],"data_offsets":[0,0]}}}}"#);
    folder.write("shape.safetensors", safetensors(&header));
    for bomb in ["tensors.safetensors", "shape.safetensors"] {
        is_refused(&folder, bomb, &["check", "--inputs", bomb]);
    }
}

/// The embedded model's files, as a folder, with this one in the place of those.
fn model_with(file: &str, bytes: impl AsRef<[u8]>, without: &[&str]) -> Folder {
    let folder = Folder::new();
    for (name, bytes) in bert_tiny::FILES.iter().filter(|(name, _)| !without.contains(name)) {
        folder.write(&format!("model/{name}"), bytes);
    }
    folder.write(&format!("model/{file}"), bytes);
    folder
}

#[test]
fn tables_of_a_model() {
    let numbers = format!("[{}0]", "0,".repeat(SIZE / 2));
    let maps = format!("[{}{{}}]", "{\"\":0},".repeat(SIZE / 7));
    let index = format!(r#"{{"weight_map":{numbers}}}"#);
    let native = ["embed", "model", "--text", "a", "--engine", "reference"];
    for (file, bytes, without) in [
        ("config.json", &numbers, &[][..]),
        ("tokenizer.json", &maps, &[]),
        ("tokenizer_config.json", &maps, &[]),
        ("modules.json", &numbers, &[]),
        ("model.safetensors.index.json", &index, &["model.safetensors"]),
        ("vocab.txt", &"\n".repeat(SIZE), &["tokenizer.json"]),
    ] {
        is_refused(&model_with(file, bytes, without), file, &native);
    }
}

#[test]
fn saved_reports() {
    let folder = Folder::new();
    for (file, lists) in [("texts.json", "\"\",".repeat(SIZE / 3)), ("maps.json", "{},".repeat(SIZE / 3))] {
        let later = format!(r#"{{"schema":"parity-report/1","notes":[],"later":[{lists}0]}}"#);
        folder.write(file, later);
        is_refused(&folder, file, &["render", file]);
    }
}

/// What `torch.save` wrote before version 1.6: a magic number, the protocol, the byte order, and
/// then the object.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";

#[test]
fn checkpoints_of_pytorch() {
    let native = ["embed", "model", "--text", "a", "--engine", "reference"];
    let bomb = |bytes: Vec<u8>| model_with("pytorch_model.bin", bytes, &["model.safetensors"]);
    let archive = archive("m/data.pkl", b"", b'}', 400);
    is_refused(&bomb([&archive[..]].concat()), "pytorch_model.bin", &native);
    // Empty dicts, each kept under a number; the interpreter has a limit of its own.
    let mut dicts = [LEGACY, b"\x80\x02"].concat();
    for number in 0..SIZE as u32 / 6 {
        dicts.extend(b"}r");
        dicts.extend(number.to_le_bytes());
    }
    limited(&bomb(dicts), &native).is_mistake(&["pytorch_model.bin", "instructions"]);
}

#[test]
fn texts() {
    let folder = Folder::new();
    folder.write("lines.txt", "a ".repeat(SIZE / 2));
    folder.write("lines.jsonl", format!(r#"{{"text":"{}"}}"#, "a ".repeat(SIZE / 2)));
    for file in ["lines.txt", "lines.jsonl"] {
        let run = limited(&folder, &["embed", "--file", file]);
        run.is_mistake(&[file, "line 1", "longer than", "--max-memory"]);
    }
}

/// A stream without an end.
#[cfg(target_os = "linux")]
#[test]
fn streams() {
    let folder = Folder::new();
    for args in
        ["inspect -", "check --inputs -", "check --onnx -", "run - --inputs - --outputs out.safetensors"]
    {
        let script = format!("ulimit -v {}; cat /dev/zero | \"$0\" {args}", MOST_MEMORY / 1024);
        let mut command = folder.command("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_parity")]);
        let run = Run::of(few_threads(&mut command));
        run.is_mistake(&["standard input", "128 MiB", "--max-memory"]);
    }
}

/// The cure is one: what is refused is read where more is allowed, and what is taken is refused
/// where less is.
#[test]
fn the_limit_is_the_users() {
    let folder = Folder::new();
    let node = [field(2, b"b"), field(4, b"Abs"), field(1, b"b")].concat();
    let name = |number: usize| field(3, number.to_string().as_bytes());
    let nodes: Vec<u8> = (0..200_000).flat_map(|at| field(1, &[node.clone(), name(at)].concat())).collect();
    folder.write("many.onnx", [b"\x08\x08".to_vec(), field(8, b"\x10\x11"), field(7, &nodes)].concat());
    is_refused(&folder, "many.onnx", &["inspect", "many.onnx"]);
    // Then it is what it is: a graph in which a value is made twice.
    folder.run(&["inspect", "many.onnx", "--max-memory", "1G"]).is_mistake(&["'b'"]);
    let graph = crate::common::in_fixture("baseline", "onnx/ts17-eager-dynamic.onnx");
    folder.run(&["inspect", &graph]).exits(0);
    let run = folder.run(&["inspect", &graph, "--max-memory", "10K"]);
    run.is_mistake(&["more than 10 KiB of memory", "--max-memory"]);
}

/// A graph whose weights, two gigabytes of zeros, take no room on the disk is read as any other; so
/// is every graph of the fixtures, which others test.
#[cfg(target_os = "linux")]
#[test]
fn a_large_model_is_no_bomb() {
    let folder = Folder::new();
    let dims = [b"\x08".to_vec(), varint(1 << 29)].concat();
    let entry = field(13, &[field(1, b"location"), field(2, b"weights.bin")].concat());
    let tensor = field(5, &[dims, b"\x10\x01\x70\x01".to_vec(), field(8, b"w"), entry].concat());
    folder.write("large.onnx", [b"\x08\x08".to_vec(), field(8, b"\x10\x11"), field(7, &tensor)].concat());
    std::fs::File::create(folder.at("weights.bin")).unwrap().set_len(1 << 31).unwrap();
    let model = Model::open(folder.at("large.onnx")).unwrap();
    assert_eq!(model.graph.initializers["w"].bytes.len(), 1 << 31);
    folder.run(&["inspect", "large.onnx"]).exits(0);
}
