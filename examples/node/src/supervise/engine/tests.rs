//! A world with one process, played from seeds.

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A small deterministic generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// What a process does in its life.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Serves for this long, then ends with the exit.
    Ends(Duration, Exit),
    /// Serves for this long, then answers nothing.
    Hangs(Duration),
    /// Does not serve, and ends after this time.
    Refuses(Duration),
}

#[derive(Debug)]
struct Process {
    ready: Duration,
    fate: Fate,
    /// The time of the answer to the outstanding heartbeat.
    answer: Option<Duration>,
    /// The time of the end.
    end: Option<(Duration, Exit)>,
    is_ready: bool,
    is_refused: bool,
}

/// What a run of the world has shown.
#[derive(Debug, Default)]
struct Shown {
    starts: Vec<Duration>,
    kills: Vec<Duration>,
    /// For each kill, whether the process had hung, and for how long.
    hung: Vec<Option<Duration>>,
    end: Option<(Duration, End)>,
    /// Requests for a restart that were refused.
    refused: Vec<(Duration, String)>,
}

struct World {
    now: Duration,
    engine: Supervisor,
    process: Option<Process>,
    random: Random,
    /// The longest answer time of a process that does not hang, in milliseconds.
    answer_max: u64,
    /// How long the whole machine stands still now and then, in milliseconds.
    stall_max: u64,
    /// The machine stands still before one step in so many.
    stall_one_in: u64,
    fates: Box<dyn FnMut(&mut Random) -> Fate>,
    shown: Shown,
}

impl World {
    fn new(seed: u64, fates: impl FnMut(&mut Random) -> Fate + 'static) -> World {
        World {
            now: Duration::ZERO,
            engine: Supervisor::new(Duration::ZERO, Options::default()),
            process: None,
            random: Random(seed),
            answer_max: 1500,
            stall_max: 0,
            stall_one_in: 20,
            fates: Box::new(fates),
            shown: Shown::default(),
        }
    }

    /// Plays until `until`, or the end.
    fn play(&mut self, until: Duration) {
        while self.shown.end.is_none() {
            self.drain();
            if self.stall_max > 0 && self.random.below(self.stall_one_in) == 0 {
                // Nothing runs: what the process would have done in this time, it does after it.
                let stall = ms(100 + self.random.below(self.stall_max));
                self.now += stall;
                if let Some(process) = &mut self.process {
                    process.answer = process.answer.map(|answer| answer + stall);
                    process.ready += if process.is_ready { Duration::ZERO } else { stall };
                }
            }
            let due = self.engine.poll_timeout();
            let Some(next) = due.into_iter().chain(self.next_of_process()).min() else { break };
            if next > until {
                self.now = until;
                break;
            }
            self.now = self.now.max(next);
            // As the driver does: what the process said comes before the timer.
            if !self.step_process() {
                self.engine.handle(self.now, Input::Timeout);
            }
        }
    }

    fn next_of_process(&self) -> Option<Duration> {
        let process = self.process.as_ref()?;
        let ready = (!process.is_ready && !matches!(process.fate, Fate::Refuses(_))).then_some(process.ready);
        ready.into_iter().chain(process.answer).chain(process.end.map(|(at, _)| at)).min()
    }

