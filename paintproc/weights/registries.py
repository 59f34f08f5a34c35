"""Finds the address of a package's archive. The user's pip and npm configurations say which registry to ask.

Only index pages are read here: no package is built, installed or run.
"""

import ast
import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from paintproc.weights.web import Site, SourceError, read_page

INDEX_KINDS = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


def python_archive(package: str, archive: str, offline: bool) -> tuple[str, Site]:
    """The address of one archive file of a Python package, and how to read it.

    Asked in turn, as pip is configured: the index, further indexes, and folders or pages of links. SourceError if none
    has it. With `offline` only what is on this machine is asked.
    """
    settings = _pip_settings()
    site = Site(
        authorities=settings.get("cert"),
        proxy=settings.get("proxy"),
        trusted=tuple(settings.get("trusted-host", "").split()),
    )
    name = re.sub(r"[-_.]+", "-", package).lower()
    indexes: list[str] = []
    if settings.get("no-index", "").lower() not in ("1", "true", "t", "yes", "y", "on"):
        indexes = [settings.get("index-url", ""), *settings.get("extra-index-url", "").split()]
    pages = [f"{index.rstrip('/')}/{name}/" for index in indexes if index]
    reasons = []
    for page in [*pages, *settings.get("find-links", "").split()]:
        if offline and not _is_local(page):
            continue
        try:
            found = _find(page, archive, site)
        except SourceError as error:
            reasons.append(str(error))
        else:
            if found:
                return found, site
            reasons.append(f"{_registry_name(page)} has no {archive}")
    raise SourceError(reasons[0] if reasons else "no Python registry is set up" + _on_this_machine(offline))


def javascript_archive(package: str, version: str, offline: bool) -> tuple[str, Site]:
    """The address of the archive of an npm package, and how to read it. SourceError if there is none."""
    settings = _npm_settings()
    scope = package.split("/")[0] if package.startswith("@") else ""
    registry = settings.get(f"{scope}:registry") or settings.get("registry")
    if not registry:
        raise SourceError("neither npm nor npm_config_registry says where a JavaScript registry is")
    if offline and not _is_local(registry):
        raise SourceError("no JavaScript registry is set up" + _on_this_machine(offline))
    authorities = settings.get("cafile")
    site = Site(
        authorities=authorities if isinstance(authorities, str) else None,
        proxy=settings.get("https-proxy") or settings.get("proxy") or None,
        trusted=() if settings.get("strict-ssl", True) else (urllib.parse.urlsplit(registry).hostname or "",),
        token=functools.partial(_npm_token, settings.get("userconfig")),
    )
    page = f"{registry.rstrip('/')}/{urllib.parse.quote(package, safe='@')}"
    text, _, _ = read_page(page, site, "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8")
    try:
        address = json.loads(text)["versions"][version]["dist"]["tarball"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"the registry does not know {package} {version}") from error
    return _checked(address, page), site


