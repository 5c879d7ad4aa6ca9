//! What stands in for a graph's own values in a run: constants as they were meant.

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::IxDyn;
use onnx_graph::{Attribute, Node, Tensor as Held};

use crate::Precision;
use crate::tensor::{Data, Tensor};

/// A node of an [`Oracle`](crate::Oracle), functions written out. Names are no such thing: that of
/// a node in a function is made of its caller's, and two may come out alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub(crate) usize);

/// Which constant of an [`Oracle`](crate::Oracle) is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// An initializer, by its name.
    Initializer(String),
    /// What a `Constant` or `ConstantOfShape` is made of.
    Node(NodeId),
}

/// A float constant of an [`Oracle`](crate::Oracle), those of functions and branches with the
/// others.
#[derive(Debug, Clone)]
pub struct Constant<'a> {
    /// Which it is.
    pub place: Place,
    /// The name of the value.
    pub name: &'a str,
    /// Its elements; of a `ConstantOfShape` the one that fills it.
    pub tensor: Held,
}

/// Constants that a graph could only hold as f32, or in half precision, and the numbers they are the rounding of.
///
/// They are in force where the constant's dtype is not rounded: f32 in [`Precision::F64`](crate::Precision::F64), half precision in
/// [`Precision::Exact`](crate::Precision::Exact) alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Promotions {
    constants: HashMap<Place, Meant>,
    attributes: HashMap<NodeId, HashMap<String, f64>>,
}

/// What a constant was meant to be.
#[derive(Debug, Clone, PartialEq)]
enum Meant {
    Number(f64),
    Elements(Arc<[f64]>),
}

impl Promotions {
    /// Every element of a float constant is this number.
    pub fn constant(&mut self, place: Place, number: f64) {
        self.constants.insert(place, Meant::Number(number));
    }

    /// The elements of a float constant are these, in row-major order. Of another constant than one
    /// of as many elements they are not taken.
    pub fn elements(&mut self, place: Place, elements: impl Into<Arc<[f64]>>) {
        self.constants.insert(place, Meant::Elements(elements.into()));
    }

    /// The float attribute of a node, be it written or left to its default, is this number.
    pub fn attribute(&mut self, node: NodeId, attribute: impl Into<String>, number: f64) {
        self.attributes.entry(node).or_default().insert(attribute.into(), number);
    }

    /// Whether there is one for a constant.
    pub fn has(&self, place: &Place) -> bool {
        self.constants.contains_key(place)
    }

    /// How many constants and attributes there are.
    pub fn len(&self) -> usize {
        self.constants.len() + self.attributes.values().map(HashMap::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A constant as it was meant, as far as this precision leaves its dtype alone.
    pub(crate) fn meant(&self, place: &Place, tensor: Tensor, precision: Precision) -> Tensor {
        let meant = self.constants.get(place).filter(|_| precision.promotes(tensor.dtype));
        let (Some(meant), Data::Float(array)) = (meant, &tensor.data) else { return tensor };
        match meant {
            Meant::Number(number) => Tensor::float(tensor.dtype, array.mapv(|_| *number)),
            Meant::Elements(elements) => {
                let shaped = ndarray::ArrayD::from_shape_vec(IxDyn(array.shape()), elements.to_vec());
                shaped.map_or(tensor.clone(), |elements| Tensor::float(tensor.dtype, elements))
            }
        }
    }

    pub(crate) fn of_attribute(&self, node: NodeId, attribute: &str) -> Option<f64> {
        self.attributes.get(&node)?.get(attribute).copied()
    }
}

/// Whether a node's value is a constant that it holds.
pub(crate) fn holds(node: &Node) -> bool {
    node.domain.is_empty() && matches!(node.op.as_str(), "Constant" | "ConstantOfShape")
}

/// The float tensor that such a node holds.
pub(crate) fn held(node: &Node) -> Option<Held> {
    let floats = |shape: &[usize], floats: &[f32]| {
        let value = engine::Value::new(shape, floats.to_vec()).ok()?;
        Some(Held::from_value(&value))
    };
    let mut attributes = ["value", "value_float", "value_floats"].into_iter();
    let tensor = match attributes.find_map(|name| node.attributes.get(name)).filter(|_| holds(node))? {
        Attribute::Tensor(tensor) => Some(tensor.clone()),
        Attribute::Float(number) => floats(&[], &[*number]),
        Attribute::Floats(numbers) => floats(&[numbers.len()], numbers),
        _ => None,
    };
    tensor.filter(|tensor| tensor.dtype.is_float())
}
