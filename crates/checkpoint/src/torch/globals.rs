//! The names that the pickle of plain tensors may call for. There are no others.

use engine::DType;

use super::TorchError;

/// What a storage's elements are, or a tensor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// A dtype, as PyTorch spells it.
    Typed(&'static str),
    /// Bytes, whose dtype the tensor tells: how PyTorch saves the dtypes that have no storage class.
    Byte,
}

/// What a pickle may call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Size,
    Parameter,
    Tensor,
    TensorV2,
    TensorV3,
    Storage(Element),
    DType(&'static str),
}

/// Each storage class, the dtype of its elements, and that dtype here: no class where there is none, `None` where the dtype
/// is not read.
const DTYPES: [(&str, &str, Option<DType>); 19] = [
    ("FloatStorage", "float32", Some(DType::F32)),
    ("DoubleStorage", "float64", Some(DType::F64)),
    ("HalfStorage", "float16", Some(DType::F16)),
    ("BFloat16Storage", "bfloat16", Some(DType::BF16)),
    ("LongStorage", "int64", Some(DType::I64)),
    ("IntStorage", "int32", Some(DType::I32)),
    ("ShortStorage", "int16", Some(DType::I16)),
    ("CharStorage", "int8", Some(DType::I8)),
    ("ByteStorage", "uint8", Some(DType::U8)),
    ("BoolStorage", "bool", Some(DType::Bool)),
    ("ComplexFloatStorage", "complex64", None),
    ("ComplexDoubleStorage", "complex128", None),
    ("", "uint16", Some(DType::U16)),
    ("", "uint32", Some(DType::U32)),
    ("", "uint64", Some(DType::U64)),
    ("", "float8_e4m3fn", None),
    ("", "float8_e5m2", None),
    ("", "float8_e4m3fnuz", None),
    ("", "float8_e5m2fnuz", None),
];

impl Global {
    /// The one of that name.
    pub fn named(module: &str, name: &str) -> Result<Self, TorchError> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch", "Size") => Some(Self::Size),
            ("torch._utils", "_rebuild_parameter") => Some(Self::Parameter),
            ("torch._utils", "_rebuild_tensor") => Some(Self::Tensor),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::TensorV2),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::TensorV3),
            ("torch.storage" | "torch", "UntypedStorage") => Some(Self::Storage(Element::Byte)),
            ("torch", name) => DTYPES.iter().find_map(|&(class, dtype, _)| match name {
                name if name == dtype => Some(Self::DType(dtype)),
                name if name == class && !class.is_empty() => Some(Self::Storage(Element::Typed(dtype))),
                _ => None,
            }),
            _ => None,
        };
        found.ok_or_else(|| TorchError::Code { global: shortened(module, name) })
    }
}

/// The dtype of that name; `None` if it is not read.
pub(super) fn dtype(name: &str) -> Option<DType> {
    DTYPES.iter().find(|(_, dtype, _)| *dtype == name).and_then(|&(_, _, dtype)| dtype)
}

/// For a message: a hostile name may be as long as the file, and hold what moves a terminal's cursor.
fn shortened(module: &str, name: &str) -> String {
    const LONGEST: usize = 60;
    let full = module.chars().chain(['.']).chain(name.chars());
    full.take(LONGEST).flat_map(char::escape_debug).collect()
}
