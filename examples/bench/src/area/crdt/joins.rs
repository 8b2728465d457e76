//! Joins of a small delta into a large state.

use anyhow::{Result, ensure};
use crdts::{CmRDT, CvRDT, Orswot};
use x0_crdt::MapDelta;

use super::systems::{self, map_of, replica_of};
use super::{Work, processor_time};
use crate::case::{Case, Metric};

const JOIN: Metric = Metric { name: "join", unit: "ms" };

/// The divisor for the merge of crdts.
const LESS: f64 = 100.0;

pub(super) fn measure(work: &Work<'_>) -> Result<Vec<Case>> {
    let (keys, news) = (work.options.keys, work.options.keys / 100);
    let crdts = systems::named("crdts");
    let names = vec![
        format!("{} CausalMap::join", systems::named("x0-crdt")),
        "  and decoding it".to_owned(),
        format!("{crdts} Orswot::merge"),
    ];
    let how = format!(
        "{news} elements added elsewhere are taken into {keys}. x0: `join` of the difference; crdts: `merge` of the other's Orswot, which is\n\
         its only way. CPU of the thread."
    );
    let mut case = Case::new("crdt", "joins", how, names.clone());
    let map = map_of(&work.fill())?;
    let mut set: Orswot<String, u64> = Orswot::new();
    for (key, _) in work.fill() {
        let context = set.read_ctx().derive_add_ctx(1);
        let op = set.add(key, context);
        set.apply(op);
    }
    work.turns("joins", names.len(), |turn, system| {
        let added: Vec<String> = (0..news).map(|number| format!("new-{turn}-{number:06}")).collect();
        if system == 2 {
            let (mut here, mut there) = (set.clone(), set.clone());
            for key in &added {
                let context = there.read_ctx().derive_add_ctx(2);
                let op = there.add(key.clone(), context);
                there.apply(op);
            }
            let ((), seconds) = processor_time(|| here.merge(there));
            ensure!(here.read().val.len() == (keys + news) as usize, "crdts has lost an element");
            case.add(JOIN, system, seconds * 1e3);
            return Ok(());
        }
        let (mut here, mut there) = (map.clone(), replica_of(&map)?);
        for key in &added {
            there.put(key.as_bytes(), 1, b"")?;
        }
        let since = here.version();
        let bytes = there.delta(&since)?.encode(&since);
        let (joined, seconds) = if system == 0 {
            let delta = MapDelta::decode(&bytes, &since)?;
            processor_time(|| here.join(&delta))
        } else {
            let (joined, seconds) =
                processor_time(|| MapDelta::decode(&bytes, &since).map(|delta| here.join(&delta)));
            (joined?, seconds)
        };
        ensure!(joined?.news == news as usize, "x0 has lost an element");
        case.add(JOIN, system, seconds * 1e3);
        Ok(())
    })?;
    let most = case.median(JOIN, 2).unwrap_or(f64::NAN) / LESS;
    case.aim("join, beside a hundredth of crdts", case.median(JOIN, 0), most, "ms");
    Ok(vec![case])
}
