use engine::{DType, Dim};

use crate::proto::AttributeType;
use crate::testing::{message, model, node, spec, tensor};
use crate::{Attribute, Function, Graph, Model, Node, Tensor};

/// The message for a model that was spoiled.
fn refused(spoil: impl FnOnce(&mut Model)) -> String {
    let mut model = model();
    model.check().unwrap();
    spoil(&mut model);
    message(model.check())
}

fn branch(model: &mut Model) -> &mut Graph {
    match &mut model.graph.nodes[1].attributes["then_branch"] {
        Attribute::Graph(graph) => graph,
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_are_defined_once() {
    assert_eq!(
        refused(|m| m.graph.inputs.push(spec("x"))),
        "value 'x' is defined twice: by an input and by an input"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[0].outputs = vec!["x".into()]),
        "value 'x' is defined twice: by an input and by node 'call' (AddScaled)"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[1].outputs = vec!["cond".into()]),
        "value 'cond' is defined twice: by an initializer and by node 'if' (If)"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[2].outputs = vec!["y".into()]),
        "value 'y' is defined twice: by node 'if' (If) and by node 'rich' (Anything)"
    );
}

#[test]
fn subgraphs_do_not_hide_values_and_keep_their_own() {
    assert_eq!(
        refused(|m| branch(m).nodes[0].outputs = vec!["sum".into()]),
        "value 'sum' is defined twice: by node 'call' (AddScaled) and by node 'then_node' (Relu)"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[2].inputs = vec!["then_y".into()]),
        "value 'then_y', used by node 'rich' (Anything), is defined nowhere"
    );
    // The branches are alternatives, and may use the same name.
    let mut model = model();
    branch(&mut model).nodes[0].outputs = vec!["else_y".into()];
    branch(&mut model).outputs[0].name = "else_y".into();
    model.check().unwrap();
}

#[test]
fn branches_have_no_constants_of_one_name() {
    let both = |m: &mut Model| {
        for branch in ["then_branch", "else_branch"] {
            let Attribute::Graph(graph) = &mut m.graph.nodes[1].attributes[branch] else {
                panic!("{branch}")
            };
            graph.initializers.insert("k".into(), tensor());
        }
    };
    assert_eq!(refused(both), "value 'k' is defined twice: by an initializer and by an initializer");
}

#[test]
fn values_are_defined_before_use() {
    assert_eq!(
        refused(|m| m.graph.nodes.swap(0, 1)),
        "value 'sum' is used by node 'then_node' (Relu) before it is defined, by node 'call' (AddScaled); nodes must stand in topological order"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[0].inputs[0] = "sum".into()),
        "value 'sum' is used by node 'call' (AddScaled) before it is defined, by node 'call' (AddScaled); nodes must stand in topological order"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[0].inputs[0] = "nothing".into()),
        "value 'nothing', used by node 'call' (AddScaled), is defined nowhere"
    );
}

#[test]
fn outputs_are_defined_and_listed_once() {
    assert_eq!(refused(|m| m.graph.outputs.push(spec("z"))), "output 'z' is defined nowhere");
    assert_eq!(refused(|m| branch(m).outputs.push(spec("z"))), "output 'z' is defined nowhere");
    assert_eq!(refused(|m| m.graph.outputs.push(spec("y"))), "output 'y' is listed twice");
}

#[test]
fn everything_has_a_name_of_its_own() {
    assert_eq!(refused(|m| m.graph.inputs.push(spec(""))), "an input has no name");
    assert_eq!(refused(|m| m.graph.outputs.push(spec(""))), "an output has no name");
    assert_eq!(
        refused(|m| {
            m.graph.initializers.insert(String::new(), tensor());
        }),
        "an initializer has no name"
    );
    assert_eq!(refused(|m| m.graph.nodes[2].name.clear()), "a node (Anything) has no name");
    assert_eq!(refused(|m| branch(m).nodes[0].name = "call".into()), "two nodes are called 'call'");
    assert_eq!(refused(|m| m.graph.nodes[2].op.clear()), "node 'rich' has no operator (op_type is empty)");
}

#[test]
fn initializers_fit_the_inputs_they_are_defaults_of() {
    assert_eq!(
        refused(|m| m.graph.inputs[1].dtype = DType::F64),
        "input 'w f64[2, ?]' has an initializer that is f32[2, 1]"
    );
    assert_eq!(
        refused(|m| m.graph.inputs[1].shape = Some(vec![Dim::Fixed(3), Dim::Any])),
        "input 'w f32[3, ?]' has an initializer that is f32[2, 1]"
    );
}

