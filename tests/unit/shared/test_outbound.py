import pytest

from shared.errors import ForbiddenURLError
from shared.outbound import check_url


@pytest.mark.parametrize("url", ["https://a.example/hook?x=1", "https://[2001:db8::1]:8443/", "https://1.2.3.4/"])
def test_plain_https_urls_pass(url):
    assert check_url(url, allow_insecure=False).geturl() == url


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",
        "ftp://a.example/",
        "file:///etc/passwd",
        "a.example/hook",
        "https://",
        "https:///path",
        "https://user:password@a.example/",
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a.example/\r\nHost: b",
        "https://a .example/",
        "https://a.example\\@b.example/",
        "https://[::1/",
        "https://ä.example/",
        "https://a.example/" + "x" * 2048,
    ],
)
def test_other_urls_are_refused_with_a_message(url):
    with pytest.raises(ForbiddenURLError, match="the URL"):
        check_url(url, allow_insecure=False)


def test_http_passes_if_it_is_allowed():
    check_url("http://127.0.0.1:8000/", allow_insecure=True)
