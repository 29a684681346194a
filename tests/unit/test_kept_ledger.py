"""A kept ledger ships small, comes back as ordinary ledgers, and is refused where it is damaged."""

import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from kept_study import ALL, DOMAINS, PROMPTS, SEEDED, kept_study

from kalavai_helpers import artifacts, compact_states, evaluation, kept_checks, kept_ledger, tiers


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where the kept ledger is looked for."""
    monkeypatch.setenv(artifacts.KEPT_VARIABLE, str(tmp_path))
    return tmp_path / tiers.PRETRAINED


@pytest.fixture
def study(home):
    made = kept_study()
    kept_ledger.write(home, **made)
    return made


def test_what_was_written_comes_back_as_ordinary_ledgers(study):
    kept = kept_ledger.read()
    assert kept_ledger.there()
    assert list(kept.parts) == list(study["parts"])
    expected = kept_ledger.rounded(study["parts"])
    for name, ledger in kept.parts.items():
        for field in ("models", "experts", "groups", "role"):
            assert getattr(ledger, field) == getattr(expected[name], field)
        for field in ("log_probs", "features", "document", "window", "group", "n_bytes"):
            found, wanted = getattr(ledger, field), getattr(expected[name], field)
            assert found.dtype == wanted.dtype
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
        assert ledger.source.tolist() == expected[name].source.tolist()
        assert kept.digests[name] == tuple(study["digests"][name])
    assert kept.about == study["about"] == kept_ledger.about()
    assert kept.tokens == tuple(study["tokens"])
    table = evaluation.losses(kept.parts["heldout"])
    assert evaluation.gain_pct(table, "domain_oracle", DOMAINS).value > 0


def test_columns_of_tokens_and_of_windows_come_back_by_name(study):
    found, wanted = kept_ledger.read().columns["heldout"], study["columns"]["heldout"]
    assert set(found) == set(wanted)
    for name, column in wanted.items():
        assert found[name].shape == column.shape
        torch.testing.assert_close(found[name], column, rtol=0, atol=1e-3, equal_nan=True)
    assert found["pair: uniform, logits"].isnan().any()


def test_other_seeds_stand_in_for_the_first(study):
    held = kept_ledger.read().parts["heldout"]
    other = kept_ledger.at_seed(held, SEEDED, 137)
    assert (other.models, other.experts) == (("base", *SEEDED), SEEDED)
    own = held.restrict(SEEDED)
    assert torch.equal(other.column("base"), own.column("base"))
    tokens = held.token_group < len(SEEDED)
    wanted = held.column(kept_ledger.of_seed("science", 137))[tokens]
    assert torch.equal(other.column("science"), wanted)
    assert not torch.equal(other.column("science"), own.column("science"))
    with pytest.raises(KeyError, match="no specialist of tamil with seed 137"):
        kept_ledger.at_seed(held, ("code", "tamil"), 137)


def test_what_a_specialist_did_not_read_stays_unknown(study):
    held = kept_ledger.read().parts["heldout"]
    unknown = held.column(kept_ledger.of_seed("science", 137)).isnan()
    assert torch.equal(unknown, held.token_group == DOMAINS.index("tamil"))
    assert kept_checks.cost(study["parts"])["loss_nats"] < 1e-4


def test_nothing_is_kept_that_could_be_text_or_its_ids(study, home):
    """Numbers a token are log-probabilities and states; words are names, digests, own prompts."""
    tensors, _ = artifacts.load_tensors(home / "ledger.safetensors")
    sizes = {name: len(ledger) for name, ledger in study["parts"].items()}
    for name, tensor in tensors.items():
        part, _, what = name.partition("/")
        if tensor.dim() and len(tensor) == sizes.get(part) and what != "features":
            assert tensor.dtype == torch.int16, name
            assert f"{name}/unit" in tensors, "a number of its own scale is no id"
    described = json.loads((home / "ledger.json").read_text("utf-8"))
    assert set(described) == {"about", "file", "parts", "tokens"}
    for part in described["parts"].values():
        names = {"models", "experts", "groups", "columns", "window_columns", "source", "role"}
        assert set(part) == names | {"sha256"}
    told = " ".join("".join(described["tokens"]).split())
    assert told == " ".join(PROMPTS)


def test_the_tokens_of_a_shipped_ledger_are_words_of_the_book():
    root = artifacts.project_root()
    paths = [*root.glob("notebooks/*.md"), *root.glob("kalavai_helpers/*.py")]
    paths.append(artifacts.data() / "published" / "values.csv")
    book = "".join(path.read_text("utf-8").replace("\\n", "\n") for path in paths)
    for path in (artifacts.data() / "recorded").glob("*/ledger.json"):
        words = "".join(json.loads(path.read_text("utf-8"))["tokens"]).split()
        assert [word for word in words if word not in book] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["about"].pop("notice"), "must tell its notice"),
        (lambda s: s["parts"].pop("router"), "parts are heldout, router"),
        (lambda s: s["parts"].update(more=s["parts"]["heldout"]), "parts are heldout, router"),
        (lambda s: s["tokens"].pop(), "token texts for"),
        (lambda s: s["digests"]["router"].pop(), "12 documents and 11 digests"),
        (lambda s: s["digests"].update(router=["a text"] * 12), "64 hexadecimal"),
        (lambda s: s["columns"]["heldout"].update(ids=torch.arange(512)), "not floats"),
        (lambda s: s["columns"]["heldout"].update(short=torch.zeros(5)), r"shape \(5,\)"),
        (lambda s: s["columns"]["heldout"].update(odd=torch.full((512,), torch.inf)), "not finite"),
        (lambda s: s["parts"]["router"].log_probs[2].fill_(0.5), "log-probabilities up to 0.5"),
        (lambda s: s["columns"]["heldout"]["made up 0"][3:5].fill_(torch.nan), "within a group"),
        (
            lambda s: s["parts"].update(router=replace(s["parts"]["router"], role="heldout")),
            "router",
        ),
        (
            lambda s: s["parts"].update(
                heldout=replace(s["parts"]["heldout"], window=s["parts"]["heldout"].window.flip(0))
            ),
            "window by window",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(change, message, home):
    made = kept_study()
    change(made)
    with pytest.raises(ValueError, match=message):
        kept_ledger.write(home, **made)
    assert not kept_ledger.there()


def test_the_place_of_a_corpus_is_not_told(home):
    made = kept_study(corpora="folder:/somewhere/text")
    kept_ledger.write(home, **made)
    assert kept_ledger.about()["corpora"] == "folder"


def test_a_damaged_ledger_says_what_to_do(study, home):
    path = home / "ledger.safetensors"
    whole = path.read_bytes()
    for data, message in (
        (whole[:-100], "of .* bytes: check it out again"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "not the file that ledger.json describes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            kept_ledger.read()
        assert path.read_bytes() == data, "shipped data is not set aside"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"ledger\.safetensors is missing"):
        kept_ledger.read()
    (home / "ledger.json").write_text("{")
    with pytest.raises(ValueError, match=r"ledger\.json is damaged"):
        kept_ledger.read()


def test_where_nothing_was_recorded_that_is_said(home):
    assert not kept_ledger.there()
    with pytest.raises(FileNotFoundError, match="no ledger of this tier has been recorded"):
        kept_ledger.read()


def test_a_recording_that_is_cut_off_is_not_taken_for_the_old_one(study, home, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        kept_ledger.write(home, **kept_study(seed=1))
    with pytest.raises(ValueError, match=r"not the file|bytes"):
        kept_ledger.read()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A ledger of the size of the recording: 20 domains, 28 models, 20 columns."""
    made = kept_study(ALL[1:], 12, router_windows=6, seq_len=256, width=128, n_columns=19, pairs=4)
    home = tmp_path_factory.mktemp("kept")
    kept_ledger.write(home / tiers.PRETRAINED, **made)
    return made, home


