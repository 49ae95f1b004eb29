"""Class names → folder names that every file system keeps apart."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

LONGEST = 64

# Windows opens devices under these names, with any extension.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}


def slug(name: str) -> str:
    """A folder name for `name`: 1 to 64 characters of a-z, 0-9 and "-", neither first nor last of them "-".

    Accents are dropped, other signs become "-". Letters of other scripts cannot be kept in ASCII, so eight hexadecimal
    digits of the name's SHA-256 stand for them, as they do for what a long name loses.
    """
    whole = unicodedata.normalize("NFC", name)
    bare = "".join(
        sign for sign in unicodedata.normalize("NFKD", whole.casefold()) if not unicodedata.combining(sign)
    ).casefold()
    loses_letters = any(sign.isalnum() and not sign.isascii() for sign in bare)
    short = re.sub(r"[^a-z0-9]+", "-", bare).strip("-")
    if not short or loses_letters or len(short) > LONGEST:
        mark = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        kept = short[: LONGEST - 9].strip("-") or "class"
        return f"{kept}-{mark}"
    return f"{short}-name" if short in _RESERVED else short


class SlugBook:
    """Gives out slugs, none of them twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """The slug of `name`, with "-2", "-3", … behind it where it is already taken."""
        first = slug(name)
        candidate = first
        count = self._next.get(first, 2)
        while candidate in self._taken:
            tail = f"-{count}"
            candidate = first[: LONGEST - len(tail)].rstrip("-") + tail
            count += 1
        self._next[first] = count
        self._taken.add(candidate)
        return candidate


def unique_slugs(names: Iterable[str]) -> list[str]:
    """One slug a name, in order, all different (also where case does not count): equal names get different slugs."""
    book = SlugBook()
    return [book.unique(name) for name in names]
