use std::io::{Cursor, Write};

use engine::DType;
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::view::View;
use super::*;

const ZIP: &[u8] = include_bytes!("../../../../tests/fixtures/checkpoints/zip/pytorch_model.bin");
const LEGACY: &[u8] = include_bytes!("../../../../tests/fixtures/checkpoints/legacy/pytorch_model.bin");
const EVIL_ZIP: &[u8] = include_bytes!("../../../../tests/fixtures/checkpoints/evil/zip.bin");
const EVIL_LEGACY: &[u8] = include_bytes!("../../../../tests/fixtures/checkpoints/evil/legacy.bin");

/// The pickles before the object of a file in the older format.
const LEGACY_START: &[u8] =
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";

/// A tensor as a pickle describes it.
#[derive(Clone)]
struct Described {
    name: &'static str,
    class: &'static str,
    key: &'static str,
    elements: i64,
    /// Only in the older format: where the part of the storage begins, and how long it is.
    part: Option<(i64, i64)>,
    offset: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// Six floats as two rows of three.
fn described() -> Described {
    Described {
        name: "w",
        class: "FloatStorage",
        key: "0",
        elements: 6,
        part: None,
        offset: 0,
        shape: vec![2, 3],
        strides: vec![3, 1],
    }
}

fn floats(values: impl IntoIterator<Item = u8>) -> Vec<u8> {
    values.into_iter().flat_map(|value| f32::from(value).to_le_bytes()).collect()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn integer(integer: i64) -> Vec<u8> {
    [b"\x8a\x08", &integer.to_le_bytes()[..]].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// The instructions that leave this tensor on the stack.
fn rebuild(tensor: &Described, legacy: bool) -> Vec<u8> {
    let mut id = vec![
        text("storage"),
        global("torch", tensor.class),
        text(tensor.key),
        text("cpu"),
        integer(tensor.elements),
    ];
    if legacy {
        id.push(tensor.part.map_or(b"N".to_vec(), |(offset, length)| {
            tuple(&[text("part"), integer(offset), integer(length)])
        }));
    }
    let sizes = |sizes: &[i64]| tuple(&sizes.iter().map(|&size| integer(size)).collect::<Vec<_>>());
    let arguments = tuple(&[
        [tuple(&id), b"Q".to_vec()].concat(),
        integer(tensor.offset),
        sizes(&tensor.shape),
        sizes(&tensor.strides),
        b"\x89".to_vec(),
        b"}".to_vec(),
    ]);
    [global("torch._utils", "_rebuild_tensor_v2"), arguments, b"R".to_vec()].concat()
}

/// The pickle of a dict with these items, each the instructions that leave a value on the stack.
fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items = items.iter().map(|(name, value)| [text(name), value.clone()].concat());
    [b"\x80\x02}(", &items.collect::<Vec<_>>().concat()[..], b"u."].concat()
}

fn state_dict(tensors: &[Described], legacy: bool) -> Vec<u8> {
    dict(&tensors.iter().map(|tensor| (tensor.name, rebuild(tensor, legacy))).collect::<Vec<_>>())
}

fn archive_with(method: CompressionMethod, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in records {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("m/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let records = [&[("data.pkl", pickle), ("byteorder", b"little")], storages].concat();
    archive_with(CompressionMethod::Stored, &records)
}

/// A file in the older format, with a storage behind each of its keys.
fn legacy(pickle: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let keys: Vec<u8> = storages.iter().flat_map(|(key, ..)| text(key)).collect();
    let data: Vec<u8> =
        storages.iter().flat_map(|(_, count, bytes)| [&count.to_le_bytes()[..], bytes].concat()).collect();
    [LEGACY_START, pickle, b"\x80\x02](", &keys, b"e.", &data].concat()
}

fn parse(bytes: impl Into<Bytes>) -> Result<Vec<TensorEntry>, TorchError> {
    entries(&Arc::from("x.bin"), "x.bin", &bytes.into())
}

fn message(bytes: impl Into<Bytes>) -> String {
    parse(bytes).unwrap_err().to_string()
}

fn values(entry: &TensorEntry) -> Vec<f32> {
    entry.to_value().unwrap().as_slice::<f32>().unwrap().to_vec()
}

/// The file of one tensor in each format.
fn both(tensor: &Described, storage: &[u8]) -> [Vec<u8>; 2] {
    let count = storage.len() as i64 / 4;
    [
        archive(&state_dict(std::slice::from_ref(tensor), false), &[("data/0", storage)]),
        legacy(&state_dict(std::slice::from_ref(tensor), true), &[("0", count, storage)]),
    ]
}

#[test]
fn views_of_a_storage_become_row_major() {
    let storage = floats(0..6);
    for (offset, shape, strides, expected, is_slice) in [
        (0, vec![2, 3], vec![3, 1], vec![0., 1., 2., 3., 4., 5.], true),
        (0, vec![3, 2], vec![1, 3], vec![0., 3., 1., 4., 2., 5.], false),
        (3, vec![3], vec![1], vec![3., 4., 5.], true),
        (1, vec![2], vec![3], vec![1., 4.], false),
        (5, vec![], vec![], vec![5.], true),
        (2, vec![2, 2], vec![0, 1], vec![2., 3., 2., 3.], false),
        // The stride of a dimension of one element says nothing.
        (2, vec![1, 2, 1], vec![77, 1, 99], vec![2., 3.], true),
        (0, vec![0, 3], vec![3, 1], vec![], true),
        (0, vec![2, 1, 2], vec![1, 9, 3], vec![0., 3., 1., 4.], false),
    ] {
        let tensor = Described { offset, shape: shape.clone(), strides, ..described() };
        for file in both(&tensor, &storage) {
            let file = Bytes::from(file);
            let entry = &parse(file.clone()).unwrap()[0];
            let sizes: Vec<i64> = entry.shape.iter().map(|&size| size as i64).collect();
            assert_eq!((&*entry.name, entry.dtype, sizes), ("w", DType::F32, shape.clone()));
            assert_eq!(values(entry), expected);
            assert_eq!(entry.offset.is_some(), is_slice, "{shape:?}");
            if let Some(offset) = entry.offset {
                assert_eq!(entry.bytes, file[offset as usize..][..entry.bytes.len()]);
                // No copy: the very bytes of the file.
                let is_same = entry.bytes.as_ptr() == file[offset as usize..].as_ptr();
                assert!(is_same || entry.bytes.is_empty());
            }
        }
    }
}

#[test]
fn tied_tensors_share_their_storage() {
    let tied = Described { name: "v", shape: vec![3, 2], strides: vec![1, 3], ..described() };
    for legacy_format in [false, true] {
        let pickle = state_dict(&[described(), tied.clone()], legacy_format);
        let storage = floats(0..6);
        let entries = parse(match legacy_format {
            false => archive(&pickle, &[("data/0", &storage)]),
            true => legacy(&pickle, &[("0", 6, &storage)]),
        });
        let entries = entries.unwrap();
        assert_eq!(entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["w", "v"]);
        assert_eq!(values(&entries[1]), [0., 3., 1., 4., 2., 5.]);
    }
}

#[test]
fn a_part_of_a_storage_is_a_storage_in_the_older_format() {
    let tensor = Described { part: Some((2, 3)), offset: 1, shape: vec![2], strides: vec![1], ..described() };
    let file = |tensor: Described| legacy(&state_dict(&[tensor], true), &[("0", 6, &floats(0..6))]);
    assert_eq!(values(&parse(file(tensor.clone())).unwrap()[0]), [3., 4.]);
    // A tensor stays within its part, and the part within the storage.
    let error = message(file(Described { offset: 2, ..tensor.clone() }));
    assert_eq!(error, "tensor 'w' of shape [2] reaches beyond its storage of 3 elements");
    for part in [(4, 3), (-1, 3), (i64::MAX, i64::MAX)] {
        let error = parse(file(Described { part: Some(part), ..tensor.clone() })).unwrap_err();
        assert!(matches!(error, TorchError::Layout { .. }), "{error}");
    }
}

#[test]
fn code_is_refused_by_name() {
    for file in [EVIL_ZIP, EVIL_LEGACY] {
        let error = message(file);
        assert!(error.contains("calls for posix.system,") && error.contains("was not run"), "{error}");
    }
    for (module, name) in
        [("builtins", "eval"), ("torch", "load"), ("torch", ""), ("", ""), ("torch.nn", "Linear")]
    {
        let error = message(archive(&dict(&[("w", global(module, name))]), &[]));
        assert!(error.contains(&format!("calls for {module}.{name},")), "{error}");
    }
    // By protocol 4's instruction; and with a name made to clear the terminal.
    let stacked = [text("nt"), text("sys\x1b[2J"), b"\x93".to_vec()].concat();
    let error = message(archive(&dict(&[("w", stacked)]), &[]));
    assert!(error.contains("calls for nt.sys\\u{1b}[2J,"), "{error}");
    assert!(message(archive(&dict(&[("w", global("m", &"x".repeat(9999)))]), &[])).len() < 200);
}

#[test]
fn instructions_that_state_dicts_do_not_need_are_refused() {
    // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1, PERSID, DUP, POP, GET, INT: whatever makes objects, and what protocol 2 writes in other ways.
    for opcode in *b"io\x81\x92\x82P20gI" {
        let file = archive(&[b"\x80\x02", &[opcode][..]].concat(), &[]);
        assert_eq!(
            message(file),
            format!(
                "its pickle has the instruction {opcode:#04x} at byte 2, which no state dict of plain tensors needs"
            )
        );
    }
}

#[test]
fn pickles_that_cannot_be_are_refused() {
    let rebuilt = rebuild(&described(), false);
    let hooked = [&rebuilt[..rebuilt.len() - 3], b"}K\x01K\x01stR"].concat();
    for (pickle, reason) in [
        (&b"\x80\x09N."[..], "its protocol is newer than any known"),
        (b"\x80\x02.", "it takes an object that is not there"),
        (b"\x80\x02N(.", "it takes an object that is not there"),
        (b"\x80\x02NN.", "it ends with more than one object"),
        (b"\x80\x02}t.", "it goes back to a mark that is not there"),
        (b"\x80\x02}(K\x01u.", "a key has no value"),
        (b"\x80\x02]K\x01K\x02s.", "it sets an item of what is not a dict"),
        (b"\x80\x02}K\x01a.", "it appends to what is not a list"),
        (b"\x80\x02h\x05.", "it recalls an object that was never kept"),
        (b"\x80\x02q\x05.", "it keeps an object that is not there"),
        (b"\x80\x02X\x01\0\0\0\xff.", "a text is not UTF-8"),
        (b"\x80\x02NQ.", "a storage's name is not a tuple"),
        (b"\x80\x02)Q.", "a storage is not as torch.save describes it"),
        (b"\x80\x02N)R.", "it calls what is not a function"),
        (b"\x80\x02ctorch\nSize\n)R.", "it does not call a function as torch.save does"),
        (b"\x80\x02ctorch\nSize\nNR.", "it calls with what is not a tuple"),
        (b"\x80\x02}}X\x01\0\0\0aK\x01sb.", "it sets attributes other than a state dict's"),
        (b"\x80\x02N}b.", "it sets attributes other than a state dict's"),
        (&dict(&[("w", hooked)]), "a tensor has hooks or metadata"),
    ] {
        let error = message(archive(pickle, &[("data/0", &floats(0..6))]));
        assert!(error.starts_with("its pickle is wrong at byte ") && error.ends_with(reason), "{error}");
    }
    for pickle in [&b""[..], b"\x80", b"\x80\x02", b"\x80\x02X\xff\xff\xff\xffabc", b"\x80\x02ctorch\nSize"] {
        let error = parse(archive(pickle, &[])).unwrap_err();
        assert!(matches!(error, TorchError::PickleTruncated { .. }), "{error}");
    }
}

#[test]
fn pickles_made_to_exhaust_a_reader_do_not() {
    let error = |pickle: &[u8]| message(archive(pickle, &[]));
    // Lists and dicts that hold themselves.
    assert!(error(b"\x80\x02]q\0h\0a.").contains("a list where a state dict is wanted"));
    assert!(error(b"\x80\x02}q\0X\x01\0\0\0ah\0s.").contains("a dict under the name 'a'"));
    // Each tuple holds the one before twice: 2^60 if anyone counted.
    let doubled = [b"N".to_vec(), b"q\0h\0\x86".repeat(60)].concat();
    assert!(error(&dict(&[("bomb", doubled)])).contains("a tuple under the name 'bomb'"));
    // One in the other, a million deep: neither to be read nor to be dropped with a stack that grows.
    let deep = [b")".to_vec(), b"\x85".repeat(1_000_000)].concat();
    assert!(error(&dict(&[("deep", deep)])).contains("a tuple under the name 'deep'"));
    let endless = [b"\x80\x02".to_vec(), b"(".repeat(pickle::MAX_INSTRUCTIONS)].concat();
    assert!(matches!(parse(archive(&endless, &[])), Err(TorchError::TooLong { .. })));
    // A shape of more dimensions than are allowed.
    let many = Described { shape: vec![1; 17], strides: vec![1; 17], ..described() };
    assert!(message(both(&many, &floats(0..6))[0].clone()).ends_with("are not a few integers"));
}

/// The instructions that leave a dict with this tensor on the stack.
fn tensors(tensor: &Described) -> Vec<u8> {
    [b"}".to_vec(), text(tensor.name), rebuild(tensor, false), b"s".to_vec()].concat()
}

/// What a training script saves, with the model under that name. The optimizer's state has tensors too, under numbers.
fn training(under: &str) -> Vec<u8> {
    let state = [b"}K\0".to_vec(), tensors(&described()), b"s".to_vec()].concat();
    dict(&[
        ("epoch", b"K\x03".to_vec()),
        ("ema", tensors(&described())),
        (under, tensors(&described())),
        ("optimizer", [b"}".to_vec(), text("state"), state, b"s".to_vec()].concat()),
    ])
}

#[test]
fn an_error_about_a_hostile_dict_is_short_and_soon_told() {
    // One name of a megabyte for everything, and a dict of a thousand tensors that is looked at under each.
    let long = text(&"x".repeat(1 << 20));
    let inner = (0..1000).flat_map(|_| [text("w"), rebuild(&described(), false)].concat());
    let inner = [b"}(".to_vec(), inner.collect(), b"u".to_vec()].concat();
    let mut pickle = [b"\x80\x02}(".to_vec(), long, b"q\0".to_vec(), inner, b"q\x01".to_vec()].concat();
    pickle.extend(b"h\0h\x01".repeat(50_000));
    pickle.extend(b"u.");
    let message = message(archive(&pickle, &[]));
    let cut = format!("{}…", "x".repeat(64));
    assert!(message.contains(&format!("lie under '{cut}', beside '{cut}', '{cut}'")), "{message}");
    assert!(message.contains(&format!("'{cut}', …; save")), "{message}");
    assert!(message.len() < 2000, "{}", message.len());
}

#[test]
fn the_key_of_a_storage_is_short() {
    let key: &'static str = "9".repeat(256).leak();
    let file = archive(&state_dict(&[Described { key, ..described() }], false), &[]);
    assert!(message(file).contains("its storage's key has more than 255 bytes"));
}

#[test]
fn what_is_no_state_dict_is_named() {
    for (pickle, expected) in [
        (b"\x80\x02N.".to_vec(), "it holds None where a state dict is wanted: save the model's state_dict()"),
        (
            [b"\x80\x02".to_vec(), rebuild(&described(), false), b".".to_vec()].concat(),
            "it holds a tensor where a state dict is wanted: save the model's state_dict()",
        ),
        (
            dict(&[("epoch", b"K\x03".to_vec())]),
            "it holds an integer under the name 'epoch', not a tensor: save the model's state_dict() alone",
        ),
        (
            dict(&[("state_dict", b"}".to_vec())]),
            "it holds a dict under the name 'state_dict', not a tensor: save the model's state_dict() alone",
        ),
        (
            training("state_dict"),
            "it is a training checkpoint: the model's tensors lie under 'state_dict', beside 'epoch', 'ema', 'optimizer'; \
             save them alone, in Python torch.save(torch.load(FILE, map_location='cpu')['state_dict'], 'pytorch_model.bin')",
        ),
        (
            dict(&[("net", tensors(&described()))]),
            "it is a training checkpoint: the model's tensors lie under 'net', beside nothing; \
             save them alone, in Python torch.save(torch.load(FILE, map_location='cpu')['net'], 'pytorch_model.bin')",
        ),
        (
            b"\x80\x02}K\x01K\x02s.".to_vec(),
            "it holds a dict whose keys are not names where a state dict is wanted: save the model's state_dict()",
        ),
        (state_dict(&[described(), described()], false), "two tensors are named 'w'"),
    ] {
        assert_eq!(message(archive(&pickle, &[("data/0", &floats(0..6))])), expected);
    }
    // A tensor that is made and then not used.
    let kept = [b"\x80\x02}q\0}X\x09\0\0\0_metadata".to_vec(), rebuild(&described(), false), b"sb.".to_vec()];
    assert_eq!(message(archive(&kept.concat(), &[])), "1 of its tensors have no name");
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_named() {
    let huge = i64::MAX;
    for (tensor, expected) in [
        (
            Described { offset: 1, ..described() },
            "tensor 'w' of shape [2, 3] reaches beyond its storage of 6 elements",
        ),
        (
            Described { strides: vec![4, 1], ..described() },
            "tensor 'w' of shape [2, 3] reaches beyond its storage of 6 elements",
        ),
        (
            Described { strides: vec![huge, huge], ..described() },
            "tensor 'w' of shape [2, 3] reaches beyond its storage of 6 elements",
        ),
        (Described { offset: -1, ..described() }, "tensor 'w' cannot be: its place is negative"),
        (Described { shape: vec![2, -3], ..described() }, "tensor 'w' cannot be: its shape is negative"),
        (Described { strides: vec![-3, 1], ..described() }, "tensor 'w' cannot be: its strides are negative"),
        (Described { elements: -6, ..described() }, "tensor 'w' cannot be: its storage has a negative size"),
        (
            Described { shape: vec![huge, huge], strides: vec![0, 0], ..described() },
            "tensor 'w' cannot be: its shape has more elements than can be counted",
        ),
        (
            Described { shape: vec![1 << 40], strides: vec![0], ..described() },
            "tensor 'w' would have to be unfolded to 4398046511104 bytes",
        ),
        (
            Described { elements: 7, ..described() },
            "tensor 'w' lies in storage '0' of 28 bytes, but the file has 24 bytes for it",
        ),
        (
            Described {
                class: "DoubleStorage",
                elements: 3,
                shape: vec![4],
                strides: vec![1],
                ..described()
            },
            "tensor 'w' of shape [4] reaches beyond its storage of 3 elements",
        ),
        (
            Described { class: "ComplexFloatStorage", elements: 3, ..described() },
            "tensor 'w' is complex64, which is not read",
        ),
    ] {
        for (file, format) in both(&tensor, &floats(0..6)).into_iter().zip(["zip", "legacy"]) {
            // The older format has a count of its own, which is compared with the pickle's: it is 6 here.
            if format == "zip" || tensor.elements == 6 || tensor.elements < 0 {
                let message = message(file);
                // What a file of this size may take is the budget's to say.
                let what = message.split(": x.bin would make more than 128 MiB").next();
                assert_eq!(what, Some(expected), "{format}");
            }
        }
    }
    // Many views, each small enough, are too much together.
    let views = ["a", "b", "c"].map(|name| Described {
        name,
        shape: vec![16_000_000],
        strides: vec![0],
        ..described()
    });
    let error = message(archive(&state_dict(&views, false), &[("data/0", &floats(0..6))]));
    assert!(error.contains("'c' would have to be unfolded"), "{error}");
}

#[test]
fn storages_must_be_those_that_tensors_lie_in() {
    let (storage, pickle) = (floats(0..6), state_dict(&[described()], false));
    assert_eq!(
        message(archive(&pickle, &[])),
        "tensor 'w' lies in storage '0', which the file does not have"
    );
    let both = [("data/0", &storage[..]), ("data/1", &storage[..])];
    assert_eq!(message(archive(&pickle, &both)), "no tensor lies in its storage '1'");

    let pickle = state_dict(&[described()], true);
    let message = |storages: &[(&str, i64, &[u8])]| message(legacy(&pickle, storages));
    assert_eq!(message(&[]), "tensor 'w' lies in storage '0', which the file does not have");
    assert_eq!(message(&[("0", 6, &storage), ("1", 6, &storage)]), "no tensor lies in its storage '1'");
    assert!(message(&[("0", 6, &storage), ("0", 6, &storage)]).ends_with("it lists a storage twice"));
    assert_eq!(message(&[("0", 6, &floats(0..8))]), "it has 8 bytes after its last tensor");
    assert!(message(&[("0", 7, &storage)]).ends_with("of 24 bytes, but the file has 28 bytes for it"));
    assert!(message(&[("0", -6, &storage)]).contains("tensor 'w' lies in storage '0' of 24 bytes, but"));
    // One storage under two types.
    let other = Described { name: "v", class: "IntStorage", ..described() };
    let error =
        parse(archive(&state_dict(&[described(), other], false), &[("data/0", &storage)])).unwrap_err();
    assert_eq!(error.to_string(), "tensor 'v' cannot be: its storage is of another type or size elsewhere");
}

#[test]
fn files_cut_short_are_refused_wherever_they_end() {
    // An odd step: all kinds of places, without a minute of tests.
    for end in (0..LEGACY.len()).step_by(13).chain(LEGACY.len() - 9..LEGACY.len()) {
        let error = parse(Bytes::from_static(&LEGACY[..end])).unwrap_err();
        // The storages are the last 24,000 bytes, and some more.
        if end > LEGACY.len() - 20_000 {
            assert!(matches!(error, TorchError::Truncated { .. }), "{end}: {error}");
        }
    }
    let error = message(Bytes::from_static(&LEGACY[..LEGACY.len() - 1]));
    assert!(error.starts_with("it is cut short within tensor 'pooler.dense."), "{error}");
    assert!(
        error.ends_with(&format!("at least {} bytes, and has {}", LEGACY.len(), LEGACY.len() - 1)),
        "{error}"
    );
    for end in (0..ZIP.len()).step_by(97).chain(ZIP.len() - 9..ZIP.len()) {
        assert!(parse(Bytes::from_static(&ZIP[..end])).is_err(), "{end}");
    }
}

#[test]
fn other_files_are_recognised() {
    for (bytes, expected) in [
        (&b""[..], "it is empty"),
        (b"<!DOCTYPE html>", "it is a web page"),
        (b"\x02\0\0\0\0\0\0\0{}", "it is a safetensors file"),
        (b"\x80\x02\0\0\0\0\0\0{}", "it is a safetensors file"),
        (b"once upon a time", "it is neither a zip archive nor a pickle"),
        (b"\x80\x04K\x01.", "it is a pickle, but not one that torch.save wrote"),
    ] {
        assert_eq!(message(bytes), format!("it is not a PyTorch checkpoint: {expected}"));
    }
    let records = |records: &[(&str, &[u8])]| message(archive_with(CompressionMethod::Stored, records));
    assert!(records(&[("code.py", b"")]).ends_with("it is a zip archive without a data.pkl"));
    assert!(records(&[("inner/data.pkl", b"")]).ends_with("it is a zip archive without a data.pkl"));
    assert!(records(&[("data.pkl", b""), ("constants.pkl", b"")]).starts_with("it is a TorchScript program"));
    assert!(records(&[("data.pkl", b""), ("byteorder", b"big")]).contains("big-endian"));
    assert!(records(&[("data.pkl", b""), ("byteorder", b"?")]).contains("neither 'little' nor 'big'"));
    let big = LEGACY_START.strip_suffix(b"\x88s.").unwrap();
    assert!(message([big, b"\x89s."].concat()).contains("big-endian"));
    assert!(message([big, b"Ns."].concat()).ends_with("does not tell its byte order"));
}

#[test]
fn compressed_records_are_unpacked_within_bounds() {
    let tensor = Described { elements: 600, shape: vec![600], strides: vec![1], ..described() };
    let (pickle, storage) = (state_dict(&[tensor], false), floats((0..600u32).map(|i| i as u8)));
    let packed = archive_with(CompressionMethod::Deflated, &[("data.pkl", &pickle), ("data/0", &storage)]);
    let entry = &parse(packed).unwrap()[0];
    assert_eq!((&entry.bytes[..], entry.offset), (&storage[..], None));

    // Megabytes of zeros in a few kilobytes.
    let tensor = Described { elements: 1 << 26, ..described() };
    let (pickle, storage) = (state_dict(&[tensor], false), vec![0; 256 << 20]);
    let packed = archive_with(CompressionMethod::Deflated, &[("data.pkl", &pickle), ("data/0", &storage)]);
    assert!(message(packed).contains("'data/0' would have to be unfolded to 268435456 bytes: "));
}

#[test]
fn what_python_2_wrote_is_read() {
    // Texts of bytes, and the items of an OrderedDict as an argument.
    let short = |text: &str| [b"U", &[text.len() as u8][..], text.as_bytes()].concat();
    let pair = [b"](".to_vec(), short("w"), rebuild(&described(), true), b"e".to_vec()].concat();
    let items = [b"]".to_vec(), pair, b"a".to_vec()].concat();
    let ordered = [global("collections", "OrderedDict"), tuple(&[items]), b"R".to_vec()].concat();
    let file = legacy(&[b"\x80\x02", &ordered[..], b"."].concat(), &[("0", 6, &floats(0..6))]);
    assert_eq!(values(&parse(file).unwrap()[0]), [0., 1., 2., 3., 4., 5.]);
}

/// Reads everything there is to read, and checks that it is in order.
fn walk(bytes: Vec<u8>) {
    let file = Bytes::from(bytes);
    let Ok(entries) = parse(file.clone()) else { return };
    for entry in entries {
        assert_eq!(entry.bytes.len(), entry.shape.iter().product::<usize>() * entry.dtype.size());
        if let Some(offset) = entry.offset {
            assert_eq!(entry.bytes, file[offset as usize..][..entry.bytes.len()]);
        }
    }
}

/// The file with other bytes in some places among its first ones.
fn damaged(file: &[u8], edits: &[(prop::sample::Index, u8)], among: usize) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for (at, byte) in edits {
        let at = at.index(among.min(bytes.len()));
        bytes[at] = *byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        walk(bytes.clone());
        walk([b"PK\x03\x04", &bytes[..]].concat());
        walk([LEGACY_START, &bytes].concat());
        walk(archive(&bytes, &[("data/0", &floats(0..6))]));
    }

    #[test]
    fn a_damaged_file_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        walk(damaged(LEGACY, &edits, 6600));
        walk(damaged(ZIP, &edits, ZIP.len()));
        let tensors = [described(), Described { name: "v", offset: 1, shape: vec![2], strides: vec![2], ..described() }];
        let pickle = damaged(&state_dict(&tensors, false), &edits, usize::MAX);
        walk(archive(&pickle, &[("data/0", &floats(0..6))]));
        let pickle = state_dict(&tensors, true);
        let file = legacy(&pickle, &[("0", 6, &floats(0..6))]);
        walk(damaged(&file, &edits, usize::MAX));
    }

    #[test]
    fn any_instructions_that_are_known_never_panic(
        program in prop::collection::vec(prop::sample::select(b"(NJKMGXU]})t\x85\x86\x87qrhjaesucQRb\x88\x89\x8a\x8c\x93\x94\x95.\0\x01\n".to_vec()), 0..200),
    ) {
        walk(archive(&[b"\x80\x04", &program[..]].concat(), &[("data/0", &floats(0..6))]));
    }

    #[test]
    fn a_view_is_what_its_strides_say(
        dimensions in prop::collection::vec((0usize..5, 0usize..7), 0..4),
        offset in 0usize..6,
        elements in 0usize..60,
    ) {
        let (shape, strides): (Vec<usize>, Vec<usize>) = dimensions.into_iter().unzip();
        let storage: Bytes = (0..4 + 2 * elements).map(|i| i as u8).collect::<Vec<_>>().into();
        let view = View { begin: 4, elements, offset, shape: shape.clone(), strides: strides.clone() };
        // Every index, last dimension fastest.
        let mut places = vec![offset];
        for (&size, &stride) in shape.iter().zip(&strides) {
            places = places.iter().flat_map(|place| (0..size).map(move |i| place + i * stride)).collect();
        }
        let read = view.read("t", DType::F16, &storage, &mut Budget::of("t", u64::MAX));
        if places.iter().all(|&place| place < elements) {
            let expected: Vec<u8> = places.iter().flat_map(|place| storage[4 + 2 * place..][..2].to_vec()).collect();
            prop_assert_eq!(&read.unwrap().0[..], &expected[..]);
        } else {
            let is_outside = matches!(read, Err(TorchError::OutOfStorage { .. }));
            prop_assert!(is_outside);
        }
    }
}
