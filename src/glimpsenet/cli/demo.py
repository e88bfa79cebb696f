"""``glimpsenet demo``: the web page."""

from pathlib import Path

from glimpsenet.cli.arguments import Device, RunFolders
from glimpsenet.cli.output import say
from glimpsenet.errors import needs_extra


def demo(
    runs: RunFolders = (),
    /,
    *,
    examples: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: Device = "auto",
) -> None:
    """Open a web page to play with runs: watch them look, move their windows, compare them.

    Args:
        runs: run folders, side by side if several; a small digit model that comes with the package if none is given.
        examples: folder of images that visitors may pick; the run's own validation images if not given and only this
            machine can ask.
        host: address to listen at; others than this machine's own let everybody in who can reach it.
        port: to listen at; 0 takes any that is free.
    """
    with needs_extra("the demo", "demo"):
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    from glimpsenet.demo.examples import choose_examples
    from glimpsenet.demo.exhibit import SHIPPED, open_exhibits
    from glimpsenet.demo.server import build_app, is_loopback, serve

    exhibits = open_exhibits(runs or (SHIPPED,), device)
    pictures = choose_examples(exhibits[0].run, examples, public=not is_loopback(host))
    serve(build_app(exhibits, pictures, host), host, port, say)
