use proptest::prelude::*;

use super::*;

#[test]
fn a_stream_keeps_one_token_to_predict() {
    assert_eq!(n_stream(0, 4), 0);
    assert_eq!(n_stream(4, 4), 0);
    assert_eq!(n_stream(5, 4), 1);
    assert_eq!(n_stream(9, 4), 2);
    assert_eq!(stream(1, 4), 4..9);
}

fn lengths_of(plan: &[Vec<Piece>]) -> Vec<Vec<u32>> {
    plan.iter().map(|pieces| pieces.iter().map(|piece| piece.n_tokens).collect()).collect()
}

#[test]
fn fills_the_tightest_sequence_first() {
    // By hand, 8 tokens each, longest first: 6 opens a sequence, 5 another, 3 fits there exactly, 2 fits the first.
    assert_eq!(lengths_of(&best_fit(&[6, 2, 3, 5], 7)), [vec![6, 2], vec![3, 5]]);
    assert_eq!(BestFitCounter::new(7).count(&[6, 2, 3, 5]), 2);
}

#[test]
fn cuts_only_documents_longer_than_a_sequence() {
    // 5 tokens fit a sequence of 4 and its last target; 10 tokens are cut with one token in both parts.
    let plan = best_fit(&[5, 0, 10, 1], 4);
    let piece = |document, start, n_tokens| Piece { document, start, n_tokens };
    let wanted = [
        vec![piece(0, 0, 5)],
        vec![piece(2, 0, 5)],
        vec![piece(2, 4, 5)],
        vec![piece(2, 8, 2), piece(3, 0, 1)],
    ];
    assert_eq!(plan, wanted);
    // Nine tokens end with a part: the rest would have nothing to predict.
    assert_eq!(lengths_of(&best_fit(&[9], 4)), [[5], [5]]);
}

proptest! {
    #[test]
    fn loses_no_token_and_overfills_nothing(
        lengths in prop::collection::vec(0..200_u32, 0..80),
        seq_len in 1..64_u32,
    ) {
        let plan = best_fit(&lengths, seq_len);
        let mut targets = vec![Vec::new(); lengths.len()];
        let mut firsts = vec![0; lengths.len()];
        for sequence in &plan {
            prop_assert!(!sequence.is_empty());
            prop_assert!(sequence.iter().map(|piece| piece.n_tokens).sum::<u32>() <= seq_len + 1);
            for piece in sequence {
                firsts[piece.document] += u32::from(piece.start == 0);
                targets[piece.document].extend(piece.start + 1..piece.start + piece.n_tokens);
            }
        }
        for ((found, firsts), n) in targets.iter_mut().zip(firsts).zip(&lengths) {
            found.sort_unstable();
            prop_assert_eq!(&*found, &(1..*n).collect::<Vec<_>>());
            prop_assert_eq!(firsts, u32::from(*n > 0));
        }
        // Any two sequences together hold more than one could: else best fit had joined them.
        let filled: Vec<u32> = plan.iter().map(|s| s.iter().map(|p| p.n_tokens).sum()).collect();
        let mut sorted = filled;
        sorted.sort_unstable();
        if let [a, b, ..] = sorted[..] {
            prop_assert!(a + b > seq_len + 1);
        }
    }

    #[test]
    fn counts_as_it_plans(
        windows in prop::collection::vec(prop::collection::vec(0..150_u32, 0..300), 1..4),
        seq_len in 1..130_u32,
    ) {
        let mut counter = BestFitCounter::new(seq_len);
        for lengths in &windows {
            prop_assert_eq!(counter.count(lengths), best_fit(lengths, seq_len).len() as u64);
        }
    }
}
