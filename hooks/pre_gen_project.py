"""Check the answers before anything is written: the first bad one stops the generation with one line.

Cookiecutter renders this file, runs it in the new, still empty folder and, when it fails, removes that folder and
prints a traceback of its own; so the line printed here comes first. Nothing here depends on being rendered except the
answers themselves: the tests import the file as it stands.
"""

import builtins
import json
import keyword
import re
import sys
from collections.abc import Iterator

ANSWERS = r"""{{ cookiecutter | tojson }}"""

# Combinations that cannot work, each with the reason and what to choose instead. The tests read this table too.
UNSUPPORTED = [
    (
        {"cluster": "bede-power9", "conda_environment": "cuda12"},
        "there is no CUDA 12 build of PyTorch for POWER9; choose conda_environment auto, or cluster bede-gh",
    ),
    (
        {"cluster": "bede-power9", "conda_environment": "cuda13"},
        "there is no CUDA 13 build of PyTorch for POWER9; choose conda_environment auto, or cluster bede-gh",
    ),
    (
        {"cluster": "hec", "conda_environment": "cuda13"},
        "a job there may get a V100, which no build for CUDA 13 runs on; choose conda_environment auto",
    ),
    (
        {"cluster": "isambard-ai", "conda_environment": "cuda13"},
        "the driver of Isambard-AI is for CUDA 12; choose conda_environment auto",
    ),
]

OLDEST_COOKIECUTTER = "2.6"  # that the template is tested with

# What the project imports or a researcher is likely to, and what these import themselves, such as click: a package of
# the same name would hide it.
LIBRARIES = set(
    "absl accelerate aiobotocore aiohappyeyeballs aiohttp aioitertools aiosignal alembic annotated_doc "
    "annotated_types anyio argon2 asttokens attr attrs babel bcrypt bleach blinker boto3 botocore box bs4 "
    "cachetools certifi cffi cfgv charset_normalizer click cloudpickle colorama colorlog comet_ml comm "
    "contourpy coreweave_evaluations cryptography cycler databricks datasets dateutil debugpy decorator "
    "deepspeed dill distlib distro docker docstring_parser dotenv dulwich einops everett exceptiongroup "
    "executing fastapi fastjsonschema filelock flask flask_cors flatbuffers fonttools frozenlist fsspec "
    "functorch gcsfs git gitdb google google_auth_oauthlib google_crc32c graphene graphql grpc grpc_status "
    "gunicorn h11 hf_xet httpcore httpcore2 httpx httpx2 huey huggingface_hub identify idna "
    "importlib_metadata iniconfig invoke ipykernel ipython ipython_pygments_lexers isympy itsdangerous jedi "
    "jinja2 jmespath joblib json5 jsonargparse jsonschema jsonschema_specifications jupyter jupyter_client "
    "jupyter_core jupyter_lsp jupyter_server jupyterlab jupyterlab_jupytext jupytext jupytext_config "
    "kiwisolver lightning lightning_fabric lightning_utilities mako markdown markdown_it markupsafe "
    "matplotlib matplotlib_inline mdit_py_plugins mdurl ml_dtypes mlflow moto mpl_toolkits mpmath multidict "
    "multiprocess nacl narwhals nbclient nbconvert nbformat nest_asyncio2 networkx nodeenv notebook "
    "notebook_shim numpy nvidia oauthlib onnx onnx_ir onnxruntime onnxscript opentelemetry optuna packaging "
    "pandas paramiko parso pexpect pil pip platformdirs pluggy pre_commit prometheus_client prompt_toolkit "
    "propcache proto protobuf psutil ptyprocess pure_eval py pyarrow pyasn1 pyasn1_modules pycparser pydantic "
    "pydantic_core pygments pylab pyparsing pysmartdl pytest python_discovery pytorch_lightning pytz "
    "referencing regex requests requests_oauthlib requests_toolbelt rich rpds ruff s3fs safetensors scipy "
    "seaborn semantic_version send2trash sentry_sdk setproctitle setuptools shellingham simplejson six "
    "skimage sklearn skops smmap sniffio sqlalchemy sqlparse stack_data starlette sympy tensorboard "
    "tensorboard_data_server terminado threadpoolctl timm tokenizers tomli torch torchaudio torchgen "
    "torchmetrics torchvision tornado tqdm traitlets transformers triton truststore typer typeshed_client "
    "typing_extensions typing_inspection tzdata urllib3 uvicorn virtualenv waitress wandb wcwidth websocket "
    "websockets werkzeug wheel wrapt wurlitzer xxhash yaml yarl zipp zmq zstandard".split()
)
# Folders of the generated project, now or after its first run.
FOLDERS = set(
    "build checkpoints configs data dist docs kubernetes lightning_hpc logs notebooks runs slurm sweeps tests venv "
    "wandb".split()
)
# A checkout on Windows cannot hold files or folders of these names.
WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}

WANDB_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"


def quoted(value: str) -> str:
    """`value` on one line, at most 40 characters of it."""
    return repr(value if len(value) <= 40 else value[:37] + "...")


