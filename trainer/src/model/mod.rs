//! Models, each written once in one plain file, over Hugging Face folders.
//!
//! A [`ModelKind`] turns the recipe's numbers into a `config.json`, and a `config.json` with weights (read or
//! drawn) into a [`Model`]. [`load`] and [`fresh`] are the two ways in, [`save`] the way out.

mod gpt2;
mod llama;

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

pub use crate::attention::{Cache, Pass};
use crate::error::{Error, Result};
use crate::random::Random;
use crate::recipe;
use crate::weights::{self, WeightFiles};

/// Every model, sorted by name.
pub const KINDS: [ModelKind; 2] = [gpt2::KIND, llama::KIND];

/// One architecture.
#[derive(Clone, Copy)]
pub struct ModelKind {
    /// Its name in recipes, and `model_type` in `config.json`.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Its paper, and the implementation that it is checked against.
    pub source: &'static str,
    /// Turns a recipe's numbers into a `config.json`.
    configure: fn(&recipe::Model, vocab_size: u64) -> Value,
    /// Makes the model that a `config.json` describes, with parameters from the builder.
    build: fn(&Value, &mut Builder<'_>) -> Result<Box<dyn Model>>,
}

impl fmt::Debug for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelKind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A decoder that gives logits for the next token at each position.
pub trait Model: Send + fmt::Debug {
    /// Its sizes.
    fn shape(&self) -> Shape;

    /// Every parameter, in the order of the architecture; a tied one is there once.
    fn parameters(&self) -> &[Parameter];

    /// Returns `logits_btv` for `tokens_bt` (int64), in the kind of the pass (float32, or bfloat16 under autocast).
    fn logits(&self, tokens_bt: &Tensor, pass: &mut Pass<'_>) -> Tensor;
}

/// A named tensor that training updates. Names are those of the Hugging Face checkpoint.
#[derive(Debug)]
pub struct Parameter {
    /// Name in `model.safetensors`.
    pub name: String,
    /// Float32, requires a gradient.
    pub tensor: Tensor,
}

/// The sizes of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub n_layers: u64,
    /// Query heads per block.
    pub n_heads: u64,
    /// Size of one head.
    pub head_size: u64,
    /// Entries of the vocabulary, padding included.
    pub vocab_size: u64,
    /// The longest sequence.
    pub seq_len_max: u64,
    /// Numbers in position embeddings, which cost no multiplication.
    pub n_position_parameters: u64,
}

impl Shape {
    /// Floating-point operations per token of training at sequence length `seq_len`.
    ///
    /// `6 N + 12 L H D T`, where `N` leaves out position embeddings.
    ///
    /// Source: Chowdhery et al. 2022, appendix B.
    #[must_use]
    pub fn flops_per_token(&self, n_parameters: u64, seq_len: u64) -> u64 {
        6 * (n_parameters - self.n_position_parameters)
            + 12 * self.n_layers * self.n_heads * self.head_size * seq_len
    }
}

/// A model with the `config.json` that describes it.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Box<dyn Model>,
    /// Its `config.json`.
    pub config: Value,
}

/// Finds a model by its name in recipes and in `config.json`.
#[must_use]
pub fn find(name: &str) -> Option<ModelKind> {
    KINDS.into_iter().find(|kind| kind.name == name)
}

/// Makes a model with fresh weights: the same for the same recipe, vocabulary and seed, on every device.
///
/// # Errors
/// [`Error::Unusable`] when the recipe's numbers do not fit each other.
pub fn fresh(recipe: &recipe::Model, vocab_size: u64, seed: u64, device: Device) -> Result<Loaded> {
    let name = recipe.kind.as_deref().unwrap_or_default();
    let kind = find(name).ok_or_else(|| unknown_kind("recipe", name))?;
    let config = (kind.configure)(recipe, vocab_size);
    let mut builder = Builder { origin: Origin::Seed(seed), device, parameters: Vec::new() };
    let model = (kind.build)(&config, &mut builder)?;
    Ok(Loaded { model, config })
}

