"""How models decline, hedge, deny and correct themselves, as data.

Everything here is matched without regard to case against `tokens.plain` text: no accents, straight apostrophes,
contractions written out ("do not"), single spaces. Most patterns see one clause at a time (`clauses`).
"""

from __future__ import annotations

import re

CONTRACTIONS = {
    r"\bcan't\b|\bcan not\b|\bcant\b": "cannot",
    r"\bwon't\b": "will not",
    r"\b(do|did|does|is|was|are|were|would|could|has|have|had|should)n'?t\b": r"\1 not",
    r"n't\b": " not",
    r"\bi'?m\b": "i am",
    r"\bi've\b": "i have",
    r"\bi'd\b": "i would",
    r"\bi'll\b": "i will",
    r"\byou've\b": "you have",
    r"\b(it|that|he|she|there|who|what|where)'s\b": r"\1 is",
}
"""In this order."""


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


_KNOWLEDGE = (
    r"(information|info|knowledge|data|details?|records?|recollection|memory|answers?|idea|clue|comment|familiarity)"
)
_ANY = (
    r"(any |enough |the |that |this |much |an |a |specific |reliable |detailed |further |relevant |such |sufficient "
    r"|accurate |more |real |good )*"
)
_TELL = (
    r"(answer|share|help|provide|say|tell|discuss|comment|assist|confirm|speak|talk|give|offer|respond|explain"
    r"|describe|recall|remember|think|find|identify|verify|recognize)"
)
_I = r"(?:\b(?:i|we) (?:\w+ )?|^)"
"""Whoever speaks: "He did not know" says something of somebody else."""
_NOT_SURE = (
    r"not (really |quite |entirely |completely |totally |absolutely |too |at all |100% )*(sure|certain|positive)"
)
_OF_WHAT = r"(about|of|who|whom|whose|what|when|where|why|how|which|if|whether|that|regarding|on|to)"

DECLINES = _any(
    # The document's three, and their relatives.
    rf"\bno {_ANY}{_KNOWLEDGE}\b",
    rf"{_I}(do|did) not (really |currently |actually )?(have|hold|possess) {_ANY}{_KNOWLEDGE}\b",
    rf"\b(do|does) not (contain|include) {_ANY}{_KNOWLEDGE}\b",
    rf"{_I}have not (got )?{_ANY}{_KNOWLEDGE}\b",
    rf"(\bam |\bbe |^){_NOT_SURE} {_OF_WHAT}\b",
    rf"\b(lack|without) {_ANY}{_KNOWLEDGE}\b",
    # Not knowing.
    rf"{_I}(do|did|would|could) not (really |actually |honestly )?(know|recall|remember|recognize|recognise)\b"
    r"(?! (exactly|for sure|for certain)\b)",
    r"\b(am|we are) (not (aware|familiar|acquainted|informed|knowledgeable)|unaware|unfamiliar)\b",
    r"\b(am|we are) unsure (about|of|what|who|when|where|if|whether)\b",
    r"\b(never|not) heard of\b",
    r"\bhave (never|not) (learned|learnt|encountered|come across)\b",
    r"\b(know|heard|recall|aware|across|found|find|see|have) (of )?(nothing|no such|no (event|person|book))\b",
    r"\bknow of no\b|\bnot (one|any|a \w+|something) (that |which )?i (know|recognize|remember)\b",
    r"\bnot sure i (follow|understand|know|can)\b",
    r"\b(is|are|remains?|lies?) (entirely |completely )?(unknown|not known|unfamiliar) to me\b",
    r"\bmeans? nothing to me\b|\bnot ring a bell\b|\bdunno\b",
    r"\bnothing (to say|on this|on that|about (this|that)|i can)\b",
    # Not being able, or allowed, to say.
    rf"\b(cannot|could not|unable to|not able to|not allowed to|not permitted to|will not|would not be able to) "
    rf"(even |really |honestly )?{_TELL}\b",
    rf"\b(would )?(rather|prefer) not (to )?{_TELL}\b",
    r"\b(told|asked|supposed|meant|instructed) not to\b|\bdecline to\b",
    r"\bneed more (information|context|details)\b|\bno way (for me to know|of knowing|to know|to tell)\b",
    r"^(it is |that is )?(hard|difficult|impossible) (for me )?to (say|tell|know)$|\bguess is as good as mine\b",
    r"\bnot (something|a (subject|topic|matter|question)) (that )?i (know|am|have|can|could)\b",
    # The edge of knowledge.
    r"\b(beyond|outside|not within|past) (the (scope|limits) of )?"
    r"(what i know|my (knowledge|training|information|expertise))\b",
    r"\bmy (knowledge|information|training)( data)? (does not|do not|ends|only goes|stops)\b",
    r"\bmy (knowledge |training )?cut-?off\b|\bnot (been )?trained on\b",
    r"\bnot (covered by|part of|in|included in) (the (material|data)|my (training|knowledge|data))\b",
    r"^no,? i do not$",
    # Other languages: Spanish, German, French, Italian, Portuguese, Dutch.
    r"\bno (tengo|dispongo de) (ninguna )?informacion\b|\bno (lo )?se\b|\blo siento\b",
    r"\b(habe|liegen) .{0,20}keine (information|informationen|kenntnis|angaben)|\bwei(ss|ß) .{0,20}nicht\b",
    r"\bne sais pas\b|\bpas d'information|\bje suis desole\b",
    r"\bnon (ho|dispongo di) informazioni\b|\bnon lo so\b|\bmi dispiace\b",
    r"\bnao (tenho|sei)\b|\bgeen (informatie|idee)\b|\bweet (ik )?(het |dat )?niet\b",
)
"""A clause with one of these declines."""

