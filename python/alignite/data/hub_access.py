"""The Hugging Face hub: names, whether it can be reached, what its errors mean. No torch, no transformers."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from alignite.errors import AligniteError, DataError, ModelError, ResourceError

_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_REPO = rf"(?P<repo>{_PART}/{_PART})"
_REVISION = r"(?:@(?P<revision>[A-Za-z0-9][\w.-]*(?:/[\w.-]+)*))?"
_ROWS = r"(?::(?:(?P<config>[A-Za-z0-9][\w.-]*):)?(?P<split>\w+(?:\.\w+)*))?"
# Names of files that were mistyped are not sent to anybody.
_FILES = re.compile(r"\.(jsonl?|gz|csv|parquet|arrow|txt|ya?ml|gguf|safetensors|bin|git)$", re.IGNORECASE)

# A host is there when it takes a connection within this time; a network that is not there is told at once.
TIMEOUT = 0.5
TIMEOUT_VARIABLE = "ALIGNITE_HUB_TIMEOUT"


@dataclass(frozen=True)
class HubName:
    """``org/name[@revision]``, for rows with ``[:[config:]split]``."""

    repo: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, text: str, *, rows: bool = False) -> HubName | None:
        """The name that a text is, or None when it can only be a path."""
        found = re.fullmatch(_REPO + _REVISION + (_ROWS if rows else ""), text, re.ASCII)
        if found is None or ".." in text or "--" in found["repo"] or _FILES.search(text):
            return None
        return cls(**found.groupdict())

    @property
    def explicit(self) -> bool:
        """Whether it is written as no path is."""
        return self.revision is not None or self.split is not None

    @property
    def pinned(self) -> str:
        """Repository and revision, as they are written."""
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def taken_for_path(hub: HubName) -> bool:
    """Whether a name must be a path, because its first part is a folder here and nothing else tells it is not."""
    return not hub.explicit and Path(hub.repo.partition("/")[0]).is_dir()


def why_no_hub(hub: HubName) -> str:
    """Why a name that could be the hub's is taken for a path."""
    folder, _, name = hub.repo.partition("/")
    return f"folder {folder!r} is here and holds no {name!r}"


def unreachable() -> str | None:
    """Why the hub cannot be reached, or None when its host takes connections. Waits ``TIMEOUT`` seconds at most."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
    limit = _limit()
    host, port = _address(constants.ENDPOINT)
    outcome: list[str] = []

    def connect() -> None:
        reason = "no address"
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            # IPv6 is set up and leads nowhere more often than IPv4.
            for family, kind, protocol, _, address in sorted(found, key=lambda info: info[0] != socket.AF_INET):
                try:
                    with socket.socket(family, kind, protocol) as connection:
                        connection.settimeout(limit + 1)  # the thread that waits gives up first
                        connection.connect(address)
                    outcome.append("")
                    return
                except OSError as error:
                    reason = error.strerror or str(error)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
        outcome.append(reason)

    # A thread of its own, because looking up a name cannot be told to stop.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(limit)
    if not outcome:
        return f"{host}:{port} does not answer within {limit:g} s (a slow network needs {TIMEOUT_VARIABLE}=10)"
    return f"{host}:{port}: {outcome[0]}" if outcome[0] else None


def _limit() -> float:
    try:
        return float(os.environ.get(TIMEOUT_VARIABLE, TIMEOUT))
    except ValueError:
        return TIMEOUT


def _address(endpoint: str) -> tuple[str, int]:
    """Host and port that a request for the endpoint goes to: its own, or a proxy's."""
    from urllib.request import getproxies, proxy_bypass

    url = urlsplit(endpoint)
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(url.netloc):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def repo_info(hub: HubName, repo_type: str) -> dict[str, Any]:
    """``sha`` and ``files`` of a repository at the name's revision; a host that does not answer is given up on."""
    from huggingface_hub import HfApi, constants

    info: Any = HfApi().repo_info(
        hub.repo, revision=hub.revision, repo_type=repo_type, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    return {"sha": str(info.sha), "files": [item.rfilename for item in info.siblings or ()]}


@contextmanager
def hub_errors(hub: HubName, kind: type[ModelError | DataError], noun: str) -> Iterator[None]:
    """Turn what the hub's library raises into typed errors with the reason and a way out."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    page = f"{constants.ENDPOINT}/{'datasets/' if kind is DataError else ''}{hub.repo}"
    signed_in = "sign in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except AligniteError:
        raise
    except GatedRepoError as error:
        raise kind(
            f"the {noun} is gated",
            where=hub.pinned,
            why=_first(error),
            fix=f"ask for access at {page}, then {signed_in}",
        ) from error
    except RevisionNotFoundError as error:
        raise kind(
            f"the {noun} has no revision {hub.revision!r}",
            where=hub.repo,
            fix=f"give a branch, a tag or a whole commit of {page}",
        ) from error
    except RepositoryNotFoundError as error:
        code = error.response.status_code
        raise kind(
            f"the hub has no such {noun}, or does not show it",
            where=hub.pinned,
            why=f"{constants.ENDPOINT} answers {code}",
            fix=f"check the name; for a private one {signed_in}",
        ) from error
    except HfHubHTTPError as error:
        raise kind(
            f"the hub does not give the {noun}",
            where=hub.pinned,
            why=_first(error),
            fix=f"{signed_in}" if error.response.status_code in (401, 403) else "try again later, or give a local path",
        ) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
            raise ResourceError(
                f"the {noun} cannot be stored",
                where=str(error.filename or constants.HF_HOME),
                why=error.strerror,
                fix="free space, or set HF_HOME to a folder that can be written",
            ) from error
        raise _broken(kind, hub, noun, error) from error
    except Exception as error:
        raise _broken(kind, hub, noun, error) from error


def _broken(kind: type[ModelError | DataError], hub: HubName, noun: str, error: Exception) -> AligniteError:
    return kind(
        f"the {noun} cannot be fetched from the hub",
        where=hub.pinned,
        why=_first(error),
        fix="run the same command again, which goes on where it stopped; or give a local path",
    )


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
