//! Tells ONNX from what else may lie under the name `model.onnx`: prost would read many a foreign file as a message of unknown fields,
//! and says of a file that was cut short only that the buffer ended.

use crate::{GraphError, NotOnnx};

/// Looks at the bytes before they are decoded.
///
/// # Errors
/// If they are empty, of another format, cut short, or no sequence of a model's fields.
pub(crate) fn sniff(file: &str, bytes: &[u8]) -> Result<(), GraphError> {
    let not_onnx = |found| Err(GraphError::NotOnnx { file: file.into(), found });
    if bytes.is_empty() {
        return not_onnx(NotOnnx::Empty);
    }
    match (walk(bytes), other_format(bytes)) {
        (Walk::Whole, _) => Ok(()),
        (_, Some(found)) => not_onnx(found),
        (Walk::Foreign, None) => not_onnx(NotOnnx::Unknown),
        (Walk::Truncated { field, missing }, None) => {
            Err(GraphError::Truncated { file: file.into(), field, missing })
        }
    }
}

/// Formats that are known by bytes at a fixed place. They are asked only about what is not a whole sequence of a model's fields.
const FORMATS: &[(usize, &[u8], &str)] = &[
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"RIFF", "a RIFF file, such as a WebP image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive; unpack it, or if it is a PyTorch checkpoint, export it to ONNX"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x7fELF", "a program"),
    (4, b"ORTM", "a model in ONNX Runtime's own format; use the .onnx file it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (8, b"{\"", "a safetensors file"),
];

fn other_format(bytes: &[u8]) -> Option<NotOnnx> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    if let Some((_, _, name)) =
        FORMATS.iter().find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
    {
        return Some(NotOnnx::Format(name));
    }
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii_start();
    let begins_with = |prefix: &str| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    if begins_with("version https://git-lfs") {
        Some(NotOnnx::GitLfs)
    } else if begins_with("<!doctype html") || begins_with("<html") {
        Some(NotOnnx::Html)
    } else if begins_with("<?xml") {
        Some(NotOnnx::Format("an XML document"))
    } else if begins_with("{\"") || begins_with("{\n") || begins_with("{\r") {
        Some(NotOnnx::Format("a JSON document"))
    } else {
        None
    }
}

/// What a walk over the outermost fields has found.
enum Walk {
    Whole,
    Truncated { field: &'static str, missing: u64 },
    Foreign,
}

/// The wire types of protobuf that are in use.
pub(crate) const VARINT: u64 = 0;
pub(crate) const FIXED64: u64 = 1;
pub(crate) const LENGTH_DELIMITED: u64 = 2;
pub(crate) const FIXED32: u64 = 5;

/// The fields of `ModelProto`: number, wire type, and what messages call it.
const FIELDS: &[(u64, u64, &str)] = &[
    (1, VARINT, "ir_version"),
    (2, LENGTH_DELIMITED, "producer_name"),
    (3, LENGTH_DELIMITED, "producer_version"),
    (4, LENGTH_DELIMITED, "domain"),
    (5, VARINT, "model_version"),
    (6, LENGTH_DELIMITED, "doc_string"),
    (7, LENGTH_DELIMITED, "graph"),
    (8, LENGTH_DELIMITED, "opset_import"),
    (14, LENGTH_DELIMITED, "metadata_props"),
    (20, LENGTH_DELIMITED, "training_info"),
    (25, LENGTH_DELIMITED, "functions"),
    (26, LENGTH_DELIMITED, "configuration"),
];

fn walk(bytes: &[u8]) -> Walk {
    let mut rest = bytes;
    let mut field = None;
    while !rest.is_empty() {
        let cut_short = |field: Option<&'static str>, missing| match field {
            Some(field) => Walk::Truncated { field, missing },
            // Not one known field so far: that says nothing about a model.
            None => Walk::Foreign,
        };
        let key = match varint(&mut rest) {
            Varint::Value(key) => key,
            Varint::Cut => return cut_short(field, 1),
            Varint::TooLong => return Walk::Foreign,
        };
        let (number, wire_type) = (key >> 3, key & 7);
        match FIELDS.iter().find(|(known, ..)| *known == number) {
            Some((_, expected, _)) if *expected != wire_type => return Walk::Foreign,
            Some((.., name)) => field = Some(*name),
            // Fields of a later version may follow, but nobody writes them first.
            None if number == 0 || field.is_none() => return Walk::Foreign,
            None => field = Some("last field"),
        }
        let length = match wire_type {
            FIXED64 => 8,
            FIXED32 => 4,
            VARINT | LENGTH_DELIMITED => match varint(&mut rest) {
                Varint::Value(length) if wire_type == LENGTH_DELIMITED => length,
                Varint::Value(_) => 0,
                Varint::Cut => return cut_short(field, 1),
                Varint::TooLong => return Walk::Foreign,
            },
            _ => return Walk::Foreign,
        };
        match usize::try_from(length).ok().and_then(|length| rest.get(length..)) {
            Some(after) => rest = after,
            None => return cut_short(field, length - rest.len() as u64),
        }
    }
    Walk::Whole
}

pub(crate) enum Varint {
    Value(u64),
    Cut,
    TooLong,
}

/// Takes a base-128 number off the front: <https://protobuf.dev/programming-guides/encoding/#varints>.
pub(crate) fn varint(rest: &mut &[u8]) -> Varint {
    const MAX_BYTES: usize = 10;
    let mut value = 0u64;
    for index in 0..MAX_BYTES {
        let Some((&byte, after)) = rest.split_first() else { return Varint::Cut };
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Varint::Value(value);
        }
    }
    Varint::TooLong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        sniff("m.onnx", bytes).unwrap_err().to_string()
    }

    #[test]
    fn other_formats_are_named() {
        for (bytes, name) in [
            (&b""[..], "it is empty"),
            (b"\x89PNG\r\n\x1a\n", "it is a PNG image"),
            (b"\xff\xd8\xff\xe0", "it is a JPEG image"),
            (b"\x18\0\0\0ORTM", "ONNX Runtime's own format"),
            (b"\x40\0\0\0\0\0\0\0{\"a\":{", "it is a safetensors file"),
            (b"\n<!DOCTYPE HTML><p>", "it is an HTML page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
            (b"{\"model_type\": \"bert\"}", "it is a JSON document"),
            (b"hello, world", "its bytes do not form one"),
        ] {
            let message = message(bytes);
            assert!(message.starts_with("m.onnx is not an ONNX model: it"), "{message}");
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn what_was_cut_short_says_so() {
        // ir_version 8, then a graph of 100 bytes of which there are 2
        let error = message(&[0x08, 8, 0x3a, 100, 0, 0]);
        assert!(error.contains("cut short: it breaks off in its graph, 98 bytes"), "{error}");
        // within a number
        assert!(message(&[0x08, 8, 0x3a, 0x80]).contains("breaks off in its graph, 1 byte"));
    }

    #[test]
    fn a_length_beyond_all_memory_is_only_a_cut() {
        let mut bytes = vec![0x08, 8, 0x3a];
        bytes.extend([0xff; 9]);
        bytes.push(0x01);
        assert!(message(&bytes).contains("cut short"));
    }

    #[test]
    fn later_versions_may_have_more_fields() {
        // field 30, length-delimited, 1 byte
        assert!(sniff("m.onnx", &[0x08, 8, 0xf2, 0x01, 1, 0]).is_ok());
        assert!(sniff("m.onnx", &[0xf2, 0x01, 1, 0, 0x08, 8]).is_err());
    }
}
