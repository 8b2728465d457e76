//! The results as tables and rows.

use std::fmt;

use anyhow::{Result, bail};

use super::systems::Kind;
use super::{Cell, Options, SICK_MS, Windows};
use crate::disk::Fsync;
use crate::load::Measured;
use crate::row::{Better, Row, ratio};
use crate::statistics::{median, spread};
use crate::table::{Table, number, number_or_dash, times};

/// A figure of a window.
struct Metric {
    name: &'static str,
    unit: &'static str,
    better: Better,
    of: fn(&Measured, &Fsync) -> f64,
}

/// The figures of one window. Figures per operation refer to the operations of the measured part.
const METRICS: [Metric; 7] = [
    Metric {
        name: "operations",
        unit: "1/s",
        better: Better::More,
        of: |measured, _| measured.operations as f64 / measured.elapsed.as_secs_f64(),
    },
    Metric {
        name: "p50",
        unit: "ms",
        better: Better::Less,
        of: |measured, _| measured.p50.as_secs_f64() * 1e3,
    },
    Metric {
        name: "p99",
        unit: "ms",
        better: Better::Less,
        of: |measured, _| measured.p99.as_secs_f64() * 1e3,
    },
    Metric {
        name: "server cpu",
        unit: "us/operation",
        better: Better::Less,
        of: |measured, _| measured.server_cpu.as_secs_f64() * 1e6 / measured.operations as f64,
    },
    Metric {
        name: "resident",
        unit: "MiB",
        better: Better::Less,
        of: |measured, _| measured.resident_bytes as f64 / f64::from(1 << 20),
    },
    Metric {
        name: "load generator cpu",
        unit: "us/operation",
        better: Better::Neither,
        of: |measured, _| measured.load_cpu.as_secs_f64() * 1e6 / measured.operations as f64,
    },
    Metric { name: "disk fsync p99", unit: "ms", better: Better::Neither, of: |_, fsync| fsync.p99_ms },
];

/// All results, and the reasons for missing ones.
pub(crate) struct Report {
    header: String,
    present: Vec<(Kind, String)>,
    missing: Vec<(Kind, String)>,
    cells: Vec<(Cell, Kind, Windows)>,
    wanted: usize,
}

impl Report {
    /// `disk` is the probe before any system was started.
    pub(crate) fn new(options: &Options, disk: Option<Fsync>) -> Self {
        let disk = disk.map_or_else(String::new, |disk| {
            format!("p50 {} ms, p99 {} ms", number(disk.p50_ms), number(disk.p99_ms))
        });
        let header = format!(
            "Three servers each on this machine, {} bytes a value, {} keys, fsync on commit; medians of {} windows of {} s.\n\
             Disk alone ({}): 4 KiB and fdatasync {disk}.\n",
            options.value_len,
            options.keys,
            options.windows,
            options.seconds,
            options.folder.display(),
        );
        Self { header, present: Vec::new(), missing: Vec::new(), cells: Vec::new(), wanted: options.windows }
    }

    pub(crate) fn present(&mut self, kind: Kind, name: &str) {
        self.present.push((kind, name.to_owned()));
    }

    pub(crate) fn missing(&mut self, kind: Kind, why: String) {
        self.missing.push((kind, why));
    }

    pub(crate) fn add(&mut self, cell: Cell, kind: Kind, windows: Windows) {
        self.cells.push((cell, kind, windows));
    }

