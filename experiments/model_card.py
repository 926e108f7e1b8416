"""README.md of an export: what it is, what it was trained on, how well it does, and how to load it."""

from typing import Any

import yaml

from callbacks.rank_discretisation import describe_ranks
from common.backbones import pretrained_arguments, public_name
from experiments.export_formats import head_settings, task_type
from experiments.loaded_run import LoadedRun
from experiments.report.cells import plain
from lightning_modules.quantization import BackboneStorage

_LOADING = {
    "peft": """```python
from peft import PeftModel
from transformers import {imports}

folder = "."  # where this file lies
base = {auto_class}.from_pretrained({arguments})
model = PeftModel.from_pretrained(base, folder).eval()
```""",
    "merged": """```python
from transformers import pipeline

folder = "."  # where this file lies
answer = pipeline("{pipeline}", model=folder)
```""",
    "native": """```
python cli.py predict --export FOLDER --text "A sentence."    # FOLDER: where this file lies; or a file of lines
```""",
}


def model_card(run: LoadedRun, kind: str, ranks: dict[str, int], difference: str) -> str:
    """The text of the card; `difference` says how far the logits of the files are from the run's."""
    module, data = run.module, run.data
    base, revision = public_name(module.backbone_name, module.revision)
    told = {name: plain(text) for name, text in (("run", run.folder.name), ("data", data.name), ("base", base))}
    front = {
        "base_model": base,
        "library_name": "peft" if kind == "peft" else "transformers",
        "metrics": list(run.metrics()),
    }
    labels = ", ".join(f"{number} = {plain(name)}" for number, name in enumerate(data.class_names))
    rows = run.results.data.train_rows if run.results is not None else "unknown"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {told['run']}: {told['data']} with {told['base']}",
        "",
        f"- **Data**: {told['data']}, {rows} training rows{f'; labels: {labels}' if labels else ''}.",
        f"- **Validation** (epoch {run.epoch}, discrete ranks): {_figures(run)}.",
        f"- **Adapter**: {_adapter(run, ranks)}",
        f"- **Backbone**: {told['base']}, revision {plain(revision or 'not pinned')}{_rounding(module.storage)}.",
        f"- **Made by**: Rankwise, `python cli.py export RUN --format {kind}` with the run {told['run']}, from "
        f"{plain(run.checkpoint.name)}, seed {run.config.get('seed_everything')}; config.yaml beside this file has its "
        "data settings.",
        f"- **Checked**: loaded from these files, {difference}",
        "",
        _loading(run, kind, base, revision),
    ]
    if ranks:
        lines += ["", "| layer | rank |", "| --- | --- |", *(f"| {name} | {rank} |" for name, rank in ranks.items())]
    return "\n".join(lines) + "\n"


def _loading(run: LoadedRun, kind: str, base: str, revision: str | None) -> str:
    classifies = task_type(run.module.model) == "SEQ_CLS"
    auto_class = "AutoModelForSequenceClassification" if classifies else "AutoModelForCausalLM"
    source, gguf = pretrained_arguments(base)
    settings: dict[str, Any] = {"revision": revision} if revision is not None else {}
    settings |= {**gguf, "dtype": "float32"}  # as trained: transformers would take the file's own type
    if classifies:
        settings |= head_settings(run.module.model, run.data)
    written = [repr(source), *(f"{name}={value!r}" for name, value in settings.items())]
    if gguf:  # else weights stay in blocks of four bits
        written.append("quantization_config=GgufConfig(dequantize=True)")
    return _LOADING[kind].format(
        imports=f"{auto_class}, GgufConfig" if gguf else auto_class,
        arguments=", ".join(written),
        auto_class=auto_class,
        pipeline="text-classification" if classifies else "text-generation",
    )


def _rounding(storage: BackboneStorage) -> str:
    if storage.is_plain:
        return ""
    held = storage.quantization or storage.dtype
    return f", its weights rounded to {held}: an adapter on weights that aren't gives somewhat other answers"


def _figures(run: LoadedRun) -> str:
    figures = ", ".join(f"{name.removeprefix('val/')} {value:.4f}" for name, value in run.metrics().items())
    return figures or "not known: the run didn't finish, or the checkpoint isn't from the end of an epoch"


def _adapter(run: LoadedRun, ranks: dict[str, int]) -> str:
    adapter = run.module.adapter
    if adapter is None:
        return "none, every weight was trained."
    if run.module.rank_allocation is not None:
        words = describe_ranks(run.module)
    else:
        words = ", ".join(map(str, sorted(set(ranks.values()))))
    return f"{adapter.name}, ranks {words}."
