"""Where images come from, how they are split, what the cache promises, and when a stand-in must say so."""

import functools
import hashlib
import os
import shutil
import sys
import threading
from pathlib import Path

import fixtures
import numpy as np
import promise_2_together
import promise_3_disk
import pytest

from cifar_helpers import archives, data, download, marks, paths, standin
from cifar_helpers.data import load_cifar10, take
from cifar_helpers.errors import DataError
from cifar_helpers.paths import whole_file


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, tmp_path):
    fixtures.shrink(monkeypatch)
    for name in ("CIFAR10_PATH", "CIFAR10_REQUIRED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    marks.discard(marks.STAND_IN)


@pytest.fixture
def given():
    return fixtures.arrays()


@pytest.fixture
def npz(given, tmp_path):
    return fixtures.KINDS["npz"](tmp_path, given)


@pytest.fixture
def loaded(npz):
    return load_cifar10(npz)


def splits(loaded):
    return {name: getattr(loaded, name) for name in ("train", "validation", "test")}


def assert_same(one, other):
    assert (one.source, one.class_names) == (other.source, other.class_names)
    for name, split in splits(one).items():
        assert np.array_equal(split.images, splits(other)[name].images)
        assert np.array_equal(split.labels, splits(other)[name].labels)


def ids(images):
    return {image.tobytes() for image in images}


def cached_files(tmp_path):
    return sorted(file.name for file in (tmp_path / "cache").glob("*") if not file.name.endswith(".lock"))


# --- splits ---


@pytest.mark.parametrize("kind", fixtures.KINDS)
def test_every_kind_is_split_into_images_and_labels_of_the_promised_type(kind, given, tmp_path):
    loaded = load_cifar10(fixtures.KINDS[kind](tmp_path, given))
    assert [len(split) for split in splits(loaded).values()] == [90, 10, 20]
    for split in splits(loaded).values():
        assert (split.images.dtype, split.images.shape) == (np.uint8, (len(split), 32, 32, 3))
        assert (split.labels.dtype, split.labels.shape) == (np.int64, (len(split),))
    assert loaded.class_names == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                                  "truck")
    assert loaded.source.name == "CIFAR-10" and not loaded.source.is_standin


@pytest.mark.parametrize("kind", fixtures.EXACT_KINDS)
def test_equal_images_give_equal_splits_and_an_equal_fingerprint(kind, given, loaded, tmp_path):
    (tmp_path / "other").mkdir()
    other = load_cifar10(fixtures.KINDS[kind](tmp_path / "other", given))
    assert other.source.fingerprint == loaded.source.fingerprint
    for name, split in splits(loaded).items():
        assert np.array_equal(split.images, splits(other)[name].images)
        assert np.array_equal(split.labels, splits(other)[name].labels)


def test_other_images_or_labels_give_another_fingerprint(given, loaded, tmp_path):
    (tmp_path / "other").mkdir()
    given.test_images[0, 0, 0, 0] ^= 1
    image = load_cifar10(fixtures.KINDS["npz"](tmp_path / "other", given)).source.fingerprint
    given.test_images[0, 0, 0, 0] ^= 1
    given.test_labels[:] = given.test_labels[::-1].copy()
    label = load_cifar10(fixtures.write_npz(tmp_path / "labels.npz", given)).source.fingerprint
    assert len({loaded.source.fingerprint, image, label}) == 3


def test_the_split_is_stratified_disjoint_and_complete(given, loaded):
    for name, per_class in (("train", 9), ("validation", 1), ("test", 2)):
        assert np.bincount(splits(loaded)[name].labels).tolist() == [per_class] * 10
    train, validation, test = (ids(split.images) for split in splits(loaded).values())
    assert not train & validation and not train & test and not validation & test
    assert train | validation == ids(given.train_images)
    assert np.array_equal(loaded.test.images, given.test_images)


def test_images_keep_their_labels(given, loaded):
    truth = {image.tobytes(): label for images, labels in (given[:2], given[2:4])
             for image, label in zip(images, labels, strict=True)}
    for split in splits(loaded).values():
        assert [truth[image.tobytes()] for image in split.images] == split.labels.tolist()


