"""Every config is found, opens with its command, parses, and runs on a tiny model."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

from experiments.config_files import CONFIGS
from experiments.settings import parse
from experiments.sweep.definition import make_trials, read_base, read_definition
from tests import tiny
from tests.command_line import run

ALL = sorted(path for path in CONFIGS.rglob("*.yaml") if "sweeps" not in path.parts)  # they have tests of their own
NAMES = [str(path.relative_to(CONFIGS)) for path in ALL]
REFERENCE = Path(__file__).parent / "reference"
PUBLISHED, CONFIGS_PUBLISHED = (
    json.loads((REFERENCE / f"published_{kind}.json").read_text()) for kind in ("sweeps", "configs")
)


@pytest.fixture(scope="module")
def wide_bert(tmp_path_factory) -> str:
    """Wide enough for rank 50."""
    return str(tiny.save_tiny_bert(tmp_path_factory.mktemp("wide_bert"), hidden=64))


@pytest.fixture(scope="module")
def wide_gpt2(tmp_path_factory) -> str:
    return str(tiny.save_tiny_gpt2(tmp_path_factory.mktemp("wide_gpt2"), hidden=64))


@pytest.fixture(scope="module")
def data_dirs(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("glue")
    folders = {task: tiny.save_task(task, folder / task) for task in ("cola", "sst2", "qnli")}
    folders |= {"ag_news": tiny.save_ag_news(folder / "ag_news"), "table": tiny.save_table(folder / "table")}
    folders["wikitext"] = tiny.save_wikitext(folder / "wikitext")
    return {name: str(path) for name, path in folders.items()}


def data_options(data: dict, data_dirs: dict[str, str]) -> list[str]:
    """Options that put tiny data in the place of a config's own."""
    match data["class_path"]:
        case "datamodules.QuickstartDataModule":
            return [f"--data.{split}_sentences=40" for split in ("train", "validation", "test")]
        case "datamodules.AGNewsDataModule":
            return ["--data.data_dir", data_dirs["ag_news"], "--data.validation_rows", "10"]
        case "datamodules.WikiTextDataModule":
            return ["--data.data_dir", data_dirs["wikitext"]]
        case "datamodules.TableDataModule":
            return ["--data.data_dir", data_dirs["table"]]
        case _:
            return ["--data.data_dir", data_dirs[data["init_args"]["task"]]]


def test_there_are_at_least_as_many_configs_as_we_think():
    assert len(ALL) >= 33
    assert len(list((CONFIGS / "sweeps").rglob("*.yaml"))) >= 26


@pytest.mark.parametrize("path", ALL, ids=NAMES)
def test_a_config_opens_with_its_command_time_and_expected_figure(path: Path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert f"python cli.py fit --config {path.relative_to(CONFIGS)}" in "\n".join(header)
    assert any(line.startswith("# time:") for line in header)
    assert any(line.startswith("# expected:") for line in header)
    content = yaml.safe_load(path.read_text())
    assert type(content["seed_everything"]) is int and content["trainer"]["max_epochs"] > 0
    parse(["fit", "--config", str(path)]).build()


def shape(path: Path) -> frozenset:
    """What tells a config apart from others but numbers, the backbone and the task."""
    settings = read_base((str(path.relative_to(CONFIGS)),)).items()
    named = {name: value if isinstance(value, str) else "" for name, value in settings}
    return frozenset(named.items() - {(name, named.get(name)) for name in ("model.backbone", "data.task")})


# tests/parity runs these
ELSEWHERE = ("cola_adaptive", "cola_lora_xs", "cola_nested", "ag_news_full", "ag_news_lora")
ELSEWHERE += ("cola_alpha_range/alpha_0.5_to_3_constant", "cola_memory/from_30000_to_60000_linear")
SHAPES = {shape(path): path for path in (*ALL, *(CONFIGS / f"{name}.yaml" for name in ELSEWHERE))}
TO_RUN = sorted(path for path in SHAPES.values() if str(path.relative_to(CONFIGS).with_suffix("")) not in ELSEWHERE)


@pytest.mark.slow
@pytest.mark.parametrize("path", TO_RUN, ids=lambda path: path.stem)
def test_a_config_runs(path: Path, wide_bert, wide_gpt2, data_dirs, tmp_path):
    content = yaml.safe_load(path.read_text())
    language = "LanguageModelling" in content["model"]["class_path"]
    options = ["--model.backbone", wide_gpt2 if language else wide_bert, "--data.batch_size", "8"]
    options += ["--data.block_size", "16"] if language else ["--data.max_length", "32"]
    options += data_options(content["data"], data_dirs)
    layers = 8
    if "budget_schedule" in content:  # budgets are for 96 layers
        for name in ("memory_start", "memory_end"):
            options.append(f"--budget_schedule.{name}={content['budget_schedule'][name] * layers / 96}")
    if "tfinal" in str(content["model"]):  # AdaLoRA's schedule is for 13,400 steps
        options += ["--model.adapter.settings.tinit", "1", "--model.adapter.settings.tfinal", "1"]
    if "gradient" in str(content["model"]):
        options += ["--model.adapter.gradient_batches=2"]
    if "held_out_rows" in content["data"]["init_args"]:
        options += ["--data.train_rows=16", "--data.held_out_rows=8"]
    options += ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    options += ["--trainer.limit_train_batches", "2"]
    if path.stem != "quickstart":  # pictures take longer than all the rest
        options.append("--rank_logging.pictures_every_n_epochs=0")
    assert run("fit", path.relative_to(CONFIGS), tmp_path, *options) == 0
    assert (tmp_path / path.stem / "results.json").exists()


def digest(asked: dict) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def numbers_and_names(configs: tuple[str, ...]) -> dict:
    """What configs set, without the classes that the settings belong to."""
    return {name: value for name, value in read_base(configs).items() if not name.endswith(".class_path")}


@pytest.mark.parametrize("name", CONFIGS_PUBLISHED)
def test_a_config_of_the_study_asks_for_what_its_figures_were_measured_with(name):
    """With the figure in its header. Never to be changed: a config that results were published with stays."""
    expected = re.findall(r"# expected: .*?([\d.]+ ± [\d.]+|$)", (CONFIGS / name).read_text())
    assert digest({**numbers_and_names((name,)), "expected": expected}) == CONFIGS_PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_sweep_that_results_were_published_with_still_asks_for_the_same_trials(name):
    """To be changed only where a method leaves the code; a new study is a new file."""
    trials = make_trials(read_definition(CONFIGS / "sweeps" / f"{name}.yaml"))
    asked = {trial.name: {**numbers_and_names(trial.configs), **trial.settings, **trial.overrides} for trial in trials}
    assert digest(asked) == PUBLISHED[name]
