//! Models, each written once in one plain file, over Hugging Face folders.
//!
//! A [`ModelKind`] turns the recipe's numbers into a `config.json`, and a `config.json` with weights (read or
//! drawn) into a [`Model`]. [`load`] and [`fresh`] are the two ways in, [`save`] the way out.

mod bert;
mod builder;
mod gpt2;
mod linear;
mod llama;

use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use tch::{Device, Tensor};

use self::builder::{Builder, Origin};
use crate::adapter::{self, Adapter};
pub use crate::attention::{Cache, Pass};
use crate::error::{Error, Result};
use crate::gguf::{self, Gguf};
use crate::recipe;
use crate::torch;
use crate::weights::{self, Tensors, WeightFiles, is_file};

/// Every model, sorted by name.
pub const KINDS: [ModelKind; 3] = [bert::KIND, gpt2::KIND, llama::KIND];

/// One architecture.
#[derive(Clone, Copy)]
pub struct ModelKind {
    /// Its name in recipes, and `model_type` in `config.json`.
    pub name: &'static str,
    /// One line for help texts.
    pub summary: &'static str,
    /// Its paper, and the implementation that it is checked against.
    pub source: &'static str,
    /// Ends of the names of the layers that get adapters where a recipe names none: every matrix of a block.
    pub(crate) adapter_targets: &'static [&'static str],
    /// Whether weights lie as `[in, out]`, in PEFT's words.
    fan_in_fan_out: bool,
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

/// A transformer: what it makes of tokens, and the heads that read it.
pub trait Model: Send + fmt::Debug {
    /// Its sizes.
    fn shape(&self) -> Shape;

    /// Every parameter, in the order of the architecture; a tied one is there once.
    fn parameters(&self) -> &[Parameter];

    /// Returns what the heads read, `[B, T, C]`, for `tokens_bt` (int64).
    fn hidden(&self, tokens_bt: &Tensor, pass: &mut Pass<'_>) -> Tensor;

    /// Returns the head that gives logits of tokens.
    ///
    /// # Panics
    /// When the model has no such head: [`Shape::has_token_head`].
    fn token_head(&self) -> TokenHead;

    /// Returns the logits of every token of the vocabulary, `[.., V]`, for `hidden` `[.., C]`.
    ///
    /// # Panics
    /// As [`Model::token_head`].
    fn head(&self, hidden: &Tensor) -> Tensor {
        self.token_head()(hidden)
    }

    /// Returns the scores of whole sequences, `[B, N]`: classes, a regression or whether one sentence follows the other.
    ///
    /// `last_b`: index of the last token of each sequence, for decoders; by default that of the last column.
    ///
    /// # Panics
    /// When [`Shape::n_scores`] is 0.
    fn scores(&self, hidden_btc: &Tensor, last_b: Option<&Tensor>, is_training: bool) -> Tensor;

    /// Returns `logits_btv` for `tokens_bt`.
    fn logits(&self, tokens_bt: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        self.head(&self.hidden(tokens_bt, pass))
    }
}

/// From hidden states `[.., C]` to logits `[.., V]`, in the kind of the pass (float32, or bfloat16 under autocast).
pub type TokenHead = Box<dyn Fn(&Tensor) -> Tensor + Send>;

/// A named tensor that training updates. Names are those of the Hugging Face checkpoint.
#[derive(Debug)]
pub struct Parameter {
    /// Name in `model.safetensors`.
    pub name: String,
    /// Float32, requires a gradient.
    pub tensor: Tensor,
}

/// The sizes of a model.
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
    /// Whether each token sees only those before it.
    pub is_causal: bool,
    /// Whether it has logits for tokens.
    pub has_token_head: bool,
    /// Scores per sequence; 0 for a model without such a head.
    pub n_scores: u64,
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
    /// Its adapters, where it has some: then nothing else is trained.
    pub adapter: Option<Adapter>,
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
    let mut builder = Builder::new(Origin::Seed(seed), device);
    let model = (kind.build)(&config, &mut builder)?;
    Ok(Loaded { model, config, adapter: None })
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
    let mut builder = Builder::new(Origin::Nothing, Device::Cpu);
    let model = (kind.build)(&config, &mut builder)?;
    Ok(Loaded { model, config, adapter: None })
}

/// Loads a Hugging Face folder (`config.json` beside `model.safetensors`, or several files with an index) or a GGUF file of
/// a LLaMA model.
///
/// Where there is an `adapter_config.json`, the model that it names is loaded with the adapters of the folder. Weights of any
/// float kind become float32.
///
/// # Errors
/// [`Error::Unusable`] naming the parameter when one is absent, has another shape, holds no numbers, or is not used by the
/// architecture.
pub fn load(folder: &Path, device: Device) -> Result<Loaded> {
    if is_file(&folder.join(adapter::CONFIG))? {
        let adapter = Adapter::read(folder)?;
        let files = WeightFiles::open(&folder.join(adapter::WEIGHTS))?;
        return load_under(adapter, Origin::Files(&files), device);
    }
    let (kind, config) = read_config(folder)?;
    let tensors = open_tensors(folder)?;
    let mut builder = Builder::new(Origin::Files(tensors.as_ref()), device);
    let model = (kind.build)(&config, &mut builder)?;
    Ok(Loaded { model, config, adapter: None })
}

