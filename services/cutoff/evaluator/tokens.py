"""Words as they are compared: one spelling for what can be written in several ways. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from cutoff.evaluator.phrases import CONTRACTIONS
from cutoff.evaluator.spellings import CARDINALS, LETTERS, MONTHS, MULTIPLIERS, ORDINALS, PHRASES, ROMAN, WORDS

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4\u0060\u2032\uff07", "'"))
_THOUGHTS = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_WORD = re.compile(r"\d+(?:\.\d+)?(?![^\W_])|[^\W_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)|(?<=\b\d) (?=\d{3}\b)|(?<=\b\d\d) (?=\d{3}\b)|(?<=\b\d{3}) (?=\d{3}\b)")
_YEAR_FIRST = re.compile(r"\b(\d{4})-(\d\d?)-(\d\d?)\b")
_YEAR_LAST = re.compile(r"\b(\d\d?)([./-])(\d\d?)\2(\d{4})\b")
_SHORT_YEAR = re.compile(r"(?<!\w)'(\d\d)\b(?!s)")
_ORDINAL = re.compile(r"\b(\d+)(?:nd|rd|th)\b|\b(\d*[02-9]1)st\b")
_SPELT_OUT = re.compile(r"\b(?:[^\W\d_]-){2,}[^\W\d_]\b")
_POSSESSIVE = re.compile(r"(?<=\w)'s\b")
_DOTTED = re.compile(r"\b(?:[^\W\d_]\.){2,}(?=\W|$)")


_CONTRACTIONS = [(re.compile(pattern, re.IGNORECASE), new) for pattern, new in CONTRACTIONS.items()]
_BARE_CONTRACTION = re.compile(
    r"\b(im|can ?not|cant|(do|did|does|is|was|are|were|would|could|has|have|had|should)nt)\b", re.IGNORECASE
)
_PHRASES = [(re.compile(pattern, re.IGNORECASE), new) for pattern, new in PHRASES.items()]
_ANY_PHRASE = re.compile("|".join(PHRASES), re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """A word or number in its common spelling."""

    text: str
    capital: bool = False
    """Whether it was written with a capital letter first."""
    shouted: bool = False
    """Whether it was written in capitals only, as acronyms are."""
    fresh: bool = True
    """Whether punctuation, or nothing, stands before it."""


def without_thoughts(text: str) -> str:
    """What was said aloud: without the blocks in which reasoning models think."""
    return _THOUGHTS.sub(" ", text)


def plain(text: str) -> str:
    """No thoughts, no accents, straight apostrophes, contractions written out, single spaces; capitals stay."""
    text = without_thoughts(text).translate(_APOSTROPHES)
    text = _without_accents(text)
    if "'" in text or _BARE_CONTRACTION.search(text):
        for pattern, replacement in _CONTRACTIONS:
            text = pattern.sub(replacement, text)
    return " ".join(text.split())


def normalise(text: str) -> str:
    """`plain` text in lower case."""
    return " ".join(_lower(plain(text)).split())


@lru_cache(maxsize=4096)
def tokens(text: str) -> tuple[Token, ...]:
    """The words and numbers of a text.

    Dates lose their format, numbers their words ("nineteen sixty-nine" is 1969, "7.2 million" 7200000), units and
    spellings their variants, names their possessive "s".
    """
    spelt = _rewritten(plain(text))
    found, end = [], 0
    for match in _WORD.finditer(spelt):
        raw, gap = match.group(), spelt[end : match.start()]
        word = _lower(raw)
        fresh = not end or bool(gap.strip(" -\"'*_"))
        found.append(Token(WORDS.get(word, word), raw[0].isupper(), len(raw) > 1 and raw.isupper(), fresh))
        end = match.end()
    return tuple(_counted(found))


def words(text: str) -> list[str]:
    """The texts of `tokens`; articles and the like included."""
    return [token.text for token in tokens(text)]


def stem(word: str) -> str:
    """A word without the ending that a plural or a tense adds; crude, and the same for everyone."""
    for ending in ("ing", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4 and not word.endswith("ss"):
            return word.removesuffix(ending)
    return word


def one_edit_apart(one: str, other: str) -> bool:
    """Whether a letter more, less or another makes two long words the same: a slip, most likely."""
    if min(len(one), len(other)) < 6 or abs(len(one) - len(other)) > 1 or not (one + other).isalpha() or one == other:
        return False
    short, long = sorted((one, other), key=len)
    at = next((index for index, char in enumerate(short) if char != long[index]), len(short))
    return short[at:] == long[at + 1 :] or short[at + 1 :] == long[at + 1 :]


def _lower(text: str) -> str:
    return _without_accents(text.casefold()).translate(LETTERS)


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))


def _rewritten(text: str) -> str:
    """Text whose phrases, dates and separators have one form."""
    if _ANY_PHRASE.search(text):
        for pattern, replacement in _PHRASES:
            text = pattern.sub(partial(_as, replacement), text)
    text = _YEAR_FIRST.sub(lambda match: _date(match[3], match[2], match[1]) or match[0], text)
    text = _YEAR_LAST.sub(_day_month_year, text)
    text = _SHORT_YEAR.sub(r"19\1", text)
    text = _SPELT_OUT.sub(lambda match: match[0].replace("-", ""), text)
    text = _ORDINAL.sub(lambda match: match[1] or match[2], text)
    text = _POSSESSIVE.sub("", text)
    text = _DOTTED.sub(lambda match: match[0].replace(".", ""), text)
    return _THOUSANDS.sub("", text)


def _as(replacement: str, match: re.Match[str]) -> str:
    """A replacement with capitals where the original had them: names stay names."""
    return replacement.title() if match[0][:1].isupper() else replacement


def _day_month_year(match: re.Match[str]) -> str:
    first, second, year = match[1], match[3], match[4]
    if int(second) > 12:  # the American order
        first, second = second, first
    return _date(first, second, year) or match[0]


def _date(day: str, month: str, year: str) -> str:
    return f"{int(day)} {MONTHS[int(month) - 1].title()} {year}" if 1 <= int(month) <= 12 else ""


def _counted(found: Sequence[Token]) -> Iterator[Token]:
    """Puts number words together, and numbers with their million."""
    at = 0
    while at < len(found):
        number, after = _number(found, at)
        if number is None:
            token = found[at]
            value = ROMAN.get(token.text) if token.capital else None
            yield token if value is None else Token(str(value), fresh=token.fresh)
            at += 1
        else:
            yield Token(number, fresh=found[at].fresh)
            at = after


def _number(found: Sequence[Token], at: int) -> tuple[str | None, int]:
    """The number whose words begin at an index, and the index after it."""
    total, current, seen, last = 0.0, 0.0, False, 0.0
    while at < len(found):
        word = found[at].text
        if seen and found[at].fresh:
            break
        value = _value(word)
        if value is not None:
            if not seen:
                current = value
            elif last >= 100 or (20 <= last < 100 and last % 10 == 0 and value < 10):
                current += value
            elif 10 <= last < 100 and 10 <= value < 100 and word in CARDINALS:  # nineteen sixty-nine
                current = current * 100 + value
            else:
                break
            if not word.isalpha() and seen:
                break
        elif word in MULTIPLIERS and seen:
            value = float(MULTIPLIERS[word])
            current = current * value
            if value > 100:
                total, current = total + current, 0.0
        elif word == "and" and seen and last >= 100 and at + 1 < len(found) and found[at + 1].text in CARDINALS:
            at += 1
            continue
        else:
            break
        seen, last = True, value
        at += 1
        if word in ORDINALS:
            break
    if not seen:
        return None, at
    number = total + current
    return (str(int(number)) if number == int(number) else str(number)), at


def _value(word: str) -> float | None:
    if re.fullmatch(r"\d{1,15}(\.\d+)?", word):
        return float(word)
    return float(CARDINALS[word]) if word in CARDINALS else float(ORDINALS[word]) if word in ORDINALS else None
