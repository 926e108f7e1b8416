"""Settings that somebody set and that change nothing in a fit, each with the reason.

They aren't refused, because a sweep sets some for all its methods; what contradicts itself is (`Settings.build`).
"""

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Trainer

from datamodules import GLUEDataModule, PlainTextDataModule, QuickstartDataModule, TableDataModule
from datamodules.files import TABLE_ENDINGS, table_ending
from experiments.arguments import NAMED_CALLBACKS
from experiments.setting_values import parameters_of
from experiments.settings import Objects, Settings
from lightning_modules import LanguageModellingModule, OptimizerSettings


class _Fit:
    """What the rules below ask of a run: its settings by group, and the objects made of them."""

    def __init__(self, settings: Settings, objects: Objects) -> None:
        values = settings.values.as_dict()
        self.model, self.data = values["model"]["init_args"], values["data"].get("init_args") or {}
        self.module, self.data_module, self.adapter = objects.module, objects.data, objects.module.adapter
        self.trainer, adapter = values["trainer"], (self.model.get("adapter") or {}).get("init_args") or {}
        self.has_callbacks = bool(objects.trainer["callbacks"])  # the user's, any of which may end the run
        self.discrete_epochs = values["rank_discretisation"]["epochs_rank_discrete"]
        self.is_fixed = adapter.get("allocation") == "fixed_by_energy"
        self.learns_ranks = self.adapter is not None and self.adapter.allocates_ranks
        self.uses_gradient = self.adapter is not None and self.adapter.gradient_pass is not None
        self.schedule, self.growth = values["budget_schedule"], values["alpha_growth"]
        self.has_head = not isinstance(self.module, LanguageModellingModule)
        self.adapts_head = self.adapter is not None and self.adapter.wrap_head
        own = {name: values[name] for name in (*NAMED_CALLBACKS, "trainer")}
        groups = {"model": self.model, "model.adapter": adapter, "data": self.data, **own}
        self.groups = {**groups, "model.optimizer": self.model["optimizer"]}

    def changed(self) -> list[str]:
        """Names of the settings that don't have their class's default."""
        own = {"model": type(self.module), "model.adapter": type(self.adapter), "data": type(self.data_module)}
        owners = {**own, "model.optimizer": OptimizerSettings, "trainer": Trainer, **NAMED_CALLBACKS}
        return [
            f"{place}.{name}"
            for place, owner in owners.items()
            for name, parameter in parameters_of(owner).items()
            if name in self.groups[place] and self.groups[place][name] != parameter.default
        ]

    def has_local_backbone(self) -> bool:
        backbone = str(self.model["backbone"])
        return backbone.startswith("package:") or Path(backbone).expanduser().exists()

    def may_end_early(self) -> bool:
        has_limit = self.trainer["max_time"] is not None or self.trainer["max_steps"] not in (None, -1)
        return has_limit or self.has_callbacks

    def ends_before_budget_moves(self) -> bool:
        soft_epochs = (self.trainer["max_epochs"] or -1) - self.discrete_epochs
        return self.schedule["memory_end"] is not None and 0 <= soft_epochs <= self.schedule["epochs_memory_start"]

    def takes_all_rows(self) -> bool:
        limited = any(self.data.get(name) for name in ("train_rows", "validation_rows", "held_out_rows"))
        return not limited and isinstance(self.data_module, GLUEDataModule | QuickstartDataModule)

    def has_no_separators(self) -> bool:
        has_some = any(ending in (".csv", ".tsv") for ending in self._file_endings())
        return self.data.get("dataset") is not None or (self.data.get("train_file") is not None and not has_some)

    def has_no_columns(self) -> bool:
        is_text = isinstance(self.data_module, PlainTextDataModule) and self.data.get("dataset") is None
        return is_text and not any(ending in TABLE_ENDINGS for ending in self._file_endings())

    def has_no_test(self) -> bool:
        is_text = isinstance(self.data_module, PlainTextDataModule) and self.data.get("dataset") is None
        return is_text and self.data.get("test_file") is None

    def _file_endings(self) -> list[str]:
        files = [str(self.data.get(name)) for name in ("train_file", "validation_file", "test_file")]
        return [table_ending(file) for file in files]


