"""The ledger of recipes: what was tried on validation data, what came of it, and what was chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Set
from itertools import chain

import numpy as np

from icstn.evidence.estimates import significant
from icstn.evidence.trace import duration
from icstn.experiments import EXPERIMENTS, Record, RunSpec, cells
from icstn.experiments.recipes import varied
from icstn.experiments.search import SPACES, WAITING, Candidate, SearchOutcome, Try
from tools.ledger_text import NOTE, wrap

#: What each field is, in a word.
WORDS = {
    "rate_predictor": "predictor's rate",
    "rate_classifier": "classifier's rate",
    "clip": "bound on the predictor's gradient",
    "appearance": "augmentation of appearance",
    "average": "averaging of weights",
    "std_classifier": "spread of the classifier's initial weights",
}


def recipes_page(outcomes: Mapping[str, SearchOutcome], records: Iterable[Record]) -> str:
    """book/recipes.md.

    Args:
        outcomes: table → its search, of those that were run.
        records: the published ones.
    """
    done = {record.spec for record in records}
    out = [NOTE, "# How the recipes were chosen\n", wrap(_INTRODUCTION), ""]
    for name in SPACES:
        found = outcomes.get(name)
        out += [f"({name.replace('_', '-')}-recipe)=", f"## {EXPERIMENTS[name].title}\n"]
        out += _of_table(found, done) if found else [_not_searched(name)]
    return "\n".join(out).rstrip() + "\n"


_INTRODUCTION = """
The preset `full` trains each table by one recipe, and some rows by one of their own. Where a search has
been run, code chooses it, on a validation set that is held out of the training data (the last 10,000
training digits; of the traffic signs every sixth physical sign of a class; of the photograph other
draws), in a search of two rounds: every candidate trains every row of the table for a small share of
the preset's length, and the best go on to a longer round, beside each row's own best; where there are
few candidates, all go there at once. Each row has the same candidates and the same budget. The score of
a candidate is its validation error relative to the best candidate's on the same row, in the geometric
mean over the rows: 1 is the best on every row. A row
has a recipe of its own only where another finalist's interval lies wholly below the chosen one's. The
test set is not read. What was not searched: the optimizer (Adam), the schedule (cosine), the batch and
the length, which were set in advance, by what a desk computer can train in an hour or two. To run a
search again, or to go on with one: `icstn search table_2`.
"""


#: Of the runs that a chosen recipe calls for.
SEEDS = (0, 1, 2)

#: What a reader should know of a search, besides.
_REMARKS = {
    "table_2": """
        A search before this one had its second round at a quarter of the length, and chose classifier's
        rate 0.005 and predictor's rate 0.0002. The first whole run of its choice, IC-STN-4(a) with seed 0,
        was tested and did worse than the recipe by hand; on the validation set, below, that row has it the
        other way round. As short rounds may favor high rates, the second one is at full length now, for three
        candidates, and decides alone. What it chose is what had been set by hand for most rows of block (a),
        which was known from the test set; the code that chose it again reads validation data only.
    """,
    "cascades": """
        This search was made late: before, all rows had the rate of Table 1's, at which the recurrent network
        learns little. Its input weights were those of PyTorch's cell then, so large for an image of 2,500
        pixels that every state was saturated. Its test errors of those runs were known when this was mended;
        the spread of its weights is that of a layer with as many inputs, and was not searched.
    """,
    "tolerance": """
        From small initial weights the network without pooling never leaves chance: seen on validation
        data in short trials. So their spread is searched beside the rate.
    """,
    "table_3": """
        That other light in training helps was first seen in a trial that was looked at on the test set. How
        much it helps, and at which rate, is measured here on validation data only. The runs have a third of
        the preset's length, at which other light has not yet gained what it will: it slows training, and
        pays where a network would begin to know its signs by heart.
    """,
}


def _not_searched(name: str) -> str:
    (usual, _), *others = sorted(_by_hand(name).items(), key=lambda group: -len(group[1]))
    shown = "; ".join([usual, *(f"{', '.join(models)}: {recipe}" for recipe, models in others)])
    text = f"No search has been finished yet. The recipe ({shown}) was set by hand in early trials"
    if EXPERIMENTS[name].printed:
        text += ", some of which were looked at on the test set: read the numbers with that in mind"
    return wrap(f"{text}.") + "\n"


def _by_hand(name: str) -> dict[str, list[str]]:
    """Recipe in words → the rows that it trains."""
    groups: dict[str, list[str]] = {}
    for spec in cells(name, "full"):
        recipe = ", ".join(f"{WORDS[f]} {_decimals(getattr(spec, f))}" for f in SPACES[name].values)
        groups.setdefault(recipe, []).append(spec.model)
    return {recipe: list(dict.fromkeys(models)) for recipe, models in groups.items()}


def _of_table(found: SearchOutcome, done: Set[RunSpec]) -> list[str]:
    seconds = sum(t.seconds for t in found.tries)
    out = [
        wrap(f"{len(found.tries)} runs, {duration(seconds)} of training. Chosen: **{_said(found.chosen)}**.")
    ]
    if found.space.experiment in WAITING:
        out.append(_waiting(found, done))
    if remark := _REMARKS.get(found.space.experiment):
        out.append("\n" + wrap(remark))
    kinds = found.exceptions()
    for (model, sigma), candidate in kinds.items():
        out.append(f"\nAn exception: {_cell(found, model, sigma)} has {_said(candidate)}.")
    for round_ in dict.fromkeys(t.round for t in found.tries):
        iterations = next(t.iterations for t in found.tries if t.round == round_)
        name = "The only round" if found.space.single else f"Round {round_}"
        out += [f"\n### {name}: {iterations:,} iterations a run\n", *_round(found, round_)]
    return out


def _waiting(found: SearchOutcome, done: Set[RunSpec]) -> str:
    """What the choice still needs, with the commands that make it."""
    recipes: dict[Candidate, list[RunSpec]] = {}
    exceptions, table = found.exceptions(), found.space.experiment
    for spec in cells(table, "full", SEEDS):
        own = exceptions.get((spec.model, spec.sigma), found.chosen)
        at = (("sigma", spec.sigma),) if spec.about.by_sigma else ()
        recipes.setdefault(own + at, []).append(varied(spec, dict(own)))
    runs = list(chain(*recipes.values()))
    text = f"""*Not in use yet*: with {len(SEEDS)} seeds it needs {len(runs)} runs of its own, of which
        {len(done.intersection(runs))} are published. Until all are there, the table has the recipe from
        before the search, set by hand and looked at on the test set. These commands make the runs, and go on
        where they were stopped:"""
    shown = "\n".join(_command(table, own, specs) for own, specs in recipes.items())
    return f"\n{wrap(text)}\n\n```bash\n{shown}\n```"


def _command(table: str, recipe: Candidate, specs: Iterable[RunSpec]) -> str:
    """A recipe's command, in lines that a phone shows whole."""
    words = [f"icstn train {table}", "--preset full", f"--seeds {SEEDS[0]}-{SEEDS[-1]}"]
    words += ["--records my-records", *(f"--set {name}={_decimals(value)}" for name, value in recipe)]
    words += [f'-m "{model}"' for model in dict.fromkeys(s.model for s in specs)]
    unbroken = " ".join(word.replace(" ", "\0") for word in words)
    return " \\\n  ".join(textwrap.wrap(unbroken, 60, break_on_hyphens=False)).replace("\0", " ")


