import gzip
import json
from pathlib import Path

import pytest

from common.errors import InputError
from datamodules.glue import FOLDERS, read_glue_folder
from datamodules.task import GLUE_TASKS, Task

COLA = GLUE_TASKS["cola"]
TRAIN = 'gj04\t1\t\tShe said "hello" to us.\ngj04\t0\t*\t"Us to hello said.\ngj04\t1\t\tIt\u2028is\x85he\rre.\n'
IN_DOMAIN = "gj04\t1\t\tHe left.\ngj04\t0\t*\tLeft he him.\n"
OUT_OF_DOMAIN = "clc95\t1\t\tSomebody left - guess who.\nclc95\t0\t*\tWho guess."
OFFICIAL = {"in_domain_train.tsv": TRAIN, "in_domain_dev.tsv": IN_DOMAIN, "out_of_domain_dev.tsv": OUT_OF_DOMAIN}


def write(folder: Path, files: dict[str, str | bytes]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return str(folder)


def failure(task: Task, data_dir: str) -> str:
    with pytest.raises(InputError) as caught:
        read_glue_folder(task, data_dir)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_official_cola_keeps_quotes_and_unusual_line_breaks_as_text(tmp_path, ending):
    splits = read_glue_folder(COLA, write(tmp_path, {name + ending: text for name, text in OFFICIAL.items()}))
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"].texts == ['She said "hello" to us.', '"Us to hello said.', "It\u2028is\x85he\rre."]
    assert splits["train"].labels == [1, 0, 1]
    assert splits["train"].pairs is None
    assert splits["validation"].texts == ["He left.", "Left he him."]
    assert splits["test"].texts == ["Somebody left - guess who.", "Who guess."]
    assert splits["test"].labels == [1, 0]


def test_combined_validation_is_both_files_and_leaves_no_test(tmp_path):
    splits = read_glue_folder(COLA, write(tmp_path, OFFICIAL), combined=True)
    assert list(splits) == ["train", "validation"]
    assert splits["validation"].where(3) == f"{tmp_path}/out_of_domain_dev.tsv, line 2"
    assert splits["validation"].texts == ["He left.", "Left he him.", "Somebody left - guess who.", "Who guess."]
    assert splits["validation"].labels == [1, 0, 1, 0]


def test_a_combined_validation_that_there_is_no_second_file_for_is_told(tmp_path, capsys):
    for split in ("train", "validation"):
        rows = [json.dumps({"sentence": f"{split} {row}", "label": row % 2}) for row in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    read_glue_folder(COLA, str(tmp_path))
    assert "without effect" not in capsys.readouterr().err
    read_glue_folder(COLA, str(tmp_path), combined=True)
    assert "data.cola_validation (the data aren't CoLA's official release)" in capsys.readouterr().err


MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
STSB_HEADER = "index\tgenre\tsentence1\tsentence2\tscore\n"
MNLI_HEADER = "index\tsentence1\tsentence2\tgold_label\n"
QNLI_HEADER = "index\tquestion\tsentence\tlabel\n"
PAIR_HEADER = "index\tsentence1\tsentence2\tlabel\n"
GLUE_FILES = {
    "cola": {"CoLA/train.tsv": TRAIN, "CoLA/dev.tsv": IN_DOMAIN, "CoLA/test.tsv": "index\tsentence\n0\tHe ran.\n"},
    "sst2": {
        "SST-2/train.tsv.gz": 'sentence\tlabel\na " good one \t1\nbad \t0\n',
        "SST-2/dev.tsv": "sentence\tlabel\nfine\t1\n",
        "SST-2/test.tsv": "index\tsentence\n0\tso so\n",
    },
    "mrpc": {
        "MRPC/train.tsv": f"\ufeff{MRPC_HEADER}1\t7\t8\tOne.\tUno.\n0\t9\t9\tTwo.\tTre.\n",
        "MRPC/dev.tsv": f"{MRPC_HEADER}1\t7\t8\tOne.\tUno.\n",
        "MRPC/test.tsv": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tSix.\tSei.\n",
    },
    "qqp": {
        "QQP/train.tsv": f"{QQP_HEADER}1\t2\t3\tWhy?\tHow?\t0\n2\t3\t4\tA?\tB?\t1\n",
        "QQP/dev.tsv": f"{QQP_HEADER}1\t2\t3\tWhen?\t\t1\n",
        "QQP/test.tsv": "id\tquestion1\tquestion2\n1\tWho?\tWhom?\n",
    },
    "stsb": {
        "STS-B/train.tsv": f"{STSB_HEADER}0\tnews\tA man.\tA boy.\t2.500\n1\tnews\tB.\tC.\t5\n",
        "STS-B/dev.tsv": f"{STSB_HEADER}0\tnews\tD.\tE.\t0.0\n",
        "STS-B/test.tsv": "index\tgenre\tsentence1\tsentence2\n0\tnews\tF.\tG.\n",
    },
    "mnli": {
        "MNLI/train.tsv": (
            "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
            "0\tP.\tH.\tneutral\tentailment\n1\tP.\tI.\tneutral\tneutral\n"
        ),
        "MNLI/dev_matched.tsv": f"{MNLI_HEADER}0\tQ.\tJ.\tcontradiction\n",
        "MNLI/dev_mismatched.tsv": f"{MNLI_HEADER}0\tR.\tK.\tneutral\n",
        "MNLI/test_matched.tsv": "index\tsentence1\tsentence2\n0\tS.\tL.\n",
        "MNLI/test_mismatched.tsv": "index\tsentence1\tsentence2\n0\tT.\tM.\n",
    },
    "qnli": {
        "QNLI/train.tsv": f"{QNLI_HEADER}0\tWho?\tHe.\tentailment\n1\tWhy?\tNo.\tnot_entailment\n",
        "QNLI/dev.tsv": f"{QNLI_HEADER}0\tWhat?\tIt.\tnot_entailment\n",
        "QNLI/test.tsv": "index\tquestion\tsentence\n0\tWhere?\tHere.\n",
    },
    "rte": {
        "RTE/train.tsv.gz": f"{PAIR_HEADER}0\tA.\tB.\tnot_entailment\n1\tC.\tD.\tentailment\n",
        "RTE/dev.tsv": f"{PAIR_HEADER}0\tE.\tF.\tentailment\n",
    },
    "wnli": {
        "WNLI/train.tsv": f"{PAIR_HEADER}0\tA.\tB.\t1\n1\tC.\tD.\t0\n",
        "WNLI/dev.tsv": f"{PAIR_HEADER}0\tE.\tF.\t0\n",
    },
}
# (texts, pairs, labels) of train, and labels of validation, read off the files above by eye.
GLUE_EXPECTED = {
    "cola": (['She said "hello" to us.', '"Us to hello said.', "It\u2028is\x85he\rre."], None, [1, 0, 1], [1, 0]),
    "sst2": (['a " good one ', "bad "], None, [1, 0], [1]),
    "mrpc": (["One.", "Two."], ["Uno.", "Tre."], [1, 0], [1]),
    "qqp": (["Why?", "A?"], ["How?", "B?"], [0, 1], [1]),
    "stsb": (["A man.", "B."], ["A boy.", "C."], [2.5, 5.0], [0.0]),
    "mnli": (["P.", "P."], ["H.", "I."], [0, 1], [2]),
    "qnli": (["Who?", "Why?"], ["He.", "No."], [0, 1], [1]),
    "rte": (["A.", "C."], ["B.", "D."], [1, 0], [0]),
    "wnli": (["A.", "C."], ["B.", "D."], [1, 0], [0]),
}


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("name", GLUE_TASKS)
def test_glue_layout_of_every_task(tmp_path, name, nested):
    root = Path(write(tmp_path, GLUE_FILES[name]))
    (folder,) = root.iterdir()
    splits = read_glue_folder(GLUE_TASKS[name], str(root if nested else folder))
    texts, pairs, labels, validation_labels = GLUE_EXPECTED[name]
    assert (splits["train"].texts, splits["train"].pairs, splits["train"].labels) == (texts, pairs, labels)
    assert splits["validation"].labels == validation_labels
    if name not in ("rte", "wnli"):
        assert splits["test"].labels is None
        assert len(splits["test"]) == 1
    if name == "mnli":
        others = {split: (splits[split].texts, splits[split].labels) for split in splits if "mismatched" in split}
        assert others == {"validation_mismatched": (["R."], [1]), "test_mismatched": (["T."], None)}


def test_broken_rows_of_the_published_qqp_are_left_out(tmp_path, capsys):
    files = dict(GLUE_FILES["qqp"])
    files["QQP/train.tsv"] += "3\t4\t5\tA question with\na line break?\tB?\t1\n"
    splits = read_glue_folder(GLUE_TASKS["qqp"], write(tmp_path, files))
    assert splits["train"].texts == ["Why?", "A?"]
    assert "left out 2 lines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("gj04\t1\tNo fourth column.", ["line 3", "3 tab-separated columns", "allowed: 4 (source, label, star"]),
        ("gj04\t1\t\tToo\tmany.", ["line 3", "5 tab-separated columns"]),
        ("", ["line 3", "1 tab-separated columns"]),
        ("gj04\t2\t\tTwo.", ["line 3", "label is '2'", "allowed: 0 (unacceptable), 1 (acceptable)"]),
        ("gj04\tyes\t\tYes.", ["line 3", "label is 'yes'"]),
        ("gj04\t-1\t\tMinus.", ["line 3", "label is '-1'"]),
        ("gj04\t0.5\t\tHalf.", ["line 3", "label is '0.5'"]),
        ("gj04\t\t\tNone.", ["line 3", "label is ''"]),
        ("gj04\t1\t\t ", ["line 3", "sentence is empty"]),
        ("gj04\t1\t\tcaf\xe9", ["line 3", "b'\\xe9' is not valid UTF-8", "iconv"]),
        ("gj04\t1\t\tnu\x00l", ["line 3", "NUL byte"]),
    ],
)
def test_a_malformed_row_names_file_line_value_and_what_is_allowed(tmp_path, line, parts):
    rows = "\n".join([*TRAIN.split("\n")[:2], line, "gj04\t1\t\tFine.\n"])
    files = OFFICIAL | {"in_domain_train.tsv": rows.encode("latin-1")}
    message = failure(COLA, write(tmp_path, files))
    for part in ["in_domain_train.tsv", *parts]:
        assert part in message


SCORED = "sentence1\tsentence2\tscore\nA.\tB.\t1\n"
PAIRED = "sentence1\tsentence2\tlabel\n"


@pytest.mark.parametrize(
    ("task", "dev", "message"),
    [
        ("stsb", f"{SCORED}C.\tD.\thigh\n", "dev.tsv, line 3: score is 'high'; allowed: a finite number"),
        ("stsb", f"{SCORED}C.\tD.\t1_0\n", "score is '1_0'; allowed"),  # a number to Python alone
        ("stsb", f"{SCORED}C.\tD.\t1e39\n", "score is '1e39'; allowed"),  # no float32
        ("stsb", f"{SCORED}C.\tD.\tnan\n", "line 3: score is 'nan'"),
        ("stsb", f"{SCORED}C.\tD.\tinf\n", "line 3: score is 'inf'"),
        ("rte", f"{PAIRED}A.\t\tentailment\n", "dev.tsv, line 2: sentence2 is empty"),
        ("sst2", "text\tlabel\nfine\t1\n", "dev.tsv has no sentence among its columns text, label"),
        ("sst2", "sentence\tlabel\n", "dev.tsv has no rows, only a header"),
    ],
)
def test_a_malformed_row_of_a_file_with_a_header_is_named(tmp_path, task, dev, message):
    folder = FOLDERS[task]
    files = GLUE_FILES[task] | {f"{folder}/dev.tsv": dev}
    assert message in failure(GLUE_TASKS[task], write(tmp_path, files))


def test_a_missing_file_says_what_was_looked_for_and_what_is_there(tmp_path):
    files = {name: text for name, text in OFFICIAL.items() if name != "out_of_domain_dev.tsv"}
    message = failure(COLA, write(tmp_path, files))
    assert "has no out_of_domain_dev.tsv" in message
    assert "in_domain_dev.tsv, in_domain_train.tsv" in message


def test_a_folder_without_a_known_layout_says_what_was_looked_for(tmp_path):
    message = failure(COLA, write(tmp_path, {"notes.txt": "nothing here", "sub/x.tsv": "x"}))
    for part in ("notes.txt, sub/", "CoLA", "in_domain_train.tsv", "train.tsv", ".parquet", "save_to_disk"):
        assert part in message
    assert "which is not a folder" in failure(COLA, str(tmp_path / "nowhere"))
