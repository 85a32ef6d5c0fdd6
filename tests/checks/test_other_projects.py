"""Option files written for BasicSR itself and for its forks: accepted, or refused with the reason."""

import pytest

COMMON = """
name: trial
model_type: MODEL
scale: 4
num_gpu: 1
manual_seed: 0
datasets:
  train:
    name: pairs
    type: PairedImageDataset
    dataroot_gt: images
    dataroot_lq: images
    filename_tmpl: '{}'
    io_backend: {type: disk}
    gt_size: 128
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val: {name: Set5, type: PairedImageDataset, dataroot_gt: images, dataroot_lq: images, io_backend: {type: disk}}
network_g: {type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 16, upscale: 4}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0.999
  optim_g: {type: Adam, lr: !!float 2e-4, weight_decay: 0, betas: [0.9, 0.99]}
  scheduler: {type: CosineAnnealingRestartLR, periods: [250000, 250000], restart_weights: [1, 1], eta_min: !!float 1e-7}
  total_iter: 500000
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}
val:
  val_freq: !!float 5e3
  save_img: false
  metrics:
    psnr: {type: calculate_psnr, crop_border: 4, test_y_channel: false}
    niqe: {type: calculate_niqe, crop_border: 4, better: lower}
logger: {print_freq: 100, save_checkpoint_freq: !!float 5e3, use_tb_logger: true, wandb: {project: ~, resume_id: ~}}
dist_params: {backend: nccl, port: 29500}
"""
NETWORK = "{type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 16, upscale: 4}"
PAIRS = "    type: PairedImageDataset\n    dataroot_gt: images\n    dataroot_lq: images\n    filename_tmpl: '{}'\n"
SR = COMMON.replace("MODEL", "SRModel")
GAN = (
    COMMON.replace("MODEL", "ESRGANModel")
    .replace(
        "  pixel_opt:",
        """  optim_d: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  perceptual_opt: {type: PerceptualLoss, layer_weights: {conv5_4: 1}, vgg_type: vgg19, use_input_norm: true, range_norm: false,
    perceptual_weight: 1.0, style_weight: 0, criterion: l1}
  gan_opt: {type: GANLoss, gan_type: vanilla, real_label_val: 1.0, fake_label_val: 0.0, loss_weight: !!float 5e-3}
  net_d_iters: 1
  net_d_init_iters: 0
  pixel_opt:""",
    )
    .replace("path: {", "network_d: {type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 64}\npath: {pretrain_network_d: ~, ")
)
PASS = """resize_probN: [0.2, 0.7, 0.1]
resize_rangeN: [0.15, 1.5]
gaussian_noise_probN: 0.5
noise_rangeN: [1, 30]
poisson_scale_rangeN: [0.05, 3]
gray_noise_probN: 0.4
jpeg_rangeN: [30, 95]
"""
SYNTHESIS = f"gt_usm: true\nsecond_blur_prob: 0.8\ngt_size: 256\nqueue_size: 192\n{PASS.replace('N', '')}{PASS.replace('N', '2')}"
KERNEL = """    blur_kernel_sizeN: 21
    kernel_listN: ['iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso']
    kernel_probN: [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
    sinc_probN: 0.1
    blur_sigmaN: [0.2, 3]
    betag_rangeN: [0.5, 4]
    betap_rangeN: [1, 2]
"""
KERNELS = f"""    type: RealESRGANDataset
    dataroot_gt: .
    meta_info: a.yml
{KERNEL.replace("N", "")}{KERNEL.replace("N", "2")}    final_sinc_prob: 0.8
"""
REAL = COMMON.replace("MODEL", "RealESRNetModel").replace("scale: 4\n", f"scale: 4\n{SYNTHESIS}").replace(PAIRS, KERNELS)
VIDEO = (
    COMMON.replace("MODEL", "VideoRecurrentModel")
    .replace(NETWORK, "{type: BasicVSR, num_feat: 64}")
    .replace("ema_decay: 0.999", "ema_decay: 0.999\n  fix_flow: 5000\n  flow_lr_mul: 0.125")
    .replace("save_img: false", "save_img: false\n  flip_seq: false\n  center_frame_only: false")
    .replace(
        PAIRS,
        "    type: REDSRecurrentDataset\n    dataroot_gt: images\n    dataroot_lq: images\n    meta_info_file: a.yml\n"
        "    val_partition: REDS4\n    test_mode: false\n    num_frame: 15\n    interval_list: [1]\n    random_reverse: false\n",
    )
    .replace("scale: 4\n", "scale: 4\nfind_unused_parameters: true\n", 1)
)
STYLE = (
    COMMON.replace("MODEL", "StyleGAN2Model")
    .replace(NETWORK, "{type: StyleGAN2Generator, out_size: 8}")
    .replace("path: {", "network_d: {type: StyleGAN2Discriminator, out_size: 8}\npath: {")
    .replace(
        "  optim_g", "  r1_reg_weight: 10\n  net_d_reg_every: 16\n  mixing_prob: 0.9\n  optim_d: {type: Adam, lr: 2e-3}\n  optim_g"
    )
    .replace("  pixel_opt", "  gan_opt: {type: GANLoss, gan_type: wgan_softplus, loss_weight: !!float 1}\n  pixel_opt")
    .replace("  val_freq", "  num_val_samples: 16\n  val_freq")
)
RESTORMER = (
    COMMON.replace("MODEL", "ImageCleanModel")
    .replace("scale: 4", "scale: 1")
    .replace("    type: PairedImageDataset", "    type: Dataset_PairedImage")
    .replace(
        "    gt_size: 128\n    use_hflip: true\n    use_rot: true\n",
        "    geometric_augs: true\n    mini_batch_sizes: [8, 5]\n    iters: [92000, 64000]\n"
        "    gt_sizes: [128, 160]\n    gt_size: 384\n",
    )
    .replace(NETWORK, "{type: Restormer, dim: 48}")
    .replace("eta_min: !!float 1e-7", "eta_mins: [0.0003, 0.000001]")
    .replace("CosineAnnealingRestartLR", "CosineAnnealingRestartCyclicLR")
    .replace("type: Adam,", "type: AdamW,")
    .replace(
        "  pixel_opt:", "  use_grad_clip: true\n  mixing_augs: {mixup: false, mixup_beta: 1.2, use_identity: true}\n  pixel_opt:"
    )
    .replace("  val_freq", "  window_size: 8\n  rgb2bgr: true\n  use_image: false\n  max_minibatch: 8\n  val_freq")
)