#[test]
fn tensors_have_the_bytes_they_need() {
    let short = || Tensor { shape: vec![3], ..tensor() };
    assert_eq!(
        refused(|m| m.graph.initializers["w"] = short()),
        "initializer 'w': f32[3] needs 12 bytes, it has 8"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[2].attributes["tensor"] = Attribute::Tensor(short())),
        "attribute 'tensor' of node 'rich' (Anything): f32[3] needs 12 bytes, it has 8"
    );
}

#[test]
fn operator_sets_are_imported() {
    assert_eq!(
        refused(|m| m.opsets.clear()),
        "the model imports no operator set (opset_import is empty); the file may have been cut short: \
         fetch it again"
    );
    assert_eq!(
        refused(|m| {
            m.opsets.remove("");
        }),
        "node 'if' uses operator 'If' of domain 'ai.onnx', for which no operator set is imported"
    );
    assert_eq!(
        refused(|m| {
            m.opsets.remove("com.microsoft");
        }),
        "node 'rich' uses operator 'Anything' of domain 'com.microsoft', for which no operator set is imported"
    );
    assert_eq!(
        refused(|m| {
            m.opsets.insert(String::new(), 0);
        }),
        "the operator set of domain 'ai.onnx' is imported in version 0, which does not exist"
    );
    // What is imported need not be used.
    let mut model = model();
    model.opsets.insert("ai.onnx.ml".into(), 3);
    model.check().unwrap();
}

#[test]
fn domains_are_known() {
    assert_eq!(
        refused(|m| m.graph.nodes[2].domain = "ai.onnx.contrib".into()),
        "node 'rich' uses operator 'Anything' of domain 'ai.onnx.contrib', which is not supported and for \
         which the model has no functions: export the model without that operator"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[0].op = "Sub".into()),
        "node 'call' calls function 'pkg.test::Sub:v1', which the model does not have"
    );
    assert_eq!(
        refused(|m| m.graph.nodes[2].overload = "v2".into()),
        "node 'rich' calls function 'com.microsoft::Anything:v2', which the model does not have"
    );
}

#[test]
fn calls_fit_their_function() {
    let call = "node 'call' calls function 'pkg.test::AddScaled:v1' with";
    assert_eq!(refused(|m| m.graph.nodes[0].inputs.push("x".into())), format!("{call} 3 inputs, it has 2"));
    assert_eq!(
        refused(|m| m.graph.nodes[0].outputs.push("more".into())),
        format!("{call} 2 outputs, it has 1")
    );
    assert_eq!(
        refused(|m| {
            m.graph.nodes[0].attributes.insert("beta".into(), Attribute::Int(1));
        }),
        format!("{call} attribute 'beta', which it does not have")
    );
    assert_eq!(
        refused(|m| m.graph.nodes[0].attributes["alpha"] = Attribute::Graph(Box::default())),
        "attribute 'alpha' of node 'call' (AddScaled) is a graph for a function, which is not supported"
    );
}

#[test]
fn functions_are_checked_like_graphs() {
    let within = "in function 'pkg.test::AddScaled:v1':";
    assert_eq!(
        refused(|m| m.functions[0].nodes[1].inputs[0] = "x".into()),
        format!("{within} value 'x', used by node 'mul' (Mul), is defined nowhere")
    );
    assert_eq!(
        refused(|m| m.functions[0].inputs.push("a".into())),
        format!("{within} value 'a' is defined twice: by an input and by an input")
    );
    assert_eq!(
        refused(|m| m.functions[0].outputs.push("d".into())),
        format!("{within} output 'd' is defined nowhere")
    );
    assert_eq!(
        refused(|m| m.functions[0].opsets.clear()),
        format!(
            "{within} node 'scale' uses operator 'Constant' of domain 'ai.onnx', for which no operator set is imported"
        )
    );
    let reference = |name: &str| Attribute::Reference { name: name.into(), kind: AttributeType::Float };
    assert_eq!(
        refused(|m| m.functions[0].nodes[0].attributes["value_float"] = reference("beta")),
        format!(
            "{within} attribute 'value_float' of node 'scale' (Constant) refers to 'beta', which is no attribute of an enclosing function"
        )
    );
    assert_eq!(
        refused(|m| m.functions[0].defaults["alpha"] = reference("axis")),
        format!(
            "{within} attribute 'alpha' of the function has a reference as its default; it must be a value"
        )
    );
    assert_eq!(
        refused(|m| m.graph.nodes[2].attributes["int"] = reference("alpha")),
        "attribute 'int' of node 'rich' (Anything) refers to 'alpha', which is no attribute of an enclosing function"
    );
}

