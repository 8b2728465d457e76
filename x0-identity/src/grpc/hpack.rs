//! Header compression (RFC 7541): a decoder with a bounded table, and an encoder that uses no table.

use std::collections::VecDeque;
use std::vec::Vec;

use super::huffman;

/// The size of the dynamic table, in bytes as RFC 7541 §4.1 counts them. It is the default of HTTP/2, so no
/// setting announces it.
const TABLE_SIZE_MAX: usize = 4096;

/// The overhead of an entry (§4.1).
const ENTRY_OVERHEAD: usize = 32;

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// The name.
    pub(super) name: Vec<u8>,
    /// The value.
    pub(super) value: Vec<u8>,
}

impl Field {
    fn new(name: &[u8], value: &[u8]) -> Field {
        Field { name: name.to_vec(), value: value.to_vec() }
    }

    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD
    }
}

/// A header block cannot be decoded. The decoder is out of step with the peer: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HpackError;

/// The fields of a header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldList {
    /// The fields, in order.
    pub(super) fields: Vec<Field>,
    /// The list was longer than allowed: the fields that followed are left out.
    pub(super) too_long: bool,
}

/// The decoder of one direction of a connection.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest entry first.
    table: VecDeque<Field>,
    size: usize,
    size_max: usize,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { table: VecDeque::new(), size: 0, size_max: TABLE_SIZE_MAX }
    }
}

impl Decoder {
    /// Decodes a header block. A list that is longer than `list_len_max` bytes (§4.1 counts them) is cut, but
    /// decoded to its end, so that the table stays in step.
    ///
    /// # Errors
    /// [`HpackError`], when the block breaks a rule of RFC 7541.
    pub(super) fn decode(&mut self, block: &[u8], list_len_max: usize) -> Result<FieldList, HpackError> {
        let mut list = FieldList { fields: Vec::new(), too_long: false };
        let mut len: usize = 0;
        let mut rest = block;
        // §4.2: a change of the size is at the beginning of a block.
        let mut begun = false;
        while let Some(first) = rest.first().copied() {
            let field = match first {
                0x80.. => self.indexed(integer(&mut rest, 7)?)?.clone(),
                0x40..=0x7f => {
                    let field = self.literal(&mut rest, 6)?;
                    self.insert(field.clone());
                    field
                }
                0x20..=0x3f => {
                    let size = integer(&mut rest, 5)?;
                    if begun || size > TABLE_SIZE_MAX {
                        return Err(HpackError);
                    }
                    self.size_max = size;
                    self.evict(0);
                    continue;
                }
                // Without indexing, or never indexed.
                0x00..=0x1f => self.literal(&mut rest, 4)?,
            };
            begun = true;
            len = len.saturating_add(field.size());
            if len > list_len_max {
                list.too_long = true;
            } else {
                list.fields.push(field);
            }
        }
        Ok(list)
    }

    /// §2.3.3: the static table, then the dynamic one.
    fn indexed(&self, index: usize) -> Result<Field, HpackError> {
        let place = index.checked_sub(1).ok_or(HpackError)?;
        match STATIC_TABLE.get(place) {
            Some((name, value)) => Ok(Field::new(name.as_bytes(), value.as_bytes())),
            None => self.table.get(place - STATIC_TABLE.len()).cloned().ok_or(HpackError),
        }
    }

    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<Field, HpackError> {
        let name = match integer(rest, prefix)? {
            0 => string(rest)?,
            index => self.indexed(index)?.name,
        };
        Ok(Field { name, value: string(rest)? })
    }

