use std::time::Duration;

use super::*;

/// A small generator: uniform numbers, normal variables and a lognormal signal.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

const TICK: Duration = Duration::from_millis(100);

fn at(tick: u32) -> Duration {
    TICK * tick
}

#[test]
fn the_median_of_a_few_values() {
    assert_eq!(median(&mut []), 0.0);
    assert_eq!(median(&mut [3.0]), 3.0);
    assert_eq!(median(&mut [4.0, 1.0]), 2.5);
    assert_eq!(median(&mut [9.0, -1.0, 4.0]), 4.0);
    assert_eq!(median(&mut [1.0, 9.0, 4.0, 2.0]), 3.0);
    assert_eq!(median(&mut [VALUE_MAX, VALUE_MAX]), VALUE_MAX);
}

/// Every detector refuses a bad reading and stays as it was.
#[test]
fn bad_readings_change_nothing() {
    fn check<D: Clone + PartialEq + std::fmt::Debug, V: std::fmt::Debug + PartialEq>(
        mut detector: D,
        observe: impl Fn(&mut D, Duration, f64) -> Result<V, ReadingError>,
    ) {
        for tick in 10..100 {
            observe(&mut detector, at(tick), 1.0 + f64::from(tick % 7)).unwrap();
        }
        let before = detector.clone();
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -f64::MAX] {
            assert!(
                matches!(observe(&mut detector, at(100), bad), Err(ReadingError::OutOfRange { .. })),
                "{bad} {detector:?}"
            );
        }
        let error = observe(&mut detector, at(98), 1.0).unwrap_err();
        assert_eq!(error, ReadingError::TimeBackwards { now: at(98), last: at(99) });
        assert_eq!(detector, before);
        // Absurd values that are allowed leave it usable: every score stays a number.
        for value in [VALUE_MAX, -VALUE_MAX, 0.0, 1e-300, VALUE_MAX] {
            let _ = observe(&mut detector, at(100), value);
        }
        let verdict = observe(&mut detector, at(101), 1.0).unwrap();
        assert!(!format!("{verdict:?} {detector:?}").contains("NaN"), "{verdict:?} {detector:?}");
    }
    let linear = CusumOptions::new().scale(Scale::Linear).shift(3.0);
    check(Cusum::new(linear), Cusum::observe);
    check(Ewma::new(TICK), Ewma::observe);
    check(PageHinkley::new(0.5, 10.0), PageHinkley::observe);
    check(Mad::new(6.0, 0.1), Mad::observe);
    check(Trend::new(1000.0), Trend::observe);
    let mut log = Cusum::new(CusumOptions::new());
    assert_eq!(log.observe(at(1), 0.0), Err(ReadingError::NotPositive { value: 0.0 }));
    assert_eq!(log, Cusum::new(CusumOptions::new()));
}

#[test]
fn a_mean_forgets_by_time_and_not_by_readings() {
    let mut slow = Ewma::new(Duration::from_secs(10));
    slow.observe(Duration::ZERO, 0.0).unwrap();
    slow.observe(Duration::from_secs(10), 8.0).unwrap();
    assert!((slow.mean() - 4.0).abs() < 1e-12);
    slow.observe(Duration::from_secs(20), 8.0).unwrap();
    assert!((slow.mean() - 6.0).abs() < 1e-12);

    let mut random = Random(3);
    let mut level = Ewma::new(Duration::from_secs(100));
    for tick in 0..20_000 {
        level.observe(at(tick), 50.0 + 4.0 * random.normal()).unwrap();
    }
    assert!((level.mean() - 50.0).abs() < 1.0, "{}", level.mean());
    assert!((level.deviation() - 4.0).abs() < 0.6, "{}", level.deviation());
}

/// A lognormal signal with correlation and spikes; from a tick on it is a multiple of before.
struct Signal {
    random: Random,
    correlation: f64,
    spikes: f64,
    state: f64,
}

impl Signal {
    fn new(seed: u64, correlation: f64, spikes: f64) -> Signal {
        Signal { random: Random(seed), correlation, spikes, state: 0.0 }
    }

    fn next(&mut self, factor: f64) -> f64 {
        let noise = self.random.normal() * (1.0 - self.correlation * self.correlation).sqrt();
        self.state = self.correlation * self.state + noise;
        let spike = if self.random.unit() < self.spikes { 10.0 } else { 1.0 };
        20.0 * (0.5 * self.state).exp() * spike * factor
    }
}

