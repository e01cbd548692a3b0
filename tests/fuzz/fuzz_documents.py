"""COCO documents that are nearly right, JSON of any shape, and bytes of no shape."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

# What people, programs and attackers put where a number, a text, a list or an object belongs.
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 8, 48, 64, 0.5, -0.0, 1e-9, 1e-320, 1e19, 1e30, 1e308, -1e308, float("nan"),
    float("inf"), float("-inf"), 2**31, 2**32 + 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 2**70, 10**400,
    2**20 - 1, 2**20, "", " ", "a", "3", "a.jpg", "none.jpg", "a.jpg/", "./a.jpg", "sub/../a.jpg", "../outside.txt",
    "..\\outside.txt", "/etc/passwd", "\\\\host\\share", "C:\\a.jpg", "sub", ".", "..", "\0", "a\0.jpg", "\ud800",
    "\u202e\n\r\x1b[31m", "<script>alert(1)</script>", "é" * 300, "x" * 5000, "/" * 300, [], {}, [[]], [[[]]], [{}],
    [None], [""], [0], [0, 0], [0, 0, 0, 0], [1, 1, 5, 5], [1, 1, 5], [1, 1, 5, 5, 5], [-9, -9, 4, 4],
    [1e300, 0, 1e300, 5], [0, 0, 1e-300, 5], ["1", "1", "5", "5"], [True, True, True, True], [[1, 1, 5, 5]],
    [[1, 1, 5, 1, 5, 5]], [[1, 1, 5, 1, 5, 5], [9, 9, 9, 9, 9, 9]], [[1, 1, 5, 1, 5, 5, 7]], [[float("nan")] * 6],
    [[1e9, 1, 5, 1, 5, 5]], [[-60, -60, 120, -60, 120, 120]], [["1"] * 6], [[None] * 6], [[True] * 6], ["123456"],
    [[0, 0, 128, 96] * 3000],
    {"size": [48, 64], "counts": [0, 3072]}, {"size": [48, 64], "counts": [3072]}, {"size": [48, 64], "counts": []},
    {"size": [48, 64], "counts": [-1, 3073]}, {"size": [48, 64], "counts": [2**63, 1]},
    {"size": [48, 64], "counts": [1.0, 3071]}, {"size": [48, 64], "counts": [True, 3071]},
    {"size": [64, 48], "counts": [3072]}, {"size": [2**20 - 1, 2**20 - 1], "counts": [(2**20 - 1) ** 2]},
    {"size": [0, 0], "counts": [0]}, {"size": "48", "counts": "00"}, {"size": None, "counts": None},
    {"size": [48, 64], "counts": "0"}, {"size": [48, 64], "counts": ""}, {"size": [48, 64], "counts": "PPPPPPPPPPPPPP"},
    {"size": [48, 64], "counts": "ooooooooooooooooooooo"}, {"size": [48, 64], "counts": "é\0"}, {"counts": "PPPP"},
    {"size": [48.0, 64.0], "counts": [0, 3072]}, {"size": [48, 64], "counts": {"a": 1}},
]  # fmt: skip

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)
values = st.sampled_from(VALUES) | any_json | st.floats() | st.integers(-100, 100)
changes = st.lists(
    st.tuples(
        st.integers(0, 2**16),
        st.sampled_from(["set", "set", "set", "remove", "repeat", "move", "wrap", "scale", "add", "insert"]),
        values,
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=5,
)


# Numbers at which arithmetic and conventions change.
numbers = st.sampled_from(
    [0, 1, 2, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129, -1, -47, -48, -64, -65, 0.5, 0.999, 1.001, -0.0, 1e-5,
     1e-6, 1e-12, 1e-320, 1e5, 1e12, 1e29, 2**31, 2**32, 2**53]
) | st.floats(-70, 140)  # fmt: skip
sides = st.sampled_from([48, 64, 64.0, 1, 2, 4096, 65535, 2**16, 2**19, 2**20 - 1])
runs = st.lists(
    st.sampled_from([0, 1, 2, 47, 48, 3071, 3072, 3073, 2**32, 2**40 - 1]) | st.integers(0, 3100), max_size=6
)
rles = st.fixed_dictionaries(
    {
        "size": st.sampled_from([[48, 64], [48, 64], [64, 48], [4096, 4096], [2**16, 2**16], [2**20 - 1, 2**20 - 1]]),
        "counts": runs | runs.map(lambda counts: [*counts, 3072 - sum(counts)]) | st.text("0123@NOPQ`nopo", max_size=9),
    }
)
polygons = st.lists(
    st.lists(numbers, min_size=6, max_size=6) | st.lists(numbers, max_size=14)
    | st.tuples(st.lists(numbers, min_size=2, max_size=4), st.integers(2, 4000)).map(lambda pair: pair[0] * pair[1]),
    max_size=3,
)  # fmt: skip
# What stands at each key, as far as its form goes.
FIELDS: dict[str, dict[str, st.SearchStrategy]] = {
    "images": {
        "id": st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
        "file_name": st.sampled_from(["a.jpg", "b.png", "sub/c.jpg", "none.png", "sub", "a.jpg/b", "sub//c.jpg", ".."]),
        "height": sides,
        "width": sides,
    },
    "annotations": {
        "id": st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
        "image_id": st.sampled_from([1, 2, 3, 4, 5, "1"]),
        "category_id": st.sampled_from([3, 8, 0, "3"]),
        "bbox": st.lists(numbers, min_size=4, max_size=4),
        "area": numbers,
        "iscrowd": st.sampled_from([0, 1, True, False, 2]),
        "segmentation": polygons | polygons | rles | rles,
    },
    "categories": {"id": st.integers(-5, 2**63 - 1), "name": st.text(max_size=4)},
}
fields = st.sampled_from([(part, key) for part, keys in FIELDS.items() for key in keys])


@st.composite
def nearly_sound(draw: st.DrawFn, content: Any) -> Any:
    """`content` with values of the right form at a few keys, and sometimes other ids throughout."""
    content = copy.deepcopy(content)
    for part, key in draw(st.lists(fields, min_size=1, max_size=4)):
        entry = content[part][draw(st.integers(0, len(content[part]) - 1))]
        entry[key] = draw(FIELDS[part][key])
    size = draw(st.none() | st.tuples(sides, sides))
    if size is not None:  # of one image, with the RLEs on it
        number = draw(st.integers(1, 4))
        for image in content["images"]:
            if image["id"] == number:
                image["height"], image["width"] = size
        for annotation in content["annotations"]:
            if annotation["image_id"] == number and isinstance(annotation.get("segmentation"), dict):
                whole = int(size[0] * size[1])
                annotation["segmentation"] = {"size": list(size), "counts": [whole // 2, whole - whole // 2]}
    if draw(st.booleans()):
        form = draw(st.sampled_from([str, lambda i: f"im {i}", lambda i: i - 2**63, lambda i: 2**62 + i, lambda i: -i]))
        for image in content["images"]:
            image["id"] = form(image["id"]) if type(image["id"]) is int else image["id"]
        for annotation in content["annotations"]:
            owner = annotation["image_id"]
            annotation["image_id"] = form(owner) if type(owner) is int else owner
    return content


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value inside a JSON value, its own first."""
    found = [path]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += places(inner, (*path, key))
    return found


