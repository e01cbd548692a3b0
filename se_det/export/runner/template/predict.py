"""Detect objects in images: COCO results as JSON, and the images with what was found drawn on them.

    python predict.py photos/ more.jpg --output results

It needs numpy, opencv-python-headless (or opencv-python) and onnxruntime, and model.onnx beside it. The model resizes
images itself; its classes, and the score from which each is drawn, are in its metadata. Of a model that labels pixels
their classes are written too, as sem_seg/NAME.png, and of a panoptic one its segments, as COCO has them: panoptic.json
and panoptic/NAME.png.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
RESULTS, SEGMENTS = "detections.json", "panoptic.json"
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # the first that is there
DEFAULT_THRESHOLD = 0.5  # of a class for which the model keeps none
MASK_OPACITY, REGION_OPACITY = 0.4, 0.55
PIXEL_COLORS = 500  # where colours of pixels' classes begin, other than those of objects
LEAST_KEYPOINT = 0.05  # a keypoint of a lower score is not drawn


class Detector:
    """The model; `classes` are dicts of `id`, `name` and `threshold`, which may be None. Where it labels pixels
    `pixel_classes` are dicts of `id` and `name`, and `limits` are those of `combine` where it finds both."""

    def __init__(self, path):
        available = onnxruntime.get_available_providers()
        providers = [name for name in PROVIDERS if name in available]
        self.session = onnxruntime.InferenceSession(str(path), providers=providers)
        self.names = [output.name for output in self.session.get_outputs()]
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "se_det" not in metadata or {each.name for each in self.session.get_inputs()} != {"images", "sizes"}:
            raise ValueError("it is no detector of `se-det export` that resizes images itself")
        told = json.loads(metadata["se_det"])
        self.classes = told["classes"]
        self.pixel_classes, self.limits = told.get("pixel_classes"), told.get("combine")

    def __call__(self, images):
        """Detections in images uint8 (height, width, 3), RGB, which may differ in size.

        Returns a dict for each image: `boxes` (n, 4) XYXY px, `scores` (n,), `classes` (n,) indices, and if the model
        has them `masks` (n, M, M), probabilities within the boxes, and `keypoints` (n, K, 3): x, y px and a score. Of a
        model that labels pixels, besides or alone: `sem_seg` uint8 (height, width), indices of their classes.
        """
        sizes = np.array([image.shape[:2] for image in images], np.int64)
        height, width = sizes.max(axis=0)
        batch = np.zeros((len(images), height, width, 3), np.uint8)  # smaller images are padded below and on the right
        for row, image in zip(batch, images):
            row[: image.shape[0], : image.shape[1]] = image
        outputs = dict(zip(self.names, self.session.run(None, {"images": batch, "sizes": sizes})))
        labels, counts = outputs.pop("sem_seg", None), outputs.pop("counts", [0] * len(images))
        found = [{name: value[i, :count] for name, value in outputs.items()} for i, count in enumerate(counts)]
        if labels is not None:
            for one, own, (height, width) in zip(found, labels, sizes):
                one["sem_seg"] = own[:height, :width]
        return found


def read_image(path):
    """The pixels of an image file, uint8 (height, width, 3), RGB, turned upright as its EXIF data says."""
    data = Path(path).read_bytes()
    if data[:3] == b"\xff\xd8\xff" and not is_whole_jpeg(data):  # OpenCV would paint the missing part grey
        raise ValueError("it breaks off")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if pixels is None:
        raise ValueError("it is no image that OpenCV reads, or a damaged one")
    return np.ascontiguousarray(pixels[:, :, ::-1])


def is_whole_jpeg(data):
    """Whether the mark of the end follows the pixels; one before them belongs to a thumbnail."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # the segments before the pixels
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def paste_mask(mask, box, height, width):
    """A mask (M, M) within its box (4,) XYXY px as bool (height, width): bilinear, zero outside, true from 0.5."""

    def weights(low, high, first, last):  # how much each cell of the mask adds to each pixel along one side
        with np.errstate(divide="ignore", invalid="ignore"):  # a box without area has no foreground
            position = (np.arange(first, last, dtype=np.float32) + np.float32(0.5) - low) / (high - low)
            position = position * np.float32(len(mask)) - np.float32(0.5)
        return np.maximum(1 - np.abs(position[:, None] - np.arange(len(mask), dtype=np.float32)), 0)

    limit = np.array([width, height])
    left, top = np.clip(np.floor(box[:2]) - 1, 0, limit).astype(int)
    right, bottom = np.clip(np.ceil(box[2:]) + 1, (left, top), limit).astype(int)
    columns, rows = weights(box[0], box[2], left, right), weights(box[1], box[3], top, bottom)
    pasted = np.zeros((height, width), bool)
    pasted[top:bottom, left:right] = ((columns @ mask.T) @ rows.T >= 0.5).T
    return pasted