def test_the_split_is_the_same_at_every_call(npz, loaded, monkeypatch, tmp_path):
    assert_same(load_cifar10(npz), loaded)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "another cache"))
    assert_same(load_cifar10(npz), loaded)


def test_the_full_size_splits_into_45000_and_5000(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(data, "_keep", lambda *_: None)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), archives.TRAIN_PER_CLASS))
    numbers = np.arange(len(labels))
    split = data._split_and_keep(archives.Arrays(numbers, labels, numbers[:10], labels[:10], "numbers"), "none")
    assert (len(split.train), len(split.validation)) == (45_000, 5_000)
    assert np.array_equal(np.union1d(split.train.images, split.validation.images), numbers)
    assert np.bincount(split.train.labels).tolist() == [4_500] * 10
    assert np.bincount(split.validation.labels).tolist() == [500] * 10


def test_data_shows_its_source_and_its_sizes(loaded):
    assert repr(loaded).splitlines() == [
        "CIFAR-10 (arrays cifar.npz)", "train 90, validation 10, test 20 images of (32, 32, 3), uint8"]


# --- the order of the places ---

PLACES = ("argument", "environment", "own cache", "Keras's cache", "download", "stand-in")


@pytest.fixture
def places(monkeypatch, tmp_path):
    """CIFAR-10 in every place, another one in each, and how to take each away."""
    other = {place: fixtures.arrays(number) for number, place in enumerate(PLACES, 1)}
    (tmp_path / "named").mkdir()

    def put_in_keras(place):
        fixtures.accept_pickles(monkeypatch, fixtures.python_members(other[place]))
        fixtures.put_in_keras_cache(tmp_path / "keras", other[place])

    put_in_keras("own cache")
    load_cifar10()
    put_in_keras("Keras's cache")
    argument = fixtures.write_npz(tmp_path / "named" / "argument.npz", other["argument"])
    monkeypatch.setenv("CIFAR10_PATH", str(fixtures.write_npz(tmp_path / "named" / "env.npz", other["environment"])))
    archive = fixtures.write_archive(tmp_path / "served", fixtures.binary_members(other["download"])).read_bytes()
    monkeypatch.setitem(download.SHA256, download.BINARY, hashlib.sha256(archive).hexdigest())
    monkeypatch.setitem(download.SIZE, download.BINARY, len(archive))
    monkeypatch.setenv("COURSE_OFFLINE", "0")
    with fixtures.serving(archive) as server:
        sources = [(download.BINARY, server.url)]
        monkeypatch.setattr(download, "fetch", functools.partial(download.fetch, sources=sources, seconds=5))
        yield argument, other, server, {
            "environment": lambda: monkeypatch.delenv("CIFAR10_PATH"),
            "own cache": lambda: shutil.rmtree(tmp_path / "cache"),
            "Keras's cache": lambda: shutil.rmtree(tmp_path / "keras"),
            "download": lambda: monkeypatch.setenv("COURSE_OFFLINE", "1"),
        }


@pytest.mark.parametrize("first", PLACES)
def test_places_are_looked_at_in_the_documented_order(first, places):
    argument, other, server, take_away = places
    for place in PLACES[1:PLACES.index(first)]:
        take_away[place]()
    loaded = load_cifar10(argument if first == "argument" else None)
    assert loaded.source.is_standin == (first == "stand-in")
    if not loaded.source.is_standin:
        assert np.array_equal(loaded.test.images, other[first].test_images)
    assert bool(server.asked) == (first == "download")
    assert_same(load_cifar10(argument if first == "argument" else None), loaded)


def test_a_download_is_kept_for_the_next_call_and_asked_for_once(places):
    *_, server, take_away = places
    for place in ("environment", "own cache", "Keras's cache"):
        take_away[place]()
    first = load_cifar10()
    asked = server.asked
    assert first.source.origin.startswith("binary archive cifar-10-binary.tar.gz")
    assert_same(load_cifar10(), first)
    assert server.asked == asked


def test_no_answer_to_the_download_leads_to_the_stand_in_and_says_why(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_OFFLINE", "0")
    sources = [(download.BINARY, fixtures.unused_address())]
    monkeypatch.setattr(download, "fetch", functools.partial(download.fetch, sources=sources, seconds=1))
    assert load_cifar10().source.is_standin
    assert "CIFAR-10 could not be downloaded" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cifar-10-batches-py-target/cifar-10-batches-py", "cifar-10-batches-py-target",
                                  "cifar-10-batches-py", "cifar-10-batches-py.tar.gz"])
