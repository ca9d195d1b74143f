"""No decision is read out of a sentence that was written for people."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import module, parsed, sources

#: Names of variables and fields that hold sentences for people.
SENTENCES = {
    "blocked",
    "degraded",
    "error",
    "fact",
    "hold",
    "message",
    "problem",
    "progress",
    "reason",
    "remedy",
    "said",
    "sentence",
    "stale",
    "text",
    "why",
}
#: Methods that take a text apart or look into it.
READING = {
    *("startswith", "endswith", "removeprefix", "removesuffix"),
    *("partition", "rpartition", "split", "rsplit", "splitlines"),
    *("find", "rfind", "index", "rindex", "count"),
}
#: Functions of ``re`` and methods of its patterns, which are given a text.
MATCHING = {"search", "match", "fullmatch", "findall", "finditer", "split", "sub"}


def is_sentence(node: ast.expr) -> bool:
    """Whether an expression is, or is made from, a sentence for people."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    fields = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return bool((names | fields) & SENTENCES)


def readings(tree: ast.AST) -> Iterator[str]:
    """Each place where a sentence is looked into, as source text with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, owner = node.func.attr, node.func.value
            read = called in READING and is_sentence(owner)
            matched = called in MATCHING and any(map(is_sentence, node.args))
            if read or matched:
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Compare):
            for test, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(test, (ast.In, ast.NotIn)) and is_sentence(right):
                    yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "path", sources("modelserver/policy", "modelserver/control"), ids=module
)
def test_no_decision_parses_a_sentence(path: Path):
    assert list(readings(parsed(path))) == []


@pytest.mark.parametrize(
    "source",
    [
        'wish.reason.startswith("hung")',
        'reason.partition("; ")',
        '"ERROR" in report.reason',
        '"drained" not in hold',
        're.search("hung", move.why)',
        "HUNG.match(reason)",
        'str(text).split(":")',
    ],
)
def test_looking_into_a_sentence_is_found(source: str):
    assert len(list(readings(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "hold != wish.hold",
        'f"{name}: {reason}"',
        "engine in paused",
        'name.partition("-")',
    ],
)
def test_comparing_and_writing_sentences_is_allowed(source: str):
    assert list(readings(ast.parse(source))) == []
