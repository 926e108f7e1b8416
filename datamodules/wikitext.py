"""WikiText-2 and WikiText-103, from local files or from the hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, check_one_of
from datamodules.language_modelling import LanguageModellingDataModule, read_running_text, running_texts
from datamodules.sources import Table
from datamodules.splits import existing_folder, find_file, folder_content, hub_tables, named_tables

VARIANTS = ("wikitext-2-raw", "wikitext-2", "wikitext-103-raw", "wikitext-103")
COLUMN = "text"
_OFFICIAL = {"train": "train", "validation": "valid", "test": "test"}


@dataclass(kw_only=True, eq=False, repr=False)
class WikiTextDataModule(LanguageModellingDataModule):
    """WikiText: from `data_dir` when given, else Salesforce/wikitext from the hub or its cache.

    Args:
        variant: wikitext-2-raw, wikitext-2 (tokenised, rare words are <unk>), wikitext-103-raw or wikitext-103.
        data_dir: folder with wiki.train.raw, wiki.valid.raw and wiki.test.raw (tokenised: .tokens), plain or .gz; with
            train, validation and test as .parquet or .jsonl; or a save_to_disk folder.
        dataset_revision: hub branch, tag or commit of the data set.
    """

    variant: str = "wikitext-2-raw"
    data_dir: str | None = None
    dataset_revision: str | None = None

    @property
    def name(self) -> str:
        return self.variant

    def check_settings(self) -> None:
        super().check_settings()
        check_one_of("variant", self.variant, VARIANTS)

    def load_texts(self) -> dict[str, list[str]]:
        if self.data_dir is not None:
            return self._read_folder(self.data_dir)
        instead = f"--data.data_dir FOLDER with {', '.join(self._official_names())} or their .gz"
        place = ("Salesforce/wikitext", f"{self.variant}-v1", self.dataset_revision)
        return _with_blank_lines(hub_tables(*place, instead, (COLUMN,)))

    def read_predict_file(self, file: str) -> list[str]:
        return read_running_text(Path(file).expanduser(), COLUMN)

    def _official_names(self) -> tuple[str, ...]:
        ending = "raw" if self.variant.endswith("raw") else "tokens"
        return tuple(f"wiki.{split}.{ending}" for split in _OFFICIAL.values())

    def _read_folder(self, data_dir: str) -> dict[str, list[str]]:
        names = self._official_names()
        root = existing_folder(data_dir, ", ".join(names))
        for folder in (root, root / self.variant, root / f"{self.variant}-v1"):
            paths = [path for name in names if (path := find_file(folder, name))]
            if len(paths) == len(names):
                return {split: read_running_text(path) for split, path in zip(_OFFICIAL, paths, strict=True)}
        tables = named_tables(root, (COLUMN,), ())
        if "train" not in tables or "validation" not in tables:
            missing = [name for name in names if find_file(root, name) is None]
            raise InputError(
                f"{root} has no {' and no '.join(missing)} (plain or .gz), which {self.variant} needs, and no "
                f"train and validation as .parquet or .jsonl. It holds: {folder_content(root)}. Add the files, or "
                "check --data.variant."
            )
        return _with_blank_lines(tables)


def _with_blank_lines(tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """A blank line is one space in the official files, and nothing in the hub's rows: the same tokens either way."""
    texts = running_texts(tables, COLUMN)
    return {split: [row if row.strip() else " \n" for row in rows] for split, rows in texts.items()}
