"""Perplexity against a plain loop, training by tokens, tied embeddings."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from callbacks.predictions import PredictionTable
from common.errors import InputError
from lightning_modules.metrics import TokenLoss
from lora import LoRAXS
from lora.export import merge
from tests import tiny


@pytest.fixture(params=["gpt2", "llama"])
def backbone(request, tiny_gpt2, tiny_llama) -> str:
    return tiny_gpt2 if request.param == "gpt2" else tiny_llama


def token_losses(model, tokens: list[int]) -> list[float]:
    """The loss of every token but the first, in float64."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    return (-logits.log_softmax(-1)[:-1].gather(1, torch.tensor(tokens)[1:, None])).flatten().tolist()


def plain_perplexity(backbone: str, file: Path, packing: str, size: int, stride: int | None) -> float:
    """The definition, written as a loop: one row at a time, no padding, no batches."""
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    model = AutoModelForCausalLM.from_pretrained(backbone).eval()
    text = file.read_text()
    texts = [text] if packing == "blocks" else [line for line in text.split("\n") if line.strip()]
    losses = []
    for tokens in (tokenizer(text)["input_ids"] for text in texts):
        scored_until = 1
        for start in range(0, len(tokens), stride or size):
            row = tokens[start : start + size]
            first = max(scored_until, start + 1)  # of the tokens, by place in the text
            if len(row) > 1 and first < start + len(row):
                losses += token_losses(model, row)[first - start - 1 :]
            scored_until = start + len(row)
            if scored_until == len(tokens):
                break
    return math.exp(math.fsum(losses) / len(losses))


def evaluated(backbone, folder, adapter=None, **settings) -> tuple[float, float]:
    module = tiny.make_language_module(backbone, adapter)
    data = tiny.make_wikitext(backbone, folder, **settings)
    (figures,) = tiny.make_trainer().validate(module, datamodule=data, verbose=False)
    assert figures["val/perplexity"] == pytest.approx(math.exp(figures["val/loss"]), rel=1e-6)
    return figures["val/perplexity"]


@pytest.mark.parametrize(
    ("packing", "size", "stride"),
    [("blocks", 16, None), ("blocks", 16, 5), ("blocks", 32, 31), ("lines", 64, None), ("lines", 8, 3)],
)
def test_perplexity_is_that_of_a_plain_loop(backbone, wikitext_folder, packing, size, stride):
    expected = plain_perplexity(backbone, Path(wikitext_folder) / "wiki.valid.raw", packing, size, stride)
    for batch in (1, 7):
        found = evaluated(
            backbone, wikitext_folder, packing=packing, block_size=size, stride=stride, evaluation_batch_size=batch
        )
        assert found == pytest.approx(expected, rel=1e-5)


def fit(module, data, *callbacks, **settings):
    torch.manual_seed(0)
    return tiny.fit(module, data, *callbacks, **settings)


def noted_losses():
    """Notes the loss of every micro-batch."""
    seen = []
    note = lambda trainer, module, outputs, *_: seen.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)  # noqa: E731
    return seen, LambdaCallback(on_train_batch_end=note)


@pytest.mark.parametrize("packing", ["blocks", "lines"])
def test_accumulation_gives_the_same_mean_over_tokens_and_the_same_update(tiny_llama, wikitext_folder, packing):
    ends, means = [], []
    for accumulate in (1, 3):
        (losses, loss), module = noted_losses(), tiny.make_language_module(tiny_llama, learning_rate=1e-2)
        data = tiny.make_wikitext(tiny_llama, wikitext_folder, batch_size=6, packing=packing)
        torch.manual_seed(0)
        settings = {"accumulate_grad_batches": accumulate, "limit_val_batches": 0, "gradient_clip_val": 1.0}
        tiny.make_trainer(loss, **settings).fit(module, datamodule=data)
        steps = torch.tensor(losses).view(-1, accumulate)
        means.append(steps.mean(1))
        ends.append(torch.cat([parameter.detach().flatten() for parameter in module.model.parameters()]))
    torch.testing.assert_close(means[0], means[1], rtol=1e-3, atol=1e-4)
    # Adam turns a gradient that is zero but for rounding into a whole step: a few entries may differ
    assert float(((ends[0] - ends[1]).abs() > 1e-3).float().mean()) < 1e-3


