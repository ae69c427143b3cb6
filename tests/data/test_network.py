"""What network errors mean, for people: the real errors of requests and urllib."""

import contextlib
import http.server
import socket
import ssl
import threading
import traceback
import urllib.error
import urllib.request

import pytest
import requests

from fmnist.data.network import describe_network_error


class Refusing(http.server.BaseHTTPRequestHandler):
    """A proxy that answers every request with the status in its attribute."""

    status = 403

    def do_CONNECT(self):
        self.send_error(self.status)

    def do_GET(self):
        self.do_CONNECT()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(status):
    handler = type("Handler", (Refusing,), {"status": status})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def by_requests(url, **options):
    with requests.Session() as session:
        session.trust_env = False
        try:
            session.get(url, timeout=2, **options).raise_for_status()
        except OSError as error:
            return error


def by_urllib(url, proxies=None):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies or {}))
    with pytest.raises(OSError) as caught:  # noqa: PT011
        opener.open(url, timeout=2)
    if isinstance(caught.value, urllib.error.HTTPError):
        caught.value.close()
    # Before Python 3.11.4 the proxy's response stays open, and would be a ResourceWarning in some later test.
    cause = caught.value
    while cause := cause.__context__:
        traceback.clear_frames(cause.__traceback__)
    return caught.value


@pytest.mark.parametrize(
    ("status", "expected"),
    [(407, "the proxy asks for a password; HTTPS_PROXY="), (403, "the proxy refuses the connection (403 Forbidden)")],
)
@pytest.mark.parametrize("library", ["requests", "urllib"])
def test_answers_of_a_proxy(status, expected, library):
    with serve(status) as address:
        proxies = {"https": f"http://{address}"}
        url = "https://host.invalid/file"
        error = by_requests(url, proxies=proxies) if library == "requests" else by_urllib(url, proxies)
    assert expected in describe_network_error(error)


def test_answer_of_the_host():
    with serve(404) as address:
        for error in (by_requests(f"http://{address}/x"), by_urllib(f"http://{address}/x")):
            assert describe_network_error(error).startswith("the host refused (404")


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert describe_network_error(by_requests(f"http://{address}/x")) == "the connection is refused"
    assert describe_network_error(by_urllib(f"http://{address}/x")) == "the connection is refused"
    behind = by_requests("https://host.invalid/x", proxies={"https": f"http://{address}"})
    assert describe_network_error(behind) == "the proxy cannot be reached; correct or unset HTTPS_PROXY"


def test_settings_of_the_user():
    missing = by_requests("https://127.0.0.1:9/x", verify="/no/such/bundle.pem")
    assert describe_network_error(missing).startswith("REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names no file")
    socks = by_requests("https://127.0.0.1:9/x", proxies={"https": "socks5://127.0.0.1:9"})
    assert "speaks SOCKS" in describe_network_error(socks)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"),
            "certificate cannot be verified",
        ),
        (socket.gaierror(-2, "Name or service not known"), "name cannot be resolved"),
        (TimeoutError("timed out"), "no answer in time"),
        (OSError(101, "Network is unreachable"), "there is no network"),
    ],
)
def test_causes_are_found_however_they_are_wrapped(error, expected):
    wrapped = requests.ConnectionError("Max retries exceeded", urllib.error.URLError(error))
    for each in (error, urllib.error.URLError(error), wrapped):
        assert expected in describe_network_error(each)


def test_another_error_is_named_in_one_line():
    assert describe_network_error(OSError("strange\nthing")) == "OSError: strange thing"
