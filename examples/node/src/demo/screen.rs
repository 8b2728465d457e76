//! What a person sees while the demo runs: sentences with the time they were said at, and a bar for the records.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Sentences above, a bar below. Without a terminal the sentences alone, on standard output; for machines nothing.
#[derive(Debug)]
pub(crate) struct Screen {
    begun: Instant,
    medium: Medium,
}

#[derive(Debug)]
enum Medium {
    Silent,
    Lines,
    Terminal { all: MultiProgress, bar: ProgressBar, step: ProgressBar },
}

impl Screen {
    pub(crate) fn new(is_silent: bool) -> Screen {
        let medium = if is_silent {
            Medium::Silent
        } else if std::io::stderr().is_terminal() && std::io::stdout().is_terminal() {
            terminal()
        } else {
            Medium::Lines
        };
        Screen { begun: Instant::now(), medium }
    }

    /// Something has happened.
    pub(crate) fn say(&self, what: impl Display) {
        let line = format!("{:6.2} s  {what}", self.begun.elapsed().as_secs_f64());
        match &self.medium {
            Medium::Silent => {}
            Medium::Lines => print(&line),
            // Somebody who closed the terminal does not want to read it.
            Medium::Terminal { all, .. } => drop(all.println(line)),
        }
    }

    /// Something is under way.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        if let Medium::Terminal { step, .. } = &self.medium {
            step.set_message(what.into());
        }
    }

    /// How many records are to be written.
    pub(crate) fn records(&self, count: usize) {
        if let Medium::Terminal { all, bar, .. } = &self.medium {
            bar.set_length(count as u64);
            let bar = all.insert(0, bar.clone());
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(15));
            all.insert(0, bar);
        }
    }

    /// How many are, and what else is worth a number.
    pub(crate) fn progress(&self, acknowledged: usize, note: impl Into<String>) {
        if let Medium::Terminal { bar, .. } = &self.medium {
            bar.set_position(acknowledged as u64);
            bar.set_message(note.into());
        }
    }

    /// Takes bar and step away: what follows is the result.
    pub(crate) fn finish(&self) {
        if let Medium::Terminal { all, bar, step } = &self.medium {
            step.finish_and_clear();
            bar.finish_and_clear();
            drop(all.clear());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.finish();
    }
}

fn terminal() -> Medium {
    let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(15));
    // Where a template is not understood the default serves.
    let style =
        |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = all.add(ProgressBar::new(0));
    bar.set_style(style("          [{bar:40}] {pos}/{len} records acknowledged{msg}").progress_chars("=> "));
    let step = all.add(ProgressBar::new_spinner());
    step.set_style(style("       {spinner}  {msg}"));
    step.enable_steady_tick(Duration::from_millis(100));
    Medium::Terminal { all, bar, step }
}

/// Writes a line to standard output. Nobody may be listening any more, which is no failure of the demo.
pub(crate) fn print(line: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush());
}
