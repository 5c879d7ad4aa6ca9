use std::fs;
use std::sync::LazyLock;

use engine::{DType, Value};
use proptest::prelude::*;

use super::*;
use crate::proto::{
    AttributeType, DataLocation, DataType, Dimension, Segment, SparseTensorProto, TensorShapeProto,
    TensorType, TypeProto,
};
use crate::testing::{message, model};

/// The message for a file that was spoiled.
fn refused(spoil: impl FnOnce(&mut ModelProto)) -> String {
    let mut proto = model().to_proto();
    spoil(&mut proto);
    message(Model::from_bytes(proto.encode_to_vec().into()))
}

fn read_spoiled(spoil: impl FnOnce(&mut ModelProto)) -> Model {
    let mut proto = model().to_proto();
    spoil(&mut proto);
    Model::from_bytes(proto.encode_to_vec().into()).unwrap()
}

fn graph(proto: &mut ModelProto) -> &mut GraphProto {
    proto.graph.as_mut().unwrap()
}

/// The attribute `int` of the node `rich`.
fn attribute(proto: &mut ModelProto) -> &mut AttributeProto {
    &mut graph(proto).node[2].attribute[0]
}

fn set_type(info: &mut ValueInfoProto, value: TypeValue) {
    info.r#type = Some(TypeProto { value: Some(value), ..Default::default() });
}

#[test]
fn weights_are_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    model().save(&path).unwrap();
    let mapped = engine::map_file(&path).unwrap();
    let model = Model::from_bytes(mapped.clone()).unwrap();
    let tensor = &model.graph.initializers["w"];
    assert_eq!(tensor.bytes.len(), 8);
    assert!(mapped.as_ptr_range().contains(&tensor.bytes.as_ptr()));
}

#[test]
fn files_that_are_not_onnx_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.onnx");
    fs::write(&path, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    assert_eq!(
        message(Model::open(&path)),
        format!("{} is not an ONNX model: it is a PNG image", path.display())
    );
    let missing = message(Model::open(folder.path().join("missing.onnx")));
    assert!(missing.contains("missing.onnx"), "{missing}");
    assert!(message(Model::open(folder.path())).contains("it is a folder"));
}

#[test]
fn the_head_of_the_file_is_checked() {
    assert_eq!(
        refused(|m| m.ir_version = 0),
        "the byte buffer is not an ONNX model: its bytes do not form one"
    );
    for version in [2, 15] {
        assert_eq!(
            refused(|m| m.ir_version = version),
            format!(
                "the byte buffer has IR version {version}; supported are 3 to 14: export it again \
                 for one of these"
            )
        );
    }
    assert_eq!(
        refused(|m| m.graph = None),
        "the byte buffer has no graph; it may have been cut short: fetch the file again"
    );
    assert!(refused(|m| m.opset_import.clear()).starts_with("the model imports no operator set"));
}

#[test]
fn domains_are_imported_once_under_one_name() {
    let alias = |version| OperatorSetIdProto { domain: "ai.onnx".into(), version };
    assert_eq!(
        refused(|m| m.opset_import.push(alias(17))),
        "the operator set of domain 'ai.onnx' is imported in version 18 and in version 17"
    );
    let aliased = read_spoiled(|m| {
        m.opset_import[0] = alias(18);
        graph(m).node[1].domain = "ai.onnx".into();
    });
    assert_eq!(aliased, model());
}

#[test]
fn a_file_that_was_cut_short_is_never_a_model() {
    let bytes = Bytes::from(model().to_bytes());
    for length in 0..bytes.len() {
        message(Model::from_bytes(bytes.slice(..length)));
    }
    // The graph begins within the first bytes and takes most of the file.
    let error = message(Model::from_bytes(bytes.slice(..bytes.len() / 2)));
    assert!(error.contains("cut short: it breaks off in its graph"), "{error}");
}

#[test]
fn damaged_bytes_are_not_called_cut_short() {
    // A graph whose only field claims more than the graph has.
    let bytes: &[u8] = &[0x08, 8, 0x3a, 2, 0x0a, 100];
    let error = message(Model::from_bytes(bytes.into()));
    assert!(error.starts_with("the byte buffer is damaged: "), "{error}");
}

