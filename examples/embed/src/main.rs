//! Counts its starts in a store: `cargo run -p x0-example-embed -- FOLDER`. With `idle` as second argument it
//! keeps running.
use x0_kv::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: x0-example-embed FOLDER [idle]")?;
    let store = Store::open(folder)?;
    let before = store.get("starts").wait()?.map_or(0, |found| found.value.len());
    store.put("starts", vec![b'|'; before + 1]).wait()?;
    eprintln!("started {} times", before + 1);
    if std::env::args().nth(2).as_deref() == Some("idle") {
        std::thread::park();
    }
    Ok(())
}
