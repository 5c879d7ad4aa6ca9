use std::fmt;
use std::iter::Fuse;

use super::{Output, Pipeline};
use crate::{PipelineError, Text};

/// What can be read as a text or a pair of texts.
pub trait AsText {
    /// It as a text.
    fn as_text(&self) -> Text<'_>;
}

impl AsText for str {
    fn as_text(&self) -> Text<'_> {
        Text { first: self, second: None }
    }
}

impl AsText for String {
    fn as_text(&self) -> Text<'_> {
        self.as_str().as_text()
    }
}

impl AsText for Text<'_> {
    fn as_text(&self) -> Text<'_> {
        *self
    }
}

impl<T: AsText + ?Sized> AsText for &T {
    fn as_text(&self) -> Text<'_> {
        (**self).as_text()
    }
}

impl<A: AsRef<str>, B: AsRef<str>> AsText for (A, B) {
    fn as_text(&self) -> Text<'_> {
        Text { first: self.0.as_ref(), second: Some(self.1.as_ref()) }
    }
}

/// The predictions of [`Pipeline::run_iter`].
pub struct RunIter<'p, P: Pipeline + ?Sized, I> {
    pipeline: &'p P,
    texts: Fuse<I>,
    ready: std::vec::IntoIter<Output<P::Prediction>>,
    /// How many texts have been run.
    run: usize,
    has_failed: bool,
}

impl<'p, P: Pipeline + ?Sized, I: Iterator> RunIter<'p, P, I> {
    pub(crate) fn new(pipeline: &'p P, texts: I) -> Self {
        Self { pipeline, texts: texts.fuse(), ready: Vec::new().into_iter(), run: 0, has_failed: false }
    }
}

impl<P: Pipeline + ?Sized, I: Iterator<Item: AsText>> Iterator for RunIter<'_, P, I> {
    type Item = Result<Output<P::Prediction>, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(output) = self.ready.next() {
            return Some(Ok(output));
        }
        if self.has_failed {
            return None;
        }
        let texts: Vec<I::Item> = self.texts.by_ref().take(self.pipeline.window().max(1)).collect();
        if texts.is_empty() {
            return None;
        }
        let views: Vec<Text<'_>> = texts.iter().map(AsText::as_text).collect();
        match self.pipeline.run_texts(&views) {
            Ok(outputs) => {
                self.run += texts.len();
                self.ready = outputs.into_iter();
                self.ready.next().map(Ok)
            }
            Err(error) => {
                self.has_failed = true;
                Some(Err(error.counted_from(self.run)))
            }
        }
    }
}

impl<P: Pipeline + ?Sized, I> fmt::Debug for RunIter<'_, P, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunIter").field("run", &self.run).finish_non_exhaustive()
    }
}