def changed(content: Any, steps: list[tuple]) -> Any:
    """A copy of `content` with each of `steps` done at the place that its number falls on."""
    content = copy.deepcopy(content)
    for number, kind, value, other in steps:
        found = places(content)
        path = found[number % len(found)]
        if not path:
            content = copy.deepcopy(value) if kind == "set" and other % 8 == 0 else content
            continue
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        # Copies, as the values are shared by all inputs and changed further.
        _change(holder, path[-1], kind, copy.deepcopy(value), copy.deepcopy(_at(content, found[other % len(found)])))
    return content


def _at(content: Any, path: tuple) -> Any:
    for key in path:
        content = content[key]
    return content


def _change(holder: Any, key: Any, kind: str, value: Any, from_elsewhere: Any) -> None:
    held = holder[key]
    if kind == "set":
        holder[key] = value
    elif kind == "remove":
        del holder[key]
    elif kind == "repeat":
        if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(held))
        elif isinstance(held, list):
            held += copy.deepcopy(held)
    elif kind == "move":
        holder[key] = from_elsewhere
    elif kind == "wrap":
        holder[key] = [held]
    elif kind == "scale" and type(held) in (int, float):
        holder[key] = held * (value if type(value) in (int, float) and abs(value) < 1e9 else -1)
    elif kind == "add" and isinstance(held, dict):
        held[str(value)[:20]] = from_elsewhere
    elif kind == "insert" and isinstance(held, list):
        held.append(value)


def documents(content: Any) -> st.SearchStrategy[bytes]:
    """Files: `content` with its values, or its bytes, changed; any JSON; any bytes."""
    text = json.dumps(content).encode()
    deep = st.integers(1, 200_000).flatmap(lambda n: st.sampled_from([b"[" * n, b'{"a":' * n, b"[" * n + b"]" * n]))
    encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-be", "latin-1"])
    return st.one_of(
        nearly_sound(content).map(written),
        nearly_sound(content).map(written),
        nearly_sound(content).map(written),
        st.tuples(nearly_sound(content), changes).map(lambda pair: written(changed(*pair))),
        changes.map(lambda steps: written(changed(content, steps))),
        st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, 60), st.binary(max_size=6)), max_size=4).map(
            lambda cuts: spliced(text, cuts)
        ),
        any_json.map(written),
        st.dictionaries(st.sampled_from(["images", "annotations", "categories"]), any_json).map(written),
        st.fixed_dictionaries(
            {key: st.lists(any_json, max_size=3) for key in ("images", "annotations", "categories")}
        ).map(written),
        st.binary(max_size=200),
        deep,
        encodings.map(lambda encoding: text.decode().encode(encoding)),
    )


def written(value: Any) -> bytes:
    """JSON, with NaN and halves of characters as Python writes them."""
    return json.dumps(value).encode()


def spliced(data: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    """`data` with pieces of it replaced."""
    for start, length, new in cuts:
        data = data[:start] + new + data[start + length :]
    return data
