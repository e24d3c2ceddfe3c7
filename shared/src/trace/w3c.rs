//! The headers of W3C Trace Context: `traceparent` and `tracestate`.

use std::str::FromStr as _;

use actix_web::http::header::{HeaderMap, HeaderName};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Longer states are dropped; §3.3.1.5 wants at least this much carried.
const MAX_STATE: usize = 512;

/// The value of the header, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct Traceparent([u8; 55]);

impl Traceparent {
    pub fn of(span: &SpanContext) -> Self {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &span.trace_id().to_bytes());
        write_hex(&mut text[36..52], &span.span_id().to_bytes());
        write_hex(&mut text[53..], &[span.trace_flags().to_u8()]);
        Self(text)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Writes two digits for each byte. `format!` takes several times as long.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// The trace that the sender of a request is in; `None` without a valid one.
pub fn from_headers(headers: &HeaderMap) -> Option<SpanContext> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    parse(text(TRACEPARENT)?, text(TRACESTATE))
}

/// Parses `version-trace-span-flags` (§3.2). An invalid `state` is dropped, as §3.3 asks for.
pub fn parse(traceparent: &str, state: Option<&str>) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let version = hex(version, 2).filter(|version| *version != 0xff)?;
    if version == 0 && parts.next().is_some() {
        return None;
    }
    let (trace, span, flags) = (hex(trace, 32)?, hex(span, 16)?, hex(flags, 2)?);
    let state = state.filter(|state| state.len() <= MAX_STATE);
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    // Two digits and sixteen fit.
    let (span, flags) = (u64::try_from(span).ok()?, u8::try_from(flags).ok()?);
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let parsed = SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, true, state);
    parsed.is_valid().then_some(parsed)
}

/// A number of `length` lower-case digits.
fn hex(text: &str, length: usize) -> Option<u128> {
    let digit = |byte| match byte {
        b'0'..=b'9' => Some(u128::from(byte - b'0')),
        b'a'..=b'f' => Some(u128::from(byte - b'a' + 10)),
        _ => None,
    };
    let mut bytes = (text.len() == length).then(|| text.bytes())?;
    bytes.try_fold(0, |number, byte| Some(number << 4 | digit(byte)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_written_as_it_was_read_and_its_state_is_carried() {
        let read = parse(WHOLE, Some("vendor=value,other=1")).unwrap();
        assert_eq!(Traceparent::of(&read).as_str(), WHOLE);
        assert_eq!(read.trace_state().header(), "vendor=value,other=1");
        assert!(read.is_sampled());
    }

    #[test]
    fn a_later_version_with_more_parts_is_read() {
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", None).is_some());
    }

    #[test]
    fn a_malformed_traceparent_is_none() {
        for bad in [
            "",
            "a-b",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_malformed_or_endless_state_is_dropped_and_the_trace_goes_on() {
        let long = format!("a={}", "x".repeat(MAX_STATE));
        for bad in ["no pair", "a=b,no pair", long.as_str()] {
            assert_eq!(parse(WHOLE, Some(bad)).unwrap().trace_state().header(), "", "{bad}");
        }
    }
}
