"""What fuzz.py does to checkpoints: one random change each, by a generator that is given."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import struct
from random import Random
from typing import Any

import torch
from damage_options import places


class Code:
    """Pickled, it makes a folder when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickled_code_was_run",)


_INSTEAD = (None, "x", "", -1, 0, 10**30, -(2**63), 0.5, float("nan"), True, b"x", [], {}, (), [1], {"a": 1}, {1: {}}, ["x", None])


def damaged_content(content: dict[str, Any], random: Random) -> dict[str, Any]:
    """A checkpoint in which one thing was changed: a key, a value, a shape, a type, or a piece of code put into it."""
    content = copy.deepcopy(content)
    found = list(places(content))
    few = [place for place in found if not isinstance(place[0][place[1]], torch.Tensor)]  # among many weights, what is none
    node, key = random.choice(random.choice((found, few or found)))
    what = random.choice(("delete", "rename", "value", "value", "tensor", "tensor", "add", "move", "code"))
    if what == "delete":
        del node[key]
    elif what == "rename" and isinstance(node, dict):
        node[random.choice((f"{key}_", f"module.{key}", str(key), 7))] = node.pop(key)
    elif what == "tensor":
        tensors = [(holder, at) for holder, at in found if isinstance(holder[at], torch.Tensor)]
        node, key = random.choice(tensors) if tensors else (node, key)
        node[key] = _damaged_tensor(node[key], random) if tensors else torch.zeros(2)
    elif what == "add" and isinstance(node, dict):
        node[random.choice(("x", 3, ("a", 1)))] = random.choice((*_INSTEAD, torch.zeros(2)))
    elif what == "move":
        holder, at = random.choice(found)
        node[key] = copy.deepcopy(holder[at])
    elif what == "code":
        node[key] = Code()
    else:
        node[key] = random.choice((*_INSTEAD, torch.zeros(2), torch.tensor(float("nan"))))
    return content


def _damaged_tensor(tensor: torch.Tensor, random: Random) -> Any:
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64)
    shapes = [tensor[None], tensor.flatten()[:-1], tensor.new_zeros(()), tensor.new_zeros((0, 3)), tensor.new_zeros(3)]
    values = [torch.full_like(tensor, 1), torch.zeros_like(tensor), tensor.tolist(), tensor.to_sparse()]
    if tensor.is_floating_point():
        numbers = (float("nan"), float("inf"), -1e30)
        values += [torch.nn.Parameter(tensor), *(torch.full_like(tensor, number) for number in numbers)]
    return random.choice((*shapes, *values, tensor.to(random.choice(kinds)), tensor.to(random.choice(kinds))))


def damaged_checkpoint(data: bytes, random: Random) -> bytes:
    """A file of PyTorch's in which bits were flipped, a part is missing, or one thing in it was changed."""
    what = random.choice(("bytes", "content", "content", "content", "pickle"))
    if what == "bytes":
        return damaged_bytes(data, random)
    if what == "pickle":
        return random.choice((pickle.dumps(Code()), pickle.dumps({"params": {}}), pickle.dumps(None)))
    content = damaged_content(torch.load(io.BytesIO(data), weights_only=True), random)
    buffer = io.BytesIO()
    torch.save(random.choice((content, content, content, content, [content], None, torch.zeros(2))), buffer)
    return buffer.getvalue()


def damaged_safetensors(data: bytes, random: Random) -> bytes:
    """A file of safetensors' in which bits were flipped, a part is missing, or one thing in its header was changed."""
    if random.random() < 0.4:
        return damaged_bytes(data, random)
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    described = header.get("__metadata__", {})
    if "network" in described and random.random() < 0.5:
        network = json.loads(described["network"])
        node, key = random.choice(list(places(network)))
        node[key] = random.choice((None, "x", -1, 0, 2, 0.5, [], {}, [1], True))
        described["network"] = random.choice((json.dumps(network), json.dumps(network), "", "x", "[]", "null", "1"))
    else:
        node, key = random.choice(list(places(header)))
        if random.random() < 0.3:
            del node[key]
        else:
            node[key] = random.choice((None, "x", "F64", "I8", -1, 0, 10**30, [], {}, [1], [0, 4]))
    text = json.dumps(header).encode()
    size = random.choice((len(text), len(text), len(text), 0, len(text) + 1, 2**63))
    return struct.pack("<Q", size) + text + data[8 + struct.unpack("<Q", data[:8])[0] :]


def damaged_bytes(data: bytes, random: Random) -> bytes:
    """A file in which bits were flipped, or from which a part is missing."""
    if random.random() < 0.5:
        flipped = bytearray(data)
        for bit in random.sample(range(8 * len(data)), random.randint(1, 8)):
            flipped[bit // 8] ^= 1 << bit % 8
        return bytes(flipped)
    start = random.randrange(len(data))
    return random.choice((data[:start], data[:start] + data[start + random.randint(1, 999) :], b""))
