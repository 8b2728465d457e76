//! Validating the chain of a peer, beside bare webpki, which knows no rule of SPIFFE.

use std::hint::black_box;

use anyhow::{Context, Result};
use rustls::pki_types::UnixTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x0_identity::Verifier;

use super::{DAY, Options, TIME, authority, each, id, in_turns};
use crate::case::Case;

/// The most that validating may take, as a multiple of webpki in the same turn.
const MOST: f64 = 1.15;

pub(super) fn run(options: &Options) -> Result<Case> {
    let authority = authority()?;
    let svid = authority.issue(&id("web")?, DAY)?;
    let (leaf, signers) = svid.chain().split_first().context("a chain")?;
    let verifier = Verifier::new(authority.bundle());
    let anchor = anchor_from_trusted_cert(authority.certificate())?;
    let anchors = [anchor];
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let count = options.count(10_000);
    let how = format!("{count} chains of one leaf (ECDSA P-256) in each turn, one thread.");
    let systems = ["x0-identity", "rustls-webpki 0.103"].map(str::to_owned).to_vec();
    let mut case = Case::new("identity", "validate a chain", how, systems);
    let now = UnixTime::now();
    in_turns(
        &mut case,
        TIME,
        options.turns,
        &mut [
            &mut || {
                each(count, || {
                    black_box(verifier.verify_client(black_box(leaf), signers, now)?);
                    Ok(())
                })
            },
            &mut || {
                each(count, || {
                    let leaf = EndEntityCert::try_from(black_box(leaf))?;
                    let usage = KeyUsage::client_auth();
                    black_box(leaf.verify_for_usage(algorithms, &anchors, signers, now, usage, None, None)?);
                    Ok(())
                })
            },
        ],
    )?;
    let ratio = case.paired_ratio(TIME, 0, 1);
    case.aim("validating beside webpki in the same turn", ratio, MOST, "x");
    Ok(case)
}
