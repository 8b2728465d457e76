//! The model against vectors of an independent reference, and damaged models.
//!
//! The tests with the real weights need `X0_MINILM`, the folder with config.json, tokenizer.json and
//! model.safetensors of all-MiniLM-L6-v2; without it they are skipped, and say so. The recorded vectors come
//! from a forward pass in numpy with 64-bit numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

use std::path::PathBuf;

use x0_ml::chunk::{ChunkOptions, Chunker};
use x0_ml::embed::{EmbedError, Embedder, LoadError, MiniLm, MiniLmOptions, Overflow};

/// Pearson's correlation of sentence-transformers 6.2 (torch 2.15) with the judgement of people.
const LEE: f64 = 0.656_367;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("X0_MINILM").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: X0_MINILM names no folder with the model");
    }
    folder
}

fn recorded() -> (Vec<String>, Vec<f32>) {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let texts = serde_json::from_slice(&std::fs::read(data.join("minilm-texts.json")).unwrap()).unwrap();
    let bytes = std::fs::read(data.join("minilm-vectors.f32")).unwrap();
    (texts, bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn vectors_are_those_of_the_reference() {
    let Some(folder) = folder() else { return };
    let model = MiniLm::from_folder(&folder, MiniLmOptions::new().pack_tokens(600)).unwrap();
    let (texts, expect) = recorded();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut vectors = vec![0.0; texts.len() * 384];
    let embedded = model.embed(&texts, &mut vectors).unwrap();
    assert_eq!((embedded.tokens, embedded.truncated), (8180, 0));
    let worst = vectors.chunks(384).zip(expect.chunks(384)).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
    eprintln!("least cosine to the reference: {worst:.9}");
    assert!(worst > 0.999_999, "{worst}");
}

/// The 50 documents of Lee, Pincombe and Welsh (2005), whose likeness people judged. `X0_LEE` names the
/// folder of gensim's test data, with `lee.cor` and `similarities0-1.txt`.
#[test]
fn the_judgement_of_people_is_met_as_by_the_reference() {
    let Some(folder) = folder() else { return };
    let Some(data) = std::env::var_os("X0_LEE").map(PathBuf::from) else {
        eprintln!("skipped: X0_LEE names no folder with lee.cor");
        return;
    };
    let documents: String =
        std::fs::read(data.join("lee.cor")).unwrap().into_iter().map(char::from).collect();
    let documents: Vec<&str> = documents.lines().collect();
    let judged = std::fs::read_to_string(data.join("similarities0-1.txt")).unwrap();
    let judged: Vec<f64> = judged.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!((documents.len(), judged.len()), (50, 2500));
    let model = MiniLm::from_folder(&folder, MiniLmOptions::new()).unwrap();
    let mut vectors = vec![0.0; 50 * 384];
    model.embed(&documents, &mut vectors).unwrap();
    let vector = |document: usize| &vectors[document * 384..][..384];
    let pairs: Vec<(f64, f64)> = (0..50)
        .flat_map(|a| (a + 1..50).map(move |b| (a, b)))
        .map(|(a, b)| (cosine(vector(a), vector(b)), judged[a * 50 + b]))
        .collect();
    let mean = |part: fn(&(f64, f64)) -> f64| pairs.iter().map(part).sum::<f64>() / pairs.len() as f64;
    let (found, people) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
        pairs.iter().map(|pair| term(pair.0 - found, pair.1 - people)).sum()
    };
    let correlation = sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    eprintln!("correlation over {} pairs: {correlation:.6}", pairs.len());
    assert!((correlation - LEE).abs() < 0.001, "{correlation}");
}

#[test]
fn the_model_keeps_the_contract_of_embedders() {
    let Some(folder) = folder() else { return };
    let model = MiniLm::from_folder(&folder, MiniLmOptions::new()).unwrap();
    x0_ml::conformance::embedder(&model);
    let long = "node ".repeat(600);
    let mut vector = vec![0.0; 384];
    let refused = model.embed(&[&long], &mut vector);
    assert!(matches!(refused, Err(EmbedError::TooLong { text: 0, tokens: 602, tokens_max: 512 })));
    let truncating = MiniLm::from_folder(&folder, MiniLmOptions::new().overflow(Overflow::Truncate)).unwrap();
    let embedded = truncating.embed(&[&long], &mut vector).unwrap();
    assert_eq!((embedded.tokens, embedded.truncated), (512, 1));
    let mut whole = vec![0.0; 384];
    model.embed(&["node ".repeat(510).as_str()], &mut whole).unwrap();
    assert!(cosine(&vector, &whole) > 0.999_999, "a truncated text keeps its special tokens");
    // Chunks of the model's own tokens fit the model.
    let text: String = recorded().0.concat();
    let chunks = Chunker::new(ChunkOptions::new(), model.tokens()).unwrap().chunks(&text).unwrap();
    assert!(chunks.len() > 10 && chunks.iter().all(|chunk| chunk.tokens <= 510));
}

/// A model of one layer with 4 components, written by hand.
fn small(dims: &[(&str, &[usize])], floats: impl Fn(usize) -> f32) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in dims {
        let start = data.len();
        for n in 0..shape.iter().product::<usize>() {
            data.extend(floats(n).to_le_bytes());
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

const CONFIG: &str = r#"{"model_type":"bert","hidden_act":"gelu","vocab_size":6,"hidden_size":4,"intermediate_size":8,
"num_hidden_layers":1,"num_attention_heads":2,"max_position_embeddings":8,"type_vocab_size":2,"layer_norm_eps":1e-12}"#;

const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"TemplateProcessing",
"single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],
"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":0}}],"special_tokens":{
"[CLS]":{"id":"[CLS]","ids":[1],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[2],"tokens":["[SEP]"]}}},"decoder":null,
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"\#\#","max_input_chars_per_word":100,
"vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"node":3,"link":4,"route":5}}}"#;

