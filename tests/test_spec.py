"""Specs: what they refuse, and an identity that the next field does not change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass, replace

import pytest

from icstn.experiments import EXPERIMENTS, PRESETS, BaselineSpec, Spec, SpecError, cells, paper
from icstn.experiments.recipes import cost, is_own
from icstn.experiments.spec import RunSpec, learning_rate, spec_from_dict
from icstn.experiments.tasks import placed

SPEC = cells("table_2", "full", models=["IC-STN-4(b)"])[0]
BASELINE = cells("baselines", "full", models=["SDM"])[0]

#: The defaults under which Records were published. One that changed would change what its Records are.
DEFAULTS = {
    "image": "", "test_items": 0, "test_draws": 1, "side": "image", "invert": False, "iterations": 1000,
    "batch": 100, "optimizer": "adam", "schedule": "cosine", "rate_classifier": 2e-3, "rate_predictor": 2e-4,
    "std_classifier": 0.1, "std_predictor": 0.1, "clip": 0.0, "restarts": 0, "samples": 0,
    "tested_on": "test", "weight_decay": 0.0, "average": 0.0, "appearance": 0.0,
}  # fmt: skip

#: Where a baseline's are others.
DEFAULTS_OF_BASELINES = {"side": "template"}


class TestIdentity:
    """A digest of the fields that differ from their defaults."""

    @pytest.mark.parametrize("kind", [Spec, BaselineSpec])
    def test_defaults_are_those_of_the_published_records(self, kind: type[RunSpec]) -> None:
        now = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
        published = DEFAULTS | (DEFAULTS_OF_BASELINES if kind is BaselineSpec else {})
        assert {name: now[name] for name in published if name in now} == {
            name: value for name, value in published.items() if name in now
        }

    @pytest.mark.parametrize("spec", [SPEC, BASELINE], ids=lambda s: s.model)
    def test_a_new_field_with_a_default_changes_nothing(self, spec: RunSpec) -> None:
        @dataclass(frozen=True, kw_only=True)
        class Later(type(spec)):  # type: ignore[misc]
            dropout: float = 0.0
            words: str = ""

        later = Later(**asdict(spec))
        assert (later.digest, later.key) == (spec.digest, spec.key)
        assert replace(later, dropout=0.5).digest != spec.digest
        assert spec_from_dict(json.loads(spec.json())) == spec

    def test_by_hand(self) -> None:
        """Of one spec: all that is required, and what differs from a default, sorted, as JSON."""
        told = {
            "architecture": "[FC(8)]×4 → conv(9×9,3)-FC(10)", "experiment": "table_2", "iterations": 20000,
            "model": "IC-STN-4(b)", "preset": "full", "restarts": 3, "seed": 0, "side": "template",
            "sigma": 3.5, "test_draws": 10, "warp": "homography",
        }  # fmt: skip
        text = json.dumps(told, sort_keys=True, ensure_ascii=False)
        assert SPEC.digest == hashlib.sha256(text.encode()).hexdigest()

    def test_every_field_counts(self) -> None:
        others = {"seed": 1, "sigma": 2.0, "side": "image", "invert": True, "iterations": 7, "batch": 7}
        others |= {"optimizer": "sgd", "schedule": "constant", "rate_classifier": 0.5, "rate_predictor": 0.5}
        others |= {"std_classifier": 0.5, "std_predictor": 0.5, "clip": 1.0, "restarts": 1, "warp": "affine"}
        others |= {"test_items": 5, "test_draws": 3, "image": "chelsea", "preset": "quick", "model": "CNN(a)"}
        others |= {"architecture": "FC(10)", "experiment": "table_3"}
        others |= {"tested_on": "validation", "weight_decay": 0.1, "average": 0.9, "appearance": 0.5}
        others |= {"sigma_trained": 1.0, "resolution": 24}
        others |= {"supervision": "each"}
        assert set(others) == {f.name for f in dataclasses.fields(Spec)}
        digests = {replace(SPEC, **{name: value}).digest for name, value in others.items()}
        assert len(digests | {SPEC.digest}) == len(others) + 1

    def test_a_record_without_a_later_field_is_read_with_its_default(self) -> None:
        values = asdict(SPEC)
        del values["clip"]
        assert spec_from_dict(values) == SPEC
        assert isinstance(spec_from_dict(asdict(BASELINE)), BaselineSpec)

    @pytest.mark.parametrize("preset", PRESETS)
    def test_all_keys_differ(self, preset: str) -> None:
        specs = [s for name in EXPERIMENTS for s in cells(name, preset, (0, 1))]
        assert len({s.key for s in specs}) == len(specs)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("iterations", -5, "iterations is at least 1, not -5"),
        ("iterations", 0, "iterations is at least 1, not 0"),
        ("iterations", 2.5, "iterations is an int, not 2.5"),
        ("iterations", True, "iterations is an int, not True"),
        ("batch", 0, "batch is at least 1, not 0"),
        ("sigma", -1.0, "sigma is at least 0, not -1.0"),
        ("sigma", float("nan"), "sigma is finite and at least 0, not nan"),
        ("rate_predictor", -1e-3, "rate_predictor is at least 0"),
        ("rate_classifier", float("inf"), "rate_classifier is finite and at least 0, not inf"),
        ("clip", -1.0, "clip is at least 0"),
        ("average", 1.0, "average is a decay below 1, not 1.0"),
        ("tested_on", "train", "unknown tested_on 'train': choose from test, validation"),
        ("supervision", "first", "unknown supervision 'first': choose from last, each"),
        ("restarts", -1, "restarts is at least 0"),
        ("test_items", -1, "test_items is at least 0"),
        ("test_draws", 0, "test_draws is at least 1, not 0"),
        ("seed", -1, "seed is at least 0"),
        ("side", "left", "unknown side 'left': choose from image, template"),
        ("optimizer", "adagrad", "unknown optimizer 'adagrad': choose from adam, sgd"),
        ("schedule", "step", "unknown schedule 'step': choose from constant, cosine"),
        ("warp", "spline", "unknown warp 'spline': choose from translation, similarity"),
        ("dropout", 0.5, "a spec has no field 'dropout': it has experiment, model"),
        ("side", 3, "side is a str, not 3"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_refusals(field: str, value: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        cells("table_2", "smoke", **{field: value})


def test_a_whole_number_is_a_float_where_one_is_due() -> None:
    spec = cells("table_2", "smoke", clip=1)[0]
    assert type(spec.clip) is float
    assert spec == cells("table_2", "smoke", clip=1.0)[0]


def test_a_baseline_has_no_learning_rate() -> None:
    with pytest.raises(SpecError, match=r"a spec has no field 'rate_predictor': it has .*steps, samples"):
        cells("baselines", "smoke", rate_predictor=0.5)
    with pytest.raises(SpecError, match="steps is at least 1, not 0"):
        cells("baselines", "smoke", steps=0)


def test_what_differs_between_experiments_is_the_papers() -> None:
    names = ["table_1", "table_2", "table_3", "cascades", "tolerance", "baselines"]
    assert list(EXPERIMENTS) == [*names, "two_images", "two_images_classical"]
    one, two, three, cascades, tolerance, beside, pairs, pairs_beside = EXPERIMENTS.values()
    assert one.printed["IC-STN-4", 5.0] == paper.TABLE_1["IC-STN-4"][1] == 0.481
    assert two.printed["IC-STN-4(b)", 3.5] == 1.703
    assert three.printed["CNN", 3.5] == 8.287
    assert [e.unit for e in (one, two, three, beside)] == ["px", "%", "%", "px"]
    assert [e.by_sigma for e in (one, two, three, beside)] == [True, False, False, True]
    assert [e.classical for e in (one, two, three, beside)] == [False, False, False, True]
    assert [e.trials for e in (beside, cascades, tolerance)] == ["table_1", "table_1", "table_2"]
    assert not cascades.printed
    assert not cascades.classical
    assert not tolerance.printed
    assert [e.classical for e in (pairs, pairs_beside)] == [False, True]
    assert pairs.trials == pairs_beside.trials
    assert not pairs.printed


def test_a_variation_is_not_the_tables_own() -> None:
    assert is_own(SPEC)
    assert is_own(BASELINE)
    assert not is_own(replace(SPEC, side="image"))
    assert is_own(replace(SPEC, seed=3))


def test_learning_rates() -> None:
    """Constant, or half a cosine that ends at zero."""
    assert learning_rate(replace(SPEC, schedule="constant"), 0.3, 19_999) == 0.3
    assert learning_rate(SPEC, 0.3, 0) == 0.3
    assert learning_rate(SPEC, 0.3, 10_000) == pytest.approx(0.15)
    assert learning_rate(SPEC, 0.3, 20_000) == pytest.approx(0)
    assert learning_rate(SPEC, 0.3, 5000) == pytest.approx(0.3 * (2 + 2**0.5) / 4)


def test_decimals_of_each_table() -> None:
    """Pixels of the planar experiments have three, as the paper prints them; all else has two."""
    planar = {"table_1", "cascades", "baselines"}
    assert {name: about.digits for name, about in EXPERIMENTS.items()} == {
        name: 3 if name in planar else 2 for name in EXPERIMENTS
    }


def test_more_operations_cost_more() -> None:
    costs = [cost(cells("table_1", "full", models=[m])[0]) for m in EXPERIMENTS["table_1"].rows]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_the_noise_of_the_released_code() -> None:
    """A quarter of the half width of 36 pixels."""
    assert paper.SIGMA_OF_THE_CODE == 4.5


@pytest.mark.parametrize(("table", "size"), [("table_2", (28, 28)), ("table_3", (50, 50))])
def test_images_are_seen_at_the_size_they_have(table: str, size: tuple[int, int]) -> None:
    (spec,) = cells(table, "smoke", models=["CNN(b)" if table == "table_2" else "CNN"])
    assert placed(spec).image_size == size


def test_what_the_paper_prints() -> None:
    """Its numbers typed a second time: Table 1 row by row, then error and capacity of Tables 2 and 3."""
    typed_1 = """
        c-STN-1   2.699 5.576 9.491 9.218
        IC-STN-2  0.615 2.268 5.283 5.502
        IC-STN-3  0.434 1.092 2.877 3.020
        IC-STN-4  0.292 0.481 1.476 2.287
        IC-STN-6  0.027 0.125 0.245 1.305
    """
    typed_2 = """
        CNN(a) 6.597 39079       STN(a) 4.944 39048       c-STN-1(a) 3.687 39048   c-STN-2(a) 2.060 38528
        c-STN-4(a) 1.476 37376   IC-STN-2(a) 1.905 39048  IC-STN-4(a) 1.230 39048
        CNN(b) 19.065 19610      STN(b) 9.325 18536       c-STN-1(b) 8.545 18536
        IC-STN-2(b) 3.717 18536  IC-STN-4(b) 1.703 18536
    """
    typed_3 = """
        CNN 8.287 200207  STN 6.495 197343  c-STN-1 5.011 197343  IC-STN-2 4.122 197343  IC-STN-4 3.184 197343
    """
    rows = (line.split() for line in typed_1.strip().splitlines())
    assert {name: tuple(map(float, numbers)) for name, *numbers in rows} == paper.TABLE_1
    for table, text in ((paper.TABLE_2, typed_2), (paper.TABLE_3, typed_3)):
        words = text.split()
        typed = {m: (float(e), int(c)) for m, e, c in zip(words[::3], words[1::3], words[2::3], strict=True)}
        assert {name: (row.error, row.capacity) for name, row in table.items()} == typed
