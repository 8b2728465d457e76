//! The index as a file.

use std::cmp::Reverse;
use std::sync::Arc;

use super::blocks::ROWS;
use super::graph::{Graph, LAYERS_MAX};
use super::options::HnswOptions;
use super::quantize::square;
use super::writer::Writer;
use crate::file::{Damage, Reader, SectionWriter, Sections, count32};
use crate::index::rerank::Rerank;
use crate::index::vector::{Metric, VectorId};
use crate::index::vector_index::RestoreError;

const KIND: [u8; 8] = *b"X0MLHNS\0";
const VERSION: u32 = 1;
/// No entry point: the index is empty.
const NONE: u32 = u32::MAX;
/// More changes than an index lives to see; above it, the next ones could overflow the counts.
const COUNT_MAX: u64 = 1 << 63;

const SETTINGS: u32 = 1;
const LAYERS: u32 = 2;
const IDS: u32 = 3;
const SCALES: u32 = 4;
const CODES: u32 = 5;
const LINKS: u32 = 6;
const VECTORS: u32 = 7;

/// Whether so few slots hold a node that a file without the free ones is written. A block of slots takes
/// memory for all of them: without this, a file could make its reader allocate 64 times as much as it holds.
fn is_sparse(live: usize, slots: u32) -> bool {
    slots as usize > 8 * live.max(ROWS)
}

/// The sections. Free slots have a layer count of 0 and take no space elsewhere.
pub(super) fn save(graph: &Graph, [inserted, removed]: [u64; 2]) -> Vec<u8> {
    let options = &graph.options;
    let live = || (0..graph.slots).filter(|slot| graph.layers_of(*slot) > 0);
    // The number of a slot in the file. The order of nodes is that of their slots either way.
    let is_dense = is_sparse(graph.len, graph.slots);
    let mut renumbered = Vec::new();
    if is_dense {
        renumbered = vec![0; graph.slots as usize];
        live().enumerate().for_each(|(place, slot)| renumbered[slot as usize] = count32(place));
    }
    let place = |slot: u32| renumbered.get(slot as usize).copied().unwrap_or(slot);
    let slots = if is_dense { count32(graph.len) } else { graph.slots };
    let mut file = SectionWriter::new(KIND, VERSION);

    let mut settings = Vec::new();
    for setting in [
        options.metric.code(),
        count32(options.dimensions),
        count32(options.m),
        slots,
        graph.entry.map_or(NONE, place),
    ] {
        settings.extend(setting.to_le_bytes());
    }
    for setting in [options.seed, inserted, removed] {
        settings.extend(setting.to_le_bytes());
    }
    file.section(SETTINGS, settings);
    let is_kept = |count: &u8| *count > 0 || !is_dense;
    file.section(LAYERS, (0..graph.slots).map(|slot| graph.layers.row(slot)[0]).filter(is_kept).collect());
    file.section(IDS, live().flat_map(|slot| graph.id(slot).0.to_le_bytes()).collect());
    file.section(SCALES, live().flat_map(|slot| graph.scales.row(slot)[0][0].to_le_bytes()).collect());
    let mut codes = Vec::with_capacity(graph.len * options.dimensions);
    for slot in live() {
        codes.extend(graph.codes.row(slot)[..options.dimensions].iter().map(|code| code.cast_unsigned()));
    }
    file.section(CODES, codes);
    let mut links = Vec::new();
    for slot in live() {
        for layer in 0..graph.layers_of(slot) {
            let row = graph.links_of(layer, slot);
            links.extend(count32(row.len()).to_le_bytes());
            links.extend(row.iter().flat_map(|link| place(*link).to_le_bytes()));
        }
    }
    file.section(LINKS, links);
    if let Some(vectors) = &graph.vectors {
        let mut bytes = Vec::with_capacity(graph.len * options.dimensions * 4);
        for slot in live() {
            bytes.extend(vectors.row(slot).iter().flat_map(|component| component.to_le_bytes()));
        }
        file.section(VECTORS, bytes);
    }
    file.finish()
}

