"""A run rebuilt from its folder: model, data and the weights of one checkpoint."""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from callbacks.checkpoints import read_checkpoint
from common.errors import InputError
from experiments.command_line import CommandLine, parse_and
from experiments.run_folder import RunFolder
from lightning_modules.adapted_module import AdaptedModule


@dataclass(frozen=True)
class TrainedRun:
    """A run at one moment.

    Attributes:
        folder: the run folder.
        checkpoint: the file the weights come from.
        epoch: the epoch it was written in.
        ranks_are_discrete: whether the run had made its ranks discrete for good by then, or has none to learn.
        config: the run's settings, as plain values.
        results: results.json, None if the run didn't finish.
        module: the trained module, in evaluation mode, at its discrete ranks.
        data: the data module, set up.
    """

    folder: Path
    checkpoint: Path
    epoch: int
    ranks_are_discrete: bool
    config: dict[str, Any]
    results: dict[str, Any] | None
    module: AdaptedModule
    data: Any

    def batches(self, most: int = 3) -> list[dict[str, Any]]:
        """A few validation batches, from the shortest rows to the longest."""
        loader = self.data.val_dataloader()[0]
        chosen = {round(place * (len(loader) - 1) / max(most - 1, 1)) for place in range(most)}
        return [batch for place, batch in enumerate(loader) if place in chosen]

    def metrics(self) -> dict[str, float]:
        """Validation figures of this moment's epoch in results.json; empty if there are none."""
        for entry in self.results["validations"] if self.results is not None else []:
            if entry["epoch"] == self.epoch:
                return {name: value for name, value in entry.items() if name != "epoch"}
        return {}


class _Rebuilding(CommandLine):
    """Parses and builds what `validate` would run, and leaves it at that."""

    def _run_subcommand(self, subcommand: str) -> None:
        self.trainer.datamodule = self.datamodule  # type: ignore[attr-defined]
        self.model.trainer = self.trainer


def find_run(run: str, runs_dir: str) -> RunFolder:
    """The folder of a run given by path or, below runs_dir, by name.

    Raises:
        InputError: there is no such run; the message lists near names.
    """
    for path in (Path(run).expanduser(), Path(runs_dir).expanduser() / run):
        if (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
            return RunFolder(path)
    above = Path(run).expanduser().parent if "/" in run else Path(runs_dir).expanduser()
    known = sorted(path.parent.name for path in above.glob("*/config.yaml"))
    near = get_close_matches(Path(run).name, known, n=3, cutoff=0.4) or known[:10]
    raise InputError(
        f"the run is {run!r}, but there is no folder of that name with a config.yaml and checkpoints; in {above} there "
        f"is {', '.join(near) or 'no run'}. Give a run folder, or a name and --runs_dir."
    )


def open_run(folder: RunFolder, ckpt_path: str, overrides: list[str]) -> TrainedRun:
    """Rebuilds a run and loads a checkpoint.

    Args:
        folder: the run folder.
        ckpt_path: best, last or a file.
        overrides: more options, as `validate` takes them, such as --data.data_dir.

    Raises:
        InputError: no such checkpoint, a missing backbone or data, another backbone than the checkpoint's.
    """
    checkpoint = folder.checkpoint(ckpt_path)
    place = ["--runs_dir", str(folder.path.parent), "--run_name", folder.path.name]
    arguments = ["validate", "--config", str(folder.path / "config.yaml"), "--ckpt_path", str(checkpoint), *place]
    # on the CPU and in float32, whatever the run was trained on: exports are compared digit by digit
    machine = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]
    rebuilt = parse_and(_Rebuilding, [*arguments, *machine, *overrides])
    content = read_checkpoint(checkpoint)
    _let_fingerprints_decide(content, rebuilt.model)
    rebuilt.datamodule.setup()
    module = rebuilt.model
    module.configure_model()
    module.load_checkpoint(content)
    module.use_discrete_ranks()
    results = folder.path / "results.json"
    return TrainedRun(
        folder=folder.path,
        checkpoint=checkpoint,
        epoch=int(content["epoch"]),
        ranks_are_discrete=module.rank_allocation is None or _was_discrete(content["state_dict"]),
        config=yaml.safe_load((folder.path / "config.yaml").read_text()) | {"model": rebuilt.plain_config()["model"]},
        results=json.loads(results.read_text()) if results.is_file() else None,
        module=module.eval(),
        data=rebuilt.datamodule,
    )


@torch.inference_mode()
def logits(model: Any, batches: list[dict[str, Any]]) -> list[Tensor]:
    """Logits of each batch in float32, from a transformers model (or one wrapped by PEFT)."""
    model = model.eval()
    return [model(**batch["inputs"]).logits.float() for batch in batches]


def _let_fingerprints_decide(checkpoint: dict[str, Any], module: AdaptedModule) -> None:
    """A backbone may have moved: where a fingerprint tells two apart, its name need not be the same."""
    identity = checkpoint.get("rankwise") or {}
    if identity.get("fingerprint") is not None:
        identity["backbone"] = module.backbone_name


def _was_discrete(state: dict[str, Any]) -> bool:
    return any(bool(value.get("discrete")) for key, value in state.items() if key.endswith("_extra_state"))
