"""Each key of an option file: values that cannot be used."""

import pytest
from option_texts import GOOD


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("model_type=SLKDModl", "model_type: 'SLKDModl', no registered model; nearest: SLKDModel"),
        ("network_g:type=[a]", "network_g:type: ['a'], no registered architecture"),
        ("network_g={dim: 8}", "network_g:type: missing, expected a registered architecture"),
        ("network_g:dim=wide", "network_g:dim: 'wide', expected a whole number"),
        ("network_g:bias=1", "network_g:bias: 1, expected true or false"),
        ("network_g=Restormer", "network_g: 'Restormer', expected {type: a registered architecture, ...}"),
        ("network_g={type: EDSR, num_in_ch: 3}", "network_g:num_out_ch: missing, EDSR needs it"),
        ("datasets:val:type=PairedImageDatset", "datasets:val:type: 'PairedImageDatset', no registered dataset; nearest: Paired"),
        ("datasets:train:use_hflp=true", "datasets:train:use_hflp: True, DegradedPhotoDataset has no such key; nearest: use_hflip"),
        ("datasets:train:degradation=[]", "datasets:train:degradation: [], expected {type: a registered degradation, ...}"),
        (f"teacher:checkpoint={'x' * 300}", "is no file and no bundled checkpoint"),  # longer than a file's name may be
        (f"datasets:train:photos={'x' * 300}", "datasets:train:photos: "),
        ("datasets:train:degradation:type=rian", "degradation:type: 'rian', no registered degradation; nearest: rain"),
        (
            "datasets:train:degradation=[{type: rain}, {type: noise, sigm: 5}]",
            "degradation:1:sigm: 5, GaussianNoise has no such key",
        ),
        ("datasets:train:photos=nowhere", "datasets:train:photos: photos names 'nowhere', which does not exist"),
        ("datasets:train:prefetch_mode=gpu", "datasets:train:prefetch_mode: 'gpu', expected one of cpu, cuda, nothing"),
        ("datasets:train:batch_size_per_gpu=~", "batch_size_per_gpu: missing, training on DegradedPhotoDataset needs it"),
        (
            "datasets:test={name: a, type: DegradedPhotoDataset, photos: builtin, degradation: {type: rain}}",
            "datasets:test: expected train, val",
        ),
        (
            "datasets:val={name: a, type: PairedImageDataset, dataroot_gt: gt, dataroot_lq: ., io_backend: {type: disk}}",
            "datasets:val:dataroot_gt: 'gt', no such file or folder (looked from ",
        ),
        (
            "datasets:val={name: a, type: PairedImageDataset, dataroot_gt: ., io_backend: {type: disk}}",
            "datasets:val:dataroot_lq: missing",
        ),
        (
            "datasets:train={name: a, type: SingleImageDataset, dataroot_lq: ., io_backend: {type: disk}, batch_size_per_gpu: 1, "
            "num_worker_per_gpu: 0}",
            "train:pixel_opt: it compares with the clean image, which datasets:train (SingleImageDataset) does not have",
        ),
        ("teacher:checkpoint=nowhere.pth", "teacher:checkpoint: 'nowhere.pth' is no file and no bundled checkpoint"),
        ("teacher:dim=8", "teacher:dim: 8, a block without `type` has no such key"),
        ("teacher=~", "teacher: missing, kl, nc, et compare with it"),
        ("init=techer", "init: 'techer', expected a mapping or teacher or random"),
        ("init={from: teacher, channel: first}", "init:channel: 'first', init has no such key; nearest: channels"),
        ("init={from: teacher, refit: 1.5}", "init:refit: 1.5, expected true or false"),
        ("init={from: teacher, refits: true}", "init:refits: True, init has no such key; nearest: refit"),
        ("init={from: teacher, channels: last}", "init:channels: 'last', expected one of magnitude, first, importance"),
        ("network_g={from_teacher: {flop: 0.2}}", "network_g:from_teacher:flop: 0.2, from_teacher has no such key; nearest: flops"),
        ("network_g={from_teacher: {ms: 20, size: big}}", "network_g:from_teacher: size: 'big', expected pixels: 256, or 512x768"),
        ("network_g={from_teacher: {flops: 2}}", "network_g:from_teacher:flops: 2, expected a number above 0"),
        (
            "network_g={from_teacher: {flops: 0.2, params: 0.2}}",
            "network_g:from_teacher: flops, params, expected one of {flops: 0.15}, {params: 0.15}, {latency: 0.25}",
        ),
        (
            "network_g={from_teacher: {flops: 0.2}, type: NAFNet}",
            "network_g:type: 'NAFNet', beside `from_teacher`, expected",
        ),
        ("init={channels: first}", "init:from: missing, init needs it"),
        ("amp=fp8", "amp: 'fp8', expected one of bf16, fp16, false, nothing"),
        (
            "features:encoder=[[a, b, c]]",
            "features:encoder: [['a', 'b', 'c']], expected auto or a list (each a list of 2 values)",
        ),
        ("features={encoder: auto}", "train:distill:et:between: 'decoder', expected output, or groups of `features`"),
        ("features={middle: auto}", "features:middle: 'auto' is known for encoder and decoder, expected [[student layer, teacher"),
        ("features=decoder", "features: 'decoder', expected a mapping or auto"),
        ("path:pretrain_network_g=none.pth", "path:pretrain_network_g: 'none.pth', no such file or folder"),
        ("path:resume_state=none.state", "path:resume_state: 'none.state', no such file or folder"),
        ("path:pretrain_netwrk_g=a", "path:pretrain_netwrk_g: 'a', path has no such key; nearest: pretrain_network_g"),
        ("train:optim_g:type=Admw", "train:optim_g:type: 'Admw', no registered optimizer; nearest: Adam"),
        ("train:optim_g:lr=fast", "train:optim_g:lr: 'fast', expected a number"),
        ("train:optim_g:beta=[0.9, 0.99]", "train:optim_g:beta: [0.9, 0.99], Adam has no such key; nearest: betas"),
        ("train:scheduler:type=CosineLR", "train:scheduler:type: 'CosineLR', no registered scheduler; nearest: "),
        ("train:scheduler:etamin=0", "train:scheduler:etamin: 0, CosineAnnealingLR has no such key; nearest: eta_min"),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [1, 2]}",
            "restart_weights: 1 weights, expected one for each of 2 periods",
        ),
        (
            "train:scheduler={type: CosineAnnealingRestartLR, periods: [100, 200], restart_weights: [1, 1]}",
            "train:scheduler:periods: [100, 200], together 300, expected at least total_iter, ",
        ),
        ("train:ldl_opt={type: L1Loss}", "'L1Loss'}, SLKDModel has no such"),
        ("train:pixel_opt={type: ContrastiveImageLoss}", "'ContrastiveImageLoss', which needs 'lq' as well, expected a term of"),
        ("train:pixel_opt={type: WeightedTVLoss}", "train:pixel_opt:type: 'WeightedTVLoss', the loss takes 'weight' in place of"),
        ("train:distill:x={type: WeightedTVLoss}", "train:distill:x: the loss takes 'weight' in place of a second image"),
        ("train:perceptual_opt={type: PerceptualLoss}", "train:perceptual_opt:layer_weights: missing, PerceptualLoss needs it"),
        ("train:pixel_opt:reduction=none", "train:pixel_opt:reduction: 'none', expected one of mean, sum"),
        (
            "train:gan_opt={type: GANLoss, gan_type: vanila}",
            "gan_type: 'vanila', expected one of vanilla, lsgan, wgan, wgan_softplus, hinge",
        ),
        (
            "train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv5_9: 1}}",
            "conv5_9: 1, VGG has no such key; nearest: conv5_4",
        ),
        ("train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv1_1: 1}, vgg_type: vgg18}", "nearest: vgg19"),
        (
            "train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv1_1: 1, conv5_4: 1}, vgg_type: vgg16}",
            "train:perceptual_opt:layer_weights:conv5_4: 1, vgg16 has no such layer; nearest: conv5_3",
        ),
        (
            "train:distill:look={type: PerceptualLoss, layer_weights: {bn1_1: 0.5}}",
            "train:distill:look:layer_weights:bn1_1: 0.5, vgg19 has no such layer; nearest: ",
        ),
        (
            "train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv1_1: 1}, criterion: l2}",
            "'l2', expected one of l1, fro",
        ),
        ("train:transforms={hflp: 0.5}", "train:transforms:hflp: 0.5, ViewTransform has no such key; nearest: hflip"),
        ("compile=1", "compile: 1, expected a mapping or true or false"),
        ("compile=fast", "compile: 'fast', expected a mapping or true or false"),
        ("compile={mode: reduce-overhead}", "compile:mode: 'reduce-overhead', expected one of default, max-autotune"),
        ("channels_last=yess", "channels_last: 'yess', expected true or false or auto"),
        ("train:accumulate=3", "train:accumulate: 3, expected a divisor of the batch of 4: 1, 2, 4"),
        ("train:accumulate=some", "train:accumulate: 'some', expected a whole number of at least 1"),
        ("train:grad_clip=small", "train:grad_clip: 'small', expected a number of at least 0 or nothing"),
        ("train:distill:kl=SpatialKLLoss", "train:distill:kl: 'SpatialKLLoss', expected {type: a registered loss, ...}"),
        (
            "train:distill:x={type: L1Loss, view: clear}",
            "train:distill:x:view: 'clear', expected one of degraded, clean, transformed, zoomed, zoomed_out",
        ),
        ("features={1: [[latent, latent]]}", "train:distill:nc:between: 'encoder', expected output, or groups of `features`"),
        ("train:distill:x={type: L1Loss, between: latent}", "train:distill:x:between: 'latent', expected output, or groups"),
        (
            "train:distill:x={type: L1Loss, between: encoder, view: transformed}",
            "train:distill:x: view: transformed: between: encoder",
        ),
        (
            "train:distill:x={type: ContrastRatioLoss, extractor: {weights: a.yml}}",
            "ContrastRatioLoss: it needs negatives, which SLKDModel does not make, expected model_type: DCKDModel",
        ),
        ("train:distill:x={type: ContrastiveImageLoss, between: encoder}", "the loss needs 'lq'; here it can have raw, stride"),
        ("train:distill:x={type: ExtractorLoss, between: encoder}", "train:distill:x:extractor: missing, ExtractorLoss needs it"),
        # a term that the model brings has its type from there
        ("train:distill:nc={loss_wieght: 0.2}", "train:distill:nc:loss_wieght: 0.2, BrisqueFeatureLoss has no such key"),
        (
            "train:distill:x={type: ExtractorLoss, between: encoder, extractor: {type: PiqExtractor}}",
            "train:distill:x:extractor:type: 'PiqExtractor', no registered extractor; nearest: PiqeExtractor",
        ),
        (
            "train:distill:x={type: ExtractorLoss, between: encoder, extractor: {type: PiqeExtractor, blok: 8}}",
            "train:distill:x:extractor:blok: 8, PiqeExtractor has no such key; nearest: block",
        ),
        (
            "train:distill:x={type: ContrastiveImageLoss, extractor: {type: VGGExtractor, weights: vgg.pth}}",
            "train:distill:x:extractor:weights: 'vgg.pth', no such file or folder",
        ),
        ("val:metrics:psnr:type=calculate_psnrr", "psnr:type: 'calculate_psnrr', no registered metric; nearest: calculate_psnr"),
        (
            "val:metrics:psnr:test_y_chanel=true",
            "psnr:test_y_chanel: True, calculate_psnr has no such key; nearest: test_y_channel",
        ),
        ("val:metrics:psnr={type: calculate_psnr}", "val:metrics:psnr:crop_border: missing, calculate_psnr needs it"),
        ("val:metrics:psnr:better=best", "val:metrics:psnr:better: 'best', expected one of higher, lower, nothing"),
        ("val:metrics:psnr:input_order=CHW", "val:metrics:psnr:input_order: 'CHW', expected HWC"),
        ("val:metrics:x={type: calculate_niqe, crop_border: 0, convert_to: gry}", "x:convert_to: 'gry', expected one of y, gray"),
        ("val:panel=2", "val:panel: 2, SLKDModel has no such key; nearest: panels"),
        ("logger:use_tb_loger=true", "logger:use_tb_loger: True, the log has no such key; nearest: use_tb_logger"),
        ("dckd={}", "dckd: {}, SLKDModel has no such key"),
        ("chanels_last=true", "chanels_last: True, SLKDModel has no such key; nearest: channels_last"),
        ("scale=0", "scale: 0, expected a whole number from 1 up"),
        ("train=~", "train: missing, SLKDModel needs it"),
        ("train=[]", "train: [], expected a mapping"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(check, entry, said):
    assert any(said in line for line in check(GOOD, entry))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("train:total_iter=500", "T_max: 400, and total_iter is 500: the learning rate rises again after iteration 400"),
        ("train:warmup_iter=400", "train:warmup_iter: 400, and the run ends at 400, before it is warm"),
    ],
)
def test_a_schedule_that_does_not_go_with_the_run_is_a_warning(check, entry, said):
    assert any(said in line for line in check(GOOD, entry, code=0))
    assert not any("T_max" in line or "warmup" in line for line in check(GOOD, code=0))


def test_the_blocks_that_a_method_reads_are_checked(check):
    block = "dckd={histry: {}, negatives: {count: few}, tokenizer: {weights: none.ckpt}}"
    lines = "\n".join(check(GOOD, "model_type=DCKDModel", "train:distill={kl: ~}", block))
    assert "dckd:histry: {}, dckd has no such key; nearest: history" in lines
    assert "dckd:negatives:count: 'few', expected a whole number" in lines
    assert "dckd:tokenizer:weights: 'none.ckpt', no such file or folder" in lines
