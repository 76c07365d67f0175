"""Redaction of passwords and tokens in texts before they are logged."""

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
"""Replacement of a secret."""
SHORTEST = 8
"""Least length of an environment variable's value that is searched for in texts: a value of "1" is in any text."""

_SHORTEST_MIXED = 6  # the same for a password with digits or signs in it
_MAX_PASSES = 9  # masking one secret may reveal the next
_SECRETS = ("password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "credentials", "apikey",
            "authorization", "cookie")  # fmt: skip
_KEYS = {"api", "access", "secret", "private", "account", "auth", "encryption", "signing", "master", "storage", "ssh",
         "service", "subscription", "license", "shared", "client"}  # fmt: skip
_OTHER_KEYS = {"primary", "foreign", "sort", "public", "rng"}
_OTHER_TOKENS = {"pad", "eos", "bos", "unk", "sep", "cls", "mask", "class", "start", "end", "stop", "max", "min", "per"}
_IN_QUERIES = {"key", "sig", "signature", "auth"}
_SURE_ENDINGS = ("password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets")
_POSSIBLE_ENDINGS = (*_SECRETS, "passwords", "secrets", "tokens", "apikeys", "pass")
_QUALIFIERS = {"key", "keys", "token", "access", "value", "hash", "current", "old", "new", "prod", "dev", "test"}
_CHARACTER_CLASSES = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))
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
    """Replace each secret in a text by ``***``.

    These are secrets:

    - in URLs the password (``scheme://user:***@host``), and a token in place of the user;
    - the value that follows the name of a secret: ``--password x``, ``token=x``, ``DB_PASSWORD=x``, ``"api_key": "x"``,
      ``?X-Amz-Signature=x``, ``Authorization: Bearer x`` (see `is_secret`);
    - tokens of a known format, anywhere: those of Amazon, GitHub, GitLab, Google, Slack, Hugging
      Face, Databricks and others, JSON web tokens, and private keys in PEM;
    - the values of environment variables whose names have PASSWORD, SECRET, TOKEN, CREDENTIAL, KEY or the like as a
      part, if they have ``SHORTEST`` characters and are no paths: any value of a PASSWORD or SECRET; of the others,
      values that look random, or like a passphrase (see `is_secret_variable`).

    References to environment variables, as in ``token=$TOKEN``, are kept. Masking is idempotent.

    Parameters
    ----------
    text : str
        Any text.
    name : str
        Name of the setting whose value the text is, if any. Defaults to ``""``.

    Returns
    -------
    str
        Masked text.

    Examples
    --------
    >>> from mlflow_hp.tracking import masked
    >>> masked("python train.py --password hunter2 --epochs 3")
    'python train.py --password *** --epochs 3'
    >>> masked("postgresql://ada:lovelace@db/mlflow")
    'postgresql://ada:***@db/mlflow'
    """
    if is_secret(name) and text and not _NO_SECRET.fullmatch(text):
        return MASK
    if text.isdigit() and len(text) < SHORTEST:  # a count
        return text
    for _ in range(_MAX_PASSES):
        previous, text = text, _masked_once(text)
        if text == previous:
            break
    return text


def masked_words(words: Iterable[str]) -> list[str]:
    """Mask the secrets in a command line, given as the words that the program received."""
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
    """Whether the value of a setting is a secret, by the last words of its name.

    True for ``password``, ``db_passwd``, ``clientSecret``, ``X-Amz-Security-Token``, ``api_key``, ``MY_KEY``;
    false for ``tokens``, ``pad_token``, ``key``, ``sort_key``, ``password_file``.
    """
    words = _words(name)
    if not words or name in ("PWD", "OLDPWD"):
        return False
    previous, last = words[-2] if len(words) > 1 else "", words[-1]
    if last == "key":
        return previous in _KEYS or (name.isupper() and bool(previous) and previous not in _OTHER_KEYS)
    if last == "signature":
        return previous in ("amz", "goog")
    if last == "token" and previous in _OTHER_TOKENS:
        return False
    return last.endswith(_SECRETS)


