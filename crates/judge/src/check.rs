//! The whole check: what `parity check` shows, from a model or a graph to the report.
//!
//! ```
//! use judge::check::Check;
//! use judge::{Subject, Verdict};
//!
//! let report = Check::default().of_model(Subject::open(None)?, &mut |_| ())?;
//! assert_eq!(report.verdict, Verdict::Pass);
//! # Ok::<(), judge::ParityError>(())
//! ```

mod describe;
mod found;
mod given;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use architecture::Task;
use candle_core::Device;
use checkpoint::{ModelFiles, OnnxSource};
use engine::{Engine, ValueSpec, shown_path};
use onnx_graph::Model;
use onnx_session::compiled::Options;
use report::{Expect, FolderDifference, ReferenceKind, ReferenceSide, Report};

use self::found::Found;
pub use self::given::{Inputs, refuse_unknown, suite};
use crate::against::{self, Original};
use crate::bounds::Bounds;
use crate::compare::decide::Decides;
use crate::engines::open::{Deployment, Kind, deployment};
use crate::engines::stress::Part;
use crate::inputs::Case;
use crate::proof;
use crate::proof::further::Extended;
use crate::repro::Sides;
use crate::subject::{Opened, References};
use crate::trial::{Graph, Trial};
use crate::{ParityError, Subject, folder, open_graph, tensors, tokenizer};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Check {
    /// The graphs, files or such of the model's repository; without any the one beside the
    /// checkpoint, or else one that is made of it in memory.
    pub onnx: Vec<PathBuf>,
    /// An exported folder, whose graph is taken where none is named, and whose other files are held
    /// against the checkpoint's.
    pub export: Option<ModelFiles>,
    /// What the model is for, unless it is what its `architectures` say.
    pub task: Option<Task>,
    /// The engines that run the graphs, each of which must take them; without any those that they
    /// would be deployed on.
    pub engines: Vec<Kind>,
    /// How the engine `compiled` runs them.
    pub compiled: Options,
    /// What passes. How logits are read follows from the task.
    pub bounds: Bounds,
    /// What is run.
    pub inputs: Inputs,
    /// What inputs of the graphs are, by the usual name, where neither their own names nor what the
    /// graphs do with them tells.
    pub input_names: BTreeMap<String, String>,
    /// Outputs that were recorded elsewhere for the inputs of a file.
    pub expected: Option<PathBuf>,
    /// A new folder that replays what fails.
    pub repro: Option<PathBuf>,
    /// Where the reference runs in f32.
    pub device: Device,
    /// The command line, for whoever wants to repeat it.
    pub command: Option<String>,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            onnx: Vec::new(),
            export: None,
            task: None,
            engines: Vec::new(),
            compiled: Options::default(),
            bounds: Bounds::default(),
            inputs: Inputs::Suite,
            input_names: BTreeMap::new(),
            expected: None,
            repro: None,
            device: Device::Cpu,
            command: None,
        }
    }
}

/// A step of a check: as many as there are for this graph, and the input that is run next.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// How many steps this graph takes.
    pub of: usize,
    /// The input.
    pub case: &'a str,
}

/// Is told of each step before it is taken.
pub type Progress<'a> = dyn FnMut(Step) + 'a;

/// A graph under the name the report gives it, the engines that took it, and why others did not.
struct Candidate {
    onnx: String,
    model: Model,
    engines: Vec<Box<dyn Engine>>,
    refused: Option<String>,
}

