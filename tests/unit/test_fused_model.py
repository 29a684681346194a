"""A fused model is exact, causal with and without a cache, generates, and survives saving."""

import json
import shutil

import decoders
import pytest
import torch
from decoders import VOCAB
from transformers import AutoModelForCausalLM, TextStreamer
from transformers.cache_utils import DynamicCache

from kalavai_helpers import fusion, mixing, routing
from kalavai_helpers.trunk_router import TrunkRouter

CLOSE = 1e-5


def router(name, n=3, width=16, seed=1):
    """A router by name; one that needs fitting gets random weights that matter."""
    if name in ("uniform", "evidence"):
        return routing.make(name)
    if name == "trunk":
        found = TrunkRouter(width, VOCAB, n, alpha=0.05)
    else:
        found = routing.make(name, n_features=width, n_experts=n)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return found.requires_grad_(False)


def fused(name="evidence", family="gpt_neox", epsilon=0.0, **changes):
    """A fused model of three random specialists."""
    base, specialists = decoders.cooperative(family, **changes)
    return fusion.fuse(base, specialists, router(name), epsilon=epsilon)


def padded(length=20):
    """Texts with left padding of 0, 4 and 9 tokens, and their mask."""
    ids = decoders.texts(length=length)
    mask = torch.ones_like(ids)
    mask[1, :4], mask[2, :9] = 0, 0
    return ids, mask


@pytest.mark.parametrize("embedding", [True, False], ids=["shared embedding", "nothing shared"])
@pytest.mark.parametrize("family", decoders.FAMILIES)
@torch.no_grad()
def test_every_family_mixes_what_its_specialists_say_apart(family, embedding):
    base, specialists = decoders.cooperative(family, embedding=embedding)
    model = fusion.fuse(base, specialists, "uniform")
    assert model.config.shared_embedding == embedding
    assert model.config.frozen_layers == (1 if embedding else 0)
    ids, mask = padded()
    for given in (None, mask):
        apart = [s(ids, attention_mask=given).logits.softmax(-1) for s in specialists.values()]
        found = model(ids, attention_mask=given).logits
        real = mask.bool() if given is not None else torch.ones_like(ids, dtype=torch.bool)
        assert torch.allclose(found[real], torch.stack(apart).mean(0).log()[real], atol=CLOSE)


@torch.no_grad()
def test_logit_mixing_is_the_weighted_sum_of_logits():
    base, specialists = decoders.cooperative()
    model = fusion.fuse(base, specialists, "uniform", mixing="logit")
    ids = decoders.texts()
    apart = torch.stack([s(ids).logits for s in specialists.values()]).mean(0)
    assert torch.allclose(model(ids).logits, apart.log_softmax(-1), atol=CLOSE)


@pytest.mark.parametrize("n", [1, 2])
@torch.no_grad()
def test_one_specialist_and_duplicates_are_the_specialist(n):
    base, specialists = decoders.cooperative(n=1)
    twins = {f"twin{i}": specialists["s0"] for i in range(n)}
    ids = decoders.texts()
    expected = specialists["s0"](ids).logits.log_softmax(-1)
    assert torch.allclose(fusion.fuse(base, twins, "evidence")(ids).logits, expected, atol=CLOSE)


@torch.no_grad()
def test_a_specialist_that_never_left_the_base_shares_all_blocks():
    base = decoders.base()
    model = fusion.fuse(base, {"idle": base}, "evidence")
    assert model.config.frozen_layers == 3
    ids = decoders.texts(length=8)
    assert torch.allclose(model(ids).logits, base(ids).logits.log_softmax(-1), atol=CLOSE)
    again = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(again, base.generate(ids, max_new_tokens=4, do_sample=False))


def test_probabilities_too_small_for_a_float_are_still_exact():
    logits = [torch.tensor([[0.0, -200.0, 3.0]]), torch.tensor([[0.0, -190.0, 1.0]])]
    found = mixing.combine(
        [(i, None, z) for i, z in enumerate(logits)], torch.tensor([[0.25, 0.75]]), "probability"
    )
    exact = sum(w * z.double().softmax(-1) for w, z in zip((0.25, 0.75), logits, strict=True)).log()
    assert torch.allclose(found.double(), exact, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("n", "run"), [(1, 1), (3, 1), (130, 1), (400, 1), (900, 150)])
