//! The engine's state as bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::chunk::ChunkId;
use crate::file::{Damage, Reader, SectionWriter, Sections, count32};
use crate::index::VectorId;
use crate::retrieve::{DocumentId, Held, Known, Passages, Place};

const KIND: [u8; 8] = *b"X0MLCAT\0";
const VERSION: u32 = 1;
const SETTINGS: u32 = 1;
const CHUNKS: u32 = 2;
const DOCUMENTS: u32 = 3;
const UNFINISHED: u32 = 4;
/// More chunks than a node lives to see; above it, the next numbers could overflow.
const NEXT_MAX: u64 = 1 << 63;

/// The part that survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Catalogue {
    pub(super) passages: Passages,
    /// Every change up to this revision is applied.
    pub(super) applied: u64,
    /// Chunks in the indexes that no complete document holds.
    pub(super) unfinished: BTreeSet<VectorId>,
}

pub(super) fn encode(passages: &Passages, applied: u64, unfinished: &BTreeSet<VectorId>) -> Vec<u8> {
    let mut file = SectionWriter::new(KIND, VERSION);
    file.section(SETTINGS, [applied, passages.next].iter().flat_map(|n| n.to_le_bytes()).collect());
    let mut chunks = Vec::new();
    let sorted: BTreeMap<_, _> = passages.chunks.iter().collect();
    for (id, held) in sorted {
        chunks.extend(id.0.to_le_bytes());
        chunks.extend(held.chunk.as_bytes());
    }
    file.section(CHUNKS, chunks);
    let mut documents = Vec::new();
    for (document, known) in &passages.documents {
        put(&mut documents, document.as_str().as_bytes());
        documents.extend(known.revision.to_le_bytes());
        put(&mut documents, known.source.as_bytes());
        put_len(&mut documents, known.tags.len());
        known.tags.iter().for_each(|tag| put(&mut documents, tag.as_bytes()));
        put_len(&mut documents, known.chunks.len());
        for (id, span) in &known.chunks {
            documents.extend(id.0.to_le_bytes());
            documents.extend((span.start as u64).to_le_bytes());
            documents.extend((span.end as u64).to_le_bytes());
        }
    }
    file.section(DOCUMENTS, documents);
    file.section(UNFINISHED, unfinished.iter().flat_map(|id| id.0.to_le_bytes()).collect());
    file.finish()
}

fn put_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend(count32(len).to_le_bytes());
}

fn put(bytes: &mut Vec<u8>, content: &[u8]) {
    put_len(bytes, content.len());
    bytes.extend(content);
}

fn text(bytes: &mut Reader<'_>) -> Result<String, Damage> {
    let damage = bytes.damage("a name is no text");
    let len = bytes.u32()? as usize;
    String::from_utf8(bytes.bytes(len)?.to_vec()).map_err(|_| damage)
}

pub(super) fn decode(file: &[u8]) -> Result<Catalogue, Damage> {
    let sections = Sections::parse(file, KIND, VERSION)?;
    let mut settings = sections.section(SETTINGS)?;
    settings.expect(2, 8)?;
    let applied = settings.u64()?;
    let damage = settings.damage("the next number of a chunk cannot be");
    let next = settings.u64()?;
    if next > NEXT_MAX {
        return Err(damage);
    }
    let mut passages = Passages { next, ..Passages::default() };

    let mut chunks = sections.section(CHUNKS)?;
    while chunks.len() > 0 {
        let damage = chunks.damage("a chunk occurs twice, or its number was never given");
        let id = VectorId(chunks.u64()?);
        let name: [u8; 32] = chunks.bytes(32)?.try_into().map_err(|_| damage.clone())?;
        let chunk = ChunkId::from_bytes(name);
        let is_new = passages.chunks.insert(id, Held { chunk, places: Vec::new() }).is_none()
            && passages.number_of.insert(chunk, id).is_none();
        if !is_new || id.0 >= next {
            return Err(damage);
        }
    }
    let mut documents = sections.section(DOCUMENTS)?;
    while documents.len() > 0 {
        let damage = documents.damage("a document is out of order");
        let document = DocumentId::new(text(&mut documents)?);
        if passages.documents.last_key_value().is_some_and(|(last, _)| *last >= document) {
            return Err(damage);
        }
        let known = read_document(&mut documents, &document, &mut passages.chunks)?;
        passages.documents.insert(document, known);
    }
    if passages.chunks.values().any(|held| held.places.is_empty()) {
        return Err(documents.damage("a chunk stands in no document"));
    }
    let mut unfinished = BTreeSet::new();
    let mut rest = sections.section(UNFINISHED)?;
    while rest.len() > 0 {
        let damage = rest.damage("an unfinished chunk is finished, or its number was never given");
        let id = VectorId(rest.u64()?);
        if passages.chunks.contains_key(&id) || id.0 >= next || !unfinished.insert(id) {
            return Err(damage);
        }
    }
    Ok(Catalogue { passages, applied, unfinished })
}

fn read_document(
    bytes: &mut Reader<'_>,
    document: &DocumentId,
    chunks: &mut HashMap<VectorId, Held>,
) -> Result<Known, Damage> {
    let mut known =
        Known { revision: bytes.u64()?, source: text(bytes)?, tags: BTreeSet::new(), chunks: Vec::new() };
    for _ in 0..bytes.u32()? {
        known.tags.insert(text(bytes)?);
    }
    for _ in 0..bytes.u32()? {
        let damage = bytes.damage("a document has an unknown chunk or a wrong place of it");
        let id = VectorId(bytes.u64()?);
        let place = |number: u64| usize::try_from(number).map_err(|_| damage.clone());
        let span = place(bytes.u64()?)?..place(bytes.u64()?)?;
        let held = chunks.get_mut(&id).filter(|_| span.start < span.end).ok_or_else(|| damage.clone())?;
        held.places.push(Place { document: document.clone(), span: span.clone() });
        known.chunks.push((id, span));
    }
    Ok(known)
}