impl Check {
    /// Holds graphs against the checkpoint of a model.
    ///
    /// # Errors
    /// If a file is missing or malformed, an input fits none of the sides, or an engine that was
    /// asked for by name does not take a graph.
    pub fn of_model(&self, subject: Subject, progress: &mut Progress) -> Result<Report, ParityError> {
        self.refuse()?;
        let mut subject = match self.task {
            Some(task) => subject.for_task(task),
            None => subject,
        };
        subject = subject.naming_inputs(self.input_names.clone());
        let mut notes = Vec::new();
        let open = |path: Option<&Path>| match &self.export {
            Some(export) => subject.open_among(export, path),
            None => subject.open_or_export(path),
        };
        let candidates = self.candidates(open, &mut notes)?;
        let graphs = self.export.as_ref().unwrap_or(subject.files());
        let exported = self.onnx.is_empty() && graphs.any_onnx()?.is_none();
        if exported {
            notes.push(format!(
                "no ONNX file lies beside {}: what was judged is the graph that 'parity export' makes of it, made in memory (opset {})",
                subject.name(),
                candidates.iter().find_map(|candidate| candidate.model.opset("")).unwrap_or_default(),
            ));
        }
        if self.onnx.is_empty() && !exported && graphs.onnx()?.is_none() {
            let names = candidates.iter().map(|candidate| candidate.onnx.as_str());
            notes.extend(names.map(|onnx| format!("{onnx} is the only graph of {}", graphs.name())));
        }
        if self.task.is_none() {
            let graphs: Vec<&Model> = candidates.iter().map(|candidate| &candidate.model).collect();
            notes.extend(subject.fit_to(&graphs));
        }
        let subject = &subject;
        let references = References::load_on(subject, &self.device)?;
        let reference: &dyn Engine = &references.single.engine;
        notes.extend(given::notes(reference, &candidates, &references.single.unused));
        if !subject.family().is_of_transformers() {
            notes.push(format!(
                "transformers has no class for {}: this reference follows the code that is published with its \
                 models, and was held against no published model",
                subject.family().name()
            ));
        }

        let decides = Decides::of(subject.task(), subject.family());
        let bounds = &Bounds { decides, ..self.bounds.clone() };
        let file = self.inputs.read()?;
        let mut found = Found::new(self, subject.name(), bounds);
        for candidate in &candidates {
            let specs = &candidate.model.graph.inputs;
            let cases = match &file {
                Some(case) => vec![case.clone()],
                None => given::made(&self.inputs, subject, specs, &mut notes)?,
            };
            let cases = given::common(cases, reference, specs, &mut notes)?;
            let converted = if bounds.expect == Expect::Exact { 0 } else { 2 };
            let runs = 4 + converted + candidate.engines.len();
            let mut of = runs * cases.len();
            let mut step = |case: &Case| progress(Step { of, case: &case.name });
            let trial = Trial::new(subject, &references, &cases, &mut step)?;
            let engines = candidate.engines();
            let opens = self.opens(candidate);
            let parts: Vec<Part> =
                opens.iter().map(|open| Part { deployed: &candidate.model, open }).collect();
            let only_given = !matches!(self.inputs, Inputs::Suite);
            let graph = Graph { parts: &parts, only_given, ..candidate.graph(&engines, bounds) };
            let judged = trial.judge(graph, &mut step)?;
            // Inputs that were found to tell more are run as the others are.
            let more = [&cases[..], &judged.witnesses].concat();
            let (cases, trial, judged) = match judged.witnesses.is_empty() {
                true => (&cases, trial, judged),
                false => {
                    of += runs * more.len();
                    let mut step = |case: &Case| progress(Step { of, case: &case.name });
                    let trial = Trial::new(subject, &references, &more, &mut step)?;
                    let judged = trial.judge(graph, &mut step)?;
                    (&more, trial, judged)
                }
            };
            let weights = judged.report.parts.weights.as_ref().map(proof::carrying).unwrap_or_default();
            let exact = || proof::exact_graph_with(&candidate.model, subject.program(), &weights).ok();
            let exact = found.needs_exact(&judged).then(exact).flatten().map(|(oracle, _)| oracle);
            let further = trial.further(&candidate.model, &engines);
            let [single, double] = [&references.single, &references.double]
                .map(|side| Extended::new(&side.engine, further.as_ref()));
            let exact = exact.as_ref();
            let leave = trial.leave(bounds);
            let sides = Sides { single: &single, double: &double, exact, engines: &engines, leave };
            found.add(candidate, judged, sides, cases)?;
            found.time(reference, &engines, cases)?;
            found.show(trial.expected());
        }
        let tokenizer = tokenizer::check_tokenizers(subject.files()).unwrap_or_else(|error| {
            notes.push(format!("tokenizer.json and vocab.txt were not compared: {error}"));
            None
        });
        let folder = self.folders(subject, &mut notes)?;
        let text = describe::reference(subject);
        let reference = ReferenceSide { kind: ReferenceKind::Checkpoint, text };
        Ok(Report { exported, ..found.report(reference, notes, tokenizer, folder) })
    }

