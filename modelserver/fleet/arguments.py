"""The part of the fleet file about engines' own arguments: which are not to be given.

Engines run under supervision: at an address, under a name, with a key and on GPUs that
the launcher gives them. Pure.
"""

import string
from collections.abc import Iterable, Iterator, Sequence

#: What stands in ``command`` for what is known right before a start.
PLACEHOLDERS = (
    *("port", "host", "model", "path", "index", "gpus"),
    *("node", "nodes", "meeting"),
)
#: Variables of ``environment`` that are the launcher's to set.
OUR_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"),
)
#: Characters of an argument that argparse can tell from all others.
SHORTEST = len("--ho")
_PORT = "an engine's port is chosen by the launcher, or given by port in [[engines]]"
_HOST = "engines listen on 127.0.0.1, where their worker and launcher ask them"
_TLS = "engines are asked on 127.0.0.1 without TLS"
_NAME = "requests ask for an engine by name, the key of its section"
_KEY = "every user of the host could read it; an engine gets a key by itself"
_CONFIG = "what such a file says would go unseen; give its arguments here"
_MODEL = "path says which model it is"
_RAY = "processes of Ray outlive their engine; leave it out"
_GPUS = "say by gpus how many an engine gets, or which by gpus in [[engines]]"
_PROTOCOL = "engines are asked by HTTP"
_RANK = "an engine does not wait for others; say by data_parallel how many it has"
_HOSTS = "say by nodes how many hosts an engine takes; the launchers see to the rest"
#: Arguments of both engines, and why they are refused. ``*`` stands for any ending.
_BOTH = {
    "--port": _PORT,
    "--host": _HOST,
    "--uds": _HOST,
    "--ssl-*": _TLS,
    "--enable-ssl-*": _TLS,
    "--served-model-name": _NAME,
    "--api-key": _KEY,
    "--config": _CONFIG,
    "--model": _MODEL,
    "--nnodes": _HOSTS,
    "--node-rank": _HOSTS,
}
#: The same by the engine's name before any "-cpu".
REFUSED = {
    "sglang": _BOTH
    | {
        "--admin-api-key": _KEY,
        "--dist-init-addr": _HOSTS,
        "--model-path": _MODEL,
        "--tokenizer-worker-num": "above 1 SGLang asks nobody for its key",
        "--grpc-mode": _PROTOCOL,
        "--smg-grpc-mode": _PROTOCOL,
        "--grpc-port": _PROTOCOL,
        "--use-ray": _RAY,
        "--base-gpu-id": _GPUS,
        "--gpu-id-step": _GPUS,
    },
    "vllm": _BOTH
    | {
        "--master-addr": _HOSTS,
        "--master-port": _HOSTS,
        "-n": _HOSTS,
        "-r": _HOSTS,
        "--data-parallel-address": _HOSTS,
        "-dpa": _HOSTS,
        "--data-parallel-backend": _RAY,
        "-dpb": _RAY,
        "--data-parallel-rank": _RANK,
        "-dpn": _RANK,
        "--data-parallel-start-rank": _RANK,
        "-dpr": _RANK,
        "--data-parallel-hybrid-lb": _RANK,
        "-dph": _RANK,
        "--data-parallel-external-lb": _RANK,
        "-dpe": _RANK,
        "--data-parallel-multi-port-external-lb": _RANK,
        "-dpm": _RANK,
        "--grpc": _PROTOCOL,
        "--grpc-port": _PROTOCOL,
        "--distributed-executor-backend": _RAY,
        "--headless": "an engine without a server answers nobody",
        "--disable-log-stats": "its metrics show that it is alive",
    },
}


def find_argument_problems(engine: str, extra_args: Sequence[str]) -> Iterator[str]:
    """Why arguments of an engine are refused, however they are written."""
    for word in extra_args:
        given = word.partition("=")[0].replace("_", "-")
        for flag, why in REFUSED.get(engine.removesuffix("-cpu"), {}).items():
            if _means(given, flag):
                yield f"extra_args must not hold {word.partition('=')[0]}: {why}"
                break


def _means(given: str, flag: str) -> bool:
    """Whether argparse takes one for the other, which may be cut.

    >>> _means("--served-mod", "--served-model-name"), _means("--ssl-key", "--ssl-*")
    (True, True)
    >>> _means("--portable", "--port"), _means("-p", "--port")
    (False, False)
    """
    if not flag.startswith("--"):
        return given.startswith(flag)
    if not given.startswith("--") or len(given) < SHORTEST:
        return False
    if flag.endswith("*"):
        return given.startswith(flag[:-1]) or flag.startswith(given)
    return flag.startswith(given)


def find_variable_problems(names: Iterable[str]) -> Iterator[str]:
    """Why variables of ``environment`` are refused."""
    for name in names:
        if name in OUR_VARIABLES:
            yield (
                f"environment must not hold {name}: the launcher gives each engine its "
                "GPUs; say how many by gpus, or which by gpus in [[engines]]"
            )


def find_placeholder_problem(word: str) -> str:
    """What is wrong with a word of ``command``, "" where it can be filled in.

    >>> find_placeholder_problem("{prot}").partition(";")[0]
    'command has "{prot}": {prot} is no placeholder'
    """
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(word)]
    except ValueError as error:
        problem = str(error)
    else:
        unknown = [n for n in names if n is not None and n not in PLACEHOLDERS]
        if not unknown:
            return ""
        problem = f"{{{unknown[0]}}} is no placeholder"
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    return (
        f'command has "{word}": {problem}; placeholders are {known}, and a brace '
        "itself is written twice"
    )


def names_port(command: Sequence[str]) -> bool:
    """Whether a command is told its port."""
    return any("{port}" in word for word in command)
