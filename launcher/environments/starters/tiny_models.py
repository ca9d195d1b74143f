"""Write two tiny models with random weights: an engine to try without a download.

    ENGINE_PYTHON tiny_models.py OUT_DIR

writes `OUT_DIR/tiny-chat` (completions and chat) and `OUT_DIR/tiny-embed` (the same
architecture, for `--is-embedding`). What they say means nothing; it is deterministic.

Run it with the interpreter of an engine environment: it needs torch, transformers and
tokenizers, and imports nothing of this project. A folder that is already complete is
left alone; an incomplete one never appears under its final name.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODEL_SEEDS = {"tiny-chat": 1, "tiny-embed": 2}
VOCABULARY = 4096
#: Tokens; far above what the tests send, so that an engine's own limit is the one met.
CONTEXT_TOKENS = 8192
#: Enough text for 4,096 tokens, and little enough to train in a second or two.
TRAINING_BYTES = 4_000_000
END_OF_TURN = "<|im_end|>"
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", END_OF_TURN]
#: What a complete folder holds, among others.
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def standard_library_text(limit_bytes: int) -> Iterator[str]:
    """Yield the standard library's modules in name order, up to `limit_bytes`."""
    total = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        yield text
        total += len(text)
        if total >= limit_bytes:
            return


def make_tokenizer() -> Any:
    """Train a byte-level BPE tokenizer, which any text passes through unharmed."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(standard_library_text(TRAINING_BYTES), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=SPECIAL_TOKENS[0],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_TOKENS,
    )


def make_model(seed: int, tokenizer: Any) -> Any:
    """Build a Qwen3 of 1.4 million parameters with weights drawn from `seed`."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config).to(torch.float32)


def is_complete(folder: Path) -> bool:
    return all((folder / file).is_file() for file in MODEL_FILES)


def write_model(folder: Path, seed: int, tokenizer: Any) -> None:
    """Write a complete model folder in one step: a sibling, then a rename."""
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make_model(seed, tokenizer).save_pretrained(building)
        tokenizer.save_pretrained(building)
        # mkdtemp and safetensors keep other users out; an engine may run as one.
        building.chmod(0o755)
        for file in building.iterdir():
            file.chmod(0o644)
        put_in_place(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def put_in_place(building: Path, folder: Path) -> None:
    """Rename `building` to `folder`, unless another process was faster."""
    if not is_complete(folder):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        building.rename(folder)
    except OSError:
        if not is_complete(folder):
            raise


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: tiny_models.py OUT_DIR", file=sys.stderr)
        return 2
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in MODEL_SEEDS if not is_complete(out / name)]
    if not missing:
        return 0
    # Nothing here is looked up on a hub; offline mode makes that certain.
    os.environ["HF_HUB_OFFLINE"] = "1"
    tokenizer = make_tokenizer()
    for name in missing:
        write_model(out / name, MODEL_SEEDS[name], tokenizer)
        print(f"wrote {out / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
