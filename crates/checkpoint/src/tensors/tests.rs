use engine::ValueError;
use proptest::prelude::*;

use super::*;

/// A safetensors file with that header and that many bytes of data, counting up from 0.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..data).map(|i| i as u8));
    file
}

const TWO: &str = r#"{"__metadata__":{"format":"pt"},
    "late":{"dtype":"F32","shape":[2,2],"data_offsets":[3,19]},
    "early":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;

fn parse(bytes: impl Into<Bytes>) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::from_safetensors("x.safetensors", bytes.into())
}

fn message(bytes: impl Into<Bytes>) -> String {
    parse(bytes).unwrap_err().to_string()
}

#[test]
fn a_tensor_can_be_replaced() {
    let checkpoint = parse(file(TWO, 19)).unwrap();
    let early = checkpoint.get("early").unwrap();
    let other = TensorEntry { dtype: DType::I8, bytes: vec![9u8, 9, 9].into(), ..early.clone() };
    let replaced = checkpoint.replacing([other]);
    assert_eq!(replaced.names().collect::<Vec<_>>(), ["early", "late"]);
    assert_eq!(replaced.get("early").unwrap().to_value().unwrap(), Value::new([3], vec![9i8; 3]).unwrap());
    assert_eq!(replaced.get("late").unwrap().bytes, checkpoint.get("late").unwrap().bytes);
    // The first is what it was.
    assert_eq!(checkpoint.get("early").unwrap().dtype, DType::U8);
}

#[test]
fn tensors_come_in_file_order_with_their_place() {
    let bytes = Bytes::from(file(TWO, 19));
    let checkpoint = parse(bytes.clone()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["early", "late"]);
    assert_eq!((checkpoint.len(), checkpoint.is_empty()), (2, false));

    let late = checkpoint.get("late").unwrap();
    assert_eq!((late.dtype, &late.shape[..], &*late.file), (DType::F32, &[2, 2][..], "x.safetensors"));
    // The offset is that of the bytes in the whole file, and the bytes are the file's own, not a copy.
    let offset = late.offset.unwrap() as usize;
    assert_eq!(offset, 8 + TWO.len() + 3);
    assert_eq!(late.bytes, bytes[offset..][..16]);
    assert_eq!(late.bytes.as_ptr(), bytes[offset..].as_ptr());
    // They begin at an odd place: values need no alignment.
    let first = f32::from_le_bytes([3, 4, 5, 6]);
    assert_eq!(late.to_value().unwrap().as_slice::<f32>().unwrap()[0], first);
    assert!(checkpoint.get("__metadata__").is_none());
}

#[test]
fn a_file_on_disk_is_known_by_its_name_and_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, file(TWO, 19)).unwrap();
    let checkpoint = Checkpoint::open_safetensors(&path).unwrap();
    assert_eq!(&*checkpoint.get("early").unwrap().file, "model.safetensors");

    std::fs::write(&path, &file(TWO, 19)[..100]).unwrap();
    let error = Checkpoint::open_safetensors(&path).unwrap_err().to_string();
    assert!(error.starts_with(&path.display().to_string()), "{error}");
}

