"""Export to ONNX with the words of `yolo export`, and prove the file against PyTorch.

    python export.py model=runs/detect/train/weights/best.pt
    python export.py model=best.pt imgsz=480,640
    python export.py model=best.pt dynamic=True image=photo.jpg

Exits with 1 where a box differs by more than 0.05 pixels or a score by more than 0.001.
"""

import sys

import ghost_yolo
from ghost_yolo.errors import UserError


def main(words: list[str]) -> int:
    """Export, print the largest differences and return the exit status."""
    ghost_yolo.register()
    from ultralytics.cfg import parse_key_value_pair

    from ghost_yolo.export.verify import BOX_TOLERANCE, SCORE_TOLERANCE, export

    try:
        arguments = dict(parse_key_value_pair(word) for word in words)
        model = str(arguments.pop("model"))
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"give model=FILE and other words as key=value, not {' '.join(words)!r}") from error
    try:
        file, proofs = export(model, **arguments)
    except (SyntaxError, FileNotFoundError) as error:  # what the host says of an unknown word or a missing file
        raise UserError(str(error).strip().splitlines()[0]) from error
    for proof in proofs:
        height, width = proof.size
        print(
            f"{'ok  ' if proof.holds else 'FAIL'} {height}x{width} {proof.image:10} "
            f"boxes {proof.boxes:.2g} px (at most {BOX_TOLERANCE}), scores {proof.scores:.2g} (at most {SCORE_TOLERANCE})"
        )
    print(f"{file}: {'proved' if all(proof.holds for proof in proofs) else 'NOT equal to PyTorch'}")
    return 0 if all(proof.holds for proof in proofs) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"export.py: {error}")
