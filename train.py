"""Train with the arguments of `yolo train`, where the blocks are not registered automatically.

    python train.py model=cfg/yolov8s-ghost.yaml data=datasets/smear.yaml epochs=25 imgsz=192
    python train.py model=cfg/yolov8n-ghostv2.yaml data=datasets/bccd.yaml epochs=60 imgsz=320
    python train.py model=runs/detect/train/weights/last.pt resume=True
    python train.py model=light.pt distill_model=best.pt data=datasets/bccd.yaml epochs=10 imgsz=320

Everything after `train.py` goes to Ultralytics unchanged (`pretrained=`, `distill_model=`, `device=` ...).
"""

import sys

from ghost_yolo.cli.process import run_program
from ghost_yolo.errors import UserError
from ghost_yolo.model.catalog import resolve


def main(arguments: list[str]) -> None:
    """Register the blocks and hand over to Ultralytics' own command line."""
    if not {"-h", "--help"}.isdisjoint(arguments):
        print(__doc__)
        return
    models = [argument.removeprefix("model=") for argument in arguments if argument.startswith("model=")]
    if not models:
        raise UserError("give model=FILE, as in the examples at the top of this file")
    sys.argv = ["yolo", "train", *arguments]  # Ultralytics reads its arguments when it is imported
    import ghost_yolo

    if models[0].endswith((".yaml", ".yml")):
        resolve(models[0])  # a YAML must exist and say its scale

    ghost_yolo.register()
    from ultralytics.cfg import entrypoint

    entrypoint()


if __name__ == "__main__":
    run_program("train.py", lambda: main(sys.argv[1:]))