def test_experts_asked_at_some_rows_are_mixed_there_and_nowhere_else(n, run, share):
    """Whatever the blocks: the same sum, and gradients to every expert's logits."""
    torch.manual_seed(n)
    keep = (torch.rand(n, 4) < share) & (torch.arange(n) % run < 20)[:, None]
    needed = torch.randint(3, (n // run,)).repeat_interleave(run)
    keep[torch.arange(n), needed] = True  # the fourth is never needed alone
    gates = torch.rand(n, 4).masked_fill(~keep, 0)
    gates = gates / gates.sum(1, keepdim=True)
    logits = torch.randn(4, n, 7)
    exact = (gates.T[..., None] * logits.softmax(-1)).sum(0).log()
    rows = [keep[:, i].nonzero()[:, 0] for i in range(4)]
    for wanted in ("nothing", "experts", "router"):
        said = [logits[i, at].requires_grad_(wanted == "experts") for i, at in enumerate(rows)]
        parts = [(i, at, z) for i, (at, z) in enumerate(zip(rows, said, strict=True)) if len(at)]
        weights = gates.clone().requires_grad_(wanted == "router")
        with torch.set_grad_enabled(wanted != "nothing"):
            found = mixing.combine(parts, weights, "probability")
        assert torch.allclose(found, exact, atol=1e-5)
        if wanted == "experts":
            found[:, 0].sum().backward()
            assert all(z.grad.abs().sum() > 0 for _, _, z in parts)


@pytest.mark.parametrize("family", decoders.FAMILIES)
@pytest.mark.parametrize(
    ("name", "epsilon"),
    [("uniform", 0), ("evidence", 0), ("linear", 0), ("linear", 0.3), ("trunk", 0.3)],
)
@torch.no_grad()
def test_a_text_read_in_pieces_is_predicted_as_in_one(family, name, epsilon):
    model = fused(name, family, epsilon)
    ids, mask = padded()
    whole = model(ids, attention_mask=mask)
    assert not epsilon or not whole.ran.all()
    past, pieces = None, []
    for start, end in ((0, 6), (6, 12), (12, 13), (13, 14), (14, 20)):
        output = model(
            ids[:, start:end], attention_mask=mask[:, :end], past_key_values=past, use_cache=True
        )
        past = output.past_key_values
        pieces.append(output)
    for field in ("logits", "gates", "ran"):
        joined = torch.cat([getattr(piece, field) for piece in pieces], 1)[mask.bool()]
        expected = getattr(whole, field)[mask.bool()]
        assert torch.allclose(joined.float(), expected.float(), atol=CLOSE)


@pytest.mark.parametrize(("name", "epsilon"), [("evidence", 0), ("trunk", 0.3)])
@torch.no_grad()
def test_with_a_cache_no_later_token_moves_an_earlier_prediction(name, epsilon):
    model = fused(name, epsilon=epsilon)
    ids = decoders.texts()
    changed = ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 7) % VOCAB
    whole, other = model(ids), model(changed)
    assert torch.allclose(whole.logits[:, :12], other.logits[:, :12], atol=CLOSE)
    assert (whole.logits[:, 12:] - other.logits[:, 12:]).abs().max() > 1e-3
    past = model(ids[:, :12], use_cache=True).past_key_values
    assert torch.allclose(
        model(changed[:, 12:], past_key_values=past).logits, other.logits[:, 12:], atol=CLOSE
    )


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 0}])
@pytest.mark.parametrize(
    ("name", "epsilon"), [("evidence", 0), ("linear", 0), ("trunk", 0), ("trunk", 0.3)]
)
def test_generation_is_the_same_with_and_without_a_cache(name, epsilon, settings):
    model = fused(name, epsilon=epsilon)
    ids, mask = padded(12)
    made = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        options = {"do_sample": False, "max_new_tokens": 8, "use_cache": use_cache, **settings}
        made.append(model.generate(ids, attention_mask=mask, **options))
    assert torch.equal(*made)
    assert made[0].shape == (3, 20)


