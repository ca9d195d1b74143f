"""Embedding models on SGLang: what they need to be told, and which are refused."""

import json
from pathlib import Path

import pytest

from launcher.engine_types import Place, adapter
from launcher.startup_log.weights import Weights
from modelserver.errors import ConfigurationError
from modelserver.values import Kind, ModelSpec
from tests.support.launches import HOME, PYTHON

WHOLE = ("--disable-radix-cache", "--chunked-prefill-size", "-1")
MODULES = "sentence_transformers.models."


def written(folder: Path, model_type: str, **pooling: object) -> Path:
    """A folder of a model that asks for some pooling."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
        modules = [{"type": MODULES + kind, "path": at} for kind, at in kinds.items()]
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def argv(
    engine: str,
    path: object,
    kind: Kind = Kind.EMBEDDING,
    extra_args: tuple[str, ...] = (),
    **variables: str,
):
    gpus = 0 if engine.endswith("cpu") else 1
    model = ModelSpec(
        name="m",
        kind=kind,
        path=str(path),
        engine=engine,
        gpus=gpus,
        interpreter=PYTHON,
        extra_args=extra_args,
        environment=variables,
    )
    return adapter(engine).launch(model, Place(30_000, (0,) * gpus), HOME).argv


def reads_whole(words: tuple[str, ...]) -> bool:
    return any(words[at : at + 3] == WHOLE for at in range(len(words)))


@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "new", "modernbert", "mpnet"])
def test_an_encoder_reads_its_prompts_whole(tmp_path: Path, engine: str, kind: str):
    assert reads_whole(argv(engine, written(tmp_path, kind)))


@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu"])
def test_an_encoder_in_the_hubs_cache_is_known(tmp_path: Path, engine: str):
    cache = {"HF_HUB_CACHE": str(tmp_path)}
    snapshot = tmp_path / "models--BAAI--bge" / "snapshots" / "1"
    written(snapshot, "bert", pooling_mode_cls_token=True)
    assert reads_whole(argv(engine, "BAAI/bge", **cache))
    written(snapshot, "qwen3")
    (snapshot / "modules.json").unlink()
    (snapshot / "1_Pooling" / "config.json").unlink()
    assert not reads_whole(argv(engine, "BAAI/bge", **cache))


@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu"])
def test_an_embedding_model_of_which_nothing_is_known_reads_them_whole(engine: str):
    assert reads_whole(argv(engine, "nobody/nothing"))
    assert not reads_whole(argv(engine, "nobody/nothing", Kind.COMPLETION))


def test_a_decoder_that_embeds_keeps_its_cache(tmp_path: Path):
    folder = written(tmp_path, "qwen3", pooling_mode_lasttoken=True)
    assert not reads_whole(argv("sglang", folder))


@pytest.mark.parametrize(
    ("model_type", "asked", "pooling"),
    [
        ("bert", {"pooling_mode_mean_tokens": True}, "mean"),
        ("bert", {"pooling_mode": "mean"}, "mean"),
        ("xlm-roberta", {"pooling_mode_mean_tokens": True}, "mean"),
        ("qwen3", {"pooling_mode_mean_tokens": True}, "mean"),
    ],
)
@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu"])
def test_a_model_that_sglang_would_pool_otherwise_is_refused(
    tmp_path: Path, engine: str, model_type: str, asked: dict[str, object], pooling: str
):
    folder = written(tmp_path, model_type, **asked)
    other = engine.replace("sglang", "vllm")
    with pytest.raises(ConfigurationError) as refused:
        argv(engine, folder)
    assert f'asks for the pooling "{pooling}"' in str(refused.value)
    assert f'set engine = "{other}"' in str(refused.value)
    assert argv(other, folder)


@pytest.mark.parametrize(
    ("asked", "pooling"),
    [
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True},
            "cls and max",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu", "vllm", "vllm-cpu"])
def test_a_pooling_that_no_engine_does_is_refused_by_all(
    tmp_path: Path, engine: str, asked: dict[str, object], pooling: str
):
    folder = written(tmp_path, "bert", **asked)
    with pytest.raises(ConfigurationError, match=f'"{pooling}", which neither'):
        argv(engine, folder)
    assert argv(engine, folder, Kind.COMPLETION)


@pytest.mark.parametrize(
    ("model_type", "its_class"),
    [
        ("modernbert", "ModernBertModel"),
        ("roberta", "RobertaModel"),
        ("new", "NewModel"),
        ("bert", "BertForMaskedLM"),
        ("camembert", "CamembertModel"),
        ("deberta-v2", ""),
    ],
)
def test_an_encoder_that_sglang_has_no_code_for_is_refused(
    tmp_path: Path, model_type: str, its_class: str
):
    folder = written(tmp_path, model_type, pooling_mode_cls_token=True)
    config = {"model_type": model_type, "architectures": [its_class] * bool(its_class)}
    (folder / "config.json").write_text(json.dumps(config))
    # It falls back to its way for decoders, of which it takes the last token.
    with pytest.raises(ConfigurationError, match='SGLang does "lasttoken"'):
        argv("sglang", folder)
    assert argv("vllm", folder)


def test_a_class_that_sglang_makes_see_both_ways_is_taken_and_read_whole(
    tmp_path: Path,
):
    folder = written(tmp_path, "lfm2", pooling_mode_cls_token=True)
    config = {"model_type": "lfm2", "architectures": ["Lfm2BidirectionalModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    assert reads_whole(argv("sglang", folder))


@pytest.mark.parametrize(
    "said",
    [
        {"use_bidirectional_attention": True},
        {"text_config": {"is_causal": False}},
    ],
)
def test_only_gemma_sees_both_ways_by_a_switch(tmp_path: Path, said: dict[str, object]):
    folder = written(tmp_path, "qwen3", pooling_mode_lasttoken=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", **said}))
    with pytest.raises(ConfigurationError, match="both directions"):
        argv("sglang", folder)
    gemma = written(tmp_path / "gemma", "gemma3_text", pooling_mode_mean_tokens=True)
    config = {"model_type": "gemma3_text", "use_bidirectional_attention": True}
    (gemma / "config.json").write_text(json.dumps(config))
    assert argv("sglang", gemma)


@pytest.mark.parametrize(
    "kind", ["LayerNorm", "LSTM", "WeightedLayerPooling", "Router", "SpladePooling"]
)
@pytest.mark.parametrize("engine", ["sglang", "sglang-cpu", "vllm", "vllm-cpu"])
def test_a_part_that_no_engine_computes_is_refused_by_all(
    tmp_path: Path, engine: str, kind: str
):
    folder = written(tmp_path, "bert", pooling_mode="cls")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"type": MODULES + kind, "path": "3"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigurationError, match=f'the part "{kind}", which neither'):
        argv(engine, folder)
    if engine == "vllm":
        assert argv(engine, folder, extra_args=("--hf_overrides={}",))


def test_a_pooling_is_read_however_it_is_written(tmp_path: Path):
    assert argv("sglang", written(tmp_path / "a", "bert", pooling_mode="CLS"))
    both = written(tmp_path / "b", "bert", pooling_mode=["cls", "max"])
    with pytest.raises(ConfigurationError, match='"cls and max", which neither'):
        argv("vllm", both)


def test_the_caches_older_variable_counts(tmp_path: Path):
    written(tmp_path / "models--org--m" / "snapshots" / "1", "bert", pooling_mode="max")
    with pytest.raises(ConfigurationError, match='"max"'):
        argv("vllm", "org/m", HUGGINGFACE_HUB_CACHE=str(tmp_path))


def test_a_decoder_that_looks_ahead_is_not_for_sglang(tmp_path: Path):
    folder = written(tmp_path, "qwen2", pooling_mode_lasttoken=True)
    assert argv("sglang", folder)
    config = {"model_type": "qwen2", "is_causal": False}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="both directions"):
        argv("sglang", folder)
    assert argv("vllm", folder)


def test_the_revision_that_is_loaded_says_how_its_vectors_are_made(tmp_path: Path):
    cache, hub = tmp_path / "models--org--m", {"HF_HUB_CACHE": str(tmp_path)}
    written(cache / "snapshots" / "1", "bert", pooling_mode="cls")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("1")
    written(cache / "snapshots" / "2", "bert", pooling_mode="mean")
    (cache / "refs" / "v2").write_text("2")
    assert argv("sglang", "org/m", **hub)
    for revision in ("v2", "2"):
        with pytest.raises(ConfigurationError, match='pooling "mean"'):
            argv("sglang", "org/m", extra_args=("--revision", revision), **hub)
    # Of one that is not here nothing is known.
    assert argv("sglang", "org/m", extra_args=("--revision=v3",), **hub)


def test_what_one_revision_lacks_another_may_have(tmp_path: Path):
    cache = tmp_path / "models--org--m"
    for file in ("refs/main", ".no_exist/1/modules.json", "snapshots/2/config.json"):
        (cache / file).parent.mkdir(parents=True)
        (cache / file).write_text("1")
    for revision, lacks in (("main", True), ("1", True), ("2", False), ("v3", False)):
        files = Weights("org/m", {"HF_HUB_CACHE": str(tmp_path)}, revision)
        assert files.lacks("modules.json") is lacks


@pytest.mark.parametrize(
    ("model_type", "asked"),
    [
        ("bert", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}),
        ("xlm-roberta", {"pooling_mode": "cls"}),
        ("qwen3", {"pooling_mode_lasttoken": True, "include_prompt": True}),
        ("qwen3", {"pooling_mode": "lasttoken"}),
    ],
)
def test_a_model_that_asks_for_what_sglang_does_is_taken(
    tmp_path: Path, model_type: str, asked: dict[str, object]
):
    assert argv("sglang", written(tmp_path, model_type, **asked))


def test_a_dense_layer_after_the_pooling_is_refused(tmp_path: Path):
    folder = written(tmp_path, "bert", pooling_mode="cls")
    (folder / "modules.json").write_text(
        json.dumps([{"type": MODULES + "Dense", "path": "2_Dense"}])
    )
    with pytest.raises(ConfigurationError, match="dense layer"):
        argv("sglang", folder)