def _find(page: str, archive: str, site: Site) -> str | None:
    """The address of `archive` on an index page or in a folder of archives; None if it is not there."""
    folder = _local_path(page)
    if folder is not None:
        if (folder / archive).is_file():
            return (folder / archive).resolve().as_uri()
        # a folder of archives, a folder with an index page, or such a page itself
        file = folder if folder.is_file() else folder / "index.html"
        if not file.is_file():
            return None
        page = file.resolve().as_uri()
    text, kind, base = read_page(page, site, INDEX_KINDS)
    if kind.endswith("json"):
        try:
            links = [entry["url"] for entry in json.loads(text)["files"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SourceError(f"{_registry_name(page)} is no package index") from error
    else:
        reader = _Links()
        # the parser may fail on what is not HTML; the links before that are used
        with contextlib.suppress(AssertionError):
            reader.feed(text)
        base, links = _joined(base, reader.base), reader.links
    for link in links:
        address = _joined(base, str(link))
        if urllib.parse.unquote(urllib.parse.urlsplit(address).path).rsplit("/", 1)[-1] == archive:
            return _checked(address, page)
    return None


def _joined(base: str, link: str) -> str:
    """The address that a link means; `base` if the link is damaged."""
    try:
        return urllib.parse.urljoin(base, link)
    except ValueError:
        return base


def _checked(address: Any, page: str) -> str:
    """`address`, with the user and password of `page` if host and port are the same and encryption is not lost.

    SourceError if a page of the network points to a file on this machine.
    """
    if not isinstance(address, str) or not address.startswith(("http:", "https:", "file:")):
        raise SourceError(f"{_registry_name(page)} gives no usable address")
    if address.startswith("file:") and not page.startswith("file:"):
        raise SourceError(f"{_registry_name(page)} points to a file of this machine")
    parts, asked = urllib.parse.urlsplit(address), urllib.parse.urlsplit(page)
    secret, _, host = asked.netloc.rpartition("@")
    if secret and parts.netloc == host and (parts.scheme == asked.scheme or parts.scheme == "https"):
        address = parts._replace(netloc=asked.netloc).geturl()
    return address


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href") or ""
        if tag == "a":
            self.links.append(target)
        elif tag == "base":
            self.base = target


def _pip_settings() -> dict[str, str]:
    """Pip's settings: its environment before its files, `download` before `install` before `global`."""
    ranks = {"global": 0, "install": 1, "download": 2, ":env:": 3}
    found: dict[str, tuple[int, str]] = {}
    for line in _ask_pip("config", "list").splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.strip().partition(".")
        if section in ranks and ranks[section] >= found.get(name, (-1, ""))[0]:
            try:
                found[name] = ranks[section], str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    settings = {name: value for name, (_, value) in found.items()}
    if "index-url" not in settings:
        text = " ".join(_ask_pip("download", "--help").split())
        default = re.search(r"--index-url <url> [^()]*\(default (\S+?)\)", text)
        if default:
            settings["index-url"] = default[1]
    return settings


def _ask_pip(*words: str) -> str:
    """What pip prints, this Python's or another on the path. SourceError if there is none."""
    pip = shutil.which("pip") or shutil.which("pip3")
    for command in ([sys.executable, "-m", "pip"], [pip] if pip else []):
        if command:
            done = _run([*command, *words])
            if done is not None:
                return done
    raise SourceError("pip is not installed, so the Python registry is not known")


def _npm_settings() -> dict[str, Any]:
    """Npm's settings: what it lists, and from its environment and the user's file what it hides: passwords."""
    lead = "npm_config_"
    hidden: dict[str, Any] = {
        name[len(lead) :].lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.lower().startswith(lead)
    }
    npm = shutil.which("npm")
    try:
        listed = json.loads((_run([npm, "config", "list", "--json"]) if npm else None) or "{}")
    except ValueError:
        listed = {}
    for line in _npm_lines(listed.get("userconfig") or hidden.get("userconfig")):
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals:
            hidden.setdefault(key, value.strip("\"'"))
    return hidden | listed


def _npm_lines(file: str | None) -> list[str]:
    """The lines of the user's npm configuration, with its `${NAME}` replaced."""
    try:
        text = Path(file or "~/.npmrc").expanduser().read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return re.sub(r"\$\{(\w+)\}", lambda name: os.environ.get(name[1], ""), text).splitlines()


def _npm_token(file: str | None, url: str) -> str | None:
    """The Authorization header that the user's npm configuration has for an address."""
    place = re.sub(r"^https?:", "", url)
    for line in _npm_lines(file):
        match = re.fullmatch(r"\s*(//[^=]*?)/?:(_authToken|_auth)\s*=\s*(.*?)\s*", line)
        if match and place.startswith(match[1] + "/"):
            value = match[3].strip("\"'")
            return f"{'Bearer' if match[2] == '_authToken' else 'Basic'} {value}"
    return None


def _run(command: list[str]) -> str | None:
    """What a command prints; None if it is missing or fails."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _is_local(place: str) -> bool:
    return _local_path(place) is not None


def _local_path(place: str) -> Path | None:
    """The path that a `file:` address or a plain path means; None for an address in the network."""
    if place.startswith("file:"):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(place).path))
    return None if "://" in place else Path(place).expanduser()


def _registry_name(page: str) -> str:
    host = urllib.parse.urlsplit(page).hostname
    return f"the registry at {host}" if host else page


def _on_this_machine(offline: bool) -> str:
    return " on this machine" if offline else ""
