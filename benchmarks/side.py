"""One side of a pair, alone in its process: `python -m benchmarks.side NAME --steps ...` prints one line of JSON."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import sides_bare, sides_evaluation, sides_factors, sides_ours, sides_peft, sides_seed
from benchmarks.settings import Settings, add_settings
from common.errors import InputError

SIDES: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "adaptive_softmax": sides_ours.adaptive_softmax,
    "adaptive_bounded": sides_ours.adaptive_bounded,
    "fixed_rank": sides_ours.fixed_rank,
    "lora": sides_ours.lora,
    "lora_all_linear": sides_ours.lora_all_linear,
    "full": sides_ours.full,
    "frozen_backbone": sides_bare.frozen_backbone,
    "frozen_backbone_plain": sides_bare.frozen_backbone_plain,
    "evaluation": sides_evaluation.evaluation,
    "factors": sides_factors.factors,
    "seed_with_pictures": sides_seed.seed_with_pictures,
    "seed_without_pictures": sides_seed.seed_without_pictures,
    "trainer_peft_lora": sides_peft.trainer_peft_lora,
    "trainer_peft_adalora": sides_peft.trainer_peft_adalora,
}


def main() -> int:
    """Runs the side that is named on the command line and prints its figures as the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side", description=__doc__)
    parser.add_argument("name", choices=sorted(SIDES))
    add_settings(parser)
    parsed = parser.parse_args()
    try:
        print(json.dumps(SIDES[parsed.name](Settings.of(parsed))), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
