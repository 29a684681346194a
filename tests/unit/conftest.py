"""Shared by unit tests: a kept ledger of all domains with made-up numbers."""

import pytest


@pytest.fixture(scope="session")
def kept_all(tmp_path_factory):
    """A small kept ledger as a chapter reads it, and the folder that it is in."""
    from kept_study import ALL, kept_study

    from kalavai_helpers import artifacts, kept_ledger, tiers

    home = tmp_path_factory.mktemp("kept")
    study = kept_study(ALL, 2, router_windows=2, seq_len=32, n_columns=1, pairs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(artifacts.KEPT_VARIABLE, str(home))
        kept_ledger.write(home / tiers.PRETRAINED, **study)
        return kept_ledger.read(), home