/// Checks every number of the file before anything uses it.
pub(super) fn restore(file: &[u8], options: &HnswOptions) -> Result<Writer, RestoreError> {
    let sections = Sections::parse(file, KIND, VERSION)?;
    let mut settings = sections.section(SETTINGS)?;
    settings.expect(44, 1)?;
    if Metric::from_code(settings.u32()?) != Some(options.metric) {
        return Err(RestoreError::Options { setting: "metric" });
    }
    if settings.u32()? as usize != options.dimensions {
        return Err(RestoreError::Options { setting: "number of dimensions" });
    }
    if settings.u32()? as usize != options.m {
        return Err(RestoreError::Options { setting: "number of links (`m`)" });
    }
    let slots = settings.u32()?;
    let at_entry = settings.clone();
    let entry = settings.u32()?;
    let seed = settings.u64()?;

    let mut layers = sections.section(LAYERS)?;
    // Everything that is allocated below is bounded by this length, which is that of bytes in the file, and
    // by the number of nodes among them.
    layers.expect(slots as usize, 1)?;
    let mut nodes = layers.clone();
    let nodes = nodes.bytes(slots as usize)?.iter().filter(|count| **count > 0).count();
    if is_sparse(nodes, slots) {
        return Err(layers.damage("nearly all slots are free").into());
    }
    let mut graph = Graph::new(HnswOptions { seed, ..options.clone() });
    graph.slots = slots;
    graph.reserve(slots as usize);
    let mut live = Vec::new();
    for slot in 0..slots {
        let damage = layers.damage("a node is on more layers than there are");
        let count = layers.bytes(1)?[0];
        if usize::from(count) > LAYERS_MAX {
            return Err(damage.into());
        }
        graph.layers.row_mut(slot)[0] = count;
        if count > 0 {
            live.push(slot);
        }
    }
    graph.len = live.len();
    graph.entry = (entry != NONE).then_some(entry);
    check_entry(&graph, &live).map_err(|reason| at_entry.damage(reason))?;

    let mut writer = Writer::over(graph);
    let damage = settings.damage("the counts of changes cannot be");
    (writer.inserted, writer.removed) = (settings.u64()?, settings.u64()?);
    if !(live.len() as u64..COUNT_MAX).contains(&writer.inserted) || writer.removed > writer.inserted {
        return Err(damage.into());
    }
    writer.free = (0..slots).filter(|slot| writer.graph.layers_of(*slot) == 0).map(Reverse).collect();
    read_ids(&mut writer, &live, sections.section(IDS)?)?;
    read_codes(&mut writer.graph, &live, sections.section(SCALES)?, sections.section(CODES)?)?;
    if matches!(options.rerank, Rerank::Memory) {
        let vectors = sections.optional(VECTORS).ok_or(RestoreError::Options { setting: "`Rerank`" })?;
        read_vectors(&mut writer.graph, &live, vectors)?;
    }
    read_links(&mut writer, &live, sections.section(LINKS)?)?;
    writer.note_links();
    Ok(writer)
}

fn check_entry(graph: &Graph, live: &[u32]) -> Result<(), &'static str> {
    let highest = live.iter().map(|slot| graph.layers_of(*slot)).max();
    let found = match graph.entry {
        Some(entry) if entry >= graph.slots => return Err("the entry point is no slot"),
        Some(entry) => Some(graph.layers_of(entry)),
        None => None,
    };
    if highest == found { Ok(()) } else { Err("the entry point is not on the highest layer") }
}

fn read_ids(writer: &mut Writer, live: &[u32], mut ids: Reader<'_>) -> Result<(), Damage> {
    ids.expect(live.len(), 8)?;
    for slot in live {
        let damage = ids.damage("a number of a vector occurs twice");
        let id = ids.u64()?;
        if writer.slot_of.insert(VectorId(id), *slot).is_some() {
            return Err(damage);
        }
        writer.graph.ids.row_mut(*slot)[0] = id;
    }
    Ok(())
}

fn read_codes(
    graph: &mut Graph,
    live: &[u32],
    mut scales: Reader<'_>,
    mut codes: Reader<'_>,
) -> Result<(), Damage> {
    let dimensions = graph.options.dimensions;
    scales.expect(live.len(), 4)?;
    codes.expect(live.len(), dimensions)?;
    for slot in live {
        let damage = scales.damage("a scale is not a positive number");
        let scale = scales.f32()?;
        let row = graph.codes.row_mut(*slot);
        for (code, byte) in row.iter_mut().zip(codes.bytes(dimensions)?) {
            *code = byte.cast_signed();
        }
        let square = square(graph.options.path, graph.codes.row(*slot), scale);
        if !(scale >= 0.0 && square.is_finite()) {
            return Err(damage);
        }
        graph.scales.row_mut(*slot)[0] = [scale, square];
    }
    Ok(())
}

fn read_vectors(graph: &mut Graph, live: &[u32], mut bytes: Reader<'_>) -> Result<(), Damage> {
    bytes.expect(live.len(), 4 * graph.options.dimensions)?;
    let path = graph.options.path;
    let Some(vectors) = &mut graph.vectors else { return Ok(()) };
    for slot in live {
        let damage = bytes.damage("a vector is not finite");
        let row = vectors.row_mut(*slot);
        for component in row.iter_mut() {
            *component = bytes.f32()?;
        }
        if !path.dot_f32(row, row).is_finite() {
            return Err(damage);
        }
    }
    Ok(())
}

fn read_links(writer: &mut Writer, live: &[u32], mut bytes: Reader<'_>) -> Result<(), Damage> {
    for slot in live {
        let layers = writer.graph.layers_of(*slot);
        let upper = (1 + writer.graph.options.links_max(1)) * (layers - 1);
        writer.graph.upper.row_mut(*slot)[0] =
            (layers > 1).then(|| std::iter::repeat_n(0, upper).collect::<Arc<[u32]>>());
        for layer in 0..layers {
            let damage = bytes.damage("a node has too many links");
            let count = bytes.u32()?;
            if count as usize > writer.graph.options.links_max(layer) {
                return Err(damage);
            }
            for place in 1..=count as usize {
                let at = bytes.clone();
                let link = bytes.u32()?;
                if link >= writer.graph.slots || link == *slot || writer.graph.layers_of(link) <= layer {
                    return Err(at.damage("a link leads to no node of its layer"));
                }
                let row = writer.links_mut(layer, *slot);
                if row[1..place].contains(&link) {
                    return Err(at.damage("a link occurs twice"));
                }
                row[place] = link;
                row[0] += 1;
            }
        }
    }
    bytes.expect(0, 1)
}
