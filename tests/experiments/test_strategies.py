from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from common.errors import InputError
from experiments.setting_values import check_strategy
from experiments.settings import parse
from experiments.sharded_backbone import ShardedBackbone
from experiments.trainer_parts import evaluation_trainer
from experiments.watched_ddp import WatchedDDP, WatchedLauncher, ddp_settings
from tests.command_line import run, write_config


class OwnDDP(DDPStrategy):
    """Somebody's own, started in a way that isn't known here."""


def by_path(name: str, **settings: Any) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.strategies.{name}", "init_args": settings}


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (by_path("FSDPStrategy"), "each process would train its own"),
        ("deepspeed_stage_2", "each process would train its own"),
        ("ddp_spawn", "hand nothing back"),
        (by_path("DDPStrategy", start_method="fork"), "hand nothing back"),
        ({"class_path": f"{__name__}.OwnDDP"}, "allowed: auto, ddp"),
        ("dp", "allowed: auto, ddp"),
    ],
)
def test_what_would_fail_later_is_refused_with_a_reason(strategy, reason):
    with pytest.raises(InputError, match=reason):
        check_strategy(strategy)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_bert, cola_folder):
    return parse(["validate", "--config", str(write_config(tmp_path_factory.mktemp("config"), tiny_bert, cola_folder))])


@pytest.mark.parametrize(
    ("strategy", "devices", "expected"),
    [
        ("auto", 1, {}),
        ("auto", 2, {}),
        ("ddp", 2, {}),
        ("ddp_find_unused_parameters_true", 2, {"find_unused_parameters": True}),
        ("fsdp", 2, None),
        (by_path("DDPStrategy", process_group_backend="gloo"), 2, {}),
        (by_path("SingleDeviceStrategy", device="cpu"), 1, {}),
    ],
)
def test_data_parallel_processes_are_this_projects_own(settings, strategy, devices, expected):
    objects = settings.changed({"trainer.strategy": strategy, "trainer.devices": devices}).build()
    made = evaluation_trainer(objects, []).strategy
    if devices == 1:
        assert isinstance(made, SingleDeviceStrategy)
        return
    assert isinstance(made, WatchedDDP)
    assert isinstance(made.launcher, WatchedLauncher), "Lightning takes its own launcher: see WatchedDDP.launcher"
    assert isinstance(made, ShardedBackbone) == (expected is None)
    assert expected is None or {**ddp_settings(), **expected}.items() <= made._ddp_kwargs.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trainer.devices", "2", "--trainer.strategy", "deepspeed"), "--trainer.strategy ddp"),
        (("--trainer.devices", "1", "--trainer.strategy", "fsdp"), "one process; allowed: two or more"),
        (("--trainer.devices", "2", "--trainer.strategy", "fsdp", "--model.adapter", "null"), "adapter is null"),
        (
            ("--trainer.devices", "2", "--trainer.strategy", "fsdp", "--model.compile", "true"),
            "fsdp with model.compile",
        ),
    ],
)
def test_the_command_line_refuses_before_anything_is_written(
    tiny_bert, cola_folder, tmp_path, capsys, options, message
):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()