/// Loads the model in the folder `base` under fresh adapters: the same for the same seed.
///
/// # Errors
/// As [`load`], and when a target names no layer.
pub fn adapt(base: &Path, config: &adapter::Config, seed: u64, device: Device) -> Result<Loaded> {
    config.check()?;
    let (kind, _) = read_config(base)?;
    let mut config = config.clone();
    if config.targets.is_empty() {
        config.targets = kind.adapter_targets.iter().map(ToString::to_string).collect();
    }
    let base = fs::canonicalize(base).map_err(Error::io("find", base))?;
    let adapter = Adapter { config, base, fan_in_fan_out: kind.fan_in_fan_out };
    load_under(adapter, Origin::Seed(seed), device)
}

fn load_under(adapter: Adapter, origin: Origin<'_>, device: Device) -> Result<Loaded> {
    let (kind, config) = read_config(&adapter.base)?;
    if adapter.fan_in_fan_out != kind.fan_in_fan_out {
        return Err(Error::Unusable {
            action: "load",
            what: format!("the adapter of `{}`", adapter.base.display()),
            why: format!(
                "its `fan_in_fan_out` is {}, that of `{}` is {}",
                adapter.fan_in_fan_out, kind.name, kind.fan_in_fan_out
            ),
            hint: "the adapter must have been made for this architecture".to_owned(),
        });
    }
    let tensors = open_tensors(&adapter.base)?;
    let mut builder = Builder::new(Origin::Files(tensors.as_ref()), device);
    builder = builder.adapt(&adapter.config, origin);
    let model = (kind.build)(&config, &mut builder)?;
    Ok(Loaded { model, config, adapter: Some(adapter) })
}

/// The tensors of a Hugging Face folder or of a GGUF file.
fn open_tensors(path: &Path) -> Result<Box<dyn Tensors>> {
    if gguf::is_gguf(path)? {
        return Ok(Box::new(Gguf::open(path)?));
    }
    Ok(Box::new(WeightFiles::open_folder(path)?))
}

fn read_config(folder: &Path) -> Result<(ModelKind, Value)> {
    if gguf::is_gguf(folder)? {
        return Ok((llama::KIND, Gguf::open(folder)?.config()?));
    }
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

/// Writes a model into an existing folder, and syncs it; returns the names of the files.
///
/// `config.json` and `model.safetensors`; under adapters those alone in PEFT's format: `adapter_config.json` and
/// `adapter_model.safetensors`.
///
/// # Errors
/// [`Error::Io`] when a file cannot be written.
pub fn save(loaded: &Loaded, folder: &Path) -> Result<Vec<&'static str>> {
    write_config(&loaded.config, folder)?;
    let named = loaded.model.parameters().iter();
    let Some(adapter) = &loaded.adapter else {
        let tensors: Vec<_> = named.map(|p| (p.name.clone(), p.tensor.shallow_clone())).collect();
        weights::write(&folder.join("model.safetensors"), &tensors)?;
        return Ok(vec![CONFIG, "model.safetensors"]);
    };
    write_json(&adapter.to_json(), &folder.join(adapter::CONFIG))?;
    let own = named.filter(|p| adapter::is_adapter(&p.name));
    let tensors: Vec<_> =
        own.map(|p| (format!("{}{}", adapter::PREFIX, p.name), p.tensor.shallow_clone())).collect();
    weights::write(&folder.join(adapter::WEIGHTS), &tensors)?;
    Ok(vec![CONFIG, adapter::CONFIG, adapter::WEIGHTS])
}

/// Writes the model with its adapters added in, as a plain Hugging Face folder.
///
/// # Errors
/// [`Error::Io`] when a file cannot be written.
pub fn save_merged(loaded: &Loaded, folder: &Path) -> Result<()> {
    write_config(&loaded.config, folder)?;
    let parameters = loaded.model.parameters();
    let tensors = match &loaded.adapter {
        Some(adapter) => adapter.merge(parameters),
        None => parameters.iter().map(|p| (p.name.clone(), p.tensor.shallow_clone())).collect(),
    };
    weights::write(&folder.join("model.safetensors"), &tensors)
}

const CONFIG: &str = "config.json";

fn write_config(config: &Value, folder: &Path) -> Result<()> {
    let mut config = config.clone();
    // Whatever the kind was on disk, what is written is float32.
    config["dtype"] = Value::from("float32");
    write_json(&config, &folder.join(CONFIG))
}

fn write_json(value: &Value, path: &Path) -> Result<()> {
    let mut file = fs::File::create(path).map_err(Error::io("create", path))?;
    let mut text = serde_json::to_string_pretty(value).expect("JSON values always serialise");
    text.push('\n');
    file.write_all(text.as_bytes()).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("sync", path))
}

/// Runs a block that keeps only its input, and is run again for its gradients.
fn again(x_btc: &Tensor, block: impl Fn(&Tensor) -> Tensor + Send + 'static) -> Tensor {
    torch::recompute(x_btc, block).unwrap_or_else(|error| panic!("{error}"))
}

fn unknown_kind(place: &str, name: &str) -> Error {
    let known: Vec<_> = KINDS.iter().map(|kind| format!("`{}`", kind.name)).collect();
    Error::Unusable {
        action: "load",
        what: format!("the model of `{place}`"),
        why: format!("no model is called `{name}`"),
        hint: format!("there are {}", known.join(", ")),
    }
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

/// Scores per sequence of a checkpoint that scores sequences, as transformers counts its labels; else 0.
fn n_scores(config: &Value) -> Result<i64> {
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    if !architecture.ends_with("ForSequenceClassification") {
        return Ok(0);
    }
    if config.get("num_labels").is_some_and(|n| !n.is_null()) {
        return size(config, "num_labels");
    }
    let n = config["id2label"].as_object().map_or(2, serde_json::Map::len);
    i64::try_from(n).map_err(|_| bad_config("id2label", &n.to_string(), "fewer labels"))
}
