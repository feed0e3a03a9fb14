"""What a run says of itself."""

from pathlib import Path

import pytest

from retrace_pl.report.run_data import RunData


@pytest.mark.parametrize(
    ("setting", "title"),
    [
        ({"deletion": "class", "deleted_classes": ["3"], "deleted_records": 59}, "Digits: class 3 deleted"),
        ({"deletion": "class", "deleted_classes": ["3", "8"]}, "Digits: classes 3 and 8 deleted"),
        ({"deletion": "class", "deleted_classes": [1, 5, 8]}, "Digits: classes 1, 5 and 8 deleted"),
        (
            {"deletion": "records", "deleted_classes": ["1", "5"], "deleted_records": 40},
            "Digits: 40 records deleted",
        ),
        ({"deletion": "records", "deleted_records": 1}, "Digits: 1 record deleted"),
        ({}, "Digits"),
        (None, "Digits"),
    ],
)
def test_the_title_names_what_was_deleted(setting, title):
    assert RunData(Path(), {"name": "Digits", "setting": setting}).title == title


def test_a_run_without_a_name():
    assert RunData(Path(), {}).title == "Audit"
