//! No spans, without the feature `tracing`. The functions are those of `spans`.

#[cfg(feature = "quic")]
pub(crate) async fn dial<T, E>(
    _: x0_identity::NodeId,
    _: std::net::SocketAddr,
    attempt: impl Future<Output = Result<T, E>>,
    _: impl FnOnce(&E) -> Option<String>,
) -> Result<T, E> {
    attempt.await
}

#[cfg(feature = "mesh")]
pub(crate) fn adapt<T>(
    _: x0_identity::NodeId,
    _: Option<x0_identity::NodeId>,
    follow: impl FnOnce() -> T,
) -> T {
    follow()
}
