//! The context of a span, as W3C Trace Context defines it.

use std::fmt;
use std::str::FromStr;

/// The position of a span in a trace, which travels between processes: the fields of the header `traceparent`
/// of W3C Trace Context (level 1), and 25 bytes in messages of x0.
///
/// ```
/// use x0_consensus::trace::Context;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: Context = header.parse().unwrap();
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), header);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Context {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl Context {
    /// The length of an encoded context, in bytes.
    pub const LEN: usize = 16 + 8 + 1;
    /// The flag of a trace that is recorded.
    pub const SAMPLED: u8 = 1;
    /// The length of `traceparent` in version 00, in characters.
    const HEADER_LEN: usize = 55;

    /// A context of these fields; `None` if one of the ids is zero, which names nothing.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Option<Context> {
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Context { trace_id, span_id, flags })
    }

    /// The id of the trace.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// The trace flags.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & Context::SAMPLED != 0
    }

    /// The fields in the order trace id, span id, flags.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Context::LEN] {
        let mut bytes = [0; Context::LEN];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.span_id);
        bytes[24] = self.flags;
        bytes
    }

    /// The context of these bytes; `None` if one of the ids is zero.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Context::LEN]) -> Option<Context> {
        let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
        trace_id.copy_from_slice(&bytes[..16]);
        span_id.copy_from_slice(&bytes[16..24]);
        Context::new(trace_id, span_id, bytes[24])
    }
}

/// The value of the header `traceparent`, in version 00.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace_id),
            u64::from_be_bytes(self.span_id),
            self.flags
        )
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

/// A text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseContextError {
    /// The text has another form.
    #[error(
        "not a traceparent of W3C Trace Context: write 00-TRACE-SPAN-FLAGS with 32, 16 and 2 lower-case hexadecimal digits"
    )]
    Form,
    /// The trace id or the span id is zero.
    #[error(
        "the trace id and the span id of a traceparent are not zero: leave the traceparent out to begin a trace"
    )]
    Zero,
}

impl FromStr for Context {
    type Err = ParseContextError;

    /// Reads the value of a header `traceparent`. Of a later version the fields of version 00 are read, and
    /// of its flags only the sampled flag counts (W3C Trace Context, section 3.2.4).
    fn from_str(text: &str) -> Result<Context, ParseContextError> {
        let bytes = text.as_bytes();
        let version: [u8; 1] = hex(bytes.get(..2))?;
        let is_whole = match version {
            [0xff] => false,
            [0] => bytes.len() == Context::HEADER_LEN,
            _ => bytes.get(Context::HEADER_LEN).is_none_or(|next| *next == b'-'),
        };
        let dash = |at: usize| bytes.get(at) == Some(&b'-');
        if !is_whole || !dash(2) || !dash(35) || !dash(52) {
            return Err(ParseContextError::Form);
        }
        let [flags] = hex(bytes.get(53..55))?;
        let flags = if version == [0] { flags } else { flags & Context::SAMPLED };
        Context::new(hex(bytes.get(3..35))?, hex(bytes.get(36..52))?, flags).ok_or(ParseContextError::Zero)
    }
}

/// The bytes of lower-case hexadecimal digits.
fn hex<const LEN: usize>(digits: Option<&[u8]>) -> Result<[u8; LEN], ParseContextError> {
    let digits = digits.filter(|digits| digits.len() == 2 * LEN).ok_or(ParseContextError::Form)?;
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseContextError::Form),
    };
    let mut bytes = [0; LEN];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(bytes)
}
