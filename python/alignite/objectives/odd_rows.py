"""Odd rows that are used: the words that reports count them by, and what methods make of them."""

from __future__ import annotations

from collections.abc import Mapping

ONE_REPLY = "a ranking of one reply, which compares nothing"
ALL_TIE = "a ranking whose replies all tie, which compares nothing"
TIES = "a ranking with ties, which are not compared"
PAIR_TIE = "a pair whose p is 1/2, a tie"
UNLIKELY = "a pair whose p says that the rejected reply is the better one"
ALL_NEUTRAL = "a solution whose rated steps are all neutral"

LABELLED_BAD = "a reply labelled bad"
"""No oddity to methods that read labels, so reports do not count it; the trainer does for those that do not."""

MARGIN = "a pair with a margin"
"""No oddity either; the trainer counts it for methods that do not read it."""

WEIGHTLESS = "a weight of 0"
"""By the words of rows that preparing leaves out."""

NOTHING = "nothing is learned from it"

USUAL = ""
"""What a method's rows are by its nature, which is not told."""

P_UNREAD: Mapping[str, str] = {
    PAIR_TIE: "this method does not read p, so chosen is the better one",
    UNLIKELY: "this method does not read p, so chosen is the better one",
}
"""For methods that take every chosen reply for the better one."""

MARGIN_UNREAD: Mapping[str, str] = {MARGIN: "this method does not read it"}
"""For methods to which every pair is the same step."""

PAIRS_ONLY: Mapping[str, str] = {ONE_REPLY: NOTHING, ALL_TIE: NOTHING}
"""For methods all of whose terms are over pairs."""

IMITATED: Mapping[str, str] = {ONE_REPLY: "it is imitated only", ALL_TIE: "all its replies are imitated, none ranked"}
"""For methods that imitate the best reply of every record besides."""
