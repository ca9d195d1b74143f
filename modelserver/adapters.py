"""LoRA adapters: further models that engines of their base model answer for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """One LoRA adapter of a model."""

    #: By what name it is asked for.
    name: str
    #: A folder or a Hugging Face id.
    path: str

    def __str__(self) -> str:
        return f"{self.name} ({self.path})"


def engine_name(base: str, adapter: str) -> str:
    """By what name an engine is asked for one of its adapters.

    SGLang finds it by what follows the colon, vLLM by the whole name.
    """
    return f"{base}:{adapter}"


def find_base(name: str, adapters: Mapping[str, Sequence[LoraAdapter]]) -> str:
    """The model, of those in ``adapters``, that has one of this name, or "".

    >>> find_base("sql", {"qwen": [LoraAdapter("sql", "/lora/sql")]})
    'qwen'
    """
    for model, own in adapters.items():
        if any(adapter.name == name for adapter in own):
            return model
    return ""
