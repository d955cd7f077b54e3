"""How the same thing is written in several ways, as data: numbers, months, units, abbreviations, titles.

Everything is matched against lower-case text without accents; see `tokens`.
"""

from __future__ import annotations

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

CARDINALS = {word: number for number, word in enumerate(_UNITS)} | {
    word: 10 * number for number, word in enumerate(_TENS, start=2)
}
"""Number words up to ninety."""

MULTIPLIERS = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12}

ORDINALS = {
    "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15, "sixteenth": 16,
    "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20, "thirtieth": 30,
}  # fmt: skip
"""Ordinal words. "first" is none of them: it mostly says earliest."""

ROMAN = {
    "ii": 2, "iii": 3, "iv": 4, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "xi": 11, "xii": 12, "xiii": 13, "xiv": 14,
    "xv": 15, "xvi": 16, "xvii": 17, "xviii": 18, "xix": 19, "xx": 20, "xxi": 21, "xxii": 22, "xxiii": 23,
}  # fmt: skip
"""Of more than one letter: single ones are too often initials."""

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip

LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i"})
"""Letters that do not come apart into a base and an accent."""

PHRASES = {
    r"\b(first|1st|great) world war\b|\bworld war (i|one|1)\b|\bww ?(i|1)\b": "world war 1",
    r"\b(second|2nd) world war\b|\bworld war (ii|two|2)\b|\bww ?(ii|2)\b": "world war 2",
    r"\bunited states of america\b|\bu\.s\.a\.?(?!\w)|\busa\b|\bu\.s\.(?!\w)": "united states",
    r"\bussr\b|\bu\.s\.s\.r\.?(?!\w)": "soviet union",
    r"\bu\.k\.(?!\w)|\buk\b|\bgreat britain\b": "united kingdom",
    r"\bm/s\b": "meter per sec",
    r"(?<=\w)/s\b|\bper second\b": " per sec",
    r"(?<=\d)\s?m\b": " meter",
    r"%": " percent ",
    r"\bper ?cent\b": "percent",
    r"\$": " dollar ",
    r"°\s*c\b": " degree celsius",
    r"°\s*f\b": " degree fahrenheit",
    r"°": " degree ",
    r"&": " and ",
    r"\bb\.\s?c\.(e\.)?|\bbce\b": " bc ",
    r"\ba\.\s?d\.|\bce\b": " ad ",
}
"""Regular expressions and what they become, in this order."""

WORDS = {
    "jan": "january", "feb": "february", "mar": "march", "apr": "april", "jun": "june", "jul": "july",
    "aug": "august", "sep": "september", "sept": "september", "oct": "october", "nov": "november", "dec": "december",
    "twenties": "1920s", "thirties": "1930s", "forties": "1940s", "fifties": "1950s", "sixties": "1960s",
    "seventies": "1970s", "eighties": "1980s", "nineties": "1990s", "st": "saint", "1st": "first",
    "km": "kilometer", "kilometre": "kilometer", "kilometres": "kilometer", "kilometers": "kilometer",
    "metre": "meter", "metres": "meter", "meters": "meter", "miles": "mile", "feet": "foot", "ft": "foot",
    "kg": "kilogram", "kilogramme": "kilogram", "kilograms": "kilogram", "pounds": "pound", "dollars": "dollar",
    "tons": "ton", "tonnes": "ton", "degrees": "degree", "colour": "color", "programme": "program",
    "centre": "center", "theatre": "theater", "defence": "defense", "organisation": "organization",
    "aeroplane": "airplane", "labour": "labor", "harbour": "harbor", "grey": "gray",
}  # fmt: skip
"""Words and their common spelling."""

UNITS = frozenset((
    "kilometer", "meter", "mile", "foot", "kilogram", "pound", "ton", "percent", "degree", "celsius", "fahrenheit",
    "bc", "ad", "dollar", "euro", "year", "years", "day", "days", "hour", "hours", "minute", "minutes", "week",
    "weeks", "month", "months", "century", "per", "sec",
))  # fmt: skip
"""What a number can be of; two numbers of different units are not the same."""

TITLES = frozenset((
    "mr", "mrs", "ms", "miss", "dr", "sir", "lord", "lady", "dame", "president", "king", "queen", "emperor", "empress",
    "tsar", "pope", "saint", "prince", "princess", "duke", "general", "admiral", "colonel", "captain", "major",
    "professor", "senator", "chancellor", "minister", "premier", "chairman", "inventor", "painter", "composer",
    "brothers", "brother", "sisters", "sister", "river", "lake", "mount", "city", "fc", "jr", "sr", "inc", "ltd", "co",
))  # fmt: skip
"""What stands beside a name and is not part of it."""

STOPWORDS = frozenset((
    "a", "an", "the", "of", "in", "on", "at", "to", "by", "for", "from", "with", "and", "or", "as", "is", "was",
    "were", "are", "be", "been", "it", "its", "this", "that", "these", "those", "he", "she", "his", "her", "him",
    "they", "them", "their", "who", "whom", "whose", "which", "what", "when", "where", "why", "how", "did", "do",
    "does", "has", "have", "had", "i", "you", "we", "my", "your", "our", "there", "then", "also", "some", "about",
    "de", "da", "di", "du", "la", "le", "von", "van", "der", "den", "al", "ibn",
))  # fmt: skip
"""Words that say nothing about whether an answer is right."""
