//! GGUF files of llama.cpp: their header, their tensors under Hugging Face names, and the `config.json` that they imply.
//!
//! Reads what is asked for, straight from the file; quantized blocks become float32. Source: `docs/gguf.md` of ggml.

mod block;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Kind, Tensor};

pub use self::block::Encoding;
use crate::error::{Error, Result};
use crate::torch;
use crate::weights::Tensors;

const MAGIC: &[u8; 4] = b"GGUF";
/// Versions with lengths of 64 bits.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Some hundred times what real files have.
const STRING_BYTES_MAX: u64 = 64 << 20;
const LIST_MAX: u64 = 1 << 24;
const KEYS_MAX: u64 = 1 << 16;
const TENSORS_MAX: u64 = 1 << 20;
/// Where the data begins, unless `general.alignment` says otherwise.
const ALIGNMENT: u64 = 32;

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    /// Single values of the header; lists only by their length.
    values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Entry>,
    n_heads: i64,
    n_kv_heads: i64,
}

#[derive(Debug)]
struct Entry {
    encoding: Encoding,
    shape: Vec<i64>,
    offset: u64,
    n_bytes: u64,
    /// Rows of queries and keys lie in llama.cpp's order, of so many heads.
    permuted: Option<i64>,
}

/// Whether the file at `path` begins as a GGUF file.
///
/// # Errors
/// [`Error::Io`] when it is there and cannot be read.
pub fn is_gguf(path: &Path) -> Result<bool> {
    if !crate::weights::is_file(path)? {
        return Ok(false);
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(4).read_to_end(&mut start).map_err(Error::io("read", path))?;
    Ok(start == MAGIC)
}

impl Gguf {
    /// Reads the header of a file, and checks that every tensor lies inside it.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is damaged, of another version, or not of the architecture `llama`.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |why: String| unusable(path, why);
        let file = File::open(path).map_err(Error::io("open", path))?;
        let file_bytes = file.metadata().map_err(Error::io("read", path))?.len();
        let mut source = Source { file: BufReader::new(&file), position: 0 };
        let (values, infos) = header(&mut source).map_err(refuse)?;
        let alignment = values.get("general.alignment").map_or(Some(ALIGNMENT), Value::as_u64);
        let alignment = alignment
            .filter(|n| n.is_power_of_two())
            .ok_or_else(|| refuse("its alignment is no power of two".to_owned()))?;
        let start = source.position.next_multiple_of(alignment);
        let architecture = values.get("general.architecture").and_then(Value::as_str);
        if architecture != Some("llama") {
            let found = architecture.unwrap_or("(none)");
            return Err(refuse(format!("its architecture is `{found}`, this reads `llama`")));
        }
        let count = |key: &str| values.get(key).and_then(Value::as_i64).filter(|&n| n > 0);
        let n_heads = count("llama.attention.head_count")
            .ok_or_else(|| refuse("it has no `llama.attention.head_count`".to_owned()))?;
        let n_kv_heads = count("llama.attention.head_count_kv").unwrap_or(n_heads);
        let mut gguf = Self {
            path: path.to_owned(),
            file: file.try_clone().map_err(Error::io("open", path))?,
            values,
            tensors: BTreeMap::new(),
            n_heads,
            n_kv_heads,
        };
        for info in infos {
            gguf.add(info, start, file_bytes).map_err(refuse)?;
        }
        Ok(gguf)
    }

    fn add(&mut self, info: Info, start: u64, file_bytes: u64) -> Result<(), String> {
        let Info { name, shape, encoding, offset } = info;
        let encoding = Encoding::of(encoding).ok_or_else(|| {
            format!("`{name}` has the quantization type {encoding}, which is not read")
        })?;
        let n_bytes = encoding
            .n_bytes(&shape)
            .ok_or_else(|| format!("`{name}` of {shape:?} is not whole blocks of {encoding:?}"))?;
        let offset = start.checked_add(offset).ok_or("an offset without end")?;
        if offset.checked_add(n_bytes).is_none_or(|end| end > file_bytes) {
            return Err(format!(
                "`{name}` ends at byte {}, the file has {file_bytes}",
                offset.saturating_add(n_bytes)
            ));
        }
        let (name, part) = hugging_face_name(&name);
        let permuted = match part {
            "attn_q" => Some(self.n_heads),
            "attn_k" => Some(self.n_kv_heads),
            _ => None,
        };
        if permuted.is_some_and(|heads| shape[0] % (2 * heads) != 0) {
            return Err(format!("`{name}` of {shape:?} does not divide into heads"));
        }
        let entry = Entry { encoding, shape, offset, n_bytes, permuted };
        match self.tensors.insert(name.clone(), entry) {
            None => Ok(()),
            Some(_) => Err(format!("`{name}` is there twice")),
        }
    }

    /// A value of the header.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// How many tensors have each encoding.
    #[must_use]
    pub fn encodings(&self) -> BTreeMap<Encoding, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.tensors.values() {
            *counts.entry(entry.encoding).or_default() += 1;
        }
        counts
    }

    /// Returns the `config.json` that the header implies.
    ///
    /// # Errors
    /// [`Error::Unusable`] naming the key that is absent or not supported.
    pub fn config(&self) -> Result<Value> {
        let get = |key: &str| self.values.get(&format!("llama.{key}"));
        let need = |key: &str| {
            let absent = || unusable(&self.path, format!("its header has no `llama.{key}`"));
            get(key).cloned().ok_or_else(absent)
        };
        let embedding = self.tensors.get("model.embed_tokens.weight");
        let vocab_size = embedding.map(|entry| entry.shape[0]).ok_or_else(|| {
            unusable(&self.path, "it has no tensor `token_embd.weight`".to_owned())
        })?;
        let width = need("embedding_length")?.as_i64().unwrap_or(0);
        let head_size = get("attention.key_length").and_then(Value::as_i64);
        let head_size = head_size.unwrap_or(width / self.n_heads);
        let rotated = get("rope.dimension_count").and_then(Value::as_i64).unwrap_or(head_size);
        if rotated != head_size {
            let why = format!("it rotates {rotated} of {head_size} channels of a head");
            return Err(unusable(&self.path, why));
        }
        let mut rope = json!({
            "rope_theta": get("rope.freq_base").cloned().unwrap_or_else(|| json!(10_000.0)),
            "rope_type": "default",
        });
        if let Some(kind) =
            get("rope.scaling.type").and_then(Value::as_str).filter(|k| *k != "none")
        {
            rope["rope_type"] = kind.into();
            rope["factor"] = need("rope.scaling.factor")?;
            if let Some(length) = get("rope.scaling.original_context_length") {
                rope["original_max_position_embeddings"] = length.clone();
            }
        }
        let has = |name: &str| self.tensors.contains_key(name);
        let id = |key: &str| self.values.get(&format!("tokenizer.ggml.{key}_token_id")).cloned();
        Ok(json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": has("model.layers.0.self_attn.q_proj.bias"),
            "bos_token_id": id("bos"),
            "eos_token_id": id("eos"),
            "head_dim": head_size,
            "hidden_act": "silu",
            "hidden_size": width,
            "intermediate_size": need("feed_forward_length")?,
            "max_position_embeddings": need("context_length")?,
            "mlp_bias": has("model.layers.0.mlp.up_proj.bias"),
            "model_type": "llama",
            "num_attention_heads": self.n_heads,
            "num_hidden_layers": need("block_count")?,
            "num_key_value_heads": self.n_kv_heads,
            "rms_norm_eps": need("attention.layer_norm_rms_epsilon")?,
            "rope_parameters": rope,
            "tie_word_embeddings": !has("lm_head.weight"),
            "vocab_size": vocab_size,
        }))
    }
}

