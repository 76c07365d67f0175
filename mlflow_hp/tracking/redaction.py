"""Passwords and tokens, taken out of texts before these are logged."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlflow_hp.tracking.entropy import count_words, looks_random

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "***"
"""What stands in place of a secret."""
SHORTEST = 8
"""The value of an environment variable is looked for if it has so many characters: "1" stands in any text."""

_SHORTEST_MIXED = 6  # of a password with digits or signs in it
_PASSES = 9  # at the most; what is masked may show what stands beside it
_SECRETS = ("password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials", "apikey",
            "authorization", "cookie")  # fmt: skip
_KEYS = {"api", "access", "secret", "private", "account", "auth", "encryption", "signing", "master", "storage", "ssh",
         "service", "subscription", "license", "shared", "client"}  # fmt: skip
_OTHER_KEYS = {"primary", "foreign", "sort", "public", "rng"}
_OTHER_TOKENS = {"pad", "eos", "bos", "unk", "sep", "cls", "mask", "class", "start", "end", "stop", "max", "min", "per"}
_IN_QUERIES = {"key", "sig", "signature", "auth"}
_SAY_SO = ("password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets")
_MAY_SAY_SO = (*_SECRETS, "passwords", "secrets", "tokens", "apikeys", "pass")
_BEHIND = {"key", "keys", "token", "access", "value", "hash", "current", "old", "new", "prod", "dev", "test"}
_KINDS = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))
_WORDS_WITH_KEY = re.compile(r"(?:mon|don|tur|hoc|joc|lac|mic|whis|jer|malar)keys?")
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")

_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----).*?(-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
)
_PASSWORD_IN_URL = re.compile(
    r"""(://[^\s/:@?#"']{0,300}:)(?:[^\s/?#"']{1,500}@|(?!\d{1,5}(?:[\s/?#"',;)\]}>]|\Z))\S{1,500}?@)"""
)
_TOKEN_IN_URL = re.compile(r"(://)(?=[^\s@]{0,300}\d)[\w.~-]{20,300}@")
_NAME = re.compile(
    r"""(?<![\w.-])(?P<dashes>-{0,2})(?P<name>[A-Za-z_][\w.-]*+)
    (?P<sign>
    ["']?[ \t]{0,9}(?::[ ]?(?:str|bytes|SecretStr)[ ]?(?:\|[ ]?None[ ]?)?=|=>|:(?!//)|=(?!=))[ \t]{0,9}
    |[ \t]{1,9}(?!-) | ["'],\s{0,9}(?!["']-))  # the last two of --name value
    """,
    re.VERBOSE,
)
_QUOTED = re.compile(r"""[rbfuRBFU]{0,2}(["'])(?P<value>(?:\\.|(?!\1)[^\\\n])+)\1""")
_BARE = re.compile(
    r"""(?P<value>(?:(?i:bearer|basic|token|digest|negotiate)\ +)?
    (?:[^\s"'`&;,:.()\[\]{}<>] | [:.](?=\S) | ["'`&;,()\[\]{}<>](?=[\w%$@!\#*+/-])(?![\w.%-]{1,80}["']?[=:]))+)
    """,
    re.VERBOSE,
)
_NO_SECRET = re.compile(r"\*\*\*|\$\w+|\$\{\w+\}?|none|null|true|false", re.IGNORECASE)
_TOKENS = re.compile(
    r"""\b(?:
    (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}                    # Amazon
    |gh[pousr]_[A-Za-z0-9]{20,} |github_pat_\w{20,}
    |gl[a-z]{2,5}-[\w-]{20,}                               # GitLab
    |xox[abeoprs]-[\w-]{10,}                               # Slack
    |sk-(?=[\w-]{0,60}\d)[\w-]{20,} |[sr]k_(?:live|test)_\w{10,}
    |hf_[A-Za-z0-9]{20,} |dapi[0-9a-f]{32}(?:-\d)? |npm_[A-Za-z0-9]{36} |pypi-[\w-]{20,}
    |AIza[\w-]{35} |ya29\.[\w-]{20,}                       # Google
    |eyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]{1,}){0,3}           # JSON web tokens
    )(?![\w-])"""
    r"|(?<=\bBearer[ ])[\w.~+/-]{8,}=*|(?<=\bBasic[ ])(?=\S{0,400}[\d=])[A-Za-z0-9+/]{8,}={0,2}",
    re.VERBOSE,
)


