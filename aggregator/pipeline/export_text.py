"""The texts of a public release: how it was made, and what the month was, in plain English.

They say only what the tables, the receipt and the profile carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aggregator.model.numbers import size
from aggregator.model.profile import Profile
from aggregator.rules.public import Kind, Release, Withheld

FEW_NOTICES: Final = 10
_WHY: Final[Mapping[Withheld, str]] = {
    Withheld.NO_USAGE: "The tables hold no usage of this month.",
    Withheld.FEW_USERS: "No location had enough users in this month.",
    Withheld.NOT_VERIFIED: (
        "Before the counters of this month were destroyed, its tables did not agree with them,"
        " so nothing is told from these tables."
    ),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """All that the texts tell of: `notices` and `rejected` are counts of the month.

    `most_notices` is the largest number of notices of one rule, step and audience.
    """

    month: str
    release: Release
    profile: Profile
    receipt: Mapping[str, Any]
    receipt_sha256: str
    notices: int
    most_notices: int
    rejected: Mapping[str, int]


def method(facts: Facts) -> str:
    """Return the method note: the rules, what is not in the release, and why."""
    release, profile = facts.release, facts.profile
    k = release.k
    return "\n".join(
        [
            f"# How the release of {facts.month} was made\n",
            *_rehearsal(facts),
            "## Where the numbers come from\n",
            "VPN servers report a running total of bytes per account and day, and connection"
            " counts per location without an account. They are sealed, added up to tables without"
            " a person in them, and destroyed after the month's end. This release is made from"
            " those tables only, after the counters were destroyed.\n",
            "## Which rows there are\n",
            f"- k is {k}: a location is named only if at least {k} distinct users had traffic"
            " there in the month.",
            "- Any other location is folded into the region that the policy names for it, else"
            " into `other`; those with the fewest users first, ties by name.",
            "- Users of several locations together are not known, since one may have used both."
            " What is certain is the largest of them: so a fold is told only if one member alone"
            f" has {k} users, and takes in the next smallest location until that is so. It never"
            " stands for a single location that is not named.",
            "- No traffic is dropped: the bytes of all rows together are exactly those of the"
            " tables. So nothing is left to find by subtracting rows from a total.",
            "- If no fold can pass, the whole month is withheld.\n",
            *_withheld(facts),
            "## What a single user can have of a row\n",
            f"In every row of the tables the largest user has at most {profile.largest_percent} %"
            f" of the bytes, the two largest at most {profile.two_largest_percent} %. A fold of"
            " such rows keeps to both: what a user, or any two, have of the fold is the sum of"
            " what they have of its rows, in each of which they have no more than its largest,"
            " or its two largest, do.\n",
            "## Columns\n",
            "- `users` are distinct users of the month. They are exact for a named location, and"
            " empty for a fold. Users of several rows must not be added up.",
            "- Percentiles are of named locations only, to three significant digits, and only"
            f" where {k} users lie above them by rank: p50 from {2 * k:,} users on, p90 from"
            f" {10 * k:,}, p99 from {100 * k:,}.",
            "- `attempts` and `successes` are sums over the days on which the tables name the"
            " location. Connections carry no user. So they are told of a row only if one location"
            f" in it had traffic of {k} distinct users in the month, who must have connected there,"
            f" and connections of no fewer than {k} users in all days together. That holds where"
            " the servers that report traffic report connections too. Of any other row, and of"
            " what the tables folded into `other`, they are empty; they cannot be found from the"
            " rest, since no total of them is told.\n",
            "## What is not in it, and why\n",
            "- Countries, internet providers, apps and versions: their tables hold the users of"
            f" days, not the distinct users of the month, so {k} users cannot be shown for a row.",
            "- Days: a day tells more of a person than a month.",
            "- The number of all users: one who used two locations is in both rows.",
            "- Bytes that arrived after their day was closed: it is not known here how many users"
            " are behind them.",
            "- Anything about a single user: it was destroyed, as transparency.md says.\n",
            "## What to keep in mind\n",
            "- VPN daemons count different things: tunnel payload, IP or Ethernet. The same"
            " traffic differs by 2 to 5 % between them. Nothing is corrected.",
            "- A row is exact, no noise is added. That a location is named in one month and not in"
            f" another tells that it had {k} users in the one; its bytes of a month without a row"
            " are in a fold, and can be guessed from months with one, but not known.",
            f"- The tables themselves have rows of {profile.k} users and more. They are for the"
            " operator and are not published.",
            "- A release is immutable: there is one of a month, and it is never changed.\n",
        ]
    )


def transparency(facts: Facts) -> str:
    """Return the text for a transparency report."""
    return "\n".join(
        [
            f"# Transparency report, {facts.month}\n",
            *_rehearsal(facts),
            "## The month in numbers\n",
            *_numbers(facts),
            "\n## Fair use\n",
            _notices(facts.notices, facts.most_notices),
            "\n## Records that were refused\n",
            *_rejected(facts.rejected),
            "\n## What was destroyed\n",
            *_destroyed(facts.receipt),
            "\n## What could be handed over about a user of this month\n",
            *_handed_over(facts),
            "",
        ]
    )


def _rehearsal(facts: Facts) -> Iterator[str]:
    if facts.receipt["rehearsal"]:
        yield "**This is a rehearsal: the clock of this home is set by hand.**\n"


def _withheld(facts: Facts) -> Iterator[str]:
    if facts.release.withheld is not None:
        yield f"**This month is withheld.** {_WHY[facts.release.withheld]}\n"
    elif facts.release.connections_withheld:
        yield "**Some connections are withheld**: see the columns below.\n"


def _numbers(facts: Facts) -> Iterator[str]:
    release = facts.release
    if release.withheld is not None:
        yield f"Withheld. {_WHY[release.withheld]}"
        return
    named = sum(1 for cell in release.cells if cell.kind is Kind.LOCATION)
    total = sum(cell.bytes for cell in release.cells)
    yield f"- Traffic: {total:,} bytes ({size(total)}), both directions added."
    yield f"- Locations with at least {release.k} users, which are named in `usage.csv`: {named}."
    attempts = sum(cell.attempts or 0 for cell in release.cells)
    successes = sum(cell.successes or 0 for cell in release.cells)
    if attempts:
        share = f"{100 * successes / attempts:.1f}"
        rows = " of the rows that tell them" if release.connections_withheld else ""
        yield f"- Connections{rows}: {attempts:,} attempts, {successes:,} succeeded ({share} %)."
    elif release.connections_withheld:
        yield "- Connections: withheld, there were too few users to tell of them."
    else:
        yield "- Connections: the tables hold none."


def _notices(count: int, most: int) -> str:
    """Tell the sum only where a rule's step, of which a user has one notice, had enough of them.

    Few users could have many notices, of several steps and addressees.
    """
    what = "A notice is one for a user, a rule, a step of it and whoever it is addressed to."
    whom = "Whom they were about is not kept."
    if most < FEW_NOTICES:
        return (
            f"Notices that a rule of fair use was exceeded: no step of any rule had {FEW_NOTICES}"
            f" or more, so their number is not told. {what} {whom}"
        )
    return f"Notices that a rule of fair use was exceeded: {count:,}. {what} {whom}"


def _rejected(counts: Mapping[str, int]) -> Iterator[str]:
    total = sum(counts.values())
    yield (
        f"Records that arrived in the month and were refused: {total:,}. Of a refused record only"
        " the reason is counted; no value of it is kept. One that is sent again counts again."
    )
    if counts:
        yield "\n| reason | records |\n|---|---:|"
    for reason, records in sorted(counts.items()):
        yield f"| {reason} | {records:,} |"


def _destroyed(receipt: Mapping[str, Any]) -> Iterator[str]:
    gone = receipt["destroyed"]
    late = "more than 24 hours after it was due" if receipt["late"] else "on time"
    yield f"- The counters of {receipt['month']} were destroyed at {receipt['purged_at']}, {late}."
    yield f"- It was due at {receipt['due_at']}."
    if receipt["verified"]:
        yield "- Before that the tables were compared with the counters, and agreed."
    else:
        problems = _counted(len(receipt["problems"]), "problem")
        yield (
            "- Before that the tables were compared with the counters, and did not agree:"
            f" {problems}. The counters were destroyed all the same."
        )
    keys, files = _counted(gone["key_sets"], "key set"), _counted(gone["segments"], "sealed file")
    yield f"- Destroyed: {keys}, and {files} of counters that nothing else opens."
    yield f"- How: {receipt['method']}."
    if receipt["weakness"]:
        yield f"- A weakness of this method here: {receipt['weakness']}."
    for caveat in receipt["caveats"]:
        yield f"- {caveat}"


def _handed_over(facts: Facts) -> Iterator[str]:
    yield (
        f"From this system: nothing. Since {facts.receipt['purged_at']} it holds no counter, no key"
        f" and no notice of a user of {facts.month}; what is left are tables without a person in"
        " them. The proof is the receipt of the purge, whose SHA-256 is"
        f" `{facts.receipt_sha256}`; the audit log names it too."
    )
    if facts.receipt["weakness"]:
        yield ("\nThat holds as far as what was overwritten is gone; see the weakness named above.")
    yield (
        "\nThis text is made from the tables, the receipt and the policy alone. It does not say"
        " what other systems of the provider hold, such as accounts, or copies made below this"
        " software; nor whether, or how often, anybody asked for data."
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
