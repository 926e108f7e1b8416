import pytest
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

from common.errors import InputError
from experiments.strategies import check_strategy
from tests.command_line import run, write_config


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true", DDPStrategy()])
def test_data_parallel_processes_are_allowed(strategy):
    check_strategy(strategy)


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("fsdp", "each process would train its own"),
        (FSDPStrategy(), "each process would train its own"),
        ("deepspeed_stage_2", "each process would train its own"),
        ("ddp_spawn", "hand nothing back"),
        (DDPStrategy(start_method="fork"), "hand nothing back"),
        ("dp", "allowed: auto, ddp"),
    ],
)
def test_what_would_fail_later_is_refused_with_a_reason(strategy, reason):
    with pytest.raises(InputError, match=reason):
        check_strategy(strategy)


def test_the_command_line_refuses_before_anything_is_written(tiny_bert, cola_folder, tmp_path, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, "--trainer.devices", "2", "--trainer.strategy", "fsdp") == 2
    assert "--trainer.strategy ddp" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()
