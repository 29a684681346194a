"""What is computed from a recorded ledger is recorded as its side run, with its interval."""

import pytest

from kalavai_helpers import artifacts, kept_records, records, tiers
from kalavai_helpers.losses import Estimate


def test_an_estimate_is_recorded_with_what_its_interval_rests_on(kept_all, monkeypatch):
    kept, home = kept_all
    monkeypatch.setenv(artifacts.KEPT_VARIABLE, str(home))
    records.start("03_scale_ladder", tier="ci", seed=7, corpora="builtin")
    found = {
        "gain": (Estimate(2.0, 1.0, 3.0, "sources", 14), "%"),
        "count": (Estimate(2.0, 2.0, 2.0), "domains"),
    }
    kept_records.keep(kept, found, seeds=[42, 137])
    side = records.side(tiers.PRETRAINED)["records"]
    assert records.current()["records"] == {}
    assert side["gain"] == {
        **{"value": 2.0, "unit": "%", "low": 1.0, "high": 3.0, "seeds": 2},
        "protocol": "equal weight over domains; 95 % interval over 14 sources",
    }
    assert side["count"]["protocol"] == kept_records.EQUAL
    with pytest.raises(KeyError):
        records.side("ci")