@functools.lru_cache(4096)
def is_secret_variable(name: str, value: str) -> bool:
    """Whether an environment variable holds a secret, by the parts of its name and by its value.

    =====================================  ==========================================================================
    last part of the name                  secret values
    =====================================  ==========================================================================
    PASSWORD, PASSPHRASE, PWD, SECRET      all of ``SHORTEST`` characters or more; of six or more if they mix letters
    (SECRET_KEY, SECRET_ACCESS_KEY)        with other characters
    API_KEY, ACCESS_TOKEN and such         random ones; those that mix lower case, upper case and digits; those of three
                                           words or more
    others, with one of these, KEY,        random ones; those of four words or more, separated by blanks
    TOKEN, CREDENTIAL as a part
    =====================================  ==========================================================================

    Parts are whole words: KEYCLOAK_REALM and MONKEY_MODE have none of these.
    """
    words = [word for word in _words(name) if not word.isdigit()]
    certainties = [_certainty(word) for word in words]
    if not any(certainties) or name in ("PWD", "OLDPWD"):
        return False
    end = max(i for i, certainty in enumerate(certainties) if certainty)
    following = {*words[end + 1 :]} - _QUALIFIERS
    sure = max((i for i, certainty in enumerate(certainties) if certainty == 2), default=None)
    if sure is not None and not {*words[sure + 1 :]} - _QUALIFIERS:
        mixed = len(value) >= _SHORTEST_MIXED and not (value.isalpha() or value.isdigit())
        return len(value) >= SHORTEST or mixed
    if len(value) < SHORTEST:
        return False
    if looks_random(value) or _PASSWORD_IN_URL.search(value) or _TOKENS.search(value):
        return True
    is_credential = is_secret(name) and (words[end] not in ("key", "keys") or not _KEYS.isdisjoint(words[:end]))
    if not following and (is_credential or words[end].endswith("pass")) and not _is_address(value):
        return count_words(value) >= 3 or sum(bool(letters.search(value, 1)) for letters in _CHARACTER_CLASSES) > 1
    return value.count(" ") >= 3


def _certainty(word: str) -> int:
    """Certainty that a word in a name denotes a secret: 2 for surely, 1 for possibly, 0 for not."""
    if word.endswith(_SURE_ENDINGS):
        return 2
    is_key = word.endswith(("key", "keys")) and not _WORDS_WITH_KEY.fullmatch(word)
    return int(is_key or word.endswith(_POSSIBLE_ENDINGS))


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
                    text = _mask_value(text, form)
    return text


def _mask_value(text: str, secret: str) -> str:
    """Mask the value of a variable; if it may be a word, only where it is a whole word."""
    if len(secret) < SHORTEST or (secret.isalnum() and not looks_random(secret)):
        return re.sub(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])", MASK, text)
    return text.replace(secret, MASK)


def _named_values_masked(text: str) -> str:
    """Mask the values that follow names of secrets."""
    parts, end = [], 0
    for match in _NAME.finditer(text):
        name, sign, start, value_start = match["name"], match["sign"], match.start(), match.end()
        previous = text[start - 1] if start else ""
        is_setting = match["dashes"] or sign.strip("\"', \t")  # else two words of a sentence
        names_secret = is_secret(name) or (previous in ("?", "&") and name.lower() in _IN_QUERIES)
        if start < end or not is_setting or not names_secret:
            continue
        if previous in ("'", '"') and sign[0] == "=" and (closing := text.find(previous, value_start)) > 0:
            value, value_end = text[value_start:closing], closing  # '--password=two words'
        elif value_match := _QUOTED.match(text, value_start) or _BARE.match(text, value_start):
            value, (value_start, value_end) = value_match["value"], value_match.span("value")
        else:
            continue
        if value and "\n" not in value and not _NO_SECRET.fullmatch(value):
            parts += [text[end:value_start], MASK]
            end = value_end
    return "".join([*parts, text[end:]])