@pytest.mark.parametrize(("name", "epsilon"), [("evidence", 0), ("trunk", 0.3)])
def test_padding_on_the_left_changes_no_continuation(name, epsilon):
    model = fused(name, "qwen3", epsilon)
    ids, mask = padded(12)
    together = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    for row, padding in enumerate((0, 4, 9)):
        alone = model.generate(ids[row : row + 1, padding:], max_new_tokens=6, do_sample=False)
        assert torch.equal(alone[0, -6:], together[row, -6:])


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}])
@pytest.mark.parametrize(("name", "epsilon"), [("evidence", 0), ("trunk", 0.3)])
def test_windows_that_slide_generate_as_without_a_cache(name, epsilon, settings):
    model = fused(name, "qwen2, sliding window", epsilon)
    ids, mask = padded(12)  # the window holds five tokens
    options = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, **settings}
    cached, plain = (model.generate(ids, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("family", ["gpt_neox", "qwen2, sliding window"])
@pytest.mark.parametrize(("name", "epsilon"), [("evidence", 0), ("trunk", 0.3)])
def test_a_specialist_or_the_prompt_may_draft_what_the_fused_model_generates(name, epsilon, family):
    base, specialists = decoders.cooperative(family)
    model = fusion.fuse(base, specialists, router(name), epsilon=epsilon)
    # A prompt that repeats itself, so that some of what is looked up in it is right.
    ids = decoders.texts(1, 6).repeat(1, 3)
    options = {"max_new_tokens": 10, "do_sample": False}
    expected = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, assistant_model=specialists["s1"], **options), expected)
    assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=3, **options), expected)


def test_epsilon_may_be_given_to_generate_and_generation_skips_experts():
    model = fused("trunk")
    ids = decoders.texts()
    cache = model(ids, use_cache=True, logits_to_keep=1, epsilon=0.6).past_key_values
    behind = [20 - cache.length(name) for name in model.config.experts]
    assert max(behind) == 20  # an expert that was not needed has read nothing
    skipping = model.generate(ids, epsilon=0.6, max_new_tokens=6, do_sample=False)
    configured = fused("trunk", epsilon=0.6).generate(ids, max_new_tokens=6, do_sample=False)
    assert torch.equal(skipping, configured)


