"""The part of the fleet file about LoRA adapters."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

from modelserver.adapters import LoraAdapter
from modelserver.fleet.names import Name
from modelserver.values import Kind

#: The types of engines that are told of adapters.
ENGINES = ("sglang", "sglang-cpu", "vllm", "vllm-cpu")


class AdapterSection(BaseModel):
    """``[[models.adapters]]``: a LoRA adapter, asked for as a model of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: By what name it is asked for.
    name: Name
    #: A folder or a Hugging Face id.
    path: str = Field(min_length=1)

    def plain(self) -> LoraAdapter:
        """The same as a plain value."""
        return LoraAdapter(self.name, self.path)


def adapter_disagreements(
    engine: str, kind: Kind, adapters: Sequence[AdapterSection]
) -> Iterator[str]:
    """Why a model cannot have these adapters."""
    if not adapters:
        return
    if engine not in ENGINES:
        yield f'engine "{engine}" knows no adapters; leave them out'
    if kind is not Kind.COMPLETION:
        yield f"adapters are for completion models, and this is one for {kind}"