    /// Gives the engine one thing that the process has done by now.
    fn step_process(&mut self) -> bool {
        let now = self.now;
        let Some(process) = &mut self.process else { return false };
        if let Some((at, exit)) = process.end
            && at <= now
        {
            if matches!(process.fate, Fate::Refuses(_)) && !process.is_refused && exit == Exit::Code(1) {
                process.is_refused = true;
                self.engine.handle(now, Input::Refused { why: "no space".into(), is_config: false });
            } else {
                self.process = None;
                self.engine.handle(now, Input::Exited { exit });
            }
            return true;
        }
        if process.answer.is_some_and(|at| at <= now) {
            process.answer = None;
            self.engine.handle(now, Input::Beat);
            return true;
        }
        if !process.is_ready && process.ready <= now && !matches!(process.fate, Fate::Refuses(_)) {
            process.is_ready = true;
            self.engine.handle(now, Input::Ready);
            return true;
        }
        false
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            let now = self.now;
            match output {
                Output::Start => {
                    assert!(self.process.is_none(), "two processes at {now:?}");
                    self.shown.starts.push(now);
                    let fate = (self.fates)(&mut self.random);
                    let ready = now + ms(self.random.below(400));
                    let end = match fate {
                        Fate::Ends(after, exit) => Some((ready + after, exit)),
                        Fate::Refuses(after) => Some((now + after, Exit::Code(1))),
                        Fate::Hangs(_) => None,
                    };
                    self.process =
                        Some(Process { ready, fate, answer: None, end, is_ready: false, is_refused: false });
                    self.engine.handle(now, Input::Started);
                }
                Output::Beat => {
                    let answer_max = self.answer_max;
                    let delay = ms(self.random.below(answer_max));
                    let process = self.process.as_mut().unwrap();
                    assert_eq!(process.answer, None, "two heartbeats at once");
                    process.answer = match process.fate {
                        Fate::Hangs(after) if process.ready + after <= now + delay => None,
                        _ => Some(now + delay),
                    };
                }
                Output::Kill => {
                    let process = self.process.as_mut().unwrap();
                    self.shown.kills.push(now);
                    let hung = match process.fate {
                        Fate::Hangs(after) => now.checked_sub(process.ready + after),
                        _ => None,
                    };
                    self.shown.hung.push(hung);
                    process.answer = None;
                    process.end = Some((now + ms(20), Exit::Signal(9)));
                }
                Output::Stop => {
                    let process = self.process.as_mut().unwrap();
                    if !matches!(process.fate, Fate::Hangs(_)) {
                        process.end = Some((now + ms(300), Exit::Code(0)));
                    }
                }
                Output::End(end) => {
                    assert!(self.shown.end.is_none(), "two ends");
                    self.shown.end = Some((now, end));
                }
                Output::Refuse { why } => self.shown.refused.push((now, why)),
                Output::Reload | Output::Notice(_) => {}
            }
        }
    }
}

#[test]
fn a_crash_is_followed_by_a_start_at_once() {
    let mut world = World::new(1, |_| Fate::Ends(Duration::from_secs(30), Exit::Signal(9)));
    world.play(Duration::from_secs(3000));
    assert!(world.shown.starts.len() > 90, "{:?}", world.shown.starts.len());
    assert!(world.shown.kills.is_empty(), "{:?}", world.shown.kills);
    let gaps = world.shown.starts.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.max() < Some(ms(30_401)), "a node that serves for 30 s starts again without a pause");
}

#[test]
fn a_node_that_hangs_is_killed_in_time_and_one_that_answers_is_not() {
    for seed in 0..150 {
        let mut world = World::new(seed, |random| match random.below(3) {
            0 => Fate::Hangs(ms(10_000 + random.below(60_000))),
            _ => Fate::Ends(ms(10_000 + random.below(200_000)), Exit::Code(1)),
        });
        world.play(Duration::from_secs(3600));
        assert!(!world.shown.kills.is_empty(), "seed {seed}");
        for hung in &world.shown.hung {
            let hung = hung.unwrap_or_else(|| panic!("seed {seed}: a node that answers was killed"));
            // The wait for the next heartbeat, and the limit.
            assert!(hung <= ms(250 + 2000), "seed {seed}: {hung:?}");
        }
    }
}

#[test]
fn a_supervisor_that_was_not_scheduled_kills_nobody() {
    for seed in 0..150 {
        let mut world = World::new(seed, |_| Fate::Ends(Duration::from_secs(100_000), Exit::Code(1)));
        (world.stall_max, world.answer_max) = (20_000, 1000);
        world.play(Duration::from_secs(3600));
        assert!(world.shown.kills.is_empty(), "seed {seed}: {:?}", world.shown.kills);
    }
}

