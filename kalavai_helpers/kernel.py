"""The kernel that runs a chapter: this interpreter, a known environment, every cell announced."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from papermill.engines import NBClientEngine, papermill_engines

from kalavai_helpers import artifacts, chapters
from kalavai_helpers.monitor import Monitor

ENGINE = "kalavai"

KERNEL_ENVIRONMENT = {
    "KALAVAI_BOOK": "1",  # figures use the book's own renderer
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # notebook bars are widgets, which stall without a person
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    # Waiting threads sleep instead of spinning: where cores are shared, spinning made a small
    # model three times slower; on a quiet machine sleeping costs under a tenth.
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc gives large buffers back to the system after each step and faults them in again;
    # keeping them makes small models on a CPU markedly faster.
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}


class Engine(NBClientEngine):
    """papermill's own engine, which also tells a monitor which cell starts."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, *, monitor: Monitor, **options):
        inner = nb_man.cell_start

        def cell_start(cell, cell_index=None, **kwargs):
            monitor.cell_started(cell)
            return inner(cell, cell_index, **kwargs)

        nb_man.cell_start = cell_start
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register(ENGINE, Engine)


@contextlib.contextmanager
def environment(
    root: Path, chapter: str, records: Path, status: Path, needs_hub: bool
) -> Iterator[None]:
    """Set what a kernel inherits, for as long as the chapter runs.

    Parameters
    ----------
    root
        Project folder.
    chapter
        Name of the chapter.
    records, status
        Folders for its records and for the progress of its tasks.
    needs_hub
        Whether it may use the network to fetch models or text.
    """
    before = dict(os.environ)
    jupyter = root / "_build" / "jupyter"
    _write_kernelspec(jupyter)
    package = chapters.package_folder(root).parent
    os.environ |= KERNEL_ENVIRONMENT
    os.environ |= {
        "KALAVAI_CHAPTER": chapter,
        "KALAVAI_PROGRESS": str(status),
        "KALAVAI_RECORDS": str(records),
        "JUPYTER_PATH": os.pathsep.join(filter(None, (str(jupyter), before.get("JUPYTER_PATH")))),
        # A reader's own IPython start-up files must not change a chapter.
        "IPYTHONDIR": str(root / "_build" / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(package), before.get("PYTHONPATH")))),
    }
    if before.get("KALAVAI_STORE"):
        os.environ["KALAVAI_STORE"] = str(Path(before["KALAVAI_STORE"]).resolve())
    if not needs_hub:
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _write_kernelspec(jupyter: Path) -> None:
    """Make `python3` mean this interpreter, whatever kernels the machine has registered."""
    # Errors only: the kernel warns at every start that its local sockets are not encrypted.
    quiet = "--IPKernelApp.log_level=40"
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", quiet],
        "display_name": "Python 3",
        "language": "python",
    }
    artifacts.write_json(jupyter / "kernels" / "python3" / "kernel.json", spec)
