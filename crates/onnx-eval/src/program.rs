//! A graph made ready: every node with its operator, and what each node is the last to read.

use std::collections::{HashMap, HashSet};

use onnx_graph::Node;

use crate::OracleError;
use crate::inline::{Branch, Placed};
use crate::memory::Constants;
use crate::ops::{self, Op};
use crate::substitute::NodeId;

/// A graph, or a branch of an `If`.
pub(crate) struct Program {
    pub steps: Vec<Step>,
    pub outputs: Vec<String>,
    pub plan: Plan,
}

pub(crate) struct Step {
    /// Given by [`Program::numbered`].
    pub id: NodeId,
    pub node: Node,
    pub opset: i64,
    pub kind: Kind,
    /// All values it reads, those that its branches take from outside included.
    pub reads: Vec<String>,
}

pub(crate) enum Kind {
    Op(&'static Op),
    If { then_branch: Program, else_branch: Program },
}

impl Program {
    /// With a number for each step, branches included.
    pub fn numbered(mut self) -> Self {
        self.number(&mut 0);
        self
    }

    fn number(&mut self, next: &mut usize) {
        for step in &mut self.steps {
            step.id = NodeId(*next);
            *next += 1;
            if let Kind::If { then_branch, else_branch } = &mut step.kind {
                [then_branch, else_branch].into_iter().for_each(|branch| branch.number(next));
            }
        }
    }

    /// The steps, and after an `If` those of its branches.
    pub fn all_steps(&self) -> Vec<&Step> {
        let mut all = Vec::new();
        for step in &self.steps {
            all.push(step);
            if let Kind::If { then_branch, else_branch } = &step.kind {
                all.extend([then_branch, else_branch].into_iter().flat_map(Program::all_steps));
            }
        }
        all
    }
}

/// Which steps to run for some values, and which of their own values are dead after each.
pub(crate) struct Plan(pub Vec<(usize, Vec<String>)>);

/// Makes a program of nodes. The constants of branches go to `constants`.
pub(crate) fn program(
    nodes: Vec<Placed>,
    outputs: Vec<String>,
    constants: &mut Constants,
) -> Result<Program, OracleError> {
    let steps =
        nodes.into_iter().map(|placed| step(placed, constants)).collect::<Result<Vec<_>, OracleError>>()?;
    let plan = Plan::new(&steps, outputs.iter().map(String::as_str));
    Ok(Program { steps, outputs, plan })
}

fn step(placed: Placed, constants: &mut Constants) -> Result<Step, OracleError> {
    let Placed { node, opset, branches } = placed;
    let op = ops::find(&node, opset)?;
    let mut reads: Vec<String> = node.inputs.iter().filter(|name| !name.is_empty()).cloned().collect();
    let kind = if op.name == "If" && op.domain.is_empty() {
        let mut branches: HashMap<String, Branch> = branches.into_iter().collect();
        let mut branch = |name: &'static str| {
            let branch = branches
                .remove(name)
                .ok_or_else(|| OracleError::node(&node, opset, crate::Fault::MissingAttribute(name)))?;
            self::branch(branch, constants)
        };
        let (then_branch, else_branch) = (branch("then_branch")?, branch("else_branch")?);
        for program in [&then_branch, &else_branch] {
            let own: HashSet<&String> = program.steps.iter().flat_map(|step| &step.node.outputs).collect();
            let read = program.steps.iter().flat_map(|step| &step.reads).chain(&program.outputs);
            reads.extend(read.filter(|name| !own.contains(name)).cloned());
        }
        Kind::If { then_branch, else_branch }
    } else {
        Kind::Op(op)
    };
    Ok(Step { id: NodeId(0), node, opset, kind, reads })
}

fn branch(branch: Branch, constants: &mut Constants) -> Result<Program, OracleError> {
    for (name, tensor) in &branch.initializers {
        constants.insert(name, tensor)?;
    }
    program(branch.nodes, branch.outputs, constants)
}

impl Plan {
    /// Found from the back.
    pub fn new<'a>(steps: &'a [Step], names: impl Iterator<Item = &'a str>) -> Self {
        let mut read_later: HashSet<&str> = names.collect();
        let mut wanted = read_later.clone();
        // A branch may not drop what belongs to the graph around it.
        let own: HashSet<&str> =
            steps.iter().flat_map(|step| &step.node.outputs).map(String::as_str).collect();
        let mut plan = Vec::new();
        for (index, step) in steps.iter().enumerate().rev() {
            if !step.node.outputs.iter().any(|name| wanted.contains(name.as_str())) {
                continue;
            }
            wanted.extend(step.reads.iter().map(String::as_str));
            let dead = step
                .reads
                .iter()
                .chain(&step.node.outputs)
                .filter(|name| own.contains(name.as_str()) && read_later.insert(name))
                .cloned()
                .collect();
            plan.push((index, dead));
        }
        plan.reverse();
        Self(plan)
    }
}
