"""WikiText-2 and WikiText-103, from local files or from the hub."""

from pathlib import Path
from typing import Any

from common.errors import InputError, one_of
from datamodules.language_modelling import LanguageModellingDataModule
from datamodules.sources import find_file, folder_content
from datamodules.sources_datasets import saved_folder
from datamodules.sources_plain import read_hub_rows, read_rows, read_saved_rows, read_split_files

HUB_WIKITEXT = "Salesforce/wikitext"
VARIANTS = ("wikitext-2-raw", "wikitext-2", "wikitext-103-raw", "wikitext-103")
COLUMN = "text"
_OFFICIAL = {"train": "train", "validation": "valid", "test": "test"}


class WikiTextDataModule(LanguageModellingDataModule):
    """WikiText: from `data_dir` when given, else Salesforce/wikitext from the hub or its cache.

    Args:
        variant: wikitext-2-raw, wikitext-2 (tokenised, rare words are <unk>), wikitext-103-raw or wikitext-103.
        data_dir: folder with wiki.train.raw, wiki.valid.raw and wiki.test.raw (tokenised: .tokens), plain or .gz; with
            train, validation and test as .parquet or .jsonl; or a save_to_disk folder.
        dataset_revision: hub branch, tag or commit of the data set.
    """

    def __init__(
        self,
        variant: str = "wikitext-2-raw",
        data_dir: str | None = None,
        dataset_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.variant = variant
        self.data_dir = data_dir
        self.dataset_revision = dataset_revision

    @property
    def name(self) -> str:
        return self.variant

    def check_settings(self) -> None:
        super().check_settings()
        if self.variant not in VARIANTS:
            raise one_of("variant", self.variant, VARIANTS)

    def load_texts(self) -> dict[str, list[str]]:
        if self.data_dir is not None:
            return self._read_folder(self.data_dir)
        other = f"--data.data_dir FOLDER with {', '.join(self._official_names())} or their .gz"
        rows = read_hub_rows(HUB_WIKITEXT, f"{self.variant}-v1", self.dataset_revision, COLUMN, other)
        return _with_blank_lines(rows)

    def read_predict_file(self, file: str) -> list[str]:
        return read_rows(Path(file).expanduser(), COLUMN)

    def _official_names(self) -> tuple[str, ...]:
        ending = "raw" if self.variant.endswith("raw") else "tokens"
        return tuple(f"wiki.{split}.{ending}" for split in _OFFICIAL.values())

    def _read_folder(self, data_dir: str) -> dict[str, list[str]]:
        root = Path(data_dir).expanduser()
        names = self._official_names()
        if not root.is_dir():
            raise InputError(
                f"data_dir is {data_dir!r}, which is not a folder; allowed: a folder with {', '.join(names)}."
            )
        for folder in (root, root / self.variant, root / f"{self.variant}-v1"):
            found = [find_file(folder, [name]) for name in names]
            if all(found):
                return {split: read_rows(path) for split, path in zip(_OFFICIAL, found, strict=True) if path}
        splits = read_saved_rows(root, COLUMN) if saved_folder(root) else read_split_files(root, COLUMN)
        if "train" not in splits or "validation" not in splits:
            missing = [name for name in names if find_file(root, [name]) is None]
            raise InputError(
                f"{root} has no {' and no '.join(missing)} (plain or .gz), which {self.variant} needs, and no "
                f"train and validation as .parquet or .jsonl. It holds: {folder_content(root)}. Add the files, or "
                "check --data.variant."
            )
        return _with_blank_lines(splits)


def _with_blank_lines(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    """A blank line is one space in the official files, and nothing in the hub's rows: the same tokens either way."""
    return {split: [row if row.strip() else " \n" for row in rows] for split, rows in splits.items()}
