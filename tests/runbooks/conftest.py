"""The stage of the exercises: one stack with Airflow and the fast alert rules for all of them.

`--record` writes what each exercise showed into record.json and leaves out what was green on this code already, so that
a run that broke off goes on where it was. `OFFLOAD_KEEP_STAGE` names a home whose servers are left running.
After a red test the next one gets a new stage.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from local.runbooks import record
from local.runbooks.stage import Stage, environment, staged
from local.stack import Stack

PORT_BASE = "29300"
MARK = "a-stage-of-the-runbooks"
RED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="record each exercise; leave out what is recorded as green")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--record", default=False):
        return
    done = [item for item in items if (mark := item.get_closest_marker("exercise")) and record.done(*mark.args)]
    # as long as all exercises together; make test-all runs them
    done += [item for item in items if item.get_closest_marker("needed")]
    if done:
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item not in done]


class Stages:
    """One stage for all tests, and a new one after a test that was red: what that one left ill is not to make the next
    one red too. The red one's stage is left as it is until then, so that a kept one can be looked at.
    """

    def __init__(self, home: Path, *, keep: bool, say: Callable[[str], None]) -> None:
        self._home, self._keep, self._say = home, keep, say
        self._red = home / "red"
        self._running = ExitStack()
        self._stage: Stage | None = None

    def ready(self) -> Stage:
        """The running stage, or a new one. Raises what a start of the stack raises."""
        if self._red.exists():
            self._anew()
        if self._stage is None:
            try:
                self._stage = self._running.enter_context(staged(keep=self._keep))
            except BaseException:
                self.red("its start")
                raise
        return self._stage

    def red(self, name: str) -> None:
        """The last test was red."""
        if self._home.exists():
            self._red.write_text(f"{name}\n", encoding="utf-8")

    def close(self) -> None:
        self._running.close()
        if not self._keep:
            # a folder that was made for this session
            shutil.rmtree(self._home, ignore_errors=True)

    def _anew(self) -> None:
        self._say(f"a new stage: {self._red.read_text(encoding='utf-8').strip()} was red")
        self._running.close()
        self._stage = None
        stack = Stack()
        stack.stop()
        # what the stack made and nothing else: a home that was named may hold more
        stack.purge()
        shutil.rmtree(self._home / "tables", ignore_errors=True)
        self._red.unlink(missing_ok=True)


def a_stage_s(home: Path) -> Path:
    """The same folder, marked. After a red test the servers' data in it is removed: it must be no demo's home.

    Raises UsageError for a folder that holds something and was never marked.
    """
    mark = home / MARK
    if home.exists() and any(home.iterdir()) and not mark.exists():
        raise pytest.UsageError(f"OFFLOAD_KEEP_STAGE={home} is not a stage's home: name a folder that is empty or new")
    home.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return home


@pytest.fixture(scope="module")
def stages(request: pytest.FixtureRequest) -> Iterator[Stages]:
    kept = os.environ.get("OFFLOAD_KEEP_STAGE")
    home = a_stage_s(Path(kept or tempfile.mkdtemp(prefix="offload-runbooks-")))
    with pytest.MonkeyPatch.context() as env:
        for name in [n for n in os.environ if n.startswith(("OFFLOAD_", "AIRFLOW", "PYICEBERG_"))]:
            if name != "OFFLOAD_RUNBOOK_PORT_BASE":
                env.delenv(name)
        env.setenv("OFFLOAD_PORT_BASE", os.environ.get("OFFLOAD_RUNBOOK_PORT_BASE", PORT_BASE))
        for name, value in environment(home).items():
            env.setenv(name, value)
        writer = request.config.get_terminal_writer()
        found = Stages(home, keep=bool(kept), say=lambda text: writer.line(f"\n{text}"))
        try:
            yield found
        finally:
            found.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[RED] = True
    return report


@pytest.fixture
def stage(stages: Stages, request: pytest.FixtureRequest) -> Iterator[Stage]:
    yield stages.ready()
    if request.node.stash.get(RED, False):
        stages.red(request.node.name)
