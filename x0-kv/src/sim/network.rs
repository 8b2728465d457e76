//! The behaviour of the links, set on the simulated mesh.

use std::time::Duration;

use x0_mesh::sim::LinkProfile;

use super::schedule::{MILLISECOND, Time};

/// How the links behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) delay_min: Time,
    pub(super) delay_max: Time,
    /// The messages of consensus that are overtaken, lost or duplicated, in thousandths.
    pub(super) late: u64,
    pub(super) lost: u64,
    pub(super) twice: u64,
}

impl Weather {
    pub(super) const CALM: Weather = Weather { delay_min: 100, delay_max: 400, late: 0, lost: 0, twice: 0 };
    /// Kinds of bad weather.
    pub(super) const BAD: [Weather; 4] = [
        Weather { delay_min: 200, delay_max: 20 * MILLISECOND, late: 50, lost: 20, twice: 20 },
        Weather { delay_min: MILLISECOND, delay_max: 80 * MILLISECOND, late: 50, lost: 150, twice: 100 },
        Weather { delay_min: 40 * MILLISECOND, delay_max: 60 * MILLISECOND, late: 5, lost: 0, twice: 0 },
        Weather { delay_min: 100, delay_max: 500, late: 5, lost: 300, twice: 300 },
    ];

    /// As the mesh takes it. Packets that are lost delay the messages of lanes in order.
    pub(super) fn profile(&self) -> LinkProfile {
        LinkProfile {
            delay_min: Duration::from_micros(self.delay_min),
            delay_max: Duration::from_micros(self.delay_max),
            loss: self.lost as f64 / 4000.0,
            ..LinkProfile::default()
        }
    }
}
