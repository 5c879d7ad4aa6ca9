use engine::memory::OverBudget;

/// Why a file is not read as a PyTorch checkpoint. A place `at` is counted in bytes from the start
/// of its pickle; the tensor of a storage is the first that lies in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the messages show what the fields are")]
pub enum TorchError {
    /// The file is neither of the two formats that `torch.save` writes.
    #[error("it is not a PyTorch checkpoint: {0}")]
    Unrecognised(&'static str),
    /// The archive around the tensors cannot be read.
    #[error("it is damaged or cut short: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// The archive is there, and something in it is not what `torch.save` writes.
    #[error("its archive is wrong: {record} {reason}")]
    Record { record: String, reason: &'static str },
    /// Written by `torch.jit.save`: a program beside its weights.
    #[error("it is a TorchScript program, not a checkpoint: save the model's state_dict() instead")]
    TorchScript,
    /// Written on a machine of the other byte order.
    #[error("its numbers are big-endian, which is not read: save it again on a little-endian machine")]
    BigEndian,
    /// The pickle calls for something that plain tensors do not need. Nothing of it was run.
    #[error(
        "its pickle calls for {global}, and only plain tensors are read: it may hold code, and was not run"
    )]
    Code { global: String },
    /// The pickle uses an instruction that plain tensors do not need.
    #[error(
        "its pickle has the instruction {opcode:#04x} at byte {at}, which no state dict of plain tensors needs"
    )]
    Opcode { opcode: u8, at: usize },
    /// The pickle ends before it is whole.
    #[error("its pickle is cut short at byte {at}")]
    PickleTruncated { at: usize },
    /// The pickle is not well formed, or does what no state dict of plain tensors does.
    #[error("its pickle is wrong at byte {at}: {reason}")]
    Pickle { at: usize, reason: &'static str },
    /// The pickle has more instructions than any model needs.
    #[error("its pickle has more than {limit} instructions, more than any model needs")]
    TooLong { limit: usize },
    /// What was saved is not a dict of names and tensors.
    #[error("it holds {found} where a state dict is wanted: save the model's state_dict()")]
    NotAStateDict { found: &'static str },
    /// Something in the dict is not a tensor.
    #[error("it holds {found} under the name '{name}', not a tensor: save the model's state_dict() alone")]
    NotATensor { name: String, found: &'static str },
    /// What a training script saves: the model's state dict is one of several things.
    #[error(
        "it is a training checkpoint: the model's tensors lie under '{under}', beside {beside}; save them alone, in Python \
         torch.save(torch.load(FILE, map_location='cpu')['{under}'], 'pytorch_model.bin')"
    )]
    Training { under: String, beside: String },
    /// Two tensors have one name.
    #[error("two tensors are named '{name}'")]
    NamedTwice { name: String },
    /// The pickle makes tensors that it then gives no name.
    #[error("{count} of its tensors have no name")]
    Nameless { count: usize },
    /// A tensor is of a dtype that is not one of [`engine::DType`].
    #[error("tensor '{tensor}' is {dtype}, which is not read")]
    DType { tensor: String, dtype: &'static str },
    /// A tensor's shape, strides and place cannot be.
    #[error("tensor '{tensor}' cannot be: {reason}")]
    Layout { tensor: String, reason: &'static str },
    /// A tensor reaches beyond its storage.
    #[error("tensor '{tensor}' of shape {shape:?} reaches beyond its storage of {elements} elements")]
    OutOfStorage { tensor: String, shape: Vec<usize>, elements: usize },
    /// The file does not hold a tensor's storage.
    #[error("tensor '{tensor}' lies in storage '{storage}', which the file does not have")]
    NoStorage { tensor: String, storage: String },
    /// A storage is of another size than the pickle says.
    #[error(
        "tensor '{tensor}' lies in storage '{storage}' of {promised} bytes, but the file has {found} bytes for it"
    )]
    StorageSize { tensor: String, storage: String, promised: u64, found: u64 },
    /// The file ends within a storage.
    #[error(
        "it is cut short within tensor '{tensor}': it must have at least {promised} bytes, and has {found}"
    )]
    Truncated { tensor: String, promised: u64, found: u64 },
    /// The file has a storage that no tensor lies in.
    #[error("no tensor lies in its storage '{storage}'")]
    UnusedStorage { storage: String },
    /// The file goes on after its last storage.
    #[error("it has {bytes} bytes after its last tensor")]
    TrailingBytes { bytes: u64 },
    /// Tensors that do not lie in one piece would take far more memory than the file has bytes. The
    /// `tensor`, or record of an archive, is the one at which it became too much.
    #[error("tensor '{tensor}' would have to be unfolded to {bytes} bytes: {source}")]
    Unfolded { tensor: String, bytes: u64, source: OverBudget },
    /// What the file describes would take far more memory than it has bytes.
    #[error(transparent)]
    Memory(#[from] OverBudget),
}

impl TorchError {
    /// What to do about a damaged file, where the message does not say it.
    pub(crate) fn cure(&self) -> &'static str {
        match self {
            Self::TorchScript
            | Self::BigEndian
            | Self::NotAStateDict { .. }
            | Self::NotATensor { .. }
            | Self::Training { .. }
            | Self::Unfolded { .. }
            | Self::Memory(_) => "",
            Self::DType { .. } => ": save it as float32",
            Self::Code { .. } | Self::Opcode { .. } | Self::TooLong { .. } | Self::Nameless { .. } => {
                "; save the model's state_dict() alone, or as safetensors"
            }
            _ => "; download it again, or save the model's state_dict() again",
        }
    }
}