/// The mean number of readings until a threefold shift is found, and false alarms before.
fn delay(correlation: f64, spikes: f64, normal: u32, shifts: u32) -> (f64, u32) {
    let mut signal = Signal::new(11, correlation, spikes);
    let mut cusum = Cusum::new(CusumOptions::new());
    let (mut tick, mut alarms, mut readings) = (0, 0, 0);
    let mut was_suspect = false;
    for _ in 0..normal {
        tick += 1;
        let is_suspect = cusum.observe(at(tick), signal.next(1.0)).unwrap().is_suspect();
        alarms += u32::from(is_suspect && !was_suspect);
        was_suspect = is_suspect;
    }
    for _ in 0..shifts {
        let mut shifted = cusum.clone();
        // A different moment each time.
        for _ in 0..50 {
            tick += 1;
            cusum.observe(at(tick), signal.next(1.0)).unwrap();
            shifted = cusum.clone();
        }
        let mut later = tick;
        loop {
            later += 1;
            readings += 1;
            if shifted.observe(at(later), signal.next(3.0)).unwrap().is_suspect() {
                break;
            }
        }
    }
    (f64::from(readings) / f64::from(shifts), alarms)
}

/// The limit for a threefold shift at sigma 0.5 and 10^7 readings per false alarm: ln(10^7) / KL.
const LIMIT: f64 = 6.677;

#[test]
fn a_cusum_finds_a_threefold_shift_near_the_limit_without_false_alarms() {
    let (delay, alarms) = delay(0.0, 0.0, 300_000, 400);
    assert_eq!(alarms, 0);
    assert!(delay < 1.5 * LIMIT, "{delay} readings, {} of the limit", delay / LIMIT);
}

#[test]
fn correlated_readings_with_spikes_delay_a_cusum_but_cause_no_alarm() {
    let (delay, alarms) = delay(0.3, 0.005, 300_000, 400);
    assert_eq!(alarms, 0);
    assert!(delay < 2.5 * LIMIT, "{delay} readings, {} of the limit", delay / LIMIT);
}

#[test]
fn a_suspect_signal_does_not_become_its_own_baseline() {
    let mut signal = Signal::new(5, 0.0, 0.0);
    let mut cusum = Cusum::new(CusumOptions::new());
    for tick in 0..3000 {
        cusum.observe(at(tick), signal.next(1.0)).unwrap();
    }
    let normal = cusum.baseline().location();
    for tick in 3000..20_000 {
        cusum.observe(at(tick), signal.next(3.0)).unwrap();
    }
    assert!((cusum.baseline().location() - normal).abs() < 0.1);
    // The fault ends: so does the suspicion, after a few readings.
    let mut readings = 0;
    while cusum.observe(at(20_000 + readings), signal.next(1.0)).unwrap().is_suspect() {
        readings += 1;
    }
    assert!(readings < 30, "{readings}");
    // A planned change is learned.
    cusum.relearn();
    for tick in 30_000..33_000 {
        assert!(!cusum.observe(at(tick), signal.next(3.0)).unwrap().is_suspect());
    }
}

#[test]
fn a_cusum_finds_downward_shifts_and_constant_signals_that_move() {
    let mut cusum = Cusum::new(CusumOptions::new().scale(Scale::Linear).shift(-2.0).scale_min(0.1));
    for tick in 0..500 {
        assert!(!cusum.observe(at(tick), 10.0).unwrap().is_suspect());
    }
    assert!(!cusum.observe(at(500), 12.0).unwrap().is_suspect());
    assert!((501..510).any(|tick| cusum.observe(at(tick), 7.0).unwrap().is_suspect()));
    // Unusable settings fall back.
    let odd =
        CusumOptions::new().shift(f64::NAN).readings_per_false_alarm(-1.0).scale_min(f64::INFINITY).memory(0);
    let cusum = Cusum::new(odd);
    assert_eq!(cusum, Cusum::new(CusumOptions::new().memory(0)));
}

#[test]
fn a_slow_drift_is_found_by_page_hinkley_alone() {
    let mut random = Random(9);
    let mut test = PageHinkley::new(1.0, 60.0);
    for tick in 0..20_000 {
        assert!(!test.observe(at(tick), 100.0 + random.normal()).unwrap().is_suspect());
    }
    let found = (0..4000).find(|step| {
        let value = 100.0 + f64::from(*step) * 0.01 + random.normal();
        test.observe(at(20_000 + step), value).unwrap().is_suspect()
    });
    assert!(found.is_some_and(|step| step > 100), "{found:?}");
    let mut calm = 0;
    while test.observe(at(30_000 + calm), 100.0).unwrap().is_suspect() {
        calm += 1;
    }
    assert!(calm < 200, "{calm}");
    test.relearn();
    assert_eq!(test.observe(Duration::ZERO, 1.0).unwrap().condition, Condition::Learning);
}

