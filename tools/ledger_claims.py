"""The ledger of claims: each with its verdict, the evidence, and what the intervals cover."""

from __future__ import annotations

from icstn.evidence.claims import CLAIMS, Claim, Judgement, judge
from icstn.evidence.collection import Evidence
from icstn.evidence.estimates import coverage
from tools.ledger_text import BADGES, MARKS, NOTE, escaped, plain, tally, wrap


def claims_page(evidence: Evidence, documents: set[str]) -> str:
    """book/claims.md."""
    judged = [(c, judge(c, evidence)) for c in CLAIMS]
    out = [
        NOTE,
        "# The paper's claims\n",
        wrap(
            "Each statement of the paper that can be checked, in our words, with a verdict that code "
            "reached from the published Records or from a computation. A comparison *holds* when the "
            "95 % interval of the difference lies on the claimed side, *does not hold* when it lies "
            "on the other, and is *undecided* in between or when a run is missing. Where a claim takes "
            "several comparisons they are corrected for being many (Holm): one that does not survive this is "
            "undecided, whatever its own interval says. A claim holds when all its comparisons do, "
            "and *holds in part* when some do and some do not. Judged is the best preset that has the runs; "
            "where the paper's own training was run, and says the opposite of a comparison that holds, this "
            "counts as one that does not. What counts as little or negligible is for us "
            "to say; each such limit stands beside the limits at which the verdict would change."
        ),
        "",
        wrap(
            "All models of a table meet the same test items under the same perturbations, and differences "
            "are taken item by item. What one network does twice, such as its error after four operations "
            "and after twelve, is compared run by run as well. What an interval covers depends on how many "
            "seeds there are, and is said at each claim: with several seeds it covers test items and seeds "
            "(of test errors by a two-level bootstrap; of others, such as a zoom, by a jackknife "
            "over twenty groups of the items, joined with the spread of the seeds), with one seed the test "
            "items alone. How much a difference would change with another seed can't be known from one, so "
            "that a verdict from one seed is one about these trained networks, not yet about the models."
        ),
        "",
        wrap(
            "No rule was registered before its runs. Most were written beside the first ones; many were "
            "rethought after a critical reading of these, which the changelog has. Where a change made "
            "another verdict of published runs, the claim says so. Table 2 had three seeds a cell at first, "
            "and got five when some verdicts stayed open: their intervals are those of a number fixed in "
            "advance, which it was not."
        ),
        f"\n**{tally(j.verdict for _, j in judged)}**\n",
        "| | claim | place |\n|:-:|---|---|",
        *(f"| {MARKS[j.verdict]} | [{c.statement}](claim-{c.name}) | {c.place} |" for c, j in judged),
        "",
        *(_claim(c, j, documents) for c, j in judged),
    ]
    return "\n".join(out).rstrip() + "\n"


def _claim(c: Claim, j: Judgement, documents: set[str]) -> str:
    lines = [f"(claim-{c.name})=", f"## {MARKS[j.verdict]} {plain(c.statement)}\n"]
    lines += [f"{{{BADGES[j.verdict]}}}`{j.verdict}` &nbsp; {c.place}{_basis(j, c)}\n"]
    lines += [wrap(f"*Rule.* {c.rule}") + "\n"] if c.rule else []
    lines += [wrap(f"*Rule changed with runs seen.* {c.changed}") + "\n"] if c.changed else []
    lines += [f"- {MARKS[f.verdict]} {escaped(f.text)}" for f in j.findings]
    lines += [f"- ? {escaped(j.missing)}"] if j.missing else []
    shown = [f"{{doc}}`{name}`" for name in c.shown if name in documents]
    lines += [f"\nShown in {' and '.join(shown)}." if shown else "", ""]
    return "\n".join(lines)


def _basis(j: Judgement, c: Claim) -> str:
    if c.kind == "computation":
        return " · a computation"
    if not j.presets:
        return ""
    presets = ", ".join(f"`{preset}`" for preset in j.presets)
    return f" · Records of preset {presets}; {coverage(j.seeds)}"