fn shapes() -> Vec<(&'static str, &'static [usize])> {
    vec![
        ("embeddings.word_embeddings.weight", &[6, 4]),
        ("embeddings.position_embeddings.weight", &[8, 4]),
        ("embeddings.token_type_embeddings.weight", &[2, 4]),
        ("embeddings.LayerNorm.weight", &[4]),
        ("embeddings.LayerNorm.bias", &[4]),
        ("encoder.layer.0.attention.self.query.weight", &[4, 4]),
        ("encoder.layer.0.attention.self.query.bias", &[4]),
        ("encoder.layer.0.attention.self.key.weight", &[4, 4]),
        ("encoder.layer.0.attention.self.key.bias", &[4]),
        ("encoder.layer.0.attention.self.value.weight", &[4, 4]),
        ("encoder.layer.0.attention.self.value.bias", &[4]),
        ("encoder.layer.0.attention.output.dense.weight", &[4, 4]),
        ("encoder.layer.0.attention.output.dense.bias", &[4]),
        ("encoder.layer.0.attention.output.LayerNorm.weight", &[4]),
        ("encoder.layer.0.attention.output.LayerNorm.bias", &[4]),
        ("encoder.layer.0.intermediate.dense.weight", &[8, 4]),
        ("encoder.layer.0.intermediate.dense.bias", &[8]),
        ("encoder.layer.0.output.dense.weight", &[4, 8]),
        ("encoder.layer.0.output.dense.bias", &[4]),
        ("encoder.layer.0.output.LayerNorm.weight", &[4]),
        ("encoder.layer.0.output.LayerNorm.bias", &[4]),
    ]
}

fn load(config: &str, tokenizer: &str, weights: Vec<u8>) -> Result<MiniLm, LoadError> {
    MiniLm::from_bytes(
        config.as_bytes(),
        tokenizer.replace("\\#", "#").as_bytes(),
        weights,
        MiniLmOptions::new(),
    )
}

fn number(n: usize) -> f32 {
    ((n * 7 + 3) % 11) as f32 / 11.0 - 0.4
}