@pytest.fixture
def check(run_check):
    """The exit code, the errors and the warnings of the command."""

    def run(text, *entries):
        code, _, err = run_check(text, *entries)
        lines = [line for line in err.splitlines() if not line.startswith("basicsr check:")]
        warnings = [line for line in lines if line.endswith("(a warning)")]
        return code, [line for line in lines if line not in warnings], warnings

    return run


@pytest.mark.parametrize("text", [SR, GAN, REAL, VIDEO, STYLE], ids=["SR", "GAN", "RealESRNet", "video", "StyleGAN2"])
def test_files_of_basicsr_are_accepted(check, text):
    assert check(text) == (0, [], [])


def test_a_file_of_basicsr_stays_one_when_a_teacher_joins(check):
    code, errors, _ = check(SR.replace("SRModel", "DistillationModel"), "teacher={type: MSRResNet, upscale: 4, checkpoint: a.yml}")
    assert (code, errors) == (0, [])


def test_a_file_of_real_esrgan_stays_one_when_a_teacher_joins_and_says_what_it_lacks(check):
    text = REAL.replace("RealESRNetModel", "DistillationModel")
    teacher = "teacher={type: MSRResNet, upscale: 4, checkpoint: a.yml}"
    assert check(text, teacher)[:2] == (0, [])
    assert "scale: 'two', expected a whole number" in check(text, teacher, "scale=two")[1][0]
    text = text.replace("jpeg_range2: [30, 95]\n", "").replace("gt_usm: true\n", "").replace("final_sinc_prob: 0.8", "own: 1")
    code, errors, _ = check(
        text, teacher, "queue_size=100", "gt_size=402", "resize_prob=[0.2, 0.7]", "scale=3", "jpeg_range=[0, 95]"
    )
    assert code == 2
    for said in (
        "jpeg_range2: missing, the degradation of Real-ESRGAN needs it",
        "gt_usm: missing, expected true or false, or l1_gt_usm, percep_gt_usm, gan_gt_usm in its place",
        "datasets:train:final_sinc_prob: missing",
        "queue_size: 100, expected a multiple of batch_size_per_gpu, 16",
        "resize_prob: [0.2, 0.7], expected a list of 3 values",
        "jpeg_range: [0, 95], expected [lo, hi]",
        "scale: 3, expected a divisor of 400, the side of RealESRGANDataset's images",
        "gt_size: 402, expected at most 400",
    ):
        assert any(said in line for line in errors), said


