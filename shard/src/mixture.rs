//! Several datasets as one: which of them a global sample comes from, and which of its samples it is.
//!
//! A [`Schedule`] is a pure function of weights, sizes and seed. Each block of [`BLOCK`] samples holds every dataset in
//! proportion, to within a few samples from the start of the phase on, in a seeded order; finding a sample takes
//! O(log n) of the datasets. A dataset that was read `epochs_max` times is exhausted, at a sample that is known before the
//! first one is read: from there on the weights of the others keep their proportions, and when none is left the
//! mixture ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::manifest::hash;
use crate::order::{Permutation, seed_from};
use crate::reader::{ReaderConfig, ReaderState, Samples, Sequence, SequenceReader};
use crate::{Error, Result};

/// Samples that are put in a random order together, so that a rank's slice of a batch is no single dataset's.
pub const BLOCK: u64 = 256;
/// Bits of a share: with 2^48, a weight is off by one sample in 10^14.
const SHARE_BITS: u32 = 48;

/// A dataset in a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// What phases and messages call it.
    pub name: String,
    /// Its folder.
    pub dataset: PathBuf,
    /// Its version; the newest without one.
    #[serde(default)]
    pub version: Option<u64>,
    /// Its share of the samples, in proportion to the other weights; 0 leaves it out until a phase wants it.
    pub weight: f64,
    /// How often it is read at most; without a limit, as often as its weight wants.
    #[serde(default)]
    pub epochs_max: Option<u64>,
    /// A partition of it; all of it without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// By partition, how often its sequences are read while those of a partition with 1 are read once: every partition is
    /// named, and 0 leaves one out. Without it, all are read equally often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<BTreeMap<String, f64>>,
}

/// Weights from a sample on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// The first sample that they hold for.
    pub first_sample: u64,
    /// By name; a component that is not named keeps its weight of the phase before.
    pub weights: BTreeMap<String, f64>,
}

/// Reads several datasets in proportion.
#[derive(Debug)]
pub struct MixtureReader {
    /// A component whose partitions are repeated is one of these for each partition.
    components: Vec<(String, SequenceReader)>,
    schedule: Schedule,
    fingerprint: String,
}

impl MixtureReader {
    /// Opens every component with `config`; `phases` ascend by their first sample.
    ///
    /// # Errors
    /// When a dataset cannot be opened, two have different tokenizers, or a weight or phase makes no sense.
    pub fn open(components: &[Component], phases: &[Phase], config: &ReaderConfig) -> Result<Self> {
        let weights = weights_of(components, phases)?;
        let mut all: Vec<(&Component, Vec<Part>)> = Vec::with_capacity(components.len());
        for component in components {
            let parts = open_parts(component, config)?;
            let first: &[Part] = all.first().map_or(&parts, |(_, parts)| parts);
            check_tokenizers(&first[0], &parts[0])?;
            all.push((component, parts));
        }
        let of_parts = |weights: &Vec<f64>| -> Vec<f64> {
            let parts = all.iter().zip(weights);
            let weights = |(parts, weight): (&Vec<Part>, &f64)| -> Vec<f64> {
                parts.iter().map(|part| part.share * weight).collect()
            };
            parts.flat_map(|((_, parts), weight)| weights((parts, weight))).collect()
        };
        let weights: Vec<_> =
            weights.iter().map(|(first, weights)| (*first, of_parts(weights))).collect();
        let limits = all.iter().flat_map(|(component, parts)| {
            parts.iter().map(|part| component.epochs_max.map(|epochs| part.limit(epochs)))
        });
        let schedule = Schedule::new(&limits.collect::<Vec<_>>(), &weights, config.seed);
        let fingerprint = fingerprint(&all, phases, config);
        let parts = all.into_iter().flat_map(|(_, parts)| parts);
        let components = parts.map(|part| (part.name, part.reader)).collect();
        Ok(Self { components, schedule, fingerprint })
    }

    /// Which component each sample comes from.
    #[must_use]
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The components, in order.
    pub fn components(&self) -> impl Iterator<Item = (&str, &SequenceReader)> {
        self.components.iter().map(|(name, reader)| (name.as_str(), reader))
    }

    /// Returns what a checkpoint keeps when `next_sample` is the first sample not seen: its hash covers every
    /// component's manifest, the weights, phases and the reader's settings.
    #[must_use]
    pub fn state(&self, next_sample: u64) -> ReaderState {
        ReaderState { manifest_hash: self.fingerprint.clone(), next_sample }
    }

