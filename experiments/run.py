"""A run: its folder, settings, checkpoints and results; trained, resumed, evaluated, predicted with and exported."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything

from callbacks.predictions import PredictionTable
from common.errors import InputError
from common.files import atomic_folder
from common.terminal import logger, quiet_libraries
from experiments.export import check_options, write_export
from experiments.export_formats import ExportOptions
from experiments.fit import Fit
from experiments.loaded_run import ON_THE_CPU, LoadedRun, load_run
from experiments.results import RunResults
from experiments.run_folder import RunFolder
from experiments.settings import Objects, Settings, parse
from experiments.stop_signals import StopSignals
from experiments.trainer_parts import evaluation_trainer
from lightning_modules.adapter_import import export_kind


class Run:
    """One run.

    Args:
        settings: what it trains, and where; `Run.new` and `Run.open` read them.

    Raises:
        InputError: run_name isn't a plain folder name.
    """

    def __init__(self, settings: Settings) -> None:
        quiet_libraries()
        self.settings = settings
        self.folder = RunFolder.of(settings.values.runs_dir, settings.values.run_name)
        self.signals = StopSignals()

    @classmethod
    def new(cls, config: str, changes: Mapping[str, object] | None = None) -> "Run":
        """A run to be trained.

        Args:
            config: a config's path, or its name in configs/.
            changes: other settings by their names on the command line, such as {"trainer.max_epochs": 2}.

        Raises:
            InputError: no such config, or a setting is refused.
        """
        return cls(parse(["fit", "--config", config]).changed(changes or {}))

    @classmethod
    def open(cls, run: str, runs_dir: str = "runs", options: Sequence[str] = (), verb: str = "fit") -> "Run":
        """A run that was begun, with the settings of its config.yaml.

        Args:
            run: its folder, or its name below `runs_dir`.
            runs_dir: folder of run folders.
            options: other settings as typed on the command line, which win.
            verb: fit, validate, test or predict: whose options these are.

        Raises:
            InputError: there is no such run, or a setting is refused.
        """
        return cls(parse([verb, *options], RunFolder.find(run, runs_dir).settings()))

    @property
    def results(self) -> RunResults | None:
        """What it came to; None if it hasn't finished.

        Raises:
            InputError: results.json isn't whole.
        """
        path = self.folder.path / "results.json"
        return RunResults.read(path) if path.is_file() else None

    def train(
        self, ckpt_path: str | None = None, overwrite: bool = False, stop_after_epoch: int | None = None
    ) -> RunResults | None:
        """Trains, tests the best epoch and writes the run's folder.

        Args:
            ckpt_path: last, best or a file to go on from; None begins anew.
            overwrite: whether a run that is in the folder already is deleted.
            stop_after_epoch: pauses after so many epochs in all, to be resumed as if it hadn't; None: to the end.

        Returns:
            What it came to; None after a fast_dev_run, which writes nothing.

        Raises:
            InputError: the folder holds another run, or settings, data or checkpoint are at fault.
            IncompleteRunError: the run missed what it was asked for; its results are written.
            PausedRunError: it paused.
        """
        fit = Fit(self.settings, self.folder, self.signals, stop_after_epoch)
        try:
            return fit.carry_out(ckpt_path, overwrite)
        finally:
            self.signals.restore()

    def resume(self, ckpt_path: str = "last") -> RunResults | None:
        """Goes on where the run stopped: see `train`."""
        return self.train(ckpt_path)

    def evaluate(self, split: str = "test", ckpt_path: str | None = "best") -> dict[str, float]:
        """Figures of a split by their tags, such as test/accuracy.

        Args:
            split: validation or test.
            ckpt_path: last, best or a file; None for weights that the settings bring with them, as an export does.

        Raises:
            InputError: no such checkpoint, one of another model, data without labels, or not one batch of them.
        """
        trainer, inputs = self._ready(ckpt_path, [])
        evaluate = trainer.validate if split == "validation" else trainer.test
        evaluate(**inputs, verbose=False)
        if not trainer.callback_metrics:
            raise InputError(
                f"no row of the {split} split was evaluated: a limit of batches (--trainer.limit_val_batches, "
                "--trainer.limit_test_batches) is 0; allowed: above 0, or null for all. Leave it out."
            )
        return {name: float(value) for name, value in trainer.callback_metrics.items()}

    def predict(self, ckpt_path: str | None = "best", output: str | None = None) -> Path:
        """Answers every row of data.predict_file, or of the test split, and returns the table's path.

        Args:
            ckpt_path: see `evaluate`.
            output: the table, - for standard output; predictions.tsv in the run folder if not given.

        Raises:
            InputError: see `evaluate`; or a setting would leave rows out, or the table would replace what is read.
        """
        self._refuse_partial_predictions()
        table = PredictionTable(self.folder.path / "predictions.tsv" if output is None else Path(output).expanduser())
        if output is not None:
            self._refuse_to_replace_input(table.path)
        trainer, inputs = self._ready(ckpt_path, [table])
        trainer.predict(**inputs)
        if str(table.path) != "-":
            logger.info(
                f"Predictions for {len(inputs['datamodule'].predict_examples().texts):,} rows: {table.path}\n"
                "Tab-separated, and quotation marks are text: in pandas, read_csv(PATH, sep='\\t', quoting=3)."
            )
        return table.path

    def load(self, ckpt_path: str = "best") -> LoadedRun:
        """The model with the weights of a checkpoint, on the CPU and in float32, at its discrete ranks.

        Raises:
            InputError: no such checkpoint, a missing backbone or data, another backbone than the checkpoint's.
        """
        path = self.folder.checkpoint(ckpt_path)
        settings = self.settings.changed(ON_THE_CPU)
        return load_run(path, settings, self._built(settings, ckpt_path), self.folder.path, self.results)

    def export(
        self,
        kind: str,
        output: Path | None = None,
        ckpt_path: str = "best",
        options: ExportOptions = ExportOptions(),  # noqa: B008
    ) -> Path:
        """Writes the model as files that other programs load, and returns their folder.

        Args:
            kind: peft, merged or native.
            output: the folder, which must not exist; exports/KIND in the run folder if not given.
            ckpt_path: last, best or a file.
            options: what else can be chosen.

        Raises:
            InputError: an option has no effect on this kind, the ranks are still soft, or see `load`.
            VerificationError: the files give other logits than the run; they are deleted.
        """
        check_options(kind, options)
        output = (output or self.folder.path / "exports" / kind).expanduser()
        with atomic_folder(output) as temporary:
            said = write_export(self.load(ckpt_path), kind, options, temporary)
            size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        logger.info(f"{output}: {size:,} bytes. Loaded from these files, {said}")
        return output

    def _ready(self, ckpt_path: str | None, callbacks: Sequence[Callback]) -> tuple[Trainer, dict[str, Any]]:
        """A trainer, and what its methods are called with."""
        path = None if ckpt_path is None else str(self.folder.checkpoint(ckpt_path))
        objects = self._built(self.settings, ckpt_path)
        inputs = {"model": objects.module, "datamodule": objects.data, "ckpt_path": path}
        return evaluation_trainer(objects, callbacks), inputs

    def _built(self, settings: Settings, ckpt_path: str | None) -> Objects:
        seed_everything(settings.values.seed_everything, workers=True)
        objects = settings.build()
        export = settings.values.get("export")
        objects.module.brings_its_head = export is not None and export_kind(Path(export).expanduser()) == "merged"
        if ckpt_path is not None:
            objects.module.init_from = None  # the checkpoint holds what training made of it
        return objects

    def _refuse_partial_predictions(self) -> None:
        trainer = self.settings.values.trainer
        limited = repr(trainer.limit_predict_batches) not in ("None", "1.0")  # 1 is a single batch
        for name, asked in (("limit_predict_batches", limited), ("fast_dev_run", bool(trainer.fast_dev_run))):
            if asked:
                raise InputError(
                    f"trainer.{name} is {trainer[name]}, but predict answers every row. Leave it out, or give a "
                    "shorter file: predict RUN FILE."
                )

    def _refuse_to_replace_input(self, output: Path) -> None:
        if output.is_dir():
            raise InputError(f"--output is {str(output)!r}, a folder; allowed: a file, such as {output}/answers.tsv.")
        if not output.is_file():
            return
        model, data = self.settings.plain["model"]["init_args"], self.settings.plain["data"]["init_args"]
        values = self.settings.values
        read = [*model.items(), *data.items(), ("ckpt_path", values.ckpt_path), ("export", values.export)]
        read += [("config", str(path)) for path in self.settings.configs]
        if output.suffix != ".tsv":  # a run's own tables may be made again
            read.append(("the run", str(self.folder.path)))
        for name, value in read:
            place = Path(value).expanduser() if isinstance(value, str) else Path(os.devnull)
            inside = place.is_dir() and output.resolve().is_relative_to(place.resolve())
            if inside or (place.is_file() and place.samefile(output)):
                raise InputError(
                    f"--output is {str(output)!r}, which {name} ({value}) reads; allowed: another file. Nothing was "
                    "written."
                )