def masked(text: str, name: str = "") -> str:
    """The text with ``***`` in place of each secret in it; `name` is that of the setting whose value it is, if any.

    These are secrets:

    - in URLs the password (``scheme://user:***@host``), and a token in place of the user;
    - what stands behind a name that says so: ``--password x``, ``token=x``, ``DB_PASSWORD=x``, ``"api_key": "x"``,
      ``?X-Amz-Signature=x``, ``Authorization: Bearer x`` (see `is_secret`);
    - tokens that are known by their form, wherever they stand: those of Amazon, GitHub, GitLab, Google, Slack, Hugging
      Face, Databricks and others, JSON web tokens, and private keys in PEM;
    - the values of environment variables whose names have PASSWORD, SECRET, TOKEN, CREDENTIAL, KEY or the like as a
      part, if they have ``SHORTEST`` characters and are no paths: what a PASSWORD or SECRET holds, whatever that is; of
      the others what looks as if it were drawn at random, or like a passphrase (see `is_secret_variable`).

    References to environment variables, as in ``token=$TOKEN``, stay. A text that has been masked stays as it is.
    """
    if is_secret(name) and text and not _NO_SECRET.fullmatch(text):
        return MASK
    if text.isdigit() and len(text) < SHORTEST:  # a count
        return text
    for _ in range(_PASSES):
        before, text = text, _masked_once(text)
        if text == before:
            break
    return text


def masked_words(words: Iterable[str]) -> list[str]:
    """A command line with its secrets masked, word by word, as the program got them."""
    result: list[str] = []
    secret_follows = False
    for word in words:
        name, sign, value = word.partition("=")
        if secret_follows and not word.startswith("-"):
            result.append(MASK)
        elif sign and is_secret(name.lstrip("-")):
            result.append(f"{name}={masked(value, name.lstrip('-'))}")
        else:
            result.append(masked(word))
        secret_follows = word.startswith("-") and not sign and is_secret(word.lstrip("-"))
    return result


@functools.lru_cache(4096)
def is_secret(name: str) -> bool:
    """Whether the value of a setting called `name` is a secret, by the last words of its name.

    So are ``password``, ``db_passwd``, ``clientSecret``, ``X-Amz-Security-Token``, ``api_key``, ``MY_KEY``;
    not ``tokens``, ``pad_token``, ``key``, ``sort_key``, ``password_file``.
    """
    words = _words(name)
    if not words or name in ("PWD", "OLDPWD"):
        return False
    before, last = words[-2] if len(words) > 1 else "", words[-1]
    if last == "key":
        return before in _KEYS or (name.isupper() and bool(before) and before not in _OTHER_KEYS)
    if last == "signature":
        return before in ("amz", "goog")
    if last == "token" and before in _OTHER_TOKENS:
        return False
    return last.endswith(_SECRETS)


