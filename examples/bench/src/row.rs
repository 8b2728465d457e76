//! A figure beside that of a peer: the JSON form of every area.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// A measured figure. The field names are the JSON form and do not change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) area: &'static str,
    pub(crate) case: String,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    /// The figure of x0; `null` if it was not measured.
    pub(crate) x0: Option<f64>,
    /// The figure of the peer; `null` if there is no peer or it was not measured.
    pub(crate) peer: Option<f64>,
    /// The name and version of the peer, or the reason why it is missing.
    pub(crate) peer_name: String,
    /// Above 1 means that x0 is better, for metrics in both directions.
    pub(crate) ratio: Option<f64>,
}

/// The direction in which a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    /// A circumstance, such as the disk's own time: no ratio.
    Neither,
}

/// The ratio in favour of x0; `None` if a figure is missing or zero.
pub(crate) fn ratio(better: Better, x0: Option<f64>, peer: Option<f64>) -> Option<f64> {
    let (x0, peer) = (x0?, peer?);
    let ratio = match better {
        Better::More => x0 / peer,
        Better::Less => peer / x0,
        Better::Neither => return None,
    };
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// Writes the array, one row a line, so that two results can be compared with `diff`.
pub(crate) fn write(path: &Path, rows: &[Row]) -> Result<()> {
    std::fs::write(path, to_json(rows)?).with_context(|| format!("cannot write {}", path.display()))
}

fn to_json(rows: &[Row]) -> Result<String> {
    let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_the_agreed_one() {
        let row = Row {
            area: "kv",
            case: "put, 64 clients".to_owned(),
            metric: "operations",
            unit: "1/s",
            x0: Some(3.0),
            peer: Some(1.5),
            peer_name: "etcd 3.4.23".to_owned(),
            ratio: Some(2.0),
        };
        let missing = Row { x0: None, peer: None, ratio: None, ..row.clone() };
        let text = to_json(&[row, missing]).unwrap();
        let expect = r#"[
{"area":"kv","case":"put, 64 clients","metric":"operations","unit":"1/s","x0":3.0,"peer":1.5,"peer_name":"etcd 3.4.23","ratio":2.0},
{"area":"kv","case":"put, 64 clients","metric":"operations","unit":"1/s","x0":null,"peer":null,"peer_name":"etcd 3.4.23","ratio":null}
]
"#;
        assert_eq!(text, expect);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap().as_array().unwrap().len(), 2);
        assert_eq!(to_json(&[]).unwrap(), "[\n\n]\n");
    }

    #[test]
    fn a_ratio_above_one_means_that_x0_is_better() {
        assert_eq!(ratio(Better::More, Some(10.0), Some(5.0)), Some(2.0));
        assert_eq!(ratio(Better::Less, Some(5.0), Some(10.0)), Some(2.0));
        assert_eq!(ratio(Better::Neither, Some(5.0), Some(10.0)), None);
        for (x0, peer) in
            [(None, Some(1.0)), (Some(1.0), None), (Some(0.0), Some(1.0)), (Some(1.0), Some(0.0))]
        {
            assert_eq!(ratio(Better::Less, x0, peer), None);
            assert_eq!(ratio(Better::More, x0, peer), None);
        }
    }
}
