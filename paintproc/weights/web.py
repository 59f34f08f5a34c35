"""Asks addresses: one request without retries, read in pieces."""

import base64
import functools
import http.client
import netrc
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from paintproc.stopping import check_stopped
from paintproc.version import __version__

TIMEOUT = 10.0
"""Seconds without a byte until a source is given up."""
PIECE = 1 << 20


class SourceError(Exception):
    """Why one source could not be used; the next one may be tried. `code` is the status of its answer, or 0."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Site:
    """How to connect to a host: certificates, proxy, hosts trusted without a certificate, a token."""

    authorities: str | None = None
    proxy: str | None = None
    trusted: tuple[str, ...] = ()
    token: Callable[[str], str | None] = field(default=lambda url: None)
    """The Authorization header for an address, or None."""


def read_page(url: str, site: Site, accept: str, most: int = 64 << 20) -> tuple[str, str, str]:
    """Text, content type and final address of a page. SourceError if it cannot be read."""
    with open_url(url, site, {"Accept": accept}) as answer:
        parts, done = [], 0
        while piece := read_piece(answer, PIECE, url):
            check_stopped()
            parts.append(piece)
            done += len(piece)
            if done > most:
                raise SourceError(f"{shown(url)} is no index: it does not end")
        return b"".join(parts).decode("utf-8", "replace"), answer.headers.get_content_type(), answer.url or url


def shown(url: str) -> str:
    """The address without user, password and query."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        # it may contain a password anywhere
        return "an address that cannot be read"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class _Redirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, SourceError):
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise SourceError(f"{shown(req.full_url)} leads to an address that is not https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        secret = req.unredirected_hdrs.get("Authorization")
        if request and secret and urllib.parse.urlsplit(newurl).netloc == urllib.parse.urlsplit(req.full_url).netloc:
            request.add_unredirected_header("Authorization", secret)
        return request


def open_url(url: str, site: Site, headers: Mapping[str, str]) -> Any:
    """The answer to one GET (http, https or file); redirects are followed. SourceError if there is none."""
    check_stopped()
    try:
        parts = urllib.parse.urlsplit(url)
        clean = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        if parts.scheme not in ("http", "https", "file"):
            raise SourceError(f"{shown(url)} is no address of the kinds http, https, file")
        request = urllib.request.Request(clean, headers={**headers, "User-Agent": f"paintproc/{__version__}"})
        secret = _basic(parts) or site.token(clean)
        if secret and parts.scheme != "file":
            if not (secret.isascii() and secret.isprintable()):
                raise SourceError(f"{shown(url)} was not asked: its token has characters that no token has")
            # not sent on when this host redirects to another one
            request.add_unredirected_header("Authorization", secret)
        trusted = parts.hostname in site.trusted or parts.netloc.rpartition("@")[2] in site.trusted
        context = _context(site.authorities, trusted)
        proxies = {"http": site.proxy, "https": site.proxy} if site.proxy else None
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler(proxies), _Redirects()
        )
        return opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            why = " (it wants a token)" if error.code in (401, 403) else ""
            raise SourceError(f"{shown(url)} answers {error.code}{why}", error.code) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise SourceError(f"{shown(url)} cannot be reached: {_reason(error)}") from error


@functools.lru_cache(maxsize=8)
def _context(authorities: str | None, trusted: bool) -> ssl.SSLContext:
    """How certificates are checked; to read those of the system takes a moment."""
    context = ssl.create_default_context(cafile=authorities)
    if trusted:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def read_piece(answer: Any, size: int, url: str) -> bytes:
    """What has come of an answer, at most `size` bytes; none at its end. SourceError if the connection breaks off."""
    try:
        return answer.read1(size)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise SourceError(f"{shown(url)} broke off: {_reason(error)}") from error


def _basic(parts: urllib.parse.SplitResult) -> str | None:
    """User and password from the address or from the user's netrc file, as a header."""
    user, password = parts.username, parts.password or ""
    if user is None and parts.hostname:
        try:
            entry = netrc.netrc().authenticators(parts.hostname)
        except (OSError, netrc.NetrcParseError):
            entry = None
        if entry is None or entry[0] == "" or entry[2] is None:
            return None
        user, password = entry[0], entry[2]
    if user is None:
        return None
    text = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}"
    return "Basic " + base64.b64encode(text.encode()).decode()


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        error = inner
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
