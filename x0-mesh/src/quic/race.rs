//! Waits for the first of two futures.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

pub(crate) enum Winner<A, B> {
    First(A),
    Second(B),
}

/// The first one is polled first, so it wins when both are ready.
pub(crate) async fn race<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> Winner<A, B> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    poll_fn(|cx| {
        if let Poll::Ready(output) = first.as_mut().poll(cx) {
            return Poll::Ready(Winner::First(output));
        }
        second.as_mut().poll(cx).map(Winner::Second)
    })
    .await
}
