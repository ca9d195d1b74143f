"""The part of the fleet file about ``engine_version``: which versions are run. Pure."""

import re

from modelserver.values import ModelSpec

#: Engines that are known at one version only, and which.
ONLY_VERSIONS = {"sglang-cpu": "0.5.23", "vllm-cpu": "0.32.0"}
#: The oldest version of each engine that is run.
OLDEST_VERSIONS = {
    **{"sglang": "0.5.5", "sglang-cpu": "0.5.5"},
    **{"vllm": "0.10.0", "vllm-cpu": "0.10.0"},
}
#: A version as far as it can be compared, () where it is not known: then it is new.
Version = tuple[int, ...]


def read_version(text: str) -> Version:
    """A version's numbers; none of one that was built from a checkout without tags.

    >>> read_version("0.5.3.post1"), read_version("0.10.0rc1"), read_version("0.1.dev7")
    ((0, 5, 3), (0, 10, 0), ())
    """
    found = re.match(r"\d+(\.\d+)*", text)
    if found is None or "dev" in text:
        return ()
    return tuple(map(int, found[0].split(".")))


def find_version_problem(engine: str, version: str) -> str:
    """Why an engine is not run at a version, "" where it is or nobody knows.

    >>> find_version_problem("vllm", "0.32.0"), find_version_problem("vllm", "")
    ('', '')
    """
    only = ONLY_VERSIONS.get(engine, "")
    if version and only not in ("", version):
        return (
            f"engine {engine} is known at version {only} only; leave out "
            f"engine_version, and run: modelserver engines install {engine}"
        )
    oldest = OLDEST_VERSIONS.get(engine, "")
    if () < read_version(version) < read_version(oldest):
        return (
            f"engine {engine} {version} is older than {oldest}, the oldest that is "
            f"run; run: modelserver engines install {engine}, and set no older "
            "engine_version"
        )
    return ""


def find_model_version_problem(model: ModelSpec) -> str:
    """The same for a model, whose engine may come with an image or an interpreter."""
    if model.image or model.interpreter:
        return ""
    return find_version_problem(model.engine, model.engine_version)