def test_keras_cache_is_found_in_every_form(name, given, tmp_path):
    fixtures.put_in_keras_cache(tmp_path / "keras", given, name)
    assert np.array_equal(load_cifar10().test.images, given.test_images)


def test_a_damaged_keras_cache_is_passed_over_with_a_word(given, tmp_path, capsys):
    place = fixtures.put_in_keras_cache(tmp_path / "keras", given)
    (place / "data_batch_2").write_bytes(b"junk")
    assert load_cifar10().source.is_standin
    assert "Keras's cache is passed over: " in capsys.readouterr().out


def test_a_path_may_have_spaces_around_it_and_a_tilde(npz, monkeypatch, tmp_path, given):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("CIFAR10_PATH", " ~/cifar.npz ")
    assert np.array_equal(load_cifar10().test.images, given.test_images)


@pytest.mark.parametrize("required", ["0", "1"])
def test_a_path_that_was_named_and_holds_no_cifar10_is_an_error_not_a_stand_in(required, monkeypatch, tmp_path):
    monkeypatch.setenv("CIFAR10_REQUIRED", required)
    (tmp_path / "page.tar.gz").write_text("<html>")
    for name, match in (("page.tar.gz", r"page\.tar\.gz is neither"), ("gone.npz", r"gone\.npz does not exist")):
        monkeypatch.setenv("CIFAR10_PATH", str(tmp_path / name))
        with pytest.raises(DataError, match=match):
            load_cifar10()
    assert fixtures.tree(tmp_path) == {"page.tar.gz": b"<html>", str(Path("cache", ".images.lock")): b""}


# --- the cache ---