    /// Holds graphs against another graph, which they were made of.
    ///
    /// # Errors
    /// As [`Check::of_model`]; and if something is asked for that takes a checkpoint.
    pub fn of_graph(&self, raw: &str, progress: &mut Progress) -> Result<Report, ParityError> {
        self.refuse()?;
        let needs_checkpoint = |why| ParityError::NeedsCheckpoint { graph: raw.into(), why };
        if matches!(self.inputs, Inputs::Texts(_)) {
            return Err(needs_checkpoint("which has no tokenizer and cannot read --text: give --inputs"));
        }
        if self.bounds.expect != Expect::Exact {
            return Err(needs_checkpoint("and --expect says what was made of a checkpoint, so give that"));
        }
        if !self.input_names.is_empty() {
            return Err(needs_checkpoint(
                "and both graphs are given inputs by their own names: leave out --input",
            ));
        }
        let (name, model) = open_graph(OnnxSource::File(raw.into()))?;
        let mut notes = Vec::new();
        let open = |path: Option<&Path>| {
            let (onnx, model) = open_graph(OnnxSource::File(path.unwrap_or(raw.as_ref()).into()))?;
            Ok(Opened { onnx, model, notes: Vec::new() })
        };
        let candidates = self.candidates(open, &mut notes)?;
        let file = match &self.inputs {
            Inputs::File(path) => Some(Case {
                name: shown_path(path).into_owned(),
                inputs: tensors::read_inputs(path, &model.graph.inputs)?,
            }),
            _ => None,
        };
        let mut found = Found::new(self, &name, &self.bounds);
        for candidate in &candidates {
            let original = Original::new(&name, &model, &candidate.model)?;
            let cases = match &file {
                Some(case) => {
                    let sides: [&[ValueSpec]; 2] = [original.single.inputs(), &candidate.model.graph.inputs];
                    refuse_unknown(&case.inputs, &sides)?;
                    vec![case.clone()]
                }
                None => against::cases(&model, &candidate.model)?,
            };
            let runs = 4 + candidate.engines.len();
            let mut of = runs * cases.len();
            let engines = candidate.engines();
            let only_given = file.is_some();
            let graph = Graph { only_given, ..candidate.graph(&engines, &self.bounds) };
            let mut step = |case: &Case| progress(Step { of, case: &case.name });
            let mut judged = against::judge(&original, graph, &cases, &mut step)?;
            let cases = [&cases[..], &judged.witnesses].concat();
            if !judged.witnesses.is_empty() {
                of += runs * cases.len();
                let mut step = |case: &Case| progress(Step { of, case: &case.name });
                judged = against::judge(&original, graph, &cases, &mut step)?;
            }
            let exact = || Some(original.exact(&candidate.model).ok()?.0);
            let exact = found.needs_exact(&judged).then(exact).flatten();
            let (Original { single, double, .. }, exact) = (&original, exact.as_ref());
            let leave = original.leave();
            let sides = Sides { single, double, exact, engines: &engines, leave };
            found.add(candidate, judged, sides, &cases)?;
            found.time(&original.single, &engines, &cases)?;
        }
        let text = format!("a graph, on the oracle in f32 ({})", describe::graph(&model));
        let reference = ReferenceSide { kind: ReferenceKind::Graph, text };
        Ok(found.report(reference, notes, None, Vec::new()))
    }

