"""Damaged and hostile files at the readers of CIFAR-10: hand-made ones, and mutations of whole ones.

Mutations come from a seeded generator, from hypothesis, and from atheris, which follows coverage; where one of these
two is not installed, the generator makes its cases as well. Each kind of case runs in a process of its own, with a
limit on time and memory, on a CIFAR-10 of 20 pictures. The expected data are read by other code than the course's.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import types
import zipfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROMISE = "Bad files: the right data, or an error with file, reason and remedy, within 2 GB and 30 seconds"
SEED = 5
SECONDS, MEMORY = 30, 2_000_000_000  # of the processor, a case; bytes resident
WAITED = 300  # seconds by the clock: on a busy machine 30 of the processor take longer, and a pipe takes none
ADDRESSES = 6_000_000_000  # bytes that a worker may ask for: three times the promise, so that the machine lives
COUNTS = {"short": {"mutations": 300, "hypothesis": 50, "atheris": 150},
          "full": {"mutations": 14_000, "hypothesis": 3_000, "atheris": 5_000}}
REMEDY = re.compile(r"\b(get|copy|download|save|replace|leave|convert|give|make|name|correct|open it|classes are)\b")


def cases(scale: str):
    wanted = dict(COUNTS[scale])
    for optional in ("hypothesis", "atheris"):
        if not importlib.util.find_spec(optional):
            wanted["mutations"] += wanted.pop(optional)
    yield from _in_process("hostile", scale, None)
    for kind, count in wanted.items():
        yield from _in_process(kind, scale, count)


def _in_process(kind: str, scale: str, count: int | None):
    """The cases of a worker. One that ends the worker counts as lost, and another worker goes on after it."""
    done, first = 0, -1
    while done != first and (count is None or done < count):
        first, current, whole = done, f"{kind}, before the first case", False
        with tempfile.TemporaryDirectory(prefix="faults ü ") as folder:
            path = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
            worker = subprocess.Popen(
                [sys.executable, __file__, kind, scale, str(first), str((count or first) - first), folder],
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path},
                text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try:
                for line in worker.stdout:
                    entry = json.loads(line)
                    if isinstance(entry, str):
                        current = entry
                    elif entry:
                        done += 1
                        yield tuple(entry)
                    whole = not entry
            finally:
                worker.kill()
                worker.stdout.close()
                code = worker.wait()
        if whole or (kind == "atheris" and code == 0):  # the fuzzer ends its process itself
            return
        done += 1
        late = code in (-signal.SIGPROF, -signal.SIGALRM)
        yield current, False, f"took over {SECONDS} s" if late else f"the process ended with {code}"


# --- what a worker does ---


def _say(entry) -> None:
    print(json.dumps(entry), flush=True)


def _work(kind: str, scale: str, first: int, count: int, folder: Path) -> None:
    _import_lean()
    import resource

    import fixtures

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    fixtures.TRAIN_PER_CLASS = fixtures.TEST_PER_CLASS = 1
    fixtures.shrink(_Patch)
    (folder / "in").mkdir()
    (folder / "away").mkdir()
    os.chdir(folder / "away")
    {"hostile": _hostile, "mutations": _mutations, "hypothesis": _hypothesis, "atheris": _atheris}[kind](
        folder / "in", scale, first, count)
    _say(None)


def _import_lean() -> None:
    """The readers without the package around them: it imports TensorFlow, whose memory and seconds are not theirs."""
    if "cifar_helpers" not in sys.modules:
        package = types.ModuleType("cifar_helpers")
        package.__path__ = [str(ROOT / "cifar_helpers")]
        sys.modules["cifar_helpers"] = package


class _Patch:
    """What pytest's monkeypatch does, without the way back: the process ends with its cases."""

    setattr = staticmethod(setattr)

    @staticmethod
    def setitem(dictionary, name, value):
        dictionary[name] = value