/// Makes the model that a recipe describes without room for its weights: to count, not to run.
///
/// # Errors
/// As [`fresh`]; for a folder as far as its `config.json` goes.
pub fn outline(recipe: &recipe::Model, vocab_size: u64) -> Result<Loaded> {
    let (kind, config) = match &recipe.from {
        Some(folder) => read_config(folder)?,
        None => {
            let name = recipe.kind.as_deref().unwrap_or_default();
            let kind = find(name).ok_or_else(|| unknown_kind("recipe", name))?;
            (kind, (kind.configure)(recipe, vocab_size))
        }
    };
    let device = Device::Cpu;
    let mut builder = Builder { origin: Origin::Nothing, device, parameters: Vec::new() };
    let model = (kind.build)(&config, &mut builder)?;
    Ok(Loaded { model, config })
}

/// Loads a Hugging Face folder: `config.json` beside `model.safetensors`, or several files with an index.
///
/// Weights of any float kind become float32.
///
/// # Errors
/// [`Error::Unusable`] naming the parameter when one is absent, has another shape, or is not used by the architecture.
pub fn load(folder: &Path, device: Device) -> Result<Loaded> {
    let (kind, config) = read_config(folder)?;
    let files = WeightFiles::open_folder(folder)?;
    let mut builder = Builder { origin: Origin::Files(&files), device, parameters: Vec::new() };
    let model = (kind.build)(&config, &mut builder)?;
    refuse_unused(&files, model.parameters())?;
    Ok(Loaded { model, config })
}

fn read_config(folder: &Path) -> Result<(ModelKind, Value)> {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let config: Value = serde_json::from_str(&text).map_err(|error| Error::Unusable {
        action: "load",
        what: format!("`{}`", path.display()),
        why: error.to_string(),
        hint: "fetch the model's folder again".to_owned(),
    })?;
    let name = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let kind = find(name).ok_or_else(|| unknown_kind(&path.display().to_string(), name))?;
    Ok((kind, config))
}

/// Writes `config.json` and `model.safetensors` into an existing folder, and syncs both.
///
/// # Errors
/// [`Error::Io`] when a file cannot be written.
pub fn save(loaded: &Loaded, folder: &Path) -> Result<()> {
    let mut config = loaded.config.clone();
    // Whatever the kind was on disk, what is written is float32.
    config["dtype"] = Value::from("float32");
    let path = folder.join("config.json");
    let mut file = fs::File::create(&path).map_err(Error::io("create", &path))?;
    let mut text = serde_json::to_string_pretty(&config).expect("JSON values always serialise");
    text.push('\n');
    file.write_all(text.as_bytes()).map_err(Error::io("write", &path))?;
    file.sync_all().map_err(Error::io("sync", &path))?;
    let named = loaded.model.parameters().iter();
    let tensors: Vec<_> = named.map(|p| (p.name.clone(), p.tensor.shallow_clone())).collect();
    weights::write(&folder.join("model.safetensors"), &tensors)
}

fn unknown_kind(place: &str, name: &str) -> Error {
    let known: Vec<_> = KINDS.iter().map(|kind| format!("`{}`", kind.name)).collect();
    Error::Unusable {
        action: "load",
        what: format!("the model of `{place}`"),
        why: format!("no model is called `{name}`"),
        hint: format!("there are {}", known.join(" and ")),
    }
}

/// Buffers that older checkpoints carry and that are computed here.
const COMPUTED: [&str; 3] = [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"];

fn refuse_unused(files: &WeightFiles, parameters: &[Parameter]) -> Result<()> {
    let is_tied = !parameters.iter().any(|p| p.name == "lm_head.weight");
    let unused = files.names().find(|&name| {
        let is_taken = parameters.iter().any(|p| p.name == name || without_prefix(&p.name) == name);
        let is_computed = COMPUTED.iter().any(|suffix| name.ends_with(suffix));
        !(is_taken || is_computed || (is_tied && name == "lm_head.weight"))
    });
    let Some(name) = unused else { return Ok(()) };
    Err(Error::Unusable {
        action: "load",
        what: format!("`{}`", files.place()),
        why: format!("the architecture in config.json has no parameter `{name}`"),
        hint: "config.json and weights must come from the same model".to_owned(),
    })
}

/// Checkpoints of a bare base model lack the first part of each name.
fn without_prefix(name: &str) -> &str {
    name.strip_prefix("transformer.").or_else(|| name.strip_prefix("model.")).unwrap_or(name)
}

/// Gives a model its parameters: read from files, or drawn from a seed.
struct Builder<'a> {
    origin: Origin<'a>,
    device: Device,
    parameters: Vec<Parameter>,
}

