from experiments.fit_parts import file_callbacks

from callbacks.checkpoints import BestCheckpoint
from experiments.run_folder import RunFolder


def test_without_validation_no_epoch_is_the_best(tmp_path):
    for batches, kept in ((None, True), (0.5, True), (0, False)):
        made = file_callbacks({"limit_val_batches": batches}, RunFolder(tmp_path), "", 10.0, None)
        assert any(isinstance(callback, BestCheckpoint) for callback in made) is kept
