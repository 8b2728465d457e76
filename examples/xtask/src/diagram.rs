//! The library crates as a picture (SVG), drawn from the manifests: a solid line is a dependency, a dashed
//! one a dependency that a feature turns on. A dependency that another one always brings along is not drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::workspace::{LIBRARIES, Workspace, array, text};

const BOX: (usize, usize) = (200, 112);
const GAP: (usize, usize) = (18, 44);
const MARGIN: usize = 16;
/// The height of the bar above the crates.
const BAR: usize = 36;
/// Characters of a description that fit into a box.
const COLUMNS: usize = 25;
const LINES: usize = 5;

/// A crate, and where it stands: above everything it depends on, and as close below its users as possible.
#[derive(Debug)]
struct Place {
    row: usize,
    column: usize,
    description: String,
    /// The crates it depends on, and whether a feature turns that on.
    below: BTreeMap<String, bool>,
}

pub(crate) fn run(workspace: &Workspace, out: &str) -> Result<Vec<String>> {
    let metadata = workspace.metadata(&["--no-deps"])?;
    workspace.write(out, &draw(&places(&metadata)?))?;
    Ok(Vec::new())
}

fn places(metadata: &Value) -> Result<BTreeMap<String, Place>> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for package in array(metadata, "packages") {
        let name = text(package, "name");
        if !LIBRARIES.contains(&name) {
            continue;
        }
        let normal = array(package, "dependencies").iter().filter(|dependency| dependency["kind"].is_null());
        let below = normal
            .filter(|dependency| LIBRARIES.contains(&text(dependency, "name")))
            .map(|dependency| (text(dependency, "name").to_owned(), dependency["optional"] == true))
            .collect();
        let description = text(package, "description").to_owned();
        places.insert(name.to_owned(), Place { row: 0, column: 0, description, below });
    }
    // A row above everything it depends on; as many rounds as there are crates suffice.
    for _ in 0..places.len() {
        let rows: BTreeMap<String, usize> =
            places.iter().map(|(name, place)| (name.clone(), place.row)).collect();
        for place in places.values_mut() {
            place.row = place.below.keys().map(|name| rows[name] + 1).max().unwrap_or(0);
        }
    }
    if places.values().any(|place| place.row >= LIBRARIES.len()) {
        bail!("the dependencies of the library crates form a cycle");
    }
    let rows: BTreeMap<String, usize> =
        places.iter().map(|(name, place)| (name.clone(), place.row)).collect();
    let lowest_user = |name: &String, places: &BTreeMap<String, Place>| {
        places.iter().filter(|(_, user)| user.below.contains_key(name)).map(|(user, _)| rows[user]).min()
    };
    let raised: Vec<(String, usize)> =
        rows.keys().filter_map(|name| Some((name.clone(), lowest_user(name, &places)? - 1))).collect();
    for (name, row) in raised {
        if let Some(place) = places.get_mut(&name) {
            place.row = row;
        }
    }
    // The dependencies that a crate always has through another of its dependencies.
    for name in LIBRARIES {
        let below: Vec<String> =
            places.get(name).into_iter().flat_map(|place| place.below.keys().cloned()).collect();
        let is_brought = |lower: &String| {
            below.iter().any(|between| {
                places[name].below.get(between) == Some(&false)
                    && places[between].below.get(lower) == Some(&false)
            })
        };
        let kept: BTreeMap<String, bool> = below
            .iter()
            .filter(|lower| !is_brought(lower))
            .map(|lower| (lower.clone(), places[name].below[lower]))
            .collect();
        if let Some(place) = places.get_mut(name) {
            place.below = kept;
        }
    }
    let mut used = BTreeMap::new();
    for name in LIBRARIES {
        let Some(place) = places.get_mut(name) else { bail!("the workspace has no crate {name}") };
        let column = used.entry(place.row).or_insert(0);
        place.column = *column;
        *column += 1;
    }
    Ok(places)
}

fn draw(places: &BTreeMap<String, Place>) -> String {
    let rows = places.values().map(|place| place.row + 1).max().unwrap_or(1);
    let columns = places.values().map(|place| place.column + 1).max().unwrap_or(1);
    let width = 2 * MARGIN + columns * (BOX.0 + GAP.0) - GAP.0;
    let height = 2 * MARGIN + BAR + rows * (BOX.1 + GAP.1);
    let corner = |place: &Place| {
        let in_row = places.values().filter(|other| other.row == place.row).count();
        let x = MARGIN + (columns - in_row) * (BOX.0 + GAP.0) / 2 + place.column * (BOX.0 + GAP.0);
        (x, MARGIN + BAR + GAP.1 + (rows - 1 - place.row) * (BOX.1 + GAP.1))
    };
    let mut svg = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"The crates of x0 and their dependencies\">\n\
         <!-- Written by `cargo xtask diagram`. -->\n\
         <style>\n\
         text {{ font-family: ui-sans-serif, system-ui, sans-serif; font-size: 12px; fill: #24292f }}\n\
         .name {{ font-size: 15px; font-weight: 600 }}\n\
         rect {{ fill: #f6f8fa; stroke: #8c959f }}\n\
         path {{ fill: none; stroke: #57606a; stroke-width: 1.5 }}\n\
         .feature {{ stroke-dasharray: 5 4 }}\n\
         @media (prefers-color-scheme: dark) {{\n\
         text {{ fill: #e6edf3 }} rect {{ fill: #161b22; stroke: #6e7681 }} path {{ stroke: #9198a1 }}\n\
         }}\n\
         </style>\n"
    );
    let _ = writeln!(
        svg,
        "<rect x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"{}\" height=\"{BAR}\" rx=\"6\"/>\n\
         <text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">your program, or examples/node: any of these crates</text>",
        width - 2 * MARGIN,
        width / 2,
        MARGIN + BAR / 2 + 5,
    );
    for place in places.values() {
        let (x, y) = corner(place);
        for (name, is_optional) in &place.below {
            let (to_x, to_y) = corner(&places[name]);
            let (from, to) = (x + BOX.0 / 2, to_x + BOX.0 / 2);
            let bend = (to_y - y - BOX.1) / 2;
            let class = if *is_optional { " class=\"feature\"" } else { "" };
            let _ = writeln!(
                svg,
                "<path{class} d=\"M{from} {} C{from} {}, {to} {}, {to} {to_y}\"/>",
                y + BOX.1,
                y + BOX.1 + bend,
                to_y - bend,
            );
        }
    }
    for (name, place) in places {
        let (x, y) = corner(place);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n\
             <text class=\"name\" x=\"{}\" y=\"{}\">{name}</text>",
            BOX.0,
            BOX.1,
            x + 10,
            y + 22,
        );
        for (line, number) in wrap(&place.description).iter().zip(0..) {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\">{}</text>",
                x + 10,
                y + 41 + 15 * number,
                escape(line)
            );
        }
    }
    svg + "</svg>\n"
}

fn wrap(description: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in description.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    if lines.len() > LINES {
        lines.truncate(LINES);
        lines[LINES - 1].push_str(" …");
    }
    lines
}

/// Text as XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_stands_above_what_it_depends_on() {
        let metadata = Workspace::find().unwrap().metadata(&["--no-deps"]).unwrap();
        let places = places(&metadata).unwrap();
        assert_eq!(places.len(), LIBRARIES.len());
        for (name, place) in &places {
            for below in place.below.keys() {
                assert!(places[below].row < place.row, "{name} stands beside {below}");
            }
        }
        let svg = draw(&places);
        assert!(LIBRARIES.iter().all(|name| svg.contains(&format!(">{name}<"))));
    }
}
