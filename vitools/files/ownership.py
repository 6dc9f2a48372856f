"""Which files vitools wrote, by what they say themselves: no list that could be lost or moved away."""

from pathlib import Path

from vitools.errors import FileError

MARKS: dict[str, tuple[bytes, ...]] = {
    ".html": (b'<meta name="generator" content="vitools ',),
    ".csv": (b"fit,bound,bound_se,",),
    ".json": (b'"vitools": "',),
    ".nc": (b"inference_library", b"vitools"),
    ".safetensors": (b'"vitools":',),
    ".png": (b"Software\0vitools ",),
    ".svg": (b"<dc:title>vitools ",),
    ".pdf": (b"/Creator (vitools ",),
}
"""What each kind of file holds where vitools is its writer."""

PICTURE_KEYS = {".png": "Software", ".svg": "Creator", ".pdf": "Creator"}
"""The entry of a picture's metadata that names its writer."""


def is_own(path: str | Path) -> bool:
    """Whether a file says that vitools wrote it."""
    path = Path(path)
    marks = MARKS.get(path.suffix.lower())
    if marks is None:
        return False
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return all(mark in content for mark in marks)


def refuse_foreign(folder: str | Path, *names: str) -> None:
    """Raise for the first of these files that is there and that vitools did not write."""
    for name in names:
        path = Path(folder, name)
        if path.is_file() and not is_own(path):
            raise FileError(
                f"'{path}' was not written by vitools, and would be overwritten. Choose another "
                "folder or name, or add --force (force=True)."
            )