#[test]
fn inputs_and_outputs_are_tensors_of_known_types() {
    let element = || Box::new(crate::proto::ElementType::default());
    for (value, kind) in [
        (TypeValue::SequenceType(element()), "a sequence"),
        (TypeValue::OptionalType(element()), "an optional value"),
        (TypeValue::MapType(Default::default()), "a map"),
        (TypeValue::SparseTensorType(Default::default()), "a sparse tensor"),
        (TypeValue::OpaqueType(Default::default()), "an opaque value"),
    ] {
        assert_eq!(
            refused(|m| set_type(&mut graph(m).input[0], value)),
            format!("input 'x' is {kind}; only dense tensors are supported")
        );
    }
    let of = |data_type: DataType| {
        TypeValue::TensorType(TensorType { elem_type: data_type.into(), ..Default::default() })
    };
    assert_eq!(
        refused(|m| set_type(&mut graph(m).output[0], of(DataType::String))),
        "output 'y' has elements of type string, which is not supported"
    );
    assert_eq!(
        refused(|m| set_type(&mut graph(m).output[0], of(DataType::Undefined))),
        "output 'y' has elements of type undefined, which is not supported"
    );
    assert_eq!(
        refused(|m| graph(m).input[0].r#type = None),
        "input 'x' has no type; ONNX's shape inference can add it"
    );
}

#[test]
fn dimensions_are_sizes_names_or_open() {
    let shaped = |values: Vec<Option<DimensionValue>>| {
        let dim = values.into_iter().map(|value| Dimension { value, ..Default::default() }).collect();
        TypeValue::TensorType(TensorType {
            elem_type: DataType::Int64.into(),
            shape: Some(TensorShapeProto { dim }),
        })
    };
    let dims = vec![
        Some(DimensionValue::DimValue(0)),
        Some(DimensionValue::DimValue(-1)),
        Some(DimensionValue::DimParam("batch".into())),
        Some(DimensionValue::DimParam(String::new())),
        None,
    ];
    let read = read_spoiled(|m| set_type(&mut graph(m).input[0], shaped(dims)));
    let expected = [Dim::Fixed(0), Dim::Any, Dim::Symbol("batch".into()), Dim::Any, Dim::Any];
    assert_eq!(read.graph.inputs[0].dtype, DType::I64);
    assert_eq!(read.graph.inputs[0].shape.as_deref(), Some(&expected[..]));
    let negative = vec![Some(DimensionValue::DimValue(-2))];
    assert_eq!(refused(|m| set_type(&mut graph(m).input[0], shaped(negative))), "input 'x' has dimension -2");
}

#[test]
fn an_input_with_an_initializer_is_optional() {
    let inputs = model().graph.inputs;
    let read = Model::from_bytes(model().to_bytes().into()).unwrap().graph.inputs;
    assert_eq!(read, inputs);
    assert_eq!(read.iter().map(|input| input.optional).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn hints_that_say_nothing_are_left_out() {
    let read = read_spoiled(|m| {
        let info = &mut graph(m).value_info;
        info.push(ValueInfoProto { name: "untyped".into(), ..Default::default() });
        let mut sequence = ValueInfoProto { name: "sequence".into(), ..Default::default() };
        set_type(&mut sequence, TypeValue::SequenceType(Default::default()));
        info.push(sequence);
    });
    assert_eq!(read, model());
}

/// A sparse f32 tensor, `[2, 3]`: 1.5 and -2 at these places.
fn sparse(name: &str, indices: &[i64], dims: &[i64]) -> SparseTensorProto {
    let values = TensorProto {
        name: name.into(),
        dims: vec![2],
        data_type: DataType::Float.into(),
        float_data: vec![1.5, -2.],
        ..Default::default()
    };
    let indices = TensorProto {
        dims: dims.to_vec(),
        data_type: DataType::Int64.into(),
        int64_data: indices.to_vec(),
        ..Default::default()
    };
    SparseTensorProto { values: Some(values), indices: Some(indices), dims: vec![2, 3] }
}

#[test]
fn sparse_tensors_are_made_dense() {
    let dense = Tensor::from_value(&Value::new([2, 3], vec![0., 1.5, 0., 0., 0., -2f32]).unwrap());
    for (indices, dims) in [(&[1, 5][..], &[2][..]), (&[0, 1, 1, 2], &[2, 2])] {
        let read = read_spoiled(|m| graph(m).sparse_initializer.push(sparse("s", indices, dims)));
        assert_eq!(read.graph.initializers["s"], dense);
        let read = read_spoiled(|m| {
            let node = &mut graph(m).node[2];
            (node.op_type, node.domain) = ("Constant".into(), String::new());
            node.attribute.truncate(1);
            node.attribute[0] = AttributeProto {
                name: "sparse_value".into(),
                r#type: AttributeType::SparseTensor.into(),
                sparse_tensor: Some(sparse("", indices, dims)),
                ..Default::default()
            };
        });
        assert_eq!(
            read.graph.nodes[2].attributes,
            [("value".into(), Attribute::Tensor(dense.clone()))].into()
        );
    }
}

#[test]
fn sparse_tensors_are_checked() {
    let with = |proto: SparseTensorProto| refused(|m| graph(m).sparse_initializer.push(proto));
    let at = |indices: &[i64], dims: &[i64]| with(sparse("s", indices, dims));
    let start = "the sparse initializer 's': it is sparse, and";
    assert_eq!(at(&[1, 6], &[2]), format!("{start} its index [6] is outside [2, 3]"));
    assert_eq!(at(&[-1, 5], &[2]), format!("{start} its index [-1] is outside [2, 3]"));
    assert_eq!(at(&[0, 1, 0, 3], &[2, 2]), format!("{start} its index [0, 3] is outside [2, 3]"));
    assert_eq!(at(&[5, 1], &[2]), format!("{start} its index [1] is there twice or out of order"));
    assert_eq!(
        at(&[1, 1, 1, 1], &[2, 2]),
        format!("{start} its index [1, 1] is there twice or out of order")
    );
    assert_eq!(
        at(&[1, 2, 3], &[3]),
        format!("{start} its indices are i64[3] (24 bytes), which must be i64[2] or i64[2, 2]")
    );
    let no_indices = SparseTensorProto { indices: None, ..sparse("s", &[1, 2], &[2]) };
    assert_eq!(with(no_indices), format!("{start} it lacks its values or its indices"));
    let negative = SparseTensorProto { dims: vec![2, -3], ..sparse("s", &[1, 2], &[2]) };
    assert_eq!(with(negative), "the sparse initializer 's': shape [2, -3] has a negative dimension");
    let huge = SparseTensorProto { dims: vec![1 << 20, 1 << 20], ..sparse("s", &[1, 2], &[2]) };
    assert!(with(huge).starts_with("the byte buffer would make more than"));
    assert_eq!(
        with(sparse("w", &[1, 2], &[2])),
        "value 'w' is defined twice: by an initializer and by an initializer"
    );
}

/// A branch of `model()`'s If as it stands in the file.
fn branch(proto: &mut ModelProto, index: usize) -> &mut GraphProto {
    graph(proto).node[1].attribute[index].g.as_mut().unwrap()
}

#[test]
fn what_a_subgraph_hides_gets_a_name_of_its_own() {
    let read = read_spoiled(|m| {
        let w = graph(m).initializer[0].clone();
        for index in [0, 1] {
            let branch = branch(m, index);
            branch.initializer = vec![w.clone(), TensorProto { name: "sum".into(), ..w.clone() }];
            let node = &mut branch.node[0];
            (node.op_type, node.input) = ("Add".into(), vec!["w".into(), "sum".into()]);
        }
    });
    let branch = |index: usize| match &read.graph.nodes[1].attributes[index] {
        Attribute::Graph(graph) => graph,
        other => panic!("{other:?}"),
    };
    let names = |graph: &Graph| graph.initializers.keys().cloned().collect::<Vec<_>>();
    for (index, expected) in [(0, ["w_2", "sum_2"]), (1, ["w_3", "sum_3"])] {
        assert_eq!(names(branch(index)), expected);
        assert_eq!(branch(index).nodes[0].inputs, expected);
    }
    // What is outside keeps its name.
    assert_eq!(read.graph.nodes[2].inputs[0], "sum");
}

#[test]
fn a_node_within_a_subgraph_hides_nothing() {
    let twice = |spoil: fn(&mut GraphProto)| refused(|m| spoil(branch(m, 0)));
    assert_eq!(
        twice(|branch| branch.node[0].output[0] = "w".into()),
        "value 'w' is defined twice: by an input and by node 'then_node' (Relu)"
    );
    assert_eq!(
        twice(|branch| {
            branch.node[0].output[0] = "w".into();
            let dims = vec![0];
            let data_type = DataType::Float.into();
            branch.initializer.push(TensorProto { name: "w".into(), dims, data_type, ..Default::default() });
        }),
        "value 'w' is defined twice: by an input and by an initializer"
    );
}

#[test]
fn initializers_stand_once() {
    assert_eq!(
        refused(|m| {
            let again = graph(m).initializer[0].clone();
            graph(m).initializer.push(again);
        }),
        "value 'w' is defined twice: by an initializer and by an initializer"
    );
    assert_eq!(
        refused(|m| graph(m).initializer[0].segment = Some(Segment::default())),
        "initializer 'w': it is one segment of a tensor, which is not supported"
    );
    assert_eq!(
        refused(|m| graph(m).node[2].attribute[2].t.as_mut().unwrap().data_type = 8),
        "attribute 'tensor' of node 'rich' (Anything): elements of type string are not supported"
    );
}

#[test]
fn attributes_are_what_they_say() {
    let of = "attribute 'int' of node 'rich' (Anything)";
    for (spoil, fault) in [
        ((|a| a.f = Some(1.)) as fn(&mut AttributeProto), "has values of several types: a float and an int"),
        (|a| a.r#type = AttributeType::Float.into(), "is declared as a float, but has an int"),
        (|a| *a = AttributeProto { name: "int".into(), ..Default::default() }, "has no value"),
        (
            |a| *a = AttributeProto { i: None, r#type: AttributeType::Tensor.into(), ..a.clone() },
            "has no value",
        ),
        (|a| a.r#type = 99, "is of type 99, which is not known"),
        (|a| a.ref_attr_name = "alpha".into(), "both has a value and refers to 'alpha'"),
        (
            |a| *a = AttributeProto { i: None, r#type: AttributeType::TypeProto.into(), ..a.clone() },
            "is a type, which is not supported",
        ),
    ] {
        assert_eq!(refused(|m| spoil(attribute(m))), format!("{of} {fault}"));
    }
    assert_eq!(
        refused(|m| graph(m).node[2].attribute[1].s = Some(Bytes::from_static(&[0xff]))),
        "attribute 'string' of node 'rich' (Anything) is a string that is not UTF-8"
    );
    assert_eq!(
        refused(|m| {
            let again = attribute(m).clone();
            graph(m).node[2].attribute.push(again);
        }),
        format!("{of} is given twice")
    );
    assert_eq!(refused(|m| attribute(m).name.clear()), "an attribute of node 'rich' (Anything) has no name");
}

#[test]
fn attributes_may_leave_out_their_type_or_a_zero() {
    // as IR version 1 does
    assert_eq!(read_spoiled(|m| attribute(m).r#type = 0), model());
    // as writers do that follow proto3
    assert_eq!(read_spoiled(|m| attribute(m).i = None), model());
}

#[test]
fn nodes_get_names_and_must_have_operators() {
    let read = read_spoiled(|m| graph(m).node[2].name.clear());
    assert_eq!(read.graph.nodes[2].name, "Anything_2");
    let read = read_spoiled(|m| graph(m).node[2].name = "call".into());
    assert_eq!(read.graph.nodes[2].name, "call_2");
    assert_eq!(
        refused(|m| {
            graph(m).node[2].name.clear();
            graph(m).node[2].op_type.clear();
        }),
        "node '#2' has no operator (op_type is empty)"
    );
}

#[test]
fn errors_within_functions_name_the_function() {
    assert_eq!(
        refused(|m| m.functions[0].attribute_proto[0].r#type = 99),
        "in function 'pkg.test::AddScaled:v1': attribute 'alpha' of the function is of type 99, which is not known"
    );
}

/// The initializer `w` moved to another file.
fn move_out(m: &mut ModelProto) {
    let w = &mut graph(m).initializer[0];
    w.raw_data.clear();
    w.data_location = DataLocation::External.into();
    w.external_data = vec![StringStringEntryProto { key: "location".into(), value: "w.bin".into() }];
}

#[test]
fn external_data_is_read_beside_the_file_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let mut proto = model().to_proto();
    move_out(&mut proto);
    fs::write(&path, proto.encode_to_vec()).unwrap();
    let error = message(Model::open(&path));
    assert!(error.starts_with("initializer 'w', stored in 'w.bin': there is no file"), "{error}");
    fs::write(folder.path().join("w.bin"), &model().graph.initializers["w"].bytes).unwrap();
    assert_eq!(Model::open(&path).unwrap(), model());
    fs::write(folder.path().join("w.bin"), b"short").unwrap();
    let error = message(Model::open(&path));
    assert!(error.contains("8 bytes from offset 0 reach beyond the file's end at 5"), "{error}");
    assert_eq!(
        refused(move_out),
        "initializer 'w', stored in 'w.bin': the model was given as bytes, so that there is no folder to look in; open it from its file"
    );
}

static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| model().to_bytes());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutations_are_refused_or_read_back_the_same(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = VALID.clone();
        for (index, byte) in changes {
            *index.get_mut(&mut bytes) = byte;
        }
        if let Ok(model) = Model::from_bytes(bytes.into()) {
            let again = Model::from_bytes(model.to_bytes().into()).unwrap();
            // As text, because a mutation can make a NaN, which equals nothing.
            prop_assert_eq!(format!("{again:?}"), format!("{model:?}"));
        }
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Model::from_bytes(bytes.into()).is_err());
    }
}