def test_an_unchanged_file_is_read_from_the_cache(npz, loaded):
    times = npz.stat()
    npz.write_bytes(bytes(times.st_size))
    os.utime(npz, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert_same(load_cifar10(npz), loaded)


def test_a_changed_file_is_read_again(npz, loaded):
    times = npz.stat()
    fixtures.write_npz(npz, fixtures.arrays(1))
    assert npz.stat().st_size == times.st_size
    os.utime(npz, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
    assert np.array_equal(load_cifar10(npz).test.images, fixtures.arrays(1).test_images)


def test_a_changed_file_in_a_folder_is_read_again(given, tmp_path):
    folder = fixtures.KINDS["png folders"](tmp_path, given)
    first = load_cifar10(folder)
    cats = sorted((folder / "test" / "cat").iterdir())
    cats[0].write_bytes(cats[1].read_bytes())
    assert load_cifar10(folder).source.fingerprint != first.source.fingerprint


def test_a_file_that_went_away_is_missed_even_though_it_was_cached(npz, loaded):
    npz.unlink()
    with pytest.raises(DataError, match="does not exist"):
        load_cifar10(npz)


@pytest.mark.parametrize("damage", [
    lambda raw: b"", lambda raw: b"junk", lambda raw: raw[:len(raw) // 2],
    lambda raw: raw[:9_000] + bytes([raw[9_000] ^ 1]) + raw[9_001:],
], ids=["empty", "junk", "half", "one byte"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "stand-in"])
def test_a_damaged_cache_is_made_again(damage, named, npz, tmp_path, capsys):
    first = load_cifar10(npz if named else None)
    [name] = cached_files(tmp_path)
    file = tmp_path / "cache" / name
    file.write_bytes(damage(file.read_bytes()))
    capsys.readouterr()
    assert_same(load_cifar10(npz if named else None), first)
    assert f"The cached {name} is damaged and is made again" in capsys.readouterr().out
    assert_same(load_cifar10(npz if named else None), first)
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.parametrize("about", ["[]", '{"class_names": [], "source": {"name": "x"}}'])
def test_a_cache_of_another_version_is_made_again(about, npz, tmp_path):
    first = load_cifar10(npz)
    [name] = cached_files(tmp_path)
    with np.load(tmp_path / "cache" / name) as stored:
        changed = {**stored, "about": np.array(about)}
    np.savez(tmp_path / "cache" / name, **changed)
    assert_same(load_cifar10(npz), first)


@pytest.mark.parametrize("below", ["", "a/b"])
def test_without_a_cache_folder_images_are_loaded_and_a_line_says_so(below, npz, given, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / below))
    before = fixtures.tree(tmp_path)
    assert np.array_equal(load_cifar10(npz).test.images, given.test_images)
    assert "The images are not cached (" in (said := capsys.readouterr().out)
    assert "Set COURSE_CACHE to a folder that can be written." in said
    assert load_cifar10().source.is_standin
    assert fixtures.tree(tmp_path) == before


def test_without_a_cache_folder_nothing_is_said_to_be_damaged(npz, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file"))
    load_cifar10(npz)
    assert "damaged" not in capsys.readouterr().out


def test_images_are_loaded_where_the_disk_is_full_and_a_line_says_so(npz, given, tmp_path, capsys):
    with fixtures.files_limited_to(100_000):
        loaded = load_cifar10(npz)
    assert np.array_equal(loaded.test.images, given.test_images)
    assert "The images are not cached (" in capsys.readouterr().out
    assert not list(tmp_path.glob("cache/*.npz"))


@pytest.mark.parametrize("sizes", [
    pytest.param([1_000], id="fails at close"),
    pytest.param([1_000] * 20, id="fails at write and at close"),
    pytest.param([100_000], id="fails at write"),
])
def test_a_file_that_cannot_be_written_whole_leaves_nothing_and_keeps_the_old_one(sizes, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.npz").write_bytes(b"old")
    with fixtures.files_limited_to(500), pytest.raises(OSError), whole_file(tmp_path / "cache" / "a.npz") as file:
        for size in sizes:
            file.write(bytes(size))
    assert fixtures.tree(tmp_path / "cache") == {"a.npz": b"old"}


def test_a_file_whose_writer_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "cache" / "a.npz") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert fixtures.tree(tmp_path / "cache") == {}


def test_several_loads_at_once_agree_and_leave_one_entry(npz, tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_cifar10(npz))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in found[1:]:
        assert_same(other, found[0])
    assert len(found) == 4 and len(cached_files(tmp_path)) == 1


# --- the stand-in ---


def test_the_stand_in_says_so_and_marks_every_title(capsys):
    loaded = load_cifar10()
    said = capsys.readouterr().out
    assert "THIS IS NOT CIFAR-10" in said and "set CIFAR10_PATH" in said
    assert loaded.source.is_standin and "stand-in" in str(loaded.source)
    assert loaded.class_names == standin.CLASS_NAMES
    assert [len(split) for split in splits(loaded).values()] == [90, 10, 20]
    assert marks.marked("Accuracy") == "Accuracy · generated stand-in, not CIFAR-10"


def test_the_stand_in_says_so_each_time_also_from_the_cache(capsys):
    first = load_cifar10()
    assert "Drawing" in capsys.readouterr().out
    assert_same(load_cifar10(), first)
    said = capsys.readouterr().out
    assert "THIS IS NOT CIFAR-10" in said and "Drawing" not in said


def test_real_images_afterwards_take_the_mark_away(npz, capsys):
    load_cifar10()
    capsys.readouterr()
    load_cifar10(npz)
    assert marks.marked("Accuracy") == "Accuracy"
    assert "NOT CIFAR-10" not in capsys.readouterr().out


@pytest.mark.parametrize("drawn_before", [False, True])
def test_required_cifar10_is_an_error_where_there_is_none(drawn_before, monkeypatch, tmp_path):
    if drawn_before:
        load_cifar10()
    before = fixtures.tree(tmp_path)
    monkeypatch.setenv("CIFAR10_REQUIRED", "1")
    with pytest.raises(DataError, match=r"CIFAR10_REQUIRED=1 and .* set CIFAR10_PATH to a copy of"):
        load_cifar10()
    assert fixtures.tree(tmp_path) == before


def test_required_cifar10_is_loaded_where_it_is(npz, monkeypatch):
    monkeypatch.setenv("CIFAR10_REQUIRED", "1")
    assert not load_cifar10(npz).source.is_standin


# --- take ---


def test_take_gives_the_counts_asked_for_in_balance(loaded):
    fewer = take(loaded, train=40, test=10)
    assert np.bincount(fewer.train.labels).tolist() == [4] * 10
    assert np.bincount(fewer.test.labels).tolist() == [1] * 10
    assert fewer.validation is loaded.validation
    assert (fewer.source, fewer.class_names) == (loaded.source, loaded.class_names)


@pytest.mark.parametrize("count", [10, 13, 55, 89, 90])
def test_take_is_balanced_to_one_image_and_keeps_images_with_their_labels(count, loaded):
    fewer = take(loaded, train=count).train
    counts = np.bincount(fewer.labels, minlength=10)
    assert len(fewer) == len(fewer.images) == count
    assert counts.max() - counts.min() <= (count % 10 != 0)
    truth = {image.tobytes(): label for image, label in zip(loaded.train.images, loaded.train.labels, strict=True)}
    assert [truth[image.tobytes()] for image in fewer.images] == fewer.labels.tolist()


def test_take_of_more_contains_take_of_fewer(loaded):
    assert ids(take(loaded, train=20).train.images) < ids(take(loaded, train=60).train.images)


def test_take_of_all_and_of_nothing_named_changes_nothing(loaded):
    assert_same(take(loaded), loaded)
    assert_same(take(loaded, train=90, validation=10, test=20), loaded)


@pytest.mark.parametrize("count", [0, -10, 9, 91, 50_000])
def test_take_refuses_a_count_that_there_is_not(count, loaded):
    with pytest.raises(DataError, match=rf"{count:,} train images were asked for and there are 90: ask for 10 to 90"):
        take(loaded, train=count)


def test_take_names_the_split_it_cannot_serve(loaded):
    with pytest.raises(DataError, match="11 validation images"):
        take(loaded, train=50, validation=11)


# --- two at once, and the disk ---


def assert_survived(found, at_least):
    assert not [case for case in found if not case[1]]
    assert len(found) >= at_least


@pytest.mark.skipif(sys.platform == "win32", reason="the cases fork")
def test_processes_that_work_at_once_get_the_right_data_and_one_whole_cache():
    assert_survived(list(promise_2_together.cases("short")), 25)


@pytest.mark.skipif(sys.platform == "win32", reason="the cases fork")
def test_a_faulty_disk_costs_the_cache_at_most():
    assert_survived(list(promise_3_disk.cases("short")), 150)


def test_what_holds_a_lock_is_named_once_it_takes_long_and_not_waited_for_without_end(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(paths, "PATIENT_SECONDS", 0.05)
    holder = threading.Event(), threading.Event()

    def hold():
        with paths.locked(tmp_path / ".lock", "testing"):
            holder[0].set()
            holder[1].wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    holder[0].wait(20)
    with paths.locked(tmp_path / ".lock", "testing the course") as held:
        assert not held
    assert capsys.readouterr().out == "Waiting for another process that is testing the course.\n"
    holder[1].set()
    thread.join()
    with paths.locked(tmp_path / ".lock", "testing the course") as held:
        assert held
    assert not capsys.readouterr().out


def test_an_array_whose_header_says_that_it_is_shorter_is_damaged(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((40, 8000), np.uint8))
    raw = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(raw.replace(b"(40, 8000)", b"(20, 8000)"))
    with np.load(tmp_path / "a.npz") as stored:
        assert stored["images"].shape == (20, 8000)  # the reason for reading it ourselves
    with pytest.raises(ValueError, match="longer than its header says"):
        paths.read_arrays(tmp_path / "a.npz")


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        paths.read_arrays(tmp_path / "a.npz")


def test_without_a_cache_folder_a_download_still_gives_the_images(places, monkeypatch, tmp_path):
    _, other, _, take_away = places
    for place in ("environment", "own cache", "Keras's cache"):
        take_away[place]()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file"))
    assert np.array_equal(load_cifar10().test.images, other["download"].test_images)


def test_every_cache_entry_names_its_format(npz, monkeypatch, tmp_path, given):
    for load in (lambda: load_cifar10(npz), load_cifar10,
                 lambda: (fixtures.put_in_keras_cache(tmp_path / "keras", given), load_cifar10())):
        load()
    assert len(cached_files(tmp_path)) == 3
    assert all(f"-{paths.CACHE_FORMAT}" in name for name in cached_files(tmp_path))
