# The commands that a maintainer types: `just --list`. CONTRIBUTING.md describes them.

# Compile every target with every feature
check:
    cargo check --workspace --all-targets --all-features

# Run all tests
test *arguments:
    cargo test --workspace {{arguments}}

# Format the code and wrap the comments
fmt:
    cargo fmt --all
    cargo xtask comments --fix

# Lint, with warnings as errors
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    cargo xtask unused

# Write the public API of each library crate to its public-api.txt
api:
    cargo xtask api

# Build the documentation as docs.rs does
doc:
    RUSTC_BOOTSTRAP=1 RUSTDOCFLAGS="--cfg docsrs -D warnings" cargo doc --workspace --all-features --no-deps --target-dir target/docsrs

# Write a CycloneDX bill of materials to target/sbom
sbom:
    cargo xtask sbom

# Run the demo
demo *arguments:
    cargo run --release -p x0-node -- demo {{arguments}}

# Draw the pictures of the readme again: the crates, and the demo as a recorded terminal
pictures:
    cargo xtask diagram
    cargo build --release -p x0-node
    cargo xtask record --title "cargo run --release -p x0-node -- demo" -- target/release/x0-node demo

# Measure, side by side with peers
bench *arguments:
    cargo run --release -p x0-bench -- {{arguments}}

# Everything that CI runs
ci:
    bash .ci/run