def test_unknown_keys_are_warnings_for_models_of_basicsr(check):
    code, errors, warnings = check(SR, "own_key=1", "train:ema_decy=0.9", "val:own=2")
    assert (code, errors) == (0, []) and len(warnings) == 3
    assert "train:ema_decy: 0.9, SRModel has no such key; nearest: ema_decay" in "".join(warnings)


def test_names_are_checked_for_models_of_basicsr_too(check):
    code, errors, _ = check(GAN, "network_d:type=VGGStyleDiscriminatr", "train:gan_opt:gan_typ=vanilla", "train:optim_d:type=AdamW")
    assert code == 2
    for said in (
        "network_d:type: 'VGGStyleDiscriminatr', no registered architecture; nearest: VGGStyleDiscriminator",
        "train:gan_opt:gan_typ: 'vanilla', GANLoss has no such key; nearest: gan_type",
        "train:optim_d:type: 'AdamW', no registered optimizer; nearest: Adam",
    ):
        assert any(said in line for line in errors)


def test_a_file_of_restormer_is_refused_with_every_reason(check):
    code, errors, warnings = check(RESTORMER)
    assert code == 2
    reasons = {
        "model_type: 'ImageCleanModel', no registered model: Restormer's name; its counterpart is DistillationModel",
        "datasets:train:type: 'Dataset_PairedImage', no registered dataset: Restormer's name; its counterpart is Paired",
        "datasets:train:geometric_augs: True, a key of Restormer: flips and turns; here `use_hflip: true` and `use_rot: true` do",
        "train:scheduler:type: 'CosineAnnealingRestartCyclicLR', no registered scheduler: Restormer's name; its `eta_mins`",
    }
    assert len(errors) == len(reasons)
    for reason in reasons:
        assert any(reason in line for line in errors), reason
    for key in ("train:mixing_augs", "val:window_size", "val:rgb2bgr", "val:use_image", "val:max_minibatch"):
        assert any(f"{key}: " in line and "it has no effect" in line for line in warnings), key


def test_a_file_of_restormer_is_accepted_once_what_trains_differently_is_written_as_here(check):
    text = RESTORMER.replace("ImageCleanModel", "DistillationModel").replace("Dataset_PairedImage", "PairedImageDataset")
    text = text.replace("    geometric_augs: true\n", "    use_hflip: true\n    use_rot: true\n").replace("Cyclic", "")
    text = text.replace("eta_mins: [0.0003, 0.000001]", "eta_min: 0.000001")
    code, errors, warnings = check(text)
    assert (code, errors) == (0, []) and len(warnings) == 5


def test_mixing_is_refused_only_where_it_is_on(check):
    text = SR.replace("SRModel", "DistillationModel")
    assert check(text, "train:mixing_augs={mixup: false, mixup_beta: 1.2, use_identity: true}")[0] == 0
    code, (error,), _ = check(text, "train:mixing_augs={mixup: true, mixup_beta: 1.2}")
    assert code == 2 and "mixes the images of a batch" in error


def test_a_file_of_nafnet_is_refused_with_every_reason(check):
    text = (
        COMMON.replace("MODEL", "ImageRestorationModel").replace("type: L1Loss", "type: PSNRLoss").replace("use_hflip", "use_flip")
    )
    text = text.replace(
        "CosineAnnealingRestartLR, periods: [250000, 250000], restart_weights: [1, 1]", "TrueCosineAnnealingLR, T_max: 500000"
    )
    text = text.replace("  val_freq", "  grids: true\n  crop_size_h_ratio: 0.5\n  crop_size_w: 256\n  max_minibatch: 8\n  val_freq")
    code, errors, warnings = check(text)
    assert code == 2 and ["val:max_minibatch: 8, a key of NAFNet" in line for line in warnings] == [True]
    reasons = ("ImageRestorationModel", "NAFNet's name; no loss here is the PSNR", "use_flip: True, a key of NAFNet: mirrors")
    for reason in reasons:
        assert any(reason in line for line in errors), reason
    assert not any("scheduler" in line for line in errors)


