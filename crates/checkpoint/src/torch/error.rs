use engine::memory::OverBudget;

/// Why a file is not read as a PyTorch checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The file is neither of the two formats that `torch.save` writes.
    #[error("it is not a PyTorch checkpoint: {0}")]
    Unrecognised(&'static str),
    /// The archive around the tensors cannot be read.
    #[error("it is damaged or cut short: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// The archive is there, and something in it is not what `torch.save` writes.
    #[error("its archive is wrong: {record} {reason}")]
    Record {
        /// The name of the record.
        record: String,
        /// What is wrong with it.
        reason: &'static str,
    },
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
    Code {
        /// What it calls for, `posix.system` say.
        global: String,
    },
    /// The pickle uses an instruction that plain tensors do not need.
    #[error(
        "its pickle has the instruction {opcode:#04x} at byte {at}, which no state dict of plain tensors needs"
    )]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Where it lies, counted from the pickle's start.
        at: usize,
    },
    /// The pickle ends before it is whole.
    #[error("its pickle is cut short at byte {at}")]
    PickleTruncated {
        /// Where the instruction that is not whole begins, counted from the pickle's start.
        at: usize,
    },
    /// The pickle is not well formed, or does what no state dict of plain tensors does.
    #[error("its pickle is wrong at byte {at}: {reason}")]
    Pickle {
        /// Where the instruction lies, counted from the pickle's start.
        at: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The pickle has more instructions than any model needs.
    #[error("its pickle has more than {limit} instructions, more than any model needs")]
    TooLong {
        /// The most that are followed.
        limit: usize,
    },
    /// What was saved is not a dict of names and tensors.
    #[error("it holds {found} where a state dict is wanted: save the model's state_dict()")]
    NotAStateDict {
        /// What it holds, for a person to read.
        found: &'static str,
    },
    /// Something in the dict is not a tensor.
    #[error("it holds {found} under the name '{name}', not a tensor: save the model's state_dict() alone")]
    NotATensor {
        /// The name.
        name: String,
        /// What is there, for a person to read.
        found: &'static str,
    },
    /// What a training script saves: the model's state dict is one of several things.
    #[error(
        "it is a training checkpoint: the model's tensors lie under '{under}', beside {beside}; save them alone, in Python \
         torch.save(torch.load(FILE, map_location='cpu')['{under}'], 'pytorch_model.bin')"
    )]
    Training {
        /// The name of the model's state dict.
        under: String,
        /// What else the file holds, for a person to read.
        beside: String,
    },
    /// Two tensors have one name.
    #[error("two tensors are named '{name}'")]
    NamedTwice {
        /// The name.
        name: String,
    },
    /// The pickle makes tensors that it then gives no name.
    #[error("{count} of its tensors have no name")]
    Nameless {
        /// How many.
        count: usize,
    },
    /// A tensor is of a dtype that is not one of [`engine::DType`].
    #[error("tensor '{tensor}' is {dtype}, which is not read")]
    DType {
        /// The tensor.
        tensor: String,
        /// Its dtype, as PyTorch spells it.
        dtype: &'static str,
    },
    /// A tensor's shape, strides and place cannot be.
    #[error("tensor '{tensor}' cannot be: {reason}")]
    Layout {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A tensor reaches beyond its storage.
    #[error("tensor '{tensor}' of shape {shape:?} reaches beyond its storage of {elements} elements")]
    OutOfStorage {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many elements its storage has.
        elements: usize,
    },
    /// The file does not hold a tensor's storage.
    #[error("tensor '{tensor}' lies in storage '{storage}', which the file does not have")]
    NoStorage {
        /// The first tensor that lies in it.
        tensor: String,
        /// The storage's key.
        storage: String,
    },
    /// A storage is of another size than the pickle says.
    #[error(
        "tensor '{tensor}' lies in storage '{storage}' of {promised} bytes, but the file has {found} bytes for it"
    )]
    StorageSize {
        /// The first tensor that lies in it.
        tensor: String,
        /// The storage's key.
        storage: String,
        /// The size by the pickle.
        promised: u64,
        /// The size in the file.
        found: u64,
    },
    /// The file ends within a storage.
    #[error(
        "it is cut short within tensor '{tensor}': it must have at least {promised} bytes, and has {found}"
    )]
    Truncated {
        /// The first tensor that lies in that storage.
        tensor: String,
        /// Where the storage would end.
        promised: u64,
        /// The size of the file.
        found: u64,
    },
    /// The file has a storage that no tensor lies in.
    #[error("no tensor lies in its storage '{storage}'")]
    UnusedStorage {
        /// The storage's key.
        storage: String,
    },
    /// The file goes on after its last storage.
    #[error("it has {bytes} bytes after its last tensor")]
    TrailingBytes {
        /// How many.
        bytes: u64,
    },
    /// Tensors that do not lie in one piece would take far more memory than the file has bytes.
    #[error("tensor '{tensor}' would have to be unfolded to {bytes} bytes: {source}")]
    Unfolded {
        /// The tensor, or the record of an archive, at which it became too much.
        tensor: String,
        /// Its size.
        bytes: u64,
        /// How much the file may take.
        source: OverBudget,
    },
    /// What the file describes would take far more memory than it has bytes.
    #[error(transparent)]
    Memory(#[from] OverBudget),
}
