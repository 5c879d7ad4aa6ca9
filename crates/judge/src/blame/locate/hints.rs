//! What the names in a graph say about where a module's output is. They are not trusted, only looked at first.

use std::collections::{HashMap, HashSet};

use architecture::Program;

use super::taps::{Kind, Tap};
use crate::blame::graph::Graph;

/// For each module, the values that its name is on.
pub(crate) struct Hints {
    by_value: HashMap<String, HashSet<String>>,
    /// The words in the paths of modules.
    parts: HashSet<String>,
}

impl Hints {
    /// From the names of nodes and values, and what exporters leave in the metadata of nodes: `/encoder/layer.0/attention/self/query/Add`.
    pub fn new(graph: &Graph, program: &Program) -> Self {
        let parts = program.module_paths().flat_map(|path| path.split('.'));
        // A number stands in many names.
        let parts = parts.filter(|part| part.parse::<usize>().is_err()).map(String::from).collect();
        let mut by_value: HashMap<String, HashSet<String>> = HashMap::new();
        for node in &graph.nodes {
            let mut words = vec![words(&node.name)];
            words.extend(node.metadata.values().map(|text| self::words(text)));
            // A node that adds a bias by name ends the module that the bias is of.
            words.extend(node.inputs.iter().map(|name| self::words(name)));
            for output in &node.outputs {
                let all = words.iter().cloned().chain([self::words(output)]).collect();
                by_value.insert(output.clone(), all);
            }
        }
        Self { by_value, parts }
    }

    /// Whether the value's name is that of the module.
    pub fn says(&self, value: &str, tap: &Tap) -> bool {
        if tap.kind != Kind::Output {
            return false;
        }
        let module = words(&tap.module);
        self.by_value
            .get(value)
            .is_some_and(|names| names.iter().any(|name| contains(name, &module, &self.parts)))
    }
}

/// A path with one blank around each of its words, so that `layer.1` is not found in `layer.11`.
fn words(path: &str) -> String {
    let mut words = String::from(" ");
    for word in path.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
    {
        words.push_str(word);
        words.push(' ');
    }
    words
}

/// Whether the name has the module's path, and no module below it.
fn contains(name: &str, module: &str, parts: &HashSet<String>) -> bool {
    let Some(at) = name.find(module) else { return false };
    let below = &name[at + module.len()..];
    !below.split(' ').any(|word| parts.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_found_in_a_path() {
        let module = words("a.layer.1.attention.self");
        let parts = HashSet::from(["query".to_string()]);
        let contains = |name: &str| contains(&words(name), &module, &parts);
        assert!(contains("/model/a/layer.1/attention/self/MatMul_1_output_0"));
        assert!(!contains("/model/a/layer.11/attention/self/MatMul_1_output_0"));
        assert!(!contains("/model/a/layer.1/attention/self/query/MatMul"));
    }
}
