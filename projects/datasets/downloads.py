"""Downloads over https, with limits of size and time, and verified checksums."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import queue
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked

if TYPE_CHECKING:
    from collections.abc import Iterator

URL_SECONDS = 10.0
"""Longest wait for one IP address of a URL's host, and for a part of the data; for all addresses, twice that."""
DOWNLOAD_SECONDS = 300.0
"""Longest duration of a download."""
LARGEST_GB = 2.0
"""Default of `LARGEST_VARIABLE`."""
LARGEST_VARIABLE = "MLFLOW_HP_LARGEST_GB"
"""Environment variable: largest size in GB of a download, or of the unpacked arrays of a file."""
_PART = 2**20


class RefusedError(ValueError):
    """A download is unsafe, too large or altered; the message continues a sentence that begins with the data's name."""


def is_address(data: str) -> bool:
    """Whether `data` is a URL."""
    return data.lower().startswith(("http://", "https://"))


def download(data: str) -> bytes:
    """Download the http(s) address that the parameter `data` names.

    ``$NAME`` in it is replaced by that environment variable, so that a token need not be in a command, and
    ``#sha256=<64 digits>`` at its end is the required checksum of the content. Content over http can be altered on the
    way: it is accepted from this machine, or with a checksum; a password is sent over https only.

    Raises
    ------
    UserError
        If the address is unsafe or does not answer, or its content is too large or altered.
    """
    masked_data = masked(data)
    url, _, digest = os.path.expandvars(data).partition("#")
    if digest and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", digest):
        raise UserError(
            f"data={masked_data!r} may end in #sha256= and the 64 digits of its content's SHA-256, not #{digest}"
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "data"
            retrieve(url, path, digest)
            return path.read_bytes()
    except RefusedError as error:
        raise UserError(f"data={masked_data!r} {error}") from None
    except OSError as error:
        raise UserError(f"data={masked_data!r} does not answer ({error}): check the address, or name a file") from None


def retrieve(url: str, path: Path, digest: str = "") -> None:
    """Download `url` to `path`, unless a file with the `digest` is there.

    Parameters
    ----------
    url : str
    path : Path
        Replaced when the download is complete; atomically, if the file system supports that.
    digest : str
        ``sha256=...`` or ``md5=...``. Defaults to ``""``: any content.

    Raises
    ------
    RefusedError
        If the address is unsafe, or its content is too large or does not match the digest.
    OSError
        If the content does not arrive, or not in time.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it would print addresses with the tokens in them
    _check_safe(url, digest)
    known_hash = digest.lower().replace("=", ":") or None
    try:
        pooch.retrieve(url, known_hash, path.name, path.parent, downloader=_Downloader(digest))
    except (RefusedError, UserError):
        raise
    except ValueError as error:  # pooch's, where the checksum differs
        raise RefusedError(f"does not match its checksum: {error}") from None


def largest_bytes() -> int:
    """Largest number of bytes that may be downloaded, or unpacked."""
    text = os.environ.get(LARGEST_VARIABLE, str(LARGEST_GB))
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise UserError(f"{LARGEST_VARIABLE}={text!r} has to be a number of GB, such as {LARGEST_GB:g}") from None


def too_large(size: int) -> str:
    """Make the message for a size above the limit."""
    return (
        f"{size / 1e9:.3g} GB or more, and {largest_bytes() / 1e9:.3g} are allowed: if it is expected, allow more with "
        f"{LARGEST_VARIABLE}"
    )


def _check_safe(url: str, digest: str, base: str = "") -> None:
    """Raise an error if others on the network could read or alter the request to `url` or its response."""
    try:
        parts = urlsplit(urljoin(base, url))
    except ValueError as error:
        raise ConnectionError(str(error)) from None
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return
    if parts.scheme == "http" and digest and not parts.username:
        return
    raise RefusedError(
        f"leads to {parts.scheme}://{parts.hostname or ''}, which others on the network can read and alter: give an "
        "https address, or, without a password, the checksum of its content: '...#sha256=<64 digits>'; or download it "
        "yourself, and name the file"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Downloader:
    """Downloader for `pooch.retrieve`, with the limits of this module."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        try:
            with _open(url, self._digest) as response, Path(output_file).open("wb") as file:
                _copy(response, file)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise ConnectionError(_reason(error)) from None


class _Session(requests.Session):
    """Session that follows redirects only to safe addresses, and without the password."""

    def __init__(self, digest: str) -> None:
        super().__init__()
        self._digest = digest
        self.headers["Accept-Encoding"] = "identity"

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the target of a redirect; None if the response is not one."""
        target = super().get_redirect_target(resp)
        if target is not None:
            try:
                _check_safe(target, self._digest, resp.url)
            except (RefusedError, ConnectionError):
                resp.close()
                raise
        return target

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:  # noqa: ARG002
        """Remove the password from a redirected request."""
        prepared_request.headers.pop("Authorization", None)


@contextlib.contextmanager
def _open(url: str, digest: str) -> Iterator[requests.Response]:
    """Request `url`; in a thread with a time limit, since each of a host's many addresses may hang in turn."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    address, auth = parts._replace(netloc=host).geturl(), _credentials(user)
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(session.get(address, auth=auth, stream=True, timeout=URL_SECONDS))
        except Exception as error:  # noqa: BLE001 - raised again below
            answers.put(error)

    with _Session(digest) as session:
        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=2 * URL_SECONDS)
        except queue.Empty:
            raise TimeoutError(f"timed out after {2 * URL_SECONDS:g} s") from None
        try:
            if isinstance(answer, Exception):
                raise answer
            with answer:
                if not answer.ok:
                    raise ConnectionError(f"HTTP status {answer.status_code}: {answer.reason}")
                yield answer
        finally:
            del answer  # an error and the frame in its traceback would keep each other, and the socket open


def _credentials(user: str) -> Any:
    """Authentication from ``user:password`` of a URL; without it, none: not that of a ``.netrc``."""
    if not user:
        return lambda request: request
    name, _, password = user.partition(":")
    return unquote(name).encode(), unquote(password).encode()


def _copy(response: requests.Response, file: BinaryIO) -> None:
    """Write the content to a file, with limits of size and time."""
    expected, largest = response.raw.length_remaining, largest_bytes()
    if expected is not None and expected > largest:
        raise RefusedError(f"has {too_large(expected)}")
    until, size = time.monotonic() + DOWNLOAD_SECONDS, 0
    try:
        while part := response.raw.read1(_PART):
            size += file.write(part)
            if size > largest:
                raise RefusedError(f"has {too_large(size)}")
            if time.monotonic() > until:
                raise TimeoutError(f"not all of it came in {DOWNLOAD_SECONDS:g} s")
    except urllib3.exceptions.ProtocolError:
        of = "" if expected is None else f" of {expected:,}"
        raise ConnectionError(f"it broke off after {size:,}{of} bytes") from None


def _reason(error: BaseException) -> str:
    """Text of the innermost cause of an error of requests; outer ones quote the address, which may hold a token."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    quotes_none = isinstance(error, OSError) and not isinstance(error, requests.RequestException)
    return str(error) if quotes_none else type(error).__name__