def test_a_full_recording_is_within_its_budget_with_room_to_spare(full):
    """Four seeds' columns fewer than the real one: the missing ones are counted in."""
    made, home = full
    held, fitting = made["parts"]["heldout"], made["parts"]["router"]
    assert (held.n_documents, len(held), len(fitting)) == (240, 61_440, 30_720)
    files = sum(path.stat().st_size for path in (home / tiers.PRETRAINED).iterdir())
    missing = 28 - len(held.models)
    assert missing >= 0
    files += 2 * missing * (len(held) + len(made["parts"]["switching"]))
    assert files <= 0.8 * kept_ledger.MAX_BYTES


def test_a_full_recording_is_read_in_two_seconds(full, monkeypatch):
    monkeypatch.setenv(artifacts.KEPT_VARIABLE, str(full[1]))
    began = time.process_time()
    kept_ledger.read()
    assert time.process_time() - began < 2


def test_two_bytes_are_enough_for_losses_and_bits_per_byte(full):
    parts = full[0]["parts"]
    kept = kept_ledger.rounded(parts)
    for name, ledger in kept.items():
        if name == "prompts":
            continue
        before, after = (
            evaluation.losses(x, role=x.role).matrix(x.models).to_numpy()
            for x in (parts[name], ledger)
        )
        assert np.nanmax(np.abs(before - after)) < 1e-4, (
            "nats/token, of every model on every domain"
        )
    held, judged = parts["heldout"], kept["heldout"]
    for model in (name for name in held.models if "seed" not in name):
        bits = [evaluation.bits_per_byte(x, x.column(model)) for x in (held, judged)]
        assert abs(bits[0] - bits[1]) < 1e-3