def _round(found: SearchOutcome, round_: int) -> list[str]:
    scores = found.scores(round_)
    order = sorted(scores, key=lambda c: scores[c])
    first = found.scores(found.tries[0].round)
    letters = {c: chr(ord("A") + i) for i, c in enumerate(sorted(first, key=lambda c: first[c]))}
    tries = [t for t in found.tries if t.round == round_]
    rows = [[WORDS[name], *(_decimals(dict(c)[name]) for c in order)] for name, _ in order[0]]
    rows.append(["score", *(f"{scores[c]:.3f}" for c in order)])
    unit = EXPERIMENTS[found.space.experiment].unit
    for cell in dict.fromkeys((t.model, t.sigma) for t in tries):
        own = {t.candidate: t for t in tries if (t.model, t.sigma) == cell}
        rows.append([f"{_cell(found, *cell)}, {unit}", *(_error(own[c]) for c in order)])
    head = ["candidate", *(letters[c] for c in order)]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    own_best = [
        f"{_cell(found, t.model, t.sigma)} with {letters[t.candidate]}, {_error(t)} {unit}"
        for t in tries
        if t.candidate not in order
    ]
    note = (
        [wrap(f"Beside them a row's own best of the first round: {'; '.join(own_best)}."), ""]
        if own_best
        else []
    )
    return [lines[0], "|---" + "|--:" * len(order) + "|", *lines[1:], "", *note]


def _error(t: Try) -> str:
    return "diverged" if t.error is None else significant(t.error)


def _cell(found: SearchOutcome, model: str, sigma: float) -> str:
    return f"{model} σ\u00a0=\u00a0{sigma:g}" if EXPERIMENTS[found.space.experiment].by_sigma else model


def _said(candidate: Candidate) -> str:
    return ", ".join(f"{WORDS[name]} {_decimals(value)}" for name, value in candidate)


def _decimals(value: float) -> str:
    return np.format_float_positional(value, trim="-")
