# One embedder in a process of its own: the time to the first vector, then all texts; prints one JSON object.
import json
import os
import sys
import time

system, model, texts, vectors, batch = sys.argv[1:6]
begun = float(os.environ["X0_BENCH_BEGUN"])
with open(texts) as file:
    texts = json.load(file)


def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if system == "torch":
    import sentence_transformers
    import torch

    torch.set_num_threads(1)
    name = f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    transformer = sentence_transformers.SentenceTransformer(model, device="cpu")
    transformer.max_seq_length = 512

    def embed(texts):
        return transformer.encode(texts, batch_size=int(batch), normalize_embeddings=True, show_progress_bar=False)

else:
    import numpy
    import onnxruntime
    import tokenizers

    name = "onnxruntime " + onnxruntime.__version__
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(f"{vectors}.onnx", settings, providers=["CPUExecutionProvider"])
    tokenizer = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()

    def embed(texts):
        found = numpy.zeros((len(texts), 384), "float32")
        order = sorted(range(len(texts)), key=lambda text: -len(texts[text]))
        for first in range(0, len(order), int(batch)):
            some = order[first : first + int(batch)]
            coded = tokenizer.encode_batch([texts[text] for text in some])
            ids = numpy.array([text.ids for text in coded], "int64")
            mask = numpy.array([text.attention_mask for text in coded], "int64")
            inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
            states = session.run(None, inputs)[0]
            rows = (states * mask[:, :, None]).sum(1)
            found[some] = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
        return found


embed(["The first text."])
first_s, first_cpu_s = time.time() - begun, time.process_time()
embed(texts[:20])
cpu = time.process_time()
found = embed(texts)
used = time.process_time() - cpu
found.astype("float32").tofile(vectors)
report = {
    "name": name,
    "per_s": len(texts) / used,
    "first_s": first_s,
    "first_cpu_s": first_cpu_s,
    "memory_mb": status("VmRSS") / 1e6,
    "peak_mb": status("VmHWM") / 1e6,
}
print(json.dumps(report))