def _try(what: str, call, right, folder: Path, alarm: bool = True) -> None:
    """Call one of the readers and print how it went; `right` is a function that says what is wrong with its answer."""
    import resource

    from cifar_helpers.errors import DataError

    _say(what)
    before, detail = _names(folder), ""
    if alarm:  # nobody handles these signals, so that they end the process, in a decoder's loop as well
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(WAITED)
    try:
        detail = right(call())
    except DataError as error:
        if not (str(folder) in str(error) or "The uploaded picture" in str(error)) or not REMEDY.search(str(error)):
            detail = f"no file or no remedy: {error}"
    except BaseException as error:
        detail = f"{type(error).__name__}: {error}"
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
    if not detail and _names(folder) != before:
        detail = "a file was made or removed"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if not detail and peak > MEMORY:
        detail = f"{peak / 1e9:.1f} GB of memory"
    _say([what, not detail, detail[:500]])
    if peak > MEMORY:  # the peak stays: the next case needs a new process
        os._exit(3)


def _names(folder: Path) -> set[str]:
    """What stands in a worker's folder, and in the empty one that it works in."""
    return {str(file) for place in (folder, folder.parent / "away") for file in place.rglob("*")}


def _same(expected):
    """Whether arrays are the expected ones; `expected` is five arrays, or a function that makes them if need be."""
    def compare(found) -> str:
        import numpy as np

        want = expected() if callable(expected) else expected
        for have, should in zip(found[:4], want[:4], strict=True):
            if have.dtype != should.dtype or not np.array_equal(have, should):
                return f"other data: {have.dtype} of shape {have.shape}"
        return ""

    return compare


def _refused(found) -> str:
    return f"accepted: {getattr(found, 'shape', '') or found[4]}"


# --- mutations ---


CLAIMS = (b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"77777777777", b"\x80\0\0\0")
STEPS = ("flip", "byte", "cut", "insert", "remove", "copy", "zero", "large", "repeat")