#[test]
fn a_small_model_runs_and_wrong_parts_are_named() {
    let weights = small(&shapes(), number);
    let model = load(CONFIG, TOKENIZER, weights.clone()).unwrap();
    let mut vectors = vec![0.0; 8];
    let embedded = model.embed(&["node link", "route"], &mut vectors).unwrap();
    assert_eq!((embedded.tokens, model.dimensions(), model.tokens_max()), (7, 4, 8));
    assert!((vectors[..4].iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    let other = load(CONFIG, TOKENIZER, small(&shapes(), |n| number(n) + 0.1)).unwrap();
    assert_ne!(model.model(), other.model(), "other weights are another model");

    let config = |from: &str, to: &str| load(&CONFIG.replace(from, to), TOKENIZER, weights.clone());
    for (from, to) in [
        ("\"bert\"", "\"gpt2\""),
        ("\"gelu\"", "\"relu\""),
        ("_heads\":2", "_heads\":3"),
        ("_size\":6", "_size\":0"),
        ("1e-12", "2"),
        ("embeddings\":8", "embeddings\":2"),
        ("_layers\":1", "_layers\":1000"),
        ("{", ""),
    ] {
        assert!(matches!(config(from, to), Err(LoadError::Config { .. })), "{from} {to}");
    }
    assert!(matches!(config("vocab_size\":6", "vocab_size\":5"), Err(LoadError::Tokenizer { .. })));
    assert!(matches!(config("_layers\":1", "_layers\":2"), Err(LoadError::Weights { .. })));
    assert!(matches!(load(CONFIG, "{}", weights.clone()), Err(LoadError::Tokenizer { .. })));
    let no_special = TOKENIZER.replace("{\"SpecialToken\":{\"id\":\"[CLS]\",\"type_id\":0}},", "");
    assert!(matches!(load(CONFIG, &no_special, weights.clone()), Err(LoadError::Tokenizer { .. })));
    for missing in 0..shapes().len() {
        let mut shapes = shapes();
        let (name, _) = shapes.remove(missing);
        let error = load(CONFIG, TOKENIZER, small(&shapes, number)).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        shapes.push((name, &[3, 1]));
        assert!(load(CONFIG, TOKENIZER, small(&shapes, number)).is_err());
    }
    let infinite = small(&shapes(), |n| if n == 2 { f32::INFINITY } else { 0.1 });
    assert!(load(CONFIG, TOKENIZER, infinite).unwrap_err().to_string().contains("not finite"));
}

/// The numbers that the post-processor adds are in no vocabulary, and `tokenizers` does not check its
/// template.
#[test]
fn special_tokens_are_checked() {
    let weights = small(&shapes(), number);
    let second =
        "\"single\":[{\"SpecialToken\":{\"id\":\"[CLS]\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\"";
    let first = second.replace("\"B\"", "\"A\"");
    for (from, to, named) in [
        ("\"ids\":[1]", "\"ids\":[999999]", "999999"),
        ("\"ids\":[2]", "\"ids\":[6]", "number 6"),
        ("\"ids\":[1]", "\"ids\":[]", "0 ids"),
        ("\"[CLS]\":{\"id\"", "\"[GONE]\":{\"id\"", "[CLS]"),
        ("\"SpecialToken\":{\"id\":\"[SEP]\"", "\"SpecialToken\":{\"id\":\"[GONE]\"", "[GONE]"),
        (first.as_str(), second, "special token, A"),
    ] {
        assert!(TOKENIZER.contains(from), "{from}");
        let error = load(CONFIG, &TOKENIZER.replace(from, to), weights.clone()).unwrap_err();
        assert!(matches!(error, LoadError::Tokenizer { .. }) && error.to_string().contains(named), "{error}");
    }
    let start = TOKENIZER.find("{\"type\":\"TemplateProcessing\"").unwrap();
    let end = TOKENIZER.find(",\"decoder\"").unwrap();
    let bert =
        |cls: u32| format!("{{\"type\":\"BertProcessing\",\"sep\":[\"[SEP]\",2],\"cls\":[\"[CLS]\",{cls}]}}");
    let by = |processor: &str| {
        load(CONFIG, &TOKENIZER.replace(&TOKENIZER[start..end], processor), weights.clone())
    };
    let by_bert = |cls| by(&bert(cls));
    let vector = |model: &MiniLm| {
        let mut vector = [0.0; 4];
        model.embed(&["node link"], &mut vector).unwrap();
        vector
    };
    assert_eq!(vector(&by_bert(1).unwrap()), vector(&load(CONFIG, TOKENIZER, weights.clone()).unwrap()));
    for other in ["null", "{\"type\":\"Sequence\",\"processors\":[]}"] {
        assert!(by(other).unwrap_err().to_string().contains("BertProcessing"));
    }
    let normalized = |normalizer: &str| {
        let tokenizer = TOKENIZER.replace("\"normalizer\":null", &format!("\"normalizer\":{normalizer}"));
        load(CONFIG, &tokenizer, weights.clone())
    };
    assert!(normalized("{\"type\":\"Lowercase\"}").is_ok());
    for precompiled in [
        "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"xx\"}",
        "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\"}]}",
    ] {
        assert!(normalized(precompiled).unwrap_err().to_string().contains("precompiled"));
    }
    let other = TOKENIZER.replace("\"WordPiece\"", "\"WordLevel\"");
    assert!(load(CONFIG, &other, weights.clone()).unwrap_err().to_string().contains("not WordPiece"));
    assert!(by_bert(6).unwrap_err().to_string().contains("number 6"));
}

#[test]
fn damaged_tokenizers_are_errors_or_other_tokenizers() {
    let weights = small(&shapes(), number);
    for at in 0..TOKENIZER.len() {
        assert!(load(CONFIG, TOKENIZER.get(..at).unwrap_or_default(), weights.clone()).is_err());
        for byte in [b'0', b'9', b'B', b'"', b'}', b' '] {
            let mut damaged = TOKENIZER.as_bytes().to_vec();
            damaged[at] = byte;
            let Ok(damaged) = String::from_utf8(damaged) else { continue };
            if let Ok(model) = load(CONFIG, &damaged, weights.clone()) {
                // A text may be one that the other tokenizer cannot cut.
                let _ = model.embed(&["node link, other"], &mut [0.0; 4]);
            }
        }
    }
}

#[test]
fn damaged_weights_are_errors_or_other_weights() {
    let weights = small(&shapes(), number);
    for len in (0..weights.len()).step_by(13) {
        assert!(load(CONFIG, TOKENIZER, weights[..len].to_vec()).is_err());
    }
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize + 8;
    for at in 0..header {
        for flip in [0x01, 0x40, 0xff] {
            let mut damaged = weights.clone();
            damaged[at] ^= flip;
            if let Ok(model) = load(CONFIG, TOKENIZER, damaged) {
                model.embed(&["node link"], &mut [0.0; 4]).unwrap();
            }
        }
    }
}

#[test]
fn a_missing_folder_is_named() {
    let error = MiniLm::from_folder("/nonexistent", MiniLmOptions::new()).unwrap_err();
    assert!(matches!(error, LoadError::Io { name: "config.json", .. }), "{error}");
}
