//! Which engine runs a graph.

use std::fmt;
use std::str::FromStr;

use engine::Engine;
use onnx_eval::Oracle;
use onnx_graph::Model;
use onnx_session::compiled::Options;
use onnx_session::{EngineKind, Session, SessionError};

/// An engine that runs a graph, in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// candle-onnx over a lowered graph.
    Candle,
    /// The graph compiled to few steps over packed weights.
    Compiled,
    /// Every operator by the specification: right, and slow.
    Oracle,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Candle, Self::Compiled, Self::Oracle];

    /// What it calls itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::Candle => "candle",
            Self::Compiled => "compiled",
            Self::Oracle => "oracle",
        }
    }

    /// The engine on a graph. The options are those of `compiled`.
    ///
    /// # Errors
    /// If it does not take the graph.
    pub fn open(self, model: &Model, options: &Options) -> Result<Box<dyn Engine>, Refused> {
        Ok(match self {
            Self::Candle => Box::new(Session::new(model, EngineKind::Candle)?),
            Self::Compiled => Box::new(Session::with(model, options.clone())?),
            Self::Oracle => {
                let precision = onnx_eval::Precision::F32;
                Box::new(Oracle::with(model, precision, onnx_eval::Limits::default())?)
            }
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| {
            format!("there is no engine '{name}', only {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

/// Why an engine does not take a graph.
pub type Refused = Box<dyn std::error::Error + Send + Sync>;

/// The engines that a graph would be deployed on, and why one is not among them: a person deploys
/// it, and must know.
pub struct Deployment {
    /// Each that takes it, `candle` first; or the oracle, where none does.
    pub engines: Vec<Box<dyn Engine>>,
    /// What one that does not take it says.
    pub refusal: Option<String>,
}

/// Opens those. An engine that this was built without is not missed.
///
/// # Errors
/// If not even the oracle takes the graph.
pub fn deployment(model: &Model, options: &Options) -> Result<Deployment, Refused> {
    let (mut engines, mut refusal) = (Vec::new(), None);
    for kind in [Kind::Candle, Kind::Compiled] {
        match kind.open(model, options) {
            Ok(engine) => engines.push(engine),
            Err(error) if matches!(error.downcast_ref(), Some(SessionError::NoEngine)) => {}
            Err(error) => {
                refusal.get_or_insert(error.to_string());
            }
        }
    }
    if engines.is_empty() {
        let why = refusal.clone().unwrap_or_default();
        let oracle = Kind::Oracle.open(model, options);
        engines.push(oracle.map_err(|error| format!("{why}; nor can the oracle: {error}"))?);
    }
    Ok(Deployment { engines, refusal })
}

/// The fastest engine that takes a graph; the oracle, where no other does.
///
/// # Errors
/// If none takes it: what the fastest says.
pub fn fastest(model: &Model, options: &Options) -> Result<Box<dyn Engine>, Refused> {
    match Session::fastest(model, options.clone()) {
        Ok(session) => Ok(Box::new(session)),
        Err(refusal) => Kind::Oracle.open(model, options).or(Err(refusal.into())),
    }
}
