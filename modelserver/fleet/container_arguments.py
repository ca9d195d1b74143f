"""The part of the fleet file about containers: which arguments are not to be given.

The launcher runs an engine in a container as it runs one outside of it: it knows the
process and the container, listens to the engine's port, reads its output and chooses
its GPUs. What would take one of these away is refused. Read as docker and podman read
their command lines. Pure.
"""

from collections.abc import Iterator, Sequence

from modelserver.fleet.arguments import OUR_VARIABLES

#: What the names of our own variables and labels begin with.
_OUR_VARIABLE = "MODELSERVER_"
_OUR_LABEL = "modelserver."
#: Options that take no value, of docker and of podman.
_SWITCHES = frozenset(
    {
        *("--detach", "--env-host", "--help", "--http-proxy", "--init"),
        *("--interactive", "--no-healthcheck", "--no-hostname", "--no-hosts"),
        *("--oom-kill-disable", "--passwd", "--privileged", "--publish-all"),
        *("--quiet", "--read-only", "--read-only-tmpfs", "--replace", "--rm", "--rmi"),
        *("--rootfs", "--sig-proxy", "--tls-verify", "--tty", "--unsetenv-all"),
        *("--use-api-socket", "--disable-content-trust"),
    }
)
#: Options of one letter by their long names. The first five take no value.
_SHORT = {
    **{"d": "--detach", "i": "--interactive", "t": "--tty", "P": "--publish-all"},
    "q": "--quiet",
    **{"a": "--attach", "c": "--cpu-shares", "e": "--env", "h": "--hostname"},
    **{"l": "--label", "m": "--memory", "p": "--publish", "u": "--user"},
    **{"v": "--volume", "w": "--workdir"},
}
_NETWORK = (
    "the container has its host's network, where the engine listens on 127.0.0.1 and "
    "worker and launcher ask it; a fixed port is given by port in [[engines]]"
)
_ENDS = "the launcher starts, ends and removes the container; leave it out"
_OUTPUT = "the engine's output goes to its log, and nobody types into it; leave it out"
_GPUS = (
    "the launcher gives each engine its GPUs; say how many by gpus, or which by gpus "
    "in [[engines]]"
)
_NAME = "the launcher names and finds its containers itself; leave it out"
_PROGRAM = (
    "the launcher says what runs in the container; give command, interpreter or "
    "extra_args"
)
_VARIABLES = "give the engine its variables by environment"
_IMAGE = "image says what runs, and no start pulls or removes it; pull it on the host"
_SEES = "the launcher watches the engine's processes by their own container"
#: Options and why they are refused.
REFUSED_OPTIONS = {
    **dict.fromkeys(("--network", "--net", "--publish", "--publish-all"), _NETWORK),
    "--pod": _NETWORK,
    "--pod-id-file": _NETWORK,
    **dict.fromkeys(("--detach", "--rm", "--restart", "--sig-proxy"), _ENDS),
    "--health-on-failure": _ENDS,
    **dict.fromkeys(("--tty", "--attach"), _OUTPUT),
    **dict.fromkeys(("--name", "--cidfile", "--label-file"), _NAME),
    **dict.fromkeys(("--entrypoint", "--rootfs", "--help"), _PROGRAM),
    **dict.fromkeys(("--env-host", "--unsetenv-all"), _VARIABLES),
    **dict.fromkeys(("--pull", "--rmi"), _IMAGE),
    "--gpus": _GPUS,
    "--pid": _SEES,
}


def find_container_problems(words: Sequence[str]) -> Iterator[str]:
    """Why words of ``container_args`` are refused, however they are written.

    >>> [p.partition(":")[0] for p in find_container_problems(["-d", "--name=mine"])]
    ['container_args must not hold -d', 'container_args must not hold --name']
    """
    for written, name, value in _options(words):
        if why := _find_refusal(name, value):
            shown = written + (f" {value}" if name in _BY_VALUE else "")
            yield f"container_args must not hold {shown}: {why}"
        elif not name:
            yield (
                f'container_args has "{written}" where docker and podman look for an '
                "option; each option and each value is a text of its own, and image "
                "names the image"
            )


def is_privileged(words: Sequence[str]) -> bool:
    """Whether a container has all of its host's devices.

    >>> is_privileged(["--privileged"]), is_privileged(["--privileged=false"])
    (True, False)
    """
    given = [value for _, name, value in _options(words) if name == "--privileged"]
    return bool(given) and given[-1].lower() not in ("false", "f", "0")


def _find_refusal(name: str, value: str) -> str:
    if find := _BY_VALUE.get(name):
        return find(value)
    return REFUSED_OPTIONS.get(name, "")


def _of_variable(value: str) -> str:
    name = value.partition("=")[0]
    if name in OUR_VARIABLES:
        return _GPUS
    ours = name.startswith(_OUR_VARIABLE)
    return f"the launcher marks its engines by it; {_VARIABLES}" if ours else ""


def _of_label(value: str) -> str:
    return _NAME if value.startswith(_OUR_LABEL) else ""


def _of_device(value: str) -> str:
    return _GPUS if value.startswith(("/dev/nvidia", "nvidia.com/")) else ""


#: Options of which only some values are refused.
_BY_VALUE = {
    "--env": _of_variable,
    "--unsetenv": _of_variable,
    "--label": _of_label,
    "--device": _of_device,
}


def _options(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each option as it is written, its long name and its value.

    What is no option has no long name; nothing is read behind it.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        if not name.startswith("-") or name in ("-", "--") or " " in name:
            yield word, "", ""
            return
        if name.startswith("--"):
            if not sign and name not in _SWITCHES:
                value = rest.pop(0) if rest else ""
            yield name, name, value
        else:
            yield from _short_options(word, rest)


def _short_options(word: str, rest: list[str]) -> Iterator[tuple[str, str, str]]:
    """The options of one word, ``-itp 80:80``; takes a value from ``rest``."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        name = _SHORT.get(letter, f"-{letter}")
        if name in _SWITCHES:
            value, letters = (letters, "") if letters[:1] == "=" else ("", letters)
        else:
            value, letters = letters.removeprefix("="), ""
            value = value or (rest.pop(0) if rest else "")
        yield f"-{letter}", name, value