    /// Checks that `state` belongs to this mixture, and returns the sample to go on with.
    ///
    /// # Errors
    /// When a dataset, a weight or a setting is not what it was: the rest of the run would see other sequences.
    pub fn resume(&self, state: &ReaderState) -> Result<u64> {
        if state.manifest_hash == self.fingerprint {
            return Ok(state.next_sample);
        }
        let names: Vec<_> = self
            .components
            .iter()
            .map(|(name, reader)| format!("`{name}` version {}", reader.version()))
            .collect();
        Err(Error::Corrupt {
            what: format!("the mixture of {}", names.join(", ")),
            why: format!(
                "its fingerprint is {}, the checkpoint was made with {}",
                self.fingerprint, state.manifest_hash
            ),
            hint: "give the versions, weights, phases and seed that the run began with".to_owned(),
        })
    }
}

impl Samples for MixtureReader {
    fn seq_len(&self) -> usize {
        self.components[0].1.seq_len()
    }

    fn n_samples(&self) -> Option<u64> {
        self.schedule.n_samples()
    }

    fn read_sequence(&mut self, sample: u64, out: &mut Sequence) -> Result<()> {
        let (component, local) = self.schedule.locate(sample);
        self.components[component].1.read_sequence(local, out)
    }
}

/// A component, or one of its partitions.
struct Part {
    name: String,
    reader: SequenceReader,
    /// How often it is read while a partition with 1 is read once.
    repeats: f64,
    /// Its part of the component's weight.
    share: f64,
}

impl Part {
    /// Samples in `epochs` rounds of its component.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "repeats are not negative, and no dataset has 2^53 sequences"
    )]
    fn limit(&self, epochs: u64) -> u64 {
        let n = self.reader.n_sequences().saturating_mul(epochs);
        if self.repeats == 1.0 { n } else { (n as f64 * self.repeats).round() as u64 }
    }
}

/// Opens a component: its partitions, where each is read another number of times.
fn open_parts(component: &Component, config: &ReaderConfig) -> Result<Vec<Part>> {
    let open = |partition: &Option<String>| {
        let config = ReaderConfig { partition: partition.clone(), ..config.clone() };
        SequenceReader::open(&component.dataset, component.version, config)
    };
    let Some(repeats) = &component.repeats else {
        let reader = open(&component.partition)?;
        return Ok(vec![Part { name: component.name.clone(), reader, repeats: 1.0, share: 1.0 }]);
    };
    let whole = Dataset::at(&component.dataset).open(component.version)?;
    check_repeats(component, repeats, &whole.manifest.partitions(&config.split))?;
    let mut parts = Vec::with_capacity(repeats.len());
    for (partition, repeats) in repeats.iter().filter(|(_, repeats)| **repeats > 0.0) {
        let name = format!("{}/{partition}", component.name);
        let reader = open(&Some(partition.clone()))?;
        parts.push(Part { name, reader, repeats: *repeats, share: 0.0 });
    }
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let size = |part: &Part| part.reader.n_sequences() as f64 * part.repeats;
    let all: f64 = parts.iter().map(size).sum();
    for part in &mut parts {
        part.share = size(part) / all;
    }
    Ok(parts)
}

/// Refuses repeats that do not say for every partition how often it is read.
fn check_repeats(
    component: &Component,
    repeats: &BTreeMap<String, f64>,
    partitions: &BTreeSet<&str>,
) -> Result<()> {
    let refuse = |message: String, hint: &str| {
        let place = format!("mixture, `repeats` of `{}`", component.name);
        Err(Error::Config { place, message, hint: Some(hint.to_owned()) })
    };
    if let Some(partition) = &component.partition {
        let message = format!("`partition` reads `{partition}` alone");
        return refuse(message, "leave one of the two keys out");
    }
    let named: BTreeSet<&str> = repeats.keys().map(String::as_str).collect();
    if named != *partitions {
        let list = |names: &BTreeSet<&str>| match names.is_empty() {
            true => "none".to_owned(),
            false => format!("`{}`", names.iter().copied().collect::<Vec<_>>().join("`, `")),
        };
        let (named, found) = (list(&named), list(partitions));
        let message = format!("it names the partitions {named}, the dataset has {found}");
        return refuse(message, "give each partition a number, 0 to leave it out");
    }
    let is_wrong = |times: &f64| !(times.is_finite() && *times >= 0.0);
    if let Some((partition, times)) = repeats.iter().find(|(_, times)| is_wrong(times)) {
        let message = format!("`{partition}` is read {times} times");
        return refuse(message, "numbers are finite and not negative");
    }
    if repeats.values().all(|times| *times == 0.0) {
        return refuse("no partition is read".to_owned(), "give at least one a number above 0");
    }
    Ok(())
}

