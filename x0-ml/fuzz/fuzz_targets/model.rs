//! The files of a model: configuration, tokenizer, weights. The first byte chooses the file that is given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use x0_ml::embed::{MiniLm, MiniLmOptions};

const CONFIG: &[u8] = br#"{"model_type":"bert","hidden_act":"gelu","vocab_size":6,"hidden_size":4,"intermediate_size":8,
"num_hidden_layers":1,"num_attention_heads":2,"max_position_embeddings":8,"type_vocab_size":2,"layer_norm_eps":1e-12}"#;
const TOKENIZER: &[u8] = br###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"TemplateProcessing",
"single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],
"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":0}}],"special_tokens":{
"[CLS]":{"id":"[CLS]","ids":[1],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[2],"tokens":["[SEP]"]}}},"decoder":null,
"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
"vocab":{"[UNK]":0,"[CLS]":1,"[SEP]":2,"node":3,"link":4,"route":5}}}"###;
/// A header without tensors.
const WEIGHTS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

fuzz_target!(|data: &[u8]| {
    let Some((which, file)) = data.split_first() else { return };
    let (config, tokenizer, weights) = match which % 3 {
        0 => (file, TOKENIZER, WEIGHTS),
        1 => (CONFIG, file, WEIGHTS),
        _ => (CONFIG, TOKENIZER, file),
    };
    if let Ok(model) = MiniLm::from_bytes(config, tokenizer, weights.to_vec(), MiniLmOptions::new()) {
        use x0_ml::embed::Embedder;
        let mut vector = vec![0.0; model.dimensions()];
        let _ = model.embed(&["node link"], &mut vector);
    }
});
