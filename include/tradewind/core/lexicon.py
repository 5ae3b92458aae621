"""A keyless scorer of crypto headlines: a short list of words and what each usually means for the price.

It is crude and says so (its scores are stored under the scorer's name "lexicon"). Words are matched whole, a negation
within the three words before turns a word's sign, and the sum is squashed by tanh into (-1, 1).
"""

from __future__ import annotations

import math
import re

SCORER_NAME = "lexicon"

# Weights are the author's judgement on a scale where 1 is a plain good or bad word; phrases come before their words.
_PHRASES = {
    "all time high": 1.6,
    "record high": 1.5,
    "record inflows": 1.6,
    "spot etf approved": 2.0,
    "short squeeze": 0.8,
    "rate cut": 0.8,
    "rate hike": -0.8,
    "all time low": -1.6,
    "record low": -1.5,
    "record outflows": -1.6,
    "rug pull": -2.0,
    "death cross": -1.0,
    "golden cross": 1.0,
    "sell off": -1.3,
    "bank run": -1.6,
    "class action": -1.0,
    "halts withdrawals": -2.0,
    "suspends withdrawals": -2.0,
}
_WORDS = {
    **dict.fromkeys(("surge", "surges", "surged", "soar", "soars", "soared", "skyrockets"), 1.4),
    **dict.fromkeys(("rally", "rallies", "rallied", "jump", "jumps", "jumped", "breakout", "rebound", "rebounds"), 1.0),
    **dict.fromkeys(("rise", "rises", "rose", "gain", "gains", "climb", "climbs", "recovers", "recovery"), 0.7),
    **dict.fromkeys(("bullish", "optimism", "optimistic", "outperforms", "accumulate", "accumulation"), 1.0),
    **dict.fromkeys(("approval", "approved", "approves", "adoption", "adopts", "partnership", "integrates"), 0.9),
    **dict.fromkeys(("inflow", "inflows", "upgrade", "upgrades", "launches", "milestone", "buyback"), 0.6),
    **dict.fromkeys(("crash", "crashes", "crashed", "plunge", "plunges", "plunged", "collapse", "collapses"), -1.6),
    **dict.fromkeys(("plummet", "plummets", "tumble", "tumbles", "selloff", "capitulation", "dump", "dumps"), -1.3),
    **dict.fromkeys(("fall", "falls", "fell", "drop", "drops", "dropped", "slide", "slides", "slips", "losses"), -0.8),
    **dict.fromkeys(("bearish", "fear", "fears", "panic", "warning", "warns", "weakness", "outflow", "outflows"), -0.9),
    **dict.fromkeys(("hack", "hacked", "hackers", "exploit", "exploited", "stolen", "breach", "theft"), -1.8),
    **dict.fromkeys(("fraud", "scam", "ponzi", "bankrupt", "bankruptcy", "insolvent", "insolvency"), -1.9),
    **dict.fromkeys(("lawsuit", "sues", "sued", "charges", "charged", "probe", "investigation", "subpoena"), -1.1),
    **dict.fromkeys(("ban", "bans", "banned", "crackdown", "delist", "delists", "delisting", "sanctions"), -1.3),
    **dict.fromkeys(("liquidated", "liquidation", "liquidations", "outage", "halted", "delay", "delays"), -0.9),
}
_NEGATIONS = frozenset(
    ("not", "no", "never", "without", "denies", "denied", "rejects", "despite", "avoids", "unlikely")
)
_NEGATION_REACH_WORDS = 3
_TOKEN = re.compile(r"[a-z][a-z']*")


def lexicon_score(title: str, summary: str) -> float:
    """The tone of one article, in (-1, 1); 0.0 when no known word occurs. The title counts twice."""
    total = 2.0 * _tone(title) + _tone(summary)
    return math.tanh(total / 3.0)


def _tone(text: str) -> float:
    words = _TOKEN.findall(text.casefold().replace("-", " "))
    total = 0.0
    position = 0
    while position < len(words):
        weight, length = _weight_at(words, position)
        if weight:
            before = words[max(0, position - _NEGATION_REACH_WORDS) : position]
            total += -weight if _NEGATIONS.intersection(before) else weight
        position += length
    return total


def _weight_at(words: list[str], position: int) -> tuple[float, int]:
    """Weight of the longest entry that starts here, and how many words it takes."""
    for length in (3, 2):
        phrase = " ".join(words[position : position + length])
        if phrase in _PHRASES:
            return _PHRASES[phrase], length
    return _WORDS.get(words[position], 0.0), 1
