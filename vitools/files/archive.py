"""Tensors and what is to be known of them in one file: safetensors, with JSON and a digest in its header.

Nothing in the file is executed on reading.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from vitools.errors import FileError
from vitools.files.atomic import as_path, atomic_path


def write_archive(
    path: str | Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write both; an existing file is replaced only by a whole new one."""
    # contiguous to the letter: a dim of one element may have any stride, and then no view as bytes
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    text = json.dumps(header, sort_keys=True)
    metadata = {"vitools": text, "digest": _digest(text, copies)}
    with atomic_path(path) as temporary:
        temporary.write_bytes(to_bytes(copies, metadata=metadata))


def read_archive(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a whole archive; anything else is refused."""
    if not as_path(path).is_file():
        raise FileError(f"no file '{path}'.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            # safetensors' own memory is unaligned, which changes last digits of matrix products
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(
            f"'{path}' is not a whole safetensors file ({error}); it was damaged or cut short. "
            "Fit again, or restore it from a copy."
        ) from error
    if "vitools" not in metadata or "digest" not in metadata:
        raise FileError(f"'{path}' is a safetensors file, but not one vitools wrote.")
    if metadata["digest"] != _digest(metadata["vitools"], tensors):
        raise FileError(
            f"'{path}' is damaged: its contents do not match their digest. "
            "Fit again, or restore it from a copy."
        )
    return json.loads(metadata["vitools"]), tensors


def _digest(header: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
