"""LoRA adapters: further models that engines of their base model answer for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: How the fields of a request begin by which engines take an adapter beside the model:
#: SGLang's ``lora_path``, and what others have.
_FIELDS = ("lora", "adapter")


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


def find_adapter_field(body: Mapping[str, Any]) -> str:
    """The field by which a request names an adapter beside its model, "" for none.

    >>> find_adapter_field({"top_k": 5, "extra_body": {"lora_path": "sql"}})
    'lora_path'
    """
    for name, value in body.items():
        if name.lower().startswith(_FIELDS) and value is not None:
            return name
    extra = body.get("extra_body")
    return find_adapter_field(extra) if isinstance(extra, Mapping) else ""


def find_base(name: str, adapters: Mapping[str, Sequence[LoraAdapter]]) -> str:
    """The model, of those in ``adapters``, that has one of this name, or "".

    >>> find_base("sql", {"qwen": [LoraAdapter("sql", "/lora/sql")]})
    'qwen'
    """
    for model, own in adapters.items():
        if any(adapter.name == name for adapter in own):
            return model
    return ""
