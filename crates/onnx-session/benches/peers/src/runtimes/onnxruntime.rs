//! ONNX Runtime, from the library that `ORT_DYLIB_PATH` names.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, anyhow};
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor};

use crate::batch::{Batch, INPUT_NAMES, Outputs};
use crate::peer::Runtime;

/// Where the library lies.
pub const LIBRARY: &str = "ORT_DYLIB_PATH";

/// A session as it comes, but for the number of threads: all of its own optimizations, prepacked weights, spinning threads.
pub struct OnnxRuntime(Session);

impl OnnxRuntime {
    /// Loads a graph.
    pub fn load(graph: &Path, threads: usize) -> anyhow::Result<Self> {
        let mut builder = Session::builder(environment()?)?
            .with_intra_threads(threads)
            .map_err(|error| anyhow!("{error}"))?;
        Ok(Self(builder.commit_from_file(graph)?))
    }
}

/// The one environment of this process.
fn environment() -> anyhow::Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let open = || {
        let library =
            std::env::var(LIBRARY).map_err(|_| format!("set {LIBRARY} to the path of libonnxruntime"))?;
        let builder = ort::init_from(library).map_err(|error| error.to_string())?;
        builder.with_telemetry(false).build().map_err(|error| error.to_string())
    };
    ENVIRONMENT.get_or_init(open).as_ref().map_err(|message| anyhow!("{message}"))
}

/// Which library it is: its file's name, which carries the version, and the commit that it says it was built from.
pub fn version() -> anyhow::Result<String> {
    environment()?;
    let library = PathBuf::from(std::env::var(LIBRARY)?).canonicalize()?;
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    let commit = ort::info().split(", ").find_map(|field| field.strip_prefix("git-commit-id="));
    Ok(format!("{name} (commit {})", commit.unwrap_or("unknown")))
}

impl Runtime for OnnxRuntime {
    type Inputs = Vec<(String, Tensor<i64>)>;
    type Outputs = Vec<(String, DynValue)>;

    fn prepare(&self, batch: &Batch) -> anyhow::Result<Self::Inputs> {
        let shape = [batch.rows as i64, batch.width as i64];
        INPUT_NAMES
            .iter()
            .zip(batch.inputs())
            .map(|(name, ids)| Ok(((*name).to_owned(), Tensor::from_array((shape, ids.to_vec()))?)))
            .collect()
    }

    fn run(&mut self, inputs: &Self::Inputs) -> anyhow::Result<Self::Outputs> {
        let inputs: Vec<(&str, SessionInputValue<'_>)> =
            inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.into())).collect();
        let outputs = self.0.run(inputs)?;
        Ok(outputs.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
    }

    fn read(&self, outputs: Self::Outputs) -> anyhow::Result<Outputs> {
        let read = |wanted: &str| {
            outputs
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| Ok::<_, ort::Error>(value.try_extract_tensor::<f32>()?.1.to_vec()))
                .transpose()
        };
        Ok(Outputs {
            hidden: read("last_hidden_state")?.context("there is no last_hidden_state")?,
            pooled: read("pooler_output")?,
        })
    }
}