impl Tensors for Gguf {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.tensors.get(name).ok_or_else(|| {
            unusable(&self.path, format!("it has no tensor `{name}` (by its Hugging Face name)"))
        })?;
        let n_bytes = usize::try_from(entry.n_bytes).expect("it fits the file");
        let mut bytes = vec![0; n_bytes];
        self.file.read_exact_at(&mut bytes, entry.offset).map_err(Error::io("read", &self.path))?;
        let tensor = torch::tensor_from(&entry.shape, Kind::Float, |out| {
            entry.encoding.decode(&bytes, out);
            Ok(())
        })?;
        let Some(heads) = entry.permuted else { return Ok(tensor) };
        // llama.cpp turns neighbours `2i, 2i + 1` of a head, Hugging Face `i, i + D/2`.
        let size = entry.shape.as_slice();
        let n_out = size[0];
        let pairs = tensor.view([heads, n_out / heads / 2, 2, -1]);
        Ok(pairs.transpose(1, 2).contiguous().view(size))
    }
}

/// The name in Hugging Face's checkpoints, and the part of a block that it is; names that have none stay.
fn hugging_face_name(name: &str) -> (String, &str) {
    const OUTER: [(&str, &str); 3] = [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
    ];
    const INNER: [(&str, &str); 9] = [
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    let Some((stem, kind)) = name.rsplit_once('.') else { return (name.to_owned(), "") };
    if let Some((_, outer)) = OUTER.iter().find(|(ours, _)| *ours == stem) {
        return (format!("{outer}.{kind}"), "");
    }
    let block = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let inner = block.and_then(|(layer, part)| {
        INNER.iter().find(|(ours, _)| *ours == part).map(|(_, inner)| (layer, part, inner))
    });
    match inner {
        Some((layer, part, inner)) => (format!("model.layers.{layer}.{inner}.{kind}"), part),
        None => (name.to_owned(), ""),
    }
}

/// A tensor as the header lists it.
struct Info {
    name: String,
    /// Slowest dimension first, as everywhere here; the file has them the other way round.
    shape: Vec<i64>,
    encoding: u32,
    offset: u64,
}

type Header = (BTreeMap<String, Value>, Vec<Info>);

fn header(source: &mut Source<impl Read>) -> Result<Header, String> {
    if source.bytes::<4>()? != *MAGIC {
        return Err("it does not begin with `GGUF`".to_owned());
    }
    let version = source.u32()?;
    if !VERSIONS.contains(&version) {
        return Err(format!("its GGUF version is {version}, this reads 2 and 3 in little endian"));
    }
    let (n_tensors, n_keys) = (source.u64()?, source.u64()?);
    for (what, n, max) in [("keys", n_keys, KEYS_MAX), ("tensors", n_tensors, TENSORS_MAX)] {
        if n > max {
            return Err(format!("its header has {n} {what}, at most {max} are read"));
        }
    }
    let mut values = BTreeMap::new();
    for _ in 0..n_keys {
        let key = source.string()?;
        let kind = source.u32()?;
        let value = source.value(kind).map_err(|why| format!("`{key}`: {why}"))?;
        values.insert(key, value);
    }
    let mut infos = Vec::new();
    for _ in 0..n_tensors {
        let name = source.string()?;
        let n_dimensions = source.u32()?;
        if !(1..=4).contains(&n_dimensions) {
            return Err(format!("`{name}` has {n_dimensions} dimensions"));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dimensions {
            let n = source.u64()?;
            let n = i64::try_from(n).ok().filter(|n| *n > 0);
            shape.push(n.ok_or_else(|| format!("`{name}` has an impossible size"))?);
        }
        shape.reverse();
        infos.push(Info { name, shape, encoding: source.u32()?, offset: source.u64()? });
    }
    Ok((values, infos))
}

const STRING: u32 = 8;
const LIST: u32 = 9;

/// Values in little endian.
struct Source<R> {
    file: R,
    position: u64,
}

impl<R: Read> Source<R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(|e| format!("its header breaks off ({e})"))?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn string(&mut self) -> Result<String, String> {
        let n = self.u64()?;
        if n > STRING_BYTES_MAX {
            return Err(format!("a string of {n} bytes, at most {STRING_BYTES_MAX} are read"));
        }
        let mut bytes = Vec::new();
        self.file.by_ref().take(n).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 != n {
            return Err(format!("a string of {n} bytes breaks off after {}", bytes.len()));
        }
        self.position += n;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => self.bytes::<1>()?[0].into(),
            1 => i8::from_le_bytes(self.bytes()?).into(),
            2 => u16::from_le_bytes(self.bytes()?).into(),
            3 => i16::from_le_bytes(self.bytes()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.bytes()?).into(),
            6 => f32::from_le_bytes(self.bytes()?).into(),
            7 => (self.bytes::<1>()? != [0]).into(),
            STRING => self.string()?.into(),
            LIST => return self.list(),
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.bytes()?).into(),
            12 => f64::from_le_bytes(self.bytes()?).into(),
            _ => return Err(format!("a value of the unknown type {kind}")),
        })
    }

    /// Lists are vocabularies, which the tokenizer reads: of them only the length is kept.
    fn list(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        let n = self.u64()?;
        if kind == LIST {
            return Err("a list of lists".to_owned());
        }
        if n > LIST_MAX {
            return Err(format!("a list of {n} values, at most {LIST_MAX} are read"));
        }
        for _ in 0..n {
            self.value(kind)?;
        }
        Ok(json!({ "length": n }))
    }
}

fn unusable(path: &Path, why: String) -> Error {
    Error::Unusable {
        action: "load",
        what: format!("`{}`", path.display()),
        why,
        hint: "take a GGUF file of a LLaMA model, or its Hugging Face folder".to_owned(),
    }
}
