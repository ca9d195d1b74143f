"""Which of the launcher's variables the programs of engines get. Pure.

The others stay here: what engines run is others' code, and the launcher's environment
may hold the URL of Redis with its password, and tokens of other services.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Whole names: of the user and the system, proxies, certificates, compilers.
NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "HOSTNAME", "TERM"),
        *("LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "CC", "CXX"),
        *("C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "MAX_JOBS"),
        *("VIRTUAL_ENV", "CONDA_PREFIX"),
    }
)
#: How other names begin: of Python, of libraries that compute, of engines, of what
#: runs containers.
PREFIXES = (
    *("PYTHON", "LC_", "XDG_", "MALLOC_", "DBUS_"),
    *("CUDA", "CUDNN_", "CUBLAS_", "NVIDIA_", "NVCC_", "NCCL_", "NVSHMEM_"),
    *("UCX_", "FI_", "GLOO_"),
    *("HIP_", "ROCM_", "HSA_", "ROCR_", "RCCL_", "ONEAPI_", "ZE_", "SYCL_"),
    *("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "NUMBA_", "NUMEXPR_"),
    *("TORCH", "PYTORCH_", "TRITON_", "FLASHINFER_", "FLASH_ATTENTION_", "DG_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TOKENIZERS_", "SAFETENSORS_"),
    # HUGGING_FACE_HUB_TOKEN is what HF_TOKEN was called.
    *("HUGGING_FACE_", "MODELSCOPE_"),
    *("SGLANG_", "SGL_", "VLLM_"),
    *("DOCKER_", "CONTAINER_", "CONTAINERS_", "BUILDAH_"),
)


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine inherits; whatever else it needs, its model's section names.

    >>> inherited({"HF_TOKEN": "x", "MODELSERVER_REDIS_URL": "y", "http_proxy": "z"})
    {'HF_TOKEN': 'x', 'http_proxy': 'z'}
    >>> inherited({"HUGGING_FACE_HUB_TOKEN": "x", "MODELSERVER_FLEET_KEY": "y"})
    {'HUGGING_FACE_HUB_TOKEN': 'x'}
    """
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in NAMES or name.startswith(PREFIXES)
    }
