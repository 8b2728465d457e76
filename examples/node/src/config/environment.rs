//! Values of node.toml that come from the environment, so that the pods of a set share one file.
//!
//! | variable | value | replaces |
//! |---|---|---|
//! | `X0_NODE_ID` | 16 hexadecimal digits, or a name that ends in an ordinal: `x0-0` is node 1 | `node` |
//! | `X0_LISTEN` | IP:PORT | `listen` |
//! | `X0_DATA_DIR` | a path | `data_dir` |
//! | `X0_SVID` | a path | `svid` |
//! | `X0_MEMBERS` | `1=ADDRESS,2=ADDRESS,...` | all `[[members]]` |

use toml::{Table, Value};

/// The values of the environment, as the file would have them.
pub(super) fn overrides(variable: impl Fn(&str) -> Option<String>) -> Result<Table, String> {
    let mut table = Table::new();
    if let Some(text) = variable("X0_NODE_ID") {
        table.insert("node".into(), Value::String(node(&text)?));
    }
    for (name, key) in [("X0_LISTEN", "listen"), ("X0_DATA_DIR", "data_dir"), ("X0_SVID", "svid")] {
        if let Some(text) = variable(name) {
            table.insert(key.into(), Value::String(text));
        }
    }
    if let Some(text) = variable("X0_MEMBERS") {
        let members = text.split(',').map(|part| {
            let (number, address) = part.split_once('=')?;
            let number: u64 = number.trim().parse().ok().filter(|number| *number > 0)?;
            let mut member = Table::new();
            member.insert("node".into(), Value::String(format!("{number:016x}")));
            member.insert("address".into(), Value::String(address.trim().to_owned()));
            Some(Value::Table(member))
        });
        let members = members.collect::<Option<Vec<_>>>().ok_or_else(|| {
            format!(
                "the variable X0_MEMBERS is `{text}`: write 1=ADDRESS,2=ADDRESS with the numbers of the nodes"
            )
        })?;
        table.insert("members".into(), Value::Array(members));
    }
    Ok(table)
}

/// The id that a text names: itself, or the ordinal at its end and one.
fn node(text: &str) -> Result<String, String> {
    if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_owned());
    }
    let ordinal = text.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse::<u64>().ok());
    ordinal.and_then(|ordinal| ordinal.checked_add(1)).map(|number| format!("{number:016x}")).ok_or_else(|| {
        format!(
            "the variable X0_NODE_ID is `{text}`: write the id of the node, or the name of a pod with its ordinal, such as x0-0"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Table, String> {
        overrides(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn variables_become_values_of_the_file() {
        assert!(of(&[]).unwrap().is_empty());
        let table =
            of(&[("X0_NODE_ID", "x0-2"), ("X0_LISTEN", "10.0.0.1:7401"), ("X0_DATA_DIR", "/data")]).unwrap();
        assert_eq!(table["node"].as_str(), Some("0000000000000003"));
        assert_eq!(
            (table["listen"].as_str(), table["data_dir"].as_str()),
            (Some("10.0.0.1:7401"), Some("/data"))
        );
        assert_eq!(
            of(&[("X0_NODE_ID", "00000000000000ab")]).unwrap()["node"].as_str(),
            Some("00000000000000ab")
        );
        let table = of(&[("X0_MEMBERS", "1=x0-0.x0:7401, 2=10.0.0.2:7401")]).unwrap();
        let members = table["members"].as_array().unwrap();
        assert_eq!(members[0]["address"].as_str(), Some("x0-0.x0:7401"));
        assert_eq!(members[1]["node"].as_str(), Some("0000000000000002"));
    }

    #[test]
    fn wrong_values_name_the_variable() {
        for (name, value) in
            [("X0_NODE_ID", "pod"), ("X0_NODE_ID", "x0-"), ("X0_MEMBERS", "a"), ("X0_MEMBERS", "0=a:1")]
        {
            assert!(of(&[(name, value)]).unwrap_err().contains(name), "{name}={value}");
        }
    }
}