#[test]
fn every_dtype_of_a_value_is_read() {
    let pairs = [
        ("BOOL", DType::Bool),
        ("U8", DType::U8),
        ("I8", DType::I8),
        ("U16", DType::U16),
        ("I16", DType::I16),
        ("F16", DType::F16),
        ("BF16", DType::BF16),
        ("U32", DType::U32),
        ("I32", DType::I32),
        ("F32", DType::F32),
        ("U64", DType::U64),
        ("I64", DType::I64),
        ("F64", DType::F64),
    ];
    for (name, dtype) in pairs {
        let size = dtype.size();
        let header = format!(r#"{{"t":{{"dtype":"{name}","shape":[],"data_offsets":[0,{size}]}}}}"#);
        let checkpoint = parse(file(&header, size)).unwrap();
        assert_eq!(checkpoint.get("t").unwrap().to_value().unwrap().dtype(), dtype);
    }
}

#[test]
fn a_file_cut_short_tells_both_sizes() {
    let whole = file(TWO, 19);
    let size = whole.len();
    // Anywhere in the data or in the header, down to its first byte.
    assert_eq!(
        message(whole[..size - 1].to_vec()),
        format!(
            "x.safetensors is truncated: the header promises {size} bytes, the file has {}; download or copy it again",
            size - 1
        )
    );
    let header_end = 8 + TWO.len();
    assert_eq!(
        message(whole[..20].to_vec()),
        format!(
            "x.safetensors is truncated: the header promises {header_end} bytes, the file has 20; download or copy it again"
        )
    );
    assert!(matches!(parse(whole[..8].to_vec()), Err(CheckpointError::Truncated { .. })));
    assert!(message(whole[..7].to_vec()).contains("too short to have a header"));
    assert!(message(Vec::new()).contains("too short to have a header"));
}

#[test]
fn bytes_after_the_last_tensor_are_refused() {
    let mut long = file(TWO, 19);
    long.push(0);
    assert!(matches!(parse(long), Err(CheckpointError::TrailingBytes { .. })));
}

#[test]
fn other_files_are_recognised() {
    assert!(message(&b"PK\x03\x04 and so on"[..]).contains("it is a PyTorch pickle file"));
    assert!(message(&b"\x80\x02\x8a\x0a and so on"[..]).contains("it is a PyTorch pickle file"));
    assert!(message(&b"<!DOCTYPE html>"[..]).contains("it is a web page"));
    assert!(message(&b"once upon a time"[..]).contains("not the length of a header"));
    assert!(message(vec![1, 0, 0, 0, 0, 0, 0, 0, b'[']).contains("does not start with '{'"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n";
    assert!(matches!(parse(pointer), Err(CheckpointError::GitLfs { .. })));
}

#[test]
fn a_header_whose_length_looks_like_a_pickle_is_read() {
    let header = format!("{TWO:<640}");
    let bytes = file(&header, 19);
    assert_eq!(bytes[..2], *b"\x80\x02");
    assert_eq!(parse(bytes).unwrap().len(), 2);
}

#[test]
fn headers_that_cannot_be_are_refused() {
    for (header, data, part) in [
        ("{nonsense", 0, "key must be a string"),
        (r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}}"#, 3, "invalid shape"),
        (r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8, "invalid offset for tensor `t`"),
        (r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#, 8, "invalid offset for tensor `t`"),
        (r#"{"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, "invalid value"),
        (r#"{"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0, "overflow"),
        (r#"{"t":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#, 4, "unknown variant `F99`"),
    ] {
        let error = message(file(header, data));
        assert!(error.starts_with("the safetensors header of x.safetensors is wrong: "), "{error}");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn sizes_whose_sum_overflows_are_refused() {
    // Each tensor's size is possible, their sum wraps around when the header's own length is added.
    let most = usize::MAX / 8;
    let mut header = String::from("{");
    for i in 0..8 {
        let (begin, end) = (i * most, (i + 1) * most);
        header.push_str(&format!(
            r#""t{i}":{{"dtype":"U8","shape":[{most}],"data_offsets":[{begin},{end}]}},"#
        ));
    }
    let (begin, end) = (8 * most, 8 * most + 7);
    header.push_str(&format!(r#""last":{{"dtype":"U8","shape":[7],"data_offsets":[{begin},{end}]}}}}"#));
    assert_eq!(end, usize::MAX);
    assert!(matches!(parse(file(&header, 0)), Err(CheckpointError::Truncated { .. })));
}

#[test]
fn a_dtype_that_is_not_read_names_its_tensor() {
    let header = r#"{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}"#;
    assert_eq!(
        message(file(header, 4)),
        "tensor 'w' in x.safetensors is F8_E4M3, which is not read: save it as F32"
    );
}

#[test]
fn a_bad_bool_names_its_tensor() {
    let header = r#"{"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let checkpoint = parse(file(header, 3)).unwrap();
    let error = checkpoint.get("mask").unwrap().to_value().unwrap_err();
    assert!(matches!(
        &error,
        CheckpointError::Value { tensor, source: ValueError::NotABool { index: 2, found: 2 }, .. } if tensor == "mask"
    ));
}

#[test]
fn empty_tensors_keep_one_order() {
    let empty = |name: char| format!(r#""{name}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
    let header = format!("{{{}}}", ['d', 'b', 'a', 'c'].map(empty).join(","));
    let checkpoint = parse(file(&header, 0)).unwrap();
    assert_eq!(checkpoint.names().collect::<String>(), "abcd");
}

#[test]
fn debug_output_has_no_weights() {
    let checkpoint = parse(file(TWO, 19)).unwrap();
    let place = 8 + TWO.len();
    assert_eq!(
        format!("{:?}", checkpoint.get("early").unwrap()),
        format!("early: u8[3] at {place} of x.safetensors")
    );
    assert!(format!("{checkpoint:?}").len() < 200);
}

/// Reads everything there is to read, and checks that it is in order.
fn walk(bytes: Vec<u8>) {
    let size = bytes.len();
    let Ok(checkpoint) = parse(bytes) else { return };
    for entry in checkpoint.iter() {
        assert!(entry.offset.unwrap() as usize + entry.bytes.len() <= size);
        match entry.to_value() {
            Ok(value) => assert_eq!(value.shape(), entry.shape),
            Err(error) => assert!(matches!(error, CheckpointError::Value { .. }), "{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_file_never_panics(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        digits in proptest::collection::vec((any::<proptest::sample::Index>(), b'0'..=b'9'), 0..4),
        keep in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = file(TWO, 19);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Other digits in the header leave it JSON, so that these get further than most edits.
        let places: Vec<usize> = (8..8 + TWO.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
        for (at, digit) in digits {
            if !places.is_empty() {
                bytes[places[at.index(places.len())]] = digit;
            }
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        walk(bytes);
    }

    #[test]
    fn any_header_of_the_right_form_never_panics(
        tensors in proptest::collection::vec((0usize..5, 0usize..5, any::<u16>(), 0usize..40, 0usize..40), 0..4),
        data in 0usize..80,
    ) {
        let dtypes = ["BOOL", "F4", "F16", "F32", "I64"];
        let entries: Vec<String> = tensors
            .iter()
            .enumerate()
            .map(|(i, &(dtype, rows, columns, begin, end))| {
                let columns = if columns % 3 == 0 { usize::MAX } else { usize::from(columns % 5) };
                format!(
                    r#""t{i}":{{"dtype":"{}","shape":[{rows},{columns}],"data_offsets":[{begin},{end}]}}"#,
                    dtypes[dtype]
                )
            })
            .collect();
        walk(file(&format!("{{{}}}", entries.join(",")), data));
    }
}
