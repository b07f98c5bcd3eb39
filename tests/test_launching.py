import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from lora_distill.config import make_config
from lora_distill.launching import failure, launch, shared_work_first, threads_each, train_command


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_so_many_run_at_a_time_in_their_order_and_each_is_told_of_as_it_ends(tmp_path: Path) -> None:
    # The first two wait for each other, the next two likewise; each says how many are there.
    code = """
import pathlib, sys, time
folder, number = pathlib.Path({folder!r}), {number}
(folder / f"in-{{number}}").touch()
while not (folder / f"in-{{number ^ 1}}").exists():
    time.sleep(0.01)
there = len(list(folder.glob("in-*"))) - len(list(folder.glob("out-*")))
(folder / f"out-{{number}}").touch()
sys.stderr.write(f"{{there}}")
sys.exit(number)
"""
    commands = {f"task {number}": python(code.format(folder=str(tmp_path), number=number)) for number in range(4)}
    begun: list[str] = []
    ended = {name: (exit_code, said) for name, exit_code, said in launch(commands, 2, begun.append)}
    assert begun == list(commands)
    assert [ended[name][0] for name in commands] == [0, 1, 2, 3]
    assert all(int(said) <= 2 for _, said in ended.values())


def sleeper(folder: Path) -> list[str]:
    """A command that says when it has begun, and when it was interrupted."""
    return python(f"""
import pathlib, time
from lora_distill.program import stop_as_by_ctrl_c
try:
    stop_as_by_ctrl_c()
    pathlib.Path({str(folder)!r}, "begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(folder)!r}, "interrupted").touch()
""")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_what_runs_is_interrupted_where_its_launcher_is_killed(tmp_path: Path) -> None:
    def wait_for(name: str) -> None:
        deadline = time.monotonic() + 50
        while not (tmp_path / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    code = f"from lora_distill.launching import launch; list(launch({{'x': {sleeper(tmp_path)!r}}}, 1, print))"
    launcher = subprocess.Popen(python(code), stdout=subprocess.DEVNULL)
    wait_for("begun")
    launcher.kill()
    launcher.wait()
    wait_for("interrupted")


def test_what_runs_is_interrupted_and_waited_for_where_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    quick = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path)!r}, 'begun').exists(): time.sleep(0.01)"
    commands = {"slow": sleeper(tmp_path), "quick": python(quick), "never": python("open('never', 'w')")}
    with closing(launch(commands, 2, lambda _: None)) as ended:
        assert next(ended)[:2] == ("quick", 0)
    assert (tmp_path / "interrupted").exists()
    assert not Path("never").exists()


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [threads_each(jobs) for jobs in (1, 3, 20)] == [8, 2, 1]
    (_, _, said), *_ = launch(
        {"x": python("import os, sys; sys.stderr.write(os.environ['OMP_NUM_THREADS'])")}, 4, print
    )
    assert said == "2"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_each(1) == len(os.sched_getaffinity(0))


def test_why_a_command_failed() -> None:
    assert failure(2, "a warning\nerror: no such file.\nGive another.\n") == "no such file.\nGive another."
    assert failure(2, "error: an error: in words") == "an error: in words"
    assert failure(-9, "") == "its process was killed (signal 9)."
    assert failure(1, "Traceback\nKeyError: 1\n") == "its process broke (exit code 1).\nTraceback\nKeyError: 1"


def test_the_command_asks_for_what_was_named_and_no_more(tmp_path: Path) -> None:
    values = {
        "learning_rate": 1e-5,
        "target_modules": "q,v",
        "cache_limit": "5MB",
        "teacher_label_map": "a=b",
        "exp_name": "ü",
    }
    config = make_config(values, {})
    file = tmp_path / "task.yaml"
    command = train_command(config, file, resume=False, overwrite=0.0)
    assert command[-3:] == ["--quiet", "--config", str(file)]
    again = make_config(yaml.safe_load(file.read_text(encoding="utf-8")), {})
    assert (again, again.model_fields_set) == (config, config.model_fields_set)
    assert train_command(config, file, resume=True, overwrite=0.0)[-1] == "--resume"
    assert train_command(config, file, resume=True, overwrite=1.5)[-3:] == ["--overwrite", "--since", "1.5"]


def test_what_runs_reads_nothing_from_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "typed").write_text("typed")
    code = "from lora_distill.launching import launch; print(*launch({'x': ['sh', '-c', 'cat >&2']}, 1, print))"
    with (tmp_path / "typed").open() as terminal:
        done = subprocess.run(python(code), stdin=terminal, capture_output=True, text=True, check=True)
    assert done.stdout == "x\n('x', 0, '')\n"


def test_of_each_seed_runs_with_teachers_of_their_own_come_first() -> None:
    changes: dict[str, dict[str, object]] = {
        "base": {},
        "alpha": {"alpha": 0.7},
        "r32": {"teacher_lora_r": 32},
        "r4": {"student_lora_r": 4, "teacher_calibrate": True},
    }
    runs = {
        f"{name}-{seed}": make_config({**change, "seed": seed, "exp_name": f"{name}-{seed}"}, {})
        for seed in (1, 0)
        for name, change in changes.items()
    }
    one_by_one = ["base-1", "r32-1", "alpha-1", "r4-1", "base-0", "r32-0", "alpha-0", "r4-0"]
    assert shared_work_first(runs, jobs=2) == one_by_one
    # For three at a time one seed has too few teachers.
    together = ["base-1", "r32-1", "base-0", "r32-0", "alpha-1", "r4-1", "alpha-0", "r4-0"]
    assert shared_work_first(runs, jobs=3) == together
    assert shared_work_first({}, jobs=2) == []


def test_runs_of_one_teacher_a_seed_wait_for_none_and_seeds_end_in_their_order() -> None:
    runs = {
        f"{alpha}-{seed}": make_config({"alpha": alpha, "seed": seed, "exp_name": f"{alpha}-{seed}"}, {})
        for seed in range(8)
        for alpha in (0.1, 0.2, 0.3)
    }
    first, second = ([f"0.1-{seed}" for seed in half] for half in (range(4), range(4, 8)))
    rest = [[f"{alpha}-{seed}" for seed in half for alpha in (0.2, 0.3)] for half in (range(4), range(4, 8))]
    assert shared_work_first(runs, jobs=4) == [*first, *rest[0], *second, *rest[1]]
    five = {name: config for name, config in runs.items() if config.seed < 5}
    assert shared_work_first(five, jobs=4)[:5] == [f"0.1-{seed}" for seed in range(5)]