def encode_mask(mask):
    """A mask bool (height, width) in COCO's compressed run-length encoding."""
    pixels = mask.T.ravel()  # columns first
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff([0, *changes.tolist(), pixels.size]).tolist()
    if pixels[0]:
        runs.insert(0, 0)  # the first run is of zeros
    text = ""
    for number, value in enumerate(runs):
        if number > 2:
            value -= runs[number - 2]
        more = True
        while more:  # 5 bits a character, lowest first; the sixth says that more follow
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return {"size": list(mask.shape), "counts": text}


def to_coco(found, classes, height, width):
    """The detections in one image of this size as COCO results."""
    results = []
    for i, (box, score, index) in enumerate(zip(*(found.get(name, ()) for name in ("boxes", "scores", "classes")))):
        x0, y0, x1, y1 = box
        xywh = [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]
        result = {"category_id": classes[index]["id"], "bbox": xywh, "score": float(score)}
        if "masks" in found:
            result["segmentation"] = encode_mask(paste_mask(found["masks"][i], box, height, width))
        if "keypoints" in found:  # COCO's coordinates are of pixels, not of the points between them
            result["keypoints"] = (found["keypoints"][i] - np.float32([0.5, 0.5, 0])).flatten().tolist()
        results.append(result)
    return results


def combine(found, overlap_threshold, stuff_area_limit, score_threshold):
    """Objects and classes of pixels as one map: the surer object is in front, and regions of pixels are behind all.

    Objects that score less than `score_threshold`, or of which a larger share than `overlap_threshold` is hidden, are
    left out, as are regions of less than `stuff_area_limit` px and pixels of class 0, which are the objects'.

    Returns segments int32 (height, width), 0 for none, and of each a dict of `id`, `isthing`, `category_id` (the index
    of the object's class, or of the pixels'), and `score` and `instance_id` or `area`.
    """
    labels = found["sem_seg"]
    segments, infos = np.zeros(labels.shape, np.int32), []
    for i in np.argsort(-found["scores"], kind="stable"):
        if found["scores"][i] < np.float32(score_threshold):
            break
        mask = paste_mask(found["masks"][i], found["boxes"][i], *labels.shape)
        area, hidden = np.count_nonzero(mask), np.count_nonzero(mask & (segments > 0))
        if area and hidden / area <= overlap_threshold:
            infos.append({"id": len(infos) + 1, "isthing": True, "score": float(found["scores"][i]),
                          "category_id": int(found["classes"][i]), "instance_id": int(i)})  # fmt: skip
            segments[mask & (segments == 0)] = len(infos)
    for index in np.unique(labels[labels > 0]).tolist():
        mask = (labels == index) & (segments == 0)
        area = int(np.count_nonzero(mask))
        if area >= stuff_area_limit:
            infos.append({"id": len(infos) + 1, "isthing": False, "category_id": index, "area": area})
            segments[mask] = len(infos)
    return segments, infos


def describe(found, detector):
    """Of an image whose pixels are labelled: PNGs by the folder they go to, the infos of its segments with ids of
    categories (None of a model without), and what `draw_regions` takes."""
    labels = found["sem_seg"]
    pngs, things, stuff = {"sem_seg": labels}, detector.classes, detector.pixel_classes
    if detector.limits is None:
        present = np.unique(labels).tolist()
        regions = [(labels == k, class_color(PIXEL_COLORS + k), shown_name(stuff, k)) for k in present]
        return pngs, None, regions
    segments, infos = combine(found, **detector.limits)
    # COCO's number of a segment is red + 256 green + 65536 blue; OpenCV writes blue first.
    pngs["panoptic"] = np.stack([segments >> 16, segments >> 8 & 255, segments & 255], axis=-1).astype(np.uint8)
    regions = []
    for info in infos:
        index = info["category_id"]
        classes, first = (things, 0) if info["isthing"] else (stuff, PIXEL_COLORS)
        score = f" {info['score']:.0%}" if info["isthing"] else ""
        regions.append((segments == info["id"], class_color(first + index), shown_name(classes, index) + score))
        info["category_id"] = classes[index]["id"]
    return pngs, infos, regions


