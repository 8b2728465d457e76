//! The way from effects to an outbox and an observer.

use x0_identity::NodeId;

use super::event::{Event, Observer};
use super::executor::Effect;
use super::outbox::Outbox;

/// Delivers effects, outcomes in batches.
pub(super) struct Delivery {
    outbox: Box<dyn Outbox>,
    observer: Box<dyn Observer>,
    /// Whether a batch of outcomes has begun.
    is_batch: bool,
}

impl Delivery {
    pub(super) fn new(outbox: impl Outbox + 'static, observer: impl Observer + 'static) -> Delivery {
        Delivery { outbox: Box::new(outbox), observer: Box::new(observer), is_batch: false }
    }

    /// Delivers an effect. The peer of a message that was dropped.
    pub(super) fn deliver(&mut self, effect: Effect) -> Result<(), NodeId> {
        match effect {
            Effect::Send { to, class, payload } => self.outbox.send(to, class, payload).map_err(|_| to),
            Effect::Event(event) => {
                if !self.is_batch && matches!(event, Event::Outcome { .. } | Event::ReadReady { .. }) {
                    self.is_batch = true;
                    self.observer.batch_begin();
                }
                self.observer.event(event);
                Ok(())
            }
        }
    }

    /// Everything is delivered for now.
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.is_batch) {
            self.observer.batch_end();
        }
    }
}
