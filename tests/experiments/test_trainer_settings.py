import pytest

from common.errors import InputError
from experiments.trainer_settings import check_trainer


@pytest.mark.parametrize("name", ["limit_train_batches", "limit_val_batches", "overfit_batches"])
def test_more_batches_than_a_double_can_count_are_refused(name):
    check_trainer({name: 2**53})
    with pytest.raises(InputError, match=f"trainer.{name} is {2**60}; allowed: up to 9,007,199,254,740,992 batches"):
        check_trainer({name: 2**60})
