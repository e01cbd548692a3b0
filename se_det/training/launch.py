"""Starting a run: in this process, in one process per GPU, on several machines, or under torchrun."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from .. import errors
from ..allocator import keep_freed_memory
from ..device import count_devices
from ..errors import ConfigError, SeDetError, TrainingError
from ..internals.group_store import is_first
from ..plugins import load_plugins, plugin_files
from .preemption import ENDED, ERRORS, forward_signals, stop_error
from .torchrun import UNSET, TorchrunEnvironment, log_while_waiting, torchrun_environment

# The others wait this long while the first process evaluates.
TIMEOUT = datetime.timedelta(hours=1)
BACKENDS = {"cuda": "nccl", "xpu": "xccl"}  # of what gradients travel by

logger = logging.getLogger(__name__)


def launch(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    *,
    num_gpus: int | None = None,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str = "cuda",
) -> None:
    """Call `function(*args)` in every process of a run and wait for all of them.

    Under torchrun, which starts the processes, the process group is joined as its environment says. Else one process
    is started for each GPU asked for (one on the CPU), and where that makes one in all it is this one.

    Args:
        function: importable by name, as the processes are spawned.
        num_gpus: per machine; None or 0 is one process.
        num_machines: how many machines work together.
        machine_rank: which of them this is, from 0.
        dist_url: `tcp://<address of machine 0>:<free port>`; "auto" finds a port and is for one machine.
        device: of the config: "cpu" never uses a GPU.

    Raises:
        ConfigError: more GPUs than there are, or numbers that do not fit together.
        SeDetError: what any of the processes was refused with, once; the other processes are ended.
    """
    environment = torchrun_environment()
    if environment is not None:
        _run_under_torchrun(function, args, device, environment)
        return
    present = count_devices(device)
    if num_gpus and num_gpus > present:
        raise ConfigError(
            f"--num-gpus is {num_gpus}, and there {'is' if present == 1 else 'are'} {present or 'no'} "
            f"GPU{'s' if present != 1 else ''} here{' (MODEL.DEVICE is cpu)' if device == 'cpu' else ''}: "
            f"give at most {present}."
        )
    if num_gpus is not None and num_gpus < 0:
        raise ConfigError(f"--num-gpus must not be negative, got {num_gpus}.")
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--machine-rank must be between 0 and {num_machines - 1} with --num-machines {num_machines}, got "
            f"{machine_rank}."
        )
    if num_machines > 1 and dist_url == "auto":
        raise ConfigError(
            "With several machines --dist-url must be the same address on all of them: tcp://<address of machine "
            "0>:<free port>."
        )
    per_machine = max(num_gpus or 0, 1)
    if per_machine * num_machines == 1:
        function(*args)
        return
    url = f"tcp://127.0.0.1:{free_port()}" if dist_url == "auto" else dist_url
    spawn(function, args, processes=per_machine, first=machine_rank * per_machine, world=num_machines * per_machine,
          url=url, device=device)  # fmt: skip


def spawn(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    processes: int,
    url: str,
    first: int = 0,
    world: int | None = None,
    device: str = "cpu",
) -> None:
    """Start `processes` processes here, ranks from `first` out of `world`, and wait for them.

    Raises:
        SeDetError: the first one that any of them was refused with; the others are ended.
        TrainingError: one of them was killed; or all were ended by a signal.
        torch.multiprocessing.ProcessRaisedException: one of them failed with another error; has its traceback.
    """
    # One for each process: it ends with its process, and none waits for another's.
    pipes = [mp.get_context("spawn").Pipe(duplex=False) for _ in range(processes)]
    receivers, senders = ([pipe[end] for pipe in pipes] for end in (0, 1))
    failures: list[tuple[str, str]] = []
    job = (function, tuple(args), first, processes, world or processes, url, device, senders, plugin_files())
    try:
        context = mp.start_processes(_child_main, job, nprocs=processes, join=False, start_method="spawn")
        for end in senders:
            end.close()
        with forward_signals(context.pids()) as came:  # each saves what it has to and leaves
            finished = False
            while not finished:
                # Sentinels of those not joined yet: some may have ended by now, and return. A process whose sentence
                # is longer than a pipe holds does not end before it is heard.
                ready = wait([*context.sentinels, *receivers])
                failures += _receive(receivers, ready)
                if not set(ready).isdisjoint(context.sentinels):
                    codes = [process.exitcode for process in context.processes]  # before `join` ends the others
                    finished = context.join()
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
        failures += _receive(receivers, wait(receivers, 0))
        if failures:
            name, message = failures[0]
            kind = getattr(errors, name, SeDetError)
            if came and kind in ERRORS.values():  # of the signal that came here, not of the one passed on
                raise stop_error(came[0], message.partition(ENDED)[2]) from None
            raise kind(message) from None
        if came:
            raise stop_error(came[0], "before its first step.") from None
        killed = _killed(codes, error)
        if killed is None:
            raise
        index, how = killed
        hint = (
            " SIGKILL mostly means that the machine's memory was full: lower SOLVER.IMS_PER_BATCH or "
            "DATALOADER.NUM_WORKERS."
        )
        raise TrainingError(
            f"Process {first + index} {how}, and the others were ended.{hint if 'SIGKILL' in how else ''}"
        ) from None


def _receive(receivers: list[Connection], ready: Sequence[object]) -> list[tuple[str, str]]:
    """What those of `receivers` that are `ready` say, which is once, if at all; they are then closed and removed."""
    told = []
    for end in [end for end in receivers if end in ready]:
        with suppress(EOFError, OSError):  # it ended without a word, or in the middle of one
            told.append(end.recv())
        end.close()
        receivers.remove(end)
    return told


def _killed(codes: Sequence[int | None], error: Exception) -> tuple[int, str] | None:
    """Which process died without a word, and how; the others fail in consequence, and may be seen to do so first."""
    for index, code in enumerate(codes):
        if code is not None and code < 0:
            return index, f"was ended by {signal.Signals(-code).name}"
    if isinstance(error, mp.ProcessExitedException):
        how = f"was ended by {error.signal_name}" if error.signal_name else f"ended with code {error.exit_code}"
        return error.error_index, how
    return None


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _child_main(
    local_rank: int, function: Callable, args: tuple, first: int, here: int, world: int, url: str, device: str,
    senders: Sequence[Connection], plugins: Sequence[str],
) -> None:  # fmt: skip
    own = senders[local_rank]
    for end in senders:
        if end is not own:
            end.close()
    try:
        os.environ["LOCAL_RANK"] = str(local_rank)
        os.environ["LOCAL_WORLD_SIZE"] = str(here)
        keep_freed_memory()
        load_plugins(plugins)
        with log_while_waiting(first + local_rank, world, url):
            _init_process_group(device, local_rank, init_method=url, rank=first + local_rank, world_size=world)
        function(*args)
    except SeDetError as error:
        own.send((type(error).__name__, str(error)))
        # The others may wait for this process; it takes no part in anything any more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    dist.destroy_process_group()


def _run_under_torchrun(function: Callable, args: Sequence[Any], device: str, environment: TorchrunEnvironment) -> None:
    local_rank = environment.local_rank
    present = count_devices(device)
    if present and local_rank >= present:
        raise ConfigError(
            f"torchrun started {os.environ.get('LOCAL_WORLD_SIZE', 'more')} processes here, and there are {present} "
            f"GPUs: give --nproc-per-node {present}, or MODEL.DEVICE cpu."
        )
    with log_while_waiting(environment.rank, environment.world_size, environment.address, UNSET):
        _init_process_group(device, local_rank)
    try:
        function(*args)
    except SeDetError as error:
        # All may have been refused alike, or only this one: the first to say so prints, the others leave quietly.
        if not is_first():
            raise SystemExit(error.exit_code) from None
        raise
    dist.destroy_process_group()


def _init_process_group(device: str, local_rank: int, **how: Any) -> None:
    """Enter the process group. Small objects travel by gloo, also where gradients travel by nccl."""
    kind = device.partition(":")[0]
    if kind in BACKENDS and count_devices(device):
        getattr(torch, kind).set_device(local_rank)
        dist.init_process_group(f"cpu:gloo,{kind}:{BACKENDS[kind]}", timeout=TIMEOUT, **how)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT, **how)
