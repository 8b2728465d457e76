//! The rules of the SPIFFE specifications and their tests, gathered from the tables in the test files of
//! x0-identity into one document. Each test that a table names exists.

use anyhow::Result;

use crate::workspace::Workspace;

const OUT: &str = "x0-identity/MUSTS.md";

/// Documents with the test files whose first table is theirs.
const DOCUMENTS: [(&str, &str); 7] = [
    ("SPIFFE-ID", "spiffe_id"),
    ("X509-SVID", "x509_svid"),
    ("Trust Domain and Bundle (TDB), X509-SVID §6 and JWT-SVID §6", "bundle"),
    ("JWT-SVID", "jwt_svid"),
    ("WIT-SVID", "wit_svid"),
    ("Workload API (API) and Workload Endpoint (Endpoint)", "workload_api"),
    ("Federation", "federation"),
];

/// A specification: how the tables name it, its file, and how often it says MUST, and of these MUST NOT.
struct Specification {
    tag: &'static str,
    file: &'static str,
    musts: usize,
    prohibitions: usize,
}

const fn specification(
    tag: &'static str,
    file: &'static str,
    musts: usize,
    prohibitions: usize,
) -> Specification {
    Specification { tag, file, musts, prohibitions }
}

/// Counted in the standards of github.com/spiffe/spiffe, each occurrence of the word MUST, as of 2026-11. The
/// number of a row is that of the occurrence, from the first line of the document on.
const SPECIFICATIONS: [Specification; 8] = [
    specification("ID", "SPIFFE-ID.md", 17, 7),
    specification("X509", "X509-SVID.md", 26, 4),
    specification("JWT", "JWT-SVID.md", 17, 2),
    specification("WIT", "WIT-SVID.md", 42, 10),
    specification("TDB", "SPIFFE_Trust_Domain_and_Bundle.md", 16, 2),
    specification("Federation", "SPIFFE_Federation.md", 35, 6),
    specification("API", "SPIFFE_Workload_API.md", 31, 3),
    specification("Endpoint", "SPIFFE_Workload_Endpoint.md", 17, 6),
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
         Written by `cargo xtask musts` from the tables in `tests/`: a row for each time that a specification says MUST.\n\n\
         | | Specification | MUST | of these MUST NOT |\n|---|---|---|---|\n",
    );
    for Specification { tag, file, musts, prohibitions } in &SPECIFICATIONS {
        text.push_str(&format!("| {tag} | `{file}` | {musts} | {prohibitions} |\n"));
    }
    let mut all = Vec::new();
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
        text.push_str(&format!(
            "\n## {title}\n\n`tests/{file}.rs`\n\n| MUST | Section | Rule | Test |\n|---|---|---|---|\n"
        ));
        for row in rows {
            text.push_str(row);
            text.push('\n');
            all.push(row.to_owned());
        }
    }
    findings.extend(SPECIFICATIONS.iter().flat_map(|specification| totals(specification, &all)));
    findings.extend(all.iter().filter_map(|row| reference(row, &all)));
    if !check {
        workspace.write(OUT, &text)?;
    } else if workspace.read(OUT).unwrap_or_default() != text {
        findings.push(format!("{OUT} is not what the tables say: run `cargo xtask musts`"));
    }
    Ok(findings)
}

/// What is wrong with the rows of a specification: each occurrence of MUST has one.
fn totals(specification: &Specification, rows: &[String]) -> Vec<String> {
    let Specification { tag, file, musts, prohibitions } = specification;
    let mut findings = Vec::new();
    for number in 1..=*musts {
        let count = rows.iter().filter(|row| is_row_of(row, tag, number)).count();
        if count != 1 {
            findings.push(format!(
                "the tables of rules have {count} rows for {tag} {number}, and {file} has one: correct them"
            ));
        }
    }
    let own = rows.iter().filter(|row| number(row).is_some_and(|(of, _)| of == *tag));
    let (numbered, forbidding) = own.fold((0, 0), |(numbered, forbidding), row| {
        (numbered + 1, forbidding + usize::from(row.contains("MUST NOT")))
    });
    if (numbered, forbidding) != (*musts, *prohibitions) {
        findings.push(format!(
            "the tables of rules have {numbered} rows of {tag}, {forbidding} with MUST NOT, and {file} has {musts} and {prohibitions}: correct them"
        ));
    }
    findings
}

