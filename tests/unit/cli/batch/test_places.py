"""Where a run may read and write."""

from pathlib import Path

import pytest

from modelserver.cli.batch.run import refuse_places
from modelserver.errors import RequestError


@pytest.mark.parametrize("url", ["s3://b/in.jsonl", "file:///in.jsonl", "HTTPS://a/b"])
def test_urls_are_no_files(url: str):
    with pytest.raises(RequestError, match=r"is a URL, and runs read files; .* a pipe"):
        refuse_places(url, Path("out.jsonl"))
    with pytest.raises(RequestError, match="is a URL, and runs write files"):
        refuse_places("in.jsonl", Path(url))


def test_files_with_odd_names_are_files():
    refuse_places("-", Path("out-1/a:b.jsonl"))
    refuse_places("./s3:/rows.jsonl", Path("/data/out.jsonl"))


def test_what_is_not_named_is_no_file():
    with pytest.raises(RequestError, match=r"^INPUT is empty; name a file$"):
        refuse_places("", Path("out.jsonl"))
    with pytest.raises(RequestError, match=r"^-o is empty; name a file$"):
        refuse_places("in.jsonl", Path(""))
    with pytest.raises(RequestError, match=r"^-o names a file"):
        refuse_places("in.jsonl", Path("-"))
