use std::collections::{HashMap, HashSet};

use crate::proto::NodeProto;

/// Gives every node of a graph and its subgraphs a name of its own: the one in the file, if it is there and not taken.
#[derive(Default)]
pub(super) struct NodeNames {
    /// All names that stand in the file: none of them is made up for another node.
    in_file: HashSet<String>,
    given: HashSet<String>,
    /// The number to try next behind a name.
    next: HashMap<String, usize>,
}

impl NodeNames {
    /// For these nodes and those of their subgraphs.
    pub fn taken_by(nodes: &[NodeProto]) -> Self {
        let mut names = Self::default();
        names.take(nodes);
        names
    }

    fn take(&mut self, nodes: &[NodeProto]) {
        for node in nodes {
            self.in_file.insert(node.name.clone());
            for graph in
                node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
            {
                self.take(&graph.node);
            }
        }
    }

    /// The name for the node at `index` of its graph, which is called `name` in the file.
    pub fn name(&mut self, name: &str, op: &str, index: usize) -> String {
        if !name.is_empty() && self.given.insert(name.into()) {
            return name.into();
        }
        let base = if name.is_empty() { format!("{op}_{index}") } else { name.into() };
        let mut candidate = base.clone();
        while self.in_file.contains(&candidate) || self.given.contains(&candidate) {
            // Counting on from the last number keeps a thousand nodes of one name from costing a million tries.
            let number = self.next.entry(base.clone()).or_insert(2);
            candidate = format!("{base}_{number}");
            *number += 1;
        }
        self.given.insert(candidate.clone());
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_kept_where_they_can_be() {
        let in_file = ["a", "", "a", "a_2", "Add_1"];
        let nodes: Vec<_> =
            in_file.iter().map(|name| NodeProto { name: (*name).into(), ..Default::default() }).collect();
        let mut names = NodeNames::taken_by(&nodes);
        let given: Vec<_> = in_file.iter().enumerate().map(|(i, name)| names.name(name, "Add", i)).collect();
        assert_eq!(given, ["a", "Add_1_2", "a_3", "a_2", "Add_1"]);
    }
}
