//! The classes that transformers makes a module of.

/// The class of the whole.
const ROOT: &str = "/BertModel";

/// The classes on the way to a module, as hierarchy-preserving tags have them: `encoder.layer.0.attention.self.query` is part of
/// `/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfAttention`.
///
/// Only transformers' own classes are named: lists of modules, and PyTorch's own modules, such as `query`, are left out.
pub(crate) fn hierarchy_tag(module: &str) -> String {
    let mut tag = String::from(ROOT);
    let mut parent = "";
    for word in module.split('.') {
        let class = match (parent, word) {
            ("", "embeddings") => "BertEmbeddings",
            ("", "encoder") => "BertEncoder",
            ("", "pooler") => "BertPooler",
            ("layer", _) => "BertLayer",
            ("attention", "self") => "BertSelfAttention",
            ("attention", "output") => "BertSelfOutput",
            (_, "attention") => "BertAttention",
            (_, "intermediate") => "BertIntermediate",
            (_, "output") => "BertOutput",
            _ => "",
        };
        if !class.is_empty() {
            tag = tag + "/" + class;
        }
        if parent == "layer" {
            tag = tag + "." + word;
        }
        parent = word;
    }
    tag
}

/// A module's path as the names of nodes have it: `/encoder/layer.0/attention/self`, where a list and the number in it stay together.
pub(crate) fn scope(module: &str) -> String {
    let mut scope = String::new();
    for word in module.split('.') {
        scope.push(if word.starts_with(|c: char| c.is_ascii_digit()) { '.' } else { '/' });
        scope.push_str(word);
    }
    scope
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_transformers() {
        for (module, tag) in [
            ("embeddings.word_embeddings", "/BertModel/BertEmbeddings"),
            ("embeddings.LayerNorm", "/BertModel/BertEmbeddings"),
            ("encoder", "/BertModel/BertEncoder"),
            (
                "encoder.layer.11.attention.self.query",
                "/BertModel/BertEncoder/BertLayer.11/BertAttention/BertSelfAttention",
            ),
            (
                "encoder.layer.0.attention.output.dense",
                "/BertModel/BertEncoder/BertLayer.0/BertAttention/BertSelfOutput",
            ),
            ("encoder.layer.0.intermediate", "/BertModel/BertEncoder/BertLayer.0/BertIntermediate"),
            ("encoder.layer.0.output.LayerNorm", "/BertModel/BertEncoder/BertLayer.0/BertOutput"),
            ("pooler.dense", "/BertModel/BertPooler"),
        ] {
            assert_eq!(hierarchy_tag(module), tag, "{module}");
        }
    }

    #[test]
    fn scopes_are_those_of_exporters() {
        assert_eq!(scope("encoder.layer.10.attention.self.query"), "/encoder/layer.10/attention/self/query");
        assert_eq!(scope("pooler"), "/pooler");
    }
}