#[test]
fn functions_are_told_apart() {
    assert_eq!(
        refused(|m| m.functions.push(m.functions[0].clone())),
        "function 'pkg.test::AddScaled:v1' is defined twice"
    );
    assert_eq!(
        refused(|m| m.functions[0].attributes.push("alpha".into())),
        "function 'pkg.test::AddScaled:v1' declares attribute 'alpha' twice"
    );
    assert_eq!(
        refused(|m| m.functions.push(Function { name: "Gelu".into(), ..Function::default() })),
        "function '::Gelu' is in ONNX's own domain, where runtimes differ about which one is meant"
    );
    assert_eq!(
        refused(|m| m.functions.push(Function { domain: "d".into(), ..Function::default() })),
        "a function of domain 'd' has no name"
    );
}

/// A function `d::name` that calls others of the same domain.
fn calling(name: &str, callees: &[&str]) -> Function {
    let call = |(index, callee): (usize, &&str)| Node {
        domain: "d".into(),
        ..node(&format!("call{index}"), callee, &[], &[])
    };
    Function {
        domain: "d".into(),
        name: name.into(),
        opsets: [("d".to_string(), 1)].into(),
        nodes: callees.iter().enumerate().map(call).collect(),
        ..Function::default()
    }
}

#[test]
fn functions_do_not_call_themselves() {
    assert_eq!(refused(|m| m.functions.push(calling("f", &["f"]))), "function 'd::f' calls itself");
    let cycle =
        [calling("a", &["b"]), calling("b", &["leaf", "c"]), calling("c", &["b"]), calling("leaf", &[])];
    assert_eq!(refused(|m| m.functions.extend(cycle)), "function 'd::b' calls itself");
}

#[test]
fn functions_that_multiply_without_end_are_refused() {
    // Each calls the one before it twice: 2^60 nodes.
    let names: Vec<_> = (0..60).map(|n| format!("f{n}")).collect();
    let mut functions = vec![calling("f0", &[])];
    functions.extend(names.windows(2).map(|pair| calling(&pair[1], &[&pair[0], &pair[0]])));
    let call = Node { domain: "d".into(), ..node("bomb", "f59", &[], &[]) };
    let message = refused(|m| {
        m.opsets.insert("d".into(), 1);
        m.functions.extend(functions);
        m.graph.nodes.push(call);
    });
    assert_eq!(message, "the graph has more than 1000000 nodes when its functions are written out");
}

/// A file whose graph has subgraphs nested to this depth, made from the inside out: what is refused here need not fit a stack there.
fn nested(depth: usize) -> Vec<u8> {
    /// A length-delimited field.
    fn field(number: u8, content: Vec<u8>) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encode_length_delimiter(content.len(), &mut bytes).unwrap();
        bytes.extend(content);
        bytes
    }
    let mut graph = Vec::new();
    for _ in 1..depth {
        // graph.node.attribute.g, the attribute called "b" and the operator "If"
        let attribute = [field(1, b"b".into()), field(6, graph)].concat();
        let node = [field(4, b"If".into()), field(5, attribute)].concat();
        graph = field(1, node);
    }
    [vec![0x08, 8], field(7, graph), field(8, vec![0x10, 17])].concat()
}

#[test]
fn subgraphs_are_not_nested_without_end() {
    let read = |depth| Model::from_bytes(nested(depth).into());
    let deepest = read(super::MAX_DEPTH).unwrap();
    assert_eq!(Model::from_bytes(deepest.to_bytes().into()).unwrap(), deepest);
    assert_eq!(message(read(super::MAX_DEPTH + 1)), "subgraphs are nested more than 24 deep");
    // These are beyond what protobuf reads.
    for depth in [40, 1000] {
        let error = message(read(depth));
        assert!(error.starts_with("the byte buffer is damaged:"), "{error}");
    }
}

#[test]
fn no_nesting_overflows_the_stack() {
    // As much as a main thread has on Windows; others have more.
    const STACK: usize = 1 << 20;
    let thread = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(|| (1..40).filter(|&depth| Model::from_bytes(nested(depth).into()).is_ok()).count());
    assert_eq!(thread.unwrap().join().unwrap(), super::MAX_DEPTH);
}
