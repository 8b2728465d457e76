//! Calls each method of a Workload API with `spiffe` of crates.io, and prints what came.

use futures_util::StreamExt;
use spiffe::{SpiffeId, WorkloadApiClient, WorkloadApiError, X509Svid};

fn tail(svid: &X509Svid) -> String {
    let leaf = svid.leaf().as_bytes();
    leaf[leaf.len() - 16..].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn joined(words: impl IntoIterator<Item = String>) -> String {
    words.into_iter().collect::<Vec<_>>().join(" ")
}

fn sorted(words: impl IntoIterator<Item = String>) -> String {
    let mut words: Vec<String> = words.into_iter().collect();
    words.sort();
    words.join(" ")
}

/// The code of the status as other clients print it.
fn code(error: &WorkloadApiError) -> &'static str {
    let text = format!("{error:?}");
    if text.contains("InvalidArgument") {
        "INVALID_ARGUMENT"
    } else if text.contains("PermissionDenied") {
        "PERMISSION_DENIED"
    } else {
        panic!("{text}")
    }
}

async fn calls(address: &str) -> Result<(), WorkloadApiError> {
    let client = WorkloadApiClient::connect_to(address).await?;
    let svid = client.fetch_x509_svid().await?;
    println!("svid {} {}", svid.spiffe_id(), tail(&svid));
    let svids = client.fetch_all_x509_svids().await?;
    println!("svids {}", joined(svids.iter().map(|svid| svid.spiffe_id().to_string())));
    let bundles = client.fetch_x509_bundles().await?;
    let count = bundles.iter().map(|(name, bundle)| format!("{name}={}", bundle.authorities().len()));
    println!("bundles {}", sorted(count));
    let bundles = client.fetch_jwt_bundles().await?;
    let count = bundles.iter().map(|(name, bundle)| format!("{name}={}", bundle.jwt_authorities().count()));
    println!("jwt-bundles {}", sorted(count));
    let web = SpiffeId::new("spiffe://example.org/web").expect("a SPIFFE ID");
    let token = client.fetch_jwt_svid(["reports"], Some(&web)).await?;
    println!("jwt-svid {}", token.spiffe_id());
    let tokens = client.fetch_all_jwt_svids(["reports"], None).await?;
    println!("jwt-svids {}", joined(tokens.iter().map(|svid| svid.spiffe_id().to_string())));
    println!("valid {}", client.validate_jwt_token("reports", token.token()).await?.spiffe_id());
    let invalid = client.validate_jwt_token("other", token.token()).await;
    println!("invalid {}", code(&invalid.expect_err("a token for another audience")));

    let mut contexts = Box::pin(client.stream_x509_contexts().await?);
    loop {
        match contexts.next().await {
            Some(Ok(context)) => println!("update {}", tail(context.default_svid().expect("an SVID"))),
            Some(Err(error)) => break println!("ended {}", code(&error)),
            None => panic!("the stream ended without a status"),
        }
    }
    Ok(())
}

fn main() {
    let address = std::env::args().nth(1).expect("the address of the endpoint");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if let Err(error) = runtime.block_on(calls(&address)) {
        panic!("{error:?}");
    }
}
