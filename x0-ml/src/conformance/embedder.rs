//! Rules of [`Embedder`].

use crate::embed::{EmbedError, Embedder};

/// Holds an embedder against the contract of its seam.
///
/// # Panics
/// If a rule is broken.
pub fn embedder(embedder: &dyn Embedder) {
    let dimensions = embedder.dimensions();
    assert!(dimensions > 0 && embedder.tokens_max() > 0, "vectors and texts have a length");
    let texts = ["A node.", "", "Another text of several words, 漢字 and \u{1F600}", "A node."];
    let mut together = vec![f32::NAN; texts.len() * dimensions];
    let embedded = embedder.embed(&texts, &mut together).unwrap();
    assert_eq!(embedded.truncated, 0, "short texts are not truncated");
    assert!(together.iter().all(|component| component.is_finite()), "every component is written and finite");
    for (text, vector) in texts.iter().zip(together.chunks(dimensions)) {
        let mut alone = vec![f32::NAN; dimensions];
        embedder.embed(&[text], &mut alone).unwrap();
        let cosine = cosine(&alone, vector);
        assert!(
            cosine > 0.999_999,
            "a text has one vector, alone or beside others: cosine {cosine} for {text:?}"
        );
    }
    assert!(embedder.embed(&[], &mut []).is_ok(), "no texts are no error");
    let wrong = embedder.embed(&["a"], &mut vec![0.0; dimensions + 1]);
    assert!(matches!(wrong, Err(EmbedError::Room { .. })), "a wrong length of the vectors is an error");
    let long = "word ".repeat(embedder.tokens_max() + 1);
    let mut vector = vec![0.0; dimensions];
    match embedder.embed(&[&long], &mut vector) {
        Ok(embedded) => assert_eq!(embedded.truncated, 1, "a truncation is counted"),
        Err(error) => assert!(matches!(error, EmbedError::TooLong { text: 0, .. }), "a long text is named"),
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