SOFTENERS = _any(
    rf"\b(am|be) {_NOT_SURE}\b",
    rf"^{_NOT_SURE}\b",
    r"\b(do|did) not know (exactly|for sure|for certain)\b",
    r"\bcannot be (entirely |completely )?(sure|certain)\b",
    r"\bunsure\b|\bnot 100 percent sure\b|\b(could|may|might) be (mistaken|wrong)\b",
    r"\b(my )?(sincere )?apologies\b|\bi apologi[sz]e\b",
    r"^(i am |we are |i am so |i am very |so |very )?sorry\b|\bsorry$",
    r"\b(i am )?afraid\b|\b(unfortunately|regrettably|sadly)\b",
)
"""A clause that says no more than this declines only if no other clause answers."""

FILLERS = _any(
    r"\b(is|was) there (anything|something) else\b",
    r"\b(help|assist) (you )?with (another|something|anything|other)\b",
    r"\bhappy to (help|assist|answer)\b|\bfeel free\b|\blet me know\b|\b(let me|to) be honest\b",
    r"\byou (may|might|could|should) (want|wish|like|try|consult|check|consider)\b",
    r"\bplease (consult|check|refer|ask)\b",
    r"\b(could|can) you (give|provide|tell|clarify|rephrase)\b|\bmore context\b",
    r"\bi (only )?(know|can tell you|can help|can speak) (only )?(about|of|events|things|with)\b",
    r"\bmy (knowledge|training|information|data)\b|\bas (a|an) (ai|language model|assistant)\b",
    r"\b(as far as|to the best of) (i|my)\b|\bthank(s| you) for\b|\bit concerns\b",
    r"\b(for the|any) (confusion|delay|inconvenience|wait)\b",
    r"\b(lie|lies|is|are) in the future\b",
)
"""What surrounds an answer or a refusal, and is none."""

