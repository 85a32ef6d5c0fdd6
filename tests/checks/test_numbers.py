"""Numbers of the right kind that no run can mean."""

import pytest
from option_texts import GOOD


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("logger:print_freq=0", "a number of at least 1"),  # what follows divides by it, after the run has begun
        ("logger:save_checkpoint_freq=0.5", "a number of at least 1"),
        ("val:val_freq=-1", "a number of at least 1"),
        ("train:total_iter=0", "a number from 1 to 1e+12"),
        ("train:ema_decay=1.5", "a number from 0 to 1"),
        ("train:ema_decay=.nan", "a number from 0 to 1"),
        ("train:grad_clip=-0.01", "a number of at least 0 or nothing"),  # would turn the gradient round
        ("train:optim_g:lr=.inf", "a number"),
        ("train:scheduler={type: CosineAnnealingRestartLR, periods: [.nan]}", "a list of numbers"),
        ("train:scheduler={type: CosineAnnealingLR, T_max: 0}", "a number of at least 1"),
        ("train:pixel_opt:loss_weight=.nan", "a number"),
        ("train:pixel_opt:loss_weight=[1]", "a number"),
        ("train:pixel_opt:loss_weight=1000000000000000000000", "a number"),
        ("network_g:dim=9223372036854775808", "a whole number"),
        ("train:pixel_opt={type: CharbonnierLoss, eps: [1]}", "a number"),
        ("train:max_bad_steps=-1", "a whole number of at least 0"),
        ("datasets:train:dataset_enlarge_ratio=0", "a number above 0"),
        ("datasets:train:dataset_enlarge_ratio=.inf", "a number above 0"),
        ("datasets:train:batch_size_per_gpu=0", "a whole number from 1 to 65536 or nothing"),
        ("datasets:train:num_worker_per_gpu=-1", "a whole number from 0 to 256 or nothing"),
        ("datasets:train:num_worker_per_gpu=1000000", "a whole number from 0 to 256 or nothing"),
        ("datasets:train:num_prefetch_queue=100000", "a whole number from 1 to 65536 or nothing"),
        ("train:total_iter=1.0e+300", "a number from 1 to 1e+12"),
        ("datasets:train:gt_size=-8", "a whole number of at least 1 or nothing"),
        ("val:metrics:psnr:crop_border=-1", "a whole number of at least 0"),
        ("manual_seed=-1", "a whole number from 0 to 4294967295 or nothing"),
        ("num_threads=-1", "a whole number from 0 to 1024 or nothing"),
        ("num_threads=1000000", "a whole number from 0 to 1024 or nothing"),
    ],
)
def test_a_number_out_of_range_is_refused(check, entry, expected):
    assert any(f", expected {expected}" in line for line in check(GOOD, entry))


@pytest.mark.parametrize(
    "entry",
    [
        "network_g={file: net.py, class: Net, width: .nan}",  # the keys of what is another's are not known
        "train:distill:mine={type: package.module.MyLoss, steps: [1, .nan]}",
        "datasets:train:degradation={type: mine, strength: {low: .nan}}",
        "dist_params={backend: gloo, patience: .nan}",
    ],
)
def test_what_is_not_a_number_is_refused_in_blocks_that_are_not_known_too(check, entry):
    assert len([line for line in check(GOOD, entry) if line.endswith(": nan, expected a number")]) == 1


def test_a_users_own_notes_may_be_anything(check):
    check(GOOD, "x-mine={any: 1, other: [.nan]}", code=0)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("val:tile=20", "val:tile: 20, expected more than the overlap, 32"),
        ("val:tile=whole", "val:tile: 'whole', expected"),
        ("val:grids=true", "val:crop_size_h: missing, `grids` needs it"),
        ("tile={tile_pad: 8}", "tile:tile_size: missing"),
    ],
)
def test_tiles_that_cannot_be_are_refused(check, entry, said):
    assert any(said in line for line in check(GOOD, entry))


GAN, SOLVER = "train:gan_opt={type: GANLoss, gan_type: vanilla}", "train:optim_d={type: Adam, lr: 1}"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["train:accumulate=-1"], "train:accumulate: -1, expected a whole number of at least 1"),
        (["scale=0"], "scale: 0, expected a whole number from 1 up"),
        (["features=decoder"], "features: 'decoder', expected a mapping or auto"),
        (["train:accumulate=true"], "train:accumulate: True, expected a whole number of at least 1"),
        ([GAN, SOLVER, "network_d=0"], "network_d: 0, expected {type: a registered architecture"),
        (["train:net_d_iters=1.5"], "train:net_d_iters: 1.5, expected a number of at least 1 and divisible by 1"),
        (
            [
                GAN,
                "network_d={type: UNetDiscriminatorSN, num_in_ch: 3}",
                "train:optim_d={type: Adam, lr: 1}",
                "train:net_d_iters=401",
            ],
            "train:net_d_iters: 401, the student's first step would be 401, and the run ends at 400",
        ),
        (["train:net_d_init_iters=.inf"], "train:net_d_init_iters: inf, expected a number of at least 0"),
        ([f"teacher:cache={'x' * 999}"], "no folder can have this name: File name too long"),
        (['teacher:cache=""'], "teacher:cache: '', expected a folder, or nothing (~) for no cache"),
        (['teacher:cache={folder: ""}'], "teacher:cache: '', expected a folder, or nothing (~) for no cache"),
        (['datasets:train:photos=""'], "datasets:train:photos: '', expected a path"),
        (['datasets:train:photos=[a.yml, ""]'], "datasets:train:photos: '', expected a path"),
        (["datasets:train:photos=[]"], "datasets:train:photos: photos is an empty list"),
        (['teacher:checkpoint=""'], "teacher:checkpoint: '', expected a path"),
        (['path:pretrain_network_g=""'], "path:pretrain_network_g: '', no such file or folder"),
        (['teacher:cache="a\\0b"'], "no folder can have this name: embedded null byte"),
    ],
)
def test_a_wrong_value_has_one_sentence(check, entries, said):
    (line,) = [line for line in check(GOOD, *entries) if not line.endswith("(a warning)")]
    assert said in line