/// Maps a global sample to a component and its sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    stretches: Vec<Stretch>,
    n_samples: Option<u64>,
    seed: u64,
}

/// Samples between two changes of the weights.
#[derive(Clone, Debug, PartialEq)]
struct Stretch {
    first_sample: u64,
    /// `None` for the last one, when it has no end.
    n: Option<u64>,
    /// Samples of each component before this stretch.
    before: Vec<u64>,
    /// The components that are read, as halves of halves: node 0 is all of them.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Leaf(usize),
    /// Of the first `i` samples here, `(i · share + offset) >> SHARE_BITS` go left.
    Split {
        share: u64,
        offset: u64,
        left: usize,
        right: usize,
    },
}

impl Schedule {
    /// `limits`: how many samples each component gives at most. `weights`: by component, from a first sample on,
    /// ascending, the first one from 0; finite and not negative.
    ///
    /// # Panics
    /// When the first weights do not begin at sample 0 or no component has a weight there.
    #[must_use]
    pub fn new(limits: &[Option<u64>], weights: &[(u64, Vec<f64>)], seed: u64) -> Self {
        assert_eq!(weights.first().map(|(first, _)| *first), Some(0), "weights from sample 0 on");
        let mut schedule = Self { stretches: Vec::new(), n_samples: None, seed };
        let mut used = vec![0; limits.len()];
        for (i, (first, weights_here)) in weights.iter().enumerate() {
            let end = weights.get(i + 1).map(|(next, _)| *next);
            let mut sample = *first;
            while end.is_none_or(|end| sample < end) {
                let is_left = |c: &usize| {
                    weights_here[*c] > 0.0 && limits[*c].is_none_or(|limit| used[*c] < limit)
                };
                let active: Vec<usize> = (0..limits.len()).filter(is_left).collect();
                if active.is_empty() {
                    schedule.n_samples = Some(sample);
                    return schedule;
                }
                let mut nodes = Vec::new();
                split(&active, weights_here, seed_from(&[seed, sample]), &mut nodes);
                let mut stretch =
                    Stretch { first_sample: sample, n: None, before: used.clone(), nodes };
                stretch.n = stretch.length(&active, limits, end.map(|end| end - sample));
                let n = stretch.n;
                if let Some(n) = n {
                    for component in active {
                        used[component] += stretch.count(component, n);
                    }
                }
                schedule.stretches.push(stretch);
                match n {
                    Some(n) => sample += n,
                    None => return schedule,
                }
            }
        }
        schedule
    }

    /// Samples that there are; `None` when some component is read without end.
    #[must_use]
    pub fn n_samples(&self) -> Option<u64> {
        self.n_samples
    }

    /// The samples at which weights change or a component is exhausted, with the components read from there on.
    pub fn changes(&self) -> impl Iterator<Item = (u64, Vec<usize>)> {
        self.stretches.iter().map(|stretch| {
            let leaf = |node: &Node| match node {
                Node::Leaf(component) => Some(*component),
                Node::Split { .. } => None,
            };
            (stretch.first_sample, stretch.nodes.iter().filter_map(leaf).collect())
        })
    }

    /// Returns the component of `sample` and which of that component's samples it is.
    ///
    /// # Panics
    /// When `sample` is not below [`Schedule::n_samples`].
    #[must_use]
    pub fn locate(&self, sample: u64) -> (usize, u64) {
        assert!(
            self.n_samples.is_none_or(|n| sample < n),
            "sample {sample} of {:?}",
            self.n_samples
        );
        let at = self.stretches.partition_point(|stretch| stretch.first_sample <= sample) - 1;
        let stretch = &self.stretches[at];
        let (start, order) = self.block(stretch, sample - stretch.first_sample);
        let index = sample - stretch.first_sample - start;
        let (component, local) = stretch.find(start + order.apply(index));
        (component, stretch.before[component] + local)
    }

    /// Returns the sample that is sample `local` of `component`, nothing when the mixture ends before: the inverse of
    /// [`Schedule::locate`].
    #[must_use]
    pub fn sample_of(&self, component: usize, local: u64) -> Option<u64> {
        self.stretches.iter().rev().filter(|stretch| stretch.before[component] <= local).find_map(
            |stretch| {
                let index = stretch.index_of(0, component, local - stretch.before[component])?;
                if stretch.n.is_some_and(|n| index >= n) {
                    return None;
                }
                let (start, order) = self.block(stretch, index);
                Some(stretch.first_sample + start + order.invert(index - start))
            },
        )
    }

