"""Let SGLang start on a machine without a GPU, and start quickly.

Python imports `sitecustomize` at every start, also in the processes that the engine
starts. This one does three things, and costs nothing where none is wanted.

1. Torchvision beside a CPU build of torch. Torchvision's usual wheel carries operators
   compiled against CUDA. Beside a CPU build of torch they do not load, and its import
   fails with "operator torchvision::nms does not exist", although SGLang only needs its
   Python part. Just before torchvision is imported, the two operators that the import
   looks up are declared (not implemented). Beside a CUDA build nothing is done.

2. Children by fork, where MODELSERVER_ENGINE_FORK is 1. SGLang starts its scheduler and
   its detokenizer with multiprocessing's "spawn", which CUDA needs, and each child
   imports torch and SGLang again: 6 s of processor time each, most of a start. Without
   CUDA a forked child has it all already. Measured on 2 cores, two engines at once:
   8 to 11 s to the first answer instead of 21 s.

3. Memory that is not pinned, where MODELSERVER_ENGINE_UNPINNED is 1. SGLang's LoRA
   layers ask for pinned memory on a CPU as well, which a CPU build of torch refuses.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_kept_alive: list[object] = []


class _BeforeTorchvision:
    """A finder that finds nothing: it acts on the first import of torchvision."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            _declare_operators()
        return None


def _declare_operators() -> None:
    import torch

    if torch.version.cuda is not None:
        return
    if os.environ.get("MODELSERVER_ENGINE_UNPINNED") == "1":
        _pin_nothing()
    # A library that is garbage-collected takes its operators with it.
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(library)


def _pin_nothing() -> None:
    import torch

    def unpinned(make: Any) -> Any:
        def call(*given: Any, pin_memory: bool = False, **named: Any) -> torch.Tensor:
            return make(*given, **named)

        return call

    for name in ("tensor", "zeros", "ones", "empty", "full"):
        setattr(torch, name, unpinned(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda tensor, *given: tensor


def _fork_instead_of_spawn() -> None:
    import multiprocessing

    choose = multiprocessing.set_start_method

    def choose_fork(method: str | None, force: bool = False) -> None:
        choose("fork" if method == "spawn" else method, force)

    multiprocessing.set_start_method = choose_fork


sys.meta_path.insert(0, _BeforeTorchvision())
if os.environ.get("MODELSERVER_ENGINE_FORK") == "1":
    _fork_instead_of_spawn()
