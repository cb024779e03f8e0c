//! How parameters are updated: clipping, one rule for each group of parameters, and what both remember.
//!
//! An [`OptimizerKind`] makes the rules, one file each. Nothing in an update waits for the device: whether a step is
//! left out is a scalar on it too.

mod adafactor;
mod adam;
mod adamw;
mod average;
mod muon;
mod sgd;

use std::collections::BTreeMap;
use std::fmt;

use tch::{Kind, Tensor, no_grad};

pub use average::Average;

use crate::distributed::World;
use crate::error::{Error, Result};
use crate::model::Parameter;
use crate::recipe;
use crate::torch;
use crate::weights::WeightFiles;

/// Every optimizer, sorted by name.
pub const KINDS: [OptimizerKind; 5] =
    [adafactor::KIND, adam::KIND, adamw::KIND, muon::KIND, sgd::KIND];

/// One way to update parameters.
#[derive(Clone, Copy)]
pub struct OptimizerKind {
    /// Its name in recipes.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Its paper, and the implementation that it is checked against.
    pub source: &'static str,
    /// Keys of the recipe that not every kind has and this one reads.
    pub keys: &'static [&'static str],
    /// Numbers kept per parameter, beside weight and gradient.
    pub state_per_parameter: u64,
    /// Makes the rules of one group.
    build: fn(Group, &recipe::Optimizer) -> Vec<Box<dyn Rule>>,
}

impl fmt::Debug for OptimizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptimizerKind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Finds an optimizer by its name in recipes.
#[must_use]
pub fn find(name: &str) -> Option<OptimizerKind> {
    KINDS.into_iter().find(|kind| kind.name == name)
}

/// Parameters that are updated alike.
#[derive(Debug)]
struct Group {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    weight_decay: f64,
    /// The group's learning rate, as a share of the run's.
    lr_scale: f64,
}

impl Group {
    /// Takes those for which `is_taken` says so out of the group.
    fn split_off(&mut self, is_taken: impl Fn(&str, &Tensor) -> bool) -> Self {
        let (names, parameters) =
            (std::mem::take(&mut self.names), std::mem::take(&mut self.parameters));
        let mut taken = Self { names: Vec::new(), parameters: Vec::new(), ..*self };
        for (name, parameter) in names.into_iter().zip(parameters) {
            let group = if is_taken(&name, &parameter) { &mut taken } else { &mut *self };
            group.names.push(name);
            group.parameters.push(parameter);
        }
        taken
    }

    fn zeros(&self) -> Vec<Tensor> {
        self.parameters.iter().map(|parameter| parameter.detach().zeros_like()).collect()
    }

    /// Names tensors that belong to the parameters, in their order.
    fn named(&self, part: &str, tensors: &[Tensor]) -> Vec<(String, Tensor)> {
        let pairs = self.names.iter().zip(tensors);
        pairs.map(|(name, tensor)| (format!("{part}.{name}"), tensor.shallow_clone())).collect()
    }
}

/// Updates one group of parameters, and remembers what it must.
trait Rule: Send + fmt::Debug {
    fn group(&self) -> &Group;

    /// Updates every parameter in place. `gradients` are in the group's order and finite where a step is left out.
    fn update(&mut self, gradients: &[Tensor], by: &Update<'_>) -> Result<()>;

    /// What is remembered, by name; restored in place.
    fn state(&self) -> Vec<(String, Tensor)>;
}

/// One update of all groups.
#[derive(Debug)]
struct Update<'a> {
    lr: f64,
    /// The number of this update, counted from 1: a float scalar.
    step: &'a Tensor,
    /// A float scalar: 1 leaves everything as it is, 0 does not.
    skip: &'a Tensor,
    /// `1 - skip`.
    keep: &'a Tensor,
}

/// Parameters with the rules that update them.
///
/// Matrices and embeddings decay, vectors (biases, norm gains) do not, unless the recipe's groups say otherwise.
#[derive(Debug)]
pub struct Optimizer {
    parameters: Vec<Parameter>,
    clip: Option<f64>,
    rules: Vec<Box<dyn Rule>>,
    average: Option<Average>,
    /// Updates made, a float scalar on the parameters' device.
    step: Tensor,
}

impl Optimizer {
    /// Starts with nothing to remember.
    ///
    /// # Errors
    /// [`Error::Unusable`] when there is no such kind, or a group of the recipe matches no parameter.
    ///
    /// # Panics
    /// When there are no parameters.
    pub fn new(parameters: &[Parameter], config: &recipe::Optimizer) -> Result<Self> {
        Self::sharded(parameters, config, |_| true)
    }