def draw_regions(pixels, regions):
    """A copy of RGB pixels with regions painted, as BGR: each a mask bool (height, width), a BGR colour and a name."""
    canvas = np.ascontiguousarray(pixels[:, :, ::-1])
    for mask, color, _ in regions:
        canvas[mask] = np.rint(canvas[mask] * (1 - REGION_OPACITY) + np.array(color) * REGION_OPACITY)
    for mask, color, name in regions:
        depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        write_label(canvas, name, int(x), int(y), color)
    return canvas


def draw(pixels, found, classes, threshold=None):
    """A copy of RGB pixels with the detections that score `threshold`, or their class's own, as BGR."""
    canvas = np.ascontiguousarray(pixels[:, :, ::-1])
    line = line_width(canvas)
    for i in np.argsort(found["scores"], kind="stable"):  # the surest on top
        index, score = found["classes"][i], found["scores"][i]
        own = classes[index]["threshold"]
        if score < np.float32(threshold if threshold is not None else DEFAULT_THRESHOLD if own is None else own):
            continue
        color = class_color(index)
        if "masks" in found:
            inside = paste_mask(found["masks"][i], found["boxes"][i], *canvas.shape[:2])
            canvas[inside] = np.rint(canvas[inside] * (1 - MASK_OPACITY) + np.array(color) * MASK_OPACITY)
        last = np.array(canvas.shape[1::-1]) - 1
        x0, y0, x1, y1 = np.rint(np.clip(found["boxes"][i], 0, [*last, *last])).astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, line)
        if "keypoints" in found:
            for x, y, sure in found["keypoints"][i]:
                if sure >= LEAST_KEYPOINT:
                    cv2.circle(canvas, (int(x), int(y)), 2 * line, color, -1)
        write_label(canvas, f"{shown_name(classes, index)} {score:.0%}", x0, y0, color)
    return canvas


def line_width(canvas):
    """Px of lines on a canvas."""
    return max(1, round(min(canvas.shape[:2]) / 320))


def shown_name(classes, index):
    """The name of a class in the letters that OpenCV has."""
    name = classes[index]["name"]
    return name if name.isascii() else f"class {index}"


def write_label(canvas, text, left, bottom, color):
    """Write black text in a box of a BGR colour above a point, inside the canvas."""
    line, scale = line_width(canvas), max(0.4, min(canvas.shape[:2]) / 900)
    (wide, tall), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
    x, y = max(0, min(left, canvas.shape[1] - wide)), max(bottom, tall + below)
    cv2.rectangle(canvas, (x, y - tall - below), (x + wide, y), color, -1)
    cv2.putText(canvas, text, (x, y - below), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), line, cv2.LINE_AA)


def class_color(index):
    """BGR; neighbouring classes get hues far apart."""
    hue = (int(index) * 0.6180339887 + 0.02) % 1 * 360
    pixel = cv2.cvtColor(np.array([[[hue, 0.85, 1]]], np.float32), cv2.COLOR_HSV2BGR)[0, 0]
    return tuple(round(float(value) * 255) for value in pixel)


def find_images(inputs, output):
    """(file, its name below the output folder) of files and folders, each once; and what is not there, in words."""
    pairs, problems = [], []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
            pairs += [
                (file, file.relative_to(path)) for file in inside if output.resolve() not in file.resolve().parents
            ]
            if not inside:
                problems.append(f"There are no images in {path}.")
        elif path.is_file():
            pairs.append((path, Path(path.name)))
        else:
            problems.append(f"There is no file or folder {path}.")
    return list({file.resolve(): (file, name) for file, name in reversed(pairs)}.values())[::-1], problems


