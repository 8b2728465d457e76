//! Metrics of a node of a cluster.

mod folder;
mod health;
mod redirects;
mod refused;
mod serving;

pub(crate) use self::folder::FolderTelemetry;
pub(crate) use self::health::HealthTelemetry;
pub(crate) use self::redirects::RedirectTelemetry;
pub(crate) use self::refused::RefusedTelemetry;
pub(crate) use self::serving::ServingTelemetry;