def test_the_training_loss_of_a_step_is_the_mean_over_its_tokens(tiny_llama, wikitext_folder):
    (losses, loss), module = noted_losses(), tiny.make_language_module(tiny_llama, learning_rate=0.0)
    data = tiny.make_wikitext(tiny_llama, wikitext_folder, packing="lines", block_size=64)
    fit(module, data, loss, limit_val_batches=0)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llama), AutoModelForCausalLM.from_pretrained(tiny_llama)
    text = (Path(wikitext_folder) / "wiki.train.raw").read_text()
    lines = [line for line in text.split("\n") if line.strip()]
    rows = [token_losses(model.eval(), tokenizer(line)["input_ids"]) for line in lines]
    sampler = data.train_dataloader().batch_sampler
    for step, found in enumerate(losses):
        values = [value for row in sampler.micro_batch(0, step).indices for value in rows[row]]
        assert found == pytest.approx(sum(values) / len(values), rel=1e-5)
    total, tokens = module.epoch_loss.tolist()
    assert tokens == sum(map(len, rows)) == data.row_counts["train_tokens"]
    assert total == pytest.approx(sum(map(sum, rows)), rel=1e-5)


@pytest.mark.parametrize("saver", [tiny.save_tiny_gpt2, lambda folder: tiny.save_tiny_llama(folder, tied=True)])
def test_tied_embeddings_are_one_parameter_that_stays_tied(saver, wikitext_folder, tmp_path):
    folder = str(saver(tmp_path / "model"))
    module, data = tiny.make_language_module(folder, learning_rate=1e-2), tiny.make_wikitext(folder, wikitext_folder)
    last = LastCheckpoint(tmp_path)
    fit(module, data, last)
    model = module.model
    head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert head is embeddings
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert module.parameter_counts()["adapter"] == module.parameter_counts()["total"] == plain.num_parameters()
    assert not torch.equal(embeddings, plain.get_input_embeddings().weight)
    trained = embeddings.detach().clone()
    again = tiny.make_language_module(folder)
    (figures,) = tiny.make_trainer().validate(again, datamodule=data, ckpt_path=str(last.path), verbose=False)
    assert again.model.get_output_embeddings().weight is again.model.get_input_embeddings().weight
    assert torch.equal(again.model.get_output_embeddings().weight, trained)
    (expected,) = tiny.make_trainer().validate(module, datamodule=data, verbose=False)
    assert figures == expected


def test_with_an_adapter_the_tied_embeddings_stay_and_are_not_saved(tiny_gpt2, wikitext_folder, tmp_path):
    module, data = tiny.make_language_module(tiny_gpt2, LoRAXS(4)), tiny.make_wikitext(tiny_gpt2, wikitext_folder)
    fit(module, data, LastCheckpoint(tmp_path))
    assert torch.equal(
        module.model.lm_head.weight, AutoModelForCausalLM.from_pretrained(tiny_gpt2).lm_head.weight.detach()
    )
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("lm_head" in key or "wte" in key for key in kept)
    assert module.parameter_counts() == {"head": 0, "adapter": 6 * 16, "allocation": 0, "total": 6 * 16}


def test_the_best_checkpoint_is_the_epoch_with_the_lowest_perplexity(tiny_gpt2, wikitext_folder, tmp_path):
    """The model is ruined before the third epoch: the largest perplexity is the last one."""

    def ruin(trainer, module):
        for parameter in module.model.parameters():
            parameter.mul_(10)

    ruins = tiny.at("on_train_epoch_start", ruin, current_epoch=2)
    notes = tiny.notes(lambda module: float(module.trainer.callback_metrics["val/perplexity"]), "on_train_epoch_end")
    module, data = tiny.make_language_module(tiny_gpt2), tiny.make_wikitext(tiny_gpt2, wikitext_folder)
    best = BestCheckpoint(tmp_path)
    fit(module, data, ruins, notes, best, max_epochs=3, enable_checkpointing=True)
    seen = notes.seen
    assert seen[1] < seen[0] < seen[2]
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 1
    assert float(best.best_model_score) == pytest.approx(seen[1])


