//! Tables of the terminal output.

use std::fmt;

/// Columns padded to their widest cell; the first column to the left, the others to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.lines.push(cells.into_iter().map(Into::into).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.lines.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in &self.lines {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                match column {
                    0 => text.push_str(&format!("{cell:<width$}")),
                    _ => text.push_str(&format!("  {cell:>width$}")),
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Three significant digits below 1000, thousands apart above: `0.412`, `41.2`, `12 345`.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    if decimals > 0 {
        return text;
    }
    let digits = text.trim_start_matches('-').len();
    let mut out = String::new();
    for (position, digit) in text.trim_start_matches('-').chars().enumerate() {
        if position > 0 && (digits - position).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    if text.starts_with('-') { format!("-{out}") } else { out }
}

/// A missing figure is a dash.
pub(crate) fn number_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// `2.14x`, or nothing.
pub(crate) fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{}x", number(ratio)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.push(["", "x0", "etcd"]);
        table.push(["put, µs", "1.25", "10 000"]);
        table.push(["short"]);
        assert_eq!(table.to_string(), "           x0    etcd\nput, µs  1.25  10 000\nshort\n");
        assert_eq!(Table::default().to_string(), "");
    }

    #[test]
    fn numbers() {
        for (value, expect) in [
            (0.0, "0.000"),
            (0.4123, "0.412"),
            (4.1, "4.10"),
            (41.23, "41.2"),
            (412.3, "412"),
            (1_000.0, "1 000"),
            (12_345.6, "12 346"),
            (1_234_567.0, "1 234 567"),
            (-1_234.0, "-1 234"),
        ] {
            assert_eq!(number(value), expect);
        }
        assert_eq!(number_or_dash(None), "-");
        assert_eq!(times(Some(2.138)), "2.14x");
        assert_eq!(times(None), "");
    }
}