    /// Where the block of sample `index` of a stretch begins, and its order.
    fn block(&self, stretch: &Stretch, index: u64) -> (u64, Permutation) {
        let start = index / BLOCK * BLOCK;
        let n = stretch.n.map_or(BLOCK, |n| BLOCK.min(n - start));
        (start, Permutation::new(n, seed_from(&[self.seed, stretch.first_sample, start])))
    }
}

impl Stretch {
    /// Samples until `end` or until the first component is exhausted, whichever comes first.
    fn length(&self, active: &[usize], limits: &[Option<u64>], end: Option<u64>) -> Option<u64> {
        let exhausted = active.iter().filter_map(|component| {
            let left = limits[*component]? - self.before[*component];
            last_of(left, |n| self.count(*component, n)).map(|last| last + 1)
        });
        exhausted.chain(end).min()
    }

    /// How many of the first `n` samples are `component`'s.
    fn count(&self, component: usize, n: u64) -> u64 {
        self.count_below(0, component, n).unwrap_or(0)
    }

    fn count_below(&self, node: usize, component: usize, n: u64) -> Option<u64> {
        match self.nodes[node] {
            Node::Leaf(found) => (found == component).then_some(n),
            Node::Split { share, offset, left, right } => {
                let n_left = n_left(n, share, offset);
                self.count_below(left, component, n_left)
                    .or_else(|| self.count_below(right, component, n - n_left))
            }
        }
    }

    /// Returns which of the samples below `node` is sample `local` of `component`; `None` when it is not read here.
    fn index_of(&self, node: usize, component: usize, local: u64) -> Option<u64> {
        match self.nodes[node] {
            Node::Leaf(found) => (found == component).then_some(local),
            Node::Split { share, offset, left, right } => {
                let n_right = |n| n - n_left(n, share, offset);
                match self.index_of(left, component, local) {
                    Some(local) => last_of(local + 1, |n| n_left(n, share, offset)),
                    None => last_of(self.index_of(right, component, local)? + 1, n_right),
                }
            }
        }
    }

    /// Returns the component of sample `index` here and which of its samples here it is.
    fn find(&self, mut index: u64) -> (usize, u64) {
        let mut node = 0;
        loop {
            match self.nodes[node] {
                Node::Leaf(component) => return (component, index),
                Node::Split { share, offset, left, right } => {
                    let before = n_left(index, share, offset);
                    let goes_left = n_left(index + 1, share, offset) > before;
                    (node, index) =
                        if goes_left { (left, before) } else { (right, index - before) };
                }
            }
        }
    }
}

/// Returns the index of the sample with which `count` of the samples so far reaches `wanted`, which is not 0; counts never
/// fall, and grow by one at a time.
fn last_of(wanted: u64, count: impl Fn(u64) -> u64) -> Option<u64> {
    let mut high = wanted;
    while count(high) < wanted {
        high = high.checked_mul(2)?;
    }
    let mut low = 0;
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        match count(middle) < wanted {
            true => low = middle,
            false => high = middle,
        }
    }
    Some(high - 1)
}

fn n_left(n: u64, share: u64, offset: u64) -> u64 {
    let n = (u128::from(n) * u128::from(share) + u128::from(offset)) >> SHARE_BITS;
    u64::try_from(n).expect("a share is at most one")
}

/// Adds the node that divides the samples of `active`, and those below it.
fn split(active: &[usize], weights: &[f64], seed: u64, nodes: &mut Vec<Node>) {
    let at = nodes.len();
    if let [component] = active {
        nodes.push(Node::Leaf(*component));
        return;
    }
    let (lefts, rights) = active.split_at(active.len() / 2);
    let sum = |part: &[usize]| part.iter().map(|component| weights[*component]).sum::<f64>();
    let share = share(sum(lefts), sum(rights));
    let offset = seed_from(&[seed, at as u64]) >> (u64::BITS - SHARE_BITS);
    nodes.push(Node::Leaf(0));
    let left = nodes.len();
    split(lefts, weights, seed, nodes);
    let right = nodes.len();
    split(rights, weights, seed, nodes);
    nodes[at] = Node::Split { share, offset, left, right };
}

