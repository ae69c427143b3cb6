"""Network errors in words: what is in the way, and what to do."""

import re
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fmnist.errors import FmnistError

PROBLEMS = (
    (
        r"CA certificate bundle",
        "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names no file; correct or unset it",
    ),
    (
        r"failed: 407|HTTP Error 407|Proxy Authentication Required",
        "the proxy asks for a password; HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT gives it",
    ),
    (
        r"Tunnel connection failed: (\d+[\w ]*)",
        "the proxy refuses the connection ({}); ask its administrator",
    ),
    (
        r"SOCKS",
        "the proxy speaks SOCKS; `pip install 'requests[socks]'`, or unset ALL_PROXY and HTTPS_PROXY",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "the host's certificate cannot be verified: the clock is wrong, or a proxy replaces it; then name your "
        "network's certificate in REQUESTS_CA_BUNDLE",
    ),
    (r"SSLError|WRONG_VERSION_NUMBER", "the encrypted connection (TLS) fails; check HTTPS_PROXY"),
    (r"ProxyError", "the proxy cannot be reached; correct or unset HTTPS_PROXY"),
    (r"NameResolutionError|gaierror", "the host's name cannot be resolved: no network, or its DNS fails"),
    (r"[Tt]ime(?:d )?-?out", "no answer in time"),
    (r"HTTPError: (\d+[\w ]*)|HTTP Error (\d+[:\w ]*)", "the host refused ({})"),
    (r"IncompleteRead|Connection broken|reset by peer|RemoteDisconnected", "the connection broke off; try again"),
    (r"Network is unreachable|No route to host", "there is no network"),
    (r"Connection refused", "the connection is refused"),
)
"""A pattern in the types and messages of an error and its causes, and what it means. The first one counts."""


@contextmanager
def open_url(url: str, timeout: float) -> Iterator[Any]:
    """Request a file from a host, by the proxies and certificates that the package requests looks for.

    Args:
        url: of the file.
        timeout: seconds without any data.

    Yields:
        The response of requests, whose content is not read yet.

    Raises:
        FmnistError: for an error of the network, also in the block, saying what is in the way.
    """
    try:
        import requests
    except ImportError as error:
        raise FmnistError("the package requests is not installed; `pip install 'fmnist[train]'` installs it") from error
    try:
        with requests.get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            yield response
    except OSError as error:  # also what requests raises, even for a REQUESTS_CA_BUNDLE that names no file
        if error.errno and not isinstance(error, ssl.SSLError):  # of the disk
            raise
        raise FmnistError(describe_network_error(error)) from error


def check_host_of_apt(url: str, timeout: float) -> None:
    """Send a request without a body to a host of Debian, by the variable http_proxy alone, as apt-get does.

    Args:
        url: a file on the host.
        timeout: seconds.

    Raises:
        FmnistError: if the file is not there, saying what is in the way.
    """
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout).close()
    except OSError as error:
        raise FmnistError(describe_network_error(error)) from error


def describe_network_error(error: BaseException) -> str:
    """Return what is in the way of a request, with a hint; the error's own message if it is of no known kind.

    Args:
        error: of `requests` or `urllib`, with its causes.
    """
    text = " ".join(f"{type(each).__name__}: {each}" for each in _chain(error))
    for pattern, meaning in PROBLEMS:
        if match := re.search(pattern, text):
            return meaning.format(*(group.strip() for group in match.groups() if group))
    return " ".join(f"{type(error).__name__}: {error}".split())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it: by `from`, in its attribute `reason`, or among its arguments."""
    pending, seen = [error], set()
    while pending:
        each = pending.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        causes = (each.__cause__, each.__context__, getattr(each, "reason", None), *each.args)
        pending += [cause for cause in causes if isinstance(cause, BaseException)]