/// The specification and the number of a row; none of a rule that is not a MUST.
fn number(row: &str) -> Option<(&str, usize)> {
    let (tag, number) = row.trim_start_matches(['|', ' ']).split(" | ").next()?.split_once(' ')?;
    Some((tag, number.parse().ok()?))
}

fn is_row_of(row: &str, tag: &str, wanted: usize) -> bool {
    number(row).is_some_and(|(of, number)| of == tag && number == wanted)
}

/// What is wrong with a row without a test of its own: `same as` names rows that have one.
fn reference(row: &str, rows: &[String]) -> Option<String> {
    if names(row).next().is_some() || row.contains("_*`") {
        return None;
    }
    let last = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
    let named = last.strip_prefix("same as ").or(last.strip_prefix("not served, see "));
    let mut tag = "";
    let words = named.unwrap_or_default().split([' ', ',', ':']);
    let references = words.map_while(|word| match word.parse::<usize>() {
        Ok(number) => Some(rows.iter().any(|row| is_row_of(row, tag, number) && names(row).next().is_some())),
        Err(_) if word == "and" => Some(true),
        Err(_) if SPECIFICATIONS.iter().any(|specification| specification.tag == word) => {
            tag = word;
            Some(true)
        }
        Err(_) => None,
    });
    let references: Vec<bool> = references.collect();
    let is_named = references.len() > 1 && references.iter().all(|exists| *exists);
    (!is_named).then(|| format!("the row `{row}` names no test, and no row that has one: correct the table"))
}

/// The rows of the table in the comment at the beginning of a file.
fn table(source: &str) -> Vec<&str> {
    let comment = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let rows = comment.filter(|line| line.starts_with('|'));
    rows.filter(|row| !row.starts_with("|---") && !row.starts_with("| MUST |")).collect()
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
        let source = "//! Text.\n//!\n//! | MUST | Section | Rule | Test |\n//! |---|---|---|---|\n\
                      //! | ID 1 | 2 | the `aud` MUST NOT | `a_1`, `tests/b/c.rs` |\n//!\n\nfn a() {}\n//! | no |\n";
        let rows = table(source);
        assert_eq!(rows, ["| ID 1 | 2 | the `aud` MUST NOT | `a_1`, `tests/b/c.rs` |"]);
        assert_eq!(names(rows[0]).collect::<Vec<_>>(), ["a_1", "tests/b/c.rs"]);
    }

    #[test]
    fn each_occurrence_has_one_row() {
        let of = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
        let check = |rows: &[&str]| totals(&specification("ID", "SPIFFE-ID.md", 2, 1), &of(rows)).len();
        let (one, two) = ("| ID 1 | 2 | MUST be | `a_1` |", "| ID 2 | 2 | MUST NOT be | `a_2` |");
        assert_eq!(check(&[one, two, "| ID – | 2 | may | `a_3` |", "| TDB 1 | 2 | MUST be | `a_4` |"]), 0);
        // One is missing, one is there twice, one is beyond, one says something else.
        for rows in [&[one][..], &[one, two, two], &[one, two, "| ID 3 | 2 | MUST | `a_5` |"]] {
            assert_ne!(check(rows), 0, "{rows:?}");
        }
        assert_eq!(check(&[one, "| ID 2 | 2 | MUST be | `a_2` |"]), 1);
    }

    #[test]
    fn a_row_without_a_test_names_one_that_has() {
        let rows =
            ["| ID 1 | 2 | MUST be | `a_1` |", "| ID 2 | 2 | MUST be | same as ID 1 |"].map(str::to_owned);
        let refused = |last: &str| reference(&format!("| ID 3 | 2 | MUST be | {last} |"), &rows).is_some();
        for last in
            ["same as ID 1", "same as ID 1 and 1, by handshake", "not served, see ID 1", "`a_1`", "`a_*`"]
        {
            assert!(!refused(last), "{last}");
        }
        for last in ["same as ID 2", "same as ID 9", "same as", "", "same as TDB 1", "ID 1"] {
            assert!(refused(last), "{last}");
        }
    }
}