def mutate(raw: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    """Each step is its name, a place (taken modulo the length) and a number that the step uses as it likes."""
    raw = bytearray(raw)
    for step, place, number in steps:
        at, length = place % (len(raw) + 1), 1 + number % 700
        if step == "flip":
            raw[at:at + 1] = bytes(byte ^ 1 << number % 8 for byte in raw[at:at + 1])
        elif step == "byte":
            raw[at:at + 1] = bytes([number % 256] * len(raw[at:at + 1]))
        elif step == "cut":
            del raw[at:]
        elif step == "insert":
            raw[at:at] = bytes([number % 256]) * length
        elif step == "remove":
            del raw[at:at + length]
        elif step == "copy":  # from elsewhere, over what stands here
            source = number * 131 % (len(raw) + 1)
            raw[at:at + length] = raw[source:source + length]
        elif step == "zero":
            raw[at:at + length] = bytes(len(raw[at:at + length]))
        elif step == "large":
            claim = CLAIMS[number % len(CLAIMS)]
            raw[at:at + len(claim)] = claim
        elif step == "repeat":
            raw[at:at] = raw[at:at + length] * (number % 5)
    return bytes(raw[:2_000_000])


class _Seeds:
    """Whole files of each kind, and how to try what became of them."""

    def __init__(self, folder: Path):
        import fixtures
        from PIL import Image

        from cifar_helpers import archives

        self.archives, self.fixtures, self.folder = archives, fixtures, folder
        self.given = fixtures.arrays()
        self.binary, self.python = fixtures.binary_members(self.given), fixtures.python_members(self.given)
        self.official_md5 = dict(archives.PICKLE_MD5)
        self.pictures = fixtures.write_pictures(folder / "pictures", fixtures.by_class(self.given))
        self.picture = sorted((self.pictures / "train" / "cat").iterdir())[0]
        self.batches = fixtures.write_folder(folder / "batches", self.binary)
        self.raw = {}
        for kind in ("npz", "compressed npz"):
            self.raw[kind] = fixtures.KINDS[kind](folder, self.given).read_bytes()
        (folder / "cifar.npz").unlink()
        for kind, members in (("binary", self.binary), ("python", self.python)):
            self.raw[f"{kind} tar"] = fixtures.tar_of([(tarfile.REGTYPE, f"a/{name}", raw)
                                                       for name, raw in members.items()])
        self.raw["gzip"] = zlib.compress(self.raw["binary tar"], 1, wbits=31)
        self.raw["batch"] = self.binary["data_batch_2.bin"]
        self.raw["pickle"] = self.python["data_batch_2"]
        with zipfile.ZipFile(io.BytesIO(self.raw["npz"])) as stored:
            self.members = {name: stored.read(name) for name in stored.namelist()}
        self.raw["npy images"], self.raw["npy labels"] = (self.members[f"{name}_train.npy"] for name in "xy")
        colours = Image.fromarray(self.given.train_images[0])
        exif = Image.Exif()
        exif[0x0112] = 6
        for name, picture, form, options in (
                ("PNG", colours, "PNG", {}), ("PNG palette", colours.quantize(99), "PNG", {"transparency": 3}),
                ("PNG alpha", colours.convert("RGBA"), "PNG", {"exif": exif}),
                ("JPEG", colours, "JPEG", {"exif": exif}),
                ("JPEG progressive", colours, "JPEG", {"progressive": True}),
                ("APNG", colours, "PNG", {"save_all": True, "append_images": [colours.convert("L").convert("RGB")]})):
            file = io.BytesIO()
            picture.save(file, form, **options)
            self.raw[name] = file.getvalue()
        self.kinds = tuple(self.raw)

    def places(self, kind: str) -> list[int]:
        """Where headers stand, so that mutations meet them as often as pixels."""
        raw = self.raw[kind]
        if kind.endswith("tar"):
            return [header for header in range(0, len(raw), 512) if raw[header + 257:header + 262] == b"ustar"]
        marks = re.finditer(rb"PK\x01\x02|NUMPY|IDAT|\xff\xda", raw)
        return [0, max(0, len(raw) - 600), *(mark.start() for mark in marks)]

    def attempt(self, kind: str, what: str, raw: bytes, alarm: bool = True) -> None:
        """Put the mutated file where its kind stands, read it, and put the whole one back."""
        archives, folder = self.archives, self.folder
        if kind == "batch":
            with _in_place(self.batches / "data_batch_2.bin", raw):
                expected = _plain(self.binary | {"data_batch_2.bin": raw})
                _try(what, lambda: archives.read(self.batches), _same(expected), folder, alarm)
        elif kind == "pickle":
            archives.PICKLE_MD5 |= {"data_batch_2": self.fixtures.hashlib.md5(raw, usedforsecurity=False).hexdigest()}
            path = self.fixtures.gzipped(folder / "a.tar.gz", self.fixtures.tar_of(
                [(tarfile.REGTYPE, name, content) for name, content in (self.python | {"data_batch_2": raw}).items()]))
            _try(what, lambda: archives.read(path), lambda found: "", folder, alarm)
            archives.PICKLE_MD5 |= self.official_md5
            path.unlink()
        elif "PNG" in kind or "JPEG" in kind:
            def right(found) -> str:
                if found.train_images.shape != (10, 32, 32, 3) or found.train_labels.tolist() != list(range(10)):
                    return "other pictures than there are"
                return ""

            with _in_place(self.picture, raw):
                _try(f"{what} in its folder", lambda: archives.read(self.pictures), right, folder, alarm)
            _try(f"{what}, uploaded", lambda: archives.read_picture(raw, None),
                 lambda found: "" if found.shape[2:] == (3,) and found.dtype == "u1" else "no RGB", folder, alarm)
        else:
            path = folder / ("a.npz" if "np" in kind else "a.tar.gz")
            if kind.startswith("npy"):
                mutated = "x_train.npy" if kind == "npy images" else "y_train.npy"
                with zipfile.ZipFile(path, "w") as file:
                    for name, content in (self.members | {mutated: raw}).items():
                        file.writestr(name, content)
            elif kind.endswith("tar"):
                self.fixtures.gzipped(path, raw)
            else:
                path.write_bytes(raw)
            expected = (lambda: _by_numpy(path)) if "np" in kind else (lambda: _by_tarfile(path, self.given))
            _try(what, lambda: archives.read(path), _same(expected), folder, alarm)
            path.unlink()


@contextlib.contextmanager
def _in_place(file: Path, raw: bytes):
    whole = file.read_bytes()
    file.write_bytes(raw)
    try:
        yield
    finally:
        file.write_bytes(whole)


def _plain(members: dict):
    """Arrays of the binary format, read as its page describes it."""
    import numpy as np

    def read():
        raw = b"".join(members[f"data_batch_{number}.bin"] for number in range(1, 6)) + members["test_batch.bin"]
        records = np.frombuffer(raw, np.uint8).reshape(-1, 3073)
        images = np.stack([records[:, 1 + 1024 * colour:1025 + 1024 * colour] for colour in range(3)], -1)
        images, labels = images.reshape(-1, 32, 32, 3), records[:, 0].astype(np.int64)
        return images[:-10], labels[:-10], images[-10:], labels[-10:], "plain"

    return read


def _by_tarfile(path: Path, given):
    """The arrays that Python's tarfile finds; those of the whole file where damage ends its walk."""
    members = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isreg():
                    members[Path(member.name).name] = tar.extractfile(member).read()
        return _plain(members)()
    except Exception:
        return given


def _by_numpy(path: Path):
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return [stored[name] if name[0] == "x" else stored[name].reshape(-1).astype(np.int64)
                for name in ("x_train", "y_train", "x_test", "y_test")]


def _mutations(folder: Path, scale: str, first: int, count: int) -> None:
    import numpy as np

    seeds = _Seeds(folder)
    done = 0
    while done < count:  # a picture is two cases
        rng = np.random.default_rng([SEED, first + done])
        kind = seeds.kinds[rng.integers(len(seeds.kinds))]
        places, steps = seeds.places(kind), []
        for _ in range(rng.integers(1, 5)):
            near = places[rng.integers(len(places))] + int(rng.integers(600))
            place = near if rng.random() < 0.7 else int(rng.integers(1 << 20))
            steps.append((STEPS[rng.integers(len(STEPS))], place, int(rng.integers(1 << 16))))
        seeds.attempt(kind, f"{kind}, mutation {first + done}", mutate(seeds.raw[kind], steps))
        done += 2 if "PNG" in kind or "JPEG" in kind else 1


def _hypothesis(folder: Path, scale: str, first: int, count: int) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    seeds = _Seeds(folder)
    numbers = st.integers(0, 1 << 16)
    place = st.one_of(numbers, st.integers(0, 600))
    step = st.tuples(st.sampled_from(STEPS), place, numbers)
    done = 0

    @seed(SEED + first)
    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(seeds.kinds), st.lists(step, min_size=1, max_size=6), st.booleans())
    def run(kind, steps, near):
        nonlocal done
        if done >= count:
            return
        places = seeds.places(kind)
        steps = [(name, places[number % len(places)] + at if near else at, number) for name, at, number in steps]
        seeds.attempt(kind, f"{kind}, hypothesis {first + done}", mutate(seeds.raw[kind], steps))
        done += 2 if "PNG" in kind or "JPEG" in kind else 1

    run()