@pytest.mark.parametrize(("size", "stride"), [(64, None), (6, None), (6, 2)])
def test_predict_writes_the_loss_of_every_line(backbone, wikitext_folder, tmp_path, size, stride):
    file = tmp_path / "lines.txt"
    lines = ["the cat sees a dog", "", "a", "big birds hear\tsmall cats often and often"]
    file.write_text("\n".join(lines) + "\n")
    module = tiny.make_language_module(backbone)
    data = tiny.make_wikitext(backbone, wikitext_folder, predict_file=str(file), block_size=size, stride=stride)
    tiny.make_trainer(PredictionTable(tmp_path / "p.tsv")).predict(module, datamodule=data)
    table = [line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines()]
    assert table[0] == ["text", "tokens", "mean_loss_per_token", "perplexity"]
    assert [row[0] for row in table[1:]] == [" ".join(line.split()) for line in lines if line]
    for line, (_, tokens, loss, perplexity) in zip([line for line in lines if line], table[1:]):
        (tmp_path / "one").write_text(line)
        count = len(AutoTokenizer.from_pretrained(backbone)(line)["input_ids"])
        if count == 1:  # GPT-2: one token and no context
            assert (tokens, loss, perplexity) == ("0", "", "")
            continue
        expected = plain_perplexity(backbone, tmp_path / "one", "lines", size, stride)
        assert float(perplexity) == pytest.approx(expected, rel=1e-5)
        assert math.exp(float(loss)) == pytest.approx(expected, rel=1e-5)


def test_an_encoder_is_refused(tiny_bert, wikitext_folder):
    with pytest.raises(InputError, match=r"no weights that fit for cls.predictions"):
        fit(tiny.make_language_module(tiny_bert), tiny.make_wikitext(tiny_bert, wikitext_folder))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("bert", {}), ("xlm", {"emb_dim": 16, "n_layers": 2, "n_heads": 2})],  # XLM takes token 2 for padding
)
def test_a_model_that_looks_ahead_is_refused(tmp_path, wikitext_folder, kind, settings):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model(kind, **sizes | settings, vocab_size=len(tiny.WORDS) + 4)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    with pytest.raises(InputError, match="not a causal language model"):
        fit(tiny.make_language_module(str(tmp_path)), tiny.make_wikitext(str(tmp_path), wikitext_folder))


def test_a_model_that_halves_its_weights_to_evaluate_answers_what_the_merged_one_does(tmp_path, wikitext_folder):
    sizes = {"hidden_size": 8, "attention_hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    config = AutoConfig.for_model("rwkv", vocab_size=320, context_length=64, rescale_every=1, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.save_causal_tokenizer(tmp_path, begins_texts=True)
    module = tiny.make_language_module(str(tmp_path), LoRAXS(rank=4, targets="all-linear", initial_std=0.5))
    tiny.make_trainer().validate(module, tiny.make_wikitext(str(tmp_path), wikitext_folder), verbose=False)
    plain, tokens = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), torch.arange(5, 12)[None]
    merge(plain, module.adapter.low_rank_factors())
    with torch.no_grad():
        torch.testing.assert_close(module.model.eval()(tokens).logits, plain(tokens).logits)


def test_a_block_longer_than_the_model_sees_is_refused(backbone, wikitext_folder):
    module, data = tiny.make_language_module(backbone), tiny.make_wikitext(backbone, wikitext_folder, block_size=65)
    with pytest.raises(InputError, match=r"block_size is 65, but .* sees at most 64 tokens"):
        fit(module, data)


def test_perplexity_over_zero_tokens_is_refused():
    metric = TokenLoss()
    metric.update(torch.zeros(1), torch.zeros(1, dtype=torch.long))  # a row that only takes part
    with pytest.raises(InputError, match="perplexity over zero tokens"):
        metric.compute()


def test_token_losses_are_summed_exactly():
    metric, generator = TokenLoss(), torch.Generator().manual_seed(0)
    losses = torch.rand(3000, generator=generator) * 1000
    for part in losses.split(7):
        metric.update(part, torch.full((len(part),), 100))
    assert float(metric.compute()) == pytest.approx(math.fsum(losses.tolist()) / 300_000, rel=1e-12)


def test_predict_without_a_file_takes_the_lines_of_the_test_split(tiny_gpt2, wikitext_folder, tmp_path):
    module, data = tiny.make_language_module(tiny_gpt2), tiny.make_wikitext(tiny_gpt2, wikitext_folder, block_size=64)
    tiny.make_trainer(PredictionTable(tmp_path / "p.tsv")).predict(module, datamodule=data)
    lines = [line for line in (Path(wikitext_folder) / "wiki.test.raw").read_text().split("\n") if line.strip()]
    table = [line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines()[1:]]
    assert [row[0] for row in table] == lines
    tokens, losses = sum(int(row[1]) for row in table), math.fsum(int(row[1]) * float(row[2]) for row in table)
    expected = plain_perplexity(tiny_gpt2, Path(wikitext_folder) / "wiki.test.raw", "lines", 64, None)
    assert math.exp(losses / tokens) == pytest.approx(expected, rel=1e-5)