    /// As [`Optimizer::new`], but updates only the parameters for whose index `is_owned` says so.
    ///
    /// # Errors
    /// As [`Optimizer::new`].
    ///
    /// # Panics
    /// When there are no parameters.
    pub fn sharded(
        parameters: &[Parameter],
        config: &recipe::Optimizer,
        is_owned: impl Fn(usize) -> bool,
    ) -> Result<Self> {
        let kind = find(&config.kind).ok_or_else(|| unknown_kind(&config.kind))?;
        // Frozen ones, beneath adapters, stay as they are.
        let is_trained = |p: &&Parameter| p.tensor.requires_grad();
        let clone =
            |p: &Parameter| Parameter { name: p.name.clone(), tensor: p.tensor.shallow_clone() };
        let parameters: Vec<_> = parameters.iter().filter(is_trained).map(clone).collect();
        let device = parameters.first().expect("a model has parameters").tensor.device();
        let rules = groups(&parameters, config, is_owned)?;
        let rules = rules.into_iter().flat_map(|group| (kind.build)(group, config));
        Ok(Self {
            clip: (config.clip > 0.0).then_some(config.clip),
            rules: rules.filter(|rule| !rule.group().names.is_empty()).collect(),
            average: config.average.map(|decay| Average::new(&parameters, decay)),
            parameters,
            step: Tensor::zeros([], (Kind::Float, device)),
        })
    }

    /// Scales the gradients to the recipe's norm; returns the norm before, a scalar tensor. Nothing waits for the device.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch refuses.
    ///
    /// # Panics
    /// When a parameter has no gradient: the model did not use it.
    pub fn clip(&self) -> Result<Tensor> {
        torch::clip_gradients(&self.gradients(), self.clip)
    }

    /// Gradients of all parameters, in the model's order.
    ///
    /// # Panics
    /// As [`Optimizer::clip`].
    #[must_use]
    pub fn gradients(&self) -> Vec<Tensor> {
        self.parameters.iter().map(gradient).collect()
    }

    /// Updates every parameter that this process owns, and forgets all gradients.
    ///
    /// `skip` is a float scalar; where it is 1, nothing is updated. Nothing waits for the device.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch refuses.
    ///
    /// # Panics
    /// As [`Optimizer::clip`].
    pub fn apply(&mut self, lr: f64, skip: &Tensor) -> Result<()> {
        let keep: Tensor = 1.0 - skip;
        // Counts the update only where it is made.
        self.step += &keep;
        let by = Update { lr, step: &self.step, skip, keep: &keep };
        for rule in &mut self.rules {
            let gradients: Vec<Tensor> = rule.group().parameters.iter().map(Tensor::grad).collect();
            no_grad(|| rule.update(&gradients, &by))?;
        }
        let tensors: Vec<Tensor> =
            self.parameters.iter().map(|p| p.tensor.shallow_clone()).collect();
        torch::clear_gradients(&tensors)
    }

    /// Moves the running average of the weights, where there is one, towards them.
    pub fn move_average(&mut self, skip: &Tensor) {
        if let Some(average) = &mut self.average {
            average.update(skip);
        }
    }

    /// Clips, then updates unless the norm is no finite number; returns the norm before clipping.
    ///
    /// # Errors
    /// [`Error::Torch`] when libtorch refuses.
    pub fn update(&mut self, lr: f64) -> Result<Tensor> {
        let norm = self.clip()?;
        let skip = norm.isfinite().logical_not().to_kind(Kind::Float);
        self.apply(lr, &skip)?;
        self.move_average(&skip);
        Ok(norm)
    }

    /// The running average of the weights, where the recipe wants one.
    #[must_use]
    pub fn average(&self) -> Option<&Average> {
        self.average.as_ref()
    }