#[test]
fn an_overloaded_machine_hides_no_hang_for_ever() {
    for seed in 0..150 {
        let mut world = World::new(seed, |_| Fate::Hangs(ms(10_000)));
        // Every timer is late.
        (world.stall_max, world.stall_one_in) = (20_000, 1);
        world.play(Duration::from_secs(3600));
        assert!(world.shown.kills.len() >= 5, "seed {seed}: {:?}", world.shown.kills);
    }
}

#[test]
fn a_node_that_cannot_start_is_tried_again_ever_less_often() {
    let mut world = World::new(1, |_| Fate::Refuses(ms(100)));
    world.play(Duration::from_secs(3600));
    let starts = &world.shown.starts;
    assert!((60..75).contains(&starts.len()), "about one a minute: {}", starts.len());
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted(), "{gaps:?}");
    assert_eq!(gaps.last(), Some(&ms(60_100)));
    assert!(starts.iter().filter(|at| **at < Duration::from_secs(10)).count() <= 7, "{starts:?}");
}

/// A stop at any moment ends the node and the supervisor, once.
#[test]
fn a_stop_ends_both_at_any_moment() {
    for seed in 0..2000 {
        let mut world = World::new(seed, |random| match random.below(4) {
            0 => Fate::Hangs(ms(random.below(5000))),
            1 => Fate::Refuses(ms(random.below(500))),
            _ => Fate::Ends(ms(random.below(20_000)), Exit::Signal(6)),
        });
        let at = ms(Random(seed).below(60_000));
        world.play(at);
        assert_eq!(world.shown.end, None, "seed {seed}");
        world.engine.handle(world.now, Input::Stop);
        world.engine.handle(world.now, Input::Stop);
        world.play(at + Duration::from_secs(600));
        let (ended, end) = world.shown.end.clone().unwrap_or_else(|| panic!("seed {seed}: no end"));
        assert!(world.process.is_none(), "seed {seed}: the node outlives the supervisor");
        // The wait for a kill, or the limit of an orderly stop.
        assert!(ended <= at + ms(8_000 + 20), "seed {seed}: {ended:?}, stopped at {at:?}");
        assert!(matches!(end, End::Stopped | End::Killed), "seed {seed}: {end:?}");
    }
}

#[test]
fn a_wrong_configuration_ends_the_supervisor_and_a_clean_exit_too() {
    let start = || {
        let mut engine = Supervisor::new(Duration::ZERO, Options::default());
        assert_eq!(engine.poll_output(), Some(Output::Start));
        engine.handle(ms(1), Input::Started);
        engine
    };
    let mut engine = start();
    engine.handle(ms(2), Input::Refused { why: "line 4".into(), is_config: true });
    assert_eq!(engine.poll_output(), None, "the process ends by itself");
    engine.handle(ms(3), Input::Exited { exit: Exit::Code(1) });
    assert_eq!(engine.poll_output(), Some(Output::End(End::Config { why: "line 4".into() })));
    assert_eq!(engine.poll_timeout(), None);

    let mut engine = start();
    engine.handle(ms(2), Input::Ready);
    engine.handle(ms(3), Input::Exited { exit: Exit::Code(0) });
    let outputs: Vec<_> = std::iter::from_fn(|| engine.poll_output()).collect();
    assert_eq!(outputs[1..], [Output::End(End::Stopped)], "somebody stopped the node itself");
}

#[test]
fn a_process_that_cannot_be_started_is_tried_again() {
    let mut engine = Supervisor::new(Duration::ZERO, Options::default());
    assert_eq!(engine.poll_output(), Some(Output::Start));
    engine.handle(ms(1), Input::NotStarted { why: "no memory".into() });
    let outputs: Vec<_> = std::iter::from_fn(|| engine.poll_output()).collect();
    let restart = Notice::Restart { pause: Duration::ZERO };
    let failed = Notice::Failed { why: "no memory".into() };
    assert_eq!(outputs, [Output::Notice(failed), Output::Notice(restart)]);
    engine.handle(ms(1), Input::Timeout);
    assert_eq!(engine.poll_output(), Some(Output::Start));
}

