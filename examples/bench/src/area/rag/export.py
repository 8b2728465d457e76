# Writes the model as ONNX.
import sys

import torch
import transformers

model, to = sys.argv[1:3]
bert = transformers.AutoModel.from_pretrained(model, attn_implementation="eager").eval()


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state


names = ["input_ids", "attention_mask", "token_type_ids"]
example = tuple(torch.ones(2, 8, dtype=torch.long) for _ in names)
axes = {name: {0: "texts", 1: "tokens"} for name in [*names, "states"]}
torch.onnx.export(
    Encoder(), example, to, input_names=names, output_names=["states"], dynamic_axes=axes, dynamo=False, opset_version=17
)
