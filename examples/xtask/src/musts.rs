//! The rules of the SPIFFE specifications and their tests, gathered from the tables in the test files of
//! x0-identity into one document. Each test that a table names exists.

use anyhow::Result;

use crate::workspace::Workspace;

const OUT: &str = "x0-identity/MUSTS.md";

/// Documents with the test files whose first table is theirs.
const DOCUMENTS: [(&str, &str); 6] = [
    ("SPIFFE-ID", "spiffe_id"),
    ("X509-SVID", "x509_svid"),
    ("Trust Domain and Bundle (TDB), X509-SVID §6 and JWT-SVID §6", "bundle"),
    ("JWT-SVID", "jwt_svid"),
    ("Workload API (API) and Workload Endpoint (Endpoint)", "workload_api"),
    ("Federation", "federation"),
];

pub(crate) fn run(workspace: &Workspace, check: bool) -> Result<Vec<String>> {
    let files = workspace.files(&[".rs"])?;
    let mut tests = String::new();
    for name in files.iter().filter(|name| name.starts_with("x0-identity/tests/")) {
        tests.push_str(&workspace.read(name)?);
    }
    let mut findings = Vec::new();
    let mut text = String::from(
        "# The rules of the SPIFFE specifications and their tests\n\n\
         Written by `cargo xtask musts` from the tables in `tests/`. A rule that several sections repeat has one row.\n",
    );
    for (title, file) in DOCUMENTS {
        let path = format!("x0-identity/tests/{file}.rs");
        let source = workspace.read(&path)?;
        let rows = table(&source);
        if rows.is_empty() {
            findings.push(format!("{path} has no table of rules at its beginning: add it"));
        }
        for name in rows.iter().flat_map(|row| names(row)) {
            let exists = if name.contains('/') {
                files.iter().any(|file| *file == format!("x0-identity/{name}"))
            } else {
                tests.contains(&format!("fn {name}("))
            };
            if !exists {
                findings
                    .push(format!("{path} names the test {name}, which does not exist: correct the table"));
            }
        }
        let prohibitions = rows.iter().filter(|row| row.contains("MUST NOT")).count();
        text.push_str(&format!(
            "\n## {title}\n\n`tests/{file}.rs`: {} rules, of which {prohibitions} say MUST NOT.\n\n\
             | Section | Rule | Test |\n|---|---|---|\n",
            rows.len()
        ));
        for row in rows {
            text.push_str(row);
            text.push('\n');
        }
    }
    if !check {
        workspace.write(OUT, &text)?;
    } else if workspace.read(OUT).unwrap_or_default() != text {
        findings.push(format!("{OUT} is not what the tables say: run `cargo xtask musts`"));
    }
    Ok(findings)
}

/// The rows of the table in the comment at the beginning of a file.
fn table(source: &str) -> Vec<&str> {
    let comment = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let rows = comment.filter(|line| line.starts_with('|'));
    rows.filter(|row| !row.starts_with("|---") && !row.starts_with("| Section ")).collect()
}

/// What is between backticks in the last column: tests, or files of tests.
fn names(row: &str) -> impl Iterator<Item = &str> {
    let last = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
    last.split('`').skip(1).step_by(2).filter(|name| {
        name.ends_with(".rs")
            || name.contains('_') && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_their_tests_are_found() {
        let source = "//! Text.\n//!\n//! | Section | Rule | Test |\n//! |---|---|---|\n\
                      //! | 2 | the `aud` MUST NOT | `a_1`, `tests/b/c.rs` |\n//!\n\nfn a() {}\n//! | no |\n";
        let rows = table(source);
        assert_eq!(rows, ["| 2 | the `aud` MUST NOT | `a_1`, `tests/b/c.rs` |"]);
        assert_eq!(names(rows[0]).collect::<Vec<_>>(), ["a_1", "tests/b/c.rs"]);
    }
}
