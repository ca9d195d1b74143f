"""What engines need to be told to embed, and which models SGLang embeds wrongly."""

from pathlib import Path

from launcher import environments
from launcher.engine_types import builtin, model_config
from launcher.engine_types.base import interpreter
from launcher.engine_types.hub import revision_of
from launcher.startup_log.weights import Weights, weights_of
from modelserver.errors import ConfigurationError
from modelserver.values import Kind, ModelSpec

#: Each prompt is computed whole and anew: SGLang pools over what was not computed
#: before, so that an encoder's vectors would depend on earlier texts.
WHOLE_PROMPTS = ("--disable-radix-cache", "--chunked-prefill-size", "-1")

#: How SGLang pools, by the classes that it has code for and that see a whole text at
#: once. It runs other encoders by its way for decoders, which takes the last token.
SGLANG_POOLINGS = {
    "BertModel": "cls",
    "Contriever": "cls",
    "XLMRobertaModel": "cls",
    "Lfm2BidirectionalModel": "cls",
    "EmbeddingGemma2Model": "mean",
}
#: The classes of models whose files name none.
_USUAL_CLASSES = {"bert": "BertModel", "xlm-roberta": "XLMRobertaModel"}
#: The poolings of sentence-transformers that vLLM does, "" for its own choice; with any
#: other it takes its own choice, too. The root changes a vector's length only.
VLLM_POOLINGS = frozenset({"", "cls", "mean", "mean_sqrt_len", "lasttoken"})
#: Arguments by which vLLM is told how to pool, and by which code.
POOLER_FLAGS = ("--pooler-config", "--override-pooler-config", "--hf-overrides")


def files_of(model: ModelSpec, home: Path) -> Weights:
    """The model's files, in a folder or in the cache of its engine."""
    path = builtin.model_path(model, home)
    return weights_of(path, model.environment, revision_of(model.extra_args))


def fetch_files(model: ModelSpec, home: Path) -> None:
    """Have the hub's small files of an embedding model here before its engine starts.

    What cannot be fetched is left to the engine.
    """
    files = files_of(model, home)
    if model.kind is Kind.EMBEDDING and not model_config.knows_modules(files):
        python = interpreter(model, home)
        environments.fetch_model_files(
            python, files.path, files.revision, model.environment
        )


def needs_whole_prompts(model: ModelSpec, files: Weights) -> bool:
    """Whether it gets WHOLE_PROMPTS: an encoder, or what nobody knows of yet."""
    if model.kind is not Kind.EMBEDDING or model.path.startswith(builtin.PREFIX):
        return False
    if model_config.is_encoder(files) or not model_config.is_known(files):
        return True
    return _class(files) in SGLANG_POOLINGS


def sglang_pooling(files: Weights) -> str:
    """How SGLang makes one vector of a text's tokens, whatever the model asks for."""
    # EmbeddingGemma has the class of a decoder.
    is_gemma = model_config.model_type(files) == "gemma3_text"
    if is_gemma and model_config.looks_ahead(files):
        return "mean"
    return SGLANG_POOLINGS.get(_class(files), "lasttoken")


def _class(files: Weights) -> str:
    usual = _USUAL_CLASSES.get(model_config.model_type(files), "")
    return model_config.architecture(files) or usual


def check_pooling(model: ModelSpec, files: Weights, other: str) -> None:
    """Refuse a model whose vectors SGLang would get wrong; ``other`` engine can.

    Raises ConfigurationError.
    """
    if model.kind is not Kind.EMBEDDING or not model_config.is_known(files):
        return
    check_vllm_pooling(model, files)
    asked, done = model_config.pooling(files), sglang_pooling(files)
    problem = ""
    if asked and asked != done:
        problem = (
            f'asks for the pooling "{asked}", and SGLang does "{done}" with every '
            f"model of class {_class(files) or 'unknown'}"
        )
    elif model_config.looks_ahead(files) and done == "lasttoken":
        problem = "reads a text in both directions, and SGLang reads it in one"
    elif model_config.has_dense_layer(files) and done != "mean":
        problem = "has a dense layer after its pooling, which SGLang leaves out"
    if problem:
        raise ConfigurationError(
            f'model "{model.name}" ({model.path}) {problem}: its vectors would be '
            f'wrong; set engine = "{other}", which goes by the model\'s own files'
        )


def check_vllm_pooling(model: ModelSpec, files: Weights) -> None:
    """Refuse a model whose pooling vLLM, which knows most, leaves out.

    Raises ConfigurationError.
    """
    words = [word.replace("_", "-") for word in model.extra_args]
    told = any(word.startswith(POOLER_FLAGS) for word in words)
    if model.kind is not Kind.EMBEDDING or told:
        return
    asked = model_config.pooling(files)
    if asked not in VLLM_POOLINGS:
        what = f'the pooling "{asked}"'
    elif part := model_config.unknown_module(files):
        what = f'the part "{part}"'
    else:
        return
    raise ConfigurationError(
        f'model "{model.name}" ({model.path}) asks for {what}, which neither '
        "vLLM nor SGLang does: its vectors would be wrong; take another model, "
        'or run a server of your own by engine = "command"'
    )
