//! The output of the running demo: messages with their time, and a progress bar of the records.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Messages with a progress bar below them; without a terminal only the messages, on standard output; with
/// `--json` neither.
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

    /// Prints a message.
    pub(crate) fn say(&self, what: impl Display) {
        let line = format!("{:6.2} s  {what}", self.begun.elapsed().as_secs_f64());
        match &self.medium {
            Medium::Silent => {}
            Medium::Lines => print(&line),
            // A closed terminal is no failure of the demo.
            Medium::Terminal { all, .. } => drop(all.println(line)),
        }
    }

    /// Shows the current step.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        if let Medium::Terminal { step, .. } = &self.medium {
            step.set_message(what.into());
        }
    }

    /// Sets the number of records to write.
    pub(crate) fn records(&self, count: usize) {
        if let Medium::Terminal { all, bar, .. } = &self.medium {
            bar.set_length(count as u64);
            let bar = all.insert(0, bar.clone());
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(15));
            all.insert(0, bar);
        }
    }

    /// Shows the number of acknowledged records and a note.
    pub(crate) fn progress(&self, acknowledged: usize, note: impl Into<String>) {
        if let Medium::Terminal { bar, .. } = &self.medium {
            bar.set_position(acknowledged as u64);
            bar.set_message(note.into());
        }
    }

    /// Removes the bar and the step before the result.
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
    // An invalid template falls back to the default.
    let style =
        |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = all.add(ProgressBar::new(0));
    bar.set_style(style("          [{bar:40}] {pos}/{len} records acknowledged{msg}").progress_chars("=> "));
    let step = all.add(ProgressBar::new_spinner());
    step.set_style(style("       {spinner}  {msg}"));
    step.enable_steady_tick(Duration::from_millis(100));
    Medium::Terminal { all, bar, step }
}

/// Writes a line to standard output. A closed standard output is no failure of the demo.
pub(crate) fn print(line: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(format!("{line}\n").as_bytes()).and_then(|()| output.flush());
}
