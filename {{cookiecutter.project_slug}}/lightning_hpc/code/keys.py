"""What looks like a password or a key, by its name or by its content: no copy of the code may have it."""

import re
from fnmatch import fnmatch
from pathlib import PurePath

# Names of files, in lower case. A program may have such a name, as `secrets.py` has: there the content decides.
NAMES = (
    ".env", ".env.*", "*.env", "?netrc", ".pypirc", ".git-credentials", ".htpasswd",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.gpg",
    "kaggle.json", "credentials", "credentials.*", "client_secret*", "service[-_]account*.json", "*credentials.json",
    "secret", "secret.*", "secrets", "secrets.*", "*.secret", "token", "token.*", "*.token", "*[-_]token.*",
    "apikey*", "api[-_]key*", "*[-_]api[-_]key.*", "password*", "passwd*",
)  # fmt: skip

# What is made to be shown: `.env.example` has the names of variables and no values.
HARMLESS = (".example", ".sample", ".template", ".pub")

PROGRAMS = {".py", ".pyi", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".rs", ".jl"}
PROGRAMS |= {".sh", ".bash", ".sbatch", ".lua", ".r", ".f90"}

# What it is, how it begins, and its whole form. To look for the beginning first takes a tenth of the time.
FORMS = (
    ("a private key", b"PRIVATE KEY", rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{20}"),
    ("a key of AWS", b"AKIA", rb"\bAKIA[0-9A-Z]{16}\b"),
    ("a key of AWS", b"ASIA", rb"\bASIA[0-9A-Z]{16}\b"),
    ("a token of GitHub", b"gh", rb"\bgh[pousr]_[A-Za-z0-9]{36}"),
    ("a token of GitHub", b"github_pat_", rb"\bgithub_pat_\w{60}"),
    ("a token of GitLab", b"glpat-", rb"\bglpat-[\w-]{20}"),
    ("a token of Hugging Face", b"hf_", rb"\bhf_[A-Za-z0-9]{30}"),
    ("a key of an API", b"sk-", rb"\bsk-(?:[a-z]+-)?[A-Za-z0-9_]{32}"),
    ("a token of Slack", b"xox", rb"\bxox[abprs]-[A-Za-z0-9-]{10}"),
    ("a token of Slack", b"hooks.slack.com", rb"hooks\.slack\.com/services/T\w+/B\w+/\w{20}"),
    ("a key of Google", b"AIza", rb"\bAIza[\w-]{35}"),
)

# Keys of W&B, Kaggle and others are mere digits: it is the word before them that says what they are.
DIGITS = re.compile(rb"(?<![0-9A-Za-z])[0-9a-f]{32}(?:[0-9a-f]{8})?(?![0-9A-Za-z])")
WORD = re.compile(rb"(?:\bkey|api_?key|token|secret|password)[\"']?\s*[:=]\s*[\"']?\Z", re.IGNORECASE)


def key_by_name(path: str) -> bool:
    """True if a file's name says that a key is in it."""
    name = PurePath(path).name.lower()
    suffix = PurePath(name).suffix
    if suffix in PROGRAMS or suffix in HARMLESS:
        return False
    return any(fnmatch(name, pattern) for pattern in NAMES)


def key_in(content: bytes) -> str | None:
    """What a file's content has in it: `a token of GitHub in line 3`; None if nothing looks like a key."""
    start, kind = None, ""
    for what, beginning, form in FORMS:
        match = re.search(form, content) if beginning in content else None
        if match:
            start, kind = match.start(), what
    for match in DIGITS.finditer(content):
        before = content[max(0, match.start() - 40) : match.start()]
        if WORD.search(before):
            start, kind = match.start(), "a key"

    if start is None:
        return None
    line = content.count(b"\n", 0, start) + 1
    return f"{kind} in line {line}"
