"""Says which part of a path is not there, and what people should look at first."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from modelserver.values import EXTERNAL, ModelSpec

#: How a path begins that is a file of a host, and nothing of a hub.
LOCAL = ("/", "~")


def describe_missing(path: str) -> str:
    """What is wrong with a path of this host, "" where it is there.

    Reads the disk that it is on, which may not answer.
    """
    whole = Path(os.path.expanduser(path))
    if not whole.is_absolute():
        return f"{path} is not there: this host has no user {whole.parts[0][1:]}"
    try:
        if os.path.exists(whole):
            return ""
        there = next(each for each in whole.parents if each.is_dir())
        names = os.listdir(there)
    except OSError as error:
        return f"{path} cannot be looked for: {error.strerror}"
    if not names:
        return f"{path} is not there: {there} is empty, so nothing may be mounted there"
    name = whole.relative_to(there).parts[0]
    part = there / name
    if os.path.exists(part):
        return f"{path} is not there: {part} is no folder"
    if part.is_symlink():
        what = path if part == whole else f"{path} is not there: {part}"
        return f"{what} leads to {os.readlink(part)}, which is not there"
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f'{path} is not there: {there} has no "{name}"{hint}'


def files_named(model: ModelSpec) -> Iterator[tuple[str, str]]:
    """The files of a host that a model's section names: their keys, and their paths.

    With an image they may be in it. A command need not use its path.
    """
    if model.engine == EXTERNAL:
        return
    words = "".join((*model.command, *model.extra_args))
    needs_path = model.engine != "command" or "{path}" in words
    named = [("path", model.path)] if needs_path else []
    named += [("interpreter", model.interpreter)]
    named += [(f"path of adapter {each.name}", each.path) for each in model.adapters]
    named += [("command", word) for word in model.command[:1]]
    yield from (
        (key, path)
        for key, path in named
        if path.startswith(LOCAL) and "{" not in path and not model.image
    )
