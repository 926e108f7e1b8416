from experiments.config_files import differences


def test_every_setting_that_differs_is_listed_once():
    before = {"model": {"rank": 4, "revision": None, "gone": True}, "data": {"rows": 5}, "same": [1, None]}
    after = {"model": {"rank": 4, "revision": "main", "new": None}, "data": {"rows": None}, "same": [1, None]}
    assert differences(before, after) == [
        "data.rows: 5 -> None",
        "model.gone: True -> None",
        "model.revision: None -> main",
    ]