def test_text_is_streamed_as_it_is_made():
    class Spelled:
        def decode(self, ids, **_):
            return " ".join(str(int(i)) for i in ids) + " "

    heard = []

    class Ear(TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            heard.append(text)

    made = fused().generate(
        decoders.texts(1, 5), max_new_tokens=4, do_sample=False, streamer=Ear(Spelled())
    )
    assert "".join(heard).split() == [str(int(i)) for i in made[0]]


@pytest.mark.parametrize("family", decoders.FAMILIES)
@pytest.mark.parametrize(("name", "epsilon"), [("evidence", 0), ("linear", 0), ("trunk", 0.3)])
@torch.no_grad()
def test_tokens_can_be_taken_back_from_the_cache(name, epsilon, family):
    model = fused(name, family, epsilon)
    ids = decoders.texts()
    expected = model(ids).logits
    past = model(ids[:, :1], use_cache=True).past_key_values
    past.activate_past_recording()  # or a sliding window could not go back
    model(ids[:, 1:14], past_key_values=past)
    for back, start in ((-6, 14), (-3, 17), (-1, 19), (-20, 0)):
        if past.get_seq_length() < 20:
            model((ids[:, 14:] + 1) % VOCAB, past_key_values=past)
        past.crop(back)
        assert past.get_seq_length() == start
        found = model(ids[:, start:], past_key_values=past).logits
        assert torch.allclose(found, expected[:, start:], atol=CLOSE)


@torch.no_grad()
def test_a_window_that_has_slid_on_takes_nothing_back_and_stays_as_it_was():
    model = fused("evidence", "qwen2, sliding window")
    ids = decoders.texts()
    past = model(ids[:, :14], use_cache=True).past_key_values
    with pytest.raises(fusion.FusionError, match="activate_past_recording"):
        past.crop(-2)
    found = model(ids[:, 14:], past_key_values=past).logits
    assert torch.allclose(found, model(ids).logits[:, 14:], atol=CLOSE)


@pytest.mark.parametrize(("name", "epsilon"), [("evidence", 0), ("trunk", 0.3)])
@torch.no_grad()
def test_rows_of_the_cache_can_be_exchanged_repeated_and_chosen(name, epsilon):
    model = fused(name, epsilon=epsilon)
    ids = decoders.texts()
    expected = model(ids).logits[:, 15:]
    order = torch.tensor([2, 0, 0])

    def past():
        return model(ids[:, :15], use_cache=True).past_key_values

    moved, repeated, chosen = past(), past(), past()
    moved.reorder_cache(order)
    repeated.batch_repeat_interleave(2)
    chosen.batch_select_indices(torch.tensor([1]))
    for cache, rows in ((moved, order), (repeated, [0, 0, 1, 1, 2, 2]), (chosen, [1])):
        found = model(ids[rows][:, 15:], past_key_values=cache).logits
        assert torch.allclose(found, expected[rows], atol=CLOSE)


@torch.no_grad()
def test_only_the_positions_asked_for_are_predicted():
    for name, epsilon in (("evidence", 0), ("trunk", 0.3)):
        model = fused(name, epsilon=epsilon)
        ids = decoders.texts()
        whole = model(ids)
        for wanted, rows in ((3, slice(-3, None)), (torch.tensor([2, 7]), [2, 7])):
            output = model(ids, logits_to_keep=wanted)
            assert torch.allclose(output.logits, whole.logits[:, rows], atol=CLOSE)
            assert output.gates.shape == whole.gates.shape
            assert torch.equal(output.ran, whole.ran[:, rows])


@torch.no_grad()
def test_labels_of_minus_100_do_not_count_and_none_at_all_is_no_nan():
    model = fused()
    ids = decoders.texts()
    labels = ids.clone()
    labels[:, :10] = -100
    chosen = model(ids).logits[:, :-1].gather(-1, ids[:, 1:, None])[:, 9:]
    assert torch.allclose(model(ids, labels=labels).loss, -chosen.mean(), atol=CLOSE)
    assert model(ids, labels=torch.full_like(ids, -100)).loss == 0


def test_the_gradient_of_the_router_is_that_of_the_loss():
    model = fused("trunk").double()
    ids = decoders.texts(2, 12)
    model.router.requires_grad_(True)
    model(ids, labels=ids).loss.backward()
    step = 1e-5
    weight = model.router.weight
    for index in ((0, 3), (2, 11)):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[index] += sign * step
                losses.append(model(ids, labels=ids).loss.item())
                weight[index] -= sign * step
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(weight.grad[index].item(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("family", decoders.FAMILIES)
@torch.no_grad()
def test_saved_and_loaded_every_bit_is_the_same(family, tmp_path):
    model = fused("trunk", family, epsilon=0.3)
    model.save_pretrained(tmp_path / "fused")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fused")
    assert isinstance(loaded, fusion.FusedForCausalLM)
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    ids = decoders.texts()
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert (
        "_name_or_path"
        not in json.loads((tmp_path / "fused/config.json").read_text())["base_config"]
    )
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {
        ".json",
        ".safetensors",
    }


@pytest.mark.parametrize("family", decoders.FAMILIES)
@torch.no_grad()
def test_tying_weights_again_as_tools_do_changes_no_prediction(family):
    model, ids = fused(family=family), decoders.texts()
    before = model(ids).logits
    model.tie_weights()
    assert torch.equal(model(ids).logits, before)


def test_a_checkpoint_half_frozen_is_little_more_than_two_models(tmp_path):
    base, specialists = decoders.cooperative(frozen_layers=2, num_hidden_layers=4, hidden_size=32)
    fusion.fuse(base, specialists, "evidence").save_pretrained(tmp_path / "fused")
    base.save_pretrained(tmp_path / "base")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("fused", "base")]
    assert sizes[0] / sizes[1] <= 2.1


def test_the_base_is_carried_only_for_routers_that_read_it():
    assert "base" not in fused("evidence").branches
    assert "base" in fused("linear").branches
    base, specialists = decoders.cooperative()
    model = fusion.fuse(base, specialists, "evidence", keep_base=True)
    model.router = router("linear")
    assert model(decoders.texts()).gates.shape == (3, 20, 3)
    without = fusion.fuse(base, specialists, "evidence")
    without.router = router("linear")
    with pytest.raises(fusion.FusionError, match="keep_base=True"):
        without(decoders.texts())


def broken(change):
    """A cooperative whose second specialist has been changed."""
    base, specialists = decoders.cooperative()
    specialists["s1"] = change(base, specialists["s1"]) or specialists["s1"]
    return base, specialists


def poisoned(value):
    def change(base, model):
        with torch.no_grad():
            model.gpt_neox.layers[2].mlp.dense_h_to_4h.bias[3] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b, s: decoders.base(vocab_size=62), r"embed_in.weight of specialist 's1'.*\(62"),
        (lambda b, s: decoders.base("qwen3"), "'s1' is of architecture 'qwen3'"),
        (lambda b, s: s.half(), "'s1' is torch.float16"),
        (lambda b, s: decoders.base(num_hidden_layers=2), "only the base has gpt_neox.layers.2"),
        (lambda b, s: s.to("meta"), "'s1' is on meta, in the base it is on cpu"),
        (
            lambda b, s: decoders.base(num_attention_heads=4),
            "'s1' has num_attention_heads = 4, the base has 2",
        ),
        (lambda b, s: decoders.base(hidden_act="relu"), "'s1' has hidden_act = relu"),
        (
            lambda b, s: decoders.base(
                rope_parameters={"rope_type": "default", "rope_theta": 500.0}
            ),
            "'s1' has rope_parameters = .*500",
        ),
        (poisoned(float("nan")), r"layers.2.mlp.dense_h_to_4h.bias of specialist 's1' holds NaN"),
        (poisoned(float("inf")), "'s1' holds NaN or infinity"),
    ],
)
def test_a_specialist_that_does_not_fit_is_named_with_its_tensor(change, message):
    base, specialists = broken(change)
    with pytest.raises(fusion.FusionError, match=message):
        fusion.fuse(base, specialists, "evidence")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"specialists": {}}, "at least one specialist"),
        ({"specialists": {"a.b": None}}, "'a.b' cannot name a specialist: .* without dots"),
        ({"specialists": {"base": None}}, "'base' cannot name a specialist, it is taken"),
        ({"specialists": {"keys": None}}, "'keys' cannot name a specialist, it is taken"),
        ({"router": TrunkRouter(16, VOCAB, 4)}, "between 4 experts, and there are 3"),
        ({"router": "magic"}, "Unknown router 'magic'"),
        ({"mixing": "sum"}, "probability, logit"),
        ({"frozen_layers": 2}, "'s0' does not share the trunk of 2 .* layers.1"),
        ({"frozen_layers": 4}, "frozen_layers is 4, and the base has 3"),
        ({"router": TrunkRouter(16, VOCAB, 3), "epsilon": 1.0}, r"in \[0, 1\), not 1.0"),
        ({"router": TrunkRouter(16, VOCAB, 3), "epsilon": -0.1}, r"in \[0, 1\)"),
        (
            {"router": TrunkRouter(16, VOCAB, 3), "epsilon": 0.1, "mixing": "logit"},
            "of probabilities",
        ),
        ({"epsilon": 0.1}, "evidence router need every expert.*'trunk'"),
    ],
)
def test_bad_arguments_say_what_to_do(options, message):
    base, specialists = decoders.cooperative()
    arguments = {"specialists": specialists, "router": "evidence", **options}
    with pytest.raises(ValueError, match=message):
        fusion.fuse(base, **arguments)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_base_that_is_not_finite_is_named(value):
    base, specialists = decoders.cooperative()
    poisoned(value)(base, base)
    with pytest.raises(fusion.FusionError, match="bias of the base holds NaN or infinity"):
        fusion.fuse(base, specialists, "evidence")


