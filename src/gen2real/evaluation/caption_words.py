"""Captions as words, for scoring: the Penn Treebank's tokens in lower case, less punctuation.

Written from the rules, to agree on captions with what coco-caption does: Stanford's PTBTokenizer 3.4.1 with -lowerCase,
then its list of removed tokens. It differs on little that captions have: smileys, e-mail addresses, rock'n'roll, y'all,
signs run together with numbers, unusual abbreviations before a full stop.
"""

from __future__ import annotations

import re

# What coco-caption removes. Its list has -LRB- and -RRB- in capitals, which lower-cased tokens never are, so there
# brackets stay as words, and so they do here; a run of ? and ! is no "?" either.
_REMOVED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))

_ALIKE = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "´": "'", "—": "--", "–": "--", "…": "...", "\u00a0": " "}
    | {"½": "1/2", "¼": "1/4", "¾": "3/4", "\u00ad": None}
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_IN_TWO = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "lemme": ("lem", "me"),
    "gimme": ("gim", "me"),
    "'tis": ("'t", "is"),
    "'twas": ("'t", "was"),
}
_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|inc|corp|ltd|co|mt|ft|ave|blvd|rd|gen|col|sgt|capt|rev|gov|sen|rep|al"
)

_TOKEN = re.compile(
    rf"""
      '(?:tis|twas)\b                                     # ’tis, ’twas
    | (?<!\S)'\d\ds?\b                                    # the ’80s
    | (?:[a-z]\.)+[a-z]\.                                 # a.m., u.s.
    | (?:{_ABBREVIATIONS})\.(?![^\W_])                    # mr., st.
    | no\.(?=\ ?\d)                                       # no. 5
    | (?<!\S)[-+]\d+(?:[.,]\d+)*                         # -3, +0.5
    | \d+(?:[.,:]\d+)+(?![^\W_])                          # 3.5, 1,000, 3:45
    | [^\W_]+(?:(?:[-/.!?&]|'(?!\d))[^\W_]+)*             # red-and-white, o'clock, don't, and/or
    | [?!]{{2,}} | \.{{2,}} | -{{2,}} | ([*=~])\1+
    | \S
    """,
    re.VERBOSE,
)
_SHORT_FORM = re.compile(r"(.+?)(n't|'s|'re|'ve|'ll|'d|'m)((?:'ve|'d|'s)*)$")


def caption_words(caption: str) -> list[str]:
    """The words that scores count: `A man's T-shirt, it isn't red.` → a man 's t-shirt it is n't red.

    Hyphenated words stay one, contractions and possessives become two as in the Penn Treebank; brackets become -lrb-
    and -rrb- as in coco-caption, where they count.
    """
    words: list[str] = []
    for match in _TOKEN.finditer(caption.translate(_ALIKE).lower()):
        found = match.group()
        if found in _REMOVED or found == '"' or set(found) == {"."}:
            continue
        if found in _BRACKETS:
            words.append(_BRACKETS[found])
        elif found in _IN_TWO:
            words.extend(_IN_TWO[found])
        elif "'" in found:
            words.extend(_parts(found))
        else:
            words.append(found)
    return words


def _parts(word: str) -> list[str]:
    """don't → do, n't; couldn't've → could, n't, 've; o'clock stays."""
    found = _SHORT_FORM.match(word)
    if found is None:
        return [word]
    stem, first, more = found.groups()
    return [stem, first, *re.findall(r"'[a-z]+", more)]
