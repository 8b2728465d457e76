//! The spans of the `tracing` facade. Fields are formatted only for a subscriber.

/// Dials a peer within the span of the attempt.
#[cfg(feature = "quic")]
pub(crate) async fn dial<T, E>(
    peer: x0_identity::NodeId,
    address: std::net::SocketAddr,
    attempt: impl Future<Output = Result<T, E>>,
    refused: impl FnOnce(&E) -> Option<String>,
) -> Result<T, E> {
    use tracing::Instrument as _;

    let span =
        tracing::debug_span!(parent: None, "mesh.dial", %peer, %address, refused = tracing::field::Empty);
    let made = attempt.instrument(span.clone()).await;
    if let Err(error) = &made
        && !span.is_disabled()
        && let Some(reason) = refused(error)
    {
        span.record("refused", reason);
    }
    made
}

/// Follows a change of the route to a destination within a span.
#[cfg(feature = "mesh")]
pub(crate) fn adapt<T>(
    destination: x0_identity::NodeId,
    next: Option<x0_identity::NodeId>,
    follow: impl FnOnce() -> T,
) -> T {
    let next = next.map(tracing::field::display);
    tracing::debug_span!(parent: None, "mesh.adapt", %destination, next).in_scope(follow)
}
