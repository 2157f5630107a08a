import pytest

from failsight.core.errors import BundleError
from failsight.workflows.bundle_metrics import METRICS, drop_metrics, read_metrics, save_metrics


def test_metrics_stay_with_the_bundle_until_the_next_fit(tmp_path):
    assert read_metrics(tmp_path) is None
    save_metrics(tmp_path, "five folds of mine", {"auc": {"value": 71.5}})
    assert read_metrics(tmp_path) == {"judged_on": "five folds of mine", "figures": {"auc": {"value": 71.5}}}
    drop_metrics(tmp_path)
    assert read_metrics(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"judged_on": "x", "figures": 3}', "[" * 100_000])
def test_damaged_metrics_are_refused_by_name(text, tmp_path):
    (tmp_path / METRICS).write_text(text)
    with pytest.raises(BundleError, match=METRICS):
        read_metrics(tmp_path)
