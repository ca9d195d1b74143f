"""Small encoders with random weights, and the vectors that they should give.

    ENGINE_PYTHON encoders.py FOLDER < TEXTS

writes two models of BERT's kind below FOLDER, which differ in the pooling that they ask
for: `mean` as a folder, and the id `tests/cls` in the hub's cache `hub`. Prints the
vectors of the texts (a JSON list) by each, one text at a time, as sentence-transformers
computes them.
"""

import json
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LETTERS = string.ascii_lowercase + string.digits + string.punctuation
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS]
MODULES = "sentence_transformers.models."


def make() -> tuple[Any, Any]:
    """A tokenizer of letters, and a model whose vectors differ between texts."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [*WORDS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {word: number for number, word in enumerate(words)}
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        initializer_range=0.3,
    )
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=512)
    return tokenizer, BertModel(config).eval()


def write(folder: Path, tokenizer: Any, model: Any, pooling: str) -> None:
    """Write it with sentence-transformers' files, which say how to pool."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    # As every published encoder says; transformers 5 leaves it out.
    config["position_embedding_type"] = "absolute"
    # As those say that were trained for vectors of several lengths.
    config["matryoshka_dimensions"] = [16, 64, 128]
    (folder / "config.json").write_text(json.dumps(config))
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": MODULES + kind}
        for number, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    asked = {"word_embedding_dimension": 128, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(asked))


def vectors(tokenizer: Any, model: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The vectors of each text alone, by the first token and by the mean of all."""
    import torch

    found: dict[str, Any] = {"cls": [], "mean": []}
    with torch.no_grad():
        for text in texts:
            tokens = tokenizer(text, return_tensors="pt", truncation=True)
            states = model(**tokens).last_hidden_state[0]
            for name, pooled in (("cls", states[0]), ("mean", states.mean(0))):
                vector = torch.nn.functional.normalize(pooled, dim=0)
                found[name].append(vector.tolist())
    return found


def main(folder: Path) -> None:
    texts = json.load(sys.stdin)
    tokenizer, model = make()
    write(folder / "mean", tokenizer, model, "mean_tokens")
    hub = folder / "hub" / "models--tests--cls"
    commit = "0" * 40
    write(hub / "snapshots" / commit, tokenizer, model, "cls_token")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(commit)
    print(json.dumps(vectors(tokenizer, model, texts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