/// An identity is read again only by a node that serves: the others read it when they start.
#[test]
fn a_reload_reaches_a_node_that_serves() {
    let mut engine = Supervisor::new(Duration::ZERO, Options::default());
    engine.poll_output();
    engine.handle(ms(1), Input::Started);
    engine.handle(ms(1), Input::Reload);
    assert_eq!(engine.poll_output(), None);
    engine.handle(ms(2), Input::Ready);
    engine.poll_output();
    engine.handle(ms(3), Input::Reload);
    assert_eq!(engine.poll_output(), Some(Output::Reload));
    // Inputs that fit no state change nothing.
    for input in [Input::Started, Input::Ready, Input::Beat, Input::NotStarted { why: String::new() }] {
        engine.handle(ms(4), input);
        assert_eq!(engine.poll_output(), None);
    }
}

/// A node that serves for ever, and asks for a restart at these times.
fn asks(at: &[u64], options: Options) -> World {
    let mut world = World::new(1, |_| Fate::Ends(Duration::from_secs(1_000_000), Exit::Code(1)));
    world.answer_max = 1000;
    world.engine = Supervisor::new(Duration::ZERO, options);
    for second in at {
        world.play(Duration::from_secs(*second));
        world.engine.handle(world.now, Input::Asked { why: "leak".into() });
    }
    world.play(Duration::from_secs(200_000));
    world
}

#[test]
fn a_node_that_asks_is_stopped_and_starts_again_at_once() {
    let world = asks(&[100], Options::default());
    let starts = &world.shown.starts;
    assert_eq!(starts.len(), 2, "{starts:?}");
    // The orderly stop takes 300 ms.
    assert_eq!(starts[1], Duration::from_secs(100) + ms(300));
    assert!(world.shown.kills.is_empty() && world.shown.refused.is_empty() && world.shown.end.is_none());
    assert_eq!(world.engine.failures, 0, "it was no failure");
}

#[test]
fn a_node_that_asks_again_and_again_is_refused() {
    // The second one is too soon, and the fourth one; the sixth is one too many.
    let world = asks(&[100, 159, 161, 280, 300, 1000, 10_000, 90_000], Options::default());
    let starts: Vec<u64> = world.shown.starts.iter().map(Duration::as_secs).collect();
    assert_eq!(starts, [0, 100, 161, 300, 90_000]);
    let refused: Vec<u64> = world.shown.refused.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(refused, [159, 280, 1000, 10_000]);
    assert!(
        world.shown.refused[0].1.contains("59 s ago, and the pause is 60 s"),
        "{:?}",
        world.shown.refused
    );
    assert!(world.shown.refused[2].1.contains("3 times within 86400 s"), "{:?}", world.shown.refused);
}

#[test]
fn a_stop_during_a_restart_is_the_end_and_a_node_that_does_not_stop_is_killed() {
    let serving = || {
        let mut world = World::new(1, |_| Fate::Hangs(ms(100_000)));
        world.play(Duration::from_secs(50));
        world.engine.handle(world.now, Input::Asked { why: "leak".into() });
        world
    };
    let mut world = serving();
    world.drain();
    // A second request changes nothing.
    world.engine.handle(world.now, Input::Asked { why: "leak".into() });
    world.play(Duration::from_secs(57));
    assert!(world.shown.kills.is_empty() && world.shown.refused.is_empty());
    world.play(Duration::from_secs(70));
    assert_eq!(world.shown.kills, [Duration::from_secs(58)]);
    assert_eq!(world.shown.starts.len(), 2);
    let mut world = serving();
    world.engine.handle(world.now, Input::Stop);
    world.play(Duration::from_secs(70));
    assert_eq!((world.shown.starts.len(), &world.shown.end), (1, &Some((ms(58_020), End::Killed))));
}