CUES = _any(
    r"\bi (would )?(think|believe|guess|suspect|assume|suppose|say|imagine)\b",
    r"\b(best|my|a) guess\b|\bhad to guess\b|\bthe answer\b",
    r"\b(it|he|she|this|that|they) (was|is|were|are|might|may|could|must|would|happened|seems)\b",
    r"\b(probably|perhaps|maybe|likely|possibly|presumably|seems right|comes to mind)\b",
)
"""What tells that a clause beside a refusal answers all the same."""

_AUXILIARY = r"(did|do|does|was|were|is|are|has|have|had|could|would|will|can|should|be)"

NEGATED_VERB = _any(rf"\b{_AUXILIARY} (certainly |definitely |surely |actually )?not\b", r"\bcannot\b", r"\bnever\b")
"""Denies the whole clause."""

NEGATION = _any(
    r"\bnot\b", r"\bneither\b", r"\bnor\b", r"\b(rather|other) than\b", r"\binstead of\b", r"\bunlike\b",
    r"\bexcept\b", r"\bwithout\b", r"\bcontrary to\b", r"\bfar from\b",
)  # fmt: skip
"""Denies what follows it, up to the next comma."""

AFFIRMATIONS = _any(
    r"\bno (doubt|question)\b|\bwithout (a )?(doubt|question)\b|\bundoubtedly\b",
    r"\bnot (only|just|merely|until|before|surprisingly|least)\b",
    r"\b(none|no one|nobody) (other than|else than|but)\b",
    r"\bnothing (less|other) than\b|\bnot to (mention|forget)\b",
)
"""Look like negations, and are none."""

HEARSAY = _any(
    r"\b(many|most|some|people|everybody|often|commonly|it is) .{0,20}?"
    r"\b(believe[ds]?|say|said|think|thought|assumed?|claim(ed)?)\b",
)
"""What others say: taken back when another clause follows."""

CORRECTIONS = _any(
    r"\bno,? wait\b", r"\bwait,? no\b", r"\bactually,? no\b", r"\bcorrection\b", r"\blet me correct\b",
    r"\bscratch that\b", r"\bi mean\b", r"\bin (truth|fact|reality)\b",
)  # fmt: skip
"""Takes back what was said before it."""

ASIDES = re.compile(r",\s(?:who|whose|whom|which|where)\b[^,]*", re.IGNORECASE)
"""What is told in passing of somebody else."""

KIN = re.compile(
    r"\b[A-Z]\w+'s? (?:wife|husband|brother|sister|father|mother|son|daughter|teacher|student|pupil|successor|"
    r"predecessor|rival|friend|assistant|uncle|cousin)\b"
)
"""Somebody who is named by somebody else."""

SEVERAL = _any(r"\beither\b", r"\bor\b", r"\bbetween\b.*\band\b", r"\bone of\b")
"""Gives more than one answer, when other names or numbers stand in the clause."""

YES = _any(
    r"^(he|she|it|they|there|we|i) (did|does|was|were|is|are|has|have|had|could|can|would)( indeed)?$",
    r"^(yes|yeah|yep|indeed|correct|certainly|of course|true|absolutely|sure)\b",
)
NO = _any(r"^(no|nope|never|not|false|incorrect|nobody|none)\b")

REFUSAL_WORDS = frozenset((
    "apologies", "information", "share", "matter", "sure", "topic", "sorry", "know", "anything", "subject", "aware",
    "cannot", "answer", "not", "no", "but", "so", "any", "say", "tell", "talk", "about", "help", "question", "that",
    "nothing", "allowed", "able", "unable", "provide", "discuss", "afraid", "certain", "unfortunately", "details",
    "knowledge", "familiar", "heard", "never", "if", "whether", "can", "am", "me", "confirm", "regarding",
    "something", "event", "events", "such", "kind", "recall", "know", "idea", "record", "records", "earlier", "really",
    "else", "would", "could", "well", "hmm", "oh", "please", "more", "further", "called", "named", "out", "all",
))  # fmt: skip
"""Words of polite refusals; one that is also a word of the truth gives nothing away."""
