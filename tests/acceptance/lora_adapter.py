"""A LoRA adapter with random weights, and what its model says with it.

    ENGINE_PYTHON lora_adapter.py MODEL_FOLDER ADAPTER_FOLDER PROMPT TOKENS

writes the adapter, and prints the ids of the tokens that follow the prompt, as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

RANK, ALPHA = 4, 16
LAYERS = ("q_proj", "v_proj")


def make(model: Any, folder: Path) -> None:
    """Write the adapter, and merge it into the model."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(3)
    tensors = {}
    for place, layer in enumerate(model.model.layers):
        for name in LAYERS:
            weight = getattr(layer.self_attn, name).weight
            a = torch.randn(RANK, weight.shape[1])
            b = torch.randn(weight.shape[0], RANK) * 0.3
            weight.data += ALPHA / RANK * (b @ a)
            path = f"base_model.model.model.layers.{place}.self_attn.{name}"
            tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny-chat",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(LAYERS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def main(path: str, folder: str, prompt: str, tokens: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(path)
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    make(model, Path(folder))
    given = tokenizer(prompt, return_tensors="pt")
    number = int(tokens)
    ids = model.generate(
        given["input_ids"],
        do_sample=False,
        max_new_tokens=number,
        min_new_tokens=number,
        # Engines ignore the end of a text, and so may say it.
        eos_token_id=None,
    )[0, -number:]
    print(json.dumps(tokenizer.decode(ids)))


if __name__ == "__main__":
    main(*sys.argv[1:])
