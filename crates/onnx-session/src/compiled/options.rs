use std::sync::Arc;

use kernels::Pool;

use super::passes::PASSES;

/// How the engine `compiled` runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// On which threads.
    pub threads: Threads,
    /// Whether padding is left out; see the [module](super)'s documentation.
    pub skip_padding: bool,
    /// Which passes are made.
    pub passes: Passes,
}

/// The threads that a session computes on.
#[derive(Clone, Debug, Default)]
pub enum Threads {
    /// As many as the machine has cores, of the session's own.
    #[default]
    All,
    /// So many of the session's own, the caller's being one of them.
    Count(usize),
    /// Those of a pool that may be shared, such as [`Pool::on_rayon`].
    Pool(Arc<Pool>),
}

/// Which passes are made: all, or all but some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    off: Vec<&'static str>,
}

/// There is no pass of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no pass '{name}'; there are {}", PASSES.iter().map(|pass| pass.name).collect::<Vec<_>>().join(", "))]
pub struct UnknownPass {
    /// The name that was given.
    pub name: String,
}

impl Passes {
    /// All passes.
    pub fn all() -> Self {
        Self::default()
    }

    /// None: every node runs by itself, but for the constants, which are folded.
    pub fn none() -> Self {
        Self { off: PASSES.iter().map(|pass| pass.name).collect() }
    }

    /// The names of all passes, in the order they are made in.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PASSES.iter().map(|pass| pass.name)
    }

    /// All of these but one.
    ///
    /// # Errors
    /// If there is no pass of that name.
    pub fn without(mut self, name: &str) -> Result<Self, UnknownPass> {
        let pass = PASSES.iter().find(|pass| pass.name == name);
        self.off.push(pass.ok_or_else(|| UnknownPass { name: name.into() })?.name);
        Ok(self)
    }

    /// Whether a pass is made.
    pub fn has(&self, name: &str) -> bool {
        !self.off.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_switched_off_by_name() {
        let passes = Passes::all().without("GeluFusion").unwrap();
        assert!(
            passes.has("LinearFusion") && !passes.has("GeluFusion") && !Passes::none().has("LinearFusion")
        );
        let error = Passes::all().without("Gelu").unwrap_err().to_string();
        assert!(error.starts_with("there is no pass 'Gelu'; there are ColumnsFusion, "), "{error}");
    }
}
