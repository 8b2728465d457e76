//! A case: the figures of one measurement with several systems.

use std::collections::BTreeMap;
use std::fmt;

use crate::row::{Better, Row, ratio};
use crate::statistics::{median, spread};
use crate::table::{Table, number, number_or_dash, times};

/// The name and unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// A target: a figure of x0 and its maximum.
struct Aim {
    what: String,
    found: Option<f64>,
    most: f64,
    unit: &'static str,
}

/// One measurement with several systems.
pub(crate) struct Case {
    area: &'static str,
    name: String,
    /// The work and the way of measuring it.
    how: String,
    /// The first one is x0.
    systems: Vec<String>,
    metrics: Vec<Metric>,
    /// By metric and system, one value per turn.
    values: BTreeMap<(Metric, usize), Vec<f64>>,
    /// By system, the reason why it was not measured.
    missing: BTreeMap<usize, String>,
    aims: Vec<Aim>,
}

impl Case {
    pub(crate) fn new(
        area: &'static str,
        name: impl Into<String>,
        how: impl Into<String>,
        systems: Vec<String>,
    ) -> Self {
        let how = how.into();
        debug_assert!(!how.contains("  "), "a literal that lost its line continuation: {how}");
        Self {
            area,
            name: name.into(),
            how,
            systems,
            metrics: Vec::new(),
            values: BTreeMap::new(),
            missing: BTreeMap::new(),
            aims: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, metric: Metric, system: usize, value: f64) {
        if !self.metrics.contains(&metric) {
            self.metrics.push(metric);
        }
        self.values.entry((metric, system)).or_default().push(value);
    }

    pub(crate) fn miss(&mut self, system: usize, why: impl Into<String>) {
        self.missing.insert(system, why.into());
    }

    pub(crate) fn is_missing(&self, system: usize) -> bool {
        self.missing.contains_key(&system)
    }

    pub(crate) fn median(&self, metric: Metric, system: usize) -> Option<f64> {
        median(self.values.get(&(metric, system))?)
    }

    /// The median over the turns of one system's value divided by another's in the same turn. The speed of a
    /// machine drifts from turn to turn, and this is less sensitive to it than the ratio of two medians.
    /// `None` unless both were measured in each turn.
    pub(crate) fn paired_ratio(&self, metric: Metric, system: usize, beside: usize) -> Option<f64> {
        let values = self.values.get(&(metric, system))?;
        let others = self.values.get(&(metric, beside)).filter(|others| others.len() == values.len())?;
        let ratios: Vec<f64> = values.iter().zip(others).map(|(value, other)| value / other).collect();
        median(&ratios)
    }

    /// Adds a target: `found` must be at most `most`.
    pub(crate) fn aim(&mut self, what: impl Into<String>, found: Option<f64>, most: f64, unit: &'static str) {
        self.aims.push(Aim { what: what.into(), found, most, unit });
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for metric in &self.metrics {
            let x0 = self.median(*metric, 0);
            let row = |peer, peer_name| Row {
                area: self.area,
                case: self.name.clone(),
                metric: metric.name,
                unit: metric.unit,
                x0,
                peer,
                peer_name,
                ratio: ratio(Better::Less, x0, peer),
            };
            for (system, name) in self.systems.iter().enumerate().skip(1) {
                rows.push(match self.missing.get(&system) {
                    Some(why) => row(None, format!("{name} (missing: {why})")),
                    None => row(self.median(*metric, system), name.clone()),
                });
            }
            if self.systems.len() == 1 {
                rows.push(row(None, "none".to_owned()));
            }
        }
        rows.extend(self.aims.iter().map(|aim| Row {
            area: self.area,
            case: format!("{}: {}", self.name, aim.what),
            metric: "beside its maximum",
            unit: aim.unit,
            x0: aim.found,
            peer: Some(aim.most),
            peer_name: "maximum".to_owned(),
            ratio: ratio(Better::Less, aim.found, Some(aim.most)),
        }));
        rows
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n{}\n", self.name, self.how)?;
        let mut table = Table::default();
        let mut head = vec![String::new()];
        head.extend(self.metrics.iter().flat_map(|metric| {
            [format!("{}, {}", metric.name, metric.unit), "+-".to_owned(), "x0 is".to_owned()]
        }));
        table.push(head);
        for (system, name) in self.systems.iter().enumerate() {
            let mut line = vec![name.clone()];
            for metric in &self.metrics {
                let values = self.values.get(&(*metric, system)).map_or(&[][..], Vec::as_slice);
                let (x0, found) = (self.median(*metric, 0), median(values));
                let apart =
                    spread(values).map_or_else(String::new, |spread| format!("{:.0}%", spread * 50.0));
                let better = if system == 0 { String::new() } else { times(ratio(Better::Less, x0, found)) };
                line.extend([number_or_dash(found), apart, better]);
            }
            table.push(line);
        }
        write!(f, "{table}")?;
        for (system, why) in &self.missing {
            writeln!(f, "{}: {why}", self.systems[*system])?;
        }
        for aim in &self.aims {
            let (most, unit) = (number(aim.most), aim.unit);
            match aim.found {
                Some(found) if found <= aim.most => {
                    writeln!(f, "met:    {}: {} {unit}, target at most {most}", aim.what, number(found))?;
                }
                Some(found) => {
                    writeln!(f, "MISSED: {}: {} {unit}, target at most {most}", aim.what, number(found))?;
                }
                None => writeln!(f, "OPEN:   {}: not measured, target at most {most} {unit}", aim.what)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Metric = Metric { name: "bytes", unit: "B" };

    #[test]
    fn a_ratio_is_that_of_values_of_the_same_turn() {
        let mut case = Case::new("area", "a case", "how", ["x0", "a"].map(str::to_owned).to_vec());
        for (x0, peer) in [(1.0, 2.0), (10.0, 20.0), (3.0, 1.0)] {
            case.add(BYTES, 0, x0);
            case.add(BYTES, 1, peer);
        }
        assert_eq!(case.paired_ratio(BYTES, 0, 1), Some(0.5));
        case.add(BYTES, 0, 1.0);
        assert_eq!(case.paired_ratio(BYTES, 0, 1), None);
    }

    #[test]
    fn rows_hold_medians_ratios_aims_and_what_is_missing() {
        let mut case = Case::new("area", "a case", "how", ["x0", "a", "b"].map(str::to_owned).to_vec());
        for value in [3.0, 1.0, 2.0] {
            case.add(BYTES, 0, value);
            case.add(BYTES, 1, value * 4.0);
        }
        case.miss(2, "it has none");
        case.aim("bytes", case.median(BYTES, 0), 1.0, "B");
        let rows = case.rows();
        assert_eq!((rows[0].x0, rows[0].peer, rows[0].ratio), (Some(2.0), Some(8.0), Some(4.0)));
        assert_eq!((rows[1].peer, rows[1].peer_name.as_str()), (None, "b (missing: it has none)"));
        assert_eq!((rows[2].peer, rows[2].ratio), (Some(1.0), Some(0.5)));
        let text = case.to_string();
        assert!(text.contains("MISSED: bytes: 2.00 B, target at most 1.00"), "{text}");
        assert!(text.contains("b: it has none"), "{text}");
    }
}