    /// An error if x0 was selected and could not be measured.
    pub(crate) fn verdict(&self) -> Result<()> {
        match self.missing.iter().find(|(kind, _)| !kind.is_peer()) {
            Some((kind, why)) => bail!("{} was not measured: {why}", kind.name()),
            None if self.present.is_empty() => bail!("nothing was measured"),
            None => Ok(()),
        }
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for cell in self.cells_in_order() {
            for metric in &METRICS {
                let x0 = self.median(metric, cell, Kind::X0);
                let row = |case: String, x0, peer: Option<f64>, peer_name: &str| Row {
                    area: "kv",
                    case,
                    metric: metric.name,
                    unit: metric.unit,
                    x0,
                    peer,
                    peer_name: peer_name.to_owned(),
                    ratio: ratio(metric.better, x0, peer),
                };
                for (kind, name) in self.present.iter().filter(|(kind, _)| kind.is_peer()) {
                    rows.push(row(cell.to_string(), x0, self.median(metric, cell, *kind), name));
                }
                for (kind, why) in self.missing.iter().filter(|(kind, _)| kind.is_peer()) {
                    rows.push(row(cell.to_string(), x0, None, &format!("{} (missing: {why})", kind.name())));
                }
                for (kind, name) in self.present.iter().filter(|(kind, _)| kind.is_embedded()) {
                    rows.push(row(format!("{cell}, {name}"), self.median(metric, cell, *kind), None, "none"));
                }
            }
            let dropped =
                |kind| self.windows(cell, kind).map(|windows| (windows.sick + windows.failed) as f64);
            for (kind, name) in self.present.iter().filter(|(kind, _)| kind.is_peer()) {
                rows.push(Row {
                    area: "kv",
                    case: cell.to_string(),
                    metric: "windows dropped",
                    unit: "count",
                    x0: dropped(Kind::X0),
                    peer: dropped(*kind),
                    peer_name: name.clone(),
                    ratio: None,
                });
            }
        }
        rows
    }

    fn cells_in_order(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.cells.iter().map(|(cell, ..)| *cell).collect();
        cells.dedup();
        cells
    }

    fn windows(&self, cell: Cell, kind: Kind) -> Option<&Windows> {
        self.cells.iter().find(|(at, of, _)| (*at, *of) == (cell, kind)).map(|(_, _, windows)| windows)
    }

    fn values(&self, metric: &Metric, cell: Cell, kind: Kind) -> Vec<f64> {
        let good = self.windows(cell, kind).map_or(&[][..], |windows| &windows.good);
        good.iter().map(|(measured, fsync)| (metric.of)(measured, fsync)).collect()
    }

    fn median(&self, metric: &Metric, cell: Cell, kind: Kind) -> Option<f64> {
        median(&self.values(metric, cell, kind))
    }

    /// Each figure with the spread of its windows and the ratio in favour of x0.
    fn cell(&self, cell: Cell) -> Table {
        let mut table = Table::default();
        let mut head = vec![cell.to_string(), String::new()];
        for (kind, name) in &self.present {
            head.extend([name.clone(), "+-".to_owned()]);
            head.extend(kind.is_peer().then(|| "x0 is".to_owned()));
        }
        table.push(head);
        for metric in &METRICS {
            let x0 = self.median(metric, cell, Kind::X0);
            let mut line = vec![format!("  {}", metric.name), metric.unit.to_owned()];
            for (kind, _) in &self.present {
                let values = self.values(metric, cell, *kind);
                let apart =
                    spread(&values).map_or_else(String::new, |spread| format!("{:.0}%", spread * 50.0));
                line.extend([number_or_dash(median(&values)), apart]);
                line.extend(kind.is_peer().then(|| times(ratio(metric.better, x0, median(&values)))));
            }
            table.push(line);
        }
        let mut line = vec!["  windows kept".to_owned(), String::new()];
        for (kind, _) in &self.present {
            let kept = self
                .windows(cell, *kind)
                .map(|windows| format!("{}/{}", windows.good.len(), windows.attempts()));
            line.extend([kept.unwrap_or_default(), String::new()]);
            line.extend(kind.is_peer().then(String::new));
        }
        table.push(line);
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.header)?;
        for cell in self.cells_in_order() {
            writeln!(f, "{}", self.cell(cell))?;
        }
        for (cell, kind, windows) in &self.cells {
            let place = format!("{}, {cell}", kind.name());
            if windows.sick > 0 {
                writeln!(
                    f,
                    "{place}: {} windows dropped for a sick disk (fsync p99 > {SICK_MS} ms)",
                    windows.sick
                )?;
            }
            if let Some(failure) = &windows.failure {
                writeln!(
                    f,
                    "{place}: {} windows dropped for a failed request, the last: {failure}",
                    windows.failed
                )?;
            }
            if windows.good.len() < self.wanted {
                writeln!(f, "{place}: only {} good windows of {}", windows.good.len(), self.wanted)?;
            }
        }
        for (kind, why) in &self.missing {
            writeln!(f, "{} was not measured: {why}", kind.name())?;
        }
        Ok(())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.clients == 1 { "" } else { "s" };
        write!(f, "{}, {} client{plural}", self.operation.name(), self.clients)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::Operation;

