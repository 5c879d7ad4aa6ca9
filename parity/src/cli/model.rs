//! The model that a command is about.

use architecture::Task;
use checkpoint::{CheckpointError, ModelFiles};
use parity::{ParityError, Subject};

/// Opens a model for a task; without one, for what its `architectures` say.
pub fn open_for(model: Option<&str>, task: Option<Task>) -> Result<Subject, ParityError> {
    let subject = open(model)?;
    Ok(match task {
        Some(task) => subject.for_task(task),
        None => subject,
    })
}

/// Opens a model. What is downloaded for it, now or later, is shown on stderr.
pub fn open(model: Option<&str>) -> Result<Subject, ParityError> {
    #[cfg(feature = "hub")]
    return Subject::open_telling(model, download::Bars::default());
    #[cfg(not(feature = "hub"))]
    Subject::open(model)
}

/// Opens a model of any family: of one that is not known here there are the files and the graphs.
pub fn open_any(model: Option<&str>) -> Result<Subject, ParityError> {
    #[cfg(feature = "hub")]
    return Subject::open_any_telling(model, download::Bars::default());
    #[cfg(not(feature = "hub"))]
    Subject::open_any(model)
}

/// The files of a model, or of an exported folder. What is downloaded is shown on stderr.
pub fn files(model: &str) -> Result<ModelFiles, CheckpointError> {
    #[cfg(feature = "hub")]
    return ModelFiles::fetch(model, download::Bars::default());
    #[cfg(not(feature = "hub"))]
    ModelFiles::open(model)
}

#[cfg(feature = "hub")]
mod download {
    use std::io::Write as _;
    use std::sync::{Mutex, PoisonError};

    use checkpoint::Progress;
    use indicatif::{ProgressBar, ProgressStyle};

    use super::super::progress::REDRAWN_EVERY;
    use super::super::terminal;

    /// A bar for the file that is being downloaded. Indicatif hides it where stderr is no terminal.
    #[derive(Default)]
    pub struct Bars(Mutex<Option<(String, ProgressBar)>>);

    impl Progress for Bars {
        fn downloading(&self, file: &str, done: u64, total: Option<u64>) {
            let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.as_ref().is_none_or(|(name, _)| name != file) {
                *shown = Some((file.to_owned(), bar(file, total)));
            }
            if let Some((_, bar)) = &*shown {
                bar.set_position(done);
            }
        }

        fn stopped(&self, _: &str) {
            if let Some((_, bar)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
                bar.finish_and_clear();
            }
        }

        fn notice(&self, message: &str) {
            // If stderr is gone there is nobody left to tell.
            let _ = writeln!(terminal::stderr(), "note: {message}");
        }
    }

    fn bar(file: &str, total: Option<u64>) -> ProgressBar {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
            ),
            None => (ProgressBar::no_length(), "{msg} {spinner} {bytes} {bytes_per_sec}"),
        };
        let bar = bar.with_message(terminal::inert(file));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(REDRAWN_EVERY);
        bar
    }
}
