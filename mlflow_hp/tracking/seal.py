"""Seal that shows which commands and code were recorded by this user on this machine.

The author of a run is a tag, which anyone with write access to the store may set. The seal is a keyed hash (HMAC, RFC
2104); its key is on this machine only, in a file that only its owner may read. Without the key, no other command or
code can be sealed. A run that was recorded on another machine, or before the key was made, has no valid seal. Copying
a sealed text to another run is not prevented: this user has run that text.
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
_KEY_LENGTH = 64


def seal(kind: str, *texts: str | None) -> str:
    """Compute the seal of a sequence of texts; empty if there is no key and none can be made."""
    try:
        key = _key()
    except (OSError, RuntimeError, ValueError):  # a user without a home, a folder that cannot be written
        return ""
    message = json.dumps([kind, *texts]).encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def is_valid(digest: str | None, kind: str, *texts: str | None) -> bool:
    """Whether `digest` is the seal of this user and machine on these texts."""
    expected = seal(kind, *texts)
    return bool(expected and digest) and hmac.compare_digest(expected.encode(), str(digest).encode(errors="replace"))


def _key() -> bytes:
    """Read the key; make it if there is none.

    Raises
    ------
    ValueError
        If other users could have read or written it, or it is damaged.
    """
    path = local_home() / KEY_FILE
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_KEY_LENGTH // 2))
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))) as file:
        status = os.fstat(file.fileno())
        key = file.read(_KEY_LENGTH + 1)
    if hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)):
        raise ValueError(f"{path} is accessible to other users")
    if len(key) != _KEY_LENGTH:
        raise ValueError(f"{path} is not a key")
    return key.encode()