/// `left / (left + right)` in units of 2^-48, never all or nothing: a component with a weight is read some day.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share from 0 to 1 times 2^48 is exact in both types"
)]
fn share(left: f64, right: f64) -> u64 {
    let one = 1_u64 << SHARE_BITS;
    // Divided first: the sum of two large weights may be infinite.
    let share = 1.0 / (1.0 + right / left);
    ((share * one as f64).round() as u64).clamp(1, one - 1)
}

/// Weights of all components, from a first sample on.
fn weights_of(components: &[Component], phases: &[Phase]) -> Result<Vec<(u64, Vec<f64>)>> {
    let refuse = |message: String, hint: &str| {
        let (place, hint) = ("mixture".to_owned(), Some(hint.to_owned()));
        Err(Error::Config { place, message, hint })
    };
    let mut names = BTreeMap::new();
    for (i, component) in components.iter().enumerate() {
        if names.insert(component.name.as_str(), i).is_some() {
            let message = format!("two datasets are called `{}`", component.name);
            return refuse(message, "give each dataset a name of its own");
        }
        if component.epochs_max == Some(0) {
            let message = format!("`{}` is read 0 times", component.name);
            return refuse(message, "leave the dataset out, or raise `epochs_max`");
        }
    }
    let mut all = vec![(0, components.iter().map(|it| it.weight).collect::<Vec<_>>())];
    for phase in phases {
        let (last, weights) = all.last().expect("the components' own weights");
        if phase.first_sample <= *last {
            let message = format!(
                "a phase begins at sample {}, the one before at {last}",
                phase.first_sample
            );
            return refuse(message, "phases ascend, and sample 0 has the datasets' own weights");
        }
        let mut weights = weights.clone();
        for (name, weight) in &phase.weights {
            let Some(component) = names.get(name.as_str()) else {
                let known: Vec<_> = names.keys().copied().collect();
                let hint = crate::config::nearest(name, &known).unwrap_or_default();
                return refuse(format!("a phase weighs `{name}`, which is no dataset"), &hint);
            };
            weights[*component] = *weight;
        }
        all.push((phase.first_sample, weights));
    }
    for (first, weights) in &all {
        for (component, weight) in components.iter().zip(weights) {
            if !(weight.is_finite() && *weight >= 0.0) {
                let name = &component.name;
                let message = format!("the weight of `{name}` from sample {first} on is {weight}");
                return refuse(message, "weights are finite and not negative");
            }
        }
        if weights.iter().all(|weight| *weight == 0.0) {
            let message = format!("no dataset has a weight from sample {first} on");
            return refuse(message, "give at least one dataset a weight above 0");
        }
    }
    Ok(all)
}

fn check_tokenizers(a: &Part, b: &Part) -> Result<()> {
    let of = |part: &Part| part.reader.manifest().tokenizer.clone();
    let (first, second) = (of(a), of(b));
    let print = |info: &Option<crate::manifest::TokenizerInfo>| {
        info.as_ref().map(|info| (info.fingerprint.clone(), info.n_vocabulary))
    };
    if print(&first) == print(&second) {
        return Ok(());
    }
    let say = |info| match print(&info) {
        Some((fingerprint, n)) => format!("tokenizer {fingerprint} with {n} tokens"),
        None => "no tokenizer".to_owned(),
    };
    Err(Error::Config {
        place: "mixture".to_owned(),
        message: format!("`{}` has {}, `{}` has {}", a.name, say(first), b.name, say(second)),
        hint: Some(
            "tokenize both with the same tokenizer: the same id must be the same text".to_owned(),
        ),
    })
}

/// BLAKE3 of all that decides which sequence a sample is.
fn fingerprint(all: &[(&Component, Vec<Part>)], phases: &[Phase], config: &ReaderConfig) -> String {
    let components: Vec<_> = all
        .iter()
        .map(|(component, parts)| {
            let mut what = serde_json::json!({
                "name": component.name,
                "manifest": parts[0].reader.manifest_hash(),
                "weight": component.weight,
                "epochs_max": component.epochs_max,
            });
            // Absent where there is none: older checkpoints know nothing of them.
            if let Some(partition) = &component.partition {
                what["partition"] = partition.as_str().into();
            }
            if let Some(repeats) = &component.repeats {
                what["repeats"] = serde_json::json!(repeats);
            }
            what
        })
        .collect();
    let config = serde_json::json!({
        "split": config.split,
        "seq_len": config.seq_len,
        "seed": config.seed,
        "packing": config.packing,
        "mask_documents": config.mask_documents,
    });
    let all = serde_json::json!({ "components": components, "phases": phases, "reader": config });
    hash(all.to_string().as_bytes())
}

#[cfg(test)]
mod tests;