@pytest.mark.parametrize("epsilon", [1.0, -0.01, float("nan")])
def test_epsilon_outside_its_range_is_refused_at_every_call(epsilon):
    model, ids = fused("trunk"), decoders.texts(length=5)
    for call in (model, lambda i, epsilon: model.generate(i, epsilon=epsilon, max_new_tokens=2)):
        with pytest.raises(fusion.FusionError, match=r"in \[0, 1\), not"):
            call(ids, epsilon=epsilon)


def test_what_cannot_be_generated_is_refused():
    ids, mask = padded()
    with pytest.raises(fusion.FusionError, match="pad on the left"):
        fused().generate(ids, attention_mask=mask.flip(1), max_new_tokens=2)
    with pytest.raises(fusion.FusionError, match="cannot generate"):
        fused("pooled").generate(ids, max_new_tokens=2)
    with pytest.raises(fusion.FusionError, match="its own cache"):
        fused().generate(ids, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(fusion.FusionError, match="not causal"):
        fused("pooled")(ids, use_cache=True)
    with pytest.raises(fusion.FusionError, match="3 texts of 20 tokens"):
        fused()(ids, attention_mask=mask[:, :5])
    stranger = DynamicCache()
    stranger.update(torch.zeros(3, 2, 4, 8), torch.zeros(3, 2, 4, 8), 0)
    with pytest.raises(fusion.FusionError, match="DynamicCache"):
        fused()(ids, past_key_values=stranger)
    with pytest.raises(fusion.FusionError, match="no trunk to read"):
        fused("trunk", embedding=False)(ids)


def test_an_empty_cache_of_the_library_is_replaced():
    ids = decoders.texts()
    cache = fused()(ids, past_key_values=DynamicCache()).past_key_values
    assert cache.get_seq_length() == 20


def test_a_folder_with_a_missing_or_torn_shard_is_refused_by_name(tmp_path):
    model = fused("trunk")
    model.save_pretrained(tmp_path / "whole", max_shard_size="20kB")
    shards = sorted((tmp_path / "whole").glob("model-*.safetensors"))
    assert len(shards) > 2
    for harm in ("missing", "torn", "left out"):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / harm)
        victim = folder / shards[1].name
        if harm == "missing":
            victim.unlink()
        elif harm == "torn":
            victim.write_bytes(victim.read_bytes()[:-50])
        else:  # an index that never heard of a tensor
            path = folder / "model.safetensors.index.json"
            index = json.loads(path.read_text())
            index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v != victim.name}
            path.write_text(json.dumps(index))
        with pytest.raises(OSError, match=victim.name if harm == "missing" else harm):
            AutoModelForCausalLM.from_pretrained(folder)


def test_shards_saved_over_one_file_are_what_is_loaded(tmp_path):
    first, second = fused("trunk"), fused("trunk")
    with torch.no_grad():
        next(second.parameters()).add_(1)
    first.save_pretrained(tmp_path / "model")
    second.save_pretrained(tmp_path / "model", max_shard_size="20kB")
    again = fusion.FusedForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(next(again.parameters()), next(second.parameters()))


def test_a_save_that_fails_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    model = fused()
    model.save_pretrained(tmp_path / "fused")
    before = {p.name: p.read_bytes() for p in (tmp_path / "fused").iterdir()}

    def fails(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fails)
    with pytest.raises(OSError, match="No space"):
        model.save_pretrained(tmp_path / "fused")
    assert {p.name: p.read_bytes() for p in (tmp_path / "fused").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["fused"]
