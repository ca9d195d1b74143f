"""Which URLs engines may be asked to fetch."""

import pytest

from modelserver.engine_protocol import RESPONSES_PATH
from modelserver.errors import RequestError
from modelserver.media_urls import find_forbidden_media
from modelserver.messaging.requests import build
from modelserver.messaging.wire import CHAT, EMBED

OWN = "must not lead to"
SCHEME = "must begin with http://, https:// or data:"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/a.png", ""),
        ("http://10.0.0.7:9000/a.png", ""),
        ("data:image/png;base64,AAAA", ""),
        ("file:///etc/passwd", SCHEME),
        ("/etc/passwd", SCHEME),
        ("ftp://example.org/a", SCHEME),
        ("http:///a", SCHEME),
        ("http://example.org\\@127.0.0.1/", SCHEME),
        ("http://localhost:6379/", OWN),
        ("http://LOCALHOST./", OWN),
        ("http://a.localhost/", OWN),
        ("http://127.0.0.1/", OWN),
        ("http://user@127.1/", OWN),
        ("http://2130706433/", OWN),
        ("http://0x7f.0.0.1/", OWN),
        ("http://0.0.0.0/", OWN),
        ("http://[::1]/", OWN),
        ("http://[::ffff:127.0.0.1]/", OWN),
        ("http://169.254.169.254/latest/meta-data", OWN),
        ("http://[fd00:ec2::254]/", OWN),
        ("http://metadata.google.internal/", OWN),
        ("http://[bad/", "is no URL"),
    ],
)
@pytest.mark.parametrize("key", ["image_url", "video_url", "audio_url"])
def test_engines_fetch_nothing_that_only_their_host_reaches(
    key: str, url: str, said: str
):
    for value in (url, {"url": url}):
        messages = [
            {"role": "user", "content": [{"type": "text", "text": url}]},
            {"role": "user", "content": [{"type": key, key: value}]},
        ]
        found = find_forbidden_media(messages)
        assert said in found
        assert bool(found) == bool(said)


def test_a_chat_with_such_an_image_is_refused():
    part = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}
    messages = [{"role": "user", "content": [part]}]
    with pytest.raises(RequestError, match="image_url must begin with http"):
        build(CHAT, (messages,), {})
    with pytest.raises(RequestError, match="image_url must begin with http"):
        build(EMBED, ("a",), {"extra_body": {"messages": messages}})


def test_the_input_of_a_response_is_looked_at_as_well():
    part = {"type": "input_image", "image_url": "http://127.0.0.1/secret"}
    items = [{"role": "user", "content": [part]}]
    with pytest.raises(RequestError, match="must not lead to"):
        build(CHAT, (items,), {"engine_path": RESPONSES_PATH, "raw": True})
