"""The public record is complete and consistent, and asks for clear words when an id is wrong."""

import hashlib
import math

import pytest

from kalavai_helpers import published

EXPERIMENTS = ("main-410M", "main-1B", "main-6.9B")
SEEDS = (42, 137, 2026)
GAIN_410M = "main-410M/pythia-410m_step10000/corrected_metrics/improvement_vs_spec/s42/corr"


def test_every_value_is_there_once_and_finite() -> None:
    frame = published.load()
    assert len(frame) == 3066
    assert frame["id"].is_unique
    assert all(math.isfinite(value) for value in frame["value"])
    columns = "id experiment model condition metric value unit seeds eval_protocol source note"
    columns += " commit date"
    assert " ".join(frame.columns) == columns


def test_record_is_dated() -> None:
    """What was released before the discussion of August 2026 and what with it."""
    dated = published.load().groupby("date")
    assert dated.size().to_dict() == {"before 2026-08-01": 2321, "2026-08-01": 745}
    newer = dated.get_group("2026-08-01")
    assert set(newer["commit"]) == {"748a8a7"}
    assert newer["source"].str.startswith("results/rebuttal/").all()
    assert newer["experiment"].str.startswith("rebuttal-").all()
    older = dated.get_group("before 2026-08-01")
    assert "748a8a7" not in set(older["commit"])
    stated = older["source"].isin(["web page", "abstract"])
    assert ((older["commit"] == "") == stated).all()


def test_two_swapped_values_are_refused(tmp_path) -> None:
    """A record with every id, every value and every sum in place may still be a wrong one."""
    path = published._path()
    sums = path.parent / "SHA256SUMS"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    one, two = (line.split(",") for line in lines[1:3])
    one[5], two[5] = two[5], one[5]
    (tmp_path / "SHA256SUMS").write_bytes(sums.read_bytes())
    swapped = tmp_path / "values.csv"
    swapped.write_text("".join([lines[0], ",".join(one), ",".join(two), *lines[3:]]), "utf-8")
    with pytest.raises(ValueError, match="checksum"):
        published._text(swapped)
    swapped.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert published._text(swapped) == published._text(path)  # line ends are no values


def test_checksum_is_the_one_that_sha256sum_checks() -> None:
    path = published._path()
    digest, name = (path.parent / "SHA256SUMS").read_text(encoding="utf-8").split()
    assert name == path.name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_every_value_says_where_it_comes_from_and_how_it_was_measured() -> None:
    frame = published.load()
    for column in ("experiment", "model", "metric", "eval_protocol", "source"):
        assert (frame[column].str.strip() != "").all(), column
    assert not frame.isna().any().any()


def test_seeds_are_seeds() -> None:
    assert {seed for seeds in published.load()["seeds"] for seed in seeds} == set(SEEDS)


def test_load_gives_each_caller_its_own_frame() -> None:
    mine = published.load()
    mine["value"] = 0.0
    assert published.value(GAIN_410M) == 7.7187
    assert published.load()["value"].abs().sum() > 0


def test_value_and_row_by_id() -> None:
    assert published.value(GAIN_410M) == pytest.approx(7.7187)
    row = published.row(GAIN_410M)
    assert (row["unit"], row["seeds"]) == ("%", (42,))
    with pytest.raises(TypeError):
        row["value"] = 1.0  # the record cannot be changed by a reader


def test_unknown_id_names_the_closest() -> None:
    with pytest.raises(KeyError, match="corrected_metrics/improvement_vs_spec/s42/corr"):
        published.value(GAIN_410M.replace("vs_spec", "vs_specs"))


def test_select() -> None:
    frame = published.select(experiment="main-410M", metric="loss[EW]", seeds=42)
    assert len(frame) == 7
    assert set(frame["eval_protocol"]) == {"corrected-per-domain-equal-weight"}
    both = published.select(experiment=["main-410M", "main-1B"], metric="loss[EW]", seeds=42)
    assert len(both) == 14
    assert len(published.select(seeds=(137, 2026))) == 4
    newer = published.select(date="2026-08-01", experiment="rebuttal-w2-refit")
    assert len(newer) == 36
    with pytest.raises(KeyError, match=r"'domain'.*condition"):
        published.select(domain="code")
    with pytest.raises(ValueError, match="main-410M"):
        published.select(experiment="main-410")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_released_gain_follows_from_the_released_matrix(experiment: str, seed: int) -> None:
    """Gain = 100 (min EW(specialist) - EW(moe)) / min EW(specialist), within 0.01 pp."""
    matrix = published.loss_matrix(experiment, seed)
    assert matrix.shape == (6, 3)
    equal_weight = matrix.mean(axis=1)
    best = equal_weight[["code", "science", "fiction"]].min()
    gain_pct = 100 * (best - equal_weight["moe"]) / best
    assert gain_pct == pytest.approx(published.value(matrix.attrs["gain_id"]), abs=0.01)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_specialists_are_best_at_home_and_cells_are_quotable(experiment: str) -> None:
    matrix = published.loss_matrix(experiment)
    specialists = matrix.loc[["code", "science", "fiction"]]
    assert list(specialists.idxmin()) == ["code", "science", "fiction"]
    for ids, values in zip(matrix.attrs["ids"], matrix.to_numpy(), strict=True):
        assert [published.value(id) for id in ids] == pytest.approx(values)
        protocols = {published.row(id)["eval_protocol"] for id in ids}
        assert protocols == {matrix.attrs["protocol"]}


def test_matrix_says_what_it_is() -> None:
    assert published.loss_matrix("main-410M").attrs["protocol"].startswith("corrected")
    assert "bs=1" in published.loss_matrix("main-6.9B").attrs["protocol"]
    assert "42" in published.loss_matrix("main-1B", 137).attrs["note"]
    for experiment, seed in (("qwen", 42), ("main-410M", 7)):
        with pytest.raises(ValueError, match="main-410M, main-1B"):
            published.loss_matrix(experiment, seed)