enum Origin<'a> {
    Seed(u64),
    Files(&'a WeightFiles),
    /// One zero that looks like all of them.
    Nothing,
}

/// How a fresh parameter begins.
#[derive(Clone, Copy)]
enum Init {
    Zeros,
    Ones,
    /// Around zero, with this standard deviation.
    Normal(f64),
}

impl Builder<'_> {
    fn parameter(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let tensor = match self.origin {
            Origin::Seed(seed) => draw(seed, name, shape, init)?,
            Origin::Nothing => Tensor::zeros([1], (Kind::Float, self.device)).expand(shape, false),
            Origin::Files(files) => {
                let stored = if files.has(name) { name } else { without_prefix(name) };
                if files.shape(stored).is_some_and(|found| found != shape) {
                    return Err(Error::Unusable {
                        action: "load",
                        what: format!("`{}`", files.place()),
                        why: format!(
                            "`{stored}` has the shape {:?}, config.json says {shape:?}",
                            files.shape(stored).expect("just found")
                        ),
                        hint: "config.json and weights must come from the same model".to_owned(),
                    });
                }
                files.tensor(stored)?
            }
        };
        let tensor = tensor.to_kind(Kind::Float).to_device(self.device).set_requires_grad(true);
        self.parameters.push(Parameter { name: name.to_owned(), tensor: tensor.shallow_clone() });
        Ok(tensor)
    }
}

fn draw(seed: u64, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
    let options = (Kind::Float, Device::Cpu);
    let made = match init {
        Init::Zeros => Tensor::f_zeros(shape, options),
        Init::Ones => Tensor::f_ones(shape, options),
        Init::Normal(deviation) => {
            let n = usize::try_from(shape.iter().product::<i64>()).expect("sizes are positive");
            let draws = Random::new(seed, name).normals(n, deviation);
            Tensor::f_from_slice(&draws).and_then(|flat| flat.f_view(shape))
        }
    };
    made.map_err(Error::torch("make a parameter"))
}

/// A number of `config.json` that must be there and positive.
fn size(config: &Value, key: &str) -> Result<i64> {
    let found = config.get(key);
    found.and_then(Value::as_i64).filter(|&n| n > 0).ok_or_else(|| {
        let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
        bad_config(key, &found, "a positive whole number")
    })
}

/// A number of `config.json` with a default where it is absent or null.
fn number(config: &Value, key: &str, default: f64) -> Result<f64> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => {
            value.as_f64().ok_or_else(|| bad_config(key, &value.to_string(), "a number"))
        }
    }
}

/// A switch of `config.json` with a default where it is absent or null.
fn switch(config: &Value, key: &str, default: bool) -> Result<bool> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => {
            value.as_bool().ok_or_else(|| bad_config(key, &value.to_string(), "true or false"))
        }
    }
}

fn bad_config(key: &str, found: &str, wanted: &str) -> Error {
    Error::Unusable {
        action: "load",
        what: format!("`{key}` of config.json"),
        why: format!("it is {found}, this needs {wanted}"),
        hint: "see the model's page in the reference".to_owned(),
    }
}

fn divides(config: &Value, what: &str, whole: i64, parts: &str) -> Result<i64> {
    let n = size(config, parts)?;
    if whole % n != 0 {
        return Err(bad_config(parts, &n.to_string(), &format!("a divisor of {what} = {whole}")));
    }
    Ok(n)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).expect("sizes are positive")
}