    /// Everything remembered, by name: `<what>.<parameter>`, and `step`.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![("step".to_owned(), self.step.shallow_clone())];
        state.extend(self.rules.iter().flat_map(|rule| rule.state()));
        state.extend(self.average.iter().flat_map(|average| average.state()));
        state
    }

    /// Returns the state of all parameters, of which each process of `world` has updated some.
    ///
    /// Needs room for all of it while it lives.
    ///
    /// # Errors
    /// [`Error::Torch`] when a process is gone.
    pub fn whole_state(
        &self,
        config: &recipe::Optimizer,
        world: &World,
    ) -> Result<Vec<(String, Tensor)>> {
        let own: BTreeMap<String, Tensor> = self.state().into_iter().collect();
        let whole = Self::new(&self.parameters, config)?;
        // Every process has these.
        let mut shared = vec![("step".to_owned(), self.step.shallow_clone())];
        shared.extend(self.average.iter().flat_map(|average| average.state()));
        let mut state = Vec::new();
        for (name, mut tensor) in whole.rules.iter().flat_map(|rule| rule.state()) {
            // What another process owns is zero here.
            match own.get(&name) {
                Some(found) => tensor.copy_(found),
                None => drop(tensor.zero_()),
            }
            world.sum(&tensor)?;
            state.push((name, tensor));
        }
        shared.append(&mut state);
        Ok(shared)
    }

    /// The parameters that are trained, in the model's order.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Takes over a state that [`Optimizer::state`] gave, of this process or of several together.
    ///
    /// # Errors
    /// [`Error::Unusable`] when a tensor is absent or has another shape.
    pub fn restore(&mut self, state: &WeightFiles) -> Result<()> {
        for (name, mut tensor) in self.state() {
            let stored = state.tensor(&name)?;
            if stored.size() != tensor.size() {
                return Err(Error::Unusable {
                    action: "resume",
                    what: format!("`{}`", state.place()),
                    why: format!(
                        "`{name}` has the shape {:?}, the model needs {:?}",
                        stored.size(),
                        tensor.size()
                    ),
                    hint: "resume with the recipe that the run began with".to_owned(),
                });
            }
            tensor.f_copy_(&stored).map_err(Error::torch("restore the optimizer"))?;
        }
        Ok(())
    }
}

/// The gradient, or zeros where a step is left out: what is no number stays so when it is multiplied with zero.
fn finite(gradient: &Tensor, skip: &Tensor) -> Tensor {
    gradient.zeros_like().where_self(&skip.gt(0.5), gradient)
}

fn gradient(parameter: &Parameter) -> Tensor {
    let gradient = parameter.tensor.grad();
    assert!(gradient.defined(), "`{}` has no gradient", parameter.name);
    gradient
}

/// Sorts the owned parameters by decay and learning rate: the first group of the recipe that names one decides.
fn groups(
    parameters: &[Parameter],
    config: &recipe::Optimizer,
    is_owned: impl Fn(usize) -> bool,
) -> Result<Vec<Group>> {
    for wanted in &config.groups {
        if !parameters.iter().any(|p| matches(&wanted.parameters, &p.name)) {
            let names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
            let nearest = shard::config::nearest(&wanted.parameters, &names);
            return Err(Error::Unusable {
                action: "train",
                what: "a group of `optimizer.groups`".to_owned(),
                why: format!(
                    "`{}` names none of the model's {} parameters",
                    wanted.parameters,
                    names.len()
                ),
                hint: format!(
                    "the nearest is `{}`",
                    nearest.unwrap_or_else(|| names[0].to_owned())
                ),
            });
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for (index, parameter) in parameters.iter().enumerate() {
        let wanted = config.groups.iter().find(|group| matches(&group.parameters, &parameter.name));
        let decays = parameter.tensor.dim() >= 2;
        let weight_decay = wanted.and_then(|group| group.weight_decay).unwrap_or(if decays {
            config.weight_decay
        } else {
            0.0
        });
        let lr_scale = wanted.and_then(|group| group.lr_scale).unwrap_or(1.0);
        if !is_owned(index) {
            continue;
        }
        #[expect(clippy::float_cmp, reason = "the same numbers of the recipe, or others")]
        let same =
            |group: &&mut Group| group.weight_decay == weight_decay && group.lr_scale == lr_scale;
        let group = match groups.iter_mut().find(same) {
            Some(group) => group,
            None => {
                let (names, parameters) = (Vec::new(), Vec::new());
                groups.push(Group { names, parameters, weight_decay, lr_scale });
                groups.last_mut().expect("just added")
            }
        };
        group.names.push(parameter.name.clone());
        group.parameters.push(parameter.tensor.shallow_clone());
    }
    Ok(groups)
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    (0..=name.len()).any(|skip| name.get(skip..).is_some_and(|name| matches(rest, name)))
}

fn unknown_kind(name: &str) -> Error {
    let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    let nearest = shard::config::nearest(name, &known);
    let meant = nearest.map(|nearest| format!("did you mean `{nearest}`? "));
    Error::Unusable {
        action: "train",
        what: "`optimizer.kind`".to_owned(),
        why: format!("no optimizer is called `{name}`"),
        hint: format!("{}there are `{}`", meant.unwrap_or_default(), known.join("`, `")),
    }
}

#[cfg(test)]
mod tests;