@functools.lru_cache(4096)
def is_secret_variable(name: str, value: str) -> bool:
    """Whether an environment variable holds a secret, by the parts of its name and by its value.

    =====================================  ==========================================================================
    last part of the name                  what is a secret
    =====================================  ==========================================================================
    PASSWORD, PASSPHRASE, PWD, SECRET      all from ``SHORTEST`` characters on; from six on, what mixes letters with
    (SECRET_KEY, SECRET_ACCESS_KEY)        others
    API_KEY, ACCESS_TOKEN and such         what looks as if it were drawn at random; what mixes small letters, capitals
                                           and digits; three words or more
    otherwise, with one of these, KEY,     what looks as if it were drawn at random; four words or more with blanks
    TOKEN, CREDENTIAL as a part
    =====================================  ==========================================================================

    A part is a whole one: KEYCLOAK_REALM and MONKEY_MODE have none.
    """
    words = [word for word in _words(name) if not word.isdigit()]
    parts = [_part(word) for word in words]
    if not any(parts) or name in ("PWD", "OLDPWD"):
        return False
    end = max(i for i, part in enumerate(parts) if part)
    behind = {*words[end + 1 :]} - _BEHIND
    says_so = max((i for i, part in enumerate(parts) if part == 2), default=None)
    if says_so is not None and not {*words[says_so + 1 :]} - _BEHIND:
        mixed = len(value) >= _SHORTEST_MIXED and not (value.isalpha() or value.isdigit())
        return len(value) >= SHORTEST or mixed
    if len(value) < SHORTEST:
        return False
    if looks_random(value) or _PASSWORD_IN_URL.search(value) or _TOKENS.search(value):
        return True
    of_a_service = is_secret(name) and (words[end] not in ("key", "keys") or not _KEYS.isdisjoint(words[:end]))
    if not behind and (of_a_service or words[end].endswith("pass")) and not _is_address(value):
        return count_words(value) >= 3 or sum(bool(kind.search(value, 1)) for kind in _KINDS) > 1
    return value.count(" ") >= 3


def _part(word: str) -> int:
    """2 for a word that says that a value is a secret, 1 for one that says that it may be, 0 for others."""
    if word.endswith(_SAY_SO):
        return 2
    is_key = word.endswith(("key", "keys")) and not _WORDS_WITH_KEY.fullmatch(word)
    return int(is_key or word.endswith(_MAY_SAY_SO))


def _is_address(value: str) -> bool:
    return bool(re.match(r"[a-z][\w+.-]*://|~?\.{0,2}/", value))


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(name)]


def _masked_once(text: str) -> str:
    text = _PRIVATE_KEY.sub(rf"\1{MASK}\2", text)
    text = _PASSWORD_IN_URL.sub(rf"\1{MASK}@", text)
    text = _TOKEN_IN_URL.sub(rf"\1{MASK}@", text)
    text = _TOKENS.sub(MASK, _named_values_masked(text))
    for name, value in os.environ.items():
        if is_secret_variable(name, value):
            for form in (value, quote(value, safe="")):
                if form in text and not os.path.exists(value):  # noqa: PTH110 - a Path raises on odd values
                    text = _without(text, form)
    return text


def _without(text: str, secret: str) -> str:
    """A text without a secret; one that may be a word stays as a part of longer words."""
    if len(secret) < SHORTEST or (secret.isalnum() and not looks_random(secret)):
        return re.sub(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])", MASK, text)
    return text.replace(secret, MASK)


def _named_values_masked(text: str) -> str:
    """Mask what stands behind the names of secrets."""
    parts, end = [], 0
    for found in _NAME.finditer(text):
        start, at, sign = found.start(), found.end(), found["sign"]
        before = text[start - 1] if start else ""
        option = found["dashes"] or sign.strip("\"', \t")  # else it is two words of a sentence
        known = is_secret(found["name"]) or (before in ("?", "&") and found["name"].lower() in _IN_QUERIES)
        if start < end or not option or not known:
            continue
        if before in ("'", '"') and sign[0] == "=" and (closing := text.find(before, at)) > 0:
            value, stop = text[at:closing], closing  # '--password=two words'
        elif hit := _QUOTED.match(text, at) or _BARE.match(text, at):
            value, at, stop = hit["value"], hit.start("value"), hit.end("value")
        else:
            continue
        if value and "\n" not in value and not _NO_SECRET.fullmatch(value):
            parts += [text[end:at], MASK]
            end = stop
    return "".join([*parts, text[end:]])
