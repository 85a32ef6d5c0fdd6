"""Options that are right one by one, and do not fit in scale."""

from option_texts import GOOD


def test_a_scale_is_that_of_the_networks(check):
    edsr = "{type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 4}"
    entries = ("model_type=DistillationModel", "init=random", "teacher=~", f"network_g={edsr}")
    pairs = "{name: a, type: PairedImageDataset, dataroot_gt: images, dataroot_lq: images, io_backend: {type: disk}, gt_size: 130, "
    pairs += "use_hflip: true, use_rot: ~, batch_size_per_gpu: 1, num_worker_per_gpu: 0}"
    assert "gt_size: 130, expected a multiple of the scale, 4" in check(GOOD, *entries, "scale=4", f"datasets:train={pairs}")[0]
    smaller = ("datasets:val=~", "datasets:train:degradation={type: downsample, scale: 2}")
    assert "network_g:upscale: 4, expected the file's scale, 2" in check(GOOD, *entries, "scale=2", *smaller)[0]
    said = "datasets:train:degradation: makes images 2 times smaller, expected the file's scale, 4"
    assert said in check(GOOD, *entries, "scale=4", *smaller)[0]
    assert "makes images 1 times smaller" in check(GOOD, *entries, "scale=4", "datasets:val=~")[0]
    check(GOOD, *entries, "scale=4", "datasets:val=~", "datasets:train:degradation={type: downsample, scale: 4}", code=0)


def test_a_clean_view_is_refused_where_input_and_output_differ_in_size(check):
    entries = ("scale=2", "datasets:val=~", "datasets:train:degradation={type: downsample, scale: 2}")
    said = "train:distill:et: the clean image is no input of a teacher at scale 2"
    assert any(said in line for line in check(GOOD, *entries))
    assert not any(said in line for line in check(GOOD, *entries, "train:distill:et=~", code=0))


def test_a_view_is_zoomed_out_by_a_scale_that_the_crops_allow(check):
    zoomed = ("model_type=DistillationModel", "train:distill={x: {type: L1Loss, view: zoomed_out}}", "features=~")
    said = "train:distill:x:view: at scale 1 there is nothing to zoom out of, expected view: zoomed, or `x: ~`"
    assert any(said in line for line in check(GOOD, *zoomed))
    entries = ("scale=2", "datasets:val=~", "datasets:train:degradation={type: downsample, scale: 2}")
    said = "crops of gt_size: 18 are inputs of 9, expected a multiple of 4, the scale twice, or `x: ~`"
    assert any(said in line for line in check(GOOD, *zoomed, *entries, "datasets:train:gt_size=18"))
    assert not any("zoom" in line for line in check(GOOD, *zoomed, *entries, "datasets:train:gt_size=16", code=0))
