//! The message of an error with those of its causes.

/// The messages of an error and its causes, each once: some messages already contain that of their cause.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.trim_end();
        if text.is_empty() {
            text.push_str(cause);
        } else if !text.contains(cause) {
            text.push_str(": ");
            text.push_str(cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::causes;

    #[test]
    fn no_cause_is_repeated() {
        assert_eq!(causes(&anyhow!("full").context("cannot write")), "cannot write: full");
        assert_eq!(
            causes(&anyhow!("full\n").context("full; free some").context("stopped")),
            "stopped: full; free some"
        );
    }
}