_OF_LEARNT_RANKS = (
    "model.adapter.tau",
    *(f"model.optimizer.allocation_{name}" for name in ("learning_rate", "weight_decay")),
    *(f"alpha_growth.{name}" for name in parameters_of(NAMED_CALLBACKS["alpha_growth"])),
)
_OF_RANK_LOGGING = ("rank_logging.every_n_steps", "rank_logging.pictures_every_n_epochs")
_OF_FIXED_RANKS = (
    "model.adapter.rounding",
    "model.adapter.initial_weights",
    "rank_discretisation.epochs_rank_discrete",
)
_OF_A_START = ("initial_weights", "initial_step", "gradient_batches", "head_warmup_steps")
# Settings, when they change nothing, and why: `{task}` stands for that of the data.
_RULES: tuple[tuple[tuple[str, ...], Callable[[_Fit], bool], str], ...] = (
    (("model.revision",), _Fit.has_local_backbone, "the backbone isn't on the hub"),
    (("trainer.model_registry",), lambda fit: True, "nothing is uploaded"),
    (("trainer.min_epochs", "trainer.min_steps"), lambda fit: not fit.may_end_early(), "nothing ends it early"),
    (("model.adapter.head_warmup_steps",), lambda fit: fit.adapts_head or not fit.has_head, "no head is trained"),
    (("model.adapter.initial_std",), lambda fit: fit.uses_gradient, "R starts from the gradient"),
    (
        tuple(f"model.adapter.{name}" for name in _OF_A_START),
        lambda fit: fit.model.get("init_from") is not None,
        "init_from is where it starts",
    ),
    (
        ("alpha_growth.growth", "alpha_growth.reached_at"),
        lambda fit: fit.growth["alpha_min"] == fit.growth["alpha_max"],
        "alpha stays as it is",
    ),
    (
        ("budget_schedule.epochs_memory_start", "budget_schedule.epochs_memory_start_to_end"),
        lambda fit: fit.schedule["memory_start"] == fit.schedule["memory_end"],
        "the budget stays as it is",
    ),
    (
        ("budget_schedule.memory_end", "budget_schedule.epochs_memory_start_to_end"),
        _Fit.ends_before_budget_moves,
        "no epoch is left for it",
    ),
    (
        ("model.adapter.wrap_head", "model.optimizer.head_learning_rate"),
        lambda fit: not fit.has_head,
        "a language model has no head",
    ),
    (("model.optimizer.head_learning_rate",), lambda fit: fit.adapts_head, "the head is adapted"),
    (
        ("model.optimizer.warmup_fraction", "model.optimizer.warmup_rounding"),
        lambda fit: fit.model["optimizer"]["schedule"] == "constant",
        "the schedule is constant",
    ),
    (("rank_logging.pictures_every_n_epochs",), lambda fit: fit.trainer["logger"] is False, "trainer.logger is false"),
    ((*_OF_LEARNT_RANKS, *_OF_RANK_LOGGING), lambda fit: not fit.learns_ranks, "no ranks are learned"),
    ((*_OF_LEARNT_RANKS, *_OF_FIXED_RANKS), lambda fit: fit.is_fixed, "allocation is fixed_by_energy"),
    (
        _OF_LEARNT_RANKS,
        lambda fit: 0 < (fit.trainer["max_epochs"] or -1) <= fit.discrete_epochs,
        "all epochs have discrete ranks",
    ),
    (("update_norms.every_n_steps",), lambda fit: fit.adapter is None, "full fine-tuning has none"),
    (("data.cola_validation",), lambda fit: fit.data.get("task") != "cola", "the task is {task}"),
    (("data.subset_seed",), _Fit.takes_all_rows, "all rows are taken"),
    (
        ("data.validation_fraction",),
        lambda fit: fit.data.get("validation_file") is not None,
        "validation_file is given",
    ),
    (
        ("data.validation_fraction",),
        lambda fit: isinstance(fit.data_module, TableDataModule) and fit.data.get("validation_rows") is not None,
        "validation_rows is given",
    ),
    (("data.test_rows",), _Fit.has_no_test, "no test_file is given"),
    (("data.separator",), _Fit.has_no_separators, "no file is a .csv or .tsv"),
    (("data.text_column",), _Fit.has_no_columns, "no file is a table"),
)


def idle_settings(settings: Settings, objects: Objects) -> list[str]:
    """Names of settings without effect in this run, each with the reason in brackets."""
    fit, told = _Fit(settings, objects), dict[str, str]()
    for names, changes_nothing, reason in _RULES:
        if changes_nothing(fit):
            said = reason.format(task=fit.data.get("task"))
            told = {**dict.fromkeys(names, said), **told}
    return [f"{name} ({told[name]})" for name in fit.changed() if name in told]
