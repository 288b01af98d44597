"""Export to ONNX with the arguments of `yolo export`, and verify the file against PyTorch.

    python export.py model=runs/detect/train/weights/best.pt
    python export.py model=best.pt imgsz=480,640
    python export.py model=best.pt dynamic=True image=photo.jpg

Does what `ghost-yolo verify` does: a file that differs is not written. The exit status is 1 if a box differs by more than 0.05 pixels or a score by more than
0.001.
"""

import sys

import ghost_yolo
from ghost_yolo.cli.process import run_program
from ghost_yolo.errors import UserError


def main(pairs: list[str]) -> int:
    """Export, print the largest differences and return the exit status."""
    if not {"-h", "--help"}.isdisjoint(pairs):
        print(__doc__)
        return 0
    ghost_yolo.register()
    from ghost_yolo.export.verify import export_and_verify, parse_arguments

    arguments = parse_arguments(pairs)
    if "model" not in arguments:
        raise UserError("give model=FILE")
    verification = export_and_verify(str(arguments.pop("model")), **arguments)
    print(verification)
    return 0 if verification.passed else 1


if __name__ == "__main__":
    run_program("export.py", lambda: main(sys.argv[1:]))
