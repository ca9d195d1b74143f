"""LoRA adapters: further models that engines of their base model answer for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelserver.values import ModelSpec


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


def find_base(name: str, models: "Iterable[ModelSpec]") -> str:
    """The model whose engines have the adapter of this name, "" where none has."""
    for model in models:
        if any(adapter.name == name for adapter in model.adapters):
            return model.name
    return ""
