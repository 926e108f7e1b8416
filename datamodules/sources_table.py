"""The user's own tables: where their splits are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.terminal import logger
from datamodules.sources import Table
from datamodules.sources_datasets import check_complete, load_hub, load_saved, saved_folder, split_tables
from datamodules.sources_files import TABLE_ENDINGS
from datamodules.sources_folders import existing_folder, folder_content, read_tables, split_files


@dataclass(frozen=True)
class TableSource:
    """Where the splits of a table are: in files, or in a data set of the hub or a `save_to_disk` folder.

    The settings are those of `TableDataModule`; `files` and `splits` have one for each split, where it is given.
    """

    files: Mapping[str, str | None]
    data_dir: str | None
    dataset: str | None
    dataset_name: str | None
    dataset_revision: str | None
    splits: Mapping[str, str | None]

    @property
    def name(self) -> str:
        """What to call the data in results and messages."""
        if self.dataset is not None:
            return self.dataset if self.dataset_name is None else f"{self.dataset}/{self.dataset_name}"
        return self.files["train"] or self.data_dir or "table"

    def check(self) -> None:
        """Raises InputError unless there is one source."""
        named = [f"{split}_file" for split, file in self.files.items() if file is not None]
        if self.dataset is not None and (named or self.data_dir is not None):
            other = ", ".join([*named, *["data_dir"] * (self.data_dir is not None)])
            raise InputError(f"dataset is {self.dataset!r} and {other} given too; allowed: one source of the data.")
        self._check_effect()
        if self.dataset is None and self.data_dir is None and self.files["train"] is None:
            raise InputError(
                "the data has no source; allowed: --data.train_file FILE, --data.data_dir FOLDER with a file called "
                f"train ({', '.join(TABLE_ENDINGS)}), or --data.dataset NAME."
            )

    def _check_effect(self) -> None:
        """Raises InputError for a choice within a data set where there is none to choose in."""
        if self.dataset is not None:
            return
        choices = {"dataset_name": self.dataset_name, "dataset_revision": self.dataset_revision}
        if self.files["train"] is not None or not saved_folder(Path(self.data_dir or ".").expanduser()):
            choices |= {f"{split}_split": name for split, name in self.splits.items()}
        for name, value in choices.items():
            if value is not None:
                raise InputError(
                    f"{name} is {value!r}, but would have no effect: it chooses in a data set, and the data are files. "
                    "Leave it out, or give --data.dataset."
                )

    def read(self, wanted: Sequence[str], separator: str | None) -> dict[str, Table]:
        """The splits as tables, see `read_table`; `train` is always among them."""
        if self.dataset is not None and not saved_folder(Path(self.dataset).expanduser()):
            instead = "--data.train_file FILE or --data.data_dir FOLDER with the data as .csv, .tsv, .jsonl or .parquet"
            loaded = load_hub(self.dataset, self.dataset_name, self.dataset_revision, instead)
            return self._chosen_splits(loaded, self.name, wanted)
        folder = existing_folder(self.dataset or self.data_dir or ".", "the data")
        if self.files["train"] is None and saved_folder(folder):
            return self._chosen_splits(load_saved(folder), self.dataset or str(folder), wanted)
        found = self._found_files(folder)
        check_complete(found, ("train",), f"{folder} (it holds: {folder_content(folder)})")
        return {split: read_tables(files, wanted, separator) for split, files in found.items()}

    def _chosen_splits(self, loaded: Mapping[str, Any], source: str, wanted: Sequence[str]) -> dict[str, Table]:
        _tell_repeats(self.splits)
        return split_tables(loaded, source, wanted, ("train",), self.splits)

    def _found_files(self, folder: Path) -> dict[str, list[Path]]:
        """The files of each split: those that are named, and if that leaves out train, those with a split's name."""
        named = {split: [folder / Path(file).expanduser()] for split, file in self.files.items() if file is not None}
        _tell_repeats({split: str(files[0].resolve()) for split, files in named.items()})
        if self.files["train"] is None:
            taken = [file.resolve() for files in named.values() for file in files]
            for split in [split for split in self.files if split not in named]:
                files = split_files(folder, split, TABLE_ENDINGS)
                # a file that is named for one split is no other one's, whatever it is called
                named[split] = [file for file in files if file.resolve() not in taken]
        return {split: named[split] for split in self.files if named.get(split)}


def _tell_repeats(chosen: Mapping[str, str | None]) -> None:
    """Warns where the same rows were chosen for two purposes: the figures of one say nothing about new rows then."""
    for (first, theirs), (second, ours) in combinations(chosen.items(), 2):
        if theirs is not None and theirs == ours:
            logger.warning(f"The same rows are chosen for {first} and {second}: {ours}.")
