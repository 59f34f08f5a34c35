"""Files of a model hub, in the cache of huggingface_hub, where `from_pretrained` finds them.

That library says where the cache is, which token and which mirror are used, and whether it may go online. It starts a
download that was cut anew; large files are therefore read by `download`, and put where the library looks for them.
"""

import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paintproc.errors import InputError, MissingError
from paintproc.weights.convert import EXTRA
from paintproc.weights.download import Progress, download
from paintproc.weights.manifest import Weight, WeightFile
from paintproc.weights.web import Site, SourceError


def snapshot(weight: Weight) -> Path | None:
    """The folder of these weights in the hub's cache; None if there is none, or no huggingface_hub."""
    for file in weight.files:
        if path := cached(weight, file):
            return path.parents[file.name.count("/")]
    return None


def cached(weight: Weight, file: WeightFile) -> Path | None:
    """A file of these weights in the hub's cache."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    with contextlib.suppress(OSError):
        found = try_to_load_from_cache(weight.hub, file.name, revision=weight.revision)
        return Path(found) if isinstance(found, str) else None
    return None


def bring(weight: Weight, file: WeightFile, offline: bool, progress: Progress) -> Path:
    """The path of a file in the hub's cache; it is downloaded if it is not there.

    MissingError without huggingface_hub, SourceError if the hub does not give the file, InputError if it gives another
    one, OSError only from writing.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingError(f"{weight.name} is on a model hub, for which huggingface_hub is missing.", EXTRA)
    if found := cached(weight, file):
        return found
    import huggingface_hub as hub

    if offline or hub.is_offline_mode():
        raise SourceError(f"the hub was not asked for {file.name}, because of --offline or HF_HUB_OFFLINE")
    hub.utils.disable_progress_bars()
    hub.utils.logging.set_verbosity_error()
    with _plain_errors(weight, file):
        url = hub.hf_hub_url(weight.hub, file.name, revision=weight.revision)
        facts = hub.get_hf_file_metadata(url, token=hub.get_token())
        if facts.etag and len(facts.etag) == 64:
            _bring_large(weight, file, url, facts, progress)
        return Path(hub.hf_hub_download(weight.hub, file.name, revision=weight.revision))


def published_digest(path: Path) -> tuple[str, str] | None:
    """Name of the algorithm and digest of a cached file as the hub states them; None where the cache has no links.

    The cache names content by its sha256, or, for small files, by git's sha1.
    """
    name = path.resolve().name
    kinds = {64: "sha256", 40: "sha1"}
    return (kinds[len(name)], name) if len(name) in kinds and path.is_symlink() else None


def git_sha1(path: Path) -> str:
    """The sha1 by which git names the content of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _bring_large(weight: Weight, file: WeightFile, url: str, facts: Any, progress: Progress) -> None:
    """Put a file of known sha256 among the cache's contents, where the library then finds it."""
    import huggingface_hub as hub

    if file.sha256 not in (None, facts.etag) or file.size not in (None, facts.size):
        raise InputError(f"{file.name} of {weight.name} on the hub is not the published file.")
    folder = hub.file_download.repo_folder_name(repo_id=weight.hub, repo_type="model")
    contents = Path(hub.constants.HF_HUB_CACHE, folder, "blobs")
    if not facts.size:
        raise SourceError(f"the hub does not say how large {file.name} is")
    if not (contents / facts.etag).exists():
        token = hub.get_token()
        site = Site(token=lambda asked: f"Bearer {token}" if token else None)
        download(url, contents / facts.etag, facts.size, facts.etag, site, contents, progress)


@contextlib.contextmanager
def _plain_errors(weight: Weight, file: WeightFile) -> Iterator[None]:
    """Turn the library's many errors into SourceError. Those of writing stay what they are."""
    from huggingface_hub import errors

    what = f"hub:{weight.hub}@{weight.revision[:10]}/{file.name}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise SourceError(f"{what} wants a token of somebody who has accepted its license") from error
    except errors.EntryNotFoundError as error:
        raise SourceError(f"{what} is not there") from error
    except errors.RepositoryNotFoundError as error:
        raise SourceError(f"{what} is not there, or wants a token") from error
    except errors.HfHubHTTPError as error:
        raise SourceError(f"{what}: the hub answers {error.response.status_code}") from error
    except (SourceError, InputError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise SourceError(f"{what} cannot be had: {_first_line(error)}") from error
    except Exception as error:
        # httpx and the library have classes of their own for broken connections and odd answers
        raise SourceError(f"{what} cannot be had: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".").lower()
