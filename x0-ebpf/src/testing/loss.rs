//! Losses of a pair.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

use super::namespace::Namespace;
use super::veth::{VethEnd, VethError, VethPair};

impl VethPair {
    /// Sets the share of the frames arriving at the left end and of those arriving at the right end that is
    /// lost, in percent: 0 ends the losses, 100 is a silent cut. The sender notices nothing. Both ends change
    /// within about a millisecond, the right one first.
    ///
    /// Runs the program `nft` of the package nftables. Frames are lost at random, and in batches as long as
    /// the sending end has generic segmentation offload.
    ///
    /// # Errors
    ///
    /// [`VethError::Namespace`], [`VethError::Nft`]; one of the two ends may have changed.
    pub fn set_loss(&mut self, left: u32, right: u32) -> Result<(), VethError> {
        let [left_namespace, right_namespace] = self.namespaces();
        let ends = [(right_namespace, self.right(), right), (left_namespace, self.left(), left)];
        let mut programs = Vec::new();
        for (namespace, end, percent) in ends {
            programs.push((start(namespace, end)?, end, rules(end.name(), percent)));
        }
        // Both programs have started and wait for their rules, so that both ends change at nearly the same
        // time.
        for (program, end, rules) in &mut programs {
            write(program, rules).map_err(|source| refused(end, source))?;
        }
        for (program, end, _) in programs {
            finish(program).map_err(|source| refused(end, source))?;
        }
        Ok(())
    }
}

fn refused(end: &VethEnd, source: io::Error) -> VethError {
    VethError::Nft { name: end.name().to_owned(), source }
}

fn start(namespace: &Namespace, end: &VethEnd) -> Result<Child, VethError> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A program runs in the namespace of the thread that starts it.
    namespace.run(|| command.spawn())?.map_err(|source| refused(end, source))
}

fn write(program: &mut Child, rules: &str) -> io::Result<()> {
    // The program begins when its input ends.
    program.stdin.take().map_or(Ok(()), |mut input| input.write_all(rules.as_bytes()))
}

fn finish(program: Child) -> io::Result<()> {
    let output = program.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A table of its own for each end, which replaces that of an earlier call.
fn rules(device: &str, percent: u32) -> String {
    let mut rules = format!("add table netdev {device}\ndelete table netdev {device}\n");
    let drop = match percent {
        0 => return rules,
        1..100 => format!("numgen random mod 100 < {percent} drop"),
        _ => "drop".to_owned(),
    };
    rules.push_str(&format!(
        "table netdev {device} {{\n chain arriving {{\n  type filter hook ingress device {device} priority 0;\n  {drop}\n }}\n}}\n"
    ));
    rules
}
