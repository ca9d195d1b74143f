"""Stand in for SGLang's compiled kernels on a machine without a GPU.

SGLang imports names from `sgl_kernel` while it loads its models, whatever the device.
The real package links against libcuda, so on a machine without a driver its import
fails ("Could not load any common_ops library … libcuda.so.1") and the engine with it.

A name that ends in `_cpu` is answered by a function that raises NotImplementedError
when it is called: SGLang imports some of these, and calls none of them with the
`torch_native` attention backend. Every other name raises AttributeError, so that
SGLang's own checks for missing kernels keep working.
"""

from collections.abc import Callable
from typing import NoReturn


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if not name.endswith("_cpu"):
        raise AttributeError(f"the sgl_kernel stand-in has no {name!r}")

    def absent(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"sgl_kernel.{name} is a stand-in without a kernel; "
            "start SGLang with --attention-backend torch_native"
        )

    absent.__name__ = name
    return absent