def test_the_schedulers_of_ours_are_not_basicsrs(check):
    code, (error,), _ = check(SR, "train:scheduler={type: TrueCosineAnnealingLR, T_max: 4}")
    assert code == 2 and "BasicSR's own models do not have it, those of kd_plugins do" in error


REDUX = (
    COMMON.replace("MODEL", "DistillationModel")
    .replace("scale: 4", "scale: 4\nuse_amp: true\nfast_matmul: false\nuse_compile: true\ninput_pixel_format: rgb", 1)
    .replace("gt_size: 128", "lq_size: 32\n    accum_iter: 1")
    .replace("  pixel_opt: {type: L1Loss, loss_weight: 1.0, reduction: mean}", "  grad_clip: false\n  losses: [{type: l1loss}]")
    .replace("  val_freq", "  val_enabled: true\n  tile_size: 0\n  tile_overlap: 8\n  val_freq")
    .replace("logger: {", "logger: {save_checkpoint_format: safetensors, ")
)


def test_a_file_of_trainner_redux_is_told_what_its_keys_are_called(check):
    code, errors, warnings = check(REDUX, "datasets:train:type=pairedimagedataset")
    assert code == 2
    for said in (
        "datasets:train:lq_size: 32, a key of traiNNer-redux: the crop of the small image; here `gt_size`, larger by the scale",
        "datasets:train:type: 'pairedimagedataset', no registered dataset: traiNNer-redux's name; its counterpart is PairedImage",
        "train:losses: [{'type': 'l1loss'}], a key of traiNNer-redux: a list of losses; here pixel_opt",
    ):
        assert any(said in line for line in errors), said
    assert not any(key in line for line in errors for key in ("accum_iter", "grad_clip", "tile_size", "pixel_format"))
    for key in (
        "use_amp",
        "use_compile",
        "datasets:train:accum_iter",
        "val:val_enabled",
        "val:tile_size",
        "logger:save_checkpoint",
    ):
        assert any(key in line and "it has no effect" in line for line in warnings), key
    assert any("train:accum_iter: 4, a key of traiNNer-redux" in line for line in check(REDUX, "datasets:train:accum_iter=4")[1])


def test_a_file_of_neosr_is_told_what_its_keys_are_called(check):
    neosr = ("patch_size=64", "batch_size=8", "accumulate=2", "augmentation=[none, mixup]", "type=otf")
    train = ("ema=0.999", "wavelet_guided=true", "match_lq=true", "eco=false", "mssim_opt={type: mssim_loss}")
    entries = [*(f"datasets:train:{each}" for each in neosr), *(f"train:{each}" for each in train)]
    code, errors, warnings = check(
        COMMON.replace("MODEL", "image"), *entries, "logger:total_iter=1000", "degradations={jpeg_range: [40, 95]}", "bfloat16=true"
    )
    assert code == 2
    for said in (
        "model_type: 'image', no registered model: neosr's name; its counterpart is DistillationModel",
        "datasets:train:patch_size: 64, a key of neosr: the crop of the small image",
        "datasets:train:batch_size: 8, a key of neosr: here `batch_size_per_gpu`",
        "datasets:train:accumulate: 2, a key of neosr: sums the gradients of so many batches",
        "datasets:train:augmentation: ['none', 'mixup'], a key of neosr",
        "datasets:train:type: 'otf', no registered dataset: neosr's name; its counterpart is RealESRGANDataset",
        "train:ema: 0.999, a key of neosr: averages the weights; here `ema_decay`",
        "train:wavelet_guided: True, a key of neosr",
        "train:match_lq: True, a key of neosr",
        "train:mssim_opt: {'type': 'mssim_loss'}, a key of neosr: a loss of its own",
        "logger:total_iter: 1000, a key of neosr: the last iteration; here `train: total_iter`",
        "degradations: {'jpeg_range': [40, 95]}, a key of neosr: Real-ESRGAN's",
    ):
        assert any(said in line for line in errors), said
    assert not any("eco" in line for line in errors)
    assert any("bfloat16: True, a key of neosr: mixed precision; here `amp: bf16`" in line for line in warnings)