def drawn_name(name, taken):
    """Where a picture is drawn to: JPEG stays JPEG, all else becomes PNG; a second of one name gets a number."""
    suffix = name.suffix if name.suffix.lower() in (".jpg", ".jpeg") else ".png"
    target, number = name.with_suffix(suffix), 1
    while str(target).casefold() in taken:
        number += 1
        target = name.with_name(f"{name.stem}-{number}{suffix}")
    taken.add(str(target).casefold())
    return target


def batches(pairs, size, problems):
    """Lists of at most `size` (file, name, pixels) that follow each other and are of one size: none is padded."""
    batch = []
    for path, name in pairs:
        try:
            pixels = read_image(path)
        except (OSError, ValueError) as error:
            problems.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.")
            continue
        if batch and (len(batch) == size or pixels.shape != batch[0][2].shape):
            yield batch
            batch = []
        batch.append((path, name, pixels))
    if batch:
        yield batch


def save(path, pixels, sources):
    """Write an image file, which is none of the sources (resolved)."""
    if path.resolve() in sources:
        raise OSError(f"{path} is one of the inputs and would be overwritten: give another folder")
    _, encoded = cv2.imencode(path.suffix, pixels)
    write(path, encoded.tobytes())


def write(path, data):
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def main(argv=None):
    """Run the command; the exit code is 0, or 1 when something could not be read."""
    parser = argparse.ArgumentParser(description="Detect objects in images.")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images and folders of them")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help=f"for {RESULTS} and drawn images")
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"), metavar="FILE",
                        help="default: model.onnx beside this file")  # fmt: skip
    parser.add_argument("--threshold", type=float, metavar="S",
                        help="draw from this score; default: each class from its own")  # fmt: skip
    parser.add_argument("--batch", type=int, default=1, metavar="N",
                        help="detect in so many images of one size at once; default: 1")  # fmt: skip
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.error(f"--batch must be at least 1, got {args.batch}")
    try:
        detector = Detector(args.model)
    except Exception as error:  # onnxruntime raises of many kinds
        print(f"error: {args.model} cannot be used: {error}.", file=sys.stderr)
        return 1
    pairs, problems = find_images(args.inputs, args.output)
    sources, taken, results, count = {path.resolve() for path, _ in pairs}, {RESULTS, SEGMENTS}, [], 0
    images, segments = [], []
    try:
        for batch in batches(pairs, args.batch, problems):
            for (path, name, pixels), found in zip(batch, detector([pixels for _, _, pixels in batch])):
                count += 1
                height, width = pixels.shape[:2]
                where = {"file_name": str(path), "image_id": count}
                results += [{**where, **entry} for entry in to_coco(found, detector.classes, height, width)]
                target = drawn_name(name, taken)
                pngs, infos = {}, None
                if "sem_seg" in found:
                    pngs, infos, regions = describe(found, detector)
                    drawn = draw_regions(pixels, regions)
                else:
                    drawn = draw(pixels, found, detector.classes, args.threshold)
                save(args.output / target, drawn, sources)
                names = {folder: drawn_name(Path(folder, target).with_suffix(".png"), taken) for folder in pngs}
                for folder, values in pngs.items():
                    save(args.output / names[folder], values, sources)
                if infos is not None:
                    images.append({"id": count, "file_name": str(path), "height": height, "width": width})
                    inside = names["panoptic"].relative_to("panoptic").as_posix()
                    segments.append({"image_id": count, "file_name": inside, "segments_info": infos})
        if images:
            # The first class of pixels is that of all objects.
            kinds = [(each, True) for each in detector.classes] + [(each, False) for each in detector.pixel_classes[1:]]
            categories = [{"id": each["id"], "name": each["name"], "isthing": int(thing)} for each, thing in kinds]
            document = {"images": images, "annotations": segments, "categories": categories}
            write(args.output / SEGMENTS, json.dumps(document).encode())
        write(args.output / RESULTS, ("[" + ",".join("\n" + json.dumps(r) for r in results) + "\n]\n").encode())
    except OSError as error:
        print(f"error: {error}.", file=sys.stderr)
        return 1
    print(f"{len(results)} detections in {count} images: {args.output / RESULTS}, and what was drawn beside it.")
    if problems:
        print(f"error: {' '.join(problems)}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
