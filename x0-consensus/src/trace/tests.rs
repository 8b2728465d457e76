use super::*;

struct Fixed;

impl Propagator for Fixed {
    fn current(&self) -> Option<Context> {
        Context::new([1; 16], [2; 8], 1)
    }

    fn adopt(&self, _: &Context) {}
}

const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_context_survives_its_encodings() {
    let context: Context = HEADER.parse().unwrap();
    assert_eq!(context.trace_id()[..2], [0x4b, 0xf9]);
    assert_eq!(context.span_id()[6..], [0x02, 0xb7]);
    assert_eq!((context.flags(), context.is_sampled()), (1, true));
    assert_eq!(context.to_string(), HEADER);
    assert_eq!(Context::from_bytes(&context.to_bytes()), Some(context));
    assert_eq!(Context::from_bytes(&[0; Context::LEN]), None);
    assert_eq!(format!("{context:?}"), format!("Context({HEADER})"));
    assert!(!HEADER.replace("-01", "-02").parse::<Context>().unwrap().is_sampled());
}

/// The rules of W3C Trace Context (sections 3.2.2 and 3.2.4) for `traceparent`.
#[test]
fn a_traceparent_is_read_as_the_recommendation_says() {
    let check = |from: &str, to: &str| HEADER.replacen(from, to, 1).parse::<Context>();
    let form = Err(ParseContextError::Form);
    assert_eq!(check("00-", "ff-"), form, "version 255 is forbidden");
    assert_eq!(check("4bf9", "4BF9"), form, "upper case");
    assert_eq!(check("4bf9", "4bg9"), form);
    assert_eq!(check("-01", "-1"), form);
    assert_eq!(check("-01", "-01-ab"), form, "version 00 has no more fields");
    assert_eq!(check("-00f0", "+00f0"), form);
    assert_eq!("".parse::<Context>(), form);
    assert_eq!("00-é".parse::<Context>(), form);
    assert_eq!(check("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), Err(ParseContextError::Zero));
    assert_eq!(check("00f067aa0ba902b7", &"0".repeat(16)), Err(ParseContextError::Zero));
    // Of a later version the known fields are read, with what follows a dash ignored.
    assert_eq!(check("00-", "cc-").unwrap().to_string(), HEADER);
    let later = HEADER.replacen("00-", "cc-", 1);
    assert_eq!(format!("{later}-what-the-future-holds").parse::<Context>().unwrap().to_string(), HEADER);
    assert_eq!(format!("{later}.what").parse::<Context>(), form);
    assert_eq!(later.replace("-01", "-ff").parse::<Context>().unwrap().flags(), Context::SAMPLED);
}

#[test]
fn the_sampler_draws_the_share_that_was_set() {
    let drawn = |tracing: &Tracing| (0..10_000).filter(|_| tracing.draw()).count();
    let tracing = Tracing::new(Arc::new(Fixed));
    assert_eq!(drawn(&tracing), 0);
    assert_eq!(drawn(&tracing.clone().ratio(1.0)), 10_000);
    assert_eq!(drawn(&tracing.clone().ratio(0.0)), 0);
    assert_eq!(drawn(&tracing.clone().ratio(f64::NAN)), 0);
    assert_eq!(drawn(&tracing.clone().ratio(-1.0)), 0);
    // Five standard deviations.
    let some = drawn(&tracing.ratio(0.1));
    assert!((850..=1150).contains(&some), "{some}");
}

#[test]
fn without_a_propagator_nothing_is_traced() {
    let off = Tracing::default().ratio(1.0);
    assert!(!off.is_on() && !off.draw());
    assert_eq!(off.current(), None);
    assert_eq!(Tracing::new(Arc::new(Fixed)).current(), Fixed.current());
}