    /// §4.4: an entry that is larger than the table empties it.
    fn insert(&mut self, field: Field) {
        self.evict(field.size());
        if field.size() <= self.size_max {
            self.size += field.size();
            self.table.push_front(field);
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, room: usize) {
        while self.size.saturating_add(room) > self.size_max {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

/// §5.1, up to 2^28: longer than anything that is accepted.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, HpackError> {
    let mask = u8::MAX >> (8 - prefix);
    let (&first, mut bytes) = rest.split_first().ok_or(HpackError)?;
    let mut value = usize::from(first & mask);
    if first & mask == mask {
        for shift in [0, 7, 14, 21] {
            let (&byte, left) = bytes.split_first().ok_or(HpackError)?;
            bytes = left;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *rest = bytes;
                return Ok(value);
            }
        }
        return Err(HpackError);
    }
    *rest = bytes;
    Ok(value)
}

/// §5.2.
fn string(rest: &mut &[u8]) -> Result<Vec<u8>, HpackError> {
    let coded = rest.first().ok_or(HpackError)? & 0x80 != 0;
    let len = integer(rest, 7)?;
    let (bytes, left) = rest.split_at_checked(len).ok_or(HpackError)?;
    *rest = left;
    if coded { huffman::decode(bytes).ok_or(HpackError) } else { Ok(bytes.to_vec()) }
}

/// Encodes fields as literals without indexing, after a change of the table's size to zero: whatever table
/// the peer allows, none is used (§4.2).
pub(super) fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = vec![0x20];
    for (name, value) in fields {
        match STATIC_TABLE.iter().position(|known| *known == (name, value)) {
            Some(place) => put_integer(&mut block, 0x80, 7, place + 1),
            None => {
                match STATIC_TABLE.iter().position(|known| known.0 == name) {
                    Some(place) => put_integer(&mut block, 0, 4, place + 1),
                    None => {
                        block.push(0);
                        put_string(&mut block, name);
                    }
                }
                put_string(&mut block, value);
            }
        }
    }
    block
}

fn put_string(block: &mut Vec<u8>, text: &str) {
    put_integer(block, 0, 7, text.len());
    block.extend(text.as_bytes());
}

fn put_integer(block: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let mask = u8::MAX >> (8 - prefix);
    match u8::try_from(value) {
        Ok(small) if small < mask => block.push(first | small),
        _ => {
            block.push(first | mask);
            let mut left = value - usize::from(mask);
            while left >= 0x80 {
                block.push(0x80 | low_bits(left));
                left >>= 7;
            }
            block.push(low_bits(left));
        }
    }
}

fn low_bits(value: usize) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Appendix A.
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::string::String;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn texts(list: &FieldList) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        list.fields.iter().map(|field| (text(&field.name), text(&field.value))).collect()
    }

    /// The blocks of RFC 7541 Appendix C.4 and C.6, and the size of the table after each.
    #[test]
    fn the_examples_of_appendix_c_are_decoded() {
        let mut decoder = Decoder::default();
        for (block, size, last) in [
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", 57, (":authority", "www.example.com")),
            ("8286 84be 5886 a8eb 1064 9cbf", 110, ("cache-control", "no-cache")),
            (
                "8287 85bf 4088 25a8 49e95b a97d7f 8925 a849 e95b b8e8 b4bf",
                164,
                ("custom-key", "custom-value"),
            ),
        ] {
            let list = decoder.decode(&hex(block), 16_384).unwrap();
            let (name, value) = texts(&list).pop().unwrap();
            assert_eq!((name.as_str(), value.as_str()), last);
            assert_eq!(decoder.size, size);
        }

        let mut decoder = Decoder { size_max: 256, ..Decoder::default() };
        for (block, size) in [
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                222,
            ),
            ("4883 640e ffc1 c0bf", 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                215,
            ),
        ] {
            let list = decoder.decode(&hex(block), 16_384).unwrap();
            assert_eq!(decoder.size, size, "{:?}", texts(&list));
        }
        assert_eq!(
            texts(&decoder.decode(&[0x80 | 62], 16_384).unwrap())[0].1,
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
        );
    }

    #[test]
    fn broken_blocks_are_refused() {
        for (block, why) in [
            (&[0x80][..], "index 0 (§6.1)"),
            (&[0xbe], "an entry that the table has not"),
            (&[0x82, 0x20], "a change of the size after a field (§4.2)"),
            (&[0x3f, 0xe2, 0x1f], "a size of 4097 (§6.3)"),
            (&[0x40, 0x01], "a string that is cut"),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], "an integer above 2^28"),
            (&[0xff, 0x80], "an integer that is cut"),
            (&[0x00, 0x81, 0x00, 0x00], "a Huffman padding of zeros"),
        ] {
            assert_eq!(Decoder::default().decode(block, 16_384), Err(HpackError), "{why}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_cut_and_keeps_the_table_in_step() {
        let mut decoder = Decoder::default();
        let mut block = vec![0x40, 1, b'a', 100];
        block.extend([b'x'; 100]);
        block.extend([0xbe; 1000]);
        block.extend([0x40, 1, b'b', 1, b'y']);
        let list = decoder.decode(&block, 1000).unwrap();
        assert!(list.too_long);
        assert_eq!(list.fields.len(), 7);
        assert_eq!(texts(&decoder.decode(&[0xbe], 1000).unwrap()), [("b".into(), "y".into())]);
    }

    #[test]
    fn a_smaller_table_forgets_its_oldest_entries() {
        let mut decoder = Decoder::default();
        decoder.decode(&[0x40, 1, b'a', 1, b'x', 0x40, 1, b'b', 1, b'y'], 1000).unwrap();
        decoder.decode(&[0x20 | 31, 34 - 31], 1000).unwrap();
        assert_eq!(decoder.table.len(), 1);
        decoder.decode(&[0x20], 1000).unwrap();
        assert_eq!((decoder.table.len(), decoder.size), (0, 0));
        // An entry that does not fit is not kept.
        assert_eq!(decoder.decode(&[0x40, 1, b'a', 1, b'x', 0xbe], 1000), Err(HpackError));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(0x5eed), ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_is_decoded(fields in proptest::collection::vec(("(:status|content-type|te|x-[a-z]{0,200})", "[ -~]{0,300}"), 0..8)) {
            let block = encode(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let list = Decoder::default().decode(&block, 1 << 20).unwrap();
            prop_assert_eq!(texts(&list), fields);
        }

        #[test]
        fn any_blocks_are_decoded_without_a_panic(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..6)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let decoded = decoder.decode(&block, 1000);
                prop_assert!(decoder.size <= decoder.size_max && decoder.size_max <= TABLE_SIZE_MAX);
                prop_assert_eq!(decoder.size, decoder.table.iter().map(Field::size).sum::<usize>());
                if let Ok(list) = decoded {
                    prop_assert!(list.fields.iter().map(Field::size).sum::<usize>() <= 1000);
                } else {
                    break;
                }
            }
        }
    }
}
