"""Downloads: over https, within limits of size and time, and with the digest that they have to have."""

from __future__ import annotations

import base64
import hashlib
import http.client
import ipaddress
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked

URL_SECONDS = 10.0
"""How long one address of a URL's host may take to answer, and to send a part; all addresses may take twice that."""
DOWNLOAD_SECONDS = 300.0
"""How long it may take in all."""
LARGEST_GB = 2.0
"""Default of `LARGEST_VARIABLE`."""
LARGEST_VARIABLE = "MLFLOW_HP_LARGEST_GB"
"""Environment variable with how many GB a download, or the arrays of a file when they are unpacked, may take."""
_PART = 2**20


class RefusedError(ValueError):
    """What is not downloaded, or not taken when it has been."""


def is_address(data: str) -> bool:
    """Whether `data` is a URL."""
    return data.lower().startswith(("http://", "https://"))


def download(data: str) -> bytes:
    """What is at the http(s) address that the parameter `data` names.

    ``$NAME`` in it stands for that environment variable, so that a token need not be in a command, and
    ``#sha256=<64 digits>`` at its end is the digest that the content has to have. http, which anybody on the way can
    change, is taken from this machine, and from elsewhere with a digest; a password is sent over https alone.

    Raises
    ------
    UserError
        Where that can't be had.
    """
    shown = masked(data)
    url, _, digest = os.path.expandvars(data).partition("#")
    if digest and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", digest):
        raise UserError(f"data={shown!r} may end in #sha256= and the 64 digits of its content's SHA-256, not #{digest}")
    try:
        return fetch(url, digest)
    except UserError:
        raise
    except RefusedError as error:
        raise UserError(f"data={shown!r} {error}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = masked(str(getattr(error, "reason", error)))
        raise UserError(f"data={shown!r} does not answer ({reason}): check the address, or name a file") from None


def fetch(url: str, digest: str = "") -> bytes:
    """What is at `url`; it has to have the `digest`, as ``sha256=...`` or ``md5=...``, if there is one.

    Raises
    ------
    RefusedError
        For what is not safe, too large, or other than the digest says.
    OSError, ValueError, HTTPException
        Where nothing, or not all of it, comes in time.
    """
    with open_url(url, digest) as answer:
        expected, largest = getattr(answer, "length", None), largest_bytes()
        if expected is not None and expected > largest:
            raise RefusedError(f"has {too_large(expected)}")
        until, content = time.monotonic() + DOWNLOAD_SECONDS, bytearray()
        while part := answer.read1(_PART):
            content += part
            if len(content) > largest:
                raise RefusedError(f"has {too_large(len(content))}")
            if time.monotonic() > until:
                raise TimeoutError(f"not all of it came in {DOWNLOAD_SECONDS:g} s")
    if expected is not None and len(content) < expected:
        raise ConnectionError(f"it broke off after {len(content):,} of {expected:,} bytes")
    if digest and not has_digest(content, digest):
        kind = digest.partition("=")[0]
        raise RefusedError(f"is not what was asked for: its {kind} is {_digest(kind, content)}; check both")
    return bytes(content)


def has_digest(content: bytes | bytearray, digest: str) -> bool:
    """Whether `content` has a digest, as ``sha256=...`` or ``md5=...``."""
    kind, _, digits = digest.partition("=")
    return _digest(kind, content) == digits.lower()


def largest_bytes() -> int:
    """How many bytes may be downloaded, or unpacked."""
    text = os.environ.get(LARGEST_VARIABLE, str(LARGEST_GB))
    try:
        return int(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise UserError(f"{LARGEST_VARIABLE}={text!r} has to be a number of GB, such as {LARGEST_GB:g}") from None


def too_large(size: int) -> str:
    """So many bytes, in words that say what to do about them."""
    return (
        f"{size / 1e9:.3g} GB or more, and {largest_bytes() / 1e9:.3g} are allowed: if that is right, allow more with "
        f"{LARGEST_VARIABLE}"
    )


def open_url(url: str, digest: str = "") -> Any:
    """The answer of `url`; a thread bounds the time, since a host may have twenty addresses that hang in turn."""
    request = _request(url, digest)
    opener = urllib.request.build_opener(_Redirects(digest))
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(opener.open(request, timeout=URL_SECONDS))
        except Exception as error:  # noqa: BLE001 - raised again below
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * URL_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"timed out after {2 * URL_SECONDS:g} s") from None
    try:
        if isinstance(answer, Exception):
            raise answer
        return answer
    finally:
        del answer  # an error and the frame in its traceback would keep each other, and the socket open


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to where it is safe to go."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        try:
            _check_safe(urljoin(req.full_url, newurl), self._digest)
        except RefusedError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str, digest: str) -> urllib.request.Request:
    """The request for `url`, its user and password in a header, which redirects don't take along."""
    _check_safe(url, digest)
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310 - http(s), as checked
    if user:
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return request


def _check_safe(url: str, digest: str) -> None:
    """Raise where what `url` sends, or is sent, could be read or changed on the way."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname or "")):
        return
    if parts.scheme == "http" and digest and not parts.username:
        return
    raise RefusedError(
        f"leads to {parts.scheme}://{parts.hostname}, and anybody on the way can read and change that: give an https "
        "address, or, without a password, what its content has to be: '...#sha256=<64 digits>'; or download it "
        "yourself, and name the file"
    )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(kind: str, content: bytes | bytearray) -> str:
    return hashlib.new(kind, content, usedforsecurity=False).hexdigest()
