//! A store in a folder, with nothing else running: `cargo run -p x0-kv --example embed -- /tmp/store`.

#[allow(clippy::print_stdout, reason = "a program")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let store = x0_kv::Store::open(folder)?;
    let before = store.get("starts").wait()?.map_or(0, |found| found.value.len());
    store.put("starts", vec![b'|'; before + 1]).wait()?;
    println!("started {} times", before + 1);
    Ok(())
}
