"""A text cut into sentences, the same way everywhere: by rules, without a model. The rules are ours.

A sentence ends at `.`, `!`, `?`, `…` with what closes quotes and brackets after it, where a space follows; at `。`,
`！`, `？` in any case; and at an empty line. It goes on

* inside numbers and names (`3.5`, `example.org`): no space follows,
* where a small letter follows (`"Really?" he asked.`, `Wait... what?`), unless the text has no capitals at all,
* after a title or an initial (`Dr. Smith`, `J. Smith`), and after the number of an item of a list (`1. Open it.`),
* after an abbreviation that a number follows (`Fig. 2`, `No. 5`), and after one with dots inside (`U.S. Army`) unless
  a word follows that sentences begin with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

_CLOSERS = "\"'”’»)\\]」』）】"
_END = re.compile(
    rf"(?P<cjk>[。！？｡]+[{_CLOSERS}]*\s*)|(?P<end>[.!?…]+)[{_CLOSERS}]*(?P<space>\s+|$)|(?P<blank>[^\S\n]*\n\s*\n\s*)"
)
_BEFORE = re.compile(r"[^\s\"'“‘«(\[「『（]*$")
# So far is looked for the next word.
_AHEAD = 40
_OPENERS = "\"'“‘«([「『（ \t\n"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What never ends a sentence.
_GO_ON = _words(
    "mr mrs ms mx dr prof st gen col sgt capt lt cmdr adm rev hon pres gov sen rep mt ft messrs mme mlle vs cf e.g i.e"
)
# Before a number they go on; otherwise `no.` ends a sentence like any word.
_BEFORE_NUMBERS = _words("no nos fig figs vol vols p pp ch sec eq eqs art op approx ca est")
_WITH_DOTS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]$")
_TIMES = frozenset({"a.m", "p.m"})
_BEGINNINGS = _words(
    "the a an this that these those it he she we they you i there here his her its our their my your in on at after "
    "before when while then but and so however what who where why how is are was were"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; `"".join` of them is the text without its outer spaces.

    Spaces between two sentences belong to the first. A text of spaces has none.
    """
    text = text.strip()
    cuts = [0, *_cuts(text), len(text)]
    return [text[begin:end] for begin, end in pairwise(cuts) if begin < end]


def _cuts(text: str) -> Iterator[int]:
    has_capitals = any(letter.isupper() for letter in text)
    begin = 0
    for found in _END.finditer(text):
        if found["end"] and found["space"].count("\n") < 2 and not _ends(text, begin, found, has_capitals):
            continue
        begin = found.end()
        yield begin


def _ends(text: str, begin: int, found: re.Match[str], has_capitals: bool) -> bool:
    """Whether a sentence that began at `begin` ends at this mark."""
    after = text[found.end() : found.end() + _AHEAD].lstrip(_OPENERS)
    if has_capitals and after[:1].islower():
        return False
    if found["end"] != ".":
        return True
    before = _BEFORE.search(text, begin, found.start("end"))
    assert before is not None
    word = before[0].lower()
    # An item's number or letter stands where the sentence begins.
    if before.start() == begin and (word.isdigit() or len(word) == 1):
        return False
    if word in _GO_ON or (len(word) == 1 and before[0].isupper() and word != "i"):
        return False
    if word in _BEFORE_NUMBERS:
        return not after[:1].isdigit()
    if _WITH_DOTS.match(word) and word not in _TIMES:
        follows = re.match(r"\w+", after)
        return follows is None or follows[0].lower() in _BEGINNINGS
    return True
