"""A trained model in, the same model with light blocks out, each fitted to the block that it replaces, without labels."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ghost_yolo.ghostify.config import Settings
    from ghost_yolo.ghostify.pipeline import ghostify

__all__ = ["Settings", "ghostify"]


def __getattr__(name: str) -> object:
    """Load the function, and torch with it, when it is first asked for: the command line lists its commands without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ghost_yolo.ghostify import config, pipeline

    return getattr(config if name == "Settings" else pipeline, name)