def test_the_code_keeps_what_separates_and_says_what_it_costs():
    made = kept_study(windows=4, router_windows=6)
    cost = kept_checks.cost(made["parts"])
    assert cost["loss_nats"] < 1e-4
    assert cost["bits_per_byte"] < 1e-4
    assert abs(cost["linear_router_nats"]) < 0.02
    assert cost["classifier_pp"] < 10


def test_a_code_that_loses_the_domains_is_told_from_one_that_keeps_them(monkeypatch):
    made = kept_study(windows=4, router_windows=6)
    fitting = made["parts"]["router"]
    code = compact_states.fit(fitting.features, fitting.token_group)
    blind = replace(code, directions=torch.zeros_like(code.directions))
    monkeypatch.setattr(compact_states, "fit", lambda *_: blind)
    cost = kept_checks.cost(made["parts"])
    assert cost["linear_router_nats"] > 0.02
    assert cost["classifier_pp"] > 20


def test_a_code_keeps_a_faint_difference_of_domains_before_loud_noise_whatever_the_units():
    random = torch.Generator().manual_seed(0)
    domain = torch.arange(4000) % 2
    states = torch.randn(4000, 6, generator=random) @ torch.randn(6, 20, generator=random)
    states += 0.05 * torch.randn(4000, 20, generator=random)
    states[:, 7] += 0.2 * domain
    states = states * torch.logspace(-3, 3, 20) + 5
    code = compact_states.fit(states, domain, 5)
    found = code.decode(code.encode(states))
    assert found.shape == (4000, 5)
    gap = found[domain == 1].mean(0) - found[domain == 0].mean(0)
    spread = found[domain == 0].std(0)
    assert gap[0].abs() > spread[0], "the one discriminant"
    assert (gap[1:].abs() < 0.1 * spread[1:]).all()
    assert code.encode(states * 1e6).abs().max() <= 127


def test_the_folder_can_be_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(artifacts.KEPT_VARIABLE, raising=False)
    assert kept_ledger.folder("x") == artifacts.data() / "recorded" / "x"
    monkeypatch.setenv(artifacts.KEPT_VARIABLE, str(tmp_path))
    assert kept_ledger.folder("x") == tmp_path / "x"
    assert os.environ[artifacts.KEPT_VARIABLE]
