"""Reads from addresses: one request without retries, in pieces, and never more than the caller allows."""

import base64
import hashlib
import http.client
import netrc
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paintproc.stopping import check_stopped
from paintproc.version import __version__

TIMEOUT = 10.0
"""Seconds without a byte until a source is given up."""
PIECE = 1 << 20


class SourceError(Exception):
    """Why one source could not be used; the next one may be tried."""


@dataclass(frozen=True)
class Site:
    """How to connect to a host: certificates, proxy, hosts trusted without a certificate, a token."""

    authorities: str | None = None
    proxy: str | None = None
    trusted: tuple[str, ...] = ()
    token: Callable[[str], str | None] = field(default=lambda url: None)
    """The Authorization header for an address, or None."""


def download(url: str, target: Path, site: Site, most: int | None, progress: Callable[[float], None]) -> str:
    """Write what is at `url` (http, https or file) to `target`. Returns its sha256 in hex.

    SourceError if it cannot be read or has more than `most` bytes. OSError only from writing.
    """
    digest, done = hashlib.sha256(), 0
    with _open(url, site, "*/*") as answer, target.open("xb") as out:
        said = answer.headers.get("Content-Length", "")
        length = int(said) if said.isdecimal() else 0
        total = length or most
        while piece := _read(answer, PIECE, url):
            done += len(piece)
            if most is not None and done > most:
                raise SourceError(f"{shown(url)} is larger than {most} bytes")
            out.write(piece)
            digest.update(piece)
            progress(done / total if total else 0.0)
        if done < length:
            raise SourceError(f"{shown(url)} broke off after {done} of {length} bytes")
    return digest.hexdigest()


def read_page(url: str, site: Site, accept: str, most: int = 64 << 20) -> tuple[str, str, str]:
    """Text, content type and final address of a page. SourceError if it cannot be read."""
    with _open(url, site, accept) as answer:
        parts, done = [], 0
        while piece := _read(answer, PIECE, url):
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
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise SourceError(f"{shown(req.full_url)} leads to an address that is not https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        secret = req.unredirected_hdrs.get("Authorization")
        if request and secret and urllib.parse.urlsplit(newurl).netloc == urllib.parse.urlsplit(req.full_url).netloc:
            request.add_unredirected_header("Authorization", secret)
        return request


def _open(url: str, site: Site, accept: str) -> Any:
    check_stopped()
    try:
        parts = urllib.parse.urlsplit(url)
        clean = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        if parts.scheme not in ("http", "https", "file"):
            raise SourceError(f"{shown(url)} is no address of the kinds http, https, file")
        request = urllib.request.Request(clean, headers={"Accept": accept, "User-Agent": f"paintproc/{__version__}"})
        secret = _basic(parts) or site.token(clean)
        if secret and parts.scheme != "file":
            if not (secret.isascii() and secret.isprintable()):
                raise SourceError(f"{shown(url)} was not asked: its token has characters that no token has")
            # not sent on when this host redirects to another one
            request.add_unredirected_header("Authorization", secret)
        context = ssl.create_default_context(cafile=site.authorities)
        if parts.hostname in site.trusted or parts.netloc.rpartition("@")[2] in site.trusted:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        proxies = {"http": site.proxy, "https": site.proxy} if site.proxy else None
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler(proxies), _Redirects()
        )
        return opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            why = " (it wants a token)" if error.code in (401, 403) else ""
            raise SourceError(f"{shown(url)} answers {error.code}{why}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise SourceError(f"{shown(url)} cannot be reached: {_reason(error)}") from error


def _read(answer: Any, size: int, url: str) -> bytes:
    try:
        # what has come, not all that was asked for: a slow source must not hold up a signal
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
