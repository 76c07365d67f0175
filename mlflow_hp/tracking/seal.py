"""A seal on what this user has recorded: who made a run is a tag, and anybody who may write to the store may set it.

The seal is a keyed hash (HMAC, RFC 2104) with a key that is on this machine alone, in a file that only its owner may
read. Whoever has no key can't seal another command or other code; a run that was recorded on another machine, or before
there was a key, bears no seal of this one. That a sealed text is copied to another run is not prevented: it stays what
this user once ran.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat

from mlflow_hp.tracking.home import local_home

KEY_FILE = "seal.key"
_LETTERS = 64


def seal(kind: str, *texts: str | None) -> str:
    """The seal on some texts together; empty where there is no key, and none can be made."""
    try:
        key = _key()
    except (OSError, RuntimeError, ValueError):  # a user without a home, a folder that can't be written
        return ""
    message = json.dumps([kind, *texts]).encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def is_ours(given: str | None, kind: str, *texts: str | None) -> bool:
    """Whether `given` is the seal of this user on this machine on these texts."""
    expected = seal(kind, *texts)
    return bool(expected and given) and hmac.compare_digest(expected.encode(), str(given).encode(errors="replace"))


def _key() -> bytes:
    """The key, made where there is none.

    Raises
    ------
    ValueError
        Where others could have read or written it.
    """
    path = local_home() / KEY_FILE
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_LETTERS // 2))
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))) as file:
        state = os.fstat(file.fileno())
        key = file.read(_LETTERS + 1)
    if hasattr(os, "geteuid") and (state.st_uid != os.geteuid() or state.st_mode & (stat.S_IRWXG | stat.S_IRWXO)):
        raise ValueError(f"{path} is not this user's alone")
    if len(key) != _LETTERS:
        raise ValueError(f"{path} is no key")
    return key.encode()
