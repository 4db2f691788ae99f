"""Processor time of importing the API, over that of importing its libraries alone.

    python -m benchmarks.api_start [--rounds 5]

Each import is a fresh Python, in turns, so that a change of the machine's speed meets both. What is
above 1.0 is our own code; the libraries are the limit below which no start can be.
"""

import argparse
import statistics
import subprocess
import sys

SUBJECTS = {
    "services.api.app": "services.api.app",
    "its libraries": "fastapi, httpx, psycopg, pydantic_settings, sqlalchemy.orm, ulid",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for modules in SUBJECTS.values():
        processor_seconds(modules)  # compiles the bytecode
    seconds: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    for _ in range(rounds):
        for name, modules in SUBJECTS.items():
            seconds[name].append(processor_seconds(modules))
    for name, values in seconds.items():
        print(f"{name:20} {statistics.median(values):.2f} s (greatest {max(values):.2f} s)")
    ours, libraries = (statistics.median(values) for values in seconds.values())
    print(f"ratio {ours / libraries:.2f}")


def processor_seconds(modules: str) -> float:
    """Return the processor time of a Python that imports ``modules``, its own start included."""
    program = f"import time, {modules}; print(time.process_time())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
