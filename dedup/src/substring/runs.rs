//! Windows of a text, brought together by their seeds.

use crate::Result;
use crate::mix::fold;

/// Windows that a run has at most, so that its string stays short where a text is one character over and over.
const RUN_WINDOWS_MAX: usize = 1 << 12;

/// What texts are sequences of.
pub(super) trait Symbol: Copy + Into<u64> {}

impl Symbol for u8 {}
impl Symbol for u32 {}

/// Not 0, so that a window of zeros depends on its length.
fn number<S: Symbol>(symbol: S) -> u64 {
    Into::<u64>::into(symbol) + 1
}

/// Neighbouring windows of one seed.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) seed: u64,
    /// Where the seed stands last in the first window, counted in symbols.
    place: usize,
    /// The first window's first symbol.
    pub(super) start: usize,
    pub(super) n_windows: usize,
    /// Whether it stands elsewhere in a later one: only then can two of the windows be equal.
    pub(super) is_repeated: bool,
}

/// Hands every run of windows of `window` symbols to `visit`; seeds have `n_seed` of them.
pub(super) fn runs<S: Symbol>(
    text: &[S],
    window: usize,
    n_seed: usize,
    mut visit: impl FnMut(Found) -> Result<()>,
) -> Result<()> {
    if text.len() < window {
        return Ok(());
    }
    let n_seeds = window - n_seed + 1;
    let mut smallest = Smallest::new(n_seeds);
    let mut hash = Rolling::new(&text[..n_seed]);
    let mut run: Option<Found> = None;
    for at in 0..=text.len() - n_seed {
        if at > 0 {
            hash.roll(text[at - 1], text[at - 1 + n_seed]);
        }
        let (seed, place) = smallest.push(hash.value());
        let Some(start) = (at + 1).checked_sub(n_seeds) else { continue };
        match &mut run {
            Some(run) if run.seed == seed && run.n_windows < RUN_WINDOWS_MAX => {
                run.n_windows += 1;
                run.is_repeated |= run.place != place;
            }
            run => {
                let next = Found { seed, place, start, n_windows: 1, is_repeated: false };
                run.replace(next).map_or(Ok(()), &mut visit)?;
            }
        }
    }
    run.map_or(Ok(()), visit)
}

/// The smallest of the last hashes, `n` of them or fewer at the beginning.
struct Smallest {
    ring: Vec<u64>,
    mask: usize,
    n: usize,
    pushed: usize,
    /// The smallest and when it was pushed last.
    smallest: (u64, usize),
}

impl Smallest {
    fn new(n: usize) -> Self {
        let ring = vec![u64::MAX; n.next_power_of_two()];
        Self { mask: ring.len() - 1, ring, n, pushed: 0, smallest: (u64::MAX, 0) }
    }

    #[inline]
    fn push(&mut self, hash: u64) -> (u64, usize) {
        let at = self.pushed;
        self.ring[at & self.mask] = hash;
        self.pushed += 1;
        if hash <= self.smallest.0 {
            self.smallest = (hash, at);
        } else if self.smallest.1 + self.n <= at {
            let kept = at + 1 - self.n..=at;
            let hashes = kept.map(|at| (self.ring[at & self.mask], at));
            self.smallest =
                hashes.min_by_key(|&(hash, at)| (hash, usize::MAX - at)).expect("n > 0");
        }
        self.smallest
    }
}

/// The hash of a window of symbols that moves by one: a polynomial, mixed. Decides partitions and runs, never what is equal.
struct Rolling {
    hash: u64,
    /// The base to the power of the window's length.
    power: u64,
}

const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rolling {
    fn new<S: Symbol>(window: &[S]) -> Self {
        let (mut hash, mut power) = (0_u64, 1_u64);
        for symbol in window {
            hash = hash.wrapping_mul(BASE).wrapping_add(number(*symbol));
            power = power.wrapping_mul(BASE);
        }
        Self { hash, power }
    }

    #[inline]
    fn roll<S: Symbol>(&mut self, out: S, new: S) {
        self.hash = self
            .hash
            .wrapping_mul(BASE)
            .wrapping_add(number(new))
            .wrapping_sub(self.power.wrapping_mul(number(out)));
    }

    #[inline]
    fn value(&self) -> u64 {
        fold(self.hash ^ crate::mix::K2, crate::mix::K3)
    }
}