    /// What the folders say that the graphs lie in, where these are not the checkpoint's.
    fn folders(
        &self,
        subject: &Subject,
        notes: &mut Vec<String>,
    ) -> Result<Vec<FolderDifference>, ParityError> {
        let mut folders: Vec<ModelFiles> = self.export.iter().cloned().collect();
        for folder in self.onnx.iter().filter_map(|onnx| folder::around(onnx, subject.files())) {
            if folders.iter().all(|known| known.place() != folder.place()) {
                folders.push(folder);
            }
        }
        let mut differences = Vec::new();
        for folder in &folders {
            differences.extend(folder::compare(subject, folder, notes)?);
        }
        Ok(differences)
    }

    /// What cannot be asked for together is said before anything is run.
    fn refuse(&self) -> Result<(), ParityError> {
        let is_full =
            |dir: &&PathBuf| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
        if let Some(dir) = self.repro.as_ref().filter(is_full) {
            return Err(ParityError::FullFolder { dir: dir.clone() });
        }
        if self.expected.is_some() && !matches!(self.inputs, Inputs::File(_)) {
            return Err(ParityError::Asked("expected outputs are those of a file's inputs: give that, too"));
        }
        if self.repro.is_some() && self.bounds.expect != Expect::Exact {
            return Err(ParityError::Asked(
                "a graph that was converted on purpose is not replayed: leave out the folder, or what is expected of the graph",
            ));
        }
        Ok(())
    }

    /// Every graph on every engine that was asked for, or on those that it would be deployed on.
    fn candidates(
        &self,
        open: impl Fn(Option<&Path>) -> Result<Opened, ParityError>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Candidate>, ParityError> {
        let paths: Vec<Option<&Path>> = match self.onnx.as_slice() {
            [] => vec![None],
            paths => paths.iter().map(|path| Some(path.as_path())).collect(),
        };
        let candidate = |path| {
            let Opened { onnx, model, notes: done } = open(path)?;
            notes.extend(done.into_iter().map(|done| format!("{onnx}: {done}")));
            if !self.engines.is_empty() {
                let open = |kind: &Kind| kind.open(&model, &self.compiled);
                let engines = self.engines.iter().map(open).collect::<Result<_, _>>();
                return match engines {
                    Ok(engines) => Ok(Candidate { onnx, model, engines, refused: None }),
                    Err(source) => Err(ParityError::Refused { onnx, source }),
                };
            }
            Ok(match deployment(&model, &self.compiled) {
                Ok(Deployment { engines, refusal }) => {
                    let names: Vec<&str> = engines.iter().map(|engine| engine.name()).collect();
                    let names = names.join(" and ");
                    let because = |refusal| format!("{onnx} was run on {names}, because {refusal}");
                    notes.extend(refusal.map(because));
                    Candidate { onnx, model, engines, refused: None }
                }
                Err(error) => {
                    Candidate { onnx, model, engines: Vec::new(), refused: Some(error.to_string()) }
                }
            })
        };
        paths.into_iter().map(candidate).collect()
    }

    /// How parts of a graph are run on the engines that it is run on.
    fn opens(&self, candidate: &Candidate) -> Vec<impl Fn(&Model) -> Option<Box<dyn Engine>>> {
        let kinds: Vec<Kind> = match self.engines.as_slice() {
            [] => candidate.engines.iter().filter_map(|engine| engine.name().parse().ok()).collect(),
            kinds => kinds.to_vec(),
        };
        kinds.into_iter().map(|kind| move |part: &Model| kind.open(part, &self.compiled).ok()).collect()
    }
}

impl Candidate {
    fn engines(&self) -> Vec<&dyn Engine> {
        self.engines.iter().map(AsRef::as_ref).collect()
    }

    fn graph<'a>(&'a self, engines: &'a [&'a dyn Engine], bounds: &'a Bounds) -> Graph<'a> {
        Graph { refused: self.refused.as_deref(), ..Graph::new(&self.onnx, &self.model, engines, bounds) }
    }
}
