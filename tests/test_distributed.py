"""Several processes and threads: two ranks train one step alike, workers of every start method build, threads register."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import Run, write_shapes

from ghost_yolo import host
from ghost_yolo.model.catalog import path_of

WRITE = f"""
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file
overrides = dict(model={str(path_of("yolov8n-ghost"))!r}, data="none.yaml", epochs=1, device="cpu")
trainer = DetectionTrainer.__new__(DetectionTrainer)
trainer.args, trainer.model, trainer.callbacks, trainer.hub_session = get_cfg(overrides=overrides), overrides["model"], {{}}, None
print(generate_ddp_file(trainer))
"""
STEP = """
import os
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

def patched():
    from ultralytics.engine.trainer import BaseTrainer
    BaseTrainer.get_dataset = lambda self: {"nc": 3, "channels": 3, "names": {0: "a", 1: "b", 2: "c"}}

def step(trainer):
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method="file://" + os.path.abspath("meeting"), rank=rank, world_size=2)
    torch.manual_seed(rank)  # other weights and another batch on each rank: only DDP makes them equal
    model = trainer.get_model(trainer.args.model, verbose=False).train()
    model.args = trainer.args
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    parallel = DistributedDataParallel(model, find_unused_parameters=True)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    batch = {"img": torch.rand(2, 3, 64, 64), "cls": torch.zeros(1, 1), "bboxes": boxes, "batch_idx": torch.zeros(1)}
    loss, _ = parallel(batch)
    loss.sum().backward()
    torch.optim.SGD(parallel.parameters(), 0.1).step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    both, first = ([torch.empty_like(after) for _ in range(2)] for _ in range(2))
    dist.all_gather(both, after)
    dist.all_gather(first, before)
    assert any(type(m).__module__.startswith("ghost_yolo.") for m in model.modules())
    assert torch.equal(*both) and not torch.equal(*first) and not torch.equal(after, first[0]) and after.isfinite().all()
"""
RANKS = """
import multiprocessing, os, runpy, sys
sys.path.insert(0, os.getcwd())
def rank(number):
    os.environ |= {{"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}}
    runpy.run_path({file!r}, run_name="__main__")
context = multiprocessing.get_context("fork")
pair = [context.Process(target=rank, args=(number,)) for number in range(2)]
for process in pair: process.start()
for process in pair: process.join(300)
assert [process.exitcode for process in pair] == [0, 0]
"""
THREADS = f"""
import faulthandler, threading
faulthandler.dump_traceback_later(120, exit=True)
import ultralytics.nn.tasks as tasks
from ghost_yolo.host import register
from pathlib import Path
config = tasks.yaml_model_load({str(path_of("yolov8n-ghost"))!r})
start, counts = threading.Barrier(8), []
def work():
    start.wait()
    for _ in range(2):
        register()
        model = tasks.DetectionModel(dict(config), verbose=False)
        counts.append(sum(p.numel() for p in model.parameters()))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(counts) == 16 and len(set(counts)) == 1, counts
"""
TUNE = """
import os, tempfile
import ray
from ray import tune
from ultralytics import YOLO
model, data, project = {arguments!r}
with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a socket's path must be short
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, _temp_dir=folder)
    found = YOLO(model).tune(
        use_ray=True, iterations=2, search_alg="random", space={{"lr0": tune.uniform(1e-3, 1e-2)}},
        data=data, project=project, epochs=1, imgsz=64, batch=2, workers=0, device="cpu", plots=False,
    )
assert not found.errors, found.errors
assert len({{trial.config["lr0"] for trial in found}}) == 2
assert all("metrics/mAP50-95(B)" in trial.metrics for trial in found)
"""
WORKER = """
import multiprocessing
def child(model):
    from ultralytics.nn.tasks import DetectionModel
    DetectionModel(model.yaml, verbose=False)
if __name__ == "__main__":
    from ultralytics import YOLO
    model = YOLO({yaml!r}).model
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        pool.apply(child, (model,))
"""


@pytest.mark.slow
def test_two_ranks_train_alike(run: Run, tmp_path: Path) -> None:
    """The file that the host writes for its children trains a model of ours by DistributedDataParallel over gloo."""
    pytest.importorskip("cloudpickle")
    file = Path(run("python", "-c", WRITE).stdout.split()[-1])
    child = file.read_text().replace("trainer.train()", "from ghost_step import step; step(trainer)")
    file.write_text(child.replace("    trainer = ", "    from ghost_step import patched; patched()\n    trainer = "))
    (tmp_path / "ghost_step.py").write_text(STEP)
    run("python", "-c", RANKS.format(file=str(file)))


def test_threads_build_while_registering(python: Run) -> None:
    """Eight threads that register and build at once get the same model."""
    python(THREADS, GHOST_YOLO_AUTOLOAD="0")


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["spawn", *(pytest.param(it, marks=pytest.mark.weekly) for it in ("fork", "forkserver"))]
)
def test_workers_of_every_start_method(method: str, run: Run, tmp_path: Path) -> None:
    """A worker that is handed a model of ours builds another one, however it was started."""
    (tmp_path / "work.py").write_text(WORKER.format(yaml=str(path_of("yolov8n-gghost")), method=method))
    run("python", str(tmp_path / "work.py"), fresh=True)


@pytest.mark.slow
def test_ray_tune(run: Run, tmp_path: Path) -> None:
    """Two trials of the host's `tune` with Ray train a model of ours, each in a process of its own."""
    pytest.importorskip("ray.tune", reason='to run it: pip install -e ".[ray]" && pytest -m slow -k ray')
    data = write_shapes(tmp_path, "segment")  # its polygons are read as boxes
    arguments = (str(path_of("yolov8n-ghost")), str(data), str(tmp_path / "tuned"))
    run("python", "-c", TUNE.format(arguments=arguments), RAY_USAGE_STATS_ENABLED="0", fresh=True)
    trained = [host.load(file) for file in sorted((tmp_path / "tuned").rglob("last.pt"))]

    assert len(trained) == 2
    assert all(any(type(m).__module__.startswith("ghost_yolo.") for m in model.modules()) for model in trained)
