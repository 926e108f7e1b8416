"""Recomputes a validation figure from an exported folder with transformers, peft and scikit-learn alone.

Nothing of this project is imported, so what it prints is what anybody gets from the files:

    python tests/reference/exported_metric.py runs/cola_adaptive/exports/peft DATA/cola/in_domain_dev.tsv
    python tests/reference/exported_metric.py runs/sst2_adaptive/exports/merged DATA/glue/SST-2/dev.tsv
"""

import argparse
import json
from pathlib import Path
from typing import Any

from peft import PeftModel
from sklearn.metrics import accuracy_score, matthews_corrcoef
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline


def read_rows(path: Path) -> tuple[list[str], list[int]]:
    """Sentences and labels: CoLA's release (source, label, mark, sentence), or GLUE's (a header, sentence, label)."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    if lines[0] == ["sentence", "label"]:
        return [line[0] for line in lines[1:]], [int(line[1]) for line in lines[1:]]
    return [line[3] for line in lines], [int(line[1]) for line in lines]


def load(folder: Path, base: str | None) -> tuple[Any, Any]:
    """The model and tokenizer of a merged folder, or of a PEFT folder over its base model."""
    if not (folder / "adapter_config.json").exists():
        return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    base = base or json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    return PeftModel.from_pretrained(plain, folder).merge_and_unload(), AutoTokenizer.from_pretrained(base)


def main() -> None:
    """Prints accuracy and Matthews correlation as fractions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Exported folder, merged or peft.")
    parser.add_argument("rows", type=Path, help="TSV file with the validation rows.")
    parser.add_argument("--base", help="Base model of a PEFT folder; the one it names if not given.")
    parser.add_argument("--max_length", type=int, default=128, help="Longer rows are cut to this many tokens (128).")
    options = parser.parse_args()
    sentences, labels = read_rows(options.rows)
    model, tokenizer = load(options.folder, options.base)
    classify: Any = pipeline("text-classification", model=model.eval(), tokenizer=tokenizer, batch_size=32)
    answers = classify(sentences, truncation=True, max_length=options.max_length)
    predictions = [model.config.label2id[answer["label"]] for answer in answers]
    print(f"accuracy {accuracy_score(labels, predictions):.6f}")
    print(f"matthews_correlation {matthews_corrcoef(labels, predictions):.6f}")


if __name__ == "__main__":
    main()
