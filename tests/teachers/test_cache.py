"""What teachers made of images, kept on disk: found again, shared, bounded, and never anything half-written."""

import copy

import pytest
import torch
from torch import nn

from kd_plugins.cli import main
from kd_plugins.teachers import Teacher, build_teacher, observe
from kd_plugins.teachers.cache import TeacherCache


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.tail = nn.Conv2d(4, 3, 3, padding=1)
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return x + self.tail(self.body(x))


@pytest.fixture
def teacher(tmp_path):
    """A teacher with a cache, as a function of the cache's arguments and of what happens to the network first."""

    def make(layers=("body",), change=lambda net: None, **arguments):
        net = Net()
        change(net)
        made = Teacher(net, "teacher", TeacherCache(str(tmp_path / "cache"), **arguments))
        made.tap(layers)
        return made

    return make


def images(count=4, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def same(mine, theirs):
    pairs = [(mine.image, theirs.image), *((mine.features[layer], value) for layer, value in theirs.features.items())]
    return all(torch.equal(one, other) for one, other in pairs)


def test_images_are_found_again_by_another_run_and_the_teacher_sees_new_ones_alone(teacher):
    first, x = teacher(), images()
    seen = first.observe(x[:3])
    assert first.net.seen == 3 and same(first.observe(x[:3]), seen) and first.net.seen == 3
    second = teacher()
    mixed = second.observe(x)
    assert second.net.seen == 1 and torch.equal(mixed.image[:3], seen.image) and mixed.image.dtype == torch.float32
    exact = second(x)
    assert (mixed.image - exact.image).abs().max() < 1e-3 and (mixed.features["body"] - exact.features["body"]).abs().max() < 1e-3
    assert (second.cache.hits, second.cache.asked) == (3, 4)
    flipped = second.observe(x.flip(-1))
    assert second.net.seen == 1 + 4 + 4 and not torch.equal(flipped.image, mixed.image)  # an image of its own


def test_views_go_through_it_in_one_batch_and_full_precision_can_be_asked_for(teacher):
    made, x = teacher(dtype="float32"), images()
    views = {"degraded": x, "clean": x.flip(-2)}
    first = observe(dict.fromkeys(views, made), views)
    again = observe(dict.fromkeys(views, made), views)
    assert made.net.seen == 8 and all(same(again[view], first[view]) for view in views)
    assert torch.equal(first["clean"].image, made(views["clean"]).image)


@pytest.mark.parametrize(
    "changes",
    [{"change": lambda net: net.tail.bias.data.add_(1e-3)}, {"layers": ()}, {"dtype": "float32"}],
    ids=["weights", "layers", "dtype"],
)
def test_another_teacher_other_layers_and_another_precision_start_anew(teacher, changes):
    x = images()
    teacher().observe(x)
    other = teacher(**changes)
    seen = other.observe(x)
    assert other.net.seen == 4 and (seen.image - other(x).image).abs().max() < 1e-3
    back = teacher()
    back.observe(x)
    assert back.net.seen == 0


@pytest.mark.parametrize("damage", ["data cut", "index cut", "entry", "byte", "no data", "rubbish"])
def test_what_is_half_written_or_damaged_is_made_again(teacher, tmp_path, damage):
    x = images()
    seen = teacher().observe(x)
    (data,), (index,) = ((list(tmp_path.glob(f"cache/*/*.{kind}"))) for kind in ("data", "index"))
    content, entries = data.read_bytes(), index.read_bytes()
    if damage == "data cut":
        data.write_bytes(content[:-7])
    if damage == "index cut":
        index.write_bytes(entries[:-7])
    if damage == "entry":
        index.write_bytes(entries[:-30] + b"\1" + entries[-29:])
    if damage == "byte":
        data.write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    if damage == "no data":
        data.unlink()
    if damage == "rubbish":
        index.write_bytes(entries + b"\7" * 120)
    made = teacher()
    again = made.observe(x)
    assert (again.image - seen.image).abs().max() < 1e-3 and made.net.seen == {"no data": 4, "rubbish": 0}.get(damage, 1)
    assert same(made.observe(x), again)


def test_two_processes_add_at_a_time_and_find_each_others(teacher, monkeypatch):
    one, other, x = teacher(), teacher(), images()
    one.observe(x[:1]), other.observe(x[1:2])
    monkeypatch.setattr("kd_plugins.teachers.cache._LOOK_AGAIN", 0)
    assert same(one.observe(x[:2]), other.observe(x[:2])) and one.net.seen == other.net.seen == 1


def test_it_stops_at_its_bound_and_where_the_disk_refuses_and_says_so_once(teacher, tmp_path, log):
    made, x = teacher(gigabytes=3e-6), images()
    for _ in range(2):
        made.observe(x)
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.*")) <= 3000
    assert log().count("nothing is added from here on: its bound is reached") == 1 and made.net.seen == 4 + 2
    (tmp_path / "cache2").write_text("a file")
    other = Teacher(Net(), "teacher", TeacherCache(str(tmp_path / "cache2")))
    assert torch.isfinite(other.observe(x).image).all() and "nothing is added" in log()


def test_the_bound_is_that_of_the_folder_whoever_writes_there(teacher, tmp_path, monkeypatch):
    made, x = [teacher(gigabytes=3e-6, layers=layers) for layers in ((), ("body",), ("tail",))], images(8)
    for one in made:  # as processes, or teachers, of one run: all begin while nothing is there
        one.observe(x[:1])
    monkeypatch.setattr("kd_plugins.teachers.cache._LOOK_AGAIN", 0)
    for image in x.split(1):
        for one in made:
            one.observe(image)
    assert 2000 < sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.*")) <= 3000


def test_values_that_half_precision_cannot_hold_are_not_kept(teacher, log):
    made, x = teacher(change=lambda net: net.body.weight.data.mul_(1e6)), images()
    seen = made.observe(x)
    assert torch.equal(seen.features["body"], made(x).features["body"]) and "float16 cannot hold" in log()
    made.observe(x)
    assert made.net.seen == 12
    broken = teacher(change=lambda net: net.body.weight.data.fill_(float("inf")), dtype="float32")
    broken.observe(x)
    assert "values that are not finite are not kept" in log()


def test_a_block_names_it_by_folder_or_arguments_and_each_task_has_its_own(teacher_file, tmp_path):
    checkpoint, folder = str(teacher_file), str(tmp_path / "cache")
    assert build_teacher({"checkpoint": checkpoint, "cache": folder}).caches()[0].bound == 20 * 10**9
    tasks = {"a": {"checkpoint": checkpoint, "cache": {"folder": folder, "gigabytes": 1}}, "b": {"checkpoint": checkpoint}}
    both, x = build_teacher({"tasks": tasks}), torch.rand(2, 3, 16, 16)
    assert [cache.bound for cache in both.caches()] == [10**9]
    assert both.observe(x, ["a", "b"]).image.shape == x.shape and both.caches()[0].asked == 1
    with pytest.raises(ValueError, match="teacher:cache:gigabytes: 0, expected"):
        build_teacher({"checkpoint": checkpoint, "cache": {"folder": folder, "gigabytes": 0}})


@pytest.mark.usefixtures("one_thread")
def test_a_second_run_on_a_bounded_number_of_crops_pays_no_teacher(options, write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options["teacher"]["cache"] = str(tmp_path / "kept")
    options["logger"].update(use_tb_logger=False, print_freq=1)
    options["num_threads"] = 1
    options["train"]["total_iter"] = 3
    assert main(["check", "-opt", write(options)]) == 0
    assert "teacher:cache: the crops of datasets:train are random without end" in capsys.readouterr().err
    options["datasets"]["train"]["crops_per_image"] = 2
    assert main(["check", "-opt", write(options)]) == 0 and "random without end" not in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["check", "-opt", write({**options, "teacher": {**options["teacher"], "cache": str(tmp_path / "file/kept")}})]) == 2
    assert "file is a file, expected a folder" in capsys.readouterr().err
    assert main(["check", "-opt", write({**options, "teacher": {**options["teacher"], "cache": "~no_such_user/kept"}})]) == 2
    weights = []
    for name in ("first", "second"):
        assert main(["train", "-opt", write({**copy.deepcopy(options), "name": name})]) == 0
        weights.append(torch.load(f"experiments/{name}/models/net_g_latest.pth", weights_only=True)["params"])
    lines = next((tmp_path / "experiments/first").glob("train_*.log")).read_text().splitlines()  # of both: one log for a process
    rates = [float(line.split("teacher_cache: ")[1].split()[0]) for line in lines if "teacher_cache: " in line]
    assert rates[0] == 0 and rates[3:] == [1, 1, 1]
    assert all(torch.allclose(value, weights[0][key], atol=1e-3) for key, value in weights[1].items())
