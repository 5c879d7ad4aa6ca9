"""Writes the models that the peers run, one folder each, and what every peer needs of them.

    python models.py FOLDER

    bert-tiny   the model embedded in this repository: hidden 128, 2 layers, 2 heads, vocabulary 2048
    minilm      sentence-transformers/all-MiniLM-L6-v2 from the local hub cache (HF_HOME), nothing is downloaded
    bert-base   random weights of BERT-base's shape, seeded
    roberta-base, distilbert-base, mpnet-base, modernbert-base   the same of these shapes, model.onnx alone

Each folder has config.json, model.safetensors and, of the same weights,
    model.onnx      torch's TorchScript exporter, opset 17, dynamic batch and sequence: what is deployed (the first two come with it)
    optimized.onnx  the same, fused by ONNX Runtime's transformers optimizer
    opset14.onnx    exported at opset 14: stock candle-onnx has no LayerNormalization

2.1 GB, and 3.8 GB of the other families; bert-base is 440 MB a file. Never commit it.
With a name behind FOLDER only that model is made.
"""

import logging
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from huggingface_hub import snapshot_download
from onnxruntime.transformers import optimizer
from transformers import AutoModel, BertConfig, BertModel, DistilBertConfig, ModernBertConfig, MPNetConfig, RobertaConfig

REPOSITORY = Path(__file__).resolve().parents[4]
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
OUTPUTS = ["last_hidden_state", "pooler_output"]

# Weights of which attention is not nearly uniform (scores of standard deviation 1 at this width) and LayerNorm not nearly the
# identity: a model at BERT's own initializer_range of 0.02 would compute means, and hide what an engine gets wrong.
WEIGHT_STD = 0.04
BIAS_STD = 0.05
SEED = 7

# Export against PyTorch, both f32. A wrong graph of these weights is off by 1e-2 and more.
SANE_ATOL = 1e-4


# The published shapes: what these classes have by default is not always theirs.
FAMILIES = {
    "roberta-base": RobertaConfig(max_position_embeddings=514, type_vocab_size=1, vocab_size=50265, layer_norm_eps=1e-5),
    "distilbert-base": DistilBertConfig(),
    "mpnet-base": MPNetConfig(max_position_embeddings=514, layer_norm_eps=1e-5),
    "modernbert-base": ModernBertConfig(reference_compile=False),
}


def randomised(model):
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                weight.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                weight.normal_(0.0, BIAS_STD)
            else:
                weight.normal_(0.0, WEIGHT_STD)
    return model.eval()


def bert_base():
    torch.manual_seed(SEED)
    return randomised(BertModel(BertConfig(), add_pooling_layer=True))


class HiddenStates(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def make_family(folder, config):
    """A model of ids and mask alone. Opset 18: below it ModernBERT's attention has no export."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    attention = "eager" if config.model_type == "mpnet" else "sdpa"
    model = randomised(AutoModel.from_config(config, attn_implementation=attention))
    model.save_pretrained(folder)
    inputs = {name: value for name, value in trace_inputs(config).items() if name != "token_type_ids"}
    axes = {name: {0: "batch", 1: "sequence"} for name in [*inputs, "last_hidden_state"]}
    path = folder / "model.onnx"
    torch.onnx.export(
        HiddenStates(model).eval(),
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=["last_hidden_state"],
        dynamic_axes=axes,
        opset_version=18,
        dynamo=False,
    )
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (hidden,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    distance = np.abs(hidden - expected)[inputs["attention_mask"].bool().numpy()].max()
    assert distance < SANE_ATOL, f"{path} is {distance:.1e} away from PyTorch"
    print(f"{path}: {distance:.1e} from PyTorch")


def load(folder):
    return BertModel.from_pretrained(folder, attn_implementation="eager").eval()


class PlainOutputs(torch.nn.Module):
    """Tensors in a fixed order in place of transformers' output class."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return output.last_hidden_state, output.pooler_output


def trace_inputs(config):
    """Two rows of unequal length: sizes of 1 would be taken for broadcasts, and a full mask for none."""
    ids = torch.arange(16).reshape(2, 8) % config.vocab_size
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def export(model, opset, path):
    axes = {name: {0: "batch", 1: "sequence"} for name in [*INPUTS, "last_hidden_state"]}
    inputs = trace_inputs(model.config)
    torch.onnx.export(
        PlainOutputs(model).eval(),
        tuple(inputs[name] for name in INPUTS),
        str(path),
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_axes=axes | {"pooler_output": {0: "batch"}},
        opset_version=opset,
        dynamo=False,
    )


def optimize(source, config, path):
    """Without ONNX Runtime's own pass, which is applied at load whatever the file, and which would tie the file to this CPU."""
    fused = optimizer.optimize_model(
        str(source), "bert", config.num_attention_heads, config.hidden_size, opt_level=0, use_gpu=False
    )
    fused.save_model_to_file(str(path))


def check(model, path):
    """The file computes what PyTorch computes, and says what it consists of."""
    inputs = trace_inputs(model.config)
    real = inputs["attention_mask"].bool().numpy()
    with torch.no_grad():
        expected = model(**inputs)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    hidden, pooled = session.run(OUTPUTS, {name: value.numpy() for name, value in inputs.items()})
    distance = max(
        np.abs(hidden - expected.last_hidden_state.numpy())[real].max(), np.abs(pooled - expected.pooler_output.numpy()).max()
    )
    assert distance < SANE_ATOL, f"{path} is {distance:.1e} away from PyTorch"
    ops = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    fused = [op for op in ("Attention", "SkipLayerNormalization", "LayerNormalization", "BiasGelu", "Gelu") if op in ops]
    print(f"{path}: {len(ops)} nodes, {', '.join(f'{ops.count(op)} {op}' for op in fused)}; {distance:.1e} from PyTorch")


def make(folder, source):
    """`source` has config.json, model.safetensors and perhaps onnx/model.onnx and tokenizer.json; None for random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    if source is None:
        bert_base().save_pretrained(folder)
    else:
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            shutil.copyfile(source / file, folder / file)
    model = load(folder)
    raw = folder / "model.onnx"
    if source is None:
        export(model, 17, raw)
    else:
        shutil.copyfile(source / "onnx" / "model.onnx", raw)
    optimize(raw, model.config, folder / "optimized.onnx")
    export(model, 14, folder / "opset14.onnx")
    for file in ("model.onnx", "optimized.onnx", "opset14.onnx"):
        check(model, folder / file)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    logging.getLogger("onnxruntime").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    folder, only = Path(sys.argv[1]), sys.argv[2:]
    for name, config in FAMILIES.items():
        if only in ([], [name]):
            make_family(folder / name, config)
    if only in ([], ["bert-tiny"]):
        make(folder / "bert-tiny", REPOSITORY / "models" / "bert-tiny")
    if only in ([], ["minilm"]):
        minilm = snapshot_download("sentence-transformers/all-MiniLM-L6-v2", local_files_only=True)
        make(folder / "minilm", Path(minilm))
    if only in ([], ["bert-base"]):
        make(folder / "bert-base", None)


if __name__ == "__main__":
    main()
