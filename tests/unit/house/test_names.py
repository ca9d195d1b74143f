"""One name for one thing."""

import ast
from collections import defaultdict

from tests.support.sources import PACKAGES, module, parsed, sources


def test_each_class_name_is_used_once():
    homes = defaultdict(list)
    for path in sources(*PACKAGES):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}