def _atheris(folder: Path, scale: str, first: int, count: int) -> None:
    import atheris

    del sys.modules["cifar_helpers.archives"]
    with atheris.instrument_imports(include=["cifar_helpers.archives"]):
        from cifar_helpers import archives
    import fixtures

    fixtures.archives = archives
    fixtures.shrink(_Patch)
    seeds = _Seeds(folder)
    corpus = folder.parent / "corpus"
    corpus.mkdir()
    for number, kind in enumerate(seeds.kinds):
        (corpus / str(number)).write_bytes(bytes([number]) + seeds.raw[kind])
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        kind = seeds.kinds[data[0] % len(seeds.kinds)] if data else seeds.kinds[0]
        seeds.attempt(kind, f"{kind}, atheris {first + done}", data[1:], alarm=False)
        done += 1

    # the fuzzer has an alarm of its own, and its corpus is not what the readers wrote
    atheris.Setup([sys.argv[0], f"-atheris_runs={count}", f"-seed={SEED + first}", f"-timeout={SECONDS}",
                   "-max_len=70000", "-rss_limit_mb=0", f"-artifact_prefix={folder.parent}/", str(corpus)], one)
    atheris.Fuzz()


# --- hand-made files ---


def _hostile(folder: Path, scale: str, first: int, count: int) -> None:
    for number, (what, call, right) in enumerate(_hostile_cases(folder, scale)):
        if number >= first:
            _try(what, call, right, folder)


