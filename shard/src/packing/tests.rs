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

#[test]
fn fills_the_tightest_sequence_first() {
    // By hand, longest first: 6 opens a sequence, 5 opens another, 3 fits there exactly, 2 fits the first.
    let plan = best_fit(&[6, 2, 3, 5], 8);
    let lengths: Vec<Vec<u32>> =
        plan.iter().map(|pieces| pieces.iter().map(|piece| piece.n_tokens).collect()).collect();
    assert_eq!(lengths, [vec![6, 2], vec![3, 5]]);
}

#[test]
fn cuts_only_documents_longer_than_a_sequence() {
    let plan = best_fit(&[10, 0, 4], 4);
    assert_eq!(plan.len(), 4);
    assert_eq!(plan[2], [Piece { document: 0, start: 8, n_tokens: 2 }]);
    assert!(plan.iter().flatten().all(|piece| piece.document != 1));
}

proptest! {
    #[test]
    fn loses_no_token_and_overfills_nothing(
        lengths in prop::collection::vec(0..200_u32, 0..80),
        seq_len in 1..64_u32,
    ) {
        let plan = best_fit(&lengths, seq_len);
        let mut tokens = vec![Vec::new(); lengths.len()];
        for sequence in &plan {
            prop_assert!(!sequence.is_empty());
            prop_assert!(sequence.iter().map(|piece| piece.n_tokens).sum::<u32>() <= seq_len);
            for piece in sequence {
                tokens[piece.document].extend(piece.start..piece.start + piece.n_tokens);
            }
        }
        for (found, n) in tokens.iter_mut().zip(&lengths) {
            found.sort_unstable();
            prop_assert_eq!(&*found, &(0..*n).collect::<Vec<_>>());
        }
        // Any two sequences together hold more than one could: else best fit had joined them.
        let filled: Vec<u32> = plan.iter().map(|s| s.iter().map(|p| p.n_tokens).sum()).collect();
        let mut sorted = filled;
        sorted.sort_unstable();
        if let [a, b, ..] = sorted[..] {
            prop_assert!(a + b > seq_len);
        }
    }
}
