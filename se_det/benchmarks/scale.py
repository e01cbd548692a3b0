"""A hundred million images, and a training on COCO, on more GPUs than are at hand: a simulation from measured parts.

Nothing is measured here: what a part takes is an argument, with its source beside it; the rest follows. docs/scale.md
has the tables that this prints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GPUS = (1, 8, 64)
MEGA = 1e6


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine of the kind that clouds rent by the hour. All of it is assumed."""

    gpus: int = 8
    cores_per_gpu: int = 12
    network: float = 25e9 / 8  # bytes/s, to the storage and to other machines
    link: float = 50e9  # bytes/s between GPUs of a machine
    price: float = 2.5  # dollars for a GPU and an hour
    hours_between_kills: float = 2000.0  # of one GPU
    restart: float = 300.0  # seconds until a killed process is at work again


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A call of `se-det predict` on a collection of shards.

    Measured on a core of an AMD EPYC, COCO's images at 800 px: `decode`, `resize`, `encode`, `image_bytes`, `row_bytes`
    (10 boxes an image) and `plan`. Assumed: the network's rate, which Detectron2 publishes for Faster R-CNN R50-FPN on
    a V100 (0.038 s an image), and how much speeds vary.
    """

    images: int = 100_000_000
    shard: int = 10_000  # images
    part: int = 500  # images
    rate: float = 1 / 0.038  # images/s
    decode: float = 3.7e-3  # seconds of a core
    resize: float = 12.2e-3
    encode: float = 0.2e-3
    image_bytes: float = 154e3
    row_bytes: float = 1.5e3
    plan: float = 0.8e-6  # seconds for a line of a list, at each start
    line_bytes: float = 35.0
    requests: float = 5500.0  # files/s that a bucket gives out, of one prefix: what S3 promises
    between_gpus: float = 0.03  # standard deviation of speeds
    between_shards: float = 0.05

    @property
    def cpu(self) -> float:
        """Seconds of a core for an image."""
        return self.decode + self.resize + self.encode


@dataclass(frozen=True)
class PredictionEstimate:
    """What came of a simulated prediction."""

    gpus: int
    hours: float
    images_per_second: float
    read: float  # bytes/s, all together
    cores: float  # in use for each GPU
    idle: float  # share of the GPUs' time in which they wait for the last one
    kills: int
    again: int  # images that were done again after kills
    dollars: float


def predict(job: Prediction, machine: Machine, gpus: int, *, seed: int = 0) -> PredictionEstimate:
    """Simulate: each process does every `gpus`-th shard; some are slower, some are killed and lose a part."""
    random = np.random.default_rng(seed)
    here = min(gpus, machine.gpus)
    rate = min(job.rate, machine.cores_per_gpu / job.cpu, machine.network / here / job.image_bytes)
    shards = -(-job.images // job.shard)
    seconds = job.shard / rate * random.lognormal(0, job.between_shards, shards)
    speeds = random.normal(1, job.between_gpus, gpus).clip(0.5)
    busy = np.bincount(np.arange(shards) % gpus, seconds, gpus) / speeds
    killed = random.poisson(busy / 3600 / machine.hours_between_kills)
    again = np.array([random.integers(0, job.part, count).sum() for count in killed])
    total = busy + killed * machine.restart + again / rate
    hours = total.max() / 3600
    done = job.images / total.max()
    return PredictionEstimate(
        gpus=gpus,
        hours=hours,
        images_per_second=done,
        read=done * job.image_bytes,
        cores=rate * job.cpu,
        idle=1 - total.mean() / total.max(),
        kills=int(killed.sum()),
        again=int(again.sum()),
        dollars=hours * gpus * machine.price,
    )


def prediction_limits(job: Prediction, machine: Machine) -> list[tuple[str, str, str]]:
    """What ends the growth in GPUs, the first first, then what ends that in the speed of one: (resource, from where,
    how that is counted)."""
    start = job.plan * job.images + job.images * job.line_bytes * machine.gpus / machine.network
    hours = job.images / job.rate / 3600
    growing = [
        (
            "a bucket's files a second, when a list names images one by one",
            job.requests / job.rate,
            f"{job.requests:,.0f} files a second / {job.rate:.1f} images a second",
        ),
        (
            "shares of whole shards: a process has fewer than 20",
            job.images / job.shard / 20,
            f"{job.images // job.shard:,} shards of {job.shard:,} images",
        ),
        (
            "reading a list of all images at each start takes 5 % of the time",
            0.05 * hours * 3600 / start,
            f"{start:.0f} s at each start; {hours:,.0f} GPU hours",
        ),
    ]
    faster = [
        (
            "CPU cores that decode",
            machine.cores_per_gpu / job.cpu,
            f"{job.cpu * 1e3:.1f} ms of {machine.cores_per_gpu}",
        ),
        (
            "a machine's network",
            machine.network / machine.gpus / job.image_bytes,
            f"{machine.network / MEGA:,.0f} MB/s for {machine.gpus} GPUs",
        ),
    ]
    return [
        *((what, f"{gpus:,.0f} GPUs", how) for what, gpus, how in sorted(growing, key=lambda limit: limit[1])),
        *((what, f"{rate:,.0f} images/s a GPU", how) for what, rate, how in sorted(faster, key=lambda limit: limit[1])),
    ]


@dataclass(frozen=True, kw_only=True)
class Training:
    """COCO's 3x schedule: 270,000 steps of 16 images.

    Detectron2 publishes 0.209 s for a step of 2 images on each of 8 V100 (Faster R-CNN R50-FPN), which `image` and
    `step` share out by assumption. `cpu` is measured as in `Prediction`; the parameters are counted.
    """

    images: int = 270_000 * 16
    batch: int = 16
    image: float = 0.085  # seconds of a GPU for an image, forward and backward
    step: float = 0.012  # seconds for what does not depend on the images
    variation: float = 0.12  # of an image's time: sizes and objects differ
    parameters: int = 41_700_000
    overlap: float = 0.7  # of the exchange of gradients that the backward pass hides
    checkpoint: int = 5_000  # steps from one to the next
    evaluations: int = 3
    evaluation: float = 5_000 / 26.3 + 60  # seconds on one GPU, of which 60 are not shared
    cpu: float = 16e-3  # seconds of a core for an image
    image_bytes: float = 154e3
    simulated: int = 4_000  # steps


@dataclass(frozen=True)
class TrainingEstimate:
    """What came of a simulated training."""

    gpus: int
    batch: int
    steps: int
    step: float  # seconds
    waiting: float  # share of a step in which the GPUs wait for the slowest
    exchange: float  # share of a step that the exchange of gradients adds
    hours: float
    images_per_second: float
    read: float  # bytes/s
    dollars: float


def train(job: Training, machine: Machine, gpus: int, *, seed: int = 0) -> TrainingEstimate:
    """Simulate: a step waits for the slowest GPU, gradients go around a ring, kills cost half a period."""
    random = np.random.default_rng(seed)
    batch = max(job.batch, gpus)  # an image for each GPU at least, with the learning rate scaled
    each, steps = batch // gpus, -(-job.images // batch)
    times = job.image * random.lognormal(0, job.variation, (job.simulated, gpus, each)).sum(2)
    slowest, mean = times.max(1).mean(), times.mean()
    across = gpus > machine.gpus
    speed = machine.network if across else machine.link
    ring = 2 * (gpus - 1) / gpus * job.parameters * 4 / speed
    exchange = ring * (1 - job.overlap)
    step = slowest + job.step + exchange
    evaluation = job.evaluations * ((job.evaluation - 60) / gpus + 60)
    seconds = steps * step + evaluation
    kills = seconds / 3600 * gpus / machine.hours_between_kills
    seconds += kills * (machine.restart + job.checkpoint * step / 2)
    return TrainingEstimate(
        gpus=gpus,
        batch=batch,
        steps=steps,
        step=step,
        waiting=(slowest - mean) / step,
        exchange=exchange / step,
        hours=seconds / 3600,
        images_per_second=batch / step,
        read=batch / step * job.image_bytes,
        dollars=seconds / 3600 * gpus * machine.price,
    )


def tables() -> str:
    """The tables of docs/scale.md, as Markdown."""
    job, machine, training = Prediction(), Machine(), Training()
    lines = [
        "| GPUs | time | images/s | read | cores a GPU | waiting for the last | kills, images again | cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in (predict(job, machine, gpus) for gpus in GPUS):
        lines.append(
            f"| {found.gpus} | {_time(found.hours)} | {found.images_per_second:,.0f} | {found.read / MEGA:,.0f} MB/s | "
            f"{found.cores:.2f} | {found.idle:.1%} | {found.kills}, {found.again:,} | {found.dollars:,.0f} $ |"
        )
    lines += ["", "| what becomes too little | from | as |", "|---|---|---|"]
    lines += [f"| {what} | {where} | {how} |" for what, where, how in prediction_limits(job, machine)]
    lines += [
        "",
        "| GPUs | images a step | steps | a step | slowest GPU | gradients | time | images/s | read | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in (train(training, machine, gpus) for gpus in GPUS):
        lines.append(
            f"| {found.gpus} | {found.batch} | {found.steps:,} | {found.step:.3f} s | {found.waiting:.1%} | "
            f"{found.exchange:.1%} | {_time(found.hours)} | {found.images_per_second:,.0f} | "
            f"{found.read / MEGA:,.1f} MB/s | {found.dollars:,.0f} $ |"
        )
    return "\n".join(lines) + "\n"


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 100 else f"{hours / 24:.1f} days"
