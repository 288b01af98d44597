"""Make a trained model lighter and faster without labels: other blocks, activation or width, fitted and distilled."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ghost_yolo.ghostify.config import Delivery, Settings
    from ghost_yolo.ghostify.pipeline import ghostify

__all__ = ["Delivery", "Settings", "ghostify"]


def __getattr__(name: str) -> object:
    """Import a public name on first access, so that importing the package does not load torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ghost_yolo.ghostify import config, pipeline

    return getattr(pipeline if name == "ghostify" else config, name)