#[test]
fn outliers_do_not_hide_outliers() {
    let mut random = Random(4);
    let mut test = Mad::new(8.0, 0.01);
    let mut wrong = 0;
    for tick in 0..10_000 {
        let is_outlier = tick > 100 && random.unit() < 0.2;
        let value = if is_outlier { 40.0 } else { random.normal() };
        let verdict = test.observe(at(tick), value).unwrap();
        wrong += u32::from(verdict.is_suspect() != is_outlier);
    }
    assert!(wrong <= 20, "{wrong} of 10,000 judged wrong");
    // A constant signal has no deviation; the least one holds.
    let mut constant = Mad::new(0.0, 1.0);
    for tick in 0..100 {
        assert!(!constant.observe(at(tick), 5.0).unwrap().is_suspect());
    }
    assert!(!constant.observe(at(100), 10.9).unwrap().is_suspect());
    assert!(constant.observe(at(100), 11.0).unwrap().is_suspect());
}

#[test]
fn phi_grows_with_silence_and_is_never_infinite() {
    let mut random = Random(8);
    let mut phi = PhiAccrual::new(PhiAccrualOptions::new());
    let mut now = Duration::ZERO;
    for _ in 0..1000 {
        assert!(!phi.judge(now).is_suspect());
        now += Duration::from_secs_f64((1.0 + 0.05 * random.normal()).max(0.5));
        phi.heartbeat(now).unwrap();
    }
    let mut last = 0.0;
    for silence in 1..1_000_000_u64 {
        if silence > 100 && !silence.is_multiple_of(997) {
            continue;
        }
        let score = phi.judge(now + Duration::from_millis(100 * silence)).score;
        assert!(score.is_finite() && score >= last, "{silence}: {score} after {last}");
        last = score;
    }
    let suspect_after =
        (10..100).find(|tenths| phi.judge(now + Duration::from_millis(100 * tenths)).is_suspect());
    assert!(suspect_after.is_some_and(|tenths| (13..=18).contains(&tenths)), "{suspect_after:?}");
    assert!(phi.heartbeat(Duration::ZERO).is_err());
}

#[test]
fn even_heartbeats_leave_room_for_a_late_one() {
    let mut phi = PhiAccrual::new(PhiAccrualOptions::new().pause(Duration::from_millis(50)));
    for second in 0..100 {
        phi.heartbeat(Duration::from_secs(second)).unwrap();
    }
    // A tenth of the distance is the least deviation: 5.6 deviations and the pause.
    assert!(!phi.judge(Duration::from_millis(99_000 + 1500)).is_suspect());
    assert!(phi.judge(Duration::from_millis(99_000 + 1700)).is_suspect());
    // One long silence does not change the measure for the next.
    phi.heartbeat(Duration::from_secs(200)).unwrap();
    assert!(phi.judge(Duration::from_millis(200_000 + 2500)).is_suspect());
    assert_eq!(PhiAccrual::new(PhiAccrualOptions::new()).judge(Duration::MAX).condition, Condition::Learning);
}

/// The tail of the normal distribution, against known values.
#[test]
fn phi_is_the_decimal_logarithm_of_the_tail() {
    let mut phi = PhiAccrual::new(PhiAccrualOptions::new().deviation_min(Duration::from_millis(1)));
    for tenth in 0..200 {
        phi.heartbeat(Duration::from_secs(tenth)).unwrap();
    }
    let last = Duration::from_secs(199);
    // Mean 1 s, deviation 0.1 s.
    for (deviations, expect) in
        [(0.0, 0.301), (1.0, 0.7996), (2.0, 1.643), (3.0, 2.8697), (6.0, 9.0059), (10.0, 23.118)]
    {
        let silence = Duration::from_secs_f64(1.0 + 0.1 * deviations);
        let score = phi.judge(last + silence).score;
        assert!((score - expect).abs() < 0.01, "{deviations}: {score}, expected {expect}");
    }
}

#[test]
fn a_late_node_accuses_nobody_until_it_is_punctual_again() {
    let mut health = LocalHealth::new(LocalHealthOptions::new());
    assert!(health.may_accuse());
    health.timer(at(10), at(10) + Duration::from_millis(450));
    assert_eq!(health.score(), 4);
    assert!(!health.may_accuse());
    assert_eq!(health.stretch(Duration::from_secs(1)), Duration::from_secs(5));
    health.timer(at(20), at(500_000));
    assert_eq!(health.score(), 8);
    for _ in 0..8 {
        assert!(!health.may_accuse());
        health.timer(at(30), at(30));
    }
    assert!(health.may_accuse());
}

