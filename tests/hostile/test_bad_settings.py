"""Every setting with wrong values: exit code 2 and one message, or a run. `bad_configs.py` tries all of them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import datamodules
import lightning_modules
import lora
from lora import Adapter
from tests.hostile.bad_configs import BAD_VALUES, STARTS_PROCESSES, Field, attempt, base_configs, changed, fields

# Asked for in earnest, these run for days.
ENDLESS = {("trainer.max_epochs", "null"), ("trainer.max_epochs", "huge")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("configs")


@pytest.fixture(scope="module")
def bases(folder) -> dict[str, dict[str, Any]]:
    return base_configs(folder)


@pytest.fixture(scope="module")
def known(bases) -> list[Field]:
    return [field for field in fields(bases) if field.name not in STARTS_PROCESSES]


def test_the_base_configs_hold_every_class(bases):
    text = repr(bases)
    adapters = [name for name in lora.__all__ if name != Adapter.__name__]
    models = [name for name in lightning_modules.__all__ if name not in ("AdaptedModule", "OptimizerSettings")]
    modules = [name for name in datamodules.__all__ if not name.startswith(("TextClass", "LanguageMod"))]
    assert [name for name in (*adapters, *models, *modules) if f".{name}'" not in text] == []


@pytest.mark.long
def test_the_base_configs_run(bases, folder):
    assert {name: found for name, base in bases.items() if (found := attempt(base, folder)).kind != "ran"} == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_wrong_value_anywhere_is_refused_or_runs(bases, known, folder, data):
    field = data.draw(st.sampled_from(known))
    label = data.draw(st.sampled_from(list(BAD_VALUES)))
    if (field.name, label) in ENDLESS:
        return
    found = attempt(changed(bases[field.base], {field.path: BAD_VALUES[label]}), folder)
    assert found.kind != "fault", f"{field.name} = {label}: {found.detail}"


def change(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A base config with other values, by dotted name; `init_args` in between are found."""
    paths = {}
    for name, value in values.items():
        node, path = base, []
        for key in name.split("."):
            if key not in node and "init_args" in node:
                node, path = node["init_args"], [*path, "init_args"]
            path.append(key)
            node = node.get(key)
        paths[tuple(path)] = value
    return changed(base, paths)


ADAPTIVE, LORA, TABLE, NONE = "AdaptiveLoRAXS", "LoRA", "LoRAXS", "none"


@pytest.mark.parametrize(
    ("base", "values", "expected"),
    [
        # found by bad_configs.py: each was a traceback, an endless loop or a silent run once
        (ADAPTIVE, {"trainer": 3}, "trainer"),
        (ADAPTIVE, {"model.optimizer": 0}, "model.optimizer is 0; allowed: settings by name"),
        (ADAPTIVE, {"model.optimizer.learning_rate": None}, "model.optimizer.learning_rate is null"),
        (ADAPTIVE, {"model.adapter.tau": float("nan")}, "model.adapter.tau is nan"),
        (ADAPTIVE, {"model.adapter.lora_alpha": -1}, "lora_alpha is -1"),
        (ADAPTIVE, {"model.backbone": "x" * 300}, "File name too long"),
        (ADAPTIVE, {"trainer.accumulate_grad_batches": 0}, "accumulate_grad_batches is 0"),
        (ADAPTIVE, {"trainer.gradient_clip_val": -1}, "gradient_clip_val is -1"),
        (ADAPTIVE, {"trainer.val_check_interval": 1000}, "val_check_interval"),
        (ADAPTIVE, {"trainer.default_root_dir": "elsewhere"}, "would have no effect"),
        (LORA, {"model.adapter.rank": 10**18}, "rank is 1000000000000000000"),
        # settings that contradict each other
        (LORA, {"alpha_growth.alpha_max": 9}, "would have no effect"),
        (NONE, {"rank_discretisation.epochs_rank_discrete": 0}, "would have no effect"),
        (ADAPTIVE, {"budget_schedule.epochs_memory_start": 1}, "would have no effect"),
        (TABLE, {"data.problem": "regression"}, "a finite number"),
    ],
)
def test_wrong_and_contradictory_settings_are_named(bases, folder, base, values, expected):
    found = attempt(change(bases[base], values), folder)
    assert found.kind == "refused", found.detail
    assert expected in found.detail, found.detail
    assert len(found.detail) < 1500
