//! Where vectors go, one after the other: however many they are, none stays in memory.

use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::Context as _;
use engine::Replacement;
use serde::Serialize;

use super::{is_stdout, terminal};

/// A form in which vectors are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"model", "dimension", "embeddings": [[…]]}`
    Json,
    /// `{"text", "embedding"}` on each line
    JsonLines,
    /// One f32 tensor `embeddings`, `[texts, dimension]`
    Safetensors,
}

/// A file of vectors in the making: it is there as a whole, or not at all.
pub struct Vectors {
    form: Form,
    model: String,
    target: Target,
    rows: usize,
    dimension: usize,
}

impl Vectors {
    /// So many bytes are left for the header of a safetensors file, which has the number of vectors. The format lets it end in blanks.
    const HEADER: usize = 256;

    /// Begins a file; `-` is stdout.
    pub fn create(form: Form, path: &Path, model: &str) -> anyhow::Result<Self> {
        let mut target = Target::create(path)?;
        if form == Form::Safetensors {
            anyhow::ensure!(
                target.has_a_beginning(),
                "safetensors cannot be written to {}; name a file",
                target.shown
            );
            target.write(&[0; 8 + Self::HEADER])?;
        }
        Ok(Self { form, model: model.to_owned(), target, rows: 0, dimension: 0 })
    }

    /// Adds the vector of a text.
    pub fn push(&mut self, text: &str, vector: &[f32]) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            text: &'a str,
            embedding: &'a [f32],
        }
        match self.form {
            Form::Json => {
                let before = match self.rows {
                    0 => self.head(vector.len())?,
                    _ => ",\n    ".to_owned(),
                };
                self.target.write(before.as_bytes())?;
                self.target.write(&serde_json::to_vec(vector)?)?;
            }
            Form::JsonLines => {
                let mut line = serde_json::to_vec(&Line { text, embedding: vector })?;
                line.push(b'\n');
                self.target.write(&line)?;
            }
            Form::Safetensors => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                self.target.write(&bytes)?;
            }
        }
        self.rows += 1;
        self.dimension = vector.len();
        Ok(())
    }

    /// Ends the file, and puts it in its place.
    pub fn finish(mut self) -> anyhow::Result<()> {
        match self.form {
            Form::Json => {
                let end = if self.rows == 0 { self.head(0)? } else { String::new() };
                self.target.write(format!("{end}\n  ]\n}}\n").as_bytes())?;
            }
            Form::JsonLines => {}
            Form::Safetensors => {
                let bytes = self.rows * self.dimension * size_of::<f32>();
                let header = format!(
                    r#"{{"embeddings":{{"dtype":"F32","shape":[{},{}],"data_offsets":[0,{bytes}]}}}}"#,
                    self.rows, self.dimension
                );
                let mut start = (Self::HEADER as u64).to_le_bytes().to_vec();
                start.extend(format!("{header:<width$}", width = Self::HEADER).bytes());
                self.target.write_at_start(&start)?;
            }
        }
        self.target.finish()
    }

    fn head(&self, dimension: usize) -> anyhow::Result<String> {
        let model = serde_json::to_string(&self.model)?;
        Ok(format!("{{\n  \"model\": {model},\n  \"dimension\": {dimension},\n  \"embeddings\": [\n    "))
    }
}

/// What is written to.
struct Target {
    shown: String,
    out: Out,
}

enum Out {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<Replacement>),
}

impl Target {
    fn create(path: &Path) -> anyhow::Result<Self> {
        if is_stdout(path) {
            return Ok(Self { shown: "stdout".to_owned(), out: Out::Stdout(BufWriter::new(io::stdout())) });
        }
        let shown = path.display().to_string();
        let file = Replacement::create(path).with_context(|| format!("cannot write {shown}"))?;
        Ok(Self { shown, out: Out::File(BufWriter::new(file)) })
    }

    /// Whether its beginning can be written last.
    fn has_a_beginning(&self) -> bool {
        matches!(&self.out, Out::File(out) if !out.get_ref().is_direct())
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.out {
            // What goes there is JSON.
            Out::Stdout(out) => {
                out.write_all(terminal::inert_json(&String::from_utf8_lossy(bytes)).as_bytes())
            }
            Out::File(out) => out.write_all(bytes),
        }
        .with_context(|| format!("cannot write {}", self.shown))
    }

    fn write_at_start(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if let Out::File(out) = &mut self.out {
            out.seek(SeekFrom::Start(0)).with_context(|| format!("cannot write {}", self.shown))?;
        }
        self.write(bytes)
    }

    fn finish(self) -> anyhow::Result<()> {
        match self.out {
            Out::Stdout(mut out) => out.flush(),
            Out::File(out) => out.into_inner().map_err(io::Error::from).and_then(Replacement::finish),
        }
        .with_context(|| format!("cannot write {}", self.shown))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn vectors_are_written_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (form, name) in
            [(Form::Json, "a.json"), (Form::JsonLines, "a.jsonl"), (Form::Safetensors, "a.safetensors")]
        {
            let mut vectors = Vectors::create(form, &at(name), "a \"model\"").unwrap();
            vectors.push("one", &[1.5, -2.0]).unwrap();
            vectors.push("two\n", &[0.1, 3e-9]).unwrap();
            assert!(!at(name).exists());
            vectors.finish().unwrap();
            let mut abandoned = Vectors::create(form, &at("b"), "").unwrap();
            abandoned.push("one", &[1.0]).unwrap();
        }
        let json: serde_json::Value = serde_json::from_slice(&fs::read(at("a.json")).unwrap()).unwrap();
        assert_eq!(json["model"], "a \"model\"");
        assert_eq!(json["dimension"], 2);
        let rows: Vec<Vec<f32>> = serde_json::from_value(json["embeddings"].clone()).unwrap();
        assert_eq!(rows, [[1.5, -2.0], [0.1, 3e-9]]);
        let lines = fs::read_to_string(at("a.jsonl")).unwrap();
        assert_eq!(
            lines,
            "{\"text\":\"one\",\"embedding\":[1.5,-2.0]}\n{\"text\":\"two\\n\",\"embedding\":[0.1,3e-9]}\n"
        );
        let bytes = fs::read(at("a.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor("embeddings").unwrap();
        assert_eq!(tensor.shape(), [2, 2]);
        let expected: Vec<u8> = [1.5f32, -2.0, 0.1, 3e-9].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(tensor.data(), expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