#[test]
fn witnesses_shorten_a_suspicion() {
    let options =
        LocalHealthOptions::new().suspicion(Duration::from_secs(1), Duration::from_secs(6)).witnesses(3);
    let health = LocalHealth::new(options);
    let timeouts: Vec<f64> = (0..5).map(|count| health.suspicion_timeout(count).as_secs_f64()).collect();
    assert_eq!((timeouts[0], timeouts[3], timeouts[4]), (6.0, 1.0, 1.0));
    assert!((timeouts[1] - 3.5).abs() < 1e-9 && timeouts[2] < timeouts[1]);
    // Settings out of order do not panic.
    let odd =
        LocalHealthOptions::new().suspicion(Duration::from_secs(9), Duration::ZERO).witnesses(0).score_max(0);
    let mut odd = LocalHealth::new(odd.lateness(Duration::ZERO));
    odd.timer(at(0), at(1));
    assert_eq!(odd.suspicion_timeout(u32::MAX), Duration::from_secs(18));
}

#[test]
fn one_slow_subject_is_alone_and_all_slow_subjects_are_not() {
    let peers = Peers::new(3.0);
    let is = |readings: &[f64], place| peers.judge(readings, place, 10.0);
    assert!(
        matches!(is(&[10.0, 11.0, 90.0, 9.0, 10.0], 2), PeersVerdict::Alone { factor } if (8.5..9.5).contains(&factor))
    );
    assert_eq!(is(&[10.0, 11.0, 90.0, 9.0, 10.0], 0), PeersVerdict::Alike);
    assert!(matches!(is(&[80.0, 95.0, 90.0, 100.0, 90.0], 2), PeersVerdict::All { .. }));
    // Two of five are slow: each is found.
    assert!(matches!(is(&[80.0, 95.0, 10.0, 9.0, 11.0], 1), PeersVerdict::Alone { .. }));
    // Fast ones are not a fault, and two cannot be compared.
    assert_eq!(is(&[1.0, 10.0, 10.0, 11.0], 0), PeersVerdict::Alike);
    assert_eq!(is(&[90.0, 10.0], 0), PeersVerdict::TooFew);
    assert_eq!(is(&[90.0, 10.0, f64::NAN, -1.0, 0.0], 0), PeersVerdict::TooFew);
    assert_eq!(is(&[f64::NAN, 10.0, 10.0, 10.0], 0), PeersVerdict::TooFew);
    assert_eq!(is(&[10.0; 300], 290), PeersVerdict::TooFew);
    assert_eq!(Peers::new(f64::NAN), Peers::new(2.0));
}

#[test]
fn a_leak_is_found_with_the_time_that_is_left() {
    let mut random = Random(2);
    let mut trend = Trend::new(1000.0);
    let mut last = TrendVerdict::Learning;
    for minute in 0..32 {
        let value = 100.0 + 10.0 * f64::from(minute) + random.normal() * 3.0;
        last = trend.observe(Duration::from_secs(60 * u64::from(minute as u32)), value).unwrap();
    }
    let TrendVerdict::Exhausting { slope, exhausted_in } = last else { panic!("{last:?}") };
    assert!((slope * 60.0 - 10.0).abs() < 0.5, "{slope}");
    let minutes = exhausted_in.as_secs_f64() / 60.0;
    assert!((minutes - 59.0).abs() < 4.0, "{minutes}");
}

#[test]
fn a_sawtooth_noise_and_a_trend_away_from_the_limit_are_steady() {
    let mut random = Random(6);
    let mut sawtooth = Trend::new(1000.0);
    let mut noise = Trend::new(1000.0);
    let mut away = Trend::new(1000.0);
    let mut down = Trend::new(0.0);
    let mut at_once = Trend::new(10.0);
    for minute in 0..64_u32 {
        let now = Duration::from_secs(60 * u64::from(minute));
        assert!(!matches!(
            sawtooth.observe(now, 100.0 + f64::from(minute % 8) * 20.0).unwrap(),
            TrendVerdict::Exhausting { .. }
        ));
        assert!(!matches!(noise.observe(now, random.normal()).unwrap(), TrendVerdict::Exhausting { .. }));
        assert!(!matches!(away.observe(now, -f64::from(minute)).unwrap(), TrendVerdict::Exhausting { .. }));
        let falling = down.observe(now, 640.0 - f64::from(minute) * 10.0).unwrap();
        assert_eq!(matches!(falling, TrendVerdict::Exhausting { .. }), minute >= 15, "{minute}");
        assert_eq!(at_once.observe(Duration::ZERO, f64::from(minute)).unwrap(), TrendVerdict::Learning);
    }
}