    const CELL: Cell = Cell { operation: Operation::Put, clients: 64 };

    fn windows(operations: &[u64]) -> Windows {
        let window = |operations: &u64| {
            let measured = Measured {
                operations: *operations,
                elapsed: Duration::from_secs(2),
                p50: Duration::from_millis(3),
                p99: Duration::from_millis(9),
                server_cpu: Duration::from_secs(1),
                load_cpu: Duration::from_millis(100),
                resident_bytes: 3 << 20,
            };
            (measured, Fsync { p50_ms: 0.2, p99_ms: 1.0 })
        };
        Windows { good: operations.iter().map(window).collect(), ..Windows::default() }
    }

    fn report() -> Report {
        let mut report = Report {
            header: String::new(),
            present: Vec::new(),
            missing: Vec::new(),
            cells: Vec::new(),
            wanted: 3,
        };
        report.present(Kind::X0, "x0");
        report.present(Kind::Etcd, "etcd 3.4.23");
        report.add(CELL, Kind::X0, windows(&[9_000, 10_000, 30_000]));
        report.add(CELL, Kind::Etcd, Windows { sick: 2, ..windows(&[2_000, 1_000, 2_500]) });
        report
    }

    fn row(report: &Report, metric: &str, peer: &str) -> Row {
        let found = |row: &Row| row.metric == metric && row.peer_name.starts_with(peer);
        report.rows().into_iter().find(found).unwrap()
    }

    #[test]
    fn rows_hold_medians_and_ratios() {
        let report = report();
        let operations = row(&report, "operations", "etcd");
        assert_eq!(
            (operations.x0, operations.peer, operations.ratio),
            (Some(5_000.0), Some(1_000.0), Some(5.0))
        );
        assert_eq!((operations.case.as_str(), operations.unit), ("put, 64 clients", "1/s"));
        let cpu = row(&report, "server cpu", "etcd");
        assert_eq!((cpu.x0, cpu.peer, cpu.ratio), (Some(100.0), Some(500.0), Some(5.0)));
        assert_eq!(row(&report, "disk fsync p99", "etcd").ratio, None);
        let dropped = row(&report, "windows dropped", "etcd");
        assert_eq!((dropped.x0, dropped.peer, dropped.ratio), (Some(0.0), Some(2.0), None));
    }

    #[test]
    fn a_missing_peer_says_why() {
        let mut report = report();
        report.missing(Kind::Zookeeper, "no Java".to_owned());
        let operations = row(&report, "operations", "zookeeper");
        assert_eq!(operations.peer_name, "zookeeper (missing: no Java)");
        assert_eq!((operations.x0, operations.peer, operations.ratio), (Some(5_000.0), None, None));
        assert!(report.to_string().contains("zookeeper was not measured: no Java"));
        report.verdict().unwrap();
    }

    #[test]
    fn without_x0_the_run_fails_but_the_peers_are_there() {
        let mut report = report();
        report.present.retain(|(kind, _)| *kind != Kind::X0);
        report.cells.retain(|(_, kind, _)| *kind != Kind::X0);
        report.missing(Kind::X0, "x0-node: no such file".to_owned());
        let operations = row(&report, "operations", "etcd");
        assert_eq!((operations.x0, operations.peer, operations.ratio), (None, Some(1_000.0), None));
        assert_eq!(report.verdict().unwrap_err().to_string(), "x0 was not measured: x0-node: no such file");
    }

    #[test]
    fn too_few_windows_and_dropped_ones_are_told() {
        let mut report = report();
        report.cells[1].2.good.pop();
        let text = report.to_string();
        assert!(text.contains("etcd, put, 64 clients: 2 windows dropped for a sick disk"), "{text}");
        assert!(text.contains("etcd, put, 64 clients: only 2 good windows of 3"), "{text}");
    }
}
