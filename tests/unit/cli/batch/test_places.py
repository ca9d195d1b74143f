"""Where a run may read and write."""

from pathlib import Path

import pytest

from modelserver.cli.batch.run import refuse_urls
from modelserver.errors import RequestError


@pytest.mark.parametrize("url", ["s3://b/in.jsonl", "file:///in.jsonl", "HTTPS://a/b"])
def test_urls_are_no_files(url: str):
    with pytest.raises(RequestError, match=r"is a URL, and runs read files; .* a pipe"):
        refuse_urls(url, Path("out.jsonl"))
    with pytest.raises(RequestError, match="is a URL, and runs write files"):
        refuse_urls("in.jsonl", Path(url))


def test_files_with_odd_names_are_files():
    refuse_urls("-", Path("out-1/a:b.jsonl"))
    refuse_urls("./s3:/rows.jsonl", Path("/data/out.jsonl"))