def _hostile_cases(folder: Path, scale: str):
    """Triples (what, call, right) as `_try` takes them; a file is gone as soon as the next is asked for."""
    import fixtures
    import numpy as np
    from PIL import Image

    from cifar_helpers import archives

    given = fixtures.arrays()
    binary = fixtures.binary_members(given)
    whole = [(tarfile.REGTYPE, f"cifar/{name}", raw) for name, raw in binary.items()]
    same = _same(given)
    full = scale == "full"

    def archive(what, right, *parts):
        path = fixtures.gzipped(folder / "cifar-10-binary.tar.gz", *parts)
        yield what, lambda: archives.read(path), right
        path.unlink()

    def tar(what, right, members):
        yield from archive(f"tar: {what}", right, fixtures.tar_of(members))

    # names that lead outside, and members that are no files
    for name in ("../../../outside/", "/outside/", "a/../../../", "C:\\outside\\/", "\udcff\udcfe/", "a\nb/"):
        yield from tar(f"names under {name!a}", same,
                       [(kind, name + member.rpartition("/")[2], raw) for kind, member, raw in whole])
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
                 tarfile.GNUTYPE_SPARSE, b"Z"):
        yield from tar(f"a batch of type {kind!r}", _refused, [(kind, "data_batch_1.bin", b""), *whole[1:]])
        yield from tar(f"a stranger of type {kind!r}", same, [(kind, "../../etc/passwd", b""), *whole])
    yield from tar("a name with NUL", same, [(tarfile.REGTYPE, "x\0/data_batch_1.bin", b"x"), *whole])
    yield from tar("a batch twice", _refused, [*whole, whole[3]])
    yield from tar("no batch", _refused, [(tarfile.REGTYPE, "README", b"x")])
    yield from tar("a batch short of a byte", _refused, [(*whole[0][:2], whole[0][2][:-1]), *whole[1:]])
    for label in (10, 255):
        yield from tar(f"a label of {label}", _refused, [(*whole[0][:2], bytes([label]) + whole[0][2][1:]), *whole[1:]])
    yield from tar("a class too many", _refused, [(*whole[0][:2], bytes([(given.train_labels[0] + 1) % 10])
                                                   + whole[0][2][1:]), *whole[1:]])
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
        yield from tar(f"5,000 headers of type {kind!r}", same, [(kind, "x", b"")] * 5_000 + whole)
        yield from tar(f"a large header of type {kind!r}", same,
                       [(kind, "x", b"1" * (60_000_000 if full else 6_000_000)), *whole])
    for size in (b"\x80" + b"\x7f" * 11, b"\xff" * 12, b"77777777777\0", b"0000000000x\0", b"\x80" + bytes(11)):
        raw = bytearray(fixtures.tar_of(whole))
        raw[124:136], raw[148:156] = size, b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        yield from archive(f"tar: a declared size of {size!r}", _refused, bytes(raw))
    header = fixtures.tar_of([(tarfile.REGTYPE, "x", b"")])[:512]
    yield from archive("tar: empty members to the limit of size", _refused, header * (700_000 if full else 100_000))

    # gzip
    yield from archive("gzip: two files in one", same, fixtures.tar_of(whole)[:20_000], fixtures.tar_of(whole)[20_000:])
    block = zlib.compress(bytes(50_000_000), 9, wbits=31)
    for copies in (9, 100 if full else 20):
        path = folder / "bomb.tar.gz"
        path.write_bytes(block * copies)
        yield f"gzip: {copies * 0.05:.1f} GB of zeros", lambda path=path: archives.read(path), _refused
    pack = zlib.compressobj(9, wbits=31)
    start = pack.compress(bytes(100))
    piece = [pack.compress(bytes(50_000_000)) + pack.flush(zlib.Z_FULL_FLUSH) for _ in range(2)][1]
    path.write_bytes(start + pack.flush(zlib.Z_FULL_FLUSH) + piece * (100 if full else 20))
    yield "gzip: zeros without an end", lambda: archives.read(path), _refused
    path.write_bytes(zlib.compress(b"", wbits=31) * (15_000_000 if full else 1_000_000))
    yield "gzip: millions of empty files", lambda: archives.read(path), _refused
    path.write_bytes(b"\x1f\x8b\x08\x1c\0\0\0\0\0\3\xff\xff" + bytes(65_535) + b"n" * 50_000_000)
    yield "gzip: a name of 50 MB", lambda: archives.read(path), _refused
    whole_gzip = zlib.compress(fixtures.tar_of(whole), wbits=31)
    for what, raw in (("rubbish after its end", whole_gzip + b"rubbish"), ("half", whole_gzip[:len(whole_gzip) // 2]),
                      ("without its checksum", whole_gzip[:-8]), ("a wrong checksum", whole_gzip[:-8] + bytes(8)),
                      ("two bytes", b"\x1f\x8b"), ("a web page", b"<!DOCTYPE html>"), ("nothing", b"")):
        path.write_bytes(raw)
        yield f"gzip: {what}", lambda: archives.read(path), _refused
    path.write_bytes(whole_gzip + bytes(1_000_000))
    yield "gzip: padding after its end", lambda: archives.read(path), same
    with path.open("r+b") as file:
        file.truncate(30_000_000_000)
    yield "gzip: a sparse file of 30 GB", lambda: archives.read(path), _refused
    path.unlink()

    # npz
    def npz(what, right, change=lambda members: members, compression=zipfile.ZIP_STORED, after=lambda raw: raw):
        path = fixtures.write_npz(folder / "cifar.npz", given)
        with zipfile.ZipFile(path) as stored:
            members = {name: stored.read(name) for name in stored.namelist()}
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, raw in change(members).items():
                file.writestr(name, raw)
        path.write_bytes(after(path.read_bytes()))
        yield f"npz: {what}", lambda: archives.read(path), right
        path.unlink()

    def with_header(text: str, body: bytes = b""):
        return lambda members: members | {"y_train.npy": fixtures.npy(text) + body}

    yield from npz("whole", same)
    yield from npz("names that lead outside", _refused, lambda m: {f"../../{name}": raw for name, raw in m.items()})
    yield from npz("strangers with names that lead outside", same, lambda m: m | {"../../x": b"x", "/etc/x": b"x"})
    for shape in ("(10**15,)", "(1000000000000000,)", "(-1,)", "(4000000000,)", "(0,)", "()", "(2,5)", "((((1))))",
                  "(" * 3000, "'a'", "(1e3,)", "(9223372036854775807, 2)"):
        yield from npz(f"a header with the shape {shape[:30]}", _refused,
                       with_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}", bytes(10)))
    for kind in ("'|O'", "'|V0'", "'|S0'", "'<U9'", "'<M8[s]'", "'<f2'", "[('a', '|u1')]", "'x'", "('|u1', (99999,))",
                 "None"):
        yield from npz(f"a header with the type {kind}", _refused,
                       with_header(f"{{'descr': {kind}, 'fortran_order': False, 'shape': (10,)}}", bytes(10)))
    much = 390_000_000 if full else 30_000_000
    zeros = fixtures.npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({much},)}}") + bytes(much)
    for names in (("y_train",), ("x_train",), ("x_train", "y_train")):
        def bomb(members, names=names):
            return members | {f"{name}.npy": zeros for name in names}

        yield from npz(f"{much * len(names):,} zeros, 1000:1, in {names}", _refused, bomb, zipfile.ZIP_DEFLATED)
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield from npz(f"compression {compression}", _refused, compression=compression)
    for where, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 20), (b"PK\x01\x02", 24), (b"PK\x01\x02", 42),
                          (b"PK\x05\x06", 8), (b"PK\x05\x06", 12), (b"PK\x05\x06", 16)):
        for claim in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
            def lie(raw, where=where, offset=offset, claim=claim):
                place = raw.rindex(where) + offset
                return raw[:place] + struct.pack("<I", claim) + raw[place + 4:]

            path = fixtures.write_npz(folder / "lie.npz", given)
            path.write_bytes(lie(path.read_bytes()))
            yield f"npz: {claim:,} at {offset} of {where!r}", lambda path=path: archives.read(path), same
            path.unlink()
    yield from npz("a password", _refused,
                   after=lambda raw: raw.replace(b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1"))
    yield from npz("50,000 members", _refused, lambda m: m | {str(number): b"" for number in range(30_000)})

    # folders
    path = fixtures.write_folder(folder / "batches", binary)
    batch = path / "data_batch_1.bin"
    raw = batch.read_bytes()

    def replaced(make):
        batch.unlink()
        make()
        return lambda: archives.read(path)

    yield "folder: a pipe for a batch", replaced(lambda: os.mkfifo(batch)), _refused
    yield "folder: a folder for a batch", replaced(batch.mkdir), _refused
    batch.rmdir()
    batch.symlink_to("/dev/zero")
    yield "folder: a link to a device", lambda: archives.read(path), _refused
    yield "folder: a link to nowhere", replaced(lambda: batch.symlink_to(folder / "nowhere")), _refused
    yield "folder: a link to itself", replaced(lambda: batch.symlink_to(batch)), _refused
    yield "folder: a link to another file", replaced(lambda: batch.symlink_to(__file__)), _refused
    yield "folder: a batch of 30 GB", replaced(lambda: (batch.touch(), os.truncate(batch, 30_000_000_000))), _refused
    batch.write_bytes(raw)
    for named in (folder / "pipe", Path("/dev/zero"), folder, folder / "x" / "y", Path("a\0b"), Path("x" * 5000)):
        if named.name == "pipe":
            os.mkfifo(named)

        def read(named=named):
            try:
                return archives.read(named)
            except archives.DataError as error:  # it names the path that was given, which need not be in the folder
                raise archives.DataError(f"{folder} {error}") from error

        yield f"path: {ascii(str(named))[:20]}", read, _refused
    (folder / "pipe").unlink()

    # pictures
    colours = Image.fromarray(given.train_images[0])
    pictures = fixtures.write_pictures(folder / "pictures", given)
    expected = fixtures.by_class(given)
    cat = next((pictures / "train" / "cat").iterdir())
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0000.png", "notes.txt"):
        (pictures / "train" / "cat" / name).write_bytes(b"x")
        (pictures / "train" / name).write_bytes(b"x")
    for name in (".cache", "__MACOSX", "@eaDir"):
        (pictures / "test" / name).mkdir()
    (pictures / "test" / "cat" / "folder.png").mkdir()
    yield "pictures: stray files", lambda: archives.read(pictures), _same(expected)
    (pictures / "test" / "mushroom").mkdir()
    yield "pictures: a foreign class", lambda: archives.read(pictures), _refused
    (pictures / "test" / "mushroom").rmdir()

    def saved(picture, form="PNG", **options) -> bytes:
        file = io.BytesIO()
        picture.save(file, form, **options)
        return file.getvalue()

    def expect(picture):
        return lambda found: "" if np.array_equal(found, np.asarray(picture)) else "other pixels"

    second = Image.new("RGB", (32, 32), "red")
    jpeg = bytearray(saved(colours, "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size:size + 4] = struct.pack(">HH", 20_000, 20_000)
    progressive = saved(Image.new("RGB", (3_000, 3_000)), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda"):-2]
    text = fixtures.chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))
    plain = saved(colours)
    for what, content, right in (
            ("greyscale", saved(colours.convert("L")), expect(colours.convert("L").convert("RGB"))),
            ("black and white", saved(colours.convert("1")), expect(colours.convert("1").convert("RGB"))),
            ("palette", saved(colours.quantize(200)), expect(colours.quantize(200).convert("RGB"))),
            ("opaque RGBA", saved(colours.convert("RGBA")), expect(colours)),
            ("transparent RGBA", saved(Image.new("RGBA", (32, 32))), _refused),
            ("transparent palette", saved(colours.quantize(200), transparency=3), _refused),
            ("16-bit grey", saved(Image.new("I;16", (32, 32))), _refused),
            ("16-bit RGB", fixtures.png(32, 32, 16, 2, bytes(32 * (1 + 32 * 6))), _refused),
            ("16-bit RGBA", fixtures.png(32, 32, 16, 6, (b"\0" + b"\xff" * 256) * 32), _refused),
            ("CMYK", saved(Image.new("CMYK", (32, 32)), "JPEG"), _refused),
            ("animated PNG", saved(colours, save_all=True, append_images=[second]), _refused),
            ("animated GIF", saved(colours, "GIF", save_all=True, append_images=[second]), _refused),
            ("animated WebP", saved(colours, "WEBP", save_all=True, append_images=[second]), _refused),
            ("TIFF", saved(colours, "TIFF"), _refused), ("ICO", saved(colours, "ICO"), _refused),
            ("EPS", saved(colours, "EPS"), _refused), ("PDF", saved(colours, "PDF"), _refused),
            ("truncated PNG", plain[:-500], _refused), ("truncated JPEG", saved(colours, "JPEG")[:-200], _refused),
            ("PNG of 20,000 pixels", fixtures.png(20_000, 20_000, 8, 2), _refused),
            ("PNG of 2 billion pixels", fixtures.png(2**31 - 1, 2**31 - 1, 16, 6), _refused),
            ("JPEG of 20,000 pixels", bytes(jpeg), _refused),
            ("PNG of no pixels", fixtures.png(0, 0, 8, 2), _refused),
            ("JPEG with 20,000 passes", progressive[:-2] + scan * 20_000 + progressive[-2:], _refused),
            ("PNG with up to 1 GB of text", plain[:33] + text * (1_200 if full else 100) + plain[33:], _refused),
            ("PNG with very many chunks", plain[:-12] + fixtures.chunk(b"teXt", b"") * (1_000_000 if full else 50_000)
             + plain[-12:],
             expect(colours)),
            ("PNG with 100 MB of pixels too many", fixtures.png(32, 32, 8, 2, bytes(100_000_000)), lambda found: ""),
            ("no picture", b"no picture", _refused), ("empty", b"", _refused)):
        cat.write_bytes(content)

        def in_folder(right=right):
            return right(archives.read_picture(cat))

        yield f"picture: {what}", in_folder, lambda detail: detail
        yield f"picture: {what}, uploaded", lambda content=content: archives.read_picture(content, None), right
    cat.write_bytes(plain)
    cat.unlink()
    os.mkfifo(cat)
    yield "pictures: a pipe", lambda: archives.read(pictures), _refused


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