def text_problem(key: str, value: str, longest: int) -> str | None:
    """Free text lands inside double quotes in TOML, YAML and Python, so it must not be able to end them."""
    if not value.strip():
        return f"{key} is empty: type some text"
    if len(value) > longest:
        return f"{key} has {len(value)} characters: type at most {longest}"
    if not value.isprintable() or set(value) & set('"\\{}'):
        return f"{key} {quoted(value)} must be one line: type it without double quotes, backslashes and braces"
    return None


def slug_problem(slug: str) -> str | None:
    """The slug names the folder, the distribution, the conda environment, the image and the Kubernetes objects.

    Their rules together leave lower-case ASCII letters, digits and hyphens. Hyphens and not underscores, so that
    folder (my-project) and package (my_project) can be told apart, and because Kubernetes allows no underscore.

    Cookiecutter makes the folder before it runs this hook, and for `..`, `a/b` or 300 letters that alone would go
    wrong. So cookiecutter.json puts a harmless name in place of such an answer and keeps what was typed for this check.
    """
    suggestion = re.sub(r"[^a-z0-9]+", "-", slug.lower())[:50].strip("-") or "my-project"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        return (
            f"project_slug {quoted(slug)} is no folder name that works everywhere: "
            f"type lower-case letters, digits and single hyphens, for example {suggestion}"
        )
    if len(slug) > 50:
        return f"project_slug has {len(slug)} characters: type at most 50, for example {suggestion}"
    if slug in WINDOWS_DEVICES:
        return f"project_slug {quoted(slug)} is a device on Windows: type another name, for example {slug}-project"
    return None


def package_problem(package: str) -> str | None:
    """The package must be importable and must not hide another module from the project's own code."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package):
        suggestion = re.sub(r"[^a-z0-9]+", "_", package.lower())[:50].strip("_0123456789") or "my_project"
        return (
            f"package_name {quoted(package)} cannot be imported: "
            f"type lower-case letters, digits and underscores, a letter first, for example {suggestion}"
        )
    if len(package) > 50:
        return f"package_name has {len(package)} characters: type at most 50"
    kinds = {
        "a word of the Python language": {*keyword.kwlist, *keyword.softkwlist},
        "a module of Python's standard library": sys.stdlib_module_names | {"test"},
        "a built-in name of Python": set(dir(builtins)),
        "a library that projects like this one import": LIBRARIES,
        "a folder of the generated project": FOLDERS,
        "a device on Windows": WINDOWS_DEVICES,
    }
    for kind, names in kinds.items():
        if package in names:
            return f"package_name {quoted(package)} is {kind}: type another name, for example {package}_project"
    return None


def pattern_problem(key: str, value: str, pattern: str, allowed: str) -> str | None:
    """`value` as a whole must match the regular expression `pattern`, which `allowed` says in words."""
    return None if re.fullmatch(pattern, value) else f"{key} {quoted(value)} is not valid: type {allowed}"


def version_problem(year: str) -> str | None:
    """An old cookiecutter leaves derived answers as they are written in cookiecutter.json, the year among them."""
    if "%" not in year:
        return None
    return (
        f"this cookiecutter is too old for the template: it needs {OLDEST_COOKIECUTTER} or newer; "
        "type pipx install cookiecutter, or use uvx cookiecutter"
    )


def problems(answers: dict[str, str]) -> Iterator[str]:
    """Every reason to refuse `answers`, in the order of the questions."""
    checks = [
        version_problem(answers.get("__year", "")),
        text_problem("project_name", answers["project_name"], 100),
        slug_problem(answers["__typed_slug"]),
        package_problem(answers["package_name"]),
        text_problem("description", answers["description"], 300),
        text_problem("author_name", answers["author_name"], 120),
        answers["author_email"]
        and pattern_problem(
            "author_email",
            answers["author_email"],
            r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*",
            "one address such as ada@example.org, or nothing",
        ),
        answers["slurm_account"]
        and pattern_problem(
            "slurm_account",
            answers["slurm_account"],
            r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}",
            "the account's letters, digits, hyphens, dots and underscores only, or nothing",
        ),
        pattern_problem(
            "wandb_project",
            answers["wandb_project"],
            WANDB_NAME,
            "at most 128 letters, digits, hyphens, dots and underscores, a letter or digit first",
        ),
        answers["wandb_entity"]
        and pattern_problem(
            "wandb_entity",
            answers["wandb_entity"],
            WANDB_NAME,
            "the team's or user's letters, digits, hyphens, dots and underscores only, or nothing",
        ),
    ]
    yield from filter(None, checks)
    for combination, reason in UNSUPPORTED:
        if combination.items() <= answers.items():
            chosen = " with ".join(f"{key} {value}" for key, value in combination.items())
            yield f"{chosen} is not supported: {reason}"


def main() -> None:
    """Exit with code 1 and one line on stderr when an answer is bad."""
    answers = json.loads(ANSWERS)
    problem = next(problems(answers), None)
    if problem:
        print(f"Error: {problem}.", file=sys.stderr, flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
